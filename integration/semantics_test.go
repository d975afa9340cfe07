package integration

import (
	"errors"
	"fmt"
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

// row is a row of docs/SEMANTICS.md as it happens on two nodes: both see what
// before did, then neither sees what the other does (the exchange is paused),
// then both see everything.
type row struct {
	name   string
	before []string
	left   []string
	right  []string // later than left by the clock
	want   []string // command = reply, at both nodes
	// mirror: also with left's and right's commands in the other order in
	// time, with the same outcome.
	mirror bool
}

// In commands and replies words are divided by blanks; K is a key of the row's
// own, and K2, K3 others. A reply that is a list is given in sorted order. (a..b) is
// a number within these bounds, null no value.
var rows = []row{
	// Strings.
	{name: "SET a ‖ SET b: the greater tag", before: []string{"SET K old"},
		left: []string{"SET K a"}, right: []string{"SET K b"}, want: []string{"GET K = b"}},
	{name: "SET ‖ SET of several keys: key by key",
		left: []string{"MSET K a K2 a"}, right: []string{"MSET K2 b K3 b"}, want: []string{"MGET K K2 K3 = a b b"}},
	{name: "SET ‖ DEL: the write survives", before: []string{"SET K old"}, mirror: true,
		left: []string{"SET K new"}, right: []string{"DEL K"}, want: []string{"GET K = new"}},
	{name: "SET of the same value ‖ DEL: the write survives", before: []string{"SET K same"}, mirror: true,
		left: []string{"SET K same"}, right: []string{"DEL K"}, want: []string{"GET K = same"}},
	{name: "SETNX ‖ SETNX: both succeed, then as SET ‖ SET",
		left: []string{"SETNX K a = 1"}, right: []string{"SETNX K b = 1"}, want: []string{"GET K = b", "SETNX K c = 0"}},
	{name: "SET NX GET ‖ SET NX: a lock taken twice",
		left: []string{"SET K a NX PX 60000 = OK"}, right: []string{"SET K b NX PX 60000 = OK"}, want: []string{"GET K = b", "SET K c NX = null"}},
	{name: "APPEND ‖ APPEND: whole value, as SET", before: []string{"SET K x"},
		left: []string{"APPEND K a = 2"}, right: []string{"APPEND K bc = 3"}, want: []string{"GET K = xbc"}},
	{name: "SETRANGE ‖ SETRANGE: whole value, as SET", before: []string{"SET K xxxx"},
		left: []string{"SETRANGE K 0 a"}, right: []string{"SETRANGE K 3 b"}, want: []string{"GET K = xxxb"}},
	{name: "SETBIT ‖ SETBIT: whole value, as SET",
		left: []string{"SETBIT K 0 1 = 0"}, right: []string{"SETBIT K 7 1 = 0"}, want: []string{"GETBIT K 0 = 0", "GETBIT K 7 = 1"}},
	{name: "BITFIELD ‖ BITFIELD: whole value, as SET",
		left: []string{"BITFIELD K SET u8 0 7 = 0"}, right: []string{"BITFIELD K SET u8 8 9 = 0"}, want: []string{"STRLEN K = 2", "BITPOS K 1 = 12"}},
	{name: "APPEND ‖ DEL: the write survives", before: []string{"SET K x"}, mirror: true,
		left: []string{"APPEND K y"}, right: []string{"DEL K"}, want: []string{"GET K = xy"}},
	{name: "GETDEL ‖ SET: the write survives", before: []string{"SET K x"}, mirror: true,
		left: []string{"GETDEL K = x"}, right: []string{"SET K y"}, want: []string{"GET K = y"}},
	{name: "DEL ‖ DEL", before: []string{"SET K x"}, mirror: true,
		left: []string{"DEL K = 1"}, right: []string{"UNLINK K = 1"}, want: []string{"EXISTS K = 0"}},

	// Counters.
	{name: "INCR +7 ‖ INCR +3: +10", before: []string{"SET K 100"}, mirror: true,
		left: []string{"INCRBY K 7 = 107"}, right: []string{"INCRBY K 3 = 103"}, want: []string{"GET K = 110"}},
	{name: "INCR ‖ INCR of nothing", mirror: true,
		left: []string{"INCRBY K 7", "DECR K = 6"}, right: []string{"INCRBY K 3"}, want: []string{"GET K = 9"}},
	{name: "INCRBYFLOAT ‖ INCRBYFLOAT, exact decimals", mirror: true,
		left: []string{"INCRBYFLOAT K 0.1 = 0.1"}, right: []string{"INCRBYFLOAT K 0.2 = 0.2"}, want: []string{"GET K = 0.3"}},
	{name: "INCR ‖ INCRBYFLOAT", before: []string{"INCRBY K 5"}, mirror: true,
		left: []string{"INCR K = 6"}, right: []string{"INCRBYFLOAT K 0.5 = 5.5"}, want: []string{"GET K = 6.5"}},
	{name: "SET 10 ‖ INCR: 11", before: []string{"INCRBY K 40"}, mirror: true,
		left: []string{"SET K 10"}, right: []string{"INCR K = 41"}, want: []string{"GET K = 11"}},
	{name: "SET 10 ‖ INCR of nothing: 11", mirror: true,
		left: []string{"SET K 10"}, right: []string{"INCR K = 1"}, want: []string{"GET K = 11"}},
	{name: `SET "abc" ‖ INCR: "abc"`, before: []string{"SET K 5"}, mirror: true,
		left: []string{"SET K abc"}, right: []string{"INCR K = 6"}, want: []string{"GET K = abc", "INCR K = ERR value is not an integer or out of range"}},
	{name: "SET abc, then 20 ‖ INCR: the increment that slept counts", before: []string{"SET K 5"}, mirror: true,
		left: []string{"SET K abc", "SET K 20"}, right: []string{"INCR K"}, want: []string{"GET K = 21"}},
	{name: "INCR ‖ DEL (value was 10): 1", before: []string{"SET K 10"}, mirror: true,
		left: []string{"INCR K = 11"}, right: []string{"DEL K"}, want: []string{"GET K = 1"}},
	{name: "INCR ‖ DEL (counted to 10): 1", before: []string{"INCRBY K 10"}, mirror: true,
		left: []string{"INCR K = 11"}, right: []string{"DEL K"}, want: []string{"GET K = 1"}},
	{name: "GETSET 0 ‖ INCR: nothing is lost", before: []string{"INCRBY K 10"}, mirror: true,
		left: []string{"GETSET K 0 = 10"}, right: []string{"INCR K = 11"}, want: []string{"GET K = 1"}},
	{name: "INCR, DEL, INCR ‖ INCR", before: []string{"INCRBY K 10"}, mirror: true,
		left: []string{"INCR K", "DEL K", "INCR K = 1"}, right: []string{"INCR K"}, want: []string{"GET K = 2"}},
	{name: "DEL ‖ DEL of a counter, then it counts from 0", before: []string{"INCRBY K 10"},
		left: []string{"DEL K"}, right: []string{"DEL K"}, want: []string{"EXISTS K = 0"}},
	{name: "HINCRBY ‖ HINCRBY", before: []string{"HSET K f 5"}, mirror: true,
		left: []string{"HINCRBY K f 7 = 12"}, right: []string{"HINCRBY K f -3 = 2"}, want: []string{"HGET K f = 9"}},
	{name: "HINCRBYFLOAT ‖ HINCRBY", mirror: true,
		left: []string{"HINCRBYFLOAT K f 1.5"}, right: []string{"HINCRBY K f 2"}, want: []string{"HGET K f = 3.5"}},
	{name: "HSET 10 ‖ HINCRBY: 11", before: []string{"HINCRBY K f 3"}, mirror: true,
		left: []string{"HSET K f 10"}, right: []string{"HINCRBY K f 1 = 4"}, want: []string{"HGET K f = 11"}},
	{name: "HINCRBY ‖ HDEL (value was 10): 1", before: []string{"HSET K f 10"}, mirror: true,
		left: []string{"HINCRBY K f 1 = 11"}, right: []string{"HDEL K f = 1"}, want: []string{"HGET K f = 1"}},
	{name: "HINCRBY ‖ DEL key: 1", before: []string{"HSET K f 10 g 10"}, mirror: true,
		left: []string{"HINCRBY K f 1 = 11"}, right: []string{"DEL K"}, want: []string{"HGETALL K = f 1"}},

	// Hashes and sets.
	{name: "HSET ‖ HSET of two fields",
		left: []string{"HSET K f a"}, right: []string{"HSET K g b"}, want: []string{"HGETALL K = f a g b"}},
	{name: "HSET ‖ HSET of one field: the greater tag",
		left: []string{"HSET K f a"}, right: []string{"HSET K f b"}, want: []string{"HGETALL K = f b"}},
	{name: "HSETNX ‖ HSETNX",
		left: []string{"HSETNX K f a = 1"}, right: []string{"HSETNX K f b = 1"}, want: []string{"HGET K f = b"}},
	{name: "HSET ‖ HDEL: the write survives", before: []string{"HSET K f old g x"}, mirror: true,
		left: []string{"HSET K f old = 0"}, right: []string{"HDEL K f g = 2"}, want: []string{"HGETALL K = f old"}},
	{name: "HSET ‖ DEL key: the write survives", before: []string{"HSET K f 1 g 2"}, mirror: true,
		left: []string{"HSET K g 3"}, right: []string{"DEL K"}, want: []string{"HGETALL K = g 3", "HLEN K = 1"}},
	{name: "SADD ‖ SADD: union", mirror: true,
		left: []string{"SADD K a c"}, right: []string{"SADD K b c"}, want: []string{"SMEMBERS K = a b c", "SCARD K = 3"}},
	{name: "SADD ‖ SREM: the write survives", before: []string{"SADD K x y"}, mirror: true,
		left: []string{"SADD K x = 0"}, right: []string{"SREM K x y = 2"}, want: []string{"SMEMBERS K = x"}},
	{name: "SREM ‖ SREM", before: []string{"SADD K x y"}, mirror: true,
		left: []string{"SREM K x = 1"}, right: []string{"SREM K x y = 2"}, want: []string{"EXISTS K = 0"}},
	{name: "SADD ‖ DEL key: the write survives", before: []string{"SADD K x y"}, mirror: true,
		left: []string{"SADD K z"}, right: []string{"DEL K"}, want: []string{"SMEMBERS K = z"}},
	{name: "SPOP ‖ SPOP of one member: both may get it", before: []string{"SADD K x"}, mirror: true,
		left: []string{"SPOP K = x"}, right: []string{"SPOP K = x"}, want: []string{"EXISTS K = 0"}},
	{name: "SPOP ‖ SADD: the write survives", before: []string{"SADD K x"}, mirror: true,
		left: []string{"SPOP K 5 = x"}, right: []string{"SADD K x = 0"}, want: []string{"SMEMBERS K = x"}},
	{name: "SMOVE ‖ SADD: unseen writes stay at the source", before: []string{"SADD K x"}, mirror: true,
		left: []string{"SMOVE K K2 x = 1"}, right: []string{"SADD K x y"}, want: []string{"SMEMBERS K = x y", "SMEMBERS K2 = x"}},
	{name: "SINTERSTORE ‖ SADD: puts of what was seen", before: []string{"SADD K x y", "SADD K2 x y"}, mirror: true,
		left: []string{"SINTERSTORE K3 K K2 = 2"}, right: []string{"SREM K x", "SADD K2 z"}, want: []string{"SMEMBERS K3 = x y", "SMEMBERS K2 = x y z", "SMEMBERS K = y"}},

	// Keys.
	{name: "RENAME ‖ SADD: unseen writes stay at the source", before: []string{"SADD K x"}, mirror: true,
		left: []string{"RENAME K K2 = OK"}, right: []string{"SADD K y"}, want: []string{"SMEMBERS K = y", "SMEMBERS K2 = x"}},
	{name: "RENAME ‖ INCR: the unseen increment stays at the source", before: []string{"INCRBY K 10"}, mirror: true,
		left: []string{"RENAME K K2"}, right: []string{"INCR K"}, want: []string{"GET K = 1", "GET K2 = 10"}},
	{name: "RENAME ‖ SET of the target: the greater tag", before: []string{"SET K x"},
		left: []string{"RENAME K K2"}, right: []string{"SET K2 y"}, want: []string{"EXISTS K = 0", "GET K2 = y"}},
	{name: "COPY ‖ HSET: what was seen", before: []string{"HSET K f 1"}, mirror: true,
		left: []string{"COPY K K2 = 1"}, right: []string{"HSET K f 2 g 3"}, want: []string{"HGETALL K = f 2 g 3", "HGETALL K2 = f 1"}},
	{name: "COPY REPLACE ‖ HSET of the target: the unseen field survives", before: []string{"HSET K f 1", "HSET K2 old 1"}, mirror: true,
		left: []string{"COPY K K2 REPLACE = 1"}, right: []string{"HSET K2 g 3"}, want: []string{"HGETALL K2 = f 1 g 3"}},
	{name: "MOVE ‖ SET: unseen writes stay at the source", before: []string{"SET K x"}, mirror: true,
		left: []string{"MOVE K 1 = 1"}, right: []string{"SET K y"}, want: []string{"GET K = y"}},

	// Sorted sets.
	{name: "ZADD ‖ ZADD: the greater tag",
		left: []string{"ZADD K 1.5 m = 1"}, right: []string{"ZADD K 2.5 m = 1"}, want: []string{"ZSCORE K m = 2.5"}},
	{name: "ZADD ‖ ZINCRBY: the new score plus the increment", before: []string{"ZADD K 1 m"}, mirror: true,
		left: []string{"ZADD K 5 m = 0"}, right: []string{"ZINCRBY K 2.5 m = 3.5"}, want: []string{"ZSCORE K m = 7.5"}},
	{name: "ZINCRBY ‖ ZADD INCR: both count, in decimals", mirror: true,
		left: []string{"ZINCRBY K 0.1 m = 0.10000000000000001"}, right: []string{"ZADD K INCR 0.2 m = 0.20000000000000001"}, want: []string{"ZINCRBY K 0 m = 0.29999999999999999"}},
	{name: "ZREM (score 4.5) ‖ ZINCRBY 2: 2", before: []string{"ZADD K 4.5 m"}, mirror: true,
		left: []string{"ZREM K m = 1"}, right: []string{"ZINCRBY K 2 m = 6.5"}, want: []string{"ZSCORE K m = 2"}},
	{name: "ZADD ‖ DEL: the write survives", before: []string{"ZADD K 1 m 2 n"}, mirror: true,
		left: []string{"ZADD K CH 1 m = 0"}, right: []string{"DEL K = 1"}, want: []string{"ZRANGE K 0 -1 WITHSCORES = m 1"}},
	{name: "ZPOPMIN ‖ BZPOPMIN: both get it, it is gone once", before: []string{"ZADD K 1 m 2 n 3 o"}, mirror: true,
		left: []string{"ZPOPMIN K = m 1"}, right: []string{"BZPOPMIN K 0 = K m 1"}, want: []string{"ZRANGE K 0 -1 = n o"}},
	{name: "ZREMRANGEBYSCORE ‖ ZADD", before: []string{"ZADD K 1 m 2 n"}, mirror: true,
		left: []string{"ZREMRANGEBYSCORE K -inf 5 = 2"}, right: []string{"ZADD K 3 o 2 n"}, want: []string{"ZRANGE K 0 -1 = n o"}},
	{name: "ZUNIONSTORE ‖ ZADD to a source and to the destination", before: []string{"ZADD K 1 m", "ZADD K2 2 m", "ZADD K3 9 x"}, mirror: true,
		left: []string{"ZUNIONSTORE K3 2 K K2 = 1"}, right: []string{"ZADD K 5 m", "ZADD K3 7 y"}, want: []string{"ZRANGE K3 0 -1 WITHSCORES = m 3 y 7", "ZSCORE K m = 5"}},
	{name: "GEOSEARCHSTORE ‖ ZREM", before: []string{"GEOADD K 13.361389 38.115556 p 15.087269 37.502669 c"}, mirror: true,
		left: []string{"GEOSEARCHSTORE K2 K FROMMEMBER p BYRADIUS 200 KM = 2"}, right: []string{"ZREM K c"}, want: []string{"ZRANGE K2 0 -1 = c p", "ZRANGE K 0 -1 = p"}},

	// Expiry.
	{name: "EXPIRE 10 ‖ EXPIRE 50: 50", before: []string{"SET K x"}, mirror: true,
		left: []string{"EXPIRE K 1000 = 1"}, right: []string{"EXPIRE K 5000 = 1"}, want: []string{"TTL K = (4000..5000)"}},
	{name: "EXPIRE ‖ PERSIST: never", before: []string{"SET K x EX 500"}, mirror: true,
		left: []string{"EXPIRE K 1000 = 1"}, right: []string{"PERSIST K = 1"}, want: []string{"TTL K = -1"}},
	{name: "EXPIRE ‖ SET: the new value, with the unseen expiry", before: []string{"SET K x"}, mirror: true,
		left: []string{"EXPIRE K 1000 = 1"}, right: []string{"SET K y"}, want: []string{"GET K = y", "TTL K = (900..1000)"}},
	{name: "EXPIRE ‖ SET KEEPTTL", before: []string{"SET K x EX 100"}, mirror: true,
		left: []string{"EXPIRE K 1000 = 1"}, right: []string{"SET K y KEEPTTL"}, want: []string{"GET K = y", "TTL K = (900..1000)"}},
	{name: "SET (removes the expiry) ‖ nothing", before: []string{"SET K x EX 100"},
		left: []string{"SET K y"}, want: []string{"GET K = y", "TTL K = -1"}},
	{name: "EXPIRE ‖ DEL: an expiry alone is no key", before: []string{"SET K x"}, mirror: true,
		left: []string{"EXPIRE K 1000 = 1"}, right: []string{"DEL K"}, want: []string{"EXISTS K = 0", "TTL K = -2"}},
	{name: "EXPIRE ‖ DEL, then SADD: the next write starts without it", before: []string{"SADD K x"}, mirror: true,
		left: []string{"EXPIRE K 1000 = 1"}, right: []string{"DEL K", "SADD K y"}, want: []string{"SMEMBERS K = y", "TTL K = (900..1000)"}},
	{name: "EXPIRE in the past is a DEL ‖ SADD", before: []string{"SADD K x"}, mirror: true,
		left: []string{"EXPIRE K -1 = 1"}, right: []string{"SADD K y"}, want: []string{"SMEMBERS K = y", "TTL K = -1"}},
	{name: "GETEX PERSIST ‖ PEXPIRE: never", before: []string{"SET K x EX 100"}, mirror: true,
		left: []string{"GETEX K PERSIST = x"}, right: []string{"PEXPIRE K 900000"}, want: []string{"TTL K = -1"}},
	{name: "EXPIRE ‖ HSET: the field and the expiry", before: []string{"HSET K f 1"}, mirror: true,
		left: []string{"EXPIRE K 1000"}, right: []string{"HSET K g 2"}, want: []string{"HGETALL K = f 1 g 2", "TTL K = (900..1000)"}},
	{name: "SETEX ‖ SETEX: the later value, the latest expiry",
		left: []string{"SETEX K 5000 a"}, right: []string{"SETEX K 1000 b"}, want: []string{"GET K = b", "TTL K = (4000..5000)"}},

	// Two types under one key.
	{name: "SET k ‖ SADD k: the type with the greatest live tag",
		left: []string{"SET K v"}, right: []string{"SADD K m"}, want: []string{"TYPE K = set", "SMEMBERS K = m", "GET K = WRONGTYPE Operation against a key holding the wrong kind of value"}},
	{name: "SADD k ‖ SET k",
		left: []string{"SADD K m"}, right: []string{"SET K v"}, want: []string{"TYPE K = string", "GET K = v"}},
	{name: "HSET k ‖ SADD k ‖ DEL: both were unseen, the later shows", before: []string{"SET K v"},
		left: []string{"DEL K", "HSET K f 1"}, right: []string{"DEL K", "SADD K m"}, want: []string{"TYPE K = set"}},
	{name: "HSET k ‖ INCR k",
		left: []string{"HSET K f 1"}, right: []string{"INCRBY K 5 = 5"}, want: []string{"GET K = 5"}},
}

// after a two-type conflict: the next write to the key removes what it saw of
// both, and deleting it leaves nothing.
func TestSemanticsTwoTypesNextWrite(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	conflict := func(k string) {
		bed.Level(a, b)
		a.Pause()
		b.Pause()
		a.Do("SET", k, "v")
		time.Sleep(5 * time.Millisecond)
		b.Do("SADD", k, "m")
		a.Resume()
		b.Resume()
		bed.Level(a, b)
		equal(t, "type", a.Do("TYPE", k), any("set"))
	}
	conflict("k1")
	a.Do("SADD", "k1", "n")
	a.Do("SREM", "k1", "m", "n")
	bed.Level(a, b)
	equal(t, "k1 after SADD and SREM of both members", b.Do("EXISTS", "k1"), any(int64(0)))
	conflict("k2")
	b.Do("DEL", "k2")
	bed.Level(a, b)
	equal(t, "k2 after DEL", a.Do("EXISTS", "k2"), any(int64(0)))
	conflict("k3")
	a.Do("SET", "k3", "w")
	bed.Level(a, b)
	equal(t, "k3 after SET", b.Do("GET", "k3"), any("w"))
	if d := fmt.Sprint(b.Do("DESC", "k3")); strings.Contains(d, "member") {
		t.Errorf("the set is still there after a SET that has seen it: %s", d)
	}
	bed.Rebuilt(a)
	bed.Level(a, b)
}

// TestSemanticsUncovered: of two types, the other is uncovered if the visible one is
// deleted by someone who had not seen the other; and of two values likewise.
func TestSemanticsUncovered(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net := bed.Network()
	var nodes []*testbed.Node
	for id := 1; id <= 3; id++ {
		nodes = append(nodes, bed.Node(testbed.Options{ID: id, Network: net, Meet: nodes}))
	}
	a, b, c := nodes[0], nodes[1], nodes[2]
	bed.Level(nodes...)
	a.Pause()
	a.Do("SET", "two", "v")
	a.Do("SET", "siblings", "a")
	time.Sleep(5 * time.Millisecond)
	b.Do("SADD", "two", "m")
	b.Do("SET", "siblings", "b")
	bed.Level(b, c)
	c.Pause() // has seen what b wrote, and not what a wrote
	c.Do("DEL", "two")
	c.Do("DEL", "siblings")
	a.Resume()
	bed.Level(a, b)
	equal(t, "the visible type, before the delete arrives", a.Do("TYPE", "two"), any("set"))
	equal(t, "the visible value, before the delete arrives", a.Do("GET", "siblings"), any("b"))
	if d := fmt.Sprint(a.Do("DESC", "siblings")); !strings.Contains(d, "sibling") {
		t.Errorf("DESC does not show the sibling: %s", d)
	}
	c.Resume()
	bed.Level(nodes...)
	for _, n := range nodes {
		equal(t, "the other type, uncovered", n.Do("GET", "two"), any("v"))
		equal(t, "the other value, uncovered", n.Do("GET", "siblings"), any("a"))
	}
	bed.Rebuilt(b)
}

// TestSemantics runs every row on real nodes, with each kind of view; all rows
// at once, since the exchange is paused for all.
func TestSemantics(t *testing.T) {
	for _, view := range []string{"spawn", "embedded"} {
		t.Run(view, func(t *testing.T) {
			t.Parallel()
			testSemantics(t, view)
		})
	}
}

func testSemantics(t *testing.T, view string) {
	bed := testbed.New(t)
	a := bed.Node(testbed.Options{ID: 1, View: view})
	b := bed.Node(testbed.Options{ID: 2, View: view, Meet: []*testbed.Node{a}})
	var list []row
	for _, r := range rows {
		list = append(list, r)
		if r.mirror {
			r.left, r.right, r.name = r.right, r.left, r.name+" (the other way round)"
			list = append(list, r)
		}
	}
	key := func(i int, command string) string {
		words := strings.Split(command, " ")
		for j, w := range words {
			if w == "K" || w == "K2" || w == "K3" {
				words[j] = fmt.Sprintf("row%d:%s", i, w)
			}
		}
		return strings.Join(words, " ")
	}
	failed := map[int]bool{}
	run := func(n *testbed.Node, i int, command string) {
		command, want, checked := strings.Cut(key(i, command), " = ")
		var args []any
		for _, w := range strings.Split(command, " ") {
			args = append(args, w)
		}
		v, err := n.Try(args...)
		got := text(v)
		if err != nil {
			got = err.Error()
		}
		if checked && !matches(got, want) || !checked && err != nil {
			failed[i] = true
			t.Errorf("%s: node %d: %s: got %q, want %q", list[i].name, n.ID, command, got, want)
		}
	}
	for i, r := range list {
		for _, c := range r.before {
			run(a, i, c)
		}
	}
	bed.Level(a, b)
	a.Pause()
	b.Pause()
	for i, r := range list {
		for _, c := range r.left {
			run(a, i, c)
		}
	}
	time.Sleep(5 * time.Millisecond) // right is later by the clock
	for i, r := range list {
		for _, c := range r.right {
			run(b, i, c)
		}
	}
	a.Resume()
	b.Resume()
	bed.Level(a, b)
	bed.Rebuilt(b)
	bed.Level(a, b)
	for i, r := range list {
		if len(r.want) == 0 {
			t.Errorf("%s: nothing is checked", r.name)
		}
		for _, n := range []*testbed.Node{a, b} {
			for _, c := range r.want {
				run(n, i, c)
			}
		}
		if failed[i] {
			k := fmt.Sprintf("row%d:K", i)
			t.Logf("%s: DESC: %v", r.name, a.Do("DESC", k))
		}
	}
	bed.Level(a, b)
}

// text writes a reply as rows have it.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, text(x))
		}
		slices.Sort(parts)
		return strings.Join(parts, " ")
	}
	return fmt.Sprint(v)
}

