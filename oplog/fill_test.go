package oplog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/replicatord/replicatord/crdt"
)

// filler brings the keys of one replica to another by tables, step by step, as
// a state sync does: each step says how far it came.
type filler struct {
	keys []*KeyState // of the source, in order
	r    *replica
	own  int // keys of its own, where it has been
}

const (
	fillStep = 7
	filledTo = "filled/to" // the meta blob that says how far it came
)

// fillSource returns keys of all kinds of sizes, some of which expire.
func fillSource(t *testing.T, n int) (keys []*KeyState, sum uint64) {
	src := openReplica(t, testOptions(vfs.NewMem()))
	defer src.close()
	rng := rand.New(rand.NewPCG(3, 4))
	src.must(func(w *crdt.Writer) {
		for i := range n {
			k := crdt.Key{DB: uint8(i % 3), Name: fmt.Sprint("key", i)}
			switch i % 3 {
			case 0:
				w.SetString(k, []byte(strings.Repeat("v", rng.IntN(400))), false)
			case 1:
				for j := range 1 + rng.IntN(20) {
					w.SetElem(k, crdt.KindField, fmt.Sprint(j), []byte(fmt.Sprint(rng.IntN(1000))))
				}
			default:
				w.AddElem(k, crdt.KindString, "", crdt.Int(5))
				w.SetExpiry(k, src.now.UnixMilli()+int64(1+rng.IntN(1_000_000)))
			}
		}
	})
	s, err := src.log.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.Each(nil, nil, 1<<30, func(k *KeyState) error { keys = append(keys, k); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(keys) != n {
		t.Fatalf("%d keys of %d", len(keys), n)
	}
	return keys, s.Digest
}

// at returns how many keys have been filled in.
func (f *filler) at(t *testing.T) int {
	b, err := f.r.log.Meta(filledTo)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if b != nil {
		if _, err := fmt.Sscan(string(b), &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// pos returns the position before a key of the source; that of the end is empty.
func (f *filler) pos(i int) []byte {
	if i >= len(f.keys) {
		return nil
	}
	return Pos(f.keys[i].Key)
}

// step fills in the keys that come next.
func (f *filler) step(at int) error {
	end := min(at+fillStep, len(f.keys))
	fill, err := f.r.log.NewFill()
	if err != nil {
		return err
	}
	defer fill.Close()
	for _, k := range f.keys[at:end] {
		if err := fill.Add(k.Key, k.Header, k.Cells); err != nil {
			return err
		}
	}
	if err := fill.Finish(); err != nil {
		return err
	}
	g := f.r.log.Begin()
	defer g.Discard()
	from := f.pos(at)
	if at == 0 {
		from = nil
	}
	if vacant, err := g.Vacant(from, f.pos(end)); err != nil {
		return err
	} else if !vacant {
		return errors.New("something is there")
	}
	g.Fill(from, f.pos(end), fill)
	g.SetMeta(filledTo, []byte(fmt.Sprint(end)))
	return g.Commit()
}

// write writes a key where tables were filled in, and one of those that came by
// them.
func (f *filler) write(at int) error {
	err := f.r.group(func(w *crdt.Writer) {
		for i := range 1000 {
			k := crdt.Key{Name: fmt.Sprint("own", f.own, i)}
			if bytes.Compare(Pos(k), f.pos(at)) < 0 {
				w.SetString(k, []byte("own"), false)
				break
			}
		}
		w.SetString(f.keys[at/2].Key, []byte("again"), false)
		w.Remove(f.keys[at/3].Key)
	})
	if err == nil {
		f.own++
	}
	return err
}

// check proves that what is stored is just what has been filled in, and goes on
// to the end.
func (f *filler) check(t *testing.T) (at int) {
	t.Helper()
	f.r.verify()
	at = f.at(t)
	if at < len(f.keys) {
		if v, err := vacant(f.r.log.db, f.pos(at), nil); err != nil || !v {
			t.Fatalf("%d keys are filled in, and there is something behind them (%v)", at, err)
		}
	}
	if from, _, err := halfFilled(f.r.log.db); from != nil || err != nil {
		t.Fatalf("still filling %x (%v)", from, err)
	}
	names, err := f.r.log.disk.List(storeDir)
	for _, name := range names {
		if strings.HasSuffix(name, fillSuffix) {
			err = errors.Join(err, errors.New(name))
		}
	}
	if err != nil {
		t.Fatalf("tables are left: %v", err)
	}
	for i := at; i < len(f.keys); i += fillStep {
		if err := f.step(i); err != nil {
			t.Fatalf("after %d keys: %v", i, err)
		}
	}
	f.r.verify()
	return at
}

// A table is as good as its keys written one by one.
func TestFill(t *testing.T) {
	keys, sum := fillSource(t, 100)
	f := &filler{keys: keys, r: openReplica(t, testOptions(vfs.NewMem()))}
	// That there are none is in the cache.
	for _, k := range keys {
		f.r.view(func(w *crdt.Writer) { w.Len(k.Key, crdt.KindField) })
	}
	f.check(t)
	if _, got, _ := f.r.log.Digests(); got != sum {
		t.Errorf("digest %x, want %x", got, sum)
	}
	n := 0
	for _, k := range keys {
		g := f.r.log.Begin()
		if h := g.Header(k.Key); h == nil || h.Digest != k.Header.Digest || h.Expiry != k.Header.Expiry {
			t.Errorf("%v: header %v, want %v", k.Key, h, k.Header)
		}
		for _, c := range k.Cells {
			if got := g.Cell(crdt.CellID{Key: k.Key, Kind: c.Kind, Elem: c.Elem}); got == nil || !bytes.Equal(got.AppendBinary(nil), c.Data) {
				t.Errorf("%v: cell %v", k.Key, got)
			}
		}
		g.Discard()
		if k.Header.Expiry != 0 {
			n++
		}
	}
	if got := len(f.r.log.Expired(1<<62, 1000)); got != n || n == 0 {
		t.Errorf("%d keys are due one day, want %d", got, n)
	}
	// Only where nothing is.
	if err := f.step(0); err == nil {
		t.Error("filled in twice")
	}
	if err := f.write(50); err != nil {
		t.Fatal(err)
	}
	f.r.drain()
	f.r.verify()
	f.r.close()
}

// Keys that do not come in order are refused.
func TestFillOutOfOrder(t *testing.T) {
	keys, _ := fillSource(t, 3)
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	fill, err := r.log.NewFill()
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	if err := fill.Add(keys[1].Key, keys[1].Header, keys[1].Cells); err != nil {
		t.Fatal(err)
	}
	if err := fill.Add(keys[0].Key, keys[0].Header, keys[0].Cells); err == nil {
		t.Error("a key before the last was taken")
	}
}

// Power fails around every operation of the disk, with none, some or all of what
// was not synced lost. Each table is there whole or not at all, as the group says
// that took it.
func TestPowerLossWhileFilling(t *testing.T) {
	keys, _ := fillSource(t, 70)
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			type crash struct {
				fs    *vfs.MemFS
				acked int
				op    string
			}
			var mu sync.Mutex
			var crashes []crash
			var acked atomic.Int64
			var on atomic.Bool
			rng := rand.New(rand.NewPCG(21, uint64(p)))
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				switch op.Kind {
				case errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpRename, errorfs.OpCreate, errorfs.OpRemove, errorfs.OpLink, errorfs.OpFileClose:
				default:
					return nil
				}
				if mu.Lock(); on.Load() && len(crashes) < 400 {
					c := crash{acked: int(acked.Load()), op: fmt.Sprint(op.Kind, " ", op.Path)}
					c.fs = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng})
					crashes = append(crashes, c)
				}
				mu.Unlock()
				return nil
			}))
			o := testOptions(fs)
			o.Fsync = p
			f := &filler{keys: keys, r: openReplica(t, o)}
			on.Store(true)
			for at := 0; at < len(keys); at += fillStep {
				if err := f.step(at); err != nil {
					t.Fatal(err)
				}
				acked.Store(int64(min(at+fillStep, len(keys))))
				if err := f.write(min(at+fillStep, len(keys)-1)); err != nil {
					t.Fatal(err)
				}
			}
			on.Store(false)
			f.r.close()
			if len(crashes) < 50 {
				t.Fatalf("only %d crashes", len(crashes))
			}
			cut := 0
			for i, c := range crashes {
				o.FS = c.fs
				// As oplog verify finds it before anything is put right.
				if report, err := Verify(t.Context(), o.Dir, c.fs); err != nil || len(report.Faults) > 0 {
					t.Fatalf("crash %d of %d, at %s: %v %v", i, len(crashes), c.op, report, err)
				}
				g := &filler{keys: keys, r: openReplica(t, o)}
				if at := g.check(t); p == FsyncAlways && at < c.acked {
					t.Errorf("crash %d of %d, at %s: %d keys are left of %d that were safe", i, len(crashes), c.op, at, c.acked)
				} else if at < len(keys) {
					cut++
				}
				g.r.close()
				if t.Failed() {
					t.FailNow()
				}
			}
			if cut == 0 {
				t.Error("no crash was in the middle")
			}
		})
	}
}

