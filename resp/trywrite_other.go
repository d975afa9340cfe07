//go:build !unix

package resp

import "net"

// newTryWriter returns none where sockets cannot be written without blocking:
// replies then always go through the output's goroutine.
func newTryWriter(net.Conn) tryWriter { return nil }
