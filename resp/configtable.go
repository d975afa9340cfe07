package resp

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// keptValues are the values of parameters that can be set and change nothing:
// of what Redis has and a node does in its own way. Tools and tests set them,
// and find them as they set them.
type keptValues struct {
	mu     sync.Mutex
	values map[string]string
}

func (k *keptValues) get(name, fallback string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v, ok := k.values[name]; ok {
		return v
	}
	return fallback
}

func (k *keptValues) set(name, v string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.values == nil {
		k.values = map[string]string{}
	}
	k.values[name] = v
}

// kept is a parameter whose value is checked and kept, and changes nothing.
// check returns the value in its usual form.
func kept(name, value string, check func(string) (string, error)) parameter {
	return parameter{
		get: func(s *Server) string { return s.kept.get(name, value) },
		set: func(s *Server, v string) (func(), error) {
			v, err := check(v)
			if err != nil {
				return nil, err
			}
			return func() { s.kept.set(name, v) }, nil
		},
	}
}

// oneOf accepts some words.
func oneOf(words ...string) func(string) (string, error) {
	return func(v string) (string, error) {
		v = strings.ToLower(v)
		if !slices.Contains(words, v) {
			if len(words) == 2 && words[0] == "yes" {
				return "", errors.New("argument must be 'yes' or 'no'")
			}
			return "", errors.New("argument(s) must be one of the following: " + strings.Join(words, ", "))
		}
		return v, nil
	}
}

var yesNo = oneOf("yes", "no")

func anyText(v string) (string, error) { return v, nil }

// within accepts integers of a range.
func within(low, high int64) func(string) (string, error) {
	return func(v string) (string, error) {
		n, ok := parseInt([]byte(v))
		if !ok {
			return "", errors.New("argument couldn't be parsed into an integer")
		}
		if n < low || n > high {
			return "", fmt.Errorf("argument must be between %d and %d inclusive", low, high)
		}
		return strconv.FormatInt(n, 10), nil
	}
}

// aSize accepts sizes in bytes.
func aSize(v string) (string, error) {
	n, err := parseSize(v)
	return strconv.FormatInt(n, 10), err
}

// saves accepts what Redis's save takes: pairs of seconds and changes.
func saves(v string) (string, error) {
	words := strings.Fields(v)
	if len(words)%2 != 0 {
		return "", errors.New("Invalid save parameters") //nolint:staticcheck // Redis's own text
	}
	for i, w := range words {
		n, ok := parseInt([]byte(w))
		if !ok || n < 0 || i%2 == 0 && n < 1 {
			return "", errors.New("Invalid save parameters") //nolint:staticcheck // Redis's own text
		}
		words[i] = strconv.FormatInt(n, 10)
	}
	return strings.Join(words, " "), nil
}

func flagWords(v string) (string, error) {
	known := []string{"default", "save", "nosave", "now", "force"}
	words := strings.Fields(strings.ToLower(v))
	if len(words) == 0 || slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(known, w) }) {
		return "", errors.New("argument(s) must be one of the following: default, save, nosave, now, force")
	}
	slices.SortFunc(words, func(a, b string) int { return slices.Index(known, a) - slices.Index(known, b) })
	return strings.Join(words, " "), nil
}

// refusedBut is a parameter that has one value, with the reason why.
func refusedBut(v, why string) parameter {
	p := constant(v)
	p.set = func(_ *Server, to string) (func(), error) {
		if to != v {
			return nil, errors.New(why)
		}
		return func() {}, nil
	}
	return p
}

// alike are parameters of Redis that have two names.
var alike = map[string]string{
	"hash-max-ziplist-entries": "hash-max-listpack-entries", "hash-max-ziplist-value": "hash-max-listpack-value",
	"list-max-ziplist-size": "list-max-listpack-size", "zset-max-ziplist-entries": "zset-max-listpack-entries",
	"zset-max-ziplist-value": "zset-max-listpack-value", "lua-time-limit": "busy-reply-threshold",
	"min-slaves-max-lag": "min-replicas-max-lag", "min-slaves-to-write": "min-replicas-to-write",
	"repl-ping-slave-period": "repl-ping-replica-period", "slaveof": "replicaof",
	"slave-announce-ip": "replica-announce-ip", "slave-announce-port": "replica-announce-port",
	"slave-ignore-maxmemory": "replica-ignore-maxmemory", "slave-lazy-flush": "replica-lazy-flush",
	"slave-priority": "replica-priority", "slave-read-only": "replica-read-only",
	"slave-serve-stale-data":        "replica-serve-stale-data",
	"cluster-slave-no-failover":     "cluster-replica-no-failover",
	"cluster-slave-validity-factor": "cluster-replica-validity-factor",
}

