package node

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// listReplica is a keyspace and the list that a view shows of it, which gets
// nothing but updates.
type listReplica struct {
	ks     *crdt.Keyspace
	stream crdt.Stream
	view   []string
	log    []crdt.Entry
	sent   map[string]int // commands, by name
	bytes  int
}

var listKey = crdt.Key{Name: "l"}

func newListReplica(node uint16) *listReplica {
	return &listReplica{ks: &crdt.Keyspace{Store: crdttest.New()}, stream: crdt.NewStream(node, 1, 0), sent: map[string]int{}}
}

func (r *listReplica) items() (elems []string, values []string) {
	w := crdt.NewWriter(r.ks, r.stream, 0, 1)
	w.EachElem(listKey, crdt.KindItem, func(e string, v []byte) bool {
		elems, values = append(elems, e), append(values, string(v))
		return true
	})
	return elems, values
}

// render brings the view level.
func (r *listReplica) render(t *testing.T) {
	t.Helper()
	b := &Batch{marker: []byte("the marker")}
	if touch := r.ks.Touched[listKey]; touch != nil {
		materialise(b, r.ks.Store, listKey, touch, 1)
	}
	clear(r.ks.Touched)
	r.bytes = b.Bytes
	for _, c := range b.Cmds {
		r.sent[string(c.Args[0])]++
		r.update(t, c.Args)
	}
	_, want := r.items()
	if !slices.Equal(r.view, want) {
		for _, c := range b.Cmds {
			t.Logf("%.300q", c.Args)
		}
		t.Fatalf("the view has %d items, the cells %d:\n%.1000q\n%.1000q", len(r.view), len(want), r.view, want)
	}
}

// update does what Redis does.
func (r *listReplica) update(t *testing.T, args [][]byte) {
	t.Helper()
	at := func(i int) int {
		n, err := strconv.Atoi(string(args[i]))
		if err != nil {
			t.Fatalf("%q", args)
		}
		if n < 0 {
			n += len(r.view)
		}
		if n < 0 || n >= len(r.view) {
			t.Fatalf("%q of %d items", args, len(r.view))
		}
		return n
	}
	switch string(args[0]) {
	case "DEL":
		r.view = nil
	case "RPUSH":
		for _, a := range args[2:] {
			r.view = append(r.view, string(a))
		}
	case "LPUSH":
		for _, a := range args[2:] {
			r.view = slices.Insert(r.view, 0, string(a))
		}
	case "LTRIM":
		r.view = slices.Clone(r.view[at(2) : at(3)+1])
	case "LSET":
		r.view[at(2)] = string(args[3])
	case "LREM":
		i := slices.Index(r.view, string(args[3]))
		if i < 0 || string(args[2]) != "1" && string(args[2]) != "-1" || slices.Contains(r.view[i+1:], string(args[3])) {
			t.Fatalf("%q: marked at %d", args, i)
		}
		r.view = slices.Delete(r.view, i, i+1)
	case "LINSERT":
		i := slices.Index(r.view, string(args[3]))
		if i < 0 {
			t.Fatalf("%q: nothing is marked", args)
		}
		if string(args[2]) == "AFTER" {
			i++
		}
		r.view = slices.Insert(r.view, i, string(args[4]))
	default:
		t.Fatalf("%q", args)
	}
}

// write runs a group of writes.
func (r *listReplica) write(tag crdt.Tag, fn func(*crdt.Writer)) {
	w := crdt.NewWriter(r.ks, r.stream, tag, 1)
	fn(w)
	for _, e := range w.Entries() {
		r.log = append(r.log, e)
		r.ks.Have = r.ks.Have.Clone()
		r.ks.Have.Raise(e.Stream, e.Tag)
	}
}

// hear applies what another wrote, from entry number from on.
func (r *listReplica) hear(o *listReplica, from int) int {
	for _, e := range o.log[from:] {
		r.ks.Apply(&e)
		r.ks.Have = r.ks.Have.Clone()
		r.ks.Have.Raise(e.Stream, e.Tag)
	}
	return len(o.log)
}

