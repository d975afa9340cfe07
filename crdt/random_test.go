package crdt_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// TestRandomHistories drives five nodes through long histories of groups of
// writes in several lanes and databases, with deliveries of folded and
// overlapping ranges, state syncs whole and in parts, Tidy, Sweep, and nodes
// that lose everything and come back as new incarnations. After every step the
// node's live cells are those of the naive model, and its bookkeeping is right;
// in the end all nodes are equal and, once all know all, left with nothing but
// live cells.
//
// A failure prints its seed. REPLICATORD_SEED=n runs that one again, and
// REPLICATORD_SEEDS=n runs n seeds.
func TestRandomHistories(t *testing.T) {
	first, n := uint64(1), uint64(150)
	if s := os.Getenv("REPLICATORD_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
		n = 1
	} else if s := os.Getenv("REPLICATORD_SEEDS"); s != "" {
		n, _ = strconv.ParseUint(s, 10, 64)
	}
	for seed := first; seed < first+n; seed++ {
		c := newCluster(t, seed)
		c.run(200)
		if t.Failed() {
			t.Fatalf("replay with REPLICATORD_SEED=%d; the last steps were\n%s", seed, strings.Join(c.trace[max(0, len(c.trace)-60):], "\n"))
		}
	}
}

type cluster struct {
	t      *testing.T
	rng    *rand.Rand
	nodes  []*node
	log    map[crdt.Stream][]crdt.Entry // all that was ever written
	model  *crdttest.Model
	millis int64
	trace  []string
}

type node struct {
	id     uint16
	origin crdt.Stream
	ks     *crdt.Keyspace
	store  *crdttest.Store
	known  map[crdt.Stream]crdt.Vector // contexts of the newest entries applied
	// parts of the keyspace that a sync has brought ahead: by half, see half.
	ahead [2]crdt.Vector
	stops [2]map[uint8]crdt.Vector // what the peers held pending, by database
}

// half is the part of the keyspace a key belongs to.
func half(k crdt.Key) int { return int(k.Name[0]) & 1 }

func newCluster(t *testing.T, seed uint64) *cluster {
	c := &cluster{
		t: t, rng: rand.New(rand.NewPCG(seed, 0)), log: map[crdt.Stream][]crdt.Entry{},
		model: &crdttest.Model{}, millis: firstMilli,
	}
	for id := range 5 {
		n := &node{id: uint16(id + 1)}
		c.nodes = append(c.nodes, n)
		c.begin(n)
	}
	return c
}

// begin makes a node a new, empty incarnation.
func (c *cluster) begin(n *node) {
	n.origin = crdt.NewStream(n.id, uint64(c.millis-firstMilli)+1, 0)
	n.store = crdttest.New()
	n.ks = &crdt.Keyspace{Store: n.store}
	n.known = map[crdt.Stream]crdt.Vector{}
	n.ahead, n.stops = [2]crdt.Vector{}, [2]map[uint8]crdt.Vector{}
	n.set()
}

// set brings the keyspace's hooks level with the parts that are ahead.
func (n *node) set() {
	n.ks.HaveOf, n.ks.PendingOf = nil, nil
	if n.syncing() {
		n.ks.HaveOf, n.ks.PendingOf = n.vector, func(k crdt.Key) crdt.Vector { return n.stops[half(k)][k.DB] }
	}
}

func (n *node) syncing() bool { return len(n.ahead[0])+len(n.ahead[1]) > 0 }

func (n *node) vector(k crdt.Key) crdt.Vector { return n.ks.Have.Join(n.ahead[half(k)]) }

