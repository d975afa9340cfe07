package wan

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
	"github.com/replicatord/replicatord/internal/wire"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// testNode is a whole replica in memory: cells, log and vector. It is Log and
// Applier of its Peers.
type testNode struct {
	t  testing.TB
	id uint16

	mu      sync.Mutex
	origin  crdt.Stream
	store   *crdttest.Store
	have    crdt.Vector
	durable crdt.Vector
	entries map[crdt.Stream][]crdt.Entry
	trimmed map[crdt.Stream]crdt.Tag
	tag     crdt.Tag
	peers   *Peers

	manual  bool // deliveries wait for release, and durability for sync
	waiting []func()

	// What Applier was told.
	messages         []string
	applied, refused int
	needed           map[uint16][]crdt.Stream
	ahead            []crdt.Vector
	aborted          int
	heard            map[uint16]Heard
	census           uint64
	hear             func(Heard)
	refuse           error // what the next Apply ends with

	verified []string
	syncing  *syncState
	begins   []string // cursors that syncs began from
	part     int      // keys to a part of its snapshots; 0: all
	diff     bool     // it asks for every second key by itself
	asked    []func(states [][]byte, err error)
}

// syncState is what has come of a state sync: the states of each attempt, and
// the vector they hold at.
type syncState struct {
	regions []region
	cursor  []byte
	asked   string // up to where the rest was asked for
}

type region struct {
	vector crdt.Vector
	store  *crdttest.Store
}

// merge merges all of it and returns what the node then has.
func (s *syncState) merge(ks *crdt.Keyspace, mine *crdttest.Store) crdt.Vector {
	var all crdt.Vector // what every region covers
	for _, p := range s.regions[0].vector {
		for _, r := range s.regions {
			p.Tag = min(p.Tag, r.vector.Get(p.Stream))
		}
		all.Set(p.Stream, p.Tag)
	}
	done := map[crdt.Key]bool{}
	for _, r := range s.regions {
		for _, key := range r.store.Keys() {
			crdttest.MergeKey(ks, key, r.store, r.vector)
			done[key] = true
		}
	}
	for _, key := range mine.Keys() {
		if !done[key] {
			crdttest.MergeKey(ks, key, crdttest.New(), all)
		}
	}
	return ks.Have.Join(all)
}

func newTestNode(t testing.TB, id uint16, change func(*Config)) *testNode {
	n := &testNode{t: t, id: id, origin: crdt.NewStream(id, 1, 0), store: crdttest.New(), entries: map[crdt.Stream][]crdt.Entry{},
		trimmed: map[crdt.Stream]crdt.Tag{}, needed: map[uint16][]crdt.Stream{}, heard: map[uint16]Heard{}, tag: crdt.TagAt(epoch.UnixMilli(), id)}
	n.start(change)
	return n
}

// start gives the node fresh Peers, as a restart does.
func (n *testNode) start(change func(*Config)) {
	c := Config{Self: Identity{Cluster: "test", Node: n.id, Alias: fmt.Sprintf("n%d", n.id), Address: fmt.Sprintf("host%d:11001", n.id), Dir: fmt.Sprintf("dir%d", n.id)},
		Log: n, Applier: n}
	if change != nil {
		change(&c)
	}
	p, err := NewPeers(c)
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.peers = p
	n.mu.Unlock()
}

func (n *testNode) keyspace() *crdt.Keyspace {
	return &crdt.Keyspace{Store: n.store, Have: n.have.Clone()}
}

// write makes one entry in a lane and tells the sessions.
func (n *testNode) write(lane crdt.Lane, fn func(*crdt.Writer)) {
	n.mu.Lock()
	n.tag += 1 << 12
	ks := n.keyspace()
	w := crdt.NewWriter(ks, n.origin, n.tag, epoch.UnixMilli())
	w.SetLane(lane)
	fn(w)
	for _, e := range w.Entries() {
		n.entries[e.Stream] = append(n.entries[e.Stream], e)
		n.have.Set(e.Stream, e.Tag)
	}
	if !n.manual {
		n.durable = n.have.Clone()
	}
	p := n.peers
	n.mu.Unlock()
	p.NotifyDurable()
}

func (n *testNode) set(lane crdt.Lane, key, value string) {
	n.write(lane, func(w *crdt.Writer) { w.SetString(crdt.Key{Name: key}, []byte(value), false) })
}

func (n *testNode) incr(key string, by int64) {
	n.write(0, func(w *crdt.Writer) { w.AddElem(crdt.Key{Name: key}, crdt.KindString, "", crdt.Int(by)) })
}

