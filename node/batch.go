package node

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// ViewCmd is one command for the view: an update that follows from changed
// cells, or a client's read.
type ViewCmd struct {
	DB   int
	Args [][]byte
	// Req is the client's request that waits for the reply; nil for updates.
	Req  *resp.Request
	size int // of a set, about
	// holds says how long its reply will.
	holds validity
}

// proto returns the protocol that the reply must be in, 0 if any will do.
func (v *ViewCmd) proto() int {
	if v.Req == nil {
		return 0
	}
	return max(2, v.Req.Proto)
}

// Batch is what one commit group sends to the view, in order. Only what has
// been committed is sent.
type Batch struct {
	Lose error // if set, the view is given up for this reason, and brought level anew
	Cmds []ViewCmd
	// Bytes is the size of the arguments, about.
	Bytes int
	// Keys are those the updates are about.
	Keys []crdt.Key
	// Ahead are those of them whose updates come before their commit: the view
	// is told first, so that they are rewritten if the commit does not follow.
	Ahead []crdt.Key
	// Vector and Generation are what the view holds once the batch has been
	// applied; Vector is nil if the batch changes nothing of that.
	Vector     crdt.Vector
	Generation uint64
	// Done is called once each, after every Req has its reply; err is not nil
	// if the view was lost on the way and not all of them have one.
	Done []func(err error)

	more int // about how many keys' updates are still to come
	// fields says that the view knows expiries of fields.
	fields bool
	// marker is a value that no list holds: it marks an item for the moment
	// until the update after it.
	marker []byte
}

// Words of updates that are frequent.
var (
	del               = []byte("DEL")
	pxat              = []byte("PXAT")
	setVerb, setsVerb = []byte("SET"), []byte("MSET")
	hset              = []byte("HSET")
)

func (b *Batch) update(db uint8, args ...[]byte) {
	if n := len(b.Cmds); n > 0 && string(args[0]) == "DEL" {
		// Removes of many keys go as one.
		if last := &b.Cmds[n-1]; last.Req == nil && last.DB == int(db) && len(last.Args) <= elemsPerUpdate && string(last.Args[0]) == "DEL" {
			last.Args = append(last.Args, args[1])
			return
		}
	}
	b.add(ViewCmd{DB: int(db), Args: args})
}

// setsBytes bounds the values that go as one, so that none has to be large to
// stall the view.
const setsBytes = 32 << 10

// set adds a string without an expiry. Small ones in a row go as one.
func (b *Batch) set(db uint8, name, value []byte) {
	size := len(name) + len(value) + 32
	if n := len(b.Cmds); n > 0 {
		last := &b.Cmds[n-1]
		plain := len(last.Args) == 3 && string(last.Args[0]) == "SET"
		if last.Req == nil && last.DB == int(db) && (plain || string(last.Args[0]) == "MSET") && len(last.Args) <= elemsPerUpdate && last.size+size <= setsBytes {
			if plain {
				room := min(len(last.Args)+2+2*b.more, elemsPerUpdate+2, 2*(setsBytes/size)+2)
				last.Args = append(make([][]byte, 0, room), setsVerb, last.Args[1], last.Args[2])
			}
			last.Args, last.size = append(last.Args, name, value), last.size+size
			b.Bytes += size
			return
		}
	}
	b.add(ViewCmd{DB: int(db), Args: [][]byte{setVerb, name, value}, size: size})
}

func (b *Batch) add(c ViewCmd) {
	for _, a := range c.Args {
		b.Bytes += len(a) + 16
	}
	b.Cmds = append(b.Cmds, c)
}

// elemsPerUpdate bounds the elements of one update, so that no single command
// stalls the view.
const elemsPerUpdate = 512

// expiryMargin is how long before a key's expiry, in milliseconds, the view is
// no longer trusted to hold the key: what is sent waits in queues, and an
// external Redis has a clock of its own.
const expiryMargin = 5000

