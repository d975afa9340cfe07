package command

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// scoresOf returns the members and scores of a sorted set as ZRANGE WITHSCORES
// does; none of a key of another type.
func scoresOf(w *crdt.Writer, k crdt.Key) [][]byte {
	var list []scored
	w.EachElem(k, crdt.KindScored, func(m string, v []byte) bool {
		list = append(list, scored{m, crdt.ParseScore(v)})
		return true
	})
	slices.SortFunc(list, compareScored)
	var out [][]byte
	for _, m := range list {
		out = append(out, []byte(m.member), []byte(FormatDouble(m.score)))
	}
	return plainZeros(out)
}

// plainZeros makes -0 0 among the scores of ZRANGE WITHSCORES: which of them
// Redis shows depends on how it stores the set.
func plainZeros(list [][]byte) [][]byte {
	for i := 1; i < len(list); i += 2 {
		if string(list[i]) == "-0" {
			list[i] = []byte("0")
		}
	}
	return list
}

// Every sorted set command at random, against Redis: small sets, which are read
// from the cells, and large ones, which the view sorts.
func TestSortedSetsAnswerAsRedis(t *testing.T) {
	for _, seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, seed)
			for i := range 1500 {
				if i == 1000 { // larger than a listpack
					large, flat := []string{"ZADD", "zlarge"}, []string{"ZADD", "zflat"}
					for i := range 150 {
						large = append(large, strconv.Itoa(h.rng.IntN(40)), strconv.Itoa(i))
						flat = append(flat, "0", strconv.Itoa(i))
					}
					h.run(large...)
					h.run(flat...)
				}
				if h.rng.IntN(15) == 0 {
					disturb(h, giveHash)
				}
				if h.rng.IntN(15) == 0 {
					h.run("SADD", pick(h, keyNames), "1", strconv.Itoa(h.rng.IntN(6)))
				}
				h.run(randomSortedSetCommand(h)...)
			}
		})
	}
}

