package crdt

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cockroachdb/apd/v3"
)

// Reader reads what was encoded piece by piece, and remembers if anything was
// wrong: from then on it reads nothing. What it returns shares its input's
// memory, and is bounded by its length.
type Reader struct {
	b   []byte
	bad bool
}

// NewReader returns a reader of b.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Fail says that what was read makes no sense.
func (r *Reader) Fail() { r.bad = true }

// OK reports whether nothing was wrong so far.
func (r *Reader) OK() bool { return !r.bad }

// More reports whether nothing was wrong so far and something is left to read.
func (r *Reader) More() bool { return !r.bad && len(r.b) > 0 }

// End returns an error that wraps ErrCorrupt if something was wrong, or is left.
func (r *Reader) End(what string) error {
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("%w of a %s", ErrCorrupt, what)
	}
	return nil
}

// fits reports whether n items of at least size bytes each can follow.
func (r *Reader) fits(n uint64, size int) bool {
	if r.bad || n > uint64(len(r.b)/size) {
		r.bad = true
	}
	return !r.bad
}

func (r *Reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

// Byte reads a byte.
func (r *Reader) Byte() byte {
	if t := r.take(1); t != nil {
		return t[0]
	}
	return 0
}

// Uint64 reads 8 bytes, big endian.
func (r *Reader) Uint64() uint64 {
	if t := r.take(8); t != nil {
		return binary.BigEndian.Uint64(t)
	}
	return 0
}

// Uvarint reads a number of variable length.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *Reader) uint32() uint32 {
	v := r.Uvarint()
	if v > math.MaxUint32 {
		r.bad = true
	}
	return uint32(v)
}

// Bytes reads a uvarint and as many bytes.
func (r *Reader) Bytes() []byte { return r.take(r.Uvarint()) }

// Sized reads bytes as Reader.Bytes does and decodes the whole of them.
func Sized[T any](r *Reader, decode func([]byte) (T, error)) T {
	v, err := decode(r.Bytes())
	r.bad = r.bad || err != nil
	return v
}

func (r *Reader) dot() Dot { return Dot{Tag(r.Uint64()), Stream(r.Uint64())} }

func (r *Reader) number() Number {
	switch r.Byte() {
	case 0:
		v, n := binary.Varint(r.b)
		if n <= 0 {
			r.bad = true
			return Number{}
		}
		r.take(uint64(n))
		return Int(v)
	case 1:
		t := r.Bytes()
		if len(t) == 0 || len(t) > 2*maxDigits {
			r.bad = true
			return Number{}
		}
		n, _, err := apd.NewFromString(string(t))
		if err != nil || n.Form != apd.Finite || n.Exponent > maxDigits || n.Exponent < -maxDigits {
			r.bad = true
			return Number{}
		}
		return fromDecimal(n)
	}
	r.bad = true
	return Number{}
}

func (r *Reader) vector() Vector {
	n := r.Uvarint()
	if !r.fits(n, 16) || n == 0 {
		return nil
	}
	v := make(Vector, n)
	for i := range v {
		v[i] = Position{Stream(r.Uint64()), Tag(r.Uint64())}
	}
	r.bad = r.bad || !v.valid()
	return v
}
