package acl

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/replicatord/replicatord/resp/command"
)

// What can be wrong with an operation, in Redis's words.
//
//nolint:staticcheck // Redis's own texts
var (
	errWrong       = errors.New("Syntax error")
	errUnknown     = errors.New("Unknown command or category name in ACL")
	errAllKeys     = errors.New("Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns")
	errAllChannels = errors.New("Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels")
	errNoPassword  = errors.New("The password you are trying to remove from the user does not exist")
	errHash        = errors.New("The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters")
	errFirstArg    = errors.New("Allowing first-arg of a subcommand is not supported")
)

// Denied says why a request is refused; Allowed that it is not. Of several
// selectors the greatest reason counts.
type Denied int

// Reasons.
const (
	Allowed Denied = iota
	DeniedCommand
	DeniedKey
	DeniedAuth // a wrong password; Check does not return it
	DeniedChannel
)

func (d Denied) String() string {
	return [...]string{"", "command", "key", "auth", "channel"}[d]
}

// Rules are what one user may do. They are not changed once they are a user's.
type Rules struct {
	enabled, noPass bool
	sanitize        string   // "sanitize-payload" or its opposite, which change nothing; "" if never said
	passwords       []string // SHA-256, in hexadecimal
	selectors       []*selector
}

// newRules returns the rules of a new user: nothing.
func newRules(allChannels bool) *Rules {
	return &Rules{selectors: []*selector{newSelector(allChannels)}}
}

func (r *Rules) clone() *Rules {
	c := *r
	c.passwords = slices.Clone(r.passwords)
	c.selectors = nil
	for _, s := range r.selectors {
		c.selectors = append(c.selectors, s.clone())
	}
	return &c
}

// Enabled reports whether the user may log in.
func (r *Rules) Enabled() bool { return r.enabled }

// NoPass reports whether any password is right.
func (r *Rules) NoPass() bool { return r.noPass }

// Authenticates reports whether the user may log in with a password. It takes
// as long for a wrong one as for a right one.
func (r *Rules) Authenticates(password []byte) bool {
	sum := []byte(hash(string(password)))
	right := 0
	for _, p := range r.passwords {
		right |= subtle.ConstantTimeCompare(sum, []byte(p))
	}
	return r.enabled && (r.noPass || right == 1)
}

func hash(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}

// Check decides about a request, which has the right number of arguments. arg
// is the argument that was denied: the key, the channel or, of a command, 0.
func (r *Rules) Check(cmd *command.Command, args [][]byte) (d Denied, arg int) {
	if s := r.selectors[0]; s.allCommands && s.allKeys && s.allChannels {
		return Allowed, 0 // as most users may, and without looking at the request
	}
	keys := findKeys(cmd, args)
	d = DeniedCommand
	for _, s := range r.selectors {
		why, at := s.check(cmd, args, keys)
		switch {
		case why == Allowed:
			return Allowed, 0
		case why > d:
			d, arg = why, at
		case why == d:
			arg = max(arg, at)
		}
	}
	return d, arg
}

// CheckAll is Check for a command that reads keys which its arguments do not
// name: the selector that allows it must allow all keys to be read.
func (r *Rules) CheckAll(cmd *command.Command, args [][]byte) bool {
	keys := findKeys(cmd, args)
	return slices.ContainsFunc(r.selectors, func(s *selector) bool {
		why, _ := s.check(cmd, args, keys)
		return why == Allowed && s.mayReadAll()
	})
}

// findKeys finds a request's keys once, when they are first asked for.
func findKeys(cmd *command.Command, args [][]byte) func() []command.KeyRef {
	var refs []command.KeyRef
	found := false
	return func() []command.KeyRef {
		if !found && cmd.HasKeys() && cmd.Flags&command.PubSub == 0 { // channels are no keys
			refs = cmd.FindKeys(args)
		}
		found = true
		return refs
	}
}

// KeepsChannels reports whether whoever had subscribed under the older rules
// may stay, whatever to.
func (r *Rules) KeepsChannels(older *Rules) bool {
	for _, s := range r.selectors {
		if s.allChannels {
			return true
		}
	}
	now := r.channels()
	for _, s := range older.selectors {
		if s.allChannels || slices.ContainsFunc(s.channels, func(p string) bool { return !slices.Contains(now, p) }) {
			return false
		}
	}
	return true
}

// MaySubscribe reports whether a subscription to a channel, or to a pattern of
// channels, is allowed by any selector.
func (r *Rules) MaySubscribe(channel []byte, pattern bool) bool {
	return slices.ContainsFunc(r.selectors, func(s *selector) bool { return s.allChannels }) ||
		allowsChannel(r.channels(), channel, pattern)
}

func (r *Rules) channels() []string {
	var all []string
	for _, s := range r.selectors {
		all = append(all, s.channels...)
	}
	return all
}

// apply changes the rules by one operation; channels is the default for
// channels (acl-pubsub-default).
func (r *Rules) apply(op string, allChannels bool) error {
	if op == "" {
		return nil
	}
	switch name := strings.ToLower(op); {
	case name == "on", name == "off":
		r.enabled = name == "on"
	case name == "skip-sanitize-payload", name == "sanitize-payload":
		r.sanitize = name
	case name == "nopass":
		r.noPass, r.passwords = true, nil
	case name == "resetpass":
		r.noPass, r.passwords = false, nil
	case op[0] == '>', op[0] == '#':
		sum, err := passwordHash(op)
		if err != nil {
			return err
		}
		if !slices.Contains(r.passwords, sum) {
			r.passwords = append(r.passwords, sum)
		}
		r.noPass = false
	case op[0] == '<', op[0] == '!':
		sum, err := passwordHash(op)
		if err != nil {
			return err
		}
		i := slices.Index(r.passwords, sum)
		if i < 0 {
			return errNoPassword
		}
		r.passwords = slices.Delete(r.passwords, i, i+1)
	case op[0] == '(' && op[len(op)-1] == ')':
		s := newSelector(allChannels)
		for _, word := range strings.Fields(op[1 : len(op)-1]) {
			// It would end the selector where its text is read again.
			if strings.HasSuffix(word, ")") {
				return errWrong
			}
			if err := s.apply(word); err != nil {
				return err
			}
		}
		r.selectors = append(r.selectors, s)
	case name == "clearselectors":
		r.selectors = r.selectors[:1]
	case name == "reset":
		*r = *newRules(allChannels)
		r.sanitize = "sanitize-payload"
	default:
		return r.selectors[0].apply(op)
	}
	return nil
}

// passwordHash returns the hash of a password (> and <), or the hash given (#
// and !).
func passwordHash(op string) (string, error) {
	if op[0] == '>' || op[0] == '<' {
		return hash(op[1:]), nil
	}
	sum := op[1:]
	if len(sum) != 2*sha256.Size || strings.Trim(sum, "0123456789abcdef") != "" {
		return "", errHash
	}
	return sum, nil
}

// merge puts selectors that were split at their spaces together again.
func merge(ops []string) ([]string, error) {
	var out, open []string
	for _, op := range ops {
		switch closed := strings.HasSuffix(op, ")"); {
		case strings.HasPrefix(op, "(") && !closed:
			open = []string{op}
		case open == nil:
			out = append(out, op)
		default:
			if open = append(open, op); closed {
				out = append(out, strings.Join(open, " "))
				open = nil
			}
		}
	}
	if open != nil {
		return nil, fmt.Errorf("Unmatched parenthesis in acl selector starting at '%s'.", open[0]) //nolint:staticcheck // Redis's own text
	}
	return out, nil
}
