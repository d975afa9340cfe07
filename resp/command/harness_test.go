package command

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// The harness runs commands three ways side by side and compares them:
//
//   - on the model, a redis-server that gets the commands as they are;
//   - on cells: the command's Run over a crdt.Writer, or, for reads, on the
//     view, another redis-server that gets nothing but the effects;
//   - on a follower: a second keyspace that gets nothing but the log entries.
//
// Replies must be the same byte for byte, but for order where Redis promises
// none; after each step all four data sets must be the same.
type harness struct {
	t        *testing.T
	rng      *rand.Rand
	model    *redisConn
	view     *redisConn
	keys     *crdt.Keyspace
	follower *crdt.Keyspace
	writer   *crdt.Writer // of the commit group in progress
	tag      crdt.Tag
	now      int64
	left     int   // commands until the group is committed
	clean    bool  // nothing was run since the last commit
	stale    bool  // Tx.View answers without the latest effects
	viewErr  error // what Tx.View fails with
	loose    bool  // scores are compared to 14 digits
	history  []string
}

const harnessNode = 7

var harnessStream = crdt.NewStream(harnessNode, 1, 0)

// newHarness starts the servers. The seed determines the run; it is printed if
// the test fails.
func newHarness(t *testing.T, seed uint64) *harness {
	t.Helper()
	h := &harness{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)),
		model: startRedis(t), view: startRedis(t),
		keys:     &crdt.Keyspace{Store: crdttest.New()},
		follower: &crdt.Keyspace{Store: crdttest.New()},
		now:      time.Now().UnixMilli(),
	}
	h.begin()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d; the last commands:\n%s", seed, strings.Join(h.history[max(0, len(h.history)-30):], "\n"))
		}
	})
	return h
}

// seeds returns the seeds that every run tries, and one that is new each time.
func seeds() []uint64 { return []uint64{1, 2, uint64(time.Now().UnixNano())} }

func (h *harness) begin() {
	h.now = max(h.now, time.Now().UnixMilli())
	h.tag = max(crdt.TagAt(h.now, harnessNode), h.tag+1<<12)
	h.writer = crdt.NewWriter(h.keys, harnessStream, h.tag, h.now)
	h.left = 1 + h.rng.IntN(4)
	h.clean = true
}

// commit ends a commit group: its entries go to the follower.
func (h *harness) commit() []crdt.Entry {
	h.level()
	entries := h.writer.Entries()
	for _, e := range entries {
		h.follower.Apply(&e)
		h.keys.Have.Set(e.Stream, e.Tag)
		h.follower.Have.Set(e.Stream, e.Tag)
	}
	clear(h.follower.Touched)
	h.begin()
	return entries
}

// level brings the view level with the cells.
func (h *harness) level() {
	for k := range h.keys.Touched {
		showKey(h.view, h.writer, k)
	}
	clear(h.keys.Touched)
}

// valueOf returns what a key holds: a string, fields and values by field,
// members, members and scores in the order of a sorted set, or items.
func valueOf(w *crdt.Writer, k crdt.Key) [][]byte {
	var out [][]byte
	switch w.Type(k) {
	case crdt.TypeString:
		v, _ := StringOf(w, k)
		out = append(out, v)
	case crdt.TypeHash:
		w.EachElem(k, crdt.KindField, func(f string, v []byte) bool {
			out = append(out, []byte(f), v)
			return true
		})
	case crdt.TypeSet:
		w.EachElem(k, crdt.KindMember, func(m string, _ []byte) bool {
			out = append(out, []byte(m))
			return true
		})
	case crdt.TypeZSet:
		out = scoresOf(w, k)
	case crdt.TypeList:
		w.EachElem(k, crdt.KindItem, func(_ string, v []byte) bool {
			out = append(out, v)
			return true
		})
	}
	return out
}

// testTx is the transaction of the commit group in progress.
type testTx struct {
	*crdt.Writer
	h *harness
}

func (x testTx) Rand() *rand.Rand { return x.h.rng }

func (x testTx) View(db uint8, args ...[]byte) ([]byte, error) {
	if x.h.viewErr != nil {
		return nil, x.h.viewErr
	}
	if !x.h.stale {
		x.h.level()
	}
	x.h.view.use(db)
	return x.h.view.do(args...), nil
}

