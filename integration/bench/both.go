package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// writers are clients that write as fast as they are answered: SET, INCR, HSET
// and SADD in turn, on 100,000 keys, counters, fields and members, values of
// 100 bytes.
type writers struct{ clients, pipeline int }

// written is what writers got done.
type written struct {
	perSecond float64
	commands  int
	p99       float64 // of a pipeline, in milliseconds
	err       error
}

// run writes to a node until the context ends.
func (w writers) run(ctx context.Context, port int) written {
	took := make([][]time.Duration, w.clients)
	failed := make([]error, w.clients)
	var wg sync.WaitGroup
	begun := time.Now()
	for i := range w.clients {
		wg.Go(func() {
			took[i], failed[i] = w.client(ctx, port)
		})
	}
	wg.Wait()
	elapsed := time.Since(begun)
	all := slices.Concat(took...)
	n := len(all) * w.pipeline
	return written{perSecond: float64(n) / elapsed.Seconds(), commands: n, p99: p99(all), err: errors.Join(failed...)}
}

func (w writers) client(ctx context.Context, port int) (took []time.Duration, err error) {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	in := bufio.NewScanner(conn)
	value := strings.Repeat("x", 100)
	var out bytes.Buffer
	for turn := 0; ctx.Err() == nil; {
		out.Reset()
		for range w.pipeline {
			at := rand.IntN(100_000)
			switch turn++; turn % 4 {
			case 0:
				fmt.Fprintf(&out, "*3\r\n$3\r\nSET\r\n$12\r\nstring:%05d\r\n$100\r\n%s\r\n", at, value)
			case 1:
				fmt.Fprintf(&out, "*2\r\n$4\r\nINCR\r\n$13\r\ncounter:%05d\r\n", at)
			case 2:
				fmt.Fprintf(&out, "*4\r\n$4\r\nHSET\r\n$7\r\nhash:%02d\r\n$3\r\n%03d\r\n$100\r\n%s\r\n", at/1000, at%1000, value)
			case 3:
				fmt.Fprintf(&out, "*3\r\n$4\r\nSADD\r\n$6\r\nset:%02d\r\n$3\r\n%03d\r\n", at/1000, at%1000)
			}
		}
		begun := time.Now()
		if err := exchange(conn, in, out.Bytes(), w.pipeline); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
}

// both measures two nodes that exchange what they can take: under full load of
// one and of both, and what a node's own clients and its peer's stream leave each
// other.
func both(b *bench, bed *testbed.Bed, s sizes, fsync string) {
	args := []string{"--fsync", fsync}
	x, y := bed.Node(testbed.Options{ID: 1, Args: args}), bed.Node(testbed.Options{ID: 2, Args: args})
	y.Meet(x)
	nodes := []*testbed.Node{x, y}
	bed.LevelVectors(time.Minute, nodes...)
	full := writers{clients: 50, pipeline: 16}
	fmt.Printf("SET, INCR, HSET and SADD in turn from %d connections with pipelines of %d at a node, for %s.\n", full.clients, full.pipeline, s.load)
	fmt.Println("How far the other, of two the later, is behind is what `REPLICAS` says at the node, asked every 100 ms; of entries it counts 10,000 at most.")
	fmt.Println("What the other applied is what was accepted, by the time from the first write until all were level.")
	fmt.Println()
	fmt.Println("| load at | node | accepted/s | p99 (ms) | the other is behind, ms: median, max | entries: median, max | level after the end (s) | the other applied/s |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	bothLoaded(b, bed, "one", nodes, nodes[:1], full, s.load)
	bothLoaded(b, bed, "both", nodes, nodes, full, s.load)
	threeLoaded(b, bed, full, s.load, args)
	fmt.Println()
	fairness(b, bed, x, y, s)
	bed.SameData(x, y)
	x.Stop()
	y.Stop()
}

// threeLoaded loads three nodes, each of which has to apply twice as much as it takes
// from its own clients.
func threeLoaded(b *bench, bed *testbed.Bed, w writers, length time.Duration, args []string) {
	var nodes []*testbed.Node
	for id := range 3 {
		n := bed.Node(testbed.Options{ID: id + 1, Args: args})
		if id > 0 {
			n.Meet(nodes[0])
		}
		nodes = append(nodes, n)
	}
	bed.Wait(time.Minute, "the last two to meet", func() (bool, string) {
		lag := nodes[1].Replicas()[nodes[2].ID]["lag_ms"]
		return lag != "", "there is no link"
	})
	bothLoaded(b, bed, "three", nodes, nodes, w, length)
	bed.SameData(nodes...)
	for _, n := range nodes {
		n.Stop()
	}
}

// bothLoaded loads some of the nodes and prints a line for each of those.
func bothLoaded(b *bench, bed *testbed.Bed, at string, nodes, loaded []*testbed.Node, w writers, length time.Duration) {
	ctx, stop := context.WithTimeout(context.Background(), length)
	defer stop()
	got := make([]written, len(loaded))
	var wg sync.WaitGroup
	begun := time.Now()
	for i, n := range loaded {
		wg.Go(func() { got[i] = w.run(ctx, n.Port) })
	}
	millis, entries := make([][]float64, len(loaded)), make([][]float64, len(loaded))
	for ctx.Err() == nil {
		for i, n := range loaded {
			all := n.Replicas()
			for _, f := range []struct {
				name string
				to   *[]float64
			}{{"lag_ms", &millis[i]}, {"lag_entries", &entries[i]}} {
				most := 0.0
				for _, other := range nodes {
					if other == n {
						continue
					}
					v, err := strconv.ParseFloat(all[other.ID][f.name], 64)
					if err != nil {
						b.Fatalf("REPLICAS: %s %q: %v", f.name, all[other.ID][f.name], err)
					}
					most = max(most, v)
				}
				*f.to = append(*f.to, most)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	wg.Wait()
	end := time.Now()
	for i, n := range loaded {
		if got[i].err != nil {
			b.Fatalf("writing to node %d: %v", n.ID, got[i].err)
		}
	}
	bed.LevelVectors(10*time.Minute, nodes...)
	for i, n := range loaded {
		fmt.Printf("| %s | %d | %.0f | %.2f | %s | %s | %.2f | %.0f |\n", at, n.ID, got[i].perSecond, got[i].p99,
			medianAndMax(millis[i]), medianAndMax(entries[i]), time.Since(end).Seconds(), float64(got[i].commands)/time.Since(begun).Seconds())
	}
}

func medianAndMax(list []float64) string {
	slices.Sort(list)
	return fmt.Sprintf("%.0f, %.0f", list[len(list)/2], list[len(list)-1])
}

// fairness measures clients of a node alone, the stream of its peer alone, and
// both at once. The stream is what x wrote while the link was paused, so that x
// does little more than read its log meanwhile.
func fairness(b *bench, bed *testbed.Bed, x, y *testbed.Node, s sizes) {
	local := writers{clients: 50, pipeline: 1}
	clients := func(until func(context.Context)) written {
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		done := make(chan written, 1)
		go func() { done <- local.run(ctx, y.Port) }()
		until(ctx)
		stop()
		w := <-done
		if w.err != nil {
			b.Fatalf("writing to node %d: %v", y.ID, w.err)
		}
		return w
	}
	round := uint64(0)
	fill := func() {
		round++
		x.Pause()
		put(b, x.Client(), s.backlog, func(int) bool { return true }, round)
		x.Do("SET", "marker", round)
	}
	// stream lets the stream go and returns keys a second until all of it is in y.
	stream := func() float64 {
		begun := time.Now()
		x.Resume()
		bed.Wait(10*time.Minute, "the stream to be through", func() (bool, string) {
			v := fmt.Sprint(y.Do("GET", "marker"))
			return v == fmt.Sprint(round), v
		})
		return float64(s.backlog) / time.Since(begun).Seconds()
	}
	fill() // the keys come to be; from now on they are overwritten
	stream()
	bed.LevelVectors(10*time.Minute, x, y)
	alone := clients(func(context.Context) { time.Sleep(s.load) })
	bed.LevelVectors(10*time.Minute, x, y)
	fill()
	applied := stream()
	bed.LevelVectors(10*time.Minute, x, y)
	fill()
	var with float64
	beside := clients(func(context.Context) { with = stream() })
	bed.LevelVectors(10*time.Minute, x, y)
	fmt.Printf("A node's own clients (the same writes, %d connections without pipelines) and its peer's stream (%d SETs of 100 bytes that wait there).\n\n", local.clients, s.backlog)
	fmt.Println("| | clients' writes/s | p99 (ms) | of the peer's applied/s |")
	fmt.Println("|---|---|---|---|")
	fmt.Printf("| clients alone | %.0f | %.2f | |\n", alone.perSecond, alone.p99)
	fmt.Printf("| the peer's stream alone | | | %.0f |\n", applied)
	fmt.Printf("| both at once | %.0f (%.2f) | %.2f | %.0f (%.2f) |\n\n", beside.perSecond, beside.perSecond/alone.perSecond, beside.p99, with, with/applied)
}
