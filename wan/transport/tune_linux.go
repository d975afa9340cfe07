package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tune sets what it can; a connection works without.
func tune(c net.Conn, timeout time.Duration) {
	setOption(c, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
}

// setUnsent bounds what the kernel takes before the network does.
func setUnsent(c net.Conn, bytes int) {
	setOption(c, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
}

func setOption(c net.Conn, level, option, value int) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, option, value) })
}
