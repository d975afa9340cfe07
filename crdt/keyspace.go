package crdt

import (
	"cmp"
	"slices"
)

// Header is what is kept of a key beside its cells. Every key of which a cell
// is stored has one.
type Header struct {
	Live    [numKinds]uint32 // live cells of each kind
	Rest    uint32           // stored cells that are not live: remnants of removes
	Pending []KeyPending     // contexts of removes beyond this replica's vector
	Type    Type             // the visible type, TypeNone if nothing but expiries is live
	Expiry  int64            // visible expiry: Unix milliseconds, Never, or 0 for none
	Digest  uint64           // sum of the live cells' digests
	Swept   bool             // expired here: hidden, and not part of the digests
	Hidden  uint32           // live fields of a hash that have expired here; see Keyspace.SweepField
}

// KeyPending is a context pending for one kind of cells under a key, or for
// all of them (KindAny).
type KeyPending struct {
	Kind Kind
	Ctx  Vector
}

// Cells returns how many cells are stored, live or not.
func (h *Header) Cells() int {
	n := int(h.Rest)
	for _, live := range h.Live {
		n += int(live)
	}
	return n
}

// Empty reports whether nothing is left to store.
func (h *Header) Empty() bool {
	return len(h.Pending) == 0 && h.Rest == 0 && h.Live == [numKinds]uint32{}
}

// Exists reports whether the key has a live value that had not expired when
// the keyspace last swept.
func (h *Header) Exists(now int64) bool {
	return h.Type != TypeNone && (h.Expiry == 0 || h.Expiry > now)
}

// Len returns the number of live cells of a kind, without hidden fields.
func (h *Header) Len(k Kind) int {
	if k == KindField {
		return int(h.Live[k] - h.Hidden)
	}
	return int(h.Live[k])
}

// Store holds the cells and headers of one replica. Absent cells and headers
// are nil. What Cell and Header return may be changed by the caller, who then
// hands it back with SetCell or SetHeader; an empty one is deleted. SetCell keeps
// a copy, which shares the lists of several only. Failures
// are the store's to remember and report when its changes are committed.
type Store interface {
	Cell(CellID) *Cell
	SetCell(CellID, *Cell)
	// Fresh says that nothing is stored of a cell, so that nobody need look.
	Fresh(CellID)
	Header(Key) *Header
	SetHeader(Key, *Header)
	// Recall names cells that are about to be changed, at most RecallMost, of each key one;
	// of kind KindAny where more than one is, or it is not known which. It is a hint, for
	// stores that find several sooner than one after the other.
	Recall([]CellID)
	// EachCell calls fn for the stored cells of a kind (KindAny: of all, by
	// kind) in order of element, live or not, until it returns false. fn may
	// set the cell it was given and no other of the key.
	EachCell(Key, Kind, func(CellID, *Cell) bool)
	// EachCellFrom is EachCell for the cells of one kind from an element on:
	// from the first that is not before it; with back from the last that is not
	// after it ("": from the very last), towards the first. Cells that are not
	// live may be left out.
	EachCellFrom(k Key, kind Kind, from string, back bool, fn func(CellID, *Cell) bool)
	// EachKey calls fn for every header of a database until it returns false.
	// fn may change the key it was given and no other.
	EachKey(db uint8, fn func(Key, *Header) bool)
	// KeysFrom returns about most of the keys of a database, those after from: what it returned as
	// next before, nil to begin; next is nil if there are no more. Some may be gone, or come twice. For
	// who goes over a database in steps: keys that come to be meanwhile, before from, are not among them.
	KeysFrom(db uint8, from []byte, most int) (keys []Key, next []byte)
	// DBPending is the context of a database's removes beyond the vector.
	DBPending(db uint8) Vector
	SetDBPending(db uint8, v Vector)
	// AddDigest adds to the digest of the bucket of the key.
	AddDigest(k Key, delta uint64)
}

// RecallMost is how many keys are recalled at once, at most: what is known of them
// is to lie in near memory until they are used.
const RecallMost = 64

// Touch is what a keyspace remembers of a key that was changed: enough to bring
// the view level. The expiry of a field stands for the field, too.
type Touch struct {
	Type   Type  // visible before
	Expiry int64 // visible before
	Whole  bool  // more than Cells may have changed

	key   Key
	cells []TouchedCell
	first [1]TouchedCell // where cells begins: most keys have one
	index *Index         // of cells, if they are more than fewTouched
}

