package crdt_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

func TestStream(t *testing.T) {
	s := crdt.NewStream(4095, 1<<48-1, 3)
	if s.Node() != 4095 || s.Incarnation() != 1<<48-1 || s.Lane() != 3 || s.Origin() != crdt.NewStream(4095, 1<<48-1, 0) {
		t.Errorf("%v does not hold what it was made of", s)
	}
	order := []crdt.Stream{crdt.NewStream(1, 9, 3), crdt.NewStream(2, 1, 0), crdt.NewStream(2, 1, 1), crdt.NewStream(2, 2, 0)}
	if !slices.IsSorted(order) {
		t.Error("streams do not sort by node, age, lane")
	}
}

func TestDotOrder(t *testing.T) {
	dots := []crdt.Dot{{Tag: 1, Stream: 9}, {Tag: 2, Stream: 1}, {Tag: 2, Stream: 2}}
	for i, a := range dots {
		for j, b := range dots {
			if got := a.Compare(b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v to %v: %d", a, b, got)
			}
		}
	}
}

func randomVector(rng *rand.Rand) crdt.Vector {
	var v crdt.Vector
	for range rng.IntN(5) {
		v.Set(crdt.Stream(rng.IntN(5)), crdt.Tag(rng.IntN(4)))
	}
	return v
}

// TestVectorLaws compares vectors with maps, and checks that they are a
// lattice: Join is the least upper bound of In.
func TestVectorLaws(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	asMap := func(v crdt.Vector) map[crdt.Stream]crdt.Tag {
		m := map[crdt.Stream]crdt.Tag{}
		for i, p := range v {
			if p.Tag == 0 || i > 0 && p.Stream <= v[i-1].Stream {
				t.Fatalf("%v is not in order", v)
			}
			m[p.Stream] = p.Tag
		}
		return m
	}
	for range 20000 {
		a, b, c := randomVector(rng), randomVector(rng), randomVector(rng)
		ma, mb := asMap(a), asMap(b)
		join, beyond, in := asMap(a.Join(b)), asMap(a.Beyond(b)), true
		for s := range crdt.Stream(5) {
			if a.Get(s) != ma[s] || join[s] != max(ma[s], mb[s]) {
				t.Fatalf("join of %v and %v", a, b)
			}
			if ma[s] > mb[s] {
				in = false
				if beyond[s] != ma[s] {
					t.Fatalf("%v beyond %v", a, b)
				}
			} else if beyond[s] != 0 {
				t.Fatalf("%v beyond %v", a, b)
			}
			if d := (crdt.Dot{Tag: 2, Stream: s}); a.Covers(d) != (ma[s] >= 2) {
				t.Fatalf("%v covers %v", a, d)
			}
		}
		if a.In(b) != in || a.In(b) != a.Join(b).Equal(b) || a.In(b) != (len(a.Beyond(b)) == 0) {
			t.Fatalf("%v in %v", a, b)
		}
		if !a.Join(b).Equal(b.Join(a)) || !a.Join(a).Equal(a) || !a.Join(b).Join(c).Equal(a.Join(b.Join(c))) {
			t.Fatalf("join of %v, %v, %v", a, b, c)
		}
		if !a.Beyond(b).Join(b).Equal(a.Join(b)) {
			t.Fatalf("%v beyond %v", a, b)
		}
	}
}

// TestVectorsShareNothing changes what methods return, and finds the receiver
// as it was.
func TestVectorsShareNothing(t *testing.T) {
	a := crdt.Vector{{Stream: 1, Tag: 5}, {Stream: 2, Tag: 7}}
	for name, got := range map[string]crdt.Vector{
		"Clone": a.Clone(), "Join": a.Join(crdt.Vector{{Stream: 1, Tag: 1}}), "Join with nothing": a.Join(nil), "Beyond": a.Beyond(nil),
	} {
		got[0].Tag = 99
		if a.Get(1) != 5 {
			t.Errorf("%s shares memory", name)
			a[0].Tag = 5
		}
	}
}

func TestSlot(t *testing.T) {
	// As CLUSTER KEYSLOT answers, and the Redis Cluster Specification says.
	for key, want := range map[string]uint16{
		"": 0, "foo": 12182, "bar": 5061, "hello": 866, "123456789": 12739,
		"{user1000}.following": 3443, "{user1000}.followers": 3443, "user1000": 3443,
		"foo{}{bar}": crdt.Slot("foo{}{bar}"), "foo{{bar}}zap": crdt.Slot("{bar"), "foo{bar}{zap}": 5061,
	} {
		if got := crdt.Slot(key); got != want {
			t.Errorf("Slot(%q) = %d, want %d", key, got, want)
		}
	}
	if got := crdt.Slot("foo{}{bar}"); got != 8363 {
		t.Errorf("an empty hash tag is no hash tag: %d", got)
	}
}
