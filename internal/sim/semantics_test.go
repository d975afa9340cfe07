package sim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/oplog"
)

// concurrent is a row of docs/SEMANTICS.md: what two writes become of which
// neither saw the other.
type concurrent struct {
	name        string
	before      []string
	left, right []string
	want        [][2]string // a read, and its reply at every node
	// What is different if the left node's writes have the greater tags.
	wantIfLeftLast [][2]string
}

const (
	soon  = "1800000010000" // Unix milliseconds, later than any run
	later = "1800000050000"
)

var semantics = []concurrent{
	{name: "SET ‖ SET", left: []string{"SET k a"}, right: []string{"SET k b"},
		want: [][2]string{{"GET k", "b"}}, wantIfLeftLast: [][2]string{{"GET k", "a"}}},
	{name: "SET ‖ SET over a value", before: []string{"SET k x"}, left: []string{"SET k a"}, right: []string{"SET k b"},
		want: [][2]string{{"GET k", "b"}}, wantIfLeftLast: [][2]string{{"GET k", "a"}}},
	{name: "SET ‖ SET and DEL", left: []string{"SET k a"}, right: []string{"SET k b", "DEL k"}, want: [][2]string{{"GET k", "a"}}},
	{name: "SET ‖ DEL", before: []string{"SET k x"}, left: []string{"SET k a"}, right: []string{"DEL k"}, want: [][2]string{{"GET k", "a"}}},
	{name: "DEL ‖ DEL", before: []string{"SET k x"}, left: []string{"DEL k"}, right: []string{"DEL k"}, want: [][2]string{{"EXISTS k", "0"}}},
	{name: "SADD ‖ SREM", before: []string{"SADD k x"}, left: []string{"SREM k x", "SADD k x"}, right: []string{"SREM k x"}, want: [][2]string{{"SMEMBERS k", "x"}}},
	{name: "SADD ‖ SADD", left: []string{"SADD k a b"}, right: []string{"SADD k b c"}, want: [][2]string{{"SMEMBERS k", "a b c"}}},
	{name: "SREM ‖ SREM", before: []string{"SADD k a b"}, left: []string{"SREM k a"}, right: []string{"SREM k b"}, want: [][2]string{{"EXISTS k", "0"}}},
	{name: "SADD ‖ DEL", before: []string{"SADD k x"}, left: []string{"SADD k a"}, right: []string{"DEL k"}, want: [][2]string{{"SMEMBERS k", "a"}}},
	{name: "HSET ‖ HDEL", before: []string{"HSET k f x g y"}, left: []string{"HSET k f a"}, right: []string{"HDEL k f"}, want: [][2]string{{"HGETALL k", "f a g y"}}},
	{name: "HSET ‖ HSET", left: []string{"HSET k f a g 1"}, right: []string{"HSET k f b h 2"},
		want: [][2]string{{"HGETALL k", "f b g 1 h 2"}}, wantIfLeftLast: [][2]string{{"HGETALL k", "f a g 1 h 2"}}},
	{name: "HSET ‖ DEL", before: []string{"HSET k f x g y"}, left: []string{"HSET k f a"}, right: []string{"DEL k"}, want: [][2]string{{"HGETALL k", "f a"}}},
	{name: "INCR ‖ INCR", left: []string{"INCRBY k 7"}, right: []string{"INCRBY k 3"}, want: [][2]string{{"GET k", "10"}}},
	{name: "INCR ‖ INCR on a value", before: []string{"SET k 10"}, left: []string{"INCRBY k 7"}, right: []string{"DECRBY k 3"}, want: [][2]string{{"GET k", "14"}}},
	{name: "INCRBYFLOAT ‖ INCRBYFLOAT", before: []string{"SET k 1"}, left: []string{"INCRBYFLOAT k 0.1"}, right: []string{"INCRBYFLOAT k 0.2"}, want: [][2]string{{"GET k", "1.3"}}},
	{name: "SET ‖ INCR", before: []string{"SET k 5", "INCR k"}, left: []string{"SET k 10"}, right: []string{"INCR k"}, want: [][2]string{{"GET k", "11"}}},
	{name: "SET abc ‖ INCR", before: []string{"SET k 5"}, left: []string{"SET k abc"}, right: []string{"INCR k"}, want: [][2]string{{"GET k", "abc"}}},
	{name: "SET abc, SET 7 ‖ INCR", before: []string{"SET k 5"}, left: []string{"SET k abc", "SET k 7"}, right: []string{"INCR k"}, want: [][2]string{{"GET k", "8"}}},
	{name: "INCR ‖ DEL", before: []string{"SET k 10"}, left: []string{"INCR k"}, right: []string{"DEL k"}, want: [][2]string{{"GET k", "1"}}},
	{name: "INCR ‖ DEL of increments", before: []string{"INCRBY k 10"}, left: []string{"INCR k"}, right: []string{"DEL k"}, want: [][2]string{{"GET k", "1"}}},
	{name: "INCR ‖ DEL, INCR", before: []string{"INCRBY k 10"}, left: []string{"INCR k"}, right: []string{"DEL k", "INCRBY k 5"}, want: [][2]string{{"GET k", "6"}}},
	{name: "HINCRBY ‖ HINCRBY", left: []string{"HINCRBY k f 7"}, right: []string{"HINCRBY k f 3"}, want: [][2]string{{"HGET k f", "10"}}},
	{name: "HINCRBY ‖ HSET", before: []string{"HSET k f 5"}, left: []string{"HINCRBY k f 1"}, right: []string{"HSET k f 10"}, want: [][2]string{{"HGET k f", "11"}}},
	{name: "HINCRBY ‖ HDEL", before: []string{"HINCRBY k f 5"}, left: []string{"HINCRBY k f 1"}, right: []string{"HDEL k f"}, want: [][2]string{{"HGET k f", "1"}}},
	{name: "ZADD ‖ ZADD", left: []string{"ZADD k 1.1 m"}, right: []string{"ZADD k 2.1 m"},
		want: [][2]string{{"ZSCORE k m", "2.1"}}, wantIfLeftLast: [][2]string{{"ZSCORE k m", "1.1"}}},
	{name: "ZADD ‖ ZINCRBY", before: []string{"ZADD k 1 m"}, left: []string{"ZADD k 5 m"}, right: []string{"ZINCRBY k 2.5 m"}, want: [][2]string{{"ZSCORE k m", "7.5"}}},
	{name: "ZINCRBY ‖ ZINCRBY", left: []string{"ZINCRBY k 0.1 m"}, right: []string{"ZADD k INCR 0.2 m"}, want: [][2]string{{"ZSCORE k m", "0.3"}}},
	{name: "ZREM ‖ ZINCRBY", before: []string{"ZADD k 4.1 m"}, left: []string{"ZREM k m"}, right: []string{"ZINCRBY k 2 m"}, want: [][2]string{{"ZRANGE k 0 -1 WITHSCORES", "m 2"}}},
	{name: "ZADD ‖ DEL", before: []string{"ZADD k 1 m 2 n"}, left: []string{"ZADD k 1 m"}, right: []string{"DEL k"}, want: [][2]string{{"ZRANGE k 0 -1", "m"}}},
	{name: "ZPOPMIN ‖ ZPOPMIN", before: []string{"ZADD k 1 m 2 n"}, left: []string{"ZPOPMIN k"}, right: []string{"ZPOPMIN k"}, want: [][2]string{{"ZRANGE k 0 -1", "n"}}},
	{name: "ZREMRANGEBYSCORE ‖ ZADD", before: []string{"ZADD k 1 m 2 n"}, left: []string{"ZREMRANGEBYSCORE k 0 5"}, right: []string{"ZADD k 3 o 2 n"}, want: [][2]string{{"ZRANGE k 0 -1", "n o"}}},
	{name: "EXPIRE ‖ EXPIRE", before: []string{"SET k x"}, left: []string{"PEXPIREAT k " + soon}, right: []string{"PEXPIREAT k " + later}, want: [][2]string{{"PEXPIRETIME k", later}}},
	{name: "EXPIRE ‖ PERSIST", before: []string{"SET k x", "PEXPIREAT k " + soon}, left: []string{"PEXPIREAT k " + later}, right: []string{"PERSIST k"},
		want: [][2]string{{"GET k", "x"}, {"PEXPIRETIME k", "-1"}}},
	{name: "EXPIRE ‖ SET", before: []string{"SET k x"}, left: []string{"PEXPIREAT k " + soon}, right: []string{"SET k b"},
		want: [][2]string{{"GET k", "b"}, {"PEXPIRETIME k", soon}}},
	{name: "EXPIRE ‖ DEL", before: []string{"SET k x"}, left: []string{"PEXPIREAT k " + soon}, right: []string{"DEL k"}, want: [][2]string{{"EXISTS k", "0"}}},
	{name: "EXPIRE ‖ HSET", before: []string{"HSET k f x"}, left: []string{"PEXPIREAT k " + soon}, right: []string{"HSET k g y"},
		want: [][2]string{{"HGETALL k", "f x g y"}, {"PEXPIRETIME k", soon}}},
	{name: "HEXPIRE ‖ HEXPIRE", before: []string{"HSET k f x"}, left: []string{"HPEXPIREAT k " + soon + " FIELDS 1 f"}, right: []string{"HPEXPIREAT k " + later + " FIELDS 1 f"},
		want: [][2]string{{"HPEXPIRETIME k FIELDS 1 f", later}, {"HGET k f", "x"}}},
	{name: "HEXPIRE ‖ HPERSIST", before: []string{"HSETEX k PXAT " + soon + " FIELDS 1 f x"}, left: []string{"HPEXPIREAT k " + later + " FIELDS 1 f"}, right: []string{"HPERSIST k FIELDS 1 f"},
		want: [][2]string{{"HPEXPIRETIME k FIELDS 1 f", "-1"}}},
	{name: "HEXPIRE ‖ HSET", before: []string{"HSET k f x"}, left: []string{"HPEXPIREAT k " + soon + " FIELDS 1 f"}, right: []string{"HSET k f b"},
		want: [][2]string{{"HGET k f", "b"}, {"HPEXPIRETIME k FIELDS 1 f", soon}}},
	{name: "HEXPIRE ‖ HDEL", before: []string{"HSET k f x g y"}, left: []string{"HPEXPIREAT k " + soon + " FIELDS 1 f"}, right: []string{"HDEL k f"},
		want: [][2]string{{"HGETALL k", "g y"}, {"HPEXPIRETIME k FIELDS 1 f", "-2"}}},
	{name: "HEXPIRE ‖ HINCRBY", before: []string{"HSET k f 5"}, left: []string{"HPEXPIREAT k " + soon + " FIELDS 1 f"}, right: []string{"HINCRBY k f 3"},
		want: [][2]string{{"HGET k f", "8"}, {"HPEXPIRETIME k FIELDS 1 f", soon}}},
	{name: "SET ‖ SADD", left: []string{"SET k a"}, right: []string{"SADD k m"},
		want: [][2]string{{"TYPE k", "set"}, {"SMEMBERS k", "m"}}, wantIfLeftLast: [][2]string{{"TYPE k", "string"}, {"GET k", "a"}}},
	{name: "HSET ‖ SADD and SREM: the other is uncovered", left: []string{"HSET k f a"}, right: []string{"SADD k m", "SREM k m"}, want: [][2]string{{"HGETALL k", "f a"}}},
	{name: "SETNX ‖ SETNX", left: []string{"SETNX k a"}, right: []string{"SETNX k b"},
		want: [][2]string{{"GET k", "b"}}, wantIfLeftLast: [][2]string{{"GET k", "a"}}},
	{name: "SPOP ‖ SPOP", before: []string{"SADD k m"}, left: []string{"SPOP k"}, right: []string{"SPOP k"}, want: [][2]string{{"EXISTS k", "0"}}},
	{name: "SMOVE ‖ SMOVE", before: []string{"SADD k m"}, left: []string{"SMOVE k i m"}, right: []string{"SMOVE k j m"},
		want: [][2]string{{"EXISTS k", "0"}, {"SMEMBERS i", "m"}, {"SMEMBERS j", "m"}}},
	{name: "APPEND ‖ APPEND", before: []string{"SET k x"}, left: []string{"APPEND k a"}, right: []string{"APPEND k b"},
		want: [][2]string{{"GET k", "xb"}}, wantIfLeftLast: [][2]string{{"GET k", "xa"}}},
	{name: "SETRANGE ‖ SETRANGE", before: []string{"SET k xyz"}, left: []string{"SETRANGE k 0 A"}, right: []string{"SETRANGE k 2 B"},
		want: [][2]string{{"GET k", "xyB"}}, wantIfLeftLast: [][2]string{{"GET k", "Ayz"}}},
	{name: "RENAME ‖ HSET", before: []string{"HSET k f x"}, left: []string{"RENAME k j"}, right: []string{"HSET k g y"},
		want: [][2]string{{"HGETALL j", "f x"}, {"HGETALL k", "g y"}}},
	{name: "COPY ‖ SET", before: []string{"SET k x"}, left: []string{"COPY k j"}, right: []string{"SET k b"}, want: [][2]string{{"GET j", "x"}, {"GET k", "b"}}},
	{name: "SUNIONSTORE ‖ SADD", before: []string{"SADD k a", "SADD j q"}, left: []string{"SUNIONSTORE j k"}, right: []string{"SADD j z"}, want: [][2]string{{"SMEMBERS j", "a z"}}},
	{name: "XADD ‖ XADD", before: []string{"XADD k 1 f a"}, left: []string{"XADD k 3 f b"}, right: []string{"XADD k 2 f c"},
		want: [][2]string{{"XRANGE k - +", "1-0 f a 2-0 f c 3-0 f b"}, {"TYPE k", "stream"}}},
	{name: "XADD ‖ DEL", before: []string{"XADD k 1 f a"}, left: []string{"XADD k 2 f b"}, right: []string{"DEL k"}, want: [][2]string{{"XRANGE k - +", "2-0 f b"}}},
	{name: "XADD ‖ XTRIM", before: []string{"XADD k 1 f a"}, left: []string{"XADD k 2 f b"}, right: []string{"XTRIM k MAXLEN 0"}, want: [][2]string{{"XRANGE k - +", "2-0 f b"}}},
	{name: "XGROUP CREATE ‖ DEL", before: []string{"XADD k 1 f a"}, left: []string{"XGROUP CREATE k g 0"}, right: []string{"DEL k"},
		want: [][2]string{{"XLEN k", "0"}, {"EXISTS k", "1"}, {"XPENDING k g", "0 (nil) (nil) (nil)"}}},
	{name: "XREADGROUP ‖ DEL", before: []string{"XADD k 1 f a", "XGROUP CREATE k g 0"}, left: []string{"XREADGROUP GROUP g c STREAMS k >"}, right: []string{"DEL k"},
		want: [][2]string{{"EXISTS k", "0"}}},
	{name: "XREADGROUP ‖ XREADGROUP", before: []string{"XADD k 1 f a", "XADD k 2 f b", "XGROUP CREATE k g 0"},
		left: []string{"XREADGROUP GROUP g c STREAMS k >"}, right: []string{"XREADGROUP GROUP g d COUNT 1 STREAMS k >"},
		want: [][2]string{{"XPENDING k g", "2 1-0 2-0 c 1 d 1"}}, wantIfLeftLast: [][2]string{{"XPENDING k g", "2 1-0 2-0 c 2"}}},
	{name: "XACK ‖ XCLAIM", before: []string{"XADD k 1 f a", "XGROUP CREATE k g 0", "XREADGROUP GROUP g c STREAMS k >"},
		left: []string{"XACK k g 1"}, right: []string{"XCLAIM k g d 0 1"}, want: [][2]string{{"XPENDING k g", "0 (nil) (nil) (nil)"}}},
	{name: "XACK ‖ XADD", before: []string{"XADD k 1 f a", "XGROUP CREATE k g 0", "XREADGROUP GROUP g c STREAMS k >"},
		left: []string{"XACK k g 1"}, right: []string{"XADD k 2 f b", "XREADGROUP GROUP g d STREAMS k >"}, want: [][2]string{{"XPENDING k g", "1 2-0 2-0 d 1"}}},
	{name: "FLUSHALL ‖ SET", before: []string{"SET j x", "SET k x"}, left: []string{"FLUSHALL"}, right: []string{"SET k b"}, want: [][2]string{{"EXISTS j", "0"}, {"GET k", "b"}}},
	{name: "FLUSHALL ‖ INCR", before: []string{"INCRBY k 10"}, left: []string{"FLUSHALL"}, right: []string{"INCR k"}, want: [][2]string{{"GET k", "1"}}},
	{name: "FLUSHDB ‖ FLUSHDB", before: []string{"SET k x"}, left: []string{"FLUSHDB"}, right: []string{"FLUSHDB"}, want: [][2]string{{"EXISTS k", "0"}}},
}

