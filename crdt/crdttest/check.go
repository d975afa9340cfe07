package crdttest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/replicatord/replicatord/crdt"
)

// LiveCells returns what is live in a store, by cell: what must be the same at
// replicas with the same vector. keep, if not nil, chooses keys.
func (s *Store) LiveCells(keep func(crdt.Key) bool) []Live {
	var out []Live
	for _, key := range s.Keys() {
		if keep != nil && !keep(key) {
			continue
		}
		s.EachCell(key, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
			if l, ok := liveOf(id, c); ok {
				out = append(out, l)
			}
			return true
		})
	}
	return out
}

func liveOf(id crdt.CellID, c *crdt.Cell) (Live, bool) {
	l := Live{ID: id, Values: c.Values}
	for i := range c.Counts {
		if k := &c.Counts[i]; k.Live() {
			l.Counts = append(l.Counts, LiveCount{k.Stream, k.Epoch, k.Tag, k.Amount()})
		}
	}
	return l, len(l.Values) > 0 || len(l.Counts) > 0
}

// Same reports whether two lists of live cells are the same.
func Same(a, b []Live) bool {
	return slices.EqualFunc(a, b, func(a, b Live) bool {
		return a.ID == b.ID &&
			slices.EqualFunc(a.Values, b.Values, func(a, b crdt.Sibling) bool {
				return a.Dot == b.Dot && string(a.Value) == string(b.Value)
			}) &&
			slices.EqualFunc(a.Counts, b.Counts, func(a, b LiveCount) bool {
				return a.Stream == b.Stream && a.Epoch == b.Epoch && a.Tag == b.Tag && a.Amount.Equal(b.Amount)
			})
	})
}

// Check recomputes from its cells all that a store keeps of them: the headers'
// counts, types, expiries and digests, and the sum of the digests. It returns
// what does not agree.
func (s *Store) Check() error {
	var errs []error
	var total uint64
	for _, key := range s.Keys() {
		h := s.Header(key)
		if h == nil {
			errs = append(errs, fmt.Errorf("key %q has cells but no header", key.Name))
			continue
		}
		var live, rest int
		var counts [256]int
		var digest uint64
		var newest crdt.Dot
		typ, expiry := crdt.TypeNone, int64(0)
		past := map[string]bool{} // fields whose expiry says so
		s.EachCell(key, crdt.KindExpiry, func(id crdt.CellID, c *crdt.Cell) bool {
			if field, ok := id.Field(); ok {
				past[field] = c.Hidden
			}
			if c.Hidden && (id.Elem == "" || !c.Live()) {
				errs = append(errs, fmt.Errorf("key %q: %v hides nothing", key.Name, id))
			}
			return true
		})
		var hidden uint32
		s.EachCell(key, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
			digest += c.Digest(id)
			if !c.Live() {
				rest++
				return true
			}
			live++
			if id.Kind == crdt.KindField && past[id.Elem] {
				hidden++
				return true
			}
			counts[id.Kind]++
			if id.Kind == crdt.KindExpiry && id.Elem == "" {
				expiry = c.Expiry()
			}
			if d := c.Newest(); id.Kind.Type() != crdt.TypeNone && d.Compare(newest) > 0 {
				newest, typ = d, id.Kind.Type()
			}
			return true
		})
		for kind := range h.Live {
			if h.Len(crdt.Kind(kind)) != counts[kind] {
				errs = append(errs, fmt.Errorf("key %q: %d live cells of kind %d, the header says %d", key.Name, counts[kind], kind, h.Live[kind]))
			}
		}
		if h.Hidden != hidden {
			errs = append(errs, fmt.Errorf("key %q: %d hidden fields, the header says %d", key.Name, hidden, h.Hidden))
		}
		if int(h.Rest) != rest {
			errs = append(errs, fmt.Errorf("key %q: %d cells with nothing live, the header says %d", key.Name, rest, h.Rest))
		}
		if h.Type != typ || h.Expiry != expiry || h.Digest != digest {
			errs = append(errs, fmt.Errorf("key %q: type %v, expiry %d, digest %x, the header says %v, %d, %x", key.Name, typ, expiry, digest, h.Type, h.Expiry, h.Digest))
		}
		if h.Empty() {
			errs = append(errs, fmt.Errorf("key %q: an empty header is stored", key.Name))
		}
		if !h.Swept {
			total += digest
		}
	}
	if total != s.digest {
		errs = append(errs, fmt.Errorf("the digests sum up to %x, the store says %x", total, s.digest))
	}
	return errors.Join(errs...)
}

