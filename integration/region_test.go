package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestRegionsOneCopy: what is written in a region crosses to another once,
// whatever the number of nodes there; when the node that brings it is gone,
// frozen or cut off another does, and when it is back all is as before.
func TestRegionsOneCopy(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net := bed.Network()
	var nodes []*testbed.Node
	for id := 1; id <= 5; id++ {
		region := "east"
		if id > 2 {
			region = "west"
		}
		nodes = append(nodes, bed.Node(testbed.Options{ID: id, Network: net, Args: append([]string{"--region", region, "--set", "wan.compression=0"}, quick...), Meet: nodes[:min(len(nodes), 1)]}))
	}
	east, west := nodes[:2], nodes[2:]
	for _, n := range nodes {
		for _, other := range nodes {
			if n != other {
				linked(bed, n, other, "tcp")
			}
		}
	}
	bed.Level(nodes...)
	const size = 1_000_000
	text := randomText(2 * size)
	round := 0
	// crossed writes that much in the east and returns how much of it went to
	// each node of the west from there.
	crossed := func() []int64 {
		t.Helper()
		into := func() (out []int64) {
			for _, w := range west {
				out = append(out, net.Path(east[0], w).Bytes()+net.Path(east[1], w).Bytes())
			}
			return out
		}
		before := into()
		round++
		for i := range size / 10_000 {
			east[i%2].Do("SET", fmt.Sprint("k", round, " ", i), text[round*1000+i*10_000:][:10_000])
		}
		bed.LevelWithin(60*time.Second, running(nodes)...)
		after := into()
		for i := range after {
			after[i] -= before[i]
		}
		return after
	}
	// once checks that the west got one copy, and returns by which node.
	once := func(what string) int {
		t.Helper()
		got := crossed()
		sum, gateway := int64(0), 0
		for i, n := range got {
			sum += n
			if n > got[gateway] {
				gateway = i
			}
		}
		t.Logf("%s: of %d bytes written in the east %v went to the nodes of the west", what, size, got)
		if sum > size*5/4 || got[gateway] < size {
			t.Errorf("%s: %d bytes crossed, for %d written: not one copy, by one node", what, sum, size)
		}
		return gateway
	}
	first := once("at first")

	west[first].Kill()
	time.Sleep(time.Second)
	if second := once("the gateway was killed"); second == first {
		t.Error("a node that is not there is the gateway")
	}
	west[first].Start()
	bed.Level(nodes...)
	bed.Wait(60*time.Second, "the first gateway to have its links again", func() (bool, string) {
		up := west[first].Replicas()
		return up[1]["state"] == "online" && up[2]["state"] == "online", fmt.Sprint(up)
	})
	time.Sleep(time.Second)
	if again := once("it is back"); again != first {
		t.Errorf("node %d is the gateway, not %d as before", west[again].ID, west[first].ID)
	}

	// Frozen: it is found out after the links' silence, some heartbeats.
	west[first].Freeze()
	east[0].Do("SET", "frozen", "v")
	for i, w := range west {
		if i == first {
			continue
		}
		bed.Wait(30*time.Second, "a write to arrive while the gateway is frozen", func() (bool, string) {
			return w.Do("GET", "frozen") == any("v"), fmt.Sprint(w.Replicas())
		})
	}
	west[first].Thaw()
	bed.Level(nodes...)

	// Cut off from the east, and reached by way of the others.
	for _, e := range east {
		net.Split(e, west[first])
		net.Sever(e, west[first])
	}
	east[1].Do("SET", "cut", "v")
	for _, w := range west {
		bed.Wait(30*time.Second, "a write to arrive while the gateway is cut off", func() (bool, string) {
			return w.Do("GET", "cut") == any("v"), fmt.Sprint(w.Replicas())
		})
	}
	west[first].Do("SET", "back", "v")
	bed.Wait(30*time.Second, "a write of the gateway that is cut off to arrive", func() (bool, string) {
		return east[0].Do("GET", "back") == any("v"), fmt.Sprint(east[0].Replicas())
	})
	net.Heal()
	bed.Level(nodes...)
}

// running returns those of the nodes that are not killed.
func running(nodes []*testbed.Node) (out []*testbed.Node) {
	for _, n := range nodes {
		if n.Running() {
			out = append(out, n)
		}
	}
	return out
}
