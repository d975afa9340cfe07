package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/gossip"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
	"github.com/replicatord/replicatord/wan"
)

// Node is a running node.
type Node struct {
	cfg     Config
	slog    *slog.Logger
	version string
	started time.Time
	ctx     context.Context // ends when the node stops
	cancel  context.CancelFunc

	log       *oplog.Log
	exec      *executor
	pump      *pump
	replies   *readCache
	source    *viewSource
	recovery  *recovery
	wanLog    *wanLog
	applier   *wanApplier
	verify    *verifier
	scrub     scrubStats
	links     *links
	gossip    *gossip.Gossip
	members   *members
	server    *resp.Server
	front     atomic.Pointer[resp.Server] // the same, for the executor, which is there before it
	scripts   *command.Scripts
	metrics   *metrics
	certs     *certFiles // nil without TLS
	paused    atomic.Bool
	forgotten atomic.Pointer[[]uint16]
	made      atomic.Bool           // all of the above are there, but for metrics
	durable   atomic.Pointer[links] // whom to tell of durable entries, once there are links

	work sync.WaitGroup // goroutines that end with ctx
	once sync.Once
	done chan struct{}
	err  error
}

// keepLog is how many bytes of the log are kept though everybody has them.
const keepLog = 16 << 20

// StoreDir is the folder of the store (package oplog) in a data directory.
const StoreDir = "oplog"

// ProtocolVersion is what members tell each other they speak.
const ProtocolVersion = wan.MaxVersion

// Start starts a node and returns once clients are served. The context's end
// abandons a start under way; a running node is ended by Stop.
func Start(ctx context.Context, cfg Config, logger *slog.Logger) (_ *Node, err error) {
	cfg.EnsureDefaults()
	if faults := cfg.ReadFiles(); len(faults) > 0 {
		return nil, faults
	}
	if faults := cfg.Validate(); len(faults) > 0 {
		return nil, faults
	}
	n := &Node{cfg: cfg, slog: logger, version: version(), started: time.Now(), done: make(chan struct{})}
	redis.SetLogger(redisLog{logger})
	n.ctx, n.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			n.end(context.Background(), err) // once: the listener's end may have begun it
		}
	}()
	// The ports are taken first: the commonest mistake is found at once, and
	// clients that are early wait for an answer, not for a listener.
	ln, err := net.Listen("tcp", cfg.Addr())
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	defer func() {
		if err != nil {
			_ = ln.Close()
		}
	}()
	if err := n.openLog(); err != nil {
		return nil, err
	}
	if err := n.startCore(); err != nil {
		return nil, err
	}
	if err := n.serve(ln); err != nil {
		return nil, err
	}
	// Members first: they may bring what the view will show.
	if err := n.startMembers(); err != nil {
		return nil, err
	}
	if err := n.startView(ctx); err != nil {
		return nil, err
	}
	n.start(n.maintain)
	n.start(n.watchDigests)
	n.start(n.scrubView)
	if len(cfg.Meet) > 0 {
		n.start(func() { n.members.join(n.ctx, slices.Clone(cfg.Meet)) })
	}
	if err := n.startMetrics(); err != nil {
		return nil, err
	}
	return n, nil
}

// start runs fn until the node stops.
func (n *Node) start(fn func()) {
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		fn()
	}()
}

func (n *Node) openLog() error {
	policy, err := oplog.ParsePolicy(n.cfg.Fsync)
	if err != nil {
		return err
	}
	n.log, err = oplog.Open(oplog.Options{
		Dir: filepath.Join(n.cfg.Dir, StoreDir), Node: uint16(n.cfg.ID), Fsync: policy,
		RetentionBytes: int64(n.cfg.LogRetentionBytes), RetentionTime: n.cfg.LogRetentionTime,
		KeyBytes:  int64(n.cfg.KeyCache),
		KeepBytes: min(keepLog, int64(n.cfg.LogRetentionBytes)/2),
		Logger:    n.slog,
		Events: oplog.Events{
			Durable: func(crdt.Vector) {
				if l := n.durable.Load(); l != nil {
					l.NotifyDurable()
				}
			},
			Failed: func(err error) {
				if err != nil {
					n.slog.Error("writes are stopped: the log can't be written", "err", err)
				} else {
					n.slog.Info("the log can be written again: writes go on")
				}
			},
			Trimmed: func(s crdt.Stream, floor crdt.Tag) {
				n.slog.Warn("log trimmed before every member had it: those that lack it will get a state sync", "stream", s, "up_to", floor)
			},
		},
	})
	if err != nil {
		return err
	}
	n.cfg.ID = int(n.log.Identity().Node)
	n.cfg.EnsureDefaults()
	return nil
}

