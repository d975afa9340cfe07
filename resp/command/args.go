package command

import (
	"bytes"
	"math"
	"math/big"
	"strings"

	"github.com/replicatord/replicatord/crdt"
)

// Limits that commands check.
const (
	// Databases is how many databases there are.
	Databases = 16
	// MaxString is the greatest length of a string in bytes: Redis's default
	// proto-max-bulk-len.
	MaxString = 512 << 20
)

// is reports whether an argument is the option named by word, in upper case.
func is(arg []byte, word string) bool {
	// Lengths that are equal leave no room for letters beyond ASCII, which
	// EqualFold would fold too.
	arg = cString(arg)
	return len(arg) == len(word) && strings.EqualFold(string(arg), word)
}

// parseInt32 reads an integer that Redis keeps in a C int. The string is an
// error reply, "" for none.
func parseInt32(arg []byte) (int, string) {
	i, ok := crdt.ParseInt(arg)
	switch {
	case !ok:
		return 0, errNotInteger
	case i < math.MinInt32 || i > math.MaxInt32:
		return 0, errIntRange
	}
	return int(i), ""
}

// parseDB reads the number of a database. The string is an error reply, "" for
// none.
func parseDB(arg []byte) (uint8, string) {
	i, e := parseInt32(arg)
	switch {
	case e != "":
		return 0, e
	case i < 0 || i >= Databases:
		return 0, errDBRange
	}
	return uint8(i), ""
}

// float is what Redis reads as a long double: a decimal number, or an infinity.
type float struct {
	crdt.Number
	inf bool
}

// The range of a long double, and of the text Redis reads as one.
const (
	maxFloat       = "118973149535723176502" // the first digits of the greatest,
	maxFloatDigits = 4933                    // which has so many
	minFloatExp    = "4951"                  // of the least above 0, less its minus
	maxFloatText   = 5*1024 - 1              // bytes
)

// parseFloat reads what strtold does: decimal or hexadecimal, with an exponent,
// or an infinity; but no NaN and nothing out of a long double's range.
func parseFloat(arg []byte) (float, bool) {
	if len(arg) == 0 || len(arg) > maxFloatText {
		return float{}, false
	}
	if n, err := crdt.ParseNumber(arg); err == nil {
		return float{Number: n}, !tooLarge(n)
	}
	body := arg
	if c := arg[0]; c == '+' || c == '-' {
		body = arg[1:]
	}
	switch {
	case strings.EqualFold(string(body), "inf"), strings.EqualFold(string(body), "infinity"):
		return float{inf: true}, true
	case len(body) > 2 && body[0] == '0' && body[1]|0x20 == 'x':
		return parseHexFloat(arg)
	}
	return parseTinyFloat(arg)
}

// parseHexFloat reads a hexadecimal float, such as 0x1.8p3.
func parseHexFloat(arg []byte) (float, bool) {
	if bytes.IndexByte(arg, '_') >= 0 {
		return float{}, false // Go's own syntax
	}
	f, _, err := big.ParseFloat(string(arg), 0, 64, big.ToNearestEven)
	if err != nil || f.IsInf() || f.MantExp(nil) > 16384 {
		return float{}, false
	}
	if f.MantExp(nil) < -16384 {
		return float{}, f.Sign() == 0
	}
	// 100 digits say more than is ever printed.
	n, err := crdt.ParseNumber([]byte(f.Text('g', 100)))
	return float{Number: n}, err == nil
}

// parseTinyFloat reads decimals with an exponent beyond what a crdt.Number
// holds: 0 whatever its exponent, and what is so small that it prints as 0.
func parseTinyFloat(arg []byte) (float, bool) {
	i := bytes.LastIndexAny(arg, "eE")
	if i < 0 {
		return float{}, false
	}
	mantissa, err := crdt.ParseNumber(arg[:i])
	if err != nil || bytes.ContainsAny(arg[:i], "eE") {
		return float{}, false
	}
	digits := arg[i+1:]
	negative := false
	if len(digits) > 0 && (digits[0] == '-' || digits[0] == '+') {
		negative, digits = digits[0] == '-', digits[1:]
	}
	if len(digits) == 0 || len(bytes.Trim(digits, "0123456789")) > 0 {
		return float{}, false
	}
	if mantissa.IsZero() {
		return float{}, true
	}
	digits = bytes.TrimLeft(digits, "0")
	small := negative && len(digits) == len(minFloatExp) && string(digits) < minFloatExp
	return float{}, small
}

// tooLarge reports whether a number is beyond the range of a long double.
func tooLarge(n crdt.Number) bool {
	if _, ok := n.Int64(); ok {
		return false
	}
	digits := bytes.TrimPrefix(n.Append(nil), []byte{'-'})
	if i := bytes.IndexByte(digits, '.'); i >= 0 {
		digits = digits[:i]
	}
	return len(digits) > maxFloatDigits ||
		len(digits) == maxFloatDigits && string(digits[:len(maxFloat)]) > maxFloat
}

// lastExpiry is the latest time at which a key can expire; what is later, which
// leaves only one millisecond, becomes this.
const lastExpiry = crdt.Never - 1

