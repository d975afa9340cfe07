package lua

import (
	"errors"
	"iter"
)

// maxCoroutines bounds those that are suspended at once.
const maxCoroutines = 10000

// coroutine is the part of a Thread that is no main one.
type coroutine struct {
	fn     *Function
	status string
	in     []Value // handed to it by resume, and by it to yield's caller
	err    *Error
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	base   int // native calls below it
}

var errStopped = errors.New("lua: the coroutine's script has ended")

// resume runs a coroutine until it yields or ends. ok is false if it failed;
// then the value is the error.
func (t *Thread) resume(ct *Thread, args []Value) (ret []Value, ok bool) {
	c := ct.co
	if c == nil || c.status != "suspended" {
		status := "non-suspended"
		if c != nil && c.status == "dead" {
			status = "dead"
		}
		return []Value{"cannot resume " + status + " coroutine"}, false
	}
	if t.native+1 >= maxNative {
		return []Value{"C stack overflow"}, false
	}
	if t.co != nil {
		t.co.status = "normal"
	}
	c.in = append([]Value(nil), args...)
	c.status = "running"
	if c.next == nil {
		if len(t.S.running) >= maxCoroutines {
			t.Throw("not enough memory")
		}
		t.S.running[ct] = struct{}{}
		t.alloc(8 << 10)
		ct.native = t.native
		c.base = ct.native + 1
		c.next, c.stop = iter.Pull(func(yield func(struct{}) bool) {
			defer func() {
				if p := recover(); p != nil && p != any(errStopped) {
					panic(p)
				}
			}()
			c.yield = yield
			c.in, c.err = ct.Call(c.fn, c.in...)
		})
	}
	_, more := c.next()
	if t.co != nil {
		t.co.status = "running"
	}
	if more {
		c.status = "suspended"
		return c.in, true
	}
	c.status = "dead"
	delete(t.S.running, ct)
	if c.err != nil {
		return []Value{c.err.Value}, false
	}
	return c.in, true
}

func openCoroutine(s *State) {
	s.running = map[*Thread]struct{}{}
	create := func(t *Thread, args []Value) []Value {
		fn, ok := arg(args, 0).(*Function)
		if !ok || fn.native != nil {
			t.ArgError(1, "Lua function expected")
		}
		t.alloc(256)
		return []Value{&Thread{S: t.S, co: &coroutine{fn: fn, status: "suspended"}}}
	}
	check := func(t *Thread, args []Value) *Thread {
		ct, ok := arg(args, 0).(*Thread)
		if !ok {
			t.ArgError(1, "coroutine expected")
		}
		return ct
	}
	s.Register("coroutine", map[string]Native{
		"create": create,
		"resume": func(t *Thread, args []Value) []Value {
			r, ok := t.resume(check(t, args), args[1:])
			return append([]Value{ok}, r...)
		},
		"yield": func(t *Thread, args []Value) []Value {
			c := t.co
			if c == nil || t.native > c.base {
				t.runError("attempt to yield across metamethod/C-call boundary")
			}
			c.in = append([]Value(nil), args...)
			if !c.yield(struct{}{}) {
				panic(errStopped)
			}
			return c.in
		},
		"status": func(t *Thread, args []Value) []Value {
			ct := check(t, args)
			switch {
			case ct == t:
				return []Value{"running"}
			case ct.co == nil:
				return []Value{"normal"}
			}
			return []Value{ct.co.status}
		},
		"running": func(t *Thread, _ []Value) []Value {
			if t.co == nil {
				return []Value{nil}
			}
			return []Value{t}
		},
		"wrap": func(t *Thread, args []Value) []Value {
			ct := create(t, args)[0].(*Thread)
			return []Value{NewFunction("wrap", func(t *Thread, args []Value) []Value {
				r, ok := t.resume(ct, args)
				if !ok {
					if msg, isText := ToString(r[0]); isText {
						t.Throw(t.where(1) + msg)
					}
					t.Throw(r[0])
				}
				return r
			})}
		},
	})
}
