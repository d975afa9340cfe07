package oplog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// Fill is a table of whole keys, ready to be put into the store where that has
// nothing: a state sync of a new member writes it beside everything else, and
// the group that takes it has little left to do. Not safe for concurrent use.
//
// The table is put in before the group's batch, not with it. So that a crash in
// between leaves nothing, the store remembers which positions are being filled
// until the batch says that they are: what Open finds there otherwise is
// deleted (emptyHalfFilled). That is sound because nothing was there before.
type Fill struct {
	l        *Log
	name     string
	table    *sstable.Writer // nil once it is finished
	keys     []crdt.Key
	cells    uint64
	digests  map[int]uint64
	expiries []expiryRow
	row      []byte
	value    []byte
}

type expiryRow struct {
	at  int64
	key crdt.Key
}

// fillSuffix ends the names of tables that are not the store's yet.
const fillSuffix = ".fill"

// metaFilling names the positions that are being filled: uvarint length, from,
// upto.
const metaFilling = "\x00filling"

// NewFill begins a table. It must be closed.
func (l *Log) NewFill() (*Fill, error) {
	name := l.disk.PathJoin(storeDir, fmt.Sprintf("%d%s", l.fills.Add(1), fillSuffix))
	file, err := l.disk.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	o := l.pebbleOptions()
	o.EnsureDefaults()
	table := sstable.NewWriter(objstorageprovider.NewFileWritable(file), o.MakeWriterOptions(len(o.Levels)-1, o.FormatMajorVersion.MaxTableFormat()))
	return &Fill{l: l, name: name, table: table, digests: map[int]uint64{}}, nil
}

// Add adds a key, all of whose cells are live: its header, which is not swept and
// has nothing pending, and its encoded cells, by kind and element. Keys come in
// order of position; after an error the table is of no use.
func (f *Fill) Add(k crdt.Key, h *crdt.Header, cells []CellState) error {
	var own carried
	for i := range cells {
		ck := cellKey{cells[i].Kind, cells[i].Elem}
		at := ownAt(ck)
		if at < 0 {
			continue
		}
		c, err := crdt.DecodeCell(cells[i].Data)
		if err != nil {
			return fmt.Errorf("table of a state: %w", err)
		}
		if carries(ck, c) {
			own[at] = c
		}
	}
	f.row = headerKey(f.row[:0], k)
	f.value = appendHeaderRow(f.value[:0], h, own)
	err := f.table.Set(f.row, f.value)
	f.row = f.row[:len(f.row)-1]
	prefix := len(f.row)
	for i := 0; i < len(cells) && err == nil; i++ {
		if at := ownAt(cellKey{cells[i].Kind, cells[i].Elem}); at >= 0 && own[at] != nil {
			continue
		}
		f.row = append(append(f.row[:prefix], byte(cells[i].Kind)), cells[i].Elem...)
		err = f.table.Set(f.row, cells[i].Data)
	}
	if err != nil {
		return fmt.Errorf("table of a state: %w", err)
	}
	f.keys = append(f.keys, k)
	f.cells += uint64(len(cells))
	f.digests[PosBucket(f.row[1:prefix])] += h.Digest
	if at := flagsOfHeader(h).expiry; at != 0 {
		f.expiries = append(f.expiries, expiryRow{at, k})
	}
	return nil
}

// Keys returns the keys that were added.
func (f *Fill) Keys() []crdt.Key { return f.keys }

// Finish brings the table to disk.
func (f *Fill) Finish() error {
	err := f.table.Close()
	if f.table = nil; err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	return nil
}

// Close removes the table, unless a group has taken it.
func (f *Fill) Close() {
	if f.table != nil {
		_ = f.table.Close()
		f.table = nil
	}
	_ = f.l.disk.Remove(f.name) // what stays the next Open removes
}

// removeFills removes what a crash has left of tables that were not taken.
func (l *Log) removeFills() error {
	names, err := l.disk.List(storeDir)
	for _, name := range names {
		if strings.HasSuffix(name, fillSuffix) {
			err = errors.Join(err, l.disk.Remove(l.disk.PathJoin(storeDir, name)))
		}
	}
	return err
}

// SeemsVacant reports whether the store has nothing in [from, upto); upto may be
// empty for the end. It does not look at what is to be drained.
func (l *Log) SeemsVacant(from, upto []byte) bool {
	vacant, err := vacant(l.db, from, upto)
	return err == nil && vacant
}

