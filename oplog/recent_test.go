package oplog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// What is beyond a vector is among what has changed since, however it was written
// and drained, or it is said that that is not known.
func TestChangedSinceHasAllThatIsUnlike(t *testing.T) {
	known, unknown, saved := 0, 0, 0
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		r := openReplica(t, testOptions(vfs.NewMem()))
		r.log.SetAhead(false)
		rng := rand.New(rand.NewPCG(seed, 9))
		moments := []crdt.Vector{nil}
		for range 100 {
			r.must(func(w *crdt.Writer) {
				for range 1 + rng.IntN(30) {
					k := crdt.Key{DB: uint8(rng.IntN(2)), Name: fmt.Sprint("key", rng.IntN(3000))}
					switch rng.IntN(8) {
					case 0:
						w.Remove(k)
					case 1:
						w.AddElem(k, crdt.KindString, "", crdt.Int(int64(rng.IntN(9))))
					case 2:
						for i := range rng.IntN(8) {
							w.SetElem(k, crdt.KindField, fmt.Sprint(i), []byte("v"))
						}
					case 3:
						w.SetString(k, make([]byte, 20_000), false) // is written through
					case 4:
						w.SetString(k, []byte("v"), false)
						w.SetExpiry(k, 1<<40)
					default:
						w.SetString(k, fmt.Appendf(nil, "%0*d", 1+rng.IntN(300), rng.IntN(1000)), false)
					}
				}
			})
			moments = append(moments, r.log.Vector())
			switch rng.IntN(12) {
			case 0:
				if err := r.log.drain(); err != nil {
					t.Fatal(err)
				}
			case 1:
				for range rng.IntN(20) {
					if _, err := r.log.WriteBack(1 + rng.IntN(100)); err != nil {
						t.Fatal(err)
					}
				}
			case 2:
				r.log.SetAhead(rng.IntN(3) == 0)
			}
		}
		r.log.SetAhead(false)
		s, err := r.log.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range moments {
			from, to := SlotPos(uint16(rng.IntN(8000))), SlotPos(uint16(8000+rng.IntN(8000)))
			if rng.IntN(2) == 0 {
				from, to = nil, nil
			}
			all := 0
			var want, got []string
			tell := func(st *State) string { return fmt.Sprintf("%x %x %x", st.Pos, st.Digest, st.Data) }
			if err := s.EachState(from, to, v, func(st *State) error {
				if all++; !st.Plain {
					want = append(want, tell(st))
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			changed, ok := s.ChangedSince(v)
			if !ok {
				unknown++
				continue
			}
			known, saved = known+1, saved+all-len(changed)
			if err := s.EachUnlike(from, to, v, changed, func(st *State) error { got = append(got, tell(st)); return nil }); err != nil || !slices.Equal(got, want) {
				t.Fatalf("seed %d, known %v: found %d of %d keys among %d, %v", seed, v, len(got), len(want), len(changed), err)
			}
		}
		_ = s.Close()
		r.close()
	}
	if known < 100 || unknown == 0 || saved < 1000 {
		t.Errorf("known %d times, unknown %d times, %d keys were not looked at: this tests nothing", known, unknown, saved)
	}
	t.Logf("known %d times, unknown %d times, %d keys were not looked at", known, unknown, saved)
}

// What is remembered is bounded, in bytes and in moments, and what it says then is
// still true.
func TestRecentIsBounded(t *testing.T) {
	var r recent
	s := &Snapshot{recent: &r}
	vector := func(i int) crdt.Vector { return crdt.Vector{{Stream: crdt.NewStream(1, 1, 0), Tag: crdt.Tag(i + 1)}} }
	key := func(i int) string { return fmt.Sprintf("%01000d", i) }
	const each, rounds = 10, 5000 // 50 MB
	for i := range rounds {
		r.moment(vector(i))
		n := noter{r: &r}
		for j := range each {
			n.note(headerKey(nil, crdt.Key{Name: key(i*each + j)}))
		}
		used := 0
		for _, e := range r.epochs {
			used += len(e.keys)
		}
		if len(r.epochs) > maxEpochs || used > maxRecent || used != r.bytes {
			t.Fatalf("%d moments, %d bytes said to be %d", len(r.epochs), used, r.bytes)
		}
	}
	if _, ok := s.ChangedSince(vector(0)); ok {
		t.Error("everything is remembered")
	}
	for _, ago := range []int{1, 5, 50, 500} {
		got, ok := s.ChangedSince(vector(rounds - ago))
		if !ok || len(got) < ago*each {
			t.Errorf("of the last %d rounds %d keys are known, %t", ago, len(got), ok)
		}
	}
	r.forget()
	if _, ok := s.ChangedSince(vector(rounds)); ok {
		t.Error("it was not forgotten")
	}
}

// What was loaded by a snapshot is what would have been looked up.
func TestLoaderShowsWhatIsStored(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	rng := rand.New(rand.NewPCG(1, 2))
	var keys []crdt.Key
	for i := range 300 {
		k := crdt.Key{DB: uint8(i % 2), Name: fmt.Sprint("key", i)}
		if keys = append(keys, k); i%5 == 0 {
			continue // is not there
		}
		r.must(func(w *crdt.Writer) {
			if i%2 == 0 {
				w.SetString(k, []byte("v"), false)
				return
			}
			for j := range 1 + rng.IntN(6) {
				w.SetElem(k, crdt.KindField, fmt.Sprint(j), fmt.Append(nil, j))
			}
		})
	}
	slices.SortFunc(keys, comparePos)
	show := func(g *Group, k crdt.Key) string {
		out := fmt.Sprintf("%+v", g.Header(k))
		for j := range 7 {
			for _, id := range []crdt.CellID{{Key: k, Kind: crdt.KindField, Elem: fmt.Sprint(j)}, {Key: k, Kind: crdt.KindString}} {
				out += fmt.Sprintf(" %+v", g.Cell(id))
			}
		}
		return out
	}
	s, err := r.log.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	r.log.cache = newKeyCache(1 << 20) // everything has to be read
	var want []string
	g := r.log.Begin()
	for _, k := range keys {
		want = append(want, show(g, k))
	}
	g.Discard()
	r.log.cache = newKeyCache(1 << 20)
	g = r.log.Begin()
	defer g.Discard()
	l, err := g.Loader(s)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		d, err := l.Load(k, rng.IntN(4), nil)
		if h := g.Header(k); err != nil || h == nil && d != 0 || h != nil && d != h.Digest {
			t.Fatalf("%v: digest %x of %+v, %v", k, d, h, err)
		}
		if got := show(g, k); got != want[i] {
			t.Fatalf("%v: %s is stored, %s was loaded", k, want[i], got)
		}
	}
	if err := l.Close(); err != nil || g.Err() != nil {
		t.Fatal(err, g.Err())
	}
}

// What a group loads of a key and changes stays when cells that were not loaded
// come to it.
func TestLoadedCellsStay(t *testing.T) {
	r := openReplica(t, testOptions(vfs.NewMem()))
	defer r.close()
	k := crdt.Key{Name: "h"}
	r.must(func(w *crdt.Writer) {
		for _, f := range []string{"a", "b", "c"} {
			w.SetElem(k, crdt.KindField, f, []byte("old"))
		}
	})
	s, err := r.log.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	r.log.cache = newKeyCache(1 << 20)
	err = r.groupOn(func(g *Group, w *crdt.Writer) {
		l, err := g.Loader(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Load(k, 2, nil); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"a", "b", "c", "d"} {
			w.SetElem(k, crdt.KindField, f, []byte("new"))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	r.view(func(w *crdt.Writer) {
		for _, f := range []string{"a", "b", "c", "d"} {
			if v, _ := w.Elem(k, crdt.KindField, f); string(v) != "new" {
				t.Errorf("%s is %q", f, v)
			}
		}
	})
	r.verify()
}

// What was read ahead of a loader is taken only where nothing has changed since.
func TestReadAheadIsWhatIsStored(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.RedoBytes = 1 << 30
	r := openReplica(t, o)
	defer r.close()
	rng := rand.New(rand.NewPCG(3, 4))
	key := func() crdt.Key { return crdt.Key{DB: uint8(rng.IntN(2)), Name: fmt.Sprint("key", rng.IntN(400))} }
	change := func() {
		r.must(func(w *crdt.Writer) {
			for range rng.IntN(40) {
				switch k := key(); rng.IntN(6) {
				case 0:
					w.Remove(k)
				case 1:
					w.SetElem(k, crdt.KindField, fmt.Sprint(rng.IntN(5)), fmt.Append(nil, rng.IntN(9)))
				case 2:
					w.SetString(k, make([]byte, 20_000), false) // is written through
				case 3:
					w.SetExpiry(k, 1<<40)
				default:
					w.SetString(k, fmt.Append(nil, rng.IntN(1000)), false)
				}
			}
		})
	}
	used, stale := 0, 0
	for range 300 {
		var keys []crdt.Key
		for range 20 {
			keys = append(keys, key())
		}
		slices.SortFunc(keys, comparePos)
		var at [][]byte
		for _, k := range keys {
			at = append(at, Pos(k))
		}
		change()
		if rng.IntN(4) > 0 {
			r.drain()
		}
		most := 1 + rng.IntN(4)
		ahead := r.log.ReadAhead(at, func(int) int { return most })
		for range rng.IntN(3) {
			change()
		}
		s, err := r.log.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		tell := func(ahead func(i int) *Stored) (out []string) {
			r.log.cache = newKeyCache(1 << 20) // everything has to be read
			g := r.log.Begin()
			defer g.Discard()
			l, err := g.Loader(s)
			if err != nil {
				t.Fatal(err)
			}
			for i, k := range keys {
				d, err := l.Load(k, most, ahead(i))
				if err != nil {
					t.Fatal(err)
				}
				known := fmt.Sprintf("%v: %x, %+v", k, d, g.key(k).header)
				for _, cs := range g.key(k).cells.list {
					known += fmt.Sprintf(" %v %+v %+v", cs.key(), g.open(cs), cs.stored())
				}
				out = append(out, known)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return out
		}
		want := tell(func(int) *Stored { return nil })
		got := tell(func(i int) *Stored {
			if ahead[i].level >= r.log.touched[Bucket(keys[i])] {
				used++
			} else {
				stale++
			}
			return &ahead[i]
		})
		if !slices.Equal(got, want) {
			t.Fatalf("loaded %q\nwithout reading ahead %q", got, want)
		}
		_ = s.Close()
	}
	if used < 1000 || stale < 200 {
		t.Errorf("%d keys were taken as they were read ahead, %d were not: this tests little", used, stale)
	}
	r.verify()
}
