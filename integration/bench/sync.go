package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// syncs measures what it costs to bring a node level that cannot be served
// from a log: a new member, beside a new replica of a Redis with the same data,
// and a member that was away while a hundredth of the keys changed.
func syncs(b *bench, bed *testbed.Bed, keys int, fsync string) {
	source := bed.Redis(testbed.RedisOptions{Args: []string{"--repl-diskless-sync-delay", "0"}})
	put(b, source.Client(0), keys, func(int) bool { return true }, 0)
	replica := bed.Redis(testbed.RedisOptions{})
	begun := time.Now()
	if err := replica.Client(0).Do(context.Background(), "REPLICAOF", "127.0.0.1", source.Port).Err(); err != nil {
		b.Fatalf("REPLICAOF: %v", err)
	}
	for {
		n, err := replica.Client(0).DBSize(context.Background()).Result()
		if err == nil && n == int64(keys) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	redisTook := time.Since(begun)
	replica.Kill()
	source.Kill()

	args := []string{"--fsync", fsync, "--set", "log_retention_bytes=1mb", "--set", "wan.heartbeat=200ms"}
	a := bed.Node(testbed.Options{ID: 1, Args: args})
	put(b, a.Client(), keys, func(int) bool { return true }, 0)
	settled(a.Dir)
	c := bed.Node(testbed.Options{ID: 2, Args: args})
	bytes := received(b, a, 2)
	bed.MaxPause = 5 * time.Millisecond // as above
	defer func() { bed.MaxPause = 0 }()
	begun = time.Now()
	c.Meet(a)
	bed.LevelVectors(20*time.Minute, a, c)
	full := time.Since(begun)
	fullBytes := received(b, a, 2) - bytes

	settled(c.Dir)
	c.Stop()
	// Enough that the log cannot serve it: 16 MB are kept in any case.
	put(b, a.Client(), keys, func(i int) bool { return i%100 == 17 }, 1)
	for i := range 40 {
		a.Do("SET", "large", fmt.Sprint(i, random(1<<20)))
	}
	a.Do("DEL", "large")
	bed.Wait(time.Minute, "the log to be trimmed", func() (bool, string) {
		s := a.Info()["log_bytes"]
		size, err := strconv.Atoi(s)
		return err == nil && size < 20<<20, s
	})
	settled(a.Dir)
	a.Pause()
	c.Start()
	bed.Wait(time.Minute, "the link to be up", func() (bool, string) { s := a.Replicas()[2]["state"]; return s == "online", s })
	bytes = received(b, a, 2)
	begun = time.Now()
	a.Resume()
	bed.LevelVectors(20*time.Minute, a, c)
	back := time.Since(begun)
	backBytes := received(b, a, 2) - bytes
	bed.SameData(a, c)

	fmt.Printf("%d keys with 100 bytes of JSON each.\n\n", keys)
	fmt.Println("| | time | bytes sent | of a full sync |")
	fmt.Println("|---|---|---|---|")
	fmt.Printf("| a new replica of a Redis with the same data | %.2f s | | |\n", redisTook.Seconds())
	fmt.Printf("| a new member, from MEET until it has everything | %.2f s (%.1f of Redis's) | %d | |\n", full.Seconds(), full.Seconds()/redisTook.Seconds(), fullBytes)
	fmt.Printf("| a member that comes back when 1 %% of the keys have changed and the log no longer has it | %.2f s | %d | %.1f %% of the time, %.2f %% of the bytes |\n\n",
		back.Seconds(), backBytes, 100*back.Seconds()/full.Seconds(), 100*float64(backBytes)/float64(fullBytes))
	a.Stop()
	c.Stop()
}

// put sets those keys that which chooses, to values of the given round.
func put(b *bench, c *redis.Client, keys int, which func(int) bool, round uint64) {
	const step = 5000
	ctx := context.Background()
	for from := 0; from < keys; from += step {
		pipe := c.Pipeline()
		for i := from; i < min(from+step, keys); i++ {
			if which(i) {
				pipe.Set(ctx, fmt.Sprintf("key:%012d", i), document(uint64(i), round), 0)
			}
		}
		if _, err := pipe.Exec(ctx); err != nil {
			b.Fatalf("filling: %v", err)
		}
	}
}

// document returns 100 bytes of JSON, of which a third are not to be foreseen.
func document(i, round uint64) string {
	r := rand.New(rand.NewPCG(i, round))
	doc, _ := json.Marshal(map[string]any{"id": i, "name": fmt.Sprintf("%016x", r.Uint64()), "score": r.IntN(1_000_000), "active": i%2 == 0})
	return fmt.Sprintf("%-100s", doc)[:100]
}

func random(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + rand.IntN(26))
	}
	return string(b)
}

// received returns how many bytes a node has sent to a member.
func received(b *bench, n *testbed.Node, to int) int64 {
	s := n.Replicas()[to]["bytes_out"]
	if s == "" {
		return 0
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		b.Fatalf("bytes_out %q: %v", s, err)
	}
	return v
}
