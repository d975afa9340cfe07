package node

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
)

// readCache keeps the view's replies to reads of one key (command.Command.Pure),
// so that connections answer them again without the executor or the view. All
// writes pass the executor, so it is exact: a reply holds as long as its key has
// not changed since the executor sent the read on its way, and the key's expiry
// has not passed.
//
// That a key has changed is told by a stamp, of which there is a fixed number:
// keys that share one by chance lose their replies to each other's writes, and
// nothing is searched or deleted when a key changes. The executor raises it
// before a write is answered, so nobody who knows of the write finds an older
// reply, and before any read behind the write is on its way.
//
// Only the executor calls seen, changed and forget; keep and recall are for any
// goroutine. A nil cache keeps nothing.
type readCache struct {
	replies *replyTable
	seed    maphash.Seed
	stamps  []atomic.Uint32
	epoch   atomic.Uint64 // all replies of earlier ones are void
	used    bool          // a reply was to be kept at some time; the executor's
	door    []uint32      // hashes of reads that were not worth a look at the store, of late

	hits, misses atomic.Uint64
}

const (
	keyStamps = 1 << 20
	doorSlots = 1 << 14
	// maxKept is the size of a reply from which on it is not kept: resp copies
	// what is smaller.
	maxKept = 16<<10 - 1
	// What the cache can be made of, in bytes.
	minReadCache = 512 << 10
	maxReadCache = 2 << 30
)

// validity says how long a reply holds. The zero value is that of a reply that
// is not to be kept.
type validity struct {
	until int64 // Unix milliseconds
	epoch uint64
	stamp uint32
}

// validitySize is that of a validity as it is kept behind a reply.
const validitySize = 8 + 8 + 4

func newReadCache(bytes int64) *readCache {
	if bytes < minReadCache {
		return nil
	}
	return &readCache{
		replies: newReplyTable(bytes), seed: maphash.MakeSeed(),
		stamps: make([]atomic.Uint32, keyStamps), door: make([]uint32, doorSlots),
	}
}

func (r *readCache) hitCount() uint64 {
	if r == nil {
		return 0
	}
	return r.hits.Load()
}

func (r *readCache) missCount() uint64 {
	if r == nil {
		return 0
	}
	return r.misses.Load()
}

func (r *readCache) stampOf(db uint8, key []byte) *atomic.Uint32 {
	return r.stampAt(db, maphash.Bytes(r.seed, key))
}

// stampAt returns the stamp of a key by the hash of its name.
func (r *readCache) stampAt(db uint8, hash uint64) *atomic.Uint32 {
	return &r.stamps[(hash+uint64(db)*0x9e3779b97f4a7c15)%keyStamps]
}

// changed says that a key is about to change.
func (r *readCache) changed(k crdt.Key) {
	if r == nil || !r.used {
		return
	}
	if r.stampAt(k.DB, maphash.String(r.seed, k.Name)).Add(1) == 0 { // once round: what has the next stamps may be old
		r.epoch.Add(1)
	}
}

// forget says that any key may have changed.
func (r *readCache) forget() {
	if r != nil {
		r.epoch.Add(1)
	}
}

// seen says how long the reply to a read will hold that the executor is about
// to send to the view; g knows the key. To look at the store for a key that the
// group does not know is only worth it for a read that comes again.
func (r *readCache) seen(req *resp.Request, g interface {
	KnownHeader(crdt.Key) (*crdt.Header, bool)
	Header(crdt.Key) *crdt.Header
}, now int64) (v validity) {
	if r == nil || !req.Cmd.Pure(req.Args) {
		return v
	}
	name := req.Args[req.Cmd.First]
	k := crdt.Key{DB: req.DB, Name: string(name)}
	h, known := g.KnownHeader(k)
	if !known {
		var buf [128]byte
		hash := maphash.Bytes(r.seed, appendRead(buf[:0], req))
		if slot := &r.door[hash%doorSlots]; *slot != uint32(hash>>32) {
			*slot = uint32(hash >> 32)
			return v
		}
		h = g.Header(k)
	}
	if h == nil || h.Swept || !h.Exists(now) || h.Type == crdt.TypeStream {
		return v // who misses a key is to be noticed: there are events of that
	}
	if h.FieldExpiries() > 0 {
		return v // which of its fields expires next is not at hand
	}
	v.until = math.MaxInt64
	if h.Expiry != 0 && h.Expiry != crdt.Never {
		v.until = h.Expiry
	}
	r.used = true
	v.epoch, v.stamp = r.epoch.Load(), r.stampOf(req.DB, name).Load()
	return v
}

