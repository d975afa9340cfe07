package crdt

import "slices"

// Writer turns local writes into deltas: it reads the keyspace, makes the delta
// that has the wished effect on what this replica has seen, applies it, and
// folds it into the entry of its lane. One writer serves one commit group at a
// time; nothing else is applied to the keyspace between Reset and Entries.
//
// All writes of a group carry one tag, so within it lanes have no order. A
// write to a key that the group has already written in another lane therefore
// begins a new step: the entries so far are closed, and what follows has the
// next tag and has seen them.
type Writer struct {
	ks      *Keyspace
	origin  Stream
	lane    Lane
	tag     Tag
	now     int64
	ctx     Vector // what the step has seen; shared by its deltas, never changed
	folds   [Lanes]Fold
	entries []Entry // of closed steps
	deltas  []Delta // theirs
	writes  int
	items   uint32 // positions given: what tells those of one tag apart
	newest  bool   // the tag is greater than any that was seen: nothing is stored that has it
	parts   pool[putParts]
	elem    []byte // of an item, to be made
}

// putParts are the parts of a delta that puts a value.
type putParts struct {
	remove Remove
	put    Put
}

// NewWriter returns a writer that is ready for a group; see Reset.
func NewWriter(ks *Keyspace, origin Stream, tag Tag, now int64) *Writer {
	w := new(Writer)
	w.Reset(ks, origin, tag, now)
	return w
}

// Reset makes the writer one of an origin for a group with the given tag, or
// its next one if the origin has already written with a tag as great. now is
// the hybrid time in Unix milliseconds by which keys are expired.
func (w *Writer) Reset(ks *Keyspace, origin Stream, tag Tag, now int64) {
	w.Release()
	*w = Writer{
		ks: ks, origin: origin.Origin(), tag: tag, now: now, ctx: ks.Have.Clone(),
		folds: w.folds, entries: w.entries, deltas: w.deltas, parts: w.parts, elem: w.elem,
	}
	// A node that lost its last writes, and whose clock was set back, may use a tag
	// of its earlier life again. Its items must not have the same positions.
	w.items = uint32(origin.Incarnation()&(1<<16-1)) << 14
	for l := range Stream(Lanes) {
		if t := w.ctx.Get(w.origin | l); t >= w.tag {
			w.tag = t.next()
		}
	}
	w.newest = ks.HaveOf == nil && !slices.ContainsFunc(w.ctx, func(p Position) bool { return p.Tag >= w.tag })
}

// Release ends the use of the group's entries and their deltas: what they take is
// for the next group.
func (w *Writer) Release() {
	for l := range w.folds {
		w.folds[l].reset()
	}
	w.parts.reset(nil)
	clear(w.entries)
	clear(w.deltas)
	w.entries, w.deltas = w.entries[:0], w.deltas[:0]
	if cap(w.deltas) > poolKept {
		w.deltas = nil
	}
}

// SetLane chooses the lane of the writes to follow.
func (w *Writer) SetLane(l Lane) { w.lane = l }

// Lane returns the lane of the writes to follow.
func (w *Writer) Lane() Lane { return w.lane }

// Begin chooses the lane for writes that must be one entry, a transaction:
// what the group has written in other lanes becomes a step of its own, so that
// no write up to the next SetLane begins another.
func (w *Writer) Begin(l Lane) {
	w.lane = l
	w.enter(func(f *Fold) bool { return !f.Empty() })
}

// Writes returns how many deltas were made.
func (w *Writer) Writes() int { return w.writes }

// Now returns the time by which keys are expired, in Unix milliseconds.
func (w *Writer) Now() int64 { return w.now }

// Tag returns the tag of the latest step. A clock that makes the tags of
// groups to come may witness it, but need not: see NewWriter.
func (w *Writer) Tag() Tag { return w.tag }

// Entries returns the group's entries, in order: of each step one for each
// lane that was written to. The caller then raises the keyspace's vector to
// their tags. It ends the writer's use.
func (w *Writer) Entries() []Entry {
	w.step()
	return w.entries
}

// step closes the entries of the writes so far.
func (w *Writer) step() {
	for l := range w.folds {
		if f := &w.folds[l]; !f.Empty() {
			s := w.origin | Stream(l)
			from := len(w.deltas)
			w.deltas = f.appendDeltas(w.deltas)
			w.entries = append(w.entries, Entry{Stream: s, Prev: w.ctx.Get(s), Tag: w.tag, Ctx: w.ctx, Deltas: w.deltas[from:len(w.deltas):len(w.deltas)]})
			f.reset()
		}
	}
}

