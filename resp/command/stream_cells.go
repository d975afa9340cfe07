package command

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/replicatord/replicatord/crdt"
)

// A stream is served from the cells alone: Redis refuses ids below the last one,
// and entries that another region made earlier must find their place. The view
// only has a placeholder under the key, for TYPE, EXISTS, SCAN and their like.
//
// # Cells
//
//	kind     element                    value
//	entry    id                         its fields and values, as the RESP array that reads reply
//	group    ""                         the greatest id that is known to have been there, if it left
//	group    "+"                        how many entries were ever added: a counter
//	group    "-"                        the greatest id that XDEL has taken
//	group    "g" name                   when CREATE or SETID set the group, and the position it set
//	pending  group "p"                  the position that readers have reached
//	pending  group "r"                  how many entries were read: a counter, "x" if not known
//	pending  group "c" consumer         when the consumer was last seen
//	pending  group "d" id               a delivery, not acknowledged yet
//	pending  group "d" id "o"           who has claimed it since
//	pending  group "u" id               an entry still to be delivered
//
// Ids are 16 bytes, big-endian, so that they sort; so do times (8 bytes, Unix
// milliseconds). In elements of the kind pending, group is the length of its
// name, as uvarint, and the name. Of siblings the greatest value shows (see
// crdt.Cell.Visible): the further position, the later time.
//
// Entries and groups make a stream exist; what readers do does not. So DEL, or
// XGROUP DESTROY, beats a concurrent XREADGROUP or XACK, and no key comes back for
// a position.
//
// # The last id
//
// The last id is the greatest of the entries and of the cell "". XADD does not
// write the latter: it would be one more cell for each entry. What takes the
// last entry away does.
//
// # Deliveries
//
// XACK removes a delivery and whatever claims there are; XCLAIM writes only the
// claim. So a claim made while another node acknowledged outlives the delivery,
// and means nothing without it: acknowledged. Such a remnant is dropped by the
// next command that comes across it (XACK of the id, a new delivery, XAUTOCLAIM
// and all others that walk the list), or goes with its group or key. No
// acknowledgement leaves a trace.
//
// # What comes late
//
// A group's position alone would skip entries that another node made earlier
// and that arrive when the group has moved past their ids. So XADD also writes,
// for each group that has not passed the new id, that the entry is to be delivered
// ("u"); delivery removes that. XREADGROUP first delivers what it finds so at or
// before the position: it came late. A group of which the adding node had not
// heard yet has only its position.

// streamID is the id of an entry.
type streamID struct{ ms, seq uint64 }

var maxStreamID = streamID{math.MaxUint64, math.MaxUint64}

func (id streamID) less(o streamID) bool { return id.ms < o.ms || id.ms == o.ms && id.seq < o.seq }

// next returns the id after this one; false after the last.
func (id streamID) next() (streamID, bool) {
	if id.seq++; id.seq == 0 {
		id.ms++
	}
	return id, id != streamID{}
}

// prev returns the id before this one; false before the first.
func (id streamID) prev() (streamID, bool) {
	first := id == streamID{}
	if id.seq == 0 {
		id.ms--
	}
	id.seq--
	return id, !first
}

func (id streamID) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, id.ms), id.seq)
}

func (id streamID) elem() string {
	var buf [16]byte
	return string(id.append(buf[:0]))
}

// idAt reads an id; what is too short is 0-0.
func idAt[T string | []byte](b T) streamID {
	if len(b) < 16 {
		return streamID{}
	}
	buf := []byte(b[:16])
	return streamID{binary.BigEndian.Uint64(buf), binary.BigEndian.Uint64(buf[8:])}
}

// Elements of crdt.KindGroup.
const (
	lastElem    = ""
	addedElem   = "+"
	deletedElem = "-"
	groupPrefix = "g"
)

// stream is a stream as a command sees it.
type stream struct {
	c *Context
	k crdt.Key
}

func (s stream) exists() bool { return s.c.Type(s.k) == crdt.TypeStream }

func (s stream) len() int { return s.c.Len(s.k, crdt.KindEntry) }

// edge returns the first entry's id, or the last one's; false if there is none.
func (s stream) edge(last bool) (id streamID, ok bool) {
	s.c.EachElemFrom(s.k, crdt.KindEntry, "", last, func(elem string, _ []byte) bool {
		id, ok = idAt(elem), true
		return false
	})
	return id, ok
}

// id returns an id that is kept beside the entries.
func (s stream) id(elem string) streamID {
	b, _ := s.c.Elem(s.k, crdt.KindGroup, elem)
	return idAt(b)
}

func (s stream) setID(elem string, id streamID) {
	s.c.SetElem(s.k, crdt.KindGroup, elem, id.append(nil))
}

// last returns the greatest id that was ever there.
func (s stream) last() streamID {
	id := s.id(lastElem)
	if top, ok := s.edge(true); ok && id.less(top) {
		return top
	}
	return id
}

