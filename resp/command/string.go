package command

import (
	"math"

	"github.com/replicatord/replicatord/crdt"
)

// A string is one cell of crdt.KindString. SET and its like put a whole value;
// INCR and its like add to the cell's counter, so that increments made at
// several nodes add up; APPEND and SETRANGE put the whole value that they make,
// and leave the expiry.

var stringCommands = []*Command{
	{Name: "SET", Arity: -3, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "Sets a string, whatever the key held", Run: set},
	{Name: "SETNX", Arity: 3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "Sets a string if the key does not exist", Run: setnx},
	{Name: "SETEX", Arity: 4, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "string", Since: "2.0.0",
		Summary: "Sets a string that lives for some seconds", Run: setex},
	{Name: "PSETEX", Arity: 4, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "string", Since: "2.6.0",
		Summary: "Sets a string that lives for some milliseconds", Run: psetex},
	{Name: "MSET", Arity: -3, Flags: Write | DenyOOM, First: 1, Last: -1, Step: 2, Group: "string", Since: "1.0.1",
		Summary: "Sets several strings", Run: mset},
	{Name: "MSETNX", Arity: -3, Flags: Write | DenyOOM, First: 1, Last: -1, Step: 2, Group: "string", Since: "1.0.1",
		Summary: "Sets several strings if none of the keys exists", Run: msetnx},
	{Name: "GETSET", Arity: 3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "Sets a string and answers what it was", Run: getset},
	{Name: "GETDEL", Arity: 2, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "6.2.0",
		Summary: "Removes a string and answers what it was", Run: getdel},
	{Name: "GETEX", Arity: -2, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "6.2.0",
		Summary: "Answers a string and sets how long it lives", Run: getex},
	{Name: "APPEND", Arity: 3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "2.0.0",
		Summary: "Adds to the end of a string", Run: appendTo},
	{Name: "SETRANGE", Arity: 4, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "string", Since: "2.2.0",
		Summary: "Overwrites a part of a string", Run: setrange},
	{Name: "INCR", Arity: 2, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "Adds 1 to an integer", Run: func(c *Context) { increment(c, 1) }},
	{Name: "DECR", Arity: 2, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "Takes 1 from an integer", Run: func(c *Context) { increment(c, -1) }},
	{Name: "INCRBY", Arity: 3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "Adds to an integer", Run: incrby},
	{Name: "DECRBY", Arity: 3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "Takes from an integer", Run: decrby},
	{Name: "INCRBYFLOAT", Arity: 3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "2.6.0",
		Summary: "Adds to a decimal number", Run: incrbyfloat},
}

// text returns the string at a key; nil, false if there is none.
func text(c *Context, k crdt.Key) ([]byte, bool) { return StringOf(c.Tx, k) }

// StringOf returns the string at a key, which may be a HyperLogLog; nil, false
// if there is none.
func StringOf(tx interface {
	Elem(crdt.Key, crdt.Kind, string) ([]byte, bool)
	Len(crdt.Key, crdt.Kind) int
	EachElem(crdt.Key, crdt.Kind, func(string, []byte) bool)
}, k crdt.Key) ([]byte, bool) {
	v, ok := tx.Elem(k, crdt.KindString, "")
	if !ok && tx.Len(k, crdt.KindRegisters) > 0 {
		return HyperLogLogString(func(fn func(string, []byte) bool) { tx.EachElem(k, crdt.KindRegisters, fn) }), true
	}
	return v, ok
}

// bulkOrNull replies what text returned.
func bulkOrNull(c *Context, v []byte, ok bool) {
	if ok {
		c.Out.Bulk(v)
	} else {
		c.Out.Null()
	}
}

func set(c *Context) {
	o, ok := parseValueOptions(c.Args[3:], true)
	if !ok {
		c.Out.Error(errSyntax)
		return
	}
	var at int64
	if o.expiry != nil {
		var e string
		if at, e = o.unit.millis(o.expiry, c.Now(), "SET"); e != "" {
			c.Out.Error(e)
			return
		}
	}
	k := c.Key(1)
	if o.get {
		if wrongKind(c, k, crdt.TypeString) {
			return
		}
		old, ok := text(c, k)
		bulkOrNull(c, old, ok)
	}
	if exists := c.Type(k) != crdt.TypeNone; o.nx && exists || o.xx && !exists {
		if !o.get {
			c.Out.Null()
		}
		return
	}
	c.SetString(k, c.Args[2], o.keepTTL)
	if o.expiry != nil {
		c.SetExpiry(k, at)
	}
	if !o.get {
		c.Out.OK()
	}
}

func setnx(c *Context) {
	k := c.Key(1)
	if c.Type(k) != crdt.TypeNone {
		c.Out.Int(0)
		return
	}
	c.SetString(k, c.Args[2], false)
	c.Out.Int(1)
}

func setex(c *Context)  { setFor(c, "SETEX", timeUnit{seconds: true}) }
func psetex(c *Context) { setFor(c, "PSETEX", timeUnit{}) }

func setFor(c *Context, name string, unit timeUnit) {
	at, e := unit.millis(c.Args[2], c.Now(), name)
	if e != "" {
		c.Out.Error(e)
		return
	}
	k := c.Key(1)
	c.SetString(k, c.Args[3], false)
	c.SetExpiry(k, at)
	c.Out.OK()
}

