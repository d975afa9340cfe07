package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// randomText returns text that does not compress.
func randomText(n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return string(b)
}

// residentKB is a process's memory as Linux counts it.
func residentKB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kb int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			return kb
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestMalformedRESP: what is not RESP is answered as Redis answers it, and the
// connection closed; the node goes on.
func TestMalformedRESP(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1})
	plain := bed.Redis(testbed.RedisOptions{})
	big := strings.Repeat("x", 70_000)
	for _, in := range []string{
		"*1\r\n+PING\r\n", "*x\r\n", "*-5\r\n", "*1\r\n$-1\r\n", "*1\r\n$x\r\n", "*1\r\n$99999999999\r\n",
		"*2147483648\r\n", "*1\r\n$600000000\r\n", "*1\r\n$4\r\nPINGxx", big, "GET '\r\n", "\"\r\n", "*0\r\n\r\n\r\nPING\r\n", "*1\r\n$0\r\n\r\n",
		"ping\n", "SET k 'a b'\r\nGET k\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\nGARBAGE\r\n", "POST / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		ask := func(address string) string {
			c, err := net.DialTimeout("tcp", address, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = c.Write([]byte(in))
			_ = c.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			out, _ := io.ReadAll(c) // a reset counts as an end
			return string(out)
		}
		if got, want := ask(n.Addr()), ask(plain.Address()); got != want {
			t.Errorf("%.60q: the node answers %q, Redis %q", in, got, want)
		}
	}
	// Bounded where Redis is not, and clear where it says nothing.
	for in, want := range map[string]string{
		"*1048577\r\n":     "-ERR Protocol error: invalid multibulk length\r\n",
		"\x00\x01\x02\r\n": "-ERR Protocol error: zero byte in inline request\r\n",
	} {
		c := n.Dial()
		_, _ = c.Write([]byte(in))
		out, _ := io.ReadAll(c)
		equal(t, fmt.Sprintf("%q", in), string(out), want)
	}
	// Random bytes, and commands cut anywhere.
	r := rand.New(rand.NewPCG(1, 1))
	var whole bytes.Buffer
	for i := range 20 {
		writeCommand(&whole, "SET", fmt.Sprint("k", i), "value\r\n*1\r\n$4\r\nPING\r\n")
	}
	for range 300 {
		c := n.Dial()
		b := make([]byte, 1+r.IntN(200))
		for i := range b {
			b[i] = "*$\r\n0123456789-:+ab\x00\xff"[r.IntN(21)]
		}
		if r.IntN(2) == 0 {
			b = append(bytes.Clone(whole.Bytes()[:r.IntN(whole.Len())]), b...)
		}
		_, _ = c.Write(b)
		_ = c.Close()
	}
	equal(t, "PING", n.CLI("ping"), "PONG")
}

