package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// trouble makes a fault now and then.
func (w *world) trouble() {
	var kinds []Fault
	for f := Fault(1); f < endOfFaults; f <<= 1 {
		if w.opts.Faults&f&^(Corrupt|ClockDrift|Lapse) != 0 {
			kinds = append(kinds, f)
		}
	}
	// Old copies to come back from.
	w.after(w.mean(w.opts.Trouble), w.backups)
	if len(kinds) == 0 {
		return
	}
	var next func()
	next = func() {
		if w.wild {
			w.fault(kinds[w.rand.IntN(len(kinds))])
			w.after(w.mean(w.opts.Trouble), next)
		}
	}
	w.after(time.Second+w.mean(w.opts.Trouble), next)
}

// backups copies a node's disk, and lets a Redis save what it holds.
func (w *world) backups() {
	if !w.wild {
		return
	}
	if s := w.sites[w.rand.IntN(len(w.sites))]; s.proc != nil && w.opts.Faults&(Restore|Rollback) != 0 && !s.proc.inParts() {
		w.say("node %d is backed up", s.id)
		s.proc.sync()
		s.backup = s.fs.CrashClone(vfs.CrashCloneCfg{})
	}
	s := w.sites[w.rand.IntN(len(w.sites))]
	s.saved, s.mark = s.redis.save()
	w.after(w.mean(w.opts.Trouble), w.backups)
}

// fault makes one fault of a kind, and sees to its end.
func (w *world) fault(f Fault) {
	s := w.sites[w.rand.IntN(len(w.sites))]
	o := w.sites[w.rand.IntN(len(w.sites))]
	lasts := w.mean(2 * w.opts.Trouble)
	if s.gone || o.gone {
		return
	}
	w.say("fault: %v at node %d (%d), for %v", f, s.id, o.id, lasts)
	w.oracle.counts["fault "+f.String()]++
	switch f {
	case Partition:
		side := w.rand.IntN(1 << len(w.sites))
		for i, a := range w.sites {
			for j, b := range w.sites {
				if side>>i&1 != side>>j&1 {
					w.block(a.id, b.id, true)
				}
			}
		}
		w.after(lasts, w.unblock)
	case OneWay:
		w.block(s.id, o.id, true)
		w.after(lasts, func() { w.block(s.id, o.id, false) })
	case Cut:
		if len(w.conns) > 0 {
			w.conns[w.rand.IntN(len(w.conns))].cut()
		}
	case Slow:
		l := w.link(s.id, o.id)
		old := *l
		l.delay, l.jitter, l.gap = w.between(0, 300*time.Millisecond), w.between(0, 200*time.Millisecond), w.between(0, 20*time.Millisecond)
		w.after(lasts, func() { l.delay, l.jitter, l.gap = old.delay, old.jitter, old.gap })
	case Kill, PowerLoss, Wipe, Restore, Rollback:
		if s.proc != nil {
			w.crash(s, f)
			if w.opts.Faults&ClockStep != 0 && w.chance(30) {
				// Back only: what the view let expire in the meantime, a node
				// that comes back to an earlier time does not know of. Nor does one
				// know what it has hidden itself, if its disk has forgotten it too: such
				// a view is wrong until it is scrubbed.
				if back := w.between(0, time.Hour); f != Rollback {
					s.offset -= back
				}
			}
			w.after(lasts, s.start)
		}
	case ClockStep:
		if s.proc != nil && s.proc.level {
			// What the view let expire just now, a node that looks only after
			// its clock went back does not know of.
			s.proc.sweep()
			s.offset += w.between(-time.Hour, time.Hour)
			if w.chance(50) {
				s.offset = w.between(-10*time.Second, 10*time.Second)
			}
		}
	case ViewLost, ViewEmpty, ViewStale:
		w.viewFault(s, f)
	case Pause:
		w.pause(s, true)
		w.after(lasts, func() { w.pause(s, false) })
	case Forget:
		w.forget(s)
	}
}

// delicate reports whether no disk may be lost just now. Either a node has
// merged a part of others' state, or is about to: writes of which that part is all that is left
// could never be completed, nor undone. Or one was rolled back without a trace,
// and has not met those yet that know better.
func (w *world) delicate() bool {
	for _, s := range w.sites {
		if s.gone {
			continue
		}
		if s.proc != nil {
			s.midSync = s.proc.inParts()
		}
		if s.midSync || s.proc != nil && s.proc.syncs.from != 0 || s.behindFence() {
			return true
		}
	}
	return false
}

// shipped reports whether every other node has all that a node has written.
func (s *site) shipped() bool {
	for _, o := range s.w.sites {
		if o == s || o.gone {
			continue
		}
		if o.proc == nil {
			return false
		}
		for _, q := range s.shown {
			if q.Stream.Node() == s.id && q.Tag > o.proc.log.Durable().Get(q.Stream) {
				return false
			}
		}
	}
	return true
}

