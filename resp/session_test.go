package resp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/resp/command"
)

// A pipeline of 10,000 commands of all sorts, in pieces of any size, is
// answered in order, each command seeing what those before it did.
func TestPipelineInOrder(t *testing.T) {
	ts := start(t, nil)
	rng := mrand.New(mrand.NewPCG(3, 4))
	var in strings.Builder
	var want []string
	db, counts, name := 0, [Databases]int{}, ""
	bulk := func(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }
	for i := range 10_000 {
		text := strconv.Itoa(i)
		switch rng.IntN(12) {
		case 0:
			in.WriteString(encode("PING", text))
			want = append(want, bulk(text))
		case 1:
			db = rng.IntN(Databases)
			in.WriteString("SELECT " + strconv.Itoa(db) + "\r\n")
			want = append(want, "+OK\r\n")
		case 2:
			in.WriteString(encode("nosuch", text))
			want = append(want, "-ERR unknown command 'nosuch', with args beginning with: '"+text+"' \r\n")
		case 3:
			in.WriteString(encode("GET"))
			want = append(want, "-ERR wrong number of arguments for 'get' command\r\n")
		case 4:
			name = "n" + text
			in.WriteString(encode("CLIENT", "SETNAME", name))
			want = append(want, "+OK\r\n")
		case 5:
			in.WriteString(encode("CLIENT", "GETNAME"))
			if name == "" {
				want = append(want, "$-1\r\n")
			} else {
				want = append(want, bulk(name))
			}
		case 6:
			big := strings.Repeat("v", rng.IntN(3*directReply))
			in.WriteString(encode("SET", "big", big) + encode("GET", "big"))
			want = append(want, "+OK\r\n", bulk(big))
		case 7:
			in.WriteString(encode("MEET", "h:"+text))
			want = append(want, bulk("MEET h:"+text))
		default:
			counts[db]++
			in.WriteString(encode("INCR", "n"))
			want = append(want, ":"+strconv.Itoa(counts[db])+"\r\n")
		}
	}
	c := ts.dial()
	go func() {
		data := []byte(in.String())
		for len(data) > 0 {
			n := min(len(data), 1+rng.IntN(1<<rng.IntN(18)))
			if _, err := c.Write(data[:n]); err != nil {
				return
			}
			data = data[n:]
		}
	}()
	for i, w := range want {
		if got := c.reply(); got != w {
			t.Fatalf("reply %d: got %.100q, want %.100q", i, got, w)
		}
	}
}

