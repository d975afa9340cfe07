package integration

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// quick makes links notice in tenths of a second what takes them seconds by
// default.
var quick = []string{"--set", "wan.heartbeat=100ms"}

// mesh returns nodes behind relays that all know each other.
func mesh(bed *testbed.Bed, count int, args ...string) (*testbed.Network, []*testbed.Node) {
	bed.Helper()
	net := bed.Network()
	var nodes []*testbed.Node
	for id := 1; id <= count; id++ {
		nodes = append(nodes, bed.Node(testbed.Options{ID: id, Network: net, Args: append(args, quick...), Meet: nodes[:min(len(nodes), 1)]}))
	}
	bed.Level(nodes...)
	return net, nodes
}

// TestBehindNATPitfall34: nodes reach each other through port forwards alone, and every
// connection seems to come from somewhere else.
func TestBehindNATPitfall34(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 3)
	for _, n := range nodes {
		fill(n, fmt.Sprint(n.ID, ":"), 30)
	}
	bed.Level(nodes...)
	for _, n := range nodes {
		bed.Wait(30*time.Second, fmt.Sprintf("links of node %d to all others", n.ID), func() (bool, string) {
			for id, f := range n.Replicas() {
				if id != n.ID && f["state"] != "online" {
					return false, fmt.Sprintf("to node %d: %v", id, f)
				}
			}
			return true, ""
		})
		if addr := n.Fields("NODE")["wan"]; strings.HasSuffix(addr, fmt.Sprint(":", n.WANPort)) || strings.Contains(addr, "0.0.0.0") {
			t.Errorf("node %d advertises %s, not its forward", n.ID, addr)
		}
	}
	if net.Path(nodes[0], nodes[1]).Bytes() == 0 || net.Path(nodes[1], nodes[0]).Bytes() == 0 {
		t.Error("the nodes do not talk through the relay")
	}
	nodes[1].Kill()
	nodes[1].Start()
	nodes[1].Do("INCR", "k")
	bed.Level(nodes...)
}

// TestPartition: both sides of a partition serve, and are level when it heals.
func TestPartition(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 2)
	a, b := nodes[0], nodes[1]
	for round := range 3 {
		net.Split(a, b)
		if round == 1 {
			net.Sever(a, b)
		}
		begun := time.Now()
		for i := range 200 {
			a.Do("INCR", "count")
			b.Do("INCR", "count")
			a.Do("SADD", "s", fmt.Sprint("a", round, i))
			b.Do("SADD", "s", fmt.Sprint("b", round, i))
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("800 local writes took %v while the link was cut", took)
		}
		time.Sleep(time.Duration(round) * time.Second)
		net.Heal()
		bed.Level(a, b)
		equal(t, "count", a.Int("GET", "count"), int64(400*(round+1)))
		equal(t, "s", b.Int("SCARD", "s"), int64(400*(round+1)))
	}
}

// TestOneWayPartition: what one side sends does not arrive, what the other sends
// does; and when it heals they are level.
func TestOneWayPartition(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 2)
	a, b := nodes[0], nodes[1]
	for i, path := range []*testbed.Path{net.Path(a, b), net.Path(b, a)} {
		path.Cut()
		for range 100 {
			a.Do("INCR", "count")
			b.Do("INCR", "count")
		}
		time.Sleep(1500 * time.Millisecond)
		a.Do("INCR", "count")
		b.Do("INCR", "count")
		path.Mend()
		bed.Level(a, b)
		equal(t, "count", b.Int("GET", "count"), int64(202*(i+1)))
	}
}

// TestRelayPath: c reaches only b, and a only b: everything gets through b; when the
// mesh heals nothing is applied twice.
func TestRelayPath(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	net.Split(a, c)
	net.Sever(a, c)
	for i := range 100 {
		a.Do("INCR", "count")
		c.Do("INCRBY", "count", "2")
		a.Do("SADD", "s", fmt.Sprint("a", i))
		c.Do("SREM", "s", fmt.Sprint("a", i))
	}
	bed.Level(a, b, c)
	equal(t, "count at c", c.Int("GET", "count"), int64(300))
	equal(t, "count at a", a.Int("GET", "count"), int64(300))
	// c writes, b dies before a has it, then comes back.
	b.Freeze()
	c.Do("INCR", "count")
	a.Do("INCR", "count")
	b.Thaw()
	bed.Level(a, b, c)
	net.Heal()
	for range 50 {
		for _, n := range nodes {
			n.Do("INCR", "count")
		}
	}
	bed.Level(a, b, c)
	equal(t, "count", b.Int("GET", "count"), int64(300+2+150))
}

