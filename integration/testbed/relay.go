package testbed

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Network relays what nodes say to each other.
type Network struct {
	bed *Bed

	mu    sync.Mutex
	nodes []*Node
	paths map[[2]int]*Path
	conns map[net.Conn][2]int // by the ids of caller and callee

	// Of a Segment: the nodes' stacks, and the packets between them.
	congestion string
	stacks     map[int]*stack
	ways       map[[2]int]chan piece
}

// Network returns a network without faults.
func (b *Bed) Network() *Network {
	return &Network{bed: b, paths: map[[2]int]*Path{}, conns: map[net.Conn][2]int{}}
}

// Path is one direction between two nodes.
type Path struct {
	mu    sync.Mutex
	cut   bool
	moved chan struct{} // closed and replaced when cut changes
	delay time.Duration
	rate  int       // bytes per second; 0: no limit
	loss  int       // percent of datagrams
	free  time.Time // when the datagrams so far have gone at that rate
	bytes int64
	lost  int // datagrams of the exchange
}

func newPath() *Path { return &Path{moved: make(chan struct{})} }

// Path returns the way from one node to another.
func (w *Network) Path(from, to *Node) *Path { return w.path(from.ID, to.ID) }

func (w *Network) path(from, to int) *Path {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.paths[[2]int{from, to}]
	if p == nil {
		p = newPath()
		w.paths[[2]int{from, to}] = p
	}
	return p
}

// Cut holds back everything on this path until Mend.
func (p *Path) Cut() { p.setCut(true) }

// Mend ends a Cut.
func (p *Path) Mend() { p.setCut(false) }

func (p *Path) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	close(p.moved)
	p.moved = make(chan struct{})
}

// SetDelay makes everything take that much longer.
func (p *Path) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// SetRate limits a path to so many bytes a second; 0: no limit.
func (p *Path) SetRate(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = bytes
}

// SetLoss makes a path lose so many percent of its datagrams.
func (p *Path) SetLoss(percent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loss = percent
}

// Lost returns how many datagrams of the exchange were lost on the way.
func (p *Path) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Bytes returns how many bytes have gone this way, but those of gossip by UDP.
func (p *Path) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}

func (p *Path) state() (cut bool, moved chan struct{}, delay time.Duration, rate int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut, p.moved, p.delay, p.rate
}

// Split cuts both ways between two nodes.
func (w *Network) Split(a, b *Node) {
	w.Path(a, b).Cut()
	w.Path(b, a).Cut()
}

// Join mends both ways between two nodes.
func (w *Network) Join(a, b *Node) {
	w.Path(a, b).Mend()
	w.Path(b, a).Mend()
}

// Heal ends all faults.
func (w *Network) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.paths {
		p.Mend()
		p.SetDelay(0)
		p.SetRate(0)
		p.SetLoss(0)
	}
}

// Sever closes all connections between two nodes.
func (w *Network) Sever(a, b *Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c, ends := range w.conns {
		if ends == [2]int{a.ID, b.ID} || ends == [2]int{b.ID, a.ID} {
			_ = c.Close()
		}
	}
}

// front puts relays before a node's gossip and exchange ports.
func (w *Network) front(n *Node) {
	w.bed.Helper()
	w.mu.Lock()
	w.nodes = append(w.nodes, n)
	w.mu.Unlock()
	if w.stacks != nil {
		w.attach(n)
		return
	}
	n.advertiseGossip, n.advertiseWAN = FreePort(), FreePort()
	w.listen(n, n.advertiseGossip, n.GossipPort)
	w.listen(n, n.advertiseWAN, n.WANPort)
	w.packets(n, n.advertiseGossip, n.GossipPort, false)
	w.packets(n, n.advertiseWAN, n.WANPort, true)
}

func (w *Network) listen(n *Node, port, target int) {
	l, err := net.Listen("tcp", addr(port))
	if err != nil {
		w.bed.Fatalf("relay: %v", err)
	}
	w.bed.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		for c := range w.conns {
			_ = c.Close()
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.relay(c, n, target)
		}
	}()
}

