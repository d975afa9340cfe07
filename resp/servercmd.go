package resp

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

// serverHandlers answer what there is about the server as a whole.
func serverHandlers() map[string]handler {
	return map[string]handler{
		"DEBUG": debugGuard, "WAIT": wait, "WAITAOF": waitAOF, "REPLICAOF": replicaOf, "SLAVEOF": replicaOf, "LOLWUT": lolwut,
		"MEMORY|DOCTOR": memoryDoctor, "MEMORY|HELP": help(memoryHelp), "MEMORY|MALLOC-STATS": mallocStats,
		"MEMORY|PURGE": memoryPurge, "MEMORY|STATS": memoryStats,
		"MODULE|LIST": moduleList, "MODULE|HELP": help(moduleHelp),
	}
}

func debugGuard(c *Session, args [][]byte) {
	if !c.mayDebug() {
		c.reply.Error(errNoDebug)
		return
	}
	debugCommandOf(c, args)
}

// wait answers how many members have this node's writes on disk. The backend
// waits.
func wait(c *Session, args [][]byte) {
	n, ok := parseInt(args[1])
	if !ok {
		c.reply.Error(errNotInteger)
		return
	}
	c.waitFor(args[2], 0, n)
}

func waitAOF(c *Session, args [][]byte) {
	local, ok := parseInt(args[1])
	n, ok2 := parseInt(args[2])
	switch {
	case !ok || local < 0 || local > 1:
		c.reply.Error("ERR value is out of range, value must between 0 and 1")
		return
	case !ok2 || n < 0:
		c.reply.Error("ERR value is out of range, must be positive")
		return
	}
	c.waitFor(args[3], local, n)
}

func (c *Session) waitFor(timeout []byte, local, members int64) {
	ms, ok := parseInt(timeout)
	switch {
	case !ok || ms > math.MaxInt64/1_000_000:
		c.reply.Error("ERR timeout is not an integer or out of range")
		return
	case ms < 0:
		c.reply.Error("ERR timeout is negative")
		return
	}
	args := [][]byte{[]byte("WAIT"), strconv.AppendInt(nil, local, 10), strconv.AppendInt(nil, members, 10), timeout}
	c.reply.Raw(c.server.backend.Admin(c, c.current.Load(), args))
}

// replicaOf has every node be what it is: a replica of no one.
func replicaOf(c *Session, args [][]byte) {
	if equalFold(args[1], "no") && equalFold(args[2], "one") {
		c.reply.OK()
		return
	}
	c.reply.Error("ERR a node replicates in its own way, and is no other server's replica: MEET host:port joins it to another node")
}

// lolwut draws the version in the colours of no terminal.
func lolwut(c *Session, _ [][]byte) {
	text := "replicatord ver. " + c.server.opt.Version + ", as Redis ver. " + RedisVersion
	line := strings.Repeat("~", len(text)+2)
	c.reply.BulkString(" " + line + "\n( " + text + " )\n " + line + "\n    \\\n     o--o    every node writes,\n      \\/     and all agree\n      o\n")
}

func moduleList(c *Session, _ [][]byte) { c.reply.Array(0) }

// measure looks whether the data take more memory than maxmemory, and whether
// fewer members than min-replicas-to-write are level.
func (s *Server) measure() {
	p := &s.settings
	p.measuring.Lock() // the last to measure has the limits as they are now
	defer p.measuring.Unlock()
	used := int64(0)
	limit := p.maxMemory.Load()
	if limit > 0 {
		used, _ = strconv.ParseInt(s.memoryFields()["used_memory"], 10, 64)
	}
	p.full.Store(limit > 0 && used > limit)
	least, lag := p.minReplicas.Load(), p.maxLag.Load()
	p.alone.Store(least > 0 && lag > 0 && int64(s.backend.LevelMembers(time.Duration(lag)*time.Second)) < least)
}

// memoryFields returns the fields of INFO memory.
func (s *Server) memoryFields() map[string]string {
	out := map[string]string{}
	for _, sec := range s.sections("memory", func(name string) bool { return name == "memory" }) {
		for _, f := range sec.Fields {
			out[f.Name] = f.Value
		}
	}
	return out
}

