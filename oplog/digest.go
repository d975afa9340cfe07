package oplog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// The digest of a key is the sum over its live cells; it is in the key's
// header. That of a bucket (Log.Digests) leaves out keys that have been swept,
// each replica by its own clock. With them it depends on the vector alone:
// FullDigests.

// BucketPos returns the position before the first key of a bucket; for Buckets
// it is nil, the end.
func BucketPos(bucket int) []byte {
	if bucket >= Buckets {
		return nil
	}
	return SlotPos(uint16(bucket * bucketSlots))
}

// BucketAt returns the bucket that begins at a position, nil being that of the
// end, and whether one does.
func BucketAt(pos []byte) (int, bool) {
	switch {
	case len(pos) == 0:
		return Buckets, true
	case len(pos) == 2 && binary.BigEndian.Uint16(pos)%bucketSlots == 0:
		return int(binary.BigEndian.Uint16(pos)) / bucketSlots, true
	}
	return 0, false
}

// PosBucket returns the bucket that a position lies in; "" is that of the
// beginning.
func PosBucket(pos []byte) int {
	if len(pos) < 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(pos)) / bucketSlots
}

// FullDigests returns the digests of the buckets from from up to but without
// to, those that were swept included: equal vectors mean equal full digests.
func (s *Snapshot) FullDigests(from, to int) ([]uint64, error) {
	out := append([]uint64(nil), s.Digests[from:to]...)
	err := s.rows(rangeSwept, BucketPos(from), BucketPos(to), func(row []byte) error {
		pos, field, err := splitPos(row)
		if err != nil || len(field) > 0 { // a hidden field counts as any other
			return err
		}
		b, err := get(s.snap, append(append([]byte{rangeCells}, pos...), byte(crdt.KindAny)))
		if err != nil {
			return err
		}
		g, err := glanceRow(b)
		out[PosBucket(pos)-from] += g.Digest
		return err
	})
	return out, err
}

// Remnants calls fn for the positions, in order, of the keys in [from, to) of
// which anything is stored that is not live; see Remnant.
func (s *Snapshot) Remnants(from, to []byte, fn func(pos []byte) error) error {
	var last []byte
	return s.rows(rangeRemnants, from, to, func(row []byte) error {
		pos, _, err := splitPos(row)
		if err != nil || bytes.Equal(pos, last) {
			return err
		}
		last = bytes.Clone(pos)
		return fn(last)
	})
}

// rows calls fn for what follows the range byte of the rows of an index that is
// ordered by position.
func (s *Snapshot) rows(r byte, from, to []byte, fn func(row []byte) error) error {
	it, err := s.iter(r, from, to)
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = fn(it.Key()[1:])
	}
	return errors.Join(err, it.Error(), it.Close())
}

// iter iterates a range that is ordered by position.
func (s *Snapshot) iter(r byte, from, to []byte) (*pebble.Iterator, error) {
	high := []byte{r + 1}
	if len(to) > 0 {
		high = append([]byte{r}, to...)
	}
	return s.snap.NewIter(&pebble.IterOptions{LowerBound: append([]byte{r}, from...), UpperBound: high})
}

// splitPos splits a position off b, which the store has written.
func splitPos(b []byte) (pos, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errKey(b)
	}
	n, w := binary.Uvarint(b[3:])
	if w <= 0 || n > uint64(len(b)-3-w) {
		return nil, nil, errKey(b)
	}
	end := 3 + w + int(n)
	return b[:end], b[end:], nil
}

// State is what a scan tells of one key. Its memory is the scan's until fn
// returns.
type State struct {
	Pos    []byte
	Digest uint64 // of its live cells, also if it was swept; 0 if there are none
	// Plain says that there is nothing but live values and increments that the
	// vector given to EachState covers.
	Plain bool
	Data  []byte // docs/STORAGE.md, "State of a key"
}

// EachState calls fn for the keys in [from, to), nil being either end, in order
// of position until it returns an error, which EachState returns.
func (s *Snapshot) EachState(from, to []byte, known crdt.Vector, fn func(*State) error) error {
	it, err := s.iter(rangeCells, from, to)
	if err != nil {
		return err
	}
	r := stateReader{it: &cellRows{it: it}, known: known}
	r.it.First()
	for {
		ok, e := r.next()
		if !ok || e != nil {
			err = e
			break
		}
		if err = fn(&r.st); err != nil {
			break
		}
	}
	return errors.Join(err, it.Close())
}

