package wan

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the worked exchange into docs/PROTOCOL.md")

// counting is a source of nonces that can be printed.
type counting byte

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		*c++
		p[i] = byte(*c)
	}
	return len(p), nil
}

// The worked exchange of docs/PROTOCOL.md is what sessions really send.
func TestProtocolExample(t *testing.T) {
	names := map[frameType]string{frameHello: "Hello", frameProof: "Proof", frameHelloAck: "HelloAck", frameWant: "Want",
		frameCredit: "Credit", frameAck: "Ack", frameHeartbeat: "Heartbeat", framePong: "Pong", frameChunk: "Chunk, lane 0"}
	now := epoch
	node := func(id uint16, seed counting) *testNode {
		return newTestNode(t, id, func(c *Config) {
			c.Rand, c.Secret = &seed, []byte("correct horse battery staple")
			c.Self = Identity{Cluster: "c1", Node: id, Alias: fmt.Sprintf("n%d", id), Address: fmt.Sprintf("10.0.0.%d:11001", id), Dir: fmt.Sprintf("d%d", id), Region: "eu"}
		})
	}
	a, b := node(1, 0), node(2, 100)
	a.set(0, "k", "hello")
	l := connect(t, a, b, &now)
	var out strings.Builder
	l.log = func(from *Session, f []byte) {
		arrow := "1 → 2"
		if from == l.sb {
			arrow = "2 → 1"
		}
		fmt.Fprintf(&out, "%s  %s\n", arrow, names[frameType(f[0])])
		n := len(f) - checkSize
		dump := func(b []byte) {
			for len(b) > 0 {
				k := min(32, len(b))
				fmt.Fprintf(&out, "           %s\n", hex.EncodeToString(b[:k]))
				b = b[k:]
			}
		}
		fmt.Fprintf(&out, "    length %08x\n    type   %02x\n", len(f), f[0])
		if n > 1 {
			out.WriteString("    payload\n")
			dump(f[1:n])
		}
		fmt.Fprintf(&out, "    check  %s\n", hex.EncodeToString(f[n:]))
	}
	l.run()
	same(t, a, b)
	const file, begin, end = "../docs/PROTOCOL.md", "<!-- example -->\n```\n", "```\n<!-- end -->"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(doc, []byte(begin))
	j := bytes.Index(doc, []byte(end))
	if i < 0 || j < i {
		t.Fatal("no worked exchange in docs/PROTOCOL.md")
	}
	i += len(begin)
	if *rewrite {
		doc = append(append(append([]byte{}, doc[:i]...), out.String()...), doc[j:]...)
		if err := os.WriteFile(file, doc, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := out.String(); got != string(doc[i:j]) {
		t.Errorf("docs/PROTOCOL.md does not show what is sent; run go test ./wan -run ProtocolExample -rewrite. Sent is:\n%s", got)
	}
}
