package node

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

func loadText(t *testing.T, text string, flags ...Setting) (Config, string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("constdb.toml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, faults := Load("constdb.toml", flags...)
	return cfg, faults.Error()
}

// Every fault of a document is listed, with its line and key, in the order of
// the document.
func TestFaultsAreAllListed(t *testing.T) {
	tests := []struct {
		name, text, want string
		flags            []Setting
	}{
		{name: "none", text: "id = 1\nalias = \"a\"\n"},
		{name: "empty", text: ""},
		{name: "names of ConstDB", text: "node_id = 1\nnode_alias = \"n1\"\nip = \"127.0.0.1\"\nport = 9001\nlog_level = \"INFO\"\n"},
		{name: "inline and dotted tables", text: "wan = { window = \"9mb\" }\ntls.resp = false\n"},
		{
			name: "types",
			text: `id = "3"
alias = 7
port = 90.5
redis = true
adopt = "yes"
meet = "127.0.0.1:9001"
max_clock_skew = 500
fsync = ["always"]
log_retention_bytes = "lots"
timeout = "5 minutes"
requirepass = 12345678
`,
			want: `constdb.toml:1: id: "3" is not a whole number (without quotes)
constdb.toml:2: alias: "7" is not text: put it in quotes
constdb.toml:3: port: "90.5" is not a whole number
constdb.toml:4: redis: the value is not text: put it in quotes
constdb.toml:5: adopt: "yes" is not true or false (without quotes)
constdb.toml:6: meet: "127.0.0.1:9001" is not a list: write meet = ["host:port"]
constdb.toml:7: max_clock_skew: "500" is not a duration with a unit, such as "500ms", "10s" or "7d"
constdb.toml:8: fsync: a list is not text: put it in quotes
constdb.toml:9: log_retention_bytes: "lots" is not a size, such as "512mb", "1gb" or a number of bytes
constdb.toml:10: timeout: "5 minutes" is not a duration with a unit, such as "500ms", "10s" or "7d"
constdb.toml:11: requirepass: the value is not text: put it in quotes`,
		},
		{
			name: "values",
			text: `# a comment
id = 4096
alias = "two words"
cluster = ""
bind = "127.0.0.1:9001"
port = 70000
advertise = "0.0.0.0"
redis = "embeded"
meet = ["127.0.0.1", "10.0.0.1:9001"]
max_clock_skew = "1us"
fsync = "sometimes"
log_retention_bytes = 0
log_retention_time = "-1h"
maxclients = 0
proto_max_bulk_len = "1k"
client_query_buffer_limit = "64kb"
client_output_buffer_limit = 0
log_level = "loud"
log_format = "xml"
metrics = "9121"
secret = "short"

[tls]
resp = true
[wan]
compression = 9
batch_limit = 1
window = "1mb"
heartbeat = "1h"
`,
			want: `constdb.toml:2: id: 4096 is outside 1 to 4095
constdb.toml:3: alias: "two words": up to 64 letters, digits and . _ -
constdb.toml:4: cluster: "": up to 64 letters, digits and . _ -
constdb.toml:5: bind: "127.0.0.1:9001" is not an address or host name (the port is a key of its own)
constdb.toml:6: port: 70000 is outside 1 to 65535
constdb.toml:7: advertise: 0.0.0.0 cannot be reached from elsewhere: give this node's own address
constdb.toml:8: redis: "embeded": did you mean "embedded"?
constdb.toml:9: meet: "127.0.0.1" is not host:port
constdb.toml:10: max_clock_skew: 1µs is outside 10ms to 24h
constdb.toml:11: fsync: "sometimes" is not one of always, everysec, no
constdb.toml:12: log_retention_bytes: 0 is too small: at least 1mb
constdb.toml:13: log_retention_time: -1h is negative
constdb.toml:14: maxclients: 0: at least 1
constdb.toml:15: proto_max_bulk_len: 1000 is too small: at least 1mb
constdb.toml:16: client_query_buffer_limit: 64kb is too small: at least 1mb
constdb.toml:17: client_output_buffer_limit: 0 is too small: at least 1mb
constdb.toml:18: log_level: "loud" is not one of debug, info, warn, error
constdb.toml:19: log_format: "xml" is not one of text, json
constdb.toml:20: metrics: "9121" is not host:port
constdb.toml:21: secret: too short: at least 16 characters
constdb.toml:26: wan.compression: 9 is outside 0 to 4
constdb.toml:27: wan.batch_limit: 1 is too small: at least 4kb
constdb.toml:29: wan.heartbeat: 1h is outside 10ms to 1m
tls.cert_file: needed by tls.resp = true
tls.key_file: needed by tls.resp = true`,
		},
		{
			name: "keys",
			text: `fsnyc = "no"
gossip-port = 1
window = "8mb"
work_dir = "x"
xyzzy = 1
id = 1
node_id = 2
[tsl]
resp = true
cert_file = "ignored with its table"
[wan]
port = 9002
windw = "8mb"
[[tls]]
resp = true
`,
			want: `constdb.toml:1: fsnyc: unknown key: did you mean fsync?
constdb.toml:2: gossip-port: unknown key: did you mean gossip_port?
constdb.toml:3: window: unknown key: did you mean wan.window?
constdb.toml:4: work_dir: unknown key: the data directory is "dir"
constdb.toml:5: xyzzy: unknown key
constdb.toml:7: id: given twice, first on line 6
constdb.toml:8: [tsl]: unknown table: did you mean [tls]?
constdb.toml:12: wan.port: unknown key: port belongs above the [wan] line
constdb.toml:13: wan.windw: unknown key: did you mean wan.window?
constdb.toml:14: [tls]: a table is written [tls], once`,
		},
		{
			name: "rules",
			text: `[wan]
weights = "8:4:2"
bandwidth = "1mb"
[wan.limit]
[wan.limits]
bandwidth = 5
[[qos]]
db = 16
lane = "realtime"
[[qos]]
keys = ""
lane = "idle"
lane = "idle"
[[qos]]
pattern = "a*"
key = "b"
db = "0"
[[qos]]
lane = "low"
[[qos]]
keys = "x"
lane = "low"
[qos]
lane = "low"
[[wan]]
[[qos]]
lane = "fast"
`,
			want: `constdb.toml:2: wan.weights: "8:4:2" is not 4 weights, such as "8:4:2:1"
constdb.toml:3: wan.bandwidth: unknown key: did you mean wan.limits.bandwidth?
constdb.toml:4: [wan.limit]: unknown table: did you mean [wan.limits]?
constdb.toml:6: wan.limits.bandwidth: 5 is too small: at least 1kb
constdb.toml:8: qos[1].db: 16 is outside 0 to 15
constdb.toml:11: qos[2].keys: an empty pattern fits the empty key alone: leave it out, or write "*"
constdb.toml:13: qos[2].lane: given twice, first on line 12
constdb.toml:14: qos[3].lane: missing: a rule says which lane its keys are in
constdb.toml:15: qos[3].pattern: unknown key
constdb.toml:16: qos[3].key: unknown key: did you mean keys?
constdb.toml:17: qos[3].db: "0" is not a whole number (without quotes)
constdb.toml:22: qos[5].lane: never used: rule 4 fits every key before it
constdb.toml:23: [qos]: each of these is written below a line [[qos]] of its own
constdb.toml:25: [wan]: a table is written [wan], once
constdb.toml:27: qos[6].lane: "fast" is not one of realtime, high, low, idle`,
		},
		{
			name: "links",
			text: `[wan]
listen = ["tcp", "quic", "wss://:9443/x", "ws://:11001", "http://x:1", "quic://h:1/p", "tcp://h", "ws://u:p@h:1", "tcp://:0", "quic://:10001", "ws://:9001"]
links = ["quic", "wss://edge.example.com:443/replicatord", "wss://a b:1"]
proxy = "socks://user:hunter2@h:1"
[[peer]]
id = 2
links = ["tcp://10.0.0.1:11001", "quic://:1"]
[[peer]]
id = 2
links = []
[[peer]]
links = ["wss://h:1/a"]
id = 5000
[[peer]]
[peer]
`,
			want: `constdb.toml:2: wan.listen: more than 8 links
constdb.toml:2: wan.listen: "wss://:9443/x" needs a certificate: set tls.wan
constdb.toml:2: wan.listen: "ws://:11001" is at the port of tcp: each needs one of its own
constdb.toml:2: wan.listen: "http": there are tcp, quic, ws and wss
constdb.toml:2: wan.listen: "quic://h:1/p": only ws and wss have a path
constdb.toml:2: wan.listen: "tcp://h" has no port
constdb.toml:2: wan.listen: "ws://u:xxxxx@h:1": a link has a host, a port and at most a path
constdb.toml:2: wan.listen: "tcp://:0": the port is outside 1 to 65535
constdb.toml:2: wan.listen: "quic://:10001" is at the port of gossip_port: each needs one of its own
constdb.toml:2: wan.listen: "ws://:9001" is at the port of port: each needs one of its own
constdb.toml:3: wan.links: "quic" is not a URL
constdb.toml:3: wan.links: "wss://a b:1" is not a URL
constdb.toml:4: wan.proxy: not http://host:port, or http://user:password@host:port
constdb.toml:7: peer[1].links: "quic://:1" has no host
constdb.toml:9: peer[2].id: 2 has a table before this one
constdb.toml:10: peer[2].links: 0 links: give 1 to 8
constdb.toml:13: peer[3].id: 5000 is outside 1 to 4095
constdb.toml:14: peer[4].id: missing: whose links are these?
constdb.toml:15: [peer]: each of these is written below a line [[peer]] of its own
peer[4].links: 0 links: give 1 to 8`,
		},
		{
			name:  "rules elsewhere",
			text:  "qos = [{lane = \"low\"}]\n",
			flags: []Setting{{Key: "qos[1].lane", Value: "low", Flag: "--set"}, {Key: "wan.weights", Value: "0:1:1:1", Flag: "--set"}},
			want: `constdb.toml:1: qos: these are written in the file, each below a line [[qos]]
--set: qos[1].lane: unknown key
--set: wan.weights: 0:1:1:1: each is 1 to 1000`,
		},
		{
			name: "syntax, after other faults",
			text: "id = 9999\nport 9001\n",
			want: "constdb.toml:1: id: 9999 is outside 1 to 4095\nconstdb.toml:2: not valid TOML: expected '=' after key",
		},
		{
			name: "table twice",
			text: "[wan]\nwindow = \"8mb\"\n[tls]\n[wan]\nheartbeat = \"1s\"\n",
			want: "constdb.toml:4: not valid TOML: table wan already exists",
		},
		{
			name: "open to the network",
			text: "bind = \"0.0.0.0\"\n",
			want: "constdb.toml:1: bind: 0.0.0.0 lets other machines in: set requirepass or requirepass_file (or protected_mode = false where the network keeps strangers out)\n" +
				"constdb.toml:1: bind: 0.0.0.0 lets other machines join: set secret or secret_file, the same on every node",
		},
		{
			name: "open to the network, on purpose",
			text: "bind = \"::\"\nprotected_mode = false\nsecret = \"0123456789abcdef\"\n",
		},
		{
			name: "a fault is not blamed on what follows from it",
			text: "bind = \"10.1.2.3\"\nrequirepass = 5\nsecret_file = \"missing\"\nport = 0\n",
			want: "constdb.toml:2: requirepass: the value is not text: put it in quotes\n" +
				"constdb.toml:3: secret_file: open missing: no such file or directory\n" +
				"constdb.toml:4: port: 0 is outside 1 to 65535",
		},
		{
			name: "ports",
			text: "port = 64000\ngossip_port = 64000\n",
			want: "constdb.toml:2: gossip_port: 64000 is also port: each needs a port of its own\n" +
				"wan_port: port + 2000 is 66000, beyond 65535: set wan_port",
		},
		{
			name: "its own Redis",
			text: "redis = \"localhost:9001\"\n",
			want: "constdb.toml:1: redis: localhost:9001 is this node's own client port",
		},
		{
			name: "tls without use",
			text: "[tls]\nca_file = \"missing\"\n",
			want: "constdb.toml:2: tls.ca_file: open missing: no such file or directory\n" +
				"tls: files are given, but neither tls.resp nor tls.wan is true: nothing would be encrypted",
		},
		{
			name:  "flags win, and their faults follow the file's",
			text:  "port = 1\nid = 5000\nalias = \"x\"\n",
			flags: []Setting{{Key: "port", Value: "0x10"}, {Key: "meet", Value: "a:1, b"}, {Key: "wan.window", Value: "1", Flag: "--set"}},
			want: `constdb.toml:2: id: 5000 is outside 1 to 4095
--meet: "b" is not host:port
--port: "0x10" is not a whole number
--set: wan.window: 1 is too small: at least 256kb`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := loadText(t, tt.text, tt.flags...); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

func TestLoadTakesValues(t *testing.T) {
	cfg, faults := loadText(t, `
node_id = 0x1F
node_alias = "oslo-1"
ip = "::1"
port = 7_000
dir = '/var/lib/replicatord'
meet = [
  "10.0.0.1:9001", # a comment
  "10.0.0.2:9001",
]
max_clock_skew = "1d"
log_retention_bytes = "2GB"
log_retention_time = 0
proto_max_bulk_len = 1048576
wan.window = "3m"
`, Setting{Key: "port", Value: "7100"}, Setting{Key: "fsync", Value: "always"})
	if faults != "" {
		t.Fatal(faults)
	}
	want := DefaultConfig()
	want.ID, want.Alias, want.Bind, want.Port = 31, "oslo-1", "::1", 7100
	want.GossipPort, want.WANPort, want.Dir = 8100, 9100, "/var/lib/replicatord"
	want.Meet = []string{"10.0.0.1:9001", "10.0.0.2:9001"}
	want.MaxClockSkew, want.LogRetentionBytes, want.LogRetentionTime = 24*time.Hour, 2<<30, 0
	want.ProtoMaxBulkLen, want.Fsync, want.WAN.Window = 1<<20, FsyncAlways, 3_000_000
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
	if got := cfg.GossipAddr(); got != "[::1]:8100" {
		t.Errorf("GossipAddr %s", got)
	}
}

func TestDefaults(t *testing.T) {
	cfg, faults := Load("")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if cfg.Addr() != "127.0.0.1:9001" || cfg.GossipPort != 10001 || cfg.WANPort != 11001 || cfg.Dir != "data-9001" || cfg.Alias != "" {
		t.Errorf("%+v", cfg)
	}
	cfg.ID = 12
	cfg.EnsureDefaults()
	if cfg.Alias != "node12" {
		t.Errorf("alias %q", cfg.Alias)
	}
	bare := Config{Port: 9002, ProtectedMode: true, PubSubGlobal: true, LogRetentionTime: 7 * 24 * time.Hour, WAN: WANConfig{Compression: 1, SyncByDifference: true, VerifyInterval: 15 * time.Minute}, View: ViewConfig{ReadCache: 64 << 20}}
	bare.EnsureDefaults()
	want, _ := Load("", Setting{Key: "port", Value: "9002"})
	if !reflect.DeepEqual(bare, want) {
		t.Errorf("got  %+v\nwant %+v", bare, want)
	}
}

// No message and no listing contains what must stay secret, however wrong the
// configuration is.
func TestSecretsAreNotShown(t *testing.T) {
	const secret = "s3cr3t"
	documents := []string{
		"requirepass = \"" + secret + "\"\nsecret = \"" + secret + "\"\nredis_password = \"" + secret + "\"\nredis = \"h:1\"",
		"secret = [\"" + secret + "\"]\nrequirepass = [\"" + secret + "\"]",
		"redis = \"redis://u:" + secret + "@host:bad/3\"",
		"redis = \"redis://u:" + secret + "@host/3\"\nredis_password = \"" + secret + "\"",
		"redis = \"redis://u:" + secret + "%zz@host\"",
		"redis = \"rediss://" + secret + "@h\"",
		"redis = \"sentinel://u:" + secret + "@h:1/\"",
		"redis = \"sentinel://u:" + secret + "@h:1,h/m\"",
		"redis = \"http://u:" + secret + "@h:1\"",
		"redis = [\"redis://u:" + secret + "@h:1\"]",
		"secret = \"" + secret + "\nrequirepass = \"" + secret + " \"",
		"requirepass = \"" + secret + "\"\nrequirepass_file = \"x\"",
	}
	for _, text := range documents {
		cfg, faults := loadText(t, text)
		if strings.Contains(faults, secret) {
			t.Errorf("%s\nshown in: %s", text, faults)
		}
		for _, s := range cfg.Settings() {
			if strings.Contains(s.Value, secret) {
				t.Errorf("%s\nshown as %s = %s", text, s.Key, s.Value)
			}
		}
	}
}

func TestParseRedis(t *testing.T) {
	external := func(t RedisTarget) RedisTarget {
		t.Mode = RedisExternal
		if t.Network == "" && t.Sentinels == nil {
			t.Network = "tcp"
		}
		return t
	}
	tests := map[string]RedisTarget{
		"auto":                          {Mode: RedisAuto},
		"spawn":                         {Mode: RedisSpawn},
		"embedded":                      {Mode: RedisEmbedded},
		"127.0.0.1:6379":                external(RedisTarget{Addr: "127.0.0.1:6379"}),
		"[::1]:6380":                    external(RedisTarget{Addr: "[::1]:6380"}),
		"unix:///run/redis.sock":        external(RedisTarget{Network: "unix", Addr: "/run/redis.sock"}),
		"redis://host":                  external(RedisTarget{Addr: "host:6379"}),
		"redis://[::1]/0":               external(RedisTarget{Addr: "[::1]:6379"}),
		"redis://pw@host:7":             external(RedisTarget{Addr: "host:7", Password: "pw"}),
		"rediss://me:p%40w@host:7/":     external(RedisTarget{Addr: "host:7", TLS: true, Username: "me", Password: "p@w"}),
		"sentinel://h:1,i:2/main":       external(RedisTarget{Sentinels: []string{"h:1", "i:2"}, Master: "main"}),
		"sentinel://u:p@[::1]:26379/m1": external(RedisTarget{Sentinels: []string{"[::1]:26379"}, Master: "m1", Username: "u", Password: "p"}),
	}
	for text, want := range tests {
		if got, err := ParseRedis(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "host", "host:0", "host:99999", ":6379", "300.1.1.1:6379", "redis://", "redis://h:x", "redis://h/1", "unix://x", "unix://",
		"sentinel://h:1", "sentinel://h/m", "sentinel:///m", "http://h:1", "/run/redis.sock", "Spawn",
	} {
		if got, err := ParseRedis(text); err == nil {
			t.Errorf("%q: %+v, no error", text, got)
		}
	}
}

func TestBytesText(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "17": 17, "17b": 17, "1k": 1000, "1kb": 1024, "1K": 1000, "3Mb": 3 << 20, "512mb": 512 << 20, "1g": 1e9, "1GB": 1 << 30, "1_000": 1000,
	} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%s: %d, %v", text, b, err)
		}
		var again Bytes
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%s: %v does not read back: %v, %v", text, b, again, err)
		}
	}
	for _, text := range []string{"", "mb", "-1", "1.5gb", "1tb", "9999999999gb", "99999999999999999999", "1 mb"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %v, no error", text, b)
		}
	}
}

