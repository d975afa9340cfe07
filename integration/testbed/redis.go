package testbed

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisOptions say how a Redis of the operator's own runs.
type RedisOptions struct {
	// Socket makes it listen on a unix socket instead of a port.
	Socket bool
	// Persist makes it keep an append-only file, so that it survives kill -9
	// with the data of a second ago.
	Persist bool
	// Databases: 0 is Redis's own default of 16.
	Databases int
	// Version8 makes it a Redis 8 (scripts/new-redis) instead of the installed one.
	Version8 bool
	// Args are further arguments.
	Args []string
}

// Redis is a redis-server that a node is given as its view.
type Redis struct {
	*Process
	Port   int    // 0 if it listens on a socket
	Socket string // path, or empty
	Dir    string
	opts   RedisOptions
}

// Redis8 returns the path of a redis-server that knows expiries of hash fields.
func (b *Bed) Redis8() string {
	b.Helper()
	path, err := filepath.Abs("../bin/redis8/redis-server")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		b.Fatalf("this test needs Redis 8, which scripts/new-redis bin/redis8 puts there: %v", err)
	}
	return path
}

// Redis starts a redis-server.
func (b *Bed) Redis(opts RedisOptions) *Redis {
	b.Helper()
	r := &Redis{Dir: b.TempDir(), opts: opts}
	if opts.Socket {
		// Not below TempDir: the path of a socket has some hundred bytes.
		dir, err := os.MkdirTemp("", "rs-")
		if err != nil {
			b.Fatalf("%v", err)
		}
		b.Cleanup(func() { _ = os.RemoveAll(dir) })
		r.Socket = filepath.Join(dir, "s")
	} else {
		r.Port = FreePort()
	}
	r.Process = b.process(fmt.Sprintf("redis%d", len(b.procs)+1), r.Dir, r.args)
	r.Start()
	return r
}

func (r *Redis) args() []string {
	binary := "redis-server"
	if r.opts.Version8 {
		binary = r.bed.Redis8()
	}
	args := []string{binary, "--bind", "127.0.0.1", "--port", strconv.Itoa(r.Port), "--dir", r.Dir,
		"--save", "", "--daemonize", "no", "--loglevel", "warning"}
	if r.Socket != "" {
		args = append(args, "--unixsocket", r.Socket)
	}
	if r.opts.Persist {
		args = append(args, "--appendonly", "yes", "--appendfsync", "everysec")
	}
	if r.opts.Databases > 0 {
		args = append(args, "--databases", strconv.Itoa(r.opts.Databases))
	}
	return append(args, r.opts.Args...)
}

// Address is what a node is told: --redis ADDRESS.
func (r *Redis) Address() string {
	if r.Socket != "" {
		return "unix://" + r.Socket
	}
	return addr(r.Port)
}

// Start starts it again, with what it has on disk, and waits until it answers.
func (r *Redis) Start() {
	r.bed.Helper()
	if err := r.start(); err != nil {
		r.bed.Fatalf("%v", err)
	}
	c := r.Client(0)
	r.bed.Wait(10*time.Second, r.name+" to answer", func() (bool, string) {
		if !r.running() {
			return false, "it ended: " + tailOf(r.log, 5)
		}
		err := c.Ping(context.Background()).Err()
		return err == nil || strings.HasPrefix(err.Error(), "NOAUTH"), fmt.Sprint(err)
	})
}

// Freeze stops it from running (SIGSTOP) until Thaw.
func (r *Redis) Freeze() { r.signal(syscall.SIGSTOP) }

// Thaw lets a frozen one run again.
func (r *Redis) Thaw() { r.signal(syscall.SIGCONT) }

// Wipe deletes what it has on disk. It must not run.
func (r *Redis) Wipe() {
	r.bed.Helper()
	for _, name := range []string{"dump.rdb", "appendonlydir"} {
		if err := os.RemoveAll(filepath.Join(r.Dir, name)); err != nil {
			r.bed.Fatalf("%v", err)
		}
	}
}

// Backup makes it write an RDB file, and returns a copy of that.
func (r *Redis) Backup() (path string) {
	r.bed.Helper()
	if err := r.Client(0).Save(context.Background()).Err(); err != nil {
		r.bed.Fatalf("SAVE: %v", err)
	}
	path = filepath.Join(r.bed.TempDir(), "backup.rdb")
	if err := copyFile(filepath.Join(r.Dir, "dump.rdb"), path); err != nil {
		r.bed.Fatalf("%v", err)
	}
	return path
}

// Restore puts an RDB file in the place of what it has. It must not run.
func (r *Redis) Restore(path string) {
	r.bed.Helper()
	r.Wipe()
	if err := copyFile(path, filepath.Join(r.Dir, "dump.rdb")); err != nil {
		r.bed.Fatalf("%v", err)
	}
}

// Client returns a client of one of its databases.
func (r *Redis) Client(db int) *redis.Client {
	o := clientOptions()
	o.DB = db
	if o.Network, o.Addr = "tcp", addr(r.Port); r.Socket != "" {
		o.Network, o.Addr = "unix", r.Socket
	}
	c := redis.NewClient(o)
	r.bed.Cleanup(func() { _ = c.Close() })
	return c
}

// clientOptions make a client that tries once, and tells what it was told.
func clientOptions() *redis.Options {
	return &redis.Options{
		Protocol: 2, DisableIdentity: true, MaxRetries: -1,
		DialTimeout: 2 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second,
		ContextTimeoutEnabled: true, DialerRetries: 1,
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
