package gossip

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Options says who the node is and how it gossips.
type Options struct {
	Facts // of this node; Gossip is filled in by Start

	// Bind is the address to listen on, TCP and UDP. Empty means every
	// interface.
	Bind string

	// Port is the port to listen on; 0 lets the system choose. See
	// Self().Gossip.
	Port int

	// Advertise is where other nodes reach this one, if that is not where it
	// listens (behind NAT): host, or host:port. A name is resolved once here
	// and again by those who reconnect. Empty means Bind, or a private
	// address of this machine if Bind means every interface.
	Advertise string

	// Secret is the cluster's: nodes with another are kept out and cannot
	// read along. Without one nothing is encrypted, and anyone who reaches
	// the port may join; only sensible on a loopback address.
	Secret []byte

	// Logger, nil for none. memberlist's own log is passed on at debug level.
	Logger *slog.Logger

	// Transport replaces the network: Bind and Port are not used then. nil
	// means TCP and UDP.
	Transport memberlist.Transport

	// OnChange is called with all members, as Members returns them, after
	// they or the verdicts have changed: in order, one call at a time, on a goroutine of
	// its own. Changes that come while a call is running are reported by the
	// next, together: a member that failed and recovered meanwhile may show
	// as alive in both. It must not call Close.
	OnChange func([]Member)

	// Known are the members as last seen before this start, as Members
	// returned them. They start out Failed, and are tried until they answer.
	Known []Member

	// Verdicts are what was held of whom before this start, as Verdicts
	// returned them.
	Verdicts []Verdict

	// Timings, each WANTimings' where zero.
	Timings Timings
}

// Gossip is one node's membership in its cluster. Its methods may be called
// by any goroutine.
type Gossip struct {
	id        uint16
	name      string // of this process, in memberlist
	list      *memberlist.Memberlist
	transport *transport
	seal      *seal // nil without a secret
	log       *slog.Logger
	timings   Timings
	onChange  func([]Member)
	host      string // advertised

	// running ends with Leave or Close, and with it the reconnect loop.
	running context.Context
	stop    context.CancelFunc
	dirty   chan struct{}                    // room for one: there is something to report
	rumours *memberlist.TransmitLimitedQueue // goodbyes of others, passed on
	wg      sync.WaitGroup

	lifecycle sync.Mutex // Leave, Close, Update: one at a time

	// mu guards what follows. memberlist calls in with its lock held, so
	// nobody calls memberlist with mu held.
	mu       sync.Mutex
	roster   *roster
	meta     []byte // the encoded card
	selfErr  string
	refusals []*JoinError
	closed   bool // no more work may enter
}

