package command

import (
	"encoding/binary"
	"maps"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/script"
)

// A script is one command: it runs where commands run, in the node, and what it
// calls are commands within it (Context.Call). So its effects are one entry.
//
// Scripts are cached by the node that they are sent to, as by a Redis. Libraries of
// functions are values of the cluster: FUNCTION LOAD writes a field of a hash
// in SystemDB, and every node loads what the hash holds.

const (
	scriptFlags  = NoScript | Stale | SkipMonitor | NoMandatoryKeys | MovableKeys
	refusedDebug = "there is no debugger: scripts run in the node"
)

var scriptingCommands = []*Command{
	{Name: "EVAL", Arity: -3, Flags: Write | Unlisted | scriptFlags, Group: "scripting", Since: "2.6.0",
		Summary: "Runs a script", Run: eval},
	{Name: "EVALSHA", Arity: -3, Flags: Write | Unlisted | scriptFlags, Group: "scripting", Since: "2.6.0",
		Summary: "Runs a cached script, by the SHA1 of its text", Run: evalSHA},
	{Name: "EVAL_RO", Arity: -3, Flags: ReadOnly | scriptFlags, Group: "scripting", Since: "7.0.0",
		Summary: "Runs a script that only reads", Run: evalRO},
	{Name: "EVALSHA_RO", Arity: -3, Flags: ReadOnly | scriptFlags, Group: "scripting", Since: "7.0.0",
		Summary: "Runs a cached script that only reads", Run: evalSHARO},
	{Name: "FCALL", Arity: -3, Flags: Write | Unlisted | scriptFlags, Group: "scripting", Since: "7.0.0",
		Summary: "Calls a function of a library", Run: fcall},
	{Name: "FCALL_RO", Arity: -3, Flags: ReadOnly | scriptFlags, Group: "scripting", Since: "7.0.0",
		Summary: "Calls a function that only reads", Run: fcallRO},
	{Name: "SCRIPT", Arity: -2, Group: "scripting", Since: "2.6.0", Summary: "About cached scripts", Sub: []*Command{
		{Name: "SCRIPT|DEBUG", Arity: 3, Refused: refusedDebug},
		{Name: "SCRIPT|EXISTS", Arity: -3, Flags: ReadOnly | Unlisted | NoScript, Group: "scripting", Since: "2.6.0",
			Summary: "Which scripts are cached, by their SHA1", Run: scriptExists},
		{Name: "SCRIPT|FLUSH", Arity: -2, Flags: ReadOnly | Unlisted | NoScript, Group: "scripting", Since: "2.6.0",
			Summary: "Forgets the cached scripts", Run: scriptFlush},
		{Name: "SCRIPT|HELP", Arity: 2, Flags: Session | Loading | Stale, Group: "scripting", Since: "5.0.0",
			Summary: "The subcommands of SCRIPT"},
		{Name: "SCRIPT|KILL", Arity: 2, Flags: Session | NoScript | AllowBusy, Group: "scripting", Since: "2.6.0",
			Summary: "Ends the script that runs, if it has written nothing"},
		{Name: "SCRIPT|LOAD", Arity: 3, Flags: ReadOnly | Unlisted | NoScript | Stale, Group: "scripting", Since: "2.6.0",
			Summary: "Caches a script", Run: scriptLoad},
	}},
	{Name: "FUNCTION", Arity: -2, Group: "scripting", Since: "7.0.0", Summary: "About libraries of functions", Sub: []*Command{
		{Name: "FUNCTION|DELETE", Arity: 3, Flags: Write | NoScript, Group: "scripting", Since: "7.0.0",
			Summary: "Removes a library", Run: functionDelete},
		{Name: "FUNCTION|DUMP", Arity: 2, Flags: ReadOnly | Unlisted | NoScript, Group: "scripting", Since: "7.0.0",
			Summary: "All libraries in serialised form", Run: functionDump},
		{Name: "FUNCTION|FLUSH", Arity: -2, Flags: Write | NoScript, Group: "scripting", Since: "7.0.0",
			Summary: "Removes all libraries", Run: functionFlush},
		{Name: "FUNCTION|HELP", Arity: 2, Flags: Session | Loading | Stale, Group: "scripting", Since: "7.0.0",
			Summary: "The subcommands of FUNCTION"},
		{Name: "FUNCTION|KILL", Arity: 2, Flags: Session | NoScript | AllowBusy, Group: "scripting", Since: "7.0.0",
			Summary: "Ends the function that runs, if it has written nothing"},
		{Name: "FUNCTION|LIST", Arity: -2, Flags: ReadOnly | Unlisted | NoScript, Group: "scripting", Since: "7.0.0",
			Summary: "The libraries and their functions", Run: functionList},
		{Name: "FUNCTION|LOAD", Arity: -3, Flags: Write | DenyOOM | NoScript, Group: "scripting", Since: "7.0.0",
			Summary: "Adds or replaces a library, on all nodes", Run: functionLoad},
		{Name: "FUNCTION|RESTORE", Arity: -3, Flags: Write | DenyOOM | NoScript, Group: "scripting", Since: "7.0.0",
			Summary: "Adds the libraries of a dump", Run: functionRestore},
		{Name: "FUNCTION|STATS", Arity: 2, Flags: Session | NoScript | AllowBusy, Group: "scripting", Since: "7.0.0",
			Summary: "The function that runs, and how many there are"},
	}},
}

