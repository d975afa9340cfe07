package crdt

import "hash/maphash"

// Index finds in a list, by the hashes of names, the places where they may be: a
// hash table without the names, which the list has, so that it takes a few bytes for
// each, is nothing for the collector to look into and grows without them. Places
// are found like this:
//
//	for n, at := x.First(h); n >= 0; n, at = x.Next(h, at) {
//		if list[n] is it { … }
//	}
//
// The zero value is empty; nil is empty for good.
type Index struct {
	slots []uint64 // a place and one in the lower half, the hash in the upper; 0: free
	used  int
}

// indexSeed makes it impossible to choose names that share a hash.
var indexSeed = maphash.MakeSeed()

// HashElem returns the hash of a cell of a key.
func HashElem(kind Kind, elem string) uint32 {
	return uint32(maphash.String(indexSeed, elem)>>16) + uint32(kind)*0x9e3779b1
}

// First returns the first place for a hash, and where to go on; -1 if there is none.
func (x *Index) First(hash uint32) (place int, at uint32) {
	if x.Empty() {
		return -1, 0
	}
	return x.look(hash, hash)
}

// Next returns the next place for a hash.
func (x *Index) Next(hash, at uint32) (place int, _ uint32) { return x.look(hash, at+1) }

func (x *Index) look(hash, at uint32) (int, uint32) {
	mask := uint32(len(x.slots) - 1)
	for ; ; at++ {
		switch s := x.slots[at&mask]; {
		case s == 0:
			return -1, 0
		case uint32(s>>32) == hash:
			return int(uint32(s)) - 1, at
		}
	}
}

// Add adds a place for a hash.
func (x *Index) Add(hash uint32, place int) {
	if 3*len(x.slots) <= 4*x.used {
		old := x.slots
		x.slots = make([]uint64, max(32, 2*len(old)))
		for _, s := range old {
			if s != 0 {
				x.set(s)
			}
		}
	}
	x.used++
	x.set(uint64(hash)<<32 | uint64(uint32(place+1)))
}

func (x *Index) set(slot uint64) {
	mask := uint32(len(x.slots) - 1)
	at := uint32(slot >> 32)
	for x.slots[at&mask] != 0 {
		at++
	}
	x.slots[at&mask] = slot
}

// Empty reports whether no place was added.
func (x *Index) Empty() bool { return x == nil || x.used == 0 }

// Reset forgets all places, and keeps memory for others, about most of them.
func (x *Index) Reset(most int) {
	switch {
	case x.Empty():
		return
	case len(x.slots) > 2*most:
		x.slots = nil
	default:
		clear(x.slots)
	}
	x.used = 0
}
