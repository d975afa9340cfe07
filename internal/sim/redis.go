package sim

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/command"
)

// redis is the Redis behind a node: an interpreter of just the commands that
// the node sends to bring it level, and of the reads that clients and commands
// ask for. It has its node's clock, and outlives the node's process.
type redis struct {
	keys map[crdt.Key]*redisKey
	mark *mark
	now  func() int64 // Unix milliseconds
	rand *rand.Rand
	// fields says that it knows expiries of fields, as Redis does since 7.4.
	fields bool

	// expired counts the keys and fields that went by themselves.
	expired int
}

// mark is the watermark: what the node says of the view in the view.
type mark struct {
	dir        uint64
	node       uint16
	generation uint64
	vector     crdt.Vector // what the view holds at least
	ahead      crdt.Vector // what it may hold beyond that
}

type redisKey struct {
	typ    crdt.Type
	str    []byte
	elems  map[string]string // of hashes, sets and sorted sets
	items  []string          // of lists
	due    map[string]int64  // expiries of fields
	expiry int64             // 0: never
}

func (k *redisKey) clone() *redisKey {
	c := *k
	c.str = bytes.Clone(k.str)
	c.elems = maps.Clone(k.elems)
	c.due = maps.Clone(k.due)
	c.items = slices.Clone(k.items)
	return &c
}

// save returns a copy of everything, as a snapshot on disk is.
func (r *redis) save() (map[crdt.Key]*redisKey, *mark) {
	keys := make(map[crdt.Key]*redisKey, len(r.keys))
	for k, v := range r.keys {
		keys[k] = v.clone()
	}
	return keys, r.mark
}

// expire removes what is due.
func (r *redis) expire() {
	now := r.now()
	for k, v := range r.keys {
		if v.expiry != 0 && v.expiry <= now {
			delete(r.keys, k)
			r.expired++
			continue
		}
		for f, at := range v.due {
			if at <= now {
				delete(v.due, f)
				delete(v.elems, f)
				r.expired++
			}
		}
		if v.typ == crdt.TypeHash && len(v.elems) == 0 {
			delete(r.keys, k)
		}
	}
}

// names returns the keys in order.
func (r *redis) names() []crdt.Key {
	return slices.SortedFunc(maps.Keys(r.keys), compareKeys)
}

func compareKeys(a, b crdt.Key) int {
	if a.DB != b.DB {
		return int(a.DB) - int(b.DB)
	}
	return strings.Compare(a.Name, b.Name)
}

const wrongType = "WRONGTYPE Operation against a key holding the wrong kind of value"

// do carries out one command and returns its raw reply.
func (r *redis) do(db uint8, args [][]byte) []byte {
	r.expire()
	out := command.Reply{Proto: 2}
	r.run(db, args, &out)
	return out.Buf
}

