package resp

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

var errKilled = errors.New("CLIENT KILL")

func clientID(c *Session, _ [][]byte) { c.reply.Int(c.id) }

func clientGetName(c *Session, _ [][]byte) {
	if name := c.Name(); name != "" {
		c.reply.BulkString(name)
	} else {
		c.reply.Null()
	}
}

func clientSetName(c *Session, args [][]byte) {
	if err := c.setName(args[2]); err != nil {
		c.reply.Error(err.Error())
		return
	}
	c.reply.OK()
}

// clientSetInfo is of Redis 7.2; client libraries send it.
func clientSetInfo(c *Session, args [][]byte) {
	ok := plain(args[3]) && len(args[3]) <= maxNameLen
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !equalFold(args[2], "lib-name") && !equalFold(args[2], "lib-ver"):
		c.reply.Error("ERR Unrecognized option '" + shown(args[2]) + "'")
	case !ok:
		c.reply.Error("ERR " + strings.ToLower(string(args[2])) + " cannot contain spaces, newlines or special characters.")
	case equalFold(args[2], "lib-name"):
		c.library = string(args[3])
		c.reply.OK()
	default:
		c.libVer = string(args[3])
		c.reply.OK()
	}
}

// line describes the session as a line of CLIENT LIST.
func (c *Session) line() string {
	now := time.Now().Unix()
	c.mu.Lock()
	name, library, libVer, noEvict := c.name, c.library, c.libVer, c.noEvict
	c.mu.Unlock()
	flags := c.flags()
	if noEvict {
		flags = strings.TrimPrefix(flags, "N") + "e"
	}
	cmd := "NULL"
	if p := c.current.Load(); p != nil {
		cmd = strings.ToLower(p.Name)
	}
	var queued int64
	if o := c.queuedOn.Load(); o != nil {
		queued = o.queued.Load()
	}
	unread, size := c.unread.Load(), c.bufSize.Load()
	return fmt.Sprintf("id=%d addr=%s laddr=%s fd=%d name=%s age=%d idle=%d flags=%s db=%d sub=%d psub=%d ssub=%d multi=-1 "+
		"qbuf=%d qbuf-free=%d argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=%d tot-mem=%d events=r cmd=%s user=%s redir=%d resp=%d lib-name=%s lib-ver=%s",
		c.id, c.addr, c.laddr, c.id, name, now-c.begun.Unix(), max(now-c.active.Load(), 0), flags, c.dbNow.Load(),
		c.subCount[toChannel].Load(), c.subCount[toPattern].Load(), c.subCount[toShard].Load(),
		unread, size-unread, queued, size+queued, cmd, c.user().Name(), c.redirection(), c.Proto(), library, libVer)
}

// reading tells CLIENT LIST that the session is at this command.
func (c *Session) reading(args [][]byte) {
	n := len(fmt.Sprintf("*%d\r\n", len(args)))
	for _, a := range args {
		n += len(fmt.Sprintf("$%d\r\n\r\n", len(a))) + len(a)
	}
	c.unread.Store(int64(n))
}

func clientInfo(c *Session, args [][]byte) {
	c.reading(args)
	c.reply.Verbatim(c.line() + "\n")
}

// flags are the letters by which CLIENT LIST tells what a client does.
func (c *Session) flags() string {
	t := &c.server.trackers
	t.mu.Lock()
	defer t.mu.Unlock()
	var b []byte
	for _, f := range []struct {
		letter byte
		on     bool
	}{
		{'b', c.blocked.Load()}, {'O', c.monitors.Load()}, {'P', c.subscribed()},
		{'t', c.tracking.on}, {'R', c.tracking.broken}, {'B', c.tracking.bcast},
	} {
		if f.on {
			b = append(b, f.letter)
		}
	}
	if len(b) == 0 {
		return "N"
	}
	return string(b)
}

// class is what a filter by TYPE calls the client.
func (c *Session) class() string {
	if c.subscribed() {
		return "pubsub"
	}
	return "normal"
}

