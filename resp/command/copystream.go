package command

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/replicatord/replicatord/crdt"
)

// Caller carries out a command somewhere and returns the raw reply of RESP2.
type Caller func(args ...[]byte) []byte

// CopyStream makes a stream, where there is no key, of another: entries, ids and
// counts, groups, consumers and pending lists. It returns an error reply if a
// command fails.
func CopyStream(from Caller, name []byte, to Caller, as []byte) []byte {
	var failed []byte
	run := func(words ...any) {
		if failed != nil {
			return
		}
		args := make([][]byte, len(words))
		for i, w := range words {
			switch w := w.(type) {
			case []byte:
				args[i] = w
			case string:
				args[i] = []byte(w)
			case int64:
				args[i] = strconv.AppendInt(nil, w, 10)
			}
		}
		if raw := to(args...); raw[0] == '-' {
			failed = raw
		}
	}
	ask := func(args ...string) value {
		b := make([][]byte, len(args))
		for i, a := range args {
			b[i] = []byte(a)
		}
		raw := from(b...)
		v, rest, err := parseValue(raw, 0)
		switch {
		case failed != nil:
		case raw[0] == '-':
			failed = raw
		case err != nil || len(rest) > 0:
			out := Reply{}
			out.Error(fmt.Sprintf("ERR %v", errViewReply))
			failed = out.Buf
		}
		return v
	}

	info := ask("XINFO", "STREAM", string(name), "FULL", "COUNT", "0")
	if failed != nil {
		return failed
	}
	// A group makes the stream even if it has no entries.
	run("XGROUP", "CREATE", as, "g", "$", "MKSTREAM")
	run("XGROUP", "DESTROY", as, "g")
	const step = 1000
	for start := "-"; failed == nil; {
		entries := ask("XRANGE", string(name), start, "+", "COUNT", strconv.Itoa(step)).list
		for _, e := range entries {
			if len(e.list) != 2 {
				continue
			}
			args := []any{"XADD", as, e.list[0].text}
			for _, f := range e.list[1].list {
				args = append(args, f.text)
			}
			run(args...)
			start = "(" + string(e.list[0].text)
		}
		if len(entries) < step {
			break
		}
	}
	last, deleted := info.get("last-generated-id").text, info.get("max-deleted-entry-id").text
	if added := info.get("entries-added"); deleted != nil {
		run("XSETID", as, last, "ENTRIESADDED", added.n, "MAXDELETEDID", deleted)
	} else {
		run("XSETID", as, last) // Redis before 7.0 keeps no more
	}
	for _, g := range info.get("groups").list {
		group := g.get("name").text
		if read := g.get("entries-read"); read.text == nil && read.isInt {
			run("XGROUP", "CREATE", as, group, g.get("last-delivered-id").text, "ENTRIESREAD", read.n)
		} else {
			run("XGROUP", "CREATE", as, group, g.get("last-delivered-id").text)
		}
		for _, m := range g.get("consumers").list {
			run("XGROUP", "CREATECONSUMER", as, group, m.get("name").text)
		}
	}
	copyPending(ask, run, string(name), as, info)
	return failed
}

// copyPending copies the pending lists of a stream's groups.
func copyPending(ask func(...string) value, run func(...any), name string, as []byte, info value) {
	const step = 1000
	for _, g := range info.get("groups").list {
		group := string(g.get("name").text)
		for start := "-"; ; {
			pending := ask("XPENDING", name, group, start, "+", strconv.Itoa(step)).list
			for _, p := range pending {
				if len(p.list) != 4 {
					continue
				}
				id := p.list[0].text
				run("XCLAIM", as, group, p.list[1].text, "0", id, "IDLE", p.list[2].n, "RETRYCOUNT", p.list[3].n, "FORCE", "JUSTID")
				start = "(" + string(id)
			}
			if len(pending) < step {
				break
			}
		}
	}
}

// value is a reply of RESP2, taken apart.
type value struct {
	text  []byte // of a string; nil for null and others
	n     int64
	isInt bool
	list  []value
}

// get returns the value of a field in a flat list of names and values.
func (v value) get(name string) value {
	for i := 0; i+1 < len(v.list); i += 2 {
		if string(v.list[i].text) == name {
			return v.list[i+1]
		}
	}
	return value{}
}

// maxValueDepth bounds how deep the lists of a reply are nested.
const maxValueDepth = 16

// parseValue takes the first reply of b apart and returns what follows.
func parseValue(b []byte, depth int) (v value, rest []byte, err error) {
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok || len(line) == 0 || depth > maxValueDepth {
		return v, nil, errViewReply
	}
	n, isInt := crdt.ParseInt(line[1:])
	switch {
	case line[0] == '+':
		v.text = line[1:]
	case !isInt:
		return v, nil, errViewReply
	case line[0] == ':':
		v.n, v.isInt = n, true
	case line[0] == '$' && n >= 0:
		v.text, rest, err = bulkBody(rest, n)
	case line[0] == '*' && n > 0:
		for range n {
			var e value
			if e, rest, err = parseValue(rest, depth+1); err != nil {
				return v, nil, err
			}
			v.list = append(v.list, e)
		}
	case line[0] == '$', line[0] == '*':
	default:
		return v, nil, errViewReply
	}
	return v, rest, err
}
