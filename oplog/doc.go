// Package oplog is the durable state of one replica: its cells and headers, the
// log of entries, vectors, indexes and digests, in one pebble store. docs/STORAGE.md
// has the bytes.
//
// # Writing
//
// All writing is done in groups. Begin opens the only one there is at a time; it
// is a crdt.Store that shows its own changes over what is stored. Append adds
// the group's log entries and advances its vector. Commit writes everything in
// one atomic batch, or nothing; Discard forgets it.
//
//	g := l.Begin()
//	ks := &crdt.Keyspace{Store: g, Have: g.Vector()}
//	ks.Apply(&entry)
//	if err := g.Append(&entry); err != nil { … g.Discard() … }
//	err := g.Commit()
//
// Before a tag is used it must be reserved (Reserve), so that no later run uses
// it again, whatever the clock does. Tags start after TagFloor.
//
// # Writing back
//
// Cells and headers do not go to their rows in the store with each commit: it
// writes one record of what they are now, beside its entries, and the cache keeps
// them. Values that are in the entries the record only refers to (refer.go). When Options.RedoBytes of records are about to have gathered, or what they tell of takes too much memory, the commits
// write the newest state of every row besides, some with each (sweep.go), and the
// records go. So a row that changes often is written once in a while, and a commit
// costs the store few insertions however many keys it changes. Whoever needs the
// rows themselves (Snapshot, walks over many keys, a discarded group) has the log
// drained first: the rows written as the records tell (redo.go). A log at rest is to be
// told to write back at once (Rest, WriteBack), so that they need not wait then. What is too large for the
// cache goes to its rows at once. A small string and the expiry of a key are in its header's row, so that most
// keys have one (keyrow.go). That a key is not stored at all a filter in memory
// tells (filter.go), so that new ones are not looked for; what is known to be needed soon and
// not in memory is read together (fetch.go).
//
// # Durability
//
// Vector is what has been applied, Durable the part of it that a power loss
// cannot take. Only what is durable may be shipped or acknowledged: Read returns
// nothing else, Events.Durable and WaitDurable tell when there is more. When
// Commit returns, the group is safe from the death of the process under every
// Policy; the policies differ in what a power loss takes.
//
// # Failure
//
// A disk that is full or fails makes Commit return errors that wrap ErrDisk,
// and Failed tell why. Reads go on. Nearly full (Options.MinFree) and failed
// flushes are passing: writes go on by themselves, or after Retry. A
// write-ahead log or manifest that could not be written needs a restart; until
// then nothing is written any more, and nothing counts that was not
// acknowledged. The process never exits by the storage's doing.
//
// # Identity
//
// A data directory has a node id and an incarnation (Identity). A new incarnation begins
// when the directory is fresh, was copied or restored, or opened with another
// node id; NewIncarnation begins one when a peer knows more of this node than
// the node itself. So no tag of one stream ever names two contents. Has tells
// whether a tag of this node's own is one that it knows.
//
// # Goroutines
//
// Methods of Log and Snapshot are safe for concurrent use. A Group belongs to one
// goroutine. A log runs one goroutine for put-off syncs, and
// pebble's for flushes and compactions; Close ends them all.
package oplog