// crash ends a node's process, and does to its disk what the fault says.
func (w *world) crash(s *site, f Fault) {
	if f&(Wipe|Restore|Rollback) != 0 && w.delicate() || f == Rollback && !s.shipped() {
		w.oracle.counts["disks spared"]++
		f = Kill
	}
	lost := f == PowerLoss || f != Kill && w.chance(50)
	s.midSync = s.proc.inParts() || lost && s.proc.synced // the end of the sync may be lost
	w.oracle.crashed(s.proc, lost)
	if lost {
		s.losePower()
	} else {
		s.kill(w.chance(20))
	}
	switch {
	case f == Wipe:
		s.fs = vfs.NewCrashableMem()
		w.oracle.replaced(s)
	case f == Restore && s.backup != nil:
		s.fs = s.backup.CrashClone(vfs.CrashCloneCfg{})
		// A copy has files of its own: the marker's place on the disk is
		// another, which a file system in memory cannot tell.
		w.check(s.fs.Remove(s.fs.PathJoin(dataDir, "IDENTITY")), "removing the marker")
		w.oracle.replaced(s)
	case f == Rollback && s.backup != nil:
		s.fs = s.backup.CrashClone(vfs.CrashCloneCfg{})
		w.oracle.rolledBack(s)
		s.fenced = true
	}
}

func (w *world) viewFault(s *site, f Fault) {
	if s.proc == nil || !s.proc.attached {
		return
	}
	switch f {
	case ViewEmpty:
		s.redis.keys, s.redis.mark = map[crdt.Key]*redisKey{}, nil
	case ViewStale:
		saved := &redis{keys: s.saved, mark: s.mark}
		s.redis.keys, s.redis.mark = saved.save()
	}
	s.proc.detach()
}

func (w *world) pause(s *site, on bool) {
	s.paused = on
	if s.proc != nil {
		s.proc.peers.SetPaused(on)
	}
}

// forget removes a node for good, if enough are left. The others hear of it one
// by one, and it runs on for a while.
func (w *world) forget(s *site) {
	left := 0
	for _, o := range w.sites {
		if !o.gone {
			left++
		}
	}
	if left <= 2 || w.delicate() {
		return
	}
	s.gone = true
	for _, o := range w.sites {
		if o != s {
			w.after(w.mean(w.opts.Trouble), func() { w.learn(o, s) })
		}
	}
	w.after(w.mean(w.opts.Trouble), func() { w.remove(s) })
}

// learn tells a node that another was forgotten.
func (w *world) learn(o, s *site) {
	switch {
	case o.knows[s.id]:
		return
	case w.delicate():
		w.after(100*time.Millisecond, func() { w.learn(o, s) })
		return
	}
	w.say("node %d hears that node %d is forgotten", o.id, s.id)
	o.knows[s.id] = true
	if p := o.proc; p != nil {
		p.peers.SetForgotten(o.forgotten())
		delete(p.heard, s.id)
		delete(p.syncs.needed, s.id)
	}
}

// remove switches a node off that was forgotten.
func (w *world) remove(s *site) {
	switch {
	case s.proc == nil:
		return
	case w.delicate():
		w.after(100*time.Millisecond, func() { w.remove(s) })
		return
	}
	w.say("node %d is switched off", s.id)
	w.oracle.crashed(s.proc, false)
	s.kill(false)
}

// forgotten lists the nodes that this one knows to be forgotten.
func (s *site) forgotten() []uint16 { return slices.Sorted(maps.Keys(s.knows)) }

// settled reports whether all have heard of those who were forgotten, and these
// are switched off.
func (w *world) settled() bool {
	for _, s := range w.sites {
		for _, o := range w.sites {
			if s.gone && (s.proc != nil || o != s && !o.knows[s.id]) {
				return false
			}
		}
	}
	return true
}

func (w *world) unblock() {
	for _, a := range w.sites {
		for _, b := range w.sites {
			if w.link(a.id, b.id).blocked {
				w.block(a.id, b.id, false)
			}
		}
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.unblock()
	for _, l := range w.links {
		l.delay, l.jitter, l.gap = time.Millisecond, 5*time.Millisecond, 0
	}
	// All clocks are set to the one that is furthest ahead, or was: so no tag
	// is ahead of any.
	var ahead time.Duration
	for _, s := range w.sites {
		s.drift = 0
		ahead = max(ahead, s.offset)
		for _, t := range s.tags {
			ahead = max(ahead, t.Time().Sub(w.time()))
		}
	}
	for _, s := range w.sites {
		for _, o := range w.sites {
			if s.gone && o != s {
				w.learn(o, s)
			}
		}
		if s.gone {
			w.remove(s)
		}
		s.offset = ahead
		w.pause(s, false)
		s.start()
	}
}
