package oplog

import "github.com/replicatord/replicatord/crdt"

// keyCache keeps what groups have read and written of keys, decoded, for the
// groups after them. What a group has changed stays at least until it is drained
// (redo.go), for until then the store has it nowhere else in a form that can be
// read. Of two generations the older goes, but for that, when the younger is
// full: a cheap LRU. What a discarded group has touched is dropped.
type keyCache struct {
	budget     int // bytes, about, of each generation
	young, old map[crdt.Key]*keyState
	size       int // of young, but for what was carried over
	carried    int // of what was kept though its time had come, last time
}

// Limits of what is worth keeping of one key.
const (
	cachedCells = 64
	cachedBytes = 8 << 10
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
	n := ks.measure()
	c.size += n - ks.size
	ks.size = n
}

func (c *keyCache) drop(k crdt.Key) {
	if ks := c.young[k]; ks != nil {
		c.size -= ks.size
		delete(c.young, k)
	}
	delete(c.old, k)
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
	header  *crdt.Header
	loaded  bool        // header, stored and none are known
	dirty   bool        // header was set in this group
	through bool        // see redo.go: the commit under way leaves nothing of it to the cache
	stored  headerFlags // as committed
	seq     uint64      // of the last commit that changed anything, see redo.go
	hseq    uint64      // of the last that changed the header
	none    uint32      // kinds of which the store had no cells when the header was read, as bits
	cells   cellSet
	order   map[crdt.Kind]*elemOrder // of the cells of kinds that are kept in order
	size    int                      // in the cache
}

type cellState struct {
	key    cellKey
	cell   *crdt.Cell // nil if there is none
	dirty  bool       // was set in this group
	stored cellFlags  // as committed
	seq    uint64     // of the last commit that changed it
}

// big reports whether a key is too much to be kept.
func (ks *keyState) big() bool { return ks.cells.len() > cachedCells || ks.measure() > cachedBytes }

// measure returns about what the state takes in memory.
func (ks *keyState) measure() int {
	n := 250 + len(ks.key.Name)
	if ks.header != nil {
		n += 120
		for _, p := range ks.header.Pending {
			n += 40 + 16*len(p.Ctx)
		}
	}
	if ks.cells.len() > cachedCells {
		return cachedBytes + n + 200*ks.cells.len()
	}
	for _, cs := range ks.cells.list {
		n += 110 + len(cs.key.elem)
		if cs.cell == nil {
			continue
		}
		n += 80 + 64*len(cs.cell.Values) + 120*len(cs.cell.Counts) + 16*len(cs.cell.Pending)
		for _, v := range cs.cell.Values {
			n += len(v.Value)
		}
	}
	return n
}

// settled makes the state that of a key as it is committed, with commit seq.
func (ks *keyState) settled(seq uint64) {
	if ks.dirty {
		ks.seq, ks.hseq = seq, seq
		ks.dirty, ks.stored = false, flagsOfHeader(ks.header)
	}
	for _, cs := range ks.cells.list {
		if !cs.dirty {
			continue
		}
		ks.seq, cs.seq = seq, seq
		cs.dirty, cs.stored = false, flagsOfCell(cs.cell)
		if cs.cell == nil {
			continue
		}
		for i := range cs.cell.Values {
			// A client's value may be a piece of a large buffer.
			v := &cs.cell.Values[i]
			v.Value = append([]byte(nil), v.Value...)
		}
	}
}

// cellSet holds the cells of a key: most have one or two.
type cellSet struct {
	list  []*cellState
	index map[cellKey]*cellState // if there are more than fewCells
}

const fewCells = 8

func (s *cellSet) len() int { return len(s.list) }

func (s *cellSet) get(k cellKey) *cellState {
	if s.index != nil {
		return s.index[k]
	}
	for _, cs := range s.list {
		if cs.key == k {
			return cs
		}
	}
	return nil
}

// add adds a cell that is not there.
func (s *cellSet) add(cs *cellState) {
	s.list = append(s.list, cs)
	switch {
	case s.index != nil:
		s.index[cs.key] = cs
	case len(s.list) > fewCells:
		s.index = make(map[cellKey]*cellState, 2*len(s.list))
		for _, cs := range s.list {
			s.index[cs.key] = cs
		}
	}
}
