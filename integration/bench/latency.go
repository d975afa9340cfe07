package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// delays are the one-way delays of the links on which the lag is measured.
var delays = []time.Duration{0, 20 * time.Millisecond, 75 * time.Millisecond}

// latency measures how soon a write is visible at a peer: on an idle link beside
// a replica of Redis, and in the realtime lane while a thin link is full.
func latency(b *bench, bed *testbed.Bed, samples int, fsync string) {
	fmt.Printf("From the moment a client sends `SET` at one until `GET` at the other returns the value: %d writes, one at a time, some 30 ms apart, through the same relay.\n\n", samples)
	fmt.Println("| what, one-way delay | p50 | p99 | p50 beyond the delay | p99 beyond the delay |")
	fmt.Println("|---|---|---|---|---|")
	row := func(how string, delay time.Duration, took []time.Duration) {
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		fmt.Printf("| %s, %s | %s | %s | %s | %s |\n", how, delay, ms(p50), ms(p99), ms(p50-delay), ms(p99-delay))
	}
	net := bed.Network()
	args := []string{"--fsync", fsync}
	x := bed.Node(testbed.Options{ID: 1, Network: net, Args: args})
	y := bed.Node(testbed.Options{ID: 2, Network: net, Args: args, Meet: []*testbed.Node{x}})
	bed.LevelVectors(time.Minute, x, y)
	master, replica := bed.Redis(testbed.RedisOptions{}), bed.Redis(testbed.RedisOptions{})
	port, there, back := net.Front(master.Port)
	if err := replica.Client(0).Do(context.Background(), "REPLICAOF", "127.0.0.1", port).Err(); err != nil {
		b.Fatalf("REPLICAOF: %v", err)
	}
	linked(bed, replica.Client(0))
	delays := delays
	if samples < 100 {
		delays = delays[1:2]
	}
	row("a sync of the disk alone", 0, syncTimes(b, samples))
	for _, d := range delays {
		for _, p := range []*testbed.Path{there, back, net.Path(x, y), net.Path(y, x)} {
			p.SetDelay(d)
		}
		row("a Redis's replica", d, visible(b, master.Client(0), replica.Client(0), "k", samples))
		row("a node's peer", d, visible(b, x.Client(), y.Client(), "k", samples))
	}
	x.Stop()
	y.Stop()
	master.Kill()
	replica.Kill()

	fmt.Println()
	fmt.Println("The same for keys in the realtime lane while the idle lane has more to send than a link of 1 Mbit/s takes, once with `wan.limits.bandwidth` at")
	fmt.Println("nine tenths of that, and once without a limit, where the network has 300 ms of queue to fill. A chunk takes 8 ms.")
	fmt.Println()
	fmt.Println("| what, one-way delay | p50 | p99 | p50 beyond the delay | p99 beyond the delay |")
	fmt.Println("|---|---|---|---|---|")
	for _, d := range delays {
		row("1 Mbit/s, full", d, overtaking(b, bed, bed.Network(), d, samples/2, linkRate*9/10, args))
	}
	for _, d := range delays {
		// Real packets, so that TCP finds out for itself; there may be none here.
		// Not BBR: it lets any flow run nearly dry for 200 ms every 10 s.
		net, err := bed.Segment("reno")
		if err != nil {
			break
		}
		row("the same without a limit, with 300 ms of queue in the network", d, overtaking(b, bed, net, d, samples/2, 0, args))
	}
	fmt.Println()
}

// linkRate is 1 Mbit/s.
const linkRate = 125_000

// overtaking measures the realtime lane on a full link of that rate, with a limit
// set at the node. A link that is never filled beyond what it takes has no queue
// before it.
func overtaking(b *bench, bed *testbed.Bed, net *testbed.Network, delay time.Duration, samples, limit int, args []string) []time.Duration {
	const secret = "a secret of twenty-four characters"
	x := bed.Node(testbed.Options{ID: 1, Network: net, Secret: secret, Args: args, Config: fmt.Sprintf(`
[wan.limits]
bandwidth = "%d"
[[qos]]
keys = "rt:*"
lane = "realtime"
[[qos]]
keys = "bulk:*"
lane = "idle"
`, limit)})
	y := bed.Node(testbed.Options{ID: 2, Network: net, Secret: secret, Args: args, Meet: []*testbed.Node{x}})
	bed.LevelVectors(time.Minute, x, y)
	for _, p := range []*testbed.Path{net.Path(x, y), net.Path(y, x)} {
		p.SetDelay(delay)
		p.SetRate(linkRate)
	}
	stop := make(chan struct{})
	var bulk sync.WaitGroup
	bulk.Go(func() {
		c := x.NewClient(0)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(30 * time.Millisecond): // three times what the link takes
			}
			if err := c.Set(context.Background(), fmt.Sprint("bulk:", i%5000), random(12_000), 0).Err(); err != nil {
				b.Errorf("SET: %v", err)
				return
			}
		}
	})
	time.Sleep(3 * time.Second)
	took := visible(b, x.Client(), y.Client(), "rt:k", samples)
	close(stop)
	bulk.Wait()
	x.Kill()
	y.Kill()
	return took
}

// visible writes at one and looks at the other until it is there, again and
// again, and returns what each took, sorted. Notifications say when to look:
// looking all the time would take the processors from those that bring it.
func visible(b *bench, from, to *redis.Client, key string, samples int) (out []time.Duration) {
	ctx := context.Background()
	if err := to.ConfigSet(ctx, "notify-keyspace-events", "KA").Err(); err != nil {
		b.Fatalf("CONFIG SET: %v", err)
	}
	sub := to.Subscribe(ctx, "__keyspace@0__:"+key)
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		b.Fatalf("SUBSCRIBE: %v", err)
	}
	for i := range samples + 10 {
		value := strconv.FormatInt(time.Now().UnixNano(), 36)
		begun := time.Now()
		if err := from.Set(ctx, key, value, 0).Err(); err != nil {
			b.Fatalf("SET: %v", err)
		}
		if _, err := sub.ReceiveTimeout(ctx, time.Minute); err != nil {
			b.Fatalf("no notification came: %v", err)
		}
		for got := ""; got != value; {
			var err error
			if got, err = to.Get(ctx, key).Result(); err != nil || time.Since(begun) > time.Minute {
				b.Fatalf("GET: %v, %v after the write", err, time.Since(begun))
			}
		}
		if i >= 10 { // the first are for warming up
			out = append(out, time.Since(begun))
		}
		time.Sleep(time.Duration(20+rand.IntN(20)) * time.Millisecond)
	}
	slices.Sort(out)
	return out
}

// syncTimes measures what the disk takes to sync a short write: only what is
// synced is sent to peers.
func syncTimes(b *bench, samples int) (out []time.Duration) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer f.Close()
	for range samples {
		begun := time.Now()
		if _, err = f.WriteString(random(300)); err == nil {
			err = f.Sync()
		}
		if err != nil {
			b.Fatalf("%v", err)
		}
		out = append(out, time.Since(begun))
		time.Sleep(time.Duration(20+rand.IntN(20)) * time.Millisecond)
	}
	slices.Sort(out)
	return out
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
