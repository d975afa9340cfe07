package oplog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/replicatord/replicatord/crdt"
)

// workload commits groups that each change several keys, and remembers how far
// what was acknowledged went.
type workload struct {
	r     *replica
	n     int        // groups acknowledged
	tags  []crdt.Tag // of each
	bytes int
}

// step commits group n: it sets counter and every one of three keys to n, so
// that a part of a group would show.
func (w *workload) step() error {
	n := w.n + 1
	err := w.r.group(func(x *crdt.Writer) {
		for i := range 3 {
			x.SetString(crdt.Key{Name: fmt.Sprint("k", i)}, []byte(fmt.Sprint(n, strings.Repeat("x", w.bytes))), false)
		}
		x.AddElem(crdt.Key{Name: "n"}, crdt.KindString, "", crdt.Int(1))
		x.SetElem(crdt.Key{Name: "s"}, crdt.KindMember, fmt.Sprint(n), nil)
		x.SetExpiry(crdt.Key{Name: "k1"}, w.r.now.UnixMilli()+int64(1000+n))
		h := crdt.Key{Name: "h"}
		x.SetField(h, "f", fmt.Append(nil, n), n%2 == 0)
		x.SetFieldExpiry(h, "f", w.r.now.UnixMilli()+int64(2000+n))
		if n%5 == 0 {
			x.Remove(crdt.Key{Name: "s"})
		}
	})
	if err == nil {
		w.n++
		w.tags = append(w.tags, w.r.tag)
	}
	return err
}

// check opens what is left of a data directory and proves that it holds just
// the first m groups for some m of at least atLeast, whole. It returns m.
func check(t *testing.T, fs vfs.FS, o Options, tags []crdt.Tag, atLeast int) int {
	t.Helper()
	o.FS = fs
	r := openReplica(t, o)
	defer r.close()
	r.verify()
	m := 0
	r.view(func(w *crdt.Writer) {
		if b, ok := w.Elem(crdt.Key{Name: "n"}, crdt.KindString, ""); ok {
			if _, err := fmt.Sscan(string(b), &m); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			b, _ := w.Elem(crdt.Key{Name: fmt.Sprint("k", i)}, crdt.KindString, "")
			if got := strings.TrimRight(string(b), "x"); m > 0 && got != fmt.Sprint(m) {
				t.Errorf("part of a group: k%d is %q, %d groups are there", i, got, m)
			}
		}
		h := crdt.Key{Name: "h"}
		b, _ := w.Elem(h, crdt.KindField, "f")
		if at := w.FieldExpiry(h, "f"); m > 0 && (string(b) != fmt.Sprint(m) || at != r.now.UnixMilli()+int64(2000+m)) {
			t.Errorf("part of a group: field f is %q until %d, %d groups are there", b, at, m)
		}
		if got, want := w.Len(crdt.Key{Name: "s"}, crdt.KindMember), m%5; got != want {
			t.Errorf("%d members after %d groups", got, m)
		}
	})
	if m < atLeast {
		t.Errorf("%d groups are left of %d that were safe", m, atLeast)
	}
	var at crdt.Tag
	for _, p := range r.log.Vector() {
		at = max(at, p.Tag)
	}
	if m > 0 && m <= len(tags) && at != tags[m-1] {
		t.Errorf("%d groups are there, the vector says %v, not %v", m, at, tags[m-1])
	}
	if len(tags) > 0 && r.log.TagFloor() < tags[len(tags)-1] {
		t.Errorf("tags up to %v were used, the next start after %v", tags[len(tags)-1], r.log.TagFloor())
	}
	// It goes on from there.
	r.tag = max(r.tag, r.log.TagFloor())
	next := &workload{r: r, n: m}
	if err := next.step(); err != nil {
		t.Error(err)
	}
	return m
}

var policies = []Policy{FsyncAlways, FsyncEverySec, FsyncNo}

