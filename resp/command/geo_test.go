package command

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

// Every command that writes positions, at random, against Redis.
func TestGeoAnswersAsRedis(t *testing.T) {
	for _, seed := range append(seeds(),
		1796018790887712985, // a search around a member with a score of -1, of a key that expires
		1796054707901888712, // likewise, with one of 9e18
	) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, seed)
			h.loose, h.model.loose, h.view.loose = true, true, true
			for range 1200 {
				if h.rng.IntN(30) == 0 {
					disturb(h, giveHash)
				}
				h.run(randomGeoCommand(h)...)
			}
		})
	}
}

// looseScores rounds scores that are distances: in a few of thousands the C
// library does not round sines as it should.
func looseScores(list [][]byte) [][]byte {
	for i := 1; i < len(list); i += 2 {
		if f := crdt.ParseScore(list[i]); f != math.Trunc(f) {
			list[i] = strconv.AppendFloat(nil, f, 'g', 10, 64)
		}
	}
	return list
}

func randomGeoCommand(h *harness) []string {
	name := func() string { return pick(h, keyNames) }
	member := func() string { return strconv.Itoa(h.rng.IntN(40)) }
	coordinate := func(limit float64) string {
		switch h.rng.IntN(30) {
		case 0:
			return pick(h, []string{"x", "", "nan", "inf", "-inf", "181", "-180.0001", "85.06", "90", "1e300", "180", "-180", "85.05112878", "-85.05112878", "0x10"})
		case 1, 2, 3, 4, 5, 6, 7, 8:
			return strconv.FormatFloat((h.rng.Float64()*2-1)*limit, 'g', -1, 64)
		}
		return strconv.FormatFloat(h.rng.Float64()*4+10, 'f', 4, 64)
	}
	distance := func() string {
		if h.rng.IntN(20) == 0 {
			return pick(h, []string{"x", "", "-1", "0", "inf", "1e20", "nan"})
		}
		return strconv.FormatFloat(math.Ldexp(h.rng.Float64(), h.rng.IntN(25)), 'f', 2, 64)
	}
	option := func(words ...string) string { return (&randomRequests{rng: h.rng}).option(words...) }
	unit := func() string { return option("m", "km", "KM", "Ft", "mi", "m", "km", "ft", "lightyears") }
	// What it takes of several with ANY depends on their order in memory.
	tail := func(args []string) []string {
		for h.rng.IntN(3) > 0 {
			switch h.rng.IntN(6) {
			case 0, 1:
				args = append(args, option("ASC", "DESC"))
			case 2, 3:
				args = append(args, option("COUNT"), pick(h, []string{"1", "2", "5", "1000", "0", "-1", "x"}))
			case 4:
				if h.rng.IntN(4) == 0 {
					args = append(args, option("WITHDIST", "WITHHASH", "WITHCOORD", "ANY", "FOO", "STORE", "COUNT", "BYBOX", "FROMMEMBER"))
				}
			case 5:
				args = append(args, option("STOREDIST"))
			}
		}
		return args
	}
	store := func(args []string) []string {
		args = append(args, option("STORE", "STOREDIST"), name())
		if h.rng.IntN(8) == 0 {
			args = append(args, option("STORE", "STOREDIST", "ASC"), name())
		}
		return args
	}
	switch h.rng.IntN(12) {
	case 0, 1, 2, 3:
		args := []string{"GEOADD", name()}
		for h.rng.IntN(4) == 0 {
			args = append(args, option("NX", "XX", "CH", "GT"))
		}
		for {
			args = append(args, coordinate(180), coordinate(85), member())
			if h.rng.IntN(5) == 0 {
				return args
			}
		}
	case 4:
		return []string{"ZADD", name(), pick(h, []string{"1.5", "-1", "0", "4503599627370495", "9e18", "-9e18", "1e15"}), member()}
	case 5, 6:
		args := []string{"GEORADIUS", name(), coordinate(180), coordinate(85), distance(), unit()}
		if h.rng.IntN(2) == 0 {
			args = tail(args)
		}
		return store(args)
	case 7, 8:
		args := []string{"GEORADIUSBYMEMBER", name(), member(), distance(), unit()}
		if h.rng.IntN(2) == 0 {
			args = tail(args)
		}
		return store(args)
	}
	args := []string{"GEOSEARCHSTORE", name(), name()}
	if h.rng.IntN(2) == 0 {
		args = append(args, option("FROMMEMBER"), member())
	} else {
		args = append(args, option("FROMLONLAT"), coordinate(180), coordinate(85))
	}
	if h.rng.IntN(2) == 0 {
		args = append(args, option("BYRADIUS"), distance(), unit())
	} else {
		args = append(args, option("BYBOX"), distance(), distance(), unit())
	}
	return tail(args)
}

