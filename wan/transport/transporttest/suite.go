// Package transporttest is what every transport has to pass.
package transporttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/replicatord/replicatord/wan/transport"
)

// Setup is one transport to test.
type Setup struct {
	Client, Server *transport.Factory
	Listen         string // a URL with port 0
	Secure         bool   // connections have a binding
}

const limit = 1 << 20

// Run tests a transport.
func Run(t *testing.T, s Setup) {
	for name, test := range map[string]func(*testing.T, Setup){
		"Frames": testFrames, "Sizes": testSizes, "Ends": testEnds, "HalfClose": testHalfClose,
		"CloseUnblocks": testCloseUnblocks, "Stalled": testStalled, "Binding": testBinding, "Refused": testRefused,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

// connect returns both ends of a connection after their handshakes.
func connect(t *testing.T, s Setup) (client, server transport.Conn) {
	t.Helper()
	l, err := s.Server.Listen(s.Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	accepted := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			server = c
			err = c.Handshake(ctx)
		}
		accepted <- err
	}()
	client, err = s.Client.Dial(ctx, l.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Handshake(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

func write(t *testing.T, c transport.Conn, channel int, frame []byte) {
	t.Helper()
	if err := c.WriteFrame(channel, frame); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// Frames of a channel arrive whole and in order, both ways at once.
func testFrames(t *testing.T, s Setup) {
	a, b := connect(t, s)
	const n = 2000
	send := func(c transport.Conn) error {
		for i := range n {
			f := bytes.Repeat([]byte{byte(i)}, 1+i*37%5000)
			if err := c.WriteFrame(i%5, append([]byte{byte(i % 5)}, f...)); err != nil {
				return err
			}
		}
		return c.Flush()
	}
	sent := make(chan error, 2)
	go func() { sent <- send(a) }()
	go func() { sent <- send(b) }()
	for _, c := range []transport.Conn{a, b} {
		next := [5]int{0, 1, 2, 3, 4}
		for range n {
			f, err := c.ReadFrame(limit)
			if err != nil {
				t.Fatal(err)
			}
			ch := int(f[0])
			i := next[ch]
			next[ch] += 5
			if want := bytes.Repeat([]byte{byte(i)}, 1+i*37%5000); !bytes.Equal(f[1:], want) {
				t.Fatalf("frame %d of channel %d is not what was sent", i, ch)
			}
		}
	}
	for range 2 {
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}

func testSizes(t *testing.T, s Setup) {
	a, b := connect(t, s)
	if err := a.WriteFrame(0, nil); !errors.Is(err, transport.ErrFrameSize) {
		t.Errorf("an empty frame: %v", err)
	}
	write(t, a, 0, []byte{7})
	if f, err := b.ReadFrame(1); err != nil || !bytes.Equal(f, []byte{7}) {
		t.Fatalf("a frame of the limit: %v, %v", f, err)
	}
	write(t, a, 0, []byte{7, 7})
	if _, err := b.ReadFrame(1); !errors.Is(err, transport.ErrFrameSize) {
		t.Errorf("a frame above the limit: %v", err)
	}
}

func testEnds(t *testing.T, s Setup) {
	a, b := connect(t, s)
	write(t, a, 0, []byte("last"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err := b.ReadFrame(limit); err != nil || string(f) != "last" {
		t.Fatalf("what was sent before the end: %q, %v", f, err)
	}
	if _, err := b.ReadFrame(limit); err == nil {
		t.Error("read after the end")
	}
}

func testHalfClose(t *testing.T, s Setup) {
	a, b := connect(t, s)
	write(t, a, 0, []byte("bye"))
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if f, err := b.ReadFrame(limit); err != nil || string(f) != "bye" {
		t.Fatalf("%q, %v", f, err)
	}
	if _, err := b.ReadFrame(limit); !errors.Is(err, io.EOF) {
		t.Errorf("orderly end: %v", err)
	}
	write(t, b, 0, []byte("answer"))
	if f, err := a.ReadFrame(limit); err != nil || string(f) != "answer" {
		t.Errorf("the other direction: %q, %v", f, err)
	}
}

func testCloseUnblocks(t *testing.T, s Setup) {
	a, _ := connect(t, s)
	ended := make(chan error, 1)
	go func() {
		_, err := a.ReadFrame(limit)
		ended <- err
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("read went on")
	}
}

// A writer whose peer does not read is blocked, and freed by Close.
func testStalled(t *testing.T, s Setup) {
	a, _ := connect(t, s)
	ended := make(chan error, 1)
	blocked := make(chan struct{})
	go func() {
		frame := make([]byte, 256<<10)
		close(blocked)
		for {
			if err := a.WriteFrame(4, frame); err != nil {
				ended <- err
				return
			}
		}
	}()
	<-blocked
	time.Sleep(50 * time.Millisecond) // long enough to fill what buffers there are
	_ = a.Close()                     // may complain that not all was sent
	if err := <-ended; err == nil {
		t.Error("write went on")
	}
}

func testBinding(t *testing.T, s Setup) {
	a, b := connect(t, s)
	c, _ := connect(t, s)
	if !s.Secure {
		if a.Binding() != nil || b.Binding() != nil {
			t.Error("an open connection has a binding")
		}
		return
	}
	if len(a.Binding()) < 16 || !bytes.Equal(a.Binding(), b.Binding()) {
		t.Errorf("bindings are %x and %x", a.Binding(), b.Binding())
	}
	if bytes.Equal(a.Binding(), c.Binding()) {
		t.Error("two connections have one binding")
	}
}

func testRefused(t *testing.T, s Setup) {
	l, err := s.Server.Listen(s.Listen)
	if err != nil {
		t.Fatal(err)
	}
	address := l.URL()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("accepted after Close")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := s.Client.Dial(ctx, address)
	if err == nil {
		// Some find out with the handshake only.
		err = c.Handshake(ctx)
		_ = c.Close()
	}
	if err == nil {
		t.Error("connected to nobody")
	}
	if _, err := s.Client.Dial(ctx, "pigeon://x"); !errors.Is(err, transport.ErrScheme) {
		t.Errorf("an unknown scheme: %v", err)
	}
}
