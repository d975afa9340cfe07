package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	out := "Starting test server at port 21079\n" +
		"[ready]: 4711\n" +
		"Testing unit/type/set\n" +
		"\x1b[0;32;49m[ok]\x1b[0m is not at the start of a line\n" +
		"[\x1b[0;32;49mok\x1b[0m]: SADD basics (12 ms)\n" +
		"[ok]: named (3 ms) (0 ms)\n" +
		"[err]: SADD in error in tests/unit/type/set.tcl\n" +
		"Expected '1' to be equal to '2' (context: x)\n" +
		"[err]: SPOP fails in tests/unit/type/set.tcl\n" +
		"orted command\n" +
		"ERR unsupported command\n" +
		"    while executing\n" +
		"\"r spop\"\n" +
		"[ignore]: Tag: needs:repl denied\n" +
		"[ok]: last (1 ms)\n" +
		"[1/1 done]: unit/type/set (1 seconds)\n\n                   The End\n\n*** [err]: again\n"
	r := parse(strings.NewReader(out))
	if !slices.Equal(r.Passed, []string{"SADD basics", "named (3 ms)", "last"}) || r.Ended != "" {
		t.Errorf("passed %q, ended %q", r.Passed, r.Ended)
	}
	if len(r.Failed) < 2 || r.Failed[0] != (failure{"SADD in error", "Expected '1' to be equal to '2' (context: x)"}) {
		t.Fatalf("failed %q", r.Failed)
	}
	if f := r.Failed[1]; f.Name != "SPOP fails" || !strings.HasPrefix(f.Message, "ERR unsupported command\n") {
		t.Errorf("failed %q", f)
	}
}

func TestParseEnded(t *testing.T) {
	for _, c := range []struct{ out, ended, last string }{
		{"[ok]: a (1 ms)\n[exception]: Executing test client: ERR no.\nERR no\n    while executing\n\"test {b c} {\n r x\n} {}\"\n",
			"Executing test client: ERR no.", "b c"},
		{"[ok]: a (1 ms)\n[TIMEOUT]: clients state report follows.\nsock5571 => (IN PROGRESS) b\nKilling\n\n                   The End\n", "no progress", "b"},
		{"[ok]: a (1 ms)\n", "the suite ended without a word", ""},
	} {
		r := parse(strings.NewReader(c.out))
		if firstLine(r.Ended) != c.ended || r.Last != c.last || !slices.Equal(r.Passed, []string{"a"}) {
			t.Errorf("%q: ended %q in %q, passed %q", c.out, r.Ended, r.Last, r.Passed)
		}
	}
}

// TestReport makes sure that what did not run has failed, that a name counts as
// often as it is there, and that reasons are looked up.
func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "expected")
	if err := os.WriteFile(path, []byte("# note\n= a reason\n! u: two\nu: gone\nv: *\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	exp, err := readExpected(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := exp.leftOut["u"]; !slices.Equal(got, []string{"two"}) || len(exp.leftOut) != 1 {
		t.Errorf("left out: %q", exp.leftOut)
	}
	var out bytes.Buffer
	r := newReport(&out, exp, false)
	r.unit("u", result{Passed: []string{"one", "one", "two", "three"}, Failed: []failure{{"four", "fails on both"}}},
		result{Passed: []string{"one"}, Failed: []failure{{"one", "wrong"}, {"two", "why"}, {"four", "x"}}, Ended: "no progress", Last: "two"})
	r.unit("v", result{Passed: []string{"x"}}, result{Ended: "did not start"})
	if r.finish() || r.plain != 5 || r.passed != 1 || r.unexpected != 2 {
		t.Errorf("plain %d, passed %d, unexpected %d", r.plain, r.passed, r.unexpected)
	}
	for _, want := range []string{"20.00 %", "  u: one\n      wrong\n", "  expected: u: two\n      why\n", "  u: three (not run)\n", "did not:\n  u: gone\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
	if err := os.WriteFile(path, []byte("u: two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readExpected(path); err == nil {
		t.Error("took a test without a reason")
	}
}
