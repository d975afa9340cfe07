package oplog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/replicatord/replicatord/crdt"
)

// Buckets is the number of digests the keyspace is divided into.
const Buckets = 1024

// bucketSlots is the number of slots in a bucket.
const bucketSlots = crdt.Slots / Buckets

// Bucket returns the bucket of a key.
func Bucket(k crdt.Key) int { return int(crdt.Slot(k.Name)) / bucketSlots }

// format is the version of the layout. A program opens no later one.
const format = 6

// Log is the durable state of one replica. Its methods are safe for concurrent
// use; there is one Group at a time.
type Log struct {
	opts Options
	disk *diskFS
	db   *pebble.DB
	lock *pebble.Lock
	stop chan struct{}
	work sync.WaitGroup

	tags    tagBound
	cursors cursors
	expiry  expiryCache
	cache   keyCache   // the open group's
	missing []fetched  // what it does not hold of what is recalled, empty
	opened  openCells  // likewise
	ends    endCache   // likewise
	entries []byte     // likewise: its encoded entries
	sources sources    // likewise: their values
	sums    digestSums // likewise
	filter  keyFilter
	redo    redo
	touched [Buckets]uint64 // the last record that tells of a change to a key of the bucket; the open group's
	recent  recent
	fills   atomic.Uint64 // tables begun

	// commit is held while a group is written, and by what must see the store
	// and the fields below at one moment.
	commit sync.Mutex
	group  *Group // open, if any; guarded by mu

	mu       sync.Mutex
	wake     sync.Cond // durable has grown, or the log has failed or closed
	id       Identity
	vector   crdt.Vector // never changed in place
	durable  crdt.Vector // never changed in place
	commits  uint64
	synced   uint64    // commits of which durable tells
	unsynced time.Time // when the oldest commit that is not durable was made
	streams  map[crdt.Stream]*streamState
	digests  [Buckets]uint64
	total    uint64
	pending  [256]crdt.Vector
	closed   bool

	conflicts conflictLog // the group's

	failure  atomic.Pointer[failure]
	kick     chan struct{}
	alarm    chan struct{} // guarded by mu; closed by the next failure
	room     chan struct{} // a flush, compaction or drain has ended
	unseen   uint64        // bytes written since makeRoom looked; the group's
	space    atomic.Int64  // when free space was last looked at, Unix ns
	counters counters
}

type streamState struct {
	row   streamRow
	floor floorRow
	heard crdt.Vector // known by a heartbeat: in memory only
	// stretches are of the entries appended since the start: so that what is
	// dropped need not be read for it. In memory only.
	stretches []stretch
	open      stretch // the stretch that begins behind them
	part      int     // entries of the first of them that were dropped
}

// failure says why writes are refused.
type failure struct {
	err   error
	fatal bool // only a restart helps
	space bool // goes when there is space again
	at    time.Time
}

// retryAfter is how long after the last sign of trouble, if it was none that
// needs a restart, writes are tried again.
const retryAfter = 10 * time.Second

// Open opens the log of a data directory, or makes a new one. Errors wrap
// ErrLocked if another process has it open, and ErrFormat if it is of a later
// version.
func Open(o Options) (*Log, error) {
	if err := o.ensureDefaults(); err != nil {
		return nil, err
	}
	l := &Log{opts: o, stop: make(chan struct{}), kick: make(chan struct{}, 1), room: make(chan struct{}, 1), streams: map[crdt.Stream]*streamState{}}
	l.wake.L = &l.mu
	l.cache, l.filter = newKeyCache(int(o.KeyBytes)), newKeyFilter(o.KeyBytes)
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", o.Dir, err)
	}
	return l, nil
}

