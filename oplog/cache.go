package oplog

import (
	"slices"

	"github.com/replicatord/replicatord/crdt"
)

// keyCache keeps what groups have read and written of keys, decoded, for the
// groups after them. What a group has changed stays at least until it is in the
// store (sweep.go), for until then the store has it nowhere else in a form that can be
// read. Of two generations the older goes, but for that, when the younger is
// full: a cheap LRU. What a discarded group has touched is dropped.
type keyCache struct {
	budget     int // bytes, about, of each generation
	young, old keyMap
	size       int // of young, but for what was kept though its time had come
	owed       owing
	recalled   uint64         // nothing that counts: for Recall's looks not to be left out
	lists      [][]*cellState // for keyState.set of keys to come, empty
}

// What goes through instead of being kept.
const (
	throughBytes = 16 << 10 // keys of one or two cells that take more, and
	throughShare = 2048     // more than one in so many parts of a generation
	throughEnds  = 512      // keys with more cells that come and go at the ends, as queues
	throughDead  = 1024     // keys of which more cells are gone than are there, and more than this: all who iterate would pass over them
)

func newKeyCache(budget int) keyCache {
	return keyCache{budget: budget / 2}
}

// get returns what is kept of a key, nil if nothing is.
func (c *keyCache) get(k crdt.Key) *keyState {
	if ks := c.young.get(k); ks != nil {
		return ks
	}
	ks := c.old.get(k)
	if ks != nil {
		c.old.drop(k)
		c.young.set(ks)
		c.size += ks.size
	}
	return ks
}

// peek is get, and no use of the key.
func (c *keyCache) peek(k crdt.Key) *keyState {
	if ks := c.young.get(k); ks != nil {
		return ks
	}
	return c.old.get(k)
}

// Recall prepares for what the open group, or the next, is about to ask for: cells that
// it is to change, and keys that it is to read, RecallMost at most in all. A cell of kind
// KindAny stands for what is there of its key.
//
// What is kept of them is looked at, in all lines of memory that its use will need. These
// come from far at the same time, for no look waits for the one before it; asked for one
// by one they would come one after the other. What is not kept of those that are to change is
// fetched from the store. It is for who opens groups; nothing of the names is kept.
func (l *Log) Recall(change []crdt.CellID, read []crdt.Key) {
	var states [crdt.RecallMost]*keyState
	n := 0
	missing := l.missing[:0]
	for i := range change[:min(len(change), len(states))] {
		id := &change[i]
		if ks := l.cache.peek(id.Key); ks != nil {
			states[n] = ks
			n++
		} else if !l.filter.lacks(id.Key) {
			missing = append(missing, fetched{id: *id})
		}
	}
	for _, k := range read[:min(len(read), len(states)-n)] {
		if ks := l.cache.peek(k); ks != nil {
			states[n] = ks
			n++
		}
	}
	if len(missing) > 1 {
		l.fetch(missing)
	}
	clear(missing)
	l.missing = missing
	l.cache.look(states[:n])
}

// look looks at states as Recall does.
func (c *keyCache) look(states []*keyState) {
	for _, ks := range states {
		r := &ks.room
		c.recalled += uint64(ks.number) + uint64(len(ks.set)) + ks.seq + uint64(ks.dead) +
			r.state.seq + uint64(len(r.state.value)) + uint64(r.header.Rest) + r.header.Digest
		if o := r.state.open; o != nil {
			c.recalled += uint64(len(o.Values)) + uint64(len(o.Counts))
		}
	}
}

// noteSet adds to the cells that the open group has set of a key. What takes more than
// the key's own room is lent.
func (c *keyCache) noteSet(ks *keyState, cs *cellState) {
	if n := len(c.lists); n > 0 && len(ks.set) == 1 && cap(ks.set) == 1 {
		ks.set = append(c.lists[n-1], ks.set...)
		c.lists = c.lists[:n-1]
	}
	ks.set = append(ks.set, cs)
}

// unset forgets what the group has set of a key.
func (c *keyCache) unset(ks *keyState) {
	clear(ks.set)
	switch n := cap(ks.set); {
	case n <= 1:
		ks.set = ks.set[:0]
		return
	case n <= listMost && len(c.lists) < listsKept:
		c.lists = append(c.lists, ks.set[:0])
	}
	ks.set = ks.room.set[:0]
}

// How many lists are there to be lent, at most, and how long.
const (
	listsKept = 256
	listMost  = 1024
)

// add keeps a key from now on.
func (c *keyCache) add(ks *keyState) { c.young.set(ks) }

// resize takes note that the size of a key has changed.
func (c *keyCache) resize(ks *keyState) {
	n := ks.bytes + ks.measureHeader()
	c.size += n - ks.size
	ks.size = n
}

