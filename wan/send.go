package wan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// sender is the sending half of a ready session: what the peer wants, how far
// it was sent, and the lanes it is sent in.
type sender struct {
	lanes  [crdt.Lanes]outLane
	wanted map[crdt.Stream]bool // origins
	sent   crdt.Vector          // how far each wanted stream was put into batches
	given  crdt.Vector          // the same of a subscriber, as it knows it: what it does not get is not in it
	stuck  map[crdt.Stream]bool // streams whose next entry is too large for the peer
	paused bool
	sync   syncOut

	messages     [][]byte // to publish, encoded, in order
	messageBytes int

	pace    pace
	limit   limiter
	later   time.Time // when the first lane that lingers goes on; zero if none does
	weights [crdt.Lanes]int
}

// outLane is one lane of a sender.
type outLane struct {
	window int64 // credit when nothing is under way
	credit int64 // plain bytes that may still be sent
	budget int   // bytes of this round that are left
	pack   packer
	rest   []byte // of the batch that is being cut into chunks
	held   []byte // plain bytes of a batch that waits for credit
	plain  []byte // memory for the plain bytes of the next
	kind   batchKind
	asIs   int         // so many batches are made without folding
	after  crdt.Stream // the stream served last
	turn   bool        // lane 3: the state's turn, not the log's
	lag    laneLag
	wait   int       // see linger
	deltas [2]int    // of the batch made last, before and after folding
	next   time.Time // no batch is made before; see linger
}

func (o *sender) init(c *Config, now time.Time) {
	o.wanted = map[crdt.Stream]bool{}
	o.stuck = map[crdt.Stream]bool{}
	o.pace.init(c, now)
	o.weights = c.Weights
	o.limit.rate = c.Bandwidth
	if !c.NoCompression {
		for l := range o.lanes {
			o.lanes[l].pack.level = c.CompressionLevel
		}
	}
}

// close releases what the sender holds.
func (o *sender) close(p *Peers) {
	o.sync.close(p)
	o.messages, o.messageBytes = nil, 0
	for l := range o.lanes {
		o.lanes[l] = outLane{}
	}
}

func (s *Session) onWant(b []byte) error {
	m, err := wire.DecodeWant(b)
	if err != nil {
		return err
	}
	if len(m.Origins) > MaxOrigins {
		return fail(CodeProtocol, "Want of %d origins", len(m.Origins))
	}
	o := &s.sending
	was := o.wanted
	o.wanted = make(map[crdt.Stream]bool, len(m.Origins))
	behind := 0
	var fresh []crdt.Stream
	for _, w := range m.Origins {
		if o.wanted[w.Origin] {
			return fail(CodeProtocol, "Want names origin %v twice", w.Origin)
		}
		o.wanted[w.Origin] = true
		if was[w.Origin] {
			continue // goes on where it is
		}
		o.sent = slices.DeleteFunc(o.sent, func(p crdt.Position) bool { return p.Stream.Origin() == w.Origin })
		o.given = slices.DeleteFunc(o.given, func(p crdt.Position) bool { return p.Stream.Origin() == w.Origin })
		for _, p := range w.Positions {
			o.sent.Set(p.Stream, p.Tag)
			if s.subscriber() {
				o.given.Set(p.Stream, p.Tag)
			}
		}
		for l := range crdt.Lane(crdt.Lanes) {
			delete(o.stuck, w.Origin|crdt.Stream(l))
		}
		if len(w.Positions) == 0 {
			fresh = append(fresh, w.Origin)
			for l := range crdt.Lane(crdt.Lanes) {
				if behind < s.cfg.SyncThreshold {
					n, _ := s.cfg.Log.Count(w.Origin|crdt.Stream(l), 0, s.cfg.SyncThreshold)
					behind += n
				}
			}
		}
	}
	if behind >= s.cfg.SyncThreshold && s.cfg.SyncThreshold > 0 && !s.subscriber() {
		// The state is shorter than its history.
		s.needSync(fresh)
	}
	return nil
}