// stateReader reads the states of keys, one after the other.
type stateReader struct {
	it        *cellRows // at the first row of a key
	known     crdt.Vector
	st        State // of the key read last
	pos, data []byte
}

// next reads the key at which the iterator is, and moves on to the next; ok is
// false if there is none.
func (r *stateReader) next() (ok bool, err error) {
	st := &r.st
	for begun := false; r.it.Valid(); r.it.Next() {
		row := r.it.Key()[1:]
		if begun && !bytes.HasPrefix(row, r.pos) {
			break
		}
		v, err := r.it.ValueAndErr()
		if err != nil {
			return false, err
		}
		if !begun {
			begun, ok = true, true
			p, _, err := splitPos(row)
			if err != nil {
				return false, err
			}
			r.pos = append(r.pos[:0], p...)
			*st = State{Plain: true}
			var header bool
			if r.data, header, err = beginState(r.data[:0], row, p, v, st); err != nil {
				return false, err
			}
			if header {
				continue
			}
		}
		if err := r.cell(row, v); err != nil {
			return false, err
		}
	}
	st.Pos, st.Data = r.pos, r.data
	return ok, r.it.Error()
}

// cell adds a cell to the state.
func (r *stateReader) cell(row, v []byte) (err error) {
	rest := row[len(r.pos):]
	if len(rest) == 0 || rest[0] == 0 || rest[0] > byte(crdt.KindExpiry) {
		return errKey(row)
	}
	v = crdt.Shared(crdt.Kind(rest[0]), rest[1:], v)
	r.data = append(r.data, rest[0])
	r.data = appendSized(r.data, rest[1:])
	r.data = appendSized(r.data, v)
	if r.st.Plain {
		r.st.Plain, err = crdt.Plain(v, r.known)
	}
	return err
}

// lone reads the key whose rows begin with row, if it is a string and nothing
// else is stored of it. The rows of such a key are known, so their newest versions
// are found without the blocks that hold what was in their place before.
func (r *stateReader) lone(in pebble.Reader, row []byte) (ok bool, err error) {
	pos := row[1:]
	v, closer, err := in.Get(append(row, byte(crdt.KindAny)))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	header, cells, err := cutHeaderRow(v)
	var g crdt.HeaderGlance
	if err == nil {
		g, err = crdt.GlanceHeader(header)
	}
	if err != nil || !g.Lone {
		return false, errors.Join(err, closer.Close())
	}
	r.st = State{Plain: true}
	r.pos = append(r.pos[:0], pos...)
	r.data, _, err = beginState(r.data[:0], append(pos, byte(crdt.KindAny)), pos, header, &r.st)
	if carried := cells[0]; err == nil && carried != nil {
		err = r.cell(append(pos, byte(crdt.KindString)), carried)
		r.st.Pos, r.st.Data = r.pos, r.data
		return err == nil, errors.Join(err, closer.Close())
	}
	if err = errors.Join(err, closer.Close()); err != nil {
		return false, err
	}
	v, closer, err = in.Get(append(row, byte(crdt.KindString)))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil // a cell that its header counts: verify says so
	} else if err != nil {
		return false, err
	}
	err = r.cell(append(pos, byte(crdt.KindString)), v)
	r.st.Pos, r.st.Data = r.pos, r.data
	return err == nil, errors.Join(err, closer.Close())
}

// beginState begins the state of the key at pos with its first row, and reports
// whether that was the header.
func beginState(data, row, pos, v []byte, st *State) ([]byte, bool, error) {
	data = append(append(data, pos[2]), pos[3:]...) // database, length, name
	if rest := row[len(pos):]; len(rest) != 1 || rest[0] != byte(crdt.KindAny) {
		st.Plain = false // nothing but remnants
		return append(data, 0), false, nil
	}
	g, err := crdt.GlanceHeader(v)
	if err != nil {
		return nil, false, err
	}
	st.Digest, st.Plain = g.Digest, g.Plain
	if g.Plain {
		return append(data, 0), true, nil
	}
	h, err := crdt.DecodeHeader(v)
	if err != nil {
		return nil, false, err
	}
	data = binary.AppendUvarint(data, uint64(len(h.Pending)))
	for _, p := range h.Pending {
		data = append(data, byte(p.Kind))
		data = appendSized(data, p.Ctx.AppendBinary(nil))
	}
	return data, true, nil
}

