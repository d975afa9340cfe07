package lua

import (
	"fmt"
	"math"
)

// State is one interpreter: its global table and what all its threads share.
// Not safe for concurrent use.
type State struct {
	Globals *Table
	Main    *Thread
	strings *Table // metatable of strings

	// Hook, if set, is called after every HookEvery steps or, with Allocated set
	// back by it, bytes. A step is a round of a loop, a call, or what takes a
	// native function as long. An error it returns ends the script: no pcall
	// catches it.
	Hook      func() error
	Allocated int
	left      int
	killed    *Error
	seed      [3]uint16
	running   map[*Thread]struct{}
}

// HookEvery is how many steps lie between two calls of the hook.
const HookEvery = 10000

// allocStep is how many bytes lie between two calls of the hook.
const allocStep = 1 << 20

// MaxString is the longest string a script can make.
const MaxString = 512 << 20

// Limits as Lua's own.
const (
	maxDepth  = 16380 // calls of Lua functions within each other
	maxNative = 200   // native functions that call back, within each other
	maxMeta   = 100   // a chain of metatables
	maxValues = 8000  // arguments or results
)

// Thread is a coroutine, or the main one.
type Thread struct {
	S      *State
	stack  []Value
	top    int
	depth  int
	native int
	frame  *frame
	frames []*frame
	one    [1]Value
	inC    bool // a native function runs
	co     *coroutine
}

// frame is a function that runs.
type frame struct {
	t       *Thread
	fn      *Function
	regs    []Value
	varargs []Value
	ret     []Value
	tail    *Function // to be called in its place, with ret
	parent  *frame
	line    int    // where it is, at the latest call or error
	site    *eCall // the latest call
	tailed  bool   // was itself called in place of another
}

// Error is a Lua error as it unwinds, with where it was raised: Source as the
// chunk was named, "" if no Lua function runs.
type Error struct {
	Value  Value
	Source string
	Line   int
}

func (e *Error) Error() string {
	if s, ok := ToString(e.Value); ok {
		return s
	}
	return "(error object is a " + TypeName(e.Value) + " value)"
}

// New returns an interpreter with the libraries that scripts may have.
func New() *State {
	s := &State{Globals: NewTable(0, 64), left: HookEvery, seed: [3]uint16{0x330e, 0xabcd, 0x1234}}
	s.Main = &Thread{S: s}
	openBase(s)
	openString(s)
	openTable(s)
	openMath(s)
	openCoroutine(s)
	return s
}

// Load compiles a chunk. source names it, with @ before a file's name. The error
// is Lua's message.
func (s *State) Load(src, source string) (fn *Function, err error) {
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(syntaxError)
			if !ok {
				panic(p)
			}
			fn, err = nil, fmt.Errorf("%s", string(e))
		}
	}()
	p := parse(src, source)
	compile(p)
	return &Function{proto: p, env: s.Globals}, nil
}

// SetEnv sets the globals of a function made by Load.
func (f *Function) SetEnv(env *Table) { f.env = env }

// Call calls a function in protected mode. What it returns is to be used
// before the next call.
func (t *Thread) Call(fn Value, args ...Value) (ret []Value, err *Error) {
	top, depth, native, fr, inC := t.top, t.depth, t.native, t.frame, t.inC
	defer func() {
		if p := recover(); p != nil {
			e, ok := p.(*Error)
			if !ok {
				panic(p)
			}
			t.top, t.depth, t.native, t.frame, t.inC = top, depth, native, fr, inC
			ret, err = nil, e
		}
	}()
	return t.invoke(fn, args), nil
}

// Reset frees what a script left on the stack and lets the next one run.
func (s *State) Reset() {
	s.killed, s.left, s.Allocated = nil, HookEvery, 0
	for ct := range s.running {
		ct.co.stop()
		delete(s.running, ct)
	}
	t := s.Main
	t.top, t.depth, t.native, t.frame, t.inC = 0, 0, 0, nil, false
	if len(t.stack) > 1<<12 {
		t.stack, t.frames = nil, nil
	}
	clear(t.stack)
}

