package script

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/replicatord/replicatord/resp/script/lua"
)

// jsonConfig is what a cjson table's functions share.
type jsonConfig struct {
	sparseConvert bool
	sparseRatio   int
	sparseSafe    int
	encodeDepth   int
	decodeDepth   int
	precision     int
	keepBuffer    bool
	encodeInvalid int // 0: error, 1: as they print, 2: null
	decodeInvalid bool
}

// openJSON makes a cjson table: lua-cjson 2.1.0 as Redis has it.
func openJSON() *lua.Table {
	c := &jsonConfig{sparseRatio: 2, sparseSafe: 10, encodeDepth: 1000, decodeDepth: 1000, precision: 14,
		keepBuffer: true, decodeInvalid: true}
	argc := func(t *lua.Thread, args []lua.Value, n int) {
		if len(args) > n {
			t.ArgError(n+1, "found too many arguments")
		}
	}
	integer := func(t *lua.Thread, args []lua.Value, n int, setting *int, low, high int) lua.Value {
		if n <= len(args) && args[n-1] != nil {
			v := t.CheckInt(args, n)
			if v < int64(low) || v > int64(high) {
				t.ArgError(1, "expected integer between "+strconv.Itoa(low)+" and "+strconv.Itoa(high))
			}
			*setting = int(v)
		}
		return float64(*setting)
	}
	option := func(t *lua.Thread, args []lua.Value, n int, words ...string) (int, bool) {
		if n > len(args) || args[n-1] == nil {
			return 0, false
		}
		if b, ok := args[n-1].(bool); ok {
			if b {
				return 1, true
			}
			return 0, true
		}
		s := t.CheckString(args, n)
		for i, w := range words {
			if s == w {
				return i, true
			}
		}
		t.ArgError(n, "invalid option '"+s+"'")
		return 0, false
	}
	boolean := func(t *lua.Thread, args []lua.Value, n int, setting *bool) lua.Value {
		if i, ok := option(t, args, n, "off", "on"); ok {
			*setting = i == 1
		}
		return *setting
	}
	tab := lua.NewTable(0, 0)
	lua.AddFunctions(tab, map[string]lua.Native{
		"encode": func(t *lua.Thread, args []lua.Value) []lua.Value {
			if len(args) != 1 {
				t.ArgError(1, "expected 1 argument")
			}
			e := jsonEncoder{t: t, c: c}
			e.value(args[0], 0)
			t.Room(len(e.b))
			return []lua.Value{string(e.b)}
		},
		"decode": func(t *lua.Thread, args []lua.Value) []lua.Value {
			if len(args) != 1 {
				t.ArgError(1, "expected 1 argument")
			}
			d := jsonDecoder{t: t, c: c, s: t.CheckString(args, 1)}
			if len(d.s) >= 2 && (d.s[0] == 0 || d.s[1] == 0) {
				t.Errorf("JSON parser does not support UTF-16 or UTF-32")
			}
			d.next()
			v := d.value()
			if d.next(); d.tok != jsonEnd {
				d.fail("the end")
			}
			return []lua.Value{v}
		},
		"encode_sparse_array": func(t *lua.Thread, args []lua.Value) []lua.Value {
			argc(t, args, 3)
			return []lua.Value{boolean(t, args, 1, &c.sparseConvert),
				integer(t, args, 2, &c.sparseRatio, 0, math.MaxInt32), integer(t, args, 3, &c.sparseSafe, 0, math.MaxInt32)}
		},
		"encode_max_depth": func(t *lua.Thread, args []lua.Value) []lua.Value {
			argc(t, args, 1)
			return []lua.Value{integer(t, args, 1, &c.encodeDepth, 1, math.MaxInt32)}
		},
		"decode_max_depth": func(t *lua.Thread, args []lua.Value) []lua.Value {
			argc(t, args, 1)
			return []lua.Value{integer(t, args, 1, &c.decodeDepth, 1, math.MaxInt32)}
		},
		"encode_number_precision": func(t *lua.Thread, args []lua.Value) []lua.Value {
			argc(t, args, 1)
			return []lua.Value{integer(t, args, 1, &c.precision, 1, 14)}
		},
		"encode_keep_buffer": func(t *lua.Thread, args []lua.Value) []lua.Value {
			argc(t, args, 1)
			return []lua.Value{boolean(t, args, 1, &c.keepBuffer)}
		},
		"encode_invalid_numbers": func(t *lua.Thread, args []lua.Value) []lua.Value {
			argc(t, args, 1)
			if i, ok := option(t, args, 1, "off", "on", "null"); ok {
				c.encodeInvalid = i
			}
			if c.encodeInvalid == 2 {
				return []lua.Value{"null"}
			}
			return []lua.Value{c.encodeInvalid == 1}
		},
		"decode_invalid_numbers": func(t *lua.Thread, args []lua.Value) []lua.Value {
			argc(t, args, 1)
			return []lua.Value{boolean(t, args, 1, &c.decodeInvalid)}
		},
		"new": func(*lua.Thread, []lua.Value) []lua.Value { return []lua.Value{openJSON()} },
	})
	tab.Set("null", lua.Null)
	tab.Set("_NAME", "cjson")
	tab.Set("_VERSION", "2.1.0")
	return tab
}

