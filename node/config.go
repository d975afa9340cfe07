package node

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
)

// MaxNodeID is the greatest node id: an id has 12 bits in every tag.
const MaxNodeID = 4095

// Offsets of the two other ports from Port when they are not given.
const (
	gossipPortOffset = 1000
	wanPortOffset    = 2000
)

// Limits on what is read at start-up.
const (
	maxConfigFile = 1 << 20
	maxSecretFile = 64 << 10
	minSecretLen  = 16 // shorter secrets can be guessed from one recorded handshake
	maxNameLen    = 64 // alias, region and cluster travel in the 512 bytes of gossip facts
)

// Values of Config.Fsync.
const (
	FsyncAlways   = "always"
	FsyncEverySec = "everysec"
	FsyncNo       = "no"
)

// Values of Config.Redis that are not an address.
const (
	RedisAuto     = "auto"
	RedisSpawn    = "spawn"
	RedisEmbedded = "embedded"
)

// Config is everything an operator can decide about one node. Start from
// DefaultConfig, not from the zero value, in which ProtectedMode is off.
//
// The toml tag of a field is its key in the configuration file and in
// CONFIG GET, and with dashes its flag. Sizes are written as in Redis ("512mb",
// kb = 1024 bytes, k = 1000), durations with a unit ("500ms", "7d").
type Config struct {
	// ID is the number of this node in its cluster, 1 to 4095. Two nodes of one
	// cluster must never share one. 0 (default): a random id is chosen at the
	// first start and kept in Dir; give ids yourself where you want to
	// recognise them, or where more than about 20 nodes make a chance
	// collision likely (it is refused, not merged). The id of an existing
	// data directory cannot be changed. Alias key: node_id.
	ID int `toml:"id"`
	// Alias is a name for people, in REPLICAS and logs; up to 64 characters.
	// Default: "node" and the id. Alias key: node_alias.
	Alias string `toml:"alias"`
	// Region says where the node is. What is written in a region goes to each
	// other region once, to one node there that passes it on: nodes of one region
	// are near each other, and far from those of others. Up to 64 characters.
	// Default: none; every node then exchanges with every other.
	Region string `toml:"region"`
	// Cluster is the name all members must agree on; a node of another cluster
	// is refused, so that a test cluster cannot join production by a mistyped
	// address. Default: "replicatord".
	Cluster string `toml:"cluster"`

	// Bind is the address clients and other nodes connect to. Default
	// 127.0.0.1: nothing outside this machine gets in. 0.0.0.0 or :: listens on
	// all interfaces and needs RequirePass and a secret. Alias key: ip.
	Bind string `toml:"bind"`
	// Port is the TCP port of Redis clients. Default 9001.
	Port int `toml:"port"`
	// GossipPort is the TCP and UDP port of membership. 0 (default): Port + 1000.
	GossipPort int `toml:"gossip_port"`
	// WANPort is the TCP port on which nodes exchange deltas. 0 (default): Port + 2000.
	WANPort int `toml:"wan_port"`
	// Advertise is the host other nodes use to reach this one, for example
	// the public address in front of NAT. Default: Bind, or where that is
	// 0.0.0.0 or ::, this machine's first private address.
	Advertise string `toml:"advertise"`
	// AdvertisePort, AdvertiseGossipPort and AdvertiseWANPort are the ports
	// other nodes use, where a port forward changes them. 0 (default): the
	// ports listened on.
	AdvertisePort       int `toml:"advertise_port"`
	AdvertiseGossipPort int `toml:"advertise_gossip_port"`
	AdvertiseWANPort    int `toml:"advertise_wan_port"`

	// Dir holds the data: the log, the cells and the node's identity. Created if
	// missing; relative to the working directory. One node per directory.
	// Default: "data-" and the port, so that nodes started side by side do not
	// meet in one directory.
	Dir string `toml:"dir"`
	// Redis says which Redis serves the reads:
	//
	//	auto       spawn if a redis-server or valkey-server is found, else embedded (default)
	//	spawn      start a private one on a unix socket, stop it with the node
	//	embedded   inside this process: needs no server, slower, for trying things out
	//	ADDRESS    host:port, unix:///path, redis://[user:password@]host[:port],
	//	           rediss://… (TLS), sentinel://[user:password@]host:port,…/master
	//
	// It is a view that the node rebuilds from Dir when needed: clients must
	// not write to it directly.
	Redis string `toml:"redis"`
	// RedisBinary is the server that spawn starts. Default: redis-server, else
	// valkey-server, from PATH.
	RedisBinary string `toml:"redis_binary"`
	// RedisPassword authenticates to an ADDRESS that carries no password itself.
	RedisPassword string `toml:"redis_password"`
	// Adopt allows the first start in front of a Redis that already holds data:
	// its keys, counters and expiries become the node's. Without it such a start is refused. Only
	// the first node of a cluster should adopt; others get the data from it.
	// Default false.
	Adopt bool `toml:"adopt"`

	// RequirePass is the password of clients (AUTH). Default: none, which only a
	// loopback Bind permits.
	RequirePass string `toml:"requirepass"`
	// RequirePassFile is a file that holds RequirePass instead.
	RequirePassFile string `toml:"requirepass_file"`
	// ACLFile holds the users and their rules, as in Redis: it is read at the
	// start and by ACL LOAD, and written by ACL SAVE. It must exist. Users are each
	// node's own. Default: none; what ACL SETUSER changes then lasts until the node
	// stops. A file without a line for the default user leaves that one to
	// RequirePass.
	ACLFile string `toml:"aclfile"`
	// EnableDebugCommand says who may use DEBUG: no (default, as in Redis), local (clients
	// on this machine) or yes. It can hold a client up, read the whole data
	// and have the view rebuilt; what would harm the data is not in it.
	EnableDebugCommand string `toml:"enable_debug_command"`
	// Secret is shared by all members; it encrypts gossip and proves membership
	// on the WAN. At least 16 characters. Default: none, which only a loopback
	// Bind permits.
	Secret string `toml:"secret"`
	// SecretFile is a file that holds Secret instead, so that the
	// configuration can be readable by all.
	SecretFile string `toml:"secret_file"`
	// ProtectedMode refuses a non-loopback Bind without RequirePass, as Redis
	// does. Default true. Turn it off only where the network itself keeps
	// strangers out.
	ProtectedMode bool `toml:"protected_mode"`
	// TLS encrypts client and WAN connections.
	TLS TLSConfig `toml:"tls"`

	// PubSubGlobal sends what clients PUBLISH to the clients of all other nodes
	// too, and takes what theirs do. Such messages are not logged: a node that
	// is away misses them. Default true; false: each node's messages are its own.
	PubSubGlobal bool `toml:"pubsub_global"`
	// Meet lists client addresses (host:port) of nodes to join at start. The
	// node keeps trying, and remembers members once met; one that answers is
	// enough. Default: none.
	Meet []string `toml:"meet"`
	// MaxClockSkew is how far ahead of this node's clock a change may be
	// stamped. One further ahead is refused and alarmed, not merged: it would
	// win against everything written until the clocks agree. Default 10s: more
	// than machines with a time service ever differ, less than a wrong date.
	// Smaller values stop replication sooner when a clock drifts.
	MaxClockSkew time.Duration `toml:"max_clock_skew"`

	// Fsync says when a write is on disk: "always" before the reply, "everysec"
	// (default) within a second, "no" when the system likes. Killing the
	// process loses nothing in any mode; power loss may lose the last second
	// with everysec and more with no. Whatever the mode, only what is on disk is
	// sent to other nodes.
	Fsync string `toml:"fsync"`
	// LogRetentionBytes is the size up to which the log is kept for
	// members that are away. Default 1gb. A member that missed more is brought
	// level by comparing states, which costs more than the log but is complete.
	LogRetentionBytes Bytes `toml:"log_retention_bytes"`
	// LogRetentionTime is the age up to which the log is kept for members that
	// are away. Default 7d; 0: no limit by age.
	LogRetentionTime time.Duration `toml:"log_retention_time"`

	// KeyCache is the memory, about, in which keys that were written lately are kept
	// as they are computed with; a small one takes some 600 bytes. What is written
	// to others is read from disk first. Default 256mb; at least 1mb.
	KeyCache Bytes `toml:"key_cache"`

	// MaxClients is the number of client connections; further ones are refused. Default 10000.
	MaxClients int `toml:"maxclients"`
	// Timeout closes a client connection idle for this long. Default 0: never.
	Timeout time.Duration `toml:"timeout"`
	// ProtoMaxBulkLen is the greatest size of one argument, so of one value.
	// Default 512mb, as in Redis; at least 1mb.
	ProtoMaxBulkLen Bytes `toml:"proto_max_bulk_len"`
	// ClientQueryBufferLimit is the memory one client's unfinished commands may
	// take before it is disconnected. Default 1gb; at least ProtoMaxBulkLen.
	ClientQueryBufferLimit Bytes `toml:"client_query_buffer_limit"`
	// ClientOutputBufferLimit is the memory one client's unread replies may take
	// before it is disconnected. Default 256mb.
	ClientOutputBufferLimit Bytes `toml:"client_output_buffer_limit"`

	// LogLevel is debug, info (default), warn or error.
	LogLevel string `toml:"log_level"`
	// LogFormat is text (default) or json. Logs go to standard error.
	LogFormat string `toml:"log_format"`
	// Metrics is the host:port that serves Prometheus at /metrics, without
	// authentication. Default: off.
	Metrics string `toml:"metrics"`

	// WAN tunes the exchange with other nodes.
	WAN WANConfig `toml:"wan"`
	// Peers say how nodes are reached, where what they tell does not do. Default: none.
	Peers []Peer `toml:"peer"`
	// QoS says which keys travel in which lane. Default: all in "high".
	QoS []QoSRule `toml:"qos"`

	// View says how the Redis behind the node is looked after.
	View ViewConfig `toml:"view"`
}

