//go:build unix

package socket

import (
	"errors"
	"syscall"
)

// Read is read(2) of a socket that does not block: the error is EAGAIN if there is
// nothing to read. A signal in its midst is no error.
func Read(fd int, b []byte) (int, error) { return again(read, fd, b) }

// Write is write(2) of a socket that does not block, likewise.
func Write(fd int, b []byte) (int, error) { return again(write, fd, b) }

func again(call func(int, []byte) (int, error), fd int, b []byte) (int, error) {
	for {
		n, err := call(fd, b)
		switch {
		case err == nil:
			return n, nil
		case !errors.Is(err, syscall.EINTR):
			return 0, err
		}
	}
}