func TestDurationText(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "500ms": 500 * time.Millisecond, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1h": time.Hour, "90m": 90 * time.Minute,
		"1m": time.Minute, "10m5s": 605 * time.Second, "-1h": -time.Hour,
	} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if again, err := ParseDuration(formatDuration(got)); err != nil || again != got {
			t.Errorf("%s: %s does not read back: %v, %v", text, formatDuration(got), again, err)
		}
	}
	for _, text := range []string{"", "5", "d", "1w", "-1d", "1d-1h", "1dd", "99999999d", "1.5d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: %v, no error", text, got)
		}
	}
}

func TestFilesAreRead(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"secret": "0123456789abcdef\r\n", "pass": " with spaces \n", "empty": "\n", "big": strings.Repeat("x", maxSecretFile+1), "cert": "no PEM",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, faults := Load("", Setting{Key: "secret_file", Value: "secret"}, Setting{Key: "requirepass_file", Value: "pass"}, Setting{Key: "bind", Value: "0.0.0.0"})
	if len(faults) > 0 || cfg.Secret != "0123456789abcdef" || cfg.RequirePass != " with spaces " {
		t.Errorf("%q, %q: %v", cfg.Secret, cfg.RequirePass, faults)
	}
	for key, file := range map[string]string{"secret_file": "empty", "requirepass_file": "big", "tls.ca_file": "cert", "tls.cert_file": "cert"} {
		flags := []Setting{{Key: key, Value: file}, {Key: "tls.resp", Value: "true"}, {Key: "tls.key_file", Value: "cert"}}
		if _, faults := Load("", flags...); !strings.Contains(faults.Error(), flagName(key)+": ") {
			t.Errorf("%s = %s: %v", key, file, faults)
		}
	}
	if _, faults := Load("nowhere.toml", Setting{Key: "id", Value: "x"}); len(faults) != 2 {
		t.Errorf("a missing file and a bad flag: %v", faults)
	}
}

