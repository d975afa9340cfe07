package resp

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

const errNoAuth = "NOAUTH Authentication required."

// handler answers a Session command: it writes the reply to c.reply.
type handler func(c *Session, args [][]byte)

// row is what the server knows of a command besides the command table.
type row struct {
	stat   commandStat
	handle handler // nil for what the backend answers
	// at once: need not wait for data commands before it
	inline bool
}

// table makes the rows of all commands.
func (s *Server) table() map[*command.Command]*row {
	rows := map[*command.Command]*row{}
	for _, cmd := range command.Rows() {
		r := &row{handle: handlers[cmd.Name], inline: inline[cmd.Name]}
		r.stat.name = strings.ToLower(cmd.Name)
		rows[cmd] = r
	}
	return rows
}

// dispatch deals with one command: now, or with the batch it joins.
func (c *Session) dispatch(args [][]byte) {
	if !c.skipNext {
		c.command(args)
		return
	}
	c.execute()
	c.skipNext = false
	c.out.off = true
	c.command(args)
	c.execute()
	c.out.off = c.replyOff
}

func (c *Session) command(args [][]byte) {
	s := c.server
	switch name := args[0]; {
	case equalFold(name, "quit"):
		if c.leaves(args) {
			return
		}
		c.execute()
		c.quits.Store(true) // before the client knows
		c.endPushes()
		c.reply.OK()
		c.answer()
		c.last = true
		return
	case equalFold(name, "post"), equalFold(name, "host:"):
		// A web page that makes a browser talk to the port.
		if c.leaves(args) {
			return
		}
		c.execute()
		s.log.Warn("HTTP sent to the Redis port, perhaps an attack by way of a browser; disconnected", c.LogAttr())
		c.last = true
		return
	}
	cmd, refusal := command.Find(args)
	refused := false // by the node, though Redis knows the command and it is well formed
	if cmd == nil {
		cmd = command.Lookup(args)
		refused = cmd != nil && !strings.HasPrefix(refusal, "ERR wrong number ")
	}
	r := s.rows[cmd]
	if c.looped && (r == nil || !r.inline && !c.flies(cmd, args)) {
		c.leaves(args)
		return
	}
	if r != nil {
		c.current.Store(cmd)
	}
	switch {
	case refusal != "" && !refused:
	case c.needsAuth() && cmd.Flags&command.NoAuth == 0:
		refusal = errNoAuth
	default:
		if denied := c.permit(cmd, args, c.db); denied != "" {
			refusal = denied
		}
	}
	if refusal != "" {
		if r != nil {
			r.stat.rejected.Add(1)
		}
		c.reject(cmd, args, refusal)
		return
	}
	if c.multi != nil && cmd.Flags&(command.NoMulti|command.Admin) != 0 {
		r.stat.rejected.Add(1)
		c.reject(cmd, args, "ERR Command not allowed inside a transaction")
		return
	}
	if c.reply.Proto == 2 && !inPubSub[cmd.Name] && c.subscribed() {
		r.stat.rejected.Add(1)
		c.reject(cmd, args, "ERR Can't execute '"+strings.ToLower(cmd.Name)+"': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context")
		return
	}
	if cmd.Flags&command.Loading == 0 {
		if why := s.backend.Loading(); why != "" {
			r.stat.rejected.Add(1)
			c.reject(cmd, args, why)
			return
		}
	}
	if why := c.unfit(cmd, args); why != "" {
		r.stat.rejected.Add(1)
		c.reject(cmd, args, why)
		return
	}
	if why := s.busy(cmd); why != "" {
		r.stat.rejected.Add(1)
		c.reject(cmd, args, why)
		return
	}
	defer c.afterCaching(cmd)
	switch {
	case c.multi != nil && !control[cmd.Name]:
		c.queue(cmd, args)
	case cmd.Name == "EXEC":
		c.exec(cmd, args)
	case cmd.Name == "WATCH" && c.multi != nil:
		s.monitors.show(c, cmd, c.db, args)
		c.fail("ERR WATCH inside MULTI is not allowed")
	case cmd.Flags&command.Blocking != 0:
		c.execute()
		s.monitors.show(c, cmd, c.db, args)
		c.enqueue(cmd, args)
		c.waits = true
		c.execute()
	case cmd.Run != nil || cmd.ByView(args):
		s.monitors.show(c, cmd, c.db, args)
		c.enqueue(cmd, args)
		if cmd.Flags&command.SkipMonitor != 0 && s.monitors.any.Load() {
			c.execute() // what the script calls is shown before what follows
		}
	case cmd.Flags&command.Admin != 0:
		c.execute()
		c.holdBack(cmd, args)
		c.run(cmd, r, func() { c.reply.Raw(s.backend.Admin(c, cmd, args)) }, args)
	default:
		if !r.inline {
			c.execute()
		}
		c.holdBack(cmd, args)
		c.run(cmd, r, func() { r.handle(c, args) }, args)
	}
}

