package wan

import (
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Heartbeats that are remembered until they have been answered.
const (
	maxPings = 64 // of this side: how far back the age of the lag reaches, in detail
	maxMarks = 16 // of the peer
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
	reached uint64
	marks   []mark
	tag     crdt.Tag
	own     crdt.Vector
	census  uint64

	ackAll bool // the next ack is of all streams
}

type ping struct {
	id   uint64
	sent time.Time
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
	h.pings = append(h.pings, ping{h.last, now})
	h.ackAll, s.control.ack = true, true
	m := wire.Heartbeat{Ping: h.last, Tag: f.Tag, Positions: f.Own, Census: f.Census}
	return m.Encode()
}

func (s *Session) onHeartbeat(b []byte) ([]func(), error) {
	m, err := wire.DecodeHeartbeat(b)
	if err != nil {
		return nil, err
	}
	h := &s.beat
	if m.Ping <= h.heard || m.Tag < h.tag {
		return nil, fail(CodeProtocol, "heartbeats run backwards")
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
	return append(s.raiseKnown(m.Positions), s.tellHeard()), nil
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
	for _, p := range h.pings {
		if p.id == m.Ping && m.Ping > h.heardPong {
			h.rtt = now.Sub(p.sent)
		}
		if p.id == m.Reached {
			h.lag, h.level = now.Sub(p.sent), p.sent
		}
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
