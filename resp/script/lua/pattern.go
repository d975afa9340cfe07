package lua

import (
	"bytes"
	"strings"
)

// matcher matches one of Lua's patterns.
type matcher struct {
	t     *Thread
	src   string
	pat   string
	level int
	caps  [maxCaptures]capture
}

const maxCaptures = 32

type capture struct {
	at, n int
}

// Lengths that are none.
const (
	capOpen     = -1
	capPosition = -2
)

func (m *matcher) classEnd(p int) int {
	if p >= len(m.pat) {
		m.t.Errorf("malformed pattern (ends with '%%')")
	}
	c := m.pat[p]
	p++
	switch c {
	case '%':
		if p >= len(m.pat) {
			m.t.Errorf("malformed pattern (ends with '%%')")
		}
		return p + 1
	case '[':
		if p < len(m.pat) && m.pat[p] == '^' {
			p++
		}
		for first := true; first || m.pat[p] != ']'; first = false {
			if p >= len(m.pat) {
				m.t.Errorf("malformed pattern (missing ']')")
			}
			c := m.pat[p]
			p++
			if c == '%' && p < len(m.pat) {
				p++
			}
			if p >= len(m.pat) {
				m.t.Errorf("malformed pattern (missing ']')")
			}
		}
		return p + 1
	}
	return p
}

