package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire/entrypb"
)

// randomEntry makes an entry with everything an entry can have, and what
// writers leave out as often as not.
func randomEntry(r *rand.Rand) crdt.Entry {
	e := crdt.Entry{Stream: crdt.Stream(r.Uint64()), Prev: crdt.Tag(r.Uint64N(1 << 40)), Ctx: randomVector(r)}
	e.Tag = e.Prev + crdt.Tag(1+r.Uint64N(1<<40))
	tag := func() crdt.Tag {
		if r.IntN(2) == 0 {
			return e.Tag
		}
		return crdt.Tag(1 + r.Uint64N(uint64(e.Tag)))
	}
	contexts := []crdt.Vector{e.Ctx, e.Ctx, randomVector(r), randomVector(r), nil}
	for range r.IntN(6) {
		d := crdt.Delta{Level: crdt.Level(r.IntN(4)), ID: crdt.CellID{Key: crdt.Key{DB: uint8(r.IntN(16))}}}
		if d.Level != crdt.LevelDB {
			d.ID.Key.Name = randomString(r)
		}
		if d.Level == crdt.LevelKind || d.Level == crdt.LevelCell {
			d.ID.Kind = crdt.Kind(1 + r.IntN(int(crdt.KindExpiry)))
		}
		if d.Level == crdt.LevelCell {
			d.ID.Elem = randomString(r)
		}
		if d.Level != crdt.LevelCell || r.IntN(2) == 0 {
			d.Remove = &crdt.Remove{Tag: tag(), Ctx: contexts[r.IntN(len(contexts))]}
			for range r.IntN(3) {
				s := crdt.SeenCell{ID: d.ID}
				if d.Level != crdt.LevelCell {
					s.ID = crdt.CellID{Key: crdt.Key{DB: uint8(r.IntN(16)), Name: randomString(r)}, Kind: crdt.Kind(r.IntN(11)), Elem: randomString(r)}
				}
				for range r.IntN(3) {
					s.Counts = append(s.Counts, crdt.Seen{Stream: crdt.Stream(r.Uint64()), Epoch: crdt.Tag(r.Uint64()), Tag: crdt.Tag(r.Uint64()), Sum: randomNumber(r)})
				}
				d.Remove.Seen = append(d.Remove.Seen, s)
			}
		}
		if d.Level == crdt.LevelCell && (d.Remove == nil || r.IntN(2) == 0) {
			d.Put = &crdt.Put{Tag: tag()}
			if s := randomString(r); s != "" {
				d.Put.Value = []byte(s)
			}
		}
		if d.Level == crdt.LevelCell && r.IntN(2) == 0 {
			d.Add = &crdt.Add{Tag: tag(), Sum: randomNumber(r)}
			if d.Add.Epoch = d.Add.Tag; r.IntN(2) == 0 {
				d.Add.Epoch = crdt.Tag(r.Uint64())
			}
		}
		e.Deltas = append(e.Deltas, d)
	}
	return e
}

func randomVector(r *rand.Rand) crdt.Vector {
	var v crdt.Vector
	for range r.IntN(5) {
		v.Set(crdt.Stream(r.Uint64()), crdt.Tag(1+r.Uint64N(1<<60)))
	}
	return v
}

func randomString(r *rand.Rand) string {
	b := make([]byte, []int{0, 1, 3, 130, 20000}[r.IntN(5)])
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func randomNumber(r *rand.Rand) crdt.Number {
	if r.IntN(2) == 0 {
		return crdt.Int(int64(r.Uint64()))
	}
	n, err := crdt.ParseNumber([]byte("-12345678901234567890123.25e-7"))
	if err != nil {
		panic(err)
	}
	return n.Add(crdt.Int(r.Int64N(100)))
}

func equal(t *testing.T, got, want crdt.Entry) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

func TestEntriesSurviveTheRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		e := randomEntry(r)
		prefix := []byte("before")
		b := EncodeEntry(prefix, &e)
		if !bytes.HasPrefix(b, prefix) {
			t.Fatal("what was there before is gone")
		}
		got, err := DecodeEntry(b[len(prefix):])
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got, e)
		head, err := DecodeHead(b[len(prefix):])
		if want := (Head{e.Stream, e.Prev, e.Tag}); head != want || err != nil {
			t.Fatalf("head %+v, %v of %+v", head, err, want)
		}
	}
}

