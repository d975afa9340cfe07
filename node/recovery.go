package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
)

// The watermark is a key in the view that says what the view holds: of which
// data directory, of which generation of its state, up to which vector. It is
// written behind the updates it speaks of, so a view that went back in time,
// was emptied or swapped tells so itself.
//
// A generation ends with each change of state that the log does not tell
// entry by entry: a merged state, or another identity.

const (
	markVersion    = 2
	generationMeta = "view/generation"
	rewriteStep    = 1000
	// catchUpKeys is how many keys a catch-up rewrites before a rebuild of
	// everything is the simpler course.
	catchUpKeys = 1 << 20
	// unbuilt is the generation of a view that is being built: no state has it.
	unbuilt = ^uint64(0)
)

// watermark is the decoded mark of a view.
type watermark struct {
	dir        uint64
	node       uint16
	generation uint64
	vector     crdt.Vector
	ahead      []crdt.Key // whose updates came before the log had them
}

func (w watermark) encode() []byte {
	b := []byte{markVersion}
	b = binary.BigEndian.AppendUint64(b, w.dir)
	b = binary.BigEndian.AppendUint16(b, w.node)
	b = binary.BigEndian.AppendUint64(b, w.generation)
	v := w.vector.AppendBinary(nil)
	b = append(binary.AppendUvarint(b, uint64(len(v))), v...)
	for _, k := range w.ahead {
		b = binary.AppendUvarint(append(b, k.DB), uint64(len(k.Name)))
		b = append(b, k.Name...)
	}
	return b
}

func decodeWatermark(b []byte) (watermark, error) {
	r := crdt.NewReader(b)
	if r.Byte() != markVersion {
		r.Fail()
	}
	w := watermark{dir: r.Uint64(), node: uint16(r.Byte())<<8 | uint16(r.Byte()), generation: r.Uint64(), vector: crdt.Sized(r, crdt.DecodeVector)}
	for r.More() {
		w.ahead = append(w.ahead, crdt.Key{DB: r.Byte(), Name: string(r.Bytes())})
	}
	return w, r.End("watermark")
}

// recovery brings the view level at the start and whenever it was lost.
type recovery struct {
	exec       *executor
	pump       *pump
	source     *viewSource
	log        *oplog.Log
	adopt      bool
	slog       *slog.Logger
	lostc      chan error
	up         atomic.Bool
	rebuilds   atomic.Uint64
	catchUps   atomic.Uint64
	progress   func(string)            // shown to clients while they wait
	rolledBack func(crdt.Vector) error // the view has what the log lacks
	fatal      func(error)             // ends the node
}

// errForeign reports a Redis that the node must not overwrite.
var errForeign = errors.New("this Redis is not this node's to overwrite")

// mark returns the watermark's bytes for a vector.
func (r *recovery) mark(v crdt.Vector, generation uint64) []byte {
	id := r.log.Identity()
	return watermark{dir: id.Dir, node: id.Node, generation: generation, vector: v}.encode()
}

// run keeps the view level until ctx ends. started reports the outcome of the
// first attempt that decides: nil once clients can be served, or errForeign.
func (r *recovery) run(ctx context.Context, started func(error)) {
	wait := 50 * time.Millisecond
	for ctx.Err() == nil {
		select { // what was lost before this attempt is covered by it
		case err := <-r.lostc:
			r.slog.Debug("view lost while it was brought level", "err", err)
		default:
		}
		err := r.level(ctx)
		switch {
		case err == nil:
			started(nil)
			wait = 50 * time.Millisecond
			select {
			case err := <-r.lostc:
				r.up.Store(false)
				r.exec.setLoading(strings.TrimPrefix(viewAway, "LOADING "))
				r.slog.Warn("view lost, clients are refused until it is level again", "err", err)
			case <-ctx.Done():
				return
			}
			continue
		case oplog.Damaged(err):
			err = fmt.Errorf("the data directory is damaged; restore it from a backup, or empty it and let the other members fill it: %w", err)
			started(err)
			r.fatal(err)
			return
		case errors.Is(err, errForeign):
			started(err)
		}
		r.slog.Warn("view not available, trying again", "view", r.source.what, "err", err, "wait", wait)
		r.progress(fmt.Sprintf("the Redis behind this node is not available: %v", err))
		select {
		case <-time.After(wait):
			wait = min(2*wait, 2*time.Second)
		case <-ctx.Done():
		}
	}
}

