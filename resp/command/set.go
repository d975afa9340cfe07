package command

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/replicatord/replicatord/crdt"
)

// A set member is a cell of crdt.KindMember without a value. SADD of a member
// that is there already replies 0 as in Redis and yet is written, with a new
// dot: an SREM made elsewhere at the same time has not seen it, so the member
// stays, as the client that added it was told. SREM of a member that is not
// there writes nothing.

var setCommands = []*Command{
	{Name: "SADD", Arity: -3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "Puts members into a set", Run: sadd},
	{Name: "SCARD", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "How many members a set has"},
	{Name: "SDIFF", Arity: -2, Flags: ReadOnly, First: 1, Last: -1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "What the first set has and no other does"},
	{Name: "SDIFFSTORE", Arity: -3, Flags: Write | DenyOOM, First: 1, Last: -1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "Keeps what the first set has and no other does", Run: sdiffstore},
	{Name: "SINTER", Arity: -2, Flags: ReadOnly, First: 1, Last: -1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "What all the sets have"},
	{Name: "SINTERCARD", Arity: -3, Flags: ReadOnly | MovableKeys, Group: "set", Since: "7.0.0",
		Summary: "How many members all the sets have in common"},
	{Name: "SINTERSTORE", Arity: -3, Flags: Write | DenyOOM, First: 1, Last: -1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "Keeps what all the sets have", Run: sinterstore},
	{Name: "SISMEMBER", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "Whether something is in a set"},
	{Name: "SMEMBERS", Arity: 2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "A set's members"},
	{Name: "SMISMEMBER", Arity: -3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "set", Since: "6.2.0",
		Summary: "Which of several things are in a set"},
	{Name: "SMOVE", Arity: 4, Flags: Write | Fast, First: 1, Last: 2, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "Takes a member from one set to another", Run: smove},
	{Name: "SPOP", Arity: -2, Flags: Write | Fast | Random, First: 1, Last: 1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "Takes members out of a set at random", Run: spop},
	{Name: "SRANDMEMBER", Arity: -2, Flags: ReadOnly | Random, First: 1, Last: 1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "Members of a set, drawn at random"},
	{Name: "SREM", Arity: -3, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "Takes members out of a set", Run: srem},
	{Name: "SSCAN", Arity: -3, Flags: ReadOnly | Random, First: 1, Last: 1, Step: 1, Group: "set", Since: "2.8.0",
		Summary: "A set, some members at a time"},
	{Name: "SUNION", Arity: -2, Flags: ReadOnly, First: 1, Last: -1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "What any of the sets has"},
	{Name: "SUNIONSTORE", Arity: -3, Flags: Write | DenyOOM, First: 1, Last: -1, Step: 1, Group: "set", Since: "1.0.0",
		Summary: "Keeps what any of the sets has", Run: sunionstore},
}

func sadd(c *Context) {
	k := c.Key(1)
	if wrongKind(c, k, crdt.TypeSet) {
		return
	}
	var added int64
	for _, a := range c.Args[2:] {
		m := string(a)
		if _, ok := c.Elem(k, crdt.KindMember, m); !ok {
			added++
		}
		c.SetElem(k, crdt.KindMember, m, nil)
	}
	if added == 0 {
		c.Quiet(k)
	}
	c.Out.Int(added)
}

func srem(c *Context) { removeElems(c, crdt.KindMember) }

func smove(c *Context) {
	src, dst, m := c.Key(1), c.Key(2), string(c.Args[3])
	if c.Type(src) == crdt.TypeNone {
		c.Out.Int(0) // whatever the destination is, as in Redis
		return
	}
	if wrongKind(c, src, crdt.TypeSet) || wrongKind(c, dst, crdt.TypeSet) {
		return
	}
	if src == dst {
		_, ok := c.Elem(src, crdt.KindMember, m)
		c.Out.Bool(ok)
		return
	}
	if !c.RemoveElem(src, crdt.KindMember, m) {
		c.Out.Int(0)
		return
	}
	if _, had := c.Elem(dst, crdt.KindMember, m); had {
		c.Quiet(dst)
	}
	c.SetElem(dst, crdt.KindMember, m, nil)
	c.Out.Int(1)
}

