package oplog

import (
	"slices"

	"github.com/replicatord/replicatord/crdt"
)

// Queues take their elements from an end. What they have taken leaves deleted
// rows behind until the store compacts them, and a search for the end would pass
// over all of them. So the log remembers, in memory, beyond what element nothing
// is live, and where elements are taken one after the other, which come next.

// hasEnds reports whether elements of the kind come and go at the ends.
func hasEnds(kind crdt.Kind) bool { return kind == crdt.KindItem || kind == crdt.KindEntry }

// end bounds the live cells of a kind under a key on one side: none is beyond
// elem.
type end struct {
	known  bool
	live   bool // the cell of elem is live
	elem   string
	ahead  []string // the elements next to it, the nearest last: nothing else is live among them
	stride int      // how many a search for the end is to find beside it
}

// maxAhead bounds end.ahead.
const maxAhead = 16

// moved makes an element that lies beyond the end the end.
func (s *end) moved(elem string) {
	if s.live && s.stride > 0 {
		if len(s.ahead) == 2*maxAhead {
			s.ahead = append(s.ahead[:0], s.ahead[maxAhead:]...)
		}
		s.ahead = append(s.ahead, s.elem)
	}
	s.elem, s.live = elem, true
}

// found makes an element that was searched for the end.
func (s *end) found(elem string, ahead []string) {
	*s = end{known: true, live: true, elem: elem, ahead: ahead, stride: s.stride}
}

// ends are the first and the last.
type ends struct {
	side [2]end // 0: the first
	none bool   // nothing is live
}

type endsKey struct {
	key  crdt.Key
	kind crdt.Kind
}

// endCache holds the ends of the keys used last, in two generations as
// keyCache. Bounds that a group has drawn in hold only once it is committed;
// those it has widened hold whatever becomes of it.
type endCache struct{ young, old map[endsKey]*ends }

// cachedEnds is how many keys a generation holds.
const cachedEnds = 1 << 14

func (c *endCache) get(key crdt.Key, kind crdt.Kind) *ends {
	k := endsKey{key, kind}
	if e := c.young[k]; e != nil {
		return e
	}
	e := c.old[k]
	if e != nil {
		delete(c.old, k)
		c.put(k, e)
	}
	return e
}

func (c *endCache) put(k endsKey, e *ends) {
	if len(c.young) >= cachedEnds {
		c.old, c.young = c.young, nil
	}
	if c.young == nil {
		c.young = map[endsKey]*ends{}
	}
	c.young[k] = e
}

// changed takes note that a cell was set.
func (c *endCache) changed(id crdt.CellID, live bool) {
	e := c.get(id.Key, id.Kind)
	if e == nil {
		return
	}
	if live && e.none {
		e.none = false
		for i := range e.side {
			e.side[i].found(id.Elem, nil)
		}
		return
	}
	for i := range e.side {
		s := &e.side[i]
		switch {
		case !s.known:
		case id.Elem == s.elem:
			s.live = live
		case live && beyond(id.Elem, s.elem, i == 1):
			s.moved(id.Elem)
		case live && len(s.ahead) > 0 && beyond(id.Elem, s.ahead[0], i == 1) && !slices.Contains(s.ahead, id.Elem):
			s.ahead = nil // it has come among them
		}
	}
}