// needSync stops sending origins that only a state sync can bring on.
func (s *Session) needSync(origins []crdt.Stream) {
	for _, o := range origins {
		delete(s.sending.wanted, o)
	}
	s.control.syncNeeded = append(s.control.syncNeeded, origins...)
}

func (s *Session) onCredit(b []byte) error {
	m, err := wire.DecodeCredit(b)
	if err != nil {
		return err
	}
	lane := &s.sending.lanes[m.Lane]
	if m.Bytes == 0 || m.Bytes > 1<<40 || lane.credit+int64(m.Bytes) > lane.window {
		return fail(CodeProtocol, "credit of %d bytes in lane %d, more than was used", m.Bytes, m.Lane)
	}
	lane.credit += int64(m.Bytes)
	return nil
}

// nextChunk returns the next piece of data, nil if there is none to send, no
// credit, no bandwidth, or enough under way. Lanes take turns in rounds: each may send its weight
// in chunks in a round, the first lane that can goes first, and the round ends
// when no lane can. What a lane sent beyond its share it owes to the next
// rounds, as long as another has something to send. So a lane that was idle
// overtakes a full one after a single chunk, and none starves.
func (s *Session) nextChunk(now time.Time) ([]byte, error) {
	o := &s.sending
	o.later = time.Time{}
	if !o.limit.open(now) {
		o.pace.idle()
		return nil, nil
	}
	open := o.pace.open(now, false)
	if !open && !o.pace.open(now, true) {
		return nil, nil
	}
	for round := range 3 {
		for l := range o.lanes {
			if !open && l > 0 {
				return nil, nil
			}
			lane := &o.lanes[l]
			if lane.budget <= 0 {
				continue
			}
			if crdt.Lane(l) == messageLane && len(o.messages) > 0 {
				return s.nextMessage(), nil
			}
			if crdt.Lane(l) == syncLane {
				if b := s.nextBulk(); b != nil {
					lane.budget -= len(b)
					return b, nil
				}
			}
			if len(lane.rest) == 0 {
				if err := s.fill(now, crdt.Lane(l)); err != nil {
					return nil, err
				}
			}
			if len(lane.rest) > 0 {
				return s.cut(l), nil
			}
		}
		for l := range o.lanes {
			lane := &o.lanes[l]
			if round > 0 {
				lane.budget = 0 // nobody waits for what it owes
			}
			lane.budget = min(lane.budget, 0) + o.weights[l]*o.pace.size
		}
	}
	o.pace.idle()
	return nil, nil
}

// cut takes the next chunk of a lane's batch.
func (s *Session) cut(l int) []byte {
	o := &s.sending
	lane := &o.lanes[l]
	n, asks := o.pace.chunk(len(lane.rest))
	t := frameChunk
	if asks {
		t = frameAsking
	}
	b := append(append(s.frameBuf[:0], byte(t)+byte(l)), lane.rest[:n]...)
	lane.rest = lane.rest[n:]
	lane.budget -= n
	return b
}

// fill makes the lane's next batch if there is something pending and credit
// for it. A batch that turned out larger than the credit is held until there
// is enough, or nothing else is under way.
func (s *Session) fill(now time.Time, l crdt.Lane) error {
	o := &s.sending
	lane := &o.lanes[l]
	free := lane.credit == lane.window
	if l == syncLane && len(o.sync.compare) > 0 {
		plain, err := s.buildRest(s.cfg.BatchBytes)
		if err != nil || plain == nil {
			return err
		}
		lane.deltas = [2]int{}
		return s.put(now, l, batchSyncRest, plain)
	}
	if lane.held == nil {
		if lane.next.After(now) {
			if o.later.IsZero() || lane.next.Before(o.later) {
				o.later = lane.next
			}
			return nil
		}
		lane.deltas = [2]int{}
		budget := int(min(int64(s.cfg.BatchBytes), lane.credit, int64(s.hello.MaxBatch/2)))
		if !free && lane.credit < min(int64(s.cfg.BatchBytes), lane.window/4) {
			return nil // wait for more, and let what is pending fold
		}
		plain, kind, err := s.build(now, l, budget)
		if err != nil || plain == nil {
			return err
		}
		lane.held, lane.kind = plain, kind
	}
	size := batchCost(len(lane.held))
	if size > lane.credit && !free {
		return nil
	}
	plain := lane.held
	lane.held = nil
	return s.put(now, l, lane.kind, plain)
}

