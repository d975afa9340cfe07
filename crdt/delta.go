package crdt

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Key names a Redis key: its database and name.
type Key struct {
	DB   uint8
	Name string
}

// CellID names a cell.
type CellID struct {
	Key  Key
	Kind Kind
	Elem string
}

// Level says how much a delta is about.
type Level uint8

// Levels. A remove can be of any; values and increments go to cells.
const (
	LevelDB   Level = iota // everything in a database
	LevelKey               // everything under a key
	LevelKind              // the cells of one kind under a key
	LevelCell              // one cell
)

// Delta is what a range of one stream's entries does to one cell, or, for
// removes, to a key or database. Its parts are applied in the order of the
// fields, each only at replicas that have not applied the stream up to its
// tag.
type Delta struct {
	Level  Level
	ID     CellID // as far as Level needs it
	Remove *Remove
	Put    *Put
	Add    *Add
}

// Remove takes away every value and increment its writer had seen.
type Remove struct {
	Tag  Tag
	Ctx  Vector // what the writer had seen
	Seen []SeenCell
}

// SeenCell lists the counts of one cell that a remove has seen.
type SeenCell struct {
	ID     CellID
	Counts []Seen
}

// Put sets a value with the dot (stream, Tag).
type Put struct {
	Tag   Tag
	Value []byte
}

// Add sets the stream's count.
type Add struct {
	Tag   Tag
	Epoch Tag
	Sum   Number
}

// Entry is one step of a stream: a commit group's deltas of one lane, or the
// fold of several such steps. Its deltas are applied together or not at all.
type Entry struct {
	Stream Stream
	Prev   Tag    // of the entry before it in the stream; 0 for the first
	Tag    Tag    // of the (last) step
	Ctx    Vector // the origin's vector when the (last) step was made
	Deltas []Delta
}

// Fold gathers deltas of one stream, in order, into as few as do the same.
// Applying what it returns is the same as applying them one by one, at any
// replica that has applied any prefix of them.
type Fold struct {
	dbs  map[uint8]*Delta
	keys map[Key]*keyFold
	room pool[keyFold] // of keys
	list []*keyFold    // of Deltas, to be used again
	sort []*Delta      // likewise
}

// keyFold holds the deltas of one key: each target at most once.
type keyFold struct {
	key    Key
	deltas []Delta
	first  [1]Delta // where deltas begins: most keys have one
	index  *Index   // of those of cells, if there are more than fewDeltas
}

// empty makes it as good as new.
func (k *keyFold) empty(most int) {
	k.index.Reset(most)
	*k = keyFold{deltas: emptied(k.deltas, most), index: k.index}
}

const fewDeltas = 8

// Empty reports whether nothing was gathered.
func (f *Fold) Empty() bool { return len(f.dbs) == 0 && len(f.keys) == 0 }

// Len returns the number of deltas gathered so far.
func (f *Fold) Len() int {
	n := len(f.dbs)
	for _, k := range f.keys {
		n += len(k.deltas)
	}
	return n
}

// touches reports whether anything gathered concerns the key.
func (f *Fold) touches(k Key) bool {
	if _, ok := f.keys[k]; ok {
		return true
	}
	_, ok := f.dbs[k.DB]
	return ok
}

// Add takes the next delta of the stream.
func (f *Fold) Add(d Delta) {
	if f.keys == nil {
		f.keys = map[Key]*keyFold{}
	}
	if d.Level == LevelDB {
		if f.dbs == nil {
			f.dbs = map[uint8]*Delta{}
		}
		maps.DeleteFunc(f.keys, func(k Key, _ *keyFold) bool { return k.DB == d.ID.Key.DB })
		whole := d // what is to stay is not d, which else would be allocated each time
		f.dbs[d.ID.Key.DB] = &whole
		return
	}
	k := f.keys[d.ID.Key]
	if k == nil {
		k = f.room.take()
		if k.key = d.ID.Key; k.deltas == nil {
			k.deltas = k.first[:0]
		}
		f.keys[d.ID.Key] = k
	}
	k.add(d)
}

