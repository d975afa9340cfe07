package command

import (
	"bytes"
	"math"

	"github.com/replicatord/replicatord/crdt"
)

// A list item is a cell of crdt.KindItem; its element is a position, by which
// items sort at every node. Ends are found at once however long the list is; an
// index or a pivot by walking, an index from the nearer end. Reads are the
// view's.

const (
	insertAccess = KeyRW | KeyInsert
	takeAccess   = KeyRW | KeyDelete
)

var listCommands = []*Command{
	{Name: "LPUSH", Arity: -3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "Puts items in front of a list", Run: func(c *Context) { push(c, true, false) }},
	{Name: "LPUSHX", Arity: -3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "list", Since: "2.2.0",
		Summary: "Puts items in front of a list that exists", Run: func(c *Context) { push(c, true, true) }},
	{Name: "RPUSH", Arity: -3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "Puts items at the end of a list", Run: func(c *Context) { push(c, false, false) }},
	{Name: "RPUSHX", Arity: -3, Flags: Write | DenyOOM | Fast, First: 1, Last: 1, Step: 1, Group: "list", Since: "2.2.0",
		Summary: "Puts items at the end of a list that exists", Run: func(c *Context) { push(c, false, true) }},
	{Name: "LPOP", Arity: -2, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "Takes the first items of a list", Run: func(c *Context) { pop(c, "LPOP", true) }},
	{Name: "RPOP", Arity: -2, Flags: Write | Fast, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "Takes the last items of a list", Run: func(c *Context) { pop(c, "RPOP", false) }},
	{Name: "LMPOP", Arity: -4, Flags: Write | MovableKeys, Group: "list", Since: "7.0.0",
		Summary: "Takes items of the first list that has any", Run: func(c *Context) { mpop(c, 1, nil) }},
	{Name: "LINSERT", Arity: 5, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "list", Since: "2.2.0",
		Summary: "Puts an item before or after another", Run: linsert},
	{Name: "LSET", Arity: 4, Flags: Write | DenyOOM, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "Sets the item at an index", Run: lset},
	{Name: "LREM", Arity: 4, Flags: Write, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "Removes items that equal a value", Run: lrem},
	{Name: "LTRIM", Arity: 4, Flags: Write, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "Leaves only a range of a list", Run: ltrim},
	{Name: "LMOVE", Arity: 5, Flags: Write | DenyOOM, First: 1, Last: 2, Step: 1, Group: "list", Since: "6.2.0",
		Summary: "Takes an item of one list to another", Run: lmove},
	{Name: "RPOPLPUSH", Arity: 3, Flags: Write | DenyOOM, First: 1, Last: 2, Step: 1, Group: "list", Since: "1.2.0",
		Summary: "Takes the last item of a list to the front of another", Run: func(c *Context) { moveItem(c, false, true, nil) }},
	{Name: "BLPOP", Arity: -3, Flags: Write | NoScript | Blocking, First: 1, Last: -2, Step: 1, Group: "list", Since: "2.0.0",
		Summary: "Takes the first item of a list, once there is one", Run: func(c *Context) { blockingPop(c, true) }},
	{Name: "BRPOP", Arity: -3, Flags: Write | NoScript | Blocking, First: 1, Last: -2, Step: 1, Group: "list", Since: "2.0.0",
		Summary: "Takes the last item of a list, once there is one", Run: func(c *Context) { blockingPop(c, false) }},
	{Name: "BLMPOP", Arity: -5, Flags: Write | Blocking | MovableKeys, Group: "list", Since: "7.0.0",
		Summary: "Takes items of the first list that has any, once there are some", Run: func(c *Context) { mpop(c, 2, c.Args[1]) }},
	{Name: "BLMOVE", Arity: 6, Flags: Write | DenyOOM | NoScript | Blocking, First: 1, Last: 2, Step: 1, Group: "list", Since: "6.2.0",
		Summary: "Takes an item of one list to another, once there is one", Run: blmove},
	{Name: "BRPOPLPUSH", Arity: 4, Flags: Write | DenyOOM | NoScript | Blocking, First: 1, Last: 2, Step: 1, Group: "list", Since: "2.2.0",
		Summary: "Takes the last item of a list to the front of another, once there is one", Run: brpoplpush},
}

// item is an item of a list.
type item struct {
	elem  string
	value []byte
}

// items returns up to n items from one end of a list on.
func items(c *Context, k crdt.Key, front bool, n int) []item {
	out := make([]item, 0, min(n, c.Len(k, crdt.KindItem)))
	if n > 0 {
		c.EachElemFrom(k, crdt.KindItem, "", !front, func(elem string, value []byte) bool {
			out = append(out, item{elem, value})
			return len(out) < n
		})
	}
	return out
}

