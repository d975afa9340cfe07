package command

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// The tables of docs/SEMANTICS.md, row by row: two nodes run their commands
// apart; then replicas that get the writes in either order, again, or folded,
// must all answer what the row says, and hold the same.
func TestSemantics(t *testing.T) {
	text, err := os.ReadFile("../../docs/SEMANTICS.md")
	if err != nil {
		t.Fatal(err)
	}
	view := startRedis(t)
	rows := semanticsRows(t, string(text))
	if len(rows) < 50 {
		t.Fatalf("found %d rows", len(rows))
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { r.run(t, view) })
	}
}

type semanticsRow struct {
	name                  string
	before, first, second []string // commands
	after                 [][2]string
	then                  []string
	finally               [][2]string
}

var (
	codeSpan = regexp.MustCompile("`([^`]*)`")
	outcome  = regexp.MustCompile("`([^`]*)` = `([^`]*)`")
)

// semanticsRows reads the rows of all tables that begin with "before".
func semanticsRows(t *testing.T, text string) []semanticsRow {
	t.Helper()
	var rows []semanticsRow
	table, section := 0, ""
	for n, line := range strings.Split(text, "\n") {
		if s, ok := strings.CutPrefix(line, "## "); ok {
			section = s
		}
		switch {
		case strings.HasPrefix(line, "| before |"):
			table = strings.Count(line, "|") - 1
		case !strings.HasPrefix(line, "|"):
			table = 0
		case table > 0 && !strings.HasPrefix(line, "|---"):
			col := strings.Split(line, "|")
			if len(col) != table+2 {
				t.Fatalf("line %d: %d columns, want %d", n+1, len(col)-2, table)
			}
			r := semanticsRow{name: fmt.Sprintf("%s, line %d", section, n+1),
				before: spans(col[1]), first: spans(col[2]), second: spans(col[3]), after: outcomes(col[4])}
			if table == 7 {
				r.then, r.finally = spans(col[5]), outcomes(col[6])
			}
			if len(r.first) == 0 || len(r.second) == 0 || len(r.after) == 0 || len(r.then) > 0 && len(r.finally) == 0 {
				t.Fatalf("line %d says too little: %s", n+1, line)
			}
			rows = append(rows, r)
		}
	}
	return rows
}

func spans(cell string) (out []string) {
	for _, m := range codeSpan.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}

func outcomes(cell string) (out [][2]string) {
	for _, m := range outcome.FindAllStringSubmatch(cell, -1) {
		out = append(out, [2]string{m[1], m[2]})
	}
	return out
}

func (r *semanticsRow) run(t *testing.T, view *redisConn) {
	now := time.Now().UnixMilli()
	tag := crdt.TagAt(now, 1)
	write := func(p *replica, commands []string) {
		t.Helper()
		for _, c := range commands {
			tag += 1 << 12
			p.write(t, c, tag, now)
		}
	}
	a, b := newReplica(1), newReplica(2)
	write(a, r.before)
	before := a.log
	a.log = nil
	b.apply(before...)
	write(a, r.first)
	write(b, r.second)
	first, second := a.log, b.log
	a.log = nil

	c, d, e := newReplica(3), newReplica(4), newReplica(5)
	a.apply(second...)
	b.apply(first...)
	for _, entries := range [][]crdt.Entry{before, first, second, before, second, first} {
		c.apply(entries...)
	}
	for _, entries := range [][]crdt.Entry{before, second, first} {
		d.apply(entries...)
	}
	for _, entries := range [][]crdt.Entry{slices.Concat(before, first), second} {
		// Every write of a stream in one.
		e.apply(crdt.FoldEntries(entries))
	}
	all := []*replica{a, b, c, d, e}
	check := func(want [][2]string) {
		t.Helper()
		for i, p := range all {
			p.show(view, now)
			for _, w := range want {
				if got := p.ask(t, view, w[0]); got != w[1] {
					t.Errorf("replica %d: %s = %s, want %s", i, w[0], got, w[1])
				}
			}
			if got, want := p.digest(), a.digest(); got != want {
				t.Errorf("replica %d: digest %x, want %x", i, got, want)
			}
		}
	}
	check(r.after)
	write(a, r.then)
	for _, p := range all[1:] {
		p.apply(a.log...)
	}
	check(r.finally)
}

// replica is the state of one node.
type replica struct {
	ks     *crdt.Keyspace
	stream crdt.Stream
	log    []crdt.Entry // of its own
}

func newReplica(node uint16) *replica {
	return &replica{ks: &crdt.Keyspace{Store: crdttest.New()}, stream: crdt.NewStream(node, 1, 0)}
}

