package oplog

import (
	"sync/atomic"
	"time"
)

type counters struct {
	commits, entries, entryBytes    atomic.Uint64
	cells, headers, rows            atomic.Uint64
	walks, passed                   atomic.Uint64
	keys                            atomic.Uint64
	waits, stalls, trimmed, corrupt atomic.Uint64
}

// Metrics is a snapshot of what a log has done since it was opened and how
// large it is.
type Metrics struct {
	Commits, Entries, EntryBytes uint64        // groups, and the entries in them
	Cells, Headers               uint64        // cells and headers changed
	Rows                         uint64        // of them written to their rows since
	Keys                         uint64        // read from the store, for the cache did not hold them
	Walks                        uint64        // over cells of a key in the store
	Passed                       uint64        // rows that they went over, deleted ones too
	RedoBytes                    int64         // what has not been
	Syncs                        uint64        // of the write-ahead log
	SyncTime                     time.Duration // of the last of them
	SyncWaits                    uint64        // commits that had to wait for a slow disk
	Stalls                       uint64        // waits for flushes and compactions
	Trimmed                      uint64        // entries dropped from the log
	Corrupt                      uint64        // reads that found corrupt data
	LogBytes                     int64         // encoded entries kept
	DiskBytes                    uint64        // of all files
	WALBytes                     uint64        // of the write-ahead log
	Unsynced                     uint64        // commits not durable yet
	Streams                      int
}

// Metrics returns a snapshot of the log's metrics.
func (l *Log) Metrics() Metrics {
	p := l.db.Metrics()
	c := &l.counters
	m := Metrics{
		Commits: c.commits.Load(), Entries: c.entries.Load(), EntryBytes: c.entryBytes.Load(),
		Cells: c.cells.Load(), Headers: c.headers.Load(), Rows: c.rows.Load(), Keys: c.keys.Load(), Walks: c.walks.Load(), Passed: c.passed.Load(), RedoBytes: l.redo.waiting(),
		Syncs: l.disk.syncs.Load(), SyncTime: time.Duration(l.disk.syncLag.Load()),
		SyncWaits: c.waits.Load(), Stalls: c.stalls.Load(), Trimmed: c.trimmed.Load(), Corrupt: c.corrupt.Load(),
		DiskBytes: p.DiskSpaceUsage(), WALBytes: p.WAL.PhysicalSize,
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m.Unsynced, m.Streams = l.commits-l.synced, len(l.streams)
	for _, st := range l.streams {
		m.LogBytes += int64(st.row.appended - st.floor.trimmed)
	}
	return m
}
