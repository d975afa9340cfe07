package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/replicatord/replicatord/node"
)

// stopTimeout bounds an orderly stop. Everything acknowledged is safe without
// one; what it waits for is only the good manners: last flush, leave, farewell.
const stopTimeout = 30 * time.Second

// sameSignal is how long after the signal that stops the node further ones are
// taken to be the same: timeout(1) and terminals signal a process and its
// group, and so deliver one wish twice.
const sameSignal = time.Second

// gcPercent lets garbage grow to twice of what is in use, most of which is
// caches of fixed size: half as much collecting as Go's default of 100.
const gcPercent = 200

// runCmd is "replicatord run", the default command.
type runCmd struct{ configFlags }

// Run runs a node until it is told to stop or fails.
func (c runCmd) Run(s streams, given settings) error {
	cfg, err := c.load(given)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	return serve(cfg, newLogger(cfg, s), signals, startNode, sameSignal)
}

// newLogger logs to standard error: time to the millisecond, no source, no level of
// detail that was not asked for.
func newLogger(cfg node.Config, s streams) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Level()}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(s.err, opts))
	}
	opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			a.Value = slog.StringValue(a.Value.Time().Format("2006-01-02T15:04:05.000Z07:00"))
		}
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(err.Error()) // "%+v", the handler's own way, prints stacks
		}
		return a
	}
	return slog.New(slog.NewTextHandler(s.err, opts))
}

// runningNode is what the command needs of a node that was started.
type runningNode interface {
	// Banner says in one line what runs, where it listens and which view it uses.
	Banner() string
	// Done is closed when the node has ended, for whatever reason.
	Done() <-chan struct{}
	// Err says why it ended; nil if it was asked to.
	Err() error
	// Stop ends the node in order. It is called once.
	Stop(context.Context) error
}

// starter starts a node; cancelling the context abandons a start under way.
type starter func(context.Context, node.Config, *slog.Logger) (runningNode, error)

// serve runs one node: the first signal stops it in order, whether it is
// serving or still starting; another, later than same after it, ends it at once.
func serve(cfg node.Config, logger *slog.Logger, signals <-chan os.Signal, start starter, same time.Duration) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	type result struct {
		node runningNode
		err  error
	}
	started := make(chan result, 1)
	go func() {
		n, err := start(ctx, cfg, logger)
		started <- result{n, err}
	}()
	var r result
	var deaf time.Time // signals until then repeat the first
	stopping := false
	select {
	case r = <-started:
	case <-signals:
		stopping = true
		deaf = time.Now().Add(same)
		logger.Info("stopping before the start was complete")
		cancel()
		var second os.Signal
		if r, second = orSignal(started, signals, deaf); second != nil {
			return abort(second)
		}
	}
	switch {
	case r.err != nil && stopping && errors.Is(r.err, context.Canceled):
		return nil
	case r.err != nil:
		return r.err
	}

	if !stopping {
		logger.Info(r.node.Banner())
		select {
		case <-r.node.Done():
			return r.node.Err()
		case first := <-signals:
			deaf = time.Now().Add(same)
			logger.Info("stopping", "signal", first.String())
		}
	}
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		stopped <- r.node.Stop(ctx)
	}()
	err, second := orSignal(stopped, signals, deaf)
	switch {
	case second != nil:
		return abort(second)
	case err != nil:
		return fmt.Errorf("stopping: %w", err)
	}
	logger.Info("stopped")
	return nil
}

// orSignal returns what comes from c, or else the first signal that comes when
// deaf has passed.
func orSignal[T any](c <-chan T, signals <-chan os.Signal, deaf time.Time) (v T, s os.Signal) {
	for {
		select {
		case v = <-c:
			return v, nil
		case s = <-signals:
			if !time.Now().Before(deaf) {
				return v, s
			}
		}
	}
}

// abort is the end by a second signal.
func abort(s os.Signal) error {
	code := exitSignal
	if n, ok := s.(syscall.Signal); ok {
		code += int(n)
	}
	return exitError{code: code, err: fmt.Errorf("ended at once by a second signal (%v)", s)}
}
