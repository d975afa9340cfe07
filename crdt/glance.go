package crdt

// What a scan must know of a stored cell or header, without decoding all of
// it.

// Plain reports whether there is nothing in an encoded cell but values and
// increments that are live and within v: no pending context, no reset that is
// all that is left of a count. Errors wrap ErrCorrupt.
func Plain(cell []byte, v Vector) (bool, error) {
	d := NewReader(cell)
	first := d.Byte()
	if first&(cellHasCounts|cellHasPending) != 0 {
		c, err := DecodeCell(cell)
		if err != nil || len(c.Pending) > 0 {
			return false, err
		}
		for i := range c.Counts {
			if k := &c.Counts[i]; !k.Live() || k.Tag > v.Get(k.Stream) {
				return false, nil
			}
		}
		for _, x := range c.Values {
			if !v.Covers(x.Dot) {
				return false, nil
			}
		}
		return true, nil
	}
	n := uint64(first >> 2)
	if n == cellManyValues {
		n = d.Uvarint()
	}
	plain := true
	for ; n > 0 && d.OK(); n-- {
		dot := d.dot()
		d.Bytes()
		plain = plain && v.Covers(dot)
	}
	if d.More() && d.Byte() != cellHidden {
		d.Fail()
	}
	return plain, d.End("cell")
}

// HeaderGlance is what a scan needs of a header.
type HeaderGlance struct {
	Digest uint64
	Swept  bool
	// Plain says that the header holds nothing pending, and no cell of the key
	// is without a live value or increment. A live one may hold remnants still.
	Plain bool
	// Lone says that all that is stored of the key is one live string.
	Lone bool
}

// GlanceHeader reads a part of an encoded header. Errors wrap ErrCorrupt.
func GlanceHeader(b []byte) (g HeaderGlance, err error) {
	d := NewReader(b)
	kinds := d.Uvarint()
	cells := uint64(0)
	for mask := kinds; mask != 0 && d.OK(); mask &= mask - 1 {
		cells += d.Uvarint()
	}
	rest := d.Uvarint()
	g.Swept = d.Byte()&0x80 != 0
	d.Uvarint() // expiry
	g.Digest = d.Uint64()
	g.Plain = rest == 0 && d.Uvarint() == 0
	g.Lone = g.Plain && cells == 1 && kinds == 1<<KindString
	if !d.OK() {
		return g, d.End("header")
	}
	return g, nil
}
