package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// linked waits until a node has a session with another by way of a transport.
func linked(bed *testbed.Bed, n, other *testbed.Node, transport string) {
	bed.Helper()
	bed.Wait(60*time.Second, fmt.Sprintf("node %d to have a link to node %d by way of %s", n.ID, other.ID, transport), func() (bool, string) {
		f := n.Replicas()[other.ID]
		return f["state"] == "online" && strings.HasPrefix(f["link"], transport+"://"), fmt.Sprint(f)
	})
}

// TestTransports: nodes exchange by every transport, also when connections are
// cut and nodes killed.
func TestTransports(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"quic", "ws"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			bed := testbed.New(t)
			net, nodes := mesh(bed, 2, "--set", "wan.listen="+transport)
			a, b := nodes[0], nodes[1]
			linked(bed, a, b, transport)
			linked(bed, b, a, transport)
			for round := range 3 {
				for i := range 200 {
					a.Do("INCR", "count")
					b.Do("INCR", "count")
					a.Do("SADD", "s", fmt.Sprint("a", round, i))
				}
				if round == 1 {
					b.Kill()
					b.Start()
				}
				a.Do("SET", "big", randomText(3_000_000)+fmt.Sprint(round))
				bed.Level(a, b)
				equal(t, "count", b.Int("GET", "count"), int64(400*(round+1)))
				net.Sever(a, b)
				net.Split(a, b)
				a.Do("INCR", "other")
				time.Sleep(time.Second) // longer than a session lives in silence
				net.Heal()
			}
			bed.Level(a, b)
			if net.Path(a, b).Bytes() < 3_000_000 {
				t.Error("the exchange does not go through the relay")
			}
		})
	}
}

// TestTransportFallBack: where QUIC does not get through, TCP is used; what a
// node tells of itself can be overruled.
func TestTransportFallBack(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	listen := append([]string{"--set", "wan.listen=quic,tcp"}, quick...)
	a := bed.Node(testbed.Options{ID: 1, Args: listen})
	b := bed.Node(testbed.Options{ID: 2, Args: listen, Meet: []*testbed.Node{a}})
	linked(bed, a, b, "quic")
	c := bed.Node(testbed.Options{ID: 3, Args: quick, Meet: []*testbed.Node{a}, Config: fmt.Sprintf(`
[[peer]]
id = 1
links = ["quic://127.0.0.1:%d", "ws://127.0.0.1:%d/x", "tcp://127.0.0.1:%d"]
`, testbed.FreePort(), testbed.FreePort(), a.WANPort)})
	// c has a higher id, but the lower, a, finds only tcp there.
	linked(bed, c, a, "tcp")
	linked(bed, a, c, "tcp")
	c.Do("SET", "k", "v")
	bed.Level(a, b, c)
	equal(t, "k", b.Do("GET", "k"), any("v"))
}

// TestLossOnQUIC: with up to a fifth of all datagrams lost, everything arrives,
// and the session lasts.
func TestLossOnQUIC(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 2, "--set", "wan.listen=quic", "--set", "wan.heartbeat=500ms")
	a, b := nodes[0], nodes[1]
	linked(bed, a, b, "quic")
	sum := 0
	text := randomText(1_000_000)
	for round, percent := range []int{1, 5, 20} {
		lost := net.Path(a, b).Lost()
		for _, p := range []*testbed.Path{net.Path(a, b), net.Path(b, a)} {
			p.SetLoss(percent)
			p.SetDelay(10 * time.Millisecond)
		}
		for i := range 100 {
			a.Do("INCRBY", "count", 2)
			b.Do("INCR", "count")
			a.Do("SET", fmt.Sprint("k", i), text[(round*100+i)*3000:][:3000])
			sum += 3
		}
		bed.LevelWithin(3*time.Minute, a, b)
		n := net.Path(a, b).Lost() - lost
		t.Logf("%d %%: %d datagrams were lost", percent, n)
		if n == 0 && percent == 20 {
			t.Error("nothing was lost: this tests nothing")
		}
		equal(t, "count", b.Int("GET", "count"), int64(sum))
	}
}
