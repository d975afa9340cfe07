package crdt_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// TestExhaustive tries every small history of every kind of cell, and for each
// every state a replica can be in. What "every" means:
//
// A history is a sequence of operations from one menu, each made at one of
// three replicas that has seen any causally possible part of what came before,
// its own operations included. Tags rise along the sequence: any order of tags
// that respects what was seen is the order of some sequence. Replicas that have
// written nothing yet are interchangeable, and operations that make no entry
// are left out; nothing else is.
//
// For each history the states that a replica can reach are computed as a
// fixed point, from the empty replica and the writers' own, under
//
//   - delivery of any range of any stream that begins at or before what the
//     replica has, folded into one entry: so every order of streams, every
//     duplicate, every split into folds, ranges that overlap;
//   - state merge with any other reachable state (menus marked sync: also key
//     by key, with deliveries and writes while only one key is ahead);
//   - Tidy with anything that may legally be known of the streams' origins.
//
// In every state reached the live cells are those of the naive model at the
// state's vector, and all that headers and digests say is recomputed. Every
// step must have told Touched all it changed, and a step that brings nothing
// new must change nothing. Once everything is known by all, nothing but live
// cells is left. The operations themselves are made from every reachable state
// that has the right vector, and must do to the visible value what Redis does.
//
// By default histories have up to three operations, everywhere with
// everything; menus of two writers have up to four with everything, and the
// smaller menus of three writers up to four with deliveries and Tidy, but
// without merges. REPLICATORD_EXHAUSTIVE=full has four everywhere with
// everything, which takes hours; -run TestExhaustive/<menu> chooses one menu.
func TestExhaustive(t *testing.T) {
	full := os.Getenv("REPLICATORD_EXHAUSTIVE") == "full"
	for _, m := range menus {
		t.Run(m.name, func(t *testing.T) {
			x := &explorer{t: t, menu: m, merges: m.merges, depth: m.depth}
			if full {
				x.merges, x.depth = 4, 4
			}
			x.run()
			t.Logf("%d histories, %d states, %d steps, up to %d states of one history", x.histories, x.states, x.steps, x.most)
		})
	}
}

// menu is a set of operations to build histories from.
type menu struct {
	name   string
	ops    []op
	nodes  int
	lanes  []crdt.Lane
	sync   bool // keys "k" and "j" are synced apart
	sweeps bool // fields that have expired are hidden, at any time
	depth  int  // operations by default
	merges int  // operations up to which states are merged by default
}

// op is one write. It returns what must hold of the visible value after it,
// given what was visible before it.
type op struct {
	name string
	do   func(w *crdt.Writer, value string) func() bool
}

var k, j = crdt.Key{Name: "k"}, crdt.Key{Name: "j"}

func text(w *crdt.Writer, key crdt.Key, kind crdt.Kind, elem string) string {
	v, ok := w.Elem(key, kind, elem)
	if !ok {
		return "(nil)"
	}
	return string(v)
}

func set(key crdt.Key) op {
	return op{"SET " + key.Name, func(w *crdt.Writer, value string) func() bool {
		w.SetString(key, []byte(value), false)
		return func() bool { return text(w, key, crdt.KindString, "") == value && w.Expiry(key) == 0 }
	}}
}

func setNumber(key crdt.Key) op {
	return op{"SET number " + key.Name, func(w *crdt.Writer, value string) func() bool {
		w.SetString(key, []byte("10"+value[1:]), false)
		return func() bool { return text(w, key, crdt.KindString, "") == "10"+value[1:] }
	}}
}

func setKeepTTL(key crdt.Key) op {
	return op{"SET KEEPTTL " + key.Name, func(w *crdt.Writer, value string) func() bool {
		at := w.Expiry(key)
		w.SetString(key, []byte(value), true)
		return func() bool { return text(w, key, crdt.KindString, "") == value && w.Expiry(key) == at }
	}}
}

func del(key crdt.Key) op {
	return op{"DEL " + key.Name, func(w *crdt.Writer, _ string) func() bool {
		was := w.Type(key) != crdt.TypeNone
		did := w.Remove(key)
		return func() bool { return did == was && w.Type(key) == crdt.TypeNone }
	}}
}

func setElem(key crdt.Key, kind crdt.Kind, elem string) op {
	return op{fmt.Sprintf("put %s %s", key.Name, elem), func(w *crdt.Writer, value string) func() bool {
		if t := w.Type(key); t != kind.Of() && (t != crdt.TypeNone || kind.Type() == crdt.TypeNone) {
			return nil // WRONGTYPE, or nothing to read from
		}
		_, had := w.Elem(key, kind, elem)
		n := w.Len(key, kind)
		if !had {
			n++
		}
		if kind == crdt.KindMember {
			value = ""
		}
		w.SetElem(key, kind, elem, []byte(value))
		return func() bool {
			return text(w, key, kind, elem) == value && w.Len(key, kind) == n && w.Type(key) == kind.Of()
		}
	}}
}

func setScore(key crdt.Key, elem string) op {
	return op{fmt.Sprintf("put score %s %s", key.Name, elem), func(w *crdt.Writer, value string) func() bool {
		if t := w.Type(key); t != crdt.TypeNone && t != crdt.TypeZSet {
			return nil // WRONGTYPE
		}
		w.SetElem(key, crdt.KindScored, elem, []byte("10"+value[1:]))
		return func() bool { return text(w, key, crdt.KindScored, elem) == "10"+value[1:] }
	}}
}

