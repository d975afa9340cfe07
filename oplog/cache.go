package oplog

import "github.com/replicatord/replicatord/crdt"

// keyCache keeps what groups have read and written of keys, decoded, for the
// groups after them. What a group has changed stays at least until it is in the
// store (sweep.go), for until then the store has it nowhere else in a form that can be
// read. Of two generations the older goes, but for that, when the younger is
// full: a cheap LRU. What a discarded group has touched is dropped.
type keyCache struct {
	budget     int // bytes, about, of each generation
	young, old map[crdt.Key]*keyState
	size       int // of young, but for what was carried over
	carried    int // of what was kept though its time had come, last time
	owed       owing
}

// What goes through instead of being kept.
const (
	throughBytes = 16 << 10 // keys of one or two cells that take more
	throughEnds  = 512      // keys with more cells that come and go at the ends, as queues
	throughDead  = 1024     // keys of which more cells are gone than are there, and more than this: all who iterate would pass over them
)

func newKeyCache(budget int) keyCache {
	return keyCache{budget: budget / 2, young: map[crdt.Key]*keyState{}}
}

// get returns what is kept of a key, nil if nothing is.
func (c *keyCache) get(k crdt.Key) *keyState {
	if ks := c.young[k]; ks != nil {
		return ks
	}
	ks := c.old[k]
	if ks != nil {
		delete(c.old, k)
		c.young[k] = ks
		c.size += ks.size
	}
	return ks
}

// add keeps a key from now on.
func (c *keyCache) add(ks *keyState) { c.young[ks.key] = ks }

// resize takes note that the size of a key has changed.
func (c *keyCache) resize(ks *keyState) {
	n := ks.bytes + ks.measureHeader()
	c.size += n - ks.size
	ks.size = n
}

func (c *keyCache) drop(k crdt.Key) {
	if ks := c.young[k]; ks != nil {
		c.acquit(ks)
		c.size -= ks.size
		delete(c.young, k)
	} else if ks = c.old[k]; ks != nil {
		c.acquit(ks)
		delete(c.old, k)
	}
}

// trim drops the older generation if the younger is full, but for what was
// changed after drained.
func (c *keyCache) trim(drained uint64) {
	if c.size <= c.budget {
		return
	}
	old := c.old
	c.old, c.young, c.size, c.carried = c.young, make(map[crdt.Key]*keyState, len(old)), 0, 0
	for k, ks := range old {
		if ks.seq > drained {
			c.young[k] = ks
			c.carried += ks.size
		}
	}
}

// keyState is what is known of one key: its header, and those of its cells that
// were asked for. What it says is what is committed, and what the group that
// holds it has changed.
type keyState struct {
	key     crdt.Key
	in      *Group // that has touched it; nil if none that is open has
	number  int    // of it among the group's
	header  *crdt.Header
	loaded  bool         // header, stored and none are known
	dirty   bool         // header was set in this group
	through bool         // see redo.go: the commit under way leaves nothing of it to the cache
	stored  headerFlags  // as committed
	seq     uint64       // of the last commit that changed anything; 0 once that is swept
	hseq    uint64       // of the last that changed the header; likewise
	hrow    bool         // the store may have had a header before hseq
	owes    bool         // in owing
	bucket  uint16       // of its, if it owes
	owed    []*cellState // of which the rows are behind, each once
	none    uint32       // kinds of which the store had no cells when the header was read, as bits
	cells   cellSet
	bytes   int                      // of the cells, about, in memory
	shedAt  int                      // bytes from which on to shed anew
	ends    bool                     // some cells come and go at the ends
	dead    int                      // cells that were removed since they were read, or in between
	reads   int                      // of single cells in the store; see takeIn
	set     []*cellState             // those that this group has set
	order   map[crdt.Kind]*elemOrder // of the elements of kinds that were iterated
	size    int                      // in the cache

	room struct { // most keys have one cell: all in one piece of memory
		header crdt.Header
		taken  bool // what follows
		state  cellState
		list   [1]*cellState
	}
}

