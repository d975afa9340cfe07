package node

import (
	"bytes"
	"fmt"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

const regionsMeta = "sync/regions"

// haveOf returns the vector that holds for a key.
func (c *Core) haveOf(k crdt.Key) crdt.Vector {
	return c.ks.Have.Join(c.regions.at(c.log.Pos(k)).vector)
}

// pendingOf returns what the replicas a key was synced with held pending for
// its database.
func (c *Core) pendingOf(k crdt.Key) crdt.Vector { return c.regions.at(c.log.Pos(k)).pending[k.DB] }

// SyncState is what a sender's snapshot says beside its keys.
type SyncState struct {
	Vector  crdt.Vector
	Known   map[crdt.Stream]crdt.Vector // contexts of the streams at Vector
	Pending map[uint8]crdt.Vector       // contexts pending for whole databases
	// ByBucket says that the sender can be asked for ranges of what it has left out.
	ByBucket bool
}

// SyncKey is the state of one key at the sender.
type SyncKey struct {
	Key     crdt.Key
	Pending []crdt.KeyPending
	Cells   []SyncCell // by kind and element

	new   bool          // nothing of it is here
	ahead *oplog.Stored // what was read of it, nil if it was not
}

// SyncCell is the state of one cell at the sender.
type SyncCell struct {
	Kind crdt.Kind
	Elem string
	Cell *crdt.Cell
	data []byte // encoded
}

// Syncing reports whether a state sync is under way, and the position from
// which it goes on.
func (c *Core) Syncing() (cursor []byte, active bool) { return c.regions.cursor, c.regions.active }

// Since returns the position from which the next state sync goes on, and what
// is here already: a sync need only bring what differs.
func (c *Core) Since() (cursor []byte, since *wan.SyncSince, err error) {
	snap, err := c.log.Snapshot()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = snap.Close() }()
	since = &wan.SyncSince{Have: snap.Vector}
	since.Digests, err = snap.FullDigests(0, oplog.Buckets)
	return c.regions.cursor, since, err
}

// MergeState merges a step of another replica's state: all it has from one
// position up to another, in order. What this replica has between them and the
// other lacks goes, if the other has seen it. done is called once the step is
// committed or has failed. If something must be asked of the other first, that
// is returned, only a part of the step may be committed, and the step is to be
// merged again when all was answered.
//
// A sync is a series of such steps, each beginning where the one before
// ended; after a cut it goes on with a later snapshot, even of another
// replica. If the log has caught up with it meanwhile, what was merged so far
// holds at the vector.
func (c *Core) MergeState(s *SyncState, w *SyncWindow, done func(error)) (ask []wan.SyncPart) {
	was := c.regions
	c.merged = nil
	ask, err := c.mergeState(s, w)
	if err == nil {
		err = c.Commit()
	} else {
		err = c.abort(err)
	}
	if err != nil {
		c.regions = was
	} else {
		for _, r := range c.merged {
			r.done, r.known, r.states = true, nil, nil
		}
		if len(ask) > 0 {
			return ask
		}
	}
	done(err)
	return nil
}

var errOutOfOrder = fmt.Errorf("%w: parts of a state sync are out of order", crdt.ErrCorrupt)

func (c *Core) mergeState(s *SyncState, w *SyncWindow) (ask []wan.SyncPart, err error) {
	if err := c.Commit(); err != nil {
		return nil, err
	}
	if w.repair {
		c.begin()
		ask, err := c.repairRanges(s, w)
		if len(w.repaired) > 0 {
			c.newGeneration()
		}
		return ask, err
	}
	if len(w.from) > 0 && !c.regions.active && s.Vector.In(c.log.Vector()) {
		return nil, nil // the log has overtaken the sync, as far as here
	}
	if len(w.from) > 0 && c.regions.active && !bytes.Equal(w.from, c.regions.cursor) {
		return nil, fmt.Errorf("state sync out of step: it goes on at %x, not %x", c.regions.cursor, w.from)
	}
	own := c.log.Identity().Origin
	var newest crdt.Tag
	for _, p := range s.Vector {
		if newest = max(newest, p.Tag); p.Stream.Origin() == own && p.Tag > c.log.Vector().Get(p.Stream) {
			return nil, fmt.Errorf("%w: stream %v", ErrRolledBack, p.Stream)
		}
	}
	if err := c.clock.Witness(newest, c.wall()); err != nil {
		return nil, err
	}
	c.begin()
	c.newGeneration()
	if w.fill != nil {
		if done, err := c.fillIn(s, w); err != nil {
			return nil, err
		} else if done {
			next := c.regions
			next.raise(w.from, w.upto, s.Vector, s.Pending)
			return nil, c.advance(s, next, w.upto)
		}
		w.closeFill()
	}
	if len(w.ranges) > 0 {
		return c.mergeRanges(s, w)
	}
	keys := w.keys
	i := 0
	var failed error
	merge := func(k SyncKey) {
		if failed == nil {
			failed = c.mergeKeys(s, []SyncKey{k}, nil)
		}
	}
	err = c.group.EachKeyBetween(w.from, w.upto, func(k crdt.Key) bool {
		pos := c.log.Pos(k)
		for i < len(keys) && bytes.Compare(c.log.Pos(keys[i].Key), pos) < 0 {
			merge(keys[i])
			i++
		}
		if i < len(keys) && keys[i].Key == k {
			merge(keys[i])
			i++
			return failed == nil
		}
		merge(SyncKey{Key: k}) // the other has nothing here
		return failed == nil
	})
	for ; i < len(keys); i++ {
		merge(keys[i])
	}
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	next := c.regions
	next.raise(w.from, w.upto, s.Vector, s.Pending)
	return nil, c.advance(s, next, w.upto)
}

