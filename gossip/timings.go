package gossip

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// Timings are how often a node talks and how long it waits. Zero fields take
// the value that WANTimings has.
type Timings struct {
	// Probe is the time between two probes, each of one member in turn.
	// Shorter finds failures sooner and sends more.
	Probe time.Duration

	// ProbeTimeout is how long a probe is waited for: more than nearly every
	// round trip takes, less than Probe.
	ProbeTimeout time.Duration

	// SuspicionMult times Probe is about how long a member that answers
	// nobody has for answering after all, before it is called failed.
	SuspicionMult int

	// Gossip is the time between two sendings of what is new.
	Gossip time.Duration

	// PushPull is the time between two full exchanges with some member, which
	// repair what gossip lost.
	PushPull time.Duration

	// Dead is how long memberlist remembers a process after its end. The
	// member itself is remembered until it is forgotten.
	Dead time.Duration

	// Stream bounds one connection of memberlist, dialling included.
	Stream time.Duration

	// Reconnect is the time between two rounds of trying the members that
	// are not alive.
	Reconnect time.Duration
}

// WANTimings suit regions far apart: memberlist's WAN profile. A dead member
// is called failed after about 35 s.
func WANTimings() Timings {
	c := memberlist.DefaultWANConfig()
	return Timings{
		Probe:         c.ProbeInterval,
		ProbeTimeout:  c.ProbeTimeout,
		SuspicionMult: c.SuspicionMult,
		Gossip:        c.GossipInterval,
		PushPull:      c.PushPullInterval,
		Dead:          c.GossipToTheDeadTime,
		Stream:        c.TCPTimeout,
		Reconnect:     10 * time.Second,
	}
}

// LANTimings suit nodes on one network or machine. A dead member is called
// failed after about 5 s.
func LANTimings() Timings {
	c := memberlist.DefaultLANConfig()
	return Timings{
		Probe:         c.ProbeInterval,
		ProbeTimeout:  c.ProbeTimeout,
		SuspicionMult: c.SuspicionMult,
		Gossip:        c.GossipInterval,
		PushPull:      c.PushPullInterval,
		Dead:          c.GossipToTheDeadTime,
		Stream:        c.TCPTimeout,
		Reconnect:     2 * time.Second,
	}
}

func (t Timings) withDefaults() Timings {
	d := WANTimings()
	for _, f := range []struct{ v, def *time.Duration }{
		{&t.Probe, &d.Probe},
		{&t.ProbeTimeout, &d.ProbeTimeout},
		{&t.Gossip, &d.Gossip},
		{&t.PushPull, &d.PushPull},
		{&t.Dead, &d.Dead},
		{&t.Stream, &d.Stream},
		{&t.Reconnect, &d.Reconnect},
	} {
		if *f.v <= 0 {
			*f.v = *f.def
		}
	}
	if t.SuspicionMult <= 0 {
		t.SuspicionMult = d.SuspicionMult
	}
	return t
}

// attempt bounds one attempt of the reconnect loop: a member whose packets
// vanish must not keep the loop from the next one for long.
func (t Timings) attempt() time.Duration { return min(t.Stream, 10*time.Second) }
