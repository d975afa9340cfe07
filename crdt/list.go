package crdt

// PushItems adds items at an end of a list, one after the other: at the front
// the last of them comes to be the first. If the key does not exist, it becomes
// a list; the caller has made sure that it is no other type. The error, only
// for a list whose positions are worn out, is before any write.
func (w *Writer) PushItems(k Key, front bool, values [][]byte) error {
	w.enterKey(k)
	var last string // the item at that end
	w.EachElemFrom(k, KindItem, "", !front, func(elem string, _ []byte) bool {
		last = elem
		return false
	})
	before, after := last, ""
	if front {
		before, after = "", last
	}
	p, err := ItemPosBetween(before, after)
	if err != nil {
		return err
	}
	w.prepare(k, KindItem)
	n := len(values)
	for i, v := range values {
		if front {
			i = n - 1 - i
		}
		w.putItem(k, p, w.items+uint32(i), v)
	}
	w.items += uint32(n)
	return nil
}

// InsertItem puts an item between two that follow each other in a list. The
// error is as with PushItems.
func (w *Writer) InsertItem(k Key, before, after string, value []byte) error {
	w.enterKey(k)
	p, err := ItemPosBetween(before, after)
	if err != nil {
		return err
	}
	w.prepare(k, KindItem)
	w.putItem(k, p, w.items, value)
	w.items++
	return nil
}

// putItem puts a new item. There is nothing in its cell that a remove could
// have seen.
func (w *Writer) putItem(k Key, p ItemPos, index uint32, value []byte) {
	l := &p[len(p)-1]
	l.Tag, l.Index = w.tag, index
	w.elem = p.AppendBinary(w.elem[:0])
	parts := w.parts.take()
	parts.put = Put{Tag: w.tag, Value: value}
	id := CellID{k, KindItem, string(w.elem)}
	if w.newest {
		w.ks.Store.Fresh(id)
	}
	w.do(Delta{Level: LevelCell, ID: id, Put: &parts.put})
}
