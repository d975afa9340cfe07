package crdt_test

import (
	"errors"
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// Each test here is the smallest case of a fault that was once in this package.

// small is a cluster for cases by hand.
type small struct {
	t      *testing.T
	millis int64
	model  crdttest.Model
}

func (s *small) node(id uint16) *replica1 {
	store := crdttest.New()
	return &replica1{small: s, id: id, store: store, ks: &crdt.Keyspace{Store: store}}
}

type replica1 struct {
	*small
	id    uint16
	store *crdttest.Store
	ks    *crdt.Keyspace
}

func (r *replica1) origin() crdt.Stream { return crdt.NewStream(r.id, 1, 0) }

// write makes a group and returns its entries.
func (r *replica1) write(do func(w *crdt.Writer)) []crdt.Entry {
	r.t.Helper()
	r.millis++
	w := crdt.NewWriter(r.ks, r.origin(), crdt.TagAt(firstMilli+r.millis, r.id), firstMilli+r.millis)
	do(w)
	entries := w.Entries()
	for i, e := range entries {
		if err := e.Validate(); err != nil {
			r.t.Fatal(err)
		}
		r.model.Add(e)
		r.raise(e)
		entries[i] = e
	}
	r.check()
	return entries
}

func (r *replica1) raise(e crdt.Entry) {
	// In place, as the executor may.
	r.ks.Have.Raise(e.Stream, e.Tag)
}

func (r *replica1) apply(entries ...crdt.Entry) {
	r.t.Helper()
	for _, e := range entries {
		r.ks.Apply(&e)
		r.raise(e)
	}
	r.check()
}

func (r *replica1) check() {
	r.t.Helper()
	if err := r.store.Check(); err != nil {
		r.t.Fatal(err)
	}
	if r.ks.HaveOf != nil {
		return
	}
	if got, want := r.store.LiveCells(nil), r.model.State(r.ks.Have, nil); !crdttest.Same(got, want) {
		r.t.Fatalf("node %d has\n%sthe model\n%s", r.id, lines(got), lines(want))
	}
}

func (r *replica1) text(key crdt.Key, kind crdt.Kind, elem string) string {
	return text(crdt.NewWriter(r.ks, r.origin(), crdt.TagAt(firstMilli+r.millis, r.id), firstMilli+r.millis), key, kind, elem)
}

func (r *replica1) want(text string, key crdt.Key, kind crdt.Kind, elem string) {
	r.t.Helper()
	if got := r.text(key, kind, elem); got != text {
		r.t.Errorf("node %d has %s in %v %q, want %s", r.id, got, key, elem, text)
	}
}

func incrBy(key crdt.Key, n int64) func(*crdt.Writer) {
	return func(w *crdt.Writer) { w.AddElem(key, crdt.KindString, "", crdt.Int(n)) }
}

func removeKey(key crdt.Key) func(*crdt.Writer) { return func(w *crdt.Writer) { w.Remove(key) } }

// A key whose cells are remnants only had no header, so that FLUSHDB passed it
// by: its delta did not tell what was seen of the counts, and a replica that
// was further with a counter than the flusher, and had not seen the reset that
// left the remnant, kept all of the counter.
func TestFlushTellsOfRemnants(t *testing.T) {
	s := &small{t: t}
	a, b, c, x := s.node(1), s.node(2), s.node(3), s.node(4)
	first := a.write(incrBy(k, 3))
	b.apply(first...)
	deletion := b.write(removeKey(k))
	c.apply(first...)
	c.apply(deletion...)
	second := a.write(incrBy(k, 4))
	flushed := c.write(func(w *crdt.Writer) { w.Flush(0) })
	x.apply(first...)
	x.apply(second...)
	x.apply(flushed...)
	x.want("4", k, crdt.KindString, "")
	x.apply(deletion...)
	x.want("4", k, crdt.KindString, "")
}

// A remove of a count's own stream took away what another replica's remove had
// told of a later epoch. In a folded range the remove comes together with that
// epoch's increments, which then counted in full.
func TestFoldedRemoveKeepsLaterReset(t *testing.T) {
	s := &small{t: t}
	a, b, x := s.node(1), s.node(2), s.node(3)
	all := a.write(func(w *crdt.Writer) { w.SetString(k, []byte("10"), false) })
	all = append(all, a.write(incrBy(k, 3))...)
	b.apply(all...)
	deletion := b.write(func(w *crdt.Writer) { w.SetString(k, []byte("20"), false) })
	all = append(all, a.write(incrBy(k, 4))...)
	x.apply(deletion...)
	x.apply(crdt.FoldEntries(all))
	x.want("24", k, crdt.KindString, "")
}

// The same within one group, where the remove and the epoch share a tag.
func TestFoldedRemoveKeepsResetOfItsOwnTag(t *testing.T) {
	s := &small{t: t}
	a, b, x := s.node(1), s.node(2), s.node(3)
	all := a.write(func(w *crdt.Writer) {
		w.AddElem(k, crdt.KindString, "", crdt.Int(1))
		w.SetString(k, []byte("10"), false)
		w.AddElem(k, crdt.KindString, "", crdt.Int(3))
	})
	a.want("13", k, crdt.KindString, "")
	b.apply(all...)
	b.want("13", k, crdt.KindString, "")
	deletion := b.write(func(w *crdt.Writer) { w.SetString(k, []byte("20"), false) })
	all = append(all, a.write(incrBy(k, 4))...)
	x.apply(deletion...)
	x.apply(crdt.FoldEntries(all))
	x.want("24", k, crdt.KindString, "")
}

// The database's pending context was trimmed by the peer's vector before the
// keys were merged, and what this replica had seen flushed came back with them.
func TestMergeStopsWhatFlushHasSeen(t *testing.T) {
	s := &small{t: t}
	a, b, c := s.node(1), s.node(2), s.node(3)
	put := a.write(func(w *crdt.Writer) { w.SetString(k, []byte("v"), false) })
	b.apply(put...)
	flushed := b.write(func(w *crdt.Writer) { w.Flush(0) })
	c.apply(flushed...)
	crdttest.Merge(c.ks, c.store, a.store, a.ks.Have)
	c.check()
	c.want("(nil)", k, crdt.KindString, "")
}

// A peer's pending context of a database, joined before all keys were, stopped
// increments of keys whose resets had not come; they were dropped without a
// trace, and a later sum of theirs counted in full. It belongs to the keys that
// were merged, by PendingOf.
func TestPendingOfPartialSync(t *testing.T) {
	s := &small{t: t}
	a, b, peer, x := s.node(1), s.node(2), s.node(3), s.node(4)
	first := a.write(incrBy(k, 3))
	b.apply(first...)
	flushed := b.write(func(w *crdt.Writer) { w.Flush(0) })
	peer.apply(flushed...) // has the flush, and not yet what it has seen
	second := a.write(incrBy(k, 4))

	// x syncs key j alone, then hears of the increments and of the flush.
	ahead, stops := peer.ks.Have.Clone(), peer.store.DBPending(0)
	crdttest.MergeKey(x.ks, j, peer.store, ahead)
	x.ks.HaveOf = func(key crdt.Key) crdt.Vector {
		if key == j {
			return x.ks.Have.Join(ahead)
		}
		return x.ks.Have
	}
	x.ks.PendingOf = func(key crdt.Key) crdt.Vector {
		if key == j {
			return stops
		}
		return nil
	}
	x.apply(first...)
	x.want("3", k, crdt.KindString, "")
	x.apply(flushed...)
	x.apply(second...)
	x.want("4", k, crdt.KindString, "")

	// And to key j, which is ahead, what the flush had seen of it never comes.
	y := s.node(5)
	putJ := a.write(func(w *crdt.Writer) { w.SetString(j, []byte("v"), false) })
	b.apply(second...)
	b.apply(putJ...)
	again := b.write(func(w *crdt.Writer) { w.Flush(0) })
	peer.apply(again...)
	ahead, stops = peer.ks.Have.Clone(), peer.store.DBPending(0)
	crdttest.MergeKey(y.ks, j, peer.store, ahead)
	y.ks.HaveOf = func(key crdt.Key) crdt.Vector { return y.ks.Have.Join(ahead) }
	y.ks.PendingOf = func(crdt.Key) crdt.Vector { return stops }
	y.apply(first...)
	y.apply(second...)
	y.apply(putJ...)
	y.want("(nil)", j, crdt.KindString, "")
}

// A remove whose writer had already seen a count end tells nothing of the
// count. A replica that merges the state of one which is not as far with the
// counter must still take the increments that the remove has seen.
func TestMergeStopsCountsThatEnded(t *testing.T) {
	s := &small{t: t}
	a, b, x, y := s.node(1), s.node(2), s.node(3), s.node(4)
	first, second := a.write(incrBy(k, 1)), a.write(incrBy(k, 2))
	ended := a.write(removeKey(k))
	b.apply(first...)
	b.apply(second...)
	b.apply(ended...)
	flushed := b.write(func(w *crdt.Writer) { w.Flush(0) })
	x.apply(first...)
	x.apply(flushed...)
	y.apply(first...)
	y.apply(second...)
	crdttest.Merge(y.ks, y.store, x.store, x.ks.Have)
	y.check()
	y.want("(nil)", k, crdt.KindString, "")
}

// A group has one tag, and a remove in one lane did not cover what the group
// had written in another: the value of the greater lane won, whichever was
// written last, and nodes that got the lanes in turns could disagree.
func TestOneKeyInTwoLanesOfAGroup(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *crdt.Writer)
		want string
	}{
		{"SET SET", func(w *crdt.Writer) {
			w.SetLane(3)
			w.SetString(k, []byte("old"), false)
			w.SetLane(0)
			w.SetString(k, []byte("new"), false)
		}, "new"},
		{"SET FLUSHDB SET", func(w *crdt.Writer) {
			w.SetLane(0)
			w.SetString(k, []byte("old"), false)
			w.SetLane(1)
			w.Flush(0)
			w.SetLane(0)
			w.SetString(k, []byte("new"), false)
		}, "new"},
		{"INCR SET INCR", func(w *crdt.Writer) {
			w.SetLane(0)
			w.AddElem(k, crdt.KindString, "", crdt.Int(1))
			w.SetLane(1)
			w.SetString(k, []byte("10"), false)
			w.SetLane(0)
			w.AddElem(k, crdt.KindString, "", crdt.Int(5))
		}, "15"},
		{"SET DEL", func(w *crdt.Writer) {
			w.SetLane(2)
			w.SetString(k, []byte("10"), false)
			w.SetLane(0)
			w.Remove(k)
		}, "(nil)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &small{t: t}
			a := s.node(1)
			entries := a.write(c.do)
			a.want(c.want, k, crdt.KindString, "")
			// Streams in order, but their entries in every interleaving.
			for _, order := range permutations(entries) {
				x := s.node(2)
				inOrder := true
				for _, e := range order {
					inOrder = inOrder && e.Prev <= x.ks.Have.Get(e.Stream)
					if inOrder {
						x.apply(e)
					}
				}
				if inOrder {
					x.want(c.want, k, crdt.KindString, "")
				}
			}
			// The next group's tag comes after all of this one's, even if the
			// clock stands still.
			s.millis--
			for _, e := range a.write(incrBy(j, 1)) {
				if e.Tag <= entries[len(entries)-1].Tag {
					t.Errorf("tag %v after %v", e.Tag, entries[len(entries)-1].Tag)
				}
			}
		})
	}
}