func matches(got, want string) bool {
	var low, high, n int64
	if c, _ := fmt.Sscanf(want, "(%d..%d)", &low, &high); c == 2 {
		c, _ = fmt.Sscan(got, &n)
		return c == 1 && n >= low && n <= high
	}
	words := strings.Split(want, " ")
	if !strings.HasPrefix(want, "ERR ") && !strings.HasPrefix(want, "WRONGTYPE ") {
		slices.Sort(words)
	}
	return got == strings.Join(words, " ")
}

// TestSemanticsFlushAll: FLUSHALL and FLUSHDB remove what was seen, in every
// database; unseen writes survive (pitfall 23).
func TestSemanticsFlushAllPitfall23(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"FLUSHALL", "FLUSHDB"} {
		t.Run(command, func(t *testing.T) {
			bed := testbed.New(t)
			a, b := pair(bed)
			other := a.NewClient(3)
			a.Do("MSET", "k1", "v", "k2", "v", "n", "10")
			a.Do("SADD", "s", "x", "y")
			a.Do("HSET", "h", "f", "1", "g", "2")
			a.Do("INCRBY", "counted", "10")
			equal(t, "SET in database 3", other.Set(t.Context(), "k", "v", 0).Err(), nil)
			bed.Level(a, b)
			a.Pause()
			b.Pause()
			a.Do(command)
			equal(t, "DBSIZE after it", a.Do("DBSIZE"), any(int64(0)))
			a.Do("SET", "k2", "after")
			b.Do("SET", "k1", "unseen")
			b.Do("SADD", "s", "x", "z")
			b.Do("HINCRBY", "h", "f", "5")
			b.Do("INCR", "counted")
			b.Do("INCR", "n")
			a.Resume()
			b.Resume()
			bed.Level(a, b)
			for _, n := range []*testbed.Node{a, b} {
				equal(t, "k1", n.Do("GET", "k1"), any("unseen"))
				equal(t, "k2", n.Do("GET", "k2"), any("after"))
				equal(t, "s", text(n.Do("SMEMBERS", "s")), "x z")
				equal(t, "h", text(n.Do("HGETALL", "h")), "5 f")
				equal(t, "counted", n.Do("GET", "counted"), any("1"))
				equal(t, "n", n.Do("GET", "n"), any("1"))
				got := n.NewClient(3).Exists(t.Context(), "k").Val()
				equal(t, "k in database 3", got, map[string]int64{"FLUSHALL": 0, "FLUSHDB": 1}[command])
			}
			// FLUSHALL of both: nothing is left, and nothing comes back.
			a.Do(command)
			b.Do(command)
			bed.Level(a, b)
			equal(t, "DBSIZE", b.Do("DBSIZE"), any(int64(0)))
			bed.Rebuilt(b)
			bed.Level(a, b)
		})
	}
}

