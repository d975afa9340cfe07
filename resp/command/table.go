package command

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// commands is the command table by upper-case name; subcommands are in their
// containers' rows. It is made by init: commands that call others refer to it.
var commands map[string]*Command

func init() { commands = buildTable(tables...) }

// tables are the rows by what they are about.
var tables = [][]*Command{
	stringCommands,
	bitmapCommands,
	genericCommands,
	hashCommands,
	hashExpiryCommands,
	setCommands,
	listCommands,
	zsetCommands,
	geoCommands,
	hyperLogLogCommands,
	dumpCommands,
	sortCommands,
	streamCommands,
	scriptingCommands,
	transactionCommands,
	readOnlyCommands,
	sessionCommands,
	pubsubCommands,
	serverCommands,
	nodeCommands,
	reservedCommands,
}

// maxName is longer than the name of any command.
const maxName = 32

// buildTable puts rows into a table. It panics on rows that contradict
// themselves or each other: the program could not start, let alone ship.
func buildTable(groups ...[]*Command) map[string]*Command {
	t := map[string]*Command{}
	for _, g := range groups {
		for _, c := range g {
			if t[c.Name] != nil {
				panic("command: two rows for " + c.Name)
			}
			c.finish()
			t[c.Name] = c
		}
	}
	return t
}

// finish completes a row and its subcommands', and checks them.
func (c *Command) finish() {
	c.specs = specsOf(c)
	c.pure = slices.Contains(pureReads, c.Name)
	c.Local = localReads[c.Name]
	c.cell, c.near = nearReads[c.Name]
	class := 0
	for _, f := range []Flag{Write, ReadOnly, Session, Admin} {
		if c.Flags&f != 0 {
			class++
		}
	}
	switch name := c.Name; {
	case name != strings.ToUpper(name) || name == "" || len(name) >= maxName:
		panic(fmt.Sprintf("command: bad name %q", name))
	case c.Arity == 0:
		panic("command: no arity for " + name)
	case c.Refused == "" && len(c.Sub) == 0 && class != 1:
		panic("command: nobody, or several, carry out " + name)
	case c.Refused == "" && c.Run == nil && c.Flags&Write != 0, c.Run != nil && c.Flags&(Write|ReadOnly) == 0:
		panic("command: a write, and nothing that is not about data, has a Run: " + name)
	case c.pure && (c.Run != nil || c.First != 1 || c.Flags&ReadOnly == 0):
		panic("command: no read of the view about its first argument: " + name)
	case c.Refused == "" && len(c.Sub) == 0 && (c.Group == "" || c.Since == "" || c.Summary == ""):
		panic("command: undocumented " + name)
	}
	for _, s := range c.Sub {
		sub, ok := strings.CutPrefix(s.Name, c.Name+"|")
		if !ok {
			panic("command: " + s.Name + " is no subcommand of " + c.Name)
		}
		if c.sub == nil {
			c.sub = map[string]*Command{}
		}
		s.finish()
		c.sub[sub] = s
	}
}

// named looks a name up in a table, in whatever case it is.
func named(table map[string]*Command, name []byte) *Command {
	var buf [maxName]byte
	if len(name) > len(buf) {
		return nil
	}
	for i, c := range name {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		buf[i] = c
	}
	return table[string(buf[:len(name)])]
}

// lookup finds the row of a request, which is not empty; of the subcommand, if
// it names one. nil if there is none.
func lookup(args [][]byte) *Command {
	c := named(commands, args[0])
	if c != nil && c.sub != nil && len(args) > 1 {
		return named(c.sub, args[1])
	}
	return c
}

// Find finds what carries a request out. args is not empty. If nothing does,
// the string is the error to reply: Redis's own for commands it does not know
// or that have too many or too few arguments, else one that names what is not
// supported. A command found this way is for the view if its ByView says so,
// else for whoever its Flags tell.
func Find(args [][]byte) (*Command, string) {
	c := lookup(args)
	switch {
	case c == nil && len(args) > 1 && named(commands, args[0]) != nil:
		return nil, errUnknownSubcommand(args)
	case c == nil:
		return nil, errUnknownCommand(args)
	case c.Arity > 0 && len(args) != c.Arity, len(args) < -c.Arity:
		return nil, errArity(c.Name)
	case c.Refused != "" && (c.Reads == nil || !c.Reads(args)):
		if strings.HasPrefix(c.Refused, "ERR ") {
			return nil, c.Refused
		}
		return nil, errUnsupported(c.Name, c.Refused)
	}
	return c, ""
}

// Lookup finds the row of a request, carried out or refused, whatever the
// number of its arguments; nil if there is none. args is not empty.
func Lookup(args [][]byte) *Command { return lookup(args) }

// Named finds a row by a full name in any case, such as "get" or
// "client|list"; nil if there is none.
func Named(name string) *Command {
	container, sub, isSub := strings.Cut(name, "|")
	c := named(commands, []byte(container))
	if c != nil && isSub {
		return named(c.sub, []byte(sub))
	}
	return c
}

// Rows returns every row of the table, refused or not, in order of name, each
// followed by its subcommands.
func Rows() []*Command {
	var out []*Command
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		c := commands[name]
		out = append(out, c)
		for _, sub := range slices.Sorted(maps.Keys(c.sub)) {
			out = append(out, c.sub[sub])
		}
	}
	return out
}

// All returns the rows that COMMAND tells of, by name: also of what is refused,
// for clients and proxies go by what they say. Subcommands are in Sub.
func All() []*Command {
	var out []*Command
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		if c := commands[name]; c.described() {
			out = append(out, c)
		}
	}
	return out
}

// described reports whether the row tells all that COMMAND tells.
func (c *Command) described() bool { return c.Group != "" }

// supported reports whether the node carries the command out, if not with all
// arguments.
func (c *Command) supported() bool {
	return c.Refused == "" && len(c.Sub) == 0 || c.Reads != nil || slices.ContainsFunc(c.Sub, (*Command).supported)
}

// subs returns the subcommands that COMMAND tells of, by name.
func (c *Command) subs() []*Command {
	var out []*Command
	for _, s := range c.Sub {
		if s.described() {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *Command) int { return strings.Compare(a.Name, b.Name) })
	return out
}
