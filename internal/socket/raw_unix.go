//go:build unix && !linux

package socket

import "syscall"

// Read is read(2) of a socket that does not block: one call, with its error. Elsewhere
// than on Linux the scheduler is told.
func Read(fd int, b []byte) (int, error) { return syscall.Read(fd, b) }

// Write is write(2), likewise.
func Write(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