func (p *replica) digest() uint64 { return p.ks.Store.(*crdttest.Store).Digest() }

// replicaTx is a transaction of a single command.
type replicaTx struct{ *crdt.Writer }

func (replicaTx) Rand() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }

func (replicaTx) View(uint8, ...[]byte) ([]byte, error) {
	return nil, errors.New("ERR a row needs no view")
}

// write runs a command as a commit group of its own; it must succeed.
func (p *replica) write(t *testing.T, line string, tag crdt.Tag, now int64) {
	t.Helper()
	args := wordsOf(line)
	cmd, refusal := Find(args)
	if refusal != "" || cmd.Run == nil {
		t.Fatalf("%s: no write: %s", line, refusal)
	}
	w := crdt.NewWriter(p.ks, p.stream, tag, now)
	c := &Context{Tx: replicaTx{w}, Args: args, Scripts: testScripts()}
	cmd.Run(c)
	if len(c.Out.Buf) == 0 || c.Out.Buf[0] == '-' {
		t.Fatalf("%s: %s", line, c.Out.Buf)
	}
	for _, e := range w.Entries() {
		p.log = append(p.log, e)
		p.advance(e)
	}
}

// apply applies entries of others; those that it has already change nothing.
func (p *replica) apply(entries ...crdt.Entry) {
	for _, e := range entries {
		p.ks.Apply(&e)
		p.advance(e)
	}
}

func (p *replica) advance(e crdt.Entry) {
	p.ks.Have = p.ks.Have.Clone()
	p.ks.Have.Raise(e.Stream, e.Tag)
}

// show makes the view hold what the replica does.
func (p *replica) show(view *redisConn, now int64) {
	view.must("FLUSHALL")
	w := crdt.NewWriter(p.ks, p.stream, 0, now)
	for _, k := range p.ks.Store.(*crdttest.Store).Keys() {
		showKey(view, w, k)
	}
}

// ask answers a read: by the cells, if its row has a Run, or by the view.
func (p *replica) ask(t *testing.T, view *redisConn, line string) string {
	t.Helper()
	args := wordsOf(line)
	cmd, refusal := Find(args)
	if refusal != "" {
		t.Fatalf("%s: %s", line, refusal)
	}
	var raw []byte
	if cmd.Run != nil {
		c := &Context{Tx: replicaTx{crdt.NewWriter(p.ks, p.stream, 0, time.Now().UnixMilli())}, Args: args}
		cmd.Run(c)
		raw = c.Out.Buf
	} else {
		view.use(0)
		raw = view.do(args...)
	}
	if raw[0] == '-' {
		t.Fatalf("%s: %s", line, raw)
	}
	words := flatten(parseReply(t, raw))
	if !strings.HasPrefix(line, "LRANGE ") {
		slices.Sort(words)
	}
	return strings.Join(words, " ")
}

// flatten lists the words of a reply, whatever lists they are in.
func flatten(v reply) (out []string) {
	switch v.text {
	case "*":
		for _, e := range v.list {
			out = append(out, flatten(e)...)
		}
	case "$-1\r\n", "*-1\r\n":
		out = append(out, "(nil)")
	default:
		out = append(out, v.bulk())
	}
	return out
}

// showKey sets a key in a view to what a keyspace holds.
func showKey(view *redisConn, w *crdt.Writer, k crdt.Key) {
	view.use(k.DB)
	name := []byte(k.Name)
	view.must("DEL", name)
	value := valueOf(w, k)
	switch w.Type(k) {
	case crdt.TypeString:
		view.must("SET", name, value[0])
	case crdt.TypeHash:
		view.must("HSET", append([][]byte{name}, value...)...)
	case crdt.TypeSet:
		view.must("SADD", append([][]byte{name}, value...)...)
	case crdt.TypeZSet:
		for i := 0; i < len(value); i += 2 {
			value[i], value[i+1] = value[i+1], value[i]
		}
		view.must("ZADD", append([][]byte{name}, value...)...)
	case crdt.TypeList:
		view.must("RPUSH", append([][]byte{name}, value...)...)
	case crdt.TypeStream:
		view.must("XADD", name, []byte("0-1"), []byte("f"), []byte("v"))
	}
	if at := w.Expiry(k); at != 0 {
		view.must("PEXPIREAT", name, strconv.AppendInt(nil, at, 10))
	}
}

func wordsOf(line string) [][]byte {
	var out [][]byte
	for _, w := range strings.Fields(line) {
		out = append(out, []byte(w))
	}
	return out
}
