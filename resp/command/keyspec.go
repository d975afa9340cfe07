package command

import (
	"github.com/replicatord/replicatord/crdt"
)

// KeyAccess says what a command does to a key, in the terms of Redis's key
// specifications.
type KeyAccess uint16

// Accesses. One of the first four, and any of the others.
const (
	KeyRO         KeyAccess = 1 << iota // reads
	KeyRW                               // reads and writes
	KeyOW                               // overwrites
	KeyRM                               // deletes
	KeyAccessed                         // shows the client what the key holds
	KeyUpdate                           // changes what the key holds
	KeyInsert                           // only adds to it
	KeyDelete                           // only takes from it
	KeyVariable                         // depends on the arguments
	KeyIncomplete                       // the specification may find too few keys, or what is none
	KeyNot                              // it is no key, but a channel of a shard
)

// KeySpec says where among its arguments a command has keys, and what it does
// to them.
type KeySpec struct {
	Access KeyAccess
	// The search begins at the argument Index or, if that is 0, after Keyword,
	// looked for from the argument From on. Neither: nobody can say where.
	Index   int
	Keyword string
	From    int
	// Counted: the number of keys is there, and the keys follow.
	Counted bool
	// Otherwise keys are there and every Step arguments on up to Last, counted
	// from there or, if negative, from the end of the arguments; with a Limit
	// of 2, of the first half of what is left.
	Last, Step, Limit int
	Notes             string
}

// KeyRef is a key among the arguments of a request.
type KeyRef struct {
	Arg    int
	Access KeyAccess
}

// at specifies one key.
func at(index int, a KeyAccess) KeySpec { return KeySpec{Access: a, Index: index, Step: 1} }

// from specifies keys up to the last argument.
func from(index int, a KeyAccess) KeySpec { return KeySpec{Access: a, Index: index, Last: -1, Step: 1} }

// counted specifies keys with their number before them.
func counted(index int, a KeyAccess) KeySpec {
	return KeySpec{Access: a, Index: index, Counted: true, Step: 1}
}

// after specifies one key after a keyword.
func after(keyword string, start int, a KeyAccess) KeySpec {
	return KeySpec{Access: a, Keyword: keyword, From: start, Step: 1}
}

const (
	readAccess   = KeyRO | KeyAccessed
	moveAccess   = KeyRW | KeyAccessed | KeyDelete
	modifyAccess = KeyRW | KeyAccessed | KeyUpdate
	storeAccess  = KeyOW | KeyUpdate
)

