package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/node"
	"github.com/replicatord/replicatord/resp"
)

// A unit is a transaction, or a script, of commands about keys of several types
// and databases. Each leaves a token in a set, a hash, a sorted set, a list and
// a counter, from where nobody takes it: whoever sees one sees all five, but at a node that is
// taking in a state, whose keys come one after the other.
var tokenKeys = []struct {
	key   crdt.Key
	kind  crdt.Kind
	write func(token int) string
	read  string
}{
	{crdt.Key{DB: exactDB, Name: "us"}, crdt.KindMember, func(n int) string { return fmt.Sprintf("SADD us %d", n) }, "SMEMBERS us"},
	{crdt.Key{DB: exactDB, Name: "uha"}, crdt.KindField, func(n int) string { return fmt.Sprintf("HSET uha %d 1", n) }, "HGETALL uha"},
	{crdt.Key{DB: exactDB, Name: "uzab"}, crdt.KindScored, func(n int) string { return fmt.Sprintf("ZADD uzab 1 %d", n) }, "ZRANGE uzab 0 -1"},
	{crdt.Key{DB: exactDB, Name: "ul"}, crdt.KindItem, func(n int) string { return fmt.Sprintf("RPUSH ul %d", n) }, "LRANGE ul 0 -1"},
	{crdt.Key{DB: exactDB, Name: "uc"}, crdt.KindString, func(int) string { return "INCR uc" }, "GET uc"},
}

// unitScript gives the commands that it is handed, and counts the tokens that it
// then finds.
const unitScript = `for _, line in ipairs(ARGV) do
	local words = {}
	for w in string.gmatch(line, '%S+') do words[#words + 1] = w end
	redis.pcall(unpack(words))
end
redis.call('SELECT', '2')
return {#redis.call('SMEMBERS', 'us'), #redis.call('HGETALL', 'uha') / 2, #redis.call('ZRANGE', 'uzab', '0', '-1'),
	#redis.call('LRANGE', 'ul', '0', '-1'), tonumber(redis.call('GET', 'uc') or 0)}`

// unit makes up a transaction or script.
func (w *world) unit() call {
	var subs []call
	if !w.chance(15) { // else it only reads
		w.units++
		for range 1 + w.rand.IntN(4) {
			subs = append(subs, w.call())
		}
		for _, k := range tokenKeys {
			subs = append(subs, call{db: k.key.DB, args: split(k.write(w.units))})
		}
		w.rand.Shuffle(len(subs), func(i, j int) { subs[i], subs[j] = subs[j], subs[i] })
	}
	if w.chance(40) {
		c := call{args: [][]byte{[]byte("EVAL"), []byte(unitScript), []byte("0")}, subs: subs}
		for _, s := range subs {
			c.args = append(c.args, []byte("SELECT "+strconv.Itoa(int(s.db))))
			var line []string
			for _, a := range s.args {
				line = append(line, string(a))
			}
			c.args = append(c.args, []byte(strings.Join(line, " ")))
		}
		return c
	}
	if len(subs) == 0 || w.chance(50) {
		for _, k := range tokenKeys {
			subs = append(subs, call{db: k.key.DB, args: split(k.read), reads: true})
		}
	}
	return call{args: split("EXEC"), subs: subs}
}

// laneOf returns the lane of the entry that a call makes.
func (p *proc) laneOf(c call) crdt.Lane {
	switch {
	case string(c.args[0]) == "EVAL":
		return node.DefaultLane
	case c.subs == nil:
		return p.lane(c.counter.Key)
	}
	lane := crdt.Lane(crdt.Lanes - 1)
	for _, s := range c.subs {
		r, err := request(s)
		p.w.check(err, fmt.Sprintf("command %v", s))
		refs := r.Cmd.FindKeys(s.args)
		if len(refs) == 0 {
			lane = min(lane, node.DefaultLane)
		}
		for _, ref := range refs {
			lane = min(lane, p.lane(crdt.Key{DB: s.db, Name: string(s.args[ref.Arg])}))
		}
	}
	return lane
}

