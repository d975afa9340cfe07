package resp

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// sectionNames are the sections of INFO in Redis's order; those that a plain
// INFO leaves out are in extraSections. A backend's other sections follow.
var sectionNames = []string{
	"Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU", "Modules", "Commandstats",
	"Errorstats", "Latencystats", "Cluster", "Keyspace",
}

var extraSections = map[string]bool{"commandstats": true, "latencystats": true}

// info answers INFO [section …].
func info(c *Session, args [][]byte) {
	s := c.server
	want := map[string]bool{}
	everything, usual := false, len(args) == 1
	for _, a := range args[1:] {
		switch name := strings.ToLower(string(a)); name {
		case "all", "everything":
			everything = true
		case "default":
			usual = true
		default:
			want[name] = true
		}
	}
	only := "" // ask the backend for one, if it is one
	if len(want) == 1 && !everything && !usual {
		for name := range want {
			only = name
		}
	}
	wanted := func(name string) bool {
		return everything || want[name] || usual && !extraSections[name]
	}
	var b strings.Builder
	for _, sec := range s.sections(only, wanted) {
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + sec.Name + "\r\n")
		for _, f := range sec.Fields {
			b.WriteString(f.Name + ":" + f.Value + "\r\n")
		}
	}
	c.reply.Verbatim(b.String())
}

// sections puts the server's sections and the backend's together.
func (s *Server) sections(only string, wanted func(name string) bool) []Section {
	var list []Section
	at := map[string]int{}
	for _, name := range sectionNames {
		if key := strings.ToLower(name); wanted(key) {
			at[key] = len(list)
			list = append(list, Section{Name: name, Fields: s.fields(key)})
		}
	}
	for _, sec := range s.backend.Info(only) {
		key := strings.ToLower(sec.Name)
		if !wanted(key) {
			continue
		}
		i, ok := at[key]
		if !ok {
			at[key] = len(list)
			list = append(list, sec)
			continue
		}
		for _, f := range sec.Fields {
			list[i].set(f)
		}
	}
	return list
}

// set replaces a field, or adds it.
func (s *Section) set(f Field) {
	for i := range s.Fields {
		if s.Fields[i].Name == f.Name {
			s.Fields[i].Value = f.Value
			return
		}
	}
	s.Fields = append(s.Fields, f)
}

// fields returns the server's own fields of a section.
func (s *Server) fields(section string) []Field {
	var sec Section
	switch section {
	case "server":
		s.infoServer(&sec)
	case "clients":
		s.infoClients(&sec)
	case "memory":
		s.infoMemory(&sec)
	case "persistence":
		s.infoPersistence(&sec)
	case "stats":
		s.infoStats(&sec)
	case "replication":
		sec.Add("role", "master")
		sec.Add("connected_slaves", "0")
		sec.Add("master_replid", s.opt.RunID)
		sec.Add("master_repl_offset", "0")
	case "cpu":
		infoCPU(&sec)
	case "commandstats":
		sec.Fields = s.commandStats()
	case "latencystats":
		sec.Fields = s.latencyStats()
	case "errorstats":
		sec.Fields = s.stats.errorKinds()
	case "cluster":
		sec.Add("cluster_enabled", "0")
	}
	return sec.Fields
}

func (s *Server) infoServer(sec *Section) {
	now := time.Now()
	up := int64(now.Sub(s.started) / time.Second)
	port := "0"
	if a, ok := s.Addr().(*net.TCPAddr); ok {
		port = strconv.Itoa(a.Port)
	}
	exe, _ := os.Executable()
	sec.Add("redis_version", RedisVersion)
	sec.Add("redis_mode", "standalone")
	sec.Add("replicatord_version", s.opt.Version)
	sec.Add("redis_git_sha1", "00000000")
	sec.Add("redis_git_dirty", "0")
	sec.Add("redis_build_id", "0")
	sec.Add("os", runtime.GOOS+" "+runtime.GOARCH)
	sec.Add("arch_bits", strconv.Itoa(strconv.IntSize))
	sec.Add("multiplexing_api", "go")
	sec.Add("go_version", runtime.Version())
	sec.Add("process_id", strconv.Itoa(pid))
	sec.Add("run_id", s.opt.RunID)
	sec.Add("tcp_port", port)
	sec.Add("server_time_usec", itoa(now.UnixMicro()))
	sec.Add("uptime_in_seconds", itoa(up))
	sec.Add("uptime_in_days", itoa(up/86400))
	sec.Add("hz", s.kept.get("hz", "10"))
	sec.Add("configured_hz", s.kept.get("hz", "10"))
	sec.Add("lru_clock", itoa(now.Unix()&(1<<24-1)))
	sec.Add("executable", exe)
	sec.Add("config_file", "")
	sec.Add("io_threads_active", "0")
}

