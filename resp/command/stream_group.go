package command

import (
	"maps"
	"math"
	"slices"

	"github.com/replicatord/replicatord/crdt"
)

// groupOptions reads the options of XGROUP CREATE and SETID. It replies an error
// and returns false if they are wrong.
func groupOptions(c *Context, create bool) (mkStream bool, read int64, ok bool) {
	read = -1
	for i := 5; i < len(c.Args); i++ {
		switch {
		case create && is(c.Args[i], "MKSTREAM"):
			mkStream = true
		case i+1 < len(c.Args) && is(c.Args[i], "ENTRIESREAD"):
			i++
			if read, ok = integer(c, c.Args[i], ""); !ok {
				return mkStream, read, false
			}
			if read < -1 {
				c.Out.Error(errEntriesRead)
				return mkStream, read, false
			}
		default:
			c.Out.Error(errSubcommandSyntax(c.Args))
			return mkStream, read, false
		}
	}
	return mkStream, read, true
}

// openGroup returns the stream and group of a subcommand of XGROUP. It replies
// an error and returns false if the key is no stream, or if there is none and
// must be. The group is nil if there is none; must makes that an error too.
func openGroup(c *Context, mkStream, must bool) (s stream, g *group, ok bool) {
	s, ok = openStream(c, 2)
	if !ok {
		return s, nil, false
	}
	if !s.exists() {
		if !mkStream {
			c.Out.Error(errGroupNoKey)
		}
		return s, nil, mkStream
	}
	g = s.group(string(c.Args[3]))
	if g == nil && must {
		c.Out.Error(errNoGroup(c.Args[3], c.Args[2]))
		return s, nil, false
	}
	return s, g, true
}

func errNoGroup(group, key []byte) string {
	return errFormat("NOGROUP No such consumer group '%s' for key name '%s'", group, key)
}

func errNoKeyOrGroup(key, group []byte) string {
	return errFormat("NOGROUP No such key '%s' or consumer group '%s'", key, group)
}

func xgroupCreate(c *Context) {
	mkStream, read, ok := groupOptions(c, true)
	if !ok {
		return
	}
	s, g, ok := openGroup(c, mkStream, false)
	switch {
	case !ok:
		return
	case len(c.Args) > 8:
		c.Out.Error(errSubcommandSyntax(c.Args))
		return
	}
	var id streamID
	if string(cString(c.Args[4])) == "$" {
		id = s.last()
	} else if id, ok = strictID(c, c.Args[4]); !ok {
		return
	}
	if !s.exists() {
		s.setID(lastElem, streamID{})
	}
	if g != nil {
		c.Out.Error(errGroupBusy)
		return
	}
	g = s.groupOf(string(c.Args[3]), nil)
	g.clear() // what is left of one of that name
	g.set(id, read)
	c.Out.OK()
}

func xgroupSetID(c *Context) {
	_, read, ok := groupOptions(c, false)
	if !ok {
		return
	}
	s, g, ok := openGroup(c, false, true)
	switch {
	case !ok:
		return
	case len(c.Args) != 5 && len(c.Args) != 7:
		c.Out.Error(errSubcommandSyntax(c.Args))
		return
	}
	var id streamID
	if string(cString(c.Args[4])) == "$" {
		id = s.last()
	} else if id, ok = looseID(c, c.Args[4], 0); !ok {
		return
	}
	g.set(id, read)
	c.Out.OK()
}

func xgroupDestroy(c *Context) {
	if _, g, ok := openGroup(c, false, false); ok {
		if g != nil {
			g.destroy()
		}
		c.Out.Bool(g != nil)
	}
}

func xgroupCreateConsumer(c *Context) {
	if _, g, ok := openGroup(c, false, true); ok {
		name := string(c.Args[4])
		there := g.hasConsumer(name)
		if !there {
			g.seen(name)
		}
		c.Out.Bool(!there)
	}
}

func xgroupDelConsumer(c *Context) {
	_, g, ok := openGroup(c, false, true)
	if !ok {
		return
	}
	name := string(c.Args[4])
	var own []streamID
	g.drop(g.pending(streamID{}, func(d *delivery) bool {
		if d.consumer == name {
			own = append(own, d.id)
		}
		return true
	}))
	for _, id := range own {
		g.release(id)
	}
	c.RemoveElem(g.k, crdt.KindPending, g.prefix+ofConsumer+name)
	c.Out.Int(int64(len(own)))
}