// cells runs a command on database 0 of the cells, or of the view if it only
// reads, and returns its reply.
func (h *harness) cells(args ...[]byte) []byte {
	h.t.Helper()
	h.history = append(h.history, fmt.Sprintf("%.300q", args))
	cmd, refusal := Find(args)
	if refusal != "" {
		return []byte("-" + refusal + "\r\n")
	}
	if cmd.Run == nil {
		h.level()
		h.view.use(0)
		return h.view.do(args...)
	}
	c := &Context{Tx: testTx{h.writer, h}, Args: cloneArgs(args), Out: Reply{Proto: 2}}
	h.clean = false
	runSteps(cmd, c)
	if c.Waits != nil {
		c.Waits.Timeout(&c.Out)
	}
	for i, a := range c.Args {
		if !bytes.Equal(a, args[i]) { // what is written may share its memory
			h.t.Fatalf("%q: argument %d was changed to %q", args, i, a)
		}
	}
	clear(c.Args) // nobody may have kept the list
	if h.left--; h.left == 0 {
		h.commit()
	}
	return c.Out.Buf
}

// runSteps runs a command, all of its steps if it goes in steps.
func runSteps(cmd *Command, c *Context) {
	again := *c
	for cmd.Run(c); c.Waits != nil && c.Waits.Steps; cmd.Run(c) {
		again.Resumed = c.Waits.State
		*c = again
	}
}

// run runs a command both ways, compares replies and data sets, and returns
// the reply.
func (h *harness) run(args ...string) []byte {
	h.t.Helper()
	b := make([][]byte, len(args))
	for i, a := range args {
		b[i] = []byte(a)
	}
	got := h.cells(b...)
	want := h.model.do(b...)
	name := strings.ToUpper(args[0])
	if g, w := canonical(name, got), canonical(name, want); !bytes.Equal(g, w) {
		h.t.Fatalf("%.300q:\n got %.500q\nwant %.500q", args, g, w)
	}
	if lookup(b).Run != nil {
		h.compare()
	}
	return got
}

// give sets up keys by primitives of the transaction and commands of the
// model: for what is not under test.
func (h *harness) give(effect func(*crdt.Writer), model ...string) {
	h.t.Helper()
	h.clean = false
	effect(h.writer)
	args := make([][]byte, len(model)-1)
	for i, a := range model[1:] {
		args[i] = []byte(a)
	}
	h.model.must(model[0], args...)
	h.history = append(h.history, fmt.Sprintf("setup %.300q", model))
}

// compare compares database 0 of model, cells, view and, between groups,
// follower.
func (h *harness) compare() {
	h.t.Helper()
	h.level()
	want := h.model.dump(0)
	if got := h.view.dump(0); got != want {
		h.t.Fatalf("view:\n%.2000s\nmodel:\n%.2000s", got, want)
	}
	if got := h.dump(h.keys); got != want {
		h.t.Fatalf("cells:\n%.2000s\nmodel:\n%.2000s", got, want)
	}
	if h.clean {
		if got := h.dump(h.follower); got != want {
			h.t.Fatalf("follower:\n%.2000s\nmodel:\n%.2000s", got, want)
		}
		if a, b := h.keys.Store.(*crdttest.Store).Digest(), h.follower.Store.(*crdttest.Store).Digest(); a != b {
			h.t.Fatalf("digests differ: %x, follower %x", a, b)
		}
	}
}

// dump prints database 0 of a keyspace as redisConn.dump does.
func (h *harness) dump(ks *crdt.Keyspace) string {
	w := crdt.NewWriter(ks, harnessStream, 0, h.now)
	var out []string
	ks.Store.EachKey(0, func(k crdt.Key, _ *crdt.Header) bool {
		if t := w.Type(k); t != crdt.TypeNone {
			value := valueOf(w, k)
			if h.loose && t == crdt.TypeZSet {
				value = looseScores(value)
			}
			out = append(out, dumpLine(k.Name, t.String(), w.Expiry(k), value))
		}
		return true
	})
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func dumpLine(key, typ string, expiry int64, value [][]byte) string {
	if typ == "string" {
		value = [][]byte{hllForm(value[0])}
	}
	return fmt.Sprintf("%q %s until %d: %q", key, typ, expiry, value)
}

// canonical brings a reply whose order Redis leaves open into one order.
func canonical(name string, raw []byte) []byte {
	switch name {
	case "HKEYS", "HVALS", "SMEMBERS", "SINTER", "SUNION", "SDIFF":
		return sortReply(raw, 1)
	case "HGETALL":
		return sortReply(raw, 2)
	case "ZSCAN": // what comes first is up to each server's hash seed
		if raw[0] == '*' {
			return raw[:1]
		}
	}
	return plainZeroReply(name, raw)
}

// sortReply sorts an array reply in units of n elements.
func sortReply(raw []byte, n int) []byte {
	if len(raw) == 0 || raw[0] != '*' {
		return raw
	}
	r := bufio.NewReader(bytes.NewReader(raw))
	head, err := r.ReadSlice('\n')
	if err != nil {
		panic(err)
	}
	out := bytes.Clone(head)
	var units []string
	for {
		var unit []byte
		for range n {
			e, err := readReply(r)
			if errors.Is(err, io.EOF) {
				slices.Sort(units)
				return append(out, strings.Join(units, "")...)
			}
			if err != nil {
				panic(err)
			}
			unit = append(unit, e...)
		}
		units = append(units, string(unit))
	}
}

func cloneArgs(args [][]byte) [][]byte {
	out := make([][]byte, len(args))
	for i, a := range args {
		out[i] = bytes.Clone(a)
	}
	return out
}

// redisConn is a connection to a redis-server of the test's own.
type redisConn struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	db   uint8

	loose bool // scores are read to 14 digits
}