func (c *cluster) run(steps int) {
	for i := range steps {
		n := c.nodes[c.rng.IntN(len(c.nodes))]
		before := n.store.Clone()
		n.ks.Touched = nil
		c.millis += c.rng.Int64N(3)
		switch p := c.rng.IntN(100); {
		case p < 45:
			c.write(n)
		case p < 75:
			c.deliver(n)
		case p < 80:
			c.sync(n)
		case p < 86:
			c.syncPart(n)
		case p < 93:
			c.tidy(n)
		case p < 97:
			c.sweep(n)
		case p < 98:
			c.wipe(n)
			before = n.store.Clone()
		default:
			c.deliverDuplicate(n)
		}
		if msg := untold(before, n.store, n.ks.Touched); msg != "" {
			c.errorf("node %d: %s", n.id, msg)
		}
		c.check(n)
		if i%10 == 0 {
			c.laws()
		}
		if c.t.Failed() {
			return
		}
	}
	c.heal()
}

// laws checks on the states of three nodes that merging is commutative,
// associative and idempotent.
func (c *cluster) laws() {
	var s [3]*node
	for i := range s {
		if s[i] = c.nodes[c.rng.IntN(len(c.nodes))]; s[i].syncing() {
			return
		}
	}
	merged := func(a, b *node) *node {
		store := a.store.Clone()
		n := &node{store: store, ks: &crdt.Keyspace{Store: store, Have: a.ks.Have}}
		crdttest.Merge(n.ks, store, b.store, b.ks.Have)
		c.check(n)
		return n
	}
	equal := func(law string, a, b *node) {
		if !a.ks.Have.Equal(b.ks.Have) || !crdttest.Same(a.store.LiveCells(nil), b.store.LiveCells(nil)) {
			c.errorf("merging is not %s: nodes %d, %d, %d\n%s\nand\n%s", law, s[0].id, s[1].id, s[2].id,
				lines(a.store.LiveCells(nil)), lines(b.store.LiveCells(nil)))
		}
	}
	equal("idempotent", merged(s[0], s[0]), s[0])
	equal("commutative", merged(s[0], s[1]), merged(s[1], s[0]))
	equal("associative", merged(merged(s[0], s[1]), s[2]), merged(s[0], merged(s[1], s[2])))
	equal("idempotent", merged(merged(s[0], s[1]), s[1]), merged(s[0], s[1]))
}

func (c *cluster) errorf(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf(format, args...)
}

func (c *cluster) note(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf(format, args...))
}

var randomKeys = []crdt.Key{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}, {DB: 1, Name: "a"}}

// write commits a group of a few writes.
func (c *cluster) write(n *node) {
	var newest crdt.Tag
	for _, p := range n.ks.Have {
		newest = max(newest, p.Tag)
	}
	for _, v := range n.ahead {
		for _, p := range v {
			newest = max(newest, p.Tag)
		}
	}
	tag := crdt.TagAt(max(c.millis, newest.Millis()+1), n.id)
	w := crdt.NewWriter(n.ks, n.origin, tag, c.millis)
	for range 1 + c.rng.IntN(4) {
		w.SetLane(crdt.Lane(c.rng.IntN(2)))
		c.op(n, w)
	}
	for _, e := range w.Entries() {
		if err := e.Validate(); err != nil {
			c.errorf("node %d: %v", n.id, err)
		}
		c.log[e.Stream] = append(c.log[e.Stream], e)
		c.model.Add(e)
		n.ks.Have = n.ks.Have.Clone()
		n.ks.Have.Raise(e.Stream, e.Tag)
		n.known[e.Stream] = e.Ctx
	}
}

