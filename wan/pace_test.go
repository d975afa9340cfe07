package wan

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/replicatord/replicatord/internal/wire"
)

// road is a link in virtual time: what is sent waits for its turn at a rate, is on
// its way for a time, and may be lost and sent again, in order all the same, as
// TCP does. A sender with a pace uses it for as much as there is.
type road struct {
	pace
	t           testing.TB
	now         time.Time
	rate        float64 // bytes a second
	there, back time.Duration
	loss        float64
	tick        time.Duration           // of the peer's clock in a second, in microseconds
	supply      func(now time.Time) int // bytes that may have been sent until then; nil: no end
	rnd         *rand.Rand

	fed     int
	free    time.Time // what was sent before has gone
	arrived time.Time // when the last frame comes
	flying  []frameOnRoad
	answers []answer
	came    uint64
	waits   []time.Duration // of what was sent, in the queue; sorted after run
}

type frameOnRoad struct {
	at   time.Time
	n    int
	asks bool
}

type answer struct {
	at  time.Time
	got uint64
	on  time.Duration
}

// otherClock is how far the peer's clock is off at first.
const otherClock = 17 * time.Minute

func newRoad(t testing.TB, rate float64, there, back time.Duration) *road {
	r := &road{t: t, now: epoch, rate: rate, tick: 1e6, there: there, back: back, rnd: rand.New(rand.NewPCG(1, 2))}
	r.pace.init(&Config{MinChunk: 1 << 10, MaxChunk: 16 << 10}, epoch)
	r.bound = true
	return r
}

// run lets time pass, and returns the share of the rate that was used and the
// time that 95 of 100 bytes waited at most.
func (r *road) run(d time.Duration) (used float64, wait time.Duration) {
	r.waits = r.waits[:0]
	begun, came := r.now, r.came
	for end := r.now.Add(d); r.now.Before(end); {
		for len(r.flying) > 0 && !r.flying[0].at.After(r.now) {
			f := r.flying[0]
			r.flying = r.flying[1:]
			if r.came += uint64(f.n); f.asks {
				r.answers = append(r.answers, answer{r.now.Add(r.back), r.came, r.now.Sub(epoch)*r.tick/1e6 + otherClock})
			}
		}
		for len(r.answers) > 0 && !r.answers[0].at.After(r.now) {
			a := r.answers[0]
			r.answers = r.answers[1:]
			if !r.told(r.now, a.got, a.on) {
				r.t.Fatalf("%+v cannot be", a)
			}
		}
		for r.open(r.now, false) {
			left := math.MaxInt
			if r.supply != nil {
				left = r.supply(r.now) - r.fed
			}
			if left <= 0 {
				r.idle()
				break
			}
			n, asks := r.chunk(left)
			r.fed += n
			r.send(n+13, asks)
		}
		next := r.now.Add(10 * time.Millisecond)
		if d := r.filling(r.now); d > 0 && d < 10*time.Millisecond {
			next = r.now.Add(d)
		}
		if len(r.flying) > 0 && r.flying[0].at.Before(next) {
			next = r.flying[0].at
		}
		if len(r.answers) > 0 && r.answers[0].at.Before(next) {
			next = r.answers[0].at
		}
		r.now = next
	}
	if len(r.waits) > 0 {
		slices.Sort(r.waits)
		wait = r.waits[len(r.waits)*95/100]
	}
	return float64(r.came-came) / r.rate / r.now.Sub(begun).Seconds(), wait
}

func (r *road) send(n int, asks bool) {
	r.put(r.now, n, asks)
	r.free = later(r.free, r.now)
	r.waits = append(r.waits, r.free.Sub(r.now))
	r.free = r.free.Add(seconds(float64(n) / r.rate))
	at := r.free.Add(r.there)
	for r.loss > 0 && r.rnd.Float64() < r.loss {
		at = at.Add(r.there + r.back + 5*time.Millisecond) // until it was missed
		r.free = r.free.Add(seconds(float64(n) / r.rate))
	}
	r.arrived = later(r.arrived, at)
	r.flying = append(r.flying, frameOnRoad{r.arrived, n, asks})
}

// whole demands that a link is used, with hardly a queue before it.
func (r *road) whole(what string, d time.Duration, least float64, most time.Duration) {
	r.t.Helper()
	used, wait := r.run(d)
	r.t.Logf("%s: %.3f of the rate used, %v in the queue (95%%); rate %.0f of %.0f, trip %v of %v, window %.0f, chunk %d", what, used, wait, r.pace.rate(), r.rate, r.trip(), r.there+r.back, r.window(r.now), r.size)
	if used < least {
		r.t.Errorf("%s: %.3f of the link are used", what, used)
	}
	if wait > most {
		r.t.Errorf("%s: frames wait for %v", what, wait)
	}
}

const mbit = 125_000.

