package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/replicatord/replicatord/resp"
)

// rawClient speaks to a server byte by byte.
type rawClient struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dialRaw(t *testing.T, network, addr string) *rawClient {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return &rawClient{t, conn, bufio.NewReader(conn)}
}

func (c *rawClient) send(words ...string) {
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	_, _ = c.Write(b)
}

func (c *rawClient) do(line string) string {
	c.send(strings.Split(line, " ")...)
	return c.reply()
}

// reply reads a reply, or push, of either protocol.
func (c *rawClient) reply() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("no reply: %v", err)
	}
	n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch line[0] {
	case '$', '=':
		if n >= 0 {
			b := make([]byte, n+2)
			_, _ = io.ReadFull(c.r, b)
			line += string(b)
		}
	case '%':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for range n {
			line += c.reply()
		}
	}
	return line
}

// plainRedis starts a redis-server of its own and returns its socket.
func plainRedis(t *testing.T) string {
	t.Helper()
	return serverOf(t, "redis-server", "the test needs redis-server")
}

// serverOf starts a server of a binary and returns its socket.
func serverOf(t *testing.T, binary, without string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	cmd := exec.Command(binary, "--port", "0", "--unixsocket", sock, "--dir", dir, "--save", "")
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", without, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	eventually(t, "redis-server", func() bool {
		c, err := net.Dial("unix", sock)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return sock
}

// What is written before the comparisons of reads and events.
const someData = `
set s text
hset h f 1 g 2
sadd set a
sadd two a b
zadd z 1.5 m 2 n
rpush l a b c
xadd x 1-1 f v
geoadd geo 13.361389 38.115556 Palermo
`

// supported reports whether a node carries out what a reply is to.
func supported(reply string) bool { return !strings.Contains(reply, "unsupported command") }

// Reads answer in RESP3 as Redis does, to the byte, whichever view is behind
// the node; in one pipeline with RESP2 reads of others.
func TestReadsInRESP3(t *testing.T) {
	model := dialRaw(t, "unix", plainRedis(t))
	for _, view := range []string{RedisSpawn, RedisEmbedded} {
		t.Run(view, func(t *testing.T) {
			n := startTestNode(t, 1, func(c *Config) { c.Redis = view })
			ours := dialRaw(t, "tcp", n.cfg.Addr())
			model.do("flushall")
			model.do("hello 2")
			for _, line := range strings.Split(strings.TrimSpace(someData), "\n") {
				got := ours.do(line)
				if !supported(got) {
					continue
				}
				if want := model.do(line); got != want {
					t.Errorf("%s: got %q, want %q", line, got, want)
				}
			}
			other := dialRaw(t, "tcp", n.cfg.Addr())
			done := make(chan struct{})
			defer func() { <-done }()
			go func() {
				defer close(done)
				for range 100 {
					if got := other.do("smembers two"); len(got) != 18 || got[0] != '*' {
						t.Errorf("in RESP2: %q", got)
					}
				}
			}()
			ours.do("hello 3")
			model.do("hello 3")
			for _, line := range []string{
				"get s", "get none", "mget s none", "hgetall h", "hget h none", "hmget h f x", "hrandfield none", "hrandfield none 2", "hrandfield none 2 withvalues",
				"hkeys h", "smembers set", "smembers none", "sunion set two", "sinter set two", "sdiff two set", "srandmember none", "srandmember none 3", "smismember set a x",
				"sscan set 0", "hscan h 0", "keys s", "scan 0 match s", "exists s", "type s", "ttl s", "dbsize", "getrange s 0 1", "lcs s s", "bitfield_ro s get u8 0", "object encoding none",
				"zscore z m", "zscore z none", "zmscore z m x", "zrange z 0 -1", "zrange z 0 -1 withscores", "zrangebyscore z 0 5 withscores", "zrank z none", "zrandmember none",
				"lrange l 0 -1", "lpos l none", "lindex l 9", "xrange x - +", "xread streams x 0", "xread streams none 0", "xinfo stream x", "geopos geo Palermo none", "geodist geo Palermo none",
				"spop none", "spop none 2", "spop set 1", "getdel none", "set s w get", "set none v xx get", "incrbyfloat f 1.5", "bitfield none incrby u2 0 1 overflow fail incrby u2 0 3", "getex none",
				"sort none", "randomkey", "hstrlen h f", "substr s 0 0", "touch s none",
			} {
				got, want := ours.do(line), model.do(line)
				switch {
				case got == want, !supported(got), strings.HasPrefix(line, "randomkey"):
				case view == RedisEmbedded && strings.HasPrefix(line, "geopos"): // it rounds
				case view == RedisEmbedded && got[0] == '-':
					t.Logf("%s: the embedded view refuses: %q", line, got)
				case len(got) == len(want) && (strings.HasPrefix(line, "s") || strings.HasPrefix(line, "h")) && sortedLines(got) == sortedLines(want):
				default:
					t.Errorf("%s:\n got %q\nwant %q", line, got, want)
				}
			}
		})
	}
}