// leaves has a session that is with a loop leave it for a command, which nothing has
// been done about yet, and reports whether it is with one.
func (c *Session) leaves(args [][]byte) bool {
	if c.looped {
		c.leave = args
	}
	return c.looped
}

// flies reports whether a command is for the backend alone, which carries it out
// while its connection's loop goes on. A transaction is if all of it is.
func (c *Session) flies(cmd *command.Command, args [][]byte) bool {
	if cmd.Name == "EXEC" {
		return c.multi != nil && !c.server.monitors.any.Load() &&
			!slices.ContainsFunc(c.multi.list, func(q queued) bool { return q.cmd.Run == nil && !q.cmd.ByView(q.args) })
	}
	return (cmd.Run != nil || cmd.ByView(args)) && cmd.Flags&command.Blocking == 0 && !control[cmd.Name] &&
		(cmd.Flags&command.SkipMonitor == 0 || !c.server.monitors.any.Load())
}

// unfit returns the error for a command, or the transaction that it begins to
// carry out, that the state of the server does not allow; "" if it may go on.
func (c *Session) unfit(cmd *command.Command, args [][]byte) string {
	p := &c.server.settings
	full, alone := p.full.Load(), p.alone.Load()
	if !full && !alone {
		return ""
	}
	is := func(flag command.Flag) bool {
		has := func(q queued) bool {
			return q.cmd.Flags&flag != 0 && q.cmd.Flags&command.Unlisted == 0 && !q.cmd.ByView(q.args)
		}
		return has(queued{cmd, args}) || cmd.Name == "EXEC" && c.multi != nil && slices.ContainsFunc(c.multi.list, has)
	}
	switch {
	case full && is(command.DenyOOM):
		return command.ErrOOM
	case alone && is(command.Write):
		return command.ErrNoReplicas
	}
	return ""
}

// enqueue adds a data command to the batch.
func (c *Session) enqueue(cmd *command.Command, args [][]byte) {
	c.holdBack(cmd, args)
	n := len(c.batch)
	if n == len(c.spare) {
		c.spare = append(c.spare, &Request{Session: c})
	}
	q := c.spare[n]
	q.DB, q.Proto, q.Cmd, q.Args, q.Out = c.db, c.reply.Proto, cmd, args, nil
	q.Subs, q.parts, q.exec, q.Counted = nil, nil, false, false
	q.Tracks = c.tracksReads()
	c.watching = c.watching || cmd.Name == "WATCH"
	c.batch = c.spare[:n+1]
	for _, a := range args {
		c.bytes += int64(len(a))
	}
}

// mayWrite reports whether CLIENT PAUSE WRITE holds a command up: it writes, or
// it may reach others, or run a script that does.
func (c *Session) mayWrite(cmd *command.Command, args [][]byte) bool {
	switch cmd.Name {
	case "PUBLISH", "SPUBLISH", "PFCOUNT":
		return true
	case "EVAL", "EVALSHA", "FCALL":
		return !c.server.backend.Scripts().OnlyReads(cmd, args)
	case "EXEC":
		return c.multi != nil && slices.ContainsFunc(c.multi.list, func(q queued) bool { return c.mayWrite(q.cmd, q.args) })
	}
	return cmd.Flags&(command.Write|command.Admin) == command.Write && !cmd.ByView(args)
}

