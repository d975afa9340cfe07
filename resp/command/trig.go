package command

import "math"

// sin, cos and asin as C libraries round them: correctly, but for a few
// arguments in thousands. Those of package math are off by a bit more often, and
// a distance that is kept as a score is compared to the last bit. They compute
// with pairs of float64 (Dekker, "A floating-point technique for extending the
// available precision", 1971).

// double is the sum of two float64, the second below the first's last bit.
type double struct{ hi, lo float64 }

// twoSum adds without loss.
func twoSum(a, b float64) double {
	s := a + b
	v := s - a
	return double{s, (a - (s - v)) + (b - v)}
}

// normal brings a sum into its form; |hi| is not less than |lo|.
func normal(hi, lo float64) double {
	s := hi + lo
	return double{s, lo - (s - hi)}
}

func (a double) add(b double) double {
	s := twoSum(a.hi, b.hi)
	return normal(s.hi, s.lo+a.lo+b.lo)
}

func (a double) mul(b double) double {
	p := float64(a.hi * b.hi)
	return normal(p, math.FMA(a.hi, b.hi, -p)+(a.hi*b.lo+a.lo*b.hi))
}

// div divides by an integer.
func (a double) div(n float64) double {
	q := a.hi / n
	return normal(q, (math.FMA(-q, n, a.hi)+a.lo)/n)
}

// sinCos returns the sine and cosine of an angle of up to half a turn, to 1e-30.
func sinCos(x float64) (sin, cos double) {
	const halvings = 3
	y := double{hi: x / (1 << halvings)}
	square := y.mul(y)
	square.hi, square.lo = -square.hi, -square.lo
	sin, cos = y, double{hi: 1}
	s, c := y, cos
	for n := 1.0; n < 30; n += 2 {
		c = c.mul(square).div(n * (n + 1))
		s = s.mul(square).div((n + 1) * (n + 2))
		sin, cos = sin.add(s), cos.add(c)
	}
	for range halvings {
		twice := double{2 * sin.hi, 2 * sin.lo}
		ss := twice.mul(sin)
		sin, cos = twice.mul(cos), double{hi: 1}.add(double{-ss.hi, -ss.lo})
	}
	return sin, cos
}

func sin(x float64) float64 { s, _ := sinCos(x); return s.hi }

func cos(x float64) float64 { _, c := sinCos(x); return c.hi }

// asin takes one step of Newton's from math.Asin.
func asin(x float64) float64 {
	y := math.Asin(x)
	s, c := sinCos(y)
	if c.hi == 0 || math.IsNaN(y) {
		return y
	}
	return y + ((x-s.hi)-s.lo)/c.hi
}