// itemAt returns the item with an index, which is one of the list's.
func itemAt(c *Context, k crdt.Key, index int) (at item) {
	front := true
	if n := c.Len(k, crdt.KindItem); index > n/2 {
		front, index = false, n-1-index
	}
	c.EachElemFrom(k, crdt.KindItem, "", !front, func(elem string, value []byte) bool {
		at = item{elem, value}
		index--
		return index >= 0
	})
	return at
}

// drop removes items of a list: all of them with the key, in one delta.
func drop(c *Context, k crdt.Key, list []item) {
	if len(list) > 1 && len(list) == c.Len(k, crdt.KindItem) {
		c.Remove(k)
		return
	}
	for _, it := range list {
		c.RemoveElem(k, crdt.KindItem, it.elem)
	}
}

// pushItems puts values at an end of a list, and replies the error if it
// cannot.
func pushItems(c *Context, k crdt.Key, front bool, values [][]byte) bool {
	kept := make([][]byte, len(values))
	room := roomFor(values)
	for i, v := range values {
		kept[i] = room.keep(v)
	}
	if err := c.PushItems(k, front, kept); err != nil {
		c.Out.Error("ERR " + err.Error())
		return false
	}
	return true
}

func push(c *Context, front, exists bool) {
	k := c.Key(1)
	switch {
	case wrongKind(c, k, crdt.TypeList):
	case exists && c.Type(k) == crdt.TypeNone:
		c.Out.Int(0)
	case pushItems(c, k, front, c.Args[2:]):
		c.Out.Int(int64(c.Len(k, crdt.KindItem)))
	}
}

func pop(c *Context, name string, front bool) {
	k := c.Key(1)
	counted, count := len(c.Args) == 3, int64(1)
	if len(c.Args) > 3 {
		c.Out.Error(errArity(name))
		return
	}
	if counted {
		var ok bool
		if count, ok = crdt.ParseInt(c.Args[2]); !ok || count < 0 {
			c.Out.Error(errNotPositive)
			return
		}
	}
	switch {
	case wrongKind(c, k, crdt.TypeList):
		return
	case c.Type(k) == crdt.TypeNone && counted:
		c.Out.NullArray()
		return
	case c.Type(k) == crdt.TypeNone:
		c.Out.Null()
		return
	}
	list := items(c, k, front, int(min(count, math.MaxInt32)))
	if counted {
		c.Out.Array(len(list))
	}
	for _, it := range list {
		c.Out.Bulk(it.value)
	}
	drop(c, k, list)
}

// side reads an argument that is LEFT or RIGHT.
func side(c *Context, arg []byte) (front, ok bool) {
	front = is(arg, "LEFT")
	if !front && !is(arg, "RIGHT") {
		c.Out.Error(errSyntax)
		return false, false
	}
	return front, true
}

// mpop carries out LMPOP and BLMPOP: the number of keys is argument at.
func mpop(c *Context, at int, timeout []byte) {
	n, ok := crdt.ParseInt(c.Args[at])
	if !ok || n < 1 {
		c.Out.Error(errNumKeys)
		return
	}
	if n >= int64(len(c.Args)-at-1) {
		c.Out.Error(errSyntax)
		return
	}
	first, word := at+1, at+1+int(n)
	front, ok := side(c, c.Args[word])
	if !ok {
		return
	}
	count := int64(1)
	for i := word + 1; i < len(c.Args); i += 2 {
		if i > word+1 || !is(c.Args[i], "COUNT") || i+1 == len(c.Args) {
			c.Out.Error(errSyntax)
			return
		}
		if count, ok = crdt.ParseInt(c.Args[i+1]); !ok || count < 1 {
			c.Out.Error(errCount)
			return
		}
	}
	takeFirst(c, first, word, timeout, (*Reply).NullArray, func(k crdt.Key) {
		list := items(c, k, front, int(min(count, math.MaxInt32)))
		c.Out.Array(2)
		c.Out.BulkString(k.Name)
		c.Out.Array(len(list))
		for _, it := range list {
			c.Out.Bulk(it.value)
		}
		drop(c, k, list)
	})
}

func blockingPop(c *Context, front bool) {
	last := len(c.Args) - 1
	takeFirst(c, 1, last, c.Args[last], (*Reply).NullArray, func(k crdt.Key) {
		list := items(c, k, front, 1)
		c.Out.Array(2)
		c.Out.BulkString(k.Name)
		c.Out.Bulk(list[0].value)
		drop(c, k, list)
	})
}

// takeFirst calls take for the first list that exists among the keys in the
// arguments from first up to but without end. If none does, the command waits
// as timeout, an argument, says, or answers none.
func takeFirst(c *Context, first, end int, timeout []byte, none func(*Reply), take func(crdt.Key)) {
	var deadline int64
	if timeout != nil {
		var e string
		if deadline, e = parseTimeout(timeout, c.Now()); e != "" {
			c.Out.Error(e)
			return
		}
	}
	keys := make([]crdt.Key, 0, end-first)
	for i := first; i < end; i++ {
		k := c.Key(i)
		keys = append(keys, k)
		switch t := c.Type(k); {
		case c.Resumed != nil && c.Ready != k:
			// What changed first serves, not what is named first.
		case t == crdt.TypeList:
			take(k)
			return
		case t != crdt.TypeNone && c.Resumed == nil:
			c.Out.Error(errWrongType)
			return
		}
	}
	if timeout == nil || c.NoWait {
		none(&c.Out)
		return
	}
	c.Waits = &Wait{Keys: keys, Deadline: deadline, Timeout: (*Reply).NullArray, State: waitingForList{}}
}