func removeElem(key crdt.Key, kind crdt.Kind, elem string) op {
	return op{fmt.Sprintf("remove %s %s", key.Name, elem), func(w *crdt.Writer, _ string) func() bool {
		_, had := w.Elem(key, kind, elem)
		did := w.RemoveElem(key, kind, elem)
		return func() bool { return did == had && text(w, key, kind, elem) == "(nil)" }
	}}
}

// itemAt returns the first or last item of a list.
func itemAt(w *crdt.Writer, key crdt.Key, front bool) (elem, value string) {
	w.EachElemFrom(key, crdt.KindItem, "", !front, func(e string, v []byte) bool {
		elem, value = e, string(v)
		return false
	})
	return elem, value
}

func push(key crdt.Key, front bool) op {
	return op{fmt.Sprintf("push %s, front %v", key.Name, front), func(w *crdt.Writer, value string) func() bool {
		if t := w.Type(key); t != crdt.TypeNone && t != crdt.TypeList {
			return nil // WRONGTYPE
		}
		n := w.Len(key, crdt.KindItem)
		err := w.PushItems(key, front, [][]byte{[]byte("x"), []byte(value)})
		return func() bool {
			_, got := itemAt(w, key, front)
			return err == nil && w.Len(key, crdt.KindItem) == n+2 && w.Type(key) == crdt.TypeList && got == value
		}
	}}
}

func pop(key crdt.Key, front bool) op {
	return op{fmt.Sprintf("pop %s, front %v", key.Name, front), func(w *crdt.Writer, _ string) func() bool {
		n := w.Len(key, crdt.KindItem)
		elem, _ := itemAt(w, key, front)
		did := w.RemoveElem(key, crdt.KindItem, elem)
		return func() bool { return did == (n > 0) && w.Len(key, crdt.KindItem) == max(n-1, 0) }
	}}
}

func setItem(key crdt.Key, front bool) op {
	return op{fmt.Sprintf("set %s, front %v", key.Name, front), func(w *crdt.Writer, value string) func() bool {
		elem, _ := itemAt(w, key, front)
		if elem == "" {
			return nil
		}
		w.SetElem(key, crdt.KindItem, elem, []byte(value))
		return func() bool { _, got := itemAt(w, key, front); return got == value }
	}}
}

func incr(key crdt.Key, kind crdt.Kind, elem string) op {
	return op{fmt.Sprintf("incr %s %s", key.Name, elem), func(w *crdt.Writer, value string) func() bool {
		if t := w.Type(key); t != crdt.TypeNone && t != kind.Type() {
			return nil // WRONGTYPE
		}
		was := crdt.Int(0)
		if v, ok := w.Elem(key, kind, elem); ok {
			n, err := crdt.ParseNumber(v)
			if err != nil {
				return nil // not a number
			}
			was = n
		}
		n := amountOf(value)
		w.AddElem(key, kind, elem, n)
		return func() bool { return text(w, key, kind, elem) == was.Add(n).String() }
	}}
}

// amountOf makes the number that an operation adds of its value, so that no two
// sums of operations are alike.
func amountOf(value string) crdt.Number { return crdt.Int(1 << (4 * (value[1] - '0'))) }

func flush() op {
	return op{"FLUSHDB", func(w *crdt.Writer, _ string) func() bool {
		w.Flush(0)
		return func() bool { return w.Type(k) == crdt.TypeNone && w.Type(j) == crdt.TypeNone }
	}}
}

func expire(key crdt.Key, after int64) op {
	return op{fmt.Sprintf("EXPIRE %s %d", key.Name, after), func(w *crdt.Writer, _ string) func() bool {
		exists := w.Type(key) != crdt.TypeNone
		at := w.Now() + after
		w.SetExpiry(key, at)
		return func() bool { return !exists || w.Expiry(key) == at }
	}}
}

func persist(key crdt.Key) op {
	return op{"PERSIST " + key.Name, func(w *crdt.Writer, _ string) func() bool {
		w.SetExpiry(key, crdt.Never)
		return func() bool { return w.Expiry(key) == 0 }
	}}
}

func setField(key crdt.Key, field string, keepTTL bool) op {
	return op{fmt.Sprintf("HSET %s %s, keep %v", key.Name, field, keepTTL), func(w *crdt.Writer, value string) func() bool {
		if t := w.Type(key); t != crdt.TypeHash && t != crdt.TypeNone {
			return nil // WRONGTYPE
		}
		at := w.FieldExpiry(key, field)
		if !keepTTL {
			at = 0
		}
		value = "10" + value[1:]
		w.SetField(key, field, []byte(value), keepTTL)
		return func() bool {
			return text(w, key, crdt.KindField, field) == value && w.FieldExpiry(key, field) == at
		}
	}}
}