func randomSortedSetCommand(h *harness) []string {
	name := func() string {
		if h.rng.IntN(6) == 0 {
			return "zlarge"
		}
		return pick(h, keyNames)
	}
	member := func() string {
		if h.rng.IntN(2) == 0 {
			return strconv.Itoa(h.rng.IntN(6))
		}
		return pick(h, nasties)
	}
	score := func() string {
		switch h.rng.IntN(4) {
		case 0:
			return (&randomRequests{rng: h.rng}).double()
		case 1:
			return strconv.FormatFloat(math.Float64frombits(h.rng.Uint64()), 'g', -1, 64)
		}
		return strconv.FormatFloat(float64(h.rng.IntN(100)-50)/10, 'g', -1, 64)
	}
	some := func(args []string, one ...func() string) []string {
		for {
			for _, f := range one {
				args = append(args, f())
			}
			if h.rng.IntN(3) == 0 {
				return args
			}
		}
	}
	option := func(words ...string) string { return (&randomRequests{rng: h.rng}).option(words...) }
	options := func(words ...string) []string {
		var out []string
		for h.rng.IntN(3) > 0 {
			out = append(out, option(words...))
		}
		return out
	}
	count := func() string {
		return pick(h, []string{"0", "1", "2", "3", "100", "200", "1", "2", "-1", "x", "9223372036854775807", "9223372036854775808", ""})
	}
	rank := func() string {
		return pick(h, []string{"0", "1", "2", "-1", "-2", "-3", "5", "100", "-100", "x", "1.5", "9223372036854775807", "-9223372036854775808", ""})
	}
	bound := func() string {
		return pick(h, []string{"", "("}) + pick(h, []string{"-inf", "+inf", "inf", "0", "1", "-1", "2.5", "-2.5", "5", "30", "x", "nan", "", " 1", "1 ", "0x2", "1e1", "1\x00x", "-0", "1e400"})
	}
	lex := func() string {
		return pick(h, []string{"-", "+", "[0", "(0", "[3", "(3", "[5", "[", "(", "[a", "(\xff", "x", "", "-x", "+\x00", "[50", "(7", "[99"})
	}
	keys := func(args []string) []string {
		n := 1 + h.rng.IntN(3)
		if h.rng.IntN(10) == 0 {
			args = append(args, pick(h, []string{"0", "-1", "x", "7", ""}))
		} else {
			args = append(args, strconv.Itoa(n))
		}
		for range n {
			args = append(args, name())
		}
		return args
	}
	switch h.rng.IntN(24) {
	case 0, 1, 2, 3, 4:
		return some(append([]string{"ZADD", name()}, options("NX", "XX", "GT", "LT", "CH", "CH", "INCR")...), score, member)
	case 5, 6, 7:
		return []string{"zincrby", name(), score(), member()}
	case 8:
		return some([]string{"ZREM", name()}, member)
	case 9:
		return []string{"ZREMRANGEBYRANK", name(), rank(), rank()}
	case 10:
		return []string{"ZREMRANGEBYSCORE", name(), bound(), bound()}
	case 11:
		if h.rng.IntN(4) > 0 {
			return some([]string{"ZADD", "zflat"}, func() string { return "0" }, member)
		}
		return []string{"ZREMRANGEBYLEX", "zflat", lex(), lex()}
	case 12, 13, 14:
		args := []string{"ZRANGESTORE", name(), name()}
		switch h.rng.IntN(3) {
		case 0:
			args = append(args, rank(), rank())
		case 1:
			args = append(args, bound(), bound(), "BYSCORE")
		case 2:
			// Of members with different scores Redis's answer depends on chance.
			args[2] = "zflat"
			args = append(args, lex(), lex(), "BYLEX")
		}
		if h.rng.IntN(3) == 0 {
			args = append(args, option("REV"))
		}
		if h.rng.IntN(3) == 0 {
			args = append(args, option("LIMIT"), rank(), rank())
		}
		if h.rng.IntN(8) == 0 {
			args = append(args, options("BYLEX", "BYSCORE", "REV", "LIMIT", "WITHSCORES")...)
		}
		return args
	case 15, 16:
		args := []string{pick(h, []string{"ZPOPMIN", "ZPOPMAX"}), name()}
		if h.rng.IntN(2) == 0 {
			args = append(args, count())
		}
		if h.rng.IntN(20) == 0 {
			args = append(args, "1")
		}
		return args
	case 17:
		args := append(keys([]string{"ZMPOP"}), option("MIN", "MAX", "FOO"))
		if h.rng.IntN(2) == 0 {
			args = append(args, option("COUNT"), count())
		}
		return args
	case 18, 19, 20:
		args := keys([]string{pick(h, []string{"ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"}), name()})
		if h.rng.IntN(2) == 0 {
			args = append(args, option("WEIGHTS"))
			for range len(args) - 4 {
				args = append(args, score())
			}
		}
		if h.rng.IntN(2) == 0 {
			args = append(args, option("AGGREGATE"), option("SUM", "MIN", "MAX", "AVG"))
		}
		return args
	case 21:
		// With something there: without, these would wait.
		h.run("ZADD", "z!", "1", "a", "2", "b", "-0.5", "c")
		return oneOf(h.rng, [][]string{{"BZPOPMIN", name(), "z!", "0"}, {"BZPOPMAX", "z!", name(), "1.5"}, {"BZMPOP", "0.1", "2", name(), "z!", "MAX"},
			{"BZMPOP", "1", "1", "z!", "MIN", "COUNT", count()}, {"BZPOPMIN", "z!", score()}, {"BZMPOP", score(), "1", "z!", "MIN"}}...)
	case 22:
		return oneOf(h.rng, [][]string{{"ZRANGE", name(), rank(), rank(), "WITHSCORES"}, {"ZSCORE", name(), member()}, {"ZCARD", name()}, {"ZRANGEBYSCORE", name(), bound(), bound()}}...)
	}
	cmd := zsetCommands[h.rng.IntN(len(zsetCommands))]
	if cmd.Flags&(Random|Blocking) != 0 {
		return []string{cmd.Name}
	}
	args := []string{cmd.Name, name(), name(), "1", "g"}
	return args[:1+h.rng.IntN(4)]
}