// ViewConfig is the [view] table.
type ViewConfig struct {
	// Scrub says what happens to a key that somebody has changed in the Redis
	// behind the node, which is found in the background: "repair" (default), it is
	// written again as the node has it; "adopt", it is taken over as a write of
	// now; "report", it is only logged; "off", nobody looks. Each is logged and
	// counted.
	Scrub string `toml:"scrub"`
	// ScrubInterval is the pause between two looks at all keys. Default 1h. A
	// look takes about a tenth of the time of one connection.
	ScrubInterval time.Duration `toml:"scrub_interval"`
	// ReadCache is the memory in which the node keeps replies of the Redis behind
	// it, so that what was read before and has not changed is answered without it.
	// Default 64mb; 0: nothing is kept. At least 512kb.
	ReadCache Bytes `toml:"read_cache"`
}

// TLSConfig is the [tls] table.
type TLSConfig struct {
	// RESP makes the client port TLS only, and MEET use TLS: all nodes must have
	// it alike. Default false.
	RESP bool `toml:"resp"`
	// WAN makes the WAN port TLS only; both sides then show a certificate that
	// CAFile signed. Default false: the exchange is then authenticated by the
	// secret but readable on the way.
	WAN bool `toml:"wan"`
	// CertFile and KeyFile are this node's certificate and key, PEM.
	CertFile string `toml:"cert_file"`
	KeyFile  string `toml:"key_file"`
	// CAFile signs the certificates of other nodes, PEM. Needed by WAN; with
	// RESP alone, MEET goes by the system's roots and by name without it.
	// Clients are not asked for certificates.
	CAFile string `toml:"ca_file"`
}

