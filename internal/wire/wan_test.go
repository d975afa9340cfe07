package wire

import (
	"errors"
	"reflect"
	"testing"

	"github.com/replicatord/replicatord/crdt"
)

// wanMessages pairs each message with its decoder.
func wanMessages() map[string]struct {
	message interface{ Encode() []byte }
	decode  func([]byte) (any, error)
} {
	type pair = struct {
		message interface{ Encode() []byte }
		decode  func([]byte) (any, error)
	}
	o := crdt.NewStream(7, 1<<40, 0)
	v := crdt.Vector{{Stream: o | 1, Tag: 5}, {Stream: o | 3, Tag: 1 << 62}}
	return map[string]pair{
		"Hello": {&Hello{1, 2, "c", 4095, "a", []byte{1}, true, "x:1", "d", []byte{2}, nil}, func(b []byte) (any, error) { return DecodeHello(b) }},
		"subscriber's Hello": {&Hello{1, 2, "c", 0, "a", []byte{1}, true, "", "", []byte{2}, &Subscription{[]uint8{0, 255}, [][]byte{[]byte("a*"), {}}, []crdt.Lane{0, 3}}},
			func(b []byte) (any, error) { return DecodeHello(b) }},
		"Proof":       {&Proof{[]byte{1, 0}}, func(b []byte) (any, error) { return DecodeProof(b) }},
		"HelloAck":    {&HelloAck{1, "eu", o, v, [crdt.Lanes]uint64{1, 2, 0, 1 << 63}, 9}, func(b []byte) (any, error) { return DecodeHelloAck(b) }},
		"Error":       {&SessionError{5, "why"}, func(b []byte) (any, error) { return DecodeSessionError(b) }},
		"Want":        {&Want{[]WantOrigin{{o, v}, {o + 16, nil}}}, func(b []byte) (any, error) { return DecodeWant(b) }},
		"Credit":      {&Credit{3, 1 << 63}, func(b []byte) (any, error) { return DecodeCredit(b) }},
		"Ack":         {&Ack{v, true}, func(b []byte) (any, error) { return DecodeAck(b) }},
		"Heartbeat":   {&Heartbeat{1, 1 << 63, v, 1 << 63, []crdt.Stream{o}}, func(b []byte) (any, error) { return DecodeHeartbeat(b) }},
		"Pong":        {&Pong{1, 2, 3, 4}, func(b []byte) (any, error) { return DecodePong(b) }},
		"SyncNeeded":  {&SyncNeeded{[]crdt.Stream{o, 0}}, func(b []byte) (any, error) { return DecodeSyncNeeded(b) }},
		"SyncRequest": {&SyncRequest{[]byte{0, 1}, 3, nil}, func(b []byte) (any, error) { return DecodeSyncRequest(b) }},
		"SyncRequest by difference": {&SyncRequest{[]byte{0, 1}, 3, &SyncSince{v, []uint64{0, 1 << 63}, false}},
			func(b []byte) (any, error) { return DecodeSyncRequest(b) }},
		"SyncBegin": {&SyncBegin{v, []SyncKnown{{o, v}}, []SyncDBPending{{15, v}}, []byte{1}, 2, false},
			func(b []byte) (any, error) { return DecodeSyncBegin(b) }},
		"SyncKeys": {&SyncKeys{[][]byte{{1}, {0, 2}}, []byte{3}, true, []SyncRange{{[]byte{7}, 9, 1 << 63}, {nil, 1, 2}}},
			func(b []byte) (any, error) { return DecodeSyncKeys(b) }},
		"SyncCompare": {&SyncCompare{2, []SyncPart{{[]byte{1}, []byte{2}, []byte("sixsix"), true, false}, {nil, []byte{3}, nil, false, true}}, true},
			func(b []byte) (any, error) { return DecodeSyncCompare(b) }},
		"Verify":   {&Verify{7, true, v, []uint64{0, 1}, 1 << 63, true, true}, func(b []byte) (any, error) { return DecodeVerify(b) }},
		"SyncRest": {&SyncRest{2, []SyncRestPart{{[]byte{1}, [][]byte{{2}, {3}}, nil}, {nil, nil, []SyncRange{{[]byte{4}, 2, 3}, {nil, 0, 1}}}}}, func(b []byte) (any, error) { return DecodeSyncRest(b) }},
	}
}

func TestWanMessages(t *testing.T) {
	for name, m := range wanMessages() {
		b := m.message.Encode()
		got, err := m.decode(b)
		if err != nil || !reflect.DeepEqual(got, m.message) {
			t.Errorf("%s: %+v came back as %+v, %v", name, m.message, got, err)
		}
		for cut := 1; cut < len(b); cut++ {
			// What was cut may be a shorter message, but not the same one.
			if got, err := m.decode(b[:cut]); err == nil && reflect.DeepEqual(got, m.message) {
				t.Errorf("%s: the last %d bytes mean nothing", name, len(b)-cut)
			}
		}
		if _, err := m.decode([]byte{0xff}); !errors.Is(err, crdt.ErrCorrupt) {
			t.Errorf("%s: garbage gives %v", name, err)
		}
	}
}

func FuzzWanMessages(f *testing.F) {
	for _, m := range wanMessages() {
		f.Add(m.message.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, m := range wanMessages() {
			got, err := m.decode(b)
			if err != nil {
				if !errors.Is(err, crdt.ErrCorrupt) {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			again, err := m.decode(got.(interface{ Encode() []byte }).Encode())
			if err != nil || !reflect.DeepEqual(got, again) {
				t.Errorf("%s: %+v came back as %+v, %v", name, got, again, err)
			}
		}
	})
}
