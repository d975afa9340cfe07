package command

import (
	"encoding/binary"

	"github.com/replicatord/replicatord/crdt"
)

// Bitmaps are strings: what changes one puts the whole string that it makes,
// and leaves the expiry, but for BITOP, which sets a string as SET does.

var bitmapCommands = []*Command{
	{Name: "SETBIT", Arity: 4, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "bitmap", Since: "2.2.0",
		Summary: "Sets or clears one bit of a string", Run: setbit},
	{Name: "BITOP", Arity: -4, Flags: Write | DenyOOM, First: 2, Last: -1, Step: 1, Group: "bitmap", Since: "2.6.0",
		Summary: "Combines strings bit by bit", Run: bitop},
	{Name: "BITFIELD", Arity: -2, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "bitmap", Since: "3.2.0",
		Summary: "Reads and writes integers packed into a string", Run: bitfield, Reads: bitfieldReads},
}

// parseBitOffset reads the place of a bit in a string. If width is above 0, it
// may be given as #n, the place of the n-th integer of that width.
func parseBitOffset(arg []byte, width int) (int64, bool) {
	times := int64(1)
	if width > 0 && len(arg) > 0 && arg[0] == '#' {
		arg, times = arg[1:], int64(width)
	}
	i, ok := crdt.ParseInt(arg)
	i *= times // out of int64 it wraps around, as at Redis
	return i, ok && i >= 0 && i>>3 < MaxString
}

func setbit(c *Context) {
	bit, ok := parseBitOffset(c.Args[2], 0)
	if !ok {
		c.Out.Error(errBitOffset)
		return
	}
	on, ok := crdt.ParseInt(c.Args[3])
	if !ok || on != 0 && on != 1 {
		c.Out.Error(errBit)
		return
	}
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeString) {
		return
	}
	old, _ := text(c, k)
	at, mask := int(bit>>3), byte(0x80)>>(bit&7)
	was := at < len(old) && old[at]&mask != 0
	if at >= len(old) || was != (on == 1) {
		v := make([]byte, max(len(old), at+1))
		copy(v, old)
		v[at] &^= mask
		if on == 1 {
			v[at] |= mask
		}
		c.SetString(k, v, true)
	}
	c.Out.Bool(was)
}

func bitop(c *Context) {
	var op func(a, b byte) byte
	switch name := c.Args[1]; {
	case is(name, "AND"):
		op = func(a, b byte) byte { return a & b }
	case is(name, "OR"):
		op = func(a, b byte) byte { return a | b }
	case is(name, "XOR"):
		op = func(a, b byte) byte { return a ^ b }
	case is(name, "NOT"):
		if len(c.Args) != 4 {
			c.Out.Error(errBitNot)
			return
		}
	default:
		c.Out.Error(errSyntax)
		return
	}
	longest := 0
	sources := make([][]byte, len(c.Args)-3)
	for i := range sources {
		k := c.Key(i + 3)
		if wrongKind(c, k, crdt.TypeString) {
			return
		}
		sources[i], _ = text(c, k)
		longest = max(longest, len(sources[i]))
	}
	target := c.Key(2)
	c.Out.Int(int64(longest))
	if longest == 0 {
		c.Remove(target)
		return
	}
	v := make([]byte, longest)
	copy(v, sources[0])
	if op == nil {
		for i := range v {
			v[i] = ^v[i]
		}
	}
	for _, s := range sources[1:] {
		for i := range v {
			var b byte // shorter strings go on as zeros
			if i < len(s) {
				b = s[i]
			}
			v[i] = op(v[i], b)
		}
	}
	c.SetString(target, v, false)
}

// overflow says what BITFIELD does with what an integer cannot hold.
type overflow int

const (
	overflowWrap overflow = iota
	overflowSat
	overflowFail
)

// bitfieldOp is one operation of a BITFIELD.
type bitfieldOp struct {
	action   byte // 'g'et, 's'et, 'i'ncrby
	signed   bool
	bits     int
	offset   int64
	value    int64 // to set or add
	overflow overflow
}

// parseBitfieldType reads the type of an integer, such as i16 or u63.
func parseBitfieldType(arg []byte) (signed bool, bits int, ok bool) {
	arg = cString(arg)
	if len(arg) == 0 || arg[0] != 'i' && arg[0] != 'u' {
		return false, 0, false
	}
	signed = arg[0] == 'i'
	n, ok := crdt.ParseInt(arg[1:])
	if !ok || n < 1 || n > 64 || !signed && n > 63 {
		return false, 0, false
	}
	return signed, int(n), true
}

// parseBitfield reads the operations of a BITFIELD. The string is an error
// reply, "" for none.
func parseBitfield(args [][]byte) ([]bitfieldOp, string) {
	var ops []bitfieldOp
	mode := overflowWrap
	for i := 0; i < len(args); {
		a, left := args[i], len(args)-i-1
		op := bitfieldOp{overflow: mode}
		switch {
		case is(a, "GET") && left >= 2:
			op.action = 'g'
		case is(a, "SET") && left >= 3:
			op.action = 's'
		case is(a, "INCRBY") && left >= 3:
			op.action = 'i'
		case is(a, "OVERFLOW") && left >= 1:
			switch b := args[i+1]; {
			case is(b, "WRAP"):
				mode = overflowWrap
			case is(b, "SAT"):
				mode = overflowSat
			case is(b, "FAIL"):
				mode = overflowFail
			default:
				return nil, errBitOverflow
			}
			i += 2
			continue
		default:
			return nil, errSyntax
		}
		var ok bool
		if op.signed, op.bits, ok = parseBitfieldType(args[i+1]); !ok {
			return nil, errBitType
		}
		if op.offset, ok = parseBitOffset(args[i+2], op.bits); !ok {
			return nil, errBitOffset
		}
		i += 3
		if op.action != 'g' {
			if op.value, ok = crdt.ParseInt(args[i]); !ok {
				return nil, errNotInteger
			}
			i++
		}
		ops = append(ops, op)
	}
	return ops, ""
}