// Remnants lists what is stored beside live cells: remnants of removes and
// pending contexts. What is only about writes that are lost is left out; lost
// may be nil.
func (s *Store) Remnants(lost func(crdt.Dot) bool) []string {
	if lost == nil {
		lost = func(crdt.Dot) bool { return false }
	}
	waits := func(v crdt.Vector) bool {
		return slices.ContainsFunc(v, func(p crdt.Position) bool { return !lost(crdt.Dot{Tag: p.Tag, Stream: p.Stream}) })
	}
	var out []string
	for _, key := range s.Keys() {
		if h := s.Header(key); h != nil {
			for _, p := range h.Pending {
				if waits(p.Ctx) {
					out = append(out, fmt.Sprintf("key %q: pending %v", key.Name, p))
				}
			}
		}
		s.EachCell(key, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
			rest := slices.ContainsFunc(c.Counts, func(k crdt.Count) bool {
				return !k.Live() && !lost(crdt.Dot{Tag: k.ResetTag, Stream: k.Stream})
			})
			if rest || waits(c.Pending) || c.Empty() {
				out = append(out, fmt.Sprintf("cell %v: %+v", id, *c))
			}
			return true
		})
	}
	for db := range 256 {
		if p := s.DBPending(uint8(db)); waits(p) {
			out = append(out, fmt.Sprintf("database %d: pending %v", db, p))
		}
	}
	return out
}

// MergeKey joins another replica's state of one key into a keyspace, as a
// state sync does for each key that either side has.
func MergeKey(ks *crdt.Keyspace, key crdt.Key, o crdt.Store, theirs crdt.Vector) {
	var pending []crdt.KeyPending
	if h := o.Header(key); h != nil {
		pending = h.Pending
	}
	db := o.DBPending(key.DB)
	var ids []crdt.CellID
	for _, s := range []crdt.Store{ks.Store, o} {
		s.EachCell(key, crdt.KindAny, func(id crdt.CellID, _ *crdt.Cell) bool {
			ids = append(ids, id)
			return true
		})
	}
	slices.SortFunc(ids, compareIDs)
	for _, id := range slices.Compact(ids) {
		c := o.Cell(id)
		if c == nil {
			c = &crdt.Cell{}
		}
		if ks.AstrayState(id, c) {
			panic(fmt.Sprintf("cell %v is refused: %+v", id, *c))
		}
		ks.Merge(id, c, theirs, crdt.Outer(db, pending, id.Kind))
	}
	ks.MergePending(key, pending, theirs)
}

// Merge joins the whole state of another replica into a keyspace, whose vector
// rises to what both have.
func Merge(ks *crdt.Keyspace, s, o *Store, theirs crdt.Vector) {
	keys := append(s.Keys(), o.Keys()...)
	slices.SortFunc(keys, func(a, b crdt.Key) int { return compareIDs(crdt.CellID{Key: a}, crdt.CellID{Key: b}) })
	for _, k := range slices.Compact(keys) {
		MergeKey(ks, k, o, theirs)
	}
	ks.Have = ks.Have.Join(theirs)
	for db := range o.pending {
		ks.MergeDBPending(db, o.DBPending(db))
	}
}

// Tidy drops all remnants that have had their time; known is as for
// crdt.Keyspace.Tidy.
func Tidy(ks *crdt.Keyspace, s *Store, known func(crdt.Stream) crdt.Vector) {
	for _, key := range s.Keys() {
		s.EachCell(key, crdt.KindAny, func(id crdt.CellID, _ *crdt.Cell) bool {
			ks.Tidy(id, known)
			return true
		})
		ks.TidyKey(key)
	}
	for db := range s.pending {
		ks.TidyDB(db)
	}
}
