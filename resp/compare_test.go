package resp

import (
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicatord/replicatord/resp/script"
)

// exchange sends bytes to a server and returns all that comes back, and whether
// the connection was then still open.
func exchange(t *testing.T, network, addr, in string, wait time.Duration) string {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, in) // fails when what was sent first has ended the connection
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	b, err := io.ReadAll(conn)
	if isTimeout(err) {
		return string(b) + "(open)"
	}
	return string(b)
}

// Malformed input gets from the server what it gets from Redis, to the byte,
// and closes the connection where Redis does.
func TestMalformedAsRedis(t *testing.T) {
	long := strings.Repeat("x", maxInline+10)
	for _, auth := range []string{"", "secret"} {
		redis := realRedis(t, "--requirepass", auth)
		ts := start(t, func(o *Options) { o.RequirePass = auth })
		var wg sync.WaitGroup
		sem := make(chan struct{}, 16)
		for _, in := range []string{
			"*1\r\n$x\r\nPING\r\n",
			"*1\r\n$-1\r\nPING\r\n",
			"*1\r\n$-2\r\nPING\r\n",
			"*1\r\n$+4\r\nPING\r\n",
			"*1\r\n$04\r\nPING\r\n",
			"*1\r\n$ 4\r\nPING\r\n",
			"*1\r\n$\r\nPING\r\n",
			"*1\r\n$536870913\r\n",
			"*1\r\n$9223372036854775807\r\nabc\r\n",
			"*1\r\n$9223372036854775808\r\nabc\r\n",
			"*1\r\n$99999999999999999999999\r\n",
			"*1\r\n$16385\r\n" + strings.Repeat("y", 16385) + "\r\n",
			"*x\r\n",
			"*\r\n",
			"* 1\r\n",
			"*01\r\n",
			"*-\r\n",
			"*2147483648\r\n",
			"*99999999999999999999999\r\n",
			"*11\r\n" + strings.Repeat("$1\r\nx\r\n", 11),
			"*0\r\nPING\r\n",
			"*-1\r\nPING\r\n",
			"*-10\r\n*1\r\n$4\r\nPING\r\n",
			"*1\r\nPING\r\n",
			"*1\r\n:4\r\nPING\r\n",
			"*1\r\n\r\n",
			"*1\r\n\n\r\n",
			"*1\r\n*1\r\n$4\r\nPING\r\n",
			"*1\r\n$4\r\nPINGxy*1\r\n$4\r\nPING\r\n",
			"*1\rx$4\rxPING\r\n",
			"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
			"*1\r\n$0\r\n\r\n",
			"*" + long,
			"*1\r\n$" + long,
			"*1\r\n" + long,
			long,
			"PING\r\n",
			"PING\n",
			"  PING  \r\n",
			"\r\n\r\n\nPING\r\n",
			"PING \"hello world\"\r\n",
			"PING 'it\\'s'\r\n",
			"PING \"\\x41\\x4a\\n\\r\\t\\b\\a\\q\\xzz\"\r\n",
			"PING foo\"bar\"\r\n",
			"PING \"foo\"bar\r\n",
			"PING \"foo\r\n",
			"PING 'foo\r\n",
			"PING \"\"\r\n",
			"PING \"foo\\\"\r\n",
			"PING\v\fa\r\n",
			"\"PING\"\r\n",
			"GET / HTTP/1.1\r\nPING\r\n",
			"POST / HTTP/1.1\r\nPING\r\n",
			"Host: example.com\r\nPING\r\n",
			"foo\r\n",
			"foo a b 'c d'\r\n",
			"foo " + strings.Repeat("abcdefghij", 30) + "\r\n",
			"foo " + strings.Repeat("ab ", 80) + "\r\n",
			encode("foo\r\nbar", "a\r\nb", "c\x00d", ""),
			encode(strings.Repeat("f", 300), "a"),
			encode("foo\x00bar"),
			encode("CLIENT", "a\r\nb"),
			encode("client", strings.Repeat("n", 200)),
			encode("GET"),
			encode("gEt", "a", "b"),
			encode("CLIENT"),
			encode("client", "setname"),
			encode("CONFIG", "gEt"),
			encode("QUIT") + encode("PING"),
			encode("quit", "now"),
			"PING\r\n*1\r\n$x\r\nPING\r\n",
		} {
			wg.Go(func() {
				sem <- struct{}{}
				defer func() { <-sem }()
				var want, got string
				// Silence is compared too; on a busy machine it must last longer to count.
				for wait := 200 * time.Millisecond; wait < 10*time.Second; wait *= 6 {
					want = exchange(t, "unix", redis, in, wait)
					got = exchange(t, "tcp", ts.addr, in, wait)
					if got == want {
						break
					}
				}
				if got != want {
					t.Errorf("password %q, %.80q:\n got %q\nwant %q", auth, in, got, want)
				}
			})
		}
		wg.Wait()
	}
}

