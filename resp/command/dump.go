package command

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/replicatord/replicatord/crdt"
)

// Values in serialised form are the view's to make and to read: RESTORE has it
// make a key of a name that no client uses, takes down what that holds, and
// logs that. What it cannot read, it refuses with Redis's own error.

var dumpCommands = []*Command{
	{Name: "DUMP", Arity: 2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "generic", Since: "2.6.0",
		Summary: "A value in serialised form", Run: dump},
	{Name: "RESTORE", Arity: -4, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "generic", Since: "2.6.0",
		Summary: "Makes a key of a value in serialised form", Run: restore},
	{Name: "SWAPDB", Arity: 3, Flags: Write | Fast, Group: "server", Since: "4.0.0",
		Summary: "Exchanges what two databases hold", Run: swapdb},
}

// scratchKey is what the view makes of a serialised value for a moment; it goes
// by itself if the node does in between.
var (
	scratchKey  = []byte("\x00replicatord\x00scratch")
	scratchLife = []byte("60000") // ms
)

// restoreOptions are the options of RESTORE.
type restoreOptions struct {
	replace, absolute bool
	rest              [][]byte // IDLETIME or FREQ, which are for the view alone
}

func parseRestoreOptions(args [][]byte) (o restoreOptions, e string) {
	idle, freq := false, false
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case is(a, "REPLACE"):
			o.replace = true
		case is(a, "ABSTTL"):
			o.absolute = true
		case (is(a, "IDLETIME") && !freq || is(a, "FREQ") && !idle) && i+1 < len(args):
			n, ok := crdt.ParseInt(args[i+1])
			idle = is(a, "IDLETIME")
			freq = !idle
			switch {
			case !ok:
				return o, errNotInteger
			case idle && n < 0:
				return o, "ERR Invalid IDLETIME value, must be >= 0"
			case freq && (n < 0 || n > 255):
				return o, "ERR Invalid FREQ value, must be >= 0 and <= 255"
			}
			o.rest = [][]byte{a, args[i+1]}
			i++
		default:
			return o, errSyntax
		}
	}
	return o, ""
}

func restore(c *Context) {
	o, e := parseRestoreOptions(c.Args[4:])
	k := c.Key(1)
	if e == "" && !o.replace && c.Type(k) != crdt.TypeNone {
		e = "BUSYKEY Target key name already exists."
	}
	ttl, ok := crdt.ParseInt(c.Args[2])
	switch {
	case e != "":
	case !ok:
		e = errNotInteger
	case ttl < 0:
		e = "ERR Invalid TTL value, must be >= 0"
	}
	if e != "" {
		c.Out.Error(e)
		return
	}
	// Only the view can tell whether it is sound.
	if raw := c.ask(c.DB, []byte("RESTORE"), scratchKey, scratchLife, c.Args[3], []byte("REPLACE")); raw[0] == '-' {
		c.Out.Raw(raw)
		return
	}
	at := ttl
	if ttl != 0 && !o.absolute {
		if ttl > lastExpiry-c.Now() {
			at = lastExpiry
		} else {
			at += c.Now()
		}
	}
	if at != 0 && at <= c.Now() {
		c.ask(c.DB, []byte("DEL"), scratchKey)
		c.Remove(k)
		c.Out.OK()
		return
	}
	err := c.takeScratch(k)
	c.ask(c.DB, []byte("DEL"), scratchKey)
	if err != nil {
		c.Out.Raw(err)
		return
	}
	if at != 0 {
		c.SetExpiry(k, min(at, lastExpiry))
	}
	if o.rest != nil && c.Type(k) != crdt.TypeStream {
		// How recently it was used is not the value's, but the view's.
		args := [][]byte{[]byte("RESTORE"), c.Args[1], strconv.AppendInt(nil, at, 10), c.Args[3], []byte("REPLACE"), []byte("ABSTTL")}
		if raw := c.ask(c.DB, append(args, o.rest...)...); raw[0] == '-' {
			c.Out.Raw(raw)
			return
		}
	}
	c.Out.OK()
}

