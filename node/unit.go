package node

import (
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// A unit is what is never seen in part: a command, a transaction, a script.
// Its writes are one entry.
//
// What a unit wants to know of the view it asks for at once. If it has written
// nothing yet, the group so far is committed first: log, then view. Else that
// would cut the unit in two, so its updates are sent ahead of the log: the view
// is told first, in its watermark, which keys those are. Nobody but the unit
// reads the view before the group is committed; if it is not, or if the node
// dies before, these keys are written anew from the cells.

// unit begins a unit of the open group's local writes.
func (c *Core) unit() *tx {
	c.tx = tx{Writer: c.writer, core: c, from: c.writer.Writes()}
	return &c.tx
}

// tx gives the commands of a unit the writer and the view.
type tx struct {
	*crdt.Writer
	core *Core
	from int             // the writer's writes when the unit began
	held bool            // reads of the unit are in the batch
	ctx  command.Context // of the command that runs
}

// Rand implements command.Tx.
func (t *tx) Rand() *rand.Rand { return t.core.rand }

// View implements command.Tx.
func (t *tx) View(db uint8, args ...[]byte) ([]byte, error) {
	if err := t.level(); err != nil {
		return nil, err
	}
	return t.core.view.Ask(int(db), args...)
}

// View3 is View with a reply in RESP3.
func (t *tx) View3(db uint8, args ...[]byte) ([]byte, error) {
	if err := t.level(); err != nil {
		return nil, err
	}
	req := &resp.Request{Proto: 3}
	answered := make(chan error, 1)
	b := &Batch{Done: []func(error){func(err error) { answered <- err }}}
	b.add(ViewCmd{DB: int(db), Args: args, Req: req})
	t.core.view.Send(b)
	t.core.view.Flush()
	err := <-answered
	return req.Out, err
}

// level brings the view level with what the unit has seen so far.
func (t *tx) level() error {
	c := t.core
	if t.held || t.Writes() > t.from {
		return c.sendAhead()
	}
	lane := c.writer.Lane()
	if err := c.Commit(); err != nil {
		return err
	}
	c.startLocal()
	c.writer.SetLane(lane)
	t.Writer, t.from = c.writer, 0
	return nil
}

// context returns the context of a command of the unit.
func (t *tx) context(req *resp.Request) command.Context {
	ctx := command.Context{Tx: t, DB: req.DB, Args: req.Args, Out: command.Reply{Proto: max(2, req.Proto)}, Scripts: t.core.scripts, Stocks: &t.core.stocks, Observer: &t.core.news}
	if req.Session != nil {
		ctx.Client, ctx.Watches = req.Session, sessionWatches{t.core, req.Session}
	}
	return ctx
}

// Do runs one client command. A write has its reply in req.Out at once, to be
// sent after the commit; a read has it when the view has answered; one that
// waits has it later, see Waiting.
func (c *Core) Do(req *resp.Request) {
	c.Stats.Commands++
	switch {
	case len(req.Subs) > 0:
		c.transaction(req)
	case c.byView(req):
		c.begin()
		if !c.near(req) {
			c.read(req)
			return
		}
		c.startLocal()
		c.readNear(c.unit(), req)
	default:
		c.startLocal()
		c.chooseLane(req)
		c.step(c.unit(), req, false)
	}
	c.endUnit(req)
	c.serveWaiters()
}

// read puts a read into the batch, behind the updates so far.
func (c *Core) read(req *resp.Request) {
	c.Stats.Reads++
	c.flushTouched()
	c.news.reads(req)
	c.news.missed(req.Cmd, req.DB, req.Args)
	c.batch.add(ViewCmd{DB: int(req.DB), Args: req.Args, Req: req, holds: c.replies.seen(req, c.group, c.Now())})
}

// near reports whether what the view would answer to a read is in memory: of what
// was written or read lately it mostly is, and the view need not be asked.
func (c *Core) near(req *resp.Request) bool {
	id, ok := req.Cmd.Near(req.DB, req.Args)
	if !ok || !c.group.Knows(id) {
		return false
	}
	h := c.group.Header(id.Key)
	return h == nil || !(id.Kind == crdt.KindString && h.Live[crdt.KindRegisters] > 0 || id.Kind == crdt.KindField && h.FieldExpiries() > 0)
}

// readNear answers such a read from the cells, as a command of a unit. The reply is
// kept like one of the view's, once what it tells of is committed.
func (c *Core) readNear(t *tx, req *resp.Request) {
	if t.Type(crdt.Key{DB: req.DB, Name: string(req.Args[req.Cmd.First])}) == crdt.TypeNone {
		c.Stats.NearMisses++
	} else {
		c.Stats.NearHits++
	}
	holds := c.replies.seen(req, c.group, c.Now())
	c.step(t, req, true)
	if holds.until != 0 {
		c.toKeep = append(c.toKeep, ViewCmd{Req: req, holds: holds})
	}
}

// transaction runs the commands of a transaction, each of which gets its own
// reply.
func (c *Core) transaction(req *resp.Request) {
	c.startLocal()
	if c.fails(req.Session) {
		out := command.Reply{Proto: max(2, req.Proto)}
		out.NullArray()
		req.Out = out.Buf
		return
	}
	lane := crdt.Lane(crdt.Lanes - 1)
	for _, q := range req.Subs {
		lane = min(lane, c.laneOf(q))
	}
	c.writer.Begin(lane)
	t := c.unit()
	for _, q := range req.Subs {
		switch {
		case !c.byView(q):
			c.step(t, q, true)
		case c.near(q):
			c.readNear(t, q)
		default:
			c.read(q)
			t.held = true
		}
	}
}

// step runs a command of a unit on the cells.
func (c *Core) step(t *tx, req *resp.Request, noWait bool) {
	if req.Cmd.Flags&command.Write != 0 {
		c.Stats.Writes++
	} else {
		c.Stats.Reads++
		c.news.reads(req)
	}
	t.ctx = t.context(req)
	ctx := &t.ctx
	ctx.NoWait = noWait
	c.news.by = req
	c.news.begin(req.Cmd, ctx)
	if run := req.Cmd.Run; run != nil {
		run(ctx)
	} else {
		req.Cmd.Local(ctx) // for the view
	}
	c.news.end(req.Cmd, ctx)
	req.Out, req.Counted = ctx.Out.Buf, ctx.Counted
	if ctx.Waits != nil {
		c.waiters.add(&waiter{req: req, wait: ctx.Waits, done: func(error) {}})
	}
}

// maxSeen is of how many keys a unit may have had, for what tells them apart to be
// used again.
const maxSeen = 4096

// endUnit ends a unit: of a client's request, or, if that is nil, of peers' ranges
// or of time. Those who watch keys are told which it has changed.
func (c *Core) endUnit(by *resp.Request) {
	if len(c.touched) == 0 && !c.news.flushed {
		return
	}
	for _, k := range c.touched {
		c.waiters.changed(k) // in the order in which they changed
	}
	if len(c.touched) > 1 { // each once, in the order in which they changed
		if c.seen == nil {
			c.seen = make(map[crdt.Key]struct{}, len(c.touched))
		}
		c.touched = slices.DeleteFunc(c.touched, func(k crdt.Key) bool {
			n := len(c.seen)
			c.seen[k] = struct{}{}
			return len(c.seen) == n
		})
		if len(c.seen) > maxSeen {
			c.seen = nil
		}
		clear(c.seen)
	}
	c.news.unit(by, c.touched)
	for _, k := range c.touched {
		c.noteWatched(k)
		c.replies.changed(k)
	}
	if c.changed != nil {
		c.changed(by, c.touched)
	}
	c.touched = c.touched[:0]
}

// wake tells those who watch keys of changes that are no unit's, and runs what
// waits for them.
func (c *Core) wake() {
	c.endUnit(nil)
	c.serveWaiters()
}

// noteTouch gathers the keys that the running unit changes.
func (c *Core) noteTouch(k crdt.Key) {
	c.stocks.Changed(k)
	if command.IsLibraries(k) {
		c.scripts.Changed()
	}
	c.news.writes(k)
	if c.news.watching {
		c.news.noteTouch(k)
	}
	if n := len(c.touched); n == 0 || c.touched[n-1] != k {
		c.touched = append(c.touched, k)
	}
}

// chooseLane puts the command's writes in the lane of its most urgent key, all
// of them in one entry.
func (c *Core) chooseLane(req *resp.Request) {
	if c.lane == nil {
		c.writer.SetLane(DefaultLane)
		return
	}
	if refs := req.Cmd.FindKeys(req.Args); len(refs) == 1 && req.Cmd.Group != "scripting" {
		c.writer.SetLane(c.laneOf(req))
	} else {
		c.writer.Begin(c.laneOf(req))
	}
}

// laneOfKey returns the lane of a key.
func (c *Core) laneOfKey(k crdt.Key) crdt.Lane {
	if c.lane == nil {
		return DefaultLane
	}
	return c.lane(k)
}

// laneOf returns the lane of a command's most urgent key.
func (c *Core) laneOf(req *resp.Request) crdt.Lane {
	if c.lane == nil {
		return DefaultLane
	}
	refs := req.Cmd.FindKeys(req.Args)
	if len(refs) == 0 {
		return DefaultLane
	}
	lane := crdt.Lane(crdt.Lanes - 1)
	for _, r := range refs {
		lane = min(lane, c.lane(crdt.Key{DB: req.DB, Name: string(req.Args[r.Arg])}))
	}
	return lane
}

// sendAhead sends what the open group has for the view before it is committed.
func (c *Core) sendAhead() error {
	keys := slices.SortedFunc(maps.Keys(c.ks.Touched), compareKeys)
	c.flushTouched()
	c.ahead = append(c.ahead, keys...)
	b := &Batch{Cmds: c.batch.Cmds, Bytes: c.batch.Bytes, Keys: keys, Ahead: keys}
	c.batch.Cmds, c.batch.Bytes = nil, 0
	if len(b.Cmds) == 0 {
		return nil
	}
	var lost error
	answered := make(chan struct{})
	b.Done = []func(error){func(err error) { lost = err; close(answered) }}
	c.view.Send(b)
	c.view.Flush()
	<-answered
	for i := range b.Cmds {
		if r := b.Cmds[i].Req; lost != nil && r != nil && len(r.Out) == 0 {
			fail(r, viewAway)
		}
	}
	return lost
}

// takeBack brings the view to what the cells say of the keys that an aborted
// group has sent ahead.
func (c *Core) takeBack() {
	keys := c.ahead
	c.ahead = nil
	if len(keys) == 0 {
		return
	}
	if c.dirty != nil {
		c.Remember(keys)
		return
	}
	g := c.log.Begin()
	defer g.Discard()
	b := &Batch{Keys: keys, fields: c.fields}
	for _, k := range keys {
		materialise(b, g, k, &crdt.Touch{Whole: true}, c.Now())
	}
	c.view.Send(b)
}