func appendSized(b, p []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

// EachDigest calls fn with the position and the digest of each key in [from, to)
// that has a header, in order, until it returns false. The position is the
// scan's until then.
func (s *Snapshot) EachDigest(from, to []byte, fn func(pos []byte, digest uint64) bool) (err error) {
	it, err := s.iter(rangeCells, from, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	var prefix []byte
	for ok := it.First(); ok; {
		row := it.Key()
		pos, rest, err := splitPos(row[1:])
		if err != nil {
			return err
		}
		prefix = append(prefix[:0], row[:1+len(pos)]...)
		if len(rest) == 1 && rest[0] == byte(crdt.KindAny) {
			v, err := it.ValueAndErr()
			if err != nil {
				return err
			}
			g, err := glanceRow(v)
			if err != nil {
				return err
			}
			if !fn(prefix[1:], g.Digest) {
				return nil
			}
		}
		ok = nextKey(it, prefix)
	}
	return nil
}

// EachActual is EachDigest for keys of which anything is stored, with the digest
// that the cells give, whatever the header says.
func (s *Snapshot) EachActual(from, to []byte, fn func(pos []byte, digest uint64) bool) error {
	rows, err := s.iter(rangeCells, from, to)
	if err != nil {
		return err
	}
	it := &cellRows{it: rows}
	var pos []byte
	var sum uint64
	more := true
	for ok := it.First(); ok && more && err == nil; ok = it.Next() {
		var id crdt.CellID
		var p, v []byte
		if id, p, err = cutCell(it.Key()[1:]); err != nil {
			break
		}
		if pos != nil && !bytes.Equal(pos, p) {
			more = fn(pos, sum)
			sum = 0
		}
		pos = append(pos[:0], p...)
		if id.Kind == crdt.KindAny {
			continue
		}
		if v, err = it.ValueAndErr(); err == nil {
			var c *crdt.Cell
			if c, err = crdt.DecodeCell(v); err == nil {
				sum += c.Digest(id)
			}
		}
	}
	if err == nil && it.Error() == nil && more && pos != nil {
		fn(pos, sum)
	}
	return errors.Join(err, it.Error(), it.Close())
}

// WriteThrough has all that the group changes written to its rows at once, for who
// takes snapshots between groups and would have them drained.
func (g *Group) WriteThrough() { g.through = true }

// Absent tells the group that nothing is stored under a key, as a snapshot of
// this moment has shown, so that it need not look for it.
func (g *Group) Absent(k crdt.Key) {
	if ks := g.key(k); !ks.loaded {
		ks.loaded, ks.none = true, noneOf(nil)
	}
}

// Loader loads keys into a group as a snapshot of this moment shows them, for much
// less than if each header and cell was looked up. Keys should come in order of
// position.
type Loader struct {
	g   *Group
	it  *pebble.Iterator
	row []byte
}

// Loader returns a loader, which must be closed.
func (g *Group) Loader(s *Snapshot) (*Loader, error) {
	it, err := s.iter(rangeCells, nil, nil)
	if err != nil {
		return nil, err
	}
	return &Loader{g: g, it: it}, nil
}

// Close ends the loader.
func (l *Loader) Close() error { return l.it.Close() }

// Load loads the header of a key, the cells it carries and the first of the others, so many at most, and returns
// the key's digest, 0 if there is none. ahead, unless it is nil, is what ReadAhead
// has returned for it, for a maximum that was not less.
func (l *Loader) Load(k crdt.Key, cells int, ahead *Stored) (digest uint64, err error) {
	ks := l.g.key(k)
	if ahead != nil && ahead.read && ahead.level >= l.g.l.touched[Bucket(k)] {
		for _, row := range ahead.rows {
			if digest, cells, err = ks.load(row.rest, row.value, digest, cells); err != nil || cells <= 0 {
				break
			}
		}
	} else {
		l.row = headerKey(l.row[:0], k)
		prefix := l.row[:len(l.row)-1]
		for ok := l.it.SeekGE(prefix); ok && bytes.HasPrefix(l.it.Key(), prefix); ok = l.it.Next() {
			v, err := l.it.ValueAndErr()
			if err != nil {
				return 0, err
			}
			if digest, cells, err = ks.load(l.it.Key()[len(prefix):], v, digest, cells); err != nil {
				return 0, err
			}
			if cells <= 0 {
				break
			}
		}
		err = l.it.Error()
	}
	if err == nil && !ks.loaded {
		ks.loaded, ks.none = true, noneOf(nil)
	}
	return digest, err
}

// load takes in a row of the key, of which rest is what follows the key's position.
// digest is that of the rows before, and cells how many cells may be taken in yet.
func (ks *keyState) load(rest, v []byte, digest uint64, cells int) (uint64, int, error) {
	if len(rest) == 1 && rest[0] == byte(crdt.KindAny) {
		h, own, err := decodeHeaderRow(bytes.Clone(v))
		if err != nil {
			return 0, 0, fmt.Errorf("header of %v: %w", ks.key, err)
		}
		if !ks.loaded {
			ks.read(h, &own)
		}
		return h.Digest, min(cells, h.Cells()-own.len()), nil
	}
	if len(rest) == 0 {
		return 0, 0, errKey(v)
	}
	if ck := (cellKey{crdt.Kind(rest[0]), string(rest[1:])}); ks.cells.get(ck) == nil {
		c, err := crdt.DecodeCell(bytes.Clone(v))
		if err != nil {
			return 0, 0, fmt.Errorf("cell %v of %v: %w", ck.kind, ks.key, err)
		}
		cs := ks.newCell(ck)
		cs.read(c, flagsOfCell(ck, c))
		ks.add(cs)
	}
	return digest, cells - 1, nil
}

// Stored is what was read of a key ahead of a Loader.
type Stored struct {
	read  bool
	level uint64 // the rows were level with the records up to this one
	rows  []storedRow
}

type storedRow struct{ rest, value []byte }

// ReadAhead reads the headers of keys, given by position in order, and their first
// cells, so many of each at most, for a Loader that comes to them soon: what has
// changed until then it reads again.
func (l *Log) ReadAhead(keys [][]byte, cells func(i int) int) []Stored {
	out := make([]Stored, len(keys))
	level := l.redo.drained.Load()
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{rangeCells}, UpperBound: []byte{rangeCells + 1}})
	if err != nil {
		return out // the Loader finds out
	}
	var row, data []byte
	var rows []storedRow
	for i, pos := range keys {
		row = append(append(row[:0], rangeCells), pos...)
		first := len(rows)
		n := cells(i)
		for ok := it.SeekGE(row); ok && n > 0 && bytes.HasPrefix(it.Key(), row); ok = it.Next() {
			v, err := it.ValueAndErr()
			if err != nil {
				break
			}
			rest := it.Key()[len(row):]
			if len(data)+len(rest)+len(v) > cap(data) {
				data = make([]byte, 0, max(64<<10, len(rest)+len(v)))
			}
			from, mid := len(data), len(data)+len(rest)
			data = append(append(data, rest...), v...)
			rows = append(rows, storedRow{data[from:mid:mid], data[mid:len(data):len(data)]})
			if len(rest) == 1 && rest[0] == byte(crdt.KindAny) {
				h, own, err := decodeHeaderRow(v)
				if err != nil {
					break
				}
				n = min(n, h.Cells()-own.len())
			} else {
				n--
			}
			if n == 0 {
				break
			}
		}
		out[i] = Stored{read: it.Error() == nil, level: level, rows: rows[first:len(rows):len(rows)]}
	}
	if it.Close() != nil {
		return make([]Stored, len(keys))
	}
	return out
}

// KeyAt returns the key at a position.
func KeyAt(pos []byte) (crdt.Key, error) {
	k, _, rest, err := cutPos(pos)
	if err == nil && len(rest) > 0 {
		err = errKey(pos)
	}
	return k, err
}

// digestSums is what a group adds to the digests of buckets.
type digestSums struct {
	of   [Buckets]uint64
	has  [Buckets]bool
	list []int // of those that it has
}

func (s *digestSums) add(bucket int, delta uint64) {
	if !s.has[bucket] {
		s.has[bucket] = true
		s.list = append(s.list, bucket)
	}
	s.of[bucket] += delta
}

func (s *digestSums) reset() {
	for _, b := range s.list {
		s.of[b], s.has[b] = 0, false
	}
	s.list = s.list[:0]
}