// Where the view does not fit the cells, these are searched.
func TestGeoDistrustsView(t *testing.T) {
	for _, request := range []string{
		"GEOSEARCHSTORE d g FROMLONLAT 15 37 BYRADIUS 200 KM STOREDIST", "GEOSEARCHSTORE d g FROMMEMBER Palermo BYBOX 400 10 KM", "GEOSEARCHSTORE d g FROMMEMBER Palermo BYBOX 400 200 KM DESC COUNT 1",
		"GEORADIUS g 15 37 1 KM STORE d", "GEORADIUSBYMEMBER g Catania 100 MI COUNT 1 STOREDIST d",
	} {
		var want [][]byte
		for _, reply := range []string{"*0\r\n", "-ERR no\r\n", "*1\r\n$1\r\nx\r\n", "", "true"} {
			h := newHarness(t, 1)
			h.run("GEOADD", "g", "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania", "2.349014", "48.864716", "Paris")
			h.writer.SetExpiry(crdt.Key{Name: "g"}, h.now+100_000)
			c := &Context{Tx: fakeView{testTx{h.writer, h}, reply}, Args: wordsOf(request)}
			if reply == "true" {
				c.Tx = testTx{h.writer, h}
			}
			cmd, _ := Find(c.Args)
			cmd.Run(c)
			got := scoresOf(h.writer, crdt.Key{Name: "d"})
			if want == nil {
				want = got
			}
			if g, w := bytes.Join(got, []byte(" ")), bytes.Join(want, []byte(" ")); !bytes.Equal(g, w) {
				t.Errorf("%s, view says %q: %s, want %s", request, reply, g, w)
			}
		}
	}
}

// A position is where Redis puts it, and its score leads back there.
func TestPositionsAreRedis(t *testing.T) {
	h := newHarness(t, 1)
	for range 2000 {
		lon, lat := (h.rng.Float64()*2-1)*maxLon, (h.rng.Float64()*2-1)*maxLat
		args := []string{"GEOADD", "g", strconv.FormatFloat(lon, 'g', -1, 64), strconv.FormatFloat(lat, 'g', -1, 64), "m"}
		h.model.must(args[0], bytesOf(args[1:])...)
		score := position{lon, lat}.score()
		if got := string(h.model.bulks("ZSCORE", []byte("g"), []byte("m"))[0]); got != FormatDouble(score) {
			t.Fatalf("%q: %s, Redis %s", args, FormatDouble(score), got)
		}
		p := positionOf(score)
		raw := string(h.model.do([]byte("GEOPOS"), []byte("g"), []byte("m")))
		for _, v := range []float64{p.lon, p.lat} {
			if text := strings.TrimRight(strconv.FormatFloat(v, 'f', 17, 64), "0"); !strings.Contains(raw, text) {
				t.Fatalf("%q: %s is not in %q", args, text, raw)
			}
		}
	}
}

// Sines, cosines and arcsines are rounded correctly; of these, package math
// gets some wrong. The values are of mpmath.
func TestTrigonometry(t *testing.T) {
	for _, c := range []struct{ x, sin, cos, asin float64 }{
		{0.0, 0.0, 1.0, 0.0},
		{1.0, 0.8414709848078965, 0.5403023058681398, 1.5707963267948966},
		{0.5, 0.479425538604203, 0.8775825618903728, 0.5235987755982989},
		{1e-08, 1e-08, 1.0, 1e-08},
		{1e-300, 1e-300, 1.0, 1e-300},
		{0.9999999999999999, 0.8414709848078964, 0.5403023058681398, 1.5707963118937354},
		{3.0, 0.1411200080598672, -0.9899924966004454, 0},
		{0.622902, 0.5833945858811124, 0.8121888679147267, 0.672446824150487},
		{0.741787, 0.6756064776154731, 0.7372624277718303, 0.8357310827426002},
		{0.795194, 0.7139994467453112, 0.7001462633245924, 0.9193274569495866},
		{0.94245, 0.8090006559383217, 0.5878077395640221, 1.2298839281753176},
		{0.739899, 0.6742133228646346, 0.7385366580419876, 0.832920208732055},
		{0.922325, 0.7970080002705282, 0.6039687471258539, 1.1740547708986737},
		{0.029005, 0.029000933234874363, 0.9995793844770441, 0.029009068476630092},
		{0.465623, 0.44897956522204185, 0.8935420247604621, 0.48433844913997093},
	} {
		if sin(c.x) != c.sin || cos(c.x) != c.cos || c.x <= 1 && asin(c.x) != c.asin {
			t.Errorf("%v: %v %v %v, want %v", c.x, sin(c.x), cos(c.x), asin(c.x), c)
		}
	}
}