func sortedLines(s string) string {
	lines := strings.Split(s, "\r\n")
	slices.Sort(lines)
	return strings.Join(lines, "\r\n")
}

// Keyspace notifications of clients' commands are Redis's, one for one.
func TestEventsAsRedis(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis = RedisSpawn })
	type side struct {
		name      string
		c, events *rawClient
	}
	var sides []side
	for _, s := range []side{{name: "node"}, {name: "redis"}} {
		if s.name == "node" {
			s.c, s.events = dialRaw(t, "tcp", n.cfg.Addr()), dialRaw(t, "tcp", n.cfg.Addr())
		} else {
			sock := plainRedis(t)
			s.c, s.events = dialRaw(t, "unix", sock), dialRaw(t, "unix", sock)
		}
		s.c.do("config set notify-keyspace-events KEA")
		s.c.do("config set notify-keyspace-events KEg$lshzxetmn")
		s.events.do("psubscribe *")
		sides = append(sides, s)
	}
	collect := func(s side) (out []string) {
		s.c.do("publish end end")
		for {
			m := strings.Split(s.events.reply(), "\r\n")
			channel, what := m[6], m[8]
			if channel == "end" {
				return out
			}
			out = append(out, channel+" "+what)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(`
set a 1
set a 2 ex 100
set a 3 keepttl
set a 4 nx
set a 4 xx get
set b 1 pxat 99999999999999
setex c 100 v
psetex c 100000 v
setnx c x
setnx d x
mset a 1 e 2
msetnx a 1 zz 2
msetnx y1 1 y2 2
getset a 5
getset f 5
getdel f
getdel f
getex a ex 100
getex a persist
getex a persist
getex a
getex a exat 1
append a x
append a y
setrange a 1 zzz
setrange none 1 ""
incr n
decr n
incrby n 5
decrby n 5
incrbyfloat n 1.5
incr a
setbit bits 1 1
bitop and bits2 bits bits
bitop and bits2 none none
bitop not none2 none
bitfield bits set u8 0 5 incrby u8 0 1
bitfield bits get u8 0
del a none b
unlink c
expire n 100
expire n 200 nx
expire none 1
persist n
persist n
expireat n 1
pexpire e 100000
pexpireat e 1
rename d d2
rename d2 d2
set d v
rename d d2
renamenx d2 d3
set d v
renamenx d3 d
copy d d4
copy d d4
copy d d4 replace
move d4 1
move d 1
select 1
move d4 0
del d4
select 0
hset h f 1
hset h f 2 g 3
hmset h f 2
hsetnx h f 3
hsetnx h new 3
hincrby h f 1
hincrbyfloat h f 1.5
hdel h none
hdel h f
hdel h g new
sadd s a b c
sadd s a
srem s none
srem s a
spop s 1
spop s 1
spop s
sadd s1 a b
sadd s2 b c
smove s1 s2 a
smove s1 s2 none
smove s1 s2 b
smove s2 s3 a
sadd s1 a b
sinterstore d s1 s2
sinterstore d s1 none
sinterstore d s1 none
sunionstore d s1 s2
sdiffstore d s1 s2
sdiffstore d s1 s1
get none
hget none f
exists none none2
zadd z 1 a 2 b
zadd z 1 a
zadd z ch 3 a
zadd z incr 1 a
zincrby z 1 b
zrem z none
zrem z a
zadd z 1 a 2 c 3 d
zremrangebyrank z 0 0
zremrangebyscore z 2 2
zpopmin z
zpopmax z 5
zadd z 1 a
zadd z2 1 a 2 b
zunionstore d 2 z z2
zinterstore d 2 z none
zdiffstore d 1 z
zrangestore d2 z 0 -1
zrangestore d2 z 5 6
geoadd geo 13.361389 38.115556 Palermo
geosearchstore d geo frommember Palermo byradius 1 m
georadius geo 13 38 100 km store d
rpush l a b c d
lpush l x
lpushx none x
rpushx l y
linsert l before a z
lset l 0 q
lrem l 0 none
lrem l 1 q
ltrim l 1 3
lpop l
rpop l 1
lmove l l2 left right
rpush l a
lmove l l left right
rpoplpush l l2
lmpop 2 l l2 right count 5
rpush l a
blpop l 1
rpush l a
brpop l none 1
sadd numbers 2 1
sort numbers store d
sort none store d
xadd x 1-1 f v
xadd x maxlen 1 2-1 f v
xtrim x maxlen 0
xadd x 3-1 f v
xdel x 3-1
xdel x 3-1
xsetid x 5-1
xgroup create x g $
xgroup createconsumer x g c
xreadgroup group g newcomer streams x >
xgroup delconsumer x g c
xgroup setid x g 0
xgroup destroy x g
pfadd p a b
pfadd p a
pfmerge p2 p
flushdb
set k v px 30
`), "\n") {
		got := sides[0].c.do(line)
		want := sides[1].c.do(line)
		if strings.HasPrefix(line, "spop") {
			got, want = "", ""
		}
		var events [2][]string
		for i := range events {
			events[i] = collect(sides[i])
			expires := strings.HasSuffix(line, "px 30")
			for end := time.Now().Add(30 * time.Second); expires && len(events[i]) < 8 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
				events[i] = append(events[i], collect(sides[i])...)
			}
		}
		if !supported(got) {
			continue
		}
		if got != want {
			t.Errorf("%s: reply %q, want %q", line, got, want)
		}
		if !slices.Equal(events[0], events[1]) {
			t.Errorf("%s:\n got %q\nwant %q", line, events[0], events[1])
		}
	}
}