// plainZeroReply is plainZeros for replies of commands on sorted sets.
func plainZeroReply(name string, raw []byte) []byte {
	if strings.HasPrefix(name, "Z") || strings.HasPrefix(name, "BZ") {
		return bytes.ReplaceAll(raw, []byte("$2\r\n-0\r\n"), []byte("$1\r\n0\r\n"))
	}
	return raw
}

// In RESP3 scores are doubles, and the pairs of a counted pop arrays.
func TestSortedSetsInRESP3(t *testing.T) {
	h := newHarness(t, 1)
	for _, c := range []struct{ request, want string }{
		{"ZADD z 1 a 2.5 b inf c 3 d", ":4\r\n"},
		{"ZADD z NX INCR 1 a", "_\r\n"},
		{"ZINCRBY z 0.1 a", ",1.1000000000000001\r\n"},
		{"ZPOPMIN z", "*2\r\n$1\r\na\r\n,1.1000000000000001\r\n"},
		{"ZPOPMAX z 2", "*2\r\n*2\r\n$1\r\nc\r\n,inf\r\n*2\r\n$1\r\nd\r\n,3\r\n"},
		{"ZPOPMAX none 2", "*0\r\n"},
		{"ZMPOP 1 none MAX", "_\r\n"},
		{"BZPOPMIN none z 0", "*3\r\n$1\r\nz\r\n$1\r\nb\r\n,2.5\r\n"},
	} {
		cx := &Context{Tx: testTx{h.writer, h}, Args: wordsOf(c.request), Out: Reply{Proto: 3}}
		cmd, _ := Find(cx.Args)
		cmd.Run(cx)
		if string(cx.Out.Buf) != c.want {
			t.Errorf("%s: %q, want %q", c.request, cx.Out.Buf, c.want)
		}
	}
}

// A command that waits says for what, and until when; run again it goes on.
func TestSortedSetsWait(t *testing.T) {
	h := newHarness(t, 1)
	run := func(request string, resumed any, noWait bool) *Context {
		c := &Context{Tx: testTx{h.writer, h}, Args: wordsOf(request), Out: Reply{Proto: 2}, Resumed: resumed, Ready: crdt.Key{Name: "b"}, NoWait: noWait}
		cmd, refusal := Find(c.Args)
		if refusal != "" {
			t.Fatal(refusal)
		}
		cmd.Run(c)
		return c
	}
	h.give(func(w *crdt.Writer) { w.SetString(crdt.Key{Name: "str"}, []byte("1"), false) }, "SET", "str", "1")
	for _, request := range []string{"BZPOPMIN a b 2.5", "BZPOPMAX a b 2.5", "BZMPOP 2.5 2 a b MIN"} {
		c := run(request, nil, false)
		w := c.Waits
		if w == nil || len(c.Out.Buf) > 0 || w.Deadline != h.writer.Now()+2500 || w.State == nil || fmt.Sprint(w.Keys) != "[{0 a} {0 b}]" {
			t.Fatalf("%s: %+v, replied %q", request, w, c.Out.Buf)
		}
		var out Reply
		if w.Timeout(&out); string(out.Buf) != "*-1\r\n" {
			t.Errorf("%s: timeout replies %q", request, out.Buf)
		}
		if c := run(strings.Replace(request, " a ", " str ", 1), w.State, false); c.Waits == nil || c.Waits.Deadline != w.Deadline || len(c.Out.Buf) > 0 {
			t.Errorf("%s again: %+v, replied %q", request, c.Waits, c.Out.Buf)
		}
		if c := run(strings.Replace(request, " a ", " str ", 1), nil, false); string(c.Out.Buf) != "-"+errWrongType+"\r\n" {
			t.Errorf("%s on a string: replied %q", request, c.Out.Buf)
		}
		if c := run(request, nil, true); c.Waits != nil || string(c.Out.Buf) != "*-1\r\n" {
			t.Errorf("%s that must not wait: %+v, replied %q", request, c.Waits, c.Out.Buf)
		}
		h.run("ZADD", "b", "1", "m")
		if c := run(request, w.State, false); c.Waits != nil || !bytes.Contains(c.Out.Buf, []byte("$1\r\nb\r\n")) {
			t.Errorf("%s at last: %+v, replied %q", request, c.Waits, c.Out.Buf)
		}
		h.model.must("DEL", []byte("b"))
	}
	for request, deadline := range map[string]int64{"BZPOPMIN a 0": 0, "BZPOPMIN a 0.0001": h.writer.Now() + 1, "BZPOPMIN a 9223372036854770": math.MaxInt64} {
		if w := run(request, nil, false).Waits; w == nil || w.Deadline != deadline {
			t.Errorf("%s: %+v", request, w)
		}
	}
}

