package resp

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

// What SLOWLOG keeps of a command, as Redis does.
const (
	slowArgs    = 32
	slowArgSize = 128
)

// slowLog keeps the latest commands that took long.
type slowLog struct {
	mu      sync.Mutex
	nextID  int64
	entries []slowEntry // latest first
}

type slowEntry struct {
	id     int64
	at     time.Time
	micros int64
	args   []string
	addr   string
	name   string
}

// noteSlow logs a command if it took long. Passwords are
// not logged.
func (s *Server) noteSlow(c *Session, cmd *command.Command, args [][]byte, took time.Duration) {
	limit := s.settings.slowTime.Load()
	if limit < 0 || took.Microseconds() < limit || cmd.Flags&command.SkipSlowlog != 0 {
		return
	}
	s.slow.add(slowEntry{at: time.Now(), micros: took.Microseconds(), args: slowCopy(hideSecrets(cmd, args)), addr: c.addr, name: c.Name()},
		int(s.settings.slowLen.Load()))
}

func slowCopy(args [][]byte) []string {
	n := min(len(args), slowArgs)
	list := make([]string, n)
	for i, a := range args[:n] {
		switch {
		case i == n-1 && len(args) > n:
			list[i] = fmt.Sprintf("... (%d more arguments)", len(args)-n+1)
		case len(a) > slowArgSize:
			list[i] = fmt.Sprintf("%s... (%d more bytes)", a[:slowArgSize], len(a)-slowArgSize)
		default:
			list[i] = string(a)
		}
	}
	return list
}

func (l *slowLog) add(e slowEntry, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.id = l.nextID
	l.nextID++
	l.entries = append([]slowEntry{e}, l.entries[:min(len(l.entries), max(limit-1, 0))]...)
	if limit == 0 {
		l.entries = nil
	}
}

func (l *slowLog) latest(n int) []slowEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n < 0 || n > len(l.entries) {
		n = len(l.entries)
	}
	return append([]slowEntry(nil), l.entries[:n]...)
}

func (l *slowLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = nil
}

func slowlogGet(c *Session, args [][]byte) {
	n := int64(10)
	if len(args) > 2 {
		var ok bool
		if n, ok = parseInt(args[2]); !ok || n < -1 {
			c.reply.Error("ERR count should be greater than or equal to -1")
			return
		}
	}
	list := c.server.slow.latest(int(n))
	c.reply.Array(len(list))
	for _, e := range list {
		c.reply.Array(6)
		c.reply.Int(e.id)
		c.reply.Int(e.at.Unix())
		c.reply.Int(e.micros)
		c.reply.Array(len(e.args))
		for _, a := range e.args {
			c.reply.BulkString(a)
		}
		c.reply.BulkString(e.addr)
		c.reply.BulkString(e.name)
	}
}

func slowlogLen(c *Session, _ [][]byte) { c.reply.Int(int64(len(c.server.slow.latest(-1)))) }

func slowlogReset(c *Session, _ [][]byte) {
	c.server.slow.reset()
	c.reply.OK()
}

// itoa is for fields of replies that are text.
func itoa[T int | int32 | int64 | uint8](n T) string { return strconv.FormatInt(int64(n), 10) }
