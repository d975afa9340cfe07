// Package socket reads and writes sockets without telling Go's scheduler of a system
// call.
//
// Of a call that it is told of, the scheduler does not know whether it waits. On a
// busy machine, where a thread is stopped in the midst of a call, it takes it for one
// that does: it gives the processor to another thread, which it has to wake, and looks
// after both fifty thousand times a second for a while. A socket that does not block
// waits for nothing, so it need not be told. What the kernel draws out, a few
// microseconds as a rule, holds up the goroutines of one processor.
//
// Files are no business of this package: to write to a disk may take long.
package socket
