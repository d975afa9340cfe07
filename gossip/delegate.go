package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. It calls most of it with its lock held:
// nothing here waits, or calls memberlist.
type delegate struct{ *Gossip }

// User messages: one byte of kind, then the content.
const userLeaving = 'L' // the memberlist name of the process that leaves

func (d delegate) NodeMeta(limit int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta
}

// NotifyMsg takes the goodbye of a process, which memberlist has too but hands
// on as a failure, and verdicts. A goodbye that is news is passed on: who
// leaves soon after it joined does not know all who know it.
func (d delegate) NotifyMsg(b []byte) {
	if len(b) < 2 {
		return
	}
	switch b[0] {
	case userLeaving:
		d.mu.Lock()
		news := d.roster.gone(string(b[1:]), Left, time.Now())
		d.mu.Unlock()
		if news {
			d.rumours.QueueBroadcast(rumour(bytes.Clone(b)))
			d.changed()
		}
	case userVerdicts:
		d.hear(decodeVerdicts(b[1:]))
	}
}

func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.rumours.GetBroadcasts(overhead, limit)
}

// rumour is a user message that is gossiped on, each its own.
type rumour []byte

func (r rumour) Message() []byte                       { return r }
func (r rumour) Invalidates(memberlist.Broadcast) bool { return false }
func (r rumour) Finished()                             {}
func (r rumour) UniqueBroadcast()                      {}

// LocalState and MergeRemoteState exchange verdicts.
func (d delegate) LocalState(bool) []byte { return encodeVerdicts(nil, d.Verdicts()) }

func (d delegate) MergeRemoteState(b []byte, _ bool) { d.hear(decodeVerdicts(b)) }

// read decodes what a node tells of itself; the name must be the one that its
// facts make, or one node could speak as another.
func (d delegate) read(n *memberlist.Node) (card, error) {
	c, err := decodeCard(n.Meta)
	if err != nil {
		return card{}, fmt.Errorf("%q at %s: %w", n.Name, n.Address(), err)
	}
	if c.name() != n.Name {
		return card{}, fmt.Errorf("%q at %s calls itself %s", n.Name, n.Address(), c.name())
	}
	return c, nil
}

// NotifyAlive keeps out strangers, taken ids and the forgotten, by whatever way
// the news of them came.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.name {
		return nil
	}
	c, err := d.read(n)
	if err != nil {
		return err
	}
	d.mu.Lock()
	holder, reason := d.roster.judge(c)
	d.mu.Unlock()
	if errors.Is(reason, ErrSameID) {
		d.conflict(c.Facts, holder)
	}
	return reason
}

// NotifyMerge refuses a whole cluster one of whose living members cannot be a
// member here. Forgotten members and leftovers of this node are no reason:
// NotifyAlive leaves them out.
func (d delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if n.Name == d.name || n.State != memberlist.StateAlive && n.State != memberlist.StateSuspect {
			continue
		}
		c, err := d.read(n)
		if err != nil {
			return err
		}
		d.mu.Lock()
		holder, reason := d.roster.judge(c)
		d.mu.Unlock()
		var text string
		switch {
		case reason == nil || errors.Is(reason, errLeftover) || errors.Is(reason, ErrForgotten):
			continue
		case errors.Is(reason, ErrWrongCluster):
			text = wrongCluster(d.card().Facts, c.Facts)
		default:
			text = sameID(c.Facts, holder)
			d.conflict(c.Facts, holder)
		}
		e := &JoinError{Reason: reason, Theirs: c.Facts, text: text}
		d.remember(e)
		return e
	}
	return nil
}

// NotifyConflict cannot happen as long as every process has its own name; a
// copy of a process, memory and all, would do it.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	if c, err := d.read(other); err == nil {
		if e, err := d.read(existing); err == nil {
			d.conflict(c.Facts, e.Facts)
		}
	}
}

func (d delegate) NotifyJoin(n *memberlist.Node) {
	if n.Name == d.name {
		return
	}
	c, err := d.read(n)
	if err != nil {
		return // NotifyAlive has refused it
	}
	d.mu.Lock()
	d.roster.alive(c, n.Addr, n.Port, time.Now())
	d.mu.Unlock()
	d.changed()
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.mu.Lock()
	d.roster.gone(n.Name, Failed, time.Now())
	d.mu.Unlock()
	d.changed()
}

func (d delegate) NotifyUpdate(n *memberlist.Node) {
	if n.Name == d.name {
		return
	}
	c, err := d.read(n)
	if err != nil {
		return
	}
	d.mu.Lock()
	d.roster.update(c)
	d.mu.Unlock()
	d.changed()
}
