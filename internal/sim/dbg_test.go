package sim

import (
	"fmt"
	"testing"
)

func TestDbg(t *testing.T) {
	o, _ := ParseOptions(*optionsFlag)
	w := newWorld(o)
	defer func() {
		p := recover()
		fmt.Println(p)
		for _, i := range w.oracle.ledger {
			if i.id.Key.Name == "c0" {
				fmt.Printf("%v %v (%x %x]\n", i.amount, i.stream, uint64(i.low), uint64(i.high))
			}
		}
		for _, s := range w.sites {
			if s.proc != nil {
				fmt.Println(s.proc.log.Vector())
				fmt.Println(w.oracle.inspect(s.proc).print(w.oracle.ledger[0].id.Key))
			}
		}
		for _, l := range w.history {
			fmt.Println(l)
		}
	}()
	w.live()
	w.converge("heal")
	w.oracle.final()
}
