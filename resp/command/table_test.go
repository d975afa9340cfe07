package command

import (
	"bufio"
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// reply is a RESP2 reply in a form that can be compared: a string with its
// type before it, or a list.
type reply struct {
	text string
	list []reply
}

func parseReply(t *testing.T, raw []byte) reply {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(raw))
	v, err := parseOne(r)
	if err != nil || r.Buffered() > 0 {
		t.Fatalf("bad reply (%v): %.300q", err, raw)
	}
	return v
}

func parseOne(r *bufio.Reader) (reply, error) {
	first, err := r.Peek(1)
	if err != nil {
		return reply{}, err
	}
	if first[0] != '*' {
		raw, err := readReply(r)
		return reply{text: string(raw)}, err
	}
	head, err := r.ReadString('\n')
	if err != nil {
		return reply{}, err
	}
	var n int
	if _, err := fmt.Sscanf(head, "*%d\r\n", &n); err != nil {
		return reply{}, err
	}
	if n < 0 {
		return reply{text: head}, nil
	}
	v := reply{text: "*"}
	for range n {
		e, err := parseOne(r)
		if err != nil {
			return v, err
		}
		v.list = append(v.list, e)
	}
	return v, nil
}

func (v reply) String() string {
	if v.text != "*" {
		return strings.TrimSpace(v.text)
	}
	return fmt.Sprint(v.list)
}

// bulk returns the text of a bulk or simple string.
func (v reply) bulk() string {
	if _, s, ok := strings.Cut(v.text, "\r\n"); ok && v.text[0] == '$' {
		return strings.TrimSuffix(s, "\r\n")
	}
	return strings.TrimSpace(v.text[1:])
}

// get returns a value of a map.
func (v reply) get(name string) reply {
	for i := 0; i+1 < len(v.list); i += 2 {
		if v.list[i].bulk() == name {
			return v.list[i+1]
		}
	}
	return reply{}
}

func ask(t *testing.T, args ...string) reply {
	t.Helper()
	b := bytesOf(args)
	c, e := Find(b)
	if e != "" {
		return reply{text: "-" + e + "\r\n"}
	}
	if c.Name != "COMMAND" && !strings.HasPrefix(c.Name, "COMMAND|") {
		t.Fatalf("%q is %s", args, c.Name)
	}
	var out Reply
	Describe(b, &out, nil)
	return parseReply(t, out.Buf)
}

func askRedis(t *testing.T, c *redisConn, args ...string) reply {
	t.Helper()
	return parseReply(t, c.do(bytesOf(args)...))
}

// later reports whether the command is one that only the later model, Redis 8, has.
func (c *Command) later() bool { return c.Flags&Admin == 0 && c.Since >= "7.4" }

// beyondRedis reports whether Redis 7.0, the model, does not have the command.
func (c *Command) beyondRedis() bool { return c.Flags&Admin != 0 || c.Since >= "7.1" }

