package wan

import (
	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// syncLane is the lane states travel in.
const syncLane crdt.Lane = crdt.Lanes - 1

// syncOut is a state sync this side sends.
type syncOut struct {
	waiting bool // asked for; another peer's snapshot must close first
	cursor  []byte
	id      uint64 // of the request
	snap    Snapshot
	begun   bool // the part at the cursor was described
}

// busy reports whether there is something to send, or soon will be.
func (o *syncOut) busy() bool { return o.waiting || o.snap != nil }

func (o *syncOut) close(p *Peers) {
	if o.snap != nil {
		o.snap.Close()
		p.releaseSync()
	}
	*o = syncOut{}
}

// onSyncRequest begins to send the state from a cursor on. A request replaces
// the one before it.
func (s *Session) onSyncRequest(b []byte) error {
	m, err := wire.DecodeSyncRequest(b)
	if err != nil {
		return err
	}
	if len(m.Cursor) > MaxCursor {
		return fail(CodeProtocol, "sync cursor of %d bytes", len(m.Cursor))
	}
	s.sending.sync.close(s.peers)
	s.sending.sync = syncOut{waiting: true, cursor: m.Cursor, id: m.ID}
	return nil
}

// buildSync makes the next batch of a state sync.
func (s *Session) buildSync(budget int) ([]byte, batchKind, error) {
	o := &s.sending.sync
	if s.sending.paused {
		return nil, 0, nil
	}
	if o.waiting {
		if !s.peers.acquireSync() {
			return nil, 0, nil // Tick wakes the session again
		}
		snap, err := s.cfg.Log.Snapshot()
		if err != nil {
			s.peers.releaseSync()
			return nil, 0, fail(CodeInternal, "opening a snapshot: %w", err)
		}
		o.waiting, o.snap = false, snap
	}
	if o.snap == nil {
		return nil, 0, nil
	}
	if !o.begun {
		o.begun = true
		m := o.snap.Begin(o.cursor)
		m.Cursor, m.ID = o.cursor, o.id
		return m.Encode(), batchSyncBegin, nil
	}
	m, part, err := o.snap.Next(o.cursor, max(budget, 1))
	if err != nil {
		return nil, 0, fail(CodeInternal, "reading a snapshot: %w", err)
	}
	if len(m.Cursor) > MaxCursor || len(m.States) == 0 && !m.Last && !part {
		return nil, 0, fail(CodeInternal, "snapshot gives %d states and a cursor of %d bytes", len(m.States), len(m.Cursor))
	}
	b := m.Encode()
	if uint64(len(b)) > s.hello.MaxBatch {
		return nil, 0, fail(CodeInternal, "a state of %d bytes is more than node %d takes (%d): raise its limit", len(b), s.peer.Node, s.hello.MaxBatch)
	}
	o.cursor, o.begun = m.Cursor, !part
	if m.Last {
		o.close(s.peers)
	}
	return b, batchSyncKeys, nil
}

// syncIn is a state sync this side receives.
type syncIn struct {
	asked uint64 // the newest request of the session
	wait  bool   // what it asked for has not begun
	begun bool
}

// active reports whether states are still to come.
func (i *syncIn) active() bool { return i.wait || i.begun }

// RequestSync asks the peer for its state from a cursor on. It replaces a
// request that is under way.
func (s *Session) RequestSync(cursor []byte) error {
	s.mu.Lock()
	if s.phase != phaseReady {
		s.mu.Unlock()
		return ErrNoSession
	}
	s.taking.sync = syncIn{asked: s.taking.sync.asked + 1, wait: true}
	s.control.syncAsk = append(make([]byte, 0, len(cursor)), cursor...)
	s.mu.Unlock()
	s.wake()
	return nil
}

// onSyncNeeded notes that the peer has stopped sending origins.
func (s *Session) onSyncNeeded(b []byte) ([]func(), error) {
	m, err := wire.DecodeSyncNeeded(b)
	if err != nil {
		return nil, err
	}
	var origins []crdt.Stream
	for _, o := range m.Origins {
		if !hasOrigin(s.control.wanted, o) {
			continue // no longer wanted meanwhile
		}
		origins = append(origins, o)
		s.control.wanted = withoutOrigin(s.control.wanted, o)
		if !hasOrigin(s.taking.stalled, o) {
			s.taking.stalled = append(s.taking.stalled, o)
		}
	}
	if len(origins) == 0 {
		return nil, nil
	}
	peer := s.peer.Node
	return []func(){
		func() { s.cfg.Applier.SyncNeeded(peer, origins) },
		s.peers.replan,
	}, nil
}

// onSyncBatch handles the batches of a state sync and returns the call that
// hands them over.
func (s *Session) onSyncBatch(h batchHeader, plain []byte, done func(error)) (func(), error) {
	in, from := &s.taking.sync, s.peer.Node
	if h.kind == batchSyncBegin {
		m, err := wire.DecodeSyncBegin(plain)
		if err != nil {
			return nil, fail(CodeProtocol, "%w", err)
		}
		switch {
		case in.wait && m.ID < in.asked:
			return func() { done(nil) }, nil // a later request replaces it
		case m.ID != in.asked || !in.active():
			return nil, fail(CodeProtocol, "state sync that was not asked for")
		}
		in.wait, in.begun = false, true
		return func() { s.cfg.Applier.BeginSync(from, m, done) }, nil
	}
	m, err := wire.DecodeSyncKeys(plain)
	if err != nil {
		return nil, fail(CodeProtocol, "%w", err)
	}
	if len(m.Cursor) > MaxCursor {
		return nil, fail(CodeProtocol, "sync cursor of %d bytes", len(m.Cursor))
	}
	if !in.begun {
		if in.wait {
			return func() { done(nil) }, nil // of the sync that a later request replaces
		}
		return nil, fail(CodeProtocol, "states outside of a sync")
	}
	if !m.Last {
		return func() { s.cfg.Applier.ApplyState(from, m, done) }, nil
	}
	in.begun = false
	return func() {
		s.cfg.Applier.ApplyState(from, m, func(err error) {
			done(err)
			if err == nil {
				s.peers.synced()
			}
		})
	}, nil
}
