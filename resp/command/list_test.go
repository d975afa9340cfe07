package command

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

// Every list command at random, against Redis.
func TestListsAnswerAsRedis(t *testing.T) {
	for _, seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, seed)
			for range 2500 {
				if h.rng.IntN(8) == 0 {
					disturb(h, giveHash)
				}
				h.run(randomListCommand(h)...)
			}
		})
	}
}

func randomListCommand(h *harness) []string {
	name := func() string { return pick(h, keyNames) }
	value := func() string {
		if h.rng.IntN(4) > 0 {
			return strconv.Itoa(h.rng.IntN(5))
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
	index := func() string {
		if h.rng.IntN(8) > 0 {
			return strconv.Itoa(h.rng.IntN(12) - 6)
		}
		return pick(h, []string{"100", "-100", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "", "x", "1.0", " 1"})
	}
	side := func() string { return pick(h, []string{"LEFT", "RIGHT", "left", "Right", "LEFT\x00", "MIDDLE"}) }
	// Never 0: Redis would wait for ever.
	timeout := func() string {
		return pick(h, []string{"0.001", "1e-3", "0.0005", "-1", "x", "", "1e400", "inf", "nan", "9e18"})
	}
	waits := func(args []string) []string {
		// What would wait for long is only told to Redis where it need not.
		if t := args[len(args)-1]; t == "9e18" || t == "inf" {
			args[len(args)-1] = "x"
		}
		return args
	}
	count := func() string {
		return pick(h, []string{"0", "1", "2", "3", "100", "-1", "abc", "9223372036854775807", "9223372036854775808", ""})
	}
	mpop := func(head ...string) []string {
		n := 1 + h.rng.IntN(3)
		args := append(head, pick(h, []string{strconv.Itoa(n), strconv.Itoa(n), strconv.Itoa(n), strconv.Itoa(n), "0", "-1", "x", "9223372036854775807", "7"}))
		for range n {
			args = append(args, name())
		}
		args = append(args, side())
		for h.rng.IntN(3) == 0 {
			args = append(args, pick(h, []string{"COUNT", "count", "COUNT", "FOO"}), count())
		}
		return args
	}
	switch h.rng.IntN(26) {
	case 0, 1, 2:
		return some(value, "RPUSH", name())
	case 3, 4, 5:
		return some(value, "lpush", name())
	case 6:
		return some(value, pick(h, []string{"RPUSHX", "LPUSHX"}), name())
	case 7:
		return []string{pick(h, []string{"LPOP", "RPOP"}), name()}
	case 8:
		return []string{pick(h, []string{"LPOP", "RPOP"}), name(), count()}
	case 9, 10:
		return mpop("LMPOP")
	case 11, 12:
		return []string{"LINSERT", name(), pick(h, []string{"BEFORE", "AFTER", "before", "After", "FOO"}), value(), value()}
	case 13, 14:
		return []string{"LSET", name(), index(), value()}
	case 15:
		return []string{"LREM", name(), index(), value()}
	case 16:
		return []string{"LTRIM", name(), index(), index()}
	case 17:
		return []string{"LMOVE", name(), name(), side(), side()}
	case 18:
		return []string{"RPOPLPUSH", name(), name()}
	case 19:
		return waits(append(some(name, pick(h, []string{"BLPOP", "BRPOP"})), timeout()))
	case 20:
		return waits([]string{"BLMOVE", name(), name(), side(), side(), timeout()})
	case 21:
		return waits([]string{"BRPOPLPUSH", name(), name(), timeout()})
	case 22:
		return mpop("BLMPOP", pick(h, []string{"0.001", "1e-3", "-1", "x"}))
	case 23:
		return []string{pick(h, []string{"RENAME", "RENAMENX", "COPY"}), name(), name()}
	case 24:
		return []string{"LRANGE", name(), index(), index()}
	}
	cmd := listCommands[h.rng.IntN(len(listCommands))]
	args := []string{cmd.Name, name(), name(), "1", "g"}
	if cmd.Flags&Blocking != 0 {
		return []string{cmd.Name, name()}
	}
	return args[:1+h.rng.IntN(4)]
}

// A command that waits serves what has changed, and knows what it waits for.
func TestListsAreWaitedFor(t *testing.T) {
	h := newHarness(t, 1)
	run := func(resumed any, ready string, noWait bool, args ...string) *Context {
		c := &Context{Tx: testTx{h.writer, h}, Args: bytesOf(args), Out: Reply{Proto: 2}, NoWait: noWait, Resumed: resumed, Ready: crdt.Key{Name: ready}}
		cmd, refusal := Find(c.Args)
		if refusal != "" {
			t.Fatal(refusal)
		}
		cmd.Run(c)
		return c
	}
	reply := func(c *Context, want string) {
		t.Helper()
		if c.Waits != nil || string(c.Out.Buf) != want {
			t.Errorf("%q: %q, waits %+v; want %q", c.Args, c.Out.Buf, c.Waits, want)
		}
	}
	c := run(nil, "", false, "BLPOP", "a", "b", "a", "2.0005")
	w := c.Waits
	if w == nil || len(c.Out.Buf) > 0 || w.Deadline != h.writer.Now()+2001 || w.State == nil || fmt.Sprint(w.Keys) != "[{0 a} {0 b} {0 a}]" {
		t.Fatalf("waits %+v, replied %q", w, c.Out.Buf)
	}
	var out Reply
	if w.Timeout(&out); string(out.Buf) != "*-1\r\n" {
		t.Errorf("timeout replies %q", out.Buf)
	}
	run(nil, "", false, "RPUSH", "a", "1", "2", "3")
	run(nil, "", false, "RPUSH", "b", "4")
	reply(run(w.State, "b", false, "BLPOP", "a", "b", "2"), "*2\r\n$1\r\nb\r\n$1\r\n4\r\n") // not a, though it comes first
	run(nil, "", false, "SET", "b", "x")
	if again := run(w.State, "b", false, "BLPOP", "a", "b", "0"); again.Waits == nil || again.Waits.Deadline != 0 || len(again.Out.Buf) > 0 {
		t.Errorf("a string: waits %+v, replied %q", again.Waits, again.Out.Buf)
	}
	reply(run(nil, "", false, "BRPOP", "b", "a", "0"), "-"+errWrongType+"\r\n")
	reply(run(w.State, "a", false, "BLMOVE", "a", "b", "LEFT", "RIGHT", "0"), "-"+errWrongType+"\r\n")
	reply(run(w.State, "a", false, "BLMPOP", "0", "1", "a", "RIGHT", "COUNT", "5"), "*2\r\n$1\r\na\r\n*3\r\n$1\r\n3\r\n$1\r\n2\r\n$1\r\n1\r\n")
	reply(run(nil, "", true, "BRPOPLPUSH", "a", "b", "0"), "$-1\r\n")
	reply(run(nil, "", true, "BLPOP", "a", "0"), "*-1\r\n")
	if c := run(nil, "", false, "BRPOPLPUSH", "a", "b", "1e15"); c.Waits == nil || c.Waits.Deadline < 1e18 {
		t.Errorf("waits %+v, replied %q", c.Waits, c.Out.Buf)
	}
}

// A list moved to itself keeps what it has, its expiry too.
func TestRotatedListKeepsExpiry(t *testing.T) {
	h := newHarness(t, 1)
	h.run("RPUSH", "k0", "a")
	h.run("PEXPIREAT", "k0", "4102444800000")
	h.run("LMOVE", "k0", "k0", "LEFT", "RIGHT")
	h.run("RPOPLPUSH", "k0", "k0")
	h.run("PEXPIRETIME", "k0")
	h.run("LPOP", "k0", "5")
	h.run("RPUSH", "k0", "a")
	h.run("PEXPIRETIME", "k0")
}
