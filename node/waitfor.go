package node

import (
	"strconv"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/gossip"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// waitPoll is how often a WAIT looks how far the members are.
const waitPoll = 2 * time.Millisecond

// waitFor answers WAIT and WAITAOF: it waits until at least so many members
// have on disk all that this node had written when it was called, and (local 1)
// until this node has; or until the time is over, or the client gone. args are
// WAIT local members timeout, and have been checked.
func (n *Node) waitFor(s *resp.Session, out *command.Reply, args [][]byte, aof bool) error {
	number := func(i int) int64 { v, _ := strconv.ParseInt(string(args[i]), 10, 64); return v }
	local, members, ms := number(1), number(2), number(3)
	var want crdt.Vector
	if err := n.exec.Run(func(*Core) { want = n.own(n.log.Vector()) }); err != nil {
		return err
	}
	if err := n.log.Sync(); err != nil {
		return err
	}
	var over <-chan time.Time
	if ms > 0 {
		t := time.NewTimer(time.Duration(ms) * time.Millisecond)
		defer t.Stop()
		over = t.C
	}
	poll := time.NewTicker(waitPoll)
	defer poll.Stop()
	for {
		here, there := int64(0), n.haveDurable(want)
		if want.In(n.log.Durable()) {
			here = 1
		}
		end := here >= local && there >= members
		if !end {
			select {
			case <-poll.C:
				continue
			case <-over:
			case <-s.Gone():
			case <-n.ctx.Done():
			}
		}
		if aof {
			out.Array(2)
			out.Int(here)
		}
		out.Int(there)
		return nil
	}
}

// LevelMembers implements resp.Backend.
func (n *Node) LevelMembers(lag time.Duration) (count int) {
	l := n.durable.Load()
	if l == nil {
		return 0 // the node is starting
	}
	links := l.Stats()
	for _, m := range n.members.List() {
		if s, ok := links[m.ID]; ok && m.State != gossip.Left && s.Live && s.Lag <= lag {
			count++
		}
	}
	return count
}

// own returns what a vector tells of this node's own streams.
func (n *Node) own(v crdt.Vector) crdt.Vector {
	var out crdt.Vector
	for _, p := range v {
		if p.Stream.Origin() == n.log.Identity().Origin {
			out = append(out, p)
		}
	}
	return out
}

// haveDurable returns how many members are known to have what a vector tells
// on disk.
func (n *Node) haveDurable(v crdt.Vector) (count int64) {
	for _, m := range n.members.List() {
		if m.State != gossip.Left && v.In(n.links.durable(m.ID)) {
			count++
		}
	}
	return count
}
