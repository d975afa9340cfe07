package resp

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/resp/acl"
	"github.com/replicatord/replicatord/resp/command"
)

// ErrClosed is what Serve returns after Close.
var ErrClosed = errors.New("resp: server closed")

// Server serves Redis clients on one listener.
type Server struct {
	opt          Options
	backend      Backend
	log          *slog.Logger
	started      time.Time
	listener     net.Listener // set by Serve
	settings     settings
	budget       budget
	stats        stats
	slow         slowLog
	pause        pause
	users        *acl.Users
	denied       acl.Log
	latency      latencyMonitor
	kept         keptValues
	hub          hub
	trackers     trackers
	monitors     monitors
	shutdown     sync.Once
	looped       atomic.Int64 // sessions that are with a loop
	debugScripts atomic.Bool  // DEBUG SET-DISABLE-DENY-SCRIPTS

	mu       sync.Mutex
	sessions map[int64]*Session
	lastID   int64
	closing  bool
	stop     chan struct{}             // closed by Close
	rows     map[*command.Command]*row // read only
	loops    []*loop                   // likewise, since Serve
	left     sync.WaitGroup
}

// New returns a server. It does nothing until Serve is called.
func New(opt Options) (*Server, error) {
	opt.ensureDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		opt: opt, backend: opt.Backend, log: opt.Logger, started: time.Now(),
		sessions: map[int64]*Session{}, stop: make(chan struct{}), users: acl.NewUsers(),
	}
	s.settings.init(&opt)
	s.users.SetPassword(opt.RequirePass)
	if opt.ACLFile != "" {
		if _, err := s.loadUsers(); err != nil {
			return nil, err
		}
	}
	s.budget.limit.Store(opt.MaxMemory)
	s.rows = s.table()
	s.pause.init()
	s.hub.init()
	s.trackers.init()
	return s, nil
}

// Serve accepts clients until Close is called, and then returns ErrClosed. It
// owns the listener, and is called once.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		_ = ln.Close()
		return ErrClosed
	}
	s.listener = ln
	s.left.Add(1)
	s.startLoops()
	s.mu.Unlock()
	go s.tick()
	var delay time.Duration
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			delay = 0
			s.accept(conn)
			continue
		case s.isClosing():
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return err
		}
		// Such as too many open files: it will pass.
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		s.log.Error("cannot accept clients, trying again", "error", err, "delay", delay)
		select {
		case <-time.After(delay):
		case <-s.stop:
			return ErrClosed
		}
	}
}

func (s *Server) startLoops() {
	for range s.opt.Loops {
		l, err := newLoop(s)
		switch {
		case err == nil:
			s.loops = append(s.loops, l)
		case !errors.Is(err, errors.ErrUnsupported):
			s.log.Warn("every client has a goroutine of its own, which costs more", "cause", err)
		}
	}
}

// accept starts a session, or turns the client away.
func (s *Server) accept(conn net.Conn) {
	s.mu.Lock()
	full := len(s.sessions) >= int(s.settings.maxClients.Load())
	if full || s.closing {
		s.mu.Unlock()
		if full {
			s.stats.rejected.Add(1)
			// A new socket has room for this; over TLS nothing can be said yet.
			if s.opt.TLS == nil {
				_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				_, _ = conn.Write([]byte("-ERR max number of clients reached\r\n"))
			}
		}
		_ = conn.Close()
		return
	}
	s.lastID++
	c := newSession(s, s.lastID, conn)
	s.sessions[c.id] = c
	s.left.Add(1)
	s.mu.Unlock()
	s.stats.connections.Add(1)
	go c.serve()
}

// remove forgets a session that has ended.
func (s *Server) remove(c *Session) {
	s.mu.Lock()
	delete(s.sessions, c.id)
	s.mu.Unlock()
	s.left.Done()
}

// clients returns the sessions by id, but for those that were killed.
func (s *Server) clients() []*Session {
	s.mu.Lock()
	list := make([]*Session, 0, len(s.sessions))
	for _, c := range s.sessions {
		if !c.dead.Load() {
			list = append(list, c)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b *Session) int { return int(a.id - b.id) })
	return list
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// Addr returns the address served, nil before Serve.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Close stops accepting clients, lets every session finish the commands it has
// received and send their replies, and disconnects it. When ctx ends first, what is left
// is cut off and ctx's error returned. Close may be called again.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.stop)
		if s.listener != nil {
			_ = s.listener.Close()
		}
	}
	s.mu.Unlock()
	s.pause.end()
	for _, c := range s.clients() {
		c.wake()
	}
	for _, l := range s.loops {
		l.tell(nil, newsClosing)
	}
	done := make(chan struct{})
	go func() {
		s.left.Wait()
		for _, l := range s.loops {
			l.close()
		}
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	for _, c := range s.clients() {
		c.kill(errors.New("server closed"))
	}
	return ctx.Err()
}

