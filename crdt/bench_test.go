package crdt_test

import (
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// BenchmarkNumberExtreme measures the longest numbers a client can send: none
// may hold up the executor for more than a few milliseconds.
func BenchmarkNumberExtreme(b *testing.B) {
	long := []byte(strings.Repeat("9", 5000) + "e4932")
	zeros := []byte("1" + strings.Repeat("0", 5000) + "e4932")
	x, _ := crdt.ParseNumber(long)
	y, _ := crdt.ParseNumber([]byte("0." + strings.Repeat("0", 5000) + "1e-4932"))
	b.Run("parse", func(b *testing.B) {
		for b.Loop() {
			_, _ = crdt.ParseNumber(long)
		}
	})
	b.Run("parse zeros", func(b *testing.B) {
		for b.Loop() {
			_, _ = crdt.ParseNumber(zeros)
		}
	})
	b.Run("add and subtract", func(b *testing.B) {
		for b.Loop() {
			_ = x.Add(y).Sub(y)
		}
	})
	b.Run("print", func(b *testing.B) {
		for b.Loop() {
			_ = x.String()
		}
	})
}

// BenchmarkWrite measures single-cell writes, the store in memory included.
func BenchmarkWrite(b *testing.B) {
	for name, do := range map[string]func(*crdt.Writer){
		"SET":  func(w *crdt.Writer) { w.SetString(k, []byte("value"), false) },
		"INCR": func(w *crdt.Writer) { w.AddElem(j, crdt.KindString, "", crdt.Int(1)) },
		"SADD": func(w *crdt.Writer) { w.SetElem(crdt.Key{Name: "s"}, crdt.KindMember, "m", nil) },
	} {
		b.Run(name, func(b *testing.B) {
			ks := &crdt.Keyspace{Store: crdttest.New()}
			origin := crdt.NewStream(1, 1, 0)
			millis := int64(firstMilli)
			b.ReportAllocs()
			for b.Loop() {
				millis++
				w := crdt.NewWriter(ks, origin, crdt.TagAt(millis, 1), millis)
				do(w)
				for _, e := range w.Entries() {
					ks.Have.Raise(e.Stream, e.Tag)
				}
				ks.Touched = nil
			}
		})
	}
}
