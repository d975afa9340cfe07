package node

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"testing"
)

// newLook is a search for a key by its hash.
func newLook(hash uint64, key string) look { return look{hash: hash, key: []byte(key)} }

// findAll returns what looks find.
func findAll(t *replyTable, looks ...look) []found {
	out := make([]found, len(looks))
	t.find(looks, out)
	return out
}

// TestReplyTable: what is put is found, under its key alone, the newer one where there are
// two; when memory is full the oldest is gone, and what is old is told before.
func TestReplyTable(t *testing.T) {
	seed := maphash.MakeSeed()
	hash := func(key string) uint64 {
		if key == "b" {
			return 0 // a bucket of its own
		}
		return maphash.String(seed, key) | 1
	}
	table := newReplyTable(minReadCache)
	find := func(keys ...string) []found {
		var looks []look
		for _, k := range keys {
			looks = append(looks, newLook(hash(k), k))
		}
		return findAll(table, looks...)
	}
	put := func(key, value string) {
		table.put(hash(key), []byte(key), []byte(value[:1]), []byte(value[1:]))
	}
	put("a", "one")
	put("b", "two")
	put("a", "three")
	for i, want := range []string{"three", "two", ""} {
		if f := find("a", "b", "c")[i]; string(f.value) != want || f.old {
			t.Errorf("number %d is %q, old %v", i, f.value, f.old)
		}
	}
	old := false
	for i := range 4 * minReadCache / 100 {
		k := fmt.Sprintf("key %d", i)
		put(k, "v"+k+string(make([]byte, 100)))
		l := find(k, "b")
		if !bytes.HasPrefix(l[0].value, []byte("v"+k)) || l[0].old {
			t.Fatalf("%q, just put, has %q, old %v", k, l[0].value, l[0].old)
		}
		if l[1].value == nil {
			if !old {
				t.Error("b was gone before it was old")
			}
			held := 0
			for c := range table.ring {
				if chunk := table.ring[c].Load(); chunk != nil {
					held += len(chunk.bytes)
				}
			}
			if i*100 < minReadCache/2 || held > minReadCache {
				t.Errorf("b was gone after %d; the table holds %d bytes", i, held)
			}
			return
		}
		old = l[1].old
	}
	t.Error("nothing ever goes")
}

// TestReplyTableTooLarge: what would push out too much is not kept.
func TestReplyTableTooLarge(t *testing.T) {
	table := newReplyTable(minReadCache)
	for _, size := range []int{table.chunk/4 - replyHead - 2, table.chunk / 4} {
		table.put(1, []byte("k"), []byte("v"), make([]byte, size))
		if kept := len(findAll(table, newLook(1, "k"))[0].value) == size+1; kept != (size < table.chunk/4) {
			t.Errorf("%d bytes: kept %v", size, kept)
		}
	}
}

// TestReplyTableNumbers: chunks are found by what of their number a word has room for,
// also where that begins anew, and a word that has outlived its chunk tells of none.
func TestReplyTableNumbers(t *testing.T) {
	table := newReplyTable(minReadCache)
	const around = 5 << numberBits
	hash := func(i int) uint64 { return 1<<63 | uint64(i) }
	table.newest.Store(around - 3)
	var words [2 * 64]uint64
	for i := range words {
		table.used = table.chunk // the next begins a chunk
		table.put(hash(i), []byte{byte(i)}, []byte{byte(i)}, nil)
		for j := range i + 1 {
			f := findAll(table, newLook(hash(j), string([]byte{byte(j)})))[0]
			if there := i-j < len(table.ring); (f.value != nil) != there || there && f.value[0] != byte(j) {
				t.Fatalf("after %d: %d has %v", i, j, f.value)
			}
		}
	}
}

// TestReplyTableAtOnce: many put and find at once; what is found is whole, and its key's.
func TestReplyTableAtOnce(t *testing.T) {
	table := newReplyTable(minReadCache)
	var all sync.WaitGroup
	found := 0
	for g := range 4 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			mine := 0
			for range 30000 {
				var looks []look
				for range 1 + rnd.IntN(looksMost) {
					n := rnd.Uint64N(2000)
					looks = append(looks, newLook(n%97<<48|n, fmt.Sprint("key", n))) // many share a tag and a bucket
				}
				for i, f := range findAll(table, looks...) {
					l := looks[i]
					if f.value == nil {
						table.put(l.hash, l.key, l.key, bytes.Repeat(l.key, rnd.IntN(50)))
						continue
					}
					mine++
					if !bytes.Equal(f.value, bytes.Repeat(l.key, len(f.value)/len(l.key))) {
						t.Errorf("%q has %q", l.key, f.value)
						return
					}
				}
			}
			if g == 0 {
				found = mine
			}
		})
	}
	all.Wait()
	if found < 1000 {
		t.Errorf("only %d found", found)
	}
}
