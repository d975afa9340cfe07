package node

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/command"
)

// TestStrip: the watermark shows in no reply, and keys that look like protocol
// are left alone.
func TestStrip(t *testing.T) {
	mark := "$22\r\n" + markKey + "\r\n"
	if len(markKey) != 22 {
		t.Fatalf("the mark has %d bytes", len(markKey))
	}
	evil := "$12\r\n*2\r\n$1\r\na\r\nb\r\n"
	for _, c := range []struct{ command, raw, want string }{
		{"dbsize", ":5\r\n", ":4\r\n"},
		{"DBSIZE", ":0\r\n", ":0\r\n"},
		{"KEYS", "*2\r\n" + mark + "$1\r\na\r\n", "*1\r\n$1\r\na\r\n"},
		{"keys", "*2\r\n" + evil + mark, "*1\r\n" + evil},
		{"KEYS", "*1\r\n" + evil, "*1\r\n" + evil},
		{"KEYS", "*0\r\n", "*0\r\n"},
		{"SCAN", "*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n" + mark, "*2\r\n$2\r\n17\r\n*1\r\n$1\r\na\r\n"},
		{"SCAN", "*2\r\n$1\r\n0\r\n*0\r\n", "*2\r\n$1\r\n0\r\n*0\r\n"},
		{"GET", mark, mark},
		{"KEYS", "-ERR no\r\n", "-ERR no\r\n"},
	} {
		conn := &viewConn{hidden: 15, filter: true}
		v := &ViewCmd{DB: 15, Args: [][]byte{[]byte(c.command)}}
		if got := string(conn.strip(v, []byte(c.raw))); got != c.want {
			t.Errorf("%s %q: %q, want %q", c.command, c.raw, got, c.want)
		}
		v.DB = 3
		if got := string(conn.strip(v, []byte(c.raw))); got != c.raw {
			t.Errorf("%s in another database: %q", c.command, got)
		}
	}
}

func TestWatermarkRoundTrip(t *testing.T) {
	w := watermark{dir: 1 << 60, node: 4095, generation: 77, vector: vec(1, 5, 9, 7)}
	w.ahead = []crdt.Key{{DB: 3, Name: "a"}, {Name: ""}, {DB: 15, Name: "\x00b"}}
	got, err := decodeWatermark(w.encode())
	if err != nil || !slices.Equal(got.ahead, w.ahead) || got.dir != w.dir || got.node != w.node || got.generation != w.generation || !got.vector.Equal(w.vector) {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "\x01", "\x02" + strings.Repeat("x", 40), string(w.encode()) + "x"} {
		if _, err := decodeWatermark([]byte(bad)); err == nil {
			t.Errorf("%q was decoded", bad)
		}
	}
}

// TestViewTakesWhatIsLarge: the view's bounds on sizes follow what it is sent, whatever
// they were, and wherever the value is from.
func TestViewTakesWhatIsLarge(t *testing.T) {
	socket := plainRedis(t)
	plain := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Protocol: 2})
	defer func() { _ = plain.Close() }()
	for _, name := range []string{"proto-max-bulk-len", "client-query-buffer-limit"} {
		if err := plain.ConfigSet(t.Context(), name, "1mb").Err(); err != nil {
			t.Fatal(err)
		}
	}
	source := &viewSource{target: RedisTarget{Network: "unix", Addr: socket}, alive: func() error { return nil }, most: 2 << 20}
	c, err := source.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := newPump(nil, nil, nil, slog.New(slog.DiscardHandler))
	for _, size := range []int{2 << 20, 2<<20 + 1, 5 << 20, 3 << 20} {
		b := &Batch{}
		b.set(0, []byte("k"), make([]byte, size))
		if err := p.exec(c, []*Batch{b}); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if n := plain.StrLen(t.Context(), "k").Val(); n != int64(size) {
			t.Errorf("%d bytes of %d", n, size)
		}
	}
}

// TestEmbeddedSaysWhatItLacks: what the embedded store cannot do is refused with what would
// help, is listed in the docs, and never ends the node.
func TestEmbeddedSaysWhatItLacks(t *testing.T) {
	docs, err := os.ReadFile("../docs/COMPATIBILITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(docs), "## With the embedded store")
	list, _, _ = strings.Cut(list, "\n## ")
	n := startTestNode(t, 1, nil)
	c := dialRaw(t, "tcp", n.cfg.Addr())
	expect(t, c.do, "SET s value", "+OK\r\n")
	expect(t, c.do, "HSET h f v", ":1\r\n")
	m := miniredis.RunT(t)
	lacks := func(cmd *command.Command) bool {
		return cmd.Run == nil && cmd.Flags&command.ReadOnly != 0 && len(cmd.Sub) == 0 && !m.Server().IsRegisteredCommand(cmd.Name)
	}
	names := []string{"DUMP", "RESTORE", "SORT", "OBJECT"}
	for _, cmd := range command.All() {
		if lacks(cmd) {
			names = append(names, cmd.Name)
		}
	}
	for _, name := range names {
		if !strings.Contains(list, "`"+name+"`") {
			t.Errorf("docs/COMPATIBILITY.md does not say that %s needs a real Redis", name)
		}
	}
	for _, line := range []string{"LCS s s", "SORT s", "SORT_RO s", "DUMP s", "RESTORE r 0 value", "OBJECT ENCODING s", "ZDIFF 1 z", "BITFIELD_RO s GET u8 0", "BITCOUNT s 0 1 BIT", "BITPOS s 1 0 1 BIT", "SUBSTR s 0 1"} {
		if got := c.do(line); !strings.HasPrefix(got, "-ERR ") || !strings.Contains(got, "a real Redis") || !strings.Contains(got, "--redis") {
			t.Errorf("%s: %q", line, got)
		}
	}
	expect(t, c.do, "EXISTS r", ":0\r\n")
	for _, line := range []string{"HRANDFIELD h -9223372036854775807", "SRANDMEMBER none -4611686018427387904", "ZRANDMEMBER none -4611686018427387904"} {
		if got := c.do(line); got[0] != '-' {
			t.Errorf("%s: %q", line, got)
		}
	}
	expect(t, c.do, "HGET h f", "$1\r\nv\r\n")
}

// TestEmbeddedPanic: a command at which the embedded store panics costs its connection.
func TestEmbeddedPanic(t *testing.T) {
	m := miniredis.RunT(t)
	guard(m, slog.New(slog.DiscardHandler))
	if err := m.Server().Register("PANIC", func(*server.Peer, string, []string) {
		m.Lock()
		panic("a bug")
	}); err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(&redis.Options{Addr: m.Addr(), Protocol: 2, MaxRetries: -1})
	defer func() { _ = c.Close() }()
	for range 3 {
		if err := c.Do(t.Context(), "PANIC").Err(); err == nil {
			t.Error("it was carried out")
		}
		if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
			t.Error(err)
		}
	}
}