func clientList(c *Session, args [][]byte) {
	c.reading(args)
	list := c.server.clients()
	switch {
	case len(args) == 2:
	case len(args) == 4 && equalFold(args[2], "type"):
		class, err := clientType(args[3])
		if err != "" {
			c.reply.Error(err)
			return
		}
		list = slices.DeleteFunc(list, func(o *Session) bool { return o.class() != class })
	case len(args) > 3 && equalFold(args[2], "id"):
		want := map[int64]bool{}
		for _, a := range args[3:] {
			id, ok := parseInt(a)
			if !ok {
				c.reply.Error("ERR Invalid client ID")
				return
			}
			want[id] = true
		}
		var some []*Session
		for _, o := range list {
			if want[o.id] {
				some = append(some, o)
			}
		}
		list = some
	default:
		c.reply.Error(errSyntax)
		return
	}
	var b strings.Builder
	for _, o := range list {
		b.WriteString(o.line())
		b.WriteByte('\n')
	}
	c.reply.Verbatim(b.String())
}

// clientType returns the class that a TYPE filter is for, or an error. Nobody
// is a master or replica.
func clientType(b []byte) (class, err string) {
	for _, class := range []string{"normal", "master", "replica", "slave", "pubsub"} {
		if equalFold(b, class) {
			return class, ""
		}
	}
	return "", "ERR Unknown client type '" + shown(b) + "'"
}

// clientKill ends the clients that pass all filters; its own connection only
// after the reply.
func clientKill(c *Session, args [][]byte) {
	old := len(args) == 3
	match := []func(*Session) bool{}
	skipMe := !old
	switch {
	case old:
		addr := string(args[2])
		match = append(match, func(o *Session) bool { return o.addr == addr })
	case len(args)%2 != 0:
		c.reply.Error(errSyntax)
		return
	}
	for i := 2; !old && i < len(args); i += 2 {
		v := args[i+1]
		s := string(v)
		switch opt := args[i]; {
		case equalFold(opt, "id"):
			id, ok := parseInt(v)
			if !ok || id < 1 {
				c.reply.Error("ERR client-id should be greater than 0")
				return
			}
			match = append(match, func(o *Session) bool { return o.id == id })
		case equalFold(opt, "type"):
			class, err := clientType(v)
			if err != "" {
				c.reply.Error(err)
				return
			}
			match = append(match, func(o *Session) bool { return o.class() == class })
		case equalFold(opt, "addr"):
			match = append(match, func(o *Session) bool { return o.addr == s })
		case equalFold(opt, "laddr"):
			match = append(match, func(o *Session) bool { return o.laddr == s })
		case equalFold(opt, "user"):
			u := c.server.users.Get(s)
			if u == nil {
				c.reply.Error("ERR No such user '" + shown(v) + "'")
				return
			}
			match = append(match, func(o *Session) bool { return o.user() == u })
		case equalFold(opt, "skipme") && equalFold(v, "yes"):
			skipMe = true
		case equalFold(opt, "skipme") && equalFold(v, "no"):
			skipMe = false
		default:
			c.reply.Error(errSyntax)
			return
		}
	}
	var killed int64
next:
	for _, o := range c.server.clients() {
		if o == c && skipMe {
			continue
		}
		for _, ok := range match {
			if !ok(o) {
				continue next
			}
		}
		killed++
		if o == c {
			c.last = true
		} else {
			o.kill(errKilled)
		}
		if old {
			break
		}
	}
	switch {
	case !old:
		c.reply.Int(killed)
	case killed == 0:
		c.reply.Error("ERR No such client")
	default:
		c.reply.OK()
	}
}

func clientNoEvict(c *Session, args [][]byte) {
	on, ok := onOff(args[2])
	if !ok {
		c.reply.Error(errSyntax)
		return
	}
	c.mu.Lock()
	c.noEvict = on
	c.mu.Unlock()
	c.reply.OK()
}