// ask asks the view and returns its raw reply, an error reply if it is not there.
func (c *Context) ask(db uint8, args ...[]byte) []byte {
	raw, err := c.View(db, args...)
	if err != nil {
		out := Reply{}
		out.Error(err.Error())
		return out.Buf
	}
	return raw
}

// askBulks is ask for a reply of bulk strings; the second result is an error
// reply if there is another.
func (c *Context) askBulks(args ...string) ([][]byte, []byte) {
	b := make([][]byte, len(args))
	for i, a := range args {
		b[i] = []byte(a)
	}
	raw := c.ask(c.DB, b...)
	if raw[0] == '-' {
		return nil, raw
	}
	list, err := parseBulks(raw, len(raw))
	if err != nil {
		out := Reply{}
		out.Error("ERR " + err.Error())
		return nil, out.Buf
	}
	return list, nil
}

// inner carries out a data command on the cells and returns its raw reply of
// RESP2.
func (c *Context) inner(args ...[]byte) []byte {
	in := *c
	in.Out = Reply{Proto: 2}
	return in.Call(args)
}

// takeScratch puts what the view's scratch key holds under a key, in place of
// what is there. It returns an error reply if it cannot.
func (c *Context) takeScratch(k crdt.Key) []byte {
	scratch := string(scratchKey)
	typ := string(bytes.TrimSpace(c.ask(c.DB, []byte("TYPE"), scratchKey)))
	read := map[string][]string{
		"+string": {"GET", scratch}, "+hash": {"HGETALL", scratch}, "+set": {"SMEMBERS", scratch},
		"+zset": {"ZRANGE", scratch, "0", "-1", "WITHSCORES"}, "+list": {"LRANGE", scratch, "0", "-1"},
	}[typ]
	if typ == "+stream" {
		return c.takeStream(k)
	}
	if read == nil {
		out := Reply{}
		out.Error("ERR Bad data format: the value is a " + typ)
		return out.Buf
	}
	list, e := c.askBulks(read...)
	if e != nil {
		return e
	}
	for i := range list {
		list[i] = bytes.Clone(list[i])
	}
	if typ == "+list" {
		c.Remove(k)
		return c.pushAll(k, list)
	}
	c.Remove(k)
	switch typ {
	case "+string":
		c.SetString(k, list[0], false)
	case "+hash":
		for i := 0; i+1 < len(list); i += 2 {
			c.SetElem(k, crdt.KindField, string(list[i]), list[i+1])
		}
		return c.takeFieldExpiries(k, list)
	case "+set":
		for _, m := range list {
			c.SetElem(k, crdt.KindMember, string(m), nil)
		}
	case "+zset":
		for i := 0; i+1 < len(list); i += 2 {
			c.SetElem(k, crdt.KindScored, string(list[i]), crdt.FormatScore(crdt.ParseScore(list[i+1])))
		}
	}
	return nil
}

// takeFieldExpiries sets the expiries of the fields of the view's scratch key, of
// which these are the fields and values. A view that knows no such expiries has
// read none.
func (c *Context) takeFieldExpiries(k crdt.Key, pairs [][]byte) []byte {
	for part := range slices.Chunk(pairs, 2*pushChunk) {
		args := [][]byte{[]byte("HPEXPIRETIME"), scratchKey, []byte("FIELDS"), strconv.AppendInt(nil, int64(len(part)/2), 10)}
		for i := 0; i < len(part); i += 2 {
			args = append(args, part[i])
		}
		raw := c.ask(c.DB, args...)
		if bytes.HasPrefix(raw, []byte("-ERR unknown command")) {
			return nil
		}
		v, rest, err := parseValue(raw, 0)
		if raw[0] == '-' {
			return raw
		}
		if err != nil || len(rest) > 0 || len(v.list) != len(part)/2 {
			out := Reply{}
			out.Error("ERR " + errViewReply.Error())
			return out.Buf
		}
		for i := range v.list {
			if at := v.list[i].n; at > 0 {
				c.SetFieldExpiry(k, string(part[2*i]), at)
			}
		}
	}
	return nil
}

// pushChunk is how many items one RPUSH takes.
const pushChunk = 4096

