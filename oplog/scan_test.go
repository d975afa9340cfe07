package oplog

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// A walk over keys shows each once, as it is in memory where its row is behind, whatever was
// swept, drained, dropped or changed in the open group; a flush leaves none.
func TestEachKeyAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		o := testOptions(vfs.NewMem())
		o.RedoBytes = []int64{2000, 20_000, 1 << 30}[rnd.IntN(3)]
		o.KeyBytes = []int64{4 << 10, 40 << 10, 4 << 20}[rnd.IntN(3)]
		r := openReplica(t, o)
		model := map[string]int{} // members of each set
		change := func(w *crdt.Writer, m map[string]int) {
			for range 1 + rnd.IntN(20) {
				k := crdt.Key{Name: fmt.Sprint(rnd.IntN(150))}
				switch e := fmt.Sprint(rnd.IntN(12)); rnd.IntN(8) {
				case 0:
					w.Remove(k)
					delete(m, k.Name)
				case 1, 2:
					if w.RemoveElem(k, crdt.KindMember, e) {
						if m[k.Name]--; m[k.Name] == 0 {
							delete(m, k.Name)
						}
					}
				default:
					if _, ok := w.Elem(k, crdt.KindMember, e); !ok {
						w.SetElem(k, crdt.KindMember, e, nil)
						m[k.Name]++
					}
				}
			}
		}
		check := func(step int, g *Group, m map[string]int) {
			t.Helper()
			got := map[string]int{}
			g.EachKey(0, func(k crdt.Key, h *crdt.Header) bool {
				if _, twice := got[k.Name]; twice {
					t.Errorf("seed %d step %d: %s is shown twice", seed, step, k.Name)
				}
				g.EachCell(k, crdt.KindMember, func(crdt.CellID, *crdt.Cell) bool { got[k.Name]++; return true })
				if n := h.Len(crdt.KindMember); n != got[k.Name] {
					t.Errorf("seed %d step %d: %s has %d members, of which %d are shown", seed, step, k.Name, n, got[k.Name])
				}
				return true
			})
			if err := g.Err(); err != nil || !maps.Equal(got, m) {
				t.Fatalf("seed %d step %d: %v\n got %v\nwant %v", seed, step, err, got, m)
			}
		}
		parts := func(step int, g *Group) { // all that is committed is named
			t.Helper()
			named, most := map[string]bool{}, 1+rnd.IntN(40)
			for from := []byte(nil); ; {
				keys, next := g.KeysFrom(0, from, most)
				for _, k := range keys {
					named[k.Name] = true
				}
				if from = next; from == nil {
					break
				}
				if len(keys) < most || len(keys) > most+150 {
					t.Errorf("seed %d step %d: %d keys, not %d, and there are more", seed, step, len(keys), most)
				}
			}
			for name := range model {
				if !named[name] {
					t.Fatalf("seed %d step %d: %s is not named", seed, step, name)
				}
			}
		}
		for step := range 150 {
			switch rnd.IntN(12) {
			case 0:
				r.drain()
			case 1, 2:
				if _, err := r.log.WriteBack(1 + rnd.IntN(60)); err != nil {
					t.Fatal(err)
				}
			case 3: // and discard it
				g, m := r.log.Begin(), maps.Clone(model)
				change(crdt.NewWriter(&crdt.Keyspace{Store: g, Have: g.Vector()}, r.log.Identity().Origin, r.tag+1<<11, r.now.UnixMilli()), m)
				check(step, g, m)
				g.Discard()
			case 4:
				r.must(func(w *crdt.Writer) {
					if rnd.IntN(2) == 0 {
						change(w, model)
					}
					w.Flush(0)
					clear(model)
					if rnd.IntN(2) == 0 {
						change(w, model)
					}
				})
			case 5:
				r.close()
				r = openReplica(t, o)
			default:
				r.must(func(w *crdt.Writer) { change(w, model) })
			}
			g := r.log.Begin()
			check(step, g, model)
			parts(step, g)
			g.Discard()
		}
		r.verify()
		r.close()
	}
}
