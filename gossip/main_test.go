package gossip

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"
)

// childEnv makes the test binary a node that runs until its standard input
// ends, for tests that stop and kill processes. Its value is the node's id.
const childEnv = "GOSSIP_TEST_CHILD"

func TestMain(m *testing.M) {
	if id := os.Getenv(childEnv); id != "" {
		child(id)
		return
	}
	os.Exit(m.Run())
}

func child(id string) {
	n, err := strconv.Atoi(id)
	if err != nil {
		panic(err)
	}
	g, err := Start(options(n))
	if err != nil {
		panic(err)
	}
	defer g.Close()
	fmt.Println(g.Self().Gossip)
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// startChild starts a node in a process of its own, and returns its gossip
// address.
func startChild(t *testing.T, id int) (*os.Process, string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+strconv.Itoa(id))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Process, addr[:len(addr)-1]
}

// quick timings find a failure within two seconds, and still let a busy
// machine answer in time.
var quick = Timings{
	Probe:         200 * time.Millisecond,
	ProbeTimeout:  150 * time.Millisecond,
	SuspicionMult: 4,
	Gossip:        20 * time.Millisecond,
	PushPull:      300 * time.Millisecond,
	Dead:          time.Second,
	Stream:        3 * time.Second,
	Reconnect:     100 * time.Millisecond,
}

func options(id int) Options {
	return Options{
		Facts: Facts{
			ID:      uint16(id),
			Alias:   fmt.Sprintf("alias-%d", id),
			Region:  "eu",
			Cluster: "test",
			Dir:     uint64(1000 + id),
			RESP:    fmt.Sprintf("127.0.0.1:%d", 9000+id), // only told, never used
			Version: 1,
		},
		Bind:    "127.0.0.1",
		Secret:  []byte("open sesame"),
		Timings: quick,
	}
}

func start(t *testing.T, id int, change ...func(*Options)) *Gossip {
	t.Helper()
	o := options(id)
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	for _, c := range change {
		c(&o)
	}
	g, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func join(t *testing.T, g *Gossip, to *Gossip) error {
	t.Helper()
	return g.Join(t.Context(), to.Self().Gossip)
}

func mustJoin(t *testing.T, g *Gossip, to *Gossip) {
	t.Helper()
	if err := join(t, g, to); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok, at most for 20 seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("did not come about: %s", what)
		}
	}
}

// find returns the member with id that g sees.
func find(g *Gossip, id int) (Member, bool) {
	members := g.Members()
	i := slices.IndexFunc(members, func(m Member) bool { return m.ID == uint16(id) })
	if i < 0 {
		return Member{}, false
	}
	return members[i], true
}

func sees(t *testing.T, g *Gossip, id int, state State) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d sees %d %s", g.id, id, state), func() bool {
		m, ok := find(g, id)
		return ok && m.State == state
	})
}