// holdBack waits while clients are paused, after answering what came before.
func (c *Session) holdBack(cmd *command.Command, args [][]byte) {
	p := &c.server.pause
	if !p.on.Load() || c.looped { // a loop hands its connections over when it sees a pause
		return
	}
	write := c.mayWrite(cmd, args)
	if held, _, _ := p.holds(write); held {
		c.execute()
		_ = c.out.flush()
		write = c.mayWrite(cmd, args) // what came before may have loaded its script
		p.wait(write, c.gone)
	}
}

// run lets fn write a reply, and sends it. A panic becomes an error.
func (c *Session) run(cmd *command.Command, r *row, fn func(), args [][]byte) {
	start := time.Now()
	func() {
		defer func() {
			if p := recover(); p != nil {
				c.reply.Buf = append(c.reply.Buf[:0], c.bug(cmd, p)...)
			}
		}()
		fn()
	}()
	took := time.Since(start)
	c.server.monitors.show(c, cmd, c.db, args)
	c.server.stats.commands.Add(1)
	r.stat.add(1, took)
	c.server.took(cmd, 1, took)
	c.server.noteSlow(c, cmd, args, took)
	if len(c.reply.Buf) > 0 && c.reply.Buf[0] == '-' {
		r.stat.failed.Add(1)
	}
	c.answer()
}

// bug logs a panic and returns the reply for it.
func (c *Session) bug(cmd *command.Command, p any) string {
	c.server.log.Error("a bug was met in a command", c.LogAttr(), "command", cmd.Name, "panic", p, "stack", string(debug.Stack()))
	return fmt.Sprintf("-ERR internal error in '%s', logged by the server; please report it\r\n", strings.ToLower(cmd.Name))
}

// execute carries the batch out and adds its replies to the output, with those made
// here in their places.
func (c *Session) execute() {
	if len(c.batch) == 0 {
		c.in.release()
		return
	}
	c.since = time.Now()
	if c.waits {
		c.broken = c.await()
		c.since = time.Now() // waiting is no work
	} else {
		c.callBackend()
	}
	c.executed()
}

// executed is what execute does when the batch has its replies.
func (c *Session) executed() {
	c.waits = false
	c.account(time.Since(c.since))
	var out, from, m int
	for i, q := range c.batch {
		for m < len(c.marks) && c.marks[m].at == i {
			c.out.add(c.local[from:c.marks[m].end])
			from = c.marks[m].end
			m++
		}
		c.out.add(q.Out)
		out += len(q.Out)
		q.Cmd, q.Args, q.Out, q.Subs, q.parts = nil, nil, nil, nil, nil
	}
	if from < len(c.local) {
		c.out.add(c.local[from:])
		c.local = nil // the output may have it
	}
	if cap(c.local) > maxBuffer {
		c.local = nil
	}
	c.local, c.marks = c.local[:0], c.marks[:0]
	// Replies have no size until they are there: go on carefully when they turn
	// out large.
	if out > maxBatchOut {
		c.limit = max(c.limit/4, 1)
	} else if len(c.batch) >= c.limit {
		c.limit = min(2*c.limit, maxBatch)
	}
	if len(c.spare) > firstBatch && len(c.batch) < firstBatch/4 {
		c.spare = append([]*Request(nil), c.spare[:firstBatch]...)
	}
	c.batch, c.bytes = nil, 0
	c.in.release()
}

// callBackend has the batch executed and sees to it that every request has a
// reply.
func (c *Session) callBackend() {
	defer func() { c.complete(recover()) }()
	for list := c.outstanding(); len(list) > 0; list = c.overtaken() {
		c.server.backend.Execute(list)
	}
}

