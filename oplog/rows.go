package oplog

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// maxRedoKeys is how many keys a group may change to be told in a record: what
// a larger one changes goes through.
const maxRedoKeys = 1 << 14

// groupWriter fills a batch with a group's cells and headers and what is
// indexed of them.
type groupWriter struct {
	batch          *pebble.Batch
	filter         *keyFilter
	redo           []byte
	before         []byte // the row that redo tells of last
	sources        sources
	entries        []logEntry // of sources
	entry          int        // the entry that redo tells of last, 1 for the first
	referred       int64      // bytes of entries that redo refers to
	drained        uint64     // records up to this one are gone
	begun          uint64     // those up to this one may have reached the rows by a drain
	all            bool       // everything goes through
	through        []string   // the rows that do
	key, value     []byte
	pos            []byte // of the key at hand
	err            error
	cells, headers uint64
	earliest       int64 // least expiry added to the index; 0 if none
	goneExpiry     bool  // some were taken from it
}

func (w *groupWriter) set(k, v []byte) {
	w.key = k
	if err := w.batch.Set(k, v, nil); err != nil && w.err == nil {
		w.err = err
	}
}

func (w *groupWriter) delete(k []byte) {
	w.key = k
	if err := w.batch.Delete(k, nil); err != nil && w.err == nil {
		w.err = err
	}
}

func (w *groupWriter) keys(g *Group) {
	for i, ks := range g.keys {
		g.look(i)
		changed := ks.dirty
		for _, cs := range ks.set {
			changed = changed || cs.dirty
		}
		if changed {
			w.pos = AppendPos(w.pos[:0], ks.key)
			g.l.touched[PosBucket(w.pos)] = g.l.redo.seq + 1
		}
		// What has changed since the last drain goes through with the rest: the
		// cache is not to keep it.
		ks.through = changed && (w.all || g.l.cache.big(ks))
		cells := ks.set
		if ks.through {
			cells = ks.cells.list
		}
		for _, cs := range cells {
			was := cs.exists || cs.seq > w.drained
			if (cs.dirty || ks.through && cs.seq > w.drained) && (was || cs.open != nil && !cs.open.Empty()) {
				w.cell(crdt.CellID{Key: ks.key, Kind: cs.kind, Elem: cs.elem}, cs, ks.through)
			}
		}
		if ks.dirty || ks.through && ks.hseq > w.drained {
			w.header(ks.key, ks)
		}
	}
}

// tell adds to the redo record what has become of the row w.key.
func (w *groupWriter) tell(op redoOp, value []byte) {
	w.redo = appendRedo(w.redo, op, w.before, w.key, value)
	w.before = append(w.before[:0], w.key...)
}

// row tells of a row in the redo record, or puts it into the store, which may have
// one. at is where the end of its value is too.
func (w *groupWriter) row(now, was, through, stands bool, at source) {
	switch {
	case through && (now || stands):
		w.through = append(w.through, string(w.key))
		w.tell(redoStored, nil)
		if now {
			w.set(w.key, w.value)
		} else {
			w.delete(w.key)
		}
	case now && at.size > 0:
		w.refer(at)
	case now:
		w.tell(redoSet, w.value)
	case was || through || stands:
		w.tell(redoDelete, nil)
	}
}

// cell and header tell of the row of a cell, or of the header, of the key whose
// position pos is.
func (w *groupWriter) cell(id crdt.CellID, cs *cellState, through bool) {
	now, was := cs.flags(), cs.stored()
	if now.exists {
		w.cells++
	}
	// What its header carries has no row to tell of, but for one that it had before.
	if stands := mayStand(cs.seq, was.row(), cs.row, w.begun, w.drained); ownAt(cs.key()) < 0 || now.row() || was.row() || stands {
		w.key = appendRow(w.key[:0], w.pos, id.Kind, id.Elem)
		var at source
		if now.row() {
			w.value = cs.AppendBinary(w.value[:0])
			at = w.source(cs)
		}
		w.row(now.row(), was.row(), through, stands, at)
	}
	w.index(now.remnant, was.remnant, func(b []byte) []byte { return appendCellKey(b, rangeRemnants, id) })
	w.index(now.swept, was.swept, func(b []byte) []byte { return appendSweptKey(b, id) })
	w.expiry(now.expiry, was.expiry, id)
}

// source returns where the value of a cell is that ends with it.
func (w *groupWriter) source(cs *cellState) source {
	if cs.open == nil || !plain(&cs.open.Cell) {
		return source{}
	}
	return w.sources.find(cs.open.Values[0].Value, w.entries)
}

func (w *groupWriter) header(k crdt.Key, ks *keyState) {
	now, was := flagsOfHeader(ks.header), ks.stored
	w.key = appendRow(w.key[:0], w.pos, crdt.KindAny, "")
	var at source
	if now.exists {
		w.headers++
		if !was.exists {
			w.filter.add(k)
		}
		w.value = ks.appendHeader(w.value[:0])
		if str := ks.own[0]; str != nil && str.flags().carried {
			at = w.source(str)
		}
	}
	w.row(now.exists, was.exists, ks.through, mayStand(ks.hseq, was.exists, ks.hrow, w.begun, w.drained), at)
	w.index(now.remnant, was.remnant, func(b []byte) []byte {
		return append(appendKeyPrefix(b, rangeRemnants, k), byte(crdt.KindAny))
	})
	id := crdt.CellID{Key: k, Kind: crdt.KindExpiry}
	w.index(now.swept, was.swept, func(b []byte) []byte { return appendSweptKey(b, id) })
	w.expiry(now.expiry, was.expiry, id)
}

// expiry brings the row of an expiry level: 0 is none.
func (w *groupWriter) expiry(now, was int64, id crdt.CellID) {
	if now == was {
		return
	}
	if was != 0 {
		w.delete(appendExpiryKey(w.key[:0], was, id))
		w.goneExpiry = true
	}
	if now != 0 {
		w.set(appendExpiryKey(w.key[:0], now, id), nil)
		if w.earliest == 0 || now < w.earliest {
			w.earliest = now
		}
	}
}

// index brings an index row level.
func (w *groupWriter) index(now, was bool, key func([]byte) []byte) {
	switch {
	case now && !was:
		w.set(key(w.key[:0]), nil)
	case was && !now:
		w.delete(key(w.key[:0]))
	}
}
