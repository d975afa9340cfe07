package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestPipelinesAnswerAsRedisDoesPitfall19: the same deep pipelines of reads, writes,
// session commands and errors, sent to a plain Redis and to a node: every reply
// is the same, byte for byte, and in its place.
func TestPipelinesAnswerAsRedisDoesPitfall19(t *testing.T) {
	for _, view := range []string{"spawn", "own"} {
		t.Run(view, func(t *testing.T) {
			t.Parallel()
			bed := testbed.New(t)
			if view == "own" {
				view = bed.Redis(testbed.RedisOptions{Socket: true}).Address()
			}
			n := bed.Node(testbed.Options{ID: 1, View: view})
			plain := bed.Redis(testbed.RedisOptions{})
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			rnd := rand.New(rand.NewPCG(seed, 1))
			var pipeline []string
			for range 3000 {
				pipeline = append(pipeline, randomCommand(rnd))
			}
			pipeline = append(pipeline, "SET last v") // so that there is something, if all was flushed just before
			got := sendPipeline(t, n.Dial(), pipeline)
			redis, err := net.Dial("tcp", plain.Address())
			if err != nil {
				t.Fatal(err)
			}
			defer redis.Close()
			want := sendPipeline(t, redis, pipeline)
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("seed %d, command %d of %d, %q: the node replies %q, Redis %q", seed, i, len(pipeline), pipeline[i], got[i], want[i])
				}
			}
			data, err := testbed.Dataset(plain.Client)
			if err != nil {
				t.Fatal(err)
			}
			if d := testbed.DiffData(withoutExpiry(n.Dataset()), withoutExpiry(data)); len(d) > 0 {
				t.Fatalf("seed %d: the node's data against Redis's: %s", seed, strings.Join(d, "\n"))
			}
			if len(data) == 0 {
				t.Fatal("nothing was compared")
			}
		})
	}
}

// withoutExpiry drops the moment of expiry, which differs by when the pipeline ran,
// but not whether there is one.
func withoutExpiry(data map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range data {
		value, expiry, _ := strings.Cut(v, " expires ")
		out[k] = fmt.Sprint(value, expiry == "-1")
	}
	return out
}

// randomCommand returns a command whose reply depends on nothing but the
// commands before it.
func randomCommand(r *rand.Rand) string {
	k := func() string { return fmt.Sprint("k", r.IntN(12)) }
	i := func() string { return fmt.Sprint(r.IntN(7) - 3) }
	f := func() string { return fmt.Sprint("f", r.IntN(4)) }
	commands := []func() string{
		func() string { return "SET " + k() + " " + i() },
		func() string { return "SET " + k() + " text NX GET" },
		func() string { return "SET " + k() + " 5 XX EX 1000" },
		func() string { return "GET " + k() },
		func() string { return "GETRANGE " + k() + " 0 " + i() },
		func() string { return "INCR " + k() },
		func() string { return "INCRBY " + k() + " " + i() },
		func() string { return "INCRBYFLOAT " + k() + " 0.5" },
		func() string { return "APPEND " + k() + " x" },
		func() string { return "SETRANGE " + k() + " 3 yy" },
		func() string { return "SETBIT " + k() + " 9 1" },
		func() string { return "STRLEN " + k() },
		func() string { return "MSET " + k() + " 1 " + k() + " 2" },
		func() string { return "MGET " + k() + " " + k() },
		func() string { return "DEL " + k() + " " + k() },
		func() string { return "EXISTS " + k() + " " + k() },
		func() string { return "TYPE " + k() },
		func() string { return "EXPIRE " + k() + " 1000" },
		func() string { return "TTL " + k() },
		func() string { return "PERSIST " + k() },
		func() string { return "RENAME " + k() + " " + k() },
		func() string { return "COPY " + k() + " " + k() + " REPLACE" },
		func() string { return "HSET " + k() + " " + f() + " " + i() },
		func() string { return "HGET " + k() + " " + f() },
		func() string { return "HDEL " + k() + " " + f() },
		func() string { return "HINCRBY " + k() + " " + f() + " 2" },
		func() string { return "HLEN " + k() },
		func() string { return "SADD " + k() + " " + i() + " " + f() },
		func() string { return "SREM " + k() + " " + i() },
		func() string { return "SCARD " + k() },
		func() string { return "SISMEMBER " + k() + " " + i() },
		func() string { return "SMOVE " + k() + " " + k() + " " + i() },
		func() string { return "SINTERSTORE " + k() + " " + k() + " " + k() },
		func() string { return "GETDEL " + k() },
		func() string { return "DBSIZE" },
		func() string { return "PING" },
		func() string { return "ECHO " + i() },
		func() string { return "SELECT " + fmt.Sprint(r.IntN(2)) },
		func() string { return "SELECT 99" },
		func() string { return "NOSUCH " + k() },
		func() string { return "GET" },
		func() string { return "SET " + k() + " v EX 0" },
		func() string { return "OBJECT ENCODING nosuch" },
	}
	if r.IntN(400) == 0 {
		return "FLUSHALL"
	}
	return commands[r.IntN(len(commands))]()
}