// level connects to the view and brings it level.
func (r *recovery) level(ctx context.Context) error {
	conn, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			conn.Close()
		}
	}()
	var trouble error
	if err := r.exec.Run(func(c *Core) { trouble = c.Commit(); c.ViewDown() }); err != nil || trouble != nil {
		return errors.Join(err, trouble)
	}
	lost := r.pump.TakeLost()
	var generation uint64
	if err := r.exec.Run(func(c *Core) { c.Remember(lost); generation = c.generation; c.ViewIs(conn.fields, conn.embedded) }); err != nil {
		return err
	}
	raw, err := conn.readMark()
	if err != nil {
		return err
	}
	plan, err := r.plan(ctx, conn, raw, generation)
	if err != nil {
		return err
	}
	keep = true
	r.pump.Attach(conn)
	begun := time.Now()
	for {
		n, err := plan(ctx)
		if err != nil {
			return err
		}
		var again bool
		if err := r.exec.Run(func(c *Core) { again, trouble = c.ViewUp() }); err != nil || trouble != nil {
			return errors.Join(err, trouble)
		}
		if again {
			plan = r.rebuild(conn)
			continue
		}
		// Everything sent so far must have arrived before clients come back.
		if _, err := r.pump.Ask(conn.hidden, []byte("PING")); err != nil {
			return err
		}
		r.exec.setLoading("")
		r.up.Store(true)
		r.slog.Info("view is level", "view", r.source.what, "keys", n, "took", time.Since(begun).Round(time.Millisecond))
		return nil
	}
}

// plan decides how the view is brought level, from the watermark found in it.
// The plan returns how many keys it rewrote.
func (r *recovery) plan(ctx context.Context, conn *viewConn, raw []byte, generation uint64) (func(context.Context) (int, error), error) {
	id := r.log.Identity()
	if raw == nil {
		n, err := conn.keys()
		if err != nil {
			return nil, err
		}
		half, err := r.log.Meta(adoptMeta)
		if err != nil {
			return nil, err
		}
		fresh := len(r.log.Vector()) == 0 || half != nil
		switch {
		case n == 0:
			return r.rebuild(conn), nil
		case fresh && r.adopt:
			taken, err := adoptView(ctx, conn, r.exec, r.slog, n, r.mark(nil, generation))
			return func(context.Context) (int, error) { return taken, nil }, err
		case fresh:
			return nil, fmt.Errorf("%w: it holds %d keys. To make them this node's, start once with --adopt; to start without them, use an empty Redis", errForeign, n)
		default:
			return nil, fmt.Errorf("%w: it holds %d keys and is not the view of this data directory. Empty it (FLUSHALL) to let the node rebuild it, or point the node to another", errForeign, n)
		}
	}
	w, err := decodeWatermark(raw)
	switch {
	case err != nil:
		r.slog.Warn("the view's watermark can't be read, rebuilding", "err", err)
		return r.rebuild(conn), nil
	case w.dir != id.Dir && w.node != id.Node:
		return nil, fmt.Errorf("%w: it is the view of node %d. Every node needs a Redis of its own", errForeign, w.node)
	case w.dir != id.Dir || w.generation != generation:
		return r.rebuild(conn), nil
	case !w.vector.In(r.log.Vector()):
		// The view knows more than the log: the data directory is an old one.
		return r.rebuild(conn), r.rolledBack(w.vector)
	}
	return r.catchUp(conn, w.vector, w.ahead)
}

// catchUp rewrites the keys that entries since the watermark have changed, as
// far as the log still tells, and those that the view was given ahead of it.
func (r *recovery) catchUp(conn *viewConn, since crdt.Vector, ahead []crdt.Key) (func(context.Context) (int, error), error) {
	if err := r.log.Sync(); err != nil {
		return nil, err
	}
	keys, ok, err := changedSince(r.log, since)
	if err != nil {
		return nil, err
	}
	keys = append(keys, ahead...)
	if !ok {
		return r.rebuild(conn), nil
	}
	return func(ctx context.Context) (int, error) {
		r.catchUps.Add(1)
		for left := keys; len(left) > 0 && ctx.Err() == nil; {
			n := min(len(left), rewriteStep)
			var trouble error
			if err := r.exec.Run(func(c *Core) { trouble = c.Rewrite(left[:n]) }); err != nil || trouble != nil {
				return 0, errors.Join(err, trouble)
			}
			left = left[n:]
		}
		return len(keys), ctx.Err()
	}, nil
}

