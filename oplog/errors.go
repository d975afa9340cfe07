package oplog

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

var (
	// ErrDisk reports that the log cannot be written: the disk is full or
	// failing. The cause is wrapped too. Reads still work.
	ErrDisk = errors.New("the log cannot be written")
	// ErrLocked reports that another process uses the data directory.
	ErrLocked = errors.New("the data directory is in use by another process")
	// ErrGap reports an entry that does not follow what has been applied of its
	// stream.
	ErrGap = errors.New("an entry before this one is missing")
	// ErrTrimmed reports a request for entries that are no longer kept.
	ErrTrimmed = errors.New("the log no longer reaches back that far")
	// ErrClosed reports the use of a closed log.
	ErrClosed = errors.New("the log is closed")
	// ErrFormat reports a data directory of a version this program does not
	// know.
	ErrFormat = errors.New("the data directory is of an unknown format")
)

// Damaged reports whether an error says that stored data is not as it was
// written: trying again does not help.
func Damaged(err error) bool {
	return errors.Is(err, crdt.ErrCorrupt) || pebble.IsCorruptionError(err)
}
