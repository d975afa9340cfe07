package crdt

import (
	"fmt"
	"slices"
	"strings"
)

// Lane is a class of service a stream travels in: 0 realtime, 1 high, 2 low,
// 3 idle. Semantics do not depend on it.
type Lane uint8

// Lanes is the number of lanes.
const Lanes = 4

// laneNames are the lanes as people write them, in order.
var laneNames = [Lanes]string{"realtime", "high", "low", "idle"}

// String is the lane's name.
func (l Lane) String() string {
	if l >= Lanes {
		return fmt.Sprintf("lane(%d)", uint8(l))
	}
	return laneNames[l]
}

// ParseLane reads a lane's name.
func ParseLane(name string) (Lane, error) {
	if i := slices.Index(laneNames[:], name); i >= 0 {
		return Lane(i), nil
	}
	return 0, fmt.Errorf("%q is not one of %s", name, strings.Join(laneNames[:], ", "))
}

// Stream names a sequence of entries with rising tags: an origin (node and
// incarnation) and a lane. Layout: 12 bits of node, 48 of incarnation, 4 of
// lane, so that streams sort by node, then age, then lane.
type Stream uint64

// NewStream composes a stream name. incarnation has 48 bits: the millisecond
// since TagEpoch at which the origin began.
func NewStream(node uint16, incarnation uint64, lane Lane) Stream {
	return Stream(node)<<52 | Stream(incarnation&(1<<48-1))<<4 | Stream(lane&15)
}

// Node returns the stream's node id.
func (s Stream) Node() uint16 { return uint16(s >> 52) }

// Incarnation returns the stream's incarnation.
func (s Stream) Incarnation() uint64 { return uint64(s>>4) & (1<<48 - 1) }

// Lane returns the stream's lane.
func (s Stream) Lane() Lane { return Lane(s & 15) }

// Origin returns the stream with its lane cleared: the name of its origin.
func (s Stream) Origin() Stream { return s &^ 15 }

// String formats the stream as node.incarnation/lane.
func (s Stream) String() string {
	return fmt.Sprintf("%d.%x/%d", s.Node(), s.Incarnation(), s.Lane())
}

// Dot names one write: the stream and the tag of its entry.
type Dot struct {
	Tag    Tag
	Stream Stream
}

// Compare orders dots by tag, then stream: a total order, the same everywhere.
func (d Dot) Compare(o Dot) int {
	switch {
	case d.Tag != o.Tag:
		if d.Tag < o.Tag {
			return -1
		}
		return 1
	case d.Stream < o.Stream:
		return -1
	case d.Stream > o.Stream:
		return 1
	}
	return 0
}

// String formats the dot as stream:tag.
func (d Dot) String() string { return fmt.Sprintf("%v:%v", d.Stream, d.Tag) }

// Position is a stream and how far it has been applied.
type Position struct {
	Stream Stream
	Tag    Tag
}

// Vector maps streams to the greatest tag applied of each: a version vector,
// and as the context of a delta, what its writer had seen. It is kept sorted
// by stream; the zero value is empty. What a method returns shares no memory
// with its receiver; Set and Raise change in place.
type Vector []Position

// Get returns the tag of a stream, 0 if it has none.
func (v Vector) Get(s Stream) Tag {
	if i, ok := v.find(s); ok {
		return v[i].Tag
	}
	return 0
}

// Covers reports whether the vector has seen the dot.
func (v Vector) Covers(d Dot) bool { return d.Tag <= v.Get(d.Stream) }

// Set sets a stream's tag, in place; tag 0 removes it.
func (v *Vector) Set(s Stream, t Tag) {
	i, ok := v.find(s)
	switch {
	case ok && t == 0:
		*v = slices.Delete(*v, i, i+1)
	case ok:
		(*v)[i].Tag = t
	case t != 0:
		*v = slices.Insert(*v, i, Position{s, t})
	}
}

// Raise sets a stream's tag if it is greater than what is there.
func (v *Vector) Raise(s Stream, t Tag) {
	if t > v.Get(s) {
		v.Set(s, t)
	}
}

// Clone returns a copy.
func (v Vector) Clone() Vector { return slices.Clone(v) }

// Join returns the least vector that covers both.
func (v Vector) Join(o Vector) Vector {
	if o.In(v) {
		return v.Clone()
	}
	out := make(Vector, 0, max(len(v), len(o)))
	i, j := 0, 0
	for i < len(v) && j < len(o) {
		switch {
		case v[i].Stream < o[j].Stream:
			out = append(out, v[i])
			i++
		case v[i].Stream > o[j].Stream:
			out = append(out, o[j])
			j++
		default:
			out = append(out, Position{v[i].Stream, max(v[i].Tag, o[j].Tag)})
			i, j = i+1, j+1
		}
	}
	return append(append(out, v[i:]...), o[j:]...)
}

// In reports whether o covers everything v covers.
func (v Vector) In(o Vector) bool {
	for _, p := range v {
		if p.Tag > o.Get(p.Stream) {
			return false
		}
	}
	return true
}

// Beyond returns the part of v that o does not cover.
func (v Vector) Beyond(o Vector) Vector {
	var out Vector
	for _, p := range v {
		if p.Tag > o.Get(p.Stream) {
			out = append(out, p)
		}
	}
	return out
}

// Equal reports whether both cover the same.
func (v Vector) Equal(o Vector) bool { return slices.Equal(v, o) }

// valid reports whether the vector is in order and its tags are tags.
func (v Vector) valid() bool {
	for i, p := range v {
		if p.Tag == 0 || p.Tag > maxTag || i > 0 && p.Stream <= v[i-1].Stream {
			return false
		}
	}
	return true
}

// String formats the vector as {stream:tag …} with tags in hexadecimal.
func (v Vector) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, p := range v {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%v:%x", p.Stream, uint64(p.Tag))
	}
	return b.String() + "}"
}

func (v Vector) find(s Stream) (int, bool) {
	// Vectors are short: a scan from the front beats a binary search.
	for i := range v {
		if v[i].Stream >= s {
			return i, v[i].Stream == s
		}
	}
	return len(v), false
}
