package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// What somebody changes in the Redis behind a node is found, reported, and put
// right, adopted or left, as configured; what the node itself writes meanwhile
// is never taken for it.
func TestScrubbing(t *testing.T) {
	for _, mode := range []string{"repair", "adopt", "report"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			bed := testbed.New(t)
			r := bed.Redis(testbed.RedisOptions{})
			// Without a read cache: what clients see is then what is in the Redis.
			args := append([]string{"--set", "view.scrub=" + mode, "--set", "view.scrub_interval=200ms", "--set", "view.read_cache=0"}, quick...)
			a := bed.Node(testbed.Options{ID: 1, View: r.Address(), Args: args})
			b := bed.Node(testbed.Options{ID: 2, Args: quick, Meet: []*testbed.Node{a}})
			fill(a, "", 200)
			a.Do("RPUSH", "list", "1", "2", "3")
			a.Do("ZADD", "zset", "1.5", "x", "2", "y")
			a.Do("XADD", "stream", "1-1", "f", "v")
			a.Do("PFADD", "hll", "a", "b")
			a.Do("SET", "own", "0")
			bed.Level(a, b)
			l := newLoad(bed)
			l.paced.Store(2000)
			l.start(1, a, b)
			pass := func() {
				t.Helper()
				from, _ := strconv.Atoi(a.Info()["view_scrub_passes"])
				bed.Wait(60*time.Second, "two passes of scrubbing", func() (bool, string) {
					f := a.Info()
					n, _ := strconv.Atoi(f["view_scrub_passes"])
					return n >= from+2, f["view_scrub_passes"]
				})
			}
			pass()
			if f := a.Info(); f["view_scrub_found"] != "0" || f["view_scrub_keys"] == "0" {
				t.Fatalf("before anybody changed anything %s of %s keys were found changed:\n%s", f["view_scrub_found"], f["view_scrub_keys"], grep(a.Log(), "CHANGED IN THE REDIS"))
			}
			ctx := context.Background()
			c := r.Client(0)
			for _, err := range []error{
				c.Set(ctx, "string7", "tampered", 0).Err(),
				c.Del(ctx, "string8").Err(),
				c.Set(ctx, "made", "x", 0).Err(),
				c.HSet(ctx, "hash3", "tampered", "x").Err(),
				c.SRem(ctx, "set2", "2").Err(),
				c.LPop(ctx, "list").Err(),
				c.ZAdd(ctx, "zset", redis.Z{Score: 7, Member: "x"}).Err(),
				c.Persist(ctx, "expiring3").Err(),
				c.Del(ctx, "stream").Err(),
				c.Del(ctx, "hash4").Err(), c.Set(ctx, "hash4", "another type", 0).Err(),
				r.Client(3).Set(ctx, "elsewhere", "x", 0).Err(),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			bed.Wait(60*time.Second, "the changes to be found", func() (bool, string) {
				n, _ := strconv.Atoi(a.Info()["view_scrub_found"])
				return n >= 11, fmt.Sprint(n)
			})
			pass()
			for _, key := range []string{"string7", "string8", "made", "hash3", "set2", "list", "zset", "expiring3", "stream", "hash4", "elsewhere"} {
				if !strings.Contains(grep(a.Log(), "CHANGED IN THE REDIS"), `key="\"`+key+`\""`) {
					t.Errorf("the log says nothing of %s", key)
				}
			}
			l.stop()
			changed, deleted, made := "tampered", int64(0), int64(1)
			switch mode {
			case "repair":
				changed, deleted, made = "7", 1, 0
				fallthrough
			case "adopt":
				bed.Level(a, b)
				for _, n := range []*testbed.Node{a, b} {
					equal(t, "a changed key", n.Do("GET", "string7"), any(changed))
					equal(t, "a deleted key", n.Int("EXISTS", "string8"), deleted)
					equal(t, "a key that was made", n.Int("EXISTS", "made"), made)
					equal(t, "a field", n.Int("HEXISTS", "hash3", "tampered"), made)
					equal(t, "a member", n.Int("SISMEMBER", "set2", "2"), deleted)
					equal(t, "a list", n.Int("LLEN", "list"), 2+deleted)
					equal(t, "a lasting key", n.Int("TTL", "expiring3") == -1, made == 1)
				}
				from := a.Info()["view_scrub_found"]
				pass()
				equal(t, "found once more", a.Info()["view_scrub_found"], from)
			case "report":
				equal(t, "what the Redis answers", a.Do("GETRANGE", "string7", 0, -1), any("tampered"))
				equal(t, "what the node answers itself", a.Do("GET", "string7"), any("7"))
				equal(t, "what others see", b.Do("GET", "string7"), any("7"))
			}
		})
	}
}

func grep(text, what string) string {
	var out []string
	for _, line := range strings.Split(text, "\n") {
		if strings.Contains(line, what) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}
