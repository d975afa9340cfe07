package crdt

import (
	"encoding/binary"
	"errors"
	"math"
)

// ItemPos names an item of a list (an element of KindItem): the path of levels
// that leads to it. Positions sort as their encodings, byte by byte, and in one
// order everywhere: by the ranks, between equal ones by the tags and indexes of
// those who made them, and a position before all those that it begins.
//
// An item at an end of a list takes the next rank there, on one level. An item
// between two others takes a free rank between theirs or, if there is none, one
// on a level below the first. So positions of queues stay short whoever pushes in
// turn, and so do those of items inserted one after or before the other. Only
// inserts between the two newest items, again and again, make them longer: by
// a level for every sixteen.
//
// Compare the identifiers of Weiss, Urso and Molli, "Logoot" (2009).
type ItemPos []ItemLevel

// ItemLevel is one step of a position. Tag and Index make it unique: the write that
// made it, and a number that no other item of that tag has.
type ItemLevel struct {
	Rank  int64
	Tag   Tag
	Index uint32
}

const (
	// maxRank bounds ranks. Lists begin at 0.
	maxRank = 1 << 62
	// rankStride is the distance of ranks below the first level: room for
	// inserts in between.
	rankStride = 1 << 16
	// maxPosition is the longest encoding of a position in bytes, maxLevel that
	// of a level.
	maxPosition = 16 << 10
	maxLevel    = 9 + 8 + 5
)

var (
	errPosition     = errors.New("no position in a list")
	errPositionFull = errors.New("positions between the two items are too long: write the list anew")
)

// AppendBinary appends the encoding of a position: a cell's element.
func (p ItemPos) AppendBinary(b []byte) []byte {
	for _, l := range p {
		b = appendRank(b, l.Rank)
		b = binary.BigEndian.AppendUint64(b, uint64(l.Tag))
		b = appendIndex(b, l.Index)
	}
	return b
}

// ParseItemPos reads a position that AppendBinary wrote.
func ParseItemPos(elem string) (ItemPos, error) {
	if elem == "" || len(elem) > maxPosition {
		return nil, errPosition
	}
	p := make(ItemPos, 0, 1)
	for elem != "" {
		var l ItemLevel
		var ok bool
		if l.Rank, elem, ok = cutRank(elem); !ok || len(elem) < 9 {
			return nil, errPosition
		}
		l.Tag, elem = Tag(binary.BigEndian.Uint64([]byte(elem[:8]))), elem[8:]
		if l.Index, elem, ok = cutIndex(elem); !ok {
			return nil, errPosition
		}
		p = append(p, l)
	}
	return p, nil
}

// ItemPosBetween returns the position of a new item between two that follow
// each other, before and after; "" where there is none. The last level has only
// its rank: whoever uses it adds a tag and an index.
func ItemPosBetween(before, after string) (ItemPos, error) {
	var a, b ItemPos
	var err error
	if before != "" {
		if a, err = ParseItemPos(before); err != nil {
			return nil, err
		}
	}
	if after != "" {
		if b, err = ParseItemPos(after); err != nil || before >= after {
			return nil, errPosition
		}
	}
	p := between(a, b)
	if rank := p[len(p)-1].Rank; len(p)*maxLevel > maxPosition || rank > maxRank || rank < -maxRank {
		return nil, errPositionFull
	}
	return p, nil
}

func between(a, b ItemPos) ItemPos {
	d := 0 // the level at which the two part
	for d < len(a) && d < len(b) && a[d] == b[d] {
		d++
	}
	head := append(ItemPos(nil), a[:d]...)
	switch {
	case len(a)+len(b) == 0:
		return ItemPos{{}}
	case len(a) == 0:
		return ItemPos{{Rank: b[0].Rank - 1}}
	case len(b) == 0 && a[0].Rank < maxRank:
		return ItemPos{{Rank: a[0].Rank + 1}}
	case d == len(a): // b begins with a
		return append(head, ItemLevel{Rank: b[d].Rank - rankStride})
	case len(b) > 0 && b[d].Rank-a[d].Rank > 1:
		return append(head, ItemLevel{Rank: a[d].Rank + (b[d].Rank-a[d].Rank)/2})
	case d+1 == len(a):
		return append(head, a[d], ItemLevel{})
	}
	return append(head, a[d], ItemLevel{Rank: a[d+1].Rank + rankStride})
}

// appendRank appends a number so that encodings sort as numbers: how many bytes
// it takes, above 0x80 if it is not negative and below if it is, and those
// bytes, of a negative one complemented.
func appendRank(b []byte, n int64) []byte {
	var x, flip uint64
	head := byte(0x80)
	width := byte(0)
	if x = uint64(n); n < 0 {
		x, flip, head = ^x, math.MaxUint64, 0x7f
	}
	for y := x; y > 0; y >>= 8 {
		width++
	}
	if n < 0 {
		b = append(b, head-width)
	} else {
		b = append(b, head+width)
	}
	for i := int(width) - 1; i >= 0; i-- {
		b = append(b, byte((x^flip)>>(8*i)))
	}
	return b
}

func cutRank(s string) (n int64, rest string, ok bool) {
	if s == "" {
		return 0, s, false
	}
	negative := s[0] < 0x80
	width, flip := int(s[0])-0x80, byte(0)
	if negative {
		width, flip = 0x7f-int(s[0]), 0xff
	}
	if width > 8 || len(s) < 1+width {
		return 0, s, false
	}
	var x uint64
	for i := 1; i <= width; i++ {
		x = x<<8 | uint64(s[i]^flip)
	}
	if width > 0 && s[1]^flip == 0 || x > maxRank {
		return 0, s, false
	}
	if negative {
		x = ^x
	}
	return int64(x), s[1+width:], true
}

// appendIndex appends an index so that encodings sort as numbers.
func appendIndex(b []byte, n uint32) []byte {
	switch {
	case n < 0xf0:
		return append(b, byte(n))
	case n < 1<<16:
		return append(b, 0xf2, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xf4), n)
}

func cutIndex(s string) (n uint32, rest string, ok bool) {
	switch {
	case s == "":
		return 0, s, false
	case s[0] < 0xf0:
		return uint32(s[0]), s[1:], true
	case s[0] == 0xf2 && len(s) >= 3:
		n = uint32(s[1])<<8 | uint32(s[2])
		return n, s[3:], n >= 0xf0
	case s[0] == 0xf4 && len(s) >= 5:
		n = binary.BigEndian.Uint32([]byte(s[1:5]))
		return n, s[5:], n >= 1<<16
	}
	return 0, s, false
}
