package sim

import (
	"bytes"
	"slices"
	"time"

	"github.com/replicatord/replicatord/wan"
)

// link is the way from one node to another.
type link struct {
	blocked bool
	delay   time.Duration // at least
	jitter  time.Duration
	gap     time.Duration // between two frames
}

func (w *world) link(from, to uint16) *link {
	l := w.links[[2]uint16{from, to}]
	if l == nil {
		l = &link{delay: time.Millisecond, jitter: 5 * time.Millisecond}
		w.links[[2]uint16{from, to}] = l
	}
	return l
}

// conn is a connection between two nodes: frames arrive in the order sent, or
// with Options.Overtake in order within each channel.
type conn struct {
	id   int
	ends [2]*end // the dialler's first
}

// end is one end of a connection, and the session on it.
type end struct {
	w        *world
	conn     *conn
	proc     *proc
	other    *end
	sess     *wan.Session
	woken    bool             // Next may have a frame
	pumping  bool             // and will be asked
	closed   bool             // nothing goes in or out any more
	lastSent time.Duration    // when the newest frame leaves
	arrives  [6]time.Duration // when the newest frame of each channel arrives; of all last
	held     [][]byte         // have come, but the link is blocked
}

// dial opens a connection between two running nodes.
func (w *world) dial(from, to *proc) {
	w.nconns++
	c := &conn{id: w.nconns}
	for i, p := range []*proc{from, to} {
		e := &end{w: w, conn: c, proc: p}
		l := wan.Link{Dialled: i == 0, Wake: func() { e.woken = true }}
		if l.Dialled {
			l.Expect = to.site.id
		}
		s, err := p.peers.Open(w.time(), l)
		w.check(err, "opening a session")
		e.sess, c.ends[i] = s, e
		e.woken = true
	}
	c.ends[0].other, c.ends[1].other = c.ends[1], c.ends[0]
	w.conns = append(w.conns, c)
}

// settle acts on what has happened to the session.
func (e *end) settle() bool {
	if e.closed {
		return false
	}
	if e.sess.Err() != nil {
		if e.woken {
			e.send(1) // says why
		}
		e.close()
		return true
	}
	if e.woken && !e.pumping {
		e.pumping = true
		e.w.after(e.w.between(0, time.Millisecond), func() {
			e.pumping = false
			if !e.closed {
				e.send(1 + e.w.rand.IntN(8))
			}
		})
	}
	return false
}

// send sends up to n frames.
func (e *end) send(n int) {
	w := e.w
	l := w.link(e.proc.site.id, e.other.proc.site.id)
	for range n {
		b, channel := e.sess.Next(w.time())
		if b == nil {
			e.woken = false
			if held := e.sess.Held(w.time()); held > 0 {
				w.after(held, func() { e.woken = true })
			}
			return
		}
		frame := bytes.Clone(b)
		if !w.opts.Overtake {
			channel = len(e.arrives) - 1
		}
		e.lastSent = max(w.now, e.lastSent+l.gap)
		at := max(e.lastSent+l.delay+w.between(0, l.jitter), e.arrives[channel])
		e.arrives[channel] = at
		to, times := e.other, 1
		if w.wild && w.opts.Faults&Corrupt != 0 && w.rand.IntN(400) == 0 {
			times = w.damage(e.conn, frame)
		}
		for range times {
			w.after(at-w.now, func() { to.arrive(frame) })
		}
	}
	if e.lastSent > w.now {
		// A thin link takes more when these have gone.
		e.pumping = true
		w.after(e.lastSent-w.now, func() {
			e.pumping = false
			if !e.closed {
				e.send(1)
			}
		})
	}
}

// damage changes a frame, or says that it is to arrive not once but never or
// twice. A session must find out; of one that never comes it learns by the
// next of the channel, or by the end of the connection.
func (w *world) damage(c *conn, frame []byte) (times int) {
	w.oracle.counts["frames damaged"]++
	switch w.rand.IntN(3) {
	case 0:
		frame[w.rand.IntN(len(frame))] ^= 1 << w.rand.IntN(8)
		return 1
	case 1:
		w.after(w.mean(time.Second), c.cut)
		return 0
	}
	return 2
}

// arrive hands a frame to the session, or holds it back while the link is
// blocked.
func (e *end) arrive(frame []byte) {
	if e.closed {
		return
	}
	if e.w.link(e.other.proc.site.id, e.proc.site.id).blocked || len(e.held) > 0 {
		e.held = append(e.held, frame)
		return
	}
	e.receive(frame)
}

func (e *end) receive(frame []byte) {
	_ = e.sess.Receive(e.w.time(), frame) // an error closes the session, and that is seen
}

// release lets in what was held back.
func (e *end) release() {
	held := e.held
	e.held = nil
	for _, f := range held {
		if !e.closed {
			e.receive(f)
		}
	}
}

// close ends this end; the other hears of it, if anything gets through.
func (e *end) close() {
	if e.closed {
		return
	}
	w := e.w
	e.closed = true
	l := w.link(e.proc.site.id, e.other.proc.site.id)
	at := max(w.now+l.delay, slices.Max(e.arrives[:]))
	other := e.other
	if other.closed {
		e.forgetConn()
		return
	}
	w.after(at-w.now, func() {
		if !other.closed && !l.blocked {
			other.sess.Close(wan.ErrDisconnected)
		}
	})
}

// cut breaks a connection at both ends; what is under way is lost.
func (c *conn) cut() {
	for _, e := range c.ends {
		if !e.closed {
			e.sess.Close(wan.ErrDisconnected)
		}
	}
}

// block changes whether anything gets from one node to another.
func (w *world) block(from, to uint16, blocked bool) {
	l := w.link(from, to)
	l.blocked = blocked
	if blocked {
		return
	}
	for _, c := range slices.Clone(w.conns) {
		for _, e := range c.ends {
			if e.proc.site.id == to && e.other.proc.site.id == from && len(e.held) > 0 {
				w.after(0, e.release)
			}
		}
	}
}

// forgetConn takes a connection of which both ends are closed off the list.
func (e *end) forgetConn() {
	e.w.conns = slices.DeleteFunc(e.w.conns, func(c *conn) bool { return c == e.conn })
}
