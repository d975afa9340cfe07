package command

import (
	"github.com/replicatord/replicatord/crdt"
)

// Expiries of hash fields, as Redis has them since 7.4, and the commands of 8.0
// that set, get or remove fields at once with them. They are the node's own, with
// whatever Redis behind it: what has expired the node finds no more, and takes out
// of the view.

var hashExpiryCommands = []*Command{
	{Name: "HEXPIRE", Arity: -6, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "7.4.0",
		Summary: "Sets how long fields live, in seconds", Run: hexpireBy("HEXPIRE", timeUnit{seconds: true})},
	{Name: "HPEXPIRE", Arity: -6, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "7.4.0",
		Summary: "Sets how long fields live, in milliseconds", Run: hexpireBy("HPEXPIRE", timeUnit{})},
	{Name: "HEXPIREAT", Arity: -6, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "7.4.0",
		Summary: "Sets when fields expire, as a Unix time in seconds", Run: hexpireBy("HEXPIREAT", timeUnit{seconds: true, absolute: true})},
	{Name: "HPEXPIREAT", Arity: -6, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "7.4.0",
		Summary: "Sets when fields expire, as a Unix time in milliseconds", Run: hexpireBy("HPEXPIREAT", timeUnit{absolute: true})},
	{Name: "HTTL", Arity: -5, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "7.4.0",
		Summary: "How long fields will live yet, in seconds", Run: hashTTL(timeUnit{seconds: true})},
	{Name: "HPTTL", Arity: -5, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "7.4.0",
		Summary: "How long fields will live yet, in milliseconds", Run: hashTTL(timeUnit{})},
	{Name: "HEXPIRETIME", Arity: -5, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "7.4.0",
		Summary: "When fields expire, as a Unix time in seconds", Run: hashTTL(timeUnit{seconds: true, absolute: true})},
	{Name: "HPEXPIRETIME", Arity: -5, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "7.4.0",
		Summary: "When fields expire, as a Unix time in milliseconds", Run: hashTTL(timeUnit{absolute: true})},
	{Name: "HPERSIST", Arity: -5, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "7.4.0",
		Summary: "Makes fields lasting", Run: hpersist},
	{Name: "HGETEX", Arity: -5, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "8.0.0",
		Summary: "The values of fields, and sets when these expire", Run: hgetex},
	{Name: "HSETEX", Arity: -6, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "8.0.0",
		Summary: "Sets fields, and when they expire", Run: hsetex},
	{Name: "HGETDEL", Arity: -5, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "hash", Since: "8.0.0",
		Summary: "The values of fields, which it removes", Run: hgetdel},
}

// lastFieldExpiry is the latest time at which a field can expire in Redis.
const lastFieldExpiry = 1<<46 - 1

// fieldMillis turns an expiry of fields into Unix milliseconds. The string is an
// error reply, "" for none.
func (u timeUnit) fieldMillis(arg []byte, now int64, command string) (int64, string) {
	at, ok := crdt.ParseInt(arg)
	switch {
	case !ok:
		return 0, errNotInteger
	case at < 0:
		return 0, errFieldExpireTime
	case u.seconds && at > lastFieldExpiry/1000:
		return 0, errExpireTime(command)
	case u.seconds:
		at *= 1000
	}
	if !u.absolute {
		if at > lastFieldExpiry-now {
			return 0, errExpireTime(command)
		}
		at += now
	}
	if at > lastFieldExpiry {
		return 0, errExpireTime(command)
	}
	return at, ""
}

// parseFields reads FIELDS, their number and the fields, which end the arguments.
// The string is an error reply, "" for none; badCount is that for a number that is
// none.
func parseFields(args [][]byte, name, badCount string) ([][]byte, string) {
	if len(args) < 2 {
		return nil, errArity(name)
	}
	if !is(args[0], "FIELDS") {
		return nil, errFieldsMissing
	}
	n, ok := crdt.ParseInt(args[1])
	switch {
	case !ok || n < 1:
		return nil, badCount
	case n != int64(len(args)-2):
		return nil, errFieldsCount
	}
	return args[2:], ""
}

