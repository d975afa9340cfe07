package testbed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// levelLimit is how long nodes may take to become level unless a test says
// otherwise.
const levelLimit = 45 * time.Second

// clockApart is how far hybrid clocks may stand apart for a moment: a node that was
// killed starts behind the tags it had reserved.
const clockApart = 6 * time.Second

// Level waits until the nodes have equal vectors, and demands that their
// digests are equal too and that their Redises hold the same.
func (b *Bed) Level(nodes ...*Node) {
	b.Helper()
	b.LevelWithin(levelLimit, nodes...)
}

// LevelWithin is Level with a limit.
func (b *Bed) LevelWithin(limit time.Duration, nodes ...*Node) {
	b.Helper()
	b.LevelVectors(limit, nodes...)
	b.SameData(nodes...)
}

// LevelVectors is LevelWithin without a look at the data.
func (b *Bed) LevelVectors(limit time.Duration, nodes ...*Node) {
	b.Helper()
	var unequal time.Time // since when
	b.Wait(limit, Names(nodes)+" to be level", func() (bool, string) {
		var vectors, digests []string
		for _, n := range nodes {
			v, err := n.Try("NODE", "VECTOR")
			if err != nil {
				return false, fmt.Sprintf("%s: %v", n.name, err)
			}
			f := fieldsOf(v)
			vectors, digests = append(vectors, f["vector"]), append(digests, f["digest"])
		}
		if !same(vectors) {
			unequal = time.Time{}
			return false, "vectors differ: " + strings.Join(vectors, " and ")
		}
		if !same(digests) {
			// This is the one thing that must never be, unless a key has expired by one
			// node's hybrid clock and not yet by another's.
			if unequal.IsZero() {
				unequal = time.Now()
			}
			if time.Since(unequal) > clockApart {
				b.Fatalf("equal vectors %s, but digests differ: %s\n%s", vectors[0], strings.Join(digests, " and "), b.explain(nodes))
			}
			return false, "digests differ"
		}
		return true, ""
	})
}

// SameData demands that clients find the same at all nodes.
func (b *Bed) SameData(nodes ...*Node) {
	b.Helper()
	var diff string
	for range 3 { // a key may be gone that expires in a moment
		if diff = b.difference(nodes); diff == "" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.Fatalf("nodes show different data:\n%s", diff)
}

// explain is difference with what DESC says of the first keys that differ.
func (b *Bed) explain(nodes []*Node) string {
	b.Helper()
	out := []string{"now " + fmt.Sprint(time.Now().UnixMilli()), b.difference(nodes)}
	first := nodes[0].Dataset()
	for _, n := range nodes[1:] {
		for i, k := range DiffKeys(first, n.Dataset()) {
			if db, name, _ := strings.Cut(k, "/"); i < 3 && db == "0" {
				for _, m := range nodes {
					v, err := m.Try("DESC", name)
					out = append(out, fmt.Sprintf("%s: DESC %s: %v %v", m.name, name, v, err))
				}
			}
		}
	}
	return strings.Join(out, "\n")
}

func (b *Bed) difference(nodes []*Node) string {
	b.Helper()
	first := nodes[0].Dataset()
	var out []string
	for _, n := range nodes[1:] {
		data := n.Dataset() // while it is read, keys expire that the first has still
		for _, d := range DiffData(lasting(first), lasting(data)) {
			out = append(out, fmt.Sprintf("%s against %s: %s", nodes[0].name, n.name, d))
		}
	}
	return strings.Join(out, "\n")
}

func same(list []string) bool {
	return len(slices.Compact(slices.Clone(list))) == 1
}

// DiffKeys returns up to 20 keys in which two data sets differ.
func DiffKeys(a, b map[string]string) []string {
	var out []string
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if a[k] != b[k] && len(out) < 20 {
			out = append(out, k)
		}
	}
	return out
}

// DiffData tells how two data sets differ, in at most 20 lines.
func DiffData(a, b map[string]string) []string {
	var out []string
	for _, k := range DiffKeys(a, b) {
		out = append(out, fmt.Sprintf("%q: %s against %s", k, clip(orNothing(a[k])), clip(orNothing(b[k]))))
	}
	return out
}

