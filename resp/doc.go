// Package resp is the door for Redis clients: it speaks RESP2 and RESP3, keeps their
// sessions, holds them to limits, and answers everything that is not about
// data. What is about data it hands to a Backend, the node.
//
// # A command's way
//
// Each connection has a Session, and that a goroutine or, while the client sends
// nothing but data commands, a place in a loop (loop_linux.go), which serves many and
// waits for none. It cuts what comes in into commands,
// looks each up in the command table, and checks in Redis's order: is it known, does it
// have the right number of arguments, has the client logged in, may its user do this (package
// acl), is there memory for it, is the node loading. Data commands that follow each other are gathered into one call of
// Backend.Execute, so that a pipeline costs the node one commit group, not one per
// command. A command that could see or change what they do (CLIENT, CONFIG, INFO, MEET, …)
// waits until they are executed; PING, ECHO, SELECT and refusals do not, and their
// replies are put in their places. So every client has its replies in its
// order, and each command has seen those before it.
//
// Arguments are copied once, out of the read buffer into memory of their own: a
// block for each command, and one for each argument of 32 kB and more, into which it is
// read directly. The backend may keep them.
//
// # Pushes
//
// Messages of PUBLISH (hub), keyspace events, invalidations of client-side caches
// (trackers) and MONITOR's lines come from other goroutines, the executor's among them. They
// only append to the session's output, under its lock: nobody waits for a client, and one
// that lets too much wait is disconnected. While the session carries out commands its pushes
// wait for their replies (output.busy), so nothing is pushed within a reply or ahead of one to an
// earlier read. Channels have one order for all that listen.
//
// # Limits
//
// All of them are in options.go, and are checked before memory is taken.
//
//	connections              MaxClients; one more is told so and closed
//	one argument             MaxBulkLen; 16 kB before AUTH
//	arguments of a command   1,048,576; 10 before AUTH
//	bytes of a command       MaxQueryBuffer, all arguments together
//	inline command           64 kB
//	one Execute              1,024 commands; 1 MB of arguments, or one command
//	replies not yet read     MaxOutputBuffer, and one batch; see below
//	pushes not yet read      client-output-buffer-limit of class pubsub for clients
//	                         with subscriptions, MaxOutputBuffer for others; then
//	                         the client is disconnected
//	keys tracked             tracking-table-max-keys
//	all of these together    MaxMemory, but for the last
//
// A length in a header takes no memory; what has come does, doubled as it comes. A
// client's read buffer is 16 kB to 64 kB; one that has been quiet for two seconds holds none.
//
// Replies are first written to the socket as far as it takes them; the rest waits in a
// queue with a goroutine of its own, so that a client may write a whole pipeline before
// it reads a reply. With MaxOutputBuffer in the queue the session stops carrying out commands:
// a slow reader is served at its speed. If it takes nothing for StallTimeout it is disconnected.
// (Redis disconnects it at the limit, and has none by default.)
// The size of replies is not known before they are there; batches begin at 64 commands, grow
// while replies are small, and shrink when they are large.
//
// # Differences from Redis 7.0
//
// Replies are compared with those of a real redis-server in the tests, to the
// byte. On purpose different:
//
//   - What is pushed to a client because of its own command, a message that it
//     publishes to itself or an invalidation, comes behind the replies to all
//     that it had sent by then; as in Redis 7.2, 7.0 writes messages before.
//   - Clients are carried out side by side: an UNSUBSCRIBE whose confirmation has
//     not come yet may be overtaken by another client's PUBLISH.
//   - PUBLISH and keyspace events of other nodes: see the README.
//   - A command may have 1,048,576 arguments, as in Redis 6, not two billion.
//   - client-query-buffer-limit counts all arguments of a command, not only
//     what is still being read.
//   - A zero byte in an inline command is refused; Redis never answers it.
//   - CONFIG GET shows requirepass only when asked for by that name, not by a
//     pattern. CONFIG REWRITE is refused: the file is the operator's.
//   - SAVE, BGSAVE and BGREWRITEAOF succeed and do nothing: the log has every
//     write that was answered, as durable as fsync says. LASTSAVE is now.
//   - CLIENT SETINFO and NO-TOUCH, of Redis 7.2, are there for its libraries.
//   - Parameters of CONFIG that are about what a node does in its own way can
//     be set and change nothing (keptParameters in configtable.go). An
//     aclfile that does not speak of the default user leaves requirepass in force.
//   - A selector's words may not end in ")": Redis takes them, and cannot load
//     what ACL SAVE then writes. "%~x", which ends Redis, is a syntax error.
//   - DEBUG SLEEP holds up its own client only. LATENCY DOCTOR and GRAPH, MEMORY DOCTOR
//     and LOLWUT have texts of their own.
//   - In INFO commandstats and SLOWLOG a command that was executed with others
//     has an equal share of the time they took together.
//
// # redcon
//
// The package does not use redcon's server and reader (github.com/tidwall/redcon
// v1.6.2), for what an unauthenticated client can do to them. A bulk length of
// 9223372036854775807 overflows and panics in a goroutine nobody can recover. A bulk that arrives in
// very many small pieces recurses once for each until the stack limit ends the
// process. Whole commands are buffered with no limit, in a buffer that doubles
// while a pipeline keeps ending within a command and is kept until the
// connection ends; a value of 512 MB takes 2 GB. Closing the server cuts off commands in flight,
// and a failing accept is retried without pause. A wrapper in front would have
// to parse everything itself to prevent this, so this package's reader does, and
// hands on what it parsed. In the tests it is held against redcon's parser.
package resp
