package resp

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

// monitors are the clients that are shown what all others send (MONITOR).
type monitors struct {
	any atomic.Bool
	mu  sync.Mutex
	set map[*Session]struct{}
}

func (m *monitors) add(c *Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set == nil {
		m.set = map[*Session]struct{}{}
	}
	m.set[c] = struct{}{}
	m.any.Store(true)
	c.monitors.Store(true)
}

func (m *monitors) remove(c *Session) {
	if !c.monitors.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.set, c)
	m.any.Store(len(m.set) > 0)
	c.monitors.Store(false)
}

// show shows a command to the monitors. As in Redis, administrative commands
// are not shown, and passwords neither.
func (m *monitors) show(c *Session, cmd *command.Command, db uint8, args [][]byte) {
	if m.any.Load() && cmd.Flags&(command.Operator|command.Admin) == 0 {
		m.line(db, c.peer(), hideSecrets(cmd, args))
	}
}

// showPart shows a command of a transaction, once.
func (c *Session) showPart(p *part) {
	if !p.shown {
		p.shown = true
		c.server.monitors.show(c, p.cmd, p.db, p.args)
	}
}

// Monitor shows monitors a command that a script of the client carries out. The
// commands of a transaction are shown when all have been carried out, for only
// then they are known to be; but those up to the script before what it calls.
func (q *Request) Monitor(db uint8, args [][]byte) {
	c := q.Session
	if !c.server.monitors.any.Load() {
		return
	}
	if q.whole != nil {
		for i := range q.whole.parts {
			p := &q.whole.parts[i]
			c.showPart(p)
			if p.sub == q {
				break
			}
		}
	}
	c.server.monitors.line(db, "lua", args)
}

// peer is how MONITOR names the client.
func (c *Session) peer() string {
	if path, ok := strings.CutSuffix(c.addr, ":0"); ok && c.unix {
		if path == "" {
			path = strings.TrimSuffix(c.laddr, ":0")
		}
		return "unix:" + path
	}
	return c.addr
}

func (m *monitors) line(db uint8, peer string, args [][]byte) {
	now := time.Now()
	b := fmt.Appendf(nil, "+%d.%06d [%d %s]", now.Unix(), now.Nanosecond()/1000, db, peer)
	for _, a := range args {
		b = append(b, ' ')
		b = appendQuoted(b, a)
	}
	b = append(b, "\r\n"...)
	line := &message{encoded: [2][]byte{b, b}}
	m.mu.Lock()
	who := slices.Collect(maps.Keys(m.set))
	m.mu.Unlock()
	for _, c := range who {
		c.push(line)
	}
}

// appendQuoted appends bytes as Redis shows them in its logs.
func appendQuoted(b, s []byte) []byte {
	b = append(b, '"')
	for _, ch := range s {
		switch ch {
		case '\\', '"':
			b = append(b, '\\', ch)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case '\a':
			b = append(b, `\a`...)
		case '\b':
			b = append(b, `\b`...)
		default:
			if ch >= ' ' && ch <= '~' {
				b = append(b, ch)
			} else {
				b = append(b, `\x`...)
				if ch < 16 {
					b = append(b, '0')
				}
				b = strconv.AppendUint(b, uint64(ch), 16)
			}
		}
	}
	return append(b, '"')
}

func monitor(c *Session, _ [][]byte) {
	if c.monitors.Load() {
		return // without a word, as Redis
	}
	c.server.monitors.add(c)
	c.reply.OK()
}
