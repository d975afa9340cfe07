package lua

import "fmt"

// The tree. Every local variable is known by its place already.

type expr interface{}

type (
	eConst struct{ v Value }
	eDots  struct{}
	eLocal struct{ v *local }
	eUp    struct {
		i    int
		name string
	}
	eGlobal struct {
		name string
		line int
	}
	eIndex struct {
		obj, key expr
		line     int
	}
	eCall struct {
		fn     expr
		method string // "" if it is no method call
		args   []expr
		line   int
	}
	eFunc  struct{ p *proto }
	eParen struct{ e expr }
	eUnary struct {
		op   token
		e    expr
		line int
	}
	eBinary struct {
		op   token
		a, b expr
		line int
	}
	eTable struct {
		items []tableItem
		line  int
	}
	tableItem struct {
		key, val expr // key nil: a list item
		line     int
	}
)

type stmt interface{}

type (
	sLocal struct {
		vars []*local
		vals []expr
	}
	sLocalFunc struct {
		v *local
		f *eFunc
	}
	sAssign struct {
		to   []expr
		vals []expr
		line int
	}
	sCall struct{ e *eCall }
	sDo   struct{ body []stmt }
	sIf   struct {
		conds  []expr
		bodies [][]stmt
		other  []stmt
	}
	sWhile struct {
		cond expr
		body []stmt
	}
	sRepeat struct {
		body []stmt
		cond expr
	}
	sFor struct {
		v                 *local
		from, limit, step expr
		body              []stmt
		line              int
	}
	sForIn struct {
		vars []*local
		vals []expr
		body []stmt
		line int
	}
	sReturn struct {
		vals []expr
		line int
	}
	sBreak struct{}
)

// local is a local variable: the slot of its frame, and whether it lives in a
// cell because an inner function uses it.
type local struct {
	name string
	slot int
	cell bool
}

// upvalue says where a closure finds a variable of an outer function: in the
// slot of the function that makes it, or among that one's own upvalues.
type upvalue struct {
	name    string
	fromUp  bool
	slot    *local
	fromIdx int
}

// proto is a function as written.
type proto struct {
	chunk   string // as messages show it
	source  string // as it was given, with @ or = before a name
	line    int    // where it begins; 0: the main chunk
	params  []*local
	vararg  bool
	slots   int
	upvals  []upvalue
	body    []stmt
	run     block // compiled
	arg     *local
	usesArg bool
}

// Limits of Lua 5.1.
const (
	maxLocals = 200
	maxUps    = 60
	maxLevels = 200
)

type funcState struct {
	p     *proto
	outer *funcState
	scope []*local // visible, innermost last
	loops []int    // loops that a break could leave, by block
}

type parser struct {
	lexer
	fs    *funcState
	depth int
}

// parse makes the tree of a chunk. An error is a syntaxError as a panic.
func parse(src, source string) *proto {
	p := &parser{}
	p.src, p.chunk, p.line, p.last = src, chunkID(source), 1, 1
	if len(src) > 0 && src[0] == '#' {
		for p.pos < len(p.src) && p.src[p.pos] != '\n' {
			p.pos++
		}
	}
	main := &proto{chunk: p.chunk, source: source, vararg: true}
	p.fs = &funcState{p: main}
	p.next()
	main.body = p.block()
	if p.tok != tEOF {
		p.expected(tEOF)
	}
	return main
}

// chunkID makes of a chunk's source what messages show.
func chunkID(source string) string {
	const size = 60
	switch {
	case source == "":
		return `[string ""]`
	case source[0] == '=':
		return source[1:min(len(source), size)]
	case source[0] == '@':
		s := source[1:]
		if n := size - len(" '...' ") - 1; len(s) > n {
			s = "..." + s[len(s)-n:]
		}
		return s
	}
	n := len(source)
	for i := 0; i < n; i++ {
		if source[i] == '\n' || source[i] == '\r' {
			n = i
		}
	}
	room := size - len(` [string "..."] `) - 1
	if room = min(room, n); room < len(source) {
		return `[string "` + source[:room] + `..."]`
	}
	return `[string "` + source + `"]`
}

func (p *parser) errorNear(msg string) { p.fail(msg, p.text()) }

func (p *parser) expected(t token) { p.errorNear("'" + t.String() + "' expected") }

func (p *parser) accept(t token) bool {
	if p.tok == t {
		p.next()
		return true
	}
	return false
}

func (p *parser) want(t token) {
	if !p.accept(t) {
		p.expected(t)
	}
}

