package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

func vec(pairs ...uint64) crdt.Vector {
	var v crdt.Vector
	for i := 0; i < len(pairs); i += 2 {
		v.Set(crdt.NewStream(uint16(pairs[i]), 1, 0), crdt.Tag(pairs[i+1]))
	}
	return v
}

// TestRegionsAgainstModel raises random parts and compares each position with a
// model that keeps a vector for each of 64 positions.
func TestRegionsAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var r regions
		var model [64]crdt.Vector
		var pending [64]crdt.Vector
		pos := func(i int) []byte {
			if i <= 0 || i >= 64 {
				return nil
			}
			return []byte{byte(i)}
		}
		for range rnd.IntN(12) + 1 {
			from, upto := rnd.IntN(64), 0
			upto = from + 1 + rnd.IntN(64-from)
			v := vec(uint64(rnd.IntN(3)+1), uint64(rnd.IntN(5)+1))
			p := map[uint8]crdt.Vector{0: v}
			before := r
			frozen := reflect.ValueOf(before.parts).Len()
			r.raise(pos(from), pos(upto), v, p)
			if len(before.parts) != frozen {
				t.Fatal("raise changed the regions it began with")
			}
			for i := from; i < upto; i++ {
				model[i], pending[i] = model[i].Join(v), pending[i].Join(v)
			}
			if b := r.encode(); len(b) > 0 {
				back, err := decodeRegions(b)
				if err != nil || !bytes.Equal(back.encode(), b) {
					t.Fatalf("seed %d: decoded %+v, %v", seed, back, err)
				}
			}
		}
		for i := range model {
			p := r.at([]byte{byte(i)})
			if !p.vector.Equal(model[i]) || !p.pending[0].Equal(pending[i]) {
				t.Fatalf("seed %d: position %d has %v, %v; want %v, %v", seed, i, p.vector, p.pending[0], model[i], pending[i])
			}
		}
		have := vec(1, 2)
		want := have.Join(model[0])
		for _, m := range model[1:] {
			want = meet(want, have.Join(m))
		}
		if got := r.shared(have); !got.Equal(want) {
			t.Fatalf("seed %d: shared %v, want %v", seed, got, want)
		}
		if _, ok := r.settle(have); ok != r.settled(have, model[:]) {
			t.Fatalf("seed %d: settled %v with %v", seed, ok, have)
		}
	}
}

// settled says by the model whether settle may forget.
func (r *regions) settled(have crdt.Vector, model []crdt.Vector) bool {
	for _, m := range model {
		if !m.In(have) {
			return false
		}
	}
	return true
}

func FuzzDecodeRegions(f *testing.F) {
	var r regions
	r.raise(nil, []byte{4}, vec(1, 2, 3, 4), map[uint8]crdt.Vector{3: vec(2, 2)})
	r.active, r.cursor = true, []byte{4}
	f.Add(r.encode())
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRegions(b)
		if err != nil || len(b) == 0 {
			return
		}
		again, err := decodeRegions(r.encode())
		if err != nil || fmt.Sprint(again) != fmt.Sprint(r) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}