type jsonEncoder struct {
	t *lua.Thread
	c *jsonConfig
	b []byte
}

func (e *jsonEncoder) exception(v lua.Value, why string) {
	e.t.Errorf("Cannot serialise %s: %s", lua.TypeName(v), why)
}

var jsonEscapes = func() (esc [256]string) {
	const hex = "0123456789abcdef"
	for i := range 32 {
		esc[i] = `\u00` + string(hex[i>>4]) + string(hex[i&15])
	}
	esc[127] = `\u007f`
	for c, s := range map[byte]string{'\b': `\b`, '\t': `\t`, '\n': `\n`, '\f': `\f`, '\r': `\r`, '"': `\"`, '/': `\/`, '\\': `\\`} {
		esc[c] = s
	}
	return
}()

func (e *jsonEncoder) string(s string) {
	e.b = append(e.b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		if esc := jsonEscapes[s[i]]; esc != "" {
			e.b = append(append(e.b, s[from:i]...), esc...)
			from = i + 1
		}
	}
	e.b = append(append(e.b, s[from:]...), '"')
}

func (e *jsonEncoder) number(f float64) {
	if math.IsInf(f, 0) || f != f {
		switch {
		case e.c.encodeInvalid == 0:
			e.exception(f, "must not be NaN or Inf")
		case e.c.encodeInvalid == 2:
			e.b = append(e.b, "null"...)
			return
		case f != f:
			e.b = append(e.b, "nan"...)
			return
		}
	}
	e.b = append(e.b, lua.FormatNumber(f, e.c.precision)...)
}

func (e *jsonEncoder) value(v lua.Value, depth int) {
	e.t.Step(1)
	if len(e.b) > lua.MaxString {
		e.t.Room(len(e.b))
	}
	switch x := v.(type) {
	case nil:
		e.b = append(e.b, "null"...)
	case bool:
		e.b = strconv.AppendBool(e.b, x)
	case float64:
		e.number(x)
	case string:
		e.string(x)
	case *lua.Table:
		if depth++; depth > e.c.encodeDepth || depth > lua.MaxNesting/3 {
			e.t.Errorf("Cannot serialise, excessive nesting (%d)", depth)
		}
		if n := e.arrayLen(x); n > 0 {
			for i := 1; i <= n; i++ {
				e.b = append(e.b, "[,"[min(i-1, 1)])
				e.value(x.Index(i), depth)
			}
			e.b = append(e.b, ']')
		} else {
			e.object(x, depth)
		}
	default:
		if v == lua.Null {
			e.b = append(e.b, "null"...)
			return
		}
		e.exception(v, "type not supported")
	}
}

func (e *jsonEncoder) object(t *lua.Table, depth int) {
	sep := byte('{')
	for k, v, _ := t.Next(nil); k != nil; k, v, _ = t.Next(k) {
		e.b = append(e.b, sep)
		sep = ','
		switch key := k.(type) {
		case float64:
			e.b = append(e.b, '"')
			e.number(key)
			e.b = append(e.b, '"')
		case string:
			e.string(key)
		default:
			e.exception(k, "table key must be a number or string")
		}
		e.b = append(e.b, ':')
		e.value(v, depth)
	}
	if sep == '{' {
		e.b = append(e.b, sep)
	}
	e.b = append(e.b, '}')
}

