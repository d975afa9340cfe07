package node

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
)

func stateExample() *oplog.KeyState {
	cell := &crdt.Cell{Values: []crdt.Sibling{{Dot: crdt.Dot{Tag: 9, Stream: crdt.NewStream(1, 1, 1)}, Value: []byte("v\x00\r\n")}}}
	return &oplog.KeyState{
		Key:    crdt.Key{DB: 3, Name: "k\x00\r\n"},
		Header: &crdt.Header{Pending: []crdt.KeyPending{{Kind: crdt.KindField, Ctx: vec(4, 4)}}},
		Cells: []oplog.CellState{
			{Kind: crdt.KindField, Elem: "", Data: cell.AppendBinary(nil)},
			{Kind: crdt.KindExpiry, Elem: "", Data: cell.AppendBinary(nil)},
		},
	}
}

func TestStateRoundTrip(t *testing.T) {
	s := stateExample()
	k, err := decodeState(encodeState(s))
	if err != nil {
		t.Fatal(err)
	}
	if k.Key != s.Key || !reflect.DeepEqual(k.Pending, s.Header.Pending) || len(k.Cells) != 2 ||
		!bytes.Equal(k.Cells[0].Cell.AppendBinary(nil), s.Cells[0].Data) || k.Cells[1].Kind != crdt.KindExpiry {
		t.Fatalf("%+v", k)
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add(encodeState(stateExample()))
	f.Add([]byte{16, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := decodeState(b)
		if err != nil {
			return
		}
		s := &oplog.KeyState{Key: k.Key, Header: &crdt.Header{Pending: k.Pending}}
		for _, c := range k.Cells {
			s.Cells = append(s.Cells, oplog.CellState{Kind: c.Kind, Elem: c.Elem, Data: c.Cell.AppendBinary(nil)})
		}
		again, err := decodeState(encodeState(s))
		if err != nil || !reflect.DeepEqual(again, k) {
			t.Fatalf("%+v became %+v, %v", k, again, err)
		}
	})
}
