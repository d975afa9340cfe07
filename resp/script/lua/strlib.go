package lua

import (
	"math"
	"strconv"
	"strings"
)

func openString(s *State) {
	lib := s.Register("string", map[string]Native{
		"byte": func(t *Thread, args []Value) []Value {
			str := t.CheckString(args, 1)
			i := relative(t.OptInt(args, 2, 1), len(str))
			j := relative(t.OptInt(args, 3, i), len(str))
			i, j = max(i, 1), min(j, int64(len(str)))
			if i > j {
				return nil
			}
			if j-i+1 >= maxValues {
				t.Errorf("string slice too long")
			}
			out := make([]Value, 0, j-i+1)
			for _, c := range []byte(str[i-1 : j]) {
				out = append(out, num(float64(c)))
			}
			return out
		},
		"char": func(t *Thread, args []Value) []Value {
			b := make([]byte, len(args))
			for i := range args {
				c := int32(t.CheckInt(args, i+1))
				if c != int32(byte(c)) {
					t.ArgError(i+1, "invalid value")
				}
				b[i] = byte(c)
			}
			return []Value{string(b)}
		},
		"dump": func(t *Thread, args []Value) []Value {
			f := t.checkFunction(args, 1)
			if f.native != nil {
				t.Errorf("unable to dump given function")
			}
			// Something that nothing can load, as in Redis.
			return []Value{"\x1bLua" + f.proto.source}
		},
		"find":   func(t *Thread, args []Value) []Value { return find(t, args, true) },
		"match":  func(t *Thread, args []Value) []Value { return find(t, args, false) },
		"gmatch": gmatch,
		"gfind":  gmatch,
		"gsub":   gsub,
		"format": format,
		"len":    func(t *Thread, args []Value) []Value { return []Value{num(float64(len(t.CheckString(args, 1))))} },
		"lower": func(t *Thread, args []Value) []Value {
			return []Value{mapBytes(t, t.CheckString(args, 1), 'A', 'Z')}
		},
		"upper": func(t *Thread, args []Value) []Value {
			return []Value{mapBytes(t, t.CheckString(args, 1), 'a', 'z')}
		},
		"rep": func(t *Thread, args []Value) []Value {
			str, n := t.CheckString(args, 1), int64(int32(t.CheckInt(args, 2)))
			if n <= 0 || str == "" {
				return []Value{""}
			}
			if n > MaxString/int64(len(str)) {
				t.Throw("not enough memory")
			}
			t.room(int(n) * len(str))
			return []Value{strings.Repeat(str, int(n))}
		},
		"reverse": func(t *Thread, args []Value) []Value {
			str := t.CheckString(args, 1)
			t.room(len(str))
			b := make([]byte, len(str))
			for i := range b {
				b[i] = str[len(str)-1-i]
			}
			return []Value{string(b)}
		},
		"sub": func(t *Thread, args []Value) []Value {
			str := t.CheckString(args, 1)
			i := max(relative(t.CheckInt(args, 2), len(str)), 1)
			j := min(relative(t.OptInt(args, 3, -1), len(str)), int64(len(str)))
			if i > j {
				return []Value{""}
			}
			return []Value{str[i-1 : j]}
		},
	})
	s.strings = NewTable(0, 1)
	s.strings.Set("__index", lib)
}

// LockStrings makes the metatable of strings read only.
func (s *State) LockStrings() { s.strings.Lock() }

// relative makes a position from the end one from the beginning.
func relative(i int64, n int) int64 {
	if i < 0 {
		return max(i+int64(n)+1, 0)
	}
	return i
}

