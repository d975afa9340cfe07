package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
)

// What is done with a key that was changed in the view behind the node's back.
const (
	ScrubOff    = "off"
	ScrubReport = "report"
	ScrubRepair = "repair"
	ScrubAdopt  = "adopt"
)

// Sizes of the view's scrubbing.
const (
	scrubStep    = 4096 // listed at a time
	scrubKeys    = 128  // read at a time
	scrubConfirm = 8    // looked at once more while the executor waits
	scrubRest    = 9    // of ten parts of the time
)

// scrubStats counts what scrubbing has done and found, for INFO and metrics.
type scrubStats struct {
	passes, keys, found, repaired, adopted atomic.Uint64
	last                                   atomic.Int64 // end of the last pass, Unix ms
}

// scrubView compares the view with the cells, key by key and without hurry, as
// long as the node runs. A key that differs is looked at again at a moment when
// the view has been sent all there is; if it still differs, somebody else has
// written to the view.
func (n *Node) scrubView() {
	if n.cfg.View.Scrub == ScrubOff || n.source.target.Mode == RedisEmbedded {
		return
	}
	for {
		select {
		case <-time.After(n.cfg.View.ScrubInterval):
		case <-n.ctx.Done():
			return
		}
		s := scrubPass{n: n}
		if err := s.run(n.ctx); err != nil && n.ctx.Err() == nil {
			n.slog.Info("scrubbing of the view stopped, it begins anew later", "err", err)
			continue
		}
		n.scrub.passes.Add(1)
		n.scrub.last.Store(time.Now().UnixMilli())
	}
}

// scrubPass is one look at every key of the view and of the cells.
type scrubPass struct {
	n    *Node
	conn *viewConn // of its own
	was  time.Time // when the step under way began
}

var errViewAway = errors.New("the view is being brought level")

func (s *scrubPass) run(ctx context.Context) (err error) {
	if s.conn, err = s.n.source.connect(ctx); err != nil {
		return err
	}
	defer s.conn.Close()
	s.was = time.Now()
	// What the cells have.
	for pos, more := []byte(nil), true; more; {
		snap, err := s.n.log.Snapshot()
		if err != nil {
			return err
		}
		keys := map[uint8][]string{}
		more = false
		left := scrubStep
		err = snap.EachDigest(pos, nil, func(p []byte, _ uint64) bool {
			if left == 0 {
				pos, more = bytes.Clone(p), true
				return false
			}
			left--
			if k, err := oplog.KeyAt(p); err == nil && k.DB < userDBs {
				keys[k.DB] = append(keys[k.DB], k.Name)
			}
			return true
		})
		if err = errors.Join(err, snap.Close()); err != nil {
			return err
		}
		for _, db := range slices.Sorted(maps.Keys(keys)) {
			for part := range slices.Chunk(keys[db], scrubKeys) {
				if err := s.check(ctx, db, part); err != nil {
					return err
				}
				if err := s.rest(ctx); err != nil {
					return err
				}
			}
		}
	}
	// What only the view has.
	return s.conn.scan(ctx, func(db int, names []string) error {
		var strangers []string
		err := s.n.exec.Run(func(c *Core) {
			if c.Commit() != nil {
				return
			}
			c.begin()
			for _, name := range names {
				if c.group.Header(crdt.Key{DB: uint8(db), Name: name}) == nil {
					strangers = append(strangers, name)
				}
			}
			_ = c.Commit()
		})
		if err == nil && len(strangers) > 0 {
			err = s.check(ctx, uint8(db), strangers)
		}
		if err == nil {
			err = s.rest(ctx)
		}
		return err
	})
}

// rest leaves most of the time to others.
func (s *scrubPass) rest(ctx context.Context) error {
	if !s.n.recovery.up.Load() {
		return errViewAway
	}
	select {
	case <-time.After(scrubRest * time.Since(s.was)):
	case <-ctx.Done():
		return ctx.Err()
	}
	s.was = time.Now()
	return nil
}

