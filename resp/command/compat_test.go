package command

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what is generated anew")

// differs says how commands that the node carries out differ from Redis's.
var differs = map[string]string{
	"INCRBYFLOAT":     "adds in decimals, exactly, where Redis rounds to a C `long double`",
	"HINCRBYFLOAT":    "adds in decimals, exactly, where Redis rounds to a C `long double`",
	"BITFIELD":        "makes no string longer than 512 MB, where Redis lets an integer reach up to 8 bytes beyond",
	"HLEN":            "counts what shows; Redis counts also fields that have expired and that it has not reclaimed yet",
	"HSETEX":          "`KEEPTTL` makes a field that has expired anew, and lasting; in Redis it has the expiry that has passed until it is reclaimed",
	"COMMAND":         "in order of name; without what the node refuses",
	"COMMAND|DOCS":    "summary, version and group; the arguments are those that the Redis behind the node tells, and may name options that the node refuses",
	"COMMAND|INFO":    "without the notes on keys",
	"ACL|CAT":         "without what the node refuses",
	"CONFIG|GET":      "what a node does in its own way (`appendonly`, `save`, `repl-*` …) is shown as a Redis would that does likewise, or as it was set",
	"CONFIG|SET":      "the same parameters can be set and change nothing; ports, addresses and a `maxmemory-policy` that evicts are refused",
	"DEBUG":           "what tests and client libraries need of it, see `DEBUG HELP`; what is about the inside of a Redis is refused",
	"INFO":            "tells of the node, with sections of its own; figures of memory and of the data are those of the Redis behind it",
	"LASTSAVE":        "see `SAVE`",
	"SAVE":            "does nothing: what was acknowledged is in the node's log, see `fsync`",
	"BGSAVE":          "does nothing, as `SAVE`",
	"BGREWRITEAOF":    "does nothing, as `SAVE`",
	"LOLWUT":          "draws something else",
	"REPLICAOF":       "only `NO ONE`, which changes nothing; the rest is refused: `MEET` joins nodes",
	"SLAVEOF":         "as `REPLICAOF`",
	"ROLE":            "always a master without replicas; `REPLICAS` shows the members",
	"WAIT":            "counts the members that have it on disk",
	"WAITAOF":         "counts the members that have it on disk; Redis has this command since 7.2",
	"SWAPDB":          "renames every key across, up to 100,000 elements in all; writes of other nodes that this one has not seen stay in the database where they were made",
	"DUMP":            "of a hash whose fields expire is refused unless the Redis behind the node has such expiries itself: Redis 7.4, Valkey 9",
	"RESTORE":         "`IDLETIME` and `FREQ` hold at this node, not at others and not for streams",
	"PFDEBUG":         "`DECODE` shows the form in which the node has the registers, which may join runs that Redis keeps apart",
	"OBJECT|IDLETIME": "does not hear of reads that the node answers from memory (`read_cache` in `[view]`, and simple reads of what was used lately)",
	"OBJECT|FREQ":     "does not hear of reads that the node answers from memory (`read_cache` in `[view]`, and simple reads of what was used lately)",
	"SORT":            "`STORE` keeps the result as it was at this node",
	"XADD":            "the second part of an id that `*` makes ends with the node's id in its last four decimal digits, so that two nodes never make the same; `~` as with `XTRIM`",
	"XTRIM":           "`~` removes whole hundreds (`stream-node-max-entries`) counted from the first entry ever, whatever their size, where Redis begins anew when a stream was empty",
	"XINFO|STREAM":    "the radix tree is that of full nodes",
	"MEMORY|USAGE":    "of a stream, what its placeholder in the view takes",
	"FLUSHDB":         "removes what this node has seen; a write of another node still under way stays. With `ASYNC`, outside transactions and scripts, it goes in steps: others are served meanwhile, and see a part of the keys; what they write is removed too, at the end",
	"FLUSHALL":        "removes what this node has seen; a write of another node still under way stays. With `ASYNC`, outside transactions and scripts, it goes in steps: others are served meanwhile, and see a part of the keys; what they write is removed too, at the end",
}

