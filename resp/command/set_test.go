package command

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

// Every set command at random, against Redis.
func TestSetsAnswerAsRedis(t *testing.T) {
	for _, seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, seed)
			for range 1500 {
				if h.rng.IntN(5) == 0 {
					disturb(h, giveHash)
				}
				h.runSet(randomSetCommand(h)...)
			}
		})
	}
}

func randomSetCommand(h *harness) []string {
	name := func() string { return pick(h, keyNames) }
	member := func() string {
		if h.rng.IntN(2) == 0 {
			return strconv.Itoa(h.rng.IntN(6))
		}
		return pick(h, nasties)
	}
	some := func(one func() string, head ...string) []string {
		head = append(head, one())
		for h.rng.IntN(3) > 0 {
			head = append(head, one())
		}
		return head
	}
	switch h.rng.IntN(16) {
	case 0, 1, 2, 3:
		return some(member, "SADD", name())
	case 4:
		return some(member, "srem", name())
	case 5:
		return []string{"SMOVE", name(), name(), member()}
	case 6:
		return some(name, "SINTERSTORE", name())
	case 7:
		return some(name, "SUNIONSTORE", name())
	case 8:
		return some(name, "SDIFFSTORE", name())
	case 9:
		return []string{"SPOP", name()}
	case 10:
		return []string{"SPOP", name(), pick(h, []string{"0", "1", "2", "3", "100", "9223372036854775807", "-1", "abc", "1.0", "9223372036854775808", ""})}
	case 11:
		return some(name, pick(h, []string{"SINTER", "SUNION", "SDIFF"}))
	case 12:
		return some(member, pick(h, []string{"SMISMEMBER", "SISMEMBER"}), name())
	case 13:
		return []string{pick(h, []string{"SMEMBERS", "SCARD"}), name()}
	case 14:
		return []string{"SINTERCARD", pick(h, []string{"0", "1", "2", "3", "x"}), name(), name(), "LIMIT", pick(h, []string{"0", "1", "-1", "x"})}
	}
	cmd := setCommands[h.rng.IntN(len(setCommands))]
	if cmd.Flags&Random != 0 {
		return []string{cmd.Name}
	}
	args := []string{cmd.Name, name(), name(), "1", "g"}
	return args[:1+h.rng.IntN(4)]
}

// runSet is run, but for SPOP: as what it takes is random, the model is told
// to remove the same.
func (h *harness) runSet(args ...string) {
	h.t.Helper()
	if !strings.EqualFold(args[0], "SPOP") {
		h.run(args...)
		return
	}
	before := h.model.bulksOf("SMEMBERS", args)
	b := make([][]byte, len(args))
	for i, a := range args {
		b[i] = []byte(a)
	}
	raw := h.cells(b...)
	var popped [][]byte
	if raw[0] != '-' {
		var err error
		if popped, err = parseBulks(raw, len(before)); err != nil {
			h.t.Fatalf("%.300q: reply %.500q: %v", args, raw, err)
		}
	}
	if len(popped) == 0 {
		// An error, or nothing to pop: Redis says just the same.
		if want := h.model.do(b...); string(want) != string(raw) {
			h.t.Fatalf("%.300q:\n got %.500q\nwant %.500q", args, raw, want)
		}
		h.compare()
		return
	}
	want, form := 1, byte('$')
	if len(args) == 3 {
		n, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			h.t.Fatal(err)
		}
		want, form = int(min(n, int64(len(before)))), '*'
	}
	if raw[0] != form || len(popped) != want {
		h.t.Fatalf("%.300q of %d: reply %.500q", args, len(before), raw)
	}
	// That all of them were there, each once, is told by the count.
	removed := h.model.must("SREM", append([][]byte{b[1]}, popped...)...)
	if string(removed) != fmt.Sprintf(":%d\r\n", want) {
		h.t.Fatalf("%.300q: Redis removed %s of %q", args, removed, popped)
	}
	h.compare()
}

// bulksOf runs a read on the key of a command; nothing if it is of another
// type.
func (c *redisConn) bulksOf(name string, args []string) [][]byte {
	c.t.Helper()
	if len(args) < 2 {
		return nil
	}
	raw := c.do([]byte(name), []byte(args[1]))
	out, err := parseBulks(raw, len(raw))
	if err != nil && raw[0] != '-' {
		c.t.Fatal(err)
	}
	return out
}

