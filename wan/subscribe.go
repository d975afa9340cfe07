package wan

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// A subscriber is no node: it has no id and no streams, and gets what it asks
// for of what a node has, as far as its subscription lets it. Nothing is taken
// from it but what it says of itself: it is no source of anything, and the log
// is not kept for it.

// Subscription says which changes a subscriber gets.
type Subscription = wire.Subscription

// Limits of a subscription; more does not fit a Hello.
const maxPatterns = 64

// checkSubscription says what is wrong with a subscription.
func (c *Config) checkSubscription(s *Subscription) error {
	switch {
	case c.Match == nil:
		return fail(CodeRefused, "node %d takes no subscribers", c.Self.Node)
	case len(s.Patterns) > maxPatterns || len(s.Databases) > 256 || len(s.Lanes) > crdt.Lanes:
		return fail(CodeProtocol, "subscription to %d databases, %d patterns and %d lanes", len(s.Databases), len(s.Patterns), len(s.Lanes))
	}
	return nil
}

// subscriber reports whether the peer is one.
func (s *Session) subscriber() bool { return s.peer.Subscription != nil }

// wantsLane reports whether a lane is of the peer's subscription.
func (s *Session) wantsLane(l crdt.Lane) bool {
	sub := s.peer.Subscription
	return sub == nil || len(sub.Lanes) == 0 || slices.Contains(sub.Lanes, l)
}

// filter leaves of an entry what the peer subscribes to. The range is as long
// as before, and begins where the peer was left.
func (s *Session) filter(e *crdt.Entry) {
	sub := s.peer.Subscription
	if sub == nil {
		return
	}
	e.Prev = s.sending.given.Get(e.Stream)
	e.Deltas = slices.DeleteFunc(slices.Clone(e.Deltas), func(d crdt.Delta) bool {
		k := d.ID.Key
		if len(sub.Databases) > 0 && !slices.Contains(sub.Databases, k.DB) {
			return true
		}
		return d.Level != crdt.LevelDB && len(sub.Patterns) > 0 && !slices.ContainsFunc(sub.Patterns, func(p []byte) bool {
			return s.cfg.Match(p, []byte(k.Name))
		})
	})
}

// onSubscriberFrame handles what a subscriber may send.
func (s *Session) onSubscriberFrame(now time.Time, t frameType, b []byte) ([]func(), error) {
	switch t {
	case frameWant:
		return nil, s.onWant(b)
	case frameCredit:
		return nil, s.onCredit(b)
	case frameAck:
		m, err := wire.DecodeAck(b)
		if err == nil {
			s.known = s.known.Join(m.Durable)
		}
		return nil, err
	case frameHeartbeat:
		m, err := wire.DecodeHeartbeat(b)
		if err == nil {
			s.beat.heard, s.beat.reached, s.beat.pong = m.Ping, m.Ping, true
		}
		return nil, err
	case framePong:
		return nil, s.onPong(now, b)
	}
	return nil, fail(CodeProtocol, "frame of type %d from a subscriber", t)
}

// Subscribers returns how many subscribers there are.
func (p *Peers) Subscribers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.subscribers)
}

// Subscribe keeps a session, as a subscriber, with the node at one of the URLs,
// until the context ends or that node refuses it for good. told hears of what
// went wrong meanwhile.
func (m *Manager) Subscribe(ctx context.Context, urls []string, told func(error)) error {
	stop := context.AfterFunc(ctx, func() { m.peers.CloseAll(fail(CodeClosing, "the subscriber is stopping")) })
	defer stop()
	for fails := 0; ; {
		for _, url := range urls {
			s, err := m.call(ctx, 0, url)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case s != nil && s.Established():
				fails, err = 0, s.Err()
			case final(err) || CodeOf(err) == CodeSecret || CodeOf(err) == CodeRefused:
				return err
			}
			told(fmt.Errorf("%s: %w", url, err))
		}
		t := time.NewTimer(min(m.o.BackoffMin<<min(fails, 16), m.o.BackoffMax))
		fails++
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}
