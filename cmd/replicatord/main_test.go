package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicatord/replicatord/node"
)

// The test binary is the command when this is set, so that exit codes and
// streams are those of a real process.
const beCommand = "REPLICATORD_TEST_BE_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(beCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command runs the program in dir.
func command(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(exe, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	cmd.Env = append(os.Environ(), beCommand+"=1", "GORACE=atexit_sleep_ms=0") // a second per process otherwise
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestHelpTeaches(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}, {"--port", "9002", "--help"}} {
		stdout, stderr, code := command(t, t.TempDir(), args...)
		if code != exitOK || stderr != "" {
			t.Errorf("%v: code %d, stderr %q", args, code, stderr)
		}
		for _, want := range []string{
			"replicatord --port 9001 &", "meet 127.0.0.1:9001", "--redis 127.0.0.1:6379",
			"check-config", "oplog", "version", "Exit codes:", "--fsync", "--secret-file", "--adopt",
		} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%v: help does not say %q", args, want)
			}
		}
	}
	for _, args := range [][]string{{"version", "--help"}, {"oplog", "dump", "-h"}, {"check-config", "--help"}} {
		stdout, _, code := command(t, t.TempDir(), args...)
		if code != exitOK || strings.Contains(stdout, "Exit codes:") || strings.Count(stdout, "Usage:") != 1 {
			t.Errorf("%v: code %d, not the help of one command:\n%s", args, code, stdout)
		}
	}
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good.toml"), "node_id = 3\nport = 9004\n[wan]\nwindow = \"16mb\"\n")
	write(t, filepath.Join(dir, "bad.toml"), "id = 5000\nprot = 1\nbind = \"0.0.0.0\"\nrequirepass = \"hunter2hunter2\"\n")
	tests := []struct {
		name   string
		args   string
		code   int
		stdout string // a part of each
		stderr string
	}{
		{"defaults", "check-config", exitOK, "OK: no faults", ""},
		{"argument", "check-config good.toml", exitOK, "data-9004", ""},
		{"-c", "check-config -c good.toml", exitOK, "16mb", ""},
		{"flag wins", "check-config good.toml --port 9005", exitOK, "data-9005", ""},
		{"set", "check-config --set wan.window=32mb", exitOK, "32mb", ""},
		{"adopt", "check-config --adopt --no-protected-mode --meet a:1,b:2 --meet c:3", exitOK, "a:1,b:2,c:3", ""},
		{"faults", "check-config bad.toml", exitUsage, "", "bad.toml:1: id: 5000 is outside 1 to 4095\nbad.toml:2: prot: unknown key: did you mean port?\nbad.toml:3: bind: "},
		{"faults stop a run", "bad.toml", exitUsage, "", "replicatord: 3 faults in the configuration\n"},
		{"fault of a flag", "--port 99999", exitUsage, "", "--port: 99999 is outside 1 to 65535\nreplicatord: 1 fault in"},
		{"set without =", "check-config --set wan", exitUsage, "", `--set: "wan" is not key=value`},
		{"two files", "check-config -c good.toml good.toml", exitUsage, "", "--config: the file is also given as an argument"},
		{"no such file", "check-config none.toml", exitUsage, "", "open none.toml: no such file"},
		{"no such command", "stats", exitUsage, "", `"stats" is neither a command (run, check-config, tail, version, oplog) nor a file`},
		{"no such flag", "--fsnc=no", exitUsage, "", `did you mean "--fsync"?`},
		{"version", "version", exitOK, "replicatord ", ""},
		{"oplog without directory", "oplog dump", exitUsage, "", "<dir>"},
		{"oplog of nothing", "oplog verify none", exitUsage, "", "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := command(t, dir, strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("code %d, want %d\nstdout: %s\nstderr: %s", code, tt.code, stdout, stderr)
			}
			if strings.Contains(stdout+stderr, "hunter2") {
				t.Error("the password is shown")
			}
			if (code == exitOK) != (stderr == "") {
				t.Errorf("stderr %q with code %d", stderr, code)
			}
		})
	}
}

// TestFlagsAreKeys keeps flags and keys from drifting apart: whatever flag is
// added is a key of the configuration, unless its tag says notakey.
func TestFlagsAreKeys(t *testing.T) {
	values := map[string]string{
		"id": "7", "bind": "127.0.0.2", "port": "7001", "gossip-port": "7002", "wan-port": "7003", "redis": "unix:///tmp/r.sock",
		"meet": "h:1", "secret-file": "s", "requirepass-file": "s", "max-clock-skew": "3s", "fsync": "no", "metrics": "h:2",
		"log-level": "warn", "log-format": "json", "alias": "x", "region": "x", "cluster": "x", "dir": "x", "advertise": "x", "redis-binary": "x",
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "s"), "0123456789abcdef\n")
	args := []string{"check-config", "--adopt", "--protected-mode"}
	for name, value := range values {
		args = append(args, "--"+name+"="+value)
	}
	stdout, stderr, code := command(t, dir, args...)
	if code != exitOK {
		t.Fatalf("code %d: %s", code, stderr)
	}
	got := map[string]string{}
	for line := range strings.Lines(stdout) {
		if f := strings.Fields(line); len(f) == 2 {
			got[f[0]] = f[1]
		}
	}
	for name, value := range values {
		if key := strings.ReplaceAll(name, "-", "_"); got[key] != value {
			t.Errorf("--%s %s: %s = %q", name, value, key, got[key])
		}
	}
	help, _, _ := command(t, dir, "check-config", "--help")
	for line := range strings.Lines(help) {
		_, flag, ok := strings.Cut(line, "  --")
		if !ok {
			continue
		}
		flag = strings.TrimPrefix(strings.FieldsFunc(flag, func(r rune) bool { return r == '=' || r == ' ' || r == '\n' })[0], "[no-]")
		if _, known := values[flag]; !known && flag != "set" && flag != "adopt" && flag != "protected-mode" {
			t.Errorf("--%s is not tried here", flag)
		}
	}
}

