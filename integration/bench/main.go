// Command bench measures a node beside the Redis it stands in front of, on one
// machine and in one run, so that the ratios mean something where the absolute
// figures do not:
//
//	go run ./integration/bench [-short]
//	go run ./integration/bench -wan
//	go run ./integration/bench -latency
//	go run ./integration/bench -both
//	go run ./integration/bench -soak 30m [-stopped]
//	go run ./integration/bench -sync
//
// It prints Markdown; docs/BENCHMARKS.md holds the last figures. It needs
// redis-server and redis-benchmark, and measures twemproxy beside them where
// nutcracker is installed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// sizes of a run.
type sizes struct {
	requests int // of one redis-benchmark run without pipelining
	rounds   int // runs of each, in turn; the median counts
	keys     int // of 100 bytes each
	ops      int // whose bytes on the wire are counted
	writes   int // whose way to a peer is timed
	idle     int // clients
	backlog  int // keys that a node takes in from its peer

	calm bool // nodes come to rest between measurements

	load time.Duration // of two nodes that exchange, each time
}

// parts are what alone is to be measured; everything if none is set.
type parts struct{ states, wide, latency, both bool }

func main() {
	short := flag.Bool("short", false, "a small run, for CI: a minute or two, its figures are rough")
	fsync := flag.String("fsync", "everysec", "durability of the node: always, everysec or no")
	only := flag.String("commands", "", "measure only these, as the table names them, separated by commas")
	long := flag.Duration("soak", 0, "instead, load two nodes for so long, and fail if memory, goroutines, files or disk grow; 30m is a good while")
	stopped := flag.Bool("stopped", false, "with -soak: one of the two nodes stands still (SIGSTOP) all the while, and must be level afterwards")
	states := flag.Bool("sync", false, "measure state syncs only")
	keys := flag.Int("keys", 0, "keys for the syncs, for what keys cost, and with -both in the peer's stream; 0: a million, with -both half of that, or what -short says")
	onlyWAN := flag.Bool("wan", false, "only what replication costs on the wire")
	onlyLag := flag.Bool("latency", false, "only how soon a write is visible at a peer")
	onlyBoth := flag.Bool("both", false, "only two nodes under full load at once: how far they are behind each other, and what clients and a peer's stream leave each other")
	flag.Parse()
	if *only != "" {
		names := strings.Split(*only, ",")
		loads = slices.DeleteFunc(loads, func(l load) bool { return !slices.Contains(names, l.name) })
	}
	s := sizes{requests: 50_000, rounds: 3, keys: 1_000_000, ops: 200_000, writes: 400, idle: 10_000, backlog: 200_000, calm: true, load: 5 * time.Second}
	if *onlyBoth {
		s.backlog, s.load = 500_000, 20*time.Second
	}
	if *short {
		s = sizes{requests: 8_000, rounds: 1, keys: 50_000, ops: 10_000, writes: 20, idle: 1000, backlog: 20_000, load: time.Second}
	}
	if *keys > 0 {
		s.keys = *keys
		if *onlyBoth {
			s.backlog = *keys
		}
	}
	os.Exit(run(s, *fsync, *long, *stopped, parts{*states, *onlyWAN, *onlyLag, *onlyBoth}))
}