// The order of checks, and error texts, one by one.
func TestSetChecks(t *testing.T) {
	h := newHarness(t, 1)
	h.give(func(w *crdt.Writer) { w.SetString(crdt.Key{Name: "str"}, []byte("1"), false) }, "SET", "str", "1")
	h.run("SADD", "s", "a", "b", "c")
	for _, c := range []string{
		"SADD str m", "SREM str m", "SPOP str", "SPOP str 0", "SPOP str 1", "SPOP str -1", "SPOP str x", "SPOP str 1 2", "SPOP none x", "SPOP none -1",
		"SMOVE none str a", "SMOVE str none a", "SMOVE str str a", "SMOVE s str a", "SMOVE s str none", "SMOVE s s a", "SMOVE s s none",
		"SINTERSTORE d none str", "SINTERSTORE d str none", "SUNIONSTORE d none str", "SDIFFSTORE d none str", "SDIFFSTORE d s str",
		"SINTERCARD 2 s", "SINTERCARD 0 s", "SINTERCARD x s", "SINTERCARD 1 s LIMIT -1", "SINTERCARD 1 str",
		"SRANDMEMBER str", "SRANDMEMBER s x", "SSCAN s x", "SSCAN str 0", "SMISMEMBER str a",
		"SUNIONSTORE str s", "SCARD str",
	} {
		h.runSet(strings.Split(c, " ")...)
	}
	h.give(func(w *crdt.Writer) { w.SetString(crdt.Key{Name: "str"}, []byte("1"), false) }, "SET", "str", "1")
	h.run("SINTERSTORE", "str", "s", "none")
}

// The destination becomes the result and nothing else, whatever it was.
func TestStoreReplacesItsDestination(t *testing.T) {
	h := newHarness(t, 1)
	at := h.now + 3_600_000
	for _, c := range []string{"SUNIONSTORE a a b", "SINTERSTORE a a b", "SDIFFSTORE a a b", "SDIFFSTORE a b a", "SDIFFSTORE a a a", "SUNIONSTORE a none", "SINTERSTORE a none a", "SUNIONSTORE hash a b", "SUNIONSTORE b b"} {
		h.run("SADD", "a", "1", "2", "3")
		h.run("SADD", "b", "3", "4")
		h.give(func(w *crdt.Writer) { w.SetElem(crdt.Key{Name: "hash"}, crdt.KindField, "f", nil) }, "HSET", "hash", "f", "")
		for _, k := range []string{"a", "b", "hash"} {
			h.give(func(w *crdt.Writer) { w.SetExpiry(crdt.Key{Name: k}, at) }, "PEXPIREAT", k, strconv.FormatInt(at, 10))
		}
		h.run(strings.Split(c, " ")...)
		for _, k := range []string{"a", "b", "hash"} {
			h.give(func(w *crdt.Writer) { w.Remove(crdt.Key{Name: k}) }, "DEL", k)
		}
	}
}

func TestSetOfLargeMembers(t *testing.T) {
	h := newHarness(t, 1)
	big := strings.Repeat("\x00\r\n\xff", 1<<18)
	h.runSet("SADD", big, big, big, "")
	h.runSet("SMOVE", big, "d", big)
	h.runSet("SUNIONSTORE", big, big, "d")
	h.runSet("SPOP", big)
	h.runSet("SPOP", big, "7")
	h.runSet("SPOP", "d", "1")
}

// What SPOP logs is which members left, not that one should.
func TestSPopLogsItsEffect(t *testing.T) {
	for _, count := range []int{1, 3, 19, 20, 50} {
		h := newHarness(t, 1)
		add := []string{"SADD", "s"}
		for i := range 20 {
			add = append(add, strconv.Itoa(i))
		}
		h.run(add...)
		h.commit()
		h.left = 100
		k := crdt.Key{Name: "s"}
		popped, err := parseBulks(h.cells([]byte("SPOP"), []byte("s"), strconv.AppendInt(nil, int64(count), 10)), count)
		if err != nil || len(popped) != min(count, 20) {
			t.Fatalf("SPOP %d: %q, %v", count, popped, err)
		}
		gone := map[string]bool{}
		for _, m := range popped {
			if _, ok := h.writer.Elem(k, crdt.KindMember, string(m)); ok {
				t.Errorf("%q is still there", m)
			}
			gone[string(m)] = true
		}
		entries := h.commit()
		if len(entries) != 1 {
			t.Fatalf("%d entries", len(entries))
		}
		for _, d := range entries[0].Deltas {
			switch {
			case d.Put != nil || d.Add != nil || d.Remove == nil:
				t.Errorf("SPOP %d logged %+v", count, d)
			case d.Level == crdt.LevelCell && d.ID.Kind == crdt.KindMember && !gone[d.ID.Elem]:
				t.Errorf("SPOP %d removed %q, which it did not reply", count, d.ID.Elem)
			case d.Level != crdt.LevelCell && count < 20:
				t.Errorf("SPOP %d of 20 removed all", count)
			}
		}
		if want := 20 - len(gone); h.writer.Len(k, crdt.KindMember) != want {
			t.Errorf("%d members left, want %d", h.writer.Len(k, crdt.KindMember), want)
		}
		if a, b := h.dump(h.keys), h.dump(h.follower); a != b {
			t.Errorf("the follower has %s, not %s", b, a)
		}
	}
}

