package command

import (
	"math"

	"github.com/replicatord/replicatord/crdt"
)

// Commands on keys of any type. RENAME, COPY and MOVE put what this node sees
// of a key under another name; what it has not seen stays where it is. Expiries
// are written as absolute times.

var genericCommands = []*Command{
	{Name: "DEL", Arity: -2, Flags: Write, First: 1, Last: -1, Step: 1, Group: "generic", Since: "1.0.0",
		Summary: "Removes keys", Run: del},
	{Name: "UNLINK", Arity: -2, Flags: Write | Fast, First: 1, Last: -1, Step: 1, Group: "generic", Since: "4.0.0",
		Summary: "Removes keys", Run: del},
	{Name: "EXPIRE", Arity: -3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "1.0.0",
		Summary: "Sets how long a key lives, in seconds", Run: expireBy("EXPIRE", timeUnit{seconds: true})},
	{Name: "PEXPIRE", Arity: -3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "2.6.0",
		Summary: "Sets how long a key lives, in milliseconds", Run: expireBy("PEXPIRE", timeUnit{})},
	{Name: "EXPIREAT", Arity: -3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "1.2.0",
		Summary: "Sets when a key expires, as a Unix time in seconds", Run: expireBy("EXPIREAT", timeUnit{seconds: true, absolute: true})},
	{Name: "PEXPIREAT", Arity: -3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "2.6.0",
		Summary: "Sets when a key expires, as a Unix time in milliseconds", Run: expireBy("PEXPIREAT", timeUnit{absolute: true})},
	{Name: "PERSIST", Arity: 2, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "2.2.0",
		Summary: "Makes a key lasting", Run: persist},
	{Name: "RENAME", Arity: 3, Flags: Write, First: 1, Last: 2, Step: 1, Group: "generic", Since: "1.0.0",
		Summary: "Gives a key another name", Run: func(c *Context) { rename(c, false) }},
	{Name: "RENAMENX", Arity: 3, Flags: Write | Fast, First: 1, Last: 2, Step: 1, Group: "generic", Since: "1.0.0",
		Summary: "Gives a key another name that is not taken", Run: func(c *Context) { rename(c, true) }},
	{Name: "COPY", Arity: -3, Flags: Write | DenyOOM, First: 1, Last: 2, Step: 1, Group: "generic", Since: "6.2.0",
		Summary: "Copies a key", Run: copyKey},
	{Name: "MOVE", Arity: 3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "1.0.0",
		Summary: "Moves a key to another database", Run: move},
	{Name: "FLUSHDB", Arity: -1, Flags: Write, Group: "server", Since: "1.0.0",
		Summary: "Removes every key of a database", Run: flushdb},
	{Name: "FLUSHALL", Arity: -1, Flags: Write, Group: "server", Since: "1.0.0",
		Summary: "Removes every key of every database", Run: flushall},
}

func del(c *Context) {
	n := 0
	for i := 1; i < len(c.Args); i++ {
		if c.Remove(c.Key(i)) {
			n++
		}
	}
	c.Out.Int(int64(n))
}

// expireBy makes the Run of EXPIRE and its kin.
func expireBy(name string, unit timeUnit) func(*Context) {
	return func(c *Context) {
		o, e := parseExpireOptions(c.Args[3:])
		if e != "" {
			c.Out.Error(e)
			return
		}
		at, ok := crdt.ParseInt(c.Args[2])
		if !ok {
			c.Out.Error(errNotInteger)
			return
		}
		if unit.seconds {
			if at > math.MaxInt64/1000 || at < math.MinInt64/1000 {
				c.Out.Error(errExpireTime(name))
				return
			}
			at *= 1000
		}
		if !unit.absolute {
			if at > math.MaxInt64-c.Now() {
				c.Out.Error(errExpireTime(name))
				return
			}
			at += c.Now()
		}
		at = min(at, lastExpiry)
		k := c.Key(1)
		if c.Type(k) == crdt.TypeNone || !o.allow(c.Expiry(k), at) {
			c.Out.Int(0)
			return
		}
		c.SetExpiry(k, at)
		c.Out.Int(1)
	}
}

func persist(c *Context) { c.Out.Bool(persistKey(c, c.Key(1))) }

// persistKey makes a key lasting and reports whether it was not.
func persistKey(c *Context, k crdt.Key) bool {
	if c.Expiry(k) == 0 {
		return false
	}
	c.SetExpiry(k, crdt.Never)
	return true
}

// content is what a node sees of a key.
type content struct {
	elems  []element
	expiry int64
	due    []fieldExpiry
}

