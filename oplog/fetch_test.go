package oplog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/replicatord/replicatord/crdt"
)

// slowDisk is a file system of which each read takes so long, once it is told. It notes that
// there were several at a time.
func slowDisk(fs vfs.FS, takes *atomic.Int64, several *atomic.Bool) vfs.FS {
	var reads atomic.Int32
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if d := takes.Load(); d > 0 && op.Kind == errorfs.OpFileReadAt {
			if reads.Add(1) > 1 {
				several.Store(true)
			}
			time.Sleep(time.Duration(d))
			reads.Add(-1)
		}
		return nil
	}))
}

// What is fetched of keys is what the store has of them, whatever they are, and nobody
// looks there again. The disk is slow, so that several goroutines read.
func TestFetchedKeysAreAsStored(t *testing.T) {
	var takes atomic.Int64
	var several atomic.Bool
	o := testOptions(slowDisk(vfs.NewMem(), &takes, &several))
	o.CacheBytes, o.KeyBytes = 1, 4<<20
	r := openReplica(t, o)
	const n = 160
	name := func(i int) crdt.Key { return crdt.Key{DB: uint8(i % 3), Name: fmt.Sprintf("key %d", i)} }
	filler := strings.Repeat("f", 3000) // so that there are many blocks
	for from := 0; from < n; from += 20 {
		r.must(func(w *crdt.Writer) {
			for i := from; i < from+20; i++ {
				k := name(i)
				switch i % 8 {
				case 0:
					w.SetString(k, []byte(filler+k.Name), false)
				case 1:
					w.AddElem(k, crdt.KindString, "", crdt.Int(int64(i)))
				case 2:
					w.SetString(k, []byte(k.Name), false)
					w.SetExpiry(k, testStart.UnixMilli()+int64(i)*1e6)
				case 3:
					for f := range 5 {
						w.SetElem(k, crdt.KindField, fmt.Sprint(f), []byte(filler))
					}
				case 4:
					w.SetString(k, []byte(strings.Repeat("large", throughBytes)), false)
				case 5:
					w.SetString(k, []byte("gone"), false)
					w.Remove(k)
				case 6:
					w.SetElem(k, crdt.KindMember, "member", nil)
				} // 7: never there
			}
		})
	}
	want := map[crdt.Key]string{}
	show := func(g *Group, k crdt.Key) (s string) {
		if h := g.Header(k); h != nil {
			s = fmt.Sprintf("%+v", *h)
		}
		g.EachCell(k, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
			s += fmt.Sprintf(" %v %q %x", id.Kind, id.Elem, c.AppendBinary(nil))
			return true
		})
		for _, id := range []crdt.CellID{{Key: k, Kind: crdt.KindString}, {Key: k, Kind: crdt.KindField, Elem: "3"}} {
			if c := g.Cell(id); c != nil {
				s += fmt.Sprintf(" %x", c.AppendBinary(nil))
			}
		}
		return s
	}
	each := func(fn func(g *Group, k crdt.Key)) {
		for from := 0; from < n; from += 40 {
			g := r.log.Begin()
			for i := from; i < from+40; i++ {
				fn(g, name(i))
			}
			if err := g.Err(); err != nil {
				t.Error(err)
			}
			g.Discard()
		}
	}
	reopen := func() {
		r.close()
		r = openReplica(t, o)
	}
	reopen()
	each(func(g *Group, k crdt.Key) { want[k] = show(g, k) })
	for _, hint := range []crdt.CellID{{}, {Kind: crdt.KindString}, {Kind: crdt.KindField, Elem: "3"}, {Kind: crdt.KindField, Elem: "none"}} {
		reopen()
		var ids []crdt.CellID
		for i := range n {
			hint.Key = name(i)
			ids = append(ids, hint)
			if i%10 == 0 {
				ids = append(ids, hint) // twice
			}
		}
		takes.Store(int64(2 * slowRead))
		for chunk := range slices.Chunk(ids, crdt.RecallMost) {
			r.log.Recall(chunk, nil)
		}
		takes.Store(0)
		if got := r.log.Metrics().Keys; got < n/2 || got > uint64(len(ids)) {
			t.Errorf("%d keys were read, of %d names", got, len(ids))
		}
		for i := range n {
			k := name(i)
			ks := r.log.cache.peek(k)
			if ks == nil {
				if want[k] != "" {
					t.Errorf("%v is not kept, though it was fetched", k)
				}
				continue
			}
			kind, elem := hint.Kind, hint.Elem
			if kind == crdt.KindAny {
				kind = crdt.KindString
			}
			if kept := ks.knows(kind) || ks.cells.get(cellKey{kind, elem}) != nil; !ks.loaded || !kept && want[k] != "" {
				t.Errorf("hint %v: %v is to be read still", hint, k)
			}
		}
		each(func(g *Group, k crdt.Key) {
			if got := show(g, k); got != want[k] {
				t.Errorf("hint %v: %v is %.200s, not %.200s", hint, k, got, want[k])
			}
		})
		r.must(func(w *crdt.Writer) { // and can be changed
			for i := range n {
				if i%8 < 3 {
					w.Remove(name(i))
					w.SetString(name(i), []byte("anew"), false)
				}
			}
		})
		r.verify()
		each(func(g *Group, k crdt.Key) { want[k] = show(g, k) })
	}
	if !several.Load() {
		t.Error("the keys were read one after the other")
	}
	r.close()
}

