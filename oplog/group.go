package oplog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Group gathers what belongs together: changes of cells and headers, log
// entries, meta. Commit writes all of it or, if it fails, none. It is a
// crdt.Store that shows its own changes over what is stored. Not safe for
// concurrent use.
//
// Its memory grows with the cells and headers that are read singly or changed;
// what EachCell and EachKey only pass by is not kept.
type Group struct {
	l       *Log
	err     error
	keys    []*keyState // what it has touched; they are in the log's cache
	last    *keyState   // the one asked for last
	next    int         // of keys, the one that is asked for next if they are gone through again
	vector  crdt.Vector
	shared  bool // vector is the log's
	streams map[crdt.Stream]*groupStream
	entries []logEntry
	digests *digestSums
	pending map[uint8]crdt.Vector
	meta    map[string][]byte

	fill      *fillRange // nil: none
	conflicts [][]byte
	skipped   uint64 // conflicts before those, too many to keep

	// What EachCell and EachKey are showing: their callbacks may set it.
	cell   shownCell
	header shownHeader

	bytes          int    // of entries
	seq            uint64 // of its redo record; that of the one before if it has none
	begun, drained uint64 // see keyState.settled
	kept           bool   // committed
	through        bool   // all that it changes goes through, see redo.go
}

type cellKey struct {
	kind crdt.Kind
	elem string
}

func (k cellKey) compare(o cellKey) int {
	return cmp.Or(cmp.Compare(k.kind, o.kind), cmp.Compare(k.elem, o.elem))
}

// cellFlags and headerFlags say what is committed of a cell or header.
type cellFlags struct {
	exists, remnant, swept bool
	carried                bool  // in the row of its header
	expiry                 int64 // of a field, as indexed; 0 if it is not
}

// row reports whether the cell has a row of its own.
func (f cellFlags) row() bool { return f.exists && !f.carried }

type headerFlags struct {
	exists, remnant, swept bool
	expiry                 int64 // as indexed; 0 if it is not
}

func flagsOfCell(k cellKey, c *crdt.Cell) cellFlags {
	if c == nil || c.Empty() {
		return cellFlags{}
	}
	f := cellFlags{exists: true, remnant: len(c.Pending) > 0, swept: c.Hidden, carried: carries(k, c)}
	if k.kind == crdt.KindExpiry && k.elem != "" && !c.Hidden {
		if at := c.Expiry(); at != crdt.Never {
			f.expiry = at
		}
	}
	for i := range c.Counts {
		f.remnant = f.remnant || !c.Counts[i].Live()
	}
	return f
}

func flagsOfHeader(h *crdt.Header) headerFlags {
	if h == nil || h.Empty() {
		return headerFlags{}
	}
	f := headerFlags{exists: true, remnant: len(h.Pending) > 0, swept: h.Swept}
	if !h.Swept && h.Expiry != 0 && h.Expiry != crdt.Never {
		f.expiry = h.Expiry
	}
	return f
}

type shownCell struct {
	id    crdt.CellID
	cell  *crdt.Cell
	flags cellFlags // before the callback changed the cell
	valid bool
}

type shownHeader struct {
	key   crdt.Key
	flags headerFlags
	row   []byte           // as stored
	walk  *pebble.Iterator // at the key's rows, for who asks for its cells; nil while it is in use
	valid bool
}

type logEntry struct {
	stream crdt.Stream
	tag    crdt.Tag
	data   []byte
}

type groupStream struct {
	row   streamRow
	added int // entries
	jump  bool
	floor floorRow // with jump
}

var _ crdt.Store = (*Group)(nil)

// Begin opens a group. It panics if one is open already: there is one writer.
func (l *Log) Begin() *Group {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.group != nil {
		panic("oplog: a group is open")
	}
	l.sums.reset()
	l.group = &Group{l: l, vector: l.vector, shared: true, digests: &l.sums}
	l.entries, l.sources = reuse(l.entries), l.sources.reset()
	if l.closed {
		l.group.err = ErrClosed
	}
	return l.group
}

