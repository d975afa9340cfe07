package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/gossip"
	"github.com/replicatord/replicatord/resp/command"
	"github.com/replicatord/replicatord/wan"
	"github.com/replicatord/replicatord/wan/transport"
)

// links are the data links to the other members.
type links struct {
	m      *wan.Manager
	cfg    *Config
	taker  *SyncTaker
	verify *verifier
	// News of durable entries goes its own way: a session that holds its lock may
	// itself be waiting for the next sync.
	news chan struct{}
	stop chan struct{}
	done chan struct{}
}

func (n *Node) startLinks(known roll) error {
	id := n.log.Identity()
	n.wanLog = &wanLog{log: n.log}
	n.verify = &verifier{log: n.log, slog: n.slog, waits: map[uint64]chan *wan.Verify{}, verdicts: map[uint16]verdict{}}
	n.applier = &wanApplier{exec: n.exec, log: n.log, slog: n.slog, heard: map[uint16]wan.Heard{}, needed: map[uint16]bool{}, ahead: n.ahead, publish: n.published, difference: n.cfg.WAN.SyncByDifference}
	over, err := n.cfg.transports(n.certs, n.slog)
	if err != nil {
		return err
	}
	m, err := wan.NewManager(wan.ManagerOptions{
		Config: wan.Config{
			Self: wan.Identity{
				Cluster: n.cfg.Cluster, Node: id.Node, Alias: n.cfg.Alias, Region: n.cfg.Region,
				Address: n.advertised(n.cfg.AdvertiseWANPort, n.cfg.WANPort), Dir: fmt.Sprintf("%016x", id.Dir),
			},
			Log: n.wanLog, Applier: n.applier, Secret: []byte(n.cfg.Secret), SubscriberSecret: []byte(n.cfg.WAN.SubscriberSecret),
			Heartbeat: n.cfg.WAN.Heartbeat, BatchBytes: int(n.cfg.WAN.BatchLimit), Window: int(n.cfg.WAN.Window),
			NoCompression: n.cfg.WAN.Compression == 0, CompressionLevel: n.cfg.WAN.Compression, SyncRate: int(n.cfg.WAN.SyncRate), Logger: n.slog,
			Weights: n.cfg.WAN.Weights, Bandwidth: int(n.cfg.WAN.Limits.Bandwidth), Match: matches,
		},
		Transport: over,
		Listen:    n.cfg.listenLinks(),
	})
	if err != nil {
		return err
	}
	l := &links{m: m, cfg: &n.cfg, taker: &n.applier.taker, verify: n.verify, news: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go l.tell()
	n.applier.asks = m.Peers().RequestSync
	n.applier.verify = n.verify.take
	n.applier.taker.Compare, n.applier.taker.Merged = m.Peers().CompareSync, n.applier.merging
	n.applier.taker.Post = func(fn func(*Core)) bool {
		go n.exec.Post(fn) // it is called by the executor too, which must not wait for itself
		return true
	}
	n.applier.taker.Go, n.applier.taker.Log = func(fn func()) { go fn() }, n.log
	n.links = l
	n.durable.Store(l)
	n.verify.links = l
	l.update(known.Members, known.forgotten())
	return nil
}

// matches reports whether a key's name fits a pattern of a subscription.
func matches(pattern, name []byte) bool { return command.Match(pattern, name, false) }

// transports returns the transports of the data links as configured. certs are
// the files of TLS, nil if they have not been read.
func (c *Config) transports(certs *certFiles, log *slog.Logger) (*transport.Factory, error) {
	var o transport.Options
	if c.TLS.WAN {
		if certs == nil {
			var err error
			if certs, err = newCertFiles(c.TLS, log); err != nil {
				return nil, err
			}
		}
		o.TLS = certs.mutual()
	}
	if c.WAN.Proxy != "" {
		o.Proxy, _ = url.Parse(c.WAN.Proxy) // Validate has seen to it
	}
	return transport.New(o), nil
}

// ahead is called when a peer knows more of this node than it does itself.
func (n *Node) ahead(from uint16, theirs crdt.Vector) {
	n.slog.Warn("a peer knows writes of this node that its data directory lacks: it was restored or rolled back", "peer", from)
	go func() {
		if err := n.rolledBack(theirs); err != nil {
			n.slog.Error("no new incarnation could be begun", "err", err)
			return
		}
		n.links.m.Restart()
	}()
}

// NotifyDurable tells that there is more to ship. It never waits.
func (l *links) NotifyDurable() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

func (l *links) tell() {
	defer close(l.done)
	for {
		select {
		case <-l.news:
			l.m.NotifyDurable()
		case <-l.stop:
			return
		}
	}
}

// Pause stops or resumes the exchange of deltas.
func (l *links) Pause(on bool) {
	if on {
		l.m.Pause()
	} else {
		l.m.Resume()
	}
}

// update tells whom to talk to: every member but those that have left.
func (l *links) update(list []gossip.Member, forgotten []uint16) {
	var out []wan.Member
	for _, m := range list {
		if m.State != gossip.Left {
			out = append(out, wan.Member{ID: m.ID, Addrs: l.cfg.linksTo(m.ID, m.WAN, m.Links)})
		}
	}
	for _, id := range forgotten {
		out = append(out, wan.Member{ID: id, Forgotten: true})
	}
	l.m.Update(out)
}

// durable returns what a member has acknowledged, also one that is away now.
func (l *links) durable(node uint16) crdt.Vector {
	return l.m.Peers().Durable(node)
}

// drain waits until the peers that are there and take it have what is durable
// here, as long as ctx allows, and no more than a few seconds.
func (l *links) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		behind := false
		for _, s := range l.m.Peers().Stats(time.Now()) {
			behind = behind || s.Live && len(s.Wants) > 0 && s.LagEntries > 0
		}
		if !behind {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// Close ends all links.
func (l *links) Close() {
	close(l.stop)
	l.m.Close()
	<-l.done
}

// linkStats are the figures of all links by node.
type linkStats map[uint16]linkStat

type linkStat struct {
	wan.Stats
	taking  SyncProgress // if a state sync from there is under way
	verdict verdict
}

// Stats returns the figures of all links.
func (l *links) Stats() linkStats {
	out := linkStats{}
	p := l.taker.Progress()
	for _, s := range l.m.Peers().Stats(time.Now()) {
		x := linkStat{Stats: s, verdict: l.verify.of(s.Node)}
		if s.Node == p.From {
			x.taking = p
		}
		out[s.Node] = x
	}
	return out
}

// describe adds a link's figures to a member's line of REPLICAS.
func (s linkStats) describe(f *fields, id uint16) {
	x, ok := s[id]
	state := "down"
	if ok && x.Live {
		state = "online"
	}
	f.add("state", state)
	f.add("link", x.Via)
	f.add("brings", nodesOf(x.Gets))
	f.add("vector", x.Durable)
	f.add("rtt_ms", millis(x.RTT))
	f.add("rate", x.Rate)
	f.add("queue_ms", millis(x.Queue))
	f.add("lag_ms", millis(x.Lag))
	describeBacklog(f, &x.Backlog)
	f.add("syncing", yesNo(x.Syncing))
	if p := x.taking; p.From != 0 {
		f.add("sync_percent", int(p.Percent))
		f.add("sync_keys", p.Keys)
	}
	v := x.verdict
	f.add("digests", v)
	if !v.at.IsZero() {
		f.add("digests_compared", v.at.UTC().Format(time.RFC3339))
		f.add("digests_differ", len(v.buckets))
	}
	describeSent(f, &x.Sent)
	f.add("bytes_in", x.BytesIn)
	f.add("duplicates", x.Duplicates)
	f.add("messages_out", x.Messages)
	f.add("messages_in", x.MessagesIn)
	f.add("messages_dropped", x.Unsent)
	f.add("last_error", x.LastError)
}

// lanes adds the figures of a link's lanes, those of each on one line under its
// name.
func (s linkStats) lanes(f *fields, id uint16) {
	x := s[id]
	for l := range x.Lanes {
		lane := &x.Lanes[l]
		var of fields
		of.add("lag_ms", millis(lane.Lag))
		describeBacklog(&of, &lane.Backlog)
		of.add("credit", lane.Credit)
		describeSent(&of, &lane.Sent)
		f.add(crdt.Lane(l).String(), of.line())
	}
}

func describeBacklog(f *fields, b *wan.Backlog) {
	f.add("lag_entries", b.LagEntries)
	f.add("lag_bytes", b.LagBytes)
	f.add("pending_entries", b.Pending)
	f.add("pending_bytes", b.PendingBytes)
}

func describeSent(f *fields, s *wan.Sent) {
	f.add("bytes_raw", s.BytesRaw)
	f.add("bytes_folded", s.BytesFolded)
	f.add("bytes_packed", s.BytesPacked)
	f.add("bytes_out", s.BytesOut)
}

// collect emits a link's metrics.
func (s linkStats) collect(gauge func(string, string, float64, ...string), count func(string, string, uint64, ...string), id uint16, labels ...string) {
	x := s[id]
	up := 0.0
	if x.Live {
		up = 1
	}
	gauge("link_up", "1 while there is a data link to the member.", up, labels...)
	gauge("link_rtt_seconds", "Round trip of the last heartbeat.", x.RTT.Seconds(), labels...)
	gauge("link_rate_bytes_per_second", "What the link to the member carries, as far as is known: 0 if nothing is.", float64(x.Rate), labels...)
	gauge("link_queue_seconds", "How long what was sent to the member waited in the network when the link was full last.", x.Queue.Seconds(), labels...)
	if !x.verdict.at.IsZero() {
		gauge("digests_differ", "Buckets of keys that were not the same as the member's when their digests were last compared at equal vectors: 0, or there is a bug or damage.", float64(len(x.verdict.buckets)), labels...)
		gauge("digests_compared_timestamp_seconds", "When the digests were last compared with the member's at equal vectors.", float64(x.verdict.at.Unix()), labels...)
	}
	gauge("link_lag_seconds", "How old this node's writes were when they were durable at the member, or have become since.", x.Lag.Seconds(), labels...)
	count("link_sessions_total", "Sessions with the member.", x.Sessions, labels...)
	count("link_bytes_sent_total", "Bytes sent to the member, all in all.", x.BytesOut, labels...)
	count("link_bytes_received_total", "Bytes received from the member, all in all.", x.BytesIn, labels...)
	count("link_messages_total", "Messages of PUBLISH sent to the member's clients.", x.Messages, labels...)
	count("link_messages_dropped_total", "Messages of PUBLISH that could not be sent to the member.", x.Unsent, labels...)
	count("link_duplicates_total", "Entries received that were here already.", x.Duplicates, labels...)
	for l := range x.Lanes {
		lane, labels := &x.Lanes[l], append(slices.Clone(labels), "lane", crdt.Lane(l).String())
		gauge("lane_lag_seconds", "How old this node's writes in the lane were when they were durable at the member, or have become since.", lane.Lag.Seconds(), labels...)
		gauge("lane_lag_entries", "Entries the member is not known to have durably.", float64(lane.LagEntries), labels...)
		gauge("lane_lag_bytes", "Bytes of the entries the member is not known to have durably, as they are in the log.", float64(lane.LagBytes), labels...)
		gauge("lane_pending_entries", "Entries not sent to the member yet.", float64(lane.Pending), labels...)
		gauge("lane_pending_bytes", "Bytes of the entries not sent to the member yet, as they are in the log.", float64(lane.PendingBytes), labels...)
		gauge("lane_credit_bytes", "Bytes the member takes in the lane before it has applied any.", float64(lane.Credit), labels...)
		count("lane_entries_total", "Entries sent, before folding.", lane.Entries, labels...)
		count("lane_batches_total", "Batches sent.", lane.Batches, labels...)
		count("lane_bytes_raw_total", "Bytes of the entries sent, as they are in the log.", lane.BytesRaw, labels...)
		count("lane_bytes_folded_total", "Bytes of the batches made of them.", lane.BytesFolded, labels...)
		count("lane_bytes_packed_total", "Bytes of the batches, compressed.", lane.BytesPacked, labels...)
		count("lane_bytes_sent_total", "Bytes of the frames they were sent in.", lane.BytesOut, labels...)
	}
}

// nodesOf lists the nodes of origins, each once.
func nodesOf(origins []crdt.Stream) string {
	var ids []string
	for _, o := range origins {
		if id := fmt.Sprint(o.Node()); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return strings.Join(ids, " ")
}

// millis shows a duration in milliseconds, with what little there is of a
// short one.
func millis(d time.Duration) string {
	return fmt.Sprintf("%.3f", float64(d)/float64(time.Millisecond))
}
