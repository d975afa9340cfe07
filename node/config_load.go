package node

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	// The AST, because Decode stops at the first wrong value and keeps no lines
	// for right ones. Its API may change between releases; go.mod pins it.
	"github.com/pelletier/go-toml/v2/unstable"
)

// Setting is one key and its value as text.
type Setting struct {
	Key   string // as in the file, such as wan.window
	Value string
	Flag  string // for faults: where the value came from, such as --port; empty: the flag named like the key
}

// keyAliases are other spellings: those of ConstDB's configuration file.
var keyAliases = map[string]string{"node_id": "id", "node_alias": "alias", "ip": "bind"}

// keyHints say what to do with keys that other systems know.
var keyHints = map[string]string{
	"work_dir":                    `the data directory is "dir"`,
	"daemon":                      "a node stays in the foreground; let a service manager start it",
	"log":                         `logs go to standard error; see "log_level" and "log_format"`,
	"threads":                     "not needed: remove it",
	"repl_backlog_limit":          `the log's size is "log_retention_bytes"`,
	"replica_heartbeat_frequency": `see "heartbeat" in [wan]`,
	"replica_gossip_frequency":    "not needed: remove it",
	"tcp_backlog":                 "not needed: remove it",
	"max_exec_per_round":          "not needed: remove it",
	"hz":                          "not needed: remove it",
	"databases":                   "a node always has 16 databases",
	"password":                    `the password of clients is "requirepass"`,
}

// secretKeys hold values that no message and no listing shows.
var secretKeys = []string{"requirepass", "secret", "redis_password", "wan.proxy", "wan.subscriber_secret"}

// Load reads the file at path (none if path is empty), puts flags over it,
// fills defaults, reads the files it names, and validates the whole. It reports
// every fault it finds, not only the first; the Config is to be used only if
// there is none.
func Load(path string, flags ...Setting) (Config, Faults) {
	l := loader{cfg: DefaultConfig(), file: path, from: map[string]Fault{}, broken: map[string]bool{}}
	if path != "" {
		if text, err := readLimited(path, maxConfigFile); err != nil {
			l.add(Fault{Message: err.Error()})
		} else {
			l.parse(text)
		}
	}
	for _, s := range flags {
		l.flag(s)
	}
	l.cfg.derive()
	l.judge(l.cfg.ReadFiles())
	l.judge(l.cfg.Validate())
	l.faults.sort()
	return l.cfg, l.faults
}

// loader gathers settings and faults. Each key is either taken or broken.
type loader struct {
	cfg    Config
	file   string
	faults Faults
	from   map[string]Fault // where each key was given last
	broken map[string]bool  // keys with a fault of their own
}

func (l *loader) add(f Fault) {
	l.faults = append(l.faults, f)
	if f.Key != "" {
		l.broken[f.Key] = true
	}
}

// judge adds faults found in the finished configuration, each with the place
// where its key was given, except those that another fault explains.
func (l *loader) judge(fs Faults) {
	broken := func(key string) bool { return l.broken[key] }
	found := Faults{}
	for _, f := range fs {
		if !broken(f.Key) && !slices.ContainsFunc(f.needs, broken) {
			at := l.from[f.Key]
			f.File, f.Line, f.Flag = at.File, at.Line, at.Flag
			found = append(found, f)
		}
	}
	for _, f := range found {
		l.add(f)
	}
}

func (l *loader) flag(s Setting) {
	at := Fault{Flag: s.Flag, Key: s.Key}
	if at.Flag == "" {
		at.Flag = flagName(s.Key)
	}
	l.take(at, value{text: s.Value, kind: unstable.Invalid})
}

func flagName(key string) string { return "--" + strings.ReplaceAll(key, "_", "-") }

// take sets one key, or adds the fault.
func (l *loader) take(at Fault, v value) {
	if key, ok := keyAliases[at.Key]; ok {
		at.Key = key
	}
	into, key, fields := reflect.ValueOf(&l.cfg).Elem(), at.Key, configFields
	for _, t := range configTables {
		// Of the table under way, if it is one of several.
		if last, ok := t.last(&l.cfg); ok && at.Line > 0 && strings.HasPrefix(key, t.name+"[") {
			into, fields = last, t.fields
			_, key, _ = strings.Cut(key, "].")
		}
	}
	i := slices.IndexFunc(fields, func(f configField) bool { return f.key == key })
	if i < 0 {
		at.Message = unknownKey(key, fields)
		l.add(at)
		return
	}
	if was, twice := l.from[at.Key]; twice && was.Key != "" && was.Line > 0 && at.Line > 0 {
		at.Message = fmt.Sprintf("given twice, first on line %d", was.Line)
		l.add(at)
		return
	}
	l.from[at.Key] = at
	if err := fields[i].set(into, v); err != nil {
		at.Message = err.Error()
		l.add(at)
	}
}