// enter begins a new step if clash holds for what another lane than the
// present one has gathered.
func (w *Writer) enter(clash func(*Fold) bool) {
	for l := range w.folds {
		if f := &w.folds[l]; Lane(l) != w.lane && !f.Empty() && clash(f) {
			w.cut()
			return
		}
	}
}

func (w *Writer) cut() {
	w.step()
	w.ctx = w.ctx.Clone()
	for _, e := range w.entries {
		w.ctx.Raise(e.Stream, e.Tag)
	}
	w.ks.Have = w.ctx.Clone()
	w.tag = w.tag.next()
}

// enterKey is enter for a write to a key.
func (w *Writer) enterKey(k Key) {
	for l := range w.folds {
		if Lane(l) != w.lane && !w.folds[l].Empty() {
			w.enter(func(f *Fold) bool { return f.touches(k) })
			return
		}
	}
}

// seen returns what the step has seen of a key.
func (w *Writer) seen(k Key) Vector {
	if w.ks.HaveOf != nil {
		return w.ks.HaveOf(k).Join(w.ctx)
	}
	return w.ctx
}

// Type returns the visible type of a key, TypeNone if it does not exist.
func (w *Writer) Type(k Key) Type {
	if h := w.ks.Store.Header(k); h != nil && !h.Swept && h.Exists(w.now) {
		return h.Type
	}
	return TypeNone
}

// shows reports whether a key exists and cells of the kind are what it shows.
func (w *Writer) shows(k Key, kind Kind) bool {
	t := w.Type(k)
	return t == kind.Of() && (t != TypeString || StringKind(w.ks.Store, k) == kind)
}

// Elem returns the visible value of an element of an existing key of the
// kind's type; a string's element is "". A member's value is empty, a score
// has all its digits. The result must not be changed.
func (w *Writer) Elem(k Key, kind Kind, elem string) ([]byte, bool) {
	if !w.shows(k, kind) {
		return nil, false
	}
	c := w.ks.Store.Cell(CellID{k, kind, elem})
	if c == nil || !c.Live() || kind == KindField && w.fieldExpiry(k, elem).Past(w.now) {
		return nil, false
	}
	return c.Visible(kind), true
}

// Len returns the number of elements of a key, 0 if it is of another type.
func (w *Writer) Len(k Key, kind Kind) int {
	if !w.shows(k, kind) {
		return 0
	}
	return w.ks.Store.Header(k).Len(kind)
}

// EachElem calls fn for the elements of a key in their order until it returns
// false. fn must not write to the key.
func (w *Writer) EachElem(k Key, kind Kind, fn func(elem string, value []byte) bool) {
	if !w.shows(k, kind) {
		return
	}
	hidden := w.hidden(k, kind)
	w.ks.Store.EachCell(k, kind, func(id CellID, c *Cell) bool {
		return !c.Live() || hidden[id.Elem] || fn(id.Elem, c.Visible(kind))
	})
}

// EachElemFrom is EachElem from an element on: from the first that is not
// before it; with back from the last that is not after it ("": from the very
// last), towards the first.
func (w *Writer) EachElemFrom(k Key, kind Kind, from string, back bool, fn func(elem string, value []byte) bool) {
	if !w.shows(k, kind) {
		return
	}
	hidden := w.hidden(k, kind)
	w.ks.Store.EachCellFrom(k, kind, from, back, func(id CellID, c *Cell) bool {
		return !c.Live() || hidden[id.Elem] || fn(id.Elem, c.Visible(kind))
	})
}

// hidden returns the elements of a kind that are not to be seen.
func (w *Writer) hidden(k Key, kind Kind) map[string]bool {
	if kind != KindField {
		return nil
	}
	return hiddenFields(w.ks.Store, k, w.ks.Store.Header(k), w.now)
}

// Expiry returns when a key expires in Unix milliseconds; 0 if it does not, or
// does not exist.
func (w *Writer) Expiry(k Key) int64 {
	if w.Type(k) == TypeNone {
		return 0
	}
	if at := w.ks.Store.Header(k).Expiry; at != Never {
		return at
	}
	return 0
}

// SetElem sets the value of an element. If the key does not exist, it comes to
// be with the kind's type; the caller has made sure that it is of that type
// otherwise. A field loses its expiry.
func (w *Writer) SetElem(k Key, kind Kind, elem string, value []byte) {
	if kind == KindField {
		w.SetField(k, elem, value, false)
		return
	}
	w.enterKey(k)
	w.prepare(k, kind)
	w.put(CellID{k, kind, elem}, value)
}

