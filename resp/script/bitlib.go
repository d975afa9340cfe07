package script

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/replicatord/replicatord/resp/script/lua"
)

// bits returns argument n as 32 bits, as Lua BitOp 1.0.2 does.
func bits(t *lua.Thread, args []lua.Value, n int) uint32 {
	var v lua.Value
	if n <= len(args) {
		v = args[n-1]
	}
	f, ok := lua.ToNumber(v)
	if !ok {
		t.ArgTypeError(args, n, "number")
	}
	return uint32(math.Float64bits(f + 6755399441055744))
}

// openBit makes the bit table.
func openBit() *lua.Table {
	ret := func(b uint32) []lua.Value { return []lua.Value{float64(int32(b))} }
	fold := func(f func(a, b uint32) uint32) lua.Native {
		return func(t *lua.Thread, args []lua.Value) []lua.Value {
			b := bits(t, args, 1)
			for i := len(args); i > 1; i-- {
				b = f(b, bits(t, args, i))
			}
			return ret(b)
		}
	}
	shift := func(f func(b, n uint32) uint32) lua.Native {
		return func(t *lua.Thread, args []lua.Value) []lua.Value {
			b := bits(t, args, 1)
			return ret(f(b, bits(t, args, 2)&31))
		}
	}
	tab := lua.NewTable(0, 0)
	lua.AddFunctions(tab, map[string]lua.Native{
		"tobit":   func(t *lua.Thread, args []lua.Value) []lua.Value { return ret(bits(t, args, 1)) },
		"bnot":    func(t *lua.Thread, args []lua.Value) []lua.Value { return ret(^bits(t, args, 1)) },
		"band":    fold(func(a, b uint32) uint32 { return a & b }),
		"bor":     fold(func(a, b uint32) uint32 { return a | b }),
		"bxor":    fold(func(a, b uint32) uint32 { return a ^ b }),
		"lshift":  shift(func(b, n uint32) uint32 { return b << n }),
		"rshift":  shift(func(b, n uint32) uint32 { return b >> n }),
		"arshift": shift(func(b, n uint32) uint32 { return uint32(int32(b) >> n) }),
		"rol":     shift(func(b, n uint32) uint32 { return b<<n | b>>(32-n) }),
		"ror":     shift(func(b, n uint32) uint32 { return b<<(32-n) | b>>n }),
		"bswap": func(t *lua.Thread, args []lua.Value) []lua.Value {
			b := bits(t, args, 1)
			return ret(b>>24 | b>>8&0xff00 | b&0xff00<<8 | b<<24)
		},
		"tohex": func(t *lua.Thread, args []lua.Value) []lua.Value {
			b, n, digits := bits(t, args, 1), int32(8), "0123456789abcdef"
			if len(args) > 1 {
				n = int32(bits(t, args, 2))
			}
			if n < 0 {
				n, digits = -n, strings.ToUpper(digits)
			}
			if n > 8 || n < 0 {
				n = 8
			}
			out := make([]byte, n)
			for i := n - 1; i >= 0; i-- {
				out[i] = digits[b&15]
				b >>= 4
			}
			return []lua.Value{string(out)}
		},
	})
	return tab
}

// layout is how struct lays values out.
type layout struct {
	t     *lua.Thread
	fmt   string
	pos   int
	big   bool
	align int
}

const (
	maxIntSize  = 32
	nativeAlign = 8
)

// num reads a number in the format, or returns one in its place.
func (l *layout) num(or int) int {
	if l.pos >= len(l.fmt) || l.fmt[l.pos] < '0' || l.fmt[l.pos] > '9' {
		return or
	}
	n := 0
	for l.pos < len(l.fmt) && '0' <= l.fmt[l.pos] && l.fmt[l.pos] <= '9' {
		d := int(l.fmt[l.pos] - '0')
		if n > math.MaxInt32/10 || n*10 > math.MaxInt32-d {
			l.t.Errorf("integral size overflow")
		}
		n = n*10 + d
		l.pos++
	}
	return n
}

// next returns the next option and its size; ok is false at the end.
func (l *layout) next() (opt byte, size int, ok bool) {
	if l.pos >= len(l.fmt) || l.fmt[l.pos] == 0 {
		return 0, 0, false
	}
	opt = l.fmt[l.pos]
	l.pos++
	switch opt {
	case 'B', 'b', 'x':
		size = 1
	case 'H', 'h':
		size = 2
	case 'f':
		size = 4
	case 'L', 'l', 'T', 'd':
		size = 8
	case 'c':
		size = l.num(1)
	case 'i', 'I':
		if size = l.num(4); size > maxIntSize {
			l.t.Errorf("integral size %d is larger than limit of %d", size, maxIntSize)
		}
	}
	return opt, size, true
}

// gap returns how many bytes go ahead of a value at a position.
func (l *layout) gap(at int, opt byte, size int) int {
	if size == 0 || opt == 'c' {
		return 0
	}
	size = min(size, l.align)
	return (size - at&(size-1)) & (size - 1)
}

// control obeys an option that is no value.
func (l *layout) control(opt byte) {
	switch opt {
	case ' ':
	case '>':
		l.big = true
	case '<':
		l.big = false
	case '!':
		a := l.num(nativeAlign)
		if a <= 0 || a&(a-1) != 0 {
			l.t.Errorf("alignment %d is not a power of 2", a)
		}
		l.align = a
	default:
		l.t.ArgError(1, "invalid format option '"+string([]byte{opt})+"'")
	}
}