// WANConfig is the [wan] table.
type WANConfig struct {
	// Compression is the zstd level, 0 (off) to 4 (smallest). Default 1. Higher
	// levels trade processor time for bytes, if any (prose), and 4 takes some 35 MB of memory
	// for each lane and link in use.
	Compression int `toml:"compression"`
	// BatchLimit is the size at which a batch is closed, before compression.
	// Larger batches fold and compress better, smaller ones arrive sooner. A
	// transaction or value larger than that still travels whole. Default 256kb.
	BatchLimit Bytes `toml:"batch_limit"`
	// Window is the credit a receiver grants per lane and link: what may be under way
	// and unapplied. Bandwidth × round trip is enough to keep a link full; it
	// bounds memory on both sides. Default 8mb; at least BatchLimit.
	Window Bytes `toml:"window"`
	// Heartbeat is how often an idle link says that it is alive. Default 1s. Lag
	// is measured by it, and expired keys are purged no sooner than it.
	Heartbeat time.Duration `toml:"heartbeat"`
	// SyncRate bounds what one member is sent of states, in bytes a second
	// before compression, so that a new member takes no more of this node's disk
	// and processor than it should. Default 0: no bound but the link.
	SyncRate Bytes `toml:"sync_rate"`
	// SyncByDifference has this node, when it needs a state, ask only for what
	// differs from its own. Default true; false: all of it.
	SyncByDifference bool `toml:"sync_by_difference"`
	// SubscriberSecret lets those who know it, and not Secret, follow the
	// changes (replicatord tail), and do nothing else. At least 16 characters,
	// and not Secret; all nodes that are followed need it. Default: none, and
	// subscribers need Secret, which makes anybody a member.
	SubscriberSecret string `toml:"subscriber_secret"`
	// SubscriberSecretFile is a file that holds SubscriberSecret instead.
	SubscriberSecretFile string `toml:"subscriber_secret_file"`
	// VerifyInterval is how often this node compares digests with each member,
	// at a moment when both are at the same vector, and its own with its cells. A
	// difference is damage or a bug, and is alarmed. Default 15m; 0: never.
	VerifyInterval time.Duration `toml:"verify_interval"`
	// Weights are the shares of the lanes realtime, high, low and idle in a link
	// that is full, each 1 to 1000. Default "8:4:2:1".
	Weights Weights `toml:"weights"`
	// Listen lists where the exchange is listened for, in the order in which
	// others are to try them: tcp and quic at Bind and WANPort, or URLs,
	// tcp://[host]:port, quic://[host]:port (UDP), ws://[host]:port/path and
	// wss://[host]:port/path. Default: tcp. wss needs TLS.WAN; quic is always encrypted.
	Listen []string `toml:"listen"`
	// Links lists the URLs that others are told to dial, where that is not
	// Listen at the advertised host: behind a load balancer. One without a host
	// is at the advertised one. Default: none.
	Links []string `toml:"links"`
	// Proxy is the HTTP proxy, http://[user:password@]host:port, through which wss
	// is dialled. Default: none.
	Proxy string `toml:"proxy"`
	// Limits bounds what the exchange may take of the network.
	Limits WANLimits `toml:"limits"`
}

