package resp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestEarlyReplies: of reads alone only those are carried out whose replies are not at
// hand, and again those that were at hand too early, with all behind them.
func TestEarlyReplies(t *testing.T) {
	ts := start(t, func(o *Options) { o.Loops = -1 })
	earlyReplies(ts, ts.dial())
}

// earlyReplies is TestEarlyReplies for a client that has connected.
func earlyReplies(ts *testServer, c *client) {
	t := ts.t
	names := []string{"kept1", "kept2", "a", "kept3", "b", "kept4"}
	var sent strings.Builder
	for _, name := range names {
		c.want("+OK\r\n", "SET", name, "new "+name)
		sent.WriteString(encode("GET", name))
	}
	ts.mem.mu.Lock()
	ts.mem.kept = func(reqs []*Request) (n int) {
		for _, q := range reqs {
			if name := string(q.Args[1]); strings.HasPrefix(name, "kept") {
				q.Out = []byte("$9\r\nold " + name + "\r\n")
				n++
			}
		}
		return n
	}
	ts.mem.mu.Unlock()
	for _, test := range []struct {
		holding int
		batches []int
		old     string // the replies that are as they were kept
	}{
		{2, []int{2}, "kept1 kept2 kept3 kept4"},
		{1, []int{2, 1}, "kept1 kept2 kept3"},
		{0, []int{2, 3}, "kept1 kept2"},
	} {
		ts.mem.mu.Lock()
		ts.mem.holding, ts.mem.batches = test.holding, nil
		ts.mem.mu.Unlock()
		c.send(sent.String())
		for _, name := range names {
			value := "new " + name
			if strings.Contains(test.old, name) {
				value = "old " + name
			}
			if want, got := fmt.Sprintf("$%d\r\n%s\r\n", len(value), value), c.reply(); got != want {
				t.Errorf("%d of 2 hold: %s is %q, want %q", test.holding, name, got, want)
			}
		}
		ts.mem.mu.Lock()
		if !slices.Equal(ts.mem.batches, test.batches) {
			t.Errorf("%d of 2 hold: batches of %d, want %d", test.holding, ts.mem.batches, test.batches)
		}
		ts.mem.mu.Unlock()
	}
}