// outstanding returns what of the batch is for the backend, once it has recalled what
// it can. Replies behind others that are still to come are early: it is only when those
// are there that they can be known to have come in their order.
func (c *Session) outstanding() []*Request {
	c.early = c.early[:0]
	recalled := 0
	if !slices.ContainsFunc(c.batch, func(q *Request) bool { return q.Tracks }) {
		recalled = c.server.backend.Recall(c.batch)
	}
	rest := c.batch[recalled:]
	if first := slices.IndexFunc(c.batch[:recalled], func(q *Request) bool { return len(q.Out) == 0 }); first >= 0 {
		c.missing = c.missing[:0]
		for _, q := range c.batch[first:] {
			if len(q.Out) == 0 {
				c.missing = append(c.missing, q)
			} else {
				c.early = append(c.early, q)
			}
		}
		rest = c.missing
	}
	here := func(q *Request) bool { return q.exec && len(q.Subs) == 0 }
	if !slices.ContainsFunc(rest, here) {
		return rest
	}
	return slices.DeleteFunc(slices.Clone(rest), here)
}

// overtaken returns what of the batch is to be carried out once more, now that what was
// outstanding is done: from the first early reply on that does not hold any longer.
func (c *Session) overtaken() []*Request {
	early := c.early
	c.early = c.early[:0]
	if len(early) == 0 {
		return nil
	}
	n := c.server.backend.Holding(early)
	if n == len(early) {
		return nil
	}
	again := c.batch[slices.Index(c.batch, early[n]):]
	for _, q := range again {
		q.Out = nil
	}
	return again
}

// complete gives every request of the batch a reply that has none from the
// backend; p is what that has panicked with.
func (c *Session) complete(p any) {
	for _, q := range c.batch {
		switch {
		case q.exec && p == nil:
			c.compose(q)
		case len(q.Out) > 0:
		case p != nil:
			q.Out = []byte(c.bug(q.Cmd, p))
		default:
			q.Out = []byte(c.bug(q.Cmd, "no reply"))
		}
	}
}

// account counts the batch's commands. Each is given an equal share of the
// time they took together.
func (c *Session) account(took time.Duration) {
	s := c.server
	n := len(c.batch)
	s.stats.commands.Add(int64(n))
	share := took / time.Duration(n)
	for i := 0; i < n; {
		cmd := c.batch[i].Cmd
		j := i
		var failed int64
		for ; j < n && c.batch[j].Cmd == cmd; j++ {
			q := c.batch[j]
			if q.Out[0] == '-' {
				failed++
				if !q.Counted {
					s.stats.countError(q.Out)
				}
			}
			s.noteSlow(c, cmd, q.Args, share)
			c.noteSlowParts(q, share)
		}
		st := &s.rows[cmd].stat
		st.add(int64(j-i), share*time.Duration(j-i))
		s.took(cmd, int64(j-i), share)
		if failed > 0 {
			st.failed.Add(failed)
		}
		i = j
	}
}

// fail answers with an error that no command ran for.
func (c *Session) fail(msg string) {
	c.reply.Error(msg)
	c.answer()
}

// answer sends c.reply in its place behind the batch being gathered.
func (c *Session) answer() {
	b := c.reply.Buf
	if len(b) > 0 && b[0] == '-' {
		c.server.stats.countError(b)
	}
	if len(c.batch) > 0 {
		c.local = append(c.local, b...)
		if n := len(c.marks); n > 0 && c.marks[n-1].at == len(c.batch) {
			c.marks[n-1].end = len(c.local)
		} else {
			c.marks = append(c.marks, localReply{len(c.batch), len(c.local)})
		}
	} else if c.pushing {
		c.out.always(b)
	} else {
		c.out.add(b)
	}
	c.pushing = false
	if len(b) >= directReply {
		c.reply.Buf = nil // the output may have it
	} else {
		c.reply.Buf = b[:0]
	}
}

// equalFold reports whether b is name, which is lower case, in any case.
func equalFold(b []byte, name string) bool {
	return len(b) == len(name) && strings.EqualFold(string(b), name)
}
