// Package sim runs a cluster of nodes in one goroutine, in virtual time, and
// looks at every step whether the promises of docs/ARCHITECTURE.md are kept.
//
// # What is real and what is not
//
// Each node is a real node.Core over a real oplog.Log (pebble, on a file system
// in memory that can lose what was not synced), with the real commands of
// resp/command, and real wan.Sessions and wan.Peers talk over connections made
// of frames. What is swapped are the five seams: transport, membership, file
// system, wall clocks, and randomness. The Redis behind a node is an interpreter
// of the few commands that a node sends to it (redis.go). The adapters in
// port.go, view.go and site.go stand for those of package node that live in
// goroutines, and share with it what is not bound to them (node/seams.go).
//
// # A run
//
// Options determine a run, and a seed determines options (FromSeed). First
// clients send pipelines of commands to keys that everybody writes to, while
// faults strike: see Fault. Then everything is healed, and within two minutes
// all nodes must be the same and at rest. Then everything is deleted, and
// nothing may be left.
//
// # What is checked
//
// After every event: vectors only grow; what is durable is applied; nothing is
// known elsewhere that was not durable at its origin; no node is believed to
// have more than it ever had durable; nodes with the same vector hold the same;
// of a transaction or script of many keys a node has all or nothing (unit.go).
// At every commit: tags rise, over crashes and clock steps. At every start: what
// was acknowledged is there, as far as the fsync policy promises. Every few
// hundred events, and at the end, for one node after the other: headers and
// digests are what the cells make them; the view shows what the cells say; and
// the cells are what crdttest.Model, which keeps every write and shares no rule
// with package crdt, says they are. In pipelines a read finds what was written
// before it, and those of a unit find no other unit in part. At the end: counters
// that were only ever added to are the exact sum of the increments that were
// acknowledged and survived.
//
// # When it fails
//
// A failure prints what broke, the end of the history, the options, and the
// command that runs it again:
//
//	go test ./internal/sim -run 'TestSeed$' -v -options='seed=1,nodes=3'
//
// With -shrink it looks for simpler options that fail too. Those of a bug that
// was found go to testdata/seeds.txt. REPLICATORD_SIM_SEEDS says how many new
// seeds TestFresh tries; 10,000 take about a quarter of an hour on one core.
//
// # Left out
//
// The disk of a node is not lost while another is in the middle of a state sync
// or has asked for one, nor is a node forgotten then, nor while one that was
// rolled back without a trace has not heard from its peers: see world.delicate
// and site.fenced.
package sim
