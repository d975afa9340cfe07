package command

import (
	"bytes"
	"strings"
)

// Error replies, each with its prefix, word for word as Redis 7.0 gives them.
const (
	errWrongType      = "WRONGTYPE Operation against a key holding the wrong kind of value"
	errSyntax         = "ERR syntax error"
	errNotInteger     = "ERR value is not an integer or out of range"
	errIntRange       = "ERR value is out of range, value must between -2147483648 and 2147483647"
	errNotFloat       = "ERR value is not a valid float"
	errNotPositive    = "ERR value is out of range, must be positive"
	errNaN            = "ERR value is NaN or Infinity"
	errOverflow       = "ERR increment or decrement would overflow"
	errDecrement      = "ERR decrement would overflow"
	errNotFinite      = "ERR increment would produce NaN or Infinity"
	errHashNotInteger = "ERR hash value is not an integer"
	errHashNotFloat   = "ERR hash value is not a float"
	errTooLong        = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
	errOffset         = "ERR offset is out of range"
	errNoKey          = "ERR no such key"
	errSameKey        = "ERR source and destination objects are the same"
	errDBRange        = "ERR DB index is out of range"
	errBitOffset      = "ERR bit offset is not an integer or out of range"
	errBit            = "ERR bit is not an integer or out of range"
	errBitType        = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
	errBitOverflow    = "ERR Invalid OVERFLOW type specified"
	errBitNot         = "ERR BITOP NOT must be called with a single source key."
	errExpireNX       = "ERR NX and XX, GT or LT options at the same time are not compatible"
	errExpireGTLT     = "ERR GT and LT options at the same time are not compatible"

	errZAddNXXX        = "ERR XX and NX options at the same time are not compatible"
	errZAddGTLT        = "ERR GT, LT, and/or NX options at the same time are not compatible"
	errZAddIncr        = "ERR INCR option supports a single increment-element pair"
	errScoreNaN        = "ERR resulting score is not a number (NaN)"
	errScoreRange      = "ERR min or max is not a float"
	errLexRange        = "ERR min or max not valid string range item"
	errLimitByRank     = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX"
	errWeight          = "ERR weight value is not a float"
	errNumKeys         = "ERR numkeys should be greater than 0"
	errCount           = "ERR count should be greater than 0"
	errRadius          = "ERR need numeric radius"
	errRadiusNegative  = "ERR radius cannot be negative"
	errWidth           = "ERR need numeric width"
	errHeight          = "ERR need numeric height"
	errBoxNegative     = "ERR height or width cannot be negative"
	errUnit            = "ERR unsupported unit provided. please use M, KM, FT, MI"
	errGeoMember       = "ERR could not decode requested zset member"
	errGeoCount        = "ERR COUNT must be > 0"
	errGeoAny          = "ERR the ANY argument requires COUNT argument"
	errGeoWith         = " is not compatible with WITHDIST, WITHHASH and WITHCOORD options" // after its subject
	errTimeout         = "ERR timeout is not a float or out of range"
	errTimeoutNegative = "ERR timeout is negative"
	errIndexRange      = "ERR index out of range"

	errNotHLL = "WRONGTYPE Key is not a valid HyperLogLog string value."
	errBadHLL = "INVALIDOBJ Corrupted HLL object detected"

	errGetKeysCommand = "ERR Invalid command specified"
	errGetKeysNone    = "ERR The command has no key arguments"
	errGetKeysArity   = "ERR Invalid number of arguments specified for command"
	errGetKeysArgs    = "ERR Invalid arguments specified for command"
)

// ErrOOM refuses what may need memory that there is not to be.
const ErrOOM = "OOM command not allowed when used memory > 'maxmemory'."

// maxQuoted is how many bytes of what a client sent an error repeats.
const maxQuoted = 128

// errArity is the error for a wrong number of arguments; name as in Command.
func errArity(name string) string {
	return "ERR wrong number of arguments for '" + strings.ToLower(name) + "' command"
}

// errExpireTime is the error for an expiry out of range.
func errExpireTime(name string) string {
	return "ERR invalid expire time in '" + strings.ToLower(name) + "' command"
}

// errExpireOption is the error for an option that EXPIRE does not know.
func errExpireOption(option []byte) string {
	// Redis trims line ends that the client put last, and makes blanks of others.
	return oneLine(strings.Trim("ERR Unsupported option "+string(cString(option)), "\r\n"))
}

// errUnknownCommand is the error for a command that nobody knows.
func errUnknownCommand(args [][]byte) string {
	var quoted []byte
	for _, a := range args[1:] {
		if len(quoted) >= maxQuoted {
			break
		}
		a = cString(a)
		quoted = append(append(append(quoted, '\''), a[:min(len(a), maxQuoted-len(quoted))]...), "' "...)
	}
	return oneLine("ERR unknown command '" + quote(args[0]) + "', with args beginning with: " + string(quoted))
}

// errUnknownSubcommand is the error for a container command's unknown
// subcommand.
func errUnknownSubcommand(args [][]byte) string {
	return oneLine("ERR unknown subcommand '" + quote(args[1]) + "'. Try " + strings.ToUpper(string(cString(args[0]))) + " HELP.")
}

// errUnsupported refuses a command that Redis knows and this node does not
// carry out.
func errUnsupported(name, reason string) string {
	return "ERR unsupported command '" + strings.ToLower(strings.ReplaceAll(name, "|", " ")) + "': " + reason
}

func quote(b []byte) string {
	b = cString(b)
	return string(b[:min(len(b), maxQuoted)])
}

// cString cuts b where C would: Redis compares and prints options and names so.
func cString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// oneLine makes a message fit for an error reply, which a line end would cut.
func oneLine(s string) string { return lineEnds.Replace(s) }

var lineEnds = strings.NewReplacer("\r", " ", "\n", " ")
