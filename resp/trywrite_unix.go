//go:build unix

package resp

import (
	"errors"
	"net"
	"syscall"
)

// tryWriter writes to a socket as much as it takes without blocking.
type tryWriter struct {
	raw syscall.RawConn
	fn  func(fd uintptr) bool

	b   []byte
	n   int
	err error
}

// newTryWriter returns nil if conn is not a socket itself, as with TLS.
func newTryWriter(conn net.Conn) *tryWriter {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &tryWriter{raw: raw}
	w.fn = func(fd uintptr) bool {
		for {
			w.n, w.err = syscall.Write(int(fd), w.b)
			if !errors.Is(w.err, syscall.EINTR) {
				return true
			}
		}
	}
	return w
}

// write returns how many bytes of b the socket took, perhaps none.
func (w *tryWriter) write(b []byte) (int, error) {
	w.b = b
	err := w.raw.Write(w.fn)
	w.b = nil
	switch {
	case err != nil:
		return 0, err
	case errors.Is(w.err, syscall.EAGAIN):
		return 0, nil
	case w.err != nil:
		return 0, w.err
	}
	return w.n, nil
}
