package script

import (
	"strings"

	"github.com/replicatord/replicatord/resp/script/lua"
)

// Library is a loaded library of functions.
type Library struct {
	Name      string
	Code      string
	Functions []*Function // in the order they were registered
}

// Function is one of a library's.
type Function struct {
	Name     string
	Desc     string
	HasDesc  bool
	Flags    Flags
	Library  *Library
	callback *lua.Function
}

// loading is a library while its code runs.
type loading struct {
	lib     *Library
	expired func() bool
}

const errName = "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long"

// validName reports whether a library or function may be called so.
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return s != ""
}

// LibraryName reads the name in the first line of a library's code. A refusal
// is the error reply, without its dash.
func LibraryName(code string) (name, refusal string) {
	if !strings.HasPrefix(code, "#!") {
		return "", "ERR Missing library metadata"
	}
	line, _, ok := strings.Cut(code, "\n")
	if !ok {
		return "", "ERR Invalid library metadata"
	}
	parts := words(line)
	if len(parts) == 0 {
		return "", "ERR Invalid library metadata"
	}
	engine, given := strings.TrimPrefix(parts[0], "#!"), false
	for _, p := range parts[1:] {
		if len(p) < 5 || !strings.EqualFold(p[:5], "name=") {
			return "", "ERR Invalid metadata value given: " + p
		}
		if given {
			return "", "ERR Invalid metadata value, name argument was given multiple times"
		}
		name, given = p[5:], true
	}
	switch {
	case !given:
		return "", "ERR Library name was not given"
	case !validName(name):
		return "", "ERR " + errName
	case !strings.EqualFold(engine, "lua"):
		return "", "ERR Engine '" + engine + "' not found"
	}
	return name, ""
}

// startFunctions makes the interpreter of functions. Its globals are an empty
// table that reads from another: from loadAPI while a library is loaded, and from the
// scripts' globals, without what is EVAL's alone, when a function runs.
func (e *Engine) startFunctions() {
	if e.functions != nil {
		return
	}
	s := e.newState()
	e.functions = s
	guard(s.Globals)
	s.Globals.Lock()
	s.LockStrings()

	redis := lua.NewTable(0, 0)
	redis.Set("register_function", lua.NewFunction("register_function", e.register))
	e.addLog(redis)
	guard(redis)
	e.loadAPI = lua.NewTable(0, 0)
	e.loadAPI.Set("redis", redis)
	guard(e.loadAPI)
	e.loadAPI.Lock()

	e.fnGlobals, e.fnMeta = lua.NewTable(0, 0), lua.NewTable(0, 0)
	e.fnMeta.Set("__index", s.Globals)
	e.fnGlobals.SetMeta(e.fnMeta)
	e.fnGlobals.Lock()
}

// LoadLibrary compiles a library and runs its code, which registers functions.
// expired, if not nil, reports that this takes too long. A refusal is the error
// reply, without its dash.
func (e *Engine) LoadLibrary(code string, expired func() bool) (*Library, string) {
	name, refusal := LibraryName(code)
	if refusal != "" {
		return nil, refusal
	}
	e.startFunctions()
	lib := &Library{Name: name, Code: code}
	fn, err := e.functions.Load(code[strings.IndexByte(code, '\n'):], "@user_function")
	if err != nil {
		return nil, "ERR Error compiling function: " + err.Error()
	}
	fn.SetEnv(e.fnGlobals)
	e.load = &loading{lib, expired}
	e.fnMeta.Set("__index", e.loadAPI)
	e.heap = heapBytes()
	_, failed := e.functions.Main.Call(fn)
	e.fnMeta.Set("__index", e.functions.Globals)
	e.load = nil
	e.functions.Reset()
	if failed != nil {
		msg, _, _ := errorInfo(e.functions.Main, failed)
		return nil, "ERR Error registering functions: " + toLine.Replace(msg)
	}
	if len(lib.Functions) == 0 {
		return nil, "ERR No functions registered"
	}
	return lib, ""
}

// register is redis.register_function.
func (e *Engine) register(t *lua.Thread, args []lua.Value) []lua.Value {
	if e.load == nil {
		throw(t, "redis.register_function can only be called on FUNCTION LOAD command")
	}
	f := &Function{Library: e.load.lib}
	switch len(args) {
	case 1:
		namedArgs(t, args[0], f)
	case 2:
		var ok bool
		if f.Name, ok = lua.ToString(args[0]); !ok {
			throw(t, "first argument to redis.register_function must be a string")
		}
		if f.callback, ok = args[1].(*lua.Function); !ok {
			throw(t, "second argument to redis.register_function must be a function")
		}
	default:
		throw(t, "wrong number of arguments to redis.register_function")
	}
	if !validName(f.Name) {
		throw(t, errName)
	}
	for _, o := range e.load.lib.Functions {
		if o.Name == f.Name {
			throw(t, "Function already exists in the library")
		}
	}
	e.load.lib.Functions = append(e.load.lib.Functions, f)
	return nil
}

// namedArgs reads the table of a register_function with one argument.
func namedArgs(t *lua.Thread, v lua.Value, f *Function) {
	tab, ok := v.(*lua.Table)
	if !ok {
		throw(t, "calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).")
	}
	named := false
	for k, v, _ := tab.Next(nil); k != nil; k, v, _ = tab.Next(k) {
		key, ok := lua.ToString(k)
		if !ok {
			throw(t, "named argument key given to redis.register_function is not a string")
		}
		switch strings.ToLower(key) {
		case "function_name":
			if f.Name, named = lua.ToString(v); !named {
				throw(t, "function_name argument given to redis.register_function must be a string")
			}
		case "description":
			if f.Desc, f.HasDesc = lua.ToString(v); !f.HasDesc {
				throw(t, "description argument given to redis.register_function must be a string")
			}
		case "callback":
			if f.callback, ok = v.(*lua.Function); !ok {
				throw(t, "callback argument given to redis.register_function must be a function")
			}
		case "flags":
			list, ok := v.(*lua.Table)
			if !ok {
				throw(t, "flags argument to redis.register_function must be a table representing function flags")
			}
			for i := 1; ; i++ {
				v := t.Index(list, float64(i))
				if v == nil {
					break
				}
				name, _ := lua.ToString(v)
				flag, ok := flagNamed(strings.ToLower(name))
				if !ok {
					throw(t, "unknown flag given")
				}
				f.Flags |= flag
			}
		default:
			throw(t, "unknown argument given to redis.register_function")
		}
	}
	switch {
	case !named:
		throw(t, "redis.register_function must get a function name argument")
	case f.callback == nil:
		throw(t, "redis.register_function must get a callback argument")
	}
}

// Call calls a function and returns the reply in the client's protocol.
func (e *Engine) Call(f *Function, host Host, keys, args [][]byte, proto int) []byte {
	return e.invoke(e.functions, f.Name, f.callback, host, proto, array(keys), array(args))
}