func (n *testNode) get(key string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.store.Cell(crdt.CellID{Key: crdt.Key{Name: key}, Kind: crdt.KindString})
	if c == nil {
		return ""
	}
	return string(c.Text())
}

// trim drops all of the log.
func (n *testNode) trim() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s, es := range n.entries {
		if len(es) > 0 {
			n.trimmed[s] = es[len(es)-1].Tag
			n.entries[s] = nil
		}
	}
}

// release lets what is waiting be applied, and makes all durable.
func (n *testNode) release() bool {
	n.mu.Lock()
	w := n.waiting
	n.waiting = nil
	n.mu.Unlock()
	for _, f := range w {
		f()
	}
	n.mu.Lock()
	risen := !n.durable.Equal(n.have)
	n.durable = n.have.Clone()
	n.mu.Unlock()
	if risen {
		n.peers.NotifyDurable()
	}
	return risen || len(w) > 0
}

func (n *testNode) Origin() crdt.Stream { n.mu.Lock(); defer n.mu.Unlock(); return n.origin }
func (n *testNode) Durable() crdt.Vector {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.durable.Clone()
}
func (n *testNode) Applied() crdt.Vector { n.mu.Lock(); defer n.mu.Unlock(); return n.have.Clone() }

func (n *testNode) Frontier() Frontier {
	n.mu.Lock()
	defer n.mu.Unlock()
	var own crdt.Vector
	for _, p := range n.durable {
		if p.Stream.Node() == n.id {
			own = append(own, p)
		}
	}
	return Frontier{Tag: n.tag, Own: own, Census: n.census}
}

func (n *testNode) Read(s crdt.Stream, after crdt.Tag, maxBytes int, fn func([]byte) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if after < n.trimmed[s] {
		return ErrTrimmed
	}
	bytes := 0
	for _, e := range n.entries[s] {
		if e.Tag <= after || e.Tag > n.durable.Get(s) {
			continue
		}
		b := wire.EncodeEntry(nil, &e)
		if bytes > 0 && bytes+len(b) > maxBytes {
			break
		}
		bytes += len(b)
		if err := fn(b); err != nil {
			return err
		}
	}
	return nil
}

func (n *testNode) Count(s crdt.Stream, after crdt.Tag, limit int) (entries int, bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.entries[s] {
		if e.Tag > after && entries < limit {
			entries++
			bytes += int64(len(appendEntry(nil, &e)))
		}
	}
	return entries, bytes
}

func (n *testNode) Wrote(s crdt.Stream, t crdt.Tag) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return t <= n.trimmed[s] || slices.ContainsFunc(n.entries[s], func(e crdt.Entry) bool { return e.Tag == t })
}

type testSnapshot struct {
	store  *crdttest.Store
	vector crdt.Vector
	keys   []crdt.Key
	part   int // keys to a part; 0: all
	since  *SyncSince
}

func (n *testNode) Snapshot(since *SyncSince) (Snapshot, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.store.Clone()
	return &testSnapshot{s, n.durable.Clone(), s.Keys(), n.part, since}, nil
}

func (s *testSnapshot) Begin([]byte) SyncBegin { return SyncBegin{Vector: s.vector} }
func (s *testSnapshot) Close()                 {}

// A state is the key's name and header, then its cells, each behind its length.
func (s *testSnapshot) Next(cursor []byte, maxBytes int) (SyncKeys, bool, error) {
	i := 0
	if len(cursor) == 4 {
		i = int(binary.BigEndian.Uint32(cursor))
	}
	var out SyncKeys
	size, ends, left := 0, false, uint64(0)
	for ; i < len(s.keys) && !ends && (size == 0 || size < maxBytes); i++ {
		ends = s.part > 0 && i%s.part == s.part-1
		b := s.state(s.keys[i])
		size += len(b)
		if s.since != nil && i%2 == 1 {
			left++
			continue
		}
		out.States = append(out.States, b)
	}
	out.Cursor = binary.BigEndian.AppendUint32(nil, uint32(i))
	out.Last = i == len(s.keys)
	if s.since != nil {
		out.Ranges = []SyncRange{{Upto: out.Cursor, Keys: left, Digest: s.since.Digests[0]}}
	}
	return out, ends && !out.Last, nil
}

func (s *testSnapshot) state(key crdt.Key) []byte {
	b := part(nil, []byte(key.Name))
	b = part(b, s.store.Header(key).AppendBinary(nil))
	s.store.EachCell(key, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
		b = part(b, []byte{byte(id.Kind)})
		b = part(b, []byte(id.Elem))
		b = part(b, c.AppendBinary(nil))
		return true
	})
	return b
}