// Each member leaves as often as any other, whether the view draws it or, its
// set being another, the cells.
func TestSPopIsUniform(t *testing.T) {
	const members, rounds = 5, 4000
	for _, stale := range []bool{false, true} {
		h := newHarness(t, 1)
		h.stale = stale
		add := [][]byte{[]byte("SADD"), []byte("s"), []byte("0"), []byte("1"), []byte("2"), []byte("3"), []byte("4")}
		var drawn [members]int
		for range rounds {
			h.left = 2
			h.cells(add...)
			if stale {
				// The view has the key no more.
				clear(h.keys.Touched)
				h.view.must("DEL", []byte("s"))
			}
			popped, err := parseBulks(h.cells([]byte("SPOP"), []byte("s"), []byte("2")), 2)
			if err != nil || len(popped) != 2 {
				t.Fatalf("%q, %v", popped, err)
			}
			for _, m := range popped {
				drawn[m[0]-'0']++
			}
		}
		// 2/5 of the rounds each; the deviation is sqrt(rounds·2/5·3/5) = 31.
		for m, n := range drawn {
			if math.Abs(float64(n)-rounds*2/members) > 6*31 {
				t.Errorf("stale %v: member %d left %d times of %d rounds", stale, m, n, rounds)
			}
		}
	}
}

// Without the view SPOP cannot draw: it says so, and nothing has left.
func TestSPopWithoutView(t *testing.T) {
	h := newHarness(t, 1)
	h.run("SADD", "s", "a", "b")
	h.commit()
	h.left = 100
	h.viewErr = errors.New("LOADING the local Redis is not there")
	if got := h.cells([]byte("SPOP"), []byte("s")); string(got) != "-LOADING the local Redis is not there\r\n" {
		t.Errorf("got %q", got)
	}
	if e := h.commit(); len(e) != 0 {
		t.Errorf("wrote %v", e)
	}
}

// lateTx is a transaction whose key expires while the view is asked.
type lateTx struct {
	testTx
	reply string
}

func (x *lateTx) View(uint8, ...[]byte) ([]byte, error) {
	x.Writer = crdt.NewWriter(x.h.keys, harnessStream, x.h.tag, x.h.now+2000)
	return []byte(x.reply), nil
}

// A set that expires under SPOP's hands is replied as one that is not there,
// whatever the view still had.
func TestSPopOfExpiringSet(t *testing.T) {
	for _, c := range []struct{ args, view, want string }{
		{"SPOP s", "*0\r\n", "$-1\r\n"},
		{"SPOP s", "*1\r\n$1\r\na\r\n", "$-1\r\n"},
		{"SPOP s 2", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*0\r\n"},
	} {
		h := newHarness(t, 1)
		h.run("SADD", "s", "a", "b", "c")
		h.writer.SetExpiry(crdt.Key{Name: "s"}, h.now+1000)
		h.commit()
		x := &Context{Tx: &lateTx{testTx{h.writer, h}, c.view}, Args: wordsOf(c.args)}
		spop(x)
		if string(x.Out.Buf) != c.want {
			t.Errorf("%s: got %q, want %q", c.args, x.Out.Buf, c.want)
		}
	}
}

// A view whose reply makes no sense is not believed: the cells are asked.
func TestSPopDistrustsView(t *testing.T) {
	for _, reply := range []string{"-ERR no\r\n", "*2\r\n$1\r\na\r\n$1\r\na\r\n", "*2\r\n$1\r\nx\r\n$1\r\ny\r\n", "*1\r\n$1\r\na\r\n", "$-1\r\n", ""} {
		h := newHarness(t, 1)
		h.run("SADD", "s", "a", "b", "c")
		h.commit()
		x := &Context{Tx: fakeView{testTx{h.writer, h}, reply}, Args: wordsOf("SPOP s 2")}
		spop(x)
		popped, err := parseBulks(x.Out.Buf, 2)
		if err != nil || len(popped) != 2 || string(popped[0]) == string(popped[1]) {
			t.Errorf("view says %q: replied %q", reply, x.Out.Buf)
		}
		if n := h.writer.Len(crdt.Key{Name: "s"}, crdt.KindMember); n != 1 {
			t.Errorf("view says %q: %d members left", reply, n)
		}
	}
}

// fakeView is a transaction whose view replies what it is told to.
type fakeView struct {
	testTx
	reply string
}

func (x fakeView) View(uint8, ...[]byte) ([]byte, error) { return []byte(x.reply), nil }
