package crdt

// Writer turns local writes into deltas: it reads the keyspace, makes the delta
// that has the wished effect on what this replica has seen, applies it, and
// folds it into the entry of its lane. One writer serves one commit group, all
// of whose writes carry one tag.
type Writer struct {
	ks     *Keyspace
	origin Stream
	lane   Lane
	tag    Tag
	now    int64
	folds  [Lanes]Fold
}

// NewWriter returns a writer of an origin for a group with the given tag. now
// is the hybrid time in Unix milliseconds by which keys are expired.
func NewWriter(ks *Keyspace, origin Stream, tag Tag, now int64) *Writer {
	return &Writer{ks: ks, origin: origin.Origin(), tag: tag, now: now}
}

// SetLane chooses the lane of the writes to follow.
func (w *Writer) SetLane(l Lane) { w.lane = l }

// Now returns the time by which keys are expired, in Unix milliseconds.
func (w *Writer) Now() int64 { return w.now }

// Entries returns one entry for each lane that was written to.
func (w *Writer) Entries() []Entry {
	var out []Entry
	for l := range w.folds {
		if f := &w.folds[l]; !f.Empty() {
			s := w.origin | Stream(l)
			out = append(out, Entry{Stream: s, Prev: w.ks.Have.Get(s), Tag: w.tag, Ctx: w.ks.Have.Clone(), Deltas: f.Deltas()})
		}
	}
	return out
}

// Type returns the visible type of a key, TypeNone if it does not exist.
func (w *Writer) Type(k Key) Type {
	if h := w.ks.Store.Header(k); h != nil && !h.Swept && h.Exists(w.now) {
		return h.Type
	}
	return TypeNone
}

// Elem returns the visible value of an element of an existing key of the
// kind's type; a string's element is "". A member's value is empty. The result
// must not be changed.
func (w *Writer) Elem(k Key, kind Kind, elem string) ([]byte, bool) {
	if w.Type(k) != kind.Type() {
		return nil, false
	}
	c := w.ks.Store.Cell(CellID{k, kind, elem})
	if c == nil || !c.Live() {
		return nil, false
	}
	return c.Text(), true
}

// Len returns the number of elements of a key, 0 if it is of another type.
func (w *Writer) Len(k Key, kind Kind) int {
	if w.Type(k) != kind.Type() {
		return 0
	}
	return w.ks.Store.Header(k).Len(kind)
}

