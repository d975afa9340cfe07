package oplog

import (
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Meta returns a small named blob that a group or SetMeta has stored, nil if
// there is none.
func (l *Log) Meta(name string) ([]byte, error) {
	b, err := l.get(metaKey(name))
	if err != nil {
		return nil, fmt.Errorf("meta %q: %w", name, err)
	}
	return b, nil
}

// SetMeta stores a small named blob by itself, durably; nil deletes it. Names
// are not empty and do not begin with a zero byte.
func (l *Log) SetMeta(name string, b []byte) error {
	checkMetaName(name)
	if err := l.Failed(); err != nil {
		return err
	}
	var err error
	if b == nil {
		err = l.db.Delete(metaKey(name), pebble.Sync)
	} else {
		err = l.db.Set(metaKey(name), b, pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	_ = l.disk.syncWAL() // a failure is looked at below
	if f := l.failure.Load(); f != nil && f.fatal {
		return f.err
	}
	return nil
}

func checkMetaName(name string) {
	if name == "" || name[0] == 0 {
		panic("oplog: bad name of a meta blob")
	}
}

// EachMeta calls fn for every blob whose name begins with prefix, in order of
// name.
func (l *Log) EachMeta(prefix string, fn func(name string, b []byte) error) error {
	return l.each(metaKey(prefix), func(k, v []byte) error {
		if k[1] == 0 {
			return nil
		}
		return fn(string(k[1:]), slices.Clone(v))
	})
}
