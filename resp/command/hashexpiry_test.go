package command

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// newTwin8 is a twin of a Redis that knows expiries of fields.
func newTwin8(t *testing.T, seed uint64) *twin {
	t.Helper()
	w := &twin{t: t, rng: rand.New(rand.NewPCG(seed, 8)), model: startRedis8(t), keys: &crdt.Keyspace{Store: crdttest.New()}}
	w.begin()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d; the last requests:\n%s", seed, strings.Join(w.history[max(0, len(w.history)-25):], "\n"))
		}
	})
	return w
}

// runFields runs a request on both sides, and compares replies, data and the
// expiries of fields. Those that the request has set may be later at Redis by no
// more than the time since the group began.
func (w *twin) runFields(args ...string) []byte {
	w.t.Helper()
	w.history = append(w.history, fmt.Sprintf("%.300q", args))
	b := bytesOf(args)
	w.model.use(0)
	got := w.cells(0, b)
	want := w.model.do(b...)
	elapsed := time.Now().UnixMilli() - w.writer.Now()
	if got != nil && !bytes.Equal(got, want) && !w.soon(args, got, want, elapsed) {
		w.t.Fatalf("%.300q:\n got %.500q\nwant %.500q", args, got, want)
	}
	w.compareFields(elapsed)
	w.compare(elapsed)
	if w.left--; w.left <= 0 {
		w.begin()
	}
	return got
}

// soon reports whether two replies are times that are left, and differ only by the
// time that has passed between them.
func (w *twin) soon(args []string, got, want []byte, elapsed int64) bool {
	slack := elapsed
	switch strings.ToUpper(args[0]) {
	case "HPTTL":
	case "HTTL":
		slack = elapsed/1000 + 1
	default:
		return false
	}
	a, b := parseReply(w.t, got), parseReply(w.t, want)
	return slices.EqualFunc(a.list, b.list, func(a, b reply) bool {
		n, err1 := strconv.ParseInt(strings.TrimSpace(a.text[1:]), 10, 64)
		m, err2 := strconv.ParseInt(strings.TrimSpace(b.text[1:]), 10, 64)
		return err1 == nil && err2 == nil && (n == m || n > 0 && m > 0 && n-m >= 0 && n-m <= slack)
	})
}

func (w *twin) compareFields(elapsed int64) {
	w.t.Helper()
	w.model.use(0)
	w.keys.Store.EachKey(0, func(k crdt.Key, _ *crdt.Header) bool {
		var fields []string
		w.writer.EachElem(k, crdt.KindField, func(f string, _ []byte) bool {
			fields = append(fields, f)
			return true
		})
		if len(fields) == 0 {
			return true
		}
		raw := w.model.do(bytesOf(append([]string{"HPEXPIRETIME", k.Name, "FIELDS", strconv.Itoa(len(fields))}, fields...))...)
		for i, r := range parseReply(w.t, raw).list {
			at, err := strconv.ParseInt(strings.TrimSpace(r.text[1:]), 10, 64)
			if err != nil {
				w.t.Fatalf("HPEXPIRETIME %q: %q", k.Name, raw)
			}
			mine := w.writer.FieldExpiry(k, fields[i])
			late := max(at, 0) - mine
			if late < 0 || late > elapsed || (mine == 0) != (at < 0) {
				w.t.Fatalf("field %q of %q expires at %d, want %d (up to %d less)", fields[i], k.Name, mine, at, elapsed)
			}
			if late > 0 {
				w.writer.SetFieldExpiry(k, fields[i], at)
			}
		}
		return true
	})
}

// fieldRequests makes requests about fields with expiries.
type fieldRequests struct{ randomRequests }

func (r *fieldRequests) fields(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = oneOf(r.rng, "a", "b", "c", "a", "b", "", "\x00\r\n", "FIELDS", "5")
	}
	return out
}

