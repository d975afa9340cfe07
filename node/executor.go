package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// Limits of a commit group: what has waited is drained into one group until
// one of them is reached. A larger group costs less for each command, but whose
// replies wait for it sends nothing meanwhile: beyond some hundreds of keys clients and
// node would take turns. Where a group waits for the disk the larger one is better.
const (
	queueLen       = 4096
	groupKeys      = 4096 // changed, and commands of the view
	groupKeysShort = 256  // where no group waits for the disk; but see mostShares
	groupBytes     = 8 << 20
	groupRanges    = 64
)

// How clients and peers share the executor while both have something: peers have a
// piece of their ranges for each group of clients' commands, or as many deltas as there
// were commands since the last, mostSince at most; and as many again for each
// peersPatience that the piece has waited, up to mostShares. So nodes that are all loaded
// fully stay level, whatever their number, while clients that send one command at a time
// wait for a piece or two.
const (
	pieceDeltas   = 256 // whole entries, until there are so many
	mostSince     = 1024
	peersPatience = 100 * time.Millisecond
	mostShares    = 8
)

// tickEvery is how often the executor looks for keys that have expired.
const tickEvery = 50 * time.Millisecond

// executor is the one goroutine that owns the core. Everything that touches
// state comes to it through two ordered queues, one of them for the ranges of
// peers; it drains what is waiting into a commit group, so that groups grow and cost
// per command falls as load rises.
type executor struct {
	core   *Core
	queue  chan work
	ranges chan work
	stop   chan struct{}
	done   chan struct{}
	slog   *slog.Logger
	keys   int             // groupKeys or groupKeysShort
	held   []work          // came while a script was busy
	behind *requests       // of other connections, in the work that is carried out
	ahead  int             // commands of it whose keys were recalled
	since  int             // commands carried out since peers last had something applied
	owing  <-chan struct{} // closed while the store is to be brought level, else nil

	latency func(event string, took time.Duration) // is told what held clients up; nil, or set before they come
	loading atomic.Pointer[string]                 // why clients are refused; nil while they are served
}

// work is one item of the queue: connections' commands, peers' ranges, or a
// function to run between groups.
type work struct {
	reqs   *requests // the first
	ranges []crdt.Entry
	of     *pieces // of ranges: all that was handed over together; else nil
	fn     func(*Core)
}

// pieces are the parts of what a peer sent that have still to be committed.
type pieces struct {
	came time.Time // when they were handed over
	left atomic.Int32
	err  atomic.Pointer[error] // the first
	done func(error)
}

func (p *pieces) report(err error) {
	if err != nil {
		p.err.CompareAndSwap(nil, &err)
	}
	if p.left.Add(-1) > 0 {
		return
	}
	if first := p.err.Load(); first != nil {
		p.done(*first)
		return
	}
	p.done(nil)
}

// requests are the commands of one connection that await their replies.
type requests struct {
	list []*resp.Request
	ran  int          // how many the executor has come to
	left atomic.Int32 // groups and batches still to report
	done func()       // is called when all have
	next *requests    // of another connection, in the same work
}

func (r *requests) release() {
	if r.left.Add(-1) == 0 {
		r.done()
	}
}

// fail answers all of a connection's commands with an error.
func (r *requests) fail(why string) {
	for _, q := range r.list {
		fail(q, why)
	}
	r.release()
}

func newExecutor(core *Core, keys int, logger *slog.Logger) *executor {
	x := &executor{core: core, keys: keys, queue: make(chan work, queueLen), ranges: make(chan work, queueLen), stop: make(chan struct{}), done: make(chan struct{}), slog: logger}
	core.scripts.Busy = x.busy
	return x
}

// busy answers, while a script has been running for long, the clients whose
// commands wait behind it. What else has come waits on.
func (x *executor) busy() {
	why := x.core.scripts.BusyError()
	for ; x.behind != nil; x.behind = x.behind.next {
		x.behind.fail(why)
	}
	for len(x.held) < queueLen {
		select {
		case w := <-x.queue:
			if w.reqs == nil {
				x.held = append(x.held, w)
				continue
			}
			for r := w.reqs; r != nil; r = r.next {
				r.fail(why)
			}
		default:
			return
		}
	}
}

// Execute runs the commands of one connection in order and returns when every
// one has its reply.
func (x *executor) Execute(reqs []*resp.Request) {
	var replied sync.WaitGroup
	replied.Add(1)
	x.Start([]resp.Batch{{Requests: reqs, Done: replied.Done}})
	replied.Wait()
}

