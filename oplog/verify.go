package oplog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// maxFaults bounds the faults a report lists; the rest are counted.
const maxFaults = 1000

// Report is what Verify has found.
type Report struct {
	Keys, Cells, Entries, Streams int
	Digest                        uint64
	Vector                        crdt.Vector
	Faults                        []string
	MoreFaults                    int // beyond those listed
}

func (r *Report) fault(format string, args ...any) {
	if len(r.Faults) >= maxFaults {
		r.MoreFaults++
		return
	}
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// Verify checks the store of a data directory that no process has open, and
// changes nothing: checksums, that every record decodes, that headers, digests
// and indexes are what the cells give, and that the log of each stream has no
// gap and ends where the vector does. The error says that it could not be read
// at all; faults are in the report. fs is vfs.Default if nil.
func Verify(ctx context.Context, dir string, fs vfs.FS) (*Report, error) {
	db, done, err := openReadOnly(dir, fs)
	if err != nil {
		return nil, err
	}
	r, err := verify(ctx, db)
	return r, errors.Join(err, ctx.Err(), done())
}

// openReadOnly opens a store for reading only.
func openReadOnly(dir string, fs vfs.FS) (*pebble.DB, func() error, error) {
	if fs == nil {
		fs = vfs.Default
	}
	wrap := func(err error) error { return fmt.Errorf("data directory %s: %w", dir, err) }
	if _, err := fs.Stat(fs.PathJoin(dir, storeDir)); err != nil {
		return nil, nil, wrap(err)
	}
	lock, err := pebble.LockDirectory(dir, fs)
	if err != nil {
		return nil, nil, wrap(fmt.Errorf("%w (%w)", ErrLocked, err))
	}
	db, err := pebble.Open(storeDir, &pebble.Options{FS: rootFS{fs, dir}, WALDir: walDir, ReadOnly: true,
		ErrorIfNotExists: true, Logger: quiet{}, EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}}})
	if err != nil {
		return nil, nil, errors.Join(wrap(err), lock.Close())
	}
	return db, func() error { return errors.Join(db.Close(), lock.Close()) }, nil
}

// quiet is a logger for a reader: what is wrong comes as an error.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}

// verifier checks a store range by range.
type verifier struct {
	Report
	ctx context.Context
	db  pebble.Reader // with what redo records tell, as Open would find it

	rows    *cellRows // that are gone over
	carries bool      // headers' rows carry own cells, as it is now

	digests [Buckets]uint64
}

func verify(ctx context.Context, db *pebble.DB) (*Report, error) {
	redone := db.NewIndexedBatch()
	v := &verifier{ctx: ctx, db: redone}
	if err := db.CheckLevels(nil); err != nil {
		v.fault("tables: %v", err)
	}
	if from, upto, err := halfFilled(db); err != nil {
		v.fault("%v", err)
	} else if from != nil {
		low, high := fillBounds(from, upto)
		_ = redone.DeleteRange(low, high, nil)
	}
	err := eachRow(db, 0, math.MaxUint64-1, nil, func(row, value []byte) error {
		if value == nil {
			return redone.Delete(row, nil)
		}
		return redone.Set(row, value, nil)
	})
	if err != nil {
		v.fault("redo records: %v", err)
	}
	if b, err := get(db, metaKey(metaFormat)); err == nil && bytes.Equal(b, []byte{format}) {
		mark, err := get(db, metaKey(metaCarrying))
		v.carries = mark == nil && err == nil
	}
	v.cells()
	v.check()
	v.log()
	slices.Sort(v.Faults)
	return &v.Report, redone.Close()
}

// each walks a range, that of cells as if each had a row; what cannot be read is a fault.
func (v *verifier) each(r byte, fn func(k, val []byte)) {
	rows, err := v.db.NewIter(&pebble.IterOptions{LowerBound: []byte{r}, UpperBound: []byte{r + 1}})
	if err != nil {
		v.fault("range %d: %v", r, err)
		return
	}
	it := &cellRows{it: rows}
	v.rows = it
	for ok := it.First(); ok && v.ctx.Err() == nil; ok = it.Next() {
		val, err := it.ValueAndErr()
		if err != nil {
			v.fault("value of %x: %v", it.Key(), err)
			continue
		}
		fn(it.Key(), val)
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		v.fault("range %d: %v", r, err)
	}
}

