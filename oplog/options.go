package oplog

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// Policy says when a commit is safe from power loss. No policy loses anything
// when only the process dies.
type Policy uint8

const (
	// FsyncEverySec syncs in the background, at once when the disk keeps up.
	// A power loss takes at most the last second: commits wait when the disk
	// is further behind than that.
	FsyncEverySec Policy = iota
	// FsyncAlways syncs before Commit returns.
	FsyncAlways
	// FsyncNo syncs in the background about once a second, and commits never
	// wait for it.
	FsyncNo
)

// ParsePolicy reads "always", "everysec" or "no".
func ParsePolicy(s string) (Policy, error) {
	for p := FsyncEverySec; p <= FsyncNo; p++ {
		if p.String() == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("fsync policy %q is none of always, everysec, no", s)
}

// String returns the policy as ParsePolicy reads it.
func (p Policy) String() string { return [...]string{"everysec", "always", "no"}[p] }

// Options configure a log. The zero value of each field but Dir is usable.
type Options struct {
	// Dir is the data directory; it is created, with its parents.
	Dir string
	// FS is the file system, vfs.Default if nil.
	FS vfs.FS
	// Node is the id this node is to have, 1 to crdt.MaxNode. 0 keeps the id
	// the directory has, or chooses one at random for a fresh directory.
	Node uint16
	// Fsync says when commits are safe from power loss.
	Fsync Policy
	// RetentionBytes bounds the log kept for peers that have not acknowledged
	// it, in bytes of encoded entries; 1 GiB if 0. A peer that needs more than
	// is kept gets a state sync.
	RetentionBytes int64
	// KeepBytes is how much of the log is kept even where every member has
	// acknowledged it, for views that went back in time and for people who look;
	// none if 0.
	KeepBytes int64
	// RetentionTime bounds the same by the age of entries; 7 days if 0.
	RetentionTime time.Duration
	// CacheBytes is the size of the cache of stored blocks; 64 MiB if 0. It may
	// grow by one MemTableBytes, and loses one while writes fill all buffers.
	CacheBytes int64
	// KeyBytes is how much goes to keys that were used lately, decoded; 128 MiB if
	// 0.
	KeyBytes int64
	// RedoBytes is by how much of redo records, with a quarter of what they refer to, all cells and
	// headers have been brought to their rows (sweep.go); 128 MiB if 0. What they tell of is in memory
	// beside the cache, of which it takes about KeyBytes at most, and a start after a crash reads it: two seconds or so.
	RedoBytes int64
	// MemTableBytes is the size of the buffer of recent writes; 64 MiB if 0: what
	// is soon deleted again, as redo records and entries are, then mostly is before
	// it has been written to a table.
	// Two to four of them can be in memory.
	MemTableBytes uint64
	// MinFree is the free space on the file system below which writes are
	// refused, so that what is under way can end well; 64 MiB if 0, none if
	// negative. File systems that cannot tell are not asked.
	MinFree int64
	// Logger gets what operators should know; nothing is logged if nil.
	Logger *slog.Logger
	// Now is the wall clock, time.Now if nil. Incarnations, retention and the
	// bound of tags depend on it.
	Now func() time.Time
	// Rand chooses node ids and directory identities; seeded at random if nil.
	Rand *rand.Rand
	// ManualSync leaves the choice of when to sync to the caller, who then has
	// a run that repeats itself: nothing is synced in the background, and no
	// commit waits for it. What is committed becomes durable by Sync, under
	// FsyncAlways by the commit itself.
	ManualSync bool
	// Events are told what happens.
	Events Events

	// retryPause slows down flushes that fail and are tried again.
	retryPause time.Duration
	// filterStore is the size of the stored cells beyond which no filter is filled:
	// the pass over them would take the disk for too long. 4 GiB if 0.
	filterStore uint64
}

// Events are callbacks; any may be nil. They are called from the log's
// goroutines, must not block, and must not call the log but for its getters.
type Events struct {
	// Durable is called when the durable vector has grown: there is more to
	// ship.
	Durable func(crdt.Vector)
	// Failed is called when writes stop (err is not nil) and when they may go
	// on again.
	Failed func(err error)
	// Incarnation is called when a new incarnation begins, with the reason.
	Incarnation func(origin crdt.Stream, reason string)
	// Trimmed is called when entries have been dropped that not every member
	// had acknowledged.
	Trimmed func(s crdt.Stream, floor crdt.Tag)
}

// reserveAhead is how far ahead of use tags are reserved, in milliseconds.
const reserveAhead = 1000

func (o *Options) ensureDefaults() error {
	if o.Dir == "" {
		return errors.New("no data directory given")
	}
	if o.Node > crdt.MaxNode {
		return fmt.Errorf("node id %d is not in 1..%d", o.Node, crdt.MaxNode)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.RetentionBytes == 0 {
		o.RetentionBytes = 1 << 30
	}
	if o.RetentionTime == 0 {
		o.RetentionTime = 7 * 24 * time.Hour
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.KeyBytes == 0 {
		o.KeyBytes = 128 << 20
	}
	if o.RedoBytes == 0 {
		o.RedoBytes = 128 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 64 << 20
	}
	if o.MinFree == 0 {
		o.MinFree = 64 << 20
	}
	if o.retryPause == 0 {
		o.retryPause = 200 * time.Millisecond
	}
	if o.filterStore == 0 {
		o.filterStore = 4 << 30
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return nil
}