// Start listens and begins to gossip. It waits for nobody: members that are
// down are tried in the background.
func Start(o Options) (*Gossip, error) {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	timings := o.Timings.withDefaults()

	if err := o.Facts.check(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	if o.Dir == 0 {
		return nil, errors.New("gossip: the data directory has no identity (Dir is 0)")
	}
	gossipKey, err := deriveKey(o.Secret, labelGossip)
	if err != nil {
		return nil, fmt.Errorf("gossip: secret: %w", err)
	}
	knockKey, err := deriveKey(o.Secret, labelKnock)
	if err != nil {
		return nil, fmt.Errorf("gossip: secret: %w", err)
	}
	seal, err := newSeal(knockKey)
	if err != nil {
		return nil, fmt.Errorf("gossip: secret: %w", err)
	}

	c := memberlist.DefaultWANConfig()
	c.Logger = memberlistLogger(log)
	c.SecretKey = gossipKey
	c.EnableCompression = false // cards are small; and nothing to inflate
	c.ProbeInterval, c.ProbeTimeout = timings.Probe, timings.ProbeTimeout
	c.SuspicionMult = timings.SuspicionMult
	c.GossipInterval = timings.Gossip
	c.PushPullInterval = timings.PushPull
	c.GossipToTheDeadTime = timings.Dead
	c.TCPTimeout = timings.Stream

	inner := o.Transport
	bind, port := net.IP(nil), o.Port
	if inner == nil {
		if bind, err = bindIP(o.Bind); err != nil {
			return nil, err
		}
		nt, err := listen(bind.String(), port, c)
		if err != nil {
			return nil, err
		}
		inner, port = nt, nt.GetAutoBindPort()
	}
	t := newTransport(inner, timings.Stream)
	started := false
	defer func() {
		if !started {
			_ = t.Shutdown()
		}
	}()

	var ip net.IP
	var host string
	if o.Transport != nil && o.Advertise == "" {
		if ip, port, err = inner.FinalAdvertiseAddr("", 0); err != nil {
			return nil, fmt.Errorf("gossip: %w", err)
		}
		host = ip.String()
	} else if host, ip, port, err = advertised(o.Advertise, bind, port); err != nil {
		return nil, err
	}
	c.AdvertiseAddr, c.AdvertisePort = ip.String(), port
	c.BindPort = port
	if seal == nil && !ip.IsLoopback() {
		log.Warn("gossip has no secret: anyone who reaches its port can read along and join; set a secret", "address", ip.String())
	}

	self := card{Facts: o.Facts, session: newSession()}
	self.Gossip = net.JoinHostPort(host, strconv.Itoa(port))
	if self.Facts, err = reachable(self.Facts, host); err != nil {
		return nil, err
	}
	meta, err := self.encode()
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}

	g := &Gossip{
		id:        o.ID,
		name:      self.name(),
		transport: t,
		seal:      seal,
		log:       log,
		timings:   timings,
		onChange:  o.OnChange,
		host:      host,
		dirty:     make(chan struct{}, 1),
		roster:    newRoster(self),
		meta:      meta,
	}
	for _, v := range o.Verdicts {
		g.roster.judged(v)
	}
	for _, m := range o.Known {
		g.roster.seed(m)
	}
	g.rumours = &memberlist.TransmitLimitedQueue{NumNodes: g.size, RetransmitMult: c.RetransmitMult}
	d := delegate{g}
	c.Name = g.name
	c.Transport = t
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = d, d, d, d, d

	if g.list, err = memberlist.Create(c); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	// Knocks are answered only now that there is a list to ask.
	t.knock = g.answerKnock
	t.serve()
	started = true

	g.running, g.stop = context.WithCancel(context.Background())
	g.wg.Go(g.reconnect)
	if g.onChange != nil {
		g.wg.Go(g.report)
	}
	return g, nil
}

// newSession numbers this process: milliseconds since 1970, so that later
// processes have greater numbers, and 20 random bits against coincidence.
func newSession() uint64 {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return uint64(time.Now().UnixMilli())<<20 | uint64(binary.BigEndian.Uint32(b[:])>>12)
}

// size is how many processes are known, this one included.
func (g *Gossip) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return 1 + len(g.roster.sessions)
}

// reachable puts host for unspecified hosts in the addresses of f.
func reachable(f Facts, host string) (Facts, error) {
	var err error
	if f.RESP, err = withHost(f.RESP, host); err != nil {
		return f, fmt.Errorf("gossip: RESP address: %w", err)
	}
	if f.WAN, err = withHost(f.WAN, host); err != nil {
		return f, fmt.Errorf("gossip: WAN address: %w", err)
	}
	return f, nil
}

// enter admits one more piece of work, to be ended by wg.Done, unless closed.
func (g *Gossip) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Add(1)
	return true
}

func (g *Gossip) card() card {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.roster.self
}

// Self returns what this node tells of itself, and what is wrong with it:
// LastError names a node that claimed the same id.
func (g *Gossip) Self() Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Member{Facts: g.roster.self.Facts, State: Alive, LastError: g.selfErr}
}

// Members lists the other nodes of the cluster, by id, without those that
// were forgotten. Since is by this node's clock.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.roster.members()
}

// Forget drops a member and refuses it, and its messages, until Allow, on every
// node of the cluster: those that cannot be told now learn of it when they are
// back. Whoever takes the id after Allow need not be the same node.
func (g *Gossip) Forget(id uint16) { g.give(id, true) }

// Allow ends a Forget, everywhere. If the member still is alive to memberlist
// it is back at once; otherwise when one side joins at the other.
func (g *Gossip) Allow(id uint16) { g.give(id, false) }

