package command

import (
	"slices"
	"strings"

	"github.com/replicatord/replicatord/crdt"
)

// Flag describes a command, as Redis's COMMAND does and as the node needs it.
type Flag uint32

// Flags.
const (
	Write           Flag = 1 << iota // changes keys; has a Run
	ReadOnly                         // reads keys; the view answers it, or its Run from the cells
	Session                          // concerns the connection or server; the front end answers it
	Admin                            // concerns the node or its members
	Fast                             // O(1) or O(log n)
	DenyOOM                          // Redis refuses it when out of memory
	NoAuth                           // allowed before AUTH
	Loading                          // allowed while the node is loading
	Stale                            // Redis: allowed on stale replicas
	NoScript                         // not allowed in scripts
	Random                           // its reply is random
	PubSub                           // Redis's pubsub flag
	Blocking                         // may block
	MovableKeys                      // keys depend on the arguments
	Operator                         // Redis's admin flag
	AllowBusy                        // Redis: allowed while a script runs too long
	SkipSlowlog                      // Redis: not in the slow log
	NoAsyncLoading                   // Redis: not allowed while it loads in the background
	NoMulti                          // not allowed in transactions
	Asking                           // Redis: may be sent for a slot that is on its way
	Unlisted                         // with ReadOnly or Write: Redis does not call it so
	SkipMonitor                      // Redis: not shown by MONITOR
	NoMandatoryKeys                  // Redis: may be given no keys
	CalledRead                       // with Session: Redis calls it read-only, but the front end answers it
)

// Context is one command on its way through the executor.
type Context struct {
	Tx
	DB uint8 // the connection's database
	// Args are with the command's name first. The list is kept by nobody after Run;
	// what is in it may be, for nobody changes that.
	Args [][]byte
	Out  Reply
	// NoWait is set in transactions and scripts: a command that would wait
	// answers at once as if its time had passed.
	NoWait bool
	// InScript is set where a script gives the command.
	InScript bool
	// Waits is set by Run when there is nothing to answer yet: the command has
	// written nothing (but see Wait.Steps), replied nothing, and is to be run again.
	Waits *Wait
	// Resumed is the State of the Wait after which the command runs again, nil
	// the first time. Then a key of another type is no error: it waits on.
	Resumed any
	// Observer, if set, is told of each command that Call carries out.
	Observer Observer
	// Events are told to those who asked for keyspace notifications, beside
	// what follows from the keys that have changed (Command.Events).
	Events []Event
	quiet  []crdt.Key
	// Ready is then the key for whose change it is run.
	Ready crdt.Key
	// Scripts are the node's.
	Scripts *Scripts
	// Stocks are what was drawn in advance; nil: nothing is.
	Stocks *Stocks
	// Client is the one whose command it is, if it is one's.
	Client Client
	// Watches are those of the client's connection.
	Watches Watches
	// Counted says that the reply is an error that Client.Called was told of.
	Counted bool
}

// Client is what a script may ask of the connection that runs it.
type Client interface {
	// Front carries out a Session command and returns its raw reply.
	Front(cmd *Command, args [][]byte, proto int) []byte
	// PermitScript returns why the client's user may not give a command, in
	// the words for scripts; "" if it may. It logs what it denies.
	PermitScript(cmd *Command, args [][]byte) string
	// Permitted reports whether the user may give a command.
	Permitted(cmd *Command, args [][]byte) bool
	// Called counts a command that the script gave: its reply, and whether it
	// was carried out. cmd is nil for what is no command.
	Called(cmd *Command, reply []byte, ran bool)
	// MayDebug reports whether a DEBUG may be given in a script: not without DEBUG
	// SET-DISABLE-DENY-SCRIPTS.
	MayDebug(args [][]byte) bool
	// Full reports whether the memory for data is used up.
	Full() bool
	// Alone reports whether there are not enough members to take a write
	// (min-replicas-to-write).
	Alone() bool
}

// Watches are the keys that a connection watches, until its next EXEC.
type Watches interface {
	Watch(crdt.Key)
	Unwatch()
}

// Observer is told of the commands within another, before and after.
type Observer interface {
	Before(*Command, *Context)
	After(*Command, *Context)
}

// Quiet says that the command has changed nothing of a key that Redis would
// tell of: what it wrote only confirms what was there.
func (c *Context) Quiet(k crdt.Key) { c.quiet = append(c.quiet, k) }

// Quiets reports whether Quiet was said of the key.
func (c *Context) Quiets(k crdt.Key) bool { return slices.Contains(c.quiet, k) }

// Wait is what a blocking command waits for. Those that wait for one key are
// run again in the order in which they began.
type Wait struct {
	Keys     []crdt.Key   // run again once one of them has changed
	Steps    bool         // run again when others had their turn: the command, which does write meanwhile, goes in steps
	Deadline int64        // Unix milliseconds; 0: none
	Timeout  func(*Reply) // answers when the deadline has passed
	State    any          // handed to the next run in Resumed; not nil
}

