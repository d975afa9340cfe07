package oplog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// EachCell implements crdt.Store.
func (g *Group) EachCell(key crdt.Key, kind crdt.Kind, fn func(crdt.CellID, *crdt.Cell) bool) {
	low := append(appendKeyPrefix(nil, rangeCells, key), byte(max(kind, 1)))
	high := after(low)
	if kind == crdt.KindAny {
		high = after(low[:len(low)-1])
	}
	g.eachCell(key, kind, low, high, len(low)-1, false, fn)
}

// EachCellFrom implements crdt.Store.
func (g *Group) EachCellFrom(key crdt.Key, kind crdt.Kind, from string, back bool, fn func(crdt.CellID, *crdt.Cell) bool) {
	if hasEnds(kind) {
		g.eachFromEnd(key, kind, from, back, fn)
	} else {
		g.eachFrom(key, kind, from, back, fn)
	}
}

func (g *Group) eachFrom(key crdt.Key, kind crdt.Kind, from string, back bool, fn func(crdt.CellID, *crdt.Cell) bool) {
	prefix := append(appendKeyPrefix(nil, rangeCells, key), byte(kind))
	low, high := prefix, after(prefix)
	switch {
	case from == "":
	case back:
		high = append(append(bytes.Clone(prefix), from...), 0)
	default:
		low = append(bytes.Clone(prefix), from...)
	}
	g.eachCell(key, kind, low, high, len(prefix)-1, back, fn)
}

// eachCell calls fn for the cells of a kind whose stored keys lie in [low, high),
// from the last to the first if back is set; the kind is a key's byte number at.
func (g *Group) eachCell(key crdt.Key, kind crdt.Kind, low, high []byte, at int, back bool, fn func(crdt.CellID, *crdt.Cell) bool) {
	was := g.cell
	defer func() { g.cell = was }()
	// What the group holds; more may be added on the way, but only of what is shown.
	var mine held
	ks := g.known(key)
	if ownAt(cellKey{kind: kind}) >= 0 || kind == crdt.KindAny {
		ks = g.loadHeader(key) // its row may carry some
	}
	if ks != nil {
		if kind != crdt.KindAny {
			g.takeIn(ks, kind, walkCells)
		}
		mine = ks.held(kind, low, high, at, back)
		defer mine.done()
	}
	show := func(ck cellKey) bool {
		cs := ks.cells.get(ck)
		if cs == nil {
			return true
		}
		c := g.open(cs)
		return c == nil || c.Empty() || fn(crdt.CellID{Key: key, Kind: ck.kind, Elem: ck.elem}, c)
	}
	rest := func() {
		for m, ok := mine.peek(); ok; m, ok = mine.peek() {
			if mine.next(); !show(m) {
				return
			}
		}
	}
	if ks != nil && ks.knows(kind) {
		rest()
		return
	}
	it, walk, err := g.iterate(key, low, high, back)
	if err != nil {
		g.fail(err)
		return
	}
	defer func() {
		if walk {
			g.header.walk = it
		} else {
			g.close(it)
		}
	}()
	first, next, compare := func() bool { return it.SeekGE(low) }, it.Next, cellKey.compare
	if walk && kind == crdt.KindAny && it.Valid() {
		if k := it.Key(); len(k) == at+1 && k[at] == byte(crdt.KindAny) && bytes.Equal(k[:at], low[:at]) {
			first = it.Next // it is at the header, which all cells follow
		}
	}
	if back {
		first, next = it.Last, it.Prev
		compare = func(a, b cellKey) int { return cellKey.compare(b, a) }
	}
	for ok := first(); ok; ok = next() {
		k := it.Key()
		if bytes.Compare(k, high) >= 0 {
			break
		}
		ck := cellKey{crdt.Kind(k[at]), string(k[at+1:])}
		for m, ok := mine.peek(); ok && compare(m, ck) < 0; m, ok = mine.peek() {
			if mine.next(); !show(m) {
				return
			}
		}
		if m, ok := mine.peek(); ok && m == ck {
			if mine.next(); !show(ck) {
				return
			}
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			g.fail(err)
			return
		}
		id := crdt.CellID{Key: key, Kind: ck.kind, Elem: ck.elem}
		c, err := crdt.DecodeCell(bytes.Clone(v))
		if err != nil {
			g.fail(fmt.Errorf("cell %v: %w", id, err))
			return
		}
		g.cell = shownCell{id, c, flagsOfCell(ck, c), true}
		if !fn(id, c) {
			return
		}
		g.cell.valid = false
	}
	rest()
}

