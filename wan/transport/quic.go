package transport

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// quicALPN names the protocol in QUIC's TLS handshake.
	quicALPN = "replicatord-wan"
	// quicLinger is how long a closed connection is kept for what was sent last
	// to arrive.
	quicLinger = 3 * time.Second
)

// quicTransport carries frames over QUIC: each side opens one unidirectional
// stream for each channel, begins it with the channel's number in a byte, and
// sends frames on it as tcp does. So loss in one channel does not hold up
// another.
type quicTransport struct {
	tls    *tls.Config // nil: encrypted, and who is there is for the cluster secret to say
	config *quic.Config
}

func newQUIC(o Options) *quicTransport {
	t := &quicTransport{config: &quic.Config{
		KeepAlivePeriod: o.KeepAlive, MaxIdleTimeout: 3 * o.KeepAlive,
		MaxIncomingStreams: -1, MaxIncomingUniStreams: channels,
		// A stranger fills no more than the first of these.
		InitialStreamReceiveWindow: 32 << 10, InitialConnectionReceiveWindow: 64 << 10,
		MaxStreamReceiveWindow: 4 << 20, MaxConnectionReceiveWindow: 8 << 20,
	}}
	if o.TLS != nil {
		t.tls = o.TLS.Clone()
		t.tls.MinVersion = tls.VersionTLS13
		t.tls.NextProtos = []string{quicALPN}
	}
	return t
}

// Dial connects to u.Host.
func (t *quicTransport) Dial(ctx context.Context, u *url.URL) (Conn, error) {
	conf := t.tls
	if conf == nil {
		// The proof of the cluster secret covers the channel's identity.
		conf = &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{quicALPN}, InsecureSkipVerify: true}
	}
	to, err := resolve(ctx, u)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	tr := &quic.Transport{Conn: socket}
	shut := func() {
		_ = tr.Close()
		_ = socket.Close()
	}
	c, err := tr.Dial(ctx, to, withName(conf, u), t.config)
	if err != nil {
		shut()
		return nil, err
	}
	context.AfterFunc(c.Context(), shut)
	return newQUICConn(c), nil
}

// resolve returns where a URL leads.
func resolve(ctx context.Context, u *url.URL) (*net.UDPAddr, error) {
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, u.Hostname())
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", u.Port())
	if err != nil {
		return nil, err
	}
	return &net.UDPAddr{IP: ips[0].IP, Zone: ips[0].Zone, Port: port}, nil
}

// Listen accepts connections at u.Host, a UDP port.
func (t *quicTransport) Listen(u *url.URL) (Listener, error) {
	conf := t.tls
	if conf == nil {
		cert, err := selfSigned()
		if err != nil {
			return nil, err
		}
		conf = &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{quicALPN}, Certificates: []tls.Certificate{cert}}
	}
	addr, err := net.ResolveUDPAddr("udp", u.Host)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, err
	}
	// Nothing is kept for a caller until it has shown that its address is its
	// own.
	tr := &quic.Transport{Conn: socket, VerifySourceAddress: func(net.Addr) bool { return true }}
	l, err := tr.Listen(conf, t.config)
	if err != nil {
		return nil, errors.Join(err, tr.Close(), socket.Close())
	}
	return &quicListener{Listener: l, tr: tr, socket: socket}, nil
}

// selfSigned makes a certificate that vouches for nothing.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(100, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// quicListener accepts connections, which share its socket.
type quicListener struct {
	*quic.Listener
	tr     *quic.Transport
	socket net.PacketConn

	mu     sync.Mutex
	live   int // accepted connections
	closed bool
}

func (l *quicListener) URL() string { return "quic://" + l.Addr().String() }

func (l *quicListener) Accept() (Conn, error) {
	c, err := l.Listener.Accept(context.Background())
	if err != nil {
		if errors.Is(err, quic.ErrServerClosed) {
			err = net.ErrClosed
		}
		return nil, err
	}
	l.count(1)
	context.AfterFunc(c.Context(), func() { l.count(-1) })
	return newQUICConn(c), nil
}

// count takes note of a connection's beginning or end. The socket is closed
// with the last of them.
func (l *quicListener) count(n int) {
	l.mu.Lock()
	l.live += n
	last := l.closed && l.live == 0
	l.mu.Unlock()
	if last {
		_ = l.tr.Close()
		_ = l.socket.Close()
	}
}

// Close stops accepting; connections go on.
func (l *quicListener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	was := l.closed
	l.closed = true
	l.mu.Unlock()
	if !was {
		l.count(0)
	}
	return err
}

// quicConn is one end of a QUIC connection.
type quicConn struct {
	conn    *quic.Conn
	binding []byte

	writing sync.Mutex
	buf     []byte

	opening sync.Mutex
	out     [channels]*quic.SendStream // set by Handshake

	heads    chan *quicReader // a frame's length has come
	frames   chan *quicReader // a frame has come
	ended    chan error       // streams that have ended, io.EOF in order
	over     int              // of them
	returned *quicReader      // whose frame the caller has
	closed   chan struct{}
	once     sync.Once
}

