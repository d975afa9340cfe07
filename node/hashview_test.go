package node

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// TestHashView: a real Redis that gets nothing but updates shows what the cells
// hold, at random changes of fields and expiries, even if it lets fields expire
// before the node does: its clock may be ahead.
func TestHashView(t *testing.T) {
	for _, knows := range []bool{true, false} {
		t.Run(fmt.Sprint("knows expiries of fields: ", knows), func(t *testing.T) {
			var socket string
			if knows {
				socket = serverOf(t, "../bin/redis8/redis-server", "the test needs Redis 8, which scripts/new-redis bin/redis8 puts there")
			} else {
				socket = plainRedis(t)
			}
			c := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Protocol: 2})
			defer c.Close()
			rng := rand.New(rand.NewPCG(11, 5))
			ks := &crdt.Keyspace{Store: crdttest.New()}
			k := crdt.Key{Name: "h"}
			// Times are as they will be in an hour: nothing expires by itself.
			now := time.Now().Add(time.Hour).UnixMilli()
			var tag crdt.Tag
			for step := range 4000 {
				now += rng.Int64N(30)
				tag = max(crdt.TagAt(now, 1), tag+1<<12)
				w := crdt.NewWriter(ks, crdt.NewStream(1, 1, 0), tag, now)
				field := fmt.Sprint("f", rng.IntN(4))
				at := now + 1 + rng.Int64N(200)
				if due := w.FieldExpiry(k, field); due != 0 && knows && rng.IntN(3) == 0 {
					// The view has let it go already; the node extends its life, or sets it.
					c.HDel(t.Context(), k.Name, field)
					if rng.IntN(2) == 0 {
						w.SetFieldExpiry(k, field, due+1000)
					} else {
						w.SetField(k, field, []byte("anew"), false)
					}
				}
				switch rng.IntN(12) {
				case 0, 1:
					w.SetField(k, field, fmt.Append(nil, step), rng.IntN(2) == 0)
				case 2, 3, 4:
					w.SetFieldExpiry(k, field, at)
				case 5:
					w.SetFieldExpiry(k, field, crdt.Never)
				case 6:
					w.RemoveElem(k, crdt.KindField, field)
				case 7:
					w.SetExpiry(k, now+100_000+rng.Int64N(1000))
				case 8:
					w.SetExpiry(k, crdt.Never)
				case 9:
					if w.Type(k) == crdt.TypeHash && rng.IntN(4) == 0 {
						w.SetString(k, []byte("another type"), rng.IntN(2) == 0)
					}
				default:
					sweepFields(ks, k, now)
				}
				written(ks, w)
				b := &Batch{fields: knows}
				if touch := ks.Touched[k]; touch != nil {
					touch.Whole = touch.Whole || rng.IntN(20) == 0
					materialise(b, ks.Store, k, touch, now)
				}
				ks.Untouch()
				for _, cmd := range b.Cmds {
					args := make([]any, len(cmd.Args))
					for i, a := range cmd.Args {
						args[i] = a
					}
					if err := c.Do(t.Context(), args...).Err(); err != nil {
						t.Fatalf("step %d: %q: %v", step, cmd.Args, err)
					}
				}
				compareHash(t, c, ks, k, now, knows, step, b)
			}
		})
	}
}

// TestHashThatTheViewLetGo: a view that has let a hash go with its last field, ahead
// of the node, is told the expiry of the key again with the next field.
func TestHashThatTheViewLetGo(t *testing.T) {
	ks := &crdt.Keyspace{Store: crdttest.New()}
	k := crdt.Key{Name: "h"}
	w := crdt.NewWriter(ks, crdt.NewStream(1, 1, 0), crdt.TagAt(1000, 1), 1000)
	w.SetField(k, "f", []byte("v"), false)
	w.SetFieldExpiry(k, "f", 2000)
	w.SetExpiry(k, 9000)
	ks.Untouch()
	w.SetField(k, "g", []byte("v"), false)
	b := &Batch{fields: true}
	materialise(b, ks.Store, k, ks.Touched[k], 1000)
	var got []string
	for _, c := range b.Cmds {
		got = append(got, string(bytes.Join(c.Args, []byte(" "))))
	}
	if want := []string{"HSET h g v", "PEXPIREAT h 9000"}; !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// compareHash compares a key of a view with the cells. What has expired and is not
// hidden yet may be there still.
func compareHash(t *testing.T, c *redis.Client, ks *crdt.Keyspace, k crdt.Key, now int64, knows bool, step int, b *Batch) {
	t.Helper()
	w := crdt.NewWriter(ks, crdt.NewStream(1, 1, 0), 0, now)
	if w.Type(k) == crdt.TypeString {
		return
	}
	var fields, want []string
	w.EachElem(k, crdt.KindField, func(f string, v []byte) bool {
		fields = append(fields, f)
		at := int64(-1)
		if due := w.FieldExpiry(k, f); due != 0 && knows {
			at = due
		}
		want = append(want, fmt.Sprintf("%s=%s until %d", f, v, at))
		return true
	})
	shown, err := c.HGetAll(t.Context(), k.Name).Result()
	if err != nil {
		t.Fatal(err)
	}
	waiting := map[string]bool{}
	ks.Store.EachCell(k, crdt.KindExpiry, func(id crdt.CellID, e *crdt.Cell) bool {
		if f, ok := id.Field(); ok && e.Past(now) && !e.Hidden {
			waiting[f] = true
		}
		return true
	})
	var got []string
	for _, f := range slices.Sorted(maps.Keys(shown)) {
		if waiting[f] {
			continue
		}
		at := int64(-1)
		if knows {
			times, err := c.HPExpireTime(t.Context(), k.Name, f).Result()
			if err != nil || len(times) != 1 {
				t.Fatal(times, err)
			}
			at = times[0]
		}
		got = append(got, fmt.Sprintf("%s=%s until %d", f, shown[f], at))
	}
	due := int64(-1)
	if at := w.Expiry(k); at != 0 {
		due = at
	}
	if len(want) > 0 {
		want = append(want, fmt.Sprint("key until ", due))
		at, err := c.Do(t.Context(), "PEXPIRETIME", k.Name).Int64()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint("key until ", at))
	}
	if !slices.Equal(got, want) {
		for _, cmd := range b.Cmds {
			t.Logf("%q", cmd.Args)
		}
		t.Fatalf("step %d, at %d: the view has %q, the cells %q", step, now, got, want)
	}
}
