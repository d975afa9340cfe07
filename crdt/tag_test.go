package crdt_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sony/sonyflake/v2"

	"github.com/replicatord/replicatord/crdt"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func clock(t *testing.T, node uint16, floor crdt.Tag, skew time.Duration) *crdt.Clock {
	t.Helper()
	c, err := crdt.NewClock(node, floor, skew)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTagIsASonyflake composes and decomposes ids with sonyflake itself.
func TestTagIsASonyflake(t *testing.T) {
	flake, err := sonyflake.New(sonyflake.Settings{
		BitsSequence: 10, BitsMachineID: 12, TimeUnit: time.Millisecond, StartTime: crdt.TagEpoch,
		MachineID: func() (int, error) { return 77, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{crdt.TagEpoch, noon, noon.Add(999 * time.Microsecond), noon.Add(40 * 365 * 24 * time.Hour)} {
		c := clock(t, 77, 0, 0)
		tag := c.Next(at)
		if id, err := flake.Compose(at, 0, 77); err != nil || crdt.Tag(id) != tag {
			t.Errorf("at %v: tag %x, sonyflake %x %v", at, uint64(tag), id, err)
		}
		tag = c.Next(at) // the same millisecond: the next sequence number
		parts := flake.Decompose(int64(tag))
		if int64(tag.Sequence()) != parts["sequence"] || int64(tag.Node()) != parts["machine"] || tag.Sequence() != 1 || tag.Node() != 77 {
			t.Errorf("at %v: %v decomposes to %v", at, tag, parts)
		}
		if at := at.Truncate(time.Millisecond); !tag.Time().Equal(at) || tag.Millis() != at.UnixMilli() {
			t.Errorf("%v is at %v, not %v", tag, tag.Time(), at)
		}
	}
}

func TestClockStepsBack(t *testing.T) {
	c := clock(t, 1, 0, time.Minute)
	before := c.Next(noon)
	last := before
	for i := range 3000 {
		tag := c.Next(noon.Add(-time.Hour + time.Duration(i)*time.Microsecond))
		if tag <= last || tag.Node() != 1 {
			t.Fatalf("%v after %v", tag, last)
		}
		last = tag
	}
	// Three thousand successors take sequence numbers, not hours.
	if ahead := last.Millis() - before.Millis(); ahead > 3 {
		t.Errorf("the clock ran %d ms ahead", ahead)
	}
	if c.Now(noon.Add(-time.Hour)) < before.Millis() {
		t.Error("the hybrid time went back")
	}
	// When the wall clock has caught up, tags follow it again.
	if tag := c.Next(noon.Add(time.Second)); tag.Millis() != noon.Add(time.Second).UnixMilli() {
		t.Errorf("%v does not follow the wall clock", tag)
	}
}

func TestClockRestartsWithinAMillisecond(t *testing.T) {
	first := clock(t, 1, 0, 0)
	seen := map[crdt.Tag]bool{}
	for range 10 {
		seen[first.Next(noon)] = true
	}
	again := clock(t, 1, first.Last(), 0)
	for range 10 {
		if tag := again.Next(noon); seen[tag] || tag <= first.Last() {
			t.Fatalf("%v was made before the restart", tag)
		}
	}
}

func TestClockSequenceRunsOver(t *testing.T) {
	c := clock(t, 9, 0, 0)
	var last crdt.Tag
	for range 1024 {
		last = c.Next(noon)
	}
	if last.Sequence() != 1023 || last.Millis() != noon.UnixMilli() {
		t.Fatalf("1024 tags end with %v", last)
	}
	next := c.Next(noon)
	if next.Sequence() != 0 || next.Millis() != noon.UnixMilli()+1 || next.Node() != 9 || next <= last {
		t.Errorf("%v after %v", next, last)
	}
}

func TestClockRefusesSkew(t *testing.T) {
	c := clock(t, 1, 0, time.Minute)
	mine := c.Next(noon)
	if err := c.Witness(crdt.TagAt(noon.Add(time.Minute).UnixMilli(), 2), noon); err != nil {
		t.Errorf("a tag at the bound: %v", err)
	}
	was := c.Last()
	if err := c.Witness(crdt.TagAt(noon.Add(time.Minute+time.Millisecond).UnixMilli(), 2), noon); !errors.Is(err, crdt.ErrSkew) || c.Last() != was {
		t.Errorf("a tag beyond the bound: %v, and the clock is at %v", err, c.Last())
	}
	// What this node has itself is never refused.
	if err := c.Witness(mine, noon.Add(-time.Hour)); err != nil {
		t.Errorf("a tag of the past: %v", err)
	}
	// A number that no sonyflake is would wrap the clock around.
	unbounded := clock(t, 1, 0, 0)
	if err := unbounded.Witness(math.MaxUint64, noon); !errors.Is(err, crdt.ErrSkew) {
		t.Errorf("a tag of 64 bits: %v", err)
	}
}

func TestClockPeek(t *testing.T) {
	c := clock(t, 3, 0, 0)
	for range 5 {
		if p := c.Peek(noon); p != c.Next(noon) {
			t.Fatal("Peek is not what Next returns")
		}
	}
}

func TestNewClockChecksNode(t *testing.T) {
	for _, node := range []uint16{0, crdt.MaxNode + 1} {
		if _, err := crdt.NewClock(node, 0, 0); err == nil {
			t.Errorf("node %d was taken", node)
		}
	}
}

func TestTagAt(t *testing.T) {
	for _, c := range []struct {
		millis int64
		want   crdt.Tag
	}{
		{0, 5}, {math.MinInt64, 5}, {crdt.TagEpoch.UnixMilli(), 5}, {crdt.TagEpoch.UnixMilli() + 1, 1<<22 | 5},
	} {
		if got := crdt.TagAt(c.millis, 5); got != c.want {
			t.Errorf("TagAt(%d) = %x, want %x", c.millis, uint64(got), uint64(c.want))
		}
	}
	if got := crdt.TagAt(crdt.Never, 5); got > crdt.MaxTag || got < crdt.TagAt(noon.UnixMilli(), 5) {
		t.Errorf("TagAt(Never) = %x", uint64(got))
	}
}

// TestClockLamport sends messages at random between nodes whose clocks are off
// and drift: whoever has seen a tag makes greater ones, and none is made twice.
func TestClockLamport(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	type node struct {
		c    *crdt.Clock
		off  time.Duration
		seen crdt.Tag
	}
	var nodes []*node
	for i := range 5 {
		nodes = append(nodes, &node{c: clock(t, uint16(i+1), 0, 0), off: time.Duration(rng.Int64N(int64(2*time.Hour))) - time.Hour})
	}
	made := map[crdt.Tag]bool{}
	now := noon
	for range 20000 {
		now = now.Add(time.Duration(rng.IntN(1500)) * time.Microsecond)
		n := nodes[rng.IntN(len(nodes))]
		n.off += time.Duration(rng.IntN(2001)-1000) * time.Microsecond
		if rng.IntN(3) > 0 {
			tag := n.c.Next(now.Add(n.off))
			if made[tag] || tag <= n.seen || tag.Node() == 0 {
				t.Fatalf("%v after having seen %v", tag, n.seen)
			}
			made[tag], n.seen = true, tag
			continue
		}
		from := nodes[rng.IntN(len(nodes))]
		if err := n.c.Witness(from.seen, now.Add(n.off)); err != nil {
			t.Fatal(err)
		}
		n.seen = max(n.seen, from.seen)
	}
}
