package command

import "github.com/replicatord/replicatord/crdt"

// counts is what a stream says of the entries that were ever added to it: enough
// to tell how many a group has read, and how many are left, as Redis does.
type counts struct {
	length, added        int64
	first, last, deleted streamID
}

func (s stream) counts() counts {
	first, _ := s.edge(false)
	return counts{length: int64(s.len()), added: s.added(), first: first, last: s.last(), deleted: s.id(deletedElem)}
}

// holes reports whether XDEL may have taken entries from an id on.
func (n *counts) holes(from streamID) bool {
	switch {
	case n.length == 0, n.deleted == streamID{}, n.deleted.less(n.first):
		return false
	}
	return !n.deleted.less(from)
}

// upTo returns how many entries were ever added up to an id; -1 if that cannot
// be told.
func (n *counts) upTo(id streamID) int64 {
	switch {
	case n.added == 0:
		return 0
	case n.length == 0 && !n.last.less(id), id == n.last:
		return n.added
	case n.last.less(id):
		return -1
	case n.deleted != streamID{} && !n.deleted.less(n.first):
		return -1
	case id.less(n.first):
		return n.added - n.length
	case id == n.first:
		return n.added - n.length + 1
	}
	return -1
}

// lag returns how many entries a group has not read yet; false if that cannot be
// told.
func (n *counts) lag(g *group) (int64, bool) {
	var read int64
	switch {
	case n.added == 0:
		return 0, true
	case g.read != -1 && !n.holes(g.last):
		read = g.read
	default:
		read = n.upTo(g.last)
	}
	return n.added - read, read != -1
}

// count brings the group's count of entries read level with its reading some
// more, of which the first late ones lie before its position.
func (g *group) count(ids []streamID, late int) {
	n := g.counts()
	read, grown := g.read, int64(0)
	for i, id := range ids {
		switch {
		case read != -1 && !n.holes(id):
			read++
			grown++
		case n.added != 0 && i >= late:
			read, grown = n.upTo(id), -int64(len(ids))-1
		}
	}
	switch {
	case read == g.read:
	case grown > 0 && g.read != -1:
		// A counter, so that what two nodes read at once adds up.
		g.c.AddElem(g.k, crdt.KindPending, g.prefix+ofCount, crdt.Int(grown))
		g.read = read
	default:
		g.setRead(read)
	}
}
