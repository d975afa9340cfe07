package crdt_test

import (
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// TestRegistersJoin: of the siblings of a block of registers the greatest of each
// shows, whatever their lengths; the next write replaces them.
func TestRegistersJoin(t *testing.T) {
	a, b := &crdt.Keyspace{Store: crdttest.New()}, &crdt.Keyspace{Store: crdttest.New()}
	put := func(ks *crdt.Keyspace, node uint16, tag crdt.Tag, value string) []crdt.Entry {
		w := crdt.NewWriter(ks, crdt.NewStream(node, 1, 0), tag, 1)
		w.SetElem(k, crdt.KindRegisters, "b", []byte(value))
		return w.Entries()
	}
	both := append(put(a, 1, 1<<30, "\x05\x01\x00"), put(b, 2, 1<<30+1, "\x02\x03")...)
	a.Apply(&both[1])
	b.Apply(&both[0])
	for i, ks := range []*crdt.Keyspace{a, b} {
		for _, e := range both {
			ks.Have.Raise(e.Stream, e.Tag)
		}
		w := crdt.NewWriter(ks, crdt.NewStream(3, 1, 0), 1<<31, 1)
		if v, _ := w.Elem(k, crdt.KindRegisters, "b"); string(v) != "\x05\x03\x00" {
			t.Errorf("replica %d: %q", i, v)
		}
		w.EachElem(k, crdt.KindRegisters, func(_ string, v []byte) bool {
			if string(v) != "\x05\x03\x00" {
				t.Errorf("replica %d, in order: %q", i, v)
			}
			return true
		})
	}
	put(a, 1, 1<<32, "\x01")
	if c := a.Store.Cell(crdt.CellID{Key: k, Kind: crdt.KindRegisters, Elem: "b"}); len(c.Values) != 1 || string(c.Visible(crdt.KindRegisters)) != "\x01" {
		t.Errorf("after a write that has seen both: %+v", c)
	}
}

// TestStringKind: of a string and registers made at once, the newer shows; the
// next write removes both.
func TestStringKind(t *testing.T) {
	ks := &crdt.Keyspace{Store: crdttest.New()}
	write := func(node uint16, tag crdt.Tag, have crdt.Vector, do func(w *crdt.Writer)) []crdt.Entry {
		other := &crdt.Keyspace{Store: crdttest.New(), Have: have}
		w := crdt.NewWriter(other, crdt.NewStream(node, 1, 0), tag, 1)
		do(w)
		return w.Entries()
	}
	regs := func(w *crdt.Writer) { w.SetElem(k, crdt.KindRegisters, "b", []byte{1}) }
	str := func(w *crdt.Writer) { w.SetString(k, []byte("v"), false) }
	for _, e := range append(write(1, 1<<30, nil, regs), write(2, 1<<30+1, nil, str)...) {
		ks.Apply(&e)
		ks.Have = ks.Have.Clone()
		ks.Have.Raise(e.Stream, e.Tag)
	}
	w := crdt.NewWriter(ks, crdt.NewStream(3, 1, 0), 1<<31, 1)
	if crdt.StringKind(ks.Store, k) != crdt.KindString || w.Len(k, crdt.KindRegisters) != 0 || text(w, k, crdt.KindString, "") != "v" {
		t.Error("the string does not show")
	}
	w.SetElem(k, crdt.KindRegisters, "c", []byte{2})
	if _, ok := w.Elem(k, crdt.KindRegisters, "b"); ok || w.Len(k, crdt.KindRegisters) != 1 || text(w, k, crdt.KindString, "") != "(nil)" {
		t.Error("a write left what was behind")
	}
	// Also within one commit group, whose writes have one tag.
	w.SetString(k, []byte("v"), false)
	w.SetElem(k, crdt.KindRegisters, "", []byte{1})
	w.SetElem(k, crdt.KindRegisters, "d", []byte{2})
	if w.Len(k, crdt.KindRegisters) != 2 || text(w, k, crdt.KindString, "") != "(nil)" {
		t.Error("registers written after a string in one group are not what shows")
	}
}