// match wants the token that closes what began at a line.
func (p *parser) match(what, open token, line int) {
	if p.accept(what) {
		return
	}
	if line == p.line {
		p.expected(what)
	}
	p.errorNear(fmt.Sprintf("'%v' expected (to close '%v' at line %d)", what, open, line))
}

func (p *parser) name() string {
	if p.tok != tName {
		p.expected(tName)
	}
	s := p.str
	p.next()
	return s
}

func (p *parser) enter() {
	if p.depth++; p.depth > maxLevels {
		p.fail("chunk has too many syntax levels", "")
	}
}

func (p *parser) leave() { p.depth-- }

// declare makes a variable, which becomes visible by activate.
func (p *parser) declare(name string) *local {
	fs := p.fs
	if len(fs.scope) >= maxLocals {
		p.limit(maxLocals, "local variables")
	}
	return &local{name: name}
}

func (p *parser) limit(n int, what string) {
	if line := p.fs.p.line; line == 0 {
		p.errorNear(fmt.Sprintf("main function has more than %d %s", n, what))
	} else {
		p.errorNear(fmt.Sprintf("function at line %d has more than %d %s", line, n, what))
	}
}

func (p *parser) activate(vars ...*local) {
	for _, v := range vars {
		if len(p.fs.scope) >= maxLocals {
			p.limit(maxLocals, "local variables")
		}
		v.slot = len(p.fs.scope)
		p.fs.scope = append(p.fs.scope, v)
	}
	p.fs.p.slots = max(p.fs.p.slots, len(p.fs.scope))
}

func (p *parser) blockEnd() bool {
	switch p.tok {
	case tElse, tElseif, tEnd, tEOF, tUntil:
		return true
	}
	return false
}

// block parses statements in a scope of their own.
func (p *parser) block() []stmt {
	n := len(p.fs.scope)
	list := p.statements()
	p.fs.scope = p.fs.scope[:n]
	return list
}

func (p *parser) statements() []stmt {
	var list []stmt
	p.enter()
	defer p.leave()
	for last := false; !last && !p.blockEnd(); {
		var s stmt
		s, last = p.statement()
		list = append(list, s)
		p.accept(';')
	}
	return list
}

func (p *parser) loop() []stmt {
	p.fs.loops = append(p.fs.loops, 0)
	b := p.block()
	p.fs.loops = p.fs.loops[:len(p.fs.loops)-1]
	return b
}

func (p *parser) statement() (s stmt, last bool) {
	line := p.line
	switch p.tok {
	case tIf:
		return p.ifStat(line), false
	case tWhile:
		p.next()
		cond := p.expr()
		p.want(tDo)
		body := p.loop()
		p.match(tEnd, tWhile, line)
		return &sWhile{cond, body}, false
	case tDo:
		p.next()
		b := p.block()
		p.match(tEnd, tDo, line)
		return &sDo{b}, false
	case tFor:
		return p.forStat(line), false
	case tRepeat:
		p.next()
		n := len(p.fs.scope)
		p.fs.loops = append(p.fs.loops, 0)
		body := p.statements()
		p.match(tUntil, tRepeat, line)
		cond := p.expr()
		p.fs.loops = p.fs.loops[:len(p.fs.loops)-1]
		p.fs.scope = p.fs.scope[:n]
		return &sRepeat{body, cond}, false
	case tFunction:
		return p.funcStat(line), false
	case tLocal:
		p.next()
		if p.accept(tFunction) {
			v := p.declare(p.name())
			p.activate(v)
			return &sLocalFunc{v, p.function(false, p.line)}, false
		}
		return p.localStat(), false
	case tReturn:
		p.next()
		r := &sReturn{line: line}
		if !p.blockEnd() && p.tok != ';' {
			r.vals = p.exprList()
		}
		return r, true
	case tBreak:
		p.next()
		if len(p.fs.loops) == 0 {
			p.errorNear("no loop to break")
		}
		return &sBreak{}, true
	}
	return p.exprStat(line), false
}

func (p *parser) ifStat(line int) stmt {
	s := &sIf{}
	for {
		p.next() // if or elseif
		s.conds = append(s.conds, p.expr())
		p.want(tThen)
		s.bodies = append(s.bodies, p.block())
		if p.tok != tElseif {
			break
		}
	}
	if p.accept(tElse) {
		s.other = p.block()
	}
	p.match(tEnd, tIf, line)
	return s
}

