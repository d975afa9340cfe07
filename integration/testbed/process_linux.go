package testbed

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endWithParent makes a process end with the test, however that ends.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// sleepUntil sleeps more exactly than time.Sleep, which is a millisecond late
// where nothing else happens in the process.
func sleepUntil(t time.Time) {
	if d := time.Until(t); d > 0 {
		ts := unix.NsecToTimespec(d.Nanoseconds())
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil)
	}
	time.Sleep(time.Until(t)) // a signal may have ended it
}
