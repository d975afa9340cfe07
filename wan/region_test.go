package wan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// regions is a full mesh of nodes, two regions of three.
type regions struct {
	t     *testing.T
	now   *time.Time
	nodes []*testNode
	links map[[2]int]*link
}

func newRegions(t *testing.T) *regions {
	now := epoch
	r := &regions{t: t, now: &now, links: map[[2]int]*link{}}
	for i := range 6 {
		r.nodes = append(r.nodes, newTestNode(t, uint16(i+1), func(c *Config) {
			c.Self.Region = []string{"east", "west"}[i/3]
		}))
	}
	for i := range r.nodes {
		for j := range i {
			r.join(j, i)
		}
	}
	r.pass(3 * time.Second)
	return r
}

func (r *regions) join(i, j int) { r.links[[2]int{i, j}] = connect(r.t, r.nodes[i], r.nodes[j], r.now) }

func (r *regions) pass(d time.Duration) {
	var links []*link
	for i := range r.nodes {
		for j := range r.nodes {
			if l := r.links[[2]int{i, j}]; l != nil {
				links = append(links, l)
			}
		}
	}
	pass(r.now, d, r.nodes, links...)
}

// crossed returns how many entries each node has had from nodes of the other
// region.
func (r *regions) crossed() (out [6]uint64) {
	for i, n := range r.nodes {
		for _, s := range n.peers.Stats(*r.now) {
			if (s.Node-1)/3 != uint16(i/3) {
				out[i] += s.EntriesIn
			}
		}
	}
	return out
}

// round has every node write, and returns how many entries came to each from
// the other region.
func (r *regions) round(key string) (out [6]uint64) {
	r.t.Helper()
	before := r.crossed()
	for i, n := range r.nodes {
		n.set(1, fmt.Sprint(key, i), key)
		n.incr("n", 1)
	}
	r.pass(2 * time.Second)
	same(r.t, r.nodes...)
	after := r.crossed()
	for i := range out {
		out[i] = after[i] - before[i]
	}
	return out
}

// gateways returns who brought entries to each region; there must be one each,
// with one copy of each entry.
func (r *regions) gateways(key string, written uint64) (east, west int) {
	r.t.Helper()
	got := r.round(key)
	find := func(part []uint64, base int) int {
		r.t.Helper()
		i := slices.IndexFunc(part, func(n uint64) bool { return n > 0 })
		if i < 0 || part[i] != written || part[(i+1)%3]+part[(i+2)%3] > 0 {
			r.t.Errorf("%s: entries that came from the other region: %v, want %d to one node of each", key, got, written)
			return base
		}
		return base + i
	}
	return find(got[:3], 0), find(got[3:], 3)
}

// What is written in a region comes to another once, to its gateway, and from
// there to the others.
func TestRegionsOneCopy(t *testing.T) {
	r := newRegions(t)
	east, west := r.gateways("first", 6)
	again, too := r.gateways("second", 6)
	if again != east || too != west {
		t.Errorf("gateways are %d and %d, were %d and %d", again, too, east, west)
	}

	// The gateway of the west is cut off from the east: another steps in.
	for i := range 3 {
		r.links[[2]int{i, west}].cut()
		delete(r.links, [2]int{i, west})
	}
	r.pass(2 * time.Second)
	got := r.round("third")
	second := 3 + slices.IndexFunc(got[3:], func(n uint64) bool { return n > 0 })
	if second == west || got[3]+got[4]+got[5] != 6 {
		t.Errorf("entries that came from the other region without its gateway: %v", got)
	}
	// One that is cut off from a single origin leaves that one to another.
	r.links[[2]int{0, second}].cut()
	delete(r.links, [2]int{0, second})
	r.pass(2 * time.Second)
	got = r.round("fourth")
	if third := 12 - west - second; got[second] != 4 || got[third] != 2 || got[west] != 0 {
		t.Errorf("entries that came from the other region: %v", got)
	}
	// When all is well again the first is the gateway, and nothing comes twice.
	for i := range 3 {
		r.join(i, west)
	}
	r.join(0, second)
	r.pass(3 * time.Second)
	r.round("settle")
	if _, last := r.gateways("fifth", 6); last != west {
		t.Errorf("the gateway is %d, was %d at first", last, west)
	}

	// A gateway that is gone is replaced at once; what it was the last to have
	// comes from the origin.
	for p, l := range r.links {
		if p[0] == west || p[1] == west {
			l.cut()
			delete(r.links, p)
		}
	}
	r.nodes[0].set(0, "after", "x")
	r.pass(time.Second)
	for i := 3; i < 6; i++ {
		if i != west && r.nodes[i].get("after") != "x" {
			t.Errorf("node %d does not have what was written after the gateway was gone", i+1)
		}
	}
	for i, n := range r.nodes {
		for _, s := range n.peers.Stats(*r.now) {
			if s.Duplicates > 20 {
				t.Errorf("node %d had %d entries twice from node %d", i+1, s.Duplicates, s.Node)
			}
		}
	}
}

// Nodes without a region, and those that tell nothing of what they can have,
// exchange with every node directly.
func TestRegionsWithOthers(t *testing.T) {
	of := func(origin uint64, region string, feeds ...crdt.Stream) view {
		return view{node: uint16(origin / 10), region: region, origin: inc(origin), has: at(origin, 5), feeds: feeds}
	}
	for _, c := range []struct {
		name   string
		region string
		views  []view
		want   string
	}{
		{"none has one", "", []view{of(21, ""), of(31, "")}, "2:21 3:31"},
		{"only this one", "west", []view{of(21, ""), of(31, "")}, "2:21 3:31"},
		{"a member that tells nothing", "west", []view{of(21, "west"), of(31, "east")}, "2:21 3:31"},
		{"no session with the origin, a member has one", "west", []view{of(21, "west", inc(31)), of(41, "west")}, "2:21,31 4:41"},
		{"the member cannot serve it", "west", []view{{node: 2, region: "west", origin: inc(21), feeds: []crdt.Stream{inc(31)}, stalled: []crdt.Stream{inc(31)}}, of(31, "east")}, "2:21 3:31"},
	} {
		p := planner{region: c.region}
		if got := show(p.plan(epoch, time.Second, inc(11), nil, c.views)); got != c.want {
			t.Errorf("%s: wants %q, should want %q", c.name, got, c.want)
		}
	}
	// Of the members of a region just one goes to the origin, whoever asks.
	direct := 0
	for self := uint64(1); self <= 5; self++ {
		p := planner{region: "west"}
		views := []view{of(91, "east")}
		for other := uint64(1); other <= 5; other++ {
			if other != self {
				views = append(views, of(other*10+1, "west", inc(91)))
			}
		}
		if slices.Contains(p.plan(epoch, time.Second, inc(self*10+1), nil, views)[9], inc(91)) {
			direct++
		}
	}
	if direct != 1 {
		t.Errorf("%d of 5 members have it from the origin", direct)
	}
}
