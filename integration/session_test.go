package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestConstDBSession is the session that ConstDB's README shows: two copies of
// constdb.toml in two directories, edited (id, alias, port), two processes
// started in them, and then its redis-cli commands, word for word but for the
// ports.
func TestConstDBSession(t *testing.T) {
	for _, view := range []string{"auto", "a Redis of its own", "embedded"} {
		t.Run(view, func(t *testing.T) {
			t.Parallel()
			bed := testbed.New(t)
			start := func(id int) *testbed.Node {
				redis := view
				if view == "a Redis of its own" {
					redis = bed.Redis(testbed.RedisOptions{}).Address()
				}
				return constdbNode(bed, id, redis)
			}
			a, b := start(1), start(2)
			meet := func() {
				equal(t, "meet", b.CLI("meet", a.Addr()), "1")
			}
			equal(t, "incr k1", a.CLI("incr", "k1"), "1")
			equal(t, "incr k2", b.CLI("incr", "k2"), "1")
			meet()
			eventually(bed, a, "1", "get", "k2")
			eventually(bed, b, "1", "get", "k1")
			equal(t, "incr k2", b.CLI("incr", "k2"), "2")
			eventually(bed, a, "2", "get", "k2")
			// ConstDB's README has OK here; Redis answers the number of new fields.
			equal(t, "hset h1 k1 v1", a.CLI("hset", "h1", "k1", "v1"), "1")
			eventually(bed, b, "v1", "hget", "h1", "k1")

			meet() // again: nothing changes
			equal(t, "members after a second MEET", b.Fields("NODE")["members"], "2")
			bed.Level(a, b)

			// The rest of the commands ConstDB has.
			equal(t, "decr", a.CLI("decr", "k1"), "0")
			equal(t, "sadd", a.CLI("sadd", "s1", "x", "y"), "2")
			bed.Level(a, b)
			equal(t, "srem", b.CLI("srem", "s1", "x"), "1")
			equal(t, "smembers", b.CLI("smembers", "s1"), "y")
			equal(t, "spop", b.CLI("spop", "s1"), "y")
			equal(t, "set", a.CLI("set", "t1", "text"), "OK")
			equal(t, "hgetall", a.CLI("hgetall", "h1"), "k1\nv1")
			equal(t, "hdel", a.CLI("hdel", "h1", "k1"), "1")
			equal(t, "del", a.CLI("del", "k1", "k2", "k3"), "2")
			bed.Level(a, b)
			equal(t, "keys", b.CLI("keys", "*"), "t1")
		})
	}
}

// constdbNode starts a node as ConstDB's README says: with an edited copy of
// constdb.toml in a directory of its own as the only argument.
func constdbNode(bed *testbed.Bed, id int, redis string) *testbed.Node {
	bed.Helper()
	example, err := os.ReadFile(filepath.Join("..", "constdb.toml.example"))
	if err != nil {
		bed.Fatalf("%v", err)
	}
	n := bed.Node(testbed.Options{ID: id, View: redis, Wrap: func(args []string) []string {
		text := string(example)
		set := func(key, value string) {
			line := regexp.MustCompile(`(?m)^#?` + key + ` *=.*$`)
			if !line.MatchString(text) {
				bed.Fatalf("constdb.toml.example has no key %s", key)
			}
			done := false
			text = line.ReplaceAllStringFunc(text, func(old string) string {
				if done {
					return old
				}
				done = true
				return key + " = " + value
			})
		}
		flag := func(name string) string {
			for i, a := range args {
				if a == name {
					return args[i+1]
				}
			}
			bed.Fatalf("no %s in %v", name, args)
			return ""
		}
		set("id", fmt.Sprint(id))
		set("alias", fmt.Sprintf("%q", fmt.Sprintf("node%d", id)))
		set("port", flag("--port"))
		set("gossip_port", flag("--gossip-port"))
		set("wan_port", flag("--wan-port"))
		set("redis", fmt.Sprintf("%q", redis))
		file := filepath.Join(bed.TempDir(), "constdb.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			bed.Fatalf("%v", err)
		}
		return []string{args[0], file}
	}})
	return n
}

