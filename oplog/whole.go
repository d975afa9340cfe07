package oplog

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// The cells of a kind that a key has are taken into memory all at once where
// that costs about what single reads have cost already, or a walk over them costs
// anyway. From then on neither looks at the store, and so passes over no deleted
// rows either, of which a key that much has been taken from has many.

const (
	walkCells  = 128      // a walk over no more takes them in
	readShare  = 16       // so many cells cost about what one single read does
	wholeCells = 1024     // that are taken in, at most
	wholeBytes = 64 << 10 // about, with their values
)

// knows reports whether the store has no cells of a kind, KindAny for all, but for
// those that the state has: it had none when the header was read, or they were taken
// in since.
func (ks *keyState) knows(kind crdt.Kind) bool {
	bits := uint32(1) << kind
	if kind == crdt.KindAny {
		bits = 1<<(crdt.KindExpiry+1) - 1
	}
	return ks.loaded && ks.none&bits == bits
}

// complete takes note of it if the state has all cells of a kind that the header counts,
// now that it has one more: of most keys that is the only one.
func (ks *keyState) complete(kind crdt.Kind) {
	h := ks.header
	if h == nil || h.Rest > 0 || h.Live[kind] > fewCells || len(ks.cells.list) > 2*fewCells || ks.dirty || len(ks.set) > 0 {
		return // it does not count, or the header is not that of the cells
	}
	n := uint32(0)
	for _, cs := range ks.cells.list {
		if cs.kind == kind && cs.exists {
			n++
		}
	}
	if n == h.Live[kind] {
		ks.none |= 1 << kind
	}
}

// takeIn takes in the cells of a kind if the key has no more than most of them.
func (g *Group) takeIn(ks *keyState, kind crdt.Kind, most int) {
	h := ks.header
	if !ks.loaded || h == nil || ks.knows(kind) || ks.reads < 0 || hasEnds(kind) || // of those that come and go at the ends most are never read again
		g.cell.valid || g.header.valid || // a walk over cells or keys is under way
		int(h.Live[kind])+int(h.Rest) > most {
		return
	}
	prefix := append(appendKeyPrefix(nil, rangeCells, ks.key), byte(kind))
	it, err := g.l.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		g.fail(err)
		return
	}
	defer g.close(it)
	ks.reads = 0
	n, size := 0, 0
	for ok := it.First(); ok; ok = it.Next() {
		ck := cellKey{kind, string(it.Key()[len(prefix):])}
		if ks.cells.get(ck) != nil {
			continue // and perhaps newer
		}
		value := it.LazyValue()
		n++
		if size += len(ck.elem) + value.Len(); n > wholeCells || size > wholeBytes {
			ks.reads = math.MinInt // nor later
			return
		}
		id := crdt.CellID{Key: ks.key, Kind: kind, Elem: ck.elem}
		v, err := it.ValueAndErr()
		if err != nil {
			g.fail(fmt.Errorf("cell %v: %w", id, err))
			return
		}
		c, err := crdt.DecodeCell(bytes.Clone(v))
		if err != nil {
			g.fail(fmt.Errorf("cell %v: %w", id, err))
			return
		}
		cs := ks.newCell(ck)
		cs.read(c, flagsOfCell(ck, c))
		ks.add(cs)
	}
	if it.Error() == nil {
		ks.none |= 1 << kind
	}
}

// close ends a walk over the store's cells.
func (g *Group) close(it *pebble.Iterator) {
	s := it.Stats()
	g.l.counters.walks.Add(1)
	g.l.counters.passed.Add(uint64(s.ForwardStepCount[pebble.InternalIterCall] + s.ReverseStepCount[pebble.InternalIterCall]))
	g.fail(errors.Join(it.Error(), it.Close()))
}