func TestVersionLine(t *testing.T) {
	info := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.modified", Value: "true"}}}
	info.Main.Version = "v1.2.3"
	if got, want := versionLine(info), "replicatord v1.2.3 0123456789ab+changes go"; !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q…", got, want)
	}
	if got, want := versionLine(nil), "replicatord (devel) go"; !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q…", got, want)
	}
}

// scriptedNode is a node whose end is scripted.
type scriptedNode struct {
	ready    chan struct{} // closed when serving
	done     chan struct{}
	err      error
	stopErr  error
	stopHang bool
	stop     chan struct{} // if not nil, Stop waits for its end
}

func (n *scriptedNode) Banner() string {
	close(n.ready)
	return "scripted node is ready"
}

func (n *scriptedNode) Done() <-chan struct{} { return n.done }
func (n *scriptedNode) Err() error            { return n.err }
func (n *scriptedNode) Stop(ctx context.Context) error {
	if n.stopHang {
		<-ctx.Done()
		return ctx.Err()
	}
	if n.stop != nil {
		<-n.stop
	}
	return n.stopErr
}

func TestSignals(t *testing.T) {
	broken := errors.New("disk full")
	ended := make(chan struct{})
	close(ended)
	open := make(chan struct{})
	hangUntilCancelled := func(ctx context.Context, _ node.Config, _ *slog.Logger) (runningNode, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	hangForever := func(context.Context, node.Config, *slog.Logger) (runningNode, error) { select {} }
	tests := []struct {
		name    string
		start   starter // nil: it succeeds with node
		node    scriptedNode
		signals []os.Signal
		err     error
		code    int // 0: err is not an exitError
		log     string
	}{
		{"one signal stops in order", nil, scriptedNode{done: open}, []os.Signal{syscall.SIGTERM}, nil, 0, "msg=stopped"},
		{"a failing stop is a failure", nil, scriptedNode{done: open, stopErr: broken}, []os.Signal{os.Interrupt}, broken, 0, "signal=interrupt"},
		{"a second signal does not wait", nil, scriptedNode{done: open, stopHang: true}, []os.Signal{syscall.SIGTERM, os.Interrupt}, nil, exitSignal + 2, "msg=stopping"},
		{"a node that was told to end", nil, scriptedNode{done: ended}, nil, nil, 0, "scripted node is ready"},
		{"a node that failed", nil, scriptedNode{done: ended, err: broken}, nil, broken, 0, "scripted node is ready"},
		{"signal while starting", hangUntilCancelled, scriptedNode{}, []os.Signal{syscall.SIGTERM}, nil, 0, "before the start was complete"},
		{"two signals while starting", hangForever, scriptedNode{}, []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, nil, exitSignal + 15, "before the start was complete"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var logged bytes.Buffer
			logger := newLogger(node.DefaultConfig(), streams{err: &logged})
			signals := make(chan os.Signal)
			result := make(chan error, 1)
			starting := make(chan struct{}) // closed when the start is under way, or complete where it ever is
			go func() {
				result <- serve(node.DefaultConfig(), logger, signals, func(ctx context.Context, cfg node.Config, l *slog.Logger) (runningNode, error) {
					if tt.start != nil {
						close(starting)
						return tt.start(ctx, cfg, l)
					}
					tt.node.ready = starting
					return &tt.node, nil
				}, 0)
			}()
			<-starting
			for _, s := range tt.signals {
				select {
				case signals <- s:
				case <-time.After(10 * time.Second):
					t.Fatalf("signal %v was not received", s)
				}
			}
			select {
			case err := <-result:
				var exit exitError
				if tt.code != 0 {
					if !errors.As(err, &exit) || exit.code != tt.code {
						t.Errorf("error %v, want exit code %d", err, tt.code)
					}
				} else if !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("did not end")
			}
			if !strings.Contains(logged.String(), tt.log) {
				t.Errorf("logged %q, want %q", logged.String(), tt.log)
			}
		})
	}
}

// timeout(1) and terminals send a signal to the process and to its group: the
// second of the two must not cut the orderly stop short.
func TestSignalDeliveredTwice(t *testing.T) {
	n := &scriptedNode{ready: make(chan struct{}), done: make(chan struct{}), stop: make(chan struct{})}
	signals := make(chan os.Signal)
	result := make(chan error, 1)
	go func() {
		result <- serve(node.DefaultConfig(), slog.New(slog.DiscardHandler), signals, func(context.Context, node.Config, *slog.Logger) (runningNode, error) {
			return n, nil
		}, time.Hour)
	}()
	<-n.ready
	for range 3 {
		select {
		case signals <- syscall.SIGTERM:
		case err := <-result:
			t.Fatalf("ended before the stop was complete: %v", err)
		}
	}
	close(n.stop)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