// eachFromEnd is eachFrom for live cells of a kind with ends.
func (g *Group) eachFromEnd(key crdt.Key, kind crdt.Kind, from string, back bool, fn func(crdt.CellID, *crdt.Cell) bool) {
	e := g.l.ends.get(key, kind)
	if e == nil {
		e = &ends{}
		g.l.ends.put(endsKey{key, kind}, e)
	}
	s := &e.side[0]
	if back {
		s = &e.side[1]
	}
	switch {
	case e.none:
		return
	case from != "" && !(s.known && beyond(from, s.elem, back)):
		g.eachFrom(key, kind, from, back, func(id crdt.CellID, c *crdt.Cell) bool { return !c.Live() || fn(id, c) })
		return
	}
	found, last := false, "" // the last that was shown, or is known not to be live
	if s.known {
		ahead, n := s.ahead, len(s.ahead)
		for last = s.elem; ; last = ahead[n] {
			id := crdt.CellID{Key: key, Kind: kind, Elem: last}
			if c := g.Cell(id); c != nil && c.Live() {
				if !found {
					found = true
					s.found(last, ahead[:n])
				}
				if !fn(id, c) {
					return
				}
			}
			if n--; n < 0 {
				break
			}
		}
	}
	// On in the store. What takes one after the other finds more at each search.
	first, stopped, next := !found, false, []string(nil)
	g.eachFrom(key, kind, last, back, func(id crdt.CellID, c *crdt.Cell) bool {
		if !c.Live() || id.Elem == last {
			return true
		}
		if stopped {
			g.loadCell(id)
			next = append(next, id.Elem)
			return len(next) < s.stride
		}
		if !found {
			found = true
			s.found(id.Elem, nil)
		}
		more := fn(id, c)
		if !more && first {
			stopped = true
			return s.stride > 0
		}
		first = false
		return more
	})
	if stopped {
		slices.Reverse(next)
		s.ahead = next
		s.stride = min(max(4*s.stride, 4), maxAhead)
	}
	if !found && g.err == nil {
		e.none = true
	}
}

// held are cells that a group holds of a key, to be shown in order among those
// that are stored.
type held struct {
	keys  []cellKey
	elems []string // of one kind that is kept in order, instead of keys
	order *elemOrder
	kind  crdt.Kind
	back  bool
}

// held lists what the group holds of a kind in [low, high), as eachCell has
// them.
func (ks *keyState) held(kind crdt.Kind, low, high []byte, at int, back bool) held {
	to := ""
	if len(high) > at && high[at] == byte(kind) {
		to = string(high[at+1:])
	}
	if kind != crdt.KindAny {
		o := ks.inOrder(kind)
		h := held{elems: o.between(string(low[at+1:]), to), order: o, kind: kind, back: back}
		o.shown++
		return h
	}
	h := held{}
	for _, cs := range ks.cells.list {
		h.keys = append(h.keys, cs.key())
	}
	slices.SortFunc(h.keys, func(a, b cellKey) int {
		if back {
			a, b = b, a
		}
		return a.compare(b)
	})
	return h
}

func (h *held) done() {
	if h.order != nil {
		h.order.shown--
	}
}

// peek returns the first of them.
func (h *held) peek() (cellKey, bool) {
	switch {
	case len(h.keys) > 0:
		return h.keys[0], true
	case len(h.elems) == 0:
		return cellKey{}, false
	case h.back:
		return cellKey{h.kind, h.elems[len(h.elems)-1]}, true
	}
	return cellKey{h.kind, h.elems[0]}, true
}

// next drops the first of them.
func (h *held) next() {
	switch {
	case len(h.keys) > 0:
		h.keys = h.keys[1:]
	case h.back:
		h.elems = h.elems[:len(h.elems)-1]
	default:
		h.elems = h.elems[1:]
	}
}

// beyond reports whether a lies nearer to an end than b.
func beyond(a, b string, back bool) bool { return a < b && !back || a > b && back }

// elemOrder holds the elements of one kind that a group has of a key, in order.
type elemOrder struct {
	sorted, added []string
	shown         int // iterations under way
}

// all returns the elements in order; the slice holds as long as shown says
// that it is in use.
func (o *elemOrder) all() []string {
	if len(o.added) == 0 {
		return o.sorted
	}
	if o.shown > 0 {
		o.sorted = slices.Clone(o.sorted)
	}
	if len(o.added) < 8 {
		for _, e := range o.added {
			i, _ := slices.BinarySearch(o.sorted, e)
			o.sorted = slices.Insert(o.sorted, i, e)
		}
	} else {
		slices.Sort(o.added)
		merged := make([]string, 0, 2*(len(o.sorted)+len(o.added)))
		s := o.sorted
		for _, e := range o.added {
			for len(s) > 0 && s[0] < e {
				merged, s = append(merged, s[0]), s[1:]
			}
			merged = append(merged, e)
		}
		o.sorted = append(merged, s...)
	}
	o.added = o.added[:0]
	return o.sorted
}

// between returns the elements in [low, high); high "": to the last.
func (o *elemOrder) between(low, high string) []string {
	all := o.all()
	i, _ := slices.BinarySearch(all, low)
	j := len(all)
	if high != "" {
		j, _ = slices.BinarySearch(all, high)
	}
	return all[i:max(i, j)]
}
