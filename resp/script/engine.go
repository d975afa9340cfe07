package script

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"

	"github.com/replicatord/replicatord/resp/script/lua"
)

// Host is what a script that runs may reach.
type Host interface {
	// Call carries out a command and returns its raw reply, RESP as proto says.
	Call(args [][]byte, proto int) []byte
	// Allowed reports whether the user may give a command; known is false if
	// there is no such command.
	Allowed(args [][]byte) (allowed, known bool)
	// Alive is asked every few thousand steps; an error, which the client is to
	// see, ends the script.
	Alive() error
}

// MaxMemory is how much a script may make the heap grow, in bytes.
const MaxMemory = 1 << 30

// maxScripts bounds the scripts kept, and their text.
const (
	maxScripts     = 1 << 16
	maxScriptBytes = 256 << 20
)

// Flags are those a script or function declares.
type Flags uint8

// Flags of scripts.
const (
	NoWrites Flags = 1 << iota
	AllowOOM
	AllowStale
	NoCluster
	AllowCrossSlot
	Compat // no flags were declared: as before Redis 7
)

// flagNames are in the order in which Redis lists them.
var flagNames = []struct {
	flag Flags
	name string
}{{NoWrites, "no-writes"}, {AllowOOM, "allow-oom"}, {AllowStale, "allow-stale"}, {NoCluster, "no-cluster"}, {AllowCrossSlot, "allow-cross-slot-keys"}}

// Names returns the names of the flags set.
func (f Flags) Names() []string {
	var out []string
	for _, n := range flagNames {
		if f&n.flag != 0 {
			out = append(out, n.name)
		}
	}
	return out
}

// Script is a compiled script.
type Script struct {
	SHA   string
	Text  string
	Flags Flags
	fn    *lua.Function
}

// Engine runs scripts and functions, one at a time.
type Engine struct {
	// Log receives what scripts log: level 0 (debug) to 3 (warning).
	Log func(level int, msg string)

	// Counted says of the last run that its reply is the error of a command that
	// it called, which has been counted as that.
	Counted bool

	seed    func() uint32
	eval    *lua.State
	mu      sync.RWMutex // for scripts, of those who are not the engine's goroutine
	scripts map[string]*Script
	bytes   int
	run     *run
	heap    uint64 // when the run began

	functions *lua.State
	fnGlobals *lua.Table // the globals functions see
	fnMeta    *lua.Table
	loadAPI   *lua.Table
	load      *loading
}

// run is a script that runs.
type run struct {
	host  Host
	proto int
}

// New returns an engine. seed starts the random numbers of scripts.
func New(seed func() uint32) *Engine { return &Engine{seed: seed, scripts: map[string]*Script{}} }

// start makes the interpreter of scripts.
func (e *Engine) start() {
	if e.eval != nil {
		return
	}
	e.eval = e.newState()
	redis := e.eval.Globals.GetString("redis").(*lua.Table)
	lua.AddFunctions(redis, map[string]lua.Native{
		"breakpoint":         func(*lua.Thread, []lua.Value) []lua.Value { return []lua.Value{false} },
		"debug":              func(*lua.Thread, []lua.Value) []lua.Value { return nil },
		"replicate_commands": func(*lua.Thread, []lua.Value) []lua.Value { return []lua.Value{true} },
	})
	guard(e.eval.Globals)
	e.eval.Globals.Lock()
	e.eval.LockStrings()
}

// Find returns a script by its SHA1, nil if it is not known.
func (e *Engine) Find(sha string) *Script {
	if len(sha) != 40 {
		return nil
	}
	if s := e.scripts[sha]; s != nil {
		return s
	}
	return e.scripts[strings.ToLower(sha)]
}

// Count returns how many scripts are kept, and the bytes of their text.
func (e *Engine) Count() (scripts, bytes int) { return len(e.scripts), e.bytes }

// Flush forgets every script.
func (e *Engine) Flush() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.scripts, e.bytes = map[string]*Script{}, 0
}

// Declared returns the flags of a script that is kept, by its SHA1. Any
// goroutine may call it.
func (e *Engine) Declared(sha string) (flags Flags, known bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if s := e.Find(sha); s != nil {
		return s.Flags, true
	}
	return 0, false
}

// Declares returns the flags that a script's text declares; it is not valid
// that Redis would not take.
func Declares(text string) (flags Flags, valid bool) {
	flags, _, bad := shebang(text)
	return flags, bad == ""
}

// Load compiles a script, if it is not known. A refusal is the error reply,
// without its dash.
func (e *Engine) Load(text string) (*Script, string) {
	sha := SHA1(text)
	if s := e.scripts[sha]; s != nil {
		return s, ""
	}
	flags, body, bad := shebang(text)
	if bad != "" {
		return nil, "ERR " + bad
	}
	if len(e.scripts) >= maxScripts || e.bytes+len(text) > maxScriptBytes {
		return nil, "ERR too many scripts are kept: SCRIPT FLUSH forgets them"
	}
	e.start()
	fn, err := e.eval.Load(body, "@user_script")
	if err != nil {
		return nil, "ERR Error compiling script (new function): " + err.Error()
	}
	s := &Script{SHA: sha, Text: text, Flags: flags, fn: fn}
	e.mu.Lock()
	e.scripts[sha] = s
	e.mu.Unlock()
	e.bytes += len(text)
	return s, ""
}

