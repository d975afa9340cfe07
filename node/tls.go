package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certFiles are the files of TLSConfig as they were read last. They are read
// again, for the next handshakes, when one of them has changed; what cannot be
// used is told, and leaves those that could be in force. Connections that there
// are go on.
type certFiles struct {
	files TLSConfig
	slog  *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   string // of the files when they were read, or failed to be
	own     *tls.Certificate
	pool    *x509.CertPool // nil without a CA file
}

// recheck is how long files are taken not to have changed.
const recheck = time.Second

// newCertFiles reads the files.
func newCertFiles(files TLSConfig, log *slog.Logger) (*certFiles, error) {
	c := &certFiles{files: files, slog: log, checked: time.Now()}
	c.stamp = c.look()
	return c, c.read()
}

// look returns what tells one version of the files from another.
func (c *certFiles) look() string {
	var stamp string
	for _, path := range []string{c.files.CertFile, c.files.KeyFile, c.files.CAFile} {
		if path == "" {
			continue
		}
		if i, err := os.Stat(path); err != nil {
			stamp += err.Error()
		} else {
			stamp += fmt.Sprint(i.ModTime().UnixNano(), " ", i.Size(), " ")
		}
	}
	return stamp
}

// read replaces both, or neither.
func (c *certFiles) read() error {
	own, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	var pool *x509.CertPool
	if c.files.CAFile != "" {
		pem, err := readLimited(c.files.CAFile, maxConfigFile)
		if err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		if pool = x509.NewCertPool(); !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("tls: %s holds no PEM certificate", c.files.CAFile)
		}
	}
	c.own, c.pool = &own, pool
	return nil
}

// get returns what is in force now.
func (c *certFiles) get() (*tls.Certificate, *x509.CertPool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= recheck {
		c.checked = now
		if stamp := c.look(); stamp != c.stamp {
			c.stamp = stamp
			if err := c.read(); err != nil {
				c.slog.Error("the new certificates can't be used, the old ones stay in force: put them right", "err", err)
			} else {
				c.slog.Info("certificates were read anew", "cert_file", c.files.CertFile)
			}
		}
	}
	return c.own, c.pool
}

// server returns the configuration of the client port: this node's
// certificate, none asked of clients.
func (c *certFiles) server() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		own, _ := c.get()
		return own, nil
	}}
}

// client returns the configuration for asking other nodes at their client
// ports. Their certFiles are judged as on the data links if there is a CA
// file, else as usual: by the system's roots, and by name.
func (c *certFiles) client() *tls.Config {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.files.CAFile != "" {
		c.verify(conf)
	}
	return conf
}

// mutual returns the configuration of the data links: both sides show a
// certificate that the CA signed.
func (c *certFiles) mutual() *tls.Config {
	conf := c.server()
	conf.MinVersion = tls.VersionTLS13
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		own, _ := c.get()
		return own, nil
	}
	conf.ClientAuth = tls.RequireAnyClientCert // judged as servers are
	c.verify(conf)
	return conf
}

// verify admits every peer whose certificate the CA has signed. Names are not
// compared; who is admitted is the CA's to say, and what it claims to be the
// handshake's.
func (c *certFiles) verify(conf *tls.Config) {
	conf.InsecureSkipVerify = true // the chain is verified below, the name is not
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return fmt.Errorf("the peer shows no certificate")
		}
		_, pool := c.get()
		opts := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
		for _, cert := range s.PeerCertificates[1:] {
			opts.Intermediates.AddCert(cert)
		}
		_, err := s.PeerCertificates[0].Verify(opts)
		return err
	}
}