// sendPipeline sends commands in one go and returns the raw replies.
func sendPipeline(t *testing.T, c net.Conn, pipeline []string) []string {
	t.Helper()
	go func() {
		var b bytes.Buffer
		for _, command := range pipeline {
			writeCommand(&b, strings.Split(command, " ")...)
		}
		_, _ = c.Write(b.Bytes())
	}()
	_ = c.SetReadDeadline(time.Now().Add(60 * time.Second))
	r := bufio.NewReader(c)
	var out []string
	for range pipeline {
		reply, err := readReply(r)
		if err != nil {
			t.Fatalf("after %d of %d replies: %v", len(out), len(pipeline), err)
		}
		out = append(out, reply)
	}
	return out
}

func writeCommand(b *bytes.Buffer, args ...string) {
	fmt.Fprintf(b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(b, "$%d\r\n%s\r\n", len(a), a)
	}
}

// readReply reads one raw reply of RESP2.
func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch {
	case line[0] == '$' && n >= 0:
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		return line + string(b), nil
	case line[0] == '*':
		for range n {
			part, err := readReply(r)
			if err != nil {
				return "", err
			}
			line += part
		}
	}
	return line, nil
}

// TestReadYourWritesAcrossConnections: what one connection was told is written,
// every other finds, at once, under load.
func TestReadYourWritesAcrossConnections(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	writer, reader := a.NewClient(0), a.NewClient(0)
	ctx := t.Context()
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		noise := b.NewClient(0)
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					noise.Incr(ctx, "noise")
				}
			}
		})
	}
	for i := range 1500 {
		k := fmt.Sprint("k", i%10)
		if err := writer.Set(ctx, k, i, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := reader.Get(ctx, k).Int(); err != nil || got != i {
			t.Fatalf("%s: another connection reads %d, %v after %d was written", k, got, err, i)
		}
		if err := writer.SAdd(ctx, "s", i).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := reader.SCard(ctx, "s").Result(); err != nil || got != int64(i+1) {
			t.Fatalf("another connection finds %d members, %v after %d were added", got, err, i+1)
		}
	}
	close(stop)
	load.Wait()
	bed.Level(a, b)
}

// TestReadYourWritesInPipelines: within a pipeline each read finds the writes
// before it and none after it.
func TestReadYourWritesInPipelines(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1})
	var clients sync.WaitGroup
	for c := range 8 {
		client := n.NewClient(0)
		clients.Go(func() {
			ctx := context.Background()
			for round := range 20 {
				pipe := client.Pipeline()
				var gets []*redis.StringCmd
				for i := range 200 {
					pipe.Set(ctx, fmt.Sprint("k", c), round*1000+i, 0)
					gets = append(gets, pipe.Get(ctx, fmt.Sprint("k", c)))
				}
				if _, err := pipe.Exec(ctx); err != nil {
					t.Errorf("client %d: %v", c, err)
					return
				}
				for i, g := range gets {
					if v, _ := g.Int(); v != round*1000+i {
						t.Errorf("client %d: GET behind SET %d found %d", c, round*1000+i, v)
						return
					}
				}
			}
		})
	}
	clients.Wait()
}

// TestTransactionsCutMidwayPitfall20: a connection that ends within pipelined
// transactions has carried out each of them or not, and the node goes on.
func TestTransactionsCutMidwayPitfall20(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1})
	for cut := range 40 {
		var b bytes.Buffer
		for range 100 {
			writeCommand(&b, "MULTI")
			writeCommand(&b, "INCR", "cut")
			writeCommand(&b, "INCR", "as well")
			writeCommand(&b, "EXEC")
		}
		c := n.Dial()
		_, _ = c.Write(b.Bytes()[:b.Len()*cut/40])
		_ = c.Close()
	}
	equal(t, "PING", n.CLI("ping"), "PONG")
	got := fmt.Sprint(n.Do("MGET", "cut", "as well"))
	if one, two, _ := strings.Cut(strings.Trim(got, "[]"), " "); one != two || n.Int("GET", "cut") > 40*100 {
		t.Errorf("4000 increments were sent for each, %s were made", got)
	}
}

// TestPipelineKeepsOrderAcrossTheWay: what one connection writes in order, another
// node never shows out of order.
func TestPipelineKeepsOrderOnTheFarSide(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	ctx := t.Context()
	done := make(chan struct{})
	var writer sync.WaitGroup
	client := a.NewClient(0)
	writer.Go(func() {
		defer close(done)
		for i := 0; i < 4000; i += 50 {
			pipe := client.Pipeline()
			for j := i; j < i+50; j++ {
				pipe.Set(ctx, "first", j, 0)
				pipe.Set(ctx, "second", j, 0)
			}
			if _, err := pipe.Exec(ctx); err != nil {
				t.Errorf("%v", err)
			}
		}
	})
	var seen []int
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		v, err := b.Try("MGET", "second", "first")
		if err != nil {
			t.Fatal(err)
		}
		second, first := 0, 0
		_, _ = fmt.Sscan(text(v.([]any)[0]), &second)
		_, _ = fmt.Sscan(text(v.([]any)[1]), &first)
		if first < second {
			t.Fatalf("the far side shows second = %d before first = %d, though first was written first", second, first)
		}
		seen = append(seen, first)
	}
	writer.Wait()
	if !slices.IsSorted(seen) {
		t.Error("the far side went back in time")
	}
	bed.Level(a, b)
}
