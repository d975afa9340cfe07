package oplog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// A group shows the live cells of a kind, from any element on and in either
// direction, as the store of the tests does: whatever it holds over what is
// stored, and whichever groups before it were kept or given up.
func TestEachCellFromInBothDirections(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			r := openReplica(t, Options{Dir: "d", FS: vfs.NewMem(), Node: 7, MinFree: -1, ManualSync: true})
			defer r.close()
			model := crdttest.New()
			var modelHave crdt.Vector
			kinds := []crdt.Kind{crdt.KindField, crdt.KindItem, crdt.KindEntry}
			key := func(kind crdt.Kind) crdt.Key { return crdt.Key{Name: kind.Name()} }
			elems := map[crdt.Kind][]string{}
			random := func(kind crdt.Kind) string {
				if l := elems[kind]; len(l) > 0 && rng.IntN(3) > 0 {
					return l[rng.IntN(len(l))]
				}
				return strings.Repeat("\xff", rng.IntN(3)) + fmt.Sprintf("%03d", rng.IntN(600)) + strings.Repeat("\x00", rng.IntN(2))
			}
			type shown struct{ elem, value string }
			list := func(s crdt.Store, kind crdt.Kind, from string, back bool, stop int) (out []shown) {
				s.EachCellFrom(key(kind), kind, from, back, func(id crdt.CellID, c *crdt.Cell) bool {
					if c.Live() {
						out = append(out, shown{id.Elem, string(c.Text())})
					}
					return len(out) < stop
				})
				return out
			}
			for range 250 {
				r.tag += 1 << 12
				if err := r.log.Reserve(r.tag); err != nil {
					t.Fatal(err)
				}
				g, m := r.log.Begin(), model.Clone()
				origin := r.log.Identity().Origin
				w := crdt.NewWriter(&crdt.Keyspace{Store: g, Have: g.Vector()}, origin, r.tag, r.now.UnixMilli())
				o := crdt.NewWriter(&crdt.Keyspace{Store: m, Have: modelHave}, origin, r.tag, r.now.UnixMilli())
				both := func(fn func(*crdt.Writer)) { fn(w); fn(o) }
				for range rng.IntN(40) {
					kind := kinds[rng.IntN(3)]
					k := key(kind)
					value := fmt.Appendf(nil, "%d", rng.IntN(1000))
					switch rng.IntN(9) {
					case 0, 1, 2: // at an end, in turn
						back := rng.IntN(2) == 0
						e := random(kind)
						if ends := list(m, kind, "", back, 1); len(ends) > 0 && ends[0].elem > "1" && back {
							e = ends[0].elem + "1"
						}
						if kind == crdt.KindItem {
							both(func(w *crdt.Writer) { _ = w.PushItems(k, !back, [][]byte{value, value}) })
						} else {
							both(func(w *crdt.Writer) { w.SetElem(k, kind, e, value) })
							elems[kind] = append(elems[kind], e)
						}
					case 3, 4, 5: // off an end
						for _, x := range list(m, kind, "", rng.IntN(2) == 0, 1+rng.IntN(3)) {
							both(func(w *crdt.Writer) { w.RemoveElem(k, kind, x.elem) })
						}
					case 6:
						if all := list(m, kind, "", false, 1000); len(all) > 0 {
							e := all[rng.IntN(len(all))].elem
							both(func(w *crdt.Writer) { w.RemoveElem(k, kind, e) })
						}
					case 7:
						if rng.IntN(8) == 0 {
							both(func(w *crdt.Writer) { w.Remove(k) })
						}
					}
					kind = kinds[rng.IntN(3)]
					if all := list(m, kind, "", false, 1000); kind == crdt.KindItem && len(all) > 0 {
						elems[kind] = append(elems[kind], all[0].elem, all[len(all)-1].elem)
					}
					from, back, stop := random(kind), rng.IntN(2) == 0, 1+rng.IntN(20)
					if rng.IntN(2) == 0 {
						from = ""
					}
					got, want := list(g, kind, from, back, stop), list(m, kind, from, back, stop)
					if !slices.Equal(got, want) {
						t.Fatalf("%v from %q, back %v:\n got %q\nwant %q", kind.Name(), from, back, got, want)
					}
				}
				if rng.IntN(4) == 0 {
					g.Discard()
					continue
				}
				for _, e := range w.Entries() {
					if err := g.Append(&e); err != nil {
						t.Fatal(err)
					}
					modelHave = modelHave.Clone()
					modelHave.Raise(e.Stream, e.Tag)
				}
				if err := g.Commit(); err != nil {
					t.Fatal(err)
				}
				model = m
				if rng.IntN(40) == 0 {
					if err := r.log.db.Flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// Who takes items one after the other finds the next ones with each search, also
// where some are put at that end in between.
func TestSearchForAnEndFindsMore(t *testing.T) {
	const items, every = 500, 7
	for _, back := range []bool{false, true} {
		o := testOptions(vfs.NewMem())
		o.KeyBytes, o.RedoBytes = 16<<20, 1<<30
		r := openReplica(t, o)
		key := crdt.Key{Name: "l"}
		var want []string
		r.must(func(w *crdt.Writer) {
			for i := range items {
				v := fmt.Sprint(i)
				_ = w.PushItems(key, back, [][]byte{[]byte(v)}) // at the other end
				want = append(want, v)
			}
		})
		r.close()
		r = openReplica(t, o)
		before := r.log.Metrics().Walks
		pops := 0
		for ; len(want) > 0; pops++ {
			r.must(func(w *crdt.Writer) {
				if pops%every == every-1 && pops < items {
					for _, v := range []string{"x", "y"} {
						_ = w.PushItems(key, !back, [][]byte{[]byte(v)})
						want = slices.Insert(want, 0, v)
					}
				}
				w.EachElemFrom(key, crdt.KindItem, "", back, func(elem string, v []byte) bool {
					if string(v) != want[0] {
						t.Fatalf("pop %d, back %v: %q, not %q", pops, back, v, want[0])
					}
					want = want[1:]
					w.RemoveElem(key, crdt.KindItem, elem)
					return false
				})
			})
		}
		if walks := r.log.Metrics().Walks - before; walks > items/maxAhead+10 {
			t.Errorf("back %v: %d pops walked the store %d times", back, pops, walks)
		}
		r.verify()
		r.close()
	}
}

// BenchmarkQueue measures a list of a million items that is a queue: in each
// commit group some items are pushed and as many popped. It must cost the same
// however long that goes on.
func BenchmarkQueue(b *testing.B) {
	size := 200_000
	if testing.Short() {
		size = 2_000
	}
	for _, n := range []int{1, 100, 2000} {
		b.Run(fmt.Sprintf("items=%d", n), func(b *testing.B) {
			r := openReplica(b, Options{Dir: b.TempDir(), Node: 7, MinFree: -1, RetentionBytes: 1 << 20})
			defer r.close()
			key := crdt.Key{Name: "queue"}
			value := []byte("an item of thirty-two bytes, say")
			values := make([][]byte, 1000)
			for i := range values {
				values[i] = value
			}
			for range size / len(values) {
				r.must(func(w *crdt.Writer) { _ = w.PushItems(key, false, values) })
			}
			ops, start := 0, cpuTime(b)
			for b.Loop() {
				r.must(func(w *crdt.Writer) {
					for range n {
						_ = w.PushItems(key, false, values[:1])
						var first string
						w.EachElemFrom(key, crdt.KindItem, "", false, func(elem string, _ []byte) bool {
							first = elem
							return false
						})
						if !w.RemoveElem(key, crdt.KindItem, first) {
							b.Fatal("nothing to pop")
						}
						ops++
					}
				})
			}
			b.ReportMetric(float64(cpuTime(b)-start)/float64(ops), "cpu-ns/item")
		})
	}
}
