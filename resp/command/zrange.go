package command

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/crdt"
)

// rangeBy is what a range of a sorted set goes by.
type rangeBy byte

const (
	byRank rangeBy = iota
	byScore
	byLex
)

// zrange is a range of a sorted set.
type zrange struct {
	by            rangeBy
	rev           bool
	start, stop   int64  // ranks, negative ones from the end
	min, max      zbound // of scores or members
	offset, limit int64  // within the range; a negative limit is none
	args          [][]byte
}

// zbound is one end of a range of scores or members.
type zbound struct {
	score  float64
	member string
	inf    int // of members: -1 before all, 1 after all
	open   bool
}

// parseZRange reads the ends of a range, given in the order in which ZRANGE
// takes them. The string is an error reply, "" for none.
func parseZRange(by rangeBy, rev bool, from, to []byte) (zrange, string) {
	r := zrange{by: by, rev: rev, limit: -1, args: [][]byte{bytes.Clone(from), bytes.Clone(to)}}
	lo, hi := from, to
	if rev {
		lo, hi = to, from
	}
	ok, ok2 := true, true
	e := ""
	switch by {
	case byRank:
		r.start, ok = crdt.ParseInt(from)
		r.stop, ok2 = crdt.ParseInt(to)
		e = errNotInteger
	case byScore:
		r.min, ok = parseScoreBound(lo)
		r.max, ok2 = parseScoreBound(hi)
		r.args = append(r.args, []byte("BYSCORE"))
		e = errScoreRange
	case byLex:
		r.min, ok = parseLexBound(lo)
		r.max, ok2 = parseLexBound(hi)
		r.args = append(r.args, []byte("BYLEX"))
		e = errLexRange
	}
	if rev {
		r.args = append(r.args, []byte("REV"))
	}
	if ok && ok2 {
		e = ""
	}
	return r, e
}

// parseScoreBound reads a score as Redis reads the ends of ranges: leniently.
func parseScoreBound(arg []byte) (zbound, bool) {
	arg = cString(arg)
	var b zbound
	if len(arg) > 0 && arg[0] == '(' {
		b.open, arg = true, arg[1:]
	}
	f, n, _ := strtod(arg)
	b.score = f
	return b, n == len(arg) && !math.IsNaN(f)
}

func parseLexBound(arg []byte) (zbound, bool) {
	if len(arg) == 0 {
		return zbound{}, false
	}
	switch arg[0] {
	case '+':
		return zbound{inf: 1, open: true}, len(cString(arg)) == 1
	case '-':
		return zbound{inf: -1, open: true}, len(cString(arg)) == 1
	case '(', '[':
		return zbound{member: string(arg[1:]), open: arg[0] == '('}, true
	}
	return zbound{}, false
}

// compareBounds compares two ends of ranges that go by the same.
func (r *zrange) compareBounds(a, b zbound) int {
	if r.by == byScore {
		return cmp.Compare(a.score, b.score)
	}
	return cmp.Or(cmp.Compare(a.inf, b.inf), strings.Compare(a.member, b.member))
}

func (r *zrange) aboveMin(m scored) bool {
	d := r.compareBounds(zbound{score: m.score, member: m.member}, r.min)
	return d > 0 || d == 0 && !r.min.open
}

func (r *zrange) belowMax(m scored) bool {
	d := r.compareBounds(zbound{score: m.score, member: m.member}, r.max)
	return d < 0 || d == 0 && !r.max.open
}

// ranks returns the ranks that are meant in a set of n members, the second one
// excluded.
func (r *zrange) ranks(n int64) (from, to int64) {
	from, to = r.start, r.stop
	if from < 0 {
		from = max(n+from, 0)
	}
	if to < 0 {
		to = n + to
	}
	to = min(to, n-1) + 1
	if from >= to {
		return 0, 0
	}
	return from, to
}

