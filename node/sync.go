package node

import (
	"bytes"
	"fmt"

	"github.com/replicatord/replicatord/crdt"
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
}

// SyncKey is the state of one key at the sender.
type SyncKey struct {
	Key     crdt.Key
	Pending []crdt.KeyPending
	Cells   []SyncCell // by kind and element
}

// SyncCell is the state of one cell at the sender.
type SyncCell struct {
	Kind crdt.Kind
	Elem string
	Cell *crdt.Cell
}

// Syncing reports whether a state sync is under way, and the position from
// which it goes on.
func (c *Core) Syncing() (cursor []byte, active bool) { return c.regions.cursor, c.regions.active }

// MergeState merges keys of another replica's snapshot: all it has from the
// position from (empty: the start) up to the position upto (empty: the end),
// in order. What this replica has between them and the other lacks goes, if
// the other has seen it. done is called once the step is committed or has
// failed.
//
// A sync is a series of such steps, each beginning where the one before
// ended; after a cut it goes on with a later snapshot, even of another
// replica. If the log has caught up with it meanwhile, what was merged so far
// holds at the vector.
func (c *Core) MergeState(s *SyncState, from, upto []byte, keys []SyncKey, done func(error)) {
	err := c.mergeState(s, from, upto, keys)
	if err == nil {
		err = c.Commit()
	} else {
		err = c.abort(err)
	}
	done(err)
}

func (c *Core) mergeState(s *SyncState, from, upto []byte, keys []SyncKey) error {
	if err := c.Commit(); err != nil {
		return err
	}
	if len(from) > 0 && !c.regions.active && s.Vector.In(c.log.Vector()) {
		return nil // the log has overtaken the sync, as far as here
	}
	if len(from) > 0 && c.regions.active && !bytes.Equal(from, c.regions.cursor) {
		return fmt.Errorf("state sync out of step: it goes on at %x, not %x", c.regions.cursor, from)
	}
	own := c.log.Identity().Origin
	var newest crdt.Tag
	for _, p := range s.Vector {
		if newest = max(newest, p.Tag); p.Stream.Origin() == own && p.Tag > c.log.Vector().Get(p.Stream) {
			return fmt.Errorf("%w: stream %v", ErrRolledBack, p.Stream)
		}
	}
	if err := c.clock.Witness(newest, c.wall()); err != nil {
		return err
	}
	c.begin()
	for i := range keys {
		for _, x := range keys[i].Cells {
			if c.ks.AstrayState(crdt.CellID{Key: keys[i].Key, Kind: x.Kind, Elem: x.Elem}, x.Cell) {
				return ErrAstray
			}
		}
	}
	c.newGeneration()
	i := 0
	err := c.group.EachKeyBetween(from, upto, func(k crdt.Key) bool {
		pos := c.log.Pos(k)
		for i < len(keys) && bytes.Compare(c.log.Pos(keys[i].Key), pos) < 0 {
			c.mergeKey(s, &keys[i])
			i++
		}
		if i < len(keys) && keys[i].Key == k {
			c.mergeKey(s, &keys[i])
			i++
			return true
		}
		c.mergeKey(s, &SyncKey{Key: k}) // the other has nothing here
		return true
	})
	for ; i < len(keys); i++ {
		c.mergeKey(s, &keys[i])
	}
	if err != nil {
		return err
	}
	return c.advance(s, from, upto)
}

func (c *Core) mergeKey(s *SyncState, k *SyncKey) {
	c.Stats.SyncedKeys++
	outer := func(kind crdt.Kind) crdt.Vector { return crdt.Outer(s.Pending[k.Key.DB], k.Pending, kind) }
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
	for _, x := range k.Cells {
		c.Stats.SyncedCells++
		c.ks.Merge(crdt.CellID{Key: k.Key, Kind: x.Kind, Elem: x.Elem}, x.Cell, s.Vector, outer(x.Kind))
	}
	c.ks.MergePending(k.Key, k.Pending, s.Vector)
}

// advance records that a step is done, and ends the sync with the last one.
func (c *Core) advance(s *SyncState, from, upto []byte) error {
	next := c.regions
	next.raise(from, upto, s.Vector, s.Pending)
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
	c.group.SetMeta(regionsMeta, next.encode())
	c.regions = next
	return nil // Commit settles them
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