func (c *keyCache) drop(k crdt.Key) {
	if ks := c.young.get(k); ks != nil {
		c.acquit(ks)
		c.size -= ks.size
		c.young.drop(k)
	} else if ks = c.old.get(k); ks != nil {
		c.acquit(ks)
		c.old.drop(k)
	}
}

// trim drops the older generation if the younger is full, but for what was
// changed after drained.
func (c *keyCache) trim(drained uint64) {
	if c.size <= c.budget {
		return
	}
	old := c.old
	c.old, c.young, c.size = c.young, keyMap{}, 0
	for db, names := range old.dbs {
		if names == nil {
			continue
		}
		c.young.dbs[db] = make(map[string]*keyState, len(names))
		for _, ks := range names {
			if ks.seq > drained {
				c.young.set(ks)
			}
		}
	}
}

// keyMap holds the states of keys. A map for each database, by names, is looked up
// sooner than one by keys, of which both parts are hashed.
type keyMap struct {
	dbs [256]map[string]*keyState
}

func (m *keyMap) get(k crdt.Key) *keyState { return m.dbs[k.DB][k.Name] }
func (m *keyMap) drop(k crdt.Key)          { delete(m.dbs[k.DB], k.Name) }

func (m *keyMap) set(ks *keyState) {
	names := &m.dbs[ks.key.DB]
	if *names == nil {
		*names = map[string]*keyState{}
	}
	(*names)[ks.key.Name] = ks
}

// empty reports whether it holds none.
func (m *keyMap) empty() bool {
	for _, names := range m.dbs {
		if len(names) > 0 {
			return false
		}
	}
	return true
}

// keyState is what is known of one key: its header, and those of its cells that
// were asked for. What it says is what is committed, and what the group that
// holds it has changed.
//
// What every use looks at comes first, in the order in which it does: where there
// are many keys, bringing that from far memory is a good part of what a use costs.
type keyState struct {
	key     crdt.Key
	in      *Group // that has touched it; nil if none that is open has
	header  *crdt.Header
	number  int    // of it among the group's
	none    uint32 // kinds of which the store had no cells when the header was read, as bits
	bucket  uint16 // one more than digestsAt, 0: not known
	loaded  bool   // header, stored and none are known
	dirty   bool   // header was set in this group
	through bool   // see redo.go: the commit under way leaves nothing of it to the cache
	hrow    bool   // the store may have had a header before hseq
	owes    bool   // in owing
	ends    bool   // some cells come and go at the ends
	cells   cellSet
	set     []*cellState              // those that this group has set
	own     [len(ownKinds)]*cellState // of those that the header's row may carry, by place (see ownCells)
	seq     uint64                    // of the last commit that changed anything; 0 once that is swept
	hseq    uint64                    // of the last that changed the header; likewise
	stored  headerFlags               // as committed
	bytes   int                       // of the cells, about, in memory
	size    int                       // in the cache
	owed    []*cellState              // of which the rows are behind, each once
	dead    int                       // cells that were removed since they were read, or in between

	room struct { // most keys have one cell: all in one piece of memory
		taken           bool // what follows
		list, set, owed [1]*cellState
		state           cellState
		header          crdt.Header
	}

	shedAt int                      // bytes from which on to shed anew
	reads  int                      // of single cells in the store; see takeIn
	order  map[crdt.Kind]*elemOrder // of the elements of kinds that were iterated
}

// newCell returns the state of a cell that is not known yet. Every state of one is
// made by it, and then added.
func (ks *keyState) newCell(k cellKey) *cellState {
	cs := &ks.room.state
	if ks.room.taken {
		cs = ks.cells.fresh()
	} else {
		ks.room.taken = true
		ks.cells.list, ks.set, ks.owed = ks.room.list[:0], ks.room.set[:0], ks.room.owed[:0]
	}
	cs.elem, cs.kind = k.elem, k.kind
	return cs
}

// digestsAt returns the bucket of the key's digest.
func (ks *keyState) digestsAt() int {
	if ks.bucket == 0 {
		ks.bucket = uint16(Bucket(ks.key)) + 1
	}
	return int(ks.bucket) - 1
}

// setHeader makes the header one of those values.
func (ks *keyState) setHeader(h *crdt.Header) {
	if h != nil && h != &ks.room.header {
		ks.room.header = *h
		h = &ks.room.header
	}
	ks.header = h
}

// mayStand reports whether the store may have a row, which was there at commit
// seq as stored says, and before that as row does. Drains up to drained have
// ended, and one up to begun, if that is more, may have written it.
func mayStand(seq uint64, stored, row bool, begun, drained uint64) bool {
	return stored && seq <= begun || row && seq > drained
}

// big reports whether what is changed of a key is to go through.
func (c *keyCache) big(ks *keyState) bool {
	n := ks.cells.len()
	return n <= 2 && ks.bytes > max(throughBytes, c.budget/throughShare) || ks.ends && n > throughEnds || ks.dead > throughDead && 2*ks.dead > n
}