// TestMeshAppliesOncePitfall22: in a full mesh and in a ring, each entry is applied once
// by each node.
func TestMeshAppliesOncePitfall22(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 4)
	measure := func() (local, applied []int) {
		for _, n := range nodes {
			f := n.Info()
			l, err1 := strconv.Atoi(f["core_entries_local"])
			r, err2 := strconv.Atoi(f["core_entries_remote"])
			if err1 != nil || err2 != nil {
				t.Fatalf("INFO: %v %v", err1, err2)
			}
			local, applied = append(local, l), append(applied, r)
		}
		return local, applied
	}
	check := func(what string) {
		t.Helper()
		local0, applied0 := measure()
		for i := range 100 {
			for _, n := range nodes {
				n.Do("INCR", "count")
				n.Do("SADD", "s", i)
			}
		}
		bed.Level(nodes...)
		local, applied := measure()
		total := 0
		for i := range nodes {
			total += local[i] - local0[i]
		}
		for i, n := range nodes {
			// Folding makes it fewer, never more.
			if got, most := applied[i]-applied0[i], total-(local[i]-local0[i]); got > most || got == 0 {
				t.Errorf("%s: node %d applied %d entries; the others made %d", what, n.ID, got, most)
			}
		}
	}
	check("mesh")
	net.Split(nodes[0], nodes[2])
	net.Split(nodes[1], nodes[3])
	net.Sever(nodes[0], nodes[2])
	net.Sever(nodes[1], nodes[3])
	time.Sleep(time.Second)
	check("ring")
	net.Heal()
	bed.Level(nodes...)
	equal(t, "count", nodes[3].Int("GET", "count"), int64(800))
}

// TestAwayBeyondRetentionPitfall14: a member that missed more than the log holds is brought
// level by comparing states: counters are exact, deletes stay deletes, and
// somebody is told.
func TestAwayBeyondRetentionPitfall14(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	args := append([]string{"--set", "log_retention_bytes=1mb"}, quick...)
	a := bed.Node(testbed.Options{ID: 1, Args: args})
	b := bed.Node(testbed.Options{ID: 2, Args: args, Meet: []*testbed.Node{a}})
	c := bed.Node(testbed.Options{ID: 3, Args: args, Meet: []*testbed.Node{a}})
	fill(a, "a", 200)
	fill(c, "c", 200)
	a.Do("SADD", "s", "kept", "deleted", "deleted and added")
	a.Do("INCRBY", "reset", "50")
	bed.Level(a, b, c)
	c.Do("INCRBY", "count", "5") // in both directions, one never seen by a and b before
	c.Kill()
	a.Do("SREM", "s", "deleted", "deleted and added")
	a.Do("SADD", "s", "deleted and added")
	a.Do("DEL", "astring1", "ahash1", "cstring1", "cset1")
	a.Do("SET", "reset", "7")
	big := strings.Repeat("x", 100_000)
	for i := range 80 {
		a.Do("SET", "big", big+fmt.Sprint(i))
		b.Do("INCRBY", "count", "1")
	}
	bed.Level(a, b)
	// At both: what one of them still had, c would get from there.
	for _, n := range []*testbed.Node{a, b} {
		bed.Wait(30*time.Second, "the log to be trimmed", func() (bool, string) {
			return strings.Contains(n.Log(), "log trimmed"), n.Info()["log_bytes"]
		})
	}
	c.Start()
	c.Do("INCRBY", "count", "3") // served while it is brought level (pitfall 30)
	bed.Level(a, b, c)
	for _, n := range []*testbed.Node{a, b, c} {
		equal(t, "count", n.Int("GET", "count"), int64(5+80+3))
		equal(t, "reset", n.Int("GET", "reset"), int64(7))
		equal(t, "s", text(n.Do("SMEMBERS", "s")), "deleted and added kept")
		equal(t, "deleted keys", n.Do("EXISTS", "astring1", "ahash1", "cstring1", "cset1"), any(int64(0)))
	}
	synced, _ := strconv.Atoi(c.Info()["core_synced_keys"])
	if synced == 0 {
		t.Error("c was brought level from the log, which was to be too short: this tests nothing")
	}
	bed.Rebuilt(c)
	bed.Level(a, b, c)
}

