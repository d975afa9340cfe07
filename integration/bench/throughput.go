package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// load is a command that is measured.
type load struct {
	name string
	args []string // of redis-benchmark; nil: transactions, which it cannot send
	mean string   // the mean it counts in
	bulk bool     // of many elements each: so many requests are not needed
}

var hundred = func() []string {
	args := []string{"SADD", "many:__rand_int__"}
	for i := range 100 {
		args = append(args, "member:"+strconv.Itoa(i))
	}
	return args
}()

// loads are the commands in the order in which they are measured: those that
// take away come after those that add.
var loads = []load{
	{name: "SET", args: []string{"-t", "set"}, mean: "write"},
	{name: "GET", args: []string{"-t", "get"}, mean: "read"}, // of what SET has written
	{name: "INCR", args: []string{"-t", "incr"}, mean: "write"},
	{name: "HSET", args: []string{"-t", "hset"}, mean: "write"},
	{name: "SADD", args: []string{"-t", "sadd"}, mean: "write"},
	{name: "LPUSH", args: []string{"-t", "lpush"}, mean: "write"},
	{name: "ZADD", args: []string{"-t", "zadd"}, mean: "write"},
	{name: "SPOP", args: []string{"-t", "spop"}},
	{name: "RPOP", args: []string{"-t", "rpop"}},
	{name: "ZPOPMIN", args: []string{"-t", "zpopmin"}},
	{name: "XADD", args: []string{"XADD", "stream", "*", "field", "__rand_int__"}},
	{name: "EVAL", args: []string{"EVAL", "return redis.call('INCR', KEYS[1])", "1", "counter:__rand_int__"}},
	{name: "SADD of 100", args: hundred, bulk: true},
	{name: "MULTI of 5"},
}

// target is what is measured, and the process whose time counts.
type target struct {
	name  string
	port  int
	pid   func() int
	picky bool            // it refuses some commands
	nodes []*testbed.Node // that come to rest after each measurement: what they do later is its cost, and not the next one's
}