// TestErrorsAreRediss: unknown commands, wrong arity, wrong types and options,
// in Redis's own words.
func TestErrorsAreRediss(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1})
	plain := bed.Redis(testbed.RedisOptions{})
	commands := []string{
		"SET s text", "SADD set a", "HSET h f text", "SET n 10", "SET max 9223372036854775807",
		"NOSUCH", "NOSUCH a b c", "GET", "GET a b", "SET k", "SET k v EX", "SET k v EX 0", "SET k v EX x", "SET k v NX XX", "SET k v KEEPTTL EX 5", "SET k v NOSUCH",
		"INCR s", "INCR set", "INCR max", "INCRBY n x", "INCRBY n 9223372036854775807", "DECRBY n -9223372036854775808", "INCRBYFLOAT n x", "INCRBYFLOAT set 1", "INCRBYFLOAT n inf",
		"GET set", "SADD s a", "HSET s f v", "HSET h f", "HINCRBY h f 1", "HINCRBY h g x", "HGET set f", "SMEMBERS h", "SPOP s", "APPEND set x", "SETRANGE s -1 x", "SETRANGE s 536870912 x", "SETBIT s x 1", "SETBIT s 1 2", "SETBIT s 4294967296 1",
		"EXPIRE s x", "EXPIRE s 10 NX XX", "EXPIRE s 10 GT LT", "EXPIRE s 10 NOSUCH", "EXPIRE s 9223372036854775807", "RENAME nosuch k", "COPY s s", "COPY s k DB 99", "MOVE s 99", "MOVE s 0", "SELECT x", "SELECT 16",
		"OBJECT NOSUCH", "OBJECT ENCODING", "CLIENT NOSUCH", "CONFIG NOSUCH", "BITOP NOT k a b", "BITOP NOSUCH k a", "BITFIELD s GET u64 0", "BITCOUNT s 0", "LCS s set", "SINTERCARD 0 set", "SINTERCARD 2 set", "SSCAN set x", "SCAN x", "HRANDFIELD h x", "SRANDMEMBER set x", "GETEX s EX 0", "GETEX s NOSUCH",
		"MSET a", "MSETNX a", "FLUSHALL NOSUCH", "PING a b", "ECHO", "AUTH x", "HELLO 9", "TOUCH", "UNLINK", "SMOVE set s a", "SINTERSTORE k s", "SDIFF set s", "SUNION s", "SINTER nosuch s",
	}
	dial, err := net.Dial("tcp", plain.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer dial.Close()
	got, want := sendPipeline(t, n.Dial(), commands), sendPipeline(t, dial, commands)
	for i, c := range commands {
		if got[i] != want[i] {
			t.Errorf("%s: the node answers %q, Redis %q", c, got[i], want[i])
		}
	}
}

// TestBinarySafePitfall18: keys, values, fields and members with \0, \r\n, nothing in
// them, and a megabyte, come back as they are, on both sides and after a
// rebuild.
func TestBinarySafePitfall18(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	ctx := t.Context()
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	names := []string{"", "\x00", "\r\n", "*1\r\n$4\r\nPING\r\n", string(all[:]), "\xff\xfe", " ", "{tag}x", randomText(1 << 20), "\x00replicatord\x00watermark"}
	c := a.Client()
	for _, s := range names {
		for _, err := range []error{
			c.Set(ctx, "string:"+s, s, 0).Err(), c.Set(ctx, s, "named", 0).Err(),
			c.HSet(ctx, "hash:"+s, s, s).Err(), c.SAdd(ctx, "set:"+s, s).Err(), c.HIncrBy(ctx, "counts", s, 7).Err(),
		} {
			if err != nil {
				t.Fatalf("%.40q: %v", s, err)
			}
		}
	}
	bed.Level(a, b)
	bed.Rebuilt(b)
	bed.Level(a, b)
	c = b.Client()
	for _, s := range names {
		equal(t, "a string", c.Get(ctx, "string:"+s).Val() == s, true)
		equal(t, "a key's name", c.Get(ctx, s).Val(), "named")
		equal(t, "a field", c.HGet(ctx, "hash:"+s, s).Val() == s, true)
		equal(t, "a member", c.SIsMember(ctx, "set:"+s, s).Val(), true)
		equal(t, "a count", c.HGet(ctx, "counts", s).Val(), "7")
	}
	if err := c.Del(ctx, names...).Err(); err != nil {
		t.Fatal(err)
	}
	bed.Level(a, b)
	equal(t, "names left", a.Client().Exists(ctx, names...).Val(), int64(0))
}

