//go:build !linux

package testbed

import (
	"context"
	"errors"
	"net"
)

// Segment needs Linux.
func (b *Bed) Segment(string) (*Network, error) {
	return nil, errors.New("there are no network namespaces here")
}

type stack struct{ ip string }

func (w *Network) attach(*Node) {}

func (s *stack) in(fn func() error) error { return fn() }

func (s *stack) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}
