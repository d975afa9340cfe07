// Package gossip is who belongs to the cluster, where, and who seems to be up.
// It wraps hashicorp/memberlist.
//
// Gossip only suggests. That a member is Alive or Failed here is a hint to dial
// it or not to hurry; data links judge their own health, and a link that works
// is not to be cut because of what gossip says: the two use different ports,
// and UDP may be lost where TCP gets through.
//
// # Use
//
//	g, err := gossip.Start(gossip.Options{
//		Facts:    gossip.Facts{ID: 2, Alias: "west-1", Cluster: "prod", Dir: dir, RESP: ":9002", WAN: ":11002"},
//		Bind:     "10.0.0.7", Port: 10002,
//		Secret:   secret,
//		Known:    known,     // Members() of the last run
//		Verdicts: verdicts, // Verdicts() of the last run
//		OnChange: func(m []gossip.Member) { … },
//	})
//	err = g.Join(ctx, "10.0.0.5:10001")
//	…
//	g.Leave(2 * time.Second)
//	g.Close()
//
// The package stores nothing. The caller keeps Members and Forgotten across
// restarts, and the data directory's identity with the directory.
//
// # Members
//
// A member is a node id; its address may change at any time and says nothing
// about who it is. Members lists all others by id, with the facts they last
// told and a state:
//
//   - Alive: somebody gets answers from it.
//   - Failed: nobody does, or it has not been heard from since the start. Its
//     last address is tried again and again (Timings.Reconnect), so that
//     members find each other after any outage, however long, and
//     independent of the order in which they start.
//   - Left: it said goodbye, to this node or to one that passed it on. It is
//     not tried; it will come by itself.
//
// A member stays listed until it is forgotten.
//
// Facts are all that is told: at most 512 bytes, in a binary encoding that later
// versions may append to. No fact says "0.0.0.0": unspecified hosts are replaced
// by the advertised one, which is a private address of the machine if none is
// given.
//
// # One id, one node
//
// Two nodes with one id would corrupt data, so an id belongs to a data
// directory (Facts.Dir). Who comes with the id of a known member is
//
//   - the same node, if it has the same directory, or the same gossip address
//     (two processes cannot listen on one): a restart, a move, or a
//     restart with an emptied directory;
//   - else a second node, and refused, whether the first is up or not. If the
//     first is gone for good, Forget and Allow free the id.
//
// If directory and id are the same but the address differs, the process that had
// them is probed by name: should it answer, the newcomer runs on a copy of the
// directory and is refused; should it not, it is what a restart left behind.
//
// Every process has its own name in memberlist, made of id, directory and the
// time of its start. So to memberlist a restarted node is a new one, and news of
// the old process, or its pending failure, cannot block or take down the new;
// this package shows the two as one member. The price is that ids are checked
// here (AliveDelegate, MergeDelegate, knock) and not by memberlist's names.
//
// # Joining
//
// In memberlist each side of a join decides alone, after it has sent its state:
// a side that is refused does not learn of it. Therefore Join first knocks: one
// question and one answer on a connection to the same port (knock.go), sealed
// with the cluster's secret, in which both sides judge each other. Nothing has
// changed on either side if it fails. The error is a *JoinError:
//
//   - ErrSameID: as above; names both nodes, with alias and address.
//   - ErrWrongCluster: Facts.Cluster differs. JoinError.Theirs has theirs.
//   - ErrSecret: the secrets differ, or one side has none; it says which.
//   - ErrForgotten: one side has forgotten the other.
//   - ErrUnreachable: no connection, no answer, or no gossip port.
//
// A claim on a taken id also shows on the nodes that refuse it: in the log, and
// in LastError of the member, or of Self, that has the id.
//
// # Forgetting
//
// Forget removes a member and refuses it until Allow, on every node: such
// verdicts are sent to all members and exchanged when nodes meet, and the
// newest on an id holds. Members that have forgotten a node that runs on still
// answer its probes.
//
// # Secret
//
// From the secret two AES-256 keys are derived by HKDF with SHA-256: one for
// memberlist, which seals every packet and stream with it, one for knocks.
// Without a secret all is plain, and Start warns unless the address is a
// loopback one.
//
// # Limits
//
//   - Ids up to 4095; alias, region and cluster 64 bytes each, an address 128, all facts with
//     their framing 512: Start and Update refuse more.
//   - 64 incoming connections that have not yet shown what they are, or knock; each for
//     Timings.Stream. More are closed.
//   - memberlist bounds the rest: 1024 messages waiting, 20 MB for one full exchange.
//   - OnChange: one change waits; the next ones join it.
//
// The order of two processes of one node is that of their clocks at start. If the clock
// was set back between, the member shows the old process's facts until that
// is found to have failed.
package gossip
