package command

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// twin runs requests on a real Redis and, found by Find, on cells, and
// compares the replies byte for byte and, after each, the whole data sets.
type twin struct {
	t       *testing.T
	rng     *rand.Rand
	model   *redisConn
	keys    *crdt.Keyspace
	writer  *crdt.Writer
	tag     crdt.Tag
	left    int  // requests until the commit group ends
	exact   bool // INCRBYFLOAT must agree to the last digit, too
	history []string
}

const twinNode = 9

var (
	twinStream = crdt.NewStream(twinNode, 1, 0)
	twinDBs    = []uint8{0, 1, 15}
)

func newTwin(t *testing.T, seed uint64) *twin {
	t.Helper()
	w := &twin{t: t, rng: rand.New(rand.NewPCG(seed, 0)), model: startRedis(t), keys: &crdt.Keyspace{Store: crdttest.New()}}
	w.begin()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d; the last requests:\n%s", seed, strings.Join(w.history[max(0, len(w.history)-25):], "\n"))
		}
	})
	return w
}

// begin ends the commit group and begins another.
func (w *twin) begin() {
	if w.writer != nil {
		for _, e := range w.writer.Entries() {
			w.keys.Have.Set(e.Stream, e.Tag)
		}
	}
	now := time.Now().UnixMilli()
	w.tag = max(crdt.TagAt(now, twinNode), w.tag+1<<12)
	w.writer = crdt.NewWriter(w.keys, twinStream, w.tag, now)
	w.left = 1 + w.rng.IntN(4)
}

type twinTx struct {
	*crdt.Writer
	w *twin
}

func (x twinTx) Rand() *rand.Rand { return x.w.rng }

func (x twinTx) View(uint8, ...[]byte) ([]byte, error) {
	x.w.t.Fatal("asked the view")
	return nil, nil
}

// cells runs a request on the cells; nil if the view is to answer it.
func (w *twin) cells(db uint8, args [][]byte) []byte {
	cmd, e := Find(args)
	if e != "" {
		return []byte("-" + e + "\r\n")
	}
	if cmd.ByView(args) {
		return nil
	}
	c := &Context{Tx: twinTx{w.writer, w}, DB: db, Args: cloneArgs(args), Out: Reply{Proto: 2}}
	runSteps(cmd, c)
	clear(c.Args) // nobody may have kept the list
	return c.Out.Buf
}

// run runs a request on both sides and compares.
func (w *twin) run(db uint8, args ...string) {
	w.t.Helper()
	w.history = append(w.history, fmt.Sprintf("%d %.300q", db, args))
	b := make([][]byte, len(args))
	for i, a := range args {
		b[i] = []byte(a)
	}
	// Redis's clock, when it runs the command, is between ours before and after.
	w.model.use(db)
	got := w.cells(db, b)
	want := w.model.do(withID(b, got)...)
	elapsed := time.Now().UnixMilli() - w.writer.Now()
	if got != nil && !bytes.Equal(timeless(args, got), timeless(args, want)) {
		if w.exact || !strings.EqualFold(args[0], "INCRBYFLOAT") || !closeNumbers(got, want) {
			w.t.Fatalf("%.300q:\n got %.500q\nwant %.500q", args, got, want)
		}
		// Exact, where a long double rounds: go on with the exact value.
		v, _ := w.writer.Elem(crdt.Key{DB: db, Name: args[1]}, crdt.KindString, "")
		w.model.must("SET", b[1], v, []byte("KEEPTTL"))
	}
	w.compare(elapsed)
	if w.left--; w.left <= 0 {
		w.begin()
	}
}

// closeNumbers reports whether two bulk strings hold numbers that differ by no
// more than a long double's precision, or by less than is printed.
func closeNumbers(a, b []byte) bool {
	var n [2]*big.Float // with more precision than either has
	for i, raw := range [][]byte{a, b} {
		list, err := parseBulks(raw, 1)
		if err != nil || len(list) != 1 {
			return false
		}
		if n[i], _, err = big.ParseFloat(string(list[0]), 10, 200, big.ToNearestEven); err != nil {
			return false
		}
	}
	diff := new(big.Float).Sub(n[0], n[1])
	bound := new(big.Float).Mul(n[0], big.NewFloat(math.Ldexp(1, -63)))
	bound.Add(bound.Abs(bound), big.NewFloat(1e-17))
	return diff.Abs(diff).Cmp(bound) <= 0
}

