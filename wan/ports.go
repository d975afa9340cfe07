package wan

import (
	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Log is what sessions read: this node's log, its vectors and its state. Its
// methods are called from several goroutines at a time, with locks of sessions
// held: they must not call back into this package, and the node must hold none
// of the locks they take when it calls done, or methods of Peers. Vectors they
// return are not changed by anybody.
type Log interface {
	// Origin is this node's origin now: its id and incarnation, lane 0.
	Origin() crdt.Stream

	// Durable is the vector of what is applied and synced to disk here.
	Durable() crdt.Vector

	// Applied is the vector of what is applied here, durable or not.
	Applied() crdt.Vector

	// Frontier returns what heartbeats are to say of this node. It may lag
	// behind the clock, but rises while the node is idle too.
	Frontier() Frontier

	// Read calls fn for durable entries of a stream that follow a tag, in order,
	// each as wire.EncodeEntry makes it: as many as fit maxBytes, but at least one
	// if there is any. The first may begin before the tag, if it is a fold. An entry
	// is the log's again when fn returns; an error of fn's ends it, and is returned.
	// The error is ErrTrimmed if the log does not reach back that far.
	Read(s crdt.Stream, after crdt.Tag, maxBytes int, fn func(entry []byte) error) error

	// Count returns how many durable entries of a stream follow a tag, or
	// limit if there are more, and the bytes of those counted.
	Count(s crdt.Stream, after crdt.Tag, limit int) (entries int, bytes int64)

	// Wrote reports whether the log has an entry with just this tag in a
	// stream, or no longer reaches back that far.
	Wrote(s crdt.Stream, t crdt.Tag) bool

	// Snapshot freezes the state for a state sync: all of it or, if since is
	// not nil, what differs from what the asker has.
	Snapshot(since *SyncSince) (Snapshot, error)
}

// Frontier is a moment of a node at which all that it had applied was durable.
type Frontier struct {
	// Tag and Own: every entry of the node with a tag up to Tag is covered by
	// Own, the positions of its streams of all incarnations, and every entry
	// it makes later has a greater tag.
	Tag crdt.Tag
	Own crdt.Vector
	// Census says of which nodes, each in which incarnation, this one took
	// entries from then on, and which were forgotten: the same number at two
	// nodes means the same. 0 if it does not know of each.
	Census uint64
}

// Heard is what a peer has said in a session.
type Heard struct {
	Origin crdt.Stream // the peer's, as long as the session lasts
	// Tag and Own are of the newest heartbeat (see Frontier). What they cover
	// is applied here only once Applied covers Own. 0 and empty until the first.
	Tag crdt.Tag
	Own crdt.Vector
	// Durable is what is durable there, all of it at one moment, and Census the
	// peer's at a moment before that.
	Durable crdt.Vector
	Census  uint64
}

// Snapshot is the frozen state of this node, all of it durable.
type Snapshot interface {
	// Begin describes the states that follow a cursor: their vector, the known
	// contexts, and what databases hold pending. Its Cursor is ignored.
	Begin(cursor []byte) SyncBegin

	// Next returns states that follow a cursor ("" for the first), in the
	// order of slot, database and key, and the cursor after them: at least
	// one state, else as many as fit maxBytes. Last is set with the last
	// ones, which may be none. The cursor is at most MaxCursor bytes and
	// means the same in every snapshot of every node. It comes from the peer:
	// one that makes no sense is an error, which ends the session.
	//
	// A node that takes in a sync itself is further in parts of its keyspace
	// than in others. part says that what follows the new cursor is another
	// part, with a Begin of its own; there may be no states then.
	//
	// Of a state by difference there need not be a state: what is left out is
	// told by ranges, which cover all from the cursor to the new one.
	Next(cursor []byte, maxBytes int) (keys SyncKeys, part bool, err error)

	// Compare answers what the asker has in a range that Next has left out.
	Compare(p *SyncPart) (SyncRestPart, error)

	// Close releases the snapshot.
	Close()
}

// Messages of a state sync. States and cursors are opaque to this package.
type (
	// SyncBegin describes a snapshot.
	SyncBegin = wire.SyncBegin
	// SyncKeys is a part of it.
	SyncKeys = wire.SyncKeys
	// SyncKnown is what a stream's origin is known to have seen.
	SyncKnown = wire.SyncKnown
	// SyncDBPending is what a database holds pending.
	SyncDBPending = wire.SyncDBPending
	// SyncSince asks for a state by difference.
	SyncSince = wire.SyncSince
	// SyncRange tells of keys that were left out of a state by difference.
	SyncRange = wire.SyncRange
	// SyncPart says what the asker has in a range.
	SyncPart = wire.SyncPart
	// Verify asks for the digests of a peer's buckets, or answers.
	Verify = wire.Verify
	// SyncRestPart answers it.
	SyncRestPart = wire.SyncRestPart
)

// Message is what a client has published.
type Message = wire.Publish

// Applier takes what sessions receive. from is the id of the peer. Calls for
// one session come one after another, in order; calls of several sessions may
// overlap. done is called once, from any goroutine and also before the call
// returns; nil means applied, and grants the peer credit for more. An error
// ends the session, and its text is shown on both sides.
type Applier interface {
	// Apply applies entries. Those of one stream follow each other; each
	// begins at or before what is applied or was handed over before it.
	// They are independent of each other but for that.
	Apply(from uint16, entries []crdt.Entry, done func(error))

	// SyncNeeded tells that a peer's log no longer has what this node wants
	// of these origins. The node chooses when to call RequestSync, with which
	// peer, one at a time.
	SyncNeeded(from uint16, origins []crdt.Stream)

	// BeginSync announces the states to come, from b.Cursor on, as they are
	// at b.Vector: all, or as far as the next call, which goes on where they
	// end.
	BeginSync(from uint16, b *SyncBegin, done func(error))

	// ApplyState merges states. With keys.Last the sync is complete; done is
	// then called when the node's vectors have risen. Before it calls done the
	// node may ask for more of what keys.Ranges tells of (Peers.CompareSync).
	ApplyState(from uint16, keys *SyncKeys, done func(error))

	// ApplyRest takes the answer to a part of what CompareSync has asked.
	ApplyRest(from uint16, parts []SyncRestPart, done func(error))

	// AbortSync tells that a sync which was requested ends before its last
	// states. It may go on later from the last cursor, with any peer.
	AbortSync(from uint16)

	// Verify hands over a question for the digests of this node, or the answer to
	// one (Peers.SendVerify). It must not wait.
	Verify(from uint16, m *Verify)

	// Publish hands over a message for this node's clients. It must not wait.
	Publish(from uint16, m *Message)

	// Heard tells what a peer's heartbeats and acks have said so far.
	Heard(from uint16, h Heard)

	// Ahead tells that a peer knows more of this node's present incarnation
	// than the node itself: its data directory was rolled back. The node must
	// take on a new incarnation; until then no session with the peer comes
	// about.
	Ahead(from uint16, theirs crdt.Vector)
}