func TestPaceFull(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name        string
		rate        float64
		there, back time.Duration
		most        time.Duration // two chunks' time
	}{
		{"64 kbit/s, 300 ms", mbit * 0.064, 300 * ms, 300 * ms, 280 * ms},
		{"1 Mbit/s", mbit, 0, 0, 22 * ms},
		{"1 Mbit/s, 20 ms", mbit, 20 * ms, 20 * ms, 22 * ms},
		{"1 Mbit/s, 75 ms", mbit, 75 * ms, 75 * ms, 22 * ms},
		{"1 Mbit/s, 20 ms there, 100 ms back", mbit, 20 * ms, 100 * ms, 22 * ms},
		{"10 Mbit/s, 75 ms", 10 * mbit, 75 * ms, 75 * ms, 22 * ms},
		{"1 Gbit/s, 150 ms", 1000 * mbit, 150 * ms, 150 * ms, 22 * ms},
		{"10 Gbit/s, 50 µs", 10000 * mbit, ms / 20, ms / 20, 22 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRoad(t, c.rate, c.there, c.back)
			r.run(30 * (c.there + c.back + 20*ms))
			r.whole("full", 12*time.Second, 0.97, c.most)
			// Nor does anything wait while the queue empties for a probe, or after.
			r.run(time.Minute)
			if worst := r.waits[len(r.waits)-1]; worst > c.most*3/2 {
				t.Errorf("within a minute something waited for %v", worst)
			} else {
				t.Logf("within a minute something waited for %v, at %v", worst, r.waits[len(r.waits)*999/1000])
			}
		})
	}
}

// A link that becomes ten times as fast is used again within seconds, one that
// becomes ten times as slow has a short queue again within seconds.
func TestPaceRate(t *testing.T) {
	for _, trip := range []time.Duration{0, 40 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(trip.String(), func(t *testing.T) {
			r := newRoad(t, 10*mbit, trip/2, trip/2)
			r.run(10 * time.Second)
			for range 3 {
				r.rate = mbit
				r.run(6 * time.Second)
				r.whole("slow", 8*time.Second, 0.95, 22*time.Millisecond)
				r.rate = 10 * mbit
				r.run(10 * time.Second)
				r.whole("fast", 8*time.Second, 0.95, 22*time.Millisecond)
			}
		})
	}
}

// A way that has become longer, there or back, is filled again; one that has
// become shorter is not overfilled.
func TestPaceTrip(t *testing.T) {
	const ms = time.Millisecond
	for name, way := range map[string]func(*road) *time.Duration{"there": func(r *road) *time.Duration { return &r.there }, "back": func(r *road) *time.Duration { return &r.back }} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(t, mbit, 20*ms, 20*ms)
			r.run(5 * time.Second)
			for _, d := range []time.Duration{30 * ms, 45 * ms, 70 * ms, 200 * ms, 20 * ms, 300 * ms, 0} {
				*way(r) = d
				r.run(8 * time.Second)
				r.whole(d.String(), 8*time.Second, 0.93, 22*ms)
			}
		})
	}
}

// What is less than the link takes says nothing of it.
func TestPaceLimited(t *testing.T) {
	const ms = time.Millisecond
	r := newRoad(t, 10*mbit, 20*ms, 20*ms)
	r.run(5 * time.Second)
	was := r.pace.rate()
	from, fed := r.now, r.fed
	r.supply = func(now time.Time) int { return fed + int(now.Sub(from).Seconds()*mbit/10)/300*300 }
	r.run(time.Minute)
	if now := r.pace.rate(); now < 0.95*was || now > 1.1*was {
		t.Errorf("a rate of %.0f has become %.0f with little to send", was, now)
	}
	if r.rateAt(r.now) != 0 {
		t.Error("the link is said to have been full lately")
	}
	r.supply = nil
	r.whole("full again", time.Second, 0.9, 22*ms)
	// A link that has never been full is not held for a slow one.
	r = newRoad(t, 10*mbit, 20*ms, 20*ms)
	r.supply = func(now time.Time) int { return int(now.Sub(epoch).Seconds()*10) * 100 }
	r.run(time.Minute)
	r.supply = nil
	r.run(500 * ms)
	r.whole("full at last", time.Second, 0.95, 22*ms)
}

// Where a fifth is lost, and sent again, not much less goes through than without
// a bound.
func TestPaceLoss(t *testing.T) {
	const ms = time.Millisecond
	for _, loss := range []float64{0.01, 0.05, 0.2} {
		r := newRoad(t, mbit, 20*ms, 20*ms)
		r.loss = loss
		r.run(5 * time.Second)
		r.whole("with loss", 20*time.Second, 0.6*(1-loss), 100*ms)
	}
}

// Clocks that run apart, as far as NTP sets them, fill no queue and empty no
// link, and no longer when the link was idle meanwhile.
func TestPaceDrift(t *testing.T) {
	const ms = time.Millisecond
	for _, tick := range []time.Duration{1e6 - 500, 1e6 + 500} {
		r := newRoad(t, mbit, 20*ms, 20*ms)
		r.tick = tick
		for range 3 {
			r.run(time.Minute)
			r.whole("after a minute", 15*time.Second, 0.97, 26*ms)
			r.supply = func(time.Time) int { return 0 }
			r.run(10 * time.Minute)
			r.supply = nil
		}
	}
}