// The commands of connections and the server answer as Redis does.
func TestCommandsAsRedis(t *testing.T) {
	for _, auth := range []string{"", "secret"} {
		redis := realRedis(t, "--requirepass", auth)
		ts := start(t, func(o *Options) { o.RequirePass = auth })
		a := dial(t, "unix", redis)
		b := ts.dial()
		for _, line := range strings.Split(strings.TrimSpace(`
ping
ping a
ping a b
echo
echo a
get a
config get maxclients
auth
auth wrong
auth default wrong
auth other secret
auth a b c
hello x
hello 1
hello 4
hello 2 foo
hello 2 auth default
hello 2 auth default wrong
hello 2 setname "a b"
hello 2 setname x
client getname
client id x
select 1
reset
auth secret
auth default secret
hello 2 auth default secret setname y
client getname
client setname "with space"
client setname ""
client getname
client setname "ünï"
client setname n1
client getname
select
select a
select -1
select 16
select 15
select 99999999999
select 1.5
select 0
client list type foo
client list type pubsub
client list type master
client list foo
client list id
client list id x
client list id 0
client list id 12345
client kill 1.2.3.4:5
client kill id
client kill id x
client kill id 0
client kill id 99999
client kill type foo
client kill type pubsub
client kill user nobody
client kill user default skipme maybe
client kill addr 1.2.3.4:5 skipme yes
client kill laddr 1.2.3.4:5 user default
client kill addr 1.2.3.4:5 foo bar
client no-evict
client no-evict maybe
client no-evict on
client no-evict off
client reply maybe
client pause x
client pause -1
client pause 99999999999999999999
client pause 1 foo
client pause 1 write extra
client pause 0
client unpause
client unblock x
client unblock 1 foo
client unblock 99999
client unblock 99999 timeout
client getredir
client trackinginfo
client foo
client help extra
config foo
config get
config set
config set maxclients
config set maxclients x
config set maxclients 0
config set maxclients 100 maxclients 200
config set timeout -1
config set nosuch 1
config set maxclients 100 nosuch 1
config get maxclients
config set databases 17
config set databases 16
config get databases
config get requirepass
config get nosuch
config get appendfsyn
config get time*t
config get maxmemory
config get save
config set slowlog-max-len 10 slowlog-log-slower-than 5000
config get slowlog-m*
config set proto-max-bulk-len 10
config set proto-max-bulk-len 2mb
config get proto-max-bulk-len
config set client-query-buffer-limit 1gb
config get client-query-buffer-limit
config set client-query-buffer-limit x
config set client-output-buffer-limit "normal 1"
config set client-output-buffer-limit "foo 1 1 1"
config set client-output-buffer-limit "normal x 1 1"
config set timeout 10 timeout 20
config resetstat
slowlog
slowlog get x
slowlog get -2
slowlog get 0
slowlog reset
slowlog len
slowlog help
slowlog foo
acl whoami
role
time x
save x
bgsave foo
shutdown foo
shutdown save nosave
shutdown abort
shutdown abort now
info foo
cluster info
asking
readonly
multi
monitor
exec
reset
client getname
get x
auth secret
hello 3
command info get
command info config|get ping
hello 2
reset
`), "\n") {
			args, ok := script.SplitArgs([]byte(line))
			if !ok {
				t.Fatal(line)
			}
			words := make([]string, len(args))
			for i := range args {
				words[i] = string(args[i])
			}
			want, got := a.do(words...), b.do(words...)
			if strings.HasPrefix(line, "hello") {
				want, got = noID(want), noID(got)
			}
			if got != want {
				t.Errorf("password %q, %s:\n got %q\nwant %q", auth, line, got, want)
			}
		}
	}
}

// noID takes the connection's number out of a reply to HELLO.
func noID(s string) string {
	return theID.ReplaceAllString(s, "")
}

var theID = regexp.MustCompile(`\$2\r\nid\r\n:[0-9]+\r\n`)
