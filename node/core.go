package node

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
	"github.com/replicatord/replicatord/wan"
)

// View is the local Redis as the core sees it.
type View interface {
	// Send queues a committed batch. Batches are applied in the order sent.
	Send(*Batch)
	// Ask returns the raw reply to one command, after everything sent before
	// it has been applied.
	Ask(db int, args ...[]byte) ([]byte, error)
	// Flush has all that was sent applied without further delay.
	Flush()
}

// Core is one replica: it turns clients' commands and peers' entries into
// state, log and updates for the view. It has no goroutines and reads no clock
// but the one it is given, so that a simulator can drive it as the executor
// does. Not safe for concurrent use.
//
// Work is gathered into a commit group, begun by the first Do, Apply or merge
// and ended by Commit. A group holds peers' entries first and local writes
// after them, under one tag that is greater than every tag they have seen.
type Core struct {
	log   *oplog.Log
	clock *crdt.Clock
	wall  func() time.Time
	rand  *rand.Rand
	view  View
	lane  func(crdt.Key) crdt.Lane
	slog  *slog.Logger

	maxEntry int // bytes

	ks      crdt.Keyspace
	group   *oplog.Group
	writer  *crdt.Writer // set once the group has a local command: spare
	spare   crdt.Writer
	batch   *Batch
	dones   []func(error)
	regions regions
	merged  []*syncRange // by the open group

	// generation counts the changes of state that the log does not tell entry
	// by entry: a view of an earlier one cannot be caught up from the log.
	generation uint64

	// The view knows expiries of fields, and cannot count HyperLogLogs.
	fields, countless bool

	waiters waiters
	news    news
	marker  []byte // see Batch
	// lazyExpiry: no group is begun just because keys have expired (DEBUG
	// SET-ACTIVE-EXPIRE).
	lazyExpiry bool
	watches    watches
	scripts    *command.Scripts
	stocks     command.Stocks
	replies    *readCache
	tx         tx                    // of the running unit
	touched    []crdt.Key            // by the running unit; see endUnit
	seen       map[crdt.Key]struct{} // of those, empty in between
	changed    func(by *resp.Request, keys []crdt.Key)
	ahead      []crdt.Key // sent to the view before their commit, in the open group
	toKeep     []ViewCmd  // reads that the open group has answered itself

	// dirty gathers the keys that changed while the view was down; nil while
	// it is up.
	dirty   map[crdt.Key]struct{}
	everyDB bool // too much changed to remember: rebuild

	// Counters of what happened, for INFO and metrics.
	Stats CoreStats
}

// CoreStats counts what a core has done since it started.
type CoreStats struct {
	Groups, Commands, Writes, Reads   uint64
	Entries, Duplicates, Gaps, Skewed uint64
	LocalEntries, LocalDeltas         uint64
	Updates, Swept, Purged, Tidied    uint64
	SweptFields                       uint64
	SyncedKeys, SyncedCells           uint64
	NearHits, NearMisses              uint64                // reads answered without the view: of keys that were there, or not
	Conflicts                         [crdt.NumTypes]uint64 // by the type that shows
}

// CoreOptions are what a core is made of.
type CoreOptions struct {
	Log   *oplog.Log
	Clock *crdt.Clock
	Wall  func() time.Time
	Rand  *rand.Rand
	View  View
	Lane  func(crdt.Key) crdt.Lane // nil: everything is in lane 1
	// Listener hears, once they are committed, of changes that clients want to
	// be told of. nil: nobody does.
	Listener Listener
	// Scripts are the node's scripts and functions. nil: none are logged, and
	// the clock is Wall.
	Scripts *command.Scripts
	// Replies keeps the view's replies. nil: none are kept.
	Replies *readCache
	// Changed, if set, is told after each unit which keys it has changed: a
	// client's request, or, if that is nil, peers' entries or the passing of
	// time. It does not keep the keys.
	Changed func(by *resp.Request, keys []crdt.Key)
	Logger  *slog.Logger
}