// Data commands that follow each other reach the backend together, in batches
// that stay bounded.
func TestBatches(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	const n = 20_000
	go func() { _, _ = io.WriteString(c.Conn, strings.Repeat(encode("INCR", "n"), n)) }()
	for i := 1; i <= n; i++ {
		if got, want := c.reply(), ":"+strconv.Itoa(i)+"\r\n"; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	ts.mem.mu.Lock()
	defer ts.mem.mu.Unlock()
	if largest := slices.Max(ts.mem.batches); largest > maxBatch || largest < firstBatch {
		t.Errorf("the largest batch had %d commands", largest)
	}
	if len(ts.mem.batches) > n/8 {
		t.Errorf("%d batches for %d commands", len(ts.mem.batches), n)
	}
}

// A client may send a whole pipeline before it reads a reply.
func TestWriteAllThenRead(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	c.want("+OK\r\n", "SET", "k", strings.Repeat("v", 10_000))
	const n = 4000 // 40 MB of replies, far beyond socket buffers
	c.send(strings.Repeat(encode("GET", "k")+encode("PING"), n))
	for range n {
		if got := len(c.reply()); got != 10_000+len("$10000\r\n\r\n") {
			t.Fatalf("a reply of %d bytes", got)
		}
		if got := c.reply(); got != "+PONG\r\n" {
			t.Fatal(got)
		}
	}
}

// A bug in the backend costs its command an error, not the process.
func TestBugs(t *testing.T) {
	ts := start(t, goroutines)
	c := ts.dial()
	c.send(encode("SET", "a", "1") + encode("STRLEN", "a") + encode("GET", "a"))
	for i, want := range []string{"+OK\r\n", "-ERR internal error in 'strlen'", "-ERR internal error in 'get'"} {
		if got := c.reply(); !strings.HasPrefix(got, want) {
			t.Errorf("reply %d: got %q, want %q", i, got, want)
		}
	}
	c.want("$1\r\n1\r\n", "GET", "a")
	if got := c.do("TTL", "a"); !strings.HasPrefix(got, "-ERR internal error in 'ttl'") {
		t.Error(got)
	}
	c.want("+PONG\r\n", "PING")
	if !strings.Contains(ts.logs.String(), "a bug in the backend") {
		t.Error("not logged:", ts.logs)
	}
}

// Every Session command of the table has a handler here, and every handler a
// row.
func TestHandlersMatchTable(t *testing.T) {
	rows := map[string]bool{}
	var walk func([]*command.Command)
	walk = func(list []*command.Command) {
		for _, cmd := range list {
			if cmd.Flags&command.Session != 0 && cmd.Refused == "" {
				rows[cmd.Name] = true
				if handlers[cmd.Name] == nil && cmd.Name != "QUIT" && cmd.Name != "EXEC" {
					t.Errorf("no handler for %s", cmd.Name)
				}
			}
			walk(cmd.Sub)
		}
	}
	walk(command.All())
	for name := range handlers {
		if !rows[name] {
			t.Errorf("no row for %s", name)
		}
	}
}

func TestAuth(t *testing.T) {
	ts := start(t, func(o *Options) { o.RequirePass = "hunter2" })
	c := ts.dial()
	c.want("-NOAUTH Authentication required.\r\n", "GET", "k")
	c.want("-NOAUTH Authentication required.\r\n", "MULTI")
	c.want("-NOAUTH Authentication required.\r\n", "MEET", "h:1")
	c.want("-"+errWrongPass+"\r\n", "AUTH", "hunter3")
	// The password lets in what follows it in the same pipeline, however large.
	big := strings.Repeat("x", unauthMaxBulk+1)
	c.send(encode("AUTH", "hunter2") + encode("SET", "k", big) + encode("GET", "k"))
	if got := c.reply() + c.reply(); got != "+OK\r\n+OK\r\n" {
		t.Fatal(got)
	}
	if got := c.reply(); !strings.Contains(got, big) {
		t.Errorf("%.50q", got)
	}
	// Who is in stays in when the password changes; others need the new one.
	c.want("+OK\r\n", "CONFIG", "SET", "requirepass", "correct horse")
	c.want(":1\r\n", "EXISTS", "k")
	d := ts.dial()
	d.want("-"+errWrongPass+"\r\n", "AUTH", "hunter2")
	d.want("+OK\r\n", "AUTH", "default", "correct horse")
	d.want("+RESET\r\n", "RESET")
	d.want("-NOAUTH Authentication required.\r\n", "GET", "k")
	if got := c.do("INFO", "stats"); !strings.Contains(got, "acl_access_denied_auth:2\r\n") {
		t.Error(got)
	}
	if got := c.do("CONFIG", "GET", "*"); strings.Contains(got, "horse") {
		t.Error("CONFIG GET * shows the password")
	}
	c.want("*2\r\n$11\r\nrequirepass\r\n$13\r\ncorrect horse\r\n", "CONFIG", "GET", "requirepass")
	c.want("+OK\r\n", "CONFIG", "SET", "slowlog-log-slower-than", "0")
	c.do("AUTH", "correct horse")
	c.do("HELLO", "2", "AUTH", "default", "correct horse")
	c.do("CONFIG", "SET", "requirepass", "correct horse")
	for _, cmd := range [][]string{{"SLOWLOG", "GET", "-1"}, {"CLIENT", "LIST"}, {"INFO", "everything"}} {
		if got := c.do(cmd...); strings.Contains(got, "horse") || strings.Contains(got, "hunter") {
			t.Errorf("%v shows a password: %s", cmd, got)
		}
	}
	if logs := ts.logs.String(); strings.Contains(logs, "horse") || strings.Contains(logs, "hunter") {
		t.Error("the log shows a password:", logs)
	}
}

func TestLoading(t *testing.T) {
	ts := start(t, nil)
	why := "LOADING the view is being rebuilt"
	ts.mem.loading.Store(&why)
	c := ts.dial()
	c.want("-"+why+"\r\n", "GET", "k")
	c.want("-"+why+"\r\n", "SET", "k", "v")
	c.want("+OK\r\n", "SELECT", "1")
	if got := c.do("INFO", "persistence"); !strings.Contains(got, "loading:1\r\n") {
		t.Error(got)
	}
	ts.mem.loading.Store(nil)
	c.want("$-1\r\n", "GET", "k")
}

func TestClientCommands(t *testing.T) {
	ts := start(t, nil)
	a, b, c := ts.dial(), ts.dial(), ts.dial()
	for i, x := range []*client{a, b, c} {
		x.want(fmt.Sprintf(":%d\r\n", i+1), "CLIENT", "ID")
	}
	a.want("+OK\r\n", "CLIENT", "SETNAME", "alice")
	a.want("+OK\r\n", "CLIENT", "SETINFO", "lib-name", "testlib")
	b.want("+OK\r\n", "SELECT", "7")
	list := a.do("CLIENT", "LIST")
	for _, want := range []string{"id=1 ", " name=alice ", "lib-name=testlib", "id=2 ", " db=7 ", "cmd=client|list", "addr=" + a.LocalAddr().String()} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in %q", want, list)
		}
	}
	if got := a.do("CLIENT", "LIST", "ID", "2", "3", "9"); strings.Count(got, "id=") != 2 {
		t.Error(got)
	}
	// By id, by address, by both, oneself.
	a.want(":1\r\n", "CLIENT", "KILL", "ID", "2")
	b.closed()
	a.want("+OK\r\n", "CLIENT", "KILL", c.LocalAddr().String())
	c.closed()
	d := ts.dial()
	d.want("+PONG\r\n", "PING")
	a.want(":0\r\n", "CLIENT", "KILL", "ID", "4", "ADDR", a.LocalAddr().String())
	a.want(":0\r\n", "CLIENT", "KILL", "ID", "1")
	a.want(":1\r\n", "CLIENT", "KILL", "TYPE", "normal")
	d.closed()
	a.want(":1\r\n", "CLIENT", "KILL", "ID", "1", "SKIPME", "no")
	a.closed()
}

