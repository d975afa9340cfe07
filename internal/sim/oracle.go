package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/resp"
)

// oracle knows what every node has promised, and looks whether it is kept.
type oracle struct {
	w      *world
	model  crdttest.Model
	counts map[string]int
	acked  int // commands that wrote and were answered

	// shipped is the newest entry of each stream that its origin ever had
	// durable: only what is durable may be known elsewhere.
	shipped   map[crdt.Stream]crdt.Tag
	collected map[crdt.Stream]crdt.Tag // newest that the model knows
	ledger    []increment
	made      map[string]uint16 // the node that chose an entry's id, by database, key and id

	seen  map[uint16]seenState
	steps int
}

// seenState is what the last step saw of a process.
type seenState struct {
	proc    *proc
	vector  crdt.Vector
	durable crdt.Vector
	total   uint64
}

// increment is one that was acknowledged, of a counter that must be exact. It
// was made by an entry of stream with a tag greater than low and at most high.
type increment struct {
	id        crdt.CellID
	amount    int64
	stream    crdt.Stream
	low, high crdt.Tag
}

func newOracle(w *world) *oracle {
	return &oracle{w: w, counts: map[string]int{}, shipped: map[crdt.Stream]crdt.Tag{}, collected: map[crdt.Stream]crdt.Tag{}, seen: map[uint16]seenState{}, made: map[string]uint16{}}
}

// step looks, after each event, at what is cheap to see.
func (o *oracle) step() {
	o.steps++
	for _, s := range o.w.sites {
		p := s.proc
		if p == nil {
			continue
		}
		s.latest = max(s.latest, p.core.Now())
		was := o.seen[s.id]
		now := seenState{proc: p, vector: p.log.Vector(), durable: p.log.Durable()}
		_, now.total, _ = p.log.Digests()
		if was.proc == p && sameSlice(was.vector, now.vector) && sameSlice(was.durable, now.durable) && was.total == now.total {
			continue
		}
		o.seen[s.id] = now
		o.w.must(now.durable.In(now.vector), "node %d: durable %v is not within applied %v", s.id, now.durable, now.vector)
		if was.proc == p {
			o.w.must(was.vector.In(now.vector), "node %d: the vector went back from %v to %v", s.id, was.vector, now.vector)
			o.w.must(was.durable.In(now.durable), "node %d: the durable vector went back from %v to %v", s.id, was.durable, now.durable)
		}
		for _, q := range now.vector {
			o.w.must(q.Stream.Origin() == p.log.Identity().Origin || q.Tag <= o.shipped[q.Stream],
				"node %d has stream %v up to %v, but its origin had it durable only up to %v", s.id, q.Stream, q.Tag, o.shipped[q.Stream])
		}
		o.level(p)
		o.whole(p)
	}
	if o.steps%400 == 0 {
		if s := o.w.sites[o.steps/400%len(o.w.sites)]; s.proc != nil {
			o.full(s.proc)
		}
	}
}

func sameSlice(a, b crdt.Vector) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// level looks for a node with the same vector: it must have the same digests.
func (o *oracle) level(p *proc) {
	for _, s := range o.w.sites {
		q := s.proc
		if q == nil || q == p || !q.log.Vector().Equal(p.log.Vector()) || p.inParts() || q.inParts() {
			continue
		}
		o.counts["levels"]++
		a, suma, _ := p.log.Digests()
		b, sumb, _ := q.log.Digests()
		if suma == sumb && a == b {
			continue
		}
		// Expired keys leave the digests at each node by its own clock.
		o.same(p, q)
	}
}

// same compares two nodes with the same vector key by key, but for what has
// expired at either.
func (o *oracle) same(p, q *proc) {
	a, b := o.inspect(p), o.inspect(q)
	for _, k := range union(a.keys, b.keys) {
		if a.hidden(k) || b.hidden(k) {
			continue
		}
		if x, y := a.print(k), b.print(k); x != y {
			o.w.must(false, "nodes %d and %d have the same vector %v, but of key %d/%q one has\n  %s\nand the other\n  %s", p.site.id, q.site.id,
				p.log.Vector(), k.DB, k.Name, x, y)
		}
	}
}

