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
		for errors.Is(p.err, syscall.EINTR) {
			p.n, p.err = Read(int(fd), p.b)
		}
		return !errors.Is(p.err, syscall.EAGAIN)
	}
	w.out.name, w.out.wait = "write", raw.Write
	w.out.once = func(fd uintptr) bool {
		p := &w.out
		for p.n < len(p.b) {
			n, err := Write(int(fd), p.b[p.n:])
			switch {
			case err == nil:
				p.n += n
			case errors.Is(err, syscall.EAGAIN):
				return false
			case !errors.Is(err, syscall.EINTR):
				p.err = err
				return true
			}
		}
		return true
	}
	return w
}

// do carries out one Read or Write.
func (p *pass) do(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.b, p.n, p.err = b, 0, nil
	err := p.wait(p.once)
	p.b = nil
	if err == nil && p.err != nil {
		err = os.NewSyscallError(p.name, p.err)
	}
	return p.n, err
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := c.in.do(b)
	switch {
	case err != nil:
		return 0, c.wrong("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.out.do(b)
	if err != nil {
		err = c.wrong("write", err)
	}
	return n, err
}

// wrong returns an error as those of net's connections are.
func (c *conn) wrong(op string, err error) error {
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		e.Op = op // it says "raw-read"
		return err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// SyscallConn implements syscall.Conn.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.Conn.(syscall.Conn).SyscallConn() }

// CloseWrite says that nothing more will be written, as TCP and unix sockets do.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