func (r *redis) run(db uint8, args [][]byte, out *command.Reply) {
	name := strings.ToUpper(string(args[0]))
	var key crdt.Key
	if len(args) > 1 {
		key = crdt.Key{DB: db, Name: string(args[1])}
	}
	k := r.keys[key]
	of := func(t crdt.Type) bool {
		if k != nil && k.typ != t {
			out.Error(wrongType)
			return false
		}
		return true
	}
	switch name {
	case "PING":
		out.Status("PONG")
	case "FLUSHDB":
		maps.DeleteFunc(r.keys, func(k crdt.Key, _ *redisKey) bool { return k.DB == db })
		out.OK()
	case "SET":
		k = &redisKey{typ: crdt.TypeString, str: bytes.Clone(args[2])}
		if len(args) == 5 && string(args[3]) == "PXAT" {
			k.expiry = number(args[4])
		} else if len(args) != 3 {
			panic(fmt.Sprintf("the view was sent %q", args))
		}
		r.keys[key] = k
		r.expire()
		out.OK()
	case "MSET":
		for i := 1; i < len(args); i += 2 {
			r.run(db, [][]byte{[]byte("SET"), args[i], args[i+1]}, &command.Reply{Proto: 2})
		}
		out.OK()
	case "SETRANGE":
		// Only ever within the string.
		if of(crdt.TypeString) && k != nil {
			at := int(number(args[2]))
			if at+len(args[3]) > len(k.str) {
				panic(fmt.Sprintf("the view was sent %q for %d bytes", args, len(k.str)))
			}
			copy(k.str[at:], args[3])
			out.Int(int64(len(k.str)))
		}
	case "DEL":
		n := 0
		for _, a := range args[1:] {
			key := crdt.Key{DB: db, Name: string(a)}
			if r.keys[key] != nil {
				n++
				delete(r.keys, key)
			}
		}
		out.Int(int64(n))
	case "HSET", "SADD":
		t, step := crdt.TypeHash, 2
		if name == "SADD" {
			t, step = crdt.TypeSet, 1
		}
		if len(args) < 2+step || (len(args)-2)%step != 0 {
			panic(fmt.Sprintf("the view was sent %q", args))
		}
		if !of(t) {
			return
		}
		if k == nil {
			k = &redisKey{typ: t, elems: map[string]string{}}
			r.keys[key] = k
		}
		n := 0
		for i := 2; i < len(args); i += step {
			if _, ok := k.elems[string(args[i])]; !ok {
				n++
			}
			k.elems[string(args[i])] = string(args[i+step-1])
			delete(k.due, string(args[i]))
		}
		out.Int(int64(n))
	case "XADD":
		// The placeholder of a stream.
		if k != nil || len(args) != 5 || string(args[2]) != "0-1" {
			panic(fmt.Sprintf("the view was sent %q", args))
		}
		r.keys[key] = &redisKey{typ: crdt.TypeStream}
		out.BulkString("0-1")
	case "HDEL", "SREM":
		t := crdt.TypeHash
		if name == "SREM" {
			t = crdt.TypeSet
		}
		if !of(t) {
			return
		}
		n := 0
		for _, a := range args[2:] {
			if k == nil {
				break
			}
			if _, ok := k.elems[string(a)]; ok {
				n++
				delete(k.elems, string(a))
				delete(k.due, string(a))
			}
			if len(k.elems) == 0 {
				delete(r.keys, key)
				k = nil
			}
		}
		out.Int(int64(n))
	case "HPEXPIREAT":
		if !r.fields || len(args) < 6 || string(args[3]) != "FIELDS" || int(number(args[4])) != len(args)-5 {
			panic(fmt.Sprintf("the view was sent %q", args))
		}
		if !of(crdt.TypeHash) {
			return
		}
		out.Array(len(args) - 5)
		for _, f := range args[5:] {
			if _, ok := k.elem(string(f)); !ok {
				out.Int(-2)
				continue
			}
			if k.due == nil {
				k.due = map[string]int64{}
			}
			k.due[string(f)] = number(args[2])
			out.Int(1)
		}
		r.expire()
	case "PEXPIREAT":
		if k == nil {
			out.Int(0)
			return
		}
		k.expiry = number(args[2])
		r.expire()
		out.Int(1)
	case "PERSIST":
		had := k != nil && k.expiry != 0
		if had {
			k.expiry = 0
		}
		out.Bool(had)
	case "GET":
		switch {
		case !of(crdt.TypeString):
		case k == nil:
			out.Null()
		default:
			out.Bulk(k.str)
		}
	case "MGET": // of one key
		out.Array(1)
		if k == nil || k.typ != crdt.TypeString {
			out.Null()
		} else {
			out.Bulk(k.str)
		}
	case "EXISTS":
		out.Bool(k != nil)
	case "TYPE":
		t := crdt.TypeNone
		if k != nil {
			t = k.typ
		}
		out.Status(t.String())
	case "PEXPIRETIME":
		switch {
		case k == nil:
			out.Int(-2)
		case k.expiry == 0:
			out.Int(-1)
		default:
			out.Int(k.expiry)
		}
	case "HGET":
		if !of(crdt.TypeHash) {
			return
		}
		if v, ok := k.elem(string(args[2])); ok {
			out.BulkString(v)
		} else {
			out.Null()
		}
	case "SISMEMBER":
		if of(crdt.TypeSet) {
			_, ok := k.elem(string(args[2]))
			out.Bool(ok)
		}
	case "HGETALL":
		if of(crdt.TypeHash) {
			names := k.names()
			out.Array(2 * len(names))
			for _, f := range names {
				out.BulkString(f)
				out.BulkString(k.elems[f])
			}
		}
	case "SMEMBERS":
		if of(crdt.TypeSet) {
			names := k.names()
			out.Array(len(names))
			for _, m := range names {
				out.BulkString(m)
			}
		}
	case "SRANDMEMBER":
		if of(crdt.TypeSet) {
			r.randomMembers(k, args, out)
		}
	default:
		if !r.sortedSet(name, key, k, args, out) && !r.list(name, key, k, args, out) {
			panic(fmt.Sprintf("the view was sent %q", args))
		}
	}
}

func (r *redis) randomMembers(k *redisKey, args [][]byte, out *command.Reply) {
	names := k.names()
	r.rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	if len(args) == 2 {
		if len(names) == 0 {
			out.Null()
		} else {
			out.BulkString(names[0])
		}
		return
	}
	n := min(int(number(args[2])), len(names))
	out.Array(n)
	for _, m := range names[:n] {
		out.BulkString(m)
	}
}

func (k *redisKey) elem(name string) (string, bool) {
	if k == nil {
		return "", false
	}
	v, ok := k.elems[name]
	return v, ok
}

func (k *redisKey) names() []string {
	if k == nil {
		return nil
	}
	out := make([]string, 0, len(k.elems))
	for n := range k.elems {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// String prints a key's value, for comparing and for people.
func (k *redisKey) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v", k.typ)
	if k.expiry != 0 {
		fmt.Fprintf(&b, " until %d", k.expiry)
	}
	if k.typ == crdt.TypeString {
		fmt.Fprintf(&b, " %q", k.str)
	}
	if k.typ == crdt.TypeList {
		fmt.Fprintf(&b, " %q", k.items)
	}
	for _, n := range k.names() {
		if k.typ != crdt.TypeSet {
			fmt.Fprintf(&b, " %q=%q", n, k.elems[n])
			if at := k.due[n]; at != 0 {
				fmt.Fprintf(&b, " until %d", at)
			}
		} else {
			fmt.Fprintf(&b, " %q", n)
		}
	}
	return b.String()
}

func number(b []byte) int64 {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		panic(fmt.Sprintf("the view was sent %q for a number", b))
	}
	return n
}
