package command

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// nasties are names and values that something might take apart.
var nasties = []string{
	"", "\x00", "a\x00b", "\r\n", "x\r\n$3\r\n", "\xff\xfe", " ", "*", "é", strings.Repeat("long", 80), "{a}{b}",
}

// integers are values around every edge of INCR.
var integers = []string{
	"0", "1", "-1", "42", "9223372036854775807", "-9223372036854775808", "9223372036854775806", "-9223372036854775807",
	"9223372036854775808", "-9223372036854775809", "00", "01", "-0", "+1", " 1", "1 ", "1.0", "1e3", "", "abc", "0x10",
	"4611686018427387904", "-4611686018427387904",
}

// fractions are binary fractions: with them Redis's long double is exact too.
var fractions = []string{
	"0", "1", "-1", "0.5", "-0.25", "3.125", "1e2", "-2.5E1", "+4", ".5", "7.", "1024.0625", "0x10", "0x.8", "-0x1.8p1", "-0",
}

func pick(h *harness, of []string) string { return of[h.rng.IntN(len(of))] }

// keyNames are few, so that commands meet.
var keyNames = []string{"k0", "k1", "k2", "", "k\x00\r\n\xff"}

// disturb now and then makes a key what the command under test does not
// expect, or gives it an expiry.
func disturb(h *harness, other func(*crdt.Writer, crdt.Key) []string) {
	name := pick(h, keyNames)
	k := crdt.Key{Name: name}
	switch h.rng.IntN(12) {
	case 0:
		h.give(func(w *crdt.Writer) { w.SetString(k, []byte("10"), false) }, "SET", name, "10")
	case 1:
		h.give(func(w *crdt.Writer) { w.Remove(k) }, "DEL", name)
	case 2:
		at := h.now + 3_600_000 + h.rng.Int64N(1000)
		h.give(func(w *crdt.Writer) { w.SetExpiry(k, at) }, "PEXPIREAT", name, strconv.FormatInt(at, 10))
	case 3:
		var model []string
		h.give(func(w *crdt.Writer) { w.Remove(k) }, "DEL", name)
		h.give(func(w *crdt.Writer) { model = other(w, k) }, "PING")
		h.give(func(*crdt.Writer) {}, model...)
	}
}

func giveSet(w *crdt.Writer, k crdt.Key) []string {
	w.SetElem(k, crdt.KindMember, "m", nil)
	return []string{"SADD", k.Name, "m"}
}

func giveHash(w *crdt.Writer, k crdt.Key) []string {
	w.SetElem(k, crdt.KindField, "f", []byte("1"))
	return []string{"HSET", k.Name, "f", "1"}
}

// Every hash command at random, against Redis.
func TestHashesAnswerAsRedis(t *testing.T) {
	for _, seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, seed)
			for range 1500 {
				if h.rng.IntN(5) == 0 {
					disturb(h, giveSet)
				}
				h.run(randomHashCommand(h)...)
			}
		})
	}
}

// randomHashCommand returns a command. The edges of integers go to fields whose
// names begin with i, which get no fractions: with both, Redis rounds.
func randomHashCommand(h *harness) []string {
	name := pick(h, keyNames)
	field := func() string {
		switch h.rng.IntN(3) {
		case 0:
			return "i" + strconv.Itoa(h.rng.IntN(3))
		case 1:
			return "f" + strconv.Itoa(h.rng.IntN(3))
		}
		return pick(h, nasties)
	}
	value := func(field string) string {
		switch {
		case strings.HasPrefix(field, "i"):
			return pick(h, integers)
		case strings.HasPrefix(field, "f"):
			return pick(h, fractions)
		}
		return pick(h, nasties)
	}
	fields := func() []string {
		out := []string{field()}
		for h.rng.IntN(2) == 0 {
			out = append(out, field())
		}
		return out
	}
	pairs := func() []string {
		var out []string
		for _, f := range fields() {
			out = append(out, f, value(f))
		}
		if h.rng.IntN(20) == 0 {
			out = append(out, "odd")
		}
		return out
	}
	f := field()
	switch h.rng.IntN(18) {
	case 0, 1:
		return append([]string{"HSET", name}, pairs()...)
	case 2:
		return append([]string{"hmset", name}, pairs()...)
	case 3:
		return []string{"HSETNX", name, f, value(f)}
	case 4, 5:
		return append([]string{"HDEL", name}, fields()...)
	case 6, 7:
		if strings.HasPrefix(f, "i") {
			return []string{"HINCRBY", name, f, pick(h, integers)}
		}
		return []string{"HINCRBY", name, f, strconv.Itoa(h.rng.IntN(100) - 50)}
	case 8, 9:
		by := pick(h, append([]string{"abc", "", "inf", "-Infinity", "nan", " 1", "1 ", "1e", "0x", "1e9999"}, fractions...))
		if strings.HasPrefix(f, "i") {
			f = "f0"
		}
		return []string{"HINCRBYFLOAT", name, f, by}
	case 10:
		return []string{"HGET", name, f}
	case 11:
		return append([]string{"HMGET", name}, fields()...)
	case 12:
		return []string{pick(h, []string{"HGETALL", "HKEYS", "HVALS", "HLEN"}), name}
	case 13:
		return []string{pick(h, []string{"HSTRLEN", "HEXISTS"}), name, f}
	case 14:
		return []string{"HSCAN", name, pick(h, []string{"0", "x"}), "MATCH", "none-such", "COUNT", pick(h, []string{"10000", "0", "x"})}
	case 15:
		return []string{"HRANDFIELD", name, pick(h, []string{"0", "x", "9223372036854775808"})}
	}
	// Too few or too many arguments, mostly.
	cmd := hashCommands[h.rng.IntN(len(hashCommands))]
	if cmd.Name == "HRANDFIELD" || cmd.Name == "HSCAN" || cmd.Name == "HINCRBYFLOAT" {
		return []string{cmd.Name}
	}
	args := []string{cmd.Name, name, "f9", "1", "g", "2"}
	return args[:1+h.rng.IntN(4)]
}

