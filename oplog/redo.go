package oplog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// Cells and headers are written back. A commit does not put each into its row,
// which is what costs in a sorted store, but all of them into one record, the
// redo of that commit, in the same batch as its entries. The rows follow when
// they are swept (sweep.go): of each the newest state, however often it has changed
// in between. Until then the cache holds what the records say. Whoever cannot ask
// the cache drains: Open after a crash, a snapshot, a group that gives
// up what it has changed. Of each row the newest record counts, and what it says is written.
// Records are states, not deltas: to apply them again changes nothing.
//
// A value that came with one of the commit's entries is not in its record a second time:
// that says where in the entry it is. So entries stay in the log until the
// records that refer to them are deleted (pins).
//
// What is too large for the cache goes through: into its row at once, and the
// record says only that the row is newer than older records.

// redoOp says what a record tells of a row.
type redoOp byte

const (
	redoSet    redoOp = 1 // it has this value
	redoNew    redoOp = 2 // likewise; not written any more
	redoDelete redoOp = 3 // there is none
	redoStored redoOp = 4 // the store has it as it was then
	redoEntry  redoOp = 5 // no row, but the key of an entry, for those that follow
	redoRefer  redoOp = 6 // it has this value with a piece of that entry behind it

	redoShares redoOp = 0x80 // with one of those: the row begins as the one before it in the record
)

// redoShareLeast is from how many bytes on that is worth saying.
const redoShareLeast = 4

// redo is the state of the writing back.
type redo struct {
	running sync.Mutex // held by who drains, before Log.commit

	// Guarded by Log.commit.
	seq     uint64              // of the newest record
	begun   uint64              // up to where the last drain or sweep goes or went
	forgot  uint64              // records up to this one are deleted
	stale   bool                // a drain has written what the cache still counts as owed
	buffer  []byte              // to make records in
	through map[string]struct{} // rows written since a drain began; nil if none is under way
	sweep   sweep
	pins    map[crdt.Stream]*pins

	drained atomic.Uint64 // what records up to this one tell the rows do, or newer ones
	written atomic.Int64  // bytes of all records, and of what they refer to
	gone    atomic.Int64  // of those up to drained
	rested  int64         // written, when Rest looked last
}

// waiting returns the bytes of the records that have not been drained.
func (r *redo) waiting() int64 { return r.written.Load() - r.gone.Load() }

// redoLimit is how many times Options.RedoBytes of records may wait before
// commits wait for a drain.
const redoLimit = 3

// drainStep is about how many bytes of rows a drain writes while commits wait.
const drainStep = 16 << 10

func redoKey(b []byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, rangeRedo), seq)
}

func redoSeq(k []byte) (uint64, error) {
	if len(k) != 9 {
		return 0, errKey(k)
	}
	return binary.BigEndian.Uint64(k[1:]), nil
}

// appendRedo adds what a record tells of a row. before is the row that the
// record has told of last: the rows of a key's cells are alike but for their ends.
func appendRedo(b []byte, op redoOp, before, row, value []byte) []byte {
	n := 0
	for n < min(len(before), len(row)) && before[n] == row[n] {
		n++
	}
	if n >= redoShareLeast {
		b = binary.AppendUvarint(append(b, byte(op|redoShares)), uint64(n))
	} else {
		b, n = append(b, byte(op)), 0
	}
	b = append(binary.AppendUvarint(b, uint64(len(row)-n)), row[n:]...)
	if op == redoSet || op == redoNew || op == redoRefer {
		b = append(binary.AppendUvarint(b, uint64(len(value))), value...)
	}
	return b
}

// appendRefer adds that a row ends in the value from from on of the entry told of last.
func appendRefer(b []byte, before, row, value []byte, from, size int) []byte {
	b = appendRedo(b, redoRefer, before, row, value)
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(from)), uint64(size))
}

