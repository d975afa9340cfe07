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
//	REPLICATORD_FULL          if set, a value of 512 MB and a hash of a million fields,
//	                          instead of 64 MB and 200,000
//	REPLICATORD_KEEP          a directory for the whole logs and goroutines of what failed
//	REPLICATORD_RACE          if set, the nodes run with the race detector
//	REPLICATORD_BINARY        a program to test instead of building one
//	REPLICATORD_OLD           an older program, from which TestRollingRestarts upgrades
//
// What other systems got wrong is numbered; a test's name ends in the number of
// the pitfall it is about.
package integration
