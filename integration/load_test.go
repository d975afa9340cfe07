package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/integration/testbed"
)

// load writes to nodes from many connections, through whatever happens to them,
// and knows afterwards what the nodes must hold:
//
//   - counters that all clients increment: at least every acknowledged
//     increment, at most every attempted one;
//   - strings, fields and members that one client owns: what the last
//     acknowledged write said, or an unanswered one after it. One that had an
//     unanswered write is left alone, for that write may still be on its way;
//   - keys that everybody writes to without a plan: the same at all nodes.
type load struct {
	bed   *testbed.Bed
	ctx   context.Context
	end   context.CancelFunc
	tasks sync.WaitGroup
	paced atomic.Int64 // pause between writes, in microseconds

	mu        sync.Mutex
	attempted map[string]int64 // increments, by counter
	acked     map[string]int64
	owned     map[string][]string // "key" or "key field": what it may hold; "" is nothing
	writes    int64
	failures  map[string]int64
}

const (
	loadClients  = 3 // per node
	loadCounters = 4
)

func newLoad(bed *testbed.Bed) *load {
	l := &load{bed: bed, attempted: map[string]int64{}, acked: map[string]int64{}, owned: map[string][]string{}, failures: map[string]int64{}}
	return l
}

// start makes clients write to the nodes until stop.
func (l *load) start(seed uint64, nodes ...*testbed.Node) {
	l.ctx, l.end = context.WithCancel(context.Background())
	for _, n := range nodes {
		for c := range loadClients {
			l.client(n, c, seed)
		}
	}
}

// stop lets every client finish what it has begun.
func (l *load) stop() {
	l.end()
	l.tasks.Wait()
}

