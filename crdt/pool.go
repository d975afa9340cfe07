package crdt

// pool hands out values that are all given back together, to be handed out again:
// what one commit group needs is what the next one needs. The zero value is ready.
type pool[T any] struct {
	list []*T // values in use, in the order in which they were taken, then those that are not
	used int
}

// What a pool makes at a time at most, and keeps; and of how many values it also
// keeps what these have grown to, up to so many elements, of the first few more. A
// group of clients' commands changes one key, perhaps a thousand times, or hundreds,
// perhaps a hundred elements of each.
const (
	poolChunk = 64
	poolKept  = 512 * poolChunk
	poolGrown = 256
	grownKept = 256
	firstKept = 4096
	poolFirst = 16
)

// mapKept is how many keys a map has had at most that is emptied to be used again: a
// large one takes long to empty, also when little is in it.
const mapKept = 4096

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
// emptied by empty, unless it is nil, which may keep memory for their next use: for
// so many elements of theirs at most.
func (p *pool[T]) reset(empty func(v *T, most int)) {
	if len(p.list) > poolKept {
		clear(p.list[poolKept:])
		p.list = p.list[:poolKept]
	}
	var zero T
	for i, v := range p.list[:min(p.used, len(p.list))] {
		switch {
		case i >= poolGrown || empty == nil:
			*v = zero
		case i < poolFirst:
			empty(v, firstKept)
		default:
			empty(v, grownKept)
		}
	}
	p.used = 0
}

// emptied returns a slice to be filled anew, nil if it has not grown, or has to more
// than most.
func emptied[E any](s []E, most int) []E {
	if cap(s) <= 1 || cap(s) > most {
		return nil
	}
	clear(s)
	return s[:0]
}
