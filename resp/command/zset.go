package command

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/replicatord/replicatord/crdt"
)

// A member of a sorted set is a cell of crdt.KindScored: its score is a value
// and increments on top of it. ZADD puts a value with a new dot, even where
// the score is that already, as SADD does; with INCR, and as ZINCRBY, it adds
// to the counter, so that increments of several nodes add up. What it adds is
// the decimal difference that leads to the float64 sum that Redis computes, so
// that on one node scores are Redis's to the last bit. Infinities are values.
//
// Cells are in the order of members. What needs the order of scores asks the
// view (zrange.go) and logs the effect: which members went, or where to.

var zsetCommands = []*Command{
	{Name: "BZMPOP", Arity: -5, Flags: Write | Blocking | MovableKeys, Group: "sorted-set", Since: "7.0.0",
		Summary: "Takes the first or last members out of one of several sorted sets, once there is one", Run: bzmpop},
	{Name: "BZPOPMAX", Arity: -3, Flags: Write | NoScript | Fast | Blocking, First: 1, Last: -2, Step: 1, Group: "sorted-set", Since: "5.0.0",
		Summary: "Takes the member with the highest score, once there is one", Run: func(c *Context) { bzpop(c, true) }},
	{Name: "BZPOPMIN", Arity: -3, Flags: Write | NoScript | Fast | Blocking, First: 1, Last: -2, Step: 1, Group: "sorted-set", Since: "5.0.0",
		Summary: "Takes the member with the lowest score, once there is one", Run: func(c *Context) { bzpop(c, false) }},
	{Name: "ZADD", Arity: -4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "1.2.0",
		Summary: "Puts members with their scores into a sorted set", Run: func(c *Context) { zadd(c, zaddOptions{}) }},
	{Name: "ZCARD", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "1.2.0",
		Summary: "How many members a sorted set has"},
	{Name: "ZCOUNT", Arity: 4, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.0.0",
		Summary: "How many members have scores in a range"},
	{Name: "ZDIFF", Arity: -3, Flags: ReadOnly | MovableKeys, Group: "sorted-set", Since: "6.2.0",
		Summary: "The difference of sorted sets"},
	{Name: "ZDIFFSTORE", Arity: -4, Flags: Write | DenyOOM | MovableKeys, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "6.2.0",
		Summary: "Keeps the difference of sorted sets", Run: func(c *Context) { zcombine(c, zdiff) }},
	{Name: "ZINCRBY", Arity: 4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "1.2.0",
		Summary: "Adds to the score of a member", Run: func(c *Context) { zadd(c, zaddOptions{incr: true}) }},
	{Name: "ZINTER", Arity: -3, Flags: ReadOnly | MovableKeys, Group: "sorted-set", Since: "6.2.0",
		Summary: "The intersection of sorted sets"},
	{Name: "ZINTERCARD", Arity: -3, Flags: ReadOnly | MovableKeys, Group: "sorted-set", Since: "7.0.0",
		Summary: "How many members sorted sets have in common"},
	{Name: "ZINTERSTORE", Arity: -4, Flags: Write | DenyOOM | MovableKeys, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.0.0",
		Summary: "Keeps the intersection of sorted sets", Run: func(c *Context) { zcombine(c, zinter) }},
	{Name: "ZLEXCOUNT", Arity: 4, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.8.9",
		Summary: "How many members lie in a range of names"},
	{Name: "ZMPOP", Arity: -4, Flags: Write | MovableKeys, Group: "sorted-set", Since: "7.0.0",
		Summary: "Takes the first or last members out of one of several sorted sets", Run: zmpop},
	{Name: "ZMSCORE", Arity: -3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "6.2.0",
		Summary: "The scores of several members"},
	{Name: "ZPOPMAX", Arity: -2, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "5.0.0",
		Summary: "Takes the members with the highest scores out of a sorted set", Run: func(c *Context) { zpop(c, true) }},
	{Name: "ZPOPMIN", Arity: -2, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "5.0.0",
		Summary: "Takes the members with the lowest scores out of a sorted set", Run: func(c *Context) { zpop(c, false) }},
	{Name: "ZRANDMEMBER", Arity: -2, Flags: ReadOnly | Random, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "6.2.0",
		Summary: "Members of a sorted set at random"},
	{Name: "ZRANGE", Arity: -4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "1.2.0",
		Summary: "A range of a sorted set"},
	{Name: "ZRANGEBYLEX", Arity: -4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.8.9",
		Summary: "A range of a sorted set by name"},
	{Name: "ZRANGEBYSCORE", Arity: -4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "1.0.5",
		Summary: "A range of a sorted set by score"},
	{Name: "ZRANGESTORE", Arity: -5, Flags: Write | DenyOOM, First: 1, Last: 2, Step: 1, Group: "sorted-set", Since: "6.2.0",
		Summary: "Keeps a range of a sorted set", Run: zrangestore},
	{Name: "ZRANK", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.0.0",
		Summary: "The rank of a member, lowest score first"},
	{Name: "ZREM", Arity: -3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "1.2.0",
		Summary: "Takes members out of a sorted set", Run: func(c *Context) { removeElems(c, crdt.KindScored) }},
	{Name: "ZREMRANGEBYLEX", Arity: 4, Flags: Write, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.8.9",
		Summary: "Takes a range of members by name out of a sorted set", Run: func(c *Context) { zremrange(c, byLex) }},
	{Name: "ZREMRANGEBYRANK", Arity: 4, Flags: Write, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.0.0",
		Summary: "Takes a range of members by rank out of a sorted set", Run: func(c *Context) { zremrange(c, byRank) }},
	{Name: "ZREMRANGEBYSCORE", Arity: 4, Flags: Write, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "1.2.0",
		Summary: "Takes a range of members by score out of a sorted set", Run: func(c *Context) { zremrange(c, byScore) }},
	{Name: "ZREVRANGE", Arity: -4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "1.2.0",
		Summary: "A range of a sorted set, highest score first"},
	{Name: "ZREVRANGEBYLEX", Arity: -4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.8.9",
		Summary: "A range of a sorted set by name, backwards"},
	{Name: "ZREVRANGEBYSCORE", Arity: -4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.2.0",
		Summary: "A range of a sorted set by score, highest first"},
	{Name: "ZREVRANK", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.0.0",
		Summary: "The rank of a member, highest score first"},
	{Name: "ZSCAN", Arity: -3, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.8.0",
		Summary: "The members of a sorted set, a few at a time"},
	{Name: "ZSCORE", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "1.2.0",
		Summary: "The score of a member"},
	{Name: "ZUNION", Arity: -3, Flags: ReadOnly | MovableKeys, Group: "sorted-set", Since: "6.2.0",
		Summary: "The union of sorted sets"},
	{Name: "ZUNIONSTORE", Arity: -4, Flags: Write | DenyOOM | MovableKeys, First: 1, Last: 1, Step: 1, Group: "sorted-set", Since: "2.0.0",
		Summary: "Keeps the union of sorted sets", Run: func(c *Context) { zcombine(c, zunion) }},
}