// relay passes a connection on to the node.
func (w *Network) relay(in net.Conn, n *Node, target int) {
	defer in.Close()
	from := w.caller(in.RemoteAddr().(*net.TCPAddr).Port, in.LocalAddr().(*net.TCPAddr).Port)
	if from == 0 {
		return
	}
	there, back := w.path(from, n.ID), w.path(n.ID, from)
	if !w.reaches(there, back) {
		return
	}
	out, err := net.DialTimeout("tcp", addr(target), time.Second)
	if err != nil {
		return
	}
	defer out.Close()
	w.mu.Lock()
	w.conns[in], w.conns[out] = [2]int{from, n.ID}, [2]int{from, n.ID}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.conns, in)
		delete(w.conns, out)
	}()
	pumps(in, out, there, back)
}

// reaches waits while a path is cut, as a connection attempt does that is
// tried again and again; after some seconds it is given up.
func (w *Network) reaches(paths ...*Path) bool {
	limit := time.After(10 * time.Second)
	for _, p := range paths {
		for {
			cut, moved, _, _ := p.state()
			if !cut {
				break
			}
			select {
			case <-moved:
			case <-limit:
				return false
			}
		}
	}
	return true
}

// Front puts a relay before a port of what is no node, and returns its own port
// and the two ways: to the port and back.
func (w *Network) Front(target int) (port int, there, back *Path) {
	w.bed.Helper()
	port, there, back = FreePort(), newPath(), newPath()
	l, err := net.Listen("tcp", addr(port))
	if err != nil {
		w.bed.Fatalf("relay: %v", err)
	}
	w.bed.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.DialTimeout("tcp", addr(target), time.Second)
				if err != nil {
					return
				}
				defer out.Close()
				pumps(in, out, there, back)
			}()
		}
	}()
	return port, there, back
}

// pumps copies both ways between two connections until one of them ends, and
// closes them.
func pumps(in, out net.Conn, there, back *Path) {
	var both sync.WaitGroup
	both.Go(func() { pump(out, in, there); _ = in.Close(); _ = out.Close() })
	both.Go(func() { pump(in, out, back); _ = in.Close(); _ = out.Close() })
	both.Wait()
}

// piece is what was read at once, and when it is due.
type piece struct {
	b   []byte
	due time.Time
}

// pieceTime is how long a path with a limit takes for one piece.
const pieceTime = 2 * time.Millisecond

