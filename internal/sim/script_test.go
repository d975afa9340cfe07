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

// A node's last increment has reached one member alone, and the others have
// deleted the counter, when the node loses its disk or is forgotten. That member
// brings it later: what was reset is known still.
func TestLastWritesOfAnEndedLife(t *testing.T) {
	for name, end := range map[string]func(w *world, s *site){
		"wiped": func(w *world, s *site) {
			w.crash(s, Wipe)
			s.start()
		},
		"forgotten": func(w *world, s *site) {
			w.forget(s)
			for _, o := range w.sites[1:] {
				w.learn(o, s)
			}
			w.remove(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				script(t, Options{Seed: seed, Nodes: 4, Fsync: oplog.FsyncAlways, MaxSkew: time.Minute, Trouble: time.Second}, func(w *world) {
					cut := func(a, b *site, on bool) {
						w.block(a.id, b.id, on)
						w.block(b.id, a.id, on)
					}
					a, b, c, d := w.sites[0], w.sites[1], w.sites[2], w.sites[3]
					w.write(a, "INCRBY k 1")
					w.converge("written")
					w.runUntil(w.now + 3*time.Second) // all are heard to have it
					for _, s := range []*site{b, c} {
						cut(a, s, true)
						cut(d, s, true)
					}
					w.write(a, "INCRBY k 10")
					w.runUntil(w.now + 10*time.Second) // broken connections are given up
					w.must(d.proc.log.Vector().Equal(a.proc.log.Vector()), "the increment is not there")
					cut(a, d, true)
					w.write(b, "DEL k")
					end(w, a)
					cut(a, b, false)
					cut(a, c, false)
					w.runUntil(w.now + 10*time.Second)
					w.unblock()
					w.converge("healed")
					got := flat(b.redis.do(0, split("GET k")))
					w.must(got == "10", "the counter is %q", got)
					w.write(b, "DEL k")
					w.converge("deleted")
					w.runUntil(w.now + 5*time.Second)
					for _, s := range w.sites {
						if s.proc != nil {
							left := w.oracle.inspect(s.proc).garbage()
							w.must(left == "", "node %d: left is %s", s.id, left)
						}
					}
				})
			}
		})
	}
}