// throughput measures requests a second: of a Redis alone, of a node, of a
// node that a second one hears from; and, to compare with, of a Redis that has a log and a
// replica, and of twemproxy, where it is installed, before the first Redis; in turn.
func throughput(b *bench, bed *testbed.Bed, s sizes, fsync string) {
	direct := bed.Redis(testbed.RedisOptions{})
	args := []string{"--fsync", fsync}
	alone, first, second := bed.Node(testbed.Options{ID: 1, Args: args}), bed.Node(testbed.Options{ID: 1, Args: args}), bed.Node(testbed.Options{ID: 2, Args: args})
	second.Meet(first)
	targets := []target{{name: "Redis", port: direct.Port, pid: direct.PID}, {name: "node", port: alone.Port, pid: alone.PID}, {name: "node with a peer", port: first.Port, pid: first.PID}}
	if s.calm {
		targets[1].nodes, targets[2].nodes = []*testbed.Node{alone}, []*testbed.Node{first, second}
	}
	const ours = 3 // targets; the others are to compare with
	logged, replica := loggedRedis(bed)
	targets = append(targets, target{name: "Redis with log and replica", port: logged.Port, pid: logged.PID})
	proxy := twemproxy(b, bed, direct.Port)
	if proxy != nil {
		targets = append(targets, target{name: "twemproxy", port: proxy.port, pid: proxy.PID, picky: true})
	}
	fmt.Printf("Requests a second with 50 connections, values of 100 bytes, 100,000 keys; the median of %d runs of %d requests (×4 with pipelines of 16; four times as many GETs, a tenth of SADDs of 100).\n", s.rounds, s.requests)
	fmt.Println("The ratios are to Redis alone. CPU is what the process itself takes for a request: Redis; the node without its Redis, with a peer.")
	if s.calm {
		fmt.Println("Between measurements the nodes write back what they still have to, and the CPU of that is in.")
	}
	fmt.Println("A Redis with what a node with a peer has, a log (appendfsync everysec) and a second one that receives, is beside them.")
	if proxy != nil {
		fmt.Println("twemproxy stands before the Redis alone, and refuses what has a –.")
	}
	fmt.Println()
	head, line := "| command | pipeline | Redis | node | ratio | with a peer | ratio | p99 Redis, node, with a peer (ms) | CPU Redis, node (µs) |", "|---|---|---|---|---|---|---|---|---|"
	for _, t := range targets[ours:] {
		head, line = head+" "+t.name+" | ratio |", line+"---|---|"
	}
	fmt.Println(head)
	fmt.Println(line)
	for _, pipeline := range []int{1, 16} {
		requests := s.requests
		if pipeline > 1 {
			requests *= 4
		}
		means, others := map[string][]float64{}, make([]map[string][]float64, len(targets)-ours)
		for i := range others {
			others[i] = map[string][]float64{}
		}
		for _, l := range loads {
			requests := requests
			switch {
			case l.bulk:
				requests /= 10
			case l.mean == "read": // the first reads of each key are slower than those that follow
				requests *= 4
			}
			got := make([][]result, len(targets))
			for range s.rounds {
				for i, t := range targets {
					got[i] = append(got[i], measure(b, t, l, 50, pipeline, requests))
				}
			}
			r, n, p := median(got[0]), median(got[1]), median(got[2])
			if l.mean != "" {
				means[l.mean] = append(means[l.mean], p.perSecond/r.perSecond)
			}
			last := ""
			for i, list := range got[ours:] {
				x := median(list)
				if x.perSecond == 0 {
					last += " – | – |"
					continue
				}
				last += fmt.Sprintf(" %.0f | %.2f |", x.perSecond, x.perSecond/r.perSecond)
				others[i][l.mean] = append(others[i][l.mean], x.perSecond/r.perSecond)
			}
			fmt.Printf("| %s | %d | %.0f | %.0f | %.2f | %.0f | %.2f | %.2f, %.2f, %.2f | %.1f, %.1f |%s\n", l.name, pipeline,
				r.perSecond, n.perSecond, n.perSecond/r.perSecond, p.perSecond, p.perSecond/r.perSecond, r.p99, n.p99, p.p99, r.cpu, p.cpu, last)
		}
		for _, of := range []string{"read", "write"} {
			last := ""
			for _, o := range others {
				last += " | " + geometric(o[of]) + " |"
			}
			fmt.Printf("| *geometric mean, %ss* | %d | | | | | %s | | |%s\n", of, pipeline, geometric(means[of]), last)
		}
	}
	begun := time.Now()
	bed.LevelVectors(10*time.Minute, first, second)
	fmt.Printf("\nThe peer was level %.1f s after the last write.\n\n", time.Since(begun).Seconds())

	fmt.Println("| command | connections | bytes | Redis | with a peer | ratio |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, shape := range []struct{ clients, size, requests int }{{1, 100, s.requests / 5}, {500, 100, s.requests}, {50, 10, s.requests}, {50, 1024, s.requests}, {50, 100 << 10, s.requests / 25}} {
		for _, c := range []string{"get", "set"} {
			l := load{name: c, args: []string{"-t", c, "-d", strconv.Itoa(shape.size)}}
			var r, p []result
			for range s.rounds {
				r = append(r, measure(b, targets[0], l, shape.clients, 1, shape.requests))
				p = append(p, measure(b, targets[2], l, shape.clients, 1, shape.requests))
			}
			x, y := median(r), median(p)
			fmt.Printf("| %s | %d | %d | %.0f | %.0f | %.2f |\n", strings.ToUpper(c), shape.clients, shape.size, x.perSecond, y.perSecond, y.perSecond/x.perSecond)
		}
	}
	fmt.Println()
	for _, n := range []*testbed.Node{alone, first, second} {
		n.Stop()
	}
	if proxy != nil {
		proxy.Kill()
	}
	for _, r := range []*testbed.Redis{replica, logged, direct} {
		r.Kill()
	}
}

// loggedRedis returns a Redis with a log, and its replica, which has one too.
func loggedRedis(bed *testbed.Bed) (r, replica *testbed.Redis) {
	r = bed.Redis(testbed.RedisOptions{Persist: true, Args: []string{"--repl-diskless-sync-delay", "0"}})
	replica = bed.Redis(testbed.RedisOptions{Persist: true, Args: []string{"--replicaof", "127.0.0.1", strconv.Itoa(r.Port)}})
	bed.Wait(time.Minute, "the replica to be level", func() (bool, string) {
		info, err := replica.Client(0).Info(context.Background(), "replication").Result()
		return strings.Contains(info, "master_link_status:up"), fmt.Sprint(info, err)
	})
	return r, replica
}

// geometric shows the geometric mean, a – for that of nothing.
func geometric(list []float64) string {
	if len(list) == 0 {
		return "–"
	}
	sum := 0.0
	for _, x := range list {
		sum += math.Log(x)
	}
	return fmt.Sprintf("%.2f", math.Exp(sum/float64(len(list))))
}

// result of one run: p99 in milliseconds, cpu in microseconds a request.
type result struct{ perSecond, p99, cpu float64 }

func median(list []result) result {
	slices.SortFunc(list, func(x, y result) int { return int(x.perSecond - y.perSecond) })
	return list[len(list)/2]
}

// measure returns the zero result where the target refuses the command.
func measure(b *bench, t target, l load, clients, pipeline, requests int) result {
	before := cpuTime(t.pid())
	var r result
	var err error
	if l.args == nil {
		r, requests, err = transactions(t.port, clients, pipeline, requests/7)
	} else {
		r, err = benchmark(t.port, l.args, clients, pipeline, requests)
	}
	if err != nil {
		if t.picky {
			return result{}
		}
		b.Fatalf("%s, %s: %v", t.name, l.name, err)
	}
	rest(b, t.nodes)
	r.cpu = float64((cpuTime(t.pid()) - before).Microseconds()) / float64(requests)
	return r
}

