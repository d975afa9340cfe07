package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
	"github.com/replicatord/replicatord/resp"
)

// clientOf returns a function that sends a node's client commands and returns
// their replies as text.
func clientOf(t *testing.T, n *Node) func(line string) string {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: n.cfg.Addr(), Protocol: 2, DisableIdentity: true, PoolSize: 1, MaxRetries: -1, ReadTimeout: time.Minute})
	t.Cleanup(func() { _ = c.Close() })
	return func(line string) string {
		t.Helper()
		args := []any{}
		for _, w := range strings.Fields(line) {
			args = append(args, w)
		}
		v, err := c.Do(context.Background(), args...).Result()
		if err != nil {
			return "-" + err.Error()
		}
		return fmt.Sprint(v)
	}
}

func expect(t *testing.T, do func(string) string, line, want string) {
	t.Helper()
	if got := do(line); got != want {
		t.Errorf("%s: %q, want %q", line, got, want)
	}
}

// WAIT counts the members that have the writes on disk, waits for them no
// longer than told, and is not content with those that are cut off.
func TestWait(t *testing.T) {
	a, b := startTestNode(t, 1, nil), startTestNode(t, 2, nil)
	one, two := clientOf(t, a), clientOf(t, b)
	expect(t, one, "SET k v", "OK")
	expect(t, one, "WAIT 0 1000", "0")
	expect(t, one, "WAIT 1 20", "0")
	expect(t, one, "WAITAOF 1 0 10000", "[1 0]")
	expect(t, one, "MEET "+b.cfg.Addr(), "1")
	expect(t, one, "SET k w", "OK")
	expect(t, one, "WAIT 1 20000", "1")
	expect(t, two, "GET k", "w")
	expect(t, one, "SET k x", "OK")
	expect(t, one, "WAITAOF 1 1 20000", "[1 1]")
	expect(t, two, "NODE PAUSE", "OK")
	expect(t, one, "SET k y", "OK")
	begun := time.Now()
	expect(t, one, "WAIT 1 50", "0")
	if took := time.Since(begun); took < 50*time.Millisecond {
		t.Errorf("waited %v", took)
	}
	expect(t, two, "NODE RESUME", "OK")
	expect(t, one, "WAIT 5 1", "0")
	expect(t, one, "WAIT 1 0", "1")
	expect(t, one, "WAIT x 0", "-ERR value is not an integer or out of range")
	expect(t, one, "WAIT 0 -1", "-ERR timeout is negative")
	expect(t, one, "WAIT 0 x", "-ERR timeout is not an integer or out of range")
	expect(t, one, "WAITAOF 2 0 0", "-ERR value is out of range, value must between 0 and 1")
}

// The view is filled again as it was, and equal data have equal digests
// however they came about.
func TestDebugReloadAndDigest(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis, c.EnableDebugCommand = RedisSpawn, resp.DebugLocal })
	do := clientOf(t, n)
	zero := strings.Repeat("0", 40)
	expect(t, do, "DEBUG DIGEST", zero)
	for _, line := range []string{"SET s v", "HSET h a 1 b 2 c 3", "SADD m x y z", "SET e v EX 1000"} {
		do(line)
	}
	digest := do("DEBUG DIGEST")
	if len(digest) != 40 || digest == zero {
		t.Fatalf("digest %q", digest)
	}
	values := do("DEBUG DIGEST-VALUE s h m e nothing")
	expect(t, do, "DEBUG RELOAD", "OK")
	expect(t, do, "DEBUG DIGEST", digest)
	expect(t, do, "DEBUG LOADAOF", "OK")
	expect(t, do, "DEBUG DIGEST-VALUE s h m e nothing", values)
	if n := n.recovery.rebuilds.Load(); n < 2 {
		t.Errorf("the view was filled %d times", n)
	}
	do("FLUSHALL")
	for _, line := range []string{"SADD m z", "SADD m y x", "HSET h c 3", "HSET h b 2 a 1", "SET s v", "SET e v EX 500"} {
		do(line)
	}
	expect(t, do, "DEBUG DIGEST", digest)
	do("SET s w")
	if do("DEBUG DIGEST") == digest {
		t.Error("other data have the same digest")
	}
	if got := do("DEBUG OBJECT s"); !strings.HasPrefix(got, "Value at:0x0 refcount:1 encoding:embstr serializedlength:2 ") {
		t.Errorf("OBJECT: %q", got)
	}
	expect(t, do, "DEBUG OBJECT nothing", "-ERR no such key")
	expect(t, do, "DEBUG POPULATE 3 p 10", "OK")
	expect(t, do, "MGET p:0 p:2 p:3", "[value:0\x00\x00\x00 value:2\x00\x00\x00 <nil>]")
	expect(t, do, "DEBUG CHANGE-REPL-ID", "-ERR the node replicates in its own way: it has no replication ID to change")
	if got := do("DEBUG SEGFAULT"); !strings.HasPrefix(got, "-ERR DEBUG SEGFAULT is about the inside of a Redis") {
		t.Errorf("SEGFAULT: %q", got)
	}
}

