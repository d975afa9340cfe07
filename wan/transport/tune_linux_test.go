package transport

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unsent returns what the kernel has of a connection that has not left yet.
func unsent(t *testing.T, c Conn) int {
	t.Helper()
	r := room{}
	switch c := c.(type) {
	case *tcpConn:
		r = c.room
	case *wsConn:
		r = c.room
	}
	raw, err := r.raw.(interface {
		SyscallConn() (syscall.RawConn, error)
	}).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD) }); err != nil {
		t.Fatal(err)
	}
	return n
}

// While the peer takes nothing, no more lies here than the backlog.
func TestBacklog(t *testing.T) {
	for _, url := range []string{"tcp://127.0.0.1:0", "ws://127.0.0.1:0/x"} {
		t.Run(url[:strings.Index(url, ":")], func(t *testing.T) {
			f := New(Options{})
			l, err := f.Listen(url)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			accepted := make(chan Conn, 1)
			go func() {
				c, _ := l.Accept()
				accepted <- c
			}()
			c, err := f.Dial(context.Background(), l.URL())
			if err != nil {
				t.Fatal(err)
			}
			peer := <-accepted
			const backlog, frame = 8 << 10, 1000
			c.SetBacklog(backlog)
			wrote := make(chan int, 1<<20)
			go func() {
				for i := 0; c.WriteFrame(1, make([]byte, frame)) == nil; i++ {
					wrote <- i
				}
				close(wrote)
			}()
			for quiet := false; !quiet; { // until the peer's buffers are full
				select {
				case <-wrote:
				case <-time.After(time.Second):
					quiet = true
				}
			}
			if n := unsent(t, c); n == 0 || n > backlog {
				t.Errorf("%d bytes wait, at most %d are to", n, backlog)
			}
			// It goes on when the peer does.
			for range 100 {
				if _, err := peer.ReadFrame(1 << 20); err != nil {
					t.Fatal(err)
				}
			}
			read := make(chan struct{})
			go func() {
				for {
					if _, err := peer.ReadFrame(1 << 20); err != nil {
						close(read)
						return
					}
				}
			}()
			for range 100 {
				select {
				case <-wrote:
				case <-time.After(30 * time.Second):
					t.Fatal("it does not go on")
				}
			}
			_ = c.Close()
			_ = peer.Close()
			<-read
		})
	}
}
