package oplog

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// Count returns how many durable entries of a stream have tags greater than
// after, or limit if there are more. It is 0 if the log can't be read.
func (l *Log) Count(s crdt.Stream, after crdt.Tag, limit int) int {
	newest := l.Durable().Get(s)
	if after >= newest {
		return 0
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: appendLogKey(nil, s, after+1), UpperBound: appendLogKey(nil, s, newest+1)})
	if err != nil {
		return 0
	}
	defer func() { _ = it.Close() }()
	n := 0
	for ok := it.First(); ok && n < limit; ok = it.Next() {
		n++
	}
	return n
}