// spop removes random members. The view chooses them (SRANDMEMBER), for cells
// have no index to draw from; what is logged is which members left.
func spop(c *Context) {
	k := c.Key(1)
	if len(c.Args) > 3 {
		c.Out.Error(errSyntax)
		return
	}
	count, counted := int64(1), len(c.Args) == 3
	if counted {
		var ok bool
		if count, ok = crdt.ParseInt(c.Args[2]); !ok || count < 0 {
			c.Out.Error(errNotPositive)
			return
		}
	}
	if wrongKind(c, k, crdt.TypeSet) {
		return
	}
	var popped []string
	switch size := int64(c.Len(k, crdt.KindMember)); {
	case size == 0 || count == 0:
	case count >= size:
		popped = setMembers(c, k)
		c.Remove(k) // one delta, however many members
	default:
		drawn, settle, err := c.take(k, "random", int(count), func(n int) ([]string, error) {
			m, err := drawMembers(c, k, int(min(int64(n), size)))
			c.Rand().Shuffle(len(m), func(i, j int) { m[i], m[j] = m[j], m[i] }) // the view's order is not random
			return m, err
		})
		if err != nil {
			c.Out.Error(err.Error())
			return
		}
		popped = drawn
		for _, m := range popped {
			c.RemoveElem(k, crdt.KindMember, m)
		}
		settle()
	}
	switch {
	case counted:
		c.Out.Set(len(popped))
	case len(popped) == 0:
		c.Out.Null()
	}
	for _, m := range popped {
		c.Out.BulkString(m)
	}
}

// drawMembers returns n members of a set that has more, each choice as likely
// as any other; fewer if the set expired while the view was asked.
func drawMembers(c *Context, k crdt.Key, n int) ([]string, error) {
	raw, err := c.View(k.DB, []byte("SRANDMEMBER"), []byte(k.Name), strconv.AppendInt(nil, int64(n), 10))
	if err != nil {
		return nil, err
	}
	if drawn, err := parseBulks(raw, n); err == nil && len(drawn) == n {
		out := make([]string, 0, n)
		seen := make(map[string]struct{}, n)
		for _, b := range drawn {
			m := string(b)
			if _, again := seen[m]; again {
				break
			}
			if _, ok := c.Elem(k, crdt.KindMember, m); !ok {
				break
			}
			seen[m] = struct{}{}
			out = append(out, m)
		}
		if len(out) == n {
			return out, nil
		}
	}
	// The view has another set than the cells: the key has just expired by its
	// clock and not yet by ours. The cells are the truth; drawing from them
	// only takes longer (selection sampling, Knuth's algorithm S).
	out := make([]string, 0, n)
	left := c.Len(k, crdt.KindMember)
	c.EachElem(k, crdt.KindMember, func(m string, _ []byte) bool {
		if c.Rand().IntN(left) < n-len(out) {
			out = append(out, m)
		}
		left--
		return len(out) < n
	})
	return out, nil
}

// setMembers returns the members of a set, none if it does not exist.
func setMembers(c *Context, k crdt.Key) []string {
	out := make([]string, 0, c.Len(k, crdt.KindMember))
	c.EachElem(k, crdt.KindMember, func(m string, _ []byte) bool {
		out = append(out, m)
		return true
	})
	return out
}

func sinterstore(c *Context) {
	storeSets(c, func(sets []crdt.Key) []string {
		smallest := slices.MinFunc(sets, func(a, b crdt.Key) int {
			return cmp.Compare(c.Len(a, crdt.KindMember), c.Len(b, crdt.KindMember))
		})
		return slices.DeleteFunc(setMembers(c, smallest), func(m string) bool {
			return slices.ContainsFunc(sets, func(k crdt.Key) bool {
				_, ok := c.Elem(k, crdt.KindMember, m)
				return !ok
			})
		})
	})
}

func sunionstore(c *Context) {
	storeSets(c, func(sets []crdt.Key) []string {
		out := setMembers(c, sets[0])
		if len(sets) == 1 {
			return out
		}
		have := make(map[string]struct{}, len(out))
		for _, m := range out {
			have[m] = struct{}{}
		}
		for _, k := range sets[1:] {
			c.EachElem(k, crdt.KindMember, func(m string, _ []byte) bool {
				if _, again := have[m]; !again {
					have[m] = struct{}{}
					out = append(out, m)
				}
				return true
			})
		}
		return out
	})
}

func sdiffstore(c *Context) {
	storeSets(c, func(sets []crdt.Key) []string {
		return slices.DeleteFunc(setMembers(c, sets[0]), func(m string) bool {
			return slices.ContainsFunc(sets[1:], func(k crdt.Key) bool {
				_, ok := c.Elem(k, crdt.KindMember, m)
				return ok
			})
		})
	})
}

// storeSets carries out a command that computes a set of other sets and
// stores it: the destination becomes that set and nothing else, whatever it
// was, and goes if the set is empty. It may be a source too.
func storeSets(c *Context, compute func(sets []crdt.Key) []string) {
	dst := c.Key(1)
	sets := make([]crdt.Key, 0, len(c.Args)-2)
	for i := 2; i < len(c.Args); i++ {
		k := c.Key(i)
		if wrongKind(c, k, crdt.TypeSet) {
			return
		}
		sets = append(sets, k)
	}
	result := compute(sets)
	c.Remove(dst)
	for _, m := range result {
		c.SetElem(dst, crdt.KindMember, m, nil)
	}
	c.Out.Int(int64(len(result)))
}