// newer are commands of later versions that the table does not have, and of the
// modules that come with Redis 8. The node answers them as Redis 7.0 does.
var newer = []struct{ since, names string }{
	{"7.2", "CLUSTER MYSHARDID"},
	{"8.0, modules", "JSON.*, FT.*, TS.*, BF.*, CF.*, CMS.*, TOPK.*, TDIGEST.*, V* (vector sets)"},
	{"8.2", "XACKDEL, XDELEX, CLUSTER SLOT-STATS"},
}

var groupTitles = []struct{ group, title string }{
	{"generic", "Keys"}, {"string", "Strings"}, {"bitmap", "Bitmaps"}, {"hash", "Hashes"}, {"list", "Lists"}, {"set", "Sets"},
	{"sorted-set", "Sorted sets"}, {"geo", "Geo"}, {"stream", "Streams"}, {"hyperloglog", "HyperLogLogs"}, {"transactions", "Transactions"},
	{"scripting", "Scripts and functions"}, {"pubsub", "Publish and subscribe"}, {"connection", "Connections"}, {"server", "Server"},
	{"cluster", "Redis Cluster"}, {"sentinel", "Sentinel"}, {"", "Others"},
}

// TestCompatibility makes docs/COMPATIBILITY.md of the command table, and fails
// if the file is another. go test ./resp/command -run TestCompatibility -rewrite
// writes it.
func TestCompatibility(t *testing.T) {
	const path = "../../docs/COMPATIBILITY.md"
	for name := range differs {
		if c := byFullNameAny(name); c == nil || c.Refused != "" && c.Reads == nil {
			t.Errorf("%s is not carried out: how can it differ?", name)
		}
	}
	for _, n := range newer {
		for _, name := range strings.Split(n.names, ", ") {
			if c := named(commands, []byte(strings.Fields(name)[0])); c != nil && !strings.Contains(name, " ") {
				t.Errorf("%s is in the table", name)
			}
		}
	}
	text := compatibility(t)
	if *rewrite {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != text {
		t.Errorf("%s is out of date: go test ./resp/command -run TestCompatibility -rewrite", path)
	}
}

func compatibility(t *testing.T) string {
	var b strings.Builder
	b.WriteString(`# What a node does of Redis

<!-- Generated from the command table: go test ./resp/command -run TestCompatibility -rewrite -->

Every command of Redis 7.0, and the expiry of hash fields of later versions, as a node that has a real Redis behind it treats it. *As Redis* means: reply for reply,
and what is written is at every node. (The texts of HELP name what the node has.) What concurrent writes become is in [SEMANTICS.md](SEMANTICS.md). What is
refused is refused with an error that names the command and says why; nothing is passed to the Redis behind a node unlogged.

`)
	groups := map[string][]*Command{}
	var total, same, differ, refused int
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		for _, c := range append([]*Command{commands[name]}, commands[name].Sub...) {
			if len(c.Sub) > 0 && differs[c.Name] == "" {
				continue
			}
			g := c.Group
			for _, other := range []string{redisGroups[strings.ToLower(name)], commands[name].Group} {
				if g == "" {
					g = other
				}
			}
			if c.Flags&Admin != 0 || !slices.ContainsFunc(groupTitles, func(t struct{ group, title string }) bool { return t.group == g }) {
				continue // the node's own
			}
			groups[g] = append(groups[g], c)
			total++
			switch {
			case c.Refused != "" && c.Reads == nil:
				refused++
			case c.Refused != "" || differs[c.Name] != "":
				differ++
			default:
				same++
			}
		}
	}
	fmt.Fprintf(&b, "%d commands and subcommands: %d as Redis, %d with a difference, %d refused.\n", total, same, differ, refused)
	for _, g := range groupTitles {
		list := groups[g.group]
		if len(list) == 0 {
			continue
		}
		slices.SortFunc(list, func(a, b *Command) int { return strings.Compare(a.Name, b.Name) })
		fmt.Fprintf(&b, "\n## %s\n", g.title)
		var as, rows []string
		refused := map[string][]string{}
		for _, c := range list {
			name := "`" + strings.ReplaceAll(c.Name, "|", " ") + "`"
			switch {
			case c.Refused != "" && c.Reads == nil:
				refused[c.Refused] = append(refused[c.Refused], name)
			case c.Refused != "":
				rows = append(rows, fmt.Sprintf("| %s | in part | %s |", name, c.Refused))
			case differs[c.Name] != "":
				rows = append(rows, fmt.Sprintf("| %s | differs | %s |", name, differs[c.Name]))
			default:
				as = append(as, name)
			}
		}
		for _, why := range slices.Sorted(maps.Keys(refused)) {
			rows = append(rows, fmt.Sprintf("| %s | refused | %s |", strings.Join(refused[why], ", "), strings.TrimPrefix(why, "ERR ")))
		}
		if len(as) > 0 {
			fmt.Fprintf(&b, "\nAs Redis: %s\n", strings.Join(as, ", "))
		}
		if len(rows) > 0 {
			fmt.Fprintf(&b, "\n| | | |\n|---|---|---|\n%s\n", strings.Join(rows, "\n"))
		}
	}
	b.WriteString("\n## Later versions of Redis\n\nThe node answers as Redis 7.0 does: `ERR unknown command`.\n\n| since | commands |\n|---|---|\n")
	for _, n := range newer {
		fmt.Fprintf(&b, "| %s | %s |\n", n.since, n.names)
	}
	b.WriteString(embeddedSection)
	b.WriteString(suiteSection(t))
	return b.String()
}