// Err returns the first error of the group, reading or writing; Commit will
// return it.
func (g *Group) Err() error { return g.err }

// reuse returns a buffer to be filled anew: the same, unless it has become too
// large to be kept.
func reuse(b []byte) []byte {
	if cap(b) > maxReused {
		return nil
	}
	return b[:0]
}

const maxReused = 4 << 20

func (g *Group) fail(err error) {
	if g.err == nil && err != nil {
		g.err = err
	}
}

// Vector returns what has been applied, with the group's own entries. It must
// not be changed.
func (g *Group) Vector() crdt.Vector {
	g.shared = true
	return g.vector
}

// key returns what is known of a key, for the group to change.
func (g *Group) key(k crdt.Key) *keyState {
	ks := g.known(k)
	if ks == nil {
		ks = &keyState{key: k}
		g.l.cache.add(ks)
		g.hold(ks)
	}
	return ks
}

// hold makes a key one of the group's.
func (g *Group) hold(ks *keyState) {
	ks.in, ks.number = g, len(g.keys)
	g.keys = append(g.keys, ks)
	g.last, g.next = ks, 0
}

// look has the group's next keys recalled where one goes through them, and has come
// to i.
func (g *Group) look(i int) {
	if i%crdt.RecallMost == 0 {
		g.l.cache.look(g.keys[i:min(i+crdt.RecallMost, len(g.keys))])
	}
}

// known is key, or nil if nothing is known of the key.
func (g *Group) known(k crdt.Key) *keyState {
	if g.last != nil && g.last.key == k {
		return g.last
	}
	if g.next < len(g.keys) && g.keys[g.next].key == k {
		g.last = g.keys[g.next]
		g.next++
		g.look(g.next)
		return g.last
	}
	ks := g.l.cache.get(k)
	switch {
	case ks == nil:
	case ks.in != g:
		g.hold(ks)
	default:
		g.last, g.next = ks, ks.number+1
	}
	return ks
}

// Recall implements crdt.Store.
func (g *Group) Recall(cells []crdt.CellID) { g.l.Recall(cells, nil) }

// Cell implements crdt.Store.
func (g *Group) Cell(id crdt.CellID) *crdt.Cell {
	ks := g.loadHeader(id.Key)
	cs := ks.cells.get(cellKey{id.Kind, id.Elem})
	if cs == nil {
		if ks.none&(1<<id.Kind) != 0 && !g.cell.valid {
			return nil
		}
		cs = g.loadCell(id)
	}
	if c := g.open(cs); c != nil && !c.Empty() {
		return c
	}
	return nil
}

func (g *Group) loadCell(id crdt.CellID) *cellState {
	ks := g.loadHeader(id.Key) // it may bring the cell
	ck := cellKey{id.Kind, id.Elem}
	if cs := ks.cells.get(ck); cs != nil {
		return cs
	}
	shown := g.cell.valid && g.cell.id == id
	if !shown && !ks.knows(id.Kind) {
		if ks.reads++; ks.reads > fewCells {
			g.takeIn(ks, id.Kind, min(readShare*ks.reads, wholeCells))
			if cs := ks.cells.get(ck); cs != nil {
				return cs
			}
		}
	}
	cs := ks.newCell(ck)
	if shown {
		cs.read(g.cell.cell, g.cell.flags)
	} else if !ks.knows(id.Kind) {
		var buf [128]byte
		b, err := get(g.l.db, appendCellKey(buf[:0], rangeCells, id))
		if err != nil {
			g.fail(fmt.Errorf("cell %v: %w", id, err))
		}
		if b != nil {
			c, err := crdt.DecodeCell(b)
			if err != nil {
				g.fail(fmt.Errorf("cell %v: %w", id, err))
			} else {
				cs.read(c, flagsOfCell(ck, c))
			}
		}
	}
	ks.add(cs)
	ks.complete(id.Kind)
	return cs
}

