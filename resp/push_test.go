package resp

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/command"
	"github.com/replicatord/replicatord/resp/script"
)

// duo is a client of the server under test and one of a real redis-server, to
// both of which the same is said.
type duo struct {
	t        *testing.T
	ours, to *client
}

func newDuo(t *testing.T, ts *testServer, redis string) *duo {
	t.Helper()
	return &duo{t, ts.dial(), dial(t, "unix", redis)}
}

// same sends a line to both and compares n replies, and pushes, to the byte.
func (d *duo) same(n int, line string) {
	d.t.Helper()
	words := fields(d.t, line)
	d.ours.send(encode(words...))
	d.to.send(encode(words...))
	d.read(n, line)
}

// read compares n more replies or pushes.
func (d *duo) read(n int, what string) {
	d.t.Helper()
	for range n {
		got, want := d.ours.reply(), d.to.reply()
		if strings.HasPrefix(what, "hello") {
			got, want = noID(got), noID(want)
		}
		if got != want {
			d.t.Errorf("%s:\n got %q\nwant %q", what, got, want)
		}
	}
}

func fields(t *testing.T, line string) []string {
	t.Helper()
	args, ok := script.SplitArgs([]byte(line))
	if !ok {
		t.Fatal(line)
	}
	words := make([]string, len(args))
	for i := range args {
		words[i] = string(args[i])
	}
	return words
}

// silent checks that nothing more came than a PING's reply.
func (d *duo) silent() {
	d.t.Helper()
	d.same(1, "ping")
}

// Publish and subscribe answer as Redis does, in both protocols.
func TestPubSubAsRedis(t *testing.T) {
	redis := realRedis(t)
	ts := start(t, nil)
	for _, proto := range []string{"2", "3"} {
		sub, pub := newDuo(t, ts, redis), newDuo(t, ts, redis)
		sub.same(1, "hello "+proto)
		sub.same(2, "subscribe a b")
		sub.same(1, "subscribe a")
		sub.same(1, "psubscribe a*")
		sub.same(2, "psubscribe [ab] h?llo")
		sub.same(1, "ssubscribe s1")
		sub.same(1, "ping")
		sub.same(1, "ping x")
		sub.same(1, "ping x y")
		sub.same(1, "get a")
		sub.same(1, "config get maxclients")
		sub.same(1, "nosuch")
		sub.same(1, "get")
		sub.same(1, "echo x")
		for _, line := range []string{
			"publish nobody x", "publish hello 1", "spublish s1 x", "spublish a x", "publish b 2",
			"pubsub channels a*", "pubsub channels a b", "pubsub numsub", "pubsub numsub a b c", "pubsub numpat", "pubsub numpat x",
			"pubsub shardchannels", "pubsub shardchannels x*", "pubsub shardnumsub s1 x", "pubsub help", "pubsub nosuch", "pubsub",
			"subscribe", "publish a", "spublish a", "unsubscribe", "unsubscribe x", "punsubscribe", "punsubscribe x y", "sunsubscribe", "sunsubscribe x",
		} {
			n := 1
			if line == "punsubscribe x y" {
				n = 2
			}
			pub.same(n, line)
		}
		sub.read(1, "pmessage of hello")
		sub.read(1, "smessage")
		sub.read(2, "message and pmessage of b")
		sub.same(2, "unsubscribe b zz")
		sub.same(1, "unsubscribe")
		sub.same(1, "unsubscribe")
		sub.same(2, "punsubscribe [ab] h?llo")
		sub.same(1, "punsubscribe")
		sub.same(1, "get a")
		sub.same(1, "sunsubscribe")
		sub.same(1, "ping")
		sub.same(1, "get a")
		sub.same(1, "subscribe a")
		sub.same(1, "reset")
		sub.same(1, "get a")
		pub.same(1, "publish a 1")
		sub.silent()

		// Replies may be off; what is pushed comes, and so do confirmations.
		sub.same(1, "hello "+proto)
		sub.same(0, "client reply off")
		sub.same(1, "subscribe a")
		pub.same(1, "publish a 1")
		sub.read(1, "message while replies are off")
		sub.same(1, "unsubscribe a")
		sub.same(1, "client reply on")
		sub.same(0, "client reply skip")
		sub.same(1, "subscribe a")
		sub.same(1, "quit")
		pub.same(1, "pubsub numsub a") // who has its reply to QUIT no longer counts
	}
}

