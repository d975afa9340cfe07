package resp

import (
	"testing"
	"time"
)

// waitingBackend holds every command until it is unblocked.
type waitingBackend struct{ *mapBackend }

func (b waitingBackend) Unblock(*Session, []byte) bool {
	select {
	case b.hold <- struct{}{}:
		return true
	default:
		return false
	}
}

// A session that waits in a command still sees its client go, though it was
// thought to be quiet just before.
func TestRestDoesNotBlindWhoWaits(t *testing.T) {
	ts := start(t, func(o *Options) {
		b := o.Backend.(*mapBackend)
		b.hold, b.entered = make(chan struct{}), make(chan struct{}, 1)
		o.Backend = waitingBackend{b}
	})
	c := ts.dial()
	c.want("+PONG\r\n", "PING")
	c.send(encode("BLPOP", "k", "0"))
	<-ts.mem.entered
	s := ts.clients()[0]
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		s.rest()
	}
	time.Sleep(20 * time.Millisecond)
	_ = c.Close()
	eventually(t, "the session has ended", func() bool { return len(ts.clients()) == 0 })
}