// Power fails at every sync of the disk, before and after it, with none, some
// or all of what was not synced lost. What Durable told, and under FsyncAlways
// all that was acknowledged, is there; groups are whole.
func TestPowerLossAtEverySync(t *testing.T) {
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			type crash struct {
				fs             *vfs.MemFS
				acked, durable int
				lost           int
			}
			var mu sync.Mutex
			var crashes []crash
			w := &workload{bytes: 3000}
			var acked atomic.Int64
			var durable atomic.Int64
			rng := rand.New(rand.NewPCG(11, uint64(p)))
			on := atomic.Bool{}
			clone := func() {
				if !on.Load() {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if len(crashes) > 400 {
					return
				}
				percent := []int{0, 50, 100}[rng.IntN(3)]
				// Read first: what is told now must be in the clone.
				c := crash{acked: int(acked.Load()), durable: int(durable.Load()), lost: percent}
				c.fs = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
				crashes = append(crashes, c)
			}
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				switch op.Kind {
				case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpRename, errorfs.OpCreate, errorfs.OpRemove:
					clone()
				}
				return nil
			}))
			o := testOptions(fs)
			o.Fsync = p
			o.MemTableBytes = 64 << 10
			w.r = openReplica(t, o)
			on.Store(true)
			for range 120 {
				if err := w.step(); err != nil {
					t.Fatal(err)
				}
				acked.Store(int64(w.n))
				at := crdt.Tag(0)
				for _, q := range w.r.log.Durable() {
					at = q.Tag
				}
				n, found := slices.BinarySearch(w.tags, at)
				if found {
					n++
				}
				durable.Store(int64(n))
				if w.n%40 == 0 {
					if err := w.r.log.db.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				if w.n%16 == 0 {
					clone()
				}
			}
			on.Store(false)
			w.r.close()
			if len(crashes) < 20 {
				t.Fatalf("only %d crashes", len(crashes))
			}
			for i, c := range crashes {
				atLeast := c.durable
				if p == FsyncAlways {
					atLeast = c.acked
				}
				o := testOptions(nil)
				tags := w.tags[:atLeast]
				m := check(t, c.fs, o, w.tags[:max(atLeast, 0)], atLeast)
				if t.Failed() {
					t.Fatalf("crash %d: %d acknowledged, %d durable, %d%% of the unsynced kept, %d found; %d tags", i, c.acked, c.durable, c.lost, m, len(tags))
				}
			}
			t.Logf("%d crashes", len(crashes))
		})
	}
}

// The process dies, later the power fails: what the next process found and
// called durable stays.
func TestPowerLossAfterProcessDeath(t *testing.T) {
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			o := testOptions(mem)
			o.Fsync = p
			w := &workload{r: openReplica(t, o), bytes: 100}
			for range 50 {
				if err := w.step(); err != nil {
					t.Fatal(err)
				}
			}
			// What the kernel has survives the process: all of it.
			dead := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
			w.r.close()
			kernel := vfs.NewCrashableMem()
			copyUnsynced(t, dead, kernel, "/")
			o.FS = kernel
			next := openReplica(t, o)
			if !next.log.Durable().Equal(next.log.Vector()) {
				t.Error("what was found is not durable")
			}
			if next.tag = next.log.TagFloor(); next.tag < w.tags[49] {
				t.Errorf("tags start again after %v", next.tag)
			}
			power := kernel.CrashClone(vfs.CrashCloneCfg{})
			next.close()
			if m := check(t, power, o, w.tags, 50); m != 50 {
				t.Errorf("%d of 50 groups are left", m)
			}
		})
	}
}

// copyUnsynced copies files into fs, their names synced but not their bytes.
func copyUnsynced(t *testing.T, from, to vfs.FS, dir string) {
	t.Helper()
	names, err := from.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		name := from.PathJoin(dir, n)
		info, err := from.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			if err := to.MkdirAll(name, 0o700); err != nil {
				t.Fatal(err)
			}
			copyUnsynced(t, from, to, name)
			continue
		}
		in, err := from.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		out, err := to.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, info.Size())
		if len(b) > 0 {
			if _, err := in.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
		}
		_, err = out.Write(b)
		// All but the write-ahead log was synced when it was written.
		if !strings.HasSuffix(name, ".log") {
			err = errors.Join(err, out.Sync())
		}
		if err = errors.Join(err, in.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
	}
	d, err := to.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

// Each operation of the disk fails in turn, for good. Nothing panics or hangs;
// what was acknowledged is there after a restart; a refused group is not half
// there; after the failure reads work and writes are refused.
func TestEveryDiskOperationFails(t *testing.T) {
	kinds := map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC}
	for name, fault := range kinds {
		for _, p := range policies {
			t.Run(name+"/"+p.String(), func(t *testing.T) {
				total := faultAt(t, p, "", fault, -1)
				if total < 50 {
					t.Fatalf("only %d operations", total)
				}
				rng := rand.New(rand.NewPCG(5, uint64(p)))
				for at := range total {
					// All of the early ones, then a sample.
					if at > 20 && rng.IntN(6) != 0 {
						continue
					}
					faultAt(t, p, "", fault, at)
					if t.Failed() {
						t.Fatalf("operation %d of %d", at, total)
					}
				}
			})
		}
	}
}

