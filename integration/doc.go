// Package integration tests replicatord as its users have it: real processes,
// real Redis servers, redis-cli and go-redis, kill -9, and relays that cut and
// delay what nodes say to each other. It has no code of its own; package
// testbed has the means.
//
//	go test ./integration
//
// needs redis-server, redis-cli and redis-benchmark, and fails without them.
// Environment variables:
//
//	REPLICATORD_CRASH_ROUNDS  rounds of the crash loop (default 10; 200 for a full run)
//	REPLICATORD_CRASH_SEED    seed of the crash loop (default random; a failure prints it)
//	REPLICATORD_RACE          if set, the nodes run with the race detector
//	REPLICATORD_BINARY        a program to test instead of building one
//
// Tests about what other systems got wrong carry the number that docs/PITFALLS
// knowledge gives it (PitfallNN).
package integration
