//go:build unix

package resp

import (
	"errors"
	"net"
	"syscall"

	"github.com/replicatord/replicatord/internal/socket"
)

// socketWriter is the tryWriter of a socket that the runtime watches.
type socketWriter struct {
	raw syscall.RawConn
	fn  func(fd uintptr) bool

	b   []byte
	n   int
	err error
}

// newTryWriter returns nil if conn is not a socket itself, as with TLS.
func newTryWriter(conn net.Conn) tryWriter {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &socketWriter{raw: raw}
	w.fn = func(fd uintptr) bool {
		w.n, w.err = writeSome(int(fd), w.b)
		return true
	}
	return w
}

func (w *socketWriter) write(b []byte) (int, error) {
	w.b = b
	err := w.raw.Write(w.fn)
	w.b = nil
	if err != nil {
		return 0, err
	}
	return w.n, w.err
}

// writeSome writes as much of b as a socket takes at once.
func writeSome(fd int, b []byte) (int, error) {
	n, err := socket.Write(fd, b)
	if errors.Is(err, syscall.EAGAIN) {
		return 0, nil
	}
	return n, err
}
