package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/command"
)

// list carries out commands on lists; false if the command is not one of them.
func (r *redis) list(name string, key crdt.Key, k *redisKey, args [][]byte, out *command.Reply) bool {
	switch name {
	case "LPUSH", "RPUSH", "LTRIM", "LSET", "LREM", "LINSERT", "LRANGE":
	default:
		return false
	}
	if k != nil && k.typ != crdt.TypeList {
		out.Error(wrongType)
		return true
	}
	if k == nil {
		// What is sent for a list that has just expired finds nothing.
		switch name {
		case "LPUSH", "RPUSH":
			k = &redisKey{typ: crdt.TypeList}
			r.keys[key] = k
		case "LSET":
			out.Error("ERR no such key")
			return true
		case "LRANGE":
			out.Array(0)
			return true
		default:
			out.Int(0)
			return true
		}
	}
	index := func(b []byte) int {
		n := int(number(b))
		if n < 0 {
			n += len(k.items)
		}
		return n
	}
	switch name {
	case "LPUSH":
		for _, a := range args[2:] {
			k.items = slices.Insert(k.items, 0, string(a))
		}
		out.Int(int64(len(k.items)))
	case "RPUSH":
		for _, a := range args[2:] {
			k.items = append(k.items, string(a))
		}
		out.Int(int64(len(k.items)))
	case "LTRIM":
		from, to := index(args[2]), min(index(args[3])+1, len(k.items))
		if from >= to {
			delete(r.keys, key)
		} else {
			k.items = slices.Clone(k.items[from:to])
		}
		out.OK()
	case "LSET":
		if i := index(args[2]); i < 0 || i >= len(k.items) {
			out.Error("ERR index out of range")
		} else {
			k.items[i] = string(args[3])
			out.OK()
		}
	case "LREM":
		if n := string(args[2]); n != "1" && n != "-1" {
			panic(fmt.Sprintf("the view was sent %q", args))
		}
		i := slices.Index(k.items, string(args[3]))
		if i >= 0 {
			k.items = slices.Delete(k.items, i, i+1)
		}
		if len(k.items) == 0 {
			delete(r.keys, key)
		}
		out.Bool(i >= 0)
	case "LINSERT":
		i := slices.Index(k.items, string(args[3]))
		if i < 0 {
			out.Int(-1)
			return true
		}
		if string(args[2]) == "AFTER" {
			i++
		}
		k.items = slices.Insert(k.items, i, string(args[4]))
		out.Int(int64(len(k.items)))
	case "LRANGE":
		if string(args[2]) != "0" || string(args[3]) != "-1" {
			panic(fmt.Sprintf("the view was asked %q", args))
		}
		out.Array(len(k.items))
		for _, v := range k.items {
			out.BulkString(v)
		}
	}
	return true
}

// listForms are commands on a list, and another; now and then on a queue, whose
// items say which push they are of.
func (w *world) listForms(list, other string) []string {
	value := fmt.Sprint("v", w.rand.IntN(6))
	end, end2 := []string{"LEFT", "RIGHT"}[w.rand.IntN(2)], []string{"LEFT", "RIGHT"}[w.rand.IntN(2)]
	index := w.rand.IntN(8) - 4
	push := []string{"LPUSH", "RPUSH", "RPUSH"}[w.rand.IntN(3)]
	if w.chance(40) {
		queue := fmt.Sprintf("q%d", w.pick(w.opts.Keys))
		w.pushes++
		call := fmt.Sprintf("%s %s", push, queue)
		for i := range 1 + w.rand.IntN(4) {
			call += fmt.Sprintf(" push%d.%d", w.pushes, i)
		}
		return []string{
			call, call, call,
			"LPOP " + queue,
			"LPOP " + queue + " 2",
			"RPOP " + queue,
			"LMPOP 1 " + queue + " LEFT COUNT 3",
			"LTRIM " + queue + " 1 -1",
			fmt.Sprintf("LREM %s 1 push%d.0", queue, w.rand.IntN(w.pushes+1)),
			"RENAME " + queue + " " + fmt.Sprintf("q%d", w.pick(w.opts.Keys)),
		}
	}
	return []string{
		fmt.Sprintf("%s %s %s", push, list, value),
		fmt.Sprintf("%s %s %s w w", push, list, value),
		fmt.Sprintf("%s %s a b c d e f g h", push, list),
		fmt.Sprintf("LINSERT %s BEFORE %s i", list, value),
		fmt.Sprintf("LINSERT %s AFTER w i", list),
		fmt.Sprintf("LSET %s %d %s", list, index, value),
		fmt.Sprintf("LREM %s %d w", list, index),
		fmt.Sprintf("LTRIM %s %d %d", list, index, 8+index),
		fmt.Sprintf("LPOP %s", list),
		fmt.Sprintf("RPOP %s 2", list),
		fmt.Sprintf("LMOVE %s %s %s %s", list, other, end, end2),
		fmt.Sprintf("RPOPLPUSH %s %s", list, list),
		fmt.Sprintf("LMPOP 2 %s %s RIGHT COUNT 2", list, other),
		fmt.Sprintf("RENAME %s %s", list, other),
		fmt.Sprintf("COPY %s %s REPLACE", list, other),
		fmt.Sprintf("DEL %s", list),
		fmt.Sprintf("PEXPIRE %s %d", list, 1+w.rand.IntN(20_000)),
	}
}

// checkPushes looks at a queue: what was pushed together stands together.
func (w *world) checkPushes(node uint16, k crdt.Key, items []string) {
	over := map[string]bool{}
	last := ""
	for _, v := range items {
		push, _, _ := strings.Cut(v, ".")
		if push == last {
			continue
		}
		w.must(!over[push], "node %d: in %v the items of one push stand apart: %q", node, k, items)
		over[push], last = true, push
	}
}
