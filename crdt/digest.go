package crdt

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// Digest returns the hash of what is live in a cell, 0 if nothing is. Digests
// are added up over cells, so that they can be kept level change by change.
// What is not live (pending contexts, remnants of resets) is left out: it goes
// at different times at different replicas.
func (c *Cell) Digest(id CellID) uint64 {
	if !c.Live() {
		return 0
	}
	var h xxhash.Digest
	h.Reset()
	buf := make([]byte, 0, 128)
	buf = append(buf, id.Key.DB, byte(id.Kind))
	buf = binary.AppendUvarint(buf, uint64(len(id.Key.Name)))
	buf = append(buf, id.Key.Name...)
	buf = binary.AppendUvarint(buf, uint64(len(id.Elem)))
	buf = append(buf, id.Elem...)
	buf = binary.AppendUvarint(buf, uint64(len(c.Values)))
	for _, v := range c.Values {
		buf = binary.BigEndian.AppendUint64(buf, uint64(v.Dot.Tag))
		buf = binary.BigEndian.AppendUint64(buf, uint64(v.Dot.Stream))
		buf = binary.AppendUvarint(buf, uint64(len(v.Value)))
		_, _ = h.Write(buf)
		_, _ = h.Write(v.Value)
		buf = buf[:0]
	}
	for i := range c.Counts {
		k := &c.Counts[i]
		if !k.Live() {
			continue
		}
		buf = append(buf, 'n')
		buf = binary.BigEndian.AppendUint64(buf, uint64(k.Stream))
		buf = binary.BigEndian.AppendUint64(buf, uint64(k.Epoch))
		buf = binary.BigEndian.AppendUint64(buf, uint64(k.Tag))
		buf = k.Amount().appendBinary(buf)
	}
	_, _ = h.Write(buf)
	return h.Sum64()
}
