package sim

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/node"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

// usedDBs is the number of databases that runs use. The last one is never
// flushed in the time of faults: it has the counters that must be exact.
const (
	usedDBs = 3
	exactDB = usedDBs - 1
)

const dataDir = "data"

// site is where a node runs: its machine's clock and disk, its Redis, and the
// process, if it runs.
type site struct {
	w         *world
	id        uint16
	fs        *vfs.MemFS
	redis     *redis
	saved     map[crdt.Key]*redisKey // what the Redis has on its own disk
	mark      *mark
	proc      *proc // nil: down
	lives     int
	lostPower bool            // and the node has not run since
	gone      bool            // forgotten: for good, though not everybody has heard so yet
	knows     map[uint16]bool // whom this node knows to be forgotten

	offset time.Duration // of the wall clock
	drift  int64         // of the wall clock, in millionths
	latest int64         // hybrid time, in Unix milliseconds, that was ever read here
	backup *vfs.MemFS
	paused bool
	// midSync says that the directory holds parts of a state sync, or may, while
	// the process is down.
	midSync bool

	// fenced says that the directory was rolled back without a trace. Clients
	// are kept away until every member has been heard: a node that writes
	// before it has heard from one that knows what was lost goes on in the
	// same incarnation, and nothing tells the two courses of it apart.
	fenced bool

	// What the oracle remembers beyond the process.
	tags  map[crdt.Stream]crdt.Tag // newest of each own stream, durable or not
	shown crdt.Vector              // all that was ever durable here
	must  crdt.Vector              // what the next process must find in the directory
	kept  bool                     // the directory is the one of the process before
}

func newSite(w *world, id uint16) *site {
	s := &site{w: w, id: id, fs: vfs.NewCrashableMem(), tags: map[crdt.Stream]crdt.Tag{}, knows: map[uint16]bool{}}
	s.redis = &redis{keys: map[crdt.Key]*redisKey{}, fields: s.id%2 == 0, now: func() int64 { return s.wall().UnixMilli() },
		rand: rand.New(rand.NewPCG(w.opts.Seed, uint64(id)<<8|1))}
	return s
}

// wall reads the machine's clock.
func (s *site) wall() time.Time {
	t := start.Add(s.w.now + s.offset + s.w.now/1_000_000*time.Duration(s.drift))
	s.latest = max(s.latest, t.UnixMilli())
	return t
}

// proc is a node's process.
type proc struct {
	site  *site
	w     *world
	log   *oplog.Log
	core  *node.Core
	peers *wan.Peers
	lane  func(crdt.Key) crdt.Lane
	dead  bool

	// The executor.
	queue    []work
	draining bool
	syncing  bool // a sync of the log is scheduled
	rose     bool // the durable vector has risen

	// The view.
	attached   bool // there is a connection
	tries      int  // attempts to bring the view level, so far
	level      bool // and clients are served
	viewQueue  []*node.Batch
	pumping    bool
	lost       []crdt.Key      // of updates that did not reach the view
	unmarked   *mark           // what the view holds, not marked yet
	rebuilding *oplog.Snapshot // the view is rebuilt from; nil if it is not
	markedAt   time.Duration

	synced bool // a step of a state sync was merged

	hidden uint64 // fields, as last counted

	// What the data links said.
	heard    map[uint16]wan.Heard
	syncs    syncs
	ahead    crdt.Vector  // of this node, as a peer knows it
	frontier wan.Frontier // what heartbeats say

	position crdt.Vector // as of the last commit
}

// work is one item of the executor's queue.
type work struct {
	cmds   []call
	ranges []crdt.Entry
	done   func(error)
	fn     func()
}

