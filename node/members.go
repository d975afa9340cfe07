package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/gossip"
)

// membersMeta names the blob that keeps the members across restarts.
const membersMeta = "members"

// meetTimeout bounds one MEET.
const meetTimeout = 10 * time.Second

// roll is what a node remembers of its cluster across restarts.
type roll struct {
	Members  []gossip.Member
	Verdicts []gossip.Verdict
}

// members keeps the membership: it turns MEET and FORGET into gossip, remembers
// who belongs, and tells the data links whom to talk to.
type members struct {
	gossip *gossip.Gossip
	exec   *executor
	slog   *slog.Logger
	update func([]gossip.Member) // the data links' part
	tls    *tls.Config           // for MEET; nil: clients are served without TLS

	ready chan struct{} // closed once gossip is set

	mu   sync.Mutex
	list []gossip.Member
}

// forgotten lists the ids that were forgotten.
func (r *roll) forgotten() []uint16 {
	var out []uint16
	for _, v := range r.Verdicts {
		if v.Forgotten {
			out = append(out, v.ID)
		}
	}
	return out
}

func loadRoll(b []byte) (roll, error) {
	var r roll
	if b == nil {
		return r, nil
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("the stored members can't be read: %w", err)
	}
	return r, nil
}

// changed takes over what gossip reports.
func (m *members) changed(list []gossip.Member) {
	<-m.ready
	m.mu.Lock()
	m.list = list
	m.mu.Unlock()
	m.update(list)
	m.save()
}

// save stores the members as they are when it comes to that, so that of several
// calls none puts an older list over a newer. A failure is told and made good at
// the next change.
func (m *members) save() {
	var err error
	ran := m.exec.Run(func(c *Core) {
		var b []byte
		if b, err = json.Marshal(roll{Members: m.List(), Verdicts: m.gossip.Verdicts()}); err == nil {
			err = c.setMeta(membersMeta, b)
		}
	})
	if err = errors.Join(err, ran); err != nil && !errors.Is(err, context.Canceled) {
		m.slog.Warn("the members could not be stored", "err", err)
	}
}

// List returns the other members, by id.
func (m *members) List() []gossip.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.list)
}

// Meet joins the cluster of the node whose RESP address is addr. It may be
// called again.
func (m *members) Meet(ctx context.Context, addr string, allow bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("'%s' is not host:port", addr)
	}
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	targets, err := m.ask(ctx, addr, host)
	if err != nil {
		return err
	}
	err = m.gossip.Join(ctx, targets...)
	var je *gossip.JoinError
	if allow && errors.Is(err, gossip.ErrForgotten) && errors.As(err, &je) && slices.Contains(m.gossip.Forgotten(), je.Theirs.ID) {
		// Whoever says MEET wants it back.
		m.gossip.Allow(je.Theirs.ID)
		err = m.gossip.Join(ctx, targets...)
	}
	if err == nil {
		m.save()
	}
	return err
}

// ask asks a node at its RESP address where it gossips.
func (m *members) ask(ctx context.Context, addr, host string) ([]string, error) {
	at, err := askGossip(ctx, addr, m.tls)
	var reply redis.Error
	var dial *net.OpError
	switch {
	case err == nil:
	case errors.As(err, &reply) && strings.HasPrefix(err.Error(), "LOADING"):
		return nil, fmt.Errorf("%s is still starting, try again: it answered '%w'", addr, err)
	case errors.As(err, &reply):
		return nil, fmt.Errorf("%s is not a replicatord node: it answered '%w'. Give the RESP address of a node, as for redis-cli", addr, err)
	case errors.As(err, &dial) && dial.Op == "dial":
		return nil, fmt.Errorf("%s is unreachable: %w", addr, err)
	case m.oneSided(ctx, addr):
		return nil, fmt.Errorf("%s serves clients %s TLS, this node %s: set tls.resp alike at both", addr, cond(m.tls == nil, "with", "without"), cond(m.tls == nil, "without", "with"))
	default:
		return nil, fmt.Errorf("%s does not answer: %w", addr, err)
	}
	targets := []string{at}
	if h, p, err := net.SplitHostPort(at); err == nil && h != host {
		// As it was reached by the operator, should its own idea not do.
		targets = append(targets, net.JoinHostPort(host, p))
	}
	return targets, nil
}

// oneSided reports whether a node that did not answer does so with TLS where
// this one has none, or the other way about.
func (m *members) oneSided(ctx context.Context, addr string) bool {
	var conf *tls.Config
	if m.tls == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} // nothing it says is used
	}
	_, err := askGossip(ctx, addr, conf)
	var reply redis.Error
	return err == nil || errors.As(err, &reply)
}

// askGossip asks a node where it gossips, over TLS if conf is set. What the
// node answered instead is a redis.Error.
func askGossip(ctx context.Context, addr string, conf *tls.Config) (string, error) {
	c := redis.NewClient(&redis.Options{
		Addr: addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1, DialerRetries: 1, TLSConfig: conf,
		DialTimeout: 3 * time.Second, ReadTimeout: 3 * time.Second,
	})
	defer c.Close()
	return c.Do(ctx, "GOSSIP").Text()
}

// Forget removes a member for good.
func (m *members) Forget(id uint16) error {
	if !slices.ContainsFunc(m.List(), func(x gossip.Member) bool { return x.ID == id }) {
		if slices.Contains(m.gossip.Forgotten(), id) {
			return nil
		}
		return fmt.Errorf("no member has id %d", id)
	}
	m.gossip.Forget(id)
	m.save()
	return nil
}

// join keeps trying to join the configured addresses until one after the other
// has answered, however long that takes.
func (m *members) join(ctx context.Context, addrs []string) {
	wait := 200 * time.Millisecond
	told := map[string]string{}
	for len(addrs) > 0 && ctx.Err() == nil {
		addrs = slices.DeleteFunc(addrs, func(addr string) bool {
			err := m.Meet(ctx, addr, false)
			switch {
			case err == nil:
				m.slog.Info("met", "address", addr)
				return true
			case told[addr] != err.Error() && ctx.Err() == nil:
				told[addr] = err.Error()
				m.slog.Warn("could not meet yet, trying on", "address", addr, "err", err)
			}
			return false
		})
		select {
		case <-time.After(wait):
			wait = min(2*wait, 5*time.Second)
		case <-ctx.Done():
		}
	}
}

func parseID(b []byte) (uint16, error) {
	n, err := strconv.ParseUint(string(b), 10, 16)
	if err != nil || n == 0 || n > MaxNodeID {
		return 0, fmt.Errorf("'%s' is not a node id (1 to %d)", b, MaxNodeID)
	}
	return uint16(n), nil
}
