package node

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// Limits of what the admin commands print.
const (
	descCells      = 1000
	descValue      = 256
	replLogDefault = 100
	replLogMax     = 10_000
)

// Admin answers the commands about the node and its members.
func (n *Node) Admin(s *resp.Session, cmd *command.Command, args [][]byte) []byte {
	out := &command.Reply{Proto: s.Proto()}
	if !n.made.Load() {
		out.Error("LOADING replicatord is starting")
		return out.Buf
	}
	var err error
	switch cmd.Name {
	case "DEBUG":
		err = n.debug(s, out, args)
	case "WAIT", "WAITAOF":
		err = n.waitFor(s, out, args, cmd.Name == "WAITAOF")
	case "MEMORY|STATS", "MEMORY|PURGE":
		var raw []byte
		raw, err = n.pump.Ask(0, args...)
		out.Raw(raw)
	default:
		err = n.admin(out, s.DB(), cmd.Name, args)
	}
	if err != nil {
		out.Buf = nil
		out.Error("ERR " + strings.NewReplacer("\r", " ", "\n", " ").Replace(err.Error()))
	}
	return out.Buf
}

func (n *Node) admin(out *command.Reply, db uint8, name string, args [][]byte) error {
	switch name {
	case "GOSSIP":
		out.BulkString(n.gossip.Self().Gossip)
	case "MEET":
		if err := n.members.Meet(n.ctx, string(args[1]), true); err != nil {
			return err
		}
		out.Int(1)
	case "FORGET":
		id, err := parseID(args[1])
		if err == nil && id == n.log.Identity().Node {
			err = fmt.Errorf("%d is this node: to take it out, stop it and say FORGET %d to the others", id, id)
		}
		if err == nil {
			err = n.members.Forget(id)
		}
		if err != nil {
			return err
		}
		out.OK()
	case "REPLICAS":
		n.replicas(out)
	case "NODE":
		return n.nodeCommand(out, args)
	case "DESC":
		out.Raw(n.Describe(crdt.Key{DB: db, Name: string(args[1])}))
	case "CONFLICTS":
		return n.conflicts(out, args)
	case "VERIFY":
		return n.verifyCommand(out, args)
	case "REPAIR":
		return n.repairCommand(out, args)
	case "REPLLOG":
		return n.replLog(out, args[1:])
	default:
		return fmt.Errorf("unknown command '%s'", name)
	}
	return nil
}

// fields is a reply of names and values, in order.
type fields struct{ list []string }

func (f *fields) add(name string, value any) { f.list = append(f.list, name, fmt.Sprint(value)) }

// line is names and values on one line of INFO; empty values, and what is to be
// skipped, are left out.
func (f *fields) line(skip ...string) string {
	var parts []string
	for i := 0; i+1 < len(f.list); i += 2 {
		if f.list[i+1] != "" && !slices.Contains(skip, f.list[i]) {
			parts = append(parts, f.list[i]+"="+strings.NewReplacer(",", ";", "\r", " ", "\n", " ").Replace(f.list[i+1]))
		}
	}
	return strings.Join(parts, ",")
}

func (f *fields) reply(out *command.Reply) {
	out.Map(len(f.list) / 2)
	for _, s := range f.list {
		out.BulkString(s)
	}
}

// nodeCommand answers NODE [PAUSE|RESUME|VECTOR].
func (n *Node) nodeCommand(out *command.Reply, args [][]byte) error {
	sub := ""
	if len(args) > 1 {
		sub = strings.ToUpper(string(args[1]))
	}
	if len(args) > 2 {
		return fmt.Errorf("wrong number of arguments for 'node|%s' command", strings.ToLower(sub))
	}
	id := n.log.Identity()
	var f fields
	switch sub {
	case "":
		f.add("id", id.Node)
		f.add("alias", n.cfg.Alias)
		f.add("region", n.cfg.Region)
		f.add("cluster", n.cfg.Cluster)
		f.add("incarnation", fmt.Sprintf("%x", id.Incarnation))
		f.add("directory", fmt.Sprintf("%016x", id.Dir))
		f.add("version", n.version)
		f.add("resp", n.gossip.Self().RESP)
		f.add("gossip", n.gossip.Self().Gossip)
		f.add("wan", n.gossip.Self().WAN)
		f.add("view", n.source.what)
		f.add("members", len(n.members.List())+1)
		f.add("paused", yesNo(n.paused.Load()))
		f.reply(out)
	case "PAUSE", "RESUME":
		n.pause(sub == "PAUSE")
		out.OK()
	case "VECTOR":
		v, digest, at, err := n.Level()
		if err != nil {
			return err
		}
		f.add("vector", v)
		f.add("digest", fmt.Sprintf("%016x", digest))
		f.add("durable", n.log.Durable())
		f.add("at", at)
		f.reply(out)
	case "HELP":
		lines := []string{"NODE [<subcommand>]. Subcommands are:",
			"(none)", "    Who this node is.",
			"PAUSE", "    Stop exchanging deltas with other nodes; clients are served as before.",
			"RESUME", "    Exchange deltas again.",
			"VECTOR", "    How far each stream is applied, and the digest of the state."}
		out.Array(len(lines))
		for _, l := range lines {
			out.Status(l)
		}
	default:
		return fmt.Errorf("unknown subcommand '%s'. Try NODE HELP", clip(string(args[1])))
	}
	return nil
}

