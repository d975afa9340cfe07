package crdt_test

import (
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

// TestVisibleOfReaders: of the positions that two readers reached at once the
// further one shows, whoever came last; and what readers do makes no key.
func TestVisibleOfReaders(t *testing.T) {
	dot := func(tag crdt.Tag) crdt.Dot { return crdt.Dot{Tag: tag, Stream: crdt.NewStream(1, 1, 0)} }
	c := &crdt.Cell{Values: []crdt.Sibling{{Dot: dot(3), Value: []byte("4")}, {Dot: dot(2), Value: []byte("9")}, {Dot: dot(1), Value: []byte("7")}}}
	for kind, want := range map[crdt.Kind]string{crdt.KindPending: "9", crdt.KindGroup: "9", crdt.KindEntry: "4", crdt.KindField: "4", crdt.KindString: "4"} {
		if got := string(c.Visible(kind)); got != want {
			t.Errorf("of the kind %s %s shows, want %s", kind.Name(), got, want)
		}
	}
	c.Counts = []crdt.Count{{Stream: crdt.NewStream(2, 1, 0), Epoch: 1, Tag: 1, Sum: crdt.Int(3)}}
	if got := string(c.Visible(crdt.KindPending)); got != "12" {
		t.Errorf("9 and an increment of 3: %s", got)
	}
	if crdt.KindPending.Type() != crdt.TypeNone || crdt.KindPending.Of() != crdt.TypeStream || crdt.KindExpiry.Of() != crdt.TypeNone {
		t.Error("which keys have cells of a kind, and which a kind makes")
	}
}
