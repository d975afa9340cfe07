package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/replicatord/replicatord/node"
)

// world is one run: its time, its chance, and everything in it.
type world struct {
	opts   Options
	rand   *rand.Rand
	now    time.Duration
	events eventHeap
	seq    uint64
	ran    int

	sites  []*site
	conns  []*conn // by id, open ones
	nconns int
	links  map[[2]uint16]*link
	oracle *oracle

	pushes int // made to queues, to tell their items apart
	units  int // that wrote

	syncThreshold int // entries from which on a fresh node gets the state
	syncSizes     node.SyncSizes
	syncs         *rand.Rand // what is left to chance in state syncs

	wild    bool // faults and clients are at it
	history []string
	digest  uint64 // of the history: two runs of the same options have the same
}

// start is the wall-clock time at which virtual time begins.
var start = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

type event struct {
	at  time.Duration
	seq uint64
	fn  func()
}

// eventHeap orders events by time, then by when they were scheduled.
type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

// after schedules fn.
func (w *world) after(d time.Duration, fn func()) {
	w.seq++
	heap.Push(&w.events, event{w.now + d, w.seq, fn})
}

// time is the instant that timers, not wall clocks, go by.
func (w *world) time() time.Time { return start.Add(w.now) }

// between returns a random duration of a range.
func (w *world) between(from, to time.Duration) time.Duration {
	return from + time.Duration(w.rand.Int64N(int64(to-from)+1))
}

// mean returns a random duration with the given mean, most often short.
func (w *world) mean(d time.Duration) time.Duration {
	return min(time.Duration(w.rand.ExpFloat64()*float64(d)), 8*d)
}

func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

// step runs the next event and what follows from it at once.
func (w *world) step() {
	e := heap.Pop(&w.events).(event)
	w.now = e.at
	w.ran++
	e.fn()
	w.settle()
	w.oracle.step()
}

// runUntil runs events until a virtual time.
func (w *world) runUntil(t time.Duration) {
	for len(w.events) > 0 && w.events[0].at <= t {
		w.step()
	}
	w.now = max(w.now, t)
}

// settle lets news that no event has brought take effect.
func (w *world) settle() {
	for again := true; again; {
		again = false
		for _, s := range w.sites {
			if p := s.proc; p != nil && p.rose {
				p.rose = false
				again = true
				w.oracle.collect(p)
				p.peers.NotifyDurable()
			}
			if p := s.proc; p != nil && p.ahead != nil {
				p.reincarnate()
				again = true
			}
		}
		for _, c := range slices.Clone(w.conns) {
			for _, e := range c.ends {
				again = e.settle() || again
			}
		}
	}
}

// say adds a line to the history.
func (w *world) say(format string, args ...any) {
	line := fmt.Sprintf("%11.6f ", w.now.Seconds()) + fmt.Sprintf(format, args...)
	for i := range len(line) {
		w.digest = (w.digest ^ uint64(line[i])) * 1099511628211
	}
	w.history = append(w.history, line)
}

// violation is what is thrown when something that must hold does not.
type violation struct{ err error }

// must ends the run if a condition does not hold.
func (w *world) must(ok bool, format string, args ...any) {
	if !ok {
		panic(violation{fmt.Errorf(format, args...)})
	}
}

// check ends the run with an error, if it is one.
func (w *world) check(err error, what string) {
	if err != nil {
		panic(violation{fmt.Errorf("%s: %w", what, err)})
	}
}

// Result is what a run was like.
type Result struct {
	Events   int           // steps of the scheduler
	Took     time.Duration // virtual
	Commands int           // writes that were acknowledged
	Digest   uint64        // of the history
	History  []string
	Counts   map[string]int // what happened how often
}

// Failure is a run in which something that must hold did not.
type Failure struct {
	Options Options
	Err     error
	History []string
}

// historyShown is how much of the history a failure prints.
const historyShown = 60

// Error says what broke, in which run, what went before, and how to see it
// again.
func (f *Failure) Error() string {
	h := f.History[max(0, len(f.History)-historyShown):]
	return fmt.Sprintf("%v\n\nthe last %d of %d lines of history:\n%s\n\noptions: %v\nagain:   go test ./internal/sim -run 'TestSeed$' -v -options='%v'\n",
		f.Err, len(h), len(f.History), strings.Join(h, "\n"), f.Options, f.Options)
}

// Unwrap returns what broke.
func (f *Failure) Unwrap() error { return f.Err }

// Run runs a cluster. The error, if any, is a *Failure.
func Run(o Options) (res *Result, err error) {
	w := newWorld(o)
	defer func() {
		p := recover()
		for _, s := range w.sites {
			s.discard()
		}
		switch p := p.(type) {
		case nil:
		case violation:
			err = &Failure{Options: o, Err: p.err, History: w.history}
		default:
			w.say("panic: %v", p)
			fmt.Println((&Failure{Options: o, Err: fmt.Errorf("panic: %v", p), History: w.history}).Error())
			panic(p)
		}
	}()
	w.live()
	w.converge("heal")
	w.oracle.final()
	w.clear()
	return &Result{Events: w.ran, Took: w.now, Commands: w.oracle.acked, Digest: w.digest, History: w.history, Counts: w.oracle.counts}, nil
}

