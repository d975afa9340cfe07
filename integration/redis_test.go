package integration

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// fill writes some of everything.
func fill(n *testbed.Node, prefix string, keys int) {
	ctx := context.Background()
	c := n.Client()
	pipe := c.Pipeline()
	for i := range keys {
		pipe.Set(ctx, fmt.Sprint(prefix, "string", i), i, 0)
		pipe.IncrBy(ctx, fmt.Sprint(prefix, "count"), int64(i))
		pipe.HSet(ctx, fmt.Sprint(prefix, "hash", i%7), i, "v")
		pipe.SAdd(ctx, fmt.Sprint(prefix, "set", i%5), i)
		pipe.Set(ctx, fmt.Sprint(prefix, "expiring", i%10), i, time.Hour)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		panic(err)
	}
}

// TestRedisTrouble: whatever happens to the Redis behind a node, clients get -LOADING
// for a while and then the right data; never anything else.
func TestRedisTrouble(t *testing.T) {
	tests := []struct {
		name    string
		trouble func(bed *testbed.Bed, n *testbed.Node, r *testbed.Redis)
	}{
		{"killed, empty again", func(_ *testbed.Bed, _ *testbed.Node, r *testbed.Redis) {
			r.Kill()
			r.Wipe()
			time.Sleep(300 * time.Millisecond)
			r.Start()
		}},
		{"an old backup", func(_ *testbed.Bed, n *testbed.Node, r *testbed.Redis) {
			backup := r.Backup()
			n.Do("SET", "string1", "newer")
			n.Do("DEL", "string2", "hash1")
			n.Do("INCRBY", "count", "1000")
			n.Do("SADD", "set1", "newer")
			n.Do("EXPIRE", "string3", "5000")
			r.Kill()
			r.Restore(backup)
			r.Start()
		}},
		{"an old backup, and the node restarted too", func(_ *testbed.Bed, n *testbed.Node, r *testbed.Redis) {
			backup := r.Backup()
			n.Do("SET", "string1", "newer")
			n.Do("DEL", "string2", "hash1")
			n.Kill()
			r.Kill()
			r.Restore(backup)
			r.Start()
			n.Start()
		}},
		{"FLUSHALL behind the node's back, and a restart", func(_ *testbed.Bed, n *testbed.Node, r *testbed.Redis) {
			time.Sleep(500 * time.Millisecond) // until all updates have arrived there
			r.Client(0).FlushAll(context.Background())
			n.Kill()
			n.Start()
		}},
		{"frozen for a second", func(_ *testbed.Bed, _ *testbed.Node, r *testbed.Redis) {
			r.Freeze()
			time.Sleep(time.Second)
			r.Thaw()
		}},
		{"connections cut", func(bed *testbed.Bed, _ *testbed.Node, r *testbed.Redis) {
			if err := r.Client(0).Do(context.Background(), "CLIENT", "KILL", "TYPE", "normal").Err(); err != nil {
				bed.Fatalf("%v", err)
			}
		}},
	}
	for _, databases := range []int{0, 17} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, %d databases", tt.name, max(databases, 16)), func(t *testing.T) {
				bed := testbed.New(t)
				r := bed.Redis(testbed.RedisOptions{Databases: databases})
				n := bed.Node(testbed.Options{ID: 1, View: r.Address()})
				fill(n, "", 300)
				tt.trouble(bed, n, r)
				// From now on each answer is right, or LOADING.
				deadline := time.Now().Add(30 * time.Second)
				for first := true; ; first = false {
					v, err := n.Try("INCR", "probe")
					if err == nil {
						equal(t, "the first increment", v, any(int64(1)))
						break
					}
					if !strings.HasPrefix(err.Error(), "LOADING") && !first {
						t.Fatalf("a client was told %q", err)
					}
					if time.Now().After(deadline) {
						t.Fatalf("no recovery: %v", err)
					}
					time.Sleep(2 * time.Millisecond)
				}
				time.Sleep(200 * time.Millisecond) // a loss that was not noticed yet
				n.Ready()
				before := n.Dataset()
				if len(before) < 300 {
					t.Fatalf("only %d keys", len(before))
				}
				// The cells say the same.
				n.Stop()
				r.Kill()
				r.Wipe()
				r.Start()
				n.Start()
				if d := testbed.DiffData(before, n.Dataset()); len(d) > 0 {
					t.Fatalf("after a rebuild from the cells:\n%s", strings.Join(d, "\n"))
				}
			})
		}
	}
}