// state is what a key holds: a string, fields and values, members, or items.
type state struct {
	typ    string
	value  [][]byte
	expiry int64
}

func (s state) String() string { return fmt.Sprintf("%s %.300q until %d", s.typ, s.value, s.expiry) }

func (w *twin) modelState(db uint8) map[string]state {
	w.t.Helper()
	w.model.use(db)
	keys := w.model.bulks("KEYS", []byte("*"))
	var questions [][]string
	for _, k := range keys {
		questions = append(questions, []string{"TYPE", string(k)}, []string{"PEXPIRETIME", string(k)})
	}
	answers := w.model.pipeline(questions)
	reads := map[string][]string{"string": {"GET"}, "hash": {"HGETALL"}, "set": {"SMEMBERS"}, "zset": {"ZRANGE", "0", "-1", "WITHSCORES"},
		"list": {"LRANGE", "0", "-1"}}
	questions = questions[:0]
	for i, k := range keys {
		typ := strings.TrimSpace(string(answers[2*i][1:]))
		if typ == "stream" {
			questions = append(questions, streamState(string(k)))
			continue
		}
		questions = append(questions, slices.Insert(slices.Clone(reads[typ]), 1, string(k)))
	}
	values := w.model.pipeline(questions)
	out := map[string]state{}
	for i, k := range keys {
		s := state{typ: strings.TrimSpace(string(answers[2*i][1:]))}
		var err error
		if s.typ == "stream" {
			s.value = [][]byte{timeless(questions[i], values[i])}
		} else if s.value, err = parseBulks(values[i], len(values[i])); err != nil {
			w.t.Fatalf("%q: %v", questions[i], err)
		}
		switch s.typ {
		case "hash":
			pairs := slices.Collect(slices.Chunk(s.value, 2))
			slices.SortFunc(pairs, func(a, b [][]byte) int { return bytes.Compare(a[0], b[0]) })
			s.value = slices.Concat(pairs...)
		case "set":
			slices.SortFunc(s.value, bytes.Compare)
		case "zset":
			s.value = plainZeros(s.value)
		}
		at, err := strconv.ParseInt(strings.TrimSpace(string(answers[2*i+1][1:])), 10, 64)
		if err != nil {
			w.t.Fatal(err)
		}
		s.expiry = min(max(at, 0), lastExpiry)
		out[string(k)] = s
	}
	return out
}

// pipeline sends requests at once and returns their raw replies.
func (c *redisConn) pipeline(requests [][]string) [][]byte {
	c.t.Helper()
	var w Reply
	for _, args := range requests {
		w.bulks(args)
	}
	if _, err := c.conn.Write(w.Buf); err != nil {
		c.t.Fatal(err)
	}
	out := make([][]byte, len(requests))
	for i := range out {
		var err error
		if out[i], err = readReply(c.r); err != nil {
			c.t.Fatal(err)
		}
	}
	return out
}

func (w *twin) cellState(db uint8) map[string]state {
	out := map[string]state{}
	w.keys.Store.EachKey(db, func(k crdt.Key, _ *crdt.Header) bool {
		t := w.writer.Type(k)
		if t == crdt.TypeNone {
			return true
		}
		s := state{typ: t.String(), expiry: w.writer.Expiry(k)}
		add := func(b []byte) { s.value = append(s.value, b) }
		w.writer.EachElem(k, crdt.KindString, func(_ string, v []byte) bool { add(v); return true })
		w.writer.EachElem(k, crdt.KindField, func(e string, v []byte) bool { add([]byte(e)); add(v); return true })
		w.writer.EachElem(k, crdt.KindMember, func(e string, _ []byte) bool { add([]byte(e)); return true })
		s.value = append(s.value, scoresOf(w.writer, k)...)
		w.writer.EachElem(k, crdt.KindItem, func(_ string, v []byte) bool { add(v); return true })
		if t == crdt.TypeStream {
			question := streamState(k.Name)
			add(timeless(question, w.cells(db, bytesOf(question))))
		}
		out[k.Name] = s
		return true
	})
	return out
}

