package command

import (
	"maps"
	"slices"

	"github.com/replicatord/replicatord/crdt"
)

// openInfo returns the stream that a subcommand of XINFO is about. It replies an
// error and returns false if there is none.
func openInfo(c *Context) (stream, bool) {
	s := stream{c, c.Key(2)}
	if c.Type(s.k) == crdt.TypeNone {
		c.Out.Error(errNoKey)
		return s, false
	}
	return s, !wrongKind(c, s.k, crdt.TypeStream)
}

func xinfoStream(c *Context) {
	s, ok := openInfo(c)
	if !ok {
		return
	}
	options := c.Args[3:]
	full, count := len(options) > 0, int64(10)
	if full {
		if n := len(options); n != 1 && n != 3 || !is(options[0], "FULL") || n == 3 && !is(options[1], "COUNT") {
			c.Out.Error(errSubcommandSyntax(c.Args))
			return
		}
		if len(options) == 3 {
			if count, ok = integer(c, options[2], ""); !ok {
				return
			}
			if count < 0 {
				count = 10
			}
		}
	}
	out, n := &c.Out, s.counts()
	if full {
		out.Map(9)
	} else {
		out.Map(10)
	}
	// Redis's radix tree, as it would be with full nodes.
	nodes := (n.length + nodeEntries() - 1) / nodeEntries()
	out.number("length", n.length)
	out.number("radix-tree-keys", nodes)
	out.number("radix-tree-nodes", nodes+1)
	out.BulkString("last-generated-id")
	out.streamID(n.last)
	out.BulkString("max-deleted-entry-id")
	out.streamID(n.deleted)
	out.number("entries-added", n.added)
	out.BulkString("recorded-first-entry-id")
	out.streamID(n.first)
	if full {
		s.full(&n, count)
		return
	}
	out.number("groups", int64(len(s.groups())))
	for _, back := range []bool{false, true} {
		out.BulkString(map[bool]string{false: "first-entry", true: "last-entry"}[back])
		if s.entries(out, streamID{}, maxStreamID, back, 1, nil) == 0 {
			out.Null()
		}
	}
}

func (r *Reply) number(name string, n int64) {
	r.BulkString(name)
	r.Int(n)
}

// full answers what XINFO STREAM FULL has beyond XINFO STREAM, with up to count
// entries of each list (0: all).
func (s stream) full(n *counts, count int64) {
	out := &s.c.Out
	var list Reply
	out.BulkString("entries")
	out.Array(int(s.entries(&list, streamID{}, maxStreamID, false, count, nil)))
	out.Raw(list.Buf)
	groups := s.groups()
	out.BulkString("groups")
	out.Array(len(groups))
	for _, g := range groups {
		out.Map(7)
		out.BulkString("name")
		out.BulkString(g.name)
		out.BulkString("last-delivered-id")
		out.streamID(g.last)
		g.counters(n)
		list, by := g.consumers()
		out.number("pel-count", int64(len(list)))
		out.BulkString("pending")
		shown := list[:min(len(list), limit(count))]
		out.Array(len(shown))
		for _, d := range shown {
			out.Array(4)
			out.streamID(d.id)
			out.BulkString(d.consumer)
			out.Int(d.time)
			out.Int(int64(d.count))
		}
		out.BulkString("consumers")
		out.Array(len(by))
		for _, name := range slices.Sorted(maps.Keys(by)) {
			own := by[name]
			out.Map(4)
			out.BulkString("name")
			out.BulkString(name)
			out.number("seen-time", own.seen)
			out.number("pel-count", int64(len(own.pending)))
			out.BulkString("pending")
			shown := own.pending[:min(len(own.pending), limit(count))]
			out.Array(len(shown))
			for _, i := range shown {
				out.Array(3)
				out.streamID(list[i].id)
				out.Int(list[i].time)
				out.Int(int64(list[i].count))
			}
		}
	}
}

// limit returns a limit of which 0 means none.
func limit(count int64) int {
	if count == 0 {
		return int(^uint(0) >> 1)
	}
	return int(count)
}

// counters replies a group's entries-read and lag.
func (g *group) counters(n *counts) {
	out := &g.c.Out
	out.BulkString("entries-read")
	if g.read != -1 {
		out.Int(g.read)
	} else {
		out.Null()
	}
	out.BulkString("lag")
	if lag, ok := n.lag(g); ok {
		out.Int(lag)
	} else {
		out.Null()
	}
}

// consumerState is what a group holds of a consumer.
type consumerState struct {
	seen    int64 // Unix milliseconds
	pending []int // in the group's list
}

// consumers returns the group's pending entries, and its consumers by name: those
// that were seen, and those for whom an entry is pending.
func (g *group) consumers() ([]delivery, map[string]*consumerState) {
	by := map[string]*consumerState{}
	g.each(ofConsumer, "", func(name string, value []byte) bool {
		by[name] = &consumerState{seen: timeAt(value)}
		return true
	})
	var list []delivery
	g.pending(streamID{}, func(d *delivery) bool {
		own := by[d.consumer]
		if own == nil {
			own = &consumerState{seen: d.time}
			by[d.consumer] = own
		}
		own.pending = append(own.pending, len(list))
		list = append(list, *d)
		return true
	})
	return list, by
}

func xinfoGroups(c *Context) {
	s, ok := openInfo(c)
	if !ok {
		return
	}
	n, groups := s.counts(), s.groups()
	c.Out.Array(len(groups))
	for _, g := range groups {
		list, by := g.consumers()
		c.Out.Map(6)
		c.Out.BulkString("name")
		c.Out.BulkString(g.name)
		c.Out.number("consumers", int64(len(by)))
		c.Out.number("pending", int64(len(list)))
		c.Out.BulkString("last-delivered-id")
		c.Out.streamID(g.last)
		g.counters(&n)
	}
}

func xinfoConsumers(c *Context) {
	s, ok := openInfo(c)
	if !ok {
		return
	}
	g := s.group(string(c.Args[3]))
	if g == nil {
		c.Out.Error(errNoGroup(c.Args[3], c.Args[2]))
		return
	}
	_, by := g.consumers()
	c.Out.Array(len(by))
	for _, name := range slices.Sorted(maps.Keys(by)) {
		c.Out.Map(3)
		c.Out.BulkString("name")
		c.Out.BulkString(name)
		c.Out.number("pending", int64(len(by[name].pending)))
		c.Out.number("idle", max(c.Now()-by[name].seen, 0))
	}
}
