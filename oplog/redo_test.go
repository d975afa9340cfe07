package oplog

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/replicatord/replicatord/crdt"
)

// A log at rest owes its rows nothing; one that is written to goes on owing.
func TestRestWritesBack(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.RedoBytes = 1 << 30
	r := openReplica(t, o)
	defer r.close()
	owed := func(written int) int64 {
		t.Helper()
		for i := range written / 1000 {
			r.must(func(w *crdt.Writer) {
				w.SetString(crdt.Key{Name: fmt.Sprint(i)}, make([]byte, 1000), false)
			})
		}
		for more := r.log.Rest(); more; {
			var err error
			if more, err = r.log.WriteBack(7); err != nil {
				t.Fatal(err)
			}
		}
		return r.log.Metrics().RedoBytes
	}
	const busy = referredShare * restBytes
	for _, tt := range []struct {
		written int
		rests   bool
	}{{1000, true}, {busy, false}, {1000, true}, {0, true}, {restBytes / 2, true}, {busy, false}, {busy, false}, {0, true}} {
		if n := owed(tt.written); (n == 0) != tt.rests {
			t.Errorf("after %d bytes: %d are owed", tt.written, n)
		}
		if l := r.log; tt.rests && (l.redo.forgot != l.redo.seq || len(l.redo.pins) > 0 || l.cache.owed.rows != 0) {
			t.Errorf("after %d bytes: %d of %d records are gone, %d streams pinned, %d rows owed", tt.written, l.redo.forgot, l.redo.seq, len(l.redo.pins), l.cache.owed.rows)
		}
	}
	r.verify()
}

