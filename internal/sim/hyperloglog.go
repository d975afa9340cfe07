package sim

import (
	"fmt"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/command"
)

// visibleString is what the view must show of the live cells of a key of
// TypeString: of a string and a HyperLogLog that were made at once, the newer.
func visibleString(cells []cellState) []byte {
	newest := map[crdt.Kind]crdt.Dot{}
	var text []byte
	for _, c := range cells {
		if d := c.cell.Newest(); d.Compare(newest[c.id.Kind]) > 0 {
			newest[c.id.Kind] = d
		}
		if c.id.Kind == crdt.KindString {
			text = c.cell.Text()
		}
	}
	if newest[crdt.KindString].Compare(newest[crdt.KindRegisters]) > 0 {
		return text
	}
	return command.HyperLogLogString(func(fn func(string, []byte) bool) {
		for _, c := range cells {
			if c.id.Kind != crdt.KindRegisters {
				continue
			}
			regs := make([]byte, 64)
			for _, v := range c.cell.Values {
				for i, r := range v.Value {
					regs[i] = max(regs[i], r)
				}
			}
			fn(c.id.Elem, regs)
		}
	})
}

// hyperLogLogCalls are commands on HyperLogLogs, also such as hold strings.
func (w *world) hyperLogLogCalls() []string {
	n := w.opts.Keys
	key, other := fmt.Sprintf("p%d", w.pick(n)), fmt.Sprintf("p%d", w.pick(n))
	if w.chance(15) {
		key = fmt.Sprintf("x%d", w.pick(n))
	}
	a, b := w.rand.IntN(1000), w.rand.IntN(1000)
	return []string{
		fmt.Sprintf("PFADD %s %d", key, a),
		fmt.Sprintf("PFADD %s %d %d", key, a, b),
		fmt.Sprintf("PFADD %s", key),
		fmt.Sprintf("PFMERGE %s %s", key, other),
		fmt.Sprintf("PFDEBUG TODENSE %s", key),
		fmt.Sprintf("APPEND %s x", key),
		fmt.Sprintf("GETSET %s %d", key, a),
		fmt.Sprintf("DEL %s", key),
		fmt.Sprintf("RENAME %s %s", key, other),
		fmt.Sprintf("COPY %s %s", key, other),
		fmt.Sprintf("PEXPIRE %s %d", key, 1+a*20),
	}
}
