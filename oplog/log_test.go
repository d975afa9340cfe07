package oplog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

func TestReadReturnsDurableEntriesInBoundedPieces(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Fsync = FsyncAlways
	r := openReplica(t, o)
	defer r.close()
	for i := range 40 {
		r.set("k", fmt.Sprint(i, strings.Repeat("x", 100)))
	}
	s := r.log.Identity().Origin
	var at crdt.Tag
	n := 0
	for more := true; more; {
		es, m, err := r.log.Read(s, at, 500)
		if err != nil || len(es) == 0 || len(es) > 5 {
			t.Fatalf("%d entries, %v", len(es), err)
		}
		for _, e := range es {
			if e.Prev != at || e.Stream != s {
				t.Fatalf("entry (%v, %v] after %v", e.Prev, e.Tag, at)
			}
			at = e.Tag
			n++
		}
		more = m
	}
	if n != 40 || at != r.log.Vector().Get(s) {
		t.Errorf("%d entries up to %v", n, at)
	}
	if es, more, err := r.log.Read(s, at, 500); len(es) != 0 || more || err != nil {
		t.Errorf("after the last: %d entries, %v, %v", len(es), more, err)
	}
}

func TestUnsyncedEntriesAreNotShipped(t *testing.T) {
	fs := &slowSync{FS: vfs.NewMem(), gate: make(chan struct{})}
	o := testOptions(fs)
	r := openReplica(t, o)
	r.set("a", "0") // and reserves tags, which waits for the disk
	r.sync()
	s, first := r.log.Identity().Origin, r.tag
	fs.on.Store(true)
	r.set("a", "1")
	if es, _, err := r.log.Read(s, first, 1000); len(es) != 0 || err != nil {
		t.Errorf("%d entries before the sync, %v", len(es), err)
	}
	if got := r.log.Durable().Get(s); got != first {
		t.Errorf("durable %v before the sync", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.log.WaitDurable(ctx, r.log.Vector()); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	close(fs.gate)
	if err := r.log.WaitDurable(t.Context(), r.log.Vector()); err != nil {
		t.Error(err)
	}
	if es, _, err := r.log.Read(s, first, 1000); len(es) != 1 || err != nil {
		t.Errorf("%d entries after the sync, %v", len(es), err)
	}
	r.close()
}

// slowSync holds back syncs of the write-ahead log until its gate opens.
type slowSync struct {
	vfs.FS
	on   atomic.Bool
	gate chan struct{}
}

func (s *slowSync) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return &slowFile{File: f, fs: s}, nil
}

type slowFile struct {
	vfs.File
	fs *slowSync
}

func (f *slowFile) SyncData() error {
	if f.fs.on.Load() {
		<-f.fs.gate
	}
	return f.File.SyncData()
}

// No table holds entries or redo records and anything else, whether flushed or compacted.
func TestTablesApart(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	kind := func(k []byte) byte {
		if k[0] == rangeLog || k[0] == rangeRedo {
			return k[0]
		}
		return 0
	}
	check := func(when string) {
		t.Helper()
		levels, err := r.log.db.SSTables()
		if err != nil {
			t.Fatal(err)
		}
		seen := map[byte]bool{}
		for _, tables := range levels {
			for _, table := range tables {
				first, last := table.Smallest.UserKey, table.Largest.UserKey
				if seen[kind(first)] = true; kind(first) != kind(last) {
					t.Errorf("%s: a table reaches from %x to %x", when, first, last)
				}
			}
		}
		if !seen[rangeLog] || !seen[rangeRedo] || !seen[0] {
			t.Errorf("%s: tables of %v only: this tests nothing", when, seen)
		}
	}
	for i := range 3 {
		for j := range 50 {
			r.set(fmt.Sprint("key", j), fmt.Sprint("value", i))
		}
		if err := r.log.db.Flush(); err != nil {
			t.Fatal(err)
		}
		check("flushed")
	}
	if err := r.log.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	check("compacted")
}

// A long log is dropped in stretches that need not be read, and to the same effect.
func TestTrimStretches(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Fsync = FsyncAlways
	o.KeepBytes = 1 << 20
	r := openReplica(t, o)
	s := r.log.Identity().Origin
	var tags []crdt.Tag
	add := func(n int) {
		for range n {
			r.set("k", strings.Repeat("x", 10_000))
			tags = append(tags, r.tag)
		}
	}
	gone := func() int { i, _ := slices.BinarySearch(tags, r.log.Floor(s)+1); return i }
	trim := func(acked crdt.Tag, least, most int64) {
		t.Helper()
		was, count := gone(), r.log.Metrics().Trimmed
		if more, err := r.log.Trim(crdt.Vector{{Stream: s, Tag: acked}}); more || err != nil {
			t.Fatal(more, err)
		}
		if m := r.log.Metrics(); m.LogBytes < least || m.LogBytes > most || int(m.Trimmed-count) != gone()-was {
			t.Errorf("%d bytes are kept, not %d to %d; %d entries went, %d were counted", m.LogBytes, least, most, gone()-was, m.Trimmed-count)
		}
		es, _, err := r.log.Read(s, r.log.Floor(s), 1<<20)
		if err != nil || len(es) == 0 || es[0].Prev != r.log.Floor(s) {
			t.Errorf("reading from the floor: %d entries, %v", len(es), err)
		}
	}
	const keep, slack = 1 << 20, stretchBytes + 20_000
	add(400)
	trim(tags[49], 350*10_000, 351*10_200) // not beyond what all have
	if got := gone(); got != 50 {
		t.Errorf("%d entries went, all members have 50", got)
	}
	trim(tags[399], keep, keep+slack)
	add(10)
	trim(tags[399], keep, keep+slack+100_000)
	r.verify()
	r.sync()
	r.close()
	r = openReplica(t, o) // what was appended before is of no stretch
	defer r.close()
	add(100)
	trim(tags[len(tags)-1], keep-10_200, keep+slack)
	add(200)
	trim(tags[len(tags)-1], keep-10_200, keep+slack)
	add(200)
	trim(tags[len(tags)-1], keep, keep+slack)
	r.verify()
}

func TestTrim(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Fsync = FsyncAlways
	o.RetentionBytes = 4000
	o.RetentionTime = time.Hour
	now := testStart
	o.Now = func() time.Time { return now }
	var forced []crdt.Tag
	o.Events.Trimmed = func(_ crdt.Stream, floor crdt.Tag) { forced = append(forced, floor) }
	r := openReplica(t, o)
	s := r.log.Identity().Origin
	var tags []crdt.Tag
	add := func(n int) {
		for range n {
			r.set("k", strings.Repeat("x", 100))
			tags = append(tags, r.tag)
		}
	}
	trim := func(acked crdt.Tag) {
		t.Helper()
		r.drain() // records refer to entries
		if more, err := r.log.Trim(crdt.Vector{{Stream: s, Tag: acked}}); more || err != nil {
			t.Fatal(more, err)
		}
	}
	floor := func(want crdt.Tag) {
		t.Helper()
		if got := r.log.Floor(s); got != want {
			t.Errorf("floor %v, want %v", got, want)
		}
		es, _, err := r.log.Read(s, want, 1<<20)
		if err != nil || len(es) == 0 || es[0].Prev != want {
			t.Errorf("reading from the floor: %d entries, %v", len(es), err)
		}
		if _, _, err := r.log.Read(s, want-1, 1000); want > 0 && !errors.Is(err, ErrTrimmed) {
			t.Errorf("reading before the floor: %v", err)
		}
	}
	add(10)
	trim(0)
	floor(0)
	trim(tags[3])
	floor(tags[3])
	trim(tags[2]) // a member that has joined
	floor(tags[3])
	if len(forced) > 0 {
		t.Errorf("forced at %v", forced)
	}
	add(40)
	trim(tags[3])
	if m := r.log.Metrics(); m.LogBytes > 4000 || m.LogBytes < 3500 {
		t.Errorf("%d bytes are kept", m.LogBytes)
	}
	if len(forced) != 1 || forced[0] != r.log.Floor(s) {
		t.Errorf("forced at %v, the floor is %v", forced, r.log.Floor(s))
	}
	r.verify()
	now = now.Add(2 * time.Hour)
	r.now, r.tag = now, crdt.TagAt(now.UnixMilli(), 7)
	before := tags[len(tags)-1]
	add(1)
	trim(0)
	floor(before)
	r.verify()
	r.sync()
	r.close()

	r = openReplica(t, o)
	defer r.close()
	floor(before)
	r.verify()
}

func TestJumpLeavesAFloor(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Fsync = FsyncAlways
	r := openReplica(t, o)
	s := crdt.NewStream(9, 1, 1)
	r.apply(crdt.Entry{Stream: s, Tag: 5})
	known := crdt.Vector{{Stream: 77, Tag: 1}}
	g := r.log.Begin()
	if err := errors.Join(g.Jump(s, 50, known), g.Jump(s, 40, nil), g.Commit()); err != nil {
		t.Fatal(err)
	}
	r.apply(crdt.Entry{Stream: s, Prev: 50, Tag: 60, Ctx: known})
	for range 2 {
		if r.log.Vector().Get(s) != 60 || r.log.Floor(s) != 50 || !r.log.Known(s).Equal(known) {
			t.Errorf("vector %v, floor %v, known %v", r.log.Vector(), r.log.Floor(s), r.log.Known(s))
		}
		if _, _, err := r.log.Read(s, 5, 1000); !errors.Is(err, ErrTrimmed) {
			t.Errorf("reading over the gap: %v", err)
		}
		if es, _, err := r.log.Read(s, 50, 1000); len(es) != 1 || err != nil {
			t.Errorf("reading after it: %d, %v", len(es), err)
		}
		r.verify()
		r.close()
		r = openReplica(t, o)
	}
	r.close()
}

func TestTagsAreReservedAhead(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := testOptions(mem)
	o.Fsync = FsyncNo
	r := openReplica(t, o)
	base := crdt.TagAt(testStart.UnixMilli(), 7)
	for ms := range int64(20_000) {
		tag := crdt.TagAt(testStart.UnixMilli()+ms, 7)
		if err := r.log.Reserve(tag); err != nil {
			t.Fatal(err)
		}
		if ms%1000 == 999 {
			lost := o
			lost.FS = mem.CrashClone(vfs.CrashCloneCfg{})
			again := openReplica(t, lost)
			if floor := again.log.TagFloor(); floor < tag || floor.Millis()-tag.Millis() > reserveAhead {
				t.Errorf("after tag %v the next run starts after %v", tag, floor)
			}
			again.close()
		}
	}
	if err := r.log.Reserve(base); err != nil {
		t.Fatal(err)
	}
	r.close()
}

func TestIncarnations(t *testing.T) {
	dir := t.TempDir()
	now := testStart
	o := Options{Dir: filepath.Join(dir, "a", "b"), MinFree: -1, Now: func() time.Time { return now }}
	open := func(o Options) (Identity, string) {
		t.Helper()
		var why string
		o.Events.Incarnation = func(_ crdt.Stream, reason string) { why = reason }
		r := openReplica(t, o)
		defer r.close()
		id := r.log.Identity()
		r.tag = max(r.tag, crdt.TagAt(now.UnixMilli(), id.Node))
		r.set("a", fmt.Sprint(id))
		return id, why
	}
	first, why := open(o)
	if !first.Fresh || why == "" || first.Node == 0 || first.Dir == 0 {
		t.Fatalf("first %+v, %q", first, why)
	}
	same, why := open(o)
	if first.Fresh = false; same != first || why != "" {
		t.Errorf("opened again: %+v, was %+v, %q", same, first, why)
	}
	if err := os.CopyFS(filepath.Join(dir, "copy"), os.DirFS(filepath.Join(dir, "a", "b"))); err != nil {
		t.Fatal(err)
	}
	c := o
	c.Dir = filepath.Join(dir, "copy")
	copied, why := open(c)
	if copied.Node != first.Node || copied.Incarnation <= first.Incarnation || copied.Dir == first.Dir || why == "" || copied.Fresh {
		t.Errorf("copy: %+v of %+v, %q", copied, first, why)
	}
	if again, why := open(c); again != copied || why != "" {
		t.Errorf("copy opened again: %+v, was %+v, %q", again, copied, why)
	}
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	o.Dir = filepath.Join(dir, "moved", "b")
	if moved, why := open(o); moved != first || why != "" {
		t.Errorf("moved: %+v, was %+v, %q", moved, first, why)
	}
	now = now.Add(-time.Hour) // and the clock steps back
	o.Node = first.Node%crdt.MaxNode + 1
	other, why := open(o)
	if other.Node != o.Node || other.Origin.Node() != o.Node || !strings.Contains(why, "node id changed") {
		t.Errorf("other node: %+v, %q", other, why)
	}
	o.Node = first.Node
	if back, _ := open(o); back.Incarnation <= first.Incarnation {
		t.Errorf("back again: %+v is not after %+v", back, first)
	}
	r := openReplica(t, o)
	was := r.log.Identity()
	if err := r.log.NewIncarnation("a peer knows more"); err != nil {
		t.Fatal(err)
	}
	is := r.log.Identity()
	r.close()
	if is.Incarnation <= was.Incarnation || is.Dir != was.Dir {
		t.Errorf("new incarnation %+v after %+v", is, was)
	}
	if kept, why := open(o); kept.Incarnation != is.Incarnation || why != "" {
		t.Errorf("new incarnation was not kept: %+v, %+v", kept, is)
	}
}

func TestLaterFormatIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	r := openReplica(t, testOptions(fs))
	if err := r.log.db.Set(metaKey(metaFormat), []byte{format + 1}, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	r.close()
	if _, err := Open(testOptions(fs)); !errors.Is(err, ErrFormat) {
		t.Errorf("open: %v", err)
	}
}

// testdata/format1.tar.gz is the directory of a node of the last version that
// wrote format 1, stopped in order; format3.tar.gz to format5.tar.gz those of such that wrote
// formats 3 to 5, killed, with redo records.
func TestEarlierFormatIsTakenOver(t *testing.T) {
	for file, records := range map[string]bool{"format1.tar.gz": false, "format3.tar.gz": true, "format4.tar.gz": true, "format5.tar.gz": true} {
		t.Run(file, func(t *testing.T) { takeOver(t, filepath.Join("testdata", file), records) })
	}
}

// takeOver opens the directory in an archive; records says that there are redo
// records in it.
func takeOver(t *testing.T, archive string, records bool) {
	dir := t.TempDir()
	if out, err := exec.Command("tar", "xzf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v, %s", err, out)
	}
	o := Options{Dir: filepath.Join(dir, "oplog")}
	for i := range 2 { // in the earlier format, then in this one
		report, err := Verify(t.Context(), o.Dir, nil)
		if err != nil || len(report.Faults) > 0 || report.Keys != 9 {
			t.Fatalf("%+v, %v", report, err)
		}
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		r := newReplica(t, l)
		if had := l.redo.seq > 0; i == 0 && had != records {
			t.Errorf("redo records: %v", had)
		}
		if b, err := l.get(metaKey(metaFormat)); err != nil || !bytes.Equal(b, []byte{format}) {
			t.Errorf("format %x, %v", b, err)
		}
		if v, _ := r.get("string"); v != "value" {
			t.Errorf("string is %q", v)
		}
		if v, _ := r.get("counter"); v != "42" {
			t.Errorf("counter is %q", v)
		}
		r.view(func(w *crdt.Writer) {
			for kind, name := range map[crdt.Kind]string{crdt.KindField: "hash", crdt.KindMember: "set", crdt.KindScored: "zset", crdt.KindItem: "list", crdt.KindEntry: "stream"} {
				if w.Len(crdt.Key{Name: name}, kind) == 0 {
					t.Errorf("%s is empty", name)
				}
			}
		})
		r.verify()
		r.close()
	}
}