// TestCountersThroughStateSyncPitfall13: increments everywhere while new members are
// synced, restarted and synced again: the sum is exact.
func TestCountersThroughStateSyncPitfall13(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	args := append([]string{"--set", "log_retention_bytes=1mb"}, quick...)
	a := bed.Node(testbed.Options{ID: 1, Args: args})
	b := bed.Node(testbed.Options{ID: 2, Args: args, Meet: []*testbed.Node{a}})
	for i := range 10 {
		fill(a, fmt.Sprint(i, ":"), 2000)
		a.Do("SET", fmt.Sprint("big", i), strings.Repeat("x", 300_000))
	}
	bed.Level(a, b)
	bed.Wait(20*time.Second, "the log to be trimmed", func() (bool, string) { f := a.Info(); return f["log_entries_trimmed"] != "0", f["log_bytes"] })
	l := newLoad(bed)
	l.paced.Store(300)
	l.start(3, a, b)
	c := bed.Node(testbed.Options{ID: 3, Args: args, Meet: []*testbed.Node{a}})
	for range 3 {
		time.Sleep(200 * time.Millisecond)
		c.Kill()
		c.Start()
	}
	// Two at once, and one that lost everything (pitfall 30).
	d := bed.Node(testbed.Options{ID: 4, Args: args, Meet: []*testbed.Node{b}})
	c.Kill()
	removeAll(bed, c.Dir)
	c.Start()
	c.Meet(a)
	l.stop()
	l.exact()
	nodes := []*testbed.Node{a, b, c, d}
	bed.Level(nodes...)
	for _, n := range nodes {
		l.check(n)
	}
	bed.Rebuilt(c)
	bed.Level(nodes...)
}

// TestDeletesDoNotComeBackPitfall7: deletes made while a peer is down hold when it
// returns with the old state, also from a state sync, also through a third.
func TestDeletesDoNotComeBackPitfall7(t *testing.T) {
	t.Parallel()
	for _, retention := range []string{"1gb", "1mb"} {
		t.Run("log of "+retention, func(t *testing.T) {
			bed := testbed.New(t)
			args := append([]string{"--set", "log_retention_bytes=" + retention}, quick...)
			a := bed.Node(testbed.Options{ID: 1, Args: args})
			b := bed.Node(testbed.Options{ID: 2, Args: args, Meet: []*testbed.Node{a}})
			fill(a, "", 200)
			fill(b, "b", 200)
			bed.Level(a, b)
			b.Kill()
			a.Do("DEL", "string1", "bstring1", "hash1", "count")
			a.Do("HDEL", "hash2", "2", "9")
			a.Do("SREM", "bset2", "2", "7")
			if retention == "1mb" {
				for i := range 60 {
					a.Do("SET", "big", strings.Repeat(fmt.Sprint(i), 50_000))
				}
				bed.Wait(20*time.Second, "the log to be trimmed", func() (bool, string) { f := a.Info(); return f["log_entries_trimmed"] != "0", f["log_bytes"] })
			}
			c := bed.Node(testbed.Options{ID: 3, Args: args, Meet: []*testbed.Node{a}})
			bed.Level(a, c)
			a.Freeze() // b hears of it from c alone
			b.Start()
			bed.Wait(30*time.Second, "the deletes to arrive through a third", func() (bool, string) {
				v := b.Do("EXISTS", "string1", "bstring1", "hash1", "count")
				return v == int64(0), fmt.Sprintf("%v are left; b's members %v, c's %v", v, b.Replicas(), c.Replicas())
			})
			a.Thaw()
			bed.Level(a, b, c)
			for _, n := range []*testbed.Node{a, b, c} {
				equal(t, "keys", n.Do("EXISTS", "string1", "bstring1", "hash1", "count"), any(int64(0)))
				equal(t, "fields", n.Do("HEXISTS", "hash2", "9"), any(int64(0)))
				equal(t, "members", n.Do("SISMEMBER", "bset2", "7"), any(int64(0)))
			}
		})
	}
}

