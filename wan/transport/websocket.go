package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// webSocket carries each frame in a binary message; all channels share the one
// connection. An empty message says that no more will come from its sender:
// WebSocket's own Close would end both directions.
type webSocket struct {
	o      Options
	secure bool // wss
}

const (
	// httpTimeout is how long a caller may take to become a WebSocket.
	httpTimeout = 5 * time.Second
	// maxHTTPHeader bounds what a caller may send before, in bytes.
	maxHTTPHeader = 8 << 10
)

func (t *webSocket) scheme() string {
	if t.secure {
		return "wss"
	}
	return "ws"
}

// tlsConfig returns the configuration of wss.
func (t *webSocket) tlsConfig() *tls.Config {
	conf := &tls.Config{}
	if t.o.TLS != nil {
		conf = t.o.TLS.Clone()
	}
	conf.MinVersion = tls.VersionTLS13
	conf.NextProtos = []string{"http/1.1"}
	return conf
}

func (t *webSocket) keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: t.o.KeepAlive, Interval: t.o.KeepAlive, Count: 3}
}

// Dial connects to a URL, wss through the proxy if there is one.
func (t *webSocket) Dial(ctx context.Context, u *url.URL) (Conn, error) {
	var raw net.Conn
	d := net.Dialer{KeepAliveConfig: t.keepAlive()}
	h := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := d.DialContext(ctx, network, addr)
			if err == nil {
				tune(c, 3*t.o.KeepAlive)
				raw = c
			}
			return c, err
		},
		DisableKeepAlives: true, MaxResponseHeaderBytes: maxHTTPHeader,
	}
	if t.secure {
		h.TLSClientConfig = t.tlsConfig()
		if t.o.Proxy != nil {
			h.Proxy = http.ProxyURL(t.o.Proxy)
		}
	}
	c, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: h, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	})
	if err != nil {
		return nil, err
	}
	return newWSConn(c, raw, resp.TLS)
}

// Listen accepts connections at u.Host that ask for u.Path.
func (t *webSocket) Listen(u *url.URL) (Listener, error) {
	if t.secure && t.o.TLS == nil {
		return nil, errors.New("wss needs a certificate to listen with")
	}
	lc := net.ListenConfig{KeepAliveConfig: t.keepAlive()}
	inner, err := lc.Listen(context.Background(), "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	l := &wsListener{inner: inner, t: t, url: url.URL{Scheme: t.scheme(), Host: inner.Addr().String(), Path: u.Path},
		accepted: make(chan *wsConn), done: make(chan struct{})}
	path := u.Path
	if path == "" {
		path = "/"
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, l.upgrade)
	l.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: httpTimeout, IdleTimeout: httpTimeout, MaxHeaderBytes: maxHTTPHeader,
		ErrorLog:    log.New(io.Discard, "", 0), // callers of all sorts
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	gate := &gate{Listener: inner, keepAlive: t.o.KeepAlive, places: make(chan struct{}, t.o.MaxHandshakes)}
	var over net.Listener = gate
	if t.secure {
		over = tls.NewListener(gate, t.tlsConfig())
	}
	go func() { _ = l.server.Serve(over) }()
	return l, nil
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

type wsListener struct {
	inner    net.Listener
	t        *webSocket
	url      url.URL
	server   *http.Server
	accepted chan *wsConn
	done     chan struct{}
	once     sync.Once
}

// upgrade makes a WebSocket of a request and waits for Accept to take it.
func (l *wsListener) upgrade(w http.ResponseWriter, r *http.Request) {
	raw, _ := r.Context().Value(connKey{}).(net.Conn)
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has been answered
	}
	c, err := newWSConn(ws, raw, r.TLS)
	if err != nil {
		_ = ws.CloseNow()
		return
	}
	if g, ok := below(raw).(*gated); ok {
		g.release()
	}
	select {
	case l.accepted <- c:
	case <-l.done:
		_ = c.Close()
	case <-time.After(httpTimeout):
		_ = c.Close()
	}
}

func (l *wsListener) Accept() (Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close stops accepting; connections go on.
func (l *wsListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.server.Close()
}

func (l *wsListener) URL() string { return l.url.String() }

// gate lets in so many callers at a time that are not WebSockets yet.
type gate struct {
	net.Listener
	keepAlive time.Duration
	places    chan struct{}
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case g.places <- struct{}{}:
			tune(c, 3*g.keepAlive)
			return &gated{Conn: c, release: sync.OnceFunc(func() { <-g.places })}, nil
		default:
			_ = c.Close()
		}
	}
}

// gated is a connection with a place, which it gives back when it is a
// WebSocket, or closed.
type gated struct {
	net.Conn
	release func()
}

func (c *gated) Close() error {
	c.release()
	return c.Conn.Close()
}

// wsConn is one end of a WebSocket.
type wsConn struct {
	ws      *websocket.Conn
	room    room
	binding []byte
	ctx     context.Context
	cancel  context.CancelFunc
	frame   []byte
	over    bool // the peer has said its last
}

func newWSConn(ws *websocket.Conn, raw net.Conn, state *tls.ConnectionState) (*wsConn, error) {
	raw = below(raw)
	if g, ok := raw.(*gated); ok {
		raw = g.Conn
	}
	c := &wsConn{ws: ws, room: room{raw: raw}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if state == nil {
		return c, nil
	}
	var err error
	c.binding, err = binding(state)
	return c, err
}

// Handshake does nothing: HTTP's upgrade has done it.
func (c *wsConn) Handshake(context.Context) error { return nil }

func (c *wsConn) Binding() []byte { return c.binding }

func (c *wsConn) ReadFrame(limit int) ([]byte, error) {
	if c.over {
		return nil, io.EOF
	}
	c.ws.SetReadLimit(int64(limit))
	kind, r, err := c.ws.Reader(c.ctx)
	if err != nil {
		return nil, c.why(err)
	}
	if kind != websocket.MessageBinary {
		return nil, errors.New("a text message came instead of a frame")
	}
	c.frame = c.frame[:0]
	for {
		if len(c.frame) == cap(c.frame) {
			c.frame = append(c.frame, make([]byte, max(4<<10, len(c.frame)))...)[:len(c.frame)]
		}
		n, err := r.Read(c.frame[len(c.frame):cap(c.frame)])
		c.frame = c.frame[:len(c.frame)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, c.why(err)
		}
	}
	if len(c.frame) == 0 {
		c.over = true
		return nil, io.EOF
	}
	return c.frame, nil
}

// why names an error as all transports do.
func (c *wsConn) why(err error) error {
	switch {
	case errors.Is(err, websocket.ErrMessageTooBig):
		return fmt.Errorf("%w: %w", ErrFrameSize, err)
	case c.ctx.Err() != nil:
		return net.ErrClosed
	}
	return err
}

func (c *wsConn) WriteFrame(_ int, frame []byte) error {
	if len(frame) == 0 {
		return fmt.Errorf("%w: 0 bytes", ErrFrameSize)
	}
	c.room.await()
	return c.ws.Write(c.ctx, websocket.MessageBinary, frame)
}

// Flush does nothing: each message is sent as it is written.
func (c *wsConn) Flush() error { return nil }

func (c *wsConn) SetBacklog(bytes int) { c.room.set(bytes) }

func (c *wsConn) CloseWrite() error { return c.ws.Write(c.ctx, websocket.MessageBinary, nil) }

func (c *wsConn) Close() error {
	c.cancel()
	err := c.ws.CloseNow()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

func (c *wsConn) RemoteAddr() net.Addr { return c.room.raw.RemoteAddr() }
