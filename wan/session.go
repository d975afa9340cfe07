package wan

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Versions of the protocol that this build speaks.
const (
	MinVersion = 1
	MaxVersion = 4
	// versionPublish is the first that knows Publish.
	versionPublish = 2
	// versionDiff is the first that knows state syncs by difference.
	versionDiff = 3
	// versionRanges is the first in which a sync by difference may be asked for
	// ranges.
	versionRanges = 4
	// versionAsking is the first that knows chunks that ask for a Pong, and has in
	// it what was received.
	versionAsking = 4
)

// Sizes of the random parts of a Hello, in bytes.
const (
	nonceSize = 32
	bootSize  = 16
)

// phase is how far a session has come.
type phase uint8

const (
	phaseHello phase = iota // waiting for the peer's Hello
	phaseProof              // waiting for its Proof
	phaseAck                // waiting for its HelloAck
	phaseReady
	phaseClosed
)

func (p phase) String() string {
	return [...]string{"connecting", "proving", "proved", "connected", "closed"}[p]
}

// Session is one connection to a peer: a state machine without clock,
// goroutines or sockets. Whoever drives it feeds it the frames that arrive
// (Receive), the passing of time (Tick) and news from the node (NotifyDurable),
// and takes frames to send (Next) whenever the link can take one; wake is
// called when there may be one again. It calls the node through Applier and
// Log, never with its lock held over an Applier call. Its methods are safe for
// concurrent use, but Receive (or each of its halves) is for one goroutine and Next
// for one.
type Session struct {
	peers   *Peers
	cfg     *Config
	dialled bool
	expect  uint16
	binding []byte
	via     string
	wake    func()
	done    chan struct{}

	mu      sync.Mutex
	phase   phase
	err     error // why it is closed
	said    bool  // the Error frame has gone out
	opened  time.Time
	heardAt time.Time
	ticked  time.Time
	in, out checker
	toSend  struct{ hello, proof, ack bool }

	mine, theirs []byte // payloads of the two Hellos
	peer         wire.Hello
	secret       []byte // the one both know
	proved       bool   // the peer is who it says
	established  bool   // was ready once
	hello        wire.HelloAck
	known        crdt.Vector // what the peer has durable
	moment       crdt.Vector // the same as it was at one moment
	census       uint64      // of the newest heartbeat before that
	origin       crdt.Stream // this node's, as it was told
	ahead        crdt.Vector // what it said, if that is more of this node than the node has

	control  controlState
	sending  sender
	taking   receiver
	beat     heartbeat
	stats    counters
	frameBuf []byte
}

// controlState says which control messages are due. What is due twice is sent
// once, so nothing queues up however slow the link is.
type controlState struct {
	want       bool
	wanted     []crdt.Stream // origins asked for, sorted
	ack        bool
	acked      crdt.Vector
	credit     [crdt.Lanes]int64
	syncNeeded []crdt.Stream
	syncAsk    *wire.SyncRequest // due
	compare    []*wire.SyncCompare
	verify     []*wire.Verify
}

// newSession starts the state machine of a fresh connection.
func newSession(p *Peers, l Link, now time.Time) (*Session, error) {
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(p.cfg.Rand, nonce); err != nil {
		return nil, fmt.Errorf("making a nonce: %w", err)
	}
	s := &Session{peers: p, cfg: &p.cfg, secret: p.cfg.Secret, dialled: l.Dialled, expect: l.Expect, binding: l.Binding, via: l.Via, wake: l.Wake,
		done: make(chan struct{}), opened: now, heardAt: now, ticked: now}
	id := &p.cfg.Self
	mine := wire.Hello{MinVersion: MinVersion, MaxVersion: MaxVersion, Cluster: id.Cluster, Node: id.Node, Alias: id.Alias,
		Nonce: nonce, Secret: len(p.cfg.Secret) > 0, Address: id.Address, Dir: id.Dir, Boot: p.boot, Subscription: p.cfg.Subscription}
	s.mine = mine.Encode()
	s.toSend.hello = l.Dialled
	s.sending.init(&p.cfg, now)
	s.taking.init(&p.cfg)
	return s, nil
}

// Receive takes the next frame that arrived; its memory is the caller's again
// afterwards. An error is the end of the session: what Next still returns is
// for the peer to know why.
func (s *Session) Receive(now time.Time, frame []byte) error {
	s.Arrived(now, frame)
	return s.Take(now, frame)
}

