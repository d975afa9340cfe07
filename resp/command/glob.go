package command

// Match reports whether s matches a glob-style pattern as Redis's KEYS has
// them: * any bytes, ? one byte, [a-c] or [^a-c] one of a class, \ the next byte as it
// is. fold makes no difference between upper and lower ASCII letters. Time is
// at most proportional to the product of the lengths.
func Match(pattern, s []byte, fold bool) bool {
	lower := func(c byte) byte {
		if fold && 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		return c
	}
	p, i := 0, 0
	star, from := -1, 0 // the last *, and where what follows it was tried
	for i < len(s) || p < len(pattern) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, from = p, i
				p++
				continue
			}
			if i < len(s) {
				if ok, n := matchOne(pattern[p:], s[i], lower); ok {
					p, i = p+n, i+1
					continue
				}
			}
		}
		if star < 0 || from >= len(s) {
			return false
		}
		from++
		p, i = star+1, from
	}
	return true
}

// matchOne reports whether c matches the first element of a pattern, and how
// long that is.
func matchOne(p []byte, c byte, lower func(byte) byte) (bool, int) {
	switch {
	case p[0] == '?':
		return true, 1
	case p[0] == '[':
		return matchClass(p, c, lower)
	case p[0] == '\\' && len(p) >= 2:
		return lower(p[1]) == lower(c), 2
	}
	return lower(p[0]) == lower(c), 1
}

// matchClass is matchOne for a class. One that is not closed ends with the
// pattern.
func matchClass(p []byte, c byte, lower func(byte) byte) (bool, int) {
	i := 1
	not := i < len(p) && p[i] == '^'
	if not {
		i++
	}
	match := false
	for ; i < len(p) && p[i] != ']'; i++ {
		switch {
		case p[i] == '\\' && i+1 < len(p):
			i++
			match = match || p[i] == c
		case i+2 < len(p) && p[i+1] == '-':
			lo, hi := p[i], p[i+2]
			if signed(lo) > signed(hi) {
				lo, hi = hi, lo
			}
			match = match || signed(lower(lo)) <= signed(lower(c)) && signed(lower(c)) <= signed(lower(hi))
			i += 2
		default:
			match = match || lower(p[i]) == lower(c)
		}
	}
	if i < len(p) {
		i++
	}
	return match != not, i
}

// signed orders bytes as Redis's ranges do, which are of C's signed chars.
func signed(c byte) int8 { return int8(c) }
