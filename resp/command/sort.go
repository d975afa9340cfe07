package command

import (
	"bytes"

	"github.com/replicatord/replicatord/crdt"
)

// SORT is the view's. STORE logs the result as a list of its own, which is not
// sorted again when what it came from changes.

var sortCommands = []*Command{
	{Name: "SORT", Arity: -2, Flags: Write | DenyOOM | MovableKeys, First: 1, Last: 1, Step: 1, Group: "generic", Since: "1.0.0",
		Summary: "The sorted elements of a list, set or sorted set", Run: sort, Reads: sortReads},
	{Name: "SORT_RO", Arity: -2, Flags: ReadOnly | MovableKeys, First: 1, Last: 1, Step: 1, Group: "generic", Since: "7.0.0",
		Summary: "The sorted elements of a list, set or sorted set"},
}

func sortReads(args [][]byte) bool { return sortStore(args) == 0 }

// sort carries out a SORT that stores.
func sort(c *Context) {
	// The other options stay as and where they are, so that the view reads them
	// as they were read here, and finds no STORE.
	args := [][]byte{c.Args[0], c.Args[1]}
	var dest crdt.Key
	set := c.Type(c.Key(1)) == crdt.TypeSet
	alpha := false
	for i := 2; i < len(c.Args); i++ {
		a, left := c.Args[i], len(c.Args)-i-1
		n := 0 // arguments of the option
		switch {
		case is(a, "STORE") && left > 0:
			dest = c.Key(i + 1)
			i++
			continue
		case is(a, "LIMIT") && left > 1:
			n = 2
		case is(a, "GET") && left > 0, is(a, "BY") && left > 0:
			n = 1
		}
		if set && n == 1 && is(a, "BY") && bytes.IndexByte(cString(c.Args[i+1]), '*') < 0 {
			alpha = true
		}
		args = append(args, c.Args[i:i+1+n]...)
		i += n
	}
	if alpha {
		// A set that is not to be sorted has no order that could be kept.
		args = withoutBy(args)
	}
	raw := c.ask(c.DB, args...)
	v, rest, err := parseValue(raw, 0)
	switch {
	case raw[0] == '-':
		c.Out.Raw(raw)
		return
	case err != nil || len(rest) > 0 || raw[0] != '*':
		c.Out.Error("ERR " + errViewReply.Error())
		return
	}
	items := make([][]byte, len(v.list))
	for i := range items {
		items[i] = bytes.Clone(v.list[i].text)
	}
	c.Remove(dest)
	if e := c.pushAll(dest, items); e != nil {
		c.Out.Raw(e)
		return
	}
	c.Out.Int(int64(len(items)))
}

// withoutBy returns the arguments of a SORT without BY, and with ALPHA.
func withoutBy(args [][]byte) [][]byte {
	out := [][]byte{args[0], args[1], []byte("ALPHA")}
	for i := 2; i < len(args); i++ {
		a, left := args[i], len(args)-i-1
		switch {
		case is(a, "BY") && left > 0:
			i++
			continue
		case is(a, "LIMIT") && left > 1:
			out = append(out, a, args[i+1])
			i += 2
		case is(a, "GET") && left > 0:
			out = append(out, a)
			i++
		}
		out = append(out, args[i])
	}
	return out
}