// Arrived is the first half of Receive, for who reads ahead of the node: it takes
// note of a frame that has come, and answers the question that may be in it. It may
// be called from another goroutine than Take.
func (s *Session) Arrived(now time.Time, frame []byte) {
	s.mu.Lock()
	s.stats.wireIn += uint64(len(frame))
	asks := s.phase == phaseReady && len(frame) > 0 && frameType(frame[0]).asks()
	if asks {
		// Nothing hangs on it if the frame is not what it seems: Take will tell.
		s.beat.got, s.beat.gotAt = s.stats.wireIn, now.Sub(s.opened)
		asks = frameType(frame[0]) != frameHeartbeat // which is answered when it was understood
		s.beat.pong = s.beat.pong || asks
	}
	s.mu.Unlock()
	if asks {
		s.wake()
	}
}

// Take is the second half of Receive.
func (s *Session) Take(now time.Time, frame []byte) error {
	s.mu.Lock()
	if s.phase == phaseClosed {
		defer s.mu.Unlock()
		return s.err
	}
	calls, err := s.receive(now, frame)
	s.mu.Unlock()
	if err != nil {
		s.Close(err)
		return err
	}
	for _, call := range calls {
		call()
	}
	s.wake()
	return nil
}

// receive handles a frame and returns what is to be called without the lock.
func (s *Session) receive(now time.Time, frame []byte) ([]func(), error) {
	if len(frame) > s.maxFrame() {
		return nil, fail(CodeProtocol, "frame of %d bytes, at most %d are allowed here", len(frame), s.maxFrame())
	}
	t, payload, err := s.in.open(frame)
	if err != nil {
		return nil, err
	}
	s.heardAt = now
	if t == frameError {
		m, err := wire.DecodeSessionError(payload)
		if err != nil {
			return nil, fail(CodeProtocol, "Error: %w", err)
		}
		return nil, &Error{Code: Code(m.Code), Text: printable(m.Text), Remote: true}
	}
	switch s.phase {
	case phaseHello:
		if t == frameHello {
			return nil, s.onHello(payload)
		}
	case phaseProof:
		if t == frameProof {
			return nil, s.onProof(payload)
		}
	case phaseAck:
		if t == frameHelloAck {
			return s.onHelloAck(now, payload)
		}
	case phaseReady:
		return s.onFrame(now, t, payload)
	}
	return nil, fail(CodeProtocol, "frame of type %d while %v", t, s.phase)
}

// MaxFrame returns the greatest frame to read from the connection now.
func (s *Session) MaxFrame() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.maxFrame()
}

func (s *Session) maxFrame() int {
	if s.phase < phaseAck {
		return MaxHandshakeFrame
	}
	return MaxFrame
}

func (s *Session) onHello(b []byte) error {
	m, err := wire.DecodeHello(b)
	if err != nil {
		return fail(CodeProtocol, "%w", err)
	}
	me := &s.cfg.Self
	switch {
	case len(m.Nonce) != nonceSize || len(m.Boot) != bootSize:
		return fail(CodeProtocol, "Hello with a nonce of %d bytes and a boot id of %d", len(m.Nonce), len(m.Boot))
	case m.MinVersion > MaxVersion || m.MaxVersion < MinVersion:
		return fail(CodeVersion, "node %d speaks protocol %d to %d, node %d %d to %d: upgrade the older", m.Node, m.MinVersion, m.MaxVersion, me.Node, MinVersion, MaxVersion)
	case m.Cluster != me.Cluster:
		return fail(CodeCluster, "node %d is of cluster %q, node %d of %q: they cannot be joined", m.Node, printable(m.Cluster), me.Node, me.Cluster)
	case m.Node == 0 && me.Node == 0:
		return fail(CodeProtocol, "a subscriber called another")
	case m.Node == me.Node && bytes.Equal(m.Boot, s.peers.boot):
		return fail(CodeSelf, "the address leads back to node %d itself", me.Node)
	case m.Node == me.Node:
		return fail(CodeSameID, "two nodes have the id %d: %s and %s; give one of them another id", me.Node,
			describe(me.Alias, me.Address), describe(printable(m.Alias), printable(m.Address)))
	case s.expect != 0 && m.Node != s.expect:
		return fail(CodeProtocol, "the address of node %d leads to node %d (%s)", s.expect, m.Node, describe(printable(m.Alias), printable(m.Address)))
	case m.Secret != (len(s.cfg.Secret) > 0):
		return fail(CodeSecret, "of node %d and node %d only one has a cluster secret: give both the same", m.Node, me.Node)
	}
	if m.Subscription != nil {
		if err := s.cfg.checkSubscription(m.Subscription); err != nil {
			return err
		}
	}
	s.theirs, s.peer = bytes.Clone(b), *m
	s.phase = phaseProof
	if s.dialled {
		s.toSend.proof = true
	} else {
		s.toSend.hello = true
	}
	return nil
}

