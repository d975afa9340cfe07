package oplog

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// Names of what the log keeps for itself in its meta range; users' names are
// prefixed.
const (
	metaFormat   = "\x00format"
	metaIdentity = "\x00identity"
	metaTag      = "\x00tag"
)

// Identity is who this replica is.
type Identity struct {
	// Node is the id of the node.
	Node uint16
	// Incarnation counts the lives of the node: milliseconds since
	// crdt.TagEpoch when this one began, greater than any before.
	Incarnation uint64
	// Origin is both, as streams name it.
	Origin crdt.Stream
	// Dir is a random name of the data directory. A copy gets another.
	Dir uint64
	// Fresh reports that Open made the directory's contents.
	Fresh bool
}

// Identity returns who this replica is.
func (l *Log) Identity() Identity {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// markerName is a file whose place on the disk tells a data directory from its
// copies.
const markerName = "IDENTITY"

// identify finds or makes the identity.
func (l *Log) identify() error {
	b, err := l.get(metaKey(metaIdentity))
	if err != nil {
		return err
	}
	mark, made, err := l.marker()
	if err != nil {
		return err
	}
	if err := l.tags.load(l); err != nil {
		return err
	}
	if b == nil {
		id := Identity{Node: l.opts.Node, Dir: l.opts.Rand.Uint64(), Fresh: true}
		if id.Node == 0 {
			id.Node = uint16(l.opts.Rand.IntN(crdt.MaxNode) + 1)
		}
		return l.begin(id, mark, "fresh data directory")
	}
	id, was, err := decodeIdentity(b)
	if err != nil {
		return err
	}
	switch {
	case l.opts.Node != 0 && l.opts.Node != id.Node:
		reason := fmt.Sprintf("node id changed from %d to %d", id.Node, l.opts.Node)
		id.Node = l.opts.Node
		return l.begin(id, mark, reason)
	case made || was != mark:
		id.Dir = l.opts.Rand.Uint64()
		return l.begin(id, mark, "data directory was copied or restored")
	}
	l.id = id
	return nil
}

// begin starts a new incarnation, durably.
func (l *Log) begin(id Identity, mark, reason string) error {
	l.mu.Lock()
	was := l.id.Incarnation
	for _, p := range l.vector {
		if p.Stream.Node() == id.Node {
			was = max(was, p.Stream.Incarnation())
		}
	}
	l.mu.Unlock()
	// Where the clock is behind the incarnation before, that one's successor
	// would be the same each time the same backup is restored.
	next := was + 1 + l.opts.Rand.Uint64N(1<<16)
	id.Incarnation = max(uint64(max(l.opts.Now().Sub(crdt.TagEpoch).Milliseconds(), 1)), next)
	id.Origin = crdt.NewStream(id.Node, id.Incarnation, 0)
	batch := l.db.NewBatch()
	defer func() { _ = batch.Close() }()
	_ = batch.Set(metaKey(metaFormat), []byte{format}, nil)
	_ = batch.Set(metaKey(metaIdentity), id.encode(mark), nil)
	if err := batch.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	if err := l.disk.syncWAL(); err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	if f := l.failure.Load(); f != nil {
		return f.err
	}
	l.mu.Lock()
	l.id = id
	l.mu.Unlock()
	l.opts.Logger.Info("a new incarnation begins", "node", id.Node, "origin", id.Origin.String(), "reason", reason)
	if l.opts.Events.Incarnation != nil {
		l.opts.Events.Incarnation(id.Origin, reason)
	}
	return nil
}

// NewIncarnation begins a new incarnation while the log is open: a peer knows
// more of this node than the node itself, so its directory has been rolled
// back. No group may be open. What the old incarnation wrote here since it was
// rolled back, if anything, is for Reincarnate.
func (l *Log) NewIncarnation(reason string) error {
	l.commit.Lock()
	defer l.commit.Unlock()
	l.mustNotBeInGroup()
	b, err := l.get(metaKey(metaIdentity))
	if err != nil {
		return err
	}
	_, mark, err := decodeIdentity(b)
	if err != nil {
		return err
	}
	return l.begin(l.Identity(), mark, reason)
}

func (l *Log) mustNotBeInGroup() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.group != nil {
		panic("oplog: a group is open")
	}
}

// marker finds or makes the marker file and returns what tells it from its
// copies: nothing on file systems that have nothing of the kind.
func (l *Log) marker() (mark string, made bool, err error) {
	fs := l.opts.FS
	name := fs.PathJoin(l.opts.Dir, markerName)
	if _, err := fs.Stat(name); err != nil {
		made = true
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return "", false, err
		}
		_, err = io.WriteString(f, "This file's place on the disk tells replicatord whether the directory has been copied.\n")
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return "", false, err
		}
		dir, err := fs.OpenDir(l.opts.Dir)
		if err != nil {
			return "", false, err
		}
		if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
			return "", false, err
		}
	}
	info, err := fs.Stat(name)
	if err != nil {
		return "", false, err
	}
	return fingerprint(info), made, nil
}

func (id Identity) encode(mark string) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(id.Origin))
	b = binary.BigEndian.AppendUint64(b, id.Dir)
	return append(b, mark...)
}

func decodeIdentity(b []byte) (id Identity, mark string, err error) {
	if len(b) < 16 {
		return id, "", fmt.Errorf("%w of the identity", crdt.ErrCorrupt)
	}
	id.Origin, id.Dir = crdt.Stream(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])
	id.Node, id.Incarnation = id.Origin.Node(), id.Origin.Incarnation()
	return id, string(b[16:]), nil
}

// String formats the identity for people.
func (id Identity) String() string {
	var dir [8]byte
	binary.BigEndian.PutUint64(dir[:], id.Dir)
	return fmt.Sprintf("node %d, incarnation %x, directory %s", id.Node, id.Incarnation, hex.EncodeToString(dir[:]))
}
