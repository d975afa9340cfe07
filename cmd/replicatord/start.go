package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/replicatord/replicatord/node"
)

// startNode is the starter of every build.
func startNode(context.Context, node.Config, *slog.Logger) (runningNode, error) {
	return nil, errors.New("this build contains no node: it can only check configurations")
}