const noEvicting = "a node does not evict: what the Redis behind it dropped would still be at the other nodes, and missing here. " +
	"With noeviction, writes that need memory are refused at maxmemory"

// liveParameters are in force here.
func liveParameters() map[string]parameter {
	return map[string]parameter{
		"acllog-max-len":            number(func(s *Server) *atomic.Int64 { return &s.settings.aclLogLen }, 0, math.MaxInt64),
		"latency-monitor-threshold": number(func(s *Server) *atomic.Int64 { return &s.settings.latencyMin }, 0, math.MaxInt64),
		"latency-tracking": {
			live: true,
			get:  func(s *Server) string { return yesOrNo(s.settings.tracking.Load()) },
			set: func(s *Server, v string) (func(), error) {
				v, err := yesNo(v)
				return func() { s.settings.tracking.Store(v == "yes") }, err
			},
		},
		"latency-tracking-info-percentiles": {
			live: true,
			get:  func(s *Server) string { return s.settings.percentiles.Load().String() },
			set: func(s *Server, v string) (func(), error) {
				list, err := parsePercentiles(v)
				return func() { s.settings.percentiles.Store(&list) }, err
			},
		},
		"acl-pubsub-default": {
			live: true,
			get: func(s *Server) string {
				if s.users.DefaultsToAllChannels() {
					return "allchannels"
				}
				return "resetchannels"
			},
			set: func(s *Server, v string) (func(), error) {
				v, err := oneOf("allchannels", "resetchannels")(v)
				return func() { s.users.AllChannels(v == "allchannels") }, err
			},
		},
		"min-replicas-to-write": measured(func(s *Server) *atomic.Int64 { return &s.settings.minReplicas }),
		"min-replicas-max-lag":  measured(func(s *Server) *atomic.Int64 { return &s.settings.maxLag }),
		"maxmemory": {
			live: true,
			get:  func(s *Server) string { return itoa(s.settings.maxMemory.Load()) },
			set: func(s *Server, v string) (func(), error) {
				n, err := parseSize(v)
				return func() {
					s.settings.maxMemory.Store(n)
					s.measure()
				}, err
			},
		},
		"maxmemory-clients": {live: true, get: func(s *Server) string { return itoa(s.budget.limit.Load()) }, set: setClientMemory},
		"port": {
			live: true,
			get:  func(s *Server) string { return s.port(false) },
			set: func(s *Server, v string) (func(), error) {
				if v != s.port(false) {
					return nil, errors.New("Unable to listen on this port: a node's ports are set when it starts") //nolint:staticcheck // begins as Redis's own text
				}
				return func() {}, nil
			},
		},
		"maxmemory-policy":     refusedBut("noeviction", noEvicting),
		"aclfile":              fixed(func(s *Server) string { return s.opt.ACLFile }),
		"enable-debug-command": fixed(func(s *Server) string { return s.opt.DebugCommand }),
	}
}

// measured is a number by which the state of the server is judged.
func measured(n func(*Server) *atomic.Int64) parameter {
	p := number(n, 0, math.MaxInt32)
	set := p.set
	p.set = func(s *Server, v string) (func(), error) {
		apply, err := set(s, v)
		return func() { apply(); s.measure() }, err
	}
	return p
}

// setClientMemory sets maxmemory-clients: a size or, with a %, that part of
// maxmemory.
func setClientMemory(s *Server, v string) (func(), error) {
	const least = 1 << 20
	percent, isPercent := strings.CutSuffix(v, "%")
	n, err := parseSize(percent)
	switch {
	case isPercent && (err != nil || n < 1):
		return nil, errors.New("argument must be a memory or percent value")
	case isPercent && n > 100:
		return nil, errors.New("percentage argument must be less or equal to 100")
	case err != nil:
		return nil, errors.New("argument must be a memory or percent value")
	case isPercent && s.settings.maxMemory.Load() == 0:
		return nil, errors.New("a percentage is of maxmemory, which is not set")
	case isPercent:
		n = s.settings.maxMemory.Load() / 100 * n
	}
	if n < least {
		return nil, fmt.Errorf("argument must be between %d and %d inclusive", least, int64(math.MaxInt64))
	}
	return func() { s.budget.limit.Store(n) }, nil
}