// invoke calls a function from a native one.
func (t *Thread) invoke(fn Value, args []Value) []Value {
	if t.native++; t.native > maxNative {
		t.native--
		t.runError("C stack overflow")
	}
	base := t.top
	t.reserve(len(args))
	copy(t.stack[base:], args)
	up := t.frame
	if f, ok := fn.(*Function); ok && f.native != nil {
		t.frame = &frame{t: t, fn: f, parent: up}
	}
	r := t.call(fn, base, len(args), nil)
	t.frame = up
	t.top = base
	t.native--
	return r
}

// reserve takes n more slots of the stack.
func (t *Thread) reserve(n int) {
	if t.top += n; t.top > len(t.stack) {
		s := make([]Value, max(2*len(t.stack), t.top+64))
		copy(s, t.stack)
		t.stack = s
	}
}

// tick counts steps.
func (t *Thread) tick(n int) {
	if t.S.left -= n; t.S.left < 0 {
		t.hook()
	}
}

// alloc counts bytes.
func (t *Thread) alloc(n int) {
	if t.S.Allocated += n; t.S.Allocated > allocStep {
		t.hook()
	}
}

func (t *Thread) hook() {
	s := t.S
	if s.killed == nil {
		s.left = HookEvery
		if s.Hook == nil {
			s.Allocated = 0
			return
		}
		err := s.Hook()
		s.Allocated = 0
		if err == nil {
			return
		}
		s.killed = &Error{Value: err.Error()}
		if f := t.luaFrame(); f != nil {
			s.killed.Source, s.killed.Line = f.fn.proto.source, f.line
		}
		if v, ok := err.(interface{ LuaValue() Value }); ok {
			s.killed.Value = v.LuaValue()
		}
	}
	s.left = 0 // to be thrown again wherever it is caught
	panic(s.killed)
}

func (t *Thread) luaFrame() *frame {
	f := t.frame
	for f != nil && f.fn.proto == nil {
		f = f.parent
	}
	return f
}

// room fails if a string of n bytes is too much.
func (t *Thread) room(n int) {
	if n > MaxString || n < 0 {
		t.Throw("not enough memory")
	}
	t.alloc(n)
}

// call calls a function with n arguments at base of the stack; e is the call
// for messages, if one is in the source.
func (t *Thread) call(fv Value, base, n int, e *eCall) []Value {
	fn, ok := fv.(*Function)
	if !ok {
		h, ok := t.meta(fv, "__call").(*Function)
		if !ok {
			t.typeError("call", fv, e)
		}
		t.reserve(1)
		copy(t.stack[base+1:base+n+1], t.stack[base:base+n])
		t.stack[base] = fv
		n++
		fn = h
	}
	t.tick(1)
	if fn.native != nil {
		was := t.inC
		t.inC = true
		r := fn.native(t, t.stack[base:base+n:base+n])
		t.inC = was
		return r
	}
	was := t.inC
	t.inC = false
	r := t.run(fn, base, n)
	t.inC = was
	return r
}

// run runs a Lua function, and what takes its place by tail calls.
func (t *Thread) run(fn *Function, base, n int) []Value {
	if t.depth >= maxDepth {
		t.runError("stack overflow")
	}
	if t.depth == len(t.frames) {
		t.frames = append(t.frames, &frame{t: t})
	}
	f := t.frames[t.depth]
	f.parent, f.tailed = t.frame, false
	t.frame = f
	t.depth++
	for {
		p := fn.proto
		np := len(p.params)
		f.varargs = nil
		if n > np {
			if p.vararg {
				f.varargs = append([]Value(nil), t.stack[base+np:base+n]...)
			}
			n = np
		}
		t.top = base
		t.reserve(p.slots)
		f.regs = t.stack[base : base+p.slots : base+p.slots]
		clear(f.regs[n:])
		for i, v := range p.params {
			if v.cell {
				f.regs[i] = &cell{f.regs[i]}
			}
		}
		if p.arg != nil && !p.usesArg {
			setLocal(f, p.arg, t.argTable(f.varargs))
		} else if p.arg != nil {
			setLocal(f, p.arg, nil)
		}
		f.fn, f.ret, f.tail, f.line = fn, nil, nil, p.line
		p.run(f)
		ret := f.ret
		f.ret = nil
		if f.tail == nil {
			t.depth--
			t.frame = f.parent
			return ret
		}
		// ret are the arguments of the next.
		t.tick(1)
		fn, n = f.tail, len(ret)
		f.tailed = true
		t.top = base
		t.reserve(n)
		copy(t.stack[base:], ret)
	}
}

