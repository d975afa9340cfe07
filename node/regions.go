package node

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"sort"

	"github.com/replicatord/replicatord/crdt"
)

// regions tells which parts of the keyspace, in slot order, state syncs have
// brought ahead of the replica's own vector. Entries that a part has already
// are skipped for its keys, and removes made here cover what its keys have.
// Once a sync has covered the whole keyspace, the replica's vector rises to
// what all parts share; the regions end when it has caught up with each.
type regions struct {
	// parts are adjacent and end with the one whose upto is empty, the end of
	// the keyspace; none at all means that no part is ahead.
	parts []region
	// active says that a sync is under way; cursor is where it goes on.
	active bool
	cursor []byte
}

type region struct {
	upto    []byte                // position behind the part; empty: the end
	vector  crdt.Vector           // what the part has beside the replica's vector
	pending map[uint8]crdt.Vector // what databases hold pending for the part's keys
}

func (p *region) equal(o *region) bool {
	return p.vector.Equal(o.vector) && maps.EqualFunc(p.pending, o.pending, crdt.Vector.Equal)
}

// join adds what another replica has to the part.
func (p *region) join(v crdt.Vector, pending map[uint8]crdt.Vector) {
	p.vector = p.vector.Join(v)
	p.pending = maps.Clone(p.pending)
	for db, w := range pending {
		if p.pending == nil {
			p.pending = map[uint8]crdt.Vector{}
		}
		p.pending[db] = p.pending[db].Join(w)
	}
}

// at returns the part of a position.
func (r *regions) at(pos []byte) *region {
	if len(r.parts) == 0 {
		return &region{}
	}
	i := sort.Search(len(r.parts)-1, func(i int) bool { return bytes.Compare(pos, r.parts[i].upto) < 0 })
	return &r.parts[i]
}

// between returns what the parts that have positions in [from, upto), upto empty
// being the end, have beside the replica's vector, any of them, and whether any
// holds something pending for databases.
func (r *regions) between(from, upto []byte) (v crdt.Vector, pending bool) {
	var begin []byte
	for i := range r.parts {
		p := &r.parts[i]
		if (len(upto) == 0 || bytes.Compare(begin, upto) < 0) && (len(p.upto) == 0 || bytes.Compare(from, p.upto) < 0) {
			v, pending = v.Join(p.vector), pending || len(p.pending) > 0
		}
		begin = p.upto
	}
	return v, pending
}

// raise records that the positions from from (empty: the start) up to upto
// (empty: the end) have v, and pending for their databases.
func (r *regions) raise(from, upto []byte, v crdt.Vector, pending map[uint8]crdt.Vector) {
	r.parts = slices.Clone(r.parts) // a step that fails leaves the old ones
	if len(r.parts) == 0 {
		r.parts = []region{{}}
	}
	first := 0
	if len(from) > 0 {
		first = r.split(from)
	}
	last := len(r.parts)
	if len(upto) > 0 {
		last = r.split(upto)
	}
	for i := first; i < last; i++ {
		r.parts[i].join(v, pending)
	}
	out := r.parts[:0:0]
	for _, p := range r.parts {
		if n := len(out); n > 0 && out[n-1].equal(&p) {
			out[n-1].upto = p.upto
		} else {
			out = append(out, p)
		}
	}
	r.parts = out
}

// split makes pos a boundary and returns the index of the part behind it.
func (r *regions) split(pos []byte) int {
	for i, p := range r.parts {
		if bytes.Equal(p.upto, pos) {
			return i + 1
		}
		if len(p.upto) == 0 || bytes.Compare(pos, p.upto) < 0 {
			r.parts = slices.Insert(r.parts, i, region{upto: bytes.Clone(pos), vector: p.vector, pending: p.pending})
			return i + 1
		}
	}
	return len(r.parts)
}

// shared returns what the replica's vector rises to when the whole keyspace
// has been covered: what every part has.
func (r *regions) shared(have crdt.Vector) crdt.Vector {
	var out crdt.Vector
	for i, p := range r.parts {
		v := have.Join(p.vector)
		if i == 0 {
			out = v
			continue
		}
		out = meet(out, v)
	}
	return out
}

// meet returns what both vectors cover.
func meet(a, b crdt.Vector) crdt.Vector {
	var out crdt.Vector
	for _, p := range a {
		if t := min(p.Tag, b.Get(p.Stream)); t > 0 {
			out = append(out, crdt.Position{Stream: p.Stream, Tag: t})
		}
	}
	return out
}

// settle forgets the parts if the vector has caught up with all of them, and
// returns what they held pending for databases, which from then on holds for
// the whole keyspace. A sync that was under way is over then: there is nothing
// left that it could bring, and whoever sent it may never come back.
func (r *regions) settle(have crdt.Vector) (pending map[uint8]crdt.Vector, ok bool) {
	if len(r.parts) == 0 {
		return nil, false
	}
	for _, p := range r.parts {
		if !p.vector.In(have) {
			return nil, false
		}
	}
	pending = map[uint8]crdt.Vector{}
	for _, p := range r.parts {
		for db, v := range p.pending {
			pending[db] = pending[db].Join(v)
		}
	}
	*r = regions{}
	return pending, true
}

func (r *regions) encode() []byte {
	if len(r.parts) == 0 && !r.active {
		return nil
	}
	b := []byte{0}
	if r.active {
		b[0] = 1
	}
	b = appendBytes(b, r.cursor)
	for _, p := range r.parts {
		b = appendBytes(b, p.upto)
		b = appendBytes(b, p.vector.AppendBinary(nil))
		b = binary.AppendUvarint(b, uint64(len(p.pending)))
		for _, db := range slices.Sorted(maps.Keys(p.pending)) {
			b = appendBytes(append(b, db), p.pending[db].AppendBinary(nil))
		}
	}
	return b
}

func appendBytes(b, p []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

func decodeRegions(b []byte) (regions, error) {
	var out regions
	if len(b) == 0 {
		return out, nil
	}
	r := crdt.NewReader(b)
	out.active, out.cursor = r.Byte() == 1, r.Bytes()
	for r.More() {
		p := region{upto: r.Bytes(), vector: crdt.Sized(r, crdt.DecodeVector)}
		for n := r.Uvarint(); n > 0 && r.OK(); n-- {
			db := r.Byte()
			p.join(nil, map[uint8]crdt.Vector{db: crdt.Sized(r, crdt.DecodeVector)})
		}
		out.parts = append(out.parts, p)
	}
	if n := len(out.parts); n == 0 || len(out.parts[n-1].upto) != 0 {
		r.Fail()
	}
	return out, r.End("sync's regions")
}
