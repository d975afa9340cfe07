package oplog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// Snapshot is the state of a replica between two commits: for state sync and
// for rebuilding the view. It holds disk space until closed. Safe for
// concurrent use.
type Snapshot struct {
	// Vector is what had been applied. It may be ahead of what was durable:
	// Log.WaitDurable(ctx, Vector) before a peer is told of it.
	Vector crdt.Vector
	// Known is what the origin of each stream was known to have seen.
	Known map[crdt.Stream]crdt.Vector
	// Pending lists the databases with pending contexts.
	Pending map[uint8]crdt.Vector
	// Digests are those of the buckets, Digest their sum.
	Digests [Buckets]uint64
	Digest  uint64

	snap   *pebble.Snapshot
	recent *recent
}

// Snapshot takes a snapshot. It fails if the log has failed for good: what was
// written last might not count.
func (l *Log) Snapshot() (*Snapshot, error) {
	err := l.level()
	defer l.commit.Unlock()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	if f := l.failure.Load(); f != nil && f.fatal {
		return nil, f.err
	}
	s := &Snapshot{Vector: l.vector, Known: map[crdt.Stream]crdt.Vector{}, Pending: map[uint8]crdt.Vector{},
		Digests: l.digests, Digest: l.total, snap: l.db.NewSnapshot(), recent: &l.recent}
	for id, st := range l.streams {
		s.Known[id] = st.row.known
	}
	for db, v := range &l.pending {
		if len(v) > 0 {
			s.Pending[uint8(db)] = v
		}
	}
	return s, nil
}

// Meta returns a small named blob as it was; see Log.Meta.
func (s *Snapshot) Meta(name string) ([]byte, error) {
	b, err := get(s.snap, metaKey(name))
	if err != nil {
		return nil, fmt.Errorf("meta %q: %w", name, err)
	}
	return b, nil
}

// Close releases the snapshot.
func (s *Snapshot) Close() error { return s.snap.Close() }

// KeyState is what a snapshot holds of one key.
type KeyState struct {
	Key    crdt.Key
	Header *crdt.Header // nil if only remnants of cells are left
	Cells  []CellState  // by kind and element
	// First and Last say whether these are the first and last of the key's
	// cells: Each cuts large keys into parts.
	First, Last bool
}

// CellState is one cell of a snapshot, as stored (crdt.DecodeCell).
type CellState struct {
	Kind crdt.Kind
	Elem string
	Data []byte
}

// Each calls fn for the keys from the position from (nil: the first) up to but
// without the position to (nil: the end), in order of position, until fn
// returns an error, which Each returns. A key whose cells take more than
// partBytes comes in several parts, each with the header. What fn is given is
// its own.
func (s *Snapshot) Each(from, to []byte, partBytes int, fn func(*KeyState) error) error {
	high := []byte{rangeCells + 1}
	if to != nil {
		high = append([]byte{rangeCells}, to...)
	}
	it, err := s.snap.NewIter(&pebble.IterOptions{LowerBound: append([]byte{rangeCells}, from...), UpperBound: high})
	if err != nil {
		return err
	}
	rows := cellRows{it: it}
	err = s.each(&rows, partBytes, fn)
	return errors.Join(err, rows.Error(), rows.Close())
}

func (s *Snapshot) each(it *cellRows, partBytes int, fn func(*KeyState) error) error {
	var k *KeyState
	size := 0
	for ok := it.First(); ok; ok = it.Next() {
		id, _, err := cutCell(it.Key()[1:])
		if err != nil {
			return err
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if k != nil && k.Key != id.Key {
			k.Last = true
			if err := fn(k); err != nil {
				return err
			}
			k = nil
		}
		if k == nil {
			k, size = &KeyState{Key: id.Key, First: true}, 0
		}
		if id.Kind == crdt.KindAny {
			if k.Header, err = crdt.DecodeHeader(v); err != nil {
				return err
			}
			continue
		}
		if size > partBytes {
			if err := fn(k); err != nil {
				return err
			}
			k, size = &KeyState{Key: id.Key, Header: k.Header}, 0
		}
		size += len(v) + len(id.Elem)
		k.Cells = append(k.Cells, CellState{Kind: id.Kind, Elem: id.Elem, Data: append([]byte(nil), v...)})
	}
	if k == nil || it.Error() != nil {
		return nil
	}
	k.Last = true
	return fn(k)
}
