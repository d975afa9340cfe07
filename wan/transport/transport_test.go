package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replicatord/replicatord/wan/transport"
	"github.com/replicatord/replicatord/wan/transport/transporttest"
)

func TestTCP(t *testing.T) {
	f := transport.New(transport.Options{})
	transporttest.Run(t, transporttest.Setup{Client: f, Server: f, Listen: "tcp://127.0.0.1:0"})
}

// secured returns the factory of nodes that trust one certificate.
func secured(t *testing.T) *transport.Factory {
	t.Helper()
	return transport.New(transport.Options{TLS: certified(t)})
}

// certified returns the configuration of nodes that trust one certificate.
func certified(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool}
}

func TestTLS(t *testing.T) {
	f := secured(t)
	transporttest.Run(t, transporttest.Setup{Client: f, Server: f, Listen: "tcp://127.0.0.1:0", Secure: true})
}

// Where only one node has TLS, both are told.
func TestTLSOnOneSide(t *testing.T) {
	plain, secure := transport.New(transport.Options{}), secured(t)
	for name, f := range map[string]struct{ client, server *transport.Factory }{"dialling": {secure, plain}, "accepting": {plain, secure}} {
		t.Run(name, func(t *testing.T) {
			l, err := f.server.Listen("tcp://127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			accepted := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					err = exchange(c)
				}
				accepted <- err
			}()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			c, err := f.client.Dial(ctx, l.URL())
			if err != nil {
				t.Fatal(err)
			}
			if err := exchange(c); !errors.Is(err, transport.ErrTLS) {
				t.Errorf("the client ends with: %v", err)
			}
			if err := <-accepted; !errors.Is(err, transport.ErrTLS) {
				t.Errorf("the server ends with: %v", err)
			}
		})
	}
}

// proxy is an HTTP proxy that knows CONNECT alone, and asks for a password. It
// counts what it has let through.
type proxy struct {
	t      *testing.T
	url    *url.URL
	passed atomic.Int64
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, url: &url.URL{Scheme: "http", Host: l.Addr().String(), User: url.UserPassword("user", "pass")}}
	s := &http.Server{Handler: p}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") != "Basic dXNlcjpwYXNz" {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	out, err := net.Dial("tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	in, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.t.Error(err)
		return
	}
	p.passed.Add(1)
	fmt.Fprint(in, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(out, in)
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, out)
	_ = in.Close()
	_ = out.Close()
}

// Whatever wss can do it can do through a proxy; nothing goes around it.
func TestThroughProxy(t *testing.T) {
	p := newProxy(t)
	f := transport.New(transport.Options{TLS: certified(t), Proxy: p.url})
	transporttest.Run(t, transporttest.Setup{Client: f, Server: f, Listen: "wss://127.0.0.1:0/a/b", Secure: true})
	if p.passed.Load() < 5 {
		t.Errorf("%d connections went through the proxy", p.passed.Load())
	}
	wrong := *p.url
	wrong.User = url.UserPassword("user", "wrong")
	f = transport.New(transport.Options{TLS: certified(t), Proxy: &wrong})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if c, err := f.Dial(ctx, "wss://127.0.0.1:1/"); err == nil {
		_ = c.Close()
		t.Error("the proxy let in a stranger")
	} else if strings.Contains(err.Error(), "wrong") {
		t.Errorf("the password of the proxy is in an error: %v", err)
	}
}

// Callers that do not get as far as a WebSocket hold a bounded number of places,
// and give them back.
func TestWebSocketStrangers(t *testing.T) {
	f := transport.New(transport.Options{MaxHandshakes: 3})
	l, err := f.Listen("ws://127.0.0.1:0/x")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	address := strings.TrimSuffix(strings.TrimPrefix(l.URL(), "ws://"), "/x")
	var silent []net.Conn
	for range 5 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	refused := 0
	for _, c := range silent[3:] {
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second)) // before the others run into their limit
		if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("%d of 2 callers too many were refused", refused)
	}
	// A request for something else ends; the places are free again.
	fmt.Fprint(silent[0], "GET /y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	reply, _ := io.ReadAll(silent[0])
	if !strings.HasPrefix(string(reply), "HTTP/1.1 404") {
		t.Errorf("another path: %q", reply)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for i := range 5 { // more than there are places: a WebSocket takes none
		var c transport.Conn
		for ctx.Err() == nil {
			if c, err = f.Dial(ctx, l.URL()); err == nil {
				defer c.Close()
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
}

// exchange does what a session does at first, and closes the connection.
func exchange(c transport.Conn) error {
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Handshake(ctx); err != nil {
		return err
	}
	err := c.WriteFrame(0, make([]byte, 110))
	if err == nil {
		err = c.Flush()
	}
	if err == nil {
		_, err = c.ReadFrame(1000)
	}
	return err
}

func TestQUIC(t *testing.T) {
	f := transport.New(transport.Options{})
	transporttest.Run(t, transporttest.Setup{Client: f, Server: f, Listen: "quic://127.0.0.1:0", Secure: true})
}

func TestQUICMutual(t *testing.T) {
	f := secured(t)
	transporttest.Run(t, transporttest.Setup{Client: f, Server: f, Listen: "quic://127.0.0.1:0", Secure: true})
}

func TestWebSocket(t *testing.T) {
	f := transport.New(transport.Options{})
	transporttest.Run(t, transporttest.Setup{Client: f, Server: f, Listen: "ws://127.0.0.1:0/replicatord"})
}

func TestSecureWebSocket(t *testing.T) {
	f := secured(t)
	transporttest.Run(t, transporttest.Setup{Client: f, Server: f, Listen: "wss://127.0.0.1:0/", Secure: true})
}
