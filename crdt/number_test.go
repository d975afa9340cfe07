package crdt_test

import (
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

func rat(t *testing.T, n crdt.Number) *big.Rat {
	t.Helper()
	b := n.AppendBinary(nil)
	back, err := crdt.DecodeNumber(b)
	if err != nil || !back.Equal(n) || string(back.AppendBinary(nil)) != string(b) {
		t.Fatalf("%v does not survive its encoding: %v, %v", n, back, err)
	}
	if i, ok := n.Int64(); ok {
		return new(big.Rat).SetInt64(i)
	}
	r, ok := new(big.Rat).SetString(crdt.Exact(n))
	if !ok {
		t.Fatalf("%q is not a number", crdt.Exact(n))
	}
	return r
}

// redis prints a number as INCRBYFLOAT does.
func redis(r *big.Rat) string {
	s := r.FloatString(17)
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	if s == "-0" || s == "" {
		return "0"
	}
	return s
}

func TestParseNumber(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "-0": "0", "0.0": "0", "1": "1", "-1": "-1", "+5": "5", "007": "7", "1.50": "1.5", ".5": "0.5", "5.": "5",
		"3.0e3": "3000", "5.0e-1": "0.5", "1e3": "1000", "1E+2": "100", "-1.25e-2": "-0.0125",
		"9223372036854775807": "9223372036854775807", "9223372036854775808": "9223372036854775808",
		"-9223372036854775808": "-9223372036854775808", "123456789012345678901234567890": "123456789012345678901234567890",
		"0.123456789012345678": "0.12345678901234568", "1e-30": "0",
	} {
		n, err := crdt.ParseNumber([]byte(text))
		if err != nil || n.String() != want {
			t.Errorf("%q is %v, %v; want %s", text, n, err, want)
		}
	}
	for _, text := range []string{"", " 1", "1 ", "a", "-", "+", ".", "e5", "1e", "1e1.5", "1e99999", "1e-99999", "1.2.3", "--1", "1-", "0x10", "inf", "nan", "Infinity", "1_000", "1e5e5", "\x00", strings.Repeat("9", 5120)} {
		if n, err := crdt.ParseNumber([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, n)
		}
	}
}

func TestParseInt(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1": 1, "-1": -1, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64} {
		if got, ok := crdt.ParseInt([]byte(text)); !ok || got != want {
			t.Errorf("%q is %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "9223372036854775808", "1e3", "--1"} {
		if got, ok := crdt.ParseInt([]byte(text)); ok {
			t.Errorf("%q was read as %d", text, got)
		}
	}
}

func TestNumberIsCanonical(t *testing.T) {
	// However a number came about, it is small if it fits 64 bits.
	huge, _ := crdt.ParseNumber([]byte("9223372036854775808"))
	tenth, _ := crdt.ParseNumber([]byte("0.1"))
	sum := crdt.Int(0)
	for range 10 {
		sum = sum.Add(tenth)
	}
	for what, c := range map[string]struct {
		n    crdt.Number
		want int64
	}{
		"ten tenths":          {sum, 1},
		"back from beyond":    {huge.Sub(crdt.Int(1)), math.MaxInt64},
		"minus of 2^63":       {huge.Neg(), math.MinInt64},
		"twice minus":         {crdt.Int(math.MinInt64).Neg().Neg(), math.MinInt64},
		"nothing left":        {huge.Sub(huge), 0},
		"overflow and back":   {crdt.Int(math.MaxInt64).Add(crdt.Int(1)).Add(crdt.Int(-1)), math.MaxInt64},
		"underflow and back":  {crdt.Int(math.MinInt64).Add(crdt.Int(-1)).Add(crdt.Int(1)), math.MinInt64},
		"nothing to minimum":  {crdt.Int(math.MinInt64).Add(crdt.Int(0)), math.MinInt64},
		"large round numbers": {crdt.Int(5e18).Add(crdt.Int(5e18)).Sub(crdt.Int(9e18)), 1e18},
	} {
		if i, ok := c.n.Int64(); !ok || i != c.want || !c.n.Equal(crdt.Int(c.want)) {
			t.Errorf("%s: %v, %v", what, c.n, ok)
		}
	}
}

// FuzzNumber compares parsing, sums, differences and printing with math/big.
func FuzzNumber(f *testing.F) {
	for _, p := range [][2]string{{"1", "2"}, {"0.1", "0.2"}, {"9223372036854775807", "1"}, {"-9223372036854775808", "-1"}, {"1e20", "-1e20"}, {"1.5e-10", "3"}, {"1e4932", "-1e-4932"}, {"-0.00000000000000000049", "0.5"}, {"+1.", ".5"}} {
		f.Add(p[0], p[1])
	}
	f.Add(strings.Repeat("9", 5000)+"e4932", "0."+strings.Repeat("0", 5000)+"1e-4932")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, err := crdt.ParseNumber([]byte(a))
		if err != nil {
			return
		}
		y, err := crdt.ParseNumber([]byte(b))
		if err != nil {
			return
		}
		rx, ok := new(big.Rat).SetString(a)
		ry, ok2 := new(big.Rat).SetString(b)
		if !ok || !ok2 {
			t.Fatalf("math/big does not read %q or %q", a, b)
		}
		check := func(what string, n crdt.Number, want *big.Rat) {
			t.Helper()
			if rat(t, n).Cmp(want) != 0 {
				t.Fatalf("%s of %q, %q is %v, want %v", what, a, b, n, want)
			}
			if got := n.String(); got != redis(want) {
				t.Fatalf("%s of %q, %q prints %s, want %s", what, a, b, got, redis(want))
			}
			if n.IsZero() != (want.Sign() == 0) {
				t.Fatalf("%s of %q, %q: IsZero %v", what, a, b, n.IsZero())
			}
			if _, small := n.Int64(); small != (want.IsInt() && want.Num().IsInt64()) {
				t.Fatalf("%s of %q, %q is not in its one form", what, a, b)
			}
		}
		check("value", x, rx)
		check("sum", x.Add(y), new(big.Rat).Add(rx, ry))
		check("difference", x.Sub(y), new(big.Rat).Sub(rx, ry))
		check("negation", x.Neg(), new(big.Rat).Neg(rx))
		if x.Equal(y) != (rx.Cmp(ry) == 0) {
			t.Fatalf("%q equal %q: %v", a, b, x.Equal(y))
		}
	})
}