// TestHugeValuesPitfall15: the largest value there may be, and a hash with very many
// fields, are written, replicated and deleted, and block nobody; one byte more is
// refused.
func TestHugeValuesPitfall15(t *testing.T) {
	bed := testbed.New(t)
	a, b := pair(bed)
	ctx := t.Context()
	const most = 512 << 20
	size := int64(64 << 20)
	if full() {
		size = most
	}
	value := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(value[:1<<20])
	for i := 1 << 20; i < len(value); i *= 2 {
		copy(value[i:], value[:i])
	}
	begun := time.Now()
	slow := redis.NewClient(&redis.Options{Addr: a.Addr(), Protocol: 2, DisableIdentity: true, MaxRetries: -1, ReadTimeout: 2 * time.Minute, WriteTimeout: 2 * time.Minute})
	defer slow.Close()
	if err := slow.Set(ctx, "huge", value, 0).Err(); err != nil {
		t.Fatalf("a value of %d MB: %v", size>>20, err)
	}
	t.Logf("%d MB written after %v", size>>20, time.Since(begun))
	a.Do("SET", "behind it", "v")
	bed.Wait(3*time.Minute, "it and what is behind it to arrive", func() (bool, string) {
		v, err := b.Try("GET", "behind it")
		return v == "v", fmt.Sprint(err)
	})
	t.Logf("it arrived after %v", time.Since(begun))
	equal(t, "length", b.Int("STRLEN", "huge"), size)
	for _, at := range []int64{0, 1 << 20, size - 100} {
		equal(t, "a part", b.Client().GetRange(ctx, "huge", at, at+99).Val() == string(value[at:at+100]), true)
	}
	a.Do("DEL", "huge")
	c := a.Dial()
	fmt.Fprintf(c, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n", most+1)
	reply, _ := bufio.NewReader(c).ReadString('\n')
	equal(t, "512 MB and a byte", reply, "-ERR Protocol error: invalid bulk length\r\n")
	bed.Level(a, b)
	equal(t, "huge", b.Do("EXISTS", "huge"), any(int64(0)))
}

// TestManyFieldsPitfall15: a hash with a million fields, written in large commands and
// deleted at once.
func TestManyFieldsPitfall15(t *testing.T) {
	bed := testbed.New(t)
	a, b := pair(bed)
	ctx := t.Context()
	const step = 50_000
	fields := 200_000
	if full() {
		fields = 1_000_000
	}
	begun := time.Now()
	for from := 0; from < fields; from += step {
		args := make([]any, 0, 2*step)
		for i := range step {
			args = append(args, fmt.Sprint("f", from+i), i)
		}
		if err := a.Client().HSet(ctx, "h", args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	a.Do("SET", "behind it", "v")
	bed.Wait(2*time.Minute, "all fields to arrive", func() (bool, string) {
		v, err := b.Try("HLEN", "h")
		return v == int64(fields), fmt.Sprint(v, err)
	})
	t.Logf("%d fields arrived after %v", fields, time.Since(begun))
	b.Do("DEL", "h")
	bed.Wait(2*time.Minute, "the delete to arrive", func() (bool, string) {
		v, err := a.Try("EXISTS", "h")
		return v == int64(0), fmt.Sprint(v, err)
	})
	bed.Level(a, b)
}

// TestFloodOfConnections: more than maxclients are told so; those that are in are
// served.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1, Args: []string{"--set", "maxclients=200"}})
	var conns []net.Conn
	refused := 0
	for range 1000 {
		c, err := net.DialTimeout("tcp", n.Addr(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	served := 0
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = c.Write([]byte("PING\r\n"))
		line, err := bufio.NewReader(c).ReadString('\n')
		switch {
		case line == "+PONG\r\n":
			served++
		case strings.HasPrefix(line, "-ERR max number of clients reached") || err != nil && line == "":
			refused++
		default:
			t.Fatalf("got %q, %v", line, err)
		}
	}
	if served < 190 || served > 200 || served+refused != 1000 {
		t.Errorf("%d of 1000 connections were served and %d refused; maxclients is 200", served, refused)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	bed.Wait(10*time.Second, "room again", func() (bool, string) { v, err := n.Try("PING"); return v == "PONG", fmt.Sprint(err) })
	// Many that come and go.
	for range 2000 {
		c, err := net.DialTimeout("tcp", n.Addr(), 5*time.Second)
		if err == nil {
			_ = c.Close()
		}
	}
	bed.Wait(10*time.Second, "room again", func() (bool, string) { v, err := n.Try("PING"); return v == "PONG", fmt.Sprint(err) })
}

// TestSlowReader: a client that asks for much and reads nothing is disconnected, and costs bounded memory.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1, Args: []string{"--set", "client_output_buffer_limit=8mb"}})
	n.Do("SET", "k", strings.Repeat("x", 1<<20))
	before := residentKB(t, n.PID())
	c := n.Dial()
	for range 500 {
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Write([]byte("GET k\r\n")); err != nil {
			break
		}
	}
	time.Sleep(500 * time.Millisecond)
	if grown := residentKB(t, n.PID()) - before; grown > 200_000 {
		t.Errorf("a client that reads nothing of 500 MB costs %d kB", grown)
	}
	equal(t, "PING", n.CLI("ping"), "PONG")
}

// TestFullDisk: when the log cannot be written, writes are refused with an error
// that says so, reads go on, nothing that was refused is there, and nothing
// acknowledged is lost. The limit is on the size of files, which needs no rights: the
// kernel then refuses to extend them, as it does on a full disk.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	limited := true
	n := bed.Node(testbed.Options{ID: 1, Args: []string{"--fsync", "always"}, Wrap: func(args []string) []string {
		if !limited {
			return args
		}
		return append([]string{"bash", "-c", `ulimit -f 8192; trap "" XFSZ; exec "$@"`, "limited"}, args...)
	}})
	value := randomText(200_000)
	acked := 0
	var refusal error
	for i := range 2000 {
		if _, err := n.Try("SET", fmt.Sprint("k", i), value); err != nil {
			refusal = err
			break
		}
		acked++
	}
	if refusal == nil {
		t.Fatalf("%d writes of 200 kB, and no file reached 8 MB", acked)
	}
	if !strings.HasPrefix(refusal.Error(), "MISCONF") {
		t.Errorf("the refused write was told %q", refusal)
	}
	equal(t, "a read", n.Int("STRLEN", "k0"), int64(len(value)))
	equal(t, "the refused key", n.Do("EXISTS", fmt.Sprint("k", acked)), any(int64(0)))
	if got := n.Error("SET", "another", value); !strings.HasPrefix(got, "MISCONF") {
		t.Errorf("the next write was told %q", got)
	}
	equal(t, "keys", n.Int("DBSIZE"), int64(acked))
	if status := n.Info()["log_status"]; status == "ok" {
		t.Error("INFO says that the log is well")
	}
	n.Kill()
	limited = false
	n.Start()
	equal(t, "keys after a restart with room", n.Int("DBSIZE"), int64(acked))
	n.Do("SET", "another", value)
}

// TestDamagedFiles: truncated, overwritten and missing files are found: an error that
// names the file, or a start with everything that was acknowledged; never
// less.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1})
	for i := range 20 {
		fill(n, fmt.Sprint(i, ":"), 300)
	}
	n.Stop()
	n.Start() // so that there are tables, not only a log
	fill(n, "later:", 300)
	before := n.Dataset()
	n.Stop()
	var files []string
	err := filepath.WalkDir(filepath.Join(n.Dir, "oplog"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) < 4 {
		t.Fatalf("files: %v %v", files, err)
	}
	kept := filepath.Join(bed.TempDir(), "kept")
	copyDir(bed, n.Dir, kept)
	damages := map[string]func(path string, b []byte) error{
		"truncated": func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)/2], 0o600) },
		"overwritten": func(path string, b []byte) error {
			for i := len(b) / 3; i < len(b)*2/3; i++ {
				b[i] ^= 0x55
			}
			return os.WriteFile(path, b, 0o600)
		},
		"missing": func(path string, _ []byte) error { return os.Remove(path) },
	}
	errorsSeen := 0
	for name, damage := range damages {
		for _, file := range files {
			base := filepath.Base(file)
			if base == "LOCK" || strings.HasPrefix(base, "OPTIONS") || base == "IDENTITY" {
				continue
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) < 16 {
				continue
			}
			if err := damage(file, b); err != nil {
				t.Fatal(err)
			}
			mark := n.LogSize()
			n.Launch()
			outcome := ""
			bed.Wait(30*time.Second, "the node to start or to end", func() (bool, string) {
				if !n.Running() {
					outcome = "ended"
					return true, ""
				}
				err := n.Client().Exists(context.Background(), "x").Err()
				switch {
				case err == nil:
					outcome = "serves"
				case strings.Contains(err.Error(), "corrupt") || strings.Contains(err.Error(), "checksum mismatch"):
					outcome = "refuses"
				default:
					return false, err.Error()
				}
				return true, ""
			})
			switch outcome {
			case "ended":
				errorsSeen++
				log := n.LogSince(mark)
				if code := n.Ended(time.Second); code != 1 || strings.Contains(log, "panic") || strings.Contains(log, "goroutine ") {
					t.Errorf("%s %s: exit code %d:\n%s", name, base, code, log)
				}
			case "refuses":
				errorsSeen++
				n.Kill()
			case "serves":
				// The end of the write-ahead log, cut off, is what a power loss leaves;
				// anything else would be a silent loss.
				if d := testbed.DiffData(before, n.Dataset()); len(d) > 0 && !strings.HasSuffix(base, ".log") {
					t.Errorf("%s %s: the node serves, but not what was acknowledged: %s", name, base, d[0])
				}
				n.Kill()
			}
			removeAll(bed, n.Dir)
			copyDir(bed, kept, n.Dir)
		}
	}
	if errorsSeen == 0 {
		t.Error("no damage was ever refused: this tests nothing")
	}
	n.Start()
	if d := testbed.DiffData(before, n.Dataset()); len(d) > 0 {
		t.Errorf("the undamaged copy: %v", d)
	}
}

