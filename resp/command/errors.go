package command

import (
	"bytes"
	"fmt"
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

	errFieldExpireTime = "ERR invalid expire time, must be >= 0"
	errFieldsMissing   = "ERR Mandatory argument FIELDS is missing or not at the right position"
	errFieldsPositive  = "ERR Parameter `numFields` should be greater than 0"
	errFieldsNumber    = "ERR Number of fields must be a positive integer"
	errFieldsCount     = "ERR The `numfields` parameter must match the number of arguments"
	errFieldsInvalid   = "ERR invalid number of fields"
	errFieldsCondition = "ERR Only one of FXX or FNX arguments can be specified"
	errFieldsExpiry    = "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified"

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

	errStreamID       = "ERR Invalid stream ID specified as stream command argument"
	errStreamIDZero   = "ERR The ID specified in XADD must be greater than 0-0"
	errStreamIDSmall  = "ERR The ID specified in XADD is equal or smaller than the target stream top item"
	errStreamFull     = "ERR The stream has exhausted the last possible ID, unable to add more items"
	errStreamStart    = "ERR invalid start ID for the interval"
	errStreamEnd      = "ERR invalid end ID for the interval"
	errEntryTooLarge  = "ERR Elements are too large to be stored"
	errTrimTwice      = "ERR syntax error, MAXLEN and MINID options at the same time are not compatible"
	errTrimMaxLen     = "ERR The MAXLEN argument must be >= 0."
	errTrimLimit      = "ERR The LIMIT argument must be >= 0."
	errTrimLimitAlone = "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy"
	errTrimLimitExact = "ERR syntax error, LIMIT cannot be used without the special ~ option"
	errTrimNone       = "ERR syntax error, XTRIM must be called with a trimming strategy"
	errSetIDSmall     = "ERR The ID specified in XSETID is smaller than the target stream top item"
	errSetIDDeleted   = "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id"
	errSetIDAdded     = "ERR The entries_added specified in XSETID is smaller than the target stream length"
	errAddedPositive  = "ERR entries_added must be positive"
	errUnbalanced     = "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified."
	errGroupOption    = "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead."
	errNoAckOption    = "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead."
	errGroupMissing   = "ERR Missing GROUP option for XREADGROUP"
	errDollarID       = "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set."
	errNewID          = "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option."
	errTimeoutMillis  = "ERR timeout is not an integer or out of range"
	errStreamGone     = "UNBLOCKED the stream key no longer exists"
	errGroupGone      = "NOGROUP the consumer group this client was blocked on no longer exists"
	errGroupNoKey     = "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically."
	errGroupBusy      = "BUSYGROUP Consumer Group name already exists"
	errEntriesRead    = "ERR value for ENTRIESREAD must be positive or -1"
	errClaimCount     = "ERR COUNT must be > 0"

	errGetKeysCommand = "ERR Invalid command specified"
	errGetKeysNone    = "ERR The command has no key arguments"
	errGetKeysArity   = "ERR Invalid number of arguments specified for command"
	errGetKeysArgs    = "ERR Invalid arguments specified for command"
)

// ErrNoReplicas refuses a write that too few other members would have soon.
const ErrNoReplicas = "NOREPLICAS Not enough good replicas to write."

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

// errSubcommandSyntax is the error for a subcommand with arguments that it does
// not take.
func errSubcommandSyntax(args [][]byte) string {
	return oneLine("ERR unknown subcommand or wrong number of arguments for '" + quote(args[1]) + "'. Try " + strings.ToUpper(string(cString(args[0]))) + " HELP.")
}

// errFormat makes an error of a format whose arguments come from the client.
func errFormat(format string, args ...[]byte) string {
	list := make([]any, len(args))
	for i, a := range args {
		list[i] = cString(a)
	}
	return oneLine(strings.TrimRight(fmt.Sprintf(format, list...), "\r\n"))
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
