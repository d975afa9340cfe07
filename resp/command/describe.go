package command

import (
	"bytes"
	"slices"
	"strings"
)

// Describe answers COMMAND and its subcommands from the table. args is a
// request that Find has accepted.
func Describe(args [][]byte, out *Reply) {
	if len(args) == 1 {
		describeInfo(nil, out)
		return
	}
	rest := args[2:]
	switch {
	case is(args[1], "COUNT"):
		out.Int(int64(len(All())))
	case is(args[1], "INFO"):
		describeInfo(rest, out)
	case is(args[1], "DOCS"):
		describeDocs(rest, out)
	case is(args[1], "LIST"):
		describeList(rest, out)
	case is(args[1], "GETKEYS"):
		describeKeys(rest, out, false)
	case is(args[1], "GETKEYSANDFLAGS"):
		describeKeys(rest, out, true)
	default:
		out.Lines(commandHelp)
	}
}

var commandHelp = []string{
	"COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"(no subcommand)",
	"    The details of all commands.",
	"COUNT",
	"    The number of commands.",
	"DOCS [<command-name> ...]",
	"    What the commands, or all of them, are for.",
	"GETKEYS <full-command>",
	"    The keys that a command names.",
	"GETKEYSANDFLAGS <full-command>",
	"    The keys that a command names, and what it does to them.",
	"INFO [<command-name> ...]",
	"    The details of the commands, or of all.",
	"LIST [FILTERBY ACLCAT|MODULE|PATTERN <arg>]",
	"    The names of the commands.",
	"HELP",
	"    This text.",
}

// byFullName finds a command by a name such as COMMAND INFO takes: "get",
// "client|list".
func byFullName(name []byte) *Command {
	container, sub, isSub := bytes.Cut(name, []byte{'|'})
	c := named(commands, container)
	if c != nil && isSub {
		c = named(c.sub, sub)
	}
	if c == nil || !c.supported() {
		return nil
	}
	return c
}

func describeInfo(names [][]byte, out *Reply) {
	if len(names) == 0 {
		all := All()
		out.Array(len(all))
		for _, c := range all {
			c.info(out)
		}
		return
	}
	out.Array(len(names))
	for _, name := range names {
		if c := byFullName(name); c != nil {
			c.info(out)
		} else {
			// Redis says null for an entry as for a string.
			out.Null()
		}
	}
}

// info replies a command's entry of COMMAND INFO.
func (c *Command) info(out *Reply) {
	out.Array(10)
	out.BulkString(strings.ToLower(c.Name))
	out.Int(int64(c.Arity))
	out.statuses(c.flagNames())
	out.Int(int64(c.First))
	out.Int(int64(c.Last))
	out.Int(int64(c.Step))
	out.statuses(c.categories())
	out.bulks(c.tips())
	out.Array(len(c.specs))
	for i := range c.specs {
		c.specs[i].info(out)
	}
	subs := c.subs()
	out.Array(len(subs))
	for _, s := range subs {
		s.info(out)
	}
}

var flagNames = []struct {
	flag Flag
	name string
}{
	{Write, "write"},
	{ReadOnly, "readonly"},
	{DenyOOM, "denyoom"},
	{Operator | Admin, "admin"},
	{PubSub, "pubsub"},
	{NoScript, "noscript"},
	{Blocking, "blocking"},
	{Loading, "loading"},
	{Stale, "stale"},
	{SkipSlowlog, "skip_slowlog"},
	{Fast, "fast"},
	{NoAuth, "no_auth"},
	{NoAsyncLoading, "no_async_loading"},
	{NoMulti, "no_multi"},
	{MovableKeys, "movablekeys"},
	{AllowBusy, "allow_busy"},
}

// redisFlags returns the flags as Redis has them.
func (c *Command) redisFlags() Flag {
	if c.Flags&Unlisted != 0 {
		return c.Flags &^ ReadOnly
	}
	return c.Flags
}