func (t *Thread) argTable(args []Value) *Table {
	a := NewTable(len(args), 1)
	copy(a.arr, args)
	a.Set("n", float64(len(args)))
	return a
}

// closure makes a function of its proto and the variables it uses.
func (f *frame) closure(p *proto) *Function {
	fn := &Function{proto: p, env: f.fn.env, up: make([]*cell, len(p.upvals))}
	for i := range p.upvals {
		if u := &p.upvals[i]; u.fromUp {
			fn.up[i] = f.fn.up[u.fromIdx]
		} else {
			fn.up[i] = f.regs[u.slot.slot].(*cell)
		}
	}
	f.t.alloc(48 + 8*len(fn.up))
	return fn
}

// Throw raises an error value.
func (t *Thread) Throw(v Value) {
	e := &Error{Value: v}
	if f := t.luaFrame(); f != nil {
		e.Source, e.Line = f.fn.proto.source, f.line
	}
	panic(e)
}

// Errorf raises a message with the place where the running Lua function is
// before it.
func (t *Thread) Errorf(format string, args ...any) {
	t.Throw(t.where(1) + fmt.Sprintf(format, args...))
}

// runError raises an error of an operation: with its place, if it is Lua's.
func (t *Thread) runError(format string, args ...any) {
	where := ""
	if !t.inC {
		where = t.where(1)
	}
	t.Throw(where + fmt.Sprintf(format, args...))
}

// where returns the place of a caller, 1 for the innermost, "" if it is none
// of Lua's.
func (t *Thread) where(level int) string {
	f := t.frame
	for ; level > 1 && f != nil; level-- {
		if f.tailed && level == 2 {
			return ""
		}
		f = f.parent
	}
	if f == nil || f.fn.proto == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d: ", f.fn.proto.chunk, f.line)
}

// meta returns a value's metamethod, nil if there is none.
func (t *Thread) meta(v Value, event string) Value {
	if m := t.metatable(v); m != nil {
		return m.GetString(event)
	}
	return nil
}

func (t *Thread) metatable(v Value) *Table {
	switch v := v.(type) {
	case *Table:
		return v.meta
	case *Userdata:
		return v.Meta
	case string:
		return t.S.strings
	}
	return nil
}

var hashIndex, hashNewIndex = hashString("__index"), hashString("__newindex")

// index is obj[key] with metamethods; from is what obj is in the source, nil
// if unknown.
func (t *Thread) index(obj, key Value, from expr) Value {
	for range maxMeta {
		var h Value
		if tab, ok := obj.(*Table); ok {
			if v := tab.Get(key); v != nil || tab.meta == nil {
				return v
			}
			p := tab.meta.findString("__index", hashIndex)
			if p == nil || *p == nil {
				return nil
			}
			h = *p
		} else if h = t.meta(obj, "__index"); h == nil {
			t.typeErrorOf("index", obj, from)
		}
		if fn, ok := h.(*Function); ok {
			return first(t.invokeMeta(fn, obj, key))
		}
		obj = h
	}
	t.runError("loop in gettable")
	return nil
}

func first(r []Value) Value {
	if len(r) > 0 {
		return r[0]
	}
	return nil
}

// invokeMeta calls a metamethod: not as a native function does, so that
// messages have the place of the operation.
func (t *Thread) invokeMeta(fn Value, args ...Value) []Value {
	if t.native++; t.native > maxNative {
		t.native--
		t.runError("C stack overflow")
	}
	base := t.top
	t.reserve(len(args))
	copy(t.stack[base:], args)
	if t.frame != nil {
		t.frame.site = nil
	}
	r := t.call(fn, base, len(args), nil)
	t.top = base
	t.native--
	return r
}

const errReadonly = "Attempt to modify a readonly table"