// memoryDoctor tells in words what the figures mean.
func memoryDoctor(c *Session, _ [][]byte) {
	m := c.server.memoryFields()
	number := func(name string) float64 {
		f, _ := strconv.ParseFloat(m[name], 64)
		return f
	}
	var found []string
	used, rss, limit := number("used_memory"), number("used_memory_rss"), number("maxmemory")
	if used > 5<<20 && rss > 1.4*used {
		found = append(found, fmt.Sprintf("The Redis behind the node holds %.1f times the memory that it uses: its memory is fragmented, or much was deleted a while ago.", rss/used))
	}
	if peak := number("used_memory_peak"); used > 5<<20 && peak > 1.5*used {
		found = append(found, fmt.Sprintf("It has used %.1f times of what it uses now.", peak/used))
	}
	if limit > 0 && used > 0.9*limit {
		found = append(found, fmt.Sprintf("%.0f %% of maxmemory are used: at 100 %%, writes that need memory are refused.", 100*used/limit))
	}
	if own := number("node_used_memory"); own > 1<<30 && own > used {
		found = append(found, fmt.Sprintf("The node itself uses %s, more than the Redis behind it.", m["node_used_memory_human"]))
	}
	if found == nil {
		c.reply.Verbatim("Nothing gives cause for concern.\n")
		return
	}
	c.reply.Verbatim(" * " + strings.Join(found, "\n * ") + "\n")
}

func memoryStats(c *Session, args [][]byte) {
	raw := c.server.backend.Admin(c, command.Named("memory|stats"), args)
	if c.reply.Proto == 3 {
		raw = asMap(raw)
	}
	c.reply.Raw(raw)
}

// asMap makes of a reply in RESP2, names and values in turn, the map of RESP3:
// arrays become maps, and text values numbers.
func asMap(raw []byte) []byte {
	var out []byte
	isName := false
	for line := range bytes.Lines(raw) {
		switch line[0] {
		case '*':
			n, _ := parseInt(bytes.TrimSpace(line[1:]))
			out = fmt.Appendf(out, "%%%d\r\n", n/2)
			isName = true
			continue
		case '$':
			if isName {
				out = append(out, line...)
			}
			continue // the text follows
		case ':':
			out = append(out, line...)
		default:
			if !isName {
				out = append(out, ',')
			}
			out = append(out, line...)
		}
		isName = !isName
	}
	return out
}

func memoryPurge(c *Session, args [][]byte) {
	debug.FreeOSMemory()
	c.reply.Raw(c.server.backend.Admin(c, command.Named("memory|purge"), args))
}

func mallocStats(c *Session, _ [][]byte) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	c.reply.Verbatim(fmt.Sprintf("The node's memory, by Go's runtime:\nheap in use %d, of %d from the system, %d given back\nobjects %d, allocated %d times, freed %d times\n"+
		"stacks %d, runtime's own %d\ncollections %d, pauses %d ns in all, next at %d\n",
		m.HeapInuse, m.Sys, m.HeapReleased, m.HeapObjects, m.Mallocs, m.Frees, m.StackInuse, m.MSpanInuse+m.MCacheInuse+m.GCSys+m.OtherSys,
		m.NumGC, m.PauseTotalNs, m.NextGC))
}

var memoryHelp = []string{
	"MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"DOCTOR",
	"    Return memory problems reports.",
	"MALLOC-STATS",
	"    Return internal statistics report from the memory allocator.",
	"PURGE",
	"    Attempt to purge dirty pages for reclamation by the allocator.",
	"STATS",
	"    Return information about the memory usage of the server.",
	"USAGE <key> [SAMPLES <count>]",
	"    Return memory in bytes used by <key> and its value. Nested values are",
	"    sampled up to <count> times (default: 5, 0 means sample all).",
	"HELP",
	"    Prints this help.",
}

var moduleHelp = []string{
	"MODULE <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"LIST",
	"    Return a list of loaded modules.",
	"HELP",
	"    Prints this help.",
}
