package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/replicatord/replicatord/crdt"
)

// Field numbers of entry.proto.
const (
	vectorStreams, vectorTags = 1, 2

	entryStream, entryPrev, entryTag, entryCtx, entryContexts, entryDeltas = 1, 2, 3, 4, 5, 6

	deltaLevel, deltaDB, deltaKey, deltaKind, deltaElem, deltaRemove, deltaPut, deltaAdd = 1, 2, 3, 4, 5, 6, 7, 8

	removeTag, removeCtx, removeSeen = 1, 2, 3

	seenCellDB, seenCellKey, seenCellKind, seenCellElem, seenCellCounts = 1, 2, 3, 4, 5

	seenStream, seenEpoch, seenTag, seenSum = 1, 2, 3, 4

	putTag, putValue = 1, 2

	addTag, addEpoch, addSum = 1, 2, 3
)

// Key bytes of the fields: all numbers are small.
func fixedKey(n protowire.Number) byte  { return byte(n<<3) | byte(protowire.Fixed64Type) }
func varintKey(n protowire.Number) byte { return byte(n<<3) | byte(protowire.VarintType) }
func bytesKey(n protowire.Number) byte  { return byte(n<<3) | byte(protowire.BytesType) }

// EncodeEntry appends the encoding of an entry. What a part has in common with
// the entry (tag and context of its removes, tags of its values) is left out, so
// that a plain SET costs its key, its value and some ten bytes. The result is
// the same for equal entries.
func EncodeEntry(b []byte, e *crdt.Entry) []byte { return EncodeEntryEach(b, e, nil) }

// EncodeEntryEach is EncodeEntry, and tells each where it ends in what is returned: of a
// delta that puts a value and adds nothing, that value ends there too.
func EncodeEntryEach(b []byte, e *crdt.Entry, each func(d *crdt.Delta, end int)) []byte {
	w := entryWriter{entry: e}
	b = appendFixed(b, entryStream, uint64(e.Stream))
	b = appendFixed(b, entryPrev, uint64(e.Prev))
	b = appendFixed(b, entryTag, uint64(e.Tag))
	if len(e.Ctx) > 0 {
		b = appendVector(append(b, bytesKey(entryCtx)), e.Ctx)
	}
	for i := range e.Deltas {
		if r := e.Deltas[i].Remove; r != nil && w.context(r.Ctx) == 0 && !sameVector(r.Ctx, e.Ctx) {
			w.contexts = append(w.contexts, r.Ctx)
			b = appendVector(append(b, bytesKey(entryContexts)), r.Ctx)
		}
	}
	for i := range e.Deltas {
		b = append(b, bytesKey(entryDeltas))
		start := len(b)
		b = w.appendDelta(b, &e.Deltas[i])
		b = prefixLen(b, start)
		if each != nil {
			each(&e.Deltas[i], len(b))
		}
	}
	return b
}

type entryWriter struct {
	entry    *crdt.Entry
	contexts []crdt.Vector
	last     int // the context found last, which the next remove often shares
}

// context returns the number of a context, 0 if it is the entry's or not
// listed yet.
func (w *entryWriter) context(v crdt.Vector) uint64 {
	if sameVector(v, w.entry.Ctx) {
		return 0
	}
	if w.last < len(w.contexts) && sameVector(v, w.contexts[w.last]) {
		return uint64(w.last + 1)
	}
	for i, c := range w.contexts {
		if sameVector(v, c) {
			w.last = i
			return uint64(i + 1)
		}
	}
	return 0
}

func sameVector(a, b crdt.Vector) bool {
	if len(a) != len(b) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || a.Equal(b)
}