// restLimit is how long nodes may take to come to rest.
const restLimit = 2 * time.Minute

// rest waits until nodes have written back what has changed, and compute next to nothing.
func rest(b *bench, nodes []*testbed.Node) {
	const look = 200 * time.Millisecond
	for _, n := range nodes {
		for end, before := time.Now().Add(restLimit), cpuTime(n.PID()); ; {
			time.Sleep(look)
			now := cpuTime(n.PID())
			if n.Info()["log_redo_bytes"] == "0" && now-before <= look/10 {
				break
			}
			if before = now; time.Now().After(end) {
				b.Fatalf("%s has not come to rest: log_redo_bytes is %q", n.Addr(), n.Info()["log_redo_bytes"])
			}
		}
	}
}

// benchmarkLimit is how long one run of redis-benchmark may take.
const benchmarkLimit = 5 * time.Minute

// benchmark runs redis-benchmark.
func benchmark(port int, args []string, clients, pipeline, requests int) (r result, err error) {
	all := []string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-c", strconv.Itoa(clients), "-P", strconv.Itoa(pipeline),
		"-n", strconv.Itoa(requests), "-r", "100000", "-d", "100", "--csv"}
	var said bytes.Buffer
	// It does not end by itself when its server has gone.
	ctx, cancel := context.WithTimeout(context.Background(), benchmarkLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "redis-benchmark", append(all, args...)...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return r, fmt.Errorf("redis-benchmark has not ended after %v", benchmarkLimit)
	}
	if err != nil {
		return r, fmt.Errorf("redis-benchmark: %w\n%s%s", err, out, said.Bytes())
	}
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil || len(rows) < 2 {
		return r, fmt.Errorf("redis-benchmark printed %q", out)
	}
	for name, v := range map[string]*float64{"rps": &r.perSecond, "p99_latency_ms": &r.p99} {
		i := slices.Index(rows[0], name)
		if i < 0 || i >= len(rows[1]) {
			return r, fmt.Errorf("redis-benchmark has no column %q: %q", name, rows)
		}
		if *v, err = strconv.ParseFloat(rows[1][i], 64); err != nil {
			return r, fmt.Errorf("redis-benchmark: %w", err)
		}
	}
	return r, nil
}

// transactions sends MULTI, five writes and EXEC, as many transactions at once on
// each connection as the pipeline says, and returns how many it sent.
func transactions(port, clients, pipeline, requests int) (result, int, error) {
	each := max(requests/clients/pipeline, 1)
	took := make([][]time.Duration, clients)
	failed := make([]error, clients)
	var wg sync.WaitGroup
	begun := time.Now()
	for i := range clients {
		wg.Go(func() {
			took[i], failed[i] = transact(port, each, pipeline)
		})
	}
	wg.Wait()
	elapsed := time.Since(begun)
	if err := errors.Join(failed...); err != nil {
		return result{}, 0, fmt.Errorf("transactions: %w", err)
	}
	n := each * clients * pipeline
	return result{perSecond: float64(n) / elapsed.Seconds(), p99: p99(slices.Concat(took...))}, n, nil
}

// p99 returns what 99 % of times are below, in milliseconds.
func p99(took []time.Duration) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return float64(took[len(took)*99/100].Microseconds()) / 1000
}

func transact(port, rounds, pipeline int) (took []time.Duration, err error) {
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	in := bufio.NewScanner(conn)
	value := strings.Repeat("x", 100)
	for range rounds {
		var out bytes.Buffer
		for range pipeline {
			out.WriteString("*1\r\n$5\r\nMULTI\r\n")
			for range 5 {
				fmt.Fprintf(&out, "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$100\r\n%s\r\n", rand.IntN(100_000), value)
			}
			out.WriteString("*1\r\n$4\r\nEXEC\r\n")
		}
		begun := time.Now()
		const lines = 1 + 5 + 1 + 5 // OK, QUEUED, *5, OK
		if err := exchange(conn, in, out.Bytes(), pipeline*lines); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
}

// exchange sends commands and reads so many lines, of which none may be an error.
func exchange(conn net.Conn, in *bufio.Scanner, out []byte, lines int) error {
	if _, err := conn.Write(out); err != nil {
		return err
	}
	for range lines {
		if !in.Scan() {
			return errors.Join(errors.New("the connection ended"), in.Err())
		}
		if line := in.Bytes(); len(line) > 0 && line[0] == '-' {
			return fmt.Errorf("refused: %s", line)
		}
	}
	return nil
}

// cpuTime returns what a process has used of the processors; 0 where the system
// does not tell.
func cpuTime(pid int) time.Duration {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
