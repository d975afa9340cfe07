package resp

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/resp/command"
)

// parameter is one of the server's own parameters of CONFIG.
type parameter struct {
	get func(*Server) string
	// set checks a value and returns what puts it into effect; nil for what
	// cannot be changed while the server runs.
	set func(*Server, string) (apply func(), err error)
	// live: a limit the server itself enforces, so that its value is here
	// whatever the backend says.
	live bool
	// secret: shown only when asked for by its full name.
	secret bool
}

// parameters are those of Redis that mean something here, and those that tools
// look for, with the values that tell them the truth.
var parameters = map[string]parameter{
	"requirepass": {
		get: func(s *Server) string { return s.settings.password() },
		set: func(s *Server, v string) (func(), error) {
			return func() {
				s.settings.requirePass.Store(&v)
				s.users.SetPassword(v)
			}, nil
		},
		live:   true,
		secret: true,
	},
	"maxclients":                 number(func(s *Server) *atomic.Int64 { return &s.settings.maxClients }, 1, math.MaxUint32),
	"timeout":                    number(func(s *Server) *atomic.Int64 { return &s.settings.timeout }, 0, math.MaxInt32),
	"proto-max-bulk-len":         memory(func(s *Server) *atomic.Int64 { return &s.settings.maxBulk }, 1<<20),
	"client-query-buffer-limit":  memory(func(s *Server) *atomic.Int64 { return &s.settings.maxQuery }, 1<<20),
	"client-output-buffer-limit": {get: outputLimits, set: setOutputLimits, live: true},
	"slowlog-log-slower-than":    number(func(s *Server) *atomic.Int64 { return &s.settings.slowTime }, -1, math.MaxInt64),
	"slowlog-max-len":            number(func(s *Server) *atomic.Int64 { return &s.settings.slowLen }, 0, maxSlowLogLen),
	"stream-node-max-entries":    number(func(*Server) *atomic.Int64 { return &command.StreamNodeEntries }, 0, math.MaxInt64),
	"tls-port":                   fixed(func(s *Server) string { return s.port(true) }),
	"bind":                       fixed((*Server).host),
	"dir":                        fixed(func(s *Server) string { return s.opt.Dir }),
	"databases":                  immutable(strconv.Itoa(Databases)),
	"notify-keyspace-events":     {get: notifyEvents, set: setNotifyEvents, live: true},
	"tracking-table-max-keys":    {get: trackingKeys, set: setTrackingKeys, live: true},
	"unixsocket":                 immutable(""),
	"logfile":                    immutable(""),
	"pidfile":                    immutable(""),
	"tcp-backlog":                immutable("511"),
}

// constant is a parameter that may be set to the value it has: tools do.
func constant(v string) parameter {
	return parameter{
		get: func(*Server) string { return v },
		set: func(_ *Server, to string) (func(), error) {
			if to != v {
				return nil, ErrImmutable
			}
			return func() {}, nil
		},
	}
}

// immutable is one that Redis does not let be set at all.
func immutable(v string) parameter { return fixed(func(*Server) string { return v }) }

func fixed(get func(*Server) string) parameter { return parameter{get: get} }

// number is an integer parameter from low to high.
func number(p func(*Server) *atomic.Int64, low, high int64) parameter {
	return parameter{
		live: true,
		get:  func(s *Server) string { return itoa(p(s).Load()) },
		set: func(s *Server, v string) (func(), error) {
			n, ok := parseInt([]byte(v))
			if !ok {
				return nil, errors.New("argument couldn't be parsed into an integer")
			}
			if n < low || n > high {
				return nil, fmt.Errorf("argument must be between %d and %d inclusive", low, high)
			}
			return func() { p(s).Store(n) }, nil
		},
	}
}

// memory is a size in bytes of at least low; values may have a unit.
func memory(p func(*Server) *atomic.Int64, low int64) parameter {
	return parameter{
		live: true,
		get:  func(s *Server) string { return itoa(p(s).Load()) },
		set: func(s *Server, v string) (func(), error) {
			n, err := parseSize(v)
			if err != nil {
				return nil, err
			}
			if n < low {
				return nil, fmt.Errorf("argument must be between %d and %d inclusive", low, int64(math.MaxInt64))
			}
			return func() { p(s).Store(n) }, nil
		},
	}
}

// parseSize parses a size as Redis writes them: 100, 1k (1000), 1kb (1024), 5mb, 1g.
func parseSize(v string) (int64, error) {
	s := strings.ToLower(v)
	unit := int64(1)
	for _, u := range []struct {
		suffix string
		n      int64
	}{{"kb", 1 << 10}, {"mb", 1 << 20}, {"gb", 1 << 30}, {"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"b", 1}} {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = rest, u.n
			break
		}
	}
	n, ok := parseInt([]byte(s))
	if !ok || n < 0 || n > math.MaxInt64/unit {
		return 0, errors.New("argument must be a memory value")
	}
	return n * unit, nil
}

// outputLimits shows MaxOutputBuffer as the hard limit of normal clients;
// there are no replicas.
func outputLimits(s *Server) string {
	p := s.settings.pubsub.Load()
	return fmt.Sprintf("normal %d 0 0 slave 0 0 0 pubsub %d %d %d", s.settings.maxOutput.Load(), p.hard, p.soft, int64(p.time/time.Second))
}

