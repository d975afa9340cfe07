package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/replicatord/replicatord/node"
	"github.com/replicatord/replicatord/oplog"
)

// oplogCmd is "replicatord oplog".
type oplogCmd struct {
	Dump   dumpCmd   `cmd:"" help:"Print members, vectors and every log entry, decoded, one per line."`
	Verify verifyCmd `cmd:"" help:"Check checksums, and cells, vectors and digests against each other and the log. Exit code 3 if something is wrong."`
}

type dataDir struct {
	Dir string `arg:"" type:"existingdir" help:"Data directory of a node that is not running."`
}

type dumpCmd struct{ dataDir }

// Run prints the log.
func (c dumpCmd) Run(s streams) error {
	return dumpOplog(context.Background(), c.Dir, s.out)
}

type verifyCmd struct{ dataDir }

// Run checks the store; findings go to standard output.
func (c verifyCmd) Run(s streams) error {
	err := verifyOplog(context.Background(), c.Dir, s.out)
	if errors.Is(err, errDamage) {
		return exitError{code: exitDamage, err: err}
	}
	return err
}

// errDamage is what verifyOplog returns when the store is not as it must be.
var errDamage = errors.New("the store is damaged")

// storeOf returns where a node keeps its store in its data directory.
func storeOf(dir string) string { return filepath.Join(dir, node.StoreDir) }

func dumpOplog(ctx context.Context, dir string, w io.Writer) error {
	return oplog.Dump(ctx, w, storeOf(dir), nil)
}

func verifyOplog(ctx context.Context, dir string, w io.Writer) error {
	report, err := oplog.Verify(ctx, storeOf(dir), nil)
	if err != nil {
		return err
	}
	if _, err := report.WriteTo(w); err != nil {
		return err
	}
	if len(report.Faults)+report.MoreFaults > 0 {
		return errDamage
	}
	return nil
}