// A large set whose view answers wrongly, or no more, is sorted from the cells.
func TestSortedSetsDistrustView(t *testing.T) {
	full := func(h *harness) {
		args := []string{"ZADD", "z"}
		for i := range 200 {
			args = append(args, strconv.Itoa(i), fmt.Sprintf("m%03d", i))
		}
		h.run(args...)
		h.commit()
		h.left = 100
	}
	bulk := func(list ...string) string {
		var r Reply
		r.bulks(list)
		return string(r.Buf)
	}
	for _, reply := range []string{"-ERR no\r\n", "", "$-1\r\n", bulk(), bulk("m001", "m000"), bulk("m000", "m000"), bulk("m000", "x"), bulk("m000"), bulk("m000", "m001", "m002")} {
		h := newHarness(t, 1)
		full(h)
		h.writer.SetExpiry(crdt.Key{Name: "z"}, h.now+100_000)
		for _, request := range []string{"ZPOPMIN z 2", "ZREMRANGEBYSCORE z (1 3", "ZREMRANGEBYLEX z [m004 (m006"} {
			c := &Context{Tx: fakeView{testTx{h.writer, h}, reply}, Args: wordsOf(request)}
			cmd, _ := Find(c.Args)
			cmd.Run(c)
		}
		left := map[string]bool{}
		for i, m := range scoresOf(h.writer, crdt.Key{Name: "z"}) {
			if i%2 == 0 {
				left[string(m)] = true
			}
		}
		if reply == bulk("m000") {
			continue // fits the ranges by name and by score, but for what was popped
		}
		if len(left) != 194 || left["m000"] || left["m005"] || !left["m006"] {
			t.Errorf("view says %q: %d members left", reply, len(left))
		}
	}
	h := newHarness(t, 1)
	full(h)
	h.viewErr = errors.New("LOADING the local Redis is not there")
	for _, request := range []string{"ZPOPMIN z 2", "BZPOPMAX z 0", "ZREMRANGEBYSCORE z 1 2", "ZRANGESTORE d z 0 1", "GEOSEARCHSTORE d z FROMLONLAT 0 0 BYRADIUS 1 M"} {
		if got := string(h.cells(bytesOf(strings.Fields(request))...)); got != "-LOADING the local Redis is not there\r\n" {
			t.Errorf("%s: %q", request, got)
		}
	}
	if e := h.commit(); len(e) != 0 {
		t.Errorf("wrote %v", e)
	}
}