func setOutputLimits(s *Server, v string) (func(), error) {
	words := strings.Fields(v)
	if len(words) == 0 || len(words)%4 != 0 {
		return nil, errors.New("Wrong number of arguments in buffer limit configuration.") //nolint:staticcheck // Redis's words
	}
	limit, pubsub := s.settings.maxOutput.Load(), s.settings.pubsub.Load()
	for ; len(words) > 0; words = words[4:] {
		hard, err := parseSize(words[1])
		if err != nil {
			return nil, errPubSubClass
		}
		switch strings.ToLower(words[0]) {
		case "normal":
			if hard < 1 {
				return nil, errors.New("the limit of normal clients must be positive: there is always one")
			}
			limit = hard
		case "pubsub":
			soft, err := parseSize(words[2])
			seconds, ok := parseInt([]byte(words[3]))
			if err != nil || !ok || seconds < 0 || seconds > math.MaxInt32 {
				return nil, errPubSubClass
			}
			pubsub = &pushLimit{hard: hard, soft: soft, time: time.Duration(seconds) * time.Second}
		case "slave", "replica":
		default:
			return nil, errors.New("Invalid client class specified in buffer limit configuration.") //nolint:staticcheck // Redis's own text
		}
	}
	return func() { s.settings.maxOutput.Store(limit); s.settings.pubsub.Store(pubsub) }, nil
}

func trackingKeys(s *Server) string { return itoa(s.settings.trackKeys.Load()) }

func setTrackingKeys(s *Server, v string) (func(), error) {
	n, ok := parseInt([]byte(v))
	if !ok {
		return nil, errors.New("argument couldn't be parsed into an integer")
	}
	if n < 0 {
		return nil, fmt.Errorf("argument must be between 0 and %d inclusive", int64(math.MaxInt64))
	}
	return func() {
		s.settings.trackKeys.Store(n)
		s.trackers.shrinkNow(s)
	}, nil
}

func (s *Server) port(tls bool) string {
	if a, ok := s.Addr().(*net.TCPAddr); ok && tls == (s.opt.TLS != nil) {
		return strconv.Itoa(a.Port)
	}
	return "0"
}

func (s *Server) host() string {
	if a, ok := s.Addr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}

// configGet answers with every parameter that matches one of the patterns.
// Secrets have to be asked for by their full names.
func configGet(c *Session, args [][]byte) {
	s := c.server
	values := map[string]string{}
	for name, p := range parameters {
		if matchesAny(args[2:], name, p.secret) {
			values[name] = p.get(s)
		}
	}
	for _, p := range s.backend.ConfigGet() {
		if own := parameters[p.Name]; !own.live && matchesAny(args[2:], p.Name, false) {
			values[p.Name] = p.Value
		}
	}
	c.reply.Map(len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		c.reply.BulkString(name)
		c.reply.BulkString(values[name])
	}
}

func matchesAny(patterns [][]byte, name string, literally bool) bool {
	for _, p := range patterns {
		if literally && equalFold(p, name) || !literally && command.Match(p, []byte(name), true) {
			return true
		}
	}
	return false
}

// configSet changes all the parameters given, or none. Those of the backend go
// first, being the ones that can fail when they are put into effect.
func configSet(c *Session, args [][]byte) {
	s := c.server
	if len(args)%2 != 0 {
		c.reply.Error("ERR wrong number of arguments for 'config|set' command")
		return
	}
	failed := func(name []byte, err error) {
		c.reply.Error("ERR CONFIG SET failed (possibly related to argument '" + shown(name) + "') - " + lineEnds.Replace(err.Error()))
	}
	old := map[string]string{}
	for _, p := range s.backend.ConfigGet() {
		old[p.Name] = p.Value
	}
	// All names are looked at before any value.
	names := make([]string, 0, len(args)/2)
	mine := func(name string) bool {
		p, own := parameters[name]
		_, theirs := old[name]
		return own && (p.live || !theirs)
	}
	for i := 2; i < len(args); i += 2 {
		name := strings.ToLower(string(args[i]))
		_, theirs := old[name]
		switch {
		case !mine(name) && !theirs:
			c.reply.Error("ERR Unknown option or number of arguments for CONFIG SET - '" + shown(args[i]) + "'")
			return
		case mine(name) && parameters[name].set == nil:
			failed(args[i], ErrImmutable)
			return
		case slices.Contains(names, name):
			failed(args[i], errors.New("duplicate parameter"))
			return
		}
		names = append(names, name)
	}
	var apply []func()
	var others [][2]string
	for i, name := range names {
		arg, value := args[2+2*i], string(args[3+2*i])
		switch {
		case mine(name):
			fn, err := parameters[name].set(s, value)
			if err != nil {
				failed(arg, err)
				return
			}
			apply = append(apply, fn)
		case value != old[name]:
			others = append(others, [2]string{name, value})
		}
	}
	for i, o := range others {
		err := s.backend.ConfigSet(o[0], o[1])
		if err == nil {
			continue
		}
		for _, done := range others[:i] {
			if back := s.backend.ConfigSet(done[0], old[done[0]]); back != nil {
				s.log.Error("a parameter could not be set back", c.LogAttr(), "parameter", done[0], "error", back)
			}
		}
		failed([]byte(o[0]), err)
		return
	}
	for _, fn := range apply {
		fn()
	}
	s.log.Info("configuration changed by a client", c.LogAttr(), "parameters", names)
	c.reply.OK()
}

func configResetStat(c *Session, _ [][]byte) {
	s := c.server
	s.stats.reset()
	for _, r := range s.rows {
		r.stat.reset()
	}
	c.reply.OK()
}

var configHelp = []string{
	"CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"GET <pattern>",
	"    Return parameters matching the glob-like <pattern> and their values.",
	"SET <directive> <value>",
	"    Set the configuration <directive> to <value>.",
	"RESETSTAT",
	"    Reset statistics reported by the INFO command.",
	"HELP",
	"    Prints this help.",
}