// WANLimits is the [wan.limits] table.
type WANLimits struct {
	// Bandwidth is how many bytes a second each link may send. Messages that
	// keep a link alive go at once, and count. Default 0: as many as it takes.
	Bandwidth Bytes `toml:"bandwidth"`
}

// Weights are the lanes' shares of a full link. Its text form has colons
// between them.
type Weights [crdt.Lanes]int

// UnmarshalText parses weights.
func (w *Weights) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), ":")
	if len(parts) != len(w) {
		return fmt.Errorf("%d weights, not %d", len(parts), len(w))
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(strings.TrimSpace(p), 10, 31)
		if err != nil {
			return fmt.Errorf("%q is not a weight", clip(p))
		}
		w[i] = int(n)
	}
	return nil
}

// String is the weights with colons between them.
func (w Weights) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint([crdt.Lanes]int(w)), " ", ":"), "[]")
}

// DefaultConfig returns the configuration of a node started without any.
// Fields that follow from others (GossipPort, WANPort, Dir, Alias) are left to
// EnsureDefaults.
func DefaultConfig() Config {
	return Config{
		Cluster: "replicatord", Bind: "127.0.0.1", Port: 9001, ProtectedMode: true, PubSubGlobal: true,
		Redis: RedisAuto, MaxClockSkew: 10 * time.Second,
		Fsync: FsyncEverySec, LogRetentionBytes: 1 << 30, LogRetentionTime: 7 * 24 * time.Hour, KeyCache: 256 << 20,
		MaxClients: 10000, ProtoMaxBulkLen: 512 << 20, ClientQueryBufferLimit: 1 << 30, ClientOutputBufferLimit: 256 << 20,
		LogLevel: "info", LogFormat: "text", EnableDebugCommand: resp.DebugNo,
		WAN:  WANConfig{Compression: 1, BatchLimit: 256 << 10, Window: 8 << 20, Heartbeat: time.Second, SyncByDifference: true, Weights: Weights{8, 4, 2, 1}, Listen: []string{linkTCP}, VerifyInterval: 15 * time.Minute},
		View: ViewConfig{Scrub: ScrubRepair, ScrubInterval: time.Hour, ReadCache: 64 << 20},
	}
}

// EnsureDefaults fills every empty field for which empty means nothing, then
// those that follow from others. It may be called again, as the node does once
// it has chosen an ID.
func (c *Config) EnsureDefaults() {
	d := DefaultConfig()
	c.Cluster = cmp.Or(c.Cluster, d.Cluster)
	c.Bind = cmp.Or(c.Bind, d.Bind)
	c.Port = cmp.Or(c.Port, d.Port)
	c.Redis = cmp.Or(c.Redis, d.Redis)
	c.MaxClockSkew = cmp.Or(c.MaxClockSkew, d.MaxClockSkew)
	c.Fsync = cmp.Or(c.Fsync, d.Fsync)
	c.LogRetentionBytes = cmp.Or(c.LogRetentionBytes, d.LogRetentionBytes)
	c.KeyCache = cmp.Or(c.KeyCache, d.KeyCache)
	c.MaxClients = cmp.Or(c.MaxClients, d.MaxClients)
	c.ProtoMaxBulkLen = cmp.Or(c.ProtoMaxBulkLen, d.ProtoMaxBulkLen)
	c.ClientQueryBufferLimit = cmp.Or(c.ClientQueryBufferLimit, d.ClientQueryBufferLimit)
	c.ClientOutputBufferLimit = cmp.Or(c.ClientOutputBufferLimit, d.ClientOutputBufferLimit)
	c.LogLevel = cmp.Or(c.LogLevel, d.LogLevel)
	c.EnableDebugCommand = cmp.Or(c.EnableDebugCommand, d.EnableDebugCommand)
	c.LogFormat = cmp.Or(c.LogFormat, d.LogFormat)
	c.WAN.BatchLimit = cmp.Or(c.WAN.BatchLimit, d.WAN.BatchLimit)
	c.WAN.Window = cmp.Or(c.WAN.Window, d.WAN.Window)
	c.View.Scrub = cmp.Or(c.View.Scrub, d.View.Scrub)
	c.View.ScrubInterval = cmp.Or(c.View.ScrubInterval, d.View.ScrubInterval)
	c.WAN.Heartbeat = cmp.Or(c.WAN.Heartbeat, d.WAN.Heartbeat)
	if len(c.WAN.Listen) == 0 {
		c.WAN.Listen = d.WAN.Listen
	}
	c.WAN.Weights = cmp.Or(c.WAN.Weights, d.WAN.Weights)
	c.derive()
}

