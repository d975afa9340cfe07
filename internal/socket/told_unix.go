//go:build unix && (!linux || race)

package socket

import "syscall"

// Elsewhere than on Linux the scheduler is told; and so it is where races are looked
// for: syscall's functions tell the detector what a reader knows of a writer.

// Read is read(2) of a socket that does not block: one call, with its error.
func Read(fd int, b []byte) (int, error) { return syscall.Read(fd, b) }

// Write is write(2), likewise.
func Write(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