// SetString makes the key a string, whatever it was. keepTTL leaves its expiry.
func (w *Writer) SetString(k Key, value []byte, keepTTL bool) {
	w.enterKey(k)
	w.prepare(k, KindString)
	if !keepTTL {
		w.removeCell(CellID{k, KindExpiry, ""})
	}
	w.put(CellID{k, KindString, ""}, value)
}

// AddElem adds to the number in an element, which is 0 if it is not there. The
// caller has checked the type, and that the value is a number.
func (w *Writer) AddElem(k Key, kind Kind, elem string, n Number) {
	w.enterKey(k)
	w.prepare(k, kind)
	id := CellID{k, kind, elem}
	if kind == KindField {
		there := w.ks.cell(id).Live()
		if past := w.fieldExpiry(k, elem).Past(w.now); past || !there {
			w.removeCell(id)
			w.removeFieldExpiry(k, elem)
		}
	}
	s := w.origin | Stream(w.lane)
	a := &Add{Tag: w.tag, Epoch: w.tag, Sum: n}
	if c := w.ks.Store.Cell(id); c != nil {
		if i, ok := c.count(s); ok && c.Counts[i].Live() {
			a.Epoch, a.Sum = c.Counts[i].Epoch, c.Counts[i].Sum.Add(n)
		}
	}
	w.do(Delta{Level: LevelCell, ID: id, Add: a})
}

// RemoveElem removes an element and reports whether it was there. With its
// last element a key goes, and its expiry with it.
func (w *Writer) RemoveElem(k Key, kind Kind, elem string) bool {
	if _, ok := w.Elem(k, kind, elem); !ok {
		return false
	}
	w.enterKey(k)
	w.prepare(k, kind)
	w.removeCell(CellID{k, kind, elem})
	if kind == KindField {
		w.removeFieldExpiry(k, elem)
	}
	if h := w.ks.Store.Header(k); h != nil && h.Type == TypeNone {
		w.clear(k)
	}
	return true
}

// RemoveElems removes every element of a kind and reports how many there were;
// one delta, however many.
func (w *Writer) RemoveElems(k Key, kind Kind) int {
	n := w.Len(k, kind)
	if n == 0 {
		return 0
	}
	w.enterKey(k)
	w.prepare(k, kind)
	w.removeKind(k, kind)
	if kind == KindField {
		w.removeFieldExpiries(k)
	}
	if h := w.ks.Store.Header(k); h != nil && h.Type == TypeNone {
		w.clear(k)
	}
	return n
}

// Remove removes a key and reports whether it existed.
func (w *Writer) Remove(k Key) bool {
	existed := w.Type(k) != TypeNone
	if existed {
		w.enterKey(k)
		w.clear(k)
	}
	return existed
}

// Purge removes what is left of a key that has expired and was hidden. It is a
// remove like any other: replicas that hold more of the key keep that, and a
// write made after it, at a replica that has nothing of the key any more, does
// not meet the old expiry at one that still has.
func (w *Writer) Purge(k Key) {
	if h := w.ks.Store.Header(k); h != nil && h.Swept {
		w.enterKey(k)
		w.clear(k)
	}
}

// SetExpiry sets when an existing key expires, in Unix milliseconds; Never
// makes it lasting against any expiry set elsewhere at the same time. A time
// that has passed removes the key.
func (w *Writer) SetExpiry(k Key, at int64) {
	t := w.Type(k)
	if t == TypeNone {
		return
	}
	w.enterKey(k)
	if at <= w.now {
		w.clear(k)
		return
	}
	w.prepareType(k, t)
	w.put(CellID{k, KindExpiry, ""}, encodeExpiry(at))
}

// Flush removes everything in a database.
func (w *Writer) Flush(db uint8) {
	// Not only what has written to this database: the flushes of FLUSHALL
	// stay one entry.
	w.enter(func(f *Fold) bool { return !f.Empty() })
	if w.ks.HaveOf != nil {
		// While a state sync is under way keys differ in what they have seen.
		w.ks.Store.EachKey(db, func(k Key, _ *Header) bool {
			w.clear(k)
			return true
		})
		return
	}
	w.do(Delta{Level: LevelDB, ID: CellID{Key: Key{DB: db}}, Remove: &Remove{Tag: w.tag, Ctx: w.ctx}})
}

