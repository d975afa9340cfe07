package script

import (
	"crypto/sha1"
	"encoding/hex"

	"github.com/replicatord/replicatord/resp/script/lua"
)

// Version of Redis that scripts are told.
const (
	Version    = "7.0.15"
	versionNum = 0x0007000f
)

// SHA1 returns the name of a script: the hex digest of its text.
func SHA1(text string) string {
	h := sha1.Sum([]byte(text))
	return hex.EncodeToString(h[:])
}

func throw(t *lua.Thread, msg string) { t.Throw(errorTable(msg)) }

// commandArgs makes a command of Lua values; what is wrong with them is the
// error.
func commandArgs(args []lua.Value) ([][]byte, string) {
	if len(args) == 0 {
		return nil, "Please specify at least one argument for this redis lib call"
	}
	out := make([][]byte, len(args))
	for i, v := range args {
		switch v := v.(type) {
		case string:
			out[i] = []byte(v)
		case float64:
			out[i] = []byte(lua.FormatNumber(v, 17))
		default:
			return nil, "Lua redis lib command arguments must be strings or integers"
		}
	}
	return out, ""
}

// call is redis.call and redis.pcall.
func (e *Engine) call(raise bool) lua.Native {
	return func(t *lua.Thread, args []lua.Value) []lua.Value {
		r := e.run
		if r == nil {
			throw(t, "redis.call/pcall can only be called inside a script invocation")
		}
		var v lua.Value
		cmd, bad := commandArgs(args)
		isErr := bad != ""
		if isErr {
			v = errorTable(bad)
		} else {
			raw := r.host.Call(cmd, r.proto)
			isErr = len(raw) > 0 && raw[0] == '-'
			v = fromReply(t, raw)
		}
		if isErr && raise {
			t.Throw(v)
		}
		return []lua.Value{v}
	}
}

// openRedis makes the redis table of scripts and functions.
func (e *Engine) openRedis() *lua.Table {
	tab := lua.NewTable(0, 0)
	inRun := func(t *lua.Thread, name string) *run {
		if e.run == nil {
			throw(t, "redis."+name+" can only be called inside a script invocation")
		}
		return e.run
	}
	lua.AddFunctions(tab, map[string]lua.Native{
		"call":  e.call(true),
		"pcall": e.call(false),
		"setresp": func(t *lua.Thread, args []lua.Value) []lua.Value {
			r := inRun(t, "setresp")
			if len(args) != 1 {
				throw(t, "redis.setresp() requires one argument.")
			}
			f, _ := lua.ToNumber(args[0])
			if n := int(f); n != 2 && n != 3 {
				throw(t, "RESP version must be 2 or 3.")
			}
			r.proto = int(f)
			return nil
		},
		"sha1hex": func(t *lua.Thread, args []lua.Value) []lua.Value {
			if len(args) != 1 {
				throw(t, "wrong number of arguments")
			}
			s, _ := lua.ToString(args[0])
			t.Step(len(s) / 64)
			return []lua.Value{SHA1(s)}
		},
		"error_reply": func(t *lua.Thread, args []lua.Value) []lua.Value {
			s, ok := oneString(args)
			if !ok {
				return []lua.Value{errorTable("wrong number or type of arguments")}
			}
			if s == "" || s[0] != '-' {
				s = "-" + s
			}
			return []lua.Value{errorTable(s)}
		},
		"status_reply": func(_ *lua.Thread, args []lua.Value) []lua.Value {
			s, ok := oneString(args)
			if !ok {
				return []lua.Value{errorTable("wrong number or type of arguments")}
			}
			return []lua.Value{single("ok", s)}
		},
		"set_repl": func(t *lua.Thread, args []lua.Value) []lua.Value {
			inRun(t, "set_repl")
			if len(args) != 1 {
				throw(t, "redis.set_repl() requires two arguments.")
			}
			if f, _ := lua.ToNumber(args[0]); int(f)&^3 != 0 {
				throw(t, "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.")
			}
			return nil
		},
		"acl_check_cmd": func(t *lua.Thread, args []lua.Value) []lua.Value {
			r := inRun(t, "acl_check_cmd")
			cmd, bad := commandArgs(args)
			if bad != "" {
				throw(t, bad)
			}
			allowed, known := r.host.Allowed(cmd)
			if !known {
				throw(t, "Invalid command passed to redis.acl_check_cmd()")
			}
			return []lua.Value{allowed}
		},
	})
	e.addLog(tab)
	tab.Set("REPL_NONE", 0.0)
	tab.Set("REPL_AOF", 1.0)
	tab.Set("REPL_SLAVE", 2.0)
	tab.Set("REPL_REPLICA", 2.0)
	tab.Set("REPL_ALL", 3.0)
	return tab
}

