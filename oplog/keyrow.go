package oplog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// The row of a header carries the cells that are the key's own, not of an element: its
// string and its expiry. So most keys that are strings have one row, which one look finds,
// where they had two or three. A large string has a row of its own, as all other cells have: else who
// changes only the expiry would write it again.

// carryMost is how much a cell may weigh to be carried: beyond, what it costs who sets an expiry alone
// is more than what it spares who writes a key that is not in memory.
const carryMost = 256

// rowCarries is the first byte of a header's row that carries cells. A header begins with the
// kinds that it has, and crdt.KindAny, the lowest bit, is none.
const rowCarries byte = 1

// ownCells are the cells that a header's row carries, in order; nil: not, or there is none.
type ownCells [len(ownKinds)]*crdt.Cell

// len returns how many there are.
func (o *ownCells) len() (n int) {
	for _, c := range o {
		if c != nil {
			n++
		}
	}
	return n
}

// ownKinds are their kinds.
var ownKinds = [...]crdt.Kind{crdt.KindString, crdt.KindExpiry}

// ownAt returns a cell's place in ownCells, -1 for that of an element.
func ownAt(k cellKey) int {
	switch {
	case k.elem != "":
	case k.kind == crdt.KindString:
		return 0
	case k.kind == crdt.KindExpiry:
		return 1
	}
	return -1
}

// carries reports whether a cell, which is not empty, is in the row of its header.
func carries(k cellKey, c *crdt.Cell) bool {
	if ownAt(k) < 0 {
		return false
	}
	weight := 100*len(c.Counts) + 16*len(c.Pending)
	for i := range c.Values {
		weight += 20 + len(c.Values[i].Value)
	}
	return weight <= carryMost
}

// encoder is what appends its encoding: a cell, or a header.
type encoder interface{ AppendBinary([]byte) []byte }

// carried are the cells that a row is to carry, by place; nil: none.
type carried [len(ownKinds)]encoder

// appendHeaderRow appends the row of a header, and of what it carries; the string is its end.
func appendHeaderRow(b []byte, h *crdt.Header, cells carried) []byte {
	str, expiry := cells[0], cells[1]
	if str == nil && expiry == nil {
		return h.AppendBinary(b)
	}
	b = append(b, rowCarries)
	b = appendPiece(b, h)
	if expiry == nil {
		b = append(b, 0)
	} else {
		b = appendPiece(b, expiry)
	}
	if str != nil {
		b = str.AppendBinary(b)
	}
	return b
}

// appendPiece appends the length of an encoding, and that.
func appendPiece(b []byte, e encoder) []byte {
	at := len(b)
	b = e.AppendBinary(append(b, 0))
	n := len(b) - at - 1
	if n < 0x80 {
		b[at] = byte(n)
		return b
	}
	var size [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(size[:], uint64(n))
	b = append(b, size[1:w]...) // room
	copy(b[at+w:], b[at+1:at+1+n])
	copy(b[at:], size[:w])
	return b
}

// cutHeaderRow takes the row of a header apart: header, and the own cells that it carries.
func cutHeaderRow(b []byte) (header []byte, own [len(ownKinds)][]byte, err error) {
	if len(b) == 0 || b[0] != rowCarries {
		return b, own, nil
	}
	b = b[1:]
	var pieces [2][]byte
	for i := range pieces {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, own, fmt.Errorf("%w of a header's row", crdt.ErrCorrupt)
		}
		end := w + int(n)
		pieces[i], b = b[w:end:end], b[end:]
	}
	if len(b) > 0 {
		own[0] = b
	}
	if len(pieces[1]) > 0 {
		own[1] = pieces[1]
	}
	return pieces[0], own, nil
}

// decodeHeaderRow reads the row of a header. The cells share its memory.
func decodeHeaderRow(b []byte) (h *crdt.Header, own ownCells, err error) {
	header, parts, err := cutHeaderRow(b)
	if err != nil {
		return nil, own, err
	}
	if h, err = crdt.DecodeHeader(header); err != nil {
		return nil, own, err
	}
	for i, p := range parts {
		if p == nil {
			continue
		}
		if own[i], err = crdt.DecodeCell(p); err != nil {
			return nil, own, err
		}
	}
	return h, own, nil
}

