package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestPubSubThroughTrouble: a message reaches the subscribers of every node that
// is there, by each protocol. While a link is cut messages are lost, counted and
// hold up nobody; when it heals, new ones come, and data was never lost.
func TestPubSubThroughTrouble(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net, nodes := mesh(bed, 2)
	a, b := nodes[0], nodes[1]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var subs []*redis.PubSub
	for _, proto := range []int{2, 3} {
		c := redis.NewClient(&redis.Options{Addr: b.Addr(), Protocol: proto})
		t.Cleanup(func() { _ = c.Close() })
		for _, s := range []*redis.PubSub{c.Subscribe(ctx, "news"), c.PSubscribe(ctx, "ne?s"), c.SSubscribe(ctx, "shard")} {
			t.Cleanup(func() { _ = s.Close() })
			if _, err := s.Receive(ctx); err != nil {
				t.Fatal(err)
			}
			subs = append(subs, s)
		}
	}
	publish := func(payload string) {
		a.Do("PUBLISH", "news", payload)
		a.Do("SPUBLISH", "shard", payload)
	}
	receive := func(payload string) {
		t.Helper()
		for i, s := range subs {
			m, err := s.ReceiveMessage(ctx)
			for err == nil && m.Payload == "first" && payload != "first" {
				m, err = s.ReceiveMessage(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
			equal(t, fmt.Sprintf("message of subscriber %d", i), m.Payload, payload)
		}
	}
	// Nodes that have just met may change from one session to a better one, and
	// messages of that moment are lost.
	until(t, "the first message", func() bool {
		publish("first")
		m, err := subs[0].ReceiveTimeout(ctx, 100*time.Millisecond)
		_, ok := m.(*redis.Message)
		return err == nil && ok
	})
	time.Sleep(time.Second)
	for i := range 100 {
		publish(fmt.Sprint("before ", i))
	}
	for i := range 100 {
		receive(fmt.Sprint("before ", i))
	}

	net.Split(a, b)
	net.Sever(a, b)
	until(t, "the link is down", func() bool { return a.Replicas()[2]["state"] == "down" })
	begun := time.Now()
	for i := range 1000 {
		publish("lost" + strings.Repeat("x", i))
		a.Do("INCR", "count")
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("publishing into a cut link took %v", took)
	}
	if n, _ := strconv.Atoi(a.Replicas()[2]["messages_dropped"]); n < 2000 {
		t.Errorf("%d messages are counted as dropped, of 2000", n)
	}
	net.Heal()
	bed.Level(a, b)
	equal(t, "count", b.Int("GET", "count"), int64(1000))
	publish("after")
	receive("after")
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