// parse takes all settings of a TOML document.
func (l *loader) parse(text []byte) {
	var p unstable.Parser
	p.Reset(text)
	line := func(n *unstable.Node) int { return p.Shape(n.Raw).Start.Line }
	table, skip := "", false
	before := len(l.faults)
	for p.NextExpression() {
		n := p.Expression()
		switch n.Kind {
		case unstable.Table, unstable.ArrayTable:
			name, at := dotted(n.Key(), line)
			table, skip = name+".", false
			known := slices.ContainsFunc(configFields, func(f configField) bool { return strings.HasPrefix(f.key, table) })
			t := tableNamed(name)
			switch fault := (Fault{File: l.file, Line: at, Key: "[" + name + "]"}); {
			case t != nil && n.Kind == unstable.ArrayTable:
				table = tableKey(name, t.add(&l.cfg), "")
				l.from[table+t.needs] = Fault{File: l.file, Line: at} // where it is missing
			case t != nil:
				fault.Message = "each of these is written below a line [[" + name + "]] of its own"
				skip = true
				l.add(fault)
			case !known:
				fault.Message = unknownTable(name)
				skip = true
				l.add(fault)
			case n.Kind == unstable.ArrayTable:
				fault.Message = "a table is written [" + name + "], once"
				skip = true
				l.add(fault)
			}
		case unstable.KeyValue:
			if !skip {
				l.keyValue(&p, n, table, line)
			}
		}
	}
	// The parser checks one expression at a time. Decode checks the document
	// too: tables defined twice, numbers out of range, and the like.
	if p.Error() != nil || len(l.faults) == before {
		var doc map[string]any
		err := toml.Unmarshal(text, &doc)
		if err == nil && p.Error() != nil {
			err = p.Error()
		}
		var de *toml.DecodeError
		if errors.As(err, &de) {
			at, _ := de.Position()
			l.add(Fault{File: l.file, Line: at, Message: "not valid TOML: " + strings.TrimPrefix(de.Error(), "toml: ")})
		} else if err != nil {
			l.add(Fault{File: l.file, Message: "not valid TOML: " + strings.TrimPrefix(err.Error(), "toml: ")})
		}
	}
}

func (l *loader) keyValue(p *unstable.Parser, n *unstable.Node, table string, line func(*unstable.Node) int) {
	name, at := dotted(n.Key(), line)
	name = table + name
	v := n.Value()
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			l.keyValue(p, it.Node(), name+".", line)
		}
	case unstable.Array:
		list := value{kind: v.Kind}
		for it := v.Children(); it.Next(); {
			if it.Node().Kind != unstable.Comment {
				list.items = append(list.items, value{text: string(it.Node().Data), kind: it.Node().Kind})
			}
		}
		l.take(Fault{File: l.file, Line: at, Key: name}, list)
	default:
		l.take(Fault{File: l.file, Line: at, Key: name}, value{text: string(v.Data), kind: v.Kind})
	}
}

// dotted joins the parts of a key and says on which line it starts.
func dotted(it unstable.Iterator, line func(*unstable.Node) int) (string, int) {
	var parts []string
	at := 0
	for it.Next() {
		if at == 0 {
			at = line(it.Node())
		}
		parts = append(parts, string(it.Node().Data))
	}
	return strings.Join(parts, "."), at
}

// unknownKey says what to do about a key that is not among the fields.
func unknownKey(key string, fields []configField) string {
	if hint, ok := keyHints[key]; ok {
		return "unknown key: " + hint
	}
	table, leaf, nested := "", key, false
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		table, leaf, nested = key[:i], key[i+1:], true
	}
	keys := make([]string, 0, len(fields))
	for _, f := range fields {
		switch {
		case nested && f.key == leaf:
			return fmt.Sprintf("unknown key: %s belongs above the [%s] line", leaf, table)
		case strings.HasSuffix(f.key, "."+leaf), !nested && strings.HasSuffix(f.key, "."+key):
			return fmt.Sprintf("unknown key: did you mean %s?", f.key)
		}
		keys = append(keys, f.key)
	}
	if &fields[0] == &configFields[0] {
		keys = slices.AppendSeq(keys, maps.Keys(keyAliases))
	}
	slices.Sort(keys)
	if guess := nearest(strings.ReplaceAll(key, "-", "_"), keys); guess != "" {
		return fmt.Sprintf("unknown key: did you mean %s?", guess)
	}
	return "unknown key"
}

