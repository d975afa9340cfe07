package node

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// The embedded store has RESP3 replies of its own making. asRedis turns one
// into what Redis answers.
func asRedis(args [][]byte, raw []byte) []byte {
	raw = nullReplies(raw)
	kind, items, ok := splitReply(raw)
	if !ok {
		return raw
	}
	has := func(option string) bool {
		return slices.ContainsFunc(args[1:], func(a []byte) bool { return strings.EqualFold(string(a), option) })
	}
	switch name := strings.ToUpper(string(args[0])); name {
	case "SUNION", "SINTER", "SDIFF":
		return joinReply('~', items)
	case "HRANDFIELD":
		if kind == '%' {
			return joinReply('*', pairReplies(items))
		}
	case "ZRANGE", "ZRANGEBYSCORE", "ZREVRANGE", "ZREVRANGEBYSCORE", "ZUNION", "ZINTER", "ZDIFF", "ZRANDMEMBER":
		if has("WITHSCORES") {
			return joinReply('*', pairReplies(items))
		}
	case "ZSCAN":
		if len(items) == 2 {
			_, scan, _ := splitReply(items[1])
			for i, s := range scan {
				if s[0] == ',' {
					scan[i] = bulkReply(bytes.TrimSpace(s[1:]))
				}
			}
			return joinReply('*', [][]byte{items[0], joinReply('*', scan)})
		}
	case "XREAD":
		var flat [][]byte
		for _, s := range items {
			_, keyAndEntries, _ := splitReply(s)
			flat = append(flat, keyAndEntries...)
		}
		return joinReply('%', flat)
	case "GEOPOS":
		for i, s := range items {
			items[i] = doubleReplies(s)
		}
		return joinReply('*', items)
	case "GEORADIUS", "GEORADIUSBYMEMBER", "GEORADIUS_RO", "GEORADIUSBYMEMBER_RO", "GEOSEARCH":
		if !has("WITHCOORD") {
			break
		}
		for i, s := range items {
			if _, parts, ok := splitReply(s); ok {
				parts[len(parts)-1] = doubleReplies(parts[len(parts)-1])
				items[i] = joinReply('*', parts)
			}
		}
		return joinReply('*', items)
	}
	return raw
}

// splitReply returns the items of an aggregate reply, two for each pair of a map.
func splitReply(raw []byte) (kind byte, items [][]byte, ok bool) {
	end := bytes.IndexByte(raw, '\n') + 1
	if end == 0 || !bytes.ContainsRune([]byte("*~%>"), rune(raw[0])) {
		return 0, nil, false
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(raw[1:end])))
	if err != nil || n < 0 {
		return 0, nil, false
	}
	if raw[0] == '%' {
		n *= 2
	}
	for range n {
		size := replySize(raw[end:])
		if size == 0 {
			return 0, nil, false
		}
		items = append(items, raw[end:end+size])
		end += size
	}
	return raw[0], items, true
}

// replySize returns how many bytes the first reply of b takes, 0 if it is not
// whole.
func replySize(b []byte) int {
	end := bytes.IndexByte(b, '\n') + 1
	if end == 0 {
		return 0
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(b[1:end])))
	switch b[0] {
	case '$', '=':
		if n < 0 {
			return end
		}
		if end+n+2 > len(b) {
			return 0
		}
		return end + n + 2
	case '%':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for range max(n, 0) {
			size := replySize(b[end:])
			if size == 0 {
				return 0
			}
			end += size
		}
	}
	return end
}

func joinReply(kind byte, items [][]byte) []byte {
	n := len(items)
	if kind == '%' {
		n /= 2
	}
	out := append(strconv.AppendInt([]byte{kind}, int64(n), 10), "\r\n"...)
	for _, s := range items {
		out = append(out, s...)
	}
	return out
}

// pairReplies makes each two items one array.
func pairReplies(items [][]byte) [][]byte {
	var out [][]byte
	for i := 0; i+1 < len(items); i += 2 {
		out = append(out, joinReply('*', items[i:i+2]))
	}
	return out
}

func bulkReply(b []byte) []byte {
	return append(append(append(strconv.AppendInt([]byte{'$'}, int64(len(b)), 10), "\r\n"...), b...), "\r\n"...)
}

// doubleReplies turns the bulk strings of an array into doubles.
func doubleReplies(raw []byte) []byte {
	_, items, ok := splitReply(raw)
	if !ok {
		return raw
	}
	for i, s := range items {
		if b, size := readBulk(s); size > 0 {
			items[i] = append(append([]byte{','}, b...), "\r\n"...)
		}
	}
	return joinReply('*', items)
}

// nullReplies turns the nulls of RESP2 into that of RESP3.
func nullReplies(raw []byte) []byte {
	if len(raw) > 1 && raw[1] == '-' && (raw[0] == '*' || raw[0] == '$') {
		return []byte("_\r\n")
	}
	kind, items, ok := splitReply(raw)
	if !ok || !bytes.Contains(raw, []byte("-1\r\n")) {
		return raw
	}
	for i, s := range items {
		items[i] = nullReplies(s)
	}
	return joinReply(kind, items)
}