// Every history of one row, up to six changes, each told in a record or gone
// through, and drained at any point, also half: the row reached, its records
// still there; or swept at any point, and its records gone some time after. The row
// ends as it was last.
func TestRedoOfARow(t *testing.T) {
	db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	row := []byte{rangeCells, 'r'}
	type world struct {
		stored, now string // "": there is none
		records     [][]byte
		drained     int
		swept       int // records that a sweep of the row has passed
	}
	seq := uint64(0)
	drain := func(w world, path string) world {
		from := seq
		for _, b := range w.records[w.drained:] {
			seq++
			if err := db.Set(redoKey(nil, seq), b, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		calls := 0
		err := eachRow(db, from, seq, nil, func(k, v []byte) error {
			if calls++; !bytes.Equal(k, row) {
				t.Fatalf("%s: row %x", path, k)
			}
			w.stored = string(v)
			return nil
		})
		if err != nil || calls > 1 || w.stored != w.now {
			t.Fatalf("%s: stored %q, is %q; %d calls, %v", path, w.stored, w.now, calls, err)
		}
		w.drained = len(w.records)
		return w
	}
	histories := 0
	var step func(w world, left int, path string)
	step = func(w world, left int, path string) {
		histories++
		drain(w, path)
		if left == 0 {
			return
		}
		if w.drained < len(w.records) {
			step(drain(w, path), left-1, path+" drain")
			half := drain(w, path)
			half.drained = w.drained
			step(half, left-1, path+" half")
			swept := w
			swept.stored, swept.swept = w.now, len(w.records)
			step(swept, left-1, path+" sweep")
		}
		for n := w.drained + 1; n <= w.swept; n++ {
			forgot := w
			forgot.drained = n
			step(forgot, left-1, path+" forget")
		}
		tell := func(w world, op redoOp, value, how string) {
			w.records = append(w.records[:len(w.records):len(w.records)], appendRedo(nil, op, nil, row, []byte(value)))
			step(w, left-1, path+how)
		}
		value := fmt.Sprint("v", left)
		set := redoSet
		if w.now == "" {
			set = redoNew
		} else {
			gone := w
			gone.now = ""
			tell(gone, redoDelete, "", " delete")
			gone.stored = ""
			tell(gone, redoStored, "", " delete-through")
		}
		w.now = value
		tell(w, set, value, " set")
		w.stored = value
		tell(w, redoStored, "", " set-through")
	}
	step(world{}, 6, "nothing:")
	step(world{stored: "old", now: "old"}, 6, "row:")
	if histories < 1000 {
		t.Errorf("only %d histories", histories)
	}
}

func TestRedoRecordsAreChecked(t *testing.T) {
	cell, sibling, digest := []byte{rangeCells, 1, 2, 3, 4, 5}, []byte{rangeCells, 1, 2, 3, 4, 6, 7}, []byte{rangeDigests, 0, 1}
	entry := []byte{rangeLog, 1, 2, 3}
	source := func(key []byte) ([]byte, error) {
		if !bytes.Equal(key, entry) {
			return nil, pebble.ErrNotFound
		}
		return []byte("what an entry says"), nil
	}
	var parts [][]byte
	var good []byte
	whole := map[int]bool{0: true}
	for _, add := range []func(b []byte) []byte{
		func(b []byte) []byte { return appendRedo(b, redoSet, nil, cell, []byte("value")) },
		func(b []byte) []byte { return appendRedo(b, redoSet, cell, sibling, nil) },
		func(b []byte) []byte { return appendRedo(b, redoEntry, sibling, entry, nil) },
		func(b []byte) []byte { return appendRefer(b, entry, cell, []byte("or "), 8, 5) },
		func(b []byte) []byte { return appendRefer(b, cell, sibling, nil, 0, 18) },
		func(b []byte) []byte { return appendRedo(b, redoDelete, sibling, digest, nil) },
	} {
		from := len(good)
		good = add(good)
		parts = append(parts, good[from:])
		whole[len(good)] = true
	}
	if len(parts[1]) >= len(sibling)+3 {
		t.Errorf("a row that begins as the one before takes %d bytes", len(parts[1]))
	}
	var told []string
	if err := eachRedo(good, source, func(op redoOp, row, value []byte) error {
		told = append(told, fmt.Sprint(op, row, string(value)))
		return nil
	}); err != nil || !slices.Equal(told, []string{
		fmt.Sprint(redoSet, cell, "value"), fmt.Sprint(redoSet, sibling, ""), fmt.Sprint(redoSet, cell, "or entry"),
		fmt.Sprint(redoSet, sibling, "what an entry says"), fmt.Sprint(redoDelete, digest, ""),
	}) {
		t.Fatal(told, err)
	}
	nothing := func(redoOp, []byte, []byte) error { return nil }
	for i := range good {
		if err := eachRedo(good[:i], source, nothing); errors.Is(err, crdt.ErrCorrupt) == whole[i] {
			t.Errorf("cut after %d bytes: %v", i, err)
		}
	}
	for _, bad := range [][]byte{
		{0, 1, rangeCells}, {9, 1, rangeCells}, {1, 0}, {1, 1, rangeMeta, 0}, {1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1}, {0x81, 1, 0, 0}, {0x83}, {0x80, 0, 1, rangeCells},
		{5, 1, rangeCells}, {5, 0}, {1, 1, rangeLog, 0}, {6, 1, rangeCells, 0, 0, 1},
		appendRefer(slices.Concat(parts[:3]...), nil, cell, nil, 18, 1), appendRefer(slices.Concat(parts[:3]...), nil, cell, nil, 19, 0), appendRefer(slices.Concat(parts[:3]...), nil, entry, nil, 0, 1),
	} {
		if err := eachRedo(bad, source, nothing); !errors.Is(err, crdt.ErrCorrupt) {
			t.Errorf("%x: %v", bad, err)
		}
	}
	if err := eachRedo(appendRedo(nil, redoEntry, nil, []byte{rangeLog, 9}, nil), source, nothing); !errors.Is(err, pebble.ErrNotFound) {
		t.Errorf("an entry that is not there: %v", err)
	}
}

// Groups that are discarded, keys too large for the cache, reads, drains, sweeps,
// kills and reopenings in any order: what is read is what a model has.
func TestWriteBackAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		fs := vfs.NewCrashableMem()
		o := testOptions(fs)
		o.RedoBytes = []int64{1, 2000, 20_000, 200_000, 1 << 30}[rnd.IntN(5)]
		o.CacheBytes = []int64{4 << 10, 1 << 20}[rnd.IntN(2)]
		o.KeyBytes, o.KeepBytes = o.CacheBytes, 0
		r := openReplica(t, o)
		model := map[string]map[string]string{}
		names := []string{"a", "b", "c", "d"}
		for step := range 400 {
			name := names[rnd.IntN(len(names))]
			k := crdt.Key{Name: name}
			change := func(w *crdt.Writer, m map[string]string) {
				for range rnd.IntN(40) {
					f, v := fmt.Sprint(rnd.IntN(100)), strings.Repeat("v", rnd.IntN(300))+fmt.Sprint(step)
					if rnd.IntN(3) == 0 {
						w.RemoveElem(k, crdt.KindField, f)
						delete(m, f)
					} else {
						w.SetElem(k, crdt.KindField, f, []byte(v))
						m[f] = v
					}
				}
				if rnd.IntN(20) == 0 {
					w.Remove(k)
					clear(m)
				}
			}
			if model[name] == nil {
				model[name] = map[string]string{}
			}
			switch rnd.IntN(16) {
			case 14, 15: // as at rest
				for more, n := true, rnd.IntN(8); more && n > 0; n-- {
					var err error
					if more, err = r.log.WriteBack(1 + rnd.IntN(9)); err != nil {
						t.Fatal(err)
					}
				}
			case 13: // whatever records do not need
				r.sync()
				if _, err := r.log.Trim(crdt.Vector{{Stream: r.log.Identity().Origin, Tag: math.MaxUint64}}); err != nil {
					t.Fatal(err)
				}
			case 0:
				r.view(func(w *crdt.Writer) { change(w, map[string]string{}) }) // and discard it
			case 1:
				r.drain()
			case 2:
				r.close()
				r = openReplica(t, o)
			case 3:
				r.verify()
			case 12:
				want := r.log.digests
				dead := o
				dead.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rnd})
				again := openReplica(t, dead)
				if again.log.digests != want {
					t.Errorf("seed %d step %d: not what it was after a kill", seed, step)
				}
				again.verify()
				again.close()
			case 4:
				r.view(func(w *crdt.Writer) {
					got := map[string]string{}
					w.EachElem(k, crdt.KindField, func(f string, v []byte) bool {
						got[f] = string(v)
						return true
					})
					if fmt.Sprint(got) != fmt.Sprint(model[name]) {
						t.Fatalf("seed %d step %d: %s is %v, want %v", seed, step, name, got, model[name])
					}
				})
			case 5:
				f := fmt.Sprint(rnd.IntN(100))
				r.view(func(w *crdt.Writer) {
					got, ok := w.Elem(k, crdt.KindField, f)
					want, has := model[name][f]
					if ok != has || string(got) != want {
						t.Fatalf("seed %d step %d: %s.%s is %q, want %q", seed, step, name, f, got, want)
					}
				})
			default:
				r.must(func(w *crdt.Writer) { change(w, model[name]) })
			}
			owed := 0
			for _, keys := range r.log.cache.owed.keys {
				for _, ks := range keys {
					if ks.hseq != 0 {
						owed += keyBytes
					}
					for _, cs := range ks.owed {
						owed += int(cs.size)
					}
				}
			}
			if n := r.log.cache.owed.bytes; n != owed {
				t.Fatalf("seed %d step %d: %d bytes are owed, %d are counted", seed, step, owed, n)
			}
		}
		r.verify()
		r.close()
	}
}

