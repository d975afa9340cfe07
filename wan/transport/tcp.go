package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/replicatord/replicatord/internal/socket"
)

const (
	// tcpBuffer is what is gathered before it is written. It is small, for
	// what lies in it cannot be overtaken any more.
	tcpBuffer = 32 << 10
	// exporterLabel names the TLS keying material that identifies a channel.
	exporterLabel = "EXPORTER-replicatord-wan-1"
)

// tlsHandshake is the first byte of what a TLS client sends first.
const tlsHandshake = 0x16

// tlsAlert is what a TLS server answers to what is not TLS: a record with the
// fatal alert protocol_version (RFC 8446, 6.2).
var tlsAlert = []byte{0x15, 3, 3, 0, 2, 2, 70}

// tcp carries frames over TCP, each behind its length in four bytes, big
// endian; all channels share the one stream.
type tcp struct {
	tls       *tls.Config
	keepAlive time.Duration
}

func newTCP(o Options) *tcp {
	t := &tcp{keepAlive: o.KeepAlive}
	if o.TLS != nil {
		t.tls = o.TLS.Clone()
		t.tls.MinVersion = tls.VersionTLS13
	}
	return t
}

func (t *tcp) config() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: t.keepAlive, Interval: t.keepAlive, Count: 3}
}

// Dial connects to u.Host.
func (t *tcp) Dial(ctx context.Context, u *url.URL) (Conn, error) {
	d := net.Dialer{KeepAliveConfig: t.config()}
	c, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	tune(c, 3*t.keepAlive)
	if t.tls == nil {
		return newTCPConn(socket.Wrap(c), nil), nil
	}
	s := tls.Client(c, withName(t.tls, u))
	return newTCPConn(s, s), nil
}

// withName returns the configuration for dialling a URL.
func withName(conf *tls.Config, u *url.URL) *tls.Config {
	if conf.ServerName == "" {
		conf = conf.Clone()
		conf.ServerName = u.Hostname()
	}
	return conf
}

// Listen accepts connections at u.Host.
func (t *tcp) Listen(u *url.URL) (Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: t.config()}
	l, err := lc.Listen(context.Background(), "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return &tcpListener{l, t}, nil
}

type tcpListener struct {
	net.Listener
	t *tcp
}

func (l *tcpListener) URL() string { return "tcp://" + l.Addr().String() }

func (l *tcpListener) Accept() (Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tune(c, 3*l.t.keepAlive)
	if l.t.tls == nil {
		return newTCPConn(socket.Wrap(c), nil), nil
	}
	s := tls.Server(c, l.t.tls)
	return newTCPConn(s, s), nil
}

// tcpConn is one end of a TCP connection.
type tcpConn struct {
	net.Conn
	tls     *tls.Conn // nil without TLS
	r       *bufio.Reader
	w       *bufio.Writer
	frame   []byte
	binding []byte
	room    room
}

func newTCPConn(c net.Conn, s *tls.Conn) *tcpConn {
	t := &tcpConn{Conn: c, tls: s, r: bufio.NewReaderSize(c, tcpBuffer), room: room{raw: below(c)}}
	t.w = bufio.NewWriterSize(t, tcpBuffer)
	return t
}

// Write writes once there is room.
func (c *tcpConn) Write(b []byte) (int, error) {
	c.room.await()
	return c.Conn.Write(b)
}

func (c *tcpConn) Handshake(ctx context.Context) error {
	if c.tls == nil {
		return nil
	}
	err := c.tls.HandshakeContext(ctx)
	if err != nil {
		if header, ok := errors.AsType[tls.RecordHeaderError](err); ok {
			if header.Conn != nil { // nothing was sent yet: tell the other end
				_, _ = header.Conn.Write(tlsAlert)
			}
			return fmt.Errorf("%w (%w)", ErrTLS, err)
		}
		return fmt.Errorf("TLS: %w", err)
	}
	state := c.tls.ConnectionState()
	c.binding, err = binding(&state)
	return err
}

// binding returns the identity of a TLS channel.
func binding(state *tls.ConnectionState) ([]byte, error) {
	b, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return b, nil
}

func (c *tcpConn) Binding() []byte { return c.binding }

func (c *tcpConn) ReadFrame(limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || uint64(n) > uint64(limit) {
		if c.tls == nil && (head[0] == tlsAlert[0] || head[0] == tlsHandshake) && head[1] == tlsAlert[1] {
			return nil, fmt.Errorf("%w (a TLS record came instead of a frame)", ErrTLS)
		}
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrFrameSize, n, limit)
	}
	if cap(c.frame) < int(n) {
		c.frame = make([]byte, max(int(n), 4<<10))
	}
	c.frame = c.frame[:n]
	if _, err := io.ReadFull(c.r, c.frame); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return c.frame, nil
}

func (c *tcpConn) WriteFrame(_ int, frame []byte) error {
	if len(frame) == 0 || uint64(len(frame)) > 1<<32-1 {
		return fmt.Errorf("%w: %d bytes", ErrFrameSize, len(frame))
	}
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(frame)))
	if _, err := c.w.Write(head[:]); err != nil {
		return err
	}
	_, err := c.w.Write(frame)
	if half := c.room.backlog / 2; err == nil && half > 0 && c.w.Buffered() >= half {
		err = c.w.Flush()
	}
	return err
}

func (c *tcpConn) SetBacklog(bytes int) { c.room.set(bytes) }

func (c *tcpConn) Flush() error { return c.w.Flush() }

func (c *tcpConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
