package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

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

// encodeState is the form of docs/STORAGE.md, "State of a key", as one reads it
// there.
func encodeState(k *oplog.KeyState) []byte {
	b := []byte{k.Key.DB}
	b = appendBytes(b, []byte(k.Key.Name))
	var pending []crdt.KeyPending
	if k.Header != nil {
		pending = k.Header.Pending
	}
	b = binary.AppendUvarint(b, uint64(len(pending)))
	for _, p := range pending {
		b = append(b, byte(p.Kind))
		b = appendBytes(b, p.Ctx.AppendBinary(nil))
	}
	for _, c := range k.Cells {
		b = append(b, byte(c.Kind))
		b = appendBytes(b, []byte(c.Elem))
		b = appendBytes(b, c.Data)
	}
	return b
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

// A node that takes in a state sync serves others: each part of its keyspace is
// told with the vector that holds for it, whatever the size of the batches.
func TestSnapshotInParts(t *testing.T) {
	log, err := oplog.Open(oplog.Options{Dir: "data", FS: vfs.NewMem(), Node: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	g := log.Begin()
	ks := crdt.Keyspace{Store: g}
	w := crdt.NewWriter(&ks, crdt.NewStream(1, 1, 0), crdt.TagAt(time.Now().UnixMilli(), 1), time.Now().UnixMilli())
	var keys []string
	for i := range 40 {
		k := crdt.Key{Name: fmt.Sprint("k", i)}
		w.SetString(k, []byte("v"), false)
		keys = append(keys, string(oplog.Pos(k)))
	}
	slices.Sort(keys)
	var r regions
	r.raise([]byte(keys[10]), []byte(keys[20]), vec(2, 5), map[uint8]crdt.Vector{3: vec(2, 4)})
	var absent []string
	for i := range 200 {
		if pos := string(oplog.Pos(crdt.Key{Name: fmt.Sprint("absent", i)})); pos > keys[20] && pos < keys[21] {
			absent = append(absent, pos)
		}
	}
	r.raise([]byte(slices.Min(absent)), []byte(slices.Max(absent)), vec(3, 5), nil) // of no key here
	r.active, r.cursor = true, []byte(keys[20])
	g.SetMeta(regionsMeta, r.encode())
	if err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 100, 1 << 20} {
		snap, err := log.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		s, err := newWanSnapshot(snap, nil, defaultSyncSizes)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		var cursor []byte
		begin := s.Begin(nil)
		for last := false; !last; {
			out, part, err := s.Next(cursor, size)
			if err != nil || len(out.States) == 0 && !part && !out.Last {
				t.Fatalf("%+v, %v", out, err)
			}
			for _, b := range out.States {
				k, err := decodeState(b)
				if err != nil {
					t.Fatal(err)
				}
				pos := oplog.Pos(k.Key)
				if at := r.at(pos); !begin.Vector.Equal(at.vector) || len(begin.DBPending) != len(at.pending) {
					t.Errorf("key %s comes at %v, not %v", k.Key.Name, begin.Vector, at.vector)
				}
				got = append(got, string(pos))
			}
			if last = out.Last; part {
				begin = s.Begin(out.Cursor)
			}
			cursor = out.Cursor
		}
		if !slices.Equal(got, keys) {
			t.Errorf("in batches of %d bytes %d keys came, not %d", size, len(got), len(keys))
		}
		s.Close()
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
