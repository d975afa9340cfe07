package resp

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/resp/command"
	"github.com/replicatord/replicatord/resp/script"
)

// words parses a line as redis-cli does.
func words(t *testing.T, line string) []string {
	t.Helper()
	args, ok := script.SplitArgs([]byte(line))
	if !ok {
		t.Fatal(line)
	}
	var out []string
	for _, a := range args {
		out = append(out, string(a))
	}
	return out
}

// sortedWords makes equal what differs only in the order of rules about
// commands, which in Redis is that of a hash table, and in what only one of
// them has.
func sortedWords(reply string) string {
	list := strings.FieldsFunc(reply, func(r rune) bool { return r == ' ' || r == '\r' || r == '\n' || r == '(' || r == ')' })
	slices.Sort(list)
	return strings.Join(list, " ")
}

// Users, their rules, and what they are denied are as in Redis.
func TestACLAsRedis(t *testing.T) {
	a, ts := dial(t, "unix", realRedis(t)), start(t, nil)
	b := ts.dial()
	hash := strings.Repeat("0a", 32)
	for _, line := range strings.Split(strings.TrimSpace(`
acl whoami
acl users
acl list
acl getuser default
acl getuser nobody
acl setuser "a b"
acl setuser u
acl list
acl getuser u
acl setuser u on >p1 <p0
acl setuser u #`+hash+` !`+hash+` #`+hash+`
acl setuser u #abc
acl setuser u #`+strings.Replace(hash, "a", "g", 1)+`
acl setuser u !abc
acl setuser u >p1 >p1 >p2 <p2
acl getuser u
acl setuser u nopass
acl getuser u
acl setuser u resetpass
acl setuser u >p1 on
acl setuser u foo
acl setuser u ""
acl setuser u +foo
acl setuser u -foo
acl setuser u +@foo
acl setuser u -@foo
acl setuser u +
acl setuser u -
acl setuser u +@
acl setuser u +get|
acl setuser u +get|a|b
acl setuser u -get|a
acl setuser u +config|foo
acl setuser u -config|foo
acl setuser u +config|get|a
acl setuser u +config|
acl setuser u ~a ~*
acl setuser u ~b
acl setuser u resetkeys ~a %R~b %W~c %RW~d %R~a %W~b
acl getuser u
acl setuser u %~x
acl setuser u %RR~x
acl setuser u %Q~x
acl setuser u "~a b"
acl setuser u &a &b &a
acl getuser u
acl setuser u allchannels
acl setuser u &c
acl setuser u "&c d"
acl setuser u resetchannels &a* &b
acl setuser u +get +set +select|0 +select|1 +SELECT|0 -client +client|id
acl getuser u
acl list
acl setuser v (
acl setuser v )
acl setuser v " () "
acl setuser v ()
acl setuser v (+get ~a*) "(+set ~b* &c)" ( ~d +mget )
acl setuser v (foo)
acl setuser v (&* &x)
acl getuser v
acl setuser v clearselectors
acl getuser v
acl setuser v reset
acl getuser v
acl setuser v skip-sanitize-payload sanitize-payload skip-sanitize-payload
acl getuser v
acl setuser v +@all -@all nocommands allcommands -get
acl getuser v
acl users
acl cat
acl cat foo
acl cat a b
acl genpass 0
acl genpass -1
acl genpass 4097
acl genpass x
acl genpass 1 2
acl dryrun nobody get a
acl dryrun u foo a
acl dryrun u get
acl dryrun u get a
acl dryrun u get b
acl dryrun u get c
acl dryrun u set c v
acl dryrun u set b v
acl dryrun u set d v get
acl dryrun u set c v get
acl dryrun u mget a b
acl dryrun u select 0
acl dryrun u select 2
acl dryrun u client id
acl dryrun u client list
acl dryrun u auth x
acl dryrun v set k v
acl dryrun v get k
acl deluser
acl deluser default
acl deluser nobody default
acl deluser nobody nobody2
acl log foo
acl log 1 2
acl log reset
acl log
acl load
acl save
acl help extra
acl foo
acl deluser u v
acl users
acl setuser w on >pw +@all -config -flushall -client|kill ~k* &ch*
auth w wrong
auth nobody pw
auth default x
auth w pw
acl whoami
get key
get other
set other v
config get maxclients
config set maxclients 10
flushall
client kill 1.2.3.4:5
client kill user w skipme yes
client kill user nobody
acl setuser w -@all +acl|whoami +auth
acl whoami
acl list
ping
hello
auth default x
acl deluser w
acl setuser default -get
get k
set k v
acl setuser default +get
acl setuser default off
auth default x
acl whoami
acl setuser default on
acl setuser default >dp
auth wrong
auth dp
acl setuser default nopass
auth x
config set requirepass foo
acl list
auth foo
config set requirepass ""
acl list
config get acl-pubsub-default
config set acl-pubsub-default allchannels
acl setuser x
acl getuser x
acl setuser x reset
acl getuser x
config set acl-pubsub-default foo
config set acl-pubsub-default resetchannels
config get acllog-max-len
config set acllog-max-len 5
reset
acl whoami
`), "\n") {
		args := words(t, line)
		want, got := a.do(args...), b.do(args...)
		if strings.HasPrefix(line, "hello") {
			want, got = noID(want), noID(got)
		}
		if want != got && !(want[0] == '*' && sortedWords(want) == sortedWords(got)) {
			t.Errorf("%s:\n got %q\nwant %q", line, got, want)
		}
	}
}