func (s *Server) infoClients(sec *Section) {
	list := s.clients()
	var in, out int64
	for _, c := range list {
		in = max(in, c.bufSize.Load())
		if o := c.queuedOn.Load(); o != nil {
			out = max(out, o.queued.Load())
		}
	}
	sec.Add("connected_clients", itoa(len(list)))
	sec.Add("cluster_connections", "0")
	sec.Add("maxclients", itoa(s.settings.maxClients.Load()))
	sec.Add("client_recent_max_input_buffer", itoa(in))
	sec.Add("client_recent_max_output_buffer", itoa(out))
	sec.Add("blocked_clients", itoa(s.blockedClients()+s.pause.held.Load()))
	sec.Add("clients_in_loops", itoa(s.looped.Load()))
	sec.Add("tracking_clients", itoa(s.trackers.clients.Load()))
	sec.Add("clients_in_timeout_table", "0")
}

func (s *Server) infoMemory(sec *Section) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	size := func(name string, n int64) {
		sec.Add(name, itoa(n))
		sec.Add(name+"_human", human(n))
	}
	// The backend says what the data take; this is for one that does not.
	rss := residentBytes(int64(m.Sys - m.HeapReleased))
	size("used_memory", int64(m.HeapAlloc))
	size("used_memory_rss", rss)
	size("total_system_memory", systemMemory())
	size("node_used_memory", int64(m.HeapAlloc))
	size("node_used_memory_rss", rss)
	limit := debug.SetMemoryLimit(-1) // only reads it
	if limit == 1<<63-1 {
		limit = 0
	}
	scripts, bytes, libraries, functions := s.backend.Scripts().Counts()
	size("used_memory_scripts", bytes)
	sec.Add("used_memory_scripts_eval", itoa(bytes))
	sec.Add("number_of_cached_scripts", itoa(scripts))
	sec.Add("number_of_functions", itoa(functions))
	sec.Add("number_of_libraries", itoa(libraries))
	size("maxmemory", s.settings.maxMemory.Load())
	sec.Add("maxmemory_policy", "noeviction")
	sec.Add("node_memory_limit", itoa(limit))
	sec.Add("mem_clients_slaves", "0")
	sec.Add("mem_cluster_links", "0")
	sec.Add("mem_replication_backlog", "0")
	sec.Add("mem_total_replication_buffers", "0")
	sec.Add("mem_clients_normal", itoa(s.budget.used.Load()))
	sec.Add("mem_allocator", "go")
	sec.Add("node_gc_cycles", itoa(int64(m.NumGC)))
}

func (s *Server) infoPersistence(sec *Section) {
	loading := "0"
	if s.backend.Loading() != "" {
		loading = "1"
	}
	sec.Add("loading", loading)
	sec.Add("rdb_last_save_time", itoa(time.Now().Unix())) // the log has every write
	for _, f := range []Field{
		{"async_loading", "0"}, {"current_cow_peak", "0"}, {"current_cow_size", "0"}, {"current_cow_size_age", "0"},
		{"current_fork_perc", "0.00"}, {"current_save_keys_processed", "0"}, {"current_save_keys_total", "0"},
		{"rdb_changes_since_last_save", "0"}, {"rdb_bgsave_in_progress", "0"}, {"rdb_last_bgsave_status", "ok"},
		{"rdb_last_bgsave_time_sec", "-1"}, {"rdb_current_bgsave_time_sec", "-1"}, {"rdb_saves", "0"}, {"rdb_last_cow_size", "0"},
		{"rdb_last_load_keys_expired", "0"}, {"rdb_last_load_keys_loaded", "0"},
		{"aof_enabled", "1"}, {"aof_rewrite_in_progress", "0"}, {"aof_rewrite_scheduled", "0"}, {"aof_last_rewrite_time_sec", "-1"},
		{"aof_current_rewrite_time_sec", "-1"}, {"aof_last_bgrewrite_status", "ok"}, {"aof_rewrites", "0"},
		{"aof_rewrites_consecutive_failures", "0"}, {"aof_last_write_status", "ok"}, {"aof_last_cow_size", "0"},
		{"module_fork_in_progress", "0"}, {"module_fork_last_cow_size", "0"},
	} {
		sec.set(f)
	}
}