// put packs a batch that is to go next in a lane.
func (s *Session) put(now time.Time, l crdt.Lane, kind batchKind, plain []byte) error {
	lane := &s.sending.lanes[l]
	b, err := lane.pack.pack(kind, plain)
	if err != nil {
		return fail(CodeInternal, "%w", err)
	}
	count := &s.stats.lanes[l]
	count.Batches++
	count.BytesFolded += uint64(len(plain))
	count.BytesPacked += uint64(len(b))
	lane.credit -= kind.cost(len(plain))
	s.sending.linger(now, l, len(b))
	lane.rest = b
	return nil
}

const (
	// mostLinger is how many times longer than the link took for a batch a lane
	// waits at most before its next.
	mostLinger = 10
	// maxLinger bounds what waiting adds to the lag.
	maxLinger = 500 * time.Millisecond
)

// linger has a lane wait before its next batch where folding pays: on a thin
// link, values that change all the time would else be sent as often as it can
// carry them. It waits the longer the more of its changes are to the same cells.
// The realtime lane never waits, nor does a lane whose batches have each cell
// but once.
func (o *sender) linger(now time.Time, l crdt.Lane, packed int) {
	lane := &o.lanes[l]
	switch before, after := lane.deltas[0], lane.deltas[1]; {
	case before >= 2*after && after > 0:
		lane.wait = min(max(1, 2*lane.wait), mostLinger)
	case 5*before < 6*after || after == 0:
		lane.wait /= 2
	}
	if speed := o.pace.rateAt(now); l != 0 && speed > 0 {
		took := time.Duration(packed) * time.Second / time.Duration(speed)
		lane.next = now.Add(min(time.Duration(lane.wait)*took, maxLinger))
	}
}

// build collects what is pending in a lane, up to a size.
func (s *Session) build(now time.Time, l crdt.Lane, budget int) ([]byte, batchKind, error) {
	lane := &s.sending.lanes[l]
	if l == syncLane && s.sending.sync.busy() {
		lane.turn = !lane.turn
		if lane.turn {
			b, kind, err := s.buildSync(budget)
			if b != nil || err != nil {
				return b, kind, err
			}
		}
		if b, err := s.buildEntries(now, l, budget); b != nil || err != nil {
			return b, batchEntries, err
		}
		return s.buildSync(budget)
	}
	b, err := s.buildEntries(now, l, budget)
	return b, batchEntries, err
}

