package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/memberlist"
)

// maxPeeks bounds the connections that have not yet shown what they are, and
// the knocks being answered. More are closed at once; whoever was honest
// tries again.
const maxPeeks = 64

// transport is memberlist's transport with a door in front: streams that begin
// with a knock are answered by this package, all others go to memberlist. It
// also ties everything dialled to its own life, so that Close does not wait
// for somebody else's timeout.
type transport struct {
	memberlist.NodeAwareTransport
	net     bool // the real network: dials can be cancelled
	stream  time.Duration
	knock   func(net.Conn) // answers, without closing; set before serve
	streams chan net.Conn
	peeks   chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when the inner transport has stopped
	wg     sync.WaitGroup
	once   sync.Once
}

func newTransport(inner memberlist.Transport, timeout time.Duration) *transport {
	aware, ok := inner.(memberlist.NodeAwareTransport)
	if !ok {
		aware = nameless{inner}
	}
	_, real := inner.(*memberlist.NetTransport)
	t := &transport{
		NodeAwareTransport: aware,
		net:                real,
		stream:             timeout,
		streams:            make(chan net.Conn),
		peeks:              make(chan struct{}, maxPeeks),
		done:               make(chan struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// nameless lends a transport that knows no names the methods for them.
type nameless struct{ memberlist.Transport }

func (t nameless) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

func (t nameless) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// serve sorts incoming streams until Shutdown.
func (t *transport) serve() {
	t.wg.Go(func() {
		for {
			select {
			case conn := <-t.NodeAwareTransport.StreamCh():
				select {
				case t.peeks <- struct{}{}:
				default:
					conn.Close()
					continue
				}
				t.wg.Go(func() {
					defer func() { <-t.peeks }()
					t.sort(t.bound(conn))
				})
			case <-t.done:
				return
			}
		}
	})
}

// sort reads a stream's first byte and passes the stream on.
func (t *transport) sort(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(t.stream))
	first := make([]byte, 1)
	if _, err := conn.Read(first); err != nil {
		conn.Close()
		return
	}
	whole := &unread{Conn: conn, first: first}
	if first[0] == knockMagic[0] {
		t.knock(whole)
		conn.Close()
		return
	}
	conn.SetDeadline(time.Time{})
	select {
	case t.streams <- whole:
	case <-t.ctx.Done():
		conn.Close()
	}
}

// unread is a connection with bytes put back in front.
type unread struct {
	net.Conn
	first []byte
}

func (c *unread) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	return t.dial(ctx, a)
}

// dial connects until ctx or the transport ends. The connection ends with the
// transport.
func (t *transport) dial(ctx context.Context, a memberlist.Address) (net.Conn, error) {
	timeout := t.stream
	if d, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(d))
	}
	if t.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	var conn net.Conn
	var err error
	if t.net {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		defer context.AfterFunc(t.ctx, cancel)()
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", a.Addr)
	} else {
		conn, err = t.NodeAwareTransport.DialAddressTimeout(a, timeout)
	}
	if err != nil {
		return nil, err
	}
	return t.bound(conn), nil
}

// bound closes conn when the transport ends.
func (t *transport) bound(conn net.Conn) net.Conn {
	return &boundConn{Conn: conn, stop: context.AfterFunc(t.ctx, func() { conn.Close() })}
}

type boundConn struct {
	net.Conn
	stop func() bool
}

func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// Shutdown stops everything and waits for it. Again, it does nothing.
func (t *transport) Shutdown() error {
	var err error
	t.once.Do(func() {
		t.cancel()
		// The listeners may be handing over a stream or packet while they are
		// told to stop, and would wait for somebody to take it.
		t.wg.Go(func() {
			for {
				select {
				case conn := <-t.NodeAwareTransport.StreamCh():
					conn.Close()
				case <-t.PacketCh():
				case <-t.done:
					return
				}
			}
		})
		err = t.NodeAwareTransport.Shutdown()
		close(t.done)
		t.wg.Wait()
	})
	return err
}

// listen opens the real sockets, TCP and UDP on one port. For port 0 the kernel
// picks a free TCP port, which may be taken for UDP: hence several attempts.
func listen(bind string, port int, c *memberlist.Config) (*memberlist.NetTransport, error) {
	attempts := 1
	if port == 0 {
		attempts = 10
	}
	var err error
	for range attempts {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{bind}, BindPort: port, Logger: c.Logger,
		})
		if err == nil {
			return t, nil
		}
		if !strings.Contains(err.Error(), "address already in use") {
			break
		}
	}
	return nil, fmt.Errorf("gossip: cannot listen on %s: %w: free the port or set another gossip port",
		net.JoinHostPort(bind, fmt.Sprint(port)), err)
}

// bindIP returns the literal address to listen on. memberlist takes what it
// cannot parse for "all interfaces", so names must not get that far.
func bindIP(bind string) (net.IP, error) {
	if bind == "" {
		return net.IPv4zero, nil
	}
	ip, err := resolve(bind)
	if err != nil {
		return nil, fmt.Errorf("gossip: cannot listen on %q: %w", bind, err)
	}
	return ip, nil
}

// resolve returns the address of a host, IPv4 where it has both.
func resolve(host string) (net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return ip, nil
	}
	a, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return nil, err
	}
	return a.IP, nil
}

// advertised decides where others are to reach this node: the host as to be
// told (a name stays a name, so that it can be resolved again), its address
// and the port.
func advertised(advertise string, bind net.IP, port int) (host string, ip net.IP, p int, err error) {
	if advertise != "" {
		host, p = advertise, port
		if h, service, err := net.SplitHostPort(advertise); err == nil {
			n, err := net.LookupPort("tcp", service)
			if err != nil {
				return "", nil, 0, fmt.Errorf("gossip: advertised address %q: %w", advertise, err)
			}
			host, p = h, n
		}
		if ip, err = resolve(host); err != nil {
			return "", nil, 0, fmt.Errorf("gossip: advertised address %q: %w: advertise an address that other nodes can reach", advertise, err)
		}
		if ip.IsUnspecified() {
			return "", nil, 0, fmt.Errorf("gossip: %s means every interface and cannot be reached from elsewhere: "+
				"advertise an address that other nodes can reach", advertise)
		}
		return host, ip, p, nil
	}
	ip = bind
	if ip.IsUnspecified() {
		if ip, err = ownIP(); err != nil {
			return "", nil, 0, err
		}
	}
	return ip.String(), ip, port, nil
}

// ownIP picks the address to advertise when the node listens on all: a private
// one, never a public one unasked. A machine with no network at all advertises
// its loopback address: nobody else is there to be misled.
func ownIP() (net.IP, error) {
	text, err := sockaddr.GetPrivateIP()
	if err != nil {
		return nil, fmt.Errorf("gossip: cannot read interface addresses: %w: say which address to advertise", err)
	}
	if ip := net.ParseIP(text); ip != nil && !ip.IsUnspecified() {
		return ip, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("gossip: cannot read interface addresses: %w: say which address to advertise", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return nil, errors.New("gossip: listening on every interface, none with a private address: say which address to advertise, or bind to one")
		}
	}
	return net.IPv4(127, 0, 0, 1), nil
}