// A transaction is one entry, whatever the group has written in other lanes.
func TestTransactionIsOneEntry(t *testing.T) {
	s := &small{t: t}
	a := s.node(1)
	entries := a.write(func(w *crdt.Writer) {
		w.SetLane(1)
		w.SetString(k, []byte("before"), false)
		w.Begin(0)
		w.SetString(j, []byte("in"), false)
		w.SetString(k, []byte("in"), false)
	})
	if len(entries) != 2 || len(entries[1].Deltas) != 2 {
		t.Errorf("%d entries: %+v", len(entries), entries)
	}
}

// Deltas shared the memory of the keyspace's vector, which rose in place after
// the group and made removes cover what came later.
func TestContextsStayWhatTheyWere(t *testing.T) {
	s := &small{t: t}
	a, b := s.node(1), s.node(2)
	b.apply(a.write(func(w *crdt.Writer) { w.SetString(k, []byte("v"), false) })...)
	deletion := b.write(removeKey(k))
	ctx := deletion[0].Deltas[0].Remove.Ctx.Clone()
	b.apply(a.write(func(w *crdt.Writer) { w.SetString(k, []byte("w"), false) })...)
	b.write(incrBy(j, 1))
	if got := deletion[0].Deltas[0].Remove.Ctx; !got.Equal(ctx) || !deletion[0].Ctx.Equal(ctx) {
		t.Errorf("the context was %v and became %v", ctx, got)
	}
}