// cells recomputes every header, by putting the key's cells into an empty
// keyspace, and compares.
func (v *verifier) cells() {
	var key crdt.Key
	var last crdt.CellID
	var stored *crdt.Header
	var ks *crdt.Keyspace
	var mem *memStore
	end := func() {
		if ks == nil {
			return
		}
		v.Keys++
		mem.whole = true
		ks.Change(crdt.CellID{Key: key, Kind: crdt.KindString}, func(*crdt.Cell, *crdt.Header) {})
		v.header(key, stored, mem)
	}
	v.each(rangeCells, func(k, val []byte) {
		id, _, err := cutCell(k[1:])
		if err != nil {
			v.fault("%v", err)
			return
		}
		if ks == nil || id.Key != key {
			end()
			key, stored, mem = id.Key, nil, &memStore{}
			ks = &crdt.Keyspace{Store: mem}
		}
		if id.Kind == crdt.KindAny {
			if stored, err = crdt.DecodeHeader(val); err != nil {
				v.fault("header of %v: %v", id.Key, err)
			} else if stored.Empty() {
				v.fault("header of %v: empty", id.Key)
			}
			return
		}
		v.Cells++
		c, err := crdt.DecodeCell(append([]byte(nil), val...))
		if err != nil {
			v.fault("cell %v: %v", id, err)
			return
		}
		if c.Empty() {
			v.fault("cell %v: empty", id)
		}
		f := flagsOfCell(cellKey{id.Kind, id.Elem}, c)
		if last == id {
			v.fault("cell %v: is stored twice", id)
		} else if f.carried != (v.rows.shown != showsRow) && v.carries {
			v.fault("cell %v: is carried by its header's row: %v", id, !f.carried)
		}
		last = id
		if f.remnant {
			v.indexed(appendCellKey(nil, rangeRemnants, id))
		}
		if f.swept {
			v.indexed(appendSweptKey(nil, id))
		}
		if f.expiry != 0 {
			v.indexed(appendExpiryKey(nil, f.expiry, id))
		}
		ks.Change(id, func(empty *crdt.Cell, _ *crdt.Header) { *empty = *c })
	})
	end()
}

func (v *verifier) header(key crdt.Key, stored *crdt.Header, mem *memStore) {
	want := mem.header
	if want == nil {
		want = &crdt.Header{}
	}
	if stored == nil {
		stored = &crdt.Header{}
	}
	if stored.Live != want.Live || stored.Type != want.Type || stored.Expiry != want.Expiry || stored.Digest != want.Digest || stored.Rest != want.Rest || stored.Hidden != want.Hidden {
		v.fault("header of %v: is %+v, its cells give %+v", key, *stored, *want)
	}
	if !stored.Swept {
		v.digests[Bucket(key)] += stored.Digest
	}
	f := flagsOfHeader(stored)
	if f.expiry != 0 {
		v.indexed(appendExpiryKey(nil, f.expiry, crdt.CellID{Key: key}))
	}
	if f.swept {
		v.indexed(appendSweptKey(nil, crdt.CellID{Key: key}))
	}
	if f.remnant {
		v.indexed(append(appendKeyPrefix(nil, rangeRemnants, key), byte(crdt.KindAny)))
	}
}

// indexed checks that a row is in its index.
func (v *verifier) indexed(row []byte) {
	if b, err := get(v.db, row); err != nil || b == nil {
		v.fault("index row %x is missing (%v)", row, err)
	}
}

// wanted reports whether the header or cell that an index row tells of is such
// that there must be one.
func (v *verifier) wanted(row []byte) bool {
	var id crdt.CellID
	var at int64
	var err error
	switch row[0] {
	case rangeExpiries:
		at, id, err = cutExpiryKey(row)
	case rangeSwept:
		id, err = cutExpiry(row[1:])
	default:
		id, _, err = cutCell(row[1:])
	}
	if err != nil {
		return false
	}
	if row[0] == rangeRemnants && id.Kind != crdt.KindAny || id.Elem != "" {
		b, _ := storedCell(v.db, id)
		c, err := crdt.DecodeCell(b)
		f := flagsOfCell(cellKey{id.Kind, id.Elem}, c)
		switch {
		case b == nil || err != nil:
			return false
		case row[0] == rangeExpiries:
			return f.expiry == at
		case row[0] == rangeSwept:
			return f.swept
		}
		return f.remnant
	}
	b, _ := get(v.db, headerKey(nil, id.Key))
	h, err := headerOf(b)
	if b == nil || err != nil {
		return false
	}
	f := flagsOfHeader(h)
	switch row[0] {
	case rangeExpiries:
		return f.expiry == at
	case rangeSwept:
		return f.swept
	}
	return f.remnant
}

// check compares indexes and digests with what the cells give.
func (v *verifier) check() {
	for _, r := range []byte{rangeExpiries, rangeSwept, rangeRemnants} {
		v.each(r, func(k, _ []byte) {
			if !v.wanted(k) {
				v.fault("index row %x has no header or cell", k)
			}
		})
	}
	v.each(rangeDigests, func(k, val []byte) {
		if len(k) != 3 || len(val) != 8 || binary.BigEndian.Uint16(k[1:]) >= Buckets {
			v.fault("digest row %x: %x", k, val)
			return
		}
		b := binary.BigEndian.Uint16(k[1:])
		d := binary.BigEndian.Uint64(val)
		v.Digest += d
		v.digests[b] -= d
	})
	for b, d := range v.digests {
		if d != 0 {
			v.fault("digest of bucket %d is not the sum of its cells'", b)
		}
	}
	v.each(rangePending, func(k, val []byte) {
		if _, err := crdt.DecodeVector(val); err != nil || len(k) != 2 {
			v.fault("pending context of a database, %x: %v", k, err)
		}
	})
	v.each(rangeConflict, func(k, val []byte) {
		if _, _, err := decodeConflict(val); err != nil || len(k) != 9 {
			v.fault("conflict %x: %v", k, err)
		}
	})
}