func (w *entryWriter) appendDelta(b []byte, d *crdt.Delta) []byte {
	if d.Level != crdt.LevelCell {
		b = append(b, varintKey(deltaLevel), byte(crdt.LevelCell-d.Level))
	}
	if d.ID.Key.DB != 0 {
		b = binary.AppendUvarint(append(b, varintKey(deltaDB)), uint64(d.ID.Key.DB))
	}
	if d.ID.Key.Name != "" {
		b = appendString(b, deltaKey, d.ID.Key.Name)
	}
	if d.ID.Kind != 0 {
		b = binary.AppendUvarint(append(b, varintKey(deltaKind)), uint64(d.ID.Kind))
	}
	if d.ID.Elem != "" {
		b = appendString(b, deltaElem, d.ID.Elem)
	}
	if d.Remove != nil {
		b = append(b, bytesKey(deltaRemove))
		start := len(b)
		b = w.appendRemove(b, d, d.Remove)
		b = prefixLen(b, start)
	}
	if p := d.Put; p != nil {
		b = append(b, bytesKey(deltaPut))
		start := len(b)
		if p.Tag != w.entry.Tag {
			b = appendFixedAlways(b, putTag, uint64(p.Tag))
		}
		if len(p.Value) > 0 {
			b = protowire.AppendBytes(append(b, bytesKey(putValue)), p.Value)
		}
		b = prefixLen(b, start)
	}
	if a := d.Add; a != nil {
		b = append(b, bytesKey(deltaAdd))
		start := len(b)
		if a.Tag != w.entry.Tag {
			b = appendFixedAlways(b, addTag, uint64(a.Tag))
		}
		if a.Epoch != a.Tag {
			b = appendFixedAlways(b, addEpoch, uint64(a.Epoch))
		}
		b = appendNumber(b, addSum, a.Sum)
		b = prefixLen(b, start)
	}
	return b
}

func (w *entryWriter) appendRemove(b []byte, d *crdt.Delta, r *crdt.Remove) []byte {
	if r.Tag != w.entry.Tag {
		b = appendFixedAlways(b, removeTag, uint64(r.Tag))
	}
	if c := w.context(r.Ctx); c != 0 {
		b = binary.AppendUvarint(append(b, varintKey(removeCtx)), c)
	}
	for i := range r.Seen {
		s := &r.Seen[i]
		b = append(b, bytesKey(removeSeen))
		start := len(b)
		if s.ID.Key.DB != d.ID.Key.DB {
			b = binary.AppendUvarint(append(b, varintKey(seenCellDB)), uint64(s.ID.Key.DB))
		}
		if s.ID.Key.Name != d.ID.Key.Name {
			b = appendString(b, seenCellKey, s.ID.Key.Name)
		}
		if s.ID.Kind != d.ID.Kind {
			b = binary.AppendUvarint(append(b, varintKey(seenCellKind)), uint64(s.ID.Kind))
		}
		if s.ID.Elem != d.ID.Elem {
			b = appendString(b, seenCellElem, s.ID.Elem)
		}
		for _, c := range s.Counts {
			b = append(b, bytesKey(seenCellCounts))
			start := len(b)
			b = appendFixed(b, seenStream, uint64(c.Stream))
			b = appendFixed(b, seenEpoch, uint64(c.Epoch))
			b = appendFixed(b, seenTag, uint64(c.Tag))
			b = appendNumber(b, seenSum, c.Sum)
			b = prefixLen(b, start)
		}
		b = prefixLen(b, start)
	}
	return b
}

func appendFixed(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return appendFixedAlways(b, n, v)
}

func appendFixedAlways(b []byte, n protowire.Number, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, fixedKey(n)), v)
}

func appendString(b []byte, n protowire.Number, s string) []byte {
	b = binary.AppendUvarint(append(b, bytesKey(n)), uint64(len(s)))
	return append(b, s...)
}

func appendNumber(b []byte, n protowire.Number, v crdt.Number) []byte {
	b = append(b, bytesKey(n))
	start := len(b)
	return prefixLen(v.AppendBinary(b), start)
}

// appendVector appends a length-prefixed Vector.
func appendVector(b []byte, v crdt.Vector) []byte {
	start := len(b)
	if len(v) > 0 {
		size := uint64(8 * len(v))
		b = binary.AppendUvarint(append(b, bytesKey(vectorStreams)), size)
		for _, p := range v {
			b = binary.LittleEndian.AppendUint64(b, uint64(p.Stream))
		}
		b = binary.AppendUvarint(append(b, bytesKey(vectorTags)), size)
		for _, p := range v {
			b = binary.LittleEndian.AppendUint64(b, uint64(p.Tag))
		}
	}
	return prefixLen(b, start)
}