// The generated code and the hand-written one read and write the same bytes.
func TestHandWrittenEqualsGenerated(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		e := randomEntry(r)
		b := EncodeEntry(nil, &e)
		var m entrypb.Entry
		if err := proto.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if n := len(m.ProtoReflect().GetUnknown()); n > 0 {
			t.Fatalf("%d bytes the schema does not know", n)
		}
		if len(m.Deltas) != len(e.Deltas) || m.Stream != uint64(e.Stream) || m.Tag != uint64(e.Tag) || m.Prev != uint64(e.Prev) {
			t.Fatalf("the schema reads %v", &m)
		}
		for i, d := range m.Deltas {
			want := &e.Deltas[i]
			if string(d.Key) != want.ID.Key.Name || string(d.Elem) != want.ID.Elem || d.Kind != uint32(want.ID.Kind) ||
				crdt.LevelCell-crdt.Level(d.Level) != want.Level || (d.Put != nil) != (want.Put != nil) ||
				d.Put != nil && !bytes.Equal(d.Put.Value, want.Put.Value) || (d.Remove != nil) != (want.Remove != nil) {
				t.Fatalf("the schema reads delta %v of %+v", d, want)
			}
		}
		generated, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(generated, b) {
			t.Fatalf("generated %x\nby hand   %x", generated, b)
		}
	}
}

func TestAPlainSetIsSmall(t *testing.T) {
	s := crdt.NewStream(1, 2, 0)
	ctx := crdt.Vector{{Stream: s, Tag: 1}, {Stream: s + 16, Tag: 2}}
	e := crdt.Entry{Stream: s, Prev: 1, Tag: 3, Ctx: ctx}
	base := len(EncodeEntry(nil, &e))
	e.Deltas = []crdt.Delta{{Level: crdt.LevelCell, ID: crdt.CellID{Key: crdt.Key{Name: "key"}, Kind: crdt.KindString},
		Remove: &crdt.Remove{Tag: 3, Ctx: ctx.Clone()}, Put: &crdt.Put{Tag: 3, Value: []byte("value")}}}
	if n := len(EncodeEntry(nil, &e)) - base - len("key") - len("value"); n > 12 {
		t.Errorf("%d bytes beside key and value", n)
	}
}

