package script

import (
	"encoding/binary"
	"math"

	"github.com/replicatord/replicatord/resp/script/lua"
)

// maxPackNesting is how deep tables are packed; what is deeper is nil.
const maxPackNesting = 16

// openMsgpack makes the cmsgpack table: lua-cmsgpack 0.4.0.
func openMsgpack() *lua.Table {
	unpack := func(t *lua.Thread, args []lua.Value, limit, offset int64) []lua.Value {
		s := t.CheckString(args, 1)
		all := limit == 0 && offset == 0
		switch {
		case offset < 0 || limit < 0:
			t.Errorf("Invalid request to unpack with offset of %d and limit of %d.", int32(offset), len(s))
		case offset > int64(len(s)):
			t.Errorf("Start offset %d greater than input length %d.", int32(offset), len(s))
		}
		if all {
			limit = math.MaxInt32
		}
		u := unpacker{t: t, s: s, pos: int(offset)}
		var out []lua.Value
		for n := int64(0); u.pos < len(s) && n < limit; n++ {
			if len(out) >= lua.MaxNesting-20 {
				t.Errorf("stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)")
			}
			out = append(out, u.value(0))
		}
		if all {
			return out
		}
		next := float64(u.pos)
		if u.pos == len(s) {
			next = -1
		}
		return append([]lua.Value{next}, out...)
	}
	tab := lua.NewTable(0, 0)
	lua.AddFunctions(tab, map[string]lua.Native{
		"pack": func(t *lua.Thread, args []lua.Value) []lua.Value {
			if len(args) == 0 {
				t.ArgError(0, "MessagePack pack needs input.")
			}
			p := packer{t: t}
			for _, v := range args {
				p.value(v, 0)
			}
			t.Room(len(p.b))
			return []lua.Value{string(p.b)}
		},
		"unpack": func(t *lua.Thread, args []lua.Value) []lua.Value { return unpack(t, args, 0, 0) },
		"unpack_one": func(t *lua.Thread, args []lua.Value) []lua.Value {
			return unpack(t, args, 1, t.OptInt(args, 2, 0))
		},
		"unpack_limit": func(t *lua.Thread, args []lua.Value) []lua.Value {
			limit := t.CheckInt(args, 2)
			return unpack(t, args, limit, t.OptInt(args, 3, 0))
		},
	})
	tab.Set("_NAME", "cmsgpack")
	tab.Set("_VERSION", "lua-cmsgpack 0.4.0")
	tab.Set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")
	tab.Set("_DESCRIPTION", "MessagePack C implementation for Lua")
	return tab
}

type packer struct {
	t *lua.Thread
	b []byte
}

func (p *packer) head(n int, fix byte, fixMax int, b8, b16, b32 byte) {
	switch {
	case n <= fixMax:
		p.b = append(p.b, fix|byte(n))
	case n <= 0xff && b8 != 0:
		p.b = append(p.b, b8, byte(n))
	case n <= 0xffff:
		p.b = binary.BigEndian.AppendUint16(append(p.b, b16), uint16(n))
	default:
		p.b = binary.BigEndian.AppendUint32(append(p.b, b32), uint32(n))
	}
}

func (p *packer) number(f float64) {
	if i := int64(f); f >= -(1<<63) && f < 1<<63 && float64(i) == f {
		p.integer(i)
		return
	}
	if g := float32(f); float64(g) == f {
		p.b = binary.BigEndian.AppendUint32(append(p.b, 0xca), math.Float32bits(g))
		return
	}
	p.b = binary.BigEndian.AppendUint64(append(p.b, 0xcb), math.Float64bits(f))
}

func (p *packer) integer(n int64) {
	switch {
	case n >= -32 && n <= 127:
		p.b = append(p.b, byte(n))
	case n >= 0 && n <= 0xff:
		p.b = append(p.b, 0xcc, byte(n))
	case n >= 0 && n <= 0xffff:
		p.b = binary.BigEndian.AppendUint16(append(p.b, 0xcd), uint16(n))
	case n >= 0 && n <= 0xffffffff:
		p.b = binary.BigEndian.AppendUint32(append(p.b, 0xce), uint32(n))
	case n >= 0:
		p.b = binary.BigEndian.AppendUint64(append(p.b, 0xcf), uint64(n))
	case n >= math.MinInt8:
		p.b = append(p.b, 0xd0, byte(n))
	case n >= math.MinInt16:
		p.b = binary.BigEndian.AppendUint16(append(p.b, 0xd1), uint16(n))
	case n >= math.MinInt32:
		p.b = binary.BigEndian.AppendUint32(append(p.b, 0xd2), uint32(n))
	default:
		p.b = binary.BigEndian.AppendUint64(append(p.b, 0xd3), uint64(n))
	}
}

