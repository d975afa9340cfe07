package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestThinLink: 64 kbit/s and 300 ms each way, over each transport: both sides
// write more than fits, the links last, and all ends equal.
func TestThinLink(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp", "quic"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			bed := testbed.New(t)
			net := bed.Network()
			args := []string{"--set", "wan.listen=" + transport} // and heartbeats as they are by default
			a := bed.Node(testbed.Options{ID: 1, Network: net, Args: args})
			b := bed.Node(testbed.Options{ID: 2, Network: net, Args: args, Meet: []*testbed.Node{a}})
			linked(bed, a, b, transport)
			for _, p := range []*testbed.Path{net.Path(a, b), net.Path(b, a)} {
				p.SetRate(8_000)
				p.SetDelay(300 * time.Millisecond)
			}
			start := net.Path(a, b).Bytes()
			text := randomText(30_000)
			for i := range 2_000 { // some 200 kB in the log, without what the commands themselves take
				a.Do("INCR", fmt.Sprint("count", i%20))
				b.Do("INCR", fmt.Sprint("count", i%20))
				a.Do("SET", fmt.Sprint("k", i%30), text[i*10:][:100])
			}
			a.Do("SET", "large", text)
			bed.LevelWithin(3*time.Minute, a, b)
			for i := range 20 {
				equal(t, "count", b.Int("GET", fmt.Sprint("count", i)), int64(200))
			}
			sent := net.Path(a, b).Bytes() - start
			t.Logf("%d bytes went from a to b", sent)
			if sent > 200_000 {
				t.Errorf("%d bytes went over the thin link: what is pending does not fold", sent)
			}
		})
	}
}

// TestFlappingUnderLoad: a link that is cut a hundred times while much is
// written: what is sent is not much more than what was changed. A tenth more is
// usual (docs/BENCHMARKS.md); where the machine stands still for a moment a cut costs
// what has gathered meanwhile.
func TestFlappingUnderLoad(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 2)
	a, b := nodes[0], nodes[1]
	const flaps, writes, size = 100, 50, 1_000
	text := randomText(flaps * writes * size)
	start := net.Path(a, b).Bytes()
	for i := range flaps {
		for j := range writes {
			n := i*writes + j
			a.Do("SET", fmt.Sprint("k", n), text[n*size:][:size])
		}
		net.Sever(a, b)
		time.Sleep(20 * time.Millisecond)
	}
	bed.LevelWithin(60*time.Second, a, b)
	sent, changed := net.Path(a, b).Bytes()-start, int64(flaps*writes*size)
	t.Logf("%d bytes were changed, %d sent", changed, sent)
	if sent > changed*15/10 {
		t.Errorf("%d bytes were sent for %d changed, with %d cuts", sent, changed, flaps)
	}
}

// TestStoppedPeerUnderLoad: a peer that is stopped (SIGSTOP) while the other is
// under full load costs bounded memory, and is level soon after it goes on.
func TestStoppedPeerUnderLoad(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	args := append([]string{"--fsync", "no"}, quick...)
	a, b := pair(bed, args...)
	bed.Level(a, b)
	value := randomText(20_000)
	write := func(n int) {
		for i := range n {
			a.Do("SET", fmt.Sprint("k", i%500), value[i%10_000:]+value[:i%10_000])
			a.Do("INCR", "count")
		}
	}
	write(500)
	bed.Level(a, b)
	before := residentKB(t, a.PID())
	b.Freeze()
	for range 5 {
		write(1000) // 20 MB, and the same keys again and again
		time.Sleep(time.Second)
	}
	grown := residentKB(t, a.PID()) - before
	t.Logf("100 MB were written while the peer was stopped; the node grew by %d kB", grown)
	if grown > 300_000 {
		t.Errorf("the node grew by %d kB while a peer was stopped", grown)
	}
	b.Thaw()
	bed.LevelWithin(60*time.Second, a, b)
	equal(t, "count", b.Int("GET", "count"), int64(5500))
}
