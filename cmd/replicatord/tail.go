package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/replicatord/replicatord/node"
)

// tailCmd is "replicatord tail".
type tailCmd struct {
	URLs []string `arg:"" name:"url" help:"Where a node listens for the exchange: host:port (its wan_port) or a URL. Several are tried in order."`

	DB   []int    `name:"db" placeholder:"N" help:"Only changes in these databases."`
	Keys []string `sep:"none" placeholder:"PATTERN" help:"Only changes of keys that fit one of these patterns, as for KEYS. Repeatable."`
	Lane []string `placeholder:"LANE" help:"Only changes in these lanes: realtime, high, low, idle."`

	Config     string   `short:"c" placeholder:"FILE" help:"Configuration file that has the cluster, the secret and [tls]: that of a node will do."`
	Cluster    string   `placeholder:"NAME" help:"Cluster of the node. Default: replicatord."`
	SecretFile string   `placeholder:"FILE" help:"File with the secret that all members share, or their wan.subscriber_secret."`
	Set        []string `sep:"none" placeholder:"KEY=VALUE" help:"Any other key of the file, such as tls.ca_file=ca.crt. Repeatable."`
}

// Run prints the feed to standard output until a signal comes; what is to be told
// beside it goes to standard error.
func (c tailCmd) Run(s streams) error {
	flags := configFlags{Config: c.Config, Set: c.Set}
	var given settings
	for key, value := range map[string]string{"cluster": c.Cluster, "secret_file": c.SecretFile} {
		if value != "" {
			given = append(given, node.Setting{Key: key, Value: value})
		}
	}
	cfg, err := flags.load(given)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err = node.Tail(ctx, cfg, node.TailOptions{URLs: c.URLs, Databases: c.DB, Patterns: c.Keys, Lanes: c.Lane}, s.out, newLogger(cfg, s))
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // as asked
	}
	return err
}
