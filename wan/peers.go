package wan

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Peers is all sessions of a node together: it admits peers, keeps one session
// with each, and chooses which origins to have from which. Like Session it has
// no clock, goroutines or sockets; Manager drives it over real connections and
// a simulator over its own. Safe for concurrent use.
type Peers struct {
	cfg  Config
	boot []byte

	// Locks are taken in this order: mu, a session's, reg.
	mu       sync.Mutex
	now      time.Time // as last told
	planned  time.Time
	sessions map[*Session]struct{}
	live     map[uint16]*Session // ready, one for each node

	subscribers map[*Session]struct{} // ready

	planner planner
	paused  bool
	status  map[uint16]*status

	// follow remembers which entry of this node follows a position: the log
	// is read once for it, however often Stats is called. It has its own lock.
	follow follow

	// reg guards what sessions ask for with their locks held.
	reg       sync.Mutex
	forgotten map[uint16]bool
	hosts     map[uint16]wire.Hello // of the live sessions
	syncs     int
}

// status is what is remembered of a peer beyond its sessions.
type status struct {
	err     string
	errAt   time.Time
	since   time.Time // of the last change between live and not
	reopens uint64
	total   counters // of ended sessions
	// What the peer was known to have when its last session ended; see Stats.
	known crdt.Vector
	level time.Time
}

// NewPeers returns the sessions of a node, of which there are none yet.
func NewPeers(c Config) (*Peers, error) {
	c.EnsureDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Peers{cfg: c, boot: make([]byte, bootSize), sessions: map[*Session]struct{}{}, live: map[uint16]*Session{},
		subscribers: map[*Session]struct{}{}, planner: planner{region: c.Self.Region}, status: map[uint16]*status{}, forgotten: map[uint16]bool{}, hosts: map[uint16]wire.Hello{}}
	if _, err := io.ReadFull(c.Rand, p.boot); err != nil {
		return nil, fmt.Errorf("making a boot id: %w", err)
	}
	return p, nil
}

// Link describes a fresh connection.
type Link struct {
	Dialled bool   // by this end
	Expect  uint16 // id of the node that was dialled; 0 if any will do
	Via     string // URL dialled, or that of the other end; for Stats
	Binding []byte // identity of the TLS channel, nil without TLS
	// Wake is called, from any goroutine and perhaps with locks held, when
	// Next may return a frame again; it must not call back.
	Wake func()
}

// Open begins a session on a fresh connection.
func (p *Peers) Open(now time.Time, l Link) (*Session, error) {
	s, err := newSession(p, l, now)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.sessions[s] = struct{}{}
	p.now = later(p.now, now)
	p.mu.Unlock()
	return s, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Expect tells of nodes that there ought to be sessions with: Stats shows them
// from then on.
func (p *Peers) Expect(nodes []uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		p.stat(n)
	}
}

// SetForgotten replaces the set of nodes that were removed for good. Their
// sessions end.
func (p *Peers) SetForgotten(nodes []uint16) {
	p.reg.Lock()
	clear(p.forgotten)
	for _, n := range nodes {
		p.forgotten[n] = true
	}
	p.reg.Unlock()
	p.mu.Lock()
	var end []*Session
	for s := range p.sessions {
		if slices.Contains(nodes, s.Peer()) {
			end = append(end, s)
		}
	}
	for _, n := range nodes {
		delete(p.status, n)
	}
	p.mu.Unlock()
	for _, s := range end {
		s.Close(forgotten(s.Peer()))
	}
}

func forgotten(node uint16) error {
	return fail(CodeForgotten, "node %d was removed from the cluster: to join again it needs a fresh data directory and another id", node)
}

// admit judges a peer that has proved itself.
func (p *Peers) admit(h *wire.Hello) error {
	p.reg.Lock()
	defer p.reg.Unlock()
	if h.Subscription != nil {
		return nil // counted when it is ready
	}
	if p.forgotten[h.Node] {
		return forgotten(h.Node)
	}
	if o, ok := p.hosts[h.Node]; ok && o.Dir != h.Dir {
		return fail(CodeSameID, "two nodes have the id %d: %s, with which there is a session, and %s; give one of them another id", h.Node,
			describe(printable(o.Alias), printable(o.Address)), describe(printable(h.Alias), printable(h.Address)))
	}
	return nil
}

