package resp

import (
	"errors"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

// Request is one data command on its way through a Backend. It is valid only
// until Execute returns: sessions use requests again.
type Request struct {
	DB    uint8            // the connection's database when the command was sent
	Proto int              // 2 or 3: how the client wants its reply
	Cmd   *command.Command // never nil; the subcommand, where there is one
	Args  [][]byte         // with the command's name first; the backend's to keep
	// Out is the reply, whole, as bytes of the client's protocol. The backend fills it; the
	// session owns it afterwards and only reads it.
	Out     []byte
	Session *Session
	// Tracks says that the client is to be told when what the command reads
	// changes: the backend calls Session.Track, in order with Server.Changed.
	Tracks bool
	// Subs, if there are any, are the commands of a transaction: all of them
	// are carried out, in their order, with nothing between them, and each gets
	// its own Out. The transaction's own stays empty, unless it failed whole.
	Subs []*Request

	// Counted says that Out is an error that has been counted (Session.Called).
	Counted bool
	// Mark is the backend's, from Recall until Holding.
	Mark uint64

	exec  bool // it is a transaction's; Subs may be none
	parts []part
	whole *Request // the transaction it is one of
}

// Batch is what Backend.Start carries out of one connection, as Execute does.
type Batch struct {
	Requests []*Request
	Done     func()
}

// Backend is the node behind a server. Its methods are called from many
// goroutines at once, but for any one session by one at a time.
type Backend interface {
	// Execute carries out data commands of one connection in their order and
	// returns when every Out is filled. Those whose ByView holds are for the view;
	// all others have a Run. There are at most 1,024. Args may be kept: no
	// one else has them. A request left without a reply, or a panic, becomes
	// an error for the client.
	Execute(reqs []*Request)
	// Start is Execute for several connections at once, and waits for none of
	// them: Done of each is called, by any goroutine, when it has its replies. It does
	// not panic.
	Start(batches []Batch)
	// Recall fills Out of requests whose replies the backend has at hand, as they would
	// be if those were carried out now: of reads alone, whichever it has; else of the
	// first ones, until it lacks one. It returns how many it has filled; nobody changes
	// them. Any goroutine may call it.
	Recall(reqs []*Request) int
	// Holding returns how many of the requests, from the first on, have an Out from
	// Recall that is still what they would be answered. Any goroutine may call it.
	Holding(reqs []*Request) int
	// Unblock ends the wait of a session's blocking command, which Execute is
	// carrying out, with a raw reply, nil for that of one whose time has passed.
	// It reports whether there was one. Any goroutine may call it.
	Unblock(s *Session, reply []byte) bool
	// Admin answers a command with the Admin flag; args is as in Request. All
	// earlier commands of the session have been executed. It may block, for
	// this session alone.
	Admin(s *Session, cmd *command.Command, args [][]byte) []byte
	// ViewDocs returns what the view's Redis replies, in RESP2, to COMMAND DOCS of these commands, of all if
	// there are none; nil while it is not there. Any goroutine may call it.
	ViewDocs(names [][]byte) []byte
	// Publish sends a message to the other nodes' clients that listen to the
	// channel. It waits for nobody, and keeps what it is given.
	Publish(channel, payload []byte, shard bool)
	// LevelMembers returns how many other members are there and have on disk what was
	// written here until so long ago.
	LevelMembers(lag time.Duration) int
	// Scripts returns the backend's scripts, of which the server uses what any
	// goroutine may.
	Scripts() *command.Scripts
	// Info returns sections of INFO: the one of that name (lower case), or all
	// if section is "". A section that the server has too is put together with it,
	// the backend's fields replacing those of the same name.
	Info(section string) []Section
	// Loading returns "" when data commands can be carried out, or the error
	// to answer them with, without a dash: "LOADING …".
	Loading() string
	// ConfigGet returns the parameters the backend owns, except secrets. They
	// replace those of the same name that the server has only for tools to find
	// (dir, appendonly, …), not the limits it enforces itself.
	ConfigGet() []Param
	// ConfigSet sets one of them. It returns ErrUnknownParam for a name it does
	// not have and ErrImmutable for one that needs a restart; any other error
	// says what is wrong with the value. The server changes the
	// limits it enforces (requirepass, maxclients, …) itself and does not ask.
	ConfigSet(name, value string) error
}

// Errors of Backend.ConfigSet.
var (
	ErrUnknownParam = errors.New("unknown option")
	ErrImmutable    = errors.New("can't set immutable config")
)

// Param is a configuration parameter and its value as CONFIG GET shows it.
type Param struct{ Name, Value string }

// Section is a section of INFO, such as Replication, with its fields in order.
type Section struct {
	Name   string // as in "# Name"
	Fields []Field
}

// Field is one line of INFO.
type Field struct{ Name, Value string }

// Add appends a field.
func (s *Section) Add(name, value string) { s.Fields = append(s.Fields, Field{name, value}) }
