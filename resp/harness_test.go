package resp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

// Sessions go to a loop whenever they can, but for servers started with goroutines.
func init() { loopAfter = 0 }

func goroutines(o *Options) { o.Loops = -1 }

// mapBackend is a backend that keeps strings in maps: enough to tell whether
// commands arrive whole, in order and in the right database.
type mapBackend struct {
	mu      sync.Mutex
	data    [Databases]map[string][]byte
	batches []int // sizes, of the first thousand
	loading atomic.Pointer[string]
	hold    chan struct{} // Execute waits for it, if set
	entered chan struct{} // and says here that it does
	params  map[string]string
	level   atomic.Int64
	scripts *command.Scripts
	asked   atomic.Pointer[func()] // is called by Info
	watched map[*Session]bool      // and whether something was written since
	kept    func([]*Request) int   // Recall
	holding int                    // what Holding returns
}

func newMapBackend() *mapBackend {
	m := &mapBackend{params: map[string]string{"fsync": "always", "region": "eu"}}
	m.scripts = command.NewScripts(func() int64 { return 0 }, nil, func() uint32 { return 1 })
	for i := range m.data {
		m.data[i] = map[string][]byte{}
	}
	return m
}

func (m *mapBackend) LevelMembers(time.Duration) int { return int(m.level.Load()) }

func (m *mapBackend) Scripts() *command.Scripts { return m.scripts }

func (m *mapBackend) Unblock(*Session, []byte) bool { return false }

func (m *mapBackend) ViewDocs([][]byte) []byte { return nil }

func (m *mapBackend) Recall(reqs []*Request) int {
	if m.kept == nil {
		return 0
	}
	return m.kept(reqs)
}

func (m *mapBackend) Holding([]*Request) int { return m.holding }

func (m *mapBackend) Execute(reqs []*Request) {
	if m.hold != nil {
		m.entered <- struct{}{}
		<-m.hold
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.batches) < 1000 {
		m.batches = append(m.batches, len(reqs))
	}
	for _, q := range reqs {
		m.request(q)
	}
}

func (m *mapBackend) Start(batches []Batch) {
	for _, b := range batches {
		go func() {
			defer b.Done()
			defer func() { _ = recover() }() // its requests are left without replies
			m.Execute(b.Requests)
		}()
	}
}

func (m *mapBackend) request(q *Request) {
	r := command.Reply{Proto: q.Proto}
	if dirty := m.watched[q.Session]; len(q.Subs) > 0 {
		delete(m.watched, q.Session)
		if dirty {
			r.NullArray()
			q.Out = r.Buf
			return
		}
		for _, sub := range q.Subs {
			m.request(sub)
		}
		return
	}
	switch q.Cmd.Name {
	case "WATCH":
		if m.watched == nil {
			m.watched = map[*Session]bool{}
		}
		if _, ok := m.watched[q.Session]; !ok {
			m.watched[q.Session] = false
		}
		r.OK()
	case "UNWATCH":
		delete(m.watched, q.Session)
		r.OK()
	default:
		if q.Cmd.Flags&command.Write != 0 {
			for s := range m.watched {
				m.watched[s] = true
			}
		}
		if q.Tracks && q.Cmd.Flags&command.ReadOnly != 0 {
			for _, ref := range q.Cmd.FindKeys(q.Args) {
				q.Session.Track([]string{string(q.Args[ref.Arg])})
			}
		}
		m.one(q, &r)
	}
	q.Out = r.Buf
}

func (m *mapBackend) one(q *Request, r *command.Reply) {
	db := m.data[q.DB]
	switch q.Cmd.Name {
	case "GET":
		if v, ok := db[string(q.Args[1])]; ok {
			r.Bulk(v)
		} else {
			r.Null()
		}
	case "SET":
		db[string(q.Args[1])] = q.Args[2]
		r.OK()
	case "APPEND":
		db[string(q.Args[1])] = append(slices.Clip(db[string(q.Args[1])]), q.Args[2]...)
		r.Int(int64(len(db[string(q.Args[1])])))
	case "INCR":
		n, err := strconv.ParseInt(string(db[string(q.Args[1])]), 10, 64)
		if err != nil && len(db[string(q.Args[1])]) > 0 {
			r.Error("ERR value is not an integer or out of range")
			return
		}
		db[string(q.Args[1])] = strconv.AppendInt(nil, n+1, 10)
		r.Int(n + 1)
	case "DEL":
		n := 0
		for _, k := range q.Args[1:] {
			if _, ok := db[string(k)]; ok {
				n++
				delete(db, string(k))
			}
		}
		r.Int(int64(n))
	case "EXISTS":
		n := 0
		for _, k := range q.Args[1:] {
			if _, ok := db[string(k)]; ok {
				n++
			}
		}
		r.Int(int64(n))
	case "DBSIZE":
		r.Int(int64(len(db)))
	case "FLUSHALL":
		for i := range m.data {
			clear(m.data[i])
		}
		r.OK()
	case "STRLEN":
		panic("a bug in the backend")
	case "TTL": // the backend forgets to answer
	default:
		r.Error("ERR the test's backend has no " + q.Cmd.Name)
	}
}