// keep keeps the view's reply to a read.
func (r *readCache) keep(req *resp.Request, v validity, reply []byte) {
	if v.until == 0 || len(reply) > maxKept || len(reply) == 0 || reply[0] == '-' {
		return
	}
	var buf [128]byte
	key, head := appendRead(buf[:0], req), [validitySize]byte{}
	binary.LittleEndian.PutUint64(head[:], uint64(v.until))
	binary.LittleEndian.PutUint64(head[8:], v.epoch)
	binary.LittleEndian.PutUint32(head[16:], v.stamp)
	r.replies.put(maphash.Bytes(r.seed, key), key, head[:], reply)
}

// recall gives requests their replies that are kept and hold, and returns how many it
// has: of reads alone any of them, else those from the first on until one is missing.
// What it gives behind one that is missing has to be found to hold still (see holding)
// when that has its reply.
func (r *readCache) recall(reqs []*resp.Request) (done int) {
	if r == nil {
		return 0
	}
	alone := true
	if n := slices.IndexFunc(reqs, func(q *resp.Request) bool { return !q.Cmd.Pure(q.Args) }); n >= 0 {
		reqs, alone = reqs[:n], false
	}
	for i, missing := 0, false; i < len(reqs) && (alone || !missing); i += looksMost {
		some := reqs[i:min(i+looksMost, len(reqs))]
		n := r.recallSome(some, alone, missing)
		done, missing = done+n, missing || n < len(some)
	}
	if done < len(reqs) {
		r.misses.Add(1)
	}
	if done > 0 {
		r.hits.Add(uint64(done))
	}
	return done
}

// recallSome is recall for at most looksMost, which may all be kept; missing says that
// one before them is.
func (r *readCache) recallSome(reqs []*resp.Request, alone, missing bool) (done int) {
	var (
		looks  [looksMost]look
		out    [looksMost]found
		stamps [looksMost]uint32
		buf    [1024]byte
	)
	// Before the replies are looked for: what has changed until now does not count.
	epoch := r.epoch.Load()
	keys := buf[:0]
	for i, q := range reqs {
		from := len(keys)
		keys = appendRead(keys, q)
		key := keys[from:]
		looks[i] = look{hash: maphash.Bytes(r.seed, key), key: key}
		stamps[i] = r.stampOf(q.DB, q.Args[q.Cmd.First]).Load()
	}
	n := len(reqs)
	r.replies.find(looks[:n], out[:n])
	for i, f := range out[:n] {
		kept := len(f.value) >= validitySize
		if kept {
			until := int64(binary.LittleEndian.Uint64(f.value))
			kept = binary.LittleEndian.Uint64(f.value[8:]) == epoch && binary.LittleEndian.Uint32(f.value[16:]) == stamps[i] &&
				// Behind one that is missing it would have to be looked at again.
				(until == math.MaxInt64 || !missing && until > time.Now().UnixMilli())
		}
		if !kept {
			if !alone {
				break
			}
			missing = true
			continue
		}
		if f.old {
			r.replies.put(looks[i].hash, looks[i].key, f.value[:validitySize], f.value[validitySize:])
		}
		reqs[i].Out, reqs[i].Mark = f.value[validitySize:], mark(epoch, stamps[i])
		done++
	}
	return done
}

// mark says as of when a key's replies are kept.
func mark(epoch uint64, stamp uint32) uint64 { return epoch<<32 | uint64(stamp) }

// holding returns how many requests, from the first on, have replies that hold still, of
// such as recall gave them behind one that was missing.
func (r *readCache) holding(reqs []*resp.Request) int {
	epoch := r.epoch.Load()
	for i, q := range reqs {
		if q.Mark != mark(epoch, r.stampOf(q.DB, q.Args[q.Cmd.First]).Load()) {
			return i
		}
	}
	return len(reqs)
}

// appendRead appends what the reply to a read is kept under.
func appendRead(b []byte, req *resp.Request) []byte {
	b = append(b, req.DB, byte(req.Proto), byte(len(req.Cmd.Name)))
	b = append(b, req.Cmd.Name...)
	for _, a := range req.Args[1:] {
		b = binary.AppendUvarint(b, uint64(len(a)))
		b = append(b, a...)
	}
	return b
}
