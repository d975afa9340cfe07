package oplog

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/replicatord/replicatord/crdt"
)

// recent remembers, in memory, which keys have changed since some moments: what
// is beyond the vector of one of them is found without a look at every other key.
// It is told by what writes rows, as it comes to each that has changed anyway.
type recent struct {
	level atomic.Bool // see Log.SetAhead

	mu     sync.Mutex
	epochs []epoch // the oldest first
	bytes  int     // of all
}

// epoch is the time from one moment to the next.
type epoch struct {
	since crdt.Vector // all that was stored at that moment is within it
	keys  []byte      // positions of what has changed then, some more than once
}

// Limits of what is remembered.
const (
	maxRecent = 16 << 20 // bytes
	maxEpochs = 64
)

// SetAhead says whether values or increments are stored, or may be at any time,
// that the vector does not cover. Until it is called first, it is so.
func (l *Log) SetAhead(ahead bool) { l.recent.level.Store(!ahead) }

func (r *recent) ahead() bool { return !r.level.Load() }

// noter takes note of the rows that a sweep or drain comes to, or that go through.
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
	e.keys = append(e.keys, pos...)
	n.r.bytes += len(pos)
	for n.r.bytes > maxRecent {
		n.r.bytes -= len(n.r.epochs[0].keys)
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
	if n == maxEpochs { // one moment fewer will do: between the two epochs that are the smallest together
		least := 0
		for i := 1; i < n-1; i++ {
			if len(r.epochs[i].keys)+len(r.epochs[i+1].keys) < len(r.epochs[least].keys)+len(r.epochs[least+1].keys) {
				least = i
			}
		}
		r.epochs[least].keys = slices.Concat(r.epochs[least].keys, r.epochs[least+1].keys)
		r.epochs = slices.Delete(r.epochs, least+1, least+2)
	}
	r.epochs = append(r.epochs, epoch{since: v})
}

// forget begins anew: it is not known what has changed.
func (r *recent) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epochs, r.bytes = nil, 0
}

// ChangedSince returns the positions, in order, of the keys that may hold a value
// or an increment that v does not cover; ok is false if that is not known.
func (s *Snapshot) ChangedSince(v crdt.Vector) (keys [][]byte, ok bool) {
	r := s.recent
	r.mu.Lock()
	first := len(r.epochs) - 1
	for first >= 0 && !r.epochs[first].since.In(v) {
		first--
	}
	var parts [][]byte // what follows in their memory is of no concern
	if ok = first >= 0; ok {
		for _, e := range r.epochs[first:] {
			parts = append(parts, e.keys)
		}
	}
	r.mu.Unlock()
	for _, left := range parts {
		for len(left) > 0 {
			pos, rest, err := splitPos(left)
			if err != nil {
				return nil, false
			}
			keys, left = append(keys, pos), rest
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal), ok
}

// EachUnlike calls fn for the keys in [from, to) that are not plain for known
// (see State), in order of position until it returns an error, which EachUnlike
// returns. changed is what ChangedSince has returned.
func (s *Snapshot) EachUnlike(from, to []byte, known crdt.Vector, changed [][]byte, fn func(*State) error) (err error) {
	var remnants [][]byte // they are not plain
	if err := s.Remnants(from, to, func(pos []byte) error { remnants = append(remnants, pos); return nil }); err != nil {
		return err
	}
	it, err := s.iter(rangeCells, from, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	i, _ := slices.BinarySearchFunc(changed, from, bytes.Compare)
	n := len(changed)
	if len(to) > 0 {
		n, _ = slices.BinarySearchFunc(changed, to, bytes.Compare)
	}
	r := stateReader{it: &cellRows{it: it}, known: known}
	var row []byte
	for changed = changed[i:n]; len(changed)+len(remnants) > 0; {
		c := -1
		switch {
		case len(changed) == 0:
			c = 1
		case len(remnants) > 0:
			c = bytes.Compare(changed[0], remnants[0])
		}
		row = append(row[:0], rangeCells)
		if c <= 0 {
			row = append(row, changed[0]...)
			changed = changed[1:]
		} else {
			row = append(row, remnants[0]...)
		}
		if c >= 0 {
			remnants = remnants[1:]
		}
		if lone, err := r.lone(s.snap, row); err != nil {
			return err
		} else if !lone {
			if !seekKey(r.it, row) {
				if r.it.Error() != nil {
					return r.it.Error()
				}
				continue // it is there no longer
			}
			if _, err := r.next(); err != nil {
				return err
			}
		}
		if !r.st.Plain {
			if err := fn(&r.st); err != nil {
				return err
			}
		}
	}
	return r.it.Error()
}

// seekKey moves to the first row that begins with row, and reports whether there
// is one.
func seekKey(it *cellRows, row []byte) bool {
	return it.SeekGE(row) && bytes.HasPrefix(it.Key(), row)
}
