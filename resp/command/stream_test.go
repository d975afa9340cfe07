package command

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// streamState is the request whose reply tells all of a stream.
func streamState(key string) []string { return []string{"XINFO", "STREAM", key, "FULL", "COUNT", "0"} }

// withID returns the request to the model: with the id that the cells have made,
// if they have made one.
func withID(args [][]byte, got []byte) [][]byte {
	if !bytes.EqualFold(args[0], []byte("XADD")) || len(got) == 0 || got[0] != '$' {
		return args
	}
	for i := 2; i < len(args); i++ {
		if string(args[i]) == "*" {
			id, err := parseBulks(got, 1)
			if err != nil || len(id) == 0 {
				return args
			}
			out := append([][]byte(nil), args...)
			out[i] = id[0]
			return out
		}
	}
	return args
}

var (
	recent = regexp.MustCompile(`:1[0-9]{12}\r\n`) // times about now
	nodes  = regexp.MustCompile(`(radix-tree-(?:keys|nodes)\r\n):[0-9]+`)
	idle   = regexp.MustCompile(`(idle\r\n):[0-9]+`)
	since  = regexp.MustCompile(`(\*4\r\n\$[0-9]+\r\n[0-9]+-[0-9]+\r\n\$[0-9]+\r\n[^\r]*\r\n):[0-9]+`)
)

// timeless replaces what in replies about streams depends on the moment, and on
// how Redis stores them.
func timeless(args []string, raw []byte) []byte {
	switch {
	case strings.EqualFold(args[0], "XPENDING"):
		return since.ReplaceAll(raw, []byte("$1:0"))
	case !strings.EqualFold(args[0], "XINFO"):
		return raw
	}
	raw = recent.ReplaceAll(raw, []byte(":0\r\n"))
	raw = nodes.ReplaceAll(raw, []byte("$1:0"))
	return idle.ReplaceAll(raw, []byte("$1:0"))
}

// randomStream makes requests about a few streams.
type randomStream struct {
	rng *rand.Rand
	top int // about the last id's first part
}

func (r *randomStream) key() string {
	return oneOf(r.rng, "s", "s", "s", "s", "s", "s", "s", "s", "s", "t", "t", "t", "hash")
}

func (r *randomStream) group() string {
	return oneOf(r.rng, "g", "g", "g", "g", "g", "g", "h", "h", "", "none")
}

func (r *randomStream) consumer() string { return oneOf(r.rng, "alice", "bob", "carol", "") }

func (r *randomStream) id() string {
	switch r.rng.IntN(40) {
	case 0:
		return oneOf(r.rng, "0", "0-0", "-", "+", "$", "", "x", "1-", "-1", "1-x", "1--1", " 5-1", "+5", "007", "5-007",
			"18446744073709551615-18446744073709551615", "18446744073709551615", "18446744073709551616", "1\x00", strings.Repeat("1", 130))
	case 1:
		return oneOf(r.rng, ">", "*", "5-*", "(5")
	}
	id := strconv.Itoa(max(1, r.top-r.rng.IntN(1+min(r.top, 12))))
	if r.rng.IntN(4) == 0 {
		id += "-" + strconv.Itoa(r.rng.IntN(3))
	}
	return id
}

func (r *randomStream) bound() string {
	switch r.rng.IntN(6) {
	case 0:
		return oneOf(r.rng, "-", "+", "(-", "(+", "(0-0", "(18446744073709551615-18446744073709551615", "(x", "(")
	case 1:
		return "(" + r.id()
	}
	return r.id()
}

func (r *randomStream) count() string {
	return oneOf(r.rng, "1", "2", "3", "5", "10", "0", "-1", "x", "9223372036854775807")
}

// total is a number of entries; Redis's own overflow.
func (r *randomStream) total() string {
	return oneOf(r.rng, "1", "2", "5", "10", "17", "0", "-1", "-2", "x", "1000000000000")
}

func (r *randomStream) trim() []string {
	args := []string{oneOf(r.rng, "MAXLEN", "maxlen", "MINID")}
	if r.rng.IntN(4) == 0 {
		args = append(args, "=") // TestApproximateTrim has "~"
	}
	if args[0] == "MINID" {
		args = append(args, r.id())
	} else {
		args = append(args, oneOf(r.rng, "0", "1", "3", "10", "15", "-1", "x"))
	}
	if r.rng.IntN(5) == 0 {
		args = append(args, "LIMIT", r.count())
	}
	return args
}