func (k *keyFold) add(d Delta) {
	switch d.Level {
	case LevelKey: // swallows all that came before it
		k.deltas = nil
		k.index.Reset(grownKept)
	case LevelKind:
		k.deltas = slices.DeleteFunc(k.deltas, func(o Delta) bool { return o.ID.Kind == d.ID.Kind && o.Level != LevelKey })
		k.index.Reset(grownKept)
	case LevelCell:
		if old := k.find(d.ID); old != nil {
			if d.Remove == nil {
				// A write that removes nothing leaves the parts it lacks.
				d.Remove = old.Remove
				if d.Put == nil {
					d.Put = old.Put
				}
				if d.Add == nil {
					d.Add = old.Add
				}
			}
			*old = d
			return
		}
	}
	k.deltas = append(k.deltas, d)
	if !k.index.Empty() {
		k.enter(len(k.deltas) - 1)
	}
}

// enter adds a delta to the index.
func (k *keyFold) enter(i int) {
	if d := &k.deltas[i]; d.Level == LevelCell {
		k.index.Add(HashElem(d.ID.Kind, d.ID.Elem), i)
	}
}

// find returns what was gathered of a cell, nil if nothing was.
func (k *keyFold) find(id CellID) *Delta {
	if len(k.deltas) > fewDeltas {
		if k.index.Empty() {
			if k.index == nil {
				k.index = new(Index)
			}
			for i := range k.deltas {
				k.enter(i)
			}
		}
		h := HashElem(id.Kind, id.Elem)
		for i, at := k.index.First(h); i >= 0; i, at = k.index.Next(h, at) {
			if d := &k.deltas[i]; d.ID == id {
				return d
			}
		}
		return nil
	}
	for i := range k.deltas {
		if d := &k.deltas[i]; d.Level == LevelCell && d.ID == id {
			return d
		}
	}
	return nil
}

// reset empties a fold, to be used again.
func (f *Fold) reset() {
	if len(f.keys) > mapKept {
		f.keys, f.list = nil, nil
	}
	clear(f.dbs)
	clear(f.keys)
	clear(f.list)
	if cap(f.sort) > firstKept {
		f.sort = nil
	}
	f.room.reset((*keyFold).empty)
}

// Deltas returns what was gathered in the order in which it is to be applied:
// wider removes first, then by key, kind and element.
func (f *Fold) Deltas() []Delta { return f.appendDeltas(make([]Delta, 0, f.Len())) }

// appendDeltas appends what Deltas returns.
func (f *Fold) appendDeltas(out []Delta) []Delta {
	for _, db := range slices.Sorted(maps.Keys(f.dbs)) {
		out = append(out, *f.dbs[db])
	}
	keys := f.list[:0]
	for _, k := range f.keys {
		keys = append(keys, k)
	}
	f.list = keys
	slices.SortFunc(keys, func(a, b *keyFold) int {
		return cmp.Or(cmp.Compare(a.key.DB, b.key.DB), cmp.Compare(a.key.Name, b.key.Name))
	})
	order := f.sort[:0] // they are large to be moved
	for _, k := range keys {
		if len(k.deltas) == 1 {
			out = append(out, k.deltas[0])
			continue
		}
		order = order[:0]
		for i := range k.deltas {
			order = append(order, &k.deltas[i])
		}
		slices.SortFunc(order, compareDeltas)
		for _, d := range order {
			out = append(out, *d)
		}
		clear(order)
	}
	f.sort = order
	return out
}

// compareDeltas is the order of the deltas of a key.
func compareDeltas(a, b *Delta) int {
	if a.Level != b.Level {
		return cmp.Compare(a.Level, b.Level)
	}
	return compareCells(&a.ID, &b.ID)
}

// compareCells is the order of the cells of a key.
func compareCells(a, b *CellID) int {
	if a.Kind != b.Kind {
		return cmp.Compare(a.Kind, b.Kind)
	}
	return strings.Compare(a.Elem, b.Elem)
}

