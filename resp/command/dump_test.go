package command

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// TestDumpAndRestore: what a real Redis dumps comes back as it was, and what the
// node dumps a real Redis takes; options and errors are Redis's.
func TestDumpAndRestore(t *testing.T) {
	h := newHarness(t, 1)
	big := make([]string, 0, 2000)
	for i := range 1000 {
		big = append(big, fmt.Sprintf("element %d", i), strconv.Itoa(i))
	}
	for i, make := range [][]string{
		{"SET", "k", "text\x00\r\n"}, {"SET", "k", "12345"}, {"SET", "k", strings.Repeat("long", 5000)}, {"PFADD", "k", "a", "b"},
		{"HSET", "k", "f", "v", "", ""}, append([]string{"HSET", "k"}, big...),
		{"SADD", "k", "1", "2", "3"}, append([]string{"SADD", "k"}, big...),
		{"RPUSH", "k", "a", "", "a"}, append([]string{"RPUSH", "k"}, big...),
		{"ZADD", "k", "1.5", "a", "-inf", "b", "0.1", "c"},
	} {
		h.run("DEL", "k")
		h.run(make...)
		payload := h.model.bulks("DUMP", []byte("k"))[0]
		mine := h.cells([]byte("DUMP"), []byte("k"))
		if raw := h.model.do([]byte("RESTORE"), []byte("copy"), []byte("0"), bulkOf(t, mine)); raw[0] != '+' {
			t.Fatalf("%d: Redis does not take what the node dumped: %s", i, raw)
		}
		h.model.must("DEL", []byte("copy"))
		h.run("RESTORE", "k", "0", string(payload)) // BUSYKEY
		h.run("RESTORE", "k", "0", string(payload), "REPLACE")
		h.run("RESTORE", "j", "0", string(payload))
		h.run("DEL", "j")
	}
	payload := string(h.model.bulks("DUMP", []byte("k"))[0])
	in := strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)
	for _, args := range [][]string{
		{"k", "0", payload}, {"k", in, payload, "replace", "absttl"}, {"k", "1", payload, "ABSTTL", "REPLACE"}, {"k", "0", payload}, {"new", "1", payload, "ABSTTL"},
		{"k", "-1", payload, "REPLACE"}, {"k", "x", payload, "REPLACE"}, {"k", "0", payload, "REPLACE", "FOO"}, {"k", "0", payload[:len(payload)-1], "REPLACE"},
		{"k", "0", "", "REPLACE"}, {"k", "0", "\x00" + payload[1:], "REPLACE"}, {"k", "0", payload, "REPLACE", "IDLETIME", "-1"}, {"k", "0", payload, "REPLACE", "FREQ", "256"},
		{"k", "0", payload, "REPLACE", "FREQ", "1", "IDLETIME", "1"}, {"k", "0", payload, "REPLACE", "IDLETIME"}, {"k", "0", payload, "REPLACE", "IDLETIME", "x"},
	} {
		h.run(append([]string{"RESTORE"}, args...)...)
	}
	if raw := h.cells(bytesOf([]string{"RESTORE", "k", "0", payload, "REPLACE", "IDLETIME", "1000"})...); raw[0] != '+' {
		t.Errorf("%s", raw)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(h.view.must("OBJECT", []byte("IDLETIME"), []byte("k"))[1:]))); err != nil || n < 1000 {
		t.Errorf("idle for %d", n)
	}
	h.run("DUMP", "none")
	if keys := h.view.bulks("KEYS", []byte("*replicatord*")); len(keys) > 0 {
		t.Errorf("the view still has %q", keys)
	}
}

func bulkOf(t *testing.T, raw []byte) []byte {
	t.Helper()
	list, err := parseBulks(raw, 1)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v: %.100q", err, raw)
	}
	return list[0]
}