// of returns the members that are meant, in the order of the range, of a sorted
// set in its order. The result may share memory with it.
func (r *zrange) of(sorted []scored) []scored {
	if len(sorted) == 0 {
		return nil
	}
	if r.by == byRank {
		from, to := r.ranks(int64(len(sorted)))
		if !r.rev {
			return sorted[from:to]
		}
		slices.Reverse(sorted)
		return sorted[from:to]
	}
	// As Redis walks, which shows where members of different scores are asked
	// for by name: such a set is in no order of members.
	d := r.compareBounds(r.min, r.max)
	if d > 0 || d == 0 && (r.min.open || r.max.open) || !r.aboveMin(sorted[len(sorted)-1]) || !r.belowMax(sorted[0]) {
		return nil
	}
	begins, goesOn := r.aboveMin, r.belowMax
	if r.rev {
		slices.Reverse(sorted)
		begins, goesOn = goesOn, begins
	}
	i := slices.IndexFunc(sorted, begins)
	if i < 0 || !goesOn(sorted[i]) || r.offset < 0 || r.offset >= int64(len(sorted)-i) {
		return nil
	}
	sorted = sorted[i+int(r.offset):]
	if end := slices.IndexFunc(sorted, func(m scored) bool { return !goesOn(m) }); end >= 0 {
		sorted = sorted[:end]
	}
	if r.limit >= 0 && r.limit < int64(len(sorted)) {
		sorted = sorted[:r.limit]
	}
	return sorted
}

// inRange returns the members of a sorted set that are meant, in the order of
// the range. The command has written nothing yet. Errors are to be replied.
func inRange(c *Context, k crdt.Key, r *zrange) ([]scored, error) {
	size := c.Len(k, crdt.KindScored)
	if from, to := r.ranks(int64(size)); r.by == byRank && to-from == 0 {
		return nil, nil
	} else if size > maxListpack && (r.by != byRank || to-from < int64(size)) {
		out, ok, err := r.byView(c, k)
		if ok || err != nil {
			return out, err
		}
	}
	return r.of(sortedMembers(c, k)), nil
}

// byView asks the view for the members that are meant. ok is false if it
// answers something that does not fit the cells: the key has just expired by
// its clock and not yet by ours. Then the cells, which are the truth, tell;
// sorting them only takes longer.
func (r *zrange) byView(c *Context, k crdt.Key) (out []scored, ok bool, err error) {
	args := append([][]byte{[]byte("ZRANGE"), []byte(k.Name)}, r.args...)
	if r.offset != 0 || r.limit >= 0 {
		args = append(args, []byte("LIMIT"), strconv.AppendInt(nil, r.offset, 10), strconv.AppendInt(nil, r.limit, 10))
	}
	raw, err := c.View(k.DB, args...)
	if err != nil {
		return nil, false, err
	}
	size := c.Len(k, crdt.KindScored)
	list, err := parseBulks(raw, size)
	if err != nil {
		return nil, false, nil //nolint:nilerr // whatever it is, it is not the answer
	}
	out = make([]scored, len(list))
	for i, b := range list {
		out[i].member = string(b)
		if out[i].score, ok = scoreOf(c, k, out[i].member); !ok {
			return nil, false, nil
		}
		if i > 0 {
			if d := compareScored(out[i-1], out[i]); d == 0 || (d > 0) != r.rev {
				return nil, false, nil
			}
		}
		if r.by == byScore && !(r.aboveMin(out[i]) && r.belowMax(out[i])) {
			return nil, false, nil
		}
	}
	from, to := r.ranks(int64(size))
	ok = r.by != byRank && (len(out) > 0 || c.Expiry(k) == 0) || r.by == byRank && int64(len(out)) == to-from
	return out, ok, nil
}

// zremrange carries out ZREMRANGEBYRANK, ZREMRANGEBYSCORE and ZREMRANGEBYLEX.
func zremrange(c *Context, by rangeBy) {
	r, e := parseZRange(by, false, c.Args[2], c.Args[3])
	if e != "" {
		c.Out.Error(e)
		return
	}
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeZSet) {
		return
	}
	members, err := inRange(c, k, &r)
	if err != nil {
		c.Out.Error(err.Error())
		return
	}
	removeScored(c, k, members)
	c.Out.Int(int64(len(members)))
}