func oneString(args []lua.Value) (string, bool) {
	if len(args) != 1 {
		return "", false
	}
	s, ok := args[0].(string)
	return s, ok
}

// addLog adds redis.log and the version, which libraries have while they are
// loaded too.
func (e *Engine) addLog(tab *lua.Table) {
	tab.Set("log", lua.NewFunction("log", func(t *lua.Thread, args []lua.Value) []lua.Value {
		if len(args) < 2 {
			throw(t, "redis.log() requires two arguments or more.")
		}
		f, ok := lua.ToNumber(args[0])
		if !ok {
			throw(t, "First argument must be a number (log level).")
		}
		level := int(f)
		if level < 0 || level > 3 {
			throw(t, "Invalid debug level.")
		}
		var msg []byte
		for i, v := range args[1:] {
			if s, ok := lua.ToString(v); ok {
				if i > 0 {
					msg = append(msg, ' ')
				}
				msg = append(msg, s...)
			}
		}
		if e.Log != nil {
			e.Log(level, string(msg))
		}
		return nil
	}))
	for i, name := range []string{"LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING"} {
		tab.Set(name, float64(i))
	}
	tab.Set("REDIS_VERSION_NUM", float64(versionNum))
	tab.Set("REDIS_VERSION", Version)
}

// newState makes an interpreter with everything a script may use, unlocked.
func (e *Engine) newState() *lua.State {
	s := lua.New()
	s.Seed(int32(e.seed()))
	g := s.Globals
	pcall := g.GetString("pcall").(*lua.Function)
	g.Set("cjson", openJSON())
	g.Set("struct", openStruct())
	g.Set("cmsgpack", openMsgpack())
	g.Set("bit", openBit())
	// Errors are tables in Redis 7; scripts that were written before it find
	// the message.
	g.Set("pcall", lua.NewFunction("pcall", func(t *lua.Thread, args []lua.Value) []lua.Value {
		if len(args) == 0 {
			return []lua.Value{false, "attempt to call a boolean value"}
		}
		r := pcall.CallNative(t, args)
		if len(r) == 2 && r[0] == false {
			if tab, ok := r[1].(*lua.Table); ok {
				if msg, ok := lua.ToString(t.Index(tab, "err")); ok {
					r[1] = msg
				}
			}
		}
		return r
	}))
	g.Set("redis", e.openRedis())
	s.Hook = e.hook
	return s
}

// guard makes reading a missing field of a table an error.
func guard(tab *lua.Table) {
	m := lua.NewTable(0, 0)
	m.Set("__index", lua.NewFunction("__index", func(t *lua.Thread, args []lua.Value) []lua.Value {
		if len(args) != 2 {
			t.Errorf("Wrong number of arguments to luaProtectedTableError")
		}
		name, ok := lua.ToString(args[1])
		if !ok {
			t.Errorf("Second argument to luaProtectedTableError must be a string or number")
		}
		t.Errorf("Script attempted to access nonexistent global variable '%s'", name)
		return nil
	}))
	tab.SetMeta(m)
}
