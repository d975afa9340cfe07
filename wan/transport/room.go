package transport

import (
	"crypto/tls"
	"net"
)

// room keeps what lies here and has not left yet within a backlog: half of it
// with the kernel, half in what is written next.
type room struct {
	raw     net.Conn // of TCP
	backlog int      // 0: not bounded
	extra   int      // what the kernel gets beyond its half
}

const (
	leastExtra = 4 << 10
	mostExtra  = 256 << 10
)

func (r *room) set(bytes int) {
	r.backlog = bytes
	setUnsent(r.raw, bytes/2+r.extra)
}

// await waits for room. Where the kernel has run dry meanwhile, this process is
// too slow for so little: it gets more, and less again by and by.
func (r *room) await() {
	if r.backlog == 0 {
		return
	}
	was := r.extra
	if awaitRoom(r.raw) {
		r.extra = min(max(2*was, leastExtra), mostExtra)
	} else if r.extra = was - was/64; r.extra < leastExtra {
		r.extra = 0
	}
	if r.extra != was {
		setUnsent(r.raw, r.backlog/2+r.extra)
	}
}

// below returns the connection that TLS uses, c itself if it is none of TLS.
func below(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}