// Scores that added up at several nodes go on from what shows.
func TestScoresAddUp(t *testing.T) {
	h := newHarness(t, 1)
	k := crdt.Key{Name: "z"}
	tenth, _ := crdt.ParseNumber([]byte("0.1"))
	h.writer.SetElem(k, crdt.KindScored, "m", []byte("0.2"))
	h.writer.AddElem(k, crdt.KindScored, "m", tenth)
	h.writer.SetElem(k, crdt.KindScored, "big", []byte("1e+300"))
	h.writer.AddElem(k, crdt.KindScored, "big", tenth)
	h.writer.SetElem(k, crdt.KindScored, "tiny", []byte("1e-300"))
	tiny, _ := crdt.ParseNumber([]byte("1e-300"))
	h.writer.AddElem(k, crdt.KindScored, "tiny", tiny)
	for _, c := range []struct{ request, want string }{
		{"ZINCRBY z 0 m", "0.29999999999999999"},
		{"ZINCRBY z 0.1 m", "0.40000000000000002"},
		{"ZINCRBY z -1e300 big", "0"},
		{"ZINCRBY z 1e-300 tiny", "3.0000000000000002e-300"},
	} {
		if got := string(h.cells(bytesOf(strings.Fields(c.request))...)); got != fmt.Sprintf("$%d\r\n%s\r\n", len(c.want), c.want) {
			t.Errorf("%s: %q, want %s", c.request, got, c.want)
		}
	}
}

// FormatDouble is C's %.17g, and a score survives its text.
func TestFormatDoubleIsRedis(t *testing.T) {
	h := newHarness(t, 1)
	doubles := []float64{0, 1, -1, 0.1, 1e15, 1e16, 1e17, 123456789012345678, 1e22, 1e-4, 1e-5, 12345.6789e-9, math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53, 1<<53 + 2,
		math.Inf(1), math.Inf(-1), 1e100, 3.1, 100, 1200, 120000000000000000, 1e6, 1234567}
	for range 3000 {
		f := math.Float64frombits(h.rng.Uint64())
		if h.rng.IntN(2) == 0 {
			f = math.Trunc(math.Ldexp(h.rng.Float64(), h.rng.IntN(70)))
		}
		if !math.IsNaN(f) {
			doubles = append(doubles, f)
		}
	}
	for _, f := range doubles {
		got := h.model.do([]byte("ZADD"), []byte("z"), []byte("INCR"), crdt.FormatScore(f), []byte("m"))
		var want Reply
		if want.Double(f); !bytes.Equal(got, want.Buf) {
			t.Fatalf("%b: %q, Redis %q", f, want.Buf, got)
		}
		if back := crdt.ParseScore(crdt.FormatScore(f)); math.Float64bits(back) != math.Float64bits(f) {
			t.Fatalf("%b is %s and back %b", f, crdt.FormatScore(f), back)
		}
		h.model.must("DEL", []byte("z"))
	}
}

// parseDouble reads what Redis does, made of pieces of numbers.
func TestParseDoubleIsRedis(t *testing.T) {
	h := newHarness(t, uint64(time.Now().UnixNano()))
	texts := []string{"1", "+1.", ".5e-3", "1e", "0x1p3", "0x.8", "0x", "0xp1", "inf", "-INFinity", "infi", "nan", "nan(1)", "1e400", "1e-400", "0e-999", " 1", "1 ", "1_0",
		"0x1.fffffffffffff8p1023", "--1", "1e+5", "1e+", "0x1p", "1\x00", "0b1", "4.9e-324", "2e-324", "0x1p-1074", "0x1p-1076", "0x0p-99999", strings.Repeat("9", 400), "0." + strings.Repeat("0", 400) + "1"}
	pieces := []string{"0", "1", "9", ".", "e", "E", "+", "-", "x", "0x", "p", "f", "inf", "inity", "nan", "308", "324", " ", "_", "\x00", "17", "("}
	for range 3000 {
		s := ""
		for range 1 + h.rng.IntN(6) {
			s += pick(h, pieces)
		}
		texts = append(texts, s)
	}
	for _, s := range texts {
		got := h.model.do([]byte("ZADD"), []byte("z"), []byte("INCR"), []byte(s), []byte("m"))
		want := Reply{}
		if f, ok := parseDouble([]byte(s)); ok {
			want.Double(f)
		} else {
			want.Error(errNotFloat)
		}
		if !bytes.Equal(got, want.Buf) && !strings.HasPrefix(string(got), "-ERR syntax") {
			t.Errorf("%q: %q, Redis %q", s, want.Buf, got)
		}
		h.model.must("DEL", []byte("z"))
	}
}