// bitfieldReads reports whether a BITFIELD writes nothing. With a wrong syntax
// it says no.
func bitfieldReads(args [][]byte) bool {
	for i := 2; i < len(args); i++ {
		left := len(args) - i - 1
		switch {
		case is(args[i], "GET") && left >= 2:
			i += 2
		case is(args[i], "OVERFLOW") && left >= 1:
			i++
		default:
			return false
		}
	}
	return true
}

func bitfield(c *Context) {
	ops, e := parseBitfield(c.Args[2:])
	if e != "" {
		c.Out.Error(e)
		return
	}
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeString) {
		return
	}
	old, there := text(c, k)
	end := 0 // bytes that the string must have
	for _, op := range ops {
		if op.action != 'g' {
			end = max(end, int(op.offset+int64(op.bits)-1)>>3+1)
		}
	}
	if end > MaxString { // Redis lets an integer reach up to 8 bytes beyond
		c.Out.Error(errTooLong)
		return
	}
	v := old
	if end > 0 {
		v = make([]byte, max(len(old), end))
		copy(v, old)
	}
	// As at Redis the string comes to be, or grows, even if every operation
	// fails.
	changed := end > 0 && (!there || end > len(old))
	c.Out.Array(len(ops))
	for _, op := range ops {
		was := bitsAt(v, op.offset, op.bits)
		now, reply, ok := op.apply(was)
		if !ok {
			c.Out.Null()
			continue
		}
		c.Out.Int(int64(reply))
		if op.action != 'g' && now != was {
			putBits(v, op.offset, op.bits, now)
			changed = true
		}
	}
	if changed {
		c.SetString(k, v, true)
	}
}

// apply returns what the integer becomes, in its lowest bits, and what is
// replied; false if it overflows and shall not.
func (op *bitfieldOp) apply(was uint64) (now, reply uint64, ok bool) {
	mask := ^uint64(0) >> (64 - op.bits)
	extended := was
	if op.signed {
		extended = uint64(signExtend(was, op.bits))
	}
	var over bool
	switch op.action {
	case 'g':
		return was, extended, true
	case 's':
		now, over = op.bound(uint64(op.value), 0)
		reply = extended
	default:
		now, over = op.bound(extended, op.value)
		reply = now
	}
	return now & mask, reply, !over || op.overflow != overflowFail
}

// bound returns value plus incr as the type can hold it, sign-extended, and
// whether it had to be bent for that. Value itself may be out of range.
func (op *bitfieldOp) bound(value uint64, incr int64) (uint64, bool) {
	if op.signed {
		return op.boundSigned(int64(value), incr)
	}
	top := ^uint64(0) >> (64 - op.bits)
	sum := value + uint64(incr)
	switch {
	case value > top || incr > 0 && incr > int64(top-value):
		if op.overflow == overflowSat {
			return top, true
		}
	case incr < 0 && incr < -int64(value):
		if op.overflow == overflowSat {
			return 0, true
		}
	default:
		return sum, false
	}
	return sum & top, true
}

func (op *bitfieldOp) boundSigned(value, incr int64) (uint64, bool) {
	top := int64(^uint64(0) >> (65 - op.bits))
	bottom := -top - 1
	sum := value + incr
	// Within 64 bits the sum itself can wrap around; with fewer it cannot, as
	// long as both are in range, and either being out of range is an overflow.
	up, down := value > top, value < bottom
	if !up && !down {
		up = incr > 0 && (value >= 0 || op.bits != 64) && incr > int64(uint64(top)-uint64(value))
		down = incr < 0 && (value < 0 || op.bits != 64) && incr < int64(uint64(bottom)-uint64(value))
	}
	switch {
	case !up && !down:
		return uint64(sum), false
	case op.overflow == overflowSat && up:
		return uint64(top), true
	case op.overflow == overflowSat:
		return uint64(bottom), true
	}
	return uint64(signExtend(uint64(sum), op.bits)), true
}

// signExtend reads the lowest bits of v as a signed integer.
func signExtend(v uint64, bits int) int64 { return int64(v<<(64-bits)) >> (64 - bits) }

// bitsAt reads an integer at a bit offset; beyond the end there are zeros.
func bitsAt(b []byte, offset int64, bits int) uint64 {
	var window [16]byte // 64 bits take part of up to 9 bytes
	if at := int(offset >> 3); at < len(b) {
		copy(window[:9], b[at:])
	}
	shift := int(offset & 7)
	high, low := binary.BigEndian.Uint64(window[:]), uint64(window[8])
	return (high<<shift | low>>(8-shift)) >> (64 - bits)
}

// putBits writes an integer, whose higher bits are clear, at a bit offset.
func putBits(b []byte, offset int64, bits int, v uint64) {
	for i := range bits {
		at := offset + int64(i)
		mask := byte(0x80) >> (at & 7)
		if v>>(bits-1-i)&1 == 1 {
			b[at>>3] |= mask
		} else {
			b[at>>3] &^= mask
		}
	}
}
