package resp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicatord/replicatord/internal/socket"
)

// loop serves many sessions with one goroutine: those whose clients send nothing but
// commands for the backend, without TLS. It reads what has come from all of them,
// hands their commands to the backend together, waits for none, and writes the
// replies of those that have them. A session whose client sends anything else, reads
// slowly or is pushed something leaves for a goroutine of its own, and comes back
// after some commands; the oftener it has left, the later.
//
// What this saves is a goroutine's waking and sleeping for every command, and a
// read in vain; and what comes together is one commit group.
type loop struct {
	server *Server
	fd     int // of the epoll, edge triggered
	epoll  *os.File
	raw    syscall.RawConn
	events []unix.EpollEvent
	polled chan int      // so many of events are there; closed at the end
	again  chan struct{} // they have been seen
	kick   chan struct{} // there is something in inbox

	mu    sync.Mutex
	inbox []loopNews

	// The loop's goroutine's alone.
	sessions map[int32]*Session // by file
	news     []loopNews         // the other inbox
	buf      []byte             // lent to the session that is read from
	batches  []Batch            // to be handed over
	room     arena              // of all its sessions' commands
	closing  bool
}

// loopNews is what a loop is told of a session.
type loopNews struct {
	c    *Session // nil: of the server
	what newsKind
}

type newsKind byte

const (
	newsJoined  newsKind = iota // it is the loop's from now on
	newsReplied                 // its commands have their replies
	newsGoOn                    // it has more to do than what one turn was for
	newsPushed                  // something was pushed to it
	newsClosing                 // the server closes
)

// loopSession is what a loop keeps of a session.
type loopSession struct {
	in      *loop
	sock    *loopSocket
	flying  bool   // its commands are with the backend
	more    bool   // there may be something to read
	over    bool   // the end is to be read, too
	held    bool   // there may be commands in its buffer, for the next batch
	replied func() // says that they have their replies
}

// loopAfter is how many times a new session reads before it goes to a loop: one
// that is to be short does not pay for it.
var loopAfter = 4

// loopEvents is how many connections are read from in one turn at most.
const loopEvents = 256

func newLoop(s *Server) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that the runtime waits for it as for a socket
	}
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l := &loop{
		server: s, fd: fd, epoll: os.NewFile(uintptr(fd), "epoll"), events: make([]unix.EpollEvent, loopEvents),
		polled: make(chan int), again: make(chan struct{}), kick: make(chan struct{}, 1),
		sessions: map[int32]*Session{}, buf: make([]byte, maxBuffer),
	}
	if l.raw, err = l.epoll.SyscallConn(); err != nil {
		return nil, err
	}
	go l.poll()
	go l.run()
	return l, nil
}

// poll waits for events.
func (l *loop) poll() {
	defer close(l.polled)
	n := 0
	some := func(fd uintptr) bool {
		n, _ = socket.Events(int(fd), l.events)
		return n > 0
	}
	for {
		if err := l.raw.Read(some); err != nil {
			return
		}
		l.polled <- n
		<-l.again
	}
}

// close ends the loop, which must have no sessions any more.
func (l *loop) close() { _ = l.epoll.Close() }

// tell tells the loop something of a session; any goroutine may.
func (l *loop) tell(c *Session, what newsKind) {
	l.mu.Lock()
	l.inbox = append(l.inbox, loopNews{c, what})
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *loop) run() {
	for {
		n, ok := 0, true
		select {
		case n, ok = <-l.polled:
		case <-l.kick:
		}
		if !ok {
			return
		}
		l.mu.Lock()
		l.news, l.inbox = l.inbox, l.news[:0]
		l.mu.Unlock()
		for _, m := range l.news {
			l.hear(m)
		}
		clear(l.news)
		for i := range n {
			c := l.sessions[l.events[i].Fd]
			if c == nil {
				continue
			}
			c.loop.over = c.loop.over || l.events[i].Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
			if c.loop.more = true; !c.loop.flying {
				l.do(c, l.read)
			}
		}
		if len(l.batches) > 0 {
			l.server.backend.Start(l.batches)
			clear(l.batches)
			l.batches = l.batches[:0]
		}
		if n > 0 {
			l.again <- struct{}{}
		}
	}
}