// scored is a member with its score.
type scored struct {
	member string
	score  float64
}

// compareScored is the order of a sorted set.
func compareScored(a, b scored) int {
	return cmp.Or(cmp.Compare(a.score, b.score), strings.Compare(a.member, b.member))
}

// maxListpack is up to how many members, with its default settings, Redis keeps
// a sorted set as a listpack, in which -0 is 0. Sets as small are read from the
// cells; larger ones from the view where order matters.
const maxListpack = 128

// scoreOf returns the score of a member.
func scoreOf(c *Context, k crdt.Key, member string) (float64, bool) {
	v, ok := c.Elem(k, crdt.KindScored, member)
	return readScore(v, c.Len(k, crdt.KindScored)), ok
}

func readScore(text []byte, size int) float64 {
	f := crdt.ParseScore(text)
	if f == 0 && size <= maxListpack {
		return 0
	}
	return f
}

// scoredMembers returns the members of a sorted set in the order of members, or
// those of a set, each with the score 1.
func scoredMembers(c *Context, k crdt.Key) []scored {
	size := c.Len(k, crdt.KindScored)
	out := make([]scored, 0, size+c.Len(k, crdt.KindMember))
	c.EachElem(k, crdt.KindScored, func(m string, v []byte) bool {
		out = append(out, scored{m, readScore(v, size)})
		return true
	})
	c.EachElem(k, crdt.KindMember, func(m string, _ []byte) bool {
		out = append(out, scored{m, 1})
		return true
	})
	return out
}

// sortedMembers returns the members of a sorted set in its order.
func sortedMembers(c *Context, k crdt.Key) []scored {
	out := scoredMembers(c, k)
	slices.SortFunc(out, compareScored)
	return out
}

// setScore puts a member with a score.
func setScore(c *Context, k crdt.Key, member string, score float64) {
	c.SetElem(k, crdt.KindScored, member, crdt.FormatScore(score))
}

