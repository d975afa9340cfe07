package wan

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress"
	"github.com/klauspost/compress/zstd"
)

// batchKind says what the plain bytes of a batch are.
type batchKind byte

const (
	batchEntries   batchKind = 1
	batchSyncBegin batchKind = 2
	batchSyncKeys  batchKind = 3
	batchSyncRest  batchKind = 4 // from version 3 on
)

const (
	packStored byte = 0
	packZstd   byte = 1

	// zstdWindow bounds the memory of a lane's compressor on either side.
	zstdWindow = 1 << 20
	// Batches below this are not worth a compressed block.
	minCompress = 48
)

// batchHeader goes before the packed bytes of a batch.
type batchHeader struct {
	kind   batchKind
	pack   byte
	plain  uint32
	packed uint32
	sum    uint64 // xxhash64 of the plain bytes
}

const batchHeaderSize = 18

func (h *batchHeader) append(b []byte) []byte {
	b = append(b, byte(h.kind), h.pack)
	b = binary.BigEndian.AppendUint32(b, h.plain)
	b = binary.BigEndian.AppendUint32(b, h.packed)
	return binary.BigEndian.AppendUint64(b, h.sum)
}

// batchCost is the credit that a batch takes: its plain bytes, and what it
// costs the receiver to keep it however small it is.
func batchCost(plain int) int64 { return int64(plain) + 256 }

// cost is the credit that a batch of the kind takes. What answers a SyncCompare
// takes none: the receiver has asked for just that, and applies what holds the
// lane's credit only when it has come.
func (k batchKind) cost(plain int) int64 {
	if k == batchSyncRest {
		return 0
	}
	return batchCost(plain)
}

// parseBatchHeader reads a header and checks what can be checked without
// knowing the lane's credit.
func parseBatchHeader(b []byte) (batchHeader, error) {
	if len(b) < batchHeaderSize {
		return batchHeader{}, fail(CodeProtocol, "batch header of %d bytes", len(b))
	}
	h := batchHeader{batchKind(b[0]), b[1], binary.BigEndian.Uint32(b[2:]), binary.BigEndian.Uint32(b[6:]), binary.BigEndian.Uint64(b[10:])}
	switch {
	case h.kind < batchEntries || h.kind > batchSyncRest:
		return h, fail(CodeProtocol, "batch of unknown kind %d", h.kind)
	case h.plain == 0 || h.packed == 0:
		return h, fail(CodeProtocol, "empty batch")
	case h.pack == packStored && h.packed == h.plain:
	case h.pack == packZstd && uint64(h.packed) <= maxPacked(uint64(h.plain)):
	default:
		return h, fail(CodeProtocol, "batch of %d bytes packed (%d) into %d", h.plain, h.pack, h.packed)
	}
	return h, nil
}

// maxPacked is what n bytes can grow to when they do not compress.
func maxPacked(n uint64) uint64 { return n + n>>8 + 64 }

// packer compresses the batches of one lane: one zstd frame as long as the
// session, flushed after each batch, so that a batch profits from those before
// it.
type packer struct {
	level int // as in Config; 0: batches are stored
	enc   *zstd.Encoder
	out   bytes.Buffer
}

// levels are zstd's of Config.CompressionLevel, from 1.
var levels = [...]zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression}

// pack returns a whole batch: header and packed bytes. The memory is the
// packer's until the next call.
func (p *packer) pack(kind batchKind, plain []byte) ([]byte, error) {
	h := batchHeader{kind: kind, plain: uint32(len(plain)), packed: uint32(len(plain)), sum: xxhash.Sum64(plain)}
	if p.out.Cap() > 4*zstdWindow {
		p.out = bytes.Buffer{} // a huge batch has gone by
	}
	p.out.Reset()
	var room [batchHeaderSize]byte
	p.out.Write(room[:])
	if p.level > 0 && compressible(plain) {
		if err := p.compress(plain); err != nil {
			return nil, err
		}
		h.pack, h.packed = packZstd, uint32(p.out.Len()-batchHeaderSize)
	} else {
		p.out.Write(plain)
	}
	b := p.out.Bytes()
	h.append(b[:0])
	return b, nil
}

// compressible decides before the bytes enter the stream: what has entered it
// must be sent in it. The estimate looks at the beginning, as batches are of a
// piece.
func compressible(plain []byte) bool {
	if len(plain) < minCompress {
		return false
	}
	return len(plain) < 4<<10 || compress.Estimate(plain[:min(len(plain), 64<<10)]) > 0.02
}

func (p *packer) compress(plain []byte) error {
	if p.enc == nil {
		enc, err := zstd.NewWriter(&p.out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstdWindow),
			zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithEncoderLevel(levels[p.level-1]))
		if err != nil {
			return fmt.Errorf("starting zstd: %w", err)
		}
		p.enc = enc
	}
	if _, err := p.enc.Write(plain); err != nil {
		return fmt.Errorf("compressing: %w", err)
	}
	if err := p.enc.Flush(); err != nil {
		return fmt.Errorf("compressing: %w", err)
	}
	return nil
}

// unpacker is the other end of a packer.
type unpacker struct {
	dec *zstd.Decoder
	src feed
}

// feed gives the decoder the packed bytes of one batch after another. It has
// no other methods, so that the decoder does not take the first batch for all.
type feed struct{ b []byte }

func (f *feed) Read(p []byte) (int, error) {
	if len(f.b) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, f.b)
	f.b = f.b[n:]
	return n, nil
}

// unpack returns the plain bytes of a batch in memory of their own. It never
// makes more than the header promised.
func (u *unpacker) unpack(h batchHeader, packed []byte) ([]byte, error) {
	var plain []byte
	switch h.pack {
	case packStored:
		plain = bytes.Clone(packed)
	case packZstd:
		if u.dec == nil {
			dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
			if err != nil {
				return nil, fmt.Errorf("starting zstd: %w", err)
			}
			if err := dec.Reset(&u.src); err != nil {
				return nil, fail(CodeInternal, "starting zstd: %w", err)
			}
			u.dec = dec
		}
		u.src.b = packed
		var buf bytes.Buffer
		buf.Grow(int(min(h.plain, zstdWindow)) + bytes.MinRead)
		n, err := buf.ReadFrom(io.LimitReader(u.dec, int64(h.plain)))
		if err != nil {
			return nil, fail(CodeProtocol, "batch cannot be decompressed: %w", err)
		}
		if n != int64(h.plain) || len(u.src.b) > 0 {
			return nil, fail(CodeProtocol, "batch decompresses to %d of %d bytes with %d left over", n, h.plain, len(u.src.b))
		}
		plain = buf.Bytes()
	}
	u.src.b = nil
	if xxhash.Sum64(plain) != h.sum {
		return nil, fail(CodeProtocol, "checksum of a batch is wrong")
	}
	return plain, nil
}

// close releases the decoder.
func (u *unpacker) close() {
	if u.dec != nil {
		u.dec.Close()
	}
}
