package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// noWalks is a store that is not to be asked for all cells of a key.
type noWalks struct{ crdt.Store }

func (noWalks) EachCell(crdt.Key, crdt.Kind, func(crdt.CellID, *crdt.Cell) bool) {
	panic("all cells of a key are asked for")
}

// written takes note that what a writer has written is applied.
func written(ks *crdt.Keyspace, w *crdt.Writer) {
	for _, e := range w.Entries() {
		ks.Have = ks.Have.Clone()
		ks.Have.Raise(e.Stream, e.Tag)
	}
}

// sweepFields hides the fields of a hash that have expired.
func sweepFields(ks *crdt.Keyspace, k crdt.Key, now int64) {
	ks.Store.EachCell(k, crdt.KindExpiry, func(id crdt.CellID, _ *crdt.Cell) bool {
		ks.SweepField(id, now)
		return true
	})
}

// TestKeysThatBegan: a key that was not there before is written from the cells that
// have changed alone, and the view is sent just what it is where the key is written
// whole.
func TestKeysThatBegan(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 3))
	ks := &crdt.Keyspace{Store: crdttest.New()}
	now := int64(1_800_000_000_000)
	began := map[crdt.Type]int{}
	for step := range 4000 {
		now += rng.Int64N(30)
		w := crdt.NewWriter(ks, crdt.NewStream(1, 1, 0), crdt.TagAt(now, 1), now)
		k := crdt.Key{Name: fmt.Sprint("k", rng.IntN(8))}
		for range 1 + rng.IntN(6) {
			elem := fmt.Sprint("e", rng.IntN(30))
			of := w.Type(k)
			switch kind := []crdt.Kind{crdt.KindMember, crdt.KindScored, crdt.KindField, crdt.KindString}[rng.IntN(4)]; {
			case rng.IntN(12) == 0:
				w.Remove(k)
			case rng.IntN(12) == 0:
				w.SetExpiry(k, now+1+rng.Int64N(100))
			case of == crdt.TypeHash && rng.IntN(4) == 0:
				w.SetFieldExpiry(k, elem, now+1+rng.Int64N(100))
			case of != crdt.TypeNone && rng.IntN(5) == 0:
				w.RemoveElem(k, kindOf(of), elem)
			case kind == crdt.KindString && of == crdt.TypeNone:
				w.SetString(k, []byte(elem), rng.IntN(2) == 0)
			case kind != crdt.KindString && (of == crdt.TypeNone || of == kind.Type()):
				for i := range 1 + rng.IntN(3)*rng.IntN(400) {
					w.SetElem(k, kind, fmt.Sprint("e", rng.IntN(30)+i), []byte(fmt.Sprint(step)))
				}
			}
		}
		if rng.IntN(4) == 0 {
			if ks.Sweep(k, now); rng.IntN(2) == 0 {
				sweepFields(ks, k, now)
			}
		}
		written(ks, w)
		ks.EachTouched(func(k crdt.Key, touch *crdt.Touch) {
			h := ks.Store.Header(k)
			if touch.Type != crdt.TypeNone || touch.Whole || h == nil || !h.Exists(now) {
				return
			}
			began[h.Type]++
			got, want := &Batch{fields: true}, &Batch{fields: true}
			materialise(got, noWalks{ks.Store}, k, touch, now)
			materialise(want, ks.Store, k, &crdt.Touch{}, now)
			if !slices.EqualFunc(got.Cmds, want.Cmds, func(a, b ViewCmd) bool { return slices.EqualFunc(a.Args, b.Args, bytes.Equal) }) {
				t.Fatalf("step %d: %+v was sent, %+v if it is written whole", step, got.Cmds, want.Cmds)
			}
		})
		ks.Untouch()
	}
	for _, of := range []crdt.Type{crdt.TypeString, crdt.TypeHash, crdt.TypeSet, crdt.TypeZSet} {
		if began[of] < 20 {
			t.Errorf("only %d keys of type %v began", began[of], of)
		}
	}
}