func expireField(key crdt.Key, field string, after int64) op {
	return op{fmt.Sprintf("HEXPIRE %s %s %d", key.Name, field, after), func(w *crdt.Writer, _ string) func() bool {
		was := text(w, key, crdt.KindField, field)
		at := w.Now() + after
		w.SetFieldExpiry(key, field, at)
		return func() bool {
			return text(w, key, crdt.KindField, field) == was && (was == "(nil)" || w.FieldExpiry(key, field) == at)
		}
	}}
}

func persistField(key crdt.Key, field string) op {
	return op{fmt.Sprintf("HPERSIST %s %s", key.Name, field), func(w *crdt.Writer, _ string) func() bool {
		was := text(w, key, crdt.KindField, field)
		w.SetFieldExpiry(key, field, crdt.Never)
		return func() bool {
			return text(w, key, crdt.KindField, field) == was && w.FieldExpiry(key, field) == 0
		}
	}}
}

// purgeField removes a field that is hidden; what shows stays.
func purgeField(key crdt.Key, field string) op {
	return op{fmt.Sprintf("purge of %s %s", key.Name, field), func(w *crdt.Writer, _ string) func() bool {
		was, typ := text(w, key, crdt.KindField, field), w.Type(key)
		w.PurgeField(crdt.FieldExpiry(key, field))
		return func() bool {
			return text(w, key, crdt.KindField, field) == was && w.Type(key) == typ
		}
	}}
}

var menus = []menu{
	{name: "string", depth: 4, merges: 3, ops: []op{set(k), del(k), flush()}},
	{name: "string counter", depth: 4, merges: 3, ops: []op{incr(k, crdt.KindString, ""), setNumber(k), del(k)}},
	{name: "string counter and text", depth: 3, merges: 3, ops: []op{incr(k, crdt.KindString, ""), set(k), setNumber(k), del(k), flush()}},
	{name: "string, two writers", depth: 4, merges: 4, nodes: 2, ops: []op{incr(k, crdt.KindString, ""), setNumber(k), set(k), del(k)}},
	{name: "field, two writers", depth: 4, merges: 4, nodes: 2, ops: []op{incr(k, crdt.KindField, "f"), removeElem(k, crdt.KindField, "f"), setElem(k, crdt.KindField, "f"), del(k)}},
	{name: "counter flushed", depth: 4, merges: 4, nodes: 2, ops: []op{incr(k, crdt.KindString, ""), del(k), flush()}},
	{name: "field", depth: 3, merges: 3, ops: []op{setElem(k, crdt.KindField, "f"), removeElem(k, crdt.KindField, "f"), setElem(k, crdt.KindField, "g"), del(k), flush()}},
	{name: "field counter", depth: 3, merges: 3, ops: []op{incr(k, crdt.KindField, "f"), removeElem(k, crdt.KindField, "f"), setElem(k, crdt.KindField, "g"), del(k), flush()}},
	{name: "member", depth: 4, merges: 3, ops: []op{setElem(k, crdt.KindMember, "m"), removeElem(k, crdt.KindMember, "m"), del(k)}},
	{name: "list", depth: 3, merges: 3, ops: []op{push(k, false), pop(k, true), setItem(k, true), del(k)}},
	{name: "list of two writers", depth: 4, merges: 3, nodes: 2, ops: []op{push(k, false), push(k, true), pop(k, true)}},
	{name: "score", depth: 3, merges: 3, ops: []op{incr(k, crdt.KindScored, "m"), setScore(k, "m"), removeElem(k, crdt.KindScored, "m"), setScore(k, "n"), del(k)}},
	{name: "score, two writers", depth: 4, merges: 4, nodes: 2, ops: []op{incr(k, crdt.KindScored, "m"), setScore(k, "m"), removeElem(k, crdt.KindScored, "m"), del(k)}},
	{name: "expiry", depth: 3, merges: 3, ops: []op{set(k), setKeepTTL(k), expire(k, 1000), expire(k, 2000), persist(k), del(k)}},
	{name: "expired", depth: 3, merges: 3, ops: []op{set(k), expire(k, 15), incr(k, crdt.KindField, "f"), setElem(k, crdt.KindMember, "m")}},
	{name: "field expiry", depth: 3, merges: 3, ops: []op{setField(k, "f", false), expireField(k, "f", 1000), expireField(k, "f", 2000), persistField(k, "f"), removeElem(k, crdt.KindField, "f")}},
	{name: "field expiry, two writers", depth: 4, merges: 3, nodes: 2, ops: []op{setField(k, "f", false), setField(k, "f", true), expireField(k, "f", 1000), del(k), flush()}},
	{name: "field expired", depth: 3, merges: 3, nodes: 2, sweeps: true, ops: []op{setField(k, "f", false), expireField(k, "f", 15), incr(k, crdt.KindField, "f"), setField(k, "g", false), setElem(k, crdt.KindMember, "m"), purgeField(k, "f")}},
	{name: "field expired, three writers", depth: 3, merges: 3, sweeps: true, ops: []op{setField(k, "f", true), expireField(k, "f", 15), expireField(k, "f", 25), removeElem(k, crdt.KindField, "f")}},
	{name: "field expired beside a string", depth: 3, merges: 3, sweeps: true, nodes: 2, ops: []op{set(k), setField(k, "f", false), expireField(k, "f", 15), expire(k, 1000)}},
	{name: "two types", depth: 3, merges: 3, ops: []op{set(k), setElem(k, crdt.KindMember, "m"), incr(k, crdt.KindField, "f"), del(k), flush()}},
	{name: "two types of counters", depth: 3, merges: 3, ops: []op{incr(k, crdt.KindString, ""), incr(k, crdt.KindField, "f"), set(k), del(k)}},
	{name: "registers", depth: 3, merges: 3, ops: []op{setElem(k, crdt.KindRegisters, ""), setElem(k, crdt.KindRegisters, "b"), set(k), del(k)}},
	{name: "registers, two writers", depth: 4, merges: 4, nodes: 2, ops: []op{setElem(k, crdt.KindRegisters, "b"), set(k), expire(k, 1000), del(k)}},
	{name: "lanes", depth: 3, merges: 3, nodes: 2, lanes: []crdt.Lane{0, 3}, ops: []op{incr(k, crdt.KindString, ""), setNumber(k), del(k), flush()}},
	{name: "lanes of a hash", depth: 3, merges: 3, nodes: 2, lanes: []crdt.Lane{0, 1}, ops: []op{incr(k, crdt.KindField, "f"), setElem(k, crdt.KindField, "g"), removeElem(k, crdt.KindField, "f"), del(k)}},
	// A stream's last id or group (its cell makes the key exist), a reader's
	// position (which does not), and the count of entries.
	{name: "stream", depth: 3, merges: 3, ops: []op{setElem(k, crdt.KindGroup, "g"), setElem(k, crdt.KindPending, "p"), removeElem(k, crdt.KindPending, "p"), removeElem(k, crdt.KindGroup, "g"), del(k)}},
	{name: "stream count", depth: 3, merges: 3, ops: []op{incr(k, crdt.KindGroup, "+"), setElem(k, crdt.KindEntry, "1"), setElem(k, crdt.KindPending, "p"), removeElem(k, crdt.KindEntry, "1"), del(k)}},
	{name: "stream and string", depth: 3, merges: 3, nodes: 2, ops: []op{set(k), setElem(k, crdt.KindEntry, "1"), setElem(k, crdt.KindPending, "p"), del(k)}},
	{name: "sync", depth: 3, merges: 2, sync: true, ops: []op{incr(k, crdt.KindString, ""), set(j), flush()}},
}

