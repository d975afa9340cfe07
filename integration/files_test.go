package integration

import (
	"io/fs"
	"os"
	"path/filepath"

	"github.com/replicatord/replicatord/integration/testbed"
)

// copyDir copies a data directory, without sockets.
func copyDir(bed *testbed.Bed, from, to string) {
	bed.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o600)
	})
	if err != nil {
		bed.Fatalf("copying %s: %v", from, err)
	}
}

func removeAll(bed *testbed.Bed, dir string) {
	bed.Helper()
	if err := os.RemoveAll(dir); err != nil {
		bed.Fatalf("%v", err)
	}
}
