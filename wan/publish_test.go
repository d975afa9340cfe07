package wan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Messages reach the peers there are, once each and in order, and no further.
func TestPublish(t *testing.T) {
	a, b, now := pair(t, withSecret)
	c := newTestNode(t, 3, withSecret)
	l, m := connect(t, a, b, now), connect(t, b, c, now)
	l.run()
	m.run()
	for i := range 3 {
		a.peers.Publish(&Message{Channel: []byte("ch\x00\r\n"), Payload: fmt.Appendf(nil, "\xff%d", i), Shard: i == 2})
	}
	l.run()
	m.run()
	if want := []string{"1 ch\x00\r\n \xff0 false", "1 ch\x00\r\n \xff1 false", "1 ch\x00\r\n \xff2 true"}; !slices.Equal(b.messages, want) {
		t.Errorf("got %q, want %q", b.messages, want)
	}
	if len(a.messages)+len(c.messages) > 0 {
		t.Errorf("messages went on to %q and %q", a.messages, c.messages)
	}
	if out, in := a.peers.Stats(*now)[0], b.peers.Stats(*now)[0]; out.Messages != 3 || out.Unsent != 0 || in.MessagesIn != 3 {
		t.Errorf("%d sent, %d not, %d came", out.Messages, out.Unsent, in.MessagesIn)
	}
}

// What a link has no room for is dropped and counted, and data goes on beside a
// flood of messages.
func TestPublishDrops(t *testing.T) {
	a, b, now := pair(t, nil)
	unsent := func() uint64 { return a.peers.Stats(*now)[0].Unsent }
	a.peers.Expect([]uint16{2})
	big := &Message{Channel: []byte("c"), Payload: make([]byte, 1<<20-1000)}
	a.peers.Publish(big)
	if n := unsent(); n != 1 {
		t.Errorf("without a link %d are counted as dropped", n)
	}
	l := connect(t, a, b, now)
	l.run()
	for range 10 {
		a.peers.Publish(big)
	}
	if n := unsent(); n != 7 {
		t.Errorf("of 10 MB %d were dropped and counted", n)
	}
	a.peers.Publish(&Message{Payload: make([]byte, MaxMessage)})
	a.peers.SetPaused(true)
	a.peers.Publish(big)
	a.peers.SetPaused(false)
	if n := unsent(); n != 9 {
		t.Errorf("too large, or paused: %d", n)
	}
	l.run()
	if len(b.messages) != 4 {
		t.Errorf("%d messages came", len(b.messages))
	}

	// Lane 3 gets on while messages fill the link.
	a.set(3, "idle", strings.Repeat("x", 100))
	for i := 0; b.get("idle") == ""; i++ {
		if i == 20_000 {
			t.Fatal("data starves beside messages")
		}
		a.peers.Publish(&Message{Channel: []byte("c"), Payload: make([]byte, 1000)})
		l.once()
	}
}

// A peer that does not know the message is not sent it; one that sends it all
// the same is cut off.
func TestPublishVersions(t *testing.T) {
	a, b, now := pair(t, nil)
	l := connect(t, a, b, now)
	l.run()
	l.sa.peer.MaxVersion, l.sb.peer.MaxVersion = 1, 1
	a.peers.Publish(&Message{Channel: []byte("c")})
	a.set(0, "k", "v")
	l.run()
	same(t, a, b)
	if n := a.peers.Stats(*now)[0].Unsent; n != 1 || len(b.messages) > 0 {
		t.Errorf("%d counted, came: %q", n, b.messages)
	}
	if err := forge(l, framePublish, (&Message{}).Encode()); CodeOf(err) != CodeProtocol {
		t.Errorf("a message of a version not agreed on: %v", err)
	}
}