// prefixLen puts the length of b[start:] before it. Most lengths take one
// byte; the move is of bytes just written.
func prefixLen(b []byte, start int) []byte {
	n := len(b) - start
	if n < 0x80 {
		b = append(b, 0)
		copy(b[start+1:], b[start:])
		b[start] = byte(n)
		return b
	}
	var size [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(size[:], uint64(n))
	b = append(b, size[:k]...)
	copy(b[start+k:], b[start:])
	copy(b[start:], size[:k])
	return b
}

// DecodeEntry reads an entry that fills the whole of b; its values share b's
// memory. It accepts fields in any order and skips unknown ones, as protobuf
// demands, and allocates no more than in proportion to b. Errors wrap
// crdt.ErrCorrupt.
func DecodeEntry(b []byte) (crdt.Entry, error) {
	var r reader
	e := r.entry(b)
	if r.why != "" {
		return crdt.Entry{}, fmt.Errorf("%w of an entry: %s", crdt.ErrCorrupt, r.why)
	}
	return e, nil
}

// Head is what an entry says of itself before its deltas.
type Head struct {
	Stream    crdt.Stream
	Prev, Tag crdt.Tag
}

// DecodeHead reads the head of an entry that EncodeEntry has made, and looks at
// nothing else. Errors wrap crdt.ErrCorrupt.
func DecodeHead(b []byte) (h Head, err error) {
	number := func(n protowire.Number) (v uint64) {
		if len(b) > 8 && b[0] == fixedKey(n) {
			v, b = binary.LittleEndian.Uint64(b[1:]), b[9:]
		}
		return v
	}
	h = Head{crdt.Stream(number(entryStream)), crdt.Tag(number(entryPrev)), crdt.Tag(number(entryTag))}
	if h.Tag <= h.Prev {
		return Head{}, fmt.Errorf("%w of an entry: tag not after the one before it", crdt.ErrCorrupt)
	}
	return h, nil
}

// reader decodes and remembers the first thing that was wrong.
type reader struct {
	why   string
	name  string  // of the key read last: deltas of one key follow each other, and share it
	todo  int     // deltas still to come, at most
	parts []parts // for them
}

// parts are those that most deltas have, in one piece of memory with others'.
type parts struct {
	remove crdt.Remove
	put    crdt.Put
}

// partsMost is for how many deltas parts are made at once, at most.
const partsMost = 64

// take returns parts for the next delta.
func (r *reader) take() *parts {
	if len(r.parts) == 0 {
		r.parts = make([]parts, max(1, min(r.todo, partsMost)))
	}
	p := &r.parts[0]
	r.parts = r.parts[1:]
	return p
}

func (r *reader) fail(why string) {
	if r.why == "" {
		r.why = why
	}
}

// field is one field of a message: its number and its value, by type.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	fixed uint64 // of fixed64 and varint fields
	bytes []byte
}

// fields calls fn for every field of a message, in order.
func (r *reader) fields(b []byte, fn func(f field)) {
	for len(b) > 0 && r.why == "" {
		num, typ, n := protowire.Number(b[0]>>3), protowire.Type(b[0]&7), 1
		if b[0] >= 0x80 || num == 0 { // not short, as ours are
			if num, typ, n = protowire.ConsumeTag(b); n < 0 {
				r.fail("bad field key")
				return
			}
		}
		b = b[n:]
		f := field{num: num, typ: typ}
		if typ == protowire.BytesType && len(b) > 0 && b[0] < 0x80 && int(b[0]) < len(b) {
			n = 1 + int(b[0])
			f.bytes, b = b[1:n:n], b[n:]
			fn(f)
			continue
		}
		switch typ {
		case protowire.Fixed64Type:
			f.fixed, n = protowire.ConsumeFixed64(b)
		case protowire.VarintType:
			f.fixed, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			r.fail("cut short")
			return
		}
		b = b[n:]
		fn(f)
	}
}