// committed notes the tags in use.
func (o *oracle) committed(p *proc) {
	own := p.log.Identity().Origin
	for _, q := range p.log.Vector() {
		if q.Stream.Origin() != own {
			continue
		}
		if q.Tag == p.position.Get(q.Stream) {
			continue
		}
		was := p.site.tags[q.Stream]
		o.w.must(q.Tag > was, "node %d: stream %v goes on at %v, but has used %v", p.site.id, q.Stream, q.Tag, was)
		p.site.tags[q.Stream] = q.Tag
	}
	p.position = p.log.Vector()
	if o.w.opts.Fsync == oplog.FsyncAlways {
		o.w.must(p.log.Durable().Equal(p.log.Vector()), "node %d: committed, and not durable", p.site.id)
	}
}

// collect notes what has become durable at a node, and takes its own new
// entries into the model.
func (o *oracle) collect(p *proc) {
	p.site.shown = p.site.shown.Join(p.log.Durable())
	own := p.log.Identity().Origin
	for _, q := range p.log.Durable() {
		if q.Stream.Origin() != own || q.Tag <= o.shipped[q.Stream] {
			continue
		}
		for o.collected[q.Stream] < q.Tag {
			entries, _, err := p.log.Read(q.Stream, o.collected[q.Stream], 1<<20)
			o.w.check(err, "reading the log")
			o.w.must(len(entries) > 0, "node %d: stream %v has no entries after %v, though it is durable up to %v", p.site.id, q.Stream, o.collected[q.Stream], q.Tag)
			for _, e := range entries {
				o.w.must(e.Prev == o.collected[q.Stream], "node %d: entry %v of stream %v follows %v, not %v", p.site.id, e.Tag, q.Stream, e.Prev, o.collected[q.Stream])
				o.model.Add(e)
				o.collected[q.Stream] = e.Tag
			}
		}
		o.shipped[q.Stream] = q.Tag
	}
}

// heard checks what a node believes another to have durable.
func (o *oracle) heard(from uint16, durable crdt.Vector) {
	s := o.w.sites[from-1]
	o.w.must(durable.In(s.shown), "node %d says that %v is durable there, but never had more than %v", from, durable, s.shown)
}

// answered notes what clients were promised.
func (o *oracle) answered(p *proc, calls []call, reqs []*resp.Request, before crdt.Vector) {
	after := p.log.Vector()
	promised := func(c, unit call) {
		if c.counter.Key.Name != "" {
			s := p.log.Identity().Origin | crdt.Stream(p.laneOf(unit))
			o.ledger = append(o.ledger, increment{c.counter, c.amount, s, before.Get(s), after.Get(s)})
		}
	}
	for i, c := range calls {
		for _, s := range c.subs {
			promised(s, c)
		}
		if reqs[i].Subs != nil {
			o.acked++
			continue
		}
		ok := reqs[i].Out[0] != '-'
		if ok && reqs[i].Cmd.Run != nil {
			o.acked++
		}
		o.w.must(ok || c.counter.Key.Name == "", "node %d: %v was refused: %s", p.site.id, c, reqs[i].Out)
		promised(c, c)
	}
}

// crashed notes what a dying process must find again.
func (o *oracle) crashed(p *proc, lost bool) {
	o.collect(p)
	p.site.must, p.site.kept = p.log.Vector(), true
	if lost {
		p.site.must = p.log.Durable()
	}
}

// replaced notes that a node's data directory is another now.
func (o *oracle) replaced(s *site) { s.must, s.kept = nil, false }

// rolledBack notes the same of a node that may go on in its old life: what was
// not durable is lost as in a crash.
func (o *oracle) rolledBack(s *site) {
	o.replaced(s)
	clear(s.tags)
	o.ledger = slices.DeleteFunc(o.ledger, func(i increment) bool {
		return i.stream.Node() == s.id && i.high > s.shown.Get(i.stream)
	})
}

// opened checks what a process has found in its directory.
func (o *oracle) opened(p *proc) {
	v := p.log.Vector()
	o.w.must(p.site.must.In(v), "node %d: after the crash the log has %v, less than the %v that was safe", p.site.id, v, p.site.must)
	p.position = v
	o.collect(p)
	own := p.log.Identity().Origin
	o.ledger = slices.DeleteFunc(o.ledger, func(i increment) bool {
		return p.site.kept && i.stream.Origin() == own && i.high > v.Get(i.stream) && i.high > p.site.shown.Get(i.stream)
	})
}

