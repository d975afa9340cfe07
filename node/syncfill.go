package node

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/resp/command"
)

// fillWindow is what a step of a state sync comes to where this replica has
// nothing: a table of the keys as they came, and the updates that make them in
// the view. It is made beside the executor, to which little is left (fillIn).
//
// To merge a cell with none gives that cell, if nothing in it is such as this
// replica has seen, and so has seen removed. So the table holds keys with
// nothing but live values and increments; oldest tells from where on those are
// new. The others are merged one by one.
type fillWindow struct {
	fill   *oplog.Fill
	oldest crdt.Vector // the least tag of each stream in the table
	cells  uint64
	expiry int64 // the earliest in the table; 0 if there is none
	batch  Batch
	rest   []SyncKey
	taken  bool
}

// fillHorizon is how far from the beginning of a sync a key's expiry must be for
// the table: until it is merged the key is to be there.
const fillHorizon = time.Hour

// newFill makes the table of a window, all of which must be in order of
// position. The expiry of what is in the table is after horizon, in Unix
// milliseconds. It returns nil if nothing could be in it.
func (w *SyncWindow) newFill(log *oplog.Log, horizon int64) (*fillWindow, error) {
	if n := len(w.keys); n == 0 || bytes.Compare(oplog.Pos(w.keys[0].Key), w.from) < 0 ||
		len(w.upto) > 0 && bytes.Compare(oplog.Pos(w.keys[n-1].Key), w.upto) >= 0 {
		return nil, errOutOfOrder
	}
	fill, err := log.NewFill()
	if err != nil {
		return nil, err
	}
	f := &fillWindow{fill: fill}
	one := oneKey{}
	var cells []oplog.CellState
	for i := range w.keys {
		k := &w.keys[i]
		h, ok := k.plainHeader()
		if !ok || h.Expiry != 0 && h.Expiry <= horizon {
			f.rest = append(f.rest, *k)
			continue
		}
		cells = cells[:0]
		for j := range k.Cells {
			c := &k.Cells[j]
			cells = append(cells, oplog.CellState{Kind: c.Kind, Elem: c.Elem, Data: c.data})
			f.note(c.Cell)
		}
		if err := fill.Add(k.Key, h, cells); err != nil {
			fill.Close()
			return nil, err
		}
		f.cells += uint64(len(cells))
		if h.Expiry != 0 && h.Expiry != crdt.Never && (f.expiry == 0 || h.Expiry < f.expiry) {
			f.expiry = h.Expiry
		}
		one.key, one.header = k, h
		materialise(&f.batch, &one, k.Key, &crdt.Touch{}, 0)
	}
	if len(fill.Keys()) == 0 {
		fill.Close()
		return nil, nil
	}
	if err := fill.Finish(); err != nil {
		fill.Close()
		return nil, err
	}
	return f, nil
}

// note takes note of the tags in a cell.
func (f *fillWindow) note(c *crdt.Cell) {
	for _, v := range c.Values {
		f.noteTag(v.Dot.Stream, v.Dot.Tag)
	}
	for i := range c.Counts {
		f.noteTag(c.Counts[i].Stream, min(c.Counts[i].Epoch, c.Counts[i].Tag))
	}
}

func (f *fillWindow) noteTag(s crdt.Stream, t crdt.Tag) {
	if at := f.oldest.Get(s); at == 0 || t < at {
		f.oldest.Set(s, t)
	}
}

// plainHeader returns the header of a key with nothing but live cells that need
// no comparing with each other: of one type, each with one value at most, and no
// field with an expiry of its own.
func (k *SyncKey) plainHeader() (*crdt.Header, bool) {
	if len(k.Pending) > 0 || k.Key.DB == command.SystemDB {
		return nil, false
	}
	h := &crdt.Header{}
	for i := range k.Cells {
		c := &k.Cells[i]
		t := c.Kind.Type()
		_, ofField := crdt.CellID{Kind: c.Kind, Elem: c.Elem}.Field()
		if ofField || c.Cell.Hidden || !c.Cell.Live() || c.Cell.Remnant() || len(c.Cell.Values) > 1 || t != crdt.TypeNone && h.Type != crdt.TypeNone && t != h.Type {
			return nil, false
		}
		h.Add(crdt.CellID{Key: k.Key, Kind: c.Kind, Elem: c.Elem}, c.Cell)
	}
	return h, h.Type != crdt.TypeNone
}

