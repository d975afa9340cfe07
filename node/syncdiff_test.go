package node

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

// away is a view that is not there.
type away struct{}

func (away) Send(*Batch)                        {}
func (away) Ask(int, ...[]byte) ([]byte, error) { return nil, errors.New("no view") }
func (away) Flush()                             {}

// history is a few replicas that write, hear of each other's streams in any
// order, and bring each other level by states.
type history struct {
	t     *testing.T
	rand  *rand.Rand
	now   time.Time
	nodes []*replica
	asked int
	whole int // of these for the ranges of a bucket
	large int // buckets that had to go key by key
	left  int
	moved int // entries that came while an answer was under way
	lines []string

	slots, keys int  // of each type
	few         bool // commands
}

type replica struct {
	id   uint16
	fs   vfs.FS
	log  *oplog.Log
	core *Core
}

func newHistory(t *testing.T, seed uint64, nodes int) *history {
	h := &history{t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)}
	h.slots, h.keys, h.few = 1+h.rand.IntN(3), 1+h.rand.IntN(3), h.rand.IntN(2) == 0
	for i := range nodes {
		id := uint16(i + 1)
		wall := func() time.Time { return h.now }
		fs := vfs.NewMem()
		log, err := oplog.Open(oplog.Options{Dir: "data", FS: fs, Node: id, Fsync: oplog.FsyncNo, ManualSync: true, MinFree: -1,
			CacheBytes: 1 << 20, KeyBytes: 1 << 20, MemTableBytes: 4 << 20, Now: wall, Rand: rand.New(rand.NewPCG(seed, uint64(id)))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() })
		clock, err := crdt.NewClock(id, log.TagFloor(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		core, err := NewCore(CoreOptions{Log: log, Clock: clock, Wall: wall, Rand: rand.New(rand.NewPCG(seed, uint64(id)<<8)), View: away{},
			Lane: func(k crdt.Key) crdt.Lane { return crdt.Lane(len(k.Name) % 2) }, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		h.nodes = append(h.nodes, &replica{id, fs, log, core})
	}
	return h
}

func (h *history) say(format string, args ...any) {
	h.lines = append(h.lines, fmt.Sprintf(format, args...))
}

func (h *history) fail(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("%s\n\n%s", strings.Join(h.lines[max(0, len(h.lines)-80):], "\n"), fmt.Sprintf(format, args...))
}

// write has a replica write something to one of a few keys.
func (h *history) write(n *replica) {
	k := "{" + strconv.Itoa(h.rand.IntN(h.slots)) + "}" + strconv.Itoa(h.rand.IntN(h.keys))
	elem, amount := string(rune('a'+h.rand.IntN(3))), strconv.Itoa(1+h.rand.IntN(9))
	list := []string{
		"SET n" + k + " " + amount, "INCRBY n" + k + " " + amount, "INCRBY n" + k + " " + amount, "DEL n" + k,
		"HSET h" + k + " " + elem + " " + amount, "HINCRBY h" + k + " " + elem + " " + amount, "HDEL h" + k + " " + elem, "DEL h" + k,
		"SADD s" + k + " " + elem, "SADD s" + k + " " + elem, "SREM s" + k + " " + elem, "DEL s" + k + " h" + k,
		"ZINCRBY z" + k + " " + amount + " " + elem, "ZREM z" + k + " " + elem,
		"PEXPIRE s" + k + " " + strconv.Itoa(1000+h.rand.IntN(60_000)), "PERSIST s" + k,
	}
	if h.few {
		// Removes of what others have not heard of, beside what stays.
		list = []string{"SADD s" + k + " a", "SADD s" + k + " b", "SREM s" + k + " a", "DEL s" + k, "INCRBY n" + k + " " + amount, "DEL n" + k, "SET n" + k + " 1"}
	}
	if h.rand.IntN(40) == 0 {
		list = []string{"FLUSHDB"}
	}
	cmd := list[h.rand.IntN(len(list))]
	h.say("%d: %s", n.id, cmd)
	q := request(nil, strings.Fields(cmd)...)
	n.core.Do(q)
	h.commit(n)
}

func (h *history) commit(n *replica) {
	if err := errors.Join(n.core.Commit(), n.log.Sync()); err != nil {
		h.fail("node %d: %v", n.id, err)
	}
}

// deliver gives a replica some entries of one stream, of those another has.
func (h *history) deliver(to *replica, all bool) (moved bool) {
	from := h.nodes[h.rand.IntN(len(h.nodes))]
	for _, i := range h.rand.Perm(len(from.log.Durable())) {
		p := from.log.Durable()[i]
		at := to.log.Vector().Get(p.Stream)
		if p.Stream.Node() == to.id || p.Tag <= at {
			continue
		}
		entries, _, err := from.log.Read(p.Stream, at, 1<<20)
		if errors.Is(err, oplog.ErrTrimmed) {
			continue
		}
		if err != nil || len(entries) == 0 || entries[0].Prev > at {
			h.fail("node %d, stream %v after %v: %d entries, %v", from.id, p.Stream, at, len(entries), err)
		}
		if !all {
			entries = entries[:1+h.rand.IntN(len(entries))]
		}
		e := crdt.FoldEntries(entries)
		h.say("%d: gets %v of %v from %d", to.id, e.Tag, e.Stream, from.id)
		to.core.Apply([]crdt.Entry{e}, func(err error) {
			if err != nil {
				h.fail("node %d refuses entries: %v", to.id, err)
			}
		})
		h.commit(to)
		return true
	}
	return false
}

// sync brings to what from has, by difference, while to writes and hears of
// others. It may be cut.
func (h *history) sync(to, from *replica, cut bool) {
	own := to.log.Identity().Origin
	snap, err := from.log.Snapshot()
	if err != nil {
		h.fail("%v", err)
	}
	for _, p := range snap.Vector {
		if p.Stream.Origin() == own && p.Tag > to.log.Vector().Get(p.Stream) {
			h.fail("node %d has more of node %d than itself", from.id, to.id)
		}
	}
	cursor, since, err := to.core.Since()
	if err != nil {
		h.fail("%v", err)
	}
	if h.rand.IntN(3) == 0 {
		since.Digests = nil
	}
	since.ByBucket = h.rand.IntN(3) > 0
	s, err := newWanSnapshot(snap, since, SyncSizes{RangeKeys: 1 + h.rand.Uint64N(5), Ranges: 1 + h.rand.IntN(5)})
	if err != nil {
		h.fail("%v", err)
	}
	defer s.Close()
	h.say("%d: syncs from %d at %v, from %x on; has %v", to.id, from.id, snap.Vector, cursor, since.Have)
	var posts []func(*Core)
	var asks []wan.SyncPart
	ended := false
	fault := func(err error) {
		if err != nil {
			h.fail("node %d refuses states: %v", to.id, err)
		}
	}
	t := &SyncTaker{
		Log: to.log, Go: func(fn func()) { fn() },
		Post:    func(fn func(*Core)) bool { posts = append(posts, fn); return true },
		Compare: func(_ uint16, parts []wan.SyncPart) error { asks = append(asks, parts...); return nil },
		Merged: func(_ uint16, last bool, p SyncProgress, err error) {
			fault(err)
			ended = ended || last
		},
	}
	begun, last := false, false
	for !ended {
		h.large += len(s.large)
		if cut && h.rand.IntN(12) == 0 {
			h.say("%d: the sync is cut", to.id)
			return
		}
		switch h.rand.IntN(6) {
		case 0:
			h.write(to)
			h.moved += len(asks)
		case 1:
			if h.deliver(to, false) {
				h.moved += len(asks)
			}
		case 2:
			if last {
				break
			}
			if !begun {
				b := s.Begin(cursor)
				b.Cursor, b.ByBucket = cursor, since.ByBucket
				_, err := t.Begin(from.id, &b, h.now)
				fault(err)
				begun = true
				break
			}
			m, part, err := s.Next(cursor, 1+h.rand.IntN(300))
			fault(err)
			for _, r := range m.Ranges {
				h.left += int(min(r.Keys, 1))
			}
			if len(m.Ranges) == 0 && !part {
				h.fail("a step without ranges: %+v", m)
			}
			cursor, last, begun = m.Cursor, m.Last, !part
			t.Keys(from.id, &m, fault)
		case 3:
			if len(posts) > 0 {
				fn := posts[0]
				posts = posts[1:]
				fn(to.core)
				h.commit(to)
			}
		default:
			if len(asks) == 0 {
				break
			}
			p, err := s.Compare(&asks[0])
			fault(err)
			if asks[0].Ranges {
				h.whole++
			}
			asks = asks[1:]
			h.asked++
			t.Rest(from.id, []wan.SyncRestPart{p}, fault)
		}
	}
}

// level looks whether replicas with the same vector are the same.
func (h *history) level() {
	for i, a := range h.nodes {
		for _, b := range h.nodes[:i] {
			if !a.log.Vector().Equal(b.log.Vector()) || len(a.core.regions.parts)+len(b.core.regions.parts) > 0 {
				continue
			}
			x, y := h.digests(a), h.digests(b)
			for bucket := range x {
				if x[bucket] != y[bucket] {
					h.fail("nodes %d and %d have the same vector %v, but bucket %d differs:\n%s\n%s", a.id, b.id, a.log.Vector(), bucket, h.dump(a), h.dump(b))
				}
			}
		}
	}
}

func (h *history) digests(n *replica) []uint64 {
	s, err := n.log.Snapshot()
	if err != nil {
		h.fail("%v", err)
	}
	defer func() { _ = s.Close() }()
	d, err := s.FullDigests(0, oplog.Buckets)
	if err != nil {
		h.fail("%v", err)
	}
	return d
}

func (h *history) dump(n *replica) string {
	var b strings.Builder
	s, err := n.log.Snapshot()
	if err != nil {
		h.fail("%v", err)
	}
	defer func() { _ = s.Close() }()
	_ = s.Each(nil, nil, 1<<30, func(k *oplog.KeyState) error {
		fmt.Fprintf(&b, "%d %q %+v\n", k.Key.DB, k.Key.Name, k.Header)
		for _, c := range k.Cells {
			x, _ := crdt.DecodeCell(c.Data)
			fmt.Fprintf(&b, "   %v %q %+v\n", c.Kind, c.Elem, x)
		}
		return nil
	})
	return b.String()
}

// do has a replica run commands.
func (h *history) do(n *replica, cmds ...string) {
	for _, cmd := range cmds {
		n.core.Do(request(nil, strings.Fields(cmd)...))
		h.commit(n)
	}
}

// give has a replica take all that another has of the streams of a node.
func (h *history) give(to, from *replica, origin uint16) {
	for _, p := range from.log.Durable() {
		if at := to.log.Vector().Get(p.Stream); p.Stream.Node() == origin && p.Tag > at {
			entries, _, err := from.log.Read(p.Stream, at, 1<<20)
			if err != nil {
				h.fail("%v", err)
			}
			to.core.Apply(entries, func(err error) {
				if err != nil {
					h.fail("%v", err)
				}
			})
			h.commit(to)
		}
	}
}

// difference brings to what from has, and calls meanwhile before each answer.
func (h *history) difference(to, from *replica, buckets, ranges bool, meanwhile func()) (asked int) {
	snap, err := from.log.Snapshot()
	if err != nil {
		h.fail("%v", err)
	}
	cursor, since, err := to.core.Since()
	if err != nil {
		h.fail("%v", err)
	}
	if !buckets {
		since.Digests = nil
	}
	since.ByBucket = ranges
	s, err := newWanSnapshot(snap, since, SyncSizes{RangeKeys: 128, Ranges: 2 * oplog.Buckets})
	if err != nil {
		h.fail("%v", err)
	}
	defer s.Close()
	var asks []wan.SyncPart
	t := &SyncTaker{Log: to.log, Go: func(fn func()) { fn() }, Post: func(fn func(*Core)) bool { fn(to.core); return true },
		Compare: func(_ uint16, parts []wan.SyncPart) error { asks = append(asks, parts...); return nil }}
	fault := func(err error) {
		if err != nil {
			h.fail("%v", err)
		}
	}
	b := s.Begin(cursor)
	b.ByBucket = ranges
	_, err = t.Begin(from.id, &b, h.now)
	fault(err)
	for last := false; !last; {
		m, part, err := s.Next(cursor, 1<<20)
		fault(err)
		if part {
			h.fail("more than one part: %+v", m)
		}
		cursor, last = m.Cursor, m.Last
		t.Keys(from.id, &m, fault)
	}
	for ; len(asks) > 0; asked++ {
		meanwhile()
		p, err := s.Compare(&asks[0])
		fault(err)
		asks = asks[1:]
		t.Rest(from.id, []wan.SyncRestPart{p}, fault)
	}
	if t.Progress().From != 0 || len(to.core.regions.parts) > 0 {
		h.fail("the sync is not over: %+v", t.Progress())
	}
	return asked
}

func (h *history) same(a, b *replica) {
	h.t.Helper()
	if !a.log.Vector().Equal(b.log.Vector()) {
		h.fail("nodes %d and %d are at %v and %v", a.id, b.id, a.log.Vector(), b.log.Vector())
	}
	h.level()
}

// What equal digests do not tell, one case after the other: with the digests of
// buckets, and range by range.
func TestWhatDigestsDoNotTell(t *testing.T) {
	for _, with := range [][2]bool{{true, true}, {true, false}, {false, false}} {
		buckets, ranges := with[0], with[1]
		for name, run := range map[string]func(t *testing.T, h *history, a, b, c, s, r *replica){
			// A remove has come before what it removes.
			"pending in a cell": func(t *testing.T, h *history, a, b, c, s, r *replica) {
				h.do(a, "HSET h f 1")
				h.do(b, "HSET h f 2")
				h.give(c, b, 2)
				h.do(c, "HDEL h f")
				h.give(r, a, 1)
				h.give(s, a, 1)
				h.give(s, c, 3)
				h.difference(r, s, buckets, ranges, nil)
				h.give(r, b, 2)
				h.give(s, b, 2)
			},
			"pending in a key": func(t *testing.T, h *history, a, b, c, s, r *replica) {
				h.do(a, "HSET h f 1")
				h.do(b, "HSET h g 2")
				h.give(c, b, 2)
				h.do(c, "DEL h")
				h.give(r, a, 1)
				h.give(s, a, 1)
				h.give(s, c, 3)
				h.difference(r, s, buckets, ranges, nil)
				h.give(r, b, 2)
				h.give(s, b, 2)
			},
			"pending in a database": func(t *testing.T, h *history, a, b, c, s, r *replica) {
				h.do(a, "HSET h f 1")
				h.do(b, "HSET h g 2")
				h.give(c, b, 2)
				h.do(c, "FLUSHDB")
				h.give(r, a, 1)
				h.give(s, a, 1)
				h.give(s, c, 3)
				h.difference(r, s, buckets, ranges, nil)
				h.give(r, b, 2)
				h.give(s, b, 2)
			},
			// The counter's origin does not know of the reset yet.
			"a reset": func(t *testing.T, h *history, a, b, c, s, r *replica) {
				h.do(a, "HSET h f 1")
				h.do(b, "HINCRBY h f 5")
				h.give(c, b, 2)
				h.do(c, "HDEL h f")
				h.give(r, a, 1)
				for _, o := range []*replica{a, b, c} {
					h.give(s, o, o.id)
				}
				h.difference(r, s, buckets, ranges, nil)
				h.do(b, "HINCRBY h f 7")
				h.give(r, b, 2)
				h.give(s, b, 2)
			},
			// What is hidden by its expiry is in no digest of a bucket.
			"an expired key": func(t *testing.T, h *history, a, b, c, s, r *replica) {
				h.do(a, "SADD e m", "PEXPIRE e 1000")
				h.give(r, a, 1)
				h.give(s, a, 1)
				h.give(c, a, 1)
				h.now = h.now.Add(5 * time.Second)
				h.do(r, "SADD other x") // hides it
				h.do(c, "SADD e n")     // removes it, and makes another
				h.do(c, "DEL e")
				h.give(s, c, 3)
				h.difference(r, s, buckets, ranges, func() {})
				h.do(c, "SADD e o")
				h.give(s, c, 3)
				h.give(r, c, 3)
				h.give(s, r, 5)
			},
			// While it is asked what the other has, there comes what the other has
			// seen removed.
			"a late entry": func(t *testing.T, h *history, a, b, c, s, r *replica) {
				h.do(a, "SADD {x}s m1", "SADD {x}j m")
				h.do(b, "SADD {x}s m2")
				h.give(r, a, 1)
				h.give(c, a, 1)
				h.give(c, b, 2)
				h.do(c, "SREM {x}s m2", "SREM {x}j m", "SADD {x}k m")
				for _, o := range []*replica{a, b, c} {
					h.give(s, o, o.id)
				}
				asked := h.difference(r, s, buckets, ranges, func() { h.give(r, b, 2) })
				if asked < 2 {
					t.Errorf("%d questions: the entry came too late", asked)
				}
			},
			// What is here is written again and again while it is asked.
			"a key that does not rest": func(t *testing.T, h *history, a, b, c, s, r *replica) {
				h.do(a, "SADD {x}s m1", "SADD {x}j m", "INCRBY {x}n 1")
				h.give(r, a, 1)
				h.give(c, a, 1)
				h.do(c, "SREM {x}j m", "SADD {x}k m")
				h.give(s, a, 1)
				h.give(s, c, 3)
				i := 0
				asked := h.difference(r, s, buckets, ranges, func() { i++; h.do(r, "INCRBY {x}n 1", fmt.Sprint("SADD {x}new", i, " m")) })
				if asked > maxRounds+2+2*i {
					t.Errorf("%d questions", asked)
				}
				h.give(s, r, 5)
			},
		} {
			t.Run(fmt.Sprintf("%s, buckets %t, ranges %t", name, buckets, ranges), func(t *testing.T) {
				h := newHistory(t, 1, 5)
				a, b, c, s, r := h.nodes[0], h.nodes[1], h.nodes[2], h.nodes[3], h.nodes[4]
				run(t, h, a, b, c, s, r)
				h.same(r, s)
			})
		}
	}
}

// TestSyncByDifference: replicas that are brought level by what differs between
// them end as those that get everything from logs do: whatever is under way,
// expired, pending or reset, and whatever comes while it is asked and answered
// what differs.
func TestSyncByDifference(t *testing.T) {
	runs := uint64(60)
	first := uint64(rand.Uint32())
	if s := os.Getenv("REPLICATORD_SIM_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		runs = n
	}
	var asked, left, moved, whole, large int
	for seed := first; seed < first+runs; seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHistory(t, seed, 3+int(seed%2))
			for range 120 {
				h.now = h.now.Add(time.Duration(h.rand.IntN(400)) * time.Millisecond)
				n, o := h.nodes[h.rand.IntN(len(h.nodes))], h.nodes[h.rand.IntN(len(h.nodes))]
				switch h.rand.IntN(14) {
				case 0:
					if n != o {
						h.sync(n, o, h.rand.IntN(2) == 0)
					}
				case 1, 2, 3, 4, 5:
					h.deliver(n, h.rand.IntN(3) == 0)
				default:
					h.write(n)
				}
				h.level()
			}
			// Everybody hears of everything: from logs where they have it, else by
			// states.
			for round := 0; ; round++ {
				if round == 400 {
					h.fail("not level after %d rounds", round)
				}
				same := true
				for _, n := range h.nodes {
					for _, o := range h.nodes {
						same = same && o.log.Vector().Equal(n.log.Vector()) && len(n.core.regions.parts) == 0
					}
					if !h.deliver(n, true) && round%10 == 9 {
						if o := h.nodes[h.rand.IntN(len(h.nodes))]; o != n {
							h.sync(n, o, false)
						}
					}
				}
				h.level()
				if same {
					break
				}
			}
			asked, left, moved = asked+h.asked, left+h.left, moved+h.moved
			whole, large = whole+h.whole, large+h.large
		})
		if !ok {
			break
		}
	}
	t.Logf("%d runs from %d on: %d ranges left out, %d questions, %d for ranges, %d moves before an answer, %d times buckets were too large", runs, first, left, asked, whole, moved, large)
	if asked == 0 || left == 0 || moved == 0 || whole == 0 || large == 0 {
		t.Error("this tests nothing")
	}
}