// TestRemovesOfNothingPitfall8: removing what is not there stores nothing and sends
// nothing.
func TestRemovesOfNothingPitfall8(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1})
	n.Do("HSET", "h", "f", "v")
	n.Do("SADD", "s", "m")
	before := n.Fields("NODE", "VECTOR")
	for i := range 20 {
		n.Do("HDEL", "h", i)
		n.Do("SREM", "s", i)
		n.Do("SREM", "nosuch", i)
		n.Do("DEL", fmt.Sprint("k", i))
		n.Do("PERSIST", "h")
		n.Do("EXPIRE", "nosuch", "10")
		n.Do("GETDEL", "nosuch")
		n.Do("SPOP", "nosuch")
		n.Do("SETNX", "h", "v")
	}
	after := n.Fields("NODE", "VECTOR")
	equal(t, "digest", after["digest"], before["digest"])
	equal(t, "vector", after["vector"], before["vector"])
}

// TestLagIsNotBelowTheTruthPitfall26: with 200 ms on the way, the lag shown is at least
// 200 ms; when the delay is gone it falls.
func TestLagIsNotBelowTheTruthPitfall26(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 2)
	a, b := nodes[0], nodes[1]
	lag := func() (float64, string) {
		f := a.Replicas()[2]
		ms, err := strconv.ParseFloat(f["lag_ms"], 64)
		if err != nil {
			t.Fatalf("lag_ms: %v", err)
		}
		return min(ms, laneFigures(t, f["high"])["lag_ms"]), fmt.Sprint(f)
	}
	net.Path(a, b).SetDelay(200 * time.Millisecond)
	bed.Wait(10*time.Second, "the delay to show", func() (bool, string) { ms, f := lag(); return ms >= 200, f })
	for range 40 {
		a.Do("INCR", "k")
		if ms, f := lag(); ms < 200 {
			t.Fatalf("with 200 ms on the way the lag is %v ms: %s", ms, f)
		}
		time.Sleep(10 * time.Millisecond)
	}
	net.Path(a, b).SetDelay(0)
	bed.Wait(10*time.Second, "the lag to fall", func() (bool, string) { ms, f := lag(); return ms < 100, f })
	net.Path(a, b).Cut()
	bed.Wait(10*time.Second, "the lag to grow while nothing arrives", func() (bool, string) { ms, f := lag(); return ms > 400, f })
	net.Heal()
	bed.Level(a, b)
}

// TestFrozenNodePitfall25: a node that is frozen and thawed does not upset the links
// between the others, and no address that cannot be reached is told around.
func TestFrozenNodePitfall25(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed, quick...)
	c := bed.Node(testbed.Options{ID: 3, Args: quick, Meet: []*testbed.Node{a}})
	bed.Level(a, b, c)
	sessions := func(line string) string {
		for part := range strings.SplitSeq(line, ",") {
			if strings.HasPrefix(part, "sessions=") {
				return part
			}
		}
		return ""
	}
	before := sessions(a.Info()["member0"])
	for range 3 {
		c.Freeze()
		for range 50 {
			a.Do("INCR", "count")
			b.Do("INCR", "count")
		}
		bed.Level(a, b)
		time.Sleep(700 * time.Millisecond)
		c.Thaw()
		bed.Level(a, b, c)
	}
	equal(t, "sessions between the two that were never frozen", sessions(a.Info()["member0"]), before)
	equal(t, "count", c.Int("GET", "count"), int64(300))
	for _, n := range []*testbed.Node{a, b, c} {
		for _, f := range n.Replicas() {
			if strings.HasPrefix(f["address"], "0.0.0.0") || strings.HasPrefix(f["address"], ":") {
				t.Errorf("node %d shows address %q", n.ID, f["address"])
			}
		}
	}
}