// Each operation on the MANIFEST fails in turn, and nothing else does: what pebble
// takes for written down goes nowhere, and nothing is removed because of it.
func TestManifestFails(t *testing.T) {
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			total := faultAt(t, p, "MANIFEST", syscall.EIO, -1)
			if total < 10 {
				t.Fatalf("only %d operations", total)
			}
			for at := range total {
				faultAt(t, p, "MANIFEST", syscall.EIO, at)
				if t.Failed() {
					t.Fatalf("operation %d of %d", at, total)
				}
			}
		})
	}
}

// faultAt runs a workload on a disk of which write operations fail from the
// given one on, or if a file is named, just that one of them on it; and returns how many there were.
func faultAt(t *testing.T, p Policy, file string, fault error, at int) int {
	t.Helper()
	mem := vfs.NewCrashableMem()
	var ops atomic.Int64
	var on atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpRename, errorfs.OpCreate, errorfs.OpFileClose:
		default:
			return nil
		}
		if !on.Load() || !strings.Contains(op.Path, file) {
			return nil
		}
		if n := ops.Add(1) - 1; at >= 0 && (n == int64(at) || file == "" && n > int64(at)) {
			return fault
		}
		return nil
	}))
	o := testOptions(fs)
	o.Fsync = p
	o.MemTableBytes = 64 << 10
	o.retryPause = time.Millisecond
	w := &workload{r: openReplica(t, o), bytes: 3000}
	on.Store(true)
	var failed error
	for range 30 {
		if failed = w.step(); failed != nil {
			break
		}
	}
	if failed == nil && at >= 0 {
		// Perhaps only a flush or a put-off sync has met it.
		failed = w.r.log.Sync()
	}
	if failed != nil {
		if !errors.Is(failed, ErrDisk) || !errors.Is(failed, fault) {
			t.Errorf("the error is %v", failed)
		}
		if err := w.step(); !errors.Is(err, ErrDisk) {
			t.Errorf("a write after the failure: %v", err)
		}
		if _, ok := w.r.get("k0"); !ok && w.n > 0 {
			t.Error("reads do not work")
		}
	}
	safe := w.n
	if p != FsyncAlways {
		safe = 0
		for _, q := range w.r.log.Durable() {
			n, found := slices.BinarySearch(w.tags, q.Tag)
			if safe = n; found {
				safe++
			}
		}
	}
	dead := mem.CrashClone(vfs.CrashCloneCfg{})
	process := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	if err := w.r.log.Close(); err != nil && at < 0 {
		t.Errorf("close: %v", err)
	}
	on.Store(false)
	if at >= 0 {
		check(t, dead, testOptions(nil), w.tags[:safe], safe)
		check(t, process, testOptions(nil), w.tags, w.n)
		check(t, mem, testOptions(nil), w.tags, w.n)
	}
	return int(ops.Load())
}

// A disk that runs full stops writes before anything breaks, and lets them go
// on when there is space again, without a restart.
func TestLowSpaceStopsWritesAndRecovers(t *testing.T) {
	mem := vfs.NewMem()
	fs := &smallDisk{FS: mem}
	fs.free.Store(1 << 30)
	o := testOptions(fs)
	var events []bool
	var mu sync.Mutex
	o.Events.Failed = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, err != nil)
	}
	r := openReplica(t, o)
	defer r.close()
	r.set("a", "1")
	fs.free.Store(1 << 20)
	if err := r.log.Retry(); !errors.Is(err, ErrDisk) {
		t.Errorf("with 1 MiB left: %v", err)
	}
	if err := r.group(func(w *crdt.Writer) { w.SetString(crdt.Key{Name: "a"}, []byte("2"), false) }); !errors.Is(err, ErrDisk) {
		t.Errorf("a write with 1 MiB left: %v", err)
	}
	if v, _ := r.get("a"); v != "1" {
		t.Errorf("a = %q", v)
	}
	fs.free.Store(1 << 30)
	if err := r.log.Retry(); err != nil {
		t.Errorf("with space again: %v", err)
	}
	r.set("a", "3")
	r.verify()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		n := len(events)
		mu.Unlock()
		if n == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("events: %v", events)
		}
	}
}

type smallDisk struct {
	vfs.FS
	free atomic.Uint64
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free.Load(), TotalBytes: 1 << 40}, nil
}

func (d *smallDisk) Unwrap() vfs.FS { return d.FS }
