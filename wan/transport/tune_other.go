//go:build !linux

package transport

import (
	"net"
	"time"
)

// tune does nothing: dead connections are found by keep-alive and heartbeats.
func tune(net.Conn, time.Duration) {}
