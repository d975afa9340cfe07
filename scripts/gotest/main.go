// Command gotest runs "go test -json" and prints what a reader wants of it: one line per
// package, the whole output of what failed, and what was skipped. It counts tests for scripts/check.
//
//	gotest [-totals FILE] [-noskip] [-show] [-nonempty] -- go-test-arguments…
//
// Subtests count as tests; a package that fails outside a test counts as one
// failed test. The exit code is 0 only if everything passed.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
)

// event is one line of go test -json (see go doc test2json), and of the build
// output among them.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
	FailedBuild                               string
}

// tally counts tests.
type tally struct{ Passed, Failed, Skipped int }

// options are the flags.
type options struct {
	noSkip   bool // a skipped test is a failure
	show     bool // print all output
	nonEmpty bool // no test at all is a failure
}

func main() {
	totals := flag.String("totals", "", "file with the counts so far; this run's are added")
	var opts options
	flag.BoolVar(&opts.noSkip, "noskip", false, "count a skipped test as failed")
	flag.BoolVar(&opts.show, "show", false, "print all output, not only that of failures")
	flag.BoolVar(&opts.nonEmpty, "nonempty", false, "fail if no test ran")
	flag.Parse()

	cmd := exec.Command("go", append([]string{"test", "-json"}, flag.Args()...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
	t := report(out, os.Stdout, opts)
	if err := cmd.Wait(); err != nil && t.Failed == 0 {
		fmt.Println("go test:", err)
		t.Failed++
	}
	if opts.nonEmpty && t.Passed+t.Failed == 0 {
		fmt.Println("no test ran")
		t.Failed++
	}
	if err := addTotals(*totals, t); err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
	if t.Failed > 0 {
		os.Exit(1)
	}
}

// report prints and counts the events of one run.
func report(r io.Reader, w io.Writer, opts options) tally {
	var t tally
	output := map[string][]string{} // of what still runs, by package and test
	failedIn := map[string]int{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(w, "%s", line)
			} else {
				t.take(e, w, opts, output, failedIn)
			}
		}
		if err != nil {
			return t
		}
	}
}

func (t *tally) take(e event, w io.Writer, opts options, output map[string][]string, failedIn map[string]int) {
	name := e.Package + " " + e.Test
	flush := func() {
		for _, s := range output[name] {
			fmt.Fprint(w, s)
		}
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(w, e.Output)
	case "output":
		if opts.show {
			fmt.Fprint(w, e.Output)
		} else if e.Test != "" || !strings.HasPrefix(e.Output, "=== ") {
			output[name] = append(output[name], e.Output)
		}
		return
	case "pass", "fail", "skip":
		switch {
		case e.Test == "":
			t.takePackage(e, w, opts, output[name], failedIn[e.Package])
		case e.Action == "pass":
			t.Passed++
		case e.Action == "fail":
			t.Failed++
			failedIn[e.Package]++
			if !opts.show {
				fmt.Fprintf(w, "--- FAIL: %s\n", name)
				flush()
			}
		default:
			t.Skipped++
			if !opts.show {
				flush()
			}
			if opts.noSkip {
				fmt.Fprintf(w, "--- SKIP is not allowed here: %s\n", name)
				t.Failed++
				failedIn[e.Package]++
			}
		}
	default:
		return
	}
	delete(output, name)
}

// takePackage prints the line of a package: "ok", "FAIL" or, for one without
// tests, nothing.
func (t *tally) takePackage(e event, w io.Writer, opts options, output []string, failed int) {
	if e.Action == "fail" && failed == 0 { // a build failure, a panic, os.Exit
		t.Failed++
		for _, s := range output {
			if !opts.show {
				fmt.Fprint(w, s)
			}
		}
		return
	}
	if opts.show || e.Action == "skip" {
		return
	}
	for _, s := range output {
		if strings.HasPrefix(s, "ok") || strings.HasPrefix(s, "FAIL\t") {
			fmt.Fprint(w, s)
		}
	}
}

// addTotals adds t to the counts in the file, "passed failed skipped".
func addTotals(path string, t tally) error {
	if path == "" {
		return nil
	}
	var was tally
	text, err := os.ReadFile(path)
	if err == nil {
		_, err = fmt.Sscan(string(text), &was.Passed, &was.Failed, &was.Skipped)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := fmt.Sprintln(was.Passed+t.Passed, was.Failed+t.Failed, was.Skipped+t.Skipped)
	return os.WriteFile(path, []byte(now), 0o600)
}
