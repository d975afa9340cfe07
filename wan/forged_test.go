package wan

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// forge sends a frame from one end of a link as if the session had made it.
func forge(l *link, t frameType, payload []byte) error {
	return l.sb.Receive(*l.now, l.sa.out.seal(append([]byte{byte(t)}, payload...)))
}

// batch makes the single chunk of a batch.
func batch(kind batchKind, plain []byte) []byte {
	h := batchHeader{kind, packStored, uint32(len(plain)), uint32(len(plain)), xxhash.Sum64(plain)}
	return append(h.append(nil), plain...)
}

// A peer that knows the secret, and breaks the rules, is cut off, and nothing
// of what it sent is applied.
func TestForged(t *testing.T) {
	const lane1 = frameChunk + 1
	of := func(node uint16, lane crdt.Lane) crdt.Stream { return crdt.NewStream(node, 1, lane) }
	entry := func(s crdt.Stream, prev, tag crdt.Tag) []byte {
		return batch(batchEntries, appendEntry(nil, &crdt.Entry{Stream: s, Prev: prev, Tag: tag}))
	}
	header := func(h batchHeader) []byte { return append(h.append(nil), 1, 2, 3) }
	big := make([]byte, 1000)
	for _, c := range []struct {
		name    string
		frame   frameType
		payload []byte
		code    Code
	}{
		{"unknown type", 200, nil, CodeProtocol},
		{"a second Hello", frameHello, (&wire.Hello{Node: 1}).Encode(), CodeProtocol},
		{"not protobuf", frameWant, []byte{0xff}, CodeProtocol},
		{"empty chunk", lane1, nil, CodeProtocol},
		{"half a header", lane1, make([]byte, batchHeaderSize-1), CodeProtocol},
		{"unknown kind", lane1, header(batchHeader{9, packStored, 3, 3, 0}), CodeProtocol},
		{"unknown packing", lane1, header(batchHeader{batchEntries, 7, 3, 3, 0}), CodeProtocol},
		{"empty batch", lane1, header(batchHeader{batchEntries, packStored, 0, 0, 0}), CodeProtocol},
		{"more than the greatest batch", lane1, header(batchHeader{batchEntries, packZstd, 1<<32 - 1, 100, 0}), CodeProtocol},
		{"packed larger than it can be", lane1, header(batchHeader{batchEntries, packZstd, 100, 1000, 0}), CodeProtocol},
		{"chunk beyond the batch", lane1, append(batch(batchEntries, big), 1), CodeProtocol},
		{"wrong checksum", lane1, append(batch(batchEntries, big)[:batchHeaderSize], bytes.Repeat([]byte{1}, 1000)...), CodeProtocol},
		{"not zstd", lane1, header(batchHeader{batchEntries, packZstd, 100, 3, 0}), CodeProtocol},
		{"entry longer than the batch", lane1, batch(batchEntries, binary.BigEndian.AppendUint32(nil, 1<<31)), CodeProtocol},
		{"not an entry", lane1, batch(batchEntries, []byte{0, 0, 0, 1, 0xff}), CodeProtocol},
		{"a gap", lane1, entry(of(1, 1), 5, 6), CodeGap},
		{"another lane's stream", lane1, entry(of(1, 2), 0, 6), CodeProtocol},
		{"tags that fall", lane1, entry(of(1, 1), 6, 6), CodeProtocol},
		{"a write of mine that I did not make", lane1, entry(of(2, 1), 0, 6), CodeRolledBack},
		{"a state nobody asked for", frameChunk + 3, batch(batchSyncBegin, (&wire.SyncBegin{}).Encode()), CodeProtocol},
		{"states outside of a sync", frameChunk + 3, batch(batchSyncKeys, (&wire.SyncKeys{Last: true}).Encode()), CodeProtocol},
		{"a state in another lane", lane1, batch(batchSyncKeys, (&wire.SyncKeys{Last: true}).Encode()), CodeProtocol},
		{"credit that was not used", frameCredit, (&wire.Credit{Bytes: 1}).Encode(), CodeProtocol},
		{"credit in no lane", frameCredit, (&wire.Credit{Lane: 4, Bytes: 1}).Encode(), CodeProtocol},
		{"an origin twice", frameWant, (&wire.Want{Origins: []wire.WantOrigin{{Origin: of(1, 0)}, {Origin: of(1, 0)}}}).Encode(), CodeProtocol},
		{"an origin with a lane", frameWant, (&wire.Want{Origins: []wire.WantOrigin{{Origin: of(1, 1)}}}).Encode(), CodeProtocol},
		{"an old heartbeat", frameHeartbeat, (&wire.Heartbeat{Ping: 0}).Encode(), CodeProtocol},
		{"a heartbeat for another node", frameHeartbeat, (&wire.Heartbeat{Ping: 99, Tag: 1 << 62, Positions: crdt.Vector{{Stream: of(3, 0), Tag: 1}}}).Encode(), CodeProtocol},
		{"an answer to nothing", framePong, (&wire.Pong{Ping: 99}).Encode(), CodeProtocol},
		{"more of me than I have", frameAck, (&wire.Ack{Durable: crdt.Vector{{Stream: of(2, 0), Tag: 9}}}).Encode(), CodeRolledBack},
		{"a long cursor", frameSyncRequest, (&wire.SyncRequest{Cursor: make([]byte, MaxCursor+1)}).Encode(), CodeProtocol},
		{"a frame above the limit", frameAck, make([]byte, MaxFrame), CodeProtocol},
		{"an error with a control character", frameError, (&wire.SessionError{Code: 99, Text: "a\nb"}).Encode(), 99},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, now := pair(t, withSecret)
			l := connect(t, a, b, now)
			l.run()
			if err := forge(l, c.frame, c.payload); CodeOf(err) != c.code || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want code %v", err, c.code)
			}
			if b.applied != 0 || len(b.have) != 0 || b.peers.Live(1) {
				t.Error("it had an effect")
			}
		})
	}
}

