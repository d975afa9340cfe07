package node

import (
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/resp"
)

// WATCH sees what Redis calls a change, and nothing else: not what leaves a key
// as it was, nor what tidies away what had expired.
func TestWatchAsRedis(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) { c.Redis, c.EnableDebugCommand = RedisSpawn, resp.DebugLocal })
	sock := plainRedis(t)
	keys := []string{"s", "stale", "stale2", "set", "one", "z", "h", "l", "p", "gone", "two"}
	var watchers [2][]*rawClient // one for each key
	for range keys {
		watchers[0] = append(watchers[0], dialRaw(t, "tcp", n.cfg.Addr()))
		watchers[1] = append(watchers[1], dialRaw(t, "unix", sock))
	}
	other := [2]*rawClient{dialRaw(t, "tcp", n.cfg.Addr()), dialRaw(t, "unix", sock)}
	const prepare = `flushall; set s 1; set stale x px 1; sadd set a b; sadd one a; zadd z 1 m; hset h f 1; rpush l a b c; pfadd p a;
		select 1; set s 2; set stale2 x px 1; set two 1; select 0`
	for _, c := range []*rawClient{other[0], other[1]} {
		c.do("debug set-active-expire 0")
	}
	for _, line := range strings.Split(strings.TrimSpace(`
ping
set s 1
set s 1 nx
getex s
getex s persist
expire s 100
expire s 100 xx
persist s
append s x
setrange s 0 1
incr s
get s
sadd set a
sadd set a c
srem set nope
smove one set a
smove set one b
zadd z 1 m
zadd z 2 m
zadd z nx 5 m
zadd z xx gt 0 m
zrem z nope
zincrby z 0 m
hset h f 1
hsetnx h f 2
hdel h nope
lset l 0 a
lrem l 0 nope
ltrim l 0 1
linsert l before nope x
pfadd p a
del gone
del stale
unlink stale gone
flushdb
flushall
swapdb 0 1
select 1; swapdb 1 0; select 0
swapdb 1 2
set gone 1
multi; set gone 1; exec
eval return(redis.call('sadd','set','a')) 0
eval return(redis.call('zadd','z','9','m')) 0
eval redis.call('zadd','z','9','m')return(redis.call('zadd','z','9','m')) 0
rename s s
rename gone s
copy s set replace
set stale new
set stale2 new
`), "\n") {
		for _, c := range other {
			for _, l := range strings.Split(prepare, ";") {
				c.do(strings.TrimSpace(l))
			}
		}
		time.Sleep(5 * time.Millisecond) // the stale ones have expired
		for i, c := range other {
			for j, w := range watchers[i] {
				w.do("watch " + keys[j])
			}
			for _, l := range strings.Split(line, "; ") {
				c.do(l)
			}
		}
		for j, key := range keys {
			var got [2]string
			for i := range got {
				w := watchers[i][j]
				w.do("multi")
				w.do("ping")
				got[i] = w.do("exec")
			}
			if got[0] != got[1] {
				t.Errorf("watch %s, then %s: EXEC answers %q, Redis %q", key, line, got[0], got[1])
			}
		}
	}
}
