package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestMembersSurviveRestarts: members once met find each other again, whatever
// the order in which they start.
func TestMembersSurviveRestarts(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	c := bed.Node(testbed.Options{ID: 3, Meet: []*testbed.Node{b}})
	nodes := []*testbed.Node{a, b, c}
	fill(a, "", 20)
	bed.Level(nodes...)
	for round, how := range []func(*testbed.Node){(*testbed.Node).Kill, (*testbed.Node).Stop} {
		for _, n := range nodes {
			how(n)
		}
		for i := range nodes {
			nodes[(i+round)%3].Start()
			nodes[(i+round)%3].Do("INCR", "k")
		}
		bed.Level(nodes...)
		for _, n := range nodes {
			equal(t, "members", n.Fields("NODE")["members"], "3")
			equal(t, "k", n.Int("GET", "k"), int64(3*(round+1)))
		}
	}
}

// TestForget: a member that is forgotten is gone for good, until somebody meets it again.
func TestForget(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	c := bed.Node(testbed.Options{ID: 3, Meet: []*testbed.Node{a}})
	bed.Level(a, b, c)
	for _, tt := range []struct{ arg, want string }{
		{"9", "no member has id 9"}, {"x", "not a node id"}, {"0", "not a node id"}, {"1", "this node"},
	} {
		if got := a.Error("FORGET", tt.arg); !strings.Contains(got, tt.want) {
			t.Errorf("FORGET %s: %q does not say %q", tt.arg, got, tt.want)
		}
	}
	equal(t, "FORGET", a.CLI("forget", "3"), "OK")
	equal(t, "FORGET", b.CLI("forget", "3"), "OK")
	equal(t, "FORGET again", a.CLI("forget", "3"), "OK")
	c.Do("SET", "stranger", "v")
	a.Do("SET", "k", "v")
	bed.Level(a, b)
	for _, n := range []*testbed.Node{a, b} {
		n.Kill()
		n.Start()
	}
	bed.Level(a, b)
	equal(t, "members", a.Fields("NODE")["members"], "2")
	equal(t, "what a forgotten node wrote", a.Do("EXISTS", "stranger"), any(int64(0)))
	equal(t, "what it is not told", c.Do("EXISTS", "k"), any(int64(0)))
	if got := c.Error("MEET", a.Addr()); !strings.Contains(got, "forg") {
		t.Errorf("MEET by a forgotten node: %q", got)
	}
	// Whoever says MEET wants it back.
	a.Meet(c)
	b.Meet(c)
	bed.Level(a, b, c)
	equal(t, "what it wrote meanwhile", b.Do("GET", "stranger"), any("v"))
}

// TestOneMemberDownPitfall35: nodes go on, and start, with a member down; it
// catches up when it comes back.
func TestOneMemberDownPitfall35(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	c := bed.Node(testbed.Options{ID: 3, Meet: []*testbed.Node{a}})
	bed.Level(a, b, c)
	c.Kill()
	a.Do("INCR", "k")
	bed.Level(a, b)
	a.Kill()
	b.Kill()
	a.Start()
	b.Start()
	b.Do("INCR", "k")
	bed.Level(a, b)
	equal(t, "k", a.Int("GET", "k"), int64(2))
	bed.Wait(20*time.Second, "REPLICAS to say that the member is down", func() (bool, string) {
		f := a.Replicas()[3]
		return f["gossip"] == "failed" && f["state"] != "live", fmt.Sprint(f)
	})
	c.Start()
	bed.Level(a, b, c)
}

// TestStopAndRestart: SIGTERM makes everything durable, leaves, and the node goes on
// where it was.
func TestStopAndRestart(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed, "--fsync", "no")
	fill(a, "", 300)
	begun := time.Now()
	a.Stop()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("an orderly stop took %v", took)
	}
	// What was acknowledged had been shipped before it left.
	equal(t, "keys at the other", b.Do("DBSIZE"), any(int64(300+1+7+5+10)))
	bed.Wait(10*time.Second, "REPLICAS to say that it has left", func() (bool, string) {
		return b.Replicas()[1]["gossip"] == "left", fmt.Sprint(b.Replicas()[1])
	})
	identity := func() string { f := a.Fields("NODE"); return f["incarnation"] + " " + f["directory"] }
	a.Start()
	was := identity()
	a.Stop()
	a.Start()
	equal(t, "the incarnation after an orderly restart", identity(), was)
	bed.Level(a, b)
	// A pipeline that is under way is finished or its connection ends; an
	// idle client does not hold the stop up.
	idle := a.Dial()
	a.Stop()
	one := make([]byte, 1)
	if _, err := idle.Read(one); err == nil {
		t.Error("an idle connection outlived the node")
	}
	a.Start()
	bed.Level(a, b)
}

// TestClonedDirectory: a copy of a data directory begins a new incarnation; it
// goes on in the place of the original, and is refused beside it.
func TestClonedDirectory(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	fill(a, "", 50)
	bed.Level(a, b)
	a.Stop()
	was := b.Fields("NODE", "VECTOR")["vector"]
	original := filepath.Join(bed.TempDir(), "original")
	if err := os.Rename(a.Dir, original); err != nil {
		t.Fatal(err)
	}
	copyDir(bed, original, a.Dir)
	a.Start()
	a.Do("INCR", "count")
	bed.Level(a, b)
	if now := b.Fields("NODE", "VECTOR")["vector"]; strings.Count(now, "1.") <= strings.Count(was, "1.") {
		t.Errorf("the copy goes on in the incarnation of the original: %s, then %s", was, now)
	}
	// A second copy, elsewhere, while the first runs.
	clone := bed.Node(testbed.Options{ID: 1, Wrap: cloneOf(bed, a)})
	if got := clone.Error("MEET", b.Addr()); !strings.Contains(got, "id 1 is already taken") {
		t.Errorf("MEET by a copy: %q", got)
	}
	before := a.Dataset()
	clone.Do("SET", "by the copy", "v")
	a.Do("SET", "by the first", "v")
	bed.Level(a, b)
	before["0/by the first"] = a.Dataset()["0/by the first"]
	if d := testbed.DiffData(before, b.Dataset()); len(d) > 0 {
		t.Errorf("two nodes with one id both take part: %v", d)
	}
}