func mset(c *Context) {
	if len(c.Args)%2 == 0 {
		c.Out.Error(errArity("MSET"))
		return
	}
	setAll(c)
	c.Out.OK()
}

func msetnx(c *Context) {
	if len(c.Args)%2 == 0 {
		c.Out.Error(errArity("MSETNX"))
		return
	}
	for i := 1; i < len(c.Args); i += 2 {
		if c.Type(c.Key(i)) != crdt.TypeNone {
			c.Out.Int(0)
			return
		}
	}
	setAll(c)
	c.Out.Int(1)
}

func setAll(c *Context) {
	for i := 1; i < len(c.Args); i += 2 {
		c.SetString(c.Key(i), c.Args[i+1], false)
	}
}

func getset(c *Context) {
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeString) {
		return
	}
	old, ok := text(c, k)
	bulkOrNull(c, old, ok)
	c.SetString(k, c.Args[2], false)
}

func getdel(c *Context) {
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeString) {
		return
	}
	old, ok := text(c, k)
	bulkOrNull(c, old, ok)
	c.Remove(k)
}

func getex(c *Context) {
	o, ok := parseValueOptions(c.Args[2:], false)
	if !ok {
		c.Out.Error(errSyntax)
		return
	}
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeString) {
		return
	}
	v, ok := text(c, k)
	if !ok {
		c.Out.Null()
		return
	}
	var at int64
	if o.expiry != nil {
		var e string
		if at, e = o.unit.millis(o.expiry, c.Now(), "GETEX"); e != "" {
			c.Out.Error(e)
			return
		}
	}
	c.Out.Bulk(v)
	switch {
	case o.expiry != nil:
		c.SetExpiry(k, at)
	case o.persist:
		persistKey(c, k)
	}
}

func appendTo(c *Context) {
	k, more := c.Key(1), c.Args[2]
	if wrongKind(c, k, crdt.TypeString) {
		return
	}
	old, ok := text(c, k)
	if len(old)+len(more) > MaxString {
		c.Out.Error(errTooLong)
		return
	}
	if !ok || len(more) > 0 {
		v := make([]byte, 0, len(old)+len(more))
		c.SetString(k, append(append(v, old...), more...), true)
	}
	c.Out.Int(int64(len(old) + len(more)))
}

func setrange(c *Context) {
	offset, ok := crdt.ParseInt(c.Args[2])
	switch {
	case !ok:
		c.Out.Error(errNotInteger)
		return
	case offset < 0:
		c.Out.Error(errOffset)
		return
	}
	k, part := c.Key(1), c.Args[3]
	if wrongKind(c, k, crdt.TypeString) {
		return
	}
	old, _ := text(c, k)
	if len(part) == 0 {
		c.Out.Int(int64(len(old)))
		return
	}
	if offset > MaxString-int64(len(part)) {
		c.Out.Error(errTooLong)
		return
	}
	v := make([]byte, max(len(old), int(offset)+len(part)))
	copy(v, old)
	copy(v[offset:], part)
	c.SetString(k, v, true)
	c.Out.Int(int64(len(v)))
}

func incrby(c *Context) {
	by, ok := crdt.ParseInt(c.Args[2])
	if !ok {
		c.Out.Error(errNotInteger)
		return
	}
	increment(c, by)
}

func decrby(c *Context) {
	by, ok := crdt.ParseInt(c.Args[2])
	switch {
	case !ok:
		c.Out.Error(errNotInteger)
		return
	case by == math.MinInt64:
		c.Out.Error(errDecrement)
		return
	}
	increment(c, -by)
}

// increment adds to the integer at a key.
func increment(c *Context, by int64) {
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeString) {
		return
	}
	var old int64
	if v, there := text(c, k); there {
		var ok bool
		if old, ok = crdt.ParseInt(v); !ok {
			c.Out.Error(errNotInteger)
			return
		}
	}
	if by < 0 && old < math.MinInt64-by || by > 0 && old > math.MaxInt64-by {
		c.Out.Error(errOverflow)
		return
	}
	c.AddElem(k, crdt.KindString, "", crdt.Int(by))
	c.Out.Int(old + by)
}

// incrbyfloat adds exactly, where Redis rounds to a long double: 0.1 + 0.2 is
// 0.3 at both, but 1000 + 0.1 is 1000.1 only here.
func incrbyfloat(c *Context) {
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeString) {
		return
	}
	var old float
	v, there := text(c, k)
	ok := true
	if there {
		old, ok = parseFloat(v)
	}
	var by float
	if ok {
		by, ok = parseFloat(c.Args[2])
	}
	if !ok {
		c.Out.Error(errNotFloat)
		return
	}
	sum := old.Add(by.Number)
	if old.inf || by.inf || tooLarge(sum) {
		c.Out.Error(errNotFinite)
		return
	}
	if _, err := crdt.ParseNumber(v); there && err != nil {
		// A number to Redis but not to a cell, such as 0x10: an increment
		// would sleep beside it.
		c.SetString(k, sum.Append(nil), true)
	} else {
		c.AddElem(k, crdt.KindString, "", by.Number)
	}
	// What is seen now, not the sum: a count may be exact beyond the digits
	// that are printed.
	v, _ = text(c, k)
	c.Out.Bulk(v)
}