// check compares keys of a database.
func (s *scrubPass) check(ctx context.Context, db uint8, names []string) error {
	s.n.scrub.keys.Add(uint64(len(names)))
	shown, err := s.read(ctx, db, names)
	if err != nil {
		return err
	}
	var suspects []string
	if err := s.n.exec.Run(func(c *Core) {
		if c.Commit() != nil {
			return
		}
		c.begin()
		for _, name := range names {
			if why := c.differsFromView(crdt.Key{DB: db, Name: name}, shown[name]); why != "" {
				suspects = append(suspects, name)
			}
		}
		_ = c.Commit()
	}); err != nil {
		return err
	}
	for part := range slices.Chunk(suspects, scrubConfirm) {
		var failed error
		if err := s.n.exec.Run(func(c *Core) { failed = s.confirm(ctx, c, db, part) }); err != nil || failed != nil {
			return errors.Join(err, failed)
		}
	}
	return nil
}

// read reads keys of the view.
func (s *scrubPass) read(ctx context.Context, db uint8, names []string) (map[string]*adopted, error) {
	if _, err := s.conn.do(int(db), "PING"); err != nil {
		return nil, err
	}
	list, err := s.conn.read(ctx, names)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*adopted, len(list))
	for i := range list {
		out[list[i].name] = &list[i]
	}
	return out, nil
}

// confirm looks at keys once more when the view has all there is, and does with
// those that still differ what is configured. The executor waits meanwhile.
func (s *scrubPass) confirm(ctx context.Context, c *Core, db uint8, names []string) error {
	c.begin() // hides what has expired by now
	if err := c.Commit(); err != nil {
		return err
	}
	if c.dirty != nil {
		return errViewAway
	}
	if _, err := c.view.Ask(int(db), []byte("PING")); err != nil {
		return err
	}
	shown, err := s.read(ctx, db, names)
	if err != nil {
		return err
	}
	stats := &s.n.scrub
	c.begin()
	var wrong []crdt.Key
	var adopt []adopted
	for _, name := range names {
		k := crdt.Key{DB: db, Name: name}
		why := c.differsFromView(k, shown[name])
		if why == "" {
			continue
		}
		stats.found.Add(1)
		s.n.slog.Error("A KEY WAS CHANGED IN THE REDIS BEHIND THIS NODE, which is the node's alone: let its clients talk to the node, or configure view.scrub",
			"db", db, "key", clipValue([]byte(name)), "what", why, "action", s.n.cfg.View.Scrub)
		wrong = append(wrong, k)
		h := c.group.Header(k)
		if a := shown[name]; a != nil && (h == nil || h.Type != crdt.TypeStream) {
			adopt = append(adopt, *a)
		} else {
			adopt = append(adopt, adopted{name: name, gone: a == nil, mine: a != nil})
		}
	}
	if err := c.Commit(); err != nil || len(wrong) == 0 {
		return err
	}
	switch s.n.cfg.View.Scrub {
	case ScrubRepair:
		stats.repaired.Add(uint64(len(wrong)))
		return c.Rewrite(wrong)
	case ScrubAdopt:
		var rewrite []crdt.Key
		adopt = slices.DeleteFunc(adopt, func(a adopted) bool {
			if a.mine { // streams are served from the cells: what the view has of them means nothing
				rewrite = append(rewrite, crdt.Key{DB: db, Name: a.name})
			}
			return a.mine
		})
		stats.repaired.Add(uint64(len(rewrite)))
		stats.adopted.Add(uint64(len(adopt)))
		if err := c.Rewrite(rewrite); err != nil {
			return err
		}
		return c.adoptKeys(db, adopt, true)
	}
	return nil
}

