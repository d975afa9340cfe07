package integration

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestLanesByRule: rules put keys in lanes; while bulk fills a link with a
// limit, what is urgent arrives, nothing starves (pitfall 31), and a
// transaction of both is never seen in part.
func TestLanesByRule(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	net := bed.Network()
	config := `
[wan.limits]
bandwidth = "100kb"
[[qos]]
keys = "rt:*"
lane = "realtime"
[[qos]]
keys = "bulk:*"
lane = "idle"
`
	a := bed.Node(testbed.Options{ID: 1, Network: net, Config: config, Args: quick})
	b := bed.Node(testbed.Options{ID: 2, Network: net, Args: quick, Meet: []*testbed.Node{a}})
	bed.Level(a, b)
	const bulk = 200
	text := randomText(bulk * 10_000) // 20 s at that rate
	for i := range bulk {
		a.Do("SET", fmt.Sprint("bulk:", i), text[i*10_000:][:10_000])
	}
	sent := net.Path(a, b).Bytes()
	begun := time.Now()
	for i := range 20 {
		a.Do("SET", "rt:x", i)
		bed.Wait(30*time.Second, "an urgent write to arrive", func() (bool, string) {
			got := b.Do("GET", "rt:x")
			return got == any(strconv.Itoa(i)), fmt.Sprintf("%v, not %d", got, i)
		})
		if i == 0 {
			equal(t, "the last of the bulk, when the first urgent write is there", b.Int("EXISTS", fmt.Sprint("bulk:", bulk-1)), int64(0))
		}
		client := a.Client().TxPipeline()
		client.Set(t.Context(), fmt.Sprint("bulk:pair", i), i, 0)
		client.Set(t.Context(), "rt:pair", i, 0)
		if _, err := client.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		bed.Wait(30*time.Second, "a transaction with an urgent key to arrive", func() (bool, string) {
			got := b.Do("GET", "rt:pair")
			return got == any(strconv.Itoa(i)), fmt.Sprintf("%v, not %d", got, i)
		})
		equal(t, "its other key", b.Do("GET", fmt.Sprint("bulk:pair", i)), any(strconv.Itoa(i)))
	}
	took := time.Since(begun)
	// The figures speak of each lane alone.
	f := a.Replicas()[2]
	realtime, idle := laneFigures(t, f["realtime"]), laneFigures(t, f["idle"])
	if age := float64(took.Milliseconds()); idle["lag_ms"] < age || idle["pending_bytes"] < 10_000 || idle["lag_bytes"] < idle["pending_bytes"] {
		t.Errorf("%v ms after the bulk was written, with more to come: %v", age, f["idle"])
	}
	if realtime["lag_ms"] >= idle["lag_ms"] || realtime["bytes_raw"] == 0 || realtime["pending_entries"] != 0 {
		t.Errorf("all of it has arrived: %v", f["realtime"])
	}
	t.Logf("20 urgent writes and transactions arrived in %v, while %d keys came", took, b.Int("DBSIZE"))
	if got, most := net.Path(a, b).Bytes()-sent, int64(took.Seconds()*102_400*1.1)+100_000; got > most {
		t.Errorf("%d bytes in %v, with a limit of 100 kB a second", got, took)
	}
	if n := b.Int("DBSIZE"); n < 5 {
		t.Errorf("the idle lane starves: %d keys came", n)
	}
	bed.LevelWithin(3*time.Minute, a, b)
}

// laneFigures takes a lane's line in REPLICAS or INFO apart.
func laneFigures(t *testing.T, line string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for part := range strings.SplitSeq(line, ",") {
		name, value, _ := strings.Cut(part, "=")
		x, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%q in %q: %v", part, line, err)
		}
		out[name] = x
	}
	return out
}
