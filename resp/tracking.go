package resp

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/replicatord/replicatord/resp/command"
)

// invalidateChannel is where RESP2 clients get invalidations from.
const invalidateChannel = "__redis__:invalidate"

// trackState is how a client wants to hear of changes to what it has read
// (CLIENT TRACKING). The lock of trackers holds for it.
type trackState struct {
	on, bcast, optin, optout, noloop bool
	caching                          bool // CLIENT CACHING was said for the next command
	broken                           bool // redirect is gone, and the client was told
	redirect                         int64
	prefixes                         map[string]struct{} // of a bcast client
}

// trackers knows which clients have read what. Keys are not told apart by
// database, as in Redis. Reads and changes are noted in their order.
type trackers struct {
	clients atomic.Int64 // with tracking on
	known   atomic.Int64 // keys in keys

	mu       sync.Mutex
	keys     map[string]map[int64]struct{} // who has read a key, by session id
	items    int64                         // ids in keys
	prefixes map[string]map[*Session]struct{}
}

func (t *trackers) init() {
	t.keys = map[string]map[int64]struct{}{}
	t.prefixes = map[string]map[*Session]struct{}{}
}

// stop ends a client's tracking. What it has read is forgotten when it changes.
func (t *trackers) stop(c *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !c.tracking.on {
		return
	}
	for p := range c.tracking.prefixes {
		delete(t.prefixes[p], c)
		if len(t.prefixes[p]) == 0 {
			delete(t.prefixes, p)
		}
	}
	c.tracking = trackState{}
	c.tracks.Store(false)
	t.clients.Add(-1)
}

// tracksReads reports whether what the client reads with its next command is to
// be tracked.
func (c *Session) tracksReads() bool {
	if !c.tracks.Load() {
		return false
	}
	t := &c.server.trackers
	t.mu.Lock()
	defer t.mu.Unlock()
	st := &c.tracking
	return !(st.optin && !st.caching || st.optout && st.caching)
}

// Track notes that the client reads keys, and wants to be told once when they
// change. It is for the backend that carries out a request which Tracks: before
// it tells the server of any change that comes after the read.
func (c *Session) Track(keys []string) {
	t := &c.server.trackers
	t.mu.Lock()
	defer t.mu.Unlock()
	if !c.tracking.on || c.tracking.bcast {
		return
	}
	for _, key := range keys {
		ids := t.keys[key]
		if ids == nil {
			ids = map[int64]struct{}{}
			t.keys[key] = ids
		}
		if _, had := ids[c.id]; !had {
			ids[c.id] = struct{}{}
			t.items++
		}
	}
	t.shrink(c.server)
	t.known.Store(int64(len(t.keys)))
}

// shrink forgets who has read some keys, and tells them, when there are more
// than the limit.
func (t *trackers) shrink(s *Server) {
	limit := int(s.settings.trackKeys.Load())
	if limit == 0 {
		return
	}
	for key := range t.keys { // in random order, as in Redis
		if len(t.keys) <= limit {
			return
		}
		t.invalidate(s, key, nil)
	}
}

// shrinkNow is for a limit that has just been lowered.
func (t *trackers) shrinkNow(s *Server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shrink(s)
	t.known.Store(int64(len(t.keys)))
}

// invalidate tells those who have read a key that it has changed, and forgets
// them.
func (t *trackers) invalidate(s *Server, key string, by *Session) {
	ids := t.keys[key]
	if ids == nil {
		return
	}
	var m *trackMessage
	for id := range ids {
		c := s.client(id)
		if c == nil || !c.tracking.on || c.tracking.bcast || c == by && c.tracking.noloop {
			continue
		}
		if m == nil {
			m = newTrackMessage([]string{key})
		}
		m.send(c, by)
	}
	t.items -= int64(len(ids))
	delete(t.keys, key)
}

// Tracks reports whether any client wants to be told of changed keys, or some
// are remembered of clients that did.
func (s *Server) Tracks() bool { return s.trackers.clients.Load() > 0 || s.trackers.known.Load() > 0 }

// Changed tells the clients that track them that keys have changed together: by
// a client, or, if that is nil, by another node or the passing of time.
func (s *Server) Changed(by *Session, keys []string) {
	t := &s.trackers
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		t.invalidate(s, k, by)
	}
	t.known.Store(int64(len(t.keys)))
	for p, who := range t.prefixes {
		var hit []string
		for _, k := range keys {
			if len(k) >= len(p) && k[:len(p)] == p {
				hit = append(hit, k)
			}
		}
		if len(hit) == 0 {
			continue
		}
		slices.Sort(hit)
		m := newTrackMessage(slices.Compact(hit))
		for c := range who {
			if c != by || !c.tracking.noloop {
				m.send(c, by)
			}
		}
	}
}

// Flushed tells the clients that track anything that whole databases were
// emptied, by a client or nobody's.
func (s *Server) Flushed(by *Session) {
	t := &s.trackers
	t.mu.Lock()
	defer t.mu.Unlock()
	m := newTrackMessage(nil)
	for _, c := range s.clients() {
		if c.tracking.on {
			m.send(c, by)
		}
	}
	t.keys, t.items = map[string]map[int64]struct{}{}, 0
	t.known.Store(0)
}

// trackMessage is an invalidation in the forms in which clients get it.
type trackMessage struct{ push, channel *message }

// newTrackMessage makes the invalidation of keys; of all there are, if it is
// given nil.
func newTrackMessage(keys []string) *trackMessage {
	list := func(r *command.Reply) {
		if keys == nil {
			r.Null()
			return
		}
		r.Array(len(keys))
		for _, k := range keys {
			r.BulkString(k)
		}
	}
	return &trackMessage{
		push: &message{write: func(r *command.Reply) {
			if r.Proto == 3 { // RESP2 knows no pushes
				r.Push(2)
				r.BulkString("invalidate")
				list(r)
			}
		}},
		channel: &message{write: func(r *command.Reply) {
			if r.Proto == 3 {
				r.Push(2)
				r.BulkString("invalidate")
			} else {
				r.Array(3)
				r.BulkString(subVerbs[toChannel].message)
				r.BulkString(invalidateChannel)
			}
			list(r)
		}},
	}
}

// send sends the invalidation of what by has done to a tracking client, or
// where it has it sent.
// RESP2 clients get none but in a connection that has subscriptions.
func (m *trackMessage) send(c, by *Session) {
	to := c.tracking.redirect
	if to == 0 {
		c.send(m.push, c == by)
		return
	}
	other := c.server.client(to)
	switch {
	case other == nil:
		c.tracking.broken = true
		c.send(&message{write: func(r *command.Reply) {
			if r.Proto == 3 {
				r.Push(2)
				r.BulkString("tracking-redir-broken")
				r.Int(to)
			}
		}}, c == by)
	case other.subscribed():
		other.send(m.channel, other == by)
	default:
		other.send(m.push, other == by)
	}
}

// client returns the session with an id, nil if it has ended, or is about to for
// its client has said so.
func (s *Server) client(id int64) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.sessions[id]
	if c != nil && c.quits.Load() {
		return nil
	}
	return c
}

// afterCaching ends what CLIENT CACHING said, behind the command it was for:
// the next that is none of CLIENT, or the transaction that this begins.
func (c *Session) afterCaching(cmd *command.Command) {
	if !c.cached || c.multi != nil || strings.HasPrefix(cmd.Name, "CLIENT|") {
		return
	}
	c.cached = false
	t := &c.server.trackers
	t.mu.Lock()
	c.tracking.caching = false
	t.mu.Unlock()
}

func clientTracking(c *Session, args [][]byte) {
	want := trackState{on: true}
	var prefixes []string
	for i := 3; i < len(args); i++ {
		more := i+1 < len(args)
		switch opt := args[i]; {
		case equalFold(opt, "redirect") && more:
			i++
			if want.redirect != 0 {
				c.reply.Error("ERR A client can only redirect to a single other client")
				return
			}
			id, ok := parseInt(args[i])
			if !ok {
				c.reply.Error(errNotInteger)
				return
			}
			if c.server.client(id) == nil {
				c.reply.Error("ERR The client ID you want redirect to does not exist")
				return
			}
			want.redirect = id
		case equalFold(opt, "bcast"):
			want.bcast = true
		case equalFold(opt, "optin"):
			want.optin = true
		case equalFold(opt, "optout"):
			want.optout = true
		case equalFold(opt, "noloop"):
			want.noloop = true
		case equalFold(opt, "prefix") && more:
			i++
			prefixes = append(prefixes, string(args[i]))
		default:
			c.reply.Error(errSyntax)
			return
		}
	}
	on, ok := onOff(args[2])
	if !ok {
		c.reply.Error(errSyntax)
		return
	}
	if !on {
		c.server.trackers.stop(c)
		c.reply.OK()
		return
	}
	if err := c.server.trackers.start(c, want, prefixes); err != "" {
		c.reply.Error(err)
		return
	}
	c.reply.OK()
}

// start puts tracking on, or changes how it is done. It returns an error to
// reply.
func (t *trackers) start(c *Session, want trackState, prefixes []string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := &c.tracking
	switch {
	case !want.bcast && len(prefixes) > 0:
		return "ERR PREFIX option requires BCAST mode to be enabled"
	case was.on && was.bcast != want.bcast:
		return "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode."
	case want.bcast && (want.optin || want.optout):
		return "ERR OPTIN and OPTOUT are not compatible with BCAST"
	case want.optin && want.optout:
		return "ERR You can't specify both OPTIN mode and OPTOUT mode"
	case want.optin && was.optout || want.optout && was.optin:
		return "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode."
	}
	for i, p := range prefixes {
		for _, had := range slices.Sorted(maps.Keys(was.prefixes)) {
			if overlap(p, had) {
				return "ERR Prefix '" + shown([]byte(p)) + "' overlaps with an existing prefix '" + shown([]byte(had)) + "'. Prefixes for a single client must not overlap."
			}
		}
		for _, other := range prefixes[i+1:] {
			if overlap(p, other) {
				return "ERR Prefix '" + shown([]byte(p)) + "' overlaps with another provided prefix '" + shown([]byte(other)) + "'. Prefixes for a single client must not overlap."
			}
		}
	}
	if !was.on {
		t.clients.Add(1)
	}
	want.prefixes, want.caching = was.prefixes, was.caching
	if want.bcast {
		if len(prefixes) == 0 {
			prefixes = []string{""}
		}
		if want.prefixes == nil {
			want.prefixes = map[string]struct{}{}
		}
		for _, p := range prefixes {
			want.prefixes[p] = struct{}{}
			if t.prefixes[p] == nil {
				t.prefixes[p] = map[*Session]struct{}{}
			}
			t.prefixes[p][c] = struct{}{}
		}
	}
	*was = want
	c.tracks.Store(!want.bcast)
	return ""
}

// restore brings a client's tracking back to what it was.
func (t *trackers) restore(c *Session, was trackState) {
	t.mu.Lock()
	now := c.tracking
	t.mu.Unlock()
	if now.on == was.on && now.bcast == was.bcast && now.optin == was.optin && now.optout == was.optout && now.noloop == was.noloop &&
		now.redirect == was.redirect && maps.Equal(now.prefixes, was.prefixes) {
		return
	}
	t.stop(c)
	if was.on {
		t.start(c, was, slices.Collect(maps.Keys(was.prefixes)))
	}
}

// overlap reports whether one is a prefix of the other.
func overlap(a, b string) bool {
	n := min(len(a), len(b))
	return a[:n] == b[:n]
}

func clientCaching(c *Session, args [][]byte) {
	t := &c.server.trackers
	t.mu.Lock()
	defer t.mu.Unlock()
	st := &c.tracking
	yes, no := equalFold(args[2], "yes"), equalFold(args[2], "no")
	switch {
	case !st.on:
		c.reply.Error("ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled")
	case yes && !st.optin:
		c.reply.Error("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
	case no && !st.optout:
		c.reply.Error("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
	case !yes && !no:
		c.reply.Error(errSyntax)
	default:
		st.caching, c.cached = true, true
		c.reply.OK()
	}
}

// redirection returns where invalidations go, as CLIENT GETREDIR says it.
func (c *Session) redirection() int64 {
	t := &c.server.trackers
	t.mu.Lock()
	defer t.mu.Unlock()
	if !c.tracking.on {
		return -1
	}
	return c.tracking.redirect
}

func clientGetRedir(c *Session, _ [][]byte) { c.reply.Int(c.redirection()) }

func clientTrackingInfo(c *Session, _ [][]byte) {
	redirect := c.redirection()
	t := &c.server.trackers
	t.mu.Lock()
	defer t.mu.Unlock()
	st := &c.tracking
	flags := []string{"off"}
	if st.on {
		flags[0] = "on"
	}
	for _, f := range []struct {
		name string
		on   bool
	}{
		{"bcast", st.bcast},
		{"optin", st.optin}, {"caching-yes", st.optin && st.caching},
		{"optout", st.optout}, {"caching-no", st.optout && st.caching},
		{"noloop", st.noloop}, {"broken_redirect", st.broken},
	} {
		if f.on {
			flags = append(flags, f.name)
		}
	}
	c.reply.Map(3)
	c.reply.BulkString("flags")
	c.reply.Set(len(flags))
	for _, f := range flags {
		c.reply.BulkString(f)
	}
	c.reply.BulkString("redirect")
	c.reply.Int(redirect)
	c.reply.BulkString("prefixes")
	c.reply.Array(len(st.prefixes))
	for _, p := range slices.SortedFunc(maps.Keys(st.prefixes), func(a, b string) int { return bytes.Compare([]byte(a), []byte(b)) }) {
		c.reply.BulkString(p)
	}
}

// infoTracking adds what INFO says of tracking.
func (t *trackers) info(sec *Section) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sec.Add("tracking_total_keys", itoa(len(t.keys)))
	sec.Add("tracking_total_items", itoa(t.items))
	sec.Add("tracking_total_prefixes", itoa(len(t.prefixes)))
}
