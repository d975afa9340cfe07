package wan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/replicatord/replicatord/wan/transport"
)

// Member is another node of the cluster, as membership tells of it.
type Member struct {
	ID uint16
	// Addrs are URLs to dial, host:port for tcp, in the order in which they are
	// tried; none if it can only dial.
	Addrs []string
	// Forgotten nodes are not dialled, and refused when they dial.
	Forgotten bool
}

// Dialer opens and accepts connections; *transport.Factory is one.
type Dialer interface {
	Dial(ctx context.Context, address string) (transport.Conn, error)
	Listen(address string) (transport.Listener, error)
}

// ManagerOptions configure a Manager.
type ManagerOptions struct {
	Config
	Transport Dialer
	Listen    []string // URLs; none: this node only dials

	// BackoffMin and BackoffMax bound the time between attempts to reach a
	// member. It doubles with each failure, with some chance in it, and
	// begins anew after a session. Default 100 ms and 5 s.
	BackoffMin, BackoffMax time.Duration
	// MaxHandshakes is the number of accepted connections that have not
	// proved themselves; more are closed at once. Default 64.
	MaxHandshakes int
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Manager runs the sessions of a node over real connections: it dials members
// it has no session with, accepts others, and drives Peers.
type Manager struct {
	o      ManagerOptions
	peers  *Peers
	log    *slog.Logger
	listen []transport.Listener
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{} // one for each handshake under way

	mu      sync.Mutex
	closed  bool
	members map[uint16]*dialling
}

// dialling is how the reaching of one member goes.
type dialling struct {
	Member
	busy  bool
	fails int
	at    time.Time // of the next attempt

	good  int       // which of Addrs led to a session last
	first time.Time // when the first of Addrs was tried last
}

// preferAgain is after how long without an attempt the first of a member's
// addresses is tried before the one that led to a session last.
const preferAgain = 10 * time.Minute

// order returns the member's addresses as they are to be tried now.
func (d *dialling) order(now time.Time) []int {
	var out []int
	if d.good > 0 && now.Sub(d.first) < preferAgain {
		out = append(out, d.good)
	}
	for i := range d.Addrs {
		if !slices.Contains(out, i) {
			out = append(out, i)
		}
	}
	return out
}

// NewManager listens and starts. Members come with Update.
func NewManager(o ManagerOptions) (*Manager, error) {
	o.EnsureDefaults()
	if o.BackoffMin == 0 {
		o.BackoffMin = 100 * time.Millisecond
	}
	if o.BackoffMax == 0 {
		o.BackoffMax = 5 * time.Second
	}
	if o.MaxHandshakes == 0 {
		o.MaxHandshakes = 64
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	peers, err := NewPeers(o.Config)
	if err != nil {
		return nil, err
	}
	m := &Manager{o: o, peers: peers, log: o.Logger, members: map[uint16]*dialling{}, slots: make(chan struct{}, o.MaxHandshakes)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for _, url := range o.Listen {
		l, err := o.Transport.Listen(url)
		if err != nil {
			m.cancel()
			for _, l := range m.listen {
				_ = l.Close()
			}
			m.wg.Wait()
			return nil, fmt.Errorf("wan: listening at %s: %w", url, err)
		}
		m.listen = append(m.listen, l)
		m.wg.Go(func() { m.acceptLoop(l) })
	}
	m.wg.Go(m.tickLoop)
	return m, nil
}

// URLs returns where the node listens.
func (m *Manager) URLs() (out []string) {
	for _, l := range m.listen {
		out = append(out, l.URL())
	}
	return out
}

// Peers returns the sessions, for what concerns no connection: NotifyDurable,
// SetPaused, RequestSync, Stats, Live.
func (m *Manager) Peers() *Peers { return m.peers }

// Update replaces the members. Sessions with nodes that are no longer among
// them go on, but are not dialled anew; forgotten ones end.
func (m *Manager) Update(members []Member) {
	var forgotten, expected []uint16
	m.mu.Lock()
	next := map[uint16]*dialling{}
	for _, n := range members {
		switch {
		case n.Forgotten:
			forgotten = append(forgotten, n.ID)
		case n.ID != m.o.Self.Node && len(n.Addrs) > 0:
			d := m.members[n.ID]
			if d == nil || !slices.Equal(d.Addrs, n.Addrs) {
				busy := d != nil && d.busy
				d = &dialling{Member: n, busy: busy, at: m.o.Now()}
				if n.ID < m.o.Self.Node {
					// Both may dial, and then the lower id's session stays:
					// give it the time.
					d.at = d.at.Add(m.o.BackoffMin)
				}
			}
			next[n.ID] = d
			expected = append(expected, n.ID)
		}
	}
	m.members = next
	m.mu.Unlock()
	m.peers.SetForgotten(forgotten)
	m.peers.Expect(expected)
	m.dial()
}

// NotifyDurable is Peers.NotifyDurable.
func (m *Manager) NotifyDurable() { m.peers.NotifyDurable() }

// Pause stops exchanging data; sessions stay.
func (m *Manager) Pause() { m.peers.SetPaused(true) }

// Resume goes on exchanging data.
func (m *Manager) Resume() { m.peers.SetPaused(false) }

// Restart ends all sessions, which then come about anew: after the node has
// taken on a new incarnation.
func (m *Manager) Restart() {
	m.peers.CloseAll(fail(CodeClosing, "node %d starts its sessions anew", m.o.Self.Node))
	m.mu.Lock()
	for _, d := range m.members {
		d.fails, d.at = 0, m.o.Now()
	}
	m.mu.Unlock()
}

// Close ends all sessions, with a word to the peers, and waits until nothing
// of the manager runs any more.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	for _, l := range m.listen {
		_ = l.Close()
	}
	m.peers.CloseAll(fail(CodeClosing, "node %d is stopping", m.o.Self.Node))
	m.cancel()
	m.wg.Wait()
}

// spawn runs f unless the manager is closed.
func (m *Manager) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.wg.Go(f)
	return true
}