func newWorld(o Options) *world {
	w := &world{opts: o, rand: rand.New(rand.NewPCG(o.Seed, 0x73696d)), links: map[[2]uint16]*link{}, syncThreshold: 60}
	w.oracle = newOracle(w)
	w.syncs = rand.New(rand.NewPCG(o.Seed, 0x73796e63))
	w.syncSizes = node.SyncSizes{RangeKeys: 1 + w.syncs.Uint64N(6), Ranges: 1 + w.syncs.IntN(8)}
	for i := range o.Nodes {
		w.sites = append(w.sites, newSite(w, uint16(i+1)))
	}
	return w
}

// live is the time of clients and faults.
func (w *world) live() {
	w.wild = true
	if w.opts.Faults&ClockDrift != 0 {
		for _, s := range w.sites {
			s.offset = w.between(-30*time.Second, 30*time.Second)
			s.drift = w.rand.Int64N(2001) - 1000
		}
	}
	for _, s := range w.sites {
		w.after(w.between(0, 300*time.Millisecond), s.start)
	}
	steps := 0
	var client func()
	client = func() {
		w.pipeline()
		if steps++; steps < w.opts.Steps {
			w.after(w.mean(w.opts.Pace), client)
		} else {
			w.wild = false
		}
	}
	w.after(time.Second, client)
	w.trouble()
	for w.wild {
		w.step()
	}
}

// converge heals everything and runs until all nodes are the same and at rest.
func (w *world) converge(why string) {
	w.say("%s", why)
	w.heal()
	const patience = 120 * time.Second
	from := w.now
	for next := w.now; ; next += 200 * time.Millisecond {
		w.runUntil(next)
		if w.quiet() {
			break
		}
		w.must(w.now-from < patience, "not converged %v after everything was healed:\n%s", patience, w.describe())
	}
	w.say("converged after %v", w.now-from)
}

// quiet reports whether all nodes are up, level and the same.
func (w *world) quiet() bool {
	if !w.settled() {
		return false
	}
	var first *proc
	for _, s := range w.sites {
		if s.gone {
			continue
		}
		p := s.proc
		if p == nil || !p.level || len(p.queue) > 0 || len(p.viewQueue) > 0 || len(p.syncs.needed) > 0 || p.syncs.from != 0 || p.inParts() ||
			!p.log.Durable().Equal(p.log.Vector()) {
			return false
		}
		if first == nil {
			first = p
		}
		if !p.log.Vector().Equal(first.log.Vector()) {
			return false
		}
	}
	return true
}

// describe prints where everybody stands.
func (w *world) describe() string {
	var b strings.Builder
	for _, s := range w.sites {
		p := s.proc
		if p == nil {
			fmt.Fprintf(&b, "node %d: down, gone %t\n", s.id, s.gone)
			continue
		}
		cursor, syncing := p.core.Syncing()
		fmt.Fprintf(&b, "node %d: origin %v level %t queue %d+%d syncing %t at %x from %d needed %v parts %t\n  applied %v\n  durable %v\n", s.id, p.log.Identity().Origin, p.level, len(p.queue),
			len(p.viewQueue), syncing, cursor, p.syncs.from, p.syncs.needed, p.inParts(), p.log.Vector(), p.log.Durable())
		for _, t := range p.peers.Stats(w.time()) {
			fmt.Fprintf(&b, "  peer %d live %t wants %v gets %v syncing %t error %q\n", t.Node, t.Live, t.Wants, t.Gets, t.Syncing, t.LastError)
		}
	}
	return b.String()
}

// clear deletes everything, and sees to it that nothing is left behind.
func (w *world) clear() {
	var p *proc
	for _, s := range w.sites {
		if !s.gone {
			p = s.proc
		}
	}
	w.say("node %d flushes all", p.site.id)
	for db := range uint8(usedDBs) {
		p.enqueue(work{cmds: []call{{db: db, args: split("FLUSHDB")}}})
	}
	w.runUntil(w.now + time.Second)
	w.converge("flushed")
	// Expired keys are purged, and counts forgotten, when all have been heard.
	w.runUntil(w.now + 75*time.Second)
	w.converge("waited")
	for _, s := range w.sites {
		if s.gone {
			continue
		}
		st := w.oracle.inspect(s.proc)
		left := st.garbage()
		if w.opts.Shape != Mesh {
			left = "" // what is dropped when every member was heard of it is never dropped
		}
		w.must(left == "", "node %d: everything was deleted, and this is left:\n%v", s.id, left)
		w.must(len(s.redis.keys) == 0, "node %d: everything was deleted, and the view shows %v", s.id, s.redis.names())
	}
}