// start starts the node's process.
func (s *site) start() {
	if s.proc != nil || s.gone {
		return
	}
	w := s.w
	s.lives++
	p := &proc{site: s, w: w, lane: s.lane(), heard: map[uint16]wan.Heard{}, syncs: syncs{needed: map[uint16]bool{}}}
	retention := int64(0)
	if w.opts.Faults&Lapse != 0 {
		retention = 1500
	}
	seed := func(n uint64) *rand.Rand {
		return rand.New(rand.NewPCG(w.opts.Seed, uint64(s.id)<<32|uint64(s.lives)<<8|n))
	}
	var err error
	p.log, err = oplog.Open(oplog.Options{
		Dir: dataDir, FS: s.fs, Node: s.id, Fsync: w.opts.Fsync, ManualSync: true,
		RetentionBytes: retention, RetentionTime: 10 * 365 * 24 * time.Hour,
		CacheBytes: 1 << 20, KeyBytes: 1 << 20, MemTableBytes: 4 << 20, RedoBytes: 8 << 10, MinFree: -1,
		Now: s.wall, Rand: seed(2),
		Events: oplog.Events{Durable: func(crdt.Vector) { p.rose = true }},
	})
	w.check(err, fmt.Sprintf("node %d: opening the log", s.id))
	id := p.log.Identity()
	clock, err := crdt.NewClock(s.id, p.log.TagFloor(), w.opts.MaxSkew)
	w.check(err, "making a clock")
	p.core, err = node.NewCore(node.CoreOptions{
		Log: p.log, Clock: clock, Wall: s.wall, Rand: seed(3), View: p, Lane: p.lane,
		Logger: slog.New(slog.DiscardHandler),
	})
	w.check(err, "making a core")
	if s.lostPower {
		w.check(p.core.Distrust(), "beginning a generation")
		s.lostPower = false
	}
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(w.opts.Seed), byte(w.opts.Seed>>8), byte(s.id), byte(s.lives)
	region := ""
	if w.opts.Regions > 0 {
		region = fmt.Sprint("region", int(s.id)%w.opts.Regions)
	}
	p.peers, err = wan.NewPeers(wan.Config{
		Self: wan.Identity{Cluster: "sim", Region: region, Node: s.id, Alias: fmt.Sprintf("n%d", s.id), Address: fmt.Sprintf("node%d:1", s.id), Dir: fmt.Sprintf("%016x", id.Dir)},
		Log:  (*port)(p), Applier: (*port)(p), Secret: []byte("a secret"),
		BatchBytes: 400, Window: 2000, MinChunk: 128, MaxChunk: 1024, MaxBatch: 1 << 20,
		SyncThreshold: w.syncThreshold, NoCompression: !w.opts.Compress, Bandwidth: w.opts.Limit, Rand: io.Reader(rand.NewChaCha8(key)),
	})
	w.check(err, "making peers")
	p.syncs.taker.Post = func(fn func(*node.Core)) bool {
		p.enqueue(work{fn: func() {
			p.synced = true // a part of a step, if not all of it
			fn(p.core)
			p.committed()
		}})
		return true
	}
	p.syncs.taker.Go, p.syncs.taker.Log = func(fn func()) { fn() }, p.log
	p.syncs.taker.Compare, p.syncs.taker.Merged = p.peers.CompareSync, (*port)(p).merged
	s.proc = p
	p.peers.SetForgotten(s.forgotten())
	p.peers.SetPaused(s.paused)
	w.say("node %d starts: %v, at %v", s.id, id, p.log.Vector())
	w.oracle.opened(p)
	p.every(100*time.Millisecond, p.expire)
	p.every(250*time.Millisecond, func() { p.peers.Tick(w.time()) })
	p.every(400*time.Millisecond, p.maintain)
	p.every(5*time.Second, p.trim)
	p.every(700*time.Millisecond, func() {
		for _, m := range p.members() {
			_ = p.peers.SendVerify(m, &wan.Verify{})
		}
	})
	p.every(500*time.Millisecond, p.dial)
	w.after(w.between(0, 200*time.Millisecond), p.attach)
}

// every runs fn again and again while the process lives.
func (p *proc) every(d time.Duration, fn func()) {
	var tick func()
	tick = func() {
		if !p.dead {
			fn()
			p.w.after(d, tick)
		}
	}
	p.w.after(p.w.between(0, d), tick)
}

// kill ends the process without warning. Its open connections break; with
// silent set, as when a machine loses power, nobody is told.
func (s *site) kill(silent bool) {
	p := s.proc
	p.stop()
	s.fs = s.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(0, 0))})
	p.end(silent)
}

// losePower is kill with the loss of all that was not synced.
func (s *site) losePower() {
	p := s.proc
	p.stop()
	s.fs = s.fs.CrashClone(vfs.CrashCloneCfg{})
	s.lostPower = s.w.opts.Fsync != oplog.FsyncAlways
	p.end(true)
}

// stop makes the process do nothing any more.
func (p *proc) stop() {
	p.dead = true
	p.site.proc = nil
}

// end lets go of what a dead process held.
func (p *proc) end(silent bool) {
	for _, c := range append([]*conn(nil), p.w.conns...) {
		for _, e := range c.ends {
			if e.proc != p || e.closed {
				continue
			}
			if silent {
				e.closed = true
				if e.other.closed {
					e.forgetConn()
				}
			} else {
				e.close()
			}
		}
	}
	p.peers.CloseAll(wan.ErrDisconnected)
	p.endRebuild()
	_ = p.log.Close() // of the old disk: whatever it writes there is not seen
}

// discard releases a site's memory at the end of a run.
func (s *site) discard() {
	if p := s.proc; p != nil {
		p.stop()
		p.peers.CloseAll(wan.ErrDisconnected)
		p.endRebuild()
		_ = p.log.Close()
	}
}

// members lists the other nodes that belong to the cluster.
func (p *proc) members() []uint16 {
	var out []uint16
	for _, s := range p.w.sites {
		if s != p.site && !p.site.knows[s.id] {
			out = append(out, s.id)
		}
	}
	return out
}