// pump copies from src to dst with the path's faults until one of them ends.
func pump(dst io.Writer, src io.Reader, p *Path) {
	pieces := make(chan piece, 64)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(pieces)
		for {
			size := 16 << 10
			if _, _, _, rate := p.state(); rate > 0 {
				size = max(256, min(size, int(int64(rate)*int64(pieceTime)/int64(time.Second))))
			}
			b := make([]byte, size)
			n, err := src.Read(b)
			if n > 0 {
				_, _, delay, _ := p.state()
				select {
				case pieces <- piece{b[:n], time.Now().Add(delay)}:
				case <-stop:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	var free time.Time // when the pieces so far have gone at the path's rate
	for x := range pieces {
		sleepUntil(x.due)
		for {
			cut, moved, _, rate := p.state()
			if cut {
				// A connection that ends while it is cut must not wait for the end
				// of the cut: look again now and then.
				select {
				case <-moved:
				case <-time.After(30 * time.Second):
					return
				}
				continue
			}
			if rate > 0 {
				if free.Before(x.due) {
					free = x.due // and not now: sleeping late must not cost capacity
				}
				free = free.Add(time.Duration(len(x.b)) * time.Second / time.Duration(rate))
				sleepUntil(free)
			}
			break
		}
		n, err := dst.Write(x.b)
		p.mu.Lock()
		p.bytes += int64(n)
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// packets relays datagrams to a node, and the answers back.
func (w *Network) packets(n *Node, port, target int, counted bool) {
	in, err := net.ListenPacket("udp", addr(port))
	if err != nil {
		w.bed.Fatalf("relay: %v", err)
	}
	w.bed.Cleanup(func() { _ = in.Close() })
	to, err := net.ResolveUDPAddr("udp", addr(target))
	if err != nil {
		w.bed.Fatalf("relay: %v", err)
	}
	type way struct {
		out  net.PacketConn
		from int // id
	}
	ways := map[string]way{} // by the caller's address: few
	go func() {
		defer func() {
			for _, x := range ways {
				_ = x.out.Close()
			}
		}()
		b := make([]byte, 64<<10)
		for {
			size, caller, err := in.ReadFrom(b)
			if err != nil {
				return
			}
			x, ok := ways[caller.String()]
			if !ok {
				if x.from = w.packetCaller(caller.(*net.UDPAddr).Port); x.from == 0 {
					continue
				}
				if x.out, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
					continue
				}
				ways[caller.String()] = x
				go w.answers(in, x.out, caller, w.path(n.ID, x.from), counted)
			}
			send(x.out, bytes.Clone(b[:size]), to, w.path(x.from, n.ID), counted)
		}
	}()
}

func (w *Network) answers(in, out net.PacketConn, caller net.Addr, p *Path, counted bool) {
	b := make([]byte, 64<<10)
	for {
		size, _, err := out.ReadFrom(b)
		if err != nil {
			return
		}
		send(in, bytes.Clone(b[:size]), caller, p, counted)
	}
}

// queued is how long a datagram may wait for a path with a limit; what would
// wait for longer is lost, as in a router.
const queued = 300 * time.Millisecond

// admit decides what becomes of a datagram: whether it is lost, and how much
// later it arrives.
func (p *Path) admit(size int, counted bool) (lost bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	wait = p.delay
	lost = p.cut || p.loss > 0 && rand.IntN(100) < p.loss
	if !lost && p.rate > 0 {
		if p.free.Before(now) {
			p.free = now
		}
		if lost = p.free.Sub(now) > queued; !lost {
			p.free = p.free.Add(time.Duration(size) * time.Second / time.Duration(p.rate))
			wait += p.free.Sub(now)
		}
	}
	switch {
	case !counted:
	case lost:
		p.lost++
	default:
		p.bytes += int64(size)
	}
	return lost, wait
}

// send passes a datagram on, late or not at all.
func send(c net.PacketConn, b []byte, to net.Addr, p *Path, counted bool) {
	lost, wait := p.admit(len(b), counted)
	due := time.Now().Add(wait)
	switch {
	case lost:
	case wait > 0:
		go func() {
			sleepUntil(due)
			_, _ = c.WriteTo(b, to)
		}()
	default:
		_, _ = c.WriteTo(b, to)
	}
}

// packetCaller returns the node that sends datagrams from a port: the one it
// gossips on, or one it has just opened. 0 if none does.
func (w *Network) packetCaller(port int) int {
	w.mu.Lock()
	for _, n := range w.nodes {
		if n.GossipPort == port || n.WANPort == port {
			w.mu.Unlock()
			return n.ID
		}
	}
	w.mu.Unlock()
	return w.owner(udpInode(port))
}

// caller returns the id of the node that has a TCP connection from a port to
// another; 0 if none of them has. NAT hides this from the nodes, but not from
// the machine they all run on.
func (w *Network) caller(port, to int) int {
	return w.owner(socketInode(port, to))
}

// owner returns the id of the node that has a socket open.
func (w *Network) owner(inode string) int {
	if inode == "" {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.pid.Load()))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if link, err := os.Readlink(fd); err == nil && link == "socket:["+inode+"]" {
				return n.ID
			}
		}
	}
	return 0
}

// socketInode finds the socket of a connection between two ports of
// 127.0.0.1 in Linux's table of them.
func socketInode(local, remote int) string {
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	want := fmt.Sprintf(" 0100007F:%04X 0100007F:%04X ", local, remote)
	for line := range strings.SplitSeq(string(b), "\n") {
		if strings.Contains(line, want) {
			if f := strings.Fields(line); len(f) > 9 {
				return f[9]
			}
		}
	}
	return ""
}

// udpInode finds the socket of a UDP port in Linux's tables of them.
func udpInode(port int) string {
	for _, table := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			f := strings.Fields(line)
			if len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				return f[9]
			}
		}
	}
	return ""
}