func (r *reader) fixed64(f field) uint64 {
	if f.typ != protowire.Fixed64Type {
		r.fail("fixed64 expected")
	}
	return f.fixed
}

func (r *reader) varint(f field, limit uint64) uint64 {
	if f.typ != protowire.VarintType || f.fixed > limit {
		r.fail("small number expected")
		return 0
	}
	return f.fixed
}

func (r *reader) data(f field) []byte {
	if f.typ != protowire.BytesType {
		r.fail("bytes expected")
	}
	return f.bytes[:len(f.bytes):len(f.bytes)]
}

func (r *reader) entry(b []byte) crdt.Entry {
	var e crdt.Entry
	var contexts []crdt.Vector
	deltas := 0
	r.fields(b, func(f field) {
		switch f.num {
		case entryStream:
			e.Stream = crdt.Stream(r.fixed64(f))
		case entryPrev:
			e.Prev = crdt.Tag(r.fixed64(f))
		case entryTag:
			e.Tag = crdt.Tag(r.fixed64(f))
		case entryCtx:
			e.Ctx = r.vector(r.data(f))
		case entryContexts:
			contexts = append(contexts, r.vector(r.data(f)))
		case entryDeltas:
			deltas++
		}
	})
	if e.Tag <= e.Prev {
		r.fail("tag not after the one before it")
	}
	if r.why != "" || deltas == 0 {
		return e
	}
	// Deltas refer to what may stand behind them: a second pass.
	e.Deltas = make([]crdt.Delta, 0, min(deltas, len(b)/4+1))
	r.todo = cap(e.Deltas)
	r.fields(b, func(f field) {
		if f.num == entryDeltas {
			e.Deltas = append(e.Deltas, r.delta(r.data(f), &e, contexts))
			r.todo--
		}
	})
	return e
}

func (r *reader) vector(b []byte) crdt.Vector {
	var streams, tags []byte
	r.fields(b, func(f field) {
		switch f.num {
		case vectorStreams:
			streams = r.packed(streams, f)
		case vectorTags:
			tags = r.packed(tags, f)
		}
	})
	if len(streams) != len(tags) || len(streams)%8 != 0 {
		r.fail("vector of unequal lists")
	}
	if r.why != "" || len(streams) == 0 {
		return nil
	}
	v := make(crdt.Vector, len(streams)/8)
	for i := range v {
		v[i].Stream = crdt.Stream(binary.LittleEndian.Uint64(streams[8*i:]))
		v[i].Tag = crdt.Tag(binary.LittleEndian.Uint64(tags[8*i:]))
		if i > 0 && v[i].Stream <= v[i-1].Stream {
			r.fail("vector out of order")
		}
	}
	return v
}

// packed gathers a repeated fixed64 field, packed or not.
func (r *reader) packed(have []byte, f field) []byte {
	switch {
	case f.typ == protowire.Fixed64Type:
		return binary.LittleEndian.AppendUint64(have, f.fixed)
	case have == nil:
		return r.data(f)
	}
	return append(have[:len(have):len(have)], r.data(f)...)
}

func (r *reader) delta(b []byte, e *crdt.Entry, contexts []crdt.Vector) crdt.Delta {
	d := crdt.Delta{Level: crdt.LevelCell}
	var remove []byte
	hasRemove := false
	var room *parts
	take := func() *parts {
		if room == nil {
			room = r.take()
		}
		return room
	}
	r.fields(b, func(f field) {
		switch f.num {
		case deltaLevel:
			d.Level = crdt.LevelCell - crdt.Level(r.varint(f, uint64(crdt.LevelCell)))
		case deltaDB:
			d.ID.Key.DB = uint8(r.varint(f, math.MaxUint8))
		case deltaKey:
			if name := r.data(f); string(name) != r.name {
				r.name = string(name)
			}
			d.ID.Key.Name = r.name
		case deltaKind:
			d.ID.Kind = crdt.Kind(r.varint(f, uint64(crdt.KindExpiry)))
		case deltaElem:
			d.ID.Elem = string(r.data(f))
		case deltaRemove:
			remove, hasRemove = r.data(f), true
		case deltaPut:
			d.Put = &take().put
			r.put(d.Put, r.data(f), e)
		case deltaAdd:
			d.Add = r.add(r.data(f), e)
		}
	})
	if hasRemove {
		d.Remove = &take().remove
		r.remove(d.Remove, remove, e, &d, contexts)
	}
	r.checkShape(&d)
	return d
}

