package sim

import (
	"testing"
	"time"

	"github.com/replicatord/replicatord/oplog"
)

// script runs a cluster without faults and clients but those of fn. Oracles
// watch it as they do any run.
func script(t *testing.T, o Options, fn func(*world)) {
	t.Helper()
	w := newWorld(o)
	defer func() {
		p := recover()
		for _, s := range w.sites {
			s.discard()
		}
		if v, ok := p.(violation); ok {
			t.Errorf("%v: %v", o, v.err)
		} else if p != nil {
			panic(p)
		}
	}()
	w.converge("start")
	fn(w)
	w.converge("end")
	w.oracle.final()
}

// write runs commands at a node, and the events of the next few milliseconds.
func (w *world) write(s *site, lines ...string) {
	for _, l := range lines {
		s.proc.enqueue(work{cmds: []call{{args: split(l)}}})
		w.runUntil(w.now + 5*time.Millisecond)
	}
}

// A key that has expired is purged, and written anew at the very node and
// moment: what is new must not be taken for old where the old is not gone yet.
func TestPurgedKeyWrittenAnew(t *testing.T) {
	for seed := range uint64(10) {
		script(t, Options{Seed: seed, Nodes: 3, Fsync: oplog.FsyncAlways, MaxSkew: time.Minute}, func(w *world) {
			w.write(w.sites[seed%3], "SADD k old", "PEXPIRE k 1000")
			w.converge("written")
			var by *site
			for from := w.now; by == nil; w.step() {
				for _, s := range w.sites {
					if s.proc.core.Stats.Purged > 0 {
						by = s
						break
					}
				}
				w.must(w.now-from < 3*time.Minute, "the key was never purged")
			}
			w.write(by, "SADD k new")
			w.converge("written anew")
			w.runUntil(w.now + 5*time.Second)
			for _, s := range w.sites {
				got := flat(s.redis.do(0, split("SMEMBERS k")))
				w.must(got == "new", "node %d: the key holds %q", s.id, got)
			}
		})
	}
}

// A machine loses power with writes that were answered but not synced, and comes
// back with its clock an hour behind: their tags are not used again.
func TestTagsAfterPowerLossWithClockBehind(t *testing.T) {
	for seed := range uint64(10) {
		script(t, Options{Seed: seed, Nodes: 2, Fsync: oplog.FsyncEverySec, MaxSkew: 3 * time.Hour}, func(w *world) {
			s := w.sites[0]
			lost := 0
			for range 20 {
				w.write(s, "SET k a", "SET k b")
				if !s.proc.log.Durable().Equal(s.proc.log.Vector()) {
					lost++
				}
				w.crash(s, PowerLoss)
				s.offset -= 10 * time.Minute
				s.start()
				for !s.proc.level {
					w.step()
				}
			}
			w.must(lost > 0, "nothing was lost in any of the crashes")
		})
	}
}