// mapBytes flips the case of the letters in a range.
func mapBytes(t *Thread, s string, from, to byte) string {
	t.room(len(s))
	b := []byte(s)
	for i, c := range b {
		if from <= c && c <= to {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

// spec is one conversion of a format.
type spec struct {
	minus, plus, space, alt, zero bool
	width, prec                   int // prec -1: none
}

// format is string.format, as C's sprintf with Lua's limits.
func format(t *Thread, args []Value) []Value {
	f := t.CheckString(args, 1)
	var b []byte
	n := 1
	for i := 0; i < len(f); i++ {
		if f[i] != '%' {
			b = append(b, f[i])
			continue
		}
		if i++; i < len(f) && f[i] == '%' {
			b = append(b, '%')
			continue
		}
		if n++; n > len(args) {
			t.ArgError(n, "no value")
		}
		sp := spec{prec: -1}
		start := i
		for ; i < len(f) && strings.IndexByte("-+ #0", f[i]) >= 0; i++ {
			switch f[i] {
			case '-':
				sp.minus = true
			case '+':
				sp.plus = true
			case ' ':
				sp.space = true
			case '#':
				sp.alt = true
			case '0':
				sp.zero = true
			}
		}
		if i-start >= 6 {
			t.Errorf("invalid format (repeated flags)")
		}
		digits := func() (v int) {
			for k := 0; k < 2 && i < len(f) && isDigit(f[i]); k++ {
				v = v*10 + int(f[i]-'0')
				i++
			}
			return
		}
		sp.width = digits()
		if i < len(f) && f[i] == '.' {
			i++
			sp.prec = digits()
		}
		if i < len(f) && isDigit(f[i]) {
			t.Errorf("invalid format (width or precision too long)")
		}
		var c byte
		if i < len(f) {
			c = f[i]
		}
		switch c {
		case 'c':
			b = append(b, cString(string(sp.pad(nil, string([]byte{byte(int32(t.CheckInt(args, n)))}))))...)
		case 'd', 'i':
			b = sp.integer(b, t.CheckNumber(args, n))
		case 'o', 'u', 'x', 'X':
			b = sp.unsigned(b, t.CheckNumber(args, n), c)
		case 'e', 'E', 'f', 'g', 'G':
			b = sp.float(b, t.CheckNumber(args, n), c)
		case 'q':
			b = quoteString(b, t.CheckString(args, n))
		case 's':
			s := t.CheckString(args, n)
			if sp.prec < 0 && len(s) >= 100 {
				b = append(b, s...)
				break
			}
			s = cString(s)
			if sp.prec >= 0 && len(s) > sp.prec {
				s = s[:sp.prec]
			}
			b = sp.pad(b, s)
		default:
			what := "%" + f[start:min(i+1, len(f))]
			t.Errorf("invalid option '%s' to 'format'", cString(what))
		}
		if len(b) > MaxString {
			t.room(len(b))
		}
	}
	t.room(len(b))
	return []Value{string(b)}
}

// pad appends a text, filled with blanks to the width.
func (sp *spec) pad(b []byte, s string) []byte {
	n := sp.width - len(s)
	if !sp.minus {
		for ; n > 0; n-- {
			b = append(b, ' ')
		}
	}
	b = append(b, s...)
	for ; n > 0; n-- {
		b = append(b, ' ')
	}
	return b
}

// number pads a number: zeros go between its sign and its digits.
func (sp *spec) number(b []byte, sign, digits string, zeros bool) []byte {
	if zeros && sp.zero && !sp.minus {
		if n := sp.width - len(sign) - len(digits); n > 0 {
			digits = strings.Repeat("0", n) + digits
		}
	}
	return sp.pad(b, sign+digits)
}

func (sp *spec) sign(neg bool) string {
	switch {
	case neg:
		return "-"
	case sp.plus:
		return "+"
	case sp.space:
		return " "
	}
	return ""
}

// precise fills an integer's digits to the precision.
func (sp *spec) precise(digits string) string {
	if sp.prec == 0 && digits == "0" {
		return ""
	}
	if n := sp.prec - len(digits); n > 0 {
		digits = strings.Repeat("0", n) + digits
	}
	return digits
}

func (sp *spec) integer(b []byte, f float64) []byte {
	i := toInt(f)
	u := uint64(i)
	if i < 0 {
		u = -u
	}
	return sp.number(b, sp.sign(i < 0), sp.precise(strconv.FormatUint(u, 10)), sp.prec < 0)
}

func (sp *spec) unsigned(b []byte, f float64, verb byte) []byte {
	var u uint64
	switch {
	case f != f:
		u = 1 << 63
	case f < 0:
		u = uint64(toInt(f))
	case f >= 1<<64:
		u = 0
	default:
		u = uint64(f)
	}
	prefix := ""
	var s string
	switch verb {
	case 'o':
		if s = sp.precise(strconv.FormatUint(u, 8)); sp.alt && !strings.HasPrefix(s, "0") {
			s = "0" + s
		}
	case 'u':
		s = sp.precise(strconv.FormatUint(u, 10))
	default:
		s = sp.precise(strconv.FormatUint(u, 16))
		if sp.alt && u != 0 {
			prefix = "0x"
		}
		if verb == 'X' {
			s, prefix = strings.ToUpper(s), strings.ToUpper(prefix)
		}
	}
	return sp.number(b, prefix, s, sp.prec < 0)
}

func (sp *spec) float(b []byte, f float64, verb byte) []byte {
	if s, ok := nonFinite(f); ok {
		sign := sp.sign(math.Signbit(f))
		s = strings.TrimPrefix(s, "-")
		if verb < 'a' {
			s = strings.ToUpper(s)
		}
		return sp.number(b, sign, s, false)
	}
	prec := sp.prec
	if prec < 0 {
		prec = 6
	}
	sign := sp.sign(math.Signbit(f))
	f = math.Abs(f)
	var s string
	switch verb | 0x20 {
	case 'e':
		s = strconv.FormatFloat(f, 'e', prec, 64)
		if sp.alt && prec == 0 {
			s = strings.Replace(s, "e", ".e", 1)
		}
	case 'f':
		s = strconv.FormatFloat(f, 'f', prec, 64)
		if sp.alt && prec == 0 {
			s += "."
		}
	default:
		s = formatG(f, prec, sp.alt)
	}
	if verb < 'a' {
		s = strings.ToUpper(s)
	}
	return sp.number(b, sign, s, true)
}

func quoteString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\\', '\n':
			b = append(b, '\\', c)
		case '\r':
			b = append(b, `\r`...)
		case 0:
			b = append(b, `\000`...)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
