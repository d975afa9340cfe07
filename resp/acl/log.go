package acl

import (
	"sync"
	"time"
)

// Where a command was denied.
type Where string

// Places.
const (
	TopLevel Where = "toplevel"
	InMulti  Where = "multi"
	InScript Where = "lua"
)

// Denials of one kind within groupTime are one entry, if it is among the
// latest groupWithin.
const (
	groupTime   = time.Minute
	groupWithin = 10
)

// Entry is an entry of the log.
type Entry struct {
	Count  int
	Reason Denied
	Where  Where
	Object string // the command, key or channel
	User   string
	At     time.Time // the last time
	Client string    // the last client's line of CLIENT LIST
}

// Log keeps the latest denials.
type Log struct {
	mu      sync.Mutex
	entries []*Entry // latest first
}

// Add notes a denial, and keeps at most limit entries.
func (l *Log) Add(e Entry, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Count = 1
	at := -1
	for i, old := range l.entries[:min(len(l.entries), groupWithin)] {
		if old.Reason == e.Reason && old.Where == e.Where && old.Object == e.Object && old.User == e.User &&
			e.At.Sub(old.At).Abs() <= groupTime {
			at = i
			break
		}
	}
	if at >= 0 {
		e.Count = l.entries[at].Count + 1
		copy(l.entries[1:at+1], l.entries[:at])
		l.entries[0] = &e
		return
	}
	l.entries = append([]*Entry{&e}, l.entries...)
	l.entries = l.entries[:min(len(l.entries), max(limit, 0))]
}

// Latest returns up to n entries, latest first.
func (l *Log) Latest(n int) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Entry
	for _, e := range l.entries[:max(min(n, len(l.entries)), 0)] {
		out = append(out, *e)
	}
	return out
}

// Reset forgets all entries.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = nil
}