// headerOf reads the header in a row.
func headerOf(row []byte) (*crdt.Header, error) {
	header, _, err := cutHeaderRow(row)
	if err != nil {
		return nil, err
	}
	return crdt.DecodeHeader(header)
}

// glanceRow reads a part of the header in a row.
func glanceRow(row []byte) (crdt.HeaderGlance, error) {
	header, _, err := cutHeaderRow(row)
	if err != nil {
		return crdt.HeaderGlance{}, err
	}
	return crdt.GlanceHeader(header)
}

// appendHeader appends the row of the key's header, of which there is one.
func (ks *keyState) appendHeader(b []byte) []byte {
	var cells carried
	for i, cs := range ks.own {
		if cs != nil && cs.flags().carried {
			cells[i] = cs
		}
	}
	return appendHeaderRow(b, ks.header, cells)
}

// takeOwn takes in own cells as the store has them, those that are not known yet.
func (ks *keyState) takeOwn(cells *ownCells) {
	for i, c := range cells {
		if c == nil || ks.own[i] != nil {
			continue
		}
		ck := cellKey{kind: ownKinds[i]}
		cs := ks.newCell(ck)
		cs.read(c, flagsOfCell(ck, c))
		ks.add(cs)
	}
}

// storedCell returns the encoding of a cell as it is stored, nil if it is not.
func storedCell(r pebble.Reader, id crdt.CellID) ([]byte, error) {
	if i := ownAt(cellKey{id.Kind, id.Elem}); i >= 0 {
		row, err := get(r, headerKey(nil, id.Key))
		if err != nil {
			return nil, err
		}
		if _, cells, err := cutHeaderRow(row); err != nil || cells[i] != nil {
			return cells[i], err
		}
	}
	return get(r, appendCellKey(nil, rangeCells, id))
}

// cellRows goes over the rows of keys as if each cell had one: of a header's row it shows
// the header, and the cells that it carries in their places after it; rows of other ranges as
// they are. Only forwards.
type cellRows struct {
	it     *pebble.Iterator // at the row shown, or that the string shown is from, or that follows the expiry shown
	shown  shownRow
	header []byte // of the row shown, if that carries cells
	str    []byte // carried by the row the iterator is at: to be shown next, or shown
	expiry []byte // carried by a row before: to be shown before a row that comes after at
	at     []byte // the expiry's key
	buf    []byte // for the string's
	bad    error  // why the row shown cannot be taken apart
}

type shownRow byte

const (
	showsNone shownRow = iota
	showsRow
	showsString
	showsExpiry
)

func (r *cellRows) First() bool {
	r.it.First()
	r.expiry = nil
	return r.show()
}

func (r *cellRows) SeekGE(key []byte) bool {
	r.it.SeekGE(key)
	r.expiry = nil
	return r.show()
}

// Next goes on to the next row or cell.
func (r *cellRows) Next() bool {
	switch r.shown {
	case showsRow:
		if r.str != nil {
			k := r.it.Key()
			r.buf = append(append(r.buf[:0], k[:len(k)-1]...), byte(crdt.KindString))
			r.shown = showsString
			return true
		}
		r.it.Next()
	case showsString:
		r.it.Next()
	case showsExpiry:
		r.expiry = nil
	case showsNone:
		return false
	}
	return r.show()
}

// show shows what comes first: the row the iterator is at, or the expiry that one before it carries.
func (r *cellRows) show() bool {
	r.shown, r.header, r.str, r.bad = showsNone, nil, nil, nil
	ok := r.it.Valid()
	if r.expiry != nil && (!ok || bytes.Compare(r.at, r.it.Key()) <= 0) {
		r.shown = showsExpiry
		return true
	}
	if !ok {
		return false
	}
	if k := r.it.Key(); k[0] == rangeCells && k[len(k)-1] == byte(crdt.KindAny) {
		r.bad = r.cut(k)
	}
	r.shown = showsRow
	return true
}

