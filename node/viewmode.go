package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/internal/socket"
	"github.com/replicatord/replicatord/resp/command"
)

// redisLog takes what go-redis has to say of connections: the node says it
// better, and with what follows from it.
type redisLog struct{ slog *slog.Logger }

func (l redisLog) Printf(_ context.Context, format string, args ...any) {
	l.slog.Debug("go-redis", "text", fmt.Sprintf(format, args...))
}

// viewSource is where the view comes from: an address, a server the node has
// started, or one inside the process. All are talked to alike.
type viewSource struct {
	target RedisTarget
	what   string // for people
	stop   func() error
	alive  func() error // restarts what the node has to keep running itself
	tls    *tls.Config
	params viewParams
	most   int64 // the greatest value that this node takes, bytes
}

// userDBs is the number of databases clients see.
const userDBs = 16

// viewTimeout bounds the wait for one pipeline's replies: beyond it the view
// is taken to be lost.
const viewTimeout = 15 * time.Second

// viewDial bounds the wait for a connection to the Redis behind.
const viewDial = 5 * time.Second

// openView starts or finds the view that the configuration asks for.
func openView(cfg *Config, logger *slog.Logger) (*viewSource, error) {
	t, err := ParseRedis(cfg.Redis)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	if t.Mode == RedisAuto {
		if _, err := findServer(cfg.RedisBinary); err == nil {
			t.Mode = RedisSpawn
		} else {
			t.Mode = RedisEmbedded
		}
	}
	switch t.Mode {
	case RedisSpawn:
		return spawnView(cfg, logger)
	case RedisEmbedded:
		return embeddedView(logger)
	}
	if t.Password == "" {
		t.Password = cfg.RedisPassword
	}
	v := &viewSource{target: t, what: "Redis at " + t.where(), most: cfg.mostValue(), stop: func() error { return nil }, alive: func() error { return nil }}
	if t.TLS {
		v.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return v, nil
}

// where names an address without its password.
func (t RedisTarget) where() string {
	if len(t.Sentinels) > 0 {
		return fmt.Sprintf("%q of the Sentinels %s", t.Master, strings.Join(t.Sentinels, ", "))
	}
	return t.Addr
}

func findServer(binary string) (string, error) {
	if binary != "" {
		return exec.LookPath(binary)
	}
	for _, name := range []string{"redis-server", "valkey-server"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", errors.New("no redis-server or valkey-server in PATH: install one, give redis_binary, or use redis = \"embedded\"")
}

// spawnView starts a private server on a unix socket. It keeps nothing on
// disk: the node's own log is what lasts.
func spawnView(cfg *Config, logger *slog.Logger) (*viewSource, error) {
	bin, err := findServer(cfg.RedisBinary)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(filepath.Join(cfg.Dir, "view"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	sock := filepath.Join(dir, "redis.sock")
	if len(sock) > 100 { // sun_path holds 108 bytes, 104 on BSD
		tmp, err := os.MkdirTemp("", "replicatord-")
		if err != nil {
			return nil, err
		}
		sock = filepath.Join(tmp, "redis.sock")
	}
	s := &spawned{bin: bin, dir: dir, sock: sock, slog: logger}
	if err := s.start(); err != nil {
		return nil, err
	}
	return &viewSource{
		target: RedisTarget{Mode: RedisSpawn, Network: "unix", Addr: sock},
		what:   "its own " + filepath.Base(bin), stop: s.stop, alive: s.ensure, most: cfg.mostValue(),
	}, nil
}

// spawned is a server process of the node's own.
type spawned struct {
	bin, dir, sock string
	slog           *slog.Logger

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	ending bool
}

func (s *spawned) start() error {
	_ = os.Remove(s.sock)
	out := &tail{}
	cmd := exec.Command(s.bin,
		"--port", "0", "--unixsocket", s.sock, "--unixsocketperm", "700",
		"--dir", s.dir, "--save", "", "--appendonly", "no",
		"--databases", strconv.Itoa(userDBs+1), "--daemonize", "no", "--protected-mode", "no",
		"--maxmemory-policy", "noeviction", "--loglevel", "warning")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = spawnAttr()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.bin, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if c, err := net.Dial("unix", s.sock); err == nil {
			_ = c.Close()
			break
		}
		select {
		case <-exited:
			return fmt.Errorf("%s ended at once: %s", s.bin, out)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			return fmt.Errorf("%s does not listen on %s: %s", s.bin, s.sock, out)
		}
	}
	s.cmd, s.exited = cmd, exited
	return nil
}

// ensure starts the server again if it has ended.
func (s *spawned) ensure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.exited:
		if s.ending {
			return errors.New("stopping")
		}
		s.slog.Warn("the view's server ended, starting it again", "binary", s.bin)
		return s.start()
	default:
		return nil
	}
}

func (s *spawned) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
	_ = os.Remove(s.sock)
	return nil
}

// tail keeps the last of what a process prints.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - 2048; n > 0 {
		t.buf = t.buf[n:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}

