package wan

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/wan/transport"
)

// certify returns the TLS configuration of a node whose certificate the given
// authority signed, for both ends, asking peers for one of the same.
func certify(t testing.TB) func() *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return func() *tls.Config {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, &k.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: k}},
			RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	}
}

type running struct {
	*testNode
	m *Manager
}

func run(t testing.TB, id uint16, conf *tls.Config, change func(*Config), listen ...string) *running {
	t.Helper()
	if listen == nil {
		listen = []string{"tcp://127.0.0.1:0"}
	}
	n := newTestNode(t, id, change)
	c := n.peers.cfg
	c.Heartbeat, c.Silence = 100*time.Millisecond, 5*time.Second
	m, err := NewManager(ManagerOptions{Config: c, Transport: transport.New(transport.Options{TLS: conf}), Listen: listen, BackoffMin: 10 * time.Millisecond, BackoffMax: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.peers = m.Peers()
	n.mu.Unlock()
	t.Cleanup(m.Close)
	return &running{n, m}
}

func (r *running) member() Member { return Member{ID: r.id, Addrs: r.m.URLs()} }

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("in vain: %s", what)
}

func equal(nodes ...*running) func() bool {
	return func() bool {
		for _, n := range nodes[1:] {
			if !n.Applied().Equal(nodes[0].Applied()) {
				return false
			}
		}
		return true
	}
}

func TestManagers(t *testing.T) {
	issue := certify(t)
	none := func() *tls.Config { return nil }
	for name, over := range map[string]struct {
		conf func() *tls.Config
		url  string
	}{
		"tcp": {none, "tcp://127.0.0.1:0"}, "tcp with TLS": {issue, "tcp://127.0.0.1:0"},
		"quic": {none, "quic://127.0.0.1:0"}, "quic with certificates": {issue, "quic://127.0.0.1:0"},
		"ws": {none, "ws://127.0.0.1:0/x"}, "wss": {issue, "wss://127.0.0.1:0/x"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := run(t, 1, over.conf(), withSecret, over.url), run(t, 2, over.conf(), withSecret, over.url)
			a.m.Update([]Member{b.member()})
			b.m.Update([]Member{a.member()})
			for i := range 200 {
				a.set(crdt.Lane(i%4), fmt.Sprint("a", i%50), noise(uint64(i), 1000))
				b.incr("n", 1)
				a.incr("n", 1)
			}
			b.set(1, "big", noise(9, 3_000_000))
			eventually(t, "equal", equal(a, b))
			eventually(t, "durable there", func() bool {
				st := a.m.Peers().Stats(time.Now())
				return len(st) == 1 && st[0].LagEntries == 0 && st[0].RTT > 0
			})
			scheme, _, _ := strings.Cut(over.url, ":")
			if via := a.m.Peers().Stats(time.Now())[0].Via; !strings.HasPrefix(via, scheme+"://127.0.0.1:") {
				t.Errorf("the session is by way of %q", via)
			}
			same(t, a.testNode, b.testNode)
			if got := b.get("n"); got != "400" {
				t.Errorf("n is %s", got)
			}
			// Restart one end's sessions.
			a.m.Restart()
			a.incr("n", 1)
			eventually(t, "equal again", func() bool { return b.get("n") == "401" })
			b.m.Close()
			eventually(t, "a knows", func() bool { return !a.m.Peers().Live(2) })
		})
	}
}

func TestStrangers(t *testing.T) {
	issue, other := certify(t), certify(t)
	a := run(t, 1, issue(), withSecret)
	b := run(t, 2, other(), withSecret)
	b.m.Update([]Member{a.member()})
	eventually(t, "a foreign certificate is refused", func() bool {
		st := b.m.Peers().Stats(time.Now())
		return len(st) == 1 && strings.Contains(st[0].LastError, "certificate")
	})
	c := run(t, 3, issue(), func(c *Config) { c.Secret = []byte("guessed") })
	c.m.Update([]Member{a.member()})
	eventually(t, "a wrong secret is refused", func() bool {
		st := c.m.Peers().Stats(time.Now())
		return len(st) == 1 && strings.Contains(st[0].LastError, "same cluster secret")
	})
	// The address of one node leads to another.
	d := run(t, 4, issue(), withSecret)
	d.m.Update([]Member{{ID: 9, Addrs: a.m.URLs()}})
	eventually(t, "the wrong node is refused", func() bool {
		st := d.m.Peers().Stats(time.Now())
		return len(st) == 1 && strings.Contains(st[0].LastError, "leads to node 1")
	})
	if a.m.Peers().Live(2) || a.m.Peers().Live(3) || a.m.Peers().Live(4) {
		t.Error("a stranger has a session")
	}
}

