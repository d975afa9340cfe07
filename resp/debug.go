package resp

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

// Values of Options.DebugCommand.
const (
	DebugNo    = "no"    // nobody may
	DebugLocal = "local" // clients on this machine may
	DebugYes   = "yes"   // every client whose rules permit it may
)

const (
	maxDebugSleep = time.Minute
	maxPopulate   = 10_000_000
	errNoDebug    = `ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.`
)

// mayDebug reports whether enable-debug-command allows DEBUG to the client.
func (c *Session) mayDebug() bool {
	switch c.server.opt.DebugCommand {
	case DebugYes:
		return true
	case DebugLocal:
		return c.isLocal()
	}
	return false
}

// isLocal reports whether the client is on this machine.
func (c *Session) isLocal() bool {
	if c.unix {
		return true
	}
	a, err := netip.ParseAddrPort(c.addr)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// debugCommandOf answers DEBUG: what of it tests and client libraries need, and what
// does no harm. The rest shows or breaks the inside of a Redis, which a node
// does not have.
func debugCommandOf(c *Session, args [][]byte) {
	sub := strings.ToLower(string(args[1]))
	d, ok := debugCommands[sub]
	if !ok {
		c.reply.Error("ERR DEBUG " + strings.ToUpper(shown(args[1])) + " is about the inside of a Redis, which a node is not. Try DEBUG HELP.")
		return
	}
	if n := len(args) - 2; n < d.least || n > d.most {
		c.wrongSub(args)
		return
	}
	d.run(c, args)
}

type debugCommand struct {
	least, most int // arguments after the subcommand
	run         handler
}

var debugCommands map[string]debugCommand

func init() {
	accepted := func(c *Session, _ [][]byte) { c.reply.OK() }
	debugCommands = map[string]debugCommand{
		"change-repl-id":               {0, 0, debugNoReplID},
		"digest":                       {0, 0, byBackend},
		"digest-value":                 {0, math.MaxInt, byBackend},
		"error":                        {1, 1, debugError},
		"help":                         {0, 0, help(debugHelp)},
		"loadaof":                      {0, 0, byBackend},
		"log":                          {1, 1, debugLog},
		"object":                       {1, 2, byBackend},
		"pause-cron":                   {1, 1, accepted},
		"populate":                     {1, 3, debugPopulate},
		"protocol":                     {1, 1, debugProtocol},
		"quicklist-packed-threshold":   {1, 1, accepted},
		"reload":                       {0, 3, byBackend},
		"replybuffer":                  {2, 2, accepted},
		"set-active-expire":            {1, 1, byBackend},
		"set-disable-deny-scripts":     {1, 1, debugScripts},
		"set-skip-checksum-validation": {1, 1, accepted},
		"sleep":                        {1, 1, debugSleep},
		"stringmatch-len":              {2, 2, debugMatch},
	}
}

// byBackend leaves a command of the session to the backend.
func byBackend(c *Session, args [][]byte) {
	c.reply.Raw(c.server.backend.Admin(c, c.current.Load(), args))
}

// debugScripts lets scripts use DEBUG, or no longer.
func debugScripts(c *Session, args [][]byte) {
	c.server.debugScripts.Store(string(args[2]) != "0")
	c.reply.OK()
}

// MayDebug implements command.Client: what asks the node for nothing, since that
// waits for the script.
func (c *Session) MayDebug(args [][]byte) bool {
	return c.server.debugScripts.Load() && len(args) == 3 && (equalFold(args[1], "protocol") || equalFold(args[1], "sleep"))
}

// debugSleep holds the client up, and nobody else: a node goes on for its
// other clients and for its members.
func debugSleep(c *Session, args [][]byte) {
	sec, err := strconv.ParseFloat(string(args[2]), 64)
	if err != nil || !(sec >= 0) || sec > maxDebugSleep.Seconds() {
		c.reply.Error(fmt.Sprintf("ERR DEBUG SLEEP takes up to %v seconds", maxDebugSleep.Seconds()))
		return
	}
	t := time.NewTimer(time.Duration(sec * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.gone:
	case <-c.server.stop:
	}
	c.reply.OK()
}

func debugError(c *Session, args [][]byte) { c.reply.Error(lineEnds.Replace(string(args[2]))) }

func debugLog(c *Session, args [][]byte) {
	c.server.log.Info("DEBUG LOG", c.LogAttr(), "message", shown(args[2]))
	c.reply.OK()
}

func debugNoReplID(c *Session, _ [][]byte) {
	c.reply.Error("ERR the node replicates in its own way: it has no replication ID to change")
}

func debugMatch(c *Session, args [][]byte) { c.reply.Bool(command.Match(args[2], args[3], false)) }

// debugPopulate makes keys, as writes like any other.
func debugPopulate(c *Session, args [][]byte) {
	count, ok := parseInt(args[2])
	size := int64(0)
	if ok && len(args) == 5 {
		size, ok = parseInt(args[4])
	}
	if !ok || count < 0 || size < 0 || count > maxPopulate || size > c.server.settings.maxBulk.Load() {
		c.reply.Error("ERR value is out of range, must be positive")
		return
	}
	prefix := "key"
	if len(args) > 3 {
		prefix = string(args[3])
	}
	setnx := command.Named("setnx")
	step := maxBatch
	if size > 0 {
		step = int(max(min(maxBatch, maxBatchBytes/size), 1))
	}
	for i := 0; i < int(count); {
		var batch []*Request
		for ; len(batch) < step && i < int(count); i++ {
			value := []byte(fmt.Sprintf("value:%d", i))
			if size > 0 {
				value = append(value, bytes.Repeat([]byte{0}, int(max(size-int64(len(value)), 0)))...)[:size]
			}
			batch = append(batch, &Request{
				DB: c.db, Proto: c.reply.Proto, Session: c, Cmd: setnx,
				Args: [][]byte{[]byte("SETNX"), []byte(prefix + ":" + strconv.Itoa(i)), value},
			})
		}
		c.server.backend.Execute(batch)
		for _, q := range batch {
			if len(q.Out) == 0 || q.Out[0] == '-' {
				c.reply.Raw(q.Out)
				return
			}
		}
	}
	c.reply.OK()
}

// debugProtocol answers with a value of a type, for tests of client libraries.
func debugProtocol(c *Session, args [][]byte) {
	r := &c.reply
	three := r.Proto == 3
	boolean := func(b bool) {
		switch {
		case !three:
			r.Bool(b)
		case b:
			r.Raw([]byte("#t\r\n"))
		default:
			r.Raw([]byte("#f\r\n"))
		}
	}
	// In RESP2 a type it does not have is text.
	text := func(resp3, plain string) {
		if three {
			r.Raw([]byte(resp3))
		} else {
			r.BulkString(plain)
		}
	}
	switch strings.ToLower(string(args[2])) {
	case "string":
		r.BulkString("Hello World")
	case "integer":
		r.Int(12345)
	case "double":
		text(",3.141\r\n", "3.141")
	case "bignum":
		text("(1234567999999999999999999999999999999\r\n", "1234567999999999999999999999999999999")
	case "null":
		r.Null()
	case "array", "set":
		if equalFold(args[2], "array") {
			r.Array(3)
		} else {
			r.Set(3)
		}
		for i := range int64(3) {
			r.Int(i)
		}
	case "map":
		r.Map(3)
		for i := range int64(3) {
			r.Int(i)
			boolean(i == 1)
		}
	case "attrib":
		if three {
			r.Raw([]byte("|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n"))
		}
		r.BulkString("Some real reply following the attribute")
	case "push":
		if !three {
			r.Error("ERR RESP2 is not supported by this command")
			return
		}
		r.Raw([]byte(">2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n"))
		r.BulkString("Some real reply following the push reply")
	case "true", "false":
		boolean(equalFold(args[2], "true"))
	case "verbatim":
		text("=29\r\ntxt:This is a verbatim\nstring\r\n", "This is a verbatim\nstring")
	default:
		r.Error("ERR Wrong protocol type name. Please use one of the following: string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false")
	}
}

var debugHelp = []string{
	"DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"DIGEST",
	"    Output a hex signature representing the current DB content.",
	"DIGEST-VALUE <key> [<key> ...]",
	"    Output a hex signature of the values of all the specified keys.",
	"ERROR <string>",
	"    Return a Redis protocol error with <string> as message.",
	"LOADAOF",
	"    The same as RELOAD.",
	"LOG <message>",
	"    Write <message> to the server log.",
	"OBJECT <key>",
	"    Show what the view knows of the inside of a key.",
	"POPULATE <count> [<prefix>] [<size>]",
	"    Create <count> string keys named key:<num>, as writes like any other.",
	"PROTOCOL <type>",
	"    Reply with a test value of the specified type. <type> can be: string,",
	"    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
	"    true, false.",
	"RELOAD [option ...]",
	"    Empty the view and fill it from the log again.",
	"SET-ACTIVE-EXPIRE <0|1>",
	"    Whether keys expire on time though no command comes; else with the next.",
	"SLEEP <seconds>",
	"    Hold this client up for <seconds>, up to 60. Decimals allowed.",
	"STRINGMATCH-LEN <pattern> <string>",
	"    Whether the pattern matches.",
	"PAUSE-CRON, QUICKLIST-PACKED-THRESHOLD, REPLYBUFFER, SET-DISABLE-DENY-SCRIPTS,",
	"SET-SKIP-CHECKSUM-VALIDATION",
	"    Taken, and without effect: they tune what a node does not have.",
	"HELP",
	"    Prints this help.",
}