// pushAll appends to a list; it returns an error reply if it cannot.
func (c *Context) pushAll(k crdt.Key, list [][]byte) []byte {
	for part := range slices.Chunk(list, pushChunk) {
		if raw := c.innerOn(k, append([][]byte{[]byte("RPUSH"), []byte(k.Name)}, part...)...); raw[0] == '-' {
			return raw
		}
	}
	return nil
}

// innerOn is inner in the database of a key.
func (c *Context) innerOn(k crdt.Key, args ...[]byte) []byte {
	in := *c
	in.DB = k.DB
	return in.inner(args...)
}

// refusedDump is the error for a hash with more than the view can write down.
const refusedDump = "ERR fields of this hash expire, which only a Redis of version 7.4 or a Valkey of version 9 can put in serialised form: " +
	"there is none of these behind this node"

func dump(c *Context) {
	k := c.Key(1)
	switch c.Type(k) {
	case crdt.TypeNone:
		c.Out.Null()
		return
	case crdt.TypeStream:
	default:
		expires := false
		c.EachFieldExpiry(k, func(string, int64) { expires = true })
		if expires && c.ask(c.DB, []byte("HPEXPIRETIME"), scratchKey, []byte("FIELDS"), []byte("1"), []byte("f"))[0] == '-' {
			c.Out.Error(refusedDump)
			return
		}
		c.Out.Raw(c.ask(c.DB, c.Args...))
		return
	}
	// Of a stream the view has only a placeholder.
	name := c.Args[1]
	e := CopyStream(
		func(args ...[]byte) []byte { return c.inner(args...) }, name,
		func(args ...[]byte) []byte { return c.ask(c.DB, args...) }, scratchKey)
	if e == nil {
		e = c.ask(c.DB, []byte("DUMP"), scratchKey)
	}
	c.ask(c.DB, []byte("DEL"), scratchKey)
	c.Out.Raw(e)
}

// takeStream puts the stream in the view's scratch key under a key.
func (c *Context) takeStream(k crdt.Key) []byte {
	c.Remove(k)
	return CopyStream(
		func(args ...[]byte) []byte { return c.ask(c.DB, args...) }, scratchKey,
		func(args ...[]byte) []byte { return c.inner(args...) }, []byte(k.Name))
}

// refusedSwapSize is the error for databases too large to exchange.
const refusedSwapSize = "ERR SWAPDB moves every element to the other database, as one entry of the log: there are more than " + maxSwapText + " here"

// maxSwap bounds the elements that SWAPDB moves, so that its entry stays one
// that every peer takes.
const (
	maxSwap     = 100_000
	maxSwapText = "100000"
)

// swapdb exchanges what this node sees of two databases: each of their keys is
// renamed across, and writes that it has not seen stay where they were made.
func swapdb(c *Context) {
	var dbs [2]uint8
	for i, e := range []string{"ERR invalid first DB index", "ERR invalid second DB index"} {
		n, bad := parseInt32(c.Args[1+i])
		switch {
		case bad == errIntRange, bad == errNotInteger:
			c.Out.Error(e)
			return
		case n < 0 || n >= Databases:
			dbs[i] = Databases
		default:
			dbs[i] = uint8(n)
		}
	}
	if dbs[0] == Databases || dbs[1] == Databases {
		c.Out.Error(errDBRange)
		return
	}
	if dbs[0] == dbs[1] {
		c.Out.OK()
		return
	}
	type moved struct {
		to crdt.Key
		content
	}
	var all []moved
	size := 0
	for i, db := range dbs {
		raw := c.ask(db, []byte("KEYS"), []byte("*"))
		names, err := parseBulks(raw, len(raw))
		if err != nil {
			c.Out.Raw(raw)
			return
		}
		for _, name := range names {
			k := crdt.Key{DB: db, Name: string(name)}
			if c.Type(k) == crdt.TypeNone {
				continue // the node's own
			}
			v := readKey(c, k)
			if size += len(v.elems) + len(v.due); size > maxSwap {
				c.Out.Error(refusedSwapSize)
				return
			}
			all = append(all, moved{crdt.Key{DB: dbs[1-i], Name: k.Name}, v})
		}
	}
	c.Flush(dbs[0])
	c.Flush(dbs[1])
	for _, m := range all {
		m.write(c, m.to)
	}
	c.Out.OK()
}
