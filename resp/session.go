package resp

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/resp/acl"
	"github.com/replicatord/replicatord/resp/command"
)

// Session is one client's connection. A goroutine of its own reads commands,
// gathers data commands that follow each other into one call of the backend,
// and answers the others itself, all in the client's order. While the client sends
// nothing but commands for the backend, the session is with a loop instead
// (loop_linux.go), which does that for many.
type Session struct {
	server *Server
	id     int64
	unix   bool // the connection is by a unix socket
	addr   string
	laddr  string
	begun  time.Time

	// What follows is the session's goroutine's, or its loop's, alone.
	in       *reader
	out      *output
	db       uint8
	authed   bool
	last     bool // close once what was executed is answered
	replyOff bool // CLIENT REPLY OFF
	skipNext bool // CLIENT REPLY SKIP
	batch    []*Request
	missing  []*Request             // of batch: what is for the backend, where others have their replies
	early    []*Request             // of batch: see outstanding
	waits    bool                   // batch is one command that may wait
	broken   error                  // what ended the connection while it did
	spare    []*Request             // all requests made so far; batch is the first of them
	bytes    int64                  // of arguments in batch
	limit    int                    // commands in the next batch at most
	local    []byte                 // replies made here while a batch was gathered
	marks    []localReply           // and where they belong
	reply    command.Reply          // what handlers write
	cached   bool                   // tracking.caching was set
	pushing  bool                   // the reply is one that CLIENT REPLY does not keep back
	subs     [3]map[string]struct{} // by subscription kind
	multi    *transaction           // since MULTI
	undone   bool                   // the last transaction was not carried out
	watching bool                   // the backend may know keys that the connection watches
	since    time.Time              // when the batch was begun
	looped   bool                   // the session is with a loop
	leave    [][]byte               // a command that it has to leave the loop for
	stay     int                    // so many more reads before it goes to a loop
	left     int                    // how often it has left one
	loop     loopSession

	// For others to see.
	active   atomic.Int64 // Unix seconds of the last sign of life
	busy     atomic.Bool  // executing, so not idle
	blocked  atomic.Bool  // in a command that waits
	dead     atomic.Bool  // killed
	quits    atomic.Bool  // QUIT was said, and is about to be answered
	dbNow    atomic.Int32
	current  atomic.Pointer[command.Command] // the last command
	unread   atomic.Int64                    // bytes in the query buffer
	bufSize  atomic.Int64
	queuedOn atomic.Pointer[output]
	subCount [3]atomic.Int32
	monitors atomic.Bool
	tracks   atomic.Bool // what it reads is noted
	proto    atomic.Int32
	tracking trackState // the server's trackers' lock holds for it

	who atomic.Pointer[acl.User]

	mu      sync.Mutex
	raw     net.Conn
	name    string
	library string
	libVer  string
	noEvict bool
	cause   error // why it was killed
	ended   bool
	gone    chan struct{} // closed at the end
}

// localReply says that local up to end belongs ahead of the batch's request
// number at.
type localReply struct{ at, end int }

// firstBatch is the limit of the first batch; it grows while replies are small.
const firstBatch = 64

func newSession(s *Server, id int64, conn net.Conn) *Session {
	c := &Session{
		server: s, id: id, raw: conn, begun: time.Now(),
		addr: addrString(conn.RemoteAddr()), laddr: addrString(conn.LocalAddr()),
		limit: firstBatch, gone: make(chan struct{}), stay: loopAfter,
	}
	c.unix = conn.RemoteAddr() != nil && strings.HasPrefix(conn.RemoteAddr().Network(), "unix")
	c.who.Store(s.users.Default())
	c.authed = !s.needsPassword()
	c.reply.Proto = 2
	c.proto.Store(2)
	c.active.Store(c.begun.Unix())
	c.busy.Store(true)
	return c
}

// addrString shows an address as Redis does; of unix sockets there are paths.
func addrString(a net.Addr) string {
	switch {
	case a == nil:
		return ""
	case strings.HasPrefix(a.Network(), "unix"):
		return a.String() + ":0"
	}
	return a.String()
}

// ID returns the number of the connection, which no other of this server has
// had.
func (c *Session) ID() int64 { return c.id }

// DB returns the database the connection has selected; for the backend, while
// it carries out a command of the session.
func (c *Session) DB() uint8 { return c.db }

// RemoteAddr returns the client's address.
func (c *Session) RemoteAddr() string { return c.addr }

// Name returns what the client called itself, "" if nothing.
func (c *Session) Name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.name
}

// Gone returns a channel that is closed when the connection is cut, for
// backends that wait.
func (c *Session) Gone() <-chan struct{} { return c.gone }

// LogAttr identifies the session in logs.
func (c *Session) LogAttr() slog.Attr {
	return slog.Group("client", "id", c.id, "addr", c.addr)
}

// serve runs the session to its end, or until it goes to a loop.
func (c *Session) serve() {
	s := c.server
	conn, err := s.handshake(c.raw)
	if err != nil {
		c.end(err)
		return
	}
	c.in = newReader(nil, c.limits(), &s.budget)
	c.out = newOutput(&s.settings.maxOutput, s.opt.StallTimeout, &s.budget, &s.stats.netOut)
	c.use(conn, newTryWriter(conn), nil)
	c.queuedOn.Store(c.out)
	c.serveOn(nil, nil)
}

