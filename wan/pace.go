package wan

import (
	"math"
	"time"
)

// pace bounds what is under way to a peer, so that hardly anything waits in the
// network, where nothing can overtake it, and no link runs dry. It estimates the
// link from what the peer says to have received, and when by the peer's clock:
// the rate, the most that came through lately while there was enough to send; the
// trip, the least that a frame took there and its answer back; and the wait, what
// frames take longer on the way there than the least. What is under way may be
// what fits the trip at that rate and pacePatience more.
//
// That surplus is the queue on a full link, and makes use of one that has become
// faster: as long as it finds no queue, more comes through than before. Where the
// wait does not fit, the link is slower, or longer, than before, and a probe finds
// out which: a short frame that is sent when little else is under way.
//
// Times of the peer and of this end differ by what their clocks do, which cancels
// out: the way there and the way back are only ever added, or compared with
// themselves. As clocks drift, the way there is probed now and then anyway.
//
// It needs no clock of its own. Without reports (bound is not set) it lets all
// pass.
type pace struct {
	least, most int     // sizes of chunks, in bytes
	cap         float64 // bytes a second that may be sent
	bound       bool    // the peer answers frames that ask

	opened time.Time
	sent   uint64        // bytes of all frames of the session
	got    uint64        // of them, what the peer is known to have received
	gotAt  time.Duration // when, by its clock
	marks  []paceMark    // frames that ask and were not answered, oldest first
	asked  uint64        // value of sent after the newest frame that asked

	limited bool   // what was sent after limit says little: there was not enough
	limit   uint64 // value of sent when that was so

	rates  [2]float64 // greatest of the present and the last span, in bytes a second
	span   int        // rounds of the present one
	spanAt time.Time
	recent float64   // of the last round with any
	fullAt time.Time // when the rate of a full link was measured last

	there  time.Duration    // the least way there
	back   [2]time.Duration // the least way back, of the present and the last second
	backAt time.Time
	known  bool // there and back

	round  round
	before round         // the last one
	wait   time.Duration // of the last round
	steady bool          // the link is full; until then the window doubles in each round
	start  float64       // the window until then
	grown  float64       // rate when it last grew by a quarter
	stuck  int           // rounds since
	rising int           // rounds in which the rate grew and nothing waited
	high   int           // rounds with a wait that does not fit
	peak   float64       // rate at the last probe, or a greater one since

	probing   bool          // the next short frame that finds little under way is a probe
	alone     bool          // the last frame was a probe
	probed    bool          // it is on its way
	again     time.Duration // what the first of two took, the second of which is to confirm it
	doubt     bool          // it is because the wait does not fit
	probedAt  time.Time
	probe     uint64    // value of sent after it
	probingAt time.Time // when it began to wait for that

	size int // of chunks, in bytes
}

// round is what was seen while a frame that found the link full would have been
// answered.
type round struct {
	at      time.Time
	got     uint64        // value of got when it began
	gotAt   time.Duration // and of gotAt
	n       int           // answers
	wait    time.Duration // the least
	limited bool          // less came than the link can carry, for all that is known
}

// paceMark is a frame that asks.
type paceMark struct {
	total  uint64 // sent with it
	flight uint64 // under way with it
	at     time.Time
	probe  bool
}

const (
	// pacePatience is how long a frame waits in the network on a full link, if
	// two of the smallest chunks do not take longer.
	pacePatience = 2 * chunkTime
	chunkTime    = 8 * time.Millisecond
	// paceStart is the window, in bytes, until a link is known.
	paceStart = 16 << 10
	// paceLasts is how long a measurement says something of the link.
	paceLasts = 10 * time.Second
	// Probes come after probeEvery and as many trips as probeTrips; where there is
	// doubt they may come after doubtEvery and doubtTrips.
	probeEvery = 10 * time.Second
	probeTrips = 64
	doubtEvery = time.Second
	doubtTrips = 16
	// probeWait and two trips are how long a probe lets urgent frames go first.
	probeWait = 100 * time.Millisecond
	// probeSize is the greatest size of a probe: it is to be on its way at once.
	probeSize = 256
	// maxAsked bounds the frames that wait for an answer.
	maxAsked = 256
	// A span of rates lasts so many rounds, and at least so long.
	spanRounds = 5
	spanTime   = 500 * time.Millisecond
)

func (p *pace) init(c *Config, now time.Time) {
	*p = pace{least: c.MinChunk, most: c.MaxChunk, cap: math.Inf(1), start: paceStart, opened: now, probing: true, limited: true}
	if c.Bandwidth > 0 {
		p.cap = float64(c.Bandwidth)
	}
	p.round.wait = math.MaxInt64
	p.resize(4 << 10)
}

// resize chooses the size of chunks.
func (p *pace) resize(size float64) {
	size = min(size, p.cap*chunkTime.Seconds())
	p.size = max(p.least, int(min(size, float64(p.most))))
}