// replica is one reachable state. Replicas are interned: two with the same
// content are one.
type replica struct {
	have  crdt.Vector
	ahead map[crdt.Key]crdt.Vector // of keys that a sync has brought further
	stops map[crdt.Key]crdt.Vector // what the peers they were synced with held pending
	owed  map[crdt.Stream]crdt.Vector
	store *crdttest.Store
	live  []crdttest.Live
}

// owed: a replica that dropped a remnant because a heartbeat said that an
// origin knew of a remove rules out that the origin's next entry does not. A
// history owes the same once such a replica has written.

func (r *replica) vector(key crdt.Key) crdt.Vector { return r.have.Join(r.ahead[key]) }

// keyspace returns a keyspace on a copy of the replica.
func (r *replica) keyspace() (*crdt.Keyspace, *crdttest.Store) {
	s := r.store.Clone()
	ks := &crdt.Keyspace{Store: s, Have: r.have.Clone()}
	if len(r.ahead) > 0 {
		ks.HaveOf = r.vector
		ks.PendingOf = func(key crdt.Key) crdt.Vector { return r.stops[key] }
	}
	return ks, s
}

type explorer struct {
	t                              *testing.T
	menu                           menu
	depth, merges                  int
	histories, states, steps, most int

	interned map[string]*replica
	applied  map[appliedKey]*replica
	merged   map[mergedKey]*replica
	entries  map[string]*crdt.Entry

	step func() string // describes the step being taken, for a failure
}

type appliedKey struct {
	r *replica
	e *crdt.Entry
}

type mergedKey struct {
	r, o *replica
	key  crdt.Key // of a sync by keys
}

// history is a sequence of operations and what is reachable after it.
type history struct {
	ops     []string
	used    int // nodes that have written
	streams map[crdt.Stream][]*crdt.Entry
	ranges  map[crdt.Stream][]*crdt.Entry // every fold of a range, as an entry
	model   *crdttest.Model
	want    map[string][]crdttest.Live
	reach   []*replica
	has     map[*replica]bool
	fresh   crdt.Dot // of the newest entry; ranges without it are old
	owed    map[crdt.Stream]crdt.Vector
}

const firstMilli = 1_750_000_000_000

func (x *explorer) run() {
	if x.menu.nodes == 0 {
		x.menu.nodes = 3
	}
	if x.menu.lanes == nil {
		x.menu.lanes = []crdt.Lane{1}
	}
	x.forget()
	h := &history{
		streams: map[crdt.Stream][]*crdt.Entry{}, ranges: map[crdt.Stream][]*crdt.Entry{},
		model: &crdttest.Model{}, want: map[string][]crdttest.Live{}, has: map[*replica]bool{},
	}
	x.add(h, x.intern(h, &replica{store: crdttest.New()}))
	x.explore(h)
}

func (x *explorer) forget() {
	x.interned, x.applied = map[string]*replica{}, map[appliedKey]*replica{}
	x.merged, x.entries = map[mergedKey]*replica{}, map[string]*crdt.Entry{}
}

