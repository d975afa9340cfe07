package command

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"

	"github.com/replicatord/replicatord/crdt"
)

// A HyperLogLog is cells of crdt.KindRegisters: blocks of 64 registers of a byte
// each, under the block's number as one byte, without the zeros at their end;
// and under "" one register that is 1 once the view is to have the dense form.
// Of siblings the greatest of each register shows, so that what several nodes
// have added is counted together. An add that changes no register writes
// nothing, as in Redis.
//
// To clients a HyperLogLog is a string, in the form that Redis keeps it in; the
// view has it as that, and counts. A command that writes the string makes it
// one of crdt.KindString; the next PFADD takes its registers from there.

var hyperLogLogCommands = []*Command{
	{Name: "PFADD", Arity: -2, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hyperloglog", Since: "2.8.9",
		Summary: "Adds elements to a HyperLogLog", Run: pfadd},
	{Name: "PFMERGE", Arity: -2, Flags: Write | DenyOOM, First: 1, Last: -1, Step: 1, Group: "hyperloglog", Since: "2.8.9",
		Summary: "Adds what several HyperLogLogs have counted to one", Run: pfmerge},
	{Name: "PFCOUNT", Arity: -2, Flags: ReadOnly, First: 1, Last: -1, Step: 1, Group: "hyperloglog", Since: "2.8.9",
		Summary: "About how many elements were added to HyperLogLogs"},
	{Name: "PFDEBUG", Arity: 3, Flags: Write | DenyOOM | Operator, First: 2, Last: 2, Step: 1, Group: "hyperloglog", Since: "2.8.9",
		Summary: "The inside of a HyperLogLog", Run: pfdebug},
	{Name: "PFSELFTEST", Arity: 1, Flags: ReadOnly | Unlisted | Operator, Group: "hyperloglog", Since: "2.8.9",
		Summary: "Tests the view's HyperLogLogs"},
}

const (
	hllRegisters = 1 << 14
	hllBlock     = 64 // registers in a cell
	hllHeader    = 16 // bytes before the registers: magic, encoding, cached count
	hllDenseSize = hllHeader + hllRegisters*6/8
	hllSparseMax = 3000 // the longest sparse form: hll-sparse-max-bytes of Redis
	hllMaxSparse = 32   // the greatest register the sparse form can tell
	hllSeed      = 0xadc83b19
	hllStaleAt   = hllHeader - 1 // the last byte of the cached count
	hllStale     = 0x80          // what it is if the count is out of date
)

// hyperLogLog is the registers of one key, or what of them was needed so far.
type hyperLogLog struct {
	c       *Context
	key     crdt.Key
	blocks  [hllRegisters / hllBlock]struct{ read, changed bool }
	regs    [hllRegisters]byte
	dense   bool
	foreign []byte // the string the registers are still to be read from
	whole   bool   // the key has no registers in cells yet
}

// openHLL finds the HyperLogLog at a key, an empty one if there is none. It
// replies Redis's error and returns nil if there is something else.
func openHLL(c *Context, k crdt.Key) *hyperLogLog {
	if wrongKind(c, k, crdt.TypeString) {
		return nil
	}
	h := &hyperLogLog{c: c, key: k}
	if s, ok := c.Elem(k, crdt.KindString, ""); ok {
		valid := len(s) >= hllHeader && string(s[:4]) == "HYLL" && s[4] <= 1 && (s[4] == 1 || len(s) == hllDenseSize)
		if !valid {
			c.Out.Error(errNotHLL)
			return nil
		}
		h.foreign, h.whole, h.dense = s, true, s[4] == 0
		return h
	}
	if c.Type(k) == crdt.TypeNone {
		h.whole = true
		return h
	}
	form, _ := c.Elem(k, crdt.KindRegisters, "")
	h.dense = len(form) > 0 && form[0] != 0
	return h
}

