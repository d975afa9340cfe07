package resp

import (
	"maps"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

// handlers answer the Session commands of the command table.
var handlers map[string]handler

// inline are those that neither see nor change what data commands do, so that
// these need not be executed first. QUIT, which ends the session, is not here:
// command deals with it.
var inline = map[string]bool{"PING": true, "ECHO": true, "SELECT": true, "MULTI": true, "DISCARD": true}

func init() {
	handlers = map[string]handler{
		"AUTH": auth, "HELLO": hello, "RESET": reset, "PING": ping, "ECHO": echo, "SELECT": selectDB,

		"CLIENT|GETNAME": clientGetName, "CLIENT|GETREDIR": clientGetRedir, "CLIENT|HELP": help(clientHelp),
		"CLIENT|CACHING": clientCaching, "CLIENT|TRACKING": clientTracking,
		"CLIENT|ID": clientID, "CLIENT|INFO": clientInfo, "CLIENT|KILL": clientKill, "CLIENT|LIST": clientList,
		"CLIENT|NO-EVICT": clientNoEvict, "CLIENT|NO-TOUCH": clientNoTouch, "CLIENT|PAUSE": clientPause,
		"CLIENT|REPLY": clientReply, "CLIENT|SETINFO": clientSetInfo, "CLIENT|SETNAME": clientSetName,
		"CLIENT|TRACKINGINFO": clientTrackingInfo, "CLIENT|UNBLOCK": clientUnblock, "CLIENT|UNPAUSE": clientUnpause,

		"CONFIG|GET": configGet, "CONFIG|HELP": help(configHelp), "CONFIG|RESETSTAT": configResetStat,
		"CONFIG|SET": configSet,

		"COMMAND": describe, "COMMAND|COUNT": describe, "COMMAND|DOCS": describe, "COMMAND|GETKEYS": describe,
		"COMMAND|GETKEYSANDFLAGS": describe, "COMMAND|HELP": describe, "COMMAND|INFO": describe, "COMMAND|LIST": describe,

		"SUBSCRIBE": subscribe(toChannel), "PSUBSCRIBE": subscribe(toPattern), "SSUBSCRIBE": subscribe(toShard),
		"UNSUBSCRIBE": unsubscribe(toChannel), "PUNSUBSCRIBE": unsubscribe(toPattern), "SUNSUBSCRIBE": unsubscribe(toShard),
		"PUBLISH": publish(false), "SPUBLISH": publish(true), "MONITOR": monitor,
		"PUBSUB|CHANNELS": channels(toChannel), "PUBSUB|NUMPAT": numPat, "PUBSUB|NUMSUB": numSub(toChannel),
		"PUBSUB|SHARDCHANNELS": channels(toShard), "PUBSUB|SHARDNUMSUB": numSub(toShard), "PUBSUB|HELP": help(pubsubHelp),
		"MULTI": multi, "DISCARD": discard,
		"SCRIPT|HELP": help(scriptHelp), "SCRIPT|KILL": scriptKill,
		"FUNCTION|HELP": help(functionHelp), "FUNCTION|KILL": functionKill, "FUNCTION|STATS": functionStats,

		"INFO": info, "TIME": serverTime, "LASTSAVE": lastSave, "SAVE": save, "BGSAVE": bgSave, "BGREWRITEAOF": bgRewrite,
		"ROLE": role, "SHUTDOWN": shutdown,
		"SLOWLOG|GET": slowlogGet, "SLOWLOG|LEN": slowlogLen, "SLOWLOG|RESET": slowlogReset, "SLOWLOG|HELP": help(slowlogHelp),
	}
	for _, more := range []map[string]handler{aclHandlers(), latencyHandlers(), serverHandlers()} {
		maps.Copy(handlers, more)
	}
}

func describe(c *Session, args [][]byte) {
	command.Describe(args, &c.reply, c.server.backend.ViewDocs)
}

// help returns a handler that answers with lines.
func help(lines []string) handler {
	return func(c *Session, _ [][]byte) {
		c.reply.Array(len(lines))
		for _, l := range lines {
			c.reply.Status(l)
		}
	}
}

func serverTime(c *Session, _ [][]byte) {
	now := time.Now()
	c.reply.Array(2)
	c.reply.BulkString(itoa(now.Unix()))
	c.reply.BulkString(itoa(int64(now.Nanosecond() / 1000)))
}

// lastSave says when all writes were durable last: the log is written as
// commands are answered, so that is now.
func lastSave(c *Session, _ [][]byte) { c.reply.Int(time.Now().Unix()) }

// save and its kin have nothing to do: what was answered is in the log already,
// as durable as the fsync setting says.
func save(c *Session, _ [][]byte) { c.reply.OK() }

func bgSave(c *Session, args [][]byte) {
	if len(args) > 2 || len(args) == 2 && !equalFold(args[1], "schedule") {
		c.reply.Error(errSyntax)
		return
	}
	c.reply.Status("Background saving started")
}

func bgRewrite(c *Session, _ [][]byte) {
	c.reply.Status("Background append only file rewriting started")
}

// role answers as a Redis without replicas; other nodes are in REPLICAS.
func role(c *Session, _ [][]byte) {
	c.reply.Array(3)
	c.reply.BulkString("master")
	c.reply.Int(0)
	c.reply.Array(0)
}

// shutdown stops the node. Both NOSAVE and SAVE keep everything.
func shutdown(c *Session, args [][]byte) {
	save, nosave, abort := false, false, false
	for _, a := range args[1:] {
		switch {
		case equalFold(a, "save"):
			save = true
		case equalFold(a, "nosave"):
			nosave = true
		case equalFold(a, "now"), equalFold(a, "force"):
		case equalFold(a, "abort"):
			abort = true
		default:
			c.reply.Error(errSyntax)
			return
		}
	}
	switch {
	case save && nosave, abort && len(args) > 2:
		c.reply.Error(errSyntax)
	case abort:
		c.reply.Error("ERR No shutdown in progress.")
	case c.server.opt.Shutdown == nil:
		c.reply.Error("ERR Errors trying to SHUTDOWN. Check logs.")
		c.server.log.Warn("SHUTDOWN refused: the server was not started in a way that clients can stop", c.LogAttr())
	default:
		c.server.log.Info("stopping because a client sent SHUTDOWN", c.LogAttr())
		c.last = true // no reply, as Redis
		c.server.shutdown.Do(func() { go c.server.opt.Shutdown() })
	}
}

var slowlogHelp = []string{
	"SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"GET [<count>]",
	"    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
	"    Entries are made of:",
	"    id, timestamp, time in microseconds, arguments array, client IP and port,",
	"    client name",
	"LEN",
	"    Return the length of the slowlog.",
	"RESET",
	"    Reset the slowlog.",
	"HELP",
	"    Prints this help.",
}
