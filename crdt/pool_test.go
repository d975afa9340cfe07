package crdt

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// What was used before, by groups of any shape, is as good as new.
func TestFoldsAgain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ctx := Vector{{Stream: NewStream(2, 1, 0), Tag: 9}}
	var again Fold
	for group := range 300 {
		var fresh Fold
		keys := 1 + r.IntN(40)
		for n := range 1 + r.IntN(400) {
			tag := Tag(n + 1)
			d := Delta{Level: LevelCell, ID: CellID{Key{uint8(r.IntN(2)), fmt.Sprint(r.IntN(keys))}, KindField, fmt.Sprint(r.IntN(30))}}
			switch r.IntN(20) {
			case 0:
				d = Delta{Level: LevelKey, ID: CellID{Key: d.ID.Key}, Remove: &Remove{Tag: tag, Ctx: ctx}}
			case 1:
				d = Delta{Level: LevelKind, ID: CellID{Key: d.ID.Key, Kind: KindField}, Remove: &Remove{Tag: tag, Ctx: ctx}}
			case 2:
				if r.IntN(20) == 0 {
					d = Delta{Level: LevelDB, ID: CellID{Key: Key{DB: d.ID.Key.DB}}, Remove: &Remove{Tag: tag, Ctx: ctx}}
					break
				}
				fallthrough
			default:
				d.Put = &Put{Tag: tag, Value: []byte{byte(n)}}
			}
			fresh.Add(d)
			again.Add(d)
		}
		if want, got := fresh.Deltas(), again.Deltas(); !reflect.DeepEqual(want, got) {
			t.Fatalf("group %d: a fold that was used before has\n%v\nand not\n%v", group, got, want)
		}
		again.reset()
		if !again.Empty() || again.Len() != 0 {
			t.Fatal("a fold that was reset is not empty")
		}
	}
}

// A pool keeps neither what its values held nor more of them than it says.
func TestPool(t *testing.T) {
	var p pool[[]byte]
	for round := range 3 {
		var given []*[]byte
		for i := range 2*poolKept + 1 {
			v := p.take()
			if *v != nil {
				t.Fatalf("round %d: value %d is %q", round, i, *v)
			}
			*v = []byte("x")
			given = append(given, v)
		}
		if !slices.Equal(p.taken(), given) {
			t.Fatal("those that were taken are others")
		}
		p.reset(nil)
		if len(p.taken()) != 0 || len(p.list) != poolKept {
			t.Fatalf("%d are taken, %d kept", len(p.taken()), len(p.list))
		}
	}
	if got := emptied(make([]int, 1), 8); got != nil {
		t.Error("a slice that has not grown is kept")
	}
	if got := emptied(make([]int, 3), 2); got != nil {
		t.Error("a slice that has grown too much is kept")
	}
	if got := emptied([]int{1, 2}, 2); got == nil || len(got) != 0 || got[:2][0] != 0 {
		t.Error("a slice that has grown is not empty")
	}
}
