package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
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

func (w *wanLog) Read(s crdt.Stream, after crdt.Tag, maxBytes int, fn func([]byte) error) error {
	err := w.log.ReadEncoded(s, after, maxBytes, fn)
	if errors.Is(err, oplog.ErrTrimmed) {
		err = fmt.Errorf("%w: %w", wan.ErrTrimmed, err)
	}
	return err
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

func (w *wanLog) Snapshot(since *wan.SyncSince) (wan.Snapshot, error) {
	s, err := w.log.Snapshot()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), snapshotWait)
	defer cancel()
	out, err := newWanSnapshot(s, since, defaultSyncSizes)
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

// wanApplier takes what the data links receive to the executor.
type wanApplier struct {
	exec  *executor
	log   *oplog.Log
	slog  *slog.Logger
	asks  func(node uint16, cursor []byte, since *wan.SyncSince) error // requests a state sync
	ahead func(from uint16, theirs crdt.Vector)
	// difference: states are asked for by difference.
	difference bool
	// publish delivers a member's message to this node's clients.
	publish func(*wan.Message)

	mu     sync.Mutex
	heard  map[uint16]wan.Heard
	needed map[uint16]bool // peers that cannot serve from their logs
	from   uint16          // peer of the sync under way, 0 if none
	taker  SyncTaker
	told   time.Time // when progress was last logged

	repairing chan SyncProgress // is told of the end of a repair; nil: none is under way
	verify    func(from uint16, m *wan.Verify)
}

var errSyncing = errors.New("a state sync is under way: try again when it has ended (REPLICAS shows it)")

// Repair has what differs from a peer at the same vector replaced by what that
// has, and returns once it is done.
func (a *wanApplier) Repair(ctx context.Context, peer uint16) (SyncProgress, error) {
	var since *wan.SyncSince
	var bad error
	if err := a.exec.Run(func(c *Core) {
		if _, since, bad = c.Since(); len(c.regions.parts) > 0 {
			bad = errSyncing
		}
	}); err != nil || bad != nil {
		return SyncProgress{}, errors.Join(err, bad)
	}
	since.Digests = nil // they are not trusted
	done := make(chan SyncProgress, 1)
	a.mu.Lock()
	if a.from != 0 {
		a.mu.Unlock()
		return SyncProgress{}, errSyncing
	}
	a.from, a.repairing = peer, done
	a.mu.Unlock()
	a.taker.Repair()
	if err := a.asks(peer, nil, since); err != nil {
		a.AbortSync(peer)
		return SyncProgress{}, err
	}
	select {
	case p := <-done:
		if p.From == 0 {
			return p, fmt.Errorf("the link to node %d was lost", peer)
		}
		return p, nil
	case <-ctx.Done():
		return SyncProgress{}, fmt.Errorf("the repair from node %d has not ended yet, and goes on: %w", peer, ctx.Err())
	}
}

// Verify implements wan.Applier.
func (a *wanApplier) Verify(from uint16, m *wan.Verify) { a.verify(from, m) }

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
	var since *wan.SyncSince
	var bad error
	if err := a.exec.Run(func(c *Core) {
		if cursor, _ = c.Syncing(); a.difference {
			cursor, since, bad = c.Since()
		}
	}); err != nil || bad != nil {
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
	if err := a.asks(peer, cursor, since); err != nil {
		a.slog.Warn("state sync could not be requested", "from", peer, "err", err)
		a.AbortSync(peer)
	}
}

func (a *wanApplier) BeginSync(from uint16, b *wan.SyncBegin, done func(error)) {
	fresh, err := a.taker.Begin(from, b, time.Now())
	a.mu.Lock()
	a.from = from
	a.mu.Unlock()
	a.mu.Lock()
	tell := fresh && err == nil && a.repairing == nil
	a.mu.Unlock()
	if tell { // else another part of it
		a.slog.Info("state sync begins", "from", from, "resumed", len(b.Cursor) > 0)
	}
	done(err)
}

func (a *wanApplier) ApplyState(from uint16, k *wan.SyncKeys, done func(error)) {
	a.taker.Keys(from, k, done)
}

func (a *wanApplier) ApplyRest(from uint16, parts []wan.SyncRestPart, done func(error)) {
	a.taker.Rest(from, parts, done)
}

// syncTold is the time between two lines of log on the progress of a sync.
const syncTold = 5 * time.Second

// merging logs how a sync gets on.
func (a *wanApplier) merging(from uint16, last bool, p SyncProgress, err error) {
	took := time.Since(p.Begun)
	a.mu.Lock()
	tell := time.Since(a.told) > syncTold && took > syncTold
	if tell {
		a.told = time.Now()
	}
	a.mu.Unlock()
	a.mu.Lock()
	done := a.repairing
	if last {
		a.repairing = nil
	}
	a.mu.Unlock()
	switch {
	case done != nil:
		if last {
			done <- p
		}
	case last && err == nil:
		a.slog.Info("state sync complete", "from", from, "keys", p.Keys, "by_tables", p.Filled, "asked", p.Asked, "took", took.Round(time.Millisecond))
	case tell && err == nil:
		a.slog.Info("state sync", "from", from, "keys", p.Keys, "percent", int(p.Percent), "took", took.Round(time.Second))
	}
	if last {
		go a.ended(from) // merged or refused
	}
}

// AbortSync tells that the sync was cut off; it goes on with whoever can next.
func (a *wanApplier) AbortSync(from uint16) {
	a.mu.Lock()
	done := a.repairing
	a.repairing = nil
	a.mu.Unlock()
	if done != nil {
		done <- SyncProgress{}
	} else {
		a.slog.Info("state sync interrupted, it will go on where it stopped", "from", from)
	}
	a.taker.Abort(from)
	a.ended(from)
}

func (a *wanApplier) ended(from uint16) {
	a.mu.Lock()
	if a.from == from {
		a.from = 0
	}
	more := len(a.needed) > 0
	a.mu.Unlock()
	if more {
		a.startSync()
	}
}

// Ahead tells that a peer knows more of this node than it does itself.
func (a *wanApplier) Ahead(from uint16, theirs crdt.Vector) { a.ahead(from, theirs) }
