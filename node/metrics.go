package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/replicatord/replicatord/crdt"
)

// metrics serves Prometheus, says whether the node is fit to serve clients
// (/healthz), and shows profiles of the process (/debug/pprof/).
type metrics struct{ server *http.Server }

func (m *metrics) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = m.server.Shutdown(ctx)
}

// startMetrics listens where the configuration says; nothing listens if it
// says nothing.
func (n *Node) startMetrics() error {
	if n.cfg.Metrics == "" {
		return nil
	}
	ln, err := net.Listen("tcp", n.cfg.Metrics)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{n})
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if why := n.Loading(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		if err := n.log.Failed(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	n.metrics = &metrics{&http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}
	go func() {
		if err := n.metrics.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			n.slog.Warn("metrics are no longer served", "err", err)
		}
	}()
	return nil
}

// collector reads a node's figures when they are asked for: nothing is counted
// twice, and every series is there at zero.
type collector struct{ n *Node }

// Describe implements prometheus.Collector; the collector is unchecked, its
// series of members come and go.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	n := c.n
	emit := func(kind prometheus.ValueType, name, help string, v float64, labels ...string) {
		var names, values []string
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("replicatord_"+name, help, names, nil), kind, v, values...)
	}
	gauge := func(name, help string, v float64, labels ...string) {
		emit(prometheus.GaugeValue, name, help, v, labels...)
	}
	count := func(name, help string, v uint64, labels ...string) {
		emit(prometheus.CounterValue, name, help, float64(v), labels...)
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge("view_up", "1 while the view is level and clients are served.", truth(n.recovery.up.Load()))
	count("view_rebuilds_total", "Times the view was rebuilt whole.", n.recovery.rebuilds.Load())
	count("view_catch_ups_total", "Times the view was brought level from the log.", n.recovery.catchUps.Load())
	count("view_foreign_changes_total", "Keys found changed in the view behind the node's back: somebody else writes to it.", n.scrub.found.Load())
	count("view_read_cache_hits_total", "Reads that were answered with a reply kept from before.", n.replies.hitCount())
	count("view_read_cache_misses_total", "Reads that could have been, but were not.", n.replies.missCount())
	count("view_commands_total", "Commands sent to the view.", n.pump.stats.commands.Load())

	m := n.log.Metrics()
	gauge("log_failed", "1 while writes are stopped because the log can't be written.", truth(n.log.Failed() != nil))
	gauge("log_bytes", "Encoded entries kept in the log, in bytes.", float64(m.LogBytes))
	gauge("log_disk_bytes", "Disk space of the store, in bytes.", float64(m.DiskBytes))
	gauge("log_unsynced_commits", "Commits that are not durable yet.", float64(m.Unsynced))
	gauge("log_sync_seconds", "Time the last sync took.", m.SyncTime.Seconds())
	count("log_commits_total", "Commit groups written.", m.Commits)
	count("log_entries_total", "Log entries written.", m.Entries)
	count("log_entry_bytes_total", "Bytes of log entries written.", m.EntryBytes)
	count("key_cache_misses_total", "Keys read from the store because key_cache did not hold them. Many beside commands_total: a larger one would help.", m.Keys)
	count("log_syncs_total", "Syncs of the write-ahead log.", m.Syncs)
	count("log_trimmed_total", "Entries dropped from the log.", m.Trimmed)
	count("log_corrupt_total", "Reads that found corrupt data.", m.Corrupt)

	var s CoreStats
	if n.exec.Run(func(core *Core) { s = core.Stats }) == nil {
		count("commands_total", "Commands of clients that reached the executor.", s.Writes, "kind", "write")
		count("commands_total", "Commands of clients that reached the executor.", s.Reads, "kind", "read")
		count("entries_total", "Entries applied, by where they came from.", s.LocalEntries, "from", "local")
		count("entries_total", "Entries applied, by where they came from.", s.Entries, "from", "peers")
		count("entries_refused_total", "Entries not applied.", s.Duplicates, "why", "duplicate")
		count("entries_refused_total", "Entries not applied.", s.Gaps, "why", "gap")
		count("entries_refused_total", "Entries not applied.", s.Skewed, "why", "clock_skew")
		count("keys_expired_total", "Keys hidden because they expired.", s.Swept)
		count("fields_expired_total", "Fields of hashes hidden because they expired.", s.SweptFields)
		count("keys_purged_total", "Expired keys and fields whose cells were dropped.", s.Purged)
		for t, n := range s.Conflicts {
			if t > 0 {
				count("conflicts_total", "Concurrent values that met here, by the type of the one that shows.", n, "type", crdt.Type(t).String())
			}
		}
		count("keys_synced_total", "Keys merged by state syncs.", s.SyncedKeys)
	}
	list := n.members.List()
	gauge("members", "Nodes of the cluster, this one included.", float64(len(list)+1))
	damaged, _ := n.verify.differences()
	gauge("digests_damaged_buckets", "Buckets of keys whose digests here were not what the cells give: 0, or there is a bug or damage.", float64(damaged))
	links := n.links.Stats()
	for _, member := range list {
		links.collect(gauge, count, member.ID, "node", strconv.Itoa(int(member.ID)), "alias", member.Alias)
	}
}
