package script

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// redisConn is a connection to a redis-server of the test's own.
type redisConn struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// startRedis starts a redis-server on a private socket; it ends with the test.
func startRedis(t testing.TB) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", dir)
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need redis-server: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			return socket
		}
		if time.Now().After(deadline) {
			t.Fatal("redis-server does not answer")
		}
	}
}

func dialRedis(t testing.TB, socket string) *redisConn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &redisConn{t, conn, bufio.NewReader(conn)}
}

func (c *redisConn) do(args ...[]byte) []byte {
	c.t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := c.conn.Write(b.Bytes()); err != nil {
		c.t.Fatal(err)
	}
	raw, err := readRaw(c.r)
	if err != nil {
		c.t.Fatal(err, string(bytes.Join(args, []byte(" "))))
	}
	return raw
}

func (c *redisConn) cmd(args ...string) string {
	b := make([][]byte, len(args))
	for i, a := range args {
		b[i] = []byte(a)
	}
	return string(c.do(b...))
}

func readRaw(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(line[1:])))
	switch line[0] {
	case '$', '=':
		if n >= 0 {
			body := make([]byte, n+2)
			if _, err := io.ReadFull(r, body); err != nil {
				return nil, err
			}
			line = append(line, body...)
		}
	case '%':
		n *= 2
		fallthrough
	case '*', '~':
		for range n {
			e, err := readRaw(r)
			if err != nil {
				return nil, err
			}
			line = append(line, e...)
		}
	}
	return line, nil
}

// pair runs scripts on a real Redis and in an Engine whose commands go to
// another database of the same Redis.
type pair struct {
	t      testing.TB
	engine *Engine
	redis  *redisConn // runs the scripts itself
	mine   *redisConn // carries out what the engine's scripts call
	proto  int
}

func newPair(t testing.TB) *pair {
	socket := startRedis(t)
	p := &pair{t: t, engine: New(func() uint32 { return 1 }), redis: dialRedis(t, socket), mine: dialRedis(t, socket), proto: 2}
	p.mine.cmd("SELECT", "1")
	return p
}

func (p *pair) Call(args [][]byte, proto int) []byte {
	p.mine.cmd("HELLO", "2")
	info := p.mine.cmd("COMMAND", "INFO", string(args[0]))
	_, rest, known := strings.Cut(info, "\r\n:")
	arity, _, _ := strings.Cut(rest, "\r\n")
	n, _ := strconv.Atoi(arity)
	switch {
	case !known:
		return []byte("-ERR Unknown Redis command called from script\r\n")
	case n > 0 && n != len(args) || n < 0 && len(args) < -n:
		return []byte("-ERR Wrong number of args calling Redis command from script\r\n")
	case strings.Contains(info, "+noscript"):
		return []byte("-ERR This Redis command is not allowed from script\r\n")
	}
	p.mine.cmd("HELLO", strconv.Itoa(proto))
	return p.mine.do(args...)
}
func (p *pair) Allowed([][]byte) (bool, bool) { return true, true }
func (p *pair) Alive() error                  { return nil }

// eval runs a script in the engine as EVAL does.
func (p *pair) eval(text string, keys, args []string) string {
	s, bad := p.engine.Load(text)
	if bad != "" {
		return "-" + toLine.Replace(bad) + "\r\n"
	}
	list := func(in []string) (out [][]byte) {
		for _, s := range in {
			out = append(out, []byte(s))
		}
		return
	}
	return string(p.engine.Run(s, p, list(keys), list(args), p.proto))
}

// same runs a script on both sides and compares the replies.
func (p *pair) same(text string, args ...string) {
	p.t.Helper()
	got := p.eval(text, []string{"k1", "k2"}, args)
	want := p.redis.cmd(append([]string{"EVAL", text, "2", "k1", "k2"}, args...)...)
	if got != want {
		p.t.Errorf("%s\n got %.600q\nwant %.600q", text, got, want)
	}
}