// openFields reads the arguments of a command that takes nothing but a hash and
// FIELDS. If they are wrong, it has replied, and ok is false.
func openFields(c *Context, name string) (k crdt.Key, fields [][]byte, ok bool) {
	k = c.Key(1)
	if wrongKind(c, k, crdt.TypeHash) {
		return k, nil, false
	}
	fields, e := parseFields(c.Args[2:], name, errFieldsNumber)
	if e != "" {
		c.Out.Error(e)
	}
	return k, fields, e == ""
}

// hexpireBy makes the Run of HEXPIRE and its kin.
func hexpireBy(name string, unit timeUnit) func(*Context) {
	return func(c *Context) {
		k := c.Key(1)
		if wrongKind(c, k, crdt.TypeHash) {
			return
		}
		at, e := unit.fieldMillis(c.Args[2], c.Now(), name)
		if e != "" {
			c.Out.Error(e)
			return
		}
		args := c.Args[3:]
		o, e := parseExpireOptions(args[:1])
		if e == "" {
			args = args[1:]
		}
		fields, e := parseFields(args, name, errFieldsPositive)
		if e != "" {
			c.Out.Error(e)
			return
		}
		var t fieldTally
		c.Out.Array(len(fields))
		for _, f := range fields {
			field := string(f)
			if _, ok := c.Elem(k, crdt.KindField, field); !ok {
				c.Out.Int(-2)
				continue
			}
			if !o.allow(c.FieldExpiry(k, field), at) {
				c.Out.Int(0)
				continue
			}
			c.Out.Int(t.expire(c, k, field, at))
		}
		t.tell(c, k)
	}
}

// fieldTally counts what a command has done to fields, to tell of it as Redis
// does.
type fieldTally struct{ expiring, lasting, removed int }

// expire sets when a field expires and returns 1, or 2 if that has passed and the
// field is gone.
func (t *fieldTally) expire(c *Context, k crdt.Key, field string, at int64) int64 {
	c.SetFieldExpiry(k, field, at)
	if at <= c.Now() {
		t.removed++
		return 2
	}
	t.expiring++
	return 1
}

func (t *fieldTally) tell(c *Context, k crdt.Key) {
	for _, e := range []struct {
		n    int
		name string
	}{{t.expiring, "hexpire"}, {t.lasting, "hpersist"}, {t.removed, "hdel"}} {
		if e.n > 0 {
			c.Events = append(c.Events, Event{ClassHash, e.name, k})
		}
	}
	if t.removed > 0 && c.Type(k) == crdt.TypeNone {
		c.Events = append(c.Events, Event{ClassGeneric, "del", k})
	}
}

// hashTTL makes the Run of HTTL and its kin.
func hashTTL(unit timeUnit) func(*Context) {
	return func(c *Context) {
		k, fields, ok := openFields(c, "HTTL")
		if !ok {
			return
		}
		c.Out.Array(len(fields))
		for _, f := range fields {
			at := c.FieldExpiry(k, string(f))
			if at == 0 {
				if _, ok := c.Elem(k, crdt.KindField, string(f)); ok {
					c.Out.Int(-1)
				} else {
					c.Out.Int(-2)
				}
				continue
			}
			if !unit.absolute {
				at -= c.Now()
			}
			if unit.seconds {
				at = (at + 999) / 1000
			}
			c.Out.Int(at)
		}
	}
}

func hpersist(c *Context) {
	k, fields, ok := openFields(c, "HPERSIST")
	if !ok {
		return
	}
	var t fieldTally
	c.Out.Array(len(fields))
	for _, f := range fields {
		field := string(f)
		if _, ok := c.Elem(k, crdt.KindField, field); !ok {
			c.Out.Int(-2)
		} else if !t.persist(c, k, field) {
			c.Out.Int(-1)
		} else {
			c.Out.Int(1)
		}
	}
	t.tell(c, k)
}

// persist makes a field lasting and reports whether it was not.
func (t *fieldTally) persist(c *Context, k crdt.Key, field string) bool {
	if c.FieldExpiry(k, field) == 0 {
		return false
	}
	c.SetFieldExpiry(k, field, crdt.Never)
	t.lasting++
	return true
}