// SetCell implements crdt.Store.
func (g *Group) SetCell(id crdt.CellID, c *crdt.Cell) {
	cs := g.loadCell(id)
	if !cs.dirty {
		g.l.cache.noteSet(g.last, cs)
	}
	g.set(cs, c)
	if ownAt(cs.key()) >= 0 {
		g.last.dirty = true // the header's row carries it, or did
	}
	if more := g.last.measure(cs); cs.owed {
		g.l.cache.owed.bytes += more
	}
	if hasEnds(id.Kind) {
		g.l.ends.changed(id, c.Live())
	}
}

// Fresh implements crdt.Store.
func (g *Group) Fresh(id crdt.CellID) {
	ks, ck := g.loadHeader(id.Key), cellKey{id.Kind, id.Elem}
	if !ks.knows(id.Kind) && ks.cells.get(ck) == nil {
		ks.add(ks.newCell(ck))
	}
}

// Header implements crdt.Store.
func (g *Group) Header(k crdt.Key) *crdt.Header {
	h := g.loadHeader(k).header
	if h == nil || h.Empty() {
		return nil
	}
	return h
}

// KnownHeader is Header without looking at the store, if that is not needed.
func (g *Group) KnownHeader(k crdt.Key) (h *crdt.Header, known bool) {
	if ks := g.known(k); ks == nil || !ks.loaded {
		return nil, false
	}
	return g.Header(k), true
}

// Knows reports whether Header of a cell's key and Cell, unless its kind is KindAny,
// need not look at the store.
func (g *Group) Knows(id crdt.CellID) bool {
	ks := g.known(id.Key)
	if ks == nil {
		return g.l.filter.lacks(id.Key)
	}
	return ks.loaded && (id.Kind == crdt.KindAny || ks.knows(id.Kind) || ks.cells.get(cellKey{id.Kind, id.Elem}) != nil)
}

func (g *Group) loadHeader(k crdt.Key) *keyState {
	ks := g.key(k)
	if ks.loaded {
		return ks
	}
	if g.l.filter.lacks(k) {
		ks.read(nil, &ownCells{})
		return ks
	}
	var h *crdt.Header
	var cells ownCells
	var err error
	if g.header.valid && g.header.key == k {
		h, cells, err = decodeHeaderRow(bytes.Clone(g.header.row))
	} else {
		h, cells, err = g.l.storedHeader(k)
	}
	if err != nil {
		g.fail(fmt.Errorf("header of %v: %w", k, err))
		h, cells = nil, ownCells{}
	}
	ks.read(h, &cells)
	return ks
}

// storedHeader reads the header of a key that the cache does not hold, nil if there is none,
// and the own cells in its row.
func (l *Log) storedHeader(k crdt.Key) (h *crdt.Header, cells ownCells, err error) {
	l.counters.keys.Add(1)
	var buf [128]byte
	b, err := get(l.db, headerKey(buf[:0], k))
	if b == nil || err != nil {
		return nil, cells, err
	}
	return decodeHeaderRow(b)
}

// read takes in the header as the store has it, nil for none, and own cells.
func (ks *keyState) read(h *crdt.Header, cells *ownCells) {
	ks.setHeader(h)
	ks.loaded, ks.stored, ks.none = true, flagsOfHeader(h), noneOf(h)
	ks.takeOwn(cells)
	for i, c := range cells {
		if c != nil {
			ks.complete(ownKinds[i])
		}
	}
}

// noneOf returns the kinds of which a key with a header has no cells, as bits.
func noneOf(h *crdt.Header) (kinds uint32) {
	if h == nil {
		return ^uint32(0)
	}
	if h.Rest > 0 {
		return 0
	}
	for k, n := range h.Live {
		if n == 0 {
			kinds |= 1 << k
		}
	}
	return kinds
}

// SetHeader implements crdt.Store.
func (g *Group) SetHeader(k crdt.Key, h *crdt.Header) {
	ks := g.key(k)
	if !ks.loaded {
		if g.header.valid && g.header.key == k {
			ks.loaded, ks.stored = true, g.header.flags // none: the callback's header may not tell any more
			_, cells, err := decodeHeaderRow(bytes.Clone(g.header.row))
			g.fail(err)
			ks.takeOwn(&cells)
		} else {
			g.loadHeader(k)
		}
	}
	ks.setHeader(h)
	ks.dirty = true
}