// rate returns what the link carries as far as is known, in bytes a second; 0:
// nothing is known.
func (p *pace) rate() float64 { return max(p.rates[0], p.rates[1]) }

// rateAt returns the rate of the link in bytes a second, or what may be sent if
// that is less; 0 if there is no such bound and the link was not full lately.
func (p *pace) rateAt(now time.Time) int {
	r := p.cap
	if !p.fullAt.IsZero() && now.Sub(p.fullAt) <= paceLasts {
		r = min(r, p.rate())
	}
	if math.IsInf(r, 0) {
		return 0
	}
	return int(r)
}

// trip is the least that a frame and its answer take.
func (p *pace) trip() time.Duration {
	if !p.known {
		return 0
	}
	return max(0, p.there+min(p.back[0], p.back[1]))
}

// patience is what may be under way beyond what fits the trip, in bytes.
func (p *pace) patience() float64 {
	return max(float64(2*p.size), p.rate()*pacePatience.Seconds())
}

// fits is the wait that goes with that.
func (p *pace) fits() time.Duration {
	if r := p.rate(); r > 0 {
		return seconds(p.patience() / r)
	}
	return pacePatience
}

// waits reports whether a wait shows that the link is full.
func (p *pace) waits(wait time.Duration) bool { return wait > max(p.fits(), p.trip()/8) }

// full is what may be under way on a link that is full, in bytes.
func (p *pace) full() float64 { return p.rate()*p.trip().Seconds() + p.patience() }

// window is what may be under way now, in bytes.
func (p *pace) window(now time.Time) float64 {
	w := p.full()
	switch {
	case p.probing && !p.probed:
		return min(w, p.calm())
	case p.doubt:
		w = min(w, p.recent*p.trip().Seconds()+p.patience())
	case !p.steady:
		return max(w, p.start)
	}
	if p.probed {
		// It is filled again at the rate of the link, not faster: what was sent
		// before the queue was let run empty is answered meanwhile.
		r := p.rate()
		if p.doubt {
			r = min(r, p.recent)
		}
		spare := r*now.Sub(p.probedAt).Seconds() - float64(p.sent-p.probe)
		w = min(w, p.flight()+float64(p.size)+min(spare, 0))
	}
	return w
}

// filling returns for how long a closed window is to be left alone, 0 if it opens
// with an answer only.
func (p *pace) filling(now time.Time) time.Duration {
	if r := p.rate(); p.probed && p.bound && r > 0 && p.window(now) < p.full() {
		return max(time.Millisecond, seconds(float64(p.size)/r))
	}
	return 0
}

// calm is what may be under way when a probe is sent, so that it finds no queue:
// half of what fits the trip, and nothing if that may be wrong.
func (p *pace) calm() float64 {
	if p.doubt {
		return 0
	}
	return p.rate() * p.trip().Seconds() / 2
}

func (p *pace) flight() float64 { return float64(p.sent - p.got) }

// open reports whether a chunk may be sent now: one that is urgent may where all
// others have to wait for another to arrive. If it may not, an answer is on its
// way, after which it may.
func (p *pace) open(now time.Time, urgent bool) bool {
	if !p.bound {
		return true
	}
	if !p.probing && now.Sub(p.probedAt) >= max(probeEvery, probeTrips*p.trip()) {
		p.probing, p.probingAt = true, now
	}
	flight, window := p.flight(), p.window(now)
	switch {
	case !urgent:
		flight += float64(p.size)
	case p.probing && now.Sub(p.probingAt) < probeWait+2*p.trip():
		window = max(window, p.full()) // a probe can wait for what is urgent, but not for ever
	}
	return len(p.marks) == 0 || flight <= window
}

// chunk returns the size of the next chunk, at most n, and whether it is to ask
// the peer to answer.
func (p *pace) chunk(n int) (size int, asks bool) {
	n = min(n, p.size)
	switch {
	case !p.bound || len(p.marks) >= maxAsked:
		return n, false
	case p.probing && !p.probed && (len(p.marks) == 0 || p.flight() <= p.calm()):
		return min(n, probeSize), true
	}
	return n, float64(p.sent-p.asked)+float64(n) >= p.patience()/4
}

// idle tells that there is less to send than might be.
func (p *pace) idle() { p.limited, p.limit = true, p.sent }

// put takes note of a frame of n bytes that goes now.
func (p *pace) put(now time.Time, n int, asks bool) {
	calm := len(p.marks) == 0 || p.flight() <= p.calm()
	p.sent += uint64(n)
	p.alone = false
	if !asks || len(p.marks) >= maxAsked {
		return
	}
	m := paceMark{total: p.sent, flight: p.sent - p.got, at: now}
	if p.probing && !p.probed && calm && n <= 2*probeSize {
		p.probed, p.probedAt, p.probe, m.probe, p.alone = true, now, p.sent, true, true
	}
	p.marks = append(p.marks, m)
	p.asked = p.sent
}