// list is FIELDS with what follows, mostly right.
func (r *fieldRequests) list(values bool) []string {
	n := 1 + r.rng.IntN(3)
	fields := r.fields(n)
	if values {
		var pairs []string
		for _, f := range fields {
			pairs = append(pairs, f, oneOf(r.rng, "1", "5", "v", ""))
		}
		fields = pairs
	}
	count := strconv.Itoa(n)
	if r.rng.IntN(12) == 0 {
		count = oneOf(r.rng, "0", "-1", "2", "x", "", "2147483648", "4294967296", "9223372036854775807", "9223372036854775808", " 1", "1 ", "01")
	}
	word := "FIELDS"
	if r.rng.IntN(25) == 0 {
		word = r.option("FIELDS", "FIELD", "NX")
	}
	return append([]string{word, count}, fields...)
}

// life returns how long, or until when, mostly right; never so near that it passes.
func (r *fieldRequests) life(unit int64, absolute bool) string {
	if r.rng.IntN(6) == 0 {
		return oneOf(r.rng, "0", "-1", "", "x", "1.5", "70368744177663", "70368744177664", "70368744177", "70368744178",
			"68000000000", "281474976710655", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "9223372036854776")
	}
	if absolute {
		return strconv.FormatInt((r.base+500+1000*int64(1+r.rng.IntN(5)))*unit, 10)
	}
	r.n++
	return strconv.FormatInt((100_000+1000*r.n)*unit, 10)
}

func (r *fieldRequests) expires() []string {
	return oneOf(r.rng,
		[]string{r.option("EX"), r.life(1, false)}, []string{r.option("PX"), r.life(1000, false)},
		[]string{r.option("EXAT"), r.life(1, true)}, []string{r.option("PXAT"), r.life(1000, true)})
}

func (r *fieldRequests) next() []string {
	k := oneOf(r.rng, "h", "h", "h", "g", "none", "s")
	var args []string
	switch r.rng.IntN(24) {
	case 0, 1, 2, 3, 4, 5:
		args = oneOf(r.rng,
			[]string{"HEXPIRE", k, r.life(1, false)}, []string{"HPEXPIRE", k, r.life(1000, false)},
			[]string{"HEXPIREAT", k, r.life(1, true)}, []string{"HPEXPIREAT", k, r.life(1000, true)})
		for range r.rng.IntN(2) + r.rng.IntN(10)/9 {
			args = append(args, r.option("NX", "XX", "GT", "LT"))
		}
		args = append(args, r.list(false)...)
	case 6, 7:
		args = append([]string{oneOf(r.rng, "HTTL", "HPTTL", "HEXPIRETIME", "hpexpiretime"), k}, r.list(false)...)
	case 8, 9:
		args = append([]string{"HPERSIST", k}, r.list(false)...)
	case 10, 11, 12:
		args = []string{"HGETEX", k}
		for range r.rng.IntN(2) + r.rng.IntN(10)/9 {
			if r.rng.IntN(4) == 0 {
				args = append(args, r.option("PERSIST", "KEEPTTL"))
			} else {
				args = append(args, r.expires()...)
			}
		}
		args = append(args, r.list(false)...)
	case 13, 14, 15, 16:
		args = []string{"HSETEX", k}
		for range r.rng.IntN(3) {
			if r.rng.IntN(2) == 0 {
				args = append(args, r.option("FNX", "FXX", "KEEPTTL", "KEEPTTL", "PERSIST"))
			} else {
				args = append(args, r.expires()...)
			}
		}
		args = append(args, r.list(true)...)
	case 17:
		args = append([]string{"HGETDEL", k}, r.list(false)...)
	case 18, 19:
		return append([]string{"HSET", k}, r.list(true)[2:]...)
	case 20:
		return oneOf(r.rng, []string{"HSETNX", k, r.fields(1)[0], "1"}, []string{"HINCRBY", k, r.fields(1)[0], "3"}, []string{"HINCRBYFLOAT", k, r.fields(1)[0], "0.5"})
	case 21:
		return append([]string{"HDEL", k}, r.fields(2)...)
	case 22:
		return oneOf(r.rng, []string{"COPY", k, "g", "REPLACE"}, []string{"RENAME", k, "h"}, []string{"DEL", k}, []string{"EXPIRE", k, "100000"}, []string{"SET", "s", "v"})
	default:
		return append([]string{"HSET", "h"}, "a", "1", "b", "5", "c", "v")
	}
	switch r.rng.IntN(40) {
	case 0:
		args = args[:len(args)-1] // too few
	case 1:
		args = append(args, "more")
	case 2:
		args = args[:2+r.rng.IntN(len(args)-2)]
	}
	return args
}