// changedSince lists the keys that may have changed since a vector, in order,
// as far as the log still tells; ok is false if it does not. All of it must be
// durable. Hidden keys are among them: that a key has expired is in no entry,
// and the view's clock may be behind the one that said so.
func changedSince(log *oplog.Log, since crdt.Vector) (keys []crdt.Key, ok bool, err error) {
	touched := map[crdt.Key]struct{}{}
	for _, p := range log.Durable() {
		for at := since.Get(p.Stream); at < p.Tag; {
			entries, _, err := log.Read(p.Stream, at, 8<<20)
			if errors.Is(err, oplog.ErrTrimmed) || len(touched) > catchUpKeys {
				return nil, false, nil
			}
			if err != nil {
				return nil, false, err
			}
			if len(entries) == 0 {
				break
			}
			for _, e := range entries {
				at = e.Tag
				for _, d := range e.Deltas {
					if d.Level == crdt.LevelDB {
						return nil, false, nil
					}
					touched[d.ID.Key] = struct{}{}
				}
			}
		}
	}
	for range 2 { // the first round begins somewhere
		for full := true; full && len(touched) <= catchUpKeys; {
			hidden := log.Swept(rewriteStep)
			for _, id := range hidden {
				touched[id.Key] = struct{}{}
			}
			full = len(hidden) == rewriteStep
		}
	}
	return slices.SortedFunc(maps.Keys(touched), compareKeys), len(touched) <= catchUpKeys, nil
}

// rebuild empties the view and writes everything to it.
func (r *recovery) rebuild(conn *viewConn) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		r.rebuilds.Add(1)
		if err := r.clearByPump(conn); err != nil {
			return 0, err
		}
		var snap *oplog.Snapshot
		var now int64
		var trouble error
		if err := r.exec.Run(func(c *Core) { snap, trouble = c.Rebuilding(); now = c.Now() }); err != nil || trouble != nil {
			return 0, errors.Join(err, trouble)
		}
		defer func() { _ = snap.Close() }()
		var pos []byte
		done, told := 0, time.Now()
		for ctx.Err() == nil {
			b, next, err := Rebuild(snap, pos, rewriteStep, now, conn.fields)
			if err != nil {
				return done, err
			}
			done += len(b.Keys)
			r.pump.Send(b)
			if next == nil {
				break
			}
			pos = next
			if time.Since(told) > time.Second {
				told = time.Now()
				part := float64(binary.BigEndian.Uint16(pos)) / crdt.Slots // positions begin with the slot
				r.slog.Info("rebuilding the view", "keys", done, "percent", int(100*part))
				r.progress(fmt.Sprintf("the view is being rebuilt: %d keys, %.0f%% done", done, 100*part))
			}
		}
		return done, ctx.Err()
	}
}

// clearByPump empties the view through the pump's connection.
func (r *recovery) clearByPump(conn *viewConn) error {
	// A view that is being built is this node's already, should the node be
	// killed meanwhile. The mark goes with the database it is in, if that is one
	// of the clients'.
	id := r.log.Identity()
	mark := watermark{dir: id.Dir, node: id.Node, generation: unbuilt}.encode()
	ask := func(db int, args ...[]byte) error {
		raw, err := r.pump.Ask(db, args...)
		if err == nil && bytes.HasPrefix(raw, []byte("-")) {
			err = fmt.Errorf("the view can't be emptied: %s", bytes.TrimSpace(raw))
		}
		return err
	}
	if err := ask(conn.hidden, []byte("SET"), []byte(markKey), mark); err != nil {
		return err
	}
	for db := range userDBs {
		if err := ask(db, []byte("FLUSHDB")); err != nil {
			return err
		}
	}
	return ask(conn.hidden, []byte("SET"), []byte(markKey), mark)
}

// viewLost wakes run; it never blocks.
func (r *recovery) viewLost(err error) {
	select {
	case r.lostc <- err:
	default:
	}
}