// mkdir makes a directory, and its parents, that is there after a power loss
// too.
func (l *Log) mkdir(dir string) error {
	fs := l.opts.FS
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	up := fs.PathDir(dir)
	if up != dir {
		if err := l.mkdir(up); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	parent, err := fs.OpenDir(up)
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

func (l *Log) open() (err error) {
	fs := l.opts.FS
	if err := l.mkdir(l.opts.Dir); err != nil {
		return err
	}
	if l.lock, err = pebble.LockDirectory(l.opts.Dir, fs); err != nil {
		return fmt.Errorf("%w (%w)", ErrLocked, err)
	}
	defer func() {
		if err != nil {
			if l.db != nil {
				err = errors.Join(err, l.db.Close())
			}
			err = errors.Join(err, l.lock.Close())
		}
	}()
	for _, dir := range []string{storeDir, walDir} {
		if err := l.mkdir(fs.PathJoin(l.opts.Dir, dir)); err != nil {
			return err
		}
	}
	l.disk = &diskFS{FS: rootFS{fs, l.opts.Dir}, lazy: l.opts.Fsync != FsyncAlways, stop: l.stop, retryPause: l.opts.retryPause,
		fail: func(err error) { l.fail(err, true, false) }, hurt: func(err error) { l.fail(err, false, false) }}
	tables, err := l.tables()
	if err != nil {
		return err
	}
	if l.db, err = pebble.Open(storeDir, l.pebbleOptions()); err != nil {
		l.db = nil
		return err
	}
	if b, err := l.get(metaKey(metaIdentity)); err != nil {
		return err
	} else if b == nil && tables > 0 {
		// Pebble takes a MANIFEST that breaks off for one that a crash left, and
		// what it does not list for not there.
		return fmt.Errorf("%w of the store: it has %d tables, but its MANIFEST lists none that says whose it is. Restore the data directory from a backup, or empty it and let the other members fill it", crdt.ErrCorrupt, tables)
	}
	if err := l.checkFormat(); err != nil {
		return err
	}
	if err := errors.Join(l.emptyHalfFilled(), l.removeFills()); err != nil {
		return err
	}
	if err := l.recover(); err != nil {
		return err
	}
	if b, err := l.get(metaKey(metaCarrying)); err != nil {
		return err
	} else if b != nil {
		if err := l.carryOwn(); err != nil {
			return err
		}
	}
	if err := l.load(); err != nil {
		return err
	}
	if err := l.identify(); err != nil {
		return err
	}
	// What was found is on disk: pebble flushes what it replays.
	l.durable = l.vector
	l.disk.armed.Store(true)
	if err := l.fillFilter(); err != nil {
		return err
	}
	l.work.Add(1)
	go l.syncLoop()
	return nil
}

// tables returns how many tables the store's directory has.
func (l *Log) tables() (n int, err error) {
	names, err := l.opts.FS.List(l.opts.FS.PathJoin(l.opts.Dir, storeDir))
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			n++
		}
	}
	return n, err
}

func (l *Log) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS:     l.disk,
		WALDir: walDir,
		Logger: pebbleLogger{l},
		// The formats that follow write into each record how far the log had
		// been synced, which recovery takes for a promise: it is not one under
		// a put-off sync.
		FormatMajorVersion: pebble.FormatColumnarBlocks,
		// Buffers of writes are taken out of the cache, and two stay in it
		// while nothing is written.
		CacheSize:             l.opts.CacheBytes + (maxMemTables-1)*int64(l.opts.MemTableBytes),
		MemTableSize:          l.opts.MemTableBytes,
		L0CompactionThreshold: 4,
		// Pebble makes writers wait at these, without end if the disk fails:
		// Commit waits before (makeRoom).
		MemTableStopWritesThreshold: 8 * maxMemTables,
		L0StopWritesThreshold:       8 * maxSublevels,
		MaxOpenFiles:                1024,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		FlushDelayDeleteRange:       10 * time.Second,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { l.opts.Logger.Warn("a flush or compaction failed", "err", err) },
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				l.opts.Logger.Error("stored data is corrupt", "path", info.Path, "err", info.Details)
				l.counters.corrupt.Add(1)
			},
			FlushEnd:      func(info pebble.FlushInfo) { l.backgroundDone(info.Err) },
			CompactionEnd: func(info pebble.CompactionInfo) { l.backgroundDone(info.Err) },
		},
	}
	o.Experimental.SpanPolicyFunc = apart
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		// A large entry or value begins a block of its own. What stands in a
		// block with it would be read with it, and may be too much to cache.
		o.Levels[i].BlockSizeThreshold = 2
	}
	return o
}

