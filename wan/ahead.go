package wan

import (
	"errors"
	"fmt"
	"sync"

	"github.com/replicatord/replicatord/wan/transport"
)

// maxAhead is how many bytes of frames are read before the session has taken
// those before them, in a ready session.
const maxAhead = 512 << 10

// ahead holds frames that have come and were not taken yet. What the node takes
// to apply a batch is not to look like time on the way.
type ahead struct {
	mu     sync.Mutex
	moved  sync.Cond
	frames [][]byte
	bytes  int
	spare  [][]byte // memory of frames that were taken
	end    error    // after the last frame
}

func newAhead() *ahead {
	a := &ahead{}
	a.moved.L = &a.mu
	return a
}

// put adds a copy of a frame, once there is room.
func (a *ahead) put(frame []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.frames) > 0 && a.bytes+len(frame) > maxAhead {
		a.moved.Wait()
	}
	var b []byte
	if n := len(a.spare); n > 0 {
		b, a.spare = a.spare[n-1], a.spare[:n-1]
	}
	a.frames = append(a.frames, append(b[:0], frame...))
	a.bytes += len(frame)
	a.moved.Broadcast()
}

// finish says that no more will come, and why.
func (a *ahead) finish(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end = err
	a.moved.Broadcast()
}

// take returns the next frame, whose memory is the caller's until it gives it
// back, or the error that there is none.
func (a *ahead) take() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.frames) == 0 {
		if a.end != nil {
			return nil, a.end
		}
		a.moved.Wait()
	}
	f := a.frames[0]
	a.frames[0] = nil
	a.frames = a.frames[1:]
	a.bytes -= len(f)
	a.moved.Broadcast()
	return f, nil
}

// give returns a frame's memory, unless it is that of a rare, large one.
func (a *ahead) give(frame []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.spare) < maxAhead/MaxChunk && cap(frame) <= 2*MaxChunk {
		a.spare = append(a.spare, frame)
	}
}

// read hands frames to the session. After its end it reads on, so that
// closing the connection does not take back what was sent last.
func (m *Manager) read(conn transport.Conn, s *Session, proved func()) {
	var a *ahead
	var taken chan struct{}
	for {
		frame, err := conn.ReadFrame(s.MaxFrame())
		switch {
		case err != nil:
			if a == nil {
				m.ended(s, err)
				return
			}
			a.finish(err)
			<-taken
			return
		case a != nil:
			s.Arrived(m.o.Now(), frame)
			a.put(frame)
		default:
			// What may come next depends on this.
			if s.Receive(m.o.Now(), frame) == nil && s.Proved() {
				proved()
			}
			if s.Established() {
				a, taken = newAhead(), make(chan struct{})
				go func() {
					defer close(taken)
					m.take(s, a)
				}()
			}
		}
	}
}

// take hands what was read ahead to the session.
func (m *Manager) take(s *Session, a *ahead) {
	for {
		frame, err := a.take()
		if err != nil {
			m.ended(s, err)
			return
		}
		_ = s.Take(m.o.Now(), frame)
		a.give(frame)
	}
}

// ended closes a session of whose connection no more comes.
func (m *Manager) ended(s *Session, err error) {
	if errors.Is(err, transport.ErrFrameSize) || errors.Is(err, transport.ErrTLS) {
		s.Close(fail(CodeProtocol, "%w", err))
	} else {
		s.Close(fmt.Errorf("%w: %w", ErrDisconnected, err))
	}
}
