package main

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// idleRest is a while after which a node has taken the buffers of quiet clients
// back.
const idleRest = 5 * time.Second

// idle measures what clients cost that are connected, have sent a command or two
// and say nothing more, and prints lines of a table.
func idle(b *bench, bed *testbed.Bed, want int, fsync string) {
	clients := min(want, openLimit(uint64(want)+1000)-1000)
	if clients < 1 {
		b.Fatalf("idle clients: the limit of open files is too low: raise it (ulimit -n)")
	}
	n := bed.Node(testbed.Options{ID: 1, Args: []string{"--fsync", fsync, "--set", fmt.Sprint("maxclients=", clients+100)}})
	n.Do("SET", "key", "value")
	// What a first client costs is no matter of their number.
	if _, err := benchmark(n.Port, []string{"-t", "get"}, 1, 16, 20_000); err != nil {
		b.Fatalf("%v", err)
	}
	time.Sleep(idleRest)
	before := memory(n)
	conns := make([]net.Conn, clients)
	failed := make([]error, clients)
	var wg sync.WaitGroup
	const dialers = 16
	for d := range dialers {
		wg.Go(func() {
			for i := d; i < clients; i += dialers {
				conns[i], failed[i] = quiet(n.Addr())
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	for i, err := range failed {
		if err != nil {
			b.Fatalf("idle client %d: %v", i, err)
		}
	}
	at := memory(n)
	time.Sleep(idleRest)
	rested := memory(n)
	if got, _ := strconv.Atoi(n.Info()["connected_clients"]); got < clients {
		b.Fatalf("only %d of %d idle clients are still connected", got, clients)
	}
	less := ""
	if clients < want {
		less = fmt.Sprintf(", as many of %d as the limit of open files allows", want)
	}
	fmt.Printf("| memory of a node without clients | %.0f MB |\n", before)
	fmt.Printf("| the same with %d idle clients that have each sent a PING and a GET%s: at once, %s later | %.0f MB (+%.0f), %.0f MB (+%.0f) |\n",
		clients, less, idleRest, at, at-before, rested, rested-before)
	n.Stop()
}

// quiet returns a connection that has sent a PING and a GET and has had its
// replies.
func quiet(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	in := bufio.NewScanner(c)
	for _, x := range []struct {
		command string
		lines   int
	}{{"*1\r\n$4\r\nPING\r\n", 1}, {"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", 2}} {
		if err := exchange(c, in, []byte(x.command), x.lines); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	return c, nil
}

// openLimit raises the limit of open files, of this process and those it starts,
// to what is wanted or as far as is allowed, and returns it.
func openLimit(want uint64) int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // the least that is usual
	}
	if l.Cur < want {
		// Root may raise what the hard limit is.
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: max(l.Max, want)}) != nil {
			_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: min(l.Max, want), Max: l.Max})
		}
		if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
			return 1024
		}
	} else {
		// What the runtime has raised for this process, those it starts have not.
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
	return int(min(l.Cur, want))
}