// A dump of libraries is, as in Redis's snapshots: for each the byte 245 and
// its code as a string; then two bytes of version and eight of CRC64.
const (
	dumpFunction = 245
	dumpVersion  = 10
	dumpFooter   = 10
)

func functionDump(c *Context) {
	c.Scripts.Refresh(c)
	var b []byte
	for _, name := range c.Scripts.names() {
		code := c.Scripts.libs[name].Code
		b = append(b, dumpFunction)
		switch n := len(code); {
		case n < 1<<6:
			b = append(b, byte(n))
		case n < 1<<14:
			b = append(b, 0x40|byte(n>>8), byte(n))
		default:
			b = binary.BigEndian.AppendUint32(append(b, 0x80), uint32(n))
		}
		b = append(b, code...)
	}
	b = append(b, dumpVersion, 0)
	c.Out.Bulk(binary.LittleEndian.AppendUint64(b, crc64(b)))
}

// errDump is what Redis says of a payload it cannot take.
const (
	errDumpFooter = "ERR DUMP payload version or checksum are wrong"
	errDumpType   = "ERR given type is not a function"
	errDumpLoad   = "ERR failed loading the given functions payload"
)

func functionRestore(c *Context) {
	if len(c.Args) > 4 {
		c.Out.Error(errSubcommand(c.Args))
		return
	}
	flush, replace := false, false
	if len(c.Args) == 4 {
		switch a := c.Args[3]; {
		case is(a, "APPEND"):
		case is(a, "REPLACE"):
			replace = true
		case is(a, "FLUSH"):
			flush = true
		default:
			c.Out.Error("ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.")
			return
		}
	}
	codes, e := restoreCodes(c.Args[2])
	if e != "" {
		c.Out.Error(e)
		return
	}
	s := c.Scripts
	s.Refresh(c)
	// The libraries of a dump must not clash with those that stay. Among
	// themselves functions may: on a node they can, see Refresh.
	libs, byName := map[string]*script.Library{}, map[string]*script.Function{}
	for _, code := range codes {
		lib, refusal := s.add(libs, nil, code, false)
		if refusal != "" {
			c.Out.Error(oneLine(refusal))
			return
		}
		libs[lib.Name] = lib
		for _, f := range lib.Functions {
			byName[strings.ToLower(f.Name)] = f
		}
	}
	if !flush {
		for name := range libs {
			if s.libs[name] != nil && !replace {
				c.Out.Error("ERR Library " + name + " already exists")
				return
			}
		}
		for name := range byName {
			if f := s.byName[name]; f != nil && libs[f.Library.Name] == nil {
				c.Out.Error("ERR Function " + f.Name + " already exists")
				return
			}
		}
	} else {
		c.Remove(functionsKey)
	}
	for name, lib := range libs {
		c.SetElem(functionsKey, crdt.KindField, name, []byte(lib.Code))
	}
	s.relink(func(all map[string]*script.Library) {
		if flush {
			clear(all)
		}
		maps.Copy(all, libs)
	})
	c.Out.OK()
}