// TestTableIsRedis compares each row with COMMAND INFO of a real Redis: arity,
// flags, first key, last key, step, ACL categories, tips and key specifications.
func TestTableIsRedis(t *testing.T) {
	redis7 := startRedis(t)
	redis8 := startRedis8(t)
	checked := 0
	var check func(c *Command)
	check = func(c *Command) {
		model := redis7
		if c.later() {
			model = redis8
		}
		if c.beyondRedis() && !c.later() {
			return
		}
		name := strings.ToLower(c.Name)
		want := askRedis(t, model, "COMMAND", "INFO", name).list[0]
		if len(want.list) != 10 {
			t.Errorf("Redis has no command %s", name)
			return
		}
		if fmt.Sprintf(":%d", c.Arity) != want.list[1].String() {
			t.Errorf("%s: arity %d, want %v", name, c.Arity, want.list[1])
		}
		for _, s := range c.Sub {
			check(s)
		}
		checked++
		if !c.described() { // a refusal that no row tells more of yet
			return
		}
		got := ask(t, "COMMAND", "INFO", name).list[0]
		for i, what := range []string{"name", "arity", "flags", "first", "last", "step", "categories", "tips"} {
			if g, w := got.list[i].String(), want.list[i].String(); g != w {
				t.Errorf("%s: %s %v, want %v", name, what, g, w)
			}
		}
		specs := want.list[8]
		for i := range specs.list {
			if len(specs.list[i].list) == 8 { // notes, which are only for people
				specs.list[i].list = specs.list[i].list[2:]
			}
		}
		if g, w := got.list[8].String(), specs.String(); g != w {
			t.Errorf("%s: key specifications\n got %v\nwant %v", name, g, w)
		}
		doc, redisDoc := ask(t, "COMMAND", "DOCS", name), askRedis(t, model, "COMMAND", "DOCS", name)
		for _, what := range []string{"since", "group"} {
			if g, w := doc.list[1].get(what).String(), redisDoc.list[1].get(what).String(); g != w {
				t.Errorf("%s: %s %v, want %v", name, what, g, w)
			}
		}
		if doc.list[1].get("summary").bulk() == "" {
			t.Errorf("%s: no summary", name)
		}
		var out Reply
		Describe(bytesOf([]string{"COMMAND", "DOCS", name}), &out, func(names [][]byte) []byte {
			return model.do(append(bytesOf([]string{"COMMAND", "DOCS"}), names...)...)
		})
		if g, w := parseReply(t, out.Buf).list[1].get("arguments").String(), redisDoc.list[1].get("arguments").String(); c.supported() && g != w {
			t.Errorf("%s: arguments\n got %v\nwant %v", name, g, w)
		} else if !c.supported() && g != "" {
			t.Errorf("%s is refused, and has arguments %v", name, g)
		}
	}
	for _, c := range commands {
		check(c)
	}
	if checked < 240 {
		t.Errorf("only %d rows", checked)
	}
}

// TestEveryRedisCommandHasARow makes sure that each is carried out or refused
// by name, and that nothing that writes can reach the view.
func TestEveryRedisCommandHasARow(t *testing.T) {
	model := startRedis(t)
	for _, info := range askRedis(t, model, "COMMAND").list {
		name := info.list[0].bulk()
		c := named(commands, []byte(name))
		if c == nil {
			t.Errorf("no row for %s", name)
			continue
		}
		entries := []reply{info}
		if c.Sub != nil {
			entries = append(entries, info.list[9].list...)
		}
		for _, info := range entries {
			full := info.list[0].bulk()
			c := byFullNameAny(full)
			if c == nil {
				t.Errorf("no row for %s", full)
				continue
			}
			reads := strings.Contains(info.list[2].String(), "+readonly") || strings.HasSuffix(full, "|help") || full == "pfselftest" // reads no key
			if c.Flags&ReadOnly != 0 && !reads && c.Run == nil {
				t.Errorf("%s goes to the view and writes", full)
			}
			// PFCOUNT may write a cache; scripts may do anything.
			if !reads && c.Refused == "" && c.Flags&(Write|Session) == 0 && c.Run == nil && len(c.Sub) == 0 {
				t.Errorf("nobody carries out %s", full)
			}
		}
	}
}

func byFullNameAny(name string) *Command {
	container, sub, isSub := strings.Cut(name, "|")
	c := named(commands, []byte(container))
	if c != nil && isSub {
		return named(c.sub, []byte(sub))
	}
	return c
}

