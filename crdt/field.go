package crdt

// The expiry of a hash field is a cell of KindExpiry beside the key's own, whose
// element is "". It is cleared with its field, but one set elsewhere at the same
// time stays and holds for the field if that is written again. Where its time
// has passed the field is hidden, by each replica for itself (SweepField), as
// whole keys are; the cell says so (Cell.Hidden), and the header counts the
// fields. Digests cover them: nothing about them depends on the moment.

// fieldPrefix is what the element of a field's expiry begins with: a field may
// be named "".
const fieldPrefix = 'f'

// FieldExpiry names the cell that holds when a field of a hash expires.
func FieldExpiry(k Key, field string) CellID {
	return CellID{k, KindExpiry, string(fieldPrefix) + field}
}

// Field returns the field whose expiry the cell holds; false for other cells.
func (id CellID) Field() (string, bool) {
	if id.Kind != KindExpiry || id.Elem == "" {
		return "", false
	}
	return id.Elem[1:], true
}

// FieldExpiries returns how many fields have an expiry, Never included, be they
// there or not.
func (h *Header) FieldExpiries() int {
	n := int(h.Live[KindExpiry])
	if h.Expiry != 0 {
		n--
	}
	return n
}

// Past reports whether a field with this expiry, nil for none, is not to be seen:
// it has expired by now, or is hidden already.
func (c *Cell) Past(now int64) bool {
	if c == nil {
		return false
	}
	at := c.Expiry()
	return c.Hidden || at != 0 && at <= now
}

// SweepField hides a field whose expiry, the cell id, has passed by now, and
// reports whether the field was there to hide.
func (ks *Keyspace) SweepField(id CellID, now int64) bool {
	name, ok := id.Field()
	c := ks.Store.Cell(id)
	if !ok || c == nil || c.Hidden || !c.Past(now) {
		return false
	}
	field := CellID{id.Key, KindField, name}
	there := ks.cell(field).Live()
	h := ks.header(id.Key)
	if there {
		if t := ks.touch(id.Key, h); !t.Whole {
			t.note(id, c)
		}
		h.Hidden++
	}
	c.Hidden = true
	ks.Store.SetCell(id, c)
	if there {
		h.Type = ks.visible(id.Key, h)
	}
	ks.Store.SetHeader(id.Key, h)
	return there
}

// settleField brings the count of hidden fields level after a cell has changed
// from was, the liveness and Hidden that it had.
func (ks *Keyspace) settleField(id CellID, c *Cell, h *Header, wasLive, wasHidden bool, wasAt int64) {
	if name, ok := id.Field(); ok {
		if wasHidden && (len(c.Values) == 0 || c.Expiry() > wasAt) {
			c.Hidden = false // the next sweep hides it anew, if that has passed too
		}
		if wasHidden != c.Hidden && ks.cell(CellID{id.Key, KindField, name}).Live() {
			h.hide(c.Hidden)
		}
		return
	}
	live := c.Live()
	if id.Kind != KindField || live == wasLive || live && h.FieldExpiries() == 0 || !live && h.Hidden == 0 {
		return
	}
	if ks.cell(FieldExpiry(id.Key, id.Elem)).Hidden {
		h.hide(live)
	}
}

// hide counts one more hidden field, or one less.
func (h *Header) hide(more bool) {
	if more {
		h.Hidden++
	} else {
		h.Hidden--
	}
}

// hiddenFields returns the fields of a key whose time has passed by now, or
// that are hidden already.
func hiddenFields(s Store, k Key, h *Header, now int64) map[string]bool {
	var out map[string]bool
	if h == nil || h.FieldExpiries() == 0 {
		return nil
	}
	s.EachCell(k, KindExpiry, func(id CellID, c *Cell) bool {
		if field, ok := id.Field(); ok && c.Past(now) {
			if out == nil {
				out = map[string]bool{}
			}
			out[field] = true
		}
		return true
	})
	return out
}

// FieldExpiry returns when a field expires, in Unix milliseconds; 0 if it does
// not, or is not there.
func (w *Writer) FieldExpiry(k Key, field string) int64 {
	if _, ok := w.Elem(k, KindField, field); !ok {
		return 0
	}
	if c := w.fieldExpiry(k, field); c != nil && c.Expiry() != Never {
		return c.Expiry()
	}
	return 0
}