// Start has the commands of several connections run, each connection's in order,
// and does not wait for the replies.
func (x *executor) Start(batches []resp.Batch) {
	var first *requests
	for i := len(batches) - 1; i >= 0; i-- {
		r := &requests{list: batches[i].Requests, done: batches[i].Done, next: first}
		r.left.Store(1)
		first = r
	}
	why := x.loading.Load()
	if why == nil {
		if first == nil || x.enqueue(x.queue, work{reqs: first}) {
			return
		}
		stopping := whyStopping
		why = &stopping
	}
	for r := first; r != nil; r = r.next {
		r.fail(*why)
	}
}

// Apply hands over consecutive ranges of peers' streams, which are committed piece by
// piece; done is called when all are, or with why the first that was not was refused.
func (x *executor) Apply(ranges []crdt.Entry, done func(error)) {
	all := &pieces{came: time.Now(), done: done}
	all.left.Store(1)
	for len(ranges) > 0 {
		n := 0
		for deltas := 0; n < len(ranges) && deltas < pieceDeltas; n++ {
			deltas += len(ranges[n].Deltas)
		}
		all.left.Add(1)
		if !x.enqueue(x.ranges, work{ranges: ranges[:n:n], of: all}) {
			all.report(context.Canceled)
		}
		ranges = ranges[n:]
	}
	all.report(nil)
}

// Run runs fn between groups and waits for it.
func (x *executor) Run(fn func(*Core)) error {
	ran := make(chan struct{})
	if !x.enqueue(x.queue, work{fn: func(c *Core) { defer close(ran); fn(c) }}) {
		return context.Canceled
	}
	select {
	case <-ran:
		return nil
	case <-x.done:
		return context.Canceled
	}
}

// Post runs fn between groups without waiting.
func (x *executor) Post(fn func(*Core)) bool { return x.enqueue(x.queue, work{fn: fn}) }

func (x *executor) enqueue(queue chan work, w work) bool {
	select {
	case <-x.stop:
		return false
	default:
	}
	select {
	case queue <- w:
		return true
	case <-x.stop:
		return false
	}
}

// WriteBack has the store brought level with what is committed, in steps, until clients or
// peers have something to do.
func (x *executor) WriteBack() { x.Post(func(*Core) { x.owing = closed }) }

// writeBackRows is how many rows a step writes: less than a millisecond's worth.
const writeBackRows = 256

// writeBack takes a step.
func (x *executor) writeBack() {
	more, err := x.core.log.WriteBack(writeBackRows)
	if err != nil && x.core.log.Failed() == nil {
		x.slog.Warn("writing back what has changed failed, it will be tried again", "err", err)
	}
	if !more {
		x.owing = nil
	}
}

// closed is a channel that is.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Stop ends the executor after what is queued. A script that runs ends at once,
// and nothing of it is kept.
func (x *executor) Stop() {
	x.core.scripts.Stop()
	close(x.stop)
	<-x.done
}

func (x *executor) loop() {
	defer close(x.done)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	deadline := time.NewTimer(tickEvery)
	defer deadline.Stop()
	for {
		if at := x.core.NextDeadline(); at != 0 {
			deadline.Reset(time.Until(time.UnixMilli(at)))
		}
		if len(x.held) > 0 {
			w := x.held[0]
			x.held = slices.Delete(x.held, 0, 1)
			x.group(w)
			continue
		}
		var stepping <-chan struct{}
		if x.core.Stepping() {
			stepping = closed
		}
		select {
		case w := <-x.queue:
			x.group(w)
		case w := <-x.ranges:
			x.group(w)
		case <-stepping:
			if err := x.core.Step(); err != nil {
				x.slog.Error("a command that goes in steps was ended", "err", err)
			}
		case <-x.owing:
			x.writeBack()
		case <-deadline.C:
			x.core.TimeOut(time.Now().UnixMilli())
		case <-tick.C:
			// Keys expire on time even where nobody writes.
			if now := x.core.Now(); !x.core.lazyExpiry && x.core.SweepDue(now) {
				begun := time.Now()
				x.core.Defer(func(error) {})
				x.core.wake()
				x.commit()
				if x.latency != nil {
					x.latency("expire-cycle", time.Since(begun))
				}
			}
		case <-x.stop:
			for {
				select {
				case w := <-x.queue:
					x.group(w)
				case w := <-x.ranges:
					x.group(w)
				default:
					for q := range x.core.waiters.all {
						x.core.Unblock(q, []byte("-"+whyStopping+"\r\n"))
					}
					return
				}
			}
		}
	}
}

