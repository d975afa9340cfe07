package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/replicatord/replicatord/integration/testbed"
)

// TestRealNetwork: nodes with interfaces of their own, between which packets are
// lost and late, one direction is cut, and one node is cut off from all: they
// go on, and end equal. Where the machine does not let the test have interfaces,
// relays stand in for them, which lose datagrams alone.
func TestRealNetwork(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp", "quic"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			bed := testbed.New(t)
			net, err := bed.Segment("")
			if err != nil {
				t.Logf("%v; relays instead", err)
				net = bed.Network()
			}
			var nodes []*testbed.Node
			for id := 1; id <= 3; id++ {
				nodes = append(nodes, bed.Node(testbed.Options{ID: id, Network: net, Secret: "a secret of twenty-four characters",
					Args: []string{"--set", "wan.listen=" + transport, "--set", "wan.heartbeat=300ms"}, Meet: nodes[:min(len(nodes), 1)]}))
			}
			a, b, c := nodes[0], nodes[1], nodes[2]
			linked(bed, a, b, transport)
			linked(bed, b, c, transport)
			all := func(change func(*testbed.Path)) {
				for _, x := range nodes {
					for _, y := range nodes {
						if x != y {
							change(net.Path(x, y))
						}
					}
				}
			}
			all(func(p *testbed.Path) { p.SetDelay(15 * time.Millisecond); p.SetLoss(3); p.SetRate(500_000) })
			text := randomText(400_000)
			sum := int64(0)
			write := func(round int) {
				for i := range 100 {
					for _, n := range nodes {
						n.Do("INCR", "count")
						sum++
					}
					a.Do("SET", fmt.Sprint("k", i), text[(round*100+i)*900:][:900])
				}
			}
			write(0)
			bed.LevelWithin(2*time.Minute, nodes...)
			if err == nil && net.Path(a, b).Lost()+net.Path(b, a).Lost() == 0 {
				t.Error("no packet was lost: this tests nothing")
			}

			net.Path(a, b).Cut() // and what b sends to a arrives
			write(1)
			time.Sleep(2 * time.Second)
			write(2)
			net.Path(a, b).Mend()
			bed.LevelWithin(2*time.Minute, nodes...)

			net.Split(a, c)
			net.Split(b, c)
			c.Do("SET", "alone", "v")
			write(3)
			bed.LevelWithin(2*time.Minute, a, b)
			equal(t, "what c wrote when it was cut off", a.Int("EXISTS", "alone"), int64(0))
			all(func(p *testbed.Path) { p.Mend() })
			bed.LevelWithin(2*time.Minute, nodes...)
			for _, n := range nodes {
				equal(t, "count", n.Int("GET", "count"), sum)
			}
			t.Logf("%d packets of a were lost on their way to b", net.Path(a, b).Lost())
		})
	}
}
