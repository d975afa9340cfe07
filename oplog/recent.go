package oplog

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// recent remembers, in memory, which keys have changed since some moments: what
// is beyond the vector of one of them is found without a look at every other key.
// It is told by what drains the log, which comes to each row that has changed
// anyway, and so costs a commit nothing.
type recent struct {
	level atomic.Bool // see Log.SetAhead

	mu     sync.Mutex
	epochs []epoch // the oldest first
	bytes  int     // of all
}

// epoch is the time from one moment to the next.
type epoch struct {
	since crdt.Vector         // all that was stored at that moment is within it
	keys  map[string]struct{} // positions of what has changed then
	bytes int
}

// Limits of what is remembered.
const (
	maxRecent   = 16 << 20 // bytes
	maxEpochs   = 64
	recentExtra = 48 // bytes that a position takes beside its own, about
)

// SetAhead says whether values or increments are stored, or may be at any time,
// that the vector does not cover. Until it is called first, it is so.
func (l *Log) SetAhead(ahead bool) { l.recent.level.Store(!ahead) }

func (r *recent) ahead() bool { return !r.level.Load() }

// noter takes note of the rows that a drain comes to.
type noter struct {
	r    *recent
	last []byte
}

func (n *noter) note(row []byte) {
	if row[0] != rangeCells || len(n.last) > 0 && bytes.HasPrefix(row[1:], n.last) {
		return
	}
	pos, _, err := splitPos(row[1:])
	if err != nil {
		return // who reads it finds out
	}
	n.last = append(n.last[:0], pos...)
	n.r.mu.Lock()
	defer n.r.mu.Unlock()
	if len(n.r.epochs) == 0 {
		return
	}
	e := &n.r.epochs[len(n.r.epochs)-1]
	if _, ok := e.keys[string(pos)]; ok {
		return
	}
	e.keys[string(pos)] = struct{}{}
	size := len(pos) + recentExtra
	e.bytes += size
	n.r.bytes += size
	for n.r.bytes > maxRecent && len(n.r.epochs) > 0 {
		n.r.bytes -= n.r.epochs[0].bytes
		n.r.epochs = slices.Delete(n.r.epochs, 0, 1)
	}
}

// moment begins an epoch: what changes from now on comes after a vector.
func (r *recent) moment(v crdt.Vector) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.epochs)
	if n > 0 && len(r.epochs[n-1].keys) == 0 {
		return // the moment before is as good
	}
	if n == maxEpochs { // half of the moments will do
		for i := 0; i < n; i += 2 {
			a, b := &r.epochs[i], &r.epochs[i+1]
			for k := range b.keys {
				if _, ok := a.keys[k]; ok {
					r.bytes -= len(k) + recentExtra
					continue
				}
				a.keys[k] = struct{}{}
				a.bytes += len(k) + recentExtra
			}
			r.epochs[i/2] = *a
		}
		clear(r.epochs[n/2:])
		r.epochs = r.epochs[:n/2]
	}
	r.epochs = append(r.epochs, epoch{since: v, keys: map[string]struct{}{}})
}

// forget begins anew: it is not known what has changed.
func (r *recent) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epochs, r.bytes = nil, 0
}

// ChangedSince returns the positions, in order, of the keys that may hold a value
// or an increment that v does not cover; ok is false if that is not known.
func (s *Snapshot) ChangedSince(v crdt.Vector) (keys []string, ok bool) {
	r := s.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.epochs) - 1; i >= 0; i-- {
		for k := range r.epochs[i].keys {
			keys = append(keys, k)
		}
		if r.epochs[i].since.In(v) {
			slices.Sort(keys)
			return slices.Compact(keys), true
		}
	}
	return nil, false
}

// EachUnlike calls fn for the keys in [from, to) that are not plain for known
// (see State), in order of position until it returns an error, which EachUnlike
// returns. changed is what ChangedSince has returned.
func (s *Snapshot) EachUnlike(from, to []byte, known crdt.Vector, changed []string, fn func(*State) error) (err error) {
	var remnants []string // they are not plain
	if err := s.Remnants(from, to, func(pos []byte) error { remnants = append(remnants, string(pos)); return nil }); err != nil {
		return err
	}
	it, err := s.iter(rangeCells, from, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	i, _ := slices.BinarySearch(changed, string(from))
	n := len(changed)
	if len(to) > 0 {
		n, _ = slices.BinarySearch(changed, string(to))
	}
	r := stateReader{it: it, known: known}
	var row []byte
	for changed = changed[i:n]; len(changed)+len(remnants) > 0; {
		var pos string
		if len(remnants) == 0 || len(changed) > 0 && changed[0] <= remnants[0] {
			pos = changed[0]
		} else {
			pos = remnants[0]
		}
		if len(changed) > 0 && changed[0] == pos {
			changed = changed[1:]
		}
		if len(remnants) > 0 && remnants[0] == pos {
			remnants = remnants[1:]
		}
		row = append(append(row[:0], rangeCells), pos...)
		if !seekKey(it, row) {
			if it.Error() != nil {
				return it.Error()
			}
			continue // it is there no longer
		}
		if _, err := r.next(); err != nil {
			return err
		}
		if !r.st.Plain {
			if err := fn(&r.st); err != nil {
				return err
			}
		}
	}
	return it.Error()
}

// seekKey moves to the first row that begins with row, and reports whether there
// is one.
func seekKey(it *pebble.Iterator, row []byte) bool {
	return it.SeekGE(row) && bytes.HasPrefix(it.Key(), row)
}
