package crdt

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// Kind says what a cell holds and so how its values become visible.
type Kind uint8

// Kinds. The numbers are part of the storage and wire formats.
const (
	KindAny       Kind = 0 // as the target of a remove: every kind under the key
	KindString    Kind = 1
	KindField     Kind = 2
	KindMember    Kind = 3
	KindScored    Kind = 4
	KindItem      Kind = 5
	KindEntry     Kind = 6
	KindGroup     Kind = 7
	KindPending   Kind = 8
	KindRegisters Kind = 9
	KindExpiry    Kind = 10
	numKinds           = 11
)

// Type is the Redis type of a key: what its visible cells make it.
type Type uint8

// Types, in the order of their first kinds.
const (
	TypeNone Type = iota
	TypeString
	TypeHash
	TypeSet
	TypeZSet
	TypeList
	TypeStream
	NumTypes = iota
)

// String returns the type as Redis's TYPE names it.
func (t Type) String() string {
	return [...]string{"none", "string", "hash", "set", "zset", "list", "stream"}[t]
}

// Type returns the type that live cells of the kind make a key. Expiries make
// none, and neither does what the readers of a stream have done (KindPending):
// it means something only as long as the stream and its groups are there.
func (k Kind) Type() Type {
	if k == KindPending {
		return TypeNone
	}
	return k.Of()
}

// Of returns the type of the keys that have cells of the kind; none for
// expiries, which all have.
func (k Kind) Of() Type { return typesOf[k] }

var typesOf = [numKinds]Type{KindString: TypeString, KindRegisters: TypeString, KindField: TypeHash,
	KindMember: TypeSet, KindScored: TypeZSet, KindItem: TypeList,
	KindEntry: TypeStream, KindGroup: TypeStream, KindPending: TypeStream}

// Never is the expiry of a key that PERSIST made lasting: later than any time.
const Never int64 = math.MaxInt64

// Sibling is one value of a cell and the write that put it there.
type Sibling struct {
	Dot   Dot
	Value []byte
}

// Count is one stream's share of a counter. Sum only changes by increments of
// its own stream and holds all of them since Epoch, the tag of the first; what
// removes have taken away is told by ResetSum. An increment made when
// everything before it had been reset begins a new epoch, and a greater epoch
// replaces the count whole.
type Count struct {
	Stream   Stream
	Epoch    Tag
	Tag      Tag // newest increment applied; 0 if only a reset has come so far
	Sum      Number
	ResetTag Tag // newest increment that a remove has seen; 0 if none
	ResetSum Number
	ResetBy  Dot // the remove that saw ResetTag
}

// Live reports whether the count has an increment that no remove has seen.
func (k *Count) Live() bool { return k.Tag > k.ResetTag }

// Amount returns what the count adds to the visible value.
func (k *Count) Amount() Number {
	if !k.Live() {
		return Number{}
	}
	return k.Sum.Sub(k.ResetSum)
}

// Cell is the building block of every value: an optimised observed-remove
// multi-value register (Bieniusa et al., "An optimized conflict-free
// replicated set", 2012) with a resettable counter beside it.
type Cell struct {
	Values  []Sibling // greatest dot first
	Counts  []Count   // by stream
	Pending Vector    // what removes have seen beyond this replica's vector
	// Hidden is set in the expiry of a hash field whose time has passed here. It is
	// the replica's own, and no part of the state that replicas share.
	Hidden bool
}

// Empty reports whether nothing is left to store.
func (c *Cell) Empty() bool {
	return len(c.Values) == 0 && len(c.Counts) == 0 && len(c.Pending) == 0
}

// Live reports whether the cell makes its key exist.
func (c *Cell) Live() bool {
	return len(c.Values) > 0 || c.hasCount()
}

// Remnant reports whether the cell holds anything that is not live and that
// Keyspace.Tidy can drop one day.
func (c *Cell) Remnant() bool {
	if len(c.Pending) > 0 {
		return true
	}
	for i := range c.Counts {
		if !c.Counts[i].Live() {
			return true
		}
	}
	return false
}

