package node

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// sentView keeps what a core sends, and answers nothing.
type sentView struct {
	keep bool
	cmds []string
}

func (v *sentView) Send(b *Batch) {
	if !v.keep {
		return
	}
	for _, c := range b.Cmds {
		words := make([]string, len(c.Args))
		for i, a := range c.Args {
			words[i] = string(a)
		}
		v.cmds = append(v.cmds, strings.Join(words, " "))
	}
}
func (*sentView) Ask(int, ...[]byte) ([]byte, error) { return nil, fmt.Errorf("nobody is there") }
func (*sentView) Flush()                             {}

// newBareCore returns a core on a real directory, with a view that is up.
func newBareCore(tb testing.TB, wall func() time.Time, view View) *Core {
	tb.Helper()
	return newBareCoreOn(tb, vfs.Default, wall, view)
}

// newBareCoreOn is newBareCore on a file system.
func newBareCoreOn(tb testing.TB, fs vfs.FS, wall func() time.Time, view View) *Core {
	tb.Helper()
	log, err := oplog.Open(oplog.Options{Dir: tb.TempDir(), Node: 1, FS: fs})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := log.Close(); err != nil {
			tb.Error(err)
		}
	})
	clock, err := crdt.NewClock(1, log.TagFloor(), time.Hour)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := NewCore(CoreOptions{Log: log, Clock: clock, Wall: wall, Rand: rand.New(rand.NewPCG(1, 2)), View: view})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := c.ViewUp(); err != nil {
		tb.Fatal(err)
	}
	return c
}