// What one node's clients publish and write, the other's are told of.
func TestPushAcrossNodes(t *testing.T) {
	a, b := startTestNode(t, 1, nil), startTestNode(t, 2, nil)
	together(t, a, b)
	writer := dialRaw(t, "tcp", a.cfg.Addr())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	far := redis.NewClient(&redis.Options{Addr: b.cfg.Addr()})
	defer func() { _ = far.Close() }()
	if err := far.ConfigSet(ctx, "notify-keyspace-events", "KEA").Err(); err != nil {
		t.Fatal(err)
	}

	// Messages, once each and in order.
	sub := far.Subscribe(ctx, "ch")
	defer func() { _ = sub.Close() }()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := far.Publish(ctx, "ch", "near").Result(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for i := range 100 {
		if got := writer.do(fmt.Sprint("publish ch ", i)); got != ":0\r\n" {
			t.Fatalf("PUBLISH counts %q: others' receivers are not counted", got)
		}
	}
	for i := range 101 {
		m, err := sub.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(i - 1); i > 0 && m.Payload != want || i == 0 && m.Payload != "near" {
			t.Fatalf("message %d is %q", i, m.Payload)
		}
	}

	// Events of changes that come from elsewhere.
	events := far.PSubscribe(ctx, "__keyevent@0__:*")
	defer func() { _ = events.Close() }()
	if _, err := events.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ line, want string }{
		{"set k 1", "set k"}, {"expire k 100", "expire k"}, {"persist k", "persist k"}, {"del k", "del k"},
		{"hset h f 1 g 2", "hset h"}, {"hdel h f", "hdel h"}, {"sadd s a b", "sadd s"}, {"srem s a", "srem s"}, {"srem s b", "del s"},
		{"zadd z 1 a 2 b", "zadd z"}, {"zincrby z 1 a", "zadd z"}, {"zrem z a", "zrem z"}, {"pfadd p a", "set p"},
		{"set e v px 3000", "set e"}, {"get e", "expire e"}, {"get e", "expired e"},
	} {
		writer.do(step.line)
		m, err := events.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimPrefix(m.Channel, "__keyevent@0__:") + " " + m.Payload; got != step.want {
			t.Errorf("after %s: %q, want %q", step.line, got, step.want)
		}
	}

	// Invalidations.
	cache := dialRaw(t, "tcp", b.cfg.Addr())
	cache.do("hello 3")
	cache.do("client tracking on")
	writer.do("set cached 1")
	eventually(t, "the write", func() bool { return far.Get(ctx, "cached").Val() == "1" })
	cache.do("get cached")
	writer.do("set cached 2")
	if got := cache.reply(); got != ">2\r\n$10\r\ninvalidate\r\n*1\r\n$6\r\ncached\r\n" {
		t.Errorf("got %q", got)
	}
	cache.do("client tracking off")
	cache.do("client tracking on bcast")
	writer.do("mset x 1 y 2")
	if got := cache.reply(); got != ">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\nx\r\n$1\r\ny\r\n" {
		t.Errorf("got %q", got)
	}
	writer.do("flushall")
	if got := cache.reply(); got != ">2\r\n$10\r\ninvalidate\r\n_\r\n" {
		t.Errorf("got %q", got)
	}
}

