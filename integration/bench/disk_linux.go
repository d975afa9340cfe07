package main

import (
	"os"
	"syscall"
)

// syncData has what was written to a file reach the disk.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
