package lua

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Register makes a global table of native functions.
func (s *State) Register(name string, funcs map[string]Native) *Table {
	t := NewTable(0, len(funcs))
	s.Globals.Set(name, t)
	AddFunctions(t, funcs)
	return t
}

// AddFunctions puts native functions into a table, in order of name.
func AddFunctions(t *Table, funcs map[string]Native) {
	for _, name := range sortedKeys(funcs) {
		t.Set(name, NewFunction(name, funcs[name]))
	}
}

func arg(args []Value, i int) Value {
	if i < len(args) {
		return args[i]
	}
	return nil
}

// ArgError raises that argument n, from 1, is wrong.
func (t *Thread) ArgError(n int, msg string) {
	name := "?"
	if f := t.frame; f != nil && f.fn.proto != nil && f.site != nil {
		if f.site.method != "" {
			name = f.site.method
			if n--; n == 0 {
				t.Errorf("calling '%s' on bad self (%s)", name, msg)
			}
		} else if d := describe(f.site.fn); d != "" {
			name = strings.Trim(d[strings.IndexByte(d, ' '):], " '")
		}
	}
	t.Errorf("bad argument #%d to '%s' (%s)", n, name, msg)
}

// ArgTypeError raises that argument n is not of a type.
func (t *Thread) ArgTypeError(args []Value, n int, want string) {
	got := "no value"
	if n <= len(args) {
		got = TypeName(args[n-1])
	}
	t.ArgError(n, want+" expected, got "+got)
}

// CheckAny raises an error if there is no argument n.
func (t *Thread) CheckAny(args []Value, n int) Value {
	if n > len(args) {
		t.ArgError(n, "value expected")
	}
	return args[n-1]
}

// CheckTable returns argument n, a table.
func (t *Thread) CheckTable(args []Value, n int) *Table {
	v, ok := arg(args, n-1).(*Table)
	if !ok {
		t.ArgTypeError(args, n, "table")
	}
	return v
}

// CheckString returns argument n, a string or number.
func (t *Thread) CheckString(args []Value, n int) string {
	v, ok := ToString(arg(args, n-1))
	if !ok {
		t.ArgTypeError(args, n, "string")
	}
	return v
}

// CheckNumber returns argument n, a number or a string that holds one.
func (t *Thread) CheckNumber(args []Value, n int) float64 {
	v, ok := ToNumber(arg(args, n-1))
	if !ok {
		t.ArgTypeError(args, n, "number")
	}
	return v
}

// CheckInt is CheckNumber cut to an integer, as C does.
func (t *Thread) CheckInt(args []Value, n int) int64 { return toInt(t.CheckNumber(args, n)) }

// OptInt is CheckInt of an argument that may be missing.
func (t *Thread) OptInt(args []Value, n int, or int64) int64 {
	if arg(args, n-1) == nil {
		return or
	}
	return t.CheckInt(args, n)
}

func (t *Thread) checkFunction(args []Value, n int) *Function {
	v, ok := arg(args, n-1).(*Function)
	if !ok {
		t.ArgTypeError(args, n, "function")
	}
	return v
}

