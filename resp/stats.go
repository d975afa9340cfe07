package resp

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// sampleEvery is how often rates are sampled; a rate is the mean of
// rateSamples of them, as in Redis.
const (
	sampleEvery = 100 * time.Millisecond
	rateSamples = 16
)

// stats are counters since the start or CONFIG RESETSTAT.
type stats struct {
	connections    atomic.Int64
	rejected       atomic.Int64 // connections, for maxclients
	commands       atomic.Int64
	netIn, netOut  atomic.Int64
	reads, writes  atomic.Int64
	authFailures   atomic.Int64
	deniedCommand  atomic.Int64
	deniedKey      atomic.Int64
	deniedChannel  atomic.Int64
	protocolErrors atomic.Int64
	queryLimit     atomic.Int64 // clients disconnected, and so below
	outputLimit    atomic.Int64
	evicted        atomic.Int64
	errors         atomic.Int64

	mu     sync.Mutex
	kinds  map[string]int64 // errors by prefix
	ops    rate
	input  rate
	output rate
}

// sample notes how far the counters are.
func (s *stats) sample(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ops.sample(now, s.commands.Load())
	s.input.sample(now, s.netIn.Load())
	s.output.sample(now, s.netOut.Load())
}

// rates returns commands, bytes in and bytes out per second.
func (s *stats) rates() (ops, in, out int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ops.mean(), s.input.mean(), s.output.mean()
}

// countError counts an error reply, which begins with a dash, by its prefix.
func (s *stats) countError(reply []byte) {
	s.errors.Add(1)
	kind := reply[1:]
	if i := bytes.IndexAny(kind[:min(len(kind), 64)], " \r\n"); i >= 0 {
		kind = kind[:i]
	} else {
		kind = []byte("ERR")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.kinds[string(kind)]; !known && len(s.kinds) >= maxErrorKinds {
		return
	}
	if s.kinds == nil {
		s.kinds = map[string]int64{}
	}
	s.kinds[string(kind)]++
}

// errorKinds returns the errors counted, by prefix.
func (s *stats) errorKinds() []Field {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Field
	for _, kind := range slices.Sorted(maps.Keys(s.kinds)) {
		list = append(list, Field{"errorstat_" + kind, "count=" + strconv.FormatInt(s.kinds[kind], 10)})
	}
	return list
}

// reset sets all counters back to zero.
func (s *stats) reset() {
	for _, c := range []*atomic.Int64{
		&s.connections, &s.rejected, &s.commands, &s.netIn, &s.netOut, &s.reads, &s.writes, &s.authFailures,
		&s.deniedCommand, &s.deniedKey, &s.deniedChannel,
		&s.protocolErrors, &s.queryLimit, &s.outputLimit, &s.evicted, &s.errors,
	} {
		c.Store(0)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds = nil
	s.ops, s.input, s.output = rate{}, rate{}, rate{}
}

// rate is how fast a counter rises.
type rate struct {
	at      time.Time
	count   int64
	samples [rateSamples]int64 // per second
	next    int
}

func (r *rate) sample(now time.Time, count int64) {
	if d := now.Sub(r.at); !r.at.IsZero() && d > 0 {
		r.samples[r.next] = int64(float64(count-r.count) / d.Seconds())
		r.next = (r.next + 1) % rateSamples
	}
	r.at, r.count = now, count
}

func (r *rate) mean() int64 {
	var sum int64
	for _, n := range r.samples {
		sum += n
	}
	return max(sum/rateSamples, 0)
}

// commandStat counts what became of one command.
type commandStat struct {
	name     string
	calls    atomic.Int64
	nanos    atomic.Int64
	rejected atomic.Int64 // before it ran
	failed   atomic.Int64 // with an error
	times    histogram    // of latency-tracking
}

func (c *commandStat) add(calls int64, took time.Duration) {
	c.calls.Add(calls)
	c.nanos.Add(int64(took))
}

func (c *commandStat) reset() {
	c.calls.Store(0)
	c.nanos.Store(0)
	c.rejected.Store(0)
	c.failed.Store(0)
	c.times.reset()
}

// field returns the command's line of INFO commandstats, and whether it has
// one.
func (c *commandStat) field() (Field, bool) {
	calls, micros := c.calls.Load(), c.nanos.Load()/1000
	rejected, failed := c.rejected.Load(), c.failed.Load()
	if calls == 0 && rejected == 0 {
		return Field{}, false
	}
	return Field{"cmdstat_" + c.name, fmt.Sprintf("calls=%d,usec=%d,usec_per_call=%.2f,rejected_calls=%d,failed_calls=%d",
		calls, micros, float64(micros)/float64(max(calls, 1)), rejected, failed)}, true
}

// commandStats returns the lines of all commands that were called, by name.
func (s *Server) commandStats() []Field {
	var list []Field
	for _, r := range s.rows {
		if f, ok := r.stat.field(); ok {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b Field) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return list
}
