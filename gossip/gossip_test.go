package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestThreeNodesSeeEachOther(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, 1), start(t, 2), start(t, 3)
	mustJoin(t, b, a)
	mustJoin(t, c, a)
	for _, g := range []*Gossip{a, b, c} {
		for id := 1; id <= 3; id++ {
			if id != int(g.id) {
				sees(t, g, id, Alive)
			}
		}
	}
	m, _ := find(c, 2)
	if m.Facts != b.Self().Facts {
		t.Fatalf("c sees %+v, b says %+v", m.Facts, b.Self().Facts)
	}
	mustJoin(t, b, a) // again
	mustJoin(t, b, b) // oneself
}

func refused(t *testing.T, err, reason error, say ...string) *JoinError {
	t.Helper()
	var e *JoinError
	if !errors.Is(err, reason) || !errors.As(err, &e) {
		t.Fatalf("got %v, want %v", err, reason)
	}
	for _, s := range say {
		if !strings.Contains(err.Error(), s) {
			t.Fatalf("does not say %q: %v", s, err)
		}
	}
	t.Log(err)
	return e
}

func TestSameIDIsRefused(t *testing.T) {
	t.Parallel()
	a, b := start(t, 1), start(t, 2)
	mustJoin(t, b, a)
	sees(t, a, 2, Alive)

	thief := start(t, 2, func(o *Options) { o.Alias, o.RESP, o.Dir = "thief", "127.0.0.1:9666", 666 })
	both := []string{"node id 2", "alias-2", "127.0.0.1:9002", "thief", "127.0.0.1:9666", "FORGET"}
	refused(t, join(t, thief, a), ErrSameID, both...) // by way of another
	refused(t, join(t, thief, b), ErrSameID, both...) // from the holder itself
	refused(t, join(t, a, thief), ErrSameID, both...) // the other way round
	refused(t, join(t, b, thief), ErrSameID, both...)
	if m := thief.Members(); len(m) != 0 {
		t.Fatalf("the refused node sees %v", m)
	}
	if m, _ := find(a, 2); m.Facts != b.Self().Facts || !strings.Contains(m.LastError, "thief") {
		t.Fatalf("a sees %+v", m)
	}
	if s := b.Self(); !strings.Contains(s.LastError, "thief") {
		t.Fatalf("b says of itself %+v", s)
	}

	// Still so when the holder is down, until it is forgotten.
	b.Close()
	sees(t, a, 2, Failed)
	refused(t, join(t, thief, a), ErrSameID)
	a.Forget(2)
	refused(t, join(t, thief, a), ErrForgotten)
	a.Allow(2)
	mustJoin(t, thief, a)
	sees(t, a, 2, Alive)
}

func TestSameIDInTwoClustersThatMeet(t *testing.T) {
	t.Parallel()
	a, a3 := start(t, 1), start(t, 3)
	mustJoin(t, a3, a)
	b, b3 := start(t, 2), start(t, 3, func(o *Options) { o.Alias, o.Dir = "other", 333 })
	mustJoin(t, b3, b)
	sees(t, a, 3, Alive)
	sees(t, b, 3, Alive)
	refused(t, join(t, a, b), ErrSameID, "node id 3", "alias-3", "other")
	if _, ok := find(a, 2); ok {
		t.Fatal("joined all the same")
	}
}

func TestCopiedDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	a, b := start(t, 1), start(t, 2)
	mustJoin(t, b, a)
	sees(t, a, 2, Alive)
	clone := start(t, 2, func(o *Options) { o.RESP = "127.0.0.1:9666" })
	refused(t, join(t, clone, a), ErrSameID, "copy", "127.0.0.1:9002", "127.0.0.1:9666")
	refused(t, join(t, clone, b), ErrSameID, "copy")
	if m, _ := find(a, 2); m.Facts != b.Self().Facts {
		t.Fatalf("a sees %+v", m)
	}
}

