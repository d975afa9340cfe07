package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/integration/testbed"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// takeOne pops the string under a key, or waits for one: a blocking command as
// small as they get.
var takeOne = &command.Command{Name: "TAKE", Group: "list", Flags: command.Write, Run: func(c *command.Context) {
	k := c.Key(1)
	v, ok := c.Elem(k, crdt.KindString, "")
	switch {
	case ok:
		c.Remove(k)
		c.Out.Bulk(v)
	case c.NoWait:
		c.Out.Null()
	default:
		w := &command.Wait{Keys: []crdt.Key{k}, State: true, Timeout: func(r *command.Reply) { r.Null() }}
		if len(c.Args) > 2 {
			ms, _ := crdt.ParseInt(c.Args[2])
			w.Deadline = time.Now().UnixMilli() + ms
		}
		c.Waits = w
	}
}}

func request(cmd *command.Command, words ...string) *resp.Request {
	q := &resp.Request{Cmd: cmd}
	for _, w := range words {
		q.Args = append(q.Args, []byte(w))
	}
	if cmd == nil {
		q.Cmd, _ = command.Find(q.Args)
	}
	return q
}

// run executes one request and returns its reply, for a transaction those of
// its commands.
func run(n *Node, q *resp.Request) string {
	n.Execute([]*resp.Request{q})
	out := string(q.Out)
	for _, s := range q.Subs {
		out += string(s.Out)
	}
	return out
}

// Waiting commands are served in the order in which they came, each once; time
// passes, and a wait can be ended.
func TestWaiting(t *testing.T) {
	n := startTestNode(t, 1, nil)
	const waiters = 5
	replies := make([]chan string, waiters)
	for i := range replies {
		replies[i] = make(chan string, 1)
		go func() { replies[i] <- run(n, request(takeOne, "TAKE", "k")) }()
		eventually(t, "the command to wait", func() bool {
			waiting := 0
			_ = n.exec.Run(func(c *Core) { waiting = c.Waiters() })
			return waiting == i+1
		})
	}
	for i := range waiters - 1 {
		run(n, request(nil, "SET", "k", strconv.Itoa(i)))
		if got, want := <-replies[i], fmt.Sprintf("$1\r\n%d\r\n", i); got != want {
			t.Errorf("waiter %d: %q, want %q", i, got, want)
		}
		if got := run(n, request(nil, "GET", "k")); got != "$-1\r\n" {
			t.Errorf("after waiter %d: %q", i, got)
		}
	}
	if !n.exec.Unblock(nil, []byte("+enough\r\n")) || <-replies[waiters-1] != "+enough\r\n" {
		t.Error("the last waiter was not told")
	}
	begun := time.Now()
	if got := run(n, request(takeOne, "TAKE", "k", "30")); got != "$-1\r\n" || time.Since(begun) < 29*time.Millisecond {
		t.Errorf("%q after %v", got, time.Since(begun))
	}
	tx := &resp.Request{Cmd: takeOne, Args: [][]byte{[]byte("EXEC")}, Subs: []*resp.Request{
		request(takeOne, "TAKE", "k"), request(nil, "SET", "k", "v"), request(takeOne, "TAKE", "k"), request(nil, "GET", "k")}}
	if got := run(n, tx); got != "$-1\r\n+OK\r\n$1\r\nv\r\n$-1\r\n" {
		t.Errorf("in a transaction: %q", got)
	}
}

// A transaction's commands see those before them, in the cells and in the
// view, and are one entry.
func TestTransactionIsOneEntry(t *testing.T) {
	n := startTestNode(t, 1, nil)
	run(n, request(nil, "SADD", "s", "old"))
	entries := func() (e uint64) {
		_ = n.exec.Run(func(c *Core) { e = c.Stats.LocalEntries })
		return e
	}
	before := entries()
	tx := &resp.Request{Cmd: takeOne, Args: [][]byte{[]byte("EXEC")}}
	for _, words := range []string{"DEL s", "SADD s a b c", "SCARD s", "SPOP s 2", "SCARD s", "INCR n", "GET n", "SPOP s"} {
		tx.Subs = append(tx.Subs, request(nil, strings.Fields(words)...))
	}
	got := run(n, tx)
	if len(strings.Split(got, "$1\r\n")) != 5 || !strings.HasPrefix(got, ":1\r\n:3\r\n:3\r\n*2\r\n$1\r\n") || !strings.Contains(got, ":1\r\n:1\r\n$1\r\n1\r\n$1\r\n") {
		t.Errorf("%q", got)
	}
	if n := entries() - before; n != 1 {
		t.Errorf("%d entries", n)
	}
	if got := run(n, request(nil, "EXISTS", "s")); got != ":0\r\n" {
		t.Errorf("the set is still there: %q", got)
	}
}

