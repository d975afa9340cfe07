package resp

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/replicatord/replicatord/resp/script"
)

// Sizes of a connection's read buffer. It begins at minBuffer and grows when
// reads fill it; an idle connection has none. A bulk of directBulk or more is read
// straight into memory of its own.
const (
	minBuffer  = 16 << 10
	maxBuffer  = 64 << 10
	directBulk = 32 << 10
	wakeBuffer = 64 // for the first bytes after that
	shrinkRuns = 64 // reads that could have done with minBuffer before it is used again
)

var (
	// errMore: the buffer holds no whole command; fill it.
	errMore = errors.New("incomplete command")
	// errQueryLimit: a command is larger than MaxQueryBuffer.
	errQueryLimit = errors.New("command larger than client-query-buffer-limit")
	// errMemory: all clients together hold MaxMemory.
	errMemory = errors.New("clients hold more than maxmemory-clients")
)

// protocolError is a violation of the protocol, which ends the connection.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// limits are what a reader allows; the session changes them between commands.
type limits struct {
	args    int   // arguments of a command
	bulk    int64 // bytes of an argument
	command int64 // bytes of a command
	unauth  bool  // the limits before AUTH hold
}

// reader cuts the bytes of a connection into commands. It never scans a byte
// twice because a command came in pieces, allocates for what has come, not
// for what a header announces, and copies each argument once, into memory
// that is the caller's. It refuses what Redis refuses, with its words, and
// like Redis does not look at the two bytes after an argument.
type reader struct {
	src    io.Reader
	lim    limits
	budget *budget

	buf      []byte
	pos, end int // buf[pos:end] has been read and not consumed
	small    int // reads in a row that minBuffer would have sufficed for

	// The command in progress. Its arguments so far are args, which own their
	// memory, then those in the buffer, which marks delimits, from pos.
	left  int // arguments still to come; 0: between commands
	bulk  int // length of the argument whose bytes come next, -1: its header comes next
	off   int // where in the buffer to go on, from pos
	marks []mark
	args  [][]byte
	big   []byte // the argument being read directly, nil if none
	bytes int64  // of all arguments whose headers have been seen

	room *arena // where small commands' arguments get their memory; nil: singly

	// Taken from budget: for big of this command, for commands taken since
	// release, and for the part of buf above maxBuffer.
	inBig, taken, inBuf int64
}

type mark struct{ from, to int }

func newReader(src io.Reader, lim limits, b *budget) *reader {
	return &reader{src: src, lim: lim, budget: b, buf: make([]byte, minBuffer), bulk: -1}
}

// next returns the next command in the buffer. The error is errMore, a
// protocolError, errQueryLimit or errMemory; all but the first are final.
func (r *reader) next() ([][]byte, error) {
	for {
		if r.left == 0 {
			if r.pos == r.end {
				return nil, errMore
			}
			if r.buf[r.pos] != '*' {
				args, err := r.inline()
				if err != nil || len(args) > 0 {
					return args, err
				}
				continue
			}
			line, size, err := r.line("too big mbulk count string")
			if err != nil {
				return nil, err
			}
			n, ok := parseInt(line[1:])
			switch {
			case !ok || n > int64(r.lim.args):
				return nil, protocolError("invalid multibulk length")
			case n > unauthMaxArgs && r.lim.unauth:
				return nil, protocolError("unauthenticated multibulk length")
			}
			r.pos += size
			if n <= 0 {
				continue
			}
			r.left = int(n)
		}
		if err := r.arguments(); err != nil {
			return nil, err
		}
		return r.take(), nil
	}
}

// arguments goes on with the arguments of the command in progress until all
// are there.
func (r *reader) arguments() error {
	for r.left > 0 {
		if r.big != nil {
			if err := r.direct(); err != nil {
				return err
			}
			continue
		}
		if r.bulk < 0 {
			if err := r.bulkHeader(); err != nil {
				return err
			}
			if r.bulk >= directBulk && r.end-r.pos-r.off < r.bulk+2 {
				r.own()
				r.big = make([]byte, 0, directBulk)
				continue
			}
		}
		from := r.off
		if r.end-r.pos < from+r.bulk+2 {
			return errMore
		}
		r.marks = append(r.marks, mark{from, from + r.bulk})
		r.off = from + r.bulk + 2
		r.bulk = -1
		r.left--
	}
	return nil
}