// TestKilledWhileTheViewIsBuilt: a node that is killed before it has marked its view
// as level, right after its first writes or in a rebuild, still knows it as its own.
func TestKilledWhileTheViewIsBuilt(t *testing.T) {
	t.Parallel()
	for _, databases := range []int{16, 17} {
		bed := testbed.New(t)
		r := bed.Redis(testbed.RedisOptions{Databases: databases})
		n := bed.Node(testbed.Options{ID: 1, View: r.Address()})
		n.Do("SET", "first", "v")
		n.Kill()
		n.Start()
		equal(t, "first", n.Do("GET", "first"), any("v"))
		for i := range 10 {
			fill(n, fmt.Sprint(i, ":"), 2000)
		}
		before := n.Do("DBSIZE")
		for range 4 {
			n.Kill()
			r.Kill()
			r.Start()
			n.Launch()
			bed.Wait(20*time.Second, "the rebuild to begin", func() (bool, string) {
				size, err := r.Client(0).DBSize(context.Background()).Result()
				return size > 1000, fmt.Sprint(err)
			})
			n.Kill()
			n.Start()
			equal(t, "DBSIZE", n.Do("DBSIZE"), before)
		}
	}
}

// TestRedisAwayLong: while the Redis is gone, the node takes part in the exchange,
// and clients are told at once.
func TestRedisAwayLong(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	r := bed.Redis(testbed.RedisOptions{})
	a := bed.Node(testbed.Options{ID: 1})
	b := bed.Node(testbed.Options{ID: 2, View: r.Address(), Meet: []*testbed.Node{a}})
	fill(a, "", 50)
	bed.Level(a, b)
	r.Kill()
	bed.Wait(10*time.Second, "LOADING", func() (bool, string) {
		_, err := b.Try("GET", "string1")
		return err != nil && strings.HasPrefix(err.Error(), "LOADING"), fmt.Sprint(err)
	})
	begun := time.Now()
	for range 50 {
		if got := b.Error("SET", "k", "v"); !strings.HasPrefix(got, "LOADING") {
			t.Fatalf("got %q", got)
		}
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("50 refusals took %v", took)
	}
	fill(a, "while away ", 200)
	a.Do("DEL", "string1")
	vector := a.Fields("NODE", "VECTOR")["vector"]
	bed.Wait(20*time.Second, "the node without Redis to get what the other has", func() (bool, string) {
		f := b.Fields("NODE", "VECTOR")
		return f["vector"] == vector, f["vector"]
	})
	r.Start()
	b.Ready()
	bed.Level(a, b)
}

// TestRedisFrozenLong: a Redis that hangs is given up after a time; until then what
// is in memory is answered; clients that wait are told, and all is well when it comes
// back.
func TestRedisFrozenLong(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	r := bed.Redis(testbed.RedisOptions{})
	n := bed.Node(testbed.Options{ID: 1, View: r.Address()})
	fill(n, "", 50)
	before := n.Dataset()
	if _, err := n.Try("GET", "string2"); err != nil {
		t.Fatal(err)
	}
	r.Freeze()
	if v, err := n.Try("GET", "string2"); err != nil || v == nil { // is known still
		t.Fatalf("what was read before is %v, %v", v, err)
	}
	n.Do("SET", "string1", 1) // as it was, but to be read anew
	if v, err := n.Try("GET", "string1"); err != nil || v != any("1") {
		t.Fatalf("what was just written is %v, %v", v, err)
	}
	begun := time.Now()
	_, err := n.Try("GETRANGE", "string1", 0, -1)
	if err == nil || !strings.HasPrefix(err.Error(), "LOADING") {
		t.Fatalf("a client that waited %v was told %v", time.Since(begun), err)
	}
	r.Thaw()
	n.Ready()
	if d := testbed.DiffData(before, n.Dataset()); len(d) > 0 {
		t.Fatalf("%s", strings.Join(d, "\n"))
	}
}

