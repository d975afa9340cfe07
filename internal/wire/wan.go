package wire

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire/wanpb"
)

// The messages of the WAN protocol as the rest of the program knows them.
// docs/PROTOCOL.md says what each is for; the comments here only add what a
// field name does not say. Every type has Encode, which cannot fail, and a
// Decode function, whose errors wrap crdt.ErrCorrupt: they check form and
// range, not sense. Decoders allocate in proportion to their input, which the
// caller has bounded.

// WanMagic is the first field of a Hello, so that a stranger that speaks
// another protocol is told so.
const WanMagic = "replicatord"

// Hello opens a connection, from both ends.
type Hello struct {
	MinVersion, MaxVersion uint32

	Cluster string
	Node    uint16
	Alias   string
	Nonce   []byte
	Secret  bool   // a proof of the cluster secret is asked for
	Address string // where the sender says it can be reached
	Dir     string // identity of its data directory
	Boot    []byte // of its process

	Subscription *Subscription // of a subscriber, whose Node is 0
}

// Subscription says which changes a subscriber wishes to get: those that fit
// in each respect.
type Subscription struct {
	Databases []uint8     // none: all
	Patterns  [][]byte    // of keys' names; none: all
	Lanes     []crdt.Lane // none: all
}

// Encode returns the message's bytes.
func (m *Hello) Encode() []byte {
	out := &wanpb.Hello{Magic: WanMagic, MinVersion: m.MinVersion, MaxVersion: m.MaxVersion, Cluster: m.Cluster,
		Node: uint32(m.Node), Alias: m.Alias, Nonce: m.Nonce, Secret: m.Secret, Address: m.Address, Dir: m.Dir, Boot: m.Boot}
	if s := m.Subscription; s != nil {
		out.Subscription = &wanpb.Subscription{Databases: s.Databases, Patterns: s.Patterns}
		for _, l := range s.Lanes {
			out.Subscription.Lanes = append(out.Subscription.Lanes, byte(l))
		}
	}
	return encode(out)
}

// DecodeHello reads a Hello.
func DecodeHello(b []byte) (*Hello, error) {
	var m wanpb.Hello
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	if m.Magic != WanMagic {
		return nil, corrupt("Hello: not of this protocol")
	}
	if m.Node > crdt.MaxNode || (m.Node == 0) != (m.Subscription != nil) {
		return nil, corrupt("Hello: node id %d", m.Node)
	}
	out := &Hello{MinVersion: m.MinVersion, MaxVersion: m.MaxVersion, Cluster: m.Cluster, Node: uint16(m.Node),
		Alias: m.Alias, Nonce: m.Nonce, Secret: m.Secret, Address: m.Address, Dir: m.Dir, Boot: m.Boot}
	if s := m.Subscription; s != nil {
		out.Subscription = &Subscription{Databases: s.Databases, Patterns: s.Patterns}
		for _, l := range s.Lanes {
			if l >= crdt.Lanes {
				return nil, corrupt("Hello: lane %d", l)
			}
			out.Subscription.Lanes = append(out.Subscription.Lanes, crdt.Lane(l))
		}
	}
	return out, nil
}

// Proof shows that its sender knows the cluster secret.
type Proof struct{ MAC []byte }

// Encode returns the message's bytes.
func (m *Proof) Encode() []byte { return encode(&wanpb.Proof{Mac: m.MAC}) }

// DecodeProof reads a Proof.
func DecodeProof(b []byte) (*Proof, error) {
	var m wanpb.Proof
	err := decode(b, &m)
	return &Proof{MAC: m.Mac}, err
}

// HelloAck is the first message under the session's keys.
type HelloAck struct {
	Version  uint32
	Region   string
	Origin   crdt.Stream
	Durable  crdt.Vector
	Window   [crdt.Lanes]uint64
	MaxBatch uint64
}

// Encode returns the message's bytes.
func (m *HelloAck) Encode() []byte {
	return encode(&wanpb.HelloAck{Version: m.Version, Region: m.Region, Origin: uint64(m.Origin),
		Durable: m.Durable.AppendBinary(nil), Window: m.Window[:], MaxBatch: m.MaxBatch})
}