func (s *testSnapshot) Compare(p *SyncPart) (out SyncRestPart, err error) {
	i := uint32(0)
	if len(p.From) > 0 {
		i = binary.BigEndian.Uint32(p.From)
	}
	for ; i < binary.BigEndian.Uint32(p.Upto); i++ {
		if i%2 == 1 {
			out.States = append(out.States, s.state(s.keys[i]))
		}
	}
	out.Same = p.Hashes
	return out, nil
}

func part(b, p []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
}

func parts(b []byte) (out [][]byte) {
	for len(b) > 0 {
		n := binary.BigEndian.Uint32(b)
		out = append(out, b[4:4+n])
		b = b[4+n:]
	}
	return out
}

func (n *testNode) later(f func()) {
	n.mu.Lock()
	if n.manual {
		n.waiting = append(n.waiting, f)
		n.mu.Unlock()
		return
	}
	n.mu.Unlock()
	f()
}

func (n *testNode) Apply(from uint16, entries []crdt.Entry, done func(error)) {
	n.later(func() {
		n.mu.Lock()
		if err := n.refuse; err != nil {
			n.refuse = nil
			n.refused++
			n.mu.Unlock()
			done(err)
			return
		}
		for i := range entries {
			e := &entries[i]
			if e.Prev > n.have.Get(e.Stream) {
				n.t.Errorf("node %d: gap before %v of %v from %d", n.id, e.Tag, e.Stream, from)
			}
			if e.Tag <= n.have.Get(e.Stream) {
				continue
			}
			n.keyspace().Apply(e)
			n.have.Set(e.Stream, e.Tag)
			n.entries[e.Stream] = append(n.entries[e.Stream], *e)
			n.tag = max(n.tag, e.Tag&^crdt.MaxNode|crdt.Tag(n.id))
			n.applied++
		}
		if !n.manual {
			n.durable = n.have.Clone()
		}
		p := n.peers
		n.mu.Unlock()
		done(nil)
		p.NotifyDurable()
	})
}

func (n *testNode) SyncNeeded(from uint16, origins []crdt.Stream) {
	n.mu.Lock()
	n.needed[from] = append(n.needed[from], origins...)
	n.mu.Unlock()
}

func (n *testNode) BeginSync(_ uint16, b *SyncBegin, done func(error)) {
	n.later(func() {
		n.mu.Lock()
		n.begins = append(n.begins, string(b.Cursor))
		if n.syncing == nil {
			n.syncing = &syncState{}
		}
		n.syncing.asked, n.asked = string(b.Cursor), nil
		n.syncing.regions = append(n.syncing.regions, region{b.Vector, crdttest.New()})
		n.mu.Unlock()
		done(nil)
	})
}

func (n *testNode) ApplyState(from uint16, keys *SyncKeys, done func(error)) {
	n.later(func() {
		if len(keys.Ranges) == 0 {
			n.applyState(keys, done)
			return
		}
		// The step waits for the rest of it.
		n.mu.Lock()
		at := []byte(n.syncing.asked)
		n.syncing.asked = string(keys.Cursor)
		n.asked = append(n.asked, func(states [][]byte, err error) {
			if err != nil {
				done(err)
				return
			}
			all := *keys
			all.States = append(slices.Clone(keys.States), states...)
			n.applyState(&all, done)
		})
		n.mu.Unlock()
		if err := n.peers.CompareSync(from, []SyncPart{{From: at, Upto: keys.Cursor, Hashes: []byte("sixsix")}}); err != nil {
			n.t.Error(err)
		}
	})
}

func (n *testNode) ApplyRest(_ uint16, answers []SyncRestPart, done func(error)) {
	n.later(func() {
		for _, p := range answers {
			if string(p.Same) != "sixsix" {
				n.t.Errorf("an answer of %q", p.Same)
			}
			n.mu.Lock()
			take := n.asked[0]
			n.asked = n.asked[1:]
			n.mu.Unlock()
			take(p.States, nil)
		}
		done(nil)
	})
}

// request asks for a state.
func (n *testNode) request(from uint16, cursor []byte) error {
	if !n.diff {
		return n.peers.RequestSync(from, cursor, nil)
	}
	return n.peers.RequestSync(from, cursor, &SyncSince{Have: n.have.Clone(), Digests: []uint64{1 << 63}})
}