// between does something when a drain is about to write a step.
type between struct {
	sync.Locker
	do func()
}

func (b between) Lock() {
	b.do()
	b.Locker.Lock()
}

// The process is killed while a drain is under way: a cell that was new in what it
// writes and is gone since stays gone.
func TestKilledInTheMiddleOfADrain(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := testOptions(mem)
	o.RedoBytes, o.KeyBytes, o.CacheBytes = 1<<30, 1<<30, 1<<20
	r := openReplica(t, o)
	defer r.close()
	k := crdt.Key{Name: "h"}
	const n = 300
	r.must(func(w *crdt.Writer) {
		for i := range n {
			w.SetElem(k, crdt.KindField, fmt.Sprint(i), bytes.Repeat([]byte("v"), 200))
		}
	})
	l := r.log
	l.redo.running.Lock()
	l.commit.Lock()
	upto, size := l.redo.begin()
	l.redo.through = map[string]struct{}{}
	l.commit.Unlock()
	steps := 0
	err := l.drainTo(upto, size, between{&l.commit, func() {
		steps++
		at := steps
		r.must(func(w *crdt.Writer) {
			for i := at; i < n; i += 7 {
				w.RemoveElem(k, crdt.KindField, fmt.Sprint(i))
			}
		})
		killed(t, l, o, mem).close()
	}})
	l.redo.through = nil
	l.redo.running.Unlock()
	if err != nil || steps < 3 {
		t.Fatal(steps, err)
	}
	r.verify()
}

// A queue that is drained all the while: what was taken does not come back, also
// where it was taken between the moment a drain began and the one it wrote.
func TestQueueWhileDrained(t *testing.T) {
	for _, redo := range []int64{1, 20_000, 1 << 30} {
		t.Run(fmt.Sprint(redo), func(t *testing.T) { queueWhileDrained(t, redo) })
	}
}

