package wan

import (
	"fmt"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// statsOf returns a's figures of b.
func statsOf(t *testing.T, a, b *testNode, now time.Time) Stats {
	t.Helper()
	for _, s := range a.peers.Stats(now) {
		if s.Node == b.id {
			return s
		}
	}
	t.Fatalf("node %d has no figures of node %d", a.id, b.id)
	return Stats{}
}

// writeAt writes a string in a lane, with the tag of a moment.
func (n *testNode) writeAt(now time.Time, lane crdt.Lane, key string) {
	n.mu.Lock()
	n.tag = max(n.tag, crdt.TagAt(now.UnixMilli(), n.id))
	n.mu.Unlock()
	n.set(lane, key, "v")
}

func (n *testNode) reincarnate() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.origin = crdt.NewStream(n.id, n.origin.Incarnation()+1, 0)
}

// What a peer lacks is counted, and its lag grows, also while the peer is away.
func TestLagOfAbsentPeer(t *testing.T) {
	a, b, now := pair(t, nil)
	both := []*testNode{a, b}
	l := connect(t, a, b, now)
	a.writeAt(*now, 0, "first")
	pass(now, 3*time.Second, both, l)
	if st := statsOf(t, a, b, *now); !st.Live || st.LagEntries != 0 || st.Lag > 100*time.Millisecond {
		t.Fatalf("level, but lag %v, %d entries", st.Lag, st.LagEntries)
	}
	l.cut()
	a.writeAt(*now, 0, "lane 0")
	a.writeAt(*now, 3, "lane 3")
	a.reincarnate()
	a.writeAt(*now, 1, "as another incarnation")
	wrote := *now
	pass(now, 10*time.Second, both)
	st := statsOf(t, a, b, *now)
	if st.Live || st.LagEntries != 3 || st.Pending != 3 || st.Lag < now.Sub(wrote) || st.Lag > now.Sub(wrote)+2*time.Second {
		t.Errorf("after %v without the peer: live %v, lag %v, %d entries, %d pending", now.Sub(wrote), st.Live, st.Lag, st.LagEntries, st.Pending)
	}
	if !st.Durable.Equal(b.durable) || !a.peers.Durable(2).Equal(b.durable) {
		t.Errorf("the peer was last heard to have %v, shown are %v and %v", b.durable, st.Durable, a.peers.Durable(2))
	}
	// A session that is only beginning says no less.
	l = connect(t, a, b, now)
	for !statsOf(t, a, b, *now).Live && l.once() {
	}
	if st := statsOf(t, a, b, *now); !st.Live || st.LagEntries != 3 || st.Lag < now.Sub(wrote) {
		t.Errorf("at the return: live %v, lag %v, %d entries", st.Live, st.Lag, st.LagEntries)
	}
	pass(now, 3*time.Second, both, l)
	same(t, a, b)
	if st := statsOf(t, a, b, *now); st.LagEntries != 0 || st.Pending != 0 || st.Lag > 100*time.Millisecond {
		t.Errorf("level again, but lag %v, %d entries, %d pending", st.Lag, st.LagEntries, st.Pending)
	}
}

// It does not matter on which side the exchange is paused.
func TestLagOfPausedPeer(t *testing.T) {
	for name, pause := range map[string]func(a, b *testNode, paused bool){
		"here":  func(a, _ *testNode, on bool) { a.peers.SetPaused(on) },
		"there": func(_, b *testNode, on bool) { b.peers.SetPaused(on) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b, now := pair(t, nil)
			both := []*testNode{a, b}
			l := connect(t, a, b, now)
			pass(now, 3*time.Second, both, l)
			pause(a, b, true)
			pass(now, time.Second, both, l)
			a.writeAt(*now, 0, "k")
			a.writeAt(*now, 2, "k")
			wrote := *now
			for range 3 {
				pass(now, time.Second, both, l)
				if st := statsOf(t, a, b, *now); !st.Live || st.LagEntries != 2 || st.Pending != 2 || st.Lag < now.Sub(wrote) {
					t.Errorf("after %v: live %v, lag %v, %d entries, %d pending", now.Sub(wrote), st.Live, st.Lag, st.LagEntries, st.Pending)
				}
			}
			pause(a, b, false)
			pass(now, 3*time.Second, both, l)
			same(t, a, b)
			if st := statsOf(t, a, b, *now); st.LagEntries != 0 || st.Pending != 0 || st.Lag > 100*time.Millisecond {
				t.Errorf("resumed, but lag %v, %d entries, %d pending", st.Lag, st.LagEntries, st.Pending)
			}
		})
	}
}

// A peer that was not heard since this node started may lack everything.
func TestLagOfUnheardPeer(t *testing.T) {
	a, b, now := pair(t, nil)
	a.peers.Expect([]uint16{b.id})
	if st := statsOf(t, a, b, *now); st.Lag != 0 || st.LagEntries != 0 {
		t.Errorf("nothing written, but lag %v, %d entries", st.Lag, st.LagEntries)
	}
	a.writeAt(*now, 0, "old")
	*now = now.Add(time.Minute)
	a.writeAt(*now, 0, "new")
	if st := statsOf(t, a, b, *now); st.Lag < time.Minute || st.Lag > time.Minute+time.Second || st.LagEntries != 2 {
		t.Errorf("lag %v, %d entries after a minute", st.Lag, st.LagEntries)
	}
	// The log does not tell any more how old the first was.
	a.start(nil)
	a.trim()
	a.peers.Expect([]uint16{b.id})
	a.writeAt(*now, 0, "newest")
	if st := statsOf(t, a, b, *now); st.Lag < time.Minute || st.LagEntries == 0 {
		t.Errorf("lag %v, %d entries when the log was trimmed", st.Lag, st.LagEntries)
	}
}

