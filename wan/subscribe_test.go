package wan

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

func globs(c *Config) {
	c.Match = func(pattern, name []byte) bool { ok, _ := path.Match(string(pattern), string(name)); return ok }
}

// subscriber returns what stands for a subscriber: it applies what it is given.
func subscriber(t *testing.T, sub *Subscription) *testNode {
	n := &testNode{t: t, store: newTestNode(t, 9, nil).store, entries: map[crdt.Stream][]crdt.Entry{},
		trimmed: map[crdt.Stream]crdt.Tag{}, needed: map[uint16][]crdt.Stream{}, heard: map[uint16]Heard{}}
	n.start(func(c *Config) { c.Self.Node, c.Self.Dir, c.Self.Address, c.Subscription = 0, "", "", sub })
	return n
}

func (n *testNode) keys() string {
	var out []string
	for _, k := range n.store.Keys() {
		out = append(out, fmt.Sprint(k.DB, ":", k.Name))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// A subscriber gets what it subscribes to and nothing else, over cuts too, of
// the node's own streams and of others; and leaves no trace.
func TestSubscriber(t *testing.T) {
	now := epoch
	a, b := newTestNode(t, 1, globs), newTestNode(t, 2, globs)
	mesh := connect(t, a, b, &now)
	mesh.run()
	round := 0
	write := func() {
		round++
		for _, n := range []*testNode{a, b} {
			for lane := range crdt.Lane(crdt.Lanes) {
				for db := range uint8(3) {
					n.write(lane, func(w *crdt.Writer) {
						w.SetString(crdt.Key{DB: db, Name: fmt.Sprint("a", int(lane))}, fmt.Append(nil, n.id, round), false)
					})
					n.write(lane, func(w *crdt.Writer) {
						w.SetString(crdt.Key{DB: db, Name: fmt.Sprint("b", int(lane))}, fmt.Append(nil, n.id, round), false)
					})
				}
			}
			mesh.run()
		}
	}
	for _, c := range []struct {
		name string
		sub  Subscription
		want string
	}{
		{"a lane", Subscription{Lanes: []crdt.Lane{2}}, "0:a2 0:b2 1:a2 1:b2 2:a2 2:b2"},
		{"databases and a pattern", Subscription{Databases: []uint8{0, 2}, Patterns: [][]byte{[]byte("a*")}}, "0:a0 0:a1 0:a2 0:a3 2:a0 2:a1 2:a2 2:a3"},
		{"all three", Subscription{Databases: []uint8{1}, Patterns: [][]byte{[]byte("x"), []byte("?3")}, Lanes: []crdt.Lane{0, 3}}, "1:a3 1:b3"},
		{"nothing there is", Subscription{Patterns: [][]byte{[]byte("x")}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := subscriber(t, &c.sub)
			l := connect(t, n, a, &now)
			for i := range 4 {
				write()
				l.run()
				pass(&now, 2*time.Second, []*testNode{a, b, n}, mesh, l)
				if i == 1 {
					l.cut()
					write()
					l = connect(t, n, a, &now)
				}
			}
			if got := n.keys(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			for _, k := range n.store.Keys() {
				id := crdt.CellID{Key: k, Kind: crdt.KindString}
				if got, want := n.store.Cell(id).Text(), a.store.Cell(id).Text(); string(got) != string(want) {
					t.Errorf("%v is %s, want %s", k, got, want)
				}
			}
			if a.peers.Subscribers() != 1 || len(a.peers.Stats(now)) != 1 || len(a.heard) != 1 {
				t.Errorf("%d subscribers, %d peers, %d were heard", a.peers.Subscribers(), len(a.peers.Stats(now)), len(a.heard))
			}
			l.cut()
			if a.peers.Subscribers() != 0 {
				t.Error("a subscriber that has gone is counted")
			}
		})
	}
	same(t, a, b)
}

// Who knows the subscribers' secret alone can follow, and cannot be a node.
func TestSubscriberSecret(t *testing.T) {
	now := epoch
	own := []byte("for those who follow")
	a := newTestNode(t, 1, func(c *Config) { globs(c); withSecret(c); c.SubscriberSecret = own })
	a.set(0, "k", "v")
	attempt := func(id uint16, secret []byte) (*testNode, *link) {
		n := subscriber(t, &Subscription{})
		if id > 0 {
			n = newTestNode(t, id, nil)
		}
		n.peers.cfg.Secret = secret
		l := connect(t, n, a, &now)
		l.run()
		return n, l
	}
	for _, secret := range [][]byte{own, a.peers.cfg.Secret} {
		n, l := attempt(0, secret)
		pass(&now, 2*time.Second, []*testNode{a, n}, l)
		a.set(0, "k", string(secret))
		l.run()
		if got := n.get("k"); l.sa.Err() != nil || got != string(secret) {
			t.Errorf("a subscriber has %q: %v", got, l.sa.Err())
		}
		l.cut()
	}
	if _, l := attempt(0, []byte("guessed")); CodeOf(l.sa.Err()) != CodeSecret {
		t.Errorf("a guessed secret: %v", l.sa.Err())
	}
	if _, l := attempt(2, own); CodeOf(l.sa.Err()) != CodeSecret || a.peers.Live(2) {
		t.Errorf("a node with the subscribers' secret: %v", l.sa.Err())
	}
	if n, l := attempt(2, a.peers.cfg.Secret); l.sa.Err() != nil || !a.peers.Live(2) || n.get("k") == "" {
		t.Errorf("a node with the secret: %v", l.sa.Err())
	}
}

// What a subscriber may not do ends its session, and changes nothing.
func TestSubscriberOversteps(t *testing.T) {
	now := epoch
	a := newTestNode(t, 1, func(c *Config) { globs(c); c.MaxSubscribers = 2 })
	a.set(1, "k", "v")
	fresh := func() *link {
		n := subscriber(t, &Subscription{})
		l := connect(t, n, a, &now)
		l.run()
		return l
	}
	first := fresh()
	for kind, payload := range map[frameType][]byte{
		frameChunk: make([]byte, 100), framePublish: (&Message{Channel: []byte("c")}).Encode(), frameSyncRequest: nil,
		frameSyncNeeded: nil, frameHello: nil, frameType(99): nil,
	} {
		l := fresh()
		if err := forge(l, kind, payload); CodeOf(err) != CodeProtocol {
			t.Errorf("frame of type %d: %v", kind, err)
		}
		l.cut()
	}
	if len(a.ahead)+len(a.messages)+len(a.needed) > 0 {
		t.Error("something of it was passed on")
	}
	second := fresh()
	third := fresh()
	if code := CodeOf(third.sa.Err()); code != CodeRefused || first.sa.Err() != nil || second.sa.Err() != nil {
		t.Errorf("a third subscriber of two ends with %v; the others: %v, %v", third.sa.Err(), first.sa.Err(), second.sa.Err())
	}
	// A node that takes none says so.
	b := newTestNode(t, 2, nil)
	l := connect(t, subscriber(t, &Subscription{}), b, &now)
	l.run()
	if CodeOf(l.sa.Err()) != CodeRefused {
		t.Errorf("a node without a way to match: %v", l.sa.Err())
	}
}