// buildEntries reads, folds and encodes what the peer lacks of the lane's
// wanted streams. Streams take turns at going first.
func (s *Session) buildEntries(now time.Time, l crdt.Lane, budget int) ([]byte, error) {
	o := &s.sending
	lane := &o.lanes[l]
	if o.paused || len(o.wanted) == 0 || !s.wantsLane(l) {
		return nil, nil
	}
	var pending []crdt.Stream
	for _, p := range s.cfg.Log.Durable() {
		if p.Stream.Lane() == l && o.wanted[p.Stream.Origin()] && p.Tag > o.sent.Get(p.Stream) && !o.stuck[p.Stream] {
			pending = append(pending, p.Stream)
		}
	}
	if i, _ := slices.BinarySearch(pending, lane.after+1); i > 0 {
		pending = append(pending[i:len(pending):len(pending)], pending[:i]...)
	}
	out := lane.plain[:0]
	asIs := lane.asIs > 0 && !s.subscriber()
	var trimmed []crdt.Stream
	entries, skipped := 0, 0 // the latter are bytes of what the peer does not subscribe to
	for i := 0; i < len(pending); i++ {
		stream := pending[i]
		if len(out) > 0 && len(out) >= budget {
			break
		}
		var e crdt.Entry
		var one []byte
		var p stretch
		var err error
		was := len(out)
		if asIs {
			out, p, err = s.copyLog(out, stream, budget-len(out))
		} else {
			e, one, p, err = s.read(stream, budget-len(out))
		}
		switch {
		case errors.Is(err, ErrTrimmed):
			trimmed = append(trimmed, stream.Origin())
			continue
		case err != nil:
			return nil, err
		case p.entries == 0:
			continue
		}
		if one != nil {
			out = appendStored(out, one)
		} else if !asIs {
			if s.filter(&e); s.subscriber() && len(e.Deltas) == 0 {
				o.sent.Set(stream, p.last)
				if skipped += p.size; skipped > maxSkipped {
					s.wake() // goes on with the next frame
					break
				}
				i-- // what follows in the stream
				continue
			}
			out = appendEntry(out, &e)
		}
		switch {
		case uint64(len(out)-was) > s.hello.MaxBatch:
			// Nothing of the kind can be taken there: the stream waits, the
			// others go on.
			o.stuck[stream] = true
			s.stats.lastError = fmt.Sprintf("an entry of %d bytes in stream %v is more than node %d takes (%d): raise its limit", len(out)-was, stream, s.peer.Node, s.hello.MaxBatch)
			s.cfg.Logger.Error("entry too large for a peer", "peer", s.peer.Node, "stream", stream.String(), "bytes", len(out)-was, "limit", s.hello.MaxBatch)
			out = out[:was]
			continue
		case was > 0 && len(out) > budget:
			// It goes first in the next batch: alone, if it is huge.
			out = out[:was]
			continue
		}
		o.sent.Set(stream, p.last)
		if s.subscriber() {
			o.given.Set(stream, p.last)
		}
		lane.after = stream
		if stream.Node() == s.cfg.Self.Node {
			lane.lag.sent(now, stream, p.last, p.first)
		}
		s.stats.lanes[l].Entries += uint64(p.entries)
		s.stats.lanes[l].BytesRaw += uint64(p.size)
		entries += p.entries
		lane.deltas[0] += p.deltas
		lane.deltas[1] += len(e.Deltas)
	}
	if len(trimmed) > 0 {
		s.needSync(slices.Compact(trimmed))
	}
	if cap(out) <= maxPlain {
		lane.plain = out
	}
	if len(out) == 0 {
		return nil, nil
	}
	if lane.asIs--; lane.asIs < 0 {
		lane.asIs = 0
		if before, after := lane.deltas[0], lane.deltas[1]; entries > 1 && 20*after > 19*before {
			lane.asIs = asIsBatches
		}
	}
	return out, nil
}

// asIsBatches is how many batches are made of entries as they are in the log after one
// in which folding has spared next to nothing: what is written to many keys is shipped
// for the price of a copy, and what begins to be written again and again is folded soon.
const asIsBatches = 7

// maxPlain bounds the memory that a lane keeps for its next batch.
const maxPlain = 4 << 20

// stretch is what was read of a stream.
type stretch struct {
	first, last crdt.Tag // of the first and the last of its entries
	entries     int
	deltas      int // of them all; 0 if they were not looked into
	size        int // bytes in the log
}

func (p *stretch) add(h wire.Head, size int) {
	if p.entries == 0 {
		p.first = h.Tag
	}
	p.last = h.Tag
	p.entries++
	p.size += size
}

// copyLog appends a stream's next entries as they are.
func (s *Session) copyLog(out []byte, stream crdt.Stream, budget int) (_ []byte, p stretch, err error) {
	err = s.readLog(stream, s.sending.sent.Get(stream), budget, func(h wire.Head, b []byte) error {
		p.add(h, len(b))
		out = appendStored(out, b)
		return nil
	})
	return out, p, err
}

// maxSkipped bounds how much of the log is looked through for a subscriber at a
// time, in bytes.
const maxSkipped = 4 << 20

// maxFold bounds how much of the log is folded into one batch, in bytes.
const maxFold = 16 << 20