// What rules allow, whatever they are made of, is what they allow in Redis;
// and their text makes the same rules again.
func TestRandomRulesAsRedis(t *testing.T) {
	a, ts := dial(t, "unix", realRedis(t)), start(t, nil)
	b := ts.dial()
	var names []string
	for _, c := range command.Rows() {
		if c.Group != "" && c.Flags&command.Admin == 0 && c.Since < "7.1" {
			names = append(names, strings.ToLower(c.Name))
		}
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	op := func() string {
		sign := []string{"+", "-"}[r.IntN(2)]
		switch r.IntN(6) {
		case 0, 1, 2:
			return sign + "@" + command.Categories[r.IntN(len(command.Categories))]
		case 3:
			return sign + "@all"
		}
		return sign + names[r.IntN(len(names))]
	}
	for round := range 15 {
		set := []string{"ACL", "SETUSER", "u", "reset", "on", "nopass", "~*", "&*"}
		for range 1 + r.IntN(8) {
			set = append(set, op())
		}
		if want, got := a.do(set...), b.do(set...); want != got {
			t.Fatalf("seed %d: %q: %q, want %q", seed, set, got, want)
		}
		if round%2 == 1 { // the text of the rules instead of the rules
			_, text, _ := strings.Cut(b.do("ACL", "LIST"), "user u ")
			text, _, _ = strings.Cut(text, "\r\n")
			if got := b.do(append([]string{"ACL", "SETUSER", "u", "reset"}, strings.Fields(text)...)...); got != "+OK\r\n" {
				t.Fatalf("seed %d: %s: %q", seed, text, got)
			}
		}
		for _, name := range names {
			c := command.Named(name)
			args := []string{"ACL", "DRYRUN", "u"}
			args = append(args, strings.Split(name, "|")...)
			for n := len(args) - 3; n < max(c.Arity, -c.Arity); n++ {
				args = append(args, "1")
			}
			want, got := a.do(args...), b.do(args...)
			if want != got {
				t.Errorf("seed %d, after %q: %q: %q, want %q", seed, set, args, got, want)
			}
		}
	}
}

// Denials are logged, and those of one kind together.
func TestACLLog(t *testing.T) {
	ts := start(t, nil)
	admin, c := ts.dial(), ts.dial()
	admin.want("+OK\r\n", "ACL", "SETUSER", "u", "on", ">pw", "+get", "+mget", "+multi", "+discard", "~a")
	c.want("+OK\r\n", "AUTH", "u", "pw")
	for range 3 {
		c.want("-NOPERM this user has no permissions to access one of the keys used as arguments\r\n", "GET", "b")
	}
	c.want("-NOPERM this user has no permissions to run the 'set' command\r\n", "SET", "a", "1")
	c.want("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "AUTH", "u", "no")
	c.want("+OK\r\n", "MULTI")
	c.want("-NOPERM this user has no permissions to access one of the keys used as arguments\r\n", "GET", "b")
	c.want("+OK\r\n", "DISCARD")
	log := admin.do("ACL", "LOG")
	for _, want := range []string{
		"$5\r\ncount\r\n:1\r\n$6\r\nreason\r\n$3\r\nkey\r\n$7\r\ncontext\r\n$5\r\nmulti\r\n$6\r\nobject\r\n$1\r\nb\r\n",
		"$5\r\ncount\r\n:1\r\n$6\r\nreason\r\n$4\r\nauth\r\n$7\r\ncontext\r\n$8\r\ntoplevel\r\n$6\r\nobject\r\n$4\r\nAUTH\r\n$8\r\nusername\r\n$1\r\nu\r\n",
		"$5\r\ncount\r\n:1\r\n$6\r\nreason\r\n$7\r\ncommand\r\n$7\r\ncontext\r\n$8\r\ntoplevel\r\n$6\r\nobject\r\n$3\r\nset\r\n",
		"$5\r\ncount\r\n:3\r\n$6\r\nreason\r\n$3\r\nkey\r\n$7\r\ncontext\r\n$8\r\ntoplevel\r\n$6\r\nobject\r\n$1\r\nb\r\n",
		"client-info\r\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in %q", want, log)
		}
	}
	admin.want("+OK\r\n", "CONFIG", "SET", "acllog-max-len", "2")
	_ = c.do("GET", "other")
	if n := strings.Count(admin.do("ACL", "LOG", "10"), "client-info"); n != 2 {
		t.Errorf("%d entries", n)
	}
	admin.want("+OK\r\n", "ACL", "LOG", "RESET")
	admin.want("*0\r\n", "ACL", "LOG")
	if s := admin.do("INFO", "stats"); !strings.Contains(s, "acl_access_denied_key:5") || !strings.Contains(s, "acl_access_denied_cmd:1") {
		t.Error(s)
	}
}