func openBase(s *State) {
	g := s.Globals
	g.Set("_G", g)
	g.Set("_VERSION", "Lua 5.1")
	next := NewFunction("next", baseNext)
	inext := NewFunction("ipairs", func(t *Thread, args []Value) []Value {
		i := t.CheckInt(args, 2) + 1
		tab := t.CheckTable(args, 1)
		if v := tab.Index(int(i)); v != nil {
			return []Value{num(float64(i)), v}
		}
		return []Value{nil}
	})
	AddFunctions(g, map[string]Native{
		"assert": func(t *Thread, args []Value) []Value {
			if !truth(t.CheckAny(args, 1)) {
				msg := "assertion failed!"
				if len(args) > 1 && args[1] != nil {
					msg = t.CheckString(args, 2)
				}
				t.Errorf("%s", msg)
			}
			return args
		},
		"error": func(t *Thread, args []Value) []Value {
			level := int(t.OptInt(args, 2, 1))
			v := arg(args, 0)
			if msg, ok := ToString(v); ok && level > 0 {
				v = t.where(level) + msg
			}
			t.Throw(v)
			return nil
		},
		"pcall": func(t *Thread, args []Value) []Value {
			f := t.CheckAny(args, 1)
			r, err := t.Call(f, args[1:]...)
			if err != nil {
				return []Value{false, err.Value}
			}
			return append([]Value{true}, r...)
		},
		"xpcall": func(t *Thread, args []Value) []Value {
			h := t.CheckAny(args, 2)
			f := args[0]
			r, err := t.Call(f)
			if err == nil {
				return append([]Value{true}, r...)
			}
			r, err = t.Call(h, err.Value)
			if err != nil {
				return []Value{false, err.Value}
			}
			return []Value{false, first(r)}
		},
		"tostring": func(t *Thread, args []Value) []Value { return []Value{t.ToString(t.CheckAny(args, 1))} },
		"tonumber": baseToNumber,
		"type":     func(t *Thread, args []Value) []Value { return []Value{TypeName(t.CheckAny(args, 1))} },
		"select": func(t *Thread, args []Value) []Value {
			if s, ok := arg(args, 0).(string); ok && strings.HasPrefix(s, "#") {
				return []Value{num(float64(len(args) - 1))}
			}
			i := int(t.CheckInt(args, 1))
			if i < 0 {
				i += len(args)
			} else if i > len(args) {
				i = len(args)
			}
			if i < 1 {
				t.ArgError(1, "index out of range")
			}
			return args[i:]
		},
		"unpack": func(t *Thread, args []Value) []Value {
			tab := t.CheckTable(args, 1)
			i := int32(t.OptInt(args, 2, 1))
			e := int32(tab.Len())
			if arg(args, 2) != nil {
				e = int32(t.CheckInt(args, 3))
			}
			if i > e {
				return nil
			}
			n := int64(e) - int64(i) + 1
			if n >= maxValues {
				t.Errorf("too many results to unpack")
			}
			out := make([]Value, n)
			for j := range out {
				out[j] = tab.Index(int(i) + j)
			}
			return out
		},
		"pairs": func(t *Thread, args []Value) []Value { return []Value{next, t.CheckTable(args, 1), nil} },
		"ipairs": func(t *Thread, args []Value) []Value {
			return []Value{inext, t.CheckTable(args, 1), 0.0}
		},
		"rawequal": func(t *Thread, args []Value) []Value {
			b := t.CheckAny(args, 2)
			return []Value{rawEqual(args[0], b)}
		},
		"rawget": func(t *Thread, args []Value) []Value {
			tab := t.CheckTable(args, 1)
			return []Value{tab.Get(t.CheckAny(args, 2))}
		},
		"rawset": func(t *Thread, args []Value) []Value {
			tab := t.CheckTable(args, 1)
			k := t.CheckAny(args, 2)
			t.setRaw(tab, k, t.CheckAny(args, 3))
			return args[:1]
		},
		"getmetatable": func(t *Thread, args []Value) []Value {
			m := t.metatable(t.CheckAny(args, 1))
			if m == nil {
				return []Value{nil}
			}
			if p := m.GetString("__metatable"); p != nil {
				return []Value{p}
			}
			return []Value{m}
		},
		"setmetatable": func(t *Thread, args []Value) []Value {
			tab := t.CheckTable(args, 1)
			m, ok := arg(args, 1).(*Table)
			if !ok && (len(args) < 2 || args[1] != nil) {
				t.ArgError(2, "nil or table expected")
			}
			if tab.meta != nil && tab.meta.GetString("__metatable") != nil {
				t.Errorf("cannot change a protected metatable")
			}
			if tab.readonly {
				t.runError(errReadonly)
			}
			tab.meta = m
			return args[:1]
		},
		"loadstring": func(t *Thread, args []Value) []Value {
			src := t.CheckString(args, 1)
			name := src
			if arg(args, 1) != nil {
				name = t.CheckString(args, 2)
			}
			return t.load(src, name)
		},
		"load": func(t *Thread, args []Value) []Value {
			f := t.checkFunction(args, 1)
			name := "=(load)"
			if arg(args, 1) != nil {
				name = t.CheckString(args, 2)
			}
			var b strings.Builder
			for {
				r, err := t.Call(f)
				if err != nil {
					return []Value{nil, err.Value}
				}
				v := first(r)
				if v == nil {
					break
				}
				s, ok := ToString(v)
				if !ok {
					return []Value{nil, "reader function must return a string"}
				}
				if s == "" {
					break
				}
				t.room(b.Len() + len(s))
				b.WriteString(s)
			}
			return t.load(b.String(), name)
		},
		"collectgarbage": func(t *Thread, args []Value) []Value {
			opt := "collect"
			if arg(args, 0) != nil {
				opt = t.CheckString(args, 1)
			}
			switch opt {
			case "count":
				return []Value{t.S.memory()}
			case "collect", "stop", "restart", "step", "setpause", "setstepmul":
				if opt == "step" {
					return []Value{true}
				}
				return []Value{0.0}
			}
			t.ArgError(1, "invalid option '"+opt+"'")
			return nil
		},
		"gcinfo": func(t *Thread, _ []Value) []Value { return []Value{math.Floor(t.S.memory())} },
	})
	g.Set("next", next)
}

