package command

import (
	"bytes"
	"math/big"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

// FuzzParseFloat holds parseFloat against math/big, for what both read.
func FuzzParseFloat(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.5", "+2", "5.", ".5", ".", "1e3", "1E-3", "1e", "e1", "inf", "-Infinity", "nan", "0x10", "0x1.8p-3",
		"0x", "0x_1", "1_0", "1e4932", "1e4933", "1e-4951", "1e-4950", "0e99999", "-0e-99999", "1e99999999999999999999", "0b1", "0o7", " 1", "1\x00",
		strings.Repeat("9", 4933), strings.Repeat("1", 5119), strings.Repeat("1", 5120), "0." + strings.Repeat("0", 5000) + "1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, ok := parseFloat([]byte(s))
		if !ok || v.inf {
			return
		}
		if len(s) > 5119 {
			t.Fatalf("read %d bytes", len(s))
		}
		if i := strings.LastIndexAny(s, "eEpP"); i >= 0 && len(s)-i > 7 {
			return // math/big takes its time, even over 0e999999999
		}
		want, _, err := big.ParseFloat(strings.TrimLeft(s, "+-"), 0, 20000, big.ToNearestEven)
		if err != nil || strings.ContainsAny(s, "_bBoO") && !strings.ContainsAny(s, "xX") {
			// Go reads 0b1, 0o7, 1_0 and octal; a decimal it does not read is not one.
			t.Fatalf("read %q as %v, Go does not: %v", s, v.Number, err)
		}
		if !strings.ContainsAny(s, "xX") {
			want, _, _ = big.ParseFloat(strings.TrimLeft(s, "+-"), 10, 20000, big.ToNearestEven)
		}
		got, _, err := big.ParseFloat(strings.TrimPrefix(v.String(), "-"), 10, 20000, big.ToNearestEven)
		if err != nil {
			t.Fatalf("%q prints as %q", s, v.String())
		}
		// 17 digits are printed, and hexadecimal ones have 64 bits.
		bound := new(big.Float).Mul(want, big.NewFloat(1e-19))
		bound.Add(bound, big.NewFloat(1e-17))
		if diff := new(big.Float).Sub(got, want); diff.Abs(diff).Cmp(bound) > 0 {
			t.Fatalf("read %q as %s", s, v.String())
		}
	})
}

// FuzzBitfield holds BITFIELD's arithmetic and bits against math/big.
func FuzzBitfield(f *testing.F) {
	f.Add([]byte("\xff\x00\xaa\x55\x12\x34\x56\x78\x9a\xbc\xde\xf0"), uint16(3), uint8(63), true, int64(-1), uint8(0), false)
	f.Add([]byte(""), uint16(77), uint8(0), false, int64(1)<<62, uint8(1), true)
	f.Add([]byte("abc"), uint16(0), uint8(63), true, int64(-1)<<63, uint8(2), true)
	f.Add([]byte("\x80\x00\x00\x00\x00\x00\x00\x00"), uint16(0), uint8(63), true, int64(-1), uint8(1), true)
	f.Add([]byte("\x7f\xff\xff\xff\xff\xff\xff\xff"), uint16(0), uint8(62), false, int64(9), uint8(0), true)
	f.Fuzz(func(t *testing.T, data []byte, offset uint16, width uint8, signed bool, value int64, mode uint8, add bool) {
		op := bitfieldOp{action: 's', signed: signed, bits: 1 + int(width)%64, offset: int64(offset), value: value, overflow: overflow(mode % 3)}
		if !signed && op.bits == 64 {
			op.bits = 63
		}
		if add {
			op.action = 'i'
		}
		b := make([]byte, max(len(data), (int(offset)+op.bits+7)/8))
		copy(b, data)

		bit := func(i int) uint { return uint(b[i/8]>>(7-i%8)) & 1 }
		was := new(big.Int)
		for i := range op.bits {
			was.Lsh(was, 1).Or(was, big.NewInt(int64(bit(int(offset)+i))))
		}
		if got := bitsAt(b, op.offset, op.bits); was.Uint64() != got {
			t.Fatalf("read %x, want %x", got, was)
		}
		size := new(big.Int).Lsh(big.NewInt(1), uint(op.bits))
		low, high := new(big.Int), new(big.Int).Sub(size, big.NewInt(1))
		old := new(big.Int).Set(was)
		if signed {
			half := new(big.Int).Rsh(size, 1)
			low.Neg(half)
			high.Sub(half, big.NewInt(1))
			if was.Cmp(half) >= 0 {
				old.Sub(was, size)
			}
		}
		want := big.NewInt(value)
		if !signed && !add {
			want.SetUint64(uint64(value)) // BITFIELD SET u8 0 -1 sets 2^64-1
		}
		if add {
			want.Add(want, old)
		}
		over := want.Cmp(low) < 0 || want.Cmp(high) > 0
		switch {
		case !over:
		case op.overflow == overflowSat && want.Cmp(low) < 0:
			want.Set(low)
		case op.overflow == overflowSat:
			want.Set(high)
		default:
			want.Sub(want, low).Mod(want, size).Add(want, low)
		}

		now, reply, ok := op.apply(was.Uint64())
		if ok == (over && op.overflow == overflowFail) {
			t.Fatalf("%+v on %v: fine is %v", op, old, ok)
		}
		if !ok {
			return
		}
		shown := old
		if add {
			shown = want
		}
		if int64(reply) != shown.Int64() {
			t.Fatalf("%+v on %v replies %d, want %v", op, old, int64(reply), shown)
		}
		before := bytes.Clone(b)
		putBits(b, op.offset, op.bits, now)
		if got := bitsAt(b, op.offset, op.bits); got != new(big.Int).Mod(want, size).Uint64() {
			t.Fatalf("%+v on %v writes %x, want %v", op, old, got, want)
		}
		putBits(b, op.offset, op.bits, was.Uint64())
		if !bytes.Equal(b, before) {
			t.Fatal("wrote beside the integer")
		}
	})
}