// EachFieldExpiry calls fn for each field of a key that is there and expires, with
// the time in Unix milliseconds, in order of field.
func (w *Writer) EachFieldExpiry(k Key, fn func(field string, at int64)) {
	if w.Type(k) != TypeHash {
		return
	}
	EachFieldExpiry(w.ks.Store, k, func(field string, c *Cell) bool {
		if at := c.Expiry(); at != Never && !c.Past(w.now) && w.ks.cell(CellID{k, KindField, field}).Live() {
			fn(field, at)
		}
		return true
	})
}

// fieldExpiry returns the cell of a field's expiry, nil if there is none.
func (w *Writer) fieldExpiry(k Key, field string) *Cell {
	if h := w.ks.Store.Header(k); h != nil && h.FieldExpiries() > 0 {
		return w.ks.Store.Cell(FieldExpiry(k, field))
	}
	return nil
}

// SetField sets a field of a hash, as SetElem does. keepTTL leaves the expiry of a
// field that is there.
func (w *Writer) SetField(k Key, field string, value []byte, keepTTL bool) {
	w.enterKey(k)
	w.prepare(k, KindField)
	if !keepTTL || w.fieldExpiry(k, field).Past(w.now) || !w.ks.cell(CellID{k, KindField, field}).Live() {
		w.removeFieldExpiry(k, field)
	}
	w.put(CellID{k, KindField, field}, value)
}

// SetFieldExpiry sets when a field that is there expires, in Unix milliseconds;
// Never makes it lasting against any expiry set elsewhere at the same time. A
// time that has passed removes the field.
func (w *Writer) SetFieldExpiry(k Key, field string, at int64) {
	if _, ok := w.Elem(k, KindField, field); !ok {
		return
	}
	if at <= w.now {
		w.RemoveElem(k, KindField, field)
		return
	}
	w.enterKey(k)
	w.prepareType(k, TypeHash)
	w.put(FieldExpiry(k, field), encodeExpiry(at))
}

// PurgeField removes a field that has expired and was hidden, and its expiry,
// the cell id; see Purge.
func (w *Writer) PurgeField(id CellID) {
	name, ok := id.Field()
	if c := w.ks.Store.Cell(id); !ok || c == nil || !c.Hidden {
		return
	}
	w.enterKey(id.Key)
	w.removeCell(CellID{id.Key, KindField, name})
	w.removeCell(id)
	h := w.ks.Store.Header(id.Key)
	if h != nil && h.Type == TypeNone && h.Expiry != 0 && h.Live == [numKinds]uint32{KindExpiry: 1} {
		w.clear(id.Key)
	}
}

// removeFieldExpiry removes the expiry of a field, if it has one.
func (w *Writer) removeFieldExpiry(k Key, field string) {
	if h := w.ks.Store.Header(k); h != nil && h.FieldExpiries() > 0 {
		w.removeCell(FieldExpiry(k, field))
	}
}

// removeFieldExpiries removes those of all fields of a key.
func (w *Writer) removeFieldExpiries(k Key) {
	if h := w.ks.Store.Header(k); h == nil || h.FieldExpiries() == 0 {
		return // without the closure below, which each write would pay for
	}
	var fields []string
	EachFieldExpiry(w.ks.Store, k, func(field string, _ *Cell) bool {
		fields = append(fields, field)
		return true
	})
	for _, field := range fields {
		w.removeCell(FieldExpiry(k, field))
	}
}

// EachFieldExpiry calls fn for the fields of a key that have an expiry, with its
// time, Never included, in order of field until it returns false: those that are
// there or hidden, and those that are not there.
func EachFieldExpiry(s Store, k Key, fn func(field string, c *Cell) bool) {
	if h := s.Header(k); h == nil || h.FieldExpiries() == 0 {
		return
	}
	s.EachCell(k, KindExpiry, func(id CellID, c *Cell) bool {
		field, ok := id.Field()
		return !ok || !c.Live() || fn(field, c)
	})
}
