package wan

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/replicatord/replicatord/crdt"
)

// cryptoRand is the default source of nonces.
var cryptoRand io.Reader = rand.Reader

// frameType is the first byte of a frame. The numbers are part of the
// protocol.
type frameType byte

const (
	frameHello       frameType = 1
	frameProof       frameType = 2
	frameHelloAck    frameType = 3
	frameError       frameType = 4
	frameWant        frameType = 5
	frameCredit      frameType = 6
	frameAck         frameType = 7
	frameHeartbeat   frameType = 8
	framePong        frameType = 9
	frameSyncNeeded  frameType = 10
	frameSyncRequest frameType = 11
	framePublish     frameType = 12 // from version 2 on
	frameSyncCompare frameType = 13 // from version 3 on
	frameVerify      frameType = 14 // from version 3 on
	frameChunk       frameType = 16 // plus the lane
	frameAsking      frameType = 20 // plus the lane: a chunk that asks for a Pong; from version 4 on
)

const (
	checkSize = 8
	// Channel is 0 for control frames and 1 + lane for chunks.
	channels = 1 + crdt.Lanes
)

// channel returns what orders a frame: all frames of a channel arrive in the
// order in which they were sent.
func (t frameType) channel() int {
	if t >= frameChunk && t < frameAsking+crdt.Lanes {
		return 1 + int(t-frameChunk)%crdt.Lanes
	}
	return 0
}

// asks reports whether a frame is to be answered with a Pong.
func (t frameType) asks() bool {
	return t == frameHeartbeat || t >= frameAsking && t < frameAsking+crdt.Lanes
}

// checker makes or verifies the checks of the frames of one direction. The
// check covers the frame's number within its channel, so a frame that was
// lost, repeated or moved is found out like one that was changed.
type checker struct {
	mac hash.Hash // nil until the direction has a key
	seq [channels]uint64
	buf [sha256.Size]byte
}

// setKey makes the checks of all later frames depend on a key.
func (c *checker) setKey(key []byte) { c.mac = hmac.New(sha256.New, key) }

func (c *checker) next(body []byte) [checkSize]byte {
	var out [checkSize]byte
	ch := frameType(body[0]).channel()
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], c.seq[ch])
	c.seq[ch]++
	if c.mac != nil {
		c.mac.Reset()
		_, _ = c.mac.Write(seq[:])
		_, _ = c.mac.Write(body)
		copy(out[:], c.mac.Sum(c.buf[:0]))
		return out
	}
	var h xxhash.Digest
	h.Reset()
	_, _ = h.Write(seq[:])
	_, _ = h.Write(body)
	binary.BigEndian.PutUint64(out[:], h.Sum64())
	return out
}

// seal appends the check to a frame's type and payload.
func (c *checker) seal(body []byte) []byte {
	sum := c.next(body)
	return append(body, sum[:]...)
}

// open verifies a frame and returns its parts.
func (c *checker) open(frame []byte) (frameType, []byte, error) {
	if len(frame) < 1+checkSize {
		return 0, nil, fail(CodeProtocol, "frame of %d bytes is too short", len(frame))
	}
	body, sum := frame[:len(frame)-checkSize], frame[len(frame)-checkSize:]
	if want := c.next(body); subtle.ConstantTimeCompare(want[:], sum) != 1 {
		return 0, nil, fail(CodeProtocol, "check of a frame is wrong: it was damaged, forged or lost on the way")
	}
	return frameType(body[0]), body[1:], nil
}

// The labels keep the four uses of the secret apart.
const (
	labelTranscript = "replicatord wan 1 transcript"
	labelProof      = " proof"
	labelKey        = " key"
)

func role(dialler bool) string {
	if dialler {
		return "dialler"
	}
	return "acceptor"
}

// transcript hashes what both sides have said in the clear, and the identity
// of the channel it was said over (the TLS exporter; empty without TLS).
func transcript(dialler, acceptor, binding []byte) []byte {
	h := sha256.New()
	_, _ = io.WriteString(h, labelTranscript)
	for _, part := range [][]byte{dialler, acceptor, binding} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		_, _ = h.Write(n[:])
		_, _ = h.Write(part)
	}
	return h.Sum(nil)
}

func derive(secret []byte, label string, transcript []byte) []byte {
	h := hmac.New(sha256.New, secret)
	_, _ = io.WriteString(h, label)
	_, _ = h.Write(transcript)
	return h.Sum(nil)
}
