package node

import (
	"maps"
	"slices"
	"strconv"

	"github.com/replicatord/replicatord/crdt"
)

// The node removes fields from the view when their time comes, as it does keys;
// a view that knows expiries of fields is told them beside, and so hides them at
// the very moment, from whoever reads it.

// hashUpdate gathers what is to be done to a hash in the view.
type hashUpdate struct {
	b        *Batch
	k        crdt.Key
	set, del [][]byte           // set: the whole update
	due      map[int64][][]byte // fields by their expiries
	text     texts
}

// renderHash appends the updates that take a hash from what t says it was, or if
// whole is set from nothing, to what the cells hold. It reports whether the view
// may have let the key go in between, with its last field, so that it is to be told the
// expiry of the key anew.
func renderHash(b *Batch, s crdt.Store, k crdt.Key, h *crdt.Header, t *crdt.Touch, whole bool, now int64) (again bool) {
	u := hashUpdate{b: b, k: k, text: texts{most: len(t.Cells())}}
	if whole {
		u.text.most = h.Len(crdt.KindField)
	}
	if whole && !began(t) {
		expiries := map[string]int64{}
		crdt.EachFieldExpiry(s, k, func(field string, c *crdt.Cell) bool {
			if expiries[field] = c.Expiry(); c.Past(now) {
				expiries[field] = past
			}
			return true
		})
		s.EachCell(k, crdt.KindField, func(id crdt.CellID, c *crdt.Cell) bool {
			if at := expiries[id.Elem]; c.Live() && at != past {
				u.put(id.Elem, c.Text(), at)
			}
			return true
		})
	} else {
		for _, field := range touchedFields(t) {
			var e *crdt.Cell
			if h.FieldExpiries() > 0 {
				e = s.Cell(crdt.FieldExpiry(k, field))
			}
			c := s.Cell(crdt.CellID{Key: k, Kind: crdt.KindField, Elem: field})
			switch {
			case c == nil || !c.Live() || e.Past(now):
				if !whole {
					u.remove(field)
				}
			case e == nil:
				u.put(field, c.Text(), 0)
			default:
				// The view may have let it expire before it hears of another time.
				u.put(field, c.Text(), e.Expiry())
			}
		}
	}
	u.flush()
	return !whole && (h.FieldExpiries() > 0 || slices.ContainsFunc(t.Cells(), func(c crdt.TouchedCell) bool {
		_, ok := c.ID.Field()
		return ok
	}))
}

// past stands for an expiry that has passed.
const past int64 = -1

// touchedFields lists the fields that were changed, or whose expiries were, in
// order.
func touchedFields(t *crdt.Touch) []string {
	cells := t.Cells()
	out := make([]string, 0, len(cells))
	for i := range cells {
		cell := &cells[i]
		if field, ok := cell.ID.Field(); ok {
			out = append(out, field)
		} else if cell.ID.Kind == crdt.KindField {
			out = append(out, cell.ID.Elem)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (u *hashUpdate) put(field string, value []byte, at int64) {
	if u.set == nil {
		u.set = append(make([][]byte, 0, 2+min(2*u.text.most, elemsPerUpdate+1)), hset, []byte(u.k.Name))
	}
	name := u.text.bytes(field)
	u.set = append(u.set, name, value)
	if u.b.fields && at != 0 && at != crdt.Never {
		if u.due == nil {
			u.due = map[int64][][]byte{}
		}
		u.due[at] = append(u.due[at], name)
	}
	if len(u.set) >= 2+elemsPerUpdate {
		u.sendSet()
	}
}

func (u *hashUpdate) remove(field string) { u.del = append(u.del, u.text.bytes(field)) }

// flush sends what was gathered. Additions come first: a key that is empty for a
// moment loses its expiry.
func (u *hashUpdate) flush() {
	u.sendSet()
	for part := range slices.Chunk(u.del, elemsPerUpdate) {
		u.send(part, "HDEL")
	}
	for _, at := range slices.Sorted(maps.Keys(u.due)) {
		for part := range slices.Chunk(u.due[at], elemsPerUpdate) {
			args := [][]byte{strconv.AppendInt(nil, at, 10), []byte("FIELDS"), strconv.AppendInt(nil, int64(len(part)), 10)}
			args = append(args, part...)
			u.send(args, "HPEXPIREAT")
		}
	}
}

func (u *hashUpdate) sendSet() {
	if len(u.set) > 0 {
		u.b.update(u.k.DB, u.set...)
		u.set = nil
	}
}

func (u *hashUpdate) send(args [][]byte, verb string) {
	u.b.update(u.k.DB, append([][]byte{[]byte(verb), []byte(u.k.Name)}, args...)...)
}