func (r *randomStream) maybe(n int, args ...string) []string {
	if r.rng.IntN(n) > 0 {
		return nil
	}
	return args
}

func join(parts ...[]string) (out []string) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func (r *randomStream) next() []string {
	k, g, c := r.key(), r.group(), r.consumer()
	ids := func() (out []string) {
		for range 1 + r.rng.IntN(3) {
			out = append(out, r.id())
		}
		return out
	}
	switch r.rng.IntN(24) {
	case 0, 1, 2, 3:
		args := join([]string{"XADD", k}, r.maybe(8, "NOMKSTREAM"), r.maybe(4, r.trim()...))
		r.top++
		args = append(args, oneOf(r.rng, strconv.Itoa(r.top), strconv.Itoa(r.top)+"-1", strconv.Itoa(r.top), r.id(), strconv.Itoa(r.top-r.rng.IntN(2))+"-*"))
		if r.rng.IntN(60) == 0 {
			args[len(args)-1] = "*"
		}
		for range 1 + r.rng.IntN(3) {
			args = append(args, "f"+strconv.Itoa(r.rng.IntN(3)), oneOf(r.rng, "v", "", "\x00\r\n"))
		}
		return args[:len(args)-r.rng.IntN(20)/19]
	case 4:
		return join([]string{"XTRIM", k}, r.trim())
	case 5, 6:
		return join([]string{"XDEL", k}, ids())
	case 7:
		return join([]string{"XSETID", k, r.id()}, r.maybe(3, "ENTRIESADDED", r.total()), r.maybe(3, "MAXDELETEDID", r.id()), r.maybe(20, "FOO"))
	case 8:
		return join([]string{oneOf(r.rng, "XRANGE", "XREVRANGE"), k, r.bound(), r.bound()}, r.maybe(3, "COUNT", r.count()), r.maybe(30, "FOO"))
	case 9:
		return []string{"XLEN", k}
	case 10:
		args := join([]string{"XREAD"}, r.maybe(2, "COUNT", r.count()), r.maybe(20, "NOACK"), r.maybe(20, "GROUP", g, c))
		if r.rng.IntN(3) == 0 {
			return append(args, "STREAMS", k, r.key(), r.id(), r.id())
		}
		return append(args, "STREAMS", k, oneOf(r.rng, r.id(), "$"))
	case 11, 12, 13, 14:
		args := join([]string{"XREADGROUP", "GROUP", g, c}, r.maybe(2, "COUNT", r.count()), r.maybe(4, "NOACK"))
		if r.rng.IntN(4) == 0 {
			return append(args, "STREAMS", k, r.key(), ">", oneOf(r.rng, ">", r.id(), "0"))
		}
		return append(args, "STREAMS", k, oneOf(r.rng, ">", ">", ">", "0", r.id(), "$"))
	case 15:
		return join([]string{"XGROUP", "CREATE", k, g, oneOf(r.rng, "$", "0", r.id())}, r.maybe(2, "MKSTREAM"), r.maybe(4, "ENTRIESREAD", r.total()), r.maybe(30, "FOO"))
	case 16:
		switch r.rng.IntN(6) {
		case 0:
			return []string{"XGROUP", "DESTROY", k, g}
		case 1, 2:
			return join([]string{"XGROUP", "SETID", k, g, oneOf(r.rng, "$", "0", r.id())}, r.maybe(4, "ENTRIESREAD", r.total()), r.maybe(30, "FOO"))
		case 3:
			return []string{"XGROUP", "DELCONSUMER", k, g, c}
		}
		return []string{"XGROUP", "CREATECONSUMER", k, g, c}
	case 17:
		return join([]string{"XACK", k, g}, ids())
	case 18:
		if r.rng.IntN(3) == 0 {
			return []string{"XPENDING", k, g}
		}
		return join([]string{"XPENDING", k, g}, r.maybe(4, "IDLE", oneOf(r.rng, "0", "100000000", "x")), []string{r.bound(), r.bound(), r.count()}, r.maybe(2, c), r.maybe(40, "FOO"))
	case 19, 20:
		return join([]string{"XCLAIM", k, g, c, oneOf(r.rng, "0", "0", "-1", "100000000", "x")}, ids(),
			r.maybe(4, "FORCE"), r.maybe(4, "JUSTID"), r.maybe(6, "IDLE", oneOf(r.rng, "0", "-1", "200000000", "x")), r.maybe(6, "TIME", "1500000000000"),
			r.maybe(6, "RETRYCOUNT", r.count()), r.maybe(8, "LASTID", r.id()), r.maybe(40, "FOO"))
	case 21:
		return join([]string{"XAUTOCLAIM", k, g, c, oneOf(r.rng, "0", "0", "100000000", "x"), r.bound()}, r.maybe(2, "COUNT", oneOf(r.rng, "1", "2", "0", "x", "-1")), r.maybe(3, "JUSTID"), r.maybe(40, "FOO"))
	case 22:
		return oneOf(r.rng, []string{"XINFO", "STREAM", k}, []string{"XINFO", "STREAM", k, "FULL"}, []string{"XINFO", "STREAM", k, "FULL", "COUNT", r.count()},
			[]string{"XINFO", "STREAM", k, "FOO"}, []string{"XINFO", "GROUPS", k}, []string{"XINFO", "CONSUMERS", k, g})
	}
	return oneOf(r.rng, []string{"COPY", k, r.key(), "REPLACE"}, []string{"RENAME", k, r.key()}, r.del(k), []string{"HSET", "hash", "f", "v"}, []string{"EXPIRE", k, "100000"})
}

