package oplog

import "github.com/replicatord/replicatord/crdt"

// keyCache keeps what groups have read and written of keys, decoded, for the
// groups after them. A group takes a key out and puts it back only when it has
// ended well, so nothing a discarded group has touched is ever seen again; no
// two groups hold one. Of two generations the older is dropped whole when the
// younger is full: a cheap LRU.
type keyCache struct {
	budget     int // bytes, about, of each generation
	young, old map[crdt.Key]*keyState
	size       int // of young
}

// Limits of what is worth keeping of one key.
const (
	cachedCells = 64
	cachedBytes = 8 << 10
)

func newKeyCache(budget int) keyCache {
	return keyCache{budget: budget / 2, young: map[crdt.Key]*keyState{}}
}

// take removes and returns what is kept of a key, nil if nothing is.
func (c *keyCache) take(k crdt.Key) *keyState {
	if ks := c.young[k]; ks != nil {
		delete(c.young, k)
		c.size -= ks.size
		return ks
	}
	ks := c.old[k]
	if ks != nil {
		delete(c.old, k)
	}
	return ks
}

// put keeps a key whose group has been committed.
func (c *keyCache) put(k crdt.Key, ks *keyState) {
	if ks.size = ks.measure(k); ks.size > cachedBytes || len(ks.cells) > cachedCells {
		return
	}
	c.young[k] = ks
	if c.size += ks.size; c.size > c.budget {
		c.old, c.young, c.size = c.young, map[crdt.Key]*keyState{}, 0
	}
}

// measure returns about what the state takes in memory.
func (ks *keyState) measure(k crdt.Key) int {
	n := 200 + len(k.Name)
	if ks.header != nil {
		n += 120
		for _, p := range ks.header.Pending {
			n += 40 + 16*len(p.Ctx)
		}
	}
	if len(ks.cells) > cachedCells {
		return cachedBytes + 1
	}
	for ck, cs := range ks.cells {
		n += 150 + len(ck.elem)
		if cs.cell == nil {
			continue
		}
		n += 100 + 64*len(cs.cell.Values) + 120*len(cs.cell.Counts) + 16*len(cs.cell.Pending)
		for _, v := range cs.cell.Values {
			n += len(v.Value)
		}
	}
	return n
}

// settled makes the state that of a key as it is stored now.
func (ks *keyState) settled() {
	if ks.dirty {
		ks.dirty, ks.stored = false, flagsOfHeader(ks.header)
	}
	for _, cs := range ks.cells {
		if !cs.dirty {
			continue
		}
		cs.dirty, cs.stored = false, flagsOfCell(cs.cell)
		for i := range cs.cell.Values {
			// A client's value may be a piece of a large buffer.
			v := &cs.cell.Values[i]
			v.Value = append([]byte(nil), v.Value...)
		}
	}
}
