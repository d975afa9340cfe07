package wan

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// counters counts what went through a session.
type counters struct {
	lanes                      [crdt.Lanes]Sent
	wireOut                    uint64
	wireIn, plainIn, batchesIn uint64
	entriesIn, duplicates      uint64
	messages, messagesIn       uint64
	unsent                     uint64 // messages
	lastError                  string
}

// Sent counts what was sent of the log and of states. Each of the sizes is what
// the step before it has made of the entries; what a transport adds to frames
// is in none of them.
type Sent struct {
	Entries     uint64
	Batches     uint64
	BytesRaw    uint64 // of the entries, as they are in the log
	BytesFolded uint64 // of the batches made of them
	BytesPacked uint64 // of the batches, compressed
	BytesOut    uint64 // of the frames they were sent in
}

func (c *Sent) add(o *Sent) {
	c.Entries += o.Entries
	c.Batches += o.Batches
	c.BytesRaw += o.BytesRaw
	c.BytesFolded += o.BytesFolded
	c.BytesPacked += o.BytesPacked
	c.BytesOut += o.BytesOut
}

func (c *counters) add(o *counters) {
	for l := range c.lanes {
		c.lanes[l].add(&o.lanes[l])
	}
	c.wireOut += o.wireOut
	c.wireIn += o.wireIn
	c.plainIn += o.plainIn
	c.batchesIn += o.batchesIn
	c.entriesIn += o.entriesIn
	c.duplicates += o.duplicates
	c.messages += o.messages
	c.messagesIn += o.messagesIn
	c.unsent += o.unsent
}

// Stats is what REPLICAS and the metrics show of a peer. Counts go on over the
// peer's sessions until this node restarts.
type Stats struct {
	Node     uint16
	Live     bool
	Since    time.Time // when Live last changed
	Alias    string
	Region   string
	Address  string // where the peer says it can be reached
	Via      string // URL dialled, or that of the other end where the peer dialled
	Origin   crdt.Stream
	Durable  crdt.Vector   // as the peer last said, in this session or the one before
	Tag      crdt.Tag      // of its last heartbeat
	Wants    []crdt.Stream // origins the peer gets from here
	Gets     []crdt.Stream // origins this node gets from there
	Sessions uint64
	Syncing  bool // a state sync is under way, in either direction

	RTT     time.Duration
	Rate    int           // bytes a second, as the link had when it was full last, or more; 0 if nothing is known
	Queue   time.Duration // how long what was sent waited in the network when the link was full last
	Lag     time.Duration // of this node's writes at the peer; see docs/PROTOCOL.md, "Heartbeat"
	Level   time.Time     // everything this node wrote before was durable at the peer, as heartbeats told; zero if none did
	Backlog               // of all lanes
	Lanes   [crdt.Lanes]LaneStats

	Sent                // in all lanes, but BytesOut counts all frames
	BytesIn      uint64 // of all frames
	BytesPlainIn uint64
	BatchesIn    uint64
	EntriesIn    uint64
	Duplicates   uint64 // entries that came and were there
	Messages     uint64 // published there
	MessagesIn   uint64 // published from there
	Unsent       uint64 // messages dropped: no link, no room, too large, or the peer is too old

	LastError   string
	LastErrorAt time.Time

	answered bool // RTT is that of a heartbeat of this session
}

// LaneStats is the part of a lane in Stats.
type LaneStats struct {
	// Lag is how old this node's writes in the lane were when they were durable
	// at the peer, as far as known here: of those that got there in the last
	// two heartbeats the oldest, and no less than the age of the oldest that is
	// not known to be there, nor than a heartbeat took.
	Lag time.Duration
	Backlog
	Credit int64 // what the peer takes now, in plain bytes
	Sent
}

// Backlog counts entries of this node and those the peer wants of others, as
// they are in the log: up to MaxCount of each stream.
type Backlog struct {
	LagEntries   int // sent or not, not known to be durable at the peer
	LagBytes     int64
	Pending      int // of them, not yet sent
	PendingBytes int64
}

func (b *Backlog) add(o *Backlog) {
	b.LagEntries += o.LagEntries
	b.LagBytes += o.LagBytes
	b.Pending += o.Pending
	b.PendingBytes += o.PendingBytes
}

// MaxCount bounds the counting of a stream's entries in Stats.
const MaxCount = 10_000

// Stats returns the state of all peers, by node: those that were expected, and
// those there has been a session with.
func (p *Peers) Stats(now time.Time) []Stats {
	p.mu.Lock()
	out := make([]Stats, 0, len(p.status))
	live := maps.Clone(p.live)
	for n, st := range p.status {
		s := Stats{Node: n, Since: st.since, Sessions: st.reopens, LastError: st.err, LastErrorAt: st.errAt, Durable: st.known, Level: st.level}
		total := st.total
		if l := live[n]; l != nil {
			l.mu.Lock()
			total.add(&l.stats)
			l.mu.Unlock()
		}
		for l := range s.Lanes {
			s.Lanes[l].Sent = total.lanes[l]
			s.Sent.add(&total.lanes[l])
		}
		s.BytesOut = total.wireOut
		s.BytesIn, s.BytesPlainIn, s.BatchesIn, s.EntriesIn, s.Duplicates = total.wireIn, total.plainIn, total.batchesIn, total.entriesIn, total.duplicates
		s.Messages, s.MessagesIn, s.Unsent = total.messages, total.messagesIn, total.unsent
		out = append(out, s)
	}
	p.mu.Unlock()
	slices.SortFunc(out, func(a, b Stats) int { return cmp.Compare(a.Node, b.Node) })
	for i := range out {
		x := &out[i]
		var sent crdt.Vector
		if s := live[x.Node]; s != nil {
			sent = s.fillStats(now, x)
		} else if !x.Level.IsZero() {
			x.Lag = now.Sub(x.Level)
		}
		p.fillLag(now, x, sent)
	}
	return out
}

