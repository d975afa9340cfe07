package command

import (
	"cmp"
	"slices"
	"strings"

	"github.com/replicatord/replicatord/crdt"
)

// Classes of events, by the letters of notify-keyspace-events. Those of a type
// are in typeClass.
const (
	ClassGeneric = 'g'
	ClassExpired = 'x'
	ClassMiss    = 'm'
	ClassNew     = 'n'
	ClassHash    = 'h'
)

// Event is what subscribers to keyspace notifications are told of a key.
type Event struct {
	Class byte
	Name  string
	Key   crdt.Key
}

// Change is what a command, or peers' entries, did to a key as far as a client
// can see it.
type Change struct {
	Key            crdt.Key
	Was, Is        crdt.Type
	Before, Expiry int64 // expiries in Unix milliseconds, 0 for none
}

func (ch *Change) event(class byte, name string) Event { return Event{class, name, ch.Key} }

// groupClass is the class of the events of a group's commands.
var groupClass = map[string]byte{
	"string": '$', "bitmap": '$', "hyperloglog": '$', "hash": 'h', "list": 'l', "set": 's', "sorted-set": 'z', "geo": 'z', "stream": 't',
}

// eventRule says which events Redis has for a command. Without one a command's
// event has its name, in lower case, and the class of its group.
type eventRule struct {
	class byte // 0: that of the group
	// name is the event for the i-th key of the arguments; nil: the command's.
	name func(args [][]byte, i int) string
	// takes: the command takes elements away, which is told before it is told
	// that the key has gone with the last. Otherwise only that it is gone.
	takes bool
	// last: the events of later keys come first.
	last bool
	// own makes all events of the command.
	own func(args [][]byte, changes []Change) []Event
}

func called(name string) func([][]byte, int) string {
	return func([][]byte, int) string { return name }
}

// eachOf names the event of each key; the last name is that of all others.
func eachOf(names ...string) func([][]byte, int) string {
	return func(_ [][]byte, i int) string { return names[min(i, len(names)-1)] }
}

var eventRules = map[string]eventRule{
	"SET": {own: setEvents}, "SETEX": {own: setEvents}, "PSETEX": {own: setEvents},
	"SETNX": {name: called("set")}, "GETSET": {name: called("set")}, "MSET": {name: called("set")}, "MSETNX": {name: called("set")},
	"BITOP": {name: called("set")}, "BITFIELD": {name: called("setbit")},
	"INCR": {name: called("incrby")}, "DECR": {name: called("incrby")}, "DECRBY": {name: called("incrby")},
	"PFMERGE": {name: called("pfadd")},
	"GETEX":   {own: expiryEvents}, "GETDEL": {class: ClassGeneric, name: called("del")},
	"EXPIRE": {own: expiryEvents}, "PEXPIRE": {own: expiryEvents}, "EXPIREAT": {own: expiryEvents}, "PEXPIREAT": {own: expiryEvents},
	"PERSIST": {class: ClassGeneric}, "DEL": {class: ClassGeneric}, "UNLINK": {class: ClassGeneric, name: called("del")},
	"RENAME": {own: renameEvents}, "RENAMENX": {own: renameEvents}, "COPY": {own: copyEvents}, "MOVE": {own: moveEvents},
	"RESTORE": {class: ClassGeneric}, "SORT": {class: 'l', name: called("sortstore")},
	"FLUSHDB": {own: noEvents}, "FLUSHALL": {own: noEvents}, "SWAPDB": {own: noEvents},
	"EVAL": {own: noEvents}, "EVALSHA": {own: noEvents}, "FCALL": {own: noEvents}, "FUNCTION": {own: noEvents},

	"HMSET": {name: called("hset")}, "HSETNX": {name: called("hset")}, "HDEL": {takes: true},
	"HEXPIRE": {own: noEvents}, "HPEXPIRE": {own: noEvents}, "HEXPIREAT": {own: noEvents}, "HPEXPIREAT": {own: noEvents}, // they tell themselves
	"HPERSIST": {own: noEvents}, "HGETEX": {own: noEvents}, "HSETEX": {own: noEvents}, "HGETDEL": {own: noEvents},

	"LPUSHX": {name: called("lpush")}, "RPUSHX": {name: called("rpush")},
	"LPOP": {takes: true}, "RPOP": {takes: true}, "LREM": {takes: true}, "LTRIM": {takes: true},
	"BLPOP": {takes: true, name: called("lpop")}, "BRPOP": {takes: true, name: called("rpop")},
	"LMPOP": {takes: true, name: popSide(2)}, "BLMPOP": {takes: true, name: popSide(3)},
	"LMOVE": {takes: true, last: true, name: moveSides}, "BLMOVE": {takes: true, last: true, name: moveSides},
	"RPOPLPUSH": {takes: true, last: true, name: eachOf("rpop", "lpush")}, "BRPOPLPUSH": {takes: true, last: true, name: eachOf("rpop", "lpush")},

	"SREM": {takes: true}, "SPOP": {takes: true}, "SMOVE": {takes: true, name: eachOf("srem", "sadd")},

	"ZADD": {name: zaddEvent}, "ZINCRBY": {name: called("zincr")}, "GEOADD": {name: called("zadd")},
	"ZREM": {takes: true}, "ZREMRANGEBYRANK": {takes: true}, "ZREMRANGEBYSCORE": {takes: true}, "ZREMRANGEBYLEX": {takes: true},
	"ZPOPMIN": {takes: true}, "ZPOPMAX": {takes: true},
	"BZPOPMIN": {takes: true, name: called("zpopmin")}, "BZPOPMAX": {takes: true, name: called("zpopmax")},
	"ZMPOP": {takes: true, name: popEnd(2)}, "BZMPOP": {takes: true, name: popEnd(3)},
	"GEORADIUS": {name: called("georadiusstore")}, "GEORADIUSBYMEMBER": {name: called("georadiusstore")},

	"XGROUP|CREATE": {name: called("xgroup-create")}, "XGROUP|SETID": {name: called("xgroup-setid")},
	"XGROUP|DESTROY": {name: called("xgroup-destroy")}, "XGROUP|CREATECONSUMER": {name: called("xgroup-createconsumer")},
	"XGROUP|DELCONSUMER": {name: called("xgroup-delconsumer")},
	"XREADGROUP":         {own: noEvents}, "XCLAIM": {own: noEvents}, "XAUTOCLAIM": {own: noEvents}, "XACK": {own: noEvents},
}