// restoreCodes reads a dump. The string is an error reply, "" for none.
func restoreCodes(b []byte) ([]string, string) {
	if len(b) < dumpFooter {
		return nil, errDumpFooter
	}
	body, foot := b[:len(b)-dumpFooter], b[len(b)-dumpFooter:]
	if v := binary.LittleEndian.Uint16(foot); v > dumpVersion || binary.LittleEndian.Uint64(foot[2:]) != crc64(b[:len(b)-8]) {
		return nil, errDumpFooter
	}
	var out []string
	for len(body) > 0 {
		if body[0] != dumpFunction {
			return nil, errDumpType
		}
		s, rest, ok := dumpString(body[1:])
		if !ok {
			return nil, errDumpLoad
		}
		out, body = append(out, s), rest
	}
	return out, ""
}

// dumpLength reads a length; special tells that it is none but a way of
// encoding.
func dumpLength(b []byte) (n uint64, special bool, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, false, nil, false
	}
	switch c := b[0]; {
	case c>>6 == 0:
		return uint64(c & 0x3f), false, b[1:], true
	case c>>6 == 1 && len(b) > 1:
		return uint64(c&0x3f)<<8 | uint64(b[1]), false, b[2:], true
	case c == 0x80 && len(b) > 4:
		return uint64(binary.BigEndian.Uint32(b[1:])), false, b[5:], true
	case c == 0x81 && len(b) > 8:
		return binary.BigEndian.Uint64(b[1:]), false, b[9:], true
	case c>>6 == 3:
		return uint64(c & 0x3f), true, b[1:], true
	}
	return 0, false, nil, false
}

// dumpString reads a string, which may be compressed.
func dumpString(b []byte) (s string, rest []byte, ok bool) {
	n, special, b, ok := dumpLength(b)
	if !ok {
		return "", nil, false
	}
	if !special {
		if n > uint64(len(b)) {
			return "", nil, false
		}
		return string(b[:n]), b[n:], true
	}
	if n != 3 { // the others are integers, which are no code
		return "", nil, false
	}
	packed, s1, b, ok1 := dumpLength(b)
	if !ok1 || s1 {
		return "", nil, false
	}
	size, s2, b, ok2 := dumpLength(b)
	if !ok2 || s2 || packed > uint64(len(b)) || size > MaxString {
		return "", nil, false
	}
	out, ok := unpackLZF(b[:packed], int(size))
	return string(out), b[packed:], ok
}

// unpackLZF unpacks LZF into size bytes.
func unpackLZF(b []byte, size int) ([]byte, bool) {
	var out []byte
	for len(b) > 0 {
		c := int(b[0])
		b = b[1:]
		if c < 32 { // c+1 bytes as they are
			if c++; c > len(b) || len(out)+c > size {
				return nil, false
			}
			out, b = append(out, b[:c]...), b[c:]
			continue
		}
		n := c >> 5
		if n == 7 {
			if len(b) == 0 {
				return nil, false
			}
			n += int(b[0])
			b = b[1:]
		}
		if len(b) == 0 {
			return nil, false
		}
		at := len(out) - (c&31)<<8 - int(b[0]) - 1
		b = b[1:]
		if n += 2; at < 0 || len(out)+n > size {
			return nil, false
		}
		for i := range n {
			out = append(out, out[at+i])
		}
	}
	return out, len(out) == size
}

// crcTable is of the polynomial "Jones", as Redis has it.
var crcTable = func() (t [256]uint64) {
	const poly = 0x95ac9329ac4bc9b5 // reflected
	for i := range t {
		c := uint64(i)
		for range 8 {
			if c&1 == 1 {
				c = c>>1 ^ poly
			} else {
				c >>= 1
			}
		}
		t[i] = c
	}
	return
}()

func crc64(b []byte) uint64 {
	var c uint64
	for _, x := range b {
		c = crcTable[byte(c)^x] ^ c>>8
	}
	return c
}
