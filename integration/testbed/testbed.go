package testbed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// T is what a bed needs of a test. *testing.T and *testing.B have it.
type T interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Failed() bool
	TempDir() string
}

// Environment variables that change what is tested.
const (
	// EnvBinary names a program to test instead of building one.
	EnvBinary = "REPLICATORD_BINARY"
	// EnvRace, if not empty, builds the program with the race detector.
	EnvRace = "REPLICATORD_RACE"
	// EnvKeep names a directory to which the whole logs of a failed test's
	// processes are copied, with the stacks of their goroutines.
	EnvKeep = "REPLICATORD_KEEP"
)

// Bed is where the processes of one test run.
type Bed struct {
	// MaxPause is how long Wait pauses between two looks at most; 100 ms if 0. For who
	// measures how long something takes.
	MaxPause time.Duration

	T
	bin string

	mu    sync.Mutex
	procs []*Process
	nodes []*Node
}

func init() {
	// Clients of nodes that are down, on purpose, would fill the output.
	redis.SetLogger(silent{})
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// New returns an empty bed.
func New(t T) *Bed {
	t.Helper()
	bin, err := Binary()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return &Bed{T: t, bin: bin}
}

// Tools returns an error that says what to install if a program that the tests
// need is missing.
func Tools() error {
	var errs []error
	for _, name := range []string{"redis-server", "redis-cli", "redis-benchmark"} {
		if _, err := exec.LookPath(name); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing: install Redis 6.2 or later (apt-get install redis-server; brew install redis)", name))
		}
	}
	return errors.Join(errs...)
}

// Binary builds cmd/replicatord, once per process, and returns its path. RemoveBinary
// deletes it.
var Binary = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv(EnvBinary); bin != "" {
		return filepath.Abs(bin)
	}
	dir, err := os.MkdirTemp("", "replicatord-bin-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "replicatord")
	args := []string{"build", "-o", bin}
	if os.Getenv(EnvRace) != "" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "github.com/replicatord/replicatord/cmd/replicatord")...)
	cmd.Dir = moduleDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("cmd/replicatord does not build: %w\n%s", err, out)
	}
	return bin, nil
})

// RemoveBinary deletes what Binary built.
func RemoveBinary() {
	if bin, err := Binary(); err == nil && os.Getenv(EnvBinary) == "" {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
}

// moduleDir is the root of the source tree this file is in.
func moduleDir() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Program returns the path of the program under test.
func (b *Bed) Program() string { return b.bin }

// Wait calls ok every few milliseconds until it returns true. After the limit
// the test fails with what it waited for and the last of what ok noted.
func (b *Bed) Wait(limit time.Duration, what string, ok func() (bool, string)) {
	b.Helper()
	deadline := time.Now().Add(limit)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, cmp.Or(b.MaxPause, 100*time.Millisecond)) {
		done, note := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("waited %v in vain for %s: %s\n%s", limit, what, note, b.replicas())
		}
		time.Sleep(pause)
	}
}

// replicas tells what the nodes that run know of each other.
func (b *Bed) replicas() string {
	b.mu.Lock()
	nodes := slices.Clone(b.nodes)
	b.mu.Unlock()
	var out strings.Builder
	for _, n := range nodes {
		if n.Running() {
			v, err := n.Try("REPLICAS")
			fmt.Fprintf(&out, "%s knows: %v (%v)\n", n.name, v, err)
		}
	}
	return out.String()
}

// ports hands out loopback ports below those the kernel uses for outgoing
// connections (32768 and up on Linux, 49152 elsewhere), each once per process.
var ports struct {
	sync.Mutex
	next int
}

const (
	firstPort = 12_000
	portRange = 20_000
)

// FreePort returns a port on which nothing listens, TCP or UDP.
func FreePort() int {
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = rand.IntN(portRange)
	}
	for range portRange {
		ports.next++
		port := firstPort + ports.next%portRange
		tcp, err := net.Listen("tcp", addr(port))
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", addr(port))
		_ = tcp.Close()
		if err != nil {
			continue
		}
		_ = udp.Close()
		return port
	}
	panic("testbed: no free port")
}

func addr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// tailOf returns the last lines of a file, long ones cut.
func tailOf(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	for i, l := range all {
		all[i] = clip(l)
	}
	return strings.Join(all, "\n")
}
