// Package node is a node: it joins the log (oplog), the data links (wan), the
// membership (gossip) and the front end for clients (resp) around one core.
//
// # The parts
//
//   - Config is what an operator decides; Load reads it, from a file and flags,
//     and lists all its faults.
//   - Core is the replica: clients' commands and peers' entries in, log entries
//     and updates for the view out. It is a state machine, driven by the
//     executor here and by the simulator in tests.
//   - executor is the one goroutine that owns the core. Everything that touches
//     state comes through its queue; it drains what waits into a commit group,
//     commits, sends the view its batch, and lets the replies go.
//   - pump sends batches to the view, the Redis behind the node, over one
//     connection, in order. Reads travel in the same batches, behind the
//     updates they must see: that makes them see one's own writes. Simple reads of
//     what is in memory do not go there: the core answers them from the cells.
//   - recovery brings the view level at the start and whenever it was lost: from
//     the log, or by rebuilding it. Until then clients get -LOADING.
//   - wanLog and wanApplier show the log to the data links and take what they
//     receive to the executor; regions keep account of a state sync under way.
//   - members turns MEET and FORGET into gossip, and remembers who belongs.
//
// # Order
//
// Log first, then view: a group's cells, log entries and vector are one atomic
// write to the store, and only then does its batch go to the view. So a view is
// never ahead of the log, and what is lost of it can be made again.
//
// # Locks and waiting
//
// The executor waits for the store, and for the pump when the view is slow. The
// pump waits for the view alone: it never posts to the executor. Data links
// hand over and return; their done functions are called by the executor and
// must not wait for it.
package node
