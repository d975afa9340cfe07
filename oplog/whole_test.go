package oplog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// Of a key of which many cells are read one by one all are taken in by one walk, if
// that costs little; what is read is the same.
func TestManyReadsTakeInAll(t *testing.T) {
	for _, c := range []struct {
		fields, size, reads int
		passed              uint64 // at most, and if it is not 0, some
		known               bool   // then all of them are, and no more is passed over
	}{
		{fields: 100, size: 10, reads: 100, passed: 100, known: true},
		{fields: 100, size: 10, reads: 4, passed: 0},
		{fields: 100, size: 10 << 10, reads: 100, passed: 8},
		{fields: 5000, size: 10, reads: 200, passed: 0},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			o := testOptions(vfs.NewMem())
			o.KeyBytes = 16 << 20
			r := openReplica(t, o)
			key := crdt.Key{Name: "h"}
			value := func(i int) string { return strings.Repeat("v", c.size) + fmt.Sprint(i) }
			r.must(func(w *crdt.Writer) {
				for i := range c.fields {
					w.SetElem(key, crdt.KindField, fmt.Sprint(2*i), []byte(value(i)))
				}
			})
			r.close()
			r = openReplica(t, o)
			defer r.close()
			read := func() {
				r.view(func(w *crdt.Writer) {
					for i := range c.reads {
						if got, ok := w.Elem(key, crdt.KindField, fmt.Sprint(2*i)); !ok || string(got) != value(i) {
							t.Fatalf("field %d: %v %.20q", 2*i, ok, got)
						}
						if got, ok := w.Elem(key, crdt.KindField, fmt.Sprint(2*i+1)); ok {
							t.Fatalf("field %d, which is not there: %.20q", 2*i+1, got)
						}
					}
				})
			}
			before := r.log.Metrics().Passed
			read()
			passed := r.log.Metrics().Passed - before
			if passed > c.passed || c.passed > 0 && passed == 0 {
				t.Errorf("passed over %d rows, not %d", passed, c.passed)
			}
			before += passed
			r.view(func(w *crdt.Writer) {
				n := 0
				w.EachElem(key, crdt.KindField, func(string, []byte) bool { n++; return true })
				if n != c.fields {
					t.Errorf("a walk shows %d fields, not %d", n, c.fields)
				}
			})
			read()
			if passed := r.log.Metrics().Passed - before; (passed == 0) != c.known {
				t.Errorf("known: %v; passed over %d rows", c.known, passed)
			}
			r.verify()
		})
	}
}

// A key of which all cells have been read one by one is removed without a walk over the store;
// one of which some have not is removed whole.
func TestAllCellsByCount(t *testing.T) {
	for _, c := range []struct {
		name         string
		fields, read int
		expires      bool
		walks        bool
	}{
		{name: "all", fields: 5, read: 5},
		{name: "all but one", fields: 5, read: 4, walks: true},
		{name: "one", fields: 1, read: 1},
		{name: "none", fields: 1, read: 0, walks: true},
		{name: "all, and the expiry comes with the header", fields: 3, read: 3, expires: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := testOptions(vfs.NewMem())
			r := openReplica(t, o)
			key := crdt.Key{Name: "h"}
			r.must(func(w *crdt.Writer) {
				for i := range c.fields {
					w.SetElem(key, crdt.KindField, fmt.Sprint(i), []byte("v"))
				}
				if c.expires {
					w.SetExpiry(key, testStart.UnixMilli()+1e6)
				}
			})
			r.close()
			r = openReplica(t, o)
			defer r.close()
			r.view(func(w *crdt.Writer) {
				for i := range c.read {
					if _, ok := w.Elem(key, crdt.KindField, fmt.Sprint(i)); !ok {
						t.Errorf("there is no field %d", i)
					}
				}
			})
			before := r.log.Metrics().Walks
			r.must(func(w *crdt.Writer) { w.Remove(key) })
			if walked := r.log.Metrics().Walks > before; walked != c.walks {
				t.Errorf("the store was walked over: %v", walked)
			}
			r.view(func(w *crdt.Writer) {
				if typ := w.Type(key); typ != crdt.TypeNone {
					t.Errorf("a %v is left", typ)
				}
			})
			r.verify()
		})
	}
}
