package lua

import "math"

// signal says how a block ended.
type signal int

const (
	sigNext signal = iota
	sigBreak
	sigReturn
)

type (
	block  func(*frame) signal
	value  func(*frame) Value
	values func(*frame) []Value
)

// compile makes closures of a function and those within it.
func compile(p *proto) { p.run = compileBlock(p.body) }

func compileBlock(list []stmt) block {
	steps := make([]block, len(list))
	for i, s := range list {
		steps[i] = compileStmt(s)
	}
	switch len(steps) {
	case 0:
		return func(*frame) signal { return sigNext }
	case 1:
		return steps[0]
	case 2:
		a, b := steps[0], steps[1]
		return func(f *frame) signal {
			if s := a(f); s != sigNext {
				return s
			}
			return b(f)
		}
	}
	return func(f *frame) signal {
		for _, step := range steps {
			if s := step(f); s != sigNext {
				return s
			}
		}
		return sigNext
	}
}

// setLocal gives a variable that comes into scope its value.
func setLocal(f *frame, v *local, x Value) {
	if v.cell {
		f.regs[v.slot] = &cell{x}
	} else {
		f.regs[v.slot] = x
	}
}

func compileStmt(s stmt) block {
	switch s := s.(type) {
	case *sLocal:
		return compileLocal(s)
	case *sLocalFunc:
		compile(s.f.p)
		return func(f *frame) signal {
			if s.v.cell {
				c := &cell{}
				f.regs[s.v.slot] = c
				c.v = f.closure(s.f.p)
			} else {
				f.regs[s.v.slot] = f.closure(s.f.p)
			}
			return sigNext
		}
	case *sAssign:
		return compileAssign(s)
	case *sCall:
		call := compileCall(s.e)
		return func(f *frame) signal {
			call(f)
			return sigNext
		}
	case *sDo:
		return compileBlock(s.body)
	case *sIf:
		return compileIf(s)
	case *sWhile:
		cond, body := compileExpr(s.cond), compileBlock(s.body)
		return func(f *frame) signal {
			for truth(cond(f)) {
				f.t.tick(1)
				if sig := body(f); sig == sigBreak {
					break
				} else if sig == sigReturn {
					return sig
				}
			}
			return sigNext
		}
	case *sRepeat:
		cond, body := compileExpr(s.cond), compileBlock(s.body)
		return func(f *frame) signal {
			for {
				f.t.tick(1)
				if sig := body(f); sig == sigBreak {
					break
				} else if sig == sigReturn {
					return sig
				}
				if truth(cond(f)) {
					break
				}
			}
			return sigNext
		}
	case *sFor:
		return compileFor(s)
	case *sForIn:
		return compileForIn(s)
	case *sReturn:
		return compileReturn(s)
	case *sBreak:
		return func(*frame) signal { return sigBreak }
	}
	panic("lua: unknown statement")
}

func compileLocal(s *sLocal) block {
	if len(s.vars) == 1 && len(s.vals) == 1 {
		v, e := s.vars[0], compileExpr(s.vals[0])
		return func(f *frame) signal {
			setLocal(f, v, e(f))
			return sigNext
		}
	}
	get := compileList(s.vals)
	return func(f *frame) signal {
		var buf [8]Value
		vals := get(f, buf[:0])
		for i, v := range s.vars {
			if i < len(vals) {
				setLocal(f, v, vals[i])
			} else {
				setLocal(f, v, nil)
			}
		}
		return sigNext
	}
}

// compileList evaluates expressions, the last with all its values, and appends
// them to a slice.
func compileList(list []expr) func(*frame, []Value) []Value {
	single, last := compileArgs(list)
	return func(f *frame, out []Value) []Value {
		for _, e := range single {
			out = append(out, e(f))
		}
		if last != nil {
			out = append(out, last(f)...)
		}
		return out
	}
}

// compileArgs compiles a list; the last is apart if it may have many values.
func compileArgs(list []expr) (single []value, last values) {
	for i, e := range list {
		if i == len(list)-1 {
			if last = compileMulti(e); last != nil {
				break
			}
		}
		single = append(single, compileExpr(e))
	}
	return single, last
}

// compileMulti compiles what may have any number of values; nil for others.
func compileMulti(e expr) values {
	switch e := e.(type) {
	case *eCall:
		return compileCall(e)
	case *eDots:
		return func(f *frame) []Value { return f.varargs }
	}
	return nil
}

