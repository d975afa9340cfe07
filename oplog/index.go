package oplog

import (
	"bytes"
	"errors"
	"math"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/replicatord/replicatord/crdt"
)

// expiryCache remembers the earliest expiry that is indexed.
type expiryCache struct {
	mu    sync.Mutex
	valid bool
	next  int64 // 0: none
	floor int64 // nothing is indexed before it: where to look from
	gen   uint64
}

// committed notes that a commit has added expiries, the earliest at added, or
// taken some away.
func (c *expiryCache) committed(added int64, gone bool) {
	if added == 0 && !gone {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	if added != 0 {
		c.floor = min(c.floor, added)
		if c.next == 0 || added < c.next {
			c.next = added
		}
	}
	if gone {
		c.valid = false
	}
}

// NextExpiry returns when the next key or field expires, in Unix milliseconds, 0
// if none does. It costs nothing between changes.
func (l *Log) NextExpiry() int64 {
	c := &l.expiry
	c.mu.Lock()
	next, valid, floor, gen := c.next, c.valid, c.floor, c.gen
	c.mu.Unlock()
	if valid {
		return next
	}
	next = 0
	_ = l.eachExpiry(floor, math.MaxInt64, func(at int64, _ crdt.CellID) bool {
		next = at
		return false
	}) // a store that cannot be read says so to whoever needs it next
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen == gen {
		c.next, c.valid = next, true
		if next != 0 {
			c.floor = next // spares the next search the deleted rows before it
		}
	}
	return next
}

// Expired returns up to limit expiries, of keys and of fields, that are not after
// now, the earliest first: those that are due to be swept.
func (l *Log) Expired(now int64, limit int) []crdt.CellID {
	l.expiry.mu.Lock()
	floor := l.expiry.floor
	l.expiry.mu.Unlock()
	var out []crdt.CellID
	_ = l.eachExpiry(floor, now, func(_ int64, id crdt.CellID) bool {
		out = append(out, id)
		return len(out) < limit
	})
	return out
}

func (l *Log) eachExpiry(from, to int64, fn func(at int64, id crdt.CellID) bool) error {
	low := appendExpiryKey(nil, from, crdt.CellID{})[:9]
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: []byte{rangeExpiries + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		var at int64
		var id crdt.CellID
		if at, id, err = cutExpiryKey(it.Key()); err != nil || at > to || !fn(at, id) {
			break
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}

// cursors say where the next step of a round over an index begins, so that
// what cannot be done yet holds up nothing behind it.
type cursors struct {
	mu              sync.Mutex
	remnants, swept []byte
}

// round returns up to limit rows of an index, from where the round before
// ended, and begins anew behind the last.
func (l *Log) round(r byte, cursor *[]byte, limit int, fn func(key []byte) error) error {
	l.cursors.mu.Lock()
	defer l.cursors.mu.Unlock()
	low := *cursor
	if low == nil {
		low = []byte{r}
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: []byte{r + 1}})
	if err != nil {
		return err
	}
	*cursor = nil
	n := 0
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		if n == limit {
			*cursor = bytes.Clone(it.Key())
			break
		}
		err = fn(it.Key()[1:])
		n++
	}
	return errors.Join(err, it.Error(), it.Close())
}

// Swept returns up to limit expiries of keys and fields that have expired and been
// hidden, for the caller to purge. Each call goes on where the last one ended;
// after the end it begins anew.
func (l *Log) Swept(limit int) []crdt.CellID {
	var out []crdt.CellID
	_ = l.round(rangeSwept, &l.cursors.swept, limit, func(b []byte) error {
		id, err := cutExpiry(b)
		out = append(out, id)
		return err
	})
	return out
}

// Remnant names a cell that holds something that is not live, a key with
// pending contexts (ID.Kind is crdt.KindAny), or a database with some (DB).
type Remnant struct {
	ID crdt.CellID
	DB bool
}

// Remnants returns up to limit remnants, and the databases with pending
// contexts beside them, for Tidy. Each call goes on where the last one ended;
// after the end it begins anew.
func (l *Log) Remnants(limit int) []Remnant {
	var out []Remnant
	l.mu.Lock()
	for db, v := range &l.pending {
		if len(v) > 0 {
			out = append(out, Remnant{ID: crdt.CellID{Key: crdt.Key{DB: uint8(db)}}, DB: true})
		}
	}
	l.mu.Unlock()
	_ = l.round(rangeRemnants, &l.cursors.remnants, limit, func(b []byte) error {
		id, _, err := cutCell(b)
		if err == nil {
			out = append(out, Remnant{ID: id})
		}
		return err
	})
	return out
}

// Tidy drops of a remnant what has had its time (crdt.Keyspace.Tidy), and
// reports whether that was anything. What did not change is not written.
func (g *Group) Tidy(ks *crdt.Keyspace, r Remnant, known func(crdt.Stream) crdt.Vector) bool {
	switch {
	case r.DB:
		was := g.DBPending(r.ID.Key.DB)
		now := was.Beyond(ks.Have)
		if len(now) == len(was) {
			return false
		}
		g.SetDBPending(r.ID.Key.DB, now)
		return true
	case r.ID.Kind == crdt.KindAny:
		s := g.loadHeader(r.ID.Key)
		if s.header == nil {
			return false
		}
		dirty, was := s.dirty, pendingLen(s.header)
		ks.TidyKey(r.ID.Key)
		changed := pendingLen(s.header) != was
		s.dirty = dirty || changed
		return changed
	}
	s := g.loadCell(r.ID)
	c := g.open(s)
	if c == nil {
		return false
	}
	key := g.last
	dirty, header, pending, counts := s.dirty, key.dirty, len(c.Pending), len(c.Counts)
	ks.Tidy(r.ID, known)
	changed := len(c.Pending) != pending || len(c.Counts) != counts
	s.dirty = dirty || changed
	if !changed {
		key.dirty = header
	}
	return changed
}

func pendingLen(h *crdt.Header) (n int) {
	for _, p := range h.Pending {
		n += len(p.Ctx)
	}
	return n
}
