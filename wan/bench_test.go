package wan

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

// plainBatches are encoded ranges of SETs, of 64 KB each: JSON of which some
// digits are not to be foreseen.
func plainBatches(n int) [][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	stream := crdt.NewStream(1, 1, 0)
	tag := crdt.TagAt(epoch.UnixMilli(), 1)
	out := make([][]byte, n)
	for i := range out {
		e := crdt.Entry{Stream: stream, Prev: tag, Tag: tag + 1<<12, Ctx: crdt.Vector{{Stream: stream, Tag: tag}}}
		tag = e.Tag
		for size := 0; size < 64<<10; size += 130 {
			id := crdt.CellID{Key: crdt.Key{Name: fmt.Sprintf("user:%06d", rnd.IntN(1e6))}, Kind: crdt.KindString}
			value := fmt.Appendf(nil, `{"id":%06d,"name":"user %04x","mail":"%06x@example.com","visits":%04d}`, rnd.IntN(1e6), rnd.IntN(1<<16), rnd.IntN(1<<24), rnd.IntN(1e4))
			e.Deltas = append(e.Deltas, crdt.Delta{Level: crdt.LevelCell, ID: id, Remove: &crdt.Remove{Tag: e.Tag, Ctx: e.Ctx}, Put: &crdt.Put{Tag: e.Tag, Value: value}})
		}
		out[i] = appendEntry(nil, &e)
	}
	return out
}

// BenchmarkPack measures the compression of batches that follow each other in a
// lane, at each level, and tells what is left of them. They come again when the
// compressor no longer knows them.
func BenchmarkPack(b *testing.B) {
	plain := plainBatches(3 * zstdWindow / (64 << 10))
	for level := range len(levels) + 1 {
		b.Run(fmt.Sprintf("level=%d", level), func(b *testing.B) {
			p := packer{level: level}
			in, out := 0, 0
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				batch := plain[i%len(plain)]
				packed, err := p.pack(batchEntries, batch)
				if err != nil {
					b.Fatal(err)
				}
				in, out = in+len(batch), out+len(packed)
			}
			b.SetBytes(int64(in / b.N))
			b.ReportMetric(100*float64(out)/float64(in), "%-left")
		})
	}
}

// BenchmarkUnpack measures the other side, at the default level.
func BenchmarkUnpack(b *testing.B) {
	plain := plainBatches(16)
	p := packer{level: 1}
	packed := make([][]byte, len(plain))
	total := 0
	for i := range plain {
		batch, err := p.pack(batchEntries, plain[i])
		if err != nil {
			b.Fatal(err)
		}
		packed[i] = append([]byte{}, batch...)
		total += len(plain[i])
	}
	b.SetBytes(int64(total))
	b.ReportAllocs()
	for b.Loop() { // the batches of a lane make one frame: each time from its beginning
		var u unpacker
		for _, batch := range packed {
			h, err := parseBatchHeader(batch)
			if err == nil {
				_, err = u.unpack(h, batch[batchHeaderSize:])
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		u.close()
	}
}