// A key that came back after it was swept was said to have had its old expiry
// in view.
func TestSweptKeyComesBack(t *testing.T) {
	s := &small{t: t}
	a, b := s.node(1), s.node(2)
	b.apply(a.write(func(w *crdt.Writer) {
		w.SetElem(k, crdt.KindMember, "m", nil)
		w.SetExpiry(k, firstMilli+100)
	})...)
	extension := a.write(func(w *crdt.Writer) { w.SetExpiry(k, firstMilli+500) })
	digest := a.store.Digest()
	if b.ks.Touched = nil; !b.ks.Sweep(k, firstMilli+100) || b.store.Digest() != 0 {
		t.Fatal("the key was not swept")
	}
	if touch := b.ks.Touched[k]; touch.Type != crdt.TypeSet || touch.Expiry != firstMilli+100 || !touch.Whole {
		t.Errorf("touched as %+v by the sweep", touch)
	}
	if b.ks.Touched = nil; b.ks.Sweep(k, firstMilli+100) {
		t.Error("it was swept twice")
	}
	b.apply(extension...)
	if touch := b.ks.Touched[k]; touch.Type != crdt.TypeNone || touch.Expiry != 0 || !touch.Whole {
		t.Errorf("touched as %+v when it came back", touch)
	}
	if b.store.Digest() != digest {
		t.Error("back again, the key is not in the digest")
	}
}

