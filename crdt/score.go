package crdt

import (
	"math"
	"strconv"
)

// A score is a float64, as in Redis, and is written as the shortest decimal
// that reads as it, so that decimal increments add up to what people expect:
// 0.1 and 0.2, made at two nodes, are 0.3.

// Score returns the visible score of a cell of KindScored: the float64 nearest
// to its value plus its increments. Increments beside an infinity sleep.
func (c *Cell) Score() float64 { return ParseScore(c.scoreText()) }

// scoreText is Text, exact to the last digit.
func (c *Cell) scoreText() []byte {
	if !c.hasCount() {
		return c.Text()
	}
	n := c.Amount()
	if len(c.Values) > 0 {
		base, err := ParseNumber(c.Values[0].Value)
		if err != nil {
			return c.Values[0].Value
		}
		n = n.Add(base)
	}
	return n.Exact()
}

// ParseScore reads what FormatScore writes, or any decimal; what is too large
// is infinite, and what is no number 0.
func ParseScore(text []byte) float64 {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil && !math.IsInf(f, 0) || math.IsNaN(f) {
		return 0
	}
	return f
}

// FormatScore writes a score as the shortest text that reads as it.
func FormatScore(f float64) []byte { return AppendScore(nil, f) }

// AppendScore appends what FormatScore writes.
func AppendScore(b []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	case f == math.Trunc(f) && math.Abs(f) < 1<<53 && (f != 0 || !math.Signbit(f)):
		return strconv.AppendInt(b, int64(f), 10)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}
