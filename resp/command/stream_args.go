package command

import (
	"bytes"
	"math"
	"strconv"
	"sync/atomic"

	"github.com/replicatord/replicatord/crdt"
)

// parseUint reads a 64-bit number as Redis reads the parts of an id: in the one
// form it prints itself, else as C's strtoull does.
func parseUint(b []byte) (uint64, bool) {
	b = cString(b)
	if n, ok := crdt.ParseInt(b); ok {
		return uint64(n), n >= 0
	}
	b = bytes.TrimLeft(b, " \t\n\v\f\r")
	negative := false
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		negative, b = b[0] == '-', b[1:]
	}
	if len(b) == 0 || b[0] < '0' || b[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	if negative {
		n = -n
	}
	return n, err == nil
}

// parseID reads an id as clients write it; where the second part is missing, it
// is seq. auto tells that it is to be made ("5-*"), which only XADD takes.
func parseID(arg []byte, seq uint64, allowAuto bool) (id streamID, auto, ok bool) {
	if len(arg) > 127 {
		return id, false, false
	}
	ms, rest, two := bytes.Cut(cString(arg), []byte{'-'})
	if id.ms, ok = parseUint(ms); !ok {
		return id, false, false
	}
	switch {
	case !two:
		id.seq = seq
	case allowAuto && string(rest) == "*":
		auto = true
	default:
		id.seq, ok = parseUint(rest)
	}
	return id, auto, ok
}

// strictID reads an id that is neither "-" nor "+". It replies an error and
// returns false if it is none.
func strictID(c *Context, arg []byte) (streamID, bool) {
	id, _, ok := parseID(arg, 0, false)
	if !ok {
		c.Out.Error(errStreamID)
	}
	return id, ok
}

// looseID is strictID that takes "-" and "+" for the least and the greatest.
func looseID(c *Context, arg []byte, seq uint64) (streamID, bool) {
	if len(arg) <= 127 {
		switch string(cString(arg)) {
		case "-":
			return streamID{}, true
		case "+":
			return maxStreamID, true
		}
	}
	id, _, ok := parseID(arg, seq, false)
	if !ok {
		c.Out.Error(errStreamID)
	}
	return id, ok
}

// parseStart reads where an interval starts: an id, included unless "(" stands
// before it.
func parseStart(c *Context, arg []byte) (id streamID, ok bool) {
	if len(arg) > 1 && arg[0] == '(' {
		if id, ok = strictID(c, arg[1:]); !ok {
			return id, false
		}
		if id, ok = id.next(); !ok {
			c.Out.Error(errStreamStart)
		}
		return id, ok
	}
	return looseID(c, arg, 0)
}

// parseEnd reads where an interval ends.
func parseEnd(c *Context, arg []byte) (id streamID, ok bool) {
	if len(arg) > 1 && arg[0] == '(' {
		if id, _, ok = parseID(arg[1:], math.MaxUint64, false); !ok {
			c.Out.Error(errStreamID)
			return id, false
		}
		if id, ok = id.prev(); !ok {
			c.Out.Error(errStreamEnd)
		}
		return id, ok
	}
	return looseID(c, arg, math.MaxUint64)
}

// integer reads an integer. It replies an error, that of the message if it is
// not "", and returns false if it is none.
func integer(c *Context, arg []byte, message string) (int64, bool) {
	n, ok := crdt.ParseInt(arg)
	if !ok {
		if message == "" {
			message = errNotInteger
		}
		c.Out.Error(message)
	}
	return n, ok
}

// StreamNodeEntries is how many entries XTRIM and XADD with "~" remove together:
// Redis's stream-node-max-entries. There they share a node of a radix tree; here
// they are counted from the stream's first entry on.
var StreamNodeEntries atomic.Int64

const defaultNodeEntries = 100

func init() { StreamNodeEntries.Store(defaultNodeEntries) }

func nodeEntries() int64 {
	if n := StreamNodeEntries.Load(); n > 0 {
		return n
	}
	return defaultNodeEntries
}

// trimOptions are the options of XTRIM, and of XADD with its id.
type trimOptions struct {
	trim, byID, approx bool
	maxLen, limit      int64
	minID              streamID

	noCreate bool
	id       streamID
	given    bool // an id was; its second part too, unless auto
	auto     bool
}

// parseTrim reads the arguments of XADD and XTRIM and returns the position of
// the id, or behind the last argument. It replies an error and returns false if
// they are wrong.
func parseTrim(c *Context, add bool) (o trimOptions, at int, ok bool) {
	fail := func(e string) (trimOptions, int, bool) {
		c.Out.Error(e)
		return o, 0, false
	}
	args, limited := c.Args, false
	i := 2
loop:
	for ; i < len(args); i++ {
		more := len(args) - 1 - i
		switch a := args[i]; {
		case add && string(cString(a)) == "*":
			break loop
		case more > 0 && (is(a, "MAXLEN") || is(a, "MINID")):
			if o.trim {
				return fail(errTrimTwice)
			}
			o.trim, o.byID = true, is(a, "MINID")
			i++
			if next := string(cString(args[i])); more > 1 && (next == "~" || next == "=") {
				o.approx = next == "~"
				i++
			}
			if o.byID {
				if o.minID, ok = strictID(c, args[i]); !ok {
					return o, 0, false
				}
				continue
			}
			if o.maxLen, ok = integer(c, args[i], ""); !ok {
				return o, 0, false
			}
			if o.maxLen < 0 {
				return fail(errTrimMaxLen)
			}
		case more > 0 && is(a, "LIMIT"):
			i++
			if o.limit, ok = integer(c, args[i], ""); !ok {
				return o, 0, false
			}
			if o.limit < 0 {
				return fail(errTrimLimit)
			}
			limited = true
		case add && is(a, "NOMKSTREAM"):
			o.noCreate = true
		case add:
			if o.id, o.auto, o.given = parseID(a, 0, true); !o.given {
				return fail(errStreamID)
			}
			break loop
		default:
			return fail(errSyntax)
		}
	}
	switch {
	case o.limit != 0 && !o.trim:
		return fail(errTrimLimitAlone)
	case !add && !o.trim:
		return fail(errTrimNone)
	case limited && !o.approx:
		return fail(errTrimLimitExact)
	case !limited && o.approx:
		o.limit = min(100*min(nodeEntries(), 10_000), 1_000_000)
	}
	return o, i, true
}

// text appends the id as clients read it.
func (id streamID) text(b []byte) []byte {
	return strconv.AppendUint(append(strconv.AppendUint(b, id.ms, 10), '-'), id.seq, 10)
}