func (m *Manager) tickLoop() {
	t := time.NewTicker(max(min(m.o.Heartbeat/4, m.o.BackoffMin), time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-t.C:
			m.peers.Tick(m.o.Now())
			m.dial()
		}
	}
}

// dial starts an attempt to reach each member that is due for one.
func (m *Manager) dial() {
	now := m.o.Now()
	var due []*dialling
	m.mu.Lock()
	for _, d := range m.members {
		if !d.busy && !now.Before(d.at) {
			due = append(due, d)
		}
	}
	m.mu.Unlock()
	for _, d := range due {
		if m.peers.Live(d.ID) {
			continue
		}
		m.mu.Lock()
		busy := d.busy
		d.busy = true
		m.mu.Unlock()
		if !busy && !m.spawn(func() { m.attempt(d) }) {
			return
		}
	}
}

// attempt dials a member once and runs the session that comes of it.
func (m *Manager) attempt(d *dialling) {
	established, err := m.reach(d)
	m.mu.Lock()
	defer m.mu.Unlock()
	d.busy = false
	if cur := m.members[d.ID]; cur != nil {
		cur.busy = false
	}
	if established || CodeOf(err) == CodeSuperseded {
		d.fails, d.at = 0, m.o.Now().Add(m.o.BackoffMin)
		return
	}
	delay := m.o.BackoffMax
	if d.fails < 16 {
		delay = min(m.o.BackoffMin<<d.fails, m.o.BackoffMax)
	}
	d.fails++
	d.at = m.o.Now().Add(delay/2 + rand.N(delay/2+1))
}

// reach tries a member's addresses until one leads to a session, or to a
// refusal that the others would lead to as well.
func (m *Manager) reach(d *dialling) (established bool, err error) {
	var errs []error
	for _, i := range d.order(m.o.Now()) {
		if i == 0 {
			d.first = m.o.Now()
		}
		s, err := m.call(m.ctx, d.ID, d.Addrs[i])
		if s != nil && s.Established() {
			d.good = i
			return true, s.Err()
		}
		if CodeOf(err) == CodeSuperseded {
			return false, err
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.Addrs[i], err))
		}
		if m.ctx.Err() != nil || final(err) {
			break
		}
	}
	err = errors.Join(errs...)
	if err != nil {
		m.peers.Failed(d.ID, oneLine{err})
	}
	return false, err
}

// oneLine shows joined errors on one line.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.ReplaceAll(e.error.Error(), "\n", "; ") }

func (e oneLine) Unwrap() error { return e.error }

