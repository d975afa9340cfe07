package node

import (
	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

// What follows is for package internal/sim, which drives a Core, and the data
// links, in its own order and by its own clock.

// Generation returns the generation of the state, as the view's watermark
// tells it.
func (c *Core) Generation() uint64 { return c.generation }

// Reincarnate gives this node a new incarnation, as when a peer or the view
// has seen more of the old one than the log has.
func (c *Core) Reincarnate(why string) error { return c.reincarnate(why) }

// SnapshotForPeers shows a snapshot, all of it durable, to a data link.
func SnapshotForPeers(s *oplog.Snapshot, since *wan.SyncSince, sizes SyncSizes) (wan.Snapshot, error) {
	return newWanSnapshot(s, since, sizes)
}

// AnswerVerify answers a peer's question for digests.
func AnswerVerify(q *wan.Verify, vector crdt.Vector, digests []uint64) *wan.Verify {
	return answerVerify(q, vector, digests)
}

// ChangedSince lists the keys to rewrite in a view that is level with a vector;
// ok is false if the log does not tell and the view must be rebuilt.
func ChangedSince(log *oplog.Log, since crdt.Vector) (keys []crdt.Key, ok bool, err error) {
	return changedSince(log, since)
}
