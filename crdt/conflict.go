package crdt

import (
	"bytes"
	"encoding/binary"
)

// Conflict tells of two values under a key whose writers had not seen each
// other: of one cell, or of cells that make the key two types. Both are kept;
// one shows.
type Conflict struct {
	Visible, Hidden Rival
}

// Rival is one of the two values of a conflict, and where it stands.
type Rival struct {
	ID CellID
	Sibling
}

// maxRival bounds the bytes of a value, and of an element, that a conflict
// keeps.
const maxRival = 1024

// Clipped returns the conflict with long values and elements cut off.
func (c Conflict) Clipped() Conflict {
	for _, r := range []*Rival{&c.Visible, &c.Hidden} {
		r.Value = bytes.Clone(r.Value[:min(len(r.Value), maxRival)])
		r.ID.Elem = r.ID.Elem[:min(len(r.ID.Elem), maxRival)]
	}
	return c
}

// AppendBinary appends the conflict's encoding.
func (c Conflict) AppendBinary(b []byte) []byte {
	b = append(b, c.Visible.ID.Key.DB)
	b = appendText(b, c.Visible.ID.Key.Name)
	for _, r := range []*Rival{&c.Visible, &c.Hidden} {
		b = appendText(append(b, byte(r.ID.Kind)), r.ID.Elem)
		b = r.Dot.appendBinary(b)
		b = appendText(b, string(r.Value))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// DecodeConflict reads a conflict that fills the whole of b. Errors wrap
// ErrCorrupt.
func DecodeConflict(b []byte) (Conflict, error) {
	d := NewReader(b)
	key := Key{DB: d.Byte(), Name: string(d.Bytes())}
	var c Conflict
	for _, r := range []*Rival{&c.Visible, &c.Hidden} {
		r.ID = CellID{Key: key, Kind: Kind(d.Byte()), Elem: string(d.Bytes())}
		d.bad = d.bad || r.ID.Kind >= numKinds
		r.Dot, r.Value = d.dot(), d.Bytes()
	}
	return c, d.End("conflict")
}

// rivals reports whether concurrent values of the kind are in conflict: only
// one of them shows. Others are joined, or say nothing.
func (k Kind) rivals() bool {
	switch k {
	case KindString, KindField, KindScored, KindItem, KindEntry:
		return true
	}
	return false
}

// meet reports the conflicts that a change has brought into a cell which had
// the given values before: of what is new with what shows, or, if it is that,
// with what showed.
func (ks *Keyspace) meet(id CellID, c *Cell, was []Sibling) {
	if ks.OnConflict == nil || len(c.Values) < 2 || !id.Kind.rivals() {
		return
	}
	before := Cell{Values: was}
	for i, v := range c.Values {
		if before.has(v.Dot) {
			continue
		}
		top, hidden := c.Values[0], v
		if i == 0 {
			hidden = c.Values[1]
		}
		if !bytes.Equal(top.Value, hidden.Value) {
			ks.OnConflict(Conflict{Rival{id, top}, Rival{id, hidden}})
		}
	}
}

// meetType reports the conflict of a key that a change of one cell has given a
// second type.
func (ks *Keyspace) meetType(id CellID, before, after *[numKinds]uint32) {
	t := id.Kind.Type()
	if ks.OnConflict == nil || t == TypeNone || before[id.Kind] > 0 {
		return
	}
	had, has, other := false, false, false
	for k := range after {
		switch Kind(k).Type() {
		case t:
			had, has = had || before[k] > 0, has || after[k] > 0
		case TypeNone:
		default:
			other = other || after[k] > 0
		}
	}
	if had || !has || !other {
		return
	}
	var mine, theirs Rival
	ks.Store.EachCell(id.Key, KindAny, func(at CellID, c *Cell) bool {
		r := &theirs
		switch at.Kind.Type() {
		case TypeNone:
			return true
		case t:
			r = &mine
		}
		if d := c.Newest(); d.Compare(r.Dot) > 0 {
			*r = Rival{at, Sibling{Dot: d, Value: c.Visible(at.Kind)}}
		}
		return true
	})
	if mine.Dot.Compare(theirs.Dot) > 0 {
		ks.OnConflict(Conflict{mine, theirs})
	} else {
		ks.OnConflict(Conflict{theirs, mine})
	}
}