// group runs one item and what waits behind it, and commits: peers' ranges first, then
// clients' commands.
func (x *executor) group(w work) {
	bytes, yielded, more := 0, false, true
	if w.of != nil {
		w, more = x.peers(w)
	}
	for more {
		if w.fn != nil {
			x.commit()
			w.fn(x.core)
			x.core.wake()
		} else {
			x.ahead, x.owing = 0, nil
			for r := w.reqs; r != nil; r = x.behind {
				x.behind = r.next
				if bytes += x.commands(r); x.behind != nil && x.full(x.keys, bytes) {
					x.commit()
					bytes = 0
				}
			}
		}
		if x.full(x.keys, bytes) {
			break
		}
		if w, more = waiting(x.queue); !more && !yielded {
			// Connections whose commands have come get to queue them: a larger group
			// costs less for each, and nobody waits for what has not come.
			yielded = true
			runtime.Gosched()
			w, more = waiting(x.queue)
		}
	}
	x.commit()
}

// peers applies a piece of peers' ranges and those behind it that are to be in its
// group: as many as it holds or, while clients wait, as are the peers' share, which may be
// more. It returns what clients have sent, if they have.
func (x *executor) peers(w work) (clients work, more bool) {
	share := min(x.since, mostSince)
	share += int(int64(share) * int64(min(time.Since(w.of.came), (mostShares-1)*peersPatience)) / int64(peersPatience))
	x.since, x.owing = 0, nil
	for n, ok := 1, true; ok; n++ {
		if w.of.err.Load() == nil {
			x.core.Apply(w.ranges, w.of.report)
		} else { // they follow what was refused
			w.of.report(nil)
		}
		for i := range w.ranges {
			share -= len(w.ranges[i].Deltas)
		}
		if x.full(groupKeys, 0) || share <= 0 && (len(x.queue) > 0 || n >= groupRanges || x.full(x.keys, 0)) {
			break
		}
		w, ok = waiting(x.ranges)
	}
	return waiting(x.queue)
}

// full reports whether the group is to be committed: keys is how many it may
// change, bytes the size of its commands.
func (x *executor) full(keys, bytes int) bool {
	changed, size := x.core.Size()
	return changed >= keys || bytes+size >= groupBytes || len(x.held) > 0
}

// waiting takes what is queued, if anything is.
func waiting(queue chan work) (w work, ok bool) {
	select {
	case w = <-queue:
		return w, true
	default:
		return w, false
	}
}

func (x *executor) commit() {
	if err := x.core.Commit(); err != nil {
		x.slog.Error("commit failed: nothing of the group was kept", "err", err)
	}
}

// commands runs a connection's commands in the open group.
func (x *executor) commands(r *requests) (bytes int) {
	if why := x.loading.Load(); why != nil {
		r.fail(*why)
		return 0
	}
	readOnly := x.core.log.Failed()
	var inGroup, inBatch *Batch // the newest group and read batch r waits for
	for i, q := range r.list {
		r.ran = i + 1
		if x.ahead == 0 {
			x.ahead = x.recall(r, i)
		}
		x.ahead--
		for _, a := range q.Args {
			bytes += len(a)
		}
		if readOnly != nil && writes(q) {
			fail(q, fmt.Sprintf("MISCONF writes are stopped, because the log can't be written: %v", readOnly))
			continue
		}
		x.run(q)
		x.since++
		if x.core.Waiting(q, func(err error) { x.answered(r, q, err) }) {
			r.left.Add(1)
			if q.Session != nil {
				q.Session.Blocked()
			}
		}
		b := x.core.batch
		if b == nil { // the command was refused before it reached a group
			continue
		}
		if awaitsView(q) && b != inBatch {
			inBatch = b
			r.left.Add(1)
			b.Done = append(b.Done, func(err error) {
				if err != nil {
					for _, q := range r.list {
						failReads(q)
					}
				}
				r.release()
			})
		}
		if b != inGroup {
			inGroup = b
			r.left.Add(1)
			from := q
			x.core.Defer(func(err error) {
				if err != nil {
					x.failFrom(r, from, err)
				}
				r.release()
			})
		}
	}
	r.release()
	return bytes
}

