package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/resp/command"
	"github.com/replicatord/replicatord/wan"
)

// wanSnapshot shows a snapshot to a data link.
type wanSnapshot struct {
	s       *oplog.Snapshot
	regions regions        // as they were at the snapshot
	since   *wan.SyncSince // what the asker has; nil if it wants all
	digests []uint64       // of the buckets, if the asker sent its own
	sizes   SyncSizes
	last    []byte // the last position that a range took in

	// Buckets that differ are told of by their digests too, if byBucket. What is
	// not within the asker's vector is among the keys that have changed.
	byBucket bool
	changed  [][]byte     // positions
	sent     map[int]int  // keys sent of such a bucket
	large    map[int]bool // buckets that have to go key by key all the same
}

func newWanSnapshot(s *oplog.Snapshot, since *wan.SyncSince, sizes SyncSizes) (*wanSnapshot, error) {
	w := &wanSnapshot{s: s, since: since, sizes: sizes}
	b, err := s.Meta(regionsMeta)
	if err != nil {
		return nil, err
	}
	if w.regions, err = decodeRegions(b); err != nil {
		return nil, err
	}
	if since != nil && len(since.Digests) == oplog.Buckets {
		w.digests, err = s.FullDigests(0, oplog.Buckets)
		if since.ByBucket {
			w.changed, w.byBucket = s.ChangedSince(since.Have)
			w.sent, w.large = map[int]int{}, map[int]bool{}
		}
	}
	return w, err
}

func (w *wanSnapshot) Begin(cursor []byte) wan.SyncBegin {
	part := w.regions.at(cursor)
	b := wan.SyncBegin{Vector: w.s.Vector.Join(part.vector)}
	for _, p := range w.s.Vector {
		if b.Vector.Get(p.Stream) == p.Tag { // else it is of another position
			b.Known = append(b.Known, wan.SyncKnown{Stream: p.Stream, Context: w.s.Known[p.Stream]})
		}
	}
	for db := range userDBs {
		if v := w.s.Pending[uint8(db)].Join(part.pending[uint8(db)]); len(v) > 0 {
			b.DBPending = append(b.DBPending, wan.SyncDBPending{DB: uint8(db), Context: v})
		}
	}
	return b
}

var errFull, errLarge = errors.New("full"), errors.New("a bucket does not fit")

// SyncSizes bound what a state by difference tells of what it leaves out.
type SyncSizes struct {
	RangeKeys uint64 // keys in a range with a digest of its own
	Ranges    int    // in a step
}

var defaultSyncSizes = SyncSizes{RangeKeys: 128, Ranges: 64}

// uncounted is what a range of whole buckets says of its keys: they were not
// looked at.
const uncounted = 1 << 32

// Next returns the keys after a cursor. A cursor is the position of the first
// key that is still to come; a key is never divided.
func (w *wanSnapshot) Next(cursor []byte, maxBytes int) (out wan.SyncKeys, part bool, err error) {
	var end []byte // of the part; nil for that of the keyspace
	if p := w.regions.at(cursor); len(p.upto) > 0 {
		end = p.upto
	}
	if w.since == nil {
		err = w.all(cursor, end, maxBytes, &out)
	} else {
		err = w.differing(cursor, end, maxBytes, &out)
	}
	switch {
	case errors.Is(err, errFull):
		err = nil
	case err == nil && end != nil:
		out.Cursor, part = end, true
	case err == nil:
		out.Last = true
	}
	return out, part, err
}

// all adds every key, until maxBytes are reached: then the cursor is set, and
// errFull returned.
func (w *wanSnapshot) all(cursor, end []byte, maxBytes int, out *wan.SyncKeys) error {
	size := 0
	return w.s.EachState(cursor, end, nil, func(st *oplog.State) error {
		if size >= maxBytes {
			out.Cursor = bytes.Clone(st.Pos)
			return errFull
		}
		size += len(st.Data)
		out.States = append(out.States, bytes.Clone(st.Data))
		return nil
	})
}