// DefaultLane is the lane of keys no rule speaks of.
const DefaultLane crdt.Lane = 1

// NewCore returns the core of a replica. The view is taken to be down until
// ViewUp.
func NewCore(o CoreOptions) (*Core, error) {
	c := &Core{log: o.Log, clock: o.Clock, wall: o.Wall, rand: o.Rand, view: o.View, lane: o.Lane, slog: o.Logger, maxEntry: wan.DefaultMaxBatch - 1<<20}
	c.dirty = map[crdt.Key]struct{}{}
	c.marker = fmt.Appendf(nil, "replicatord:%016x%016x", o.Rand.Uint64(), o.Rand.Uint64())
	c.news = newNews(c, o.Listener)
	c.waiters, c.changed = newWaiters(), o.Changed
	c.watches, c.scripts, c.replies = newWatches(), o.Scripts, o.Replies
	if c.scripts == nil {
		c.scripts = command.NewScripts(func() int64 { return o.Wall().UnixMilli() }, nil, c.rand.Uint32)
	}
	c.ks.OnTouch, c.ks.OnConflict = c.noteTouch, c.noteConflict
	b, err := o.Log.Meta(regionsMeta)
	if err != nil {
		return nil, err
	}
	if c.regions, err = decodeRegions(b); err != nil {
		return nil, err
	}
	c.log.SetAhead(len(c.regions.parts) > 0)
	if b, err = o.Log.Meta(generationMeta); err == nil && len(b) == 8 {
		c.generation = binary.BigEndian.Uint64(b)
	}
	return c, err
}

// newGeneration begins a generation with the open group. Its number is drawn, not
// counted on: one that was lost with the power, and which the view has seen, must
// not come again.
func (c *Core) newGeneration() {
	c.generation = c.rand.Uint64() >> 1 // not unbuilt
	c.group.SetMeta(generationMeta, binary.BigEndian.AppendUint64(nil, c.generation))
}

// Distrust begins a new generation, for good: no view of now or before is
// trusted any more, nor a copy of one that comes back later.
func (c *Core) Distrust() error {
	if err := c.Commit(); err != nil {
		return err
	}
	c.begin()
	c.newGeneration()
	if err := c.Commit(); err != nil {
		return err
	}
	return c.log.Sync()
}

// ErrGap reports entries that do not follow what has been applied.
var ErrGap = errors.New("entries are missing before this range")

// begin starts a group if there is none.
func (c *Core) begin() {
	if c.group != nil {
		return
	}
	c.group = c.log.Begin()
	c.ks.Store = c.group
	c.ks.Have = c.log.Vector()
	c.ks.HaveOf = nil
	c.ks.PendingOf = nil
	if len(c.regions.parts) > 0 {
		c.ks.HaveOf, c.ks.PendingOf = c.haveOf, c.pendingOf
	}
	c.batch = &Batch{marker: c.marker, fields: c.fields}
	c.sweep()
	c.endUnit(nil)
}

// Pending reports whether a group is open.
func (c *Core) Pending() bool { return c.group != nil }

// HasLocal reports whether the open group has local commands: peers' entries
// then belong to the next.
func (c *Core) HasLocal() bool { return c.writer != nil }

// Size returns the open group's commands for the view and their bytes.
func (c *Core) Size() (cmds, bytes int) {
	if c.batch == nil {
		return 0, 0
	}
	return len(c.batch.Cmds) + len(c.ks.Touched), c.batch.Bytes
}

// Now returns the hybrid time in Unix milliseconds.
func (c *Core) Now() int64 { return c.clock.Now(c.wall()) }

// startLocal makes the group ready for local writes.
func (c *Core) startLocal() {
	c.begin()
	if c.writer == nil {
		now := c.wall()
		tag := c.clock.Next(now)
		c.sweep() // time has passed since the group began: by its entries even a lot
		c.writer = &c.spare
		c.writer.Reset(&c.ks, c.log.Identity().Origin, tag, c.clock.Now(now))
	}
}