func zrangestore(c *Context) {
	by, rev := byRank, false
	offset, limit := int64(0), int64(-1)
	for i := 5; i < len(c.Args); i++ {
		switch a := c.Args[i]; {
		case is(a, "LIMIT") && i+2 < len(c.Args):
			var ok, ok2 bool
			offset, ok = crdt.ParseInt(c.Args[i+1])
			limit, ok2 = crdt.ParseInt(c.Args[i+2])
			if !ok || !ok2 {
				c.Out.Error(errNotInteger)
				return
			}
			i += 2
		case is(a, "REV") && !rev:
			rev = true
		case is(a, "BYLEX") && by == byRank:
			by = byLex
		case is(a, "BYSCORE") && by == byRank:
			by = byScore
		default:
			c.Out.Error(errSyntax)
			return
		}
	}
	if limit != -1 && by == byRank {
		c.Out.Error(errLimitByRank)
		return
	}
	r, e := parseZRange(by, rev, c.Args[3], c.Args[4])
	if e != "" {
		c.Out.Error(e)
		return
	}
	if by != byRank {
		r.offset, r.limit = offset, limit
	}
	dst, src := c.Key(1), c.Key(2)
	if wrongKind(c, src, crdt.TypeZSet) {
		return
	}
	members, err := inRange(c, src, &r)
	if err != nil {
		c.Out.Error(err.Error())
		return
	}
	storeScored(c, dst, members)
}

// takeEnd removes up to count members, at least one, with the lowest or
// highest scores and returns them. Errors are to be replied.
func takeEnd(c *Context, k crdt.Key, highest bool, count int64) ([]scored, error) {
	first := func(n int64) ([]scored, error) {
		r, _ := parseZRange(byRank, highest, []byte("0"), strconv.AppendInt(nil, n-1, 10))
		return inRange(c, k, &r)
	}
	if count > stockSize {
		members, err := first(count)
		if err == nil {
			removeScored(c, k, members)
		}
		return members, err
	}
	taken, settle, err := c.take(k, map[bool]string{false: "lowest", true: "highest"}[highest], int(count), func(n int) ([]string, error) {
		list, err := first(int64(n))
		names := make([]string, len(list))
		for i := range list {
			names[i] = list[i].member
		}
		return names, err
	})
	if err != nil {
		return nil, err
	}
	members := make([]scored, 0, len(taken))
	for _, name := range taken {
		if score, ok := scoreOf(c, k, name); ok {
			members = append(members, scored{member: name, score: score})
		}
	}
	removeScored(c, k, members)
	settle()
	return members, nil
}

// zpop carries out ZPOPMIN and ZPOPMAX.
func zpop(c *Context, highest bool) {
	if len(c.Args) > 3 {
		c.Out.Error(errSyntax)
		return
	}
	count, counted := int64(1), len(c.Args) == 3
	if counted {
		var ok bool
		if count, ok = crdt.ParseInt(c.Args[2]); !ok || count < 0 {
			c.Out.Error(errNotPositive)
			return
		}
	}
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeZSet) {
		return
	}
	var members []scored
	if count > 0 {
		var err error
		if members, err = takeEnd(c, k, highest, count); err != nil {
			c.Out.Error(err.Error())
			return
		}
	}
	nested := counted && c.Out.Proto == 3
	if nested {
		c.Out.Array(len(members))
	} else {
		c.Out.Array(2 * len(members))
	}
	c.Out.scored(members, nested)
}

// scored replies members with their scores, each pair an array if nested.
func (r *Reply) scored(members []scored, nested bool) {
	for _, m := range members {
		if nested {
			r.Array(2)
		}
		r.BulkString(m.member)
		r.Double(m.score)
	}
}