func compileAssign(s *sAssign) block {
	if len(s.to) == 1 && len(s.vals) == 1 {
		return compileStore(s.to[0], compileExpr(s.vals[0]), s.line)
	}
	// Objects and keys on the left first, then the values, then the stores,
	// the last first: as Lua does.
	type place struct {
		obj, key value
		set      func(*frame, Value, Value, Value)
	}
	places := make([]place, len(s.to))
	for i, to := range s.to {
		switch to := to.(type) {
		case *eIndex:
			places[i] = place{compileExpr(to.obj), compileExpr(to.key), func(f *frame, o, k, v Value) {
				f.line = s.line
				f.t.setIndex(o, k, v, to.obj)
			}}
		default:
			places[i].set = storeTo(to, s.line)
		}
	}
	get := compileList(s.vals)
	return func(f *frame) signal {
		var buf [8]Value
		refs := make([]Value, 0, 2*len(places))
		for i := range places {
			var o, k Value
			if places[i].obj != nil {
				o = places[i].obj(f)
				k = places[i].key(f)
			}
			refs = append(refs, o, k)
		}
		vals := get(f, buf[:0])
		for i := len(places) - 1; i >= 0; i-- {
			var v Value
			if i < len(vals) {
				v = vals[i]
			}
			places[i].set(f, refs[2*i], refs[2*i+1], v)
		}
		return sigNext
	}
}

// storeTo returns what sets a variable.
func storeTo(to expr, line int) func(f *frame, _, _, v Value) {
	switch to := to.(type) {
	case *eLocal:
		v := to.v
		return func(f *frame, _, _, x Value) {
			if v.cell {
				f.regs[v.slot].(*cell).v = x
			} else {
				f.regs[v.slot] = x
			}
		}
	case *eUp:
		return func(f *frame, _, _, x Value) { f.fn.up[to.i].v = x }
	case *eGlobal:
		return func(f *frame, _, _, x Value) {
			f.line = line
			f.t.setIndex(f.fn.env, to.name, x, nil)
		}
	}
	panic("lua: no variable")
}

func compileStore(to expr, val value, line int) block {
	switch to := to.(type) {
	case *eLocal:
		v := to.v
		if v.cell {
			return func(f *frame) signal {
				x := val(f)
				f.regs[v.slot].(*cell).v = x
				return sigNext
			}
		}
		return func(f *frame) signal {
			f.regs[v.slot] = val(f)
			return sigNext
		}
	case *eIndex:
		obj, key := compileExpr(to.obj), compileExpr(to.key)
		return func(f *frame) signal {
			o, k := obj(f), key(f)
			v := val(f)
			if t, ok := o.(*Table); ok && t.meta == nil && !t.readonly {
				if n, ok := k.(float64); ok {
					if i := int(n); i >= 1 && i <= len(t.arr) && float64(i) == n {
						t.arr[i-1] = v
						return sigNext
					}
				}
			}
			f.line = line
			f.t.setIndex(o, k, v, to.obj)
			return sigNext
		}
	default:
		set := storeTo(to, line)
		return func(f *frame) signal {
			set(f, nil, nil, val(f))
			return sigNext
		}
	}
}

func compileIf(s *sIf) block {
	conds, bodies := make([]value, len(s.conds)), make([]block, len(s.conds))
	for i := range conds {
		conds[i], bodies[i] = compileExpr(s.conds[i]), compileBlock(s.bodies[i])
	}
	other := compileBlock(s.other)
	if len(conds) == 1 {
		cond, body := conds[0], bodies[0]
		return func(f *frame) signal {
			if truth(cond(f)) {
				return body(f)
			}
			return other(f)
		}
	}
	return func(f *frame) signal {
		for i, c := range conds {
			if truth(c(f)) {
				return bodies[i](f)
			}
		}
		return other(f)
	}
}