// client is one connection to a node, which it opens anew when it breaks.
func (l *load) client(n *testbed.Node, c int, seed uint64) {
	r := rand.New(rand.NewPCG(seed, uint64(n.ID*1000+c)))
	conn := n.NewClient(0)
	own := fmt.Sprintf("own:%d:%d:%x:", n.ID, c, seed)
	l.tasks.Go(func() {
		defer conn.Close()
		for i := 0; l.ctx.Err() == nil; i++ {
			var err error
			switch r.IntN(9) {
			case 0, 1:
				err = l.count(conn, fmt.Sprint("count", r.IntN(loadCounters)), "", int64(1+r.IntN(3)))
			case 2:
				err = l.count(conn, "hcount", fmt.Sprint("f", r.IntN(loadCounters)), int64(1+r.IntN(3)))
			case 3:
				err = l.own(own+fmt.Sprint(r.IntN(5)), i, func(ctx context.Context, k, v string) error { return conn.Set(ctx, k, v, 0).Err() })
			case 4:
				err = l.own(own+fmt.Sprint(r.IntN(5)), -1, func(ctx context.Context, k, _ string) error { return conn.Del(ctx, k).Err() })
			case 5:
				err = l.own("ownset "+own+fmt.Sprint(r.IntN(10)), 1, func(ctx context.Context, k, _ string) error {
					key, member, _ := strings.Cut(k, " ")
					return conn.SAdd(ctx, key, member).Err()
				})
			case 6:
				err = l.own("ownset "+own+fmt.Sprint(r.IntN(10)), -1, func(ctx context.Context, k, _ string) error {
					key, member, _ := strings.Cut(k, " ")
					return conn.SRem(ctx, key, member).Err()
				})
			case 7:
				err = l.own("ownhash "+own+fmt.Sprint(r.IntN(10)), i, func(ctx context.Context, k, v string) error {
					key, field, _ := strings.Cut(k, " ")
					return conn.HSet(ctx, key, field, v).Err()
				})
			default:
				err = l.shared(conn, r)
			}
			l.note(err)
			if d := l.paced.Load(); d > 0 {
				time.Sleep(time.Duration(d) * time.Microsecond)
			}
			if err != nil {
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
}

func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes++
	if err != nil {
		s := err.Error()
		l.failures[strings.Fields(s)[0]]++
	}
}

// call bounds one write. It is not cut off by stop: the load would not know its outcome.
func (l *load) call(fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return fn(ctx)
}

// refused reports whether an error says that a write was not made. Everything
// else, a cut connection above all, leaves that open.
func refused(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && (strings.HasPrefix(err.Error(), "LOADING") || strings.HasPrefix(err.Error(), "MISCONF")) ||
		strings.Contains(err.Error(), "connect: connection refused")
}

func (l *load) count(c *redis.Client, key, field string, by int64) error {
	name := key
	if field != "" {
		name += " " + field
	}
	l.mu.Lock()
	l.attempted[name] += by
	l.mu.Unlock()
	err := l.call(func(ctx context.Context) error {
		if field != "" {
			return c.HIncrBy(ctx, key, field, by).Err()
		}
		return c.IncrBy(ctx, key, by).Err()
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.acked[name] += by
	case refused(err):
		l.attempted[name] -= by
	}
	return err
}

// own writes to something that no other client writes to. Version -1 is a
// delete.
func (l *load) own(name string, version int, write func(ctx context.Context, name, value string) error) error {
	value := ""
	if version >= 0 {
		value = fmt.Sprint(version)
	}
	l.mu.Lock()
	may, known := l.owned[name]
	if !known {
		may = []string{""}
	}
	unsure := len(may) > 1
	l.mu.Unlock()
	if unsure {
		return nil
	}
	err := l.call(func(ctx context.Context) error { return write(ctx, name, value) })
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.owned[name] = []string{value}
	case refused(err):
	default:
		l.owned[name] = append(slices.Clone(may), value)
	}
	return err
}

// shared writes to keys that all clients write to, of changing types, with
// expiries.
func (l *load) shared(c *redis.Client, r *rand.Rand) error {
	k := fmt.Sprint("shared", r.IntN(8))
	v := r.IntN(100)
	return l.call(func(ctx context.Context) error {
		var err error
		switch r.IntN(10) {
		case 8:
			err = c.Do(ctx, "HSETEX", k, "PX", (1+v)*20, "FIELDS", 1, v%5, v).Err()
		case 9:
			err = c.Do(ctx, "HPEXPIRE", k, (1+v)*20, "FIELDS", 2, v%5, v%3).Err()
		case 0:
			err = c.Set(ctx, k, v, 0).Err()
		case 1:
			err = c.Set(ctx, k, v, time.Duration(1+v)*10*time.Millisecond).Err()
		case 2:
			err = c.Incr(ctx, k).Err()
		case 3:
			err = c.SAdd(ctx, k, v).Err()
		case 4:
			err = c.HSet(ctx, k, v%5, v).Err()
		case 5:
			err = c.Del(ctx, k).Err()
		case 6:
			err = c.SPop(ctx, k).Err()
		default:
			err = c.Expire(ctx, k, time.Minute).Err()
		}
		var reply redis.Error
		if errors.As(err, &reply) && (strings.HasPrefix(err.Error(), "WRONGTYPE") || strings.Contains(err.Error(), "not an integer")) || errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
}

// check compares a node with what it must hold. The load is stopped, and the node
// level with all others.
func (l *load) check(n *testbed.Node) {
	l.bed.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(l.attempted)) {
		key, field, inHash := strings.Cut(name, " ")
		var got int64
		if inHash {
			got = n.Int("HGET", key, field)
		} else {
			got = n.Int("GET", key)
		}
		if got < l.acked[name] || got > l.attempted[name] {
			l.bed.Errorf("node %d: counter %s is %d: %d were acknowledged and %d attempted", n.ID, name, got, l.acked[name], l.attempted[name])
		}
	}
	wrong := 0
	for _, name := range slices.Sorted(maps.Keys(l.owned)) {
		var got string
		key, elem, within := strings.Cut(name, " ")
		switch {
		case key == "ownset":
			if n.Int("SISMEMBER", key, elem) == 1 {
				got = "1"
			}
		case within:
			got = textOr(n.Do("HGET", key, elem))
		default:
			got = textOr(n.Do("GET", key))
		}
		if !slices.Contains(l.owned[name], got) {
			if wrong++; wrong <= 5 {
				l.bed.Errorf("node %d: %s is %q, must be one of %q", n.ID, name, got, l.owned[name])
			}
		}
	}
	if wrong > 5 {
		l.bed.Errorf("node %d: and %d more", n.ID, wrong-5)
	}
}

// settled fails the test unless every write was answered: counters are exact
// then.
func (l *load) exact() {
	l.bed.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, n := range l.attempted {
		if l.acked[name] != n {
			l.bed.Errorf("%s: %d attempted, %d acknowledged: %v", name, n, l.acked[name], l.failures)
		}
	}
}

// summary is for logs.
func (l *load) summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var sum int64
	for _, n := range l.acked {
		sum += n
	}
	return fmt.Sprintf("%d writes, %d increments acknowledged, failures %v", l.writes, sum, l.failures)
}

func textOr(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}