// ready takes in a session that has come about, and ends the worse one if
// there are two with the node. Both sides judge alike: a process that started
// later has replaced the other; else the lower id is the one to dial; else the
// later session stands.
func (p *Peers) ready(s *Session, now time.Time) {
	p.mu.Lock()
	p.now = later(p.now, now)
	if s.Err() != nil {
		p.mu.Unlock()
		return
	}
	node := s.Peer()
	worse, live := p.live[node], s
	if worse != nil && bytes.Equal(worse.peer.Boot, s.peer.Boot) && worse.dialler() < s.dialler() {
		worse, live = s, worse
	}
	p.live[node] = live
	st := p.stat(node)
	if live == s {
		p.reg.Lock()
		p.hosts[node] = s.peer
		p.reg.Unlock()
		if worse == nil {
			st.since = p.now
		}
		st.reopens++
		st.err = ""
		s.SetPaused(p.paused)
		p.cfg.Logger.Info("session", "peer", node, "alias", printable(s.peer.Alias), "region", s.hello.Region, "dialled", s.dialled)
	}
	p.planLocked()
	p.mu.Unlock()
	if worse != nil {
		worse.Close(fail(CodeSuperseded, "there is a better session between nodes %d and %d", p.cfg.Self.Node, node))
	}
}

// subscribed takes in the session of a subscriber.
func (p *Peers) subscribed(s *Session) {
	p.mu.Lock()
	full := len(p.subscribers) >= p.cfg.MaxSubscribers
	if !full && s.Err() == nil {
		p.subscribers[s] = struct{}{}
		s.SetPaused(p.paused)
		p.cfg.Logger.Info("subscriber", "alias", printable(s.peer.Alias), "via", s.via)
	}
	p.mu.Unlock()
	if full {
		s.Close(fail(CodeRefused, "node %d has %d subscribers, which is all it takes", p.cfg.Self.Node, p.cfg.MaxSubscribers))
	}
}

// dialler returns the id of the node that dialled.
func (s *Session) dialler() uint16 {
	if s.dialled {
		return s.cfg.Self.Node
	}
	return s.peer.Node
}

// stat returns the status of a peer. p.mu is held.
func (p *Peers) stat(node uint16) *status {
	st := p.status[node]
	if st == nil {
		st = &status{}
		p.status[node] = st
	}
	return st
}

// closed takes note of the end of a session.
func (p *Peers) closed(s *Session, was bool, reason error) {
	node := s.Peer()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, s)
	delete(p.subscribers, s)
	if node == 0 {
		return
	}
	st := p.stat(node)
	s.mu.Lock()
	st.total.add(&s.stats)
	known, level := s.known, s.beat.level
	s.mu.Unlock()
	if code := CodeOf(reason); code != CodeSuperseded && code != CodeClosing {
		st.err, st.errAt = reason.Error(), p.now
	}
	if p.live[node] != s {
		return
	}
	delete(p.live, node)
	st.known, st.level = known, later(st.level, level)
	p.reg.Lock()
	delete(p.hosts, node)
	p.reg.Unlock()
	st.since = p.now
	p.cfg.Logger.Info("session ended", "peer", node, "reason", reason.Error(), "ready", was)
	p.planLocked()
}

// Failed takes note of why a connection to a node did not come about, for
// Stats.
func (p *Peers) Failed(node uint16, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live[node] == nil {
		st := p.stat(node)
		st.err, st.errAt = err.Error(), p.now
	}
}

// Tick tells the time, a few times in each heartbeat interval.
func (p *Peers) Tick(now time.Time) {
	p.mu.Lock()
	p.now = later(p.now, now)
	sessions := p.ordered()
	if now.Sub(p.planned) >= p.cfg.Heartbeat {
		p.planLocked()
	}
	p.mu.Unlock()
	for _, s := range sessions {
		s.Tick(now)
	}
}

// ordered returns the sessions in an order that does not depend on the map's:
// a simulator repeats itself. p.mu is held.
func (p *Peers) ordered() []*Session {
	return slices.SortedFunc(maps.Keys(p.sessions), func(a, b *Session) int {
		if c := int(a.Peer()) - int(b.Peer()); c != 0 {
			return c
		}
		if c := a.opened.Compare(b.opened); c != 0 {
			return c
		}
		return bytes.Compare(a.mine, b.mine)
	})
}

// replan chooses sources anew.
func (p *Peers) replan() {
	p.mu.Lock()
	p.planLocked()
	p.mu.Unlock()
}