// eachRedo calls fn for what a record tells of rows, in order; entry reads an entry by its
// key. The slices are good until it returns.
func eachRedo(b []byte, entry func(key []byte) ([]byte, error), fn func(op redoOp, row, value []byte) error) error {
	// number reads one, which is no greater than most.
	number := func(most int) (int, bool) {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(most) {
			return 0, false
		}
		b = b[w:]
		return int(n), true
	}
	// piece reads a length, and so many bytes.
	piece := func() ([]byte, bool) {
		n, ok := number(len(b))
		if !ok || n > len(b) {
			return nil, false
		}
		p := b[:n:n]
		b = b[n:]
		return p, true
	}
	var row, source, joined []byte
	for len(b) > 0 {
		op := redoOp(b[0])
		b = b[1:]
		shared, ok := 0, true
		if op&redoShares != 0 {
			op &^= redoShares
			shared, ok = number(len(row))
		}
		var rest, value []byte
		if ok {
			rest, ok = piece()
		}
		row = append(row[:shared], rest...)
		if ok && (op == redoSet || op == redoNew || op == redoRefer) {
			value, ok = piece()
		}
		if ok && op == redoRefer {
			var from, size int
			if from, ok = number(len(source)); ok {
				size, ok = number(len(source) - from)
			}
			if ok {
				joined = append(append(joined[:0], value...), source[from:from+size]...)
				op, value = redoSet, joined
			}
		}
		if ok = ok && len(row) > 0; ok && op == redoEntry {
			ok = row[0] == rangeLog
		} else if ok {
			ok = (row[0] == rangeCells || row[0] == rangeDigests) && op >= redoSet && op <= redoStored
		}
		if !ok {
			return fmt.Errorf("%w of a redo record", crdt.ErrCorrupt)
		}
		if op == redoEntry {
			var err error
			if source, err = entry(row); err != nil {
				return err
			}
			continue
		}
		if err := fn(op, row, value); err != nil {
			return err
		}
	}
	return nil
}

// eachRow calls fn once for every row that the records in (after, upto] tell of:
// with its value, or nil if it is to be deleted; those that the newest of them says
// the store has are left out. note, unless it is nil, is called for every row that
// they tell of. The slices are not kept.
func eachRow(r pebble.Reader, after, upto uint64, note func(row []byte), fn func(row, value []byte) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: redoKey(nil, after+1), UpperBound: redoKey(nil, upto+1)})
	if err != nil {
		return err
	}
	defer func() { _ = it.Close() }()
	entry := func(key []byte) ([]byte, error) {
		b, err := get(r, key)
		if err == nil && b == nil {
			err = fmt.Errorf("%w: a redo record tells of entry %x, which is not there", crdt.ErrCorrupt, key)
		}
		return b, err
	}
	known := map[string]struct{}{}
	// The newest comes first. Within one record a row does not change.
	for ok := it.Last(); ok; ok = it.Prev() {
		b, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		err = eachRedo(b, entry, func(op redoOp, row, value []byte) error {
			if _, ok := known[string(row)]; ok {
				return nil
			}
			known[string(row)] = struct{}{}
			if note != nil {
				note(row)
			}
			if op == redoStored {
				return nil
			}
			return fn(row, value)
		})
		if err != nil {
			return err
		}
	}
	return it.Error()
}

// drain brings the rows level with the records that there are when it begins, by
// these: for those who do not have the cache.
func (l *Log) drain() (err error) {
	l.redo.running.Lock()
	defer l.redo.running.Unlock()
	l.commit.Lock()
	upto, bytes := l.redo.begin()
	l.redo.through = map[string]struct{}{}
	at, ahead := l.Vector(), l.recent.ahead()
	l.commit.Unlock()
	defer func() {
		l.commit.Lock()
		changed := noter{r: &l.recent}
		for row := range l.redo.through { // after the moment
			changed.note([]byte(row))
		}
		l.redo.through = nil
		l.redo.ended(err)
		l.commit.Unlock()
	}()
	err = l.drainTo(upto, bytes, &l.commit)
	if err == nil && !ahead {
		l.recent.moment(at)
	}
	return err
}