func (p *parser) forStat(line int) stmt {
	p.next()
	n := len(p.fs.scope)
	defer func() { p.fs.scope = p.fs.scope[:n] }()
	first := p.name()
	hidden := func(names ...string) {
		for _, s := range names {
			p.activate(p.declare(s))
		}
	}
	switch p.tok {
	case '=':
		s := &sFor{line: line}
		p.next()
		s.from = p.expr()
		p.want(',')
		s.limit = p.expr()
		if p.accept(',') {
			s.step = p.expr()
		}
		hidden("(for index)", "(for limit)", "(for step)")
		s.v = p.declare(first)
		p.want(tDo)
		p.activate(s.v)
		s.body = p.loop()
		p.match(tEnd, tFor, line)
		return s
	case ',', tIn:
		s := &sForIn{}
		names := []string{first}
		for p.accept(',') {
			names = append(names, p.name())
		}
		p.want(tIn)
		s.line = p.line
		s.vals = p.exprList()
		hidden("(for generator)", "(for state)", "(for control)")
		p.want(tDo)
		for _, name := range names {
			s.vars = append(s.vars, p.declare(name))
		}
		p.activate(s.vars...)
		s.body = p.loop()
		p.match(tEnd, tFor, line)
		return s
	}
	p.errorNear("'=' or 'in' expected")
	return nil
}

func (p *parser) funcStat(line int) stmt {
	p.next()
	var to = p.variable(p.name())
	method := false
	for p.tok == '.' || p.tok == ':' {
		method = p.tok == ':'
		p.next()
		to = &eIndex{to, &eConst{p.name()}, p.last}
		if method {
			break
		}
	}
	return &sAssign{[]expr{to}, []expr{p.function(method, line)}, line}
}

func (p *parser) localStat() stmt {
	s := &sLocal{}
	for {
		s.vars = append(s.vars, p.declare(p.name()))
		if len(p.fs.scope)+len(s.vars) > maxLocals {
			p.limit(maxLocals, "local variables")
		}
		if !p.accept(',') {
			break
		}
	}
	if p.accept('=') {
		s.vals = p.exprList()
	}
	p.activate(s.vars...)
	return s
}

func (p *parser) exprStat(line int) stmt {
	e := p.primary()
	if c, ok := e.(*eCall); ok {
		return &sCall{c}
	}
	to := []expr{e}
	for {
		switch e.(type) {
		case *eLocal, *eUp, *eGlobal, *eIndex:
		default:
			p.errorNear("syntax error")
		}
		if !p.accept(',') {
			break
		}
		e = p.primary()
		if to = append(to, e); len(to) > maxLevels {
			p.limit(maxLevels, "variable names")
		}
	}
	p.want('=')
	vals := p.exprList()
	return &sAssign{to, vals, p.last}
}

func (p *parser) exprList() []expr {
	list := []expr{p.expr()}
	for p.accept(',') {
		list = append(list, p.expr())
	}
	return list
}

// variable resolves a name.
func (p *parser) variable(name string) expr {
	if v := p.fs.find(name); v != nil {
		return &eLocal{v}
	}
	if i := p.upvalue(p.fs, name); i >= 0 {
		return &eUp{i, name}
	}
	return &eGlobal{name, p.last}
}

func (fs *funcState) find(name string) *local {
	for i := len(fs.scope) - 1; i >= 0; i-- {
		if fs.scope[i].name == name {
			return fs.scope[i]
		}
	}
	return nil
}

// upvalue returns the index of an outer function's variable among those of
// fs, -1 if there is none.
func (p *parser) upvalue(fs *funcState, name string) int {
	if fs.outer == nil {
		return -1
	}
	u := upvalue{name: name}
	if v := fs.outer.find(name); v != nil {
		v.cell = true
		u.slot = v
	} else if i := p.upvalue(fs.outer, name); i >= 0 {
		u.fromUp, u.fromIdx = true, i
	} else {
		return -1
	}
	for i, w := range fs.p.upvals {
		if w.slot == u.slot && w.fromUp == u.fromUp && w.fromIdx == u.fromIdx {
			return i
		}
	}
	if len(fs.p.upvals) >= maxUps {
		p.limit(maxUps, "upvalues")
	}
	fs.p.upvals = append(fs.p.upvals, u)
	return len(fs.p.upvals) - 1
}

// function parses parameters and body.
func (p *parser) function(method bool, line int) *eFunc {
	f := &proto{chunk: p.chunk, source: p.fs.p.source, line: line}
	p.fs = &funcState{p: f, outer: p.fs}
	p.want('(')
	if method {
		f.params = append(f.params, p.declare("self"))
	}
	if p.tok != ')' {
		for {
			switch p.tok {
			case tDots:
				p.next()
				f.vararg = true
			case tName:
				f.params = append(f.params, p.declare(p.name()))
				if len(f.params) > maxLocals {
					p.limit(maxLocals, "local variables")
				}
			default:
				p.errorNear("<name> or '...' expected")
			}
			if f.vararg || !p.accept(',') {
				break
			}
		}
	}
	p.activate(f.params...)
	if f.vararg {
		f.arg = p.declare("arg") // as in Lua 5.0
		p.activate(f.arg)
	}
	p.want(')')
	f.body = p.statements()
	p.match(tEnd, tFunction, line)
	p.fs = p.fs.outer
	return &eFunc{f}
}

