package oplog

import (
	"encoding/binary"
	"fmt"

	"github.com/replicatord/replicatord/crdt"
)

// Key ranges, told apart by the first byte. docs/STORAGE.md has the layout of
// each; the numbers are part of the storage format.
const (
	rangeCells    byte = 1 // position · kind · element → cell; kind 0: the header
	rangeLog      byte = 2 // stream · tag → entry
	rangeStreams  byte = 3 // stream → streamRow
	rangeFloors   byte = 4 // stream → floorRow
	rangeExpiries byte = 5 // Unix ms · position · element of a field's expiry → nothing
	rangeSwept    byte = 6 // position · element of a field's expiry → nothing
	rangeRemnants byte = 7 // as cells → nothing
	rangeDigests  byte = 8 // bucket → digest
	rangePending  byte = 9 // database → vector
	rangeMeta     byte = 10
	rangeConflict byte = 11 // number, rising → conflict
	rangeRedo     byte = 12 // number, rising → redo record
)

// A position names a key so that positions sort as keys are stored: slot,
// database, length, name. Positions tell their own length.

// Pos returns the position of a key: bytes that compare as keys follow each
// other in snapshots and in EachKeyBetween.
func Pos(k crdt.Key) []byte { return AppendPos(nil, k) }

// Pos returns the position of a key, as the function Pos does.
func (*Log) Pos(k crdt.Key) []byte { return Pos(k) }

// AppendPos appends the position of a key.
func AppendPos(b []byte, k crdt.Key) []byte {
	b = binary.BigEndian.AppendUint16(b, crdt.Slot(k.Name))
	b = append(b, k.DB)
	b = binary.AppendUvarint(b, uint64(len(k.Name)))
	return append(b, k.Name...)
}

// SlotPos returns the position before the first key of a slot.
func SlotPos(slot uint16) []byte { return binary.BigEndian.AppendUint16(nil, slot) }

// cutPos splits a position off b.
func cutPos(b []byte) (key crdt.Key, pos, rest []byte, err error) {
	if len(b) < 4 {
		return key, nil, nil, errKey(b)
	}
	n, w := binary.Uvarint(b[3:])
	if w <= 0 || n > uint64(len(b)-3-w) {
		return key, nil, nil, errKey(b)
	}
	end := 3 + w + int(n)
	key = crdt.Key{DB: b[2], Name: string(b[3+w : end])}
	if crdt.Slot(key.Name) != binary.BigEndian.Uint16(b) {
		return key, nil, nil, errKey(b)
	}
	return key, b[:end], b[end:], nil
}

// cutCell reads what follows the range byte of a cell's or header's key; the
// kind of a header is KindAny.
func cutCell(b []byte) (id crdt.CellID, pos []byte, err error) {
	key, pos, rest, err := cutPos(b)
	if err != nil || len(rest) == 0 || rest[0] > byte(crdt.KindExpiry) || rest[0] == 0 && len(rest) > 1 {
		return id, nil, errKey(b)
	}
	return crdt.CellID{Key: key, Kind: crdt.Kind(rest[0]), Elem: string(rest[1:])}, pos, nil
}

func errKey(b []byte) error {
	return fmt.Errorf("%w of a stored key: %x", crdt.ErrCorrupt, b[:min(len(b), 64)])
}

func appendKeyPrefix(b []byte, r byte, k crdt.Key) []byte { return AppendPos(append(b, r), k) }

// appendCellKey appends the key of a cell in a range that is ordered as cells
// are.
func appendCellKey(b []byte, r byte, id crdt.CellID) []byte {
	b = append(appendKeyPrefix(b, r, id.Key), byte(id.Kind))
	return append(b, id.Elem...)
}

// appendRow appends the key of the row of a cell, or of a header, given the position
// of the key: what is computed once for all rows of a key.
func appendRow(b, pos []byte, kind crdt.Kind, elem string) []byte {
	b = append(append(append(b, rangeCells), pos...), byte(kind))
	return append(b, elem...)
}

func headerKey(b []byte, k crdt.Key) []byte { return append(appendKeyPrefix(b, rangeCells, k), 0) }

func appendLogKey(b []byte, s crdt.Stream, t crdt.Tag) []byte {
	b = binary.BigEndian.AppendUint64(append(b, rangeLog), uint64(s))
	return binary.BigEndian.AppendUint64(b, uint64(t))
}

// cutLogKey reads a key of the log.
func cutLogKey(b []byte) (crdt.Stream, crdt.Tag, error) {
	if len(b) != 17 {
		return 0, 0, errKey(b)
	}
	return crdt.Stream(binary.BigEndian.Uint64(b[1:])), crdt.Tag(binary.BigEndian.Uint64(b[9:])), nil
}

func appendStreamKey(b []byte, r byte, s crdt.Stream) []byte {
	return binary.BigEndian.AppendUint64(append(b, r), uint64(s))
}

// appendExpiryKey appends the row that tells when a key or a field expires, given
// the cell of its expiry.
func appendExpiryKey(b []byte, at int64, id crdt.CellID) []byte {
	return append(AppendPos(binary.BigEndian.AppendUint64(append(b, rangeExpiries), uint64(at)), id.Key), id.Elem...)
}

func cutExpiryKey(b []byte) (at int64, id crdt.CellID, err error) {
	if len(b) < 9 {
		return 0, id, errKey(b)
	}
	id, err = cutExpiry(b[9:])
	return int64(binary.BigEndian.Uint64(b[1:])), id, err
}

func appendSweptKey(b []byte, id crdt.CellID) []byte {
	return append(appendKeyPrefix(b, rangeSwept, id.Key), id.Elem...)
}

// cutExpiry reads a position and the element of an expiry behind it.
func cutExpiry(b []byte) (crdt.CellID, error) {
	k, _, rest, err := cutPos(b)
	return crdt.CellID{Key: k, Kind: crdt.KindExpiry, Elem: string(rest)}, err
}

func digestKey(b []byte, bucket int) []byte {
	return binary.BigEndian.AppendUint16(append(b, rangeDigests), uint16(bucket))
}

func metaKey(name string) []byte { return append([]byte{rangeMeta}, name...) }

// after returns the first key that does not begin with prefix.
func after(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := append([]byte(nil), prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return nil
}

// streamRow is what is kept of a stream beside its entries.
type streamRow struct {
	tag      crdt.Tag    // newest applied
	appended uint64      // bytes ever appended to its log
	known    crdt.Vector // what its origin had seen at tag
}

func (r *streamRow) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.tag))
	b = binary.BigEndian.AppendUint64(b, r.appended)
	return r.known.AppendBinary(b)
}

func decodeStreamRow(b []byte) (r streamRow, err error) {
	if len(b) < 17 {
		return r, fmt.Errorf("%w of a stream's row", crdt.ErrCorrupt)
	}
	r.tag, r.appended = crdt.Tag(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])
	r.known, err = crdt.DecodeVector(b[16:])
	return r, err
}

// floorRow says how far a stream's log has been trimmed.
type floorRow struct {
	tag     crdt.Tag // newest entry that is gone; 0 if none is
	trimmed uint64   // bytes of all entries that are gone
}

func (r *floorRow) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.tag))
	return binary.BigEndian.AppendUint64(b, r.trimmed)
}

func decodeFloorRow(b []byte) (r floorRow, err error) {
	if len(b) != 16 {
		return r, fmt.Errorf("%w of a stream's floor", crdt.ErrCorrupt)
	}
	return floorRow{crdt.Tag(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])}, nil
}