// Key returns argument i as a key of the connection's database.
func (c *Context) Key(i int) crdt.Key { return crdt.Key{DB: c.DB, Name: string(c.Args[i])} }

// Command is a row of the command table.
type Command struct {
	Name    string // upper case; subcommands as "CLIENT|SETNAME"
	Arity   int    // as in Redis: with the name; negative: at least
	Flags   Flag
	First   int // first key's argument, 0 for none
	Last    int // last key's argument, negative: from the end
	Step    int
	Group   string // Redis's group: string, hash, set, generic, bitmap, …
	Since   string // Redis version
	Summary string // one line
	Usage   string // the arguments of what Redis does not have: name, [optional] or [TOKEN name] each
	// Keys finds the keys of a command whose positions depend on its
	// arguments, where no key specification does (keyspec.go); nil otherwise.
	Keys func(args [][]byte) []int
	// Refused says why the node does not carry the command out; "" if it does.
	Refused string
	// Reads, if set, reports of a command that may write whether it only reads
	// with these arguments: the view answers it then, refused or not.
	Reads func(args [][]byte) bool
	// Run carries a Write command out, or answers a ReadOnly one from the cells.
	// Commands without it are answered by the view (ReadOnly), the front end
	// (Session) or the node (Admin).
	Run func(*Context)
	// Local, if set, answers what the view would, from the cells, for scripts:
	// see local.go.
	Local func(*Context)
	Sub   []*Command // subcommands

	// Filled in when the table is built.
	specs []KeySpec
	pure  bool
	near  bool
	cell  crdt.Kind
	sub   map[string]*Command // by upper-case name, without the container's
}

// ByView reports whether the view answers a request for the command.
func (c *Command) ByView(args [][]byte) bool {
	return c.Flags&ReadOnly != 0 && c.Run == nil || c.Reads != nil && c.Reads(args)
}

// KeyRange tells which arguments of a request with so many are keys, if they are the same for
// all requests: from first to last, each step-th; first is greater than last if there are none.
func (c *Command) KeyRange(args int) (first, last, step int) {
	if c.First == 0 {
		return 1, 0, 1
	}
	last = c.Last
	if last < 0 {
		last += args
	}
	return c.First, min(last, args-1), max(c.Step, 1)
}

// Pure reports whether the reply to a request depends on nothing but the value
// of its one key, argument First: not on time, chance, other keys or how the
// view stores it.
func (c *Command) Pure(args [][]byte) bool { return c.pure && (len(args) == 2 || c.Last == 1) }

// Near returns the only cell that Local looks at, beside its key's header: of kind
// KindAny if at none. ok is false of what looks at more, and of what is not Pure.
// Of a key that has registers, or expiries of fields, Local looks at these too.
func (c *Command) Near(db uint8, args [][]byte) (id crdt.CellID, ok bool) {
	if !c.near || !c.Pure(args) {
		return id, false
	}
	id = crdt.CellID{Key: crdt.Key{DB: db, Name: string(args[c.First])}, Kind: c.cell}
	if len(args) > 2 {
		id.Elem = string(args[2])
	}
	return id, true
}

// Call carries out another data command within this one, a script or
// transaction, as part of the same entry, and returns its raw reply. Reads see
// what was written before them.
func (c *Context) Call(args [][]byte) []byte {
	cmd, refusal := Find(args)
	sub := Context{Tx: c.Tx, DB: c.DB, Args: args, Out: Reply{Proto: c.Out.Proto}, NoWait: true, InScript: c.InScript, Observer: c.Observer, Scripts: c.Scripts, Client: c.Client}
	if c.Observer != nil && refusal == "" {
		c.Observer.Before(cmd, &sub)
		defer c.Observer.After(cmd, &sub)
	}
	switch {
	case refusal != "":
		sub.Out.Error(refusal)
	case cmd.ByView(args) && cmd.Local != nil:
		cmd.Local(&sub)
	case cmd.ByView(args):
		raw, err := c.view(args)
		if err != nil {
			sub.Out.Error(err.Error())
		}
		sub.Out.Raw(raw)
	case cmd.Run != nil:
		cmd.Run(&sub)
	default:
		sub.Out.Error("ERR '" + strings.ToLower(cmd.Name) + "' is no command about data")
	}
	return sub.Out.Buf
}

// view asks the view, for a reply in the protocol of the context.
func (c *Context) view(args [][]byte) ([]byte, error) {
	if v, ok := c.Tx.(interface {
		View3(db uint8, args ...[]byte) ([]byte, error)
	}); ok && c.Out.Proto == 3 {
		return v.View3(c.DB, args...)
	}
	return c.View(c.DB, args...)
}