// run measures and returns the exit code.
func run(s sizes, fsync string, long time.Duration, stopped bool, only parts) (code int) {
	b := &bench{}
	defer func() {
		if p := recover(); p != nil && p != any(errFailed) {
			panic(p)
		}
		b.end()
		testbed.RemoveBinary()
		if b.failed {
			code = 1
		}
	}()
	if err := testbed.Tools(); err != nil {
		b.Fatalf("%v", err)
	}
	bed := testbed.New(b)
	fmt.Printf("%s, %d CPUs, %s/%s, %s; fsync %s; view: a redis-server that the node starts itself.\n\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, redisVersion(b), fsync)
	if long > 0 {
		soak(b, bed, long, stopped)
		return 0
	}
	all := only == parts{}
	if all {
		throughput(b, bed, s, fsync)
		durable(b, bed, s)
		data(b, bed, s, fsync)
	}
	if all || only.both {
		both(b, bed, s, fsync)
	}
	if all || only.states {
		syncs(b, bed, s.keys, fsync)
	}
	if all || only.wide {
		wide(b, bed, s.ops)
		copies(b, bed)
	}
	if all || only.latency {
		latency(b, bed, s.writes, fsync)
	}
	return 0
}

// data measures what keys cost: on disk, and the time to build a view of them
// and to bring them to a new member.
func data(b *bench, bed *testbed.Bed, s sizes, fsync string) {
	args := []string{"--fsync", fsync, "--set", "log_retention_bytes=1mb"}
	n := bed.Node(testbed.Options{ID: 1, Args: args})
	filled := fill(b, n, s.keys)
	// Tables are written as the log is trimmed; wait until that has settled.
	size := settled(n.Dir)
	n.Stop()
	begun := time.Now()
	n.Start()
	rebuilt := time.Since(begun)
	if got := n.Int("DBSIZE"); got != int64(s.keys) {
		b.Fatalf("%d keys after a restart, not %d", got, s.keys)
	}
	begun = time.Now()
	m := bed.Node(testbed.Options{ID: 2, Args: args})
	started := time.Since(begun)
	m.Meet(n)
	bed.LevelVectors(10*time.Minute, n, m)
	synced := time.Since(begun) - started
	if got := m.Int("DBSIZE"); got != int64(s.keys) {
		b.Fatalf("%d keys at the new member, not %d", got, s.keys)
	}
	fmt.Printf("%d keys with 100 bytes of name and value each.\n\n", s.keys)
	fmt.Println("| | |")
	fmt.Println("|---|---|")
	fmt.Printf("| written, one connection, pipelines of %d | %.1f s (%.0f keys/s) |\n", fillStep, filled.Seconds(), float64(s.keys)/filled.Seconds())
	fmt.Printf("| on disk, with a log of 1 MB | %.0f bytes a key |\n", float64(size)/float64(s.keys))
	fmt.Printf("| restart of the node with an empty view: start and rebuild | %.1f s (%.0f keys/s) |\n", rebuilt.Seconds(), float64(s.keys)/rebuilt.Seconds())
	fmt.Printf("| a new member, from MEET until it has everything | %.1f s (%.0f keys/s) |\n", synced.Seconds(), float64(s.keys)/synced.Seconds())
	rewrite(b, bed, n, m, s)
	n.Stop()
	m.Stop()
	idle(b, bed, s.idle, fsync)
	fmt.Println()
}

// fillStep is how many commands fill sends at once.
const fillStep = 5000

// fill writes keys of 100 bytes each, with their names.
func fill(b *bench, n *testbed.Node, keys int) time.Duration {
	value := strings.Repeat("v", 84)
	begun := time.Now()
	for from := 0; from < keys; from += fillStep {
		pipe := n.Client().Pipeline()
		for i := from; i < min(from+fillStep, keys); i++ {
			pipe.Set(context.Background(), fmt.Sprintf("key:%012d", i), fmt.Sprintf("%012d%s", i*7919%keys, value[12:]), 0)
		}
		if _, err := pipe.Exec(context.Background()); err != nil {
			b.Fatalf("filling: %v", err)
		}
	}
	return time.Since(begun)
}

// rewrite measures writes to keys of which next to none are in the memory of a node that was
// just started, beside some that are, with a peer; and how long it takes to flush all.
func rewrite(b *bench, bed *testbed.Bed, n, m *testbed.Node, s sizes) {
	t := target{name: "node", port: n.Port, pid: n.PID}
	if s.calm {
		t.nodes = []*testbed.Node{n, m}
	}
	set := func(keys int) (r result, misses float64) {
		before := number(b, n, "key_cache_misses")
		requests := 4 * s.requests
		r = measure(b, t, load{name: "SET", args: []string{"-t", "set", "-r", strconv.Itoa(keys)}}, 50, 16, requests)
		return r, (number(b, n, "key_cache_misses") - before) / float64(requests)
	}
	cold, misses := set(s.keys)
	few := min(s.keys, 100_000)
	set(few)
	warm, kept := set(few)
	fmt.Printf("| SET at random, pipelines of 16, %.2f read from the store first | %.0f/s, %.1f µs |\n", misses, cold.perSecond, cold.cpu)
	fmt.Printf("| the same of %d of them, %.2f | %.0f/s, %.1f µs |\n", few, kept, warm.perSecond, warm.cpu)
	flush(b, n, m, "SYNC")
	fill(b, n, s.keys)
	bed.LevelVectors(10*time.Minute, n, m)
	if s.calm {
		rest(b, t.nodes)
	}
	flush(b, n, m, "ASYNC")
}

// flush measures how long it takes to flush all, and how long others have to wait meanwhile.
func flush(b *bench, n, m *testbed.Node, how string) {
	stop := make(chan struct{})
	var probes sync.WaitGroup
	var waits [2]time.Duration
	for i, node := range []*testbed.Node{n, m} {
		c := node.NewClient(1)
		probes.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
				begun := time.Now()
				if err := c.Set(context.Background(), "probe", how, 0).Err(); err != nil {
					b.Errorf("a SET meanwhile: %v", err)
					return
				}
				waits[i] = max(waits[i], time.Since(begun))
			}
		})
	}
	begun := time.Now()
	n.Do("FLUSHDB", how)
	flushed := time.Since(begun)
	for m.Int("DBSIZE") > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	gone := time.Since(begun)
	close(stop)
	probes.Wait()
	fmt.Printf("| FLUSHDB %s; until the peer's is empty too; others wait, at most, at the node, at the peer | %.1f s; %.1f s; %.2f s; %.2f s |\n",
		how, flushed.Seconds(), gone.Seconds(), waits[0].Seconds(), waits[1].Seconds())
}

// settled returns the size of a directory once it has not grown or shrunk by
// a hundredth for two seconds, or after half a minute.
func settled(dir string) int64 {
	last, since := sizeOf(dir), time.Now()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && time.Since(since) < 2*time.Second; {
		time.Sleep(200 * time.Millisecond)
		if now := sizeOf(dir); now > last*101/100 || now < last*99/100 {
			last, since = now, time.Now()
		}
	}
	return sizeOf(dir)
}

func sizeOf(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil // files come and go
	})
	return total
}

func redisVersion(b *bench) string {
	out, err := exec.Command("redis-server", "--version").Output()
	f := strings.Fields(string(out))
	if err != nil || len(f) < 3 {
		b.Fatalf("redis-server --version: %v, %s", err, out)
	}
	return "Redis " + strings.TrimPrefix(f[2], "v=")
}