// setIndex is obj[key] = v with metamethods.
func (t *Thread) setIndex(obj, key, v Value, from expr) {
	for range maxMeta {
		var h Value
		if tab, ok := obj.(*Table); ok {
			if tab.readonly {
				t.runError(errReadonly)
			}
			p := tab.find(key)
			if p == nil {
				t.checkKey(key)
			}
			if p != nil && *p != nil || tab.meta == nil {
				t.put(tab, p, key, v)
				return
			}
			q := tab.meta.findString("__newindex", hashNewIndex)
			if q == nil || *q == nil {
				t.put(tab, p, key, v)
				return
			}
			if p == nil {
				tab.slot(key)
			}
			h = *q
		} else if h = t.meta(obj, "__newindex"); h == nil {
			t.typeErrorOf("index", obj, from)
		}
		if fn, ok := h.(*Function); ok {
			t.invokeMeta(fn, obj, key, v)
			return
		}
		obj = h
	}
	t.runError("loop in settable")
}

func (t *Thread) checkKey(key Value) {
	if key == nil {
		t.runError("table index is nil")
	}
	if f, ok := key.(float64); ok && f != f {
		t.runError("table index is NaN")
	}
}

func (t *Thread) put(tab *Table, p *Value, key, v Value) {
	if p != nil {
		*p = v
		tab.absent = 0
		return
	}
	n := len(tab.nodes) + len(tab.arr)
	*tab.slot(key) = v
	if m := len(tab.nodes) + len(tab.arr); m > n {
		t.alloc(40 * (m - n))
	}
}

// setRaw is a rawset by Lua: of a locked table it fails.
func (t *Thread) setRaw(tab *Table, key, v Value) {
	if tab.readonly {
		t.runError(errReadonly)
	}
	p := tab.find(key)
	if p == nil {
		t.checkKey(key)
	}
	t.put(tab, p, key, v)
}

// describe names an expression for messages: " global 'x'" and so on.
func describe(e expr) string {
	switch e := e.(type) {
	case *eLocal:
		return "local '" + e.v.name + "'"
	case *eUp:
		return "upvalue '" + e.name + "'"
	case *eGlobal:
		return "global '" + e.name + "'"
	case *eIndex:
		if c, ok := e.key.(*eConst); ok {
			if s, ok := c.v.(string); ok {
				return "field '" + cString(s) + "'"
			}
		}
		return "field '?'"
	case *eParen:
		return describe(e.e)
	}
	return ""
}

func (t *Thread) typeErrorOf(op string, v Value, from expr) {
	if what := describe(from); what != "" {
		t.runError("attempt to %s %s (a %s value)", op, what, TypeName(v))
	}
	t.runError("attempt to %s a %s value", op, TypeName(v))
}

func (t *Thread) typeError(op string, v Value, e *eCall) {
	if e != nil && e.method != "" {
		t.runError("attempt to %s method '%s' (a %s value)", op, e.method, TypeName(v))
	}
	var from expr
	if e != nil {
		from = e.fn
	}
	t.typeErrorOf(op, v, from)
}

// arith does arithmetic on what is not two numbers, or needs no fast way.
func (t *Thread) arith(event string, x, y Value, ex, ey expr) Value {
	m, okx := ToNumber(x)
	n, oky := ToNumber(y)
	if okx && oky {
		switch event {
		case "__add":
			return num(m + n)
		case "__sub":
			return num(m - n)
		case "__mul":
			return num(m * n)
		case "__div":
			return num(divide(m, n))
		case "__mod":
			return num(modulo(m, n))
		case "__pow":
			return num(math.Pow(m, n))
		case "__unm":
			return num(-m)
		}
	}
	h := t.meta(x, event)
	if h == nil {
		h = t.meta(y, event)
	}
	if h != nil {
		return first(t.invokeMeta(h, x, y))
	}
	if okx {
		x, ex = y, ey
	}
	t.typeErrorOf("perform arithmetic on", x, ex)
	return nil
}

// modulo is a - floor(a/b)*b, as Lua has it.
func modulo(a, b float64) float64 {
	q := math.Floor(divide(a, b))
	return a - q*b
}

func (t *Thread) length(v Value, from expr) Value {
	if h := t.meta(v, "__len"); h != nil {
		return first(t.invokeMeta(h, v, nil))
	}
	t.typeErrorOf("get length of", v, from)
	return nil
}