// EachElem calls fn for the elements of a key in their order until it returns
// false. fn must not write to the key.
func (w *Writer) EachElem(k Key, kind Kind, fn func(elem string, value []byte) bool) {
	if w.Type(k) != kind.Type() {
		return
	}
	w.ks.Store.EachCell(k, kind, func(id CellID, c *Cell) bool {
		return !c.Live() || fn(id.Elem, c.Text())
	})
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
// otherwise.
func (w *Writer) SetElem(k Key, kind Kind, elem string, value []byte) {
	w.prepare(k, kind.Type())
	d := w.removeOf(CellID{k, kind, elem})
	d.Put = &Put{Tag: w.tag, Value: value}
	w.do(d)
}

// SetString makes the key a string, whatever it was. keepTTL leaves its expiry.
func (w *Writer) SetString(k Key, value []byte, keepTTL bool) {
	w.prepare(k, TypeString)
	if !keepTTL {
		w.removeCell(CellID{k, KindExpiry, ""})
	}
	w.SetElem(k, KindString, "", value)
}

// AddElem adds to the number in an element, which is 0 if it is not there. The
// caller has checked the type, and that the value is a number.
func (w *Writer) AddElem(k Key, kind Kind, elem string, n Number) {
	w.prepare(k, kind.Type())
	id := CellID{k, kind, elem}
	s := w.origin | Stream(w.lane)
	a := &Add{Tag: w.tag, Epoch: w.tag, Sum: n}
	c := w.ks.cell(id)
	if i, ok := c.count(s); ok && c.Counts[i].Live() {
		a.Epoch, a.Sum = c.Counts[i].Epoch, c.Counts[i].Sum.Add(n)
	}
	w.do(Delta{Level: LevelCell, ID: id, Add: a})
}

// RemoveElem removes an element and reports whether it was there. With its
// last element a key goes, and its expiry with it.
func (w *Writer) RemoveElem(k Key, kind Kind, elem string) bool {
	if _, ok := w.Elem(k, kind, elem); !ok {
		return false
	}
	w.prepare(k, kind.Type())
	w.removeCell(CellID{k, kind, elem})
	if w.ks.header(k).Type == TypeNone {
		w.removeCell(CellID{k, KindExpiry, ""})
	}
	return true
}

// Remove removes a key and reports whether it existed.
func (w *Writer) Remove(k Key) bool {
	existed := w.Type(k) != TypeNone
	if existed {
		w.clear(k)
	}
	return existed
}

// SetExpiry sets when an existing key expires, in Unix milliseconds; Never
// makes it lasting against any expiry set elsewhere at the same time. A time
// that has passed removes the key.
func (w *Writer) SetExpiry(k Key, at int64) {
	if w.Type(k) == TypeNone {
		return
	}
	if at <= w.now {
		w.clear(k)
		return
	}
	w.prepare(k, w.Type(k))
	d := w.removeOf(CellID{k, KindExpiry, ""})
	d.Put = &Put{Tag: w.tag, Value: encodeExpiry(at)}
	w.do(d)
}

// Flush removes everything in a database.
func (w *Writer) Flush(db uint8) {
	if w.ks.HaveOf != nil {
		// While a state sync is under way keys differ in what they have seen.
		w.ks.Store.EachKey(db, func(k Key, _ *Header) bool {
			w.clear(k)
			return true
		})
		return
	}
	r := &Remove{Tag: w.tag, Ctx: w.ks.Have.Clone()}
	w.ks.Store.EachKey(db, func(k Key, _ *Header) bool {
		r.Seen = append(r.Seen, w.seenIn(k, KindAny)...)
		return true
	})
	w.do(Delta{Level: LevelDB, ID: CellID{Key: Key{DB: db}}, Remove: r})
}

// prepare clears what a write to the key as type t must not leave: the whole
// of it if it has expired or only an expiry is left, and what is hidden behind
// the visible type or replaced by t.
func (w *Writer) prepare(k Key, t Type) {
	h := w.ks.Store.Header(k)
	if h == nil || h.Live == [numKinds]uint32{} {
		return
	}
	if h.Swept || !h.Exists(w.now) {
		w.clear(k)
		return
	}
	for kind, n := range h.Live {
		if kt := Kind(kind).Type(); n > 0 && kt != t && kt != TypeNone {
			w.removeKind(k, Kind(kind))
		}
	}
}

// clear removes all that is live under a key, existing or expired.
func (w *Writer) clear(k Key) {
	h := w.ks.Store.Header(k)
	if h == nil {
		return
	}
	for kind, n := range h.Live {
		if n > 0 && Kind(kind) != KindString && Kind(kind) != KindExpiry {
			w.removeKind(k, KindAny)
			return
		}
	}
	// Only single cells: removing them says less, and means the same.
	w.removeCell(CellID{k, KindString, ""})
	w.removeCell(CellID{k, KindExpiry, ""})
}

func (w *Writer) removeCell(id CellID) {
	if c := w.ks.Store.Cell(id); c != nil && c.Live() {
		w.do(w.removeOf(id))
	}
}

func (w *Writer) removeOf(id CellID) Delta {
	r := &Remove{Tag: w.tag, Ctx: w.ks.vector(id.Key)}
	if seen := w.ks.cell(id).seen(w.origin | Stream(w.lane)); len(seen) > 0 {
		r.Seen = []SeenCell{{ID: id, Counts: seen}}
	}
	return Delta{Level: LevelCell, ID: id, Remove: r}
}

func (w *Writer) removeKind(k Key, kind Kind) {
	level := LevelKind
	if kind == KindAny {
		level = LevelKey
	}
	w.do(Delta{Level: level, ID: CellID{Key: k, Kind: kind},
		Remove: &Remove{Tag: w.tag, Ctx: w.ks.vector(k), Seen: w.seenIn(k, kind)}})
}

func (w *Writer) seenIn(k Key, kind Kind) []SeenCell {
	var out []SeenCell
	w.ks.Store.EachCell(k, kind, func(id CellID, c *Cell) bool {
		if seen := c.seen(w.origin | Stream(w.lane)); len(seen) > 0 {
			out = append(out, SeenCell{ID: id, Counts: seen})
		}
		return true
	})
	return out
}

// do applies a delta here and folds it into the lane's entry.
func (w *Writer) do(d Delta) {
	w.ks.apply(w.origin|Stream(w.lane), &d)
	w.folds[w.lane].Add(d)
}
