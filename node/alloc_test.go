package node

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/resp"
)

// These tests count allocations, which no load of the machine changes. A bound
// is a little above what a command takes: who raises one says in the commit
// what it buys.

// TestKeptReadAllocations bounds what a GET allocates that is answered with a
// kept reply, from the client's bytes to the reply's, over a real connection:
// the memory of its arguments and their slice.
func TestKeptReadAllocations(t *testing.T) {
	n := startTestNode(t, 1, nil)
	ask(t, n, "SET key value")
	c, err := net.Dial("tcp", n.cfg.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const pipeline, bound = 100, 2.5
	const get, reply = "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", "$5\r\nvalue\r\n"
	out, want := []byte(strings.Repeat(get, pipeline)), []byte(strings.Repeat(reply, pipeline))
	in := make([]byte, len(want))
	// exchange sends so many GETs at once, and reads the replies, so many times.
	exchange := func(at, times int) {
		for range times {
			if _, err := c.Write(out[:at*len(get)]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, in[:at*len(reply)]); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(in[:at*len(reply)], want[:at*len(reply)]) {
				t.Fatalf("got %q", in[:at*len(reply)])
			}
		}
	}
	exchange(pipeline, 3) // until it is kept, and buffers have their size
	for _, at := range []int{1, pipeline} {
		times := pipeline / at
		hits := n.replies.hitCount()
		per := testing.AllocsPerRun(50, func() { exchange(at, times) }) / pipeline
		if got := n.replies.hitCount() - hits; got < 50*pipeline {
			t.Fatalf("%d of %d were answered with a kept reply", got, 50*pipeline)
		}
		t.Logf("pipelines of %d: %.2f allocations a command", at, per)
		if per > bound {
			t.Errorf("pipelines of %d: %.2f allocations a command, not %.1f at most", at, per, bound)
		}
	}
}

// hundred returns the arguments of a hundred members, and of as many fields.
func hundred() (members, fields string) {
	for i := range 100 {
		members += fmt.Sprintf(" member:%d", i)
		fields += fmt.Sprintf(" field:%d value", i)
	}
	return members, fields
}

// TestNewKeyAllocations bounds what a set or hash of 100 elements allocates that was
// not there before: of each element its name, its state in large pieces, and no more.
func TestNewKeyAllocations(t *testing.T) {
	members, fields := hundred()
	for _, write := range []struct {
		words       string
		most, bytes uint64 // allocations, and bytes of them
	}{
		{"SADD set:%d" + members, 160, 30 << 10},
		{"HSET hash:%d" + fields, 262, 36 << 10},
	} {
		c := newBareCore(t, time.Now, &sentView{})
		const group, groups = 50, 6
		reqs := make([]*resp.Request, group*groups)
		for i := range reqs {
			reqs[i] = request(nil, strings.Fields(fmt.Sprintf(write.words, i))...)
			reqs[i].Proto = 2
		}
		run := func(reqs []*resp.Request) {
			for _, q := range reqs {
				if c.Do(q); q.Out[0] == '-' {
					t.Fatalf("%q: %q", q.Args, q.Out)
				}
			}
			if err := c.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		run(reqs[:group])                       // until buffers have their size
		allocs, bytes := ^uint64(0), ^uint64(0) // of the best group: others in the process allocate too
		for i := group; i < len(reqs); i += group {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			run(reqs[i : i+group])
			runtime.ReadMemStats(&after)
			allocs = min(allocs, (after.Mallocs-before.Mallocs)/group)
			bytes = min(bytes, (after.TotalAlloc-before.TotalAlloc)/group)
		}
		t.Logf("%s: %d allocations, %d bytes", reqs[0].Cmd.Name, allocs, bytes)
		if allocs > write.most || bytes > write.bytes && !testing.Short() { // short tests are run with the race detector, which takes memory too
			t.Errorf("%s: %d allocations of %d bytes, not %d of %d at most", reqs[0].Cmd.Name, allocs, bytes, write.most, write.bytes)
		}
	}
}

// TestWriteAllocations bounds what writes of a key that is there allocate on
// their way through the core, a hundredth of a commit included.
func TestWriteAllocations(t *testing.T) {
	members, fields := hundred()
	for _, write := range []struct {
		words string
		bound float64
	}{
		{"SET key:%03d value", 6.2},
		{"INCR counter:%03d", 7.0},
		{"SADD set:%03d" + members, 160},
		{"HSET hash:%03d" + fields, 270},
	} {
		c := newBareCore(t, time.Now, &sentView{})
		const group = 100
		reqs := make([]*resp.Request, group)
		for i := range reqs {
			reqs[i] = request(nil, strings.Fields(fmt.Sprintf(write.words, i))...)
			reqs[i].Proto = 2
		}
		run := func() {
			for _, q := range reqs {
				q.Out = nil
				c.Do(q)
				if q.Out[0] == '-' {
					t.Fatalf("%q: %q", q.Args, q.Out)
				}
			}
			if err := c.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		run()
		runs := 100
		if len(reqs[0].Args) > 100 {
			runs = 3
		}
		per := testing.AllocsPerRun(runs, run) / group
		t.Logf("%s: %.2f allocations", reqs[0].Cmd.Name, per)
		if per > write.bound {
			t.Errorf("%s: %.2f allocations, not %.1f at most", reqs[0].Cmd.Name, per, write.bound)
		}
	}
}
