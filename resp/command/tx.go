package command

import (
	"math/rand/v2"

	"github.com/replicatord/replicatord/crdt"
)

// Tx is the keyspace as a command finds it, with the effects of every command
// before it. Keys are of any database. Elements are addressed by the kind of
// their cells: a string is the element "" of crdt.KindString, hash fields are
// crdt.KindField, set members crdt.KindMember. Methods that take a kind see
// nothing in a key that is of another type.
//
// What is read must not be changed; what is written is kept, not copied. A
// command checks everything it can refuse before its first write: there is no
// undo.
type Tx interface {
	// Now is the time by which keys are expired, in Unix milliseconds. It does
	// not move while a command runs.
	Now() int64
	// Rand is the node's source of randomness.
	Rand() *rand.Rand
	// Tag is the tag of the writes to come. It tells the node's id.
	Tag() crdt.Tag

	// Type returns the visible type of a key, crdt.TypeNone if there is none.
	Type(k crdt.Key) crdt.Type
	// Elem returns the visible value of an element.
	Elem(k crdt.Key, kind crdt.Kind, elem string) ([]byte, bool)
	// Len returns the number of elements.
	Len(k crdt.Key, kind crdt.Kind) int
	// EachElem calls fn for each element, in byte order, until it returns
	// false. fn must not write to the key.
	EachElem(k crdt.Key, kind crdt.Kind, fn func(elem string, value []byte) bool)
	// EachElemFrom is EachElem from the first element that is not before from;
	// with back from the last that is not after it ("": from the very last),
	// towards the first.
	EachElemFrom(k crdt.Key, kind crdt.Kind, from string, back bool, fn func(elem string, value []byte) bool)
	// Expiry returns when a key expires in Unix milliseconds, 0 for never or
	// no key.
	Expiry(k crdt.Key) int64

	// FieldExpiry returns when a field of a hash expires in Unix milliseconds, 0 for
	// never or no field.
	FieldExpiry(k crdt.Key, field string) int64
	// EachFieldExpiry calls fn for each field of a hash that expires.
	EachFieldExpiry(k crdt.Key, fn func(field string, at int64))

	// SetElem sets an element; a key that is not there comes to be. A field of a
	// hash then expires no more.
	SetElem(k crdt.Key, kind crdt.Kind, elem string, value []byte)
	// SetString makes the key a string, whatever it was before.
	SetString(k crdt.Key, value []byte, keepTTL bool)
	// AddElem adds to the number in an element, 0 if it is not there, as a
	// counter: concurrent additions add up. The caller has checked that the
	// element holds a number and what the sum will be.
	AddElem(k crdt.Key, kind crdt.Kind, elem string, n crdt.Number)
	// PushItems adds items at an end of a list, which comes to be if it is not
	// there: one after the other, so that at the front the last comes first.
	// InsertItem puts one between two elements that follow each other, "" where
	// there is none. The errors, before any write, are for lists whose
	// positions are worn out.
	PushItems(k crdt.Key, front bool, values [][]byte) error
	InsertItem(k crdt.Key, before, after string, value []byte) error
	// RemoveElem removes an element and reports whether it was there; the last
	// one takes the key with it.
	RemoveElem(k crdt.Key, kind crdt.Kind, elem string) bool
	// RemoveElems removes all elements of a kind, in one delta, and reports how
	// many there were.
	RemoveElems(k crdt.Key, kind crdt.Kind) int
	// Remove removes a key and reports whether it was there.
	Remove(k crdt.Key) bool
	// SetExpiry sets when an existing key expires (Unix milliseconds, or
	// crdt.Never to make it lasting); a time not after Now removes the key.
	SetExpiry(k crdt.Key, at int64)
	// SetField is SetElem for a field of a hash; keepTTL leaves its expiry.
	SetField(k crdt.Key, field string, value []byte, keepTTL bool)
	// SetFieldExpiry sets when a field that is there expires (Unix milliseconds, or
	// crdt.Never to make it lasting); a time not after Now removes it.
	SetFieldExpiry(k crdt.Key, field string, at int64)
	// Flush removes every key of a database. FlushSome removes some, about most of those after from:
	// what it returned before, nil to begin. It returns nil when it has been everywhere, and FlushRest
	// removes what is there then: best no more than few keys.
	Flush(db uint8)
	FlushSome(db uint8, from []byte, most int) (next []byte)
	FlushRest(db uint8, few int)

	// View asks the local Redis, with all effects so far in place, and returns
	// its raw reply, as RESP2. For what needs an order or index that cells lack,
	// such as a random member; it costs a round trip, and after a write of the
	// same command, transaction or script some more. The error is one to hand
	// to the client: the view is not there.
	View(db uint8, args ...[]byte) ([]byte, error)
}
