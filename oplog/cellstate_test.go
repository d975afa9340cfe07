package oplog

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// Large keys are nearly nothing but states of cells: who makes one larger says in the
// commit what it buys.
func TestStatesOfCellsAreSmall(t *testing.T) {
	if n := unsafe.Sizeof(cellState{}); n > 96 {
		t.Errorf("the state of a cell takes %d bytes", n)
	}
}

// Between groups a cell with one value is packed, whether it was read, set or passed by
// in the last one, and any other is not; a group sees either as it is.
func TestCellsArePackedBetweenGroups(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.KeyBytes = 16 << 20
	r := openReplica(t, o)
	defer r.close()
	set, hash := crdt.Key{Name: "set"}, crdt.Key{Name: "hash"}
	const n = 3 * openChunk
	packed := func(when string, want int) {
		t.Helper()
		if r.log.opened.used != 0 {
			t.Fatalf("%s: %d cells are open", when, r.log.opened.used)
		}
		got := 0
		for _, k := range []crdt.Key{set, hash} {
			for _, cs := range r.log.cache.peek(k).cells.list {
				switch {
				case cs.packed():
					got++
				case cs.open == nil && cs.exists:
					t.Fatalf("%s: of %q nothing is kept", when, cs.elem)
				case cs.open != nil && (cs.open.of != nil || plain(&cs.open.Cell) || !cs.exists):
					t.Fatalf("%s: %q is open: %+v", when, cs.elem, cs.open)
				}
			}
		}
		if got != want {
			t.Fatalf("%s: %d cells are packed, not %d", when, got, want)
		}
	}
	r.must(func(w *crdt.Writer) {
		for i := range n {
			w.SetElem(set, crdt.KindMember, fmt.Sprint("m", i), nil)
			w.SetElem(hash, crdt.KindField, fmt.Sprint("f", i), []byte("1"))
		}
	})
	packed("set", 2*n)
	r.view(func(w *crdt.Writer) {
		if v, ok := w.Elem(hash, crdt.KindField, "f7"); !ok || string(v) != "1" {
			t.Errorf("%q %v", v, ok)
		}
		seen := 0
		w.EachElem(set, crdt.KindMember, func(string, []byte) bool { seen++; return true })
		if seen != n {
			t.Errorf("%d members, not %d", seen, n)
		}
	})
	packed("read", 2*n)
	r.must(func(w *crdt.Writer) {
		w.AddElem(hash, crdt.KindField, "f7", crdt.Int(4))
		w.RemoveElem(set, crdt.KindMember, "m3")
	})
	packed("counted and removed", 2*n-2)
	r.must(func(w *crdt.Writer) {
		w.AddElem(hash, crdt.KindField, "f7", crdt.Int(1))
		w.SetElem(set, crdt.KindMember, "m3", nil)
	})
	packed("counted again", 2*n-1)
	r.view(func(w *crdt.Writer) {
		if v, _ := w.Elem(hash, crdt.KindField, "f7"); string(v) != "6" {
			t.Errorf("f7 is %q", v)
		}
	})
	r.must(func(w *crdt.Writer) { w.SetElem(hash, crdt.KindField, "f7", []byte("9")) })
	packed("set over", 2*n)
	r.verify()
}