func (x *explorer) explore(h *history) {
	if len(h.ops) == x.depth {
		return
	}
	if len(h.ops) == 2 {
		x.forget()
	}
	for node := 1; node <= min(h.used+1, x.menu.nodes); node++ {
		for _, lane := range x.menu.lanes {
			for i := range x.menu.ops {
				x.branch(h, uint16(node), lane, &x.menu.ops[i])
			}
		}
	}
}

// branch extends the history by one operation, made wherever its node can be.
func (x *explorer) branch(h *history, node uint16, lane crdt.Lane, o *op) {
	type result struct {
		entry crdt.Entry
		owed  map[crdt.Stream]crdt.Vector
		local []*replica
	}
	origin := crdt.NewStream(node, 1, 0)
	stream := origin | crdt.Stream(lane)
	n := len(h.ops) + 1
	var order []string
	results := map[string]*result{}
	for _, r := range h.reach {
		if !x.isHome(h, r, origin) {
			continue
		}
		ks, store := r.keyspace()
		w := crdt.NewWriter(ks, origin, crdt.TagAt(firstMilli+int64(n)*10, node), firstMilli+int64(n)*10)
		w.SetLane(lane)
		holds := o.do(w, fmt.Sprintf("v%d", n))
		entries := w.Entries()
		if len(entries) == 0 {
			continue
		}
		if !holds() {
			x.fatal(h, r, "%s at %d does not do what it should", o.name, node)
		}
		if len(entries) != 1 {
			x.fatal(h, r, "%d entries", len(entries))
		}
		e := entries[0]
		if !h.owed[stream].In(e.Ctx) {
			continue
		}
		x.checkTouched(h, r, ks, store, o.name)
		next := &replica{have: r.have.Clone(), ahead: r.ahead, stops: r.stops, owed: r.owed, store: store}
		next.have.Raise(stream, e.Tag)
		id := describe(e)
		if len(r.owed) > 0 {
			id += fmt.Sprint(r.owed)
		}
		res := results[id]
		if res == nil {
			res = &result{entry: e, owed: r.owed}
			results[id] = res
			order = append(order, id)
		}
		res.local = append(res.local, next)
	}
	for _, id := range order {
		res := results[id]
		if free := results[describe(res.entry)]; free != nil && free != res {
			// The same entry without owing anything: all histories that follow
			// from this one follow from that one too.
			continue
		}
		child := h.extend(fmt.Sprintf("%d/%d: %s having seen %v", node, lane, o.name, short(res.entry.Ctx)), max(h.used, int(node)))
		child.owed = h.owed
		for s, v := range res.owed {
			child.owed = with(child.owed, s, v)
		}
		child.fresh = crdt.Dot{Tag: res.entry.Tag, Stream: stream}
		e := x.entry(&res.entry)
		for cell, got := range child.model.Add(*e) {
			if want := amountOf(fmt.Sprintf("v%d", n)); !got.Equal(want) {
				x.fatal(child, nil, "cell %v grew by %v, not %v", cell, got, want)
			}
		}
		x.deliverable(child, e)
		for _, r := range h.reach {
			if w := r.owed[stream]; w.In(e.Ctx) {
				x.add(child, r)
			}
		}
		old := len(child.reach)
		for _, id := range order {
			o := results[id]
			// Also what owes more can be where the same entry was made.
			if describe(o.entry) == describe(res.entry) && (id == describe(o.entry) || o == res || len(res.owed) == 0) {
				for _, r := range o.local {
					x.add(child, x.intern(child, r))
				}
			}
		}
		x.close(child, old)
		x.histories++
		x.most = max(x.most, len(child.reach))
		x.explore(child)
	}
}

// isHome reports whether a replica can be that of an origin: it has all that
// the origin wrote, and had seen when it wrote.
func (x *explorer) isHome(h *history, r *replica, origin crdt.Stream) bool {
	for _, lane := range x.menu.lanes {
		s := origin | crdt.Stream(lane)
		l := h.streams[s]
		if len(l) > 0 && (r.have.Get(s) != l[len(l)-1].Tag || !l[len(l)-1].Ctx.In(r.have)) {
			return false
		}
		for _, e := range l {
			for _, d := range e.Deltas {
				if d.Remove != nil && !d.Remove.Ctx.In(r.vector(d.ID.Key)) {
					return false
				}
			}
		}
	}
	return true
}

func (h *history) extend(op string, used int) *history {
	return &history{
		ops: append(slices.Clip(h.ops), op), used: used,
		streams: maps.Clone(h.streams), ranges: maps.Clone(h.ranges),
		model: h.model.Clone(), want: maps.Clone(h.want), has: map[*replica]bool{},
	}
}

// deliverable adds an entry to the history's streams, and every range that ends
// with it.
func (x *explorer) deliverable(h *history, e *crdt.Entry) {
	l := append(slices.Clip(h.streams[e.Stream]), e)
	h.streams[e.Stream] = l
	ranges := slices.Clip(h.ranges[e.Stream])
	for i := range l {
		var part []crdt.Entry
		for _, e := range l[i:] {
			part = append(part, *e)
		}
		f := crdt.FoldEntries(part)
		ranges = append(ranges, x.entry(&f))
	}
	h.ranges[e.Stream] = ranges
}