// final reports whether an error says that the right node was reached and wants
// no session, however it is reached.
func final(err error) bool {
	switch CodeOf(err) {
	case CodeVersion, CodeCluster, CodeSameID, CodeSelf, CodeForgotten, CodeRolledBack:
		return true
	}
	return false
}

// call dials an address and runs the session that comes of it.
func (m *Manager) call(ctx context.Context, id uint16, addr string) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.Handshake)
	defer cancel()
	conn, err := m.o.Transport.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return m.run(ctx, conn, Link{Dialled: true, Expect: id, Via: addr}, func() {})
}

func (m *Manager) acceptLoop(l transport.Listener) {
	scheme, _, _ := strings.Cut(l.URL(), "://")
	for {
		conn, err := l.Accept()
		if err != nil {
			if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, perhaps: others will be closed.
			m.log.Warn("accepting a connection", "err", err)
			select {
			case <-m.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case m.slots <- struct{}{}:
		default:
			m.log.Warn("too many handshakes under way; connection closed", "remote", conn.RemoteAddr().String(), "limit", m.o.MaxHandshakes)
			_ = conn.Close()
			continue
		}
		var once sync.Once
		release := func() { once.Do(func() { <-m.slots }) }
		ok := m.spawn(func() {
			defer release()
			ctx, cancel := context.WithTimeout(m.ctx, m.o.Handshake)
			defer cancel()
			if _, err := m.run(ctx, conn, Link{Via: scheme + "://" + conn.RemoteAddr().String()}, release); err != nil {
				m.log.Info("connection refused", "remote", conn.RemoteAddr().String(), "err", err)
			}
		})
		if !ok {
			_ = conn.Close()
			release()
		}
	}
}

// linger is how long a connection outlives its session, so that the peer
// learns why it ended.
const linger = 500 * time.Millisecond

// run drives a session over a connection until its end and closes it. proved
// is called once the peer has proved itself. The session is nil if not even
// one began; the error says why it ended, nil if it was established.
func (m *Manager) run(ctx context.Context, conn transport.Conn, l Link, proved func()) (*Session, error) {
	defer conn.Close()
	if err := conn.Handshake(ctx); err != nil {
		return nil, err
	}
	awake := make(chan struct{}, 1)
	l.Binding = conn.Binding()
	l.Wake = func() {
		select {
		case awake <- struct{}{}:
		default:
		}
	}
	s, err := m.peers.Open(m.o.Now(), l)
	if err != nil {
		return nil, err
	}
	if m.ctx.Err() != nil || errors.Is(ctx.Err(), context.Canceled) {
		s.Close(fail(CodeClosing, "node %d is stopping", m.o.Self.Node))
	}
	written, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		if err := m.write(conn, s, awake); err != nil {
			s.Close(fmt.Errorf("%w: %w", ErrDisconnected, err))
		}
	}()
	go func() {
		defer close(read)
		m.read(conn, s, proved)
	}()
	<-s.Done()
	if await(written) {
		_ = conn.CloseWrite()
		await(read)
	}
	_ = conn.Close()
	<-written
	<-read
	if s.Established() {
		return s, nil
	}
	return s, s.Err()
}

// await reports whether c was closed in time.
func await(c <-chan struct{}) bool {
	t := time.NewTimer(linger)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

// write sends what the session has to send until it is closed and has told
// the peer.
func (m *Manager) write(conn transport.Conn, s *Session, awake <-chan struct{}) error {
	backlog := 0
	for {
		frame, channel := s.Next(m.o.Now())
		if frame != nil {
			if n := s.Backlog(); n != backlog {
				backlog = n
				conn.SetBacklog(n)
			}
			err := conn.WriteFrame(channel, frame)
			if err == nil && s.Alone() {
				err = conn.Flush()
			}
			if err != nil {
				return err
			}
			continue
		}
		if err := conn.Flush(); err != nil {
			return err
		}
		if s.Err() != nil {
			return nil
		}
		held := s.Held(m.o.Now())
		if held == 0 {
			<-awake
			continue
		}
		timer := time.NewTimer(held)
		select {
		case <-awake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Members returns the members that are dialled, by id.
func (m *Manager) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Member
	for _, d := range m.members {
		out = append(out, d.Member)
	}
	slices.SortFunc(out, func(a, b Member) int { return int(a.ID) - int(b.ID) })
	return out
}