// DecodeHelloAck reads a HelloAck.
func DecodeHelloAck(b []byte) (*HelloAck, error) {
	var m wanpb.HelloAck
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	v, err := vector(m.Durable)
	if err != nil {
		return nil, err
	}
	if len(m.Window) != crdt.Lanes {
		return nil, corrupt("HelloAck: %d windows", len(m.Window))
	}
	out := &HelloAck{Version: m.Version, Region: m.Region, Origin: crdt.Stream(m.Origin), Durable: v, MaxBatch: m.MaxBatch}
	copy(out.Window[:], m.Window)
	return out, nil
}

// SessionError ends a session.
type SessionError struct {
	Code uint32
	Text string
}

// Encode returns the message's bytes.
func (m *SessionError) Encode() []byte { return encode(&wanpb.Error{Code: m.Code, Text: m.Text}) }

// DecodeSessionError reads an Error.
func DecodeSessionError(b []byte) (*SessionError, error) {
	var m wanpb.Error
	err := decode(b, &m)
	return &SessionError{Code: m.Code, Text: m.Text}, err
}

// Want replaces the set of origins whose streams its sender wishes to get.
type Want struct{ Origins []WantOrigin }

// WantOrigin is one origin and how far its streams have been applied.
type WantOrigin struct {
	Origin    crdt.Stream
	Positions crdt.Vector
}

// Encode returns the message's bytes.
func (m *Want) Encode() []byte {
	out := &wanpb.Want{}
	for _, o := range m.Origins {
		out.Origins = append(out.Origins, &wanpb.Want_Origin{Origin: uint64(o.Origin), Positions: o.Positions.AppendBinary(nil)})
	}
	return encode(out)
}

// DecodeWant reads a Want.
func DecodeWant(b []byte) (*Want, error) {
	var m wanpb.Want
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	out := &Want{Origins: make([]WantOrigin, len(m.Origins))}
	for i, o := range m.Origins {
		v, err := vector(o.Positions)
		if err != nil {
			return nil, err
		}
		w := WantOrigin{crdt.Stream(o.Origin), v}
		if w.Origin != w.Origin.Origin() {
			return nil, corrupt("Want: an origin with a lane")
		}
		for _, p := range v {
			if p.Stream.Origin() != w.Origin || p.Stream.Lane() >= crdt.Lanes {
				return nil, corrupt("Want: a position of another origin")
			}
		}
		out.Origins[i] = w
	}
	return out, nil
}

// Credit grants more bytes in a lane.
type Credit struct {
	Lane  crdt.Lane
	Bytes uint64
}

// Encode returns the message's bytes.
func (m *Credit) Encode() []byte {
	return encode(&wanpb.Credit{Lane: uint32(m.Lane), Bytes: m.Bytes})
}

// DecodeCredit reads a Credit.
func DecodeCredit(b []byte) (*Credit, error) {
	var m wanpb.Credit
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	if m.Lane >= crdt.Lanes {
		return nil, corrupt("Credit: lane %d", m.Lane)
	}
	return &Credit{crdt.Lane(m.Lane), m.Bytes}, nil
}

// Ack tells how its sender's durable vector has risen. Whole says that with it
// all of the vector, as it was at one moment, has been told.
type Ack struct {
	Durable crdt.Vector
	Whole   bool
}

// Encode returns the message's bytes.
func (m *Ack) Encode() []byte {
	return encode(&wanpb.Ack{Durable: m.Durable.AppendBinary(nil), Whole: m.Whole})
}

// DecodeAck reads an Ack.
func DecodeAck(b []byte) (*Ack, error) {
	var m wanpb.Ack
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	v, err := vector(m.Durable)
	return &Ack{v, m.Whole}, err
}

// Heartbeat tells where its sender's clock stands.
type Heartbeat struct {
	Ping      uint64
	Tag       crdt.Tag
	Positions crdt.Vector
	Census    uint64
	Feeds     []crdt.Stream // origins
}

// Encode returns the message's bytes.
func (m *Heartbeat) Encode() []byte {
	out := &wanpb.Heartbeat{Ping: m.Ping, Tag: uint64(m.Tag), Positions: m.Positions.AppendBinary(nil), Census: m.Census}
	for _, o := range m.Feeds {
		out.Feeds = append(out.Feeds, uint64(o))
	}
	return encode(out)
}

