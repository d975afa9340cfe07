package node

import (
	"strconv"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

// repairRanges replaces, in the open group, what differs from another replica at
// the same vector by what that has, and returns what must be asked first. If
// the two are at the same vector no longer, it does nothing and says so
// (w.moved): a difference could then be a write.
func (c *Core) repairRanges(s *SyncState, w *SyncWindow) (ask []wan.SyncPart, err error) {
	if w.moved = !s.Vector.Equal(c.log.Vector()) || len(c.regions.parts) > 0; w.moved {
		return nil, nil
	}
	snap, err := c.log.Snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { _ = snap.Close() }()
	told := c.ks.OnConflict
	c.ks.OnConflict = nil // these are no writes that met
	defer func() { c.ks.OnConflict = told }()
	var merged []*syncRange
	for i := range w.ranges {
		r := &w.ranges[i]
		if r.done {
			continue
		}
		differ, own, err := r.compare(snap)
		if err != nil {
			return nil, err
		}
		if len(own) > 0 || r.rounds == 0 && differ == nil && r.missing(snap) {
			ask = append(ask, w.question(r, own)...)
			continue
		}
		here := map[crdt.Key]bool{}
		for _, k := range differ {
			here[k.Key] = true
			w.replace(c, &k)
		}
		if r.here == nil {
			r.here = make([]bool, len(r.sent))
		}
		if r.known != nil { // it was asked: what was told beside is not here
			err := r.each(snap, func(pos []byte, _ uint64) {
				if k, err := oplog.KeyAt(pos); err == nil {
					here[k] = true
				}
			})
			if err != nil {
				return nil, err
			}
			for _, k := range r.states {
				if !here[k.Key] {
					w.replace(c, k)
				}
			}
		}
		for i := range r.sent {
			if k := &r.sent[i]; !sameLive(snap, r.sentPos[i], k) {
				w.replace(c, k)
			}
		}
		merged = append(merged, r)
	}
	c.merged = merged
	return ask, nil
}

// missing reports whether keys are left out of a range and none are here.
func (r *syncRange) missing(snap *oplog.Snapshot) bool {
	none := true
	r.here = make([]bool, len(r.sent))
	err := r.each(snap, func([]byte, uint64) { none = false })
	return err == nil && none && r.keys > 0 && r.digest != 0
}

// sameLive reports whether the live cells of a key at a position are those of a
// state.
func sameLive(snap *oplog.Snapshot, pos []byte, k *SyncKey) bool {
	var sum uint64
	for _, x := range k.Cells {
		sum += x.Cell.Digest(crdt.CellID{Key: k.Key, Kind: x.Kind, Elem: x.Elem})
	}
	err := snap.EachActual(pos, append(append([]byte(nil), pos...), 0xff), func(_ []byte, d uint64) bool { sum -= d; return true })
	return err == nil && sum == 0
}

func (w *SyncWindow) replace(c *Core, k *SyncKey) {
	cells := make(map[crdt.CellID]*crdt.Cell, len(k.Cells))
	for _, x := range k.Cells {
		cells[crdt.CellID{Key: k.Key, Kind: x.Kind, Elem: x.Elem}] = x.Cell
	}
	c.ks.Replace(k.Key, k.Pending, cells)
	w.repaired = append(w.repaired, k.Key)
}

// Recount brings the headers and the digest of a bucket level with its cells.
func (c *Core) Recount(bucket int) error {
	if err := c.Commit(); err != nil {
		return err
	}
	snap, err := c.log.Snapshot()
	if err != nil {
		return err
	}
	defer func() { _ = snap.Close() }()
	c.begin()
	var kept uint64
	heads := map[string]uint64{}
	from, to := oplog.BucketPos(bucket), oplog.BucketPos(bucket+1)
	if err := snap.EachDigest(from, to, func(pos []byte, d uint64) bool { heads[string(pos)] = d; kept += d; return true }); err != nil {
		return c.abort(err)
	}
	full, err := snap.FullDigests(bucket, bucket+1)
	if err != nil {
		return c.abort(err)
	}
	err = snap.EachActual(from, to, func(pos []byte, d uint64) bool {
		if heads[string(pos)] == d {
			return true
		}
		k, err := oplog.KeyAt(pos)
		if err != nil {
			return true
		}
		own := map[crdt.CellID]*crdt.Cell{}
		c.group.EachCell(k, crdt.KindAny, func(id crdt.CellID, x *crdt.Cell) bool { own[id] = x; return true })
		var pending []crdt.KeyPending
		if h := c.group.Header(k); h != nil {
			pending = h.Pending
		}
		c.ks.Replace(k, pending, own)
		return true
	})
	if err != nil {
		return c.abort(err)
	}
	// What the headers' sum is off by in the bucket's digest.
	for i := 0; kept != full[0]; i++ {
		if k := (crdt.Key{Name: strconv.Itoa(i)}); oplog.Bucket(k) == bucket {
			c.group.AddDigest(k, kept-full[0])
			break
		}
	}
	c.newGeneration()
	return c.Commit()
}