// vacant reports whether nothing is there of the key, nor was since the store was
// level.
func (ks *keyState) vacant() bool {
	return ks.header == nil && ks.cells.len() == 0 && !ks.dirty && ks.seq == 0 && !ks.owes
}

// shed drops the cells that the store has as they are.
func (ks *keyState) shed(drained uint64) {
	var kept cellSet
	ks.bytes, ks.none, ks.order, ks.dead, ks.own = 0, 0, nil, 0, [len(ownKinds)]*cellState{}
	for _, cs := range ks.cells.list {
		if cs.seq > drained || cs.stored().carried {
			kept.add(cs)
			ks.noteOwn(cs)
			ks.bytes += int(cs.size)
			if cs.dead {
				ks.dead++
			}
		}
	}
	ks.cells, ks.shedAt = kept, 2*ks.bytes
}

// keyBytes is about what the state of a key takes without what it holds.
const keyBytes = 250

// measureHeader returns about what the key takes in memory without its cells.
func (ks *keyState) measureHeader() int {
	n := keyBytes + len(ks.key.Name)
	if ks.header != nil {
		n += 120
		for _, p := range ks.header.Pending {
			n += 40 + 16*len(p.Ctx)
		}
	}
	return n
}

// measure brings the sizes level with a cell, and returns by how much it has grown.
func (ks *keyState) measure(cs *cellState) (more int) {
	n := cs.measure()
	more = n - int(cs.size)
	ks.bytes += more
	cs.size = uint32(n)
	return more
}

// add adds a cell that was not known.
func (ks *keyState) add(cs *cellState) {
	ks.ends = ks.ends || hasEnds(cs.kind)
	ks.cells.add(cs)
	ks.noteOwn(cs)
	ks.measure(cs)
	if o := ks.order[cs.kind]; o != nil {
		o.added = append(o.added, cs.elem)
	}
}

// noteOwn takes note of a cell that is an own one.
func (ks *keyState) noteOwn(cs *cellState) {
	if i := ownAt(cs.key()); i >= 0 {
		ks.own[i] = cs
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
		if cs.kind == kind {
			o.added = append(o.added, cs.elem)
		}
	}
	if ks.order == nil {
		ks.order = map[crdt.Kind]*elemOrder{}
	}
	ks.order[kind] = o
	return o
}

// settled makes the state that of a key as it is committed with a group, and
// returns how many rows more it owes, -1 if nothing has changed, and what these take in memory. Drains up to
// drained had ended then, and one up to begun had begun.
func (ks *keyState) settled(seq, begun, drained uint64) (owes, bytes int) {
	if !ks.dirty && len(ks.set) == 0 {
		return -1, 0
	}
	if ks.dirty {
		if ks.hseq == 0 {
			owes++
			bytes += keyBytes
		}
		ks.hrow = mayStand(ks.hseq, ks.stored.exists, ks.hrow, begun, drained)
		ks.seq, ks.hseq = seq, seq
		ks.dirty, ks.stored = false, flagsOfHeader(ks.header)
	}
	if cap(ks.owed) < len(ks.set) {
		ks.owed = slices.Grow(ks.owed, len(ks.set))
	}
	for _, cs := range ks.set {
		if !cs.dirty {
			continue
		}
		now := cs.flags()
		cs.row = mayStand(cs.seq, cs.stored().row(), cs.row, begun, drained)
		if !cs.owed && (now.exists || cs.row) {
			cs.owed = true
			ks.owed = append(ks.owed, cs)
			owes++
			bytes += int(cs.size)
		}
		if cs.dead != !now.exists {
			if cs.dead = !now.exists; cs.dead {
				ks.dead++
			} else {
				ks.dead--
			}
		}
		ks.seq, cs.seq = seq, seq
		cs.settle(now)
	}
	return owes, bytes
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
	asked cellKey     // asked for last, and not there: mostly it is asked for again, and added
	hash  uint32      // of asked
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
			if cs.is(k) {
				return cs
			}
		}
		return nil
	}
	if s.last != nil && s.last.is(k) {
		return s.last
	}
	m := s.many
	if m.asked == k {
		return nil
	}
	h := crdt.HashElem(k.kind, k.elem)
	for i, at := m.index.First(h); i >= 0; i, at = m.index.Next(h, at) {
		if cs := s.list[i]; cs.is(k) {
			s.last = cs
			return cs
		}
	}
	m.asked, m.hash = k, h
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
	m, cs := s.many, s.list[i]
	h := m.hash
	if !cs.is(m.asked) {
		h = crdt.HashElem(cs.kind, cs.elem)
	}
	m.index.Add(h, i)
	m.asked, s.last = cellKey{}, cs
}