// eventually waits until redis-cli prints what is wanted.
func eventually(bed *testbed.Bed, n *testbed.Node, want string, args ...string) {
	bed.Helper()
	bed.Wait(20*time.Second, strings.Join(args, " "), func() (bool, string) {
		got := n.CLI(args...)
		return got == want, got
	})
}

// TestBannerSaysWhatRuns: the line at the start names addresses and view.
func TestBannerSaysWhatRuns(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	n := bed.Node(testbed.Options{ID: 7, View: "auto"})
	for _, want := range []string{n.Addr(), "redis-server"} {
		if !strings.Contains(n.Log(), want) {
			t.Errorf("the log does not say %q:\n%s", want, n.Log())
		}
	}
}

// TestConfigMeetKeepsTrying: meet in the configuration names a node that
// starts later.
func TestConfigMeetKeepsTrying(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	later := bed.Node(testbed.Options{ID: 1})
	later.Stop()
	b := bed.Node(testbed.Options{ID: 2, Args: []string{"--meet", later.Addr()}})
	equal(t, "members while the other is down", b.Fields("NODE")["members"], "1")
	b.Do("SET", "k", "v")
	later.Start()
	bed.Level(later, b)
	equal(t, "k at the other", later.Do("GET", "k"), any("v"))
}

// TestMeetErrors: MEET fails with a reason that says what to do.
func TestMeetErrors(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	const secret = "0123456789abcdef"
	a := bed.Node(testbed.Options{ID: 1, Secret: secret})
	redis := bed.Redis(testbed.RedisOptions{})
	closed := fmt.Sprintf("127.0.0.1:%d", testbed.FreePort())
	other := func(opts testbed.Options) *testbed.Node { bed.Helper(); return bed.Node(opts) }
	tests := []struct {
		name   string
		node   *testbed.Node
		target string
		want   []string
	}{
		{"unreachable", a, closed, []string{"unreachable", closed}},
		{"a plain Redis", a, redis.Address(), []string{"not a replicatord node"}},
		{"no port", a, "localhost", []string{"'localhost' is not host:port"}},
		{"wrong secret", other(testbed.Options{ID: 2, Secret: "fedcba9876543210"}), a.Addr(), []string{"secret"}},
		{"no secret", other(testbed.Options{ID: 3}), a.Addr(), []string{"secret"}},
		{"wrong cluster", other(testbed.Options{ID: 4, Secret: secret, Args: []string{"--cluster", "test"}}), a.Addr(), []string{`cluster "test"`, `cluster "replicatord"`}},
		{"same id", other(testbed.Options{ID: 1, Secret: secret, Args: []string{"--alias", "impostor"}}), a.Addr(), []string{"id 1 is already taken", "node1", "impostor"}},
		{"itself", a, a.Addr(), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == nil {
				v, err := tt.node.Try("MEET", tt.target)
				if err == nil && v != int64(1) {
					t.Errorf("MEET itself replied %v", v)
				}
				return
			}
			begun := time.Now()
			got := tt.node.Error("MEET", tt.target)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("MEET %s: %q does not say %q", tt.target, got, want)
				}
			}
			if took := time.Since(begun); took > 12*time.Second {
				t.Errorf("MEET took %v to fail", took)
			}
		})
	}
	equal(t, "members after all refusals", a.Fields("NODE")["members"], "1")
	a.Do("SET", "k", "v")
	for _, tt := range tests[3:7] {
		equal(t, tt.name+": k at a stranger", tt.node.Do("EXISTS", "k"), any(int64(0)))
	}
}