func TestWrongClusterIsRefused(t *testing.T) {
	t.Parallel()
	a, b := start(t, 1), start(t, 2, func(o *Options) { o.Cluster = "prod" })
	e := refused(t, join(t, b, a), ErrWrongCluster, "test", "prod", "alias-1", "alias-2")
	if e.Theirs.ID != 1 {
		t.Fatalf("refused by %v", e.Theirs)
	}
	if len(a.Members())+len(b.Members()) != 0 {
		t.Fatal("members all the same")
	}
}

func TestWrongSecretIsRefused(t *testing.T) {
	t.Parallel()
	a := start(t, 1)
	none := start(t, 2, func(o *Options) { o.Secret = nil })
	other := start(t, 3, func(o *Options) { o.Secret = []byte("open barley") })
	refused(t, join(t, none, a), ErrSecret, "this node has none")
	refused(t, join(t, a, none), ErrSecret, "has no secret")
	refused(t, join(t, other, a), ErrSecret, "another secret")
	if len(a.Members())+len(none.Members())+len(other.Members()) != 0 {
		t.Fatal("members all the same")
	}
}

func TestPlainGossip(t *testing.T) {
	t.Parallel()
	none := func(o *Options) { o.Secret = nil }
	a, b := start(t, 1, none), start(t, 2, none)
	mustJoin(t, b, a)
	sees(t, a, 2, Alive)
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	a := start(t, 1)
	refused(t, a.Join(t.Context(), "127.0.0.1:1"), ErrUnreachable, "127.0.0.1:1")
	refused(t, a.Join(t.Context(), "no-port"), ErrUnreachable, "host:port")

	// A port that is not gossip's, and one that says nothing at all.
	for _, greeting := range []string{"-ERR unknown command\r\n", ""} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				io.WriteString(conn, greeting)
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		refused(t, a.Join(ctx, l.Addr().String()), ErrUnreachable, "gossip port")
		cancel()
	}
}

func TestKilledNodeComesBackElsewhere(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, 1), start(t, 2), start(t, 3)
	mustJoin(t, b, a)
	mustJoin(t, c, a)
	sees(t, b, 3, Alive)
	c.Close()
	sees(t, a, 3, Failed)
	sees(t, b, 3, Failed)
	eventually(t, "the reason shows", func() bool {
		m, _ := find(a, 3)
		return strings.Contains(m.LastError, "refused")
	})

	again := start(t, 3)
	mustJoin(t, again, b)
	sees(t, a, 3, Alive)
	m, _ := find(a, 3)
	if m.Gossip != again.Self().Gossip || m.LastError != "" {
		t.Fatalf("a sees %+v", m)
	}
}

// The old process has not been found dead when the new one joins.
func TestRestartAtOnce(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"elsewhere", "same address"} {
		t.Run(where, func(t *testing.T) {
			a, b := start(t, 1), start(t, 2)
			mustJoin(t, b, a)
			sees(t, a, 2, Alive)
			_, port, _ := net.SplitHostPort(b.Self().Gossip)
			b.Close()
			again := start(t, 2, func(o *Options) {
				if where == "same address" {
					fmt.Sscan(port, &o.Port)
					o.Dir = 4711 // even with an emptied directory
				}
			})
			mustJoin(t, again, a)
			eventually(t, "a sees the new process", func() bool {
				m, ok := find(a, 2)
				return ok && m.State == Alive && m.Facts == again.Self().Facts
			})
			// And goes on seeing it when the old one is found dead.
			eventually(t, "the old process is dropped", func() bool {
				a.mu.Lock()
				defer a.mu.Unlock()
				return len(a.roster.sessions) == 1
			})
			sees(t, a, 2, Alive)
		})
	}
}

