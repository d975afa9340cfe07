// Package crdttest holds what tests of replicated state need: a Store in
// memory, the checks every store must pass, and the state sync of two
// keyspaces in one call. It is for tests, of this module's packages alike.
package crdttest

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/replicatord/replicatord/crdt"
)

// Store is a crdt.Store in memory. It keeps the encodings of cells and headers
// as a store on disk does, so that a test sees the same copies, the same order
// and the same codecs. The zero value is not usable; see New.
type Store struct {
	keys    map[crdt.Key]*stored
	pending map[uint8][]byte
	digest  uint64
	owner   *int // whose entries may be changed in place
}

type stored struct {
	owner  *int
	header []byte // nil: none
	cells  []cell // by kind, then element
}

type cell struct {
	kind crdt.Kind
	elem string
	enc  []byte
}

func (c cell) compare(o cell) int {
	return cmp.Or(cmp.Compare(c.kind, o.kind), strings.Compare(c.elem, o.elem))
}

// New returns an empty store.
func New() *Store {
	return &Store{keys: map[crdt.Key]*stored{}, pending: map[uint8][]byte{}, owner: new(int)}
}

// Clone returns a copy; changes to either do not show in the other.
func (s *Store) Clone() *Store {
	s.owner = new(int) // what both share is nobody's to change in place
	return &Store{keys: maps.Clone(s.keys), pending: maps.Clone(s.pending), digest: s.digest, owner: new(int)}
}

// Digest returns the sum of all digests added.
func (s *Store) Digest() uint64 { return s.digest }

// Cell implements crdt.Store.
func (s *Store) Cell(id crdt.CellID) *crdt.Cell {
	k := s.keys[id.Key]
	if k == nil {
		return nil
	}
	i, ok := k.find(id)
	if !ok {
		return nil
	}
	return decodeCell(k.cells[i].enc)
}

// Fresh implements crdt.Store: it panics if it is not so.
func (s *Store) Fresh(id crdt.CellID) {
	if s.Cell(id) != nil {
		panic(fmt.Sprintf("crdttest: %v is stored, and was called fresh", id))
	}
}

// SetCell implements crdt.Store.
func (s *Store) SetCell(id crdt.CellID, c *crdt.Cell) {
	if c.Empty() && s.keys[id.Key] == nil {
		return
	}
	k := s.own(id.Key)
	i, ok := k.find(id)
	switch {
	case !c.Empty() && ok:
		k.cells[i].enc = c.AppendBinary(nil)
	case !c.Empty():
		k.cells = slices.Insert(k.cells, i, cell{id.Kind, id.Elem, c.AppendBinary(nil)})
	case ok:
		k.cells = slices.Delete(k.cells, i, i+1)
		s.drop(id.Key, k)
	}
}

// Header implements crdt.Store.
func (s *Store) Header(key crdt.Key) *crdt.Header {
	if k := s.keys[key]; k != nil && k.header != nil {
		return decodeHeader(k.header)
	}
	return nil
}

// SetHeader implements crdt.Store.
func (s *Store) SetHeader(key crdt.Key, h *crdt.Header) {
	if h.Empty() && s.keys[key] == nil {
		return
	}
	k := s.own(key)
	if !h.Empty() {
		k.header = h.AppendBinary(nil)
		return
	}
	k.header = nil
	s.drop(key, k)
}

// EachCell implements crdt.Store.
func (s *Store) EachCell(key crdt.Key, kind crdt.Kind, fn func(crdt.CellID, *crdt.Cell) bool) {
	k := s.keys[key]
	if k == nil {
		return
	}
	for _, c := range slices.Clone(k.cells) {
		if kind != crdt.KindAny && c.kind != kind {
			continue
		}
		if !fn(crdt.CellID{Key: key, Kind: c.kind, Elem: c.elem}, decodeCell(c.enc)) {
			return
		}
	}
}

// EachCellFrom implements crdt.Store.
func (s *Store) EachCellFrom(key crdt.Key, kind crdt.Kind, from string, back bool, fn func(crdt.CellID, *crdt.Cell) bool) {
	k := s.keys[key]
	if k == nil {
		return
	}
	cells := slices.Clone(k.cells)
	if back {
		slices.Reverse(cells)
	}
	for _, c := range cells {
		if c.kind != kind || !back && c.elem < from || back && from != "" && c.elem > from {
			continue
		}
		if !fn(crdt.CellID{Key: key, Kind: c.kind, Elem: c.elem}, decodeCell(c.enc)) {
			return
		}
	}
}

