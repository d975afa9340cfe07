package node

import (
	"slices"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// sweepPerGroup bounds the expired keys one group hides, and the remnants and
// expired keys one maintenance step looks at.
const (
	sweepPerGroup    = 256
	maintainPerStep  = 256
	purgeGraceMillis = int64(60 * time.Second / time.Millisecond)
)

// Heard is what a member was last heard to say in a heartbeat.
type Heard struct {
	Tag    crdt.Tag    // every entry that is not in Own has a greater tag
	Own    crdt.Vector // positions of its own streams at Tag
	Vector crdt.Vector // what it has, durably, all of it at one moment
}

// SweepDue reports whether a key has expired that is not hidden yet.
func (c *Core) SweepDue(now int64) bool {
	next := c.log.NextExpiry()
	return next != 0 && next <= now && c.log.Failed() == nil
}

// sweep hides the keys that have expired since the last group, so that what
// commands find, what the view shows and what digests cover agree on the
// moment of expiry.
func (c *Core) sweep() {
	now := c.Now()
	if !c.SweepDue(now) {
		return
	}
	was := c.news.watching // what expires is not changed by the command that runs
	c.news.watching = false
	defer func() { c.news.watching = was }()
	for _, k := range c.log.Expired(now, sweepPerGroup) {
		if c.ks.Sweep(k, now) {
			c.Stats.Swept++
			c.news.expired(k)
		}
	}
}

// Maintain does one bounded step of what has no hurry: expired keys are swept,
// swept ones are purged once no member can bring them back, and remnants of
// removes are dropped once no delta under way can need them. heard tells what
// each member other than this node was last heard to say; ok is false if it
// has not been heard since this node started. What forgotten nodes have made is
// all there will be of it once every member has been heard to have no more. It
// reports whether it found anything to do.
func (c *Core) Maintain(members, forgotten []uint16, heard func(node uint16) (Heard, bool)) (bool, error) {
	if err := c.Commit(); err != nil || c.log.Failed() != nil || len(c.regions.parts) > 0 {
		return false, err
	}
	c.begin()
	did := len(c.ks.Touched) > 0
	own := c.log.Identity().Node
	known := func(s crdt.Stream) crdt.Vector {
		if s.Node() == own || slices.Contains(forgotten, s.Node()) && c.newest(s, members, heard) {
			return c.ks.Have
		}
		v := c.log.Known(s)
		if h, ok := heard(s.Node()); ok && c.complete(s.Node(), h) {
			v = v.Join(h.Vector)
		}
		return v
	}
	for _, r := range c.log.Remnants(maintainPerStep) {
		if c.group.Tidy(&c.ks, r, known) {
			c.Stats.Tidied++
			did = true
		}
	}
	for _, k := range c.log.Swept(maintainPerStep) {
		if c.purgeable(k, members, heard) {
			c.startLocal()
			c.writer.SetLane(c.lane(k))
			c.writer.Purge(k)
			c.Stats.Purged++
			did = true
		}
	}
	return did, c.Commit()
}

// newest reports whether no member has been heard to have more of a stream
// than this node.
func (c *Core) newest(s crdt.Stream, members []uint16, heard func(uint16) (Heard, bool)) bool {
	for _, m := range members {
		if h, ok := heard(m); !ok || h.Vector.Get(s) > c.ks.Have.Get(s) {
			return false
		}
	}
	return true
}

// complete reports whether everything the member had made when it was heard is
// applied here. What it makes later, it makes knowing h.Vector, and with
// greater tags than h.Tag.
func (c *Core) complete(node uint16, h Heard) bool {
	if !h.Own.In(c.ks.Have) {
		return false
	}
	for _, p := range h.Vector {
		if p.Stream.Node() == node && p.Tag > c.ks.Have.Get(p.Stream) {
			return false
		}
	}
	return true
}

// purgeable reports whether this node is to remove the expired key, and no
// member can write to it any more without removing it first: each is known to
// have seen the expiry and to be past it. A grace period covers a member that
// is just joining.
//
// The removal is logged, by one node for all. Were the cells dropped by each
// node for itself, one that had done so could write to the key anew, and the
// others, where the old expiry is still there, would take the new for old.
func (c *Core) purgeable(k crdt.Key, members []uint16, heard func(uint16) (Heard, bool)) bool {
	h := c.group.Header(k)
	if h == nil || !h.Swept || h.Expiry+purgeGraceMillis > c.Now() {
		return false
	}
	cell := c.group.Cell(crdt.CellID{Key: k, Kind: crdt.KindExpiry})
	if cell == nil {
		return false
	}
	if c.purger(cell, members) != c.log.Identity().Node {
		return false
	}
	for _, m := range members {
		was, ok := heard(m)
		if !ok || was.Tag.Millis() <= h.Expiry || !c.complete(m, was) {
			return false
		}
		for _, v := range cell.Values {
			if !was.Vector.Covers(v.Dot) {
				return false
			}
		}
	}
	return true
}

// purger returns the node that purges a key with the given expiry: the one
// that set it, if it still is a member, else the one with the lowest id.
func (c *Core) purger(expiry *crdt.Cell, members []uint16) uint16 {
	lowest := c.log.Identity().Node
	for _, m := range members {
		lowest = min(lowest, m)
	}
	if by := expiry.Newest().Stream.Node(); by == c.log.Identity().Node || slices.Contains(members, by) {
		return by
	}
	return lowest
}
