package resp

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// residentBytes returns the process's resident memory, or fallback.
func residentBytes(fallback int64) int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return fallback
	}
	var total, resident int64
	if _, err := fmt.Sscan(string(b), &total, &resident); err != nil {
		return fallback
	}
	return resident * int64(os.Getpagesize())
}

// systemMemory returns the machine's memory in bytes, 0 if unknown.
func systemMemory() int64 {
	var si syscall.Sysinfo_t
	if syscall.Sysinfo(&si) != nil {
		return 0
	}
	return int64(si.Totalram) * int64(si.Unit)
}

func infoCPU(sec *Section) {
	for _, who := range []struct {
		which int
		name  string
	}{{syscall.RUSAGE_SELF, ""}, {syscall.RUSAGE_CHILDREN, "_children"}} {
		var ru syscall.Rusage
		if syscall.Getrusage(who.which, &ru) != nil {
			continue
		}
		seconds := func(t syscall.Timeval) string {
			return fmt.Sprintf("%.6f", time.Duration(t.Nano()).Seconds())
		}
		sec.Add("used_cpu_sys"+who.name, seconds(ru.Stime))
		sec.Add("used_cpu_user"+who.name, seconds(ru.Utime))
	}
}
