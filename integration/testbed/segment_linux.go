package testbed

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Segment returns a network in which each node is in a network namespace of its
// own, with one interface, and this process is the router between them: what
// delays, loses, limits and cuts does so to packets, and TCP and QUIC find out
// for themselves. congestion names TCP's way to do so, "" for this machine's. The
// error says why there can be none here.
func (b *Bed) Segment(congestion string) (*Network, error) {
	s, err := newStack(1, congestion)
	if err != nil {
		return nil, fmt.Errorf("network namespaces: %w (needs Linux, CAP_NET_ADMIN and CAP_SYS_ADMIN, and /dev/net/tun)", err)
	}
	s.close()
	w := b.Network()
	w.congestion, w.stacks, w.ways = congestion, map[int]*stack{}, map[[2]int]chan piece{}
	return w, nil
}

// stack is a network namespace and the router's end of its interface.
type stack struct {
	ns  *os.File
	tun *os.File
	ip  string
}

// attach gives a node a stack of its own.
func (w *Network) attach(n *Node) {
	w.bed.Helper()
	s, err := newStack(n.ID, w.congestion)
	if err != nil {
		w.bed.Fatalf("network namespace of node %d: %v", n.ID, err)
	}
	w.bed.Cleanup(s.close)
	w.mu.Lock()
	w.stacks[n.ID], n.stack = s, s
	w.mu.Unlock()
	go w.route(n.ID, s)
}

// route passes on the packets that a node sends.
func (w *Network) route(from int, s *stack) {
	b := make([]byte, 64<<10)
	for {
		size, err := s.tun.Read(b)
		if err != nil {
			return
		}
		if size < 20 || b[0]>>4 != 4 {
			continue // not IPv4
		}
		to := int(b[19]) // the last byte of the receiver's address is its id
		w.mu.Lock()
		target := w.stacks[to]
		w.mu.Unlock()
		if target == nil || to == from {
			continue
		}
		lost, wait := w.path(from, to).admit(size, true)
		if lost {
			continue
		}
		select {
		case w.way(from, to, target) <- piece{append([]byte(nil), b[:size]...), time.Now().Add(wait)}:
		default: // the queue is full
		}
	}
}

// way returns the queue of the packets from one node to another. They keep their
// order.
func (w *Network) way(from, to int, target *stack) chan<- piece {
	w.mu.Lock()
	defer w.mu.Unlock()
	way := w.ways[[2]int{from, to}]
	if way == nil {
		way = make(chan piece, 4096)
		w.ways[[2]int{from, to}] = way
		end := make(chan struct{})
		w.bed.Cleanup(func() { close(end) })
		go func() {
			for {
				select {
				case x := <-way:
					sleepUntil(x.due)
					_, _ = target.tun.Write(x.b)
				case <-end:
					return
				}
			}
		}()
	}
	return way
}

// newStack makes a namespace with an interface.
func newStack(id int, congestion string) (s *stack, err error) {
	s = &stack{ip: fmt.Sprint("10.77.0.", id)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	err = outside(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		var err error
		if s.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("/dev/net/tun: %w", err)
		}
		if congestion != "" {
			if err := os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte(congestion), 0o644); err != nil {
				return err
			}
		}
		const name = "wan0"
		ifr, err := unix.NewIfreq(name)
		if err == nil {
			ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
		s.tun = os.NewFile(uintptr(fd), name) // only now can it be waited for
		if err != nil {
			return fmt.Errorf("TUNSETIFF: %w", err)
		}
		return configure(name, s.ip)
	})
	return s, err
}

// configure sets up the interfaces of the thread's namespace.
func configure(name, ip string) error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(sock) }()
	up := func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }
	address := func(ip net.IP) func(*unix.Ifreq) error {
		return func(r *unix.Ifreq) error { return r.SetInet4Addr(ip.To4()) }
	}
	mask := binary.BigEndian.AppendUint32(nil, 0xffffff00)
	for _, step := range []struct {
		name    string
		request uint
		set     func(*unix.Ifreq) error
	}{
		{"lo", unix.SIOCSIFFLAGS, up},
		{name, unix.SIOCSIFADDR, address(net.ParseIP(ip))},
		{name, unix.SIOCSIFNETMASK, address(mask)},
		{name, unix.SIOCSIFFLAGS, up},
	} {
		ifr, err := unix.NewIfreq(step.name)
		if err == nil {
			err = step.set(ifr)
		}
		if err == nil {
			err = unix.IoctlIfreq(sock, step.request, ifr)
		}
		if err != nil {
			return fmt.Errorf("interface %s, request %#x: %w", step.name, step.request, err)
		}
	}
	return nil
}

// outside calls fn on a thread that enter has brought into another namespace, and
// brings it back. It must not end before: that would be the end of the processes
// it has ever started.
func outside(enter, fn func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := enter(); err != nil {
		return fmt.Errorf("entering one: %w", err)
	}
	err = fn()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("testbed: a thread is lost in a network namespace: %v", back))
	}
	return err
}

// in calls fn with a thread in the namespace: what it opens or starts is there.
func (s *stack) in(fn func() error) error {
	if s == nil {
		return fn()
	}
	return outside(func() error { return unix.Setns(int(s.ns.Fd()), unix.CLONE_NEWNET) }, fn)
}

// dial connects to an IP address from within the namespace.
func (s *stack) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = s.in(func() error {
		d := net.Dialer{Timeout: 2 * time.Second}
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

func (s *stack) close() {
	for _, f := range []*os.File{s.ns, s.tun} {
		if f != nil {
			_ = f.Close()
		}
	}
}
