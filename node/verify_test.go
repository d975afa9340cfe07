package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/wan"
)

// A node brings its store level for digests only where these are of use: not for a
// member at another vector, and not while it is written to, for as long as the check
// in the background can wait.
func TestDigestsOfANodeAtWork(t *testing.T) {
	c := newBareCore(t, time.Now, &sentView{})
	v := &verifier{log: c.log}
	c.Do(request(nil, "SET", "key", "value"))
	if err := c.Commit(); err != nil {
		t.Fatal(err)
	}
	if c.log.AtRest() {
		t.Fatal("nothing is owed to the store: this test shows nothing")
	}
	elsewhere := crdt.Vector{{Stream: crdt.NewStream(2, 1, 0), Tag: 1}}
	out, err := v.answer(&wan.Verify{ID: 7, Full: true, Vector: elsewhere})
	if err != nil || !out.Answer || out.ID != 7 || !out.Busy || out.Digests != nil || !out.Vector.Equal(c.log.Vector()) {
		t.Errorf("to a member at another vector: busy %v, %d digests, at %v, %v", out.Busy, len(out.Digests), out.Vector, err)
	}
	if c.log.AtRest() {
		t.Error("that answer brought the store level")
	}
	waited, stop := context.WithTimeout(t.Context(), 2*verifyPause)
	defer stop()
	if v.calm(waited); !errors.Is(waited.Err(), context.DeadlineExceeded) {
		t.Error("the check did not wait for a log at rest")
	}
	for _, at := range []crdt.Vector{c.log.Vector(), nil} { // nil: of a member of an earlier version
		out, err = v.answer(&wan.Verify{Full: true, Vector: at})
		if err != nil || out.Busy || len(out.Digests) != oplog.Buckets || out.Total != totalOf(out.Digests) || !out.Vector.Equal(c.log.Vector()) {
			t.Errorf("to a member at %v: busy %v, %d digests, %v", at, out.Busy, len(out.Digests), err)
		}
	}
	if !c.log.AtRest() {
		t.Error("digests were computed of rows that are behind")
	}
	begun := time.Now()
	if v.calm(t.Context()); time.Since(begun) >= verifyCalm {
		t.Error("the check waited although the log is at rest")
	}
	if bad, err := v.own(t.Context(), 1); err != nil || len(bad) > 0 {
		t.Errorf("its own digests: %v, %v", bad, err)
	}
}