// keepLast makes sure that the last id stays when the last entry goes.
func (s stream) keepLast(id streamID) {
	if s.id(lastElem).less(id) {
		s.setID(lastElem, id)
	}
}

// added returns how many entries were ever added, as far as that is known.
func (s stream) added() int64 {
	b, there := s.c.Elem(s.k, crdt.KindGroup, addedElem)
	n, ok := crdt.ParseInt(b)
	if there && !ok {
		n = math.MaxInt64 // more than 64 bits tell
	}
	return max(n, int64(s.len()))
}

// addAdded counts entries that were added.
func (s stream) addAdded(n int64) { s.c.AddElem(s.k, crdt.KindGroup, addedElem, crdt.Int(n)) }

// remove removes an entry, and that it is still to be delivered.
func (s stream) remove(id streamID, groups []*group) {
	elem := id.elem()
	s.c.RemoveElem(s.k, crdt.KindEntry, elem)
	for _, g := range groups {
		s.c.RemoveElem(s.k, crdt.KindPending, g.prefix+ofUndelivered+elem)
	}
}

// What follows a group's name in elements of crdt.KindPending; ofClaim follows
// the id of a delivery.
const (
	ofPosition    = "p"
	ofCount       = "r"
	ofConsumer    = "c"
	ofDelivery    = "d"
	ofUndelivered = "u"
	ofClaim       = "o"
)

// unknownCount is the text of a count of entries read that is not known; -1 to
// Redis.
const unknownCount = "x"

// group is a consumer group of a stream.
type group struct {
	stream
	name   string
	prefix string // of its elements of crdt.KindPending
	last   streamID
	read   int64 // -1: not known
}

// group returns a group, nil if there is none of that name.
func (s stream) group(name string) *group {
	b, ok := s.c.Elem(s.k, crdt.KindGroup, groupPrefix+name)
	if !ok {
		return nil
	}
	return s.groupOf(name, b)
}

func (s stream) groupOf(name string, value []byte) *group {
	g := &group{stream: s, name: name, prefix: string(binary.AppendUvarint(nil, uint64(len(name)))) + name}
	if len(value) == 24 {
		g.last = idAt(value[8:])
	}
	if b, ok := s.c.Elem(s.k, crdt.KindPending, g.prefix+ofPosition); ok {
		if p := idAt(b); g.last.less(p) {
			g.last = p
		}
	}
	b, _ := s.c.Elem(s.k, crdt.KindPending, g.prefix+ofCount)
	var known bool
	if g.read, known = crdt.ParseInt(b); !known {
		g.read = -1
	}
	return g
}

// groups returns the stream's groups by name.
func (s stream) groups() []*group {
	if n := s.c.Len(s.k, crdt.KindGroup); n <= 3 {
		for _, elem := range []string{lastElem, addedElem, deletedElem} {
			if _, ok := s.c.Elem(s.k, crdt.KindGroup, elem); ok {
				n--
			}
		}
		if n <= 0 {
			return nil
		}
	}
	type named struct {
		name  string
		value []byte
	}
	var list []named
	s.c.EachElemFrom(s.k, crdt.KindGroup, groupPrefix, false, func(elem string, value []byte) bool {
		list = append(list, named{elem[len(groupPrefix):], value})
		return true
	})
	out := make([]*group, len(list))
	for i, n := range list {
		out[i] = s.groupOf(n.name, n.value)
	}
	return out
}

// set makes the group be at a position, as CREATE and SETID do; read is -1 if
// it is not known how many entries lie before it.
func (g *group) set(id streamID, read int64) {
	g.c.RemoveElem(g.k, crdt.KindPending, g.prefix+ofPosition)
	g.c.SetElem(g.k, crdt.KindGroup, groupPrefix+g.name, id.append(timeBytes(g.c.Now())))
	g.last = id
	g.setRead(read)
	g.skip()
}

// setRead sets how many entries were read; -1: not known.
func (g *group) setRead(n int64) {
	text := []byte(unknownCount)
	if n >= 0 {
		text = crdt.Int(n).Append(nil)
	}
	g.c.SetElem(g.k, crdt.KindPending, g.prefix+ofCount, text)
	g.read = n
}

// advance notes that readers have come to a position.
func (g *group) advance(id streamID) {
	g.c.SetElem(g.k, crdt.KindPending, g.prefix+ofPosition, id.append(nil))
	g.last = id
}

// skip drops what was to be delivered up to the position.
func (g *group) skip() {
	for _, id := range g.late(0) {
		g.c.RemoveElem(g.k, crdt.KindPending, g.prefix+ofUndelivered+id.elem())
	}
}

// late returns up to n (0: all) entries before or at the position that are still to
// be delivered.
func (g *group) late(n int) (ids []streamID) {
	g.each(ofUndelivered, "", func(rest string, _ []byte) bool {
		id := idAt(rest)
		if g.last.less(id) {
			return false
		}
		ids = append(ids, id)
		return len(ids) != n
	})
	return ids
}

