package resp

import (
	"errors"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/resp/command"
)

// eventLetters are the letters of notify-keyspace-events in the order in which
// CONFIG GET shows them. Each is a bit, by its place here. A stands for the
// first ten.
const (
	eventLetters = "g$lshzxetdnKEm"
	allEvents    = 1<<10 - 1
	newEvents    = 1 << 10
	byKeyspace   = 1 << 11
	byKeyevent   = 1 << 12
)

func eventBit(letter byte) uint32 {
	if i := strings.IndexByte(eventLetters, letter); i >= 0 {
		return 1 << i
	}
	return 0
}

func notifyEvents(s *Server) string {
	flags := s.settings.notify.Load()
	var b strings.Builder
	if flags&allEvents == allEvents {
		b.WriteByte('A')
		flags &^= allEvents | newEvents // Redis does not show n beside A
	}
	for i := range len(eventLetters) {
		if flags&(1<<i) != 0 {
			b.WriteByte(eventLetters[i])
		}
	}
	return b.String()
}

func setNotifyEvents(s *Server, v string) (func(), error) {
	var flags uint32
	for i := range len(v) {
		bit := eventBit(v[i])
		if v[i] == 'A' {
			bit = allEvents
		}
		if bit == 0 {
			return nil, errors.New("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.") //nolint:staticcheck // Redis's own text
		}
		flags |= bit
	}
	return func() { s.settings.notify.Store(flags) }, nil
}

// Notifies reports whether events of keys may have a receiver, and whether
// those of reads that find no key are among them.
func (s *Server) Notifies() (some, misses bool) {
	flags := s.settings.notify.Load()
	some = flags&(byKeyspace|byKeyevent) != 0 && s.hub.listened()
	return some, some && flags&eventBit(command.ClassMiss) != 0
}

// Notify publishes events of keys, in their order, to the clients of this
// server that asked for them, as far as notify-keyspace-events has them.
func (s *Server) Notify(events []command.Event) {
	flags := s.settings.notify.Load()
	for _, e := range events {
		if flags&eventBit(e.Class) == 0 {
			continue
		}
		db := "@" + strconv.Itoa(int(e.Key.DB)) + "__:"
		if flags&byKeyspace != 0 {
			s.hub.publish([]byte("__keyspace"+db+e.Key.Name), []byte(e.Name), false)
		}
		if flags&byKeyevent != 0 {
			s.hub.publish([]byte("__keyevent"+db+e.Name), []byte(e.Key.Name), false)
		}
	}
}
