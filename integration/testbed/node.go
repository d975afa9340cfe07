package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Options say how a node is started.
type Options struct {
	ID   int
	View string // --redis: spawn (default), embedded, or an address
	// Meet lists nodes to join before Node returns.
	Meet []*Node
	// Network relays everything between this node and others.
	Network *Network
	// Secret, if not empty, is written to a file the node is given.
	Secret string
	// Config, if not empty, is the text of a configuration file.
	Config string
	// Args are further flags.
	Args []string
	// Wrap, if not nil, changes the command line.
	Wrap func(args []string) []string
	// Broken says that the node is not expected to serve: Node starts it and
	// returns.
	Broken bool
}

// Node is a replicatord process.
type Node struct {
	*Process
	Opts                          Options
	ID                            int
	Port, GossipPort, WANPort     int
	Dir                           string // data directory
	MetricsPort                   int
	client                        *redis.Client
	advertiseGossip, advertiseWAN int // ports of relays; 0: none
}

// Node makes a node, starts it, waits until it serves, and joins it to others.
func (b *Bed) Node(opts Options) *Node {
	b.Helper()
	n := &Node{Opts: opts, ID: opts.ID, Port: FreePort(), GossipPort: FreePort(), WANPort: FreePort(), MetricsPort: FreePort()}
	home := b.TempDir()
	n.Dir = filepath.Join(home, "data")
	n.Process = b.process(fmt.Sprintf("node%d", opts.ID), home, n.args)
	b.mu.Lock()
	b.nodes = append(b.nodes, n)
	b.mu.Unlock()
	if opts.Secret != "" {
		if err := os.WriteFile(filepath.Join(home, "secret"), []byte(opts.Secret+"\n"), 0o600); err != nil {
			b.Fatalf("%v", err)
		}
	}
	if opts.Config != "" {
		if err := os.WriteFile(filepath.Join(home, "constdb.toml"), []byte(opts.Config), 0o600); err != nil {
			b.Fatalf("%v", err)
		}
	}
	if opts.Network != nil {
		opts.Network.front(n)
	}
	n.client = n.NewClient(0)
	if opts.Broken {
		n.Launch()
		return n
	}
	n.Start()
	for _, m := range opts.Meet {
		n.Meet(m)
	}
	return n
}

func (n *Node) args() []string {
	view := n.Opts.View
	if view == "" {
		view = "spawn"
	}
	args := []string{n.bed.bin, "--id", strconv.Itoa(n.ID), "--port", strconv.Itoa(n.Port),
		"--gossip-port", strconv.Itoa(n.GossipPort), "--wan-port", strconv.Itoa(n.WANPort),
		"--dir", n.Dir, "--redis", view, "--metrics", addr(n.MetricsPort)}
	if n.Opts.Config != "" {
		args = append(args, "--config", "constdb.toml")
	}
	if n.Opts.Secret != "" {
		args = append(args, "--secret-file", "secret")
	}
	if n.stack != nil {
		args = append(args, "--bind", n.stack.ip, "--set", "protected_mode=false")
	}
	if n.advertiseGossip != 0 {
		args = append(args, "--advertise", "127.0.0.1",
			"--set", "advertise_gossip_port="+strconv.Itoa(n.advertiseGossip),
			"--set", "advertise_wan_port="+strconv.Itoa(n.advertiseWAN))
	}
	args = append(args, n.Opts.Args...)
	if n.Opts.Wrap != nil {
		args = n.Opts.Wrap(args)
	}
	return args
}

// Launch starts the process without waiting for anything.
func (n *Node) Launch() {
	n.bed.Helper()
	if err := n.start(); err != nil {
		n.bed.Fatalf("%v", err)
	}
}

// Start starts the node and waits until it serves.
func (n *Node) Start() {
	n.bed.Helper()
	n.Launch()
	n.Ready()
}

// Ready waits until the node serves commands on data, and its view too.
func (n *Node) Ready() {
	n.bed.Helper()
	n.bed.Wait(60*time.Second, n.name+" to serve", func() (bool, string) {
		if !n.running() {
			n.bed.Fatalf("%s ended (%v):\n%s", n.name, n.err, tailOf(n.log, tailLines))
		}
		err := n.client.DBSize(context.Background()).Err() // which only the view knows
		return err == nil, fmt.Sprint(err)
	})
}

// Stop ends the node with SIGTERM; the test fails if it does not end in order.
func (n *Node) Stop() {
	n.bed.Helper()
	n.signal(syscall.SIGTERM)
	if code, err := n.wait(40 * time.Second); err != nil || code != 0 {
		n.bed.Fatalf("%s, stopped by SIGTERM: exit code %d, %v", n.name, code, err)
	}
}

// Freeze stops the node from running (SIGSTOP) until Thaw.
func (n *Node) Freeze() { n.signal(syscall.SIGSTOP) }

// Thaw lets a frozen node run again.
func (n *Node) Thaw() { n.signal(syscall.SIGCONT) }

// Terminate sends SIGTERM.
func (n *Node) Terminate() { n.signal(syscall.SIGTERM) }