// shebang reads the flags in a script's first line and returns what follows
// it, from its line end on, so that lines keep their numbers.
func shebang(text string) (flags Flags, body, bad string) {
	if !strings.HasPrefix(text, "#!") {
		return Compat, text, ""
	}
	line, _, ok := strings.Cut(text, "\n")
	if !ok {
		return 0, "", "Invalid script shebang"
	}
	parts := words(line)
	if len(parts) == 0 {
		return 0, "", "Invalid engine in script shebang"
	}
	if parts[0] != "#!lua" {
		return 0, "", "Unexpected engine in script shebang: " + parts[0]
	}
	for _, p := range parts[1:] {
		list, ok := strings.CutPrefix(p, "flags=")
		if !ok {
			return 0, "", "Unknown lua shebang option: " + p
		}
		if list == "" {
			continue
		}
		for _, name := range strings.Split(list, ",") {
			f, ok := flagNamed(name)
			if !ok {
				return 0, "", "Unexpected flag in script shebang: " + name
			}
			flags |= f
		}
	}
	return flags, text[len(line):], ""
}

// words splits a first line as Redis does; none if a quote is not closed.
func words(line string) []string {
	parts, _ := SplitArgs([]byte(line))
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = string(p)
	}
	return out
}

func flagNamed(name string) (Flags, bool) {
	for _, n := range flagNames {
		if n.name == name {
			return n.flag, true
		}
	}
	return 0, false
}

func array(list [][]byte) *lua.Table {
	t := lua.NewTable(len(list), 0)
	for i, b := range list {
		t.Set(float64(i+1), string(b))
	}
	return t
}

// Run runs a script and returns the reply in the client's protocol.
func (e *Engine) Run(s *Script, host Host, keys, args [][]byte, proto int) []byte {
	e.start()
	e.eval.Globals.Set("KEYS", array(keys))
	e.eval.Globals.Set("ARGV", array(args))
	out := e.invoke(e.eval, s.SHA, s.fn, host, proto)
	e.eval.Globals.Set("KEYS", nil)
	e.eval.Globals.Set("ARGV", nil)
	return out
}

// Running reports whether a script runs.
func (e *Engine) Running() bool { return e.run != nil }

func (e *Engine) invoke(s *lua.State, name string, fn *lua.Function, host Host, proto int, args ...lua.Value) []byte {
	e.run = &run{host: host, proto: 2}
	e.heap = heapBytes()
	defer func() {
		e.run = nil
		s.Reset()
	}()
	r, err := s.Main.Call(fn, args...)
	out := encoder{proto: proto, script: e.run.proto}
	if err != nil {
		e.Counted = counted(err.Value)
		out.failure(s.Main, name, err)
		return out.b
	}
	if len(r) == 0 {
		r = []lua.Value{nil}
	}
	e.Counted = counted(r[0])
	out.value(r[0], 0)
	return out.b
}

// counted reports whether a value is the error of a command.
func counted(v lua.Value) bool {
	t, ok := v.(*lua.Table)
	return ok && t.GetString(errorCounted) == true
}

// failure replies an error that ended a script, with its place.
func (e *encoder) failure(t *lua.Thread, name string, err *lua.Error) {
	msg, source, line := errorInfo(t, err)
	if source != "" {
		msg = fmt.Sprintf("%s script: %s, on %s:%s.", msg, name, source, line)
	}
	e.errorReply(msg)
}

// errorInfo returns an error's message, code first, and where it was raised.
func errorInfo(_ *lua.Thread, err *lua.Error) (msg, source, line string) {
	if err.Source != "" {
		source, line = err.Source, fmt.Sprint(err.Line)
	}
	tab, ok := err.Value.(*lua.Table)
	if !ok {
		return "ERR " + describeError(err.Value), source, line
	}
	if msg, ok = lua.ToString(tab.GetString("err")); !ok {
		msg = "ERR (null)"
	}
	return msg, source, line
}

func describeError(v lua.Value) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case bool:
		return fmt.Sprint(v)
	}
	if s, ok := lua.ToString(v); ok {
		return s
	}
	return lua.TypeName(v)
}

var errMemory = errors.New("not enough memory")

// scriptError is an error that scripts see as a table, as those of Redis.
type scriptError string

func (e scriptError) Error() string       { return string(e) }
func (e scriptError) LuaValue() lua.Value { return errorTable(string(e)) }

// hook is called while a script runs.
func (e *Engine) hook() error {
	if e.run == nil {
		if e.load != nil && e.load.expired != nil && e.load.expired() {
			return scriptError("FUNCTION LOAD timeout")
		}
		return nil
	}
	if err := e.run.host.Alive(); err != nil {
		return scriptError(err.Error())
	}
	if e.allocated() > maxUnchecked && heapBytes() > e.heap+MaxMemory {
		runtime.GC()
		if heapBytes() > e.heap+MaxMemory {
			return errMemory
		}
	}
	return nil
}

// maxUnchecked is how many bytes lie between looks at the heap.
const maxUnchecked = 1 << 20

func (e *Engine) allocated() int {
	n := 0
	for _, s := range []*lua.State{e.eval, e.functions} {
		if s != nil {
			n = max(n, s.Allocated)
		}
	}
	return n
}

func heapBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
