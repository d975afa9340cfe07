// Package script runs Redis's scripts and functions: EVAL's Lua with Redis 7.0's
// API, sandbox and errors. It knows no connection, command table or data: what a
// script calls goes to the Host it is run with, and comes back as a raw RESP reply.
//
// An Engine belongs to one goroutine. Scripts are compiled once and kept by
// their SHA1 until Flush; libraries of functions are loaded and unloaded by the
// caller, who keeps them. Every script runs in one interpreter and every function in
// another, as in Redis: what they can change is only their own, because globals and
// libraries are locked.
//
// # Where it differs from Redis
//
//   - A script may hold MaxMemory bytes; then it fails with "not enough memory".
//     Redis has no limit and ends.
//   - A script that was killed cannot go on by catching the error (nor can it in
//     Redis, where the error returns with every line).
//   - redis.breakpoint and redis.debug do nothing: there is no debugger.
//   - redis.set_repl checks its argument and does nothing: effects are always
//     logged, or nodes would differ.
//   - SCRIPT FLUSH forgets scripts; the interpreter, in which nothing of them is
//     left, stays.
package script