func (l *loop) hear(m loopNews) {
	c := m.c
	if m.what == newsClosing {
		l.closing = true
		for _, c := range l.sessions {
			if !c.loop.flying {
				l.drop(c, nil)
			}
		}
		return
	}
	if m.what != newsJoined && c.loop.in != l {
		return // it has left since
	}
	switch m.what {
	case newsJoined:
		l.do(c, l.join)
	case newsReplied:
		l.do(c, l.finish)
	case newsGoOn:
		if !c.loop.flying {
			l.do(c, l.read)
		}
	case newsPushed:
		if !c.loop.flying {
			l.do(c, func(c *Session) { l.leave(c, nil, nil) })
		}
	}
}

// do does something with a session. A panic ends that session alone.
func (l *loop) do(c *Session, fn func(*Session)) {
	defer func() {
		if p := recover(); p != nil {
			l.server.log.Error("a bug ended a client's connection", c.LogAttr(), "panic", p, "stack", string(debug.Stack()))
			if c.loop.in == l {
				l.drop(c, nil)
			}
		}
	}()
	fn(c)
}

func (l *loop) join(c *Session) {
	fd := c.loop.sock.fd
	l.sessions[int32(fd)] = c
	c.loop.in, c.in.room = l, &l.room
	l.server.looped.Add(1)
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(fd)}
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		l.drop(c, err)
		return
	}
	l.rest(c)
}

// read reads from a session, and begins what it has sent.
func (l *loop) read(c *Session) {
	in := c.in
	c.busy.Store(true)
	c.out.work()
	c.in.lim = c.limits()
	if !c.loop.held {
		err := l.fill(c)
		switch {
		case errors.Is(err, unix.EAGAIN):
			l.takeBack(in)
			l.rest(c)
			return
		case err != nil:
			l.drop(c, err)
			return
		}
	}
	c.since, c.loop.held = time.Now(), false
	c.active.Store(c.since.Unix())
	if l.server.pause.on.Load() {
		l.leave(c, nil, nil)
		return
	}
	for {
		args, err := in.next()
		if errors.Is(err, errMore) {
			break
		}
		if err == nil {
			c.dispatch(args)
			args, c.leave = c.leave, nil
		}
		if err != nil || args != nil {
			l.leave(c, args, err)
			return
		}
		if len(c.batch) >= c.limit || c.bytes >= maxBatchBytes {
			c.loop.held = true
			break
		}
	}
	l.takeBack(in)
	if in.big != nil { // a value that is read into memory of its own
		l.leave(c, nil, nil)
		return
	}
	list := c.outstanding()
	if len(list) == 0 {
		l.finish(c)
		return
	}
	c.loop.flying = true
	l.batches = append(l.batches, Batch{list, c.loop.replied})
}

// fill reads once from a session's connection.
func (l *loop) fill(c *Session) (err error) {
	in := c.in
	if in.buf == nil {
		in.buf, in.pos = l.buf, 0
		in.end, err = in.src.Read(l.buf)
	} else {
		err = in.fill()
	}
	c.loop.more = c.loop.over || c.loop.sock.full
	return err
}

// takeBack takes the loop's buffer from a reader, which gets one of its own for what is
// left in it, and none if nothing is.
func (l *loop) takeBack(in *reader) {
	rest := in.buf[in.pos:in.end]
	switch lent := len(in.buf) == len(l.buf) && &in.buf[0] == &l.buf[0]; {
	case len(rest) == 0 && in.left == 0 && in.big == nil:
		if lent {
			in.buf = nil
		}
		in.rest()
	case lent:
		size := minBuffer
		if len(rest) > minBuffer/2 {
			size = maxBuffer
		}
		in.buf = make([]byte, size)
		in.pos, in.end = 0, copy(in.buf, rest)
	}
}

// finish sends a session's replies, and goes on with what it has sent meanwhile.
func (l *loop) finish(c *Session) {
	c.loop.flying = false
	if len(c.batch) > 0 {
		if list := c.overtaken(); len(list) > 0 {
			c.loop.flying = true
			l.batches = append(l.batches, Batch{list, c.loop.replied})
			return
		}
		c.complete(nil)
		c.executed()
	} else {
		c.in.release()
	}
	err := c.flush()
	switch {
	case errors.Is(err, errBehind):
		l.leave(c, nil, nil)
	case err != nil:
		l.drop(c, err)
	case l.closing:
		l.drop(c, nil)
	case !c.plain():
		l.leave(c, nil, nil)
	case c.loop.held, c.loop.more:
		l.tell(c, newsGoOn) // the others come first
	default:
		l.rest(c)
	}
}