// Purge takes the cells of a swept key and nothing of it comes back, neither by
// duplicates nor by the state of a replica that has not purged.
func TestPurge(t *testing.T) {
	s := &small{t: t}
	a, b := s.node(1), s.node(2)
	made := a.write(func(w *crdt.Writer) {
		w.AddElem(k, crdt.KindString, "", crdt.Int(3))
		w.SetExpiry(k, firstMilli+100)
	})
	b.apply(made...)
	purge := func(w *crdt.Writer) { w.Purge(k) }
	if b.write(purge); b.store.Header(k) == nil {
		t.Fatal("a key that was not swept was purged")
	}
	b.ks.Sweep(k, firstMilli+100)
	b.write(purge)
	if len(b.store.LiveCells(nil)) != 0 || b.store.Digest() != 0 {
		t.Fatalf("left is %v", b.store.LiveCells(nil))
	}
	for _, e := range made {
		b.ks.Apply(&e)
	}
	crdttest.Merge(b.ks, b.store, a.store, a.ks.Have)
	if len(b.store.LiveCells(nil)) != 0 {
		t.Fatalf("%v came back", b.store.LiveCells(nil))
	}
	// The next increment, of whoever has purged or only swept, begins anew.
	s.millis = 200
	a.ks.Sweep(k, firstMilli+200)
	next := a.write(incrBy(k, 5))
	b.apply(next...)
	b.want("5", k, crdt.KindString, "")
}

