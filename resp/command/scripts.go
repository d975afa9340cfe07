package command

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/script"
)

// SystemDB is a database that no client can select, the view does not show and
// FLUSHALL leaves alone. What is the cluster's own, and replicated as data are, is
// in it.
const SystemDB = 255

// functionsKey holds the libraries of functions: a field for each, by name,
// with its code.
var functionsKey = crdt.Key{DB: SystemDB, Name: "functions"}

// loadTime is how long a library's code may run while it is loaded.
const loadTime = 500 // milliseconds

// Scripts is what a node has for scripts and functions. It belongs to the
// goroutine that runs commands, but for the methods that say otherwise.
type Scripts struct {
	// Busy, if set, is called again and again while a script runs for longer than
	// Threshold.
	Busy func()
	// Threshold is when others are told that a script is busy, in milliseconds;
	// 0: never.
	Threshold atomic.Int64

	engine  *script.Engine
	now     func() int64
	libs    map[string]*script.Library
	byName  map[string]*script.Function     // by lower-case name: Redis does not tell cases apart
	counts  atomic.Int64                    // libraries, and functions << 32
	cached  atomic.Int64                    // scripts
	bytes   atomic.Int64                    // of their text
	readers atomic.Pointer[map[string]bool] // the names in byName of functions that only read; not changed once stored
	stale   atomic.Bool                     // the libraries may have changed
	stopped atomic.Bool
	running atomic.Pointer[running]
}

// running is a script that runs.
type running struct {
	name    string
	args    [][]byte
	eval    bool
	begun   int64
	written atomic.Bool
	killed  atomic.Bool
	done    chan struct{} // closed when it has ended
}

// NewScripts returns a node's scripts: none. now is a clock in milliseconds that
// does not go back, log gets what scripts log, at levels 0 (debug) to 3
// (warning), and seed begins their random numbers.
func NewScripts(now func() int64, log func(level int, msg string), seed func() uint32) *Scripts {
	s := &Scripts{engine: script.New(seed), now: now}
	s.engine.Log = log
	s.stale.Store(true)
	s.Threshold.Store(DefaultBusyThreshold)
	return s
}

// DefaultBusyThreshold is Redis's busy-reply-threshold, in milliseconds.
const DefaultBusyThreshold = 5000

// Changed says that libraries may have changed. Any goroutine may call it.
func (s *Scripts) Changed() { s.stale.Store(true) }

// Stale reports whether Refresh has anything to do, and can: not while a
// function runs.
func (s *Scripts) Stale() bool { return s.stale.Load() && s.running.Load() == nil }

// IsLibraries reports whether a key is the one that holds the libraries.
func IsLibraries(k crdt.Key) bool { return k == functionsKey }

// Stop ends a script that runs, and nothing of what it wrote is kept: the node
// stops. Any goroutine may call it.
func (s *Scripts) Stop() { s.stopped.Store(true) }

const (
	errBusyScript   = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
	errBusyFunction = "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
	errNotBusy      = "NOTBUSY No scripts in execution right now."
	errUnkillable   = "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command."
	errNoScript     = "NOSCRIPT No matching script. Please use EVAL."
)

// BusyError returns the error for commands that come while a script has been
// running for long, "" if none does. Any goroutine may call it.
func (s *Scripts) BusyError() string {
	r := s.running.Load()
	if r == nil || !s.busy(r) {
		return ""
	}
	return r.busyError()
}

func (s *Scripts) busy(r *running) bool {
	t := s.Threshold.Load()
	return t > 0 && s.now()-r.begun >= t
}

func (r *running) busyError() string {
	if r.eval {
		return errBusyScript
	}
	return errBusyFunction
}

// Kill answers SCRIPT KILL, or FUNCTION KILL. Any goroutine may call it.
func (s *Scripts) Kill(eval bool, out *Reply) {
	r := s.running.Load()
	switch {
	case r == nil:
		out.Error(errNotBusy)
	case r.written.Load():
		out.Error(errUnkillable)
	case r.eval != eval:
		out.Error(r.busyError())
	default:
		r.killed.Store(true)
		<-r.done // with its next steps
		out.OK()
	}
}