func (c *cluster) op(n *node, w *crdt.Writer) {
	key := randomKeys[c.rng.IntN(len(randomKeys))]
	elem := []string{"f", "g"}[c.rng.IntN(2)]
	value := fmt.Appendf(nil, "v%d", c.rng.IntN(1000))
	kind := []crdt.Kind{crdt.KindField, crdt.KindMember, crdt.KindScored}[c.rng.IntN(3)]
	may := func(t crdt.Type) bool { return w.Type(key) == crdt.TypeNone || w.Type(key) == t }
	p := c.rng.IntN(58)
	c.note("node %d lane %d: op %d on %v %s", n.id, w.Lane(), p, key, elem)
	switch {
	case p < 6:
		w.SetString(key, strconv.AppendInt(nil, c.rng.Int64N(100), 10), p < 2)
	case p < 14:
		kind, elem := crdt.KindString, ""
		if p < 10 {
			kind, elem = []crdt.Kind{crdt.KindField, crdt.KindScored}[c.rng.IntN(2)], []string{"f", "g"}[c.rng.IntN(2)]
		}
		if !may(kind.Type()) || kind == crdt.KindString && crdt.StringKind(n.store, key) != kind {
			return
		}
		was := crdt.Int(0)
		if v, ok := w.Elem(key, kind, elem); ok {
			var err error
			if was, err = crdt.ParseNumber(v); err != nil {
				return
			}
		}
		by := crdt.Int(c.rng.Int64N(20) - 8)
		if c.rng.IntN(4) == 0 {
			by, _ = crdt.ParseNumber([]byte("0.1"))
		}
		w.AddElem(key, kind, elem, by)
		if got, _ := w.Elem(key, kind, elem); string(got) != was.Add(by).String() {
			c.errorf("node %d: %v + %v gave %s", n.id, was, by, got)
		}
	case p < 22 && c.rng.IntN(3) == 0:
		if may(crdt.TypeList) {
			if err := w.PushItems(key, p%2 == 0, [][]byte{value, value}); err != nil {
				c.errorf("node %d: push: %v", n.id, err)
			}
		}
	case p < 28 && p >= 22 && w.Type(key) == crdt.TypeList:
		if elem, _ := itemAt(w, key, p%2 == 0); p < 27 {
			w.RemoveElem(key, crdt.KindItem, elem)
		} else {
			w.SetElem(key, crdt.KindItem, elem, value)
		}
	case p < 22:
		if may(kind.Type()) {
			if kind == crdt.KindScored {
				value = value[1:] // a number
			}
			w.SetElem(key, kind, elem, value)
		}
	case p < 28:
		w.RemoveElem(key, kind, elem)
	case p < 32:
		w.Remove(key)
	case p < 36:
		w.SetExpiry(key, c.millis+c.rng.Int64N(40))
	case p < 38:
		w.SetExpiry(key, crdt.Never)
	case p < 39:
		if c.millis%2 == 0 {
			w.Flush(key.DB)
			break
		}
		for from := w.FlushSome(key.DB, nil, 2); from != nil; {
			from = w.FlushSome(key.DB, from, 2)
		}
		w.FlushRest(key.DB, 1)
	case p >= 52:
		c.fieldOp(w, key, elem, p, value)
	case p >= 40:
		c.streamOp(w, key, p, value)
	default:
		if c.rng.IntN(2) == 0 {
			w.SetString(key, value, false)
		} else {
			w.Begin(crdt.Lane(c.rng.IntN(2)))
			w.Remove(key)
			w.SetElem(key, kind, elem, value)
		}
	}
}

// streamOp writes to what a stream is made of: entries, groups with the count of
// entries, and what readers have done, which does not make the key exist.
func (c *cluster) streamOp(w *crdt.Writer, key crdt.Key, p int, value []byte) {
	kind := []crdt.Kind{crdt.KindEntry, crdt.KindEntry, crdt.KindGroup, crdt.KindPending}[c.rng.IntN(4)]
	elem := strconv.Itoa(c.rng.IntN(3))
	t := w.Type(key)
	switch {
	case p < 46:
		if t == crdt.TypeStream || t == crdt.TypeNone && kind != crdt.KindPending {
			w.SetElem(key, kind, elem, value)
		}
	case p < 48:
		if t == crdt.TypeStream || t == crdt.TypeNone {
			w.AddElem(key, crdt.KindGroup, "+", crdt.Int(1))
		}
	case p < 50:
		w.RemoveElem(key, kind, elem)
	case p < 51:
		w.RemoveElems(key, kind)
		if n := w.Len(key, kind); n != 0 {
			c.errorf("%d of kind %v are left of %v", n, kind, key)
		}
	default:
		if t == crdt.TypeString || t == crdt.TypeNone {
			w.SetElem(key, crdt.KindRegisters, elem, value)
		}
	}
}

