package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/replicatord/replicatord/node"
)

// configFlags are the flags of every command that takes a configuration. They
// are text here, whatever their type: node.Load parses and judges them together
// with the file, so that all faults are listed at once and in the same words.
// A field that is not itself a key of the configuration has the tag notakey.
type configFlags struct {
	File string `arg:"" optional:"" name:"config" help:"Configuration file (TOML)."`

	Config string   `short:"c" notakey:"" placeholder:"FILE" help:"The same as the argument."`
	Set    []string `notakey:"" sep:"none" placeholder:"KEY=VALUE" help:"Any other key of the file, such as wan.window=16mb. Repeatable."`

	ID        string `group:"node" placeholder:"N" help:"Number of this node, 1 to 4095, unique in its cluster. Default: chosen at the first start and kept in the data directory."`
	Alias     string `group:"node" placeholder:"NAME" help:"Name for people. Default: node and the id."`
	Region    string `group:"node" placeholder:"NAME" help:"Where this node is. What is written in a region goes to each other region once. Default: none."`
	Bind      string `group:"node" placeholder:"IP" help:"Address to listen on. Default: 127.0.0.1. Any that others can reach needs a password and a secret."`
	Port      string `group:"node" placeholder:"PORT" help:"Port for Redis clients. Default: 9001."`
	Dir       string `group:"node" placeholder:"DIR" help:"Data directory, created if missing. Default: data-PORT."`
	Advertise string `group:"node" placeholder:"HOST" help:"Address other nodes use, if not the bind address."`

	Redis       string `group:"redis" placeholder:"HOW" help:"auto, spawn, embedded, or the address of yours: host:port, unix:///path, redis://, rediss://, sentinel://host:port,host:port/master. Default: auto: spawn where a server is installed, else embedded."`
	RedisBinary string `group:"redis" placeholder:"FILE" help:"Server that spawn starts. Default: redis-server, else valkey-server."`
	Adopt       bool   `group:"redis" help:"Take over the data of a Redis that is not empty, at the first start of the first node."`

	Meet         []string `group:"cluster" placeholder:"HOST:PORT" help:"Nodes to join, by their client address; several with commas."`
	Cluster      string   `group:"cluster" placeholder:"NAME" help:"Name all members agree on. Default: replicatord."`
	SecretFile   string   `group:"cluster" placeholder:"FILE" help:"File with the secret all members share."`
	GossipPort   string   `group:"cluster" placeholder:"PORT" help:"Membership port, TCP and UDP. Default: port + 1000."`
	WANPort      string   `group:"cluster" name:"wan-port" placeholder:"PORT" help:"Port of the exchange. Default: port + 2000."`
	MaxClockSkew string   `group:"cluster" placeholder:"10s" help:"Changes stamped further ahead than this are refused."`

	Fsync string `group:"data" placeholder:"everysec" help:"When a write is on disk: always (before the reply), everysec, no."`

	RequirepassFile string `group:"more" placeholder:"FILE" help:"File with the password of clients."`
	ProtectedMode   bool   `group:"more" negatable:"" help:"Refuse clients without a password on an address that others can reach (on unless negated)."`
	Metrics         string `group:"more" placeholder:"HOST:PORT" help:"Serve Prometheus metrics there. Default: off."`
	LogLevel        string `group:"more" placeholder:"info" help:"debug, info, warn or error."`
	LogFormat       string `group:"more" placeholder:"text" help:"text or json, on standard error."`
}

// load reads the configuration that file and flags make together.
func (f configFlags) load(given settings) (node.Config, error) {
	file := f.File
	if f.Config != "" {
		if file != "" {
			return node.Config{}, node.Faults{{Flag: "--config", Message: "the file is also given as an argument"}}
		}
		file = f.Config
	}
	if _, err := os.Stat(f.File); f.File != "" && errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(f.File, "./\\") {
		return node.Config{}, exitError{exitUsage, fmt.Errorf("%q is neither a command (run, check-config, tail, version, oplog) nor a file", f.File)}
	}
	for _, s := range f.Set {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return node.Config{}, node.Faults{{Flag: "--set", Message: fmt.Sprintf("%q is not key=value", s)}}
		}
		given = append(given, node.Setting{Key: key, Value: value, Flag: "--set"})
	}
	cfg, faults := node.Load(file, given...)
	return cfg, faults.Err()
}

// checkConfigCmd is "replicatord check-config".
type checkConfigCmd struct{ configFlags }

// Run prints the settings in force, or fails with all faults.
func (c checkConfigCmd) Run(s streams, given settings) error {
	cfg, err := c.load(given)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, setting := range cfg.Settings() {
		if setting.Value == "" {
			setting.Value = "-"
		}
		if setting.Key == "id" && cfg.ID == 0 {
			setting.Value = "chosen at the first start"
		}
		fmt.Fprintf(w, "%s\t%s\n", setting.Key, setting.Value)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, "OK: no faults")
	return err
}
