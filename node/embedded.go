package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// embeddedView serves the view inside the process.
func embeddedView(logger *slog.Logger) (*viewSource, error) {
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("embedded view: %w", err)
	}
	lock := guard(m, logger)
	// Keys age by a clock that is moved on, not by the one on the wall: an expiry
	// is kept as the time left, and would come back a little different.
	now := func() time.Time { return time.Now().Truncate(time.Millisecond) }
	m.SetTime(now())
	m.ClockTTL(true)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				lock.Lock()
				m.SetTime(now())
				lock.Unlock()
			case <-stop:
				return
			}
		}
	}()
	return &viewSource{
		target: RedisTarget{Mode: RedisEmbedded, Network: "tcp", Addr: m.Addr()},
		what:   "an embedded store", alive: func() error { return nil },
		stop: func() error {
			close(stop)
			<-done
			m.Close()
			return nil
		},
	}, nil
}

// guard keeps what the embedded store cannot digest from ending the process: a command
// at which it panics ends its connection, so that the view is lost for a moment. All
// that uses the store holds the lock that guard returns.
func guard(m *miniredis.Miniredis, logger *slog.Logger) sync.Locker {
	var lock sync.Mutex
	var inside sync.Map // the connections whose command is being carried out
	s := m.Server()
	s.SetPreHook(func(p *server.Peer, name string, args ...string) (done bool) {
		if _, again := inside.LoadOrStore(p, true); again {
			return false // called by Dispatch below
		}
		defer inside.Delete(p)
		lock.Lock()
		defer lock.Unlock()
		defer func() {
			if err := recover(); err != nil {
				logger.Error("the embedded store cannot carry out a command", "command", name, "panic", err)
				_ = m.TryLock() // it may have been left locked
				m.Unlock()
				p.Close()
				done = true
			}
		}()
		switch name {
		case "DUMP", "RESTORE":
			// Its form is its own: what it made of Redis's would be taken for the value.
			p.WriteError("ERR unknown command")
			return true
		case "HRANDFIELD", "SRANDMEMBER", "ZRANDMEMBER": // a negative count draws again and again
			if len(args) > 1 && strings.HasPrefix(args[1], "-") && len(args[1]) > len("-999999") {
				p.WriteError("ERR value is out of range: a real Redis draws more than 999999 elements at once, this node has a store of its own instead; " + realRedis)
				return true
			}
		}
		s.Dispatch(p, slices.Insert(args, 0, name))
		return true
	})
	return &lock
}

// The ways out where the embedded store is not enough.
const realRedis = "install redis-server, or start the node with --redis ADDRESS"

// beyondEmbedded says of an error of the embedded store that a real Redis would help,
// if it may. The number of arguments has been checked before: if the store finds it
// wrong, it does not know an option.
func beyondEmbedded(args [][]byte, raw []byte) []byte {
	if len(raw) == 0 || raw[0] != '-' {
		return raw
	}
	name := strings.ToLower(string(args[0]))
	unknown := bytes.HasSuffix(raw, []byte("not supported\r\n"))
	for _, e := range []string{"-ERR unknown command", "-ERR unknown subcommand", "-ERR wrong number of arguments"} {
		unknown = unknown || bytes.HasPrefix(raw, []byte(e))
	}
	switch {
	case unknown:
		return fmt.Appendf(nil, "-ERR '%s', or an option of it, needs a real Redis, and this node has a store of its own instead: %s\r\n", name, realRedis)
	case bytes.HasPrefix(raw, []byte("-ERR syntax error")):
		return fmt.Appendf(nil, "-ERR syntax error, unless this option of '%s' needs a real Redis: this node has a store of its own instead; %s\r\n", name, realRedis)
	}
	return raw
}

