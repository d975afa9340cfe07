package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// work is a load whose bytes on the wire are measured.
type work struct {
	name string
	ops  int
	thin bool // also over a link on which what cannot be folded would take an hour
	op   func(p redis.Pipeliner, r *rand.Rand)
}

// works returns the loads, of so many operations each.
func works(ops int) []work {
	return []work{
		{"INCR over 1000 keys", ops, true, func(p redis.Pipeliner, r *rand.Rand) {
			p.Incr(context.Background(), fmt.Sprintf("counter:%03d", r.IntN(1000)))
		}},
		{"SET of 100 bytes of JSON over " + strconv.Itoa(ops/2) + " keys", ops, false, func(p redis.Pipeliner, r *rand.Rand) {
			p.Set(context.Background(), fmt.Sprintf("user:%06d", r.IntN(ops/2)),
				fmt.Sprintf(`{"id":%06d,"name":"user %04x","mail":"%06x@example.com","visits":%04d,"since":"2026-01-%02d"}`,
					r.IntN(1e6), r.IntN(1<<16), r.IntN(1<<24), r.IntN(1e4), 1+r.IntN(28)), 0)
		}},
	}
}

// load does the work over one connection, in pipelines of 100.
func (w work) load(b *bench, c *redis.Client) time.Duration {
	r := rand.New(rand.NewPCG(1, 2))
	begun := time.Now()
	for done := 0; done < w.ops; {
		p := c.Pipeline()
		for range min(100, w.ops-done) {
			w.op(p, r)
			done++
		}
		if _, err := p.Exec(context.Background()); err != nil {
			b.Fatalf("%s: %v", w.name, err)
		}
	}
	return time.Since(begun)
}

// wide measures what replication costs on the wire: Redis's own stream to a
// replica, and a node's to another over links of several speeds.
func wide(b *bench, bed *testbed.Bed, ops int) {
	fmt.Printf("Bytes on the wire from one to the other for %d operations, one connection, pipelines of 100. A link's limit is `wan.limits.bandwidth`.\n\n", ops)
	fmt.Println("| operations | | bytes | bytes an operation | of Redis's | took | until level |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for _, w := range works(ops) {
		stream, took := redisStream(b, bed, w)
		row := func(how string, bytes int64, took, level time.Duration) {
			fmt.Printf("| %s | %s | %d | %.2f | %.1f %% | %.1f s | %.1f s |\n", w.name, how, bytes, float64(bytes)/float64(w.ops),
				100*float64(bytes)/float64(stream), took.Seconds(), level.Seconds())
		}
		row("Redis's replication stream", stream, took, took)
		for _, link := range []struct{ name, limit string }{{"fast link", "0"}, {"1 Mbit/s", "125000"}, {"64 kbit/s", "8000"}} {
			if link.limit == "8000" && !w.thin {
				continue
			}
			bytes, took, level := nodeStream(b, bed, w, link.limit)
			row(link.name, bytes, took, level)
		}
	}
	fmt.Println()
}

// redisStream returns the bytes that a Redis sends its replica for a load.
func redisStream(b *bench, bed *testbed.Bed, w work) (int64, time.Duration) {
	master, replica := bed.Redis(testbed.RedisOptions{}), bed.Redis(testbed.RedisOptions{})
	defer master.Kill()
	defer replica.Kill()
	c := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", master.Port)})
	defer c.Close()
	r := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", replica.Port)})
	defer r.Close()
	ctx := context.Background()
	if err := r.Do(ctx, "REPLICAOF", "127.0.0.1", master.Port).Err(); err != nil {
		b.Fatalf("REPLICAOF: %v", err)
	}
	offset := func() int64 {
		info, err := c.InfoMap(ctx, "replication").Result()
		if err != nil {
			b.Fatalf("INFO: %v", err)
		}
		n, err := strconv.ParseInt(info["Replication"]["master_repl_offset"], 10, 64)
		if err != nil {
			b.Fatalf("INFO: %v", err)
		}
		return n
	}
	linked(bed, r)
	before := offset()
	took := w.load(b, c)
	return offset() - before, took
}