func isClass(c, class byte) bool {
	var r bool
	switch class | 0x20 {
	case 'a':
		r = isLetter(c)
	case 'c':
		r = c < 32 || c == 127
	case 'd':
		r = isDigit(c)
	case 'l':
		r = 'a' <= c && c <= 'z'
	case 'p':
		r = c > 32 && c < 127 && !isLetter(c) && !isDigit(c)
	case 's':
		r = c == ' ' || 9 <= c && c <= 13
	case 'u':
		r = 'A' <= c && c <= 'Z'
	case 'w':
		r = isLetter(c) || isDigit(c)
	case 'x':
		_, r = hexDigit(c)
	case 'z':
		r = c == 0
	default:
		return class == c
	}
	if !isLetter(class) {
		return class == c
	}
	return r != (class < 'a')
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// inSet matches c against the set from p, its '[', to end, its ']'.
func (m *matcher) inSet(c byte, p, end int) bool {
	yes := true
	p++
	if m.pat[p] == '^' {
		yes = false
		p++
	}
	for ; p < end; p++ {
		switch {
		case m.pat[p] == '%':
			p++
			if isClass(c, m.pat[p]) {
				return yes
			}
		case p+2 < end && m.pat[p+1] == '-':
			if m.pat[p] <= c && c <= m.pat[p+2] {
				return yes
			}
			p += 2
		case m.pat[p] == c:
			return yes
		}
	}
	return !yes
}

func (m *matcher) single(s, p, ep int) bool {
	if s >= len(m.src) {
		return false
	}
	c := m.src[s]
	switch m.pat[p] {
	case '.':
		return true
	case '%':
		return isClass(c, m.pat[p+1])
	case '[':
		return m.inSet(c, p, ep-1)
	}
	return m.pat[p] == c
}

// match returns the end of a match of the pattern from p at s, -1 for none.
func (m *matcher) match(s, p int) int {
	for {
		m.t.tick(1)
		if p >= len(m.pat) {
			return s
		}
		switch m.pat[p] {
		case '(':
			if p+1 < len(m.pat) && m.pat[p+1] == ')' {
				return m.start(s, p+2, capPosition)
			}
			return m.start(s, p+1, capOpen)
		case ')':
			i := m.level - 1
			for ; i >= 0 && m.caps[i].n != capOpen; i-- {
			}
			if i < 0 {
				m.t.Errorf("invalid pattern capture")
			}
			m.caps[i].n = s - m.caps[i].at
			r := m.match(s, p+1)
			if r < 0 {
				m.caps[i].n = capOpen
			}
			return r
		case '$':
			if p+1 == len(m.pat) {
				if s == len(m.src) {
					return s
				}
				return -1
			}
		case '%':
			if p+1 >= len(m.pat) {
				break
			}
			switch c := m.pat[p+1]; {
			case c == 'b':
				if s = m.balance(s, p+2); s < 0 {
					return -1
				}
				p += 4
				continue
			case c == 'f':
				p += 2
				if p >= len(m.pat) || m.pat[p] != '[' {
					m.t.Errorf("missing '[' after '%%f' in pattern")
				}
				ep := m.classEnd(p)
				var before, at byte
				if s > 0 {
					before = m.src[s-1]
				}
				if s < len(m.src) {
					at = m.src[s]
				}
				if m.inSet(before, p, ep-1) || !m.inSet(at, p, ep-1) {
					return -1
				}
				p = ep
				continue
			case isDigit(c):
				if s = m.back(s, c); s < 0 {
					return -1
				}
				p += 2
				continue
			}
		}
		ep := m.classEnd(p)
		var mode byte
		if ep < len(m.pat) {
			mode = m.pat[ep]
		}
		switch mode {
		case '?':
			if m.single(s, p, ep) {
				if r := m.match(s+1, ep+1); r >= 0 {
					return r
				}
			}
			p = ep + 1
		case '*', '+':
			n := 0
			for m.single(s+n, p, ep) {
				n++
			}
			m.t.tick(n / 8)
			least := 0
			if mode == '+' {
				least = 1
			}
			for ; n >= least; n-- {
				if r := m.match(s+n, ep+1); r >= 0 {
					return r
				}
			}
			return -1
		case '-':
			for {
				if r := m.match(s, ep+1); r >= 0 {
					return r
				}
				if !m.single(s, p, ep) {
					return -1
				}
				s++
			}
		default:
			if !m.single(s, p, ep) {
				return -1
			}
			s++
			p = ep
		}
	}
}

func (m *matcher) start(s, p, what int) int {
	if m.level >= maxCaptures {
		m.t.Errorf("too many captures")
	}
	m.caps[m.level] = capture{s, what}
	m.level++
	r := m.match(s, p)
	if r < 0 {
		m.level--
	}
	return r
}

func (m *matcher) balance(s, p int) int {
	if p+1 >= len(m.pat) {
		m.t.Errorf("unbalanced pattern")
	}
	if s >= len(m.src) || m.src[s] != m.pat[p] {
		return -1
	}
	open, end, n := m.pat[p], m.pat[p+1], 1
	for i := s + 1; i < len(m.src); i++ {
		if c := m.src[i]; c == end {
			if n--; n == 0 {
				return i + 1
			}
		} else if c == open {
			n++
		}
	}
	return -1
}

func (m *matcher) back(s int, c byte) int {
	i := int(c) - '1'
	if i < 0 || i >= m.level || m.caps[i].n == capOpen {
		m.t.Errorf("invalid capture index")
	}
	k := m.caps[i]
	if k.n == capPosition {
		m.t.Errorf("unfinished capture")
	}
	if strings.HasPrefix(m.src[s:], m.src[k.at:k.at+k.n]) {
		return s + k.n
	}
	return -1
}

// value returns capture i, or the whole match if the pattern has none.
func (m *matcher) value(i, s, e int) Value {
	if i >= m.level {
		if i > 0 {
			m.t.Errorf("invalid capture index")
		}
		return m.src[s:e]
	}
	k := m.caps[i]
	switch k.n {
	case capOpen:
		m.t.Errorf("unfinished capture")
	case capPosition:
		return num(float64(k.at + 1))
	}
	return m.src[k.at : k.at+k.n]
}

func (m *matcher) values(s, e int, whole bool) []Value {
	n := m.level
	if n == 0 && whole {
		n = 1
	}
	out := make([]Value, n)
	for i := range out {
		out[i] = m.value(i, s, e)
	}
	return out
}

// find carries out string.find and string.match.
func find(t *Thread, args []Value, isFind bool) []Value {
	src, pat := t.CheckString(args, 1), t.CheckString(args, 2)
	init := t.OptInt(args, 3, 1)
	if init < 0 {
		init = max(init+int64(len(src))+1, 0)
	}
	at := int(min(max(init-1, 0), int64(len(src))))
	if isFind && (truth(arg(args, 3)) || !strings.ContainsAny(pat, "^$*+?.([%-")) {
		i := strings.Index(src[at:], pat)
		t.tick((len(src) - at) / 64)
		if i < 0 {
			return []Value{nil}
		}
		return []Value{num(float64(at + i + 1)), num(float64(at + i + len(pat)))}
	}
	anchor := strings.HasPrefix(pat, "^")
	m := matcher{t: t, src: src, pat: strings.TrimPrefix(pat, "^")}
	if !anchor {
		m.pat = pat
	}
	for s := at; s <= len(src); s++ {
		m.level = 0
		if e := m.match(s, 0); e >= 0 {
			if isFind {
				return append([]Value{num(float64(s + 1)), num(float64(e))}, m.values(s, e, false)...)
			}
			return m.values(s, e, true)
		}
		if anchor {
			break
		}
	}
	return []Value{nil}
}

func gmatch(t *Thread, args []Value) []Value {
	src, pat := t.CheckString(args, 1), t.CheckString(args, 2)
	pos := 0
	return []Value{NewFunction("gmatch", func(t *Thread, _ []Value) []Value {
		m := matcher{t: t, src: src, pat: pat}
		for s := pos; s <= len(src); s++ {
			m.level = 0
			if e := m.match(s, 0); e >= 0 {
				pos = e
				if e == s {
					pos++
				}
				return m.values(s, e, true)
			}
		}
		pos = len(src) + 1
		return []Value{nil}
	})}
}

func gsub(t *Thread, args []Value) []Value {
	src, pat := t.CheckString(args, 1), t.CheckString(args, 2)
	repl := arg(args, 2)
	switch repl.(type) {
	case float64, string, *Function, *Table:
	default:
		t.ArgError(3, "string/function/table expected")
	}
	most := t.OptInt(args, 4, int64(len(src)+1))
	anchor := strings.HasPrefix(pat, "^")
	m := matcher{t: t, src: src, pat: pat}
	if anchor {
		m.pat = pat[1:]
	}
	var b []byte
	n, s := 0, 0
	for int64(n) < most {
		m.level = 0
		e := m.match(s, 0)
		if e >= 0 {
			n++
			b = m.replace(b, s, e, repl)
			if len(b) > MaxString {
				t.room(len(b))
			}
		}
		if e > s {
			s = e
		} else if s < len(src) {
			b = append(b, src[s])
			s++
		} else {
			break
		}
		if anchor {
			break
		}
	}
	b = append(b, src[s:]...)
	t.room(len(b))
	return []Value{string(b), num(float64(n))}
}

// replace appends what takes the place of a match.
func (m *matcher) replace(b []byte, s, e int, repl Value) []byte {
	var v Value
	switch r := repl.(type) {
	case *Function:
		v = first(m.t.invoke(r, m.values(s, e, true)))
	case *Table:
		v = m.t.index(r, m.value(0, s, e), nil)
	default:
		text, _ := ToString(repl)
		for {
			i := bytes.IndexByte([]byte(text), '%')
			if i < 0 {
				return append(b, text...)
			}
			b = append(b, text[:i]...)
			text = text[i+1:]
			if text == "" {
				return append(b, 0) // Lua copies the end of its string
			}
			switch c := text[0]; {
			case !isDigit(c):
				b = append(b, c)
			case c == '0':
				b = append(b, m.src[s:e]...)
			default:
				t, _ := ToString(m.value(int(c-'1'), s, e))
				b = append(b, t...)
			}
			text = text[1:]
		}
	}
	if !truth(v) {
		return append(b, m.src[s:e]...)
	}
	text, ok := ToString(v)
	if !ok {
		m.t.Errorf("invalid replacement value (a %s)", TypeName(v))
	}
	return append(b, text...)
}