func compileFor(s *sFor) block {
	from, limit, step := compileExpr(s.from), compileExpr(s.limit), value(nil)
	if s.step != nil {
		step = compileExpr(s.step)
	}
	body := compileBlock(s.body)
	return func(f *frame) signal {
		a, b := from(f), limit(f)
		c := Value(1.0)
		if step != nil {
			c = step(f)
		}
		f.line = s.line
		i, ok := ToNumber(a)
		if !ok {
			f.t.Errorf("'for' initial value must be a number")
		}
		end, ok := ToNumber(b)
		if !ok {
			f.t.Errorf("'for' limit must be a number")
		}
		inc, ok := ToNumber(c)
		if !ok {
			f.t.Errorf("'for' step must be a number")
		}
		for ; inc > 0 && i <= end || !(inc > 0) && i >= end; i += inc {
			f.t.tick(1)
			setLocal(f, s.v, num(i))
			if sig := body(f); sig == sigBreak {
				break
			} else if sig == sigReturn {
				return sig
			}
		}
		return sigNext
	}
}

// forGenerator is how messages name what a generic for calls.
var forGenerator = &eCall{fn: &eLocal{&local{name: "(for generator)"}}}

func compileForIn(s *sForIn) block {
	get, body := compileList(s.vals), compileBlock(s.body)
	return func(f *frame) signal {
		var buf [4]Value
		init := get(f, buf[:0])
		for len(init) < 3 {
			init = append(init, nil)
		}
		t := f.t
		fn, state, control := init[0], init[1], init[2]
		for {
			t.tick(1)
			f.line = s.line
			base := t.top
			t.reserve(2)
			t.stack[base], t.stack[base+1] = state, control
			f.site = forGenerator
			r := t.call(fn, base, 2, nil)
			t.top = base
			if len(r) == 0 || r[0] == nil {
				return sigNext
			}
			control = r[0]
			for i, v := range s.vars {
				if i < len(r) {
					setLocal(f, v, r[i])
				} else {
					setLocal(f, v, nil)
				}
			}
			if sig := body(f); sig == sigBreak {
				return sigNext
			} else if sig == sigReturn {
				return sig
			}
		}
	}
}

func compileReturn(s *sReturn) block {
	switch len(s.vals) {
	case 0:
		return func(f *frame) signal {
			f.ret = nil
			return sigReturn
		}
	case 1:
		if c, ok := s.vals[0].(*eCall); ok {
			return compileTail(c)
		}
		if compileMulti(s.vals[0]) == nil {
			e := compileExpr(s.vals[0])
			return func(f *frame) signal {
				v := e(f)
				f.t.one[0] = v
				f.ret = f.t.one[:]
				return sigReturn
			}
		}
	}
	get := compileList(s.vals)
	return func(f *frame) signal {
		f.ret = get(f, make([]Value, 0, len(s.vals)))
		return sigReturn
	}
}

// compileTail compiles the call of a return statement, which takes the place
// of its caller.
func compileTail(c *eCall) block {
	fn, get := compileCallee(c)
	return func(f *frame) signal {
		fv, self := fn(f)
		args := make([]Value, 0, len(c.args)+1)
		if c.method != "" {
			args = append(args, self)
		}
		args = get(f, args)
		f.line, f.site = c.line, c
		if lf, ok := fv.(*Function); ok && lf.native == nil {
			f.tail, f.ret = lf, args
			return sigReturn
		}
		base := f.t.top
		f.t.reserve(len(args))
		copy(f.t.stack[base:], args)
		r := f.t.call(fv, base, len(args), c)
		f.ret = r
		f.t.top = base
		return sigReturn
	}
}

// compileCallee returns what evaluates the function of a call, with the object
// of a method call, and the arguments.
func compileCallee(c *eCall) (func(*frame) (fn, self Value), func(*frame, []Value) []Value) {
	obj := compileExpr(c.fn)
	if c.method == "" {
		return func(f *frame) (Value, Value) { return obj(f), nil }, compileList(c.args)
	}
	return func(f *frame) (Value, Value) {
		self := obj(f)
		f.line = c.line
		return f.t.index(self, c.method, c.fn), self
	}, compileList(c.args)
}

func compileCall(c *eCall) values {
	obj := compileExpr(c.fn)
	single, last := compileArgs(c.args)
	method, n0 := c.method, len(single)
	if method != "" {
		n0++
	}
	return func(f *frame) []Value {
		t := f.t
		base, n := t.top, n0
		fv := obj(f)
		t.reserve(n)
		i := base
		if method != "" {
			self := fv
			f.line = c.line
			fv = t.index(self, method, c.fn)
			t.stack[i] = self
			i++
		}
		for _, e := range single {
			v := e(f)
			t.stack[i] = v
			i++
		}
		if last != nil {
			more := last(f)
			t.reserve(len(more))
			copy(t.stack[i:], more)
			n += len(more)
		}
		f.line, f.site = c.line, c
		r := t.call(fv, base, n, c)
		t.top = base
		return r
	}
}

