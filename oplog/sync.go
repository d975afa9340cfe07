package oplog

import (
	"context"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// syncGap is the least time between the starts of two background syncs.
func (l *Log) syncGap() time.Duration {
	if l.opts.Fsync == FsyncNo {
		return time.Second
	}
	return 10 * time.Millisecond
}

// maxUnsynced is what FsyncEverySec allows a power loss to take.
const maxUnsynced = time.Second

// syncLoop brings commits to disk under the policies that do not wait for it.
func (l *Log) syncLoop() {
	defer l.work.Done()
	var last time.Time
	for {
		select {
		case <-l.stop:
			return
		case <-l.kick:
		}
		if wait := l.syncGap() - time.Since(last); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-l.stop:
				t.Stop()
				return
			case <-t.C:
			}
		}
		last = time.Now()
		l.syncNow()
	}
}

// syncNow makes what is committed durable.
func (l *Log) syncNow() {
	v, n := l.targetDurable()
	_ = l.disk.syncWAL() // a failure is looked at below
	l.advanceDurable(v, n)
}

func (l *Log) targetDurable() (crdt.Vector, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.vector, l.commits
}

// advanceDurable notes that a sync begun after commit n is done. A failed log
// makes nothing durable any more.
func (l *Log) advanceDurable(v crdt.Vector, n uint64) {
	if l.disk.failed.Load() {
		return
	}
	l.mu.Lock()
	grown := n > l.synced && !v.In(l.durable)
	if n > l.synced {
		l.synced, l.durable = n, v
		l.unsynced = time.Time{}
		if l.commits > n {
			l.unsynced = time.Now() // a little late: the next sync follows at once
		}
	}
	l.wake.Broadcast()
	l.mu.Unlock()
	if grown && l.opts.Events.Durable != nil {
		l.opts.Events.Durable(v)
	}
}

// committed notes a commit and brings it to disk as the policy wants.
func (l *Log) committed() {
	if l.opts.Fsync == FsyncAlways {
		l.advanceDurable(l.targetDurable())
		return
	}
	if l.opts.ManualSync {
		return
	}
	select {
	case l.kick <- struct{}{}:
	default:
	}
	if l.opts.Fsync != FsyncEverySec {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// No timer is needed: a sync that ends, well or not, wakes all.
	for !l.unsynced.IsZero() && time.Since(l.unsynced) > maxUnsynced && !l.closed && l.failure.Load() == nil {
		l.counters.waits.Add(1)
		l.wake.Wait()
	}
}

// Sync makes everything committed so far durable, whatever the policy.
func (l *Log) Sync() error {
	if err := l.Failed(); err != nil {
		return err
	}
	l.syncNow()
	return l.Failed()
}

// WaitDurable returns once v is durable, or with the error of ctx, ErrDisk or
// ErrClosed. v must have been applied.
func (l *Log) WaitDurable(ctx context.Context, v crdt.Vector) error {
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		l.wake.Broadcast()
		l.mu.Unlock()
	})()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !v.In(l.durable) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if l.closed {
			return ErrClosed
		}
		if f := l.failure.Load(); f != nil && f.fatal {
			return f.err
		}
		l.wake.Wait()
	}
	return nil
}
