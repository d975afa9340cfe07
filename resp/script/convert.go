package script

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/resp/script/lua"
)

// fromReply makes a Lua value of a raw RESP reply. Replies are the node's own
// and well formed.
func fromReply(t *lua.Thread, b []byte) lua.Value {
	v, _ := readReply(t, b)
	return v
}

// errorCounted is the field that marks an error of a command, as Redis has it.
const errorCounted = "ignore_error_stats_update"

func single(key string, v lua.Value) *lua.Table {
	t := lua.NewTable(0, 0)
	t.Set(key, v)
	return t
}

func readReply(t *lua.Thread, b []byte) (lua.Value, []byte) {
	i := bytes.IndexByte(b, '\r')
	if i < 1 || i+2 > len(b) {
		t.Errorf("bad reply of a command")
	}
	kind, line, rest := b[0], b[1:i], b[i+2:]
	length := func() int {
		n, err := strconv.Atoi(string(line))
		if err != nil || n > len(rest) {
			t.Errorf("bad reply of a command")
		}
		return n
	}
	bulk := func() (string, bool) {
		n := length()
		if n < 0 {
			return "", false
		}
		if n+2 > len(rest) {
			t.Errorf("bad reply of a command")
		}
		t.Room(n)
		s := string(rest[:n])
		rest = rest[n+2:]
		return s, true
	}
	switch kind {
	case ':':
		n, _ := strconv.ParseInt(string(line), 10, 64)
		return float64(n), rest
	case '+':
		return single("ok", string(line)), rest
	case '-':
		e := errorTable("-" + string(line))
		e.Set(errorCounted, true)
		return e, rest
	case '$':
		s, ok := bulk()
		if !ok {
			return false, rest
		}
		return s, rest
	case '*', '~', '>':
		n := length()
		if n < 0 {
			return false, rest
		}
		tab := lua.NewTable(0, 0)
		t.Room(16 * n)
		for i := 1; i <= n; i++ {
			var v lua.Value
			if v, rest = readReply(t, rest); kind == '~' {
				tab.Set(v, true)
			} else {
				tab.Set(float64(i), v)
			}
		}
		if kind == '~' {
			return single("set", tab), rest
		}
		return tab, rest
	case '%':
		n := length()
		tab := lua.NewTable(0, 0)
		t.Room(40 * n)
		for range n {
			var k, v lua.Value
			k, rest = readReply(t, rest)
			v, rest = readReply(t, rest)
			tab.Set(k, v)
		}
		return single("map", tab), rest
	case '|': // attributes, which scripts do not get to see
		for range 2 * length() {
			_, rest = readReply(t, rest)
		}
		return readReply(t, rest)
	case '_':
		return nil, rest
	case '#':
		return string(line) == "t", rest
	case ',':
		f, _ := lua.ParseNumber(string(line))
		return single("double", f), rest
	case '(':
		return single("big_number", string(line)), rest
	case '=':
		s, _ := bulk()
		v := lua.NewTable(0, 0)
		v.Set("string", s[min(4, len(s)):])
		v.Set("format", s[:min(3, len(s))])
		return single("verbatim_string", v), rest
	}
	t.Errorf("bad reply of a command")
	return nil, nil
}

// errorTable makes the table that stands for an error: its message, or with a
// dash ahead an error reply whose first word is its code.
func errorTable(msg string) *lua.Table {
	code := "ERR"
	if s, ok := strings.CutPrefix(msg, "-"); ok {
		msg = s
		if before, after, ok := strings.Cut(s, " "); ok {
			code, msg = before, after
		}
	}
	return single("err", code+" "+strings.Trim(msg, "\r\n"))
}

// encoder makes replies of Lua values.
type encoder struct {
	proto  int // the client's
	script int // what the script has chosen by setresp
	b      []byte
}

func (e *encoder) line(kind byte, s string) {
	e.b = append(append(append(e.b, kind), s...), "\r\n"...)
}

func (e *encoder) bulk(s string) {
	e.line('$', strconv.Itoa(len(s)))
	e.b = append(append(e.b, s...), "\r\n"...)
}

func (e *encoder) null() {
	if e.proto == 3 {
		e.b = append(e.b, "_\r\n"...)
	} else {
		e.b = append(e.b, "$-1\r\n"...)
	}
}