func (p *packer) value(v lua.Value, level int) {
	p.t.Step(1)
	if len(p.b) > lua.MaxString {
		p.t.Room(len(p.b))
	}
	switch x := v.(type) {
	case string:
		p.head(len(x), 0xa0, 31, 0xd9, 0xda, 0xdb)
		p.b = append(p.b, x...)
	case bool:
		if x {
			p.b = append(p.b, 0xc3)
		} else {
			p.b = append(p.b, 0xc2)
		}
	case float64:
		p.number(x)
	case *lua.Table:
		if level == maxPackNesting {
			p.b = append(p.b, 0xc0)
			return
		}
		p.table(x, level+1)
	default:
		p.b = append(p.b, 0xc0)
	}
}

func (p *packer) table(t *lua.Table, level int) {
	n, most, array := 0, 0.0, true
	for k, _, _ := t.Next(nil); k != nil; k, _, _ = t.Next(k) {
		f, ok := k.(float64)
		array = array && ok && f > 0 && f == math.Trunc(f) && f <= math.MaxInt32
		most = math.Max(most, f)
		n++
	}
	if array && most == float64(n) {
		l := t.Len()
		p.head(l, 0x90, 15, 0, 0xdc, 0xdd)
		for i := 1; i <= l; i++ {
			p.value(p.t.Index(t, float64(i)), level)
		}
		return
	}
	p.head(n, 0x80, 15, 0, 0xde, 0xdf)
	for k, v, _ := t.Next(nil); k != nil; k, v, _ = t.Next(k) {
		p.value(k, level)
		p.value(v, level)
	}
}

type unpacker struct {
	t   *lua.Thread
	s   string
	pos int
}

// take returns the next n bytes.
func (u *unpacker) take(n int) string {
	if len(u.s)-u.pos < n {
		u.t.Errorf("Missing bytes in input.")
	}
	s := u.s[u.pos : u.pos+n]
	u.pos += n
	return s
}

// uint reads an unsigned number of n bytes.
func (u *unpacker) uint(n int) uint64 {
	var v uint64
	for _, c := range []byte(u.take(n)) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (u *unpacker) value(depth int) lua.Value {
	u.t.Step(1)
	if depth > lua.MaxNesting/3 {
		u.t.Errorf("stack overflow (in function mp_decode_to_lua_array)")
	}
	switch c := u.take(1)[0]; c {
	case 0xcc:
		return float64(u.uint(1))
	case 0xcd:
		return float64(u.uint(2))
	case 0xce:
		return float64(u.uint(4))
	case 0xcf:
		return float64(int64(u.uint(8)))
	case 0xd0:
		return float64(int8(u.uint(1)))
	case 0xd1:
		return float64(int16(u.uint(2)))
	case 0xd2:
		return float64(int32(u.uint(4)))
	case 0xd3:
		return float64(int64(u.uint(8)))
	case 0xc0:
		return nil
	case 0xc3:
		return true
	case 0xc2:
		return false
	case 0xca:
		return float64(math.Float32frombits(uint32(u.uint(4))))
	case 0xcb:
		return math.Float64frombits(u.uint(8))
	case 0xd9:
		return u.text(int(u.uint(1)))
	case 0xda:
		return u.text(int(u.uint(2)))
	case 0xdb:
		return u.text(int(u.uint(4)))
	case 0xdc:
		return u.array(int(u.uint(2)), depth)
	case 0xdd:
		return u.array(int(u.uint(4)), depth)
	case 0xde:
		return u.hash(int(u.uint(2)), depth)
	case 0xdf:
		return u.hash(int(u.uint(4)), depth)
	default:
		switch {
		case c < 0x80:
			return float64(c)
		case c >= 0xe0:
			return float64(int8(c))
		case c&0xe0 == 0xa0:
			return u.text(int(c & 0x1f))
		case c&0xf0 == 0x90:
			return u.array(int(c&15), depth)
		case c&0xf0 == 0x80:
			return u.hash(int(c&15), depth)
		}
		u.t.Errorf("Bad data format in input.")
		return nil
	}
}

func (u *unpacker) text(n int) lua.Value {
	s := u.take(n)
	u.t.Room(n)
	return s
}

func (u *unpacker) array(n, depth int) lua.Value {
	t := lua.NewTable(0, 0)
	for i := 1; i <= n; i++ {
		u.t.Room(16)
		t.Set(float64(i), u.value(depth+1))
	}
	return t
}

func (u *unpacker) hash(n, depth int) lua.Value {
	t := lua.NewTable(0, 0)
	for range n {
		u.t.Room(40)
		k := u.value(depth + 1)
		u.t.SetField(t, k, u.value(depth+1))
	}
	return t
}
