package oplog

import (
	"bytes"
	"math"

	"github.com/replicatord/replicatord/crdt"
)

// What a group writes is in its entries and, as states, in its redo record. A value
// that is in both is written once: the record says where in the entry it is.

// referLeast is from how many bytes on that is worth saying.
const referLeast = 32

// sources are the values of a group's entries, by their first bytes: cells have
// them from the deltas that the entries were made of.
type sources map[*byte]source

// source is a value as a piece of an entry.
type source struct {
	entry      int // of the group, 1 for the first
	from, size int
}

// add takes note of a delta's value, which ends at end.
func (s sources) add(d *crdt.Delta, entry, end int) {
	if p := d.Put; p != nil && d.Add == nil && len(p.Value) >= referLeast {
		s[&p.Value[0]] = source{entry, end - len(p.Value), len(p.Value)}
	}
}

// reset empties it, and returns it or, if it has become too large to be kept, another.
func (s sources) reset() sources {
	if len(s) > maxRedoKeys || s == nil {
		return sources{}
	}
	clear(s)
	return s
}

// find returns where a value is in the group's entries, the zero source if it is in none.
func (s sources) find(value []byte, entries []logEntry) source {
	if len(value) < referLeast {
		return source{}
	}
	at := s[&value[0]]
	if at.size != len(value) || !bytes.Equal(entries[at.entry-1].data[at.from:at.from+at.size], value) {
		return source{}
	}
	return at
}

// refer tells in the record that the row w.key has w.value, of which the end is that piece of an
// entry.
func (w *groupWriter) refer(at source) {
	if w.entry != at.entry {
		e := &w.entries[at.entry-1]
		k := appendLogKey(nil, e.stream, e.tag)
		w.redo = appendRedo(w.redo, redoEntry, w.before, k, nil)
		w.before, w.entry = append(w.before[:0], k...), at.entry
	}
	w.redo = appendRefer(w.redo, w.before, w.key, w.value[:len(w.value)-at.size], at.from, at.size)
	w.before = append(w.before[:0], w.key...)
	w.referred += int64(at.size)
}

// told returns what the record counts: its size, and a share of what it refers to. Who
// drains reads that too, but in one piece for many rows; and the more of it may gather, the
// fewer of the states in between that large values go through are ever written to their rows.
func (w *groupWriter) told() int64 { return int64(len(w.redo)) + w.referred/referredShare }

const referredShare = 4

// pins says which entries of a stream records refer to.
type pins struct {
	list []pin  // records from seq on refer to none before tag
	last uint64 // the last record that refers to any
}

type pin struct {
	seq uint64
	tag crdt.Tag
}

// pinEvery is for how many records there is a pin.
const pinEvery = 64

// pin takes note that record seq refers to an entry, and to none before it of its stream.
func (r *redo) pin(seq uint64, s crdt.Stream, t crdt.Tag) {
	p := r.pins[s]
	if p == nil {
		p = &pins{}
		if r.pins == nil {
			r.pins = map[crdt.Stream]*pins{}
		}
		r.pins[s] = p
	}
	if n := len(p.list); n == 0 || seq >= p.list[n-1].seq+pinEvery {
		p.list = append(p.list, pin{seq, t})
	}
	p.last = seq
}

// release forgets the pins of records up to seq.
func (p *pins) release(seq uint64) {
	for len(p.list) > 1 && p.list[1].seq <= seq+1 {
		p.list = p.list[1:]
	}
	if p.last <= seq {
		p.list = nil
	}
}

// free returns up to where no record refers to entries of a stream. l.commit is held.
func (r *redo) free(s crdt.Stream) crdt.Tag {
	if p := r.pins[s]; p != nil {
		return p.list[0].tag - 1
	}
	return math.MaxUint64
}