func hgetex(c *Context) {
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeHash) {
		return
	}
	args := c.Args[2:]
	at, persist := int64(0), false
	set := false
	if is(args[0], "PERSIST") {
		args, persist = args[1:], true
	} else if unit, ok := timeOption(args[0]); ok {
		var e string
		if at, e = unit.fieldMillis(args[1], c.Now(), "HGETEX"); e != "" {
			c.Out.Error(e)
			return
		}
		args, set = args[2:], true
	}
	fields, e := parseFields(args, "HGETEX", errFieldsNumber)
	if e != "" {
		c.Out.Error(e)
		return
	}
	var t fieldTally
	c.Out.Array(len(fields))
	for _, f := range fields {
		field := string(f)
		v, ok := c.Elem(k, crdt.KindField, field)
		bulkOrNull(c, v, ok)
		switch {
		case !ok:
		case set:
			t.expire(c, k, field, at)
		case persist:
			t.persist(c, k, field)
		}
	}
	t.tell(c, k)
}

// timeOption returns the unit of EX and its kin.
func timeOption(arg []byte) (timeUnit, bool) {
	for _, t := range timeOptions {
		if is(arg, t.word) {
			return t.unit, true
		}
	}
	return timeUnit{}, false
}

// setexOptions are the options of HSETEX, and its fields and values.
type setexOptions struct {
	fnx, fxx     bool
	keepTTL, set bool
	at           int64
	pairs        [][]byte
}

func parseSetexOptions(args [][]byte, now int64) (o setexOptions, e string) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		unit, expires := timeOption(a)
		switch {
		case is(a, "FIELDS"):
			if i+3 >= len(args) {
				return o, errArity("HSETEX")
			}
			n, ok := crdt.ParseInt(args[i+1])
			if !ok || n < 1 || n > maxSetexFields {
				return o, errFieldsInvalid
			}
			if o.pairs = args[i+2:]; int64(len(o.pairs)) != 2*n {
				return o, errArity("HSETEX")
			}
			return o, ""
		case is(a, "FNX"), is(a, "FXX"):
			if o.fnx || o.fxx {
				return o, errFieldsCondition
			}
			o.fnx = is(a, "FNX")
			o.fxx = !o.fnx
		case is(a, "KEEPTTL"), expires:
			if o.keepTTL || o.set {
				return o, errFieldsExpiry
			}
			if o.keepTTL = !expires; o.keepTTL {
				continue
			}
			if i++; i == len(args) {
				return o, errArity("HSETEX")
			}
			if o.at, e = unit.fieldMillis(args[i], now, "HSETEX"); e != "" {
				return o, e
			}
			o.set = true
		default:
			return o, errFormat("ERR unknown argument: %s", a)
		}
	}
	return o, errFieldsMissing
}

// maxSetexFields is how many fields HSETEX takes in Redis.
const maxSetexFields = 1<<31 - 1

func hsetex(c *Context) {
	o, e := parseSetexOptions(c.Args[2:], c.Now())
	if e != "" {
		c.Out.Error(e)
		return
	}
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeHash) {
		return
	}
	fresh := c.Type(k) == crdt.TypeNone
	for i := 0; (o.fnx || o.fxx) && i < len(o.pairs); i += 2 {
		if _, ok := c.Elem(k, crdt.KindField, string(o.pairs[i])); ok == o.fnx {
			c.Out.Int(0)
			return
		}
	}
	for i := 0; i < len(o.pairs); i += 2 {
		c.SetField(k, string(o.pairs[i]), o.pairs[i+1], o.keepTTL)
	}
	var t fieldTally
	for i := 0; o.set && i < len(o.pairs); i += 2 {
		t.expire(c, k, string(o.pairs[i]), o.at)
	}
	if fresh {
		c.Events = append(c.Events, Event{ClassNew, "new", k})
	}
	c.Events = append(c.Events, Event{ClassHash, "hset", k})
	t.tell(c, k)
	c.Out.Int(1)
}

func hgetdel(c *Context) {
	k, fields, ok := openFields(c, "HGETDEL")
	if !ok {
		return
	}
	var t fieldTally
	c.Out.Array(len(fields))
	for _, f := range fields {
		v, ok := c.Elem(k, crdt.KindField, string(f))
		bulkOrNull(c, v, ok)
		if ok {
			c.RemoveElem(k, crdt.KindField, string(f))
			t.removed++
		}
	}
	t.tell(c, k)
}