// derive fills the fields that follow from others.
func (c *Config) derive() {
	c.GossipPort = cmp.Or(c.GossipPort, c.Port+gossipPortOffset)
	c.WANPort = cmp.Or(c.WANPort, c.Port+wanPortOffset)
	c.Dir = cmp.Or(c.Dir, "data-"+strconv.Itoa(c.Port))
	c.LogLevel = strings.ToLower(c.LogLevel)
	if c.Alias == "" && c.ID != 0 {
		c.Alias = "node" + strconv.Itoa(c.ID)
	}
}

// Addr is where clients are listened for.
func (c Config) Addr() string { return joinPort(c.Bind, c.Port) }

// GossipAddr is where membership is listened for.
func (c Config) GossipAddr() string { return joinPort(c.Bind, c.GossipPort) }

// WANAddr is where deltas are listened for.
func (c Config) WANAddr() string { return joinPort(c.Bind, c.WANPort) }

func joinPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// Level is LogLevel for slog.
func (c Config) Level() slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(c.LogLevel)) != nil {
		return slog.LevelInfo
	}
	return l
}

// Validate returns everything that is wrong with a configuration to which
// EnsureDefaults was applied; none if the node can be started with it. It does
// no I/O, and no message contains a password or secret.
func (c *Config) Validate() Faults {
	var fs Faults
	bad := func(key, format string, a ...any) {
		fs = append(fs, Fault{Key: key, Message: fmt.Sprintf(format, a...)})
	}
	oneOf := func(key, v string, allowed ...string) {
		if !slices.Contains(allowed, v) {
			bad(key, "%q is not one of %s", v, strings.Join(allowed, ", "))
		}
	}
	atLeast := func(key string, v, least Bytes) {
		if v < least {
			bad(key, "%v is too small: at least %v", v, least)
		}
	}

	if c.ID < 0 || c.ID > MaxNodeID {
		bad("id", "%d is outside 1 to %d", c.ID, MaxNodeID)
	}
	for key, name := range map[string]string{"alias": c.Alias, "region": c.Region, "cluster": c.Cluster} {
		if !validName(name) && (name != "" || key == "cluster") {
			bad(key, "%q: up to %d letters, digits and . _ -", clip(name), maxNameLen)
		}
	}

	if !validHost(c.Bind) {
		bad("bind", "%q is not an address or host name (the port is a key of its own)", clip(c.Bind))
	} else if !isLoopback(c.Bind) {
		if c.RequirePass == "" && c.ACLFile == "" && c.ProtectedMode {
			fs = append(fs, Fault{Key: "bind", needs: []string{"requirepass", "requirepass_file", "protected_mode"},
				Message: fmt.Sprintf("%s lets other machines in: set requirepass or requirepass_file (or protected_mode = false where the network keeps strangers out)", c.Bind)})
		}
		if c.Secret == "" {
			fs = append(fs, Fault{Key: "bind", needs: []string{"secret", "secret_file"},
				Message: fmt.Sprintf("%s lets other machines join: set secret or secret_file, the same on every node", c.Bind)})
		}
	}
	if c.Advertise != "" {
		ip, err := netip.ParseAddr(c.Advertise)
		switch {
		case !validHost(c.Advertise):
			bad("advertise", "%q is not an address or host name (a forwarded port is given by advertise_port)", clip(c.Advertise))
		case err == nil && ip.IsUnspecified():
			bad("advertise", "%s cannot be reached from elsewhere: give this node's own address", c.Advertise)
		}
	}
	ports := []struct {
		key   string
		value int
		plus  int
	}{{"port", c.Port, 0}, {"gossip_port", c.GossipPort, gossipPortOffset}, {"wan_port", c.WANPort, wanPortOffset}}
	for i, p := range ports {
		switch {
		case p.plus > 0 && p.value > math.MaxUint16 && p.value == c.Port+p.plus && c.Port <= math.MaxUint16:
			bad(p.key, "port + %d is %d, beyond %d: set %s", p.plus, p.value, math.MaxUint16, p.key)
		case p.plus > 0 && p.value == c.Port+p.plus && (c.Port < 1 || c.Port > math.MaxUint16):
			// Follows from a port that is reported itself.
		case p.value < 1 || p.value > math.MaxUint16:
			bad(p.key, "%d is outside 1 to %d", p.value, math.MaxUint16)
		}
		for _, q := range ports[:i] {
			if p.value == q.value {
				bad(p.key, "%d is also %s: each needs a port of its own", p.value, q.key)
			}
		}
	}
	for key, p := range map[string]int{"advertise_port": c.AdvertisePort, "advertise_gossip_port": c.AdvertiseGossipPort, "advertise_wan_port": c.AdvertiseWANPort} {
		if p < 0 || p > math.MaxUint16 {
			bad(key, "%d is outside 1 to %d", p, math.MaxUint16)
		}
	}

	if t, err := ParseRedis(c.Redis); err != nil {
		bad("redis", "%v", err)
	} else {
		if t.Network == "tcp" && (t.Addr == c.Addr() || isLoopback(hostOf(t.Addr)) && isLoopback(c.Bind) && portOf(t.Addr) == c.Port) {
			bad("redis", "%s is this node's own client port", t.Addr)
		}
		if c.RedisPassword != "" && t.Password != "" {
			bad("redis_password", "the redis address already contains a password")
		}
	}
	if c.Secret != "" && len(c.Secret) < minSecretLen {
		bad("secret", "too short: at least %d characters", minSecretLen)
	}
	switch s := c.WAN.SubscriberSecret; {
	case s == "":
	case len(s) < minSecretLen:
		bad("wan.subscriber_secret", "too short: at least %d characters", minSecretLen)
	case c.Secret == "":
		bad("wan.subscriber_secret", "without secret anybody may follow, and join: set that too")
	case s == c.Secret:
		bad("wan.subscriber_secret", "the same as secret: who knows it could join")
	}
	if c.TLS.RESP || c.TLS.WAN {
		if c.TLS.CertFile == "" {
			bad("tls.cert_file", "needed by tls.%s = true", cond(c.TLS.RESP, "resp", "wan"))
		}
		if c.TLS.KeyFile == "" {
			bad("tls.key_file", "needed by tls.%s = true", cond(c.TLS.RESP, "resp", "wan"))
		}
	} else if c.TLS != (TLSConfig{}) {
		bad("tls", "files are given, but neither tls.resp nor tls.wan is true: nothing would be encrypted")
	}
	if c.TLS.WAN && c.TLS.CAFile == "" {
		bad("tls.ca_file", "needed by tls.wan = true")
	}
	for _, m := range c.Meet {
		if !validHostPort(m) {
			bad("meet", "%q is not host:port", clip(m))
		}
	}
	if c.Metrics != "" && !validHostPort(c.Metrics) {
		bad("metrics", "%q is not host:port", clip(c.Metrics))
	}

	if c.MaxClockSkew < 10*time.Millisecond || c.MaxClockSkew > 24*time.Hour {
		bad("max_clock_skew", "%s is outside 10ms to 24h", formatDuration(c.MaxClockSkew))
	}
	oneOf("fsync", c.Fsync, FsyncAlways, FsyncEverySec, FsyncNo)
	oneOf("enable_debug_command", c.EnableDebugCommand, resp.DebugNo, resp.DebugLocal, resp.DebugYes)
	oneOf("view.scrub", c.View.Scrub, ScrubOff, ScrubReport, ScrubRepair, ScrubAdopt)
	if c.View.ReadCache != 0 && c.View.ReadCache < minReadCache || c.View.ReadCache > maxReadCache {
		bad("view.read_cache", "%s is out of range: 512kb to 2gb, or 0 for none", c.View.ReadCache)
	}
	if c.View.ScrubInterval < 100*time.Millisecond {
		bad("view.scrub_interval", "%s is too short: at least 100ms", formatDuration(c.View.ScrubInterval))
	}
	oneOf("log_level", c.LogLevel, "debug", "info", "warn", "error")
	oneOf("log_format", c.LogFormat, "text", "json")
	atLeast("log_retention_bytes", c.LogRetentionBytes, 1<<20)
	atLeast("key_cache", c.KeyCache, 1<<20)
	for key, d := range map[string]time.Duration{"log_retention_time": c.LogRetentionTime, "timeout": c.Timeout, "wan.verify_interval": c.WAN.VerifyInterval} {
		if d < 0 {
			bad(key, "%s is negative", formatDuration(d))
		}
	}
	if c.MaxClients < 1 {
		bad("maxclients", "%d: at least 1", c.MaxClients)
	}
	atLeast("proto_max_bulk_len", c.ProtoMaxBulkLen, 1<<20)
	atLeast("client_query_buffer_limit", c.ClientQueryBufferLimit, max(c.ProtoMaxBulkLen, 1<<20))
	atLeast("client_output_buffer_limit", c.ClientOutputBufferLimit, 1<<20)
	if c.WAN.Compression < 0 || c.WAN.Compression > 4 {
		bad("wan.compression", "%d is outside 0 to 4", c.WAN.Compression)
	}
	atLeast("wan.batch_limit", c.WAN.BatchLimit, 4<<10)
	atLeast("wan.window", c.WAN.Window, max(c.WAN.BatchLimit, 64<<10))
	if c.WAN.Heartbeat < 10*time.Millisecond || c.WAN.Heartbeat > time.Minute {
		bad("wan.heartbeat", "%s is outside 10ms to 1m", formatDuration(c.WAN.Heartbeat))
	}
	if slices.Min(c.WAN.Weights[:]) < 1 || slices.Max(c.WAN.Weights[:]) > 1000 {
		bad("wan.weights", "%v: each is 1 to 1000", c.WAN.Weights)
	}
	if c.WAN.Limits.Bandwidth != 0 {
		atLeast("wan.limits.bandwidth", c.WAN.Limits.Bandwidth, 1<<10)
	}
	c.validateLinks(bad)
	c.validateQoS(bad)
	fs.sort()
	return fs
}

