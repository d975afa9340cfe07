package wan

import (
	"errors"
	"fmt"
)

// Code says why a session ended. The numbers are part of the protocol.
type Code uint32

// Codes.
const (
	CodeProtocol   Code = 1  // bytes or messages that the protocol does not allow
	CodeVersion    Code = 2  // no protocol version in common
	CodeCluster    Code = 3  // another cluster
	CodeSecret     Code = 4  // the proof of the secret is missing or wrong
	CodeSameID     Code = 5  // another node has this id
	CodeSelf       Code = 6  // the connection leads back to its own node
	CodeForgotten  Code = 7  // the peer was removed with FORGET
	CodeRolledBack Code = 8  // one side knows more of the other than itself
	CodeSuperseded Code = 9  // there is a better session to the same node
	CodeGap        Code = 10 // a range does not join what came before
	CodeRefused    Code = 11 // a range could not be applied
	CodeClosing    Code = 12 // the node is stopping
	CodeTimeout    Code = 13 // nothing was heard for too long
	CodeInternal   Code = 14 // the log or a snapshot could not be read
)

// String names the code as log lines and REPLICAS show it.
func (c Code) String() string {
	switch c {
	case CodeProtocol:
		return "protocol"
	case CodeVersion:
		return "version"
	case CodeCluster:
		return "cluster"
	case CodeSecret:
		return "secret"
	case CodeSameID:
		return "same-id"
	case CodeSelf:
		return "self"
	case CodeForgotten:
		return "forgotten"
	case CodeRolledBack:
		return "rolled-back"
	case CodeSuperseded:
		return "superseded"
	case CodeGap:
		return "gap"
	case CodeRefused:
		return "refused"
	case CodeClosing:
		return "closing"
	case CodeTimeout:
		return "timeout"
	case CodeInternal:
		return "internal"
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// Error is why a session ended, in words that say what to do.
type Error struct {
	Code   Code
	Text   string
	Remote bool  // the peer said so
	Err    error // what it wraps, if anything
}

// Error says which side complains, and of what.
func (e *Error) Error() string {
	if e.Remote {
		return fmt.Sprintf("peer says (%v): %s", e.Code, e.Text)
	}
	return fmt.Sprintf("%s (%v)", e.Text, e.Code)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of a session's error, 0 if it is of another kind
// (a cut connection).
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return 0
}

// ErrTrimmed is what Log.Read returns, wrapped or not, when the log no longer
// has the entry that follows the one asked for.
var ErrTrimmed = errors.New("trimmed from the log")

// ErrDisconnected is the end of a session whose connection was cut.
var ErrDisconnected = errors.New("connection lost")

// ErrNoSession is returned by operations on a peer there is no session with.
var ErrNoSession = errors.New("no session with this node")

func fail(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Text: err.Error(), Err: errors.Unwrap(err)}
}