// A node whose messages are its own sends and takes none.
func TestPubSubOfOneNode(t *testing.T) {
	a, b := startTestNode(t, 1, nil), startTestNode(t, 2, func(c *Config) { c.PubSubGlobal = false })
	together(t, a, b)
	near, far := dialRaw(t, "tcp", a.cfg.Addr()), dialRaw(t, "tcp", b.cfg.Addr())
	sa, sb := dialRaw(t, "tcp", a.cfg.Addr()), dialRaw(t, "tcp", b.cfg.Addr())
	sa.do("subscribe c")
	sb.do("subscribe c")
	near.do("publish c of-a")
	far.do("publish c of-b")
	near.do("publish c again")
	for _, want := range []string{"of-a", "again"} {
		if got := sa.reply(); !strings.Contains(got, want) {
			t.Errorf("at a: %q, want %s", got, want)
		}
	}
	if got := sb.reply(); !strings.Contains(got, "of-b") {
		t.Errorf("at b: %q", got)
	}
	time.Sleep(100 * time.Millisecond)
	for _, c := range []*rawClient{sa, sb} {
		if got := c.do("ping"); got != "*2\r\n$4\r\npong\r\n$0\r\n\r\n" {
			t.Errorf("came too: %q", got)
		}
	}
}

// together joins two nodes and waits for their link.
func together(t *testing.T, a, b *Node) {
	t.Helper()
	if got := dialRaw(t, "tcp", a.cfg.Addr()).do("meet " + b.cfg.Addr()); got != ":1\r\n" {
		t.Fatal(got)
	}
	eventually(t, "the link", func() bool { return a.links.Stats()[2].Live && b.links.Stats()[1].Live })
}

// A script has read its keys once it gives a command that reads, also if it is
// one that may only read.
func TestTrackingOfScripts(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis = RedisSpawn })
	reads, writes := dialRaw(t, "tcp", n.cfg.Addr()), dialRaw(t, "tcp", n.cfg.Addr())
	reads.do("hello 3")
	reads.do("client tracking on")
	for _, s := range []struct {
		eval, script string
		tracks       bool
	}{
		{"eval", "redis.call('set','x','1')", false}, {"eval_ro", "redis.call('ping')", false},
		{"eval", "redis.call('get','x')", true}, {"eval_ro", "redis.call('get','a')", true},
	} {
		reads.send(s.eval, s.script, "2", "a", "b")
		if got := reads.reply(); got != "_\r\n" {
			t.Fatalf("%s %s: %q", s.eval, s.script, got)
		}
		writes.do("mset b 1 a 1 b 2")
		for _, key := range []string{"b", "a"} {
			if !s.tracks {
				break
			}
			if got := reads.reply(); got != ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\n"+key+"\r\n" {
				t.Errorf("%s %s: %q, want the invalidation of %s", s.eval, s.script, got, key)
			}
		}
		if got := reads.do("ping"); got != "+PONG\r\n" {
			t.Fatalf("after %s %s: %q", s.eval, s.script, got)
		}
	}
}