// Where no time passes nothing is known, and nothing stands still.
func TestPaceNoTime(t *testing.T) {
	r := newRoad(t, math.Inf(1), 0, 0)
	for range 1000 {
		if !r.open(r.now, false) {
			t.Fatal("closed with nothing under way")
		}
		for r.open(r.now, false) {
			n, asks := r.chunk(math.MaxInt)
			r.put(r.now, n, asks)
		}
		if !r.told(r.now, r.sent, 0) {
			t.Fatal("not believed")
		}
	}
	if r.sent < 1000*paceStart/2 {
		t.Errorf("%d bytes in 1000 round trips", r.sent)
	}
}

// thin is a link of 1 Mbit/s from one session to another with 20 ms of delay in
// virtual time, and back without a rate.
type thin struct {
	*link
	free   time.Time
	flying []thinFrame // in order for each receiver
}

type thinFrame struct {
	at time.Time
	to *Session
	f  []byte
}

func (l *thin) run(d time.Duration, each func()) {
	for end := l.now.Add(d); l.now.Before(end); *l.now = l.now.Add(time.Millisecond) {
		each()
		for _, s := range []*Session{l.sa, l.sb} {
			for f, _ := s.Next(*l.now); f != nil; f, _ = s.Next(*l.now) {
				at, to := l.now.Add(20*time.Millisecond), l.sa
				if s == l.sa {
					l.free = later(l.free, *l.now).Add(seconds(float64(len(f)) / mbit))
					at, to = l.free.Add(20*time.Millisecond), l.sb
				}
				l.flying = append(l.flying, thinFrame{at, to, slices.Clone(f)})
			}
		}
		l.flying = slices.DeleteFunc(l.flying, func(x thinFrame) bool {
			if x.at.After(*l.now) {
				return false
			}
			_ = x.to.Receive(*l.now, x.f)
			return true
		})
		l.a.peers.Tick(*l.now)
		l.b.peers.Tick(*l.now)
	}
}

// A peer of a version that does not know of it is asked for nothing, and not
// waited for; one that lies about what it has is cut off.
func TestPaceVersions(t *testing.T) {
	a, b, now := pair(t, func(c *Config) { c.NoCompression = true })
	l := connect(t, a, b, now)
	asked := 0
	l.log = func(from *Session, f []byte) {
		if t := frameType(f[0]); t.asks() && t != frameHeartbeat {
			asked++
		}
	}
	old := func(s *Session) { s.peer.MaxVersion, s.sending.pace.bound = versionAsking-1, false }
	l.run()
	old(l.sa)
	old(l.sb)
	a.set(0, "k", noise(1, 200_000))
	l.run()
	same(t, a, b)
	if asked > 0 {
		t.Errorf("%d chunks ask", asked)
	}
	if err := forge(l, frameAsking, batch(batchEntries, []byte("x"))); CodeOf(err) != CodeProtocol {
		t.Errorf("a chunk of a version not agreed on: %v", err)
	}
	l = connect(t, a, b, now)
	l.run()
	m := wire.Pong{Ping: 1, Received: l.sb.stats.wireOut + 1_000_000}
	if err := forge(l, framePong, m.Encode()); CodeOf(err) != CodeProtocol {
		t.Errorf("more received than was sent: %v", err)
	}
}

// Between sessions, an urgent write is there after the delay, the time of two
// chunks and a little, while a lane has more to send than a link without a limit
// takes; and the link is used.
func TestPaceOvertaking(t *testing.T) {
	a, b, now := pair(t, func(c *Config) { c.NoCompression = true })
	l := &thin{link: connect(t, a, b, now)}
	l.run(time.Second, func() {})
	for i := range 20 {
		a.set(3, fmt.Sprint("bulk", i), noise(uint64(i), 100_000))
	}
	l.run(2*time.Second, func() {})
	before := a.peers.Stats(*now)[0].BytesOut
	var worst time.Duration
	var wrote time.Time
	n := 0
	l.run(5*time.Second, func() {
		switch value := fmt.Sprint(n); {
		case n > 0 && b.get("urgent") != value:
			return
		case n > 0:
			worst = max(worst, now.Sub(wrote))
		}
		n++
		wrote = *now
		a.set(0, "urgent", fmt.Sprint(n))
	})
	if worst > 55*time.Millisecond || n < 50 {
		t.Errorf("the latest of %d urgent writes took %v", n, worst)
	}
	if used := float64(a.peers.Stats(*now)[0].BytesOut-before) / mbit / 5; used < 0.93 {
		t.Errorf("%.2f of the link were used", used)
	}
	if b.get("bulk19") != "" {
		t.Fatal("all went by: this tests nothing")
	}
	if st := a.peers.Stats(*now)[0]; st.Rate < mbit*9/10 || st.Rate > mbit*11/10 || st.Queue > 30*time.Millisecond || st.Sessions != 1 {
		t.Errorf("figures: rate %d, queue %v, %d sessions", st.Rate, st.Queue, st.Sessions)
	}
}