// storeScored makes a key a sorted set of just these members, whatever it was,
// and replies how many they are. Without any the key goes.
func storeScored(c *Context, k crdt.Key, members []scored) {
	c.Remove(k)
	for _, m := range members {
		setScore(c, k, m.member, m.score)
	}
	c.Out.Int(int64(len(members)))
}

// removeScored removes some of a sorted set's members.
func removeScored(c *Context, k crdt.Key, members []scored) {
	if len(members) == c.Len(k, crdt.KindScored) {
		c.Remove(k) // one delta, however many members
		return
	}
	for _, m := range members {
		c.RemoveElem(k, crdt.KindScored, m.member)
	}
}

type zaddOptions struct{ nx, xx, gt, lt, ch, incr bool }

// zadd carries out ZADD and ZINCRBY, which takes the same options, as in Redis.
func zadd(c *Context, o zaddOptions) {
	i := 2
options:
	for ; i < len(c.Args); i++ {
		switch a := c.Args[i]; {
		case is(a, "NX"):
			o.nx = true
		case is(a, "XX"):
			o.xx = true
		case is(a, "GT"):
			o.gt = true
		case is(a, "LT"):
			o.lt = true
		case is(a, "CH"):
			o.ch = true
		case is(a, "INCR"):
			o.incr = true
		default:
			break options
		}
	}
	pairs := c.Args[i:]
	switch {
	case len(pairs) == 0 || len(pairs)%2 == 1:
		c.Out.Error(errSyntax)
		return
	case o.nx && o.xx:
		c.Out.Error(errZAddNXXX)
		return
	case o.gt && o.nx, o.lt && o.nx, o.gt && o.lt:
		c.Out.Error(errZAddGTLT)
		return
	case o.incr && len(pairs) > 2:
		c.Out.Error(errZAddIncr)
		return
	}
	members := make([]scored, 0, len(pairs)/2)
	for ; len(pairs) > 0; pairs = pairs[2:] {
		score, ok := parseDouble(pairs[0])
		if !ok {
			c.Out.Error(errNotFloat)
			return
		}
		members = append(members, scored{string(pairs[1]), score})
	}
	addScored(c, c.Key(1), members, o)
}

// addScored carries out ZADD with what it was given parsed. Of INCR there is
// one member.
func addScored(c *Context, k crdt.Key, members []scored, o zaddOptions) {
	if wrongKind(c, k, crdt.TypeZSet) {
		return
	}
	var n int64
	changed := false
	defer func() {
		if !changed {
			c.Quiet(k)
		}
	}()
	for _, m := range members {
		text, there := c.Elem(k, crdt.KindScored, m.member)
		cur, score := readScore(text, c.Len(k, crdt.KindScored)), m.score
		if there && o.incr {
			score += cur
		}
		switch {
		case math.IsNaN(score):
			c.Out.Error(errScoreNaN)
			return
		case there && (o.nx || o.lt && score >= cur || o.gt && score <= cur), !there && o.xx:
			if o.incr {
				c.Out.Null()
				return
			}
			continue
		case o.incr:
			addToScore(c, k, m, text, cur, score)
		case there && score == cur:
			setScore(c, k, m.member, crdt.ParseScore(text)) // 0 does not become -0
		default:
			setScore(c, k, m.member, score)
		}
		changed = changed || !there || score != cur
		if o.incr {
			c.Out.Double(score)
			return
		}
		if !there || o.ch && score != cur {
			n++
		}
	}
	c.Out.Int(n)
}

// addToScore adds m.score to a member's score, cur, told exactly by text if it
// is there, which makes it sum. Counters know neither infinities nor -0.
func addToScore(c *Context, k crdt.Key, m scored, text []byte, cur, sum float64) {
	by, err := crdt.ParseNumber(crdt.FormatScore(m.score))
	minus := func(f float64) bool { return f == 0 && math.Signbit(f) }
	switch {
	case err != nil, math.IsInf(sum, 0) && !math.IsInf(cur, 0):
		setScore(c, k, m.member, sum)
		return
	case text == nil && minus(m.score), m.score == 0 && minus(crdt.ParseScore(text)):
		c.SetElem(k, crdt.KindScored, m.member, []byte("-0"))
		return
	}
	if old, err := crdt.ParseNumber(text); err == nil {
		total, _ := crdt.ParseNumber(crdt.FormatScore(sum))
		by = total.Sub(old)
	}
	c.AddElem(k, crdt.KindScored, m.member, by)
}