// materialise appends the updates that bring the view level for a key: from
// what it showed before (t) to what the cells say at the time now.
func materialise(b *Batch, s crdt.Store, k crdt.Key, t *crdt.Touch, now int64) {
	if k.DB == command.SystemDB {
		return
	}
	name := []byte(k.Name)
	h := s.Header(k)
	if h == nil || h.Swept || !h.Exists(now) {
		if t.Type != crdt.TypeNone || t.Whole {
			b.update(k.DB, del, name)
		}
		return
	}
	expiry := h.Expiry
	if expiry == crdt.Never {
		expiry = 0
	}
	was := t.Expiry
	if was == crdt.Never {
		was = 0
	}
	// The view may have let the key expire by the time it hears that the
	// expiry is another.
	whole := t.Whole || was != 0 && was != expiry && was-now <= expiryMargin
	if h.Type == crdt.TypeString {
		if !whole && t.Type == h.Type && patchRegisters(b, s, k, t) {
			// Only what has changed.
		} else if whole || t.Type != h.Type || changed(t, crdt.KindString) || changed(t, crdt.KindRegisters) {
			if expiry == 0 {
				b.set(k.DB, name, stringOf(s, k))
			} else {
				b.update(k.DB, setVerb, name, stringOf(s, k), pxat, strconv.AppendInt(nil, expiry, 10))
			}
			return
		}
	} else if h.Type == crdt.TypeStream {
		if whole || t.Type != h.Type {
			b.update(k.DB, del, name)
			was = 0
			b.update(k.DB, placeholder(name)...)
		}
	} else if h.Type == crdt.TypeHash {
		if whole = whole || t.Type != h.Type; whole {
			b.update(k.DB, []byte("DEL"), name)
			was = 0
		}
		if renderHash(b, s, k, h, t, whole, now) && expiry != 0 {
			was = 0
		}
	} else if whole || t.Type != h.Type || h.Type == crdt.TypeList && !renderList(b, s, k, h, t) {
		b.update(k.DB, del, name)
		was = 0
		each := func(yield func(crdt.CellID, *crdt.Cell) bool) { s.EachCell(k, kindOf(h.Type), yield) }
		if began(t) {
			each = func(yield func(crdt.CellID, *crdt.Cell) bool) { eachTouched(s, h.Type, t, yield) }
		}
		writeElems(b, k, h.Type, h.Len(kindOf(h.Type)), each)
	} else if h.Type != crdt.TypeList {
		var gone []string
		writeElems(b, k, h.Type, len(t.Cells()), func(yield func(crdt.CellID, *crdt.Cell) bool) {
			eachTouched(s, h.Type, t, func(id crdt.CellID, c *crdt.Cell) bool {
				if c == nil || !c.Live() {
					gone = append(gone, id.Elem)
					return true
				}
				return yield(id, c)
			})
		})
		// Additions first: a key that is empty for a moment loses its expiry.
		dropElems(b, k, h.Type, gone)
	}
	switch {
	case expiry != 0 && expiry != was:
		b.update(k.DB, []byte("PEXPIREAT"), name, strconv.AppendInt(nil, expiry, 10))
	case expiry == 0 && was != 0:
		b.update(k.DB, []byte("PERSIST"), name)
	}
}

// began reports whether a key that is there now was not before t, so that all it
// shows is among the cells of t. A key that is written from nothing has none there.
func began(t *crdt.Touch) bool {
	return !t.Whole && t.Type == crdt.TypeNone && len(t.Cells()) > 0
}

// eachTouched calls fn for the touched cells of a type in order, nil for those that
// are not there, until it returns false.
func eachTouched(s crdt.Store, of crdt.Type, t *crdt.Touch, fn func(crdt.CellID, *crdt.Cell) bool) {
	for _, id := range cellsOf(t) {
		if id.Kind.Type() == of && !fn(*id, s.Cell(*id)) {
			return
		}
	}
}

// stringOf returns the value of a key of TypeString.
func stringOf(s crdt.Store, k crdt.Key) []byte {
	if crdt.StringKind(s, k) == crdt.KindString {
		return s.Cell(crdt.CellID{Key: k, Kind: crdt.KindString}).Text()
	}
	return command.HyperLogLogString(func(fn func(string, []byte) bool) {
		s.EachCell(k, crdt.KindRegisters, func(id crdt.CellID, c *crdt.Cell) bool {
			return !c.Live() || fn(id.Elem, c.Visible(id.Kind))
		})
	})
}

// maxPatches is how many blocks of a HyperLogLog are worth patching; above it
// the string is sent whole.
const maxPatches = 32

// patchRegisters appends updates of only those registers of a HyperLogLog that
// have changed, if the view has its dense form, and reports whether that was it.
func patchRegisters(b *Batch, s crdt.Store, k crdt.Key, t *crdt.Touch) bool {
	form := crdt.CellID{Key: k, Kind: crdt.KindRegisters}
	if _, touched := t.Was(form); touched || len(t.Cells()) > maxPatches || changed(t, crdt.KindString) || !changed(t, crdt.KindRegisters) {
		return false
	}
	c := s.Cell(form)
	if c == nil || !c.Live() || !command.HyperLogLogDense(c.Visible(form.Kind)) || s.Header(k).Len(crdt.KindString) > 0 {
		return false
	}
	patch := func(elem string, value []byte) {
		offset, p := command.HyperLogLogPatch(elem, value)
		b.update(k.DB, []byte("SETRANGE"), []byte(k.Name), strconv.AppendInt(nil, int64(offset), 10), p)
	}
	for _, id := range cellsOf(t) {
		if id.Kind != crdt.KindRegisters || len(id.Elem) != 1 {
			continue
		}
		var value []byte
		if c := s.Cell(*id); c != nil {
			value = c.Visible(id.Kind)
		}
		patch(id.Elem, value)
	}
	patch("", nil) // last: a count in between would be kept
	return true
}

