package node

import (
	"fmt"
	"strings"
	"time"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/command"
)

// How many conflicts CONFLICTS shows unless told, and at most.
const (
	conflictsDefault = 100
	conflictsMax     = 10_000
)

// noteConflict keeps and counts two values that met and whose writers had not
// seen each other.
func (c *Core) noteConflict(k crdt.Conflict) {
	c.Stats.Conflicts[k.Visible.ID.Kind.Type()]++
	c.group.AddConflict(k, time.UnixMilli(c.Now()))
}

// conflicts answers CONFLICTS [COUNT n] [KEY pattern]: the newest first.
func (n *Node) conflicts(out *command.Reply, args [][]byte) error {
	count, pattern := int64(conflictsDefault), ""
	for i := 1; i < len(args); i += 2 {
		option := strings.ToUpper(string(args[i]))
		if i+1 == len(args) || option != "COUNT" && option != "KEY" {
			return fmt.Errorf("syntax: CONFLICTS [COUNT n] [KEY pattern]")
		}
		if option == "KEY" {
			pattern = string(args[i+1])
			continue
		}
		var ok bool
		if count, ok = crdt.ParseInt(args[i+1]); !ok || count < 1 || count > conflictsMax {
			return fmt.Errorf("COUNT must be 1 to %d", conflictsMax)
		}
	}
	var list []fields
	err := n.log.Conflicts(func(c crdt.Conflict, at time.Time) bool {
		if pattern == "" || command.Match([]byte(pattern), []byte(c.Visible.ID.Key.Name), false) {
			list = append(list, n.describeConflict(c, at))
		}
		return len(list) < int(count)
	})
	out.Array(len(list))
	for _, f := range list {
		f.reply(out)
	}
	return err
}

func (n *Node) describeConflict(c crdt.Conflict, at time.Time) fields {
	var f fields
	id := c.Visible.ID
	f.add("key", id.Key.Name)
	f.add("db", id.Key.DB)
	f.add("noticed", at.UTC().Format(time.RFC3339Nano))
	rival := func(name string, r crdt.Rival) {
		what := fmt.Sprintf("%s by %s", clipValue(r.Value), n.who(r.Dot))
		if r.ID.Elem != "" {
			what = fmt.Sprintf("%s = %s", clipValue([]byte(r.ID.Elem)), what)
		}
		f.add(name, r.ID.Kind.Type().String()+" "+what)
	}
	rival("visible", c.Visible)
	rival("hidden", c.Hidden)
	return f
}
