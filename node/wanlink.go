package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/resp/command"
	"github.com/replicatord/replicatord/wan"
)

// wanLog shows the log to the data links.
type wanLog struct {
	log      *oplog.Log
	frontier atomic.Pointer[wan.Frontier] // what Core.Beat last returned
}

func (w *wanLog) Origin() crdt.Stream  { return w.log.Identity().Origin }
func (w *wanLog) Durable() crdt.Vector { return w.log.Durable() }
func (w *wanLog) Applied() crdt.Vector { return w.log.Vector() }

func (w *wanLog) Frontier() wan.Frontier {
	if f := w.frontier.Load(); f != nil {
		return *f
	}
	return wan.Frontier{}
}

func (w *wanLog) Read(s crdt.Stream, after crdt.Tag, maxBytes int) (wan.Range, error) {
	entries, size, _, err := w.log.ReadSized(s, after, maxBytes)
	if errors.Is(err, oplog.ErrTrimmed) {
		err = fmt.Errorf("%w: %w", wan.ErrTrimmed, err)
	}
	return wan.Range{Entries: entries, Bytes: size}, err
}

func (w *wanLog) Count(s crdt.Stream, after crdt.Tag, limit int) (int, int64) {
	return w.log.Count(s, after, limit)
}

func (w *wanLog) Wrote(s crdt.Stream, t crdt.Tag) bool {
	ok, err := w.log.Has(s, t)
	return ok || err != nil // what can't be read says nothing
}

// snapshotWait bounds the wait for what a snapshot shows to be durable.
const snapshotWait = 30 * time.Second

func (w *wanLog) Snapshot() (wan.Snapshot, error) {
	s, err := w.log.Snapshot()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), snapshotWait)
	defer cancel()
	out, err := newWanSnapshot(s)
	if err == nil && len(out.regions.parts) > 0 {
		err = w.log.Sync() // what a sync brought is in no vector yet
	}
	if err == nil {
		err = w.log.WaitDurable(ctx, s.Vector)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return out, nil
}

// wanSnapshot shows a snapshot to a data link.
type wanSnapshot struct {
	s       *oplog.Snapshot
	regions regions // as they were at the snapshot
}

func newWanSnapshot(s *oplog.Snapshot) (*wanSnapshot, error) {
	b, err := s.Meta(regionsMeta)
	if err != nil {
		return nil, err
	}
	r, err := decodeRegions(b)
	return &wanSnapshot{s, r}, err
}

func (w *wanSnapshot) Begin(cursor []byte) wan.SyncBegin {
	part := w.regions.at(cursor)
	b := wan.SyncBegin{Vector: w.s.Vector.Join(part.vector)}
	for _, p := range w.s.Vector {
		if b.Vector.Get(p.Stream) == p.Tag { // else it is of another position
			b.Known = append(b.Known, wan.SyncKnown{Stream: p.Stream, Context: w.s.Known[p.Stream]})
		}
	}
	for db := range userDBs {
		if v := w.s.Pending[uint8(db)].Join(part.pending[uint8(db)]); len(v) > 0 {
			b.DBPending = append(b.DBPending, wan.SyncDBPending{DB: uint8(db), Context: v})
		}
	}
	return b
}

var errFull = errors.New("full")

// Next returns the keys after a cursor. A cursor is the position of the first
// key that is still to come; a key is never divided.
func (w *wanSnapshot) Next(cursor []byte, maxBytes int) (out wan.SyncKeys, part bool, err error) {
	var end []byte // of the part; nil for that of the keyspace
	if p := w.regions.at(cursor); len(p.upto) > 0 {
		end = p.upto
	}
	size := 0
	err = w.s.Each(cursor, end, 1<<62, func(k *oplog.KeyState) error {
		if size >= maxBytes {
			out.Cursor = oplog.Pos(k.Key)
			return errFull
		}
		b := encodeState(k)
		size += len(b)
		out.States = append(out.States, b)
		return nil
	})
	switch {
	case errors.Is(err, errFull):
		err = nil
	case err == nil && end != nil:
		out.Cursor, part = end, true
	case err == nil:
		out.Last = true
	}
	return out, part, err
}

func (w *wanSnapshot) Close() { _ = w.s.Close() }

// encodeState encodes the state of a key: database, name, pending contexts,
// cells. docs/STORAGE.md, "State of a key", describes the bytes.
func encodeState(k *oplog.KeyState) []byte {
	b := []byte{k.Key.DB}
	b = appendBytes(b, []byte(k.Key.Name))
	var pending []crdt.KeyPending
	if k.Header != nil {
		pending = k.Header.Pending
	}
	b = binary.AppendUvarint(b, uint64(len(pending)))
	for _, p := range pending {
		b = append(b, byte(p.Kind))
		b = appendBytes(b, p.Ctx.AppendBinary(nil))
	}
	for _, c := range k.Cells {
		b = append(b, byte(c.Kind))
		b = appendBytes(b, []byte(c.Elem))
		b = appendBytes(b, c.Data)
	}
	return b
}

// decodeState reads what encodeState wrote. The key shares b's memory.
func decodeState(b []byte) (SyncKey, error) {
	r := crdt.NewReader(b)
	k := SyncKey{Key: crdt.Key{DB: r.Byte(), Name: string(r.Bytes())}}
	for n := r.Uvarint(); n > 0 && r.OK(); n-- {
		k.Pending = append(k.Pending, crdt.KeyPending{Kind: crdt.Kind(r.Byte()), Ctx: crdt.Sized(r, crdt.DecodeVector)})
	}
	for r.More() {
		c := SyncCell{Kind: crdt.Kind(r.Byte()), Elem: string(r.Bytes()), Cell: crdt.Sized(r, crdt.DecodeCell)}
		if c.Kind.Name() == "" || !(crdt.CellID{Kind: c.Kind, Elem: c.Elem}).Valid() {
			r.Fail()
		}
		k.Cells = append(k.Cells, c)
	}
	if k.Key.DB >= userDBs && k.Key.DB != command.SystemDB {
		r.Fail()
	}
	return k, r.End("key's state")
}

