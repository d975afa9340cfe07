package resp

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

const (
	// directReply is the size from which a reply is sent from its own memory
	// and not copied.
	directReply = 16 << 10
	// writePiece is what a slow client is sent at a time; each counts as
	// progress.
	writePiece = 64 << 10
)

// errBehind: the socket does not take all of the replies at once, and the session is
// with a loop, which waits for nobody.
var errBehind = errors.New("the client reads slowly")

// errOutputLimit: the client does not read its replies.
var errOutputLimit = errors.New("client-output-buffer-limit reached and the client reads nothing")

// output sends replies in order without making the session wait for a client
// that reads late: what the socket does not take at once is left to a
// goroutine, which exists only while something waits. A client may so write a
// whole pipeline before it reads the first reply, as with Redis.
//
// Other goroutines push messages into it. While the session is busy with
// commands they wait for it, so that each comes behind the replies to what was
// carried out before; while it is idle they go to the goroutine at once.
type output struct {
	conn   net.Conn
	try    tryWriter // nil if the connection cannot be written without blocking
	limit  *atomic.Int64
	stall  time.Duration
	budget *budget
	sent   *atomic.Int64 // bytes

	// The session's alone: replies not yet flushed. tail is the last of them,
	// and still grows.
	head [][]byte
	tail []byte
	off  bool // replies are dropped (CLIENT REPLY)

	queued   atomic.Int64 // bytes left to the goroutine
	mu       sync.Mutex
	parked   func() // not nil: the session is with a loop, which this asks to hand it over
	queue    [][]byte
	running  bool
	err      error
	progress chan struct{} // has one element after each piece, at the end too

	// Under mu too: what others push.
	proto  int
	busy   bool     // the session is carrying out commands
	blocks bool     // it is in a command that blocks, and so not busy
	pushed [][]byte // while it is busy
	waits  int64    // bytes of pushed
	own    bool     // some of pushed must come behind the reply to the running command
	over   time.Time
}

// tryWriter writes to a connection as much of b as that takes without blocking,
// perhaps nothing, and returns how many bytes.
type tryWriter interface{ write(b []byte) (int, error) }

func newOutput(limit *atomic.Int64, stall time.Duration, b *budget, sent *atomic.Int64) *output {
	return &output{
		limit: limit, stall: stall, budget: b, sent: sent,
		progress: make(chan struct{}, 1), proto: 2, busy: true,
	}
}

// use has it write to conn: before anything is added, or when nothing is queued. parked
// is not nil if the session is with a loop, which it asks to hand the session over.
func (o *output) use(conn net.Conn, try tryWriter, parked func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conn, o.try, o.parked = conn, try, parked
}

// still reports whether nothing is queued or pushed.
func (o *output) still() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.running && o.waits == 0
}

// add appends a reply. The output may keep b if it is large.
func (o *output) add(b []byte) {
	if !o.off {
		o.always(b)
	}
}

// always is add also while replies are dropped.
func (o *output) always(b []byte) {
	switch {
	case len(b) >= directReply:
		if len(o.tail) > 0 {
			o.head = append(o.head, o.tail)
			o.tail = nil
		}
		o.head = append(o.head, b)
	default:
		o.tail = append(o.tail, b...)
	}
}

// flush sends what was added, or queues it. When more than the limit is queued
// it waits until the client has read some. The error is final: the connection
// is of no more use.
func (o *output) flush() error {
	o.merge()
	return o.flushReplies()
}

// flushReplies is flush without what was pushed: that may have to wait for the
// reply of a command that has just ended.
func (o *output) flushReplies() error {
	if len(o.tail) > 0 {
		o.head = append(o.head, o.tail)
	}
	rest := o.head
	if o.try != nil && o.queued.Load() == 0 {
		for len(rest) > 0 {
			n, err := o.try.write(rest[0])
			o.sent.Add(int64(n))
			if err != nil {
				o.fail(err)
				return err
			}
			if n < len(rest[0]) {
				rest[0] = rest[0][n:]
				break
			}
			rest = rest[1:]
		}
	}
	if len(rest) > 0 {
		if o.parked != nil {
			o.head, o.tail = rest, nil
			return errBehind
		}
		if err := o.enqueue(rest); err != nil {
			return err
		}
		o.tail = nil // the queue has it
	} else if cap(o.tail) > directReply {
		o.tail = nil
	} else {
		o.tail = o.tail[:0]
	}
	clear(o.head)
	o.head = o.head[:0]
	return o.room(o.limit.Load())
}

// enqueue leaves chunks to the goroutine, starting it if need be.
func (o *output) enqueue(chunks [][]byte) error {
	var n int64
	for _, c := range chunks {
		n += int64(len(c))
	}
	if !o.budget.take(n) {
		o.fail(errMemory)
		return errMemory
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		o.budget.give(n)
		return o.err
	}
	o.start(chunks, n)
	return nil
}

// start gives the goroutine chunks of n bytes together; mu is held.
func (o *output) start(chunks [][]byte, n int64) {
	o.queued.Add(n)
	o.queue = append(o.queue, chunks...)
	if !o.running {
		o.running = true
		go o.drain()
	}
}