// Connections of users that are deleted end; one's own after the reply.
func TestDeletedUsersLeave(t *testing.T) {
	ts := start(t, nil)
	admin, c, own := ts.dial(), ts.dial(), ts.dial()
	admin.want("+OK\r\n", "ACL", "SETUSER", "u", "on", "nopass", "+@all", "~*")
	c.want("+OK\r\n", "AUTH", "u", "x")
	own.want("+OK\r\n", "AUTH", "u", "x")
	own.want(":1\r\n", "ACL", "DELUSER", "u")
	own.closed()
	c.closed()
	admin.want("+PONG\r\n", "PING")
	admin.want("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "AUTH", "u", "x")
}

// Users are kept in the ACL file, which is taken whole or not at all.
func TestACLFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.acl")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := New(Options{Backend: newMapBackend(), ACLFile: file}); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("a file that is not there: %v", err)
	}
	write("user u on nopass +@all ~* (+get %R~x)\n\nuser v off -@all\n")
	ts := start(t, func(o *Options) { o.ACLFile, o.RequirePass = file, "pw" })
	c, u := ts.dial(), ts.dial()
	c.want("-NOAUTH Authentication required.\r\n", "PING") // the file says nothing of the default user
	c.want("+OK\r\n", "AUTH", "pw")
	u.want("+OK\r\n", "AUTH", "u", "x")
	c.want("+OK\r\n", "ACL", "SETUSER", "w", "+get")
	c.want("+OK\r\n", "ACL", "SAVE")
	saved, _ := os.ReadFile(file)
	if s := string(saved); strings.Count(s, "\n") != 4 || !strings.Contains(s, "user u on nopass ~* resetchannels +@all (%R~x resetchannels -@all +get)\n") {
		t.Errorf("saved %q", s)
	}
	if left, _ := filepath.Glob(file + "*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}

	redis := dial(t, "unix", realRedis(t, "--aclfile", file))
	redis.want("-NOAUTH Authentication required.\r\n", "PING")
	redis.want("+OK\r\n", "AUTH", "pw") // Redis takes the file
	for _, bad := range []string{
		"user a on\nuser a off", "usr a on", "user", "user a foo >secret bar", "user a +foo -bar", "user a (+get", "user default on\nuser default on",
	} {
		write(bad + "\n")
		want, got := redis.do("ACL", "LOAD"), c.do("ACL", "LOAD")
		if want != got && !strings.Contains(bad, "(") { // after which Redis goes on
			t.Errorf("%q:\n got %q\nwant %q", bad, got, want)
		}
		if got[0] != '-' || strings.Contains(got, "secret") {
			t.Errorf("%q: %q", bad, got)
		}
	}
	c.want(bulks("default", "u", "v", "w"), "ACL", "USERS")
	write("user default on nopass +@all ~*\nuser z on nopass +@all ~*\n")
	c.want("+OK\r\n", "ACL", "LOAD")
	u.closed()
	c.want(bulks("default", "z"), "ACL", "USERS")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c.want("-ERR Error loading ACLs, opening file '"+file+"': no such file or directory\r\n", "ACL", "LOAD")
}

