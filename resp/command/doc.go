// Package command is the command table, and what each command means: which
// reply it gives, and which effects it has on cells. It knows no connection, no
// disk and no clock; all it touches is the Tx it is given.
//
// # From request to reply
//
// Find looks a request up and refuses what cannot be: unknown commands and wrong
// numbers of arguments with Redis's own errors, what the node does not support
// with an error that names it. The row it returns tells who carries it out:
//
//	c, e := command.Find(args)
//	switch {
//	case e != "":                           reply the error
//	case c.ByView(args):                    the view, after all effects so far
//	case c.Flags&command.Write != 0:        c.Run(ctx), in the executor
//	case c.Flags&command.Session != 0:      the front end; COMMAND by Describe
//	case c.Flags&command.Admin != 0:        the node
//	}
//
// ByView comes first: some commands that may write (SORT, BITFIELD, GEORADIUS)
// only read with most arguments. Nothing that writes ever reaches the view by
// itself: tests hold every row against the COMMAND of a real Redis. What the view
// answers may be answered by Local from the cells instead, if these are at hand: in
// scripts, and of one cell (Near) everywhere.
//
// # Writing a command
//
// A row has the command's name, arity, flags and key positions as Redis has
// them; what it does to its keys is in keyspec.go. Run parses the arguments in
// Redis's order, so that of several faults the same one is reported, checks all
// that it can refuse, and only then writes: there is no undo. Arguments belong
// to the connection's buffer, so that what is kept of them is copied. Effects
// are absolute: an expiry is a point in time, a random choice is made once.
//
// What is not a write and has no file of its own is a row in readonly.go; what
// Redis has and the node does not is in refused.go.
//
// # Where replies differ from Redis's
//
//   - INCRBYFLOAT and HINCRBYFLOAT add exactly, in decimals, where Redis rounds
//     to a long double: 1000 + 0.1 is 1000.1. Up to 17 digits after the point
//     are printed, as Redis does.
//   - Of the distances that STOREDIST keeps a few in thousands differ in the
//     last bit, where the C library does not round a sine as it should.
//   - An expiry in the last millisecond that 64 bits can tell is one
//     millisecond earlier: the last one means never.
//   - XADD * makes ids that end with the node's id (stream.go, autoID); "~" trims
//     by number of entries alone.
//   - COMMAND lists in order of name, leaves out the notes of key
//     specifications, and of COMMAND DOCS all but summary, version, group and arguments, which
//     are the view's. The summary of what is refused says why.
package command