// fieldOp writes to a field with an expiry, or sets that.
func (c *cluster) fieldOp(w *crdt.Writer, key crdt.Key, field string, p int, value []byte) {
	was, had := w.Elem(key, crdt.KindField, field)
	switch {
	case p < 54 && (w.Type(key) == crdt.TypeHash || w.Type(key) == crdt.TypeNone):
		at := w.FieldExpiry(key, field)
		if p == 52 {
			at = 0
		}
		w.SetField(key, field, value, p == 53)
		if got := w.FieldExpiry(key, field); got != at {
			c.errorf("field %s of %v expires at %d, not %d", field, key, got, at)
		}
	case p < 57:
		at := c.millis + c.rng.Int64N(40)
		w.SetFieldExpiry(key, field, at)
		if got := w.FieldExpiry(key, field); had && at > c.millis && got != at {
			c.errorf("field %s of %v expires at %d, not %d", field, key, got, at)
		}
	case p == 57:
		if w.SetFieldExpiry(key, field, crdt.Never); had {
			if got, _ := w.Elem(key, crdt.KindField, field); string(got) != string(was) {
				c.errorf("field %s of %v became %s", field, key, got)
			}
		}
	}
	if c.rng.IntN(3) == 0 {
		w.PurgeField(crdt.FieldExpiry(key, field))
	}
}

// deliver brings a random range of a random stream that ends beyond what the
// node has, folded.
func (c *cluster) deliver(n *node) {
	s, ok := c.pick(func(s crdt.Stream, l []crdt.Entry) bool {
		return l[len(l)-1].Tag > n.ks.Have.Get(s)
	})
	if ok {
		c.deliverTo(n, s, 0)
	}
}

// deliverDuplicate brings a range that the node has already.
func (c *cluster) deliverDuplicate(n *node) {
	s, ok := c.pick(func(s crdt.Stream, _ []crdt.Entry) bool { return n.ks.Have.Get(s) > 0 })
	if ok {
		was := string(n.store.AppendBinary(nil))
		l := c.log[s]
		to := slices.IndexFunc(l, func(e crdt.Entry) bool { return e.Tag == n.ks.Have.Get(s) })
		from := c.rng.IntN(to + 1)
		e := crdt.FoldEntries(l[from : to+1])
		c.note("node %d: duplicate of %v", n.id, s)
		n.ks.Apply(&e)
		if was != string(n.store.AppendBinary(nil)) {
			c.errorf("node %d: a duplicate changed the state", n.id)
		}
	}
}

func (c *cluster) pick(may func(crdt.Stream, []crdt.Entry) bool) (crdt.Stream, bool) {
	var streams []crdt.Stream
	for _, s := range slices.Sorted(maps.Keys(c.log)) {
		if may(s, c.log[s]) {
			streams = append(streams, s)
		}
	}
	if len(streams) == 0 {
		return 0, false
	}
	return streams[c.rng.IntN(len(streams))], true
}

func (c *cluster) deliverTo(n *node, s crdt.Stream, upto int) {
	l := c.log[s]
	have := n.ks.Have.Get(s)
	next := slices.IndexFunc(l, func(e crdt.Entry) bool { return e.Tag > have })
	to := max(upto, next+1+c.rng.IntN(len(l)-next))
	from := next - min(next, c.rng.IntN(3))
	e := crdt.FoldEntries(l[from:to])
	c.note("node %d: %v from %d to %d", n.id, s, from, to)
	if err := e.Validate(); err != nil {
		c.errorf("node %d: folded: %v", n.id, err)
	}
	if e.Prev < have && c.rng.IntN(2) == 0 {
		e = e.After(have)
		if err := e.Validate(); err != nil {
			c.errorf("node %d: shortened: %v", n.id, err)
		}
	}
	if n.ks.Astray(&e) {
		c.errorf("node %d: refuses %v", n.id, e)
	}
	n.ks.Apply(&e)
	n.ks.Have = n.ks.Have.Clone()
	n.ks.Have.Raise(s, e.Tag)
	n.known[s] = e.Ctx
	n.settle()
}