// FuzzOptions checks what holds of option parsers whatever they are given.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"", "NX", "NX GET XX", "EX 10 KEEPTTL", "px 10 px 20 get", "EXAT", "KEEPTTL KEEPTTL EX 5", "PERSIST", "PXAT 1 PERSIST",
		"ex\x00junk 5", "nx gt", "GT LT", "xx lt", "GET u8 0", "SET i8 #1 5 OVERFLOW SAT", "INCRBY u63 #9223372036854775807 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args := bytesOf(strings.Split(s, " "))
		if s == "" {
			args = nil
		}
		for _, set := range []bool{true, false} {
			o, ok := parseValueOptions(args, set)
			if !ok {
				continue
			}
			if o.nx && o.xx || o.expiry != nil && (o.keepTTL || o.persist) || o.keepTTL && o.persist ||
				set && o.persist || !set && (o.nx || o.xx || o.get || o.keepTTL) {
				t.Fatalf("%q (SET %v): %+v", s, set, o)
			}
		}
		if o, e := parseExpireOptions(args); e == "" && (o.nx && (o.xx || o.gt || o.lt) || o.gt && o.lt) {
			t.Fatalf("%q: %+v", s, o)
		}
		if ops, e := parseBitfield(args); e == "" {
			writes := false
			for _, op := range ops {
				writes = writes || op.action != 'g'
				if op.bits < 1 || op.bits > 64 || !op.signed && op.bits > 63 || op.offset < 0 || op.offset>>3 >= MaxString {
					t.Fatalf("%q: %+v", s, op)
				}
			}
			if bitfieldReads(append(bytesOf([]string{"BITFIELD", "k"}), args...)) == writes {
				t.Fatalf("%q writes: %v", s, writes)
			}
		}
		all := append(bytesOf([]string{"SORT", "k"}), args...)
		for _, name := range []string{"SORT", "XREAD", "GEORADIUS", "SINTERCARD", "BITFIELD", "SET", "MSET", "GET"} {
			c := named(commands, []byte(name))
			if len(all) < -c.Arity || c.Arity > 0 && len(all) != c.Arity {
				continue
			}
			for _, r := range c.FindKeys(all) {
				if r.Arg < 1 || r.Arg >= len(all) {
					t.Fatalf("%s %q: key at %d", name, s, r.Arg)
				}
			}
		}
		if len(args) > 0 {
			if _, e := Find(args); strings.ContainsAny(e, "\r\n") {
				t.Fatalf("%q: error %q would break the protocol", s, e)
			}
		}
	})
}