func (e *encoder) boolean(v bool) {
	switch {
	case e.script == 2 && v:
		e.b = append(e.b, ":1\r\n"...)
	case e.script == 2:
		e.null()
	case e.proto == 3 && v:
		e.b = append(e.b, "#t\r\n"...)
	case e.proto == 3:
		e.b = append(e.b, "#f\r\n"...)
	case v:
		e.b = append(e.b, ":1\r\n"...)
	default:
		e.b = append(e.b, ":0\r\n"...)
	}
}

// head begins an aggregate of n elements, or pairs for a map.
func (e *encoder) head(kind byte, n int) {
	if e.proto != 3 && kind != '*' {
		if kind == '%' {
			n *= 2
		}
		kind = '*'
	}
	e.line(kind, strconv.Itoa(n))
}

var toLine = strings.NewReplacer("\r", " ", "\n", " ")

// errorReply is an error as one line.
func (e *encoder) errorReply(msg string) { e.line('-', toLine.Replace(strings.TrimRight(msg, "\r\n"))) }

// maxReplyDepth is how deep tables in a reply may be within each other: Redis
// has room for so many on Lua's stack.
const maxReplyDepth = lua.MaxNesting / 2

func (e *encoder) value(v lua.Value, depth int) {
	if depth > maxReplyDepth {
		e.errorReply("ERR reached lua stack limit")
		return
	}
	switch x := v.(type) {
	case string:
		e.bulk(x)
	case bool:
		e.boolean(x)
	case float64:
		n := int64(math.MinInt64)
		if x >= -(1<<63) && x < 1<<63 {
			n = int64(x)
		}
		e.line(':', strconv.FormatInt(n, 10))
	case *lua.Table:
		e.table(x, depth)
	default:
		e.null()
	}
}

// text is a field that is a string, or a number where C takes that for one.
func text(t *lua.Table, key string) (string, bool) {
	s, ok := t.GetString(key).(string)
	return s, ok
}

func (e *encoder) table(t *lua.Table, depth int) {
	if s, ok := text(t, "err"); ok {
		e.errorReply(s)
		return
	}
	if s, ok := text(t, "ok"); ok {
		e.line('+', toLine.Replace(s))
		return
	}
	if f, ok := t.GetString("double").(float64); ok {
		s := lua.FormatNumber(f, 17)
		if e.proto == 3 {
			e.line(',', s)
		} else {
			e.bulk(s)
		}
		return
	}
	if s, ok := text(t, "big_number"); ok {
		s = toLine.Replace(s)
		if e.proto == 3 {
			e.line('(', s)
		} else {
			e.bulk(s)
		}
		return
	}
	if v, ok := t.GetString("verbatim_string").(*lua.Table); ok {
		format, ok1 := text(v, "format")
		s, ok2 := text(v, "string")
		if ok1 && ok2 {
			if e.proto == 3 {
				format = (format + "   ")[:3]
				e.line('=', strconv.Itoa(len(s)+4))
				e.b = append(append(append(append(e.b, format...), ':'), s...), "\r\n"...)
			} else {
				e.bulk(s)
			}
			return
		}
	}
	if m, ok := t.GetString("map").(*lua.Table); ok {
		n := 0
		for k, _, _ := m.Next(nil); k != nil; k, _, _ = m.Next(k) {
			n++
		}
		e.head('%', n)
		for k, v, _ := m.Next(nil); k != nil; k, v, _ = m.Next(k) {
			e.value(k, depth+1)
			e.value(v, depth+1)
		}
		return
	}
	if m, ok := t.GetString("set").(*lua.Table); ok {
		n := 0
		for k, _, _ := m.Next(nil); k != nil; k, _, _ = m.Next(k) {
			n++
		}
		e.head('~', n)
		for k, _, _ := m.Next(nil); k != nil; k, _, _ = m.Next(k) {
			e.value(k, depth+1)
		}
		return
	}
	n := 0
	for t.Index(n+1) != nil {
		n++
	}
	e.head('*', n)
	for i := 1; i <= n; i++ {
		e.value(t.Index(i), depth+1)
	}
}
