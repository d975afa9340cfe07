package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Server returns the configuration of the client port: this node's
// certificate, none asked of clients.
func (c TLSConfig) Server() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}, nil
}

// Client returns the configuration for asking other nodes at their client
// ports. Their certificates are judged as on the data links if there is a CA
// file, else as usual: by the system's roots, and by name.
func (c TLSConfig) Client() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile == "" {
		return conf, nil
	}
	pool, err := c.pool()
	if err != nil {
		return nil, err
	}
	verifyBy(conf, pool)
	return conf, nil
}

// Mutual returns the configuration of the data links: both sides show a
// certificate that the CA signed.
func (c TLSConfig) Mutual() (*tls.Config, error) {
	conf, err := c.Server()
	if err != nil {
		return nil, err
	}
	pool, err := c.pool()
	if err != nil {
		return nil, err
	}
	conf.MinVersion = tls.VersionTLS13
	conf.ClientCAs, conf.ClientAuth = pool, tls.RequireAndVerifyClientCert
	verifyBy(conf, pool)
	return conf, nil
}

// pool returns the certificates of the CA file.
func (c TLSConfig) pool() (*x509.CertPool, error) {
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls: %s holds no certificate", c.CAFile)
	}
	return pool, nil
}

// verifyBy admits every peer whose certificate one of the pool has signed.
// Names are not compared; who is admitted is the CA's to say, and what it
// claims to be the handshake's.
func verifyBy(conf *tls.Config, pool *x509.CertPool) {
	conf.InsecureSkipVerify = true // the chain is verified below, the name is not
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return fmt.Errorf("the peer shows no certificate")
		}
		opts := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
		for _, cert := range s.PeerCertificates[1:] {
			opts.Intermediates.AddCert(cert)
		}
		_, err := s.PeerCertificates[0].Verify(opts)
		return err
	}
}
