package wan

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// counters counts what went through a session.
type counters struct {
	raw, plain, packed, wireOut uint64
	batches, entries            uint64
	wireIn, plainIn, batchesIn  uint64
	entriesIn, duplicates       uint64
	lastError                   string
}

func (c *counters) add(o *counters) {
	c.raw += o.raw
	c.plain += o.plain
	c.packed += o.packed
	c.wireOut += o.wireOut
	c.batches += o.batches
	c.entries += o.entries
	c.wireIn += o.wireIn
	c.plainIn += o.plainIn
	c.batchesIn += o.batchesIn
	c.entriesIn += o.entriesIn
	c.duplicates += o.duplicates
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
	Origin   crdt.Stream
	Durable  crdt.Vector   // as the peer last said
	Tag      crdt.Tag      // of its last heartbeat
	Wants    []crdt.Stream // origins the peer gets from here
	Gets     []crdt.Stream // origins this node gets from there
	Sessions uint64
	Syncing  bool // a state sync is under way, in either direction

	RTT        time.Duration
	Lag        time.Duration // of this node's writes at the peer; see docs/PROTOCOL.md, "Heartbeat". It grows while there is no session
	Level      time.Time     // this node's writes up to here are known to be durable at the peer; zero if that was never heard
	LagEntries int           // sent or not, not yet durable there; counted up to MaxCount. Only this node's own while there is no session
	Pending    int           // not yet sent; counted up to MaxCount
	Credit     [crdt.Lanes]int64

	BytesRaw     uint64 // of the entries sent, as they are in the log
	BytesFolded  uint64 // of the batches made of them
	BytesPacked  uint64 // of the batches, compressed
	BytesOut     uint64 // on the wire
	Batches      uint64
	Entries      uint64
	BytesIn      uint64
	BytesPlainIn uint64
	BatchesIn    uint64
	EntriesIn    uint64
	Duplicates   uint64 // entries that came and were there

	LastError   string
	LastErrorAt time.Time
}

// MaxCount bounds the counting of entries in Stats.
const MaxCount = 10_000

// Stats returns the state of all peers there has been a session with, by node.
func (p *Peers) Stats(now time.Time) []Stats {
	p.mu.Lock()
	out := make([]Stats, 0, len(p.status))
	live := maps.Clone(p.live)
	for n, st := range p.status {
		s := Stats{Node: n, Since: st.since, Sessions: st.reopens, LastError: st.err, LastErrorAt: st.errAt, Level: st.level, Durable: st.known}
		total := st.total
		if l := live[n]; l != nil {
			l.mu.Lock()
			total.add(&l.stats)
			l.mu.Unlock()
		}
		s.BytesRaw, s.BytesFolded, s.BytesPacked, s.BytesOut, s.Batches, s.Entries = total.raw, total.plain, total.packed, total.wireOut, total.batches, total.entries
		s.BytesIn, s.BytesPlainIn, s.BatchesIn, s.EntriesIn, s.Duplicates = total.wireIn, total.plainIn, total.batchesIn, total.entriesIn, total.duplicates
		out = append(out, s)
	}
	p.mu.Unlock()
	slices.SortFunc(out, func(a, b Stats) int { return cmp.Compare(a.Node, b.Node) })
	for i := range out {
		if s := live[out[i].Node]; s != nil {
			s.fillStats(now, &out[i])
		} else {
			p.fillAbsent(now, &out[i])
		}
	}
	return out
}

// fillAbsent adds how far a peer is behind that there is no session with.
func (p *Peers) fillAbsent(now time.Time, out *Stats) {
	if !out.Level.IsZero() {
		out.Lag = now.Sub(out.Level)
	}
	own := p.cfg.Log.Origin().Node()
	for _, x := range p.cfg.Log.Durable() {
		if t := out.Durable.Get(x.Stream); x.Stream.Node() == own && t < x.Tag && out.LagEntries < MaxCount {
			out.LagEntries += p.cfg.Log.Count(x.Stream, t, MaxCount-out.LagEntries)
		}
	}
	out.Pending = out.LagEntries
}

// fillStats adds what only a live session knows.
func (s *Session) fillStats(now time.Time, out *Stats) {
	s.mu.Lock()
	out.Live = s.phase == phaseReady
	out.Alias, out.Region, out.Address, out.Origin = printable(s.peer.Alias), s.hello.Region, printable(s.peer.Address), s.hello.Origin
	out.Durable, out.Tag = s.known, s.beat.tag
	out.Wants = slices.Sorted(maps.Keys(s.sending.wanted))
	out.Gets = slices.Clone(s.control.wanted)
	out.Syncing = s.sending.sync.busy() || s.taking.sync.active()
	out.RTT, out.Lag = s.beat.rtt, s.beat.lagAt(now)
	if s.beat.level.IsZero() && !out.Level.IsZero() {
		out.Lag = max(out.Lag, now.Sub(out.Level)) // a young session does not know yet
	}
	out.Level = later(out.Level, s.beat.level)
	for l := range s.sending.lanes {
		out.Credit[l] = s.sending.lanes[l].credit
	}
	if s.stats.lastError != "" {
		out.LastError = s.stats.lastError
	}
	known, sent, log := s.known, s.sending.sent.Clone(), s.cfg.Log
	s.mu.Unlock()
	for _, p := range log.Durable() {
		if slices.Contains(out.Wants, p.Stream.Origin()) {
			if t := known.Get(p.Stream); t < p.Tag && out.LagEntries < MaxCount {
				out.LagEntries += log.Count(p.Stream, t, MaxCount-out.LagEntries)
			}
			if t := sent.Get(p.Stream); t < p.Tag && out.Pending < MaxCount {
				out.Pending += log.Count(p.Stream, t, MaxCount-out.Pending)
			}
		}
	}
}