// differing adds the keys that the asker may not have as they are here, and
// digests of the others. A key is left out if nothing is in it but live values
// and increments, each of which the asker's vector covers. Of such a key the
// asker lacks nothing: what it does not have of it, it has seen removed. It
// may have too much: that shows in the digests.
func (w *wanSnapshot) differing(cursor, end []byte, maxBytes int, out *wan.SyncKeys) error {
	size := 0
	at, begun := cursor, cursor // begun: where the open range does
	var open wan.SyncRange
	closeAt := func(pos []byte) {
		if len(pos) > 0 && bytes.Equal(pos, begun) {
			return
		}
		begun = bytes.Clone(pos)
		open.Upto = begun
		out.Ranges = append(out.Ranges, open)
		open = wan.SyncRange{}
	}
	full := func() bool { return size >= maxBytes || len(out.Ranges) >= w.sizes.Ranges }
	for {
		whole := w.equalUpto(at, end)
		equal := whole != nil
		if !equal {
			whole = w.changedUpto(at, end)
		}
		if whole != nil {
			if len(at) > 0 {
				closeAt(at)
			}
			if full() {
				out.Cursor = bytes.Clone(at)
				return errFull
			}
			var err error
			if equal {
				err = w.buckets(at, whole, out, &size, &open, closeAt)
			} else {
				whole, err = w.someOf(at, whole, maxBytes, out, &size, &open, closeAt, full)
			}
			if err != nil {
				return err
			}
			if at = whole; len(at) == 0 || len(end) > 0 && bytes.Equal(at, end) {
				return nil
			}
			continue
		}
		stop, bucket := w.nextBucket(at, end), oplog.PosBucket(at)
		err := w.s.EachState(at, stop, w.since.Have, func(st *oplog.State) error {
			if b := oplog.PosBucket(st.Pos); b != bucket {
				// No range lies in two, and the step better ends here than in the
				// middle of one: so the asker need not look at each key.
				bucket = b
				if closeAt(oplog.BucketPos(b)); full() || len(out.Ranges) >= w.sizes.Ranges*3/4 {
					out.Cursor = oplog.BucketPos(b)
					return errFull
				}
			}
			switch {
			case full():
				closeAt(st.Pos)
				out.Cursor = bytes.Clone(st.Pos)
				return errFull
			case !st.Plain:
				size += len(st.Data)
				out.States = append(out.States, bytes.Clone(st.Data))
				return nil
			case open.Keys >= w.sizes.RangeKeys:
				closeAt(shortest(w.last, st.Pos))
			}
			w.last = append(w.last[:0], st.Pos...)
			open.Keys++
			open.Digest += st.Digest
			return nil
		})
		if err != nil {
			return err
		}
		if at = stop; len(at) == 0 || len(end) > 0 && bytes.Equal(at, end) {
			closeAt(end)
			return nil
		}
	}
}

// shortest returns a position after a and not after b: the slot of b, if a is
// in another.
func shortest(a, b []byte) []byte {
	if len(a) >= 2 && !bytes.Equal(a[:2], b[:2]) {
		return b[:2]
	}
	return b
}

// equalUpto returns the end of the buckets from a position on that the asker
// said to have as they are here; nil if there is none, not nil and empty if
// they go to the end of the keyspace.
func (w *wanSnapshot) equalUpto(at, end []byte) []byte {
	b, ok := 0, true
	if len(at) > 0 {
		b, ok = oplog.BucketAt(at)
	}
	if !ok || len(w.digests) == 0 || !w.equal(b, end) {
		return nil
	}
	for b < oplog.Buckets && w.equal(b, end) {
		b++
	}
	if pos := oplog.BucketPos(b); pos != nil {
		return pos
	}
	return []byte{}
}

// equal reports whether a bucket, which ends at or before end, is the asker's.
func (w *wanSnapshot) equal(b int, end []byte) bool {
	upto := oplog.BucketPos(b + 1)
	if len(end) > 0 && (upto == nil || bytes.Compare(upto, end) > 0) {
		return false
	}
	return w.digests[b] == w.since.Digests[b]
}

// inEqual reports whether a key lies in a bucket that the asker said to have as
// it is here. Of such a bucket everything was left out but what has remnants;
// also what is beyond the asker's vector, for it came by an earlier sync.
func (w *wanSnapshot) inEqual(pos []byte) bool {
	b := oplog.PosBucket(pos)
	return len(w.digests) > 0 && w.digests[b] == w.since.Digests[b]
}

// nextBucket returns where the next bucket after a position begins that need not
// be looked at key by key, or end.
func (w *wanSnapshot) nextBucket(at, end []byte) []byte {
	if len(w.digests) == 0 {
		return end
	}
	for b := oplog.PosBucket(at) + 1; b < oplog.Buckets; b++ {
		if pos := oplog.BucketPos(b); w.equal(b, end) || w.byBucket && w.within(b, end) {
			return pos
		}
	}
	return end
}

