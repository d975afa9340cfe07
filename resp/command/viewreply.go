package command

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/replicatord/replicatord/crdt"
)

// errViewReply reports a reply of the view that is not what was asked for.
var errViewReply = errors.New("unexpected reply of the local Redis")

// parseBulks reads a raw RESP2 reply of Tx.View: an array of at most limit
// bulk strings, or a single bulk string. Null, in either form, is no string.
// The strings share raw's memory. Errors, which wrap errViewReply, are replies
// of any other form, error replies among them, and bytes that are too few or
// too many. Nothing is allocated for what raw does not hold.
func parseBulks(raw []byte, limit int) ([][]byte, error) {
	kind, n, rest, err := replyHead(raw)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	switch {
	case n == -1 && (kind == '*' || kind == '$') && len(rest) == 0:
		return nil, nil
	case n < 0:
		return nil, fmt.Errorf("%w: length %d", errViewReply, n)
	case kind == '$':
		var b []byte
		if b, rest, err = bulkBody(rest, n); err != nil {
			return nil, err
		}
		out = [][]byte{b}
	case kind == '*':
		// The shortest bulk string, "$0\r\n\r\n", takes 6 bytes.
		if n > int64(limit) || n > int64(len(rest)/6) {
			return nil, fmt.Errorf("%w: array of %d, limit %d", errViewReply, n, limit)
		}
		out = make([][]byte, n)
		for i := range out {
			if kind, n, rest, err = replyHead(rest); err != nil {
				return nil, err
			}
			if kind != '$' || n < 0 {
				return nil, fmt.Errorf("%w: element %q of length %d", errViewReply, kind, n)
			}
			if out[i], rest, err = bulkBody(rest, n); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("%w: type %q", errViewReply, kind)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes too many", errViewReply, len(rest))
	}
	return out, nil
}

// replyHead reads the first line of a reply: its type and length.
func replyHead(b []byte) (kind byte, n int64, rest []byte, err error) {
	// The longest line with a length in it: type, 20 digits, end of line.
	line, _, ok := bytes.Cut(b[:min(len(b), 23)], []byte("\r\n"))
	if !ok || len(line) < 2 {
		return 0, 0, nil, fmt.Errorf("%w: %q", errViewReply, b[:min(len(b), 64)])
	}
	rest = b[len(line)+2:]
	if n, ok = crdt.ParseInt(line[1:]); !ok {
		return 0, 0, nil, fmt.Errorf("%w: %q", errViewReply, line)
	}
	return line[0], n, rest, nil
}

// bulkBody reads the n bytes of a bulk string and the line end after them.
func bulkBody(b []byte, n int64) (body, rest []byte, err error) {
	if int64(len(b))-2 < n || b[n] != '\r' || b[n+1] != '\n' {
		return nil, nil, fmt.Errorf("%w: bulk string of %d bytes is cut short", errViewReply, n)
	}
	return b[:n:n], b[n+2:], nil
}
