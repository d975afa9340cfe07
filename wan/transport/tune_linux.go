package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// notSent bounds what the kernel takes before the network does. More would
// only lie there, where no frame of a more urgent lane can overtake it.
const notSent = 128 << 10

// tune sets what it can; a connection works without.
func tune(c net.Conn, timeout time.Duration) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
	})
}