// load reads every register; it replies Redis's error and returns false if the
// string that they are in is broken.
func (h *hyperLogLog) load() bool {
	if h.foreign != nil {
		if !h.parse(h.foreign) {
			h.c.Out.Error(errBadHLL)
			return false
		}
		h.foreign = nil
		return true
	}
	if !h.whole {
		h.c.EachElem(h.key, crdt.KindRegisters, func(elem string, value []byte) bool {
			if len(elem) == 1 && !h.blocks[elem[0]].read {
				h.take(elem[0], value)
			}
			return true
		})
		for b := range h.blocks {
			h.blocks[b].read = true
		}
	}
	return true
}

// take sets the registers of a block.
func (h *hyperLogLog) take(block byte, value []byte) {
	copy(h.regs[int(block)*hllBlock:][:hllBlock], value)
	h.blocks[block].read = true
}

// raise sets a register to at least n and reports whether it was less.
func (h *hyperLogLog) raise(i int, n byte) bool {
	b := i / hllBlock
	if !h.whole && !h.blocks[b].read {
		v, _ := h.c.Elem(h.key, crdt.KindRegisters, string([]byte{byte(b)}))
		h.take(byte(b), v)
	}
	if h.regs[i] >= n {
		return false
	}
	h.regs[i] = n
	h.blocks[b].changed = true
	return true
}

// write puts what has changed, and with form in any case one cell.
func (h *hyperLogLog) write(form bool) {
	if !h.dense && h.load() && hllSparse(&h.regs) == nil {
		h.dense, form = true, true
	}
	if form || h.whole {
		v := []byte{0}
		if h.dense {
			v[0] = 1
		}
		h.c.SetElem(h.key, crdt.KindRegisters, "", v)
	}
	for b := range h.blocks {
		regs := bytes.TrimRight(h.regs[b*hllBlock:(b+1)*hllBlock], "\x00")
		if h.blocks[b].changed || h.whole && len(regs) > 0 {
			h.c.SetElem(h.key, crdt.KindRegisters, string([]byte{byte(b)}), bytes.Clone(regs))
		}
	}
}

// HyperLogLogString returns the string that Redis keeps the cells of a
// HyperLogLog in. each calls its argument for the live cells.
func HyperLogLogString(each func(fn func(elem string, value []byte) bool)) []byte {
	var regs [hllRegisters]byte
	dense := false
	each(func(elem string, value []byte) bool {
		switch {
		case len(elem) == 1:
			copy(regs[int(elem[0])*hllBlock:][:hllBlock], value)
		case elem == "":
			dense = len(value) > 0 && value[0] != 0
		}
		return true
	})
	if !dense {
		if s := hllSparse(&regs); s != nil {
			return s
		}
	}
	s := make([]byte, hllDenseSize)
	hllHead(s, 0)
	for b := range hllRegisters / hllBlock {
		packRegisters(s[hllHeader+b*hllBlock*6/8:], regs[b*hllBlock:(b+1)*hllBlock])
	}
	return s
}

// HyperLogLogDense reports whether the form cell of a HyperLogLog, the one under
// "", says that it is dense.
func HyperLogLogDense(form []byte) bool { return len(form) > 0 && form[0] != 0 }

// HyperLogLogPatch returns what a block's registers are in the dense string, and
// where; for the form cell, under "", what says there that the cached count is
// out of date.
func HyperLogLogPatch(elem string, value []byte) (offset int, patch []byte) {
	if elem == "" {
		return hllStaleAt, []byte{hllStale}
	}
	var regs [hllBlock]byte
	copy(regs[:], value)
	patch = make([]byte, hllBlock*6/8)
	packRegisters(patch, regs[:])
	return hllHeader + int(elem[0])*len(patch), patch
}

func hllHead(s []byte, encoding byte) {
	copy(s, "HYLL")
	s[4] = encoding
	s[hllStaleAt] = hllStale
}

// packRegisters puts registers at 6 bits each, the lowest bits first.
func packRegisters(out, regs []byte) {
	for i := 0; i+3 < len(regs); i += 4 {
		v := uint32(regs[i]&63) | uint32(regs[i+1]&63)<<6 | uint32(regs[i+2]&63)<<12 | uint32(regs[i+3]&63)<<18
		o := i / 4 * 3
		out[o], out[o+1], out[o+2] = byte(v), byte(v>>8), byte(v>>16)
	}
}

