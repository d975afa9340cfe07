package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/command"
)

// adoptMeta is set while an adoption is under way, so that one which was cut
// off can be made again.
const adoptMeta = "adopt/active"

// adoptable are the types of keys a node can take over.
var adoptable = map[string]bool{"string": true, "hash": true, "set": true, "zset": true, "list": true, "stream": true}

// adoptView makes the keys of a Redis that already holds data this node's own:
// each is logged as if it had been written now, with its expiry. It looks at
// the types first and takes nothing if there is one it cannot take. The Redis
// itself is left as it is, but for mark, which then says that it is this
// node's. It returns the number of keys.
func adoptView(ctx context.Context, conn *viewConn, x *executor, logger *slog.Logger, total int, mark []byte) (int, error) {
	logger.Info("adopting the keys of the Redis behind this node", "keys", total)
	others := map[string]int{}
	err := conn.scan(ctx, func(db int, keys []string) error {
		types, err := conn.types(ctx, keys)
		for _, t := range types {
			if !adoptable[t] && t != "none" {
				others[t]++
			}
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("adopt: %w", err)
	}
	if len(others) > 0 {
		var list []string
		for _, t := range slices.Sorted(maps.Keys(others)) {
			list = append(list, fmt.Sprintf("%d of type %s", others[t], t))
		}
		return 0, fmt.Errorf("%w: it holds keys that this version can't replicate: %s. Nothing was taken; remove them or use another Redis", errForeign, strings.Join(list, ", "))
	}
	var trouble error
	if err := x.Run(func(c *Core) { trouble = c.setMeta(adoptMeta, []byte{1}) }); err != nil || trouble != nil {
		return 0, errors.Join(err, trouble)
	}
	done, told := 0, time.Now()
	err = conn.scan(ctx, func(db int, keys []string) error {
		taken, err := conn.read(ctx, keys)
		if err != nil {
			return err
		}
		var trouble error
		if err := x.Run(func(c *Core) { trouble = c.adoptKeys(uint8(db), taken, false) }); err != nil || trouble != nil {
			return errors.Join(err, trouble)
		}
		done += len(taken)
		if time.Since(told) > time.Second {
			told = time.Now()
			logger.Info("adopting", "done", done, "of", total)
		}
		return nil
	})
	if err == nil {
		err = conn.mark(mark, nil)
	}
	if err == nil {
		var trouble error
		err = x.Run(func(c *Core) { trouble = c.setMeta(adoptMeta, nil) })
		err = errors.Join(err, trouble)
	}
	if err != nil {
		return done, fmt.Errorf("adopt stopped after %d of %d keys: %w. Start with --adopt again to go on", done, total, err)
	}
	logger.Info("adopted", "keys", done)
	return done, nil
}

// adopted is one key as read from the Redis to adopt.
type adopted struct {
	name   string
	str    []byte
	fields map[string]string
	due    map[string]int64 // expiries of fields
	set    []string
	scores []redis.Z
	list   []string
	stream [][][]byte // commands that make it
	expiry int64
	exact  bool // the expiry is just what the view has
	gone   bool // it was deleted
	mine   bool // it is not to be taken
}

// adoptKeys logs keys as written now; replace says that they take the place of
// what is there. The view has them as they are.
func (c *Core) adoptKeys(db uint8, keys []adopted, replace bool) error {
	if err := c.Commit(); err != nil {
		return err
	}
	c.startLocal()
	for _, a := range keys {
		k := crdt.Key{DB: db, Name: a.name}
		c.writer.SetLane(c.laneOfKey(k))
		_, stale := c.dirty[k]
		c.Defer(func(error) {
			// Of a stream the view is to have a placeholder.
			if !stale && a.stream == nil && (a.expiry == 0 || a.exact) {
				delete(c.dirty, k)
			}
		})
		if replace {
			c.writer.Remove(k)
		}
		switch {
		case a.gone:
		case a.fields != nil:
			for _, f := range slices.Sorted(maps.Keys(a.fields)) {
				c.writer.SetElem(k, crdt.KindField, f, []byte(a.fields[f]))
			}
			for _, f := range slices.Sorted(maps.Keys(a.due)) {
				c.writer.SetFieldExpiry(k, f, a.due[f])
			}
		case a.set != nil:
			for _, m := range a.set {
				c.writer.SetElem(k, crdt.KindMember, m, nil)
			}
		case a.scores != nil:
			for _, m := range a.scores {
				c.writer.SetElem(k, crdt.KindScored, m.Member.(string), crdt.FormatScore(m.Score))
			}
		case a.list != nil:
			values := make([][]byte, len(a.list))
			for i, v := range a.list {
				values[i] = []byte(v)
			}
			if err := c.writer.PushItems(k, false, values); err != nil {
				return c.abort(err)
			}
		case a.stream != nil:
			c.writer.Remove(k) // what an adoption that was cut off took of it
			ctx := command.Context{Tx: c.unit(), DB: db, Out: command.Reply{Proto: 2}}
			for _, args := range a.stream {
				if raw := ctx.Call(args); len(raw) > 0 && raw[0] == '-' {
					return c.abort(fmt.Errorf("stream %q: %s", a.name, bytes.TrimSpace(raw[1:])))
				}
			}
			c.endUnit(nil)
		default:
			c.writer.SetString(k, a.str, false)
		}
		if a.expiry > 0 {
			c.writer.SetExpiry(k, a.expiry)
		}
	}
	return c.Commit()
}

// setMeta stores a named blob in a group of its own; nil deletes it.
func (c *Core) setMeta(name string, b []byte) error {
	if err := c.Commit(); err != nil {
		return err
	}
	c.begin()
	c.group.SetMeta(name, b)
	return c.Commit()
}

// scan calls fn with the keys of each database, some at a time. A key may come
// twice.
func (c *viewConn) scan(ctx context.Context, fn func(db int, keys []string) error) error {
	for db := range userDBs {
		if _, err := c.do(db, "PING"); err != nil {
			return err
		}
		var cursor uint64
		for {
			keys, next, err := c.conn.Scan(ctx, cursor, "", 512).Result()
			if err != nil {
				return err
			}
			keys = slices.DeleteFunc(keys, func(k string) bool { return k == markKey })
			if len(keys) > 0 {
				if err := fn(db, keys); err != nil {
					return err
				}
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
	return nil
}

func (c *viewConn) types(ctx context.Context, keys []string) ([]string, error) {
	pipe := c.conn.Pipeline()
	cmds := make([]*redis.StatusCmd, len(keys))
	for i, k := range keys {
		cmds[i] = pipe.Type(ctx, k)
	}
	_, err := pipe.Exec(ctx)
	out := make([]string, len(keys))
	for i := range cmds {
		out[i] = cmds[i].Val()
	}
	return out, err
}

// read reads keys whole, of the selected database; those that have gone in
// the meantime are left out.
func (c *viewConn) read(ctx context.Context, keys []string) ([]adopted, error) {
	types, err := c.types(ctx, keys)
	if err != nil {
		return nil, err
	}
	// Redis before 7.0 tells only how long a key has left.
	_, err = c.conn.Do(ctx, "PEXPIRETIME", markKey).Result()
	ttl, exact := "PEXPIRETIME", err == nil
	if !exact {
		ttl = "PTTL"
	}
	pipe := c.conn.Pipeline()
	values := make([]any, len(keys))
	ttls := make([]*redis.Cmd, len(keys))
	for i, k := range keys {
		switch types[i] {
		case "string":
			values[i] = pipe.Get(ctx, k)
		case "hash":
			values[i] = pipe.HGetAll(ctx, k)
		case "set":
			values[i] = pipe.SMembers(ctx, k)
		case "zset":
			values[i] = pipe.ZRangeWithScores(ctx, k, 0, -1)
		case "list":
			values[i] = pipe.LRange(ctx, k, 0, -1)
		}
		ttls[i] = pipe.Do(ctx, ttl, k)
	}
	now := time.Now().UnixMilli()
	for i, k := range keys {
		if types[i] == "stream" {
			if values[i], err = c.readStream(ctx, k); err != nil {
				return nil, err
			}
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	due, err := c.fieldExpiries(ctx, keys, values)
	if err != nil {
		return nil, err
	}
	var out []adopted
	for i, k := range keys {
		a := adopted{name: k, exact: exact, due: due[i]}
		switch v := values[i].(type) {
		case *redis.StringCmd:
			b, err := v.Bytes()
			if err != nil {
				continue
			}
			a.str = bytes.Clone(b)
		case *redis.MapStringStringCmd:
			if a.fields = v.Val(); len(a.fields) == 0 {
				continue
			}
		case *redis.StringSliceCmd:
			if len(v.Val()) == 0 {
				continue
			}
			if types[i] == "list" {
				a.list = v.Val()
			} else {
				a.set = v.Val()
			}
		case *redis.ZSliceCmd:
			if a.scores = v.Val(); len(a.scores) == 0 {
				continue
			}
		case [][][]byte:
			if a.stream = v; len(a.stream) == 0 {
				continue
			}
		default:
			continue
		}
		if ttl, err := strconv.ParseInt(fmt.Sprint(ttls[i].Val()), 10, 64); err == nil && ttl > 0 {
			a.expiry = ttl
			if !exact {
				a.expiry += now
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// fieldExpiries asks for the expiries of the fields of those keys of which the
// value is a hash that was read.
func (c *viewConn) fieldExpiries(ctx context.Context, keys []string, values []any) ([]map[string]int64, error) {
	out := make([]map[string]int64, len(keys))
	if !c.fields {
		return out, nil
	}
	type asked struct {
		key    int
		fields []string
		reply  *redis.Cmd
	}
	var all []asked
	pipe := c.conn.Pipeline()
	for i, k := range keys {
		hash, ok := values[i].(*redis.MapStringStringCmd)
		if !ok {
			continue
		}
		for part := range slices.Chunk(slices.Sorted(maps.Keys(hash.Val())), elemsPerUpdate) {
			args := []any{"HPEXPIRETIME", k, "FIELDS", len(part)}
			for _, f := range part {
				args = append(args, f)
			}
			all = append(all, asked{i, part, pipe.Do(ctx, args...)})
		}
	}
	if len(all) == 0 {
		return out, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	for _, a := range all {
		times, err := a.reply.Int64Slice()
		if err != nil || len(times) != len(a.fields) {
			return nil, fmt.Errorf("HPEXPIRETIME %q answered %v", keys[a.key], a.reply.Val())
		}
		for i, at := range times {
			if at < 0 {
				continue
			}
			if out[a.key] == nil {
				out[a.key] = map[string]int64{}
			}
			out[a.key][a.fields[i]] = at
		}
	}
	return out, nil
}

// readStream reads a stream as the commands that make it; none if it has gone in
// the meantime.
func (c *viewConn) readStream(ctx context.Context, key string) ([][][]byte, error) {
	var cmds [][][]byte
	var lost error
	e := command.CopyStream(func(args ...[]byte) []byte {
		list := make([]any, len(args))
		for i, a := range args {
			list[i] = a
		}
		cmd := redis.NewRawCmd(ctx, list...)
		if err := c.conn.Process(ctx, cmd); err != nil {
			lost = err
			return []byte("-" + err.Error() + "\r\n")
		}
		return cmd.Val()
	}, []byte(key), func(args ...[]byte) []byte {
		args = slices.Clone(args)
		for i := range args {
			args[i] = bytes.Clone(args[i])
		}
		cmds = append(cmds, args)
		return []byte("+OK\r\n")
	}, []byte(key))
	switch {
	case lost != nil:
		return nil, lost
	case e != nil && bytes.HasPrefix(e, []byte("-ERR no such key")):
		return nil, nil
	case e != nil:
		return nil, fmt.Errorf("stream %q: %s", key, bytes.TrimSpace(e[1:]))
	}
	return cmds, nil
}