// arrayLen returns the size of a table that is an array, -1 for others.
func (e *jsonEncoder) arrayLen(t *lua.Table) int {
	most, items := 0.0, 0
	for k, _, _ := t.Next(nil); k != nil; k, _, _ = t.Next(k) {
		f, ok := k.(float64)
		if !ok || f != math.Floor(f) || f < 1 {
			return -1
		}
		most = math.Max(most, f)
		items++
		e.t.Step(1)
	}
	if most > math.MaxInt32 {
		most = math.MinInt32 // as C cuts it
	}
	if e.c.sparseRatio > 0 && most > float64(items*e.c.sparseRatio) && most > float64(e.c.sparseSafe) {
		if !e.c.sparseConvert {
			e.exception(t, "excessively sparse array")
		}
		return -1
	}
	return int(most)
}

// jsonToken is a kind of token, named as messages name it.
type jsonToken string

const (
	jsonObject    jsonToken = "T_OBJ_BEGIN"
	jsonObjectEnd jsonToken = "T_OBJ_END"
	jsonArray     jsonToken = "T_ARR_BEGIN"
	jsonArrayEnd  jsonToken = "T_ARR_END"
	jsonString    jsonToken = "T_STRING"
	jsonNumber    jsonToken = "T_NUMBER"
	jsonBoolean   jsonToken = "T_BOOLEAN"
	jsonNull      jsonToken = "T_NULL"
	jsonColon     jsonToken = "T_COLON"
	jsonComma     jsonToken = "T_COMMA"
	jsonEnd       jsonToken = "T_END"
)

type jsonDecoder struct {
	t     *lua.Thread
	c     *jsonConfig
	s     string
	pos   int
	depth int
	tok   jsonToken // or what is wrong
	at    int
	val   lua.Value
}

func (d *jsonDecoder) byte(i int) byte {
	if i < len(d.s) {
		return d.s[i]
	}
	return 0
}

func (d *jsonDecoder) bad(why string) { d.tok, d.at = jsonToken(why), d.pos }

func (d *jsonDecoder) next() {
	d.t.Step(1)
	for c := d.byte(d.pos); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = d.byte(d.pos) {
		d.pos++
	}
	d.at = d.pos
	c := d.byte(d.pos)
	switch c {
	case '{', '}', '[', ']', ':', ',':
		d.tok = map[byte]jsonToken{'{': jsonObject, '}': jsonObjectEnd, '[': jsonArray, ']': jsonArrayEnd, ':': jsonColon, ',': jsonComma}[c]
		d.pos++
		return
	case 0:
		d.tok = jsonEnd
		return
	case '"':
		d.string()
		return
	}
	rest := d.s[d.pos:]
	switch {
	case c == '-' || '0' <= c && c <= '9':
		if !d.c.decodeInvalid && d.invalid() {
			d.bad("invalid number")
			return
		}
		d.number()
	case strings.HasPrefix(rest, "true"):
		d.tok, d.val = jsonBoolean, true
		d.pos += 4
	case strings.HasPrefix(rest, "false"):
		d.tok, d.val = jsonBoolean, false
		d.pos += 5
	case strings.HasPrefix(rest, "null"):
		d.tok, d.val = jsonNull, lua.Null
		d.pos += 4
	case strings.IndexByte("+iInN", c) >= 0 && d.c.decodeInvalid && d.invalid():
		d.number()
	default:
		d.bad("invalid token")
	}
}

// invalid reports whether what follows is a number to C and not to JSON.
func (d *jsonDecoder) invalid() bool {
	p := d.pos
	if d.byte(p) == '+' {
		return true
	}
	if d.byte(p) == '-' {
		p++
	}
	if c := d.byte(p); c == '0' {
		n := d.byte(p + 1)
		return n|0x20 == 'x' || '0' <= n && n <= '9'
	} else if c <= '9' {
		return false
	}
	word := strings.ToLower(d.s[p:min(p+3, len(d.s))])
	return word == "inf" || word == "nan"
}

