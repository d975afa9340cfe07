package wan

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// receiver is the taking half of a ready session.
type receiver struct {
	lanes    [crdt.Lanes]inLane
	received crdt.Vector   // how far each stream was handed over in this session
	stalled  []crdt.Stream // origins the peer cannot serve from its log
	sync     syncIn
}

// inLane puts the chunks of one lane together.
type inLane struct {
	window int64
	room   int64 // plain bytes the peer may still send
	head   batchHeader
	body   []byte // packed bytes of the batch under way, as far as they came
	open   bool
	unpack unpacker
}

func (r *receiver) init(c *Config) {
	for l := range r.lanes {
		r.lanes[l].window, r.lanes[l].room = int64(c.Window), int64(c.Window)
	}
}

func (r *receiver) close() {
	for l := range r.lanes {
		r.lanes[l].unpack.close()
		r.lanes[l] = inLane{}
	}
	r.sync = syncIn{}
}

// onChunk takes the next piece of a lane's batch, and the batch when it is
// complete.
func (s *Session) onChunk(l crdt.Lane, b []byte) ([]func(), error) {
	lane := &s.taking.lanes[l]
	if len(b) == 0 || len(b) > MaxChunk {
		return nil, fail(CodeProtocol, "chunk of %d bytes", len(b))
	}
	if !lane.open {
		h, err := parseBatchHeader(b)
		if err != nil {
			return nil, err
		}
		if h.kind == batchSyncRest && s.taking.sync.owed == 0 {
			return nil, fail(CodeProtocol, "the rest of a state that nobody asked for")
		}
		cost, free := h.kind.cost(int(h.plain)), lane.room == lane.window
		if cost > max(lane.room, 0) && !free || uint64(h.plain) > uint64(s.cfg.MaxBatch) {
			return nil, fail(CodeProtocol, "batch of %d bytes in lane %d, whose credit is %d", h.plain, l, lane.room)
		}
		lane.room -= cost
		lane.head, lane.open, lane.body = h, true, lane.body[:0]
		b = b[batchHeaderSize:]
	}
	if uint64(len(lane.body)+len(b)) > uint64(lane.head.packed) {
		return nil, fail(CodeProtocol, "chunk goes beyond its batch in lane %d", l)
	}
	// The buffer grows with what has come, not with what was announced.
	lane.body = append(lane.body, b...)
	if len(lane.body) < int(lane.head.packed) {
		return nil, nil
	}
	lane.open = false
	plain, err := lane.unpack.unpack(lane.head, lane.body)
	if cap(lane.body) > 4*zstdWindow {
		lane.body = nil // a huge batch has gone by
	}
	if err != nil {
		return nil, err
	}
	s.stats.batchesIn++
	s.stats.plainIn += uint64(len(plain))
	return s.onBatch(l, lane.head, plain)
}

// onBatch hands a verified batch to the node.
func (s *Session) onBatch(l crdt.Lane, h batchHeader, plain []byte) ([]func(), error) {
	cost := h.kind.cost(len(plain))
	done := func(err error) { s.applied(l, cost, err) }
	if h.kind != batchEntries {
		if l != syncLane {
			return nil, fail(CodeProtocol, "state in lane %d", l)
		}
		call, err := s.onSyncBatch(h, plain, done)
		if err != nil {
			return nil, err
		}
		return []func(){call}, nil
	}
	entries, err := s.entries(l, plain)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return []func(){func() { done(nil) }}, nil
	}
	from := s.peer.Node
	return []func(){func() { s.cfg.Applier.Apply(from, entries, done) }}, nil
}

