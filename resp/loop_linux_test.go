package resp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// looped dials a client and waits until it is with a loop.
func (ts *testServer) looped() *client {
	ts.t.Helper()
	n := ts.Server.looped.Load()
	c := ts.dial()
	c.want("+OK\r\n", "SET", "key", "value")
	eventually(ts.t, "it is with a loop", func() bool { return ts.Server.looped.Load() == n+1 })
	return c
}

// engage sends a command of a client, and returns when the backend is at it: that
// goes on, with this and all after it, when it is told to (mapBackend.hold).
func (ts *testServer) engage(c *client) {
	ts.t.Helper()
	ts.mem.hold, ts.mem.entered = make(chan struct{}), make(chan struct{})
	c.send(encode("GET", "key"))
	<-ts.mem.entered
}

// Clients that send everything, in pieces and pipelines of all sizes, go to a loop
// and leave it all the time; each gets its own replies, in its order.
func TestLoopAndBack(t *testing.T) {
	ts := start(t, func(o *Options) { o.Loops = 3 })
	var wg sync.WaitGroup
	for i := range 12 {
		c := ts.dial()
		c.want("+PONG\r\n", "PING")
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			key, n, value := fmt.Sprint("n", i), 0, ""
			for range 150 {
				var out strings.Builder
				var want []string
				say := func(reply string, args ...string) {
					out.WriteString(encode(args...))
					want = append(want, reply)
				}
				for range 1 + rnd.IntN([]int{1, 20, 200}[rnd.IntN(3)]) {
					switch rnd.IntN(24) {
					case 0:
						say("+PONG\r\n", "PING")
					case 1:
						say(fmt.Sprintf(":%d\r\n", c.id(ts)), "CLIENT", "ID")
					case 2:
						value = strings.Repeat("v", rnd.IntN(200_000))
						say("+OK\r\n", "SET", key+"v", value)
					case 3:
						if value != "" {
							say(fmt.Sprintf("$%d\r\n%s\r\n", len(value), value), "GET", key+"v")
						}
					case 4:
						n++
						say("+OK\r\n", "MULTI")
						say("+QUEUED\r\n", "INCR", key)
						say(fmt.Sprintf("*1\r\n:%d\r\n", n), "EXEC")
					case 6:
						n++
						say("+OK\r\n", "MULTI")
						say("+QUEUED\r\n", "PING")
						say("-ERR MULTI calls can not be nested\r\n", "MULTI")
						say("+QUEUED\r\n", "INCR", key)
						say("+QUEUED\r\n", "SELECT", "0")
						say("+QUEUED\r\n", "CLIENT", "ID")
						say(fmt.Sprintf("*4\r\n+PONG\r\n:%d\r\n+OK\r\n:%d\r\n", n, c.id(ts)), "EXEC")
					case 7:
						say("+OK\r\n", "MULTI")
						say("+QUEUED\r\n", "INCR", key)
						say("-ERR wrong number of arguments for 'get' command\r\n", "GET")
						say("-"+errExecAbort+"\r\n", "EXEC")
						say("-ERR EXEC without MULTI\r\n", "EXEC")
					case 8:
						say("+OK\r\n", "MULTI")
						say("+QUEUED\r\n", "INCR", key)
						say("+OK\r\n", "DISCARD")
					case 5:
						say("-ERR wrong number of arguments for 'get' command\r\n", "GET")
					default:
						n++
						say(fmt.Sprintf(":%d\r\n", n), "INCR", key)
					}
				}
				sent := make(chan error, 1)
				go func() {
					for s := out.String(); s != ""; {
						k := len(s)
						if rnd := rand.IntN(3); rnd > 0 {
							k = min(k, 1+rand.IntN([]int{0, 30, 30_000}[rnd]))
						}
						if _, err := io.WriteString(c.Conn, s[:k]); err != nil {
							sent <- err
							return
						}
						s = s[k:]
					}
					sent <- nil
				}()
				for _, w := range want {
					got, err := readReply(c.r)
					if err != nil || got != w {
						t.Errorf("client %d: %v, %.80q, not %.80q", i, err, got, w)
						return
					}
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestEarlyReplies, for a client that is with a loop.
func TestEarlyRepliesOfALoop(t *testing.T) {
	ts := start(t, func(o *Options) { o.Loops = 1 })
	earlyReplies(ts, ts.looped())
}

// Transactions of data commands keep a client with its loop, be they sent at once or
// step by step; others and what else needs a goroutine do not.
func TestLoopCarriesOutTransactions(t *testing.T) {
	loopAfter = 2 // who leaves does not come back at once
	t.Cleanup(func() { loopAfter = 0 })
	ts := start(t, func(o *Options) { o.Loops = 1 })
	c := ts.dial()
	for range 2 * loopAfter {
		c.want("+OK\r\n", "SET", "key", "value")
	}
	eventually(t, "it is with a loop", func() bool { return ts.Server.looped.Load() == 1 })
	for i := range 20 {
		c.send(encode("MULTI") + encode("INCR", "n") + encode("GET", "key") + encode("EXEC"))
		for _, want := range []string{"+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", fmt.Sprintf("*2\r\n:%d\r\n$5\r\nvalue\r\n", 2*i+1)} {
			if got := c.reply(); got != want {
				t.Fatalf("%q, not %q", got, want)
			}
		}
		c.want("+OK\r\n", "MULTI")
		c.want("+QUEUED\r\n", "INCR", "n")
		c.want(fmt.Sprintf("*1\r\n:%d\r\n", 2*i+2), "EXEC")
		c.want("+OK\r\n", "MULTI")
		c.want("+OK\r\n", "DISCARD")
		if n := ts.Server.looped.Load(); n != 1 {
			t.Fatalf("%d clients are with the loop after %d transactions", n, i+1)
		}
	}
	c.want("+OK\r\n", "MULTI")
	c.want("+QUEUED\r\n", "SELECT", "0")
	c.want("*1\r\n+OK\r\n", "EXEC")
	if n := ts.Server.looped.Load(); n != 0 {
		t.Errorf("%d clients are with the loop after a SELECT in a transaction", n)
	}
}

// id returns the number of the client's session.
func (c *client) id(ts *testServer) int64 { return sessionOf(ts, c).id }

// Who reads late leaves the loop and gets all of its replies; meanwhile others
// are served.
func TestLoopWaitsForNobody(t *testing.T) {
	ts := start(t, func(o *Options) { o.Loops = 1 })
	slow, other := ts.looped(), ts.looped()
	value := strings.Repeat("x", 1<<20)
	slow.want("+OK\r\n", "SET", "large", value)
	const gets = 40
	slow.send(strings.Repeat(encode("GET", "large"), gets))
	eventually(t, "the slow client has left", func() bool { return ts.Server.looped.Load() == 1 })
	other.want("$5\r\nvalue\r\n", "GET", "key")
	for range gets {
		if got := slow.reply(); len(got) != len(value)+len("$1048576\r\n\r\n") {
			t.Fatalf("%.40q, %d bytes", got, len(got))
		}
	}
}

// A backend that takes long for one client's commands holds up no other's.
func TestLoopGoesOnWhileTheBackendWorks(t *testing.T) {
	ts := start(t, func(o *Options) { o.Loops = 1 })
	a, b := ts.looped(), ts.looped()
	ts.engage(a)
	b.want("+PONG\r\n", "PING")
	a.send(encode("GET", "key") + encode("QUIT")) // what comes meanwhile waits for its turn
	b.want("+PONG\r\n", "PING")
	ts.mem.hold <- struct{}{}
	<-ts.mem.entered
	ts.mem.hold <- struct{}{}
	for _, want := range []string{"$5\r\nvalue\r\n", "$5\r\nvalue\r\n", "+OK\r\n"} {
		if got := a.reply(); got != want {
			t.Errorf("%q", got)
		}
	}
	a.closed()
}

func TestLoopEnds(t *testing.T) {
	for name, end := range map[string]func(ts *testServer, c *client){
		"the client goes": func(_ *testServer, c *client) { _ = c.Conn.Close() },
		"it was idle":     func(ts *testServer, c *client) { sessionOf(ts, c).kill(errIdle); c.closed() },
		"it is killed": func(ts *testServer, c *client) {
			admin := ts.dial()
			admin.want(":1\r\n", "CLIENT", "KILL", "ID", fmt.Sprint(c.id(ts)))
			c.closed()
			_ = admin.Conn.Close()
		},
		"it breaks the protocol": func(_ *testServer, c *client) { c.send("*1\r\nx\r\n"); _ = c.reply(); c.closed() },
		"half a command": func(_ *testServer, c *client) {
			c.send("*2\r\n$3\r\nGET\r\n$3")
			_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			c.closed()
		},
	} {
		t.Run(name, func(t *testing.T) {
			ts := start(t, func(o *Options) { o.Loops = 1 })
			c := ts.looped()
			end(ts, c)
			eventually(t, "the session is gone", func() bool { return ts.Server.looped.Load() == 0 && len(ts.clients()) == 0 })
		})
	}
}

// What was received before Close has its reply, and idle clients are let go.
func TestLoopWhenTheServerCloses(t *testing.T) {
	ts := start(t, func(o *Options) { o.Loops = 1 })
	idle, busy := ts.looped(), ts.looped()
	ts.engage(busy)
	closed := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		closed <- ts.Close(ctx)
	}()
	idle.closed()
	ts.mem.hold <- struct{}{}
	if got := busy.reply(); got != "$5\r\nvalue\r\n" {
		t.Errorf("%q", got)
	}
	busy.closed()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := <-ts.done; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	ts.done <- ErrClosed // for who asks at the end
}

// Invalidations reach a client that is with a loop, although it sends nothing.
func TestLoopIsPushedTo(t *testing.T) {
	ts := start(t, func(o *Options) { o.Loops = 1 })
	to := ts.dial()
	_ = to.do("HELLO", "3")
	to.want("+OK\r\n", "SET", "key", "value")
	eventually(t, "it is with a loop", func() bool { return ts.Server.looped.Load() == 1 })
	from, writer := ts.dial(), ts.dial()
	from.want("+OK\r\n", "CLIENT", "TRACKING", "ON", "REDIRECT", fmt.Sprint(to.id(ts)))
	from.want("$5\r\nvalue\r\n", "GET", "key")
	writer.want("+OK\r\n", "SET", "key", "other")
	ts.Changed(nil, []string{"key"})
	if got := to.reply(); got != ">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n" {
		t.Errorf("%q", got)
	}
	to.want("$5\r\nother\r\n", "GET", "key")
}

// A pause holds up a client that is with a loop as any other.
func TestLoopIsPaused(t *testing.T) {
	ts := start(t, func(o *Options) { o.Loops = 1 })
	c, admin := ts.looped(), ts.dial()
	admin.want("+OK\r\n", "CLIENT", "PAUSE", "60000", "WRITE")
	c.send(encode("SET", "key", "later"))
	eventually(t, "it waits", func() bool { return ts.pause.held.Load() == 1 })
	admin.want("$5\r\nvalue\r\n", "GET", "key")
	admin.want("+OK\r\n", "CLIENT", "UNPAUSE")
	if got := c.reply(); got != "+OK\r\n" {
		t.Errorf("%q", got)
	}
}

// Files are closed, each once.
func TestLoopClosesItsFiles(t *testing.T) {
	ts := start(t, func(o *Options) { o.Loops = 1 })
	files := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	c := ts.looped()
	was := files()
	for range 100 {
		c.want("+OK\r\n", "CLIENT", "SETNAME", "x") // leaves
		c.want("$5\r\nvalue\r\n", "GET", "key")
	}
	for range 50 {
		d := ts.looped()
		_ = d.Conn.Close()
		eventually(t, "it is gone", func() bool { return len(ts.clients()) == 1 })
	}
	eventually(t, "no files are left", func() bool { return files() <= was })
}
