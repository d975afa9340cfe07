//go:build unix && !linux

package socket

import "syscall"

// Read and Write are read and write of a socket that does not block; elsewhere than
// on Linux the scheduler is told.
func Read(fd int, b []byte) (int, error)  { return syscall.Read(fd, b) }
func Write(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
