package crdt

import (
	"math/rand/v2"
	"testing"
)

// TestGlances: what a glance tells is what decoding tells.
func TestGlances(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	stream := func() Stream { return NewStream(uint16(1+r.IntN(3)), 5, 1) }
	seen := map[bool]int{}
	for range 20_000 {
		var v Vector
		for range r.IntN(4) {
			v.Raise(stream(), Tag(1+r.IntN(50)))
		}
		c := &Cell{}
		for range r.IntN(3) + r.IntN(2)*r.IntN(70) {
			c.put(Dot{Tag(1 + r.IntN(50)), stream()}, make([]byte, r.IntN(5)))
		}
		for range r.IntN(3) * r.IntN(2) {
			s, tag := stream(), Tag(1+r.IntN(50))
			c.add(s, &Add{Tag: tag, Epoch: tag, Sum: Int(3)}, r.IntN(3) == 0)
		}
		if r.IntN(8) == 0 {
			c.Pending.Raise(stream(), 60)
		}
		c.Hidden = len(c.Values) > 0 && r.IntN(8) == 0
		want := len(c.Pending) == 0
		for _, x := range c.Values {
			want = want && v.Covers(x.Dot)
		}
		for i := range c.Counts {
			want = want && c.Counts[i].Live() && c.Counts[i].Tag <= v.Get(c.Counts[i].Stream)
		}
		b := c.AppendBinary(nil)
		got, err := Plain(b, v)
		if err != nil || got != want {
			t.Fatalf("%+v, seen from %v: plain %t, %v", c, v, got, err)
		}
		seen[want]++
		if _, err := Plain(b[:len(b)-1], v); len(b) > 1 && err == nil && len(c.Pending) == 0 && len(c.Counts) == 0 && !c.Hidden {
			t.Fatalf("a cell that breaks off was taken: %x", b)
		}

		h := &Header{Rest: uint32(r.IntN(2)), Type: TypeHash, Expiry: int64(r.IntN(3)) * 1e12, Digest: r.Uint64(), Swept: r.IntN(2) == 0}
		for k := range h.Live {
			if Kind(k) != KindAny {
				h.Live[k] = uint32(r.IntN(2) * r.IntN(1000))
			}
		}
		if r.IntN(4) == 0 {
			h.Live = [len(h.Live)]uint32{KindString: 1}
			h.Live[1+r.IntN(len(h.Live)-1)] |= uint32(r.IntN(4) / 3)
		}
		if h.Live[KindField] > 0 {
			h.Hidden = uint32(r.IntN(2))
		}
		if r.IntN(3) == 0 {
			h.Pending = []KeyPending{{KindAny, Vector{{stream(), 7}}}}
		}
		b = h.AppendBinary(nil)
		g, err := GlanceHeader(b)
		plain := h.Rest == 0 && len(h.Pending) == 0
		lone := plain && h.Live == [len(h.Live)]uint32{KindString: 1}
		if err != nil || g != (HeaderGlance{h.Digest, h.Swept, plain, lone}) {
			t.Fatalf("%+v: %+v, %v", h, g, err)
		}
		if _, err := GlanceHeader(b[:r.IntN(8)]); err == nil {
			t.Fatalf("a header that breaks off was taken: %x", b)
		}
	}
	if seen[true] < 1000 || seen[false] < 1000 {
		t.Errorf("plain or not: %v", seen)
	}
}