// newCell returns the state of a cell that is not known yet. Every state of one is
// made by it, and then added.
func (ks *keyState) newCell(k cellKey) *cellState {
	if ks.room.taken {
		cs := ks.cells.fresh()
		cs.key = k
		return cs
	}
	ks.room.taken = true
	ks.room.state.key = k
	ks.cells.list = ks.room.list[:0]
	return &ks.room.state
}

// setCell makes a copy of c the cell of a state.
func (cs *cellState) setCell(c *crdt.Cell) {
	if c != nil && c != &cs.room {
		cs.room = *c
		c = &cs.room
		if len(c.Values) <= 1 {
			c.Values = append(cs.value[:0], c.Values...)
		}
	}
	cs.cell = c
}

// setHeader makes the header one of those values.
func (ks *keyState) setHeader(h *crdt.Header) {
	if h != nil && h != &ks.room.header {
		ks.room.header = *h
		h = &ks.room.header
	}
	ks.header = h
}

type cellState struct {
	room  crdt.Cell // where cell is, in one piece of memory with
	value [1]crdt.Sibling

	key    cellKey
	size   int        // about, in memory
	cell   *crdt.Cell // nil if there is none
	dirty  bool       // was set in this group
	stored cellFlags  // as committed
	seq    uint64     // of the last commit that changed it; 0 once it is swept
	row    bool       // the store may have had it before seq
	owed   bool       // in its key's owed
	dead   bool       // counted in its key's dead
}

// mayStand reports whether the store may have a row, which was there at commit
// seq as stored says, and before that as row does. Drains up to drained have
// ended, and one up to begun, if that is more, may have written it.
func mayStand(seq uint64, stored, row bool, begun, drained uint64) bool {
	return stored && seq <= begun || row && seq > drained
}

// big reports whether what is changed of a key is to go through.
func (ks *keyState) big() bool {
	n := ks.cells.len()
	return n <= 2 && ks.bytes > throughBytes || ks.ends && n > throughEnds || ks.dead > throughDead && 2*ks.dead > n
}

// vacant reports whether nothing is there of the key, nor was since the store was
// level.
func (ks *keyState) vacant() bool {
	return ks.header == nil && ks.cells.len() == 0 && !ks.dirty && ks.seq == 0 && !ks.owes
}

// shed drops the cells that the store has as they are.
func (ks *keyState) shed(drained uint64) {
	var kept cellSet
	ks.bytes, ks.none, ks.order, ks.dead = 0, 0, nil, 0
	for _, cs := range ks.cells.list {
		if cs.seq > drained {
			kept.add(cs)
			ks.bytes += cs.size
			if cs.dead {
				ks.dead++
			}
		}
	}
	ks.cells, ks.shedAt = kept, 2*ks.bytes
}

// measureHeader returns about what the key takes in memory without its cells.
func (ks *keyState) measureHeader() int {
	n := 250 + len(ks.key.Name)
	if ks.header != nil {
		n += 120
		for _, p := range ks.header.Pending {
			n += 40 + 16*len(p.Ctx)
		}
	}
	return n
}

// measure brings the sizes level with a cell.
func (ks *keyState) measure(cs *cellState) {
	n := 240 + len(cs.key.elem)
	if c := cs.cell; c != nil {
		n += 64*max(0, len(c.Values)-1) + 120*len(c.Counts) + 16*len(c.Pending)
		for _, v := range c.Values {
			n += len(v.Value)
		}
	}
	ks.bytes += n - cs.size
	cs.size = n
}

// add adds a cell that was not known.
func (ks *keyState) add(cs *cellState) {
	ks.ends = ks.ends || hasEnds(cs.key.kind)
	ks.cells.add(cs)
	ks.measure(cs)
	if o := ks.order[cs.key.kind]; o != nil {
		o.added = append(o.added, cs.key.elem)
	}
}

