package node

import (
	"bytes"
	"errors"
	"slices"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

// SyncWindow is one step of a state sync: what another replica has from one
// position up to another. It belongs to one goroutine at a time.
type SyncWindow struct {
	from, upto []byte // upto empty: the end
	keys       []SyncKey
	bytes      int // that the keys took
	// ranges tell, if the sync is by difference, of what is not among the keys:
	// adjacent ranges from from up to upto. If there are none, all is among the
	// keys.
	ranges []syncRange
	asked  []askedPart // what was asked and not answered, in order

	// repair: what differs is replaced by what the other has, for both are at
	// the same vector and this replica's is not trusted.
	fill *fillWindow // nil if it was not worth making

	repair   bool
	repaired []crdt.Key
	moved    bool // they no longer are: nothing was done
}

// syncRange is a part of a window, and what has been learnt of it since.
//
// Keys that the other has left out are such that it lacks nothing of them
// here: each value and increment in them has been applied here, or was seen to
// be removed. What it has not, and has seen, must go here too. Where the digests
// are equal that is nothing: merging two states with the same live cells changes
// none of them, and what the other knows beside them, remnants and pending contexts,
// it does not leave out. So the key counts as merged at the other's vector. What
// this replica holds of remnants beyond the other's it keeps until Tidy drops
// them.
//
// That is true only of what the keys are at the moment at which they count as
// merged, for entries come in all the while: a value that the other has had and
// seen removed may have come here since it was asked. Therefore digests are
// compared in the very step that merges, each range is merged as soon as it is
// known to be the same, and a question is put anew for a key that is no longer
// what was asked about.
type syncRange struct {
	from, upto []byte
	sent       []SyncKey // of the window's keys
	sentPos    [][]byte
	here       []bool // of those, which have cells here, as the last scan found; nil if there was none
	keys       uint64
	digest     uint64
	done       bool // merged
	same       bool // here too, as the digests of whole buckets told last
	rounds     int  // of questions
	all        bool // the other has told all that it left out
	known      map[string]knownKey
	states     map[crdt.Key]*SyncKey
	repair     bool
	bucket     bool        // a whole bucket, of which the other can tell by ranges
	parts      []syncRange // that it has told
}

// knownKey is what the other has said of a key here, by position.
type knownKey struct {
	hash syncHash // what it was asked about
	same bool     // it has just that; else what it has is in states, if anything
}

// askedPart is a question about keys of a range.
type askedPart struct {
	in     *syncRange
	keys   []ownKey
	all    bool
	ranges bool
}

// Limits of questions.
const (
	maxHashes = 4096 // in one
	maxRounds = 4    // of a range, before all that was left out is asked for
)

// ownKey is a key that is here and not among those sent.
type ownKey struct {
	pos  []byte
	hash syncHash
}

// NewSyncWindow returns the step that begins at a position.
func NewSyncWindow(from []byte, m *wan.SyncKeys, repair bool) (*SyncWindow, error) {
	w := &SyncWindow{repair: repair, from: from, upto: m.Cursor, keys: make([]SyncKey, 0, len(m.States))}
	if m.Last {
		w.upto = nil
	}
	for _, b := range m.States {
		k, err := decodeState(b)
		if err != nil {
			return nil, err
		}
		w.keys = append(w.keys, k)
		w.bytes += len(b)
	}
	if len(m.Ranges) == 0 {
		return w, nil
	}
	sent := make([][]byte, len(w.keys)) // pieces of few, for there are many
	room := make([]byte, 0, 32*len(w.keys))
	for i := range w.keys {
		at := len(room)
		room = oplog.AppendPos(room, w.keys[i].Key)
		sent[i] = room[at:len(room):len(room)]
	}
	if !slices.IsSortedFunc(sent, bytes.Compare) {
		return nil, errOutOfOrder
	}
	var err error
	if w.ranges, err = cutRanges(from, w.upto, w.keys, sent, m.Ranges); err != nil {
		return nil, err
	}
	for i := range w.ranges {
		w.ranges[i].repair = repair
	}
	return w, nil
}

// cutRanges cuts what lies between two positions, and the keys sent of it, into
// ranges.
func cutRanges(from, upto []byte, keys []SyncKey, sent [][]byte, ranges []wan.SyncRange) (out []syncRange, err error) {
	at, i := from, 0
	for _, r := range ranges {
		n := len(sent)
		if len(r.Upto) > 0 {
			n, _ = slices.BinarySearchFunc(sent, r.Upto, bytes.Compare)
		}
		if n < i || i < n && bytes.Compare(sent[i], at) < 0 || len(r.Upto) > 0 && bytes.Compare(r.Upto, at) <= 0 {
			return nil, errOutOfOrder
		}
		out = append(out, syncRange{from: at, upto: r.Upto, sent: keys[i:n], sentPos: sent[i:n], keys: r.Keys, digest: r.Digest})
		at, i = r.Upto, n
		if len(at) == 0 {
			break
		}
	}
	if i < len(sent) || !bytes.Equal(at, upto) || len(out) < len(ranges) {
		return nil, errOutOfOrder
	}
	return out, nil
}

// readAhead reads what is stored here of the keys that were sent.
func (w *SyncWindow) readAhead(log *oplog.Log) {
	for i := range w.ranges {
		r := &w.ranges[i]
		if len(r.sent) == 0 || log.SeemsVacant(r.from, r.upto) {
			continue
		}
		stored := log.ReadAhead(r.sentPos, func(k int) int { return len(r.sent[k].Cells) + 1 })
		for k := range stored {
			r.sent[k].ahead = &stored[k]
		}
	}
}

// refine puts the ranges that the other has told of a bucket in its place.
func (w *SyncWindow) refine() {
	for i := 0; i < len(w.ranges); i++ {
		if parts := w.ranges[i].parts; parts != nil {
			w.ranges = slices.Replace(w.ranges, i, i+1, parts...)
			i += len(parts) - 1
		}
	}
}

// compare compares a range with what is here. It returns the keys that are here
// and that the other lacks or has in another form, with that, or, if it cannot
// tell yet, what is to be asked.
func (r *syncRange) compare(snap *oplog.Snapshot) (differ []SyncKey, ask []ownKey, err error) {
	if r.here = nil; r.same || r.bucket {
		return nil, nil, nil
	}
	var sum uint64
	r.here = make([]bool, len(r.sent))
	if err := r.each(snap, func(_ []byte, d uint64) { sum += d }); err != nil || sum == r.digest {
		return nil, nil, err
	}
	if r.repair && r.rounds == 0 && r.keys > 0 {
		// Also what is not here at all is asked for.
		err := r.each(snap, func(pos []byte, d uint64) { ask = append(ask, ownKey{bytes.Clone(pos), hashOf(pos, d)}) })
		return nil, ask, err
	}
	var bad error
	err = r.each(snap, func(pos []byte, d uint64) {
		var what *SyncKey
		if r.keys > 0 && !r.all {
			h := hashOf(pos, d)
			k, ok := r.known[string(pos)]
			switch {
			case !ok || k.same && k.hash != h:
				ask = append(ask, ownKey{bytes.Clone(pos), h})
				return
			case k.same:
				return
			}
		}
		key, err := oplog.KeyAt(pos)
		if err != nil {
			bad = err
			return
		}
		if what = r.states[key]; what == nil {
			what = &SyncKey{Key: key}
		}
		differ = append(differ, *what)
	})
	if err == nil {
		err = bad
	}
	return differ, ask, err
}

// each calls fn for the keys of the range that have live cells here and are not
// among those sent.
func (r *syncRange) each(snap *oplog.Snapshot, fn func(pos []byte, digest uint64)) error {
	n := 0
	scan := snap.EachDigest
	if r.repair {
		scan = snap.EachActual
	}
	return scan(r.from, r.upto, func(pos []byte, digest uint64) bool {
		for n < len(r.sentPos) && bytes.Compare(r.sentPos[n], pos) < 0 {
			n++
		}
		if n < len(r.sentPos) && bytes.Equal(r.sentPos[n], pos) {
			r.here[n] = true
		} else if digest != 0 {
			fn(pos, digest)
		}
		return true
	})
}

// sameBuckets finds the ranges that make up whole buckets which are the same
// here, as the digests tell that are kept of them: of those no key needs to be
// looked at. Of one bucket that is not, and that the other can tell of by ranges,
// these are to be asked for.
func (w *SyncWindow) sameBuckets(snap *oplog.Snapshot, load *oplog.Loader, byBucket bool) error {
	begin := -1 // of the ranges from where a bucket begins
	for i := range w.ranges {
		r := &w.ranges[i]
		r.same, r.bucket = false, false
		if _, ok := oplog.BucketAt(r.from); (ok || len(r.from) == 0) && begin < 0 {
			begin = i
		}
		if r.done || r.repair {
			begin = -1
		}
		if _, ok := oplog.BucketAt(r.upto); !ok || begin < 0 {
			continue
		}
		same, err := sameBuckets(snap, load, w.ranges[begin:i+1])
		if err != nil {
			return err
		}
		for k := begin; k <= i; k++ {
			w.ranges[k].same = same
		}
		r.bucket = byBucket && !same && begin == i && r.keys >= uncounted
		begin = -1
	}
	return nil
}

// sameBuckets reports whether adjacent ranges, together whole buckets, are the
// same here. What is sent of them is loaded.
func sameBuckets(snap *oplog.Snapshot, load *oplog.Loader, ranges []syncRange) (bool, error) {
	first, from := 0, ranges[0].from
	if len(from) > 0 {
		first, _ = oplog.BucketAt(from)
	}
	last, _ := oplog.BucketAt(ranges[len(ranges)-1].upto)
	digests, err := snap.FullDigests(first, last)
	if err != nil {
		return false, err
	}
	var sum uint64
	for _, d := range digests {
		sum -= d
	}
	for i := range ranges {
		sum += ranges[i].digest
		for j := range ranges[i].sent {
			k := &ranges[i].sent[j]
			d, err := load.Load(k.Key, len(k.Cells)+1, k.ahead)
			if err != nil {
				return false, err
			}
			sum += d
		}
	}
	return sum == 0, nil
}

// question asks what of the keys here the other has. Where there are many more
// than it has itself, it is asked for its own; later on for single keys, and
// in the end, where they change faster than it answers, for all.
func (w *SyncWindow) question(r *syncRange, own []ownKey) (ask []wan.SyncPart) {
	if r.known == nil {
		r.known, r.states = map[string]knownKey{}, map[crdt.Key]*SyncKey{}
	}
	put := func(p wan.SyncPart, keys []ownKey) {
		ask = append(ask, p)
		w.asked = append(w.asked, askedPart{in: r, keys: keys, all: p.All, ranges: p.Ranges})
	}
	if r.bucket {
		put(wan.SyncPart{From: r.from, Upto: r.upto, Ranges: true}, nil)
		return ask
	}
	r.rounds++
	switch {
	case r.keys < uint64(len(own))/4 || r.rounds > maxRounds:
		put(wan.SyncPart{From: r.from, Upto: r.upto, All: true}, nil)
	case r.rounds > 1:
		for _, k := range own {
			put(wan.SyncPart{From: k.pos, Upto: append(bytes.Clone(k.pos), 0xff), All: true}, []ownKey{k})
		}
	default:
		if len(own) == 0 {
			put(wan.SyncPart{From: r.from, Upto: r.upto, All: true}, nil)
		}
		for from := r.from; len(own) > 0; {
			n := min(len(own), maxHashes)
			var hashes []byte
			for _, k := range own[:n] {
				hashes = append(hashes, k.hash[:]...)
			}
			upto, keys := r.upto, own[:n]
			if own = own[n:]; len(own) > 0 {
				upto = own[0].pos
			}
			put(wan.SyncPart{From: from, Upto: upto, Hashes: hashes}, keys)
			from = upto
		}
	}
	return ask
}

// Answer takes the answer to the next question, and reports whether that was
// the last.
func (w *SyncWindow) Answer(p *wan.SyncRestPart) (last bool, err error) {
	if len(w.asked) == 0 {
		return false, errOutOfOrder
	}
	q := w.asked[0]
	w.asked = w.asked[1:]
	if q.ranges {
		if q.in.parts, err = cutRanges(q.in.from, q.in.upto, q.in.sent, q.in.sentPos, p.Ranges); err == nil && len(p.States) > 0 {
			err = errOutOfOrder
		}
		return len(w.asked) == 0, err
	}
	q.in.all = q.in.all || q.all && q.keys == nil
	if !q.all && len(p.Same) != (len(q.keys)+7)/8 {
		return false, errOutOfOrder
	}
	for i, k := range q.keys {
		q.in.known[string(k.pos)] = knownKey{k.hash, !q.all && p.Same[i/8]&(1<<(i%8)) != 0}
	}
	for _, b := range p.States {
		k, err := decodeState(b)
		if err != nil {
			return false, err
		}
		q.in.states[k.Key] = &k
	}
	return len(w.asked) == 0, nil
}

// mergeRanges merges those ranges of a window that can be, in the open group,
// and returns what is to be asked for the others.
func (c *Core) mergeRanges(s *SyncState, w *SyncWindow) (ask []wan.SyncPart, err error) {
	snap, err := c.log.Snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { _ = snap.Close() }()
	w.refine()
	load, err := c.group.Loader(snap)
	if err != nil {
		return nil, err
	}
	err = w.sameBuckets(snap, load, s.ByBucket)
	if err = errors.Join(err, load.Close()); err != nil {
		return nil, err
	}
	c.group.WriteThrough()
	next := c.regions
	first := -1 // of the ranges that are merged in a row
	raise := func(upto []byte) {
		if first >= 0 {
			next.raise(w.ranges[first].from, upto, s.Vector, s.Pending)
		}
		first = -1
	}
	var merged []*syncRange
	for i := range w.ranges {
		r := &w.ranges[i]
		if r.done {
			raise(r.from)
			continue
		}
		differ, own, err := r.compare(snap)
		switch {
		case err != nil:
			return nil, err
		case len(own) > 0 || r.bucket:
			ask = append(ask, w.question(r, own)...)
			raise(r.from)
			continue
		}
		if err := c.mergeKeys(s, r.sent, r.here); err != nil {
			return nil, err
		}
		if err := c.mergeKeys(s, differ, nil); err != nil {
			return nil, err
		}
		if merged = append(merged, r); first < 0 {
			first = i
		}
	}
	raise(w.upto)
	if len(ask) > 0 {
		if len(merged) > 0 {
			c.setRegions(next)
		}
	} else if err := c.advance(s, next, w.upto); err != nil {
		return nil, err
	}
	c.merged = merged
	return ask, nil
}