// within reports whether a bucket ends at or before end.
func (w *wanSnapshot) within(b int, end []byte) bool {
	upto := oplog.BucketPos(b + 1)
	return len(end) == 0 || upto != nil && bytes.Compare(upto, end) <= 0
}

// changedUpto returns the end of some buckets from a position on that differ from
// the asker's, if they can be told of by bucket; nil if there is none, not nil and
// empty if they go to the end of the keyspace.
func (w *wanSnapshot) changedUpto(at, end []byte) []byte {
	b, ok := 0, true
	if len(at) > 0 {
		b, ok = oplog.BucketAt(at)
	}
	if !ok || !w.byBucket || w.large[b] || !w.within(b, end) {
		return nil
	}
	for n := 0; n < w.sizes.Ranges && b < oplog.Buckets && w.within(b, end) && !w.equal(b, end) && !w.large[b]; n++ {
		b++
	}
	if pos := oplog.BucketPos(b); pos != nil {
		return pos
	}
	return []byte{}
}

// someOf adds of whole buckets the keys that are not plain, and tells of the
// others by the digests of the buckets. It returns how far it came: a bucket of
// which more is to be sent than fits has to go key by key.
func (w *wanSnapshot) someOf(from, upto []byte, maxBytes int, out *wan.SyncKeys, size *int, open *wan.SyncRange, closeAt func([]byte), full func() bool) ([]byte, error) {
	last := oplog.Buckets
	if len(upto) > 0 {
		last, _ = oplog.BucketAt(upto)
	}
	b, sent := oplog.PosBucket(from), 0
	next := func(pos []byte) error { // up to the bucket of a position
		for b < last && (pos == nil || oplog.PosBucket(pos) > b) {
			open.Digest += w.digests[b]
			open.Keys = uncounted
			w.sent[b], sent = sent, 0
			b++
			if closeAt(oplog.BucketPos(b)); full() && b < last {
				out.Cursor = oplog.BucketPos(b)
				return errFull
			}
		}
		return nil
	}
	err := w.s.EachUnlike(from, upto, w.since.Have, w.changed, func(st *oplog.State) error {
		if err := next(st.Pos); err != nil {
			return err
		}
		if *size >= 2*maxBytes {
			*open, out.States = wan.SyncRange{}, out.States[:len(out.States)-sent]
			if b == oplog.PosBucket(from) && len(out.States)+len(out.Ranges) == 0 {
				w.large[b] = true
				return errLarge
			}
			out.Cursor = oplog.BucketPos(b)
			return errFull
		}
		*size += len(st.Data)
		open.Digest -= st.Digest
		out.States = append(out.States, bytes.Clone(st.Data))
		sent++
		return nil
	})
	if errors.Is(err, errLarge) {
		*size = 0
		return from, nil
	}
	if err == nil {
		err = next(nil)
	}
	return upto, err
}

// buckets adds whole buckets that the asker has as they are here. What is not
// in their digests, remnants, it gets all the same.
func (w *wanSnapshot) buckets(from, upto []byte, out *wan.SyncKeys, size *int, open *wan.SyncRange, closeAt func([]byte)) error {
	last := oplog.Buckets
	if len(upto) > 0 {
		last, _ = oplog.BucketAt(upto)
	}
	b := oplog.PosBucket(from)
	next := func(pos []byte) { // up to the bucket of a position
		for ; b < last && (pos == nil || oplog.PosBucket(pos) > b); b++ {
			open.Digest += w.digests[b]
			open.Keys = uncounted
			closeAt(oplog.BucketPos(b + 1))
		}
	}
	var remnants [][]byte
	if err := w.s.Remnants(from, upto, func(pos []byte) error { remnants = append(remnants, pos); return nil }); err != nil {
		return err
	}
	for _, pos := range remnants {
		next(pos)
		// The positions that begin with a key's own are its own alone.
		err := w.s.EachState(pos, append(bytes.Clone(pos), 0xff), nil, func(st *oplog.State) error {
			*size += len(st.Data)
			open.Digest -= st.Digest
			out.States = append(out.States, bytes.Clone(st.Data))
			return nil
		})
		if err != nil {
			return err
		}
	}
	next(nil)
	return nil
}

