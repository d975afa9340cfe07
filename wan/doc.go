// Package wan exchanges log entries and states with other nodes. docs/PROTOCOL.md
// specifies what goes over the wire.
//
// # Parts
//
// Session is one connection as a state machine: frames in, frames out, time as
// an argument. Peers is all sessions of a node: it admits peers, keeps one
// session with each and chooses (plan.go) whom to have which origins from.
// Neither has goroutines, sockets or a clock of its own, so a simulator drives
// them as it likes and gets the same run from the same seed:
//
//	peers, err := wan.NewPeers(wan.Config{Self: …, Log: log, Applier: node, Rand: seeded})
//	s, err := peers.Open(now, wan.Link{Dialled: true, Wake: func() {}})
//	for {
//		frame, channel := s.Next(now)     // nil: nothing to send now, or not before s.Held has passed
//		err := other.Receive(now, frame)  // after whatever delay; in order per channel
//		                                  // (or Arrived, and later Take)
//		peers.Tick(now)                   // a few times per heartbeat
//		peers.NotifyDurable()             // when Log.Durable has risen
//	}
//
// Manager drives Peers over real connections of package transport: it dials
// the members it is told of, with backoff, and accepts the others.
//
// # The node
//
// The node implements Log, what sessions read, and Applier, what they hand
// over. Credit returns to a peer when Applier calls done, so a node that is slow
// slows its peers' senders and nothing else; acknowledgements follow Durable.
// When a peer's log no longer reaches back far enough, Applier.SyncNeeded says
// so, and the node asks for the state with Peers.RequestSync when it suits.
// When Applier.Ahead tells that the data was rolled back, the node takes on a
// new incarnation and calls Manager.Restart.
//
// # What holds
//
//   - Nothing is sent that is not durable here, and nothing acknowledged that
//     is not durable there.
//   - An entry is handed over only if what precedes it in its stream was
//     applied or handed over before. What comes twice is left out or harmless.
//   - A batch is decoded only after the checks of its frames and its checksum
//     hold.
//   - A peer occupies at most a window in each lane, or one larger batch, and one
//     batch in the making on the sending side, and half a megabyte of frames that
//     were read ahead of it; control messages never queue.
//   - No more is under way than the link was found to carry, and a little; but a
//     session never waits without an answer on its way.
//   - Within a lane batches stay in order; between lanes the weights decide.
//
// # Decisions
//
// Batches are made only when the link can take one (Next). So what is pending
// folds as long as the link is busy, and nothing stale waits in a queue. Where
// folding pays on a thin link a lane waits a moment for more of it (linger). Where it
// has spared nothing the next few batches are copied from the log as they are, and
// then folding is tried again.
//
// Each entry of a batch carries its whole context. Sending the change from the
// entry before would save some bytes, which the compressor saves too, and would
// make each batch depend on those before it.
//
// The receiver says what it wants, origin by origin and with positions. Resume,
// relay, pause and the end of a state sync are then the same message.
//
// Compressed batches of a lane form one zstd frame, so a lane cannot skip a
// batch; chunks of different lanes may overtake each other, also on a transport
// with a stream for each (QUIC). The check of a frame counts within its lane for
// the same reason.
package wan
