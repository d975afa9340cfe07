package crdt

import (
	"errors"
	"fmt"
	"time"

	"github.com/sony/sonyflake/v2"
)

// Tag is a 64-bit sonyflake id used as a hybrid logical clock reading: 41 bits
// of milliseconds since TagEpoch, 10 bits of sequence, 12 bits of node id.
// Tags order writes: a write that has seen another has the greater tag. Zero
// is no tag and less than every tag.
type Tag uint64

const (
	nodeBits = 12
	seqBits  = 10

	// maxTag is the greatest tag: ids have 63 bits.
	maxTag Tag = 1<<63 - 1

	// MaxNode is the greatest node id. Node ids start at 1.
	MaxNode = 1<<nodeBits - 1
)

// TagEpoch is the instant at which tags begin, sonyflake's own default.
var TagEpoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

var epochMillis = TagEpoch.UnixMilli()

// Millis returns the tag's time in Unix milliseconds.
func (t Tag) Millis() int64 { return int64(t>>(nodeBits+seqBits)) + epochMillis }

// Time returns the tag's time.
func (t Tag) Time() time.Time { return time.UnixMilli(t.Millis()).UTC() }

// Node returns the id of the node that made the tag.
func (t Tag) Node() uint16 { return uint16(t & MaxNode) }

// Sequence returns the tag's number within its millisecond.
func (t Tag) Sequence() int { return int(t>>nodeBits) & (1<<seqBits - 1) }

// String formats the tag as time, sequence and node, for people.
func (t Tag) String() string {
	if t == 0 {
		return "0"
	}
	return fmt.Sprintf("%s/%d@%d", t.Time().Format("2006-01-02T15:04:05.000Z"), t.Sequence(), t.Node())
}

// TagAt returns the first tag of a node at a Unix millisecond; times before
// TagEpoch give the node's first tag of all, times beyond the last tag's its
// first in that millisecond.
func TagAt(millis int64, node uint16) Tag {
	since := min(max(millis, epochMillis)-epochMillis, int64(maxTag>>(nodeBits+seqBits)))
	return Tag(since)<<(nodeBits+seqBits) | Tag(node)
}

// Clock makes the tags of one node. It never sleeps, never repeats a tag and
// never goes back, whatever the wall clock does: the next tag is the greater
// of sonyflake's id for the moment and the successor of the greatest tag seen
// from any node. Not safe for concurrent use; the executor owns it.
type Clock struct {
	flake *sonyflake.Sonyflake
	node  uint16
	last  Tag
	skew  time.Duration
}

// ErrSkew reports a tag from a peer that lies further ahead of this node's
// clock than the configured bound. Nothing was merged.
var ErrSkew = errors.New("tag is too far ahead of this node's clock")

// NewClock returns the clock of a node. Tags start after floor: the persisted
// bound of earlier runs. A tag of a peer more than maxSkew ahead of the wall
// clock is refused by Witness; zero means no bound. It fails if the node id is
// out of range or the machine's clock stands before TagEpoch.
func NewClock(node uint16, floor Tag, maxSkew time.Duration) (*Clock, error) {
	if node == 0 || node > MaxNode {
		return nil, fmt.Errorf("node id %d is not in 1..%d", node, MaxNode)
	}
	flake, err := sonyflake.New(sonyflake.Settings{
		BitsSequence: seqBits, BitsMachineID: nodeBits,
		TimeUnit: time.Millisecond, StartTime: TagEpoch,
		MachineID: func() (int, error) { return int(node), nil },
	})
	if err != nil {
		return nil, fmt.Errorf("this machine's clock stands before %s: %w", TagEpoch.Format(time.DateOnly), err)
	}
	return &Clock{flake: flake, node: node, last: floor, skew: maxSkew}, nil
}

// Next returns the tag for a commit made at the wall-clock time now.
func (c *Clock) Next(now time.Time) Tag {
	c.last = c.Peek(now)
	return c.last
}

// Peek returns what Next would return, without taking it.
func (c *Clock) Peek(now time.Time) Tag {
	// Compose fails only for a clock before the epoch or far beyond 2090; the
	// successor then carries on alone.
	id, err := c.flake.Compose(now, 0, int(c.node))
	if t := Tag(id); err == nil && t > c.last {
		return t
	}
	return c.successor(c.last)
}

// Now returns the hybrid time in Unix milliseconds: the wall clock, or the
// greatest tag seen if that is later. Expiry is judged by it.
func (c *Clock) Now(now time.Time) int64 { return max(now.UnixMilli(), c.last.Millis()) }

// Last returns the greatest tag made or seen.
func (c *Clock) Last() Tag { return c.last }

// Witness takes note of a tag made elsewhere, so that every later tag of this
// node is greater. It returns ErrSkew for one beyond the skew bound, and for
// one that no clock can make.
func (c *Clock) Witness(t Tag, now time.Time) error {
	if t > maxTag {
		return fmt.Errorf("%w: %#x is no tag", ErrSkew, uint64(t))
	}
	if ahead := time.Duration(t.Millis()-now.UnixMilli()) * time.Millisecond; c.skew > 0 && t > c.last && ahead > c.skew {
		return fmt.Errorf("%w: %v ahead, max_clock_skew is %v", ErrSkew, ahead, c.skew)
	}
	c.last = max(c.last, t)
	return nil
}

// successor returns this node's smallest tag greater than t.
func (c *Clock) successor(t Tag) Tag {
	if next := t&^MaxNode | Tag(c.node); next > t {
		return next
	}
	return t.next()&^MaxNode | Tag(c.node)
}

// next returns the tag of the same node with the next sequence number, in the
// next millisecond if the sequence runs over.
func (t Tag) next() Tag { return t + 1<<nodeBits }
