package oplog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// TestOwnCellsAgainstModel: strings that are carried by their headers' rows and such that are
// not, with and without expiries, and hashes with expiries, in any order, with writing back,
// kills and reopenings in between: what is read is what a model has, and what is stored is in order.
func TestOwnCellsAgainstModel(t *testing.T) {
	type value struct {
		str    string
		fields map[string]string
		expiry int64
	}
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 6))
		fs := vfs.NewCrashableMem()
		o := testOptions(fs)
		o.RedoBytes = []int64{1, 2000, 20_000, 1 << 30}[rnd.IntN(4)]
		o.CacheBytes = []int64{4 << 10, 1 << 20}[rnd.IntN(2)]
		o.KeyBytes, o.KeepBytes = o.CacheBytes, 0
		r := openReplica(t, o)
		model := map[string]*value{}
		names := []string{"a", "b", "c", "d", "e"}
		future := testStart.UnixMilli() + 1e9
		change := func(w *crdt.Writer, name string, v *value) {
			k := crdt.Key{Name: name}
			there := v.str != "" || len(v.fields) > 0
			switch rnd.IntN(7) {
			case 0, 1, 2:
				s := fmt.Sprint(rnd.Uint32()) + strings.Repeat("v", rnd.IntN(40))
				if rnd.IntN(3) == 0 {
					s += strings.Repeat("v", rnd.IntN(2*carryMost))
				}
				keep := rnd.IntN(2) == 0
				w.SetString(k, []byte(s), keep)
				if !keep || !there {
					v.expiry = 0
				}
				v.str, v.fields = s, nil
			case 3:
				v.expiry = 0
				if there {
					v.expiry = future + rnd.Int64N(1e6)
					w.SetExpiry(k, v.expiry)
				}
			case 4:
				f := fmt.Sprint(rnd.IntN(12))
				w.SetElem(k, crdt.KindField, f, []byte(f))
				if v.str != "" || v.fields == nil {
					v.str, v.fields = "", map[string]string{}
				}
				v.fields[f] = f
				if !there {
					v.expiry = 0
				}
			case 5:
				f := fmt.Sprint(rnd.IntN(12))
				w.RemoveElem(k, crdt.KindField, f)
				if delete(v.fields, f); v.str == "" && len(v.fields) == 0 {
					v.expiry = 0
				}
			case 6:
				w.Remove(k)
				*v = value{}
			}
		}
		check := func(r *replica, what string) {
			t.Helper()
			r.view(func(w *crdt.Writer) {
				for _, name := range names {
					k, want := crdt.Key{Name: name}, model[name]
					if want == nil || rnd.IntN(3) == 0 {
						continue
					}
					str, _ := w.Elem(k, crdt.KindString, "")
					got := value{str: string(str), fields: map[string]string{}, expiry: w.Expiry(k)}
					w.EachElem(k, crdt.KindField, func(f string, v []byte) bool { got.fields[f] = string(v); return true })
					if got.str != want.str || got.expiry != want.expiry || fmt.Sprint(got.fields) != fmt.Sprint(want.fields) {
						t.Fatalf("seed %d, %s: %s is %.200v, not %.200v", seed, what, name, got, *want)
					}
				}
			})
		}
		for step := range 300 {
			what := fmt.Sprint("step ", step)
			name := names[rnd.IntN(len(names))]
			v := model[name]
			if v == nil {
				v = &value{}
				model[name] = v
			}
			switch rnd.IntN(16) {
			case 0:
				check(r, what)
			case 1:
				r.view(func(w *crdt.Writer) { change(w, name, &value{str: v.str, expiry: v.expiry}) }) // and discard it
			case 2:
				for more, n := true, rnd.IntN(8); more && n > 0; n-- {
					var err error
					if more, err = r.log.WriteBack(1 + rnd.IntN(4)); err != nil {
						t.Fatal(err)
					}
				}
			case 3:
				r.drain()
			case 4:
				r.close()
				r = openReplica(t, o)
			case 5:
				r.verify()
			case 6:
				dead := o
				dead.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rnd})
				again := openReplica(t, dead)
				check(again, what+", killed")
				again.verify()
				again.close()
			case 7:
				r.log.cache.trim(r.log.redo.drained.Load())
			case 8:
				r.log.Recall([]crdt.CellID{{Key: crdt.Key{Name: "a"}, Kind: crdt.KindString}, {Key: crdt.Key{Name: "b"}}, {Key: crdt.Key{Name: "c"}, Kind: crdt.KindField, Elem: "1"}}, nil)
			default:
				r.must(func(w *crdt.Writer) { change(w, name, v) })
			}
		}
		check(r, "at the end")
		r.verify()
		r.close()
	}
}

