package gossip

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// Verdict says whether a node belongs: it was forgotten, or allowed again. The
// newest verdict on an id holds, on every node: verdicts are sent to all
// members at once, and exchanged whenever two nodes meet and from time to time.
type Verdict struct {
	ID        uint16
	Forgotten bool
	At        int64 // Unix milliseconds, by the clock of the node it was given on
}

// newer reports whether v replaces o.
func (v Verdict) newer(o Verdict) bool {
	return v.At > o.At || v.At == o.At && v.Forgotten && !o.Forgotten
}

const (
	userVerdicts = 'V' // verdicts follow
	verdictSize  = 11
	// maxVerdicts bounds what is taken from a peer: one for each id.
	maxVerdicts = MaxID
)

func encodeVerdicts(b []byte, list []Verdict) []byte {
	for _, v := range list {
		b = binary.BigEndian.AppendUint16(b, v.ID)
		b = binary.BigEndian.AppendUint64(b, uint64(v.At))
		b = append(b, map[bool]byte{true: 1}[v.Forgotten])
	}
	return b
}

// decodeVerdicts reads what encodeVerdicts wrote; what is not well formed is
// nothing.
func decodeVerdicts(b []byte) []Verdict {
	if len(b)%verdictSize != 0 || len(b) > maxVerdicts*verdictSize {
		return nil
	}
	var out []Verdict
	for ; len(b) > 0; b = b[verdictSize:] {
		v := Verdict{ID: binary.BigEndian.Uint16(b), At: int64(binary.BigEndian.Uint64(b[2:])), Forgotten: b[10] == 1}
		if v.ID == 0 || v.ID > MaxID || v.At <= 0 {
			return nil
		}
		out = append(out, v)
	}
	return out
}

// judged takes a verdict over if it is news, and reports that.
func (r *roster) judged(v Verdict) bool {
	if v.ID == r.self.ID || !v.newer(r.verdicts[v.ID]) {
		return false
	}
	r.verdicts[v.ID] = v
	if v.Forgotten {
		r.forget(v.ID)
	} else {
		delete(r.forgotten, v.ID)
	}
	return true
}

// Verdicts lists what is held of whom, by id: to be kept, and given to the next
// Start.
func (g *Gossip) Verdicts() []Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Verdict
	for _, v := range g.roster.verdicts {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b Verdict) int { return int(a.ID) - int(b.ID) })
	return out
}

// give gives a verdict here and tells the living members. Those that are not
// reached learn of it with the next full exchange.
func (g *Gossip) give(id uint16, forgotten bool) {
	g.mu.Lock()
	at := max(time.Now().UnixMilli(), g.roster.verdicts[id].At+1)
	v := Verdict{ID: id, Forgotten: forgotten, At: at}
	g.roster.judged(v)
	var to []memberlist.Node
	for name, s := range g.roster.sessions {
		if s.state == Alive && s.ID != id {
			to = append(to, memberlist.Node{Name: name, Addr: s.ip, Port: s.port})
		}
	}
	g.mu.Unlock()
	g.changed()
	if !g.enter() {
		return
	}
	defer g.wg.Done()
	msg := encodeVerdicts([]byte{userVerdicts}, []Verdict{v})
	for _, n := range to {
		g.wg.Go(func() {
			if err := g.list.SendReliable(&n, msg); err != nil {
				g.log.Debug("a verdict waits for the next full exchange", "node", n.Name, "error", err)
			}
		})
	}
}

// hear takes over verdicts of a peer.
func (g *Gossip) hear(list []Verdict) {
	news := false
	g.mu.Lock()
	for _, v := range list {
		if g.roster.judged(v) {
			news = true
			g.log.Info("heard of a verdict on a member", "id", v.ID, "forgotten", v.Forgotten)
		}
	}
	g.mu.Unlock()
	if news {
		g.changed()
	}
}