func bulks(list ...string) string {
	s := fmt.Sprintf("*%d\r\n", len(list))
	for _, x := range list {
		s += fmt.Sprintf("$%d\r\n%s\r\n", len(x), x)
	}
	return s
}

// SORT reads keys it does not name only for those who may read all.
func TestSortNeedsAllKeys(t *testing.T) {
	a, ts := dial(t, "unix", realRedis(t)), start(t, nil)
	b := ts.dial()
	for _, rules := range []string{"+sort ~l", "+sort ~l ~v*", "+sort ~l %W~*", "-@all (+sort ~l) (+get ~*)"} {
		set := append([]string{"ACL", "SETUSER", "u", "reset", "on", "nopass", "+auth", "+reset"}, strings.Fields(rules)...)
		for _, line := range []string{"auth u x", "sort l by v*", "sort l get v*", "sort l limit 0 1 by w_* get #", "sort l by get v*", "sort l foo by v*", "reset"} {
			if strings.HasPrefix(line, "auth") {
				a.do(set...)
				b.do(set...)
			}
			want, got := a.do(words(t, line)...), b.do(words(t, line)...)
			if want != got && !strings.Contains(got, "the test's backend") {
				t.Errorf("%s, %s: %q, want %q", rules, line, got, want)
			}
		}
	}
}

// Passwords are not in the slow log.
func TestSecretsAreHidden(t *testing.T) {
	ts := start(t, func(o *Options) { o.SlowLogTime = 1 })
	c := ts.dial()
	for _, line := range []string{
		"auth s3cret", "auth u s3cret", "hello 2 auth u s3cret", "acl setuser s3cret >s3cret", "config set requirepass s3cret requirepass x",
		"config set masterauth s3cret", "migrate h 1 k 0 1 auth s3cret keys auth x", "migrate h 1 k 0 1 auth2 s3cret s3cret",
	} {
		c.do(words(t, line)...)
	}
	if log := c.do("SLOWLOG", "GET", "-1"); strings.Contains(log, "s3cret") || !strings.Contains(log, "(redacted)") {
		t.Error(log)
	}
}