// use has the session read from conn, and write to it as output.use says.
func (c *Session) use(conn net.Conn, try tryWriter, parked func()) {
	c.in.src = countReads{conn, &c.server.stats}
	c.out.use(conn, try, parked)
}

// serveOn is a session's goroutine. args is a command, err an error, that has been read.
func (c *Session) serveOn(args [][]byte, err error) {
	s := c.server
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a bug ended a client's connection", c.LogAttr(), "panic", p, "stack", string(debug.Stack()))
		}
		if !errors.Is(err, errLooped) {
			c.end(err)
		}
	}()
	err = c.loopOn(args, err)
	if err == nil || errors.Is(err, io.EOF) {
		// A client that has closed its own direction still gets its replies.
		_ = c.out.room(0)
		_ = c.out.conn.Close() // with TLS, says goodbye
	}
}

// countReads counts what is read.
type countReads struct {
	io.Reader
	s *stats
}

func (r countReads) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.s.netIn.Add(int64(n))
	r.s.reads.Add(1)
	return n, err
}

// errLooped: see loopOn.
var errLooped = errors.New("the session is with a loop")

// loopOn reads and answers until the connection ends. A nil error is an end in
// good order, after which queued replies are still to be sent; errLooped says that the
// session is a loop's now, and not to be touched.
func (c *Session) loopOn(args [][]byte, err error) error {
	for ; !c.last; args, err = nil, nil {
		if args == nil && err == nil {
			args, err = c.in.next()
		}
		if err == nil {
			c.dispatch(args)
			if c.broken != nil {
				return c.broken
			}
			if len(c.batch) >= c.limit || c.bytes >= maxBatchBytes {
				c.execute()
				err = c.flush()
			}
			if err != nil {
				return err
			}
			continue
		}
		c.execute()
		if !errors.Is(err, errMore) {
			if bad := protocolError(""); errors.As(err, &bad) { // allocates
				c.fail("ERR " + bad.Error())
				c.server.stats.protocolErrors.Add(1)
				return c.flush()
			}
			return err
		}
		if err := c.flush(); err != nil || c.last {
			return err
		}
		if c.toLoop() {
			return errLooped
		}
		if err := c.fill(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && c.server.isClosing() {
				return nil
			}
			return err
		}
	}
	c.execute()
	return c.flush()
}

// flush sends the replies made so far.
func (c *Session) flush() error {
	c.server.stats.writes.Add(1)
	return c.out.flush()
}

// fill waits for bytes from the client. While it waits the session is idle.
func (c *Session) fill() error {
	c.unread.Store(int64(c.in.end - c.in.pos + len(c.in.big)))
	c.bufSize.Store(int64(len(c.in.buf) + cap(c.in.big)))
	c.busy.Store(false)
	c.out.idle(false)
	err := c.in.fill()
	for errors.Is(err, os.ErrDeadlineExceeded) && !c.server.isClosing() {
		c.in.rest()
		c.bufSize.Store(int64(len(c.in.buf) + cap(c.in.big)))
		c.readUntil(time.Time{})
		if c.server.isClosing() { // and what ends the wait may be over already
			break
		}
		err = c.in.fill()
	}
	c.out.work()
	c.busy.Store(true)
	c.active.Store(time.Now().Unix())
	c.in.lim = c.limits()
	return err
}

// limits returns what the client may send now.
func (c *Session) limits() limits {
	p := &c.server.settings
	return limits{args: maxArgs, bulk: p.maxBulk.Load(), command: p.maxQuery.Load(), unauth: c.needsAuth()}
}

// needsAuth reports whether the client has still to log in.
func (c *Session) needsAuth() bool { return !c.authed && c.server.needsPassword() }

// setAuth records who the client is, and whether it has shown that, which
// widens what it may send.
func (c *Session) setAuth(u *acl.User, ok bool) {
	c.who.Store(u)
	c.authed = ok
	c.in.lim = c.limits()
}

// rest makes a session that waits for its client give its read buffer up.
func (c *Session) rest() {
	if c.bufSize.Load() > 0 && c.server.opt.TLS == nil {
		c.wake()
	}
}

// wake makes a session that waits for its client see that the server closes.
func (c *Session) wake() { c.readUntil(time.Now()) }

// readUntil sets the time at which reading fails; zero for none.
func (c *Session) readUntil(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.raw.SetReadDeadline(t)
}

// kill cuts the connection; cause says why. Any goroutine may call it.
func (c *Session) kill(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended, c.cause = true, cause
	c.dead.Store(true)
	close(c.gone)
	_ = c.raw.Close()
}

// end cuts what is left of the connection and forgets it.
func (c *Session) end(err error) {
	c.kill(err)
	c.endPushes()
	c.endTransaction()
	if c.out != nil {
		c.out.fail(net.ErrClosed)
	}
	if c.in != nil {
		c.in.close()
	}
	c.server.remove(c)
	c.mu.Lock()
	err = c.cause
	c.mu.Unlock()
	c.server.ended(c, err)
}

// ended counts and logs why a session ended.
func (s *Server) ended(c *Session, err error) {
	switch {
	case errors.Is(err, errQueryLimit):
		s.stats.queryLimit.Add(1)
	case errors.Is(err, errOutputLimit):
		s.stats.outputLimit.Add(1)
	case errors.Is(err, errMemory):
		s.stats.evicted.Add(1)
	default:
		s.log.Debug("client disconnected", c.LogAttr(), "cause", err)
		return
	}
	s.log.Warn("client disconnected", c.LogAttr(), "cause", err)
}