// TestSetCellThatIsCarried: who sets a cell without having asked for anything of its key does
// not have another beside it.
func TestSetCellThatIsCarried(t *testing.T) {
	o := testOptions(vfs.NewMem())
	r := openReplica(t, o)
	r.must(func(w *crdt.Writer) {
		w.SetString(crdt.Key{Name: "k"}, []byte("old"), false)
		w.SetExpiry(crdt.Key{Name: "k"}, testStart.UnixMilli()+1e6)
	})
	r.close()
	r = openReplica(t, o)
	defer r.close()
	id := crdt.CellID{Key: crdt.Key{Name: "k"}, Kind: crdt.KindString}
	g := r.log.Begin()
	new := crdt.Dot{Tag: r.tag + 1, Stream: r.log.Identity().Origin}
	g.SetCell(id, &crdt.Cell{Values: []crdt.Sibling{{Dot: new, Value: []byte("new")}}})
	n := 0
	g.EachCell(id.Key, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
		n++
		if id.Kind == crdt.KindString && c.Newest() != new {
			t.Errorf("%v is shown", c.Newest())
		}
		return true
	})
	if n != 2 || g.Err() != nil {
		t.Errorf("%d cells are shown, %v", n, g.Err())
	}
	g.Discard()
	if v, _ := r.get("k"); v != "old" {
		t.Errorf("k is %q", v)
	}
}

// randomRow returns a header, and own cells for its row; some have what takes several bytes to tell its length.
func randomRow(rnd *rand.Rand) (h *crdt.Header, own ownCells) {
	h = &crdt.Header{Type: crdt.TypeString, Digest: rnd.Uint64(), Expiry: rnd.Int64N(1e15), Rest: 1}
	for i := range rnd.IntN(12) {
		h.Pending = append(h.Pending, crdt.KeyPending{Kind: crdt.Kind(i), Ctx: crdt.Vector{{Stream: 1, Tag: 2}}})
		if i >= int(crdt.KindExpiry) {
			break
		}
	}
	for i := range own {
		if rnd.IntN(3) > 0 {
			own[i] = &crdt.Cell{Values: []crdt.Sibling{{Dot: crdt.Dot{Tag: crdt.Tag(rnd.Uint64()), Stream: 3}, Value: bytes.Repeat([]byte("v"), rnd.IntN(300))}}}
		}
	}
	return h, own
}

func (o ownCells) carried() (c carried) {
	for i, cell := range o {
		if cell != nil {
			c[i] = cell
		}
	}
	return c
}

func FuzzHeaderRow(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 9))
	for range 50 {
		h, own := randomRow(rnd)
		row := appendHeaderRow([]byte("before"), h, own.carried())[6:]
		back, cells, err := decodeHeaderRow(row)
		if err != nil || fmt.Sprintf("%+v", back) != fmt.Sprintf("%+v", h) {
			f.Fatalf("%+v comes back as %+v, %v", h, back, err)
		}
		for i := range own {
			if (own[i] == nil) != (cells[i] == nil) || own[i] != nil && !bytes.Equal(own[i].AppendBinary(nil), cells[i].AppendBinary(nil)) {
				f.Fatalf("cell %d: %+v comes back as %+v", i, own[i], cells[i])
			}
		}
		f.Add(row)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, own, err := decodeHeaderRow(b)
		if err != nil {
			if !errors.Is(err, crdt.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, cells, err := decodeHeaderRow(appendHeaderRow(nil, h, own.carried()))
		if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", h) || cells.len() != own.len() {
			t.Fatalf("%x: %+v, then %+v, %v", b, h, again, err)
		}
	})
}

