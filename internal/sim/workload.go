package sim

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/node"
	"github.com/replicatord/replicatord/resp"
)

// call is one command of a client.
type call struct {
	db   uint8
	args [][]byte
	// counter and amount say what a command adds to a counter that must be
	// exact.
	counter crdt.CellID
	amount  int64
	// subs are the commands of a unit; reads says of one that the view answers it.
	subs  []call
	reads bool
}

func (c call) String() string {
	if c.subs != nil {
		return fmt.Sprintf("%s%v", c.args[0], c.subs)
	}
	return fmt.Sprintf("%d> %q", c.db, c.args)
}

func split(s string) [][]byte {
	var out [][]byte
	for _, f := range strings.Fields(s) {
		out = append(out, []byte(f))
	}
	return out
}

// lane is the rule that puts keys in lanes in this life of the node: an
// operator may change it at each start, and nodes need not agree.
func (s *site) lane() func(crdt.Key) crdt.Lane {
	if !s.w.opts.Lanes {
		return func(crdt.Key) crdt.Lane { return node.DefaultLane }
	}
	turn := s.lives - 1
	if turn > 0 {
		turn += int(s.id)
	}
	return func(k crdt.Key) crdt.Lane {
		return crdt.Lane(len(k.Name)+int(k.Name[len(k.Name)-1])+turn) % crdt.Lanes
	}
}

// pipeline sends a few commands to one node.
func (w *world) pipeline() {
	s := w.sites[w.rand.IntN(len(w.sites))]
	calls := make([]call, 1+w.rand.IntN(5))
	for i := range calls {
		if calls[i] = w.call(); w.chance(15) {
			calls[i] = w.unit()
		}
	}
	if s.proc == nil || !s.proc.level || s.behindFence() {
		w.oracle.counts["pipelines refused"]++
		return
	}
	s.proc.enqueue(work{cmds: calls})
}

// behindFence reports whether the site is fenced still: until every member has
// been heard in this process's life.
func (s *site) behindFence() bool {
	for _, o := range s.w.sites {
		if o != s && !o.gone && (s.proc == nil || s.proc.heard[o.id].Tag == 0) {
			return s.fenced
		}
	}
	s.fenced = false
	return false
}

// pick returns a number below n, the small ones most often: hot keys.
func (w *world) pick(n int) int { return min(w.rand.IntN(n), w.rand.IntN(n)) }