// tick samples rates and closes idle connections.
func (s *Server) tick() {
	defer s.left.Done()
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for n := 1; ; n++ {
		select {
		case <-s.stop:
			return
		case now := <-t.C:
			s.stats.sample(now)
			if s.settings.maxMemory.Load() > 0 || s.settings.minReplicas.Load() > 0 {
				s.measure()
			}
			if n%int(time.Second/sampleEvery) == 0 {
				s.rest(now)
				s.closeIdle(now)
			}
		}
	}
}

// rest has clients that have been quiet for restAfter hold no read buffers.
func (s *Server) rest(now time.Time) {
	for _, c := range s.clients() {
		if !c.busy.Load() && now.Unix()-c.active.Load() >= restAfter {
			c.rest()
		}
	}
}

func (s *Server) closeIdle(now time.Time) {
	limit := s.settings.timeout.Load()
	if limit == 0 {
		return
	}
	for _, c := range s.clients() {
		if !c.busy.Load() && !c.subscribed() && now.Unix()-c.active.Load() > limit {
			c.kill(errIdle)
		}
	}
}

var errIdle = errors.New("idle for longer than timeout")

// handshake completes TLS, if it is spoken, within a bounded time.
func (s *Server) handshake(conn net.Conn) (net.Conn, error) {
	if s.opt.TLS == nil {
		return conn, nil
	}
	t := tls.Server(conn, s.opt.TLS)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	return t, t.HandshakeContext(ctx)
}

func randomID() string {
	b := make([]byte, 20)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// settings are what CONFIG SET can change.
type settings struct {
	maxClients  atomic.Int64
	timeout     atomic.Int64 // seconds
	maxBulk     atomic.Int64
	maxQuery    atomic.Int64
	maxOutput   atomic.Int64
	slowTime    atomic.Int64 // microseconds
	slowLen     atomic.Int64
	requirePass atomic.Pointer[string]
	aclLogLen   atomic.Int64
	latencyMin  atomic.Int64 // milliseconds; 0: the latency monitor is off
	tracking    atomic.Bool  // of latencies
	percentiles atomic.Pointer[percentileList]
	maxMemory   atomic.Int64              // bytes of the backend's data; 0: no limit
	measuring   sync.Mutex                // full and alone are being set
	full        atomic.Bool               // maxMemory is exceeded
	minReplicas atomic.Int64              // members that must be level for a write; 0: none
	maxLag      atomic.Int64              // seconds they may be behind
	alone       atomic.Bool               // they are fewer than minReplicas
	pubsub      atomic.Pointer[pushLimit] // of clients with subscriptions
	notify      atomic.Uint32             // notify-keyspace-events, as eventFlags
	trackKeys   atomic.Int64              // tracking-table-max-keys; 0: no limit
}

func (p *settings) init(o *Options) {
	p.maxClients.Store(int64(o.MaxClients))
	p.timeout.Store(int64(o.IdleTimeout / time.Second))
	p.maxBulk.Store(o.MaxBulkLen)
	p.maxQuery.Store(o.MaxQueryBuffer)
	p.maxOutput.Store(o.MaxOutputBuffer)
	p.slowTime.Store(o.SlowLogTime.Microseconds())
	if o.SlowLogTime < 0 {
		p.slowTime.Store(-1)
	}
	p.slowLen.Store(DefaultSlowLogLen)
	p.requirePass.Store(&o.RequirePass)
	p.aclLogLen.Store(DefaultACLLogLen)
	p.tracking.Store(true)
	p.percentiles.Store(&percentileList{50, 99, 99.9})
	p.pubsub.Store(&pushLimit{hard: DefaultPubSubHard, soft: DefaultPubSubSoft, time: DefaultPubSubTime})
	p.trackKeys.Store(DefaultTrackingKeys)
	p.maxLag.Store(10)
}

// password returns requirepass, "" for none. The default user's rules may
// have been changed since it was set.
func (p *settings) password() string { return *p.requirePass.Load() }

// pid is the process id, as INFO and others show it.
var pid = os.Getpid()
