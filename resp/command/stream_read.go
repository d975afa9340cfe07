package command

import (
	"math"

	"github.com/replicatord/replicatord/crdt"
)

// blockedCount is how many entries of each stream a client gets that has waited
// and not said how many it wants, as in Redis.
const blockedCount = 1000

// readOptions are the arguments of XREAD and XREADGROUP.
type readOptions struct {
	block           int64 // Unix milliseconds until when, 0: for ever; -1: not at all
	count           int64 // of entries of each stream; 0: all
	group, consumer []byte
	noAck           bool
	keys            []int // arguments
	after           []streamID
}

// newID stands for ">".
var newID = maxStreamID

// parseRead reads the arguments, and resolves "$". It replies an error and
// returns false if they are wrong, or if a key is of another type or a group is
// not there.
func parseRead(c *Context, grouped bool) (o readOptions, ok bool) {
	o.block = -1
	fail := func(e string) (readOptions, bool) {
		c.Out.Error(e)
		return o, false
	}
	args, first := c.Args, 0
	for i := 1; i < len(args) && first == 0; i++ {
		more := len(args) - 1 - i
		switch a := args[i]; {
		case more > 0 && is(a, "BLOCK"):
			i++
			if o.block, ok = integer(c, args[i], errTimeoutMillis); !ok {
				return o, false
			}
			if o.block < 0 {
				return fail(errTimeoutNegative)
			}
			if c.InScript {
				return fail(errFormat("ERR %s command is not allowed with BLOCK option from scripts", args[0]))
			}
			if o.block > 0 {
				o.block = min(o.block, math.MaxInt64-c.Now()) + c.Now()
			}
		case more > 0 && is(a, "COUNT"):
			i++
			if o.count, ok = integer(c, args[i], ""); !ok {
				return o, false
			}
			o.count = max(o.count, 0)
		case more > 0 && is(a, "STREAMS"):
			if more%2 != 0 {
				return fail(errUnbalanced)
			}
			first = i + 1
		case more > 1 && is(a, "GROUP"):
			if !grouped {
				return fail(errGroupOption)
			}
			o.group, o.consumer = args[i+1], args[i+2]
			i += 2
		case is(a, "NOACK"):
			if !grouped {
				return fail(errNoAckOption)
			}
			o.noAck = true
		default:
			return fail(errSyntax)
		}
	}
	switch {
	case first == 0:
		return fail(errSyntax)
	case grouped && o.group == nil:
		return fail(errGroupMissing)
	}
	n := (len(args) - first) / 2
	for i := first; i < first+n; i++ {
		s := stream{c, c.Key(i)}
		if c.Resumed == nil {
			if wrongKind(c, s.k, crdt.TypeStream) {
				return o, false
			}
			if grouped && s.group(string(o.group)) == nil {
				return fail(errFormat("NOGROUP No such key '%s' or consumer group '%s' in XREADGROUP with GROUP option", args[i], o.group))
			}
		}
		var id streamID
		arg := args[i+n]
		switch text := string(cString(arg)); {
		case text == "$" && grouped:
			return fail(errDollarID)
		case text == "$":
			id = s.last()
		case text == ">" && !grouped:
			return fail(errNewID)
		case text == ">":
			id = newID
		default:
			if id, ok = strictID(c, arg); !ok {
				return o, false
			}
		}
		o.keys, o.after = append(o.keys, i), append(o.after, id)
	}
	return o, true
}

// wait makes the command wait, if it is to, or answers that there was nothing.
func (o *readOptions) wait(c *Context) {
	if o.block < 0 || c.NoWait {
		c.Out.NullArray()
		return
	}
	w := &Wait{Deadline: o.block, Timeout: (*Reply).NullArray, State: o.after}
	for _, i := range o.keys {
		w.Keys = append(w.Keys, c.Key(i))
	}
	c.Waits = w
}

// reply answers with the entries of streams: keys are arguments, lists the
// entries of each.
func (o *readOptions) reply(c *Context, keys []int, lists []Reply) {
	if c.Out.Proto == 3 {
		c.Out.Map(len(keys))
	} else {
		c.Out.Array(len(keys))
	}
	for i, key := range keys {
		if c.Out.Proto != 3 {
			c.Out.Array(2)
		}
		c.Out.Bulk(c.Args[key])
		c.Out.Raw(lists[i].Buf)
	}
}