// In a transaction, or a pipeline, reads and writes are tracked in their order: a
// write is no news of what was read after it.
func TestTrackingInTransactionsAsRedis(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis = RedisSpawn })
	for _, mode := range []string{"on", "on noloop", "on optin", "on optout"} {
		tracked := [2]*rawClient{dialRaw(t, "tcp", n.cfg.Addr()), dialRaw(t, "unix", plainRedis(t))}
		other := [2]*rawClient{dialRaw(t, "tcp", n.cfg.Addr()), dialRaw(t, "unix", tracked[1].RemoteAddr().String())}
		for i, c := range tracked {
			other[i].do("flushall")
			c.do("hello 3")
			if got := c.do("client tracking " + mode); got != "+OK\r\n" {
				t.Fatalf("%s: %q", mode, got)
			}
		}
		for i, lines := range strings.Split(strings.TrimSpace(`
set k1 1; get k1
get k1; set k1 2; get k1
multi; set k1 1; get k1; exec
multi; get k1; set k1 2; exec
multi; set k1 1; get k1; set k1 2; get k1; exec
multi; mset k1 1 k2 2 a 3; get k1; incr k2; get k2; get a; exec
multi; set k1 1; xread streams x 0; get k2; xadd x * f v; xrange x - +; exec
multi; set k1 1; zadd z 1 m; zrange z 0 -1; get k2; zpopmin z; get k1; exec
multi; set k1 1; get k2; flushdb; get k3; get k2; exec
multi; get k2; flushdb; exec
eval_1 redis.call('set',KEYS[1],1)redis.call('get',KEYS[1]) k1
eval_1 redis.call('get',KEYS[1])redis.call('set',KEYS[1],1) k1
eval_1 redis.call('get','no')redis.call('set',KEYS[1],1)redis.call('get','no') k1
multi; set k1 1; eval_1 redis.call('get',KEYS[1])redis.call('set',KEYS[1],2)redis.call('get','k1') k1; exec
client caching yes; get k1; get k2
client caching no; get k1; get k2
client caching yes; multi; get k1; get k2; exec; get k3
client caching no; multi; get k1; get k2; exec; get k3
multi; get k1; client caching yes; get k2; exec; get k3
multi; get k1; client caching no; get k2; exec; get k3
client caching yes; eval_1 redis.call('get','no') k1; get k2
multi; get k1; client tracking off; client tracking `+mode+`; get k2; exec
watch k1; multi; get k1; set k2 1; exec
`), "\n") {
			for at := range 2 {
				var replies, pushes [2]string
				for j, c := range tracked {
					other[j].do("mset k1 a k2 b k3 c a d x e z f")
					other[j].do("del x z")
					until(c, "echo", fmt.Sprint("begin ", i, at)) // what is left from before has been told
					for _, line := range strings.Split(lines, "; ") {
						if script, ok := strings.CutPrefix(line, "eval_1 "); ok {
							script, key, _ := strings.Cut(script, " ")
							c.send("eval", script, "1", key)
							continue
						}
						c.send(strings.Split(line, " ")...)
						if at == 1 {
							time.Sleep(time.Millisecond) // no pipeline
						}
					}
					replies[j], pushes[j] = until(c, "echo", fmt.Sprint("done ", i, at))
					other[j].do("mset k1 1 k2 2 k3 3 a 4")
					other[j].do("xadd x 9-9 f v")
					other[j].do("zadd z 1 o")
					_, more := until(c, "echo", fmt.Sprint("end ", i, at))
					pushes[j] += more
				}
				if got, want := ids.ReplaceAllString(replies[0], "ID"), ids.ReplaceAllString(replies[1], "ID"); got != want {
					t.Errorf("%s: %s:\n got %q\nwant %q", mode, lines, got, want)
				}
				if pushes[0] != pushes[1] {
					t.Errorf("%s: %s: pushes\n got %q\nwant %q", mode, lines, pushes[0], pushes[1])
				}
			}
		}
	}
}

var ids = regexp.MustCompile(`[0-9]{13,20}-[0-9]+`)

// until gives a command whose reply is its last word, and returns the replies and
// pushes up to that.
func until(c *rawClient, words ...string) (replies, pushes string) {
	c.t.Helper()
	c.send(words...)
	for last := words[len(words)-1] + "\r\n"; !strings.HasSuffix(replies, last); {
		if r := c.reply(); r[0] == '>' {
			pushes += r
		} else {
			replies += r
		}
	}
	return replies, pushes
}

// MONITOR shows what scripts call, in their order, and what the front end answers
// among it.
func TestMonitorOfScriptsAsRedis(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis = RedisSpawn })
	sock := plainRedis(t)
	var lines [2][]string
	from := regexp.MustCompile(`^\+\S+ \[(\d+) \S+\]`)
	for i, dial := range []func() *rawClient{
		func() *rawClient { return dialRaw(t, "tcp", n.cfg.Addr()) }, func() *rawClient { return dialRaw(t, "unix", sock) },
	} {
		m, c := dial(), dial()
		m.do("monitor")
		for _, script := range []string{
			"redis.call('ping') redis.call('set','k','v') redis.call('publish','ch','m') redis.call('select','3') redis.call('get','k') redis.call('echo','x')",
			"redis.pcall('select','99') redis.pcall('incr','k') redis.pcall('nosuch') redis.pcall('get') redis.call('select','3') redis.call('ping')",
		} {
			c.send("eval", script, "0")
			c.reply()
			c.send("multi")
			c.send("set", "k", "v")
			c.send("eval", script, "0")
			c.send("exec")
			for range 4 {
				c.reply()
			}
		}
		c.do("echo end")
		for last := ""; !strings.Contains(last, `"end"`); lines[i] = append(lines[i], from.ReplaceAllString(last, "$1")) {
			last = m.reply()
		}
	}
	if got, want := strings.Join(lines[0], ""), strings.Join(lines[1], ""); got != want {
		t.Errorf("monitored\n%s\nwant\n%s", got, want)
	}
}

