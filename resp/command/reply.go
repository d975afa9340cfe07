package command

import "github.com/tidwall/redcon"

// Reply builds a command's reply as RESP bytes, by redcon's encoder. Proto is 2; the methods are
// named for what they say, so that RESP3 can say it its own way.
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

// Bool replies 1 or 0.
func (r *Reply) Bool(b bool) {
	if b {
		r.Int(1)
	} else {
		r.Int(0)
	}
}

// Bulk replies a bulk string.
func (r *Reply) Bulk(b []byte) { r.Buf = redcon.AppendBulk(r.Buf, b) }

// BulkString replies a bulk string.
func (r *Reply) BulkString(s string) { r.Buf = redcon.AppendBulkString(r.Buf, s) }

// Null replies the null bulk string.
func (r *Reply) Null() { r.Buf = redcon.AppendNull(r.Buf) }

// NullArray replies the null array.
func (r *Reply) NullArray() { r.Buf = append(r.Buf, "*-1\r\n"...) }

// Array begins an array of n replies, which follow.
func (r *Reply) Array(n int) { r.Buf = redcon.AppendArray(r.Buf, n) }

// Map begins a map of n pairs, which follow: in RESP2 an array of 2n.
func (r *Reply) Map(n int) { r.Array(2 * n) }

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
