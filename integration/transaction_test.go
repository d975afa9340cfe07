package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestTransactionsAsRedisPitfall20: random transactions of two connections, in
// pipelines, with WATCH, errors while they are queued and when they run, scripts
// and session commands in them: every reply is Redis's. A connection that ends
// within a transaction leaves nothing of it.
func TestTransactionsAsRedisPitfall20(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1})
	plain := bed.Redis(testbed.RedisOptions{})
	dial := func() net.Conn {
		c, err := net.Dial("tcp", plain.Address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	mine, theirs := [2]net.Conn{n.Dial(), n.Dial()}, [2]net.Conn{dial(), dial()}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for round := range 400 {
		var pipeline []string
		for range 1 + r.IntN(12) {
			pipeline = append(pipeline, transactionCommand(r))
		}
		i := r.IntN(2)
		got, want := sendPipeline(t, mine[i], pipeline), sendPipeline(t, theirs[i], pipeline)
		for j := range want {
			if got[j] != want[j] {
				t.Fatalf("seed %d, round %d, connection %d, command %d of %q:\n got %q\nwant %q", seed, round, i, j, pipeline, got[j], want[j])
			}
		}
		if r.IntN(20) == 0 { // the connection ends in the middle of something
			var b bytes.Buffer
			for _, c := range []string{"WATCH a", "MULTI", "SET cut 1", "INCR a"} {
				writeCommand(&b, strings.Fields(c)...)
			}
			cut := b.Len() - r.IntN(20)
			for _, c := range []net.Conn{mine[i], theirs[i]} {
				_, _ = c.Write(b.Bytes()[:cut])
				_ = c.Close()
			}
			mine[i], theirs[i] = n.Dial(), dial()
		}
	}
	data, err := testbed.Dataset(plain.Client)
	if err != nil {
		t.Fatal(err)
	}
	if d := testbed.DiffData(withoutExpiry(n.Dataset()), withoutExpiry(data)); len(d) > 0 {
		t.Fatalf("seed %d: the node's data against Redis's: %s", seed, strings.Join(d, "\n"))
	}
}

func transactionCommand(r *rand.Rand) string {
	k := func() string { return string("abc"[r.IntN(3)]) }
	list := []func() string{
		func() string { return "MULTI" }, func() string { return "MULTI" }, func() string { return "EXEC" }, func() string { return "EXEC" },
		func() string { return "DISCARD" }, func() string { return "WATCH " + k() }, func() string { return "WATCH " + k() + " " + k() },
		func() string { return "UNWATCH" }, func() string { return "GET " + k() }, func() string { return "SET " + k() + " " + fmt.Sprint(r.IntN(5)) },
		func() string { return "INCR " + k() }, func() string { return "APPEND " + k() + " x" }, func() string { return "DEL " + k() },
		func() string { return "MGET a b c" }, func() string { return "HSET h " + k() + " 1" }, func() string { return "HGETALL " + k() },
		func() string { return "HLEN h" }, func() string { return "SADD s " + k() }, func() string { return "SCARD s" },
		func() string { return "EXPIRE " + k() + " 1000" }, func() string { return "PERSIST " + k() }, func() string { return "TYPE " + k() },
		func() string { return "PING" }, func() string { return "ECHO " + k() }, func() string { return "SELECT " + fmt.Sprint(r.IntN(3)) },
		func() string { return "GET" }, func() string { return "NOSUCH x" }, func() string { return "SELECT 99" }, func() string { return "FLUSHDB" },
		func() string { return "SET " + k() + " v EX bad" }, func() string { return "CLIENT GETNAME" }, func() string { return "CLIENT SETNAME n" + k() },
		func() string { return "EVAL return{redis.call('incr',KEYS[1]),redis.call('get',KEYS[1])} 1 " + k() },
		func() string {
			return "EVAL return{redis.call('set',KEYS[1],ARGV[1]),redis.call('strlen',KEYS[1])} 1 " + k() + " abc"
		},
		func() string { return "EVAL return{redis.pcall('incr',KEYS[1]),redis.call('ttl',KEYS[1])} 1 " + k() },
		func() string { return "EVAL_RO return{redis.call('set',KEYS[1],1)} 1 " + k() },
		func() string { return "RESET" }, func() string { return "SAVE" },
	}
	return list[r.IntN(len(list))]()
}

// TestTransactionIsWhole: what a transaction or script writes to several keys
// is seen by clients of another node at once, or not yet.
func TestTransactionIsWhole(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	bed.Level(a, b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx := t.Context()
		for i := range 400 {
			if i%2 == 0 {
				_, _ = a.Client().TxPipelined(ctx, func(p redis.Pipeliner) error {
					p.Set(ctx, "x", i, 0)
					p.HSet(ctx, "y", "f", i)
					p.Get(ctx, "x")
					p.Set(ctx, "z", i, 0)
					return nil
				})
			} else {
				a.Client().Eval(ctx, `for _, k in ipairs({'x','z'}) do redis.call('set', k, ARGV[1]) redis.call('dbsize') end
					redis.call('hset', 'y', 'f', ARGV[1])`, nil, i)
			}
		}
	}()
	seen := map[string]bool{}
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		got := fmt.Sprint(b.Do("EVAL_RO", "return {redis.call('get','x') or '', redis.call('hget','y','f') or '', redis.call('get','z') or ''}", "0"))
		seen[got] = true
		v := strings.Fields(strings.Trim(got, "[]"))
		for _, w := range v {
			if len(v) != 3 || w != v[0] {
				t.Fatalf("a part of a transaction is seen: %s", got)
			}
		}
	}
	bed.Level(a, b)
	if len(seen) < 3 {
		t.Errorf("only %d states were seen", len(seen))
	}
	equal(t, "the last", fmt.Sprint(b.Do("MGET", "x", "z")), "[399 399]")
}