// apart has a table hold nothing but entries, nothing but redo records, or neither.
// Entries come in the order of their keys: the tables of them alone lie beside each
// other, and are not merged, which means written again, only because rows and records
// are.
func apart(start []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	for _, r := range [...]byte{rangeLog, rangeLog + 1, rangeRedo, rangeRedo + 1} {
		if start[0] < r {
			return policy, []byte{r}, nil
		}
	}
	return policy, nil, nil
}

// checkFormat refuses a layout of a later program, and takes over one of an
// earlier.
func (l *Log) checkFormat() error {
	b, err := l.get(metaKey(metaFormat))
	switch {
	case err != nil || b == nil:
		return err
	case len(b) != 1 || b[0] > format:
		return fmt.Errorf("%w: version %x, this program knows %d", ErrFormat, b, format)
	case b[0] == format:
		return nil
	}
	// Format 5 has own cells in rows of their own (keyrow.go), and 1 no redo records besides, 2 no tables that are
	// filled in, 3 no rows that share their beginnings in redo records, 4 none that refer to entries.
	batch := l.db.NewBatch()
	err = errors.Join(batch.Set(metaKey(metaFormat), []byte{format}, nil), batch.Set(metaKey(metaCarrying), nil, nil))
	if err == nil {
		err = batch.Commit(pebble.Sync)
	}
	return errors.Join(err, batch.Close())
}

// load reads what is kept in memory.
func (l *Log) load() error {
	err := l.each([]byte{rangeStreams}, func(k, v []byte) error {
		row, err := decodeStreamRow(v)
		if err != nil || len(k) != 9 {
			return errors.Join(err, errKey(k))
		}
		s := crdt.Stream(binary.BigEndian.Uint64(k[1:]))
		l.streams[s] = &streamState{row: row}
		l.vector.Set(s, row.tag)
		return nil
	})
	if err != nil {
		return err
	}
	err = l.each([]byte{rangeFloors}, func(k, v []byte) error {
		row, err := decodeFloorRow(v)
		if err != nil || len(k) != 9 {
			return errors.Join(err, errKey(k))
		}
		st := l.streams[crdt.Stream(binary.BigEndian.Uint64(k[1:]))]
		if st == nil {
			return fmt.Errorf("%w: floor of an unknown stream", crdt.ErrCorrupt)
		}
		st.floor = row
		return nil
	})
	if err != nil {
		return err
	}
	err = l.each([]byte{rangeDigests}, func(k, v []byte) error {
		if len(k) != 3 || len(v) != 8 || binary.BigEndian.Uint16(k[1:]) >= Buckets {
			return errKey(k)
		}
		d := binary.BigEndian.Uint64(v)
		l.digests[binary.BigEndian.Uint16(k[1:])] = d
		l.total += d
		return nil
	})
	if err != nil {
		return err
	}
	err = l.each([]byte{rangePending}, func(k, v []byte) error {
		if len(k) != 2 {
			return errKey(k)
		}
		var err error
		l.pending[k[1]], err = crdt.DecodeVector(v)
		return err
	})
	if err != nil {
		return err
	}
	return l.loadConflicts()
}

// get returns a copy of a stored value, nil if there is none.
func (l *Log) get(key []byte) ([]byte, error) { return get(l.db, key) }

func get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(v))
	copy(out, v)
	return out, closer.Close()
}

// each calls fn for what is stored under a prefix.
func (l *Log) each(prefix []byte, fn func(k, v []byte) error) error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			err = fn(it.Key(), v)
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}

