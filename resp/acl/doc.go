// Package acl is who may do what: users, their passwords, and rules about
// commands, keys and channels, as Redis 7.0 has them, word for word. It is
// pure: it reads no clock, no file and no connection.
//
// Users holds the users of a node. A User keeps its identity while its Rules
// are replaced whole by every change, so that a session asks its user and
// needs no lock:
//
//	denied, arg := user.Rules().Check(cmd, args)
//
// Rules are a password list and selectors. The first selector, the root, is
// what is said outside parentheses; a command is allowed if any selector
// allows it, its keys and its channels, all by itself.
//
// A selector knows commands by their place in the command table, refused ones
// included, so that rules written for Redis can be taken over. Its text form
// (Describe) is found as Redis finds it: from +@all or -@all by the category
// that fits best, again and again, then by single commands. Where Redis goes by
// the order of a hash table, this goes by name.
package acl