// read returns a stream's next range, folded, or one entry as it is in the log, for which
// nothing can be spared. The budget is for what is left after folding: as long as that
// pays, more is read.
func (s *Session) read(stream crdt.Stream, budget int) (out crdt.Entry, one []byte, p stretch, err error) {
	var raw [][]byte
	gather := func(h wire.Head, b []byte) error {
		p.add(h, len(b))
		raw = append(raw, bytes.Clone(b))
		return nil
	}
	err = s.readLog(stream, s.sending.sent.Get(stream), budget, gather)
	switch {
	case err != nil || len(raw) == 0:
		return crdt.Entry{}, nil, stretch{}, err
	case len(raw) == 1 && !s.subscriber():
		return crdt.Entry{}, raw[0], p, nil
	}
	var entries []crdt.Entry
	decode := func() error {
		for _, b := range raw {
			e, err := wire.DecodeEntry(b)
			if err != nil {
				return fail(CodeInternal, "reading stream %v of the log: %w", stream, err)
			}
			p.deltas += len(e.Deltas)
			entries = append(entries, e)
		}
		raw = raw[:0]
		return nil
	}
	if err := decode(); err != nil {
		return crdt.Entry{}, nil, stretch{}, err
	}
	out = crdt.FoldEntries(entries)
	for newest := s.cfg.Log.Durable().Get(stream); out.Tag < newest && p.size < maxFold && 2*len(out.Deltas) < p.deltas; {
		room := budget - len(wire.EncodeEntry(nil, &out))
		if room < budget/4 {
			break
		}
		so := p
		entries = append(entries[:0], out)
		if err := s.readLog(stream, out.Tag, room, gather); err != nil || len(raw) == 0 || p.size-so.size > room || decode() != nil {
			p = so
			break // it is the next batch's
		}
		if entries[1].Prev < out.Tag {
			entries[1] = entries[1].After(out.Tag)
		}
		out = crdt.FoldEntries(entries)
	}
	return out, nil, p, nil
}

// readLog calls fn for a part of a stream and sees that it is in order.
func (s *Session) readLog(stream crdt.Stream, from crdt.Tag, budget int, fn func(h wire.Head, entry []byte) error) error {
	last := crdt.Tag(0)
	err := s.cfg.Log.Read(stream, from, max(budget, 1), func(b []byte) error {
		h, err := wire.DecodeHead(b)
		switch {
		case err != nil:
			return err
		case last == 0 && h.Prev > from:
			return ErrTrimmed
		case h.Stream != stream || last > 0 && h.Prev != last || h.Tag <= from:
			return fmt.Errorf("it is not in order at %v", h.Tag)
		}
		last = h.Tag
		return fn(h, b)
	})
	if err != nil && !errors.Is(err, ErrTrimmed) {
		err = fail(CodeInternal, "reading stream %v of the log: %w", stream, err)
	}
	return err
}

// appendStored appends an entry as it is in the log behind its length.
func appendStored(b, entry []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(entry))), entry...)
}

// appendEntry appends an entry behind its length.
func appendEntry(b []byte, e *crdt.Entry) []byte {
	const room = 4
	start := len(b)
	b = wire.EncodeEntry(append(b, 0, 0, 0, 0), e)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-room))
	return b
}

// limiter keeps a link within a bandwidth.
type limiter struct {
	rate int       // bytes a second; 0: no limit
	free time.Time // when what was sent so far has gone at that rate
	held bool      // something was asked for before
}

// limitSlack is how much of the bandwidth may be made up for: timers are late.
const limitSlack = 20 * time.Millisecond

// open reports whether data may be sent now.
func (l *limiter) open(now time.Time) bool {
	l.held = l.rate > 0 && l.free.After(now)
	return !l.held
}

// sent takes note of bytes that go now.
func (l *limiter) sent(now time.Time, n int) {
	if l.rate > 0 {
		l.free = later(l.free, now.Add(-limitSlack)).Add(time.Duration(n) * time.Second / time.Duration(l.rate))
	}
}