func (c *Cell) hasCount() bool {
	for i := range c.Counts {
		if c.Counts[i].Live() {
			return true
		}
	}
	return false
}

// Newest returns the greatest dot that is live in the cell.
func (c *Cell) Newest() Dot {
	var d Dot
	if len(c.Values) > 0 {
		d = c.Values[0].Dot
	}
	for i := range c.Counts {
		if k := &c.Counts[i]; k.Live() {
			if e := (Dot{k.Tag, k.Stream}); e.Compare(d) > 0 {
				d = e
			}
		}
	}
	return d
}

// Amount returns the sum of the cell's increments.
func (c *Cell) Amount() Number {
	var n Number
	for i := range c.Counts {
		n = n.Add(c.Counts[i].Amount())
	}
	return n
}

// Text returns the visible value of a string or field cell: the greatest
// value, plus the increments if it is a number. The result may share the
// cell's memory. nil if the cell is not live.
func (c *Cell) Text() []byte {
	counted := c.hasCount()
	switch {
	case len(c.Values) == 0 && !counted:
		return nil
	case len(c.Values) == 0:
		return c.Amount().Append(nil)
	case !counted:
		return c.Values[0].Value
	}
	base, err := ParseNumber(c.Values[0].Value)
	if err != nil {
		return c.Values[0].Value // the increments sleep
	}
	return base.Add(c.Amount()).Append(nil)
}

// Visible returns the visible value of a live cell of the kind: its Text; of a
// score all its digits, for ParseScore or ParseNumber; of registers the greatest
// of each over the siblings. Of the siblings of what groups and their readers
// have written (KindGroup, KindPending) the greatest shows, compared as bytes, and
// not the newest: those are positions and times, of which two nodes that went on
// at once have both reached the further one. The result may share the cell's
// memory.
func (c *Cell) Visible(kind Kind) []byte {
	switch {
	case kind == KindScored:
		return c.scoreText()
	case kind == KindRegisters && len(c.Values) > 1:
		return c.joined()
	case (kind == KindGroup || kind == KindPending) && len(c.Values) > 1:
		top := slices.MaxFunc(c.Values, func(a, b Sibling) int { return bytes.Compare(a.Value, b.Value) })
		c = &Cell{Values: []Sibling{top}, Counts: c.Counts}
	}
	return c.Text()
}

// joined returns the greatest of each byte over the values.
func (c *Cell) joined() []byte {
	var out []byte
	for _, v := range c.Values {
		for len(out) < len(v.Value) {
			out = append(out, 0)
		}
		for i, r := range v.Value {
			out[i] = max(out[i], r)
		}
	}
	return out
}

// Expiry returns the visible time of an expiry cell, the latest of its
// siblings: Unix milliseconds, Never, or 0 if there is none.
func (c *Cell) Expiry() int64 {
	var at int64
	for _, s := range c.Values {
		at = max(at, decodeExpiry(s.Value))
	}
	return at
}

func encodeExpiry(at int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(at)) }