func xack(c *Context) {
	s, ok := openStream(c, 1)
	if !ok {
		return
	}
	g := s.group(string(c.Args[2]))
	if g == nil {
		c.Out.Int(0)
		return
	}
	ids := make([]streamID, len(c.Args)-3)
	for i, a := range c.Args[3:] {
		if ids[i], ok = strictID(c, a); !ok {
			return
		}
	}
	var n int64
	for _, id := range ids {
		if g.release(id) {
			n++
		}
	}
	c.Out.Int(n)
}

func xpending(c *Context) {
	n := len(c.Args)
	if n != 3 && (n < 6 || n > 9) {
		c.Out.Error(errSyntax)
		return
	}
	var idle, count int64
	var from, to streamID
	var consumer []byte
	var ok bool
	if n > 3 {
		i := 3
		if is(c.Args[3], "IDLE") {
			if idle, ok = integer(c, c.Args[4], ""); !ok {
				return
			}
			if n < 8 {
				c.Out.Error(errSyntax)
				return
			}
			i = 5
		}
		if count, ok = integer(c, c.Args[i+2], ""); !ok {
			return
		}
		if from, ok = parseStart(c, c.Args[i]); !ok {
			return
		}
		if to, ok = parseEnd(c, c.Args[i+1]); !ok {
			return
		}
		if i+3 < n {
			consumer = c.Args[i+3]
		}
	}
	s, ok := openStream(c, 1)
	if !ok {
		return
	}
	g := s.group(string(c.Args[2]))
	switch {
	case g == nil:
		c.Out.Error(errNoKeyOrGroup(c.Args[1], c.Args[2]))
	case n == 3:
		g.summary()
	default:
		g.list(from, to, idle, max(count, 0), consumer)
	}
}

// summary answers XPENDING of a group.
func (g *group) summary() {
	out := &g.c.Out
	var first, last streamID
	var total int64
	by := map[string]int64{}
	g.pending(streamID{}, func(d *delivery) bool {
		if total == 0 {
			first = d.id
		}
		last = d.id
		total++
		by[d.consumer]++
		return true
	})
	out.Array(4)
	out.Int(total)
	if total == 0 {
		out.Null()
		out.Null()
		out.NullArray()
		return
	}
	out.streamID(first)
	out.streamID(last)
	out.Array(len(by))
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out.Array(2)
		out.BulkString(name)
		out.BulkString(crdt.Int(by[name]).String())
	}
}

// list answers XPENDING of a range: the entries of one consumer, if it is not nil,
// that were not delivered for idle milliseconds.
func (g *group) list(from, to streamID, idle, count int64, consumer []byte) {
	var list Reply
	var n int64
	now := g.c.Now()
	if count > 0 {
		g.pending(from, func(d *delivery) bool {
			since := now - d.time
			switch {
			case to.less(d.id):
				return false
			case consumer != nil && d.consumer != string(consumer), idle != 0 && since < idle:
				return true
			}
			list.Array(4)
			list.streamID(d.id)
			list.BulkString(d.consumer)
			list.Int(max(since, 0))
			list.Int(int64(d.count))
			n++
			return n < count
		})
	}
	g.c.Out.Array(int(n))
	g.c.Out.Raw(list.Buf)
}

// openClaim returns the group of XCLAIM and XAUTOCLAIM. It replies an error and
// returns nil if there is none.
func openClaim(c *Context) *group {
	s, ok := openStream(c, 1)
	if !ok {
		return nil
	}
	g := s.group(string(c.Args[2]))
	if g == nil {
		c.Out.Error(errNoKeyOrGroup(c.Args[1], c.Args[2]))
	}
	return g
}

