package command

import (
	"strconv"

	"github.com/replicatord/replicatord/crdt"
)

// localReads answer simple reads from the cells, in scripts, where a round trip
// to the view for each would be slow, and where the view cannot. What has an order
// that cells lack is not here.
var localReads = map[string]func(*Context){
	"GET": func(c *Context) {
		k := c.Key(1)
		if !wrongKind(c, k, crdt.TypeString) {
			v, ok := text(c, k)
			bulkOrNull(c, v, ok)
		}
	},
	"MGET": func(c *Context) {
		c.Out.Array(len(c.Args) - 1)
		for i := 1; i < len(c.Args); i++ {
			v, ok := text(c, c.Key(i))
			bulkOrNull(c, v, ok)
		}
	},
	"STRLEN": func(c *Context) {
		k := c.Key(1)
		if !wrongKind(c, k, crdt.TypeString) {
			v, _ := text(c, k)
			c.Out.Int(int64(len(v)))
		}
	},
	"EXISTS": localCount, "TOUCH": localCount,
	"TYPE": func(c *Context) { c.Out.Status(c.Type(c.Key(1)).String()) },
	"TTL":  localExpiry(true, false), "PTTL": localExpiry(false, false),
	"EXPIRETIME": localExpiry(true, true), "PEXPIRETIME": localExpiry(false, true),

	"HGET": func(c *Context) {
		k := c.Key(1)
		if !wrongKind(c, k, crdt.TypeHash) {
			v, ok := c.Elem(k, crdt.KindField, string(c.Args[2]))
			bulkOrNull(c, v, ok)
		}
	},
	"HMGET": func(c *Context) {
		k := c.Key(1)
		if wrongKind(c, k, crdt.TypeHash) {
			return
		}
		c.Out.Array(len(c.Args) - 2)
		for _, f := range c.Args[2:] {
			v, ok := c.Elem(k, crdt.KindField, string(f))
			bulkOrNull(c, v, ok)
		}
	},
	"HSTRLEN": func(c *Context) {
		k := c.Key(1)
		if !wrongKind(c, k, crdt.TypeHash) {
			v, _ := c.Elem(k, crdt.KindField, string(c.Args[2]))
			c.Out.Int(int64(len(v)))
		}
	},
	"HEXISTS": localHas(crdt.KindField), "SISMEMBER": localHas(crdt.KindMember),
	"SMISMEMBER": func(c *Context) {
		k := c.Key(1)
		if wrongKind(c, k, crdt.TypeSet) {
			return
		}
		c.Out.Array(len(c.Args) - 2)
		for _, m := range c.Args[2:] {
			_, ok := c.Elem(k, crdt.KindMember, string(m))
			c.Out.Bool(ok)
		}
	},
	"HLEN": localLen(crdt.KindField), "SCARD": localLen(crdt.KindMember),
	"ZCARD": localLen(crdt.KindScored), "LLEN": localLen(crdt.KindItem),
	"ZSCORE": func(c *Context) {
		k := c.Key(1)
		if !wrongKind(c, k, crdt.TypeZSet) {
			localScore(c, k, c.Args[2])
		}
	},
	"PFCOUNT": pfcount,
	"ZMSCORE": func(c *Context) {
		k := c.Key(1)
		if wrongKind(c, k, crdt.TypeZSet) {
			return
		}
		c.Out.Array(len(c.Args) - 2)
		for _, m := range c.Args[2:] {
			localScore(c, k, m)
		}
	},
}

// nearReads are those of the reads above that look at nothing but the header of
// their one key and one cell: its kind, of which argument 2 is the element if the
// kind has any; KindAny if they look at no cell. See Command.Near.
var nearReads = map[string]crdt.Kind{
	"GET": crdt.KindString, "STRLEN": crdt.KindString,
	"HGET": crdt.KindField, "HEXISTS": crdt.KindField, "HSTRLEN": crdt.KindField,
	"SISMEMBER": crdt.KindMember, "ZSCORE": crdt.KindScored,
	"EXISTS": crdt.KindAny, "TYPE": crdt.KindAny, "EXPIRETIME": crdt.KindAny, "PEXPIRETIME": crdt.KindAny,
	"HLEN": crdt.KindAny, "SCARD": crdt.KindAny, "ZCARD": crdt.KindAny, "LLEN": crdt.KindAny,
}

func localCount(c *Context) {
	n := int64(0)
	for i := 1; i < len(c.Args); i++ {
		if c.Type(c.Key(i)) != crdt.TypeNone {
			n++
		}
	}
	c.Out.Int(n)
}

func localHas(kind crdt.Kind) func(*Context) {
	return func(c *Context) {
		k := c.Key(1)
		if !wrongKind(c, k, kind.Type()) {
			_, ok := c.Elem(k, kind, string(c.Args[2]))
			c.Out.Bool(ok)
		}
	}
}

func localLen(kind crdt.Kind) func(*Context) {
	return func(c *Context) {
		k := c.Key(1)
		if !wrongKind(c, k, kind.Type()) {
			c.Out.Int(int64(c.Len(k, kind)))
		}
	}
}

func localScore(c *Context, k crdt.Key, member []byte) {
	v, ok := c.Elem(k, crdt.KindScored, string(member))
	f, err := strconv.ParseFloat(string(v), 64)
	if !ok || err != nil {
		c.Out.Null()
		return
	}
	c.Out.Double(f)
}

// localExpiry makes the answer of TTL and its kin.
func localExpiry(seconds, absolute bool) func(*Context) {
	return func(c *Context) {
		k := c.Key(1)
		at := c.Expiry(k)
		switch {
		case c.Type(k) == crdt.TypeNone:
			c.Out.Int(-2)
			return
		case at == 0:
			c.Out.Int(-1)
			return
		}
		if !absolute {
			at = max(at-c.Now(), 0)
		}
		if seconds {
			at = (at + 500) / 1000
		}
		c.Out.Int(at)
	}
}