// Apply applies consecutive ranges of peers' streams. done is called once they
// are committed, or with why they were refused; nothing of a refused call is
// kept. The caller has made sure that no local command is in the group.
func (c *Core) Apply(ranges []crdt.Entry, done func(error)) {
	if c.writer != nil {
		if err := c.Commit(); err != nil {
			done(err)
			return
		}
	}
	c.begin()
	now := c.wall()
	have := c.group.Vector()
	for _, e := range ranges {
		err := e.Validate()
		if err == nil {
			if err = c.clock.Witness(e.Tag, now); err != nil {
				c.Stats.Skewed++
			}
		}
		switch {
		case err != nil:
		case c.ks.Astray(&e):
			err = fmt.Errorf("%w: stream %v", ErrAstray, e.Stream)
		case e.Prev > have.Get(e.Stream):
			c.Stats.Gaps++
			err = fmt.Errorf("%w: stream %v is at %v here, the range begins after %v", ErrGap, e.Stream, have.Get(e.Stream), e.Prev)
		case e.Stream.Origin() == c.log.Identity().Origin && e.Tag > have.Get(e.Stream):
			err = fmt.Errorf("%w: stream %v", ErrRolledBack, e.Stream)
		}
		if err != nil {
			done(err)
			return
		}
		have = have.Clone()
		have.Raise(e.Stream, e.Tag)
	}
	c.news.watch()
	for i := range ranges {
		e := ranges[i]
		at := c.ks.Have.Get(e.Stream)
		if e.Tag <= at {
			c.Stats.Duplicates++
			continue
		}
		if e.Prev < at {
			e = e.After(at) // as it is logged and handed on
		}
		c.ks.Apply(&e)
		c.news.flushed = c.news.flushed || slices.ContainsFunc(e.Deltas, func(d crdt.Delta) bool { return d.Level == crdt.LevelDB })
		c.Stats.Entries++
		if err := c.group.Append(&e); err != nil {
			done(c.abort(err))
			return
		}
		c.ks.Have = c.group.Vector()
	}
	c.dones = append(c.dones, done)
	c.news.arrived()
	c.endUnit(nil)
	c.serveWaiters()
}

// ErrRolledBack reports that a peer knows writes of this node that it does not
// know itself: its data directory is older than what it has shipped.
var ErrRolledBack = errors.New("a peer knows later writes of this node than this node does")

// ErrAstray reports writes of an earlier life of a node that all members had
// given up for lost, and which no longer fit. The directory they come from is
// an old copy, to be removed.
var ErrAstray = errors.New("increments of a life that had ended come from an old copy of a data directory, to a counter that was deleted since: remove that directory and start its node anew")

// flushTouched appends the view updates for everything changed so far.
func (c *Core) flushTouched() {
	if len(c.ks.Touched) == 0 {
		return
	}
	now := c.Now()
	if c.dirty != nil {
		for k := range c.ks.Touched {
			c.remember(k)
		}
		c.ks.Untouch()
		return
	}
	b, n := c.batch, len(c.ks.Touched)
	b.Keys, b.more = slices.Grow(b.Keys, n), n
	had := len(b.Cmds)
	c.ks.EachTouched(func(k crdt.Key, t *crdt.Touch) {
		b.more--
		b.Keys = append(b.Keys, k)
		materialise(b, c.group, k, t, now)
	})
	c.Stats.Updates += uint64(len(b.Cmds) - had)
	c.ks.Untouch()
}

func compareKeys(a, b crdt.Key) int {
	return cmp.Or(cmp.Compare(a.DB, b.DB), cmp.Compare(a.Name, b.Name))
}

// maxDirty bounds the keys remembered while the view is down.
const maxDirty = 1 << 20