// TestCopyStream copies a stream with everything from one real Redis to another.
func TestCopyStream(t *testing.T) {
	from, to := startRedis(t), startRedis(t)
	say := func(line string) { from.must(strings.Fields(line)[0], bytesOf(strings.Fields(line)[1:])...) }
	for _, line := range []string{
		"XADD s 1-1 a 1", "XADD s 1-2 b 2 c 3", "XADD s 5-0 d 4", "XADD s 9-9 e 5", "XDEL s 9-9", "XGROUP CREATE s g 0", "XGROUP CREATE s h $",
		"XREADGROUP GROUP g c1 COUNT 2 STREAMS s >", "XREADGROUP GROUP g c2 COUNT 1 STREAMS s >", "XGROUP CREATECONSUMER s g idle", "XACK s g 1-1",
	} {
		say(line)
	}
	check := func(name string) {
		t.Helper()
		if e := CopyStream(func(a ...[]byte) []byte { return from.do(a...) }, []byte(name), func(a ...[]byte) []byte { return to.do(a...) }, []byte("copy")); e != nil {
			t.Fatalf("%s", e)
		}
		for _, q := range [][]string{{"XRANGE", "%", "-", "+"}, {"XINFO", "GROUPS", "%"}, {"XPENDING", "%", "g"}} {
			ask := func(c *redisConn, name string) []byte {
				args := bytesOf(q)
				for i := range args {
					if string(args[i]) == "%" {
						args[i] = []byte(name)
					}
				}
				return c.do(args...)
			}
			if got, want := ask(to, "copy"), ask(from, name); !bytes.Equal(got, want) {
				t.Errorf("%q:\n got %q\nwant %q", q, got, want)
			}
		}
		info := func(c *redisConn, name string) string {
			v, _, err := parseValue(c.must("XINFO", []byte("STREAM"), []byte(name)), 0)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%v %s %s %v", v.get("length").n, v.get("last-generated-id").text, v.get("max-deleted-entry-id").text, v.get("entries-added").n)
		}
		if got, want := info(to, "copy"), info(from, name); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check("s")
	say("XGROUP CREATE empty g 0 MKSTREAM")
	to.must("DEL", []byte("copy"))
	check("empty")
	for i := range 2500 {
		say(fmt.Sprintf("XADD long %d-0 f %d", i+1, i))
	}
	say("XGROUP CREATE long g 0")
	say("XREADGROUP GROUP g c STREAMS long >")
	to.must("DEL", []byte("copy"))
	check("long")
}

// TestSwapDB exchanges two databases, with expiries and every type.
func TestSwapDB(t *testing.T) {
	h := newHarness(t, 1)
	for _, line := range []string{"SET a 1", "HSET h f v", "SADD s m", "ZADD z 1 m", "SET e v EXAT 4102444800", "PFADD p a"} {
		h.run(strings.Fields(line)...)
	}
	for _, line := range []string{"SWAPDB 0 1", "SET a 2", "SWAPDB 1 0", "SWAPDB 0 0", "SWAPDB 0 16", "SWAPDB -1 0", "SWAPDB x 0", "SWAPDB 0 x", "SWAPDB 5 6"} {
		h.run(strings.Fields(line)...)
	}
	h.view.use(1)
	if got := string(h.view.do([]byte("GET"), []byte("a"))); got != "$1\r\n2\r\n" {
		t.Errorf("in database 1: %q", got)
	}
}

// swapTx is a transaction at a replica with a view.
type swapTx struct {
	replicaTx
	view *redisConn
}

func (x swapTx) View(db uint8, args ...[]byte) ([]byte, error) {
	x.view.use(db)
	return x.view.do(args...), nil
}

// TestSwapDBConcurrent: what a SWAPDB had not seen stays in the database where it
// was written, in whatever order both arrive.
func TestSwapDBConcurrent(t *testing.T) {
	view := startRedis(t)
	now := time.Now().UnixMilli()
	tag := crdt.TagAt(now, 1)
	a, b := newReplica(1), newReplica(2)
	write := func(p *replica, line string) []crdt.Entry {
		t.Helper()
		tag += 1 << 12
		p.log = nil
		p.write(t, line, tag, now)
		return p.log
	}
	b.apply(write(a, "SET k 1")...)
	b.apply(write(a, "SADD s m")...)
	view.must("SET", []byte("k"), []byte("1"))
	view.must("SADD", []byte("s"), []byte("m"))

	tag += 1 << 12
	w := crdt.NewWriter(a.ks, a.stream, tag, now)
	c := &Context{Tx: swapTx{replicaTx{w}, view}, Args: wordsOf("SWAPDB 0 1")}
	swapdb(c)
	if string(c.Out.Buf) != "+OK\r\n" {
		t.Fatalf("%s", c.Out.Buf)
	}
	swapped := w.Entries()
	for _, e := range swapped {
		a.advance(e)
	}
	unseen := append(write(b, "SET k 2"), write(b, "SADD s n")...)
	a.apply(unseen...)
	b.apply(swapped...)
	if len(swapped) != 1 {
		t.Errorf("%d entries", len(swapped))
	}
	for i, p := range []*replica{a, b} {
		w := crdt.NewWriter(p.ks, p.stream, 0, now)
		got := fmt.Sprintf("%s %s %s %s", valueOf(w, crdt.Key{DB: 0, Name: "k"}), valueOf(w, crdt.Key{DB: 0, Name: "s"}),
			valueOf(w, crdt.Key{DB: 1, Name: "k"}), valueOf(w, crdt.Key{DB: 1, Name: "s"}))
		if want := "[2] [n] [1] [m]"; got != want {
			t.Errorf("replica %d: %s, want %s", i, got, want)
		}
		if p.digest() != a.digest() {
			t.Errorf("replica %d: another digest", i)
		}
	}
}

// FuzzParseValue: whatever the reply, taking it apart ends.
func FuzzParseValue(f *testing.F) {
	for _, s := range []string{"*2\r\n$1\r\na\r\n:5\r\n", "$-1\r\n", "*-1\r\n", "+OK\r\n", "*1\r\n*1\r\n*0\r\n", "*9999999999\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, rest, err := parseValue(b, 0)
		if err == nil && len(rest) >= len(b) {
			t.Fatalf("nothing was taken of %q", b)
		}
	})
}
