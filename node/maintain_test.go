package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/wan"
)

// When node 1, in its second life, knows that nothing more of a stream can
// come. It has 5 of each; members are 2 and 3, and 9 is forgotten.
func TestOver(t *testing.T) {
	life := func(node uint16, n uint64) crdt.Stream { return crdt.NewStream(node, n, 0) }
	for _, c := range []struct {
		name   string
		stream crdt.Stream
		change func(all []*Company) // as nodes 1, 2 and 3 know it
		has    crdt.Tag             // of the stream at node 3
		over   bool
	}{
		{name: "a life that lasts", stream: life(2, 2), has: 5},
		{name: "its own", stream: life(1, 2), has: 5},
		{name: "of a node that nobody knows", stream: life(7, 1), has: 5},
		{name: "an earlier life of its own", stream: life(1, 1), has: 5, over: true},
		{name: "an earlier life of a member", stream: life(2, 1), has: 5, over: true},
		{name: "a forgotten node", stream: life(9, 1), has: 5, over: true},
		{name: "that a member has not met in this life", stream: life(2, 1), has: 5, change: func(all []*Company) { all[2].Heard[2] = wan.Heard{Origin: life(2, 1)} }},
		{name: "that a member has not met since it started", stream: life(2, 1), has: 5, change: func(all []*Company) { delete(all[2].Heard, 2) }},
		{name: "of which a member has not heard that it is forgotten", stream: life(9, 1), has: 5, change: func(all []*Company) { all[2].Forgotten = nil }},
		{name: "while another member is met in different lives", stream: life(9, 1), has: 5, change: func(all []*Company) { all[1].Heard[3] = wan.Heard{Origin: life(3, 1)} }},
		{name: "while there is a member this node does not know", stream: life(9, 1), has: 5, change: func(all []*Company) {
			all[1].Members = append(all[1].Members, 4)
			all[1].Heard[4] = wan.Heard{Origin: life(4, 1)}
		}},
		{name: "while a member was not heard", stream: life(9, 1), has: 5, change: func(all []*Company) { delete(all[0].Heard, 3) }},
		{name: "of which a member has less", stream: life(2, 1), has: 4, over: true},
		{name: "of which a member has more", stream: life(2, 1), has: 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := make([]*Company, 3)
			for i := range all {
				all[i] = &Company{Forgotten: []uint16{9}, Heard: map[uint16]wan.Heard{}}
				for j := range uint16(3) {
					if int(j) != i {
						all[i].Members = append(all[i].Members, j+1)
						all[i].Heard[j+1] = wan.Heard{Origin: life(j+1, 2), Durable: crdt.Vector{{Stream: c.stream, Tag: 5}}}
					}
				}
			}
			if c.change != nil {
				c.change(all)
			}
			co := all[0]
			for m, h := range co.Heard {
				h.Census = census(all[m-1].lives(life(m, 2)))
				if m == 3 {
					h.Durable = crdt.Vector{{Stream: c.stream, Tag: c.has}}
				}
				co.Heard[m] = h
			}
			core := Core{ks: crdt.Keyspace{Have: crdt.Vector{{Stream: c.stream, Tag: 5}}}}
			lives := co.lives(life(1, 2))
			if got := co.agree(lives) && core.over(c.stream, co, lives); got != c.over {
				t.Errorf("over is %t", got)
			}
		})
	}
}

// A field that has expired is purged by one node, once every member is known to
// have seen the expiry and to be past it.
func TestPurgeOfFields(t *testing.T) {
	now := time.Now()
	c := newBareCore(t, func() time.Time { return now }, &sentView{})
	for _, words := range []string{"HSETEX h PX 1000 FIELDS 1 f v", "HSET h lasting v", "HSETEX alone PX 1000 FIELDS 2 f v g v", "EXPIRE alone 1000000"} {
		q := request(nil, strings.Fields(words)...)
		if c.Do(q); q.Out[0] == '-' {
			t.Fatalf("%s: %s", words, q.Out)
		}
	}
	if err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	left := func() (out []string) {
		c.begin()
		for _, k := range []crdt.Key{{Name: "alone"}, {Name: "h"}} {
			c.group.EachCell(k, crdt.KindAny, func(id crdt.CellID, cell *crdt.Cell) bool {
				if cell.Live() {
					out = append(out, k.Name+" "+id.Kind.Name()+" "+id.Elem)
				}
				return true
			})
		}
		_ = c.Commit()
		return out
	}
	whole := left()
	have := c.log.Vector()
	before := crdt.TagAt(now.UnixMilli()+500, 2)
	now = now.Add(10 * time.Minute)
	after := crdt.TagAt(now.UnixMilli(), 2)
	for _, step := range []struct {
		name  string
		heard map[uint16]wan.Heard
		want  []string
	}{
		{"before a member was heard", nil, whole},
		{"while a member is not past it", map[uint16]wan.Heard{2: {Origin: crdt.NewStream(2, 1, 0), Tag: before, Durable: have}}, whole},
		{"while a member has not seen it", map[uint16]wan.Heard{2: {Origin: crdt.NewStream(2, 1, 0), Tag: after}}, whole},
		{"when all have", map[uint16]wan.Heard{2: {Origin: crdt.NewStream(2, 1, 0), Tag: after, Durable: have}}, []string{"h field lasting"}},
	} {
		for range 3 {
			if _, err := c.Maintain(&Company{Members: []uint16{2}, Heard: step.heard}); err != nil {
				t.Fatal(err)
			}
		}
		if got := left(); !slices.Equal(got, step.want) {
			t.Errorf("%s there are %q, want %q", step.name, got, step.want)
		}
	}
	if c.Stats.SweptFields != 3 || c.Stats.Purged != 3 {
		t.Errorf("%d fields hidden, %d purged", c.Stats.SweptFields, c.Stats.Purged)
	}
}