// empty makes it as good as new.
func (t *Touch) empty(most int) {
	t.index.Reset(most)
	*t = Touch{cells: emptied(t.cells, most), index: t.index}
}

// TouchedCell is a cell that was changed.
type TouchedCell struct {
	ID   CellID
	Live bool // before
}

const fewTouched = 8

// Cells returns the cells that were changed, each once, in the order in which
// they first were.
func (t *Touch) Cells() []TouchedCell { return t.cells }

// Was reports whether a cell was changed, and if so whether it was live before.
func (t *Touch) Was(id CellID) (live, touched bool) {
	if i, _ := t.find(&id); i >= 0 {
		return t.cells[i].Live, true
	}
	return false, false
}

// find returns the place of a cell in cells, -1 if it has none; and its hash, if
// there is an index.
func (t *Touch) find(id *CellID) (place int, hash uint32) {
	if t.index.Empty() {
		for i := range t.cells {
			if t.cells[i].ID == *id {
				return i, 0
			}
		}
		return -1, 0
	}
	hash = HashElem(id.Kind, id.Elem)
	for i, at := t.index.First(hash); i >= 0; i, at = t.index.Next(hash, at) {
		if t.cells[i].ID == *id {
			return i, hash
		}
	}
	return -1, hash
}

// note remembers a cell before its first change.
func (t *Touch) note(id CellID, c *Cell) {
	place, hash := t.find(&id)
	if place >= 0 {
		return
	}
	if t.cells == nil {
		t.cells = t.first[:0]
	}
	t.cells = append(t.cells, TouchedCell{id, c.Live()})
	switch {
	case !t.index.Empty():
		t.index.Add(hash, len(t.cells)-1)
	case len(t.cells) > fewTouched:
		if t.index == nil {
			t.index = new(Index)
		}
		for i := range t.cells {
			t.index.Add(HashElem(t.cells[i].ID.Kind, t.cells[i].ID.Elem), i)
		}
	}
}

// Keyspace applies entries and local writes to a store. It is not safe for
// concurrent use; the executor owns it.
type Keyspace struct {
	Store Store
	// Have is what the replica has applied; Apply does not advance it.
	Have Vector
	// HaveOf, if set, returns the vector that holds for one key while a state
	// sync is under way: parts of the keyspace are then ahead of Have.
	HaveOf func(Key) Vector
	// PendingOf, if set, returns what the replicas with which a key was synced
	// so far held pending for its database. It holds for this key alone, in
	// addition to the store's, as long as HaveOf does: of the removes that it
	// comes from, the rest of the keyspace has not seen what they reset.
	PendingOf func(Key) Vector
	// OnTouch, if set, is called for every change of a key, after it is
	// remembered in Touched; for one key perhaps many times.
	OnTouch func(Key)
	// OnConflict, if set, is told of values that meet here and whose writers
	// had not seen each other. What it is told shares the keyspace's memory.
	OnConflict func(Conflict)
	// Touched lists the keys changed since Untouch.
	Touched map[Key]*Touch

	last    *Touch // of lastKey, the one asked for last; nil: none
	lastKey Key
	touches pool[Touch] // of Touched
	fresh   freshCell   // Change's, of which there is one at a time
}

// Untouch empties Touched. What was in it is not to be used any more.
func (ks *Keyspace) Untouch() {
	if len(ks.Touched) > mapKept {
		ks.Touched = nil
	}
	clear(ks.Touched)
	ks.last = nil
	ks.touches.reset((*Touch).empty)
}

// EachTouched calls fn for what is in Touched, in the order in which the keys were
// first changed: what a store has at hand in the order in which it was asked is
// found again soonest.
func (ks *Keyspace) EachTouched(fn func(Key, *Touch)) {
	for _, t := range ks.touches.taken() {
		fn(t.key, t)
	}
}

// vector returns what the replica has applied to a key.
func (ks *Keyspace) vector(k Key) Vector {
	if ks.HaveOf != nil {
		return ks.HaveOf(k)
	}
	return ks.Have
}

// Apply applies an entry. The caller has checked that the replica has applied
// the entry's stream at least up to e.Prev, and advances its vector to e.Tag
// afterwards.
func (ks *Keyspace) Apply(e *Entry) {
	for deltas := range slices.Chunk(e.Deltas, RecallMost) {
		ks.recall(deltas)
		for i := range deltas {
			ks.apply(e.Stream, &deltas[i], false)
		}
	}
}