// DecodeHeartbeat reads a Heartbeat.
func DecodeHeartbeat(b []byte) (*Heartbeat, error) {
	var m wanpb.Heartbeat
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	v, err := vector(m.Positions)
	out := &Heartbeat{Ping: m.Ping, Tag: crdt.Tag(m.Tag), Positions: v, Census: m.Census}
	for _, o := range m.Feeds {
		if s := crdt.Stream(o); s != s.Origin() || s.Node() == 0 {
			return nil, corrupt("Heartbeat: %v is no origin", s)
		}
		out.Feeds = append(out.Feeds, crdt.Stream(o))
	}
	return out, err
}

// Pong answers heartbeats, and chunks that ask for it. Received and Clock are 0
// before version 4.
type Pong struct{ Ping, Reached, Received, Clock uint64 }

// Encode returns the message's bytes.
func (m *Pong) Encode() []byte {
	return encode(&wanpb.Pong{Ping: m.Ping, Reached: m.Reached, Received: m.Received, Clock: m.Clock})
}

// DecodePong reads a Pong.
func DecodePong(b []byte) (*Pong, error) {
	var m wanpb.Pong
	err := decode(b, &m)
	return &Pong{m.Ping, m.Reached, m.Received, m.Clock}, err
}

// SyncNeeded says which origins the log can no longer serve as wanted.
type SyncNeeded struct{ Origins []crdt.Stream }

// Encode returns the message's bytes.
func (m *SyncNeeded) Encode() []byte {
	out := &wanpb.SyncNeeded{}
	for _, o := range m.Origins {
		out.Origins = append(out.Origins, uint64(o))
	}
	return encode(out)
}

// DecodeSyncNeeded reads a SyncNeeded.
func DecodeSyncNeeded(b []byte) (*SyncNeeded, error) {
	var m wanpb.SyncNeeded
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	out := &SyncNeeded{}
	for _, o := range m.Origins {
		out.Origins = append(out.Origins, crdt.Stream(o))
	}
	return out, nil
}

// SyncRequest asks for the state from a cursor on.
type SyncRequest struct {
	Cursor []byte
	ID     uint64 // rises with each request of a session
	Since  *SyncSince
}

// SyncSince says that only what differs is asked for, and what the asker has.
type SyncSince struct {
	Have    crdt.Vector
	Digests []uint64 // of the buckets, or none
	// ByBucket says that the asker can ask for ranges. It is not sent: the version
	// says so.
	ByBucket bool
}

// Encode returns the message's bytes.
func (m *SyncRequest) Encode() []byte {
	out := &wanpb.SyncRequest{Cursor: m.Cursor, Id: m.ID}
	if m.Since != nil {
		out.Diff, out.Have, out.Digests = true, m.Since.Have.AppendBinary(nil), m.Since.Digests
	}
	return encode(out)
}

// DecodeSyncRequest reads a SyncRequest.
func DecodeSyncRequest(b []byte) (*SyncRequest, error) {
	var m wanpb.SyncRequest
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	out := &SyncRequest{Cursor: m.Cursor, ID: m.Id}
	if !m.Diff {
		return out, nil
	}
	v, err := vector(m.Have)
	out.Since = &SyncSince{Have: v, Digests: m.Digests}
	return out, err
}

// SyncBegin opens a state sync.
type SyncBegin struct {
	Vector    crdt.Vector
	Known     []SyncKnown
	DBPending []SyncDBPending
	Cursor    []byte
	ID        uint64 // of the request
	ByBucket  bool   // the sender can be asked for ranges; not sent either
}

// SyncKnown is what a stream's origin is known to have seen.
type SyncKnown struct {
	Stream  crdt.Stream
	Context crdt.Vector
}

// SyncDBPending is the context of a database's removes beyond the vector.
type SyncDBPending struct {
	DB      uint8
	Context crdt.Vector
}