func compileExpr(e expr) value {
	switch e := e.(type) {
	case *eConst:
		v := e.v
		if n, ok := v.(float64); ok {
			v = num(n)
		}
		return func(*frame) Value { return v }
	case *eDots:
		return func(f *frame) Value {
			if len(f.varargs) > 0 {
				return f.varargs[0]
			}
			return nil
		}
	case *eLocal:
		slot := e.v.slot
		v := e.v
		return func(f *frame) Value {
			if v.cell {
				return f.regs[slot].(*cell).v
			}
			return f.regs[slot]
		}
	case *eUp:
		i := e.i
		return func(f *frame) Value { return f.fn.up[i].v }
	case *eGlobal:
		name, h := e.name, hashString(e.name)
		return func(f *frame) Value {
			if p := f.fn.env.findString(name, h); p != nil && *p != nil {
				return *p
			}
			f.line = e.line
			return f.t.index(f.fn.env, name, nil)
		}
	case *eIndex:
		return compileIndex(e)
	case *eCall:
		call := compileCall(e)
		return func(f *frame) Value {
			if r := call(f); len(r) > 0 {
				return r[0]
			}
			return nil
		}
	case *eParen:
		return compileExpr(e.e)
	case *eFunc:
		compile(e.p)
		return func(f *frame) Value { return f.closure(e.p) }
	case *eTable:
		return compileTable(e)
	case *eUnary:
		return compileUnary(e)
	case *eBinary:
		return compileBinary(e)
	}
	panic("lua: unknown expression")
}

func compileIndex(e *eIndex) value {
	obj := compileExpr(e.obj)
	if c, ok := e.key.(*eConst); ok {
		if name, ok := c.v.(string); ok {
			h := hashString(name)
			return func(f *frame) Value {
				o := obj(f)
				if t, ok := o.(*Table); ok {
					if p := t.findString(name, h); p != nil && *p != nil {
						return *p
					}
				}
				f.line = e.line
				return f.t.index(o, name, e.obj)
			}
		}
	}
	key := compileExpr(e.key)
	return func(f *frame) Value {
		o, k := obj(f), key(f)
		if t, ok := o.(*Table); ok {
			if n, ok := k.(float64); ok {
				if i := int(n); i >= 1 && i <= len(t.arr) && float64(i) == n && t.arr[i-1] != nil {
					return t.arr[i-1]
				}
			}
		}
		f.line = e.line
		return f.t.index(o, k, e.obj)
	}
}

// sizeHint is what Lua makes of the number of elements in a constructor.
func sizeHint(n int) int {
	e := 0
	for ; n >= 16; e++ {
		n = (n + 1) >> 1
	}
	return n << e
}

func compileTable(e *eTable) value {
	type item struct {
		key, val value
		line     int
	}
	var items []item
	var last values
	narr, nhash := 0, 0
	for i, it := range e.items {
		x := item{line: it.line}
		if it.key != nil {
			x.key = compileExpr(it.key)
			nhash++
		} else if i == len(e.items)-1 {
			if last = compileMulti(it.val); last != nil {
				break
			}
		}
		if it.key == nil {
			narr++
		}
		x.val = compileExpr(it.val)
		items = append(items, x)
	}
	arr, hash := sizeHint(narr), sizeHint(nhash)
	return func(f *frame) Value {
		t := NewTable(arr, hash)
		f.t.alloc(64 + 16*arr + 40*hash)
		n := 0
		for i := range items {
			it := &items[i]
			if it.key != nil {
				k := it.key(f)
				v := it.val(f)
				f.line = it.line
				f.t.setRaw(t, k, v)
				continue
			}
			v := it.val(f)
			if n++; n <= len(t.arr) {
				t.arr[n-1] = v
			} else {
				t.Set(float64(n), v)
			}
		}
		if last != nil {
			more := last(f)
			if n+len(more) > len(t.arr) {
				t.resize(n+len(more), len(t.nodes))
				f.t.alloc(16 * len(more))
			}
			copy(t.arr[n:], more)
		}
		return t
	}
}

