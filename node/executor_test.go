package node

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// However much of peers waits, a client's command is behind one piece of it at
// most; and what peers sent is applied all the same while clients never rest.
func TestClientsAndPeersTakeTurns(t *testing.T) {
	c := newBareCore(t, time.Now, &sentView{})
	x := newExecutor(c, groupKeys, slog.New(slog.DiscardHandler))
	const pieces = 200
	stream := crdt.NewStream(2, 1, 0)
	ks := &crdt.Keyspace{Have: crdt.Vector{}}
	var prev crdt.Tag
	done := make(chan int, pieces)
	g := c.log.Begin()
	ks.Store = g
	for i := range pieces {
		w := crdt.NewWriter(ks, stream, crdt.TagAt(time.Now().UnixMilli(), 2)+crdt.Tag(i), time.Now().UnixMilli())
		w.SetString(crdt.Key{Name: fmt.Sprint("of a peer ", i)}, []byte("v"), false)
		e := w.Entries()[0]
		e.Prev, prev = prev, e.Tag
		x.Apply([]crdt.Entry{e}, func(err error) {
			if err != nil {
				t.Error(err)
			}
			done <- i
		})
		ks.Have.Raise(e.Stream, e.Tag)
	}
	g.Discard()
	replied := make(chan struct{})
	go func() { // it comes behind all of them
		defer close(replied)
		x.Execute([]*resp.Request{request(nil, "SET", "k", "v")})
	}()
	for len(x.queue) == 0 {
		time.Sleep(time.Millisecond)
	}
	x.group(<-x.ranges)
	<-replied
	if n := len(done); n != 1 {
		t.Errorf("a client's command was behind %d pieces", n)
	}
	go x.loop()
	defer x.Stop()
	stop := make(chan struct{})
	for i := range 4 {
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					x.Execute([]*resp.Request{request(nil, "INCR", fmt.Sprint("counter", i))})
				}
			}
		}()
	}
	for i := range pieces {
		select {
		case got := <-done:
			if got != i {
				t.Fatalf("piece %d was applied as number %d", got, i)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%d pieces were applied while clients were busy", i)
		}
	}
	close(stop)
}

// While a script has been running for long those whose commands wait behind it are
// told, also where they were handed over together with it.
func TestBusyIsToldToAllBehind(t *testing.T) {
	c := newBareCore(t, time.Now, &sentView{})
	c.scripts.Threshold.Store(1)
	x := newExecutor(c, groupKeys, slog.New(slog.DiscardHandler))
	go x.loop()
	defer x.Stop()
	var batches []resp.Batch
	var reqs []*resp.Request
	replied := make(chan int, 4)
	for i, args := range [][]string{{"SET", "before", "v"}, {"EVAL", "while true do end", "0"}, {"SET", "behind", "v"}, {"INCR", "behind"}} {
		q := request(nil, args...)
		reqs = append(reqs, q)
		batches = append(batches, resp.Batch{Requests: []*resp.Request{q}, Done: func() { replied <- i }})
	}
	x.Start(batches)
	wait := func() int {
		select {
		case i := <-replied:
			return i
		case <-time.After(30 * time.Second):
			t.Fatal("nobody is told anything")
			return 0
		}
	}
	for range 2 {
		if i := wait(); i < 2 || !strings.HasPrefix(string(reqs[i].Out), "-BUSY ") {
			t.Errorf("command %d: %q", i, reqs[i].Out)
		}
	}
	out := command.Reply{Proto: 2}
	c.scripts.Kill(true, &out)
	for range 2 {
		if i := wait(); i > 1 || i == 0 && string(reqs[i].Out) != "+OK\r\n" || i == 1 && !strings.HasPrefix(string(reqs[i].Out), "-ERR Script killed") {
			t.Errorf("command %d: %q", i, reqs[i].Out)
		}
	}
}

// What is too large for other nodes is refused, for nothing after it would reach them;
// and nothing of it is kept.
func TestEntriesAreBounded(t *testing.T) {
	view := &sentView{}
	c := newBareCore(t, time.Now, view)
	c.maxEntry = 1 << 20
	x := newExecutor(c, groupKeys, slog.New(slog.DiscardHandler))
	go x.loop()
	defer x.Stop()
	do := func(args ...string) string {
		q := request(nil, args...)
		x.Execute([]*resp.Request{q})
		return string(q.Out)
	}
	half := strings.Repeat("v", 1<<19)
	if got := do("SET", "a", half); got != "+OK\r\n" {
		t.Fatal(got)
	}
	script := "redis.call('SET', 'b', ARGV[1]) redis.call('SET', 'c', ARGV[1]) redis.call('SET', 'd', ARGV[1])"
	if got := do("EVAL", script, "0", half); !strings.HasPrefix(got, "-MISCONF ") || !strings.Contains(got, "several steps") {
		t.Errorf("%.200q", got)
	}
	before := c.log.Vector()
	if got := do("APPEND", "a", strings.Repeat("v", 1<<19)); !strings.HasPrefix(got, "-MISCONF ") {
		t.Errorf("%.200q", got)
	}
	if !c.log.Vector().Equal(before) {
		t.Error("something was logged")
	}
	for _, args := range [][]string{{"SETNX", "b", "v"}, {"SETNX", "c", "v"}} {
		if got := do(args...); got != ":1\r\n" {
			t.Errorf("%v: %.200q", args, got)
		}
	}
	if got := do("APPEND", "a", "v"); got != fmt.Sprintf(":%d\r\n", 1<<19+1) {
		t.Errorf("%.200q", got)
	}
}
