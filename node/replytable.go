package node

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// replyTable keeps values under keys, in memory of a fixed size: of what does not
// fit any more the oldest goes first. Many goroutines look into it at once, without
// a lock, and write to nothing that others read.
//
// What is kept lies one behind the other in chunks and is never changed: a new chunk
// takes the place of the oldest, which the collector has once its last reader is done.
// The index is words, in buckets, that say where something lies; to store one
// publishes the bytes. It may outlive its chunk, and tells then of what is not there.
//
// Both are far memory. Who looks for several at a time reads all their buckets first
// and then the ends of all that these tell of, so that the processor waits for them
// together.
type replyTable struct {
	slots  []atomic.Uint64 // bucketSlots for each bucket
	ring   []atomic.Pointer[replyChunk]
	chunk  int           // bytes of each
	newest atomic.Uint64 // number of the newest chunk; 0: there is none

	mu   sync.Mutex // of who puts
	used int        // bytes of the newest chunk
}

// replyChunk is a piece of a table's memory. Chunk n is at n % len(ring).
type replyChunk struct {
	number uint64 // from 1 on
	bytes  []byte
}

// A word of the index is 0, or, from the top: a part of the hash, as much of the
// number of the chunk as there is room for, and where in it, in units of replyUnit.
// There lie the lengths of key and value, and they.
const (
	hashBits   = 16
	numberBits = 31
	placeBits  = 64 - hashBits - numberBits

	bucketSlots = 8  // one line of the processor's cache
	slotShare   = 64 // a table has one for so many bytes
	replyUnit   = 8
	replyHead   = 4 + 4

	chunkLeast = 32 << 10
	chunkMost  = replyUnit << placeBits
	chunkParts = 64 // of a table, unless its chunks become too small or too large

	looksMost = 16
	lineSize  = 64
)

// look is a search in a replyTable.
type look struct {
	hash uint64
	key  []byte

	bucket *[bucketSlots]atomic.Uint64
	near   byte // keeps the compiler from leaving out what only brings memory near
}

// found is what a look has found.
type found struct {
	value []byte // not to be changed; nil: nothing
	old   bool   // it will not be there much longer
}

// newReplyTable returns a table of so many bytes.
func newReplyTable(size int64) *replyTable {
	chunk := min(max(size/chunkParts, chunkLeast), chunkMost)
	buckets := int64(1)
	for buckets*bucketSlots*slotShare < size {
		buckets *= 2
	}
	size -= 8 * buckets * bucketSlots
	return &replyTable{
		slots: make([]atomic.Uint64, buckets*bucketSlots),
		ring:  make([]atomic.Pointer[replyChunk], size/chunk),
		chunk: int(chunk),
	}
}

// find puts what looks find into out, which is as long and empty.
func (t *replyTable) find(looks []look, out []found) {
	for i := range looks {
		l := &looks[i]
		l.bucket = t.bucket(l.hash)
		l.near = byte(l.bucket[0].Load())
	}
	for i := range looks {
		l := &looks[i]
		if p, _ := t.next(l, 0); p.chunk != nil {
			_, value := p.read()
			l.near += value[min(len(value)-1, lineSize)]
		}
	}
	for i := range looks {
		l := &looks[i]
		for p, j := t.next(l, 0); p.chunk != nil; p, j = t.next(l, j) {
			if key, value := p.read(); bytes.Equal(key, l.key) {
				out[i] = found{value, t.newest.Load()-p.chunk.number > uint64(len(t.ring)/4*3)}
				break
			}
		}
	}
}

func (t *replyTable) bucket(hash uint64) *[bucketSlots]atomic.Uint64 {
	i := hash % uint64(len(t.slots)/bucketSlots) * bucketSlots
	return (*[bucketSlots]atomic.Uint64)(t.slots[i:])
}

// place is where something lies.
type place struct {
	chunk *replyChunk // nil: nowhere
	at    int
}

// read returns the key and the value that lie there.
func (p place) read() (key, value []byte) {
	b := p.chunk.bytes[p.at:]
	n, m := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	b = b[replyHead:]
	return b[:n:n], b[n : n+m : n+m]
}

// alike reports whether a word of the index may tell of what has that hash.
func alike(word, hash uint64) bool { return word != 0 && (word^hash)>>(64-hashBits) == 0 }

// next returns the first place that the words of a look's bucket tell of, from number
// j on, and from where to go on.
func (t *replyTable) next(l *look, j int) (place, int) {
	for ; j < bucketSlots; j++ {
		if word := l.bucket[j].Load(); alike(word, l.hash) {
			if p := t.place(word); p.chunk != nil {
				return p, j + 1
			}
		}
	}
	return place{}, j
}

// place returns what a word of the index tells.
func (t *replyTable) place(word uint64) place {
	// What is left out of its chunk's number is as of the newest, or one less.
	newest, number := t.newest.Load(), word<<hashBits>>(64-numberBits)
	number |= newest >> numberBits << numberBits
	if number > newest {
		number -= 1 << numberBits
	}
	if c := t.ring[number%uint64(len(t.ring))].Load(); c != nil && c.number == number {
		return place{c, int(word % (1 << placeBits) * replyUnit)}
	}
	return place{}
}

// put keeps a value, head with tail behind it, which is not empty. Whoever looks for
// the key finds this one or, for as long as that is kept, an earlier one. Nothing is
// kept that would take more than a quarter of a chunk.
func (t *replyTable) put(hash uint64, key, head, tail []byte) {
	size := replyHead + len(key) + len(head) + len(tail)
	size = (size + replyUnit - 1) / replyUnit * replyUnit
	if size > t.chunk/4 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	number := t.newest.Load()
	c := t.ring[number%uint64(len(t.ring))].Load()
	if c == nil || t.used+size > len(c.bytes) {
		number++
		c = &replyChunk{number, make([]byte, t.chunk)}
		t.ring[number%uint64(len(t.ring))].Store(c)
		t.newest.Store(number)
		t.used = 0
	}
	b := binary.LittleEndian.AppendUint32(c.bytes[t.used:t.used], uint32(len(key)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)+len(tail)))
	_ = append(append(append(b, key...), head...), tail...)
	word := hash>>(64-hashBits)<<(64-hashBits) | number%(1<<numberBits)<<placeBits | uint64(t.used/replyUnit)
	t.used += size

	// It takes the place of what has the same part of the hash, or of the oldest.
	bucket := t.bucket(hash)
	victim, oldest := 0, ^uint64(0)
	for j := range bucket {
		old := bucket[j].Load()
		if alike(old, hash) {
			victim = j
			break
		}
		since := uint64(0)
		if p := t.place(old); old != 0 && p.chunk != nil {
			since = p.chunk.number<<placeBits | uint64(p.at)
		}
		if since < oldest {
			victim, oldest = j, since
		}
	}
	bucket[victim].Store(word)
}