// recall has the store recall the keys of at most RecallMost deltas.
func (ks *Keyspace) recall(deltas []Delta) {
	if len(deltas) < 2 {
		return
	}
	var cells [RecallMost]CellID
	n := 0
	for i := range deltas {
		if id := &deltas[i].ID; n == 0 || id.Key != cells[n-1].Key { // those of one key follow each other
			cells[n] = *id
			n++
		}
	}
	if n > 1 {
		ks.Store.Recall(cells[:n])
	}
}

// apply applies a delta. made says that it is being made here: of a remove of more than
// a cell, what that sees of counts is added to its Seen.
func (ks *Keyspace) apply(s Stream, d *Delta, made bool) {
	switch d.Level {
	case LevelDB:
		ks.removeDB(s, d, made)
	case LevelKey, LevelKind:
		ks.removeKey(s, d.ID.Key, d.ID.Kind, d.Remove, true, made)
	case LevelCell:
		have := ks.vector(d.ID.Key)
		done := have.Get(s)
		todo := d.Remove != nil && d.Remove.Tag > done || d.Put != nil && d.Put.Tag > done || d.Add != nil && d.Add.Tag > done
		if !todo {
			return
		}
		ks.Change(d.ID, func(c *Cell, h *Header) {
			if r := d.Remove; r != nil && r.Tag > done {
				var seen []Seen
				if len(r.Seen) > 0 {
					seen = r.Seen[0].Counts
				}
				c.remove(Dot{r.Tag, s}, r.Ctx, seen, have, true)
			}
			if p := d.Put; p != nil && p.Tag > done {
				if dot := (Dot{p.Tag, s}); !ks.stopped(d.ID, dot, c, h) {
					c.put(dot, p.Value)
				}
			}
			if a := d.Add; a != nil && a.Tag > done {
				c.add(s, a, ks.stopped(d.ID, Dot{a.Tag, s}, c, h))
			}
		})
	}
}

// stopped reports whether a remove that came before it has seen the write.
func (ks *Keyspace) stopped(id CellID, d Dot, c *Cell, h *Header) bool {
	return c.Pending.Covers(d) || ks.outer(id, h).Covers(d)
}

// outer returns what the key and database hold pending for a cell.
func (ks *Keyspace) outer(id CellID, h *Header) Vector {
	db := ks.Store.DBPending(id.Key.DB)
	if ks.PendingOf != nil {
		db = db.Join(ks.PendingOf(id.Key))
	}
	return Outer(db, h.Pending, id.Kind)
}

// Outer returns what a replica holds pending for the cells of one kind under a
// key beside what they hold themselves, given what its database and the key
// hold.
func Outer(db Vector, key []KeyPending, kind Kind) Vector {
	for _, p := range key {
		if p.Kind == KindAny || p.Kind == kind {
			db = db.Join(p.Ctx)
		}
	}
	return db
}

// removeKey applies a remove of a key, or of its cells of one kind. keep says
// that the key is to keep what the remove has seen beyond the vector, made is as for apply.
func (ks *Keyspace) removeKey(s Stream, key Key, kind Kind, r *Remove, keep, made bool) {
	have := ks.vector(key)
	if r.Tag <= have.Get(s) {
		return
	}
	by := Dot{r.Tag, s}
	h := ks.header(key)
	t := ks.touch(key, h)
	t.Whole = true
	ks.Store.EachCell(key, kind, func(id CellID, c *Cell) bool {
		var seen []Seen
		if made {
			if seen = c.seen(s); len(seen) > 0 {
				r.Seen = append(r.Seen, SeenCell{ID: id, Counts: seen})
			}
		}
		ks.change(id, c, h, func(c *Cell) { c.remove(by, r.Ctx, seen, have, false) })
		return true
	})
	if keep {
		if beyond := joinPending(nil, r.Ctx, s, have); len(beyond) > 0 {
			h.trim(func(v Vector) Vector { return v.Beyond(have) })
			h.joinPending(kind, beyond)
		}
	}
	if !made {
		for _, seen := range r.Seen {
			if seen.ID.Key != key {
				continue
			}
			c := ks.cell(seen.ID)
			ks.change(seen.ID, c, h, func(c *Cell) {
				for _, n := range seen.Counts {
					c.reset(n, by, have)
				}
			})
		}
	}
	ks.finish(key, h)
}

