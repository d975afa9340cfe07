package node

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/replicatord/replicatord/crdt"
)

// A list in the view is brought level from its ends: what has changed lies in
// a head and a tail of it, most often of a few items, and these are taken off
// and put on anew. That is right whatever changed. For a change deep in a long
// list the view's own items are set, inserted and removed by index instead.

// listItem is a live item as the cells have it.
type listItem struct {
	elem  string
	value []byte
}

// listEnd is a head or, back set, a tail of a list, read from its end inwards.
type listEnd struct {
	back  bool
	items []listItem
	whole bool // there are no more
}

// read reads n more items.
func (e *listEnd) read(s crdt.Store, k crdt.Key, n int) {
	if e.whole {
		return
	}
	last := ""
	if len(e.items) > 0 {
		last = e.items[len(e.items)-1].elem
	}
	e.whole = true
	s.EachCellFrom(k, crdt.KindItem, last, e.back, func(id crdt.CellID, c *crdt.Cell) bool {
		if !c.Live() || id.Elem == last {
			return true
		}
		e.items = append(e.items, listItem{id.Elem, c.Text()})
		n--
		e.whole = n > 0
		return n > 0
	})
}

// beyond reports whether the item lies further in than all that was read.
func (e *listEnd) beyond(elem string) bool {
	if e.whole {
		return false
	}
	c := cmp.Compare(elem, e.items[len(e.items)-1].elem)
	return c > 0 && !e.back || c < 0 && e.back
}

// count returns how many of the items read lie before the element, itself not
// counted, as seen from the end.
func (e *listEnd) count(elem string) int {
	n, _ := slices.BinarySearchFunc(e.items, elem, func(i listItem, elem string) int {
		if e.back {
			return cmp.Compare(elem, i.elem)
		}
		return cmp.Compare(i.elem, elem)
	})
	return n
}

// itemChange is an item that was or is there.
type itemChange struct {
	elem    string
	was, is bool
	value   []byte
}

// Limits of what is done by index: at least so many unchanged items between
// the end and the change for each change, and no more inserts and removes, each
// of which is a search through the list.
const (
	deepItems = 64
	deepEdits = 16
)

// renderList appends the updates that take a list from what t says it was to
// what the cells hold. It reports false if there is nothing to begin from: the
// list is then to be written whole.
func renderList(b *Batch, s crdt.Store, k crdt.Key, h *crdt.Header, t *crdt.Touch) bool {
	var changes []itemChange
	for _, cell := range t.Cells() {
		id, was := cell.ID, cell.Live
		if id.Kind != crdt.KindItem {
			continue
		}
		x := itemChange{elem: id.Elem, was: was}
		if c := s.Cell(id); c != nil && c.Live() {
			x.is, x.value = true, c.Text()
		}
		if x.was || x.is {
			changes = append(changes, x)
		}
	}
	if len(changes) == 0 {
		return true
	}
	slices.SortFunc(changes, func(a, b itemChange) int { return cmp.Compare(a.elem, b.elem) })
	// Both ends are read in turn until every change lies within one of them.
	head, tail := listEnd{}, listEnd{back: true}
	i, j := 0, len(changes)
	fromHead := func(n int) {
		for head.read(s, k, n); i < j && !head.beyond(changes[i].elem); i++ {
		}
	}
	fromTail := func(n int) {
		for tail.read(s, k, n); i < j && !tail.beyond(changes[j-1].elem); j-- {
		}
	}
	for n := 1; i < j; n *= 2 {
		if fromHead(n); i < j && i == len(head.items) { // all were changes: so may be the rest
			fromHead(j - i)
		}
		if i < j {
			fromTail(n)
		}
		if i < j && len(changes)-j == len(tail.items) {
			fromTail(j - i)
		}
	}
	front, rear := changes[:i], slices.Clone(changes[i:])
	slices.Reverse(rear)
	left := h.Len(crdt.KindItem) // items that stay as they are
	for _, e := range []struct {
		end     *listEnd
		changes []itemChange
	}{{&head, front}, {&tail, rear}} {
		e.end.items = e.end.items[:e.end.extent(e.changes)]
		left -= len(e.end.items)
	}
	if left == 0 {
		return false
	}
	var trim [2]int
	for n, end := range []*listEnd{&head, &tail} {
		c := [][]itemChange{front, rear}[n]
		if deep(end, c) {
			editList(b, k, end, c)
			end.items = nil
			continue
		}
		trim[n] = len(end.items)
		for _, x := range c {
			if x.was && !x.is {
				trim[n]++
			}
			if !x.was && x.is {
				trim[n]--
			}
		}
	}
	name := []byte(k.Name)
	if trim != [2]int{} {
		b.update(k.DB, []byte("LTRIM"), name, strconv.AppendInt(nil, int64(trim[0]), 10), strconv.AppendInt(nil, -1-int64(trim[1]), 10))
	}
	for n, verb := range []string{"LPUSH", "RPUSH"} {
		items := [][]listItem{head.items, tail.items}[n]
		for n := len(items); n > 0; {
			args := [][]byte{[]byte(verb), name}
			for ; n > 0 && len(args) < 2+elemsPerUpdate; n-- {
				args = append(args, items[n-1].value)
			}
			b.update(k.DB, args...)
		}
	}
	return true
}

// extent returns how many items from the end on are up to the last of the
// changes, which are in order from the end.
func (e *listEnd) extent(changes []itemChange) int {
	if len(changes) == 0 {
		return 0
	}
	last := changes[len(changes)-1]
	n := e.count(last.elem)
	if last.is {
		n++
	}
	return n
}

// deep reports whether the changes are better made by index.
func deep(end *listEnd, changes []itemChange) bool {
	edits, kept := 0, len(end.items)
	for _, x := range changes {
		if x.was != x.is {
			edits++
		}
		if x.is {
			kept--
		}
	}
	return len(changes) > 0 && edits <= deepEdits && kept > deepItems*len(changes)
}

// editList makes changes by index, from the end inwards, so that what lies
// between the end and a change is as it shall be already.
func editList(b *Batch, k crdt.Key, end *listEnd, changes []itemChange) {
	name := []byte(k.Name)
	index := func(n int) []byte { // of the item with n between it and the end
		if end.back {
			n = -1 - n
		}
		return strconv.AppendInt(nil, int64(n), 10)
	}
	push, side, one := "LPUSH", "AFTER", "1"
	if end.back {
		push, side, one = "RPUSH", "BEFORE", "-1"
	}
	update := func(args ...[]byte) { b.update(k.DB, args...) }
	for _, x := range changes {
		n := end.count(x.elem)
		switch {
		case x.was && x.is:
			update([]byte("LSET"), name, index(n), x.value)
		case x.was:
			update([]byte("LSET"), name, index(n), b.marker)
			update([]byte("LREM"), name, []byte(one), b.marker)
		case n == 0:
			update([]byte(push), name, x.value)
		default:
			update([]byte("LSET"), name, index(n-1), b.marker)
			update([]byte("LINSERT"), name, []byte(side), b.marker, x.value)
			update([]byte("LSET"), name, index(n-1), end.items[n-1].value)
		}
	}
}