func queueWhileDrained(t *testing.T, redo int64) {
	o := testOptions(vfs.NewMem())
	o.RedoBytes = redo
	r := openReplica(t, o)
	defer r.close()
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
				if err := r.log.drain(); err != nil {
					stopped <- err
					return
				}
			}
		}
	}()
	k := crdt.Key{Name: "q"}
	var model []string
	n := 0
	for step := range 700 {
		r.must(func(w *crdt.Writer) {
			for range 12 {
				n++
				model = append(model, fmt.Sprintf("%08d", n))
				w.SetElem(k, crdt.KindItem, model[len(model)-1], []byte("value"))
			}
		})
		r.must(func(w *crdt.Writer) {
			for len(model) > 3 {
				var first string
				w.EachElemFrom(k, crdt.KindItem, "", false, func(e string, _ []byte) bool {
					first = e
					return false
				})
				if first != model[0] {
					t.Fatalf("step %d: the first is %q, not %q", step, first, model[0])
				}
				w.RemoveElem(k, crdt.KindItem, first)
				model = model[1:]
			}
		})
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	r.verify()
}

// Cells that were removed do not stay in the cache: who iterates what is left of
// a large key would pass over all of them, each time.
func TestRemovedCellsDoNotStay(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.RedoBytes, o.KeyBytes = 1<<30, 1<<30
	r := openReplica(t, o)
	defer r.close()
	k := crdt.Key{Name: "set"}
	const n, left = 6000, 50
	r.must(func(w *crdt.Writer) {
		for i := range n {
			w.SetElem(k, crdt.KindMember, fmt.Sprintf("%06d", i), nil)
		}
	})
	most := 0
	for i := 0; i < n-left; i += 50 {
		r.must(func(w *crdt.Writer) {
			for j := i; j < min(i+50, n-left); j++ {
				w.RemoveElem(k, crdt.KindMember, fmt.Sprintf("%06d", j))
			}
		})
		if ks := r.log.cache.get(k); ks != nil && i > n/2+2*throughDead {
			most = max(most, ks.dead)
		}
	}
	if most > throughDead+100 {
		t.Errorf("%d removed cells are kept", most)
	}
	r.view(func(w *crdt.Writer) {
		got := 0
		w.EachElem(k, crdt.KindMember, func(string, []byte) bool { got++; return true })
		if got != left || w.Len(k, crdt.KindMember) != left {
			t.Errorf("%d members are left, of %d", got, w.Len(k, crdt.KindMember))
		}
	})
	r.verify()
}

// A drain that failed, as where the disk could not be read for a moment, leaves
// records. None of them may outlive a newer one of the same row.
func TestRecordsOfAFailedDrain(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var bad atomic.Bool
	o := testOptions(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if bad.Load() && op.Kind == errorfs.OpFileReadAt {
			return errors.New("unreadable")
		}
		return nil
	})))
	o.RedoBytes, o.CacheBytes = 1<<30, 1
	r := openReplica(t, o)
	defer r.close()
	l := r.log
	fill := func(n int) {
		for i := range 150 {
			r.set(fmt.Sprint("k", i), fmt.Sprintf("%0300d", n))
		}
	}
	fill(1)
	if err := l.db.Flush(); err != nil {
		t.Fatal(err)
	}
	l.opts.RedoBytes = 1
	r.set("other", "1") // a sweep, after which records are no longer needed, and there still
	l.opts.RedoBytes = 1 << 30
	if forgot, drained := l.redo.forgot, l.redo.drained.Load(); forgot >= drained {
		t.Fatalf("records up to %d are gone, up to %d not needed: this tests nothing", forgot, drained)
	}
	bad.Store(true)
	r.set("other", "2")
	if err := l.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if s, err := l.Snapshot(); err == nil {
		_ = s.Close()
		t.Fatal("the drain has not failed")
	}
	bad.Store(false)
	fill(2)
	l.opts.RedoBytes = 1
	for n := range 300 / forgetStep * 2 {
		r.set("other", fmt.Sprint(n))
	}
	again := killed(t, l, o, mem)
	defer again.close()
	if v, _ := again.get("k7"); v != fmt.Sprintf("%0300d", 2) {
		t.Errorf("k7 is %.10q after a kill", v)
	}
	r.verify()
}

// What a drain has written the cache need not write, and forgets soon, however
// often that is and however little is written in between.
func TestOwedIsBoundedWhileDrained(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.RedoBytes, o.KeyBytes = 20_000, 100_000
	r := openReplica(t, o)
	defer r.close()
	most := 0
	for n := range 1000 {
		r.set(fmt.Sprint("key", n), "value")
		if n%5 == 0 {
			if n%2 == 0 {
				r.drain()
			} else {
				r.view(func(w *crdt.Writer) { w.SetString(crdt.Key{Name: fmt.Sprint("key", n)}, []byte("discarded"), false) })
			}
		}
		owed := 0
		for _, keys := range r.log.cache.owed.keys {
			owed += len(keys)
		}
		most = max(most, owed)
	}
	if most > 200 {
		t.Errorf("%d keys are held as owing, of about 100 bytes of records each", most)
	}
	if rows := r.log.cache.owed.rows; rows < 0 || rows > 400 {
		t.Errorf("%d rows are said to be owed", rows)
	}
	r.verify()
}