// Ended waits for the node to end by itself and returns the exit code.
func (n *Node) Ended(limit time.Duration) int {
	n.bed.Helper()
	code, err := n.wait(limit)
	if err != nil {
		n.bed.Fatalf("%v", err)
	}
	return code
}

// Addr is the node's RESP address.
func (n *Node) Addr() string {
	if n.stack != nil {
		return net.JoinHostPort(n.stack.ip, strconv.Itoa(n.Port))
	}
	return addr(n.Port)
}

// NewClient returns a go-redis client of the node that tries once.
func (n *Node) NewClient(db int) *redis.Client {
	c := redis.NewClient(n.clientOptions(db))
	n.bed.Cleanup(func() { _ = c.Close() })
	return c
}

// clientOptions are those of a client of the node.
func (n *Node) clientOptions(db int) *redis.Options {
	o := clientOptions()
	o.Addr, o.DB = n.Addr(), db
	if n.stack != nil {
		o.Dialer = n.stack.dial
	}
	return o
}

// Client returns the client that Do uses.
func (n *Node) Client() *redis.Client { return n.client }

// Dial opens a plain connection to the RESP port.
func (n *Node) Dial() net.Conn {
	n.bed.Helper()
	c, err := net.DialTimeout("tcp", n.Addr(), 5*time.Second)
	if err != nil {
		n.bed.Fatalf("%v", err)
	}
	n.bed.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

// Try runs a command and returns its reply, nil for a null.
func (n *Node) Try(args ...any) (any, error) {
	v, err := n.client.Do(context.Background(), args...).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return v, err
}

// Do runs a command; an error fails the test.
func (n *Node) Do(args ...any) any {
	n.bed.Helper()
	v, err := n.Try(args...)
	if err != nil {
		n.bed.Fatalf("%s: %s: %v", n.name, clip(fmt.Sprint(args...)), err)
	}
	return v
}

// Int runs a command that replies an integer.
func (n *Node) Int(args ...any) int64 {
	n.bed.Helper()
	v := n.Do(args...)
	switch v := v.(type) {
	case int64:
		return v
	case string:
		if i, err := strconv.ParseInt(v, 10, 64); err == nil {
			return i
		}
	case nil:
		return 0
	}
	n.bed.Fatalf("%s: %s replied %v, not an integer", n.name, clip(fmt.Sprint(args...)), v)
	return 0
}

// Error runs a command that must be refused, and returns the error's text.
func (n *Node) Error(args ...any) string {
	n.bed.Helper()
	v, err := n.Try(args...)
	var refusal redis.Error
	if err == nil || !errors.As(err, &refusal) {
		n.bed.Fatalf("%s: %s replied %v, %v: want an error reply", n.name, clip(fmt.Sprint(args...)), v, err)
	}
	return err.Error()
}

// CLI runs redis-cli against the node, and returns what it prints.
func (n *Node) CLI(args ...string) string {
	n.bed.Helper()
	out, err := exec.Command("redis-cli", append([]string{"-p", strconv.Itoa(n.Port)}, args...)...).CombinedOutput()
	if err != nil {
		n.bed.Fatalf("redis-cli -p %d %s: %v\n%s", n.Port, strings.Join(args, " "), err, out)
	}
	return strings.TrimRight(string(out), "\n")
}

// Meet joins the node to another.
func (n *Node) Meet(other *Node) {
	n.bed.Helper()
	if v := n.Do("MEET", other.Addr()); v != int64(1) {
		n.bed.Fatalf("MEET %s replied %v", other.Addr(), v)
	}
}

// Fields runs a command that replies an array of names and values.
func (n *Node) Fields(args ...any) map[string]string {
	n.bed.Helper()
	return fieldsOf(n.Do(args...))
}

func fieldsOf(v any) map[string]string {
	m := map[string]string{}
	list, _ := v.([]any)
	for i := 0; i+1 < len(list); i += 2 {
		m[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
	}
	return m
}

// Replicas returns what REPLICAS says of each member, by id; the node itself too.
func (n *Node) Replicas() map[int]map[string]string {
	n.bed.Helper()
	out := map[int]map[string]string{}
	list, _ := n.Do("REPLICAS").([]any)
	for _, v := range list {
		f := fieldsOf(v)
		id, _ := strconv.Atoi(f["id"])
		out[id] = f
	}
	return out
}

// Pause stops the exchange of deltas with other nodes.
func (n *Node) Pause() { n.bed.Helper(); n.Do("NODE", "PAUSE") }

// Resume starts the exchange again.
func (n *Node) Resume() { n.bed.Helper(); n.Do("NODE", "RESUME") }

// Info returns INFO's fields.
func (n *Node) Info() map[string]string {
	n.bed.Helper()
	out := map[string]string{}
	for line := range strings.SplitSeq(fmt.Sprint(n.Do("INFO", "everything")), "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			out[name] = value
		}
	}
	return out
}

// Home is the directory the node was started in; Dir is below it.
func (n *Node) Home() string { return n.dir }

// Names lists nodes for messages.
func Names(nodes []*Node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func clip(s string) string {
	if len(s) > 400 {
		return s[:400] + "…"
	}
	return s
}
