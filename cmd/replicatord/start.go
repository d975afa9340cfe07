package main

import (
	"context"
	"log/slog"

	"github.com/replicatord/replicatord/node"
)

// startNode is the starter of every build.
func startNode(ctx context.Context, cfg node.Config, l *slog.Logger) (runningNode, error) {
	n, err := node.Start(ctx, cfg, l)
	if err != nil {
		return nil, err // not a typed nil
	}
	return n, nil
}