// FlushSome removes about most of the keys of a database, of those after from: what it returned
// before, nil to begin. It returns nil when it has been everywhere.
func (w *Writer) FlushSome(db uint8, from []byte, most int) (next []byte) {
	keys, next := w.ks.Store.KeysFrom(db, from, most)
	w.clearAll(keys)
	return next
}

// FlushRest is Flush when FlushSome has been everywhere. Where no more than few keys have come to be
// in between it removes these, so that no replica need go over the database.
func (w *Writer) FlushRest(db uint8, few int) {
	var keys []Key
	w.ks.Store.EachKey(db, func(k Key, _ *Header) bool {
		keys = append(keys, k)
		return len(keys) <= few
	})
	if len(keys) > few {
		w.Flush(db)
		return
	}
	w.clearAll(keys)
}

func (w *Writer) clearAll(keys []Key) {
	for _, k := range keys {
		w.enterKey(k)
		w.clear(k)
	}
}

// prepare clears what a write of a cell of the kind must not leave: the whole
// key if it has expired or only an expiry is left, and what is hidden behind the
// visible type or replaced by the kind's.
func (w *Writer) prepare(k Key, kind Kind) {
	w.prepareType(k, kind.Of())
	if kind.Of() != TypeString {
		return
	}
	h := w.ks.Store.Header(k)
	if h == nil {
		return
	}
	str, regs := h.Live[KindString] > 0, h.Live[KindRegisters] > 0
	switch {
	case kind == KindString && regs:
		w.removeKind(k, KindRegisters)
	case kind == KindRegisters && str:
		if regs && StringKind(w.ks.Store, k) == KindString { // they were hidden behind it
			w.removeKind(k, KindRegisters)
		}
		w.removeKind(k, KindString)
	}
}

// prepareType is prepare for a write that is of any kind of a type.
func (w *Writer) prepareType(k Key, t Type) {
	h := w.ks.Store.Header(k)
	if h == nil || h.Live == [numKinds]uint32{} {
		return
	}
	if h.Swept || !h.Exists(w.now) {
		w.clear(k)
		return
	}
	for kind, n := range h.Live {
		if kt := Kind(kind).Of(); n > 0 && kt != t && kt != TypeNone {
			w.removeKind(k, Kind(kind))
		}
	}
	if t != TypeHash {
		w.removeFieldExpiries(k)
	}
}

// clear removes all that is live under a key, existing or expired.
func (w *Writer) clear(k Key) {
	h := w.ks.Store.Header(k)
	if h == nil {
		return
	}
	for kind, n := range h.Live {
		if n > 0 && Kind(kind) != KindString && (Kind(kind) != KindExpiry || h.FieldExpiries() > 0) {
			w.removeKind(k, KindAny)
			return
		}
	}
	// Only single cells: removing them says less, and means the same.
	if h.Live[KindString] > 0 {
		w.removeCell(CellID{k, KindString, ""})
	}
	if h.Live[KindExpiry] > 0 {
		w.removeCell(CellID{k, KindExpiry, ""})
	}
}

// removeCell removes a cell if it is live.
func (w *Writer) removeCell(id CellID) {
	if c := w.ks.Store.Cell(id); c != nil && c.Live() {
		r := w.removeOf(id, c)
		w.do(Delta{Level: LevelCell, ID: id, Remove: &r})
	}
}

// put replaces what a cell holds.
func (w *Writer) put(id CellID, value []byte) {
	parts := w.parts.take()
	*parts = putParts{w.removeOf(id, w.ks.Store.Cell(id)), Put{Tag: w.tag, Value: value}}
	w.do(Delta{Level: LevelCell, ID: id, Remove: &parts.remove, Put: &parts.put})
}

func (w *Writer) removeOf(id CellID, c *Cell) Remove {
	r := Remove{Tag: w.tag, Ctx: w.seen(id.Key)}
	if c != nil {
		if seen := c.seen(w.origin | Stream(w.lane)); len(seen) > 0 {
			r.Seen = []SeenCell{{ID: id, Counts: seen}}
		}
	}
	return r
}

func (w *Writer) removeKind(k Key, kind Kind) {
	level := LevelKind
	if kind == KindAny {
		level = LevelKey
	}
	w.do(Delta{Level: level, ID: CellID{Key: k, Kind: kind},
		Remove: &Remove{Tag: w.tag, Ctx: w.seen(k)}})
}

// do applies a delta here and folds it into the lane's entry.
func (w *Writer) do(d Delta) {
	w.ks.apply(w.origin|Stream(w.lane), &d, true)
	w.folds[w.lane].Add(d)
	w.writes++
}
