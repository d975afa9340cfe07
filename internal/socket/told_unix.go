//go:build unix && (!linux || race)

package socket

import "syscall"

// Elsewhere than on Linux the scheduler is told; and so it is where races are looked
// for: syscall's functions tell the detector what a reader knows of a writer.

func read(fd int, b []byte) (int, error)  { return syscall.Read(fd, b) }
func write(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
