// Command redissuite runs the test suite of Redis 7.0, unit by unit and in its
// external mode, against a plain redis-server and against a node, and prints
// both side by side. scripts/redis-suite builds and starts it.
//
//	redissuite -node BINARY [flags] /path/to/redis-7.0
//
// A test counts if it passes on plain Redis. Names are compared, so that a test
// which a node never came to, because its unit ended early, has failed. The exit
// code is 0 if every test that counts passes through the node or is listed in
// the file of expected failures; 1 if not; 2 if the suite could not be run.
//
// The given directory is only read: the suite runs from a copy.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// defaultUnits are the units whose subject is what clients see. The others test
// files, replicas, memory limits and the cluster of Redis itself.
const defaultUnits = "type/string,type/incr,type/hash,type/set,type/zset,type/list,type/list-2,type/list-3," +
	"type/stream,type/stream-cgroups,expire,keyspace,scan,multi,pubsub,bitops,bitfield,geo,hyperloglog,sort,dump," +
	"scripting,functions,tracking,introspection,introspection-2,info-command,protocol,quit,other,lazyfree,pause," +
	"querybuf,replybufsize,slowlog,latency-monitor"

func main() {
	s := suite{stop: make(chan struct{})}
	var units, expectedPath, plainPath string
	var verbose bool
	flag.StringVar(&s.node, "node", "", "the replicatord binary")
	flag.StringVar(&s.redis, "redis-server", "redis-server", "the plain Redis to compare with, also behind the node: version 7.0")
	flag.StringVar(&units, "units", defaultUnits, "units to run, separated by commas, as named below tests/unit")
	flag.StringVar(&expectedPath, "expected", "", "file of tests that are known to fail, with reasons")
	flag.StringVar(&plainPath, "plain", "", "file with results of plain Redis: used for the units in it, and completed by the others")
	flag.DurationVar(&s.limit, "limit", 10*time.Minute, "time for a unit")
	flag.DurationVar(&s.stall, "stall", 2*time.Minute, "time without progress after which a unit is ended")
	flag.StringVar(&s.only, "only", "", "run only the test with this name, or those that match /regexp")
	flag.BoolVar(&s.tail, "resume", false, "for development: begin a unit again without the test that ended it, and do without FUNCTION FLUSH")
	flag.Func("node-arg", "a further argument of the node; may be repeated", func(a string) error {
		s.nodeArgs = append(s.nodeArgs, a)
		return nil
	})
	flag.StringVar(&s.keep, "keep", "", "directory for the output of the suite and the logs of the node")
	flag.BoolVar(&verbose, "v", false, "print whole messages of failed tests")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: scripts/redis-suite [flags] /path/to/redis-7.0")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || s.node == "" {
		flag.Usage()
		os.Exit(2)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		close(s.stop)
	}()
	ok, err := run(&s, flag.Arg(0), strings.Split(units, ","), expectedPath, plainPath, verbose)
	if err != nil {
		fmt.Fprintln(os.Stderr, "redissuite:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run runs the units and reports; false means that something failed unexpectedly.
func run(s *suite, source string, units []string, expectedPath, plainPath string, verbose bool) (bool, error) {
	exp, err := readExpected(expectedPath)
	if err != nil {
		return false, err
	}
	plain := map[string]result{}
	if plainPath != "" {
		text, err := os.ReadFile(plainPath)
		if err == nil {
			err = json.Unmarshal(text, &plain)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	if err := s.prepare(source); err != nil {
		return false, err
	}
	defer os.RemoveAll(s.dir)
	rep := newReport(os.Stdout, exp, verbose)
	for _, unit := range units {
		unit = strings.TrimPrefix(strings.TrimSpace(unit), "unit/")
		if _, err := os.Stat(filepath.Join(s.dir, "tests/unit", unit+".tcl")); err != nil {
			return false, fmt.Errorf("there is no unit %q in %s", unit, source)
		}
		p, known := plain[unit]
		if !known {
			if p, err = s.runPlain(unit); err != nil {
				return false, fmt.Errorf("plain Redis, %s: %w", unit, err)
			}
			plain[unit] = p
			if err := writeJSON(plainPath, plain); err != nil {
				return false, err
			}
		}
		n, err := s.runNode(unit, p, exp.leftOut[unit])
		if errors.Is(err, errStopped) {
			return false, err
		} else if err != nil {
			n = result{Ended: err.Error()}
		}
		rep.unit(unit, p, n)
	}
	return rep.finish(), nil
}

func writeJSON(path string, v any) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}