// ReadFiles reads the files that the configuration names: RequirePass and
// the secrets from theirs (without the line end), and the TLS files to see that they
// are usable. Load has done so; call it for a Config made otherwise.
func (c *Config) ReadFiles() Faults {
	var fs Faults
	read := func(key, path, otherKey string, into *string) {
		if path == "" {
			return
		}
		b, err := readLimited(path, maxSecretFile)
		if *into != "" {
			// The same is no fault: it was read from there before.
			if err != nil || *into != string(bytes.TrimRight(b, "\r\n")) {
				fs = append(fs, Fault{Key: key, Message: "give " + otherKey + " or " + key + ", not both"})
			}
			return
		}
		if err == nil {
			if b = bytes.TrimRight(b, "\r\n"); len(b) == 0 {
				err = fmt.Errorf("%s is empty", path)
			}
		}
		if err != nil {
			fs = append(fs, Fault{Key: key, Message: err.Error()})
			return
		}
		*into = string(b)
	}
	read("requirepass_file", c.RequirePassFile, "requirepass", &c.RequirePass)
	read("secret_file", c.SecretFile, "secret", &c.Secret)
	read("wan.subscriber_secret_file", c.WAN.SubscriberSecretFile, "wan.subscriber_secret", &c.WAN.SubscriberSecret)
	if c.TLS.CertFile != "" && c.TLS.KeyFile != "" {
		if _, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile); err != nil {
			fs = append(fs, Fault{Key: "tls.cert_file", Message: err.Error()})
		}
	}
	if c.TLS.CAFile != "" {
		pem, err := readLimited(c.TLS.CAFile, maxConfigFile)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
			err = fmt.Errorf("%s holds no PEM certificate", c.TLS.CAFile)
		}
		if err != nil {
			fs = append(fs, Fault{Key: "tls.ca_file", Message: err.Error()})
		}
	}
	return fs
}

