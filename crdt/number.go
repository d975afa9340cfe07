package crdt

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/cockroachdb/apd/v3"
)

// Number is an exact decimal. Integers that fit 64 bits, nearly all there
// are, need no allocation; the rest is an apd decimal. The zero value is 0.
// Numbers are values: no method changes its receiver.
type Number struct {
	small int64
	big   *apd.Decimal // nil while the number is small
}

// ErrNumber reports text that is not a decimal number, or one with an exponent
// beyond what Redis's long double can hold.
var ErrNumber = errors.New("not a decimal number")

// maxExponent bounds the digits a number can need, as Redis's long double
// bounds its own (1e±4932).
const maxExponent = 4932

// maxNumberText is the longest text of a number, as in Redis.
const maxNumberText = 5*1024 - 1

// maxDigits bounds the digits of a sum, before and after its point together:
// numbers reach maxNumberText+maxExponent places either way, and carries a few
// more.
const maxDigits = 2*(maxNumberText+maxExponent) + 64

// exact computes without rounding.
var exact = apd.Context{Precision: maxDigits, MaxExponent: apd.MaxExponent, MinExponent: apd.MinExponent, Traps: apd.DefaultTraps}

// Int returns the number of an integer.
func Int(i int64) Number { return Number{small: i} }

// ParseNumber reads decimal text: an optional sign, digits with an optional
// point, an optional exponent. No spaces, no infinities, no hexadecimal.
func ParseNumber(b []byte) (Number, error) {
	if i, ok := parseInt(b); ok {
		return Int(i), nil
	}
	digits, exp := 0, 0
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == '.' || (c == '-' || c == '+') && i == 0:
		case (c == 'e' || c == 'E') && digits > 0:
			e, err := strconv.Atoi(string(b[i+1:]))
			if err != nil {
				return Number{}, ErrNumber
			}
			exp = e
			goto parse
		default:
			return Number{}, ErrNumber
		}
	}
parse:
	if digits == 0 || len(b) > maxNumberText || exp > maxExponent || exp < -maxExponent || bytes.Count(b, []byte{'.'}) > 1 {
		return Number{}, ErrNumber
	}
	d, _, err := apd.NewFromString(string(b))
	if err != nil || d.Form != apd.Finite {
		return Number{}, ErrNumber
	}
	return fromDecimal(d), nil
}

// Add returns the exact sum.
func (n Number) Add(o Number) Number {
	if n.big == nil && o.big == nil {
		if s := n.small + o.small; (s > n.small) == (o.small > 0) {
			return Int(s)
		}
	}
	var d apd.Decimal
	_, _ = exact.Add(&d, n.decimal(), o.decimal())
	return fromDecimal(&d)
}

// Neg returns the number with its sign turned.
func (n Number) Neg() Number {
	if n.big == nil && n.small != math.MinInt64 {
		return Int(-n.small)
	}
	var d apd.Decimal
	d.Neg(n.decimal())
	return fromDecimal(&d)
}

// Sub returns the exact difference.
func (n Number) Sub(o Number) Number { return n.Add(o.Neg()) }

// IsZero reports whether the number is 0.
func (n Number) IsZero() bool { return n.big == nil && n.small == 0 }

// Equal reports whether both are the same number.
func (n Number) Equal(o Number) bool {
	if n.big == nil || o.big == nil {
		return n.big == nil && o.big == nil && n.small == o.small
	}
	return n.big.Cmp(o.big) == 0
}

// Int64 returns the number as an integer, if it is one that fits.
func (n Number) Int64() (int64, bool) { return n.small, n.big == nil }

// Float64 returns the nearest float.
func (n Number) Float64() float64 {
	if n.big == nil {
		return float64(n.small)
	}
	f, _ := n.big.Float64()
	return f
}

// Append appends the number as Redis prints it: no exponent, at most 17 digits
// after the point (INCRBYFLOAT's "%.17Lf" without its trailing zeros).
func (n Number) Append(b []byte) []byte {
	if n.big == nil {
		return strconv.AppendInt(b, n.small, 10)
	}
	d := n.big
	if d.Exponent < -17 {
		var r apd.Decimal
		if _, err := exact.Quantize(&r, d, -17); err == nil {
			d = &r
		}
	}
	t := []byte(d.Text('f'))
	if bytes.IndexByte(t, '.') >= 0 {
		t = bytes.TrimRight(bytes.TrimRight(t, "0"), ".")
	}
	if len(t) == 0 || string(t) == "-0" || string(t) == "-" {
		t = []byte{'0'}
	}
	return append(b, t...)
}

// Exact returns the number with all its digits, with an exponent if it has many.
func (n Number) Exact() []byte {
	if n.big == nil {
		return strconv.AppendInt(nil, n.small, 10)
	}
	return n.big.Append(nil, 'G')
}

// String returns what Append appends.
func (n Number) String() string { return string(n.Append(nil)) }

func (n Number) decimal() *apd.Decimal {
	if n.big != nil {
		return n.big
	}
	return apd.New(n.small, 0)
}

// fromDecimal takes d over and brings it to the one form each number has.
func fromDecimal(d *apd.Decimal) Number {
	reduce(d)
	if d.IsZero() {
		return Number{}
	}
	if d.Exponent >= 0 && d.Exponent < 19 {
		if i, err := d.Int64(); err == nil {
			return Int(i)
		}
	}
	return Number{big: d}
}

// reduce takes the trailing zeros of d's coefficient into its exponent. apd's
// Reduce divides by ten for each of them, which for thousands takes long enough
// to hold up everybody.
func reduce(d *apd.Decimal) {
	if d.Coeff.BitLen() <= 256 {
		d.Reduce(d)
		return
	}
	digits := d.Coeff.String()
	if zeros := len(digits) - len(strings.TrimRight(digits, "0")); zeros > 0 {
		d.Coeff.SetString(digits[:len(digits)-zeros], 10)
		d.Exponent += int32(zeros)
	}
}

// parseInt reads an integer in the one form Redis prints it: no leading
// zeros, no plus sign, no minus zero.
func parseInt(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	if len(b) == 1 && b[0] == '0' {
		return 0, true
	}
	first := b[0]
	if first == '-' && len(b) > 1 {
		first = b[1]
	}
	if first < '1' || first > '9' {
		return 0, false
	}
	i, err := strconv.ParseInt(string(b), 10, 64)
	return i, err == nil
}

// ParseInt reads a 64-bit integer in the one form Redis accepts for INCR.
func ParseInt(b []byte) (int64, bool) { return parseInt(b) }
