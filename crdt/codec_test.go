package crdt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

func randomDot(rng *rand.Rand) crdt.Dot {
	return crdt.Dot{Tag: crdt.Tag(rng.Uint64()>>1 | 1), Stream: crdt.Stream(rng.Uint64())}
}

func randomContext(rng *rand.Rand, least int) crdt.Vector {
	var v crdt.Vector
	for range least + rng.IntN(3) {
		d := randomDot(rng)
		v.Set(d.Stream, d.Tag)
	}
	return v
}

func randomNumber(rng *rand.Rand) crdt.Number {
	if rng.IntN(2) == 0 {
		return crdt.Int(rng.Int64() - rng.Int64())
	}
	n, err := crdt.ParseNumber([]byte("123456789012345678901.5e-7"))
	if err != nil {
		panic(err)
	}
	return n.Add(crdt.Int(rng.Int64()))
}

func randomCell(rng *rand.Rand) *crdt.Cell {
	c := &crdt.Cell{}
	for d := range dots(rng, rng.IntN(3)*rng.IntN(40)) {
		v := make([]byte, rng.IntN(20))
		for i := range v {
			v[i] = byte(rng.Uint32())
		}
		c.Values = append(c.Values, crdt.Sibling{Dot: d, Value: v})
	}
	streams := randomContext(rng, 0)
	for _, p := range streams {
		k := crdt.Count{Stream: p.Stream, Epoch: randomDot(rng).Tag, Tag: p.Tag, Sum: randomNumber(rng)}
		if rng.IntN(2) == 0 {
			k.ResetTag, k.ResetSum, k.ResetBy = randomDot(rng).Tag, randomNumber(rng), randomDot(rng)
		}
		c.Counts = append(c.Counts, k)
	}
	if rng.IntN(2) == 0 {
		c.Pending = randomContext(rng, 1)
	}
	c.Hidden = len(c.Values) > 0 && rng.IntN(4) == 0
	return c
}

// dots yields n dots, the greatest first.
func dots(rng *rand.Rand, n int) func(func(crdt.Dot) bool) {
	return func(yield func(crdt.Dot) bool) {
		for i := range n {
			if !yield(crdt.Dot{Tag: crdt.Tag(1_000_000 - i), Stream: crdt.Stream(rng.Uint64())}) {
				return
			}
		}
	}
}

func randomHeader(rng *rand.Rand) *crdt.Header {
	h := &crdt.Header{Type: crdt.Type(rng.IntN(7)), Rest: rng.Uint32(), Expiry: rng.Int64(), Digest: rng.Uint64(), Swept: rng.IntN(2) == 0}
	for i := range h.Live {
		if crdt.Kind(i) != crdt.KindAny && rng.IntN(3) == 0 {
			h.Live[i] = rng.Uint32()
		}
	}
	h.Hidden = uint32(rng.Int64N(int64(h.Live[crdt.KindField]) + 1))
	for k := range crdt.KindExpiry + 1 {
		if rng.IntN(4) == 0 {
			h.Pending = append(h.Pending, crdt.KeyPending{Kind: k, Ctx: randomContext(rng, 1)})
		}
	}
	return h
}

// same compares two decoded things, with numbers compared as numbers.
func same(a, b any) bool { return reflect.DeepEqual(a, b) }

