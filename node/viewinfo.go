package node

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/replicatord/replicatord/resp"
)

// viewSections asks the view for INFO, of one section or ("") of all usual
// ones; nothing while it is down or knows no INFO.
func (n *Node) viewSections(section string) map[string][]resp.Field {
	if !n.made.Load() || !n.recovery.up.Load() {
		return nil
	}
	args := [][]byte{[]byte("INFO")}
	if section != "" {
		args = append(args, []byte(section))
	}
	raw, err := n.pump.Ask(0, args...)
	if err != nil {
		return nil
	}
	body, _ := readBulk(raw)
	out := map[string][]resp.Field{}
	name := ""
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "# "); ok {
			name = strings.ToLower(title)
		} else if key, value, ok := strings.Cut(line, ":"); ok {
			out[name] = append(out[name], resp.Field{Name: key, Value: value})
		}
	}
	return out
}

// ViewDocs implements resp.Backend.
func (n *Node) ViewDocs(names [][]byte) []byte {
	if !n.made.Load() || !n.recovery.up.Load() {
		return nil
	}
	raw, err := n.pump.Ask(0, append([][]byte{[]byte("COMMAND"), []byte("DOCS")}, names...)...)
	if err != nil {
		return nil
	}
	return raw
}

// notOfView are the fields of INFO memory that are the node's to tell.
var notOfView = map[string]bool{
	"maxmemory": true, "maxmemory_human": true, "maxmemory_policy": true, "mem_clients_normal": true, "mem_clients_slaves": true,
	"used_memory_scripts": true, "used_memory_scripts_human": true, "used_memory_scripts_eval": true, "number_of_cached_scripts": true,
	"number_of_functions": true, "number_of_libraries": true,
	"mem_cluster_links": true, "mem_replication_backlog": true, "mem_total_replication_buffers": true,
}

// infoMemory tells what the data take in the view.
func infoMemory(s *resp.Section, view []resp.Field) {
	for _, f := range view {
		if !notOfView[f.Name] {
			s.Fields = append(s.Fields, f)
		}
	}
}

// infoStats tells what the view and the core count.
func (n *Node) infoStats(s *resp.Section, view []resp.Field) {
	var stats CoreStats
	if n.exec.Run(func(c *Core) { stats = c.Stats }) == nil {
		s.Add("expired_keys", strconv.FormatUint(stats.Swept, 10))
	}
	count := func(f resp.Field, more uint64) {
		n, _ := strconv.ParseUint(f.Value, 10, 64)
		s.Add(f.Name, strconv.FormatUint(n+more, 10))
	}
	for _, f := range view {
		switch f.Name {
		case "keyspace_hits": // a kept reply is of a key that is there
			count(f, n.replies.hitCount()+stats.NearHits)
		case "keyspace_misses":
			count(f, stats.NearMisses)
		case "evicted_keys", "active_defrag_hits", "active_defrag_misses",
			"active_defrag_key_hits", "active_defrag_key_misses":
			s.Fields = append(s.Fields, f)
		}
	}
}

// readBulks reads an array of bulk strings, nil of anything else.
func readBulks(raw []byte) [][]byte {
	at := bytes.IndexByte(raw, '\n') + 1
	if at == 0 || raw[0] != '*' {
		return nil
	}
	var out [][]byte
	for at < len(raw) {
		b, size := readBulk(raw[at:])
		if size == 0 {
			return nil
		}
		out = append(out, b)
		at += size
	}
	return out
}

// viewParams are parameters of the view that clients may read and set, for
// they say how it stores things and not what. They are set again when the view
// comes back.
type viewParams struct {
	mu  sync.Mutex
	set map[string]string
}

// isViewParam reports whether a parameter of Redis is about how values are
// stored.
func isViewParam(name string) bool {
	switch name {
	case "list-compress-depth", "list-max-listpack-size", "list-max-ziplist-size", "set-max-intset-entries", "set-max-listpack-entries",
		"set-max-listpack-value", "hll-sparse-max-bytes", "stream-node-max-bytes", "stream-node-max-entries":
		return true
	}
	kind, rest, _ := strings.Cut(name, "-max-")
	return (kind == "hash" || kind == "zset") && (strings.HasPrefix(rest, "listpack-") || strings.HasPrefix(rest, "ziplist-"))
}

// viewConfig returns those parameters as the view has them.
func (n *Node) viewConfig() []resp.Param {
	if !n.made.Load() || !n.recovery.up.Load() {
		return nil
	}
	raw, err := n.pump.Ask(0, []byte("CONFIG"), []byte("GET"), []byte("*-*"))
	if err != nil {
		return nil
	}
	var out []resp.Param
	list := readBulks(raw)
	for i := 0; i+1 < len(list); i += 2 {
		if name := string(list[i]); isViewParam(name) {
			out = append(out, resp.Param{Name: name, Value: string(list[i+1])})
		}
	}
	return out
}

// setViewConfig sets one of them.
func (n *Node) setViewConfig(name, value string) error {
	raw, err := n.pump.Ask(0, []byte("CONFIG"), []byte("SET"), []byte(name), []byte(value))
	if err != nil {
		return err
	}
	if text, failed := bytes.CutPrefix(raw, []byte("-")); failed {
		if _, why, ok := strings.Cut(string(text), "') - "); ok {
			return errors.New(strings.TrimSpace(why))
		}
		return errors.New(strings.TrimSpace(string(text)))
	}
	p := &n.source.params
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set == nil {
		p.set = map[string]string{}
	}
	p.set[name] = value
	return nil
}

// apply sets on a new connection what clients have set. A view that no longer
// takes it is used as it is: only its memory depends on this.
func (p *viewParams) apply(c *viewConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, value := range p.set {
		_, _ = c.do(c.hidden, "CONFIG", "SET", name, value)
	}
}
