// Package lua is Lua 5.1 as Redis 7.0 embeds it, for scripts of strangers: it
// has no way out of the program, and every loop, call and allocation is counted,
// so that its host can end a script at any time and bound what it takes.
//
// # Why not another
//
// gopher-lua, the one interpreter of Lua 5.1 in Go, is another Lua in what scripts
// can see: numbers become text with 17 digits where Lua prints 14 (also where ".."
// does it), errors say other words, pairs has another order, tables cannot be
// locked, and neither memory nor the time of library functions is bounded. Scripts'
// replies would differ from Redis's. Here they do not: messages and the names and lines in
// them, the order of pairs and the length of tables with holes (the table is Lua's own
// algorithm, in table.go), numbers as text, locked tables with Redis's error. A test
// runs random programs beside a real Redis.
//
// # How it works
//
// The parser makes a tree in which every local variable knows its slot and
// whether an inner function uses it; compile turns the tree into closures, one for each
// expression and statement, that run on a frame of slots. There is no byte code,
// and so none to load: load and loadstring take text only. Coroutines are Go's
// own (iter.Pull).
//
// An error is a panic with an *Error; Call turns it into a return value. A
// panic with anything else is a bug of this package and is not caught by pcall.
//
// # What is not there
//
// Weak tables and finalisers: memory is Go's. io, os, package, debug and what
// loads files or prints. Binary chunks. getfenv, setfenv and newproxy, which Redis
// took out because they lead out of its sandbox.
package lua