func TestSnapshotIsOneMoment(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	for i := range 30 {
		r.must(func(w *crdt.Writer) {
			for j := range 10 {
				w.SetElem(crdt.Key{DB: uint8(i % 3), Name: fmt.Sprint("h", i)}, crdt.KindField, fmt.Sprint(j), []byte(strings.Repeat("v", 50)))
			}
		})
	}
	s, err := r.log.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	vector := r.log.Vector()
	r.must(func(w *crdt.Writer) { w.Flush(0); w.Flush(1) })
	if !s.Vector.Equal(vector) || s.Digest == 0 {
		t.Errorf("vector %v, was %v, digest %x", s.Vector, vector, s.Digest)
	}
	var sum uint64
	keys, cells, parts := 0, 0, 0
	var last []byte
	var cursor []byte
	walk := func(from, to []byte, limit int) error {
		n := 0
		return s.Each(from, to, 200, func(k *KeyState) error {
			pos := Pos(k.Key)
			parts++
			if k.First {
				if bytes.Compare(last, pos) >= 0 {
					t.Errorf("%v is not after %x", k.Key, last)
				}
				if n++; n > limit {
					cursor, parts = pos, parts-1
					return io.EOF
				}
				last = pos
				keys++
				sum += k.Header.Digest
			}
			for _, c := range k.Cells {
				if _, err := crdt.DecodeCell(c.Data); err != nil {
					t.Error(err)
				}
				cells++
			}
			return nil
		})
	}
	// In three goes, each from where the one before stopped.
	for range 2 {
		if err := walk(cursor, nil, 11); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if err := walk(cursor, nil, 100); err != nil {
		t.Fatal(err)
	}
	if keys != 30 || cells != 300 || sum != s.Digest || parts != 120 {
		t.Errorf("%d keys, %d cells, %d parts, digest %x of %x", keys, cells, parts, sum, s.Digest)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	k := crdt.Key{Name: "a"}
	id := crdt.CellID{Key: k, Kind: crdt.KindString}
	h := crdt.Key{Name: "h"}
	// carrying has the row of k's header carry other cells than it does.
	carrying := func(which func(*replica, ownCells) (carried, error)) func(*replica) error {
		return func(r *replica) error {
			row := headerKey(nil, k)
			b, _ := get(r.log.db, row)
			h, cells, err := decodeHeaderRow(b)
			if err != nil {
				return err
			}
			now, err := which(r, cells)
			return errors.Join(err, r.log.db.Set(row, appendHeaderRow(nil, h, now), nil))
		}
	}
	large := crdt.CellID{Key: crdt.Key{Name: "large"}, Kind: crdt.KindString} // in a row of its own
	for name, damage := range map[string]func(r *replica) error{
		"nothing":      func(*replica) error { return nil },
		"cell lost":    func(r *replica) error { return r.log.db.Delete(appendCellKey(nil, rangeCells, large), nil) },
		"cell garbled": func(r *replica) error { return r.log.db.Set(appendCellKey(nil, rangeCells, large), []byte{7}, nil) },
		"cell in two rows": func(r *replica) error {
			b, err := storedCell(r.log.db, id)
			return errors.Join(err, r.log.db.Set(appendCellKey(nil, rangeCells, id), b, nil))
		},
		"cell in the wrong row": carrying(func(r *replica, cells ownCells) (carried, error) {
			return carried{nil, cells[1]}, r.log.db.Set(appendCellKey(nil, rangeCells, id), cells[0].AppendBinary(nil), nil)
		}),
		"carried cell lost": carrying(func(_ *replica, cells ownCells) (carried, error) { return carried{cells[0]}, nil }),
		"header garbled":    func(r *replica) error { return r.log.db.Set(headerKey(nil, k), []byte{rowCarries, 9, 9}, nil) },
		"header lost":       func(r *replica) error { return r.log.db.Delete(headerKey(nil, k), nil) },
		"digest wrong":      func(r *replica) error { return r.log.db.Set(digestKey(nil, Bucket(k)), make([]byte, 8), nil) },
		"expiry missing": func(r *replica) error {
			return r.log.db.DeleteRange([]byte{rangeExpiries}, []byte{rangeExpiries + 1}, nil)
		},
		"expiry extra": func(r *replica) error {
			return r.log.db.Set(appendExpiryKey(nil, 5, crdt.CellID{Key: k}), nil, nil)
		},
		"field's expiry extra": func(r *replica) error {
			return r.log.db.Set(appendExpiryKey(nil, 5, crdt.FieldExpiry(h, "f")), nil, nil)
		},
		"field's expiry missing": func(r *replica) error {
			return r.log.db.Delete(appendExpiryKey(nil, r.now.UnixMilli()+1000, crdt.FieldExpiry(h, "g")), nil)
		},
		"hidden field not told": func(r *replica) error { return r.log.db.Delete(appendSweptKey(nil, crdt.FieldExpiry(h, "f")), nil) },
		"field hidden": func(r *replica) error {
			return r.log.db.Set(appendSweptKey(nil, crdt.FieldExpiry(h, "g")), nil, nil)
		},
		"entry lost": func(r *replica) error {
			e := r.entries(nil)[0]
			return r.log.db.Delete(appendLogKey(nil, e.Stream, e.Tag), nil)
		},
		"vector ahead": func(r *replica) error {
			s := r.log.Identity().Origin
			row := r.log.streams[s].row
			row.tag++
			return r.log.db.Set(appendStreamKey(nil, rangeStreams, s), row.encode(nil), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			o := testOptions(fs)
			o.Fsync = FsyncAlways
			r := openReplica(t, o)
			r.must(func(w *crdt.Writer) {
				w.SetString(k, []byte("v"), false)
				w.SetExpiry(k, r.now.UnixMilli()+1000)
				w.SetString(h, []byte("hidden behind the hash"), false)
			})
			r.must(func(w *crdt.Writer) {
				w.Remove(h)
				for _, f := range []string{"f", "g"} {
					w.SetField(h, f, []byte("v"), false)
				}
				w.SetFieldExpiry(h, "f", r.now.UnixMilli()+1)
				w.SetFieldExpiry(h, "g", r.now.UnixMilli()+1000)
			})
			sweepFields(t, r, r.now.UnixMilli()+1)
			r.set("b", "w")
			r.set("large", strings.Repeat("v", 2*carryMost))
			r.drain()
			if err := damage(r); err != nil {
				t.Fatal(err)
			}
			r.close()
			report, err := Verify(t.Context(), o.Dir, fs)
			if err != nil {
				t.Fatal(err)
			}
			if (len(report.Faults) > 0) != (name != "nothing") {
				t.Errorf("faults: %q", report.Faults)
			}
			var out strings.Builder
			if _, err := report.WriteTo(&out); err != nil || !strings.HasPrefix(out.String(), "keys ") {
				t.Errorf("report %q, %v", out.String(), err)
			}
		})
	}
}

// A changed bit in any table is noticed, or changes nothing.
func TestFlippedBitsAreNoticed(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.Fsync = FsyncAlways
	w := &workload{r: openReplica(t, o), bytes: 500}
	for range 20 {
		if err := w.step(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.r.log.db.Flush(); err != nil {
		t.Fatal(err)
	}
	w.r.close()
	sound, err := Verify(t.Context(), o.Dir, mem)
	if err != nil || len(sound.Faults) > 0 {
		t.Fatal(err, sound.Faults)
	}
	store := mem.PathJoin(o.Dir, "store")
	names, err := mem.List(store)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(8, 8))
	noticed := 0
	for _, n := range names {
		if !strings.HasSuffix(n, ".sst") {
			continue
		}
		name := mem.PathJoin(store, n)
		info, err := mem.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			at := rng.Int64N(info.Size())
			flip(t, mem, name, at)
			report, err := Verify(t.Context(), o.Dir, mem)
			switch {
			case err != nil || len(report.Faults) > 0:
				noticed++
			case report.Digest != sound.Digest || report.Cells != sound.Cells || report.Entries != sound.Entries:
				t.Errorf("byte %d of %s was changed, nobody noticed", at, n)
			}
			flip(t, mem, name, at)
		}
	}
	if noticed < 20 {
		t.Errorf("only %d were noticed", noticed)
	}
}

func flip(t *testing.T, fs vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 4
	_, werr := f.WriteAt(b[:], at)
	if err := errors.Join(err, werr, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestDump(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	r := openReplica(t, o)
	r.set("a", "1\n")
	r.must(func(w *crdt.Writer) { w.AddElem(crdt.Key{DB: 2, Name: "n"}, crdt.KindString, "", crdt.Int(5)) })
	if err := r.log.SetMeta("members", []byte("x")); err != nil {
		t.Fatal(err)
	}
	r.close()
	var out strings.Builder
	if err := Dump(t.Context(), &out, o.Dir, fs); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"identity node 7", `meta "members" "x"`, "\nstream 7.", `db0 "a" kind1 - ="1\n"`, `db2 "n" kind1 +5`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &out)
		}
	}
}

// A real process is killed with SIGKILL while it commits, under each policy.
// Every group it has reported as committed is there.
func TestKill9LosesNothingAcknowledged(t *testing.T) {
	if dir := os.Getenv("OPLOG_KILL_DIR"); dir != "" {
		commitUntilKilled(t, dir, os.Getenv("OPLOG_KILL_POLICY"))
		return
	}
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			dir := t.TempDir()
			var tags []crdt.Tag
			for round := range 4 {
				cmd := exec.Command(os.Args[0], "-test.run=^TestKill9LosesNothingAcknowledged$")
				cmd.Env = append(os.Environ(), "OPLOG_KILL_DIR="+dir, "OPLOG_KILL_POLICY="+p.String())
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				acked, want := 0, 0
				for {
					var n int
					var tag crdt.Tag
					if _, err := fmt.Fscanf(out, "acked %d %d\n", &n, &tag); err != nil {
						break // killed, and read to the end
					}
					if want == 0 {
						want = n + 20 + 37*round
						if len(tags) > 0 && tag <= tags[len(tags)-1] {
							t.Errorf("tag %v after %v", tag, tags[len(tags)-1])
						}
					}
					tags = append(tags, tag)
					if acked = n; n == want {
						if err := cmd.Process.Kill(); err != nil {
							t.Fatal(err)
						}
					}
				}
				err = cmd.Wait()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("the process ended by itself: %v", err)
				}
				r := openReplica(t, Options{Dir: dir, MinFree: -1})
				r.verify()
				v, _ := r.get("n")
				var m int
				if _, err := fmt.Sscan(v, &m); err != nil || m < acked || m > acked+1 {
					t.Errorf("%q groups are there, %d were acknowledged; %v", v, acked, err)
				}
				if r.log.TagFloor() < tags[len(tags)-1] {
					t.Errorf("tags start again after %v, %v was used", r.log.TagFloor(), tags[len(tags)-1])
				}
				r.close()
			}
		})
	}
}

