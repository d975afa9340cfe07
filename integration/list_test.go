package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// waiting has a client wait in a command, and returns where its reply comes.
func waiting(t *testing.T, n *testbed.Node, blocked int, args ...any) <-chan string {
	t.Helper()
	out := make(chan string, 1)
	c := n.NewClient(0)
	go func() {
		defer c.Close()
		v, err := c.Do(context.Background(), args...).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			out <- err.Error()
			return
		}
		out <- fmt.Sprint(v)
	}()
	for deadline := time.Now().Add(20 * time.Second); n.Info()["blocked_clients"] != fmt.Sprint(blocked); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v does not wait: %s clients do, want %d", args, n.Info()["blocked_clients"], blocked)
		}
	}
	return out
}

func reply(t *testing.T, c <-chan string, want string) {
	t.Helper()
	select {
	case got := <-c:
		if got != want {
			t.Errorf("the reply is %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("no reply, want %q", want)
	}
}

// TestBlockingPops: clients that wait for lists are served in the order in
// which they came, by local and by remote pushes, and no item goes to a client
// that has gone.
func TestBlockingPops(t *testing.T) {
	bed := testbed.New(t)
	a, b := bed.Node(testbed.Options{ID: 1}), bed.Node(testbed.Options{ID: 2})
	b.Meet(a)
	bed.Level(a, b)

	first := waiting(t, a, 1, "BLPOP", "q", "0")
	second := waiting(t, a, 2, "BRPOP", "other", "q", "0")
	third := waiting(t, a, 3, "BLMPOP", "0", "1", "q", "LEFT", "COUNT", "2")
	if n := a.Int("RPUSH", "q", "1"); n != 1 {
		t.Errorf("RPUSH replied %d", n)
	}
	reply(t, first, "[q 1]")
	b.Do("RPUSH", "q", "2", "3", "4", "5") // from afar
	reply(t, second, "[q 5]")
	reply(t, third, "[q [2 3]]")
	bed.Level(a, b)
	for _, n := range []*testbed.Node{a, b} {
		if got := fmt.Sprint(n.Do("LRANGE", "q", 0, -1)); got != "[4]" {
			t.Errorf("%s is left", got)
		}
	}

	// One wakes another.
	last := waiting(t, a, 1, "BLPOP", "c", "0")
	middle := waiting(t, a, 2, "BLMOVE", "b", "c", "LEFT", "RIGHT", "0")
	begin := waiting(t, a, 3, "BRPOPLPUSH", "a", "b", "0")
	a.Do("RPUSH", "a", "x")
	reply(t, begin, "x")
	reply(t, middle, "x")
	reply(t, last, "[c x]")

	// A string does not wake; time passes; CLIENT UNBLOCK.
	w := waiting(t, a, 1, "BLPOP", "s", "0")
	a.Do("SET", "s", "no list")
	a.Do("DEL", "s")
	id := ""
	for _, l := range strings.Split(fmt.Sprint(a.Do("CLIENT", "LIST")), "\n") {
		if strings.Contains(l, "flags=b") {
			id = strings.TrimPrefix(strings.Fields(l)[0], "id=")
		}
	}
	if a.Int("CLIENT", "UNBLOCK", id, "ERROR") != 1 {
		t.Errorf("client %q was not unblocked", id)
	}
	reply(t, w, "UNBLOCKED client unblocked via CLIENT UNBLOCK")
	if a.Int("CLIENT", "UNBLOCK", a.Do("CLIENT", "ID")) != 0 {
		t.Error("a client that does not wait was unblocked")
	}
	reply(t, waiting(t, a, 1, "BLPOP", "s", "0.3"), "<nil>")

	// A client that has gone takes nothing with it.
	conn := a.Dial()
	fmt.Fprint(conn, "BLPOP gone 0\r\nPING\r\n")
	bed.Wait(20*time.Second, "the client waits", func() (bool, string) { s := a.Info()["blocked_clients"]; return s == "1", s })
	_ = conn.Close()
	bed.Wait(20*time.Second, "it is noticed that the client has gone", func() (bool, string) { s := a.Info()["blocked_clients"]; return s == "0", s })
	a.Do("RPUSH", "gone", "kept")
	if n := a.Int("LLEN", "gone"); n != 1 {
		t.Errorf("LLEN %d", n)
	}

	// Those who wait when the node stops hear of it, at once.
	w = waiting(t, a, 1, "BLPOP", "never", "0")
	a.Stop()
	reply(t, w, "UNBLOCKED the server is stopping")
}

// TestQueueOfTwoNodes: producers and consumers at two nodes; every item is taken at
// least once, and nothing is left.
func TestQueueOfTwoNodes(t *testing.T) {
	bed := testbed.New(t)
	a, b := bed.Node(testbed.Options{ID: 1}), bed.Node(testbed.Options{ID: 2})
	b.Meet(a)
	bed.Level(a, b)
	const items = 300
	nodes := []*testbed.Node{a, b}
	taken := make(chan []string, 2)
	for _, n := range nodes {
		go func() {
			var got []string
			c := n.NewClient(0)
			defer c.Close()
			for {
				v, err := c.BLPop(context.Background(), 3*time.Second, "queue").Result()
				if err != nil {
					taken <- got
					return
				}
				got = append(got, v[1])
			}
		}()
	}
	for i := range items {
		nodes[i%2].Do("RPUSH", "queue", fmt.Sprintf("%04d", i))
	}
	seen := map[string]bool{}
	for range nodes {
		for _, v := range <-taken {
			seen[v] = true
		}
	}
	bed.Level(a, b)
	if len(seen) != items {
		t.Errorf("%d of %d items were taken", len(seen), items)
	}
	for _, n := range nodes {
		if got := n.Int("EXISTS", "queue"); got != 0 {
			t.Errorf("something is left: %v", n.Do("LRANGE", "queue", 0, -1))
		}
	}
}