func TestClientReply(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	c.send(encode("INCR", "n") + encode("CLIENT", "REPLY", "SKIP") + encode("INCR", "n") + encode("INCR", "n") +
		encode("CLIENT", "REPLY", "OFF") + encode("INCR", "n") + encode("PING") + encode("nosuch") + encode("INCR", "n") +
		encode("CLIENT", "REPLY", "ON") + encode("INCR", "n"))
	if got := c.reply() + c.reply() + c.reply() + c.reply(); got != ":1\r\n:3\r\n+OK\r\n:6\r\n" {
		t.Errorf("%q", got)
	}
}

// A pause holds writes, or everything, in place, and lets go in order.
func TestClientPause(t *testing.T) {
	ts := start(t, nil)
	a, b := ts.dial(), ts.dial()
	a.want("+OK\r\n", "CLIENT", "PAUSE", "100000", "WRITE")
	b.send(encode("GET", "n") + encode("INCR", "n") + encode("GET", "n"))
	if got := b.reply(); got != "$-1\r\n" {
		t.Error(got)
	}
	a.want("$-1\r\n", "GET", "n") // not written meanwhile
	a.want("+OK\r\n", "CLIENT", "UNPAUSE")
	if got := b.reply() + b.reply(); got != ":1\r\n$1\r\n1\r\n" {
		t.Error(got)
	}
	begun := time.Now()
	a.want("+OK\r\n", "CLIENT", "PAUSE", "50")
	b.want("$1\r\n1\r\n", "GET", "n")
	if d := time.Since(begun); d < 50*time.Millisecond {
		t.Errorf("held back for %v", d)
	}
}

func TestConfigOfBackend(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	c.want("*2\r\n$5\r\nfsync\r\n$6\r\nalways\r\n", "CONFIG", "GET", "FSYN?")
	c.want("+OK\r\n", "CONFIG", "SET", "fsync", "everysec", "timeout", "5")
	c.want("*4\r\n$5\r\nfsync\r\n$8\r\neverysec\r\n$7\r\ntimeout\r\n$1\r\n5\r\n", "CONFIG", "GET", "fsync", "timeout")
	// What the server enforces is as the server has it.
	c.want("+OK\r\n", "CONFIG", "SET", "maxclients", "77")
	c.want("*4\r\n$3\r\ndir\r\n$5\r\n/data\r\n$10\r\nmaxclients\r\n$2\r\n77\r\n", "CONFIG", "GET", "maxclients", "dir")
	// All or none, whichever fails.
	c.want("-ERR CONFIG SET failed (possibly related to argument 'region') - can't set immutable config\r\n",
		"CONFIG", "SET", "timeout", "6", "fsync", "always", "region", "us")
	c.want("-ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer\r\n",
		"CONFIG", "SET", "fsync", "always", "timeout", "x")
	c.want("*4\r\n$5\r\nfsync\r\n$8\r\neverysec\r\n$7\r\ntimeout\r\n$1\r\n5\r\n", "CONFIG", "GET", "fsync", "timeout")
}

