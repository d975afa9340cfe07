package node

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"

	"github.com/coocood/freecache"

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
	replies *freecache.Cache
	clock   freecache.StoppableTimer
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
	r := &readCache{clock: freecache.NewCachedTimer(), seed: maphash.MakeSeed(), stamps: make([]atomic.Uint32, keyStamps), door: make([]uint32, doorSlots)}
	r.replies = freecache.NewCacheCustomTimer(int(bytes), r.clock)
	return r
}

func (r *readCache) stop() {
	if r != nil {
		r.clock.Stop()
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
	b := append(make([]byte, 0, len(reply)+validitySize), reply...)
	b = binary.LittleEndian.AppendUint64(b, uint64(v.until))
	b = binary.LittleEndian.AppendUint64(b, v.epoch)
	b = binary.LittleEndian.AppendUint32(b, v.stamp)
	_ = r.replies.Set(appendRead(buf[:0], req), b, 0) // too large for it: then not
}

// recall appends the reply to a request to dst, if it is kept and holds.
func (r *readCache) recall(dst []byte, req *resp.Request) ([]byte, bool) {
	if r == nil || !req.Cmd.Pure(req.Args) {
		return dst, false
	}
	// Before the reply is looked for: what has changed until now does not count.
	epoch, stamp := r.epoch.Load(), r.stampOf(req.DB, req.Args[req.Cmd.First]).Load()
	var buf [128]byte
	b, err := r.replies.GetWithBuf(appendRead(buf[:0], req), dst[len(dst):cap(dst)])
	if err != nil || len(b) < validitySize {
		r.misses.Add(1)
		return dst, false
	}
	n := len(b) - validitySize
	v := b[n:]
	until := int64(binary.LittleEndian.Uint64(v))
	if binary.LittleEndian.Uint64(v[8:]) != epoch || binary.LittleEndian.Uint32(v[16:]) != stamp ||
		until != math.MaxInt64 && until <= time.Now().UnixMilli() {
		r.misses.Add(1)
		return dst, false
	}
	r.hits.Add(1)
	if len(dst)+len(b) <= cap(dst) {
		return dst[:len(dst)+n], true // it is there already
	}
	return append(dst, b[:n]...), true
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
