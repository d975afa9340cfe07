package sim

import (
	"errors"
	"fmt"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
	"github.com/replicatord/replicatord/node"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

// port is what the data links see of a process: package node's adapters,
// without their goroutines.
type port proc

var (
	_ wan.Log     = (*port)(nil)
	_ wan.Applier = (*port)(nil)
)

// syncs is the state sync under way, and those that are to follow.
type syncs struct {
	needed map[uint16]bool // peers that can serve only their state
	from   uint16          // the one that does; 0: none
	taker  node.SyncTaker
}

// Origin implements wan.Log.
func (p *port) Origin() crdt.Stream { return p.log.Identity().Origin }

// Durable implements wan.Log.
func (p *port) Durable() crdt.Vector { return p.log.Durable() }

// Applied implements wan.Log.
func (p *port) Applied() crdt.Vector { return p.log.Vector() }

// Frontier implements wan.Log.
func (p *port) Frontier() wan.Frontier { return p.frontier }

// Read implements wan.Log.
func (p *port) Read(s crdt.Stream, after crdt.Tag, maxBytes int, fn func([]byte) error) error {
	err := p.log.ReadEncoded(s, after, maxBytes, func(b []byte) error {
		e, err := wire.DecodeEntry(b)
		if err == nil {
			err = e.Validate()
		}
		p.w.check(err, "what is to be sent")
		return fn(b)
	})
	if errors.Is(err, oplog.ErrTrimmed) {
		err = fmt.Errorf("%w: %w", wan.ErrTrimmed, err)
	}
	return err
}

// Count implements wan.Log.
func (p *port) Count(s crdt.Stream, after crdt.Tag, limit int) (int, int64) {
	return p.log.Count(s, after, limit)
}

// Wrote implements wan.Log.
func (p *port) Wrote(s crdt.Stream, t crdt.Tag) bool {
	ok, err := p.log.Has(s, t)
	return ok || err != nil
}

// Snapshot implements wan.Log.
func (p *port) Snapshot(since *wan.SyncSince) (wan.Snapshot, error) {
	s, err := p.log.Snapshot()
	if err != nil {
		return nil, err
	}
	(*proc)(p).sync() // the adapter waits for it
	return node.SnapshotForPeers(s, since, p.w.syncSizes)
}

// Apply implements wan.Applier.
func (p *port) Apply(from uint16, entries []crdt.Entry, done func(error)) {
	(*proc)(p).enqueue(work{ranges: entries, done: func(err error) {
		if err != nil {
			p.w.say("node %d refuses entries of node %d: %v", p.site.id, from, err)
			p.w.oracle.counts["refused"]++
		}
		done(err)
	}})
}

// Verify implements wan.Applier: at equal vectors the digests of all buckets are
// the same, whatever has expired where.
func (p *port) Verify(from uint16, m *wan.Verify) {
	if p.dead || (*proc)(p).inParts() {
		return
	}
	s, err := p.log.Snapshot()
	p.w.check(err, "snapshot")
	digests, err := s.FullDigests(0, oplog.Buckets)
	p.w.check(errors.Join(err, s.Close()), "digests")
	if !m.Answer {
		_ = p.peers.SendVerify(from, node.AnswerVerify(m, s.Vector, digests))
		return
	}
	if !s.Vector.Equal(m.Vector) {
		p.w.oracle.counts["digests of other vectors"]++
		return
	}
	p.w.oracle.counts["digests compared"]++
	mine := node.AnswerVerify(m, s.Vector, digests)
	p.w.must(mine.Total == m.Total, "nodes %d and %d have the same vector %v, and other digests", p.site.id, from, m.Vector)
}

// Publish implements wan.Applier. Nobody listens.
func (p *port) Publish(uint16, *wan.Message) {}

// Heard implements wan.Applier.
func (p *port) Heard(from uint16, h wan.Heard) {
	if p.dead {
		return
	}
	p.heard[from] = h
	p.w.oracle.heard(from, h.Durable)
}

// SyncNeeded implements wan.Applier.
func (p *port) SyncNeeded(from uint16, origins []crdt.Stream) {
	if p.dead {
		return
	}
	p.w.say("node %d needs the state of node %d, for %v", p.site.id, from, origins)
	p.syncs.needed[from] = true
	p.startSync()
}

// startSync requests the next sync, if none is under way.
func (p *port) startSync() {
	(*proc)(p).enqueue(work{fn: func() {
		s := &p.syncs
		if s.from != 0 {
			return
		}
		var peer uint16
		for n := range s.needed {
			if peer == 0 || n < peer {
				peer = n
			}
		}
		if peer == 0 {
			return
		}
		s.from = peer
		delete(s.needed, peer)
		cursor, since, err := p.core.Since()
		p.w.check(err, "digests")
		switch p.w.syncs.IntN(4) {
		case 0:
			since = nil // as of a peer that knows no other
		case 1, 2:
			since.Digests = nil // so every range is looked at
		}
		if !p.w.opts.Difference {
			since = nil
		}
		p.w.oracle.counts["state syncs"]++
		if err := p.peers.RequestSync(peer, cursor, since); err != nil {
			p.AbortSync(peer)
		}
	}})
}

// BeginSync implements wan.Applier.
func (p *port) BeginSync(from uint16, b *wan.SyncBegin, done func(error)) {
	p.w.say("node %d syncs from node %d, from %x on", p.site.id, from, b.Cursor)
	_, err := p.syncs.taker.Begin(from, b, p.w.time())
	p.syncs.from = from
	done(err)
}

// ApplyState implements wan.Applier.
func (p *port) ApplyState(from uint16, k *wan.SyncKeys, done func(error)) {
	p.w.oracle.counts["keys synced"] += len(k.States)
	for _, r := range k.Ranges {
		p.w.oracle.counts["ranges left out of a sync"] += int(min(r.Keys, 1))
	}
	p.syncs.taker.Keys(from, k, done)
}

// ApplyRest implements wan.Applier.
func (p *port) ApplyRest(from uint16, parts []wan.SyncRestPart, done func(error)) {
	p.w.oracle.counts["ranges asked about"] += len(parts)
	for i := range parts {
		if len(parts[i].Ranges) > 0 {
			p.w.oracle.counts["buckets told by ranges"]++
		}
	}
	p.syncs.taker.Rest(from, parts, done)
}

// merged is told of each step of a sync.
func (p *port) merged(from uint16, last bool, s node.SyncProgress, err error) {
	p.w.say("node %d merges a step of node %d, %d keys so far, last %t: %v", p.site.id, from, s.Keys, last, err)
	if last {
		p.w.oracle.counts["keys filled in"] += s.Filled
		p.ended(from)
	}
}

// AbortSync implements wan.Applier.
func (p *port) AbortSync(from uint16) {
	if p.dead {
		return
	}
	p.w.oracle.counts["state syncs cut"]++
	p.syncs.taker.Abort(from)
	p.ended(from)
}

func (p *port) ended(from uint16) {
	if p.syncs.from == from {
		p.syncs.from = 0
	}
	if len(p.syncs.needed) > 0 {
		p.startSync()
	}
}

// Ahead implements wan.Applier.
func (p *port) Ahead(from uint16, theirs crdt.Vector) {
	if p.dead {
		return
	}
	p.w.say("node %d hears that node %d knows more of it", p.site.id, from)
	p.ahead = theirs
}