// call makes up a command.
func (w *world) call() call {
	if w.chance(20) {
		return w.exactCall()
	}
	if w.chance(20) {
		return w.streamCall()
	}
	c := call{db: uint8(w.pick(exactDB))}
	n := w.opts.Keys
	str, hash, set := fmt.Sprintf("s%d", w.pick(n)), fmt.Sprintf("h%d", w.pick(n)), fmt.Sprintf("e%d", w.pick(n))
	mixed, sorted := fmt.Sprintf("x%d", w.pick(n)), fmt.Sprintf("z%d", w.pick(n))
	if w.chance(15) {
		// A key of two types, now and then.
		str, hash, set, sorted = mixed, mixed, mixed, mixed
	}
	keys := []string{str, hash, set, sorted, mixed, fmt.Sprintf("t%d", w.pick(n))}
	any, other := keys[w.rand.IntN(len(keys))], keys[w.rand.IntN(len(keys))]
	field, field2 := fmt.Sprintf("f%d", w.pick(4)), fmt.Sprintf("f%d", w.pick(4))
	value := strconv.Itoa(w.rand.IntN(1000))
	if w.chance(30) {
		value = "v" + value
	}
	ttl := 1 + w.rand.IntN(20_000)
	if w.chance(30) {
		ttl = 1 + w.rand.IntN(500)
	}
	forms := []string{
		"SET " + str + " " + value,
		"SET " + str + " " + value,
		"SET " + str + " " + value + " KEEPTTL",
		"SET " + str + " " + value + " NX",
		fmt.Sprintf("SET %s %s PX %d", str, value, ttl),
		"GETSET " + str + " " + value,
		"GETDEL " + str,
		"APPEND " + str + " " + value,
		"INCR " + str,
		"INCRBY " + str + " " + strconv.Itoa(w.rand.IntN(100)-50),
		"INCRBYFLOAT " + str + " 0.1",
		"SETBIT " + str + " 3 1",
		"MSET " + str + " " + value + " " + mixed + " " + value,
		"HSET " + hash + " " + field + " " + value,
		"HSET " + hash + " " + field + " " + value + " " + field2 + " " + value,
		"HSETNX " + hash + " " + field + " " + value,
		"HINCRBY " + hash + " " + field + " " + strconv.Itoa(1+w.rand.IntN(9)),
		"HINCRBYFLOAT " + hash + " " + field + " 1.5",
		fmt.Sprintf("HPEXPIRE %s %d FIELDS 1 %s", hash, ttl, field),
		fmt.Sprintf("HPEXPIRE %s %d FIELDS 2 %s %s", hash, ttl, field, field2),
		fmt.Sprintf("HPEXPIRE %s %d GT FIELDS 1 %s", hash, ttl, field),
		fmt.Sprintf("HPEXPIRE %s 0 FIELDS 1 %s", hash, field),
		fmt.Sprintf("HSETEX %s PX %d FIELDS 2 %s %s %s %s", hash, ttl, field, value, field2, value),
		"HSETEX " + hash + " KEEPTTL FIELDS 1 " + field + " " + value,
		fmt.Sprintf("HGETEX %s PX %d FIELDS 1 %s", hash, ttl, field),
		"HPERSIST " + hash + " FIELDS 1 " + field,
		"HGETDEL " + hash + " FIELDS 1 " + field,
		"HDEL " + hash + " " + field,
		"HDEL " + hash + " " + field + " " + field2,
		"SADD " + set + " " + field,
		"SADD " + set + " " + field + " " + field2 + " m" + value,
		"SREM " + set + " " + field,
		"SPOP " + set,
		"SPOP " + set + " 2",
		"SMOVE " + set + " " + fmt.Sprintf("e%d", w.pick(n)) + " " + field,
		"SUNIONSTORE " + set + " " + set + " " + fmt.Sprintf("e%d", w.pick(n)),
		"DEL " + any,
		"DEL " + any + " " + other,
		"UNLINK " + any,
		fmt.Sprintf("PEXPIRE %s %d", any, ttl),
		fmt.Sprintf("PEXPIRE %s %d", any, ttl),
		fmt.Sprintf("PEXPIRE %s %d GT", any, ttl),
		"PEXPIRE " + any + " -1",
		"PERSIST " + any,
		"RENAME " + any + " " + other,
		"RENAMENX " + any + " " + other,
		"COPY " + any + " " + other + " REPLACE",
		"MOVE " + any + " 1",
	}
	if w.chance(25) {
		forms = w.sortedSetForms(sorted, fmt.Sprintf("z%d", w.pick(n)))
	}
	if w.chance(25) {
		list := fmt.Sprintf("l%d", w.pick(n))
		if w.chance(15) {
			list = mixed
		}
		forms = w.listForms(list, fmt.Sprintf("l%d", w.pick(n)))
	}
	switch {
	case w.rand.IntN(120) == 0:
		c.args = split("FLUSHDB")
	case w.rand.IntN(12) == 0:
		forms := w.hyperLogLogCalls()
		c.args = split(forms[w.rand.IntN(len(forms))])
	default:
		c.args = split(forms[w.rand.IntN(len(forms))])
	}
	return c
}

