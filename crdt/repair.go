package crdt

// Replace puts a state in place of all that is held of a key, and counts its
// header anew: what was there is not trusted. It is no write: the caller knows
// that what it puts is what the replica would hold at its vector.
func (ks *Keyspace) Replace(key Key, pending []KeyPending, cells map[CellID]*Cell) {
	h := ks.header(key)
	ks.touch(key, h).Whole = true
	if !h.Swept {
		ks.Store.AddDigest(key, -h.Digest)
	}
	now := &Header{Pending: pending}
	var gone []CellID
	ks.Store.EachCell(key, KindAny, func(id CellID, _ *Cell) bool {
		if cells[id] == nil {
			gone = append(gone, id)
		}
		return true
	})
	for _, id := range gone {
		ks.Store.SetCell(id, &Cell{})
	}
	for id, c := range cells {
		c.Hidden = false // the next sweep hides what has expired
		now.count(id.Kind, c, +1)
		now.Digest += c.Digest(id)
		if id.Kind == KindExpiry && id.Elem == "" {
			now.Expiry = c.Expiry()
		}
		ks.Store.SetCell(id, c)
	}
	now.Type = ks.visible(key, now)
	ks.Store.AddDigest(key, now.Digest)
	ks.Store.SetHeader(key, now)
}