func (c *Core) remember(k crdt.Key) {
	if len(c.dirty) >= maxDirty {
		c.everyDB = true
		clear(c.dirty)
	}
	if !c.everyDB {
		c.dirty[k] = struct{}{}
	}
}

// Commit ends the group: one log entry per lane, one atomic write, then the
// view's batch. On an error nothing of the group has happened; the error has
// been given to the done functions, and the caller owes it to the commands.
func (c *Core) Commit() error {
	if c.group == nil {
		return nil
	}
	c.endUnit(nil)
	if c.writer != nil {
		for _, e := range c.writer.Entries() {
			c.Stats.LocalEntries++
			c.Stats.LocalDeltas += uint64(len(e.Deltas))
			was := c.group.EntryBytes()
			if err := c.group.Append(&e); err != nil {
				return c.abort(err)
			}
			if n := c.group.EntryBytes() - was; n > c.maxEntry {
				// No node would take it, and nothing after it could reach any.
				return c.abort(fmt.Errorf("%d bytes at once are more than nodes send each other (%d); write them in several steps", n, c.maxEntry))
			}
			if err := c.log.Reserve(e.Tag); err != nil {
				return c.abort(err)
			}
		}
	}
	c.settleRegions()
	c.flushTouched()
	if c.scripts.Stale() {
		c.scripts.Refresh(crdt.NewWriter(&c.ks, c.log.Identity().Origin, 0, c.Now()))
	}
	if err := c.group.Commit(); err != nil {
		return c.abort(err)
	}
	c.log.SetAhead(len(c.regions.parts) > 0)
	c.Stats.Groups++
	c.news.tell()
	b, dones := c.batch, c.dones
	for _, r := range c.toKeep {
		c.replies.keep(r.Req, r.holds, r.Req.Out)
	}
	c.ahead = nil
	c.end()
	b.Vector, b.Generation = c.log.Vector(), c.generation
	if len(b.Cmds)+len(b.Keys)+len(b.Done) > 0 { // perhaps all of it was sent ahead
		c.view.Send(b)
	}
	for _, done := range dones {
		done(nil)
	}
	return nil
}

// abort gives the group up.
func (c *Core) abort(err error) error {
	if c.group == nil {
		return err
	}
	c.news.drop()
	c.group.Discard()
	c.scripts.Changed()
	dones := append(c.dones, c.batch.Done...)
	c.touched = c.touched[:0]
	c.stocks.Clear()
	c.end()
	c.takeBack()
	for _, done := range dones {
		done(err)
	}
	return err
}

func (c *Core) end() {
	if c.writer != nil {
		c.writer.Release()
	}
	c.group, c.writer, c.batch, c.dones = nil, nil, nil, nil
	c.ks.Store = nil
	c.ks.Untouch()
	clear(c.toKeep)
	c.toKeep = c.toKeep[:0]
}

// Defer calls done when the open group is committed, or has failed.
func (c *Core) Defer(done func(error)) {
	c.begin()
	c.dones = append(c.dones, done)
}

// ViewIs says of the view to come whether it knows expiries of fields, and
// whether it cannot count HyperLogLogs.
func (c *Core) ViewIs(fields, countless bool) { c.fields, c.countless = fields, countless }

// byView reports whether the view answers a request.
func (c *Core) byView(q *resp.Request) bool {
	return q.Cmd.ByView(q.Args) && !(c.countless && q.Cmd.Name == "PFCOUNT")
}

// ViewDown tells the core that the view is gone: changes are remembered until
// ViewUp.
func (c *Core) ViewDown() {
	c.replies.forget()
	if c.dirty == nil {
		c.dirty = map[crdt.Key]struct{}{}
	}
}

// Remember adds keys to those that the view must be given anew: of batches
// that did not reach it.
func (c *Core) Remember(keys []crdt.Key) {
	c.ViewDown()
	for _, k := range keys {
		c.remember(k)
	}
}

