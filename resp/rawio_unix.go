//go:build unix && !linux

package resp

import "syscall"

// rawWrite is write, see rawio_linux.go.
func rawWrite(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
