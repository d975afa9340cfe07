package oplog

import (
	"errors"
	"syscall"
)

// isDiskFull reports whether an error says that there is no space.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
