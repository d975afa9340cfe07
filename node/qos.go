package node

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/command"
)

// AnyDB is the QoSRule.DB that means every database.
const AnyDB = -1

// maxQoSRules bounds the rules that a key is held against.
const maxQoSRules = 256

// QoSRule is a [[qos]] table: which keys travel in which lane. The first rule
// that fits a key decides; a key that none fits is in DefaultLane. It may be
// changed at any start: what a key was written in before stays valid.
type QoSRule struct {
	// DB is the database, 0 to 15. Default: AnyDB, every one.
	DB int `toml:"db"`
	// Keys is the pattern of the keys' names, as in KEYS: * ? [abc]. Default
	// "*", every key.
	Keys string `toml:"keys"`
	// Lane is the class of service: realtime, high, low or idle.
	Lane string `toml:"lane"`
}

// String shows the rule on one line.
func (r QoSRule) String() string {
	db := "*"
	if r.DB != AnyDB {
		db = strconv.Itoa(r.DB)
	}
	return fmt.Sprintf("%s %q %s", db, r.Keys, r.Lane)
}

func qosKey(i int, name string) string { return tableKey("qos", i, name) }

// validateQoS says what is wrong with the rules.
func (c *Config) validateQoS(bad func(key, format string, a ...any)) {
	if len(c.QoS) > maxQoSRules {
		bad(qosKey(maxQoSRules, "lane"), "%d rules are too many: at most %d", len(c.QoS), maxQoSRules)
	}
	for i, r := range c.QoS[:min(len(c.QoS), maxQoSRules)] {
		if r.DB != AnyDB && (r.DB < 0 || r.DB >= userDBs) {
			bad(qosKey(i, "db"), "%d is outside 0 to %d", r.DB, userDBs-1)
		}
		if r.Keys == "" {
			bad(qosKey(i, "keys"), "an empty pattern fits the empty key alone: leave it out, or write \"*\"")
		}
		if r.Lane == "" {
			bad(qosKey(i, "lane"), "missing: a rule says which lane its keys are in")
		} else if _, err := crdt.ParseLane(r.Lane); err != nil {
			bad(qosKey(i, "lane"), "%v", err)
			continue
		}
		for j, e := range c.QoS[:i] {
			if r.Lane != "" && e.Lane != "" && e.Keys == "*" && (e.DB == AnyDB || e.DB == r.DB) {
				bad(qosKey(i, "lane"), "never used: rule %d fits every key before it", j+1)
				break
			}
		}
	}
}

// lanes returns the lane of a key by the rules, nil if there are none.
func (c *Config) lanes() func(crdt.Key) crdt.Lane {
	if len(c.QoS) == 0 {
		return nil
	}
	type rule struct {
		db      int
		pattern []byte // nil: every key
		lane    crdt.Lane
	}
	rules := make([]rule, len(c.QoS))
	for i, r := range c.QoS {
		rules[i].db = r.DB
		if strings.Trim(r.Keys, "*") != "" {
			rules[i].pattern = []byte(r.Keys)
		}
		rules[i].lane, _ = crdt.ParseLane(r.Lane) // Validate has seen to it
	}
	return func(k crdt.Key) crdt.Lane {
		if k.DB == command.SystemDB {
			return DefaultLane
		}
		for i := range rules {
			r := &rules[i]
			if (r.db == AnyDB || r.db == int(k.DB)) && (r.pattern == nil || command.Match(r.pattern, []byte(k.Name), false)) {
				return r.lane
			}
		}
		return DefaultLane
	}
}
