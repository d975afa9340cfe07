package resp

import (
	"maps"
	"time"

	"github.com/replicatord/replicatord/resp/acl"
	"github.com/replicatord/replicatord/resp/command"
)

// transaction is what a connection has gathered since MULTI.
type transaction struct {
	list   []queued
	bytes  int64 // taken from the budget
	failed bool  // a command was refused: EXEC will be
}

type queued struct {
	cmd  *command.Command
	args [][]byte
}

// part is a command of a transaction that is carried out: by the backend, as a
// request of its own, or here.
type part struct {
	sub    *Request
	cmd    *command.Command
	args   [][]byte
	reply  []byte // known already
	db     uint8  // as MONITOR shows it
	shown  bool   // to the monitors, or not to be
	denied bool
	took   time.Duration // of what is carried out here
}

// control are the commands that are carried out at once within a transaction.
var control = map[string]bool{"MULTI": true, "EXEC": true, "DISCARD": true, "WATCH": true, "RESET": true}

// early are those that change how the commands after them are understood: they
// are carried out when a transaction begins to run, in their order; what else
// is answered here is when all data commands of it have been.
var early = map[string]bool{"SELECT": true, "HELLO": true, "AUTH": true, "CLIENT|TRACKING": true, "CLIENT|CACHING": true}

const (
	errExecAbort = "EXECABORT Transaction discarded because of previous errors."
	abortedBy    = "EXECABORT Transaction discarded because of: "
)

// reject refuses a command before it is carried out. A transaction that it was
// to join fails with it.
func (c *Session) reject(cmd *command.Command, args [][]byte, msg string) {
	if c.multi != nil {
		c.multi.failed = true
		if cmd != nil && cmd.Name == "EXEC" {
			c.server.monitors.show(c, cmd, c.db, args)
			c.discard()
			msg = abortedBy + msg
		}
	}
	c.fail(msg)
}

// queue adds a command to the transaction.
func (c *Session) queue(cmd *command.Command, args [][]byte) {
	n := int64(len(args)) * 24
	for _, a := range args {
		n += int64(len(a))
	}
	t := c.multi
	if len(t.list) >= maxArgs {
		c.reject(cmd, args, "ERR too many commands in a transaction")
		return
	}
	if !c.server.budget.take(n) {
		c.kill(errMemory)
		c.last = true
		return
	}
	t.bytes += n
	t.list = append(t.list, queued{cmd, args})
	c.reply.Status("QUEUED")
	c.answer()
}

// discard forgets the transaction, and what is watched.
func (c *Session) discard() {
	if c.multi != nil {
		c.server.budget.give(c.multi.bytes)
		c.multi = nil
	}
	c.unwatch()
}

// unwatch has the backend forget what the connection watches.
func (c *Session) unwatch() {
	if !c.watching {
		return
	}
	c.watching = false
	c.execute()
	c.server.backend.Execute([]*Request{c.unwatchRequest()})
}

func (c *Session) unwatchRequest() *Request {
	args := [][]byte{[]byte("UNWATCH")}
	cmd, _ := command.Find(args)
	return &Request{DB: c.db, Proto: c.reply.Proto, Cmd: cmd, Args: args, Session: c}
}

func multi(c *Session, _ [][]byte) {
	if c.multi != nil {
		c.reply.Error("ERR MULTI calls can not be nested")
		return
	}
	c.multi = &transaction{}
	c.reply.OK()
}

func discard(c *Session, _ [][]byte) {
	if c.multi == nil {
		c.reply.Error("ERR DISCARD without MULTI")
		return
	}
	c.discard()
	c.reply.OK()
}