// rest says that a session waits for its client.
func (l *loop) rest(c *Session) {
	if l.closing {
		l.drop(c, nil)
		return
	}
	c.unread.Store(int64(c.in.end - c.in.pos))
	c.bufSize.Store(int64(len(c.in.buf)))
	c.busy.Store(false)
	c.out.idle(false)
}

// forget has the loop know a session no more.
func (l *loop) forget(c *Session) {
	fd := c.loop.sock.fd
	_ = unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, fd, nil)
	delete(l.sessions, int32(fd))
	l.server.looped.Add(-1)
	c.in.room = nil
	c.loop.in, c.loop.held, c.loop.more, c.loop.over, c.looped = nil, false, false, false, false
}

// drop ends a session.
func (l *loop) drop(c *Session, err error) {
	if c.in.buf != nil && &c.in.buf[0] == &l.buf[0] {
		c.in.buf, c.in.pos, c.in.end = nil, 0, 0
	}
	l.forget(c)
	c.end(err)
	c.loop.sock.free()
}

// leave has a session go on with a goroutine of its own, which begins with args, a
// command that was read, or err, what ended the reading.
func (l *loop) leave(c *Session, args [][]byte, err error) {
	l.takeBack(c.in)
	l.forget(c)
	c.left++
	c.stay = loopAfter << min(c.left, 12)
	c.out.work()
	c.busy.Store(true)
	conn, failed := c.loop.sock.conn()
	if failed != nil {
		l.server.log.Error("cannot go on with a client's connection", c.LogAttr(), "err", failed)
		c.end(failed)
		c.loop.sock.free()
		return
	}
	c.mu.Lock()
	c.raw = conn
	if c.ended {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.loop.sock.free()
	c.use(conn, newTryWriter(conn), nil)
	go c.serveOn(args, err)
}

// toLoop gives the session to a loop, if it is one for it and nothing of it is
// under way, and reports whether it has.
func (c *Session) toLoop() bool {
	s := c.server
	in := c.in
	switch {
	case len(s.loops) == 0:
		return false
	case c.stay > 0:
		c.stay--
		return false
	case !c.plain() || in.pos != in.end || in.left > 0 || in.big != nil || !c.out.still() || s.isClosing():
		return false
	}
	sock, err := newLoopSocket(c.raw)
	if err != nil { // such as too many open files
		c.stay = loopAfter << 12
		return false
	}
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		sock.free()
		return false
	}
	was := c.raw
	c.raw = sock
	c.mu.Unlock()
	_ = was.Close() // the socket stays open
	in.rest()
	l := s.loops[int(c.id)%len(s.loops)]
	c.loop.sock, c.looped = sock, true
	c.loop.replied = func() { l.tell(c, newsReplied) }
	c.use(sock, sock, func() { l.tell(c, newsPushed) })
	l.tell(c, newsJoined)
	return true
}

// plain reports whether the session is for a loop, as far as its state goes.
func (c *Session) plain() bool {
	return c.server.opt.TLS == nil && !c.watching && !c.subscribed() && !c.monitors.Load() && !c.tracks.Load() &&
		!c.replyOff && !c.skipNext && !c.last && !c.needsAuth() && !c.dead.Load()
}

// loopSocket is the connection of a session that is with a loop: the runtime
// does not watch it.
type loopSocket struct {
	net.Conn // as it was; only its addresses are of use

	mu sync.Mutex
	fd int // -1: closed

	full bool // the last Read took all that there was room for
}

// newLoopSocket returns a second handle of a connection's socket.
func newLoopSocket(conn net.Conn) (*loopSocket, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &loopSocket{Conn: conn}
	var dup error
	err = raw.Control(func(fd uintptr) { s.fd, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return s, errors.Join(err, dup)
}

// conn returns a handle that the runtime watches.
func (s *loopSocket) conn() (net.Conn, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "")
	defer func() { _ = f.Close() }()
	return net.FileConn(f)
}

// Read reads what is there; the error is EAGAIN if nothing is.
func (s *loopSocket) Read(p []byte) (int, error) {
	n, err := socket.Read(s.fd, p)
	s.full = n == len(p)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// write implements tryWriter.
func (s *loopSocket) write(p []byte) (int, error) { return writeSome(s.fd, p) }

// Close ends the connection, which its loop then sees.
func (s *loopSocket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	}
	return nil
}

// free closes the handle. It is for who has the session.
func (s *loopSocket) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = unix.Close(s.fd)
	s.fd = -1
}

// SetReadDeadline does nothing: a loop waits for no client.
func (s *loopSocket) SetReadDeadline(time.Time) error { return nil }