func xclaim(c *Context) {
	g := openClaim(c)
	if g == nil {
		return
	}
	idle, ok := integer(c, c.Args[4], "ERR Invalid min-idle-time argument for XCLAIM")
	if !ok {
		return
	}
	var ids []streamID
	i := 5
	for ; i < len(c.Args); i++ {
		id, _, ok := parseID(c.Args[i], 0, false)
		if !ok {
			break
		}
		ids = append(ids, id)
	}
	now := c.Now()
	at, retries := int64(-1), int64(-1)
	var last streamID
	var force, justID bool
	for ; i < len(c.Args); i++ {
		a, more := c.Args[i], i+1 < len(c.Args)
		switch {
		case is(a, "FORCE"):
			force = true
		case is(a, "JUSTID"):
			justID = true
		case more && is(a, "IDLE"):
			i++
			if at, ok = integer(c, c.Args[i], "ERR Invalid IDLE option argument for XCLAIM"); !ok {
				return
			}
			at = now - at
		case more && is(a, "TIME"):
			i++
			if at, ok = integer(c, c.Args[i], "ERR Invalid TIME option argument for XCLAIM"); !ok {
				return
			}
		case more && is(a, "RETRYCOUNT"):
			i++
			if retries, ok = integer(c, c.Args[i], "ERR Invalid RETRYCOUNT option argument for XCLAIM"); !ok {
				return
			}
		case more && is(a, "LASTID"):
			i++
			if last, ok = strictID(c, c.Args[i]); !ok {
				return
			}
		default:
			c.Out.Error(errFormat("ERR Unrecognized XCLAIM option '%s'", a))
			return
		}
	}
	if g.last.less(last) {
		g.advance(last)
		g.skip()
	}
	if at < 0 || at > now {
		at = now
	}
	name := string(c.Args[3])
	var list Reply
	n := 0
	for _, id := range ids {
		d, pending := g.delivery(id)
		value, there := c.Elem(g.k, crdt.KindEntry, id.elem())
		switch {
		case !there:
			g.release(id)
			continue
		case !pending && !force, pending && idle > 0 && now-d.time < idle:
			continue
		case !pending:
			d = delivery{id: id, count: 1}
		}
		if n == 0 {
			g.reads(name)
		}
		d.consumer, d.time = name, at
		switch {
		case retries >= 0:
			d.count = uint64(retries)
		case !justID:
			d.count++
		}
		if pending {
			g.claim(d)
		} else {
			g.deliver(d)
		}
		list.claimed(id, value, justID)
		n++
	}
	c.Out.Array(n)
	c.Out.Raw(list.Buf)
}

// claimed replies an entry that was claimed, or only its id.
func (r *Reply) claimed(id streamID, value []byte, justID bool) {
	if justID {
		r.streamID(id)
	} else {
		r.entry(id, value)
	}
}

// maxClaim is the greatest COUNT of XAUTOCLAIM, as in Redis.
const maxClaim = math.MaxInt64 / 16

func xautoclaim(c *Context) {
	idle, ok := integer(c, c.Args[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM")
	if !ok {
		return
	}
	from, ok := parseStart(c, c.Args[5])
	if !ok {
		return
	}
	count, justID := int64(100), false
	for i := 6; i < len(c.Args); i++ {
		switch {
		case i+1 < len(c.Args) && is(c.Args[i], "COUNT"):
			i++
			if count, ok = integer(c, c.Args[i], errClaimCount); !ok {
				return
			}
			if count < 1 || count > maxClaim {
				c.Out.Error(errClaimCount)
				return
			}
		case is(c.Args[i], "JUSTID"):
			justID = true
		default:
			c.Out.Error(errSyntax)
			return
		}
	}
	g := openClaim(c)
	if g == nil {
		return
	}
	now := c.Now()
	attempts := int64(math.MaxInt64)
	if count < attempts/10 {
		attempts = 10 * count
	}
	left := count
	var claimed []delivery
	var deleted []streamID
	var list Reply
	var next streamID
	g.drop(g.pending(from, func(d *delivery) bool {
		if attempts == 0 || left == 0 {
			next = d.id
			return false
		}
		attempts--
		value, there := c.Elem(g.k, crdt.KindEntry, d.id.elem())
		switch {
		case !there:
			deleted = append(deleted, d.id)
			left--
		case idle <= 0 || now-d.time >= idle:
			list.claimed(d.id, value, justID)
			claimed = append(claimed, *d)
			left--
		}
		return true
	}))
	for _, id := range deleted {
		g.release(id)
	}
	name := string(c.Args[3])
	if len(claimed) > 0 {
		g.reads(name)
	}
	for _, d := range claimed {
		d.consumer, d.time = name, now
		if !justID {
			d.count++
		}
		g.claim(d)
	}
	c.Out.Array(3)
	c.Out.streamID(next)
	c.Out.Array(len(claimed))
	c.Out.Raw(list.Buf)
	c.Out.Array(len(deleted))
	for _, id := range deleted {
		c.Out.streamID(id)
	}
}
