package oplog

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// Count returns how many durable entries of a stream have tags greater than
// after, or limit if there are more, and the bytes of those that it counted. It
// is 0 if the log can't be read.
func (l *Log) Count(s crdt.Stream, after crdt.Tag, limit int) (entries int, bytes int64) {
	newest := l.Durable().Get(s)
	if after >= newest {
		return 0, 0
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: appendLogKey(nil, s, after+1), UpperBound: appendLogKey(nil, s, newest+1)})
	if err != nil {
		return 0, 0
	}
	defer func() { _ = it.Close() }()
	for ok := it.First(); ok && entries < limit; ok = it.Next() {
		entries++
		value := it.LazyValue()
		bytes += int64(value.Len())
	}
	return entries, bytes
}

// Has reports whether an entry of a stream with just this tag has been applied
// here; what lies at or below the floor is taken to have been, and so is tag
// 0. A peer whose vector names a tag of this node's own streams that Has does
// not know holds writes of a history this node has lost, even if the node has
// later tags itself: its data directory was rolled back, and it wrote on before
// anyone told it.
func (l *Log) Has(s crdt.Stream, t crdt.Tag) (bool, error) {
	if t <= l.Floor(s) {
		return true, nil
	}
	_, closer, err := l.db.Get(appendLogKey(nil, s, t))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return t <= l.Floor(s), nil // trimmed in between
	case err != nil:
		return false, err
	}
	return true, closer.Close()
}