// Fault is one thing wrong with a configuration.
type Fault struct {
	File    string // configuration file, or empty
	Line    int    // line in File, or 0
	Flag    string // flag that gave the value, such as --port, or empty
	Key     string // key as in the file, such as wan.window
	Message string

	needs []string // keys whose own fault explains this one
}

// Error is the fault on one line: file:line (or flag), key and message.
func (f Fault) Error() string {
	var b strings.Builder
	switch {
	case f.Flag != "":
		b.WriteString(f.Flag + ": ")
	case f.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", f.File, f.Line)
	case f.File != "":
		b.WriteString(f.File + ": ")
	}
	if f.Key != "" && f.Flag != flagName(f.Key) {
		b.WriteString(f.Key + ": ")
	}
	return b.String() + f.Message
}

// Faults is all that is wrong with a configuration, in the order of the file.
type Faults []Fault

// Error lists the faults, one per line.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Err is fs as an error, nil if there are none.
func (fs Faults) Err() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

// sort puts faults of the file first, by line, then those of flags, then the rest.
func (fs Faults) sort() {
	rank := func(f Fault) int {
		switch {
		case f.Line > 0:
			return f.Line
		case f.Flag != "":
			return math.MaxInt - 1
		default:
			return math.MaxInt
		}
	}
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Flag, b.Flag), cmp.Compare(a.Key, b.Key))
	})
}

