package node

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/replicatord/replicatord/wan"
)

// replace puts the content of other files in the place of those in use.
func replace(t *testing.T, files, by TLSConfig) {
	t.Helper()
	for to, from := range map[string]string{files.CAFile: by.CAFile, files.CertFile: by.CertFile, files.KeyFile: by.KeyFile} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// linkOf returns a node's figures of its only member.
func linkOf(n *Node) (out wan.Stats) {
	for _, s := range n.links.Stats() {
		out = s.Stats
	}
	return out
}

// Certificates and the authority that judges others' are read anew when they
// change, for every transport; what cannot be used changes nothing.
func TestCertificatesAreReloaded(t *testing.T) {
	for _, transport := range []string{"tcp", "quic", "wss"} {
		t.Run(transport, func(t *testing.T) {
			first, second := certificates(t), certificates(t)
			copied := certificates(t) // b's own copy
			replace(t, copied, first)
			start := func(id int, files TLSConfig) *Node {
				return startTestNode(t, id, func(c *Config) {
					files.WAN, files.RESP = true, true
					c.TLS, c.WAN.Listen, c.WAN.Heartbeat = files, []string{transport}, 100*time.Millisecond
				})
			}
			a, b := start(1, first), start(2, copied)
			if err := b.members.Meet(t.Context(), a.cfg.Addr(), true); err != nil {
				t.Fatal(err)
			}
			sessions := uint64(0)
			anew := func(what string) {
				t.Helper()
				a.links.m.Restart()
				eventually(t, what, func() bool {
					s := linkOf(a)
					return s.Live && s.Sessions > sessions && strings.HasPrefix(s.Via, transport+"://")
				})
				sessions = linkOf(a).Sessions
			}
			anew("a session")
			// A file that is broken for a while.
			if err := os.WriteFile(first.KeyFile, []byte("half of it"), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(recheck + 100*time.Millisecond)
			anew("a session with the old certificates")
			// Another authority, at one node after the other.
			replace(t, first, second)
			time.Sleep(recheck + 100*time.Millisecond)
			a.links.m.Restart()
			eventually(t, "the two not to trust each other", func() bool {
				s := linkOf(a)
				return !s.Live && strings.Contains(s.LastError+linkOf(b).LastError, "certificate")
			})
			replace(t, copied, second)
			anew("a session with the new certificates")
			if out := run(a, request(nil, "SET", "k", "v")); out != "+OK\r\n" {
				t.Fatal(out)
			}
			eventually(t, "the write at the other node", func() bool {
				return strings.Contains(fmt.Sprint(run(b, request(nil, "GET", "k"))), "v")
			})
		})
	}
}