// keyAccess is what commands with one plain range of keys (Command.First to
// Last) do to them. Read-only commands that are not here have readAccess.
var keyAccess = map[string]KeyAccess{
	"EXISTS": KeyRO, "TOUCH": KeyRO, "TYPE": KeyRO, "STRLEN": KeyRO,
	"OBJECT|ENCODING": KeyRO, "OBJECT|FREQ": KeyRO, "OBJECT|IDLETIME": KeyRO, "OBJECT|REFCOUNT": KeyRO,
	"MEMORY|USAGE": KeyRO,
	"HEXISTS":      KeyRO, "HLEN": KeyRO, "HSTRLEN": KeyRO, "SCARD": KeyRO, "SISMEMBER": KeyRO,
	"LLEN": KeyRO, "XLEN": KeyRO, "ZCARD": KeyRO,

	"APPEND": KeyRW | KeyInsert, "SETRANGE": KeyRW | KeyUpdate,
	"SETEX": storeAccess, "PSETEX": storeAccess, "SETNX": KeyOW | KeyInsert,
	"MSET": storeAccess, "MSETNX": KeyOW | KeyInsert,
	"GETDEL": moveAccess, "GETEX": modifyAccess, "GETSET": modifyAccess, "SET": modifyAccess | KeyVariable,
	"INCR": modifyAccess, "INCRBY": modifyAccess, "DECR": modifyAccess, "DECRBY": modifyAccess, "INCRBYFLOAT": modifyAccess,
	"SETBIT": modifyAccess, "BITFIELD": modifyAccess | KeyVariable,

	"RESTORE": storeAccess,
	"DEL":     KeyRM | KeyDelete, "UNLINK": KeyRM | KeyDelete, "MOVE": modifyAccess,
	"EXPIRE": KeyRW | KeyUpdate, "EXPIREAT": KeyRW | KeyUpdate, "PEXPIRE": KeyRW | KeyUpdate,
	"PEXPIREAT": KeyRW | KeyUpdate, "PERSIST": KeyRW | KeyUpdate,

	"PFADD": KeyRW | KeyInsert, "PFCOUNT": KeyRW | KeyAccessed, "PFDEBUG": KeyRW | KeyAccessed,

	"HDEL": KeyRW | KeyDelete, "HSET": KeyRW | KeyUpdate, "HMSET": KeyRW | KeyUpdate, "HSETNX": KeyRW | KeyInsert,
	"HINCRBY": modifyAccess, "HINCRBYFLOAT": modifyAccess,
	"HEXPIRE": KeyRW | KeyUpdate, "HPEXPIRE": KeyRW | KeyUpdate, "HEXPIREAT": KeyRW | KeyUpdate, "HPEXPIREAT": KeyRW | KeyUpdate,
	"HPERSIST": KeyRW | KeyUpdate, "HGETEX": modifyAccess, "HSETEX": KeyRW | KeyUpdate, "HGETDEL": moveAccess,
	"ZADD": KeyRW | KeyUpdate, "ZINCRBY": modifyAccess, "ZREM": KeyRW | KeyDelete,
	"ZREMRANGEBYLEX": KeyRW | KeyDelete, "ZREMRANGEBYRANK": KeyRW | KeyDelete, "ZREMRANGEBYSCORE": KeyRW | KeyDelete,
	"ZPOPMIN": moveAccess, "ZPOPMAX": moveAccess, "BZPOPMIN": moveAccess, "BZPOPMAX": moveAccess,
	"GEOADD": KeyRW | KeyUpdate,
	"LPUSH":  insertAccess, "LPUSHX": insertAccess, "RPUSH": insertAccess, "RPUSHX": insertAccess, "LINSERT": insertAccess,
	"LPOP": moveAccess, "RPOP": moveAccess, "BLPOP": moveAccess, "BRPOP": moveAccess,
	"LSET": KeyRW | KeyUpdate, "LREM": takeAccess, "LTRIM": takeAccess,
	"SADD": KeyRW | KeyInsert, "SREM": KeyRW | KeyDelete, "SPOP": moveAccess,
	"XADD": KeyRW | KeyUpdate, "XTRIM": KeyRW | KeyDelete, "XDEL": KeyRW | KeyDelete, "XSETID": KeyRW | KeyUpdate,
	"XACK": KeyRW | KeyUpdate, "XCLAIM": KeyRW | KeyUpdate, "XAUTOCLAIM": KeyRW | KeyDelete,
	"XGROUP|CREATE": KeyRW | KeyInsert, "XGROUP|CREATECONSUMER": KeyRW | KeyInsert, "XGROUP|SETID": KeyRW | KeyUpdate,
	"XGROUP|DELCONSUMER": KeyRW | KeyDelete, "XGROUP|DESTROY": KeyRW | KeyDelete,
}

