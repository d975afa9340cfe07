package oplog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// What is read again is in the cache of blocks: also when writes have filled their
// buffers, which are taken from the same memory, and next to a value that is too
// large for it.
func TestBlocksAreCached(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.MemTableBytes, o.CacheBytes = 2<<20, 4<<20
	r := openReplica(t, o)
	defer r.close()
	noise := make([]byte, 8<<20) // that does not compress
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	store := func() { // in tables
		t.Helper()
		r.drain()
		if err := r.log.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	k := crdt.Key{Name: "k"}
	name := func(i int) string { return fmt.Sprintf("a%05d", i) }
	for i := range 20 {
		r.must(func(w *crdt.Writer) { w.SetElem(k, crdt.KindField, fmt.Sprint("fill", i), noise[i<<18:(i+1)<<18]) })
	}
	store()
	const fields = 2000
	r.must(func(w *crdt.Writer) {
		for i := range fields {
			w.SetElem(k, crdt.KindField, name(i), []byte("v"))
		}
		w.SetElem(k, crdt.KindField, "b", noise)
	})
	store()
	read := func() (missed int64) {
		before := r.log.db.Metrics().BlockCache.Misses
		for i := range fields {
			b, err := get(r.log.db, appendCellKey(nil, rangeCells, crdt.CellID{Key: k, Kind: crdt.KindField, Elem: name(i)}))
			if err != nil || !bytes.Contains(b, []byte("v")) {
				t.Fatalf("field %d: %x, %v", i, b, err)
			}
		}
		return r.log.db.Metrics().BlockCache.Misses - before
	}
	read()
	if n := read(); n > fields/100 { // a few may stand beside the value
		t.Errorf("%d of %d reads went to the disk again", n, fields)
	}
}
