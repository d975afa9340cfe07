package sim

import (
	"errors"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/node"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

var errViewLost = errors.New("the view was lost")

// markEvery is how often the view's watermark is written, at most.
const markEvery = 100 * time.Millisecond

// Send implements node.View.
func (p *proc) Send(b *node.Batch) {
	if !p.attached {
		p.lose(b)
		return
	}
	p.viewQueue = append(p.viewQueue, b)
	if p.pumping {
		return
	}
	p.pumping = true
	p.w.after(p.w.between(0, 5*time.Millisecond), func() {
		if !p.dead {
			p.pumping = false
			p.pump()
		}
	})
}

// lose gives up a batch that will not reach the view.
func (p *proc) lose(b *node.Batch) {
	p.lost = append(p.lost, b.Keys...)
	for _, done := range b.Done {
		done(errViewLost)
	}
}

// Ask implements node.View.
func (p *proc) Ask(db int, args ...[]byte) ([]byte, error) {
	if !p.attached {
		return nil, errViewLost
	}
	p.pump()
	return p.site.redis.do(uint8(db), args), nil
}

// Flush implements node.View.
func (p *proc) Flush() { p.pump() }

// pump brings what is queued to the view, and now and then the watermark.
func (p *proc) pump() {
	queue := p.viewQueue
	p.viewQueue = nil
	r := p.site.redis
	for _, b := range queue {
		if r.mark != nil && b.Vector != nil {
			// Said before it is done: the log may lose what the view has seen.
			m := *r.mark
			m.ahead = m.ahead.Join(b.Vector)
			r.mark = &m
		}
		for i := range b.Cmds {
			c := &b.Cmds[i]
			reply := r.do(uint8(c.DB), c.Args)
			if c.Req != nil {
				c.Req.Out = reply
				continue
			}
			p.w.must(reply[0] != '-', "node %d: the view refuses an update, %q: %s", p.site.id, c.Args, reply)
		}
		if b.Vector != nil {
			id := p.log.Identity()
			p.unmarked = &mark{dir: id.Dir, node: id.Node, generation: b.Generation, vector: b.Vector, ahead: b.Vector}
		}
		for _, done := range b.Done {
			done(nil)
		}
	}
	if p.unmarked != nil && p.w.now-p.markedAt >= markEvery {
		r.mark, p.unmarked, p.markedAt = p.unmarked, nil, p.w.now
	}
	if p.unmarked != nil && !p.pumping {
		p.pumping = true
		p.w.after(markEvery, func() {
			if !p.dead {
				p.pumping = false
				p.pump()
			}
		})
	}
}

// detach breaks the connection to the view.
func (p *proc) detach() {
	p.attached, p.level = false, false
	p.tries++
	queue := p.viewQueue
	p.viewQueue, p.unmarked = nil, nil
	for _, b := range queue {
		p.lose(b)
	}
	p.w.after(p.w.between(0, 500*time.Millisecond), p.attach)
}

// attach connects to the view and brings it level, as package node's recovery
// does.
func (p *proc) attach() {
	if p.dead {
		return
	}
	p.tries++
	p.step(func() {
		p.core.ViewDown()
		p.core.Remember(p.lost)
		p.core.ViewIs(p.site.redis.fields, false)
		p.lost = nil
		keys, rebuild := p.plan()
		p.attached = true
		p.rewrite(keys, rebuild)
	})
}

// step enqueues a step of the present attempt to bring the view level.
func (p *proc) step(fn func()) {
	try := p.tries
	p.enqueue(work{fn: func() {
		if p.tries == try {
			fn()
		}
	}})
}

// plan decides how the view is brought level. It returns the keys to rewrite,
// or nil and true if it must be rebuilt from nothing.
func (p *proc) plan() (keys []crdt.Key, rebuild bool) {
	id, m := p.log.Identity(), p.site.redis.mark
	switch {
	case m == nil:
		p.w.must(len(p.site.redis.keys) == 0, "node %d: the view holds %v, without a mark", p.site.id, p.site.redis.names())
		return nil, true
	case m.dir != id.Dir || m.generation != p.core.Generation():
		return nil, true
	case !m.vector.In(p.log.Vector()):
		p.ahead = m.vector
		return nil, true
	case !m.ahead.In(p.log.Vector()):
		return nil, true
	}
	p.sync()
	keys, ok, err := node.ChangedSince(p.log, m.vector)
	p.w.check(err, "reading the log")
	return keys, !ok
}

// rewriteStep is how many keys are rewritten before something else has its
// turn.
const rewriteStep = 4

// rewrite brings the view level: by some keys, or from nothing.
func (p *proc) rewrite(keys []crdt.Key, rebuild bool) {
	if rebuild {
		p.w.oracle.counts["view rebuilds"]++
		p.pump()
		p.site.redis.mark = &mark{} // of no directory
		p.unmarked = nil
		clear(p.site.redis.keys)
		p.endRebuild()
		var err error
		p.rebuilding, err = p.core.Rebuilding()
		p.w.check(err, "rebuilding the view")
		p.rebuildFrom(nil)
		return
	}
	p.w.oracle.counts["view catch-ups"]++
	p.catchUp(keys)
}

func (p *proc) catchUp(keys []crdt.Key) {
	n := min(len(keys), rewriteStep)
	if n == 0 {
		p.viewUp()
		return
	}
	p.w.check(p.core.Rewrite(keys[:n]), "rewriting the view")
	p.step(func() { p.catchUp(keys[n:]) })
}

func (p *proc) rebuildFrom(pos []byte) {
	b, pos, err := node.Rebuild(p.rebuilding, pos, rewriteStep, p.core.Now(), p.site.redis.fields)
	p.w.check(err, "rebuilding the view")
	p.Send(b)
	if pos != nil {
		p.step(func() { p.rebuildFrom(pos) })
		return
	}
	p.endRebuild()
	p.viewUp()
}

// endRebuild lets go of what the view is rebuilt from.
func (p *proc) endRebuild() {
	if p.rebuilding != nil {
		p.w.check(p.rebuilding.Close(), "closing a snapshot")
		p.rebuilding = nil
	}
}

func (p *proc) viewUp() {
	again, err := p.core.ViewUp()
	p.w.check(err, "bringing the view level")
	p.w.must(!again, "node %d: the view's changes were too many to remember", p.site.id)
	p.pump()
	p.level = true
	p.w.say("node %d: the view is level", p.site.id)
}

// request makes a request of a command.
func request(c call) (*resp.Request, error) {
	cmd, refusal := command.Find(c.args)
	if refusal != "" {
		return nil, errors.New(refusal)
	}
	return &resp.Request{DB: c.db, Cmd: cmd, Args: c.args}, nil
}