// Level returns the applied vector and the digest of all that has not expired
// at the returned Unix millisecond. Nodes with equal vectors and no keys
// expiring in between have equal digests.
func (n *Node) Level() (v crdt.Vector, digest uint64, at int64, err error) {
	var failed error
	err = n.exec.Run(func(c *Core) {
		for c.SweepDue(c.Now()) && failed == nil {
			c.begin()
			failed = c.Commit()
		}
		_, digest, v = n.log.Digests()
		at = c.Now()
	})
	if err == nil {
		err = failed
	}
	return v, digest, at, err
}

// replicas answers REPLICAS: this node and the members, a map of fields each.
func (n *Node) replicas(out *command.Reply) {
	links := n.links.Stats()
	list := n.members.List()
	out.Array(len(list) + 1)
	self := n.gossip.Self()
	var f fields
	f.add("id", self.ID)
	f.add("alias", self.Alias)
	f.add("region", self.Region)
	f.add("address", self.RESP)
	f.add("state", "self")
	f.add("vector", n.log.Vector())
	f.reply(out)
	for _, m := range list {
		var f fields
		f.add("id", m.ID)
		f.add("alias", m.Alias)
		f.add("region", m.Region)
		f.add("address", m.RESP)
		f.add("gossip", m.State)
		f.add("gossip_since_ms", max(time.Since(m.Since).Milliseconds(), 0))
		links.describe(&f, m.ID)
		links.lanes(&f, m.ID)
		if m.LastError != "" {
			f.add("gossip_error", m.LastError)
		}
		f.reply(out)
	}
}

// Describe answers DESC: everything that is known of a key.
func (n *Node) Describe(k crdt.Key) []byte {
	out := &command.Reply{Proto: 2}
	err := n.exec.Run(func(c *Core) {
		if e := c.Commit(); e != nil {
			out.Error("ERR " + e.Error())
			return
		}
		c.begin()
		defer func() { _ = c.Commit() }() // nothing was written
		h := c.group.Header(k)
		if h == nil {
			out.NullArray()
			return
		}
		var head fields
		head.add("key", k.Name)
		head.add("db", k.DB)
		head.add("slot", crdt.Slot(k.Name))
		head.add("type", h.Type)
		head.add("exists", yesNo(!h.Swept && h.Exists(c.Now())))
		switch h.Expiry {
		case 0:
			head.add("expires", "no")
		case crdt.Never:
			head.add("expires", "no (persisted)")
		default:
			head.add("expires", time.UnixMilli(h.Expiry).UTC().Format(time.RFC3339Nano))
		}
		head.add("digest", fmt.Sprintf("%016x", h.Digest))
		for _, p := range h.Pending {
			head.add("pending", p.Ctx)
		}
		var cells []fields
		c.group.EachCell(k, crdt.KindAny, func(id crdt.CellID, cell *crdt.Cell) bool {
			cells = append(cells, n.describeCell(id, cell))
			return len(cells) < descCells
		})
		out.Array(1 + len(cells))
		head.reply(out)
		for _, f := range cells {
			f.reply(out)
		}
	})
	if err != nil {
		out.Buf = nil
		out.Error("ERR " + err.Error())
	}
	return out.Buf
}

func (n *Node) describeCell(id crdt.CellID, c *crdt.Cell) fields {
	var f fields
	f.add("cell", id.Kind.Name())
	if id.Elem != "" || id.Kind != crdt.KindString && id.Kind != crdt.KindExpiry {
		f.add("element", n.describeElem(id))
	}
	f.add("live", yesNo(c.Live()))
	if c.Hidden {
		f.add("expired", "yes")
	}
	if t := c.Visible(id.Kind); t != nil && id.Kind != crdt.KindExpiry && id.Kind != crdt.KindMember {
		f.add("visible", clipValue(t))
	}
	for i, v := range c.Values {
		name := "value"
		if i > 0 {
			name = "sibling"
		}
		value := clipValue(v.Value)
		if id.Kind == crdt.KindExpiry {
			value = describeExpiry(c, i)
		}
		f.add(name, fmt.Sprintf("%s by %s", value, n.who(v.Dot)))
	}
	for _, k := range c.Counts {
		text := fmt.Sprintf("%v by %s", k.Amount(), n.who(crdt.Dot{Tag: k.Tag, Stream: k.Stream}))
		if k.ResetTag != 0 {
			text += fmt.Sprintf(" (%v of %v reset by %s)", k.ResetSum, k.Sum, n.who(k.ResetBy))
		}
		f.add("count", text)
	}
	if len(c.Pending) > 0 {
		f.add("pending", c.Pending)
	}
	return f
}

