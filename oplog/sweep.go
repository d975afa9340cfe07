package oplog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// What is owed to the store is written by the commits themselves or, when the log is at
// rest, by WriteBack. When enough records have gathered, a sweep goes over the keys that owe rows, in order of
// their positions, a few with each commit and in its batch; when it has passed the
// last, the rows are at least as new as the records were when it began, and those
// go, oldest first. A row that is behind its newest record is one that the record
// will mend, whether or not a sweep has come to it. So at any moment the rows and
// the records there are tell the same, and a crash in the middle needs no care.

// owing is what the cache owes to the store. The open group's, as the cache.
type owing struct {
	keys    [Buckets][]*keyState // those that have changed since they were swept
	digests [Buckets]bool        // those that have
	rows    int                  // of keys, about
	bytes   int                  // that what is owed takes in memory, about
}

// sweep is how far one has come. Guarded by Log.commit, and so the steps.
type sweep struct {
	under bool   // way
	at    int    // the bucket it has come to
	upto  uint64 // the newest record when it began
	bytes int64  // of all records then
	end   int64  // bytes of all records by when it is to have ended
	step  []sweptKey
	rows  []sweptRow // of the step, pieces of data
	data  []byte
	pos   []byte // of the key at hand
}

// sweptKey is what a step writes of a key.
type sweptKey struct {
	ks     *keyState
	header bool
	cells  []*cellState
}

type sweptRow struct {
	key, value []byte
	from, mid  int // where in data they begin
	there      bool
}

// A sweep begins when sweepFrom quarters of Options.RedoBytes have gathered, and
// has ended by the time it is all of them. One begins too when what is owed takes as much
// of Options.KeyBytes in memory, and after a drain, for the cache to be told.
const sweepFrom = 3

// sweptBytes is about how much a step writes, at most.
const sweptBytes = 4 << 20

// forgetStep is how many records a commit deletes that are no longer needed.
const forgetStep = 64

// owe takes note that a key has changed and the store is behind.
func (c *keyCache) owe(ks *keyState, rows, bytes int) {
	c.owed.rows += rows
	c.owed.bytes += bytes
	if !ks.owes {
		ks.owes = true
		b := ks.digestsAt()
		c.owed.keys[b] = append(c.owed.keys[b], ks)
	}
}

// paidHeader takes note that the row of a header is owed no more, and paidCell that of a cell.
func (o *owing) paidHeader() {
	o.rows--
	o.bytes -= keyBytes
}

func (o *owing) paidCell(cs *cellState) {
	cs.owed = false
	o.rows--
	o.bytes -= int(cs.size)
}

// acquit forgets what a key owes: it is written, or not to be.
func (c *keyCache) acquit(ks *keyState) {
	if ks.hseq != 0 {
		c.owed.paidHeader()
	}
	for _, cs := range ks.owed {
		c.owed.paidCell(cs)
	}
	clear(ks.owed)
	ks.owed, ks.seq, ks.hseq = ks.owed[:0], 0, 0
}

// Rest reports whether the log is at rest, next to nothing having been written since it was
// called last, but the rows are behind the records, so that WriteBack is due: then
// snapshots, and the next start, need not. One goroutine at a time calls it.
func (l *Log) Rest() bool {
	written := l.redo.written.Load()
	little := written-l.redo.rested < restBytes
	l.redo.rested = written
	return little && !l.AtRest() && l.failure.Load() == nil
}

// restBytes is how much a log at rest may write from one look to the next.
const restBytes = 64 << 10

// AtRest reports whether the rows are level with the records, so that a snapshot has
// nothing to drain.
func (l *Log) AtRest() bool { return l.redo.waiting() == 0 }