func TestMalformedEntriesAreRefused(t *testing.T) {
	tag := uint64(5)
	ok := func() *entrypb.Entry {
		return &entrypb.Entry{Stream: 1, Prev: 1, Tag: tag, Deltas: []*entrypb.Delta{{Kind: 1, Put: &entrypb.Put{}}}}
	}
	for name, change := range map[string]func(*entrypb.Entry){
		"tag not after prev":    func(e *entrypb.Entry) { e.Prev = 5 },
		"no parts":              func(e *entrypb.Entry) { e.Deltas[0].Put = nil },
		"kind out of range":     func(e *entrypb.Entry) { e.Deltas[0].Kind = 11 },
		"cell without kind":     func(e *entrypb.Entry) { e.Deltas[0].Kind = 0 },
		"level out of range":    func(e *entrypb.Entry) { e.Deltas[0].Level = 4 },
		"value for a key":       func(e *entrypb.Entry) { e.Deltas[0].Level = entrypb.Level_LEVEL_KEY },
		"database out of range": func(e *entrypb.Entry) { e.Deltas[0].Db = 256 },
		"tag after the entry's": func(e *entrypb.Entry) { e.Deltas[0].Put.Tag = proto.Uint64(6) },
		"tag zero":              func(e *entrypb.Entry) { e.Deltas[0].Put.Tag = proto.Uint64(0) },
		"context out of range":  func(e *entrypb.Entry) { e.Deltas[0].Remove = &entrypb.Remove{Ctx: 1} },
		"vector out of order":   func(e *entrypb.Entry) { e.Ctx = &entrypb.Vector{Streams: []uint64{2, 1}, Tags: []uint64{1, 1}} },
		"vector of two lengths": func(e *entrypb.Entry) { e.Ctx = &entrypb.Vector{Streams: []uint64{2}} },
		"bad number":            func(e *entrypb.Entry) { e.Deltas[0].Add = &entrypb.Add{Sum: []byte{9}} },
	} {
		t.Run(name, func(t *testing.T) {
			e := ok()
			b, err := proto.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := DecodeEntry(b); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			change(e)
			if b, err = proto.Marshal(e); err != nil {
				t.Fatal(err)
			}
			if _, err := DecodeEntry(b); !errors.Is(err, crdt.ErrCorrupt) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestGeneratedCodeIsThatOfTheSchemas(t *testing.T) {
	out, err := exec.Command("go", "run", "./gen", "-check").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, strings.TrimSpace(string(out)))
	}
}

func FuzzDecodeEntry(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		e := randomEntry(r)
		f.Add(EncodeEntry(nil, &e))
	}
	expiry := crdt.Delta{Level: crdt.LevelCell, ID: crdt.FieldExpiry(crdt.Key{Name: "h"}, "field"), Put: &crdt.Put{Tag: 9, Value: make([]byte, 8)}}
	f.Add(EncodeEntry(nil, &crdt.Entry{Stream: crdt.NewStream(1, 1, 0), Tag: 9, Deltas: []crdt.Delta{expiry}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if _, err := DecodeHead(b); err != nil && !errors.Is(err, crdt.ErrCorrupt) {
			t.Fatalf("head: error %v", err)
		}
		if err != nil {
			if !errors.Is(err, crdt.ErrCorrupt) {
				t.Fatalf("error %v", err)
			}
			return
		}
		again, err := DecodeEntry(EncodeEntry(nil, &e))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, normal(again), normal(e))
	})
}

// normal makes empty values nil: the encoding does not tell them apart.
func normal(e crdt.Entry) crdt.Entry {
	for i := range e.Deltas {
		if p := e.Deltas[i].Put; p != nil && len(p.Value) == 0 {
			p.Value = nil
		}
	}
	return e
}

func BenchmarkEncodeSets(b *testing.B) {
	e := sets(16)
	var buf []byte
	b.Run("hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = EncodeEntry(buf[:0], &e)
		}
	})
	var m entrypb.Entry
	if err := proto.Unmarshal(EncodeEntry(nil, &e), &m); err != nil {
		b.Fatal(err)
	}
	b.Run("generated, conversion not counted", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf, _ = proto.MarshalOptions{}.MarshalAppend(buf[:0], &m)
		}
	})
}

func BenchmarkDecodeSets(b *testing.B) { benchmarkDecode(b, sets(16)) }

func BenchmarkDecodeMembers(b *testing.B) { benchmarkDecode(b, members(100)) }

func benchmarkDecode(b *testing.B, e crdt.Entry) {
	buf := EncodeEntry(nil, &e)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeEntry(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// What deltas of one key have in common is there once, and their parts are in few
// pieces of memory: of each only the element is its own.
func TestDeltasOfOneKeyShareMemory(t *testing.T) {
	const n = 100
	e := members(n)
	buf := EncodeEntry(nil, &e)
	if allocs := testing.AllocsPerRun(100, func() {
		if _, err := DecodeEntry(buf); err != nil {
			t.Fatal(err)
		}
	}); allocs > n+10 {
		t.Errorf("%v allocations for %d members", allocs, n)
	}
	got, err := DecodeEntry(buf)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, normal(got), normal(e))
}

// members is an entry that adds so many members to a set.
func members(n int) crdt.Entry {
	e := sets(n)
	for i := range e.Deltas {
		d := &e.Deltas[i]
		d.ID, d.Put.Value = crdt.CellID{Key: crdt.Key{Name: "a set"}, Kind: crdt.KindMember, Elem: fmt.Sprint("a member of usual size ", i)}, nil
	}
	return e
}

func sets(n int) crdt.Entry {
	s := crdt.NewStream(1, 2, 0)
	ctx := crdt.Vector{{Stream: s, Tag: 1}, {Stream: s + 16, Tag: 2}}
	e := crdt.Entry{Stream: s, Prev: 1, Tag: 3, Ctx: ctx}
	for i := range n {
		e.Deltas = append(e.Deltas, crdt.Delta{Level: crdt.LevelCell, ID: crdt.CellID{Key: crdt.Key{Name: "key:" + string(rune('a'+i))}, Kind: crdt.KindString},
			Remove: &crdt.Remove{Tag: 3, Ctx: ctx}, Put: &crdt.Put{Tag: 3, Value: []byte("some value of usual size")}})
	}
	return e
}
