package oplog

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// tagBound keeps, on disk, a tag that is greater than every tag in use, so
// that no run uses one again, whatever the clock does in between.
type tagBound struct {
	floor   crdt.Tag      // at open
	bound   atomic.Uint64 // synced
	used    atomic.Uint64 // greatest that was reserved
	raising atomic.Bool   // a goroutine is at it
	mu      sync.Mutex    // held while the bound is written
}

// TagFloor returns the tag after which this run's tags must start: none up to
// it may be used again.
func (l *Log) TagFloor() crdt.Tag { return l.tags.floor }

// Reserve makes sure that no later run uses a tag up to t. It must be called
// before anyone else learns of t, and is nearly always free: the bound on disk
// is kept seconds ahead in the background. It waits for the disk when t is
// beyond it. It may be called while a group is open.
func (l *Log) Reserve(t crdt.Tag) error {
	b := &l.tags
	for {
		used := b.used.Load()
		if uint64(t) <= used || b.used.CompareAndSwap(used, uint64(t)) {
			break
		}
	}
	bound := crdt.Tag(b.bound.Load())
	if t > bound {
		return b.raise(l, ahead(t))
	}
	if bound.Millis()-t.Millis() >= reserveAhead/2 {
		return nil
	}
	if l.opts.ManualSync {
		return b.raise(l, ahead(t))
	}
	if b.raising.CompareAndSwap(false, true) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.closed {
			return ErrClosed
		}
		l.work.Add(1)
		go func() {
			defer l.work.Done()
			defer b.raising.Store(false)
			_ = b.raise(l, ahead(t)) // kept as the log's failure; the next Reserve beyond the bound reports it
		}()
	}
	return nil
}

func ahead(t crdt.Tag) crdt.Tag { return crdt.TagAt(t.Millis()+reserveAhead, crdt.MaxNode) }

// raise writes and syncs a bound of at least t.
func (b *tagBound) raise(l *Log, t crdt.Tag) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if uint64(t) <= b.bound.Load() {
		return nil
	}
	return b.write(l, t)
}

func (b *tagBound) write(l *Log, t crdt.Tag) error {
	if f := l.failure.Load(); f != nil {
		return f.err
	}
	if err := l.db.Set(metaKey(metaTag), binary.BigEndian.AppendUint64(nil, uint64(t)), pebble.Sync); err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	_ = l.disk.syncWAL() // a failure is looked at below
	if f := l.failure.Load(); f != nil && f.fatal {
		return f.err
	}
	b.bound.Store(uint64(t))
	return nil
}

// settle writes the exact bound: the next run need not start ahead of the
// clock.
func (b *tagBound) settle(l *Log) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used.Load() == 0 {
		return nil
	}
	return b.write(l, max(crdt.Tag(b.used.Load()), b.floor, greatest(l.Vector())))
}

func (b *tagBound) load(l *Log) error {
	v, err := l.get(metaKey(metaTag))
	if err != nil {
		return err
	}
	var t crdt.Tag
	if v != nil {
		if len(v) != 8 {
			return fmt.Errorf("%w of the bound of tags", crdt.ErrCorrupt)
		}
		t = crdt.Tag(binary.BigEndian.Uint64(v))
	}
	b.bound.Store(uint64(t))
	b.floor = max(t, greatest(l.vector))
	return nil
}

// greatest returns the greatest tag of a vector.
func greatest(v crdt.Vector) (t crdt.Tag) {
	for _, p := range v {
		t = max(t, p.Tag)
	}
	return t
}
