package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/replicatord/replicatord/integration/testbed"
)

// bench is the testbed's T outside of a test.
type bench struct {
	failed bool
	ends   []func()
}

// errFailed unwinds to run.
var errFailed = errors.New("failed")

// Helper does nothing.
func (*bench) Helper() {}

// Cleanup has fn called at the end, last in first.
func (b *bench) Cleanup(fn func()) { b.ends = append(b.ends, fn) }

// Errorf reports a failure; the run goes on.
func (b *bench) Errorf(format string, args ...any) {
	b.failed = true
	b.Logf(format, args...)
}

// Fatalf reports a failure and ends the run.
func (b *bench) Fatalf(format string, args ...any) {
	b.Errorf(format, args...)
	panic(errFailed)
}

// Logf prints to standard error.
func (*bench) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// Failed reports whether anything has failed.
func (b *bench) Failed() bool { return b.failed }

// TempDir returns a new directory that is deleted at the end.
func (b *bench) TempDir() string {
	dir, err := os.MkdirTemp("", "replicatord-bench-")
	if err != nil {
		b.Fatalf("%v", err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// number returns a number that INFO of a node tells.
func number(b *bench, node *testbed.Node, field string) float64 {
	n, err := strconv.ParseFloat(node.Info()[field], 64)
	if err != nil {
		b.Fatalf("INFO: %s: %v", field, err)
	}
	return n
}

func (b *bench) end() {
	for i := len(b.ends) - 1; i >= 0; i-- {
		b.ends[i]()
	}
}
