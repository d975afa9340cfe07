package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// proxy is a twemproxy before a Redis.
type proxy struct {
	*testbed.Process
	port int
}

// twemproxy starts one; nil where it is not installed.
func twemproxy(b *bench, bed *testbed.Bed, redis int) *proxy {
	path, err := exec.LookPath("nutcracker")
	if err != nil {
		return nil
	}
	port := testbed.FreePort()
	config := filepath.Join(b.TempDir(), "nutcracker.yml")
	text := fmt.Sprintf(`bench:
  listen: 127.0.0.1:%d
  redis: true
  hash: fnv1a_64
  distribution: ketama
  preconnect: true
  servers:
   - 127.0.0.1:%d:1
`, port, redis)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatalf("%v", err)
	}
	p := bed.Other(path, "--conf-file", config, "--stats-addr", "127.0.0.1", "--stats-port", strconv.Itoa(testbed.FreePort()))
	bed.Wait(30*time.Second, "twemproxy to listen", func() (bool, string) {
		if !p.Running() {
			b.Fatalf("twemproxy ended: %s", p.Log())
		}
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = c.Close()
		}
		return err == nil, fmt.Sprint(err)
	})
	return &proxy{p, port}
}