// Close ends the log: what is committed is synced, and the exact bound of the
// tags in use is kept. A group still open is discarded. An error means that
// something committed may not be durable.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.wake.Broadcast()
	l.mu.Unlock()
	close(l.stop)
	l.work.Wait()

	err := l.level()
	defer l.commit.Unlock()
	if l.failure.Load() == nil {
		err = errors.Join(err, l.tags.settle(l))
	} else {
		err = nil // that is what failed
	}
	_ = l.disk.syncWAL() // a failure is looked at below
	if f := l.failure.Load(); f != nil && f.fatal {
		err = f.err
	}
	l.advanceDurable(l.targetDurable())
	if l.failure.Load() == nil {
		l.flush()
	}
	return errors.Join(err, l.db.Close(), l.lock.Close())
}

// closeFlush bounds the wait for the last flush.
const closeFlush = 5 * time.Second

// flush moves what is in memory to tables, so that the next start has nothing
// to replay and the write-ahead log, whose files are allocated ahead, takes no
// room. It is a kindness: what is not flushed is in the log.
func (l *Log) flush() {
	flushed, err := l.db.AsyncFlush()
	if err != nil {
		return
	}
	t := time.NewTimer(closeFlush)
	defer t.Stop()
	select {
	case <-flushed:
	case <-t.C:
	}
}

// Vector returns what has been applied. It must not be changed.
func (l *Log) Vector() crdt.Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.vector
}

// Durable returns the part of Vector that no power loss takes away: what may
// be shipped and acknowledged. It must not be changed.
func (l *Log) Durable() crdt.Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable
}

// Known returns what the origin of a stream is known to have seen: the context
// of the newest applied entry, joined with what SetKnown told.
func (l *Log) Known(s crdt.Stream) crdt.Vector {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st := l.streams[s]; st != nil {
		return st.row.known.Join(st.heard)
	}
	return nil
}

// SetKnown notes, until the log is closed, that the origin of a stream has
// seen v. It has no effect for a stream of which nothing has been applied.
func (l *Log) SetKnown(s crdt.Stream, v crdt.Vector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st := l.streams[s]; st != nil {
		st.heard = st.heard.Join(v)
	}
}

// Digest returns the digest of a bucket's live cells.
func (l *Log) Digest(bucket int) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.digests[bucket]
}

// Digests returns the digests of all buckets, the vector they belong to, and
// their sum: equal vectors mean equal digests.
func (l *Log) Digests() (buckets [Buckets]uint64, total uint64, v crdt.Vector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.digests, l.total, l.vector
}

// Failed returns why writes are refused, an error that wraps ErrDisk, or nil.
// It also looks, at most once a second, whether there is space.
func (l *Log) Failed() error {
	l.checkSpace()
	f := l.failure.Load()
	if f != nil && !f.fatal && !f.space && time.Since(f.at) > retryAfter {
		l.recovered(f)
		f = l.failure.Load()
	}
	if f != nil {
		return f.err
	}
	return nil
}

// Retry lets writes go on after a failure that may have passed: a full disk.
// It returns the failure if only a restart helps, or if it has not passed.
func (l *Log) Retry() error {
	if f := l.failure.Load(); f != nil && !f.fatal {
		l.recovered(f)
	}
	l.space.Store(0)
	return l.Failed()
}

func (l *Log) fail(err error, fatal, space bool) {
	f := &failure{err: fmt.Errorf("%w: %w", ErrDisk, err), fatal: fatal, space: space, at: time.Now()}
	for {
		old := l.failure.Load()
		if old != nil && (old.fatal || old.space && !fatal) {
			return
		}
		if l.failure.CompareAndSwap(old, f) {
			if old != nil && !fatal {
				return // known: only its time is new
			}
			break
		}
	}
	l.opts.Logger.Error("writes are stopped", "err", err, "restart_needed", fatal)
	go func() { // the caller may hold pebble's locks
		l.mu.Lock()
		l.wake.Broadcast()
		if l.alarm != nil {
			close(l.alarm)
			l.alarm = nil
		}
		l.mu.Unlock()
		if l.opts.Events.Failed != nil {
			l.opts.Events.Failed(f.err)
		}
	}()
}

