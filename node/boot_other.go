//go:build !linux

package node

// bootID names this run of the machine; it can't be told here.
func bootID() string { return "" }