// keySpecs are the specifications of all other commands that have keys.
var keySpecs = map[string][]KeySpec{
	"BITOP":    {at(2, storeAccess), from(3, readAccess)},
	"COPY":     {at(1, readAccess), at(2, storeAccess)},
	"RENAME":   {at(1, moveAccess), at(2, storeAccess)},
	"RENAMENX": {at(1, moveAccess), at(2, KeyOW|KeyInsert)},
	"SORT":     {at(1, readAccess), {Access: readAccess}, {Access: storeAccess}},
	"SORT_RO":  {at(1, readAccess), {Access: readAccess}},

	"PFMERGE": {at(1, KeyRW|KeyAccessed|KeyInsert), from(2, readAccess)},

	"SMOVE":       {at(1, moveAccess), at(2, KeyRW|KeyInsert)},
	"SDIFFSTORE":  {at(1, storeAccess), from(2, readAccess)},
	"SINTERSTORE": {at(1, KeyRW|KeyUpdate), from(2, readAccess)},
	"SUNIONSTORE": {at(1, storeAccess), from(2, readAccess)},
	"SINTERCARD":  {counted(1, readAccess)},

	"LMPOP":      {counted(1, moveAccess)},
	"BLMPOP":     {counted(2, moveAccess)},
	"LMOVE":      {at(1, moveAccess), at(2, insertAccess)},
	"BLMOVE":     {at(1, moveAccess), at(2, insertAccess)},
	"RPOPLPUSH":  {at(1, moveAccess), at(2, insertAccess)},
	"BRPOPLPUSH": {at(1, moveAccess), at(2, insertAccess)},

	"ZDIFF":      {counted(1, readAccess)},
	"ZINTER":     {counted(1, readAccess)},
	"ZINTERCARD": {counted(1, readAccess)},
	"ZUNION":     {counted(1, readAccess)},

	"ZDIFFSTORE":  {at(1, storeAccess), counted(2, readAccess)},
	"ZINTERSTORE": {at(1, storeAccess), counted(2, readAccess)},
	"ZUNIONSTORE": {at(1, storeAccess), counted(2, readAccess)},
	"ZRANGESTORE": {at(1, storeAccess), at(2, readAccess)},
	"ZMPOP":       {counted(1, moveAccess)},
	"BZMPOP":      {counted(2, moveAccess)},

	"GEOSEARCHSTORE":    {at(1, storeAccess), at(2, readAccess)},
	"GEORADIUS":         {at(1, readAccess), after("STORE", 6, storeAccess), after("STOREDIST", 6, storeAccess)},
	"GEORADIUSBYMEMBER": {at(1, readAccess), after("STORE", 5, storeAccess), after("STOREDIST", 5, storeAccess)},

	"MIGRATE":        {at(3, moveAccess), {Access: moveAccess | KeyIncomplete, Keyword: "KEYS", From: -2, Last: -1, Step: 1}},
	"RESTORE-ASKING": {at(1, storeAccess)},

	"XREAD":      {{Access: readAccess, Keyword: "STREAMS", From: 1, Last: -1, Step: 1, Limit: 2}},
	"XREADGROUP": {{Access: readAccess, Keyword: "STREAMS", From: 4, Last: -1, Step: 1, Limit: 2}},
	"EVAL":       {counted(2, modifyAccess)}, "EVALSHA": {counted(2, modifyAccess)}, "FCALL": {counted(2, modifyAccess)},
	"EVAL_RO": {counted(2, readAccess)}, "EVALSHA_RO": {counted(2, readAccess)}, "FCALL_RO": {counted(2, readAccess)},
	"WATCH": {from(1, KeyRO)},
}

// keyRefs finds keys where specifications fail, or cannot say what is done to
// them.
var keyRefs = map[string]func(args [][]byte) []KeyRef{
	"MIGRATE":           migrateKeyRefs,
	"SET":               setKeyRefs,
	"BITFIELD":          bitfieldKeyRefs,
	"SORT":              sortKeyRefs,
	"SORT_RO":           func([][]byte) []KeyRef { return []KeyRef{{1, readAccess}} },
	"GEORADIUS":         georadiusKeyRefs,
	"GEORADIUSBYMEMBER": georadiusKeyRefs,
}

// specsOf returns the key specifications of a command.
func specsOf(c *Command) []KeySpec {
	if s, ok := keySpecs[c.Name]; ok {
		return s
	}
	if c.First == 0 {
		return nil
	}
	last := c.Last
	if last > 0 {
		last -= c.First
	}
	access, ok := keyAccess[c.Name]
	if c.Flags&PubSub != 0 {
		access, ok = KeyNot, true
	}
	if !ok && c.Flags&ReadOnly != 0 {
		access = readAccess
	}
	return []KeySpec{{Access: access, Index: c.First, Last: last, Step: c.Step}}
}

// HasKeys reports whether requests for the command name keys.
func (c *Command) HasKeys() bool { return (len(c.specs) > 0 || c.Keys != nil) && c.Flags&PubSub == 0 }

// FindKeys returns the keys that a request names, in the order of Redis's
// COMMAND GETKEYS. The request has the right number of arguments. None: it has
// no keys, or is wrong in a way that hides them.
func (c *Command) FindKeys(args [][]byte) []KeyRef {
	if c.Flags&PubSub != 0 {
		return nil
	}
	variable := false
	for _, s := range c.specs {
		variable = variable || s.Access&(KeyVariable|KeyIncomplete) != 0
	}
	if !variable && len(c.specs) > 0 {
		if refs, ok := findBySpecs(c.specs, args); ok {
			return refs
		}
	}
	if f := keyRefs[c.Name]; f != nil {
		return f(args)
	}
	if c.Keys == nil {
		return nil
	}
	var refs []KeyRef
	for _, i := range c.Keys(args) {
		refs = append(refs, KeyRef{Arg: i})
	}
	return refs
}

