// Package testbed runs real nodes, real Redis servers and real networks of
// relays for the integration tests and the benchmark.
//
// # Use
//
//	bed := testbed.New(t)                       // builds the program, once per process
//	a := bed.Node(testbed.Options{ID: 1})       // starts a node and waits until it serves
//	b := bed.Node(testbed.Options{ID: 2, Meet: []*testbed.Node{a}})
//	a.Do("INCR", "k")
//	bed.Level(a, b)                             // waits for equal vectors, demands equal digests
//	b.Kill()                                    // kill -9
//	b.Start()
//
// Every node and Redis is a process of its own with its own directory below
// the test's, listening on loopback ports that are free and outside the range
// from which the kernel takes ports for outgoing connections. All end with
// the test. When a test fails, the last lines of every process's log are
// printed.
//
// # Links between nodes
//
// A Network puts a relay in front of the gossip and exchange ports of each
// node that is given it, and the node advertises the relay's addresses, as
// behind NAT. The relay finds out which node a connection comes from, so each
// direction of each pair can be cut, delayed or throttled on its own:
//
//	net := bed.Network()
//	a := bed.Node(testbed.Options{ID: 1, Network: net})
//	…
//	net.Path(a, c).Cut()      // what a sends to c does not arrive
//	net.Split(a, c)           // nor what c sends to a
//	net.Path(a, b).SetDelay(200 * time.Millisecond)
//	net.Heal()
//
// Segment is such a network of real interfaces and packets, where the machine
// lets tests have one; its nodes need a Secret.
//
// A cut holds bytes back as a network does; connections stay open unless Sever
// is called. Datagrams of gossip are dropped.
package testbed
