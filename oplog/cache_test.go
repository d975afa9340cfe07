package oplog

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// To recall keys, whatever they are and however many, changes nothing: not what a
// group reads, not what it writes, and not which keys the cache has used last.
func TestRecallIsAHint(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.KeyBytes = 64 << 10 // for some of the keys
	r := openReplica(t, o)
	defer r.close()
	const n = 3 * crdt.RecallMost
	key := func(i int) crdt.Key { return crdt.Key{DB: uint8(i % 2), Name: fmt.Sprint(i / 2)} }
	value := func(round, i int) string { return fmt.Sprintf("%d of round %d", i, round) }
	var keys []crdt.CellID
	for i := range n {
		keys = append(keys, crdt.CellID{Key: key(i)}, crdt.CellID{Key: crdt.Key{DB: 200, Name: key(i).Name}}) // every other is nowhere
	}
	for round := range 5 {
		r.log.Recall(keys, nil) // more than are recalled at once; no group is open
		err := r.groupOn(func(g *Group, w *crdt.Writer) {
			for i := range n {
				if i%10 == 0 {
					g.Recall(keys[i : i+crdt.RecallMost])
				}
				if round > 0 {
					if got, ok := w.Elem(key(i), crdt.KindString, ""); !ok || string(got) != value(round-1, i) {
						t.Fatalf("round %d: %v is %v %q", round, key(i), ok, got)
					}
				}
				w.SetString(key(i), []byte(value(round, i)), false)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	r.must(func(w *crdt.Writer) { w.SetString(key(0), []byte("once more"), false) })
	c := &r.log.cache
	if c.young.empty() || c.old.empty() {
		t.Fatal("the cache has no two generations, so this says nothing of them")
	}
	var young int
	for _, names := range c.young.dbs {
		young += len(names)
	}
	var read []crdt.Key
	for _, id := range keys[:crdt.RecallMost] {
		read = append(read, id.Key)
	}
	r.log.Recall(nil, read)
	for _, names := range c.young.dbs {
		young -= len(names)
	}
	if young != 0 {
		t.Errorf("recalling has brought %d keys to the younger generation", -young)
	}
	r.verify()
}

// A key of one cell has the lists of what it has set and of what it owes in its own
// memory, which is used again and again; a second cell gets others.
func TestListsOfAKeyAreUsedAgain(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	one, many := crdt.Key{Name: "one"}, crdt.Key{Name: "many"}
	for round := range 200 {
		r.must(func(w *crdt.Writer) {
			w.SetString(one, fmt.Appendf(nil, "%d", round), false)
			for i := range round % 7 {
				w.SetElem(many, crdt.KindField, fmt.Sprint(i), fmt.Appendf(nil, "%d", round))
			}
			if round%13 == 12 {
				w.Remove(many)
			}
		})
		if round%29 == 28 { // the store is told without the cache
			if err := r.log.drain(); err != nil {
				t.Fatal(err)
			}
		}
		ks := r.log.cache.peek(one)
		if ks == nil || len(ks.owed) > 1 || len(ks.owed) == 1 && &ks.owed[:1][0] != &ks.room.owed[0] {
			t.Fatalf("round %d: %+v", round, ks)
		}
	}
	r.verify()
	r.view(func(w *crdt.Writer) {
		if got, ok := w.Elem(one, crdt.KindString, ""); !ok || string(got) != "199" {
			t.Errorf("%v %q", ok, got)
		}
	})
}
