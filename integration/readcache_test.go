package integration

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestKeptRepliesAreExact: replies that the node keeps are never older than
// what anybody knows to be written, go never back, and end with their keys.
func TestKeptRepliesAreExact(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	ctx := t.Context()
	type register struct{ begun, answered atomic.Int64 }
	const keys = 5
	var regs [keys]register
	write := func(c *redis.Client, k int, v int64) error {
		name := fmt.Sprint("k", k)
		switch k {
		case 0:
			return c.HSet(ctx, name, "f", v).Err()
		case 1:
			return c.ZAdd(ctx, name, redis.Z{Score: float64(v), Member: "m"}).Err()
		case 2:
			_, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.Del(ctx, name)
				p.Set(ctx, name, v, 0)
				return nil
			})
			return err
		case 3:
			return c.Eval(ctx, "return redis.call('SET', KEYS[1], ARGV[1])", []string{name}, v).Err()
		}
		return c.Set(ctx, name, v, time.Hour).Err()
	}
	read := func(c *redis.Client, k int) (int64, error) {
		name := fmt.Sprint("k", k)
		switch k {
		case 0:
			return c.HGet(ctx, name, "f").Int64()
		case 1:
			f, err := c.ZScore(ctx, name, "m").Result()
			return int64(f), err
		}
		return c.Get(ctx, name).Int64()
	}
	for k := range keys {
		if err := write(a.Client(), k, 0); err != nil {
			t.Fatal(err)
		}
	}
	bed.Level(a, b)
	const rounds = 1000
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for k := range keys {
		c := a.NewClient(0)
		writers.Go(func() {
			for v := int64(1); v <= rounds; v++ {
				regs[k].begun.Store(v)
				if err := write(c, k, v); err != nil {
					t.Errorf("k%d: %v", k, err)
					return
				}
				regs[k].answered.Store(v)
				if v%4 == 0 {
					time.Sleep(time.Millisecond) // so that something is read twice
				}
			}
		})
	}
	for _, n := range []*testbed.Node{a, a, a, b} {
		c := n.NewClient(0)
		readers.Go(func() {
			var last [keys]int64
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				k := i % keys
				least := regs[k].answered.Load()
				if n == b {
					least = 0
				}
				least = max(least, last[k])
				v, err := read(c, k)
				if most := regs[k].begun.Load(); err != nil || v < least || v > most {
					t.Errorf("k%d reads %d, %v: it must be from %d to %d", k, v, err, least, most)
					return
				}
				last[k] = v
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	bed.Level(a, b)
	for range 2 { // the second is kept
		for k := range keys {
			if v, err := read(b.Client(), k); err != nil || v != rounds {
				t.Errorf("k%d is %d, %v at the other node", k, v, err)
			}
		}
	}

	// What ends: by its time, with its database, with a key of another type.
	end := time.Now().Add(300 * time.Millisecond)
	if err := a.Client().Set(ctx, "short", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := a.Client().PExpireAt(ctx, "short", end).Err(); err != nil {
		t.Fatal(err)
	}
	for {
		before := time.Now()
		err := a.Client().Get(ctx, "short").Err()
		if errors.Is(err, redis.Nil) {
			break
		}
		if err != nil || before.After(end) {
			t.Fatalf("read %v after its expiry: %v", before.Sub(end), err)
		}
	}
	for k := range keys {
		if _, err := read(a.Client(), k); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Client().FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		if v, err := read(a.Client(), k); !errors.Is(err, redis.Nil) {
			t.Errorf("k%d is %d, %v after FLUSHALL", k, v, err)
		}
	}
	for _, n := range []*testbed.Node{a, b} {
		if hits, _ := strconv.Atoi(n.Info()["view_read_cache_hits"]); hits < 100 {
			t.Errorf("%d replies of a node were kept ones: nothing was tried", hits)
		}
	}
}

// TestReadsOfAPipelineAreInOrder: of what is written to one key after the other no read
// sees less than a read before it in its pipeline, be their replies kept or not.
func TestReadsOfAPipelineAreInOrder(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a := bed.Node(testbed.Options{ID: 1})
	ctx := t.Context()
	const rounds, groups = 3000, 4
	key := func(of string, group int) string { return fmt.Sprint(of, group) }
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	for group := range groups {
		c := a.NewClient(0)
		if err := c.MSet(ctx, key("first", group), 0, key("second", group), 0).Err(); err != nil {
			t.Fatal(err)
		}
		writers.Go(func() {
			for v := 1; v <= rounds; v++ {
				_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
					p.Set(ctx, key("first", group), v, 0)
					p.Set(ctx, key("second", group), v, 0)
					return nil
				})
				if err == nil { // what is kept of the second alone is void
					err = c.Set(ctx, key("second", group), v, 0).Err()
				}
				if err != nil {
					t.Error(err)
					return
				}
				if v%4 == 0 {
					time.Sleep(time.Millisecond) // so that something is read twice
				}
			}
		})
	}
	for range 3 {
		c := a.NewClient(0)
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var got [2 * groups]*redis.StringCmd
				if _, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
					for group := range groups {
						got[2*group] = p.Get(ctx, key("second", group))
						got[2*group+1] = p.Get(ctx, key("first", group))
					}
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
				for group := range groups {
					second, _ := got[2*group].Int()
					if first, err := got[2*group+1].Int(); err != nil || first < second {
						t.Errorf("first is %d, %v, where second was %d before", first, err, second)
						return
					}
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}