// checkShape refuses deltas that no writer makes and the keyspace has no
// meaning for.
func (r *reader) checkShape(d *crdt.Delta) {
	none := d.Remove == nil && d.Put == nil && d.Add == nil
	switch {
	case none:
		r.fail("delta without parts")
	case d.Level != crdt.LevelCell && (d.Put != nil || d.Add != nil):
		r.fail("value for more than a cell")
	case d.Level != crdt.LevelCell && d.ID.Elem != "",
		d.Level == crdt.LevelDB && d.ID.Key.Name != "",
		(d.Level == crdt.LevelDB || d.Level == crdt.LevelKey) != (d.ID.Kind == crdt.KindAny):
		r.fail("target does not fit its level")
	}
}

// tag reads the tag of a part, which lies within the entry.
func (r *reader) tag(f field, e *crdt.Entry) crdt.Tag {
	t := crdt.Tag(r.fixed64(f))
	if t == 0 || t > e.Tag {
		r.fail("tag outside the entry")
	}
	return t
}

func (r *reader) remove(out *crdt.Remove, b []byte, e *crdt.Entry, d *crdt.Delta, contexts []crdt.Vector) {
	*out = crdt.Remove{Tag: e.Tag, Ctx: e.Ctx}
	r.fields(b, func(f field) {
		switch f.num {
		case removeTag:
			out.Tag = r.tag(f, e)
		case removeCtx:
			if i := r.varint(f, uint64(len(contexts))); i > 0 {
				out.Ctx = contexts[i-1]
			}
		case removeSeen:
			out.Seen = append(out.Seen, r.seenCell(r.data(f), d.ID))
		}
	})
}

func (r *reader) seenCell(b []byte, id crdt.CellID) crdt.SeenCell {
	s := crdt.SeenCell{ID: id}
	r.fields(b, func(f field) {
		switch f.num {
		case seenCellDB:
			s.ID.Key.DB = uint8(r.varint(f, math.MaxUint8))
		case seenCellKey:
			s.ID.Key.Name = string(r.data(f))
		case seenCellKind:
			s.ID.Kind = crdt.Kind(r.varint(f, uint64(crdt.KindExpiry)))
		case seenCellElem:
			s.ID.Elem = string(r.data(f))
		case seenCellCounts:
			var c crdt.Seen
			r.fields(r.data(f), func(f field) {
				switch f.num {
				case seenStream:
					c.Stream = crdt.Stream(r.fixed64(f))
				case seenEpoch:
					c.Epoch = crdt.Tag(r.fixed64(f))
				case seenTag:
					c.Tag = crdt.Tag(r.fixed64(f))
				case seenSum:
					c.Sum = r.number(r.data(f))
				}
			})
			s.Counts = append(s.Counts, c)
		}
	})
	return s
}

func (r *reader) put(p *crdt.Put, b []byte, e *crdt.Entry) {
	*p = crdt.Put{Tag: e.Tag}
	r.fields(b, func(f field) {
		switch f.num {
		case putTag:
			p.Tag = r.tag(f, e)
		case putValue:
			p.Value = r.data(f)
		}
	})
}

func (r *reader) add(b []byte, e *crdt.Entry) *crdt.Add {
	a := &crdt.Add{Tag: e.Tag}
	epoch := false
	r.fields(b, func(f field) {
		switch f.num {
		case addTag:
			a.Tag = r.tag(f, e)
		case addEpoch:
			a.Epoch, epoch = crdt.Tag(r.fixed64(f)), true
		case addSum:
			a.Sum = r.number(r.data(f))
		}
	})
	if !epoch {
		a.Epoch = a.Tag
	}
	return a
}

func (r *reader) number(b []byte) crdt.Number {
	n, err := crdt.DecodeNumber(b)
	if err != nil {
		r.fail("bad number")
	}
	return n
}
