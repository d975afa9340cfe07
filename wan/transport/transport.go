package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/replicatord/replicatord/crdt"
)

// channels is the number of channels of a connection: one for control frames
// and one for each lane.
const channels = 1 + crdt.Lanes

// Conn is a connection that carries frames. One goroutine may read while
// another writes; Close may be called from any, and ends both.
type Conn interface {
	// Handshake does what has to be done before frames can be sent (that of
	// TLS). It is called once, first.
	Handshake(context.Context) error

	// ReadFrame returns the next frame. Its memory is the connection's until
	// the next call. A frame larger than limit is ErrFrameSize, and no memory
	// is taken for it. io.EOF is an orderly end between two frames.
	ReadFrame(limit int) ([]byte, error)

	// WriteFrame sends a frame, perhaps not before Flush. Frames of one
	// channel arrive in order; frames of different channels may overtake each
	// other. The frame's memory is the caller's again afterwards.
	WriteFrame(channel int, frame []byte) error

	// Flush sends what is buffered.
	Flush() error

	// SetBacklog bounds, as far as the system lets it, how many bytes of frames
	// may lie here that have not left yet: no frame can overtake them any
	// more. The caller is the one that writes.
	SetBacklog(bytes int)

	// CloseWrite tells the other side that no more will come.
	CloseWrite() error

	Close() error

	// Binding identifies the secure channel (RFC 9266 style TLS exporter): the
	// same at both ends, and at no other connection. nil if there is none.
	Binding() []byte

	RemoteAddr() net.Addr
}

// Listener accepts connections.
type Listener interface {
	Accept() (Conn, error)
	Close() error
	// URL is where it listens, with the port chosen if none was given.
	URL() string
}

// Transport makes connections of one kind.
type Transport interface {
	Dial(ctx context.Context, u *url.URL) (Conn, error)
	Listen(u *url.URL) (Listener, error)
}

// Errors.
var (
	// ErrFrameSize reports a frame above the limit, or an empty one.
	ErrFrameSize = errors.New("frame size not allowed")
	// ErrTLS reports that one end of a connection uses TLS and the other does
	// not. Either end may see the connection cut off instead.
	ErrTLS = errors.New("only one of the two nodes has TLS: tls.wan must be on at both")
	// ErrScheme reports an address of a transport that there is none of.
	ErrScheme = errors.New("no transport for this address")
)

// Options configure the transports of a node.
type Options struct {
	// TLS, if set, protects every connection but those of ws; the same
	// configuration serves both ends. For mutual authentication it has
	// Certificates, RootCAs, ClientCAs and ClientAuth; TLS below 1.3 is not used.
	// When dialling, ServerName is the address's host unless it is set here.
	// Without it quic is encrypted but says nothing of who is there, and wss
	// can only be dialled, its server judged by the system's roots.
	TLS *tls.Config

	// Proxy, if set, is the HTTP proxy through which wss is dialled (CONNECT).
	Proxy *url.URL

	// MaxHandshakes is how many connections a listener of ws and wss keeps that
	// are not WebSockets yet; more are closed. Default 64.
	MaxHandshakes int

	// KeepAlive is the interval of TCP keep-alive probes. Default 5 s. A
	// connection whose data is not acknowledged for three of them is cut.
	KeepAlive time.Duration
}

// Factory dials and listens by URL.
type Factory struct {
	schemes map[string]Transport
}

// New returns the factory of all transports there are.
func New(o Options) *Factory {
	if o.KeepAlive == 0 {
		o.KeepAlive = 5 * time.Second
	}
	if o.MaxHandshakes == 0 {
		o.MaxHandshakes = 64
	}
	return &Factory{schemes: map[string]Transport{
		"tcp": newTCP(o), "quic": newQUIC(o), "ws": &webSocket{o: o}, "wss": &webSocket{o: o, secure: true},
	}}
}

// Dial connects to a URL.
func (f *Factory) Dial(ctx context.Context, address string) (Conn, error) {
	t, u, err := f.find(address)
	if err != nil {
		return nil, err
	}
	return t.Dial(ctx, u)
}

// Listen accepts connections at a URL; port 0 lets the system choose.
func (f *Factory) Listen(address string) (Listener, error) {
	t, u, err := f.find(address)
	if err != nil {
		return nil, err
	}
	return t.Listen(u)
}

// find parses an address. One without a scheme is of tcp.
func (f *Factory) find(address string) (Transport, *url.URL, error) {
	if !strings.Contains(address, "://") {
		address = "tcp://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, nil, fmt.Errorf("address %q: %w", address, err)
	}
	t := f.schemes[u.Scheme]
	if t == nil {
		var have []string
		for s := range f.schemes {
			have = append(have, s)
		}
		slices.Sort(have)
		return nil, nil, fmt.Errorf("%w: %q; there are %s", ErrScheme, address, strings.Join(have, ", "))
	}
	return t, u, nil
}