func (n *node) settle() {
	if !n.syncing() || !n.ahead[0].In(n.ks.Have) || !n.ahead[1].In(n.ks.Have) {
		return
	}
	for _, stops := range n.stops {
		for db, v := range stops {
			n.ks.MergeDBPending(db, v)
		}
	}
	n.ahead, n.stops = [2]crdt.Vector{}, [2]map[uint8]crdt.Vector{}
	n.set()
}

func (c *cluster) peer(n *node) *node {
	for {
		if o := c.nodes[c.rng.IntN(len(c.nodes))]; o != n {
			return o
		}
	}
}

// sync joins all of a peer's state.
func (c *cluster) sync(n *node) {
	if o := c.peer(n); !o.syncing() && !n.syncing() {
		c.note("node %d: sync with %d", n.id, o.id)
		c.learn(n, o, n.ks.Have.Join(o.ks.Have))
		crdttest.Merge(n.ks, n.store, o.store, o.ks.Have)
	}
}

// learn takes over what the peer knows of the origins of streams that it is
// as far with as the node will be.
func (c *cluster) learn(n, o *node, joined crdt.Vector) {
	for _, p := range joined {
		if t := n.ks.Have.Get(p.Stream); p.Tag > t {
			delete(n.known, p.Stream)
		}
		if p.Tag == o.ks.Have.Get(p.Stream) && n.known[p.Stream] == nil {
			n.known[p.Stream] = o.known[p.Stream]
		}
	}
}

// syncPart joins half of a peer's state.
func (c *cluster) syncPart(n *node) {
	o := c.peer(n)
	if o.syncing() {
		return
	}
	h := c.rng.IntN(2)
	c.note("node %d: sync of half %d with %d", n.id, h, o.id)
	for _, k := range randomKeys {
		if half(k) == h {
			crdttest.MergeKey(n.ks, k, o.store, o.ks.Have)
		}
	}
	n.ahead[h] = n.ahead[h].Join(o.ks.Have)
	for db := range uint8(2) {
		n.stops[h] = with(n.stops[h], db, o.store.DBPending(db))
	}
	n.set()
	have := n.ks.Have.Clone()
	for _, p := range n.ks.Have.Join(n.ahead[0]) {
		have.Raise(p.Stream, min(p.Tag, n.ks.Have.Join(n.ahead[1]).Get(p.Stream)))
	}
	for _, p := range have {
		if p.Tag > n.ks.Have.Get(p.Stream) {
			n.known[p.Stream] = nil // of another position
			for _, e := range c.log[p.Stream] {
				if e.Tag == p.Tag {
					n.known[p.Stream] = e.Ctx
				}
			}
		}
	}
	n.ks.Have = have
	n.settle()
}

// tidy drops the remnants of random cells, with what the node knows: the
// contexts of the newest entries, what a heartbeat has told of an origin that
// has written no more, or that nothing can come any more of one that is over.
func (c *cluster) tidy(n *node) {
	if n.syncing() {
		return
	}
	c.note("node %d: tidy", n.id)
	known := func(s crdt.Stream) crdt.Vector {
		for _, o := range c.nodes {
			if o.origin == s.Origin() && o.ks.Have.Get(s) == n.ks.Have.Get(s) {
				return o.ks.Have
			}
		}
		if l := c.log[s]; c.over(s) && (len(l) == 0 || l[len(l)-1].Tag <= n.ks.Have.Get(s)) {
			return n.ks.Have
		}
		return n.known[s]
	}
	for _, key := range n.store.Keys() {
		n.store.EachCell(key, crdt.KindAny, func(id crdt.CellID, _ *crdt.Cell) bool {
			if c.rng.IntN(2) == 0 {
				n.ks.Tidy(id, known)
			}
			return true
		})
		if c.rng.IntN(2) == 0 {
			n.ks.TidyKey(key)
		}
	}
	n.ks.TidyDB(uint8(c.rng.IntN(2)))
	if len(n.ks.Touched) > 0 {
		c.errorf("node %d: Tidy touches keys", n.id)
	}
}