// TestOldDeletePitfall33: an old DEL that arrives after a newer SET does not delete it.
func TestOldDeletePitfall33(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	a.Do("SET", "k", "old")
	a.Do("SADD", "s", "m")
	bed.Level(nodes...)
	// a's deletes reach b, and not c; b writes anew, and that reaches c.
	net.Split(a, c)
	net.Path(b, c).Cut()
	a.Do("DEL", "k", "s")
	bed.Level(a, b)
	b.Do("SET", "k", "new")
	b.Do("SADD", "s", "m")
	net.Path(b, c).Mend()
	net.Heal()
	bed.Level(nodes...)
	for _, n := range nodes {
		equal(t, "k", n.Do("GET", "k"), any("new"))
		equal(t, "s", text(n.Do("SMEMBERS", "s")), "m")
	}
	// Unseen by each other: the write survives, whichever came first by the clock.
	a.Pause()
	a.Do("DEL", "k")
	time.Sleep(5 * time.Millisecond)
	b.Do("SET", "k", "newer")
	bed.Level(b, c)
	a.Resume()
	bed.Level(nodes...)
	equal(t, "k", c.Do("GET", "k"), any("newer"))
}

// TestServesWhileSyncedPitfall30: a node that is being given a large state serves reads and
// writes all the while, and its own data never goes away.
func TestServesWhileSyncedPitfall30(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net := bed.Network()
	a := bed.Node(testbed.Options{ID: 1, Network: net})
	for i := range 20 {
		fill(a, fmt.Sprint(i, ":"), 2000)
	}
	a.Do("SET", "last", "v")
	b := bed.Node(testbed.Options{ID: 2, Network: net})
	fill(b, "own ", 100)
	net.Path(a, b).SetRate(500_000)
	b.Meet(a)
	served := 0
	for b.Int("EXISTS", "last") == 0 || b.Int("DBSIZE") < a.Int("DBSIZE") {
		equal(t, "its own key", b.Do("GET", "own string7"), any("7"))
		b.Do("INCR", "served")
		served++
		if served > 200_000 {
			t.Fatal("the sync does not end")
		}
	}
	net.Heal()
	bed.Level(a, b)
	equal(t, "writes made meanwhile", a.Int("GET", "served"), int64(served))
	if served < 10 {
		t.Errorf("the sync was over after %d writes: this tests nothing", served)
	}
}

// TestFlappingLinkPitfall17: a link that is cut a hundred times: what is sent is about what was changed.
func TestFlappingLinkPitfall17(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 2)
	a, b := nodes[0], nodes[1]
	for i := range 10 {
		fill(a, fmt.Sprint(i, ":"), 1000)
	}
	bed.LevelWithin(60*time.Second, a, b)
	start := net.Path(a, b).Bytes()
	for i := range 100 {
		a.Do("SET", "k", fmt.Sprint(i))
		net.Sever(a, b)
		time.Sleep(10 * time.Millisecond)
	}
	bed.Level(a, b)
	// A session's beginning and end take some hundred bytes; the data set is a
	// megabyte.
	if sent := net.Path(a, b).Bytes() - start; sent > 100*4000 {
		t.Errorf("100 small changes on a flapping link took %d bytes", sent)
	}
}

// TestStalledPeerPitfall16: a peer that takes nothing costs bounded memory, and
// slows nobody.
func TestStalledPeerPitfall16(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net := bed.Network()
	args := append([]string{"--fsync", "no", "--set", "wan.window=1mb", "--set", "wan.batch_limit=256kb"}, quick...)
	a := bed.Node(testbed.Options{ID: 1, Network: net, Args: args})
	b := bed.Node(testbed.Options{ID: 2, Network: net, Args: args, Meet: []*testbed.Node{a}})
	bed.Level(a, b)
	net.Path(a, b).SetRate(20_000)
	before := residentKB(t, a.PID())
	value := randomText(100_000)
	begun := time.Now()
	for i := range 1000 { // 100 MB, most of it overwritten before it could be sent
		a.Do("SET", fmt.Sprint("k", i%50), value[i:]+value[:i])
	}
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("1000 writes took %v with a slow peer", took)
	}
	if grown := residentKB(t, a.PID()) - before; grown > 400_000 {
		t.Errorf("the node grew by %d kB while a peer took nothing", grown)
	}
	net.Heal()
	bed.Level(a, b)
}
