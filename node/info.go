package node

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
)

// Info implements resp.Backend: the sections about replication, the log and the
// view.
func (n *Node) Info(section string) []resp.Section {
	var out []resp.Section
	var view map[string][]resp.Field
	switch section {
	case "", "keyspace", "memory", "stats":
		view = n.viewSections(section)
	}
	for _, s := range []struct {
		name string
		fill func(*resp.Section)
	}{
		{"Replication", n.infoReplication},
		{"Persistence", n.infoPersistence},
		{"Memory", func(s *resp.Section) { infoMemory(s, view["memory"]) }},
		{"Stats", func(s *resp.Section) { n.infoStats(s, view["stats"]) }},
		{"View", n.infoView},
		{"Keyspace", func(s *resp.Section) { infoKeyspace(s, view["keyspace"]) }},
	} {
		if section == "" || strings.EqualFold(section, s.name) {
			sec := resp.Section{Name: s.name}
			s.fill(&sec)
			out = append(out, sec)
		}
	}
	return out
}

func (n *Node) infoReplication(s *resp.Section) {
	id := n.log.Identity()
	s.Add("role", "master")
	s.Add("connected_slaves", "0")
	s.Add("master_failover_state", "no-failover")
	s.Add("master_replid", fmt.Sprintf("%016x%016x00000000", uint64(id.Origin), id.Dir))
	m := n.log.Metrics()
	s.Add("master_replid2", strings.Repeat("0", 40))
	s.Add("master_repl_offset", fmt.Sprint(m.EntryBytes)) // since the start
	s.Add("second_repl_offset", "-1")
	s.Add("repl_backlog_active", "1") // the log
	s.Add("repl_backlog_size", fmt.Sprint(int64(n.cfg.LogRetentionBytes)))
	s.Add("repl_backlog_first_byte_offset", "0")
	s.Add("repl_backlog_histlen", fmt.Sprint(m.LogBytes))
	s.Add("node_id", strconv.Itoa(int(id.Node)))
	s.Add("node_alias", n.cfg.Alias)
	s.Add("node_region", n.cfg.Region)
	s.Add("node_cluster", n.cfg.Cluster)
	s.Add("node_incarnation", fmt.Sprintf("%x", id.Incarnation))
	s.Add("node_paused", yesNo(n.paused.Load()))
	if !n.made.Load() {
		return // the members are not there yet
	}
	list := n.members.List()
	s.Add("members", strconv.Itoa(len(list)+1))
	s.Add("subscribers", strconv.Itoa(n.links.m.Peers().Subscribers()))
	s.Add("vector", n.log.Vector().String())
	s.Add("vector_durable", n.log.Durable().String())
	damaged, differ := n.verify.differences()
	s.Add("digests_damaged_buckets", strconv.Itoa(damaged))
	s.Add("digests_members_differing", strconv.Itoa(differ))
	links := n.links.Stats()
	for i, m := range list {
		var f fields
		f.add("id", m.ID)
		f.add("alias", m.Alias)
		f.add("address", m.RESP)
		f.add("gossip", m.State)
		links.describe(&f, m.ID)
		member := "member" + strconv.Itoa(i)
		s.Add(member, f.line("vector"))
		var lanes fields
		links.lanes(&lanes, m.ID)
		for j := 0; j+1 < len(lanes.list); j += 2 {
			s.Add(member+"_"+lanes.list[j], lanes.list[j+1])
		}
	}
}

func (n *Node) infoPersistence(s *resp.Section) {
	m := n.log.Metrics()
	number := func(name string, v any) { s.Add(name, fmt.Sprint(v)) }
	if why := n.exec.loading.Load(); why != nil {
		s.Add("loading", "1")
		s.Add("loading_reason", strings.TrimPrefix(*why, "LOADING "))
	} else {
		s.Add("loading", "0")
	}
	s.Add("fsync", n.cfg.Fsync)
	state := "ok"
	if err := n.log.Failed(); err != nil {
		state = "err: " + strings.NewReplacer("\r", " ", "\n", " ").Replace(err.Error())
	}
	s.Add("log_status", state)
	number("log_bytes", m.LogBytes)
	number("log_disk_bytes", m.DiskBytes)
	number("log_wal_bytes", m.WALBytes)
	number("log_commits", m.Commits)
	number("log_entries", m.Entries)
	number("log_redo_bytes", m.RedoBytes) // of a start after a kill, with a quarter of the entries that it reads
	number("key_cache_misses", m.Keys)
	number("log_entry_bytes", m.EntryBytes)
	number("log_cells_written", m.Cells)
	number("log_syncs", m.Syncs)
	number("log_sync_last_us", m.SyncTime.Microseconds())
	number("log_commits_unsynced", m.Unsynced)
	number("log_entries_trimmed", m.Trimmed)
	number("log_corrupt_reads", m.Corrupt)
	number("log_streams", m.Streams)
}

