package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// many sets keys with values that do not compress.
func many(n *testbed.Node, keys int, which func(int) bool, round uint64) {
	for from := 0; from < keys; from += 2000 {
		pipe := n.Client().Pipeline()
		for i := from; i < min(from+2000, keys); i++ {
			if which(i) {
				r := rand.New(rand.NewPCG(uint64(i), round))
				pipe.Set(context.Background(), fmt.Sprint("key", i), fmt.Sprintf("%016x%016x%016x", r.Uint64(), r.Uint64(), r.Uint64()), 0)
			}
		}
		if _, err := pipe.Exec(context.Background()); err != nil {
			panic(err)
		}
	}
}

func all(int) bool { return true }

// outgrow writes until a node's log no longer reaches back to before.
func outgrow(bed *testbed.Bed, n *testbed.Node) {
	before := n.Info()["log_entries_trimmed"]
	for i := range 60 {
		n.Do("SET", "large", strings.Repeat(fmt.Sprint(i%10), 500_000))
	}
	n.Do("DEL", "large")
	bed.Wait(60*time.Second, "the log to be trimmed", func() (bool, string) {
		f := n.Info()
		size, _ := strconv.Atoi(f["log_bytes"])
		return f["log_entries_trimmed"] != before && size < 20<<20, f["log_bytes"]
	})
}

// sent returns how many bytes a node has sent to a member since it started.
func sent(t *testing.T, n *testbed.Node, to int) int {
	t.Helper()
	b, err := strconv.Atoi(n.Replicas()[to]["bytes_out"])
	if err != nil {
		t.Fatalf("bytes_out of %v: %v", n.Replicas()[to], err)
	}
	return b
}

// A member that was away for longer than the log reaches back gets what has
// changed, whichever side changed it, and nothing comes back that was deleted.
func TestSyncBringsWhatDiffers(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	args := append([]string{"--set", "log_retention_bytes=1mb"}, quick...)
	a := bed.Node(testbed.Options{ID: 1, Args: args})
	const keys = 20_000
	many(a, keys, all, 0)
	fill(a, "", 300)
	b := bed.Node(testbed.Options{ID: 2, Args: args, Meet: []*testbed.Node{a}})
	bed.LevelWithin(2*time.Minute, a, b)
	whole := sent(t, a, 2)

	a.Pause()
	many(b, keys, func(i int) bool { return i%500 == 3 }, 7) // its own, which a has not seen
	b.Do("INCRBY", "count", "5")
	b.Kill()
	many(a, keys, func(i int) bool { return i%100 == 1 }, 1)
	for i := 2; i < keys; i += 200 {
		a.Do("DEL", fmt.Sprint("key", i))
	}
	a.Do("HDEL", "hash3", "3", "10")
	a.Do("INCRBY", "count", "7")
	outgrow(bed, a)
	before := sent(t, a, 2)
	b.Start()
	b.Do("INCRBY", "count", "9")
	a.Resume()
	bed.LevelWithin(2*time.Minute, a, b)
	if !strings.Contains(b.Log(), "state sync complete") {
		t.Fatal("b was brought level from the log: this tests nothing")
	}
	if part := sent(t, a, 2) - before; part > whole/8 {
		t.Errorf("a change of 1 %% took %d bytes, all took %d", part, whole)
	}
	for _, n := range []*testbed.Node{a, b} {
		equal(t, "deleted keys", n.Do("EXISTS", "key2", "key202", "key402"), any(int64(0)))
		equal(t, "a field", n.Do("HEXISTS", "hash3", "10"), any(int64(0)))
		equal(t, "what both changed", n.Int("GET", "count"), int64(300*299/2+5+7+9))
	}
	bed.Rebuilt(b)
	bed.Level(a, b)
}

