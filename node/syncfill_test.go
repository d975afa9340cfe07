package node

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

// record is a view that takes note of what it is sent.
type record struct {
	away
	cmds []string
}

func (r *record) Send(b *Batch) { r.cmds = append(r.cmds, updates(b)...) }

// updates lists the updates of a batch: of several strings that go as one, each.
func updates(b *Batch) (out []string) {
	for i := range b.Cmds {
		c := &b.Cmds[i]
		if string(c.Args[0]) != "MSET" {
			out = append(out, fmt.Sprintf("%d %q", c.DB, c.Args))
			continue
		}
		for a := c.Args[1:]; len(a) > 0; a = a[2:] {
			out = append(out, fmt.Sprintf("%d %q", c.DB, [][]byte{[]byte("SET"), a[0], a[1]}))
		}
	}
	return out
}

// shown opens the whole state of a node, as it is shown to a data link.
func (h *history) shown(n *replica) *wanSnapshot {
	snap, err := n.log.Snapshot()
	if err != nil {
		h.fail("%v", err)
	}
	s, err := newWanSnapshot(snap, nil, defaultSyncSizes)
	if err != nil {
		h.fail("%v", err)
	}
	return s
}

// take brings a node the whole state of another, in steps, by tables or without.
func (h *history) take(to, from *replica, tables bool, step int) (p SyncProgress) {
	s := h.shown(from)
	defer s.Close()
	t := &SyncTaker{Go: func(fn func()) { fn() }, Post: func(fn func(*Core)) bool { fn(to.core); return true },
		Merged: func(_ uint16, _ bool, now SyncProgress, _ error) { p = now }}
	if tables {
		t.Log = to.log
	}
	b := s.Begin(nil)
	if _, err := t.Begin(from.id, &b, h.now); err != nil {
		h.fail("%v", err)
	}
	var cursor []byte
	for last := false; !last; {
		m, _, err := s.Next(cursor, step)
		if err != nil {
			h.fail("%v", err)
		}
		cursor, last = m.Cursor, m.Last
		t.Keys(from.id, &m, func(err error) {
			if err != nil {
				h.fail("%v", err)
			}
		})
	}
	return p
}

// rows lists all that a node has stored of keys.
func (h *history) rows(n *replica) (out []string) {
	s, err := n.log.Snapshot()
	if err != nil {
		h.fail("%v", err)
	}
	defer func() { _ = s.Close() }()
	err = s.Each(nil, nil, 1<<30, func(k *oplog.KeyState) error {
		out = append(out, fmt.Sprintf("%v %+v %+v", k.Key, k.Header, k.Cells))
		return nil
	})
	if err != nil {
		h.fail("%v", err)
	}
	return append(out, fmt.Sprint(h.digests(n)), fmt.Sprint(n.log.NextExpiry()))
}