// RedisTarget is Config.Redis taken apart.
type RedisTarget struct {
	Mode      string   // auto, spawn, embedded or external; what follows is of external only
	Network   string   // tcp or unix; empty for Sentinel
	Addr      string   // host:port or path
	TLS       bool     // rediss://
	Username  string   // of the Redis, or of the Sentinels
	Password  string   // of the Redis, or of the Sentinels
	Sentinels []string // host:port of each Sentinel
	Master    string   // the name the Sentinels know the Redis by
}

// RedisExternal is the Mode of a RedisTarget that is an address.
const RedisExternal = "external"

// ParseRedis takes a value of Config.Redis apart. Its errors contain no password.
func ParseRedis(s string) (RedisTarget, error) {
	switch s {
	case RedisAuto, RedisSpawn, RedisEmbedded:
		return RedisTarget{Mode: s}, nil
	}
	t := RedisTarget{Mode: RedisExternal, Network: "tcp"}
	scheme, rest, isURL := strings.Cut(s, "://")
	if !isURL {
		if guess := nearest(s, []string{RedisAuto, RedisSpawn, RedisEmbedded}); guess != "" {
			return t, fmt.Errorf("%q: did you mean %q?", s, guess)
		}
		if !validHostPort(s) {
			return t, errors.New("not auto, spawn, embedded, host:port, unix:///path, redis://…, rediss://… or sentinel://…")
		}
		t.Addr = s
		return t, nil
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 && scheme != "unix" {
		user, password, hasPassword := strings.Cut(rest[:at], ":")
		if !hasPassword {
			user, password = "", user // redis://password@host, as redis-cli has it
		}
		var err1, err2 error
		t.Username, err1 = url.PathUnescape(user)
		t.Password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return t, errors.New("the user or password is not properly %-encoded")
		}
		rest = rest[at+1:]
	}
	hosts, path, _ := strings.Cut(rest, "/")
	switch scheme {
	case "unix":
		if t.Network, t.Addr = "unix", rest; !filepath.IsAbs(rest) {
			return t, errors.New("a unix socket is written unix:///absolute/path")
		}
	case "redis", "rediss":
		t.TLS = scheme == "rediss"
		if path != "" && path != "0" {
			return t, errors.New("no database can be chosen: the node serves all 16")
		}
		if hosts != "" && !validHostPort(hosts) {
			hosts = net.JoinHostPort(strings.Trim(hosts, "[]"), "6379")
		}
		if t.Addr = hosts; !validHostPort(hosts) {
			return t, errors.New("the host is missing or not valid")
		}
	case "sentinel":
		t.Network, t.Sentinels, t.Master = "", strings.Split(hosts, ","), path
		if path == "" || strings.Contains(path, "/") {
			return t, errors.New("the name of the master is missing: sentinel://host:port,host:port/NAME")
		}
		for _, h := range t.Sentinels {
			if !validHostPort(h) {
				return t, fmt.Errorf("%q of the Sentinels is not host:port", clip(h))
			}
		}
	default:
		return t, fmt.Errorf("scheme %q is not unix, redis, rediss or sentinel", clip(scheme))
	}
	return t, nil
}

func hostOf(addr string) string { h, _, _ := net.SplitHostPort(addr); return h }

func portOf(addr string) int {
	_, p, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(p)
	return n
}

func validHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, err2 := strconv.ParseUint(port, 10, 16)
	return err == nil && err2 == nil && n > 0 && validHost(host)
}

func validHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if s == "" || len(s) > 253 || strings.ContainsFunc(s, func(r rune) bool { return !isNameRune(r) }) {
		return false
	}
	return strings.ContainsFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }) // 300.1.1.1 is no name
}

func validName(s string) bool {
	return s != "" && len(s) <= maxNameLen && !strings.ContainsFunc(s, func(r rune) bool { return !isNameRune(r) })
}

func isNameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_'
}

// isLoopback errs on the side of false: a name is not resolved.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}

func cond(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %v", path, Bytes(limit))
	}
	return b, err
}