// What a unit has sent to the view ahead of a commit that never came is put
// right at the next start.
func TestAheadIsTakenBackAtStart(t *testing.T) {
	port := testbed.FreePort()
	cmd := exec.Command("redis-server", "--port", strconv.Itoa(port), "--save", "", "--appendonly", "no", "--databases", "17")
	if err := cmd.Start(); err != nil {
		t.Fatal("needs redis-server: ", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	eventually(t, "Redis", func() bool { return client.Ping(ctx).Err() == nil })
	hidden := redis.NewClient(&redis.Options{Addr: addr, DB: 16})
	defer func() { _ = hidden.Close() }()

	dir := t.TempDir()
	var n *Node
	for i := range 2 {
		t.Run(fmt.Sprint("start ", i+1), func(t *testing.T) {
			n = startTestNode(t, 1, func(c *Config) { c.Dir, c.Redis = dir, addr })
			eventually(t, "the view", func() bool { return n.Loading() == "" })
			if i == 0 {
				run(n, request(nil, "SET", "k", "logged"))
				return
			}
			if got := run(n, request(nil, "GET", "k")); got != "$6\r\nlogged\r\n" {
				t.Errorf("after the restart: %q", got)
			}
			if got := n.recovery.rebuilds.Load(); got != 0 {
				t.Errorf("%d rebuilds for one key", got)
			}
		})
		if i == 0 {
			c := &viewConn{client: hidden, conn: hidden.Conn(), hidden: 16}
			if _, err := c.markAhead([]*Batch{{Ahead: []crdt.Key{{Name: "k"}}}}, nil); err != nil {
				t.Fatal(err)
			}
			_ = c.conn.Close()
			client.Set(ctx, "k", "of a commit that never came", 0)
		}
	}
}

// What a command takes from a key costs it no walk over all that was taken before:
// also of the last members of a large key, and where some are put in between.
func TestTakingPassesOverNothing(t *testing.T) {
	const members, last, each = 3000, 100, 8
	n := startTestNode(t, 1, nil)
	do := func(line string) string { return run(n, request(nil, strings.Fields(line)...)) }
	// drained has the store hold everything that was done, and so the deleted rows.
	drained := func() {
		s, err := n.log.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ put, take, size string }{
		{"ZADD z:min N mN", "ZPOPMIN z:min", "ZCARD z:min"},
		{"ZADD z:max N mN", "ZPOPMAX z:max", "ZCARD z:max"},
		{"SADD s mN", "SPOP s", "SCARD s"},
		{"RPUSH l:first N", "LPOP l:first", "LLEN l:first"},
		{"RPUSH l:last N", "RPOP l:last", "LLEN l:last"},
	} {
		put := func(i int) { do(strings.ReplaceAll(c.put, "N", strconv.Itoa(i))) }
		for i := range members {
			put(i)
		}
		drained()
		for i := range members - last {
			do(c.take)
			if i%700 == 0 {
				drained()
			}
		}
		drained()
		if got := do(c.size); got != fmt.Sprintf(":%d\r\n", last) {
			t.Fatalf("%s: %q", c.size, got)
		}
		before := n.log.Metrics().Passed
		for range last / 2 {
			do(c.take)
		}
		for i := range last {
			put(i)
			do(c.take)
		}
		for range last / 2 {
			do(c.take)
		}
		if got := do(c.size); got != ":0\r\n" {
			t.Errorf("%s: %q, not 0", c.size, got)
		}
		// One walk over what was deleted may be needed at the beginning.
		if passed := n.log.Metrics().Passed - before; passed > members+each*2*last {
			t.Errorf("%s passed over %d rows, in %d times", c.take, passed, 2*last)
		} else {
			t.Logf("%s passed over %d rows, in %d times", c.take, passed, 2*last)
		}
	}
}

// SPOP and ZPOPMIN draw in advance; what was drawn counts no more once the key
// has changed otherwise.
func TestStocksFollowTheKey(t *testing.T) {
	n := startTestNode(t, 1, nil)
	do := func(line string) string { return run(n, request(nil, strings.Fields(line)...)) }
	for i := range 300 {
		do(fmt.Sprintf("SADD s m%d", i))
		do(fmt.Sprintf("ZADD z %d m%d", i, i))
	}
	if got := do("SPOP s"); !strings.Contains(got, "m") {
		t.Fatalf("%q", got)
	}
	do("DEL s")
	do("SADD s a b c")
	popped := map[string]bool{}
	for range 3 {
		popped[do("SPOP s")] = true
	}
	if len(popped) != 3 || !popped["$1\r\na\r\n"] || !popped["$1\r\nb\r\n"] || !popped["$1\r\nc\r\n"] || do("EXISTS s") != ":0\r\n" {
		t.Errorf("of a, b and c came %v", popped)
	}
	for _, step := range []struct{ line, want string }{
		{"ZPOPMIN z", "*2\r\n$2\r\nm0\r\n$1\r\n0\r\n"},
		{"ZPOPMIN z", "*2\r\n$2\r\nm1\r\n$1\r\n1\r\n"},
		{"ZADD z -1 low", ":1\r\n"},
		{"ZPOPMIN z", "*2\r\n$3\r\nlow\r\n$2\r\n-1\r\n"},
		{"ZREM z m2", ":1\r\n"},
		{"ZPOPMIN z", "*2\r\n$2\r\nm3\r\n$1\r\n3\r\n"},
		{"ZPOPMAX z", "*2\r\n$4\r\nm299\r\n$3\r\n299\r\n"},
		{"ZINCRBY z 1000 m4", "$4\r\n1004\r\n"},
		{"ZPOPMIN z", "*2\r\n$2\r\nm5\r\n$1\r\n5\r\n"},
		{"ZPOPMAX z", "*2\r\n$2\r\nm4\r\n$4\r\n1004\r\n"},
	} {
		if got := do(step.line); got != step.want {
			t.Errorf("%s: %q, want %q", step.line, got, step.want)
		}
	}
}

// TestReadsFromMemory: reads of what is in memory are answered without the view,
// what the group has written included, and their replies kept once that is
// committed; of what Local would have to look for, the view is asked.
func TestReadsFromMemory(t *testing.T) {
	view := &sentView{keep: true}
	c := newBareCore(t, time.Now, view)
	c.replies = newReadCache(minReadCache)
	do := func(words string) *resp.Request {
		q := request(nil, strings.Fields(words)...)
		c.Do(q)
		return q
	}
	commit := func() {
		t.Helper()
		if err := c.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	recalled := func(words ...string) (reply []byte, kept bool) {
		q := request(nil, words...)
		n := c.replies.recall([]*resp.Request{q})
		return q.Out, n > 0
	}
	for _, write := range []string{"SET string value", "HSET hash field v", "HSET fading field v other w", "HPEXPIREAT fading 4102444800000 FIELDS 1 field", "SADD set a b", "ZADD zset 1.5 m", "RPUSH list x y", "PFADD registers x", "INCR counter", "SET past v PXAT 4102444800000"} {
		do(write)
	}
	view.cmds = nil
	answers := map[string]string{
		"GET string": "$5\r\nvalue\r\n", "STRLEN string": ":5\r\n", "GET counter": "$1\r\n1\r\n", "EXISTS string": ":1\r\n", "EXISTS nothing": ":0\r\n", "GET nothing": "$-1\r\n",
		"TYPE zset": "+zset\r\n", "HGET hash field": "$1\r\nv\r\n", "HGET hash none": "$-1\r\n", "HEXISTS hash field": ":1\r\n", "HSTRLEN hash field": ":1\r\n", "HLEN hash": ":1\r\n",
		"SISMEMBER set a": ":1\r\n", "SISMEMBER set c": ":0\r\n", "SCARD set": ":2\r\n", "ZSCORE zset m": "$3\r\n1.5\r\n", "ZCARD zset": ":1\r\n", "LLEN list": ":2\r\n",
		"PEXPIRETIME past": ":4102444800000\r\n", "EXPIRETIME string": ":-1\r\n", "GET list": "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
	}
	asked := []string{"TTL string", "GET registers", "HGET fading field", "HGET fading other", "EXISTS string hash", "LRANGE list 0 -1", "SMEMBERS set", "GETRANGE string 0 1"}
	for _, when := range []string{"in the group that wrote it", "later"} {
		was := c.Stats
		for read, want := range answers {
			if q := do(read); string(q.Out) != want || awaitsView(q) {
				t.Errorf("%s, %s: %q, not %q", read, when, q.Out, want)
			}
		}
		for _, read := range asked {
			if q := do(read); len(q.Out) > 0 || !awaitsView(q) {
				t.Errorf("%s, %s: %q, and the view was to be asked", read, when, q.Out)
			}
		}
		if hits, misses := c.Stats.NearHits-was.NearHits, c.Stats.NearMisses-was.NearMisses; hits != uint64(len(answers)-2) || misses != 2 {
			t.Errorf("%s: %d hits and %d misses of %d reads, two of nothing", when, hits, misses, len(answers))
		}
		if _, early := recalled("GET", "string"); early && when == "in the group that wrote it" {
			t.Error("the reply was kept before what it tells of was committed")
		}
		view.cmds = nil
		commit()
		n := 0
		for _, cmd := range view.cmds {
			if slices.Contains(asked, cmd) {
				n++
			}
			if answers[cmd] != "" {
				t.Errorf("the view was asked for %s, %s", cmd, when)
			}
		}
		if n != len(asked) {
			t.Errorf("%d of %d reads were for the view, %s: %q", n, len(asked), when, view.cmds)
		}
	}
	for read, want := range answers {
		f := strings.Fields(read)
		got, kept := recalled(f...)
		if can := f[1] != "nothing" && want[0] != '-'; kept != can || kept && string(got) != want {
			t.Errorf("%s: kept %v, %q", read, kept, got)
		}
	}

	// What a read has seen of a group that then fails is not kept, nor what is
	// changed behind it in the group.
	do("SET string other")
	do("GET string")
	_ = c.abort(errors.New("a test"))
	if got, kept := recalled("GET", "string"); kept && strings.Contains(string(got), "other") {
		t.Errorf("%q of a group that failed is kept", got)
	}
	do("GET string")
	do("SET string newer")
	commit()
	if got, kept := recalled("GET", "string"); kept {
		t.Errorf("%q is kept, from before the last write", got)
	}
}

// A command that goes in steps takes them when it is told to, and is answered after the last; it can
// be ended before. Those who watch keys hear of each step.
func TestSteps(t *testing.T) {
	view := &sentView{keep: true}
	c := newBareCore(t, time.Now, view)
	do := func(words ...string) *resp.Request {
		q := request(nil, words...)
		c.Do(q)
		return q
	}
	fill := func() {
		t.Helper()
		for i := range 2000 {
			do("SET", fmt.Sprint("key", i), "v")
		}
		if err := c.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	left := func() int { return keysLeft(c) }
	steps := func(q *resp.Request, most int) (n int) {
		t.Helper()
		for ; c.Stepping() && n < most; n++ {
			if len(q.Out) > 0 {
				t.Fatalf("answered %q before its last step", q.Out)
			}
			if err := c.Step(); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	fill()
	heard := map[*resp.Request]int{} // keys, by whose command changed them
	c.changed = func(by *resp.Request, keys []crdt.Key) { heard[by] += len(keys) }
	q, done := do("FLUSHDB", "ASYNC"), 0
	if !c.Waiting(q, func(err error) { done++ }) || left() != 2000 {
		t.Fatalf("it does not wait, or %d keys are left", left())
	}
	if err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	steps(q, 3)
	if n := left(); n == 0 || n > 1500 || heard[q] != 2000-n {
		t.Errorf("after three steps %d keys are left, %d were told of", n, heard[q])
	}
	do("SET", "key0", "again")
	if n := steps(q, 100); n < 3 || string(q.Out) != "+OK\r\n" || done != 1 || left() != 0 {
		t.Errorf("after %d more steps: %q, answered %d times, %d keys left", n, q.Out, done, left())
	}
	if err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	removed := map[string]bool{}
	for _, cmd := range view.cmds {
		if words := strings.Fields(cmd); words[0] == "DEL" || words[0] == "UNLINK" {
			for _, name := range words[1:] {
				removed[name] = true
			}
		}
	}
	if len(removed) != 2000 {
		t.Errorf("the view was told of %d keys that are gone", len(removed))
	}

	fill()
	q, done = do("FLUSHALL", "ASYNC"), 0
	c.Waiting(q, func(error) { done++ })
	steps(q, 2)
	if c.Unblock(q, nil) || len(q.Out) > 0 || done != 0 || !c.Stepping() {
		t.Errorf("when its client has gone: %q, answered %d times", q.Out, done)
	}
	steps(q, 1)
	if !c.Unblock(q, []byte("-UNBLOCKED by a person\r\n")) || string(q.Out) != "-UNBLOCKED by a person\r\n" || done != 1 || c.Stepping() {
		t.Errorf("ended: %q, answered %d times", q.Out, done)
	}
	if n := left(); n == 0 || n == 2000 {
		t.Errorf("%d keys are left", n)
	}
}

// keysLeft returns how many keys database 0 has.
func keysLeft(c *Core) (n int) {
	c.begin()
	c.group.EachKey(0, func(crdt.Key, *crdt.Header) bool { n++; return true })
	return n
}

// fullDisk is a disk that has no room while it is set.
type fullDisk struct {
	vfs.FS
	atomic.Bool
}

func (d *fullDisk) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	u, err := d.FS.GetDiskUsage(path)
	if d.Load() {
		u.AvailBytes = 0
	}
	return u, err
}

// TestStepsOnAFullDisk: what goes in steps ends, and says so, when nothing can be written any more; what
// it has done stays, and the next goes on with the rest.
func TestStepsOnAFullDisk(t *testing.T) {
	disk := &fullDisk{FS: vfs.Default}
	c := newBareCoreOn(t, disk, time.Now, &sentView{keep: true})
	do := func(words ...string) *resp.Request {
		q := request(nil, words...)
		c.Do(q)
		return q
	}
	size := func() int { return keysLeft(c) }
	for i := range 2000 {
		do("SET", fmt.Sprint("key", i), "v")
	}
	q, done := do("FLUSHDB", "ASYNC"), 0
	c.Waiting(q, func(error) { done++ })
	if err := errors.Join(c.Commit(), c.Step(), c.Step()); err != nil {
		t.Fatal(err)
	}
	waitFor := func(full bool) {
		t.Helper()
		disk.Store(full)
		for end := time.Now().Add(20 * time.Second); (c.log.Failed() != nil) != full; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("full: %v, and the log says %v", full, c.log.Failed())
			}
		}
	}
	waitFor(true)
	if err := c.Step(); !errors.Is(err, oplog.ErrDisk) || !strings.HasPrefix(string(q.Out), "-MISCONF ") || done != 1 || c.Stepping() {
		t.Errorf("%v: %q, answered %d times", err, q.Out, done)
	}
	if n := size(); n == 0 || n == 2000 {
		t.Errorf("%d keys are left", n)
	}
	waitFor(false)
	q, done = do("FLUSHDB", "ASYNC"), 0
	c.Waiting(q, func(error) { done++ })
	for c.Stepping() {
		if err := c.Step(); err != nil {
			t.Fatal(err)
		}
	}
	if n := size(); n != 0 || string(q.Out) != "+OK\r\n" || done != 1 {
		t.Errorf("%d keys are left, %q, answered %d times", n, q.Out, done)
	}
}
