package crdt

// MaxTag is maxTag, for tests.
const MaxTag = maxTag

// Exact returns a number's text without the rounding of Append.
func Exact(n Number) string { return n.decimal().String() }