// DEL of a string left the expiries of fields that a hash had left behind.
func TestClearTakesAllExpiries(t *testing.T) {
	s := &small{t: t}
	a := s.node(1)
	a.write(func(w *crdt.Writer) {
		w.SetElem(k, crdt.KindField, "f", []byte("v"))
		w.SetExpiry(k, firstMilli+1000)
	})
	a.ks.Change(crdt.CellID{Key: k, Kind: crdt.KindExpiry, Elem: "f"}, func(c *crdt.Cell, _ *crdt.Header) {
		c.Values = []crdt.Sibling{{Dot: crdt.Dot{Tag: 1, Stream: a.origin()}, Value: make([]byte, 8)}}
	})
	w := crdt.NewWriter(a.ks, a.origin(), crdt.TagAt(firstMilli+10, 1), firstMilli+10)
	w.RemoveElem(k, crdt.KindField, "f")
	if left := a.store.LiveCells(nil); len(left) != 0 {
		t.Errorf("left is\n%s", lines(left))
	}
}

// What went down with the disks of all who had it comes back with an old copy
// of one: what a remove had seen of it must not, and an increment to a count
// that was dropped meanwhile is refused, for it cannot be told from its sum what
// of it was reset.
func TestOldCopy(t *testing.T) {
	s := &small{t: t}
	a, b, x := s.node(1), s.node(2), s.node(3)
	have := a.write(incrBy(k, 3))
	b.apply(have...)
	x.apply(have...)
	lost := a.write(func(w *crdt.Writer) { w.SetElem(j, crdt.KindMember, "m", nil) })
	b.apply(lost...)
	x.apply(b.write(removeKey(k))...)
	x.apply(b.write(removeKey(j))...)
	x.apply(b.write(func(w *crdt.Writer) { w.Flush(0) })...)
	tidy := func() { crdttest.Tidy(x.ks, x.store, func(crdt.Stream) crdt.Vector { return x.ks.Have }) }
	tidy()
	if c := x.store.Cell(crdt.CellID{Key: k, Kind: crdt.KindString}); c != nil && len(c.Counts) > 0 {
		t.Errorf("of the counter %+v is left", c)
	}
	if left := x.store.Remnants(func(d crdt.Dot) bool { return d.Stream == a.origin() && d.Tag >= lost[0].Tag }); len(left) != 0 {
		t.Errorf("left is %v", left)
	}
	more := a.write(incrBy(k, 4))
	for _, e := range lost {
		if x.ks.Astray(&e) {
			t.Error("an entry that fits is refused")
		}
		x.apply(e)
	}
	if !x.ks.Astray(&more[0]) || !x.ks.AstrayState(crdt.CellID{Key: k, Kind: crdt.KindString}, a.store.Cell(crdt.CellID{Key: k, Kind: crdt.KindString})) {
		t.Error("an increment to a count that was dropped is taken")
	}
	tidy()
	if left := x.store.Remnants(nil); len(left) != 0 || len(x.store.Keys()) != 0 {
		t.Errorf("left is %v", left)
	}
}

// FLUSHDB left a pending context with every key, beside the database's.
func TestFlushLeavesNothingPerKey(t *testing.T) {
	s := &small{t: t}
	a, b, x := s.node(1), s.node(2), s.node(3)
	put := a.write(func(w *crdt.Writer) { w.SetString(k, []byte("v"), false) })
	x.apply(put...)
	b.apply(put...)
	b.apply(a.write(func(w *crdt.Writer) { w.SetString(j, []byte("v"), false) })...)
	x.apply(b.write(func(w *crdt.Writer) { w.Flush(0) })...)
	if h := x.store.Header(k); h != nil {
		t.Errorf("left is %+v", h)
	}
}