// A peer's entry may bring the hybrid time past the expiry of a key, of one that
// was there or that came with it: the commands behind it in the group do not
// find the key, and neither does the view.
func TestKeysExpireWithinAGroup(t *testing.T) {
	view := &sentView{keep: true}
	now := time.Now()
	c := newBareCore(t, func() time.Time { return now }, view)
	do := func(words ...string) string {
		q := request(nil, words...)
		c.Do(q)
		return string(q.Out)
	}
	do("SET", "here", "v", "PX", "1000")
	if err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	do("HSETEX", "hash", "PX", "1000", "FIELDS", "1", "f", "v")
	do("HSET", "hash", "lasting", "v")
	do("HSETEX", "passed", "PX", "1000", "FIELDS", "1", "f", "v")
	do("EXPIRE", "passed", "1000")
	if err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	g := c.log.Begin()
	store := &crdt.Keyspace{Store: g}
	w := crdt.NewWriter(store, crdt.NewStream(2, 1, 0), crdt.TagAt(now.UnixMilli(), 2), now.UnixMilli())
	w.SetString(crdt.Key{Name: "came"}, []byte("v"), false)
	w.SetExpiry(crdt.Key{Name: "came"}, now.UnixMilli()+500)
	w.SetField(crdt.Key{Name: "camehash"}, "f", []byte("v"), false)
	w.SetFieldExpiry(crdt.Key{Name: "camehash"}, "f", now.UnixMilli()+500)
	entries := w.Entries()
	g.Discard()
	e := entries[0]
	later := crdt.Entry{Stream: e.Stream, Prev: e.Tag, Tag: crdt.TagAt(now.UnixMilli()+60_000, 2), Ctx: e.Ctx}
	c.Apply([]crdt.Entry{e, later}, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	for _, k := range []string{"here", "came"} {
		if got := do("PERSIST", k); got != ":0\r\n" {
			t.Errorf("PERSIST %s: %q", k, got)
		}
	}
	for words, want := range map[string]string{
		"HPERSIST hash FIELDS 1 f": "*1\r\n:-2\r\n", "HPERSIST camehash FIELDS 1 f": "*1\r\n:-2\r\n", "PERSIST camehash": ":0\r\n",
		"PERSIST passed": ":0\r\n", "HPERSIST hash FIELDS 1 lasting": "*1\r\n:-1\r\n",
	} {
		if got := do(strings.Fields(words)...); got != want {
			t.Errorf("%s: %q", words, got)
		}
	}
	view.cmds = nil
	if err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(view.cmds, "; "); got != "DEL came; HDEL hash f; DEL passed here" {
		t.Errorf("the view was sent %q", got)
	}
}

// BenchmarkCore measures commands in groups of 800, as 50 clients with pipelines
// of 16 make them, on 100,000 keys: all that a write costs but for sockets and the
// view.
func BenchmarkCore(b *testing.B) {
	value := strings.Repeat("x", 100)
	var hundred []string
	for i := range 100 {
		hundred = append(hundred, fmt.Sprint("member:", i))
	}
	for _, bench := range []struct {
		name string
		args func(key string) []string
	}{
		{"SET", func(k string) []string { return []string{"SET", "key:" + k, value} }},
		{"INCR", func(k string) []string { return []string{"INCR", "counter:" + k} }},
		{"HSET", func(k string) []string { return []string{"HSET", "hash", "field:" + k, value} }},
		{"SADD", func(k string) []string { return []string{"SADD", "set", "member:" + k} }},
		{"SADD of 100", func(k string) []string { return append([]string{"SADD", "many:" + k}, hundred...) }},
		{"ZADD", func(k string) []string { return []string{"ZADD", "zset", "1", "member:" + k} }},
		{"LPUSH", func(string) []string { return []string{"LPUSH", "list", value} }},
		{"EVAL", func(k string) []string {
			return []string{"EVAL", "return redis.call('INCR', KEYS[1])", "1", "counter:" + k}
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			c := newBareCore(b, time.Now, &sentView{})
			run := func(words []string) {
				args := make([][]byte, len(words))
				for i, w := range words {
					args[i] = []byte(w)
				}
				cmd, _ := command.Find(args)
				c.Do(&resp.Request{Cmd: cmd, Args: args, Proto: 2})
			}
			rnd := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				run(bench.args(fmt.Sprintf("%012d", rnd.IntN(100_000))))
				if changed, _ := c.Size(); changed >= groupKeysShort || i%800 == 799 {
					if err := c.Commit(); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := c.Commit(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkApply measures SETs of a peer, in ranges of 800 on 100,000 keys, from
// the decoded range to the commit.
func BenchmarkApply(b *testing.B) {
	const keys, size = 100_000, 800
	value := []byte(strings.Repeat("x", 100))
	c := newBareCore(b, time.Now, &sentView{})
	from := crdt.NewStream(2, 1, 0)
	rnd := rand.New(rand.NewPCG(1, 2))
	prev, tag := crdt.Tag(0), crdt.TagAt(time.Now().UnixMilli(), 2)
	var e crdt.Entry
	next := func() {
		e = crdt.Entry{Stream: from, Prev: prev, Tag: tag}
		if prev > 0 {
			e.Ctx = crdt.Vector{{Stream: from, Tag: prev}}
		}
		var f crdt.Fold
		for range size {
			id := crdt.CellID{Key: crdt.Key{Name: fmt.Sprintf("key:%012d", rnd.IntN(keys))}, Kind: crdt.KindString}
			f.Add(crdt.Delta{Level: crdt.LevelCell, ID: id, Remove: &crdt.Remove{Tag: tag, Ctx: e.Ctx}, Put: &crdt.Put{Tag: tag, Value: value}})
		}
		e.Deltas = f.Deltas()
		prev, tag = tag, tag+1<<12
	}
	b.ReportAllocs()
	deltas := 0
	for b.Loop() {
		b.StopTimer()
		next()
		b.StartTimer()
		c.Apply([]crdt.Entry{e}, func(err error) {
			if err != nil {
				b.Fatal(err)
			}
		})
		if err := c.Commit(); err != nil {
			b.Fatal(err)
		}
		deltas += len(e.Deltas)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(deltas), "ns/key")
}
