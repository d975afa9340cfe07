package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// Fields expire at every node at once, whatever is behind it: a Redis that knows
// of that itself, one that does not, or none.
func TestFieldExpiry(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	r := bed.Redis(testbed.RedisOptions{Version8: true})
	ctx := context.Background()
	behind := r.Client(0)
	hour := time.Now().Add(time.Hour).UnixMilli()
	for _, args := range [][]any{
		{"HSET", "adopted", "a", "1", "", "2", "lasting", "3"},
		{"HPEXPIREAT", "adopted", hour, "FIELDS", 2, "a", ""},
	} {
		if err := behind.Do(ctx, args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	scrub := []string{"--set", "view.scrub=repair", "--set", "view.scrub_interval=200ms"}
	a := bed.Node(testbed.Options{ID: 1, View: r.Address(), Args: append(append([]string{"--adopt"}, scrub...), quick...)})
	b := bed.Node(testbed.Options{ID: 2, View: "spawn", Args: quick, Meet: []*testbed.Node{a}})
	c := bed.Node(testbed.Options{ID: 3, View: "embedded", Args: quick, Meet: []*testbed.Node{a}})
	all := []*testbed.Node{a, b, c}
	bed.Level(all...)
	at := fmt.Sprint(hour)
	everywhere := func(what, want string, args ...any) {
		t.Helper()
		for _, n := range all {
			equal(t, fmt.Sprintf("%s, at node %d", what, n.ID), fmt.Sprint(n.Do(args...)), want)
		}
	}
	everywhere("adopted expiries", "["+at+" "+at+" -1]", "HPEXPIRETIME", "adopted", "FIELDS", 3, "a", "", "lasting")

	// What expires goes from every view, with its key if it is the last.
	changes := tellOf(t, b)
	c.Do("HSET", "h", "soon", "1", "later", "2", "lasting", "3")
	c.Do("HSETEX", "gone", "PX", "1500", "FIELDS", "2", "x", "1", "y", "2")
	c.Do("PEXPIRE", "gone", "3600000")
	b.Do("HSET", "extended", "f", "5")
	bed.Level(all...)
	b.Do("HPEXPIRE", "h", "1500", "FIELDS", "1", "soon")
	c.Do("HPEXPIREAT", "h", at, "FIELDS", "1", "later")
	short := time.Now().Add(8 * time.Second)
	a.Do("HPEXPIREAT", "extended", short.UnixMilli(), "FIELDS", "1", "f")
	bed.Level(all...)
	equal(t, "the Redis of node 1", fmt.Sprint(behind.Do(ctx, "HPEXPIRETIME", "h", "FIELDS", 2, "later", "lasting").Val()), "["+at+" -1]")
	equal(t, "a longer life", fmt.Sprint(b.Do("HPEXPIREAT", "extended", at, "FIELDS", "1", "f")), "[1]")
	bed.Level(all...)
	for _, n := range all {
		bed.Wait(30*time.Second, fmt.Sprintf("fields to expire at node %d", n.ID), func() (bool, string) {
			v := fmt.Sprint(n.Do("HGETALL", "h"), n.Do("EXISTS", "gone"), n.Do("HLEN", "h"))
			return v == fmt.Sprint(n.Do("HGETALL", "h"), int64(0), int64(2)) && !strings.Contains(v, "soon"), v
		})
	}
	time.Sleep(time.Until(short.Add(time.Second)))
	everywhere("the extended field", "5", "HGET", "extended", "f")
	everywhere("what has expired", "[-2 "+at+" -1]", "HPEXPIRETIME", "h", "FIELDS", 3, "soon", "later", "lasting")
	bed.Wait(30*time.Second, "events of what expired", func() (bool, string) {
		s := changes()
		return strings.Contains(s, "hexpired h") && strings.Contains(s, "hexpired gone") && strings.Contains(s, "del gone") && strings.Contains(s, "hexpire h"), s
	})
	// A write to what has expired begins anew, everywhere.
	equal(t, "HINCRBY of an expired field", a.Do("HINCRBY", "h", "soon", "7"), any(int64(7)))
	equal(t, "HSET of an expired hash", b.Do("HSET", "gone", "x", "new"), any(int64(1)))
	bed.Level(all...)
	everywhere("the field made anew", "[-1]", "HTTL", "h", "FIELDS", 1, "soon")
	everywhere("the hash made anew", "-1", "TTL", "gone")

	// Values in serialised form: where the Redis behind can.
	dump := a.Do("DUMP", "adopted")
	if _, err := b.Try("DUMP", "adopted"); err == nil || !strings.Contains(err.Error(), "7.4") {
		t.Errorf("DUMP at a node before a Redis 7.0: %v", err)
	}
	equal(t, "RESTORE", a.Do("RESTORE", "restored", "0", dump), any("OK"))
	bed.Level(all...)
	everywhere("restored expiries", "["+at+" "+at+" -1]", "HPEXPIRETIME", "restored", "FIELDS", 3, "a", "", "lasting")

	// Views that come anew, and nodes.
	r.Kill()
	r.Start()
	bed.Wait(60*time.Second, "the Redis of node 1 to be filled anew", func() (bool, string) {
		v := fmt.Sprint(behind.Do(ctx, "HPEXPIRETIME", "adopted", "FIELDS", 3, "a", "", "lasting").Val())
		return v == "["+at+" "+at+" -1]", v
	})
	a.Ready()
	d := bed.Node(testbed.Options{ID: 4, View: "spawn", Args: append([]string{"--set", "redis_binary=" + bed.Redis8()}, quick...), Meet: []*testbed.Node{b}})
	all = append(all, d)
	bed.Level(all...)
	everywhere("after a state sync", "["+at+" "+at+" -1]", "HPEXPIRETIME", "adopted", "FIELDS", 3, "a", "", "lasting")
	bed.Rebuilt(b)
	bed.Rebuilt(d)

	// Who changes an expiry in the Redis behind a node is found.
	if err := behind.Do(ctx, "HPERSIST", "adopted", "FIELDS", 1, "a").Err(); err != nil {
		t.Fatal(err)
	}
	bed.Wait(60*time.Second, "the change to be put right", func() (bool, string) {
		v := fmt.Sprint(behind.Do(ctx, "HPEXPIRETIME", "adopted", "FIELDS", 1, "a").Val())
		n, _ := strconv.Atoi(a.Info()["view_scrub_repaired"])
		return v == "["+at+"]" && n > 0, v
	})
	bed.Level(all...)
}

// tellOf subscribes to a node's events, and returns what lists them.
func tellOf(t *testing.T, n *testbed.Node) func() string {
	t.Helper()
	n.Do("CONFIG", "SET", "notify-keyspace-events", "EA")
	sub := n.NewClient(0).PSubscribe(t.Context(), "__keyevent@0__:*")
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	var list []string
	ch := sub.Channel()
	t.Cleanup(func() { _ = sub.Close() })
	return func() string {
		for {
			select {
			case m := <-ch:
				list = append(list, strings.TrimPrefix(m.Channel, "__keyevent@0__:")+" "+m.Payload)
			default:
				return strings.Join(list, "\n")
			}
		}
	}
}

// TestFieldExpiryRaces: fields of a few hashes are set, and made to expire and to
// last, on all sides at once, before all kinds of views.
func TestFieldExpiryRaces(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	r := bed.Redis(testbed.RedisOptions{Version8: true})
	a := bed.Node(testbed.Options{ID: 1, View: r.Address(), Args: quick})
	b := bed.Node(testbed.Options{ID: 2, View: "spawn", Args: quick, Meet: []*testbed.Node{a}})
	c := bed.Node(testbed.Options{ID: 3, View: "embedded", Args: quick, Meet: []*testbed.Node{a}})
	l := newLoad(bed)
	l.start(2, a, b, c)
	time.Sleep(5 * time.Second)
	l.stop()
	bed.Level(a, b, c)
	for _, n := range []*testbed.Node{a, b, c} {
		l.check(n)
	}
	r.Kill()
	r.Start()
	a.Ready()
	bed.Level(a, b, c)
	bed.Rebuilt(b)
	bed.Rebuilt(c)
	bed.Level(a, b, c)
}

// TestExpiredFieldUncovers: the newest write decides the type that a key shows. When that was to a field
// which expires, a string that was set elsewhere meanwhile may be newer than the fields that stay.
func TestExpiredFieldUncovers(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	a.Pause()
	a.Do("HSET", "k", "stays", "1")
	time.Sleep(10 * time.Millisecond)
	b.Do("SET", "k", "covered")
	time.Sleep(10 * time.Millisecond)
	a.Do("HSETEX", "k", "PX", 8000, "FIELDS", 1, "goes", "2")
	a.Resume()
	bed.LevelVectors(20*time.Second, a, b)
	for _, n := range []*testbed.Node{a, b} {
		equal(t, "fields before", n.Int("HLEN", "k"), int64(2))
	}
	for _, n := range []*testbed.Node{a, b} {
		bed.Wait(20*time.Second, "the field to expire", func() (bool, string) {
			kind := fmt.Sprint(n.Do("TYPE", "k"))
			return kind == "string", kind
		})
		equal(t, "k", n.Do("GET", "k"), any("covered"))
	}
	bed.Level(a, b)
	bed.Rebuilt(a)
}
