package resp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestBigValue(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	value := strings.Repeat("0123456789abcdef", 128<<20/16)
	go func() { _, _ = io.WriteString(c.Conn, encode("SET", "k", value)+encode("GET", "k")) }()
	if got := c.reply(); got != "+OK\r\n" {
		t.Fatal(got)
	}
	if got := c.reply(); got != fmt.Sprintf("$%d\r\n%s\r\n", len(value), value) {
		t.Fatalf("%d bytes came back", len(got))
	}
	// Big and small go on together.
	c.send(encode("INCR", "n") + encode("SET", "k", value[:1<<20]) + encode("INCR", "n"))
	if got := c.reply() + c.reply() + c.reply(); got != ":1\r\n+OK\r\n:2\r\n" {
		t.Fatal(got)
	}
}

// A client that sends commands and reads nothing is disconnected, and costs
// bounded memory until then.
func TestSlowReader(t *testing.T) {
	const limit = 4 << 20
	ts := start(t, func(o *Options) {
		o.MaxOutputBuffer = limit
		o.StallTimeout = 300 * time.Millisecond
	})
	c := ts.dial()
	c.want("+OK\r\n", "SET", "k", strings.Repeat("v", 100_000))
	var most atomic.Int64
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			most.Store(max(most.Load(), ts.budget.used.Load()))
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	in := strings.Repeat(encode("GET", "k"), 100_000) // 10 GB of replies
	_, err := io.WriteString(c.Conn, in)
	if err == nil {
		eventually(t, "disconnected", func() bool { return ts.stats.outputLimit.Load() == 1 })
	}
	close(stop)
	<-watched
	// The limit, and one batch above it.
	if n := most.Load(); n > limit+firstBatch*100_100+maxBatchOut {
		t.Errorf("%d bytes were queued", n)
	}
	eventually(t, "counted", func() bool { return ts.stats.outputLimit.Load() == 1 })
	ts.dial().want("+PONG\r\n", "PING")
}

// A client that reads slowly, but reads, gets everything however much more than
// the limit it is.
func TestPatientReader(t *testing.T) {
	ts := start(t, func(o *Options) { o.MaxOutputBuffer = 1 << 20 })
	c := ts.dial()
	c.want("+OK\r\n", "SET", "k", strings.Repeat("v", 100_000))
	const n = 600
	go func() { _, _ = io.WriteString(c.Conn, strings.Repeat(encode("GET", "k"), n)) }()
	for i := range n {
		if i%100 == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if got := len(c.reply()); got < 100_000 {
			t.Fatal(got)
		}
	}
}

// Clients together keep to MaxMemory: the one that would exceed it goes.
func TestMaxMemory(t *testing.T) {
	ts := start(t, func(o *Options) { o.MaxMemory = 8 << 20 })
	a, b := ts.dial(), ts.dial()
	half := strings.Repeat("x", 6<<20)
	a.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8000000\r\n" + half[:5<<20])
	// Once all of it is held: until then a is the one that might exceed.
	const held = 5<<20 - directBulk
	eventually(t, "more than half the memory is taken", func() bool { return ts.budget.used.Load() >= held })
	before := ts.budget.used.Load()
	_, _ = io.WriteString(b.Conn, encode("SET", "b", half))
	b.closed()
	eventually(t, "counted", func() bool { return ts.stats.evicted.Load() == 1 })
	eventually(t, "given back", func() bool { return ts.budget.used.Load() == before })
	a.send(strings.Repeat("x", 8000000-5<<20) + "\r\n")
	if got := a.reply(); got != "+OK\r\n" {
		t.Error(got)
	}
	ts.dial().want("+OK\r\n", "SET", "b", half)
}

func TestQueryLimit(t *testing.T) {
	ts := start(t, func(o *Options) { o.MaxQueryBuffer = 1 << 20 })
	c := ts.dial()
	_, _ = io.WriteString(c.Conn, encode("DEL", strings.Repeat("x", 600_000), strings.Repeat("x", 600_000)))
	c.closed()
	eventually(t, "counted", func() bool { return ts.stats.queryLimit.Load() == 1 })
}

