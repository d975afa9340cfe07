package transport

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tune sets what it can; a connection works without.
func tune(c net.Conn, timeout time.Duration) {
	setOption(c, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
}

// setUnsent bounds what the kernel takes before the network does, for awaitRoom.
func setUnsent(c net.Conn, bytes int) {
	setOption(c, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
}

// awaitRoom waits until the kernel holds less than setUnsent allows. A write does
// not wait for that: it fills up the buffer that is last, to 64 KiB. dry says that
// it had to wait, and found nothing left: more could have gone.
func awaitRoom(c net.Conn) (dry bool) {
	t, ok := c.(syscall.Conn) // not one of TLS
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false
	}
	waited := false
	_ = raw.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(p, 0); n == 0 && err == nil {
			waited = true
			return false
		}
		if waited {
			left, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD)
			dry = err == nil && left == 0
		}
		return true
	})
	return dry
}

func setOption(c net.Conn, level, option, value int) {
	t, ok := c.(syscall.Conn) // not one of TLS
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, option, value) })
}
