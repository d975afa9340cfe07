package command

import (
	"fmt"
	"testing"
)

// testScripts returns the scripts of a node of a test's own.
func testScripts() *Scripts {
	return NewScripts(func() int64 { return 0 }, nil, func() uint32 { return 1 })
}

// TestLocalReads: what scripts are answered from the cells is what Redis
// answers, over random data of every type.
func TestLocalReads(t *testing.T) {
	for _, seed := range seeds() {
		w := newTwin(t, seed)
		key := func() string { return fmt.Sprint("k", w.rng.IntN(6)) }
		part := func() string { return string("abc"[w.rng.IntN(3)]) }
		requests := []func() []string{
			func() []string { return []string{"GET", key()} },
			func() []string { return []string{"MGET", key(), key(), key()} },
			func() []string { return []string{"STRLEN", key()} },
			func() []string { return []string{"EXISTS", key(), key(), key()} },
			func() []string { return []string{"TOUCH", key(), key()} },
			func() []string { return []string{"TYPE", key()} },
			func() []string { return []string{"TTL", key()} },
			func() []string { return []string{"EXPIRETIME", key()} },
			func() []string { return []string{"PEXPIRETIME", key()} },
			func() []string { return []string{"HGET", key(), part()} },
			func() []string { return []string{"HMGET", key(), part(), part()} },
			func() []string { return []string{"HSTRLEN", key(), part()} },
			func() []string { return []string{"HEXISTS", key(), part()} },
			func() []string { return []string{"HLEN", key()} },
			func() []string { return []string{"SISMEMBER", key(), part()} },
			func() []string { return []string{"SMISMEMBER", key(), part(), part()} },
			func() []string { return []string{"SCARD", key()} },
			func() []string { return []string{"ZSCORE", key(), part()} },
			func() []string { return []string{"ZMSCORE", key(), part(), part()} },
			func() []string { return []string{"ZCARD", key()} },
			func() []string { return []string{"LLEN", key()} },
		}
		writes := []func() []string{
			func() []string { return []string{"SET", key(), part()} },
			func() []string { return []string{"DEL", key()} },
			func() []string { return []string{"HSET", key(), part(), part()} },
			func() []string { return []string{"SADD", key(), part()} },
			func() []string { return []string{"ZADD", key(), fmt.Sprint(w.rng.IntN(9)) + ".25", part()} },
			func() []string { return []string{"ZADD", key(), "inf", part()} },
			func() []string { return []string{"EXPIREAT", key(), "4102444800"} },
			func() []string { return []string{"PEXPIREAT", key(), "4102444800499"} },
			func() []string { return []string{"PERSIST", key()} },
		}
		seen := map[string]bool{}
		for range 1500 {
			w.run(0, writes[w.rng.IntN(len(writes))]()...)
			args := requests[w.rng.IntN(len(requests))]()
			b := bytesOf(args)
			cmd, _ := Find(b)
			if cmd.Local == nil {
				t.Fatal(args)
			}
			c := &Context{Tx: twinTx{w.writer, w}, Args: cloneArgs(b), Out: Reply{Proto: 2}}
			cmd.Local(c)
			w.model.use(0)
			want := string(w.model.do(b...))
			if string(c.Out.Buf) != want && args[0] != "TTL" {
				t.Fatalf("seed %d: %q:\n got %q\nwant %q", seed, args, c.Out.Buf, want)
			}
			seen[args[0]] = true
		}
		if len(seen) != len(localReads)-2 { // PTTL moves too fast, PFCOUNT has its own test
			t.Errorf("%d of %d commands were tried", len(seen), len(localReads))
		}
	}
}
