package gossip

import (
	"cmp"
	"net"
	"slices"
	"time"
)

// State is what gossip believes about a member. There is no suspect state:
// memberlist does not tell of suspicions, only of their outcome.
type State uint8

const (
	// Failed: it has not been heard from, or no longer. It is tried again
	// and again.
	Failed State = iota

	// Alive: it answers probes, of this node or of another.
	Alive

	// Left: it said goodbye. It is expected to come back by itself.
	Left
)

func (s State) String() string {
	switch s {
	case Failed:
		return "failed"
	case Alive:
		return "alive"
	case Left:
		return "left"
	}
	return "unknown"
}

// Member is another node of the cluster, as seen from here.
type Member struct {
	Facts
	State State
	Since time.Time // when State began

	// LastError is the last thing that went wrong with the member: why it
	// cannot be reached, or who else claimed its id. It is cleared when the
	// member comes (back) alive or is forgotten.
	LastError string
}

// session is one process of a member, as memberlist knows it.
type session struct {
	card
	ip    net.IP // where memberlist reaches it; nil in one that Known told of
	port  uint16
	state State
	since time.Time
}

// roster folds the processes that memberlist knows into members: it is where
// ids become unique. A node that restarts is a new process while the old one
// still counts as alive until its failure has been noticed; so per id there
// may be several, of which the best is shown. Pure; its user locks it.
type roster struct {
	self      card
	sessions  map[string]*session // by memberlist name
	forgotten map[uint16]bool
	verdicts  map[uint16]Verdict // whence forgotten follows
	errs      map[uint16]string
}

func newRoster(self card) *roster {
	return &roster{
		self:      self,
		sessions:  make(map[string]*session),
		forgotten: make(map[uint16]bool),
		verdicts:  make(map[uint16]Verdict),
		errs:      make(map[uint16]string),
	}
}

// seed enters a member remembered from before the start.
func (r *roster) seed(m Member) {
	c := card{Facts: m.Facts}
	if m.ID == r.self.ID || r.forgotten[m.ID] {
		return
	}
	r.sessions[c.name()] = &session{card: c, state: Failed, since: m.Since}
	r.errs[m.ID] = "not heard from since this node started"
}

// alive enters news of a living process.
func (r *roster) alive(c card, ip net.IP, port uint16, now time.Time) {
	name := c.name()
	s := r.sessions[name]
	switch {
	case s == nil:
		s = &session{state: Alive, since: now}
		r.sessions[name] = s
	case s.state == Left:
		// A process does not come back from leaving: this is an echo.
		return
	case s.state != Alive:
		s.state, s.since = Alive, now
	}
	s.card, s.ip, s.port = c, slices.Clone(ip), port
	r.prune(c.ID)
	if !r.forgotten[c.ID] {
		delete(r.errs, c.ID)
	}
}

// update takes over changed facts of a process that is known.
func (r *roster) update(c card) {
	if s := r.sessions[c.name()]; s != nil {
		s.card = c
	}
}

// gone enters the end of a process, Failed or Left, and reports whether that is
// news.
func (r *roster) gone(name string, state State, now time.Time) bool {
	s := r.sessions[name]
	if s == nil || s.state == Left || s.state == state {
		return false
	}
	s.state, s.since = state, now
	r.prune(s.ID)
	if r.forgotten[s.ID] {
		delete(r.sessions, name)
	}
	return true
}

// prune drops the ended processes of a node that has a living one, and of
// several ended ones all but the best. It keeps the roster as large as the
// cluster however often nodes restart.
func (r *roster) prune(id uint16) {
	best := r.best(id)
	for name, s := range r.sessions {
		if s.ID == id && s != best && s.state != Alive {
			delete(r.sessions, name)
		}
	}
}

// best is the process that stands for the node: a living one before one that
// ended, then the latest to start.
//
// A clock set back between two starts makes the older process the latest, but
// only until its failure is noticed.
func (r *roster) best(id uint16) *session {
	var best *session
	for _, s := range r.sessions {
		if s.ID != id {
			continue
		}
		if best == nil || better(s, best) {
			best = s
		}
	}
	return best
}

func better(a, b *session) bool {
	if (a.state == Alive) != (b.state == Alive) {
		return a.state == Alive
	}
	if a.session != b.session {
		return a.session > b.session
	}
	return a.Dir > b.Dir // any order will do, if it is one
}

// living returns the other living processes of c's data directory at other
// addresses: what is left of it, or running copies of it.
func (r *roster) living(c card) []*session {
	var out []*session
	for _, s := range r.sessions {
		if s.ID == c.ID && s.Dir == c.Dir && s.session != c.session && s.state == Alive && s.Gossip != c.Gossip {
			copied := *s
			out = append(out, &copied)
		}
	}
	return out
}

// judge says whether c may be a member: nil, or the reason and, for
// ErrSameID, who holds the id.
func (r *roster) judge(c card) (holder Facts, reason error) {
	switch {
	case c.Cluster != r.self.Cluster:
		return Facts{}, ErrWrongCluster
	case c.ID == r.self.ID && c.session == r.self.session && c.Dir == r.self.Dir:
		return Facts{}, nil
	case c.ID == r.self.ID && r.self.sameNode(c.Facts):
		return r.self.Facts, errLeftover
	case c.ID == r.self.ID:
		return r.self.Facts, ErrSameID
	case r.forgotten[c.ID]:
		return Facts{}, ErrForgotten
	}
	best := r.best(c.ID)
	if best == nil {
		return Facts{}, nil
	}
	for _, s := range r.sessions {
		if c.sameNode(s.Facts) {
			return Facts{}, nil
		}
	}
	return best.Facts, ErrSameID
}

// forget drops a member. Of its processes, those that memberlist holds for
// alive are kept, hidden: memberlist will not announce them again.
func (r *roster) forget(id uint16) {
	r.forgotten[id] = true
	delete(r.errs, id)
	for name, s := range r.sessions {
		if s.ID == id && s.state != Alive {
			delete(r.sessions, name)
		}
	}
}

// members lists the other nodes by id.
func (r *roster) members() []Member {
	seen := make(map[uint16]bool)
	var out []Member
	for _, s := range r.sessions {
		if seen[s.ID] || r.forgotten[s.ID] {
			continue
		}
		seen[s.ID] = true
		b := r.best(s.ID)
		out = append(out, Member{Facts: b.Facts, State: b.state, Since: b.since, LastError: r.errs[s.ID]})
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