// A script gets what follows attributes, and INFO counts the node's scripts, not
// those of the Redis behind it.
func TestScriptsOfNode(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis, c.EnableDebugCommand = RedisSpawn, resp.DebugLocal })
	c := dialRaw(t, "tcp", n.cfg.Addr())
	c.do("debug set-disable-deny-scripts 1")
	c.send("eval", "redis.setresp(3) return redis.call('debug','protocol','attrib')", "0")
	if got := c.reply(); got != "$39\r\nSome real reply following the attribute\r\n" {
		t.Errorf("%q", got)
	}
	c.do("script flush")
	for i := range 3 {
		c.send("script", "load", fmt.Sprint("return ", i))
		c.reply()
		if got := c.do("info memory"); !strings.Contains(got, fmt.Sprintf("number_of_cached_scripts:%d\r\n", i+1)) {
			t.Errorf("after %d scripts: %q", i+1, got)
		}
	}
}

// With DEBUG SET-ACTIVE-EXPIRE 0, nobody hears that a key has expired before a
// command comes.
func TestLazyExpiry(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis, c.EnableDebugCommand = RedisSpawn, resp.DebugLocal })
	c := dialRaw(t, "tcp", n.cfg.Addr())
	c.do("hello 3")
	c.do("client tracking on")
	c.do("debug set-active-expire 0")
	c.do("set k v px 1000")
	if got := c.do("get k"); got != "$1\r\nv\r\n" {
		t.Fatalf("the reply before: %q", got)
	}
	time.Sleep(1250 * time.Millisecond)
	if got := c.do("get k"); got != "_\r\n" {
		t.Fatalf("the reply: %q", got)
	}
	if got := c.reply(); got != ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n" {
		t.Fatalf("the invalidation: %q", got)
	}
}

// What a command that waited has changed is told its client behind its reply.
func TestInvalidationAfterWait(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis = RedisSpawn })
	waits, other := dialRaw(t, "tcp", n.cfg.Addr()), dialRaw(t, "tcp", n.cfg.Addr())
	other.do("rpush to a")
	waits.do("hello 3")
	waits.do("client tracking on")
	for i := range 20 {
		waits.do("lrange to 0 -1")
		waits.send("blmove", "from", "to", "left", "left", "0")
		if i%2 == 0 {
			time.Sleep(50 * time.Millisecond)
		}
		other.do("rpush from foo")
		if got := waits.reply(); got != "$3\r\nfoo\r\n" {
			t.Fatalf("the reply: %q", got)
		}
		if got := waits.reply(); got != ">2\r\n$10\r\ninvalidate\r\n*1\r\n$2\r\nto\r\n" {
			t.Fatalf("the invalidation: %q", got)
		}
	}
}

// HyperLogLogs are counted whatever view is behind the node: the embedded store
// cannot read their strings.
func TestCountsWithAnyView(t *testing.T) {
	model := dialRaw(t, "unix", plainRedis(t))
	for _, view := range []string{RedisSpawn, RedisEmbedded} {
		t.Run(view, func(t *testing.T) {
			n := startTestNode(t, 1, func(c *Config) { c.Redis = view })
			c := dialRaw(t, "tcp", n.cfg.Addr())
			many := "PFADD big"
			for i := range 5000 {
				many += fmt.Sprint(" ", i)
			}
			model.do("FLUSHALL")
			for _, line := range []string{"PFADD small a b c", many, "PFADD big x", "SET string v", "PFCOUNT small", "PFCOUNT big", "PFCOUNT small big none", "PFCOUNT none",
				"PFCOUNT string", "PFCOUNT small string", "MULTI", "PFADD small d", "PFCOUNT small", "GET string", "PFCOUNT big small", "EXEC", "PFCOUNT small",
				"PFMERGE all small big", "PFCOUNT all", "HELLO 3", "PFCOUNT all"} {
				got, want := c.do(line), model.do(line)
				if got != want && line != "HELLO 3" {
					t.Errorf("%.40s: got %q, want %q", line, got, want)
				}
			}
			model.do("HELLO 2")
		})
	}
}
