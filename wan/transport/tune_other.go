//go:build !linux

package transport

import (
	"net"
	"time"
)

// tune does nothing: dead connections are found by keep-alive and heartbeats.
func tune(net.Conn, time.Duration) {}

// setUnsent does nothing: the kernel takes what it likes.
func setUnsent(net.Conn, int) {}

// awaitRoom does nothing either.
func awaitRoom(net.Conn) bool { return false }
