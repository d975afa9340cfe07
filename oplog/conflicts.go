package oplog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// maxConflicts is how many conflicts are kept; older ones go.
const maxConflicts = 10_000

// conflictLog numbers the conflicts that are kept: from first up to but without
// next. The numbers go on over restarts, so next tells how many there were.
type conflictLog struct{ first, next uint64 }

func conflictKey(b []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, rangeConflict), n)
}

// loadConflicts finds the conflicts that are kept.
func (l *Log) loadConflicts() error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{rangeConflict}, UpperBound: []byte{rangeConflict + 1}})
	if err != nil {
		return err
	}
	number := func() uint64 {
		if k := it.Key(); len(k) == 9 {
			return binary.BigEndian.Uint64(k[1:])
		}
		err = errKey(it.Key())
		return 0
	}
	if it.First() {
		l.conflicts.first = number()
	}
	if it.Last() {
		l.conflicts.next = number() + 1
	}
	return errors.Join(err, it.Error(), it.Close())
}

// AddConflict keeps a conflict that was noticed at a time. Long values are
// clipped.
func (g *Group) AddConflict(c crdt.Conflict, at time.Time) {
	b := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))
	g.conflicts = append(g.conflicts, c.Clipped().AppendBinary(b))
	if len(g.conflicts) > maxConflicts {
		g.conflicts = g.conflicts[1:]
		g.skipped++
	}
}

// writeConflicts puts the group's conflicts into its batch, and takes out those
// that are too many then. It returns what the log is to remember of it.
func (g *Group) writeConflicts(w *groupWriter) conflictLog {
	c := g.l.conflicts
	if len(g.conflicts) == 0 {
		return c
	}
	c.next += g.skipped
	for _, b := range g.conflicts {
		w.set(conflictKey(w.key[:0], c.next), b)
		c.next++
	}
	if was := c.first; c.next-was > maxConflicts {
		c.first = c.next - maxConflicts
		w.err = errors.Join(w.err, w.batch.DeleteRange(conflictKey(nil, was), conflictKey(nil, c.first), nil))
	}
	return c
}

// Conflicts calls fn for the conflicts that are kept, the newest first, until
// it returns false; at is when each was noticed here.
func (l *Log) Conflicts(fn func(c crdt.Conflict, at time.Time) bool) (err error) {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{rangeConflict}, UpperBound: []byte{rangeConflict + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	for ok := it.Last(); ok; ok = it.Prev() {
		c, at, err := decodeConflict(it.Value())
		if err != nil {
			return err
		}
		if !fn(c, at) {
			return nil
		}
	}
	return nil
}

func decodeConflict(b []byte) (c crdt.Conflict, at time.Time, err error) {
	if len(b) < 8 {
		return c, at, fmt.Errorf("%w of a conflict", crdt.ErrCorrupt)
	}
	c, err = crdt.DecodeConflict(append([]byte(nil), b[8:]...))
	return c, time.UnixMilli(int64(binary.BigEndian.Uint64(b))), err
}
