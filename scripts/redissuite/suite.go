package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

var errStopped = errors.New("stopped")

// suite runs units of one copy of the tests.
type suite struct {
	node, redis  string
	nodeArgs     []string
	limit, stall time.Duration
	only, keep   string
	tail         bool
	dir          string // the copy
	stop         chan struct{}
}

// prepare copies what the suite needs of the sources of Redis.
func (s *suite) prepare(source string) (err error) {
	if _, err := os.Stat(filepath.Join(source, "tests/test_helper.tcl")); err != nil {
		return fmt.Errorf("no sources of Redis: %w", err)
	}
	if s.redis, err = exec.LookPath(s.redis); err != nil {
		return err
	}
	version, err := exec.Command(s.redis, "--version").Output()
	if err != nil {
		return err
	}
	if !strings.Contains(string(version), "v=7.0.") {
		fmt.Printf("The suite of Redis 7.0 is compared with another version: %s", version)
	}
	if s.dir, err = os.MkdirTemp("", "redissuite"); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(s.dir, "tests"), os.DirFS(filepath.Join(source, "tests"))); err != nil {
		return err
	}
	for _, d := range []string{"src", "tests/tmp"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return err
		}
	}
	if s.tail {
		// Every unit begins with FUNCTION FLUSH.
		path := filepath.Join(s.dir, "tests/support/server.tcl")
		text, err := os.ReadFile(path)
		if err == nil {
			text = bytes.Replace(text, []byte("    r function flush\n"), []byte("    catch {r function flush}\n"), 1)
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return os.Symlink(s.redis, filepath.Join(s.dir, "src/redis-server"))
}

// server is a redis-server or a node with a directory of its own.
type server struct {
	cmd  *exec.Cmd
	port int
	dir  string
	done chan struct{}
}

func (s *suite) start(node bool) (*server, error) {
	dir, err := os.MkdirTemp(s.dir, "server")
	if err != nil {
		return nil, err
	}
	srv := &server{port: testbed.FreePort(), dir: dir, done: make(chan struct{})}
	// Redis's own CI starts the server of the external mode so.
	srv.cmd = exec.Command(s.redis, "--port", strconv.Itoa(srv.port), "--dir", dir, "--save", "",
		"--enable-debug-command", "yes", "--enable-protected-configs", "yes", "--enable-module-command", "yes")
	if node {
		srv.cmd = exec.Command(s.node, append([]string{"--id", "1", "--port", strconv.Itoa(srv.port),
			"--gossip-port", strconv.Itoa(testbed.FreePort()), "--wan-port", strconv.Itoa(testbed.FreePort()),
			"--dir", filepath.Join(dir, "data"), "--redis", "spawn", "--set", "enable_debug_command=yes"}, s.nodeArgs...)...)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	srv.cmd.Dir, srv.cmd.Stdout, srv.cmd.Stderr = dir, log, log
	if err := srv.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = srv.cmd.Wait()
		close(srv.done)
	}()
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if srv.serves() {
			return srv, nil
		}
		if srv.ended() {
			break
		}
	}
	srv.end()
	text, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("%s does not serve:\n%s", srv.cmd.Path, text)
}

func (srv *server) serves() bool {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(srv.port)), time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(conn, "EXISTS x\r\n")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.HasPrefix(line, ":")
}

func (srv *server) ended() bool {
	select {
	case <-srv.done:
		return true
	default:
		return false
	}
}

func (srv *server) end() {
	_ = srv.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-srv.done:
	case <-time.After(20 * time.Second):
		_ = srv.cmd.Process.Kill()
		<-srv.done
	}
}

// runPlain runs a unit on plain Redis. Tests that need the server's process, as
// no server has in the external mode, fail and leave their settings to those that
// follow: the unit runs again without them.
func (s *suite) runPlain(unit string) (result, error) {
	res, err := s.runOnce(unit, false, nil)
	var skip []string
	for _, f := range res.Failed {
		if strings.Contains(f.Message, `key "pid" not known`) {
			skip = append(skip, f.Name)
		}
	}
	if len(skip) > 0 && err == nil {
		res, err = s.runOnce(unit, false, skip)
		res.Skipped = skip
	}
	return res, err
}

// runNode runs a unit on a node, as plain Redis ran it, without the tests that
// are left out. With tail it continues after a test that ended it.
func (s *suite) runNode(unit string, plain result, leftOut []string) (result, error) {
	var res result
	skip := slices.Concat(plain.Skipped, leftOut)
	for tries := 0; ; tries++ {
		r, err := s.runOnce(unit, true, skip)
		if err != nil {
			return res, err
		}
		if len(r.Passed)+len(r.Failed) >= len(res.Passed)+len(res.Failed) {
			r.Failed = append(r.Failed, res.endings()...)
			res = r
		}
		if !s.tail || r.Ended == "" || r.Last == "" || tries == 40 {
			return res, nil
		}
		skip = append(skip, r.Last)
	}
}