func compileUnary(e *eUnary) value {
	a := compileExpr(e.e)
	switch e.op {
	case tNot:
		return func(f *frame) Value { return !truth(a(f)) }
	case '-':
		return func(f *frame) Value {
			v := a(f)
			if n, ok := v.(float64); ok {
				return num(-n)
			}
			f.line = e.line
			return f.t.arith("__unm", v, v, e.e, e.e)
		}
	}
	return func(f *frame) Value {
		switch v := a(f).(type) {
		case *Table:
			return num(float64(v.Len()))
		case string:
			return num(float64(len(v)))
		default:
			f.line = e.line
			return f.t.length(v, e.e)
		}
	}
}

func compileBinary(e *eBinary) value {
	a, b := compileExpr(e.a), compileExpr(e.b)
	// arithmetic on what is not two numbers
	slow := func(f *frame, event string, x, y Value) Value {
		f.line = e.line
		return f.t.arith(event, x, y, e.a, e.b)
	}
	switch e.op {
	case tAnd:
		return func(f *frame) Value {
			if v := a(f); !truth(v) {
				return v
			}
			return b(f)
		}
	case tOr:
		return func(f *frame) Value {
			if v := a(f); truth(v) {
				return v
			}
			return b(f)
		}
	case '+':
		return func(f *frame) Value {
			x, y := a(f), b(f)
			if m, ok := x.(float64); ok {
				if n, ok := y.(float64); ok {
					return num(m + n)
				}
			}
			return slow(f, "__add", x, y)
		}
	case '-':
		return func(f *frame) Value {
			x, y := a(f), b(f)
			if m, ok := x.(float64); ok {
				if n, ok := y.(float64); ok {
					return num(m - n)
				}
			}
			return slow(f, "__sub", x, y)
		}
	case '*':
		return func(f *frame) Value {
			x, y := a(f), b(f)
			if m, ok := x.(float64); ok {
				if n, ok := y.(float64); ok {
					return num(m * n)
				}
			}
			return slow(f, "__mul", x, y)
		}
	case '/':
		return func(f *frame) Value {
			x, y := a(f), b(f)
			if m, ok := x.(float64); ok {
				if n, ok := y.(float64); ok {
					return num(divide(m, n))
				}
			}
			return slow(f, "__div", x, y)
		}
	case '%':
		return func(f *frame) Value { return slow(f, "__mod", a(f), b(f)) }
	case '^':
		return func(f *frame) Value { return slow(f, "__pow", a(f), b(f)) }
	case tConcat:
		return compileConcat(e)
	case tEq:
		return func(f *frame) Value {
			x, y := a(f), b(f)
			return f.t.equal(x, y)
		}
	case tNE:
		return func(f *frame) Value {
			x, y := a(f), b(f)
			return !f.t.equal(x, y)
		}
	case '<':
		return func(f *frame) Value {
			x, y := a(f), b(f)
			f.line = e.line
			return f.t.less(x, y)
		}
	case '>':
		return func(f *frame) Value {
			x, y := a(f), b(f)
			f.line = e.line
			return f.t.less(y, x)
		}
	case tLE:
		return func(f *frame) Value {
			x, y := a(f), b(f)
			f.line = e.line
			return f.t.lessEqual(x, y)
		}
	case tGE:
		return func(f *frame) Value {
			x, y := a(f), b(f)
			f.line = e.line
			return f.t.lessEqual(y, x)
		}
	}
	panic("lua: unknown operator")
}

// divide has the sign of NaN that x86-64 gives to 0/0.
func divide(m, n float64) float64 {
	if n == 0 && m == 0 {
		return math.Copysign(math.NaN(), -1)
	}
	return m / n
}

// compileConcat joins a whole chain of .. at once, from the right.
func compileConcat(e *eBinary) value {
	var parts []expr
	var flat func(expr)
	flat = func(x expr) {
		if c, ok := x.(*eBinary); ok && c.op == tConcat {
			parts = append(parts, c.a)
			flat(c.b)
			return
		}
		parts = append(parts, x)
	}
	flat(e)
	get := make([]value, len(parts))
	for i, p := range parts {
		get[i] = compileExpr(p)
	}
	return func(f *frame) Value {
		var buf [8]Value
		vals := buf[:0]
		for _, g := range get {
			vals = append(vals, g(f))
		}
		f.line = e.line
		return f.t.concat(vals, parts)
	}
}
