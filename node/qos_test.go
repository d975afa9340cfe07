package node

import (
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// The first rule that fits decides, by database and by name.
func TestQoSRules(t *testing.T) {
	cfg, faults := loadText(t, `
[[qos]]
db = 3
keys = "queue:*"
lane = "idle"
[[qos]]
keys = "queue:[ab]?"
lane = "realtime"
[[qos]]
db = 0
keys = "log:*"
lane = "low"
[[qos]]
db = 7
lane = "idle"
`)
	if faults != "" {
		t.Fatal(faults)
	}
	lane := cfg.lanes()
	for _, tt := range []struct {
		db   uint8
		name string
		want string
	}{
		{0, "queue:a1", "realtime"}, {3, "queue:a1", "idle"}, {0, "queue:c1", "high"}, {0, "queue:a", "high"},
		{0, "log:", "low"}, {1, "log:", "high"}, {7, "", "idle"}, {7, "queue:b\x00", "realtime"}, {0, "xqueue:a1", "high"},
		{command.SystemDB, "queue:a1", "high"},
	} {
		if got := lane(crdt.Key{DB: tt.db, Name: tt.name}); got.String() != tt.want {
			t.Errorf("%q of database %d is in lane %v, want %s", tt.name, tt.db, got, tt.want)
		}
	}
	if none := (&Config{}).lanes(); none != nil {
		t.Error("without rules there is one")
	}
}

// A command is one entry, in the lane of its most urgent key, and so is a
// transaction; what follows in other lanes is not drawn into it.
func TestUnitsHaveOneLane(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) {
		c.Fsync = FsyncAlways
		c.QoS = []QoSRule{{DB: AnyDB, Keys: "rt*", Lane: "realtime"}, {DB: AnyDB, Keys: "bulk*", Lane: "idle"}}
	})
	exec := &resp.Request{Cmd: &command.Command{Name: "EXEC"}}
	for _, words := range [][]string{{"SET", "bulk1", "x"}, {"INCR", "k"}, {"SADD", "rt1", "x"}} {
		exec.Subs = append(exec.Subs, request(nil, words...))
	}
	own := n.log.Identity().Origin
	entries := func(l crdt.Lane) (out []crdt.Entry) {
		es, _, err := n.log.Read(own|crdt.Stream(l), 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return es
	}
	steps := []struct {
		req  *resp.Request
		lane crdt.Lane
		keys int
	}{
		{request(nil, "SET", "bulk1", "a"), 3, 1},
		{request(nil, "SET", "k", "1"), 1, 1},
		{request(nil, "MSET", "bulk1", "b", "rt1b", "c", "k2", "d"), 0, 3},
		{request(nil, "DEL", "bulk1", "k2"), 1, 2},
		{request(nil, "SET", "bulk1", "e"), 3, 1},
		{exec, 0, 3},
		{request(nil, "FLUSHALL"), 1, 0},
	}
	for i, s := range steps {
		before := [crdt.Lanes]int{}
		for l := range before {
			before[l] = len(entries(crdt.Lane(l)))
		}
		if out := run(n, s.req); out == "" || out[0] == '-' {
			t.Fatalf("step %d: %q", i, out)
		}
		for l := range crdt.Lane(crdt.Lanes) {
			es := entries(l)[before[l]:]
			if want := 0; l != s.lane && len(es) != want {
				t.Errorf("step %d: %d entries in lane %v", i, len(es), l)
			}
			if l != s.lane {
				continue
			}
			if len(es) != 1 {
				t.Fatalf("step %d: %d entries in lane %v, want one", i, len(es), l)
			}
			keys := map[crdt.Key]bool{}
			for _, d := range es[0].Deltas {
				keys[d.ID.Key] = true
			}
			if s.keys > 0 && len(keys) != s.keys {
				t.Errorf("step %d: the entry has %d keys, want %d", i, len(keys), s.keys)
			}
		}
	}
}