// TestFindErrors compares the errors for requests that no row takes.
func TestFindErrors(t *testing.T) {
	model := startRedis(t)
	long := strings.Repeat("x", 300)
	for _, args := range [][]string{
		{"foo"}, {"foo", "a", "b"}, {"FOO", "a\r\nb", "c\x00d"}, {"f\r\no"}, {"\x00"}, {""}, {"foo", ""}, {"\xff\xfe", "\xff"},
		{long}, {long, long, long}, {"foo", long[:100], long[:100]}, {"foo", long[:126], "b", "c"}, {"foo", long[:127], "b"}, {"foo", long[:124], "b", "c"},
		{"get"}, {"GET", "a", "b"}, {"set", "a"}, {"SeT"}, {"mset", "a"}, {"mset", "a", "b", "c"}, {"get\x00", "a"},
		{"client"}, {"CLIENT", "FOO"}, {"client", "foo\r\n\x00bar"}, {"client", long}, {"client", "setname"}, {"CLIENT", "SETNAME", "a", "b"},
		{"object"}, {"object", "foo", "bar"}, {"OBJECT", "ENCODING"}, {"xinfo", ""}, {"memory", "foo"}, {"config", "get"}, {"config", "bar"},
		{"command", "foo"}, {"command", "getkeys"}, {"command", "count", "x"}, {"command", "help", "x"},
		{"zadd"}, {"zadd", "a"}, {"lpush", "a"}, {"blpop", "a"}, {"cluster"}, {"cluster", "info"}, {"readonly", "x"}, {"asking"}, {"readwrite"},
		{"hset", "a", "b"}, {"sadd", "a"}, {"xread", "STREAMS"}, {"sort"},
	} {
		_, e := Find(bytesOf(args))
		if e == "" && strings.EqualFold(args[0], "mset") {
			continue // Run finds out; TestScripts has it
		}
		got, want := "-"+e+"\r\n", string(model.do(bytesOf(args)...))
		if got != want {
			t.Errorf("%.100q:\n got %q\nwant %q", args, got, want)
		}
	}
}

// TestRefused shows what is refused, and with which words.
func TestRefused(t *testing.T) {
	for request, want := range map[string]string{
		"SCRIPT DEBUG yes": "ERR unsupported command 'script debug': there is no debugger: scripts run in the node",
		"cluster nodes":    "ERR This instance has cluster support disabled",
	} {
		if _, e := Find(bytesOf(strings.Fields(request))); e != want {
			t.Errorf("%s:\n got %q\nwant %q", request, e, want)
		}
	}
}

// TestByView shows for what may write when it only reads.
func TestByView(t *testing.T) {
	for request, want := range map[string]bool{
		"GET k": true, "SET k v": false, "zrange k 0 -1": true, "HGETALL k": true, "PING": false, "object encoding k": true,
		"SORT k": true, "SORT k BY store": true, "sort k GET STORE ALPHA": true,
		"GEORADIUS k 1 2 3 m WITHDIST": true, "GEORADIUS k 1 2 3 m STORE d": false, "GEORADIUSBYMEMBER k m 3 m STOREDIST d": false, "zadd k 1 m": false, "XREAD COUNT 2 STREAMS block 0": false, "XINFO HELP": true,
		"BITFIELD k": true, "BITFIELD k GET u8 0 GET u8 1": true, "bitfield k overflow sat get i5 #2": true,
		"BITFIELD k GET u8 0 SET u8 0 1": false, "BITFIELD k INCRBY u8 0 1": false, "BITFIELD k FOO": false,
	} {
		args := bytesOf(strings.Fields(request))
		c, e := Find(args)
		if e != "" {
			t.Errorf("%s: %s", request, e)
			continue
		}
		if got := c.ByView(args); got != want {
			t.Errorf("%s: by the view: %v", request, got)
		}
	}
}