// The order of checks, and error texts, one by one.
func TestHashChecks(t *testing.T) {
	h := newHarness(t, 1)
	h.give(func(w *crdt.Writer) { w.SetString(crdt.Key{Name: "str"}, []byte("1"), false) }, "SET", "str", "1")
	h.run("HSET", "h", "inf", "inf", "nan", "nan", "word", "abc", "hex", "0x10", "max", "9223372036854775807", "min", "-9223372036854775808")
	for _, c := range []string{
		"HSET str f", "HSET str f v", "HSET str f v g", "HSET h f v g", "HMSET str f v g", "HMSET h f v g", "HMSET str f v",
		"HSETNX str f v", "HDEL str f", "HINCRBY str f abc", "HINCRBY str f 1", "HINCRBY h word abc", "HINCRBY h word 1",
		"HINCRBY h f 9223372036854775808", "HINCRBY h f 1.0", "HINCRBY h max 1", "HINCRBY h max 0", "HINCRBY h max -1", "HINCRBY h max 1",
		"HINCRBY h min -1", "HINCRBY h min 0", "HINCRBY h min 9223372036854775807", "HINCRBY h new -9223372036854775808", "HINCRBY h new -1",
		"HINCRBYFLOAT str f abc", "HINCRBYFLOAT str f inf", "HINCRBYFLOAT str f 1", "HINCRBYFLOAT h word inf", "HINCRBYFLOAT h word 1",
		"HINCRBYFLOAT h inf 1", "HINCRBYFLOAT h nan 1", "HINCRBYFLOAT h hex 1", "HINCRBYFLOAT h hex 1", "HINCRBY h hex 1",
		"HINCRBYFLOAT h f 1e9999", "HINCRBYFLOAT h f nan", "HGET str f", "HMGET str f g", "HGETALL str", "HLEN none", "HRANDFIELD str 1 x",
	} {
		h.run(strings.Split(c, " ")...)
	}
}

// Short decimals of small numbers, where a long double prints just what exact
// decimals do; each is added to the sum of those before.
func TestHIncrByFloatPrintsAsRedis(t *testing.T) {
	h := newHarness(t, 1)
	for _, by := range []string{
		"0.1", "0.2", "-0.3", "10.5", "-5.0e0", "5e-1", "0.000001", "1e-10", "-1e-10", "3.14159265", "-8.3", "0", "-0.5",
		"0.00000000000000004", "-1e-17", "1e-18", "-4e-18", "1e-400", "-1e-4940", "0x1p-3", "-0x.2",
	} {
		h.run("HINCRBYFLOAT", "h", "f", by)
	}
	for range 500 {
		h.run("HINCRBYFLOAT", "h", "g", fmt.Sprintf("%.*f", h.rng.IntN(9), h.rng.Float64()*2-1))
	}
}

// Beyond the digits of a long double Redis rounds; this node is exact.
func TestHIncrByFloatIsExact(t *testing.T) {
	h := newHarness(t, 1)
	h.cells([]byte("HSET"), []byte("h"), []byte("f"), []byte("9223372036854775807"))
	got := h.cells([]byte("HINCRBYFLOAT"), []byte("h"), []byte("f"), []byte("0.1"))
	if want := "$21\r\n9223372036854775807.1\r\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// As large as numbers get, and no further.
	for by, want := range map[string]string{
		"1e4931": "$4932\r\n1" + strings.Repeat("0", 4931) + "\r\n",
		"1e4933": "-" + errNotFloat + "\r\n",
	} {
		if got := h.cells([]byte("HINCRBYFLOAT"), []byte("h"), []byte("huge"), []byte(by)); string(got) != want {
			t.Errorf("%s: got %.100q", by, got)
		}
	}
	h.cells([]byte("HSET"), []byte("h"), []byte("most"), []byte("1.1e4932"))
	if got := h.cells([]byte("HINCRBYFLOAT"), []byte("h"), []byte("most"), []byte("1.1e4932")); string(got) != "-"+errNotFinite+"\r\n" {
		t.Errorf("got %.100q", got)
	}
}