// Pitfall 35: members that are down keep nobody from starting, and are found
// when they are up.
func TestStartWithMembersDown(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, stuck := options(7).Facts, options(8).Facts
	gone.Gossip, stuck.Gossip = "127.0.0.1:1", silent.Addr().String()

	b := start(t, 2)
	up := b.Self()
	began := time.Now()
	a := start(t, 1, func(o *Options) { o.Known = []Member{{Facts: gone}, {Facts: stuck}, up} })
	if d := time.Since(began); d > quick.Stream/2 {
		t.Fatalf("start took %v", d)
	}
	sees(t, a, 2, Alive)
	sees(t, b, 1, Alive)
	sees(t, a, 7, Failed)
	sees(t, a, 8, Failed)
}

func TestLeave(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, 1), start(t, 2), start(t, 3)
	mustJoin(t, b, a)
	mustJoin(t, c, a)
	sees(t, b, 3, Alive)
	if err := c.Leave(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	sees(t, a, 3, Left)
	sees(t, b, 3, Left)
	if err := join(t, c, a); !errors.Is(err, ErrClosed) {
		t.Fatalf("joined after leaving: %v", err)
	}
	if err := c.Update(c.Self().Facts); !errors.Is(err, ErrClosed) {
		t.Fatalf("updated after leaving: %v", err)
	}
	c.Close()
	if err := c.Leave(time.Second); !errors.Is(err, ErrClosed) {
		t.Fatalf("left after close: %v", err)
	}
	if err := join(t, c, a); !errors.Is(err, ErrClosed) {
		t.Fatalf("joined after close: %v", err)
	}
	again := start(t, 3)
	mustJoin(t, again, b)
	sees(t, a, 3, Alive)
	sees(t, b, 3, Alive)
}

// A node that leaves can tell only those it knows of; one that it does not know
// (it joined a moment ago) hears of it by the others.
func TestLeaveIsPassedOn(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, 1), start(t, 2), start(t, 3)
	mustJoin(t, b, a)
	mustJoin(t, c, a)
	sees(t, b, 3, Alive)
	sees(t, c, 2, Alive)
	c.mu.Lock()
	for name, s := range c.roster.sessions {
		if s.ID == 2 {
			delete(c.roster.sessions, name)
		}
	}
	c.mu.Unlock()
	if err := c.Leave(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	sees(t, b, 3, Left)
}

func TestForget(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, 1), start(t, 2), start(t, 3)
	mustJoin(t, b, a)
	mustJoin(t, c, a)
	sees(t, a, 3, Alive)
	sees(t, b, 3, Alive)
	a.Forget(3)
	absent := func() {
		t.Helper()
		if m, ok := find(a, 3); ok {
			t.Fatalf("forgotten, and there: %+v", m)
		}
	}
	absent()
	e := refused(t, join(t, c, a), ErrForgotten, "alias-1", "MEET")
	if e.Theirs.ID != 1 {
		t.Fatalf("refused by %v", e.Theirs)
	}
	e = refused(t, join(t, a, c), ErrForgotten, "alias-3", "MEET")
	if e.Theirs.ID != 3 {
		t.Fatalf("refused %v", e.Theirs)
	}
	// The verdict reaches those who are there, and those who come later.
	eventually(t, "b has forgotten c", func() bool { _, there := find(b, 3); return !there })
	d := start(t, 4)
	mustJoin(t, d, b)
	eventually(t, "d has forgotten c", func() bool { return slices.Equal(d.Forgotten(), []uint16{3}) })
	refused(t, join(t, d, c), ErrForgotten)
	absent()
	if got := a.Forgotten(); !slices.Equal(got, []uint16{3}) {
		t.Fatalf("forgotten: %v", got)
	}

	// The newest verdict holds everywhere, whoever gives it.
	d.Allow(3)
	eventually(t, "a allows c again", func() bool { return len(a.Forgotten()) == 0 })
	mustJoin(t, a, c)
	sees(t, a, 3, Alive)
	sees(t, b, 3, Alive)
}