func (l *Log) recovered(f *failure) {
	if l.failure.CompareAndSwap(f, nil) {
		l.opts.Logger.Info("writes go on")
		go func() {
			if l.opts.Events.Failed != nil {
				l.opts.Events.Failed(nil)
			}
		}()
	}
}

// backgroundDone takes note of a flush or compaction that has ended.
func (l *Log) backgroundDone(err error) {
	if f := l.failure.Load(); err == nil && f != nil && !f.fatal && !f.space {
		l.recovered(f)
	}
	l.madeRoom()
}

// madeRoom has makeRoom look again.
func (l *Log) madeRoom() {
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// Limits beyond which Commit waits for flushes and compactions.
const (
	maxMemTables = 4
	maxSublevels = 24
)

// makeRoom waits while too much is in memory or unsorted. added is what the
// caller is about to write; it looks only now and then.
func (l *Log) makeRoom(added int) error {
	if l.unseen += uint64(added); l.unseen < l.opts.MemTableBytes/4 {
		return nil
	}
	l.unseen = 0
	for {
		if f := l.failure.Load(); f != nil {
			return f.err
		}
		if l.redo.waiting() > redoLimit*l.opts.RedoBytes { // sweeps wait for a drain
			if err := l.drain(); err != nil {
				l.fail(err, true, false)
				return err
			}
		}
		m := l.db.Metrics()
		if m.MemTable.Size <= maxMemTables*l.opts.MemTableBytes && m.Levels[0].Sublevels < maxSublevels {
			return nil
		}
		l.counters.stalls.Add(1)
		select {
		case <-l.room:
		case <-l.failing():
		case <-l.stop:
			return ErrClosed
		}
	}
}

// failing returns a channel that is closed by the next failure.
func (l *Log) failing() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure.Load() != nil {
		return closedChan
	}
	if l.alarm == nil {
		l.alarm = make(chan struct{})
	}
	return l.alarm
}

var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// checkSpace stops writes while the disk is nearly full: running out in the
// middle of a write can only be cured by a restart.
func (l *Log) checkSpace() {
	now := time.Now().UnixNano()
	last := l.space.Load()
	if l.opts.MinFree < 0 || now-last < int64(time.Second) || !l.space.CompareAndSwap(last, now) {
		return
	}
	u, err := l.opts.FS.GetDiskUsage(l.opts.Dir)
	if err != nil {
		return
	}
	f := l.failure.Load()
	switch {
	case u.AvailBytes < uint64(l.opts.MinFree):
		l.fail(fmt.Errorf("only %d bytes are free, writes need %d", u.AvailBytes, l.opts.MinFree), false, true)
	case f != nil && f.space && u.AvailBytes >= uint64(l.opts.MinFree)*5/4:
		l.recovered(f)
	}
}

// pebbleLogger passes on what pebble has to say. It has no way to exit: what
// pebble calls fatal stops writes.
type pebbleLogger struct{ l *Log }

func (p pebbleLogger) Infof(format string, args ...any) {}

func (p pebbleLogger) Errorf(format string, args ...any) {
	p.l.opts.Logger.Warn("storage", slog.String("message", fmt.Sprintf(format, args...)))
}

func (p pebbleLogger) Fatalf(format string, args ...any) {
	e := storageError{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if err, ok := a.(error); ok {
			e.cause = err
		}
	}
	p.l.fail(e, true, false)
}

// storageError is what pebble gave up with.
type storageError struct {
	text  string
	cause error
}

func (e storageError) Error() string { return e.text }
func (e storageError) Unwrap() error { return e.cause }