// over reports whether a stream is of an earlier life of its node.
func (c *cluster) over(s crdt.Stream) bool {
	return !slices.ContainsFunc(c.nodes, func(o *node) bool { return o.origin == s.Origin() })
}

func (c *cluster) sweep(n *node) {
	c.note("node %d: sweep", n.id)
	for _, k := range n.store.Keys() {
		h := n.store.Header(k)
		due := h.Expiry != 0 && h.Expiry <= c.millis && !h.Swept
		if n.ks.Sweep(k, c.millis) != due {
			c.errorf("node %d: sweep of %v", n.id, k)
		}
		n.store.EachCell(k, crdt.KindExpiry, func(id crdt.CellID, c0 *crdt.Cell) bool {
			field, of := id.Field()
			f := n.store.Cell(crdt.CellID{Key: k, Kind: crdt.KindField, Elem: field})
			due := of && !c0.Hidden && c0.Expiry() != 0 && c0.Expiry() <= c.millis && f != nil && f.Live()
			if n.ks.SweepField(id, c.millis) != due {
				c.errorf("node %d: sweep of %v", n.id, id)
			}
			return true
		})
	}
}

// wipe loses all a node has; what nobody else had is lost for good.
func (c *cluster) wipe(n *node) {
	for l := range crdt.Stream(crdt.Lanes) {
		s := n.origin | l
		var kept crdt.Tag
		for _, o := range c.nodes {
			if o != n {
				kept = max(kept, o.ks.Have.Get(s), o.ahead[0].Get(s), o.ahead[1].Get(s))
			}
		}
		c.log[s] = slices.DeleteFunc(c.log[s], func(e crdt.Entry) bool { return e.Tag > kept })
		if len(c.log[s]) == 0 {
			delete(c.log, s)
		}
	}
	c.note("node %d: wiped", n.id)
	c.millis++
	c.begin(n)
}

func (c *cluster) check(n *node) {
	if err := n.store.Check(); err != nil {
		c.errorf("node %d: %v", n.id, err)
	}
	if !n.syncing() {
		if got, want := n.store.LiveCells(nil), c.model.State(n.ks.Have, nil); !crdttest.Same(got, want) {
			c.errorf("node %d has\n%s\nthe model\n%s", n.id, lines(got), lines(want))
		}
		return
	}
	for h := range 2 {
		only := func(k crdt.Key) bool { return half(k) == h }
		got, want := n.store.LiveCells(only), c.model.State(n.ks.Have.Join(n.ahead[h]), only)
		if !crdttest.Same(got, want) {
			c.errorf("node %d has of half %d\n%s\nthe model\n%s", n.id, h, lines(got), lines(want))
		}
	}
}

// heal delivers everything to everyone and lets all know all.
func (c *cluster) heal() {
	c.note("heal")
	var all crdt.Vector
	for s, l := range c.log {
		all.Set(s, l[len(l)-1].Tag)
	}
	for _, n := range c.nodes {
		for _, p := range all {
			if n.ks.Have.Get(p.Stream) < p.Tag {
				c.deliverTo(n, p.Stream, len(c.log[p.Stream]))
			}
		}
		for _, k := range n.store.Keys() {
			n.ks.Sweep(k, c.millis)
		}
		c.check(n)
	}
	for _, n := range c.nodes {
		if !n.ks.Have.Equal(all) {
			c.errorf("node %d ends at %v, not %v", n.id, n.ks.Have, all)
		}
		if n.store.Digest() != c.nodes[0].store.Digest() {
			c.errorf("digests of node 1 and %d differ at the end", n.id)
		}
		crdttest.Tidy(n.ks, n.store, func(crdt.Stream) crdt.Vector { return all })
		lost := func(d crdt.Dot) bool { return c.over(d.Stream) && d.Tag > all.Get(d.Stream) }
		if left := n.store.Remnants(lost); len(left) > 0 {
			c.errorf("everything is known by all, and node %d is left with\n%s", n.id, strings.Join(left, "\n"))
		}
		c.check(n)
	}
}