// A peer that comes back with less, from a backup, is believed.
func TestDurableOfRestoredPeer(t *testing.T) {
	a, b, now := pair(t, nil)
	l := connect(t, a, b, now)
	a.writeAt(*now, 0, "k")
	pass(now, 2*time.Second, []*testNode{a, b}, l)
	l.cut()
	if d := a.peers.Durable(2); !d.Equal(b.durable) {
		t.Fatalf("%v is remembered, the peer has %v", d, b.durable)
	}
	a.peers.SetPaused(true)
	restored := newTestNode(t, 2, nil)
	l = connect(t, a, restored, now)
	pass(now, 2*time.Second, []*testNode{a, restored}, l)
	if d := a.peers.Durable(2); len(d) != 0 {
		t.Errorf("the peer has nothing, shown is %v", d)
	}
	l.cut()
	if d := a.peers.Durable(2); len(d) != 0 {
		t.Errorf("the peer had nothing, remembered is %v", d)
	}
	if st := statsOf(t, a, restored, *now); st.LagEntries != 1 {
		t.Errorf("the peer lacks 1 entry, shown are %d", st.LagEntries)
	}
}

// The figures of a lane speak of that lane alone, are never below the truth, and
// add up to those of the link.
func TestLaneFigures(t *testing.T) {
	a, b, now := pair(t, func(c *Config) { c.Bandwidth = 50_000 })
	l := connect(t, a, b, now)
	l.drive(3 * time.Second)
	for i := range 40 {
		a.writeAt(*now, 3, fmt.Sprint("bulk", i%10))
		a.write(3, func(w *crdt.Writer) {
			w.SetString(crdt.Key{Name: fmt.Sprint("bulk", i%10)}, []byte(noise(uint64(i), 20_000)), false)
		})
	}
	wrote := *now
	l.drive(2 * time.Second)
	a.writeAt(*now, 0, "urgent")
	a.writeAt(*now, 0, "urgent")
	*now = now.Add(300 * time.Millisecond) // on the way
	l.drive(200 * time.Millisecond)
	st := statsOf(t, a, b, *now)
	urgent, idle, high := &st.Lanes[0], &st.Lanes[3], &st.Lanes[1]
	if urgent.Lag < 300*time.Millisecond || urgent.Lag > 600*time.Millisecond || urgent.LagEntries != 0 || urgent.Entries != 2 {
		t.Errorf("after 300 ms on the way: %+v", *urgent)
	}
	if age := now.Sub(wrote); idle.Lag < age || idle.LagEntries == 0 || idle.LagBytes < 20_000 || idle.Pending > idle.LagEntries || idle.PendingBytes > idle.LagBytes {
		t.Errorf("%v after the bulk was written, with more under way: %+v", age, *idle)
	}
	if high.Lag > time.Second || high.Backlog != (Backlog{}) || high.Sent != (Sent{}) {
		t.Errorf("nothing was written: %+v", *high)
	}
	if st.Lag < idle.Lag || st.LagEntries != idle.LagEntries || st.LagBytes != idle.LagBytes {
		t.Errorf("of the link: lag %v, %+v", st.Lag, st.Backlog)
	}
	l.drive(30 * time.Second)
	same(t, a, b)
	st = statsOf(t, a, b, *now)
	idle = &st.Lanes[3]
	if st.Backlog != (Backlog{}) || idle.Lag > time.Second || st.Lanes[0].Lag > time.Second {
		t.Errorf("when level: %+v", st)
	}
	// Of 40 values of 10 keys, most were overwritten before they were sent.
	if idle.Entries != 80 || idle.BytesRaw < 40*20_000 || idle.BytesFolded > idle.BytesRaw*3/4 || idle.BytesOut < idle.BytesPacked {
		t.Errorf("sizes of what was sent: %+v", idle.Sent)
	}
	var sum Sent
	for i := range st.Lanes {
		sum.add(&st.Lanes[i].Sent)
	}
	if sum.BytesOut >= st.BytesOut {
		t.Errorf("%d bytes in the lanes, %d in all", sum.BytesOut, st.BytesOut)
	}
	sum.BytesOut = st.BytesOut
	if sum != st.Sent {
		t.Errorf("lanes add up to %+v, the link has %+v", sum, st.Sent)
	}
	// A session cut, and nothing heard: every lane says so.
	l.cut()
	*now = now.Add(10 * time.Second)
	a.peers.Tick(*now)
	if st = statsOf(t, a, b, *now); st.Lanes[1].Lag < 10*time.Second || st.Lanes[0].Entries != 2 {
		t.Errorf("ten seconds after the session ended: %+v", st)
	}
}
