package command

import (
	"bytes"

	"github.com/replicatord/replicatord/crdt"
)

// A hash field is a cell of crdt.KindField. HSET and its like put a value with
// a new dot even where the field holds the same already: a delete made
// elsewhere at the same time has not seen it and leaves it. HINCRBY and
// HINCRBYFLOAT add to the field's counter, so that increments made at several
// nodes add up. HDEL of a field that is not there writes nothing.

var hashCommands = []*Command{
	{Name: "HDEL", Arity: -3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Delete one or more hash fields", Run: hdel},
	{Name: "HEXISTS", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Determine if a hash field exists"},
	{Name: "HGET", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Get the value of a hash field"},
	{Name: "HGETALL", Arity: 2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Get all the fields and values in a hash"},
	{Name: "HINCRBY", Arity: 4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Increment the integer value of a hash field by the given number", Run: hincrby},
	{Name: "HINCRBYFLOAT", Arity: 4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.6.0",
		Summary: "Increment the float value of a hash field by the given amount", Run: hincrbyfloat},
	{Name: "HKEYS", Arity: 2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Get all the fields in a hash"},
	{Name: "HLEN", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Get the number of fields in a hash"},
	{Name: "HMGET", Arity: -3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Get the values of all the given hash fields"},
	{Name: "HMSET", Arity: -4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Set multiple hash fields to multiple values", Run: hmset},
	{Name: "HRANDFIELD", Arity: -2, Flags: ReadOnly | Random, First: 1, Last: 1, Step: 1, Group: "hash", Since: "6.2.0",
		Summary: "Get one or multiple random fields from a hash"},
	{Name: "HSCAN", Arity: -3, Flags: ReadOnly | Random, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.8.0",
		Summary: "Incrementally iterate hash fields and associated values"},
	{Name: "HSET", Arity: -4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Set the string value of a hash field", Run: hset},
	{Name: "HSETNX", Arity: 4, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Set the value of a hash field, only if the field does not exist", Run: hsetnx},
	{Name: "HSTRLEN", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "3.2.0",
		Summary: "Get the length of the value of a hash field"},
	{Name: "HVALS", Arity: 2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "hash", Since: "2.0.0",
		Summary: "Get all the values in a hash"},
}

// Error replies of hash commands, word for word as Redis 7.0 gives them.
const (
	errHashNotInteger = "ERR hash value is not an integer"
	errHashNotFloat   = "ERR hash value is not a float"
	errNaN            = "ERR value is NaN or Infinity"
)

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
	for i := 2; i < len(c.Args); i += 2 {
		field := string(c.Args[i])
		if _, ok := c.Elem(k, crdt.KindField, field); !ok {
			created++
		}
		c.SetElem(k, crdt.KindField, field, bytes.Clone(c.Args[i+1]))
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
	c.SetElem(k, crdt.KindField, field, bytes.Clone(c.Args[3]))
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