// recall has the log recall the keys of the commands that come next, from one of a
// connection's on, and returns how many these are.
func (x *executor) recall(r *requests, from int) (n int) {
	var change [crdt.RecallMost]crdt.CellID
	var read [crdt.RecallMost]crdt.Key
	changed, named := 0, 0
	name := func(q *resp.Request) {
		for i, last, step := q.Cmd.KeyRange(len(q.Args)); i <= last && named < len(read); i += step {
			named++
			b := q.Args[i]
			k := crdt.Key{DB: q.DB, Name: unsafe.String(unsafe.SliceData(b), len(b))} // nobody keeps it
			if q.Cmd.Flags&command.Write != 0 {
				change[changed].Key = k
				changed++
			} else {
				read[named-changed-1] = k
			}
		}
	}
	for ; r != nil && named < len(read); r, from = r.next, 0 {
		for _, q := range r.list[from:] {
			if named == len(read) {
				break
			}
			n++
			name(q)
			for _, sub := range q.Subs {
				name(sub)
			}
		}
	}
	if named > 1 {
		x.core.log.Recall(change[:changed], read[:named-changed])
	}
	return n
}

// answered releases a request that has waited, once the group in which it got
// its reply is committed, or has failed.
func (x *executor) answered(r *requests, q *resp.Request, err error) {
	if err != nil {
		q.Out = nil
		fail(q, fmt.Sprintf("MISCONF the write could not be logged and was not made: %v", err))
	}
	r.release()
}

// awaitsView reports whether the view is still to answer a request that has run, or
// a part of it.
func awaitsView(q *resp.Request) bool {
	return q.Subs == nil && len(q.Out) == 0 && q.Cmd.ByView(q.Args) || slices.ContainsFunc(q.Subs, awaitsView)
}

// writes reports whether a request may write.
func writes(q *resp.Request) bool {
	return q.Subs == nil && q.Cmd.Flags&command.Write != 0 && !q.Cmd.ByView(q.Args) || slices.ContainsFunc(q.Subs, writes)
}

// viewAway answers what the view was to answer when it was lost.
const viewAway = "LOADING the Redis behind this node was lost, and is being brought level"

// failReads fails what the view has not answered of a request.
func failReads(q *resp.Request) {
	for _, sub := range q.Subs {
		failReads(sub)
	}
	if q.Subs == nil && awaitsView(q) {
		fail(q, viewAway)
	}
}

// Unblock ends the wait of a session's command with a raw reply, nil for that
// of one whose time has passed, and reports whether it was waiting.
func (x *executor) Unblock(s *resp.Session, reply []byte) (waited bool) {
	_ = x.Run(func(c *Core) {
		for q := range c.waiters.all {
			if q.Session == s {
				waited = c.Unblock(q, reply)
				return
			}
		}
	})
	return waited
}

// failFrom fails the commands whose group was not committed: from the first
// in it to the last that has run.
func (x *executor) failFrom(r *requests, from *resp.Request, err error) {
	found := false
	for _, q := range r.list[:r.ran] {
		found = found || q == from
		if found {
			q.Out, q.Subs = q.Out[:0], nil
			fail(q, fmt.Sprintf("MISCONF the write could not be logged and was not made: %v", err))
		}
	}
}

// run runs one command; a bug in it becomes an error for its client alone.
func (x *executor) run(q *resp.Request) {
	defer func() {
		p := recover()
		if err, ok := p.(error); ok && errors.Is(err, command.ErrStopping) {
			_ = x.core.abort(err)
			q.Out, q.Subs = q.Out[:0], nil
			fail(q, whyStopping)
		} else if p != nil {
			x.slog.Error("command failed in a way it should not", "command", q.Cmd.Name, "panic", p)
			_ = x.core.abort(fmt.Errorf("internal error in %s", q.Cmd.Name))
			q.Out, q.Subs = q.Out[:0], nil
			fail(q, fmt.Sprintf("ERR internal error in '%s': nothing was written; please report it", q.Cmd.Name))
		}
	}()
	x.core.Do(q)
}

// whyStopping answers what comes, or is under way, while the node stops.
const whyStopping = "LOADING replicatord is stopping"

func fail(q *resp.Request, msg string) {
	r := command.Reply{Proto: 2, Buf: q.Out}
	r.Error(msg)
	q.Out = r.Buf
}

func (x *executor) setLoading(why string) {
	if why == "" {
		x.loading.Store(nil)
		return
	}
	s := "LOADING " + why
	x.loading.Store(&s)
}
