package lua

import (
	"math"
	"strconv"
	"strings"
)

// Value is nil, bool, float64, string, *Table, *Function, *Thread or *Userdata.
type Value any

// Userdata is an opaque value with, perhaps, a metatable.
type Userdata struct {
	Light bool // lightuserdata: has no metatable of its own
	Meta  *Table
	Data  any
}

// Null is the null pointer as a value: JSON's null.
var Null = &Userdata{Light: true}

// Function is a function of Lua or of the host.
type Function struct {
	proto  *proto
	up     []*cell
	env    *Table
	native Native
	name   string // of a native one, for messages
}

// Native is a function of the host. It returns its results, which are used
// before anything else is called; args are its own only while it runs.
type Native func(t *Thread, args []Value) []Value

// NewFunction returns a native function; name is for error messages.
func NewFunction(name string, f Native) *Function { return &Function{native: f, name: name} }

// cell holds a local variable that an inner function uses.
type cell struct{ v Value }

// smallInts saves allocating the commonest numbers as interface values.
var smallInts = func() (s [1024]Value) {
	for i := range s {
		s[i] = float64(i)
	}
	return
}()

func num(f float64) Value {
	if f >= 1 && f < 1024 {
		if i := int(f); float64(i) == f {
			return smallInts[i]
		}
	}
	return f
}

func truth(v Value) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	}
	return true
}

// TypeName returns the name of a value's type as Lua's type does.
func TypeName(v Value) string {
	switch v.(type) {
	case nil:
		return "nil"
	case bool:
		return "boolean"
	case float64:
		return "number"
	case string:
		return "string"
	case *Table:
		return "table"
	case *Function:
		return "function"
	case *Thread:
		return "thread"
	}
	return "userdata"
}

func rawEqual(a, b Value) bool {
	switch x := a.(type) {
	case float64:
		y, ok := b.(float64)
		return ok && x == y
	case string:
		y, ok := b.(string)
		return ok && x == y
	}
	return a == b
}

// FormatNumber returns a number as C's printf("%.<digits>g") prints it.
func FormatNumber(f float64, digits int) string {
	if digits >= 14 && f == math.Trunc(f) && math.Abs(f) < 1e14 {
		if f == 0 && math.Signbit(f) {
			return "-0"
		}
		return strconv.FormatInt(int64(f), 10)
	}
	return formatG(f, digits, false)
}

// formatG is %.<digits>g of C; alt is its # flag.
func formatG(f float64, digits int, alt bool) string {
	if s, ok := nonFinite(f); ok {
		return s
	}
	digits = max(digits, 1)
	e := strconv.FormatFloat(f, 'e', digits-1, 64)
	i := strings.IndexByte(e, 'e')
	exp, _ := strconv.Atoi(e[i+1:])
	mant := e[:i]
	if exp < -4 || exp >= digits {
		if !alt {
			mant = trimZeros(mant)
		}
		return mant + e[i:]
	}
	s := strconv.FormatFloat(f, 'f', digits-1-exp, 64)
	if alt {
		if !strings.Contains(s, ".") {
			s += "."
		}
		return s
	}
	return trimZeros(s)
}

