package crdttest

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/replicatord/replicatord/crdt"
)

// Model keeps every write that was ever made and answers by definition what a
// replica with a given vector holds. It shares no rule with package crdt: it
// knows no cells, no sums, no pending contexts, and forgets nothing.
//
// The definition:
//
//   - A put is a dot with a value. An increment is a dot with a number.
//   - A remove covers the puts and increments in its scope (a cell, the cells of
//     one kind under a key, a key, a database) that its context covers, and
//     those of its own stream that come before it.
//   - An increment with a new epoch (its epoch is its own tag) is also a remove
//     of its own stream's earlier increments in its cell: its writer had seen
//     all of them removed, and says so without repeating who did it.
//   - A put or increment is live at a vector if the vector covers it and covers
//     no write that covers it.
//
// What a cell holds is its live puts and, for each stream, the sum of its live
// increments.
type Model struct {
	streams map[crdt.Stream][]modelEntry
}

type modelEntry struct {
	tag    crdt.Tag
	deltas []crdt.Delta
	adds   []crdt.Number // what the delta of the same index adds
}

// Live is what is live in one cell.
type Live struct {
	ID     crdt.CellID
	Values []crdt.Sibling // greatest dot first
	Counts []LiveCount    // by stream
}

// LiveCount is what is live of a stream's increments in a cell.
type LiveCount struct {
	Stream crdt.Stream
	Epoch  crdt.Tag
	Tag    crdt.Tag // of the newest increment
	Amount crdt.Number
}

// Clone returns a model that grows apart from this one.
func (m *Model) Clone() *Model {
	c := &Model{streams: make(map[crdt.Stream][]modelEntry, len(m.streams))}
	for s, l := range m.streams {
		c.streams[s] = slices.Clip(l)
	}
	return c
}

// Add takes the next entry of its stream, as its writer made it and not folded
// with others. It returns what each increment in it adds, by cell.
func (m *Model) Add(e crdt.Entry) map[crdt.CellID]crdt.Number {
	if m.streams == nil {
		m.streams = map[crdt.Stream][]modelEntry{}
	}
	out := map[crdt.CellID]crdt.Number{}
	me := modelEntry{tag: e.Tag, deltas: e.Deltas, adds: make([]crdt.Number, len(e.Deltas))}
	for i, d := range e.Deltas {
		if d.Add != nil {
			me.adds[i] = d.Add.Sum.Sub(m.lastSum(e.Stream, d.ID, d.Add.Epoch))
			out[d.ID] = me.adds[i]
		}
	}
	m.streams[e.Stream] = append(m.streams[e.Stream], me)
	return out
}

// lastSum returns the stream's newest sum of an epoch in a cell.
func (m *Model) lastSum(s crdt.Stream, id crdt.CellID, epoch crdt.Tag) crdt.Number {
	l := m.streams[s]
	for i := len(l) - 1; i >= 0; i-- {
		for _, d := range l[i].deltas {
			if d.Add != nil && d.ID == id && d.Add.Epoch == epoch {
				return d.Add.Sum
			}
		}
	}
	return crdt.Int(0)
}

// place is where a delta stands in its stream.
type place struct {
	stream crdt.Stream
	tag    crdt.Tag
	index  int
}

func (p place) before(q place) bool {
	return p.tag < q.tag || p.tag == q.tag && p.index < q.index
}

// State returns what is live at a vector, by cell. Cells without anything live
// are left out. keep, if not nil, chooses keys.
func (m *Model) State(v crdt.Vector, keep func(crdt.Key) bool) []Live {
	type write struct {
		at place
		d  crdt.Delta
		n  crdt.Number
	}
	var removes []write
	cells := map[crdt.CellID][]write{}
	for s, l := range m.streams {
		for _, e := range l {
			if e.tag > v.Get(s) {
				break
			}
			for i, d := range e.deltas {
				w := write{place{s, e.tag, i}, d, e.adds[i]}
				if d.Remove != nil {
					removes = append(removes, w)
				}
				if (d.Put != nil || d.Add != nil) && (keep == nil || keep(d.ID.Key)) {
					cells[d.ID] = append(cells[d.ID], w)
				}
			}
		}
	}
	removed := func(id crdt.CellID, w write) bool {
		for _, r := range removes {
			switch {
			case !inScope(r.d, id):
			case r.at.stream == w.at.stream:
				if w.at.before(r.at) {
					return true
				}
			case r.d.Remove.Ctx.Covers(crdt.Dot{Tag: w.at.tag, Stream: w.at.stream}):
				return true
			}
		}
		return false
	}
	var out []Live
	for id, writes := range cells {
		l := Live{ID: id}
		counts := map[crdt.Stream]*LiveCount{}
		for _, w := range writes {
			if removed(id, w) {
				continue
			}
			if w.d.Put != nil {
				l.Values = append(l.Values, crdt.Sibling{Dot: crdt.Dot{Tag: w.at.tag, Stream: w.at.stream}, Value: w.d.Put.Value})
			}
			if w.d.Add == nil || slices.ContainsFunc(writes, func(o write) bool {
				return o.at.stream == w.at.stream && w.at.before(o.at) && o.d.Add != nil && o.d.Add.Epoch == o.at.tag
			}) {
				continue
			}
			c := counts[w.at.stream]
			if c == nil {
				c = &LiveCount{Stream: w.at.stream}
				counts[w.at.stream] = c
			}
			c.Amount = c.Amount.Add(w.n)
			if w.at.tag > c.Tag {
				c.Tag, c.Epoch = w.at.tag, w.d.Add.Epoch
			}
		}
		for _, c := range counts {
			l.Counts = append(l.Counts, *c)
		}
		if len(l.Values) == 0 && len(l.Counts) == 0 {
			continue
		}
		slices.SortFunc(l.Values, func(a, b crdt.Sibling) int { return b.Dot.Compare(a.Dot) })
		slices.SortFunc(l.Counts, func(a, b LiveCount) int { return cmp.Compare(a.Stream, b.Stream) })
		out = append(out, l)
	}
	sortLive(out)
	return out
}

// inScope reports whether a remove is about a cell.
func inScope(r crdt.Delta, id crdt.CellID) bool {
	switch r.Level {
	case crdt.LevelDB:
		return r.ID.Key.DB == id.Key.DB
	case crdt.LevelKey:
		return r.ID.Key == id.Key
	case crdt.LevelKind:
		return r.ID.Key == id.Key && r.ID.Kind == id.Kind
	}
	return r.ID == id
}

func sortLive(l []Live) {
	slices.SortFunc(l, func(a, b Live) int { return compareIDs(a.ID, b.ID) })
}

func compareIDs(a, b crdt.CellID) int {
	return cmp.Or(
		cmp.Compare(a.Key.DB, b.Key.DB), cmp.Compare(a.Key.Name, b.Key.Name),
		cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Elem, b.Elem))
}

// String formats what is live in a cell on one line, for comparing and for
// people.
func (l Live) String() string {
	b := fmt.Appendf(nil, "%d/%q %d %q:", l.ID.Key.DB, l.ID.Key.Name, l.ID.Kind, l.ID.Elem)
	for _, v := range l.Values {
		b = fmt.Appendf(b, " %q by %x@%x", v.Value, uint64(v.Dot.Tag), uint64(v.Dot.Stream))
	}
	for _, c := range l.Counts {
		b = fmt.Appendf(b, " %+v since %x to %x@%x", c.Amount, uint64(c.Epoch), uint64(c.Tag), uint64(c.Stream))
	}
	return string(b)
}