// RESP3 has types of its own, and HELLO changes to and fro.
func TestRESP3AsRedis(t *testing.T) {
	redis := realRedis(t)
	ts := start(t, nil)
	d := newDuo(t, ts, redis)
	for _, line := range strings.Split(strings.TrimSpace(`
hello 3
hello
hello 4
hello 3 setname x
client getname
config get maxclients
config get nosuch*
get nosuch
client trackinginfo
client tracking on
client trackinginfo
client getredir
client tracking on bcast
client tracking off
client getredir
client tracking on bcast prefix b prefix a noloop
client trackinginfo
client tracking on bcast prefix ab
client tracking on
client tracking off
client tracking on prefix a
client tracking on bcast prefix foobar prefix foo
client tracking on bcast optin
client tracking on optin optout
client tracking on redirect 0 redirect 99999
client tracking on redirect x
client tracking on redirect 99999
client tracking on nosuch
client tracking nosuch
client tracking on optin
client tracking on optout
client caching yes
client trackinginfo
client caching no
client caching x
client trackinginfo
client tracking off
client caching yes
client tracking on optout noloop
client caching yes
client caching no
client trackinginfo
client tracking off
command getkeysandflags set k v
slowlog get 0
role
acl whoami
acl getuser default
acl getuser nosuch
acl cat
acl list
acl users
acl log
acl dryrun default get k
client getname
latency latest
latency history x
latency histogram nosuch
module list
cluster info
debug help x
command docs nosuch
command getkeys get k
ping
hello 2
hello
client trackinginfo
config get maxclients
config get notify-keyspace-events
config set notify-keyspace-events KEA
config get notify-keyspace-events
config set notify-keyspace-events gKEn
config get notify-keyspace-events
config set notify-keyspace-events AKEmn
config get notify-keyspace-events
config set notify-keyspace-events q
config set notify-keyspace-events ""
config get tracking-table-max-keys
config set tracking-table-max-keys -1
config set tracking-table-max-keys x
config set client-output-buffer-limit "pubsub 1mb x 1"
config set client-output-buffer-limit "pubsub 1mb 1 x"
`), "\n") {
		d.same(1, line)
	}
	for _, line := range []string{"info server", "client list", "client info", "latency doctor", "memory doctor", "memory malloc-stats"} {
		d.same(1, "hello 3")
		for _, c := range []*client{d.ours, d.to} {
			if got := c.do(strings.Fields(line)...); !regexp.MustCompile(`^=\d+\r\ntxt:`).MatchString(got) {
				t.Errorf("%s in RESP3: %.40q is no verbatim string", line, got)
			}
		}
	}
}