// drain writes the queue until it is empty or the connection fails.
func (o *output) drain() {
	for {
		o.mu.Lock()
		if o.err != nil || len(o.queue) == 0 {
			o.running = false
			o.queue = nil
			o.budget.give(o.queued.Swap(0))
			o.mu.Unlock()
			o.signal()
			return
		}
		chunks := o.queue
		o.queue = nil
		o.mu.Unlock()
		for len(chunks) > 0 {
			var c []byte
			c, chunks = gather(chunks)
			for len(c) > 0 {
				n, err := o.conn.Write(c[:min(len(c), writePiece)])
				c = c[n:]
				o.sent.Add(int64(n))
				if err != nil {
					o.fail(err)
					break
				}
				o.budget.give(int64(n))
				o.queued.Add(-int64(n))
				o.signal()
			}
			if o.failed() != nil {
				break
			}
		}
	}
}

// gather returns the first chunk, or the first ones together if they are
// small, and the rest.
func gather(chunks [][]byte) ([]byte, [][]byte) {
	n, size := 0, 0
	for n < len(chunks) && len(chunks[n]) < directReply && size < writePiece {
		size += len(chunks[n])
		n++
	}
	if n < 2 {
		return chunks[0], chunks[1:]
	}
	b := make([]byte, 0, size)
	for _, c := range chunks[:n] {
		b = append(b, c...)
	}
	return b, chunks[n:]
}

func (o *output) signal() {
	select {
	case o.progress <- struct{}{}:
	default:
	}
}

// room waits until at most limit bytes are queued. The connection fails if
// none is taken for the stall time.
func (o *output) room(limit int64) error {
	for o.queued.Load() > limit {
		timer := time.NewTimer(o.stall)
		select {
		case <-o.progress:
			timer.Stop()
		case <-timer.C:
			o.fail(errOutputLimit)
		}
		if err := o.failed(); err != nil {
			return err
		}
	}
	return o.failed()
}

// fail records the first error and closes the connection, which ends a write
// under way.
func (o *output) fail(err error) {
	o.mu.Lock()
	if o.err == nil {
		o.err = err
	}
	o.budget.give(o.waits)
	o.pushed, o.waits, o.own = nil, 0, false
	o.mu.Unlock()
	_ = o.conn.Close()
}

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// message is what is pushed to clients: the same bytes to all that speak one
// protocol.
type message struct {
	write   func(*command.Reply)
	encoded [2][]byte // RESP2, RESP3
}

// bytes returns the message for a client of a protocol. Not for concurrent use.
func (m *message) bytes(proto int) []byte {
	b := &m.encoded[proto-2]
	if *b == nil {
		r := command.Reply{Proto: proto}
		m.write(&r)
		*b = r.Buf
	}
	return *b
}

// pushLimit is how many bytes may wait for a client that others push to: hard
// at no time, soft not for longer than the time. 0: no limit but the budget.
type pushLimit struct {
	hard, soft int64
	time       time.Duration
}

// exceeded reports whether so many bytes are too many; mu is held.
func (o *output) exceeded(n int64, lim pushLimit) bool {
	if lim.hard > 0 && n > lim.hard {
		return true
	}
	if lim.soft == 0 || n <= lim.soft {
		o.over = time.Time{}
		return false
	}
	if o.over.IsZero() {
		o.over = time.Now()
	}
	return time.Since(o.over) >= lim.time
}

// push sends a message, for any goroutine, and never waits. own says that it
// is about what the session's own command has done, and comes behind its reply.
// An error says that the client is to be disconnected: it does not read what
// it is sent.
func (o *output) push(m *message, own bool, lim pushLimit) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil // it is on its way out
	}
	b := m.bytes(o.proto)
	n := int64(len(b))
	switch {
	case o.exceeded(o.queued.Load()+o.waits+n, lim):
		return errOutputLimit
	case !o.budget.take(n):
		return errMemory
	case o.busy || own && o.blocks || o.parked != nil:
		o.pushed = append(o.pushed, b)
		o.own = o.own || own
		o.waits += n
		if !o.busy && o.parked != nil {
			o.parked()
		}
	default:
		o.start([][]byte{b}, n)
	}
	return nil
}

// merge puts what was pushed so far behind the replies so far.
func (o *output) merge() { o.speak(0) }

// speak is merge, and changes the protocol of what is pushed from now on,
// unless that is 0.
func (o *output) speak(proto int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range o.pushed {
		o.always(b)
	}
	o.budget.give(o.waits)
	o.pushed, o.waits, o.own = nil, 0, false
	if proto != 0 {
		o.proto = proto
	}
}

// idle says that all replies are flushed and the session waits: for its
// client, or in a command that blocks.
func (o *output) idle(blocks bool) {
	o.mu.Lock()
	o.busy, o.blocks = false, blocks
	if n := o.waits; n > 0 && o.err == nil && o.parked != nil {
		o.parked()
	} else if n > 0 && o.err == nil && !(blocks && o.own) { // else the reply is there already
		o.start(o.pushed, n) // the budget has them already
		o.pushed, o.waits, o.own = nil, 0, false
	}
	o.mu.Unlock()
}

// work says that the session goes on.
func (o *output) work() {
	o.mu.Lock()
	o.busy, o.blocks = true, false
	o.mu.Unlock()
}