func TestValidate(t *testing.T) {
	origin := crdt.NewStream(1, 1, 0)
	other := crdt.NewStream(2, 1, 0)
	cell := crdt.CellID{Key: k, Kind: crdt.KindField, Elem: "f"}
	ctx := crdt.Vector{{Stream: other, Tag: 9}}
	good := func() crdt.Entry {
		return crdt.Entry{Stream: origin, Prev: 10, Tag: 20, Ctx: ctx, Deltas: []crdt.Delta{
			{Level: crdt.LevelKey, ID: crdt.CellID{Key: k}, Remove: &crdt.Remove{Tag: 11, Ctx: ctx}},
			{
				Level: crdt.LevelCell, ID: cell, Put: &crdt.Put{Tag: 15}, Add: &crdt.Add{Tag: 20, Epoch: 15},
				Remove: &crdt.Remove{Tag: 15, Ctx: ctx, Seen: []crdt.SeenCell{{ID: cell, Counts: []crdt.Seen{{Stream: other, Epoch: 3, Tag: 9}}}}},
			},
		}}
	}
	e := good()
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(e *crdt.Entry){
		"no stream":                 func(e *crdt.Entry) { e.Stream = 0 },
		"a lane there is not":       func(e *crdt.Entry) { e.Stream |= 7 },
		"tags that do not rise":     func(e *crdt.Entry) { e.Prev = 20 },
		"no tag":                    func(e *crdt.Entry) { e.Tag = crdt.MaxTag + 1 },
		"a context out of order":    func(e *crdt.Entry) { e.Ctx = crdt.Vector{{Stream: 2, Tag: 1}, {Stream: 1, Tag: 1}} },
		"no part":                   func(e *crdt.Entry) { e.Deltas[1] = crdt.Delta{Level: crdt.LevelCell, ID: cell} },
		"a wide put":                func(e *crdt.Entry) { e.Deltas[0].Put = &crdt.Put{Tag: 12} },
		"a wide delta of no remove": func(e *crdt.Entry) { e.Deltas[0].Remove = nil },
		"a level there is not":      func(e *crdt.Entry) { e.Deltas[0].Level = 9 },
		"a kind there is not":       func(e *crdt.Entry) { e.Deltas[1].ID.Kind = 99 },
		"a cell of no kind":         func(e *crdt.Entry) { e.Deltas[1].ID.Kind = crdt.KindAny },
		"a remove out of range":     func(e *crdt.Entry) { e.Deltas[0].Remove.Tag = 10 },
		"a put out of range":        func(e *crdt.Entry) { e.Deltas[1].Put.Tag = 21 },
		"an increment of no epoch":  func(e *crdt.Entry) { e.Deltas[1].Add.Epoch = 0 },
		"an epoch to come":          func(e *crdt.Entry) { e.Deltas[1].Add.Epoch = 21 },
		"a count out of scope":      func(e *crdt.Entry) { e.Deltas[1].Remove.Seen[0].ID.Elem = "g" },
		"a count not seen":          func(e *crdt.Entry) { e.Deltas[1].Remove.Seen[0].Counts[0].Tag = 10 },
		"a count of its own":        func(e *crdt.Entry) { e.Deltas[1].Remove.Seen[0].Counts[0].Stream = origin },
	} {
		e := good()
		spoil(&e)
		if err := e.Validate(); !errors.Is(err, crdt.ErrInvalid) {
			t.Errorf("an entry with %s: %v", name, err)
		}
	}
}

// What REPAIR puts in place of a key whose fields are hidden is hidden anew.
func TestReplaceOfHiddenFields(t *testing.T) {
	s := &small{t: t}
	a := s.node(1)
	a.write(func(w *crdt.Writer) {
		w.SetField(k, "f", []byte("v"), false)
		w.SetFieldExpiry(k, "f", firstMilli+100)
		w.SetField(k, "g", []byte("v"), false)
	})
	id := crdt.FieldExpiry(k, "f")
	if !a.ks.SweepField(id, firstMilli+200) || a.ks.SweepField(id, firstMilli+300) {
		t.Error("a field is hidden once")
	}
	cells := map[crdt.CellID]*crdt.Cell{}
	a.store.EachCell(k, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
		cells[id] = c
		return true
	})
	a.ks.Replace(k, nil, cells)
	if err := a.store.Check(); err != nil {
		t.Fatal(err)
	}
	if h := a.store.Header(k); h.Hidden != 0 || h.Len(crdt.KindField) != 2 {
		t.Errorf("after the repair: %+v", *h)
	}
	if !a.ks.SweepField(id, firstMilli+400) {
		t.Error("the field was not hidden anew")
	}
	if err := a.store.Check(); err != nil {
		t.Fatal(err)
	}
}
