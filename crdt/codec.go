package crdt

import (
	"encoding/binary"
	"errors"
)

// The binary forms of what the log stores beside its entries and what state
// sync sends: cells, headers and vectors. docs/STORAGE.md describes the bytes.
// Every decoder bounds what it allocates by the length of its input.

// ErrCorrupt reports bytes that no encoder here has written.
var ErrCorrupt = errors.New("corrupt encoding")

const (
	cellHasCounts  = 1
	cellHasPending = 2
	cellManyValues = 63
	cellHidden     = 1 // as the last byte
)

// AppendBinary appends the cell's encoding.
func (c *Cell) AppendBinary(b []byte) []byte {
	n := min(len(c.Values), cellManyValues)
	first := byte(n << 2)
	if len(c.Counts) > 0 {
		first |= cellHasCounts
	}
	if len(c.Pending) > 0 {
		first |= cellHasPending
	}
	b = append(b, first)
	if n == cellManyValues {
		b = binary.AppendUvarint(b, uint64(len(c.Values)))
	}
	for _, v := range c.Values {
		b = v.Dot.appendBinary(b)
		b = binary.AppendUvarint(b, uint64(len(v.Value)))
		b = append(b, v.Value...)
	}
	if len(c.Counts) > 0 {
		b = binary.AppendUvarint(b, uint64(len(c.Counts)))
		for i := range c.Counts {
			k := &c.Counts[i]
			b = binary.BigEndian.AppendUint64(b, uint64(k.Stream))
			b = binary.BigEndian.AppendUint64(b, uint64(k.Epoch))
			b = binary.BigEndian.AppendUint64(b, uint64(k.Tag))
			b = k.Sum.appendBinary(b)
			b = binary.BigEndian.AppendUint64(b, uint64(k.ResetTag))
			if k.ResetTag != 0 {
				b = k.ResetSum.appendBinary(b)
				b = k.ResetBy.appendBinary(b)
			}
		}
	}
	if len(c.Pending) > 0 {
		b = c.Pending.AppendBinary(b)
	}
	if c.Hidden {
		b = append(b, cellHidden)
	}
	return b
}

// Shared returns what of an encoded cell replicas share, for a peer.
func Shared(kind Kind, elem, cell []byte) []byte {
	if kind == KindExpiry && len(elem) > 0 {
		if c, err := DecodeCell(cell); err == nil && c.Hidden {
			return cell[:len(cell)-1]
		}
	}
	return cell
}

// DecodeCell reads a cell that fills the whole of b. The cell shares b's
// memory. Errors wrap ErrCorrupt.
func DecodeCell(b []byte) (*Cell, error) {
	d := NewReader(b)
	c := &Cell{}
	first := d.Byte()
	n := uint64(first >> 2)
	if n == cellManyValues {
		n = d.Uvarint()
	}
	if d.fits(n, 17) && n > 0 {
		c.Values = make([]Sibling, n)
		for i := range c.Values {
			c.Values[i] = Sibling{d.dot(), d.Bytes()}
			if i > 0 && c.Values[i].Dot.Compare(c.Values[i-1].Dot) >= 0 {
				d.bad = true
			}
		}
	}
	if first&cellHasCounts != 0 {
		if n := d.Uvarint(); n == 0 {
			d.bad = true
		} else if d.fits(n, 34) {
			c.Counts = make([]Count, n)
			for i := range c.Counts {
				k := &c.Counts[i]
				k.Stream, k.Epoch, k.Tag, k.Sum, k.ResetTag = Stream(d.Uint64()), Tag(d.Uint64()), Tag(d.Uint64()), d.number(), Tag(d.Uint64())
				if k.ResetTag != 0 {
					k.ResetSum, k.ResetBy = d.number(), d.dot()
				}
				if i > 0 && k.Stream <= c.Counts[i-1].Stream {
					d.bad = true
				}
			}
		}
	}
	if first&cellHasPending != 0 {
		c.Pending = d.vector()
		d.bad = d.bad || len(c.Pending) == 0
	}
	if d.More() {
		c.Hidden = true
		d.bad = d.Byte() != cellHidden || len(c.Values) == 0 || d.bad
	}
	return c, d.End("cell")
}