// differsFromView reports in what way the view shows a key otherwise than the
// cells have it, "" if it does not, or if the key expires about now: the view has a
// clock of its own. shown is nil if the view does not have the key. A group is
// open.
func (c *Core) differsFromView(k crdt.Key, shown *adopted) string {
	h := c.group.Header(k)
	now := c.Now()
	if h != nil && h.Expiry != 0 && h.Expiry != crdt.Never && h.Expiry-now < expiryMargin && now-h.Expiry < expiryMargin {
		return ""
	}
	there := h != nil && !h.Swept && h.Exists(now)
	switch {
	case !there && shown == nil:
		return ""
	case !there:
		return "it was made"
	case shown == nil && c.aboutToEnd(k, h):
		return ""
	case shown == nil:
		return "it was deleted"
	case shown.kind() != h.Type:
		return "its type was changed"
	}
	expiry := h.Expiry
	if expiry == crdt.Never {
		expiry = 0
	}
	slack := int64(0)
	if !shown.exact {
		slack = expiryMargin
	}
	if d := expiry - shown.expiry; d > slack || -d > slack || (expiry == 0) != (shown.expiry == 0) {
		return "its expiry was changed"
	}
	if !c.sameValue(k, h, shown) {
		return "its value was changed"
	}
	return ""
}

// kind returns the type of a key that was read from a view.
func (a *adopted) kind() crdt.Type {
	switch {
	case a.fields != nil:
		return crdt.TypeHash
	case a.set != nil:
		return crdt.TypeSet
	case a.scores != nil:
		return crdt.TypeZSet
	case a.list != nil:
		return crdt.TypeList
	case a.stream != nil:
		return crdt.TypeStream
	}
	return crdt.TypeString
}

// aboutToEnd reports whether all fields of a hash expire about now.
func (c *Core) aboutToEnd(k crdt.Key, h *crdt.Header) bool {
	if h.Type != crdt.TypeHash || h.FieldExpiries() == 0 {
		return false
	}
	now, lasting := c.Now(), h.Len(crdt.KindField)
	crdt.EachFieldExpiry(c.group, k, func(field string, e *crdt.Cell) bool {
		f := c.group.Cell(crdt.CellID{Key: k, Kind: crdt.KindField, Elem: field})
		if at := e.Expiry(); !e.Hidden && at-now < expiryMargin && f != nil && f.Live() {
			lasting--
		}
		return true
	})
	return lasting <= 0
}

// sameFields is sameValue for hashes. What expires about now may be there or not.
func (c *Core) sameFields(k crdt.Key, shown *adopted) bool {
	now := c.Now()
	expiries := map[string]int64{}
	crdt.EachFieldExpiry(c.group, k, func(field string, e *crdt.Cell) bool {
		expiries[field] = e.Expiry()
		return true
	})
	same, count := true, 0
	c.group.EachCell(k, crdt.KindField, func(id crdt.CellID, x *crdt.Cell) bool {
		if !x.Live() {
			return true
		}
		at := expiries[id.Elem]
		v, ok := shown.fields[id.Elem]
		switch {
		case at != 0 && at < now-expiryMargin: // is not to be there
			return true
		case at != 0 && at < now+expiryMargin && !ok:
			return true
		case at == crdt.Never:
			at = 0
		}
		same = ok && v == string(x.Text()) && (!c.fields || shown.due[id.Elem] == at)
		count++
		return same
	})
	return same && count == len(shown.fields)
}

func (c *Core) sameValue(k crdt.Key, h *crdt.Header, shown *adopted) bool {
	if h.Type == crdt.TypeHash {
		return c.sameFields(k, shown)
	}
	if h.Type == crdt.TypeString {
		return bytes.Equal(stringOf(c.group, k), shown.str)
	}
	if h.Type == crdt.TypeStream {
		return true // the view has a placeholder
	}
	members := map[string]bool{}
	for _, m := range shown.set {
		members[m] = true
	}
	scores := map[string]float64{}
	for _, z := range shown.scores {
		scores[fmt.Sprint(z.Member)] = z.Score
	}
	same, count := true, 0
	c.group.EachCell(k, kindOf(h.Type), func(id crdt.CellID, x *crdt.Cell) bool {
		if !x.Live() {
			return true
		}
		switch h.Type {
		case crdt.TypeSet:
			same = members[id.Elem]
		case crdt.TypeZSet:
			v, ok := scores[id.Elem]
			mine, err := strconv.ParseFloat(string(crdt.FormatScore(x.Score())), 64)
			same = ok && err == nil && v == mine
		case crdt.TypeList:
			same = count < len(shown.list) && shown.list[count] == string(x.Text())
		}
		count++
		return same
	})
	return same && count == len(shown.set)+len(shown.scores)+len(shown.list)
}