// removeDB applies a remove of a database: of each of its keys, and of what is
// still to come.
func (ks *Keyspace) removeDB(s Stream, d *Delta, made bool) {
	db, r := d.ID.Key.DB, d.Remove
	if r.Tag <= ks.Have.Get(s) {
		return
	}
	seen := map[Key][]SeenCell{}
	for _, c := range r.Seen {
		seen[c.ID.Key] = append(seen[c.ID.Key], c)
	}
	plain := &Remove{Tag: r.Tag, Ctx: r.Ctx}
	ks.Store.EachKey(db, func(k Key, _ *Header) bool {
		if made {
			ks.removeKey(s, k, KindAny, r, false, true)
			return true
		}
		of := plain
		if cells, ok := seen[k]; ok {
			of = &Remove{Tag: r.Tag, Ctx: r.Ctx, Seen: cells}
			delete(seen, k)
		}
		ks.removeKey(s, k, KindAny, of, false, false)
		return true
	})
	if made { // keys came in no particular order, and what a replica makes does not depend on it
		slices.SortFunc(r.Seen, func(a, b SeenCell) int {
			return cmp.Or(cmp.Compare(a.ID.Key.Name, b.ID.Key.Name), cmp.Compare(a.ID.Kind, b.ID.Kind), cmp.Compare(a.ID.Elem, b.ID.Elem))
		})
	}
	for k, cells := range seen {
		ks.removeKey(s, k, KindAny, &Remove{Tag: r.Tag, Ctx: r.Ctx, Seen: cells}, false, false)
	}
	if p := joinPending(ks.Store.DBPending(db).Beyond(ks.Have), r.Ctx, s, ks.Have); len(p) > 0 || len(ks.Store.DBPending(db)) > 0 {
		ks.Store.SetDBPending(db, p)
	}
}

// Merge joins a cell of another replica's state; o is empty where the other
// has none. theirs is the other's vector, theirOuter what it holds pending for
// the cell's key, kind and database.
func (ks *Keyspace) Merge(id CellID, o *Cell, theirs, theirOuter Vector) {
	have := ks.vector(id.Key)
	ks.Change(id, func(c *Cell, h *Header) {
		c.merge(o, have, theirs, ks.outer(id, h), theirOuter)
	})
}

// MergePending joins what another replica holds pending for a key. It comes
// after the key's cells.
func (ks *Keyspace) MergePending(key Key, pending []KeyPending, theirs Vector) {
	h := ks.header(key)
	if len(pending) == 0 && len(h.Pending) == 0 {
		return
	}
	for _, p := range pending {
		h.joinPending(p.Kind, p.Ctx)
	}
	joined := ks.vector(key).Join(theirs)
	h.trim(func(v Vector) Vector { return v.Beyond(joined) })
	ks.Store.SetHeader(key, h)
}

// MergeDBPending joins what another replica holds pending for a database. It
// comes after all keys of the database, and when the vector covers the other's:
// until then PendingOf tells it, for the keys merged so far alone.
func (ks *Keyspace) MergeDBPending(db uint8, pending Vector) {
	if p := ks.Store.DBPending(db).Join(pending).Beyond(ks.Have); len(pending) > 0 {
		ks.Store.SetDBPending(db, p)
	}
}

// Tidy drops the remnants of a cell that have had their time; see Cell.tidy.
// known returns what a stream's origin is known to have seen when it had made
// no more of the stream than this replica has applied: the context of the
// stream's newest entry here, or the vector of a later heartbeat; all that this
// replica has, if no more of the stream can come. It reports whether anything
// that is not live remains. It changes nothing visible.
func (ks *Keyspace) Tidy(id CellID, known func(Stream) Vector) bool {
	c := ks.Store.Cell(id)
	if c == nil {
		return false
	}
	c.Pending = c.Pending.Beyond(ks.vector(id.Key))
	c.tidy(ks.vector(id.Key), known)
	ks.Store.SetCell(id, c)
	if c.Empty() {
		h := ks.header(id.Key)
		h.Rest--
		ks.Store.SetHeader(id.Key, h)
	}
	return c.Remnant()
}

// TidyKey drops a key's pending contexts that the vector has caught up with.
func (ks *Keyspace) TidyKey(key Key) {
	h := ks.Store.Header(key)
	if h == nil || len(h.Pending) == 0 {
		return
	}
	have := ks.vector(key)
	h.trim(func(v Vector) Vector { return v.Beyond(have) })
	ks.Store.SetHeader(key, h)
}

// TidyDB drops the part of a database's pending context that the vector has
// caught up with.
func (ks *Keyspace) TidyDB(db uint8) {
	if p := ks.Store.DBPending(db); len(p) > 0 {
		ks.Store.SetDBPending(db, p.Beyond(ks.Have))
	}
}