// cut takes the row the iterator is at apart, if it is a header's that carries cells.
func (r *cellRows) cut(k []byte) error {
	if _, rest, err := splitPos(k[1:]); err != nil || len(rest) != 1 {
		return nil // who reads the key finds out
	}
	v, err := r.it.ValueAndErr()
	if err != nil || len(v) == 0 || v[0] != rowCarries {
		return err
	}
	header, cells, err := cutHeaderRow(v)
	if err != nil {
		return err
	}
	r.header, r.str = header, cells[0]
	if cells[1] != nil {
		r.expiry = bytes.Clone(cells[1])
		r.at = append(append(r.at[:0], k[:len(k)-1]...), byte(crdt.KindExpiry))
	}
	return nil
}

// Valid reports whether something is shown, and Key and ValueAndErr say what. The slices
// are good until the next move.
func (r *cellRows) Valid() bool { return r.shown != showsNone }

func (r *cellRows) Key() []byte {
	switch r.shown {
	case showsString:
		return r.buf
	case showsExpiry:
		return r.at
	}
	return r.it.Key()
}

func (r *cellRows) ValueAndErr() ([]byte, error) {
	switch {
	case r.shown == showsString:
		return r.str, nil
	case r.shown == showsExpiry:
		return r.expiry, nil
	case r.bad != nil || r.header != nil:
		return r.header, r.bad
	}
	return r.it.ValueAndErr()
}

// Error returns what has ended the walk, nil if that was its end.
func (r *cellRows) Error() error { return r.it.Error() }

func (r *cellRows) Close() error { return r.it.Close() }

// metaCarrying says that a store of a format before 6 is being brought to it.
const metaCarrying = "\x00carrying"

// carryBytes is about how much of that is done at once.
const carryBytes = 1 << 20

// carryOwn has the rows of headers carry own cells, which formats before 6 have in rows of their
// own. What is done it does not do again. There are no redo records.
func (l *Log) carryOwn() (err error) {
	batch := l.db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	begun, keys := time.Now(), 0
	if _, err := eachKeyBetween(l.db, nil, nil, func(k crdt.Key, _ []byte) (bool, error) {
		done, err := l.carryOwnOf(k, batch)
		if err != nil {
			return false, fmt.Errorf("own cells of %v: %w", k, err)
		}
		if done {
			keys++
		}
		if batch.Len() > carryBytes {
			err = l.db.Apply(batch, pebble.NoSync)
			batch.Reset()
		}
		return true, err
	}); err != nil {
		return err
	}
	if err := batch.Delete(metaKey(metaCarrying), nil); err != nil {
		return err
	}
	if err := l.db.Apply(batch, pebble.Sync); err != nil {
		return err
	}
	l.opts.Logger.Info("the data directory was brought to a new format", "format", format, "keys", keys, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

// carryOwnOf is carryOwn for a key. It reports whether there was anything to do.
func (l *Log) carryOwnOf(k crdt.Key, batch *pebble.Batch) (bool, error) {
	row := headerKey(nil, k)
	v, err := get(l.db, row)
	if err != nil || v == nil || len(v) > 0 && v[0] == rowCarries {
		return false, err
	}
	h, err := crdt.DecodeHeader(v)
	if err != nil {
		return false, err
	}
	var cells carried
	for i, kind := range ownKinds {
		if h.Live[kind] == 0 && h.Rest == 0 {
			continue
		}
		at := appendCellKey(nil, rangeCells, crdt.CellID{Key: k, Kind: kind})
		v, err := get(l.db, at)
		if err != nil {
			return false, err
		}
		if v == nil {
			continue
		}
		c, err := crdt.DecodeCell(v)
		if err != nil {
			return false, err
		}
		if !carries(cellKey{kind: kind}, c) {
			continue
		}
		cells[i] = c
		if err := batch.Delete(at, nil); err != nil {
			return false, err
		}
	}
	if cells == (carried{}) {
		return false, nil
	}
	return true, batch.Set(row, appendHeaderRow(nil, h, cells), nil)
}