func (n *Node) startCore() error {
	id := n.log.Identity()
	clock, err := crdt.NewClock(id.Node, n.log.TagFloor(), n.cfg.MaxClockSkew)
	if err != nil {
		return err
	}
	n.recovery = &recovery{log: n.log, adopt: n.cfg.Adopt, slog: n.slog, lostc: make(chan error, 1), rolledBack: n.rolledBack, fatal: n.fail}
	n.replies = newReadCache(int64(n.cfg.View.ReadCache))
	n.pump = newPump(n.recovery.mark, n.recovery.viewLost, n.replies, n.slog)
	started := time.Now()
	n.scripts = command.NewScripts(func() int64 { return time.Since(started).Milliseconds() }, n.scriptLog, rand.Uint32)
	core, err := NewCore(CoreOptions{
		Log: n.log, Clock: clock, Wall: time.Now, View: n.pump, Scripts: n.scripts, Logger: n.slog, Listener: (*frontListener)(n),
		Lane: n.cfg.lanes(), Replies: n.replies,
		Rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	})
	if err != nil {
		return err
	}
	if err := n.checkPowerLoss(core); err != nil {
		return err
	}
	n.awaitClock(core)
	keys := groupKeysShort
	if n.cfg.Fsync == oplog.FsyncAlways.String() {
		keys = groupKeys
	}
	n.exec = newExecutor(core, keys, n.slog)
	n.exec.setLoading("replicatord is starting")
	n.recovery.exec, n.recovery.pump = n.exec, n.pump
	n.recovery.progress = n.exec.setLoading
	go n.pump.loop()
	go n.exec.loop()
	return nil
}

// awaitClock waits until the wall clock has reached the tags that an earlier
// run had reserved, which after an orderly stop it has. A kill leaves up to a
// second of them unused; were they skipped, this node's time, by which keys
// expire, would stand ahead of the clock. A clock that was set back is not
// waited for.
func (n *Node) awaitClock(core *Core) {
	ahead := time.Duration(core.Now()-time.Now().UnixMilli()) * time.Millisecond
	if 0 < ahead && ahead < maxClockWait {
		time.Sleep(ahead)
	}
}

// maxClockWait bounds awaitClock.
const maxClockWait = 2 * time.Second

// bootMeta names the run of the machine during which the node last ran; it is
// deleted by an orderly stop.
const bootMeta = "view/boot"

// checkPowerLoss begins a new generation, so that no view is trusted, if the
// machine went down under the node: the log may have lost its last moments
// then, which a view that lives elsewhere still shows.
func (n *Node) checkPowerLoss(core *Core) error {
	was, err := n.log.Meta(bootMeta)
	if err != nil {
		return err
	}
	now := bootID()
	if was != nil && (now == "" || now != string(was)) && n.cfg.Fsync != FsyncAlways {
		n.slog.Warn("the machine went down while the node ran: the view will be rebuilt")
		if err := core.Distrust(); err != nil {
			return err
		}
	}
	return n.log.SetMeta(bootMeta, []byte(cmp.Or(now, "unknown")))
}

func (n *Node) serve(ln net.Listener) error {
	var conf *tls.Config
	var err error
	if n.cfg.TLS.RESP || n.cfg.TLS.WAN {
		if n.certs, err = newCertFiles(n.cfg.TLS, n.slog); err != nil {
			return err
		}
	}
	if n.cfg.TLS.RESP {
		conf = n.certs.server()
	}
	n.server, err = resp.New(resp.Options{
		Backend: n, Version: n.version, Logger: n.slog, TLS: conf,
		RequirePass: n.cfg.RequirePass, ACLFile: n.cfg.ACLFile, DebugCommand: n.cfg.EnableDebugCommand, MaxClients: n.cfg.MaxClients,
		MaxBulkLen: int64(n.cfg.ProtoMaxBulkLen), MaxQueryBuffer: int64(n.cfg.ClientQueryBufferLimit),
		MaxOutputBuffer: int64(n.cfg.ClientOutputBufferLimit), IdleTimeout: n.cfg.Timeout,
		Dir: n.cfg.Dir, Shutdown: func() { n.fail(nil) },
	})
	if err != nil {
		return err
	}
	if err := n.exec.Run(func(*Core) { n.exec.latency = n.server.Latency }); err != nil {
		return err
	}
	if n.cfg.ProtectedMode && !isLoopback(n.cfg.Bind) && n.server.Open() {
		return fmt.Errorf("%s lets other machines in, and %s lets the default user do so without a password: give it one, or turn it off (or set protected_mode = false where the network keeps strangers out)", n.cfg.Bind, n.cfg.ACLFile)
	}
	n.front.Store(n.server)
	go func() {
		if err := n.server.Serve(ln); err != nil && !errors.Is(err, resp.ErrClosed) {
			n.fail(fmt.Errorf("serving clients: %w", err))
		}
	}()
	return nil
}