// The example file explains every key, once, and the values it shows are the
// defaults where there is one.
func TestExampleFile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "constdb.toml.example"))
	if err != nil {
		t.Fatal(err)
	}
	if _, faults := loadText(t, string(text)); faults != "" {
		t.Errorf("the example as it is: %s", faults)
	}
	// A setting that is not in force is written "#key = value"; prose has a
	// space after the #.
	all := regexp.MustCompile(`(?m)^#(\w+ = )`).ReplaceAllString(string(text), "$1")
	all = regexp.MustCompile(`(?m)^#   (\[\[\w+\]\]|\w+ = )`).ReplaceAllString(all, "$1")
	cfg, faults := loadText(t, all)
	for line := range strings.Lines(faults) {
		// The files it names do not exist here, and no switch is on that uses them.
		if !strings.Contains(line, ": open /") && !strings.HasPrefix(line, "tls: files are given") {
			t.Errorf("the example with everything in force: %s", line)
		}
	}
	var table string
	shown := map[string]int{}
	for line := range strings.Lines(all) {
		if m := regexp.MustCompile(`^\[+([\w.]+)\]`).FindStringSubmatch(line); m != nil {
			table = m[1] + "."
		}
		if m := regexp.MustCompile(`^(\w+) = `).FindStringSubmatch(line); m != nil {
			shown[table+m[1]]++
		}
	}
	defaults := DefaultConfig()
	defaults.derive()
	isDefault := map[string]string{}
	for _, s := range defaults.Settings() {
		isDefault[s.Key] = s.Value
	}
	tables := map[string]string{
		"qos":  `* "session:*" realtime, 3 "*" idle`,
		"peer": "2 quic://10.8.0.2:11002 wss://edge.example.com:443/replicatord",
	}
	for _, s := range cfg.Settings() {
		if want := tables[s.Key]; want != "" {
			if s.Value != want {
				t.Errorf("the tables [[%s]] of the example are %q, want %q", s.Key, s.Value, want)
			}
			continue
		}
		if shown[s.Key] != 1 {
			t.Errorf("%s is shown %d times", s.Key, shown[s.Key])
		}
		if d := isDefault[s.Key]; d != "" && d != "0" && d != "false" && s.Value != d {
			t.Errorf("%s = %s is shown, the default is %s", s.Key, s.Value, d)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("id = 1\n[wan]\nwindow = \"8mb\"")
	f.Add("a.b.c = [1, {x = 2}]\n[[t]]\n\"\" = 1979-05-27")
	f.Add("meet = [\n# c\n\"a:1\",]\nid = 0xFFFFFFFFFF")
	f.Add("redis = \"redis://a:b@[::1]\"\n=\x00")
	f.Add("wan = {window = {x = 1}}\nwan = 3")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "f.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, faults := Load(path)
		if len(faults) == 0 && len(cfg.Validate()) > 0 {
			t.Errorf("accepted, but not valid: %v", cfg.Validate())
		}
		_ = cfg.Settings()
	})
}