func (d *jsonDecoder) number() {
	f, n := lua.ScanNumber(d.s[d.pos:])
	if n == 0 {
		d.bad("invalid number")
		return
	}
	d.tok, d.val = jsonNumber, f
	d.pos += n
}

func (d *jsonDecoder) string() {
	d.pos++
	from := d.pos
	var b []byte
	for {
		c := d.byte(d.pos)
		switch c {
		case '"':
			d.tok = jsonString
			if b == nil {
				d.val = d.s[from:d.pos]
			} else {
				d.val = string(b)
			}
			d.pos++
			d.t.Room(len(d.val.(string)))
			return
		case 0:
			d.bad("unexpected end of string")
			return
		case '\\':
			if b == nil {
				b = append(make([]byte, 0, 2*(d.pos-from)+16), d.s[from:d.pos]...)
			}
			e := d.byte(d.pos + 1)
			if e == 'u' {
				r, n := d.unicode()
				if n == 0 {
					d.bad("invalid unicode escape code")
					return
				}
				b = appendCodePoint(b, r)
				d.pos += n
				continue
			}
			i := strings.IndexByte(`"\/btnfr`, e)
			if i < 0 || e == 0 {
				d.bad("invalid escape code")
				return
			}
			b = append(b, "\"\\/\b\t\n\f\r"[i])
			d.pos += 2
		default:
			if b != nil {
				b = append(b, c)
			}
			d.pos++
		}
	}
}

func (d *jsonDecoder) hex4(i int) rune {
	if i+4 > len(d.s) {
		return -1
	}
	n, err := strconv.ParseUint(d.s[i:i+4], 16, 32)
	if err != nil {
		return -1
	}
	return rune(n)
}

// unicode reads an escape, of two parts perhaps, and returns how long it is.
func (d *jsonDecoder) unicode() (rune, int) {
	r := d.hex4(d.pos + 2)
	switch {
	case r < 0:
		return 0, 0
	case r&0xf800 != 0xd800:
		return r, 6
	case r&0x400 != 0 || d.byte(d.pos+6) != '\\' || d.byte(d.pos+7) != 'u':
		return 0, 0
	}
	low := d.hex4(d.pos + 8)
	if low < 0 || low&0xfc00 != 0xdc00 {
		return 0, 0
	}
	return (r&0x3ff)<<10 + low&0x3ff + 0x10000, 12
}

func appendCodePoint(b []byte, r rune) []byte { return utf8.AppendRune(b, r) }

func (d *jsonDecoder) fail(want string) {
	d.t.Errorf("Expected %s but found %s at character %d", want, string(d.tok), d.at+1)
}

func (d *jsonDecoder) descend() {
	if d.depth++; d.depth > d.c.decodeDepth || d.depth > lua.MaxNesting/3 {
		d.t.Errorf("Found too many nested data structures (%d) at character %d", d.depth, d.pos)
	}
}

func (d *jsonDecoder) value() lua.Value {
	switch d.tok {
	case jsonString, jsonNumber, jsonBoolean, jsonNull:
		return d.val
	case jsonObject:
		d.descend()
		t := lua.NewTable(0, 0)
		d.t.Room(64)
		for d.next(); d.tok != jsonObjectEnd || t == nil; {
			if d.tok != jsonString {
				d.fail("object key string")
			}
			key := d.val
			if d.next(); d.tok != jsonColon {
				d.fail("colon")
			}
			d.next()
			t.Set(key, d.value())
			d.t.Room(40)
			if d.next(); d.tok == jsonObjectEnd {
				break
			}
			if d.tok != jsonComma {
				d.fail("comma or object end")
			}
			if d.next(); d.tok == jsonObjectEnd {
				d.fail("object key string")
			}
		}
		d.depth--
		return t
	case jsonArray:
		d.descend()
		t := lua.NewTable(0, 0)
		d.t.Room(64)
		d.next()
		if d.tok != jsonArrayEnd {
			for i := 1; ; i++ {
				t.Set(float64(i), d.value())
				d.t.Room(16)
				if d.next(); d.tok == jsonArrayEnd {
					break
				}
				if d.tok != jsonComma {
					d.fail("comma or array end")
				}
				d.next()
			}
		}
		d.depth--
		return t
	}
	d.fail("value")
	return nil
}
