// Package crdt is what a value is and what writes do to it, at every replica
// alike. It is pure: no network, no disk, no clock, no randomness.
//
// # The model
//
// A Redis value is a set of cells (Cell) under a key. Writes become deltas
// (Delta): remove what was seen, put a value, add to a counter. A commit group
// makes one Entry for each lane it wrote to; entries of one Stream (origin and
// lane) have rising tags and are applied in order. A Vector says how far a
// replica has applied each stream; an entry's context is the vector of its
// origin when it was made, and a remove takes away just what its context
// covers.
//
// A Keyspace applies entries (Apply), local writes (through a Writer) and other
// replicas' states (Merge) to a Store. Consecutive entries fold into one that
// does the same (FoldEntries).
//
// # What holds
//
//   - Two keyspaces with the same vector hold the same live cells, however the
//     entries came: in any order of streams, again and again, folded or not,
//     or as a merged state.
//   - Removes leave nothing behind but what deltas still under way can need;
//     Tidy drops that in time. What a remove saw of writes that are lost
//     everywhere stays, for nobody can know that no copy of them comes back.
//   - The visible value is a function of the live cells alone.
//
// TestExhaustive proves this for small cases: histories of up to four
// operations on three replicas, in all orders of delivery and merge, against a
// model that keeps every operation (package crdttest); its comment says what is
// covered by default and what by REPLICATORD_EXHAUSTIVE=full.
// TestRandomHistories goes deeper. The scripts in testdata show the rules of
// docs/SEMANTICS.md one by one.
//
// # Counters
//
// A stream's count in a cell is one growing sum, so that any number of
// increments fold into one. A remove that has seen a part of it cannot take
// away increments one by one: it tells how far it saw (Seen), and every replica
// subtracts just that, also from a sum that has gone further. The same must
// work where the remove comes first, so a replica keeps the reset, a remnant,
// until it knows that the count's own origin has it too, or that the origin is
// over and nothing more of the stream can come. From then on the origin's
// increments begin a new epoch, and a greater epoch replaces the count whole: an
// increment with a new epoch is at once a remove of all the earlier increments
// of its stream in the cell. One that goes on with an epoch whose count was
// dropped fits nowhere, and Astray tells: only an old copy of a replica, brought
// back when its entries were given up for lost, has such.
//
// Every header tells of remnants under its key (Rest), for the remove of a
// database must tell what it saw of them too.
//
// # Lanes
//
// Streams of one origin are as independent as those of two: lane 0 may be hours
// ahead of lane 3. Within a commit group there is one tag, and so no order
// between lanes; Writer begins a new step with a tag of its own where one is
// needed. A transaction starts with Writer.Begin and is one entry.
//
// # State sync
//
// For each key that either side has, in any order: Merge for each cell of
// either side, then MergePending. Until the whole keyspace is covered, the keys
// merged are ahead of Have: HaveOf tells what each has, and PendingOf what the
// peers held pending for its database. When Have has caught up with every part,
// MergeDBPending joins that for good, and both hooks go.
//
// # Expiry
//
// Each replica hides an expired key for itself (Sweep), and it leaves the
// digest: replicas compare digests after sweeping to the same time. An expired
// field of a hash is hidden too (SweepField), and stays in the digest: what of it is
// hidden is only counted. Purge and PurgeField delete them once nobody can bring them
// back. Hiding is no operation of the model: no delta tells of it.
//
// # Aliasing
//
// Values and vectors handed in are kept, not copied; nobody changes them after
// that. What methods return may share memory with the keyspace and is not to
// be changed either.
package crdt
