package command

import (
	"github.com/replicatord/replicatord/crdt"
)

var streamCommands = []*Command{
	{Name: "XADD", Arity: -5, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "Adds an entry to a stream", Run: xadd},
	{Name: "XDEL", Arity: -3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "Removes entries of a stream", Run: xdel},
	{Name: "XLEN", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "How many entries a stream has", Run: xlen},
	{Name: "XRANGE", Arity: -4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "A range of a stream", Run: func(c *Context) { xrange(c, false) }},
	{Name: "XREVRANGE", Arity: -4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "A range of a stream, newest first", Run: func(c *Context) { xrange(c, true) }},
	{Name: "XSETID", Arity: -3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "Sets the last id of a stream", Run: xsetid},
	{Name: "XTRIM", Arity: -4, Flags: Write, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "Removes the oldest entries of a stream", Run: xtrim},

	{Name: "XREAD", Arity: -4, Flags: ReadOnly | Blocking | MovableKeys, Group: "stream", Since: "5.0.0",
		Summary: "Entries of streams after given ones; can wait for them", Run: xread},
	{Name: "XREADGROUP", Arity: -7, Flags: Write | Blocking | MovableKeys, Group: "stream", Since: "5.0.0",
		Summary: "Entries of streams that no consumer of a group has got yet; can wait for them", Run: xreadgroup},
	{Name: "XACK", Arity: -4, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "Acknowledges entries that a consumer got", Run: xack},
	{Name: "XCLAIM", Arity: -6, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "Takes over entries that wait for acknowledgement", Run: xclaim},
	{Name: "XAUTOCLAIM", Arity: -6, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "stream", Since: "6.2.0",
		Summary: "Takes over the entries that wait for acknowledgement too long", Run: xautoclaim},
	{Name: "XPENDING", Arity: -3, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "stream", Since: "5.0.0",
		Summary: "The entries of a consumer group that wait for acknowledgement", Run: xpending},
	{Name: "XGROUP", Arity: -2, Group: "stream", Since: "5.0.0",
		Summary: "Makes and changes consumer groups", Sub: []*Command{
			{Name: "XGROUP|CREATE", Arity: -5, Flags: Write | DenyOOM, First: 2, Last: 2, Step: 1, Group: "stream", Since: "5.0.0",
				Summary: "Makes a consumer group", Run: xgroupCreate},
			{Name: "XGROUP|CREATECONSUMER", Arity: 5, Flags: Write | DenyOOM, First: 2, Last: 2, Step: 1, Group: "stream", Since: "6.2.0",
				Summary: "Makes a consumer of a group", Run: xgroupCreateConsumer},
			{Name: "XGROUP|DELCONSUMER", Arity: 5, Flags: Write, First: 2, Last: 2, Step: 1, Group: "stream", Since: "5.0.0",
				Summary: "Removes a consumer of a group", Run: xgroupDelConsumer},
			{Name: "XGROUP|DESTROY", Arity: 4, Flags: Write, First: 2, Last: 2, Step: 1, Group: "stream", Since: "5.0.0",
				Summary: "Removes a consumer group", Run: xgroupDestroy},
			{Name: "XGROUP|SETID", Arity: -5, Flags: Write, First: 2, Last: 2, Step: 1, Group: "stream", Since: "5.0.0",
				Summary: "Sets the position of a consumer group", Run: xgroupSetID},
			{Name: "XGROUP|HELP", Arity: 2, Flags: ReadOnly | Unlisted | Loading | Stale, Group: "stream", Since: "5.0.0",
				Summary: "The subcommands of XGROUP"},
		}},
	{Name: "XINFO", Arity: -2, Group: "stream", Since: "5.0.0",
		Summary: "About streams and their groups", Sub: []*Command{
			{Name: "XINFO|CONSUMERS", Arity: 4, Flags: ReadOnly, First: 2, Last: 2, Step: 1, Group: "stream", Since: "5.0.0",
				Summary: "The consumers of a group", Run: xinfoConsumers},
			{Name: "XINFO|GROUPS", Arity: 3, Flags: ReadOnly, First: 2, Last: 2, Step: 1, Group: "stream", Since: "5.0.0",
				Summary: "The groups of a stream", Run: xinfoGroups},
			{Name: "XINFO|STREAM", Arity: -3, Flags: ReadOnly, First: 2, Last: 2, Step: 1, Group: "stream", Since: "5.0.0",
				Summary: "All about a stream", Run: xinfoStream},
			{Name: "XINFO|HELP", Arity: 2, Flags: ReadOnly | Unlisted | Loading | Stale, Group: "stream", Since: "5.0.0",
				Summary: "The subcommands of XINFO"},
		}},
}

// openStream returns the stream under argument i. It replies an error and
// returns false if the key is of another type.
func openStream(c *Context, i int) (stream, bool) {
	s := stream{c, c.Key(i)}
	return s, !wrongKind(c, s.k, crdt.TypeStream)
}

// maxEntry is the greatest size of an entry's fields and values together, in
// bytes, as in Redis.
const maxEntry = 1 << 30

