//go:build !linux

package testbed

import (
	"syscall"
	"time"
)

// endWithParent has no means here: a process ends with the test's cleanup.
func endWithParent() *syscall.SysProcAttr { return nil }

func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