// TestStrangersOnOtherPorts: garbage on the gossip and exchange ports harms
// nobody.
func TestStrangersOnOtherPorts(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	r := rand.New(rand.NewPCG(5, 5))
	for _, port := range []int{a.GossipPort, a.WANPort} {
		for i := range 200 {
			c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			junk := make([]byte, r.IntN(2000))
			for j := range junk {
				junk[j] = byte(r.Uint32())
			}
			switch i % 4 {
			case 0:
				junk = append([]byte("GET / HTTP/1.1\r\n\r\n"), junk...)
			case 1:
				junk = append([]byte{0, 0, 0, 0xff, 0xff, 0xff, 0xff}, junk...)
			}
			_, _ = c.Write(junk)
			_ = c.Close()
		}
		u, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			junk := make([]byte, 1+r.IntN(1000))
			for j := range junk {
				junk[j] = byte(r.Uint32())
			}
			_, _ = u.Write(junk)
		}
		_ = u.Close()
	}
	a.Do("SET", "k", "v")
	bed.Level(a, b)
	equal(t, "members", a.Fields("NODE")["members"], "2")
}

// TestClockSkewBoundIsConfigured: the bound on skew reaches the node. That clocks which
// differ by more are refused is shown in internal/sim: a process's clock
// cannot be moved here.
func TestClockSkewBoundIsConfigured(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 1, Args: []string{"--max-clock-skew", "10ms"}})
	equal(t, "CONFIG GET max-clock-skew", text(n.Do("CONFIG", "GET", "max-clock-skew")), "10ms max-clock-skew")
	equal(t, "refused for skew", n.Info()["core_skewed"], "0")
}

// TestDropsAreCountedPitfall29: what a node refuses or drops has a counter.
func TestDropsAreCountedPitfall29(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	a, b := pair(bed)
	bed.Level(a, b)
	page := func() string {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", a.MetricsPort))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET /metrics HTTP/1.0\r\n\r\n")
		out, _ := io.ReadAll(c)
		return string(out)
	}()
	for _, name := range []string{
		`entries_refused_total{why="duplicate"} 0`, `entries_refused_total{why="gap"} 0`, `entries_refused_total{why="clock_skew"} 0`,
		"log_corrupt_total 0", "log_trimmed_total 0", "log_failed 0", "link_up{", "link_lag_seconds{", "lane_lag_seconds{", "lane_pending_bytes{", "lane_bytes_raw_total{", "link_duplicates_total{", "view_rebuilds_total", "keys_synced_total",
	} {
		if !strings.Contains(page, "replicatord_"+name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
}
