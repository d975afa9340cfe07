package node

import (
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
	"github.com/replicatord/replicatord/wan"
)

// Publish implements resp.Backend: it sends a client's message to the other
// members, if they are to have it. None is logged: who is away misses it.
func (n *Node) Publish(channel, payload []byte, shard bool) {
	if l := n.durable.Load(); l != nil && n.cfg.PubSubGlobal {
		l.m.Peers().Publish(&wan.Message{Channel: channel, Payload: payload, Shard: shard})
	}
}

// Publish implements wan.Applier: a member's client has published.
func (a *wanApplier) Publish(_ uint16, m *wan.Message) { a.publish(m) }

// published delivers a member's message to the clients of this node, and to
// nobody else: members send to each other directly.
func (n *Node) published(m *wan.Message) {
	if s := n.front.Load(); s != nil && n.cfg.PubSubGlobal && !n.paused.Load() {
		s.Publish(m.Channel, m.Payload, m.Shard)
	}
}

// frontListener tells the clients' server what the core has changed, once
// there is one.
type frontListener Node

func (f *frontListener) Notifies() (some, misses bool) {
	if s := f.front.Load(); s != nil {
		return s.Notifies()
	}
	return false, false
}

func (f *frontListener) Tracks() bool {
	s := f.front.Load()
	return s != nil && s.Tracks()
}

func (f *frontListener) Notify(events []command.Event) {
	if s := f.front.Load(); s != nil {
		s.Notify(events)
	}
}

func (f *frontListener) Changed(by *resp.Session, keys []string) {
	if s := f.front.Load(); s != nil {
		s.Changed(by, keys)
	}
}

func (f *frontListener) Flushed(by *resp.Session) {
	if s := f.front.Load(); s != nil {
		s.Flushed(by)
	}
}
