package wan

import (
	"fmt"
	"testing"
	"time"
)

// drive runs a link in virtual time for a while: each end is asked whenever it
// has something to say, and when its limit lets it.
func (l *link) drive(d time.Duration) {
	for end := l.now.Add(d); l.now.Before(end); {
		for l.once() {
		}
		step := 10 * time.Millisecond
		for _, s := range []*Session{l.sa, l.sb} {
			if held := s.Held(*l.now); held > 0 {
				step = min(step, held)
			}
		}
		*l.now = l.now.Add(step)
		l.a.peers.Tick(*l.now)
		l.b.peers.Tick(*l.now)
	}
}

// A link with a limit keeps within it, uses it, stays alive, and lets an urgent
// write go before what waits.
func TestBandwidth(t *testing.T) {
	const rate = 50_000
	a, b, now := pair(t, func(c *Config) { c.NoCompression, c.Bandwidth = true, rate })
	l := connect(t, a, b, now)
	l.drive(time.Second)
	for i := range 10 {
		a.set(3, fmt.Sprint("bulk", i), noise(uint64(i), 100_000))
	}
	before := a.peers.Stats(*now)[0].BytesOut
	for range 10 {
		l.drive(time.Second)
		sent := a.peers.Stats(*now)[0].BytesOut - before
		if most := uint64(rate + rate/50 + MaxChunk); sent > most {
			t.Errorf("%d bytes in a second, the limit is %d", sent, rate)
		}
		if sent < rate*9/10 {
			t.Errorf("%d bytes in a second, though more waits and %d are allowed", sent, rate)
		}
		before += sent
	}
	if b.get("bulk9") != "" {
		t.Fatal("a megabyte went by: this tests nothing")
	}
	a.set(0, "urgent", "x")
	l.drive(100 * time.Millisecond)
	if b.get("urgent") != "x" {
		t.Error("an urgent write waits behind the bulk")
	}
	l.drive(20 * time.Second)
	same(t, a, b)
	if st := a.peers.Stats(*now)[0]; st.Sessions != 1 {
		t.Errorf("%d sessions: heartbeats did not get through", st.Sessions)
	}
}

// What a lane sends beyond its share is taken off the next rounds: large
// messages get the realtime lane's share and no more.
func TestLanesOwe(t *testing.T) {
	a, b, now := pair(t, func(c *Config) {
		c.NoCompression, c.MinChunk, c.MaxChunk, c.Window, c.MaxBatch = true, 1000, 1000, 64<<20, 128<<20
	})
	l := connect(t, a, b, now)
	l.run()
	a.set(3, "bulk", noise(1, 900_000))
	var got [2]int
	l.log = func(from *Session, f []byte) {
		switch t := frameType(f[0]); {
		case from != l.sa:
		case t == framePublish:
			got[0] += len(f)
		case t.channel() > 0:
			got[1] += len(f)
		}
	}
	m := &Message{Channel: []byte("c"), Payload: make([]byte, 100_000)}
	for range 500 {
		a.peers.Publish(m)
		l.step(l.sa, l.sb)
	}
	if share := float64(got[0]) / float64(got[1]); share < 6 || share > 10 {
		t.Errorf("messages got %.1f times what the idle lane got, the weights say 8", share)
	}
	if b.get("bulk") != "" {
		t.Fatal("all went by: this tests nothing")
	}
}