func unknownTable(name string) string {
	if guess := nearest(name, []string{"tls", "wan", "wan.limits", "view", "[peer]", "[qos]"}); guess != "" {
		return fmt.Sprintf("unknown table: did you mean [%s]?", guess)
	}
	return "unknown table: there are [tls], [wan], [wan.limits], [[peer]] and [[qos]]"
}

// nearest returns the candidate that a typing error made s out of, or "".
func nearest(s string, candidates []string) string {
	best, bestDistance := "", max(1, len(s)/3)+1
	for _, c := range candidates {
		if d := editDistance(s, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, changes, and swaps of neighbours.
func editDistance(a, b string) int {
	if len(a) > maxNameLen {
		return math.MaxInt
	}
	var before []int // row i-1, where row is i: distances of a[:i] to each b[:j]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			change := row[j]
			if a[i] != b[j] {
				change++
			}
			next[j+1] = min(change, next[j]+1, row[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// value is a value as it was written. The kind Invalid stands for a flag, where
// everything is text.
type value struct {
	text  string
	kind  unstable.Kind
	items []value
}

// configField is one key of Config.
type configField struct {
	key   string
	index []int
}

// configFields are all keys in the order of Config.
var configFields = fieldsOf(reflect.TypeFor[Config](), "", nil)

// configTable is a kind of table of which there may be several.
type configTable struct {
	name   string
	fields []configField
	needs  string // a key that none may lack
	// add appends one to the configuration and returns its index.
	add func(*Config) int
	// last returns the one added last.
	last func(*Config) (reflect.Value, bool)
}

// configTables are all kinds of tables of which there may be several.
var configTables = []configTable{
	tableOf("peer", "id", Peer{}, func(c *Config) *[]Peer { return &c.Peers }),
	tableOf("qos", "lane", QoSRule{DB: AnyDB, Keys: "*"}, func(c *Config) *[]QoSRule { return &c.QoS }),
}

func tableOf[T any](name, needs string, empty T, list func(*Config) *[]T) configTable {
	return configTable{
		name: name, needs: needs, fields: fieldsOf(reflect.TypeFor[T](), "", nil),
		add: func(c *Config) int {
			l := list(c)
			*l = append(*l, empty)
			return len(*l) - 1
		},
		last: func(c *Config) (reflect.Value, bool) {
			l := *list(c)
			if len(l) == 0 {
				return reflect.Value{}, false
			}
			return reflect.ValueOf(&l[len(l)-1]).Elem(), true
		},
	}
}

func tableNamed(name string) *configTable {
	for i := range configTables {
		if configTables[i].name == name {
			return &configTables[i]
		}
	}
	return nil
}

// tableKey is the key of a setting of one of several tables, in faults; they are
// counted from 1.
func tableKey(table string, i int, key string) string {
	return fmt.Sprintf("%s[%d].%s", table, i+1, key)
}

func fieldsOf(t reflect.Type, prefix string, index []int) []configField {
	var fields []configField
	for i := range t.NumField() {
		f, key := t.Field(i), prefix+t.Field(i).Tag.Get("toml")
		at := append(slices.Clone(index), i)
		if f.Type.Kind() == reflect.Struct {
			fields = append(fields, fieldsOf(f.Type, key+".", at)...)
		} else {
			fields = append(fields, configField{key, at})
		}
	}
	return fields
}

func (f configField) secret() bool { return slices.Contains(secretKeys, f.key) }

// set parses v into the field of a struct. Its errors say what was expected,
// and show the value unless it may be a secret.
func (f configField) set(into reflect.Value, v value) error {
	target := into.FieldByIndex(f.index)
	given := "the value"
	if v.kind == unstable.Array {
		given = "a list"
	} else if !f.secret() && f.key != "redis" {
		given = strconv.Quote(clip(v.text))
	}
	isText := v.kind == unstable.String || v.kind == unstable.Invalid
	switch p := target.Addr().Interface().(type) {
	case *string:
		if !isText {
			return fmt.Errorf("%s is not text: put it in quotes", given)
		}
		*p = v.text
	case *bool:
		switch {
		case v.kind != unstable.Bool && v.kind != unstable.Invalid, v.text != "true" && v.text != "false":
			return fmt.Errorf("%s is not true or false%s", given, cond(v.kind == unstable.String, " (without quotes)", ""))
		}
		*p = v.text == "true"
	case *int:
		base := 10
		if v.kind == unstable.Integer {
			base = 0 // TOML's 0x1F and 1_000
		}
		n, err := strconv.ParseInt(v.text, base, 32)
		if err != nil || v.kind != unstable.Integer && v.kind != unstable.Invalid {
			return fmt.Errorf("%s is not a whole number%s", given, cond(v.kind == unstable.String, " (without quotes)", ""))
		}
		*p = int(n)
	case *time.Duration:
		d, err := ParseDuration(v.text)
		if err != nil || !isText && v.text != "0" {
			return fmt.Errorf("%s is not a duration with a unit, such as \"500ms\", \"10s\" or \"7d\"", given)
		}
		*p = d
	case *[]string:
		return f.setList(p, v, given)
	case *[]QoSRule, *[]Peer:
		return fmt.Errorf("these are written in the file, each below a line [[%s]]", f.key)
	case *Weights:
		if !isText || p.UnmarshalText([]byte(v.text)) != nil {
			return fmt.Errorf("%s is not %d weights, such as %q", given, len(p), Weights{8, 4, 2, 1})
		}
	case encoding.TextUnmarshaler: // Bytes
		if !isText && v.kind != unstable.Integer || p.UnmarshalText([]byte(v.text)) != nil {
			return fmt.Errorf("%s is not a size, such as \"512mb\", \"1gb\" or a number of bytes", given)
		}
	default:
		panic("unhandled type of config field " + f.key)
	}
	return nil
}

func (f configField) setList(p *[]string, v value, given string) error {
	*p = nil
	switch v.kind {
	case unstable.Invalid:
		for s := range strings.SplitSeq(v.text, ",") {
			if s = strings.TrimSpace(s); s != "" {
				*p = append(*p, s)
			}
		}
	case unstable.Array:
		for _, item := range v.items {
			if item.kind != unstable.String {
				return fmt.Errorf("%q in the list is not text: put it in quotes", clip(item.text))
			}
			*p = append(*p, item.text)
		}
	default:
		return fmt.Errorf("%s is not a list: write %s = [%q]", given, f.key, cond(f.key == "meet", "host:port", "…"))
	}
	return nil
}

// Settings lists every key with its value in the order of Config. Secrets are
// shown as "(set)".
func (c Config) Settings() []Setting {
	out := make([]Setting, len(configFields))
	for i, f := range configFields {
		text := ""
		switch v := reflect.ValueOf(c).FieldByIndex(f.index).Interface().(type) {
		case time.Duration:
			text = formatDuration(v)
		case []string:
			text = strings.Join(v, ",")
		case []QoSRule:
			text = listed(v)
		case []Peer:
			text = listed(v)
		default:
			text = fmt.Sprint(v)
		}
		if text != "" && f.secret() {
			text = "(set)"
		}
		if f.key == "redis" {
			text = redactRedis(text)
		}
		out[i] = Setting{Key: f.key, Value: text}
	}
	return out
}

// listed shows several tables on one line.
func listed[T fmt.Stringer](list []T) string {
	parts := make([]string, len(list))
	for i, x := range list {
		parts[i] = x.String()
	}
	return strings.Join(parts, ", ")
}

// redactRedis hides the credentials in a value of Config.Redis.
func redactRedis(s string) string {
	scheme, rest, isURL := strings.Cut(s, "://")
	if at := strings.LastIndexByte(rest, '@'); isURL && at >= 0 {
		return scheme + "://(set)@" + rest[at+1:]
	}
	return s
}

// Bytes is a size. Its text form is Redis's: a number and b, k, kb, m, mb, g or gb in
// either case, where kb is 1024 bytes and k is 1000.
type Bytes int64

var byteUnits = []struct {
	suffix string
	factor Bytes
}{{"kb", 1 << 10}, {"mb", 1 << 20}, {"gb", 1 << 30}, {"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {"b", 1}}

// UnmarshalText parses a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	s, factor := strings.ToLower(strings.ReplaceAll(string(text), "_", "")), Bytes(1)
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			s, factor = number, u.factor
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n > uint64(math.MaxInt64/factor) {
		return fmt.Errorf("%q is not a size", clip(string(text)))
	}
	*b = Bytes(n) * factor
	return nil
}

// String is the size in the greatest of gb, mb, kb that divides it.
func (b Bytes) String() string {
	for i := 2; i >= 0 && b != 0; i-- {
		if u := byteUnits[i]; b%u.factor == 0 {
			return strconv.FormatInt(int64(b/u.factor), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// ParseDuration is time.ParseDuration with days: "7d", "1d12h". A bare number other than
// 0 is refused, since its unit would be a guess.
func ParseDuration(s string) (time.Duration, error) {
	days, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		return time.ParseDuration(s)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration", clip(s))
	}
	d := time.Duration(n) * 24 * time.Hour
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 {
		return 0, fmt.Errorf("%q is not a duration", clip(s))
	}
	return d + more, nil
}

// formatDuration is the shortest text that ParseDuration reads back.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d == 0 {
		return "0"
	}
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