// Invalidations come as from Redis: behind the reply to what caused them, by
// push or to another connection.
func TestTrackingAsRedis(t *testing.T) {
	redis := realRedis(t)
	ts := start(t, nil)
	r, other := newDuo(t, ts, redis), newDuo(t, ts, redis)
	wrote := func(by *duo, keys ...string) {
		var c *Session
		if by != nil {
			c = sessionOf(ts, by.ours)
		}
		ts.Changed(c, keys)
	}
	r.same(1, "hello 3")
	r.same(1, "client tracking on")
	r.same(1, "get k")
	other.same(1, "set k 1")
	wrote(other, "k")
	r.read(1, "invalidation of k")
	other.same(1, "set k 2")
	wrote(other, "k")
	r.silent() // not read since
	r.same(1, "get k")
	r.to.send(encode("set", "k", "3"))
	r.ours.send(encode("set", "k", "3"))
	r.read(1, "reply to SET")
	wrote(r, "k")
	r.read(1, "invalidation of k by itself")
	r.same(1, "client tracking on noloop")
	r.same(1, "get k")
	r.same(1, "set k 4")
	wrote(r, "k")
	r.silent()
	r.same(1, "client tracking off")
	r.same(1, "client tracking on optin")
	r.same(1, "get k")
	other.same(1, "set k 5")
	wrote(other, "k")
	r.silent()
	r.same(1, "client caching yes")
	r.same(1, "get k")
	r.same(1, "get j")
	other.same(1, "set k 5")
	wrote(other, "k")
	r.read(1, "invalidation after CACHING YES")
	other.same(1, "set j 5")
	wrote(other, "j")
	r.silent()
	r.same(1, "client tracking off")
	r.same(1, "client tracking on bcast prefix a prefix b")
	other.same(1, "set a1 1")
	wrote(other, "a1")
	r.read(1, "invalidation by prefix")
	other.same(1, "set c1 1")
	wrote(other, "c1")
	r.silent()
	other.same(1, "flushall")
	ts.Flushed(nil)
	r.read(1, "invalidation of all")
	r.same(1, "client tracking off")

	// To another connection, in RESP2.
	to := newDuo(t, ts, redis)
	ids := func(d *duo) (ours, theirs string) {
		return strings.Trim(d.ours.do("client", "id"), ":\r\n"), strings.Trim(d.to.do("client", "id"), ":\r\n")
	}
	ours, theirs := ids(to)
	to.same(1, "subscribe __redis__:invalidate")
	r.same(1, "hello 2")
	r.ours.want("+OK\r\n", "client", "tracking", "on", "redirect", ours)
	r.to.want("+OK\r\n", "client", "tracking", "on", "redirect", theirs)
	r.same(1, "get x")
	other.same(1, "set x 1")
	wrote(other, "x")
	to.read(1, "redirected invalidation")
	other.same(1, "flushall")
	ts.Flushed(nil)
	to.read(1, "redirected invalidation of all")
	r.same(1, "hello 3")
	r.same(1, "get x")
	n, ok := parseInt([]byte(ours))
	ts.mu.Lock() // so that it cannot have ended yet
	to.same(1, "quit")
	quits := ts.sessions[n]
	ts.mu.Unlock()
	if !ok || quits == nil || !quits.quits.Load() {
		t.Error("a client has its reply to QUIT, and is still sent invalidations")
	}
	other.same(1, "set x 2")
	wrote(other, "x")
	for _, c := range []*client{r.ours, r.to} {
		if got := c.reply(); !strings.HasPrefix(got, ">2\r\n$21\r\ntracking-redir-broken\r\n:") {
			t.Errorf("redirection broke: %q", got)
		}
	}

	// The table is bounded.
	r.ours.want("+OK\r\n", "client", "tracking", "on")
	for i := range 10 {
		r.ours.do("get", fmt.Sprint("many", i))
	}
	r.ours.want("+OK\r\n", "config", "set", "tracking-table-max-keys", "3")
	for range 7 {
		if got := r.ours.reply(); !strings.HasPrefix(got, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nmany") {
			t.Errorf("evicted from the table: %q", got)
		}
	}
	r.ours.want("+PONG\r\n", "ping")
}

// A transaction that is not carried out changes nothing of the connection.
func TestStateAfterFailedTransaction(t *testing.T) {
	d, other := newDuo(t, start(t, nil), realRedis(t)), (*duo)(nil)
	for _, proto := range []string{"2", "3"} {
		for _, fails := range []bool{true, false} {
			ts := start(t, nil)
			d, other = newDuo(t, ts, d.to.RemoteAddr().String()), newDuo(t, ts, d.to.RemoteAddr().String())
			d.same(1, "hello "+proto+" setname before")
			d.same(1, "client tracking on bcast prefix p")
			d.same(1, "select 2")
			d.same(1, "watch k")
			if fails {
				other.same(1, "select 2")
				other.same(1, "set k 1")
			}
			d.same(1, "multi")
			for _, line := range []string{"select 3", "set in 1", "hello 3 setname within", "client tracking off", "hello 2", "client tracking on optin", "client caching yes", "get in"} {
				d.same(1, line)
			}
			for _, c := range []*client{d.ours, d.to} { // in one go
				c.send(encode("exec") + encode("exists", "in") + encode("client", "getname") + encode("client", "trackinginfo"))
			}
			got, want := d.ours.reply(), d.to.reply()
			if noID(got) != noID(want) {
				t.Errorf("exec:\n got %q\nwant %q", got, want)
			}
			d.read(3, "after exec")
			for _, line := range []string{"get in", "select 3", "del in", "select 2", "del k", "client tracking off", "reset"} {
				d.same(1, line)
			}
		}
	}
}