func (s *Server) infoStats(sec *Section) {
	t := &s.stats
	ops, in, out := t.rates()
	kbps := func(n int64) string { return fmt.Sprintf("%.2f", float64(n)/1024) }
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"total_connections_received", t.connections.Load()},
		{"total_commands_processed", t.commands.Load()},
		{"instantaneous_ops_per_sec", ops},
		{"total_net_input_bytes", t.netIn.Load()},
		{"total_net_output_bytes", t.netOut.Load()},
	} {
		sec.Add(f.name, itoa(f.n))
	}
	sec.Add("instantaneous_input_kbps", kbps(in))
	sec.Add("instantaneous_output_kbps", kbps(out))
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"rejected_connections", t.rejected.Load()},
		{"total_error_replies", t.errors.Load()},
		{"protocol_errors", t.protocolErrors.Load()},
		{"acl_access_denied_auth", t.authFailures.Load()},
		{"acl_access_denied_cmd", t.deniedCommand.Load()},
		{"acl_access_denied_key", t.deniedKey.Load()},
		{"acl_access_denied_channel", t.deniedChannel.Load()},
		{"evicted_clients", t.evicted.Load()},
		{"client_query_buffer_limit_disconnections", t.queryLimit.Load()},
		{"client_output_buffer_limit_disconnections", t.outputLimit.Load()},
		{"unexpected_error_replies", 0},
		{"total_reads_processed", t.reads.Load()},
		{"total_writes_processed", t.writes.Load()},
		// What there is none of, or the backend counts.
		{"total_net_repl_input_bytes", 0}, {"total_net_repl_output_bytes", 0},
		{"sync_full", 0}, {"sync_partial_ok", 0}, {"sync_partial_err", 0},
		{"expired_keys", 0}, {"evicted_keys", 0}, {"keyspace_hits", 0}, {"keyspace_misses", 0},
		{"latest_fork_usec", 0}, {"total_forks", 0}, {"migrate_cached_sockets", 0}, {"slave_expires_tracked_keys", 0},
		{"active_defrag_hits", 0}, {"active_defrag_misses", 0}, {"active_defrag_key_hits", 0}, {"active_defrag_key_misses", 0},
		{"expired_time_cap_reached_count", 0}, {"expire_cycle_cpu_milliseconds", 0},
		{"total_eviction_exceeded_time", 0}, {"current_eviction_exceeded_time", 0}, {"total_active_defrag_time", 0},
		{"current_active_defrag_time", 0}, {"reply_buffer_shrinks", 0}, {"reply_buffer_expands", 0},
		{"dump_payload_sanitizations", 0}, {"io_threaded_reads_processed", 0}, {"io_threaded_writes_processed", 0},
	} {
		sec.Add(f.name, itoa(f.n))
	}
	sec.Add("instantaneous_input_repl_kbps", "0.00")
	sec.Add("instantaneous_output_repl_kbps", "0.00")
	sec.Add("expired_stale_perc", "0.00")
	s.hub.info(sec)
	s.trackers.info(sec)
}

// human shows a size as Redis does.
func human(n int64) string {
	f := float64(n)
	for _, unit := range []string{"B", "K", "M", "G", "T"} {
		if f < 1024 || unit == "T" {
			if unit == "B" {
				return fmt.Sprintf("%dB", n)
			}
			return fmt.Sprintf("%.2f%s", f, unit)
		}
		f /= 1024
	}
	return ""
}