// told takes in that the peer had received so many bytes of the session's frames
// at a time of its clock. It reports whether that can be.
func (p *pace) told(now time.Time, got uint64, at time.Duration) bool {
	if got > p.sent || got < p.got || at < p.gotAt {
		return false
	}
	p.got, p.gotAt = got, at
	if p.limited && got > p.limit {
		p.limited = false
	}
	n, probe := 0, false
	for n < len(p.marks) && p.marks[n].total <= got {
		probe = probe || p.marks[n].probe
		n++
	}
	if n == 0 {
		return true
	}
	m := p.marks[n-1]
	p.marks = p.marks[:copy(p.marks, p.marks[n:])]
	p.measureTrip(now, m, at, probe)
	p.round.limited = p.round.limited || p.limited || p.probing
	if p.round.n++; p.round.n >= 8 && p.waits(p.round.wait) {
		p.steady = true
	}
	if now.Sub(p.round.at) >= p.trip()+pacePatience {
		p.endRound(now)
	}
	return true
}

// measureTrip takes in what a frame and its answer took.
func (p *pace) measureTrip(now time.Time, m paceMark, at time.Duration, probe bool) {
	there, back := at-m.at.Sub(p.opened), now.Sub(p.opened)-at
	switch {
	case !p.known:
		p.known, p.there, p.back, p.backAt = true, there, [2]time.Duration{back, back}, now
	case now.Sub(p.backAt) >= time.Second:
		p.back, p.backAt = [2]time.Duration{back, p.back[0]}, now
	}
	p.back[0] = min(p.back[0], back)
	longer := false
	if probe && p.again == 0 && there > p.there+p.fits()/8 {
		// It may have been late for once.
		p.again, p.probed, probe = there, false, false
	}
	if probe {
		if p.again != 0 {
			there = min(there, p.again)
		}
		explained := p.fits()
		if p.doubt {
			explained += seconds(float64(m.flight) / p.recent)
		}
		longer = there > p.there+explained
		p.there, p.again = there, 0
	}
	p.there = min(p.there, there)
	p.round.wait = min(p.round.wait, there-p.there)
	if !probe {
		return
	}
	if p.doubt && !longer { // so the link is slower
		p.rates = [2]float64{p.recent, p.recent}
	}
	p.peak, p.high = p.rate(), 0
	p.probing, p.probed, p.doubt, p.probedAt = false, false, false, now
}

// endRound takes in at what rate frames came, and looks at what that means.
func (p *pace) endRound(now time.Time) {
	r, before := p.round, p.before
	p.before, p.round = r, round{at: now, got: p.got, gotAt: p.gotAt, wait: math.MaxInt64}
	if before.limited || r.limited || !p.steady {
		before = r // else both rounds, in which a frame that is late for once counts less
	}
	if before.at.IsZero() || p.gotAt <= before.gotAt {
		p.before.limited = true
		return
	}
	rate := float64(p.got-before.got) / (p.gotAt - before.gotAt).Seconds()
	p.rates[0] = max(p.rates[0], rate)
	if r.limited {
		p.resize(p.rate() * chunkTime.Seconds())
		return
	}
	fits := p.fits()
	if p.rising++; rate < 1.02*p.recent || r.wait > fits/4 {
		p.rising = 0
	}
	p.recent, p.wait, p.fullAt = rate, r.wait, now
	if p.span++; p.span >= spanRounds && now.Sub(p.spanAt) >= spanTime {
		p.rates, p.span, p.spanAt = [2]float64{rate, p.rates[0]}, 0, now
	}
	p.peak = max(p.peak, p.rate())
	p.resize(p.rate() * chunkTime.Seconds())
	if fits = p.fits(); p.steady && p.rising >= 3 {
		p.steady, p.start, p.grown, p.stuck, p.rising = false, p.full(), 0, 0, 0
	}
	if !p.steady {
		p.start = max(paceStart, min(2*p.start, 3*(p.rate()*p.trip().Seconds()+p.patience())))
		if p.stuck++; p.rate() >= 1.25*p.grown {
			p.grown, p.stuck = p.rate(), 0
		}
		p.steady = p.stuck >= 3 || r.n >= 3 && p.waits(r.wait)
	}
	if p.high++; r.wait <= 5*fits/4 {
		p.high = 0
	}
	slower := p.rate() < 0.9*p.peak && r.wait > fits/2
	if (slower || p.high >= 3) && !p.probing && now.Sub(p.probedAt) >= max(doubtEvery, doubtTrips*p.trip()) {
		p.probing, p.probingAt, p.doubt = true, now, true
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, 1e9) * float64(time.Second))
}