// FuzzMatch holds Match against the plain recursive definition.
func FuzzMatch(f *testing.F) {
	for _, p := range []string{"*", "a*b", "a?c", "[a-c]x", "[^a-c]x", "[c-a]x", "\\*", "[\\]]", "[a", "[", "[^", "\\", "a**b*", "[]a]", "[a-]", "[\x80-a]"} {
		f.Add([]byte(p), []byte("abcx"), false)
		f.Add([]byte(p), []byte("]"), true)
	}
	f.Fuzz(func(t *testing.T, pattern, s []byte, fold bool) {
		if len(pattern) > 12 || len(s) > 12 {
			return // the definition takes too long
		}
		if got, want := Match(pattern, s, fold), matchPlainly(pattern, s, fold); got != want {
			t.Fatalf("%q matches %q: %v", pattern, s, got)
		}
	})
}

func matchPlainly(p, s []byte, fold bool) bool {
	lower := func(c byte) byte {
		if fold && 'A' <= c && c <= 'Z' {
			return c - 'A' + 'a'
		}
		return c
	}
	switch {
	case len(p) == 0:
		return len(s) == 0
	case p[0] == '*':
		return matchPlainly(p[1:], s, fold) || len(s) > 0 && matchPlainly(p, s[1:], fold)
	case len(s) == 0:
		return false
	}
	if ok, n := matchOne(p, s[0], lower); ok {
		return matchPlainly(p[n:], s[1:], fold)
	}
	return false
}

// TestMatchRedis compares Match with KEYS of a real Redis.
func TestMatchRedis(t *testing.T) {
	model := startRedis(t)
	names := []string{"a", "b", "ab", "abc", "a*c", "a-c", "]", "[", "\\", "^", "A", "aXbXc", "\xff", "\x80b", "hello", "h\x00llo", "a]", "-"}
	for _, n := range names {
		model.must("SET", []byte(n), nil)
	}
	for _, p := range []string{"?", "a*", "*c", "a*c", "a\\*c", "[ab]", "[^ab]", "[a-c]", "[c-a]", "[\\]]", "[]]", "[a", "[^a", "[", "\\", "a-c", "[a-]",
		"[-a]", "*X*X*", "a**c", "**", "h?llo", "[\x80-\xff]", "[\xff-a]", "[A-Z]", "\\\\", "[\\\\]", "x", "a[]-c]c", "?*?", "[^", "[\\"} {
		want := map[string]bool{}
		for _, k := range model.bulks("KEYS", []byte(p)) {
			want[string(k)] = true
		}
		for _, n := range names {
			if got := Match([]byte(p), []byte(n), false); got != want[n] {
				t.Errorf("%q matches %q: %v", p, n, got)
			}
		}
	}
}

// TestIncrementsAddUp makes sure that increments travel as increments: made at
// two nodes at once they add up, also beside a value that was set.
func TestIncrementsAddUp(t *testing.T) {
	a, b := newTwin(t, 1), newTwin(t, 2)
	a.cells(0, bytesOf([]string{"SET", "k", "10"}))
	sync := func(from *twin, ctx, to *crdt.Keyspace) {
		for _, e := range from.writer.Entries() {
			to.Apply(&e)
			to.Have.Set(e.Stream, e.Tag)
			ctx.Have.Set(e.Stream, e.Tag)
		}
		from.writer = nil
		from.begin()
	}
	sync(a, a.keys, b.keys)
	other := crdt.NewStream(3, 1, 0)
	b.writer = crdt.NewWriter(b.keys, other, b.tag+1<<30, b.writer.Now())
	a.cells(0, bytesOf([]string{"INCRBY", "k", "7"}))
	b.cells(0, bytesOf([]string{"INCRBYFLOAT", "k", "0.5"}))
	sync(b, b.keys, a.keys)
	if v, _ := a.writer.Elem(crdt.Key{Name: "k"}, crdt.KindString, ""); string(v) != "17.5" {
		t.Errorf("10 + 7 ‖ 0.5 = %s", v)
	}
}
