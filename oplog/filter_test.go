package oplog

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// A filter has what was added to it, by several at once, and next to nothing else
// as long as it has room.
func TestKeyFilter(t *testing.T) {
	f := newKeyFilter(1 << 20)
	key := func(i int) crdt.Key { return crdt.Key{DB: uint8(i % 16), Name: fmt.Sprint("key:", i)} }
	n := f.capacity() / 2
	if f.lacks(key(0)) {
		t.Error("a filter that is not filled yet tells of a key")
	}
	var all sync.WaitGroup
	for from := range 4 {
		all.Go(func() {
			for i := from; i < n; i += 4 {
				f.add(key(i))
			}
		})
	}
	all.Wait()
	f.ready.Store(true)
	for i := range n {
		if f.lacks(key(i)) {
			t.Fatalf("key %d of %d was added and is not there", i, n)
		}
	}
	wrong := 0
	for i := n; i < 2*n; i++ {
		if !f.lacks(key(i)) {
			wrong++
		}
	}
	if wrong > n/50 {
		t.Errorf("of %d keys that were not added %d may be there", n, wrong)
	}
	if !f.lacks(crdt.Key{DB: 5, Name: key(0).Name}) {
		t.Error("a key of one database may be in another: this one is not, with these hashes")
	}
}

// Whatever is written, removed, filled in, lost or taken over: the filter has every
// key that the store has.
func TestFilterHasAllKeys(t *testing.T) {
	filled, _ := fillSource(t, 60)
	o := testOptions(vfs.NewCrashableMem())
	o.RedoBytes, o.KeyBytes = 4<<10, 16<<10
	r := openReplica(t, o)
	for f := (&filler{keys: filled, r: r}); f.at(t) < len(f.keys); r.verify() {
		if err := f.step(f.at(t)); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(5, 6))
	key := func() crdt.Key { return crdt.Key{DB: uint8(rng.IntN(2)), Name: fmt.Sprint("k", rng.IntN(3000))} }
	for round := range 12 {
		for range 40 {
			r.must(func(w *crdt.Writer) {
				for range 1 + rng.IntN(30) {
					switch k := key(); rng.IntN(4) {
					case 0:
						w.Remove(k)
					case 1:
						for i := range 1 + rng.IntN(40) {
							w.SetElem(k, crdt.KindField, fmt.Sprint(i), []byte("v"))
						}
					default:
						w.Remove(k)
						w.SetString(k, []byte("v"), false)
					}
				}
			})
		}
		if round%2 == 0 {
			r.close()
		} else {
			fs := r.log.opts.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
			r.close()
			o.FS = fs
		}
		now := r.now
		r = openReplica(t, o)
		r.now = now.Add(time.Second)
		for deadline := time.Now().Add(time.Minute); !r.log.filter.ready.Load(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the filter is not filled")
			}
		}
		r.verify()
	}
	r.close()
}

// A store that takes long to be read through is not, at a start: keys are looked for in
// it as without a filter.
func TestNoFilterOfLargeStores(t *testing.T) {
	o := testOptions(vfs.NewMem())
	r := openReplica(t, o)
	for i := range 200 {
		r.set(fmt.Sprint("key", i), "value")
	}
	r.close()
	for _, most := range []uint64{1, 1 << 30} {
		o.filterStore = most
		r = openReplica(t, o)
		for deadline := time.Now().Add(time.Minute); most > 1 && !r.log.filter.ready.Load(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the filter is not filled")
			}
		}
		if most == 1 && r.log.filter.ready.Load() {
			t.Error("the filter is filled from a store that is too large for it")
		}
		if v, ok := r.get("key7"); !ok || v != "value" {
			t.Errorf("key7 is %q", v)
		}
		r.set("key8", "another")
		r.verify()
		r.close()
	}
}

// What a group need not look for in the store it knows: keys that the filter lacks,
// which leave nothing in the cache, and cells that were read or written.
func TestWhatAGroupKnows(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	key := func(name string) crdt.Key { return crdt.Key{Name: name} }
	cell := func(name string, kind crdt.Kind, elem string) crdt.CellID {
		return crdt.CellID{Key: key(name), Kind: kind, Elem: elem}
	}
	r.must(func(w *crdt.Writer) {
		w.SetString(key("string"), []byte("v"), false)
		w.SetField(key("hash"), "f", []byte("v"), false)
	})
	g := r.log.Begin()
	for id, want := range map[crdt.CellID]bool{
		cell("string", crdt.KindString, ""): true, cell("string", crdt.KindAny, ""): true, cell("string", crdt.KindField, "f"): true,
		cell("hash", crdt.KindField, "f"): true, cell("hash", crdt.KindField, "g"): true, cell("nothing", crdt.KindString, ""): true,
	} {
		if got := g.Knows(id); got != want {
			t.Errorf("%v: %v", id, got)
		}
	}
	g.Header(key("nothing"))
	g.Discard()
	if r.log.cache.get(key("nothing")) != nil {
		t.Error("a key that is not there is in the cache")
	}
	r.drain()
	r.log.cache = newKeyCache(1 << 20)
	g = r.log.Begin()
	defer g.Discard()
	if g.Knows(cell("hash", crdt.KindAny, "")) || g.Knows(cell("hash", crdt.KindField, "f")) {
		t.Error("what is only in the store is known")
	}
	g.Header(key("hash"))
	if !g.Knows(cell("hash", crdt.KindAny, "")) || g.Knows(cell("hash", crdt.KindField, "f")) || !g.Knows(cell("hash", crdt.KindMember, "f")) {
		t.Error("a header tells of itself, and of the kinds of which there are no cells")
	}
}