// EachKey implements crdt.Store. Keys come in order of their names.
func (s *Store) EachKey(db uint8, fn func(crdt.Key, *crdt.Header) bool) {
	for _, key := range s.Keys() {
		if key.DB != db {
			continue
		}
		if h := s.Header(key); h != nil && !fn(key, h) {
			return
		}
	}
}

// KeysFrom implements crdt.Store. Where it goes on is the name of the last key.
func (s *Store) KeysFrom(db uint8, from []byte, most int) (keys []crdt.Key, next []byte) {
	s.EachKey(db, func(k crdt.Key, _ *crdt.Header) bool {
		if from != nil && k.Name <= string(from) {
			return true
		}
		if len(keys) == most {
			next = append([]byte{}, keys[most-1].Name...)
			return false
		}
		keys = append(keys, k)
		return true
	})
	return keys, next
}

// Keys returns every key of which anything is stored, in order.
func (s *Store) Keys() []crdt.Key {
	out := slices.Collect(maps.Keys(s.keys))
	slices.SortFunc(out, func(a, b crdt.Key) int {
		return cmp.Or(cmp.Compare(a.DB, b.DB), strings.Compare(a.Name, b.Name))
	})
	return out
}

// DBPending implements crdt.Store.
func (s *Store) DBPending(db uint8) crdt.Vector {
	enc := s.pending[db]
	if enc == nil {
		return nil
	}
	v, err := crdt.DecodeVector(enc)
	if err != nil {
		panic(err)
	}
	return v
}

// Recall implements crdt.Store.
func (s *Store) Recall([]crdt.CellID) {}

// SetDBPending implements crdt.Store.
func (s *Store) SetDBPending(db uint8, v crdt.Vector) {
	if len(v) == 0 {
		delete(s.pending, db)
		return
	}
	s.pending[db] = v.AppendBinary(nil)
}

// AddDigest implements crdt.Store.
func (s *Store) AddDigest(_ crdt.Key, delta uint64) { s.digest += delta }

// AppendBinary appends an encoding of all that is stored: the same for stores
// that hold the same, and for no others.
func (s *Store) AppendBinary(b []byte) []byte {
	for _, key := range s.Keys() {
		k := s.keys[key]
		b = append(b, 'k', key.DB)
		b = appendBytes(b, key.Name)
		b = appendBytes(b, k.header)
		for _, c := range k.cells {
			b = append(b, 'c', byte(c.kind))
			b = appendBytes(b, c.elem)
			b = appendBytes(b, c.enc)
		}
	}
	for _, db := range slices.Sorted(maps.Keys(s.pending)) {
		b = append(b, 'p', db)
		b = append(b, s.pending[db]...)
	}
	return b
}

func appendBytes[T string | []byte](b []byte, t T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(t))), t...)
}

// own returns a key's entry for changing.
func (s *Store) own(key crdt.Key) *stored {
	k := s.keys[key]
	switch {
	case k == nil:
		k = &stored{owner: s.owner}
	case k.owner != s.owner:
		k = &stored{owner: s.owner, header: k.header, cells: slices.Clone(k.cells)}
	default:
		return k
	}
	s.keys[key] = k
	return k
}

func (s *Store) drop(key crdt.Key, k *stored) {
	if k.header == nil && len(k.cells) == 0 {
		delete(s.keys, key)
	}
}

func (k *stored) find(id crdt.CellID) (int, bool) {
	return slices.BinarySearchFunc(k.cells, cell{kind: id.Kind, elem: id.Elem}, cell.compare)
}

func decodeCell(b []byte) *crdt.Cell {
	c, err := crdt.DecodeCell(b)
	if err != nil {
		panic(fmt.Sprintf("crdttest: a cell does not decode: %v", err))
	}
	return c
}

func decodeHeader(b []byte) *crdt.Header {
	h, err := crdt.DecodeHeader(b)
	if err != nil {
		panic(fmt.Sprintf("crdttest: a header does not decode: %v", err))
	}
	return h
}
