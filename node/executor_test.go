package node

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// peersEntries returns entries of another node that follow each other, of so many
// keys each.
func peersEntries(c *Core, entries, keys int) (out []crdt.Entry) {
	stream := crdt.NewStream(2, 1, 0)
	g := c.log.Begin()
	defer g.Discard()
	ks := &crdt.Keyspace{Have: crdt.Vector{}, Store: g}
	var prev crdt.Tag
	for i := range entries {
		w := crdt.NewWriter(ks, stream, crdt.TagAt(time.Now().UnixMilli(), 2)+crdt.Tag(i), time.Now().UnixMilli())
		for j := range keys {
			w.SetString(crdt.Key{Name: fmt.Sprint("of a peer ", i, " ", j)}, []byte("v"), false)
		}
		e := w.Entries()[0]
		e.Prev, prev = prev, e.Tag
		ks.Have.Raise(e.Stream, e.Tag)
		out = append(out, e)
	}
	return out
}

// However much of peers waits, a client's command is behind one piece of it at
// most; and what peers sent is applied all the same while clients never rest.
func TestClientsAndPeersTakeTurns(t *testing.T) {
	c := newBareCore(t, time.Now, &sentView{})
	x := newExecutor(c, groupKeys, slog.New(slog.DiscardHandler))
	const pieces = 200
	done := make(chan int, pieces)
	for i, e := range peersEntries(c, pieces, 1) {
		x.Apply([]crdt.Entry{e}, func(err error) {
			if err != nil {
				t.Error(err)
			}
			done <- i
		})
	}
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

// While clients wait peers have as many deltas applied as clients had commands since
// the last, and more the longer they have waited.
func TestPeersHaveTheirShare(t *testing.T) {
	for _, test := range []struct {
		since         int
		waited        time.Duration
		least, atMost int
	}{
		{0, 0, 1, 1},
		{0, time.Hour, 1, 1},
		{100, 0, 4, 25},          // 128, or more for the time that has passed
		{100, time.Hour, 25, 25}, // 800
		{1 << 40, 0, 32, 64},     // 1024
	} {
		c := newBareCore(t, time.Now, &sentView{})
		x := newExecutor(c, groupKeys, slog.New(slog.DiscardHandler))
		applied := 0
		for _, e := range peersEntries(c, 64, 32) {
			of := &pieces{came: time.Now().Add(-test.waited), done: func(err error) {
				if applied++; err != nil {
					t.Error(err)
				}
			}}
			of.left.Store(1)
			x.ranges <- work{ranges: []crdt.Entry{e}, of: of}
		}
		replied := make(chan struct{})
		go func() {
			defer close(replied)
			x.Execute([]*resp.Request{request(nil, "SET", "k", "v")})
		}()
		for len(x.queue) == 0 {
			time.Sleep(time.Millisecond)
		}
		x.since = test.since
		x.group(<-x.ranges)
		<-replied
		if applied < test.least || applied > test.atMost {
			t.Errorf("%d commands, waited %v: %d entries of 32 deltas were applied, not %d to %d", test.since, test.waited, applied, test.least, test.atMost)
		}
		if x.since != 1 {
			t.Errorf("%d commands since, not the one that waited", x.since)
		}
	}
}

// While no client waits peers' groups are as large as clients' are: who comes then is
// behind one of them.
func TestPeersGroupsAreShort(t *testing.T) {
	c := newBareCore(t, time.Now, &sentView{})
	x := newExecutor(c, groupKeysShort, slog.New(slog.DiscardHandler))
	applied := 0
	for _, e := range peersEntries(c, 64, 32) {
		x.Apply([]crdt.Entry{e}, func(err error) {
			if applied++; err != nil {
				t.Error(err)
			}
		})
	}
	if x.group(<-x.ranges); applied != groupKeysShort/32 {
		t.Errorf("%d entries of 32 deltas were applied in a group", applied)
	}
}

// What a peer sends at once is committed in pieces of whole entries, and answered
// once: when all are, or with the first error.
func TestRangesAreCommittedInPieces(t *testing.T) {
	c := newBareCore(t, time.Now, &sentView{})
	x := newExecutor(c, groupKeys, slog.New(slog.DiscardHandler))
	entries := peersEntries(c, 16, 100)
	answers := make(chan error, 10)
	x.Apply(entries[:8], func(err error) {
		if last := entries[7]; c.log.Vector().Get(last.Stream) != last.Tag {
			t.Error("answered before everything was committed")
		}
		answers <- err
	})
	if n := len(x.ranges); n != 3 { // of 3, 3 and 2 entries
		t.Fatalf("%d pieces", n)
	}
	go x.loop()
	if err := <-answers; err != nil {
		t.Fatal(err)
	}
	x.Apply(entries[9:], func(err error) { answers <- err }) // one is missing before them
	if err := <-answers; !errors.Is(err, ErrGap) {
		t.Errorf("after a gap: %v", err)
	}
	x.Stop()
	if c.Stats.Gaps != 1 {
		t.Errorf("%d gaps: what follows the first is not to be tried", c.Stats.Gaps)
	}
	if len(answers) > 0 {
		t.Errorf("answered twice: %v", <-answers)
	}
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

// A store that is behind is brought level in steps while nobody has anything to do, and who
// comes meanwhile is served at once: what is left waits.
func TestWriteBackGivesWay(t *testing.T) {
	c := newBareCore(t, time.Now, &sentView{})
	x := newExecutor(c, groupKeysShort, slog.New(slog.DiscardHandler))
	set := func(i int) {
		x.Start([]resp.Batch{{Requests: []*resp.Request{request(nil, "SET", fmt.Sprint("key", i), "value")}, Done: func() {}}})
	}
	const keys = 3 * writeBackRows
	for i := range keys {
		set(i)
	}
	for len(x.queue) > 0 {
		x.group(<-x.queue)
	}
	behind := func() int64 { return c.log.Metrics().RedoBytes }
	if behind() == 0 {
		t.Fatal("nothing is owed to the store: this test shows nothing")
	}
	x.WriteBack()
	if x.group(<-x.queue); x.owing == nil {
		t.Fatal("nothing is to be written back")
	}
	x.writeBack()
	if x.owing == nil || behind() == 0 {
		t.Fatalf("one step has written %d rows", 2*keys)
	}
	set(0)
	if x.group(<-x.queue); x.owing != nil {
		t.Error("it goes on although a client has come")
	}
	go x.loop()
	defer x.Stop()
	for end := time.Now().Add(time.Minute); !c.log.AtRest(); time.Sleep(time.Millisecond) {
		x.WriteBack()
		if time.Now().After(end) {
			t.Fatalf("%d bytes of records are waiting still", behind())
		}
	}
	rows := c.log.Metrics().Rows
	x.WriteBack() // of nothing
	if err := x.Run(func(*Core) {}); err != nil || c.log.Metrics().Rows != rows {
		t.Errorf("rows were written again: %v", err)
	}
}
