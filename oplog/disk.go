package oplog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// diskFS stands between pebble and the file system. It does two things that
// pebble cannot be told to do.
//
// It decides when the write-ahead log is really synced. Pebble writes to its
// log file only when a commit asks for a sync (until then records sit in the
// memory of the process), so every commit asks. Under FsyncEverySec and FsyncNo
// the sync that follows the write is put off here: the bytes are with the
// kernel, which survives the death of the process, and the syncer brings them
// to disk. A log file is really synced before it is closed, and pebble closes
// one before it creates the next, so only the newest can be unsynced. Log
// files are not recycled.
//
// And it keeps a failing disk from killing the process: pebble panics, holding
// its locks, when its log cannot be written or rotated, or some time after its
// MANIFEST could not. Once armed, such an error is reported to fail instead, and
// whatever pebble writes to either from then on goes nowhere; Commit sees the
// failure and acknowledges nothing. What pebble would remove after that stays: a
// restart finds the MANIFEST as it was, and needs all that it names.
type diskFS struct {
	vfs.FS
	lazy bool
	fail func(error)   // the write-ahead log or the MANIFEST is broken
	hurt func(error)   // something else could not be written; pebble tries again
	stop chan struct{} // ends the pauses of failing operations

	retryPause time.Duration

	armed   atomic.Bool
	failed  atomic.Bool
	syncs   atomic.Uint64
	syncLag atomic.Int64 // nanoseconds of the last real sync

	mu  sync.Mutex
	wal *walFile // the newest log file
}

// Unwrap returns the wrapped file system.
func (d *diskFS) Unwrap() vfs.FS { return d.FS }

// inWAL reports whether a file lies in the directory of the write-ahead log.
func (d *diskFS) inWAL(name string) bool { return d.PathDir(name) == walDir }

// isManifest reports whether a file is a MANIFEST, or the marker that names the one
// that counts.
func (d *diskFS) isManifest(name string) bool {
	base := d.PathBase(name)
	return strings.HasPrefix(base, "MANIFEST-") || strings.HasPrefix(base, "marker.")
}

// broken notes an error of the write-ahead log or the MANIFEST. The failure is known before
// anything is thrown away because of it: else a commit could miss it.
func (d *diskFS) broken(op, name string, err error) {
	d.fail(fmt.Errorf("%s %s: %w", op, filepath.Base(name), err))
	d.failed.Store(true)
}

// Create implements vfs.FS.
func (d *diskFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	wal, manifest := d.inWAL(name), d.isManifest(name)
	if (wal || manifest) && d.failed.Load() {
		return voidFile{name: name}, nil
	}
	f, err := d.FS.Create(name, c)
	switch {
	case err != nil && !wal && !manifest:
		return nil, d.pause(err)
	case err != nil && !d.armed.Load():
		return nil, err
	case err != nil:
		d.broken("create", name, err)
		return voidFile{name: name}, nil
	case manifest:
		return &manifestFile{File: f, fs: d, name: name}, nil
	case !wal:
		return &otherFile{File: f, fs: d}, nil
	}
	w := &walFile{File: f, fs: d, name: name}
	d.mu.Lock()
	d.wal = w
	d.mu.Unlock()
	return w, nil
}

// Remove implements vfs.FS.
func (d *diskFS) Remove(name string) error {
	if d.failed.Load() {
		return nil // the next open removes what is not needed
	}
	return d.FS.Remove(name)
}

// ReuseForWrite implements vfs.FS by creating a new file: the tail of a
// recycled log would be old records, which a lost write could bring to light.
func (d *diskFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	_ = d.Remove(oldname) // it is obsolete; the next open tries again
	return d.Create(newname, c)
}

// OpenDir implements vfs.FS.
func (d *diskFS) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil || name != walDir && name != storeDir {
		return f, err
	}
	return &manifestFile{File: f, fs: d, name: name}, nil
}

// pause slows down operations that fail, because pebble tries failed flushes
// again at once.
func (d *diskFS) pause(err error) error {
	if d.armed.Load() {
		d.hurt(err)
		t := time.NewTimer(d.retryPause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-d.stop:
		}
	}
	return err
}

// syncWAL brings everything written to the log so far to disk. Once armed, it
// returns no error: the failure is known.
func (d *diskFS) syncWAL() error {
	d.mu.Lock()
	w := d.wal
	d.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.syncNow()
}

// walFile is a file of the write-ahead log.
type walFile struct {
	vfs.File
	fs    *diskFS
	name  string
	dirty atomic.Bool

	mu     sync.Mutex // held while syncing and closing
	closed bool
}

func (w *walFile) Write(p []byte) (int, error) {
	if w.fs.failed.Load() {
		return len(p), nil
	}
	n, err := w.File.Write(p)
	w.dirty.Store(true) // not before: a sync in between would miss the write
	if err != nil && w.fs.armed.Load() {
		w.fs.broken("write", w.name, err)
		return len(p), nil
	}
	return n, err
}

