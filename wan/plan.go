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
	origin  crdt.Stream   // the peer's own, now
	has     crdt.Vector   // what is durable there
	stalled []crdt.Stream // origins it cannot serve from its log
}

// planner chooses for each origin the one peer to have its streams from: the
// origin itself where there is a session with it, else a peer that has them.
// Each entry then comes once, whatever the shape of the mesh. The choice stays
// as long as it is good: a source is left only when it is gone, or when for a
// while it had nothing new and another did.
type planner struct {
	source map[crdt.Stream]choice
}

type choice struct {
	node    uint16
	starved time.Time // since when others have more, zero if they do not
}

// patience is how long a source may be behind others before it is left, in
// heartbeats: their vectors are at most one heartbeat old.
const patience = 3

// plan returns for each view the origins to want from it, sorted. self is this
// node's origin, and applied its vector.
func (p *planner) plan(now time.Time, heartbeat time.Duration, self crdt.Stream, applied crdt.Vector, views []view) map[uint16][]crdt.Stream {
	origins := map[crdt.Stream]bool{}
	for _, v := range views {
		origins[v.origin] = true
		for _, pos := range v.has {
			origins[pos.Stream.Origin()] = true
		}
	}
	delete(origins, self)
	out := make(map[uint16][]crdt.Stream, len(views))
	for _, v := range views {
		out[v.node] = nil
	}
	next := make(map[crdt.Stream]choice, len(origins))
	for _, o := range slices.Sorted(maps.Keys(origins)) {
		c, ok := choose(o, p.source[o], now, time.Duration(patience)*heartbeat, applied, views)
		if ok {
			next[o] = c
			out[c.node] = append(out[c.node], o)
		}
	}
	p.source = next
	return out
}

// choose decides for one origin. was is the choice so far.
func choose(o crdt.Stream, was choice, now time.Time, grace time.Duration, applied crdt.Vector, views []view) (choice, bool) {
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
		if best == nil || better(o, applied, v, best) {
			best = v
		}
	}
	switch {
	case best == nil:
		return choice{}, false
	case current == nil:
		return choice{node: best.node}, true
	case gives(current.has, o, applied) || !gives(best.has, o, applied):
		return choice{node: current.node}, true
	case was.starved.IsZero():
		return choice{node: current.node, starved: now}, true
	case now.Sub(was.starved) < grace:
		return was, true
	}
	return choice{node: best.node}, true
}

// better orders candidates: the one that has something new, for that one may
// be further in another lane; the one that is further; else by a hash that
// spreads origins over peers.
func better(o crdt.Stream, applied crdt.Vector, a, b *view) bool {
	if x, y := gives(a.has, o, applied), gives(b.has, o, applied); x != y {
		return x
	}
	if x, y := newest(a.has, o), newest(b.has, o); x != y {
		return x > y
	}
	return rank(o, a.node) > rank(o, b.node)
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