// Astray reports whether an entry goes on with a count that the replica once
// had and dropped, for it was reset and nothing more was to come: the entry
// cannot be applied. It is of a stream that was held to be over, and comes from
// an old copy of a replica.
func (ks *Keyspace) Astray(e *Entry) bool {
	for deltas := range slices.Chunk(e.Deltas, RecallMost) {
		recalled := false
		for i := range deltas {
			d := &deltas[i]
			if d.Level != LevelCell || d.Add == nil {
				continue
			}
			if !recalled {
				ks.recall(deltas[i:])
				recalled = true
			}
			if ks.astray(d.ID, e.Stream, d.Add.Epoch, d.Add.Tag) {
				return true
			}
		}
	}
	return false
}

// AstrayState is Astray for a cell of another replica's state.
func (ks *Keyspace) AstrayState(id CellID, o *Cell) bool {
	return slices.ContainsFunc(o.Counts, func(k Count) bool { return ks.astray(id, k.Stream, k.Epoch, k.Tag) })
}

func (ks *Keyspace) astray(id CellID, s Stream, epoch, tag Tag) bool {
	have := ks.vector(id.Key).Get(s)
	if tag <= have || epoch > have {
		return false
	}
	c := ks.cell(id)
	_, ok := c.count(s)
	return !ok && !ks.stopped(id, Dot{tag, s}, c, ks.header(id.Key))
}

// trim replaces each pending context by what f leaves of it.
func (h *Header) trim(f func(Vector) Vector) {
	for i := range h.Pending {
		h.Pending[i].Ctx = f(h.Pending[i].Ctx)
	}
	h.Pending = slices.DeleteFunc(h.Pending, func(p KeyPending) bool { return len(p.Ctx) == 0 })
}

// joinPending joins a context into what is pending for a kind.
func (h *Header) joinPending(kind Kind, ctx Vector) {
	i, ok := slices.BinarySearchFunc(h.Pending, kind, func(p KeyPending, k Kind) int { return cmp.Compare(p.Kind, k) })
	if !ok {
		h.Pending = slices.Insert(h.Pending, i, KeyPending{Kind: kind})
	}
	h.Pending[i].Ctx = h.Pending[i].Ctx.Join(ctx)
}

// Sweep hides a key that has expired by now: it leaves the digest and the
// view. It reports whether the key was there to hide.
func (ks *Keyspace) Sweep(key Key, now int64) bool {
	h := ks.Store.Header(key)
	if h == nil || h.Swept || h.Expiry == 0 || h.Expiry > now {
		return false
	}
	ks.touch(key, h).Whole = true
	h.Swept = true
	ks.Store.AddDigest(key, -h.Digest)
	ks.Store.SetHeader(key, h)
	return true
}

// Change changes one cell and keeps its key's header, digest and touch level. f makes
// no other Change.
func (ks *Keyspace) Change(id CellID, f func(*Cell, *Header)) {
	h := ks.header(id.Key)
	t := ks.touch(id.Key, h)
	c := ks.Store.Cell(id)
	if c == nil {
		c = ks.fresh.empty()
	}
	if !t.Whole {
		t.note(id, c)
	}
	live := h.Live
	var buf [2]Sibling
	was := append(buf[:0], c.Values...)
	ks.change(id, c, h, func(c *Cell) { f(c, h) })
	ks.finish(id.Key, h)
	ks.meet(id, c, was)
	ks.meetType(id, &live, &h.Live)
}

// change runs f on a cell of a key whose header the caller holds.
func (ks *Keyspace) change(id CellID, c *Cell, h *Header, f func(*Cell)) {
	was := h.digestOf(id, c)
	live, hidden, at := c.Live(), c.Hidden, int64(0)
	if hidden {
		at = c.Expiry()
	}
	h.count(id.Kind, c, -1)
	f(c)
	now := c.Digest(id)
	if !h.Swept {
		ks.Store.AddDigest(id.Key, now-was)
	}
	h.Digest += now - was
	h.count(id.Kind, c, +1)
	if id.Kind == KindExpiry && id.Elem == "" {
		h.Expiry = c.Expiry()
	}
	ks.settleField(id, c, h, live, hidden, at)
	ks.Store.SetCell(id, c)
}

// digestOf returns the digest of a cell of the header's key: without looking at its
// value, where the key has nothing but a string.
func (h *Header) digestOf(id CellID, c *Cell) uint64 {
	if id.Kind == KindString && c.Live() {
		alone := [numKinds]uint32{KindString: 1}
		if h.Live == alone {
			return h.Digest
		}
	}
	return c.Digest(id)
}