// Stat cannot fail for pebble's purpose: a file just made is empty.
func (w *walFile) Stat() (vfs.FileInfo, error) {
	info, err := w.File.Stat()
	if err != nil && w.fs.armed.Load() {
		w.fs.broken("stat", w.name, err)
		return voidInfo{name: w.name}, nil
	}
	return info, err
}

// Sync is what a commit waits for.
func (w *walFile) Sync() error {
	if w.fs.lazy {
		return nil
	}
	return w.syncNow()
}

// SyncData is Sync.
func (w *walFile) SyncData() error { return w.Sync() }

// syncNow syncs what has been written, unless the file is closed, and with
// that synced.
func (w *walFile) syncNow() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	return w.syncLocked()
}

func (w *walFile) syncLocked() error {
	if w.fs.failed.Load() || !w.dirty.Swap(false) {
		return nil
	}
	start := time.Now()
	err := w.File.SyncData()
	w.fs.syncs.Add(1)
	w.fs.syncLag.Store(int64(time.Since(start)))
	if err != nil {
		// What a failed sync leaves on disk is unknown, and a second one may
		// succeed without having written it: never try again.
		if !w.fs.armed.Load() {
			w.dirty.Store(true)
			return err
		}
		w.fs.broken("sync", w.name, err)
	}
	return nil
}

func (w *walFile) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	err := w.syncLocked()
	cerr := w.File.Close()
	if err = errors.Join(err, cerr); err != nil && w.fs.armed.Load() {
		w.fs.broken("close", w.name, err)
		return nil
	}
	return err
}

// manifestFile is a MANIFEST or its marker, or the open directory of those or of the
// write-ahead log.
type manifestFile struct {
	vfs.File
	fs   *diskFS
	name string
}

// do does what may break it, unless something has failed already.
func (f *manifestFile) do(op string, fn func() error) error {
	if f.fs.failed.Load() {
		return nil
	}
	err := fn()
	if err != nil && f.fs.armed.Load() {
		f.fs.broken(op, f.name, err)
		return nil
	}
	return err
}

func (f *manifestFile) Write(p []byte) (n int, err error) {
	n = len(p)
	err = f.do("write", func() (err error) {
		n, err = f.File.Write(p)
		return err
	})
	if err == nil {
		n = len(p)
	}
	return n, err
}

func (f *manifestFile) Sync() error     { return f.do("sync", f.File.Sync) }
func (f *manifestFile) SyncData() error { return f.do("sync", f.File.SyncData) }

func (f *manifestFile) SyncTo(n int64) (full bool, err error) {
	err = f.do("sync", func() (err error) {
		full, err = f.File.SyncTo(n)
		return err
	})
	return full, err
}

func (f *manifestFile) Close() error {
	if err := f.File.Close(); err != nil {
		return f.do("close", func() error { return err })
	}
	return nil
}

// otherFile is a table. Pebble handles its failures.
type otherFile struct {
	vfs.File
	fs *diskFS
}

func (f *otherFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if err != nil {
		err = f.fs.pause(err)
	}
	return n, err
}

func (f *otherFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		return f.fs.pause(err)
	}
	return nil
}

func (f *otherFile) SyncData() error {
	if err := f.File.SyncData(); err != nil {
		return f.fs.pause(err)
	}
	return nil
}

// voidFile takes the place of a file once the log has failed.
type voidFile struct{ name string }

func (voidFile) Close() error                           { return nil }
func (voidFile) Read([]byte) (int, error)               { return 0, io.EOF }
func (voidFile) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (voidFile) Write(p []byte) (int, error)            { return len(p), nil }
func (voidFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (voidFile) Preallocate(int64, int64) error         { return nil }
func (voidFile) Sync() error                            { return nil }
func (voidFile) SyncTo(int64) (bool, error)             { return false, nil }
func (voidFile) SyncData() error                        { return nil }
func (voidFile) Prefetch(int64, int64) error            { return nil }
func (voidFile) Fd() uintptr                            { return vfs.InvalidFd }
func (f voidFile) Stat() (vfs.FileInfo, error)          { return voidInfo(f), nil }

// voidInfo describes a voidFile: empty.
type voidInfo struct{ name string }

func (i voidInfo) Name() string             { return filepath.Base(i.name) }
func (voidInfo) Size() int64                { return 0 }
func (voidInfo) Mode() os.FileMode          { return 0 }
func (voidInfo) ModTime() time.Time         { return time.Time{} }
func (voidInfo) IsDir() bool                { return false }
func (voidInfo) Sys() any                   { return nil }
func (voidInfo) DeviceID() (d vfs.DeviceID) { return d }