// linked waits until a replica has its master's data.
func linked(bed *testbed.Bed, replica *redis.Client) {
	bed.Wait(30*time.Second, "the replica to be connected", func() (bool, string) {
		info, err := replica.InfoMap(context.Background(), "replication").Result()
		return err == nil && info["Replication"]["master_link_status"] == "up", fmt.Sprint(info, err)
	})
}

// nodeStream returns the bytes that a node sends another for a load, over a link
// with a limit, until both are level.
func nodeStream(b *bench, bed *testbed.Bed, w work, limit string) (bytes int64, took, level time.Duration) {
	net := bed.Network()
	x := bed.Node(testbed.Options{ID: 1, Network: net, Args: []string{"--set", "wan.limits.bandwidth=" + limit}})
	y := bed.Node(testbed.Options{ID: 2, Network: net, Meet: []*testbed.Node{x}})
	bed.LevelVectors(time.Minute, x, y)
	start, begun := net.Path(x, y).Bytes(), time.Now()
	took = w.load(b, x.Client())
	bed.LevelVectors(10*time.Minute, x, y)
	bytes, level = net.Path(x, y).Bytes()-start, time.Since(begun)
	x.Stop()
	y.Stop()
	return bytes, took, level
}

// copies measures what crosses beyond what must: over a link that is cut again
// and again under load, and between regions of several nodes. Nothing of it can
// be folded or compressed.
func copies(b *bench, bed *testbed.Bed) {
	fmt.Println("Bytes that cross a link for new values that neither fold nor compress (compression off).")
	fmt.Println()
	fmt.Println("| | bytes changed | bytes sent | ratio |")
	fmt.Println("|---|---|---|---|")
	row := func(what string, changed, sent int64) {
		fmt.Printf("| %s | %d | %d | %.2f |\n", what, changed, sent, float64(sent)/float64(changed))
	}
	args := []string{"--set", "wan.compression=0", "--set", "wan.heartbeat=200ms"}
	const flaps, writes, size = 100, 50, 1000
	net := bed.Network()
	x := bed.Node(testbed.Options{ID: 1, Network: net, Args: args})
	y := bed.Node(testbed.Options{ID: 2, Network: net, Args: args, Meet: []*testbed.Node{x}})
	bed.LevelVectors(time.Minute, x, y)
	start := net.Path(x, y).Bytes()
	for i := range flaps {
		for j := range writes {
			x.Do("SET", fmt.Sprint("key:", i*writes+j), random(size))
		}
		net.Sever(x, y)
		time.Sleep(20 * time.Millisecond)
	}
	bed.LevelVectors(2*time.Minute, x, y)
	row(fmt.Sprintf("a link cut %d times under load", flaps), flaps*writes*size, net.Path(x, y).Bytes()-start)
	x.Stop()
	y.Stop()

	net = bed.Network()
	var nodes []*testbed.Node
	for id := 1; id <= 6; id++ {
		region := []string{"east", "west"}[(id-1)/3]
		nodes = append(nodes, bed.Node(testbed.Options{ID: id, Network: net, Args: append([]string{"--region", region}, args...), Meet: nodes[:min(len(nodes), 1)]}))
	}
	bed.Wait(time.Minute, "all links", func() (bool, string) {
		for _, n := range nodes {
			for _, f := range n.Replicas() {
				if f["state"] == "down" {
					return false, fmt.Sprint(n.ID, f)
				}
			}
		}
		return true, ""
	})
	bed.LevelVectors(time.Minute, nodes...)
	crossed := func() (sum int64) {
		for _, e := range nodes[:3] {
			for _, w := range nodes[3:] {
				sum += net.Path(e, w).Bytes()
			}
		}
		return sum
	}
	start = crossed()
	for i := range 300 {
		nodes[i%3].Do("SET", fmt.Sprint("key:", i), random(10_000))
	}
	bed.LevelVectors(2*time.Minute, nodes...)
	row("from a region of three nodes to another of three", 300*10_000, crossed()-start)
	for _, n := range nodes {
		n.Stop()
	}
	fmt.Println()
}
