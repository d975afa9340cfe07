package oplog

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// referReplica has records that are not drained unless one asks for it, and keeps no entry that
// it need not.
func referReplica(t *testing.T) (*replica, Options, *vfs.MemFS) {
	mem := vfs.NewCrashableMem()
	o := testOptions(mem)
	o.RedoBytes, o.CacheBytes, o.KeyBytes, o.KeepBytes = 1<<30, 4<<20, 4<<20, 0
	return openReplica(t, o), o, mem
}

// trimAll trims what every member is said to have.
func (r *replica) trimAll(s crdt.Stream) {
	r.t.Helper()
	r.sync()
	if _, err := r.log.Trim(crdt.Vector{{Stream: s, Tag: math.MaxUint64}}); err != nil {
		r.t.Fatal(err)
	}
}

// TestValuesAreWrittenOnce: a record has no value that an entry of its commit has; what it
// refers to counts as waiting, but for a share.
func TestValuesAreWrittenOnce(t *testing.T) {
	r, _, _ := referReplica(t)
	defer func() { r.close() }()
	const n, size = 100, 1000
	value := []byte(strings.Repeat("v", size))
	write := func(fn func(w *crdt.Writer, k crdt.Key)) (record, waiting int64) {
		was, seq := r.log.redo.waiting(), r.log.redo.seq
		r.must(func(w *crdt.Writer) {
			for i := range n {
				fn(w, crdt.Key{Name: fmt.Sprint(i)})
			}
		})
		if r.log.redo.seq != seq+1 {
			t.Fatalf("%d records", r.log.redo.seq-seq)
		}
		b, err := r.log.get(redoKey(nil, seq+1))
		if err != nil {
			t.Fatal(err)
		}
		return int64(len(b)), r.log.redo.waiting() - was
	}
	for name, fn := range map[string]func(w *crdt.Writer, k crdt.Key){
		"strings":               func(w *crdt.Writer, k crdt.Key) { w.SetString(k, value, false) },
		"fields":                func(w *crdt.Writer, k crdt.Key) { w.SetElem(k, crdt.KindField, "f", value) },
		"what was written last": func(w *crdt.Writer, k crdt.Key) { w.SetString(k, value[1:], false); w.SetString(k, value, false) },
	} {
		if record, waiting := write(fn); record > n*150 || waiting < record+n*(size-1)/referredShare || waiting > record+n*size/referredShare {
			t.Errorf("%s: a record of %d bytes, %d waiting, for %d values of %d", name, record, waiting, n, size)
		}
	}
	short := value[:referLeast-1]
	if record, waiting := write(func(w *crdt.Writer, k crdt.Key) { w.SetString(k, short, false) }); record != waiting || record < n*int64(len(short)) {
		t.Errorf("short values: a record of %d bytes, %d waiting", record, waiting)
	}
	r.verify()
}

// TestEntriesOfRecordsStay: entries are not trimmed while records refer to them, nor lost to a jump of
// their stream, and a start after a kill finds the values; drained or swept, they go.
func TestEntriesOfRecordsStay(t *testing.T) {
	for name, after := range map[string]func(r *replica, s crdt.Stream){
		"trimmed": func(r *replica, s crdt.Stream) {
			r.trimAll(s)
			if f := r.log.Floor(s); f != 0 {
				t.Errorf("trimmed up to %v", f)
			}
		},
		"jumped": func(r *replica, s crdt.Stream) {
			g := r.log.Begin()
			if err := errors.Join(g.Jump(s, 5000, nil), g.Commit()); err != nil {
				t.Fatal(err)
			}
		},
		"trimmed when drained": func(r *replica, s crdt.Stream) {
			r.drain()
			r.trimAll(s)
			if f := r.log.Floor(s); f != 30 || len(r.log.redo.pins) > 0 {
				t.Errorf("trimmed up to %v only, %d streams are pinned", f, len(r.log.redo.pins))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, o, mem := referReplica(t)
			s := crdt.NewStream(9, 1, 1)
			value := func(tag int) []byte { return []byte(strings.Repeat(fmt.Sprint(tag), 100)) }
			prev := crdt.Tag(0)
			for tag := 10; tag <= 30; tag++ {
				r.apply(crdt.Entry{Stream: s, Prev: prev, Tag: crdt.Tag(tag), Deltas: []crdt.Delta{{
					Level: crdt.LevelCell, ID: crdt.CellID{Key: crdt.Key{Name: fmt.Sprint(tag)}, Kind: crdt.KindString},
					Put: &crdt.Put{Tag: crdt.Tag(tag), Value: value(tag)},
				}}})
				if prev = crdt.Tag(tag); tag == 10 {
					r.set("mine", string(value(99)))
				}
			}
			after(r, s)
			again := killed(t, r.log, o, mem)
			r.close()
			defer again.close()
			for tag := 10; tag <= 30; tag++ {
				if got, _ := again.get(fmt.Sprint(tag)); got != string(value(tag)) {
					t.Errorf("%d is %q", tag, got)
				}
			}
			if got, _ := again.get("mine"); got != string(value(99)) {
				t.Errorf("mine is %q", got)
			}
		})
	}
}

// TestLogGoesWithSweeps: a log that is written to all the time keeps no more entries than
// records wait for, and few pins.
func TestLogGoesWithSweeps(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := testOptions(mem)
	o.RedoBytes, o.CacheBytes, o.KeyBytes, o.KeepBytes = 100_000, 4<<20, 4<<20, 0
	r := openReplica(t, o)
	defer func() { r.close() }()
	s := r.log.Identity().Origin
	most, pinned := int64(0), 0
	for i := range 2000 {
		r.set(fmt.Sprint(i%100), strings.Repeat("v", 1000))
		if i%10 == 0 {
			r.trimAll(s)
		}
		if i > 500 {
			most = max(most, r.log.Metrics().LogBytes)
		}
		if p := r.log.redo.pins[s]; p != nil {
			pinned = max(pinned, len(p.list))
		}
		if i == 1500 {
			killed(t, r.log, o, mem).close()
		}
	}
	if most > 4*o.RedoBytes || most < o.RedoBytes/4 || pinned > 10 {
		t.Errorf("%d bytes of the log were kept where %d of records may wait; %d pins", most, o.RedoBytes, pinned)
	}
	r.verify()
}

// TestRecordWithoutItsEntry: a record whose entry is gone is corrupt, not a value that is shorter.
func TestRecordWithoutItsEntry(t *testing.T) {
	r, _, _ := referReplica(t)
	defer r.close()
	r.set("k", strings.Repeat("v", 100))
	key := appendLogKey(nil, r.log.Identity().Origin, r.tag)
	entry, err := r.log.get(key)
	if err != nil || entry == nil {
		t.Fatal(entry, err)
	}
	rows := func() error {
		return eachRow(r.log.db, 0, r.log.redo.seq, nil, func(_, _ []byte) error { return nil })
	}
	if err := rows(); err != nil {
		t.Fatal(err)
	}
	if err := r.log.db.Delete(key, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := rows(); !errors.Is(err, crdt.ErrCorrupt) {
		t.Errorf("without the entry: %v", err)
	}
	if err := r.log.db.Set(key, entry, pebble.Sync); err != nil {
		t.Fatal(err)
	}
}
