package command

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

func TestParseBulks(t *testing.T) {
	for _, c := range []struct {
		raw   string
		limit int
		want  string // as %q prints it; "" for an error
	}{
		{"$3\r\nabc\r\n", 1, `["abc"]`},
		{"$0\r\n\r\n", 1, `[""]`},
		{"$2\r\n\r\n\r\n", 1, `["\r\n"]`},
		{"$-1\r\n", 1, `[]`},
		{"*-1\r\n", 1, `[]`},
		{"*0\r\n", 0, `[]`},
		{"*2\r\n$1\r\na\r\n$0\r\n\r\n", 2, `["a" ""]`},

		{"*2\r\n$1\r\na\r\n$0\r\n\r\n", 1, ""}, // more than asked for
		{"*2\r\n$1\r\na\r\n", 2, ""},
		{"*1\r\n$1\r\na\r\nx", 1, ""},
		{"*1\r\n$-1\r\n", 1, ""},
		{"*1\r\n*0\r\n", 1, ""},
		{"*1\r\n:1\r\n", 1, ""},
		{"*1000000000\r\n", 1 << 30, ""},
		{"*9223372036854775807\r\n", 1 << 30, ""},
		{"*9223372036854775808\r\n", 1 << 30, ""},
		{"*-2\r\n", 1, ""},
		{"$-2\r\n", 1, ""},
		{"$3\r\nab\r\n", 1, ""},
		{"$1\r\nab\r\n", 1, ""},
		{"$1\r\na\n\r", 1, ""},
		{"$9223372036854775807\r\na\r\n", 1, ""},
		{"$01\r\na\r\n", 1, ""},
		{"$1\na\r\n", 1, ""},
		{":1\r\n", 1, ""},
		{":-1\r\n", 1, ""},
		{"-ERR no\r\n", 1, ""},
		{"+OK\r\n", 1, ""},
		{"$", 1, ""},
		{"$\r\n", 1, ""},
		{"", 1, ""},
	} {
		got, err := parseBulks([]byte(c.raw), c.limit)
		switch {
		case c.want == "" && !errors.Is(err, errViewReply):
			t.Errorf("%q: %q, %v", c.raw, got, err)
		case c.want != "" && (err != nil || fmt.Sprintf("%q", got) != c.want):
			t.Errorf("%q: %q, %v; want %s", c.raw, got, err, c.want)
		}
	}
}

// What is read is what a reply says, to the byte, and nothing else is read.
func FuzzParseBulks(f *testing.F) {
	for _, s := range []string{"$3\r\nabc\r\n", "*2\r\n$1\r\na\r\n$0\r\n\r\n", "*-1\r\n", "$-1\r\n", "-ERR\r\n", "*1\r\n$5\r\nab"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, raw []byte, limit int) {
		got, err := parseBulks(raw, limit)
		if err != nil {
			return
		}
		var bulk, array Reply
		array.Array(len(got))
		for _, b := range got {
			bulk.Bulk(b)
			array.Bulk(b)
		}
		null := len(got) == 0 && (string(raw) == "$-1\r\n" || string(raw) == "*-1\r\n")
		if !null && !bytes.Equal(raw, array.Buf) && (len(got) != 1 || !bytes.Equal(raw, bulk.Buf)) {
			t.Errorf("%q read as %q", raw, got)
		}
	})
}