// TestForeignRedisIsNotTouched: a Redis that holds data of somebody else, or is
// the view of another node, is refused, at the start and when it takes the
// place of the node's own, and left as it is.
func TestForeignRedisIsNotTouched(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	foreign := bed.Redis(testbed.RedisOptions{})
	ctx := t.Context()
	foreign.Client(0).Set(ctx, "precious", "data", 0)
	n := bed.Node(testbed.Options{ID: 1, View: foreign.Address(), Broken: true})
	equal(t, "exit code", n.Ended(20*time.Second), 1)
	for _, want := range []string{"1 keys", "--adopt"} {
		if !strings.Contains(n.Log(), want) {
			t.Errorf("the log does not say %q:\n%s", want, n.Log())
		}
	}
	equal(t, "the foreign key", foreign.Client(0).Get(ctx, "precious").Val(), "data")

	own := bed.Redis(testbed.RedisOptions{})
	first := bed.Node(testbed.Options{ID: 2, View: own.Address()})
	first.Do("SET", "k", "of node 2")
	first.Stop()
	second := bed.Node(testbed.Options{ID: 3, View: own.Address(), Broken: true})
	equal(t, "exit code of a second node on one Redis", second.Ended(20*time.Second), 1)
	if !strings.Contains(second.Log(), "view of node 2") {
		t.Errorf("the log does not say whose view it is:\n%s", second.Log())
	}
	equal(t, "the first node's key", own.Client(0).Get(ctx, "k").Val(), "of node 2")
	first.Start()
	equal(t, "k", first.Do("GET", "k"), any("of node 2"))

	// In the place of its own while it runs: not overwritten, and no client
	// sees it.
	own.Kill()
	own.Wipe()
	own.Start()
	own.Client(0).Set(ctx, "precious", "data", 0) // may come too late: the node was quicker
	if own.Client(0).Exists(ctx, "k").Val() == 0 {
		if v, err := first.Try("GET", "precious"); err == nil && v != nil {
			t.Errorf("a client was given a foreign key: %v", v)
		}
		equal(t, "the foreign key", own.Client(0).Get(ctx, "precious").Val(), "data")
	}
}

// TestAdopt: a Redis with data becomes a node's: its counters keep counting, its
// expiries are kept, and all of it is replicated.
func TestAdopt(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	r := bed.Redis(testbed.RedisOptions{Persist: true})
	ctx := t.Context()
	for _, db := range []int{0, 3} {
		c := r.Client(db)
		pipe := c.Pipeline()
		for i := range 2000 {
			pipe.Set(ctx, fmt.Sprint("string", i), i, 0)
		}
		pipe.Set(ctx, "count", 41, 0)
		pipe.Set(ctx, "float", "1.5", 0)
		pipe.Set(ctx, "text\x00\r\n", "binary \x00\xff\r\n", 0)
		pipe.Set(ctx, "expiring", "v", time.Hour)
		pipe.HSet(ctx, "hash", "f", 10, "g", "text")
		pipe.Expire(ctx, "hash", 2*time.Hour)
		pipe.SAdd(ctx, "set", "x", "y", "")
		pipe.ZAdd(ctx, "zset", redis.Z{Score: 0.1, Member: "x"}, redis.Z{Score: math.Inf(1), Member: ""}, redis.Z{Score: 1e300, Member: "y"})
		pipe.Set(ctx, "empty", "", 0)
		for _, line := range []string{"XADD stream 1-1 f a", "XADD stream 2-1 f b g c", "XADD stream 3-0 f d", "XDEL stream 3-0", "XGROUP CREATE stream group 0",
			"XREADGROUP GROUP group alice COUNT 1 STREAMS stream >", "XREADGROUP GROUP group bob STREAMS stream >", "XACK stream group 2-1", "XGROUP CREATE stream other $"} {
			var args []any
			for _, w := range strings.Fields(line) {
				args = append(args, w)
			}
			pipe.Do(ctx, args...)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatal(err)
		}
	}
	before, err := testbed.Dataset(r.Client)
	if err != nil {
		t.Fatal(err)
	}
	a := bed.Node(testbed.Options{ID: 1, View: r.Address(), Args: []string{"--adopt"}})
	if !strings.Contains(a.Log(), "adopted") || !strings.Contains(a.Log(), "keys=4018") {
		t.Errorf("the log does not say what was adopted:\n%s", a.Log())
	}
	b := bed.Node(testbed.Options{ID: 2, Meet: []*testbed.Node{a}})
	bed.Level(a, b)
	for _, n := range []*testbed.Node{a, b} {
		if d := testbed.DiffData(roundExpiries(before), roundExpiries(n.Dataset())); len(d) > 0 {
			t.Fatalf("node %d: before and after it was adopted:\n%s", n.ID, strings.Join(d, "\n"))
		}
	}
	equal(t, "XPENDING", fmt.Sprint(b.Do("XPENDING", "stream", "group")), "[1 1-1 1-1 [[alice 1]]]")
	a.Pause()
	b.Pause()
	equal(t, "INCR", a.Do("INCR", "count"), any(int64(42)))
	equal(t, "INCRBY", b.Do("INCRBY", "count", "10"), any(int64(51)))
	equal(t, "HINCRBY", b.Do("HINCRBY", "hash", "f", "1"), any(int64(11)))
	equal(t, "ZINCRBY", a.Do("ZINCRBY", "zset", "0.5", "x"), any("0.59999999999999998"))
	equal(t, "ZINCRBY", b.Do("ZINCRBY", "zset", "2", "x"), any("2.1000000000000001"))
	a.Resume()
	b.Resume()
	bed.Level(a, b)
	equal(t, "the counter", a.Do("GET", "count"), any("52"))
	equal(t, "the score", b.Do("ZSCORE", "zset", "x"), any("2.6000000000000001"))
	// A second start with the flag adopts nothing again, one without goes on.
	a.Stop()
	a.Start()
	equal(t, "the counter after a restart", a.Do("GET", "count"), any("52"))
	bed.Level(a, b)
	bed.Rebuilt(b)
}

