package wan

import (
	"slices"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Heartbeats that are remembered until they have been answered.
const (
	maxPings = 64 // of this side: how far back the age of the lag reaches, in detail
	maxMarks = 16 // of the peer
	// maxClock bounds a peer's clock, in microseconds: it began with the session.
	maxClock = 1 << 50
)

// heartbeat keeps both directions' heartbeats of a session. A heartbeat names
// the positions of the sender's own streams; the peer answers at once, for the
// round trip, and again when the positions are durable there. So the lag is
// what the sender's data took to be safe at the far side, and the way of the
// answer: it may be more than the truth, by less than a round trip, and never
// less.
type heartbeat struct {
	// What is sent.
	due       time.Time
	last      uint64
	pings     []ping // not yet reached, oldest first
	rtt       time.Duration
	heardPong uint64 // newest heartbeat answered
	lag       time.Duration
	level     time.Time // when the newest one that was reached was sent

	// What the peer sends.
	heard   uint64
	pong    bool
	got     uint64        // bytes received with the last frame that asked for a Pong
	gotAt   time.Duration // since the session began
	reached uint64
	marks   []mark
	tag     crdt.Tag
	own     crdt.Vector
	census  uint64

	ackAll bool // the next ack is of all streams

	feeds    []crdt.Stream // to tell the peer; see planner
	theyFeed []crdt.Stream // as the peer last told
}

type ping struct {
	id    uint64
	sent  time.Time
	bytes uint64 // sent with it, of the session
}

type mark struct {
	id  uint64
	own crdt.Vector
}

// nextHeartbeat makes the heartbeat that is due. The ack of all streams follows
// it, so that what the census says held before what the ack says.
func (s *Session) nextHeartbeat(now time.Time, f *Frontier) []byte {
	h := &s.beat
	h.due = now.Add(s.cfg.Heartbeat)
	h.last++
	if len(h.pings) == maxPings {
		h.pings = append(h.pings[:1], h.pings[2:]...) // the oldest tells the lag
	}
	h.ackAll, s.control.ack = true, true
	m := wire.Heartbeat{Ping: h.last, Tag: f.Tag, Positions: f.Own, Census: f.Census, Feeds: h.feeds}
	b := m.Encode()
	h.pings = append(h.pings, ping{h.last, now, s.stats.wireOut + uint64(1+len(b)+checkSize)})
	return b
}

func (s *Session) onHeartbeat(now time.Time, b []byte) ([]func(), error) {
	m, err := wire.DecodeHeartbeat(b)
	if err != nil {
		return nil, err
	}
	h := &s.beat
	if m.Ping <= h.heard || m.Tag < h.tag {
		return nil, fail(CodeProtocol, "heartbeats run backwards")
	}
	if len(m.Feeds) > MaxOrigins {
		return nil, fail(CodeProtocol, "heartbeat with %d origins", len(m.Feeds))
	}
	for _, p := range m.Positions {
		if p.Stream.Node() != s.peer.Node {
			return nil, fail(CodeProtocol, "node %d speaks for stream %v", s.peer.Node, p.Stream)
		}
	}
	h.heard, h.pong = m.Ping, true
	h.tag, h.own, h.census = m.Tag, m.Positions, m.Census
	if len(h.marks) < maxMarks {
		h.marks = append(h.marks, mark{m.Ping, m.Positions})
	}
	h.reach(s.cfg.Log.Durable())
	calls := append(s.raiseKnown(now, m.Positions), s.tellHeard())
	if !slices.Equal(h.theyFeed, m.Feeds) {
		h.theyFeed = m.Feeds
		calls = append(calls, s.peers.replan)
	}
	return calls, nil
}

// setFeeds tells the peer with the next heartbeat, at once if they are others
// than before, which origins this node can have from themselves.
func (s *Session) setFeeds(now time.Time, feeds []crdt.Stream) {
	s.mu.Lock()
	changed := s.phase == phaseReady && !slices.Equal(s.beat.feeds, feeds)
	if changed {
		s.beat.feeds, s.beat.due = feeds, now
	}
	s.mu.Unlock()
	if changed {
		s.wake()
	}
}

// reach notes which of the peer's heartbeats are durable here.
func (h *heartbeat) reach(durable crdt.Vector) {
	for len(h.marks) > 0 && h.marks[0].own.In(durable) {
		h.reached, h.pong = h.marks[0].id, true
		h.marks = h.marks[1:]
	}
}

func (s *Session) onPong(now time.Time, b []byte) error {
	m, err := wire.DecodePong(b)
	if err != nil {
		return err
	}
	h := &s.beat
	if m.Ping > h.last || m.Reached > m.Ping {
		return fail(CodeProtocol, "answer to a heartbeat that was not sent")
	}
	if m.Clock > maxClock {
		return fail(CodeProtocol, "clock of %d µs", m.Clock)
	}
	got, at := m.Received, time.Duration(m.Clock)*time.Microsecond
	for _, p := range h.pings {
		if p.id == m.Ping && m.Ping > h.heardPong {
			h.rtt = now.Sub(p.sent)
			if s.version() < versionAsking { // it says as much by coming at all
				got, at = p.bytes, now.Sub(s.opened)
			}
		}
		if p.id == m.Reached {
			h.lag, h.level = now.Sub(p.sent), p.sent
		}
	}
	if (got > 0 || s.version() >= versionAsking) && !s.sending.pace.told(now, got, at) {
		return fail(CodeProtocol, "node %d says to have received %d bytes by %v", s.peer.Node, got, at)
	}
	h.heardPong = max(h.heardPong, m.Ping)
	for len(h.pings) > 0 && h.pings[0].id <= m.Reached {
		h.pings = h.pings[1:]
	}
	return nil
}

// lagAt returns the lag as it is known now: that of the newest heartbeat that
// was reached, or the age of the oldest that was not.
func (h *heartbeat) lagAt(now time.Time) time.Duration {
	if len(h.pings) > 0 {
		return max(h.lag, now.Sub(h.pings[0].sent))
	}
	return h.lag
}

// rttAt returns the round trip as it is known now: that of the newest heartbeat
// that was answered, or the age of the oldest that was not.
func (h *heartbeat) rttAt(now time.Time) time.Duration {
	for _, p := range h.pings {
		if p.id > h.heardPong {
			return max(h.rtt, now.Sub(p.sent))
		}
	}
	return h.rtt
}

// maxLagMarks bounds the batches of a lane whose time is remembered.
const maxLagMarks = 64

// laneLag measures what this node's writes in a lane took to be durable at the
// peer, and known to be so here.
type laneLag struct {
	marks []lagMark // sent, and not known to be durable there
	last  time.Duration
	at    time.Time // when last was measured
}

// lagMark is a range of a stream that was sent, and when the first entry in it
// was made.
type lagMark struct {
	stream crdt.Stream
	tag    crdt.Tag
	made   time.Time
}

// sent notes that a stream was sent up to a tag. The tag of the first entry
// says when it was made, unless it runs ahead of the clock.
func (l *laneLag) sent(now time.Time, stream crdt.Stream, tag, first crdt.Tag) {
	made := first.Time()
	if made.After(now) {
		made = now
	}
	if n := len(l.marks); n == maxLagMarks && l.marks[n-1].stream == stream {
		l.marks[n-1].tag = tag // with the time of the older
		return
	} else if n == maxLagMarks {
		l.marks = l.marks[1:]
	}
	l.marks = append(l.marks, lagMark{stream, tag, made})
}

// reached notes what is durable at the peer.
func (l *laneLag) reached(now time.Time, known crdt.Vector) {
	var oldest time.Time
	l.marks = slices.DeleteFunc(l.marks, func(m lagMark) bool {
		done := m.tag <= known.Get(m.stream)
		if done && (oldest.IsZero() || m.made.Before(oldest)) {
			oldest = m.made
		}
		return done
	})
	if !oldest.IsZero() {
		l.last, l.at = now.Sub(oldest), now
	}
}