// clientNoTouch is of Redis 7.2. Nothing here depends on when a key was
// touched.
func clientNoTouch(c *Session, args [][]byte) {
	if _, ok := onOff(args[2]); !ok {
		c.reply.Error(errSyntax)
		return
	}
	c.reply.OK()
}

func onOff(b []byte) (on, ok bool) {
	on = equalFold(b, "on")
	return on, on || equalFold(b, "off")
}

func clientReply(c *Session, args [][]byte) {
	switch {
	case equalFold(args[2], "on"):
		c.replyOff, c.out.off = false, false
		c.reply.OK()
	case equalFold(args[2], "off"):
		c.replyOff, c.out.off = true, true
	case equalFold(args[2], "skip"):
		c.skipNext = !c.replyOff
	default:
		c.reply.Error(errSyntax)
	}
}

func clientPause(c *Session, args [][]byte) {
	all := true
	if len(args) > 4 {
		c.reply.Error("ERR unknown subcommand or wrong number of arguments for 'pause'. Try CLIENT HELP.")
		return
	}
	if len(args) == 4 {
		all = equalFold(args[3], "all")
		if !all && !equalFold(args[3], "write") {
			c.reply.Error("ERR CLIENT PAUSE mode must be WRITE or ALL")
			return
		}
	}
	ms, ok := parseInt(args[2])
	switch {
	case !ok || ms > math.MaxInt64/int64(time.Millisecond):
		c.reply.Error("ERR timeout is not an integer or out of range")
		return
	case ms < 0:
		c.reply.Error("ERR timeout is negative")
		return
	}
	c.server.pause.set(time.Now().Add(time.Duration(ms)*time.Millisecond), all)
	c.reply.OK()
}

func clientUnpause(c *Session, _ [][]byte) {
	c.server.pause.lift()
	c.reply.OK()
}

var clientHelp = []string{
	"CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"CACHING (YES|NO)",
	"    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
	"GETREDIR",
	"    Return the client ID we are redirecting to when tracking is enabled.",
	"GETNAME",
	"    Return the name of the current connection.",
	"ID",
	"    Return the ID of the current connection.",
	"INFO",
	"    Return information about the current client connection.",
	"KILL <ip:port>",
	"    Kill connection made from <ip:port>.",
	"KILL <option> <value> [<option> <value> [...]]",
	"    Kill connections. Options are:",
	"    * ADDR (<ip:port>|<unixsocket>:0)",
	"      Kill connections made from the specified address",
	"    * LADDR (<ip:port>|<unixsocket>:0)",
	"      Kill connections made to specified local address",
	"    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
	"      Kill connections by type.",
	"    * USER <username>",
	"      Kill connections authenticated by <username>.",
	"    * SKIPME (YES|NO)",
	"      Skip killing current connection (default: yes).",
	"LIST [options ...]",
	"    Return information about client connections. Options:",
	"    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
	"      Return clients of specified type.",
	"UNPAUSE",
	"    Stop the current client pause, resuming traffic.",
	"PAUSE <timeout> [WRITE|ALL]",
	"    Suspend all, or just write, clients for <timeout> milliseconds.",
	"REPLY (ON|OFF|SKIP)",
	"    Control the replies sent to the current connection.",
	"SETNAME <name>",
	"    Assign the name <name> to the current connection.",
	"SETINFO (LIB-NAME|LIB-VER) <value>",
	"    Say which client library is used, and its version.",
	"UNBLOCK <clientid> [TIMEOUT|ERROR]",
	"    Unblock the specified blocked client.",
	"TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
	"         [OPTIN] [OPTOUT] [NOLOOP]",
	"    Control server assisted client side caching.",
	"TRACKINGINFO",
	"    Report tracking status for the current connection.",
	"NO-EVICT (ON|OFF)",
	"    Protect current client connection from eviction.",
	"NO-TOUCH (ON|OFF)",
	"    Whether what the client reads counts as used, for OBJECT IDLETIME and FREQ.",
	"HELP",
	"    Prints this help.",
}