// Stats answers FUNCTION STATS. Any goroutine may call it.
func (s *Scripts) Stats(out *Reply) {
	r := s.running.Load()
	if r != nil && r.eval {
		out.Error(errBusyScript)
		return
	}
	out.Map(2)
	out.BulkString("running_script")
	if r == nil {
		out.Null()
	} else {
		out.Map(3)
		out.BulkString("name")
		out.BulkString(r.name)
		out.BulkString("command")
		out.Array(len(r.args))
		for _, a := range r.args {
			out.Bulk(a)
		}
		out.BulkString("duration_ms")
		out.Int(s.now() - r.begun)
	}
	n := s.counts.Load()
	out.BulkString("engines")
	out.Map(1)
	out.BulkString("LUA")
	out.Map(2)
	out.BulkString("libraries_count")
	out.Int(n & (1<<32 - 1))
	out.BulkString("functions_count")
	out.Int(n >> 32)
}

// Counts returns how many scripts are cached, the bytes of their text, and how
// many libraries and functions there are. Any goroutine may call it.
func (s *Scripts) Counts() (scripts, bytes, libraries, functions int64) {
	n := s.counts.Load()
	return s.cached.Load(), s.bytes.Load(), n & (1<<32 - 1), n >> 32
}

// load caches a script; a refusal is the error reply.
func (s *Scripts) load(text []byte) (*script.Script, string) {
	sc, refusal := s.engine.Load(string(text))
	s.countCached()
	return sc, oneLine(refusal)
}

func (s *Scripts) countCached() {
	n, bytes := s.engine.Count()
	s.cached.Store(int64(n))
	s.bytes.Store(int64(bytes))
}

// Refresh brings the libraries level with what the cells hold: after a change
// made here or elsewhere, and at the start. A function of the same name in two
// libraries, loaded on two nodes at once, is that of the library whose name
// comes first.
func (s *Scripts) Refresh(tx interface {
	EachElem(k crdt.Key, kind crdt.Kind, fn func(elem string, value []byte) bool)
}) {
	if !s.Stale() {
		return
	}
	s.stale.Store(false)
	was := s.libs
	s.libs, s.byName = map[string]*script.Library{}, map[string]*script.Function{}
	tx.EachElem(functionsKey, crdt.KindField, func(name string, code []byte) bool {
		if lib := was[name]; lib != nil && lib.Code == string(code) {
			s.link(lib)
		} else if lib, refusal := s.engine.LoadLibrary(string(code), s.timeout()); refusal == "" {
			s.link(lib)
		} else if s.engine.Log != nil {
			// It was loaded elsewhere, by another version perhaps.
			s.engine.Log(3, "a library of functions cannot be loaded: "+name+": "+refusal)
		}
		return true
	})
	s.count()
}

func (s *Scripts) link(lib *script.Library) {
	s.libs[lib.Name] = lib
	for _, f := range lib.Functions {
		if name := strings.ToLower(f.Name); s.byName[name] == nil {
			s.byName[name] = f
		}
	}
}

// count makes known to other goroutines what libraries there are.
func (s *Scripts) count() {
	s.counts.Store(int64(len(s.libs)) | int64(len(s.byName))<<32)
	readers := map[string]bool{}
	for name, f := range s.byName {
		if f.Flags&script.NoWrites != 0 {
			readers[name] = true
		}
	}
	s.readers.Store(&readers)
}

// OnlyReads reports whether a script or function that a command calls is known to
// declare that it does not write. Any goroutine may call it.
func (s *Scripts) OnlyReads(cmd *Command, args [][]byte) bool {
	var flags script.Flags
	known := false
	switch cmd.Name {
	case "EVAL":
		flags, known = script.Declares(string(args[1]))
	case "EVALSHA":
		flags, known = s.engine.Declared(string(args[1]))
	case "FCALL":
		readers := s.readers.Load()
		return readers != nil && !s.stale.Load() && (*readers)[strings.ToLower(string(args[1]))]
	}
	return known && flags&script.NoWrites != 0
}

