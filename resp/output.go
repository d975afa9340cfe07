package resp

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// directReply is the size from which a reply is sent from its own memory
	// and not copied.
	directReply = 16 << 10
	// writePiece is what a slow client is sent at a time; each counts as
	// progress.
	writePiece = 64 << 10
)

// errOutputLimit: the client does not read its replies.
var errOutputLimit = errors.New("client-output-buffer-limit reached and the client reads nothing")

// output sends replies in order without making the session wait for a client
// that reads late: what the socket does not take at once is left to a
// goroutine, which exists only while something waits. A client may so write a
// whole pipeline before it reads the first reply, as with Redis.
type output struct {
	conn   net.Conn
	try    *tryWriter // nil if the connection cannot be written without blocking
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
	queue    [][]byte
	running  bool
	err      error
	progress chan struct{} // has one element after each piece, at the end too
}

func newOutput(conn net.Conn, limit *atomic.Int64, stall time.Duration, b *budget, sent *atomic.Int64) *output {
	return &output{
		conn: conn, try: newTryWriter(conn), limit: limit, stall: stall, budget: b, sent: sent,
		progress: make(chan struct{}, 1),
	}
}

// add appends a reply. The output may keep b if it is large.
func (o *output) add(b []byte) {
	switch {
	case o.off:
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
	o.queued.Add(n)
	o.queue = append(o.queue, chunks...)
	if !o.running {
		o.running = true
		go o.drain()
	}
	return nil
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
		for i, c := range chunks {
			chunks[i] = nil
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
	o.mu.Unlock()
	_ = o.conn.Close()
}

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
