package command

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// TestSortStore compares SORT … STORE with Redis, with options at random. Weights
// are all different: among equals Redis leaves the order open.
func TestSortStore(t *testing.T) {
	for _, seed := range seeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, seed)
			for i := range 8 {
				h.run("SET", "w"+strconv.Itoa(i), strconv.Itoa(i*3%8))
				h.run("HSET", "h"+strconv.Itoa(i), "f", fmt.Sprintf("%c", 'a'+i*5%8))
			}
			h.run("RPUSH", "list", "3", "1", "2", "1", "7")
			h.run("SADD", "set", "5", "4", "6", "1")
			h.run("ZADD", "zset", "1", "6", "2", "5", "0.5", "7")
			h.run("SET", "string", "x")
			for range 250 {
				h.run(randomSort(h)...)
			}
		})
	}
}

func randomSort(h *harness) []string {
	args := []string{pick(h, []string{"SORT", "sort"}), pick(h, []string{"list", "set", "zset", "none", "dest", "dest2", "string"})}
	for range h.rng.IntN(5) {
		args = append(args, strings.Fields(pick(h, []string{
			"ASC", "DESC", "ALPHA", "ALPHA", "alpha", "LIMIT 1 2", "LIMIT 0 -1", "limit -1 3", "BY w*", "BY h*->f", "BY nosort",
			"GET #", "GET w*", "GET h*->f", "GET none*", "STORE dest2", "LIMIT x 1", "LIMIT 1", "FOO", "BY", "GET"}))...)
	}
	args = append(args, "STORE", pick(h, []string{"dest", "dest", "dest2", "set"}))
	if h.rng.IntN(20) == 0 {
		args = append(args, "STORE")
	}
	return args
}

// TestSortStoreByConstant: a set that is not to be sorted is, where the result is
// kept, as in Redis.
func TestSortStoreByConstant(t *testing.T) {
	h := newHarness(t, 1)
	h.run("SADD", "s", "c", "a", "e", "b", "d")
	for _, line := range []string{"SORT s BY nosort STORE d", "SORT s BY nosort DESC STORE d", "SORT s BY w* BY nosort LIMIT 1 2 STORE d", "SORT s BY nosort GET # STORE d"} {
		h.run(strings.Fields(line)...)
		h.run("LRANGE", "d", "0", "-1")
	}
}
