package oplog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// replica drives a log as the executor does: a keyspace over groups.
type replica struct {
	t   testing.TB
	log *Log
	tag crdt.Tag
	now time.Time
}

var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testOptions(fs vfs.FS) Options {
	return Options{Dir: "/data/node", FS: fs, Node: 7, Now: func() time.Time { return testStart },
		Rand: rand.New(rand.NewPCG(1, 2)), MemTableBytes: 256 << 10, CacheBytes: 1 << 20, KeyBytes: 1 << 20, RedoBytes: 4 << 10}
}

func openReplica(t testing.TB, o Options) *replica {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return newReplica(t, l)
}

func newReplica(t testing.TB, l *Log) *replica {
	return &replica{t: t, log: l, tag: max(l.TagFloor(), crdt.TagAt(testStart.UnixMilli(), 7)), now: testStart}
}

// group runs fn in a commit group of local writes.
func (r *replica) group(fn func(w *crdt.Writer)) error {
	return r.groupOn(func(_ *Group, w *crdt.Writer) { fn(w) })
}

func (r *replica) groupOn(fn func(g *Group, w *crdt.Writer)) error {
	r.tag += 1 << 12
	if err := r.log.Reserve(r.tag); err != nil {
		return err
	}
	g := r.log.Begin()
	ks := &crdt.Keyspace{Store: g, Have: g.Vector()}
	w := crdt.NewWriter(ks, r.log.Identity().Origin, r.tag, r.now.UnixMilli())
	fn(g, w)
	for _, e := range w.Entries() {
		if err := g.Append(&e); err != nil {
			g.Discard()
			return err
		}
	}
	return g.Commit()
}