// TestWatchSeesOtherNodes: a watched key that a peer changes makes EXEC do
// nothing; so does one that expires, and one that a flush elsewhere takes.
func TestWatchSeesOtherNodes(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	a.Do("SET", "k", "1")
	a.Do("SET", "gone", "1")
	bed.Level(a, b)
	for _, c := range []struct {
		name   string
		change func()
		fails  bool
	}{
		{"nothing", func() {}, false},
		{"another key", func() { b.Do("SET", "other", "2") }, false},
		{"a write", func() { b.Do("SET", "k", "2") }, true},
		{"a script", func() { b.Do("EVAL", "redis.call('append', 'k', 'x')", "0") }, true},
		{"an expiry", func() { a.Do("PEXPIRE", "gone", "30"); time.Sleep(60 * time.Millisecond) }, true},
		{"a flush", func() { b.Do("FLUSHALL") }, true},
		{"a flush of nothing", func() { b.Do("FLUSHALL") }, false},
	} {
		conn := a.Dial()
		pre := sendPipeline(t, conn, []string{"WATCH k gone"})
		equal(t, c.name+": WATCH", pre[0], "+OK\r\n")
		c.change()
		bed.Level(a, b)
		got := sendPipeline(t, conn, []string{"MULTI", "PING", "EXEC"})
		want := "*1\r\n+PONG\r\n"
		if c.fails {
			want = "*-1\r\n"
		}
		equal(t, c.name+": EXEC", got[2], want)
		_ = conn.Close()
	}
}

// TestFunctionsAreTheClusters: a library loaded at one node is called at all: at
// members, at one that joins later, and after restarts. Of two that were loaded at
// once the later stays.
func TestFunctionsAreTheClusters(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	lib := func(name, function, result string) string {
		return "#!lua name=" + name + "\nredis.register_function('" + function + "', function(keys, args) redis.call('incr', keys[1]) return '" + result + "' end)"
	}
	equal(t, "load", fmt.Sprint(a.Do("FUNCTION", "LOAD", lib("l", "f", "one"))), "l")
	bed.Level(a, b)
	equal(t, "call at the other", fmt.Sprint(b.Do("FCALL", "f", "1", "n")), "one")
	b.Do("FUNCTION", "LOAD", "REPLACE", lib("l", "f", "two"))
	bed.Level(a, b)
	equal(t, "call what was replaced", fmt.Sprint(a.Do("FCALL", "f", "1", "n")), "two")
	equal(t, "flushes do not touch libraries", fmt.Sprint(a.Do("FLUSHALL")), "OK")
	equal(t, "the view does not show them", a.Int("DBSIZE"), 0)

	a.Pause()
	a.Do("FUNCTION", "LOAD", lib("x", "g", "at a"))
	a.Do("FUNCTION", "LOAD", "REPLACE", lib("l", "f", "first"))
	b.Do("FUNCTION", "LOAD", lib("w", "g", "at b"))
	time.Sleep(20 * time.Millisecond)
	b.Do("FUNCTION", "LOAD", "REPLACE", lib("l", "f", "last"))
	a.Resume()
	bed.Level(a, b)
	c := bed.Node(testbed.Options{ID: 3, Meet: []*testbed.Node{a}})
	bed.Level(a, b, c)
	b.Kill()
	b.Start()
	bed.Level(a, b, c)
	for _, n := range []*testbed.Node{a, b, c} {
		equal(t, fmt.Sprintf("node %d: of two loaded at once", n.ID), fmt.Sprint(n.Do("FCALL", "f", "1", "n")), "last")
		equal(t, fmt.Sprintf("node %d: a name in two libraries", n.ID), fmt.Sprint(n.Do("FCALL", "g", "1", "n")), "at b")
		equal(t, fmt.Sprintf("node %d: libraries", n.ID), len(n.Do("FUNCTION", "LIST").([]any)), 3)
	}
	bed.Level(a, b, c)
	equal(t, "all calls count", fmt.Sprint(a.Do("GET", "n")), "6")

	// What one node dumps another takes, and so does a Redis.
	dump := a.Do("FUNCTION", "DUMP").(string)
	c.Do("FUNCTION", "FLUSH")
	bed.Level(a, b, c)
	equal(t, "deleted", a.Error("FCALL", "f", "1", "n"), "ERR Function not found")
	c.Do("FUNCTION", "RESTORE", dump)
	bed.Level(a, b, c)
	equal(t, "restored", fmt.Sprint(b.Do("FCALL", "f", "1", "n")), "last")
}

// TestStopEndsScripts: a script that would run for ever is ended when the node stops,
// and has written nothing.
func TestStopEndsScripts(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1})
	n.Do("CONFIG", "SET", "busy-reply-threshold", "10")
	var b bytes.Buffer
	writeCommand(&b, "EVAL", "redis.call('SET', KEYS[1], 'v') while true do end", "1", "k")
	c := n.Dial()
	_, _ = c.Write(b.Bytes())
	bed.Wait(30*time.Second, "the node to be busy", func() (bool, string) {
		_, err := n.Try("GET", "k")
		return err != nil && strings.HasPrefix(err.Error(), "BUSY"), fmt.Sprint(err)
	})
	n.Stop()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	got := make([]byte, 100)
	m, _ := c.Read(got)
	equal(t, "the script's reply", string(got[:m]), "-LOADING replicatord is stopping\r\n")
	equal(t, "the log has an error", strings.Contains(n.Log(), "level=ERROR"), false)
	n.Start()
	equal(t, "k", n.Do("EXISTS", "k"), any(int64(0)))
}
