package wan

import (
	"bytes"
	"slices"
	"time"

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
	since   *SyncSince
	snap    Snapshot
	begun   bool       // the part at the cursor was described
	last    bool       // all was sent; a sync by difference waits for questions
	compare []SyncPart // questions
	asked   int        // their bytes
	spare   int        // bytes that may be sent before the next tick, if the rate is limited
}

// refill lets as much be sent as the configured rate allows in d, and reports
// whether something waits for it.
func (o *syncOut) refill(d time.Duration, rate int) bool {
	if rate == 0 || o.snap == nil {
		return false
	}
	waits := o.spare <= 0
	o.spare = min(o.spare+int(min(d, time.Second).Seconds()*float64(rate)), rate)
	return waits
}

// maxCompare bounds the questions that wait, in bytes.
const maxCompare = 16 << 20

// busy reports whether there is something to send, or soon will be.
func (o *syncOut) busy() bool { return o.waiting || o.snap != nil && !o.last }

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
	s.sending.sync = syncOut{waiting: true, cursor: m.Cursor, id: m.ID, since: m.Since}
	if s.version() < versionDiff {
		s.sending.sync.since = nil
	}
	if since := s.sending.sync.since; since != nil {
		since.ByBucket = s.version() >= versionRanges
	}
	return nil
}

// onSyncCompare takes questions about what was left out of the sync under way.
func (s *Session) onSyncCompare(b []byte) error {
	m, err := wire.DecodeSyncCompare(b)
	if err != nil {
		return err
	}
	o := &s.sending.sync
	ranges := slices.ContainsFunc(m.Parts, func(p SyncPart) bool { return p.Ranges })
	switch {
	case s.version() < versionDiff || ranges && s.version() < versionRanges:
		return fail(CodeProtocol, "SyncCompare in version %d, for ranges %t", s.version(), ranges)
	case m.ID != o.id || o.since == nil || o.snap == nil:
		return nil // of a sync that was replaced
	case m.Done:
		o.close(s.peers)
		return nil
	}
	if o.asked += len(b); o.asked > maxCompare {
		return fail(CodeProtocol, "SyncCompare of %d bytes that wait", o.asked)
	}
	o.compare = append(o.compare, m.Parts...)
	return nil
}

// buildRest answers questions, as many as fit.
func (s *Session) buildRest(budget int) ([]byte, error) {
	o := &s.sending.sync
	if s.sending.paused {
		return nil, nil
	}
	m := wire.SyncRest{ID: o.id}
	for size := 0; len(o.compare) > 0 && (size == 0 || size < budget); o.compare = o.compare[1:] {
		p, err := o.snap.Compare(&o.compare[0])
		if err != nil {
			return nil, fail(CodeInternal, "reading a snapshot: %w", err)
		}
		size += len(p.Same) + 1
		for _, b := range p.States {
			size += len(b)
		}
		for i := range p.Ranges {
			size += len(p.Ranges[i].Upto) + 16
		}
		m.Parts = append(m.Parts, p)
	}
	if len(o.compare) == 0 {
		o.asked = 0
	}
	return m.Encode(), nil
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
		snap, err := s.cfg.Log.Snapshot(o.since)
		if err != nil {
			s.peers.releaseSync()
			return nil, 0, fail(CodeInternal, "opening a snapshot: %w", err)
		}
		o.waiting, o.snap = false, snap
	}
	if o.snap == nil || o.last {
		return nil, 0, nil
	}
	if rate := s.cfg.SyncRate; rate > 0 {
		if o.spare <= 0 {
			return nil, 0, nil // Tick wakes the session again
		}
		budget = min(budget, o.spare)
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
	if len(m.Cursor) > MaxCursor || len(m.States)+len(m.Ranges) == 0 && !m.Last && !part {
		return nil, 0, fail(CodeInternal, "snapshot gives %d states and a cursor of %d bytes", len(m.States), len(m.Cursor))
	}
	b := m.Encode()
	if uint64(len(b)) > s.hello.MaxBatch {
		return nil, 0, fail(CodeInternal, "a state of %d bytes is more than node %d takes (%d): raise its limit", len(b), s.peer.Node, s.hello.MaxBatch)
	}
	o.cursor, o.begun = m.Cursor, !part
	o.spare -= len(b)
	if m.Last && o.since == nil {
		o.close(s.peers)
	}
	o.last = m.Last
	return b, batchSyncKeys, nil
}

