package resp

import (
	"errors"
	"fmt"
	"math"
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
	name, user, library, libVer, noEvict := c.name, c.user, c.library, c.libVer, c.noEvict
	c.mu.Unlock()
	flags := ""
	if c.blocked.Load() {
		flags += "b"
	}
	if noEvict {
		flags += "e"
	}
	if flags == "" {
		flags = "N"
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
	return fmt.Sprintf("id=%d addr=%s laddr=%s fd=%d name=%s age=%d idle=%d flags=%s db=%d sub=0 psub=0 ssub=0 multi=-1 "+
		"qbuf=%d qbuf-free=%d argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=%d tot-mem=%d events=r cmd=%s user=%s redir=-1 resp=2 lib-name=%s lib-ver=%s",
		c.id, c.addr, c.laddr, c.id, name, now-c.begun.Unix(), max(now-c.active.Load(), 0), flags, c.dbNow.Load(),
		unread, size-unread, queued, size+queued, cmd, user, library, libVer)
}

func clientInfo(c *Session, _ [][]byte) { c.reply.BulkString(c.line() + "\n") }

func clientList(c *Session, args [][]byte) {
	list := c.server.clients()
	switch {
	case len(args) == 2:
	case len(args) == 4 && equalFold(args[2], "type"):
		normal, err := clientType(args[3])
		if err != "" {
			c.reply.Error(err)
			return
		}
		if !normal {
			list = nil
		}
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
	c.reply.BulkString(b.String())
}

// clientType reports whether a TYPE filter is for normal clients, the only
// ones there are, or returns an error.
func clientType(b []byte) (normal bool, err string) {
	switch {
	case equalFold(b, "normal"):
		return true, ""
	case equalFold(b, "master"), equalFold(b, "replica"), equalFold(b, "slave"), equalFold(b, "pubsub"):
		return false, ""
	}
	return false, "ERR Unknown client type '" + shown(b) + "'"
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
			normal, err := clientType(v)
			if err != "" {
				c.reply.Error(err)
				return
			}
			match = append(match, func(*Session) bool { return normal })
		case equalFold(opt, "addr"):
			match = append(match, func(o *Session) bool { return o.addr == s })
		case equalFold(opt, "laddr"):
			match = append(match, func(o *Session) bool { return o.laddr == s })
		case equalFold(opt, "user"):
			if s != defaultUser {
				c.reply.Error("ERR No such user '" + shown(v) + "'")
				return
			}
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

// clientGetRedir: tracking is never on.
func clientGetRedir(c *Session, _ [][]byte) { c.reply.Int(-1) }

func clientTrackingInfo(c *Session, _ [][]byte) {
	c.reply.Map(3)
	c.reply.BulkString("flags")
	c.reply.Array(1)
	c.reply.BulkString("off")
	c.reply.BulkString("redirect")
	c.reply.Int(-1)
	c.reply.BulkString("prefixes")
	c.reply.Array(0)
}

var clientHelp = []string{
	"CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
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
	"TRACKINGINFO",
	"    Report tracking status for the current connection.",
	"NO-EVICT (ON|OFF)",
	"    Protect current client connection from eviction.",
	"HELP",
	"    Print this help.",
}
