package command

import "strings"

// pureReads are the reads of one key whose replies may be kept until it changes;
// see Command.Pure. EXISTS is one if it is given one key.
var pureReads = strings.Fields(`
	GET STRLEN GETRANGE SUBSTR GETBIT BITCOUNT BITPOS BITFIELD_RO EXISTS TYPE EXPIRETIME PEXPIRETIME
	HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS HSTRLEN LINDEX LLEN LPOS LRANGE SCARD SISMEMBER SMISMEMBER SMEMBERS
	ZSCORE ZMSCORE ZCARD ZCOUNT ZLEXCOUNT ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE
	ZRANK ZREVRANK GEODIST GEOHASH GEOPOS GEOSEARCH GEORADIUS_RO GEORADIUSBYMEMBER_RO`)

// readOnlyCommands are the rows of what the view answers as it is: commands
// that Redis 7.0 calls read-only and that have no file of their own here. They
// are right for every type that a view can hold, supported or not.
var readOnlyCommands = []*Command{
	{Name: "GET", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "The value of a string"},
	{Name: "MGET", Arity: -2, Flags: ReadOnly | Fast, First: 1, Last: -1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "The values of several strings"},
	{Name: "STRLEN", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "string", Since: "2.2.0",
		Summary: "The length of a string"},
	{Name: "GETRANGE", Arity: 4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "string", Since: "2.4.0",
		Summary: "A part of a string"},
	{Name: "SUBSTR", Arity: 4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "string", Since: "1.0.0",
		Summary: "A part of a string: the old name of GETRANGE"},
	{Name: "LCS", Arity: -3, Flags: ReadOnly, First: 1, Last: 2, Step: 1, Group: "string", Since: "7.0.0",
		Summary: "The longest common subsequence of two strings"},

	{Name: "GETBIT", Arity: 3, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "bitmap", Since: "2.2.0",
		Summary: "One bit of a string"},
	{Name: "BITCOUNT", Arity: -2, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "bitmap", Since: "2.6.0",
		Summary: "How many bits of a string are set"},
	{Name: "BITPOS", Arity: -3, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "bitmap", Since: "2.8.7",
		Summary: "Where the first set or clear bit of a string is"},
	{Name: "BITFIELD_RO", Arity: -2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "bitmap", Since: "6.0.0",
		Summary: "Integers packed into a string"},

	{Name: "EXISTS", Arity: -2, Flags: ReadOnly | Fast, First: 1, Last: -1, Step: 1, Group: "generic", Since: "1.0.0",
		Summary: "How many of the keys exist"},
	{Name: "TYPE", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "1.0.0",
		Summary: "The type of a key"},
	{Name: "TTL", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "1.0.0",
		Summary: "How long a key will live yet, in seconds"},
	{Name: "PTTL", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "2.6.0",
		Summary: "How long a key will live yet, in milliseconds"},
	{Name: "EXPIRETIME", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "7.0.0",
		Summary: "When a key expires, as a Unix time in seconds"},
	{Name: "PEXPIRETIME", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "generic", Since: "7.0.0",
		Summary: "When a key expires, as a Unix time in milliseconds"},
	{Name: "TOUCH", Arity: -2, Flags: ReadOnly | Fast, First: 1, Last: -1, Step: 1, Group: "generic", Since: "3.2.1",
		Summary: "Marks keys as used now, and counts those that exist"},
	{Name: "KEYS", Arity: 2, Flags: ReadOnly, Group: "generic", Since: "1.0.0",
		Summary: "The keys that match a pattern"},
	{Name: "SCAN", Arity: -2, Flags: ReadOnly, Group: "generic", Since: "2.8.0",
		Summary: "The keys, a few at a time"},
	{Name: "RANDOMKEY", Arity: 1, Flags: ReadOnly, Group: "generic", Since: "1.0.0",
		Summary: "One key at random"},
	{Name: "DBSIZE", Arity: 1, Flags: ReadOnly | Fast, Group: "server", Since: "1.0.0",
		Summary: "How many keys the database has"},

	{Name: "LINDEX", Arity: 3, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "One element of a list by its index"},
	{Name: "LLEN", Arity: 2, Flags: ReadOnly | Fast, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "The length of a list"},
	{Name: "LPOS", Arity: -3, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "list", Since: "6.0.6",
		Summary: "Where elements stand in a list"},
	{Name: "LRANGE", Arity: 4, Flags: ReadOnly, First: 1, Last: 1, Step: 1, Group: "list", Since: "1.0.0",
		Summary: "A range of a list"},

	{Name: "OBJECT", Arity: -2, Group: "generic", Since: "2.2.3",
		Summary: "About the inside of values", Sub: []*Command{
			{Name: "OBJECT|ENCODING", Arity: 3, Flags: ReadOnly, First: 2, Last: 2, Step: 1, Group: "generic", Since: "2.2.3",
				Summary: "How the view stores a value"},
			{Name: "OBJECT|FREQ", Arity: 3, Flags: ReadOnly, First: 2, Last: 2, Step: 1, Group: "generic", Since: "4.0.0",
				Summary: "How often a key is used"},
			{Name: "OBJECT|IDLETIME", Arity: 3, Flags: ReadOnly, First: 2, Last: 2, Step: 1, Group: "generic", Since: "2.2.3",
				Summary: "How long a key has not been used, in seconds"},
			{Name: "OBJECT|REFCOUNT", Arity: 3, Flags: ReadOnly, First: 2, Last: 2, Step: 1, Group: "generic", Since: "2.2.3",
				Summary: "How many references a value has"},
			{Name: "OBJECT|HELP", Arity: 2, Flags: ReadOnly | Unlisted | Loading | Stale, Group: "generic", Since: "6.2.0",
				Summary: "The subcommands of OBJECT"},
		}},
}
