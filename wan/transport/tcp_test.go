package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
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
	return transport.New(transport.Options{TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool}})
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