// TestGetKeys compares COMMAND GETKEYS and GETKEYSANDFLAGS.
func TestGetKeys(t *testing.T) {
	model := startRedis(t)
	for _, request := range []string{
		"get k", "GET", "get a b", "ping", "foo", "foo bar", "", "client", "client setname x", "client foo",
		"set k v", "set k v GET", "SET k v ex 10 get", "set k",
		"mset a 1 b 2", "mset a 1 b", "msetnx a 1 b 2 c 3", "mget a b c", "del a b", "exists a",
		"rename a b", "renamenx a b", "copy a b DB 1", "move a 1", "bitop and d a b", "bitop not d", "bitop not d a",
		"bitfield k get u8 0", "bitfield k set u8 0 1", "bitfield k", "bitfield k foo", "bitfield_ro k get u8 0",
		"object encoding k", "object help", "memory usage k", "xinfo stream k",
		"hset h f v", "sinterstore d a b", "sinterstore d", "smove a b m", "sdiff a b c",
		"sintercard 2 a b", "sintercard 2 a", "sintercard 0 a", "sintercard -1 a", "sintercard x a", "sintercard 4294967297 a b", "sintercard 1 a LIMIT 1",
		"zunion 2 a b", "zinter 3 a b", "zdiff 1 a WITHSCORES", "zintercard 1 a",
		"sort k", "sort k STORE d", "sort k BY w_* GET store STORE d STORE e", "sort k STORE", "sort_ro k BY w", "sort k limit store 2 STORE x",
		"georadius k 1 2 3 m", "georadius k 1 2 3 m STORE d", "georadius k 1 2 3 m STORE d STOREDIST e", "georadius k 1 2 3 m STOREDIST", "georadius k 1 2 3 m COUNT 1 ASC STOREDIST e",
		"georadiusbymember k m 3 m store d", "geosearchstore d k fromlonlat 0 0 byradius 1 m", "zadd k 1 m", "zrangestore d k 0 1", "zunionstore d 2 a b", "zunionstore d 2 a", "zinterstore d 0 a", "zdiffstore d 1 a",
		"zmpop 2 a b MIN", "bzmpop 0 2 a b MIN", "bzmpop 0 0 a MIN", "bzpopmin a b 0", "bzpopmax a 0", "geosearch k frommember m byradius 1 m",
		"migrate h 1 k 0 5", "migrate h 1 \"\" 0 5 KEYS a b", "migrate h 1 k 0 5 KEYS a", "migrate h 1 k 0 5 AUTH KEYS", "migrate h 1 k 0 5 AUTH2 KEYS KEYS COPY",
		"migrate h 1 k 0 5 COPY REPLACE", "migrate h 1 k 0",
		"xread STREAMS a b 0 0", "xread COUNT 2 STREAMS a 0", "xread STREAMS a b 0", "xread COUNT 2 a 0", "xread STREAMS STREAMS 0 0",
		"xreadgroup GROUP g c STREAMS a b > >", "xreadgroup GROUP STREAMS c STREAMS a >", "xgroup create k g $", "xadd k * a b", "xack k g 1",
		"eval s 2 a b c", "evalsha s 0", "eval s 3 a", "eval s x", "fcall_ro f 1 k v", "watch a b",
		"spublish a b", "ssubscribe a", "publish a b", "flushall", "keys *", "scan 0", "lcs a b", "getex k persist", "expire k 1", "substr k 0 1",
	} {
		for _, sub := range []string{"GETKEYS", "GETKEYSANDFLAGS"} {
			args := append([]string{"COMMAND", sub}, strings.Split(request, " ")...)
			got, want := ask(t, args...), askRedis(t, model, args...)
			if got.String() != want.String() {
				t.Errorf("%q:\n got %v\nwant %v", args, got, want)
			}
		}
	}
}