// Keys of which the rows are behind are in memory: when they take much of what keys may, they
// are swept, however little the records are.
func TestOwedIsBoundedInMemory(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.RedoBytes, o.KeyBytes = 200_000, 40_000
	r := openReplica(t, o)
	defer r.close()
	most, redo := 0, int64(0)
	for n := range 2000 {
		r.set(fmt.Sprint("key", n), "value")
		most, redo = max(most, r.log.cache.owed.bytes), max(redo, r.log.redo.waiting())
	}
	if most > int(o.KeyBytes) || redo > o.RedoBytes*2/3 {
		t.Errorf("up to %d bytes of keys are owed, where %d may be kept; %d of records", most, o.KeyBytes, redo)
	}
	r.verify()
}

// Of large keys only what has changed is owed.
func TestLargeKeysOweWhatChanged(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.RedoBytes, o.KeyBytes = 1<<30, 100_000
	r := openReplica(t, o)
	defer r.close()
	add := func(set, member string) {
		t.Helper()
		r.must(func(w *crdt.Writer) { w.SetElem(crdt.Key{Name: set}, crdt.KindMember, member, nil) })
	}
	for i := range 250 {
		add("a", fmt.Sprint(i))
		add("b", fmt.Sprint(i))
		if _, err := r.log.WriteBack(1000); err != nil {
			t.Fatal(err)
		}
	}
	size := 0
	for _, name := range []string{"a", "b"} {
		size += r.log.cache.peek(crdt.Key{Name: name}).size
	}
	if size < 75_000 {
		t.Fatalf("the sets take %d bytes", size)
	}
	for i := range 20 {
		add("a", fmt.Sprint("new", i))
		add("b", fmt.Sprint("new", i))
		if r.log.redo.sweep.under {
			t.Fatalf("a sweep has begun after %d members, %d bytes are owed", 2*i+2, r.log.cache.owed.bytes)
		}
	}
	r.verify()
}

// A step of large rows is no larger than one of many small ones.
func TestStepsOfLargeValues(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.RedoBytes, o.KeyBytes = 1<<30, 1<<30
	r := openReplica(t, o)
	defer r.close()
	const n, size = 400, 40 << 10
	r.must(func(w *crdt.Writer) {
		for i := range n {
			w.SetString(crdt.Key{Name: fmt.Sprint(i)}, make([]byte, size), false)
		}
	})
	if owed := r.log.cache.owed.rows; owed != 2*n {
		t.Fatalf("%d rows are owed", owed)
	}
	for steps, more := 1, true; more; steps++ {
		was := r.log.cache.owed.rows
		var err error
		if more, err = r.log.WriteBack(10 * n); err != nil {
			t.Fatal(err)
		}
		if written := (was - r.log.cache.owed.rows) / 2; written*size > sweptBytes+2*size || written == 0 && more || steps > n {
			t.Fatalf("step %d wrote %d values of %d bytes", steps, written, size)
		}
	}
	r.verify()
}

// A cell that comes and goes between sweeps counts once among those that are gone.
func TestRemovedCellsCountOnce(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.RedoBytes = 1
	r := openReplica(t, o)
	defer r.close()
	k := crdt.Key{Name: "h"}
	r.must(func(w *crdt.Writer) { w.SetElem(k, crdt.KindField, "stays", []byte("v")) })
	for range 20 {
		r.must(func(w *crdt.Writer) { w.SetElem(k, crdt.KindField, "f", []byte("v")) })
		r.set("other", "v") // it is swept
		r.must(func(w *crdt.Writer) { w.RemoveElem(k, crdt.KindField, "f") })
		r.set("other", "v") // and so is that it is gone
	}
	if dead := r.log.cache.get(k).dead; dead != 1 {
		t.Errorf("%d cells are gone", dead)
	}
	r.verify()
}

// killed opens what a kill of the process at this moment leaves of a log, which must
// be all of it.
func killed(t *testing.T, l *Log, o Options, mem *vfs.MemFS) *replica {
	t.Helper()
	o.FS = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	again := openReplica(t, o)
	again.verify()
	if d, _, _ := again.log.Digests(); d != l.digests {
		t.Error("not what it was after a kill")
	}
	return again
}
