package wan

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Limits of the protocol. A peer that exceeds one is cut off.
const (
	// MaxHandshakeFrame is the greatest frame taken from a peer that has not
	// proved itself, in bytes.
	MaxHandshakeFrame = 4 << 10
	// MaxFrame is the greatest frame taken from any peer, in bytes.
	MaxFrame = 1 << 20
	// MaxCursor is the greatest length of a sync cursor, in bytes.
	MaxCursor = 64 << 10
	// MaxOrigins is the greatest number of origins in a Want.
	MaxOrigins = 8 << 10
	// DefaultMaxBatch is the greatest entry that every node takes, in bytes.
	DefaultMaxBatch = 1 << 30
	// MaxMessage is the greatest size of a channel's name and a message
	// together that can be published at other nodes, in bytes.
	MaxMessage = MaxFrame - 64
	// MaxMessages is how many bytes of messages may wait for a link.
	MaxMessages = 4 << 20
	// MaxChunk is the greatest piece of a batch in one frame, in bytes.
	MaxChunk = 64 << 10
)

// Identity is what a node tells its peers of itself.
type Identity struct {
	Cluster string // only nodes of one cluster talk to each other
	Node    uint16
	Alias   string
	Region  string
	Address string // where it can be reached, for messages to people
	Dir     string // identity of the data directory
}

// Config is what all sessions of a node share. Log, Applier and Self are
// required; EnsureDefaults fills in the rest.
type Config struct {
	Self    Identity
	Log     Log
	Applier Applier

	// Secret is what nodes prove to each other to know. Empty: nothing is
	// proved, and TLS or the network keeps strangers out.
	Secret []byte
	// SubscriberSecret is another that subscribers may prove to know instead. Who
	// knows it and not Secret is never taken for a node. Empty: there is none.
	SubscriberSecret []byte

	// Heartbeat is the time between heartbeats. Default 1 s.
	Heartbeat time.Duration
	// Silence is how long a peer may say nothing before its session is given
	// up. Default 5 s, at least twice Heartbeat.
	Silence time.Duration
	// Handshake is how long a connection may take to become a session.
	// Default 5 s.
	Handshake time.Duration

	// BatchBytes is how much of the log goes into one batch. Only a single
	// larger entry makes a larger batch. Default 1 MiB.
	BatchBytes int
	// MaxBatch is the greatest plain size of a batch that is taken, and so of
	// an entry that can be received. Default DefaultMaxBatch, at most 2 GiB.
	MaxBatch int
	// Window is how many bytes a peer may send in one lane before any is
	// applied. A single larger batch is taken when nothing else is under way.
	// It bounds the memory a peer can occupy. Default 8 MiB.
	Window int
	// Weights are the lanes' shares of a link that is full. Default 8:4:2:1.
	Weights [crdt.Lanes]int
	// Bandwidth is how many bytes a second a session may send; control frames
	// are not held back, but count. 0: no limit.
	Bandwidth int
	// MinChunk and MaxChunk bound the pieces batches are cut into, in bytes.
	// A piece takes about 10 ms at the speed measured. Default 1 KiB, 16 KiB.
	MinChunk, MaxChunk int
	// NoCompression sends every batch as it is.
	NoCompression bool
	// CompressionLevel trades processor time for bytes, from 1 to 4. Default 1.
	CompressionLevel int

	// Subscription makes this end a subscriber, not a node: Self has no id then.
	Subscription *Subscription
	// Match reports whether a key's name fits a pattern of a subscription. nil:
	// subscribers are refused.
	Match func(pattern, name []byte) bool
	// MaxSubscribers is how many subscribers there may be. Default 64.
	MaxSubscribers int

	// SyncThreshold is the number of entries from which on a peer that has
	// nothing is sent the state instead of the log. Default 100,000.
	SyncThreshold int
	// MaxSyncs is how many snapshots are open for peers at a time; others
	// wait. Default 2.
	MaxSyncs int
	// SyncRate bounds what a peer is sent of states, in bytes a second before
	// compression. Default 0: no more than the link and the peer take.
	SyncRate int

	// Rand gives the nonces. Default crypto/rand; a simulator gives its own.
	Rand io.Reader
	// Logger gets what operators should know. Default none.
	Logger *slog.Logger
}

