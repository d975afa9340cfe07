package resp

import "sync/atomic"

// budget bounds what all clients hold together. Only what is large is counted:
// small buffers are bounded by the number of clients.
type budget struct {
	used  atomic.Int64
	limit atomic.Int64
}

// take takes n bytes, or reports false and takes none.
func (b *budget) take(n int64) bool {
	if n <= 0 {
		return true
	}
	if b.used.Add(n) > b.limit.Load() {
		b.used.Add(-n)
		return false
	}
	return true
}

// give gives back what was taken.
func (b *budget) give(n int64) { b.used.Add(-n) }
