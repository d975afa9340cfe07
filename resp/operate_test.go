package resp

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// pairs reads a reply in RESP2 of names and values in turn.
func pairs(reply string) map[string]string {
	lines := strings.Split(reply, "\r\n")
	out := map[string]string{}
	for i := 2; i+2 < len(lines); i += 4 {
		out[lines[i]] = lines[i+2]
	}
	return out
}

// Every parameter can be set to what it is, but for those that Redis does not
// let be set either; and none is missing that Redis has.
func TestEveryParameter(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	all := pairs(c.do("CONFIG", "GET", "*"))
	for name, value := range all {
		got := c.do("CONFIG", "SET", name, value)
		if p := parameters[name]; got != "+OK\r\n" && (p.set != nil || !strings.Contains(got, "can't set immutable config")) {
			t.Errorf("%s %q: %q", name, value, got)
		}
	}
	if again := pairs(c.do("CONFIG", "GET", "*")); len(again) != len(all) {
		t.Errorf("%d parameters, %d before", len(again), len(all))
	} else {
		for name, value := range all {
			if again[name] != value {
				t.Errorf("%s was %q and is %q", name, value, again[name])
			}
		}
	}
	redis := dial(t, "unix", realRedis(t))
	for name := range pairs(redis.do("CONFIG", "GET", "*")) {
		if _, ok := all[name]; !ok && !secretParameters[name] {
			t.Errorf("no parameter %s", name)
		}
	}
	for _, name := range []string{"requirepass", "masterauth", "key-load-delay"} {
		if _, shown := all[name]; shown {
			t.Errorf("%s is shown to who does not ask for it", name)
		}
		if got := pairs(c.do("CONFIG", "GET", name)); len(got) != 1 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// CONFIG SET takes all or nothing, and refuses as Redis does.
func TestConfigSetAsRedis(t *testing.T) {
	a, ts := dial(t, "unix", realRedis(t)), start(t, nil)
	b := ts.dial()
	for _, line := range strings.Split(strings.TrimSpace(`
config set maxmemory 10000001 repl-backlog-size 10000002 save "3000 5"
config get maxmemory repl-backlog-size save
config set maxmemory 10000002
config set maxmemory 10000001 maxmemory-clients 200% client-query-buffer-limit invalid
config get maxmemory
config set maxmemory 1 maxmemory 2
config set daemonize yes
config set daemonize yes nosuch 1
config set nosuch 1 daemonize yes
config set maxmemory x nosuch 1
config set maxmemory x
config set maxmemory 1kb
config get maxmemory
config set maxmemory 0
config set slave-priority 5 replica-priority 6
config set slave-priority 5
config get *-priority
config set appendonly maybe
config set appendfsync sometimes
config set save "1"
config set save "0 1"
config set save "x 1"
config set save ""
config get save
config set hz x
config set shutdown-on-sigterm "nosave now"
config get shutdown-on-*
config set shutdown-on-sigterm foo
config set shutdown-on-sigterm default
config set latency-tracking maybe
config set latency-tracking-info-percentiles "0.0 50.0 100.0"
config get latency-tracking*
config set latency-tracking-info-percentiles "10.0 50.0 101.0"
config set latency-tracking-info-percentiles ""
config get latency-tracking*
config set latency-monitor-threshold -1
config set latency-monitor-threshold 5
config get latency-monitor-threshold
config set acllog-max-len -1
config set maxmemory-samples 0
config set min-replicas-to-write 0
config get min-slaves-to-write slaveof replicaof
config set propagation-error-behavior x
config rewrite x
`), "\n") {
		args := words(t, line)
		want, got := a.do(args...), b.do(args...)
		if strings.HasPrefix(line, "config get") {
			want, got = sortedWords(want), sortedWords(got)
		}
		if want != got {
			t.Errorf("%s:\n got %q\nwant %q", line, got, want)
		}
	}
	if got := b.do("CONFIG", "SET", "port", "1"); !strings.Contains(got, "Unable to listen on this port") {
		t.Errorf("port: %q", got)
	}
	b.want("-ERR unsupported command 'config rewrite': the configuration file is the operator's: change it there\r\n", "CONFIG", "REWRITE")
}

// Where fewer members are level than min-replicas-to-write, what only reads goes
// on, and what writes is refused as by a Redis without replicas.
func TestMinReplicasAsRedis(t *testing.T) {
	ts := start(t, nil)
	d, other := newDuo(t, ts, realRedis(t)), (*duo)(nil)
	other = newDuo(t, ts, d.to.RemoteAddr().String())
	d.same(1, "set k v")
	for _, line := range []string{"multi", "get k", "set k w"} {
		d.same(1, line)
	}
	for _, line := range strings.Split(strings.TrimSpace(`
config set min-replicas-to-write -1
config set min-slaves-to-write 2 min-replicas-max-lag 5
config get min-slaves-to-write
config get min-replicas-max-lag
get k
set k w
del k
multi
get k
exec
multi
set k w
exec
config set min-replicas-max-lag 0
set k x
config set min-replicas-max-lag 10
`), "\n") {
		other.same(1, line)
	}
	d.same(1, "exec")
	d.same(1, "get k")
	ts.mem.level.Store(2)
	eventually(t, "the members are seen", func() bool { return d.ours.do("set", "k", "y") == "+OK\r\n" })
	ts.mem.level.Store(1)
	eventually(t, "one is seen to be away", func() bool { return strings.HasPrefix(d.ours.do("set", "k", "z"), "-NOREPLICAS") })
	other.same(1, "config set min-replicas-to-write 0")
	d.same(1, "set k v")
}

// A histogram tells durations to 1 %, and percentiles as if all were sorted.
func TestHistogram(t *testing.T) {
	for i := range histBuckets {
		if end := bucketEnd(i); bucketOf(end) != i || i+1 < histBuckets && bucketOf(end+1) != i+1 {
			t.Fatalf("bucket %d ends at %d", i, end)
		}
	}
	if bucketOf(1<<62) != histBuckets-1 || bucketOf(-1) != 0 {
		t.Error("what is too long or too short")
	}
	var h histogram
	if h.percentiles([]float64{50}) != "" {
		t.Error("percentiles of nothing")
	}
	for i := range 1000 {
		h.add(1, time.Duration(i+1)*time.Microsecond)
	}
	for _, p := range strings.Split(h.percentiles([]float64{0, 50, 99, 99.9, 100}), ",") {
		name, value, _ := strings.Cut(p, "=")
		want := map[string]float64{"p0": 1, "p50": 500, "p99": 990, "p99.9": 999, "p100": 1000}[name]
		if got, _ := strconv.ParseFloat(value, 64); got < want || got > 1.01*want+0.01 {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	steps, sum := h.doublings()
	if sum != 1000 || len(steps) != 11 || steps[0] != [2]int64{1, 1} || steps[5] != [2]int64{33, 33} || steps[10][1] != 1000 {
		t.Errorf("%d: %v", sum, steps)
	}
	h.reset()
	if _, sum := h.doublings(); sum != 0 {
		t.Error("not reset")
	}
}

// LATENCY tells what commands took, and keeps events that took long.
func TestLatency(t *testing.T) {
	ts := start(t, func(o *Options) { o.DebugCommand = DebugYes })
	c := ts.dial()
	c.want("*0\r\n", "LATENCY", "HISTOGRAM", "set", "nosuch")
	c.do("SET", "k", "v")
	c.do("SET", "k", "v")
	c.do("CLIENT", "ID")
	if got := c.do("LATENCY", "HISTOGRAM", "set"); !strings.HasPrefix(got, "*2\r\n$3\r\nset\r\n*4\r\n$5\r\ncalls\r\n:2\r\n$14\r\nhistogram_usec\r\n*") {
		t.Errorf("%q", got)
	}
	if got := c.do("LATENCY", "HISTOGRAM", "client"); !strings.HasPrefix(got, "*2\r\n$9\r\nclient|id\r\n") {
		t.Errorf("%q", got)
	}
	if got := c.do("INFO", "latencystats"); !strings.Contains(got, "latency_percentiles_usec_set:p50=") || !strings.Contains(got, ",p99.9=") {
		t.Errorf("%q", got)
	}
	c.want("+OK\r\n", "CONFIG", "SET", "latency-tracking", "no")
	c.want("+OK\r\n", "CONFIG", "RESETSTAT")
	c.do("SET", "k", "v")
	c.want("*0\r\n", "LATENCY", "HISTOGRAM")

	c.want("*0\r\n", "LATENCY", "LATEST")
	c.want("+OK\r\n", "CONFIG", "SET", "latency-monitor-threshold", "20")
	c.want("+OK\r\n", "DEBUG", "SLEEP", "0.03")
	if got := c.do("LATENCY", "LATEST"); !strings.HasPrefix(got, "*1\r\n*4\r\n$7\r\ncommand\r\n:") {
		t.Errorf("%q", got)
	}
	if got := c.do("LATENCY", "HISTORY", "command"); !strings.HasPrefix(got, "*1\r\n*2\r\n:") {
		t.Errorf("%q", got)
	}
	c.want("*0\r\n", "LATENCY", "HISTORY", "nosuch")
	c.want("-ERR No samples available for event 'nosuch'\r\n", "LATENCY", "GRAPH", "nosuch")
	if got := c.do("LATENCY", "GRAPH", "command"); !strings.Contains(got, "command - high ") || !strings.Contains(got, "#") {
		t.Errorf("%q", got)
	}
	if got := c.do("LATENCY", "DOCTOR"); !strings.Contains(got, "1. command: ") {
		t.Errorf("%q", got)
	}
	for i := range 2 * latencySamples {
		ts.latency.add("e", latencySample{int64(i), int64(rand.IntN(9)) + 1})
	}
	if n := len(ts.latency.all()["e"].samples); n != latencySamples {
		t.Errorf("%d samples", n)
	}
	c.want(":0\r\n", "LATENCY", "RESET", "nosuch")
	c.want(":1\r\n", "LATENCY", "RESET", "e", "nosuch")
	c.want(":1\r\n", "LATENCY", "RESET")
	c.want("*0\r\n", "LATENCY", "LATEST")
}

// DEBUG is nobody's unless allowed; what it then does is what Redis does.
func TestDebugAsRedis(t *testing.T) {
	redis := dial(t, "unix", realRedis(t, "--enable-debug-command", "yes"))
	closed := start(t, nil).dial()
	if got := closed.do("DEBUG", "SLEEP", "0"); got != "-"+errNoDebug+"\r\n" {
		t.Errorf("DEBUG: %q", got)
	}
	plain := dial(t, "unix", realRedis(t))
	plain.want("-"+errNoDebug+"\r\n", "DEBUG", "SLEEP", "0")
	for _, who := range []string{DebugLocal, DebugYes} {
		ts := start(t, func(o *Options) { o.DebugCommand = who })
		c := ts.dial()
		for _, line := range []string{
			"sleep 0", "protocol string", "protocol integer", "protocol double", "protocol bignum", "protocol null", "protocol array", "protocol set",
			"protocol map", "protocol attrib", "protocol push", "protocol true", "protocol false", "protocol verbatim", "protocol foo", "protocol",
			"quicklist-packed-threshold 100b", "error foo", "error \"-WRONG thing\"", "error \"a\r\nb\"",
			"log hello", "pause-cron 1", "pause-cron 0", "set-disable-deny-scripts 1", "populate x", "populate -1", "sleep",
		} {
			args := append([]string{"DEBUG"}, words(t, line)...)
			if want, got := redis.do(args...), c.do(args...); want != got {
				t.Errorf("DEBUG %s: %q, want %q", line, got, want)
			}
		}
		c.want(":1\r\n", "DEBUG", "STRINGMATCH-LEN", "a*c", "abbc")
		c.want("-ERR DEBUG SLEEP takes up to 60 seconds\r\n", "DEBUG", "SLEEP", "61")
	}
}

// What is about the server as a whole answers in Redis's form.
func TestServerCommands(t *testing.T) {
	redis := dial(t, "unix", realRedis(t))
	ts := start(t, nil)
	c := ts.dial()
	for _, line := range []string{
		"module list", "module foo", "module list x", "replicaof no one", "slaveof no one", "wait x 0", "wait 0 x", "wait 0 -1", "memory foo",
		"memory help", "latency", "latency foo", "latency help x", "latency history", "latency reset foo", "cluster info", "cluster foo", "role x",
		"waitaof", "acl help", "memory help x", "lolwut version x",
	} {
		want, got := redis.do(words(t, line)...), c.do(words(t, line)...)
		if strings.HasPrefix(line, "waitaof") || strings.HasPrefix(line, "lolwut") {
			continue // not in 7.0, and of Redis's own making
		}
		if want != got {
			t.Errorf("%s:\n got %q\nwant %q", line, got, want)
		}
	}
	if got := c.do("REPLICAOF", "127.0.0.1", "1"); !strings.Contains(got, "MEET host:port") {
		t.Errorf("%q", got)
	}
	if got := c.do("LOLWUT"); !strings.Contains(got, "replicatord ver. test, as Redis ver. 7.0.15") {
		t.Errorf("%q", got)
	}
	if got := c.do("MODULE", "LOAD", "/x"); !strings.HasPrefix(got, "-ERR unsupported command 'module load': ") {
		t.Errorf("%q", got)
	}
	for _, cmd := range []string{"DOCTOR", "MALLOC-STATS"} {
		if got := c.do("MEMORY", cmd); got[0] != '$' || len(got) < 20 {
			t.Errorf("MEMORY %s: %q", cmd, got)
		}
	}
	if got := string(asMap([]byte("*6\r\n$4\r\nkeys\r\n:1\r\n$4\r\ndb.0\r\n*2\r\n$1\r\na\r\n:2\r\n$5\r\nratio\r\n$3\r\n1.5\r\n"))); got !=
		"%3\r\n$4\r\nkeys\r\n:1\r\n$4\r\ndb.0\r\n%1\r\n$1\r\na\r\n:2\r\n$5\r\nratio\r\n,1.5\r\n" {
		t.Errorf("%q", got)
	}
}

// INFO has every field that Redis's has, but for those of its making.
func TestInfoFields(t *testing.T) {
	redis := dial(t, "unix", realRedis(t))
	c := start(t, nil).dial()
	have := c.do("INFO", "everything")
	for line := range strings.Lines(redis.do("INFO", "everything")) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case !ok || strings.HasPrefix(name, "cmdstat_") || strings.HasPrefix(name, "latency_percentiles"):
			continue
		case strings.Contains("atomicvar_api gcc_version monotonic_clock process_supervised", name): // how Redis was built
			continue
		case strings.HasPrefix(name, "allocator_"), strings.HasPrefix(name, "used_memory_"), strings.HasPrefix(name, "mem_"),
			strings.HasPrefix(name, "rss_"), strings.HasPrefix(name, "active_defrag"), strings.HasPrefix(name, "lazyfree"),
			strings.HasPrefix(name, "number_of_"): // the backend's
			continue
		case strings.HasSuffix(name, "_main_thread"), strings.HasPrefix(name, "pubsub"), strings.HasPrefix(name, "tracking_total"):
			continue
		case strings.HasPrefix(name, "master_"), strings.HasPrefix(name, "repl_"), name == "second_repl_offset":
			continue // the backend's
		}
		if !strings.Contains(have, "\n"+name+":") {
			t.Errorf("no field %s", name)
		}
	}
}

// A limit that is lifted while memory is measured by it is lifted.
func TestLimitLiftedWhileMeasured(t *testing.T) {
	ts := start(t, nil)
	c := ts.dial()
	c.want("+OK\r\n", "CONFIG", "SET", "maxmemory", "1")
	if got := c.do("SET", "k", "v"); !strings.HasPrefix(got, "-OOM ") {
		t.Fatalf("%q", got)
	}
	measuring, goOn, measured := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once sync.Once
	hold := func() { once.Do(func() { close(measuring); <-goOn }) }
	ts.mem.asked.Store(&hold)
	go func() { ts.measure(); close(measured) }()
	<-measuring
	c.send(encode("CONFIG", "SET", "maxmemory", "0"))
	eventually(t, "the limit is lifted", func() bool { return ts.settings.maxMemory.Load() == 0 })
	time.Sleep(20 * time.Millisecond) // without order it would be measured by the new one by now
	close(goOn)
	<-measured
	if got := c.reply(); got != "+OK\r\n" {
		t.Errorf("%q", got)
	}
	c.want("+OK\r\n", "SET", "k", "v")
}