// Events returns what Redis tells of a command that has changed keys.
func (c *Command) Events(db uint8, args [][]byte, changes []Change) []Event {
	rule := eventRules[c.Name]
	if rule.own != nil {
		return rule.own(args, changes)
	}
	class := rule.class
	if class == 0 {
		class = groupClass[c.Group]
	}
	place, twice := map[crdt.Key]int{}, false
	for i, r := range c.FindKeys(args) {
		k := crdt.Key{DB: db, Name: string(args[r.Arg])}
		if _, had := place[k]; !had {
			place[k] = i
		} else {
			twice = true
		}
	}
	slices.SortStableFunc(changes, func(a, b Change) int {
		d := cmp.Compare(place[a.Key], place[b.Key])
		if rule.last {
			d = -d
		}
		return d
	})
	var out []Event
	for _, ch := range changes {
		name := strings.ToLower(c.Name)
		if rule.name != nil {
			name = rule.name(args, place[ch.Key])
		}
		if ch.Was == crdt.TypeNone && ch.Is != crdt.TypeNone {
			out = append(out, ch.event(ClassNew, "new"))
		}
		if twice && rule.last { // within one list
			out = append(out, ch.event(class, rule.name(args, 1)))
		}
		if ch.Is != crdt.TypeNone || rule.takes {
			out = append(out, ch.event(class, name))
		}
		if ch.Is == crdt.TypeNone {
			out = append(out, ch.event(ClassGeneric, "del"))
		}
	}
	return out
}

func noEvents([][]byte, []Change) []Event { return nil }

func setEvents(args [][]byte, changes []Change) []Event {
	var out []Event
	for _, ch := range changes {
		if ch.Was == crdt.TypeNone {
			out = append(out, ch.event(ClassNew, "new"))
		}
		out = append(out, ch.event('$', "set"))
		keeps := slices.ContainsFunc(args[2:], func(a []byte) bool { return is(a, "KEEPTTL") })
		if ch.Is == crdt.TypeNone { // by a time that has passed
			out = append(out, ch.event(ClassGeneric, "expire"), ch.event(ClassExpired, "expired"))
		} else if ch.Expiry != 0 && !keeps {
			out = append(out, ch.event(ClassGeneric, "expire"))
		}
	}
	return out
}

// expiryEvents are those of what changes only the expiry.
func expiryEvents(_ [][]byte, changes []Change) []Event {
	var out []Event
	for _, ch := range changes {
		name := "expire"
		switch {
		case ch.Is == crdt.TypeNone:
			name = "del"
		case ch.Expiry == 0:
			name = "persist"
		}
		out = append(out, ch.event(ClassGeneric, name))
	}
	return out
}

func renameEvents(args [][]byte, changes []Change) []Event {
	var from, to *Change
	for i := range changes {
		switch changes[i].Key.Name {
		case string(args[1]):
			from = &changes[i]
		case string(args[2]):
			to = &changes[i]
		}
	}
	if from == nil || to == nil {
		return nil
	}
	return []Event{to.event(ClassNew, "new"), from.event(ClassGeneric, "rename_from"), to.event(ClassGeneric, "rename_to")}
}