func decodeExpiry(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

// Seen is what the writer of a remove saw of one stream's count.
type Seen struct {
	Stream Stream
	Epoch  Tag
	Tag    Tag
	Sum    Number
}

// seen lists the counts a remove made by stream s must carry. Its own need
// no telling: every replica is just as far when the remove comes.
func (c *Cell) seen(s Stream) []Seen {
	var out []Seen
	for i := range c.Counts {
		if k := &c.Counts[i]; k.Stream != s && k.Tag != 0 {
			out = append(out, Seen{k.Stream, k.Epoch, k.Tag, k.Sum})
		}
	}
	return out
}

// remove applies a remove made by dot by with context ctx. have is the
// replica's vector before it; what ctx holds beyond it is kept in Pending when
// keep is set (and by the key or database otherwise).
func (c *Cell) remove(by Dot, ctx Vector, seen []Seen, have Vector, keep bool) {
	c.Values = slices.DeleteFunc(c.Values, func(v Sibling) bool {
		// Everything here of the remover's own stream came before the remove.
		return v.Dot.Stream == by.Stream || ctx.Covers(v.Dot)
	})
	c.Counts = slices.DeleteFunc(c.Counts, func(k Count) bool {
		// The remover's own count goes without a remnant, for its origin knows.
		// What another remove has told of a later epoch stays: in a range that
		// was folded, that epoch's increments come with this very delta.
		return k.Stream == by.Stream && (k.Epoch < by.Tag || k.Epoch == by.Tag && k.Tag != 0)
	})
	for i := range c.Counts {
		if k := &c.Counts[i]; k.Tag > k.ResetTag && k.Tag <= ctx.Get(k.Stream) {
			k.ResetTag, k.ResetSum, k.ResetBy = k.Tag, k.Sum, by
		}
	}
	for _, s := range seen {
		c.reset(s, by, have)
	}
	if keep {
		c.Pending = joinPending(c.Pending, ctx, by.Stream, have)
	}
}

// reset records that a remove saw s.
func (c *Cell) reset(s Seen, by Dot, have Vector) {
	i, ok := c.count(s.Stream)
	if !ok {
		if s.Tag <= have.Get(s.Stream) {
			return // seen, reset and forgotten here already
		}
		c.Counts = slices.Insert(c.Counts, i, Count{Stream: s.Stream, Epoch: s.Epoch})
	}
	k := &c.Counts[i]
	switch {
	case k.Epoch > s.Epoch:
		return
	case k.Epoch < s.Epoch:
		*k = Count{Stream: s.Stream, Epoch: s.Epoch}
	}
	if s.Tag > k.ResetTag {
		k.ResetTag, k.ResetSum, k.ResetBy = s.Tag, s.Sum, by
	}
}

// put adds a value. The caller has asked stopped.
func (c *Cell) put(d Dot, value []byte) {
	i, ok := slices.BinarySearchFunc(c.Values, d, func(s Sibling, d Dot) int { return d.Compare(s.Dot) })
	if ok {
		c.Values[i].Value = value
		return
	}
	c.Values = slices.Insert(c.Values, i, Sibling{d, value})
}

// add sets a stream's sum; stopped says that a remove which came before it had
// seen it.
func (c *Cell) add(s Stream, a *Add, stopped bool) {
	i, ok := c.count(s)
	if !ok {
		if stopped {
			return // its writer knew of the reset: what follows has a new epoch
		}
		c.Counts = slices.Insert(c.Counts, i, Count{Stream: s, Epoch: a.Epoch})
	}
	k := &c.Counts[i]
	if a.Epoch < k.Epoch || a.Epoch == k.Epoch && a.Tag < k.Tag {
		return
	}
	if a.Epoch > k.Epoch {
		*k = Count{Stream: s, Epoch: a.Epoch}
	}
	k.Tag, k.Sum = a.Tag, a.Sum
	if stopped && k.ResetTag < k.Tag {
		k.ResetTag, k.ResetSum = k.Tag, k.Sum
	}
}

// count finds a stream's count, or where it belongs.
func (c *Cell) count(s Stream) (int, bool) {
	return slices.BinarySearchFunc(c.Counts, s, func(k Count, s Stream) int {
		switch {
		case k.Stream < s:
			return -1
		case k.Stream > s:
			return 1
		}
		return 0
	})
}

// tidy drops resets of which the count's own origin is known to know, so that
// no delta to come can need them. known(s) is the context of the newest entry
// or heartbeat of s, and is read together with have: everything s wrote up to
// then is here.
func (c *Cell) tidy(have Vector, known func(Stream) Vector) {
	c.Counts = slices.DeleteFunc(c.Counts, func(k Count) bool {
		if k.Live() || k.ResetTag > have.Get(k.Stream) {
			return false
		}
		// A count that never came though its stream has passed it was
		// swallowed by a later remove of its own stream.
		return k.Tag == 0 || known(k.Stream).Covers(k.ResetBy)
	})
}

// merge joins the state of another replica into the cell. mine and theirs are
// the two replicas' vectors, outer and theirOuter what the key and database
// hold pending on each side.
func (c *Cell) merge(o *Cell, mine, theirs, outer, theirOuter Vector) {
	gone := func(d Dot, v, cell, outer Vector) bool { return v.Covers(d) || cell.Covers(d) || outer.Covers(d) }
	values := make([]Sibling, 0, len(c.Values)+len(o.Values))
	for _, v := range c.Values {
		if o.has(v.Dot) || !gone(v.Dot, theirs, o.Pending, theirOuter) {
			values = append(values, v)
		}
	}
	for _, v := range o.Values {
		if !c.has(v.Dot) && !gone(v.Dot, mine, c.Pending, outer) {
			values = append(values, v)
		}
	}
	slices.SortFunc(values, func(a, b Sibling) int { return b.Dot.Compare(a.Dot) })

	var counts []Count
	for i := range c.Counts {
		k := c.Counts[i]
		if j, ok := o.count(k.Stream); ok {
			counts = append(counts, mergeCount(
				stopCount(k, o.Counts[j].Tag, o.Pending, theirOuter),
				stopCount(o.Counts[j], k.Tag, c.Pending, outer)))
		} else if !forgotten(&k, theirs, o.Pending, theirOuter) {
			counts = append(counts, k)
		}
	}
	for i := range o.Counts {
		k := o.Counts[i]
		if _, ok := c.count(k.Stream); !ok && !forgotten(&k, mine, c.Pending, outer) {
			counts = append(counts, k)
		}
	}
	slices.SortFunc(counts, func(a, b Count) int {
		if a.Stream < b.Stream {
			return -1
		}
		return 1
	})
	c.Values, c.Counts = values, counts
	c.Pending = c.Pending.Join(o.Pending).Beyond(mine.Join(theirs))
}

func (c *Cell) has(d Dot) bool {
	return slices.ContainsFunc(c.Values, func(v Sibling) bool { return v.Dot == d })
}

// forgotten reports that a replica with vector v, which has no such count,
// once had it and dropped it, or has seen a remove that covers it.
func forgotten(k *Count, v, pending, outer Vector) bool {
	newest := k.Tag
	if newest == 0 {
		newest = k.ResetTag
	}
	d := Dot{newest, k.Stream}
	return v.Covers(d) || pending.Covers(d) || outer.Covers(d)
}

// stopCount applies to a count what a replica that has it only up to seen
// holds pending. That tells of a remove whose writer had no such count any
// more, or Seen would have told of it: the count's origin has ended the epoch,
// and the reset needs no remnant that would wait for it to know.
func stopCount(k Count, seen Tag, pending, outer Vector) Count {
	d := Dot{k.Tag, k.Stream}
	if k.Live() && seen < k.Tag && (pending.Covers(d) || outer.Covers(d)) {
		k.ResetTag, k.ResetSum, k.ResetBy = k.Tag, k.Sum, Dot{}
	}
	return k
}

func mergeCount(a, b Count) Count {
	switch {
	case a.Epoch > b.Epoch:
		return a
	case a.Epoch < b.Epoch:
		return b
	}
	if b.Tag > a.Tag {
		a.Tag, a.Sum = b.Tag, b.Sum
	}
	if b.ResetTag > a.ResetTag || b.ResetTag == a.ResetTag && b.ResetBy.Compare(a.ResetBy) > 0 {
		a.ResetTag, a.ResetSum, a.ResetBy = b.ResetTag, b.ResetSum, b.ResetBy
	}
	return a
}

// joinPending adds the part of ctx beyond have, but for the remover's own
// stream, which is in order.
func joinPending(p, ctx Vector, own Stream, have Vector) Vector {
	for _, q := range ctx {
		if q.Stream != own && q.Tag > have.Get(q.Stream) {
			if p.Get(q.Stream) < q.Tag {
				p = p.Clone()
				p.Set(q.Stream, q.Tag)
			}
		}
	}
	return p
}