func (x *explorer) entry(e *crdt.Entry) *crdt.Entry {
	id := describe(*e)
	if old := x.entries[id]; old != nil {
		return old
	}
	x.entries[id] = e
	return e
}

// describe makes the parts of an entry printable in full.
func describe(e crdt.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%x (%x..%x] ctx %v", uint64(e.Stream), uint64(e.Prev), uint64(e.Tag), e.Ctx)
	for _, d := range e.Deltas {
		fmt.Fprintf(&b, "\n      level %d %v", d.Level, d.ID)
		if r := d.Remove; r != nil {
			fmt.Fprintf(&b, " remove@%x ctx %v seen %+v", uint64(r.Tag), r.Ctx, r.Seen)
		}
		if p := d.Put; p != nil {
			fmt.Fprintf(&b, " put@%x %q", uint64(p.Tag), p.Value)
		}
		if a := d.Add; a != nil {
			fmt.Fprintf(&b, " add@%x since %x to %v", uint64(a.Tag), uint64(a.Epoch), a.Sum)
		}
	}
	return b.String()
}

func short(v crdt.Vector) string {
	var b []string
	for _, p := range v {
		b = append(b, fmt.Sprintf("%d/%d:%d", p.Stream.Node(), p.Stream.Lane(), (p.Tag.Millis()-firstMilli)/10))
	}
	return "{" + strings.Join(b, " ") + "}"
}

// close computes what is reachable; reach[:old] is closed but for what is new.
func (x *explorer) close(h *history, old int) {
	for i := 0; i < len(h.reach); i++ {
		r := h.reach[i]
		for _, s := range slices.Sorted(maps.Keys(h.ranges)) {
			for _, e := range h.ranges[s] {
				// Among old states, only what has the newest entry is new.
				if e.Prev <= r.have.Get(s) && (i >= old || e.Tag == h.fresh.Tag) {
					x.add(h, x.apply(h, r, e))
				}
			}
		}
		for k := range len(h.ops) + 1 {
			x.add(h, x.tidy(h, r, k))
		}
		if x.menu.sweeps {
			for n := range len(h.ops) + 1 {
				x.add(h, x.sweep(h, r, firstMilli+10*int64(n)))
			}
		}
		if len(h.ops) <= x.merges {
			for l := 0; l <= i; l++ {
				if i >= old {
					x.merge(h, r, h.reach[l])
					x.merge(h, h.reach[l], r)
				}
			}
		}
		x.checkFinal(h, r)
	}
}

func (x *explorer) add(h *history, r *replica) {
	if !h.has[r] {
		h.has[r] = true
		h.reach = append(h.reach, r)
	}
}