// exec puts the transaction into the batch, as one request.
func (c *Session) exec(cmd *command.Command, args [][]byte) {
	t := c.multi
	switch {
	case t == nil:
		c.server.monitors.show(c, cmd, c.db, args)
		c.fail("ERR EXEC without MULTI")
		return
	case t.failed:
		c.server.monitors.show(c, cmd, c.db, args)
		c.discard()
		c.fail(errExecAbort)
		return
	}
	c.enqueue(cmd, args)
	c.server.budget.give(t.bytes)
	c.multi = nil
	c.bytes += t.bytes
	req := c.batch[len(c.batch)-1]
	var was *sessionState // before what early commands change
	for _, q := range t.list {
		p := part{cmd: q.cmd, args: q.args}
		denied := c.PermitWithin(acl.InMulti, q.cmd, q.args)
		switch {
		case denied != "":
			p.reply, p.denied, p.shown = []byte("-"+denied+"\r\n"), true, true
		case q.cmd.Run != nil || q.cmd.ByView(q.args):
			p.sub = &Request{DB: c.db, Proto: c.reply.Proto, Cmd: q.cmd, Args: q.args, Session: c, Tracks: c.tracksReads(), whole: req}
			req.Subs = append(req.Subs, p.sub)
		case early[q.cmd.Name]:
			if was == nil {
				was = c.state()
			}
			p.reply = c.Front(q.cmd, q.args, c.reply.Proto)
		}
		p.db = c.db
		req.parts = append(req.parts, p)
	}
	if len(req.Subs) == 0 && c.watching {
		// Whether it may run is still to be asked.
		req.Subs = []*Request{c.unwatchRequest()}
	}
	req.exec = true
	c.watching = false
	if c.server.monitors.any.Load() || was != nil {
		c.undone = false
		c.execute() // what follows is shown behind it, and as the connection is then
		if was != nil && c.undone {
			c.restore(was)
		}
	}
}

// sessionState is what the early commands change.
type sessionState struct {
	db     uint8
	proto  int
	user   *acl.User
	authed bool
	name   string
	track  trackState
}

func (c *Session) state() *sessionState {
	c.server.trackers.mu.Lock()
	track := c.tracking
	c.server.trackers.mu.Unlock()
	track.prefixes = maps.Clone(track.prefixes)
	return &sessionState{c.db, c.reply.Proto, c.user(), c.authed, c.Name(), track}
}

// restore takes back what the early commands of a transaction have changed that
// was not carried out.
func (c *Session) restore(was *sessionState) {
	c.db = was.db
	c.dbNow.Store(int32(was.db))
	if was.proto != c.reply.Proto {
		c.setProto(was.proto)
	}
	c.setAuth(was.user, was.authed)
	_ = c.setName([]byte(was.name)) // it was one before
	c.server.trackers.restore(c, was.track)
}

// compose makes the reply of a transaction of those of its commands.
func (c *Session) compose(q *Request) {
	defer c.server.monitors.show(c, q.Cmd, c.db, q.Args)
	if len(q.Out) > 0 {
		if q.Out[0] == '-' {
			q.Out = append([]byte("-"+abortedBy), q.Out[1:]...)
		}
		q.parts, c.undone = nil, true // not carried out
		return
	}
	out := command.Reply{Proto: q.Proto}
	out.Array(len(q.parts))
	for i := range q.parts {
		p := &q.parts[i]
		r := c.server.rows[p.cmd]
		switch {
		case p.sub != nil && len(p.sub.Out) == 0:
			p.reply = []byte(c.bug(p.cmd, "no reply"))
		case p.sub != nil:
			p.reply = p.sub.Out
		case p.reply == nil && p.cmd.Name == "MONITOR":
			p.reply = []byte("-ERR MONITOR isn't allowed for DENY BLOCKING client\r\n")
		case p.reply == nil:
			start := time.Now()
			p.reply = c.Front(p.cmd, p.args, q.Proto)
			p.took = time.Since(start)
		}
		c.showPart(p)
		r.stat.add(1, 0)
		if len(p.reply) > 0 && p.reply[0] == '-' {
			r.stat.failed.Add(1)
			if p.sub == nil || !p.sub.Counted {
				c.server.stats.countError(p.reply)
			}
		}
		out.Raw(p.reply)
	}
	c.server.stats.commands.Add(int64(len(q.parts)))
	q.Out = out.Buf
}

// noteSlowParts logs the commands of a transaction that took long. Those that the
// backend carried out are given equal shares of its time.
func (c *Session) noteSlowParts(q *Request, took time.Duration) {
	for i := range q.parts {
		took -= q.parts[i].took
	}
	share := max(took, 0) / time.Duration(max(len(q.Subs), 1))
	for i := range q.parts {
		p := &q.parts[i]
		switch {
		case p.sub != nil:
			c.server.noteSlow(c, p.cmd, p.args, share)
		case !p.denied:
			c.server.noteSlow(c, p.cmd, p.args, p.took)
		}
	}
}

// Front carries out a command that the front end answers, within a
// transaction or script of the session's, and returns its raw reply. Unless the
// session's own goroutine calls it, that waits for the backend meanwhile.
func (c *Session) Front(cmd *command.Command, args [][]byte, proto int) []byte {
	if cmd.Flags&command.Admin != 0 {
		return c.server.backend.Admin(c, cmd, args)
	}
	was := c.reply
	c.reply = command.Reply{Proto: proto}
	c.server.rows[cmd].handle(c, args)
	out := c.reply.Buf
	if proto == was.Proto {
		was.Proto = c.reply.Proto // HELLO
	}
	c.reply = was
	return out
}

