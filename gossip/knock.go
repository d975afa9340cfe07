package gossip

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// A knock is one question and one answer, on a connection of its own to the
// gossip port, before memberlist is let at the other side: "here is who I am,
// may I join?". memberlist's own exchange cannot carry a refusal: each side
// decides alone, after it has sent its state, and the other never learns.
//
//	"RK" · version · mode · u16 length · payload
//
// Mode 0 is plain, mode 1 sealed (AES-256-GCM under the cluster's secret). A
// question is 16 random bytes and a card; an answer a code, the card of the
// one who answers and, for codeSameID, that of the one who holds the id. A
// sealed answer is bound to its question by the random bytes. A plain answer to
// a sealed question, or the other way round, can be nothing but a code about
// the secret.
const (
	knockMagic   = "RK" // no message of memberlist begins with R
	knockVersion = 1

	modePlain  = 0
	modeSealed = 1

	challengeLen = 16
	maxKnock     = 2048 // payload: two cards with their lengths, sealed
)

const (
	codeOK = iota + 1
	codeWrongCluster
	codeSameID
	codeForgotten
	codeSecretNeeded  // asked in plain, and we have a secret
	codeSecretUnknown // asked sealed, and we have none
	codeSecretWrong   // sealed with another secret
	codeBad           // malformed, or of another version
)

var (
	errKnock   = errors.New("malformed answer")
	errTimeout = errors.New("no answer in time")
)

func writeKnock(w io.Writer, mode byte, payload []byte) error {
	b := append([]byte(knockMagic), knockVersion, mode)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}

func readKnock(r io.Reader) (mode byte, payload []byte, err error) {
	var head [len(knockMagic) + 4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint16(head[4:])
	if string(head[:2]) != knockMagic || head[2] != knockVersion || n > maxKnock {
		return 0, nil, errKnock
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return head[3], payload, err
}

func questionContext() []byte { return []byte(knockMagic + "\x01question") }

func answerContext(challenge []byte) []byte {
	return append([]byte(knockMagic+"\x01answer"), challenge...)
}

// answer is what a knock brings back.
type answer struct {
	code         byte
	card, holder card
}

func (a answer) encode() ([]byte, error) {
	b := []byte{a.code}
	cards := []card{a.card}
	if a.code == codeSameID {
		cards = append(cards, a.holder)
	}
	for _, c := range cards {
		e, err := c.encode()
		if err != nil {
			return nil, err
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(e))), e...)
	}
	return b, nil
}

func decodeAnswer(b []byte) (answer, error) {
	r := reader{b: b}
	code := r.take(1)
	if code == nil {
		return answer{}, errKnock
	}
	a := answer{code: code[0]}
	cards := []*card{&a.card}
	if a.code == codeSameID {
		cards = append(cards, &a.holder)
	}
	for _, c := range cards {
		n := r.take(2)
		if n == nil {
			return answer{}, errKnock
		}
		var err error
		if *c, err = decodeCard(r.take(int(binary.BigEndian.Uint16(n)))); err != nil {
			return answer{}, err
		}
	}
	return a, nil
}

// answerKnock is the side that is asked.
func (g *Gossip) answerKnock(conn net.Conn) {
	mode, payload, err := readKnock(conn)
	if errors.Is(err, errKnock) {
		_ = writeKnock(conn, modePlain, []byte{codeBad})
		return
	}
	if err != nil {
		return
	}
	switch {
	case mode == modePlain && g.seal != nil:
		g.log.Warn("refused a node that has no secret", "from", conn.RemoteAddr().String())
		_ = writeKnock(conn, modePlain, []byte{codeSecretNeeded})
		return
	case mode == modeSealed && g.seal == nil:
		_ = writeKnock(conn, modePlain, []byte{codeSecretUnknown})
		return
	case mode == modeSealed:
		if payload, err = g.seal.open(payload, questionContext()); err != nil {
			g.log.Warn("refused a node that has another secret", "from", conn.RemoteAddr().String())
			_ = writeKnock(conn, modePlain, []byte{codeSecretWrong})
			return
		}
	case mode != modePlain:
		_ = writeKnock(conn, modePlain, []byte{codeBad})
		return
	}
	if len(payload) < challengeLen {
		_ = writeKnock(conn, modePlain, []byte{codeBad})
		return
	}
	challenge := payload[:challengeLen]
	c, err := decodeCard(payload[challengeLen:])
	if err != nil {
		_ = writeKnock(conn, modePlain, []byte{codeBad})
		return
	}

	a := answer{code: codeOK, card: g.card()}
	holder, reason := g.admit(c)
	switch {
	case reason == nil:
	case errors.Is(reason, ErrWrongCluster):
		a.code = codeWrongCluster
	case errors.Is(reason, ErrForgotten):
		a.code = codeForgotten
	default:
		a.code, a.holder = codeSameID, card{Facts: holder}
		g.conflict(c.Facts, holder)
	}
	if reason != nil {
		g.log.Warn("refused a node", "reason", reason.Error(), "node", c.String(), "from", conn.RemoteAddr().String())
	}
	b, err := a.encode()
	if err != nil {
		g.log.Error("cannot answer a node that wants to join", "error", err)
		return
	}
	if g.seal != nil {
		b = g.seal.close(b, answerContext(challenge))
	}
	_ = writeKnock(conn, mode, b)
}