// dial connects to those to whom there is no session.
func (p *proc) dial() {
	for _, o := range p.w.sites {
		if o == p.site || o.proc == nil || !p.w.opts.Shape.linked(int(p.site.id)-1, int(o.id)-1, len(p.w.sites)) || p.site.knows[o.id] || p.peers.Live(o.id) || p.connecting(o.proc) ||
			p.w.link(p.site.id, o.id).blocked || p.w.link(o.id, p.site.id).blocked || p.w.chance(30) {
			continue
		}
		p.w.dial(p, o.proc)
	}
}

// connecting reports whether a connection that p has dialled is under way.
func (p *proc) connecting(to *proc) bool {
	for _, c := range p.w.conns {
		if c.ends[0].proc == p && c.ends[1].proc == to && !c.ends[0].closed {
			return true
		}
	}
	return false
}

// enqueue gives the executor something to do.
func (p *proc) enqueue(k work) {
	p.queue = append(p.queue, k)
	if p.draining {
		return
	}
	p.draining = true
	p.w.after(p.w.between(0, 3*time.Millisecond), func() {
		if !p.dead {
			p.draining = false
			p.drain()
		}
	})
}

// drain runs what is queued as one commit group, as the executor does.
func (p *proc) drain() {
	queue := p.queue
	p.queue = nil
	for _, k := range queue {
		switch {
		case k.fn != nil:
			p.commit()
			k.fn()
		case k.cmds != nil:
			p.run(k.cmds)
		default:
			p.core.Apply(k.ranges, k.done)
		}
	}
	p.commit()
}

// commit ends the open group.
func (p *proc) commit() {
	p.w.check(p.core.Commit(), fmt.Sprintf("node %d: commit", p.site.id))
	p.committed()
}

// committed sees to it that what was committed becomes durable.
func (p *proc) committed() {
	p.w.oracle.committed(p)
	if p.syncing || p.log.Durable().Equal(p.log.Vector()) {
		return
	}
	p.syncing = true
	p.w.after(p.w.mean(100*time.Millisecond), func() {
		if !p.dead {
			p.syncing = false
			p.sync()
		}
	})
}

func (p *proc) sync() { p.w.check(p.log.Sync(), fmt.Sprintf("node %d: sync", p.site.id)) }

// expire hides what has expired, as the executor's tick does.
func (p *proc) expire() {
	if p.core.SweepDue(p.core.Now()) {
		p.enqueue(work{fn: p.sweep})
	}
}

// sweep hides all that has expired by now.
func (p *proc) sweep() {
	for p.core.SweepDue(p.core.Now()) {
		p.core.Defer(func(error) {})
		p.commit()
	}
}

// maintain does what Node.maintain does.
func (p *proc) maintain() {
	p.enqueue(work{fn: func() {
		co := &node.Company{Members: p.members(), Forgotten: p.site.forgotten(), Heard: maps.Clone(p.heard)}
		maps.DeleteFunc(co.Heard, func(_ uint16, h wan.Heard) bool { return h.Tag == 0 })
		if f, ok := p.core.Beat(co); ok {
			p.frontier = f
		}
		purged := p.core.Stats.Purged
		_, err := p.core.Maintain(co)
		p.w.check(err, "maintenance")
		p.w.oracle.counts["fields hidden"] += int(p.core.Stats.SweptFields - p.hidden)
		p.hidden = p.core.Stats.SweptFields
		if n := p.core.Stats.Purged - purged; n > 0 {
			p.w.say("node %d purges %d keys", p.site.id, n)
			p.w.oracle.counts["purged"] += int(n)
		}
		p.committed()
	}})
}

// trim does what Node.trim does.
func (p *proc) trim() {
	acked := p.log.Durable()
	if p.site.redis.mark != nil {
		acked = meet(acked, p.site.redis.mark.vector)
	} else {
		acked = nil
	}
	for _, m := range p.members() {
		acked = meet(acked, p.heard[m].Durable)
	}
	_, err := p.log.Trim(acked)
	p.w.check(err, "trim")
}

// meet returns what both vectors cover.
func meet(a, b crdt.Vector) crdt.Vector {
	var out crdt.Vector
	for _, q := range a {
		if t := min(q.Tag, b.Get(q.Stream)); t > 0 {
			out = append(out, crdt.Position{Stream: q.Stream, Tag: t})
		}
	}
	return out
}

// reincarnate does what the node does when a peer is ahead of it.
func (p *proc) reincarnate() {
	theirs := p.ahead
	p.ahead = nil
	p.commit()
	own := p.log.Identity().Origin
	for _, q := range theirs {
		if q.Stream.Origin() == own && q.Tag > p.log.Vector().Get(q.Stream) {
			p.w.check(p.core.Reincarnate("a peer is ahead"), "new incarnation")
			p.w.say("node %d is now %v", p.site.id, p.log.Identity())
			p.w.oracle.counts["reincarnations"]++
			p.peers.CloseAll(wan.ErrDisconnected)
			return
		}
	}
}

// inParts reports whether state syncs have brought parts of the keyspace ahead
// of the vector.
func (p *proc) inParts() bool {
	b, err := p.log.Meta("sync/regions")
	p.w.check(err, "reading a blob")
	return b != nil
}
