//go:build !linux

package node

import "syscall"

// spawnAttr keeps a terminal's signals from the view's server: the node stops
// it in its own time.
func spawnAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
