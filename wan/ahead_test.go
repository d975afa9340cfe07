package wan

import (
	"errors"
	"io"
	"testing"
)

// What is read ahead stays in order, within its bound, and comes before the end.
func TestAhead(t *testing.T) {
	a := newAhead()
	const frames, size = 100, MaxChunk
	go func() {
		b := make([]byte, size)
		for i := range frames {
			b[0] = byte(i)
			a.put(b)
		}
		a.put(make([]byte, MaxFrame)) // more than the bound, alone
		a.finish(io.EOF)
	}()
	for i := range frames {
		f, err := a.take()
		if err != nil || len(f) != size || f[0] != byte(i) {
			t.Fatalf("frame %d: %d bytes, %v", i, len(f), err)
		}
		a.mu.Lock()
		held := a.bytes
		a.mu.Unlock()
		if held > maxAhead {
			t.Fatalf("%d bytes are held, at most %d are to", held, maxAhead)
		}
		a.give(f)
	}
	if f, err := a.take(); err != nil || len(f) != MaxFrame {
		t.Fatalf("the last: %d bytes, %v", len(f), err)
	} else {
		a.give(f)
	}
	if _, err := a.take(); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
	for _, f := range a.spare {
		if cap(f) > 2*MaxChunk {
			t.Errorf("%d bytes are kept", cap(f))
		}
	}
}