func (m *mapBackend) Publish(_, _ []byte, _ bool) {}

func (m *mapBackend) Admin(_ *Session, cmd *command.Command, args [][]byte) []byte {
	var r command.Reply
	r.BulkString(cmd.Name + " " + string(bytes.Join(args[1:], []byte(" "))))
	return r.Buf
}

func (m *mapBackend) Info(section string) []Section {
	repl := Section{Name: "Replication"}
	repl.Add("connected_members", "2")
	repl.Add("connected_slaves", "7")
	if ask := m.asked.Load(); ask != nil {
		(*ask)()
	}
	return []Section{repl, {Name: "Node", Fields: []Field{{"node_id", "9"}, {"asked", section}}}}
}

func (m *mapBackend) Loading() string {
	if p := m.loading.Load(); p != nil {
		return *p
	}
	return ""
}

func (m *mapBackend) ConfigGet() []Param {
	m.mu.Lock()
	defer m.mu.Unlock()
	return []Param{{"fsync", m.params["fsync"]}, {"region", m.params["region"]}, {"maxclients", "9"}, {"dir", "/data"}}
}

func (m *mapBackend) ConfigSet(name, value string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch name {
	case "fsync":
		if value != "always" && value != "everysec" {
			return errors.New("argument must be always or everysec")
		}
		m.params[name] = value
		return nil
	case "region":
		return ErrImmutable
	}
	return ErrUnknownParam
}

// logBuffer is a log that a test reads while others write.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testServer is a server on a loopback port for one test.
type testServer struct {
	*Server
	t    testing.TB
	mem  *mapBackend
	addr string
	logs *logBuffer
	done chan error
}

func start(t testing.TB, change func(*Options)) *testServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ts := &testServer{t: t, mem: newMapBackend(), addr: ln.Addr().String(), logs: &logBuffer{}, done: make(chan error, 1)}
	opt := Options{Backend: ts.mem, Version: "test", Logger: slog.New(slog.NewTextHandler(ts.logs, nil))}
	if change != nil {
		change(&opt)
	}
	if ts.Server, err = New(opt); err != nil {
		t.Fatal(err)
	}
	go func() { ts.done <- ts.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = ts.Close(ctx)
		if err := <-ts.done; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
		if n := ts.budget.used.Load(); n != 0 {
			t.Errorf("%d bytes of the budget were not given back", n)
		}
	})
	return ts
}

// client is a raw connection.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (ts *testServer) dial() *client {
	ts.t.Helper()
	return dial(ts.t, "tcp", ts.addr)
}

func dial(t testing.TB, network, addr string) *client {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs fails
	return &client{t: t, Conn: conn, r: bufio.NewReader(conn)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads one reply and returns its bytes.
func (c *client) reply() string {
	c.t.Helper()
	s, err := readReply(c.r)
	if err != nil {
		c.t.Fatalf("no reply: %v, after %q", err, s)
	}
	return s
}

func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return line, err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch line[0] {
	case '$':
		if n < 0 {
			return line, nil
		}
		b := make([]byte, n+2)
		_, err := io.ReadFull(r, b)
		return line + string(b), err
	case '=':
		b := make([]byte, n+2)
		_, err := io.ReadFull(r, b)
		return line + string(b), err
	case '*', '~', '>', '%':
		if line[0] == '%' {
			n *= 2
		}
		for range n {
			s, err := readReply(r)
			line += s
			if err != nil {
				return line, err
			}
		}
	}
	return line, nil
}

// do sends one command and returns its reply.
func (c *client) do(args ...string) string {
	c.t.Helper()
	c.send(encode(args...))
	return c.reply()
}

// want sends one command and checks its reply.
func (c *client) want(want string, args ...string) {
	c.t.Helper()
	if got := c.do(args...); got != want {
		c.t.Errorf("%q: got %q, want %q", args, got, want)
	}
}

// closed checks that the server has closed the connection, with nothing more to
// read.
func (c *client) closed() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); len(b) > 0 || isTimeout(err) {
		c.t.Errorf("not closed: %q, %v", b, err)
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func encode(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// realRedis starts a redis-server of its own and returns its socket.
func realRedis(t testing.TB, args ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	cmd := exec.Command("redis-server", append([]string{"--port", "0", "--unixsocket", sock, "--dir", dir, "--save", ""}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatalf("the test needs redis-server: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	eventually(t, "redis-server answers", func() bool {
		conn, err := net.Dial("unix", sock)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return sock
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}