// level brings the rows level with all records, and returns holding
// l.commit, in any case.
func (l *Log) level() error {
	err := l.drain() // most of it without holding up commits
	l.redo.running.Lock()
	defer l.redo.running.Unlock()
	l.commit.Lock()
	if err != nil {
		return err
	}
	upto, bytes := l.redo.begin()
	err = l.drainTo(upto, bytes, nil)
	l.redo.ended(err)
	return err
}

// begin takes note that a drain of all records begins.
func (r *redo) begin() (upto uint64, bytes int64) {
	r.begun, r.stale = r.seq, r.stale || r.seq > r.drained.Load()
	return r.seq, r.written.Load()
}

// ended takes note that one has ended. After an error the records are there still,
// and none may outlive a newer one.
func (r *redo) ended(err error) {
	if err == nil {
		r.forget(r.drained.Load())
	}
}

// forget takes note that the records up to seq are deleted.
func (r *redo) forget(seq uint64) {
	r.forgot = seq
	for s, p := range r.pins {
		if p.release(seq); len(p.list) == 0 {
			delete(r.pins, s)
		}
	}
}

// drainTo writes the rows that the records up to upto tell of; size is how many
// bytes of records had been written then. lock is taken for each step; what has
// gone through meanwhile is newer. nil if it is held.
func (l *Log) drainTo(upto uint64, size int64, lock sync.Locker) (err error) {
	batch := l.db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	from := l.redo.drained.Load()
	if upto <= from {
		return l.forget(batch, from) // what commits have not come to
	}
	if lock == nil {
		lock = noLock{}
	}
	type row struct{ key, value []byte }
	var step []row
	waiting := 0
	write := func() error {
		lock.Lock()
		defer lock.Unlock()
		for _, r := range step {
			if _, newer := l.redo.through[string(r.key)]; newer {
				continue
			}
			var err error
			if r.value == nil {
				err = batch.Delete(r.key, nil)
			} else {
				err = batch.Set(r.key, r.value, nil)
			}
			if err != nil {
				return err
			}
			l.counters.rows.Add(1)
		}
		step, waiting = step[:0], 0
		if batch.Empty() {
			return nil
		}
		if err := l.db.Apply(batch, pebble.NoSync); err != nil {
			return err
		}
		batch.Reset()
		return nil
	}
	changed := noter{r: &l.recent}
	err = eachRow(l.db, from, upto, changed.note, func(k, v []byte) error {
		step = append(step, row{bytes.Clone(k), bytes.Clone(v)})
		if waiting += len(k) + len(v); waiting < drainStep {
			return nil
		}
		defer runtime.Gosched() // commits that have waited go first
		return write()
	})
	if err == nil {
		err = write()
	}
	if err == nil {
		err = l.forget(batch, upto)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	l.redo.drained.Store(upto)
	l.redo.gone.Store(size)
	return nil
}

// forget deletes the records up to upto, one by one: range deletes as often
// as this have pebble rewrite its tables for them.
func (l *Log) forget(batch *pebble.Batch, upto uint64) error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: redoKey(nil, 0), UpperBound: redoKey(nil, upto+1)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = batch.Delete(it.Key(), nil)
	}
	if err = errors.Join(err, it.Error(), it.Close()); err != nil || batch.Empty() {
		return err
	}
	return l.db.Apply(batch, pebble.NoSync)
}

// recover drains what a crash has left.
func (l *Log) recover() error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: redoKey(nil, 0), UpperBound: []byte{rangeRedo + 1}})
	if err != nil {
		return err
	}
	if it.Last() {
		l.redo.seq, err = redoSeq(it.Key())
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return err
	}
	l.redo.forgot, l.redo.begun = l.redo.seq, l.redo.seq
	return l.drainTo(l.redo.seq, 0, nil)
}

type noLock struct{}

func (noLock) Lock()   {}
func (noLock) Unlock() {}