func xadd(c *Context) {
	o, at, ok := parseTrim(c, true)
	if !ok {
		return
	}
	fields := c.Args[min(at+1, len(c.Args)):]
	if len(fields) < 2 || len(fields)%2 == 1 {
		c.Out.Error(errArity("xadd"))
		return
	}
	if o.given && !o.auto && o.id == (streamID{}) {
		c.Out.Error(errStreamIDZero)
		return
	}
	s, ok := openStream(c, 1)
	if !ok {
		return
	}
	if o.noCreate && !s.exists() {
		c.Out.Null()
		return
	}
	last := s.last()
	if last == maxStreamID {
		c.Out.Error(errStreamFull)
		return
	}
	id := o.id
	switch {
	case !o.given:
		id = autoID(last, c.Now(), c.Tag().Node())
	case o.auto && last.ms == id.ms:
		id.seq = last.seq + 1 // 0 after the last one, which is refused
	}
	if !last.less(id) {
		c.Out.Error(errStreamIDSmall)
		return
	}
	size := 0
	for _, f := range fields {
		size += len(f)
	}
	if size > maxEntry {
		c.Out.Error(errEntryTooLarge)
		return
	}
	value := Reply{Buf: make([]byte, 0, 16+size+12*len(fields))}
	value.Array(len(fields))
	for _, f := range fields {
		value.Bulk(f)
	}
	groups := s.groups()
	elem := id.elem()
	c.SetElem(s.k, crdt.KindEntry, elem, value.Buf)
	s.addAdded(1)
	for _, g := range groups {
		if g.last.less(id) {
			c.SetElem(s.k, crdt.KindPending, g.prefix+ofUndelivered+elem, nil)
		}
	}
	if o.trim && s.trim(&o, groups) > 0 {
		c.Events = append(c.Events, Event{'t', "xtrim", s.k})
	}
	c.Out.streamID(id)
}

// autoNodes is greater than every node id.
const autoNodes = 10_000

// autoID returns the id that XADD gives an entry after last, at the time now. Its
// second part is the node's id, or that plus a multiple of 10,000 where the
// millisecond has such an id already: two nodes that add at once never choose the
// same id, and one cannot know in time that it is not alone. The greatest ids of all
// are taken as they come.
func autoID(last streamID, now int64, node uint16) streamID {
	id := streamID{uint64(max(now, 0)), uint64(node)}
	if last.ms < id.ms {
		return id
	}
	id = streamID{last.ms, last.seq - last.seq%autoNodes + uint64(node)}
	if !last.less(id) {
		id.seq += autoNodes
	}
	if id.seq > last.seq {
		return id
	}
	if last.ms < maxStreamID.ms {
		return streamID{last.ms + 1, uint64(node)}
	}
	id, _ = last.next()
	return id
}

// trim removes the oldest entries and returns how many. As in Redis, "~" takes
// only whole nodes of 100 entries (StreamNodeEntries); which ones those are is told by how many
// entries were ever added.
func (s stream) trim(o *trimOptions, groups []*group) int64 {
	length := int64(s.len())
	if !o.byID {
		excess := length - o.maxLen
		if excess <= 0 {
			return 0
		}
		if o.approx {
			n, node := int64(0), s.firstNode()
			for node > 0 && n+node <= excess && (o.limit == 0 || n+node <= o.limit) {
				n += node
				node = min(nodeEntries(), length-n)
			}
			excess = n
		}
		return s.removeFirst(excess, groups)
	}
	n, whole, node := int64(0), int64(0), s.firstNode()
	s.c.EachElemFrom(s.k, crdt.KindEntry, "", false, func(elem string, _ []byte) bool {
		if !idAt(elem).less(o.minID) || o.approx && o.limit != 0 && whole+node > o.limit {
			return false
		}
		if n++; n == whole+node || n == length {
			whole, node = n, min(nodeEntries(), length-n)
		}
		return true
	})
	if o.approx {
		n = whole
	}
	return s.removeFirst(n, groups)
}

// firstNode returns how many entries the first node of the stream would have.
func (s stream) firstNode() int64 {
	length := int64(s.len())
	n := nodeEntries()
	return min(n-(s.added()-length)%n, length)
}

// removeFirst removes the first n entries.
func (s stream) removeFirst(n int64, groups []*group) int64 {
	if n <= 0 {
		return 0
	}
	if n >= int64(s.len()) {
		s.keepLast(s.last())
		if len(groups) == 0 {
			return int64(s.c.RemoveElems(s.k, crdt.KindEntry))
		}
	}
	ids := make([]streamID, 0, n)
	s.c.EachElemFrom(s.k, crdt.KindEntry, "", false, func(elem string, _ []byte) bool {
		ids = append(ids, idAt(elem))
		return int64(len(ids)) < n
	})
	for _, id := range ids {
		s.remove(id, groups)
	}
	return int64(len(ids))
}

