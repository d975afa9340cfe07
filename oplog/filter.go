package oplog

import (
	"runtime"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// keyFilter tells of most keys that the store has no header of them without asking
// it, which has to look into every buffer of recent writes: the first write of a new
// key would take as long for that as for all else.
//
// It is a Bloom filter of fixed size, of blocks that are a line of the processor's
// cache each (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007).
// It has every key that is stored, and keys that once were; with too many
// keys it says "perhaps" of all, and the store is asked as without it. Once Open has returned it
// is filled from the store, and until that is done it says "perhaps" too. Adding is for any
// goroutine.
type keyFilter struct {
	blocks []filterBlock
	ready  atomic.Bool
}

type filterBlock [8]atomic.Uint64

// Sizes of a filter: a part of Options.KeyBytes, and about how many bits a key
// takes at least for the filter to be worth having.
const (
	filterShare   = 16
	filterLeast   = 64 << 10
	filterMost    = 16 << 20
	filterKeyBits = 6
)

func newKeyFilter(keyBytes int64) keyFilter {
	size := min(max(keyBytes/filterShare, filterLeast), filterMost)
	return keyFilter{blocks: make([]filterBlock, size/64)}
}

// capacity returns how many keys it is for.
func (f *keyFilter) capacity() int { return len(f.blocks) * 512 / filterKeyBits }

// at returns a key's block, and what chooses the bits there: one of each word.
func (f *keyFilter) at(k crdt.Key) (b *filterBlock, bits uint64) {
	h := xxhash.Sum64String(k.Name) + uint64(k.DB)*0x9e3779b97f4a7c15
	return &f.blocks[(h>>32)*uint64(len(f.blocks))>>32], h * 0xff51afd7ed558ccd
}

// add adds a key, before the store has it.
func (f *keyFilter) add(k crdt.Key) {
	b, bits := f.at(k)
	for i := range b {
		if bit := uint64(1) << (bits >> 58); b[i].Load()&bit == 0 {
			b[i].Or(bit)
		}
		bits <<= 6
	}
}

// lacks reports whether the store surely has no header of a key.
func (f *keyFilter) lacks(k crdt.Key) bool {
	if !f.ready.Load() {
		return false
	}
	b, bits := f.at(k)
	for i := range b {
		if b[i].Load()&(1<<(bits>>58)) == 0 {
			return true
		}
		bits <<= 6
	}
	return false
}

// fillFilter begins to fill the filter with what is stored now; what is committed
// from now on is added by the commits. A store that is too large it leaves alone.
func (l *Log) fillFilter() error {
	if size, err := l.db.EstimateDiskUsage([]byte{rangeCells}, []byte{rangeCells + 1}); err != nil || size > l.opts.filterStore {
		return nil // it is done without
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{rangeCells}, UpperBound: []byte{rangeCells + 1}})
	if err != nil {
		return err
	}
	fill := func() {
		ready := l.filter.fill(it, l.stop)
		if it.Close() == nil && ready {
			l.filter.ready.Store(true)
		}
	}
	if l.opts.ManualSync || !it.First() {
		fill()
		return nil
	}
	l.work.Add(1)
	go func() {
		defer l.work.Done()
		fill()
	}()
	return nil
}

// fillRows is how many rows of one key are passed over before the next key is
// sought.
const fillRows = 16

// fill adds the keys of all headers, and reports whether it could: not if it was
// stopped, or there are more than it is for.
func (f *keyFilter) fill(it *pebble.Iterator, stop <-chan struct{}) bool {
	keys, rows := 0, 0
	for ok := it.First(); ok; {
		id, pos, err := cutCell(it.Key()[1:])
		if err != nil {
			return false // whoever reads it will say so
		}
		if id.Kind == crdt.KindAny {
			f.add(id.Key)
			keys, rows = keys+1, 0
		}
		if rows++; rows < fillRows {
			ok = it.Next()
		} else {
			ok = it.SeekGE(after(append([]byte{rangeCells}, pos...)))
			rows = 0
		}
		if keys%1024 == 0 {
			if keys > f.capacity() {
				return false
			}
			select {
			case <-stop:
				return false
			default:
				runtime.Gosched()
			}
		}
	}
	return it.Error() == nil
}
