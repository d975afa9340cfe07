package node

import (
	"os"
	"strings"
)

// bootID names this run of the machine; "" if it can't be told.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