func (n *Node) startMembers() error {
	raw, err := n.log.Meta(membersMeta)
	if err != nil {
		return err
	}
	known, err := loadRoll(raw)
	if err != nil {
		return err
	}
	n.members = &members{exec: n.exec, slog: n.slog, list: known.Members}
	if n.cfg.TLS.RESP {
		n.members.tls = n.certs.client()
	}
	if err := n.startLinks(known); err != nil {
		return err
	}
	n.members.update = n.membersChanged
	id := n.log.Identity()
	facts := gossip.Facts{
		ID: id.Node, Alias: n.cfg.Alias, Region: n.cfg.Region, Cluster: n.cfg.Cluster,
		Incarnation: id.Incarnation, Dir: id.Dir, Version: ProtocolVersion,
		RESP: n.advertised(n.cfg.AdvertisePort, n.cfg.Port), WAN: n.advertised(n.cfg.AdvertiseWANPort, n.cfg.WANPort),
		Links: n.cfg.toldLinks(),
	}
	opts := gossip.Options{
		Facts: facts, Bind: n.cfg.Bind, Port: n.cfg.GossipPort,
		Advertise: n.cfg.Advertise, Secret: []byte(n.cfg.Secret), Logger: n.slog,
		Known: known.Members, Verdicts: known.Verdicts, OnChange: n.members.changed,
	}
	if p := n.cfg.AdvertiseGossipPort; p != 0 {
		host := n.cfg.Advertise
		if host == "" {
			host = n.cfg.Bind
		}
		opts.Advertise = joinPort(host, p)
	}
	n.members.ready = make(chan struct{})
	n.gossip, err = gossip.Start(opts)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	n.members.gossip = n.gossip
	close(n.members.ready)
	n.membersChanged(known.Members)
	return nil
}

// advertised returns the address that members are told for a port; an
// unspecified host is replaced by gossip with the one that is advertised.
func (n *Node) advertised(port, fallback int) string {
	host := n.cfg.Advertise
	if host == "" {
		host = n.cfg.Bind
	}
	if port == 0 {
		port = fallback
	}
	return joinPort(host, port)
}

// membersChanged tells the data links, and forgets what those who are gone
// have said.
func (n *Node) membersChanged(list []gossip.Member) {
	forgotten := n.gossip.Forgotten()
	n.links.update(list, forgotten)
	for _, id := range forgotten {
		n.applier.forget(id)
	}
	n.forgotten.Store(&forgotten) // now that there are no sessions with them
}

func (n *Node) startView(ctx context.Context) error {
	var err error
	if n.source, err = openView(&n.cfg, n.slog); err != nil {
		return err
	}
	n.recovery.source = n.source
	n.made.Store(true) // what operators ask is answered from now on, whatever the view is up to
	first := make(chan error, 1)
	var once sync.Once
	n.start(func() {
		n.recovery.run(n.ctx, func(err error) {
			once.Do(func() { first <- err })
		})
	})
	select {
	case err := <-first:
		return err
	case <-ctx.Done():
		return fmt.Errorf("start abandoned while the view was not level: %w", ctx.Err())
	}
}

// rolledBack begins a new incarnation if someone, the view or a peer, has seen
// writes of this one that the log does not have.
func (n *Node) rolledBack(seen crdt.Vector) error {
	var err error
	e := n.exec.Run(func(c *Core) {
		if err = c.Commit(); err != nil {
			return
		}
		own := n.log.Identity().Origin
		for _, p := range seen {
			if p.Stream.Origin() == own && p.Tag > n.log.Vector().Get(p.Stream) {
				err = c.reincarnate("the data directory is older than what this node has shown to others")
				return
			}
		}
	})
	return errors.Join(e, err)
}

// maintain does what has no hurry.
func (n *Node) maintain() {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	trim := time.NewTicker(5 * time.Second)
	defer trim.Stop()
	rest := time.NewTicker(time.Second)
	defer rest.Stop()
	for {
		select {
		case <-tick.C:
		case <-trim.C:
			n.trim()
		case <-rest.C:
			if n.log.Rest() {
				n.exec.WriteBack()
			}
		case <-n.ctx.Done():
			return
		}
		co := Company{Heard: n.applier.lastHeard()}
		for _, m := range n.members.List() {
			co.Members = append(co.Members, m.ID)
		}
		if f := n.forgotten.Load(); f != nil {
			co.Forgotten = *f
		}
		_ = n.exec.Run(func(c *Core) {
			if f, ok := c.Beat(&co); ok {
				n.wanLog.frontier.Store(&f)
			}
			if _, err := c.Maintain(&co); err != nil && n.log.Failed() == nil {
				n.slog.Error("maintenance failed", "err", err)
			}
		})
		if n.log.Failed() != nil {
			_ = n.log.Retry()
		}
	}
}