// Garbage, silence and floods before the handshake leave the node serving.
func TestGarbage(t *testing.T) {
	a, b := run(t, 1, nil, withSecret), run(t, 2, nil, withSecret)
	host := strings.TrimPrefix(a.m.URLs()[0], "tcp://")
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x00", "\xff\xff\xff\xff", "\x00\x00\x00\x0a0123456789", "*1\r\n$4\r\nPING\r\n"} {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(c) // ends because the node closes
		if len(got) > MaxHandshakeFrame {
			t.Errorf("%q was answered with %d bytes", text, len(got))
		}
		_ = c.Close()
	}
	var idle []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	eventually(t, "the flood is bounded", func() bool { return len(a.m.slots) == cap(a.m.slots) })
	for _, c := range idle {
		_ = c.Close()
	}
	b.m.Update([]Member{a.member()})
	eventually(t, "a session", func() bool { return a.m.Peers().Live(2) })
}

// forward passes connections on to where a node listens, as NAT does, or, with a
// TLS configuration, as a proxy at which TLS ends. It tells of each.
func forward(t *testing.T, to *running, conf *tls.Config) (address string, conns <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	t.Cleanup(func() { _ = l.Close() })
	passed := make(chan net.Conn, 1000)
	_, host, _ := strings.Cut(strings.TrimSuffix(to.m.URLs()[0], "/x"), "://")
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", host)
			if err != nil {
				_ = in.Close()
				continue
			}
			select {
			case passed <- in:
			default: // nobody looks
			}
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}()
	return l.Addr().String(), passed
}

// A proxy at which TLS ends could be anybody: it is refused, and both sides are
// told what to do. One that passes TLS on is not noticed.
func TestProxyBetween(t *testing.T) {
	issue := certify(t)
	a := run(t, 1, nil, withSecret, "ws://127.0.0.1:0/x")
	proxy := issue()
	proxy.ClientAuth, proxy.NextProtos = tls.NoClientCert, []string{"http/1.1"}
	address, _ := forward(t, a, proxy)
	b := run(t, 2, issue(), withSecret)
	b.m.Update([]Member{{ID: 1, Addrs: []string{"wss://" + address + "/x"}}})
	eventually(t, "the reason", func() bool {
		st := b.m.Peers().Stats(time.Now())
		return len(st) == 1 && strings.Contains(st[0].LastError, "a proxy has to pass TLS on as it is")
	})
	if a.m.Peers().Live(2) {
		t.Error("there is a session through a proxy that can read it")
	}
	c := run(t, 3, issue(), withSecret, "wss://127.0.0.1:0/x")
	address, _ = forward(t, c, nil)
	b.m.Update([]Member{{ID: 3, Addrs: []string{"wss://" + address + "/x"}}})
	c.incr("n", 1)
	eventually(t, "a session", func() bool { return b.get("n") == "1" })
}

func TestThroughForward(t *testing.T) {
	a, b := run(t, 1, nil, withSecret), run(t, 2, nil, withSecret)
	address, conns := forward(t, a, nil)
	b.m.Update([]Member{{ID: 1, Addrs: []string{address}}})
	for i := range 10 {
		b.set(0, "k", fmt.Sprint(i))
		a.incr("n", 1)
		eventually(t, "equal", equal(a, b))
		_ = (<-conns).Close()
	}
	same(t, a.testNode, b.testNode)
}

// A member's addresses are tried in order; the one that led to a session is
// tried first the next time, the first again when it does not.
func TestFallBack(t *testing.T) {
	a, b := run(t, 1, nil, withSecret), run(t, 2, nil, withSecret, "tcp://127.0.0.1:0", "ws://127.0.0.1:0/x")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	urls := []string{"pigeon://" + nobody, "wss://" + nobody + "/", b.m.URLs()[1], b.m.URLs()[0]}
	a.m.Update([]Member{{ID: 2, Addrs: urls}})
	a.incr("n", 1)
	via := func() string { return a.m.Peers().Stats(time.Now())[0].Via }
	eventually(t, "a session", func() bool { return b.get("n") == "1" })
	if got := via(); got != urls[2] {
		t.Errorf("by way of %s, want %s", got, urls[2])
	}
	a.m.Restart()
	eventually(t, "another session", func() bool { return a.m.Peers().Stats(time.Now())[0].Sessions == 2 })
	if got := via(); got != urls[2] {
		t.Errorf("by way of %s, want %s", got, urls[2])
	}
	a.m.mu.Lock()
	d := a.m.members[2]
	a.m.mu.Unlock()
	now := time.Now()
	if got := d.order(now); !slices.Equal(got, []int{2, 0, 1, 3}) {
		t.Errorf("the order is %v", got)
	}
	if got := d.order(now.Add(preferAgain)); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("after a while the order is %v", got)
	}
	// What a node refuses it refuses by all ways; and each failure is told.
	c := run(t, 3, nil, func(c *Config) { withSecret(c); c.Self.Cluster = "other" })
	c.m.Update([]Member{{ID: 2, Addrs: urls}})
	eventually(t, "the reason", func() bool {
		st := c.m.Peers().Stats(time.Now())
		return len(st) > 0 && strings.Contains(st[0].LastError, "pigeon") && strings.Contains(st[0].LastError, urls[2]) && strings.Contains(st[0].LastError, "cluster")
	})
	if st := c.m.Peers().Stats(time.Now())[0]; strings.Contains(st.LastError, urls[3]) || strings.Contains(st.LastError, "\n") {
		t.Errorf("last error: %q", st.LastError)
	}
}