// admit judges a node that is there and asks: unlike news about a node, it is
// certainly alive. Others that run on its directory are asked whether they are
// alive too; what does not answer is what a restart left behind. May take a
// probe's time.
func (g *Gossip) admit(c card) (holder Facts, reason error) {
	g.mu.Lock()
	holder, reason = g.roster.judge(c)
	others := g.roster.living(c)
	g.mu.Unlock()
	if errors.Is(reason, errLeftover) {
		return holder, ErrSameID
	}
	if reason != nil || c.ID == g.id {
		return holder, reason
	}
	for _, s := range others {
		if _, err := g.list.Ping(s.name(), &net.UDPAddr{IP: s.ip, Port: int(s.port)}); err == nil {
			return s.Facts, ErrSameID
		}
	}
	return Facts{}, nil
}

// knock asks at addr, an IP address and port, whether this node may join, and
// judges in turn whoever answers. The error is a *JoinError.
func (g *Gossip) knock(ctx context.Context, addr string) (card, error) {
	fail := func(reason error, theirs Facts, format string, args ...any) (card, error) {
		return card{}, &JoinError{Reason: reason, Addr: addr, Theirs: theirs, text: fmt.Sprintf(format, args...)}
	}
	unreachable := func(err error) (card, error) {
		if ctx.Err() != nil {
			if err = context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) {
				err = errTimeout
			}
		}
		return fail(ErrUnreachable, Facts{},
			"no gossip at %s: %v: is the node up, is this its gossip port, and do firewalls let TCP and UDP through to it?", addr, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, g.timings.Stream, errTimeout)
	defer cancel()
	conn, err := g.transport.dial(ctx, memberlist.Address{Addr: addr})
	if err != nil {
		return unreachable(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()

	mine := g.card()
	e, err := mine.encode()
	if err != nil {
		return card{}, err
	}
	challenge := make([]byte, challengeLen)
	rand.Read(challenge) // never fails
	question, mode := append(challenge[:challengeLen:challengeLen], e...), byte(modePlain)
	if g.seal != nil {
		question, mode = g.seal.close(question, questionContext()), modeSealed
	}
	if err := writeKnock(conn, mode, question); err != nil {
		return unreachable(err)
	}
	got, payload, err := readKnock(conn)
	if err != nil {
		return unreachable(err)
	}
	if len(payload) == 1 && got == modePlain {
		switch payload[0] {
		case codeSecretNeeded:
			return fail(ErrSecret, Facts{}, "the node at %s has a secret, and this node has none: give this node the same secret", addr)
		case codeSecretUnknown:
			return fail(ErrSecret, Facts{}, "the node at %s has no secret, and this node has one: give both the same secret", addr)
		case codeSecretWrong:
			return fail(ErrSecret, Facts{}, "the node at %s has another secret: give both the same secret (mind line ends in the secret's file)", addr)
		}
		return fail(ErrUnreachable, Facts{}, "the node at %s does not understand this one: is it of another version?", addr)
	}
	if got != mode {
		return fail(ErrSecret, Facts{}, "the node at %s does not prove that it has the secret: give both the same secret", addr)
	}
	if g.seal != nil {
		if payload, err = g.seal.open(payload, answerContext(challenge)); err != nil {
			return fail(ErrSecret, Facts{}, "the node at %s does not prove that it has the secret: give both the same secret", addr)
		}
	}
	a, err := decodeAnswer(payload)
	if err != nil {
		return unreachable(err)
	}

	theirs := a.card.Facts
	switch a.code {
	case codeOK:
	case codeWrongCluster:
		return fail(ErrWrongCluster, theirs, "%s", wrongCluster(mine.Facts, theirs))
	case codeForgotten:
		return fail(ErrForgotten, theirs, "%s has forgotten this node, %s: let it MEET this one to take it back", theirs, mine)
	case codeSameID:
		return fail(ErrSameID, theirs, "%s", sameID(mine.Facts, a.holder.Facts))
	default:
		return fail(ErrUnreachable, theirs, "%s refuses for a reason that this version does not know", theirs)
	}

	holder, reason := g.admit(a.card)
	switch {
	case reason == nil:
		return a.card, nil
	case errors.Is(reason, ErrWrongCluster):
		return fail(reason, theirs, "%s", wrongCluster(mine.Facts, theirs))
	case errors.Is(reason, ErrForgotten):
		return fail(reason, theirs, "this node has forgotten %s: MEET it to take it back", theirs)
	}
	g.conflict(theirs, holder)
	return fail(reason, theirs, "%s", sameID(theirs, holder))
}