// TestCommandLineErrors: a node that cannot start says why and ends with the
// documented exit code.
func TestCommandLineErrors(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	taken := bed.Node(testbed.Options{ID: 1})
	port := func() string { return fmt.Sprint(testbed.FreePort()) }
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"port taken", []string{"--port", fmt.Sprint(taken.Port), "--gossip-port", port(), "--wan-port", port()}, 1, fmt.Sprint(taken.Port)},
		{"gossip port taken", []string{"--port", port(), "--gossip-port", fmt.Sprint(taken.GossipPort), "--wan-port", port()}, 1, fmt.Sprint(taken.GossipPort)},
		{"exchange port taken", []string{"--port", port(), "--gossip-port", port(), "--wan-port", fmt.Sprint(taken.WANPort)}, 1, fmt.Sprint(taken.WANPort)},
		{"directory in use", []string{"--port", port(), "--gossip-port", port(), "--wan-port", port(), "--dir", taken.Dir}, 1, "in use"},
		{"directory not writable", []string{"--port", port(), "--gossip-port", port(), "--wan-port", port(), "--dir", "/proc/replicatord"}, 1, "/proc/replicatord"},
		{"no such server", []string{"--port", port(), "--gossip-port", port(), "--wan-port", port(), "--redis", "spawn", "--redis-binary", "/nonexistent/redis"}, 1, "/nonexistent/redis"},
		{"open to all", []string{"--bind", "0.0.0.0"}, 2, "requirepass"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(bed.Program(), tt.args...)
			cmd.Dir = t.TempDir()
			timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
			out, _ := cmd.CombinedOutput()
			timer.Stop()
			if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(out), tt.want) {
				t.Errorf("exit code %d, want %d, and %q in:\n%s", code, tt.code, tt.want, out)
			}
		})
	}
	equal(t, "the running node", taken.CLI("ping"), "PONG")
}

// TestArgumentsForPeople: the arguments that redis-cli shows while one types are those that the Redis behind
// the node tells, in both protocols; without it commands are described all the same.
func TestArgumentsForPeople(t *testing.T) {
	t.Parallel()
	bed := testbed.New(t)
	view := bed.Redis(testbed.RedisOptions{})
	n := bed.Node(testbed.Options{ID: 1, Args: []string{"--redis", view.Address()}})
	docs := func(addr string, protocol int, names ...any) map[any]any {
		c := redis.NewClient(&redis.Options{Addr: addr, Protocol: protocol})
		defer c.Close()
		got, err := c.Do(t.Context(), append([]any{"COMMAND", "DOCS"}, names...)...).Result()
		if err != nil {
			t.Fatal(err)
		}
		out, ok := got.(map[any]any)
		if list, isList := got.([]any); isList {
			out, ok = map[any]any{}, true
			for i := 0; i+1 < len(list); i += 2 {
				out[list[i]] = list[i+1]
			}
		}
		if !ok {
			t.Fatalf("%T is no map", got)
		}
		return out
	}
	arguments := func(of any) any {
		switch of := of.(type) {
		case map[any]any:
			return of["arguments"]
		case []any:
			if i := slices.Index(of, any("arguments")); i >= 0 {
				return of[i+1]
			}
		}
		return nil
	}
	for _, protocol := range []int{2, 3} {
		for _, names := range [][]any{{"set"}, {"zrange", "client|kill", "nosuchcommand"}} {
			got, want := docs(n.Addr(), protocol, names...), docs(view.Address(), protocol, names...)
			if len(got) != len(want) {
				t.Errorf("%d commands of %v are described, not %d", len(got), names, len(want))
			}
			for name := range want {
				g, w := arguments(got[name]), arguments(want[name])
				if w == nil || !reflect.DeepEqual(g, w) {
					t.Errorf("protocol %d, %v: arguments\n     %v\nnot  %v", protocol, name, g, w)
				}
			}
		}
		if all := docs(n.Addr(), protocol); len(all) < 240 || arguments(all["hset"]) == nil || arguments(all["meet"]) == nil {
			t.Errorf("protocol %d: %d commands are described, HSET: %v", protocol, len(all), all["hset"])
		}
	}
	view.Kill()
	bed.Wait(10*time.Second, "commands to be described without the Redis", func() (bool, string) {
		all := docs(n.Addr(), 3)
		return len(all) >= 240 && arguments(all["hset"]) == nil, fmt.Sprintf("%d commands, HSET: %v", len(all), all["hset"])
	})
}
