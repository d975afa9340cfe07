//go:build !linux

package resp

import "errors"

// Loops need epoll: elsewhere every session has its goroutine.
type (
	loop        struct{}
	loopSession struct{}
	newsKind    byte
)

const newsClosing newsKind = 0

var loopAfter = 0

func newLoop(*Server) (*loop, error) { return nil, errors.ErrUnsupported }

func (*loop) tell(*Session, newsKind) {}

func (*loop) close() {}

func (*Session) toLoop() bool { return false }
