package resp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"
)

// Defaults of Options.
const (
	DefaultMaxClients      = 10_000
	DefaultMaxBulkLen      = 512 << 20
	DefaultMaxQueryBuffer  = 1 << 30
	DefaultMaxOutputBuffer = 256 << 20
	DefaultMaxMemory       = 4 << 30
	DefaultStallTimeout    = 10 * time.Second
	DefaultSlowLogTime     = 10 * time.Millisecond
	DefaultSlowLogLen      = 128
	DefaultACLLogLen       = 128
	DefaultPubSubHard      = 32 << 20
	DefaultPubSubSoft      = 8 << 20
	DefaultPubSubTime      = time.Minute
	DefaultTrackingKeys    = 1_000_000
)

// Databases is the number of databases SELECT accepts.
const Databases = 16

// RedisVersion is the version of Redis whose replies the server gives.
const RedisVersion = "7.0.15"

// Limits that Redis fixes too, and those that keep the server bounded.
const (
	maxInline     = 64 << 10 // longest inline command, or header line
	maxArgs       = 1 << 20  // arguments of a command
	unauthMaxArgs = 10       // the same before AUTH
	unauthMaxBulk = 16 << 10
	maxBatch      = 1024     // commands in one Execute
	maxBatchBytes = 1 << 20  // of arguments in one Execute, unless one command is larger
	maxBatchOut   = 4 << 20  // of replies in one Execute, above which batches are made smaller
	maxNameLen    = 64 << 10 // of a connection
	maxErrorKinds = 128      // kinds of errors counted apart
	maxSlowLogLen = 10_000
	maxACLLogLen  = 10_000
	maxACLFile    = 64 << 20
	restAfter     = 2 // seconds
	handshakeTime = 10 * time.Second
)

// Options configures a Server. The zero value of a limit is its default.
type Options struct {
	// Backend answers the data commands. Required.
	Backend Backend
	// Version is the program's version, shown as replicatord_version.
	Version string
	// RunID identifies this run of the process in INFO: 40 hex digits. Default: random.
	RunID string
	// Logger gets what an operator should know. Passwords and arguments of
	// commands are never logged. Default: slog.Default.
	Logger *slog.Logger
	// TLS, if set, is spoken on every connection.
	TLS *tls.Config

	// RequirePass is the password of the user "default"; empty: none is asked for.
	RequirePass string
	// ACLFile holds the users, as lines that Redis would take (aclfile); empty:
	// they last as long as the server. A file without a default user leaves that
	// one to RequirePass.
	ACLFile string
	// DebugCommand says who may use DEBUG (enable-debug-command): DebugNo, the
	// default, DebugLocal or DebugYes.
	DebugCommand string
	// MaxClients limits connections; one more is told so and closed.
	MaxClients int
	// MaxBulkLen limits one argument in bytes (proto-max-bulk-len).
	MaxBulkLen int64
	// MaxQueryBuffer limits one command in bytes, all its arguments together
	// (client-query-buffer-limit). A client that sends more is disconnected.
	MaxQueryBuffer int64
	// MaxOutputBuffer is how many bytes of replies may wait for a client
	// before the server stops carrying out its commands. If it then reads
	// nothing for StallTimeout, it is disconnected. A single reply may be larger.
	MaxOutputBuffer int64
	// MaxMemory limits what all clients' queries and replies hold together, in bytes; the
	// client that would exceed it is disconnected (maxmemory-clients).
	MaxMemory int64
	// StallTimeout: see MaxOutputBuffer.
	StallTimeout time.Duration
	// IdleTimeout closes connections that have sent nothing for so long, in
	// whole seconds (timeout). 0: never.
	IdleTimeout time.Duration
	// SlowLogTime is how long a command must take to enter SLOWLOG; negative:
	// none does.
	SlowLogTime time.Duration

	// Loops is how many goroutines serve the clients that send nothing but data
	// commands (loop_linux.go); 0: as many as there are processors, negative:
	// none, each client has its own.
	Loops int

	// Shutdown is called, once and in a goroutine of its own, when a client sends SHUTDOWN;
	// it should stop the process. nil: SHUTDOWN is refused.
	Shutdown func()
	// Dir is the data directory, for CONFIG GET dir. The backend's ConfigGet
	// may say it instead.
	Dir string
}

// ensureDefaults fills what was left zero.
func (o *Options) ensureDefaults() {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	if o.MaxClients == 0 {
		o.MaxClients = DefaultMaxClients
	}
	if o.Loops == 0 {
		o.Loops = runtime.GOMAXPROCS(0)
	}
	def(&o.MaxBulkLen, DefaultMaxBulkLen)
	def(&o.MaxQueryBuffer, DefaultMaxQueryBuffer)
	def(&o.MaxOutputBuffer, DefaultMaxOutputBuffer)
	def(&o.MaxMemory, DefaultMaxMemory)
	def((*int64)(&o.StallTimeout), int64(DefaultStallTimeout))
	def((*int64)(&o.SlowLogTime), int64(DefaultSlowLogTime))
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.RunID == "" {
		o.RunID = randomID()
	}
	if o.DebugCommand == "" {
		o.DebugCommand = DebugNo
	}
	if o.Version == "" {
		o.Version = "unknown"
	}
}

// validate returns all faults.
func (o *Options) validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("resp: "+format, args...))
		}
	}
	bad(o.Backend != nil, "no backend")
	bad(o.MaxClients > 0, "MaxClients %d is not positive", o.MaxClients)
	bad(o.MaxBulkLen >= 1<<20, "MaxBulkLen %d is below 1mb", o.MaxBulkLen)
	bad(o.MaxQueryBuffer >= 1<<20, "MaxQueryBuffer %d is below 1mb", o.MaxQueryBuffer)
	bad(o.MaxOutputBuffer > 0, "MaxOutputBuffer %d is not positive", o.MaxOutputBuffer)
	bad(o.MaxMemory > 0, "MaxMemory %d is not positive", o.MaxMemory)
	bad(o.StallTimeout > 0, "StallTimeout %v is not positive", o.StallTimeout)
	bad(o.DebugCommand == DebugNo || o.DebugCommand == DebugLocal || o.DebugCommand == DebugYes, "DebugCommand %q is not no, local or yes", o.DebugCommand)
	bad(o.IdleTimeout >= 0, "IdleTimeout %v is negative", o.IdleTimeout)
	return errors.Join(errs...)
}