// After every group the view's list is the cells', whatever was written, here
// or elsewhere, in a short list or deep in a long one.
func TestListViewIsLevel(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			size := []int{0, 3, 10, 700}[seed%4]
			a, b := newListReplica(1), newListReplica(2)
			tag := crdt.TagAt(1795000000000, 1)
			value := func() []byte { return strconv.AppendInt(nil, int64(rng.IntN(50)), 10) }
			heardA, heardB := 0, 0
			for round := range 400 {
				r := []*listReplica{a, b}[rng.IntN(2)]
				tag += 1 << 12
				r.write(tag, func(w *crdt.Writer) {
					for range 1 + rng.IntN(3) {
						elems, _ := r.items()
						n := len(elems)
						grow := n < size
						switch c := rng.IntN(14); {
						case c < 3 || grow:
							var values [][]byte
							for range 1 + rng.IntN(4) + rng.IntN(1+max(0, size-n)) {
								values = append(values, value())
							}
							if err := w.PushItems(listKey, rng.IntN(2) == 0, values); err != nil {
								t.Fatal(err)
							}
						case n == 0:
						case c < 6:
							w.RemoveElem(listKey, crdt.KindItem, elems[0])
						case c < 8:
							w.RemoveElem(listKey, crdt.KindItem, elems[n-1])
						case c == 8:
							for _, e := range elems[:rng.IntN(min(n, 5))] {
								w.RemoveElem(listKey, crdt.KindItem, e)
							}
						case c < 10:
							w.SetElem(listKey, crdt.KindItem, elems[rng.IntN(n)], value())
						case c < 12:
							w.RemoveElem(listKey, crdt.KindItem, elems[rng.IntN(n)])
						case c == 12:
							at, before, after := rng.IntN(n+1), "", ""
							if at > 0 {
								before = elems[at-1]
							}
							if at < n {
								after = elems[at]
							}
							if err := w.InsertItem(listKey, before, after, value()); err != nil {
								t.Fatal(err)
							}
						case rng.IntN(5) == 0:
							w.Remove(listKey)
						}
					}
				})
				r.render(t)
				if rng.IntN(4) == 0 {
					heardA = a.hear(b, heardA)
					a.render(t)
				}
				if rng.IntN(4) == 0 || round == 399 {
					heardB = b.hear(a, heardB)
					b.render(t)
				}
			}
			a.hear(b, heardA)
			a.render(t)
			if x, y := a.ks.Store.(*crdttest.Store).Digest(), b.ks.Store.(*crdttest.Store).Digest(); x != y || !slices.Equal(a.view, b.view) {
				t.Fatalf("the replicas differ: %x %x", x, y)
			}
			if size > 500 && (a.sent["LSET"] == 0 || a.sent["LREM"] == 0 || a.sent["LINSERT"] == 0 || b.sent["LTRIM"] == 0) {
				t.Errorf("not everything was tried: %v", a.sent)
			}
		})
	}
}

// What is sent for a change of a long list is about the change, not the list.
func TestListViewCostsWhatChanged(t *testing.T) {
	r := newListReplica(1)
	tag := crdt.TagAt(1795000000000, 1)
	const size = 3000
	values := make([][]byte, size)
	for i := range values {
		values[i] = []byte(strconv.Itoa(i))
	}
	r.write(tag, func(w *crdt.Writer) { _ = w.PushItems(listKey, false, values) })
	r.render(t)
	elems, _ := r.items()
	for name, fn := range map[string]func(*crdt.Writer){
		"push":        func(w *crdt.Writer) { _ = w.PushItems(listKey, false, [][]byte{[]byte("x")}) },
		"push front":  func(w *crdt.Writer) { _ = w.PushItems(listKey, true, [][]byte{[]byte("x")}) },
		"pop":         func(w *crdt.Writer) { w.RemoveElem(listKey, crdt.KindItem, elems[0]) },
		"pop end":     func(w *crdt.Writer) { w.RemoveElem(listKey, crdt.KindItem, elems[size-1]) },
		"set":         func(w *crdt.Writer) { w.SetElem(listKey, crdt.KindItem, elems[size/2], []byte("x")) },
		"remove":      func(w *crdt.Writer) { w.RemoveElem(listKey, crdt.KindItem, elems[size/3]) },
		"remove late": func(w *crdt.Writer) { w.RemoveElem(listKey, crdt.KindItem, elems[size*2/3]) },
		"insert":      func(w *crdt.Writer) { _ = w.InsertItem(listKey, elems[900], elems[901], []byte("x")) },
	} {
		tag += 1 << 12
		r.write(tag, fn)
		if r.render(t); r.bytes > 300 {
			t.Errorf("%s: %d bytes", name, r.bytes)
		}
	}
}