// trim drops what every member has acknowledged from the log, and the view
// has too.
func (n *Node) trim() {
	acked := n.log.Durable()
	if v := n.pump.Marked(); v != nil {
		acked = meet(acked, v)
	}
	for _, m := range n.members.List() {
		acked = meet(acked, n.links.durable(m.ID))
	}
	for n.ctx.Err() == nil {
		more, err := n.log.Trim(acked)
		if err != nil && n.log.Failed() == nil {
			n.slog.Warn("trimming the log failed, it will be tried again", "err", err)
		}
		if err != nil || !more {
			return
		}
	}
}

// Banner says in a line or two what runs where.
func (n *Node) Banner() string {
	id := n.log.Identity()
	return fmt.Sprintf("node %d (%s) of cluster %q: clients on %s, gossip on %s, data links on %s; view: %s; data in %s, %d members known",
		id.Node, n.cfg.Alias, n.cfg.Cluster, n.cfg.Addr(), n.gossip.Self().Gossip, n.gossip.Self().WAN, n.source.what, n.cfg.Dir, len(n.members.List())+1)
}

// Done is closed when the node has ended, by Stop or by itself; Err then says
// why.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err returns why the node ended by itself, nil if it was stopped.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.err
	default:
		return nil
	}
}

// fail ends the node by itself.
func (n *Node) fail(err error) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		n.end(ctx, err)
	}()
}

// Stop ends the node in order: clients are let go after what they have sent is
// done, everything is made durable and shipped as far as it goes in time,
// members are told.
func (n *Node) Stop(ctx context.Context) error {
	n.end(ctx, nil)
	<-n.done
	return n.err
}

func (n *Node) end(ctx context.Context, err error) {
	n.once.Do(func() {
		n.err = err
		if e := n.teardown(ctx); err == nil {
			n.err = e
		}
		close(n.done)
	})
}

// teardown undoes as much of Start as was done.
func (n *Node) teardown(ctx context.Context) error {
	var errs []error
	if n.server != nil {
		if n.scripts.BusyError() != "" {
			n.scripts.Stop() // nobody can be made to wait for it
		}
		errs = append(errs, n.server.Close(ctx))
	}
	if n.log != nil && n.log.Failed() == nil {
		errs = append(errs, n.log.Sync())
	}
	if n.links != nil && !n.paused.Load() {
		n.links.drain(ctx)
	}
	if n.gossip != nil {
		if err := n.gossip.Leave(2 * time.Second); err != nil {
			n.slog.Warn("leaving", "err", err) // members that are down can't be told: no fault of this stop
		}
		errs = append(errs, n.gossip.Close())
	}
	if n.links != nil {
		n.links.Close()
	}
	n.cancel()
	n.work.Wait()
	if n.exec != nil {
		n.exec.Stop()
		n.pump.Stop()
	}
	if n.source != nil {
		errs = append(errs, n.source.stop())
	}
	if n.metrics != nil {
		n.metrics.close()
	}
	if n.log != nil {
		if n.exec != nil && n.log.Failed() == nil {
			errs = append(errs, n.log.SetMeta(bootMeta, nil)) // the view has all, or was left behind in the same moment
		}
		errs = append(errs, n.log.Close())
	}
	return errors.Join(errs...)
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.1.0-dev"
}

// Unblock implements resp.Backend.
func (n *Node) Unblock(s *resp.Session, reply []byte) bool { return n.exec.Unblock(s, reply) }

// Execute implements resp.Backend.
func (n *Node) Execute(reqs []*resp.Request) { n.exec.Execute(reqs) }

// Start implements resp.Backend.
func (n *Node) Start(batches []resp.Batch) { n.exec.Start(batches) }

// Recall implements resp.Backend.
func (n *Node) Recall(reqs []*resp.Request) int { return n.replies.recall(reqs) }

// Holding implements resp.Backend.
func (n *Node) Holding(reqs []*resp.Request) int { return n.replies.holding(reqs) }

// Scripts implements resp.Backend.
func (n *Node) Scripts() *command.Scripts { return n.scripts }

// scriptLog logs what a script says.
func (n *Node) scriptLog(level int, msg string) {
	levels := [...]slog.Level{slog.LevelDebug, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn}
	n.slog.Log(n.ctx, levels[level], "a script says", "text", msg)
}

// Loading implements resp.Backend.
func (n *Node) Loading() string {
	if why := n.exec.loading.Load(); why != nil {
		return *why
	}
	return ""
}
