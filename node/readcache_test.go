package node

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// headers is a store of which a readCache asks for headers.
type headers map[crdt.Key]*crdt.Header

func (h headers) Header(k crdt.Key) *crdt.Header              { return h[k] }
func (h headers) KnownHeader(k crdt.Key) (*crdt.Header, bool) { return h[k], h[k] != nil }

// TestReadCache: what makes a kept reply void, and what is not kept at all.
func TestReadCache(t *testing.T) {
	r := newReadCache(minReadCache)
	k := crdt.Key{DB: 3, Name: "k"}
	store := headers{k: {Type: crdt.TypeString}}
	request := func(db uint8, proto int, args ...string) *resp.Request {
		q := &resp.Request{DB: db, Proto: proto}
		for _, a := range args {
			q.Args = append(q.Args, []byte(a))
		}
		q.Cmd = command.Lookup(q.Args)
		return q
	}
	get := request(3, 2, "get", "k")
	recalls := func(q *resp.Request) bool {
		q.Out = nil
		n := r.recall([]*resp.Request{q})
		if n == 1 && string(q.Out) != "$1\r\nv\r\n" || n == 0 && q.Out != nil {
			t.Fatalf("recalled %d, %q", n, q.Out)
		}
		return n == 1
	}
	keep := func() {
		t.Helper()
		r.keep(get, r.seen(get, store, 0), []byte("$1\r\nv\r\n"))
		if !recalls(get) {
			t.Fatal("not kept")
		}
	}
	keep()
	for _, other := range []*resp.Request{
		request(0, 2, "get", "k"), request(3, 3, "get", "k"), request(3, 2, "strlen", "k"), request(3, 2, "get", "kk"),
		request(3, 2, "hget", "k", "f"), request(3, 2, "ttl", "k"), request(3, 2, "mget", "k"),
	} {
		if recalls(other) {
			t.Errorf("%q in database %d has the reply of another", other.Args, other.DB)
		}
	}
	r.changed(k)
	if recalls(get) {
		t.Error("recalled after the key changed")
	}
	keep()
	r.forget()
	if recalls(get) {
		t.Error("recalled after everything changed")
	}
	keep()
	stamp := r.stampOf(3, []byte("k"))
	stamp.Store(^uint32(0))
	keep()
	r.changed(k)
	stamp.Store(^uint32(0)) // as after four thousand million changes more
	if recalls(get) {
		t.Error("recalled after the stamps have gone round")
	}

	// A change between the read and its reply.
	v := r.seen(get, store, 0)
	r.changed(k)
	r.keep(get, v, []byte("$1\r\nv\r\n"))
	if recalls(get) {
		t.Error("kept although the key has changed meanwhile")
	}

	// Expiry.
	store[k].Expiry = time.Now().Add(time.Hour).UnixMilli()
	keep()
	store[k].Expiry = time.Now().Add(-time.Second).UnixMilli()
	r.keep(get, r.seen(get, store, 0), []byte("$1\r\nv\r\n")) // it was there by the time of the read
	if recalls(get) {
		t.Error("recalled after its expiry")
	}
	store[k].Expiry = 0

	// What is not kept.
	r.forget()
	for name, why := range map[string]func() (validity, []byte){
		"an error":      func() (validity, []byte) { return r.seen(get, store, 0), []byte("-ERR\r\n") },
		"a large reply": func() (validity, []byte) { return r.seen(get, store, 0), make([]byte, maxKept+1) },
		"no reply":      func() (validity, []byte) { return r.seen(get, store, 0), nil },
		"of no key":     func() (validity, []byte) { return r.seen(get, headers{k: {}}, 0), []byte("$-1\r\n") },
		"of a swept key": func() (validity, []byte) {
			return r.seen(get, headers{k: {Type: 1, Swept: true}}, 0), []byte("$-1\r\n")
		},
		"of a stream":     func() (validity, []byte) { return r.seen(get, headers{k: {Type: crdt.TypeStream}}, 0), []byte("+\r\n") },
		"the first asked": func() (validity, []byte) { return r.seen(get, headers{}, 0), []byte("$-1\r\n") },
	} {
		v, reply := why()
		r.keep(get, v, reply)
		if r.recall([]*resp.Request{get}) > 0 {
			t.Errorf("%s was kept", name)
		}
	}

	// A key that only the store knows is looked up when it is read again.
	far := &lookups{header: &crdt.Header{Type: crdt.TypeString}}
	q := request(0, 2, "get", "far")
	for i := range 3 {
		kept := r.seen(q, far, 0) != validity{}
		if kept != (i > 0) || far.n != i {
			t.Errorf("read %d: kept %v, %d lookups", i, kept, far.n)
		}
	}

	var none *readCache
	none.changed(k)
	none.forget()
	none.keep(get, none.seen(get, store, 0), []byte("+\r\n"))
	if none.recall([]*resp.Request{get}) > 0 || none.hitCount()+none.missCount() != 0 {
		t.Error("a cache that is off keeps something")
	}
}