func xread(c *Context) {
	o, ok := parseRead(c, false)
	if !ok {
		return
	}
	if after, resumed := c.Resumed.([]streamID); resumed {
		o.after = after
		if o.count == 0 {
			o.count = blockedCount
		}
	}
	var keys []int
	var lists []Reply
	for i, key := range o.keys {
		s := stream{c, c.Key(key)}
		from, ok := o.after[i].next()
		if !ok {
			continue // nothing comes after the last id
		}
		list := Reply{Proto: c.Out.Proto}
		if n := s.entries(&list, from, maxStreamID, false, o.count, nil); n > 0 {
			full := Reply{}
			full.Array(int(n))
			full.Raw(list.Buf)
			keys, lists = append(keys, key), append(lists, full)
			if c.Resumed != nil {
				break // the client is answered by the first key that has something
			}
		}
	}
	if len(keys) == 0 {
		o.wait(c)
		return
	}
	o.reply(c, keys, lists)
}

func xreadgroup(c *Context) {
	o, ok := parseRead(c, true)
	if !ok {
		return
	}
	if c.Resumed != nil && o.count == 0 {
		o.count = blockedCount
	}
	var keys []int
	var lists []Reply
	for i, key := range o.keys {
		s := stream{c, c.Key(key)}
		if !s.exists() {
			c.Out.Error(errStreamGone)
			return
		}
		g := s.group(string(o.group))
		if g == nil {
			c.Out.Error(errGroupGone)
			return
		}
		list := Reply{Proto: c.Out.Proto}
		switch {
		case o.after[i] != newID:
			g.history(&list, &o, o.after[i])
		case !g.fresh(&list, &o):
			continue
		}
		keys, lists = append(keys, key), append(lists, list)
		if c.Resumed != nil {
			break
		}
	}
	if len(keys) == 0 {
		o.wait(c)
		return
	}
	o.reply(c, keys, lists)
}

// history appends the entries after an id that wait for the consumer's
// acknowledgement, and counts them as delivered once more.
func (g *group) history(out *Reply, o *readOptions, after streamID) {
	name := string(o.consumer)
	g.reads(name)
	var own []delivery
	if from, ok := after.next(); ok || after == maxStreamID {
		g.drop(g.pending(from, func(d *delivery) bool {
			if d.consumer == name {
				own = append(own, *d)
			}
			return o.count == 0 || int64(len(own)) < o.count
		}))
	}
	out.Array(len(own))
	for _, d := range own {
		value, ok := g.c.Elem(g.k, crdt.KindEntry, d.id.elem())
		if !ok {
			out.Array(2)
			out.streamID(d.id)
			out.NullArray()
			continue
		}
		out.entry(d.id, value)
		d.time = g.c.Now()
		d.count++
		g.claim(d)
	}
}

// fresh appends the entries that the group has not delivered yet, what came late
// first, and delivers them; false if there is none.
func (g *group) fresh(out *Reply, o *readOptions) bool {
	var ids, gone []streamID
	var list Reply
	for _, id := range g.late(int(min(o.count, math.MaxInt32))) {
		value, ok := g.c.Elem(g.k, crdt.KindEntry, id.elem())
		if !ok {
			gone = append(gone, id)
			continue
		}
		list.entry(id, value)
		ids = append(ids, id)
	}
	late := len(ids)
	if from, ok := g.last.next(); ok && (o.count == 0 || int64(late) < o.count) {
		left := o.count
		if left != 0 {
			left -= int64(late)
		}
		g.entries(&list, from, maxStreamID, false, left, func(id streamID) { ids = append(ids, id) })
	}
	if len(ids) == 0 {
		for _, id := range gone {
			g.c.RemoveElem(g.k, crdt.KindPending, g.prefix+ofUndelivered+id.elem())
		}
		return false
	}
	name := string(o.consumer)
	g.reads(name)
	g.count(ids, late)
	if late < len(ids) {
		g.advance(ids[len(ids)-1])
	}
	for _, id := range append(gone, ids...) {
		g.c.RemoveElem(g.k, crdt.KindPending, g.prefix+ofUndelivered+id.elem())
	}
	if !o.noAck {
		for _, id := range ids {
			g.deliver(delivery{id: id, consumer: name, time: g.c.Now(), count: 1})
		}
	}
	out.Array(len(ids))
	out.Raw(list.Buf)
	return true
}
