package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// npmInstall puts the programs and what they need into a directory of its own,
// once for all tests.
var npmInstall = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "replicatord-programs")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(dir, os.DirFS("programs")); err != nil {
		return dir, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stderr, os.Stderr
	return dir, cmd.Run()
})

// TestPrograms runs client libraries and a job queue as their users do, at two
// nodes.
func TestPrograms(t *testing.T) {
	dir, err := npmInstall()
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err != nil {
		t.Fatalf("npm ci: %v (needs Node.js 20 with npm: scripts/check installs it)", err)
	}
	for _, program := range []string{"node-redis", "ioredis", "bullmq"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			bed := testbed.New(t)
			a, b := bed.Node(testbed.Options{ID: 1}), bed.Node(testbed.Options{ID: 2})
			b.Meet(a)
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "node", filepath.Join(dir, program+".js"), "127.0.0.1", strconv.Itoa(a.Port), strconv.Itoa(b.Port))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
			bed.Level(a, b)
		})
	}
}