// Add takes a live cell of a new key into its header. The cells of a key that
// make it exist are all of one type.
func (h *Header) Add(id CellID, c *Cell) {
	h.count(id.Kind, c, +1)
	h.Digest += c.Digest(id)
	if t := id.Kind.Type(); t != TypeNone {
		h.Type = t
	}
	if id.Kind == KindExpiry && id.Elem == "" {
		h.Expiry = c.Expiry()
	}
}

// count takes a cell into the header's counts, or with -1 out of them.
func (h *Header) count(k Kind, c *Cell, n int) {
	switch {
	case c.Live():
		h.Live[k] += uint32(n)
	case !c.Empty():
		h.Rest += uint32(n)
	}
}

// finish brings a header level after its cells have changed.
func (ks *Keyspace) finish(key Key, h *Header) {
	h.Type = ks.visible(key, h)
	if h.Swept {
		// Perhaps there again, by a later expiry that has come to light; if
		// not, the next sweep hides it anew.
		h.Swept = false
		ks.Store.AddDigest(key, h.Digest)
		ks.touch(key, h).Whole = true
	}
	ks.Store.SetHeader(key, h)
}

// visible returns the type of the greatest live tag.
func (ks *Keyspace) visible(key Key, h *Header) Type {
	var only Type
	several := false
	for k, n := range h.Live {
		if n == 0 {
			continue
		}
		if t := Kind(k).Type(); h.Len(Kind(k)) > 0 && t != TypeNone && t != only {
			several = several || only != TypeNone
			only = t
		}
	}
	if !several {
		return only
	}
	return ks.newestType(key, h)
}

// newestType returns the type of the greatest live tag under a key, of what is not
// hidden.
func (ks *Keyspace) newestType(key Key, h *Header) (only Type) {
	var newest Dot
	var hidden map[string]bool
	if h.Hidden > 0 {
		hidden = hiddenFields(ks.Store, key, h, 0)
	}
	ks.Store.EachCell(key, KindAny, func(id CellID, c *Cell) bool {
		if id.Kind == KindField && hidden[id.Elem] {
			return true
		}
		if d := c.Newest(); id.Kind.Type() != TypeNone && d.Compare(newest) > 0 {
			newest, only = d, id.Kind.Type()
		}
		return true
	})
	return only
}

// StringKind returns the kind of cells that a key of TypeString shows:
// KindRegisters if it is a HyperLogLog, else KindString. Where nodes made it both
// at once, the greatest live tag decides, as between types.
func StringKind(s Store, k Key) Kind {
	h := s.Header(k)
	switch {
	case h == nil || h.Live[KindRegisters] == 0:
		return KindString
	case h.Live[KindString] == 0:
		return KindRegisters
	}
	newest := s.Cell(CellID{k, KindString, ""}).Newest()
	kind := KindString
	s.EachCell(k, KindRegisters, func(_ CellID, c *Cell) bool {
		if d := c.Newest(); d.Compare(newest) > 0 {
			newest, kind = d, KindRegisters
		}
		return true
	})
	return kind
}

func (ks *Keyspace) header(k Key) *Header {
	if h := ks.Store.Header(k); h != nil {
		return h
	}
	return &Header{}
}

func (ks *Keyspace) cell(id CellID) *Cell {
	if c := ks.Store.Cell(id); c != nil {
		return c
	}
	return new(freshCell).empty()
}

// freshCell is a cell that is not stored yet, and its first value: most get one.
type freshCell struct {
	cell  Cell
	value [1]Sibling
}

func (f *freshCell) empty() *Cell {
	f.value[0] = Sibling{}
	f.cell = Cell{Values: f.value[:0]}
	return &f.cell
}

// touch remembers a key before its first change.
func (ks *Keyspace) touch(k Key, h *Header) *Touch {
	if ks.OnTouch != nil {
		ks.OnTouch(k)
	}
	if ks.last != nil && ks.lastKey == k && len(ks.Touched) > 0 { // it may have been cleared by others
		return ks.last
	}
	t := ks.Touched[k]
	if t == nil {
		t = ks.touches.take()
		t.key, t.Type, t.Expiry = k, h.Type, h.Expiry
		if h.Swept {
			t.Type, t.Expiry = TypeNone, 0
		}
		if ks.Touched == nil {
			ks.Touched = map[Key]*Touch{}
		}
		ks.Touched[k] = t
	}
	ks.last, ks.lastKey = t, k
	return t
}