// timeUnit says how an expiry is written.
type timeUnit struct {
	seconds  bool // else milliseconds
	absolute bool // since 1970, else from now on
}

// millis turns an expiry as SET and GETEX take it into Unix milliseconds. The
// string is an error reply, "" for none.
func (u timeUnit) millis(arg []byte, now int64, command string) (int64, string) {
	at, ok := crdt.ParseInt(arg)
	if !ok {
		return 0, errNotInteger
	}
	if at <= 0 || u.seconds && at > math.MaxInt64/1000 {
		return 0, errExpireTime(command)
	}
	if u.seconds {
		at *= 1000
	}
	if !u.absolute {
		if at > math.MaxInt64-now {
			return 0, errExpireTime(command)
		}
		at += now
	}
	return min(at, lastExpiry), ""
}

// parseTimeout reads a timeout in seconds, 0 for none, and returns the deadline
// in Unix milliseconds, 0 for none. The string is an error reply, "" for none.
func parseTimeout(arg []byte, now int64) (int64, string) {
	f, ok := parseFloat(arg)
	if !ok {
		return 0, errTimeout
	}
	ms := math.Ceil(f.Float64() * 1000)
	switch {
	case f.inf, ms >= 1<<63, ms < 0: // what overflows is negative in Redis
		return 0, errTimeoutNegative
	case ms == 0:
		return 0, ""
	case ms >= float64(math.MaxInt64-now):
		return math.MaxInt64, ""
	}
	return now + int64(ms), ""
}

// valueOptions are the options of SET and GETEX.
type valueOptions struct {
	nx, xx, get      bool
	keepTTL, persist bool
	expiry           []byte // as given, nil for none
	unit             timeUnit
}

var timeOptions = []struct {
	word string
	unit timeUnit
}{
	{"EX", timeUnit{seconds: true}},
	{"PX", timeUnit{}},
	{"EXAT", timeUnit{seconds: true, absolute: true}},
	{"PXAT", timeUnit{absolute: true}},
}

// parseValueOptions reads the options of SET, or those of GETEX. As with
// Redis, an option may be repeated, the last one counts, and only different
// ones exclude each other. It reports whether the syntax is right.
func parseValueOptions(args [][]byte, set bool) (valueOptions, bool) {
	var o valueOptions
	word := "" // of the expiry
next:
	for i := 0; i < len(args); i++ {
		a := args[i]
		for _, t := range timeOptions {
			if is(a, t.word) {
				if o.keepTTL || o.persist || word != "" && word != t.word || i+1 == len(args) {
					return o, false
				}
				i++
				word, o.expiry, o.unit = t.word, args[i], t.unit
				continue next
			}
		}
		switch {
		case set && is(a, "NX") && !o.xx:
			o.nx = true
		case set && is(a, "XX") && !o.nx:
			o.xx = true
		case set && is(a, "GET"):
			o.get = true
		case set && is(a, "KEEPTTL") && word == "":
			o.keepTTL = true
		case !set && is(a, "PERSIST") && word == "":
			o.persist = true
		default:
			return o, false
		}
	}
	return o, true
}

// expireOptions are the conditions of EXPIRE and its kin.
type expireOptions struct{ nx, xx, gt, lt bool }

// parseExpireOptions reads the conditions of EXPIRE. The string is an error
// reply, "" for none.
func parseExpireOptions(args [][]byte) (expireOptions, string) {
	var o expireOptions
	for _, a := range args {
		switch {
		case is(a, "NX"):
			o.nx = true
		case is(a, "XX"):
			o.xx = true
		case is(a, "GT"):
			o.gt = true
		case is(a, "LT"):
			o.lt = true
		default:
			return o, errExpireOption(a)
		}
	}
	switch {
	case o.nx && (o.xx || o.gt || o.lt):
		return o, errExpireNX
	case o.gt && o.lt:
		return o, errExpireGTLT
	}
	return o, ""
}

// allow reports whether an expiry may become at; now is 0 if there is none.
func (o expireOptions) allow(now, at int64) bool {
	switch {
	case o.nx && now != 0, o.xx && now == 0:
		return false
	case o.gt && (now == 0 || at <= now): // no expiry is later than any
		return false
	case o.lt && now != 0 && at >= now:
		return false
	}
	return true
}

// room is where copies of arguments are made for the keyspace to keep, many small
// ones in one piece of memory.
type room struct {
	piece []byte
	left  int // bytes to come, at most
}

// roomFor returns room for copies of some of the arguments.
func roomFor(args [][]byte) room {
	r := room{}
	for _, a := range args {
		r.left += len(a)
	}
	return r
}

func (r *room) keep(arg []byte) []byte {
	if r.piece == nil || cap(r.piece)-len(r.piece) < len(arg) {
		r.piece = make([]byte, 0, max(len(arg), min(r.left, 4<<10)))
	}
	r.left -= len(arg)
	from := len(r.piece)
	r.piece = append(r.piece, arg...)
	return r.piece[from:len(r.piece):len(r.piece)]
}
