//go:build unix

package socket

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// pair returns the two ends of a connection over a network, each wrapped.
func pair(network string) nettest.MakePipe {
	return func() (a, b net.Conn, stop func(), err error) {
		dir, err := os.MkdirTemp("", "socket") // paths of sockets are short
		if err != nil {
			return nil, nil, nil, err
		}
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(dir, "s")
		}
		l, err := net.Listen(network, address)
		if err != nil {
			return nil, nil, nil, err
		}
		defer func() { _ = l.Close() }()
		if a, err = net.Dial(network, l.Addr().String()); err != nil {
			return nil, nil, nil, err
		}
		if b, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		a, b = Wrap(a), Wrap(b)
		return a, b, func() { _, _, _ = a.Close(), b.Close(), os.RemoveAll(dir) }, nil
	}
}

// A wrapped connection does all that is asked of one: deadlines past, present and
// future, use by several goroutines, closing while others wait.
func TestConn(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) { nettest.TestConn(t, pair(network)) })
	}
}

// What does not fit into the socket's buffers waits for the reader, and comes whole.
func TestLargeWrite(t *testing.T) {
	a, b, stop, err := pair("tcp")()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	wrote := make(chan error, 1)
	go func() {
		n, err := a.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		wrote <- err
		_ = a.Close()
	}()
	time.Sleep(50 * time.Millisecond) // the buffers are full
	got, err := io.ReadAll(b)
	if err := errors.Join(err, <-wrote); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came of %d, or others", len(got), len(sent))
	}
}

// Errors are those of net's own connections.
func TestErrors(t *testing.T) {
	a, b, stop, err := pair("tcp")()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := a.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err = a.Read(make([]byte, 1))
	var op *net.OpError
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &op) || op.Op != "read" || !op.Timeout() {
		t.Errorf("past the deadline: %v", err)
	}
	if err := b.(*conn).Conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = b.Close() // with a reset
	_ = a.SetReadDeadline(time.Time{})
	if _, err = a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Addr == nil {
		t.Errorf("after a reset: %v", err)
	}
	if _, err = a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("written after a reset: %v", err)
	}
	_ = a.Close()
	if _, err = a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after closing: %v", err)
	}
	if _, err = a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("written after closing: %v", err)
	}
}

// One end may say that it has no more, and still be told.
func TestHalfClose(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		a, b, stop, err := pair(network)()
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		if err := a.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, not the end", network, err)
		}
		if _, err := b.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("%s: read %d, %v", network, n, err)
		}
	}
}

// What is no socket itself stays what it is.
func TestNoSocket(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if Wrap(a) != a {
		t.Error("a pipe was wrapped")
	}
	if c := tls.Client(a, &tls.Config{ServerName: "x", MinVersion: tls.VersionTLS13}); Wrap(c) != net.Conn(c) {
		t.Error("a TLS connection was wrapped")
	}
}
