package oplog

import "github.com/replicatord/replicatord/crdt"

// cellState is what is known of one cell. It is kept as small as can be, for large
// keys are nearly nothing but these: a cell with one value and nothing else, as most
// are, is packed into the state. A group that asks for it has it opened, as a
// crdt.Cell, until the group ends.
type cellState struct {
	elem   string
	kind   crdt.Kind
	dirty  bool // was set in this group
	row    bool // the store may have had it before seq
	owed   bool // in its key's owed
	dead   bool // counted in its key's dead
	exists bool // as committed, as what follows: see cellFlags
	remnant,
	swept, carried bool
	size   uint32    // about, in memory
	seq    uint64    // of the last commit that changed it; 0 once it is swept
	expiry int64     // as committed
	open   *openCell // nil: packed, or there is none, as after a group has set it to nothing
	dot    crdt.Dot  // of the value of a packed one
	value  []byte
}

// openCell is a cell as groups use it, in one piece of memory with its first value.
type openCell struct {
	crdt.Cell
	first [1]crdt.Sibling
	of    *cellState // which has it until its group ends; nil: for good
}

// set makes a copy of c the cell, which shares the lists of several only.
func (o *openCell) set(c *crdt.Cell) {
	if c == &o.Cell {
		return
	}
	o.Cell = *c
	if len(c.Values) <= 1 {
		o.Values = append(o.first[:0], c.Values...)
	}
}

// key names the cell among those of its key.
func (cs *cellState) key() cellKey { return cellKey{cs.kind, cs.elem} }

// is reports whether the cell has a name.
func (cs *cellState) is(k cellKey) bool { return cs.kind == k.kind && cs.elem == k.elem }

// packed reports whether there is a cell, and it is packed. It is as it is committed.
func (cs *cellState) packed() bool { return cs.open == nil && cs.exists && !cs.dirty }

// flags says of the cell what is told of one when it is committed.
func (cs *cellState) flags() cellFlags {
	switch {
	case cs.packed():
		return cs.stored()
	case cs.open == nil:
		return cellFlags{}
	}
	return flagsOfCell(cs.key(), &cs.open.Cell)
}

// stored says what is committed.
func (cs *cellState) stored() cellFlags {
	return cellFlags{cs.exists, cs.remnant, cs.swept, cs.carried, cs.expiry}
}

func (cs *cellState) setStored(f cellFlags) {
	cs.exists, cs.remnant, cs.swept, cs.carried, cs.expiry = f.exists, f.remnant, f.swept, f.carried, f.expiry
}

// read takes in a cell as the store has it, which nobody else uses; f is what it was
// committed with.
func (cs *cellState) read(c *crdt.Cell, f cellFlags) {
	cs.setStored(f)
	cs.keep(c)
}

// settle keeps the cell that a group has set, now that it is committed.
func (cs *cellState) settle(f cellFlags) {
	cs.setStored(f)
	cs.dirty = false
	if cs.open == nil {
		cs.keep(&crdt.Cell{})
		return
	}
	c := &cs.open.Cell
	for i := range c.Values {
		// A client's value may be a piece of a large buffer.
		v := &c.Values[i]
		v.Value = append([]byte(nil), v.Value...)
	}
	cs.keep(c)
}

// keep keeps a cell for the groups to come.
func (cs *cellState) keep(c *crdt.Cell) {
	switch {
	case c.Empty():
		cs.open, cs.dot, cs.value = nil, crdt.Dot{}, nil
	case plain(c):
		cs.open, cs.dot, cs.value = nil, c.Values[0].Dot, c.Values[0].Value
	default:
		if cs.open == nil || cs.open.of != nil {
			cs.open = new(openCell)
		}
		cs.open.set(c)
		cs.dot, cs.value = crdt.Dot{}, nil
	}
}

// AppendBinary appends the encoding of the cell, of which there is one.
func (cs *cellState) AppendBinary(b []byte) []byte {
	if cs.open != nil {
		return cs.open.AppendBinary(b)
	}
	value := [1]crdt.Sibling{{Dot: cs.dot, Value: cs.value}}
	c := crdt.Cell{Values: value[:]}
	return c.AppendBinary(b)
}

// measure returns about what the state takes in memory once it is kept, with what it
// is reached by.
func (cs *cellState) measure() int {
	n := 150 + len(cs.elem)
	switch {
	case cs.packed():
		return n + len(cs.value)
	case cs.open == nil:
		return n
	}
	c := &cs.open.Cell
	for i := range c.Values {
		n += len(c.Values[i].Value)
	}
	if !plain(c) {
		n += 128 + 64*max(0, len(c.Values)-1) + 120*len(c.Counts) + 16*len(c.Pending)
	}
	return n
}

// plain reports whether there is nothing in a cell but one value.
func plain(c *crdt.Cell) bool {
	return len(c.Values) == 1 && len(c.Counts) == 0 && len(c.Pending) == 0 && !c.Hidden
}

// openCells are the cells that the open group has opened. Their memory is the next
// group's.
type openCells struct {
	chunks [][]openCell
	used   int
}

// How many cells are in one piece of memory, and in those that are kept.
const (
	openChunk = 64
	openKept  = 512 * openChunk
)

// take returns an open cell for a state, to be filled.
func (p *openCells) take(of *cellState) *openCell {
	at := p.used / openChunk
	if at == len(p.chunks) {
		p.chunks = append(p.chunks, make([]openCell, openChunk))
	}
	o := &p.chunks[at][p.used%openChunk]
	p.used++
	o.of = of
	return o
}

// reset takes all of them back: what was not set in the group is as it was.
func (p *openCells) reset() {
	for i := 0; p.used > 0; i++ {
		chunk := p.chunks[i][:min(p.used, openChunk)]
		for j := range chunk {
			if o := &chunk[j]; o.of.open == o {
				o.of.open = nil
			}
		}
		clear(chunk)
		p.used -= len(chunk)
	}
	if len(p.chunks) > openKept/openChunk {
		clear(p.chunks[openKept/openChunk:])
		p.chunks = p.chunks[:openKept/openChunk]
	}
}

// open returns the cell of a state for the group to use and change, nil if there is
// none. It is good until the group ends.
func (g *Group) open(cs *cellState) *crdt.Cell {
	if cs.packed() {
		o := g.l.opened.take(cs)
		o.first[0] = crdt.Sibling{Dot: cs.dot, Value: cs.value}
		o.Values = o.first[:]
		cs.open = o
	}
	if cs.open == nil {
		return nil
	}
	return &cs.open.Cell
}

// set makes a copy of c the cell of a state.
func (g *Group) set(cs *cellState, c *crdt.Cell) {
	cs.dirty = true
	if c.Empty() {
		cs.open = nil
		return
	}
	if cs.open == nil {
		cs.open = g.l.opened.take(cs)
	}
	cs.open.set(c)
}