// memory is a count of kilobytes, as scripts see it: what was made lately.
func (s *State) memory() float64 { return 64 + float64(s.Allocated)/1024 }

func (t *Thread) load(src, name string) []Value {
	if strings.HasPrefix(src, "\x1b") {
		return []Value{nil, chunkID(name) + ": bad code"}
	}
	f, err := t.S.Load(src, name)
	if err != nil {
		return []Value{nil, err.Error()}
	}
	t.alloc(10 * len(src))
	return []Value{f}
}

func baseNext(t *Thread, args []Value) []Value {
	tab := t.CheckTable(args, 1)
	k, v, ok := tab.Next(arg(args, 1))
	if !ok {
		t.runError("invalid key to 'next'")
	}
	if k == nil {
		return []Value{nil}
	}
	return []Value{k, v}
}

func baseToNumber(t *Thread, args []Value) []Value {
	base := t.OptInt(args, 2, 10)
	if base == 10 {
		if n, ok := ToNumber(t.CheckAny(args, 1)); ok {
			return []Value{n}
		}
		return []Value{nil}
	}
	s := t.CheckString(args, 1)
	if base < 2 || base > 36 {
		t.ArgError(2, "base out of range")
	}
	// As C's strtoul: a sign, 0x for 16, what is too large is the largest.
	s = strings.Trim(s, spaces)
	neg := strings.HasPrefix(s, "-")
	if neg || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	if base == 16 && len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	n, err := strconv.ParseUint(strings.ReplaceAll(s, "_", "!"), int(base), 64)
	if err != nil && !strings.HasSuffix(err.Error(), strconv.ErrRange.Error()) {
		return []Value{nil}
	}
	if neg && err == nil {
		n = -n
	}
	return []Value{float64(n)}
}

// ToString is Lua's tostring.
func (t *Thread) ToString(v Value) Value {
	if h := t.meta(v, "__tostring"); h != nil {
		return first(t.invokeMeta(h, v))
	}
	switch v := v.(type) {
	case nil:
		return "nil"
	case bool:
		return strconv.FormatBool(v)
	case *Userdata:
		if v == Null {
			return "userdata: (nil)"
		}
	case *Function:
		if v.native != nil {
			return fmt.Sprintf("function: builtin: %p", v)
		}
	}
	if s, ok := ToString(v); ok {
		return s
	}
	return fmt.Sprintf("%s: %p", TypeName(v), v)
}