// cloneOf starts a node on a copy of another's data directory.
func cloneOf(bed *testbed.Bed, n *testbed.Node) func([]string) []string {
	dir := ""
	return func(args []string) []string {
		for i := range args {
			if args[i] == "--dir" {
				if dir == "" {
					dir = args[i+1]
					copyDir(bed, n.Dir, dir)
				}
			}
		}
		return args
	}
}

// TestRestoredBackupPitfall4: a node whose data directory was restored from an old backup
// takes part again: nothing is used twice, nothing lost that the others know,
// and its new writes count.
func TestRestoredBackupPitfall4(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	a.Do("INCRBY", "count", "100")
	a.Do("SET", "k", "before the backup")
	a.Do("SADD", "s", "deleted", "kept")
	bed.Level(a, b)
	a.Stop()
	backup := bed.TempDir()
	copyDir(bed, a.Dir, backup)
	a.Start()
	a.Do("INCRBY", "count", "20")
	a.Do("SET", "k", "after the backup")
	a.Do("SREM", "s", "deleted")
	a.Do("SET", "new", "v")
	bed.Level(a, b)
	for round := range 2 {
		a.Kill()
		removeAll(bed, a.Dir)
		copyDir(bed, backup, a.Dir)
		a.Start()
		// Before it has heard from anybody, perhaps.
		a.Do("INCRBY", "count", "3")
		a.Do("SADD", "s", fmt.Sprint("round", round))
		bed.Level(a, b)
		want := int64(100 + 20 + 3*(round+1))
		for _, n := range []*testbed.Node{a, b} {
			equal(t, "count", n.Int("GET", "count"), want)
			equal(t, "k", n.Do("GET", "k"), any("after the backup"))
			equal(t, "deleted", n.Do("SISMEMBER", "s", "deleted"), any(int64(0)))
			equal(t, "new", n.Do("GET", "new"), any("v"))
		}
		a.Do("INCRBY", "count", "0")
		b.Do("SET", "k2", fmt.Sprint(round))
		bed.Level(a, b)
	}
	bed.Rebuilt(a)
	bed.Level(a, b)
}

// TestWipedNodeComesBack: a node that lost its directory gets everything back from
// the others.
func TestWipedNodeComesBack(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	fill(a, "a", 50)
	fill(b, "b", 50)
	a.Do("INCRBY", "count", "5")
	bed.Level(a, b)
	a.Kill()
	removeAll(bed, a.Dir)
	a.Start()
	a.Meet(b)
	a.Do("INCRBY", "count", "2")
	bed.Level(a, b)
	equal(t, "count", b.Int("GET", "count"), int64(7))
	equal(t, "DBSIZE", a.Do("DBSIZE"), b.Do("DBSIZE"))
}

// TestAdminCommands: what NODE, REPLICAS, DESC and REPLLOG say.
func TestAdminCommands(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a := bed.Node(testbed.Options{ID: 1, Args: []string{"--alias", "east-1", "--region", "east"}})
	b := bed.Node(testbed.Options{ID: 2, Args: []string{"--alias", "west-1", "--region", "west"}, Meet: []*testbed.Node{a}})
	a.Do("SET", "k", "value")
	b.Do("INCRBY", "count", "3")
	bed.Level(a, b)
	f := a.Fields("NODE")
	for name, want := range map[string]string{"id": "1", "alias": "east-1", "region": "east", "cluster": "replicatord", "members": "2", "paused": "no"} {
		equal(t, "NODE "+name, f[name], want)
	}
	a.Pause()
	equal(t, "NODE paused", a.Fields("NODE")["paused"], "yes")
	a.Resume()
	bed.Wait(10*time.Second, "REPLICAS to show a live link with its lag", func() (bool, string) {
		f := a.Replicas()[2]
		_, err := strconv.ParseFloat(f["lag_ms"], 64)
		return f["alias"] == "west-1" && f["region"] == "west" && f["address"] == b.Addr() && f["gossip"] == "alive" && err == nil && f["vector"] != "", fmt.Sprint(f)
	})
	if d := fmt.Sprint(b.Do("DESC", "k")); !strings.Contains(d, "east-1") || !strings.Contains(d, "value") {
		t.Errorf("DESC k does not say who wrote what: %s", d)
	}
	if d := fmt.Sprint(a.Do("DESC", "count")); !strings.Contains(d, "3 by west-1") {
		t.Errorf("DESC count does not say who counted: %s", d)
	}
	equal(t, "DESC of nothing", a.Do("DESC", "nosuch"), any(nil))
	for _, n := range []*testbed.Node{a, b} {
		if log := fmt.Sprint(n.Do("REPLLOG")); !strings.Contains(log, "value") || !strings.Contains(log, "count") {
			t.Errorf("REPLLOG of node %d: %s", n.ID, log)
		}
	}
	for _, c := range [][]any{{"NODE", "NOSUCH"}, {"NODE", "VECTOR", "x"}, {"MEET"}, {"FORGET"}, {"DESC"}, {"REPLLOG", "COUNT"}, {"REPLLOG", "COUNT", "0"}, {"REPLLOG", "NOSUCH", "1"}} {
		if got := a.Error(c...); !strings.HasPrefix(got, "ERR ") {
			t.Errorf("%v: %q", c, got)
		}
	}
}
