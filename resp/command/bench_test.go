package command

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// BenchmarkFind measures the look at the table.
func BenchmarkFind(b *testing.B) {
	for _, words := range []string{"get k", "ZRANGEBYSCORE k 1 2", "client getname"} {
		args := argsOf(strings.Fields(words))
		b.Run(words, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if c, refusal := Find(args); c == nil {
					b.Fatal(refusal)
				}
			}
		})
	}
}

func argsOf(words []string) [][]byte {
	args := make([][]byte, len(words))
	for i, w := range words {
		args[i] = []byte(w)
	}
	return args
}

// benchTx is a transaction without a view.
type benchTx struct {
	*crdt.Writer
	rnd *rand.Rand
}

func (x benchTx) Rand() *rand.Rand                      { return x.rnd }
func (x benchTx) View(uint8, ...[]byte) ([]byte, error) { panic("no command here asks the view") }

// BenchmarkRun measures what commands mean, each in a group of its own, the
// store in memory included.
func BenchmarkRun(b *testing.B) {
	for _, words := range []string{
		"SET string value EX 100", "INCR counter", "HSET hash a 1 b 2", "SADD set a b c", "ZADD zset GT 1 a 2 b", "ZINCRBY zset 1 a",
	} {
		args := argsOf(strings.Fields(words))
		cmd, refusal := Find(args)
		if cmd == nil {
			b.Fatal(refusal)
		}
		b.Run(cmd.Name, func(b *testing.B) {
			ks := &crdt.Keyspace{Store: crdttest.New()}
			origin := crdt.NewStream(1, 1, 0)
			rnd := rand.New(rand.NewPCG(1, 2))
			millis := int64(1_800_000_000_000)
			c := &Context{Args: args, Out: Reply{Proto: 2}}
			b.ReportAllocs()
			for b.Loop() {
				millis++
				w := crdt.NewWriter(ks, origin, crdt.TagAt(millis, 1), millis)
				c.Tx = benchTx{w, rnd}
				c.Out.Buf = c.Out.Buf[:0]
				cmd.Run(c)
				if c.Out.Buf[0] == '-' {
					b.Fatalf("%s", c.Out.Buf)
				}
				for _, e := range w.Entries() {
					ks.Have.Raise(e.Stream, e.Tag)
				}
				ks.Touched = nil
			}
		})
	}
}