// FuzzRoundTrip encodes what a seed makes, and decodes it to the same.
func FuzzRoundTrip(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 0))
		c := randomCell(rng)
		back, err := crdt.DecodeCell(c.AppendBinary(nil))
		if err != nil || len(back.Values) != len(c.Values) || len(back.Counts) != len(c.Counts) || !back.Pending.Equal(c.Pending) || back.Hidden != c.Hidden {
			t.Fatalf("cell %+v comes back as %+v, %v", c, back, err)
		}
		for i, v := range c.Values {
			if w := back.Values[i]; v.Dot != w.Dot || !bytes.Equal(v.Value, w.Value) {
				t.Fatalf("sibling %+v comes back as %+v", v, w)
			}
		}
		for i, k := range c.Counts {
			l := back.Counts[i]
			if !k.Sum.Equal(l.Sum) || !k.ResetSum.Equal(l.ResetSum) {
				t.Fatalf("count %+v comes back as %+v", k, l)
			}
			l.Sum, l.ResetSum = k.Sum, k.ResetSum
			if !same(k, l) {
				t.Fatalf("count %+v comes back as %+v", k, l)
			}
		}
		h := randomHeader(rng)
		if back, err := crdt.DecodeHeader(h.AppendBinary(nil)); err != nil || !same(h, back) {
			t.Fatalf("header %+v comes back as %+v, %v", h, back, err)
		}
		v := randomContext(rng, 0)
		if back, err := crdt.DecodeVector(v.AppendBinary(nil)); err != nil || !v.Equal(back) {
			t.Fatalf("vector %v comes back as %v, %v", v, back, err)
		}
		n := randomNumber(rng)
		if back, err := crdt.DecodeNumber(n.AppendBinary(nil)); err != nil || !n.Equal(back) {
			t.Fatalf("number %v comes back as %v, %v", n, back, err)
		}
	})
}

// FuzzDecode decodes junk: it is refused with ErrCorrupt, or is something that
// encodes and decodes to itself; and it costs no memory that its length does
// not pay for.
func FuzzDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		f.Add(randomCell(rng).AppendBinary(nil))
		f.Add(randomHeader(rng).AppendBinary(nil))
		f.Add(randomContext(rng, 0).AppendBinary(nil))
		f.Add(randomNumber(rng).AppendBinary(nil))
		id := crdt.CellID{Key: crdt.Key{DB: 3, Name: "k"}, Kind: crdt.KindField, Elem: "f"}
		values := randomCell(rng).Values
		if len(values) > 1 {
			f.Add(crdt.Conflict{Visible: crdt.Rival{ID: id, Sibling: values[0]}, Hidden: crdt.Rival{ID: id, Sibling: values[1]}}.AppendBinary(nil))
		}
	}
	f.Add([]byte{0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		type encoder interface{ AppendBinary([]byte) []byte }
		for _, decode := range []func([]byte) (encoder, error){
			func(b []byte) (encoder, error) { return crdt.DecodeCell(b) },
			func(b []byte) (encoder, error) { return crdt.DecodeHeader(b) },
			func(b []byte) (encoder, error) { return crdt.DecodeVector(b) },
			func(b []byte) (encoder, error) { return crdt.DecodeNumber(b) },
			func(b []byte) (encoder, error) { return crdt.DecodeConflict(b) },
		} {
			x, err := decode(b)
			if err != nil {
				if !errors.Is(err, crdt.ErrCorrupt) {
					t.Fatalf("%v", err)
				}
				continue
			}
			once := x.AppendBinary(nil)
			y, err := decode(once)
			if err != nil {
				t.Fatalf("what %x decodes to encodes as %x, which does not decode: %v", b, once, err)
			}
			if twice := y.AppendBinary(nil); !bytes.Equal(once, twice) {
				t.Fatalf("%x encodes as %x, then as %x", b, once, twice)
			}
		}
	})
}

// TestDecodeBoundsMemory claims counts and lengths far beyond the input.
func TestDecodeBoundsMemory(t *testing.T) {
	big := binary.AppendUvarint(nil, 1<<40)
	inputs := [][]byte{
		append([]byte{63 << 2}, big...),                             // a cell of 2^40 values
		append([]byte{1}, big...),                                   // of 2^40 counts
		append([]byte{2}, big...),                                   // with a pending vector of 2^40
		append(append([]byte{1 << 2}, make([]byte, 16)...), big...), // a value of 2^40 bytes
		big,
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, b := range inputs {
		if _, err := crdt.DecodeCell(b); !errors.Is(err, crdt.ErrCorrupt) {
			t.Errorf("%x: %v", b, err)
		}
		if _, err := crdt.DecodeVector(b); !errors.Is(err, crdt.ErrCorrupt) {
			t.Errorf("%x: %v", b, err)
		}
		if _, err := crdt.DecodeHeader(b); !errors.Is(err, crdt.ErrCorrupt) {
			t.Errorf("%x: %v", b, err)
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("decoding a few bytes allocated %d", used)
	}
}
