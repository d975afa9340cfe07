//go:build !unix

package oplog

import "github.com/cockroachdb/pebble/v2/vfs"

// fingerprint knows nothing to tell a file from its copies by.
func fingerprint(vfs.FileInfo) string { return "" }