// A megabyte in a name or value is nothing special.
func TestHashOfLargeFields(t *testing.T) {
	h := newHarness(t, 1)
	big := strings.Repeat("\x00\r\n\xff", 1<<18)
	h.run("HSET", big, big, big, "f", "")
	h.run("HGET", big, big)
	h.run("HINCRBY", big, big, "1")
	h.run("HINCRBYFLOAT", big, big, "1")
	h.run("HINCRBYFLOAT", big, "f", big)
	h.run("HSETNX", big, big, "x")
	h.run("HDEL", big, big, big)
	h.run("HDEL", big, "f")
}

// With the last field the key goes, and its expiry; a hash that comes after it
// has none.
func TestHashGoesWithItsLastField(t *testing.T) {
	h := newHarness(t, 1)
	k := crdt.Key{Name: "h"}
	at := h.now + 3_600_000
	for range 2 {
		h.run("HSET", "h", "f", "1", "g", "2")
		h.give(func(w *crdt.Writer) { w.SetExpiry(k, at) }, "PEXPIREAT", "h", strconv.FormatInt(at, 10))
		h.run("HDEL", "h", "f", "g", "f")
	}
	h.run("HINCRBY", "h", "f", "1")
}

// A write to an expired key finds nothing of what it was.
func TestHashAfterExpiry(t *testing.T) {
	for _, c := range []string{"HSET h f 5", "HSETNX h f 5", "HINCRBY h f 5", "HINCRBYFLOAT h f .5", "HDEL h f", "HGETALL h"} {
		t.Run(c, func(t *testing.T) {
			h := newHarness(t, 1)
			k := crdt.Key{Name: "h"}
			h.run("HSET", "h", "f", "1", "g", "2")
			h.commit()
			at := h.now + 20
			h.give(func(w *crdt.Writer) { w.SetExpiry(k, at) }, "PEXPIREAT", "h", strconv.FormatInt(at, 10))
			h.commit()
			for time.Now().UnixMilli() <= at {
				time.Sleep(time.Millisecond)
			}
			h.begin()
			h.run(strings.Split(c, " ")...)
		})
	}
}

// Pitfall 8: what is not there is not removed, and leaves nothing behind.
func TestRemovingNothingWritesNothing(t *testing.T) {
	h := newHarness(t, 1)
	h.run("HSET", "h", "f", "1")
	h.run("SADD", "s", "m")
	h.commit()
	for _, c := range []string{"HDEL h none", "HDEL none f", "SREM s none", "SREM none m", "SMOVE s h2 none", "SMOVE none s m", "SPOP none", "SPOP none 3", "SPOP s 0", "HSETNX h f 2"} {
		h.left = 100
		h.run(strings.Split(c, " ")...)
		if e := h.commit(); len(e) != 0 {
			t.Errorf("%s wrote %v", c, e)
		}
	}
	var cells []crdt.CellID
	for _, name := range []string{"h", "h2", "s", "none"} {
		h.keys.Store.EachCell(crdt.Key{Name: name}, crdt.KindAny, func(id crdt.CellID, _ *crdt.Cell) bool {
			cells = append(cells, id)
			return true
		})
	}
	if len(cells) != 2 {
		t.Errorf("cells %v", cells)
	}
}

// Writes that change nothing for a single node are new writes to the others:
// each replaces the dot that a concurrent remove may have seen.
func TestEqualWritesAreWrites(t *testing.T) {
	for _, c := range []struct {
		write string
		id    crdt.CellID
	}{
		{"HSET h f 1", crdt.CellID{Key: crdt.Key{Name: "h"}, Kind: crdt.KindField, Elem: "f"}},
		{"HMSET h f 1", crdt.CellID{Key: crdt.Key{Name: "h"}, Kind: crdt.KindField, Elem: "f"}},
		{"HINCRBY h f 0", crdt.CellID{Key: crdt.Key{Name: "h"}, Kind: crdt.KindField, Elem: "f"}},
		{"SADD s m", crdt.CellID{Key: crdt.Key{Name: "s"}, Kind: crdt.KindMember, Elem: "m"}},
		{"SUNIONSTORE s s", crdt.CellID{Key: crdt.Key{Name: "s"}, Kind: crdt.KindMember, Elem: "m"}},
		{"SMOVE t s m", crdt.CellID{Key: crdt.Key{Name: "s"}, Kind: crdt.KindMember, Elem: "m"}},
	} {
		t.Run(c.write, func(t *testing.T) {
			h := newHarness(t, 1)
			h.run("HSET", "h", "f", "1")
			h.run("SADD", "s", "m")
			h.run("SADD", "t", "m")
			h.commit()
			before := h.keys.Store.Cell(c.id).Newest()
			h.run(strings.Split(c.write, " ")...)
			if after := h.keys.Store.Cell(c.id).Newest(); after.Compare(before) <= 0 {
				t.Errorf("dot %v after %v", after, before)
			}
		})
	}
}