// What a peer announces takes no memory before it has sent it.
func TestAnnouncedSizes(t *testing.T) {
	a, b, now := pair(t, func(c *Config) { c.Window, c.MaxBatch = 1<<30, 1<<30 })
	l := connect(t, a, b, now)
	l.run()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	h := batchHeader{batchEntries, packZstd, 1<<30 - 1000, 1 << 29, 0}
	if err := forge(l, frameChunk, append(h.append(nil), 1)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("a header took %d bytes", grown)
	}
}

// Before it has proved itself a peer may send little.
func TestHandshakeBounds(t *testing.T) {
	a, b, now := pair(t, withSecret)
	l := connect(t, a, b, now)
	if err := forge(l, frameHello, make([]byte, MaxHandshakeFrame)); CodeOf(err) != CodeProtocol {
		t.Errorf("a large Hello: %v", err)
	}
	for _, f := range []frameType{frameProof, frameHelloAck, frameWant, frameChunk, frameHeartbeat} {
		l := connect(t, a, b, now)
		if err := forge(l, f, nil); CodeOf(err) != CodeProtocol {
			t.Errorf("type %d before Hello: %v", f, err)
		}
	}
}

func TestPacking(t *testing.T) {
	for level := range len(levels) + 1 {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) { testPacking(t, level) })
	}
}

func testPacking(t *testing.T, level int) {
	p := packer{level: level}
	var u unpacker
	defer u.close()
	for i, plain := range []string{"x", strings.Repeat("abc", 1000), noise(1, 100), noise(2, 200_000), strings.Repeat("abc", 1000), noise(1, 100), strings.Repeat("z", 5_000_000), noise(3, 300_000) + strings.Repeat("y", 300_000), "end"} {
		b, err := p.pack(batchEntries, []byte(plain))
		if err != nil {
			t.Fatal(err)
		}
		h, err := parseBatchHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := u.unpack(h, b[batchHeaderSize:])
		if err != nil || string(got) != plain {
			t.Fatalf("batch %d of %d bytes: %d bytes, %v", i, len(plain), len(got), err)
		}
		if i == 4 && level > 0 && len(b) > 60 {
			t.Errorf("a batch that was there before takes %d bytes", len(b))
		}
	}
}

