package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// crashRounds is how many rounds of the crash loop run, over all its variants.
func crashRounds(t *testing.T) int {
	t.Helper()
	s := os.Getenv("REPLICATORD_CRASH_ROUNDS")
	if s == "" {
		return 10
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("REPLICATORD_CRASH_ROUNDS=%s is not a number of rounds", s)
	}
	return n
}

// crashSeed returns the seed of the crash loop, and logs how to run it again.
func crashSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64() >> 1
	if s := os.Getenv("REPLICATORD_CRASH_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("REPLICATORD_CRASH_SEED=%s is not a number", s)
		}
	}
	t.Logf("again: REPLICATORD_CRASH_SEED=%d REPLICATORD_CRASH_ROUNDS=%d go test ./integration -run %s", seed, crashRounds(t), t.Name())
	return seed
}

// TestCrashLoop: nodes and Redises are killed, frozen and restarted at random
// while clients write to both sides; after every round the nodes are level, and
// nothing that was acknowledged is lost.
func TestCrashLoop(t *testing.T) {
	for _, fsync := range []string{"always", "everysec"} {
		t.Run(fsync, func(t *testing.T) {
			t.Parallel()
			crashLoop(t, fsync, (crashRounds(t)+1)/2)
		})
	}
}

func crashLoop(t *testing.T, fsync string, rounds int) {
	bed := testbed.New(t)
	seed := crashSeed(t)
	r := rand.New(rand.NewPCG(seed, 7))
	args := []string{"--fsync", fsync, "--set", "wan.heartbeat=100ms"}
	// One node with a Redis of the operator's that keeps its data, one with one that
	// does not, and one with a Redis that the node runs itself.
	redises := []*testbed.Redis{bed.Redis(testbed.RedisOptions{Persist: true}), bed.Redis(testbed.RedisOptions{Socket: true}), nil}
	var nodes []*testbed.Node
	for i, redis := range redises {
		view := "spawn"
		if redis != nil {
			view = redis.Address()
		}
		nodes = append(nodes, bed.Node(testbed.Options{ID: i + 1, View: view, Args: args, Meet: nodes[:min(i, 1)]}))
	}
	l := newLoad(bed)
	l.paced.Store(300)
	for round := range rounds {
		l.start(seed+uint64(round), nodes...)
		time.Sleep(time.Duration(50+r.IntN(150)) * time.Millisecond)
		var what []string
		stopping := map[int]bool{}
		for range 1 + r.IntN(3) {
			i := r.IntN(len(nodes))
			if !stopping[i] {
				what = append(what, crash(r, nodes[i], redises[i]))
				stopping[i] = strings.HasPrefix(what[len(what)-1], "stopped")
			}
			time.Sleep(time.Duration(r.IntN(150)) * time.Millisecond)
		}
		// Whatever is down comes back, in some order.
		for _, i := range r.Perm(len(nodes)) {
			if redis := redises[i]; redis != nil {
				redis.Thaw()
				if !redis.Running() {
					redis.Start()
				}
			}
			nodes[i].Thaw()
			if stopping[i] {
				if code := nodes[i].Ended(40 * time.Second); code != 0 {
					t.Fatalf("round %d: %v: node %d, stopped by SIGTERM, ended with exit code %d", round, what, i+1, code)
				}
			}
			if !nodes[i].Running() {
				nodes[i].Launch()
			}
		}
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		for _, n := range nodes {
			n.Ready()
		}
		l.stop()
		bed.Level(nodes...)
		for _, n := range nodes {
			l.check(n)
		}
		t.Logf("round %d: %v: %s", round, what, l.summary())
		if t.Failed() {
			t.FailNow()
		}
	}
	bed.Rebuilt(nodes[2])
	bed.Level(nodes...)
}

// crash does something to a node or its Redis.
func crash(r *rand.Rand, n *testbed.Node, redis *testbed.Redis) string {
	switch what := r.IntN(7); {
	case what == 0 && redis != nil:
		redis.Kill()
		return fmt.Sprintf("killed Redis %d", n.ID)
	case what == 1 && redis != nil:
		n.Kill()
		redis.Kill()
		return fmt.Sprintf("killed node and Redis %d", n.ID)
	case what == 2 && redis != nil:
		redis.Kill()
		redis.Wipe()
		redis.Start()
		return fmt.Sprintf("emptied Redis %d", n.ID)
	case what == 3 && redis != nil:
		redis.Freeze()
		return fmt.Sprintf("froze Redis %d", n.ID)
	case what == 4:
		n.Freeze()
		return fmt.Sprintf("froze node %d", n.ID)
	case what == 5 && n.Running():
		n.Terminate()
		return fmt.Sprintf("stopped node %d", n.ID)
	default:
		n.Kill()
		return fmt.Sprintf("killed node %d", n.ID)
	}
}

// TestCountersExactWhereAllWasAnswered: links are cut and a peer is killed and comes
// back, while clients write to the nodes that stay up: every increment
// counts, once (pitfall 13).
func TestCountersExactWhereAllWasAnsweredPitfall13(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net := bed.Network()
	args := []string{"--set", "wan.heartbeat=100ms", "--fsync", "no"}
	a := bed.Node(testbed.Options{ID: 1, Network: net, Args: args})
	b := bed.Node(testbed.Options{ID: 2, Network: net, Args: args, Meet: []*testbed.Node{a}})
	c := bed.Node(testbed.Options{ID: 3, Network: net, Args: args, Meet: []*testbed.Node{a}})
	l := newLoad(bed)
	l.paced.Store(300)
	l.start(1, a, b)
	for i := range 6 {
		c.Kill()
		net.Sever(a, b)
		time.Sleep(100 * time.Millisecond)
		net.Split(a, b)
		c.Start()
		time.Sleep(time.Duration(100*i) * time.Millisecond)
		net.Sever(a, c)
		net.Join(a, b)
	}
	l.stop()
	l.exact()
	bed.Level(a, b, c)
	for _, n := range []*testbed.Node{a, b, c} {
		l.check(n)
	}
	bed.Rebuilt(c)
	bed.Level(a, b, c)
}

// TestStartsAgainAtOnce: a node that is killed and started again at once, as a
// service manager does, comes up and stays up: the view's server of its last life,
// here one that ends late, does not take the new one's socket with it.
func TestStartsAgainAtOnce(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a := bed.Node(testbed.Options{ID: 1})
	a.Do("SET", "k", "v")
	sock := filepath.Join(a.Dir, "view", "redis.sock")
	view := redis.NewClient(&redis.Options{Network: "unix", Addr: sock})
	defer view.Close()
	pid, err := strconv.Atoi(view.InfoMap(t.Context(), "server").Item("Server", "process_id"))
	if err != nil {
		t.Fatalf("the view's process: %v", err)
	}
	a.Kill()
	_ = syscall.Kill(pid, syscall.SIGSTOP) // gone, as it should be, or frozen
	a.Start()
	_ = syscall.Kill(pid, syscall.SIGCONT)
	bed.Wait(30*time.Second, "the view's old server to end", func() (bool, string) {
		err := syscall.Kill(pid, 0)
		return err != nil, fmt.Sprint(err)
	})
	if _, err := os.Stat(sock); err != nil {
		t.Errorf("the new server's socket: %v", err)
	}
	equal(t, "k", a.Do("GET", "k"), any("v"))
}