func copyEvents(args [][]byte, changes []Change) []Event {
	for _, ch := range changes {
		if ch.Key.Name == string(args[2]) && ch.Is != crdt.TypeNone {
			return []Event{ch.event(ClassNew, "new"), ch.event(ClassGeneric, "copy_to")}
		}
	}
	return nil
}

func moveEvents(_ [][]byte, changes []Change) []Event {
	var from, to *Change
	for i := range changes {
		if changes[i].Is == crdt.TypeNone {
			from = &changes[i]
		} else {
			to = &changes[i]
		}
	}
	if from == nil || to == nil {
		return nil
	}
	return []Event{to.event(ClassNew, "new"), from.event(ClassGeneric, "move_from"), to.event(ClassGeneric, "move_to")}
}

// popSide names the event of LMPOP and BLMPOP; at is where keys begin.
func popSide(at int) func([][]byte, int) string {
	return func(args [][]byte, _ int) string {
		if side := afterKeys(args, at); is(side, "RIGHT") {
			return "rpop"
		}
		return "lpop"
	}
}

// popEnd is popSide for sorted sets.
func popEnd(at int) func([][]byte, int) string {
	return func(args [][]byte, _ int) string {
		if end := afterKeys(args, at); is(end, "MAX") {
			return "zpopmax"
		}
		return "zpopmin"
	}
}

// afterKeys returns the argument behind the keys, which begin at an argument
// with their number before it.
func afterKeys(args [][]byte, at int) []byte {
	if n, ok := crdt.ParseInt(args[at-1]); ok && n > 0 && n < int64(len(args)-at) {
		return args[at+int(n)]
	}
	return nil
}

// moveSides names the events of LMOVE and BLMOVE.
func moveSides(args [][]byte, i int) string {
	verb, side := "pop", args[3]
	if i > 0 {
		verb, side = "push", args[4]
	}
	if is(side, "RIGHT") {
		return "r" + verb
	}
	return "l" + verb
}

func zaddEvent(args [][]byte, _ int) string {
	for _, a := range args[2:] {
		switch {
		case is(a, "INCR"):
			return "zincr"
		case is(a, "NX"), is(a, "XX"), is(a, "GT"), is(a, "LT"), is(a, "CH"):
			continue
		}
		break
	}
	return "zadd"
}

// RemoteEvents returns what is told of keys that peers' entries have changed:
// what follows from the cells, since the commands are not known. touched
// returns what became of the elements of a key of a type.
func RemoteEvents(changes []Change, touched func(k crdt.Key, t crdt.Type) Elements) []Event {
	var out []Event
	for _, ch := range changes {
		if ch.Is == crdt.TypeNone {
			if ch.Was != crdt.TypeNone {
				out = append(out, ch.event(ClassGeneric, "del"))
			}
			continue
		}
		if ch.Was == crdt.TypeNone {
			out = append(out, ch.event(ClassNew, "new"))
		}
		v := remoteVerbs[ch.Is]
		e := touched(ch.Key, ch.Is)
		added := e.Added || ch.Was != ch.Is
		if added {
			name := v.add
			if ch.Is == crdt.TypeList && e.First {
				name = "lpush"
			}
			out = append(out, ch.event(v.class, name))
		}
		if e.Removed && v.remove != "" && ch.Was == ch.Is {
			out = append(out, ch.event(v.class, v.remove))
		}
		if e.Expires {
			out = append(out, ch.event(ClassHash, "hexpire"))
		}
		if e.Persists && !e.Expires {
			out = append(out, ch.event(ClassHash, "hpersist"))
		}
		if ch.Before != ch.Expiry {
			name := "expire"
			if ch.Expiry == 0 {
				name = "persist"
			}
			if ch.Expiry != 0 || ch.Was == ch.Is && !added {
				out = append(out, ch.event(ClassGeneric, name))
			}
		}
	}
	return out
}

// Elements says what became of the elements of a key: whether some were put or
// changed, the first of them too, whether some went, and whether some fields that
// stay are to expire now, or are not to any more.
type Elements struct{ Added, First, Removed, Expires, Persists bool }

// remoteVerbs are the events of elements that came and went.
var remoteVerbs = map[crdt.Type]struct {
	class       byte
	add, remove string
}{
	crdt.TypeString: {'$', "set", ""},
	crdt.TypeHash:   {'h', "hset", "hdel"},
	crdt.TypeSet:    {'s', "sadd", "srem"},
	crdt.TypeZSet:   {'z', "zadd", "zrem"},
	crdt.TypeList:   {'l', "rpush", "lrem"},
	crdt.TypeStream: {'t', "xadd", "xdel"},
}
