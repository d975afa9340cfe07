package sim

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	seedFlag    = flag.Uint64("seed", 0, "the seed that TestSeed runs")
	optionsFlag = flag.String("options", "", "the options that TestSeed runs, as a failure prints them; what is left out is as the seed has it")
	shrinkFlag  = flag.Bool("shrink", false, "TestSeed looks for the simplest options that fail")
	linesFlag   = flag.Int("history", 0, "lines of history that TestSeed prints of a run that passes")
)

// The runs that once found something.
func TestRegressions(t *testing.T) {
	text, err := os.ReadFile("testdata/seeds.txt")
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	for _, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		o, err := ParseOptions(line)
		if err != nil {
			t.Fatal(err)
		}
		runs++
		t.Run(line, func(t *testing.T) {
			if _, err := Run(o); err != nil {
				t.Fatal(err)
			}
		})
	}
	if runs == 0 {
		t.Fatal("no regressions in testdata/seeds.txt")
	}
}

// freshSeeds is how many new seeds a test run tries, unless the environment
// says otherwise.
const freshSeeds = 50

// firstSeed returns a new seed, unless the environment says which.
func firstSeed(t *testing.T) uint64 {
	first := uint64(rand.Uint32()) << 16
	if s := os.Getenv("REPLICATORD_SIM_FIRST"); s != "" {
		var err error
		if first, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return first
}

// Seeds nobody has tried. REPLICATORD_SIM_SEEDS says how many, and
// REPLICATORD_SIM_FIRST the first, if it is not to be a new one.
func TestFresh(t *testing.T) {
	n := uint64(freshSeeds)
	if s := os.Getenv("REPLICATORD_SIM_SEEDS"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 32); err != nil {
			t.Fatal(err)
		}
	}
	first := firstSeed(t)
	counts, failed := map[string]int{}, 0
	begun := time.Now()
	for seed := first; seed < first+n; seed++ {
		r, err := Run(FromSeed(seed))
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
			if failed++; failed == 12 {
				t.Fatal("that will do")
			}
			continue
		}
		for k, v := range r.Counts {
			counts[k] += v
		}
		counts["events"] += r.Events
		counts["writes"] += r.Commands
		counts["virtual seconds"] += int(r.Took.Seconds())
	}
	t.Logf("%d seeds from %d on in %v", n, first, time.Since(begun).Round(time.Millisecond))
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%9d %s", counts[k], k)
	}
}

// State syncs by difference: logs that keep little, and nodes that are away,
// lose their disks or come back with old ones. The seeds are always the same,
// unless the environment names others.
func TestSyncsByDifference(t *testing.T) {
	n, first := uint64(freshSeeds), uint64(1)
	if os.Getenv("REPLICATORD_SIM_FIRST") != "" {
		first = firstSeed(t)
		var err error
		if n, err = strconv.ParseUint(os.Getenv("REPLICATORD_SIM_SEEDS"), 10, 32); err != nil {
			t.Fatal(err)
		}
	}
	counts := map[string]int{}
	for seed := first; seed < first+n; seed++ {
		o := FromSeed(seed)
		o.Difference = true
		o.Faults |= Lapse | Partition | Kill | Cut
		if seed%2 == 0 {
			o.Faults |= Wipe | Restore
		}
		o.Keys, o.Steps = max(o.Keys, 3), max(o.Steps, 80)
		o.Trouble = o.Pace * time.Duration(o.Steps) / 8
		r, err := Run(o)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for k, v := range r.Counts {
			counts[k] += v
		}
	}
	for _, k := range []string{"state syncs", "keys synced", "ranges left out of a sync", "ranges asked about", "buckets told by ranges"} {
		t.Logf("%d seeds from %d on: %d %s", n, first, counts[k], k)
		if counts[k] == 0 {
			t.Errorf("no %s in %d runs: this tests nothing", k, n)
		}
	}
}

// Five nodes in each shape, with every fault that a shape can bear: what one
// writes reaches all, however long the way is.
func TestShapes(t *testing.T) {
	for shape := range endOfShapes {
		t.Run(shape.String(), func(t *testing.T) {
			first := firstSeed(t)
			for seed := first; seed < first+3; seed++ {
				o := FromSeed(seed)
				o.Nodes = 5
				o.SetShape(shape)
				if _, err := Run(o); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// One run, by -seed or -options.
func TestSeed(t *testing.T) {
	o := FromSeed(*seedFlag)
	if *optionsFlag != "" {
		var err error
		if o, err = ParseOptions(*optionsFlag); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("options: %v", o)
	r, err := Run(o)
	if err == nil {
		t.Logf("%d events, %v, %d writes, digest %x, %v", r.Events, r.Took, r.Commands, r.Digest, r.Counts)
		if n := min(*linesFlag, len(r.History)); n > 0 {
			t.Log("\n" + strings.Join(r.History[len(r.History)-n:], "\n"))
		}
		return
	}
	if *shrinkFlag {
		_, err = shrink(o, err)
	}
	t.Fatal(err)
}

// shrink looks for the simplest options that fail.
func shrink(o Options, err error) (Options, error) {
	for again := true; again; {
		again = false
		for _, c := range o.Simpler() {
			// Another chance each, for what is left out changes what follows.
			for i := range uint64(6) {
				c.Seed = o.Seed + i
				if _, e := Run(c); e != nil {
					o, err, again = c, e, true
					fmt.Println("fails too:", c)
					break
				}
			}
			if again {
				break
			}
		}
	}
	return o, err
}

// A seed determines a run, to the last line of its history.
func TestDeterministic(t *testing.T) {
	for seed := range uint64(10) {
		o := FromSeed(seed)
		a, errA := Run(o)
		b, errB := Run(o)
		if errA != nil || errB != nil {
			t.Fatal(errors.Join(errA, errB))
		}
		if a.Digest != b.Digest || a.Events != b.Events {
			for i := range min(len(a.History), len(b.History)) {
				if a.History[i] != b.History[i] {
					t.Fatalf("seed %d: two runs part at line %d:\n%s\n%s", seed, i, a.History[i], b.History[i])
				}
			}
			t.Fatalf("seed %d: two runs differ: %d and %d events, %d and %d lines", seed, a.Events, b.Events, len(a.History), len(b.History))
		}
	}
}

func TestOptionsRoundTrip(t *testing.T) {
	for seed := range uint64(100) {
		o := FromSeed(seed)
		back, err := ParseOptions(o.String())
		if err != nil || back != o {
			t.Fatalf("%v became %v: %v", o, back, err)
		}
	}
	for _, bad := range []string{"", "nodes", "seed=1,colour=red", "seed=x", "seed=1,faults=rain", "nodes=3,seed=1"} {
		if _, err := ParseOptions(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