// DBPending implements crdt.Store.
func (g *Group) DBPending(db uint8) crdt.Vector {
	if v, ok := g.pending[db]; ok {
		return v
	}
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	return g.l.pending[db]
}

// SetDBPending implements crdt.Store.
func (g *Group) SetDBPending(db uint8, v crdt.Vector) {
	if g.pending == nil {
		g.pending = map[uint8]crdt.Vector{}
	}
	g.pending[db] = v
}

// AddDigest implements crdt.Store.
func (g *Group) AddDigest(k crdt.Key, delta uint64) {
	if delta == 0 {
		return
	}
	if g.last != nil && g.last.key == k {
		g.digests.add(g.last.digestsAt(), delta)
		return
	}
	g.digests.add(Bucket(k), delta)
}

// SetMeta stores a small named blob with the group; nil deletes it.
func (g *Group) SetMeta(name string, b []byte) {
	checkMetaName(name)
	if g.meta == nil {
		g.meta = map[string][]byte{}
	}
	g.meta[name] = b
}

// stream returns what the group holds of a stream.
func (g *Group) stream(s crdt.Stream) *groupStream {
	gs := g.streams[s]
	if gs != nil {
		return gs
	}
	gs = &groupStream{}
	g.l.mu.Lock()
	if st := g.l.streams[s]; st != nil {
		gs.row, gs.floor = st.row, st.floor
	}
	g.l.mu.Unlock()
	if g.streams == nil {
		g.streams = map[crdt.Stream]*groupStream{}
	}
	g.streams[s] = gs
	return gs
}

// Append adds an entry to the log and advances the group's vector to it. The
// entry is encoded at once and not kept. An entry the vector has passed is
// ignored; one that does not follow is refused with ErrGap, and the group is as
// it was.
func (g *Group) Append(e *crdt.Entry) error {
	gs := g.stream(e.Stream)
	if e.Tag <= gs.row.tag {
		return nil
	}
	if e.Prev > gs.row.tag {
		return fmt.Errorf("%w: stream %v is at %v, the entry follows %v", ErrGap, e.Stream, gs.row.tag, e.Prev)
	}
	// The buffer is the log's; entries that were there before it grew stay where they are.
	from := len(g.l.entries)
	g.l.entries = wire.EncodeEntryEach(g.l.entries, e, func(d *crdt.Delta, end int) {
		g.l.sources.add(d, len(g.entries)+1, end-from)
	})
	data := g.l.entries[from:len(g.l.entries):len(g.l.entries)]
	gs.row.tag, gs.row.known = e.Tag, e.Ctx
	gs.row.appended += uint64(len(data))
	g.bytes += len(data)
	gs.added++
	g.entries = append(g.entries, logEntry{e.Stream, e.Tag, data})
	g.advance(e.Stream, e.Tag)
	return nil
}

// EntryBytes returns the size of the entries appended so far, encoded.
func (g *Group) EntryBytes() int { return g.bytes }

// Jump advances the group's vector over a part of a stream of which the effects
// came by a state sync, not as entries. The stream's log up to t is dropped,
// for it has a gap. known is what the origin had seen at t, or nil.
func (g *Group) Jump(s crdt.Stream, t crdt.Tag, known crdt.Vector) error {
	gs := g.stream(s)
	if t <= gs.row.tag {
		return nil
	}
	for _, e := range g.entries {
		if e.stream == s {
			return fmt.Errorf("jump in stream %v after an entry in the same group", s)
		}
	}
	if known == nil {
		known = gs.row.known
	}
	gs.row.tag, gs.row.known = t, known
	gs.floor = floorRow{tag: t, trimmed: gs.row.appended}
	gs.jump = true
	g.advance(s, t)
	return nil
}