// popFirst takes members from the first of the keys, arguments first to last,
// that is there, and replies them with its name; nested as ZMPOP does. It
// reports whether it has replied, an error included. waiting: only Context.Ready
// serves, and a key of another type is passed over, not refused.
func popFirst(c *Context, first, last int, highest bool, count int64, nested, waiting bool) bool {
	for i := first; i <= last; i++ {
		k := c.Key(i)
		switch t := c.Type(k); {
		case t == crdt.TypeNone, waiting && (t != crdt.TypeZSet || k != c.Ready):
			continue // what changed first serves, not what is named first
		case t != crdt.TypeZSet:
			c.Out.Error(errWrongType)
			return true
		}
		members, err := takeEnd(c, k, highest, count)
		switch {
		case err != nil:
			c.Out.Error(err.Error())
			return true
		case len(members) == 0:
			continue // it has expired while the view was asked
		case nested:
			c.Out.Array(2)
			c.Out.Bulk(c.Args[i])
			c.Out.Array(len(members))
		default:
			c.Out.Array(1 + 2*len(members))
			c.Out.Bulk(c.Args[i])
		}
		c.Out.scored(members, nested)
		return true
	}
	return false
}

// zmpopOptions reads ZMPOP's arguments from numkeys on. It reports whether
// they are right, or else has replied.
func zmpopOptions(c *Context, numkeys int) (last int, highest bool, count int64, ok bool) {
	n, ok := crdt.ParseInt(c.Args[numkeys])
	if !ok || n < 1 {
		c.Out.Error(errNumKeys)
		return 0, false, 0, false
	}
	if n >= int64(len(c.Args)-numkeys-1) {
		c.Out.Error(errSyntax)
		return 0, false, 0, false
	}
	last = numkeys + int(n)
	where := last + 1
	if highest = is(c.Args[where], "MAX"); !highest && !is(c.Args[where], "MIN") {
		c.Out.Error(errSyntax)
		return 0, false, 0, false
	}
	for i := where + 1; i < len(c.Args); i++ {
		if count != 0 || !is(c.Args[i], "COUNT") || i+1 == len(c.Args) {
			c.Out.Error(errSyntax)
			return 0, false, 0, false
		}
		i++
		if count, ok = crdt.ParseInt(c.Args[i]); !ok || count < 1 {
			c.Out.Error(errCount)
			return 0, false, 0, false
		}
	}
	return last, highest, max(count, 1), true
}

func zmpop(c *Context) {
	if last, highest, count, ok := zmpopOptions(c, 1); ok && !popFirst(c, 2, last, highest, count, true, false) {
		c.Out.NullArray()
	}
}

func bzmpop(c *Context) {
	if last, highest, count, ok := zmpopOptions(c, 2); ok {
		bpop(c, c.Args[1], 3, last, func(waiting bool) bool { return popFirst(c, 3, last, highest, count, true, waiting) })
	}
}

func bzpop(c *Context, highest bool) {
	last := len(c.Args) - 2
	bpop(c, c.Args[last+1], 1, last, func(waiting bool) bool { return popFirst(c, 1, last, highest, 1, false, waiting) })
}

// bpop carries out a command that waits for one of its keys, arguments first to
// last, until pop has replied; see Context.Waits.
func bpop(c *Context, timeout []byte, first, last int, pop func(waiting bool) bool) {
	deadline, waiting := c.Resumed.(int64)
	if !waiting {
		var e string
		if deadline, e = parseTimeout(timeout, c.Now()); e != "" {
			c.Out.Error(e)
			return
		}
	}
	switch {
	case pop(waiting):
	case c.NoWait:
		c.Out.NullArray()
	default:
		w := &Wait{Deadline: deadline, Timeout: (*Reply).NullArray, State: deadline}
		for i := first; i <= last; i++ {
			w.Keys = append(w.Keys, c.Key(i))
		}
		c.Waits = w
	}
}
