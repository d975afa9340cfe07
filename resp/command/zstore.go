package command

import (
	"math"
	"slices"
	"strings"

	"github.com/replicatord/replicatord/crdt"
)

// zsource is a sorted set, or set, that others are combined with.
type zsource struct {
	key    crdt.Key
	kind   crdt.Kind
	size   int
	weight float64
}

// score returns a member's weighted score.
func (s *zsource) score(c *Context, member string) (float64, bool) {
	if s.kind == crdt.KindMember {
		_, ok := c.Elem(s.key, s.kind, member)
		return s.weight, ok
	}
	f, ok := scoreOf(c, s.key, member)
	return float64(f * s.weight), ok
}

// aggregate joins two scores of a member.
type aggregate func(a, b float64) float64

var aggregates = []struct {
	word string
	join aggregate
}{
	{"SUM", func(a, b float64) float64 { return orZero(a + b) }},
	{"MIN", func(a, b float64) float64 {
		if b < a {
			return b
		}
		return a
	}},
	{"MAX", func(a, b float64) float64 {
		if b > a {
			return b
		}
		return a
	}},
}

// orZero is Redis's rule for infinities that cancel out, and for 0 times one.
func orZero(f float64) float64 {
	if math.IsNaN(f) {
		return 0
	}
	return f
}

// zoperation is a way to combine sorted sets. Without a join function, weights
// and aggregates are no options of it.
type zoperation struct {
	bySize  bool // Redis takes the smallest set first
	weighed bool
	combine func(c *Context, sources []zsource, join aggregate) []scored
}

var (
	zunion = zoperation{bySize: true, weighed: true, combine: unite}
	zinter = zoperation{bySize: true, weighed: true, combine: intersect}
	zdiff  = zoperation{combine: subtract}
)

// zcombine carries out ZUNIONSTORE, ZINTERSTORE and ZDIFFSTORE. Cells tell all
// that is needed: only members are looked up, in no order.
func zcombine(c *Context, op zoperation) {
	n, ok := crdt.ParseInt(c.Args[2])
	switch {
	case !ok:
		c.Out.Error(errNotInteger)
		return
	case n < 1:
		c.Out.Error("ERR at least 1 input key is needed for '" + strings.ToLower(string(cString(c.Args[0]))) + "' command")
		return
	case n > int64(len(c.Args)-3):
		c.Out.Error(errSyntax)
		return
	}
	sources := make([]zsource, n)
	for i := range sources {
		s := zsource{key: c.Key(3 + i), kind: crdt.KindScored, weight: 1}
		switch c.Type(s.key) {
		case crdt.TypeNone, crdt.TypeZSet:
		case crdt.TypeSet:
			s.kind = crdt.KindMember
		default:
			c.Out.Error(errWrongType)
			return
		}
		s.size = c.Len(s.key, s.kind)
		sources[i] = s
	}
	join := aggregates[0].join
	for rest := c.Args[3+n:]; len(rest) > 0; {
		switch {
		case op.weighed && len(rest) > len(sources) && is(rest[0], "WEIGHTS"):
			for i := range sources {
				if sources[i].weight, ok = parseDouble(rest[1+i]); !ok {
					c.Out.Error(errWeight)
					return
				}
			}
			rest = rest[1+n:]
		case op.weighed && len(rest) >= 2 && is(rest[0], "AGGREGATE"):
			join = nil
			for _, a := range aggregates {
				if is(rest[1], a.word) {
					join = a.join
				}
			}
			if join == nil {
				c.Out.Error(errSyntax)
				return
			}
			rest = rest[2:]
		default:
			c.Out.Error(errSyntax)
			return
		}
	}
	if op.bySize {
		// The order of additions shows in the last bit of a sum.
		slices.SortStableFunc(sources, func(a, b zsource) int { return a.size - b.size })
	}
	storeScored(c, c.Key(1), op.combine(c, sources, join))
}

func unite(c *Context, sources []zsource, join aggregate) []scored {
	var out []scored
	at := map[string]int{}
	for _, s := range sources {
		for _, m := range scoredMembers(c, s.key) {
			score := orZero(m.score * s.weight)
			if i, again := at[m.member]; again {
				out[i].score = join(out[i].score, score)
				continue
			}
			at[m.member] = len(out)
			out = append(out, scored{m.member, score})
		}
	}
	return out
}

func intersect(c *Context, sources []zsource, join aggregate) []scored {
	var out []scored
next:
	for _, m := range scoredMembers(c, sources[0].key) {
		m.score = orZero(m.score * sources[0].weight)
		for i := range sources[1:] {
			score, ok := sources[1+i].score(c, m.member)
			if !ok {
				continue next
			}
			m.score = join(m.score, score)
		}
		out = append(out, m)
	}
	return out
}

func subtract(c *Context, sources []zsource, _ aggregate) []scored {
	return slices.DeleteFunc(scoredMembers(c, sources[0].key), func(m scored) bool {
		return slices.ContainsFunc(sources[1:], func(s zsource) bool {
			_, ok := c.Elem(s.key, s.kind, m.member)
			return ok
		})
	})
}
