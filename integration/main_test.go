package integration

import (
	"fmt"
	"os"
	"testing"

	"github.com/replicatord/replicatord/integration/testbed"
)

func TestMain(m *testing.M) {
	if err := testbed.Tools(); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		os.Exit(1)
	}
	if _, err := testbed.Binary(); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		os.Exit(1)
	}
	code := m.Run()
	testbed.RemoveBinary()
	os.Exit(code)
}

// full reports whether everything is to be tested at full size.
func full() bool { return os.Getenv("REPLICATORD_FULL") != "" }

// pair returns two nodes that know each other.
func pair(bed *testbed.Bed, args ...string) (a, b *testbed.Node) {
	bed.Helper()
	a = bed.Node(testbed.Options{ID: 1, Args: args})
	b = bed.Node(testbed.Options{ID: 2, Args: args, Meet: []*testbed.Node{a}})
	return a, b
}

// equal fails the test unless got is want.
func equal[T comparable](t testbed.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