// hllSparse returns the sparse form, nil if the registers need the dense one.
// Runs of zeros are 00xxxxxx (up to 64) or 01xxxxxx xxxxxxxx (up to 16384), runs
// of a value up to 32 are 1vvvvvxx (up to 4).
func hllSparse(regs *[hllRegisters]byte) []byte {
	s := make([]byte, hllHeader, hllHeader+256)
	hllHead(s, 1)
	for i := 0; i < len(regs); {
		n := 1
		for i+n < len(regs) && regs[i+n] == regs[i] && (regs[i] == 0 || n < 4) {
			n++
		}
		switch v := regs[i]; {
		case v > hllMaxSparse:
			return nil
		case v != 0:
			s = append(s, 0x80|(v-1)<<2|byte(n-1))
		case n <= 64:
			s = append(s, byte(n-1))
		default:
			s = append(s, 0x40|byte((n-1)>>8), byte(n-1))
		}
		if len(s) > hllSparseMax {
			return nil
		}
		i += n
	}
	return s
}

// parse reads the registers of a string; false if it is broken.
func (h *hyperLogLog) parse(s []byte) bool {
	p := s[hllHeader:]
	if s[4] == 0 {
		for i := range h.regs {
			bit := i * 6
			v := uint16(p[bit/8])
			if bit/8+1 < len(p) {
				v |= uint16(p[bit/8+1]) << 8
			}
			h.regs[i] = byte(v>>(bit%8)) & 63
		}
		return true
	}
	i := 0
	for len(p) > 0 {
		var v byte
		n, size := 0, 1
		switch op := p[0]; {
		case op&0x80 != 0:
			v, n = op>>2&31+1, int(op&3)+1
		case op&0x40 == 0:
			n = int(op) + 1
		case len(p) == 1:
			return false
		default:
			n, size = (int(op&63)<<8|int(p[1]))+1, 2
		}
		if i+n > len(h.regs) {
			return false
		}
		for range n {
			h.regs[i] = v
			i++
		}
		p = p[size:]
	}
	return i == len(h.regs)
}

// hllElement returns the register that an element belongs to, and what it
// raises it to.
func hllElement(e []byte) (int, byte) {
	hash := murmur64A(e, hllSeed)
	return int(hash % hllRegisters), byte(bits.TrailingZeros64(hash>>14|1<<50) + 1)
}

// murmur64A is MurmurHash2 of 64 bits by Austin Appleby.
func murmur64A(b []byte, seed uint64) uint64 {
	const m, r = 0xc6a4a7935bd1e995, 47
	h := seed ^ uint64(len(b))*m
	for ; len(b) >= 8; b = b[8:] {
		k := binary.LittleEndian.Uint64(b) * m
		k ^= k >> r
		h = (h ^ k*m) * m
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		h = (h ^ binary.LittleEndian.Uint64(last[:])) * m
	}
	h = (h ^ h>>r) * m
	return h ^ h>>r
}

func pfadd(c *Context) {
	h := openHLL(c, c.Key(1))
	if h == nil {
		return
	}
	changed := h.whole && h.foreign == nil
	if len(c.Args) > 2 && h.foreign != nil && !h.load() {
		return
	}
	for _, e := range c.Args[2:] {
		changed = h.raise(hllElement(e)) || changed
	}
	if changed {
		h.write(false)
	}
	c.Out.Bool(changed)
}

func pfmerge(c *Context) {
	var to *hyperLogLog
	for i := 1; i < len(c.Args); i++ {
		h := openHLL(c, c.Key(i))
		if h == nil || !h.load() {
			return
		}
		if to == nil {
			to = h
			continue
		}
		to.dense = to.dense || h.dense
		for r, n := range h.regs {
			to.raise(r, n)
		}
	}
	to.write(true)
	c.Out.OK()
}

