package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Join makes this node and those at the given gossip addresses (host:port)
// members of one cluster. It tries each address, and returns nil if it got in
// at any, else why not at each: *JoinError values, joined. Joining members
// again, or oneself, does nothing. ctx bounds the wait; what is under way when
// it ends may still succeed. A node that restarted at another address before
// the end of its old process was noticed waits a probe's time longer, in which
// the old process could object.
//
// A node that was forgotten, here or there, is refused with ErrForgotten: an
// operator's MEET calls Allow with JoinError.Theirs.ID first, whereas retries
// must not.
func (g *Gossip) Join(ctx context.Context, addrs ...string) error {
	if len(addrs) == 0 {
		return errors.New("gossip: no address to join at")
	}
	var errs []error
	joined := false
	for _, a := range addrs {
		if _, err := g.join(ctx, a); err != nil {
			errs = append(errs, err)
		} else {
			joined = true
		}
	}
	if joined {
		for _, err := range errs {
			g.log.Warn("did not join at every address", "error", err)
		}
		return nil
	}
	return errors.Join(errs...)
}

// join joins at one address, and returns who was there.
func (g *Gossip) join(ctx context.Context, addr string) (card, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(g.transport.ctx, func() { cancel(ErrClosed) })()
	if g.running.Err() != nil || !g.enter() {
		return card{}, ErrClosed
	}
	defer g.wg.Done()

	unreachable := func(err error) error {
		return &JoinError{Reason: ErrUnreachable, Addr: addr, text: fmt.Sprintf("cannot reach %s: %v", addr, err)}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return card{}, unreachable(fmt.Errorf("%w: give host:port", err))
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return card{}, unreachable(fmt.Errorf("%w: check the name", err))
	}
	// IPv4 first, as when advertising.
	slices.SortStableFunc(ips, func(a, b net.IPAddr) int { return len(b.IP.To4()) - len(a.IP.To4()) })
	for _, ip := range ips {
		var c card
		if c, err = g.joinIP(ctx, net.JoinHostPort(ip.String(), port)); err == nil {
			return c, nil
		}
		var refusal *JoinError
		if errors.As(err, &refusal) && !errors.Is(refusal.Reason, ErrUnreachable) {
			break
		}
	}
	if err == nil {
		err = unreachable(errors.New("the name has no address"))
	}
	return card{}, err
}

func (g *Gossip) joinIP(ctx context.Context, addr string) (card, error) {
	c, err := g.knock(ctx, addr)
	if err != nil {
		if errors.Is(context.Cause(ctx), ErrClosed) {
			return card{}, ErrClosed
		}
		return card{}, err
	}
	if c.ID == g.id {
		return c, nil // ourselves
	}
	// memberlist's Join knows no context. It ends within its stream timeout,
	// or with the transport.
	done := make(chan error, 1)
	if !g.enter() {
		return card{}, ErrClosed
	}
	go func() {
		defer g.wg.Done()
		_, err := g.list.Join([]string{addr})
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, ErrClosed):
		return card{}, ErrClosed
	}
	if r := g.recall(err); r != nil {
		r.Addr = addr
		return card{}, r
	}
	return card{}, &JoinError{
		Reason: ErrUnreachable, Addr: addr, Theirs: c.Facts,
		text: fmt.Sprintf("%s let this node in, but did not exchange members with it: %v: try again", c, err),
	}
}

// remember keeps a refusal that is on its way through memberlist, which
// flattens errors to text, for recall to find again by that text. Refusals of
// those who join here come by too; the last few suffice.
func (g *Gossip) remember(e *JoinError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.refusals) == 16 {
		g.refusals = slices.Delete(g.refusals, 0, 1)
	}
	g.refusals = append(g.refusals, e)
}

func (g *Gossip) recall(err error) *JoinError {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range slices.Backward(g.refusals) {
		if strings.Contains(err.Error(), e.text) {
			copied := *e
			return &copied
		}
	}
	return nil
}

// reconnect tries the members that are not alive, round after round: those
// known from before the start, and those lost since. memberlist itself forgets
// the dead after a while, and would leave the halves of a healed network apart.
func (g *Gossip) reconnect() {
	for {
		g.mu.Lock()
		members := g.roster.members()
		g.mu.Unlock()
		for _, m := range members {
			if m.State != Failed || m.Gossip == "" {
				continue
			}
			ctx, cancel := context.WithTimeoutCause(g.running, g.timings.attempt(), errTimeout)
			c, err := g.join(ctx, m.Gossip)
			cancel()
			if g.running.Err() != nil {
				return
			}
			switch {
			case err != nil:
				g.trouble(m.ID, err.Error())
			case c.ID != m.ID:
				g.trouble(m.ID, fmt.Sprintf("its address %s is now that of %s", m.Gossip, c))
			}
		}
		select {
		case <-time.After(g.timings.Reconnect):
		case <-g.running.Done():
			return
		}
	}
}