func (n *Node) infoView(s *resp.Section) {
	number := func(name string, v any) { s.Add(name, fmt.Sprint(v)) }
	if !n.made.Load() {
		s.Add("view_status", "starting")
		return
	}
	s.Add("view", n.source.what)
	s.Add("view_mode", n.source.target.Mode)
	s.Add("view_status", cond(n.recovery.up.Load(), "level", "lost"))
	number("view_rebuilds", n.recovery.rebuilds.Load())
	number("view_catch_ups", n.recovery.catchUps.Load())
	number("view_scrub_passes", n.scrub.passes.Load())
	number("view_scrub_keys", n.scrub.keys.Load())
	number("view_scrub_found", n.scrub.found.Load())
	number("view_scrub_repaired", n.scrub.repaired.Load())
	number("view_scrub_adopted", n.scrub.adopted.Load())
	number("view_scrub_last_ms", n.scrub.last.Load())
	number("view_read_cache_bytes", int64(n.cfg.View.ReadCache))
	number("view_read_cache_hits", n.replies.hitCount())
	number("view_read_cache_misses", n.replies.missCount())
	number("view_pipelines", n.pump.stats.pipelines.Load())
	number("view_commands", n.pump.stats.commands.Load())
	var c CoreStats
	if n.exec.Run(func(core *Core) { c = core.Stats }) != nil {
		return
	}
	number("core_groups", c.Groups)
	number("core_commands", c.Commands)
	number("core_writes", c.Writes)
	number("core_reads", c.Reads)
	number("core_updates", c.Updates)
	number("core_entries_local", c.LocalEntries)
	number("core_deltas_local", c.LocalDeltas)
	number("core_entries_remote", c.Entries)
	number("core_duplicates", c.Duplicates)
	number("core_gaps", c.Gaps)
	number("core_skewed", c.Skewed)
	number("core_expired", c.Swept)
	number("core_expired_fields", c.SweptFields)
	number("core_purged", c.Purged)
	number("core_remnants_dropped", c.Tidied)
	number("core_synced_keys", c.SyncedKeys)
	number("core_synced_cells", c.SyncedCells)
	for t, n := range c.Conflicts {
		if t > 0 {
			number("core_conflicts_"+crdt.Type(t).String(), n)
		}
	}
}

// infoKeyspace tells of the databases that clients see.
func infoKeyspace(s *resp.Section, view []resp.Field) {
	for _, f := range view {
		var db int
		if _, err := fmt.Sscanf(f.Name, "db%d", &db); err == nil && db < userDBs {
			s.Fields = append(s.Fields, f)
		}
	}
}

// ConfigGet implements resp.Backend: every setting of the configuration, under
// Redis's spelling, and how the view stores values.
func (n *Node) ConfigGet() []resp.Param {
	var out []resp.Param
	for _, s := range n.cfg.Settings() {
		out = append(out, resp.Param{Name: strings.ReplaceAll(s.Key, "_", "-"), Value: s.Value})
	}
	busy := strconv.FormatInt(n.scripts.Threshold.Load(), 10)
	out = append(out, resp.Param{Name: "busy-reply-threshold", Value: busy}, resp.Param{Name: "lua-time-limit", Value: busy})
	return append(out, n.viewConfig()...)
}

// ConfigSet implements resp.Backend. What the node owns is decided at its
// start; how the view stores values can be changed, and for how long a script
// may run before others are told.
func (n *Node) ConfigSet(name, value string) error {
	if isViewParam(name) {
		return n.setViewConfig(name, value)
	}
	if name == "busy-reply-threshold" || name == "lua-time-limit" {
		ms, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return errors.New("argument couldn't be parsed into an integer")
		}
		if ms < 0 {
			return errors.New("argument must be between 0 and 9223372036854775807 inclusive")
		}
		n.scripts.Threshold.Store(ms)
		return nil
	}
	for _, p := range n.ConfigGet() {
		if p.Name == name {
			return resp.ErrImmutable
		}
	}
	return resp.ErrUnknownParam
}