// inOrder returns the elements of the cells of a kind, to be iterated.
func (ks *keyState) inOrder(kind crdt.Kind) *elemOrder {
	o := ks.order[kind]
	if o != nil {
		return o
	}
	o = &elemOrder{}
	for _, cs := range ks.cells.list {
		if cs.key.kind == kind {
			o.added = append(o.added, cs.key.elem)
		}
	}
	if ks.order == nil {
		ks.order = map[crdt.Kind]*elemOrder{}
	}
	ks.order[kind] = o
	return o
}

// settled makes the state that of a key as it is committed with a group, and
// returns how many rows more it owes, -1 if nothing has changed. Drains up to
// drained had ended then, and one up to begun had begun.
func (ks *keyState) settled(seq, begun, drained uint64) (owes int) {
	if !ks.dirty && len(ks.set) == 0 {
		return -1
	}
	if ks.dirty {
		if ks.hseq == 0 {
			owes++
		}
		ks.hrow = mayStand(ks.hseq, ks.stored.exists, ks.hrow, begun, drained)
		ks.seq, ks.hseq = seq, seq
		ks.dirty, ks.stored = false, flagsOfHeader(ks.header)
	}
	for _, cs := range ks.set {
		if !cs.dirty {
			continue
		}
		now := flagsOfCell(cs.key, cs.cell)
		cs.row = mayStand(cs.seq, cs.stored.exists, cs.row, begun, drained)
		if !cs.owed && (now.exists || cs.row) {
			cs.owed = true
			ks.owed = append(ks.owed, cs)
			owes++
		}
		if cs.dead != !now.exists {
			if cs.dead = !now.exists; cs.dead {
				ks.dead++
			} else {
				ks.dead--
			}
		}
		ks.seq, cs.seq = seq, seq
		cs.dirty, cs.stored = false, now
		if cs.cell == nil {
			continue
		}
		for i := range cs.cell.Values {
			// A client's value may be a piece of a large buffer.
			v := &cs.cell.Values[i]
			v.Value = append([]byte(nil), v.Value...)
		}
	}
	clear(ks.set)
	ks.set = ks.set[:0]
	return owes
}

// cellSet holds the cells of a key: most have one or two.
type cellSet struct {
	list []*cellState
	last *cellState // asked for last
	many *manyCells // if there are more than fewCells
}

// manyCells is what a set of more than fewCells has besides.
type manyCells struct {
	index crdt.Index  // of all
	spare []cellState // for those to come: several in one piece of memory
}

const (
	fewCells = 8
	maxSpare = 32 // states that are made at once, at most
)

func (s *cellSet) len() int { return len(s.list) }

// fresh returns a state for a cell that is to be added.
func (s *cellSet) fresh() *cellState {
	if s.many == nil {
		return new(cellState)
	}
	if len(s.many.spare) == 0 {
		s.many.spare = make([]cellState, min(len(s.list)/4, maxSpare))
	}
	cs := &s.many.spare[0]
	s.many.spare = s.many.spare[1:]
	return cs
}

func (s *cellSet) get(k cellKey) *cellState {
	if len(s.list) <= fewCells {
		for _, cs := range s.list {
			if cs.key == k {
				return cs
			}
		}
		return nil
	}
	if s.last != nil && s.last.key == k {
		return s.last
	}
	h := crdt.HashElem(k.kind, k.elem)
	for i, at := s.many.index.First(h); i >= 0; i, at = s.many.index.Next(h, at) {
		if cs := s.list[i]; cs.key == k {
			s.last = cs
			return cs
		}
	}
	return nil
}

// add adds a cell that is not there.
func (s *cellSet) add(cs *cellState) {
	s.list = append(s.list, cs)
	switch n := len(s.list); {
	case n == fewCells+1:
		s.many = new(manyCells)
		for i := range s.list {
			s.enter(i)
		}
	case n > fewCells:
		s.enter(n - 1)
	}
}

// enter puts a cell into the index.
func (s *cellSet) enter(i int) {
	s.many.index.Add(crdt.HashElem(s.list[i].key.kind, s.list[i].key.elem), i)
	s.last = s.list[i]
}