func sessionOf(ts *testServer, c *client) *Session {
	for _, s := range ts.clients() {
		if s.addr == c.LocalAddr().String() {
			return s
		}
	}
	return nil
}

// MONITOR shows what Redis shows, to the letter.
func TestMonitorAsRedis(t *testing.T) {
	redis := realRedis(t, "--requirepass", "secret")
	ts := start(t, func(o *Options) { o.RequirePass = "secret" })
	m, c := newDuo(t, ts, redis), newDuo(t, ts, redis)
	m.same(1, "auth secret")
	m.same(1, "monitor")
	m.same(0, "monitor") // no reply
	shown := regexp.MustCompile(`^\+\d+\.\d{6} \[(\d+) [^\]]+\] `)
	for _, words := range [][]string{
		{"auth", "secret"}, {"auth", "default", "secret"}, {"hello", "2", "auth", "default", "secret", "setname", "x"}, {"ping"},
		{"set", "a", "\x00\xff\r\n\t\a\b\"\\ü '"}, {"get", "a"}, {"select", "3"}, {"get", "b"}, {"config", "get", "nosuch"}, {"client", "getname"},
		{"publish", "x", ""},
		{"MULTI"}, {"set", "a", "1"}, {"select", "2"}, {"get", "a"}, {"eXec"}, {"exec"}, {"discard"},
		{"multi"}, {"nosuch"}, {"exec"}, {"multi"}, {"watch", "a"}, {"ping"}, {"discard"},
		{"watch", "a"}, {"set", "a", "2"}, {"multi"}, {"set", "a", "3"}, {"exec"}, {"echo", "end"},
	} {
		for i, conn := range []*client{c.ours, c.to} {
			got := conn.do(words...)
			if words[0] == "echo" || i > 0 {
				_ = got
			}
		}
	}
	var lines [2][]string
	for i, conn := range []*client{m.ours, m.to} {
		for {
			line := conn.reply()
			lines[i] = append(lines[i], shown.ReplaceAllString(line, "$1 "))
			if !shown.MatchString(line) {
				t.Errorf("not as MONITOR shows commands: %q", line)
			}
			if strings.Contains(line, `"end"`) {
				break
			}
		}
	}
	if got, want := strings.Join(lines[0], ""), strings.Join(lines[1], ""); got != want {
		t.Errorf("monitored:\n%s\nwant:\n%s", got, want)
	}
	m.same(1, "reset")
}