// The configured level is the one that is used.
func TestCompressionLevel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("north south east west region node stream vector entry delta cell lane log view batch credit")
	var text strings.Builder
	for text.Len() < 300_000 {
		text.WriteString(words[r.IntN(len(words))])
		text.WriteByte(byte('a' + r.IntN(4)))
	}
	size := func(change func(*Config)) uint64 {
		a, b, now := pair(t, change)
		a.set(0, "k", text.String())
		connect(t, a, b, now).run()
		same(t, a, b)
		return a.peers.Stats(*now)[0].BytesPacked
	}
	last := size(func(c *Config) { c.NoCompression = true })
	for level := 1; level <= 4; level++ {
		n := size(func(c *Config) { c.CompressionLevel = level })
		t.Logf("level %d: %d bytes", level, n)
		if n >= last {
			t.Errorf("level %d makes %d bytes, the one below %d", level, n, last)
		}
		last = n
	}
	c := Config{Log: &testNode{}, Applier: &testNode{}, Self: Identity{Node: 1}, CompressionLevel: 5}
	c.EnsureDefaults()
	if err := c.Validate(); err == nil {
		t.Error("level 5 is taken")
	}
}

func FuzzUnpack(f *testing.F) {
	p := packer{level: 2}
	for _, s := range []string{"x", strings.Repeat("abc", 100)} {
		b, _ := p.pack(batchEntries, []byte(s))
		f.Add(bytes.Clone(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseBatchHeader(b)
		if err != nil || h.plain > 1<<20 || int(h.packed) != len(b)-batchHeaderSize {
			return
		}
		var u unpacker
		defer u.close()
		if plain, err := u.unpack(h, b[batchHeaderSize:]); err == nil && len(plain) != int(h.plain) {
			t.Errorf("%d bytes of %d", len(plain), h.plain)
		}
	})
}

// FuzzFrames feeds a session what a peer that knows the secret may send.
func FuzzFrames(f *testing.F) {
	add := func(t frameType, payload []byte) {
		f.Add(append([]byte{byte(t), byte(len(payload) >> 8), byte(len(payload))}, payload...))
	}
	s := crdt.NewStream(1, 1, 0)
	add(frameWant, (&wire.Want{Origins: []wire.WantOrigin{{Origin: crdt.NewStream(2, 1, 0)}}}).Encode())
	add(frameHeartbeat, (&wire.Heartbeat{Ping: 99, Tag: 1 << 62}).Encode())
	add(frameAck, (&wire.Ack{Durable: crdt.Vector{{Stream: s, Tag: 9}}}).Encode())
	add(frameSyncRequest, (&wire.SyncRequest{ID: 1}).Encode())
	add(frameSyncNeeded, (&wire.SyncNeeded{Origins: []crdt.Stream{s}}).Encode())
	add(frameCredit, (&wire.Credit{Bytes: 9}).Encode())
	add(framePong, (&wire.Pong{Ping: 1, Reached: 1}).Encode())
	add(frameChunk, batch(batchEntries, appendEntry(nil, &crdt.Entry{Stream: s, Tag: 6, Deltas: []crdt.Delta{{Level: crdt.LevelCell,
		ID: crdt.CellID{Key: crdt.Key{Name: "k"}, Kind: crdt.KindString}, Put: &crdt.Put{Tag: 6, Value: []byte("v")}}}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y, now := pair(t, nil)
		y.set(0, "k", "v")
		l := connect(t, x, y, now)
		l.run()
		for len(b) >= 3 {
			n := min(int(b[1])<<8|int(b[2]), len(b)-3)
			payload := b[3 : 3+n]
			if frameType(b[0]).channel() > 0 && len(payload) >= batchHeaderSize {
				// Give the content a checksum, or nothing would get in.
				payload = bytes.Clone(payload)
				binary.BigEndian.PutUint64(payload[10:], xxhash.Sum64(payload[batchHeaderSize:]))
			}
			if forge(l, frameType(b[0]), payload) != nil {
				return
			}
			b = b[3+n:]
			for range 100 {
				if f, _ := l.sb.Next(*now); f == nil {
					break
				}
			}
		}
	})
}