// TestFlushAllAgainstLoadPitfall23: FLUSHALL while both sides write; afterwards they
// are equal.
func TestFlushAllAgainstLoadPitfall23(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	var writers sync.WaitGroup
	stop := make(chan struct{})
	for _, n := range []*testbed.Node{a, b} {
		c := n.NewClient(0)
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				pipe := c.Pipeline()
				k := fmt.Sprint("k", i%50)
				pipe.Set(t.Context(), "s"+k, i, 0)
				pipe.SAdd(t.Context(), "m"+k, i%7)
				pipe.HIncrBy(t.Context(), "h"+k, "f", 1)
				pipe.Incr(t.Context(), "n"+k)
				if _, err := pipe.Exec(t.Context()); err != nil {
					t.Errorf("node %d: %v", n.ID, err)
					return
				}
			}
		})
	}
	for i := range 20 {
		time.Sleep(20 * time.Millisecond)
		[]*testbed.Node{a, b}[i%2].Do("FLUSHALL", []string{"SYNC", "ASYNC"}[i/2%2])
	}
	close(stop)
	writers.Wait()
	bed.Level(a, b)
	bed.Rebuilt(a)
	bed.Level(a, b)
}

// TestFlushInSteps: an asynchronous flush of many keys serves others meanwhile, at its node and at
// the other, and when it answers nothing is left of what was there, nor of what was written
// meanwhile; other databases are as they were.
func TestFlushInSteps(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	const keys = 50_000
	fill := func(db int) {
		c := a.NewClient(db)
		for i := 0; i < keys; i += 1000 {
			pipe := c.Pipeline()
			for k := i; k < i+1000; k++ {
				pipe.Set(t.Context(), fmt.Sprint("key", k), k, 0)
			}
			if _, err := pipe.Exec(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(0)
	fill(1)
	bed.Level(a, b)
	c := a.NewClient(1)
	answered := make(chan error, 1)
	go func() { answered <- c.FlushDBAsync(t.Context()).Err() }()
	served, during := 0, 0 // keys written meanwhile; and those the flush was not over after
	for busy := true; busy; {
		select {
		case err := <-answered:
			if err != nil {
				t.Error(err)
			}
			busy = false
		default:
			key := fmt.Sprint("key", served)
			if err := c.Set(t.Context(), key, "meanwhile", 0).Err(); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Get(t.Context(), key).Result(); err != nil && !errors.Is(err, redis.Nil) || err == nil && got != "meanwhile" {
				t.Fatalf("%s is %q, %v", key, got, err)
			}
			served++
			size, err := c.DBSize(t.Context()).Result()
			if err != nil {
				t.Fatal(err)
			}
			if size > int64(served) {
				during = served // there are keys left of those it was to remove
			}
		}
	}
	if during == 0 {
		t.Errorf("no other client was served meanwhile")
	}
	bed.Level(a, b)
	for _, n := range []*testbed.Node{a, b} {
		left, err := n.NewClient(1).Keys(t.Context(), "*").Result()
		if err != nil {
			t.Error(err)
		}
		for _, key := range left {
			if i, err := strconv.Atoi(strings.TrimPrefix(key, "key")); err != nil || i < during || i >= served {
				t.Errorf("node %d: %s is left; of %d written meanwhile the flush was not over after %d", n.ID, key, served, during)
			}
		}
		equal(t, "keys of the other database", n.Int("DBSIZE"), int64(keys))
	}
	// It goes on when who asked for it does not wait.
	fill(1)
	gone, err := net.Dial("tcp", a.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Write([]byte("SELECT 1\r\nFLUSHDB ASYNC\r\n")); err != nil {
		t.Fatal(err)
	}
	bed.Wait(10*time.Second, "the flush to begin", func() (bool, string) {
		n, err := c.DBSize(t.Context()).Result()
		return n < keys, fmt.Sprint(n, err)
	})
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	bed.Wait(30*time.Second, "the flush to end", func() (bool, string) {
		n, err := c.DBSize(t.Context()).Result()
		return n == 0 && err == nil, fmt.Sprint(n, err)
	})
	// In a transaction it is one step.
	fill(1)
	pipe := c.TxPipeline()
	pipe.FlushDBAsync(t.Context())
	left := pipe.DBSize(t.Context())
	if _, err := pipe.Exec(t.Context()); err != nil || left.Val() != 0 {
		t.Errorf("%d keys are left, %v", left.Val(), err)
	}
	bed.Level(a, b)
	bed.Rebuilt(a)
	bed.Level(a, b)
}

// TestSwapDBAgainstLoadPitfall23: SWAPDB at both nodes while both write to the two
// databases; afterwards they are equal, and what was acknowledged is in one of the
// databases at least, whole.
func TestSwapDBAgainstLoadPitfall23(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	var writers sync.WaitGroup
	stop := make(chan struct{})
	written := [2]int{}
	for w, n := range []*testbed.Node{a, b} {
		dbs := [2]*redis.Client{n.NewClient(0), n.NewClient(1)}
		writers.Go(func() {
			for i := 0; i < 2000; i++ {
				select {
				case <-stop:
					return
				default:
				}
				c, k := dbs[i%2], fmt.Sprintf("own:%d:%d", w, i)
				pipe := c.TxPipeline()
				pipe.HSet(t.Context(), k, "a", i, "b", i)
				pipe.ZAdd(t.Context(), "z"+k, redis.Z{Score: float64(i), Member: "x"}, redis.Z{Score: float64(i) + 1, Member: "y"})
				pipe.Set(t.Context(), fmt.Sprint("shared", i%20), k, time.Hour)
				pipe.Incr(t.Context(), fmt.Sprint("n", i%20))
				if _, err := pipe.Exec(t.Context()); err != nil {
					t.Errorf("node %d: %v", n.ID, err)
					return
				}
				written[w] = i + 1
				time.Sleep(time.Millisecond)
			}
		})
	}
	for i := range 20 {
		time.Sleep(20 * time.Millisecond)
		[]*testbed.Node{a, b}[i%2].Do("SWAPDB", 0, 1)
	}
	close(stop)
	writers.Wait()
	bed.Level(a, b)
	if written[0] == 0 || written[1] == 0 {
		t.Fatalf("written: %v", written)
	}
	dbs := [2]*redis.Client{b.NewClient(0), b.NewClient(1)}
	for w := range written {
		for i := range written[w] {
			k := fmt.Sprintf("own:%d:%d", w, i)
			var found []string
			for _, c := range dbs {
				if h := c.HGetAll(t.Context(), k).Val(); len(h) > 0 {
					found = append(found, fmt.Sprint(h, c.ZRangeWithScores(t.Context(), "z"+k, 0, -1).Val()))
				}
			}
			want := fmt.Sprintf("map[a:%d b:%d] [{%d x} {%d y}]", i, i, i, i+1)
			if len(found) == 0 || slices.ContainsFunc(found, func(f string) bool { return f != want }) {
				t.Errorf("%s is %q, want %s", k, found, want)
			}
		}
	}
	bed.Rebuilt(a)
	bed.Level(a, b)
}

// TestExpiryPitfall24: a key expires at the same moment on both sides, by the
// tag's clock; races of EXPIRE, PERSIST and SET end equal; a key that has expired
// and is written again starts anew.
func TestExpiryPitfall24(t *testing.T) {
	t.Parallel()
	for _, view := range []string{"spawn", "embedded"} {
		t.Run(view, func(t *testing.T) {
			bed := testbed.New(t)
			a := bed.Node(testbed.Options{ID: 1, View: view})
			b := bed.Node(testbed.Options{ID: 2, View: view, Meet: []*testbed.Node{a}})
			a.Do("SET", "gone", "v", "PX", "700")
			a.Do("INCRBY", "count", "10")
			a.Do("PEXPIRE", "count", "700")
			a.Do("SADD", "set", "x")
			a.Do("PEXPIRE", "set", "700")
			a.Do("SET", "extended", "v", "PX", "700")
			a.Do("SET", "kept", "v", "PX", "700")
			bed.Level(a, b)
			equal(t, "PEXPIRETIME at both", b.Do("PEXPIRETIME", "gone"), a.Do("PEXPIRETIME", "gone"))
			b.Do("PEXPIRE", "extended", "60000")
			b.Do("PERSIST", "kept")
			bed.Wait(10*time.Second, "keys to expire at b", func() (bool, string) {
				v := b.Do("EXISTS", "gone", "count", "set")
				return v == int64(0), fmt.Sprint(v)
			})
			equal(t, "keys that expired at b, at a", a.Do("EXISTS", "gone", "count", "set"), any(int64(0)))
			equal(t, "the extended and the kept key", a.Do("EXISTS", "extended", "kept"), any(int64(2)))
			equal(t, "INCR of an expired counter", a.Do("INCR", "count"), any(int64(1)))
			equal(t, "SADD to an expired set", a.Do("SADD", "set", "y"), any(int64(1)))
			bed.Level(a, b)
			equal(t, "the counter at b", b.Do("GET", "count"), any("1"))
			equal(t, "its TTL at b", b.Do("TTL", "count"), any(int64(-1)))
			equal(t, "the set at b", text(b.Do("SMEMBERS", "set")), "y")
			// An expired key that one side extends while the other is apart and
			// lets it expire: it is there again.
			a.Do("SET", "apart", "v", "PX", "500")
			bed.Level(a, b)
			b.Pause()
			b.Do("PERSIST", "apart")
			bed.Wait(10*time.Second, "the key to expire at a", func() (bool, string) { return a.Do("EXISTS", "apart") == int64(0), "" })
			b.Resume()
			bed.Level(a, b)
			equal(t, "the key that b had made lasting, at a", a.Do("GET", "apart"), any("v"))
			bed.Rebuilt(a)
			bed.Level(a, b)
		})
	}
}

// TestExpiryRacesPitfall24: EXPIRE, PERSIST, SET and DEL of a few keys on both
// sides at once, for a while; then they are equal.
func TestExpiryRacesPitfall24(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	var writers sync.WaitGroup
	for _, n := range []*testbed.Node{a, b} {
		c := n.NewClient(0)
		writers.Go(func() {
			for i := range 1500 {
				k := fmt.Sprint("k", i%20)
				var err error
				switch (i*7 + n.ID) % 6 {
				case 0:
					err = c.Set(t.Context(), k, i, 0).Err()
				case 1:
					err = c.Set(t.Context(), k, i, time.Duration(i%30+1)*time.Millisecond).Err()
				case 2:
					err = c.PExpire(t.Context(), k, time.Duration(i%50+1)*time.Millisecond).Err()
				case 3:
					err = c.Persist(t.Context(), k).Err()
				case 4:
					err = c.Del(t.Context(), k).Err()
				default:
					err = c.PExpire(t.Context(), k, time.Minute).Err()
				}
				if err != nil {
					t.Errorf("node %d: %v", n.ID, err)
					return
				}
			}
		})
	}
	writers.Wait()
	bed.Level(a, b)
	bed.Rebuilt(a)
	bed.Level(a, b)
}