// Encode returns the message's bytes.
func (m *SyncBegin) Encode() []byte {
	out := &wanpb.SyncBegin{Vector: m.Vector.AppendBinary(nil), Cursor: m.Cursor, Id: m.ID}
	for _, k := range m.Known {
		out.Known = append(out.Known, &wanpb.SyncBegin_Known{Stream: uint64(k.Stream), Context: k.Context.AppendBinary(nil)})
	}
	for _, p := range m.DBPending {
		out.DbPending = append(out.DbPending, &wanpb.SyncBegin_DBPending{Db: uint32(p.DB), Context: p.Context.AppendBinary(nil)})
	}
	return encode(out)
}

// DecodeSyncBegin reads a SyncBegin.
func DecodeSyncBegin(b []byte) (*SyncBegin, error) {
	var m wanpb.SyncBegin
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	v, err := vector(m.Vector)
	if err != nil {
		return nil, err
	}
	out := &SyncBegin{Vector: v, Cursor: m.Cursor, ID: m.Id}
	for _, k := range m.Known {
		v, err := vector(k.Context)
		if err != nil {
			return nil, err
		}
		out.Known = append(out.Known, SyncKnown{crdt.Stream(k.Stream), v})
	}
	for _, p := range m.DbPending {
		v, err := vector(p.Context)
		if err != nil {
			return nil, err
		}
		if p.Db > 255 {
			return nil, corrupt("SyncBegin: database %d", p.Db)
		}
		out.DBPending = append(out.DBPending, SyncDBPending{uint8(p.Db), v})
	}
	return out, nil
}

// SyncKeys carries states of keys, in the form of docs/STORAGE.md.
type SyncKeys struct {
	States [][]byte
	Cursor []byte
	Last   bool
	// Ranges tell, in a sync by difference, of what is not among the states.
	Ranges []SyncRange
}

// SyncRange is a range of keys, from where the one before ends up to a
// position.
type SyncRange struct {
	Upto   []byte // empty: the end
	Keys   uint64 // that are left out, or more
	Digest uint64 // sum of theirs
}

// Encode returns the message's bytes.
func (m *SyncKeys) Encode() []byte {
	return encode(&wanpb.SyncKeys{States: m.States, Cursor: m.Cursor, Last: m.Last, Ranges: encodeRanges(m.Ranges)})
}

func encodeRanges(ranges []SyncRange) (out []*wanpb.SyncRange) {
	for _, r := range ranges {
		out = append(out, &wanpb.SyncRange{Upto: r.Upto, Keys: r.Keys, Digest: r.Digest})
	}
	return out
}

func decodeRanges(ranges []*wanpb.SyncRange) (out []SyncRange) {
	for _, r := range ranges {
		out = append(out, SyncRange{r.Upto, r.Keys, r.Digest})
	}
	return out
}

// syncKeysStates is the number of the field.
const syncKeysStates = 1

// DecodeSyncKeys reads a SyncKeys, whose states are pieces of b: there are many.
func DecodeSyncKeys(b []byte) (*SyncKeys, error) {
	var states [][]byte
	var rest []byte
	for left := b; len(left) > 0; {
		num, typ, n := protowire.ConsumeField(left)
		if n < 0 {
			return nil, corrupt("SyncKeys: %v", protowire.ParseError(n))
		}
		if num == syncKeysStates && typ == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(left)
			state, _ := protowire.ConsumeBytes(left[tag:n])
			states = append(states, state[:len(state):len(state)])
		} else {
			rest = append(rest, left[:n]...)
		}
		left = left[n:]
	}
	var m wanpb.SyncKeys
	if err := decode(rest, &m); err != nil {
		return nil, err
	}
	return &SyncKeys{States: states, Cursor: m.Cursor, Last: m.Last, Ranges: decodeRanges(m.Ranges)}, nil
}

// SyncHash is the size of what SyncCompare tells of a key, in bytes.
const SyncHash = 6

// SyncCompare tells what its sender has in ranges whose digests differ.
type SyncCompare struct {
	ID    uint64
	Parts []SyncPart
	Done  bool // the sync is complete, or given up
}

// SyncPart is one range of a SyncCompare.
type SyncPart struct {
	From, Upto []byte
	Hashes     []byte // SyncHash bytes for each key
	All        bool   // there are too many: all that was left out is wanted
	Ranges     bool   // ranges of the part are wanted, not keys
}