// fieldExpiry is when a field of a hash expires.
type fieldExpiry struct {
	field string
	at    int64
}

type element struct {
	kind  crdt.Kind
	name  string
	value []byte
}

// readKey reads a key, whole. Elements keep their names, whatever the type:
// fields, members, positions, ids.
func readKey(c *Context, k crdt.Key) content {
	v := content{expiry: c.Expiry(k)}
	for kind := crdt.KindAny + 1; kind < crdt.KindExpiry; kind++ {
		c.EachElem(k, kind, func(name string, value []byte) bool {
			if kind == crdt.KindScored {
				value = crdt.FormatScore(crdt.ParseScore(value))
			}
			v.elems = append(v.elems, element{kind, name, value})
			return true
		})
	}
	c.EachFieldExpiry(k, func(field string, at int64) { v.due = append(v.due, fieldExpiry{field, at}) })
	return v
}

// write puts the content under a key, in place of what is there.
func (v *content) write(c *Context, k crdt.Key) {
	c.Remove(k)
	for _, e := range v.elems {
		c.SetElem(k, e.kind, e.name, e.value)
	}
	for _, e := range v.due {
		c.SetFieldExpiry(k, e.field, e.at)
	}
	if v.expiry != 0 {
		c.SetExpiry(k, v.expiry)
	}
}

func rename(c *Context, nx bool) {
	from, to := c.Key(1), c.Key(2)
	done := func() {
		if nx {
			c.Out.Int(1)
		} else {
			c.Out.OK()
		}
	}
	switch {
	case c.Type(from) == crdt.TypeNone:
		c.Out.Error(errNoKey)
		return
	case nx && c.Type(to) != crdt.TypeNone: // from itself included
		c.Out.Int(0)
		return
	case from == to:
		done()
		return
	}
	v := readKey(c, from)
	c.Remove(from)
	v.write(c, to)
	done()
}

func copyKey(c *Context) {
	from, to := c.Key(1), c.Key(2)
	replace := false
	for i := 3; i < len(c.Args); i++ {
		switch a := c.Args[i]; {
		case is(a, "REPLACE"):
			replace = true
		case is(a, "DB") && i+1 < len(c.Args):
			i++
			var e string
			if to.DB, e = parseDB(c.Args[i]); e != "" {
				c.Out.Error(e)
				return
			}
		default:
			c.Out.Error(errSyntax)
			return
		}
	}
	switch {
	case from == to:
		c.Out.Error(errSameKey)
		return
	case c.Type(from) == crdt.TypeNone, c.Type(to) != crdt.TypeNone && !replace:
		c.Out.Int(0)
		return
	}
	v := readKey(c, from)
	v.write(c, to)
	c.Out.Int(1)
}

func move(c *Context) {
	db, e := parseDB(c.Args[2])
	if e != "" {
		c.Out.Error(e)
		return
	}
	from := c.Key(1)
	to := crdt.Key{DB: db, Name: from.Name}
	switch {
	case from == to:
		c.Out.Error(errSameKey)
		return
	case c.Type(from) == crdt.TypeNone, c.Type(to) != crdt.TypeNone:
		c.Out.Int(0)
		return
	}
	v := readKey(c, from)
	c.Remove(from)
	v.write(c, to)
	c.Out.Int(1)
}

func flushdb(c *Context) { flush(c, c.DB, c.DB+1) }

func flushall(c *Context) { flush(c, 0, Databases) }

// flushing is how far an asynchronous flush has come.
type flushing struct {
	db   uint8
	from []byte // in it
}

// flushStep is about how many keys a step of one removes.
const flushStep = 256

// flush removes what is in databases: at once or, with ASYNC, in steps between which others are
// served, and then at once what they have written meanwhile.
func flush(c *Context, first, end uint8) {
	if n := len(c.Args); n > 2 || n == 2 && !is(c.Args[1], "SYNC") && !is(c.Args[1], "ASYNC") {
		c.Out.Error(errSyntax)
		return
	}
	if s := c.Resumed; s != nil {
		if s := s.(*flushing); s.db < end {
			if s.from = c.FlushSome(s.db, s.from, flushStep); s.from == nil {
				s.db++
			}
			c.Waits = &Wait{Steps: true, State: s}
			return
		}
		for db := first; db < end; db++ {
			c.FlushRest(db, flushStep)
		}
		c.Out.OK()
		return
	}
	if len(c.Args) == 2 && is(c.Args[1], "ASYNC") && !c.NoWait {
		c.Waits = &Wait{Steps: true, State: &flushing{db: first}}
		return
	}
	for db := first; db < end; db++ {
		c.Flush(db)
	}
	c.Out.OK()
}
