package crdt_test

import (
	"fmt"
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

// BenchmarkApply measures a range of 100 SETs of another node over as many keys,
// the store in memory included.
func BenchmarkApply(b *testing.B) {
	ks := &crdt.Keyspace{Store: crdttest.New()}
	from := crdt.NewStream(2, 1, 0)
	millis := int64(firstMilli)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		millis++
		e := setsOf(from, crdt.TagAt(millis-1, 2), crdt.TagAt(millis, 2), 100)
		b.StartTimer()
		ks.Apply(&e)
		ks.Have.Raise(e.Stream, e.Tag)
		ks.Touched = nil
	}
}

// setsOf is an entry of so many SETs of 100 bytes.
func setsOf(s crdt.Stream, prev, tag crdt.Tag, n int) crdt.Entry {
	ctx := crdt.Vector{{Stream: s, Tag: prev}}
	e := crdt.Entry{Stream: s, Prev: prev, Tag: tag, Ctx: ctx}
	value := []byte(strings.Repeat("v", 100))
	for i := range n {
		e.Deltas = append(e.Deltas, crdt.Delta{Level: crdt.LevelCell, ID: crdt.CellID{Key: crdt.Key{Name: fmt.Sprintf("key:%06d", i)}, Kind: crdt.KindString},
			Remove: &crdt.Remove{Tag: tag, Ctx: ctx}, Put: &crdt.Put{Tag: tag, Value: value}})
	}
	return e
}

// BenchmarkFold measures 100 entries of 16 SETs each that become one of 16.
func BenchmarkFold(b *testing.B) {
	from := crdt.NewStream(2, 1, 0)
	var entries []crdt.Entry
	for i := range int64(100) {
		entries = append(entries, setsOf(from, crdt.TagAt(firstMilli+i, 2), crdt.TagAt(firstMilli+i+1, 2), 16))
	}
	b.ReportAllocs()
	for b.Loop() {
		if e := crdt.FoldEntries(entries); len(e.Deltas) != 16 {
			b.Fatalf("%d deltas", len(e.Deltas))
		}
	}
}

// BenchmarkCell measures the encoding of a cell with one value, there and back.
func BenchmarkCell(b *testing.B) {
	store := crdttest.New()
	ks := &crdt.Keyspace{Store: store}
	crdt.NewWriter(ks, crdt.NewStream(1, 1, 0), crdt.TagAt(firstMilli, 1), firstMilli).SetString(k, []byte(strings.Repeat("v", 100)), false)
	c := store.Cell(crdt.CellID{Key: k, Kind: crdt.KindString})
	var buf []byte
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = c.AppendBinary(buf[:0])
		}
	})
	buf = c.AppendBinary(nil)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := crdt.DecodeCell(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
