//go:build !linux

package testbed

import "syscall"

// endWithParent has no means here: a process ends with the test's cleanup.
func endWithParent() *syscall.SysProcAttr { return nil }
