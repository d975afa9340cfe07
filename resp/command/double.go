package command

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// parseDouble reads what Redis reads as a double: all of the argument must be a
// number, an infinity included, within a float64's range.
func parseDouble(arg []byte) (float64, bool) {
	if len(arg) == 0 || isSpace(arg[0]) {
		return 0, false
	}
	f, n, inRange := strtod(arg)
	return f, n == len(arg) && inRange && !math.IsNaN(f)
}

// strtod reads the longest number that b begins with, as C's strtod does, and
// returns its length, 0 if there is none. What is too large is an infinity and
// what is too small 0, neither in range.
func strtod(b []byte) (f float64, n int, inRange bool) {
	i := 0
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	start := i
	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		i++
	}
	sign := 1.0
	if i > start && b[start] == '-' {
		sign = -1
	}
	begins := func(word string) bool {
		return len(b)-i >= len(word) && strings.EqualFold(string(b[i:i+len(word)]), word)
	}
	switch {
	case begins("infinity"):
		return math.Inf(int(sign)), i + len("infinity"), true
	case begins("inf"):
		return math.Inf(int(sign)), i + len("inf"), true
	case begins("nan"):
		i += len("nan")
		if i < len(b) && b[i] == '(' {
			if end := bytes.IndexByte(b[i:], ')'); end > 0 {
				i += end + 1
			}
		}
		return math.NaN(), i, true
	}
	hex := false
	isDigit := func(c byte) bool {
		return '0' <= c && c <= '9' || hex && 'a' <= c|0x20 && c|0x20 <= 'f'
	}
	digitsAt := func(i int) (end, digits int, zero bool) {
		zero = true
		for point := false; i < len(b) && (isDigit(b[i]) || b[i] == '.' && !point); i++ {
			if b[i] == '.' {
				point = true
				continue
			}
			digits++
			zero = zero && b[i] == '0'
		}
		return i, digits, zero
	}
	end, digits, zero := digitsAt(i)
	exponent := byte('e')
	if begins("0x") {
		hex = true
		if e, d, z := digitsAt(i + 2); d > 0 {
			end, digits, zero, exponent = e, d, z, 'p'
		} else {
			hex = false
			end = i + 1 // the 0 alone
		}
	}
	if digits == 0 {
		return 0, 0, true
	}
	text := string(b[start:end])
	hasExponent := false
	if j := end; j < len(b) && b[j]|0x20 == exponent {
		j++
		if j < len(b) && (b[j] == '+' || b[j] == '-') {
			j++
		}
		k := j
		for k < len(b) && '0' <= b[k] && b[k] <= '9' {
			k++
		}
		if k > j {
			end, hasExponent = k, true
			text = string(b[start:end])
		}
	}
	if hex && !hasExponent {
		text += "p0"
	}
	f, err := strconv.ParseFloat(text, 64)
	return f, end, err == nil && (f != 0 || zero)
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }
