package node

import (
	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
)

// watches are the keys that connections watch (WATCH) until their next EXEC,
// which does nothing if one of them has changed: by this or another client, by a peer's
// entry, by time. They belong to the core.
type watches struct {
	bySession map[*resp.Session]*watch
	byKey     map[crdt.Key][]*watch
}

type watch struct {
	// keys, each with whether it was there when it was first watched. A key
	// that was not is not changed by what leaves it so, such as a delete of
	// what had expired.
	keys  map[crdt.Key]bool
	dirty bool
}

func newWatches() watches {
	return watches{bySession: map[*resp.Session]*watch{}, byKey: map[crdt.Key][]*watch{}}
}

// sessionWatches are those of one connection, as its commands see them.
type sessionWatches struct {
	core *Core
	s    *resp.Session
}

// Watch implements command.Watches.
func (w sessionWatches) Watch(k crdt.Key) {
	ws := &w.core.watches
	mine := ws.bySession[w.s]
	if mine == nil {
		mine = &watch{keys: map[crdt.Key]bool{}}
		ws.bySession[w.s] = mine
	}
	if _, ok := mine.keys[k]; ok || mine.dirty {
		return
	}
	mine.keys[k] = w.core.exists(k)
	ws.byKey[k] = append(ws.byKey[k], mine)
}

// Unwatch implements command.Watches.
func (w sessionWatches) Unwatch() { w.core.watches.take(w.s) }

// take forgets what a connection watches, and returns it; nil for nothing.
func (ws *watches) take(s *resp.Session) *watch {
	w := ws.bySession[s]
	if w != nil {
		delete(ws.bySession, s)
		ws.drop(w)
	}
	return w
}

// drop takes a watch off its keys.
func (ws *watches) drop(w *watch) {
	for k := range w.keys {
		list := ws.byKey[k]
		for i, o := range list {
			if o == w {
				list[i] = list[len(list)-1]
				list = list[:len(list)-1]
				break
			}
		}
		if len(list) == 0 {
			delete(ws.byKey, k)
		} else {
			ws.byKey[k] = list
		}
	}
}

// noteWatched marks the connections that watch a key which a unit has changed.
func (c *Core) noteWatched(k crdt.Key) {
	if len(c.watches.byKey) == 0 {
		return
	}
	list := append([]*watch(nil), c.watches.byKey[k]...)
	for _, w := range list {
		if !w.keys[k] && !c.exists(k) {
			continue
		}
		w.dirty = true
		c.watches.drop(w)
	}
}

// exists reports whether a key is there, in the open group.
func (c *Core) exists(k crdt.Key) bool {
	h := c.group.Header(k)
	return h != nil && !h.Swept && h.Exists(c.Now())
}

// fails takes a connection's watches and reports whether its transaction must
// do nothing: a key has changed, or has expired by now.
func (c *Core) fails(s *resp.Session) bool {
	w := c.watches.take(s)
	if w == nil {
		return false
	}
	for k, was := range w.keys {
		if was && !c.exists(k) {
			return true
		}
	}
	return w.dirty
}
