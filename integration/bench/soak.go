package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// soakClients is how many clients load each of the two nodes.
const soakClients = 8

// growth is how much more of something a node may have in the last third of a
// soak than in the second, on average: above it is a leak.
const growth = 1.2

// soak loads two nodes with a mixture of all types, on keys of which there is a
// fixed number, and looks whether memory, goroutines, files and disk stay what
// they are.
// A stopped node is loaded by nobody, and stands still (SIGSTOP) until the end.
func soak(b *bench, bed *testbed.Bed, length time.Duration, stopped bool) {
	args := []string{"--set", "log_retention_bytes=64mb"}
	x, y := bed.Node(testbed.Options{ID: 1, Args: args}), bed.Node(testbed.Options{ID: 2, Args: args})
	y.Meet(x)
	nodes := []*testbed.Node{x, y}
	if stopped {
		bed.LevelVectors(time.Minute, x, y)
		y.Freeze()
		nodes = nodes[:1]
	}
	ctx, stop := context.WithTimeout(context.Background(), length)
	defer stop()
	var wg sync.WaitGroup
	var requests, refused atomic.Int64
	for i := range soakClients * len(nodes) {
		c := nodes[i%len(nodes)].NewClient(0)
		rnd := rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			defer c.Close()
			for ctx.Err() == nil {
				n, err := soakRound(context.Background(), c, rnd) // what is begun is finished
				requests.Add(int64(n))
				if err != nil {
					if refused.Add(1) == 1 {
						b.Errorf("soak: %v", err)
					}
				}
			}
		})
	}
	fmt.Printf("%s of mixed load from %d clients at each of %d nodes.\n\n", length, soakClients, len(nodes))
	fmt.Println("| after | requests | memory of each node (MB) | goroutines | open files | disk (MB) |")
	fmt.Println("|---|---|---|---|---|---|")
	begun := time.Now()
	var seen []map[string]float64
	tick := time.NewTicker(max(length/30, time.Second))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-tick.C:
		}
		all := map[string]float64{}
		show := func(what string, of func(*testbed.Node) float64) string {
			var out []string
			for _, n := range nodes {
				v := of(n)
				all[fmt.Sprintf("%s of node %d", what, n.ID)] = v
				out = append(out, fmt.Sprintf("%.0f", v))
			}
			return strings.Join(out, ", ")
		}
		fmt.Printf("| %s | %d | %s | %s | %s | %s |\n", time.Since(begun).Round(time.Second), requests.Load(),
			show("memory", memory), show("goroutines", goroutines), show("open files", openFiles),
			show("disk", func(n *testbed.Node) float64 { return float64(sizeOf(n.Dir)) / (1 << 20) }))
		seen = append(seen, all)
	}
	wg.Wait()
	time.Sleep(21 * time.Second) // what expires has done so: no key goes while data is compared
	if stopped {
		y.Thaw()
		nodes = append(nodes, y)
		bed.LevelWithin(10*time.Minute, nodes...)
	} else {
		bed.Level(nodes...)
	}
	fmt.Printf("\n%d requests, %d refused; both nodes hold the same.\n", requests.Load(), refused.Load())
	third := len(seen) / 3
	for what := range seen[0] {
		var second, last float64
		for i := range third {
			second += seen[third+i][what]
			last += seen[len(seen)-1-i][what]
		}
		if last > second*growth {
			b.Errorf("soak: the %s grows: %.0f on average in the second third, %.0f in the last", what, second/float64(third), last/float64(third))
		}
	}
	for _, n := range nodes {
		n.Stop()
	}
}

// soakRound sends one pipeline of random commands.
func soakRound(ctx context.Context, c *redis.Client, rnd *rand.Rand) (n int, err error) {
	key := func(kind string, of int) string { return kind + ":" + strconv.Itoa(rnd.IntN(of)) }
	value := strings.Repeat("v", rnd.IntN(300))
	p := c.Pipeline()
	for range 1 + rnd.IntN(20) {
		field := strconv.Itoa(rnd.IntN(100))
		switch rnd.IntN(16) {
		case 0, 1:
			p.Set(ctx, key("string", 20_000), value, 0)
		case 2:
			p.Set(ctx, key("session", 20_000), value, time.Duration(1+rnd.IntN(20))*time.Second)
		case 3, 4:
			p.Incr(ctx, key("counter", 5000))
		case 5:
			p.HSet(ctx, key("hash", 2000), field, value)
		case 6:
			p.HDel(ctx, key("hash", 2000), field)
		case 7:
			p.SAdd(ctx, key("set", 2000), field)
		case 8:
			p.SRem(ctx, key("set", 2000), field)
		case 9:
			p.ZIncrBy(ctx, key("zset", 2000), 1.5, field)
		case 10:
			p.ZRem(ctx, key("zset", 2000), field)
		case 11:
			p.LPush(ctx, key("list", 50), value)
		case 12:
			p.RPop(ctx, key("list", 50))
			p.RPop(ctx, key("list", 50))
		case 13:
			p.XAdd(ctx, &redis.XAddArgs{Stream: key("stream", 20), MaxLen: 500, Values: []string{"f", value}})
		case 14:
			p.Del(ctx, key("string", 20_000), key("hash", 2000), key("zset", 2000))
		case 15:
			p.Eval(ctx, "return redis.call('INCRBY', KEYS[1], ARGV[1])", []string{key("counter", 5000)}, 3)
		}
	}
	n = p.Len()
	if _, err = p.Exec(ctx); errors.Is(err, redis.Nil) {
		err = nil
	}
	return n, err
}

// memory returns the resident memory of a node's process in MB.
func memory(n *testbed.Node) float64 {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.PID()), "statm"))
	if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
		pages, _ := strconv.ParseFloat(f[1], 64)
		return pages * float64(os.Getpagesize()) / (1 << 20)
	}
	return 0
}

func openFiles(n *testbed.Node) float64 {
	list, _ := os.ReadDir(filepath.Join("/proc", strconv.Itoa(n.PID()), "fd"))
	return float64(len(list))
}

var goroutineCount = regexp.MustCompile(`goroutine profile: total (\d+)`)

func goroutines(n *testbed.Node) float64 {
	r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d", n.MetricsPort) + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	m := goroutineCount.FindSubmatch(b)
	if m == nil {
		return 0
	}
	v, _ := strconv.ParseFloat(string(m[1]), 64)
	return v
}
