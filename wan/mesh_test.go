package wan

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

func runAll(links ...*link) {
	for again := true; again; {
		again = false
		for _, l := range links {
			again = l.once() || again
		}
	}
}

// pass lets time go by, with heartbeats.
func pass(now *time.Time, d time.Duration, nodes []*testNode, links ...*link) {
	for end := now.Add(d); now.Before(end); {
		*now = now.Add(250 * time.Millisecond)
		for _, n := range nodes {
			n.peers.Tick(*now)
		}
		runAll(links...)
	}
}

func three(t *testing.T, change func(*Config)) (now *time.Time, n []*testNode) {
	at := epoch
	for id := range uint16(3) {
		n = append(n, newTestNode(t, id+1, change))
	}
	return &at, n
}

// In a full mesh each entry comes to each node once.
func TestMeshOnce(t *testing.T) {
	now, n := three(t, nil)
	links := []*link{connect(t, n[0], n[1], now), connect(t, n[1], n[2], now), connect(t, n[0], n[2], now)}
	runAll(links...)
	for i := range 20 {
		for j := range n {
			n[j].set(crdt.Lane(1+i%3), fmt.Sprint(i), fmt.Sprint(i, j))
			n[j].incr("n", 1)
			runAll(links...)
		}
	}
	pass(now, 5*time.Second, n, links...)
	same(t, n...)
	for _, x := range n {
		for _, st := range x.peers.Stats(*now) {
			if st.Duplicates != 0 || st.EntriesIn != 40 {
				t.Errorf("node %d got %d entries and %d duplicates from %d, which wrote 40", x.id, st.EntriesIn, st.Duplicates, st.Node)
			}
		}
	}
}

// A node that cannot reach an origin gets its entries from another, and
// directly again when it can.
func TestRelay(t *testing.T) {
	now, n := three(t, nil)
	ab, bc := connect(t, n[0], n[1], now), connect(t, n[1], n[2], now)
	write := func() {
		for j := range n {
			n[j].set(1, fmt.Sprint("of", j), fmt.Sprint(now))
			n[j].incr("n", 1)
		}
	}
	write()
	pass(now, 3*time.Second, n, ab, bc)
	same(t, n...)
	write()
	pass(now, 3*time.Second, n, ab, bc)
	same(t, n...)
	if got := n[2].get("n"); got != "6" {
		t.Errorf("n is %s", got)
	}
	ac := connect(t, n[0], n[2], now)
	runAll(ab, bc, ac)
	in := n[0].peers.Stats(*now)[0].EntriesIn
	write()
	pass(now, 3*time.Second, n, ab, bc, ac)
	same(t, n...)
	st := n[0].peers.Stats(*now)
	if st[0].EntriesIn-in != 2 || st[1].EntriesIn != 2 {
		t.Errorf("after healing node 2 sent %d entries and node 3 %d, each wrote 2", st[0].EntriesIn-in, st[1].EntriesIn)
	}
	if st[0].Duplicates+st[1].Duplicates != 0 {
		t.Errorf("%d duplicates", st[0].Duplicates+st[1].Duplicates)
	}
	// The direct link goes, the relay takes over.
	ac.cut()
	write()
	pass(now, 3*time.Second, n, ab, bc)
	same(t, n...)
}

// The log of a lost node comes from those who have it.
func TestDeadOrigin(t *testing.T) {
	now, n := three(t, nil)
	ab := connect(t, n[0], n[1], now)
	n[0].set(0, "k", "of the dead")
	runAll(ab)
	ab.cut()
	bc := connect(t, n[1], n[2], now)
	pass(now, 3*time.Second, n[1:], bc)
	same(t, n[1], n[2])
	if n[2].get("k") != "of the dead" {
		t.Error("not relayed")
	}
}

// A state sync that is cut after each number of frames goes on where it was,
// with the streams that need none beside it.
func TestSyncCutEverywhere(t *testing.T) {
	for _, diff := range []bool{false, true} {
		t.Run(fmt.Sprintf("by difference %t", diff), func(t *testing.T) { syncCutEverywhere(t, diff) })
	}
}

