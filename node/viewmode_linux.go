package node

import "syscall"

// spawnAttr makes the view's server end with the node even if the node is
// killed.
func spawnAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