// pfcount answers PFCOUNT as the view does. Of one key that a client has set as a
// string Redis believes the count that is in there, if it says that it holds.
func pfcount(c *Context) {
	var all *hyperLogLog
	for i := 1; i < len(c.Args); i++ {
		h := openHLL(c, c.Key(i))
		if h == nil {
			return
		}
		if s := h.foreign; s != nil && len(c.Args) == 2 && s[hllStaleAt]&hllStale == 0 {
			c.Out.Int(int64(binary.LittleEndian.Uint64(s[hllHeader-8:])))
			return
		}
		if !h.load() {
			return
		}
		if all == nil {
			all = h
			continue
		}
		for r, n := range h.regs {
			all.regs[r] = max(all.regs[r], n)
		}
	}
	c.Out.Int(hllCount(&all.regs))
}

// hllCount estimates how many elements have made the registers what they are, by
// O. Ertl's improved raw estimator ("New cardinality estimation algorithms for
// HyperLogLog sketches", 2017, algorithm 6), as Redis does.
func hllCount(regs *[hllRegisters]byte) int64 {
	var of [64]int // registers by value
	for _, n := range regs {
		of[n&63]++
	}
	const m, q = float64(hllRegisters), 64 - 14
	z := m * hllTau((m-float64(of[q+1]))/m)
	for k := q; k >= 1; k-- {
		z = (z + float64(of[k])) * 0.5
	}
	z += m * hllSigma(float64(of[0])/m)
	return int64(math.Round(0.5 / math.Ln2 * m * m / z))
}

func hllSigma(x float64) float64 {
	if x == 1 {
		return math.Inf(1)
	}
	y, z := 1.0, x
	for {
		was := z
		x *= x
		z += x * y
		y += y
		if z == was {
			return z
		}
	}
}

func hllTau(x float64) float64 {
	if x == 0 || x == 1 {
		return 0
	}
	y, z := 1.0, 1-x
	for {
		was := z
		x = math.Sqrt(x)
		y *= 0.5
		z -= (1 - x) * (1 - x) * y
		if z == was {
			return z / 3
		}
	}
}

func pfdebug(c *Context) {
	if c.Type(c.Key(2)) == crdt.TypeNone {
		c.Out.Error("ERR The specified key does not exist")
		return
	}
	h := openHLL(c, c.Key(2))
	if h == nil {
		return
	}
	was := h.dense
	toDense := func() bool {
		if !was {
			if !h.load() {
				return false
			}
			h.dense = true
			h.write(true)
		}
		return true
	}
	switch sub := c.Args[1]; {
	case is(sub, "GETREG"):
		if !h.load() || !toDense() {
			return
		}
		c.Out.Array(len(h.regs))
		for _, n := range h.regs {
			c.Out.Int(int64(n))
		}
	case is(sub, "DECODE"):
		if was {
			c.Out.Error("ERR HLL encoding is not sparse")
			return
		}
		s, _ := text(c, c.Key(2))
		c.Out.Bulk(decodeSparse(s[hllHeader:]))
	case is(sub, "ENCODING"):
		if was {
			c.Out.Status("dense")
		} else {
			c.Out.Status("sparse")
		}
	case is(sub, "TODENSE"):
		if toDense() {
			c.Out.Bool(!was)
		}
	default:
		c.Out.Error(oneLine("ERR Unknown PFDEBUG subcommand '" + string(cString(sub)) + "'"))
	}
}

// decodeSparse prints the operations of a sparse form.
func decodeSparse(p []byte) []byte {
	var out []byte
	for len(p) > 0 {
		op, size := p[0], 1
		switch {
		case op&0x80 != 0:
			out = strconv.AppendInt(append(out, "v:"...), int64(op>>2&31)+1, 10)
			out = strconv.AppendInt(append(out, ','), int64(op&3)+1, 10)
		case op&0x40 == 0:
			out = strconv.AppendInt(append(out, "z:"...), int64(op)+1, 10)
		default:
			n := int64(op&63) << 8
			if len(p) > 1 {
				n |= int64(p[1])
				size = 2
			}
			out = strconv.AppendInt(append(out, "Z:"...), n+1, 10)
		}
		out = append(out, ' ')
		p = p[size:]
	}
	return bytes.Trim(out, " ")
}
