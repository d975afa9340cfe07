package wan

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

func noise(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func withSecret(c *Config) { c.Secret = []byte("a secret of some length") }

func TestBothDirections(t *testing.T) {
	for name, change := range map[string]func(*Config){"open": nil, "secret": withSecret, "stored": func(c *Config) { c.NoCompression = true }} {
		t.Run(name, func(t *testing.T) {
			a, b, now := pair(t, change)
			a.set(0, "before", "of a")
			b.set(2, "before b", noise(1, 100_000))
			l := connect(t, a, b, now)
			l.run()
			same(t, a, b)
			a.incr("n", 3)
			b.incr("n", 4)
			a.set(3, "bin\x00\r\n", "\x00\r\n")
			l.run()
			same(t, a, b)
			if got := b.get("n"); got != "7" {
				t.Errorf("n is %s", got)
			}
			if st := a.peers.Stats(*now)[0]; !st.Live || st.LagEntries != 0 || st.Pending != 0 || st.Duplicates != 0 || !st.Durable.Equal(a.durable) && !a.durable.Beyond(st.Durable).In(a.durable) {
				t.Errorf("stats: %+v", st)
			}
		})
	}
}

// What is pending goes as one fold, however often it changed.
func TestPendingFolds(t *testing.T) {
	a, b, now := pair(t, nil)
	l := connect(t, a, b, now)
	l.run()
	for i := range 1000 {
		a.set(0, "hot", fmt.Sprint(i))
	}
	l.run()
	same(t, a, b)
	st := a.peers.Stats(*now)[0]
	if st.Entries != 1000 || st.Batches > 3 || st.BytesFolded > st.BytesRaw/50 {
		t.Errorf("1000 writes to one key went as %d entries in %d batches, %d of %d bytes", st.Entries, st.Batches, st.BytesFolded, st.BytesRaw)
	}
}

// TestCutEverywhere cuts a session after each number of frames and resumes.
func TestCutEverywhere(t *testing.T) {
	small := func(c *Config) { withSecret(c); c.BatchBytes, c.Window, c.MaxChunk, c.MinChunk = 2000, 8000, 700, 700 }
	load := func(a, b *testNode) {
		for i := range 30 {
			a.set(crdt.Lane(i%4), fmt.Sprintf("a%d", i), noise(uint64(i), 300))
			b.set(crdt.Lane(i%3), fmt.Sprintf("b%d", i), noise(uint64(i+100), 300))
			a.incr("n", 1)
			b.incr("n", 1)
		}
	}
	a, b, now := pair(t, small)
	load(a, b)
	l := connect(t, a, b, now)
	l.run()
	same(t, a, b)
	whole, all := l.frames, l.bytes
	for cut := 1; cut < whole; cut++ {
		a, b, now := pair(t, small)
		load(a, b)
		l := connect(t, a, b, now)
		for l.frames < cut && l.once() {
		}
		l.cut()
		got := l.bytes
		l = connect(t, a, b, now)
		l.run()
		same(t, a, b)
		if b.get("n") != "60" {
			t.Fatalf("cut after %d frames: n is %s", cut, b.get("n"))
		}
		// Resent is what was not acknowledged: the handshake, and at most the
		// batches under way in each lane each way.
		if extra := got + l.bytes - all; extra > 4000+2*4*2*2000 {
			t.Errorf("cut after %d of %d frames: %d bytes more than the %d of a whole session", cut, whole, extra, all)
		}
	}
}

// Flapping costs what the handshake costs, not the data again.
func TestFlapping(t *testing.T) {
	a, b, now := pair(t, withSecret)
	a.set(1, "big", noise(7, 500_000))
	l := connect(t, a, b, now)
	l.run()
	total := 0
	for i := range 100 {
		l.cut()
		a.set(0, "k", fmt.Sprint(i))
		l = connect(t, a, b, now)
		l.run()
		total += l.bytes
	}
	same(t, a, b)
	if total > 100*3000 {
		t.Errorf("100 reconnects cost %d bytes", total)
	}
}

// Every frame of an exchange, damaged in every byte in turn, repeated, dropped
// or exchanged with the next, ends the session and changes nothing that the
// next session does not put right.
func TestDamage(t *testing.T) {
	stored := func(c *Config) { c.NoCompression = true } // for speed: checks do not see the difference
	for name, change := range map[string]func(*Config){"open": stored, "secret": func(c *Config) { stored(c); withSecret(c) }} {
		t.Run(name, func(t *testing.T) {
			type shot struct{ frame, at int }
			count := func() (sizes []int) {
				a, b, now := pair(t, change)
				a.set(0, "k", "some value of a")
				b.set(1, "k2", "some value of b")
				l := connect(t, a, b, now)
				l.log = func(_ *Session, f []byte) { sizes = append(sizes, len(f)) }
				l.run()
				return sizes
			}
			var shots []shot
			for i, n := range count() {
				for at := range n {
					shots = append(shots, shot{i, at})
				}
				shots = append(shots, shot{i, -1}, shot{i, -2})
			}
			for _, s := range shots {
				a, b, now := pair(t, change)
				a.set(0, "k", "some value of a")
				b.set(1, "k2", "some value of b")
				l := connect(t, a, b, now)
				i := 0
				l.tamper = func(from *Session, f []byte) []byte {
					defer func() { i++ }()
					if i != s.frame {
						return f
					}
					to := l.sb
					if from == l.sb {
						to = l.sa
					}
					switch s.at {
					case -1:
						return nil
					case -2:
						_ = to.Receive(*now, append([]byte{}, f...))
						return f
					}
					f[s.at] ^= 1 << (s.at % 8)
					return f
				}
				l.run()
				before := a.applied + b.applied
				if before > 2 {
					t.Fatalf("%+v: applied %d entries of 2", s, before)
				}
				if s.at >= 0 || s.at == -2 {
					if l.sa.Err() == nil && l.sb.Err() == nil {
						t.Fatalf("%+v: not noticed", s)
					}
				}
				// What follows brings to light what is missing.
				for lane := range crdt.Lane(4) {
					a.set(lane, "later of a", "1")
					b.set(lane, "later of b", "1")
				}
				for range 20 {
					*now = now.Add(500 * time.Millisecond)
					a.peers.Tick(*now)
					b.peers.Tick(*now)
					l.run()
				}
				if l.sa.Err() == nil || l.sb.Err() == nil {
					t.Fatalf("%+v: a session went on: %v, %v", s, l.sa.Err(), l.sb.Err())
				}
				l = connect(t, a, b, now)
				l.run()
				same(t, a, b)
				if a.applied+b.applied > 10 {
					t.Fatalf("%+v: applied %d entries of 10", s, a.applied+b.applied)
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		b      func(*Config)
		before func(a, b *testNode)
		code   Code
		fork   bool // nothing a new incarnation would heal
	}{
		{name: "wrong secret", b: func(c *Config) { c.Secret = []byte("another") }, code: CodeSecret},
		{name: "no secret", b: func(c *Config) { c.Secret = nil }, code: CodeSecret},
		{name: "cluster", b: func(c *Config) { c.Self.Cluster = "other" }, code: CodeCluster},
		{name: "same id", b: func(c *Config) { c.Self.Node = 1 }, code: CodeSameID},
		{name: "forgotten here", before: func(a, _ *testNode) { a.peers.SetForgotten([]uint16{2}) }, code: CodeForgotten},
		{name: "forgotten there", before: func(_, b *testNode) { b.peers.SetForgotten([]uint16{1}) }, code: CodeForgotten},
		{name: "rolled back", before: func(a, b *testNode) {
			s := a.origin
			b.have.Set(s, a.tag+1<<20)
			b.durable = b.have.Clone()
		}, code: CodeRolledBack},
		{name: "rolled back and written to since", before: func(a, b *testNode) {
			// b has an entry of a that a lacks, though a has later ones.
			a.set(0, "k", "before")
			a.set(0, "k", "after")
			s := a.origin
			b.have.Set(s, a.entries[s][1].Tag-1)
			b.durable = b.have.Clone()
		}, code: CodeRolledBack, fork: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := epoch
			a := newTestNode(t, 1, withSecret)
			b := newTestNode(t, 2, func(cfg *Config) {
				withSecret(cfg)
				if c.b != nil {
					c.b(cfg)
				}
			})
			if c.before != nil {
				c.before(a, b)
			}
			l := connect(t, a, b, &now)
			var seen strings.Builder
			l.log = func(_ *Session, f []byte) { seen.Write(f) }
			l.run()
			for _, s := range []*Session{l.sa, l.sb} {
				if CodeOf(s.Err()) != c.code {
					t.Errorf("error is %v, want %v", s.Err(), c.code)
				}
			}
			if a.peers.Live(2) || b.peers.Live(1) {
				t.Error("there is a session")
			}
			if strings.Contains(seen.String(), "a secret of some length") {
				t.Error("the secret was sent")
			}
			if got := len(a.ahead); got != 0 != (c.code == CodeRolledBack && !c.fork) {
				t.Errorf("Ahead was called %d times", got)
			}
		})
	}
	t.Run("self", func(t *testing.T) {
		a := newTestNode(t, 1, nil)
		now := epoch
		l := connect(t, a, a, &now)
		l.run()
		if CodeOf(l.sa.Err()) != CodeSelf {
			t.Errorf("error is %v", l.sa.Err())
		}
	})
}

// A peer that reflects a node's own handshake does not pass.
func TestReflection(t *testing.T) {
	a := newTestNode(t, 1, func(c *Config) { withSecret(c) })
	evil := newTestNode(t, 2, func(c *Config) { c.Secret = []byte("unknown") })
	now := epoch
	l := connect(t, a, evil, &now)
	var proof []byte
	l.tamper = func(from *Session, f []byte) []byte {
		if frameType(f[0]) == frameProof && from == l.sa {
			proof = append([]byte{}, f...)
			return nil
		}
		return f
	}
	l.run()
	if proof == nil {
		t.Fatal("no proof was sent")
	}
	// Sent back, it is the dialler's proof where the acceptor's is due.
	if err := l.sa.Receive(now, proof); CodeOf(err) != CodeSecret && CodeOf(err) != CodeProtocol {
		t.Errorf("reflected proof: %v", err)
	}
}

// A receiver that applies nothing costs the sender a window, and nothing is
// lost when it goes on.
func TestStall(t *testing.T) {
	small := func(c *Config) { c.BatchBytes, c.Window, c.NoCompression = 10_000, 40_000, true }
	a, b, now := pair(t, small)
	b.manual = true
	l := connect(t, a, b, now)
	for range 200 {
		l.run()
		a.set(2, noise(uint64(l.frames), 8), noise(uint64(l.frames), 3000))
	}
	if l.bytes > 45_000 {
		t.Errorf("%d bytes went to a peer that applies nothing", l.bytes)
	}
	if a.peers.Stats(*now)[0].Pending == 0 {
		t.Error("nothing is pending")
	}
	// Other lanes are not held up.
	a.set(0, "urgent", "x")
	l.run()
	for b.release() {
		l.run()
	}
	same(t, a, b)
}

func TestHugeEntry(t *testing.T) {
	small := func(c *Config) { c.BatchBytes, c.Window, c.MaxBatch = 10_000, 40_000, 3_000_000 }
	a, b, now := pair(t, small)
	l := connect(t, a, b, now)
	a.set(0, "small", "1")
	a.set(0, "huge", noise(3, 2_000_000))
	a.set(0, "small", "2")
	l.run()
	same(t, a, b)
	// One that the peer cannot take holds up its stream and no other.
	a.set(1, "too large", noise(4, 3_500_000))
	a.set(2, "other", "3")
	l.run()
	if b.get("other") != "3" || b.get("too large") != "" {
		t.Error("an entry that is too large")
	}
	if st := a.peers.Stats(*now)[0]; !strings.Contains(st.LastError, "raise its limit") {
		t.Errorf("last error is %q", st.LastError)
	}
}

// The shares of a full link are the weights, and a lane that was idle goes
// first at once.
func TestLanes(t *testing.T) {
	cfg := func(c *Config) {
		c.NoCompression = true
		c.MinChunk, c.MaxChunk, c.Window = 1000, 1000, 64<<20
		c.MaxBatch = 128 << 20
	}
	a, b, now := pair(t, cfg)
	l := connect(t, a, b, now)
	l.run()
	for lane := range crdt.Lane(4) {
		for i := range 3 {
			a.set(lane, fmt.Sprint(lane, i), noise(uint64(i), 900_000))
		}
	}
	var got [4]int
	l.log = func(from *Session, f []byte) {
		if ch := frameType(f[0]).channel(); ch > 0 && from == l.sa {
			got[ch-1] += len(f)
		}
	}
	for range 1500 {
		l.step(l.sa, l.sb)
		l.step(l.sb, l.sa)
	}
	total := got[0] + got[1] + got[2] + got[3]
	for lane, w := range []int{8, 4, 2, 1} {
		if share := float64(got[lane]) / float64(total) * 15; share < float64(w)*0.95 || share > float64(w)*1.05 {
			t.Errorf("lane %d got %.2f fifteenths, its weight is %d", lane, share, w)
		}
	}
	for lane := range 3 {
		l.run() // drain
		_ = lane
	}
	same(t, a, b)
	for i := range 3 {
		a.set(3, fmt.Sprint("bulk", i), noise(uint64(i), 900_000))
	}
	for range 50 {
		l.step(l.sa, l.sb)
		l.step(l.sb, l.sa)
	}
	a.set(0, "urgent", "x")
	l.step(l.sa, l.sb)
	if b.get("urgent") != "x" {
		t.Error("a realtime write waited for more than the frame under way")
	}
}

// Only what is durable is sent, and only what is durable is acknowledged.
func TestDurability(t *testing.T) {
	a, b, now := pair(t, nil)
	a.manual = true
	l := connect(t, a, b, now)
	l.run()
	a.set(0, "k", "v")
	l.run()
	if b.get("k") != "" {
		t.Fatal("sent before it was durable")
	}
	a.release()
	b.manual = true
	l.run()
	b.mu.Lock()
	w := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	for _, f := range w {
		f()
	}
	l.run()
	if b.get("k") != "v" {
		t.Fatal("not applied")
	}
	if st := a.peers.Stats(*now)[0]; st.LagEntries != 1 || st.Pending != 0 {
		t.Errorf("lag %d, pending %d before it is durable there", st.LagEntries, st.Pending)
	}
	b.release()
	l.run()
	if st := a.peers.Stats(*now)[0]; st.LagEntries != 0 {
		t.Errorf("lag %d after", st.LagEntries)
	}
}

// The lag shown is never less than the delay of the link.
func TestLag(t *testing.T) {
	a, b, now := pair(t, nil)
	l := connect(t, a, b, now)
	type late struct {
		at   time.Time
		to   *Session
		body []byte
	}
	var flying []late
	for range 500 {
		*now = now.Add(10 * time.Millisecond)
		a.peers.Tick(*now)
		b.peers.Tick(*now)
		for _, d := range [][2]*Session{{l.sa, l.sb}, {l.sb, l.sa}} {
			for {
				f, _ := d[0].Next(*now)
				if f == nil {
					break
				}
				flying = append(flying, late{now.Add(200 * time.Millisecond), d[1], append([]byte{}, f...)})
			}
		}
		for len(flying) > 0 && !flying[0].at.After(*now) {
			if err := flying[0].to.Receive(*now, flying[0].body); err != nil {
				t.Fatal(err)
			}
			flying = flying[1:]
		}
	}
	st := a.peers.Stats(*now)[0]
	if st.RTT < 400*time.Millisecond || st.RTT > 450*time.Millisecond {
		t.Errorf("round trip is %v", st.RTT)
	}
	if st.Lag < 200*time.Millisecond || st.Lag > time.Second {
		t.Errorf("lag is %v", st.Lag)
	}
	if b.heard[1].Tag == 0 {
		t.Error("no tag was heard")
	}
	for _, f := range flying {
		if err := f.to.Receive(*now, f.body); err != nil {
			t.Fatal(err)
		}
	}
	l.run()
	// A peer that takes nothing in lags by ever more.
	b.manual = true
	a.set(0, "k", "v")
	for range 30 {
		*now = now.Add(100 * time.Millisecond)
		a.peers.Tick(*now)
		b.peers.Tick(*now)
		l.run()
	}
	if st := a.peers.Stats(*now)[0]; st.Lag < 2*time.Second {
		t.Errorf("lag is %v after 3 s", st.Lag)
	}
}

func TestSilence(t *testing.T) {
	a, b, now := pair(t, nil)
	l := connect(t, a, b, now)
	l.run()
	for range 10 {
		*now = now.Add(time.Second)
		a.peers.Tick(*now)
		l.step(l.sa, l.sb)
	}
	if CodeOf(l.sa.Err()) != CodeTimeout || l.sb.Err() != nil && !errors.Is(l.sb.Err(), ErrDisconnected) && CodeOf(l.sb.Err()) != CodeTimeout {
		t.Errorf("errors are %v and %v", l.sa.Err(), l.sb.Err())
	}
	half := connect(t, a, b, now)
	half.step(half.sa, half.sb)
	*now = now.Add(6 * time.Second)
	b.peers.Tick(*now)
	if CodeOf(half.sb.Err()) != CodeTimeout {
		t.Errorf("half a handshake: %v", half.sb.Err())
	}
}

func TestRefusedApply(t *testing.T) {
	a, b, now := pair(t, nil)
	l := connect(t, a, b, now)
	l.run()
	b.refuse = crdt.ErrSkew
	a.set(0, "k", "v")
	l.run()
	if CodeOf(l.sb.Err()) != CodeRefused || !errors.Is(l.sb.Err(), crdt.ErrSkew) || CodeOf(l.sa.Err()) != CodeRefused {
		t.Errorf("errors are %v and %v", l.sb.Err(), l.sa.Err())
	}
	l = connect(t, a, b, now)
	l.run()
	same(t, a, b)
}

func TestPause(t *testing.T) {
	a, b, now := pair(t, nil)
	l := connect(t, a, b, now)
	l.run()
	a.peers.SetPaused(true)
	l.run()
	a.set(0, "a", "1")
	b.set(0, "b", "1")
	l.run()
	if a.get("b") != "" || b.get("a") != "" {
		t.Error("data was exchanged")
	}
	*now = now.Add(4 * time.Second)
	a.peers.Tick(*now)
	b.peers.Tick(*now)
	l.run()
	if l.sa.Err() != nil || l.sb.Err() != nil {
		t.Error("the session ended")
	}
	a.peers.SetPaused(false)
	l.run()
	same(t, a, b)
}

// Of two sessions between two nodes both sides keep the same one.
func TestTwoSessions(t *testing.T) {
	a, b, now := pair(t, withSecret)
	ab := connect(t, a, b, now)
	ba := connect(t, b, a, now)
	for ab.once() || ba.once() {
	}
	if ab.sa.Err() != nil || ab.sb.Err() != nil {
		t.Errorf("the session that the lower id dialled: %v, %v", ab.sa.Err(), ab.sb.Err())
	}
	if CodeOf(ba.sa.Err()) != CodeSuperseded || CodeOf(ba.sb.Err()) != CodeSuperseded {
		t.Errorf("the other one: %v, %v", ba.sa.Err(), ba.sb.Err())
	}
	// A node that started again replaces its old session, whoever dialled.
	b.start(withSecret)
	again := connect(t, b, a, now)
	again.run()
	if again.sa.Err() != nil || again.sb.Err() != nil || ab.sa.Err() == nil {
		t.Errorf("after a restart: %v, %v, old %v", again.sa.Err(), again.sb.Err(), ab.sa.Err())
	}
	a.set(0, "k", "v")
	again.run()
	same(t, a, b)
	// Another node with the same id is not let in while there is a session.
	c := newTestNode(t, 2, func(c *Config) { withSecret(c); c.Self.Dir = "another"; c.Self.Address = "elsewhere:1" })
	other := connect(t, c, a, now)
	other.run()
	if CodeOf(other.sa.Err()) != CodeSameID || !strings.Contains(other.sa.Err().Error(), "elsewhere:1") {
		t.Errorf("a second node 2: %v", other.sa.Err())
	}
}

// What a peer is heard to have is what it had after it knew its census: here
// the census is the number of its writes by then.
func TestCensusIsOlderThanDurable(t *testing.T) {
	a, b, now := pair(t, nil)
	l := connect(t, a, b, now)
	var tags []crdt.Tag
	told := uint64(0)
	b.hear = func(h Heard) {
		if h.Census != 0 && h.Durable.Get(a.origin|1) < tags[h.Census-1] {
			t.Fatalf("of %d writes only up to %v is heard", h.Census, h.Durable)
		}
		told = max(told, h.Census)
	}
	for i := range uint64(50) {
		a.set(1, "k", fmt.Sprint(i))
		tags = append(tags, a.have.Get(a.origin|1))
		a.census = i + 1
		*now = now.Add(time.Second)
		a.peers.Tick(*now)
		b.peers.Tick(*now)
		for range i % 7 { // and what is sent later, is late
			l.once()
		}
	}
	l.run()
	if told < 45 {
		t.Errorf("the last census heard is %d", told)
	}
	// A session speaks for the life in which it began.
	a.origin = crdt.NewStream(1, 77, 0)
	l.log = func(from *Session, f []byte) {
		if from == l.sa && frameType(f[0]) == frameHeartbeat {
			t.Error("a heartbeat is sent of another life")
		}
	}
	*now = now.Add(time.Second)
	a.peers.Tick(*now)
	l.run()
}
