package resp

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// BenchmarkSession measures a command from the client's bytes to the reply's,
// over loopback, with a backend that does next to nothing: reader, dispatch,
// batch and output, and the system calls of both ends.
func BenchmarkSession(b *testing.B) {
	for _, pipeline := range []int{1, 16, 100} {
		b.Run(fmt.Sprintf("pipeline=%d", pipeline), func(b *testing.B) {
			c := start(b, nil).dial()
			c.want("+OK\r\n", "SET", "key:000000000042", "xxx")
			out := []byte(strings.Repeat(encode("GET", "key:000000000042"), pipeline))
			in := make([]byte, pipeline*len("$3\r\nxxx\r\n"))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Conn.Write(out); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c.Conn, in); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*pipeline), "ns/command")
		})
	}
}
