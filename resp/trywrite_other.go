//go:build !unix

package resp

import "net"

// tryWriter is not needed where sockets cannot be written without blocking:
// replies then always go through the output's goroutine.
type tryWriter struct{}

func newTryWriter(net.Conn) *tryWriter { return nil }

func (*tryWriter) write([]byte) (int, error) { return 0, nil }
