package node

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/wan"
)

// sweepPerGroup bounds the expired keys one group hides, and the remnants and
// expired keys one maintenance step looks at.
const (
	sweepPerGroup    = 256
	maintainPerStep  = 256
	purgeGraceMillis = int64(60 * time.Second / time.Millisecond)
)

// Company is who belongs to the cluster, as a node knows it.
type Company struct {
	Members []uint16 // the others
	// Forgotten are the nodes with which there is no session any more, nor will
	// be.
	Forgotten []uint16
	// Heard is what each member was last heard to say, if it has said anything
	// since this node started.
	Heard map[uint16]wan.Heard
}

// lives lists the origins that entries are had from, own among them, and for
// each forgotten node one that no life of a node has; sorted. nil if not every
// member has been heard.
func (co *Company) lives(own crdt.Stream) []crdt.Stream {
	out := []crdt.Stream{own}
	for _, n := range co.Forgotten {
		out = append(out, crdt.NewStream(n, 0, 0))
	}
	for _, m := range co.Members {
		h, ok := co.Heard[m]
		if !ok {
			return nil
		}
		out = append(out, h.Origin)
	}
	slices.Sort(out)
	return out
}

// census returns the number by which nodes compare their lives.
func census(lives []crdt.Stream) uint64 {
	if lives == nil {
		return 0
	}
	var b []byte
	for _, s := range lives {
		b = binary.BigEndian.AppendUint64(b, uint64(s))
	}
	return max(xxhash.Sum64(b), 1)
}

// agree reports whether every member was heard to take entries from the same
// lives.
func (co *Company) agree(lives []crdt.Stream) bool {
	mine := census(lives)
	return mine != 0 && !slices.ContainsFunc(co.Members, func(m uint16) bool { return co.Heard[m].Census != mine })
}

// SweepDue reports whether a key or a field has expired that is not hidden yet.
func (c *Core) SweepDue(now int64) bool {
	next := c.log.NextExpiry()
	return next != 0 && next <= now && c.log.Failed() == nil
}

// sweep hides the keys that have expired, also those whose expiry the open group
// has brought, so that what commands find, what the view shows and what digests
// cover agree on the moment of expiry. Of fields it is the same.
func (c *Core) sweep() {
	now := c.Now()
	var due []crdt.CellID
	c.ks.EachTouched(func(k crdt.Key, t *crdt.Touch) {
		h := c.group.Header(k)
		if h == nil {
			return
		}
		if h.Expiry != 0 && h.Expiry <= now {
			due = append(due, crdt.CellID{Key: k, Kind: crdt.KindExpiry})
		}
		due = append(due, c.dueFields(k, h, t, now)...)
	})
	slices.SortFunc(due, func(a, b crdt.CellID) int {
		return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Elem, b.Elem))
	})
	was := c.news.watching // what expires is not changed by the command that runs
	c.news.watching = false
	defer func() { c.news.watching = was }()
	if c.SweepDue(now) {
		due = append(due, c.log.Expired(now, sweepPerGroup)...)
	}
	for _, id := range due {
		switch {
		case id.Elem == "" && c.ks.Sweep(id.Key, now):
			c.Stats.Swept++
			c.news.expired(id.Key)
		case id.Elem != "" && c.ks.SweepField(id, now):
			c.Stats.SweptFields++
			c.news.fieldExpired(id.Key)
		}
	}
}

// dueFields lists the expiries of fields, of those that the open group has changed
// of a key, that have passed and hide nothing yet.
func (c *Core) dueFields(k crdt.Key, h *crdt.Header, t *crdt.Touch, now int64) (due []crdt.CellID) {
	if h.FieldExpiries() == 0 {
		return nil
	}
	check := func(field string, e *crdt.Cell) bool {
		if !e.Hidden && e.Past(now) {
			due = append(due, crdt.FieldExpiry(k, field))
		}
		return true
	}
	if t.Whole {
		crdt.EachFieldExpiry(c.group, k, check)
		return due
	}
	for _, field := range touchedFields(t) {
		if e := c.group.Cell(crdt.FieldExpiry(k, field)); e != nil {
			check(field, e)
		}
	}
	return due
}

