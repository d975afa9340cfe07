package wan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// at makes a vector from pairs of node*10+incarnation and tag.
func at(pairs ...uint64) crdt.Vector {
	var v crdt.Vector
	for i := 0; i < len(pairs); i += 2 {
		v.Set(inc(pairs[i]), crdt.Tag(pairs[i+1]))
	}
	return v
}

// lane2 adds a position in lane 2 of origin 31.
func lane2(v crdt.Vector, t crdt.Tag) crdt.Vector {
	v.Set(inc(31)|2, t)
	return v
}

func inc(n uint64) crdt.Stream { return crdt.NewStream(uint16(n/10), n%10, 0) }

// TestPlan shows what node 1 wants of whom. Origins are written as node and
// incarnation: 31 is the first of node 3.
func TestPlan(t *testing.T) {
	direct := func(origin uint64, has crdt.Vector, stalled ...crdt.Stream) view {
		return view{node: uint16(origin / 10), origin: inc(origin), has: has, stalled: stalled}
	}
	for _, c := range []struct {
		name    string
		applied crdt.Vector
		views   []view
		want    string
	}{
		{"nobody", nil, nil, ""},
		{"each from itself", at(11, 5), []view{direct(21, at(11, 5, 21, 3, 31, 9)), direct(31, at(21, 3, 31, 9))}, "2:21 3:31"},
		{"a peer with nothing yet", nil, []view{direct(21, nil)}, "2:21"},
		{"no session with 3", nil, []view{direct(21, at(21, 3, 31, 9))}, "2:21,31"},
		{"two have it: the one that is further", nil, []view{direct(21, at(31, 9)), direct(41, at(31, 10))}, "2:21 4:31,41"},
		{"an older incarnation of a peer, from who has it", nil, []view{direct(22, at(22, 1)), direct(31, at(21, 7, 31, 1))}, "2:22 3:21,31"},
		{"an older incarnation of a peer, from itself", nil, []view{direct(22, at(21, 7, 22, 1))}, "2:21,22"},
		{"never one's own", at(11, 5), []view{direct(21, at(11, 5))}, "2:21"},
		{"an older one of one's own", nil, []view{direct(21, at(10, 5))}, "2:10,21"},
		{"the origin cannot serve it, another can", nil, []view{direct(21, at(21, 3), inc(21)), direct(31, at(21, 3))}, "2: 3:21,31"},
		{"all are as far in one lane: the one that has more in another", lane2(at(31, 9), 5), []view{direct(21, lane2(at(31, 9), 5)), direct(41, lane2(at(31, 9), 6)), direct(51, lane2(at(31, 9), 5))}, "2:21 4:31,41 5:51"},
		{"nobody can serve it", nil, []view{direct(21, at(21, 3), inc(21)), direct(31, at(21, 3), inc(21))}, "2: 3:31"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p planner
			if got := show(p.plan(epoch, time.Second, inc(11), c.applied, c.views)); got != c.want {
				t.Errorf("wants %q, should want %q", got, c.want)
			}
		})
	}
}

func show(m map[uint16][]crdt.Stream) string {
	var parts []string
	for n, os := range m {
		var names []string
		for _, o := range os {
			names = append(names, fmt.Sprint(uint64(o.Node())*10+o.Incarnation()))
		}
		parts = append(parts, fmt.Sprintf("%d:%s", n, strings.Join(names, ",")))
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// A relay stays the source until it is gone, the origin is back, or it has had
// nothing new for a while though others have.
func TestPlanStays(t *testing.T) {
	var p planner
	now := epoch
	plan := func(applied crdt.Vector, views ...view) string {
		now = now.Add(time.Second)
		return show(p.plan(now, time.Second, inc(11), applied, views))
	}
	two := func(tag uint64) view { return view{node: 2, origin: inc(21), has: at(31, tag)} }
	four := func(tag uint64) view { return view{node: 4, origin: inc(41), has: at(31, tag)} }
	for i, c := range []struct {
		applied crdt.Vector
		views   []view
		want    string
	}{
		{nil, []view{two(5)}, "2:21,31"},
		{at(31, 5), []view{two(5), four(6)}, "2:21,31 4:41"},
		{at(31, 6), []view{two(7), four(6)}, "2:21,31 4:41"},
		{at(31, 7), []view{two(7), four(8)}, "2:21,31 4:41"},
		{at(31, 7), []view{two(7), four(9)}, "2:21,31 4:41"},
		{at(31, 7), []view{two(7), four(9)}, "2:21,31 4:41"},
		{at(31, 7), []view{two(7), four(9)}, "2:21 4:31,41"},
		{at(31, 9), []view{two(12), four(9)}, "2:21 4:31,41"},
		{at(31, 9), []view{two(12)}, "2:21,31"},
		{at(31, 9), []view{two(12), {node: 3, origin: inc(31)}}, "2:21 3:31"},
	} {
		if got := plan(c.applied, c.views...); got != c.want {
			t.Errorf("step %d: wants %q, should want %q", i, got, c.want)
		}
	}
}