func (c *Command) flagNames() []string {
	var names []string
	for _, f := range flagNames {
		if c.redisFlags()&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return names
}

// groupCategories are the ACL categories that a command has by its group.
var groupCategories = map[string]string{
	"bitmap": "bitmap", "connection": "connection", "generic": "keyspace", "geo": "geo", "hash": "hash",
	"hyperloglog": "hyperloglog", "list": "list", "scripting": "scripting", "set": "set",
	"sorted-set": "sortedset", "stream": "stream", "string": "string", "transactions": "transaction",
}

// ownCategories are those of commands that differ from their group.
var ownCategories = map[string][]string{
	"SORT":    {"set", "sortedset", "list", "dangerous"},
	"SORT_RO": {"set", "sortedset", "list", "dangerous"},
	"KEYS":    {"keyspace", "dangerous"},
	"CLIENT":  nil, "OBJECT": nil, "XINFO": nil,
	"DBSIZE": {"keyspace"}, "FLUSHALL": {"keyspace", "dangerous"}, "FLUSHDB": {"keyspace", "dangerous"},
	"INFO": {"dangerous"}, "LASTSAVE": {"admin", "dangerous"}, "ROLE": {"admin", "dangerous"},
	"COMMAND": {"connection"}, "COMMAND|COUNT": {"connection"}, "COMMAND|DOCS": {"connection"},
	"COMMAND|GETKEYS": {"connection"}, "COMMAND|GETKEYSANDFLAGS": {"connection"}, "COMMAND|HELP": {"connection"},
	"COMMAND|INFO": {"connection"}, "COMMAND|LIST": {"connection"},
}

// categories returns the command's ACL categories with their "@".
func (c *Command) categories() []string {
	own, ok := ownCategories[c.Name]
	if g := groupCategories[c.Group]; !ok && g != "" {
		own = []string{g}
	}
	f := c.redisFlags()
	has := func(name string, flag Flag) bool { return f&flag != 0 || slices.Contains(own, name) }
	var out []string
	add := func(name string, has bool) {
		if has {
			out = append(out, "@"+name)
		}
	}
	// In the order of Redis's table of categories.
	for _, name := range []string{"keyspace"} {
		add(name, has(name, 0))
	}
	add("read", f&ReadOnly != 0)
	add("write", f&Write != 0)
	for _, name := range []string{"set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo", "stream"} {
		add(name, has(name, 0))
	}
	add("pubsub", f&PubSub != 0)
	add("admin", has("admin", Operator|Admin))
	add("fast", f&Fast != 0)
	add("slow", f&Fast == 0)
	add("blocking", f&Blocking != 0)
	add("dangerous", has("dangerous", Operator|Admin))
	add("connection", has("connection", 0))
	add("transaction", has("transaction", 0))
	add("scripting", has("scripting", 0))
	return out
}

// commandTips are the hints Redis gives to clients and proxies.
var commandTips = map[string][]string{
	"DEL":     {"request_policy:multi_shard", "response_policy:agg_sum"},
	"EXISTS":  {"request_policy:multi_shard", "response_policy:agg_sum"},
	"TOUCH":   {"request_policy:multi_shard", "response_policy:agg_sum"},
	"UNLINK":  {"request_policy:multi_shard", "response_policy:agg_sum"},
	"MGET":    {"request_policy:multi_shard"},
	"MSET":    {"request_policy:multi_shard", "response_policy:all_succeeded"},
	"MSETNX":  {"request_policy:multi_shard", "response_policy:agg_min"},
	"DBSIZE":  {"request_policy:all_shards", "response_policy:agg_sum"},
	"FLUSHDB": {"request_policy:all_shards", "response_policy:all_succeeded"}, "FLUSHALL": {"request_policy:all_shards", "response_policy:all_succeeded"},
	"PING":       {"request_policy:all_shards", "response_policy:all_succeeded"},
	"CONFIG|SET": {"request_policy:all_nodes", "response_policy:all_succeeded"},
	"INFO":       {tipRandom, "request_policy:all_shards", "response_policy:special"},
	"KEYS":       {"request_policy:all_shards", tipOrder},
	"RANDOMKEY":  {"request_policy:all_shards", tipRandom},
	"SCAN":       {tipRandom, "request_policy:special"},

	"SLOWLOG|GET":   {"request_policy:all_nodes", tipRandom},
	"SLOWLOG|LEN":   {"request_policy:all_nodes", "response_policy:agg_sum", tipRandom},
	"SLOWLOG|RESET": {"request_policy:all_nodes", "response_policy:all_succeeded"},

	"CLIENT|INFO": {tipRandom}, "CLIENT|LIST": {tipRandom}, "DUMP": {tipRandom}, "LASTSAVE": {tipRandom}, "TIME": {tipRandom},
	"OBJECT|ENCODING": {tipRandom}, "OBJECT|FREQ": {tipRandom}, "OBJECT|IDLETIME": {tipRandom}, "OBJECT|REFCOUNT": {tipRandom},
	"PTTL": {tipRandom}, "TTL": {tipRandom}, "HRANDFIELD": {tipRandom}, "HSCAN": {tipRandom},
	"SPOP": {tipRandom}, "SRANDMEMBER": {tipRandom}, "SSCAN": {tipRandom}, "ZRANDMEMBER": {tipRandom}, "ZSCAN": {tipRandom},
	"XPENDING": {tipRandom}, "XINFO|CONSUMERS": {tipRandom},

	"HGETALL": {tipOrder}, "HKEYS": {tipOrder}, "HVALS": {tipOrder}, "SMEMBERS": {tipOrder},
	"SDIFF": {tipOrder}, "SINTER": {tipOrder}, "SUNION": {tipOrder},
	"COMMAND": {tipOrder}, "COMMAND|DOCS": {tipOrder}, "COMMAND|INFO": {tipOrder}, "COMMAND|LIST": {tipOrder},
}

const (
	tipRandom = "nondeterministic_output"
	tipOrder  = "nondeterministic_output_order"
)

func (c *Command) tips() []string { return commandTips[c.Name] }

var accessNames = []struct {
	access KeyAccess
	name   string
}{
	{KeyRO, "RO"}, {KeyRW, "RW"}, {KeyOW, "OW"}, {KeyRM, "RM"},
	{KeyAccessed, "access"}, {KeyUpdate, "update"}, {KeyInsert, "insert"}, {KeyDelete, "delete"},
	{KeyVariable, "variable_flags"},
}

func (a KeyAccess) names() []string {
	var names []string
	for _, n := range accessNames {
		if a&n.access != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// info replies a key specification as COMMAND INFO has it.
func (s *KeySpec) info(out *Reply) {
	out.Map(3)
	out.BulkString("flags")
	out.statuses(s.Access.names())

	out.BulkString("begin_search")
	switch {
	case s.Index > 0:
		out.specPart("index", field{"index", s.Index})
	case s.Keyword != "":
		out.specHead("keyword", 2)
		out.BulkString("keyword")
		out.BulkString(s.Keyword)
		out.BulkString("startfrom")
		out.Int(int64(s.From))
	default:
		out.specPart("unknown")
	}

	out.BulkString("find_keys")
	switch {
	case s.Index == 0 && s.Keyword == "":
		out.specPart("unknown")
	case s.Counted:
		out.specPart("keynum", field{"keynumidx", 0}, field{"firstkey", 1}, field{"keystep", s.Step})
	default:
		out.specPart("range", field{"lastkey", s.Last}, field{"keystep", s.Step}, field{"limit", s.Limit})
	}
}

type field struct {
	name  string
	value int
}

// specHead begins a part of a key specification that has n fields.
func (r *Reply) specHead(kind string, n int) {
	r.Map(2)
	r.BulkString("type")
	r.BulkString(kind)
	r.BulkString("spec")
	r.Map(n)
}

func (r *Reply) specPart(kind string, fields ...field) {
	r.specHead(kind, len(fields))
	for _, f := range fields {
		r.BulkString(f.name)
		r.Int(int64(f.value))
	}
}

func describeDocs(names [][]byte, out *Reply) {
	var list []*Command
	if len(names) == 0 {
		list = All()
	}
	for _, name := range names {
		if c := byFullName(name); c != nil {
			list = append(list, c)
		}
	}
	out.docs(list)
}

// docs replies the documentation of commands by name.
func (r *Reply) docs(list []*Command) {
	r.Map(len(list))
	for _, c := range list {
		r.BulkString(strings.ToLower(c.Name))
		subs := c.subs()
		n := 3
		if len(subs) > 0 {
			n++
		}
		r.Map(n)
		for _, pair := range [][2]string{{"summary", c.Summary}, {"since", c.Since}, {"group", c.Group}} {
			r.BulkString(pair[0])
			r.BulkString(pair[1])
		}
		if len(subs) > 0 {
			r.BulkString("subcommands")
			r.docs(subs)
		}
	}
}

func describeList(args [][]byte, out *Reply) {
	want := func(*Command) bool { return true }
	if len(args) > 0 {
		if len(args) != 3 || !is(args[0], "FILTERBY") {
			out.Error(errSyntax)
			return
		}
		arg := args[2]
		switch {
		case is(args[1], "MODULE"):
			want = func(*Command) bool { return false } // there are no modules
		case is(args[1], "ACLCAT"):
			want = func(c *Command) bool {
				return slices.ContainsFunc(c.categories(), func(name string) bool { return is(arg, strings.ToUpper(name[1:])) })
			}
		case is(args[1], "PATTERN"):
			want = func(c *Command) bool { return Match(arg, []byte(strings.ToLower(c.Name)), true) }
		default:
			out.Error(errSyntax)
			return
		}
	}
	var names []string
	for _, c := range All() {
		for _, c := range append([]*Command{c}, c.subs()...) {
			if want(c) {
				names = append(names, strings.ToLower(c.Name))
			}
		}
	}
	out.bulks(names)
}

// describeKeys answers COMMAND GETKEYS and GETKEYSANDFLAGS for a request.
func describeKeys(args [][]byte, out *Reply, flags bool) {
	c := lookup(args)
	switch {
	case c == nil || !c.supported():
		out.Error(errGetKeysCommand)
		return
	case !c.HasKeys():
		out.Error(errGetKeysNone)
		return
	case c.Arity > 0 && len(args) != c.Arity, len(args) < -c.Arity:
		out.Error(errGetKeysArity)
		return
	}
	refs := c.FindKeys(args)
	if len(refs) == 0 {
		out.Error(errGetKeysArgs)
		return
	}
	out.Array(len(refs))
	for _, r := range refs {
		if flags {
			out.Array(2)
		}
		out.Bulk(args[r.Arg])
		if flags {
			out.statuses(r.Access.names())
		}
	}
}