// How the view stores things can be set, stays so when the view comes back, and
// changes nothing of the data.
func TestViewParameters(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis, c.EnableDebugCommand = RedisSpawn, resp.DebugYes })
	do := clientOf(t, n)
	do("HSET h a 1 b 2 c 3")
	expect(t, do, "OBJECT ENCODING h", "listpack")
	expect(t, do, "CONFIG SET hash-max-listpack-entries 2", "OK")
	expect(t, do, "CONFIG GET hash-max-ziplist-entries", "[hash-max-ziplist-entries 2]")
	expect(t, do, "CONFIG SET hash-max-listpack-entries x", "-ERR CONFIG SET failed (possibly related to argument 'hash-max-listpack-entries') - argument couldn't be parsed into an integer")
	expect(t, do, "DEBUG RELOAD", "OK")
	expect(t, do, "OBJECT ENCODING h", "hashtable")
	expect(t, do, "CONFIG GET hash-max-listpack-entries", "[hash-max-listpack-entries 2]")
}

// min-replicas-to-write counts the members that are there and have what was
// written.
func TestMinReplicas(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis = RedisSpawn })
	do := clientOf(t, n)
	const refusal = "-NOREPLICAS Not enough good replicas to write."
	expect(t, do, "CONFIG SET min-replicas-to-write 1", "OK")
	expect(t, do, "SET k v", refusal)
	expect(t, do, "EVAL return(redis.call('exists','k')) 0", "0")
	if got := do("EVAL return(redis.call('set','k','v')) 0"); !strings.HasPrefix(got, refusal) {
		t.Errorf("a script that writes: %q", got)
	}
	t.Run("with a member", func(t *testing.T) {
		together(t, n, startTestNode(t, 2, nil))
		eventually(t, "the member is seen", func() bool { return do("SET k v") == "OK" })
	})
	eventually(t, "it is seen to be away", func() bool { return do("SET k w") == refusal })
	expect(t, do, "GET k", "v")
	expect(t, do, "CONFIG SET min-replicas-to-write 0", "OK")
	expect(t, do, "SET k w", "OK")
}

// Beyond maxmemory what needs memory is refused, and only that; nothing is
// evicted.
func TestMaxMemory(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis = RedisSpawn })
	do := clientOf(t, n)
	do("SET k v")
	expect(t, do, "CONFIG SET maxmemory 1", "OK")
	expect(t, do, "SET k w", "-OOM command not allowed when used memory > 'maxmemory'.")
	expect(t, do, "GET k", "v")
	expect(t, do, "DEL other", "0")
	if got := do("CONFIG SET maxmemory-policy allkeys-lru"); !strings.Contains(got, "a node does not evict") {
		t.Errorf("maxmemory-policy: %q", got)
	}
	expect(t, do, "CONFIG SET maxmemory 1gb", "OK")
	expect(t, do, "SET k w", "OK")
	expect(t, do, "CONFIG SET maxmemory 0", "OK")
	expect(t, do, "CONFIG GET maxmemory", "[maxmemory 0]")
	for _, field := range []string{"used_memory:", "used_memory_peak:", "node_used_memory:", "mem_fragmentation_ratio:", "maxmemory:0\r\n"} {
		if info := do("INFO memory"); strings.Count(info, "\n"+field) != 1 {
			t.Errorf("no %s in %s", field, info)
		}
	}
	if info := do("INFO stats"); !strings.Contains(info, "\nkeyspace_hits:") || strings.Contains(info, "\nkeyspace_hits:0\r\n") { // the node looks at keys, too
		t.Errorf("hits: %s", info)
	}
	// What the node answers from memory counts as what its Redis answers.
	count := func(field string) (n int) {
		_, rest, _ := strings.Cut(do("INFO stats"), "\n"+field+":")
		text, _, _ := strings.Cut(rest, "\r")
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Errorf("%s: %v", field, err)
		}
		return n
	}
	for read, field := range map[string]string{"EXISTS k": "keyspace_hits", "EXISTS nothing": "keyspace_misses"} {
		was := count(field)
		if do(read); count(field) == was {
			t.Errorf("%s: %s is %d still", read, field, was)
		}
	}
}

// A node that others can reach is not started with users of whom the default
// one needs no password.
func TestACLFileAndProtectedMode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.acl")
	for text, fault := range map[string]string{
		"user default on nopass ~* +@all": "without a password",
		"user default on >pw ~* +@all":    "",
		"user a on nopass":                "without a password",
		"nonsense":                        "should start with user keyword",
	} {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := DefaultConfig()
		cfg.ID, cfg.Redis, cfg.Dir, cfg.ACLFile, cfg.Bind, cfg.Advertise = 1, RedisEmbedded, t.TempDir(), file, "0.0.0.0", "127.0.0.1"
		cfg.Secret = "a secret of some length"
		cfg.Port, cfg.GossipPort, cfg.WANPort = testbed.FreePort(), testbed.FreePort(), testbed.FreePort()
		n, err := Start(context.Background(), cfg, slog.New(slog.DiscardHandler))
		if n != nil {
			_ = n.Stop(context.Background())
		}
		if (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
