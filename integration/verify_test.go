package integration

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/integration/testbed"
	"github.com/replicatord/replicatord/node"
	"github.com/replicatord/replicatord/oplog"
)

// damage changes the store of a node that does not run, behind the back of its
// log: as a bug in the rules of merging would.
func damage(t *testing.T, n *testbed.Node, change func(ks *crdt.Keyspace)) {
	t.Helper()
	log, err := oplog.Open(oplog.Options{Dir: filepath.Join(n.Dir, node.StoreDir), Node: uint16(n.ID)})
	if err != nil {
		t.Fatal(err)
	}
	g := log.Begin()
	change(&crdt.Keyspace{Store: g, Have: g.Vector()})
	if err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// verdicts returns what VERIFY says, by node.
func verdicts(n *testbed.Node) map[string]string {
	out := map[string]string{}
	for _, v := range n.Do("VERIFY").([]any) {
		list := v.([]any)
		f := map[string]string{}
		for i := 0; i+1 < len(list); i += 2 {
			f[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
		}
		out[f["node"]] = f["state"]
	}
	return out
}

// A difference between two nodes at the same vector is found in the background,
// alarmed and shown, VERIFY tells who is wrong, and REPAIR there puts it right,
// in what clients see too.
func TestDamageIsFoundAndRepaired(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	metrics := fmt.Sprint("127.0.0.1:", testbed.FreePort())
	args := append([]string{"--set", "wan.verify_interval=2s"}, quick...)
	a := bed.Node(testbed.Options{ID: 1, Args: args})
	fill(a, "", 300)
	a.Do("INCRBY", "counter", "5")
	b := bed.Node(testbed.Options{ID: 2, Args: append(args, "--metrics", metrics), Meet: []*testbed.Node{a}})
	c := bed.Node(testbed.Options{ID: 3, Args: args, Meet: []*testbed.Node{a}})
	bed.Level(a, b, c)
	for _, v := range verdicts(b) {
		equal(t, "before the damage", v, "equal")
	}
	b.Stop()
	stray := crdt.Dot{Tag: 77, Stream: crdt.NewStream(1, 1, 1)}
	damage(t, b, func(ks *crdt.Keyspace) {
		ks.Change(crdt.CellID{Key: crdt.Key{Name: "string7"}, Kind: crdt.KindString}, func(c *crdt.Cell, _ *crdt.Header) { c.Values[0].Value = []byte("rotten") })
		ks.Replace(crdt.Key{Name: "string8"}, nil, nil) // lost
		ks.Change(crdt.CellID{Key: crdt.Key{Name: "hash3"}, Kind: crdt.KindField, Elem: "stray"}, func(c *crdt.Cell, _ *crdt.Header) {
			c.Values = []crdt.Sibling{{Dot: stray, Value: []byte("x")}}
		})
		// Only the bookkeeping.
		h := ks.Store.Header(crdt.Key{Name: "string9"})
		h.Digest++
		ks.Store.SetHeader(crdt.Key{Name: "string9"}, h)
	})
	b.Start()
	bed.Wait(60*time.Second, "the damage to be found", func() (bool, string) {
		f := b.Info()
		return f["digests_members_differing"] == "2" && f["digests_damaged_buckets"] != "0" && strings.Contains(a.Log(), "HOLD DIFFERENT DATA"), fmt.Sprint(f["digests_members_differing"], f["digests_damaged_buckets"])
	})
	if log := b.Log(); !strings.Contains(log, "HOLD DIFFERENT DATA") || !strings.Contains(log, "NOT WHAT ITS CELLS GIVE") {
		t.Error("no alarm in the log of b")
	}
	res, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if text := string(body); !strings.Contains(text, `replicatord_digests_differ{alias="node1",node="1"}`) || strings.Contains(text, `replicatord_digests_differ{alias="node1",node="1"} 0`) ||
		strings.Contains(text, "replicatord_digests_damaged_buckets 0\n") {
		t.Errorf("no alarm in the metrics")
	}
	equal(t, "VERIFY at a", fmt.Sprint(verdicts(a)), "map[1:equal 2:different 3:equal]")
	equal(t, "VERIFY at b", fmt.Sprint(verdicts(b)), "map[1:different 2:damaged 3:different]")
	if got := b.Error("REPAIR", "9"); !strings.Contains(got, "no member") {
		t.Errorf("REPAIR from a stranger: %q", got)
	}
	if n := b.Int("REPAIR", "1"); n != 3 {
		t.Errorf("%d keys repaired, not 3", n)
	}
	equal(t, "VERIFY at b", fmt.Sprint(verdicts(b)), "map[1:equal 2:equal 3:equal]")
	equal(t, "VERIFY at a", fmt.Sprint(verdicts(a)), "map[1:equal 2:equal 3:equal]")
	equal(t, "the rotten key", b.Do("GET", "string7"), any("7"))
	equal(t, "the lost key", b.Do("GET", "string8"), any("8"))
	equal(t, "the stray field", b.Do("HEXISTS", "hash3", "stray"), any(int64(0)))
	equal(t, "repairing what is right", b.Int("REPAIR"), int64(0))
	bed.Level(a, b, c)
	bed.Rebuilt(b)
	bed.Level(a, b, c)
	b.Do("SET", "string7", "again")
	bed.Level(a, b, c)
	if f := b.Info(); f["digests_members_differing"] != "0" || f["digests_damaged_buckets"] != "0" {
		t.Errorf("the alarm stays: %v", f)
	}
}