// A state sync that is cut again and again by kill -9 of either side goes on
// where it was, and ends.
func TestSyncKilledEverywhere(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	args := append([]string{"--set", "log_retention_bytes=1mb", "--set", "wan.sync_rate=600kb", "--set", "wan.batch_limit=16kb"}, quick...)
	a := bed.Node(testbed.Options{ID: 1, Args: args})
	many(a, 20_000, all, 0)
	fill(a, "", 500)
	outgrow(bed, a)
	b := bed.Node(testbed.Options{ID: 2, Args: args, Meet: []*testbed.Node{a}})
	resumed := 0
	for round := 0; round < 60 && !strings.Contains(b.Log(), "state sync complete"); round++ {
		a.Do("DEL", fmt.Sprint("key", round))
		time.Sleep(time.Duration(300+rand.IntN(400)) * time.Millisecond)
		mark := b.LogSize()
		victim := b
		if round%4 == 3 {
			victim = a
		}
		victim.Kill()
		victim.Start()
		bed.Wait(30*time.Second, "the sync to go on", func() (bool, string) {
			text := b.LogSince(mark)
			if strings.Contains(text, "resumed=true") {
				resumed++
				return true, ""
			}
			return strings.Contains(text, "state sync begins") || strings.Contains(b.Log(), "state sync complete"), tail(text)
		})
	}
	if resumed < 3 {
		t.Errorf("the sync went on %d times only: this tests nothing", resumed)
	}
	bed.LevelWithin(2*time.Minute, a, b)
	bed.Rebuilt(b)
	bed.Level(a, b)
}

// Two nodes that come back with old states at once get what they lack from a
// third, and from each other: one of them what differs, the other all.
func TestTwoRestoreAtOncePitfall30(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	args := append([]string{"--set", "log_retention_bytes=1mb"}, quick...)
	a := bed.Node(testbed.Options{ID: 1, Args: args})
	many(a, 5000, all, 0)
	b := bed.Node(testbed.Options{ID: 2, Args: args, Meet: []*testbed.Node{a}})
	c := bed.Node(testbed.Options{ID: 3, Args: append([]string{"--set", "wan.sync_by_difference=false"}, args...), Meet: []*testbed.Node{a}})
	bed.LevelWithin(2*time.Minute, a, b, c)
	b.Do("SET", "from b", "x")
	c.Do("SET", "from c", "x")
	bed.Level(a, b, c)
	b.Kill()
	many(c, 5000, func(i int) bool { return i%50 == 1 }, 1)
	bed.Level(a, c)
	c.Kill()
	many(a, 5000, func(i int) bool { return i%50 == 2 }, 2)
	a.Do("DEL", "from b", "key7")
	outgrow(bed, a)
	b.Launch()
	c.Launch()
	b.Ready()
	c.Ready()
	bed.LevelWithin(2*time.Minute, a, b, c)
	for _, n := range []*testbed.Node{b, c} {
		if !strings.Contains(n.Log(), "state sync complete") {
			t.Errorf("node %d was brought level from the log: this tests nothing", n.ID)
		}
		equal(t, "deleted keys", n.Do("EXISTS", "from b", "key7"), any(int64(0)))
	}
	bed.Rebuilt(b)
	bed.Level(a, b, c)
}

// Each node is restarted in turn while clients write, for an upgrade if
// REPLICATORD_OLD names the program that they run before.
func TestRollingRestarts(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	older := func(args []string) []string {
		if old := os.Getenv("REPLICATORD_OLD"); old != "" {
			args[0] = old
		}
		return args
	}
	var nodes []*testbed.Node
	for id := 1; id <= 3; id++ {
		nodes = append(nodes, bed.Node(testbed.Options{ID: id, Args: append([]string{"--set", "log_retention_bytes=1mb"}, quick...), Meet: nodes[:min(len(nodes), 1)], Wrap: older}))
	}
	bed.Level(nodes...)
	l := newLoad(bed)
	l.paced.Store(200)
	l.start(3, nodes...)
	for round := range 2 {
		for _, n := range nodes {
			n.Stop()
			many(nodes[n.ID%3], 300, all, uint64(round*10+n.ID))
			n.Opts.Wrap = nil
			n.Start()
		}
	}
	l.stop()
	bed.LevelWithin(2*time.Minute, nodes...)
	for _, n := range nodes {
		l.check(n)
	}
}

func tail(s string) string { return s[max(0, len(s)-500):] }