func (r *randomStream) del(k string) []string {
	if k == "s" && r.rng.IntN(2) == 0 {
		r.top = 0
	}
	return []string{"DEL", k}
}

// TestRandomStreams compares random requests about streams with a real Redis.
func TestRandomStreams(t *testing.T) {
	for _, seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newTwin(t, seed)
			r := &randomStream{rng: w.rng}
			for range 3000 {
				w.run(0, r.next()...)
			}
		})
	}
}

// TestApproximateTrim compares what "~" trims, of entries as small as Redis
// keeps a hundred of in one node. The stream is never empty: Redis counts anew
// from there.
func TestApproximateTrim(t *testing.T) {
	for _, seed := range seeds() {
		w := newTwin(t, seed)
		ids := 0
		trim := func() []string {
			limit := []string{}
			if w.rng.IntN(2) == 0 {
				limit = []string{"LIMIT", oneOf(w.rng, "0", "1", "100", "150", "200", "1000", "-1", "x")}
			}
			if w.rng.IntN(2) == 0 {
				return append([]string{"MINID", oneOf(w.rng, "~", "~", "~", "="), strconv.Itoa(max(1, ids-1-w.rng.IntN(400)))}, limit...)
			}
			return append([]string{"MAXLEN", oneOf(w.rng, "~", "~", "~", "="), strconv.Itoa(1 + w.rng.IntN(400))}, limit...)
		}
		for range 40 {
			for range w.rng.IntN(70) {
				ids++
				id := []byte(strconv.Itoa(ids))
				w.cells(0, [][]byte{[]byte("XADD"), []byte("s"), id, []byte("f"), []byte("v")})
				w.model.use(0)
				w.model.must("XADD", []byte("s"), id, []byte("f"), []byte("v"))
			}
			ids++
			if w.rng.IntN(2) == 0 {
				w.run(0, join([]string{"XTRIM", "s"}, trim())...)
			} else {
				w.run(0, join([]string{"XADD", "s"}, trim(), []string{strconv.Itoa(ids), "f", "v"})...)
			}
		}
	}
}

// TestAutoIDs: an id that is made is greater than the last, tells the node, and
// is of the moment where that is possible.
func TestAutoIDs(t *testing.T) {
	for _, c := range []struct {
		last streamID
		want streamID
	}{
		{streamID{}, streamID{1000, 7}},
		{streamID{999, 88888}, streamID{1000, 7}},
		{streamID{1000, 3}, streamID{1000, 7}},
		{streamID{1000, 7}, streamID{1000, 10_007}},
		{streamID{1000, 10_003}, streamID{1000, 10_007}},
		{streamID{1000, 10_009}, streamID{1000, 20_007}},
		{streamID{2000, 0}, streamID{2000, 7}},
		{streamID{2000, maxStreamID.seq}, streamID{2001, 7}},
		{streamID{2000, maxStreamID.seq - 1000}, streamID{2001, 7}},
		{streamID{maxStreamID.ms, maxStreamID.seq - 1}, maxStreamID},
	} {
		if got := autoID(c.last, 1000, 7); got != c.want {
			t.Errorf("after %v: %v, want %v", c.last, got, c.want)
		}
	}
}