// exactCall is an increment of a counter that nobody ever sets or removes.
func (w *world) exactCall() call {
	c := call{db: exactDB, amount: int64(w.rand.IntN(21) - 10)}
	key := crdt.Key{DB: exactDB, Name: fmt.Sprintf("c%d", w.pick(3))}
	by := strconv.FormatInt(c.amount, 10)
	switch w.rand.IntN(5) {
	case 4:
		f := fmt.Sprintf("f%d", w.pick(2))
		key.Name = "cz"
		c.args, c.counter = split("ZINCRBY cz "+by+" "+f), crdt.CellID{Key: key, Kind: crdt.KindScored, Elem: f}
	case 0:
		f := fmt.Sprintf("f%d", w.pick(2))
		key.Name = "ch"
		c.args, c.counter = split("HINCRBY ch "+f+" "+by), crdt.CellID{Key: key, Kind: crdt.KindField, Elem: f}
	case 1:
		c.amount = 1
		c.args, c.counter = split("INCR "+key.Name), crdt.CellID{Key: key, Kind: crdt.KindString}
	case 2:
		c.amount = -c.amount
		c.args, c.counter = split("DECRBY "+key.Name+" "+by), crdt.CellID{Key: key, Kind: crdt.KindString}
	default:
		c.args, c.counter = split("INCRBY "+key.Name+" "+by), crdt.CellID{Key: key, Kind: crdt.KindString}
	}
	return c
}

// run carries a pipeline out in the open group, as the executor does.
func (p *proc) run(calls []call) {
	w := p.w
	if !p.level {
		w.oracle.counts["pipelines refused"]++
		return
	}
	before := p.log.Vector()
	reqs := make([]*resp.Request, len(calls))
	for i, c := range calls {
		if c.subs != nil || string(c.args[0]) == "EVAL" {
			reqs[i] = p.transact(c)
			continue
		}
		r, err := request(c)
		w.check(err, fmt.Sprintf("command %v", c))
		p.core.Do(r)
		w.say("node %d %v: %.60q", p.site.id, c, r.Out)
		w.must(len(r.Out) > 0, "node %d: no reply to %v", p.site.id, c)
		reqs[i] = r
		w.oracle.added(p, c, r.Out)
		p.readBack(c)
	}
	committed := false
	p.core.Defer(func(err error) {
		w.check(err, "a group of local commands")
		committed = true
	})
	p.commit()
	w.must(committed, "node %d: a group was committed and did not say so", p.site.id)
	w.oracle.answered(p, calls, reqs, before)
}

// readBack reads from the view what a command has just written: in the same
// group, a client must find its own writes.
func (p *proc) readBack(c call) {
	w := p.w
	if len(c.args) < 2 || !w.chance(20) {
		return
	}
	key := c.args[1]
	wrote, err := request(call{db: c.db, args: [][]byte{[]byte("GETEX"), key}}) // answered by the cells
	w.check(err, "GETEX")
	p.core.Do(wrote)
	near, err := request(call{db: c.db, args: [][]byte{[]byte("GET"), key}}) // answered by the cells, if the group knows them
	w.check(err, "GET")
	p.core.Do(near)
	read, err := request(call{db: c.db, args: [][]byte{[]byte("MGET"), key}}) // answered by the view
	w.check(err, "MGET")
	p.core.Do(read)
	if len(near.Out) > 0 {
		w.oracle.counts["reads from memory"]++
		w.must(string(near.Out) == string(wrote.Out), "node %d: after %v, GETEX says %q and GET %q", p.site.id, c, wrote.Out, near.Out)
	}
	want := "*1\r\n" + string(wrote.Out)
	if wrote.Out[0] == '-' {
		want = "*1\r\n$-1\r\n" // of another type
	}
	expired := p.site.redis.expired
	asked := p.site
	w.oracle.counts["reads"]++
	w.after(20*1e6, func() {
		if p.dead || len(read.Out) == 0 || asked.redis.expired != expired || string(read.Out) == want {
			return
		}
		w.must(false, "node %d: after %v, the view is to answer %q and answers %q", p.site.id, c, want, read.Out)
	})
}