// settledParameters cannot be set, in Redis too.
var settledParameters = map[string]string{
	"always-show-logo": "no", "aof_rewrite_cpulist": "", "appenddirname": "appendonlydir", "appendfilename": "appendonly.aof",
	"bgsave_cpulist": "", "bio_cpulist": "", "cluster-config-file": "nodes.conf", "cluster-enabled": "no", "cluster-port": "0",
	"daemonize": "no", "disable-thp": "yes", "enable-module-command": "no", "enable-protected-configs": "no", "io-threads": "1",
	"io-threads-do-reads": "no", "rdbchecksum": "yes", "server_cpulist": "", "set-proc-title": "no", "socket-mark-id": "0",
	"supervised": "no", "syslog-enabled": "no", "syslog-facility": "local0", "syslog-ident": "redis", "unixsocketperm": "0",
	"replicaof": "", "dbfilename": "",
}

// keptParameters can be set, and change nothing: there are no snapshots, no
// append-only file, no replicas of Redis's kind and no event loop here.
func keptParameters() map[string]parameter {
	out := map[string]parameter{}
	add := func(name, value string, check func(string) (string, error)) { out[name] = kept(name, value, check) }
	for name, value := range map[string]string{
		"activedefrag": "no", "activerehashing": "yes", "aof-disable-auto-gc": "no", "aof-load-truncated": "yes",
		"aof-rewrite-incremental-fsync": "yes", "aof-timestamp-enabled": "no", "aof-use-rdb-preamble": "yes",
		"appendonly": "yes", "cluster-allow-pubsubshard-when-down": "yes", "cluster-allow-reads-when-down": "no",
		"cluster-allow-replica-migration": "yes", "cluster-replica-no-failover": "no", "cluster-require-full-coverage": "yes",
		"crash-log-enabled": "yes", "crash-memcheck-enabled": "yes", "dynamic-hz": "yes", "jemalloc-bg-thread": "yes",
		"lazyfree-lazy-eviction": "no", "lazyfree-lazy-expire": "no", "lazyfree-lazy-server-del": "no",
		"lazyfree-lazy-user-del": "no", "lazyfree-lazy-user-flush": "no", "no-appendfsync-on-rewrite": "no",
		"protected-mode": "yes", "rdb-del-sync-files": "no", "rdb-save-incremental-fsync": "yes", "rdbcompression": "no",
		"repl-disable-tcp-nodelay": "no", "repl-diskless-sync": "yes", "replica-announced": "yes",
		"replica-ignore-disk-write-errors": "no", "replica-ignore-maxmemory": "yes", "replica-lazy-flush": "no",
		"replica-read-only": "no", "replica-serve-stale-data": "yes", "stop-writes-on-bgsave-error": "yes",
		"tls-prefer-server-ciphers": "no", "tls-session-caching": "yes", "tls-cluster": "no",
		"tls-replication": "no",
	} {
		add(name, value, yesNo)
	}
	for name, x := range map[string]struct{ value, low, high int64 }{
		"active-defrag-cycle-max": {25, 1, 99}, "active-defrag-cycle-min": {1, 1, 99}, "active-defrag-max-scan-fields": {1000, 1, math.MaxInt64},
		"active-defrag-threshold-lower": {10, 0, 1000}, "active-defrag-threshold-upper": {100, 0, 1000},
		"active-expire-effort": {1, 1, 10}, "auto-aof-rewrite-percentage": {100, 0, math.MaxInt32},
		"cluster-announce-bus-port": {0, 0, 65535}, "cluster-announce-port": {0, 0, 65535}, "cluster-announce-tls-port": {0, 0, 65535},
		"cluster-migration-barrier": {1, 0, math.MaxInt32}, "cluster-node-timeout": {15000, 0, math.MaxInt64},
		"cluster-replica-validity-factor": {10, 0, math.MaxInt32}, "hz": {10, 0, math.MaxInt32},
		"lfu-decay-time": {1, 0, math.MaxInt32}, "lfu-log-factor": {10, 0, math.MaxInt32}, "busy-reply-threshold": {5000, 0, math.MaxInt32},
		"maxmemory-eviction-tenacity": {10, 0, 100}, "maxmemory-samples": {5, 1, math.MaxInt32},
		"rdb-key-save-delay": {0, math.MinInt32, math.MaxInt32}, "key-load-delay": {0, math.MinInt32, math.MaxInt32},
		"repl-backlog-ttl": {3600, 0, math.MaxInt64}, "repl-diskless-sync-delay": {5, 0, math.MaxInt32},
		"repl-diskless-sync-max-replicas": {0, 0, math.MaxInt32}, "repl-ping-replica-period": {10, 1, math.MaxInt32},
		"repl-timeout": {60, 1, math.MaxInt32}, "replica-announce-port": {0, 0, 65535}, "replica-priority": {100, 0, math.MaxInt32},
		"shutdown-timeout": {10, 0, math.MaxInt32}, "tcp-keepalive": {15, 0, math.MaxInt32},
		"tls-session-cache-size": {20480, 0, math.MaxInt32}, "tls-session-cache-timeout": {300, 0, math.MaxInt32},
	} {
		add(name, strconv.FormatInt(x.value, 10), within(x.low, x.high))
	}
	for name, value := range map[string]string{
		"active-defrag-ignore-bytes": "104857600", "auto-aof-rewrite-min-size": "67108864", "cluster-link-sendbuf-limit": "0",
		"repl-backlog-size": "1048576",
	} {
		add(name, value, aSize)
	}
	for name, value := range map[string]string{
		"bind-source-addr": "", "cluster-announce-hostname": "", "cluster-announce-ip": "", "ignore-warnings": "", "masteruser": "", "masterauth": "",
		"oom-score-adj-values": "0 200 800", "proc-title-template": "{title} {listen-addr} {server-mode}", "replica-announce-ip": "",
		"tls-ca-cert-dir": "", "tls-ca-cert-file": "", "tls-cert-file": "", "tls-ciphers": "", "tls-ciphersuites": "",
		"tls-client-cert-file": "", "tls-client-key-file": "", "tls-client-key-file-pass": "", "tls-dh-params-file": "",
		"tls-key-file": "", "tls-key-file-pass": "", "tls-protocols": "",
	} {
		add(name, value, anyText)
	}
	add("appendfsync", "everysec", oneOf("everysec", "always", "no"))
	add("cluster-preferred-endpoint-type", "ip", oneOf("ip", "hostname", "unknown-endpoint"))
	add("oom-score-adj", "no", oneOf("no", "yes", "relative", "absolute"))
	add("propagation-error-behavior", "ignore", oneOf("ignore", "panic", "panic-on-replicas"))
	add("repl-diskless-load", "disabled", oneOf("disabled", "on-empty-db", "swapdb"))
	add("sanitize-dump-payload", "no", oneOf("no", "yes", "clients"))
	add("tls-auth-clients", "no", oneOf("no", "yes", "optional"))
	add("loglevel", "notice", oneOf("debug", "verbose", "notice", "warning", "nothing"))
	add("shutdown-on-sigint", "default", flagWords)
	add("shutdown-on-sigterm", "default", flagWords)
	add("save", "", saves)
	return out
}

