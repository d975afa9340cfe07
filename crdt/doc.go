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
//     Tidy drops that in time.
//   - The visible value is a function of the live cells alone.
//
// The tests prove this for every small case: all interleavings of up to four
// operations on three replicas, in all orders of delivery, against a model that
// keeps every operation.
//
// # Aliasing
//
// Values and vectors handed in are kept, not copied; nobody changes them after
// that. What methods return may share memory with the keyspace and is not to
// be changed either.
package crdt
