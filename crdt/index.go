package crdt

// cellIndex finds what there is of a key's cells, by number. One map for each
// kind takes less to look something up in than one of kinds and elements.
type cellIndex [numKinds]map[string]int

func (x *cellIndex) get(id *CellID) (n int, ok bool) {
	n, ok = x[id.Kind][id.Elem]
	return n, ok
}

// set gives a cell a number. size is how many more are about to get one.
func (x *cellIndex) set(id *CellID, n, size int) {
	m := x[id.Kind]
	if m == nil {
		m = make(map[string]int, size)
		x[id.Kind] = m
	}
	m[id.Elem] = n
}

// orNew returns the index, a new one if there is none.
func (x *cellIndex) orNew() *cellIndex {
	if x == nil {
		return &cellIndex{}
	}
	return x
}

// emptied returns the index to be filled anew.
func (x *cellIndex) emptied() *cellIndex {
	if x != nil {
		for _, m := range x {
			clear(m)
		}
	}
	return x
}
