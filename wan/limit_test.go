package wan

import (
	"fmt"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
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
		l.step(l.sb, l.sa)
	}
	if share := float64(got[0]) / float64(got[1]); share < 6 || share > 10 {
		t.Errorf("messages got %.1f times what the idle lane got, the weights say 8", share)
	}
	if b.get("bulk") != "" {
		t.Fatal("all went by: this tests nothing")
	}
}

// Values that change all the time take a small part of a thin link, and are not
// later for it than half a second; realtime ones and those that change once do
// not wait.
func TestLinger(t *testing.T) {
	const rate = 50_000
	a, b, now := pair(t, func(c *Config) { c.Bandwidth = rate })
	l := connect(t, a, b, now)
	l.drive(2 * time.Second)
	before := a.peers.Stats(*now)[0].Lanes
	for range 250 { // 5 s, for each is 20 ms
		for i := range 800 {
			a.write(1, func(w *crdt.Writer) {
				w.AddElem(crdt.Key{Name: fmt.Sprint("counter", i%400)}, crdt.KindString, "", crdt.Int(1))
			})
		}
		a.writeAt(*now, 0, "urgent")
		l.drive(10 * time.Millisecond)
	}
	after := a.peers.Stats(*now)[0].Lanes
	if sent := after[1].BytesOut - before[1].BytesOut; sent > 5*rate/4 {
		t.Errorf("400 counters took %d of %d bytes in 5 s", sent, 5*rate)
	}
	if n := after[1].Batches - before[1].Batches; n < 8 {
		t.Errorf("%d batches in 5 s", n)
	}
	if n := after[0].Batches - before[0].Batches; n < 100 {
		t.Errorf("%d batches of realtime writes in 5 s: they wait", n)
	}
	l.drive(2 * time.Second)
	same(t, a, b)
	// Alone, a write goes at once.
	a.set(1, "single", "x")
	l.drive(50 * time.Millisecond)
	if b.get("single") != "x" {
		t.Error("a single write waits")
	}
}

// Where folding spares nothing entries are shipped as they are; where it begins to
// again, it is soon found out.
func TestEntriesAsTheyAre(t *testing.T) {
	a, b, now := pair(t, func(c *Config) { c.BatchBytes = 20_000 })
	l := connect(t, a, b, now)
	l.run()
	for i := range 2_000 {
		a.set(1, fmt.Sprint("key", i), noise(uint64(i), 200))
	}
	l.run()
	same(t, a, b)
	if n := b.peers.Stats(*now)[0].EntriesIn; n < 1_500 {
		t.Errorf("2000 keys came as %d entries: they were folded for nothing", n)
	}
	before := a.peers.Stats(*now)[0]
	for i := range 3_000 {
		a.set(1, fmt.Sprint("hot", i%20), noise(uint64(i), 200))
	}
	l.run()
	same(t, a, b)
	after := a.peers.Stats(*now)[0]
	if raw, sent := after.BytesRaw-before.BytesRaw, after.BytesFolded-before.BytesFolded; raw < 600_000 || sent > raw/3 {
		t.Errorf("%d bytes of 20 keys went as %d", raw, sent)
	}
}

// A batch is all that is pending, folded, also where it is many times the size of
// a batch in the log.
func TestBatchOfAllPending(t *testing.T) {
	a, b, now := pair(t, func(c *Config) { c.BatchBytes = 20_000 })
	l := connect(t, a, b, now)
	l.run()
	for i := range 3_000 {
		a.set(1, fmt.Sprint("hot", i%20), noise(uint64(i), 200))
	}
	before := a.peers.Stats(*now)[0].Batches
	l.run()
	same(t, a, b)
	st := a.peers.Stats(*now)[0]
	if n := st.Batches - before; n != 1 || st.BytesRaw < 600_000 || st.BytesFolded > 20_000 {
		t.Errorf("%d bytes in the log went as %d batches of %d bytes", st.BytesRaw, n, st.BytesFolded)
	}
}