// PermitScript implements command.Client.
func (c *Session) PermitScript(cmd *command.Command, args [][]byte) string {
	return c.PermitWithin(acl.InScript, cmd, args)
}

// Permitted implements command.Client.
func (c *Session) Permitted(cmd *command.Command, args [][]byte) bool {
	why, _ := c.user().Rules().Check(cmd, args)
	return why == acl.Allowed
}

// Called implements command.Client.
func (c *Session) Called(cmd *command.Command, reply []byte, ran bool) {
	failed := len(reply) > 0 && reply[0] == '-'
	if failed {
		c.server.stats.countError(reply)
	}
	r := c.server.rows[cmd]
	switch {
	case r == nil:
	case !ran:
		r.stat.rejected.Add(1)
	default:
		r.stat.add(1, 0)
		if failed {
			r.stat.failed.Add(1)
		}
	}
}

// Full implements command.Client.
func (c *Session) Full() bool { return c.server.settings.full.Load() }

// Alone implements command.Client.
func (c *Session) Alone() bool { return c.server.settings.alone.Load() }

// endTransaction gives back what the session holds for a transaction.
func (c *Session) endTransaction() {
	if c.multi != nil {
		c.server.budget.give(c.multi.bytes)
		c.multi = nil
	}
	if c.watching {
		c.watching = false
		c.server.backend.Execute([]*Request{c.unwatchRequest()})
	}
}

func scriptKill(c *Session, _ [][]byte)    { c.server.backend.Scripts().Kill(true, &c.reply) }
func functionKill(c *Session, _ [][]byte)  { c.server.backend.Scripts().Kill(false, &c.reply) }
func functionStats(c *Session, _ [][]byte) { c.server.backend.Scripts().Stats(&c.reply) }

// busy returns the error for a command that comes while a script has been
// running for long, "" if it may go on.
func (s *Server) busy(cmd *command.Command) string {
	if cmd.Flags&command.AllowBusy != 0 {
		return ""
	}
	return s.backend.Scripts().BusyError()
}

var scriptHelp = []string{
	"SCRIPT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"DEBUG (YES|SYNC|NO)",
	"    Set the debug mode for subsequent scripts executed.",
	"EXISTS <sha1> [<sha1> ...]",
	"    Return information about the existence of the scripts in the script cache.",
	"FLUSH [ASYNC|SYNC]",
	"    Flush the Lua scripts cache. Very dangerous on replicas.",
	"    When called without the optional mode argument, the behavior is determined by the",
	"    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
	"    * ASYNC: Asynchronously flush the scripts cache.",
	"    * SYNC: Synchronously flush the scripts cache.",
	"KILL",
	"    Kill the currently executing Lua script.",
	"LOAD <script>",
	"    Load a script into the scripts cache without executing it.",
	"HELP",
	"    Prints this help.",
}

var functionHelp = []string{
	"FUNCTION <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"LOAD [REPLACE] <FUNCTION CODE>",
	"    Create a new library with the given library name and code.",
	"DELETE <LIBRARY NAME>",
	"    Delete the given library.",
	"LIST [LIBRARYNAME PATTERN] [WITHCODE]",
	"    Return general information on all the libraries:",
	"    * Library name",
	"    * The engine used to run the Library",
	"    * Library description",
	"    * Functions list",
	"    * Library code (if WITHCODE is given)",
	"    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
	"STATS",
	"    Return information about the current function running:",
	"    * Function name",
	"    * Command used to run the function",
	"    * Duration in MS that the function is running",
	"    If no function is running, return nil",
	"    In addition, returns a list of available engines.",
	"KILL",
	"    Kill the current running function.",
	"FLUSH [ASYNC|SYNC]",
	"    Delete all the libraries.",
	"    When called without the optional mode argument, the behavior is determined by the",
	"    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
	"    * ASYNC: Asynchronously flush the libraries.",
	"    * SYNC: Synchronously flush the libraries.",
	"DUMP",
	"    Return a serialized payload representing the current libraries, can be restored using FUNCTION RESTORE command",
	"RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
	"    Restore the libraries represented by the given payload, it is possible to give a restore policy to",
	"    control how to handle existing libraries (default APPEND):",
	"    * FLUSH: delete all existing libraries.",
	"    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
	"    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
	"      libraries with the new libraries (notice that even on this option there is a chance of failure",
	"      in case of functions name collision with another library).",
	"HELP",
	"    Prints this help.",
}