// A state that comes by tables leaves what one merged key by key does: in the
// store, in the view and in the streams.
func TestTablesAreMerges(t *testing.T) {
	filled, merged := 0, 0
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHistory(t, seed, 5)
			h.slots, h.keys = 20, 10
			a, o, x, y := h.nodes[0], h.nodes[1], h.nodes[2], h.nodes[3]
			for i := range 150 {
				h.write(h.nodes[h.rand.IntN(2)])
				if i%10 == 0 {
					h.deliver(a, h.rand.IntN(2) == 0)
					h.deliver(o, h.rand.IntN(2) == 0)
				}
			}
			for range 60 {
				h.do(a, fmt.Sprintf("SET k%d %d", h.rand.IntN(1000), h.rand.IntN(9)), fmt.Sprintf("RPUSH l%d a b c", h.rand.IntN(1000)),
					fmt.Sprintf("PEXPIRE k%d %d", h.rand.IntN(1000), 1+h.rand.IntN(int(3*time.Hour/time.Millisecond))))
			}
			h.do(a, "XADD stream 1-1 a b", "PFADD log a b c")
			if seed%2 == 0 { // something of their own is in the way
				for _, n := range []*replica{x, y} {
					h.do(n, "SET own 1", fmt.Sprintf("SET k%d other", seed))
				}
				h.give(y, x, x.id)
				h.give(x, y, y.id)
				h.give(y, x, x.id)
			}
			for _, n := range []*replica{x, y} {
				n.core.view = &record{}
				if _, err := n.core.ViewUp(); err != nil {
					h.fail("%v", err)
				}
			}
			step := 100 + h.rand.IntN(2000)
			p, q := h.take(x, a, true, step), h.take(y, a, false, step)
			filled, merged = filled+p.Filled, merged+p.Keys-p.Filled
			if q.Filled != 0 || p.Keys != q.Keys {
				h.fail("%+v and %+v", p, q)
			}
			if got, want := h.rows(x), h.rows(y); !slices.Equal(got, want) {
				h.fail("by tables:\n%s\nmerged:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if !x.log.Vector().Equal(y.log.Vector()) {
				h.fail("at %v and %v", x.log.Vector(), y.log.Vector())
			}
			got, want := x.core.view.(*record).cmds, y.core.view.(*record).cmds
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				h.fail("the view by tables:\n%s\nmerged:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
	if filled == 0 || merged == 0 {
		t.Errorf("%d keys by tables, %d merged: this tests nothing", filled, merged)
	}
}

// What a node has seen and removed does not come back by a table.
func TestTableHasNothingSeen(t *testing.T) {
	h := newHistory(t, 1, 3)
	a, x := h.nodes[0], h.nodes[1]
	h.do(a, "SET k 1")
	h.give(x, a, a.id)
	h.do(x, "DEL k")
	for i := range 20 {
		h.do(a, fmt.Sprintf("SET other%d 1", i))
	}
	p := h.take(x, a, true, 1<<20)
	if p.Filled != 0 || p.Keys != 21 {
		h.fail("%+v", p)
	}
	g := x.log.Begin()
	defer g.Discard()
	if hd := g.Header(crdt.Key{Name: "k"}); hd != nil && hd.Type != crdt.TypeNone {
		h.fail("it is there again: %+v", hd)
	}
}

// A table is made only of steps in order, within what they say of themselves.
func TestTableOfBadSteps(t *testing.T) {
	h := newHistory(t, 1, 3)
	a, x := h.nodes[0], h.nodes[1]
	for i := range 10 {
		h.do(a, fmt.Sprintf("SET k%d 1", i))
	}
	s := h.shown(a)
	defer s.Close()
	m, _, err := s.Next(nil, 1<<20)
	if err != nil || len(m.States) != 10 {
		t.Fatalf("%d states, %v", len(m.States), err)
	}
	bad := map[string]wan.SyncKeys{
		"none":         {Last: true},
		"out of order": {Last: true, States: [][]byte{m.States[1], m.States[0]}},
		"twice":        {Last: true, States: [][]byte{m.States[0], m.States[0]}},
		"behind":       {Cursor: oplog.SlotPos(0), States: m.States},
	}
	for name, k := range bad {
		w, err := NewSyncWindow(nil, &k, false)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := w.newFill(x.log, 0); err == nil {
			t.Errorf("%s: %+v", name, f)
		}
	}
	first, err := decodeState(m.States[0])
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewSyncWindow(append(bytes.Clone(oplog.Pos(first.Key)), 0), &wan.SyncKeys{Last: true, States: m.States}, false)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := w.newFill(x.log, 0); err == nil {
		t.Errorf("before the step: %+v", f)
	}
}

// The next step may come as soon as one is merged, before that is over: each is
// merged once all the same.
func TestStepsAreMergedOnce(t *testing.T) {
	h := newHistory(t, 1, 2)
	a, x := h.nodes[0], h.nodes[1]
	for i := range 60 {
		h.do(a, fmt.Sprintf("SET k%d v", i))
	}
	s := h.shown(a)
	defer s.Close()
	var posted []func(*Core)
	taker := &SyncTaker{Go: func(fn func()) { fn() }, Post: func(fn func(*Core)) bool { posted = append(posted, fn); return true }}
	b := s.Begin(nil)
	if _, err := taker.Begin(a.id, &b, h.now); err != nil {
		t.Fatal(err)
	}
	var cursor []byte
	steps, merged := 0, 0
	var next func()
	next = func() {
		m, _, err := s.Next(cursor, 200)
		if err != nil {
			t.Fatal(err)
		}
		cursor = m.Cursor
		steps++
		taker.Keys(a.id, &m, func(err error) {
			if merged++; err != nil {
				t.Error(err)
			}
			if !m.Last {
				next()
			}
		})
	}
	for next(); len(posted) > 0; {
		fn := posted[0]
		posted = posted[1:]
		fn(x.core)
		if err := x.core.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if merged != steps || steps < 3 {
		t.Errorf("%d steps were merged %d times", steps, merged)
	}
}

// Tables are made while steps are merged, and a sync may end at any moment: each
// step is merged once and in order, a sync that went on is whole, and no table
// stays behind.
func TestTablesBesideMerges(t *testing.T) {
	filled, cut := 0, 0
	for seed := range uint64(30) {
		h := newHistory(t, seed, 2)
		a, x := h.nodes[0], h.nodes[1]
		value := strings.Repeat("v", 200_000)
		for i := range 60 {
			h.do(a, fmt.Sprintf("SET k%d %d%s", i, i, value[:1+h.rand.IntN(len(value))]))
		}
		s := h.shown(a)
		defer s.Close()
		var made []func()
		var posted []func(*Core)
		merged, owed, ended := 0, 0, false
		taker := &SyncTaker{Log: x.log, Go: func(fn func()) { made = append(made, fn) }, Post: func(fn func(*Core)) bool { posted = append(posted, fn); return true },
			Merged: func(_ uint16, last bool, p SyncProgress, err error) {
				if ended = last; err != nil {
					h.fail("%v", err)
				}
				if last {
					filled += p.Filled
				}
			}}
		begin := func() (cursor []byte) {
			cursor, _ = x.core.Syncing()
			b := s.Begin(cursor)
			b.Cursor = cursor
			if _, err := taker.Begin(a.id, &b, h.now); err != nil {
				h.fail("%v", err)
			}
			return cursor
		}
		cursor, sent, life := begin(), false, 0
		for !ended {
			switch n := h.rand.IntN(100); {
			case n < 3: // the session ends: what runs ends later
				taker.Abort(a.id)
				for _, fn := range made {
					fn()
				}
				for len(posted) > 0 {
					fn := posted[0]
					posted = posted[1:]
					fn(x.core)
				}
				made, owed, sent, life = nil, 0, false, life+1
				cursor = begin()
				cut++
			case n < 40 && !sent && owed < 12:
				m, _, err := s.Next(cursor, 500_000)
				if err != nil {
					h.fail("%v", err)
				}
				cursor, sent = m.Cursor, m.Last
				owed++
				of, once := life, false
				taker.Keys(a.id, &m, func(err error) {
					if err != nil || once {
						h.fail("merged again %t, %v", once, err)
					}
					if once = true; of == life {
						owed--
					}
					merged++
				})
			case n < 70 && len(made) > 0:
				fn := made[0]
				made = made[1:]
				fn()
			case len(posted) > 0:
				fn := posted[0]
				posted = posted[1:]
				fn(x.core)
			}
		}
		if got, want := h.digests(x), h.digests(a); !slices.Equal(got, want) {
			h.fail("seed %d: the digests differ", seed)
		}
		if owed != 0 || len(made)+len(posted) != 0 {
			h.fail("seed %d: %d steps were not merged, %d tables and %d merges are left", seed, owed, len(made), len(posted))
		}
		names, err := x.fs.List("data/store")
		if err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".fill") }) {
			h.fail("seed %d: %v, %v", seed, names, err)
		}
	}
	if filled == 0 || cut == 0 {
		t.Errorf("%d keys by tables, %d cuts: this tests nothing", filled, cut)
	}
	t.Logf("%d keys by tables, %d cuts", filled, cut)
}
