package node

import "syscall"

// spawnAttr makes the view's server end with the node even if the node is
// killed. It ends by SIGKILL: at SIGTERM it would remove its socket by name, up to
// 100 ms later, when the node's next life may have made its own in that place. It
// has nothing to put in order; what lasts is in the log.
func spawnAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