// TestCommandReplies covers what of COMMAND TestTableIsRedis does not.
func TestCommandReplies(t *testing.T) {
	all := ask(t, "COMMAND")
	if n := ask(t, "COMMAND", "COUNT").String(); n != fmt.Sprintf(":%d", len(all.list)) {
		t.Errorf("COUNT %s, but %d entries", n, len(all.list))
	}
	if ask(t, "COMMAND", "INFO").String() != all.String() {
		t.Error("COMMAND INFO is not COMMAND")
	}
	for _, name := range []string{"foo", "sentinel", "get|x", "client|foo", "", "|", strings.Repeat("x", 100)} {
		if got := ask(t, "COMMAND", "INFO", name, "get"); len(got.list) != 2 || got.list[0].text[0] == '*' && got.list[0].text != "*-1\r\n" && len(got.list[0].list) > 0 {
			t.Errorf("INFO %q: %v", name, got)
		}
		if got := ask(t, "COMMAND", "DOCS", name); len(got.list) != 0 {
			t.Errorf("DOCS %q: %v", name, got)
		}
	}
	model := startRedis(t)
	if g, w := ask(t, "COMMAND", "INFO", "foo"), askRedis(t, model, "COMMAND", "INFO", "foo"); fmt.Sprintf("%#v", g) != fmt.Sprintf("%#v", w) {
		t.Errorf("INFO of nothing: %#v, want %#v", g, w)
	}

	names := func(v reply) []string {
		var out []string
		for _, e := range v.list {
			out = append(out, e.bulk())
		}
		slices.Sort(out)
		return out
	}
	known := names(ask(t, "COMMAND", "LIST"))
	if slices.Contains(known, "sentinel") || !slices.Contains(known, "zrange") || !slices.Contains(known, "client|list") || !slices.Contains(known, "meet") {
		t.Errorf("LIST: %q", known)
	}
	for _, filter := range [][]string{
		{"PATTERN", "get*"}, {"pattern", "?SET"}, {"PATTERN", "x[a-r]*"}, {"PATTERN", "client|*"}, {"PATTERN", ""}, {"PATTERN", "foo"}, {"PATTERN", "*"},
		{"ACLCAT", "string"}, {"aclcat", "KEYSPACE"}, {"ACLCAT", "@string"}, {"ACLCAT", "dangerous"}, {"ACLCAT", "foo"}, {"MODULE", "foo"},
		{"FOO", "bar"}, {"PATTERN"}, {"PATTERN", "a", "b"},
	} {
		args := append([]string{"COMMAND", "LIST", "FILTERBY"}, filter...)
		got, want := ask(t, args...), askRedis(t, model, args...)
		if want.text != "*" {
			if got.String() != want.String() {
				t.Errorf("%q: %v, want %v", args, got, want)
			}
			continue
		}
		g := slices.DeleteFunc(names(got), func(n string) bool { return byFullName([]byte(n)).beyondRedis() })
		w := slices.DeleteFunc(names(want), func(n string) bool { return !slices.Contains(known, n) })
		if !slices.Equal(g, w) {
			t.Errorf("%q:\n got %q\nwant %q", args, g, w)
		}
	}
	if got := ask(t, "COMMAND", "HELP"); len(got.list) != len(commandHelp) {
		t.Errorf("HELP: %v", got)
	}
	if !strings.Contains(ask(t, "COMMAND", "DOCS").String(), "client|kill") {
		t.Error("DOCS does not tell of subcommands")
	}
	for _, c := range nodeCommands {
		var said []string // as redis-cli shows it
		for _, arg := range ask(t, "COMMAND", "DOCS", c.Name).list[1].get("arguments").list {
			word := arg.get("name").bulk()
			if token := arg.get("token"); len(token.text) > 0 {
				word = token.bulk() + " " + word
			}
			if flags := arg.get("flags").list; len(flags) > 0 {
				word = "[" + word + "]"
			}
			said = append(said, word)
		}
		if got := strings.Join(said, " "); got != c.Usage || c.Usage == "" && c.Arity != 1 {
			t.Errorf("%s is told to have %q, not %q", c.Name, got, c.Usage)
		}
	}
}

// The keys of a KeyRange are those that FindKeys finds, of every command that has one.
func TestKeyRange(t *testing.T) {
	several := 0
	for _, c := range Rows() {
		for n := max(c.Arity, -c.Arity); n < 9; n++ {
			first, last, step := c.KeyRange(n)
			if first > last || c.Keys != nil || len(c.specs) != 1 {
				continue
			}
			args := make([][]byte, n)
			for i := range args {
				args[i] = []byte{byte('a' + i)}
			}
			var got, want []int
			for i := first; i <= last; i += step {
				got = append(got, i)
			}
			for _, k := range c.FindKeys(args) {
				want = append(want, k.Arg)
			}
			if want != nil && !slices.Equal(got, want) {
				t.Errorf("%s with %d arguments: keys are %v, not %v", c.Name, n, got, want)
			}
			if len(got) > 1 {
				several++
			}
		}
	}
	if several < 20 {
		t.Errorf("of %d requests only there are several keys", several)
	}
}