func syncCutEverywhere(t *testing.T, diff bool) {
	small := func(c *Config) {
		withSecret(c)
		c.BatchBytes, c.Window, c.MinChunk, c.MaxChunk = 1000, 4000, 500, 500
	}
	setup := func() (*testNode, *testNode, *time.Time) {
		a, b, now := pair(t, small)
		for i := range 20 {
			a.set(crdt.Lane(i%4), fmt.Sprint("a", i), noise(uint64(i), 300))
			b.set(0, fmt.Sprint("b", i), noise(uint64(i), 300))
			a.incr("n", 1)
		}
		a.trim()
		b.diff = diff
		return a, b, now
	}
	sync := func(a, b *testNode, l *link, until int) {
		for l.frames < until && l.once() {
			if len(b.needed[1]) > 0 && l.sb.Err() == nil {
				var cursor []byte
				if b.syncing != nil {
					cursor = b.syncing.cursor
				}
				b.needed[1] = nil
				if err := b.request(1, cursor); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	a, b, now := setup()
	l := connect(t, a, b, now)
	sync(a, b, l, 1<<30)
	same(t, a, b)
	whole, all := l.frames, l.bytes
	a.set(0, "after", "1")
	sync(a, b, l, 1<<30)
	same(t, a, b)
	resumed := 0
	for cut := 1; cut < whole; cut++ {
		a, b, now := setup()
		l := connect(t, a, b, now)
		sync(a, b, l, cut)
		l.cut()
		got := l.bytes
		l = connect(t, a, b, now)
		sync(a, b, l, 1<<30)
		same(t, a, b)
		if t.Failed() {
			t.Fatalf("cut after %d of %d frames: %v, %v, begins %q, needed %v", cut, whole, l.sa.Err(), l.sb.Err(), b.begins, b.needed)
		}
		if extra := got + l.bytes - all; extra > 4000+8*4000 {
			t.Errorf("cut after %d of %d frames: %d bytes more than the %d of a whole session", cut, whole, extra, all)
		}
		if len(b.begins) == 2 && b.begins[1] != "" {
			resumed++
		}
		if a.peers.syncs != 0 {
			t.Fatalf("%d snapshots are left open", a.peers.syncs)
		}
	}
	if resumed == 0 {
		t.Error("no sync was resumed")
	}
}

// A new node that lacks a long history is offered the state instead.
func TestSyncThreshold(t *testing.T) {
	a, b, now := pair(t, func(c *Config) { c.SyncThreshold = 10 })
	a.part = 4 // its state comes in three parts, each with a SyncBegin
	for i := range 9 {
		a.set(0, fmt.Sprint(i), "x")
	}
	l := connect(t, a, b, now)
	l.run()
	same(t, a, b)
	c := newTestNode(t, 3, nil)
	a.set(0, "tenth", "x")
	l = connect(t, a, c, now)
	l.run()
	if len(c.needed[1]) != 1 || len(c.have) != 0 {
		t.Fatalf("needed %v, has %v", c.needed, c.have)
	}
	if err := c.request(1, nil); err != nil {
		t.Fatal(err)
	}
	l.run()
	same(t, a, c)
	if want := []string{"", "\x00\x00\x00\x04", "\x00\x00\x00\x08"}; !slices.Equal(c.begins, want) {
		t.Errorf("syncs began from %q", c.begins)
	}
	a.set(0, "later", "x")
	l.run()
	same(t, a, c)
	if err := c.request(2, nil); !errors.Is(err, ErrNoSession) {
		t.Errorf("sync with a stranger: %v", err)
	}
}

// Snapshots open for peers are bounded; who must wait is served afterwards.
func TestSyncPlaces(t *testing.T) {
	now, n := three(t, func(c *Config) { c.MaxSyncs = 1; c.BatchBytes, c.Window = 1000, 2000 })
	for i := range 20 {
		n[0].set(0, fmt.Sprint(i), noise(uint64(i), 500))
	}
	n[0].trim()
	n[1].manual = true
	ab, ac := connect(t, n[0], n[1], now), connect(t, n[0], n[2], now)
	runAll(ab, ac)
	for _, x := range n[1:] {
		if err := x.request(1, nil); err != nil {
			t.Fatal(err)
		}
		runAll(ab, ac)
	}
	if len(n[2].begins) != 0 {
		t.Fatal("two snapshots at a time")
	}
	for n[1].release() {
		runAll(ab, ac)
	}
	pass(now, time.Second, n, ab, ac)
	same(t, n...)
}

// A peer of an older version is asked for all, whatever this node has, and one
// that asks for no more than differs is answered so only in the version that
// knows it. What nobody has asked for ends the session.
func TestSyncByDifferenceVersions(t *testing.T) {
	for version := range uint32(MaxVersion + 1) {
		if version < MinVersion {
			continue
		}
		a, b, now := pair(t, nil)
		a.set(0, "k", "v")
		a.set(0, "l", "v")
		a.trim()
		b.diff = true
		l := connect(t, a, b, now)
		l.run()
		l.sa.peer.MaxVersion, l.sb.peer.MaxVersion = version, version
		if err := b.request(1, nil); err != nil {
			t.Fatal(err)
		}
		if asked := l.sb.control.syncAsk.Since != nil; asked != (version >= versionDiff) {
			t.Errorf("version %d: asks for a difference: %t", version, asked)
		}
		l.run()
		same(t, a, b)
		if a.peers.syncs != 0 {
			t.Errorf("version %d: %d snapshots are left open", version, a.peers.syncs)
		}
		if err := l.sb.onSyncCompare((&wire.SyncCompare{}).Encode()); (err != nil) != (version < versionDiff) {
			t.Errorf("version %d: a question: %v", version, err)
		}
		if err := l.sb.onSyncCompare((&wire.SyncCompare{Parts: []SyncPart{{Ranges: true}}}).Encode()); (err != nil) != (version < versionRanges) {
			t.Errorf("version %d: a question for ranges: %v", version, err)
		}
		rest := (&batchHeader{kind: batchSyncRest, pack: packStored, plain: 1, packed: 1}).append(nil)
		if _, err := l.sb.onChunk(syncLane, append(rest, 0)); CodeOf(err) != CodeProtocol {
			t.Errorf("version %d: an answer to nothing: %v", version, err)
		}
	}
}

// A question for digests gets its answer, and peers that know neither are not
// asked.
func TestVerify(t *testing.T) {
	a, b, now := pair(t, nil)
	if err := b.peers.SendVerify(1, &Verify{}); !errors.Is(err, ErrNoSession) {
		t.Errorf("without a session: %v", err)
	}
	l := connect(t, a, b, now)
	a.set(0, "k", "v")
	l.run()
	if err := b.peers.SendVerify(1, &Verify{ID: 9}); err != nil {
		t.Fatal(err)
	}
	l.run()
	if want := fmt.Sprintf("1: 9 true %v [7]", a.have); !slices.Equal(b.verified, []string{want}) || len(a.verified) != 1 {
		t.Errorf("%q asked, %q answered, not %q", a.verified, b.verified, want)
	}
	for range 100 {
		if err := b.peers.SendVerify(1, &Verify{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.sb.control.verify); n != maxVerify {
		t.Errorf("%d questions wait", n)
	}
	l.sa.peer.MaxVersion, l.sb.peer.MaxVersion = 2, 2
	if err := b.peers.SendVerify(1, &Verify{}); !errors.Is(err, ErrVersion) {
		t.Errorf("in version 2: %v", err)
	}
	if _, err := l.sa.onVerify((&Verify{}).Encode()); CodeOf(err) != CodeProtocol {
		t.Errorf("taken in version 2: %v", err)
	}
}

// States go no faster than SyncRate; entries do.
func TestSyncRate(t *testing.T) {
	a, b, now := pair(t, func(c *Config) { c.SyncRate, c.BatchBytes = 1000, 500 })
	for i := range 40 {
		a.set(0, fmt.Sprint("k", i), noise(uint64(i), 500))
	}
	a.trim()
	l := connect(t, a, b, now)
	l.run()
	if err := b.request(1, nil); err != nil {
		t.Fatal(err)
	}
	begun := *now
	for range 1000 {
		if b.syncing == nil && len(b.begins) > 0 {
			break
		}
		pass(now, 250*time.Millisecond, []*testNode{a, b}, l)
	}
	same(t, a, b)
	if took := now.Sub(begun); took < 19*time.Second || took > 30*time.Second {
		t.Errorf("20,000 bytes at 1000 a second took %v", took)
	}
}