// lookups counts how often the store is asked.
type lookups struct {
	header *crdt.Header
	n      int
}

func (l *lookups) KnownHeader(crdt.Key) (*crdt.Header, bool) { return nil, false }
func (l *lookups) Header(crdt.Key) *crdt.Header              { l.n++; return l.header }

// TestRecallAllocatesNothing: of a reply that is kept.
func TestRecallAllocatesNothing(t *testing.T) {
	r := newReadCache(minReadCache)
	q := &resp.Request{Proto: 2, Args: [][]byte{[]byte("get"), []byte("key")}}
	q.Cmd = command.Lookup(q.Args)
	r.keep(q, r.seen(q, headers{{Name: "key"}: {Type: crdt.TypeString}}, 0), []byte("$1\r\nv\r\n"))
	qs := slices.Repeat([]*resp.Request{q}, looksMost+2)
	if n := testing.AllocsPerRun(100, func() {
		if r.recall(qs) != len(qs) {
			t.Fatal("not kept")
		}
	}); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// TestRecallInOrder: replies are recalled to reads that are alone, whichever are kept, and
// else to the first of several requests, up to one that is not kept, and none behind it;
// each is that of its request.
func TestRecallInOrder(t *testing.T) {
	r := newReadCache(minReadCache)
	reply := func(i int) []byte { return []byte("$3\r\n" + strconv.Itoa(100+i) + "\r\n") }
	expires := time.Now().Add(time.Hour).UnixMilli()
	var reqs []*resp.Request
	for i := range 3 * looksMost {
		name := "key" + strconv.Itoa(i)
		q := &resp.Request{Proto: 2, Args: [][]byte{[]byte("get"), []byte(name)}}
		q.Cmd = command.Lookup(q.Args)
		h := &crdt.Header{Type: crdt.TypeString}
		if i == 1 || i == 40 {
			h.Expiry = expires
		}
		r.keep(q, r.seen(q, headers{{Name: name}: h}, 0), reply(i))
		reqs = append(reqs, q)
	}
	recalled := func(list []*resp.Request, given func(i int) bool) {
		t.Helper()
		for _, q := range list {
			q.Out = nil
		}
		hits, want := r.hitCount(), 0
		n := r.recall(list)
		for i, q := range list {
			if !given(i) {
				if q.Out != nil {
					t.Errorf("request %d has %q", i, q.Out)
				}
				continue
			}
			if want++; string(q.Out) != string(reply(i)) {
				t.Errorf("request %d has %q", i, q.Out)
			}
		}
		if n != want || r.hitCount() != hits+uint64(want) {
			t.Errorf("recalled %d and counted %d, want %d", n, r.hitCount()-hits, want)
		}
	}
	write := &resp.Request{Proto: 2, Args: [][]byte{[]byte("set"), []byte("key5"), []byte("v")}}
	write.Cmd = command.Lookup(write.Args)
	for missing := range len(reqs) + 1 {
		list := slices.Clone(reqs)
		if missing < len(reqs) {
			list[missing] = write
		}
		recalled(list, func(i int) bool { return i < missing })
	}
	r.changed(crdt.Key{Name: "key20"})
	r.changed(crdt.Key{Name: "key35"})
	recalled(append(slices.Clone(reqs), write), func(i int) bool { return i < 20 })
	// One that expires is not given behind what is missing: it might end meanwhile.
	recalled(reqs, func(i int) bool { return i != 20 && i != 35 && i != 40 })

	early := slices.Concat(reqs[21:35], reqs[36:40], reqs[41:])
	holding := func(want int) {
		t.Helper()
		if n := r.holding(early); n != want {
			t.Errorf("%d of %d hold, want %d", n, len(early), want)
		}
	}
	holding(len(early))
	r.changed(crdt.Key{Name: "key5"}) // not one of them
	r.changed(crdt.Key{DB: 1, Name: "key30"})
	holding(len(early))
	r.changed(crdt.Key{Name: "key30"})
	holding(9)
	r.forget()
	holding(0)
}
