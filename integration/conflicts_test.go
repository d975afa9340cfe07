package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestConflicts: values that met are in CONFLICTS of both nodes, by key, with
// who wrote which; what is joined or was seen is not; and they survive kill -9.
func TestConflicts(t *testing.T) {
	bed := testbed.New(t)
	a, b := bed.Node(testbed.Options{ID: 1}), bed.Node(testbed.Options{ID: 2})
	b.Meet(a)
	a.Do("SET", "seen", "1")
	bed.Level(a, b)
	b.Do("SET", "seen", "2")
	bed.Level(a, b)
	a.Pause()
	for _, n := range []*testbed.Node{a, b} {
		for _, line := range []string{"SET k %s", "HSET h f %s", "HSET h g%[1]s 1", "SADD s %s", "INCR n", "SET same x", "SET mixed %s", "EXPIRE seen 1%[1]s"} {
			if n == b && strings.HasPrefix(line, "SET mixed") {
				line = "SADD mixed %s"
			}
			line = strings.Replace(line, "%s", map[bool]string{true: "east", false: "west"}[n == a], 1)
			if strings.Contains(line, "%[1]s") {
				line = fmt.Sprintf(line, map[bool]string{true: "1", false: "2"}[n == a])
			}
			var args []any
			for _, w := range strings.Fields(line) {
				args = append(args, w)
			}
			n.Do(args...)
		}
	}
	a.Resume()
	bed.Level(a, b)
	for _, n := range []*testbed.Node{a, b} {
		keys := map[string]string{}
		for _, c := range n.Do("CONFLICTS").([]any) {
			f := map[string]string{}
			for list := c.([]any); len(list) > 1; list = list[2:] {
				f[fmt.Sprint(list[0])] = fmt.Sprint(list[1])
			}
			keys[f["key"]] = f["visible"] + " | " + f["hidden"]
		}
		if len(keys) != 3 {
			t.Errorf("node %d: %d keys, want 3: %v", n.ID, len(keys), keys)
		}
		for key, want := range map[string][]string{"k": {"string", `"west"`, `"east"`}, "h": {"hash", `"f" = "west"`}, "mixed": {"set", "string"}} {
			for _, w := range want {
				if !strings.Contains(keys[key], w) {
					t.Errorf("node %d: %s: %q, want %q in it", n.ID, key, keys[key], w)
				}
			}
		}
		if got := len(n.Do("CONFLICTS", "COUNT", "5", "KEY", "[km]*").([]any)); got != 2 {
			t.Errorf("node %d: %d conflicts of keys [km]*", n.ID, got)
		}
	}
	if got := a.Error("CONFLICTS", "COUNT"); !strings.Contains(got, "syntax") {
		t.Errorf("%q", got)
	}
	a.Kill()
	a.Start()
	if got := len(a.Do("CONFLICTS").([]any)); got != 3 {
		t.Errorf("%d conflicts after kill -9", got)
	}
	if got := a.Do("GET", "k"); got != "west" {
		t.Errorf("k is %v", got)
	}
}