// startRedis starts a redis-server on a private unix socket; it ends with the
// test. Without one installed the test fails.
func startRedis(t *testing.T) *redisConn {
	t.Helper()
	return startServer(t, "redis-server", "these tests need redis-server")
}

// startRedis8 starts a server that knows expiries of hash fields.
func startRedis8(t *testing.T) *redisConn {
	t.Helper()
	return startServer(t, "../../bin/redis8/redis-server", "this test needs Redis 8, which scripts/new-redis bin/redis8 puts there")
}

func startServer(t *testing.T, binary, without string) *redisConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(binary, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", dir)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", without, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			return &redisConn{t: t, conn: conn, r: bufio.NewReader(conn)}
		}
		if time.Now().After(deadline) {
			t.Fatalf("redis-server does not answer: %s", log.String())
		}
	}
}

// redial opens another connection to a server.
func redial(t *testing.T, c *redisConn) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", c.conn.RemoteAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, bufio.NewReader(conn)
}

// do sends a command and returns its raw reply.
func (c *redisConn) do(args ...[]byte) []byte {
	c.t.Helper()
	w := Reply{}
	w.Array(len(args))
	for _, a := range args {
		w.Bulk(a)
	}
	if _, err := c.conn.Write(w.Buf); err != nil {
		c.t.Fatal(err)
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(20 * time.Second)) // for what should not wait, and does
	raw, err := readReply(c.r)
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

// must sends a command that succeeds.
func (c *redisConn) must(name string, args ...[]byte) []byte {
	c.t.Helper()
	raw := c.do(append([][]byte{[]byte(name)}, args...)...)
	if raw[0] == '-' {
		c.t.Fatalf("%s %.300q: %s", name, args, raw)
	}
	return raw
}

// bulks sends a command whose reply is one bulk string or an array of them.
func (c *redisConn) bulks(name string, args ...[]byte) [][]byte {
	c.t.Helper()
	raw := c.must(name, args...)
	out, err := parseBulks(raw, len(raw))
	if err != nil {
		c.t.Fatalf("%s %.300q: %v", name, args, err)
	}
	return out
}

func (c *redisConn) use(db uint8) {
	if c.db != db {
		c.must("SELECT", strconv.AppendUint(nil, uint64(db), 10))
		c.db = db
	}
}

// dump prints a database, a line for each key, in order.
func (c *redisConn) dump(db uint8) string {
	c.t.Helper()
	c.use(db)
	var out []string
	for _, k := range c.bulks("KEYS", []byte("*")) {
		typ := strings.TrimSpace(string(c.must("TYPE", k)[1:]))
		var value [][]byte
		switch typ {
		case "string":
			value = c.bulks("GET", k)
		case "hash":
			flat := c.bulks("HGETALL", k)
			pairs := slices.Collect(slices.Chunk(flat, 2))
			slices.SortFunc(pairs, func(a, b [][]byte) int { return bytes.Compare(a[0], b[0]) })
			value = slices.Concat(pairs...)
		case "set":
			value = c.bulks("SMEMBERS", k)
			slices.SortFunc(value, bytes.Compare)
		case "zset":
			value = plainZeros(c.bulks("ZRANGE", k, []byte("0"), []byte("-1"), []byte("WITHSCORES")))
			if c.loose {
				value = looseScores(value)
			}
		case "list":
			value = c.bulks("LRANGE", k, []byte("0"), []byte("-1"))
		default:
			c.t.Fatalf("%q is a %s", k, typ)
		}
		expiry, err := strconv.ParseInt(strings.TrimSpace(string(c.must("PEXPIRETIME", k)[1:])), 10, 64)
		if err != nil {
			c.t.Fatal(err)
		}
		out = append(out, dumpLine(string(k), typ, max(expiry, 0), value))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// readReply reads one reply, whole, as raw bytes.
func readReply(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(line[1:])))
	switch line[0] {
	case '$':
		if n >= 0 {
			body := make([]byte, n+2)
			if _, err := io.ReadFull(r, body); err != nil {
				return nil, err
			}
			line = append(line, body...)
		}
	case '*':
		for range n {
			e, err := readReply(r)
			if err != nil {
				return nil, err
			}
			line = append(line, e...)
		}
	}
	return line, nil
}
