package resp

import (
	"sync"
	"sync/atomic"
	"time"
)

// pause holds back clients' commands for a time (CLIENT PAUSE).
type pause struct {
	mu     sync.Mutex
	until  time.Time
	all    bool          // reads too
	change chan struct{} // closed and replaced at each change
	ended  bool          // no pause any more: the server closes
	on     atomic.Bool   // there may be one: saves looking
	held   atomic.Int64  // clients that wait
}

func (p *pause) init() { p.change = make(chan struct{}) }

// set pauses until a time. As in Redis it makes a pause under way longer or
// wider, never less.
func (p *pause) set(until time.Time, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	if p.until.After(time.Now()) {
		all = all || p.all
		if p.until.After(until) {
			until = p.until
		}
	}
	p.until, p.all = until, all
	p.changed()
}

// lift ends a pause.
func (p *pause) lift() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Time{}
	p.changed()
}

// end ends this pause and every later one.
func (p *pause) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.until = true, time.Time{}
	p.changed()
}

func (p *pause) changed() {
	p.on.Store(!p.until.IsZero())
	close(p.change)
	p.change = make(chan struct{})
}

// holds reports whether a command has to wait, and if so until when or which
// change.
func (p *pause) holds(write bool) (bool, time.Time, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.until.After(time.Now()) {
		p.on.Store(false)
		return false, time.Time{}, nil
	}
	if !write && !p.all {
		return false, time.Time{}, nil
	}
	return true, p.until, p.change
}

// wait waits while commands of that kind are held back, or until gone is closed.
func (p *pause) wait(write bool, gone <-chan struct{}) {
	p.held.Add(1)
	defer p.held.Add(-1)
	for {
		held, until, change := p.holds(write)
		if !held {
			return
		}
		t := time.NewTimer(time.Until(until))
		select {
		case <-t.C:
		case <-change:
		case <-gone:
			t.Stop()
			return
		}
		t.Stop()
	}
}
