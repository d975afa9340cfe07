package command

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

// hllForm brings a string that is a HyperLogLog into the form in which the node
// would have it: Redis caches counts in it, and may keep runs in pieces.
func hllForm(s []byte) []byte {
	if len(s) < hllHeader || string(s[:4]) != "HYLL" || s[4] > 1 || s[4] == 0 && len(s) != hllDenseSize {
		return s
	}
	var h hyperLogLog
	if !h.parse(s) {
		return s
	}
	return HyperLogLogString(func(fn func(string, []byte) bool) {
		fn("", []byte{1 - s[4]})
		for b := range h.blocks {
			fn(string([]byte{byte(b)}), h.regs[b*hllBlock:(b+1)*hllBlock])
		}
	})
}

// TestHyperLogLogsAnswerAsRedis compares every command, and how the string
// comes and goes, with Redis; counts are the same to the last digit.
func TestHyperLogLogsAnswerAsRedis(t *testing.T) {
	for _, seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, seed)
			for range 400 {
				if h.rng.IntN(20) == 0 {
					disturb(h, giveSet)
				}
				h.run(randomHyperLogLogCommand(h)...)
			}
		})
	}
}

func randomHyperLogLogCommand(h *harness) []string {
	k, other := pick(h, keyNames), pick(h, keyNames)
	elems := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			if out[i] = strconv.Itoa(h.rng.IntN(100_000)); h.rng.IntN(5) == 0 {
				out[i] = pick(h, nasties)
			}
		}
		return out
	}
	switch n := h.rng.IntN(40); {
	case n < 10:
		return append([]string{"PFADD", k}, elems(h.rng.IntN(4))...)
	case n < 12:
		return append([]string{"PFADD", k}, elems(300)...)
	case n < 13:
		return append([]string{"PFADD", k}, elems(6000)...) // dense for sure
	case n < 20:
		return append([]string{"PFCOUNT", k}, keyNames[:h.rng.IntN(3)]...)
	case n < 26:
		return append([]string{"PFMERGE", k}, keyNames[:h.rng.IntN(4)]...)
	case n < 27:
		return []string{"PFDEBUG", "TODENSE", k}
	case n < 28:
		return []string{"PFDEBUG", "getreg", k}
	case n < 30:
		return []string{"PFDEBUG", pick(h, []string{"ENCODING", "foo", "a\r\nb"}), k}
	case n < 32:
		// The same string, as a string. (Writing to the registers leaves Redis
		// with a count from before.)
		return []string{"SETRANGE", k, "0", "H"}
	case n < 33:
		return []string{"COPY", k, other, "REPLACE"}
	case n < 34:
		return []string{"RENAME", k, other}
	case n < 35:
		return []string{"STRLEN", k}
	case n < 36:
		return []string{"GETRANGE", k, "0", "4"}
	case n < 37:
		return []string{"INCR", k}
	default:
		return []string{"DEL", k}
	}
}

// TestLocalCount: what the cells count is what Redis counts.
func TestLocalCount(t *testing.T) {
	for _, seed := range seeds() {
		h := newHarness(t, seed)
		for range 300 {
			h.run(randomHyperLogLogCommand(h)...)
			args := append([]string{"PFCOUNT", pick(h, keyNames)}, keyNames[:h.rng.IntN(4)]...)
			c := &Context{Tx: testTx{h.writer, h}, Args: bytesOf(args), Out: Reply{Proto: 2}}
			pfcount(c)
			if want := h.model.do(c.Args...); !bytes.Equal(c.Out.Buf, want) {
				t.Fatalf("seed %d: %q: got %q, want %q", seed, args, c.Out.Buf, want)
			}
		}
	}
}

// TestHyperLogLogPatch makes sure that patching the dense string does what
// making it anew does.
func TestHyperLogLogPatch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	blocks := map[string][]byte{"": {1}}
	each := func(fn func(string, []byte) bool) {
		for e, v := range blocks {
			fn(e, v)
		}
	}
	s := HyperLogLogString(each)
	for range 2000 {
		e := string([]byte{byte(rng.IntN(256))})
		v := make([]byte, rng.IntN(hllBlock+1))
		for i := range v {
			v[i] = byte(rng.IntN(52))
		}
		blocks[e] = v
		at, p := HyperLogLogPatch(e, v)
		copy(s[at:], p)
	}
	if !bytes.Equal(s, HyperLogLogString(each)) {
		t.Error("patched and made anew differ")
	}
}

// TestHyperLogLogBroken: strings that look like HyperLogLogs and are none.
func TestHyperLogLogBroken(t *testing.T) {
	h := newHarness(t, 1)
	for _, change := range [][]string{
		{"APPEND", "k", "hello"}, {"APPEND", "k", "\x41"}, {"SETRANGE", "k", "0", "0123"}, {"SETRANGE", "k", "4", "x"}, {"SETRANGE", "k", "4", "\x00"},
	} {
		h.run("DEL", "k")
		h.run("PFADD", "k", "a", "b", "c")
		h.run(change...)
		h.run("PFCOUNT", "k")
		h.run("PFMERGE", "d", "k")
		h.run("PFADD", "k")
	}
	h.run("SET", "k", "HYLL")
	h.run("PFADD", "k", "a")
	h.run("SET", "k", "12345")
	h.run("PFADD", "k", "a")
	h.run("PFDEBUG", "ENCODING", "none")
}

// FuzzHyperLogLogParse: whatever the string, parsing ends, and what is taken in
// comes out the same.
func FuzzHyperLogLogParse(f *testing.F) {
	f.Add([]byte{0x7f, 0xff})
	f.Add([]byte{0x80, 0x7f, 0xfe})
	f.Add([]byte("\x3f\xff\x41"))
	f.Fuzz(func(t *testing.T, p []byte) {
		s := append([]byte("HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80"), p...)
		var a, b hyperLogLog
		if !a.parse(s) {
			return
		}
		if form := hllForm(s); !b.parse(form) || a.regs != b.regs {
			t.Fatalf("%x became %x", s, form)
		}
	})
}

// TestCopyKeepsElements: what is under a key of any type goes with it, element
// for element.
func TestCopyKeepsElements(t *testing.T) {
	for kind, elems := range map[crdt.Kind]map[string]string{
		crdt.KindScored:    {"m": "1.5", "n": "inf"},
		crdt.KindItem:      {"\x01pos": "a", "\x02pos": "a"},
		crdt.KindRegisters: {"": "\x01", "\x05": "\x01\x02"},
		crdt.KindEntry:     {"id1": "f v", "id2": ""},
	} {
		for _, request := range []string{"RENAME from to", "COPY from to REPLACE", "MOVE from 1"} {
			w := newTwin(t, 1)
			from, to := crdt.Key{Name: "from"}, crdt.Key{Name: "to"}
			for e, v := range elems {
				w.writer.SetElem(from, kind, e, []byte(v))
			}
			if strings.HasPrefix(request, "MOVE") {
				to = crdt.Key{DB: 1, Name: "from"}
			} else {
				w.writer.SetString(to, []byte("old"), false)
			}
			w.cells(0, bytesOf(strings.Fields(request)))
			got := map[string]string{}
			w.writer.EachElem(to, kind, func(e string, v []byte) bool { got[e] = string(v); return true })
			if fmt.Sprint(got) != fmt.Sprint(elems) {
				t.Errorf("%s of %s: %q, want %q", request, kind.Name(), got, elems)
			}
			if w.writer.Type(from) != crdt.TypeNone != strings.HasPrefix(request, "COPY") {
				t.Errorf("%s of %s: the source is %v", request, kind.Name(), w.writer.Type(from))
			}
		}
	}
}