// quicReader reads the frames of one channel.
type quicReader struct {
	r     *bufio.Reader
	size  int
	frame []byte
	next  chan struct{} // the frame's size is allowed; its memory is free again
}

func newQUICConn(c *quic.Conn) *quicConn {
	return &quicConn{conn: c, heads: make(chan *quicReader), frames: make(chan *quicReader), ended: make(chan error), closed: make(chan struct{})}
}

// Handshake opens the streams; QUIC's own handshake is done.
func (c *quicConn) Handshake(ctx context.Context) error {
	state := c.conn.ConnectionState().TLS
	b, err := binding(&state)
	if err != nil {
		return err
	}
	c.binding = b
	for ch := range c.out {
		s, err := c.conn.OpenUniStreamSync(ctx)
		if err != nil {
			return err
		}
		s.SetPriority(int8(ch), true)
		if _, err := s.Write([]byte{byte(ch)}); err != nil {
			return err
		}
		c.opening.Lock()
		c.out[ch] = s
		c.opening.Unlock()
	}
	go c.accept()
	return nil
}

// accept takes the peer's streams, one for each channel.
func (c *quicConn) accept() {
	for range channels {
		s, err := c.conn.AcceptUniStream(c.conn.Context())
		if err != nil {
			c.end(err)
			return
		}
		go c.read(s)
	}
}

// end tells the reader of the end of a stream.
func (c *quicConn) end(err error) {
	select {
	case c.ended <- err:
	case <-c.closed:
	}
}

// read reads the frames of a stream, one at a time, for ReadFrame.
func (c *quicConn) read(s *quic.ReceiveStream) {
	r := &quicReader{r: bufio.NewReaderSize(s, 4<<10), next: make(chan struct{})}
	ch, err := r.r.ReadByte()
	if err == nil && int(ch) >= channels {
		err = fmt.Errorf("stream of channel %d", ch)
	}
	var head [4]byte
	for err == nil {
		if _, err = io.ReadFull(r.r, head[:]); err != nil {
			break
		}
		r.size = int(binary.BigEndian.Uint32(head[:]))
		if !c.await(c.heads, r) {
			return
		}
		if cap(r.frame) < r.size {
			r.frame = make([]byte, max(r.size, 4<<10))
		}
		r.frame = r.frame[:r.size]
		if _, err = io.ReadFull(r.r, r.frame); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			break
		}
		if !c.await(c.frames, r) {
			return
		}
	}
	c.end(err)
}

// await hands a reader over and waits until it may go on.
func (c *quicConn) await(to chan<- *quicReader, r *quicReader) bool {
	select {
	case to <- r:
	case <-c.closed:
		return false
	}
	select {
	case <-r.next:
		return true
	case <-c.closed:
		return false
	}
}

func (c *quicConn) proceed(r *quicReader) {
	select {
	case r.next <- struct{}{}:
	case <-c.closed:
	}
}

func (c *quicConn) ReadFrame(limit int) ([]byte, error) {
	if r := c.returned; r != nil {
		c.returned = nil
		c.proceed(r)
	}
	for {
		select {
		case r := <-c.heads:
			if r.size == 0 || r.size > limit {
				return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrFrameSize, r.size, limit)
			}
			c.proceed(r)
		case r := <-c.frames:
			c.returned = r
			return r.frame, nil
		case err := <-c.ended:
			if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, err
			}
			if c.over++; c.over == channels {
				return nil, io.EOF
			}
		case <-c.closed:
			return nil, net.ErrClosed
		}
	}
}

func (c *quicConn) WriteFrame(channel int, frame []byte) error {
	if len(frame) == 0 || uint64(len(frame)) > 1<<32-1 {
		return fmt.Errorf("%w: %d bytes", ErrFrameSize, len(frame))
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.buf = binary.BigEndian.AppendUint32(c.buf[:0], uint32(len(frame)))
	c.buf = append(c.buf, frame...)
	_, err := c.out[channel].Write(c.buf)
	return err
}

// Flush does nothing: what is written is sent.
func (c *quicConn) Flush() error { return nil }

// SetBacklog does nothing: a write returns when all but a packet has been sent.
func (c *quicConn) SetBacklog(int) {}

func (c *quicConn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	var errs []error
	for _, s := range c.streams() {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// streams returns the streams that Handshake has opened so far.
func (c *quicConn) streams() (out []*quic.SendStream) {
	c.opening.Lock()
	defer c.opening.Unlock()
	for _, s := range c.out {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// Close ends both directions here at once. What was sent is given a moment to
// arrive.
func (c *quicConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		for _, s := range c.streams() {
			_ = s.SetWriteDeadline(time.Now()) // frees a write under way
		}
		_ = c.CloseWrite()
		go func() {
			t := time.NewTimer(quicLinger)
			defer t.Stop()
			select {
			case <-c.conn.Context().Done():
			case <-t.C:
			}
			_ = c.conn.CloseWithError(0, "")
		}()
	})
	return nil
}

func (c *quicConn) Binding() []byte { return c.binding }

func (c *quicConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }
