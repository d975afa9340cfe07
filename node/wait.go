package node

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// waiter is a client's command that found nothing and waits for keys to change.
type waiter struct {
	req  *resp.Request
	wait *command.Wait
	// done is called once the request has its reply and the group in which it
	// got it is committed, or has failed.
	done func(error)
	at   int // in the heap of deadlines; -1 if it has none
}

// waiters are the commands that wait, by the keys they wait for, each key's in
// the order in which they began. They belong to the core.
type waiters struct {
	all       map[*resp.Request]*waiter
	byKey     map[crdt.Key][]*waiter
	ready     []crdt.Key // changed, and not yet looked at; each once
	deadlines deadlines
	stepping  []*waiter // those that wait for nothing but their turn
}

func newWaiters() waiters {
	return waiters{all: map[*resp.Request]*waiter{}, byKey: map[crdt.Key][]*waiter{}}
}

func (ws *waiters) add(w *waiter) {
	ws.all[w.req] = w
	for _, k := range w.wait.Keys {
		if !slices.Contains(ws.byKey[k], w) {
			ws.byKey[k] = append(ws.byKey[k], w)
		}
	}
	if w.wait.Steps {
		ws.stepping = append(ws.stepping, w)
	}
	w.at = -1
	if w.wait.Deadline != 0 {
		heap.Push(&ws.deadlines, w)
	}
}

func (ws *waiters) remove(w *waiter) {
	delete(ws.all, w.req)
	ws.stepping = slices.DeleteFunc(ws.stepping, func(o *waiter) bool { return o == w })
	for _, k := range w.wait.Keys {
		left := slices.DeleteFunc(ws.byKey[k], func(o *waiter) bool { return o == w })
		if len(left) == 0 {
			delete(ws.byKey, k)
		} else {
			ws.byKey[k] = left
		}
	}
	if w.at >= 0 {
		heap.Remove(&ws.deadlines, w.at)
	}
}

// changed notes that a key has changed.
func (ws *waiters) changed(k crdt.Key) {
	if len(ws.byKey[k]) > 0 && !slices.Contains(ws.ready, k) {
		ws.ready = append(ws.ready, k)
	}
}

// Waiting reports whether a request waits, and has done called when it has its
// reply: after the commit of the group in which it got it.
func (c *Core) Waiting(req *resp.Request, done func(error)) bool {
	w := c.waiters.all[req]
	if w != nil {
		w.done = done
	}
	return w != nil
}

// Stepping reports whether there are commands that go in steps.
func (c *Core) Stepping() bool { return len(c.waiters.stepping) > 0 }

// Step has each of these take its next, and commits it.
func (c *Core) Step() error {
	for _, w := range slices.Clone(c.waiters.stepping) {
		err := c.log.Failed()
		if err == nil {
			c.startLocal()
			c.group.WriteThrough() // nobody asks for it again, and what others have changed stays in memory
			c.resume(w, crdt.Key{})
			c.serveWaiters()
			err = c.Commit()
		}
		if err != nil {
			out := command.Reply{Proto: 2}
			out.Error(fmt.Sprintf("MISCONF '%s' was ended half way, because the log can't be written: %v", strings.ToLower(w.req.Cmd.Name), err))
			c.Unblock(w.req, out.Buf)
			return err
		}
	}
	return nil
}

// Waiters returns how many commands wait.
func (c *Core) Waiters() int { return len(c.waiters.all) }

// NextDeadline returns when the next waiting command's time has passed, in
// Unix milliseconds; 0 if there is none.
func (c *Core) NextDeadline() int64 {
	if len(c.waiters.deadlines) == 0 {
		return 0
	}
	return c.waiters.deadlines[0].wait.Deadline
}

// TimeOut answers the commands whose deadline is not after now.
func (c *Core) TimeOut(now int64) {
	for at := c.NextDeadline(); at != 0 && at <= now; at = c.NextDeadline() {
		c.Unblock(c.waiters.deadlines[0].req, nil)
	}
}

// Unblock ends a request's wait with a raw reply; nil: as if its time had
// passed. It reports whether the request was waiting: what goes in steps is not, its time does not pass, and
// it goes on when its client has gone.
func (c *Core) Unblock(req *resp.Request, reply []byte) bool {
	w := c.waiters.all[req]
	if w == nil || reply == nil && w.wait.Steps {
		return false
	}
	c.waiters.remove(w)
	req.Out = reply
	if reply == nil {
		out := command.Reply{Proto: max(2, req.Proto)}
		w.wait.Timeout(&out)
		req.Out = out.Buf
	}
	w.done(nil)
	return true
}

// serveWaiters runs the commands again that wait for keys which have changed,
// and, since they change keys themselves, goes on until none is left.
func (c *Core) serveWaiters() {
	ws := &c.waiters
	for len(ws.ready) > 0 {
		k := ws.ready[0]
		ws.ready = slices.Delete(ws.ready, 0, 1)
		var empty [3]string // groups whose commands find nothing in the key
		for _, w := range slices.Clone(ws.byKey[k]) {
			// What takes an element finds none where one before it did not.
			group := w.req.Cmd.Group
			if ws.all[w.req] != w || slices.Contains(empty[:], group) {
				continue
			}
			if c.resume(w, k) {
				continue
			}
			switch group {
			case "list":
				empty[0] = group
			case "sorted-set":
				empty[1] = group
			}
		}
	}
}

// resume runs a waiting command again, for a change of k, and reports whether it
// got its reply.
func (c *Core) resume(w *waiter, k crdt.Key) bool {
	c.startLocal()
	c.chooseLane(w.req)
	t := c.unit()
	ctx := t.context(w.req)
	ctx.Resumed, ctx.Ready = w.wait.State, k
	c.news.by = w.req
	c.news.begin(w.req.Cmd, &ctx)
	w.req.Cmd.Run(&ctx)
	c.news.end(w.req.Cmd, &ctx)
	if ctx.Waits != nil {
		w.wait.State = ctx.Waits.State
		c.endUnit(w.req) // of steps
		return false
	}
	c.waiters.remove(w)
	w.req.Out = ctx.Out.Buf
	c.Defer(w.done)
	c.endUnit(w.req)
	return true
}

// deadlines is a heap of waiters by their deadlines.
type deadlines []*waiter

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].wait.Deadline < d[j].wait.Deadline }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].at, d[j].at = i, j
}

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	w := x.(*waiter)
	w.at = len(*d)
	*d = append(*d, w)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	w := (*d)[last]
	w.at = -1
	*d = (*d)[:last]
	return w
}
