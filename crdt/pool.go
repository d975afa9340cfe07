package crdt

// pool hands out values that are all given back together, to be handed out again:
// what one commit group needs is what the next one needs. The zero value is ready.
type pool[T any] struct {
	list []*T // values in use, in the order in which they were taken, then those that are not
	used int
}

// What a pool makes at a time at most, and keeps; and of how many values it also
// keeps what these have grown to.
const (
	poolChunk = 64
	poolKept  = 64 * poolChunk
	poolGrown = 16
)

// take returns a value that is zero, but for what reset's empty keeps.
func (p *pool[T]) take() *T {
	if p.used == len(p.list) {
		chunk := make([]T, min(max(p.used, 1), poolChunk))
		for i := range chunk {
			p.list = append(p.list, &chunk[i])
		}
	}
	p.used++
	return p.list[p.used-1]
}

// taken returns the values in use, in the order in which they were taken.
func (p *pool[T]) taken() []*T { return p.list[:p.used] }

// reset takes all values back. They are not to be used any more. Some of them are
// emptied by empty, unless it is nil, which may keep memory for their next use.
func (p *pool[T]) reset(empty func(*T)) {
	if len(p.list) > poolKept {
		clear(p.list[poolKept:])
		p.list = p.list[:poolKept]
	}
	var zero T
	for i, v := range p.list[:min(p.used, len(p.list))] {
		if i < poolGrown && empty != nil {
			empty(v)
		} else {
			*v = zero
		}
	}
	p.used = 0
}

// emptied returns a slice to be filled anew, nil if it has not grown, or too much.
func emptied[E any](s []E) []E {
	if cap(s) <= 1 || cap(s) > poolKept {
		return nil
	}
	clear(s)
	return s[:0]
}
