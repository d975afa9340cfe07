package oplog

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// BenchmarkCommit measures commit groups of SETs under everysec, over few keys,
// which stay decoded in memory, and many, which do not. cpu-ns is the
// processor's time for one SET, flushes and compactions included.
func BenchmarkCommit(b *testing.B) {
	for _, keys := range []int{10_000, 1_000_000} {
		for _, n := range []int{1, 16, 100} {
			b.Run(fmt.Sprintf("keys=%d/sets=%d", keys, n), func(b *testing.B) {
				r := openReplica(b, Options{Dir: b.TempDir(), Node: 7, MinFree: -1})
				defer r.close()
				i := 0
				value := []byte("a value of thirty-two bytes more")
				b.ReportAllocs()
				start := cpuTime(b)
				for b.Loop() {
					r.must(func(w *crdt.Writer) {
						for range n {
							i++
							w.SetString(crdt.Key{Name: fmt.Sprintf("key:%08d", i*7919%keys)}, value, false)
						}
					})
				}
				b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N*n), "cpu-ns/set")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/set")
			})
		}
	}
}

// cpuTime returns the processor time of the process in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkBytesPerKey tells what a key of 12 bytes with a value of 32 costs on
// disk: cells with headers, and the log.
func BenchmarkBytesPerKey(b *testing.B) {
	keys := 200_000
	if testing.Short() {
		keys = 2_000 // that it runs is all that is asked
	}
	for b.Loop() {
		r := openReplica(b, Options{Dir: b.TempDir(), FS: vfs.Default, Node: 7, MinFree: -1, RetentionBytes: 1 << 40})
		for i := 0; i < keys; {
			r.must(func(w *crdt.Writer) {
				for range 100 {
					w.SetString(crdt.Key{Name: fmt.Sprintf("key:%08d", i)}, []byte(fmt.Sprintf("a value of thirty-two %010d", i)), false)
					i++
				}
			})
		}
		if err := r.log.db.Flush(); err != nil {
			b.Fatal(err)
		}
		if err := r.log.db.Compact(b.Context(), []byte{0}, []byte{255}, true); err != nil {
			b.Fatal(err)
		}
		cells, err := r.log.db.EstimateDiskUsage([]byte{rangeCells}, []byte{rangeCells + 1})
		if err != nil {
			b.Fatal(err)
		}
		log, err := r.log.db.EstimateDiskUsage([]byte{rangeLog}, []byte{rangeLog + 1})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(cells)/float64(keys), "cell-B/key")
		b.ReportMetric(float64(log)/float64(keys), "log-B/key")
		r.close()
	}
}