func TestInfo(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	c.do("SET", "k", "v")
	c.do("GET")
	c.do("STRLEN", "k")
	section := func(args ...string) string { return c.do(append([]string{"INFO"}, args...)...) }
	_, port, _ := net.SplitHostPort(ts.addr)
	usual := section()
	for _, want := range []string{
		"# Server\r\n", "redis_version:7.0.15\r\n", "replicatord_version:test\r\n", "tcp_port:" + port + "\r\n",
		"connected_clients:1\r\n", "total_connections_received:1\r\n", "total_commands_processed:2\r\n",
		"role:master\r\n", "connected_members:2\r\n", "connected_slaves:7\r\n", "errorstat_ERR:count=2\r\n",
		"# Node\r\nnode_id:9\r\nasked:\r\n", "# Keyspace\r\n", "used_cpu_user:",
	} {
		if !strings.Contains(usual, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(usual, "cmdstat_") || strings.Count(usual, "connected_slaves:") != 1 {
		t.Error("too much in INFO")
	}
	if got := section("commandstats"); !strings.Contains(got, "cmdstat_set:calls=1,") || !strings.Contains(got, "failed_calls=1\r\n") {
		t.Error(got)
	}
	if got := section("NODE"); !strings.HasPrefix(got[strings.Index(got, "\n")+1:], "# Node\r\nnode_id:9\r\nasked:node\r\n") {
		t.Error(got)
	}
	if got := section("server", "clients"); strings.Contains(got, "# Stats") || !strings.Contains(got, "# Clients") {
		t.Error(got)
	}
	if got := section("everything"); !strings.Contains(got, "cmdstat_info") {
		t.Error(got)
	}
	c.want("+OK\r\n", "CONFIG", "RESETSTAT")
	if got := section("stats"); !strings.Contains(got, "total_error_replies:0\r\n") {
		t.Error(got)
	}
}

func TestSlowlog(t *testing.T) {
	ts := start(t, func(o *Options) { o.SlowLogTime = -1 })
	c := ts.dial()
	c.do("SET", "k", "v")
	c.want(":0\r\n", "SLOWLOG", "LEN")
	c.want("+OK\r\n", "CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "3")
	c.do("CLIENT", "SETNAME", "me")
	for range 5 {
		c.do("SET", "k", strings.Repeat("v", 200))
	}
	c.want(":3\r\n", "SLOWLOG", "LEN")
	got := c.do("SLOWLOG", "GET", "2")
	if !strings.HasPrefix(got, "*2\r\n*6\r\n") || !strings.Contains(got, strings.Repeat("v", 128)+"... (72 more bytes)") ||
		!strings.Contains(got, "$2\r\nme\r\n") {
		t.Error(got)
	}
	// Of a transaction the commands are logged, and EXEC is not.
	for _, line := range []string{"MULTI", "GET in", "PING in", "EXEC", "CONFIG SET slowlog-log-slower-than -1"} {
		c.do(strings.Fields(line)...)
	}
	got = c.do("SLOWLOG", "GET", "2")
	if i, j := strings.Index(got, "PING\r\n$2\r\nin"), strings.Index(got, "GET\r\n$2\r\nin"); i < 0 || j < i {
		t.Error(got)
	}
}

func TestGoRedis(t *testing.T) {
	ts := start(t, func(o *Options) { o.RequirePass = "p" })
	ctx := context.Background()
	for _, proto := range []int{2, 3} { // asked for 3, it makes do with 2
		r := redis.NewClient(&redis.Options{Addr: ts.addr, Password: "p", Protocol: proto, DB: 3, ClientName: "go"})
		value := strings.Repeat("\x00\r\n$", 300_000)
		if err := r.Set(ctx, "k\r\n\x00", value, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Get(ctx, "k\r\n\x00").Result(); err != nil || got != value {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		cmds, err := r.Pipelined(ctx, func(p redis.Pipeliner) error {
			for range 5000 {
				p.Incr(ctx, "n"+strconv.Itoa(proto))
			}
			return nil
		})
		if err != nil || cmds[4999].(*redis.IntCmd).Val() != 5000 {
			t.Fatal(err)
		}
		if info, err := r.InfoMap(ctx, "server").Result(); err != nil || info["Server"]["redis_version"] != RedisVersion {
			t.Fatal(info, err)
		}
		if list, err := r.Command(ctx).Result(); err != nil || list["get"] == nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRedisCLI(t *testing.T) {
	ts := start(t, nil)
	host, port, _ := net.SplitHostPort(ts.addr)
	cli := func(in string, args ...string) string {
		cmd := exec.Command("redis-cli", append([]string{"-h", host, "-p", port}, args...)...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("redis-cli %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for _, c := range []struct{ in, want string }{
		{"set k 'a b'\nget k\nincr n\n", "OK\n\"a b\"\n(integer) 1\n"},
		{"select 3\nget k\n", "OK\n(nil)\n"},
		{"meet 127.0.0.1:9002\n", "\"MEET 127.0.0.1:9002\"\n"},
	} {
		if got := cli(c.in, "--no-raw"); strings.TrimSpace(got) != strings.TrimSpace(c.want) {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
	if got := cli(strings.Repeat(encode("INCR", "p"), 10_000), "--pipe"); !strings.Contains(got, "errors: 0, replies: 10000") {
		t.Error(got)
	}
}

func TestTLS(t *testing.T) {
	cert := testCert(t)
	ts := start(t, func(o *Options) { o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	ctx := context.Background()
	r := redis.NewClient(&redis.Options{Addr: ts.addr, TLSConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}})
	defer func() { _ = r.Close() }()
	value := strings.Repeat("v", 5<<20)
	if err := r.Set(ctx, "k", value, 0).Err(); err != nil {
		t.Fatal(err)
	}
	cmds, err := r.Pipelined(ctx, func(p redis.Pipeliner) error {
		for range 10 {
			p.Get(ctx, "k")
		}
		return nil
	})
	if err != nil || cmds[9].(*redis.StringCmd).Val() != value {
		t.Fatal(err)
	}
	// Who does not speak TLS is cut off.
	c := ts.dial()
	c.send("PING\r\n")
	if b, _ := io.ReadAll(c.r); bytes.Contains(b, []byte("PONG")) {
		t.Errorf("%q", b)
	}
}

func testCert(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A client that is quiet gives its read buffer up, is served as before when it
// comes back, and loses nothing of a command that it had begun.
func TestQuietClientsHoldNoBuffer(t *testing.T) {
	ts := start(t, goroutines)
	a, b, admin := ts.dial(), ts.dial(), ts.dial()
	a.want("+OK\r\n", "CLIENT", "SETNAME", "quiet")
	b.want("+OK\r\n", "CLIENT", "SETNAME", "begun")
	b.send("*2\r\n$4\r\nECHO\r\n$5\r\nhe")
	buffer := func(name string) int {
		for line := range strings.Lines(admin.do("CLIENT", "LIST")) {
			var used, free int
			if _, rest, ok := strings.Cut(line, " name="+name+" "); ok {
				_, rest, _ = strings.Cut(rest, "qbuf=")
				if _, err := fmt.Sscanf(rest, "%d qbuf-free=%d", &used, &free); err != nil {
					t.Fatal(err)
				}
				return used + free
			}
		}
		return -1
	}
	if n := buffer("quiet"); n != minBuffer {
		t.Errorf("a buffer of %d", n)
	}
	eventually(t, "it has none", func() bool { return buffer("quiet") == 0 })
	if n := buffer("begun"); n != minBuffer {
		t.Errorf("a buffer of %d for half a command", n)
	}
	b.send("llo\r\n")
	if got := b.reply(); got != "$5\r\nhello\r\n" {
		t.Errorf("%q", got)
	}
	long := strings.Repeat("x", 3*wakeBuffer)
	a.want("$"+strconv.Itoa(len(long))+"\r\n"+long+"\r\n", "ECHO", long)
	if n := buffer("quiet"); n != minBuffer {
		t.Errorf("a buffer of %d afterwards", n)
	}
}

// TestHelpIsComplete: HELP of each command that has subcommands names all that are
// carried out.
func TestHelpIsComplete(t *testing.T) {
	c := start(t, nil).dial()
	for _, container := range command.All() {
		if !slices.ContainsFunc(container.Sub, func(s *command.Command) bool {
			return s.Name == container.Name+"|HELP" && s.Refused == "" && s.Flags&command.Session != 0
		}) {
			continue
		}
		text := "\n" + strings.ReplaceAll(c.do(container.Name, "HELP"), "+", "")
		for _, sub := range container.Sub {
			_, name, _ := strings.Cut(sub.Name, "|")
			if sub.Refused == "" && !strings.Contains(text, "\n"+name) {
				t.Errorf("%s HELP does not name %s:\n%s", container.Name, name, text)
			}
		}
	}
}
