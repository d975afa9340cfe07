package resp

import (
	"errors"
	"os"
	"time"
)

// A command that may wait is carried out alone. While it waits the session reads
// on, for that is how it learns that its client has gone: what was to be served
// to it then goes to the next who waits. What comes meanwhile stays in the
// buffer.

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

// await has the batch, a single command that may wait, executed. An error says
// that the client has gone; the reply is then nobody's.
func (c *Session) await() error {
	defer c.blocked.Store(false)
	done, watched := make(chan struct{}), make(chan error, 1)
	watch := time.AfterFunc(blockGrace, func() { watched <- c.watch(done) })
	c.callBackend()
	close(done)
	if watch.Stop() {
		return nil
	}
	c.wake()
	err := <-watched
	c.readUntil(time.Time{})
	if c.server.isClosing() {
		c.wake()
	}
	return err
}

// watch reads from the client, in place of the session, until the command has
// its reply, and ends the command's wait if the client or the server goes.
func (c *Session) watch(done <-chan struct{}) error {
	err := c.out.flushReplies()
	c.out.idle(true) // others may push
	defer c.out.work()
	for err == nil {
		if c.in.end-c.in.pos+len(c.in.big) >= maxAhead {
			select {
			case <-done:
			case <-c.gone:
				err = errKilled
			case <-c.server.stop:
				err = os.ErrDeadlineExceeded
			}
		} else {
			err = c.in.fill()
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if c.server.isClosing() {
				c.unblock(done, []byte(errStopping))
				return nil
			}
			// There is a reply, or the session was thought to be quiet (Server.rest).
			c.readUntil(time.Time{})
			if err = nil; c.server.isClosing() {
				c.wake()
			}
		}
		select {
		case <-done:
			return nil // an error will show again
		default:
		}
	}
	c.unblock(done, nil)
	return err
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