// FoldEntries folds consecutive entries of one stream into one. It panics if
// they are not consecutive: that is a bug of the caller's.
func FoldEntries(entries []Entry) Entry {
	if len(entries) == 1 {
		return entries[0]
	}
	var f Fold
	last := entries[len(entries)-1]
	out := Entry{Stream: last.Stream, Prev: entries[0].Prev, Tag: last.Tag, Ctx: last.Ctx}
	for i, e := range entries {
		if i > 0 && (e.Stream != last.Stream || e.Prev != entries[i-1].Tag) {
			panic("crdt: folding entries that are not consecutive")
		}
		for _, d := range e.Deltas {
			f.Add(d)
		}
	}
	out.Deltas = f.Deltas()
	return out
}

// After returns what of the entry a replica lacks that has applied its stream up
// to t, at which the entry then begins. There it does the same.
func (e *Entry) After(t Tag) Entry {
	out := *e
	out.Prev, out.Deltas = t, nil
	for _, d := range e.Deltas {
		if d.Remove != nil && d.Remove.Tag <= t {
			d.Remove = nil
		}
		if d.Put != nil && d.Put.Tag <= t {
			d.Put = nil
		}
		if d.Add != nil && d.Add.Tag <= t {
			d.Add = nil
		}
		if d.Remove != nil || d.Put != nil || d.Add != nil {
			out.Deltas = append(out.Deltas, d)
		}
	}
	return out
}

// ErrInvalid reports an entry that no writer makes.
var ErrInvalid = errors.New("invalid entry")

// Validate checks an entry that came from elsewhere. Keyspace.Apply takes only
// valid entries; those that a Writer makes, and their folds, are. Errors wrap
// ErrInvalid.
func (e *Entry) Validate() error {
	if e.Stream.Node() == 0 || e.Stream.Lane() >= Lanes || e.Tag <= e.Prev || e.Tag > maxTag || !e.Ctx.valid() {
		return fmt.Errorf("%w: of stream %v from %v to %v", ErrInvalid, e.Stream, e.Prev, e.Tag)
	}
	for i := range e.Deltas {
		if d := &e.Deltas[i]; !d.valid(e) {
			return fmt.Errorf("%w: delta %d, of key %.40q in database %d", ErrInvalid, i, d.ID.Key.Name, d.ID.Key.DB)
		}
	}
	return nil
}

func (d *Delta) valid(e *Entry) bool {
	within := func(t Tag) bool { return t > e.Prev && t <= e.Tag }
	switch d.Level {
	case LevelDB, LevelKey:
		if d.ID.Kind != KindAny {
			return false
		}
	case LevelKind, LevelCell:
		if d.ID.Kind == KindAny || d.ID.Kind >= numKinds {
			return false
		}
	default:
		return false
	}
	if d.Level != LevelCell && (d.Remove == nil || d.Put != nil || d.Add != nil) {
		return false
	}
	if r := d.Remove; r != nil {
		if !within(r.Tag) || !r.Ctx.valid() {
			return false
		}
		for _, s := range r.Seen {
			if !d.covers(s.ID) {
				return false
			}
			for _, n := range s.Counts {
				if n.Stream == e.Stream || n.Epoch == 0 || n.Epoch > n.Tag || n.Tag > r.Ctx.Get(n.Stream) {
					return false
				}
			}
		}
	}
	if d.Put != nil && (!within(d.Put.Tag) || !d.ID.Valid()) {
		return false
	}
	if a := d.Add; a != nil && (!within(a.Tag) || a.Epoch == 0 || a.Epoch > a.Tag) {
		return false
	}
	return d.Remove != nil || d.Put != nil || d.Add != nil
}

// Valid reports whether a value can be in the cell: items of lists have
// positions, expiries are a key's or a field's.
func (id CellID) Valid() bool {
	switch id.Kind {
	case KindItem:
		_, err := ParseItemPos(id.Elem)
		return err == nil
	case KindExpiry:
		return id.Elem == "" || id.Elem[0] == fieldPrefix
	}
	return true
}

// covers reports whether a cell is among those the delta is about.
func (d *Delta) covers(id CellID) bool {
	switch {
	case id.Kind == KindAny || id.Kind >= numKinds || id.Key.DB != d.ID.Key.DB:
		return false
	case d.Level == LevelDB:
		return true
	case d.Level == LevelKey:
		return id.Key == d.ID.Key
	case d.Level == LevelKind:
		return id.Key == d.ID.Key && id.Kind == d.ID.Kind
	}
	return id == d.ID
}