func (p *Peers) planLocked() {
	p.planned = p.now
	nodes := slices.Sorted(maps.Keys(p.live))
	if p.paused {
		for _, n := range nodes {
			p.live[n].SetWant(nil)
		}
		p.feed(nodes, nil)
		return
	}
	views := make([]view, len(nodes))
	for i, n := range nodes {
		views[i] = p.live[n].view()
	}
	wants := p.planner.plan(p.now, p.cfg.Heartbeat, p.cfg.Log.Origin(), p.cfg.Log.Applied(), views)
	for _, n := range nodes {
		p.live[n].SetWant(wants[n])
	}
	p.feed(nodes, p.planner.feeds(views))
}

// feed tells the peers which origins of others this node can have from
// themselves. p.mu is held.
func (p *Peers) feed(nodes []uint16, feeds []crdt.Stream) {
	for _, n := range nodes {
		s := p.live[n]
		s.setFeeds(p.now, withoutOrigin(feeds, s.hello.Origin))
	}
}

func (s *Session) view() view {
	s.mu.Lock()
	defer s.mu.Unlock()
	return view{node: s.peer.Node, region: s.hello.Region, origin: s.hello.Origin, has: s.known,
		stalled: slices.Clone(s.taking.stalled), feeds: s.beat.theyFeed}
}

// synced tells that a state sync is complete: what peers could not serve from
// their logs before they may be able to serve now.
func (p *Peers) synced() {
	p.mu.Lock()
	for _, s := range p.live {
		s.clearStalled()
	}
	p.planLocked()
	p.mu.Unlock()
}

// NotifyDurable tells that the node's durable vector has risen: there may be
// entries to send, and to acknowledge.
func (p *Peers) NotifyDurable() {
	p.mu.Lock()
	nodes := slices.Sorted(maps.Keys(p.live))
	sessions := make([]*Session, len(nodes))
	for i, n := range nodes {
		sessions[i] = p.live[n]
	}
	sessions = slices.AppendSeq(sessions, maps.Keys(p.subscribers))
	p.mu.Unlock()
	for _, s := range sessions {
		s.NotifyDurable()
	}
}

// SetPaused stops or resumes the exchange of data with all peers. Sessions
// stay, with their heartbeats.
func (p *Peers) SetPaused(paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = paused
	for _, s := range p.live {
		s.SetPaused(paused)
	}
	for s := range p.subscribers {
		s.SetPaused(paused)
	}
	p.planLocked()
}

// CompareSync asks a peer about ranges that the sync under way has left out.
func (p *Peers) CompareSync(node uint16, parts []SyncPart) error {
	p.mu.Lock()
	s := p.live[node]
	p.mu.Unlock()
	if s == nil {
		return ErrNoSession
	}
	return s.CompareSync(parts)
}

// RequestSync asks a peer for its state from a cursor on, nil for the
// beginning, or, if since is not nil and the peer can, for what differs.
// ErrNoSession if there is no session with it.
func (p *Peers) RequestSync(node uint16, cursor []byte, since *SyncSince) error {
	p.mu.Lock()
	s := p.live[node]
	p.mu.Unlock()
	if s == nil {
		return ErrNoSession
	}
	if len(cursor) > MaxCursor {
		return fmt.Errorf("sync cursor of %d bytes, at most %d", len(cursor), MaxCursor)
	}
	return s.RequestSync(cursor, since)
}

// Durable returns what a peer was last heard to have durably, in this session
// or the one before; nil if it was not heard since this node started. A peer
// that was restored from a backup meanwhile has less.
func (p *Peers) Durable(node uint16) crdt.Vector {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.live[node]; s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.known
	}
	if st := p.status[node]; st != nil {
		return st.known
	}
	return nil
}

// Live reports whether there is a session with a node.
func (p *Peers) Live(node uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live[node] != nil
}

// CloseAll ends all sessions: with CodeClosing when the node stops, or for a
// fresh start of them all, when it has taken on a new incarnation.
func (p *Peers) CloseAll(reason error) {
	p.mu.Lock()
	sessions := p.ordered()
	p.mu.Unlock()
	for _, s := range sessions {
		s.Close(reason)
	}
}

// acquireSync takes one of the places for open snapshots.
func (p *Peers) acquireSync() bool {
	p.reg.Lock()
	defer p.reg.Unlock()
	if p.syncs >= p.cfg.MaxSyncs {
		return false
	}
	p.syncs++
	return true
}

func (p *Peers) releaseSync() {
	p.reg.Lock()
	p.syncs--
	p.reg.Unlock()
}
