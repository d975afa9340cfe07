package resp

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Buckets of a histogram: each nanosecond apart up to 256, then 128 to each
// doubling, so that a value is told to 1 %, up to a second or so. This is
// what Redis's own histograms tell.
const (
	histExact   = 256
	histHalf    = histExact / 2
	histLongest = 1<<30 - 1 // what takes longer counts as this
	histBuckets = histExact + (30-8)*histHalf
)

// histogram counts durations. It is made when there is one to count.
type histogram struct {
	buckets atomic.Pointer[[histBuckets]atomic.Int64]
}

func bucketOf(ns int64) int {
	ns = min(max(ns, 0), histLongest)
	if ns < histExact {
		return int(ns)
	}
	shift := bits.Len64(uint64(ns)) - 8
	return histExact + (shift-1)*histHalf + int(ns>>shift) - histHalf
}

// bucketEnd returns the longest duration of a bucket, in nanoseconds.
func bucketEnd(i int) int64 {
	if i < histExact {
		return int64(i)
	}
	shift := (i-histExact)/histHalf + 1
	return int64((i-histExact)%histHalf+histHalf+1)<<shift - 1
}

func (h *histogram) add(n int64, took time.Duration) {
	b := h.buckets.Load()
	if b == nil {
		h.buckets.CompareAndSwap(nil, new([histBuckets]atomic.Int64))
		b = h.buckets.Load()
	}
	if b != nil {
		b[bucketOf(int64(took))].Add(n)
	}
}

func (h *histogram) reset() { h.buckets.Store(nil) }

// counts returns a copy of the buckets, nil if nothing was counted, and their
// sum.
func (h *histogram) counts() (list []int64, sum int64) {
	b := h.buckets.Load()
	if b == nil {
		return nil, 0
	}
	list = make([]int64, histBuckets)
	for i := range b {
		list[i] = b[i].Load()
		sum += list[i]
	}
	return list, sum
}

// percentiles returns a line such as "p50=1.003,p99=2.007", in microseconds,
// "" if nothing was counted.
func (h *histogram) percentiles(want []float64) string {
	list, sum := h.counts()
	if sum == 0 {
		return ""
	}
	var out []string
	for _, p := range want {
		rank := max(int64(math.Round(p/100*float64(sum))), 1)
		for i, n := range list {
			if rank -= n; rank <= 0 {
				out = append(out, fmt.Sprintf("p%s=%.3f", formatPercentile(p), float64(bucketEnd(i))/1000))
				break
			}
		}
	}
	return strings.Join(out, ",")
}

func formatPercentile(p float64) string { return strconv.FormatFloat(p, 'g', -1, 64) }

// doublings returns how many took at most so many microseconds, for the powers
// of two from 1,024 ns on at which the number rises.
func (h *histogram) doublings() (steps [][2]int64, sum int64) {
	list, sum := h.counts()
	var below, told int64
	next := 0
	for k := 10; told < sum; k++ {
		last := bucketOf(1 << k)
		for ; next <= last && next < histBuckets; next++ {
			below += list[next]
		}
		if below > told {
			steps = append(steps, [2]int64{bucketEnd(last) / 1000, below})
			told = below
		}
	}
	return steps, sum
}

// percentileList is the parameter latency-tracking-info-percentiles.
type percentileList []float64

func (l percentileList) String() string {
	var words []string
	for _, p := range l {
		words = append(words, formatPercentile(p))
	}
	return strings.Join(words, " ")
}

func parsePercentiles(v string) (percentileList, error) {
	list := percentileList{}
	for _, w := range strings.Fields(v) {
		p, err := strconv.ParseFloat(w, 64)
		switch {
		case err != nil || math.IsNaN(p):
			return nil, errors.New("Invalid latency-tracking-info-percentiles parameters") //nolint:staticcheck // Redis's own text
		case p < 0 || p > 100:
			return nil, errors.New("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]")
		}
		list = append(list, p)
	}
	return list, nil
}

// latencyStats returns INFO latencystats.
func (s *Server) latencyStats() []Field {
	want := *s.settings.percentiles.Load()
	var list []Field
	for _, r := range s.rows {
		if line := r.stat.times.percentiles(want); line != "" {
			list = append(list, Field{"latency_percentiles_usec_" + r.stat.name, line})
		}
	}
	slices.SortFunc(list, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return list
}
