package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/oplog"
	"github.com/replicatord/replicatord/resp/command"
	"github.com/replicatord/replicatord/wan"
)

// verifier compares this node's digests with other members'. Two at the same
// vector hold the same, whatever has expired where: a difference is damage to a
// disk, or a bug.
type verifier struct {
	log   *oplog.Log
	links *links
	slog  *slog.Logger

	answering sync.Mutex // one answer is computed at a time

	mu       sync.Mutex
	next     uint64
	waits    map[uint64]chan *wan.Verify // by question
	verdicts map[uint16]verdict
	damaged  []int // buckets here whose digests are not what the cells give
}

// verdict is the outcome of the last comparison with a member.
type verdict struct {
	at      time.Time // zero: there was none
	vector  crdt.Vector
	buckets []int // that differed
}

// String names the verdict, for REPLICAS.
func (v verdict) String() string {
	switch {
	case v.at.IsZero():
		return "not compared yet"
	case len(v.buckets) > 0:
		return "different"
	}
	return "equal"
}

// Waits of a comparison.
const (
	verifyAnswer = 5 * time.Second        // for an answer
	verifyPause  = 200 * time.Millisecond // until the next try, if vectors were not equal
	verifyTries  = 50
	repairWait   = 10 * time.Minute
	verifyRest   = 9           // of ten parts of the time the background check rests
	verifyCalm   = time.Minute // for which each of its steps waits for a log at rest: a snapshot of one that is not costs its drain
)

var errNotLevel = errors.New("the two nodes were never at the same vector: writes go on, or one lags; try again when it is quieter")

// full returns the node's vector and full digests; none while a state sync has
// brought it only in part where its vector says.
func (v *verifier) full() (crdt.Vector, []uint64, error) {
	s, err := v.log.Snapshot()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = s.Close() }()
	parts, err := s.Meta(regionsMeta)
	if err != nil || parts != nil {
		return s.Vector, nil, err
	}
	d, err := s.FullDigests(0, oplog.Buckets)
	return s.Vector, d, err
}

// take takes a question or an answer. It does not wait.
func (v *verifier) take(from uint16, m *wan.Verify) {
	if m.Answer {
		v.mu.Lock()
		ch := v.waits[m.ID]
		delete(v.waits, m.ID)
		v.mu.Unlock()
		if ch != nil {
			ch <- m
		}
		return
	}
	if !v.answering.TryLock() {
		return // who asks asks again
	}
	go func() {
		defer v.answering.Unlock()
		out, err := v.answer(m)
		if err != nil {
			v.slog.Warn("digests can't be read", "err", err)
			return
		}
		_ = v.links.m.Peers().SendVerify(from, out)
	}()
}

// answer answers a question: of who is at another vector without digests, which
// would be of no use there.
func (v *verifier) answer(q *wan.Verify) (*wan.Verify, error) {
	if at := v.log.Vector(); q.Vector != nil && !q.Vector.Equal(at) {
		return answerVerify(q, at, nil), nil
	}
	vector, digests, err := v.full()
	return answerVerify(q, vector, digests), err
}

// answerVerify answers a question with a node's vector and full digests, none
// if they are not known now.
func answerVerify(q *wan.Verify, vector crdt.Vector, digests []uint64) *wan.Verify {
	out := &wan.Verify{ID: q.ID, Answer: true, Vector: vector, Total: totalOf(digests), Busy: digests == nil}
	if q.Full {
		out.Digests = digests
	}
	return out
}

// totalOf hashes the digests of all buckets.
func totalOf(digests []uint64) uint64 {
	var b []byte
	for _, d := range digests {
		b = binary.BigEndian.AppendUint64(b, d)
	}
	return xxhash.Sum64(b)
}