// entries decodes a batch of log entries, checks that each joins what is
// there, and leaves out what is there already.
func (s *Session) entries(l crdt.Lane, plain []byte) ([]crdt.Entry, error) {
	var out []crdt.Entry
	applied, durable := s.cfg.Log.Applied(), s.cfg.Log.Durable()
	me := s.cfg.Log.Origin()
	for len(plain) > 0 {
		if len(plain) < 4 {
			return nil, fail(CodeProtocol, "batch ends within a length")
		}
		n := binary.BigEndian.Uint32(plain)
		if uint64(n) > uint64(len(plain)-4) {
			return nil, fail(CodeProtocol, "entry of %d bytes in the last %d of a batch", n, len(plain)-4)
		}
		e, err := wire.DecodeEntry(plain[4 : 4+n])
		if err != nil {
			return nil, fail(CodeProtocol, "entry cannot be decoded: %w", err)
		}
		plain = plain[4+n:]
		have := max(applied.Get(e.Stream), s.taking.received.Get(e.Stream))
		switch {
		case e.Stream.Lane() != l || e.Stream.Node() == 0 || e.Tag <= e.Prev:
			return nil, fail(CodeProtocol, "entry %v of stream %v after %v in lane %d", e.Tag, e.Stream, e.Prev, l)
		case e.Prev > have:
			return nil, fail(CodeGap, "entry %v of stream %v follows %v, but only %v has come", e.Tag, e.Stream, e.Prev, have)
		case e.Stream.Origin() == me && e.Tag > have:
			s.ahead = crdt.Vector{{Stream: e.Stream, Tag: e.Tag}}
			return nil, fail(CodeRolledBack, "node %d has entry %v of stream %v, which node %d does not know it wrote: its data was rolled back, and it must take on a new incarnation",
				s.peer.Node, e.Tag, e.Stream, me.Node())
		case e.Tag <= have && e.Tag <= max(durable.Get(e.Stream), s.taking.received.Get(e.Stream)):
			s.stats.duplicates++
			continue
		}
		s.taking.received.Raise(e.Stream, e.Tag)
		s.stats.entriesIn++
		out = append(out, e)
	}
	return out, nil
}

// applied grants credit for what the node has taken in.
func (s *Session) applied(l crdt.Lane, cost int64, err error) {
	if err != nil {
		s.Close(&Error{Code: CodeRefused, Text: fmt.Sprintf("node %d could not apply what it was sent: %v", s.cfg.Self.Node, err), Err: err})
		return
	}
	s.mu.Lock()
	ready := s.phase == phaseReady
	if ready {
		s.control.credit[l] += cost
	}
	s.mu.Unlock()
	if ready {
		s.wake()
	}
}

// SetWant says which origins are to be had from this peer. What was wanted
// before goes on; what is new begins where this node stands.
func (s *Session) SetWant(origins []crdt.Stream) {
	s.mu.Lock()
	changed := s.phase == phaseReady && !slices.Equal(origins, s.control.wanted)
	if changed {
		s.control.wanted = slices.Clone(origins)
		s.control.want = true
	}
	s.mu.Unlock()
	if changed {
		s.wake()
	}
}

// encodeWant makes the message at the moment it is sent, so that positions are
// as fresh as can be.
func (s *Session) encodeWant() []byte {
	applied := s.cfg.Log.Applied()
	var m wire.Want
	for _, o := range s.control.wanted {
		w := wire.WantOrigin{Origin: o}
		for l := range crdt.Lane(crdt.Lanes) {
			stream := o | crdt.Stream(l)
			if t := max(applied.Get(stream), s.taking.received.Get(stream)); t > 0 {
				w.Positions.Set(stream, t)
			}
		}
		m.Origins = append(m.Origins, w)
	}
	return m.Encode()
}

// SetPaused stops or resumes the sending of data. What the peer sends is
// governed by SetWant.
func (s *Session) SetPaused(paused bool) {
	s.mu.Lock()
	s.sending.paused = paused
	s.mu.Unlock()
	s.wake()
}

// clearStalled forgets which origins the peer could not serve, once a sync has
// brought this node on.
func (s *Session) clearStalled() {
	s.mu.Lock()
	s.taking.stalled = nil
	s.mu.Unlock()
}

func hasOrigin(origins []crdt.Stream, o crdt.Stream) bool { return slices.Contains(origins, o) }

func withoutOrigin(origins []crdt.Stream, o crdt.Stream) []crdt.Stream {
	return slices.DeleteFunc(slices.Clone(origins), func(p crdt.Stream) bool { return p == o })
}