// roundExpiries rounds the moments of expiry to seconds: a Redis tells, in
// milliseconds, how long a key has left, and time passes on the way.
func roundExpiries(data map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range data {
		value, expiry, _ := strings.Cut(v, " expires ")
		var ms int64
		if _, err := fmt.Sscan(expiry, &ms); err == nil && ms > 0 {
			expiry = fmt.Sprint((ms + 5000) / 10_000)
		}
		out[k] = value + expiry
	}
	return out
}

// TestRedisThatCannotBeAView: the log and the clients' error say why.
func TestRedisThatCannotBeAView(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	master := bed.Redis(testbed.RedisOptions{})
	for _, tt := range []struct{ want, args string }{
		{"fewer than the 16 databases", "--databases 8"},
		{"replica of another Redis", "--replicaof 127.0.0.1 " + fmt.Sprint(master.Port)},
		{"cluster mode", fmt.Sprint("--cluster-enabled yes --cluster-port ", testbed.FreePort())}, // the usual one may be somebody's
		{"NOAUTH", "--requirepass secret"},
		{"set proto-max-bulk-len to at least 536870912 there", "--proto-max-bulk-len 1mb --user default on nopass ~* &* +@all -config|set"},
	} {
		r := bed.Redis(testbed.RedisOptions{Args: strings.Fields(tt.args)})
		n := bed.Node(testbed.Options{ID: 1, View: r.Address(), Broken: true})
		bed.Wait(20*time.Second, "an error that says "+tt.want, func() (bool, string) {
			_, err := n.Try("GET", "k")
			return err != nil && strings.HasPrefix(err.Error(), "LOADING") && strings.Contains(err.Error(), tt.want), fmt.Sprint(err)
		})
		if !strings.Contains(n.Log(), tt.want) {
			t.Errorf("the log does not say %q:\n%s", tt.want, n.Log())
		}
		n.Terminate()
		equal(t, "exit code of a stop before the start was complete", n.Ended(20*time.Second), 0)
	}
}

// TestRedisOfSmallSizes: a Redis that is set to take only small values takes those that
// the node does.
func TestRedisOfSmallSizes(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	r := bed.Redis(testbed.RedisOptions{Args: strings.Fields("--proto-max-bulk-len 1mb --client-query-buffer-limit 1mb")})
	n := bed.Node(testbed.Options{ID: 1, View: r.Address()})
	value := strings.Repeat("v", 3<<20)
	n.Do("SET", "large", value)
	n.Do("HSET", "hash", "field", value)
	equal(t, "of the Redis", r.Client(0).StrLen(t.Context(), "large").Val(), int64(len(value)))
	r.Kill()
	r.Start()
	bed.Wait(60*time.Second, "the view to be made anew", func() (bool, string) {
		v, err := n.Try("HSTRLEN", "hash", "field")
		return v == int64(len(value)), fmt.Sprint(v, err)
	})
}

// TestAdoptKilledMidway: an adoption that was cut off is made again.
func TestAdoptKilledMidway(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	r := bed.Redis(testbed.RedisOptions{})
	ctx := t.Context()
	for from := 0; from < 100_000; from += 10_000 {
		pipe := r.Client(0).Pipeline()
		for i := range 10_000 {
			pipe.Set(ctx, fmt.Sprint("k", from+i), i, 0)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatal(err)
		}
	}
	n := bed.Node(testbed.Options{ID: 1, View: r.Address(), Args: []string{"--adopt"}, Broken: true})
	bed.Wait(20*time.Second, "the adoption to begin", func() (bool, string) { return strings.Contains(n.Log(), "adopting"), n.Log() })
	time.Sleep(50 * time.Millisecond)
	n.Kill()
	n.Start()
	equal(t, "DBSIZE", n.Do("DBSIZE"), any(int64(100_000)))
	equal(t, "INCR", n.Do("INCR", "k7"), any(int64(8)))
	b := bed.Node(testbed.Options{ID: 2, Meet: []*testbed.Node{n}})
	bed.Level(n, b)
}