// Of large values no more are fetched than there is room for, and all can be read.
func TestFetchOfLargeValues(t *testing.T) {
	o := testOptions(vfs.NewMem())
	r := openReplica(t, o)
	const n, size = 8, fetchMost / 4
	var ids []crdt.CellID
	for i := range n {
		k := fmt.Sprint("large ", i)
		r.set(k, strings.Repeat(fmt.Sprint(i), size))
		ids = append(ids, crdt.CellID{Key: crdt.Key{Name: k}})
	}
	r.close()
	r = openReplica(t, o)
	defer r.close()
	r.log.Recall(ids, nil)
	held := 0
	for _, id := range ids {
		if ks := r.log.cache.peek(id.Key); ks != nil && ks.cells.len() > 0 {
			held++
		}
	}
	if held != 4 {
		t.Errorf("%d of %d values of %d bytes are held", held, n, size)
	}
	for i := range n {
		if got, _ := r.get(fmt.Sprint("large ", i)); got != strings.Repeat(fmt.Sprint(i), size) {
			t.Errorf("value %d is %.10q", i, got)
		}
	}
}

// Of a key whose rows are damaged nothing is kept, and who asks for it hears why.
func TestFetchOfDamage(t *testing.T) {
	for _, row := range []string{"header", "cell"} {
		t.Run(row, func(t *testing.T) {
			r := openReplica(t, testOptions(vfs.NewMem()))
			good, bad := crdt.CellID{Key: crdt.Key{Name: "good"}, Kind: crdt.KindString}, crdt.CellID{Key: crdt.Key{Name: "bad"}, Kind: crdt.KindString}
			r.set("good", "v")
			r.set("bad", strings.Repeat("v", 2*carryMost)) // in a row of its own
			r.close()
			r = openReplica(t, testOptions(r.log.opts.FS))
			defer r.close()
			at := headerKey(nil, bad.Key)
			if row == "cell" {
				at = appendCellKey(nil, rangeCells, bad)
			}
			if err := r.log.db.Set(at, []byte{0xff, 0xff}, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			r.log.Recall([]crdt.CellID{good, bad}, nil)
			if r.log.cache.peek(good.Key) == nil {
				t.Error("the good one was not fetched")
			}
			g := r.log.Begin()
			defer g.Discard()
			g.Cell(good)
			if err := g.Err(); err != nil {
				t.Fatal(err)
			}
			if g.Cell(bad); !errors.Is(g.Err(), crdt.ErrCorrupt) {
				t.Errorf("the damage is not told of: %v", g.Err())
			}
		})
	}
}

// BenchmarkFetch measures writes of keys that must be read first, from a disk of which a
// read takes a millisecond, in groups of 64: recalled, as nodes do it, and not.
func BenchmarkFetch(b *testing.B) {
	for _, recalled := range []bool{true, false} {
		b.Run(fmt.Sprintf("recalled=%v", recalled), func(b *testing.B) {
			var takes atomic.Int64
			var several atomic.Bool
			keys := 200_000
			if testing.Short() {
				keys = 20_000
			}
			r := openReplica(b, Options{Dir: b.TempDir(), FS: slowDisk(vfs.Default, &takes, &several), Node: 7, MinFree: -1, CacheBytes: 1, KeyBytes: 1 << 20, RedoBytes: 1 << 20})
			defer r.close()
			defer takes.Store(0)
			value := []byte("a value of thirty-two bytes more")
			key := func(i int) crdt.Key { return crdt.Key{Name: fmt.Sprintf("key:%08d", i*7919%keys)} }
			at := 0
			group := func(n int, recall bool) {
				r.must(func(w *crdt.Writer) {
					if recall {
						ids := make([]crdt.CellID, n)
						for i := range ids {
							ids[i].Key = key(at + i)
						}
						r.log.Recall(ids, nil)
					}
					for range n {
						w.SetString(key(at), value, false)
						at++
					}
				})
			}
			for at < keys {
				group(1000, false)
			}
			if err := r.log.db.Flush(); err != nil {
				b.Fatal(err)
			}
			takes.Store(int64(time.Millisecond))
			for b.Loop() {
				group(crdt.RecallMost, recalled)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*crdt.RecallMost), "ns/set")
		})
	}
}