func (s *suite) runOnce(unit string, node bool, skip []string) (result, error) {
	srv, err := s.start(node)
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(srv.dir)
	defer srv.end()
	args := []string{"tests/test_helper.tcl", "--host", "127.0.0.1", "--port", strconv.Itoa(srv.port),
		"--single", "unit/" + unit, "--baseport", strconv.Itoa(testbed.FreePort()), "--durable",
		"--timeout", strconv.Itoa(int(s.stall.Seconds()))}
	if s.only != "" {
		args = append(args, "--only", s.only)
	}
	for _, t := range skip {
		args = append(args, "--skiptest", t)
	}
	cmd := exec.Command("tclsh", args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "TERM=dumb", "LANG=C.UTF-8")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its output tells how it went
		close(done)
	}()
	var over string
	select {
	case <-done:
	case <-s.stop:
		err = errStopped
	case <-srv.done:
		over = "the server ended"
	case <-time.After(s.limit):
		over = fmt.Sprintf("not done after %v", s.limit)
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if err != nil || over != "" {
		<-done
	}
	if err != nil {
		return result{}, err
	}
	if s.keep != "" {
		s.keepFiles(unit, node, out.Bytes(), filepath.Join(srv.dir, "log"))
	}
	res := parse(&out)
	if over != "" {
		res.Ended = over
	}
	return res, nil
}

func (s *suite) keepFiles(unit string, node bool, out []byte, log string) {
	name := filepath.Join(s.keep, strings.ReplaceAll(unit, "/", "-"))
	if node {
		name += ".node"
	}
	text, err := os.ReadFile(log)
	if err == nil {
		err = os.WriteFile(name+".log", text, 0o600)
	}
	if err == nil {
		err = os.WriteFile(name+".out", out, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "redissuite:", err)
	}
}

// result is what became of a unit.
type result struct {
	Passed  []string  `json:"passed"`
	Failed  []failure `json:"failed,omitempty"`
	Ended   string    `json:"ended,omitempty"`   // why it ended early
	Last    string    `json:"last,omitempty"`    // the test in which it did
	Skipped []string  `json:"skipped,omitempty"` // what the external mode cannot run
}

// failure is a test that failed.
type failure struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

// endings is the test in which a unit ended, as a failure.
func (r result) endings() []failure {
	if r.Ended == "" || r.Last == "" {
		return nil
	}
	return []failure{{r.Last, r.Ended}}
}

var (
	color      = regexp.MustCompile("\x1b\\[[0-9;]*m")
	elapsed    = regexp.MustCompile(` \([0-9]+ ms\)$`)
	statusLine = regexp.MustCompile(`^\[(ok|err|exception|skip|ignore|ready|TIMEOUT|[0-9]+/[0-9]+ done)\]: ?(.*)$`)
	inProgress = regexp.MustCompile(`^sock\S+ => \(IN PROGRESS\) (.*)$`)
	whichTest  = regexp.MustCompile(`(?s)"test (\{.*?\}|"[^\n]*?"|\S+) `)
)

// parse reads the output of the suite. A unit that says at no point that it is
// done has ended early.
func parse(r io.Reader) result {
	var res result
	done := false
	var status, text string
	flush := func() {
		switch {
		case status == "ok":
			res.Passed = append(res.Passed, elapsed.ReplaceAllString(text, ""))
		case status == "err":
			res.Failed = append(res.Failed, failureOf(text))
		case status == "exception":
			res.Ended = strings.TrimSpace(text)
			if m := whichTest.FindStringSubmatch(text); m != nil {
				res.Last = strings.Trim(m[1], `{}"`)
			}
		case status == "TIMEOUT":
			res.Ended = "no progress"
		case strings.HasSuffix(status, "done"):
			done = true
		}
		status, text = "", ""
	}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		line = color.ReplaceAllString(strings.TrimSuffix(line, "\n"), "")
		if m := statusLine.FindStringSubmatch(line); m != nil {
			flush()
			status, text = m[1], m[2]
		} else if m := inProgress.FindStringSubmatch(line); m != nil {
			res.Last = m[1]
		} else if strings.HasPrefix(line, "Testing solo test") || strings.TrimSpace(line) == "The End" {
			flush()
		} else if status != "" && (line != "" || err == nil) {
			text += "\n" + line
		}
		if err != nil {
			break
		}
	}
	flush()
	if !done && res.Ended == "" {
		res.Ended = "the suite ended without a word"
	}
	return res
}

// failureOf takes a report apart: "name in file", message, trace.
func failureOf(text string) failure {
	name, message, _ := strings.Cut(text, "\n")
	if at := strings.LastIndex(name, " in tests/"); at >= 0 {
		name = name[:at]
	}
	lines := strings.Split(message, "\n")
	// An error that is no failed assertion comes with ten bytes cut off, and again
	// whole at the head of its trace.
	if len(lines) > 1 && len(lines[1]) == len(lines[0])+10 && strings.HasSuffix(lines[1], lines[0]) {
		message = strings.Join(lines[1:], "\n")
	}
	return failure{name, strings.TrimSpace(message)}
}
