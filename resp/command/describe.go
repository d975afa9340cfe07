package command

import (
	"bytes"
	"regexp"
	"slices"
	"strings"

	"github.com/tidwall/redcon"
)

// Describe answers COMMAND and its subcommands from the table. args is a
// request that Find has accepted. viewDocs, unless it is nil, returns what the view's Redis replies to
// COMMAND DOCS, in RESP2: the arguments of commands are as it tells them.
func Describe(args [][]byte, out *Reply, viewDocs func(names [][]byte) []byte) {
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
		describeDocs(rest, out, viewDocs)
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
	if c == nil || !c.described() {
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
	out.StatusSet(c.flagNames())
	out.Int(int64(c.First))
	out.Int(int64(c.Last))
	out.Int(int64(c.Step))
	out.StatusSet(c.categories())
	out.Set(len(c.tips()))
	for _, t := range c.tips() {
		out.BulkString(t)
	}
	out.Set(len(c.specs))
	for i := range c.specs {
		c.specs[i].info(out)
	}
	subs := c.subs()
	if len(subs) == 0 {
		out.Set(0) // as Redis
	} else {
		out.Array(len(subs))
	}
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
	{SkipMonitor, "skip_monitor"},
	{SkipSlowlog, "skip_slowlog"},
	{Asking, "asking"},
	{Fast, "fast"},
	{NoAuth, "no_auth"},
	{NoAsyncLoading, "no_async_loading"},
	{NoMandatoryKeys, "no_mandatory_keys"},
	{NoMulti, "no_multi"},
	{MovableKeys, "movablekeys"},
	{AllowBusy, "allow_busy"},
}

// redisFlags returns the flags as Redis has them.
func (c *Command) redisFlags() Flag {
	switch {
	case c.Flags&Unlisted != 0:
		return c.Flags &^ (ReadOnly | Write)
	case c.Flags&CalledRead != 0:
		return c.Flags | ReadOnly
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
	"RESTORE": {"keyspace", "dangerous"},
	"SWAPDB":  {"keyspace", "dangerous"},
	"CLIENT":  nil, "OBJECT": nil, "XINFO": nil, "XGROUP": nil, "SCRIPT": nil, "FUNCTION": nil,
	"MIGRATE": {"keyspace", "dangerous"}, "RESTORE-ASKING": {"keyspace", "dangerous"},
	"WAIT": {"connection"}, "WAITAOF": {"connection"}, "ASKING": {"connection"}, "READONLY": {"connection"}, "READWRITE": {"connection"},
	"DBSIZE": {"keyspace"}, "FLUSHALL": {"keyspace", "dangerous"}, "FLUSHDB": {"keyspace", "dangerous"},
	"INFO": {"dangerous"}, "LASTSAVE": {"admin", "dangerous"}, "ROLE": {"admin", "dangerous"},
	"COMMAND": {"connection"}, "COMMAND|COUNT": {"connection"}, "COMMAND|DOCS": {"connection"},
	"COMMAND|GETKEYS": {"connection"}, "COMMAND|GETKEYSANDFLAGS": {"connection"}, "COMMAND|HELP": {"connection"},
	"COMMAND|INFO": {"connection"}, "COMMAND|LIST": {"connection"},
}

// categories returns the command's ACL categories with "@" before each.
func (c *Command) categories() []string {
	names := c.Categories()
	for i := range names {
		names[i] = "@" + names[i]
	}
	return names
}

// Categories are the names of Redis 7.0's ACL categories, in its order.
var Categories = []string{
	"keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo", "stream",
	"pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting",
}

// Categories returns the ACL categories of the command, as Redis 7.0 has them.
func (c *Command) Categories() []string {
	own, ok := ownCategories[c.Name]
	if g := groupCategories[c.Group]; !ok && g != "" {
		own = []string{g}
	}
	f := c.redisFlags()
	flags := map[string]bool{
		"read": f&ReadOnly != 0 && !slices.Contains(own, "scripting"), "write": f&Write != 0, "pubsub": f&PubSub != 0, "admin": f&(Operator|Admin) != 0,
		"fast": f&Fast != 0, "slow": f&Fast == 0, "blocking": f&Blocking != 0, "dangerous": f&(Operator|Admin) != 0,
	}
	var out []string
	for _, name := range Categories {
		if flags[name] || slices.Contains(own, name) {
			out = append(out, name)
		}
	}
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

	"MIGRATE": {tipRandom},
	"WAIT":    {"request_policy:all_shards", "response_policy:agg_min"}, "WAITAOF": {"request_policy:all_shards", "response_policy:agg_min"},
	"LATENCY|DOCTOR":      {tipRandom, "request_policy:all_nodes", "response_policy:special"},
	"LATENCY|GRAPH":       {tipRandom, "request_policy:all_nodes", "response_policy:special"},
	"LATENCY|HISTOGRAM":   {tipRandom, "request_policy:all_nodes", "response_policy:special"},
	"LATENCY|HISTORY":     {tipRandom, "request_policy:all_nodes", "response_policy:special"},
	"LATENCY|LATEST":      {tipRandom, "request_policy:all_nodes", "response_policy:special"},
	"LATENCY|RESET":       {"request_policy:all_nodes", "response_policy:all_succeeded"},
	"MEMORY|DOCTOR":       {tipRandom, "request_policy:all_shards", "response_policy:special"},
	"MEMORY|MALLOC-STATS": {tipRandom, "request_policy:all_shards", "response_policy:special"},
	"MEMORY|PURGE":        {"request_policy:all_shards", "response_policy:all_succeeded"},
	"MEMORY|STATS":        {tipRandom, "request_policy:all_shards", "response_policy:special"},
	"MODULE|LIST":         {tipOrder},
	"CLUSTER|BUMPEPOCH":   {tipRandom}, "CLUSTER|COUNT-FAILURE-REPORTS": {tipRandom}, "CLUSTER|GETKEYSINSLOT": {tipRandom},
	"CLUSTER|INFO": {tipRandom}, "CLUSTER|LINKS": {tipRandom}, "CLUSTER|NODES": {tipRandom}, "CLUSTER|REPLICAS": {tipRandom},
	"CLUSTER|SHARDS": {tipRandom}, "CLUSTER|SLAVES": {tipRandom}, "CLUSTER|SLOTS": {tipRandom},
	"FUNCTION|DELETE": tipsEverywhere, "FUNCTION|FLUSH": tipsEverywhere, "FUNCTION|LOAD": tipsEverywhere, "FUNCTION|RESTORE": tipsEverywhere,
	"FUNCTION|KILL": {"request_policy:all_shards", "response_policy:one_succeeded"}, "FUNCTION|LIST": {tipOrder},
	"FUNCTION|STATS": {tipRandom, "request_policy:all_shards", "response_policy:special"},
	"SCRIPT|EXISTS":  {"request_policy:all_shards", "response_policy:agg_logical_and"},
	"SCRIPT|FLUSH":   {"request_policy:all_nodes", "response_policy:all_succeeded"}, "SCRIPT|LOAD": {"request_policy:all_nodes", "response_policy:all_succeeded"},
	"SCRIPT|KILL": {"request_policy:all_shards", "response_policy:one_succeeded"},

	"SLOWLOG|GET":   {"request_policy:all_nodes", tipRandom},
	"SLOWLOG|LEN":   {"request_policy:all_nodes", "response_policy:agg_sum", tipRandom},
	"SLOWLOG|RESET": {"request_policy:all_nodes", "response_policy:all_succeeded"},

	"CLIENT|INFO": {tipRandom}, "CLIENT|LIST": {tipRandom}, "DUMP": {tipRandom}, "LASTSAVE": {tipRandom}, "TIME": {tipRandom},
	"OBJECT|ENCODING": {tipRandom}, "OBJECT|FREQ": {tipRandom}, "OBJECT|IDLETIME": {tipRandom}, "OBJECT|REFCOUNT": {tipRandom},
	"PTTL": {tipRandom}, "TTL": {tipRandom}, "HTTL": {tipRandom}, "HPTTL": {tipRandom}, "HRANDFIELD": {tipRandom}, "HSCAN": {tipRandom},
	"SPOP": {tipRandom}, "SRANDMEMBER": {tipRandom}, "SSCAN": {tipRandom}, "ZRANDMEMBER": {tipRandom}, "ZSCAN": {tipRandom},
	"XADD": {tipRandom}, "XTRIM": {tipRandom}, "XCLAIM": {tipRandom}, "XAUTOCLAIM": {tipRandom}, "XPENDING": {tipRandom}, "XINFO|CONSUMERS": {tipRandom},

	"HGETALL": {tipOrder}, "HKEYS": {tipOrder}, "HVALS": {tipOrder}, "SMEMBERS": {tipOrder},
	"SDIFF": {tipOrder}, "SINTER": {tipOrder}, "SUNION": {tipOrder},
	"COMMAND": {tipOrder}, "COMMAND|DOCS": {tipOrder}, "COMMAND|INFO": {tipOrder}, "COMMAND|LIST": {tipOrder},
}

var tipsEverywhere = []string{"request_policy:all_shards", "response_policy:all_succeeded"}

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
	{KeyIncomplete, "incomplete"}, {KeyVariable, "variable_flags"}, {KeyNot, "not_key"},
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
	out.StatusSet(s.Access.names())

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

func describeDocs(names [][]byte, out *Reply, viewDocs func(names [][]byte) []byte) {
	var list []*Command
	if len(names) == 0 {
		list = All()
	}
	for _, name := range names {
		if c := byFullName(name); c != nil {
			list = append(list, c)
		}
	}
	var known redcon.RESP
	if viewDocs != nil {
		_, known = redcon.ReadNextRESP(viewDocs(names))
	}
	out.docs(list, known.Map())
}

// usage replies the arguments that a Usage tells, as a Redis would.
func (r *Reply) usage(text string) {
	list := usageParts.FindAllStringSubmatch(text, -1)
	r.Array(len(list))
	for _, m := range list {
		optional, token, name := m[1] != "", m[2], m[3]
		n := 2
		if token != "" {
			n++
		}
		if optional {
			n++
		}
		r.Map(n)
		r.pair("name", name)
		r.pair("type", "string")
		if token != "" {
			r.pair("token", token)
		}
		if optional {
			r.BulkString("flags")
			r.StatusSet([]string{"optional"})
		}
	}
}

// usageParts are the parts of Usage: [, a token and a name.
var usageParts = regexp.MustCompile(`(\[?)(?:([A-Z]+) )?([^][ ]+)\]?`)

// arguments replies arguments as a Redis tells them in RESP2.
func (r *Reply) arguments(list redcon.RESP) {
	r.Array(list.Count)
	list.ForEach(func(arg redcon.RESP) bool {
		r.Map(arg.Count / 2)
		key := ""
		arg.ForEach(func(part redcon.RESP) bool {
			switch key {
			case "":
				key = part.String()
				r.BulkString(key)
				return true
			case "arguments":
				r.arguments(part)
			case "flags":
				r.Set(part.Count)
				part.ForEach(func(flag redcon.RESP) bool { r.Status(flag.String()); return true })
			default:
				r.Raw(part.Raw)
			}
			key = ""
			return true
		})
		return true
	})
}

// docs replies the documentation of commands by name; known is what the view's Redis says of them.
func (r *Reply) docs(list []*Command, known map[string]redcon.RESP) {
	r.Map(len(list))
	for _, c := range list {
		r.BulkString(strings.ToLower(c.Name))
		subs := c.subs()
		n := 3
		if len(subs) > 0 {
			n++
		}
		of := known[strings.ToLower(c.Name)]
		args := of.MapGet("arguments")
		told := c.Usage != "" || c.supported() && args.Type == redcon.Array
		if told {
			n++
		}
		r.Map(n)
		for _, pair := range [][2]string{{"summary", c.summary()}, {"since", c.Since}, {"group", c.Group}} {
			r.pair(pair[0], pair[1])
		}
		if len(subs) > 0 {
			r.BulkString("subcommands")
			r.docs(subs, of.MapGet("subcommands").Map())
		}
		if told {
			r.BulkString("arguments")
			if c.Usage != "" {
				r.usage(c.Usage)
			} else {
				r.arguments(args)
			}
		}
	}
}

// pair replies a key and a value, two bulk strings.
func (r *Reply) pair(key, value string) {
	r.BulkString(key)
	r.BulkString(value)
}

// summary returns what a command is for or, of one that is refused, why.
func (c *Command) summary() string {
	switch {
	case c.supported():
		return c.Summary
	case c.Refused == "":
		return "Refused, all of it"
	}
	return "Refused: " + strings.TrimPrefix(c.Refused, "ERR ")
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
	case c == nil || !c.described():
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
	if len(refs) == 0 && c.Flags&NoMandatoryKeys != 0 {
		out.Array(0)
		return
	}
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
			out.StatusSet(r.Access.names())
		}
	}
}