// ask returns a member's digests, or only their hash; nil if there is no answer. A
// member that is not at this node's vector does not compute them, which would cost
// it a snapshot.
func (v *verifier) ask(ctx context.Context, node uint16, full bool) (*wan.Verify, error) {
	ch := make(chan *wan.Verify, 1)
	v.mu.Lock()
	v.next++
	id := v.next
	v.waits[id] = ch
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		delete(v.waits, id)
		v.mu.Unlock()
	}()
	if err := v.links.m.Peers().SendVerify(node, &wan.Verify{ID: id, Full: full, Vector: v.log.Vector()}); err != nil {
		return nil, err
	}
	t := time.NewTimer(verifyAnswer)
	defer t.Stop()
	select {
	case m := <-ch:
		return m, nil
	case <-t.C:
		return nil, nil // it was dropped, or the link is slow
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// compare compares with a member, at a moment when both are at the same vector.
func (v *verifier) compare(ctx context.Context, node uint16, tries int) (verdict, error) {
	for full := false; tries > 0; tries-- {
		theirs, err := v.ask(ctx, node, full)
		if err != nil {
			return verdict{}, err
		}
		if theirs != nil && !theirs.Busy && (!full || len(theirs.Digests) == oplog.Buckets) && v.log.Vector().Equal(theirs.Vector) {
			at, digests, err := v.full()
			if err != nil {
				return verdict{}, err
			}
			if at.Equal(theirs.Vector) && digests != nil {
				if !full && totalOf(digests) != theirs.Total {
					full = true // it matters which
					continue
				}
				out := verdict{at: time.Now(), vector: at}
				for b, d := range digests {
					if full && d != theirs.Digests[b] {
						out.buckets = append(out.buckets, b)
					}
				}
				v.judge(node, out)
				return out, nil
			}
		}
		select {
		case <-time.After(verifyPause):
		case <-ctx.Done():
			return verdict{}, ctx.Err()
		}
	}
	return verdict{}, errNotLevel
}

// judge keeps a verdict, and raises the alarm if it is a bad one.
func (v *verifier) judge(node uint16, x verdict) {
	v.mu.Lock()
	was := v.verdicts[node]
	v.verdicts[node] = x
	v.mu.Unlock()
	switch {
	case len(x.buckets) > 0:
		v.slog.Error("THIS NODE AND A MEMBER HOLD DIFFERENT DATA at the same vector: a disk is damaged, or there is a bug. VERIFY at the other nodes tells which of them differ from this one; REPAIR at the one that is wrong takes over what another has",
			"member", node, "buckets", len(x.buckets), "first", x.buckets[0], "vector", x.vector.String())
	case len(was.buckets) > 0:
		v.slog.Info("this node and the member hold the same data again", "member", node)
	}
}

func (v *verifier) of(node uint16) verdict {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.verdicts[node]
}

// own looks whether the digests of this node are what its cells give. rest is how
// many times as long as it works it rests; 0 is for somebody who waits.
func (v *verifier) own(ctx context.Context, rest int) ([]int, error) {
	var bad []int
	for from := 0; from < oplog.Buckets; from += ownStep {
		if rest > 0 {
			v.calm(ctx)
		}
		begun := time.Now()
		found, err := v.ownBuckets(from, from+ownStep)
		if err != nil {
			return nil, err
		}
		bad = append(bad, found...)
		select {
		case <-time.After(time.Duration(rest) * time.Since(begun)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	v.mu.Lock()
	v.damaged = bad
	v.mu.Unlock()
	if len(bad) > 0 {
		v.slog.Error("DIGESTS OF THIS NODE ARE NOT WHAT ITS CELLS GIVE: its disk is damaged, or there is a bug. REPAIR takes over what another member has",
			"buckets", len(bad), "first", bad[0])
	}
	return bad, nil
}

// calm waits until the log is at rest, or verifyCalm has passed.
func (v *verifier) calm(ctx context.Context) {
	for end := time.Now().Add(verifyCalm); !v.log.AtRest() && time.Now().Before(end); {
		select {
		case <-time.After(verifyPause):
		case <-ctx.Done():
			return
		}
	}
}

// ownStep is how many buckets are looked at in one snapshot; one is not for
// nothing, it brings the store level.
const ownStep = oplog.Buckets / 16

func (v *verifier) ownBuckets(from, to int) (bad []int, err error) {
	s, err := v.log.Snapshot()
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	kept, err := s.FullDigests(from, to)
	if err != nil {
		return nil, err
	}
	for b := from; b < to; b++ {
		var heads, cells uint64
		low, high := oplog.BucketPos(b), oplog.BucketPos(b+1)
		err := errors.Join(
			s.EachDigest(low, high, func(_ []byte, d uint64) bool { heads += d; return true }),
			s.EachActual(low, high, func(_ []byte, d uint64) bool { cells += d; return true }))
		if err != nil {
			return nil, err
		}
		if kept[b-from] != cells || heads != cells {
			bad = append(bad, b)
		}
	}
	return bad, nil
}

// differences returns how many buckets were found wrong here, and how many
// members were found to differ.
func (v *verifier) differences() (buckets, members int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, x := range v.verdicts {
		if len(x.buckets) > 0 {
			members++
		}
	}
	return len(v.damaged), members
}

// watchDigests compares with every member now and then, one after the other.
func (n *Node) watchDigests() {
	every := n.cfg.WAN.VerifyInterval
	if every == 0 {
		return
	}
	// The first time soon: a node that was away may have come back damaged.
	for wait := min(every, 10*time.Second); ; wait = every {
		select {
		case <-time.After(wait):
		case <-n.ctx.Done():
			return
		}
		if _, err := n.verify.own(n.ctx, verifyRest); err != nil && n.ctx.Err() == nil {
			n.slog.Warn("this node's digests can't be checked", "err", err)
		}
		for _, m := range n.members.List() {
			_, err := n.verify.compare(n.ctx, m.ID, verifyTries)
			if err != nil && !errors.Is(err, errNotLevel) && n.ctx.Err() == nil {
				n.slog.Debug("digests were not compared", "member", m.ID, "err", err)
			}
		}
	}
}

// verifyCommand answers VERIFY [node].
func (n *Node) verifyCommand(out *command.Reply, args [][]byte) error {
	peers, err := n.peersOf(args)
	if err != nil {
		return err
	}
	bad, err := n.verify.own(n.ctx, 0)
	if err != nil {
		return err
	}
	out.Array(len(peers) + 1)
	var f fields
	f.add("node", n.log.Identity().Node)
	f.add("state", cond(len(bad) == 0, "equal", "damaged"))
	f.add("detail", cond(len(bad) == 0, "its digests are what its cells give", "its digests are not what its cells give: REPAIR it"))
	f.add("buckets", len(bad))
	f.add("slots", slotsOf(bad))
	f.reply(out)
	for _, p := range peers {
		v, err := n.verify.compare(n.ctx, p, verifyTries)
		var f fields
		f.add("node", p)
		switch {
		case err != nil:
			f.add("state", "unknown")
			f.add("detail", err)
		default:
			f.add("state", v)
			f.add("detail", cond(len(v.buckets) == 0, "both hold the same", "they hold different data at the same vector: see which node the others agree with, and REPAIR the other"))
		}
		f.add("buckets", len(v.buckets))
		f.add("slots", slotsOf(v.buckets))
		f.reply(out)
	}
	return nil
}

// slotsOf lists the slots of buckets as ranges, the first few of them.
func slotsOf(buckets []int) string {
	const width = crdt.Slots / oplog.Buckets
	s := ""
	for i, b := range buckets {
		if i == 10 {
			return s + " …"
		}
		if i > 0 {
			s += " "
		}
		s += fmt.Sprintf("%d-%d", b*width, b*width+width-1)
	}
	return s
}

// peersOf reads the members a command names: all if none.
func (n *Node) peersOf(args [][]byte) ([]uint16, error) {
	if len(args) > 2 {
		return nil, errors.New("syntax error")
	}
	var out []uint16
	for _, m := range n.members.List() {
		out = append(out, m.ID)
	}
	if len(args) == 1 {
		return out, nil
	}
	id, err := parseID(args[1])
	if err == nil && !slices.Contains(out, id) {
		err = fmt.Errorf("%d is no member; REPLICAS lists them", id)
	}
	return []uint16{id}, err
}

// repairCommand answers REPAIR [node]: what this node holds in another way than
// a member at the same vector is replaced by what that one has.
func (n *Node) repairCommand(out *command.Reply, args [][]byte) error {
	peers, err := n.peersOf(args)
	if err != nil {
		return err
	}
	peers = slices.DeleteFunc(peers, func(p uint16) bool { return !n.links.m.Peers().Live(p) })
	if len(peers) == 0 {
		return errors.New("there is no link to a member to repair from; REPLICAS shows why")
	}
	from := peers[0]
	for _, p := range peers { // one that was found to differ, if there is one
		if len(n.verify.of(p).buckets) > 0 {
			from = p
			break
		}
	}
	if _, err := n.verify.compare(n.ctx, from, verifyTries); err != nil {
		return err
	}
	for range verifyTries {
		ctx, cancel := context.WithTimeout(n.ctx, repairWait)
		p, err := n.applier.Repair(ctx, from)
		cancel()
		if err != nil {
			return err
		}
		for i, k := range p.Repaired {
			if i < 100 {
				n.slog.Warn("repaired", "from", from, "db", k.DB, "key", clipValue([]byte(k.Name)))
			}
		}
		if len(p.Repaired) > 0 {
			n.slog.Warn("keys of this node were replaced by what another has", "from", from, "keys", len(p.Repaired), "complete", !p.Moved)
		}
		if !p.Moved {
			if err := n.recount(); err != nil {
				return err
			}
			_, err := n.verify.compare(n.ctx, from, verifyTries)
			if err != nil && !errors.Is(err, errNotLevel) {
				return err
			}
			out.Int(int64(len(p.Repaired)))
			return nil
		}
		select {
		case <-time.After(verifyPause):
		case <-n.ctx.Done():
			return n.ctx.Err()
		}
	}
	return errNotLevel
}

// recount puts right digests that are not what the cells give.
func (n *Node) recount() error {
	bad, err := n.verify.own(n.ctx, 0)
	if err != nil || len(bad) == 0 {
		return err
	}
	for _, b := range bad {
		var failed error
		if err := n.exec.Run(func(c *Core) { failed = c.Recount(b) }); err != nil || failed != nil {
			return errors.Join(err, failed)
		}
	}
	_, err = n.verify.own(n.ctx, 0)
	return err
}