// connect opens the one connection that serves the view, and finds the
// database for its watermark: one that clients don't see, if there is one.
func (v *viewSource) connect(ctx context.Context) (*viewConn, error) {
	if err := v.alive(); err != nil {
		return nil, err
	}
	t := v.target
	var client *redis.Client
	if len(t.Sentinels) > 0 {
		client = redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: t.Master, SentinelAddrs: t.Sentinels,
			Username: t.Username, Password: t.Password,
			Protocol: 2, DisableIdentity: true, MaxRetries: -1, PoolSize: 2,
			ReadTimeout: viewTimeout, WriteTimeout: viewTimeout,
		})
	} else {
		opt := &redis.Options{
			Network: t.Network, Addr: t.Addr, Username: t.Username, Password: t.Password, TLSConfig: v.tls,
			Protocol: 2, DisableIdentity: true, MaxRetries: -1, PoolSize: 2,
			DialTimeout: viewDial, ReadTimeout: viewTimeout, WriteTimeout: viewTimeout,
		}
		dial := redis.NewDialer(opt)
		opt.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err == nil {
				c = socket.Wrap(c)
			}
			return c, err
		}
		client = redis.NewClient(opt)
	}
	c := &viewConn{client: client, conn: client.EphemeralConn(), db: -1, proto: 2, embedded: t.Mode == RedisEmbedded}
	if err := c.conn.Ping(ctx).Err(); err != nil {
		c.Close()
		return nil, err
	}
	if err := c.check(ctx); err != nil {
		c.Close()
		return nil, err
	}
	if _, err := c.do(0, "HELLO", 3); err != nil {
		c.resp2 = "ERR the Redis behind this node does not speak RESP3, so this read cannot be answered in it; use RESP2 (HELLO 2). It says: " + err.Error()
	} else {
		c.proto = 3
	}
	_, err := c.do(0, "HPEXPIRETIME", noKey, "FIELDS", 1, "f")
	c.fields = err == nil
	for _, db := range []int{userDBs, userDBs - 1} {
		if _, err := c.do(db, "PING"); err == nil {
			c.hidden, c.filter = db, db < userDBs
			if err := c.lift(v.most); err != nil {
				c.Close()
				return nil, err
			}
			v.params.apply(c)
			return c, nil
		}
	}
	c.Close()
	return nil, fmt.Errorf("it has fewer than the %d databases that clients can select: set \"databases %d\" in its configuration", userDBs, userDBs+1)
}

// check refuses a Redis that cannot be a view.
func (c *viewConn) check(ctx context.Context) error {
	info, err := c.conn.Info(ctx).Result()
	if err != nil {
		return nil // no INFO: an embedded or restricted one; the updates will tell
	}
	field := func(name string) string {
		_, rest, _ := strings.Cut(info, name+":")
		value, _, _ := strings.Cut(rest, "\r\n")
		return value
	}
	if field("loading") == "1" {
		return errors.New("it is still loading its own data")
	}
	if field("role") == "slave" {
		return errors.New("it is a replica of another Redis: give the node the master")
	}
	if field("cluster_enabled") == "1" {
		return errors.New("it is in cluster mode: give the node a Redis of its own")
	}
	major, rest, _ := strings.Cut(field("redis_version"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	ma, err1 := strconv.Atoi(major)
	mi, err2 := strconv.Atoi(minor)
	if err1 == nil && err2 == nil && (ma < 6 || ma == 6 && mi < 2) {
		return fmt.Errorf("it is of version %s, the node needs 6.2 or later", field("redis_version"))
	}
	return nil
}

// mostValue is the greatest value that a node takes, in bytes.
func (c *Config) mostValue() int64 { return max(int64(c.ProtoMaxBulkLen), command.MaxString) }

// lift takes away the view's own bounds on sizes. What a node has accepted, this one
// or another, may never be refused by the view: it would be sent again and again, and
// the view be lost each time. most is the greatest value that this node accepts, for as
// long as nobody sends a larger one (makeRoom). A view that cannot be told has to take that,
// if it says what it takes.
func (c *viewConn) lift(most int64) error {
	c.most = most
	if c.embedded {
		return nil // it has no such bounds
	}
	_, _ = c.do(c.hidden, "CONFIG", "SET", "client-query-buffer-limit", int64(1)<<40)
	raw, err := c.do(c.hidden, "CONFIG", "GET", "proto-max-bulk-len")
	if err != nil {
		return nil // a managed Redis, which has the default, 512 MB
	}
	list := readBulks(raw)
	if len(list) != 2 {
		return nil
	}
	n, err := strconv.ParseInt(string(list[1]), 10, 64)
	if err != nil || n >= most {
		return nil
	}
	if _, err := c.do(c.hidden, "CONFIG", "SET", "proto-max-bulk-len", most); err != nil {
		return fmt.Errorf("it takes nothing larger than %d bytes, and does not let the node change that: set proto-max-bulk-len to at least %d there", n, most)
	}
	return nil
}

// makeRoom has the view take what is larger than this node accepts: another node may
// have other limits, and CONFIG SET may change them.
func (c *viewConn) makeRoom(batches []*Batch) {
	for _, b := range batches {
		if n := int64(b.Bytes); n > c.most && !c.embedded {
			if _, err := c.do(c.hidden, "CONFIG", "SET", "proto-max-bulk-len", n); err == nil {
				c.most = n
			}
		}
	}
}

// readMark returns the watermark's bytes, nil if there is none.
func (c *viewConn) readMark() ([]byte, error) {
	raw, err := c.do(c.hidden, "GET", markKey)
	if err != nil {
		return nil, err
	}
	b, _ := readBulk(raw)
	return bytes.Clone(b), nil
}

// keys returns how many keys the databases clients see hold, the watermark
// left out.
func (c *viewConn) keys() (int, error) {
	total := 0
	for db := range userDBs {
		raw, err := c.do(db, "DBSIZE")
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(string(bytes.TrimSpace(raw[1:])))
		if err != nil {
			return 0, fmt.Errorf("DBSIZE answered %q", raw)
		}
		total += n
	}
	if mark, err := c.readMark(); err == nil && mark != nil && c.filter {
		total--
	}
	return total, nil
}
