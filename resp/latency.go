package resp

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

// Of each event the latest samples are kept, one for a second, as in Redis.
const (
	latencySamples = 160
	maxEvents      = 64 // kinds of events
)

// latencyMonitor keeps what took at least latency-monitor-threshold.
type latencyMonitor struct {
	mu     sync.Mutex
	events map[string]*latencyEvent
}

type latencyEvent struct {
	samples []latencySample // oldest first
	max     int64
}

type latencySample struct{ at, ms int64 }

// Latency tells the monitor how long something took, such as "expire-cycle".
// It is kept if that is at least latency-monitor-threshold.
func (s *Server) Latency(event string, took time.Duration) {
	limit := s.settings.latencyMin.Load()
	if ms := took.Milliseconds(); limit > 0 && ms >= limit {
		s.latency.add(event, latencySample{time.Now().Unix(), ms})
	}
}

// took notes how long n runs of a command took, each.
func (s *Server) took(cmd *command.Command, n int64, took time.Duration) {
	if s.settings.tracking.Load() {
		s.rows[cmd].stat.times.add(n, took)
	}
	event := "command"
	if cmd.Flags&command.Fast != 0 {
		event = "fast-command"
	}
	s.Latency(event, took)
}

func (m *latencyMonitor) add(name string, x latencySample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.events[name]
	if e == nil {
		if len(m.events) >= maxEvents {
			return
		}
		if m.events == nil {
			m.events = map[string]*latencyEvent{}
		}
		e = &latencyEvent{}
		m.events[name] = e
	}
	e.max = max(e.max, x.ms)
	if n := len(e.samples); n > 0 && e.samples[n-1].at == x.at {
		e.samples[n-1].ms = max(e.samples[n-1].ms, x.ms)
		return
	}
	if len(e.samples) == latencySamples {
		e.samples = slices.Delete(e.samples, 0, 1)
	}
	e.samples = append(e.samples, x)
}

// all returns copies of the events by name.
func (m *latencyMonitor) all() map[string]latencyEvent {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]latencyEvent{}
	for name, e := range m.events {
		out[name] = latencyEvent{slices.Clone(e.samples), e.max}
	}
	return out
}

// reset forgets events, all if none are named, and returns how many there were.
func (m *latencyMonitor) reset(names [][]byte) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(names) == 0 {
		n := len(m.events)
		m.events = nil
		return n
	}
	n := 0
	for _, name := range names {
		if _, ok := m.events[string(name)]; ok {
			delete(m.events, string(name))
			n++
		}
	}
	return n
}

func latencyHandlers() map[string]handler {
	return map[string]handler{
		"LATENCY|DOCTOR": latencyDoctor, "LATENCY|GRAPH": latencyGraph, "LATENCY|HELP": help(latencyHelp),
		"LATENCY|HISTOGRAM": latencyHistogram, "LATENCY|HISTORY": latencyHistory, "LATENCY|LATEST": latencyLatest,
		"LATENCY|RESET": latencyReset,
	}
}

func latencyLatest(c *Session, _ [][]byte) {
	events := c.server.latency.all()
	c.reply.Array(len(events))
	for _, name := range slices.Sorted(maps.Keys(events)) {
		e := events[name]
		last := e.samples[len(e.samples)-1]
		c.reply.Array(4)
		c.reply.BulkString(name)
		c.reply.Int(last.at)
		c.reply.Int(last.ms)
		c.reply.Int(e.max)
	}
}

func latencyHistory(c *Session, args [][]byte) {
	e := c.server.latency.all()[string(args[2])]
	c.reply.Array(len(e.samples))
	for _, x := range e.samples {
		c.reply.Array(2)
		c.reply.Int(x.at)
		c.reply.Int(x.ms)
	}
}

func latencyReset(c *Session, args [][]byte) {
	c.reply.Int(int64(c.server.latency.reset(args[2:])))
}

