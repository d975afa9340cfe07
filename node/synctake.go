package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

// SyncTaker takes in the state sync of one peer at a time, step by step: the
// states that come, and answers to what a step has to ask before it can be
// merged. Its methods are safe for concurrent use; Post and Compare are called
// without its lock.
type SyncTaker struct {
	// Post runs a function between groups, later. It is called by the executor
	// too.
	Post func(func(*Core)) bool
	// Go runs what takes long beside everything else. It is called by the
	// executor too.
	Go func(func())
	// Log is where the states go. nil: no tables are made of them.
	Log *oplog.Log
	// Compare asks a peer about ranges.
	Compare func(from uint16, parts []wan.SyncPart) error
	// Merged, if set, is told of each step that was merged, or refused.
	Merged func(from uint16, last bool, p SyncProgress, err error)

	mu      sync.Mutex
	life    uint64 // of the sync under way
	from    uint16
	state   *SyncState
	cursor  []byte
	steps   []*takenStep
	running bool // the first step is being merged, or waits for answers
	repair  bool // the next sync replaces what differs
	done    SyncProgress
}

// takenStep is a step that was received.
type takenStep struct {
	state  *SyncState
	window *SyncWindow
	last   bool
	done   func(error)
	looked bool // whether it can be merged by a table
	making bool // that table is being made
}

// SyncProgress tells how far the state sync under way has come.
type SyncProgress struct {
	From    uint16 // 0: none is under way
	Begun   time.Time
	Resumed bool
	Keys    int // that were sent
	Filled  int // of those, by tables
	Asked   int // ranges about which more was asked
	// Of a sync that repairs: what was replaced, and whether the two were at the
	// same vector no longer when that was to be done.
	Repaired []crdt.Key
	Moved    bool
	Percent  float64 // of the keyspace
}

// Begin takes the description of the states that follow, and reports whether
// they are the first of the sync.
func (t *SyncTaker) Begin(from uint16, b *wan.SyncBegin, now time.Time) (fresh bool, err error) {
	s := &SyncState{Vector: b.Vector, Known: map[crdt.Stream]crdt.Vector{}, Pending: map[uint8]crdt.Vector{}, ByBucket: b.ByBucket}
	for _, k := range b.Known {
		s.Known[k.Stream] = k.Context
	}
	for _, p := range b.DBPending {
		if p.DB >= userDBs {
			return false, fmt.Errorf("%w: database %d", crdt.ErrCorrupt, p.DB)
		}
		s.Pending[p.DB] = p.Context
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if fresh = t.from != from; fresh {
		repair := t.repair
		t.reset()
		t.repair = repair
		t.from, t.done = from, SyncProgress{From: from, Begun: now, Resumed: len(b.Cursor) > 0}
	}
	t.state, t.cursor = s, b.Cursor
	return fresh, nil
}

// reset forgets what is under way. t.mu is held.
func (t *SyncTaker) reset() {
	for i, step := range t.steps {
		if (i > 0 || !t.running) && !step.making {
			step.window.closeFill()
		}
	}
	t.life++
	t.from, t.steps, t.running, t.repair, t.done = 0, nil, false, false, SyncProgress{}
}

// Repair says that the next sync is to replace what differs.
func (t *SyncTaker) Repair() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.repair = true
}

// Abort forgets the sync of a peer, whose session has ended.
func (t *SyncTaker) Abort(from uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.from == from || t.from == 0 {
		t.reset()
	}
}

// Progress tells how far the sync has come.
func (t *SyncTaker) Progress() SyncProgress {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done
}

// Keys takes the next step. done is called when it is merged, or was refused.
func (t *SyncTaker) Keys(from uint16, m *wan.SyncKeys, done func(error)) {
	t.mu.Lock()
	if t.from != from || t.state == nil {
		t.mu.Unlock()
		done(errOutOfOrder)
		return
	}
	w, err := NewSyncWindow(t.cursor, m, t.repair)
	if err != nil {
		t.mu.Unlock()
		done(err)
		return
	}
	t.cursor = w.upto
	life := t.life
	if t.running && t.Log != nil {
		t.mu.Unlock()
		w.readAhead(t.Log) // while the step before it is merged
		t.mu.Lock()
		if t.life != life {
			t.mu.Unlock()
			done(errOutOfOrder)
			return
		}
	}
	t.steps = append(t.steps, &takenStep{state: t.state, window: w, last: m.Last, done: done})
	t.mu.Unlock()
	t.run(life)
}

// Rest takes answers to what the first step has asked.
func (t *SyncTaker) Rest(from uint16, parts []wan.SyncRestPart, done func(error)) {
	t.mu.Lock()
	life, ready := t.life, false
	var err error
	var step *takenStep
	for i := range parts {
		if t.from != from || len(t.steps) == 0 {
			err = errOutOfOrder
		} else {
			step = t.steps[0]
			ready, err = step.window.Answer(&parts[i])
		}
		if err != nil {
			break
		}
	}
	t.mu.Unlock()
	done(err)
	if ready && err == nil {
		t.post(life, from, step)
	}
}