func describe(alias, address string) string { return fmt.Sprintf("%q at %q", alias, address) }

// printable makes text from a peer safe to show: bounded, one line.
func printable(text string) string {
	out := make([]rune, 0, min(len(text), 300))
	for _, r := range text {
		if len(out) == 300 {
			break
		}
		if r < ' ' || r == 0x7f || r == 0xfffd {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

func (s *Session) transcript() []byte {
	if s.dialled {
		return transcript(s.mine, s.theirs, s.binding)
	}
	return transcript(s.theirs, s.mine, s.binding)
}

func (s *Session) proof(dialler bool) []byte {
	if len(s.secret) == 0 {
		return nil
	}
	return derive(s.secret, role(dialler)+labelProof, s.transcript())
}

func (s *Session) key(dialler bool) []byte {
	return derive(s.secret, role(dialler)+labelKey, s.transcript())
}

func (s *Session) onProof(b []byte) error {
	m, err := wire.DecodeProof(b)
	if err != nil {
		return fail(CodeProtocol, "%w", err)
	}
	good := hmac.Equal(m.MAC, s.proof(!s.dialled))
	if !good && s.subscriber() && len(s.cfg.SubscriberSecret) > 0 {
		s.secret = s.cfg.SubscriberSecret
		good = hmac.Equal(m.MAC, s.proof(!s.dialled))
	}
	if !good {
		return fail(CodeSecret, "node %d and node %d do not have the same cluster secret, or the TLS of one ends at a proxy between them: a proxy has to pass TLS on as it is", s.peer.Node, s.cfg.Self.Node)
	}
	if len(s.secret) > 0 {
		s.in.setKey(s.key(!s.dialled))
	}
	if err := s.peers.admit(&s.peer); err != nil {
		return err
	}
	s.phase, s.proved = phaseAck, true
	s.toSend.proof = !s.dialled
	s.toSend.ack = true
	return nil
}

// version returns the protocol's version in the session.
func (s *Session) version() uint32 { return min(s.peer.MaxVersion, MaxVersion) }

func (s *Session) onHelloAck(now time.Time, b []byte) ([]func(), error) {
	m, err := wire.DecodeHelloAck(b)
	if err != nil {
		return nil, fail(CodeProtocol, "%w", err)
	}
	if m.Version != s.version() {
		return nil, fail(CodeVersion, "node %d chose protocol %d", s.peer.Node, m.Version)
	}
	if m.Origin.Node() != s.peer.Node || m.Origin != m.Origin.Origin() {
		return nil, fail(CodeProtocol, "node %d names %v as its origin", s.peer.Node, m.Origin)
	}
	if s.subscriber() {
		m.Durable = nil // it is no source of anything, this node's past included
	}
	if err := s.checkAhead(m.Durable); err != nil {
		return nil, err
	}
	if err := s.checkFork(m.Durable); err != nil {
		return nil, err
	}
	for l, w := range m.Window {
		if w == 0 || w > 1<<40 {
			return nil, fail(CodeProtocol, "window of %d bytes in lane %d", w, l)
		}
		s.sending.lanes[l].window, s.sending.lanes[l].credit = int64(w), int64(w)
	}
	if m.MaxBatch == 0 {
		return nil, fail(CodeProtocol, "greatest batch of 0 bytes")
	}
	m.Region = printable(m.Region)
	s.hello, s.known, s.moment = *m, m.Durable, m.Durable
	s.phase, s.established = phaseReady, true
	s.sending.pace.bound = s.version() >= versionAsking
	s.beat.due = now
	if s.subscriber() {
		return []func(){func() { s.peers.subscribed(s) }}, nil
	}
	return []func(){s.tellHeard(), func() { s.peers.ready(s, now) }}, nil
}

// checkAhead fails if the peer knows more of this node's incarnation than the
// node itself.
func (s *Session) checkAhead(theirs crdt.Vector) error {
	me, have := s.cfg.Log.Origin(), s.cfg.Log.Durable()
	for _, p := range theirs {
		if p.Stream.Origin() == me && p.Tag > have.Get(p.Stream) {
			s.ahead = theirs
			return fail(CodeRolledBack, "node %d has stream %v up to %v, but node %d, which wrote it, only up to %v: its data was rolled back, and it must take on a new incarnation",
				s.peer.Node, p.Stream, p.Tag, s.cfg.Self.Node, have.Get(p.Stream))
		}
	}
	return nil
}

// checkFork fails if the peer has an entry of this node's incarnation that the
// node does not: its data was rolled back and it has written since, under the
// tags' old names. Nothing of what differs may be exchanged.
func (s *Session) checkFork(theirs crdt.Vector) error {
	me := s.cfg.Log.Origin()
	for _, p := range theirs {
		if p.Stream.Origin() == me && !s.cfg.Log.Wrote(p.Stream, p.Tag) {
			return fail(CodeRolledBack, "node %d has an entry %v of stream %v that node %d, which wrote the stream, does not have: its data directory was rolled back, and it has written since. Remove that directory and start the node anew: it gets everything from the others but what it wrote since",
				s.peer.Node, p.Tag, p.Stream, s.cfg.Self.Node)
		}
	}
	return nil
}

// onFrame handles the frames of a session that is ready.
func (s *Session) onFrame(now time.Time, t frameType, b []byte) ([]func(), error) {
	if t.asks() && t != frameHeartbeat && s.version() < versionAsking {
		return nil, fail(CodeProtocol, "frame of type %d in version %d", t, s.version())
	}
	if s.subscriber() {
		return s.onSubscriberFrame(now, t, b)
	}
	if ch := t.channel(); ch > 0 {
		return s.onChunk(crdt.Lane(ch-1), b)
	}
	var calls []func()
	var err error
	switch t {
	case frameWant:
		err = s.onWant(b)
	case frameCredit:
		err = s.onCredit(b)
	case frameAck:
		calls, err = s.onAck(now, b)
	case frameHeartbeat:
		calls, err = s.onHeartbeat(now, b)
	case framePong:
		err = s.onPong(now, b)
	case frameSyncNeeded:
		calls, err = s.onSyncNeeded(b)
	case frameSyncRequest:
		err = s.onSyncRequest(b)
	case frameVerify:
		calls, err = s.onVerify(b)
	case frameSyncCompare:
		err = s.onSyncCompare(b)
	case framePublish:
		calls, err = s.onPublish(b)
	default:
		return nil, fail(CodeProtocol, "frame of type %d while %v", t, s.phase)
	}
	if err != nil && CodeOf(err) == 0 {
		err = fail(CodeProtocol, "%w", err)
	}
	return calls, err
}

func (s *Session) onAck(now time.Time, b []byte) ([]func(), error) {
	m, err := wire.DecodeAck(b)
	if err != nil {
		return nil, err
	}
	if err := s.checkAhead(m.Durable); err != nil {
		return nil, err
	}
	calls := s.raiseKnown(now, m.Durable)
	if m.Whole {
		s.moment, s.census = s.known, s.beat.census
	}
	return append(calls, s.tellHeard()), nil
}

// tellHeard tells the node what the peer has said so far. What it says to
// have is of one moment: one that mixes several could claim to know a remove
// while the peer's own writes from before it are still on their way.
func (s *Session) tellHeard() func() {
	peer := s.peer.Node
	h := Heard{Origin: s.hello.Origin, Tag: s.beat.tag, Own: s.beat.own, Durable: s.moment, Census: s.census}
	return func() { s.cfg.Applier.Heard(peer, h) }
}

// raiseKnown takes over what the peer says it has durable.
func (s *Session) raiseKnown(now time.Time, v crdt.Vector) []func() {
	fresh := len(v) > 0 && len(s.known.Join(v)) > len(s.known)
	s.known = s.known.Join(v)
	for l := range s.sending.lanes {
		s.sending.lanes[l].lag.reached(now, s.known)
	}
	if fresh {
		return []func(){s.peers.replan}
	}
	return nil
}

// Next returns the next frame to send, nil if there is none now. The frame's
// memory is the session's until the next call. Channel tells apart what a
// transport may let overtake: 0 is control, above it the lanes.
func (s *Session) Next(now time.Time) (frame []byte, channel int) {
	s.mu.Lock()
	body, err := s.next(now)
	if err != nil {
		s.mu.Unlock()
		s.Close(err)
		s.mu.Lock()
		body, _ = s.next(now)
	}
	defer s.mu.Unlock()
	if body == nil {
		return nil, 0
	}
	channel = frameType(body[0]).channel()
	s.frameBuf = s.out.seal(body)
	if frameType(body[0]) == frameProof && len(s.secret) > 0 {
		s.out.setKey(s.key(s.dialled))
	}
	s.stats.wireOut += uint64(len(s.frameBuf))
	if channel > 0 {
		s.stats.lanes[channel-1].BytesOut += uint64(len(s.frameBuf))
	}
	s.sending.limit.sent(now, len(s.frameBuf))
	s.sending.pace.put(now, len(s.frameBuf), frameType(body[0]).asks())
	return s.frameBuf, channel
}

// Backlog returns how many bytes of frames a connection should hold at most
// before the network takes them: two chunks, so that it does not run dry, and
// an urgent frame is not behind more.
func (s *Session) Backlog() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 2 * s.sending.pace.size
}

// Alone reports whether the frame that Next has returned last is not to wait in a
// buffer for what follows: it is to tell what the way takes.
func (s *Session) Alone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sending.pace.alone
}

// Held returns for how long what Next may have is held back, by the bandwidth
// limit, in order to fold or for the sake of the network, 0 if it is not: nothing wakes
// the session when that time is over.
func (s *Session) Held(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.sending
	switch {
	case s.phase != phaseReady:
		return 0
	case o.limit.held:
		return max(o.limit.free.Sub(now), time.Microsecond)
	case !o.later.IsZero():
		return max(o.later.Sub(now), time.Microsecond)
	}
	return o.pace.filling(now)
}

// message starts a control frame.
func (s *Session) message(t frameType, payload []byte) []byte {
	return append(append(s.frameBuf[:0], byte(t)), payload...)
}

func (s *Session) next(now time.Time) ([]byte, error) {
	switch {
	case s.phase == phaseClosed:
		if s.said || s.silentEnd() {
			return nil, nil
		}
		s.said = true
		e, _ := errors.AsType[*Error](s.err)
		m := wire.SessionError{Code: uint32(e.Code), Text: printable(e.Text)}
		return s.message(frameError, m.Encode()), nil
	case s.toSend.hello:
		s.toSend.hello = false
		return s.message(frameHello, s.mine), nil
	case s.toSend.proof:
		s.toSend.proof = false
		m := wire.Proof{MAC: s.proof(s.dialled)}
		return s.message(frameProof, m.Encode()), nil
	case s.toSend.ack:
		s.toSend.ack = false
		s.origin = s.cfg.Log.Origin()
		m := wire.HelloAck{Version: s.version(), Region: s.cfg.Self.Region, Origin: s.origin,
			Durable: s.cfg.Log.Durable(), MaxBatch: uint64(s.cfg.MaxBatch)}
		for l := range m.Window {
			m.Window[l] = uint64(s.cfg.Window)
		}
		s.control.acked = m.Durable
		return s.message(frameHelloAck, m.Encode()), nil
	case s.phase != phaseReady:
		return nil, nil
	}
	if b := s.nextControl(now); b != nil {
		return b, nil
	}
	b, err := s.nextChunk(now)
	if b == nil && err == nil {
		b = s.nextControl(now) // the search may have found something to say
	}
	return b, err
}

// silentEnd reports an end that the peer knows of, or cannot be told of.
func (s *Session) silentEnd() bool {
	e, ok := errors.AsType[*Error](s.err)
	return !ok || e.Remote
}

// nextControl returns the most urgent control message that is due.
func (s *Session) nextControl(now time.Time) []byte {
	c := &s.control
	if s.beat.pong {
		s.beat.pong = false
		m := wire.Pong{Ping: s.beat.heard, Reached: s.beat.reached}
		if s.version() >= versionAsking {
			m.Received, m.Clock = s.beat.got, uint64(s.beat.gotAt.Microseconds())
		}
		return s.message(framePong, m.Encode())
	}
	if !now.Before(s.beat.due) {
		// Nothing of a later life than the peer was told of, in which the node
		// is about to end its sessions.
		if f := s.cfg.Log.Frontier(); s.cfg.Log.Origin() == s.origin {
			return s.message(frameHeartbeat, s.nextHeartbeat(now, &f))
		}
	}
	for l := range c.credit {
		if n := c.credit[l]; n > 0 {
			c.credit[l] = 0
			s.taking.lanes[l].room += n
			m := wire.Credit{Lane: crdt.Lane(l), Bytes: uint64(n)}
			return s.message(frameCredit, m.Encode())
		}
	}
	if c.ack {
		c.ack = false
		if v, whole := s.ackable(); len(v) > 0 || whole {
			c.acked = c.acked.Join(v)
			m := wire.Ack{Durable: v, Whole: whole}
			return s.message(frameAck, m.Encode())
		}
	}
	if c.want {
		c.want = false
		return s.message(frameWant, s.encodeWant())
	}
	if len(c.syncNeeded) > 0 {
		m := wire.SyncNeeded{Origins: c.syncNeeded}
		c.syncNeeded = nil
		return s.message(frameSyncNeeded, m.Encode())
	}
	if c.syncAsk != nil {
		m := c.syncAsk
		c.syncAsk = nil
		return s.message(frameSyncRequest, m.Encode())
	}
	return nil
}

// ackable returns what is to be acknowledged now: the streams this peer
// sends. All others follow with the heartbeats; whole says that these are all.
func (s *Session) ackable() (v crdt.Vector, whole bool) {
	risen := s.cfg.Log.Durable().Beyond(s.control.acked)
	if s.beat.ackAll {
		s.beat.ackAll = false
		return risen, true
	}
	var out crdt.Vector
	for _, p := range risen {
		if hasOrigin(s.control.wanted, p.Stream.Origin()) {
			out = append(out, p)
		}
	}
	return out, false
}

// NotifyDurable tells that the node's durable vector has risen.
func (s *Session) NotifyDurable() {
	s.mu.Lock()
	ready := s.phase == phaseReady
	if ready {
		s.control.ack = true
		s.beat.reach(s.cfg.Log.Durable())
	}
	s.mu.Unlock()
	if ready {
		s.wake()
	}
}

// Tick tells the time. It is called a few times in each heartbeat interval.
func (s *Session) Tick(now time.Time) {
	s.mu.Lock()
	var err error
	switch {
	case s.phase == phaseClosed:
	case s.phase < phaseReady && now.Sub(s.opened) >= s.cfg.Handshake:
		err = fail(CodeTimeout, "no session within %v; it got as far as %v", s.cfg.Handshake, s.phase)
	case s.phase == phaseReady && now.Sub(s.heardAt) >= s.cfg.Silence:
		err = fail(CodeTimeout, "nothing heard from node %d for %v", s.peer.Node, s.cfg.Silence)
	}
	spare := s.sending.sync.refill(now.Sub(s.ticked), s.cfg.SyncRate)
	s.ticked = now
	due := s.phase == phaseReady && (!now.Before(s.beat.due) || s.sending.sync.waiting || spare)
	s.mu.Unlock()
	if err != nil {
		s.Close(err)
	} else if due {
		s.wake()
	}
}

// Close ends the session; the first reason counts. Next may still return one
// frame, which tells the peer.
func (s *Session) Close(reason error) {
	s.mu.Lock()
	if s.phase == phaseClosed {
		s.mu.Unlock()
		return
	}
	was := s.phase
	s.phase, s.err = phaseClosed, reason
	close(s.done)
	aborted := s.taking.sync.active()
	s.sending.close(s.peers)
	s.taking.close()
	peer, ahead := s.peer.Node, s.ahead
	s.mu.Unlock()
	if aborted {
		s.cfg.Applier.AbortSync(peer)
	}
	if ahead != nil {
		s.cfg.Applier.Ahead(peer, ahead)
	}
	s.peers.closed(s, was == phaseReady, reason)
	s.wake()
}

// Err returns why the session is closed, nil while it is not.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Done is closed when the session is.
func (s *Session) Done() <-chan struct{} { return s.done }

// Established reports whether the session was ever ready.
func (s *Session) Established() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.established
}

// Proved reports whether the peer has proved itself.
func (s *Session) Proved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proved
}

// Peer returns the id of the node at the other end, 0 until it has proved
// itself, and of a subscriber.
func (s *Session) Peer() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.proved {
		return 0
	}
	return s.peer.Node
}
