package wan

import (
	"errors"

	"github.com/replicatord/replicatord/internal/wire"
)

// ErrVersion reports that a peer is too old for what it was asked.
var ErrVersion = errors.New("the peer speaks an older version of the protocol, which does not have that")

// maxVerify bounds the questions and answers that wait for a link.
const maxVerify = 4

// SendVerify asks a peer for the digests of its buckets, or answers. Beyond a few
// that wait it is dropped: who asks asks again. ErrNoSession if there is no
// session, ErrVersion if the peer does not know what is asked.
func (p *Peers) SendVerify(node uint16, m *Verify) error {
	p.mu.Lock()
	s := p.live[node]
	p.mu.Unlock()
	if s == nil {
		return ErrNoSession
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.phase != phaseReady:
		return ErrNoSession
	case s.version() < versionDiff:
		return ErrVersion
	}
	if len(s.control.verify) < maxVerify {
		s.control.verify = append(s.control.verify, m)
		s.wake()
	}
	return nil
}

// nextBulk returns the next message that can be long and has no hurry: it goes
// in the share of the lane of states, lest it hold up what has.
func (s *Session) nextBulk() []byte {
	c := &s.control
	switch {
	case c.syncAsk != nil: // it goes before the questions
	case len(c.verify) > 0:
		m := c.verify[0]
		c.verify = c.verify[1:]
		return s.message(frameVerify, m.Encode())
	case len(c.compare) > 0:
		m := c.compare[0]
		c.compare = c.compare[1:]
		return s.message(frameSyncCompare, m.Encode())
	}
	return nil
}

func (s *Session) onVerify(b []byte) ([]func(), error) {
	if s.version() < versionDiff {
		return nil, fail(CodeProtocol, "Verify in version %d", s.version())
	}
	m, err := wire.DecodeVerify(b)
	if err != nil {
		return nil, err
	}
	peer := s.peer.Node
	return []func(){func() { s.cfg.Applier.Verify(peer, m) }}, nil
}
