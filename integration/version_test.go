package integration

import (
	"bufio"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
	"github.com/replicatord/replicatord/internal/wire"
	"github.com/replicatord/replicatord/wan"
)

// recordings hold what nodes of earlier versions of the protocol have sent as
// diallers, frames behind their lengths: node 1, whose data hasWritten demands, in a
// session with a node that had nothing. Heartbeats were 100 ms apart. They were
// taken from programs built of the last commits that spoke no more than that.
//
//go:embed testdata/dialler-v*.bin
var recordings embed.FS

// Frames of the protocol, and the first version that has them.
const (
	frameHello     = 1
	frameHeartbeat = 8
	framePong      = 9
	framePublish   = 12
	frameLater     = 13 // and what is above it but chunks: from version 3 on
	frameChunk     = 16
	frameAsking    = 20 // and what is above it: from version 4 on
)

// hasWritten demands what the recordings bring: what fill makes of 40 keys, and
// then
//
//	ZADD z 1.5 a 2 b, ZINCRBY z 3 a, ZREM z b, SET gone x, DEL gone, HDEL hash1 1,
//	SREM set1 1, APPEND string1 more, SETBIT bits 9 1, PFADD hll a b,
//	SETEX long 100000000 v, DECRBY count 20, SET last v
func hasWritten(t *testing.T, n *testbed.Node) {
	t.Helper()
	for _, c := range []struct {
		args []any
		want any
	}{
		{[]any{"GET", "string1"}, "1more"}, {[]any{"GET", "count"}, "760"}, {[]any{"HLEN", "hash1"}, int64(5)}, {[]any{"HGET", "hash1", "8"}, "v"},
		{[]any{"SCARD", "set1"}, int64(7)}, {[]any{"SISMEMBER", "set1", "1"}, int64(0)}, {[]any{"ZSCORE", "z", "a"}, "4.5"}, {[]any{"ZCARD", "z"}, int64(1)},
		{[]any{"EXISTS", "gone"}, int64(0)}, {[]any{"GETBIT", "bits", "9"}, int64(1)}, {[]any{"PFCOUNT", "hll"}, int64(2)}, {[]any{"GET", "last"}, "v"},
	} {
		if got := n.Do(c.args...); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v: %v, not %v", c.args, got, c.want)
		}
	}
	if ttl := n.Int("TTL", "long"); ttl <= 0 {
		t.Errorf("TTL of a key that was written with one: %d", ttl)
	}
}

// TestRecordedPeers: a node takes in what nodes of every earlier version of the
// protocol have sent, as they have sent it, and sends nothing that they did not
// know.
func TestRecordedPeers(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	for version := uint32(1); version < wan.MaxVersion; version++ {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			t.Parallel()
			recorded, err := recordings.ReadFile(fmt.Sprintf("testdata/dialler-v%d.bin", version))
			if err != nil {
				t.Fatal(err)
			}
			n := bed.Node(testbed.Options{ID: 2, Args: quick})
			n.Do("SET", "own", "v")
			c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", n.WANPort))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			beats := make(chan uint64, 1000)
			sent := make(chan error, 1)
			go func() { sent <- listen(c, version, beats) }()
			replay(t, c, recorded, beats)
			bed.Wait(30*time.Second, "the last of what was recorded", func() (bool, string) {
				v, err := n.Try("GET", "last")
				return v == "v", fmt.Sprintf("%v %v\n%s", v, err, tail(n.Log()))
			})
			hasWritten(t, n)
			_ = c.Close()
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

// frames splits a recording.
func frames(b []byte) (out [][]byte) {
	for len(b) > 4 {
		n := 4 + int(binary.BigEndian.Uint32(b))
		if n > len(b) {
			break
		}
		out = append(out, b[:n])
		b = b[n:]
	}
	return out
}

// replay sends what was recorded, each answer not before what it is to.
func replay(t *testing.T, c net.Conn, recorded []byte, beats <-chan uint64) {
	t.Helper()
	var heard uint64
	for i, f := range frames(recorded) {
		if f[4] == framePong {
			m, err := wire.DecodePong(f[5 : len(f)-8])
			if err != nil {
				t.Fatal(err)
			}
			for heard < m.Ping {
				select {
				case heard = <-beats:
				case <-time.After(30 * time.Second):
					t.Fatalf("heartbeat %d does not come", m.Ping)
				}
			}
		}
		if _, err := c.Write(f); err != nil {
			t.Fatalf("frame %d of type %d: %v", i, f[4], err)
		}
	}
}

// listen reads what the node sends until the connection ends, and reports what
// a peer of a version could not take.
func listen(c net.Conn, version uint32, beats chan<- uint64) error {
	r := bufio.NewReader(c)
	types := map[byte]int{}
	for {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			break
		}
		f := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(r, f); err != nil {
			break
		}
		payload := f[1 : len(f)-8]
		types[f[0]]++
		switch t := f[0]; {
		case t == 3:
			m, err := wire.DecodeHelloAck(payload)
			if err == nil && m.Version != version {
				err = errors.New("another version")
			}
			if err != nil {
				return fmt.Errorf("HelloAck: %+v, %w", m, err)
			}
		case t == 4:
			m, err := wire.DecodeSessionError(payload)
			return errors.Join(fmt.Errorf("the node ended the session: %+v", m), err)
		case t == frameHeartbeat:
			m, err := wire.DecodeHeartbeat(payload)
			if err != nil {
				return err
			}
			beats <- m.Ping
		case t == framePong && version < 4:
			m, err := wire.DecodePong(payload)
			if err == nil && m.Received+m.Clock > 0 {
				err = errors.New("with what version 4 has")
			}
			if err != nil {
				return fmt.Errorf("Pong: %+v, %w", m, err)
			}
		case t == framePublish && version < 2, t >= frameLater && t < frameChunk && version < 3, t >= frameAsking && version < 4:
			return fmt.Errorf("a frame of type %d, which version %d does not know", t, version)
		}
	}
	if types[frameHello] != 1 || types[frameHeartbeat] == 0 {
		return fmt.Errorf("the node sent %v: this tests nothing", types)
	}
	return nil
}
