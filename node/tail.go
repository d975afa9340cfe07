package node

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/wan"
)

// TailOptions say what Tail prints.
type TailOptions struct {
	URLs      []string // where a node listens for the exchange, tried in order
	Databases []int    // none: all
	Patterns  []string // of keys' names, as for KEYS; none: all
	Lanes     []string // none: all
}

// Tail prints the changes that a node of the cluster makes or takes in from now
// on, as JSON, one a line, until the context ends. Of a lost connection it goes on
// where it was, as far as that node's log reaches. It is no member: it changes
// nothing, and nobody waits for it. cfg says which cluster, with which
// secret and certificates.
func Tail(ctx context.Context, cfg Config, o TailOptions, out io.Writer, log *slog.Logger) error {
	sub := &wan.Subscription{}
	for _, db := range o.Databases {
		if db < 0 || db >= userDBs {
			return fmt.Errorf("database %d is outside 0 to %d", db, userDBs-1)
		}
		sub.Databases = append(sub.Databases, uint8(db))
	}
	if len(sub.Databases) == 0 {
		for db := range userDBs {
			sub.Databases = append(sub.Databases, uint8(db))
		}
	}
	for _, p := range o.Patterns {
		sub.Patterns = append(sub.Patterns, []byte(p))
	}
	for _, name := range o.Lanes {
		l, err := crdt.ParseLane(name)
		if err != nil {
			return fmt.Errorf("lane: %w", err)
		}
		sub.Lanes = append(sub.Lanes, l)
	}
	var urls []string
	for _, s := range o.URLs {
		if validHostPort(s) {
			s = linkTCP + "://" + s
		}
		u, err := cfg.parseLink(s)
		if err != nil {
			return err
		}
		urls = append(urls, u.String())
	}
	over, err := cfg.transports(nil, log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := &feed{out: bufio.NewWriter(out), log: log, fail: cancel}
	m, err := wan.NewManager(wan.ManagerOptions{
		Config: wan.Config{
			Self: wan.Identity{Cluster: cfg.Cluster, Alias: "tail"}, Log: t, Applier: t, Secret: []byte(cfg.Secret),
			Subscription: sub, Window: int(cfg.WAN.Window), BatchBytes: int(cfg.WAN.BatchLimit), Heartbeat: cfg.WAN.Heartbeat,
		},
		Transport: over,
	})
	if err != nil {
		return err
	}
	t.peers = m.Peers()
	defer m.Close()
	err = m.Subscribe(ctx, urls, func(err error) { log.Warn("the feed is interrupted, trying on", "err", err) })
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// feed is a subscriber: it prints what it is given, and remembers how far that
// was.
type feed struct {
	log   *slog.Logger
	fail  context.CancelCauseFunc
	peers *wan.Peers

	mu   sync.Mutex
	out  *bufio.Writer
	have crdt.Vector
	met  bool // have is where the node was when it was first heard
}

// Line is one change as Tail prints it. Names and values that are not UTF-8 are
// in base64, in fields of their own.
type Line struct {
	At   string `json:"at"`   // when it was made, by its node's clock
	Node uint16 `json:"node"` // that made it
	Lane string `json:"lane"`
	Tag  string `json:"tag"` // of the entry; the same in all changes of a transaction
	DB   uint8  `json:"db"`
	// Op is set, add, remove, expire or persist of an element; clear of a key, or
	// of its elements of one kind; flush of a database.
	Op      string  `json:"op"`
	Key     *string `json:"key,omitempty"`
	Key64   string  `json:"key_base64,omitempty"`
	Kind    string  `json:"kind,omitempty"`    // string, field, member, scored, item, …
	Elem    *string `json:"element,omitempty"` // of a hash, set, …
	Elem64  string  `json:"element_base64,omitempty"`
	Value   *string `json:"value,omitempty"`
	Value64 string  `json:"value_base64,omitempty"`
	// Sum is what the node has added to the number up to now.
	Sum     string `json:"sum,omitempty"`
	Expires string `json:"expires,omitempty"`
}

const lineTime = "2006-01-02T15:04:05.000Z07:00"

// text fills a field with UTF-8, or another with base64.
func text(b string, plain **string, coded *string) {
	if utf8.ValidString(b) {
		*plain = &b
	} else {
		*coded = base64.StdEncoding.EncodeToString([]byte(b))
	}
}

// lines takes an entry apart.
func lines(e *crdt.Entry) []Line {
	out := make([]Line, 0, len(e.Deltas))
	for i := range e.Deltas {
		d := &e.Deltas[i]
		tag := e.Tag
		l := Line{Node: e.Stream.Node(), Lane: e.Stream.Lane().String(), DB: d.ID.Key.DB, Op: "remove", Kind: d.ID.Kind.Name()}
		if d.Level != crdt.LevelDB {
			text(d.ID.Key.Name, &l.Key, &l.Key64)
		}
		if field, ok := d.ID.Field(); ok {
			text(field, &l.Elem, &l.Elem64)
		} else if d.Level == crdt.LevelCell && d.ID.Elem != "" {
			text(d.ID.Elem, &l.Elem, &l.Elem64)
		}
		switch {
		case d.Level == crdt.LevelDB:
			l.Op = "flush"
		case d.Level != crdt.LevelCell:
			l.Op = "clear"
		case d.Put != nil && d.ID.Kind == crdt.KindExpiry:
			tag = d.Put.Tag
			at := (&crdt.Cell{Values: []crdt.Sibling{{Value: d.Put.Value}}}).Expiry()
			if l.Op = "expire"; at == crdt.Never {
				l.Op = "persist"
			} else {
				l.Expires = time.UnixMilli(at).UTC().Format(lineTime)
			}
		case d.Put != nil:
			l.Op, tag = "set", d.Put.Tag
			text(string(d.Put.Value), &l.Value, &l.Value64)
		case d.Remove != nil:
			tag = d.Remove.Tag
		}
		if d.Add != nil {
			if l.Sum, tag = d.Add.Sum.String(), d.Add.Tag; d.Put == nil {
				l.Op = "add"
			}
		}
		l.At, l.Tag = tag.Time().UTC().Format(lineTime), fmt.Sprintf("%016x", uint64(tag))
		out = append(out, l)
	}
	return out
}

// Apply implements wan.Applier.
func (t *feed) Apply(_ uint16, entries []crdt.Entry, done func(error)) {
	t.mu.Lock()
	enc := json.NewEncoder(t.out)
	enc.SetEscapeHTML(false)
	var err error
	for i := range entries {
		for _, l := range lines(&entries[i]) {
			if err == nil {
				err = enc.Encode(l)
			}
		}
	}
	if err == nil {
		err = t.out.Flush()
	}
	if err == nil {
		t.have = t.have.Clone()
		for _, e := range entries {
			t.have.Raise(e.Stream, e.Tag)
		}
	}
	t.mu.Unlock()
	done(err)
	if err != nil {
		t.fail(fmt.Errorf("writing: %w", err))
		return
	}
	t.peers.NotifyDurable()
}

// Heard implements wan.Applier. The feed begins where the node was when it was
// first heard.
func (t *feed) Heard(_ uint16, h wan.Heard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.met {
		t.have, t.met = h.Durable, true
	}
}

// SyncNeeded implements wan.Applier: the node's log no longer has what is next.
// The feed goes on from where that node is now.
func (t *feed) SyncNeeded(from uint16, origins []crdt.Stream) {
	at := t.peers.Durable(from)
	t.mu.Lock()
	t.have = t.have.Clone()
	for _, p := range at {
		if slices.Contains(origins, p.Stream.Origin()) {
			t.have.Raise(p.Stream, p.Tag)
		}
	}
	t.mu.Unlock()
	t.log.Warn("changes are missing: the node's log no longer has them", "origins", origins)
	t.peers.CloseAll(wan.ErrDisconnected) // to want them anew
}

func (t *feed) vector() crdt.Vector {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.have
}

// What follows completes wan.Log and wan.Applier: a subscriber has no streams,
// keeps no log and takes no states.

func (t *feed) Origin() crdt.Stream    { return 0 }
func (t *feed) Durable() crdt.Vector   { return t.vector() }
func (t *feed) Applied() crdt.Vector   { return t.vector() }
func (t *feed) Frontier() wan.Frontier { return wan.Frontier{} }
func (t *feed) Read(crdt.Stream, crdt.Tag, int, func([]byte) error) error {
	return wan.ErrTrimmed
}
func (t *feed) Count(crdt.Stream, crdt.Tag, int) (int, int64) { return 0, 0 }
func (t *feed) Wrote(crdt.Stream, crdt.Tag) bool              { return true }
func (t *feed) Snapshot(*wan.SyncSince) (wan.Snapshot, error) {
	return nil, fmt.Errorf("a subscriber has no state")
}
func (t *feed) BeginSync(_ uint16, _ *wan.SyncBegin, done func(error))     { done(errNoStates) }
func (t *feed) ApplyState(_ uint16, _ *wan.SyncKeys, done func(error))     { done(errNoStates) }
func (t *feed) ApplyRest(_ uint16, _ []wan.SyncRestPart, done func(error)) { done(errNoStates) }
func (t *feed) Verify(uint16, *wan.Verify)                                 {}
func (t *feed) AbortSync(uint16)                                           {}
func (t *feed) Publish(uint16, *wan.Message)                               {}
func (t *feed) Ahead(uint16, crdt.Vector)                                  {}

var errNoStates = fmt.Errorf("a subscriber takes no states")
