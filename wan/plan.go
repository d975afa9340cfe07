package wan

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/replicatord/replicatord/crdt"
)

// view is what the choice of sources needs to know of a session.
type view struct {
	node    uint16
	region  string        // of the peer, "" if it has none
	origin  crdt.Stream   // the peer's own, now
	has     crdt.Vector   // what is durable there
	stalled []crdt.Stream // origins it cannot serve from its log
	feeds   []crdt.Stream // origins that it can have from themselves
}

// planner chooses for each origin the one peer to have its streams from: the
// origin itself where there is a session with it, else a peer that has them.
// Each entry then comes once, whatever the shape of the mesh. The choice stays
// as long as it is good: a source is left only when it is gone, or when for a
// while nothing came from it and another peer had more.
//
// What is of another region comes to a region once: of its members that have a
// session with the origin, the one that a hash of the two regions puts first,
// the gateway, has it from there, and the others have it from the gateway.
// Each chooses for itself, from what the others say in their heartbeats.
type planner struct {
	region  string // this node's
	self    uint16
	source  map[crdt.Stream]choice
	regions map[uint16]string // of nodes, as last heard
}

type choice struct {
	node    uint16
	starved time.Time // since when others have more, zero if they do not
	at      uint64    // how far this node was then; see progress
}

// patience is how long a source may be behind others before it is left, in
// heartbeats: their vectors are at most one heartbeat old.
const patience = 3

// plan returns for each view the origins to want from it, sorted. self is this
// node's origin, and applied its vector.
func (p *planner) plan(now time.Time, heartbeat time.Duration, self crdt.Stream, applied crdt.Vector, views []view) map[uint16][]crdt.Stream {
	origins := map[crdt.Stream]bool{}
	if p.regions == nil {
		p.regions = map[uint16]string{}
	}
	p.self = self.Node()
	for _, v := range views {
		p.regions[v.node] = v.region
		origins[v.origin] = true
		for _, pos := range v.has {
			origins[pos.Stream.Origin()] = true
		}
		for _, o := range v.feeds {
			origins[o] = true
		}
	}
	delete(origins, self)
	out := make(map[uint16][]crdt.Stream, len(views))
	for _, v := range views {
		out[v.node] = nil
	}
	next := make(map[crdt.Stream]choice, len(origins))
	for _, o := range slices.Sorted(maps.Keys(origins)) {
		c, ok := p.choose(o, p.source[o], now, time.Duration(patience)*heartbeat, applied, views)
		if ok {
			next[o] = c
			out[c.node] = append(out[c.node], o)
		}
	}
	p.source = next
	return out
}

// gateway returns the other member of this node's region to have an origin from,
// nil if this node is to have it from elsewhere.
func (p *planner) gateway(o crdt.Stream, views []view) *view {
	home := p.regions[o.Node()] // "" where there never was a session: only others can tell
	if p.region == "" || home == p.region {
		return nil
	}
	var first *view
	best := uint64(0)
	for i := range views {
		v := &views[i]
		switch {
		case slices.Contains(v.stalled, o):
		case v.origin == o:
			best = max(best, p.precedence(home, p.self)) // this node can have it from itself
			if first != nil && p.precedence(home, first.node) < best {
				first = nil
			}
		case v.region != p.region || !slices.Contains(v.feeds, o):
		case p.precedence(home, v.node) > best:
			first, best = v, p.precedence(home, v.node)
		}
	}
	return first
}

// precedence orders the members of this node's region as gateways to another.
func (p *planner) precedence(home string, node uint16) uint64 {
	b := append([]byte(p.region), 0)
	b = append(append(b, home...), 0)
	return max(1, xxhash.Sum64(binary.BigEndian.AppendUint16(b, node)))
}

// feeds returns the origins that this node can have from themselves: what it
// tells others if it is of a region.
func (p *planner) feeds(views []view) (out []crdt.Stream) {
	if p.region == "" {
		return nil
	}
	for _, v := range views {
		if !slices.Contains(v.stalled, v.origin) {
			out = append(out, v.origin)
		}
	}
	return out
}

// choose decides for one origin. was is the choice so far.
func (p *planner) choose(o crdt.Stream, was choice, now time.Time, grace time.Duration, applied crdt.Vector, views []view) (choice, bool) {
	if g := p.gateway(o, views); g != nil {
		return choice{node: g.node}, true
	}
	var best, current *view
	for i := range views {
		v := &views[i]
		switch {
		case slices.Contains(v.stalled, o):
			continue
		case v.origin == o:
			return choice{node: v.node}, true
		case newest(v.has, o) == 0:
			continue
		}
		if v.node == was.node {
			current = v
		}
		if best == nil || p.better(o, applied, v, best) {
			best = v
		}
	}
	reached := progress(applied, o)
	switch {
	case best == nil:
		return choice{}, false
	case current == nil, slices.Contains(best.feeds, o) && !slices.Contains(current.feeds, o):
		return choice{node: best.node}, true
	case gives(current.has, o, applied) || !gives(best.has, o, applied):
		return choice{node: current.node}, true
	case was.starved.IsZero() || was.at != reached:
		return choice{node: current.node, starved: now, at: reached}, true
	case now.Sub(was.starved) < grace:
		return was, true
	}
	return choice{node: best.node}, true
}

// better orders candidates: the one that has something new, for that one may
// be further in another lane; the one that can have it from the origin; the one
// in this node's region; the one that is further; else by a hash that spreads
// origins over peers.
func (p *planner) better(o crdt.Stream, applied crdt.Vector, a, b *view) bool {
	if x, y := gives(a.has, o, applied), gives(b.has, o, applied); x != y {
		return x
	}
	if x, y := slices.Contains(a.feeds, o), slices.Contains(b.feeds, o); x != y {
		return x
	}
	if x, y := p.near(a), p.near(b); x != y {
		return x
	}
	if x, y := newest(a.has, o), newest(b.has, o); x != y {
		return x > y
	}
	return rank(o, a.node) > rank(o, b.node)
}

func (p *planner) near(v *view) bool { return p.region != "" && v.region == p.region }

// progress is a number that rises whenever more of an origin is applied.
func progress(applied crdt.Vector, o crdt.Stream) (sum uint64) {
	for _, p := range applied {
		if p.Stream.Origin() == o {
			sum += uint64(p.Tag)
		}
	}
	return sum
}

func rank(o crdt.Stream, node uint16) uint64 {
	var b [10]byte
	binary.BigEndian.PutUint64(b[:], uint64(o))
	binary.BigEndian.PutUint16(b[8:], node)
	return xxhash.Sum64(b[:])
}

// newest returns the greatest tag a vector has of an origin.
func newest(v crdt.Vector, o crdt.Stream) crdt.Tag {
	var t crdt.Tag
	for _, p := range v {
		if p.Stream.Origin() == o {
			t = max(t, p.Tag)
		}
	}
	return t
}

// gives reports whether v has something of an origin that applied lacks.
func gives(v crdt.Vector, o crdt.Stream, applied crdt.Vector) bool {
	return slices.ContainsFunc(v, func(p crdt.Position) bool {
		return p.Stream.Origin() == o && p.Tag > applied.Get(p.Stream)
	})
}
