package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strings"
)

// expected maps tests that are known to fail to reasons.
type expected struct {
	reasons map[string]string // by "unit: name"; "unit: *" is a whole unit
	met     map[string]bool
	leftOut map[string][]string // by unit
}

// readExpected reads a file of sections, each a line "= reason" and below it
// lines "unit: test name". One that begins with "! " leaves settings behind that
// fail those after it: it is not run, and counts as failed. Lines with # and
// empty ones are passed over.
func readExpected(path string) (*expected, error) {
	e := &expected{reasons: map[string]string{}, met: map[string]bool{}, leftOut: map[string][]string{}}
	if path == "" {
		return e, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	reason := ""
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, "= "):
			reason = line[2:]
		case reason == "" || !strings.Contains(line, ": "):
			return nil, fmt.Errorf("%s:%d: neither \"= reason\" nor \"unit: test\" below one: %s", path, n, line)
		default:
			if test, leave := strings.CutPrefix(line, "! "); leave {
				line = test
				unit, name, _ := strings.Cut(line, ": ")
				e.leftOut[unit] = append(e.leftOut[unit], name)
			}
			e.reasons[line] = reason
		}
	}
	return e, lines.Err()
}

// reason says why a test is expected to fail, or "".
func (e *expected) reason(unit, test string) string {
	for _, key := range []string{unit + ": " + test, unit + ": *"} {
		if r := e.reasons[key]; r != "" {
			e.met[key] = true
			return r
		}
	}
	return ""
}

// report prints and sums up.
type report struct {
	w             io.Writer
	exp           *expected
	verbose       bool
	plain, passed int
	unexpected    int
	ran           map[string]bool
	lists         []string // of what failed, by unit
}

func newReport(w io.Writer, exp *expected, verbose bool) *report {
	fmt.Fprintf(w, "%-24s %6s %6s %7s %10s\n", "unit", "plain", "node", "failed", "unexpected")
	return &report{w: w, exp: exp, verbose: verbose, ran: map[string]bool{}}
}

// notRun is the message of a test that a node did not come to.
const notRun = "(not run)"

// lost is what passes on plain Redis and not through the node. A name that is
// there more than once counts so often.
func lost(plain, node result) []failure {
	have := map[string]int{}
	for _, name := range node.Passed {
		have[name]++
	}
	why := map[string]string{}
	for _, f := range append(node.endings(), node.Failed...) {
		why[f.Name] = f.Message
	}
	var out []failure
	for _, name := range plain.Passed {
		if have[name]--; have[name] >= 0 {
			continue
		}
		message, known := why[name]
		if !known {
			message = notRun
		}
		out = append(out, failure{name, message})
	}
	return out
}

func (r *report) unit(unit string, plain, node result) {
	r.ran[unit] = true
	failed := lost(plain, node)
	unexpected := 0
	var list strings.Builder
	for _, f := range failed {
		message := f.Message
		if !r.verbose {
			message = firstLine(message)
		}
		mark := "expected: "
		if r.exp.reason(unit, f.Name) == "" {
			mark = ""
			unexpected++
		}
		if message == notRun {
			fmt.Fprintf(&list, "  %s%s: %s %s\n", mark, unit, f.Name, notRun)
			continue
		}
		fmt.Fprintf(&list, "  %s%s: %s\n      %s\n", mark, unit, f.Name, strings.ReplaceAll(message, "\n", "\n      "))
	}
	r.plain += len(plain.Passed)
	r.passed += len(plain.Passed) - len(failed)
	r.unexpected += unexpected
	note := ""
	if node.Ended != "" {
		note = fmt.Sprintf("  ended in %q: %s", node.Last, firstLine(node.Ended))
	}
	if plain.Ended != "" {
		note += "  plain Redis: " + firstLine(plain.Ended)
	}
	fmt.Fprintf(r.w, "%-24s %6d %6d %7d %10d%s\n", unit, len(plain.Passed), len(plain.Passed)-len(failed), len(failed), unexpected, note)
	r.lists = append(r.lists, list.String())
}

// finish prints totals and lists, and says whether all failures were expected.
func (r *report) finish() bool {
	percent := 100.0
	if r.plain > 0 {
		percent = 100 * float64(r.passed) / float64(r.plain)
	}
	fmt.Fprintf(r.w, "%-24s %6d %6d %7d %10d  %.2f %%\n", "total", r.plain, r.passed, r.plain-r.passed, r.unexpected, percent)
	if r.passed < r.plain {
		fmt.Fprintln(r.w, "\nPass on plain Redis and not through the node:")
		for _, l := range r.lists {
			fmt.Fprint(r.w, l)
		}
	}
	var stale []string
	for key := range r.exp.reasons {
		unit, _, _ := strings.Cut(key, ": ")
		if r.ran[unit] && !r.exp.met[key] {
			stale = append(stale, key)
		}
	}
	if sort.Strings(stale); len(stale) > 0 {
		fmt.Fprintln(r.w, "\nExpected to fail, and did not:")
		for _, key := range stale {
			fmt.Fprintln(r.w, " ", key)
		}
	}
	return r.unexpected == 0
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	if len(line) > 300 {
		line = line[:300] + "…"
	}
	return line
}