// syncIn is a state sync this side receives.
type syncIn struct {
	asked uint64 // the newest request of the session
	wait  bool   // what it asked for has not begun
	begun bool
	diff  bool
	done  bool // the last states were handed over, but are not applied yet
	owed  int  // parts of the rest that were asked for
}

// active reports whether states are still to come.
func (i *syncIn) active() bool { return i.wait || i.begun || i.done }

// RequestSync asks the peer for its state from a cursor on, or, if since is not
// nil and the peer can, for what differs. It replaces a request that is under
// way.
func (s *Session) RequestSync(cursor []byte, since *SyncSince) error {
	s.mu.Lock()
	if s.phase != phaseReady {
		s.mu.Unlock()
		return ErrNoSession
	}
	if s.version() < versionDiff {
		since = nil
	}
	s.taking.sync = syncIn{asked: s.taking.sync.asked + 1, wait: true, diff: since != nil, owed: s.taking.sync.owed}
	s.control.syncAsk = &wire.SyncRequest{Cursor: bytes.Clone(cursor), ID: s.taking.sync.asked, Since: since}
	s.control.compare = nil
	s.mu.Unlock()
	s.wake()
	return nil
}

// compareFrame bounds the hashes of one SyncCompare, in bytes.
const compareFrame = 8 << 10

// CompareSync asks the peer about ranges that its sync has left out.
func (s *Session) CompareSync(parts []SyncPart) error {
	s.mu.Lock()
	in := &s.taking.sync
	if s.phase != phaseReady || !in.active() {
		s.mu.Unlock()
		return ErrNoSession
	}
	in.owed += len(parts)
	for len(parts) > 0 {
		n, size := 0, 0
		for n < len(parts) && (n == 0 || size < compareFrame) {
			size += len(parts[n].Hashes) + len(parts[n].From) + len(parts[n].Upto) + 16
			n++
		}
		s.control.compare = append(s.control.compare, &wire.SyncCompare{ID: in.asked, Parts: parts[:n]})
		parts = parts[n:]
	}
	s.mu.Unlock()
	s.wake()
	return nil
}

// syncDone lets the peer close its snapshot.
func (s *Session) syncDone(id uint64) {
	s.mu.Lock()
	if in := &s.taking.sync; in.asked == id && in.done {
		in.done = false
		if in.diff {
			s.control.compare = append(s.control.compare, &wire.SyncCompare{ID: id, Done: true})
		}
	}
	s.mu.Unlock()
	s.wake()
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
		m.ByBucket = in.diff && s.version() >= versionRanges
		return func() { s.cfg.Applier.BeginSync(from, m, done) }, nil
	}
	if h.kind == batchSyncRest {
		return s.onSyncRest(plain, done)
	}
	m, err := wire.DecodeSyncKeys(plain)
	if err != nil {
		return nil, fail(CodeProtocol, "%w", err)
	}
	if len(m.Ranges) > 0 && !in.diff && in.begun {
		return nil, fail(CodeProtocol, "state by difference that was not asked for")
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
	in.begun, in.done = false, true
	id := in.asked
	return func() {
		s.cfg.Applier.ApplyState(from, m, func(err error) {
			s.syncDone(id)
			done(err)
			if err == nil {
				s.peers.synced()
			}
		})
	}, nil
}

// onSyncRest hands over what answers questions.
func (s *Session) onSyncRest(plain []byte, done func(error)) (func(), error) {
	m, err := wire.DecodeSyncRest(plain)
	if err != nil {
		return nil, fail(CodeProtocol, "%w", err)
	}
	in, from := &s.taking.sync, s.peer.Node
	if in.owed -= len(m.Parts); in.owed < 0 || len(m.Parts) == 0 {
		return nil, fail(CodeProtocol, "%d parts of a state's rest, more than were asked for", len(m.Parts))
	}
	if m.ID != in.asked {
		return func() { done(nil) }, nil // of a sync that was replaced
	}
	return func() { s.cfg.Applier.ApplyRest(from, m.Parts, done) }, nil
}