// bulkHeader reads the header of the next argument.
func (r *reader) bulkHeader() error {
	line, size, err := r.line("too big bulk count string")
	if err != nil {
		return err
	}
	if r.buf[r.pos+r.off] != '$' { // an empty line has its end there
		return protocolError("expected '$', got '" + oneLine(r.buf[r.pos+r.off:r.pos+r.off+1]) + "'")
	}
	n, ok := parseInt(line[1:])
	if !ok || n < 0 || n > r.lim.bulk {
		return protocolError("invalid bulk length")
	}
	if n > unauthMaxBulk && r.lim.unauth {
		return protocolError("unauthenticated bulk length")
	}
	if r.bytes += n; r.bytes > r.lim.command {
		return errQueryLimit
	}
	r.bulk = int(n)
	r.off += size
	return nil
}

// direct moves what is in the buffer of the argument being read directly.
func (r *reader) direct() error {
	have := min(r.end-r.pos, r.bulk-len(r.big))
	if have > 0 {
		if err := r.growBig(have); err != nil {
			return err
		}
		r.big = append(r.big, r.buf[r.pos:r.pos+have]...)
		r.pos += have
	}
	// The two bytes after it are consumed with it.
	if len(r.big) < r.bulk || r.end-r.pos < 2 {
		return errMore
	}
	r.pos += 2
	r.args = append(r.args, r.big)
	r.big, r.bulk = nil, -1
	r.left--
	return nil
}

// growBig makes room for n more bytes in big: doubled, so that copying stays
// in proportion, and never beyond what was announced.
func (r *reader) growBig(n int) error {
	if len(r.big)+n <= cap(r.big) {
		return nil
	}
	size := min(max(2*cap(r.big), len(r.big)+n), r.bulk)
	if !r.budget.take(int64(size - cap(r.big))) {
		return errMemory
	}
	r.inBig += int64(size - cap(r.big))
	grown := make([]byte, len(r.big), size)
	copy(grown, r.big)
	r.big = grown
	return nil
}

// own moves the arguments in the buffer to memory of their own.
func (r *reader) own() {
	if len(r.marks) > 0 {
		total := 0
		for _, m := range r.marks {
			total += m.to - m.from
		}
		if r.args == nil {
			r.args = r.room.list(len(r.marks) + min(r.left, 16))
		}
		block := r.room.block(total)
		for _, m := range r.marks {
			n := copy(block, r.buf[r.pos+m.from:r.pos+m.to])
			r.args = append(r.args, block[:n:n])
			block = block[n:]
		}
		if cap(r.marks) > 1024 {
			r.marks = nil
		}
		r.marks = r.marks[:0]
	}
	r.pos += r.off
	r.off = 0
}

// arena gives memory for small commands away, piece by piece: an allocation serves
// many of them. Each piece keeps its neighbours in memory, so these are few.
type arena struct {
	bytes []byte
	lists [][]byte
}

const (
	arenaBytes = 4 << 10
	arenaLists = 64
	arenaShare = 8 // what is more than this part of it gets memory of its own
)

func (a *arena) block(n int) []byte {
	if a == nil || n > arenaBytes/arenaShare {
		return make([]byte, n)
	}
	if n > len(a.bytes) {
		a.bytes = make([]byte, arenaBytes)
	}
	b := a.bytes[:n:n]
	a.bytes = a.bytes[n:]
	return b
}

// list returns an empty list with room for n arguments.
func (a *arena) list(n int) [][]byte {
	if a == nil || n > arenaLists/arenaShare {
		return make([][]byte, 0, n)
	}
	if n > len(a.lists) {
		a.lists = make([][]byte, arenaLists)
	}
	l := a.lists[:0:n]
	a.lists = a.lists[n:]
	return l
}

// take returns the command in progress, which is complete, and is then between
// commands.
func (r *reader) take() [][]byte {
	r.own()
	args := r.args
	r.args, r.bytes = nil, 0
	r.taken += r.inBig
	r.inBig = 0
	return args
}

// line returns the line at pos+off without its end, and its size with it. As in
// Redis a line ends at a carriage return and one more byte.
func (r *reader) line(tooLong protocolError) ([]byte, int, error) {
	b := r.buf[r.pos+r.off : r.end]
	i := bytes.IndexByte(b[:min(len(b), maxInline+1)], '\r')
	switch {
	case i < 0 && len(b) > maxInline:
		return nil, 0, tooLong
	case i < 0 || i+2 > len(b):
		return nil, 0, errMore
	}
	return b[:i], i + 2, nil
}

