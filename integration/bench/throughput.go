package main

import (
	"bufio"
	"bytes"
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
	{"SET", []string{"-t", "set"}, "write"},
	{"GET", []string{"-t", "get"}, "read"}, // of what SET has written
	{"INCR", []string{"-t", "incr"}, "write"},
	{"HSET", []string{"-t", "hset"}, "write"},
	{"SADD", []string{"-t", "sadd"}, "write"},
	{"LPUSH", []string{"-t", "lpush"}, "write"},
	{"ZADD", []string{"-t", "zadd"}, "write"},
	{"SPOP", []string{"-t", "spop"}, ""},
	{"RPOP", []string{"-t", "rpop"}, ""},
	{"ZPOPMIN", []string{"-t", "zpopmin"}, ""},
	{"XADD", []string{"XADD", "stream", "*", "field", "__rand_int__"}, ""},
	{"EVAL", []string{"EVAL", "return redis.call('INCR', KEYS[1])", "1", "counter:__rand_int__"}, ""},
	{"SADD of 100", hundred, ""},
	{"MULTI of 5", nil, ""},
}

// target is what is measured, and the process whose time counts.
type target struct {
	name string
	port int
	pid  func() int
}

// throughput measures requests a second: of a Redis alone, of a node, and of a
// node that a second one hears from, in turn.
func throughput(b *bench, bed *testbed.Bed, s sizes, fsync string) {
	direct := bed.Redis(testbed.RedisOptions{})
	args := []string{"--fsync", fsync}
	alone, first, second := bed.Node(testbed.Options{ID: 1, Args: args}), bed.Node(testbed.Options{ID: 1, Args: args}), bed.Node(testbed.Options{ID: 2, Args: args})
	second.Meet(first)
	targets := []target{{"Redis", direct.Port, direct.PID}, {"node", alone.Port, alone.PID}, {"node with a peer", first.Port, first.PID}}
	fmt.Printf("Requests a second with 50 connections, values of 100 bytes, 100,000 keys; the median of %d runs of %d requests (×4 with pipelines of 16).\n", s.rounds, s.requests)
	fmt.Println("The ratios are to Redis alone. CPU is what the process itself takes for a request: Redis; the node without its Redis, with a peer.")
	fmt.Println()
	fmt.Println("| command | pipeline | Redis | node | ratio | with a peer | ratio | p99 Redis, node, with a peer (ms) | CPU Redis, node (µs) |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	for _, pipeline := range []int{1, 16} {
		requests := s.requests
		if pipeline > 1 {
			requests *= 4
		}
		means := map[string][]float64{}
		for _, l := range loads {
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
			fmt.Printf("| %s | %d | %.0f | %.0f | %.2f | %.0f | %.2f | %.2f, %.2f, %.2f | %.1f, %.1f |\n", l.name, pipeline,
				r.perSecond, n.perSecond, n.perSecond/r.perSecond, p.perSecond, p.perSecond/r.perSecond, r.p99, n.p99, p.p99, r.cpu, p.cpu)
		}
		for _, of := range []string{"read", "write"} {
			fmt.Printf("| *geometric mean, %ss* | %d | | | | | %.2f | | |\n", of, pipeline, geometric(means[of]))
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
	direct.Kill()
}

func geometric(list []float64) float64 {
	sum := 0.0
	for _, x := range list {
		sum += math.Log(x)
	}
	return math.Exp(sum / float64(max(len(list), 1)))
}

// result of one run: p99 in milliseconds, cpu in microseconds a request.
type result struct{ perSecond, p99, cpu float64 }

func median(list []result) result {
	slices.SortFunc(list, func(x, y result) int { return int(x.perSecond - y.perSecond) })
	return list[len(list)/2]
}

func measure(b *bench, t target, l load, clients, pipeline, requests int) result {
	before := cpuTime(t.pid())
	var r result
	if l.args == nil {
		r, requests = transactions(b, t.port, clients, pipeline, requests/7)
	} else {
		r = benchmark(b, t.port, l.args, clients, pipeline, requests)
	}
	r.cpu = float64((cpuTime(t.pid()) - before).Microseconds()) / float64(requests)
	return r
}

// benchmark runs redis-benchmark.
func benchmark(b *bench, port int, args []string, clients, pipeline, requests int) result {
	all := []string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-c", strconv.Itoa(clients), "-P", strconv.Itoa(pipeline),
		"-n", strconv.Itoa(requests), "-r", "100000", "-d", "100", "--csv"}
	out, err := exec.Command("redis-benchmark", append(all, args...)...).Output()
	if err != nil {
		b.Fatalf("redis-benchmark: %v\n%s", err, out)
	}
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil || len(rows) < 2 {
		b.Fatalf("redis-benchmark printed %q", out)
	}
	column := func(name string) float64 {
		i := slices.Index(rows[0], name)
		if i < 0 {
			b.Fatalf("redis-benchmark has no column %q: %q", name, rows[0])
		}
		v, err := strconv.ParseFloat(rows[1][i], 64)
		if err != nil {
			b.Fatalf("redis-benchmark: %v", err)
		}
		return v
	}
	return result{perSecond: column("rps"), p99: column("p99_latency_ms")}
}

// transactions sends MULTI, five writes and EXEC, as many transactions at once on
// each connection as the pipeline says, and returns how many it sent.
func transactions(b *bench, port, clients, pipeline, requests int) (result, int) {
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
	for _, err := range failed {
		if err != nil {
			b.Fatalf("transactions: %v", err)
		}
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	n := each * clients * pipeline
	return result{perSecond: float64(n) / elapsed.Seconds(), p99: float64(all[len(all)*99/100].Microseconds()) / 1000}, n
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
		if _, err := conn.Write(out.Bytes()); err != nil {
			return nil, err
		}
		const lines = 1 + 5 + 1 + 5 // OK, QUEUED, *5, OK
		for range pipeline * lines {
			if !in.Scan() {
				return nil, errors.Join(errors.New("the connection ended"), in.Err())
			}
			if strings.HasPrefix(in.Text(), "-") {
				return nil, fmt.Errorf("refused: %s", in.Text())
			}
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
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