// placeholder is the command that makes what the view has of a stream, always
// the same: one entry, so that it is there and of the right type. Streams
// are served from the cells.
func placeholder(name []byte) [][]byte {
	return [][]byte{[]byte("XADD"), name, []byte("0-1"), []byte("served"), []byte("by the node")}
}

func changed(t *crdt.Touch, kind crdt.Kind) bool {
	for _, c := range t.Cells() {
		if c.ID.Kind == kind {
			return true
		}
	}
	return false
}

// cellsOf lists the touched cells in order, so that what is sent depends on
// nothing but the changes.
func cellsOf(t *crdt.Touch) []*crdt.CellID {
	cells := t.Cells()
	ids := make([]*crdt.CellID, len(cells)) // they are large to be moved
	for i := range cells {
		ids[i] = &cells[i].ID
	}
	slices.SortFunc(ids, func(a, b *crdt.CellID) int {
		if a.Kind != b.Kind {
			return cmp.Compare(a.Kind, b.Kind)
		}
		return strings.Compare(a.Elem, b.Elem)
	})
	return ids
}

func kindOf(t crdt.Type) crdt.Kind {
	switch t {
	case crdt.TypeString:
		return crdt.KindString
	case crdt.TypeHash:
		return crdt.KindField
	case crdt.TypeZSet:
		return crdt.KindScored
	case crdt.TypeList:
		return crdt.KindItem
	default:
		return crdt.KindMember
	}
}

var verbs = map[crdt.Type][2][]byte{
	crdt.TypeSet:  {[]byte("SADD"), []byte("SREM")},
	crdt.TypeZSet: {[]byte("ZADD"), []byte("ZREM")},
	crdt.TypeList: {[]byte("RPUSH")}, // and see renderList
}

// writeElems appends the updates that put elements, about n of them.
func writeElems(b *Batch, k crdt.Key, t crdt.Type, n int, each func(func(crdt.CellID, *crdt.Cell) bool)) {
	per := 1
	if t == crdt.TypeZSet {
		per = 2
	}
	var args [][]byte
	text := texts{most: n}
	flush := func() {
		if len(args) > 0 {
			b.update(k.DB, args...)
		}
		args = nil
	}
	each(func(id crdt.CellID, c *crdt.Cell) bool {
		if c == nil || !c.Live() {
			return true
		}
		if args == nil {
			args = append(make([][]byte, 0, 2+min(per*max(n, 1), elemsPerUpdate)), verbs[t][0], []byte(k.Name))
		}
		n--
		switch t {
		case crdt.TypeZSet:
			args = append(args, text.score(c.Score()), text.bytes(id.Elem))
		case crdt.TypeList:
			args = append(args, c.Text())
		default:
			args = append(args, text.bytes(id.Elem))
		}
		if len(args) >= 2+elemsPerUpdate {
			flush()
		}
		return true
	})
	flush()
}

// texts makes elements and scores into arguments, many in one piece of memory.
type texts struct {
	room []byte
	most int // that are to come, about
}

// grow makes room for n bytes, and for more that are to come.
func (t *texts) grow(n int) {
	if t.room == nil || cap(t.room)-len(t.room) < n {
		t.room = make([]byte, 0, max(n, min(16*t.most, 4<<10), 0))
	}
}

func (t *texts) since(from int) []byte { return t.room[from:len(t.room):len(t.room)] }

func (t *texts) bytes(s string) []byte {
	t.grow(len(s))
	from := len(t.room)
	t.room = append(t.room, s...)
	return t.since(from)
}

func (t *texts) score(f float64) []byte {
	t.grow(24)
	from := len(t.room)
	t.room = crdt.AppendScore(t.room, f)
	return t.since(from)
}

// dropElems appends the update that removes elements.
func dropElems(b *Batch, k crdt.Key, t crdt.Type, gone []string) {
	if len(gone) == 0 {
		return
	}
	args := make([][]byte, 0, 2+len(gone))
	args = append(args, verbs[t][1], []byte(k.Name))
	text := texts{most: len(gone)}
	for _, elem := range gone {
		args = append(args, text.bytes(elem))
	}
	b.update(k.DB, args...)
}
