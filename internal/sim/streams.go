package sim

import (
	"fmt"
	"strconv"
	"strings"
)

// streamCall makes up a command about a stream: entries with ids of the node's
// and of the client's choice, removed and trimmed ones, and consumers of a few
// groups that read, acknowledge and claim.
func (w *world) streamCall() call {
	c := call{db: uint8(w.pick(exactDB))}
	key := fmt.Sprintf("t%d", w.pick(w.opts.Keys))
	if w.chance(8) {
		key = fmt.Sprintf("x%d", w.pick(w.opts.Keys)) // of two types, now and then
	}
	group, consumer := fmt.Sprintf("g%d", w.pick(2)), fmt.Sprintf("c%d", w.pick(3))
	id := func() string { return strconv.Itoa(1 + w.rand.IntN(12)) }
	forms := []string{
		"XADD " + key + " * f " + id(),
		"XADD " + key + " * f " + id(),
		"XADD " + key + " MAXLEN 4 * f " + id(),
		"XADD " + key + " NOMKSTREAM * f " + id(),
		"XADD " + key + " " + id() + " f " + id(),
		"XADD " + key + " " + id() + "-* f " + id(),
		"XDEL " + key + " " + id(),
		"XTRIM " + key + " MAXLEN " + strconv.Itoa(w.rand.IntN(6)),
		"XTRIM " + key + " MINID " + id(),
		"XSETID " + key + " " + id(),
		"XGROUP CREATE " + key + " " + group + " 0 MKSTREAM",
		"XGROUP CREATE " + key + " " + group + " $ MKSTREAM",
		"XGROUP SETID " + key + " " + group + " " + id(),
		"XGROUP CREATECONSUMER " + key + " " + group + " " + consumer,
		"XREADGROUP GROUP " + group + " " + consumer + " STREAMS " + key + " >",
		"XREADGROUP GROUP " + group + " " + consumer + " COUNT 1 STREAMS " + key + " >",
		"XREADGROUP GROUP " + group + " " + consumer + " NOACK STREAMS " + key + " >",
		"XREADGROUP GROUP " + group + " " + consumer + " STREAMS " + key + " 0",
		"XACK " + key + " " + group + " " + id(),
		"XCLAIM " + key + " " + group + " " + consumer + " 0 " + id() + " " + id(),
		"XCLAIM " + key + " " + group + " " + consumer + " 0 " + id() + " FORCE",
		"XAUTOCLAIM " + key + " " + group + " " + consumer + " 0 0 COUNT 2",
		"XAUTOCLAIM " + key + " " + group + " " + consumer + " 0 0",
		"XPENDING " + key + " " + group + " - + 10",
		"XINFO STREAM " + key + " FULL",
		"XRANGE " + key + " - +",
		"XREAD STREAMS " + key + " " + id(),
		"COPY " + key + " " + fmt.Sprintf("t%d", w.pick(w.opts.Keys)) + " REPLACE",
		"DEL " + key,
	}
	if w.chance(5) {
		forms = []string{
			"XGROUP DESTROY " + key + " " + group,
			"XGROUP DELCONSUMER " + key + " " + group + " " + consumer,
		}
	}
	c.args = split(forms[w.rand.IntN(len(forms))])
	return c
}

// added looks at the reply to an XADD: no two nodes choose the same id.
func (o *oracle) added(p *proc, c call, reply []byte) {
	if string(c.args[0]) != "XADD" || reply[0] != '$' || string(reply) == "$-1\r\n" {
		return
	}
	for _, a := range c.args[2:] {
		if string(a) == "*" {
			at := fmt.Sprintf("%d %s %s", c.db, c.args[1], flatID(reply))
			by, again := o.made[at]
			o.w.must(!again || by == p.site.id, "nodes %d and %d made the same id: %s", by, p.site.id, at)
			o.made[at] = p.site.id
			o.counts["ids made"]++
		}
	}
}

// flatID returns the text of a bulk string.
func flatID(reply []byte) string {
	_, text, _ := strings.Cut(string(reply), "\r\n")
	return strings.TrimSpace(text)
}