// fillStats adds what only a live session knows, and returns how far it has
// sent each stream.
func (s *Session) fillStats(now time.Time, out *Stats) crdt.Vector {
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Live = s.phase == phaseReady
	out.Alias, out.Region, out.Address, out.Origin = printable(s.peer.Alias), s.hello.Region, printable(s.peer.Address), s.hello.Origin
	out.Durable, out.Tag, out.Via = s.known, s.beat.tag, s.via
	out.Wants = slices.Sorted(maps.Keys(s.sending.wanted))
	out.Gets = slices.Clone(s.control.wanted)
	out.Syncing = s.sending.sync.busy() || s.taking.sync.active()
	out.RTT, out.Lag = s.beat.rttAt(now), s.beat.lagAt(now)
	out.Rate, out.Queue = int(s.sending.pace.rate()), s.sending.pace.wait
	if s.beat.level.IsZero() && !out.Level.IsZero() {
		out.Lag = now.Sub(out.Level) // the session is too young to tell
	}
	out.Level, out.answered = later(out.Level, s.beat.level), s.beat.heardPong > 0
	for l := range s.sending.lanes {
		lane := &s.sending.lanes[l]
		out.Lanes[l].Credit = lane.credit
		if now.Sub(lane.lag.at) <= 2*s.cfg.Heartbeat {
			out.Lanes[l].Lag = lane.lag.last
		}
	}
	if s.stats.lastError != "" {
		out.LastError = s.stats.lastError
	}
	return s.sending.sent.Clone()
}

// fillLag adds how far the peer is behind, whether or not it is there and asks
// for anything: it is behind as long as it is not known to have what this node
// wrote. The time is told by heartbeats, by this node's clock, and by the tags
// of what the peer lacks, where no heartbeat has told yet.
func (p *Peers) fillLag(now time.Time, out *Stats, sent crdt.Vector) {
	log, me := p.cfg.Log, p.cfg.Self.Node
	for _, x := range log.Durable() {
		own := x.Stream.Node() == me
		if !own && !slices.Contains(out.Wants, x.Stream.Origin()) {
			continue
		}
		known := out.Durable.Get(x.Stream)
		if known >= x.Tag {
			continue
		}
		lane := &out.Lanes[x.Stream.Lane()]
		var b Backlog
		b.LagEntries, b.LagBytes = log.Count(x.Stream, known, MaxCount)
		if t := max(known, sent.Get(x.Stream)); t == known {
			b.Pending, b.PendingBytes = b.LagEntries, b.LagBytes
		} else if t < x.Tag {
			b.Pending, b.PendingBytes = log.Count(x.Stream, t, MaxCount)
		}
		lane.Backlog.add(&b)
		out.Backlog.add(&b)
		if own {
			age := now.Sub(p.follow.time(log, crdt.Position{Stream: x.Stream, Tag: known}))
			lane.Lag, out.Lag = max(lane.Lag, age), max(out.Lag, age)
		}
	}
	// A lane in which nothing waits may be faster than a heartbeat, which
	// speaks of all lanes, but not faster than a round trip.
	least := out.Lag
	if out.answered && out.LagEntries > 0 {
		least = out.RTT
	}
	for l := range out.Lanes {
		out.Lanes[l].Lag = max(out.Lanes[l].Lag, least)
	}
}

// follow remembers when the entries after positions were made.
type follow struct {
	mu   sync.Mutex
	tags map[crdt.Position]crdt.Tag
}

// maxFollow bounds what is remembered.
const maxFollow = 1024

// time returns when the first entry after a position was made, or, where the
// log no longer has it, a time before that. There must be an entry.
func (f *follow) time(log Log, p crdt.Position) time.Time {
	f.mu.Lock()
	tag, ok := f.tags[p]
	f.mu.Unlock()
	if ok {
		return tag.Time()
	}
	var head wire.Head
	err := log.Read(p.Stream, p.Tag, 1, func(b []byte) (err error) {
		head, err = wire.DecodeHead(b)
		return err
	})
	switch {
	case err == nil && head.Tag > 0:
		tag = head.Tag
	case p.Tag > 0:
		return p.Tag.Time()
	default:
		return crdt.TagEpoch.Add(time.Duration(p.Stream.Incarnation()) * time.Millisecond)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tags == nil || len(f.tags) >= maxFollow {
		f.tags = map[crdt.Position]crdt.Tag{}
	}
	f.tags[p] = tag
	return tag.Time()
}