// Forget drops what was remembered: the view is about to be rebuilt whole.
func (c *Core) Forget() {
	c.dirty, c.everyDB = map[crdt.Key]struct{}{}, false
}

// Rewrite sends keys to the view as the cells have them, whole.
func (c *Core) Rewrite(keys []crdt.Key) error {
	if err := c.Commit(); err != nil {
		return err
	}
	c.begin()
	now := c.Now()
	b := &Batch{Keys: keys, fields: c.fields}
	for _, k := range keys {
		c.replies.changed(k)
		materialise(b, c.group, k, &crdt.Touch{Whole: true}, now)
	}
	if err := c.Commit(); err != nil {
		return err
	}
	c.view.Send(b)
	return nil
}

// Rebuilding returns the state from which a view that is empty is to be written
// (Rebuild). What changes from now on is remembered until ViewUp. The snapshot
// must be closed.
func (c *Core) Rebuilding() (*oplog.Snapshot, error) {
	if err := c.Commit(); err != nil {
		return nil, err
	}
	c.Forget()
	return c.log.Snapshot()
}

// Rebuild returns the updates that write keys of a snapshot, from a position on,
// into a view that is empty: up to n keys, and not much more than viewBatchSize.
// It returns the position behind them, nil when none are left. now is in Unix
// milliseconds; fields says that the view knows expiries of fields.
func Rebuild(snap *oplog.Snapshot, pos []byte, n int, now int64, fields bool) (b *Batch, next []byte, err error) {
	b = &Batch{fields: fields}
	var one oneKey
	err = snap.Each(pos, nil, math.MaxInt, func(st *oplog.KeyState) error {
		if len(b.Keys) == n || b.Bytes > viewBatchSize {
			next = oplog.Pos(st.Key)
			return errFull
		}
		b.Keys = append(b.Keys, st.Key)
		if st.Header == nil || st.Header.Swept {
			return nil
		}
		if err := one.read(st); err != nil {
			return err
		}
		materialise(b, &one, st.Key, &crdt.Touch{}, now)
		return nil
	})
	if errors.Is(err, errFull) {
		err = nil
	}
	return b, next, err
}

// ViewUp brings the view level with what changed while it was down, and from
// now on sends every change. again says that too much has changed to be
// remembered: the view must be rebuilt.
func (c *Core) ViewUp() (again bool, err error) {
	if err := c.Commit(); err != nil {
		return false, err
	}
	if c.everyDB {
		return true, nil
	}
	keys := slices.SortedFunc(maps.Keys(c.dirty), compareKeys)
	c.dirty = nil
	for len(keys) > 0 && err == nil {
		n := min(len(keys), rewriteStep)
		err = c.Rewrite(keys[:n])
		keys = keys[n:]
	}
	if err == nil {
		c.view.Send(&Batch{Vector: c.log.Vector(), Generation: c.generation}) // to be marked as level
	}
	return false, err
}

// Beat returns what heartbeats may say. ok is false while something is not
// durable yet.
func (c *Core) Beat(co *Company) (f wan.Frontier, ok bool) {
	v := c.log.Durable()
	if c.group != nil || !v.Equal(c.log.Vector()) {
		return f, false
	}
	f.Tag = c.clock.Next(c.wall())
	if c.log.Reserve(f.Tag) != nil {
		return f, false // a crash could take the promise back
	}
	own := c.log.Identity()
	for _, p := range v {
		if p.Stream.Node() == own.Node {
			f.Own = append(f.Own, p)
		}
	}
	if len(c.regions.parts) == 0 {
		f.Census = census(co.lives(own.Origin))
	}
	return f, true
}

// reincarnate gives this node a new incarnation; what it wrote in the old one
// stays. The view's watermark speaks of the old one and no longer counts.
func (c *Core) reincarnate(why string) error {
	if err := c.Commit(); err != nil {
		return err
	}
	return c.log.NewIncarnation(why)
}
