package lua

import (
	"fmt"
	"strings"
)

// token is the kind of a token: a character of its own, or one of these.
type token int

const (
	tEOF token = iota + 256
	tNumber
	tString
	tName
	tConcat // ..
	tDots   // ...
	tEq
	tGE
	tLE
	tNE
	tAnd
	tBreak
	tDo
	tElse
	tElseif
	tEnd
	tFalse
	tFor
	tFunction
	tIf
	tIn
	tLocal
	tNil
	tNot
	tOr
	tRepeat
	tReturn
	tThen
	tTrue
	tUntil
	tWhile
)

var tokenNames = map[token]string{
	tEOF: "<eof>", tNumber: "<number>", tString: "<string>", tName: "<name>", tConcat: "..", tDots: "...",
	tEq: "==", tGE: ">=", tLE: "<=", tNE: "~=", tAnd: "and", tBreak: "break", tDo: "do", tElse: "else",
	tElseif: "elseif", tEnd: "end", tFalse: "false", tFor: "for", tFunction: "function", tIf: "if", tIn: "in",
	tLocal: "local", tNil: "nil", tNot: "not", tOr: "or", tRepeat: "repeat", tReturn: "return", tThen: "then",
	tTrue: "true", tUntil: "until", tWhile: "while",
}

var keywords = func() map[string]token {
	m := map[string]token{}
	for t := tAnd; t <= tWhile; t++ {
		m[tokenNames[t]] = t
	}
	return m
}()

func (t token) String() string {
	if s, ok := tokenNames[t]; ok {
		return s
	}
	if t < 32 || t == 127 {
		return fmt.Sprintf("char(%d)", int(t))
	}
	return string([]byte{byte(t)})
}

// lexer cuts a chunk into tokens.
type lexer struct {
	src   string
	chunk string // as messages show it
	pos   int
	line  int // of the position
	last  int // of the last token consumed

	tok   token
	str   string // of a name or string
	num   float64
	start int // of the token
	ahead *lexer
}

// syntaxError is a panic of lexer and parser.
type syntaxError string

func (l *lexer) fail(msg, near string) {
	s := fmt.Sprintf("%s:%d: %s", l.chunk, l.line, msg)
	if near != "" {
		s += " near '" + near + "'"
	}
	panic(syntaxError(s))
}

// text is the present token as messages show it.
func (l *lexer) text() string {
	switch l.tok {
	case tNumber, tString, tName:
		return cString(l.src[l.start:l.pos])
	}
	return l.tok.String()
}

// cString cuts a string where C's formats would.
func cString(s string) string {
	if i := strings.IndexByte(s, 0); i >= 0 {
		return s[:i]
	}
	return s
}

// next reads the next token.
func (l *lexer) next() {
	l.last = l.line
	if a := l.ahead; a != nil {
		last := l.last
		*l = *a
		l.last, l.ahead = last, nil
		return
	}
	l.tok = l.scan()
}

// peek returns the token after the present one.
func (l *lexer) peek() token {
	a := *l
	a.tok = a.scan()
	l.ahead = &a
	return a.tok
}

