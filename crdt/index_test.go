package crdt

import (
	"math/rand/v2"
	"testing"
)

// An index finds all places of a hash, and no others, however many hashes share
// slots, also when it is used again.
func TestIndex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var none *Index
	if n, _ := none.First(1); n >= 0 || !none.Empty() {
		t.Error("no index has a place")
	}
	var x Index
	for round, size := range []int{1, 31, 5000, 40, 3} {
		want := map[uint32][]int{}
		for place := range size {
			hash := rnd.Uint32() << 20 // few, and all of them alike in their lower halves
			if place%3 == 0 {
				hash = rnd.Uint32()
			}
			x.Add(hash, place)
			want[hash] = append(want[hash], place)
		}
		for hash := range want {
			for _, h := range []uint32{hash, hash + 1} {
				var got []int
				for n, at := x.First(h); n >= 0; n, at = x.Next(h, at) {
					got = append(got, n)
				}
				if len(got) != len(want[h]) {
					t.Fatalf("round %d: hash %x has %v, not %v", round, h, got, want[h])
				}
				seen := map[int]bool{}
				for _, n := range got {
					seen[n] = true
				}
				for _, n := range want[h] {
					if !seen[n] {
						t.Fatalf("round %d: hash %x has %v, not %v", round, h, got, want[h])
					}
				}
			}
		}
		if x.Reset(1000); !x.Empty() || len(x.slots) > 2000 {
			t.Fatalf("round %d: reset leaves %d slots", round, len(x.slots))
		}
	}
}