// wanApplier takes what the data links receive to the executor.
type wanApplier struct {
	exec  *executor
	log   *oplog.Log
	slog  *slog.Logger
	asks  func(node uint16, cursor []byte) error // requests a state sync
	ahead func(from uint16, theirs crdt.Vector)
	// publish delivers a member's message to this node's clients.
	publish func(*wan.Message)

	mu     sync.Mutex
	heard  map[uint16]wan.Heard
	needed map[uint16]bool // peers that cannot serve from their logs
	from   uint16          // peer of the sync under way, 0 if none
	state  SyncState
	cursor []byte
	begun  time.Time
	keys   int
}

func (a *wanApplier) Apply(from uint16, entries []crdt.Entry, done func(error)) {
	a.exec.Apply(entries, func(err error) {
		if err != nil && !errors.Is(err, context.Canceled) {
			a.slog.Warn("entries refused", "from", from, "err", err)
		}
		done(err)
	})
}

// Heard notes what a member says; see Core.Maintain.
func (a *wanApplier) Heard(from uint16, h wan.Heard) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard[from] = h
}

// lastHeard returns what each was last heard to say in heartbeats.
func (a *wanApplier) lastHeard() map[uint16]wan.Heard {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := maps.Clone(a.heard)
	maps.DeleteFunc(out, func(_ uint16, h wan.Heard) bool { return h.Tag == 0 })
	return out
}

func (a *wanApplier) forget(node uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.heard, node)
	delete(a.needed, node)
}

// SyncNeeded tells that a peer can serve only its state. One sync is under way
// at a time; the others are asked when it has ended, if they are needed still.
func (a *wanApplier) SyncNeeded(from uint16, origins []crdt.Stream) {
	a.mu.Lock()
	a.needed[from] = true
	a.mu.Unlock()
	a.startSync()
}

// startSync requests the next sync, if none is under way.
func (a *wanApplier) startSync() {
	var cursor []byte
	if err := a.exec.Run(func(c *Core) { cursor, _ = c.Syncing() }); err != nil {
		return
	}
	a.mu.Lock()
	var peer uint16
	if a.from == 0 {
		for p := range a.needed {
			if peer == 0 || p < peer {
				peer = p
			}
		}
		a.from = peer
		delete(a.needed, peer)
	}
	a.mu.Unlock()
	if peer == 0 {
		return
	}
	if err := a.asks(peer, cursor); err != nil {
		a.slog.Warn("state sync could not be requested", "from", peer, "err", err)
		a.AbortSync(peer)
	}
}

func (a *wanApplier) BeginSync(from uint16, b *wan.SyncBegin, done func(error)) {
	s := SyncState{Vector: b.Vector, Known: map[crdt.Stream]crdt.Vector{}, Pending: map[uint8]crdt.Vector{}}
	for _, k := range b.Known {
		s.Known[k.Stream] = k.Context
	}
	for _, p := range b.DBPending {
		if p.DB >= userDBs {
			done(fmt.Errorf("%w: database %d", crdt.ErrCorrupt, p.DB))
			return
		}
		s.Pending[p.DB] = p.Context
	}
	a.mu.Lock()
	fresh := a.begun.IsZero()
	a.from, a.state, a.cursor = from, s, b.Cursor
	if fresh {
		a.begun, a.keys = time.Now(), 0
	}
	a.mu.Unlock()
	if fresh { // else another part of it
		a.slog.Info("state sync begins", "from", from, "resumed", len(b.Cursor) > 0)
	}
	done(nil)
}

func (a *wanApplier) ApplyState(from uint16, k *wan.SyncKeys, done func(error)) {
	keys := make([]SyncKey, 0, len(k.States))
	for _, b := range k.States {
		key, err := decodeState(b)
		if err != nil {
			done(err)
			return
		}
		keys = append(keys, key)
	}
	upto := k.Cursor
	if k.Last {
		upto = nil
	}
	a.mu.Lock()
	state, at := a.state, a.cursor
	a.cursor = upto
	a.keys += len(keys)
	total, took := a.keys, time.Since(a.begun)
	a.mu.Unlock()
	ok := a.exec.Post(func(c *Core) {
		c.MergeState(&state, at, upto, keys, func(err error) {
			if err == nil && k.Last {
				a.slog.Info("state sync complete", "from", from, "keys", total, "took", took.Round(time.Millisecond))
			}
			if k.Last {
				go a.ended(from) // merged or refused: there is no AbortSync after the last states
			}
			done(err)
		})
	})
	if !ok {
		done(context.Canceled)
	}
}

// AbortSync tells that the sync was cut off; it goes on with whoever can next.
func (a *wanApplier) AbortSync(from uint16) {
	a.slog.Info("state sync interrupted, it will go on where it stopped", "from", from)
	a.ended(from)
}

func (a *wanApplier) ended(from uint16) {
	a.mu.Lock()
	if a.from == from {
		a.from, a.begun = 0, time.Time{}
	}
	more := len(a.needed) > 0
	a.mu.Unlock()
	if more {
		a.startSync()
	}
}

// Ahead tells that a peer knows more of this node than it does itself.
func (a *wanApplier) Ahead(from uint16, theirs crdt.Vector) { a.ahead(from, theirs) }