func (l *lexer) at(i int) byte {
	if l.pos+i < len(l.src) {
		return l.src[l.pos+i]
	}
	return 0
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// newline skips a line end of one or two characters.
func (l *lexer) newline() {
	c := l.at(0)
	l.pos++
	if d := l.at(0); l.pos < len(l.src) && (d == '\n' || d == '\r') && d != c {
		l.pos++
	}
	l.line++
}

func (l *lexer) scan() token {
	for l.pos < len(l.src) {
		l.start = l.pos
		switch c := l.src[l.pos]; {
		case c == '\n' || c == '\r':
			l.newline()
		case c == ' ' || c == '\t' || c == '\v' || c == '\f':
			l.pos++
		case c == '-':
			if l.at(1) != '-' {
				l.pos++
				return '-'
			}
			l.pos += 2
			if l.at(0) == '[' {
				if n := l.level(); n >= 0 {
					l.long(n, "comment")
					continue
				}
			}
			for l.pos < len(l.src) && l.src[l.pos] != '\n' && l.src[l.pos] != '\r' {
				l.pos++
			}
		case c == '[':
			if n := l.level(); n >= 0 {
				l.str = l.long(n, "string")
				return tString
			} else if n == -1 {
				l.pos++
				return '['
			}
			l.fail("invalid long string delimiter", l.src[l.start:min(l.pos+1, len(l.src))])
		case c == '=' && l.at(1) == '=':
			l.pos += 2
			return tEq
		case c == '<' && l.at(1) == '=':
			l.pos += 2
			return tLE
		case c == '>' && l.at(1) == '=':
			l.pos += 2
			return tGE
		case c == '~' && l.at(1) == '=':
			l.pos += 2
			return tNE
		case c == '"' || c == '\'':
			l.quoted(c)
			return tString
		case c == '.' && !isDigit(l.at(1)):
			n := 1
			for n < 3 && l.at(n) == '.' {
				n++
			}
			l.pos += n
			return [...]token{'.', tConcat, tDots}[n-1]
		case isDigit(c) || c == '.':
			l.number()
			return tNumber
		case isAlpha(c):
			for l.pos < len(l.src) && (isAlpha(l.src[l.pos]) || isDigit(l.src[l.pos])) {
				l.pos++
			}
			l.str = l.src[l.start:l.pos]
			if t, ok := keywords[l.str]; ok {
				return t
			}
			return tName
		default:
			l.pos++
			return token(c)
		}
	}
	l.start = l.pos
	return tEOF
}

// level returns how many = a long bracket at the position has; -1 if it is a
// bracket alone, -2 if it is neither.
func (l *lexer) level() int {
	n := 0
	for l.at(1+n) == '=' {
		n++
	}
	switch {
	case l.at(1+n) == '[':
		return n
	case n == 0:
		return -1
	}
	return -2
}

// long reads a long string or comment with n =.
func (l *lexer) long(n int, what string) string {
	l.pos += n + 2
	if c := l.at(0); l.pos < len(l.src) && (c == '\n' || c == '\r') {
		l.newline()
	}
	end := "]" + strings.Repeat("=", n) + "]"
	var b []byte
	for l.pos < len(l.src) {
		switch c := l.src[l.pos]; {
		case c == ']' && strings.HasPrefix(l.src[l.pos:], end):
			l.pos += len(end)
			return string(b)
		case c == '[' && n == 0 && l.at(1) == '[':
			l.fail("nesting of [[...]] is deprecated", "[")
		case c == '\n' || c == '\r':
			l.newline()
			b = append(b, '\n')
		default:
			b = append(b, c)
			l.pos++
		}
	}
	l.fail("unfinished long "+what, "<eof>")
	return ""
}

func (l *lexer) quoted(q byte) {
	l.pos++
	var b []byte
	for {
		if l.pos >= len(l.src) {
			l.fail("unfinished string", "<eof>")
		}
		c := l.src[l.pos]
		switch {
		case c == q:
			l.pos++
			l.str = string(b)
			return
		case c == '\n' || c == '\r':
			l.fail("unfinished string", cString(string(q)+string(b)))
		case c != '\\':
			b = append(b, c)
			l.pos++
			continue
		}
		l.pos++
		if l.pos >= len(l.src) {
			continue
		}
		switch c := l.src[l.pos]; {
		case c == '\n' || c == '\r':
			l.newline()
			b = append(b, '\n')
		case isDigit(c):
			n := 0
			for i := 0; i < 3 && isDigit(l.at(0)); i++ {
				n = n*10 + int(l.at(0)-'0')
				l.pos++
			}
			if n > 255 {
				l.fail("escape sequence too large", cString(string(q)+string(b)))
			}
			b = append(b, byte(n))
		default:
			if i := strings.IndexByte("abfnrtv", c); i >= 0 {
				c = "\a\b\f\n\r\t\v"[i]
			}
			b = append(b, c)
			l.pos++
		}
	}
}

func (l *lexer) number() {
	for isDigit(l.at(0)) || l.at(0) == '.' {
		l.pos++
	}
	if l.at(0)|0x20 == 'e' {
		l.pos++
		if l.at(0) == '+' || l.at(0) == '-' {
			l.pos++
		}
	}
	for isAlpha(l.at(0)) || isDigit(l.at(0)) {
		l.pos++
	}
	var ok bool
	if l.num, ok = ParseNumber(l.src[l.start:l.pos]); !ok {
		l.fail("malformed number", l.src[l.start:l.pos])
	}
}