// intern returns the one replica with r's content, and checks it when it is
// new, or new to the history.
func (x *explorer) intern(h *history, r *replica) *replica {
	id := r.store.AppendBinary(r.have.AppendBinary(nil))
	for _, key := range []crdt.Key{k, j} {
		if v := r.ahead[key]; len(v) > 0 {
			id = v.AppendBinary(append(append(id, 'a'), key.Name...))
			id = r.stops[key].AppendBinary(id)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(r.owed)) {
		id = r.owed[s].AppendBinary(binary.BigEndian.AppendUint64(append(id, 'o'), uint64(s)))
	}
	if old := x.interned[string(id)]; old != nil {
		r = old
	} else {
		x.interned[string(id)] = r
		x.states++
		r.live = r.store.LiveCells(nil)
		if err := r.store.Check(); err != nil {
			x.fatal(h, r, "%v", err)
		}
	}
	if !h.has[r] {
		x.checkModel(h, r)
	}
	return r
}

func (x *explorer) checkModel(h *history, r *replica) {
	if len(r.ahead) == 0 {
		id := string(r.have.AppendBinary(nil))
		want, ok := h.want[id]
		if !ok {
			want = h.model.State(r.have, nil)
			h.want[id] = want
		}
		if !crdttest.Same(r.live, want) {
			x.fatal(h, r, "the replica has\n%s\nthe model\n%s", lines(r.live), lines(want))
		}
		return
	}
	for _, key := range []crdt.Key{k, j} {
		only := func(o crdt.Key) bool { return o == key }
		got, want := r.store.LiveCells(only), h.model.State(r.vector(key), only)
		if !crdttest.Same(got, want) {
			x.fatal(h, r, "of %q the replica has\n%s\nthe model\n%s", key.Name, lines(got), lines(want))
		}
	}
}

func (x *explorer) apply(h *history, r *replica, e *crdt.Entry) *replica {
	if next := x.applied[appliedKey{r, e}]; next != nil {
		if !h.has[next] {
			x.checkModel(h, next)
		}
		return next
	}
	x.steps++
	x.step = func() string { return "delivery of " + describe(*e) + " to " + r.String() }
	ks, store := r.keyspace()
	if ks.Astray(e) {
		x.fatal(h, r, "refused is %s", describe(*e))
	}
	ks.Apply(e)
	x.checkTouched(h, r, ks, store, "apply")
	if e.Tag <= r.have.Get(e.Stream) && string(store.AppendBinary(nil)) != string(r.store.AppendBinary(nil)) {
		x.fatal(h, r, "applying a duplicate changes the state: %s", describe(*e))
	}
	next := &replica{have: r.have.Clone(), ahead: r.ahead, stops: r.stops, owed: r.owed, store: store}
	next.have.Raise(e.Stream, e.Tag)
	next.settle()
	x.applied[appliedKey{r, e}] = x.intern(h, next)
	return x.applied[appliedKey{r, e}]
}

// settle ends the syncs by key once the vector has caught up with all of them.
func (r *replica) settle() {
	for _, v := range r.ahead {
		if !v.In(r.have) {
			return
		}
	}
	for _, v := range r.stops {
		(&crdt.Keyspace{Store: r.store, Have: r.have}).MergeDBPending(0, v)
	}
	r.ahead, r.stops = nil, nil
}

// with returns m with v joined in at key.
func with[K comparable](m map[K]crdt.Vector, key K, v crdt.Vector) map[K]crdt.Vector {
	m = maps.Clone(m)
	if m == nil {
		m = map[K]crdt.Vector{}
	}
	m[key] = m[key].Join(v)
	return m
}

// known returns what a stream's origin may be known to have seen at a replica
// with vector v, and the part of it that only a heartbeat can have told. It is
// told up to the first k operations.
func (h *history) known(s crdt.Stream, v crdt.Vector, k int) (known, heard crdt.Vector) {
	at := v.Get(s)
	var limit crdt.Vector
	last := true
	for _, e := range h.streams[s] {
		if e.Tag <= at {
			known = e.Ctx
		} else {
			limit, last = e.Ctx, false
			break
		}
	}
	if last {
		for s, l := range h.streams {
			limit.Set(s, l[len(l)-1].Tag)
		}
	}
	upto := crdt.TagAt(firstMilli+int64(k)*10+1, 1)
	for _, p := range limit {
		for _, e := range h.streams[p.Stream] {
			if e.Tag <= p.Tag && e.Tag < upto && e.Tag > known.Get(p.Stream) {
				heard.Raise(p.Stream, e.Tag)
			}
		}
	}
	return known.Join(heard), heard
}

func (x *explorer) tidy(h *history, r *replica, upto int) *replica {
	x.steps++
	x.step = func() string { return fmt.Sprintf("tidy %d of ", upto) + r.String() }
	ks, store := r.keyspace()
	owed := maps.Clone(r.owed)
	if owed == nil {
		owed = map[crdt.Stream]crdt.Vector{}
	}
	crdttest.Tidy(ks, store, func(s crdt.Stream) crdt.Vector {
		known, heard := h.known(s, r.have, upto)
		if len(heard) > 0 {
			owed[s] = owed[s].Join(heard)
		}
		return known
	})
	if string(store.AppendBinary(nil)) == string(r.store.AppendBinary(nil)) {
		return r
	}
	return x.intern(h, &replica{have: r.have, ahead: r.ahead, stops: r.stops, owed: owed, store: store})
}

// sweep hides the fields that have expired by a time.
func (x *explorer) sweep(h *history, r *replica, now int64) *replica {
	x.steps++
	x.step = func() string { return fmt.Sprintf("sweep to %d of ", now-firstMilli) + r.String() }
	ks, store := r.keyspace()
	swept := false
	store.EachCell(k, crdt.KindExpiry, func(id crdt.CellID, _ *crdt.Cell) bool {
		swept = ks.SweepField(id, now) || swept
		return true
	})
	x.checkTouched(h, r, ks, store, "sweep")
	if swept != (len(ks.Touched) > 0) {
		x.fatal(h, r, "a sweep touches what it does not hide")
	}
	if string(store.AppendBinary(nil)) == string(r.store.AppendBinary(nil)) {
		return r
	}
	return x.intern(h, &replica{have: r.have, ahead: r.ahead, stops: r.stops, owed: r.owed, store: store})
}

// merge joins o's state into r's, at once and, for menus that say so, key by
// key.
func (x *explorer) merge(h *history, r, o *replica) {
	if len(o.ahead) > 0 {
		return // such a replica does not serve syncs
	}
	x.mergeKeys(h, r, o, crdt.Key{})
	if x.menu.sync {
		x.mergeKeys(h, r, o, k)
		x.mergeKeys(h, r, o, j)
	}
}

func (x *explorer) mergeKeys(h *history, r, o *replica, key crdt.Key) {
	if next := x.merged[mergedKey{r, o, key}]; next != nil {
		if !h.has[next] {
			x.checkModel(h, next)
			x.add(h, next)
		}
		return
	}
	x.steps++
	x.step = func() string { return fmt.Sprintf("merge (key %q) of ", key.Name) + o.String() + "into " + r.String() }
	ks, store := r.keyspace()
	next := &replica{have: r.have, ahead: r.ahead, stops: r.stops, owed: r.owed, store: store}
	for s, v := range o.owed {
		next.owed = with(next.owed, s, v)
	}
	if key == (crdt.Key{}) {
		crdttest.Merge(ks, store, o.store, o.have)
		next.have = ks.Have
	} else {
		crdttest.MergeKey(ks, key, o.store, o.have)
		next.ahead = with(next.ahead, key, o.have)
		next.stops = with(next.stops, key, o.store.DBPending(0))
		// What both keys have, the replica has.
		next.have = next.have.Clone()
		for _, p := range next.vector(k) {
			next.have.Raise(p.Stream, min(p.Tag, next.vector(j).Get(p.Stream)))
		}
	}
	next.settle()
	x.checkTouched(h, r, ks, store, "merge")
	next = x.intern(h, next)
	if len(r.ahead) == 0 && o.have.In(r.have) && !crdttest.Same(r.live, next.live) {
		x.fatal(h, r, "merging a state that has nothing new changes the live cells")
	}
	x.merged[mergedKey{r, o, key}] = next
	x.add(h, next)
}

// checkTouched checks that Touched tells of all that a step changed.
func (x *explorer) checkTouched(h *history, r *replica, ks *crdt.Keyspace, after *crdttest.Store, step string) {
	if msg := untold(r.store, after, ks.Touched); msg != "" {
		x.fatal(h, r, "%s: %s", step, msg)
	}
}

// untold returns what differs in the visible values of two stores and is not
// told by touched.
func untold(before, after *crdttest.Store, touched map[crdt.Key]*crdt.Touch) string {
	for _, key := range append(before.Keys(), after.Keys()...) {
		was, is := visible(before, key), visible(after, key)
		t := touched[key]
		switch {
		case t == nil:
			if was.typ != is.typ || was.expiry != is.expiry || !maps.Equal(was.cells, is.cells) {
				return fmt.Sprintf("key %q was changed and not touched", key.Name)
			}
			continue
		case t.Type != was.typ || t.Expiry != was.expiry:
			return fmt.Sprintf("key %q was %v until %d, Touched says %v until %d", key.Name, was.typ, was.expiry, t.Type, t.Expiry)
		case t.Whole || was.typ != is.typ:
			continue
		}
		for _, cells := range []map[crdt.CellID]string{was.cells, is.cells} {
			for id := range cells {
				a, inWas := was.cells[id]
				b, inIs := is.cells[id]
				_, told := t.Was(id)
				_, expiry := t.Was(crdt.FieldExpiry(key, id.Elem))
				if !told && !(expiry && id.Kind == crdt.KindField) && (inWas != inIs || a != b) {
					return fmt.Sprintf("cell %v was changed and not touched", id)
				}
			}
		}
	}
	return ""
}

type view struct {
	typ    crdt.Type
	expiry int64
	cells  map[crdt.CellID]string
}

func visible(s *crdttest.Store, key crdt.Key) view {
	v := view{cells: map[crdt.CellID]string{}}
	h := s.Header(key)
	if h == nil || h.Swept {
		return v
	}
	v.typ, v.expiry = h.Type, h.Expiry
	s.EachCell(key, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
		if !c.Live() || id.Kind.Type() != h.Type || h.Type == crdt.TypeNone {
			return true
		}
		v.cells[id] = string(c.Visible(id.Kind))
		if e := s.Cell(crdt.FieldExpiry(key, id.Elem)); id.Kind == crdt.KindField && e != nil {
			if v.cells[id] += fmt.Sprint(" until ", e.Expiry()); e.Hidden {
				delete(v.cells, id)
			}
		}
		return true
	})
	return v
}

