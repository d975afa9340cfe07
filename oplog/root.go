package oplog

import (
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Directories of the store, as pebble knows them.
const (
	storeDir = "store"
	walDir   = "wal"
)

// rootFS shows a data directory as if it were the current one. Pebble keeps the
// paths it was opened with and refuses others later; under this it opens a
// directory that was moved or copied.
type rootFS struct {
	fs  vfs.FS
	dir string
}

var _ vfs.FS = rootFS{}

func (r rootFS) path(name string) string { return r.fs.PathJoin(r.dir, name) }

func (r rootFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return r.fs.Create(r.path(name), c)
}
func (r rootFS) Link(old, name string) error { return r.fs.Link(r.path(old), r.path(name)) }
func (r rootFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return r.fs.Open(r.path(name), opts...)
}
func (r rootFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return r.fs.OpenReadWrite(r.path(name), c, opts...)
}
func (r rootFS) OpenDir(name string) (vfs.File, error) { return r.fs.OpenDir(r.path(name)) }
func (r rootFS) Remove(name string) error              { return r.fs.Remove(r.path(name)) }
func (r rootFS) RemoveAll(name string) error           { return r.fs.RemoveAll(r.path(name)) }
func (r rootFS) Rename(old, name string) error         { return r.fs.Rename(r.path(old), r.path(name)) }
func (r rootFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return r.fs.ReuseForWrite(r.path(old), r.path(name), c)
}
func (r rootFS) MkdirAll(dir string, perm os.FileMode) error { return r.fs.MkdirAll(r.path(dir), perm) }
func (r rootFS) Lock(name string) (io.Closer, error)         { return r.fs.Lock(r.path(name)) }
func (r rootFS) List(dir string) ([]string, error)           { return r.fs.List(r.path(dir)) }
func (r rootFS) Stat(name string) (vfs.FileInfo, error)      { return r.fs.Stat(r.path(name)) }
func (r rootFS) PathBase(path string) string                 { return r.fs.PathBase(path) }
func (r rootFS) PathJoin(elem ...string) string              { return r.fs.PathJoin(elem...) }
func (r rootFS) PathDir(path string) string                  { return r.fs.PathDir(path) }
func (r rootFS) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	return r.fs.GetDiskUsage(r.path(path))
}
func (r rootFS) Unwrap() vfs.FS { return r.fs }
