package main

import (
	"path/filepath"
	"strings"
	"testing"
)

const run = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"all is well\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"b.go:1: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestC","Output":"--- SKIP: TestC\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
{"Action":"output","Package":"q","Output":"ok  \tq\t0.1s\n"}
{"Action":"pass","Package":"q"}
{"Action":"output","Package":"r","Output":"?   \tr\t[no test files]\n"}
{"Action":"skip","Package":"r"}
{"Action":"build-output","ImportPath":"s","Output":"s.go:1: undefined: x\n"}
{"Action":"output","Package":"s","Output":"FAIL\ts [build failed]\n"}
{"Action":"fail","Package":"s"}
not json
`

func TestReport(t *testing.T) {
	var out strings.Builder
	if got, want := report(strings.NewReader(run), &out, options{}), (tally{Passed: 1, Failed: 2, Skipped: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	want := `--- FAIL: p TestB
b.go:1: wrong
--- SKIP: TestC
FAIL	p	0.1s
ok  	q	0.1s
s.go:1: undefined: x
FAIL	s [build failed]
not json
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
	if got := report(strings.NewReader(run), &out, options{noSkip: true}); got.Failed != 3 {
		t.Errorf("a skip that is not allowed: %+v", got)
	}
}

func TestAddTotals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "totals")
	for range 2 {
		if err := addTotals(path, tally{Passed: 3, Failed: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := addTotals(filepath.Join(t.TempDir(), "no", "such"), tally{}); err == nil {
		t.Error("no error for a file that cannot be written")
	}
}