// A subscriber that does not read is disconnected at its limit, and those who
// publish do not wait for it.
func TestSlowSubscriber(t *testing.T) {
	ts := start(t, nil)
	slow, fast, pub := ts.dial(), ts.dial(), ts.dial()
	pub.want("+OK\r\n", "config", "set", "client-output-buffer-limit", "pubsub 2mb 0 0")
	slow.want("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "subscribe", "c")
	fast.want("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "subscribe", "c")
	payload := strings.Repeat("x", 100<<10)
	left := false
	for range 200 {
		switch r := pub.do("publish", "c", payload); r {
		case ":2\r\n":
		case ":1\r\n":
			left = true
		default:
			t.Fatal(r)
		}
		if got := fast.reply(); len(got) < len(payload) {
			t.Fatalf("the subscriber that reads got %.80q", got)
		}
	}
	if !left {
		t.Error("the slow subscriber is still there")
	}
	if _, err := io.Copy(io.Discard, slow.r); isTimeout(err) {
		t.Error("the slow subscriber was not disconnected")
	}
}

// A soft limit may be exceeded for its time, no longer.
func TestSoftPushLimit(t *testing.T) {
	ts := start(t, nil)
	slow, pub := ts.dial(), ts.dial()
	pub.want("+OK\r\n", "config", "set", "client-output-buffer-limit", "pubsub 0 1mb 1")
	slow.want("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "subscribe", "c")
	payload := strings.Repeat("x", 1<<20)
	for range 12 { // beyond what sockets take
		pub.want(":1\r\n", "publish", "c", payload)
	}
	time.Sleep(1100 * time.Millisecond)
	eventually(t, "it is disconnected", func() bool { return pub.do("publish", "c", "x") == ":0\r\n" })
}

// Messages to one client come in one order and whole, between whole replies,
// whoever publishes meanwhile.
func TestPushesBetweenReplies(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	c.do("hello", "3")
	c.do("subscribe", "c")
	const n = 2000
	for p := range 4 {
		go func() {
			for i := range n {
				ts.Publish([]byte("c"), fmt.Appendf(nil, "%d %d", p, i), false)
			}
		}()
	}
	go func() {
		_, _ = c.Write(bytes.Repeat([]byte(encode("set", "k", "v")+encode("get", "k")), n))
	}()
	var next [4]int
	oks, values := 0, 0
	for range 6 * n {
		switch s := c.reply(); {
		case s == "+OK\r\n":
			oks++
		case s == "$1\r\nv\r\n":
			values++
		case strings.HasPrefix(s, ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$"):
			var p, i int
			payload := strings.Split(s, "\r\n")
			if _, err := fmt.Sscanf(payload[len(payload)-2], "%d %d", &p, &i); err != nil || next[p] != i {
				t.Fatalf("%q, want %d of %d", s, next[p], p)
			}
			next[p]++
		default:
			t.Fatalf("%q", s)
		}
	}
	if oks != n || values != n {
		t.Errorf("%d and %d replies, want %d", oks, values, n)
	}
}

// Events are published by their classes, to whom they are of use.
func TestNotify(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	e := []command.Event{{Class: '$', Name: "set", Key: crdt.Key{DB: 3, Name: "k"}}, {Class: 'n', Name: "new", Key: crdt.Key{Name: "k"}}}
	if some, _ := ts.Notifies(); some {
		t.Error("notifies without being asked")
	}
	c.want("+OK\r\n", "config", "set", "notify-keyspace-events", "KEA")
	if some, _ := ts.Notifies(); some {
		t.Error("notifies nobody")
	}
	c.do("psubscribe", "*")
	if some, misses := ts.Notifies(); !some || misses {
		t.Error("does not notify, or of misses")
	}
	ts.Notify(e)
	for _, want := range []string{"__keyspace@3__:k\r\n$3\r\nset", "__keyevent@3__:set\r\n$1\r\nk"} {
		if got := c.reply(); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	c.want("*2\r\n$4\r\npong\r\n$0\r\n\r\n", "ping")
}

// While a command blocks, what was asked before has its replies, and pushes
// come; what the command itself has caused comes behind its reply.
func TestPushesWhileBlocked(t *testing.T) {
	ts := start(t, nil)
	ts.mem.hold, ts.mem.entered = make(chan struct{}), make(chan struct{}, 8)
	c := ts.dial()
	c.send(encode("hello", "3") + encode("subscribe", "c") + encode("client", "tracking", "on", "bcast") + encode("ping") + encode("bzpopmin", "z", "0") + encode("ping"))
	for range 3 {
		c.reply()
	}
	if got := c.reply(); got != "+PONG\r\n" {
		t.Errorf("before the command that blocks: %q", got)
	}
	<-ts.mem.entered
	ts.Publish([]byte("c"), []byte("x"), false)
	if got := c.reply(); got != ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n" {
		t.Errorf("while it blocks: %q", got)
	}
	ts.Changed(sessionOf(ts, c), []string{"z"})
	ts.mem.hold <- struct{}{}
	if got := c.reply(); !strings.HasPrefix(got, "-ERR the test's backend") {
		t.Errorf("its reply: %q", got)
	}
	want := []string{"+PONG\r\n", ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nz\r\n"}
	got := []string{c.reply(), c.reply()}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("behind it: %q", got)
	}
}
