package command

import "github.com/replicatord/replicatord/crdt"

// Flag describes a command, as Redis's COMMAND does and as the node needs it.
type Flag uint32

// Flags.
const (
	Write          Flag = 1 << iota // changes keys; has a Run
	ReadOnly                        // reads keys; the view answers it
	Session                         // concerns the connection or server; the front end answers it
	Admin                           // concerns the node or its members
	Fast                            // O(1) or O(log n)
	DenyOOM                         // Redis refuses it when out of memory
	NoAuth                          // allowed before AUTH
	Loading                         // allowed while the node is loading
	Stale                           // Redis: allowed on stale replicas
	NoScript                        // not allowed in scripts
	Random                          // its reply is random
	PubSub                          // Redis's pubsub flag
	Blocking                        // may block
	MovableKeys                     // keys depend on the arguments
	Operator                        // Redis's admin flag
	AllowBusy                       // Redis: allowed while a script runs too long
	SkipSlowlog                     // Redis: not in the slow log
	NoAsyncLoading                  // Redis: not allowed while it loads in the background
	NoMulti                         // not allowed in transactions
	Unlisted                        // with ReadOnly: Redis does not call it so, but the view answers it
)

// Context is one command on its way through the executor.
type Context struct {
	Tx
	DB   uint8    // the connection's database
	Args [][]byte // with the command's name first; kept by nobody after Run
	Out  Reply
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
	// Keys finds the keys of a command whose positions depend on its
	// arguments, where no key specification does (keyspec.go); nil otherwise.
	Keys func(args [][]byte) []int
	// Refused says why the node does not carry the command out; "" if it does.
	Refused string
	// Reads, if set, reports of a command that may write whether it only reads
	// with these arguments: the view answers it then, refused or not.
	Reads func(args [][]byte) bool
	// Run carries a Write command out. Commands without it are answered by
	// the view (ReadOnly), the front end (Session) or the node (Admin).
	Run func(*Context)
	Sub []*Command // subcommands

	// Filled in when the table is built.
	specs []KeySpec
	sub   map[string]*Command // by upper-case name, without the container's
}

// ByView reports whether the view answers a request for the command.
func (c *Command) ByView(args [][]byte) bool {
	return c.Flags&ReadOnly != 0 || c.Reads != nil && c.Reads(args)
}
