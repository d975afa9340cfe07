package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// durable measures writes that wait for the disk beside those that do not, and
// in between what the disk itself can do.
func durable(b *bench, bed *testbed.Bed, s sizes) {
	fmt.Println("`fsync = always`: an answer waits for the disk, and who waits at the same time shares a sync.")
	fmt.Println()
	fmt.Println("| command | connections | everysec | always | ratio | p99 of always (ms) | syncs/s | writes a sync |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	every := bed.Node(testbed.Options{ID: 1, Args: []string{"--fsync", "everysec"}})
	always := bed.Node(testbed.Options{ID: 1, Args: []string{"--fsync", "always"}})
	d := newDisk(b)
	syncs := func() float64 { return number(b, always, "log_syncs") }
	for _, l := range []load{{name: "SET", args: []string{"-t", "set"}}, {name: "INCR", args: []string{"-t", "incr"}}} {
		for _, shape := range []struct{ clients, requests int }{{1, s.requests / 20}, {50, s.requests / 2}, {500, s.requests}} {
			var e, a []result
			var shared []float64
			for range s.rounds {
				d.measure(b, s.load/20)
				e = append(e, measure(b, target{name: "everysec", port: every.Port, pid: every.PID}, l, shape.clients, 1, shape.requests))
				before := syncs()
				a = append(a, measure(b, target{name: "always", port: always.Port, pid: always.PID}, l, shape.clients, 1, shape.requests))
				shared = append(shared, float64(shape.requests)/max(syncs()-before, 1))
			}
			slices.Sort(shared)
			x, y, group := median(e), median(a), shared[len(shared)/2]
			fmt.Printf("| %s | %d | %.0f | %.0f | %.2f | %.2f | %.0f | %.1f |\n", l.name, shape.clients, x.perSecond, y.perSecond, y.perSecond/x.perSecond, y.p99, y.perSecond/group, group)
		}
	}
	fmt.Printf("\nThe disk, between these runs, 4 kB and an fdatasync at a time: %.0f a second at the end of a file, %.0f within a file that has its size.\n\n", d.grown.perSecond(), d.within.perSecond())
	every.Stop()
	always.Stop()
}

// disk measures how often a second 4 kB can be written and synced, one after the
// other: at the end of a file, and within one that is there already, as the log
// is once it has files to use again.
type disk struct {
	end, there    *os.File
	size          int64 // of end
	grown, within rate
}

type rate struct {
	n    int
	took time.Duration
}

func (r *rate) perSecond() float64 { return float64(r.n) / max(r.took.Seconds(), 1e-9) }

const (
	page      = 4096
	thereSize = 1 << 20
)

func newDisk(b *bench) *disk {
	d := &disk{}
	dir := b.TempDir()
	var err error
	if d.end, err = os.Create(filepath.Join(dir, "end")); err == nil {
		d.there, err = os.Create(filepath.Join(dir, "there"))
	}
	if err == nil {
		_, err = d.there.Write(make([]byte, thereSize))
	}
	if err == nil {
		err = d.there.Sync()
	}
	if err != nil {
		b.Fatalf("%v", err)
	}
	b.Cleanup(func() { _ = d.end.Close(); _ = d.there.Close() })
	return d
}

// measure takes twice the length.
func (d *disk) measure(b *bench, length time.Duration) {
	d.grown.add(b, length, d.end, func() int64 { d.size += page; return d.size - page })
	d.within.add(b, length, d.there, func() int64 { return int64(d.within.n*page) % thereSize })
}

func (r *rate) add(b *bench, length time.Duration, f *os.File, next func() int64) {
	data := make([]byte, page)
	begun := time.Now()
	for time.Since(begun) < length {
		data[0]++
		_, err := f.WriteAt(data, next())
		if err == nil {
			err = syncData(f)
		}
		if err != nil {
			b.Fatalf("measuring the disk: %v", err)
		}
		r.n++
	}
	r.took += time.Since(begun)
}