// WriteBack writes about so many of the rows that are owed, and deletes as many records that
// are no longer needed. It reports whether there is more to do. It is for who opens groups, while
// none is open.
func (l *Log) WriteBack(rows int) (more bool, err error) {
	if err := l.Failed(); err != nil {
		return false, err
	}
	if err := l.makeRoom(rows * 64); err != nil {
		return false, err
	}
	g := l.Begin()
	defer g.Discard()
	if g.err != nil {
		return false, g.err
	}
	l.commit.Lock()
	defer l.commit.Unlock()
	if l.redo.through != nil { // a drain does it
		return false, nil
	}
	batch := l.db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()
	w := groupWriter{batch: batch, drained: l.redo.drained.Load(), begun: l.redo.begun}
	swept := w.sweep(g, rows)
	if w.err != nil {
		return false, fmt.Errorf("%w: %w", ErrDisk, w.err)
	}
	if err := l.db.Apply(batch, pebble.NoSync); err != nil { // until it is on disk the records are there too
		l.fail(err, true, false)
		return false, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	swept()
	return !l.AtRest() || l.redo.forgot < l.redo.drained.Load(), nil
}

// sweep adds to the group's batch a part of the rows that are owed, about so many or, if that
// is 0, as many as its record asks for, and deletes records. It returns what is to be called
// when the batch is written. l.commit is held.
func (w *groupWriter) sweep(g *Group, rows int) (done func()) {
	l, r := g.l, &g.l.redo
	s := &r.sweep
	forgot := r.forgot
	for n := 0; n < max(forgetStep, rows) && forgot < w.drained; n++ {
		forgot++
		w.delete(redoKey(w.key[:0], forgot))
	}
	keep := func() { r.forget(forgot) }
	if r.through != nil { // what drains meanwhile must not write older rows over newer
		return keep
	}
	added, written := w.told(), r.written.Load()
	if waiting := r.waiting() + added; !s.under && (rows > 0 && waiting > 0 || 4*waiting > sweepFrom*l.opts.RedoBytes || 4*int64(l.cache.owed.bytes) > sweepFrom*l.opts.KeyBytes || r.stale) {
		r.stale = false
		s.under, s.at, s.upto, s.bytes, s.end = true, 0, r.seq, written, written+l.opts.RedoBytes*(4-sweepFrom)/4
		if !l.recent.ahead() { // what the group changes is swept after this, as all that follows
			l.recent.moment(l.Vector())
		}
	}
	if !s.under {
		return keep
	}
	todo := rows
	if rows == 0 {
		todo = 1 + l.cache.owed.rows
		if left := s.end - written; left > added {
			todo = 1 + int(int64(todo)*added/left)
		}
	}
	at := w.sweepStep(g, todo)
	return func() {
		keep()
		l.swept(at)
		s.at = at
		if at < Buckets {
			return
		}
		s.under = false
		if s.upto > r.drained.Load() {
			r.drained.Store(s.upto)
			r.gone.Store(s.bytes)
			r.begun = max(r.begun, s.upto)
		}
	}
}

// sweepStep writes about todo rows from where the sweep is, and returns the bucket
// that it has come to.
func (w *groupWriter) sweepStep(g *Group, todo int) (at int) {
	l, s := g.l, &g.l.redo.sweep
	s.step, s.rows, s.data = s.step[:0], s.rows[:0], s.data[:0]
	for at = s.at; at < Buckets; at++ {
		keys := l.cache.owed.keys[at]
		for i := len(keys) - 1; i >= 0; i-- {
			if todo <= 0 || len(s.data) > sweptBytes {
				w.sweptRows(g)
				return at
			}
			ks := keys[i]
			n := max(0, len(ks.owed)-todo)
			k := sweptKey{ks: ks, header: ks.hseq > w.drained && !ks.dirty, cells: ks.owed[n:]}
			s.add(k, w.drained)
			s.step = append(s.step, k)
			if todo -= 1 + len(k.cells); n > 0 {
				w.sweptRows(g)
				return at // the rest of it is the next step's
			}
		}
		if l.cache.owed.digests[at] && !g.digests.has[at] {
			key := digestKey(s.data, at)
			s.row(len(key), binary.BigEndian.AppendUint64(key, l.digests[at]), true)
		}
	}
	w.sweptRows(g)
	return at
}

// add adds the rows of a key.
func (s *sweep) add(k sweptKey, drained uint64) {
	s.pos = AppendPos(s.pos[:0], k.ks.key)
	if k.header {
		now := !(k.ks.header == nil || k.ks.header.Empty())
		if row := appendRow(s.data, s.pos, crdt.KindAny, ""); now {
			s.row(len(row), k.ks.appendHeader(row), true)
		} else if k.ks.hrow {
			s.row(len(row), row, false)
		}
	}
	for _, cs := range k.cells {
		if cs.dirty || cs.seq <= drained {
			continue // the group's own record tells; a drain has written it
		}
		row := appendRow(s.data, s.pos, cs.kind, cs.elem)
		if cs.stored().row() {
			s.row(len(row), cs.AppendBinary(row), true)
		} else if cs.row {
			s.row(len(row), row, false)
		}
	}
}

// row takes a row: data with its key, up to mid, and its value behind it.
func (s *sweep) row(mid int, data []byte, there bool) {
	s.rows = append(s.rows, sweptRow{from: len(s.data), mid: mid, there: there})
	s.data = data
}

// sweptRows puts the step's rows into the batch, in order.
func (w *groupWriter) sweptRows(g *Group) {
	s := &g.l.redo.sweep
	for i := range s.rows {
		r, end := &s.rows[i], len(s.data)
		if i+1 < len(s.rows) {
			end = s.rows[i+1].from
		}
		r.key, r.value = s.data[r.from:r.mid], s.data[r.mid:end]
	}
	slices.SortFunc(s.rows, func(a, b sweptRow) int { return bytes.Compare(a.key, b.key) })
	for i := range s.rows {
		if r := &s.rows[i]; r.there {
			w.set(r.key, r.value)
		} else {
			w.delete(r.key)
		}
	}
	g.l.counters.rows.Add(uint64(len(s.rows)))
}

// swept takes note that the step's rows, and those of all buckets before at, are
// written.
func (l *Log) swept(at int) {
	s, owed := &l.redo.sweep, &l.cache.owed
	changed := noter{r: &l.recent}
	for i := range s.rows {
		changed.note(s.rows[i].key)
	}
	for _, k := range s.step {
		for _, cs := range k.cells {
			owed.paidCell(cs)
			if !cs.dirty {
				cs.seq = 0
			}
		}
		if k.ks.hseq != 0 && !k.ks.dirty {
			k.ks.hseq = 0
			owed.paidHeader()
		}
		if k.ks.owed = k.ks.owed[:len(k.ks.owed)-len(k.cells)]; len(k.ks.owed) > 0 {
			continue
		}
		k.ks.owes, k.ks.seq = false, 0
		in := &owed.keys[k.ks.digestsAt()]
		last := len(*in) - 1
		(*in)[last] = nil
		*in = (*in)[:last]
	}
	clear(s.step)
	for b := s.at; b < at; b++ {
		owed.digests[b] = false
	}
	s.data = reuse(s.data)
}