func (r *replica) must(fn func(w *crdt.Writer)) {
	r.t.Helper()
	if err := r.group(fn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replica) set(key, value string) {
	r.t.Helper()
	r.must(func(w *crdt.Writer) { w.SetString(crdt.Key{Name: key}, []byte(value), false) })
}

// view runs fn on what is stored.
func (r *replica) view(fn func(w *crdt.Writer)) {
	g := r.log.Begin()
	defer g.Discard()
	fn(crdt.NewWriter(&crdt.Keyspace{Store: g, Have: g.Vector()}, r.log.Identity().Origin, r.tag, r.now.UnixMilli()))
	if g.Err() != nil {
		r.t.Fatal(g.Err())
	}
}

func (r *replica) get(key string) (v string, ok bool) {
	r.view(func(w *crdt.Writer) {
		var b []byte
		b, ok = w.Elem(crdt.Key{Name: key}, crdt.KindString, "")
		v = string(b)
	})
	return v, ok
}

// apply applies an entry of another replica.
func (r *replica) apply(e crdt.Entry) {
	r.t.Helper()
	g := r.log.Begin()
	ks := &crdt.Keyspace{Store: g, Have: g.Vector()}
	ks.Apply(&e)
	if err := errors.Join(g.Append(&e), g.Commit()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replica) close() {
	r.t.Helper()
	if err := r.log.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// entries reads everything that may be shipped.
func (r *replica) entries(after crdt.Vector) (out []crdt.Entry) {
	r.t.Helper()
	for _, p := range r.log.Durable() {
		at := after.Get(p.Stream)
		for more := true; more; {
			var es []crdt.Entry
			var err error
			if es, more, err = r.log.Read(p.Stream, at, 4096); err != nil {
				r.t.Fatal(err)
			}
			for _, e := range es {
				out, at = append(out, e), e.Tag
			}
		}
	}
	return out
}

func (r *replica) sync() {
	r.t.Helper()
	if err := r.log.Sync(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replica) drain() {
	r.t.Helper()
	if err := r.log.drain(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replica) verify() {
	r.t.Helper()
	check := func(when string) {
		report, err := verify(r.t.Context(), r.log.db)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, f := range report.Faults {
			r.t.Errorf("%s: %s", when, f)
		}
	}
	check("with redo records")
	s, err := r.log.Snapshot()
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	check("drained")
	if err := s.Each(nil, nil, 1<<20, func(k *KeyState) error {
		if r.log.filter.lacks(k.Key) {
			r.t.Errorf("the filter lacks %v", k.Key)
		}
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
}

func TestReopenKeepsEverything(t *testing.T) {
	fs := vfs.NewMem()
	o := testOptions(fs)
	r := openReplica(t, o)
	if !r.log.Identity().Fresh || r.log.Identity().Node != 7 {
		t.Fatalf("identity %v", r.log.Identity())
	}
	r.set("a", "1")
	r.must(func(w *crdt.Writer) {
		w.AddElem(crdt.Key{Name: "n"}, crdt.KindString, "", crdt.Int(5))
		w.SetElem(crdt.Key{DB: 3, Name: "h"}, crdt.KindField, "f", []byte("v"))
		w.SetExpiry(crdt.Key{DB: 3, Name: "h"}, r.now.UnixMilli()+1000)
	})
	r.must(func(w *crdt.Writer) { w.Remove(crdt.Key{Name: "a"}) })
	if err := r.log.SetMeta("view", []byte("x")); err != nil {
		t.Fatal(err)
	}
	id, vector := r.log.Identity(), r.log.Vector()
	digests, total, _ := r.log.Digests()
	tag := r.tag
	r.close()

	r = openReplica(t, o)
	defer r.close()
	id.Fresh = false
	if r.log.Identity() != id {
		t.Errorf("identity %v, was %v", r.log.Identity(), id)
	}
	if !r.log.Vector().Equal(vector) || !r.log.Durable().Equal(vector) {
		t.Errorf("vector %v, durable %v, was %v", r.log.Vector(), r.log.Durable(), vector)
	}
	if d, n, _ := r.log.Digests(); d != digests || n != total || total == 0 {
		t.Errorf("digest %x, was %x", n, total)
	}
	if r.log.TagFloor() != tag {
		t.Errorf("tag floor %v after a clean close, the last tag was %v", r.log.TagFloor(), tag)
	}
	if v, ok := r.get("n"); v != "5" || !ok {
		t.Errorf("n = %q, %v", v, ok)
	}
	if _, ok := r.get("a"); ok {
		t.Error("a is back")
	}
	if b, err := r.log.Meta("view"); string(b) != "x" || err != nil {
		t.Errorf("meta %q, %v", b, err)
	}
	if got := r.log.NextExpiry(); got != r.now.UnixMilli()+1000 {
		t.Errorf("next expiry %d", got)
	}
	own := id.Origin
	if k := r.log.Known(own); !k.Equal(crdt.Vector{{Stream: own, Tag: vector.Get(own) - 1<<12}}) {
		t.Errorf("known %v, vector %v", k, vector)
	}
	if n := len(r.entries(nil)); n != 3 {
		t.Errorf("%d entries", n)
	}
	r.verify()
}

func TestSecondOpenIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	r := openReplica(t, testOptions(fs))
	if _, err := Open(testOptions(fs)); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	r.close()
	openReplica(t, testOptions(fs)).close()
}

func TestDiscardLeavesNothing(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	r.set("a", "1")
	g := r.log.Begin()
	ks := &crdt.Keyspace{Store: g, Have: g.Vector()}
	w := crdt.NewWriter(ks, r.log.Identity().Origin, r.tag+1<<12, r.now.UnixMilli())
	w.SetString(crdt.Key{Name: "a"}, []byte("2"), false)
	w.SetString(crdt.Key{Name: "b"}, []byte("2"), false)
	e := w.Entries()[0]
	if err := g.Append(&e); err != nil {
		t.Fatal(err)
	}
	vector := r.log.Vector()
	g.Discard()
	if v, _ := r.get("a"); v != "1" {
		t.Errorf("a = %q", v)
	}
	if _, ok := r.get("b"); ok || !r.log.Vector().Equal(vector) {
		t.Error("something of the group is left")
	}
	r.verify()
}

func TestAppendRefusesGapsAndIgnoresDuplicates(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	s := crdt.NewStream(9, 1, 1)
	put := func(prev, tag crdt.Tag) error {
		g := r.log.Begin()
		defer g.Discard()
		e := crdt.Entry{Stream: s, Prev: prev, Tag: tag}
		if err := g.Append(&e); err != nil {
			return err
		}
		return g.Commit()
	}
	for _, c := range []struct {
		prev, tag, want crdt.Tag
		err             error
	}{
		{prev: 5, tag: 6, want: 0, err: ErrGap},
		{prev: 0, tag: 6, want: 6},
		{prev: 0, tag: 6, want: 6},
		{prev: 0, tag: 9, want: 9},
		{prev: 10, tag: 11, want: 9, err: ErrGap},
		{prev: 9, tag: 11, want: 11},
	} {
		if err := put(c.prev, c.tag); !errors.Is(err, c.err) {
			t.Errorf("(%d, %d]: %v, want %v", c.prev, c.tag, err, c.err)
		}
		if got := r.log.Vector().Get(s); got != c.want {
			t.Errorf("after (%d, %d]: vector %d, want %d", c.prev, c.tag, got, c.want)
		}
	}
}

// The iterations of a group show its own changes over what is stored, in the
// order of the store, whatever mix of both there is.
func TestGroupIterationIsLikeTheStore(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		r := openReplica(t, testOptions(vfs.NewMem()))
		elem := func() string { return string(rune('a' + rng.IntN(12))) }
		key := func() crdt.Key { return crdt.Key{DB: uint8(rng.IntN(2)), Name: fmt.Sprint("k", rng.IntN(4))} }
		kinds := []crdt.Kind{crdt.KindString, crdt.KindField, crdt.KindMember}
		change := func(g *Group) {
			for range rng.IntN(30) {
				id := crdt.CellID{Key: key(), Kind: kinds[rng.IntN(3)], Elem: elem()}
				g.Header(id.Key)
				if c := g.Cell(id); c != nil && rng.IntN(3) == 0 {
					g.SetCell(id, &crdt.Cell{})
				} else {
					g.SetCell(id, &crdt.Cell{Values: []crdt.Sibling{{Dot: crdt.Dot{Tag: crdt.Tag(rng.IntN(1000) + 1), Stream: 1}}}})
				}
				if rng.IntN(4) == 0 {
					g.SetHeader(id.Key, &crdt.Header{})
				} else {
					h := &crdt.Header{Type: crdt.TypeSet}
					h.Live[crdt.KindMember] = uint32(rng.IntN(5) + 1)
					g.SetHeader(id.Key, h)
				}
			}
		}
		g := r.log.Begin()
		change(g)
		if err := g.Commit(); err != nil {
			t.Fatal(err)
		}
		g = r.log.Begin()
		change(g)
		before := contents(g)
		if err := g.Commit(); err != nil {
			t.Fatal(err)
		}
		g = r.log.Begin()
		after := contents(g)
		g.Discard()
		if !slices.Equal(before, after) {
			t.Fatalf("with changes open:\n%q\ncommitted:\n%q", before, after)
		}
		if len(after) == 0 {
			t.Log("nothing was left")
		}
		r.close()
	}
}

// contents lists what all iterations of a group show; keys of EachKey sorted.
func contents(g *Group) (out []string) {
	_ = g.EachKeyBetween(nil, nil, func(k crdt.Key) bool {
		n := 0
		g.EachCell(k, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
			out = append(out, fmt.Sprint(id, c.Values))
			n++
			return true
		})
		m := 0
		for _, kind := range []crdt.Kind{crdt.KindString, crdt.KindField, crdt.KindMember} {
			g.EachCell(k, kind, func(crdt.CellID, *crdt.Cell) bool { m++; return true })
		}
		if h := g.Header(k); n > 0 || h != nil {
			out = append(out, fmt.Sprint(k, h != nil, n, m))
		}
		return true
	})
	return append(append(out, keysOf(g, 0)...), keysOf(g, 1)...)
}

// keysOf lists what EachKey shows of a database, sorted, with the cells of each key: of some
// kinds, as far as they are asked for, and one walk in the other.
func keysOf(g *Group, db uint8) (keys []string) {
	g.EachKey(db, func(k crdt.Key, h *crdt.Header) bool {
		var cells, within []string
		for _, kind := range []crdt.Kind{crdt.KindMember, crdt.KindString, crdt.KindAny} {
			g.EachCell(k, kind, func(id crdt.CellID, c *crdt.Cell) bool {
				cells = append(cells, fmt.Sprint(id, c.Values))
				if len(cells) == 1 {
					g.EachCell(k, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
						within = append(within, id.Elem)
						return len(within) < 3
					})
				}
				return kind != crdt.KindMember || len(cells) < 2
			})
		}
		keys = append(keys, fmt.Sprint("key ", k, h.Live, *g.Header(k), cells, within))
		return true
	})
	slices.Sort(keys)
	return keys
}

// TestFlushOfWhatIsStored: a database of which nothing is in memory, with keys of one cell and
// of many, remnants and counts, shows what it did, and is flushed; the other stays.
func TestFlushOfWhatIsStored(t *testing.T) {
	fs := vfs.NewMem()
	r := openReplica(t, testOptions(fs))
	for db := range uint8(2) {
		r.must(func(w *crdt.Writer) {
			for i := range 60 {
				k := crdt.Key{DB: db, Name: fmt.Sprint(i)}
				for j := range i % 7 * i {
					w.SetElem(k, crdt.KindMember, fmt.Sprint(j), nil)
				}
				switch i % 7 {
				case 0:
					w.SetString(k, []byte("v"), false)
				case 1:
					w.Remove(k)
					w.AddElem(k, crdt.KindString, "", crdt.Int(int64(i)))
				case 2:
					w.RemoveElem(k, crdt.KindMember, "3")
					w.SetExpiry(k, time.Now().Add(time.Hour).UnixMilli())
				}
			}
		})
	}
	list := func() (all [2][]string) {
		g := r.log.Begin()
		defer g.Discard()
		for _, line := range contents(g) {
			db := 0
			if strings.Contains(line, "{1 ") {
				db = 1
			}
			all[db] = append(all[db], line)
		}
		return all
	}
	before := list()
	r.close()
	r = openReplica(t, testOptions(fs))
	defer r.close()
	for db := range uint8(2) { // none of it in memory
		g := r.log.Begin()
		if got := keysOf(g, db); len(got) < 50 || !slices.Equal(got, before[db][len(before[db])-len(got):]) {
			t.Errorf("database %d: %q\nand was %q", db, got, before[db])
		}
		g.Discard()
	}
	r.close()
	r = openReplica(t, testOptions(fs))
	r.must(func(w *crdt.Writer) { w.Flush(0) })
	after := list()
	if len(before[0]) < 100 || len(after[0]) > 0 || !slices.Equal(before[1], after[1]) {
		t.Errorf("of %d lines %d are left; the other database had %d and has %d", len(before[0]), len(after[0]), len(before[1]), len(after[1]))
	}
	r.verify()
}

func TestEachCellMaySetWhatItShows(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	k := crdt.Key{Name: "s"}
	r.must(func(w *crdt.Writer) {
		for i := range 50 {
			w.SetElem(k, crdt.KindMember, fmt.Sprint(i), nil)
		}
		w.SetString(crdt.Key{Name: "other"}, []byte("x"), false)
	})
	r.must(func(w *crdt.Writer) { w.Remove(k) })
	r.view(func(w *crdt.Writer) {
		if w.Type(k) != crdt.TypeNone || w.Len(k, crdt.KindMember) != 0 {
			t.Error("the set is still there")
		}
	})
	r.drain()
	n := 0
	if err := r.log.each([]byte{rangeCells}, func(_, _ []byte) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d records are left, want the other key's header, which carries its cell; %v", n, err)
	}
	r.must(func(w *crdt.Writer) {
		for i := range 5 {
			w.SetElem(crdt.Key{DB: 1, Name: fmt.Sprint(i)}, crdt.KindMember, "m", nil)
		}
	})
	r.must(func(w *crdt.Writer) { w.Flush(1) })
	r.must(func(w *crdt.Writer) { w.Flush(0) })
	r.drain()
	n = 0
	if err := r.log.each([]byte{rangeCells}, func(_, _ []byte) error { n++; return nil }); err != nil || n != 0 {
		t.Errorf("%d records are left after FLUSHALL; %v", n, err)
	}
	if _, total, _ := r.log.Digests(); total != 0 {
		t.Errorf("digest of nothing is %x", total)
	}
	r.verify()
}

// sweepFields hides the fields that have expired by now, and returns how many they
// were.
func sweepFields(t *testing.T, r *replica, now int64) (n int) {
	t.Helper()
	g := r.log.Begin()
	ks := &crdt.Keyspace{Store: g, Have: g.Vector()}
	for _, id := range r.log.Expired(now, 100) {
		if ks.SweepField(id, now) {
			n++
		}
	}
	if err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	return n
}

// Fields expire one by one, beside their key, and the index follows what becomes of
// them: also over a restart.
func TestFieldExpiryIndex(t *testing.T) {
	o := testOptions(vfs.NewMem())
	r := openReplica(t, o)
	defer func() { r.close() }()
	now, h := r.now.UnixMilli(), crdt.Key{Name: "h"}
	r.must(func(w *crdt.Writer) {
		for _, f := range []string{"", "f", "g", "i", "lasting"} {
			w.SetField(h, f, []byte("v"), false)
		}
		w.SetExpiry(h, now+900)
	})
	r.must(func(w *crdt.Writer) {
		for i, f := range []string{"", "f", "g", "i"} {
			w.SetFieldExpiry(h, f, now+int64(100*(i+1)))
		}
		w.SetFieldExpiry(h, "lasting", crdt.Never)
	})
	next := func(want int64) {
		t.Helper()
		if got := r.log.NextExpiry(); got != now+want {
			t.Errorf("next expiry in %d ms, want %d", got-now, want)
		}
	}
	next(100)
	r.must(func(w *crdt.Writer) { w.SetField(h, "", []byte("w"), false) }) // takes its expiry
	next(200)
	if n := sweepFields(t, r, now+300); n != 2 {
		t.Errorf("%d fields were hidden", n)
	}
	next(400)
	r.verify()
	tag := r.tag
	r.close()
	r = openReplica(t, o)
	r.tag = max(r.tag, tag)
	next(400)
	g := r.log.Begin()
	if head := g.Header(h); head.Hidden != 2 || head.Len(crdt.KindField) != 3 {
		t.Errorf("after a restart: %+v", *head)
	}
	g.Discard()
	if got := r.log.Swept(10); !slices.Equal(got, []crdt.CellID{crdt.FieldExpiry(h, "f"), crdt.FieldExpiry(h, "g")}) {
		t.Errorf("hidden are %v", got)
	}
	// What others hear of is the same whether it is hidden here or not.
	s, err := r.log.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	full, err := s.FullDigests(0, Buckets)
	if err != nil || !slices.Equal(full, s.Digests[:]) {
		t.Errorf("hidden fields change the full digests: %v", err)
	}
	_ = s.EachState(nil, nil, s.Vector, func(st *State) error {
		if want := bytes.Count(st.Data, []byte("v")); want == 0 || !st.Plain {
			t.Errorf("state %q", st.Data)
		}
		return nil
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r.must(func(w *crdt.Writer) {
		for _, id := range r.log.Swept(10) {
			w.PurgeField(id)
		}
	})
	if got := r.log.Swept(10); len(got) != 0 {
		t.Errorf("after the purge hidden are %v", got)
	}
	r.must(func(w *crdt.Writer) { w.Remove(h) })
	if next := r.log.NextExpiry(); next != 0 {
		t.Errorf("nothing is left, and expires at %d", next)
	}
	r.verify()
}

func TestExpiryIndex(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	now := r.now.UnixMilli()
	if r.log.NextExpiry() != 0 {
		t.Error("an expiry in an empty log")
	}
	for i := range 10 {
		k := crdt.Key{Name: fmt.Sprint("k", i)}
		r.must(func(w *crdt.Writer) {
			w.SetString(k, []byte("v"), false)
			w.SetExpiry(k, now+int64(100*(10-i)))
		})
	}
	if got := r.log.NextExpiry(); got != now+100 {
		t.Errorf("next expiry in %d ms", got-now)
	}
	r.set("k9", "no expiry any more") // had the earliest
	if got := r.log.NextExpiry(); got != now+200 {
		t.Errorf("next expiry in %d ms", got-now)
	}
	due := r.log.Expired(now+400, 100)
	expiry := func(name string) crdt.CellID { return crdt.CellID{Key: crdt.Key{Name: name}, Kind: crdt.KindExpiry} }
	if want := []crdt.CellID{expiry("k8"), expiry("k7"), expiry("k6")}; !slices.Equal(due, want) {
		t.Errorf("due: %v", due)
	}
	g := r.log.Begin()
	ks := &crdt.Keyspace{Store: g, Have: g.Vector()}
	for _, id := range due {
		if !ks.Sweep(id.Key, now+400) {
			t.Errorf("%v was not swept", id)
		}
	}
	if err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := r.log.NextExpiry(); got != now+500 {
		t.Errorf("next expiry in %d ms", got-now)
	}
	r.verify()
	if got := len(r.log.Swept(2)); got != 2 {
		t.Errorf("first round of swept keys: %d", got)
	}
	if got := len(r.log.Swept(2)); got != 1 {
		t.Errorf("second round of swept keys: %d", got)
	}
	g = r.log.Begin()
	ks.Store = g
	ks.Have = g.Vector()
	w := crdt.NewWriter(ks, r.log.Identity().Origin, crdt.TagAt(now+1000, r.log.Identity().Node), now+1000)
	for _, id := range r.log.Swept(10) {
		w.Purge(id.Key)
	}
	for _, e := range w.Entries() {
		if err := g.Append(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := r.log.Swept(10); len(got) != 0 {
		t.Errorf("swept after purge: %v", got)
	}
	r.verify()
}

func TestRemnantsAreFoundAndTidied(t *testing.T) {
	a := openReplica(t, testOptions(vfs.NewMem()))
	defer a.close()
	o := testOptions(vfs.NewMem())
	o.Node = 8
	b := openReplica(t, o)
	defer b.close()
	n := crdt.Key{Name: "n"}
	a.must(func(w *crdt.Writer) { w.AddElem(n, crdt.KindString, "", crdt.Int(3)) })
	a.must(func(w *crdt.Writer) { w.SetElem(crdt.Key{Name: "s"}, crdt.KindMember, "m", nil) })
	a.sync()
	fromA := a.entries(nil)
	for _, e := range fromA {
		b.apply(e)
	}
	b.tag = fromA[1].Tag
	b.must(func(w *crdt.Writer) { w.Remove(n); w.Remove(crdt.Key{Name: "s"}) })
	b.must(func(w *crdt.Writer) { w.Flush(2) })
	b.sync()
	if got := b.log.Remnants(10); len(got) != 1 || got[0].ID.Key != n {
		t.Fatalf("remnants at the remover: %v", got)
	}

	// A third replica hears the removes before what they remove.
	o.Node = 9
	o.FS = vfs.NewMem()
	c := openReplica(t, o)
	defer c.close()
	own := b.log.Identity().Origin
	for _, e := range b.entries(nil) {
		if e.Stream == own {
			c.apply(e)
		}
	}
	c.verify()
	got := c.log.Remnants(10)
	if len(got) != 3 {
		t.Fatalf("remnants at the third: %+v", got)
	}
	for _, e := range fromA {
		c.apply(e)
	}
	if _, ok := c.get("n"); ok {
		t.Error("n is back")
	}
	g := c.log.Begin()
	ks := &crdt.Keyspace{Store: g, Have: g.Vector()}
	unknown := func(crdt.Stream) crdt.Vector { return nil }
	for _, x := range c.log.Remnants(10) {
		g.Tidy(ks, x, unknown)
	}
	if err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	c.verify()
	if got := c.log.Remnants(10); len(got) != 1 || got[0].ID.Key != n {
		t.Fatalf("remnants while the counter's origin may not know: %+v", got)
	}
	g = c.log.Begin()
	ks = &crdt.Keyspace{Store: g, Have: g.Vector()}
	if x := c.log.Remnants(10)[0]; g.Tidy(ks, x, unknown) || !g.Empty() {
		t.Error("nothing to do, yet something is written")
	}
	for _, x := range c.log.Remnants(10) {
		if !g.Tidy(ks, x, func(crdt.Stream) crdt.Vector { return g.Vector() }) {
			t.Error("nothing was dropped though the origin knows")
		}
	}
	if err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := c.log.Remnants(10); len(got) != 0 {
		t.Fatalf("remnants left: %+v", got)
	}
	c.verify()
	_, da, _ := b.log.Digests()
	_, dc, _ := c.log.Digests()
	if da != dc || !b.log.Vector().Equal(c.log.Vector()) {
		t.Errorf("equal vectors %v %v, digests %x %x", b.log.Vector(), c.log.Vector(), da, dc)
	}
}