// checkFinal checks that a replica that has everything, and knows that all
// have, is left with nothing but live cells.
func (x *explorer) checkFinal(h *history, r *replica) {
	var all crdt.Vector
	for s, l := range h.streams {
		all.Set(s, l[len(l)-1].Tag)
	}
	if !r.have.Equal(all) || len(r.ahead) > 0 {
		return
	}
	ks, store := r.keyspace()
	crdttest.Tidy(ks, store, func(crdt.Stream) crdt.Vector { return all })
	if left := store.Remnants(nil); len(left) > 0 {
		x.fatal(h, r, "everything is known by all, and left is\n%s", strings.Join(left, "\n"))
	}
	if !crdttest.Same(r.live, store.LiveCells(nil)) || len(ks.Touched) > 0 {
		x.fatal(h, r, "Tidy changes live cells")
	}
	if err := store.Check(); err != nil {
		x.fatal(h, r, "after Tidy: %v", err)
	}
}

func lines(l []crdttest.Live) string {
	var b strings.Builder
	for _, c := range l {
		fmt.Fprintf(&b, "  %v\n", c)
	}
	return b.String()
}

func (x *explorer) fatal(h *history, r *replica, format string, args ...any) {
	x.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, format, args...)
	fmt.Fprintf(&b, "\nhistory:\n  %s\n", strings.Join(h.ops, "\n  "))
	for _, l := range h.streams {
		for _, e := range l {
			fmt.Fprintf(&b, "    %s\n", describe(*e))
		}
	}
	if r != nil {
		fmt.Fprintf(&b, "%v", r)
	}
	if x.step != nil {
		fmt.Fprintf(&b, "last step: %s", x.step())
	}
	x.t.Fatal(b.String())
}

func (r *replica) String() string {
	return fmt.Sprintf("a replica at %v, ahead %v, owed %v, with\n%sand beside that\n%s\n", short(r.have), r.ahead, r.owed, lines(r.store.LiveCells(nil)), strings.Join(r.store.Remnants(nil), "\n"))
}