// final checks a cluster that is healed and at rest.
func (o *oracle) final() {
	var first *proc
	for _, s := range o.w.sites {
		if s.gone {
			continue
		}
		s.proc.sweep()
		s.proc.pump()
		if first == nil {
			first = s.proc
		}
		o.full(s.proc)
		o.same(first, s.proc)
	}
	v := first.log.Vector()
	st := o.inspect(first)
	type span struct{ low, high int64 }
	sums := map[crdt.CellID]span{}
	for _, i := range o.ledger {
		s := sums[i.id]
		switch at := v.Get(i.stream); {
		case i.high <= at:
			s.low, s.high = s.low+i.amount, s.high+i.amount
		case i.low >= at: // lost with its node's disk
		case i.amount > 0:
			s.high += i.amount
		default:
			s.low += i.amount
		}
		sums[i.id] = s
	}
	for id, s := range sums {
		got := int64(0)
		if k := st.keys[id.Key]; k != nil {
			for _, c := range k.cells {
				if c.id == id {
					n, err := crdt.ParseNumber(c.cell.Text())
					o.w.check(err, "counter")
					got, _ = n.Int64()
				}
			}
		}
		o.w.must(got >= s.low && got <= s.high, "counter %v is %d; the acknowledged increments make it %d to %d", id, got, s.low, s.high)
	}
}

// full checks all that can be known of one node.
func (o *oracle) full(p *proc) {
	o.counts["full checks"]++
	if p.core.SweepDue(p.core.Now()) {
		p.sweep()
	}
	st := o.inspect(p)
	st.audit()
	st.checkView()
	if !p.inParts() && p.log.Durable().Equal(p.log.Vector()) {
		st.checkModel(&o.model)
	}
}

// state is all that a node holds at one moment.
type state struct {
	o    *oracle
	p    *proc
	now  int64
	snap *oplog.Snapshot
	keys map[crdt.Key]*keyState
}

type keyState struct {
	header *crdt.Header
	cells  []cellState
}

type cellState struct {
	id   crdt.CellID
	cell *crdt.Cell
}

// inspect reads a node's state. The snapshot in it is closed.
func (o *oracle) inspect(p *proc) *state {
	snap, err := p.log.Snapshot()
	o.w.check(err, "snapshot")
	st := &state{o: o, p: p, now: p.core.Now(), snap: snap, keys: map[crdt.Key]*keyState{}}
	o.w.check(snap.Each(nil, nil, 1<<40, func(k *oplog.KeyState) error {
		ks := &keyState{header: k.Header}
		for _, c := range k.Cells {
			cell, err := crdt.DecodeCell(c.Data)
			if err != nil {
				return err
			}
			ks.cells = append(ks.cells, cellState{crdt.CellID{Key: k.Key, Kind: c.Kind, Elem: c.Elem}, cell})
		}
		st.keys[k.Key] = ks
		return nil
	}), "reading a snapshot")
	o.w.check(snap.Close(), "closing a snapshot")
	return st
}

// hidden reports whether a key has expired here.
func (st *state) hidden(k crdt.Key) bool {
	ks := st.keys[k]
	return ks != nil && ks.header != nil && (ks.header.Swept || ks.header.Expiry != 0 && ks.header.Expiry <= st.now)
}