// compare compares all keys. An expiry set by the last request may be later at
// Redis by no more than the time since the group began.
func (w *twin) compare(elapsed int64) {
	w.t.Helper()
	for _, db := range twinDBs {
		got, want := w.cellState(db), w.modelState(db)
		for name, m := range want {
			c, ok := got[name]
			late := m.expiry - c.expiry
			switch {
			case !ok:
				w.t.Fatalf("db %d, key %q is missing: %v", db, name, m)
			case c.typ != m.typ || !slices.EqualFunc(c.value, m.value, bytes.Equal):
				w.t.Fatalf("db %d, key %q:\n got %v\nwant %v", db, name, c, m)
			case late < 0 || late > elapsed || (c.expiry == 0) != (m.expiry == 0):
				w.t.Fatalf("db %d, key %q expires at %d, want %d (up to %d less)", db, name, c.expiry, m.expiry, elapsed)
			case late > 0:
				w.writer.SetExpiry(crdt.Key{DB: db, Name: name}, m.expiry)
			}
			delete(got, name)
		}
		if len(got) > 0 {
			w.t.Fatalf("db %d: keys too many: %v", db, got)
		}
	}
}

// randomRequests makes requests out of what has broken things before. Relative
// expiries are never so near that a key could expire during the test, and never
// twice the same, so that which of two is later does not depend on milliseconds.
type randomRequests struct {
	rng  *rand.Rand
	base int64 // Unix seconds, about now
	n    int64
}