// iterate returns an iterator for the rows of a key's cells in [low, high), which may go
// beyond. For the key that EachKey is showing it is that walk's own, which is to be given
// back: a new one costs more than the few cells most keys have.
func (g *Group) iterate(key crdt.Key, low, high []byte, back bool) (it *pebble.Iterator, walk bool, err error) {
	if it := g.header.walk; it != nil && g.header.valid && g.header.key == key && !back {
		g.header.walk = nil
		return it, true, nil
	}
	it, err = g.l.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	return it, false, err
}

// EachKey implements crdt.Store. Keys come in no particular order: first those whose rows are
// behind, which are in memory, then the rows of all others.
func (g *Group) EachKey(db uint8, fn func(crdt.Key, *crdt.Header) bool) {
	was := g.header
	defer func() { g.header = was }()
	g.header.valid = false
	behind := func(ks *keyState) bool { return ks.owes || ks.dirty }
	show := func(ks *keyState) bool {
		if ks.key.DB != db || !behind(ks) || g.l.cache.peek(ks.key) != ks { // it was dropped, for its rows tell
			return true
		}
		h := g.Header(ks.key)
		return h == nil || fn(ks.key, h)
	}
	mine := g.keys[:len(g.keys):len(g.keys)]
	for _, ks := range mine {
		if ks.dirty && !ks.owes && !show(ks) {
			return
		}
	}
	for b := range g.l.cache.owed.keys {
		for _, ks := range g.l.cache.owed.keys[b] {
			if !show(ks) {
				return
			}
		}
	}
	_, err := eachHeader(g.l.db, db, nil, func(k crdt.Key, it *pebble.Iterator) (bool, error) {
		shown := shownHeader{key: k, row: g.header.row[:0], walk: it, valid: true}
		var h *crdt.Header
		if ks := g.l.cache.peek(k); ks != nil && behind(ks) {
			return true, nil
		} else if ks != nil && ks.loaded { // nobody asks for the row
			if h = ks.header; h == nil || h.Empty() {
				return true, nil
			}
		} else {
			row, err := it.ValueAndErr()
			if err != nil {
				return false, err
			}
			if h, err = headerOf(row); err != nil {
				return false, fmt.Errorf("header of %v: %w", k, err)
			}
			shown.flags, shown.row = flagsOfHeader(h), append(shown.row, row...)
		}
		g.header = shown
		defer func() { g.header.valid = false }()
		return fn(k, h), nil
	})
	g.fail(err)
}

// KeysFrom implements crdt.Store. Where it goes on is the position of the next key, or of the
// bucket that is next.
func (g *Group) KeysFrom(db uint8, from []byte, most int) (keys []crdt.Key, next []byte) {
	done := -1 // the bucket up to which keys whose rows are behind are in
	if from != nil {
		if done = PosBucket(from); len(from) == len(BucketPos(0)) {
			done--
		}
	}
	take := func(bucket int) bool {
		for done < bucket {
			if len(keys) >= most {
				next = BucketPos(done + 1)
				return false
			}
			done++
			for _, ks := range g.l.cache.owed.keys[done] {
				if ks.key.DB == db {
					keys = append(keys, ks.key)
				}
			}
		}
		return true
	}
	more, err := eachHeader(g.l.db, db, from, func(k crdt.Key, _ *pebble.Iterator) (bool, error) {
		if !take(Bucket(k)) {
			return false, nil
		}
		if len(keys) >= most {
			next = Pos(k)
			return false, nil
		}
		keys = append(keys, k)
		return true, nil
	})
	g.fail(err)
	if more && err == nil {
		take(Buckets - 1)
	}
	return keys, next
}

// level brings the store level with what is committed, for what walks over many
// keys.
func (g *Group) level() {
	err := g.l.level()
	g.l.commit.Unlock()
	g.fail(err)
}