func xtrim(c *Context) {
	o, _, ok := parseTrim(c, false)
	if !ok {
		return
	}
	s, ok := openStream(c, 1)
	switch {
	case !ok:
	case !s.exists():
		c.Out.Int(0)
	default:
		c.Out.Int(s.trim(&o, s.groups()))
	}
}

func xdel(c *Context) {
	s, ok := openStream(c, 1)
	if !ok {
		return
	}
	if !s.exists() {
		c.Out.Int(0)
		return
	}
	ids := make([]streamID, len(c.Args)-2)
	for i, a := range c.Args[2:] {
		if ids[i], ok = strictID(c, a); !ok {
			return
		}
	}
	groups := s.groups()
	top, _ := s.edge(true)
	most := s.id(deletedElem)
	var n int64
	for _, id := range ids {
		if _, there := c.Elem(s.k, crdt.KindEntry, id.elem()); !there {
			continue
		}
		n++
		if id == top {
			s.keepLast(id)
			s.remove(id, groups)
			top, _ = s.edge(true)
		} else {
			s.remove(id, groups)
		}
		if most.less(id) {
			most = id
			s.setID(deletedElem, id)
		}
	}
	c.Out.Int(n)
}

func xsetid(c *Context) {
	id, ok := strictID(c, c.Args[2])
	if !ok {
		return
	}
	added, deleted := int64(-1), streamID{}
	for i := 3; i < len(c.Args); i += 2 {
		more := i+1 < len(c.Args)
		switch {
		case more && is(c.Args[i], "ENTRIESADDED"):
			if added, ok = integer(c, c.Args[i+1], ""); !ok {
				return
			}
			if added < 0 {
				c.Out.Error(errAddedPositive)
				return
			}
		case more && is(c.Args[i], "MAXDELETEDID"):
			if deleted, ok = strictID(c, c.Args[i+1]); !ok {
				return
			}
			if id.less(deleted) {
				c.Out.Error(errSetIDDeleted)
				return
			}
		default:
			c.Out.Error(errSyntax)
			return
		}
	}
	s := stream{c, c.Key(1)}
	if c.Type(s.k) == crdt.TypeNone {
		c.Out.Error(errNoKey)
		return
	}
	if wrongKind(c, s.k, crdt.TypeStream) {
		return
	}
	if top, there := s.edge(true); there {
		switch {
		case id.less(top):
			c.Out.Error(errSetIDSmall)
			return
		case added != -1 && int64(s.len()) > added:
			c.Out.Error(errSetIDAdded)
			return
		}
	}
	s.setID(lastElem, id)
	if added != -1 {
		b, _ := c.Elem(s.k, crdt.KindGroup, addedElem)
		was, _ := crdt.ParseInt(b)
		if n := crdt.Int(added).Sub(crdt.Int(was)); !n.IsZero() {
			c.AddElem(s.k, crdt.KindGroup, addedElem, n)
		}
	}
	if deleted != (streamID{}) {
		s.setID(deletedElem, deleted)
	}
	c.Out.OK()
}

func xlen(c *Context) {
	if s, ok := openStream(c, 1); ok {
		c.Out.Int(int64(s.len()))
	}
}

// streamID replies an id.
func (r *Reply) streamID(id streamID) {
	var buf [41]byte
	r.Bulk(id.text(buf[:0]))
}

// entries appends what lies between two ids, both included, at most count
// entries (0: all), and returns how many there are.
func (s stream) entries(out *Reply, from, to streamID, back bool, count int64, each func(streamID)) int64 {
	if to.less(from) {
		return 0
	}
	var n int64
	first, last := from.elem(), to.elem()
	if back {
		first, last = last, first
	}
	s.c.EachElemFrom(s.k, crdt.KindEntry, first, back, func(elem string, value []byte) bool {
		if !back && elem > last || back && elem < last {
			return false
		}
		id := idAt(elem)
		out.entry(id, value)
		if each != nil {
			each(id)
		}
		n++
		return n != count
	})
	return n
}

// entry replies an entry; value is that of its cell.
func (r *Reply) entry(id streamID, value []byte) {
	r.Array(2)
	r.streamID(id)
	r.Raw(value)
}

func xrange(c *Context, back bool) {
	start, end := c.Args[2], c.Args[3]
	if back {
		start, end = end, start
	}
	from, ok := parseStart(c, start)
	if !ok {
		return
	}
	to, ok := parseEnd(c, end)
	if !ok {
		return
	}
	count := int64(-1)
	for i := 4; i < len(c.Args); i += 2 {
		if !is(c.Args[i], "COUNT") || i+1 == len(c.Args) {
			c.Out.Error(errSyntax)
			return
		}
		if count, ok = integer(c, c.Args[i+1], ""); !ok {
			return
		}
		count = max(count, 0)
	}
	s, ok := openStream(c, 1)
	switch {
	case !ok:
	case !s.exists():
		c.Out.Array(0)
	case count == 0:
		c.Out.NullArray()
	default:
		var list Reply
		c.Out.Array(int(s.entries(&list, from, to, back, max(count, 0), nil)))
		c.Out.Raw(list.Buf)
	}
}