// TestFieldExpiriesAsRedis compares random requests about fields that expire with
// a real Redis 8.
func TestFieldExpiriesAsRedis(t *testing.T) {
	for _, seed := range seeds() {
		t.Run("", func(t *testing.T) {
			w := newTwin8(t, seed)
			r := &fieldRequests{randomRequests{rng: w.rng, base: time.Now().Unix()}}
			for range 3000 {
				w.runFields(r.next()...)
			}
		})
	}
}

// TestFieldsPass lets fields expire, here and in a real Redis 8.
func TestFieldsPass(t *testing.T) {
	w := newTwin8(t, 1)
	var soon int64
	at := func(ms int64) string {
		w.begin() // now
		soon = w.writer.Now() + ms
		return strconv.FormatInt(soon, 10)
	}
	past := func() {
		t.Helper()
		for time.Now().UnixMilli() <= soon {
			time.Sleep(5 * time.Millisecond)
		}
		w.begin()
	}
	same := func(args ...string) {
		t.Helper()
		w.model.use(0)
		if got, want := w.cells(0, bytesOf(args)), w.model.do(bytesOf(args)...); !bytes.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", args, got, want)
		}
	}
	same("HSET", "h", "a", "1", "b", "2", "c", "3")
	same("HPEXPIREAT", "h", at(2000), "FIELDS", "2", "a", "b")
	same("HPEXPIRETIME", "h", "FIELDS", "3", "a", "b", "c")
	past()
	same("HPEXPIRETIME", "h", "FIELDS", "3", "a", "b", "c")
	same("HGETEX", "h", "FIELDS", "3", "a", "b", "c")
	same("HPERSIST", "h", "FIELDS", "1", "a")
	same("HPEXPIREAT", "h", at(100_000), "FIELDS", "1", "a")
	same("HGETDEL", "h", "FIELDS", "1", "a")
	same("HDEL", "h", "a")
	same("HSETNX", "h", "a", "5")
	same("HINCRBY", "h", "b", "5")
	same("HSETEX", "h", "FXX", "FIELDS", "1", "b", "6")
	w.compareFields(0)
	w.compare(0)
	same("HSETEX", "h", "PXAT", at(2000), "FIELDS", "3", "a", "1", "b", "2", "c", "3")
	past()
	same("HSETEX", "h", "FIELDS", "1", "b", "2")
	same("HPEXPIRETIME", "h", "FIELDS", "3", "a", "b", "c")
	w.compareFields(0)
	w.compare(0)
	same("HPEXPIREAT", "h", at(2000), "FIELDS", "1", "b")
	past()
	same("HSETEX", "h", "FXX", "FIELDS", "1", "b", "6")
	same("HSET", "h", "d", "1")
	w.compareFields(0)
	w.compare(0)
}