// The embedded store has RESP3 replies of its own making. asRedis turns one
// into what Redis answers.
func asRedis(args [][]byte, raw []byte) []byte {
	raw = nullReplies(raw)
	kind, items, ok := splitReply(raw)
	if !ok {
		return raw
	}
	has := func(option string) bool {
		return slices.ContainsFunc(args[1:], func(a []byte) bool { return strings.EqualFold(string(a), option) })
	}
	switch name := strings.ToUpper(string(args[0])); name {
	case "SUNION", "SINTER", "SDIFF":
		return joinReply('~', items)
	case "HRANDFIELD":
		if kind == '%' {
			return joinReply('*', pairReplies(items))
		}
	case "ZRANGE", "ZRANGEBYSCORE", "ZREVRANGE", "ZREVRANGEBYSCORE", "ZUNION", "ZINTER", "ZDIFF", "ZRANDMEMBER":
		if has("WITHSCORES") {
			return joinReply('*', pairReplies(items))
		}
	case "ZSCAN":
		if len(items) == 2 {
			_, scan, _ := splitReply(items[1])
			for i, s := range scan {
				if s[0] == ',' {
					scan[i] = bulkReply(bytes.TrimSpace(s[1:]))
				}
			}
			return joinReply('*', [][]byte{items[0], joinReply('*', scan)})
		}
	case "XREAD":
		var flat [][]byte
		for _, s := range items {
			_, keyAndEntries, _ := splitReply(s)
			flat = append(flat, keyAndEntries...)
		}
		return joinReply('%', flat)
	case "GEOPOS":
		for i, s := range items {
			items[i] = doubleReplies(s)
		}
		return joinReply('*', items)
	case "GEORADIUS", "GEORADIUSBYMEMBER", "GEORADIUS_RO", "GEORADIUSBYMEMBER_RO", "GEOSEARCH":
		if !has("WITHCOORD") {
			break
		}
		for i, s := range items {
			if _, parts, ok := splitReply(s); ok {
				parts[len(parts)-1] = doubleReplies(parts[len(parts)-1])
				items[i] = joinReply('*', parts)
			}
		}
		return joinReply('*', items)
	}
	return raw
}

// splitReply returns the items of an aggregate reply, two for each pair of a map.
func splitReply(raw []byte) (kind byte, items [][]byte, ok bool) {
	end := bytes.IndexByte(raw, '\n') + 1
	if end == 0 || !bytes.ContainsRune([]byte("*~%>"), rune(raw[0])) {
		return 0, nil, false
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(raw[1:end])))
	if err != nil || n < 0 {
		return 0, nil, false
	}
	if raw[0] == '%' {
		n *= 2
	}
	for range n {
		size := replySize(raw[end:])
		if size == 0 {
			return 0, nil, false
		}
		items = append(items, raw[end:end+size])
		end += size
	}
	return raw[0], items, true
}

// replySize returns how many bytes the first reply of b takes, 0 if it is not
// whole.
func replySize(b []byte) int {
	end := bytes.IndexByte(b, '\n') + 1
	if end == 0 {
		return 0
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(b[1:end])))
	switch b[0] {
	case '$', '=':
		if n < 0 {
			return end
		}
		if end+n+2 > len(b) {
			return 0
		}
		return end + n + 2
	case '%':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for range max(n, 0) {
			size := replySize(b[end:])
			if size == 0 {
				return 0
			}
			end += size
		}
	}
	return end
}

func joinReply(kind byte, items [][]byte) []byte {
	n := len(items)
	if kind == '%' {
		n /= 2
	}
	out := append(strconv.AppendInt([]byte{kind}, int64(n), 10), "\r\n"...)
	for _, s := range items {
		out = append(out, s...)
	}
	return out
}

// pairReplies makes each two items one array.
func pairReplies(items [][]byte) [][]byte {
	var out [][]byte
	for i := 0; i+1 < len(items); i += 2 {
		out = append(out, joinReply('*', items[i:i+2]))
	}
	return out
}

func bulkReply(b []byte) []byte {
	return append(append(append(strconv.AppendInt([]byte{'$'}, int64(len(b)), 10), "\r\n"...), b...), "\r\n"...)
}

// doubleReplies turns the bulk strings of an array into doubles.
func doubleReplies(raw []byte) []byte {
	_, items, ok := splitReply(raw)
	if !ok {
		return raw
	}
	for i, s := range items {
		if b, size := readBulk(s); size > 0 {
			items[i] = append(append([]byte{','}, b...), "\r\n"...)
		}
	}
	return joinReply('*', items)
}

// nullReplies turns the nulls of RESP2 into that of RESP3.
func nullReplies(raw []byte) []byte {
	if len(raw) > 1 && raw[1] == '-' && (raw[0] == '*' || raw[0] == '$') {
		return []byte("_\r\n")
	}
	kind, items, ok := splitReply(raw)
	if !ok || !bytes.Contains(raw, []byte("-1\r\n")) {
		return raw
	}
	for i, s := range items {
		items[i] = nullReplies(s)
	}
	return joinReply(kind, items)
}