// names returns the libraries' names in order.
func (s *Scripts) names() []string {
	out := make([]string, 0, len(s.libs))
	for name := range s.libs {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// timeout returns what tells that loading a library takes too long.
func (s *Scripts) timeout() func() bool {
	begun := s.now()
	return func() bool { return s.now()-begun > loadTime }
}

// host is what a script that runs may reach: the rest of the command table.
type host struct {
	c        *Context
	s        *Scripts
	r        *running
	db       uint8
	readOnly bool
	full     bool // of memory, when the script began
	alone    bool // as Client.Alone, when it began
}

// mayReplicate are commands that a script which only reads may not call
// though they write nothing, as in Redis.
var mayReplicate = map[string]bool{"PUBLISH": true, "SPUBLISH": true, "PFCOUNT": true}

// Call implements script.Host.
func (h *host) Call(args [][]byte, proto int) []byte {
	cmd := lookup(args)
	reply, ran := h.call(cmd, args, proto)
	if h.c.Client != nil {
		h.c.Client.Called(cmd, reply, ran)
	}
	return reply
}

func (h *host) call(cmd *Command, args [][]byte, proto int) (reply []byte, ran bool) {
	out := Reply{Proto: proto}
	denied := ""
	debug := cmd != nil && cmd.Name == "DEBUG" && h.c.Client != nil && h.c.Client.MayDebug(args)
	if cmd != nil && h.c.Client != nil && cmd.Flags&NoScript == 0 && (cmd.Arity < 0 || len(args) == cmd.Arity) && len(args) >= -cmd.Arity {
		denied = h.c.Client.PermitScript(cmd, args)
	}
	switch {
	case cmd == nil || len(cmd.Sub) > 0 && len(args) > 1 && cmd.Refused == "" && cmd.Run == nil && cmd.Flags == 0:
		out.Error("ERR Unknown Redis command called from script")
	case cmd.Arity > 0 && len(args) != cmd.Arity, len(args) < -cmd.Arity:
		out.Error("ERR Wrong number of args calling Redis command from script")
	case cmd.Flags&NoScript != 0 && !debug, cmd.Name == "CLUSTER" && len(args) > 1 && is(args[1], "RESET"):
		out.Error("ERR This Redis command is not allowed from script")
	case denied != "":
		out.Error(denied)
	case h.readOnly && (cmd.Flags&Write != 0 && cmd.Flags&Unlisted == 0 || mayReplicate[cmd.Name]):
		out.Error("ERR Write commands are not allowed from read-only scripts.")
	case h.alone && cmd.Flags&Write != 0 && cmd.Flags&Unlisted == 0 && !h.r.written.Load():
		out.Error(ErrNoReplicas)
	case h.full && cmd.Flags&DenyOOM != 0 && !h.r.written.Load():
		out.Error(ErrOOM)
	case cmd.Name == "SELECT":
		ran = true
		if db, e := parseDB(args[1]); e != "" {
			out.Error(e)
		} else {
			h.db = db
			out.OK()
		}
		h.observe(cmd, args)
	case cmd.Flags&Session != 0 && cmd.Refused == "" && h.c.Client != nil:
		if cmd.Name == "INFO" { // which asks the node's state of those who are busy with the script
			out.Error("ERR INFO cannot be asked for in a script")
			break
		}
		reply = h.c.Client.Front(cmd, args, proto)
		h.observe(cmd, args)
		return reply, true
	default:
		if cmd.Flags&Write != 0 {
			h.r.written.Store(true)
		}
		if cmd.Name == "SORT" || cmd.Name == "SORT_RO" {
			args = h.sorted(args)
		}
		sub := *h.c
		sub.DB, sub.Out, sub.InScript = h.db, out, true
		return sub.Call(args), true
	}
	return out.Buf, ran
}

// observe tells the observer of a command that Context.Call has not carried out.
func (h *host) observe(cmd *Command, args [][]byte) {
	if o := h.c.Observer; o != nil {
		sub := Context{Tx: h.c.Tx, DB: h.db, Args: args, Client: h.c.Client}
		o.Before(cmd, &sub)
		o.After(cmd, &sub)
	}
}

// sorted makes of a SORT that leaves the order of a set open one that sorts
// it, as Redis does in scripts.
func (h *host) sorted(args [][]byte) [][]byte {
	by := 0
	for i := 2; i+1 < len(args); i++ {
		switch {
		case is(args[i], "LIMIT"):
			i += 2
		case is(args[i], "GET"), is(args[i], "STORE"):
			i++
		case is(args[i], "BY"):
			by = i
			i++
		}
	}
	if by == 0 || slices.Contains(args[by+1], '*') || h.c.Type(crdt.Key{DB: h.db, Name: string(args[1])}) != crdt.TypeSet {
		return args
	}
	return slices.Concat(args[:by], [][]byte{[]byte("ALPHA")}, args[by+2:])
}

// Allowed implements script.Host.
func (h *host) Allowed(args [][]byte) (allowed, known bool) {
	cmd := lookup(args)
	return cmd != nil && (h.c.Client == nil || h.c.Client.Permitted(cmd, args)), cmd != nil
}

// ErrStopping is the panic that ends a script, with all that it and its unit wrote,
// when the node stops.
var ErrStopping = errors.New("the node stops")

type killError string

// Error implements error.
func (e killError) Error() string { return string(e) }

// Alive implements script.Host.
func (h *host) Alive() error {
	if h.s.stopped.Load() {
		panic(ErrStopping)
	}
	if h.s.busy(h.r) && h.s.Busy != nil {
		h.s.Busy()
	}
	if h.r.killed.Load() {
		if h.r.eval {
			return killError("Script killed by user with SCRIPT KILL...")
		}
		return killError("Script killed by user with FUNCTION KILL...")
	}
	return nil
}

// run prepares a script's run and carries it out. refusal is what Redis says
// of flags that do not allow it.
func (s *Scripts) run(c *Context, name string, flags script.Flags, eval, ro bool, invoke func(script.Host) []byte) {
	if flags&script.Compat == 0 && flags&script.NoWrites == 0 && ro {
		c.Out.Error("ERR Can not execute a script with write flag using *_ro command.")
		return
	}
	alone := c.Client != nil && c.Client.Alone()
	if alone && flags&(script.Compat|script.NoWrites) == 0 {
		c.Out.Error(ErrNoReplicas)
		return
	}
	full := c.Client != nil && c.Client.Full() && flags&script.AllowOOM == 0
	if full && flags&(script.Compat|script.NoWrites) == 0 {
		c.Out.Error("OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'")
		return
	}
	r := &running{name: name, args: c.Args, eval: eval, begun: s.now(), done: make(chan struct{})}
	s.running.Store(r)
	defer func() {
		s.running.Store(nil)
		close(r.done)
	}()
	h := &host{c: c, s: s, r: r, db: c.DB, readOnly: ro || flags&script.NoWrites != 0, full: full, alone: alone}
	c.Out.Raw(invoke(h))
	c.Counted = s.engine.Counted
}

// numKeys reads the number of keys at argument 2; bad is the error for what is
// no number.
func numKeys(c *Context, bad string) (keys, args [][]byte, ok bool) {
	n, isNum := crdt.ParseInt(c.Args[2])
	switch {
	case !isNum:
		c.Out.Error(bad)
	case n > int64(len(c.Args)-3):
		c.Out.Error("ERR Number of keys can't be greater than number of args")
	case n < 0:
		c.Out.Error("ERR Number of keys can't be negative")
	default:
		return c.Args[3 : 3+n], c.Args[3+n:], true
	}
	return nil, nil, false
}

func eval(c *Context)      { evalText(c, false) }
func evalRO(c *Context)    { evalText(c, true) }
func evalSHA(c *Context)   { evalCached(c, false) }
func evalSHARO(c *Context) { evalCached(c, true) }
func fcall(c *Context)     { callFunction(c, false) }
func fcallRO(c *Context)   { callFunction(c, true) }

func evalText(c *Context, ro bool) {
	keys, args, ok := numKeys(c, errNotInteger)
	if !ok {
		return
	}
	s, refusal := c.Scripts.load(c.Args[1])
	if refusal != "" {
		c.Out.Error(refusal)
		return
	}
	evalScript(c, s, keys, args, ro)
}

func evalCached(c *Context, ro bool) {
	if len(c.Args[1]) != 40 {
		c.Out.Error(errNoScript)
		return
	}
	keys, args, ok := numKeys(c, errNotInteger)
	if !ok {
		return
	}
	s := c.Scripts.engine.Find(string(c.Args[1]))
	if s == nil {
		c.Out.Error(errNoScript)
		return
	}
	evalScript(c, s, keys, args, ro)
}

func evalScript(c *Context, s *script.Script, keys, args [][]byte, ro bool) {
	c.Scripts.run(c, s.SHA, s.Flags, true, ro, func(h script.Host) []byte {
		return c.Scripts.engine.Run(s, h, keys, args, c.Out.Proto)
	})
}

func callFunction(c *Context, ro bool) {
	c.Scripts.Refresh(c)
	f := c.Scripts.byName[strings.ToLower(string(c.Args[1]))]
	if f == nil {
		c.Out.Error("ERR Function not found")
		return
	}
	keys, args, ok := numKeys(c, "ERR Bad number of keys provided")
	if !ok {
		return
	}
	c.Scripts.run(c, f.Name, f.Flags, false, ro, func(h script.Host) []byte {
		return c.Scripts.engine.Call(f, h, keys, args, c.Out.Proto)
	})
}

func scriptLoad(c *Context) {
	s, refusal := c.Scripts.load(c.Args[2])
	if refusal != "" {
		c.Out.Error(refusal)
		return
	}
	c.Out.BulkString(s.SHA)
}

func scriptExists(c *Context) {
	c.Out.Array(len(c.Args) - 2)
	for _, sha := range c.Args[2:] {
		c.Out.Bool(c.Scripts.engine.Find(string(sha)) != nil)
	}
}

func scriptFlush(c *Context) {
	if len(c.Args) > 3 || len(c.Args) == 3 && !is(c.Args[2], "SYNC") && !is(c.Args[2], "ASYNC") {
		c.Out.Error("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
		return
	}
	c.Scripts.engine.Flush()
	c.Scripts.countCached()
	c.Out.OK()
}

func functionLoad(c *Context) {
	replace := false
	for _, a := range c.Args[2 : len(c.Args)-1] {
		if !is(a, "REPLACE") {
			c.Out.Error(oneLine("ERR Unknown option given: " + string(cString(a))))
			return
		}
		replace = true
	}
	code := string(c.Args[len(c.Args)-1])
	c.Scripts.Refresh(c)
	lib, refusal := c.Scripts.add(c.Scripts.libs, c.Scripts.byName, code, replace)
	if refusal != "" {
		c.Out.Error(oneLine(refusal))
		return
	}
	c.SetElem(functionsKey, crdt.KindField, lib.Name, []byte(code))
	c.Scripts.relink(func(libs map[string]*script.Library) { libs[lib.Name] = lib })
	c.Out.BulkString(lib.Name)
}

// add loads a library that is to join others.
func (s *Scripts) add(libs map[string]*script.Library, byName map[string]*script.Function, code string, replace bool) (*script.Library, string) {
	name, refusal := script.LibraryName(code)
	if refusal != "" {
		return nil, refusal
	}
	if libs[name] != nil && !replace {
		return nil, "ERR Library '" + name + "' already exists"
	}
	lib, refusal := s.engine.LoadLibrary(code, s.timeout())
	if refusal != "" {
		return nil, refusal
	}
	for _, f := range lib.Functions {
		if o := byName[strings.ToLower(f.Name)]; o != nil && o.Library.Name != name {
			return nil, "ERR Function " + f.Name + " already exists"
		}
	}
	return lib, ""
}

// relink changes the libraries and finds their functions anew. The cells have
// the change already.
func (s *Scripts) relink(change func(map[string]*script.Library)) {
	change(s.libs)
	s.byName = map[string]*script.Function{}
	for _, name := range s.names() {
		s.link(s.libs[name])
	}
	s.count()
}

func functionDelete(c *Context) {
	c.Scripts.Refresh(c)
	name := string(c.Args[2])
	if c.Scripts.libs[name] == nil {
		c.Out.Error("ERR Library not found")
		return
	}
	c.RemoveElem(functionsKey, crdt.KindField, name)
	c.Scripts.relink(func(libs map[string]*script.Library) { delete(libs, name) })
	c.Out.OK()
}

// errSubcommand is the error for a subcommand's wrong number of arguments,
// where the subcommand itself finds out.
func errSubcommand(args [][]byte) string {
	return oneLine("ERR unknown subcommand or wrong number of arguments for '" + quote(args[1]) + "'. Try " +
		strings.ToUpper(string(cString(args[0]))) + " HELP.")
}

func functionFlush(c *Context) {
	switch {
	case len(c.Args) > 3:
		c.Out.Error(errSubcommand(c.Args))
		return
	case len(c.Args) == 3 && !is(c.Args[2], "SYNC") && !is(c.Args[2], "ASYNC"):
		c.Out.Error("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
		return
	}
	c.Scripts.Refresh(c)
	c.Remove(functionsKey)
	c.Scripts.relink(func(libs map[string]*script.Library) { clear(libs) })
	c.Out.OK()
}

func functionList(c *Context) {
	withCode, pattern, given := false, []byte(nil), false
	for i := 2; i < len(c.Args); i++ {
		switch a := c.Args[i]; {
		case !withCode && is(a, "WITHCODE"):
			withCode = true
		case !given && is(a, "LIBRARYNAME"):
			if i++; i >= len(c.Args) {
				c.Out.Error("ERR library name argument was not given")
				return
			}
			pattern, given = c.Args[i], true
		default:
			c.Out.Error(oneLine("ERR Unknown argument " + string(cString(a))))
			return
		}
	}
	c.Scripts.Refresh(c)
	names := c.Scripts.names()
	if given {
		names = slices.DeleteFunc(names, func(n string) bool { return !Match(pattern, []byte(n), true) })
	}
	c.Out.Array(len(names))
	for _, name := range names {
		lib := c.Scripts.libs[name]
		n := 3
		if withCode {
			n++
		}
		c.Out.Map(n)
		c.Out.BulkString("library_name")
		c.Out.BulkString(lib.Name)
		c.Out.BulkString("engine")
		c.Out.BulkString("LUA")
		c.Out.BulkString("functions")
		c.Out.Array(len(lib.Functions))
		for _, f := range lib.Functions {
			c.Out.Map(3)
			c.Out.BulkString("name")
			c.Out.BulkString(f.Name)
			c.Out.BulkString("description")
			if f.HasDesc {
				c.Out.BulkString(f.Desc)
			} else {
				c.Out.Null()
			}
			c.Out.BulkString("flags")
			flags := f.Flags.Names()
			c.Out.Set(len(flags))
			for _, name := range flags {
				c.Out.Status(name)
			}
		}
		if withCode {
			c.Out.BulkString("library_code")
			c.Out.BulkString(lib.Code)
		}
	}
}
