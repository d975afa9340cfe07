package crdt_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

// elem finishes a position as a writer does.
func elem(t *testing.T, before, after string, tag crdt.Tag, index uint32) string {
	t.Helper()
	p, err := crdt.ItemPosBetween(before, after)
	if err != nil {
		t.Fatalf("between %x and %x: %v", before, after, err)
	}
	p[len(p)-1].Tag, p[len(p)-1].Index = tag, index
	s := string(p.AppendBinary(nil))
	if before != "" && s <= before || after != "" && s >= after {
		t.Fatalf("%x is not between %x and %x", s, before, after)
	}
	q, err := crdt.ParseItemPos(s)
	if err != nil || !slices.Equal(p, q) {
		t.Fatalf("%v reads as %v: %v", p, q, err)
	}
	return s
}

// Encodings sort as levels do, and decode to what they were.
func TestPositionsSort(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	number := func() int64 {
		n := rng.Int64() >> (2 + rng.IntN(61))
		return []int64{n, -n, 0, 255, 256, -256, -257, 1 << 62, -1 << 62}[rng.IntN(9)]
	}
	compare := func(a, b crdt.ItemPos) int {
		return slices.CompareFunc(a, b, func(x, y crdt.ItemLevel) int {
			return cmp.Or(cmp.Compare(x.Rank, y.Rank), cmp.Compare(x.Tag, y.Tag), cmp.Compare(x.Index, y.Index))
		})
	}
	var list []crdt.ItemPos
	for range 3000 {
		var p crdt.ItemPos
		if len(list) > 0 && rng.IntN(2) == 0 {
			p = slices.Clone(list[rng.IntN(len(list))])
			p = p[:rng.IntN(len(p)+1)]
		}
		for range 1 + rng.IntN(2) {
			p = append(p, crdt.ItemLevel{Rank: number(), Tag: crdt.Tag(rng.Int64() >> rng.IntN(63)),
				Index: []uint32{0, 1, 0xef, 0xf0, 0xffff, 1 << 16, 1<<32 - 1, rng.Uint32()}[rng.IntN(8)]})
		}
		list = append(list, p)
	}
	for i, p := range list {
		enc := string(p.AppendBinary(nil))
		if q, err := crdt.ParseItemPos(enc); err != nil || !slices.Equal(p, q) {
			t.Fatalf("%v reads as %v: %v", p, q, err)
		}
		for _, o := range list[:i] {
			if got, want := strings.Compare(enc, string(o.AppendBinary(nil))), compare(p, o); got != want {
				t.Fatalf("%v and %v compare as %d, their encodings as %d", p, o, want, got)
			}
		}
	}
}

// What is no position is refused, and there is one encoding of each.
func TestBadPositions(t *testing.T) {
	tag := "\x00\x00\x00\x00\x00\x00\x00\x01"
	for _, bad := range []string{
		"", "\x80", "\x80" + tag, "\x80" + tag[1:] + "\x00", "\x81\x00" + tag + "\x00", "\x7e\xff" + tag + "\x00",
		"\x89123456789" + tag + "\x00", "\x88\x40\x00\x00\x00\x00\x00\x00\x01" + tag + "\x00", "\x00" + tag + "\x00",
		"\x80" + tag + "\xf0", "\x80" + tag + "\xf2\x00\x01", "\x80" + tag + "\xf4\x00\x00\x00\x01", "\x80" + tag + "\xff",
		"\x80" + tag + "\x00x", strings.Repeat("\x80"+tag+"\x00", 1700),
	} {
		if p, err := crdt.ParseItemPos(bad); err == nil {
			t.Errorf("%.60x reads as %v", bad, p)
		}
	}
	if _, err := crdt.ItemPosBetween("\x80"+tag+"\x00", "\x80"+tag+"\x00"); err == nil {
		t.Error("a position between an item and itself")
	}
}

func FuzzPosition(f *testing.F) {
	f.Add("\x80\x00\x00\x00\x00\x00\x00\x00\x01\x00")
	f.Add("\x7e\x01\x00\x00\x00\x00\x00\x00\x00\x01\xf2\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x02\x05")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := crdt.ParseItemPos(s)
		if err != nil {
			return
		}
		if got := string(p.AppendBinary(nil)); got != s {
			t.Fatalf("%x reads as %v, which is %x", s, p, got)
		}
	})
}

// A queue's positions stay short, whoever pushes in turn and however long; so
// do those of items inserted beside each other in one direction.
func TestPositionsStayShort(t *testing.T) {
	tag := crdt.TagAt(1795000000000, 1)
	next := func(node uint16) crdt.Tag {
		tag = crdt.TagAt(tag.Millis()+1, node)
		return tag
	}
	queue := func(front bool, pops bool) int {
		list := []string{elem(t, "", "", next(1), 0)}
		longest := 0
		for i := range 100_000 {
			var e string
			if node := uint16(1 + i%3); front {
				e = elem(t, "", list[0], next(node), 0)
			} else {
				e = elem(t, list[len(list)-1], "", next(node), 0)
			}
			longest = max(longest, len(e))
			if list = append(list, e); front || pops {
				list = list[1:]
			}
		}
		return longest
	}
	if n := max(queue(false, true), queue(true, false)); n > 3+1+8+1 {
		t.Errorf("after 100,000 pushes positions have %d bytes", n)
	}
	first, last := elem(t, "", "", next(1), 0), ""
	last = elem(t, first, "", next(1), 0)
	for _, c := range []struct {
		name  string
		step  func(a, b, e string) (string, string)
		limit int
	}{
		{"each after the one before", func(_, b, e string) (string, string) { return e, b }, 40},
		{"each before the one before", func(a, _, e string) (string, string) { return a, e }, 40},
	} {
		a, b := first, last
		longest := 0
		for range 20_000 {
			e := elem(t, a, b, next(2), 7)
			longest = max(longest, len(e))
			a, b = c.step(a, b, e)
		}
		if longest > c.limit {
			t.Errorf("%s: %d bytes", c.name, longest)
		}
	}
	a, b := first, last
	for i := range 1600 { // the worst: between the two newest, in turn
		e := elem(t, a, b, next(2), 7)
		if i%2 == 0 {
			a = e
		} else {
			b = e
		}
	}
	if n := max(len(a), len(b)); n > 1600/16*15+60 {
		t.Errorf("after 1,600 inserts between the newest two: %d bytes", n)
	}
}

// Inserts and pushes anywhere keep the order that a plain list would have.
func TestPositionsAreWhereTheyWerePut(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var list []string
		tag := crdt.TagAt(1795000000000, 1)
		seen := map[string]bool{}
		hot := 0
		for i := range 3000 {
			tag = crdt.TagAt(tag.Millis()+int64(rng.IntN(2)), uint16(1+rng.IntN(3)))
			at := []int{0, len(list), rng.IntN(len(list) + 1), min(hot, len(list))}[rng.IntN(4)]
			hot = at + rng.IntN(2)
			var before, after string
			if at > 0 {
				before = list[at-1]
			}
			if at < len(list) {
				after = list[at]
			}
			e := elem(t, before, after, tag, uint32(i))
			if seen[e] {
				t.Fatalf("seed %d: %x was given twice", seed, e)
			}
			seen[e] = true
			list = slices.Insert(list, at, e)
			if rng.IntN(3) == 0 {
				j := rng.IntN(len(list))
				list = slices.Delete(list, j, j+1)
			}
		}
		if !slices.IsSorted(list) {
			t.Fatalf("seed %d: not in order", seed)
		}
	}
}