// TestCellRows: rows that carry cells are gone over as if each cell had its own.
func TestCellRows(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 2))
	for range 50 {
		db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Logger: quiet{}})
		if err != nil {
			t.Fatal(err)
		}
		var want [][2]string
		var starts [][]byte
		for i := range 20 {
			k := crdt.Key{DB: uint8(rnd.IntN(2)), Name: fmt.Sprint("k", i)}
			pos := Pos(k)
			starts = append(starts, append([]byte{rangeCells}, pos...))
			put := func(kind crdt.Kind, elem string, shown, stored []byte) {
				key := appendRow(nil, pos, kind, elem)
				if stored != nil {
					if err := db.Set(key, stored, nil); err != nil {
						t.Fatal(err)
					}
				}
				want = append(want, [2]string{string(key), string(shown)})
			}
			if h, own := randomRow(rnd); rnd.IntN(5) > 0 {
				put(crdt.KindAny, "", h.AppendBinary(nil), appendHeaderRow(nil, h, own.carried()))
				for i, c := range own {
					if c != nil {
						put(ownKinds[i], "", c.AppendBinary(nil), nil)
					}
				}
			}
			for _, kind := range []crdt.Kind{crdt.KindField, crdt.KindRegisters, crdt.KindExpiry} {
				if rnd.IntN(2) == 0 {
					put(kind, "a", []byte("1"), []byte("1"))
					put(kind, "b", []byte("2"), []byte("2"))
				}
			}
		}
		slices.SortFunc(want, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
		it, err := db.NewIter(nil)
		if err != nil {
			t.Fatal(err)
		}
		rows := cellRows{it: it}
		check := func(ok bool, want [][2]string) {
			t.Helper()
			for ; ok; ok = rows.Next() {
				v, err := rows.ValueAndErr()
				if err != nil || len(want) == 0 || string(rows.Key()) != want[0][0] || string(v) != want[0][1] || !rows.Valid() {
					t.Fatalf("%q %q is shown, %v, not %q", rows.Key(), v, err, want)
				}
				want = want[1:]
			}
			if len(want) > 0 || rows.Valid() || rows.Next() || rows.Error() != nil {
				t.Fatalf("%q are not shown, %v", want, rows.Error())
			}
		}
		check(rows.First(), want)
		for _, at := range starts {
			i := slices.IndexFunc(want, func(w [2]string) bool { return w[0] >= string(at) })
			if i < 0 {
				i = len(want)
			}
			check(rows.SeekGE(at), want[i:])
			rows.SeekGE(at) // and in the middle of a key on to another
			rows.Next()
			rows.Next()
		}
		if err := errors.Join(rows.Close(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTakeOverGoesOn: a store of the format before, of which a part has been brought to this one when
// the process was killed, is brought to it, and is in order before and after.
func TestTakeOverGoesOn(t *testing.T) {
	for _, part := range []int{0, 1, 50, 99, 100} { // of a hundred keys
		fs := vfs.NewMem()
		o := testOptions(fs)
		r := openReplica(t, o)
		for i := range 100 {
			k := crdt.Key{Name: fmt.Sprint("k", i)}
			r.must(func(w *crdt.Writer) {
				switch i % 4 {
				case 0, 1:
					w.SetString(k, []byte(fmt.Sprint(i)), false)
				case 2:
					w.SetString(k, bytes.Repeat([]byte("v"), 2*carryMost), false)
				case 3:
					for f := range 10 {
						w.SetElem(k, crdt.KindField, fmt.Sprint(f), []byte("v"))
					}
				}
				if i%3 == 0 {
					w.SetExpiry(k, testStart.UnixMilli()+1e6)
				}
			})
		}
		r.drain()
		batch, n := r.log.db.NewBatch(), 0
		if _, err := eachKeyBetween(r.log.db, nil, nil, func(k crdt.Key, pos []byte) (bool, error) {
			if n++; n <= part {
				return true, nil
			}
			row := headerKey(nil, k)
			b, err := get(r.log.db, row)
			if err != nil {
				return false, err
			}
			h, own, err := decodeHeaderRow(b)
			if err != nil {
				return false, err
			}
			err = batch.Set(row, h.AppendBinary(nil), nil)
			for i, c := range own {
				if c != nil {
					err = errors.Join(err, batch.Set(appendCellKey(nil, rangeCells, crdt.CellID{Key: k, Kind: ownKinds[i]}), c.AppendBinary(nil), nil))
				}
			}
			return true, err
		}); err != nil {
			t.Fatal(err)
		}
		mark := []byte{format}
		if part == 0 {
			mark = []byte{format - 1} // not even begun
		} else if err := batch.Set(metaKey(metaCarrying), nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(batch.Set(metaKey(metaFormat), mark, nil), batch.Commit(pebble.Sync)); err != nil {
			t.Fatal(err)
		}
		digest := r.log.total
		r.close()
		for _, when := range []string{"before", "after"} {
			report, err := Verify(t.Context(), o.Dir, fs)
			if err != nil || len(report.Faults) > 0 || report.Keys != 100 || report.Digest != digest {
				t.Fatalf("%d, %s: %+v, %v", part, when, report, err)
			}
			r = openReplica(t, o)
			if b, err := r.log.get(metaKey(metaCarrying)); b != nil || err != nil {
				t.Errorf("%d, %s: %q is left, %v", part, when, b, err)
			}
			r.verify()
			r.close()
		}
	}
}