// expiringField is a field of a hash with an expiry, as Dataset prints it.
var expiringField = regexp.MustCompile(` "(?:[^"\\]|\\.)*"="(?:[^"\\]|\\.)*" until (\d+)`)

// lasting drops the keys, and the fields of hashes, that have expired or do within
// a moment.
func lasting(data map[string]string) map[string]string {
	out := map[string]string{}
	soon := time.Now().UnixMilli() + 50
	for k, v := range data {
		at := strings.LastIndex(v, " expires ")
		_, expiry, _ := strings.Cut(v[at:], " expires ")
		if n, err := strconv.ParseInt(expiry, 10, 64); err == nil && n >= 0 && n <= soon {
			continue
		}
		if strings.HasPrefix(v, "hash ") {
			fields := expiringField.ReplaceAllStringFunc(v[:at], func(f string) string {
				if n, err := strconv.ParseInt(f[strings.LastIndexByte(f, ' ')+1:], 10, 64); err == nil && n <= soon {
					return ""
				}
				return f
			})
			if fields == "hash" {
				continue
			}
			v = fields + v[at:]
		}
		out[k] = v
	}
	return out
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// Dataset returns everything clients find at the node: by "database/key" the
// type, value and expiry.
func (n *Node) Dataset() map[string]string {
	n.bed.Helper()
	out, err := Dataset(func(db int) *redis.Client {
		return redis.NewClient(n.clientOptions(db))
	})
	if err != nil {
		n.bed.Fatalf("reading all data of %s: %v", n.name, err)
	}
	return out
}

// Dataset reads all 16 databases of a node or a Redis.
func Dataset(dial func(db int) *redis.Client) (map[string]string, error) {
	out := map[string]string{}
	for db := range 16 {
		c := dial(db)
		err := readDB(c, db, out)
		_ = c.Close()
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readDB(c *redis.Client, db int, out map[string]string) error {
	ctx := context.Background()
	if n, err := c.DBSize(ctx).Result(); n == 0 || err != nil {
		return err
	}
	seen := map[string]bool{}
	var cursor uint64
	for {
		keys, next, err := c.Scan(ctx, cursor, "", 1000).Result()
		if err != nil {
			return err
		}
		keys = slices.DeleteFunc(keys, func(k string) bool { was := seen[k]; seen[k] = true; return was })
		if err := readKeys(c, db, keys, out); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func readKeys(c *redis.Client, db int, keys []string, out map[string]string) error {
	if len(keys) == 0 {
		return nil
	}
	ctx := context.Background()
	pipe := c.Pipeline()
	types := make([]*redis.StatusCmd, len(keys))
	expiries := make([]*redis.Cmd, len(keys))
	for i, k := range keys {
		types[i], expiries[i] = pipe.Type(ctx, k), pipe.Do(ctx, "PEXPIRETIME", k)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	values := make([]redis.Cmder, len(keys))
	groups := make([]*redis.Cmd, len(keys)) // of streams
	for i, k := range keys {
		switch types[i].Val() {
		case "string":
			values[i] = pipe.Get(ctx, k)
		case "hash":
			values[i] = pipe.HGetAll(ctx, k)
		case "set":
			values[i] = pipe.SMembers(ctx, k)
		case "stream":
			values[i], groups[i] = pipe.Do(ctx, "XRANGE", k, "-", "+"), pipe.Do(ctx, "XINFO", "GROUPS", k)
		case "list":
			values[i] = pipe.LRange(ctx, k, 0, -1)
		case "zset":
			values[i] = pipe.ZRangeWithScores(ctx, k, 0, -1)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	due, err := fieldExpiries(c, keys, values)
	if err != nil {
		return err
	}
	for i, k := range keys {
		var value string
		switch v := values[i].(type) {
		case *redis.StringCmd:
			text := v.Val()
			if strings.HasPrefix(text, "HYLL") && len(text) > 16 {
				text = text[:8] + text[16:] // without the count that PFCOUNT keeps
			}
			value = fmt.Sprintf("%q", text)
		case *redis.MapStringStringCmd:
			var parts []string
			for _, f := range slices.Sorted(maps.Keys(v.Val())) {
				part := fmt.Sprintf("%q=%q", f, v.Val()[f])
				if at := due[i][f]; at > 0 {
					part += fmt.Sprint(" until ", at)
				}
				parts = append(parts, part)
			}
			value = strings.Join(parts, " ")
		case *redis.StringSliceCmd:
			members := v.Val()
			if types[i].Val() == "set" {
				members = slices.Sorted(slices.Values(members))
			}
			value = fmt.Sprintf("%q", members)
		case *redis.Cmd:
			value = fmt.Sprintf("%q %q", v.Val(), groups[i].Val())
		case *redis.ZSliceCmd:
			value = fmt.Sprintf("%v", v.Val())
		default:
			continue // expired meanwhile
		}
		if value == "" || value == "[]" || types[i].Val() == "string" && errors.Is(values[i].Err(), redis.Nil) {
			continue
		}
		out[fmt.Sprintf("%d/%s", db, k)] = fmt.Sprintf("%s %s expires %v", types[i].Val(), value, expiries[i].Val())
	}
	return nil
}

// noField is what HPEXPIRETIME says of a field that is not there.
const noField = -2

// fieldExpiries asks for the expiries of the fields of hashes; a plain Redis before
// 7.4 knows none.
func fieldExpiries(c *redis.Client, keys []string, values []redis.Cmder) ([]map[string]int64, error) {
	ctx := context.Background()
	out := make([]map[string]int64, len(keys))
	fields := make([][]string, len(keys))
	replies := make([]*redis.Cmd, len(keys))
	pipe := c.Pipeline()
	for i, k := range keys {
		hash, ok := values[i].(*redis.MapStringStringCmd)
		if !ok || len(hash.Val()) == 0 {
			continue
		}
		fields[i] = slices.Sorted(maps.Keys(hash.Val()))
		args := []any{"HPEXPIRETIME", k, "FIELDS", len(fields[i])}
		for _, f := range fields[i] {
			args = append(args, f)
		}
		replies[i] = pipe.Do(ctx, args...)
	}
	if pipe.Len() == 0 {
		return out, nil
	}
	if _, err := pipe.Exec(ctx); err != nil && !strings.Contains(err.Error(), "unknown command") && !strings.HasPrefix(err.Error(), "WRONGTYPE") {
		return nil, err
	}
	for i := range keys {
		if replies[i] == nil {
			continue
		}
		times, err := replies[i].Int64Slice()
		switch {
		case err == nil:
		case strings.HasPrefix(err.Error(), "WRONGTYPE"): // the last field has expired since it was read
			times = slices.Repeat([]int64{noField}, len(fields[i]))
		case strings.Contains(err.Error(), "unknown command"):
			continue
		default:
			return nil, err
		}
		out[i] = map[string]int64{}
		for j, at := range times {
			if at == noField { // it has expired since it was read
				at = 1
			}
			out[i][fields[i][j]] = at
		}
	}
	return out, nil
}

// kindOf returns the type of a key as Dataset prints it.
func kindOf(shown string) string {
	kind, _, _ := strings.Cut(shown, " ")
	return kind
}

// Rebuilt demands that the node's Redis holds what the cells say: it restarts
// the node with an empty view, which is then rebuilt from the cells, and compares
// what clients find before and after. The node must have a view of its own
// (spawn or embedded).
func (b *Bed) Rebuilt(n *Node) {
	b.Helper()
	before := n.Dataset()
	n.Stop()
	n.Start()
	after := lasting(n.Dataset())
	still := lasting(before)
	for k, was := range before {
		now, there := still[k]
		switch {
		case !there:
			delete(after, k) // a hash of which the last field has expired may have covered something
		case now != was && after[k] != "" && kindOf(after[k]) != kindOf(now):
			// Of the fields that have expired one was the newest, and what it covered is newer
			// than the rest.
			b.Logf("%s: %s was %s, is %s", n.name, k, was, after[k])
			delete(still, k)
			delete(after, k)
		}
	}
	if d := DiffData(still, after); len(d) > 0 {
		b.Fatalf("%s: the view, before and after it was rebuilt from the cells:\n%s", n.name, strings.Join(d, "\n"))
	}
}