// describeElem shows the element of a cell: a position in a list by its levels.
func (n *Node) describeElem(id crdt.CellID) string {
	if p, err := crdt.ParseItemPos(id.Elem); id.Kind == crdt.KindItem && err == nil {
		var b strings.Builder
		for _, l := range p {
			fmt.Fprintf(&b, "[%d %v/%d]", l.Rank, l.Tag, l.Index)
		}
		return b.String()
	}
	if field, ok := id.Field(); ok {
		return clipValue([]byte(field))
	}
	return clipValue([]byte(id.Elem))
}

func describeExpiry(c *crdt.Cell, i int) string {
	one := crdt.Cell{Values: c.Values[i : i+1]}
	if at := one.Expiry(); at != crdt.Never {
		return time.UnixMilli(at).UTC().Format(time.RFC3339Nano)
	}
	return "never"
}

// who names the writer of a dot and the time.
func (n *Node) who(d crdt.Dot) string {
	name := "node " + strconv.Itoa(int(d.Stream.Node()))
	if d.Stream.Node() == n.log.Identity().Node {
		name = n.cfg.Alias
	}
	for _, m := range n.members.List() {
		if m.ID == d.Stream.Node() && m.Alias != "" {
			name = m.Alias
		}
	}
	return fmt.Sprintf("%s at %s (%v)", name, d.Tag.Time().Format("2006-01-02T15:04:05.000Z"), d)
}

// replLog answers REPLLOG [NODE id] [AFTER tag] [COUNT n]: entries of the
// log, decoded, a line each.
func (n *Node) replLog(out *command.Reply, args [][]byte) error {
	count := replLogDefault
	after := crdt.Tag(0)
	var only *crdt.Stream
	for len(args) > 0 {
		if len(args) == 1 {
			return fmt.Errorf("syntax error")
		}
		name, value := strings.ToUpper(string(args[0])), string(args[1])
		args = args[2:]
		switch name {
		case "COUNT":
			c, err := strconv.Atoi(value)
			if err != nil || c < 1 || c > replLogMax {
				return fmt.Errorf("COUNT must be 1 to %d", replLogMax)
			}
			count = c
		case "AFTER":
			t, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return fmt.Errorf("AFTER takes a tag in hexadecimal, as REPLLOG prints it")
			}
			after = crdt.Tag(t)
		case "NODE":
			id, err := parseID([]byte(value))
			if err != nil {
				return err
			}
			s := crdt.NewStream(id, 0, 0)
			only = &s
		default:
			return fmt.Errorf("syntax error")
		}
	}
	var lines []string
	for _, p := range n.log.Durable() {
		if only != nil && p.Stream.Node() != only.Node() {
			continue
		}
		from := max(after, n.log.Floor(p.Stream))
		for len(lines) < count {
			entries, _, err := n.log.Read(p.Stream, from, 1<<20)
			if err != nil {
				return err
			}
			if len(entries) == 0 {
				break
			}
			for i := range entries {
				e := &entries[i]
				from = e.Tag
				if len(lines) < count {
					lines = append(lines, describeEntry(e))
				}
			}
		}
	}
	out.Array(len(lines))
	for _, l := range lines {
		out.BulkString(l)
	}
	return nil
}

// describeEntry prints an entry on one line.
func describeEntry(e *crdt.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %016x after %016x at %s context %v:", e.Stream, uint64(e.Tag), uint64(e.Prev), e.Tag.Time().Format("2006-01-02T15:04:05.000Z"), e.Ctx)
	for i := range e.Deltas {
		d := &e.Deltas[i]
		if i == 20 {
			fmt.Fprintf(&b, " … %d more deltas", len(e.Deltas)-i)
			break
		}
		b.WriteString(" [")
		switch d.Level {
		case crdt.LevelDB:
			fmt.Fprintf(&b, "db %d", d.ID.Key.DB)
		case crdt.LevelKey:
			fmt.Fprintf(&b, "key %d %s", d.ID.Key.DB, clipValue([]byte(d.ID.Key.Name)))
		case crdt.LevelKind:
			fmt.Fprintf(&b, "all %ss of %d %s", d.ID.Kind.Name(), d.ID.Key.DB, clipValue([]byte(d.ID.Key.Name)))
		default:
			fmt.Fprintf(&b, "%s %d %s", d.ID.Kind.Name(), d.ID.Key.DB, clipValue([]byte(d.ID.Key.Name)))
			if d.ID.Elem != "" {
				fmt.Fprintf(&b, " %s", clipValue([]byte(d.ID.Elem)))
			}
		}
		if d.Remove != nil {
			b.WriteString(" remove")
		}
		if d.Put != nil {
			fmt.Fprintf(&b, " put %s", clipValue(d.Put.Value))
		}
		if d.Add != nil {
			fmt.Fprintf(&b, " count %v", d.Add.Sum)
		}
		b.WriteByte(']')
	}
	return b.String()
}

func clipValue(b []byte) string {
	if len(b) > descValue {
		return fmt.Sprintf("%q… (%d bytes)", b[:descValue], len(b))
	}
	return strconv.Quote(string(b))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// pause stops or resumes the exchange of deltas.
func (n *Node) pause(on bool) {
	if n.paused.Swap(on) != on {
		n.slog.Info("exchange of deltas", "paused", on)
	}
	n.links.Pause(on)
}