// Maintain does one bounded step of what has no hurry: expired keys are swept,
// swept ones are purged once no member can bring them back, and remnants of
// removes are dropped once no delta under way can need them. It reports whether
// it found anything to do.
//
// The reset of a count is needed as long as increments can come whose origin
// did not know of it. An origin that is there says in heartbeats what it knows.
// One that is over, for its node was forgotten or has begun another life,
// learns nothing any more: there the reset is dropped when nothing of the
// stream can come that is not applied here. See Core.over.
//
// What a remove has seen of a stream that is over and of which nobody has as
// much, for it went down with the disks of all who had, is kept for good, in
// the cell, key or database that the remove was about. No rule could drop it:
// an old copy of such a disk, should one come back, would bring back what the
// remove took away, and nothing would tell. It does not grow: it is from removes
// whose nodes shipped them, and had yet to ship what they had seen, when the
// last of those disks was lost.
func (c *Core) Maintain(co *Company) (bool, error) {
	if err := c.Commit(); err != nil || c.log.Failed() != nil || len(c.regions.parts) > 0 || c.lazyExpiry && c.SweepDue(c.Now()) {
		return false, err
	}
	c.begin()
	did := len(c.ks.Touched) > 0
	own := c.log.Identity().Origin
	lives := co.lives(own)
	agreed := co.agree(lives)
	known := func(s crdt.Stream) crdt.Vector {
		if s.Origin() == own || agreed && c.over(s, co, lives) {
			return c.ks.Have
		}
		v := c.log.Known(s)
		if h, ok := co.Heard[s.Node()]; ok && h.Origin == s.Origin() && c.complete(&h) {
			v = v.Join(h.Durable)
		}
		return v
	}
	for _, r := range c.log.Remnants(maintainPerStep) {
		if c.group.Tidy(&c.ks, r, known) {
			c.Stats.Tidied++
			did = true
		}
	}
	for _, id := range c.log.Swept(maintainPerStep) {
		if !c.purgeable(id, co) {
			continue
		}
		c.startLocal()
		c.writer.SetLane(c.laneOfKey(id.Key))
		if id.Elem == "" {
			c.writer.Purge(id.Key)
		} else {
			c.writer.PurgeField(id)
		}
		c.Stats.Purged++
		did = true
	}
	return did, c.Commit()
}

// over reports whether a stream's origin is over, and nothing of the stream can
// come that is not applied here. All members must agree on the lives.
//
// That no member has been heard to have more would not be enough: one may have
// got it since, from the origin itself or from an earlier life of another
// member, which has lost it. But each was heard to take entries from the same
// lives as this node, and to have had no more of the stream at a later moment.
// Whoever was the first to have more after that would have got it from one of
// these lives, which had it then, and so got it before. What is left is an old
// copy of a directory with entries that no member has: where those go on with
// a count that was dropped, they are refused (crdt.Keyspace.Astray).
func (c *Core) over(s crdt.Stream, co *Company, lives []crdt.Stream) bool {
	if slices.Contains(lives, s.Origin()) || !slices.ContainsFunc(lives, func(l crdt.Stream) bool { return l.Node() == s.Node() }) {
		return false
	}
	return !slices.ContainsFunc(co.Members, func(m uint16) bool { return co.Heard[m].Durable.Get(s) > c.ks.Have.Get(s) })
}

// complete reports whether everything the member had made when it was heard is
// applied here. What it makes later, it makes knowing h.Durable, and with
// greater tags than h.Tag.
func (c *Core) complete(h *wan.Heard) bool {
	if !h.Own.In(c.ks.Have) {
		return false
	}
	for _, p := range h.Durable {
		if p.Stream.Node() == h.Origin.Node() && p.Tag > c.ks.Have.Get(p.Stream) {
			return false
		}
	}
	return true
}

// purgeable reports whether this node is to remove the expired key or field, given
// the cell of its expiry, and no member can write to it any more without removing
// it first: each is known to have seen the expiry and to be past it. A grace period
// covers a member that is just joining.
//
// The removal is logged, by one node for all. Were the cells dropped by each
// node for itself, one that had done so could write to the key anew, and the
// others, where the old expiry is still there, would take the new for old.
func (c *Core) purgeable(id crdt.CellID, co *Company) bool {
	h, cell := c.group.Header(id.Key), c.group.Cell(id)
	if h == nil || cell == nil {
		return false
	}
	hidden := h.Swept
	if id.Elem != "" {
		hidden = cell.Hidden && !h.Swept // else it goes with the key
	}
	expiry := cell.Expiry()
	if !hidden || expiry+purgeGraceMillis > c.Now() {
		return false
	}
	if c.purger(cell, co.Members) != c.log.Identity().Node {
		return false
	}
	for _, m := range co.Members {
		was, ok := co.Heard[m]
		if !ok || was.Tag.Millis() <= expiry || !c.complete(&was) {
			return false
		}
		for _, v := range cell.Values {
			if !was.Durable.Covers(v.Dot) {
				return false
			}
		}
	}
	return true
}

// purger returns the node that purges what has the given expiry: the one
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
