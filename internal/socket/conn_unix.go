//go:build unix

package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// conn is a connection whose socket is read and written as this package does. It waits
// as any connection, with the same deadlines.
type conn struct {
	net.Conn
	in, out pass
}

// pass is one direction of a conn.
type pass struct {
	name string
	wait func(func(fd uintptr) bool) error // until the socket is ready
	once func(fd uintptr) bool             // one call; false if there is something to wait for

	mu  sync.Mutex // one at a time, as the runtime's
	b   []byte
	n   int
	err error
}

// Wrap returns a connection to be used instead of c: c itself, if it is not a socket's.
func Wrap(c net.Conn) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c
	}
	w := &conn{Conn: c}
	w.in.name, w.in.wait = "read", raw.Read
	w.in.once = func(fd uintptr) bool {
		p := &w.in
		p.n, p.err = Read(int(fd), p.b)
		return !errors.Is(p.err, syscall.EAGAIN)
	}
	w.out.name, w.out.wait = "write", raw.Write
	w.out.once = func(fd uintptr) bool {
		p := &w.out
		n := 0
		for p.err = nil; p.err == nil && p.n < len(p.b); p.n += n {
			n, p.err = Write(int(fd), p.b[p.n:])
		}
		return !errors.Is(p.err, syscall.EAGAIN)
	}
	return w
}

// do carries out one Read or Write. Its errors are those of net's connections.
func (c *conn) do(p *pass, b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.b, p.n, p.err = b, 0, nil
	err := p.wait(p.once)
	p.b = nil
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		e.Op = p.name // it says "raw-read"
	} else if p.err != nil {
		err = &net.OpError{Op: p.name, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(p.name, p.err)}
	}
	return p.n, err
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.do(&c.in, b)
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) { return c.do(&c.out, b) }

// SyscallConn implements syscall.Conn.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.Conn.(syscall.Conn).SyscallConn() }

// CloseWrite says that nothing more will be written, as TCP and unix sockets do.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