// transact carries a unit out in the open group and looks at what it answers.
func (p *proc) transact(c call) *resp.Request {
	w := p.w
	w.oracle.counts["units"]++
	r, err := request(c)
	w.check(err, fmt.Sprintf("unit %v", c))
	script := string(c.args[0]) == "EVAL"
	if !script {
		for _, s := range c.subs {
			q, err := request(s)
			w.check(err, fmt.Sprintf("command %v", s))
			r.Subs = append(r.Subs, q)
		}
	}
	p.core.Do(r)
	parts := p.inParts()
	w.say("node %d unit %v: %.60q", p.site.id, c, r.Out)
	if script {
		counts := strings.Split(strings.TrimSuffix(string(r.Out), "\r\n"), "\r\n")
		w.must(counts[0] == "*5", "node %d: script %v: %q", p.site.id, c, r.Out)
		w.must(parts || len(slices.Compact(counts[1:])) == 1, "node %d: script %v finds tokens in part: %q", p.site.id, c, r.Out)
		return r
	}
	for i, s := range c.subs {
		if !s.reads {
			w.must(len(r.Subs[i].Out) > 0, "node %d: no reply to %v of %v", p.site.id, s, c)
			w.oracle.added(p, s, r.Subs[i].Out)
		}
	}
	if n := len(c.subs); c.subs[n-1].reads {
		reads := r.Subs[n-len(tokenKeys):]
		w.after(20*1e6, func() {
			if !p.dead && !slices.ContainsFunc(reads, func(q *resp.Request) bool { return len(q.Out) == 0 }) {
				p.checkTokens(c, reads, parts)
			}
		})
	}
	return r
}

// checkTokens looks at what a unit's last commands were answered.
// parts: the node was taking in a state.
func (p *proc) checkTokens(c call, reads []*resp.Request, parts bool) {
	w := p.w
	w.oracle.counts["reads of units"]++
	var want []string
	for i, q := range reads {
		got := tokens(string(q.Out), string(q.Args[0]) == "HGETALL")
		switch {
		case i == 0:
			want = got
		case string(q.Args[0]) == "GET":
			n := "0"
			if len(got) > 0 {
				n = got[0]
			}
			w.must(parts || n == strconv.Itoa(len(want)), "node %d: %v finds %d tokens, counted as %s", p.site.id, c, len(want), n)
		default:
			w.must(parts || slices.Equal(got, want), "node %d: %v finds tokens in part: %q by %s, %q by %s", p.site.id, c, want, reads[0].Args, got, q.Args)
		}
	}
	for _, s := range c.subs {
		if string(s.args[0]) == "SADD" && string(s.args[1]) == "us" {
			w.must(slices.Contains(want, string(s.args[2])), "node %d: %v does not find its own token in %q", p.site.id, c, want)
		}
	}
}

// tokens returns the bulk strings of a reply, every other of them if they are
// fields, in order.
func tokens(reply string, fields bool) (out []string) {
	lines := strings.Split(reply, "\r\n")
	for i, at := 0, 0; i < len(lines)-1; i++ {
		if lines[i] != "" && lines[i][0] == '$' && lines[i] != "$-1" {
			i++
			if !fields || at%2 == 0 {
				out = append(out, lines[i])
			}
			at++
		}
	}
	slices.Sort(out)
	return out
}

// whole looks whether a node has some unit in part.
func (o *oracle) whole(p *proc) {
	if p.inParts() {
		return
	}
	g := p.log.Begin()
	defer g.Discard()
	var want []string
	for i, k := range tokenKeys {
		var got []string
		g.EachCell(k.key, k.kind, func(id crdt.CellID, c *crdt.Cell) bool {
			switch {
			case !c.Live():
			case k.kind == crdt.KindItem || k.kind == crdt.KindString:
				got = append(got, string(c.Text()))
			default:
				got = append(got, id.Elem)
			}
			return true
		})
		slices.Sort(got)
		switch {
		case i == 0:
			want = got
		case k.kind == crdt.KindString:
			if len(want) == 0 {
				got = append(got, "0")
			}
			o.w.must(len(got) == 1 && got[0] == strconv.Itoa(len(want)), "node %d at %v has %d units, counted as %q", p.site.id, p.log.Vector(), len(want), got)
		default:
			o.w.must(slices.Equal(got, want), "node %d at %v has units in part: %q in %s, %q in %s", p.site.id, p.log.Vector(),
				want, tokenKeys[0].key.Name, got, k.key.Name)
		}
	}
}