// fillIn puts a window's table into the open group, if nothing is here in its
// place, and reports whether that was so. Then the window is merged.
func (c *Core) fillIn(s *SyncState, w *SyncWindow) (bool, error) {
	f := w.fill
	have, pending := c.regions.between(w.from, w.upto)
	have = have.Join(c.ks.Have)
	for db := range userDBs {
		pending = pending || len(c.group.DBPending(uint8(db))) > 0
	}
	for _, p := range f.oldest {
		if have.Get(p.Stream) >= p.Tag {
			return false, nil
		}
	}
	if pending || f.expiry != 0 && f.expiry-c.Now() <= expiryMargin {
		return false, nil
	}
	if vacant, err := c.group.Vacant(w.from, w.upto); err != nil || !vacant {
		return false, err
	}
	c.group.Fill(w.from, w.upto, f.fill)
	keys := f.fill.Keys()
	for _, k := range keys {
		c.noteTouch(k)
	}
	if c.dirty == nil {
		c.flushTouched() // what has expired goes first
		c.batch.Keys = append(c.batch.Keys, keys...)
		c.batch.Cmds = append(c.batch.Cmds, f.batch.Cmds...)
		c.batch.Bytes += f.batch.Bytes
		c.Stats.Updates += uint64(len(f.batch.Cmds))
	} else {
		for _, k := range keys {
			c.remember(k)
		}
	}
	c.Stats.SyncedKeys += uint64(len(keys))
	c.Stats.SyncedCells += f.cells
	f.taken = true
	return true, c.mergeKeys(s, f.rest, make([]bool, len(f.rest)))
}

// oneKey shows the state of one key, whose cells are in order.
type oneKey struct {
	crdt.Store // for nothing else is asked
	key        *SyncKey
	header     *crdt.Header
}

// read has the key of a snapshot shown.
func (o *oneKey) read(st *oplog.KeyState) error {
	if o.key == nil {
		o.key = &SyncKey{}
	}
	o.key.Key, o.key.Cells, o.header = st.Key, o.key.Cells[:0], st.Header
	for i := range st.Cells {
		c, err := crdt.DecodeCell(st.Cells[i].Data)
		if err != nil {
			return err
		}
		o.key.Cells = append(o.key.Cells, SyncCell{Kind: st.Cells[i].Kind, Elem: st.Cells[i].Elem, Cell: c})
	}
	return nil
}

func (o *oneKey) Header(crdt.Key) *crdt.Header { return o.header }

func (o *oneKey) Cell(id crdt.CellID) *crdt.Cell {
	i, ok := slices.BinarySearchFunc(o.key.Cells, id, func(c SyncCell, id crdt.CellID) int {
		return cmp.Or(cmp.Compare(c.Kind, id.Kind), cmp.Compare(c.Elem, id.Elem))
	})
	if !ok {
		return nil
	}
	return o.key.Cells[i].Cell
}

func (o *oneKey) EachCell(_ crdt.Key, kind crdt.Kind, fn func(crdt.CellID, *crdt.Cell) bool) {
	for i := range o.key.Cells {
		c := &o.key.Cells[i]
		if (kind == crdt.KindAny || kind == c.Kind) && !fn(crdt.CellID{Key: o.key.Key, Kind: c.Kind, Elem: c.Elem}, c.Cell) {
			return
		}
	}
}

// closeFill ends a table, which is removed unless it was taken, and returns how
// many keys it has brought.
func (w *SyncWindow) closeFill() (keys int) {
	if w.fill == nil {
		return 0
	}
	if w.fill.taken {
		keys = len(w.fill.fill.Keys())
	}
	w.fill.fill.Close()
	w.fill = nil
	return keys
}

// join adds the windows that follow this one.
func (w *SyncWindow) join(next []*SyncWindow) {
	keys := 0
	for _, x := range next {
		keys += len(x.keys)
	}
	w.keys = slices.Grow(w.keys, keys)
	for _, x := range next {
		w.upto, w.bytes = x.upto, w.bytes+x.bytes
		w.keys = append(w.keys, x.keys...)
		w.ranges = append(w.ranges, x.ranges...)
	}
}