func TestMaxClients(t *testing.T) {
	ts := start(t, func(o *Options) { o.MaxClients = 3 })
	var in []*client
	for range 3 {
		c := ts.dial()
		c.want("+PONG\r\n", "PING")
		in = append(in, c)
	}
	c := ts.dial()
	if got := c.reply(); got != "-ERR max number of clients reached\r\n" {
		t.Error(got)
	}
	c.closed()
	if got := in[0].do("INFO", "stats"); !strings.Contains(got, "rejected_connections:1\r\n") {
		t.Error(got)
	}
	_ = in[1].Close()
	eventually(t, "room again", func() bool { return len(ts.clients()) == 2 })
	ts.dial().want("+PONG\r\n", "PING")
}

// A thousand idle clients cost little, and a flood of connections harms nobody.
func TestFlood(t *testing.T) {
	ts := start(t, nil)
	steady := ts.dial()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 1000
	for range n {
		ts.dial()
	}
	eventually(t, "all are in", func() bool { return ts.stats.connections.Load() == n+1 })
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)
	if used > n*32<<10 { // the test's side included
		t.Errorf("%d bytes a client", used/n)
	}
	for range 2000 {
		conn, err := net.Dial("tcp", ts.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	steady.want("+PONG\r\n", "PING")
	eventually(t, "the flood is gone", func() bool { return len(ts.clients()) == n+1 })
}

func TestIdleTimeout(t *testing.T) {
	ts := start(t, nil)
	idle, busy := ts.dial(), ts.dial()
	idle.want("+PONG\r\n", "PING")
	busy.want("+OK\r\n", "CONFIG", "SET", "timeout", "1")
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		idle.closed()
	}()
	for {
		busy.want("+PONG\r\n", "PING")
		select {
		case <-gone:
			busy.want("+PONG\r\n", "PING")
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Close lets commands in flight finish and their replies go out, and accepts
// nobody more.
func TestCloseDrains(t *testing.T) {
	ts := start(t, nil)
	ts.mem.hold, ts.mem.entered = make(chan struct{}), make(chan struct{})
	c, idle := ts.dial(), ts.dial()
	idle.want("+PONG\r\n", "PING")
	c.send(encode("SET", "k", "v") + encode("GET", "k"))
	<-ts.mem.entered
	closed := make(chan error, 1)
	go func() { closed <- ts.Close(context.Background()) }()
	idle.closed()
	if _, err := net.Dial("tcp", ts.addr); err == nil {
		t.Error("a client was accepted")
	}
	close(ts.mem.hold)
	if got := c.reply() + c.reply(); got != "+OK\r\n$1\r\nv\r\n" {
		t.Error(got)
	}
	c.closed()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// Close does not wait for ever.
func TestCloseCutsOff(t *testing.T) {
	ts := start(t, nil)
	ts.mem.hold, ts.mem.entered = make(chan struct{}), make(chan struct{})
	c := ts.dial()
	c.send(encode("SET", "k", "v"))
	<-ts.mem.entered
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := ts.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	c.closed()
	close(ts.mem.hold)
}

// Replies reach a client that has closed its own direction.
func TestHalfClose(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	c.send(encode("SET", "k", strings.Repeat("v", 8<<20)) + encode("GET", "k") + "PING\r\n")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c.r)
	if err != nil || len(b) < 8<<20 || !strings.HasSuffix(string(b), "+PONG\r\n") {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestShutdown(t *testing.T) {
	called := make(chan struct{})
	ts := start(t, func(o *Options) { o.Shutdown = func() { close(called) } })
	c := ts.dial()
	c.want("-ERR syntax error\r\n", "SHUTDOWN", "SAVE", "NOSAVE")
	c.send(encode("SHUTDOWN", "NOSAVE"))
	<-called
	c.closed()
	other := start(t, nil).dial()
	if got := other.do("SHUTDOWN"); !strings.HasPrefix(got, "-ERR ") {
		t.Error(got)
	}
}

func TestOptions(t *testing.T) {
	_, err := New(Options{MaxClients: -1, MaxBulkLen: 5, IdleTimeout: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"no backend", "MaxClients -1", "MaxBulkLen 5", "IdleTimeout -1ns"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
}