// Who listens to a channel that is taken from its user leaves; others stay.
func TestSubscribersLeaveWithTheirChannels(t *testing.T) {
	ts := start(t, nil)
	admin := ts.dial()
	for _, c := range []struct{ rules, subscribe, then string }{
		{"&a", "SUBSCRIBE a", "resetchannels"},
		{"&a", "SSUBSCRIBE a", "resetchannels &b"},
		{"&a*", "PSUBSCRIBE a*", "resetchannels &ab*"},
		{"allchannels", "PSUBSCRIBE x", "resetchannels &a"},
		{"&a &b*", "SUBSCRIBE a", "&c"},
		{"&a &b*", "PSUBSCRIBE b*", "resetchannels &b* &z"},
		{"&a &b*", "SUBSCRIBE b1", "allchannels"},
	} {
		admin.want("+OK\r\n", append([]string{"ACL", "SETUSER", "u", "reset", "on", "nopass", "+@all"}, strings.Fields(c.rules)...)...)
		o := ts.dial()
		o.want("+OK\r\n", "AUTH", "u", "x")
		if got := o.do(strings.Fields(c.subscribe)...); !strings.HasPrefix(got, "*3\r\n") {
			t.Fatalf("%s: %q", c.subscribe, got)
		}
		admin.want("+OK\r\n", append([]string{"ACL", "SETUSER", "u"}, strings.Fields(c.then)...)...)
		stays := !strings.HasPrefix(c.then, "resetchannels") || strings.Contains(c.then, "&z")
		if listed := strings.Contains(admin.do("CLIENT", "LIST"), "user=u "); listed != stays {
			t.Errorf("%+v: listed %v", c, listed)
		}
		if !stays {
			o.closed()
		} else {
			_ = o.Close()
			eventually(t, "it is gone", func() bool { return !strings.Contains(admin.do("CLIENT", "LIST"), "user=u ") })
		}
	}
	u := ts.dial()
	admin.want("+OK\r\n", "ACL", "SETUSER", "u", "reset", "on", "nopass", "+@all", "&a*")
	u.want("+OK\r\n", "AUTH", "u", "x")
	u.want(":0\r\n", "PUBLISH", "ab", "m")
	for _, line := range []string{"PUBLISH b m", "SPUBLISH b m", "SUBSCRIBE a b", "PSUBSCRIBE ab*", "SSUBSCRIBE b"} {
		u.want("-NOPERM this user has no permissions to access one of the channels used as arguments\r\n", strings.Fields(line)...)
	}
}

// CLIENT PAUSE WRITE holds up what may reach others too, and ALL everything.
func TestPauseHoldsWhatSpreads(t *testing.T) {
	ts := start(t, nil)
	admin := ts.dial()
	held := func(n string) {
		eventually(t, n+" held", func() bool { return strings.Contains(admin.do("INFO", "clients"), "blocked_clients:"+n+"\r\n") })
	}
	admin.want("+OK\r\n", "CLIENT", "PAUSE", "100000", "WRITE")
	a, b, c := ts.dial(), ts.dial(), ts.dial()
	a.send(encode("PUBLISH", "c", "m"))
	b.send(encode("SET", "k", "v"))
	c.want("$-1\r\n", "GET", "k")
	held("2")
	c.want("-ERR wrong number of arguments for 'set' command\r\n", "SET", "k")
	admin.want("+OK\r\n", "CLIENT", "UNPAUSE")
	if got := a.reply() + b.reply(); got != ":0\r\n+OK\r\n" {
		t.Errorf("%q", got)
	}
	held("0")

	// Of scripts and transactions it holds up those that may write.
	const reads, writes = "#!lua flags=no-writes\nreturn 1", "#!lua\nreturn 1"
	transaction := func(cmd ...string) string { return encode("MULTI") + encode("PING") + encode(cmd...) + encode("EXEC") }
	const queued = "+OK\r\n+QUEUED\r\n+QUEUED\r\n"
	a.send(transaction("EVAL", writes, "0") + encode("ECHO", "a"))
	for range 5 {
		a.reply()
	}
	admin.want("+OK\r\n", "CLIENT", "PAUSE", "100000", "WRITE")
	c.do("EVAL", reads, "0")
	c.do("EVAL_RO", "return 1", "0")
	c.send(transaction("EVAL", reads, "0"))
	for range 4 {
		c.reply()
	}
	held("0")
	a.send(transaction("PUBLISH", "c", "m"))
	b.send(encode("EVAL", writes, "0"))
	if got := a.reply() + a.reply() + a.reply(); got != queued {
		t.Errorf("%q", got)
	}
	held("2")
	admin.want("+OK\r\n", "CLIENT", "UNPAUSE")
	if got := a.reply(); got != "*2\r\n+PONG\r\n:0\r\n" {
		t.Errorf("%q", got)
	}
	b.reply()
	held("0")
	admin.want("+OK\r\n", "CLIENT", "PAUSE", "200", "ALL")
	begun := time.Now()
	admin.want("+PONG\r\n", "PING")
	if took := time.Since(begun); took < 100*time.Millisecond {
		t.Errorf("PING after %v", took)
	}
}
