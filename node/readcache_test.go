package node

import (
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
	defer r.stop()
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
		b, ok := r.recall([]byte("before "), q)
		if ok && string(b) != "before $1\r\nv\r\n" || !ok && string(b) != "before " {
			t.Fatalf("recalled %q, %v", b, ok)
		}
		return ok
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
		if _, ok := r.recall(nil, get); ok {
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
	none.stop()
	none.keep(get, none.seen(get, store, 0), []byte("+\r\n"))
	if _, ok := none.recall(nil, get); ok || none.hitCount()+none.missCount() != 0 {
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
	defer r.stop()
	q := &resp.Request{Proto: 2, Args: [][]byte{[]byte("get"), []byte("key")}}
	q.Cmd = command.Lookup(q.Args)
	r.keep(q, r.seen(q, headers{{Name: "key"}: {Type: crdt.TypeString}}, 0), []byte("$1\r\nv\r\n"))
	dst := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := r.recall(dst, q); !ok {
			t.Fatal("not kept")
		}
	}); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}