func trimZeros(s string) string {
	if strings.IndexByte(s, '.') < 0 {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// nonFinite prints infinities and NaNs, whose sign C shows.
func nonFinite(f float64) (string, bool) {
	switch {
	case math.IsNaN(f) && math.Signbit(f):
		return "-nan", true
	case math.IsNaN(f):
		return "nan", true
	case math.IsInf(f, 1):
		return "inf", true
	case math.IsInf(f, -1):
		return "-inf", true
	}
	return "", false
}

const spaces = " \t\n\v\f\r"

// ParseNumber reads a number as Lua does, by C's strtod: blanks around it,
// hexadecimal, "inf" and "nan" are numbers too.
func ParseNumber(s string) (float64, bool) {
	f, rest := scanNumber(s)
	return f, len(rest) < len(s) && strings.Trim(rest, spaces) == ""
}

// scanNumber reads the number that s begins with, after blanks, and returns
// what follows; all of s if there is none.
func scanNumber(s string) (float64, string) {
	p := strings.TrimLeft(s, spaces)
	i, neg := 0, false
	if i < len(p) && (p[i] == '-' || p[i] == '+') {
		neg = p[i] == '-'
		i++
	}
	sign := func(f float64) float64 {
		if neg {
			return math.Copysign(f, -1)
		}
		return f
	}
	rest := p[i:]
	if len(rest) >= 3 {
		switch word := strings.ToLower(rest[:min(len(rest), 8)]); {
		case word == "infinity":
			return sign(math.Inf(1)), rest[8:]
		case strings.HasPrefix(word, "inf"):
			return sign(math.Inf(1)), rest[3:]
		case strings.HasPrefix(word, "nan"):
			return sign(math.NaN()), rest[3:]
		}
	}
	if len(rest) > 2 && rest[0] == '0' && rest[1]|0x20 == 'x' {
		if f, after, ok := scanHex(rest[2:]); ok {
			return sign(f), after
		}
	}
	digits := func() (n int) {
		for i < len(p) && '0' <= p[i] && p[i] <= '9' {
			i++
			n++
		}
		return
	}
	n := digits()
	if i < len(p) && p[i] == '.' {
		i++
		n += digits()
	}
	if n == 0 {
		return 0, s
	}
	if i < len(p) && p[i]|0x20 == 'e' {
		j := i
		i++
		if i < len(p) && (p[i] == '-' || p[i] == '+') {
			i++
		}
		if digits() == 0 {
			i = j
		}
	}
	f, _ := strconv.ParseFloat(p[:i], 64) // out of range is infinity, as in C
	return f, p[i:]
}

// scanHex reads what follows "0x".
func scanHex(s string) (f float64, rest string, ok bool) {
	i, exp := 0, 0
	point := false
	for ; i < len(s); i++ {
		if s[i] == '.' && !point {
			point = true
			continue
		}
		d, is := hexDigit(s[i])
		if !is {
			break
		}
		ok = true
		f = f*16 + float64(d)
		if point {
			exp -= 4
		}
	}
	if !ok {
		return 0, s, false
	}
	if i+1 < len(s) && s[i]|0x20 == 'p' {
		j, sgn := i+1, 1
		if s[j] == '-' || s[j] == '+' {
			if s[j] == '-' {
				sgn = -1
			}
			j++
		}
		k, e := j, 0
		for ; k < len(s) && '0' <= s[k] && s[k] <= '9'; k++ {
			e = min(e*10+int(s[k]-'0'), 1<<20)
		}
		if k > j {
			exp += sgn * e
			i = k
		}
	}
	return math.Ldexp(f, exp), s[i:], true
}

func hexDigit(c byte) (int, bool) {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0'), true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10, true
	}
	return 0, false
}

// ToNumber converts a number or a string that holds one.
func ToNumber(v Value) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case string:
		return ParseNumber(v)
	}
	return 0, false
}

// ToString converts a string or number to a string.
func ToString(v Value) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case float64:
		return FormatNumber(v, 14), true
	}
	return "", false
}

// toInt converts a number to a C int as Lua's lua_number2int does on x86-64.
func toInt(f float64) int64 {
	if f != f || f >= 1<<63 || f < -(1<<63) {
		return math.MinInt64
	}
	return int64(f)
}

// ScanNumber reads the number that s begins with, after blanks, as C's strtod,
// and returns how many bytes it took, 0 if there is none.
func ScanNumber(s string) (float64, int) {
	f, rest := scanNumber(s)
	return f, len(s) - len(rest)
}

// CallNative calls a native function from another, with its arguments.
func (f *Function) CallNative(t *Thread, args []Value) []Value { return f.native(t, args) }