// Compare tells which of the keys whose hashes the asker has sent are the same
// here, and adds the states of those that are left out of the range's states
// and of which no hash came.
func (w *wanSnapshot) Compare(p *wan.SyncPart) (out wan.SyncRestPart, err error) {
	asked := map[syncHash]int{}
	for i := 0; i+wire.SyncHash <= len(p.Hashes); i += wire.SyncHash {
		asked[syncHash(p.Hashes[i:])] = i / wire.SyncHash
	}
	out.Same = make([]byte, (len(p.Hashes)/wire.SyncHash+7)/8)
	if w.since == nil {
		return out, errors.New("a question about a state that was sent whole")
	}
	if p.Ranges {
		return w.ranges(p)
	}
	err = w.s.EachState(p.From, p.Upto, w.since.Have, func(st *oplog.State) error {
		i, ok := asked[hashOf(st.Pos, st.Digest)]
		switch {
		case !st.Plain && !w.inEqual(st.Pos): // it is among those sent
		case ok && !p.All:
			out.Same[i/8] |= 1 << (i % 8)
		default:
			out.States = append(out.States, bytes.Clone(st.Data))
		}
		return nil
	})
	return out, err
}

// ranges tells of what was left out of a bucket range by range.
func (w *wanSnapshot) ranges(p *wan.SyncPart) (out wan.SyncRestPart, err error) {
	bucket := oplog.PosBucket(p.From)
	if next, ok := oplog.BucketAt(p.Upto); len(w.digests) == 0 || !ok || next != bucket+1 || len(p.From) > 0 && !bytes.Equal(p.From, oplog.BucketPos(bucket)) {
		return out, errors.New("a question for the ranges of what was not told of as a bucket")
	}
	remnants := map[string]bool{} // of buckets that are the asker's; these were sent
	if w.inEqual(p.From) {
		err = w.s.Remnants(p.From, p.Upto, func(pos []byte) error { remnants[string(pos)] = true; return nil })
		if err != nil {
			return out, err
		}
	}
	var open wan.SyncRange
	var last []byte
	sent := 0
	err = w.s.EachState(p.From, p.Upto, w.since.Have, func(st *oplog.State) error {
		if !st.Plain && !w.inEqual(st.Pos) || remnants[string(st.Pos)] {
			sent++
			return nil
		}
		if open.Keys >= w.sizes.RangeKeys {
			open.Upto = bytes.Clone(shortest(last, st.Pos))
			out.Ranges = append(out.Ranges, open)
			open = wan.SyncRange{}
		}
		last = append(last[:0], st.Pos...)
		open.Keys++
		open.Digest += st.Digest
		return nil
	})
	if err != nil {
		return out, err
	}
	open.Upto = p.Upto
	out.Ranges = append(out.Ranges, open)
	if n := w.sent[bucket]; !w.inEqual(p.From) && sent != n {
		return out, fmt.Errorf("%w: %d keys of bucket %d are beyond a vector, but %d have changed since", crdt.ErrCorrupt, sent, bucket, n)
	}
	return out, nil
}

// syncHash is what a SyncCompare tells of a key.
type syncHash [wire.SyncHash]byte

// hashOf hashes the position and digest of a key.
func hashOf(pos []byte, digest uint64) (h syncHash) {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(binary.BigEndian.AppendUint64(nil, digest))
	_, _ = d.Write(pos)
	copy(h[:], binary.BigEndian.AppendUint64(nil, d.Sum64()))
	return h
}

func (w *wanSnapshot) Close() { _ = w.s.Close() }

// decodeState reads what encodeState wrote. The key shares b's memory.
func decodeState(b []byte) (SyncKey, error) {
	r := crdt.NewReader(b)
	k := SyncKey{Key: crdt.Key{DB: r.Byte(), Name: string(r.Bytes())}}
	for n := r.Uvarint(); n > 0 && r.OK(); n-- {
		k.Pending = append(k.Pending, crdt.KeyPending{Kind: crdt.Kind(r.Byte()), Ctx: crdt.Sized(r, crdt.DecodeVector)})
	}
	for r.More() {
		c := SyncCell{Kind: crdt.Kind(r.Byte()), Elem: string(r.Bytes()), data: r.Bytes()}
		var err error
		if c.Cell, err = crdt.DecodeCell(c.data); err != nil {
			r.Fail()
		}
		if c.Kind.Name() == "" || !(crdt.CellID{Kind: c.Kind, Elem: c.Elem}).Valid() {
			r.Fail()
		}
		k.Cells = append(k.Cells, c)
	}
	if k.Key.DB >= userDBs && k.Key.DB != command.SystemDB {
		r.Fail()
	}
	return k, r.End("key's state")
}
