package oplog

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Read returns entries of a stream in order, from the first with a tag greater
// than after, as many as fit maxBytes of encoding but at least one. more says
// that there are further ones. Only durable entries are returned. It fails with
// ErrTrimmed if entries that follow after are gone.
func (l *Log) Read(s crdt.Stream, after crdt.Tag, maxBytes int) (entries []crdt.Entry, more bool, err error) {
	err = l.ReadEncoded(s, after, maxBytes, func(b []byte) error {
		e, err := wire.DecodeEntry(bytes.Clone(b))
		if err != nil {
			return fmt.Errorf("log of stream %v: %w", s, err)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	last := after
	if n := len(entries); n > 0 {
		last = entries[n-1].Tag
	}
	return entries, last < l.Durable().Get(s), nil
}

// ReadEncoded calls fn for what Read returns, each entry as wire.EncodeEntry makes it.
// What it is given is the log's when it returns; its error ends the reading, and is
// returned.
func (l *Log) ReadEncoded(s crdt.Stream, after crdt.Tag, maxBytes int, fn func(entry []byte) error) (err error) {
	l.mu.Lock()
	newest, floor := l.durable.Get(s), l.floorLocked(s)
	l.mu.Unlock()
	if after < floor {
		return fmt.Errorf("%w: stream %v begins after %v, %v was asked for", ErrTrimmed, s, floor, after)
	}
	if after >= newest {
		return nil
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: appendLogKey(nil, s, after+1), UpperBound: appendLogKey(nil, s, newest+1)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	size := 0
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if size == 0 {
			h, err := wire.DecodeHead(v)
			if err != nil {
				return fmt.Errorf("log of stream %v: %w", s, err)
			}
			if h.Prev > after && l.Floor(s) > after {
				break // a trim has overtaken the iterator's making
			}
		} else if size+len(v) > maxBytes {
			return nil
		}
		size += len(v)
		if err := fn(v); err != nil {
			return err
		}
	}
	if size == 0 && l.Floor(s) > after {
		return fmt.Errorf("%w: stream %v", ErrTrimmed, s)
	}
	return nil
}

// Floor returns the tag up to which a stream's entries are gone, 0 if none is.
func (l *Log) Floor(s crdt.Stream) crdt.Tag {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.floorLocked(s)
}

func (l *Log) floorLocked(s crdt.Stream) crdt.Tag {
	if st := l.streams[s]; st != nil {
		return st.floor.tag
	}
	return 0
}

// trimStep bounds the entries one call of Trim looks at.
const trimStep = 100_000

// Trim drops entries that acked covers, which says what every member has
// acknowledged, and the oldest beyond the limits of size and age, whoever lacks
// them. Only durable entries are dropped. It does a bounded step and reports
// whether there is more to do.
func (l *Log) Trim(acked crdt.Vector) (more bool, err error) {
	if err := l.Failed(); err != nil {
		return false, err
	}
	l.commit.Lock() // appending and jumps change the same streams
	defer l.commit.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false, ErrClosed
	}
	kept := int64(0)
	var heads trimHeap
	for s, st := range l.streams {
		kept += int64(st.row.appended - st.floor.trimmed)
		if upto := min(l.durable.Get(s), l.redo.free(s)); upto > st.floor.tag {
			heads = append(heads, &trimHead{stream: s, from: st.floor.tag, floor: st.floor, upto: upto, acked: acked.Get(s), stretches: st.stretches, part: st.part})
		}
	}
	l.mu.Unlock()
	if kept = heads.dropStretches(kept, l.opts.KeepBytes); kept <= l.opts.KeepBytes {
		return false, l.cut(heads)
	}
	defer func() {
		for _, h := range heads {
			err = errors.Join(err, h.close())
		}
	}()
	oldest := crdt.TagAt(l.opts.Now().Add(-l.opts.RetentionTime).UnixMilli(), 0)
	live := heads[:0:0]
	for _, h := range heads {
		ok, err := h.open(l.db)
		if err != nil {
			return false, err
		}
		if ok {
			live = append(live, h)
		}
	}
	heap.Init(&live)
	looked := 0
	for len(live) > 0 && looked < trimStep {
		h := live[0]
		if kept <= l.opts.KeepBytes {
			break
		}
		if h.tag > h.acked && kept <= l.opts.RetentionBytes && h.tag >= oldest {
			// Entries behind it in the stream are kept too; other streams may
			// have acknowledged ones.
			heap.Pop(&live)
			continue
		}
		looked++
		kept -= int64(h.size)
		h.floor.tag = h.tag
		h.floor.trimmed += uint64(h.size)
		h.count++
		if len(h.stretches) > 0 && h.floor.trimmed > h.stretches[0].from {
			h.part++
		}
		h.pass()
		h.forced = h.forced || h.tag > h.acked
		if !h.next() {
			heap.Pop(&live)
		} else {
			heap.Fix(&live, 0)
		}
	}
	more = looked == trimStep && len(live) > 0
	return more, l.cut(heads)
}

// cut drops what a trim has passed.
func (l *Log) cut(heads trimHeap) error {
	batch := l.db.NewBatch()
	defer func() { _ = batch.Close() }()
	n := 0
	for _, h := range heads {
		if h.count == 0 {
			continue
		}
		n++
		err := errors.Join(
			batch.DeleteRange(appendLogKey(nil, h.stream, h.from+1), appendLogKey(nil, h.stream, h.floor.tag+1), nil),
			batch.Set(appendStreamKey(nil, rangeFloors, h.stream), h.floor.encode(nil), nil))
		if err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	// The floor moves first: a reader that finds nothing finds out why.
	l.mu.Lock()
	for _, h := range heads {
		if h.count > 0 {
			st := l.streams[h.stream]
			st.floor = h.floor
			st.stretches, st.part = h.stretches, h.part
			l.counters.trimmed.Add(uint64(h.count))
		}
	}
	l.mu.Unlock()
	if err := batch.Commit(pebble.NoSync); err != nil {
		l.fail(err, true, false)
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	for _, h := range heads {
		if h.forced {
			l.opts.Logger.Warn("log entries were dropped that not every member has", "stream", h.stream.String(), "upto", h.floor.tag.String())
			if l.opts.Events.Trimmed != nil {
				l.opts.Events.Trimmed(h.stream, h.floor.tag)
			}
		}
	}
	return nil
}

// stretch is a part of a stream's log.
type stretch struct {
	tag        crdt.Tag // of its last entry
	from, upto uint64   // bytes appended before it, and with it
	entries    int
}

// stretchBytes is about how long stretches are.
const stretchBytes = 256 << 10

// note takes note of entries that the next row tells of.
func (st *streamState) note(row streamRow, entries int) {
	m := &st.open
	if m.entries == 0 {
		m.from = st.row.appended
	}
	m.tag, m.upto, m.entries = row.tag, row.appended, m.entries+entries
	if m.upto-m.from >= stretchBytes {
		st.stretches = append(st.stretches, *m)
		*m = stretch{}
	}
}

// trimHead is the oldest entry that is left of a stream.
type trimHead struct {
	stream crdt.Stream
	from   crdt.Tag // floor before
	floor  floorRow
	upto   crdt.Tag
	acked  crdt.Tag

	it        *pebble.Iterator
	tag       crdt.Tag
	size      int
	count     int
	forced    bool
	stretches []stretch // those that end behind the floor
	part      int       // as in streamState
}

// pass takes note that the floor has moved.
func (h *trimHead) pass() {
	for len(h.stretches) > 0 && h.stretches[0].tag <= h.floor.tag {
		h.stretches, h.part = h.stretches[1:], 0
	}
}

// dropStretches drops what every member has, the oldest first, stretch by stretch, as long as
// the log stays larger than keep; kept is its size. It returns what is left. Where the
// next stretch is too long for that, keep is what it counts as: the rest can wait.
func (t trimHeap) dropStretches(kept, keep int64) int64 {
	for kept > keep {
		var h *trimHead
		for _, o := range t {
			if len(o.stretches) > 0 && o.stretches[0].from <= o.floor.trimmed && o.stretches[0].tag <= min(o.acked, o.upto) && (h == nil || o.stretches[0].tag < h.stretches[0].tag) {
				h = o
			}
		}
		if h == nil {
			return kept
		}
		m := h.stretches[0]
		size := int64(m.upto - h.floor.trimmed)
		if kept-size < keep {
			return keep
		}
		kept -= size
		h.floor = floorRow{tag: m.tag, trimmed: m.upto}
		h.count += m.entries - h.part
		h.pass()
	}
	return kept
}

func (h *trimHead) open(r pebble.Reader) (ok bool, err error) {
	h.it, err = r.NewIter(&pebble.IterOptions{LowerBound: appendLogKey(nil, h.stream, h.floor.tag+1), UpperBound: appendLogKey(nil, h.stream, h.upto+1)})
	if err != nil {
		return false, err
	}
	return h.it.First() && h.read(), h.it.Error()
}

func (h *trimHead) next() bool { return h.it.Next() && h.read() }

func (h *trimHead) read() bool {
	var err error
	_, h.tag, err = cutLogKey(h.it.Key())
	v := h.it.LazyValue()
	h.size = v.Len()
	return err == nil
}

func (h *trimHead) close() error {
	if h.it == nil {
		return nil
	}
	return errors.Join(h.it.Error(), h.it.Close())
}

// trimHeap orders streams by the age of their oldest entry, those of one tag by
// name.
type trimHeap []*trimHead

func (t trimHeap) Len() int { return len(t) }
func (t trimHeap) Less(i, j int) bool {
	return t[i].tag < t[j].tag || t[i].tag == t[j].tag && t[i].stream < t[j].stream
}
func (t trimHeap) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *trimHeap) Push(x any)   { *t = append(*t, x.(*trimHead)) }
func (t *trimHeap) Pop() any {
	old := *t
	h := old[len(old)-1]
	*t = old[:len(old)-1]
	return h
}