// inline reads a command written as a plain line. None of an empty one.
func (r *reader) inline() ([][]byte, error) {
	b := r.buf[r.pos:r.end]
	i := bytes.IndexByte(b[:min(len(b), maxInline+1)], '\n')
	if i < 0 {
		if len(b) > maxInline {
			return nil, protocolError("too big inline request")
		}
		return nil, errMore
	}
	line := b[:i]
	r.pos += i + 1
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	if bytes.IndexByte(line, 0) >= 0 { // Redis waits, and never answers
		return nil, protocolError("zero byte in inline request")
	}
	args, ok := script.SplitArgs(line)
	if !ok {
		return nil, protocolError("unbalanced quotes in request")
	}
	return args, nil
}

// fill reads once from the connection, making room first.
func (r *reader) fill() error {
	if r.buf == nil {
		first := make([]byte, wakeBuffer)
		n, err := r.src.Read(first)
		if n > 0 {
			r.buf = make([]byte, minBuffer)
			r.pos, r.end = 0, copy(r.buf, first[:n])
		}
		return readError(n, err)
	}
	if r.big != nil && r.pos == r.end {
		if want := r.bulk - len(r.big); want >= directBulk {
			if err := r.growBig(min(want, maxBuffer)); err != nil {
				return err
			}
			n, err := r.src.Read(r.big[len(r.big):cap(r.big)])
			r.big = r.big[:len(r.big)+n]
			return readError(n, err)
		}
	}
	if r.pos == r.end {
		r.pos, r.end = 0, 0
		if len(r.buf) > maxBuffer || r.small >= shrinkRuns && len(r.buf) > minBuffer {
			r.shrink()
		}
	} else if r.end == len(r.buf) && r.pos > 0 {
		r.end = copy(r.buf, r.buf[r.pos:r.end])
		r.pos = 0
	}
	if r.end == len(r.buf) {
		if err := r.grow(); err != nil {
			return err
		}
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	switch {
	case r.end == len(r.buf) && len(r.buf) < maxBuffer:
		r.small = 0
		if err := r.grow(); err != nil {
			return err
		}
	case n < minBuffer:
		r.small++
	default:
		r.small = 0
	}
	return readError(n, err)
}

// rest gives the buffer up, if it is empty and no command is in progress.
func (r *reader) rest() {
	if r.pos == r.end && r.left == 0 && r.big == nil {
		r.budget.give(r.inBuf)
		r.inBuf, r.buf, r.pos, r.end, r.small = 0, nil, 0, 0, 0
	}
}

func readError(n int, err error) error {
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// grow doubles the buffer; beyond maxBuffer it holds a command of many small
// arguments, and counts.
func (r *reader) grow() error {
	size := 2 * len(r.buf)
	if size > maxBuffer {
		if int64(r.end-r.pos) > r.lim.command {
			return errQueryLimit
		}
		if !r.budget.take(int64(size) - maxBuffer - r.inBuf) {
			return errMemory
		}
		r.inBuf = int64(size) - maxBuffer
	}
	buf := make([]byte, size)
	r.end = copy(buf, r.buf[r.pos:r.end])
	r.pos = 0
	r.buf = buf
	return nil
}

// shrink goes back to a small buffer; nothing must be in it.
func (r *reader) shrink() {
	size := minBuffer
	if len(r.buf) > maxBuffer {
		size = maxBuffer
	}
	r.buf = make([]byte, size)
	r.small = 0
	r.budget.give(r.inBuf)
	r.inBuf = 0
}

// release gives back what was reserved for commands that have been carried
// out.
func (r *reader) release() {
	if r.taken > 0 {
		r.budget.give(r.taken)
		r.taken = 0
	}
}

// close gives everything back; the reader is done with.
func (r *reader) close() {
	r.budget.give(r.inBig + r.taken + r.inBuf)
	r.inBig, r.taken, r.inBuf = 0, 0, 0
	r.buf, r.big, r.args, r.marks = nil, nil, nil, nil
	r.pos, r.end = 0, 0
}

// parseInt parses a decimal as strictly as Redis's string2ll: no plus, no
// leading zeros, no blanks.
func parseInt(b []byte) (int64, bool) {
	if len(b) == 1 && b[0] == '0' {
		return 0, true
	}
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 || b[0] < '1' || b[0] > '9' {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	switch {
	case neg && n <= 1<<63:
		return -int64(n), true // -(1<<63) is itself
	case !neg && n < 1<<63:
		return int64(n), true
	}
	return 0, false
}

// oneLine makes bytes fit for an error reply, which a line end would cut.
func oneLine(b []byte) string { return lineEnds.Replace(string(b)) }

var lineEnds = strings.NewReplacer("\r", " ", "\n", " ")