// EnsureDefaults sets what is zero.
func (c *Config) EnsureDefaults() {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = time.Second
	}
	if c.Silence == 0 {
		c.Silence = 5 * c.Heartbeat
	}
	if c.Handshake == 0 {
		c.Handshake = 5 * time.Second
	}
	def(&c.BatchBytes, 1<<20)
	def(&c.MaxBatch, DefaultMaxBatch)
	def(&c.Window, 8<<20)
	def(&c.MinChunk, 1<<10)
	def(&c.MaxChunk, 16<<10)
	def(&c.CompressionLevel, 1)
	def(&c.SyncThreshold, 100_000)
	def(&c.MaxSyncs, 2)
	def(&c.MaxSubscribers, 64)
	if c.Weights == [crdt.Lanes]int{} {
		c.Weights = [crdt.Lanes]int{8, 4, 2, 1}
	}
	if c.Rand == nil {
		c.Rand = cryptoRand
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate says what is wrong with the configuration.
func (c *Config) Validate() error {
	switch {
	case c.Log == nil || c.Applier == nil:
		return fmt.Errorf("wan: Log and Applier are required")
	case c.Self.Node > crdt.MaxNode || (c.Self.Node == 0) != (c.Subscription != nil):
		return fmt.Errorf("wan: node id %d is not in 1..%d", c.Self.Node, crdt.MaxNode)
	case c.Heartbeat <= 0 || c.Silence < 2*c.Heartbeat:
		return fmt.Errorf("wan: silence %v must be at least twice the heartbeat %v", c.Silence, c.Heartbeat)
	case c.MinChunk < 64 || c.MaxChunk < c.MinChunk || c.MaxChunk > MaxChunk:
		return fmt.Errorf("wan: chunks of %d to %d bytes are not within 64..%d", c.MinChunk, c.MaxChunk, MaxChunk)
	case c.BatchBytes < 1 || c.Window < c.BatchBytes || c.MaxBatch < c.Window || c.MaxBatch > 2<<30:
		return fmt.Errorf("wan: batch %d, window %d and greatest batch %d must rise and stay within %d", c.BatchBytes, c.Window, c.MaxBatch, 2<<30)
	case c.Bandwidth < 0:
		return fmt.Errorf("wan: bandwidth of %d bytes a second", c.Bandwidth)
	case c.SyncRate < 0:
		return fmt.Errorf("wan: sync rate %d is negative", c.SyncRate)
	case c.CompressionLevel < 1 || c.CompressionLevel > len(levels):
		return fmt.Errorf("wan: compression level %d is not in 1..%d", c.CompressionLevel, len(levels))
	case c.Self.wireSize() > MaxHandshakeFrame/2:
		return fmt.Errorf("wan: names of the node take %d bytes, at most %d fit a handshake", c.Self.wireSize(), MaxHandshakeFrame/2)
	case c.Subscription != nil && len((&wire.Hello{Subscription: c.Subscription}).Encode()) > MaxHandshakeFrame/2-200:
		return fmt.Errorf("wan: the subscription does not fit a handshake of %d bytes: shorten its patterns", MaxHandshakeFrame/2)
	}
	for l, w := range c.Weights {
		if w < 1 || w > 1000 {
			return fmt.Errorf("wan: weight %d of lane %d is not in 1..1000", w, l)
		}
	}
	return nil
}

func (i *Identity) wireSize() int {
	return len(i.Cluster) + len(i.Alias) + len(i.Region) + len(i.Address) + len(i.Dir)
}
