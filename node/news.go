package node

import (
	"maps"
	"slices"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// Listener is whoever tells clients what has changed: keyspace notifications
// and client-side caches. *resp.Server is one. Its methods must not wait.
type Listener interface {
	// Notifies reports whether anybody wants events, and those of reads that
	// find no key.
	Notifies() (some, misses bool)
	Notify(events []command.Event)
	// Tracks reports whether anybody wants to know of changed keys.
	Tracks() bool
	// Changed tells of the keys that one unit has changed: of a client, or of
	// nobody's.
	Changed(by *resp.Session, keys []string)
	Flushed(by *resp.Session)
}

// nobody is a listener that wants nothing.
type nobody struct{}

func (nobody) Notifies() (some, misses bool)   { return false, false }
func (nobody) Notify([]command.Event)          {}
func (nobody) Tracks() bool                    { return false }
func (nobody) Changed(*resp.Session, []string) {}
func (nobody) Flushed(*resp.Session)           {}

// news gathers what the open group has to tell, until it is committed.
type news struct {
	core *Core
	to   Listener

	watching bool // what a command changes
	before   map[crdt.Key]command.Change
	order    []crdt.Key // of before

	by       *resp.Request // the client's command that runs
	from     int           // how many keys its unit had changed before it
	inScript bool          // and whether a script does
	flushed  bool          // by the running unit
	events   []command.Event
	units    []unitNews          // in their order
	reread   map[string]struct{} // keys that the running unit has read since it last wrote them
	known    bool                // that the running script reads, since it last wrote
}

// unitNews is what a unit has changed; or, if read, what a client has read that
// wants to be told when it changes.
type unitNews struct {
	by    *resp.Session
	keys  []string
	flush bool
	read  bool
}

func newNews(c *Core, to Listener) news {
	if to == nil {
		to = nobody{}
	}
	return news{core: c, to: to, reread: map[string]struct{}{}}
}

// reads notes that a client's command reads its keys, if that is to be tracked.
// Of a script that is done once it calls a command that reads.
func (n *news) reads(req *resp.Request) {
	const not = command.PubSub | command.Unlisted
	if cmd := req.Cmd; req.Tracks && cmd.Flags&command.ReadOnly != 0 && cmd.Flags&not == 0 && cmd.Group != "scripting" {
		n.track(req)
	}
}

// track notes that a client has read the keys of a request. The changes that
// the unit has made before, which are told at its end, are no news of them.
func (n *news) track(req *resp.Request) {
	wrote := len(n.core.touched) > 0 || n.flushed
	var keys []string
	for _, r := range req.Cmd.FindKeys(req.Args) {
		key := string(req.Args[r.Arg])
		if wrote {
			n.reread[key] = struct{}{}
		} else {
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		n.units = append(n.units, unitNews{by: req.Session, keys: keys, read: true})
	}
}

// writes notes that the running unit changes a key, perhaps after it has read it.
func (n *news) writes(k crdt.Key) {
	n.known = false
	if _, read := n.reread[k.Name]; read {
		delete(n.reread, k.Name)
		n.units = append(n.units, unitNews{by: n.by.Session, keys: []string{k.Name}, read: true})
	}
}

// watch begins to note what changes, if anybody wants to know.
func (n *news) watch() {
	if some, _ := n.to.Notifies(); some {
		n.watching = true
	}
}

// noteTouch notes what a key is before its first change.
func (n *news) noteTouch(k crdt.Key) {
	if _, had := n.before[k]; had {
		return
	}
	ch := command.Change{Key: k}
	ch.Was, ch.Before = n.look(k)
	if n.before == nil {
		n.before = map[crdt.Key]command.Change{}
	}
	n.before[k] = ch
	n.order = append(n.order, k)
}

// look returns the visible type and expiry of a key.
func (n *news) look(k crdt.Key) (crdt.Type, int64) {
	h := n.core.group.Header(k)
	if h == nil || h.Swept || !h.Exists(n.core.Now()) {
		return crdt.TypeNone, 0
	}
	if h.Expiry == crdt.Never {
		return h.Type, 0
	}
	return h.Type, h.Expiry
}

// changes ends a watch and returns what has changed.
func (n *news) changes() []command.Change {
	n.watching = false
	if len(n.order) == 0 {
		return nil
	}
	out := make([]command.Change, 0, len(n.order))
	for _, k := range n.order {
		ch := n.before[k]
		ch.Is, ch.Expiry = n.look(k)
		out = append(out, ch)
	}
	clear(n.before)
	n.order = n.order[:0]
	return out
}

// Before implements command.Observer.
func (n *news) Before(cmd *command.Command, ctx *command.Context) {
	if !n.inScript {
		return // the command that runs is told of, not what it is made of
	}
	if n.by != nil && n.by.Session != nil && cmd.Flags&(command.Operator|command.SkipMonitor) == 0 {
		n.by.Monitor(ctx.DB, ctx.Args)
	}
	n.watchFor(cmd, ctx)
}

// After implements command.Observer.
func (n *news) After(cmd *command.Command, ctx *command.Context) {
	if !n.inScript {
		return
	}
	n.gather(cmd, ctx)
	if n.by != nil && n.by.Tracks && !n.known && cmd.Flags&command.ReadOnly != 0 && cmd.Flags&command.Unlisted == 0 {
		n.known = true // all it was given, as Redis takes it
		n.track(n.by)
	}
}

// begin is called before a client's command runs on the cells.
func (n *news) begin(cmd *command.Command, ctx *command.Context) {
	n.inScript, n.known = cmd.Group == "scripting", false
	n.watchFor(cmd, ctx)
}

// end is called when it has run.
func (n *news) end(cmd *command.Command, ctx *command.Context) {
	n.gather(cmd, ctx)
	n.inScript = false
}

// watchFor begins to note what a command changes, and what it does not find.
func (n *news) watchFor(cmd *command.Command, ctx *command.Context) {
	n.from = len(n.core.touched)
	if cmd.Flags&command.ReadOnly != 0 {
		n.missed(cmd, ctx.DB, ctx.Args)
		return
	}
	if writesThatRead[cmd.Name] {
		n.missed(cmd, ctx.DB, ctx.Args)
	}
	n.watch()
}

// gather adds what a command has changed to what there is to tell.
func (n *news) gather(cmd *command.Command, ctx *command.Context) {
	if t := &n.core.touched; n.from < len(*t) {
		// Who watches a key, or has it in a cache, is not told of what Redis
		// would not call a change.
		*t = append((*t)[:n.from], slices.DeleteFunc((*t)[n.from:], ctx.Quiets)...)
	}
	if (cmd.Name == "FLUSHALL" || cmd.Name == "FLUSHDB") && ctx.Waits == nil {
		n.flushed = true
		clear(n.reread)
	}
	defer func() { n.events = append(n.events, ctx.Events...) }()
	changed := n.changes()
	if len(changed) == 0 || ctx.Waits != nil {
		return
	}
	for _, e := range cmd.Events(ctx.DB, ctx.Args, changed) {
		if !ctx.Quiets(e.Key) {
			n.events = append(n.events, e)
		}
	}
}

// writesThatRead are the writes that tell of keys they find missing.
var writesThatRead = map[string]bool{
	"GETSET": true, "GETDEL": true, "GETEX": true, "SINTERSTORE": true, "SUNIONSTORE": true, "SDIFFSTORE": true,
	"ZINTERSTORE": true, "ZUNIONSTORE": true, "ZDIFFSTORE": true, "PFMERGE": true, "SORT": true,
}

// missed notes the keys that a command reads and that are not there.
func (n *news) missed(cmd *command.Command, db uint8, args [][]byte) {
	if _, misses := n.to.Notifies(); !misses {
		return
	}
	for i, r := range cmd.FindKeys(args) {
		if i == 0 && strings.HasSuffix(cmd.Name, "STORE") || i > 0 && cmd.Name == "SORT" {
			continue // where the result goes
		}
		k := crdt.Key{DB: db, Name: string(args[r.Arg])}
		if t, _ := n.look(k); t == crdt.TypeNone {
			n.events = append(n.events, command.Event{Class: command.ClassMiss, Name: "keymiss", Key: k})
		}
	}
}

// expired notes a key whose time has come.
func (n *news) expired(k crdt.Key) {
	if some, _ := n.to.Notifies(); some {
		n.events = append(n.events, command.Event{Class: command.ClassExpired, Name: "expired", Key: k})
	}
}

// fieldExpired notes that a field of a hash, or several in a row, have expired.
func (n *news) fieldExpired(k crdt.Key) {
	if some, _ := n.to.Notifies(); !some {
		return
	}
	e := command.Event{Class: command.ClassHash, Name: "hexpired", Key: k}
	if l := len(n.events); l == 0 || n.events[l-1] != e {
		n.events = append(n.events, e)
	}
	if !n.core.exists(k) {
		n.events = append(n.events, command.Event{Class: command.ClassGeneric, Name: "del", Key: k})
	}
}

// arrived notes what peers' entries have changed since watch.
func (n *news) arrived() {
	n.events = append(n.events, command.RemoteEvents(n.changes(), n.elements)...)
}

// elements returns what the open group has done to the elements of a key.
func (n *news) elements(k crdt.Key, t crdt.Type) (e command.Elements) {
	touch := n.core.ks.Touched[k]
	switch {
	case touch == nil:
		return e
	case touch.Whole:
		e.Added = true
		return e
	}
	for _, cell := range touch.Cells() {
		id := cell.ID
		if field, ok := id.Field(); ok {
			field := crdt.CellID{Key: k, Kind: crdt.KindField, Elem: field}
			_, also := touch.Was(field)
			if c := n.core.group.Cell(field); t == crdt.TypeHash && !also && c != nil && c.Live() {
				at := crdt.Never
				if c := n.core.group.Cell(id); c != nil && c.Live() {
					at = c.Expiry()
				}
				e.Expires = e.Expires || at != crdt.Never
				e.Persists = e.Persists || at == crdt.Never
			}
			continue
		}
		switch kind := id.Kind; {
		case kind.Type() != t || t == crdt.TypeStream && kind != crdt.KindEntry:
			continue
		}
		if c := n.core.group.Cell(id); c == nil || !c.Live() {
			e.Removed = true
			continue
		}
		e.Added = true
		if t == crdt.TypeList && !e.First {
			n.core.group.EachCellFrom(k, id.Kind, "", false, func(first crdt.CellID, c *crdt.Cell) bool {
				e.First = first.Elem == id.Elem
				return !c.Live()
			})
		}
	}
	return e
}

// unit notes which keys a unit has changed.
func (n *news) unit(by *resp.Request, keys []crdt.Key) {
	defer clear(n.reread)
	if !n.to.Tracks() {
		n.flushed = false
		return
	}
	u := unitNews{flush: n.flushed}
	if by != nil {
		u.by = by.Session
	}
	if !u.flush {
		for _, k := range keys {
			u.keys = append(u.keys, k.Name)
		}
	}
	n.flushed = false
	n.units = append(n.units, u)
	if len(n.reread) > 0 {
		n.units = append(n.units, unitNews{by: u.by, keys: slices.Collect(maps.Keys(n.reread)), read: true})
	}
}

// tell tells everything that the group, which is committed, has gathered.
func (n *news) tell() {
	if len(n.events) > 0 {
		n.to.Notify(n.events)
		n.events = nil
	}
	for _, u := range n.units {
		switch {
		case u.read:
			u.by.Track(u.keys)
		case u.flush:
			n.to.Flushed(u.by)
		default:
			n.to.Changed(u.by, u.keys)
		}
	}
	n.units = nil
}

// drop forgets what a group has gathered that was not committed.
func (n *news) drop() {
	clear(n.before)
	n.watching, n.order = false, n.order[:0]
	n.events, n.units, n.flushed = nil, nil, false
	clear(n.reread)
}