func (p *parser) prefix() expr {
	switch p.tok {
	case tName:
		return p.variable(p.name())
	case '(':
		line := p.line
		p.next()
		e := p.expr()
		p.match(')', '(', line)
		switch e.(type) {
		case *eCall, *eDots, *eLocal, *eUp, *eGlobal, *eIndex:
			e = &eParen{e}
		}
		return e
	}
	p.errorNear("unexpected symbol")
	return nil
}

func (p *parser) primary() expr {
	e := p.prefix()
	for {
		switch p.tok {
		case '.':
			p.next()
			e = &eIndex{e, &eConst{p.name()}, p.last}
		case '[':
			p.next()
			k := p.expr()
			p.want(']')
			e = &eIndex{e, k, p.last}
		case ':':
			p.next()
			name := p.name()
			e = p.call(e, name)
		case '(', tString, '{':
			e = p.call(e, "")
		default:
			return e
		}
	}
}

func (p *parser) call(fn expr, method string) expr {
	c := &eCall{fn: fn, method: method, line: p.line}
	switch p.tok {
	case '(':
		if p.line != p.last {
			p.errorNear("ambiguous syntax (function call x new statement)")
		}
		p.next()
		if p.tok != ')' {
			c.args = p.exprList()
		}
		p.match(')', '(', c.line)
	case '{':
		c.args = []expr{p.table()}
	case tString:
		c.args = []expr{&eConst{p.str}}
		p.next()
	default:
		p.errorNear("function arguments expected")
	}
	return c
}

func (p *parser) table() expr {
	line := p.line
	t := &eTable{line: line}
	p.want('{')
	for p.tok != '}' {
		it := tableItem{line: p.line}
		switch {
		case p.tok == tName && p.peek() == '=':
			it.key = &eConst{p.name()}
			p.next()
		case p.tok == '[':
			p.next()
			it.key = p.expr()
			p.want(']')
			p.want('=')
		}
		it.val = p.expr()
		it.line = p.last
		t.items = append(t.items, it)
		if !p.accept(',') && !p.accept(';') {
			break
		}
	}
	p.match('}', '{', line)
	return t
}

func (p *parser) simple() expr {
	var e expr
	switch p.tok {
	case tNumber:
		e = &eConst{p.num}
	case tString:
		e = &eConst{p.str}
	case tNil:
		e = &eConst{nil}
	case tTrue:
		e = &eConst{true}
	case tFalse:
		e = &eConst{false}
	case tDots:
		if !p.fs.p.vararg {
			p.errorNear("cannot use '...' outside a vararg function")
		}
		p.fs.p.usesArg = true
		e = &eDots{}
	case '{':
		return p.table()
	case tFunction:
		line := p.line
		p.next()
		return p.function(false, line)
	default:
		return p.primary()
	}
	p.next()
	return e
}

// priorities of binary operators: left and right.
var priorities = map[token][2]int{
	'+': {6, 6}, '-': {6, 6}, '*': {7, 7}, '/': {7, 7}, '%': {7, 7}, '^': {10, 9}, tConcat: {5, 4},
	tNE: {3, 3}, tEq: {3, 3}, '<': {3, 3}, tLE: {3, 3}, '>': {3, 3}, tGE: {3, 3}, tAnd: {2, 2}, tOr: {1, 1},
}

const unaryPriority = 8

func (p *parser) expr() expr { return p.subexpr(0) }

func (p *parser) subexpr(limit int) expr {
	p.enter()
	defer p.leave()
	var e expr
	if p.tok == tNot || p.tok == '-' || p.tok == '#' {
		op := p.tok
		p.next()
		a := p.subexpr(unaryPriority)
		e = p.fold(&eUnary{op, a, p.last})
	} else {
		e = p.simple()
	}
	for {
		op := p.tok
		pr, ok := priorities[op]
		if !ok || pr[0] <= limit {
			return e
		}
		p.next()
		b := p.subexpr(pr[1])
		e = &eBinary{op, e, b, p.last}
	}
}

// fold makes a constant of minus a number, which is what a literal -1 is.
func (p *parser) fold(u *eUnary) expr {
	if c, ok := u.e.(*eConst); ok && u.op == '-' {
		if f, ok := c.v.(float64); ok && f == f {
			return &eConst{-f}
		}
	}
	return u
}
