package testbed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

const tailLines = 60

// Process is a program that can be started again and again, with one log.
type Process struct {
	bed  *Bed
	name string
	args func() []string // program first
	dir  string
	env  []string
	log  string

	stack *stack // nil: the machine's

	pid    atomic.Int64 // of the latest start; 0 before
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// process registers a process; it ends with the test, and tells its log if the
// test has failed.
func (b *Bed) process(name, dir string, args func() []string) *Process {
	p := &Process{bed: b, name: name, args: args, dir: dir, log: filepath.Join(dir, name+".log")}
	b.mu.Lock()
	b.procs = append(b.procs, p)
	b.mu.Unlock()
	b.Cleanup(func() {
		if dir := os.Getenv(EnvKeep); dir != "" && b.Failed() {
			p.keep(dir)
		}
		p.kill()
		if b.Failed() {
			b.Logf("--- log of %s, last lines:\n%s", name, tailOf(p.log, tailLines))
		}
	})
	return p
}

// Other starts another program, in a directory of its own.
func (b *Bed) Other(path string, args ...string) *Process {
	b.Helper()
	p := b.process(filepath.Base(path), b.TempDir(), func() []string { return append([]string{path}, args...) })
	if err := p.start(); err != nil {
		b.Fatalf("%v", err)
	}
	return p
}

// Running reports whether it runs.
func (p *Process) Running() bool { return p.running() }

// Kill ends it with kill -9.
func (p *Process) Kill() { p.kill() }

// PID is the id of the process that runs, or of the last that did.
func (p *Process) PID() int { return int(p.pid.Load()) }

// start starts the process.
func (p *Process) start() error {
	if p.running() {
		return fmt.Errorf("%s runs already", p.name)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := p.args()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = endWithParent()
	if err := p.stack.in(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	p.pid.Store(int64(cmd.Process.Pid))
	go func() {
		p.err = cmd.Wait()
		close(exited)
	}()
	return nil
}

// running reports whether the process runs.
func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// signal sends a signal if the process runs.
func (p *Process) signal(s syscall.Signal) {
	if p.running() {
		_ = p.cmd.Process.Signal(s)
	}
}

// wait waits for the process to end and returns its exit code.
func (p *Process) wait(limit time.Duration) (int, error) {
	select {
	case <-p.exited:
	case <-time.After(limit):
		return 0, fmt.Errorf("%s has not ended within %v", p.name, limit)
	}
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return 0, nil
	case errors.As(p.err, &exit):
		return exit.ExitCode(), nil
	}
	return 0, p.err
}

// kill ends the process with SIGKILL and waits for it.
func (p *Process) kill() {
	if !p.running() {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// keep copies the log to a directory; a program in Go is first made to print the
// stacks of its goroutines.
func (p *Process) keep(dir string) {
	if p.running() {
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGQUIT)
		_, _ = p.wait(5 * time.Second)
	}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = copyFile(p.log, filepath.Join(dir, fmt.Sprintf("%s-%d.log", p.name, p.pid.Load())))
	}
	if err != nil {
		p.bed.Logf("%v", err)
	}
}

// Log returns everything the process has printed.
func (p *Process) Log() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

// LogSize returns a mark for LogSince.
func (p *Process) LogSize() int64 {
	info, err := os.Stat(p.log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// LogSince returns what was printed after a mark.
func (p *Process) LogSince(mark int64) string {
	f, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.NewSectionReader(f, mark, 1<<30))
	return string(b)
}
