package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"
)

// MaxID is the greatest node id: the 12 bits that a tag has for it. Ids start
// at 1.
const MaxID = 1<<12 - 1

// maxName bounds alias, region and cluster, in bytes. maxAddr bounds an
// address: a DNS name of full length would leave no room for the others.
const (
	maxName = 64
	maxAddr = 128
	// maxLinks bounds Facts.Links.
	maxLinks = 200
)

// Facts is what a node tells the others about itself. It rides in every alive
// message, so its encoding is held to memberlist.MetaMaxSize (512) bytes.
type Facts struct {
	ID      uint16 // 1 to MaxID, one node each
	Alias   string // for people; at most 64 bytes
	Region  string // at most 64 bytes
	Cluster string // nodes of another cluster are refused; at most 64 bytes

	// Incarnation is that of the node's data (see crdt): gossip carries it and
	// draws no conclusion from it.
	Incarnation uint64

	// Dir is the random identity of the data directory, made when the
	// directory is. It tells one node at a new address from two nodes with
	// one id.
	Dir uint64

	// Where the node is reached, host:port. An empty or unspecified host in
	// RESP and WAN (":9001", "0.0.0.0:9001") is replaced by the advertised
	// one. Gossip is filled in by Start.
	RESP, Gossip, WAN string

	// Links are URLs at which data links may be dialled, separated by spaces,
	// those to be tried first first; one without a host is at that of WAN. Empty:
	// at WAN, over TCP. Gossip carries them and draws no conclusion from them.
	Links string

	Version uint32 // newest WAN protocol version that the node speaks
}

// String names the node as errors do: id, alias and the address that its
// users know.
func (f Facts) String() string {
	s := fmt.Sprintf("node %d", f.ID)
	if f.Alias != "" {
		s += " (" + f.Alias + ")"
	}
	if a := f.address(); a != "" {
		s += " at " + a
	}
	return s
}

// address is the address that the node's users know.
func (f Facts) address() string {
	if f.RESP != "" {
		return f.RESP
	}
	return f.Gossip
}

// label is the alias, or the id where there is none.
func (f Facts) label() string {
	if f.Alias != "" {
		return f.Alias
	}
	return fmt.Sprintf("node %d", f.ID)
}

// check reports the first fault that keeps f from being told to others, or
// from being believed when others tell it: names end up in logs and on
// terminals, so they hold no control characters.
func (f Facts) check() error {
	if f.ID < 1 || f.ID > MaxID {
		return fmt.Errorf("node id %d is not between 1 and %d", f.ID, MaxID)
	}
	for _, s := range []struct {
		what, text string
		max        int
	}{
		{"alias", f.Alias, maxName},
		{"region", f.Region, maxName},
		{"cluster", f.Cluster, maxName},
		{"RESP address", f.RESP, maxAddr},
		{"gossip address", f.Gossip, maxAddr},
		{"WAN address", f.WAN, maxAddr},
		{"list of links", f.Links, maxLinks},
	} {
		if len(s.text) > s.max {
			return fmt.Errorf("%s has %d bytes, at most %d are possible: shorten it", s.what, len(s.text), s.max)
		}
		if !utf8.ValidString(s.text) {
			return fmt.Errorf("%s is not UTF-8", s.what)
		}
		for _, r := range s.text {
			if !unicode.IsPrint(r) {
				return fmt.Errorf("%s %q has a character that cannot be printed", s.what, s.text)
			}
		}
	}
	return nil
}

// card is a Facts with the number of the process that tells them. Sessions of
// one node rise with the clock it starts by.
type card struct {
	Facts
	session uint64
}

// name is the memberlist name of the process.
func (c card) name() string {
	return fmt.Sprintf("%d-%016x-%016x", c.ID, c.Dir, c.session)
}

// sameNode reports whether two processes belong to one node: one data
// directory, or one address, which two processes cannot hold at a time.
func (c card) sameNode(o Facts) bool {
	return c.ID == o.ID && (c.Dir == o.Dir || c.Gossip != "" && c.Gossip == o.Gossip)
}

// cardVersion begins every encoded card. Fields are only ever appended: a
// reader ignores bytes after those that it knows.
const cardVersion = 1

var errCard = errors.New("malformed facts")

// encode returns
//
//	version · uvarint id · u64 dir · u64 session · uvarint incarnation ·
//	uvarint protocol version · alias · region · cluster · RESP · gossip · WAN · links
//
// with integers big-endian and each string after its length in one byte.
func (c card) encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, memberlist.MetaMaxSize)
	b = append(b, cardVersion)
	b = binary.AppendUvarint(b, uint64(c.ID))
	b = binary.BigEndian.AppendUint64(b, c.Dir)
	b = binary.BigEndian.AppendUint64(b, c.session)
	b = binary.AppendUvarint(b, c.Incarnation)
	b = binary.AppendUvarint(b, uint64(c.Version))
	for _, s := range []string{c.Alias, c.Region, c.Cluster, c.RESP, c.Gossip, c.WAN, c.Links} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("alias, region, cluster and addresses take %d bytes with the rest, at most %d are possible: shorten them",
			len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

// decodeCard reads what encode wrote, here or in a later version.
func decodeCard(b []byte) (card, error) {
	if len(b) > memberlist.MetaMaxSize || len(b) < 1 || b[0] != cardVersion {
		return card{}, errCard
	}
	r := reader{b: b[1:]}
	var c card
	id := r.uvarint()
	c.Dir = r.uint64()
	c.session = r.uint64()
	c.Incarnation = r.uvarint()
	version := r.uvarint()
	for _, s := range []*string{&c.Alias, &c.Region, &c.Cluster, &c.RESP, &c.Gossip, &c.WAN} {
		*s = r.string()
	}
	if !r.bad && len(r.b) > 0 { // a node before links tells none
		c.Links = r.string()
	}
	if r.bad || id > MaxID || version > 1<<32-1 {
		return card{}, errCard
	}
	c.ID, c.Version = uint16(id), uint32(version)
	if err := c.check(); err != nil {
		return card{}, fmt.Errorf("%w: %w", errCard, err)
	}
	return c, nil
}

// reader takes a message apart; after the first fault it yields zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uint64() uint64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func (r *reader) string() string {
	n := r.take(1)
	if n == nil {
		return ""
	}
	return string(r.take(int(n[0])))
}

// withHost puts host in place of an unspecified one, so that no node tells
// others to connect to 0.0.0.0.
func withHost(addr, host string) (string, error) {
	if addr == "" {
		return "", nil
	}
	h, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if h == "" {
		return net.JoinHostPort(host, port), nil
	}
	if ip := net.ParseIP(h); ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort(host, port), nil
	}
	return addr, nil
}