// log checks that each stream's entries follow each other from the floor to
// the vector.
func (v *verifier) log() {
	rows, floors := map[crdt.Stream]streamRow{}, map[crdt.Stream]floorRow{}
	v.each(rangeStreams, func(k, val []byte) {
		row, err := decodeStreamRow(val)
		if err != nil || len(k) != 9 {
			v.fault("stream row %x: %v", k, err)
			return
		}
		s := crdt.Stream(binary.BigEndian.Uint64(k[1:]))
		rows[s] = row
		v.Vector.Set(s, row.tag)
		v.Streams++
	})
	v.each(rangeFloors, func(k, val []byte) {
		row, err := decodeFloorRow(val)
		if err != nil || len(k) != 9 {
			v.fault("floor row %x: %v", k, err)
			return
		}
		floors[crdt.Stream(binary.BigEndian.Uint64(k[1:]))] = row
	})
	at, bytes := map[crdt.Stream]crdt.Tag{}, map[crdt.Stream]uint64{}
	for s, f := range floors {
		at[s], bytes[s] = f.tag, f.trimmed
	}
	v.each(rangeLog, func(k, val []byte) {
		v.Entries++
		s, t, err := cutLogKey(k)
		if err != nil {
			v.fault("%v", err)
			return
		}
		e, err := wire.DecodeEntry(val)
		switch {
		case err != nil:
			v.fault("entry %v of stream %v: %v", t, s, err)
		case e.Stream != s || e.Tag != t:
			v.fault("entry %v of stream %v says that it is %v of %v", t, s, e.Tag, e.Stream)
		case e.Prev > at[s]:
			v.fault("stream %v: gap between %v and %v", s, at[s], e.Prev)
		case t <= floors[s].tag:
			v.fault("stream %v: entry %v is not after the floor %v", s, t, floors[s].tag)
		}
		at[s] = t
		bytes[s] += uint64(len(val))
	})
	for s, row := range rows {
		if at[s] != row.tag {
			v.fault("stream %v: the vector has %v, the log ends at %v", s, row.tag, at[s])
		}
		if bytes[s] != row.appended {
			v.fault("stream %v: %d bytes of entries are accounted for, there are %d", s, row.appended, bytes[s])
		}
		delete(at, s)
	}
	for s := range at {
		v.fault("stream %v has entries or a floor but no row", s)
	}
}

// memStore is a store of one key, without pending contexts.
type memStore struct {
	header *crdt.Header
	cells  []memCell
	whole  bool // all cells are in: before, nothing is to be made of them
}

type memCell struct {
	id   crdt.CellID
	cell *crdt.Cell
}

var _ crdt.Store = (*memStore)(nil)

// Cell returns fields, of which it is asked whether they are there: cells come in
// order, each once.
func (m *memStore) Cell(id crdt.CellID) *crdt.Cell {
	i, ok := slices.BinarySearchFunc(m.cells, id, func(c memCell, id crdt.CellID) int {
		return cellKey{c.id.Kind, c.id.Elem}.compare(cellKey{id.Kind, id.Elem})
	})
	if !ok || id.Kind != crdt.KindField {
		return nil
	}
	return m.cells[i].cell
}

// Fresh is for writers, of which a verification has none.
func (m *memStore) Fresh(crdt.CellID) {}

func (m *memStore) SetCell(id crdt.CellID, c *crdt.Cell) {
	// All are needed to find the visible type, but not their values.
	slim := &crdt.Cell{Counts: c.Counts, Hidden: c.Hidden}
	if len(c.Values) > 0 {
		slim.Values = []crdt.Sibling{{Dot: c.Values[0].Dot}}
	}
	m.cells = append(m.cells, memCell{id, slim})
}
func (m *memStore) Header(crdt.Key) *crdt.Header         { return m.header }
func (m *memStore) SetHeader(_ crdt.Key, h *crdt.Header) { m.header = h }
func (m *memStore) EachCell(_ crdt.Key, kind crdt.Kind, fn func(crdt.CellID, *crdt.Cell) bool) {
	for _, c := range m.cells {
		if !m.whole || (kind == crdt.KindAny || kind == c.id.Kind) && !fn(c.id, c.cell) {
			return
		}
	}
}

// EachCellFrom is for writers, of which a verification has none.
func (m *memStore) EachCellFrom(crdt.Key, crdt.Kind, string, bool, func(crdt.CellID, *crdt.Cell) bool) {
	panic("oplog: a verification writes nothing")
}
func (m *memStore) EachKey(uint8, func(crdt.Key, *crdt.Header) bool) {}
func (m *memStore) KeysFrom(uint8, []byte, int) ([]crdt.Key, []byte) { return nil, nil }
func (m *memStore) DBPending(uint8) crdt.Vector                      { return nil }
func (m *memStore) SetDBPending(uint8, crdt.Vector)                  {}
func (m *memStore) Recall([]crdt.CellID)                             {}
func (m *memStore) AddDigest(crdt.Key, uint64)                       {}
