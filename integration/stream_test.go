package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

func init() {
	read := "XREADGROUP GROUP g c STREAMS K >"
	rows = append(rows,
		row{name: "XADD ‖ XADD: both, by id", before: []string{"XADD K 1-0 f a"}, mirror: true,
			left: []string{"XADD K 3-0 f c = 3-0"}, right: []string{"XADD K 2-0 f b = 2-0"}, want: []string{"XLEN K = 3", "TYPE K = stream"}},
		row{name: "XADD ‖ DEL: the new entry stays", before: []string{"XADD K 1-0 f a"}, mirror: true,
			left: []string{"XADD K 2-0 f b"}, right: []string{"DEL K = 1"}, want: []string{"XLEN K = 1"}},
		row{name: "XADD ‖ XDEL", before: []string{"XADD K 1-0 f a"}, mirror: true,
			left: []string{"XADD K 2-0 f b"}, right: []string{"XDEL K 1-0 = 1"}, want: []string{"XLEN K = 1"}},
		row{name: "XGROUP CREATE ‖ DEL: the group survives", before: []string{"XADD K 1-0 f a"}, mirror: true,
			left: []string{"XGROUP CREATE K g 0 = OK"}, right: []string{"DEL K = 1"}, want: []string{"EXISTS K = 1", "XLEN K = 0"}},
		row{name: "XREADGROUP ‖ DEL: reading keeps nothing", before: []string{"XADD K 1-0 f a", "XGROUP CREATE K g 0"}, mirror: true,
			left: []string{read}, right: []string{"DEL K = 1"}, want: []string{"EXISTS K = 0"}},
		row{name: "XACK ‖ XCLAIM: acknowledged", before: []string{"XADD K 1-0 f a", "XGROUP CREATE K g 0", read}, mirror: true,
			left: []string{"XACK K g 1-0 = 1"}, right: []string{"XCLAIM K g d 0 1-0"}, want: []string{"XACK K g 1-0 = 0"}},
	)
}

// TestStreamOfTwoNodes: two nodes add to one stream at once, and consumers of one
// group at both get every entry.
func TestStreamOfTwoNodes(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a := bed.Node(testbed.Options{ID: 1})
	b := bed.Node(testbed.Options{ID: 2, Meet: []*testbed.Node{a}})
	bed.Level(a, b)
	a.Do("XGROUP", "CREATE", "jobs", "g", "0", "MKSTREAM")
	bed.Level(a, b)

	const each = 300
	var wait sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for _, n := range []*testbed.Node{a, b} {
		wait.Add(1)
		go func() {
			defer wait.Done()
			var ms, seq uint64
			for i := range each {
				id := fmt.Sprint(n.Do("XADD", "jobs", "*", "n", fmt.Sprint(n.ID, "-", i)))
				var nextMS, next uint64
				if _, err := fmt.Sscanf(id, "%d-%d", &nextMS, &next); err != nil || nextMS < ms || nextMS == ms && next <= seq {
					t.Errorf("%s after %d-%d", id, ms, seq)
				}
				ms, seq = nextMS, next
			}
		}()
	}
	// Only b reads while both add: what a adds comes late.
	take := func(n *testbed.Node) int {
		v, err := n.Try("XREADGROUP", "GROUP", "g", n.ID, "COUNT", "50", "BLOCK", "200", "STREAMS", "jobs", ">")
		if err != nil || v == nil {
			return 0
		}
		list := v.([]any)[0].([]any)[1].([]any)
		mu.Lock()
		defer mu.Unlock()
		for _, e := range list {
			id := e.([]any)[0].(string)
			got[id]++
			n.Do("XACK", "jobs", "g", id)
		}
		return len(list)
	}
	for deadline := time.Now().Add(60 * time.Second); len(got) < 2*each && time.Now().Before(deadline); {
		take(b)
	}
	wait.Wait()
	bed.Level(a, b)
	for take(a)+take(b) > 0 {
		bed.Level(a, b)
	}
	for _, n := range []*testbed.Node{a, b} {
		equal(t, "XLEN", n.Do("XLEN", "jobs"), any(int64(2*each)))
		equal(t, "XPENDING", fmt.Sprint(n.Do("XPENDING", "jobs", "g")), "[0 <nil> <nil> <nil>]")
	}
	if len(got) != 2*each {
		t.Errorf("%d entries of %d were delivered", len(got), 2*each)
	}
	for id, n := range got {
		if n > 1 {
			t.Errorf("%s was delivered %d times, and only one node read", id, n)
		}
	}
}

// TestBlockedReaderOfAnotherNode: who waits at one node gets what is added at
// another.
func TestBlockedReaderOfAnotherNode(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a := bed.Node(testbed.Options{ID: 1})
	b := bed.Node(testbed.Options{ID: 2, Meet: []*testbed.Node{a}})
	a.Do("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
	bed.Level(a, b)
	ask := func(args ...any) chan string {
		out := make(chan string, 1)
		go func() {
			v, err := b.Try(args...)
			out <- fmt.Sprint(v, err)
		}()
		return out
	}
	read, group := ask("XREAD", "BLOCK", "20000", "STREAMS", "s", "$"), ask("XREADGROUP", "GROUP", "g", "c", "BLOCK", "20000", "STREAMS", "s", ">")
	gone := ask("XREADGROUP", "GROUP", "g", "d", "BLOCK", "20000", "STREAMS", "s", ">")
	time.Sleep(300 * time.Millisecond)
	a.Do("XADD", "s", "5-0", "f", "v")
	want := "[[s [[5-0 [f v]]]]] <nil>"
	equal(t, "XREAD", <-read, want)
	var first, second string
	select {
	case first = <-group:
		a.Do("XGROUP", "DESTROY", "s", "g")
		second = <-gone
	case first = <-gone:
		a.Do("XGROUP", "DESTROY", "s", "g")
		second = <-group
	}
	equal(t, "XREADGROUP", first, want)
	if !strings.Contains(second, "NOGROUP") {
		t.Errorf("after DESTROY: %s", second)
	}
}