// latencyGraph draws the latest samples as columns, each with how long ago it
// was below.
func latencyGraph(c *Session, args [][]byte) {
	const width, height = 80, 4
	e, ok := c.server.latency.all()[string(args[2])]
	if !ok {
		c.reply.Error("ERR No samples available for event '" + shown(args[2]) + "'")
		return
	}
	samples := e.samples[max(len(e.samples)-width, 0):]
	low := samples[0].ms
	for _, x := range samples {
		low = min(low, x.ms)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s - high %d ms, low %d ms (all time high %d ms)\n%s\n", args[2], highest(samples), low, e.max, strings.Repeat("-", width))
	span := max(highest(samples)-low, 1)
	for row := height; row > 0; row-- {
		for _, x := range samples {
			if (x.ms-low)*height >= int64(row-1)*span && (row == 1 || x.ms > low) {
				b.WriteByte('#')
			} else {
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	now := time.Now().Unix()
	labels := make([]string, len(samples))
	for i, x := range samples {
		labels[i] = ago(now - x.at)
	}
	for row := 0; slices.ContainsFunc(labels, func(l string) bool { return len(l) > row }); row++ {
		for _, l := range labels {
			if row < len(l) {
				b.WriteByte(l[row])
			} else {
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	c.reply.Verbatim(b.String())
}

func highest(list []latencySample) (ms int64) {
	for _, x := range list {
		ms = max(ms, x.ms)
	}
	return ms
}

// ago shows seconds by the largest unit there are whole ones of.
func ago(seconds int64) string {
	for _, u := range []struct {
		n    int64
		unit string
	}{{86400, "d"}, {3600, "h"}, {60, "m"}} {
		if seconds >= u.n {
			return itoa(seconds/u.n) + u.unit
		}
	}
	return itoa(max(seconds, 0)) + "s"
}

// advice is what can be said about an event.
var advice = map[string]string{
	"command":      "Commands that take long hold up all that come after them: SLOWLOG GET shows which they are. KEYS, SMEMBERS of large sets, and DEL of large keys are the usual ones.",
	"fast-command": "Commands that should be quick were not: the machine has too few processors for what runs on it, or its disk is slow and fsync is always.",
	"expire-cycle": "Many keys, or very large ones, expired at the same moment. Spread their expiry times.",
}

// latencyDoctor tells what the monitor has seen in words.
func latencyDoctor(c *Session, _ [][]byte) {
	s := c.server
	events := s.latency.all()
	var b strings.Builder
	switch {
	case len(events) == 0 && s.settings.latencyMin.Load() == 0:
		b.WriteString("Nothing is known: latency monitoring is off. CONFIG SET latency-monitor-threshold <milliseconds> turns it on.\n")
	case len(events) == 0:
		fmt.Fprintf(&b, "Nothing took %d ms or longer since the monitor was turned on or reset.\n", s.settings.latencyMin.Load())
	default:
		fmt.Fprintf(&b, "%d kinds of events took %d ms or longer:\n\n", len(events), s.settings.latencyMin.Load())
	}
	for i, name := range slices.Sorted(maps.Keys(events)) {
		e := events[name]
		var sum int64
		for _, x := range e.samples {
			sum += x.ms
		}
		n := int64(len(e.samples))
		apart := int64(0)
		if n > 1 {
			apart = (e.samples[n-1].at - e.samples[0].at) / (n - 1)
		}
		fmt.Fprintf(&b, "%d. %s: in %d seconds there was one. On average %d ms, %d seconds apart; the longest of all times %d ms.\n", i+1, name, n, sum/n, apart, e.max)
		if text := advice[name]; text != "" {
			b.WriteString("   " + text + "\n")
		}
	}
	c.reply.Verbatim(b.String())
}

// latencyHistogram tells how long commands took, all of them if none are
// named; for a container, its subcommands.
func latencyHistogram(c *Session, args [][]byte) {
	s := c.server
	var list []*command.Command
	if len(args) == 2 {
		list = command.Rows()
	}
	for _, a := range args[2:] {
		cmd := command.Named(string(a))
		if cmd == nil {
			continue
		}
		list = append(list, cmd)
		for _, sub := range command.Rows() {
			if strings.HasPrefix(sub.Name, cmd.Name+"|") {
				list = append(list, sub)
			}
		}
	}
	type entry struct {
		name  string
		steps [][2]int64
		calls int64
	}
	var found []entry
	for _, cmd := range list {
		if steps, n := s.rows[cmd].stat.times.doublings(); n > 0 {
			found = append(found, entry{strings.ToLower(cmd.Name), steps, n})
		}
	}
	c.reply.Map(len(found))
	for _, e := range found {
		c.reply.BulkString(e.name)
		c.reply.Map(2)
		c.reply.BulkString("calls")
		c.reply.Int(e.calls)
		c.reply.BulkString("histogram_usec")
		c.reply.Map(len(e.steps))
		for _, step := range e.steps {
			c.reply.Int(step[0])
			c.reply.Int(step[1])
		}
	}
}

var latencyHelp = []string{
	"LATENCY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"DOCTOR",
	"    Return a human readable latency analysis report.",
	"GRAPH <event>",
	"    Return an ASCII latency graph for the <event> class.",
	"HISTORY <event>",
	"    Return time-latency samples for the <event> class.",
	"LATEST",
	"    Return the latest latency samples for all events.",
	"RESET [<event> ...]",
	"    Reset latency data of one or more <event> classes.",
	"    (default: reset all data for all event classes)",
	"HISTOGRAM [COMMAND ...]",
	"    Return a cumulative distribution of commands latency.",
	"    (default: return distributions for all commands)",
	"HELP",
	"    Prints this help.",
}
