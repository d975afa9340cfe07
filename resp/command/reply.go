package command

import (
	"math"
	"strconv"

	"github.com/tidwall/redcon"
)

// Reply builds a command's reply as RESP bytes, by redcon's encoder. The
// methods are named for what they say: RESP2 and RESP3 (Proto 3) each say it
// their own way.
type Reply struct {
	Proto int
	Buf   []byte
}

// OK replies +OK.
func (r *Reply) OK() { r.Status("OK") }

// Status replies a simple string.
func (r *Reply) Status(s string) { r.Buf = redcon.AppendString(r.Buf, s) }

// Error replies an error; msg begins with its prefix, such as "ERR ".
func (r *Reply) Error(msg string) { r.Buf = redcon.AppendError(r.Buf, msg) }

// Int replies an integer.
func (r *Reply) Int(n int64) { r.Buf = redcon.AppendInt(r.Buf, n) }

// Bool replies 1 or 0: what Redis says of yes and no in either protocol.
func (r *Reply) Bool(b bool) {
	if b {
		r.Int(1)
	} else {
		r.Int(0)
	}
}

// Double replies a floating-point number: in RESP2 a bulk string.
func (r *Reply) Double(f float64) {
	s := FormatDouble(f)
	if r.Proto == 3 {
		r.Buf = append(append(append(r.Buf, ','), s...), "\r\n"...)
	} else {
		r.BulkString(s)
	}
}

// FormatDouble writes a floating-point number as Redis 7.0 replies it: C's
// "%.17g".
func FormatDouble(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	return strconv.FormatFloat(f, 'g', 17, 64)
}

// Bulk replies a bulk string.
func (r *Reply) Bulk(b []byte) { r.Buf = redcon.AppendBulk(r.Buf, b) }

// BulkString replies a bulk string.
func (r *Reply) BulkString(s string) { r.Buf = redcon.AppendBulkString(r.Buf, s) }

// Push begins a message of n replies, which follow, that answers no command: in
// RESP2 an array.
func (r *Reply) Push(n int) {
	if r.Proto == 3 {
		r.head('>', n)
	} else {
		r.Array(n)
	}
}

// Verbatim replies text for people to read: in RESP2 a bulk string.
func (r *Reply) Verbatim(s string) {
	if r.Proto != 3 {
		r.BulkString(s)
		return
	}
	r.head('=', len(s)+4)
	r.Buf = append(append(append(r.Buf, "txt:"...), s...), "\r\n"...)
}

// StatusSet replies a set of simple strings: in RESP2 an array.
func (r *Reply) StatusSet(list []string) {
	r.Set(len(list))
	for _, s := range list {
		r.Status(s)
	}
}

// Null replies the null bulk string.
func (r *Reply) Null() {
	if r.Proto == 3 {
		r.Buf = append(r.Buf, "_\r\n"...)
	} else {
		r.Buf = redcon.AppendNull(r.Buf)
	}
}

// NullArray replies the null array.
func (r *Reply) NullArray() {
	if r.Proto == 3 {
		r.Buf = append(r.Buf, "_\r\n"...)
	} else {
		r.Buf = append(r.Buf, "*-1\r\n"...)
	}
}

// Array begins an array of n replies, which follow.
func (r *Reply) Array(n int) { r.Buf = redcon.AppendArray(r.Buf, n) }

// Map begins a map of n pairs, which follow: in RESP2 an array of 2n.
func (r *Reply) Map(n int) {
	if r.Proto == 3 {
		r.head('%', n)
	} else {
		r.Array(2 * n)
	}
}

// Set begins a set of n replies, which follow: in RESP2 an array.
func (r *Reply) Set(n int) {
	if r.Proto == 3 {
		r.head('~', n)
	} else {
		r.Array(n)
	}
}

func (r *Reply) head(kind byte, n int) {
	r.Buf = append(strconv.AppendInt(append(r.Buf, kind), int64(n), 10), "\r\n"...)
}

// Lines replies an array of simple strings, the form of help texts.
func (r *Reply) Lines(lines []string) { r.statuses(lines) }

// statuses replies an array of simple strings.
func (r *Reply) statuses(list []string) {
	r.Array(len(list))
	for _, s := range list {
		r.Status(s)
	}
}

// bulks replies an array of bulk strings.
func (r *Reply) bulks(list []string) {
	r.Array(len(list))
	for _, s := range list {
		r.BulkString(s)
	}
}

// Raw replies bytes that are a reply already.
func (r *Reply) Raw(b []byte) { r.Buf = append(r.Buf, b...) }