// commitUntilKilled is the child's part: it commits, and says so.
func commitUntilKilled(t *testing.T, dir, policy string) {
	p, err := ParsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(Options{Dir: dir, MinFree: -1, Node: 7, Fsync: p})
	if err != nil {
		t.Fatal(err)
	}
	r := newReplica(t, l)
	r.tag = max(r.tag, crdt.TagAt(time.Now().UnixMilli(), 7))
	for {
		var n string
		r.must(func(w *crdt.Writer) {
			w.AddElem(crdt.Key{Name: "n"}, crdt.KindString, "", crdt.Int(1))
			b, _ := w.Elem(crdt.Key{Name: "n"}, crdt.KindString, "")
			n = string(b)
		})
		if _, err := fmt.Printf("acked %s %d\n", n, r.tag); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHasKnowsWhatWasApplied(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Fsync = FsyncAlways
	r := openReplica(t, o)
	defer r.close()
	s := crdt.NewStream(9, 1, 1)
	at := crdt.TagAt(testStart.UnixMilli(), 0) // tags of long ago would be trimmed by age
	for _, e := range []crdt.Entry{{Stream: s, Tag: at + 5}, {Stream: s, Prev: at + 5, Tag: at + 9}, {Stream: s, Prev: at + 9, Tag: at + 12}} {
		r.apply(e)
	}
	if _, err := r.log.Trim(crdt.Vector{{Stream: s, Tag: at + 5}}); err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[crdt.Tag]bool{0: true, at + 3: true, at + 5: true, at + 8: false, at + 9: true, at + 10: false, at + 12: true, at + 13: false} {
		if got, err := r.log.Has(s, tag); got != want || err != nil {
			t.Errorf("tag %d: %v, %v", tag, got, err)
		}
	}
	if got, err := r.log.Has(s+1, 1); got || err != nil {
		t.Errorf("unknown stream: %v, %v", got, err)
	}
}
