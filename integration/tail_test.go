package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// follow starts replicatord tail and returns its lines.
func follow(bed *testbed.Bed, n *testbed.Node, args ...string) (<-chan map[string]any, *exec.Cmd) {
	bed.Helper()
	cmd := exec.Command(bed.Program(), append([]string{"tail", fmt.Sprint("127.0.0.1:", n.WANPort)}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		bed.Fatalf("%v", err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		bed.Fatalf("%v", err)
	}
	lines := make(chan map[string]any, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			var line map[string]any
			if err := json.Unmarshal(s.Bytes(), &line); err != nil {
				bed.Errorf("not JSON: %q", s.Text())
			}
			lines <- line
		}
	}()
	bed.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return lines, cmd
}

// next returns the next line of a feed.
func next(t *testing.T, lines <-chan map[string]any) map[string]any {
	t.Helper()
	select {
	case line, ok := <-lines:
		if !ok {
			t.Fatal("the feed has ended")
		}
		return line
	case <-time.After(30 * time.Second):
		t.Fatal("nothing comes")
	}
	return nil
}

// TestTail: replicatord tail prints the changes of the whole cluster that fit,
// from when it began, goes on after the node was away, and costs nobody anything.
func TestTail(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	secret := "a secret of twenty-four characters"
	const followers = "what subscribers alone know"
	a := bed.Node(testbed.Options{ID: 1, Secret: secret, Args: quick, Config: "[wan]\nsubscriber_secret = \"" + followers + "\"\n[[qos]]\nkeys = \"rt:*\"\nlane = \"realtime\"\n"})
	b := bed.Node(testbed.Options{ID: 2, Secret: secret, Args: quick, Meet: []*testbed.Node{a}})
	a.Do("SET", "rt:before", "x")
	bed.Level(a, b)
	file := filepath.Join(filepath.Dir(a.Dir), "secret")
	subscribers := func(n int) {
		t.Helper()
		bed.Wait(30*time.Second, fmt.Sprint(n, " subscribers"), func() (bool, string) {
			got := a.Info()["subscribers"]
			return got == fmt.Sprint(n), got
		})
	}
	all, _ := follow(bed, a, "--secret-file", file)
	some, process := follow(bed, a, "--set", "secret="+followers, "--keys", "rt:*", "--keys", "h", "--lane", "realtime,high", "--db", "0")
	subscribers(2)

	b.Do("SET", "other", "1")
	if l := next(t, all); l["key"] != "other" || l["op"] != "set" || l["value"] != "1" || l["node"] != 2.0 || l["lane"] != "high" {
		t.Errorf("a SET at the other node: %v", l)
	}
	a.Do("HSET", "h", "f", "a\xff")
	l := next(t, some)
	if l["key"] != "h" || l["element"] != "f" || l["value_base64"] != "Yf8=" || l["value"] != nil || l["kind"] != "field" {
		t.Errorf("an HSET: %v", l)
	}
	equalLine(t, next(t, all), l)
	a.Do("INCRBY", "rt:n", "5")
	if l := next(t, some); l["op"] != "add" || l["sum"] != "5" || l["lane"] != "realtime" {
		t.Errorf("an INCRBY: %v", l)
	}
	next(t, all)
	a.Do("PEXPIREAT", "rt:n", "4102444800000")
	if l := next(t, some); l["op"] != "expire" || l["expires"] != "2100-01-01T00:00:00.000Z" {
		t.Errorf("a PEXPIREAT: %v", l)
	}
	next(t, all)
	b.Do("FLUSHALL")
	if l := next(t, some); l["op"] != "flush" || l["key"] != nil {
		t.Errorf("a FLUSHALL: %v", l)
	}

	// The node goes away; what was written meanwhile comes when it is back.
	bed.Level(a, b)
	a.Kill()
	b.Do("SET", "rt:meanwhile", "b") // in b's lane high
	a.Start()
	a.Do("SET", "rt:after", "a")
	keys := map[any]bool{}
	for len(keys) < 2 {
		keys[next(t, some)["key"]] = true
	}
	if !keys["rt:meanwhile"] || !keys["rt:after"] {
		t.Errorf("got %v", keys)
	}
	subscribers(2)
	if n := len(a.Replicas()); n != 2 {
		t.Errorf("the node has %d members", n)
	}

	// SIGTERM ends it in order.
	_ = process.Process.Signal(syscall.SIGTERM)
	for range some {
	}
	if err := process.Wait(); err != nil {
		t.Errorf("tail, stopped by SIGTERM: %v", err)
	}
	subscribers(1)

	// Who can only follow cannot join.
	joins := bed.Node(testbed.Options{ID: 3, Secret: followers})
	if got := joins.Error("MEET", a.Addr()); !strings.Contains(got, "secret") {
		t.Errorf("MEET with the subscribers' secret: %q", got)
	}
	// Strangers learn nothing.
	wrong, stranger := follow(bed, a, "--set", "secret=another secret of some length")
	if line, ok := <-wrong; ok {
		t.Errorf("without the secret: %v", line)
	}
	if err := stranger.Wait(); err == nil || !strings.Contains(fmt.Sprint(stranger.Stderr), "secret") {
		t.Errorf("without the secret: %v, %s", err, stranger.Stderr)
	}
	bed.Level(a, b)
}

// equalLine compares lines of two feeds.
func equalLine(t *testing.T, got, want map[string]any) {
	t.Helper()
	equal(t, "the same change in another feed", fmt.Sprint(got), fmt.Sprint(want))
}
