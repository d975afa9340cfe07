package wan

import (
	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Messages of PUBLISH are no data: nobody logs, acknowledges, repeats or relays
// them. They go to the peers with which there is a session and travel with the
// realtime lane's share of the link, before its chunks.

// messageLane is the lane whose share of a link messages have.
const messageLane = crdt.Lane(0)

// Publish sends a message to all peers there are. It waits for nobody: what a
// link has no room for, and what is for a peer that is away, is dropped and
// counted.
func (p *Peers) Publish(m *Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.status) == 0 {
		return
	}
	var b []byte
	if len(m.Channel)+len(m.Payload) <= MaxMessage-16 {
		b = m.Encode()
	}
	for node, st := range p.status {
		if s := p.live[node]; s == nil || b == nil || p.paused {
			st.total.unsent++
		} else {
			s.publish(b)
		}
	}
}

// publish queues an encoded message.
func (s *Session) publish(b []byte) {
	o := &s.sending
	s.mu.Lock()
	ok := s.phase == phaseReady && s.version() >= versionPublish && o.messageBytes+len(b) <= MaxMessages
	if ok {
		o.messages = append(o.messages, b)
		o.messageBytes += len(b)
	} else {
		s.stats.unsent++
	}
	s.mu.Unlock()
	if ok {
		s.wake()
	}
}

// nextMessage takes the first message that waits.
func (s *Session) nextMessage() []byte {
	o := &s.sending
	b := o.messages[0]
	o.messages[0] = nil
	o.messages = o.messages[1:]
	o.messageBytes -= len(b)
	o.lanes[messageLane].budget -= len(b)
	s.stats.messages++
	return s.message(framePublish, b)
}

func (s *Session) onPublish(b []byte) ([]func(), error) {
	m, err := wire.DecodePublish(b)
	if err != nil {
		return nil, err
	}
	if s.version() < versionPublish {
		return nil, fail(CodeProtocol, "Publish in version %d", s.version())
	}
	s.stats.messagesIn++
	from := s.peer.Node
	return []func(){func() { s.cfg.Applier.Publish(from, m) }}, nil
}
