package command

import (
	"github.com/replicatord/replicatord/crdt"
)

// A hash field is a cell of crdt.KindField. HSET and its like put a value with
// a new dot even where the field holds the same already: a delete made
// elsewhere at the same time has not seen it and leaves it. HINCRBY and
// HINCRBYFLOAT add to the field's counter, so that increments made at several
// nodes add up. HDEL of a field that is not there writes nothing.

var hashCommands = []*Command{
	{Name: "HDEL", Arity: -3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Removes fields of a hash", Run: hdel},
	{Name: "HEXISTS", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Whether a hash has a field"},
	{Name: "HGET", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "A field's value"},
	{Name: "HGETALL", Arity: 2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "A hash, field by field"},
	{Name: "HINCRBY", Arity: 4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Adds to an integer in a field", Run: hincrby},
	{Name: "HINCRBYFLOAT", Arity: 4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.6.0",
		Summary: "Adds to a decimal number in a field", Run: hincrbyfloat},
	{Name: "HKEYS", Arity: 2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "A hash's fields"},
	{Name: "HLEN", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "How many fields a hash has"},
	{Name: "HMGET", Arity: -3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "The values of several fields"},
	{Name: "HMSET", Arity: -4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Sets several fields; HSET does the same", Run: hmset},
	{Name: "HRANDFIELD", Arity: -2, Flags: ReadOnly | Random, First: 1, Last: 1, Step: 1, Group: "hash", Since: "6.2.0",
		Summary: "Fields of a hash, drawn at random"},
	{Name: "HSCAN", Arity: -3, Flags: ReadOnly | Random, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.8.0",
		Summary: "A hash, some fields at a time"},
	{Name: "HSET", Arity: -4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Sets fields of a hash", Run: hset},
	{Name: "HSETNX", Arity: 4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Sets a field that is not there", Run: hsetnx},
	{Name: "HSTRLEN", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "3.2.0",
		Summary: "How long a field's value is, in bytes"},
	{Name: "HVALS", Arity: 2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "A hash's values"},
}

// wrongKind replies WRONGTYPE if the key exists with a type other than want,
// and reports whether it did.
func wrongKind(c *Context, k crdt.Key, want crdt.Type) bool {
	if t := c.Type(k); t != want && t != crdt.TypeNone {
		c.Out.Error(errWrongType)
		return true
	}
	return false
}

// setFields carries out HSET and HMSET and returns the number of new fields;
// false if it replied an error instead.
func setFields(c *Context, name string) (int64, bool) {
	if len(c.Args)%2 == 1 {
		c.Out.Error(errArity(name))
		return 0, false
	}
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeHash) {
		return 0, false
	}
	var created int64
	room := roomFor(c.Args[2:])
	for i := 2; i < len(c.Args); i += 2 {
		field := string(c.Args[i])
		if _, ok := c.Elem(k, crdt.KindField, field); !ok {
			created++
		}
		c.SetElem(k, crdt.KindField, field, room.keep(c.Args[i+1]))
	}
	return created, true
}

func hset(c *Context) {
	if n, ok := setFields(c, "hset"); ok {
		c.Out.Int(n)
	}
}

func hmset(c *Context) {
	if _, ok := setFields(c, "hmset"); ok {
		c.Out.OK()
	}
}

func hsetnx(c *Context) {
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeHash) {
		return
	}
	field := string(c.Args[2])
	if _, ok := c.Elem(k, crdt.KindField, field); ok {
		c.Out.Int(0)
		return
	}
	c.SetElem(k, crdt.KindField, field, c.Args[3])
	c.Out.Int(1)
}

func hdel(c *Context) { removeElems(c, crdt.KindField) }

// removeElems carries out HDEL and SREM: it removes the elements named and
// replies how many were there. What is not there is not written.
func removeElems(c *Context, kind crdt.Kind) {
	k := c.Key(1)
	if wrongKind(c, k, kind.Type()) {
		return
	}
	var n int64
	for _, e := range c.Args[2:] {
		if c.RemoveElem(k, kind, string(e)) {
			n++
		}
	}
	c.Out.Int(n)
}

func hincrby(c *Context) {
	by, ok := crdt.ParseInt(c.Args[3])
	if !ok {
		c.Out.Error(errNotInteger)
		return
	}
	k, field := c.Key(1), string(c.Args[2])
	if wrongKind(c, k, crdt.TypeHash) {
		return
	}
	var old int64
	if v, there := c.Elem(k, crdt.KindField, field); there {
		if old, ok = crdt.ParseInt(v); !ok {
			c.Out.Error(errHashNotInteger)
			return
		}
	}
	sum := old + by
	if (sum < old) != (by < 0) {
		c.Out.Error(errOverflow)
		return
	}
	c.AddElem(k, crdt.KindField, field, crdt.Int(by))
	c.Out.Int(sum)
}

// hincrbyfloat adds in decimals, exactly where Redis's long double rounds, and
// prints as Redis does: no exponent, at most 17 digits after the point. What is
// added to the counter is the difference that shows, so that a field keeps no
// digits that nobody can see.
func hincrbyfloat(c *Context) {
	by, ok := parseFloat(c.Args[3])
	switch {
	case !ok:
		c.Out.Error(errNotFloat)
		return
	case by.inf:
		c.Out.Error(errNaN)
		return
	}
	k, field := c.Key(1), string(c.Args[2])
	if wrongKind(c, k, crdt.TypeHash) {
		return
	}
	v, there := c.Elem(k, crdt.KindField, field)
	var old float
	if there {
		if old, ok = parseFloat(v); !ok {
			c.Out.Error(errHashNotFloat)
			return
		}
	}
	text := old.Add(by.Number).Append(nil)
	sum, ok := parseFloat(text)
	if old.inf || !ok {
		c.Out.Error(errNotFinite)
		return
	}
	if _, err := crdt.ParseNumber(v); there && err != nil {
		// A form that Redis reads and counters do not, such as hexadecimal.
		c.SetElem(k, crdt.KindField, field, text)
	} else {
		c.AddElem(k, crdt.KindField, field, sum.Sub(old.Number))
	}
	c.Out.Bulk(text)
}