func oneOf[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

func (r *randomRequests) key() string {
	return oneOf(r.rng, "a", "b", "c", "d", "", "\x00\xff\r\n", "hash", "set", "list")
}

func (r *randomRequests) value() string {
	if r.rng.IntN(4) == 0 {
		b := make([]byte, r.rng.IntN(40))
		for i := range b {
			b[i] = byte(r.rng.Uint32())
		}
		return string(b)
	}
	return oneOf(r.rng, "", "0", "1", "10", "-5", "abc", "+5", "007", " 1", "1 ", "3.0", "1.5", "-0.25", "-0", "1e3", "1e-3",
		"0x10", "inf", "nan", "5.", ".5", "1e", "9223372036854775807", "-9223372036854775808", "9223372036854775808",
		"123456789012345678901234567890", "\x00", "\r\n", "1\x00", "99999999999999999999.5")
}

func (r *randomRequests) integer() string {
	return oneOf(r.rng, "0", "1", "-1", "7", "100", "-100", "2147483647", "2147483648", "9223372036854775807",
		"-9223372036854775808", "9223372036854775808", "", "abc", "1.0", "+1", "01", " 1", "1 ", "-0", "4611686018427387904", "1e3")
}

// size is an integer that names no more than a few kilobytes, or too many.
func (r *randomRequests) size() string {
	return oneOf(r.rng, "0", "1", "2", "5", "17", "100", "4000", "-1", "536870912", "4294967296", "9223372036854775807",
		"-9223372036854775808", "", "x", "1.5", "01")
}

func (r *randomRequests) float() string {
	return oneOf(r.rng, "0", "1", "-1", "0.5", "-0.25", "1.125", "3.0e2", "1e3", "5.", ".5", "+2", "inf", "-inf", "nan", "", "x", "1 ",
		" 1", "0x1.8p1", "0x", "1e400000", "1e-400000", "1e4900", "9e4932", "0e99999", "-0", "infinity", "1e", "1e+2", "9223372036854775807", "0.1", "1e-18")
}

func (r *randomRequests) double() string {
	return oneOf(r.rng, "0", "1", "-1", "0.1", "0.2", "3.1", "1e17", "123456789012345678", "1e308", "-1e308", "4.9e-324", "1e-400", "1e400", "inf", "+inf", "-inf", "-infinity",
		"-0", "nan", "", "x", "1 ", " 1", "0x1.8p1", "0x10", "0x", "1e", "5.", ".5", ".", "+2", "1_0", "9007199254740993", "2.2250738585072011e-308")
}

// after returns seconds from now, or something wrong or past.
func (r *randomRequests) after(unit int64) string {
	r.n++
	near, far := 100000+1000*r.n, 900000000-1000*r.n
	return oneOf(r.rng, strconv.FormatInt(near*unit, 10), strconv.FormatInt(far*unit, 10), strconv.FormatInt(near*unit, 10),
		"0", "-1", "-100000", "", "x", "1.5", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "9223372036854776")
}

// at returns a Unix time, or something wrong.
func (r *randomRequests) at(unit int64) string {
	future := (r.base + 500 + 1000*int64(1+r.rng.IntN(5))) * unit
	return oneOf(r.rng, strconv.FormatInt(future, 10), strconv.FormatInt(future, 10), "0", "1", "-1", "1000000000",
		"x", "", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "9223372036854775", "9223372036854776")
}

func (r *randomRequests) option(list ...string) string {
	o := oneOf(r.rng, list...)
	if r.rng.IntN(3) == 0 {
		o = strings.ToLower(o)
	}
	if r.rng.IntN(60) == 0 {
		o += oneOf(r.rng, "\x00", "\x00x", "x", " ")
	}
	return o
}

// expiry returns an option of SET or GETEX with its time.
func (r *randomRequests) expiry() []string {
	switch r.rng.IntN(4) {
	case 0:
		return []string{r.option("EX"), r.after(1)}
	case 1:
		return []string{r.option("PX"), r.after(1000)}
	case 2:
		return []string{r.option("EXAT"), r.at(1)}
	}
	return []string{r.option("PXAT"), r.at(1000)}
}

func (r *randomRequests) bitfield() []string {
	args := []string{"BITFIELD", r.key()}
	for range r.rng.IntN(5) {
		typ := oneOf(r.rng, "u8", "i8", "i16", "u1", "u63", "i64", "i1", "i63", "u4", "u64", "i65", "i0", "x8", "u", "", "i8x", "i8\x00")
		if r.rng.IntN(2) == 0 {
			typ = oneOf(r.rng, "u", "i") + strconv.Itoa(1+r.rng.IntN(63))
		}
		off := oneOf(r.rng, "0", "3", "100", "#0", "#3", "#", "-1", "#-1", "x", "4294967296", "#9223372036854775807", "9223372036854775807", "1031")
		if r.rng.IntN(2) == 0 {
			off = strconv.Itoa(r.rng.IntN(130))
		}
		val := r.integer()
		if r.rng.IntN(2) == 0 {
			val = strconv.FormatInt(int64(r.rng.Uint64())>>r.rng.IntN(64), 10)
		}
		switch r.rng.IntN(8) {
		case 0, 1:
			args = append(args, r.option("GET"), typ, off)
		case 2, 3, 4:
			args = append(args, r.option("SET", "INCRBY", "INCRBY"), typ, off, val)
		case 5, 6:
			args = append(args, r.option("OVERFLOW"), r.option("WRAP", "SAT", "FAIL", "NONE"))
		case 7:
			args = append(args, r.option("INCRBY", "FOO", "GET"), typ)
		}
	}
	return args
}

func (r *randomRequests) next() []string {
	args := r.request()
	switch r.rng.IntN(40) {
	case 0:
		args = args[:len(args)-1] // too few
	case 1:
		args = append(args, r.value()) // too many
	}
	if len(args) == 0 {
		return []string{"GET"}
	}
	return args
}

func (r *randomRequests) request() []string {
	k := r.key()
	switch r.rng.IntN(34) {
	case 0, 1, 2:
		args := []string{"SET", k, r.value()}
		for range r.rng.IntN(4) {
			if r.rng.IntN(2) == 0 {
				args = append(args, r.expiry()...)
			} else {
				args = append(args, r.option("NX", "XX", "GET", "KEEPTTL", "NX", "XX", "GET", "KEEPTTL", "FOO", "PERSIST", "EX"))
			}
		}
		return args
	case 3:
		return []string{"SETNX", k, r.value()}
	case 4:
		return []string{"SETEX", k, r.after(1), r.value()}
	case 5:
		return []string{"PSETEX", k, r.after(1000), r.value()}
	case 6:
		return append([]string{oneOf(r.rng, "MSET", "MSETNX"), k, r.value()},
			[]string{r.key(), r.value(), r.key(), r.value()}[:r.rng.IntN(5)]...)
	case 7:
		return []string{"GETSET", k, r.value()}
	case 8:
		return []string{"GETDEL", k}
	case 9, 10:
		args := []string{"GETEX", k}
		for range r.rng.IntN(3) {
			if r.rng.IntN(2) == 0 {
				args = append(args, r.expiry()...)
			} else {
				args = append(args, r.option("PERSIST", "KEEPTTL", "NX", "EX", "FOO"))
			}
		}
		return args
	case 11:
		return []string{"APPEND", k, r.value()}
	case 12:
		return []string{"SETRANGE", k, r.size(), r.value()}
	case 13:
		return []string{oneOf(r.rng, "INCR", "DECR", "incr"), k}
	case 14, 15:
		return []string{oneOf(r.rng, "INCRBY", "DECRBY"), k, r.integer()}
	case 16, 17:
		return []string{"INCRBYFLOAT", k, r.float()}
	case 18:
		return []string{"SETBIT", k, oneOf(r.rng, "0", "1", "7", "8", "1023", "-1", "4294967296", "#1", "x", "", "9223372036854775807"), oneOf(r.rng, "0", "1", "0", "1", "2", "-1", "x", "")}
	case 19, 20:
		args := []string{"BITOP", r.option("AND", "OR", "XOR", "NOT", "FOO"), k}
		for range 1 + r.rng.IntN(3) {
			args = append(args, r.key())
		}
		return args
	case 21, 22:
		return r.bitfield()
	case 23:
		return append([]string{oneOf(r.rng, "DEL", "UNLINK"), k}, []string{r.key(), r.key()}[:r.rng.IntN(3)]...)
	case 24, 25, 26:
		var args []string
		switch r.rng.IntN(4) {
		case 0:
			args = []string{"EXPIRE", k, r.after(1)}
		case 1:
			args = []string{"PEXPIRE", k, r.after(1000)}
		case 2:
			args = []string{"EXPIREAT", k, r.at(1)}
		case 3:
			args = []string{"PEXPIREAT", k, r.at(1000)}
		}
		for range r.rng.IntN(3) {
			args = append(args, r.option("NX", "XX", "GT", "LT", "NX", "XX", "GT", "LT", "FOO\r\nBAR\r\n"))
		}
		return args
	case 27:
		return []string{"PERSIST", k}
	case 28:
		return []string{oneOf(r.rng, "RENAME", "RENAMENX"), k, r.key()}
	case 29:
		args := []string{"COPY", k, r.key()}
		for range r.rng.IntN(3) {
			if r.rng.IntN(2) == 0 {
				args = append(args, r.option("DB"), oneOf(r.rng, "0", "1", "15", "16", "-1", "x", "2147483648", ""))
			} else {
				args = append(args, r.option("REPLACE", "REPLACE", "DB", "FOO"))
			}
		}
		return args
	case 30:
		return []string{"MOVE", k, oneOf(r.rng, "0", "1", "15", "16", "-1", "x", "4294967296", "")}
	case 31:
		if r.rng.IntN(5) > 0 {
			return []string{"HSET", k, "f", r.value(), "g\x00", "1"}
		}
		return []string{oneOf(r.rng, "FLUSHDB", "FLUSHALL"), r.option("SYNC", "ASYNC", "FOO")}
	case 32:
		if r.rng.IntN(2) == 0 {
			return oneOf(r.rng, []string{"ZADD", k, r.double(), r.value(), r.double(), "m"}, []string{"RPUSH", k, r.value(), "m", "m"})
		}
		return []string{"SADD", k, r.value(), "m"}
	default:
		return []string{oneOf(r.rng, "foo", "", "object", "xgroup"), r.value(), r.value()}
	}
}

// TestRandomRequests compares random requests with a real Redis.
func TestRandomRequests(t *testing.T) {
	for _, seed := range seeds() {
		t.Run("", func(t *testing.T) {
			w := newTwin(t, seed)
			r := &randomRequests{rng: w.rng, base: time.Now().Unix()}
			for range 1500 {
				args := r.next()
				if cmd, _ := Find(bytesOf(args)); cmd == nil && namesRefused(args) {
					continue
				}
				w.run(oneOf(r.rng, uint8(0), 0, 1), args...)
			}
		})
	}
}

func bytesOf(args []string) [][]byte {
	out := make([][]byte, len(args))
	for i, a := range args {
		out[i] = []byte(a)
	}
	return out
}

// namesRefused reports whether the request is one that Redis would carry out.
func namesRefused(args []string) bool {
	c := lookup(bytesOf(args))
	return c != nil && c.Refused != ""
}