// TestVerdicts: the newer verdict holds in whatever order they come, and bytes
// that are none are nothing.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	list := []Verdict{{2, true, 5}, {2, false, 6}, {3, true, 7}, {3, false, 7}, {1, true, 9}}
	for range 2 {
		r := newRoster(testCard(1, 11, 1, "a:1"))
		for _, v := range list {
			r.judged(v)
		}
		if r.forgotten[2] || !r.forgotten[3] || r.forgotten[1] {
			t.Fatalf("forgotten: %v", r.forgotten)
		}
		slices.Reverse(list)
	}
	b := encodeVerdicts(nil, list)
	if got := decodeVerdicts(b); !slices.Equal(got, list) {
		t.Fatalf("decoded %v", got)
	}
	if decodeVerdicts(b[1:]) != nil || decodeVerdicts(make([]byte, verdictSize)) != nil || decodeVerdicts(make([]byte, verdictSize*(maxVerdicts+1))) != nil {
		t.Fatal("nonsense was decoded")
	}
}

func TestForgottenFromTheStart(t *testing.T) {
	t.Parallel()
	b := start(t, 2)
	a := start(t, 1, func(o *Options) { o.Verdicts, o.Known = []Verdict{{ID: 2, Forgotten: true, At: 1}}, []Member{b.Self()} })
	refused(t, join(t, b, a), ErrForgotten)
	if m := a.Members(); len(m) != 0 {
		t.Fatalf("members: %v", m)
	}
}

func TestUpdatePropagates(t *testing.T) {
	t.Parallel()
	a, b := start(t, 1), start(t, 2)
	mustJoin(t, b, a)
	sees(t, a, 2, Alive)
	f := b.Self().Facts
	f.Alias, f.Region, f.Incarnation, f.WAN = "new", "us", 9, ":1234"
	if err := b.Update(f); err != nil {
		t.Fatal(err)
	}
	f.WAN = "127.0.0.1:1234"
	eventually(t, "a sees the new facts", func() bool { m, _ := find(a, 2); return m.Facts == f })
	f.Alias = strings.Repeat("x", maxName+1)
	if err := b.Update(f); err == nil {
		t.Fatal("took an alias that is too long")
	}
	if b.Self().Alias != "new" {
		t.Fatal("a refused update had an effect")
	}
}

func TestOnChangeIsInOrderAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen [][]Member
	var running atomic.Int32
	gate := make(chan struct{})
	a := start(t, 1, func(o *Options) {
		o.OnChange = func(m []Member) {
			if running.Add(1) != 1 {
				t.Error("two calls at once")
			}
			defer running.Add(-1)
			mu.Lock()
			seen = append(seen, m)
			mu.Unlock()
			<-gate // stuck, for as long as the test likes
		}
	})
	b, c := start(t, 2), start(t, 3)
	mustJoin(t, b, a)
	mustJoin(t, c, a)
	sees(t, a, 3, Alive) // memberlist goes on
	f := b.Self().Facts
	for i := range 20 {
		f.Alias = fmt.Sprint("alias", i)
		if err := b.Update(f); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a sees the last alias", func() bool { m, _ := find(a, 2); return m.Alias == f.Alias })
	close(gate)
	eventually(t, "the last call has the last state", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) > 0 && slices.Equal(seen[len(seen)-1], a.Members())
	})
	mu.Lock()
	defer mu.Unlock()
	last := -2 // "alias-2" is what it begins with
	for _, members := range seen {
		for _, m := range members {
			var n int
			if m.ID != 2 {
				continue
			}
			if _, err := fmt.Sscanf(m.Alias, "alias%d", &n); err == nil {
				if n < last {
					t.Fatalf("alias%d after alias%d", n, last)
				}
				last = n
			}
		}
	}
}