// viewParameters are those of the Redis behind the node, for a backend that
// does not say what they are.
var viewParameters = map[string]string{
	"hash-max-listpack-entries": "512", "hash-max-listpack-value": "64", "hll-sparse-max-bytes": "3000",
	"list-compress-depth": "0", "list-max-listpack-size": "-2", "set-max-intset-entries": "512",
	"stream-node-max-bytes":     "4096",
	"zset-max-listpack-entries": "128", "zset-max-listpack-value": "64",
}

func yesOrNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func init() {
	add := func(more map[string]parameter) {
		for name, p := range more {
			if _, ok := parameters[name]; !ok {
				parameters[name] = p
			}
		}
	}
	add(liveParameters())
	settled, view := map[string]parameter{}, map[string]parameter{}
	for name, v := range settledParameters {
		settled[name] = immutable(v)
	}
	for name, v := range viewParameters {
		view[name] = constant(v)
	}
	add(settled)
	add(view)
	add(keptParameters())
	for name := range secretParameters {
		p := parameters[name]
		p.secret = true
		parameters[name] = p
	}
	p := parameters["key-load-delay"]
	p.secret = true // hidden, as in Redis
	parameters["key-load-delay"] = p
	aliases := map[string]parameter{}
	for name, of := range alike {
		aliases[name] = parameters[of]
	}
	add(aliases)
	maps.DeleteFunc(parameters, func(_ string, p parameter) bool { return p.get == nil })
}
