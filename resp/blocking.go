package resp

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// A command that may wait is carried out alone. While it waits the session goes
// on reading, for that is how it learns that its client has gone: what was to
// be served to it then goes to the next who waits. What comes meanwhile stays in
// the buffer.

const (
	// blockGrace is how long a command is given before the session prepares to
	// wait: nearly all that find something are done by then.
	blockGrace = time.Millisecond
	// maxAhead is how many bytes a client may send behind a command that waits.
	// With more the session stops reading, and no longer sees it go.
	maxAhead = 1 << 20
	// unblockEvery is how often a command that has not reached the backend yet
	// is looked for to end its wait.
	unblockEvery = 5 * time.Millisecond
)

const (
	errUnblocked = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"
	errStopping  = "-UNBLOCKED the server is stopping\r\n"
)

// Blocked tells the session that its command waits. It is for the backend,
// from within Execute.
func (c *Session) Blocked() { c.blocked.Store(true) }

// States of a command that may wait.
const (
	blockRuns    int32 = iota // the session only waits for it
	blockReads                // the session reads from its client
	blockReplied              // it has its reply
)

// await has the batch, a single command that may wait, executed. An error says
// that the client has gone; the reply is then nobody's.
func (c *Session) await() (err error) {
	defer c.blocked.Store(false)
	var state atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.callBackend()
		if state.Swap(blockReplied) == blockReads {
			c.wake()
		}
	}()
	grace := time.NewTimer(blockGrace)
	defer grace.Stop()
	select {
	case <-done:
		return nil
	case <-grace.C:
	}
	if err := c.out.flush(); err != nil {
		c.unblock(done, nil)
		return err
	}
	if !state.CompareAndSwap(blockRuns, blockReads) {
		<-done
		return nil
	}
	defer func() {
		_ = c.raw.SetReadDeadline(time.Time{})
		if c.server.isClosing() {
			c.wake()
		}
	}()
	for {
		if c.in.end-c.in.pos+len(c.in.big) >= maxAhead {
			select {
			case <-done:
				return nil
			case <-c.gone:
				err = errKilled
			case <-c.server.stop:
				err = os.ErrDeadlineExceeded
			}
		} else {
			c.out.idle(true) // for what others send to the client meanwhile
			err = c.in.fill()
			c.out.work()
		}
		select {
		case <-done:
			return nil // an error will show again
		default:
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && c.server.isClosing():
			c.unblock(done, []byte(errStopping))
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded) && state.Load() != blockReplied:
			// The session was thought to be quiet (Server.rest).
			_ = c.raw.SetReadDeadline(time.Time{})
			if state.Load() == blockReplied || c.server.isClosing() {
				c.wake()
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			<-done // it is about to be
			return nil
		default:
			c.unblock(done, nil)
			return err
		}
	}
}

// unblock ends the wait of the session's command, and returns when it has its
// reply.
func (c *Session) unblock(done <-chan struct{}, reply []byte) {
	for !c.server.backend.Unblock(c, reply) {
		select {
		case <-done:
			return
		case <-time.After(unblockEvery):
		}
	}
	<-done
}

// blockedClients counts the sessions whose commands wait.
func (s *Server) blockedClients() (n int64) {
	for _, c := range s.clients() {
		if c.blocked.Load() {
			n++
		}
	}
	return n
}

func clientUnblock(c *Session, args [][]byte) {
	var reply []byte
	switch {
	case len(args) > 4:
		c.reply.Error("ERR unknown subcommand or wrong number of arguments for 'unblock'. Try CLIENT HELP.")
		return
	case len(args) < 4, equalFold(args[3], "timeout"):
	case equalFold(args[3], "error"):
		reply = []byte(errUnblocked)
	default:
		c.reply.Error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
		return
	}
	id, ok := parseInt(args[2])
	if !ok {
		c.reply.Error(errNotInteger)
		return
	}
	c.server.mu.Lock()
	o := c.server.sessions[id]
	c.server.mu.Unlock()
	c.reply.Bool(o != nil && o.blocked.Load() && c.server.backend.Unblock(o, reply))
}