func (l *layout) order() binary.ByteOrder {
	if l.big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// integer converts as C does: what has no place in 64 bits is their least.
func structInt(f float64) uint64 {
	switch {
	case f < 0 && f >= -(1<<63):
		return uint64(int64(f))
	case f >= 0 && f < 1<<64:
		return uint64(f)
	case f >= 1<<64:
		return 0
	}
	return 1 << 63
}

// openStruct makes the struct table: struct 0.2.
func openStruct() *lua.Table {
	pack := func(t *lua.Thread, args []lua.Value) []lua.Value {
		l := layout{t: t, fmt: t.CheckString(args, 1), align: 1}
		args = append(args, nil) // the mark that C leaves behind them
		var b []byte
		n, total := 2, 0
		for {
			opt, size, ok := l.next()
			if !ok {
				break
			}
			gap := l.gap(total, opt, size)
			total += gap
			b = append(b, make([]byte, gap)...)
			switch opt {
			case 'b', 'B', 'h', 'H', 'l', 'L', 'T', 'i', 'I':
				v := structInt(t.CheckNumber(args, n))
				n++
				at := len(b)
				b = append(b, make([]byte, size)...)
				for i := range size {
					j := at + i
					if l.big {
						j = at + size - 1 - i
					}
					b[j] = byte(v)
					v >>= 8
				}
			case 'x':
				b = append(b, 0)
			case 'f':
				b = append(b, make([]byte, 4)...)
				l.order().PutUint32(b[len(b)-4:], math.Float32bits(float32(t.CheckNumber(args, n))))
				n++
			case 'd':
				b = append(b, make([]byte, 8)...)
				l.order().PutUint64(b[len(b)-8:], math.Float64bits(t.CheckNumber(args, n)))
				n++
			case 'c', 's':
				s := t.CheckString(args, n)
				n++
				if size == 0 {
					size = len(s)
				}
				if len(s) < size {
					t.ArgError(n, "string too short")
				}
				b = append(b, s[:size]...)
				if opt == 's' {
					b = append(b, 0)
					size++
				}
			default:
				l.control(opt)
			}
			total += size
			t.Step(1)
			if len(b) > lua.MaxString {
				t.Room(len(b))
			}
		}
		t.Room(len(b))
		return []lua.Value{string(b)}
	}
	unpack := func(t *lua.Thread, args []lua.Value) []lua.Value {
		l := layout{t: t, fmt: t.CheckString(args, 1), align: 1}
		data := t.CheckString(args, 2)
		at := t.OptInt(args, 3, 1)
		if at == 0 {
			t.ArgError(3, "offset must be 1 or greater")
		}
		if at < 0 || at > int64(len(data))+1 {
			at = int64(len(data)) + 2 // beyond everything
		}
		pos := int(at - 1)
		var out []lua.Value
		fits := func(size int) {
			if size > len(data) || size < 0 || pos > len(data)-size {
				t.ArgError(2, "data string too short")
			}
		}
		for {
			opt, size, ok := l.next()
			if !ok {
				break
			}
			pos += l.gap(pos, opt, size)
			fits(size)
			if len(out) >= lua.MaxNesting-20 {
				t.Errorf("stack overflow (too many results)")
			}
			switch opt {
			case 'b', 'B', 'h', 'H', 'l', 'L', 'T', 'i', 'I':
				var v uint64
				for i := range size {
					j := pos + size - 1 - i
					if l.big {
						j = pos + i
					}
					v = v<<8 | uint64(data[j])
				}
				if opt >= 'a' {
					if size < 8 && size > 0 && v>>(8*size-1)&1 == 1 {
						v |= ^uint64(0) << (8*size - 1)
					}
					out = append(out, float64(int64(v)))
				} else {
					out = append(out, float64(v))
				}
			case 'x':
			case 'f':
				out = append(out, float64(math.Float32frombits(l.order().Uint32([]byte(data[pos:pos+4])))))
			case 'd':
				out = append(out, math.Float64frombits(l.order().Uint64([]byte(data[pos:pos+8]))))
			case 'c':
				if size == 0 {
					var f float64
					ok := len(out) > 0
					if ok {
						f, ok = lua.ToNumber(out[len(out)-1])
					}
					if !ok {
						t.Errorf("format 'c0' needs a previous size")
					}
					out = out[:len(out)-1]
					size = len(data) + 1
					if f >= 0 && f <= float64(len(data)) {
						size = int(f)
					}
					fits(size)
				}
				t.Room(size)
				out = append(out, data[pos:pos+size])
			case 's':
				i := strings.IndexByte(data[pos:], 0)
				if i < 0 {
					t.Errorf("unfinished string in data")
				}
				t.Room(i)
				out = append(out, data[pos:pos+i])
				size = i + 1
			default:
				l.control(opt)
			}
			pos += size
			t.Step(1)
		}
		return append(out, float64(pos+1))
	}
	size := func(t *lua.Thread, args []lua.Value) []lua.Value {
		l := layout{t: t, fmt: t.CheckString(args, 1), align: 1}
		pos := 0
		for {
			opt, size, ok := l.next()
			if !ok {
				return []lua.Value{float64(pos)}
			}
			pos += l.gap(pos, opt, size)
			if opt == 's' {
				t.ArgError(1, "option 's' has no fixed size")
			} else if opt == 'c' && size == 0 {
				t.ArgError(1, "option 'c0' has no fixed size")
			}
			if alnum := '0' <= opt && opt <= '9' || 'a' <= opt|0x20 && opt|0x20 <= 'z'; !alnum {
				l.control(opt)
			}
			pos += size
		}
	}
	tab := lua.NewTable(0, 0)
	lua.AddFunctions(tab, map[string]lua.Native{"pack": pack, "unpack": unpack, "size": size})
	return tab
}