// TestFieldExpiryEvents: what subscribers are told is what Redis 8 tells them.
func TestFieldExpiryEvents(t *testing.T) {
	model := startRedis8(t)
	model.must("CONFIG", []byte("SET"), []byte("notify-keyspace-events"), []byte("EAn"))
	sub := &redisConn{t: t}
	sub.conn, sub.r = redial(t, model)
	sub.must("PSUBSCRIBE", []byte("__keyevent@0__:*"))
	w := &twin{t: t, rng: rand.New(rand.NewPCG(1, 1)), model: model, keys: &crdt.Keyspace{Store: crdttest.New()}}
	w.begin()
	for _, line := range []string{
		"HSET h a 1 b 2 c 3", "HEXPIRE h 100 FIELDS 2 a b", "HEXPIRE h 100 NX FIELDS 2 a b", "HEXPIRE h 100 FIELDS 1 zz",
		"HEXPIRE h 0 FIELDS 1 a", "HPERSIST h FIELDS 1 c", "HPERSIST h FIELDS 2 b c", "HEXPIRE h 0 FIELDS 2 b c",
		"HSETEX h EX 100 FIELDS 1 a 1", "HSETEX h FNX FIELDS 1 a 1", "HSETEX h KEEPTTL FIELDS 2 a 1 b 2", "HGETEX h EX 50 FIELDS 2 a zz",
		"HGETEX h FIELDS 1 a", "HGETEX h PERSIST FIELDS 2 a b", "HSETEX h PXAT 1 FIELDS 1 b 2", "HGETEX h PXAT 1 FIELDS 1 a",
		"HSETEX n PXAT 1 FIELDS 1 b 2", "HSETEX n EX 100 FIELDS 2 a 1 b 2", "HGETDEL n FIELDS 1 zz", "HGETDEL n FIELDS 1 a", "HGETDEL n FIELDS 2 a b",
		"HEXPIRE none 10 FIELDS 1 a", "HGETDEL none FIELDS 1 a",
	} {
		args := wordsOf(line)
		k := crdt.Key{Name: string(args[1])}
		cmd, e := Find(args)
		if e != "" {
			t.Fatal(e)
		}
		before := w.writer.Type(k)
		c := &Context{Tx: twinTx{w.writer, w}, Args: cloneArgs(args), Out: Reply{Proto: 2}}
		cmd.Run(c)
		events := c.Events
		if cmd.Name == "HSET" {
			events = cmd.Events(0, args, []Change{{Key: k, Was: before, Is: w.writer.Type(k)}})
		} else if more := cmd.Events(0, args, []Change{{Key: k, Was: before, Is: w.writer.Type(k)}}); len(more) > 0 {
			t.Errorf("%s: told of twice: %v", line, more)
		}
		var got, want []string
		for _, e := range events {
			got = append(got, e.Name)
		}
		model.do(args...)
		model.must("PUBLISH", []byte("__keyevent@0__:end"), nil)
		for {
			raw, err := readReply(sub.r)
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimPrefix(parseReply(t, raw).list[2].bulk(), "__keyevent@0__:")
			if name == "end" {
				break
			}
			want = append(want, name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: events %v, want %v", line, got, want)
		}
	}
}

// TestRestoreOfFieldExpiries: values in serialised form keep the expiries of their
// fields, where the view knows these.
func TestRestoreOfFieldExpiries(t *testing.T) {
	h := newHarness(t, 1)
	h.view, h.model = startRedis8(t), startRedis8(t)
	at := strconv.FormatInt(h.now+3_600_000, 10)
	h.model.must("HSET", bytesOf([]string{"h", "a", "1", "b", "2", "", "3"})...)
	h.model.must("HPEXPIREAT", bytesOf([]string{"h", at, "FIELDS", "2", "a", ""})...)
	value := h.model.bulks("DUMP", []byte("h"))[0]
	if got := h.cells([]byte("RESTORE"), []byte("h"), []byte("0"), value); string(got) != "+OK\r\n" {
		t.Fatalf("RESTORE: %s", got)
	}
	if got := h.cells(wordsOf("COPY h c")...); string(got) != ":1\r\n" {
		t.Fatalf("COPY: %s", got)
	}
	for _, k := range []string{"h", "c"} {
		args := [][]byte{[]byte("HPEXPIRETIME"), []byte(k), []byte("FIELDS"), []byte("3"), []byte("a"), []byte("b"), nil}
		if got, want := h.cells(args...), "*3\r\n:"+at+"\r\n:-1\r\n:"+at+"\r\n"; string(got) != want {
			t.Errorf("%s expires at %q, want %q", k, got, want)
		}
	}
}

// TestDumpOfFieldExpiries: a view that cannot put expiries of fields down is not
// asked to.
func TestDumpOfFieldExpiries(t *testing.T) {
	h := newHarness(t, 1)
	h.cells(wordsOf("HSET h a 1 b 2")...)
	if got := h.cells(wordsOf("DUMP h")...); got[0] != '$' {
		t.Errorf("DUMP of a plain hash: %s", got)
	}
	h.cells(wordsOf("HEXPIRE h 1000 FIELDS 1 a")...)
	if got := h.cells(wordsOf("DUMP h")...); string(got) != "-"+refusedDump+"\r\n" {
		t.Errorf("DUMP of a hash whose fields expire: %s", got)
	}
}