// waitingForList is the state of a command that waits for a list.
type waitingForList struct{}

func linsert(c *Context) {
	k := c.Key(1)
	behind := is(c.Args[2], "AFTER")
	switch {
	case !behind && !is(c.Args[2], "BEFORE"):
		c.Out.Error(errSyntax)
		return
	case wrongKind(c, k, crdt.TypeList):
		return
	case c.Type(k) == crdt.TypeNone:
		c.Out.Int(0)
		return
	}
	var before, after string
	found, done := false, false
	c.EachElemFrom(k, crdt.KindItem, "", false, func(elem string, value []byte) bool {
		switch {
		case found:
			after, done = elem, true
		case !bytes.Equal(value, c.Args[3]):
			before = elem
		case behind:
			found, before = true, elem
		default:
			found, after, done = true, elem, true
		}
		return !done
	})
	if !found {
		c.Out.Int(-1)
		return
	}
	if err := c.InsertItem(k, before, after, c.Args[4]); err != nil {
		c.Out.Error("ERR " + err.Error())
		return
	}
	c.Out.Int(int64(c.Len(k, crdt.KindItem)))
}

func lset(c *Context) {
	k := c.Key(1)
	switch {
	case c.Type(k) == crdt.TypeNone:
		c.Out.Error(errNoKey)
		return
	case wrongKind(c, k, crdt.TypeList):
		return
	}
	index, ok := crdt.ParseInt(c.Args[2])
	if !ok {
		c.Out.Error(errNotInteger)
		return
	}
	n := int64(c.Len(k, crdt.KindItem))
	if index < 0 {
		index += n
	}
	if index < 0 || index >= n {
		c.Out.Error(errIndexRange)
		return
	}
	c.SetElem(k, crdt.KindItem, itemAt(c, k, int(index)).elem, c.Args[3])
	c.Out.OK()
}

func lrem(c *Context) {
	k := c.Key(1)
	count, ok := crdt.ParseInt(c.Args[2])
	if !ok {
		c.Out.Error(errNotInteger)
		return
	}
	if wrongKind(c, k, crdt.TypeList) {
		return
	}
	var list []item
	c.EachElemFrom(k, crdt.KindItem, "", count < 0, func(elem string, value []byte) bool {
		if bytes.Equal(value, c.Args[3]) {
			list = append(list, item{elem: elem})
		}
		n := int64(len(list))
		return n == 0 || n != count && n != -count
	})
	drop(c, k, list)
	c.Out.Int(int64(len(list)))
}

func ltrim(c *Context) {
	k := c.Key(1)
	start, ok := crdt.ParseInt(c.Args[2])
	end, ok2 := crdt.ParseInt(c.Args[3])
	if !ok || !ok2 {
		c.Out.Error(errNotInteger)
		return
	}
	if wrongKind(c, k, crdt.TypeList) {
		return
	}
	n := int64(c.Len(k, crdt.KindItem))
	if start < 0 {
		start = max(start+n, 0)
	}
	if end < 0 {
		end += n
	}
	if end = min(end, n-1); start > end {
		c.Remove(k)
	} else {
		drop(c, k, append(items(c, k, true, int(start)), items(c, k, false, int(n-1-end))...))
	}
	c.Out.OK()
}

func lmove(c *Context) {
	if from, ok := side(c, c.Args[3]); ok {
		if to, ok := side(c, c.Args[4]); ok {
			moveItem(c, from, to, nil)
		}
	}
}

func blmove(c *Context) {
	if from, ok := side(c, c.Args[3]); ok {
		if to, ok := side(c, c.Args[4]); ok {
			moveItem(c, from, to, c.Args[5])
		}
	}
}

func brpoplpush(c *Context) { moveItem(c, false, true, c.Args[3]) }

// moveItem takes an item of the list named first to the list named second, from
// an end to an end. It waits for one if there is a timeout.
func moveItem(c *Context, from, to bool, timeout []byte) {
	takeFirst(c, 1, 2, timeout, (*Reply).Null, func(src crdt.Key) {
		dst := c.Key(2)
		if wrongKind(c, dst, crdt.TypeList) {
			return
		}
		list := items(c, src, from, 1)
		// Put before it is taken, so that a list of one, moved to itself, keeps
		// its expiry.
		if pushItems(c, dst, to, [][]byte{list[0].value}) {
			drop(c, src, list)
			c.Out.Bulk(list[0].value)
		}
	})
}
