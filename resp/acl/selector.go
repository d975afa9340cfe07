package acl

import (
	"slices"
	"strings"

	"github.com/replicatord/replicatord/resp/command"
)

// The command table as selectors see it: an id for each row, which is its
// place in rows.
var (
	rows     = command.Rows()
	ids      = index(rows)
	children = subcommands(rows)
	words    = (len(rows) + 63) / 64
	members  = byCategory(rows) // ids of the rows of each category
)

func index(rows []*command.Command) map[*command.Command]int {
	m := make(map[*command.Command]int, len(rows))
	for i, c := range rows {
		m[c] = i
	}
	return m
}

// subcommands returns the ids of each container's subcommands.
func subcommands(rows []*command.Command) map[int][]int {
	m := map[int][]int{}
	for i, c := range rows {
		for _, s := range c.Sub {
			m[i] = append(m[i], ids[s])
		}
	}
	return m
}

func byCategory(rows []*command.Command) map[string][]int {
	m := map[string][]int{}
	for i, c := range rows {
		for _, name := range c.Categories() {
			m[name] = append(m[name], i)
		}
	}
	return m
}

// bits is a set of commands by id.
type bits []uint64

func (b bits) has(id int) bool { return b[id/64]&(1<<(id%64)) != 0 }

func (b bits) set(id int, on bool) {
	if on {
		b[id/64] |= 1 << (id % 64)
	} else {
		b[id/64] &^= 1 << (id % 64)
	}
}

func (b bits) fill(on bool) {
	for id := range rows {
		b.set(id, on)
	}
}

// Permissions of a key pattern.
const (
	permRead  = 1 << iota // %R~
	permWrite             // %W~
	permAll   = permRead | permWrite
)

type keyPattern struct {
	perm    int
	pattern string
}

func (p keyPattern) String() string {
	return [...]string{permRead: "%R~", permWrite: "%W~", permAll: "~"}[p.perm] + p.pattern
}

// selector is one set of rules about commands, keys and channels.
type selector struct {
	allKeys, allChannels bool
	allCommands          bool // nothing has been taken from +@all
	future               bool // began with +@all
	commands             bits
	firstArgs            map[int][]string // of commands that are not allowed otherwise
	keys                 []keyPattern
	channels             []string
}

func newSelector(allChannels bool) *selector {
	return &selector{allChannels: allChannels, commands: make(bits, words)}
}

func (s *selector) clone() *selector {
	c := *s
	c.commands = slices.Clone(s.commands)
	c.keys = slices.Clone(s.keys)
	c.channels = slices.Clone(s.channels)
	c.firstArgs = nil
	for id, args := range s.firstArgs {
		c.addFirstArgs(id, args...)
	}
	return &c
}

// apply changes the selector by one operation. The error is Redis's words for
// what is wrong with it.
func (s *selector) apply(op string) error {
	is := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(op, n) })
	}
	switch {
	case is("allkeys", "~*"):
		s.allKeys, s.keys = true, nil
	case is("resetkeys"):
		s.allKeys, s.keys = false, nil
	case is("allchannels", "&*"):
		s.allChannels, s.channels = true, nil
	case is("resetchannels"):
		s.allChannels, s.channels = false, nil
	case is("allcommands", "+@all"):
		s.commands.fill(true)
		s.allCommands, s.future, s.firstArgs = true, true, nil
	case is("nocommands", "-@all"):
		s.commands.fill(false)
		s.allCommands, s.future, s.firstArgs = false, false, nil
	case op[0] == '~', op[0] == '%':
		return s.addKeys(op)
	case op[0] == '&':
		return s.addChannels(op[1:])
	case strings.HasPrefix(op, "+@"), strings.HasPrefix(op, "-@"):
		name := strings.ToLower(op[2:])
		if !slices.Contains(command.Categories, name) {
			return errUnknown
		}
		s.setCategory(name, op[0] == '+')
	case op[0] == '+':
		return s.addCommand(op[1:])
	case op[0] == '-':
		c := command.Named(op[1:])
		if c == nil {
			return errUnknown
		}
		s.setCommand(ids[c], false)
	default:
		return errWrong
	}
	return nil
}

func (s *selector) addKeys(op string) error {
	if s.allKeys {
		return errAllKeys
	}
	p := keyPattern{permAll, op[1:]}
	if op[0] == '%' {
		perms, pattern, _ := strings.Cut(op[1:], "~")
		p = keyPattern{pattern: pattern}
		for _, ch := range strings.ToUpper(perms) {
			bit := map[rune]int{'R': permRead, 'W': permWrite}[ch]
			if bit == 0 || p.perm&bit != 0 {
				return errWrong
			}
			p.perm |= bit
		}
		if p.perm == 0 {
			return errWrong
		}
	}
	if hasSpace(p.pattern) {
		return errWrong
	}
	if i := slices.IndexFunc(s.keys, func(k keyPattern) bool { return k.pattern == p.pattern }); i >= 0 {
		s.keys[i].perm |= p.perm
	} else {
		s.keys = append(s.keys, p)
	}
	return nil
}