// Encode returns the message's bytes.
func (m *SyncCompare) Encode() []byte {
	out := &wanpb.SyncCompare{Id: m.ID, Done: m.Done}
	for _, p := range m.Parts {
		out.Parts = append(out.Parts, &wanpb.SyncCompare_Part{From: p.From, Upto: p.Upto, Hashes: p.Hashes, All: p.All, Ranges: p.Ranges})
	}
	return encode(out)
}

// DecodeSyncCompare reads a SyncCompare.
func DecodeSyncCompare(b []byte) (*SyncCompare, error) {
	var m wanpb.SyncCompare
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	out := &SyncCompare{ID: m.Id, Done: m.Done}
	for _, p := range m.Parts {
		if len(p.Hashes)%SyncHash != 0 {
			return nil, corrupt("SyncCompare: %d bytes of hashes", len(p.Hashes))
		}
		out.Parts = append(out.Parts, SyncPart{p.From, p.Upto, p.Hashes, p.All, p.Ranges})
	}
	return out, nil
}

// SyncRest answers a SyncCompare, part by part.
type SyncRest struct {
	ID    uint64
	Parts []SyncRestPart
}

// SyncRestPart answers one part.
type SyncRestPart struct {
	Same   []byte // a bit for each hash: that key is the same there
	States [][]byte
	Ranges []SyncRange // if they were asked for; none: all keys are among the states
}

// Encode returns the message's bytes.
func (m *SyncRest) Encode() []byte {
	out := &wanpb.SyncRest{Id: m.ID}
	for _, p := range m.Parts {
		out.Parts = append(out.Parts, &wanpb.SyncRest_Part{Same: p.Same, States: p.States, Ranges: encodeRanges(p.Ranges)})
	}
	return encode(out)
}

// DecodeSyncRest reads a SyncRest.
func DecodeSyncRest(b []byte) (*SyncRest, error) {
	var m wanpb.SyncRest
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	out := &SyncRest{ID: m.Id}
	for _, p := range m.Parts {
		out.Parts = append(out.Parts, SyncRestPart{p.Same, p.States, decodeRanges(p.Ranges)})
	}
	return out, nil
}

// Verify asks for the digests of a peer's buckets, or answers.
type Verify struct {
	ID      uint64
	Answer  bool
	Vector  crdt.Vector
	Digests []uint64 // of all buckets, full, if the question asked for them
	Total   uint64   // hash of them
	Full    bool     // the digests are asked for
	Busy    bool     // the answer: not known now
}

// Encode returns the message's bytes.
func (m *Verify) Encode() []byte {
	return encode(&wanpb.Verify{Id: m.ID, Answer: m.Answer, Vector: m.Vector.AppendBinary(nil), Digests: m.Digests,
		Total: m.Total, Full: m.Full, Busy: m.Busy})
}

// DecodeVerify reads a Verify.
func DecodeVerify(b []byte) (*Verify, error) {
	var m wanpb.Verify
	if err := decode(b, &m); err != nil {
		return nil, err
	}
	v, err := vector(m.Vector)
	return &Verify{m.Id, m.Answer, v, m.Digests, m.Total, m.Full, m.Busy}, err
}

// Publish is a message for the receiver's clients that listen to a channel.
type Publish struct {
	Channel, Payload []byte
	Shard            bool
}

// Encode returns the message's bytes.
func (m *Publish) Encode() []byte {
	return encode(&wanpb.Publish{Channel: m.Channel, Payload: m.Payload, Shard: m.Shard})
}

// DecodePublish reads a Publish, into memory of its own.
func DecodePublish(b []byte) (*Publish, error) {
	var m wanpb.Publish
	err := decode(b, &m)
	return &Publish{m.Channel, m.Payload, m.Shard}, err
}

// vector reads a vector; no bytes at all are the empty one.
func vector(b []byte) (crdt.Vector, error) {
	if len(b) == 0 {
		return nil, nil
	}
	return crdt.DecodeVector(b)
}

func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		// Only text that is not UTF-8 can fail, and configuration allows none.
		panic(fmt.Sprintf("wire: encoding %T: %v", m, err))
	}
	return b
}

func decode(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return corrupt("%s: %v", m.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", crdt.ErrCorrupt, fmt.Sprintf(format, args...))
}