// findBySpecs finds keys as Redis's getKeysUsingKeySpecs does; false if a
// specification cannot be followed.
func findBySpecs(specs []KeySpec, args [][]byte) ([]KeyRef, bool) {
	var refs []KeyRef
	for i := range specs {
		s := &specs[i]
		first := s.Index
		if first == 0 {
			if s.Keyword == "" {
				return nil, false
			}
			if first = findKeyword(args, s.Keyword, s.From) + 1; first == 0 {
				continue
			}
		}
		if first >= len(args) {
			return nil, false
		}
		last := first + s.Last
		switch {
		case s.Counted:
			n, ok := crdt.ParseInt(args[first])
			if !ok || n < 0 {
				return nil, false
			}
			first++
			last = first + int(int32(n)) - 1 // Redis too takes only so many bits
		case s.Last < 0 && s.Limit > 0:
			last = first + (len(args)-first)/s.Limit + s.Last
		case s.Last < 0:
			last = len(args) + s.Last
		}
		if first >= len(args) || last < first || last >= len(args) {
			return nil, false
		}
		for j := first; j <= last; j += s.Step {
			refs = append(refs, KeyRef{j, s.Access})
		}
	}
	return refs, true
}

// findKeyword returns the first argument from start on that is the keyword, -1
// if there is none. Like Redis it does not look at the last one, which nothing
// could follow.
func findKeyword(args [][]byte, word string, start int) int {
	for i := start; i < len(args)-1; i++ {
		if is(args[i], word) {
			return i
		}
	}
	return -1
}

func migrateKeyRefs(args [][]byte) []KeyRef {
	for i := 6; i < len(args); i++ {
		switch {
		case is(args[i], "AUTH"):
			i++
		case is(args[i], "AUTH2"):
			i += 2
		case is(args[i], "KEYS"):
			if len(args[3]) > 0 {
				return nil // a syntax error
			}
			var refs []KeyRef
			for i++; i < len(args); i++ {
				refs = append(refs, KeyRef{i, moveAccess})
			}
			return refs
		}
	}
	return []KeyRef{{3, moveAccess}}
}

func setKeyRefs(args [][]byte) []KeyRef {
	for _, a := range args[3:] {
		if is(a, "GET") {
			return []KeyRef{{1, modifyAccess}}
		}
	}
	return []KeyRef{{1, storeAccess}}
}

func bitfieldKeyRefs(args [][]byte) []KeyRef {
	if bitfieldReads(args) {
		return []KeyRef{{1, readAccess}}
	}
	return []KeyRef{{1, modifyAccess}}
}

func sortKeyRefs(args [][]byte) []KeyRef {
	refs := []KeyRef{{1, readAccess}}
	if i := sortStore(args); i > 0 {
		refs = append(refs, KeyRef{i, storeAccess})
	}
	return refs
}

// sortStore returns the argument of SORT that names where to store, 0 if there
// is none.
func sortStore(args [][]byte) int {
	store := 0
	for i := 2; i < len(args); i++ {
		switch {
		case is(args[i], "LIMIT"):
			i += 2
		case is(args[i], "GET"), is(args[i], "BY"):
			i++
		case is(args[i], "STORE") && i+1 < len(args):
			store = i + 1
		}
	}
	return store
}

// georadiusStore returns the argument of GEORADIUS or GEORADIUSBYMEMBER that
// names where to store, 0 if there is none.
func georadiusStore(args [][]byte) int {
	store := 0
	for i := 5; i+1 < len(args); i++ {
		if is(args[i], "STORE") || is(args[i], "STOREDIST") {
			i++
			store = i
		}
	}
	return store
}

func georadiusKeyRefs(args [][]byte) []KeyRef {
	refs := []KeyRef{{Arg: 1}}
	if i := georadiusStore(args); i > 0 {
		refs = append(refs, KeyRef{Arg: i})
	}
	return refs
}
