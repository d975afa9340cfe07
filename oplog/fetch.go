package oplog

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// Where there are more keys than the cache holds, most that are written must be read
// first. Read when they are asked for, each would keep the one writer waiting for the disk.
// So those of the commands and deltas that come next are read together and, where that does take
// long, by several goroutines. What comes from memory they would only make dearer.

const (
	slowRead  = 40 * time.Microsecond // a read takes that long: it was not from memory, or the goroutine had to wait
	slowReads = 3                     // so many in a row, and the rest is shared out
	fetchers  = 16                    // goroutines, at most: as many reads a disk has to do at a time
	fetchMost = 8 << 20               // bytes of cells, at most, but for one: the rest is read when it is asked for
)

// fetched is what the store has of a key, and of one of its cells.
type fetched struct {
	id     crdt.CellID // KindAny: of a string its value, of anything else no cell
	header *crdt.Header
	own    ownCells
	cell   *crdt.Cell
	read   bool // header: nil if there is none
	looked bool // cell: likewise
}

// fetch has the cache hold what the store has of cells and the headers of their keys,
// none of which it holds, and which nobody changes meanwhile.
func (l *Log) fetch(list []fetched) {
	room := new(atomic.Int64)
	room.Store(fetchMost)
	slow, at := 0, 0
	for ; at < len(list) && slow < slowReads; at++ {
		begun := time.Now()
		if list[at].get(l, room); time.Since(begun) > slowRead {
			slow++
		} else {
			slow = 0
		}
	}
	l.share(list[at:], room)
	for i := range list {
		if f := &list[i]; f.read && l.cache.peek(f.id.Key) == nil { // a key may be there twice
			l.cache.take(f)
		}
	}
}

// share has several goroutines read.
func (l *Log) share(list []fetched, room *atomic.Int64) {
	var readers sync.WaitGroup
	var next atomic.Int32
	for range min(len(list), fetchers) {
		readers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				list[i].get(l, room)
			}
		})
	}
	readers.Wait()
}

// get reads, a cell only if there is room. What cannot be read is left to whoever asks for
// it: that one's group fails.
func (f *fetched) get(l *Log, room *atomic.Int64) {
	var err error
	if f.header, f.own, err = l.storedHeader(f.id.Key); err != nil {
		return
	}
	f.read = true
	if f.id.Kind == crdt.KindAny && f.header != nil && f.header.Type == crdt.TypeString {
		f.id.Kind, f.id.Elem = crdt.KindString, ""
	}
	if f.id.Kind == crdt.KindAny || noneOf(f.header)&(1<<f.id.Kind) != 0 || room.Load() <= 0 {
		return
	}
	if i := ownAt(cellKey{f.id.Kind, f.id.Elem}); i >= 0 && f.own[i] != nil {
		return
	}
	var buf [128]byte
	v, done, err := l.db.Get(appendCellKey(buf[:0], rangeCells, f.id))
	if errors.Is(err, pebble.ErrNotFound) {
		f.looked = true
		return
	}
	if err != nil {
		return
	}
	n := int64(len(v))
	fits := room.Add(-n)+n > 0 // there was some
	if fits {
		f.cell, err = crdt.DecodeCell(bytes.Clone(v))
	}
	f.looked = errors.Join(err, done.Close()) == nil && fits
}

// take keeps what was fetched of a key.
func (c *keyCache) take(f *fetched) {
	ks := &keyState{key: crdt.Key{DB: f.id.Key.DB, Name: strings.Clone(f.id.Key.Name)}}
	ks.read(f.header, &f.own)
	if f.looked {
		cs := ks.newCell(cellKey{f.id.Kind, strings.Clone(f.id.Elem)})
		if f.cell != nil {
			cs.read(f.cell, flagsOfCell(cs.key(), f.cell))
		}
		ks.add(cs)
		ks.complete(f.id.Kind)
	}
	c.add(ks)
	c.resize(ks)
}