// embeddedSection is held against the embedded store by TestEmbeddedSaysWhatItLacks in node.
const embeddedSection = `
## With the embedded store

Where no redis-server is installed a node has a store of its own, for trying things out. What is written is the same there, and merges alike; reads
that are not written by the node itself are those of that store:

- These need a real Redis, and are refused with an error that says so: ` + "`BITFIELD_RO`, `BITFIELD` that only reads, `DUMP`, `GEOHASH`, `LCS`, `MEMORY STATS`, `OBJECT`, `PFSELFTEST`, `RESTORE`, `SORT`, `SORT_RO`, `SUBSTR`, `ZDIFF`, `ZINTERCARD`" + `.
  So are some options of others (` + "`BITCOUNT … BIT`, `BITPOS … BIT`" + `), and random draws of a million elements and more at once.
- Coordinates and distances are rounded, scans come in another order, an expiry more than 292 years ahead is shown wrong.
- Wrong arguments of reads may be answered with other errors than Redis's, or be overlooked.
`

// redisGroups are the groups of refused commands, whose rows have none.
var redisGroups = map[string]string{
	"migrate": "generic", "restore-asking": "server", "monitor": "server", "multi": "transactions", "exec": "transactions", "discard": "transactions",
	"watch": "transactions", "unwatch": "transactions", "eval": "scripting", "evalsha": "scripting", "eval_ro": "scripting", "evalsha_ro": "scripting",
	"script": "scripting", "function": "scripting", "fcall": "scripting", "fcall_ro": "scripting", "subscribe": "pubsub", "unsubscribe": "pubsub",
	"psubscribe": "pubsub", "punsubscribe": "pubsub", "ssubscribe": "pubsub", "sunsubscribe": "pubsub", "publish": "pubsub", "spublish": "pubsub", "pubsub": "pubsub",
}

// suiteSection lists the tests of Redis's suite that do not pass, with reasons,
// from the file that scripts/redis-suite goes by.
func suiteSection(t *testing.T) string {
	f, err := os.Open("../../scripts/redissuite/expected.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b strings.Builder
	b.WriteString(`
## Redis's own test suite

` + "`scripts/redis-suite`" + ` runs the suite of Redis 7.0 against a node (CONTRIBUTING.md says how). These tests pass on plain Redis
and not through a node:
`)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, "= "):
			fmt.Fprintf(&b, "\n%s:\n\n", line[2:])
		default:
			unit, name, _ := strings.Cut(strings.TrimPrefix(line, "! "), ": ")
			fmt.Fprintf(&b, "- %s: %s\n", unit, name)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
