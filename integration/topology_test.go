package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestTopologies: five nodes of which not everyone reaches everyone converge, and
// go on to while the one in the middle is dead, as far as they still reach each
// other; when it is back they all do.
func TestTopologies(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 5)
	count := int64(0)
	write := func(nodes []*testbed.Node) {
		for i := range 20 {
			for _, n := range nodes {
				n.Do("INCR", "count")
				n.Do("SADD", "s", fmt.Sprint(n.ID, " ", i))
				n.Do("SREM", "s", fmt.Sprint(n.ID%5+1, " ", i))
				count++
			}
		}
	}
	for _, shape := range []struct {
		name   string
		linked func(a, b int) bool // the ids of two nodes, a < b
		parts  [][]int             // the ids of those that reach each other while node 3 is dead
	}{
		{"ring", func(a, b int) bool { return b == a+1 || b == a+4 }, [][]int{{1, 2, 4, 5}}},
		{"line", func(a, b int) bool { return b == a+1 }, [][]int{{1, 2}, {4, 5}}},
		{"star", func(a, b int) bool { return a == 3 || b == 3 }, [][]int{{1}, {2}, {4}, {5}}},
		{"mesh", func(int, int) bool { return true }, [][]int{{1, 2, 4, 5}}},
	} {
		net.Heal()
		for i, a := range nodes {
			for _, b := range nodes[i+1:] {
				if !shape.linked(a.ID, b.ID) {
					net.Split(a, b)
					net.Sever(a, b)
				}
			}
		}
		t.Logf("%s", shape.name)
		write(nodes)
		bed.LevelWithin(time.Minute, nodes...)
		for i, a := range nodes {
			for _, b := range nodes[i+1:] {
				if up := a.Replicas()[b.ID]["state"] == "online"; up && !shape.linked(a.ID, b.ID) {
					t.Errorf("%s: there is a link between nodes %d and %d: this tests nothing", shape.name, a.ID, b.ID)
				}
			}
		}
		nodes[2].Kill()
		for _, ids := range shape.parts {
			var part []*testbed.Node
			for _, id := range ids {
				part = append(part, nodes[id-1])
			}
			write(part)
			bed.LevelWithin(time.Minute, part...)
		}
		nodes[2].Start()
		nodes[2].Do("INCR", "count")
		count++
		bed.LevelWithin(time.Minute, nodes...)
		for _, n := range nodes {
			equal(t, "count", n.Int("GET", "count"), count)
		}
	}
}
