package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCmd is "replicatord version".
type versionCmd struct{}

// Run prints one line: version, commit, Go version and platform.
func (versionCmd) Run(s streams) error {
	info, _ := debug.ReadBuildInfo()
	_, err := fmt.Fprintln(s.out, versionLine(info))
	return err
}

// versionLine renders what the build recorded. A build outside a checkout has
// no commit, and one from a checkout no version.
func versionLine(info *debug.BuildInfo) string {
	version, commit, dirty := "(devel)", "", ""
	if info != nil {
		if info.Main.Version != "" {
			version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = " " + s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "+changes"
			}
		}
	}
	return fmt.Sprintf("replicatord %s%s%s %s %s/%s", version, commit, dirty, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
