package node

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicatord/replicatord/gossip"
	"github.com/replicatord/replicatord/integration/testbed"
	"github.com/replicatord/replicatord/resp"
)

// startTestNode starts a whole node with an embedded view.
func startTestNode(t *testing.T, id int, change func(*Config)) *Node {
	t.Helper()
	cfg := DefaultConfig()
	cfg.ID, cfg.Redis, cfg.Dir = id, RedisEmbedded, t.TempDir()
	cfg.Port, cfg.GossipPort, cfg.WANPort = testbed.FreePort(), testbed.FreePort(), testbed.FreePort()
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := Start(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := n.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

// certificates writes a CA and a certificate it signed, which names no host.
func certificates(t *testing.T) TLSConfig {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sign := func(c, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	made := func(n int64, name string, ca bool) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, IsCA: ca, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	}
	ca, leaf := made(1, "ca", true), made(2, "node", false)
	key, err := x509.MarshalECPrivateKey(keys[1])
	if err != nil {
		t.Fatal(err)
	}
	return TLSConfig{
		CAFile:   write("ca.crt", "CERTIFICATE", sign(ca, ca, keys[0], keys[0])),
		CertFile: write("node.crt", "CERTIFICATE", sign(leaf, ca, keys[1], keys[0])),
		KeyFile:  write("node.key", "EC PRIVATE KEY", key),
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// ask sends a line to a node and returns what it answers.
func ask(t *testing.T, n *Node, line string) string {
	t.Helper()
	c, err := net.Dial("tcp", n.cfg.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprint(c, line+"\r\nQUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(b), "+OK\r\n")
}

// While a member is away, its lag is told, and the log need keep no more for it
// than it has not acknowledged.
func TestMemberAway(t *testing.T) {
	a, b := startTestNode(t, 1, nil), startTestNode(t, 2, nil)
	if err := a.members.Meet(t.Context(), b.cfg.Addr(), true); err != nil {
		t.Fatal(err)
	}
	ask(t, a, "SET k before")
	acked := a.log.Vector()
	eventually(t, "node 2 to have it", func() bool { return len(acked) > 0 && acked.In(a.links.durable(2)) })
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the link to be down", func() bool { return !a.links.Stats()[2].Live })
	ask(t, a, "SET k after")
	left := time.Now()
	eventually(t, "the lag", func() bool {
		x := a.links.Stats()[2]
		return x.LagEntries == 1 && x.Lag >= time.Since(left) && strings.Contains(ask(t, a, "REPLICAS"), "lag_entries\r\n$1\r\n1\r\n")
	})
	if got := a.links.durable(2); !acked.In(got) || a.log.Vector().In(got) {
		t.Errorf("the log is trimmed up to %v, the member was last heard to have %v", got, acked)
	}
}

func TestMeetTLS(t *testing.T) {
	conf := certificates(t)
	conf.RESP = true
	secure := func(c *Config) { c.TLS = conf }
	a, b := startTestNode(t, 1, secure), startTestNode(t, 2, secure)
	plain := startTestNode(t, 3, nil)
	stranger := startTestNode(t, 4, func(c *Config) { c.TLS = certificates(t); c.TLS.RESP = true })
	system := startTestNode(t, 5, func(c *Config) { c.TLS = conf; c.TLS.CAFile = "" })
	for _, x := range []struct {
		from, to *Node
		want     string
	}{
		{plain, a, "serves clients with TLS, this node without: set tls.resp alike at both"},
		{a, plain, "serves clients without TLS, this node with: set tls.resp alike at both"},
		{stranger, a, "certificate signed by unknown authority"},
		{system, a, "does not answer: tls: "},
	} {
		err := x.from.members.Meet(t.Context(), x.to.cfg.Addr(), true)
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("node %d meets %d: %v, want %q", x.from.cfg.ID, x.to.cfg.ID, err, x.want)
		}
	}
	if err := a.members.Meet(t.Context(), b.cfg.Addr(), true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node 2 to be a member", func() bool {
		list := a.members.List()
		return len(list) == 1 && list[0].ID == 2
	})
}

// answering is a server that gives every command one answer.
func answering(t *testing.T, answer string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if strings.HasPrefix(line, "*") {
						_, _ = fmt.Fprint(c, answer)
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestMeetReasons(t *testing.T) {
	n := startTestNode(t, 1, nil)
	for answer, want := range map[string]string{
		"-LOADING replicatord is starting\r\n": "is still starting, try again",
		"-ERR unknown command 'GOSSIP'\r\n":    "is not a replicatord node",
	} {
		if err := n.members.Meet(t.Context(), answering(t, answer), true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", answer, err)
		}
	}
	if err := n.members.Meet(t.Context(), net.JoinHostPort("127.0.0.1", fmt.Sprint(testbed.FreePort())), true); err == nil || !strings.Contains(err.Error(), "is unreachable") {
		t.Errorf("nobody there: %v", err)
	}
}

// MEET stores the members, and so does what gossip reports of them, at the same
// time: who was asked first must not store an older list later, or a node that is
// started again knows nobody.
func TestMembersAreStoredAsTheyAre(t *testing.T) {
	n := startTestNode(t, 1, nil)
	held, free := make(chan struct{}), make(chan struct{})
	if !n.exec.Post(func(*Core) { close(held); <-free }) {
		t.Fatal("the executor has ended")
	}
	<-held
	var met sync.WaitGroup
	met.Go(n.members.save)
	for len(n.exec.queue) == 0 { // the executor is yet to come to it
		time.Sleep(time.Millisecond)
	}
	n.members.mu.Lock()
	n.members.list = []gossip.Member{{Facts: gossip.Facts{ID: 7, Alias: "seven"}}}
	n.members.mu.Unlock()
	close(free)
	met.Wait()
	if err := n.exec.Run(func(c *Core) {
		b, err := c.log.Meta(membersMeta)
		if err != nil {
			t.Error(err)
		}
		if r, err := loadRoll(b); err != nil || len(r.Members) != 1 || r.Members[0].ID != 7 {
			t.Errorf("what is stored are %v, %v", r.Members, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// What operators ask is answered while clients get LOADING; before that, it
// is refused with LOADING.
func TestAdminWhileStarting(t *testing.T) {
	n := startTestNode(t, 1, nil)
	ask(t, n, "SET k v")
	n.exec.setLoading("the view is being rebuilt")
	if got := ask(t, n, "GET k"); !strings.HasPrefix(got, "-LOADING the view is being rebuilt") {
		t.Errorf("GET: %q", got)
	}
	commands := []string{"GOSSIP", "REPLICAS", "NODE", "NODE VECTOR", "DESC k", "REPLLOG", "FORGET 7", "MEET 127.0.0.1:1"}
	for _, line := range commands {
		got := ask(t, n, line)
		if strings.Contains(got, "LOADING") || strings.Contains(got, "internal error") || strings.HasPrefix(got, "-") != (line == "FORGET 7" || line == "MEET 127.0.0.1:1") {
			t.Errorf("%s: %q", line, got)
		}
	}
	// A node whose parts are not all there yet.
	early := &Node{cfg: n.cfg, log: n.log, exec: n.exec, pump: n.pump, recovery: n.recovery}
	for _, line := range commands {
		args := [][]byte{}
		for _, w := range strings.Fields(line) {
			args = append(args, []byte(w))
		}
		if got := string(early.Admin(&resp.Session{}, nil, args)); got != "-LOADING replicatord is starting\r\n" {
			t.Errorf("%s: %q", line, got)
		}
	}
	if s := early.Info(""); len(s) != 6 {
		t.Errorf("INFO has the sections %v", s)
	}
}

func TestBannerShowsWhatWasConfigured(t *testing.T) {
	n := startTestNode(t, 1, func(c *Config) {
		c.Bind, c.Advertise, c.ProtectedMode, c.Secret = "0.0.0.0", "127.0.0.1", false, "a secret of some length"
	})
	if want := fmt.Sprintf("clients on 0.0.0.0:%d,", n.cfg.Port); !strings.Contains(n.Banner(), want) {
		t.Errorf("%q lacks %q", n.Banner(), want)
	}
}