// orders are the ways in which the two nodes' writes can get to each other, and
// to a third node that made none: the pairs of nodes that meet, one after the
// other, before all do.
var orders = map[string][][2]int{
	"together":              {},
	"left first":            {{0, 2}},
	"right first":           {{1, 2}},
	"left, right":           {{0, 2}, {1, 2}},
	"right, left":           {{1, 2}, {0, 2}},
	"each other":            {{0, 1}},
	"each other, then left": {{0, 1}, {0, 2}},
}

func TestSemantics(t *testing.T) {
	for _, row := range semantics {
		t.Run(row.name, func(t *testing.T) {
			for order, meetings := range orders {
				for _, leftLast := range []bool{false, true} {
					for _, fresh := range []bool{false, true} {
						if err := row.run(meetings, leftLast, fresh); err != nil {
							t.Errorf("%s, left last %t, third node fresh %t: %v", order, leftLast, fresh, err)
						}
					}
				}
			}
		})
	}
}

// run runs the row on three nodes. With fresh set, the third loses its disk
// while the two write, and has all it gets from the other's states.
func (row *concurrent) run(meetings [][2]int, leftLast, fresh bool) (err error) {
	w := newWorld(Options{Seed: 1, Nodes: 3, Keys: 1, Fsync: oplog.FsyncAlways, MaxSkew: time.Minute, Faults: Lapse})
	defer func() {
		p := recover()
		for _, s := range w.sites {
			s.discard()
		}
		if v, ok := p.(violation); ok {
			err = v.err
		} else if p != nil {
			panic(p)
		}
	}()
	if fresh {
		w.syncThreshold = 1
	}
	w.converge("start")
	write := func(i int, lines []string) {
		for _, l := range lines {
			w.sites[i].proc.enqueue(work{cmds: []call{{args: split(l)}}})
			w.runUntil(w.now + 20*time.Millisecond)
		}
	}
	write(0, row.before)
	w.converge("before")
	block := func(i, j int, blocked bool) {
		w.block(w.sites[i].id, w.sites[j].id, blocked)
		w.block(w.sites[j].id, w.sites[i].id, blocked)
	}
	for i := range 3 {
		for j := range i {
			block(i, j, true)
		}
	}
	want := row.want
	if leftLast {
		write(1, row.right)
		write(0, row.left)
		if row.wantIfLeftLast != nil {
			want = row.wantIfLeftLast
		}
	} else {
		write(0, row.left)
		write(1, row.right)
	}
	if fresh {
		w.crash(w.sites[2], Wipe)
		w.sites[2].start()
	}
	for _, m := range meetings {
		block(m[0], m[1], false)
		a, b := w.sites[m[0]], w.sites[m[1]]
		for from := w.now; !a.proc.log.Vector().Equal(b.proc.log.Vector()); {
			w.must(w.now-from < time.Minute, "nodes %d and %d do not become the same:\n%s", a.id, b.id, w.describe())
			w.runUntil(w.now + 100*time.Millisecond)
		}
		block(m[0], m[1], true)
	}
	w.converge("heal")
	w.oracle.final()
	for _, s := range w.sites {
		for _, q := range want {
			if got := flat(s.ask(q[0])); got != q[1] {
				return fmt.Errorf("node %d: %s = %s, want %s", s.id, q[0], got, q[1])
			}
		}
	}
	if len(meetings) == 0 {
		w.clear()
	}
	if n := w.oracle.counts["state syncs"]; fresh && n == 0 {
		return errors.New("the fresh node had no state sync")
	}
	return nil
}

// ask answers a read as a client's: by the cells, or by the view.
func (s *site) ask(line string) []byte {
	r, err := request(call{args: split(line)})
	if err != nil {
		return []byte("-" + err.Error() + "\r\n")
	}
	if r.Cmd.ByView(r.Args) {
		return s.redis.do(0, r.Args)
	}
	s.proc.core.Do(r)
	s.proc.commit()
	return r.Out
}

// flat prints a reply on one line.
func flat(raw []byte) string {
	r := bufio.NewReader(bytes.NewReader(raw))
	var out []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return strings.Join(out, " ")
		}
		text := strings.TrimSpace(line[1:])
		switch line[0] {
		case '$':
			if text == "-1" {
				out = append(out, "(nil)")
				continue
			}
			n, err := strconv.Atoi(text)
			if err != nil {
				panic(err)
			}
			b := make([]byte, n+2)
			if _, err := r.Read(b); err != nil {
				panic(err)
			}
			out = append(out, string(b[:n]))
		case '*':
			if text == "-1" {
				out = append(out, "(nil)")
			}
		default:
			out = append(out, text)
		}
	}
}
