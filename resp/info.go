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
	c.reply.BulkString(b.String())
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
	case "cpu":
		infoCPU(&sec)
	case "commandstats":
		sec.Fields = s.commandStats()
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
	sec.Add("os", runtime.GOOS+" "+runtime.GOARCH)
	sec.Add("arch_bits", strconv.Itoa(strconv.IntSize))
	sec.Add("go_version", runtime.Version())
	sec.Add("process_id", strconv.Itoa(pid))
	sec.Add("run_id", s.opt.RunID)
	sec.Add("tcp_port", port)
	sec.Add("server_time_usec", itoa(now.UnixMicro()))
	sec.Add("uptime_in_seconds", itoa(up))
	sec.Add("uptime_in_days", itoa(up/86400))
	sec.Add("executable", exe)
	sec.Add("config_file", "")
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
	sec.Add("blocked_clients", itoa(s.blockedClients()))
	sec.Add("tracking_clients", "0")
	sec.Add("clients_in_timeout_table", "0")
}

func (s *Server) infoMemory(sec *Section) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	size := func(name string, n int64) {
		sec.Add(name, itoa(n))
		sec.Add(name+"_human", human(n))
	}
	size("used_memory", int64(m.HeapAlloc))
	rss := residentBytes(int64(m.Sys - m.HeapReleased))
	sec.Add("used_memory_rss", itoa(rss))
	sec.Add("used_memory_rss_human", human(rss))
	sec.Add("total_system_memory", itoa(systemMemory()))
	limit := debug.SetMemoryLimit(-1) // only reads it
	if limit == 1<<63-1 {
		limit = 0
	}
	size("maxmemory", 0)
	sec.Add("maxmemory_policy", "noeviction")
	sec.Add("go_memory_limit", itoa(limit))
	sec.Add("mem_clients_normal", itoa(s.budget.used.Load()))
	sec.Add("mem_allocator", "go")
	sec.Add("gc_cycles", itoa(int64(m.NumGC)))
}

func (s *Server) infoPersistence(sec *Section) {
	loading := "0"
	if s.backend.Loading() != "" {
		loading = "1"
	}
	sec.Add("loading", loading)
	sec.Add("rdb_changes_since_last_save", "0")
	sec.Add("rdb_bgsave_in_progress", "0")
	sec.Add("rdb_last_save_time", itoa(time.Now().Unix()))
	sec.Add("rdb_last_bgsave_status", "ok")
	sec.Add("aof_enabled", "1")
	sec.Add("aof_rewrite_in_progress", "0")
	sec.Add("aof_last_write_status", "ok")
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
		{"evicted_clients", t.evicted.Load()},
		{"client_query_buffer_limit_disconnections", t.queryLimit.Load()},
		{"client_output_buffer_limit_disconnections", t.outputLimit.Load()},
	} {
		sec.Add(f.name, itoa(f.n))
	}
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