func (s *selector) addChannels(pattern string) error {
	switch {
	case s.allChannels:
		return errAllChannels
	case hasSpace(pattern):
		return errWrong
	case !slices.Contains(s.channels, pattern):
		s.channels = append(s.channels, pattern)
	}
	return nil
}

// addCommand allows a command, a subcommand, or a command with a first
// argument.
func (s *selector) addCommand(name string) error {
	i := strings.LastIndexByte(name, '|')
	if i < 0 {
		c := command.Named(name)
		if c == nil {
			return errUnknown
		}
		s.setCommand(ids[c], true)
		return nil
	}
	c, sub := command.Named(name[:i]), name[i+1:]
	switch {
	case c == nil:
		return errUnknown
	case strings.Contains(c.Name, "|"):
		return errFirstArg
	case sub == "":
		return errWrong
	case len(c.Sub) == 0:
		s.addFirstArgs(ids[c], sub)
		return nil
	}
	if c = command.Named(name); c == nil {
		return errUnknown
	}
	s.setCommand(ids[c], true)
	return nil
}

func (s *selector) addFirstArgs(id int, args ...string) {
	if s.firstArgs == nil {
		s.firstArgs = map[int][]string{}
	}
	for _, a := range args {
		if !slices.ContainsFunc(s.firstArgs[id], func(b string) bool { return strings.EqualFold(a, b) }) {
			s.firstArgs[id] = append(s.firstArgs[id], a)
		}
	}
}

func (s *selector) setCategory(name string, on bool) {
	for _, id := range members[name] {
		s.setCommand(id, on)
	}
}

// setCommand allows or forbids a command with all its subcommands.
func (s *selector) setCommand(id int, on bool) {
	s.commands.set(id, on)
	for _, sub := range children[id] {
		s.commands.set(sub, on)
	}
	delete(s.firstArgs, id)
	s.allCommands = s.allCommands && on
}

// check decides about a request. arg is the argument that was denied.
func (s *selector) check(cmd *command.Command, args [][]byte, keys func() []command.KeyRef) (d Denied, arg int) {
	if !s.allCommands && cmd.Flags&command.NoAuth == 0 && !s.allows(cmd, args) {
		return DeniedCommand, 0
	}
	if !s.allKeys {
		for _, k := range keys() {
			if !s.mayAccess(args[k.Arg], k.Access) {
				return DeniedKey, k.Arg
			}
		}
	}
	if !s.allChannels {
		from, to, pattern := channelArgs(cmd, args)
		for i := from; i < to; i++ {
			if !allowsChannel(s.channels, args[i], pattern) {
				return DeniedChannel, i
			}
		}
	}
	return Allowed, 0
}

func (s *selector) allows(cmd *command.Command, args [][]byte) bool {
	id := ids[cmd]
	return s.commands.has(id) || len(args) > 1 && slices.ContainsFunc(s.firstArgs[id], func(a string) bool {
		return strings.EqualFold(string(args[1]), a)
	})
}

func needs(a command.KeyAccess) (perm int) {
	if a&command.KeyAccessed != 0 {
		perm |= permRead
	}
	if a&(command.KeyInsert|command.KeyDelete|command.KeyUpdate) != 0 {
		perm |= permWrite
	}
	return perm
}

func (s *selector) mayAccess(key []byte, a command.KeyAccess) bool {
	perm := needs(a)
	for _, p := range s.keys {
		if p.perm&perm == perm && command.Match([]byte(p.pattern), key, false) {
			return true
		}
	}
	return s.allKeys
}

// mayReadAll reports whether all keys may be read.
func (s *selector) mayReadAll() bool {
	return s.allKeys || slices.ContainsFunc(s.keys, func(p keyPattern) bool { return p.perm&permRead != 0 && p.pattern == "*" })
}

// channelArgs returns which arguments of a request are channels whose use has
// to be allowed, and whether they are patterns.
func channelArgs(cmd *command.Command, args [][]byte) (from, to int, pattern bool) {
	switch cmd.Name {
	case "PUBLISH", "SPUBLISH":
		return 1, min(2, len(args)), false
	case "SUBSCRIBE", "SSUBSCRIBE":
		return 1, len(args), false
	case "PSUBSCRIBE":
		return 1, len(args), true
	}
	return 0, 0, false
}

// allowsChannel reports whether one of the patterns allows a channel; of a
// pattern, whether it is one of them.
func allowsChannel(patterns []string, channel []byte, isPattern bool) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if isPattern {
			return p == string(channel)
		}
		return command.Match([]byte(p), channel, false)
	})
}

// hasSpace reports whether s has what would break a line of rules apart.
func hasSpace(s string) bool { return strings.ContainsAny(s, " \t\n\v\f\r\x00") }