// Each operation of the disk fails in turn, once or for good. The table is not
// half there, now or after a restart, and if the log goes on so does filling.
func TestDiskFailsWhileFilling(t *testing.T) {
	keys, _ := fillSource(t, 21)
	run := func(t *testing.T, fault error, from, to int) (total int) {
		mem := vfs.NewCrashableMem()
		var ops atomic.Int64
		var on atomic.Bool
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpRename, errorfs.OpCreate, errorfs.OpLink, errorfs.OpFileClose:
			default:
				return nil
			}
			if !on.Load() {
				return nil
			}
			if n := int(ops.Add(1)) - 1; n >= from && n < to {
				return fault
			}
			return nil
		}))
		o := testOptions(fs)
		o.retryPause = 1
		f := &filler{keys: keys, r: openReplica(t, o)}
		on.Store(true)
		failed := 0
		for at := 0; at < len(keys); {
			if err := f.step(at); err == nil {
				at += fillStep
			} else if failed++; failed > 3 || f.r.log.Retry() != nil {
				break
			}
			if now := f.at(t); now != at && f.r.log.failure.Load() == nil {
				t.Fatalf("%d keys are filled in, not %d", now, at)
			}
		}
		on.Store(false)
		_ = f.r.log.Close()
		o.FS = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		g := &filler{keys: keys, r: openReplica(t, o)}
		g.check(t)
		g.r.close()
		return int(ops.Load())
	}
	for name, fault := range map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC} {
		t.Run(name, func(t *testing.T) {
			total := run(t, fault, -1, -1)
			if total < 30 {
				t.Fatalf("only %d operations", total)
			}
			for at := range total {
				for _, to := range []int{at + 1, 1 << 30} {
					if run(t, fault, at, to); t.Failed() {
						t.Fatalf("operation %d of %d, up to %d", at, total, to)
					}
				}
			}
		})
	}
}
