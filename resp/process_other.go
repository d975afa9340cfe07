//go:build !linux

package resp

// residentBytes returns fallback: only Linux tells.
func residentBytes(fallback int64) int64 { return fallback }

// systemMemory returns 0, for unknown.
func systemMemory() int64 { return 0 }

// infoCPU adds nothing: only Linux tells.
func infoCPU(*Section) {}