// destroy removes the group and all that its readers have done.
func (g *group) destroy() {
	g.c.RemoveElem(g.k, crdt.KindGroup, groupPrefix+g.name)
	g.clear()
}

// clear removes what readers have done in a group of that name.
func (g *group) clear() {
	var all []string
	g.each("", "", func(rest string, _ []byte) bool {
		all = append(all, rest)
		return true
	})
	for _, rest := range all {
		g.c.RemoveElem(g.k, crdt.KindPending, g.prefix+rest)
	}
}

// each calls fn for the group's elements of one sort, of all if that is "", from one on.
// fn gets what follows the sort, and must not write.
func (g *group) each(sort, from string, fn func(rest string, value []byte) bool) {
	prefix := g.prefix + sort
	g.c.EachElemFrom(g.k, crdt.KindPending, prefix+from, false, func(elem string, value []byte) bool {
		return strings.HasPrefix(elem, prefix) && fn(elem[len(prefix):], value)
	})
}

func timeBytes(ms int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(max(ms, 0))) }

func timeAt(b []byte) int64 {
	if len(b) < 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

// seen notes that a consumer is there, now.
func (g *group) seen(consumer string) {
	g.c.SetElem(g.k, crdt.KindPending, g.prefix+ofConsumer+consumer, timeBytes(g.c.Now()))
}

// reads is seen for a consumer that reads or claims, which makes it if need be.
func (g *group) reads(consumer string) {
	if !g.hasConsumer(consumer) {
		g.c.Events = append(g.c.Events, Event{'t', "xgroup-createconsumer", g.k})
	}
	g.seen(consumer)
}

func (g *group) hasConsumer(name string) bool {
	_, ok := g.c.Elem(g.k, crdt.KindPending, g.prefix+ofConsumer+name)
	return ok
}

// delivery is an entry that was delivered and not acknowledged.
type delivery struct {
	id       streamID
	consumer string
	time     int64 // Unix milliseconds, of the last one
	count    uint64
	claimed  bool // the claim is what shows
}

func (d *delivery) encode() []byte {
	return append(binary.AppendUvarint(timeBytes(d.time), d.count), d.consumer...)
}

func deliveryOf(id streamID, b []byte) delivery {
	d := delivery{id: id, time: timeAt(b)}
	if len(b) > 8 {
		n, w := binary.Uvarint(b[8:])
		d.count, d.consumer = n, string(b[8+max(w, 0):])
	}
	return d
}

func (g *group) deliveryElem(id streamID) string { return g.prefix + ofDelivery + id.elem() }

// delivery returns the delivery of an entry; false if it is not pending.
func (g *group) delivery(id streamID) (delivery, bool) {
	elem := g.deliveryElem(id)
	b, ok := g.c.Elem(g.k, crdt.KindPending, elem)
	if !ok {
		return delivery{}, false
	}
	if c, ok := g.c.Elem(g.k, crdt.KindPending, elem+ofClaim); ok {
		d := deliveryOf(id, c)
		d.claimed = true
		return d, true
	}
	return deliveryOf(id, b), true
}

// deliver makes an entry pending, anew if it was.
func (g *group) deliver(d delivery) {
	elem := g.deliveryElem(d.id)
	g.c.RemoveElem(g.k, crdt.KindPending, elem+ofClaim)
	g.c.SetElem(g.k, crdt.KindPending, elem, d.encode())
}

// claim changes what is said of a pending entry.
func (g *group) claim(d delivery) {
	g.c.SetElem(g.k, crdt.KindPending, g.deliveryElem(d.id)+ofClaim, d.encode())
}

// release takes an entry off the pending list and reports whether it was there.
func (g *group) release(id streamID) bool {
	elem := g.deliveryElem(id)
	g.c.RemoveElem(g.k, crdt.KindPending, elem+ofClaim)
	return g.c.RemoveElem(g.k, crdt.KindPending, elem)
}

// pending calls fn for the pending entries from an id on. fn must not write. It
// returns the claims of entries that are not pending: remnants to be dropped.
func (g *group) pending(from streamID, fn func(*delivery) bool) (remnants []streamID) {
	var d delivery
	held := false
	goOn := true
	g.each(ofDelivery, from.elem(), func(rest string, value []byte) bool {
		id := idAt(rest)
		if len(rest) > 16 {
			if !held || d.id != id {
				remnants = append(remnants, id)
				return true
			}
			d = deliveryOf(id, value)
			d.claimed, held = true, false
			goOn = fn(&d)
			return goOn
		}
		if held && !fn(&d) {
			held, goOn = false, false
			return false
		}
		d, held = deliveryOf(id, value), true
		return true
	})
	if held && goOn {
		fn(&d)
	}
	return remnants
}

// drop removes remnants.
func (g *group) drop(remnants []streamID) {
	for _, id := range remnants {
		g.c.RemoveElem(g.k, crdt.KindPending, g.deliveryElem(id)+ofClaim)
	}
}