// TestBlockedReaders shows when a waiting XREAD or XREADGROUP is answered, and
// with what.
func TestBlockedReaders(t *testing.T) {
	w := newTwin(t, 1)
	request := func(line string, resumed any) (string, *Wait) {
		args := bytesOf(strings.Fields(line))
		cmd, e := Find(args)
		if e != "" {
			t.Fatal(e)
		}
		c := &Context{Tx: twinTx{w.writer, w}, Args: args, Out: Reply{Proto: 2}, Resumed: resumed}
		cmd.Run(c)
		if (c.Waits == nil) == (len(c.Out.Buf) == 0) {
			t.Fatalf("%s: replied %q and waits: %v", line, c.Out.Buf, c.Waits != nil)
		}
		return string(c.Out.Buf), c.Waits
	}
	do := func(line string) {
		t.Helper()
		if got, wait := request(line, nil); wait != nil || got[0] == '-' {
			t.Fatalf("%s: %s", line, got)
		}
	}
	waits := func(line string, resumed any) *Wait {
		t.Helper()
		got, wait := request(line, resumed)
		if wait == nil {
			t.Fatalf("%s does not wait: %s", line, got)
		}
		return wait
	}
	is := func(line string, resumed any, want string) {
		t.Helper()
		got, wait := request(line, resumed)
		if wait != nil {
			t.Fatalf("%s still waits", line)
		}
		if words := strings.Join(flatten(parseReply(t, []byte(got))), " "); words != want {
			t.Errorf("%s: %s, want %s", line, words, want)
		}
	}
	do("XADD s 5 f old")
	read := waits("XREAD BLOCK 100 STREAMS s t $ 0", nil)
	if len(read.Keys) != 2 || read.Deadline != w.writer.Now()+100 {
		t.Errorf("waits for %v until %d", read.Keys, read.Deadline)
	}
	var out Reply
	read.Timeout(&out)
	if string(out.Buf) != "*-1\r\n" {
		t.Errorf("time out: %q", out.Buf)
	}
	do("HSET t f v")
	waits("XREAD BLOCK 100 STREAMS s t $ 0", read.State)
	do("DEL s")
	waits("XREAD BLOCK 100 STREAMS s t $ 0", read.State)
	do("XADD s 4 f below")
	waits("XREAD BLOCK 100 STREAMS s t $ 0", read.State)
	do("XADD s 6 f new")
	do("XADD s 7 f newer")
	is("XREAD BLOCK 100 STREAMS s t $ 0", read.State, "s 6-0 f new 7-0 f newer")
	is("XREAD BLOCK 100 COUNT 1 STREAMS s t $ 0", read.State, "s 6-0 f new")
	is("XREAD BLOCK 0 STREAMS s 6", nil, "s 7-0 f newer")

	do("DEL t")
	do("XGROUP CREATE s g $")
	do("XGROUP CREATE t g $ MKSTREAM")
	group := "XREADGROUP GROUP g c BLOCK 0 STREAMS t s > >"
	wait := waits(group, nil)
	if wait.Deadline != 0 {
		t.Errorf("waits until %d", wait.Deadline)
	}
	is("XREADGROUP GROUP g c BLOCK 0 STREAMS s 0", nil, "s")
	do("XADD s 8 f x")
	is(group, wait.State, "s 8-0 f x")
	wait = waits(group, nil)
	do("XGROUP DESTROY s g")
	is(group, wait.State, "NOGROUP the consumer group this client was blocked on no longer exists")
	do("XGROUP CREATE s g 0")
	do("DEL t")
	is(group, wait.State, "UNBLOCKED the stream key no longer exists")
	do("SADD t m")
	is(group, wait.State, "UNBLOCKED the stream key no longer exists")
}