func (g *Group) advance(s crdt.Stream, t crdt.Tag) {
	if g.shared {
		g.vector, g.shared = g.vector.Clone(), false
	}
	g.vector.Set(s, t)
}

// Discard gives the group up; nothing of it has happened. What the group gave
// out must not be used any more.
func (g *Group) Discard() {
	if g.l == nil {
		return
	}
	switch {
	case g.kept:
	case g.err == nil && g.Empty():
		g.keep()
	default:
		g.drop()
	}
	g.l.opened.reset()
	g.l.mu.Lock()
	g.l.group = nil
	g.l.mu.Unlock()
	g.l = nil
}

// drop takes what the group has touched out of the cache: the store is to tell
// what it was before.
func (g *Group) drop() {
	l := g.l
	l.ends = endCache{}
	drained := l.redo.drained.Load()
	for _, ks := range g.keys {
		if ks.seq > drained {
			if err := l.level(); err != nil {
				l.fail(err, true, false)
			}
			l.commit.Unlock()
			break
		}
	}
	for _, ks := range g.keys {
		l.cache.drop(ks.key)
	}
}

// Empty reports whether Commit would write nothing.
func (g *Group) Empty() bool {
	if len(g.streams)+len(g.entries)+len(g.digests.list)+len(g.pending)+len(g.meta)+len(g.conflicts) > 0 || g.fill != nil {
		return false
	}
	for _, ks := range g.keys {
		if ks.dirty {
			return false
		}
		for _, cs := range ks.set {
			if cs.dirty {
				return false
			}
		}
	}
	return true
}

// Commit writes the group, as safe as the policy wants, and ends it. On an
// error nothing of it counts: the vector is as it was, and no peer will hear of
// it. After one that wraps ErrDisk it is not known whether a restart will find
// the group, as with any database; it is found whole or not at all.
func (g *Group) Commit() error {
	l := g.l
	if l == nil {
		panic("oplog: the group has ended")
	}
	defer g.Discard()
	if g.err != nil {
		return g.err
	}
	if g.Empty() {
		g.keep()
		return nil
	}
	if err := l.Failed(); err != nil {
		return err
	}
	if err := l.makeRoom(g.bytes + 64*len(g.keys)); err != nil {
		return err
	}
	err := g.lock()
	if err == nil {
		err = g.write()
	}
	l.commit.Unlock()
	if err == nil {
		g.keep()
		l.committed()
	}
	return err
}

// lock takes l.commit, in any case. Of entries that a jump drops no record is to tell.
func (g *Group) lock() error {
	l := g.l
	l.commit.Lock()
	for s, gs := range g.streams {
		if gs.jump && l.redo.free(s) < gs.floor.tag {
			l.commit.Unlock()
			return l.level()
		}
	}
	return nil
}

// keep leaves what the group holds of keys to the groups after it.
func (g *Group) keep() {
	g.kept = true
	c, drained := &g.l.cache, g.l.redo.drained.Load()
	for i, ks := range g.keys {
		g.look(i)
		if ks.through || c.big(ks) && len(ks.set) == 0 && ks.seq <= drained ||
			ks.vacant() && g.l.filter.lacks(ks.key) { // as quickly told the next time
			c.drop(ks.key)
			continue
		}
		ks.in = nil
		if owes, bytes := ks.settled(g.seq, g.begun, g.drained); owes >= 0 {
			c.owe(ks, owes, bytes)
		}
		c.unset(ks)
		if ks.bytes > max(c.budget, ks.shedAt) {
			ks.shed(drained)
		}
		c.resize(ks)
	}
	if g.fill != nil {
		g.fill.dropCached()
	}
	for _, b := range g.digests.list {
		c.owed.digests[b] = true
	}
	c.trim(drained)
	g.keys = nil
}

