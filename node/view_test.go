package node

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/crdt"
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