func vacant(r pebble.Reader, from, upto []byte) (bool, error) {
	low, high := fillBounds(from, upto)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return false, err
	}
	found := it.First()
	return !found, errors.Join(it.Error(), it.Close())
}

func fillBounds(from, upto []byte) (low, high []byte) {
	low, high = append([]byte{rangeCells}, from...), []byte{rangeCells + 1}
	if len(upto) > 0 {
		high = append([]byte{rangeCells}, upto...)
	}
	return low, high
}

// Vacant reports whether nothing is stored or held in [from, upto), so that
// Fill may be called for it.
func (g *Group) Vacant(from, upto []byte) (bool, error) {
	g.level()
	if g.err != nil {
		return false, g.err
	}
	for _, ks := range g.keys {
		if pos := Pos(ks.key); bytes.Compare(pos, from) >= 0 && (len(upto) == 0 || bytes.Compare(pos, upto) < 0) {
			return false, nil
		}
	}
	return vacant(g.l.db, from, upto)
}

// fillRange is where a group puts a table.
type fillRange struct {
	*Fill
	from, upto []byte
}

// Fill has a finished table, all of whose keys lie in [from, upto), put there
// with the group. Vacant has said that it may be; what the group itself changes
// there, besides, are other keys. The group does not show them. A group takes
// one table.
func (g *Group) Fill(from, upto []byte, f *Fill) {
	if g.fill != nil {
		panic("oplog: a group takes one table")
	}
	g.fill = &fillRange{f, from, upto}
	for b, d := range f.digests {
		g.digests.add(b, d)
	}
}

// index adds what is indexed of the table's keys.
func (f *fillRange) index(w *groupWriter) {
	for _, e := range f.expiries {
		w.set(appendExpiryKey(w.key[:0], e.at, crdt.CellID{Key: e.key}), nil)
		if w.earliest == 0 || e.at < w.earliest {
			w.earliest = e.at
		}
	}
	w.cells += f.cells
	w.headers += uint64(len(f.keys))
}

// put puts the table into the store, as the last thing before the group's batch,
// which says that it is whole. l.commit is held.
func (f *fillRange) put(batch *pebble.Batch) error {
	l := f.l
	l.recent.forget()
	for b := range l.touched {
		l.touched[b] = l.redo.seq + 1
	}
	for _, k := range f.keys {
		l.filter.add(k)
	}
	mark := append(append(binary.AppendUvarint(nil, uint64(len(f.from))), f.from...), f.upto...)
	if err := l.db.Set(metaKey(metaFilling), mark, pebble.Sync); err != nil {
		return err
	}
	_ = l.disk.syncWAL() // the table must not be on disk without the mark; a failure is looked at below
	if e := l.failure.Load(); e != nil && e.fatal {
		return e.err
	}
	if err := l.db.Ingest(context.Background(), []string{f.name}); err != nil {
		return errors.Join(err, emptyRange(l.db, f.from, f.upto))
	}
	return batch.Delete(metaKey(metaFilling), nil)
}

// dropCached drops what the cache holds of the table's keys: that there are
// none.
func (f *fillRange) dropCached() {
	c := &f.l.cache
	f.l.ends = endCache{}
	if c.young.empty() && c.old.empty() {
		return
	}
	for _, k := range f.keys {
		c.drop(k)
	}
}

// emptyHalfFilled deletes what a crash has left of a table whose group did not
// follow.
func (l *Log) emptyHalfFilled() error {
	from, upto, err := halfFilled(l.db)
	if err != nil || from == nil {
		return err
	}
	if err := emptyRange(l.db, from, upto); err != nil {
		return err
	}
	return l.disk.syncWAL()
}

// halfFilled returns the positions that were being filled, from nil if there are
// none.
func halfFilled(r pebble.Reader) (from, upto []byte, err error) {
	b, err := get(r, metaKey(metaFilling))
	if err != nil || b == nil {
		return nil, nil, err
	}
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, fmt.Errorf("%w of the positions that are being filled", crdt.ErrCorrupt)
	}
	return b[w : w+int(n) : w+int(n)], b[w+int(n):], nil
}

// emptyRange deletes what is in a range that was being filled, and the mark.
func emptyRange(db *pebble.DB, from, upto []byte) error {
	batch := db.NewBatch()
	low, high := fillBounds(from, upto)
	err := errors.Join(batch.DeleteRange(low, high, nil), batch.Delete(metaKey(metaFilling), nil))
	if err == nil {
		err = batch.Commit(pebble.Sync)
	}
	return errors.Join(err, batch.Close())
}