// write puts the group into the store and the log's memory. l.commit is held.
func (g *Group) write() error {
	l := g.l
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return ErrClosed
	}
	batch := l.db.NewBatchWithSize(2*g.bytes+256*len(g.keys)+1024, pebble.WithMaxRetainedSizeBytes(maxReused))
	defer func() { _ = batch.Close() }()
	w := groupWriter{batch: batch, filter: &l.filter, redo: reuse(l.redo.buffer), sources: l.sources, entries: g.entries, drained: l.redo.drained.Load(), begun: l.redo.begun, all: g.through || len(g.keys) > maxRedoKeys}
	w.keys(g)
	for _, e := range g.entries {
		w.set(appendLogKey(w.key[:0], e.stream, e.tag), e.data)
	}
	for s, gs := range g.streams {
		w.value = gs.row.encode(w.value[:0])
		w.set(appendStreamKey(w.key[:0], rangeStreams, s), w.value)
		if gs.jump {
			w.value = gs.floor.encode(w.value[:0])
			w.set(appendStreamKey(w.key[:0], rangeFloors, s), w.value)
			w.err = errors.Join(w.err, batch.DeleteRange(appendLogKey(nil, s, 0), appendLogKey(nil, s, gs.floor.tag+1), nil))
		}
	}
	for _, b := range g.digests.list {
		w.value = binary.BigEndian.AppendUint64(w.value[:0], l.digests[b]+g.digests.of[b])
		w.key = digestKey(w.key[:0], b)
		w.tell(redoSet, w.value)
	}
	g.seq, g.begun, g.drained = l.redo.seq, w.begun, w.drained
	l.redo.buffer = w.redo
	if len(w.redo) > 0 {
		g.seq++
		w.set(redoKey(w.key[:0], g.seq), w.redo)
	}
	for db, v := range g.pending {
		if len(v) == 0 {
			w.delete(append(w.key[:0], rangePending, db))
			continue
		}
		w.value = v.AppendBinary(w.value[:0])
		w.set(append(w.key[:0], rangePending, db), w.value)
	}
	for name, b := range g.meta {
		if b == nil {
			w.delete(metaKey(name))
		} else {
			w.set(metaKey(name), b)
		}
	}
	conflicts := g.writeConflicts(&w)
	if g.fill != nil && w.err == nil {
		g.fill.index(&w)
		w.err = errors.Join(w.err, g.fill.put(batch))
	}
	swept := w.sweep(g, 0)
	if w.err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, w.err)
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		l.fail(err, true, false)
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	if f := l.failure.Load(); f != nil && f.fatal {
		return f.err
	}
	l.redo.seq = g.seq
	l.redo.written.Add(w.told())
	if w.referred > 0 {
		for i := range g.entries {
			l.redo.pin(g.seq, g.entries[i].stream, g.entries[i].tag)
		}
	}
	swept()
	changed := noter{r: &l.recent}
	for _, row := range w.through {
		changed.note([]byte(row))
	}
	if l.redo.through != nil {
		for _, row := range w.through {
			l.redo.through[row] = struct{}{}
		}
	}
	l.expiry.committed(w.earliest, w.goneExpiry)
	l.conflicts = conflicts
	g.publish()
	l.counters.commits.Add(1)
	l.counters.entries.Add(uint64(len(g.entries)))
	l.counters.entryBytes.Add(uint64(g.bytes))
	l.counters.cells.Add(w.cells)
	l.counters.headers.Add(w.headers)
	return nil
}

// publish brings the log's memory level with the store.
func (g *Group) publish() {
	l := g.l
	l.mu.Lock()
	defer l.mu.Unlock()
	l.vector, g.shared = g.vector, true
	for s, gs := range g.streams {
		st := l.streams[s]
		if st == nil {
			st = &streamState{}
			l.streams[s] = st
		}
		if gs.jump {
			st.floor, st.stretches, st.open, st.part = gs.floor, nil, stretch{}, 0
		}
		if gs.added > 0 {
			st.note(gs.row, gs.added)
		}
		st.row = gs.row
	}
	for _, b := range g.digests.list {
		l.digests[b] += g.digests.of[b]
		l.total += g.digests.of[b]
	}
	for db, v := range g.pending {
		l.pending[db] = v
	}
	l.commits++
	if l.unsynced.IsZero() {
		l.unsynced = time.Now()
	}
}