func comparePos(a, b crdt.Key) int { return bytes.Compare(Pos(a), Pos(b)) }

// eachHeader calls fn for the stored headers of a database, from a position on (nil: the first), until
// it returns false; it reports whether fn never did. The iterator is at the header's row, and
// fn may move it on to the end of the key's rows.
func eachHeader(r pebble.Reader, db uint8, from []byte, fn func(crdt.Key, *pebble.Iterator) (bool, error)) (more bool, err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: append([]byte{rangeCells}, from...), UpperBound: []byte{rangeCells + 1}})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	var prefix []byte
	for ok := it.First(); ok; {
		k := it.Key()
		id, pos, err := cutCell(k[1:])
		if err != nil {
			return false, err
		}
		prefix = append(append(prefix[:0], rangeCells), pos...)
		switch {
		case id.Key.DB < db: // on to the database within the slot
			ok = it.SeekGE([]byte{rangeCells, k[1], k[2], db})
			continue
		case id.Key.DB > db: // on to the next slot
			next := binary.BigEndian.Uint16(k[1:3]) + 1
			ok = it.SeekGE([]byte{rangeCells, byte(next >> 8), byte(next), db})
			continue
		case id.Kind == crdt.KindAny:
			if more, err := fn(id.Key, it); err != nil || !more {
				return false, err
			}
		}
		if ok = it.Valid(); ok && bytes.HasPrefix(it.Key(), prefix) {
			ok = nextKey(it, prefix)
		}
	}
	return true, nil
}

// nextKey moves past what is stored under the key with the given prefix: step
// by step for the few cells most keys have, else by a seek.
func nextKey(it *pebble.Iterator, prefix []byte) bool {
	for range 4 {
		if !it.Next() {
			return false
		}
		if !bytes.HasPrefix(it.Key(), prefix) {
			return true
		}
	}
	return it.SeekGE(after(prefix))
}

// EachKeyBetween calls fn for every key that has a header or a cell, from the
// position from (nil: the first) up to but without the position to (nil: to the
// end), in order of position, until it returns false. fn may change the key it
// was given and keys before it.
func (g *Group) EachKeyBetween(from, to []byte, fn func(crdt.Key) bool) error {
	g.level()
	var mine []crdt.Key
	for _, ks := range g.keys {
		if pos := Pos(ks.key); bytes.Compare(pos, from) >= 0 && (to == nil || bytes.Compare(pos, to) < 0) {
			mine = append(mine, ks.key)
		}
	}
	slices.SortFunc(mine, comparePos)
	more, err := eachKeyBetween(g.l.db, from, to, func(k crdt.Key, pos []byte) (bool, error) {
		for len(mine) > 0 && bytes.Compare(Pos(mine[0]), pos) < 0 {
			if g.holds(mine[0]) && !fn(mine[0]) {
				return false, nil
			}
			mine = mine[1:]
		}
		if len(mine) > 0 && mine[0] == k {
			mine = mine[1:]
		}
		return fn(k), nil
	})
	g.fail(err)
	if !more || err != nil {
		return err
	}
	for _, k := range mine {
		if g.holds(k) && !fn(k) {
			break
		}
	}
	return g.err
}

// holds reports whether the group holds anything under a key.
func (g *Group) holds(k crdt.Key) bool {
	ks := g.key(k)
	if ks.header != nil && !ks.header.Empty() {
		return true
	}
	for _, cs := range ks.cells.list {
		if cs.flags().exists {
			return true
		}
	}
	return false
}

func eachKeyBetween(r pebble.Reader, from, to []byte, fn func(k crdt.Key, pos []byte) (bool, error)) (more bool, err error) {
	high := []byte{rangeCells + 1}
	if to != nil {
		high = append([]byte{rangeCells}, to...)
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: append([]byte{rangeCells}, from...), UpperBound: high})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	for ok := it.First(); ok; {
		k, pos, _, err := cutPos(bytes.Clone(it.Key()[1:]))
		if err != nil {
			return false, err
		}
		if more, err := fn(k, pos); err != nil || !more {
			return false, err
		}
		ok = nextKey(it, append([]byte{rangeCells}, pos...))
	}
	return true, nil
}