// AppendBinary appends the header's encoding.
func (h *Header) AppendBinary(b []byte) []byte {
	var mask uint64
	for k, n := range h.Live {
		if n > 0 {
			mask |= 1 << k
		}
	}
	b = binary.AppendUvarint(b, mask)
	for _, n := range h.Live {
		if n > 0 {
			b = binary.AppendUvarint(b, uint64(n))
		}
	}
	b = binary.AppendUvarint(b, uint64(h.Rest))
	swept := byte(0)
	if h.Swept {
		swept = 0x80
	}
	b = append(b, byte(h.Type)|swept)
	b = binary.AppendUvarint(b, uint64(h.Expiry))
	b = binary.BigEndian.AppendUint64(b, h.Digest)
	b = binary.AppendUvarint(b, uint64(len(h.Pending)))
	for _, p := range h.Pending {
		b = append(b, byte(p.Kind))
		b = p.Ctx.AppendBinary(b)
	}
	if h.Hidden > 0 {
		b = binary.AppendUvarint(b, uint64(h.Hidden))
	}
	return b
}

// DecodeHeader reads a header that fills the whole of b. Errors wrap
// ErrCorrupt.
func DecodeHeader(b []byte) (*Header, error) {
	d := NewReader(b)
	h := &Header{}
	mask := d.Uvarint()
	if mask>>numKinds != 0 || mask&(1<<KindAny) != 0 {
		d.bad = true
	}
	for k := range h.Live {
		if mask&(1<<k) != 0 {
			h.Live[k] = d.uint32()
			d.bad = d.bad || h.Live[k] == 0
		}
	}
	h.Rest = d.uint32()
	t := d.Byte()
	h.Swept = t&0x80 != 0
	h.Type = Type(t & 0x7f)
	if h.Type > TypeStream {
		d.bad = true
	}
	if h.Expiry = int64(d.Uvarint()); h.Expiry < 0 {
		d.bad = true
	}
	h.Digest = d.Uint64()
	if n := d.Uvarint(); d.fits(n, 2) && n > 0 {
		h.Pending = make([]KeyPending, n)
		for i := range h.Pending {
			h.Pending[i] = KeyPending{Kind(d.Byte()), d.vector()}
			if k := h.Pending[i].Kind; k >= numKinds || i > 0 && k <= h.Pending[i-1].Kind {
				d.bad = true
			}
		}
	}
	if d.More() {
		h.Hidden = d.uint32()
		d.bad = d.bad || h.Hidden == 0 || h.Hidden > h.Live[KindField]
	}
	return h, d.End("header")
}

// AppendBinary appends the vector's encoding, which tells its own length.
func (v Vector) AppendBinary(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	for _, p := range v {
		b = binary.BigEndian.AppendUint64(b, uint64(p.Stream))
		b = binary.BigEndian.AppendUint64(b, uint64(p.Tag))
	}
	return b
}

// DecodeVector reads a vector that fills the whole of b. Errors wrap
// ErrCorrupt.
func DecodeVector(b []byte) (Vector, error) {
	d := NewReader(b)
	v := d.vector()
	return v, d.End("vector")
}

func (d Dot) appendBinary(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(d.Tag))
	return binary.BigEndian.AppendUint64(b, uint64(d.Stream))
}

// AppendBinary appends the number's encoding, which tells its own length.
func (n Number) AppendBinary(b []byte) []byte { return n.appendBinary(b) }

func (n Number) appendBinary(b []byte) []byte {
	if n.big == nil {
		return binary.AppendVarint(append(b, 0), n.small)
	}
	t := n.big.String()
	b = binary.AppendUvarint(append(b, 1), uint64(len(t)))
	return append(b, t...)
}

// DecodeNumber reads a number that fills the whole of b. Errors wrap
// ErrCorrupt.
func DecodeNumber(b []byte) (Number, error) {
	d := NewReader(b)
	n := d.number()
	return n, d.End("number")
}
