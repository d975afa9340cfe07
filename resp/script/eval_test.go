package script

import (
	"os"
	"strings"
	"testing"
)

// Every script in testdata/scripts.lua, one per paragraph, replies as in Redis.
func TestScriptsAsRedis(t *testing.T) {
	p := newPair(t)
	b, err := os.ReadFile("testdata/scripts.lua")
	if err != nil {
		t.Fatal(err)
	}
	for _, proto := range []int{2, 3} {
		p.proto = proto
		p.redis.cmd("HELLO", string(rune('0'+proto)))
		for _, text := range strings.Split(string(b), "\n\n") {
			if text = strings.TrimSpace(text); text != "" {
				p.same(text, "a1", "2", "3.5")
			}
		}
	}
}