func (n *testNode) applyState(keys *SyncKeys, done func(error)) {
	n.mu.Lock()
	st := n.syncing
	at := st.regions[len(st.regions)-1]
	for _, state := range keys.States {
		p := parts(state)
		key := crdt.Key{Name: string(p[0])}
		h, err := crdt.DecodeHeader(p[1])
		if err != nil {
			n.t.Error(err)
		}
		at.store.SetHeader(key, h)
		for p = p[2:]; len(p) > 0; p = p[3:] {
			c, err := crdt.DecodeCell(p[2])
			if err != nil {
				n.t.Error(err)
			}
			at.store.SetCell(crdt.CellID{Key: key, Kind: crdt.Kind(p[0][0]), Elem: string(p[1])}, c)
		}
	}
	st.cursor = keys.Cursor
	if keys.Last {
		n.have = st.merge(n.keyspace(), n.store)
		for _, p := range n.have {
			if es := n.entries[p.Stream]; len(es) == 0 || es[len(es)-1].Tag < p.Tag {
				n.entries[p.Stream], n.trimmed[p.Stream] = nil, p.Tag
			}
		}
		n.syncing = nil
		n.durable = n.have.Clone()
	}
	n.mu.Unlock()
	done(nil)
	n.peers.NotifyDurable()
}

func (n *testNode) Verify(from uint16, m *Verify) {
	n.mu.Lock()
	n.verified = append(n.verified, fmt.Sprintf("%d: %d %t %v %v", from, m.ID, m.Answer, m.Vector, m.Digests))
	n.mu.Unlock()
	if !m.Answer {
		if err := n.peers.SendVerify(from, &Verify{ID: m.ID, Answer: true, Vector: n.have, Digests: []uint64{7}}); err != nil {
			n.t.Error(err)
		}
	}
}

func (n *testNode) Publish(from uint16, m *Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.messages = append(n.messages, fmt.Sprintf("%d %s %s %v", from, m.Channel, m.Payload, m.Shard))
}

func (n *testNode) AbortSync(uint16) { n.mu.Lock(); n.aborted++; n.mu.Unlock() }

func (n *testNode) Heard(from uint16, h Heard) {
	n.mu.Lock()
	n.heard[from] = h
	n.mu.Unlock()
	if n.hear != nil {
		n.hear(h)
	}
}

func (n *testNode) Ahead(_ uint16, theirs crdt.Vector) {
	n.mu.Lock()
	n.ahead = append(n.ahead, theirs)
	n.mu.Unlock()
}

// link is a connection between two nodes' sessions that delivers one frame at
// a time.
type link struct {
	a, b   *testNode
	sa, sb *Session
	now    *time.Time

	frames int                                  // delivered so far
	bytes  int                                  // of them
	tamper func(from *Session, f []byte) []byte // may change a frame; nil drops it
	log    func(from *Session, f []byte)
}

func connect(t testing.TB, a, b *testNode, now *time.Time) *link {
	t.Helper()
	l := &link{a: a, b: b, now: now}
	var err error
	if l.sa, err = a.peers.Open(*now, Link{Dialled: true, Wake: func() {}}); err != nil {
		t.Fatal(err)
	}
	if l.sb, err = b.peers.Open(*now, Link{Wake: func() {}}); err != nil {
		t.Fatal(err)
	}
	return l
}

// step delivers one frame in a direction; false if there is none.
func (l *link) step(from, to *Session) bool {
	f, _ := from.Next(*l.now)
	if f == nil {
		return false
	}
	l.frames++
	l.bytes += len(f)
	if l.log != nil {
		l.log(from, f)
	}
	f = slices.Clone(f)
	if l.tamper != nil {
		if f = l.tamper(from, f); f == nil {
			return true
		}
	}
	_ = to.Receive(*l.now, f) // the session remembers its error
	return true
}

// once delivers at most one frame each way.
func (l *link) once() bool {
	x := l.step(l.sa, l.sb)
	y := l.step(l.sb, l.sa)
	return x || y
}

// run delivers until nothing is left to send.
func (l *link) run() {
	for l.once() {
	}
}

func (l *link) cut() {
	l.sa.Close(ErrDisconnected)
	l.sb.Close(ErrDisconnected)
}

func same(t testing.TB, nodes ...*testNode) {
	t.Helper()
	for _, n := range nodes[1:] {
		if !n.have.Equal(nodes[0].have) {
			t.Errorf("node %d has %v, node %d %v", nodes[0].id, nodes[0].have, n.id, n.have)
		}
		if n.store.Digest() != nodes[0].store.Digest() {
			t.Errorf("nodes %d and %d differ", nodes[0].id, n.id)
		}
	}
}

func pair(t testing.TB, change func(*Config)) (*testNode, *testNode, *time.Time) {
	now := epoch
	return newTestNode(t, 1, change), newTestNode(t, 2, change), &now
}