// Forgotten lists the ids refused, in order.
func (g *Gossip) Forgotten() []uint16 {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := make([]uint16, 0, len(g.roster.forgotten))
	for id := range g.roster.forgotten {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Update changes what this node tells of itself. Its id, cluster, directory and
// gossip address stay what they were at Start: f's are not looked at. The news
// has been sent out when Update returns, or will reach the others with the next
// full exchange.
func (g *Gossip) Update(f Facts) error {
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	if g.running.Err() != nil || !g.enter() {
		return ErrClosed
	}
	defer g.wg.Done()

	c := g.card()
	f.ID, f.Cluster, f.Dir, f.Gossip = c.ID, c.Cluster, c.Dir, c.Gossip
	f, err := reachable(f, g.host)
	if err != nil {
		return err
	}
	c.Facts = f
	meta, err := c.encode()
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	g.mu.Lock()
	g.roster.self, g.meta = c, meta
	g.mu.Unlock()
	if err := g.list.UpdateNode(10 * g.timings.Gossip); err != nil {
		g.log.Debug("new facts wait for the next full exchange", "error", err)
	}
	return nil
}

// Leave says goodbye, so that the others list this node as Left and do not
// suspect it. It waits until that is sent, at most for timeout. Close must
// follow; nothing can be joined any more.
func (g *Gossip) Leave(timeout time.Duration) error {
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	if !g.enter() {
		return ErrClosed
	}
	defer g.wg.Done()
	g.stop()

	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	g.mu.Lock()
	var to []memberlist.Node
	for name, s := range g.roster.sessions {
		if s.state == Alive {
			to = append(to, memberlist.Node{Name: name, Addr: s.ip, Port: s.port})
		}
	}
	g.mu.Unlock()
	begin := time.Now()
	told := make(chan error, len(to))
	for _, n := range to {
		g.wg.Add(1)
		go func() {
			defer g.wg.Done()
			told <- g.list.SendReliable(&n, append([]byte{userLeaving}, g.name...))
		}()
	}
	var errs []error
	for range to {
		select {
		case err := <-told:
			if err != nil {
				errs = append(errs, err)
			}
		case <-deadline.C:
			return errors.New("gossip: no time to tell all members of leaving: they will list this node as failed")
		}
	}
	if err := g.list.Leave(max(timeout-time.Since(begin), time.Millisecond)); err != nil && len(errs) == len(to) {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return fmt.Errorf("gossip: some members could not be told of leaving and will list this node as failed: %w", errors.Join(errs...))
	}
	return nil
}

// Close stops without a word; the others notice. It waits for everything that
// was under way, OnChange included. Close again does nothing.
func (g *Gossip) Close() error {
	g.stop()
	g.transport.cancel() // no connection is waited for any more
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	err := g.list.Shutdown()
	g.wg.Wait()
	return err
}

// changed has the report loop look.
func (g *Gossip) changed() {
	select {
	case g.dirty <- struct{}{}:
	default:
	}
}

// report calls OnChange. The queue is one place long: what counts is only that
// something has changed since the last look.
func (g *Gossip) report() {
	var last []Member
	var verdicts []Verdict // a verdict may be on a node that is not known yet
	for {
		select {
		case <-g.dirty:
		case <-g.transport.ctx.Done():
			return
		}
		members, judged := g.Members(), g.Verdicts()
		if slices.Equal(members, last) && slices.Equal(judged, verdicts) {
			continue
		}
		last, verdicts = members, judged
		g.onChange(slices.Clone(members))
	}
}

// trouble notes what is wrong with a member that is not alive.
func (g *Gossip) trouble(id uint16, text string) {
	g.mu.Lock()
	s := g.roster.best(id)
	note := s != nil && s.state != Alive && !g.roster.forgotten[id] && g.roster.errs[id] != text
	if note {
		g.roster.errs[id] = text
	}
	g.mu.Unlock()
	if note {
		g.changed()
	}
}

// conflict notes that claimant was refused for the id of holder, with holder:
// this node, or a member.
func (g *Gossip) conflict(claimant, holder Facts) {
	text := sameID(claimant, holder)
	g.mu.Lock()
	var known bool
	if holder.ID == g.id {
		known = g.selfErr == text
		g.selfErr = text
	} else if !g.roster.forgotten[holder.ID] {
		known = g.roster.errs[holder.ID] == text
		g.roster.errs[holder.ID] = text
	}
	g.mu.Unlock()
	if !known {
		g.log.Warn("two nodes have one id", "error", text)
		g.changed()
	}
}