func union(a, b map[crdt.Key]*keyState) []crdt.Key {
	var out []crdt.Key
	for k := range a {
		out = append(out, k)
	}
	for k := range b {
		if a[k] == nil {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, compareKeys)
	return out
}

// live returns what is live in a cell, as the model would have it.
func (c cellState) live() (crdttest.Live, bool) {
	l := crdttest.Live{ID: c.id, Values: c.cell.Values}
	for i := range c.cell.Counts {
		if k := &c.cell.Counts[i]; k.Live() {
			l.Counts = append(l.Counts, crdttest.LiveCount{Stream: k.Stream, Epoch: k.Epoch, Tag: k.Tag, Amount: k.Amount()})
		}
	}
	return l, c.cell.Live()
}

// print prints what is live under a key.
func (st *state) print(k crdt.Key) string {
	var out []string
	if ks := st.keys[k]; ks != nil {
		for _, c := range ks.cells {
			if l, ok := c.live(); ok {
				out = append(out, l.String())
			}
		}
	}
	return strings.Join(out, "\n  ")
}

// garbage prints what is stored though nothing is live. Left may be what a
// remove has seen of an earlier life of a node beyond what anybody has: it was
// durable once, went down with the disks of those who had it, and may come back
// with an old copy of one. See node.Core.Maintain.
func (st *state) garbage() string {
	lost := func(s crdt.Stream, t crdt.Tag) bool {
		p := st.o.w.sites[s.Node()-1].proc
		return (p == nil || p.log.Identity().Origin != s.Origin()) && t > st.snap.Vector.Get(s) && t <= st.o.shipped[s]
	}
	ended := func(v crdt.Vector) bool {
		return !slices.ContainsFunc(v, func(q crdt.Position) bool { return !lost(q.Stream, q.Tag) })
	}
	var b strings.Builder
	for db, v := range st.snap.Pending {
		if !ended(v) {
			fmt.Fprintf(&b, "database %d: %v\n", db, v)
		}
	}
	for _, k := range union(st.keys, nil) {
		ks := st.keys[k]
		ok := ks.header != nil
		for _, p := range ks.header.Pending {
			ok = ok && ended(p.Ctx)
		}
		for _, c := range ks.cells {
			ok = ok && len(c.cell.Values) == 0 && ended(c.cell.Pending)
			for i := range c.cell.Counts {
				k := &c.cell.Counts[i]
				ok = ok && !k.Live() && lost(k.Stream, k.ResetTag)
			}
		}
		if !ok {
			fmt.Fprintf(&b, "%d/%q: %+v\n", k.DB, k.Name, ks.header)
			for _, c := range ks.cells {
				fmt.Fprintf(&b, "  %d %q: %+v\n", c.id.Kind, c.id.Elem, *c.cell)
			}
		}
	}
	return b.String()
}

// audit recomputes what is kept beside the cells.
func (st *state) audit() {
	w, node := st.o.w, st.p.site.id
	var buckets [oplog.Buckets]uint64
	for k, ks := range st.keys {
		w.must(ks.header != nil, "node %d: key %v has cells and no header", node, k)
		h := ks.header
		var live [256]int
		var digest uint64
		var newest crdt.Dot
		rest, typ, expiry := 0, crdt.TypeNone, int64(0)
		hidden, past := uint32(0), map[string]bool{} // fields
		for _, c := range ks.cells {
			if field, ok := c.id.Field(); ok && c.cell.Hidden {
				// It stays hidden when the clock goes back.
				latest := st.p.site.latest
				w.must(c.cell.Expiry() != 0 && c.cell.Expiry() <= latest, "node %d: key %v: field %s is hidden, and it never was later than %d: %+v", node, k, field, latest, *c.cell)
				past[field] = true
			}
		}
		for _, c := range ks.cells {
			digest += c.cell.Digest(c.id)
			if !c.cell.Live() {
				rest++
				continue
			}
			if c.id.Kind == crdt.KindField && past[c.id.Elem] {
				hidden++
				continue
			}
			live[c.id.Kind]++
			if c.id.Kind == crdt.KindExpiry && c.id.Elem == "" {
				expiry = c.cell.Expiry()
			}
			if d := c.cell.Newest(); c.id.Kind.Type() != crdt.TypeNone && d.Compare(newest) > 0 {
				newest, typ = d, c.id.Kind.Type()
			}
		}
		for kind := range h.Live {
			w.must(h.Len(crdt.Kind(kind)) == live[kind], "node %d: key %v has %d live cells of kind %d, the header says %d", node, k, live[kind], kind, h.Live[kind])
		}
		w.must(h.Hidden == hidden, "node %d: key %v has %d hidden fields, the header says %d", node, k, hidden, h.Hidden)
		w.must(int(h.Rest) == rest && h.Type == typ && h.Expiry == expiry && h.Digest == digest,
			"node %d: key %v: rest %d, type %v, expiry %d, digest %x; the header says %d, %v, %d, %x", node, k, rest, typ, expiry, digest, h.Rest, h.Type, h.Expiry, h.Digest)
		if !h.Swept {
			buckets[oplog.Bucket(k)] += digest
		}
	}
	var total uint64
	for i, d := range buckets {
		w.must(st.snap.Digests[i] == d, "node %d: the digest of bucket %d is %x, the log says %x", node, i, d, st.snap.Digests[i])
		total += d
	}
	w.must(st.snap.Digest == total, "node %d: the digests sum up to %x, the log says %x", node, total, st.snap.Digest)
}

// checkView compares the view with the cells, if it is to be level.
func (st *state) checkView() {
	p, w := st.p, st.o.w
	if !p.level {
		return
	}
	p.pump()
	r := p.site.redis
	r.expire()
	want := map[crdt.Key]string{}
	for k, ks := range st.keys {
		if v := st.visible(k, ks); v != nil {
			want[k] = v.String()
			if k.Name[0] == 'q' {
				w.checkPushes(p.site.id, k, v.items)
			}
		}
	}
	for k, v := range r.keys {
		w.must(want[k] == v.String(), "node %d: of key %v the view shows\n  %v\nand the cells hold\n  %v", p.site.id, k, v, want[k])
	}
	for k, v := range want {
		w.must(r.keys[k] != nil, "node %d: of key %v the view shows nothing and the cells hold\n  %v", p.site.id, k, v)
	}
}

// visible returns what the view must show of a key; nil: nothing.
func (st *state) visible(k crdt.Key, ks *keyState) *redisKey {
	if ks.header == nil || st.hidden(k) || ks.header.Type == crdt.TypeNone {
		return nil
	}
	v := &redisKey{typ: ks.header.Type, elems: map[string]string{}, due: map[string]int64{}}
	past := map[string]bool{} // fields
	for _, c := range ks.cells {
		if field, ok := c.id.Field(); ok && c.cell.Live() {
			past[field] = c.cell.Hidden || c.cell.Expiry() <= st.now
			if v.typ == crdt.TypeHash && st.p.site.redis.fields && c.cell.Expiry() != crdt.Never {
				v.due[field] = c.cell.Expiry()
			}
		}
	}
	if ks.header.Expiry != crdt.Never {
		v.expiry = ks.header.Expiry
	}
	var str []cellState
	for _, c := range ks.cells {
		if c.id.Kind.Type() != v.typ || !c.cell.Live() || v.typ == crdt.TypeStream {
			continue // of a stream there is only a placeholder
		}
		switch v.typ {
		case crdt.TypeString:
			str = append(str, c)
		case crdt.TypeHash:
			if !past[c.id.Elem] {
				v.elems[c.id.Elem] = string(c.cell.Text())
			}
		case crdt.TypeZSet:
			v.elems[c.id.Elem] = scoreText(c.cell.Score())
		case crdt.TypeList:
			v.items = append(v.items, string(c.cell.Text()))
		default:
			v.elems[c.id.Elem] = c.id.Elem
		}
	}
	if len(str) > 0 {
		v.str = visibleString(str)
	}
	return v
}

// checkModel compares the live cells with what the model says they are at the
// node's vector.
func (st *state) checkModel(m *crdttest.Model) {
	want := map[crdt.Key][]string{}
	expired := map[crdt.Key]bool{}
	for _, l := range m.State(st.snap.Vector, nil) {
		want[l.ID.Key] = append(want[l.ID.Key], l.String())
		if l.ID.Kind == crdt.KindExpiry && l.ID.Elem == "" {
			var at int64
			for _, v := range l.Values {
				if len(v.Value) == 8 {
					at = max(at, int64(binary.BigEndian.Uint64(v.Value)))
				}
			}
			expired[l.ID.Key] = at != 0 && at <= st.now
		}
	}
	keys := map[crdt.Key]*keyState{}
	for k := range want {
		keys[k] = nil
	}
	for _, k := range union(st.keys, keys) {
		if st.hidden(k) || expired[k] {
			continue
		}
		got, want := st.print(k), strings.Join(want[k], "\n  ")
		st.o.w.must(got == want, "node %d at %v: of key %d/%q it holds\n  %s\nand the model, which keeps every write, says\n  %s", st.p.site.id, st.snap.Vector, k.DB, k.Name, got, want)
	}
}