// run has the first step merged, unless it is being merged already, and a table
// made for it before, or for the next one meanwhile.
func (t *SyncTaker) run(life uint64) {
	t.mu.Lock()
	if t.life != life {
		t.mu.Unlock()
		return
	}
	from, horizon := t.from, t.done.Begun.Add(fillHorizon).UnixMilli()
	table := t.nextTable()
	var step *takenStep
	if !t.running && len(t.steps) > 0 && !t.steps[0].making {
		t.running, step = true, t.steps[0]
		if table == nil {
			table = t.nextTable()
		}
	}
	t.mu.Unlock()
	if table != nil {
		t.Go(func() {
			fill, _ := table.window.newFill(t.Log, horizon) // merged one by one, if it fails
			t.made(life, table, fill)
		})
	}
	if step != nil {
		t.post(life, from, step)
	}
}

// nextTable returns the step for which a table is to be made now, nil if there is
// none. t.mu is held.
func (t *SyncTaker) nextTable() *takenStep {
	i := 0
	if t.running {
		i = 1
		waiting := 0
		for j := i; j < len(t.steps); j++ {
			if waiting += t.steps[j].window.bytes; t.steps[j].last {
				waiting = maxFill
			}
		}
		if waiting < maxFill/2 {
			return nil // the more a table takes in the less it costs
		}
	}
	if i >= len(t.steps) || t.steps[i].looked {
		return nil
	}
	step := t.steps[i]
	step.looked, step.making = true, t.fills(i)
	if !step.making {
		return nil
	}
	return step
}

// made takes a step's table.
func (t *SyncTaker) made(life uint64, step *takenStep, fill *fillWindow) {
	t.mu.Lock()
	step.making, step.window.fill = false, fill
	if t.life != life {
		step.window.closeFill()
	}
	t.mu.Unlock()
	t.run(life)
}

// maxFill bounds the states that go into one table, in bytes, but for those of
// one step.
const maxFill = 4 << 20

// fills reports whether it seems that a step can be merged by a table. To it are
// added the steps after it of which the same is true. t.mu is held.
func (t *SyncTaker) fills(i int) bool {
	step := t.steps[i]
	vacant := func(s *takenStep) bool {
		return t.Log != nil && s.state == step.state && !s.window.repair && len(s.window.keys) > 0 && t.Log.SeemsVacant(s.window.from, s.window.upto)
	}
	if !vacant(step) {
		return false
	}
	var next []*SyncWindow
	n, bytes := i+1, step.window.bytes
	for ; n < len(t.steps) && bytes+t.steps[n].window.bytes <= maxFill && vacant(t.steps[n]); n++ {
		next, bytes = append(next, t.steps[n].window), bytes+t.steps[n].window.bytes
	}
	if len(next) == 0 {
		return true
	}
	step.window.join(next)
	step.last = t.steps[n-1].last
	var dones []func(error)
	for _, s := range t.steps[i:n] {
		dones = append(dones, s.done)
	}
	step.done = func(err error) {
		for _, done := range dones {
			done(err)
		}
	}
	t.steps = slices.Delete(t.steps, i+1, n)
	return true
}

// post has a step merged by the executor.
func (t *SyncTaker) post(life uint64, from uint16, step *takenStep) {
	ok := t.Post(func(c *Core) {
		ask := c.MergeState(step.state, step.window, func(err error) { t.merged(life, from, step, err) })
		if len(ask) == 0 {
			return
		}
		t.mu.Lock()
		current := t.life == life
		if current {
			t.done.Asked += len(ask)
		}
		t.mu.Unlock()
		if current {
			_ = t.Compare(from, ask) // if there is no session any more, Abort comes
		}
	})
	if !ok {
		step.window.closeFill()
		step.done(context.Canceled)
	}
}

// merged goes on with the next step.
func (t *SyncTaker) merged(life uint64, from uint16, step *takenStep, err error) {
	filled := step.window.closeFill()
	keys := len(step.window.keys)
	t.mu.Lock()
	current := t.life == life
	if current {
		t.steps, t.running = t.steps[1:], false
		t.done.Keys += keys
		t.done.Filled += filled
		t.done.Moved = t.done.Moved || step.window.moved
		if err == nil {
			t.done.Repaired = append(t.done.Repaired, step.window.repaired...)
		}
		if at := step.window.upto; len(at) >= 2 {
			t.done.Percent = 100 * float64(binary.BigEndian.Uint16(at)) / crdt.Slots
		}
	}
	p := t.done
	if current && step.last {
		t.reset() // merged or refused: it is over
	}
	t.mu.Unlock()
	if t.Merged != nil && current {
		t.Merged(from, step.last, p, err)
	}
	step.done(err)
	if current && !step.last {
		t.run(life)
	}
}