func (t *Thread) equal(x, y Value) bool {
	if rawEqual(x, y) {
		return true
	}
	var a, b *Table
	switch v := x.(type) {
	case *Table:
		if w, ok := y.(*Table); ok {
			a, b = v.meta, w.meta
		}
	case *Userdata:
		if w, ok := y.(*Userdata); ok {
			a, b = v.Meta, w.Meta
		}
	}
	if a == nil || b == nil {
		return false
	}
	h := a.GetString("__eq")
	if h == nil || !rawEqual(h, b.GetString("__eq")) {
		return false
	}
	return truth(first(t.invokeMeta(h, x, y)))
}

func (t *Thread) less(x, y Value) bool {
	switch a := x.(type) {
	case float64:
		if b, ok := y.(float64); ok {
			return a < b
		}
	case string:
		if b, ok := y.(string); ok {
			return a < b
		}
	}
	if r, ok := t.order("__lt", x, y); ok {
		return r
	}
	t.compareError(x, y)
	return false
}

func (t *Thread) lessEqual(x, y Value) bool {
	switch a := x.(type) {
	case float64:
		if b, ok := y.(float64); ok {
			return a <= b
		}
	case string:
		if b, ok := y.(string); ok {
			return a <= b
		}
	}
	if r, ok := t.order("__le", x, y); ok {
		return r
	}
	if r, ok := t.order("__lt", y, x); ok {
		return !r
	}
	t.compareError(x, y)
	return false
}

// order calls the metamethod that both values share.
func (t *Thread) order(event string, x, y Value) (bool, bool) {
	if TypeName(x) != TypeName(y) {
		return false, false
	}
	h := t.meta(x, event)
	if h == nil || !rawEqual(h, t.meta(y, event)) {
		return false, false
	}
	return truth(first(t.invokeMeta(h, x, y))), true
}

func (t *Thread) compareError(x, y Value) {
	a, b := TypeName(x), TypeName(y)
	if a[2] == b[2] {
		t.runError("attempt to compare two %s values", a)
	}
	t.runError("attempt to compare %s with %s", a, b)
}

// concat joins values from the right, strings and numbers many at a time.
func (t *Thread) concat(vals []Value, from []expr) Value {
	for len(vals) > 1 {
		n := len(vals)
		a, oka := ToString(vals[n-2])
		b, okb := ToString(vals[n-1])
		if !oka || !okb {
			h := t.meta(vals[n-2], "__concat")
			if h == nil {
				h = t.meta(vals[n-1], "__concat")
			}
			if h == nil {
				bad := n - 2
				if oka {
					bad = n - 1
				}
				var e expr
				if bad < len(from) && (bad < n-1 || n == len(from)) {
					e = from[bad]
				}
				t.typeErrorOf("concatenate", vals[bad], e)
			}
			vals[n-2] = first(t.invokeMeta(h, vals[n-2], vals[n-1]))
			vals = vals[:n-1]
			continue
		}
		i, size := n-2, len(a)+len(b)
		for ; i > 0; i-- {
			s, ok := ToString(vals[i-1])
			if !ok {
				break
			}
			size += len(s)
		}
		t.room(size)
		out := make([]byte, 0, size)
		for _, v := range vals[i:] {
			switch v := v.(type) {
			case string:
				out = append(out, v...)
			case float64:
				out = append(out, FormatNumber(v, 14)...)
			}
		}
		vals[i] = string(out)
		vals = vals[:i+1]
	}
	return vals[0]
}

// Room counts a string about to be made, of at most MaxString bytes.
func (t *Thread) Room(n int) { t.room(n) }

// Step counts work of a native function as n steps.
func (t *Thread) Step(n int) { t.tick(n) }

// Index is obj[key] with metamethods.
func (t *Thread) Index(obj, key Value) Value { return t.index(obj, key, nil) }

// SetField is obj[key] = v with metamethods.
func (t *Thread) SetField(obj, key, v Value) { t.setIndex(obj, key, v, nil) }

// MaxNesting is how deep a native function may follow tables into tables.
const MaxNesting = maxValues

// Place returns where the running Lua function is: its source and line, ""
// if there is none.
func (t *Thread) Place() (source string, line int) {
	if f := t.luaFrame(); f != nil {
		return f.fn.proto.source, f.line
	}
	return "", 0
}