// mergeKeys merges keys of another replica. here tells, if it is not nil, of
// which of them anything is stored here.
func (c *Core) mergeKeys(s *SyncState, keys []SyncKey, here []bool) error {
	for i := range keys {
		keys[i].detach()
		if here != nil && !here[i] {
			c.group.Absent(keys[i].Key)
			keys[i].new = true
		}
		for _, x := range keys[i].Cells {
			if len(x.Cell.Counts) > 0 && c.ks.AstrayState(crdt.CellID{Key: keys[i].Key, Kind: x.Kind, Elem: x.Elem}, x.Cell) {
				return ErrAstray
			}
		}
		c.mergeKey(s, &keys[i])
	}
	return nil
}

// detach gives the cells memory of their own: what is merged is kept, and the
// message it came in is not.
func (k *SyncKey) detach() {
	for i := range k.Cells {
		x := &k.Cells[i]
		if c, err := crdt.DecodeCell(bytes.Clone(x.data)); err == nil { // as when it came
			x.Cell = c
		}
	}
}

func (c *Core) mergeKey(s *SyncState, k *SyncKey) {
	c.Stats.SyncedKeys++
	outer := func(kind crdt.Kind) crdt.Vector { return crdt.Outer(s.Pending[k.Key.DB], k.Pending, kind) }
	if !k.new && !c.allSent(k) {
		c.mergeMissing(s, k, outer)
	}
	for _, x := range k.Cells {
		c.Stats.SyncedCells++
		c.ks.Merge(crdt.CellID{Key: k.Key, Kind: x.Kind, Elem: x.Elem}, x.Cell, s.Vector, outer(x.Kind))
	}
	c.ks.MergePending(k.Key, k.Pending, s.Vector)
}

// allSent reports whether it is sure that the other has all cells that are here
// of a key. To iterate over a few cells costs more than to look them up.
func (c *Core) allSent(k *SyncKey) bool {
	h := c.group.Header(k.Key)
	if h == nil {
		return false
	}
	n := int(h.Rest)
	for _, live := range h.Live {
		n += int(live)
	}
	if n > len(k.Cells) {
		return false
	}
	for _, x := range k.Cells {
		if c.group.Cell(crdt.CellID{Key: k.Key, Kind: x.Kind, Elem: x.Elem}) != nil {
			n--
		}
	}
	return n == 0
}

// mergeMissing merges the cells of a key that are here and that the other
// lacks.
func (c *Core) mergeMissing(s *SyncState, k *SyncKey, outer func(crdt.Kind) crdt.Vector) {
	theirs := make(map[crdt.CellID]bool, len(k.Cells))
	for _, x := range k.Cells {
		theirs[crdt.CellID{Key: k.Key, Kind: x.Kind, Elem: x.Elem}] = true
	}
	var missing []crdt.CellID
	c.group.EachCell(k.Key, crdt.KindAny, func(id crdt.CellID, _ *crdt.Cell) bool {
		if !theirs[id] {
			missing = append(missing, id)
		}
		return true
	})
	for _, id := range missing {
		c.ks.Merge(id, &crdt.Cell{}, s.Vector, outer(id.Kind))
	}
}

// advance records that a step is done, and ends the sync with the last one.
func (c *Core) advance(s *SyncState, next regions, upto []byte) error {
	next.active, next.cursor = len(upto) > 0, upto
	if !next.active {
		for _, p := range next.shared(c.group.Vector()) {
			if p.Tag <= c.group.Vector().Get(p.Stream) {
				continue
			}
			var known crdt.Vector
			if p.Tag == s.Vector.Get(p.Stream) {
				known = s.Known[p.Stream] // of just this position
			}
			if err := c.group.Jump(p.Stream, p.Tag, known); err != nil {
				return err
			}
		}
	}
	c.setRegions(next)
	return nil // Commit settles them
}

func (c *Core) setRegions(r regions) {
	c.group.SetMeta(regionsMeta, r.encode())
	if c.regions = r; len(r.parts) > 0 {
		c.log.SetAhead(true)
	}
}

// settleRegions ends the regions if the open group's vector has caught up with
// them.
func (c *Core) settleRegions() {
	pending, ok := c.regions.settle(c.group.Vector())
	if !ok {
		return
	}
	c.ks.Have = c.group.Vector()
	for db, v := range pending {
		c.ks.MergeDBPending(db, v)
	}
	c.group.SetMeta(regionsMeta, c.regions.encode())
}