// Pitfall 25: a member that is stopped fails, and comes back without help.
func TestStoppedProcessComesBack(t *testing.T) {
	t.Parallel()
	a, b := start(t, 1), start(t, 2)
	mustJoin(t, b, a)
	p, addr := startChild(t, 3)
	if err := a.Join(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	sees(t, b, 3, Alive)
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	sees(t, a, 3, Failed)
	sees(t, b, 3, Failed)
	sees(t, a, 2, Alive)
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	sees(t, a, 3, Alive)
	sees(t, b, 3, Alive)
}

// Pitfall 34: a member is reached where it says, not where it came from.
func TestBehindPortForward(t *testing.T) {
	t.Parallel()
	fwd, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer fwd.Close()
	b := start(t, 2, func(o *Options) { o.Advertise = fwd.Addr().String() })
	inside := fmt.Sprintf("127.0.0.1:%d", b.transport.NodeAwareTransport.(interface{ GetAutoBindPort() int }).GetAutoBindPort())
	forward(t, fwd, inside)
	if got := b.Self().Gossip; got != fwd.Addr().String() {
		t.Fatalf("advertises %s", got)
	}
	a := start(t, 1)
	mustJoin(t, a, b)
	sees(t, a, 2, Alive)
	sees(t, b, 1, Alive)
	// From a third node, which only a told of b.
	c := start(t, 3)
	mustJoin(t, c, a)
	sees(t, c, 2, Alive)
	if m, _ := find(c, 2); m.Gossip != fwd.Addr().String() {
		t.Fatalf("c sees b at %s", m.Gossip)
	}
}

// forward passes TCP and UDP that come to l's address on to another.
func forward(t *testing.T, l net.Listener, to string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	dst, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], dst)
		}
	}()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go func() { io.Copy(out, in); out.(*net.TCPConn).CloseWrite() }()
			go func() { io.Copy(in, out); in.Close(); out.Close() }()
		}
	}()
}

func TestAdvertisedAddress(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"0.0.0.0", "::", "0.0.0.0:7", "host.invalid", "127.0.0.1:x"} {
		o := options(1)
		o.Advertise = bad
		if g, err := Start(o); err == nil {
			g.Close()
			t.Errorf("advertises %s", bad)
		}
	}
	g := start(t, 1, func(o *Options) { o.Bind, o.RESP = "", ":9001" })
	for _, addr := range []string{g.Self().Gossip, g.Self().RESP} {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || ip == nil || ip.IsUnspecified() {
			t.Errorf("advertises %s, %v", addr, err)
		}
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	a := start(t, 1)
	o := options(2)
	_, port, _ := net.SplitHostPort(a.Self().Gossip)
	fmt.Sscan(port, &o.Port)
	if g, err := Start(o); err == nil {
		g.Close()
		t.Fatal("two nodes on one port")
	} else if !strings.Contains(err.Error(), port) {
		t.Fatal(err)
	}
}

func TestNoSecretInLog(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	a := start(t, 1, func(o *Options) { o.Logger = logger })
	other := start(t, 2, func(o *Options) { o.Logger, o.Secret = logger, []byte("open barley") })
	join(t, other, a)
	a.Close()
	other.Close()
	mu.Lock()
	defer mu.Unlock()
	key, _ := deriveKey([]byte("open sesame"), labelGossip)
	for _, s := range []string{"sesame", "barley", string(key), fmt.Sprintf("%x", key), fmt.Sprint(key)} {
		if strings.Contains(log.String(), s) {
			t.Fatalf("the log has %q:\n%s", s, &log)
		}
	}
	if !strings.Contains(log.String(), "another secret") {
		t.Fatalf("the refusal is not in the log:\n%s", &log)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Connections that say nothing, or nonsense, keep nobody out for good and do
// not hold up Close.
func TestFloodOfStrangers(t *testing.T) {
	t.Parallel()
	a, b := start(t, 1), start(t, 2)
	for i := range 2 * maxPeeks {
		conn, err := net.Dial("tcp", a.Self().Gossip)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%4 == 0 {
			io.WriteString(conn, "RK\x01\x01\xff\xffGET / HTTP/1.0\r\n\r\n")
		}
	}
	eventually(t, "b gets in", func() bool { return join(t, b, a) == nil })
	began := time.Now()
	a.Close()
	if d := time.Since(began); d > 2*time.Second {
		t.Fatalf("close took %v", d)
	}
}

func TestCloseTwice(t *testing.T) {
	t.Parallel()
	g := start(t, 1)
	for range 2 {
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
