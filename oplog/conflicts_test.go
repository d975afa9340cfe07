package oplog

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
)

// The newest conflicts are kept, over restarts, and no more than that many.
func TestConflictsAreBounded(t *testing.T) {
	fs := vfs.NewMem()
	open := func() *Log {
		l, err := Open(Options{Dir: "d", FS: fs, Node: 1})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	n := 0
	add := func(many int) {
		g := l.Begin()
		for range many {
			k := crdt.Key{Name: fmt.Sprint(n)}
			n++
			g.AddConflict(crdt.Conflict{
				Visible: crdt.Rival{ID: crdt.CellID{Key: k, Kind: crdt.KindField, Elem: "f"}, Sibling: crdt.Sibling{Dot: crdt.Dot{Tag: 2, Stream: 1}, Value: make([]byte, 5000)}},
				Hidden:  crdt.Rival{ID: crdt.CellID{Key: k, Kind: crdt.KindString}, Sibling: crdt.Sibling{Dot: crdt.Dot{Tag: 1, Stream: 2}, Value: []byte("v")}},
			}, time.UnixMilli(int64(n)))
		}
		if err := g.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	for i, many := range []int{3, maxConflicts - 1, 1, maxConflicts + 7, 0, 5} {
		add(many)
		if i%2 == 1 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open()
		}
		want, seen := n, 0
		err := l.Conflicts(func(c crdt.Conflict, at time.Time) bool {
			want--
			seen++
			if c.Visible.ID.Key.Name != fmt.Sprint(want) || at.UnixMilli() != int64(want+1) || len(c.Visible.Value) != 1024 || string(c.Hidden.Value) != "v" {
				t.Fatalf("conflict %d: %+v at %v", want, c, at)
			}
			return true
		})
		if err != nil || seen != min(n, maxConflicts) {
			t.Fatalf("%d of %d conflicts, %v", seen, n, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
