package acl

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Default is the name of the user that connections begin with.
const Default = "default"

// User is a user of a Users. Its rules may be replaced at any time.
type User struct {
	name  string
	rules atomic.Pointer[Rules]
}

// Name returns the user's name.
func (u *User) Name() string { return u.name }

// Rules returns what the user may do now.
func (u *User) Rules() *Rules { return u.rules.Load() }

// Users are the users of a node. The default user is always there, and is
// always the same User.
type Users struct {
	allChannels atomic.Bool
	def         *User

	mu     sync.Mutex
	byName map[string]*User
}

// NewUsers returns the default user, who may do everything without a password.
func NewUsers() *Users {
	u := &Users{def: &User{name: Default}, byName: map[string]*User{}}
	u.def.rules.Store(defaultRules(""))
	u.byName[Default] = u.def
	return u
}

// defaultRules are those of a default user nobody has said anything about,
// but for the password; "": none is asked for.
func defaultRules(password string) *Rules {
	r := newRules(true)
	for _, op := range []string{"+@all", "~*", "&*", "on"} {
		_ = r.apply(op, true)
	}
	r.setPassword(password)
	return r
}

func (r *Rules) setPassword(password string) {
	_ = r.apply("nopass", true)
	if password != "" {
		_ = r.apply(">"+password, true)
	}
}

// AllChannels says whether new users and selectors may use all channels
// (acl-pubsub-default).
func (u *Users) AllChannels(on bool) { u.allChannels.Store(on) }

// DefaultsToAllChannels reports what AllChannels was told last.
func (u *Users) DefaultsToAllChannels() bool { return u.allChannels.Load() }

// Default returns the default user.
func (u *Users) Default() *User { return u.def }

// SetPassword gives the default user one password, or with "" makes it need
// none (requirepass).
func (u *Users) SetPassword(password string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.def.Rules().clone()
	r.setPassword(password)
	u.def.rules.Store(r)
}

// Get returns a user, nil if there is none of that name.
func (u *Users) Get(name string) *User {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.byName[name]
}

// All returns the users by name.
func (u *Users) All() []*User {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []*User
	for _, name := range slices.Sorted(maps.Keys(u.byName)) {
		out = append(out, u.byName[name])
	}
	return out
}

// Set changes a user by all the operations, or by none, and makes it first if
// need be. It returns the user and the rules it had, nil if it is new.
func (u *Users) Set(name string, ops []string) (user *User, before *Rules, err error) {
	if hasSpace(name) {
		return nil, nil, errors.New("Usernames can't contain spaces or null characters") //nolint:staticcheck // Redis's own text
	}
	if ops, err = merge(ops); err != nil {
		return nil, nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	user = u.byName[name]
	r := newRules(u.allChannels.Load())
	if user != nil {
		before = user.Rules()
		r = before.clone()
	}
	for _, op := range ops {
		if err := r.apply(op, u.allChannels.Load()); err != nil {
			return nil, nil, fmt.Errorf("Error in ACL SETUSER modifier '%s': %w", op, err) //nolint:staticcheck // Redis's own text
		}
	}
	if user == nil {
		user = &User{name: name}
		u.byName[name] = user
	}
	user.rules.Store(r)
	return user, before, nil
}

// Delete removes users, and returns those that there were. The default user
// stays.
func (u *Users) Delete(names []string) []*User {
	u.mu.Lock()
	defer u.mu.Unlock()
	var gone []*User
	for _, name := range names {
		if x := u.byName[name]; x != nil && x != u.def {
			delete(u.byName, name)
			gone = append(gone, x)
		}
	}
	return gone
}

// Text returns the users as the lines of an ACL file.
func (u *Users) Text() string {
	var b strings.Builder
	for _, x := range u.All() {
		b.WriteString(x.Line())
		b.WriteByte('\n')
	}
	return b.String()
}

// Line returns the user as a line of an ACL file, without its end.
func (u *User) Line() string { return "user " + u.name + " " + u.Rules().Describe() }

// Load replaces all users by those of an ACL file, and returns the users that
// were there, but for the default one. If anything is wrong with the text,
// nothing changes, and the error tells all of it; file is its name there. A
// default user the file does not speak of may do everything with the password.
func (u *Users) Load(text, file, password string) (gone []*User, err error) {
	var faults strings.Builder
	all := map[string]*Rules{}
	for i, line := range strings.Split(text, "\n") {
		if line = strings.Trim(line, " \t\r\n"); line == "" {
			continue
		}
		name, r, fault := u.parseLine(line, fmt.Sprintf("%s:%d", file, i+1))
		switch {
		case fault != "":
			faults.WriteString(fault)
		case all[name] != nil:
			fmt.Fprintf(&faults, "WARNING: Duplicate user '%s' found on line %d. ", name, i+1)
		default:
			all[name] = r
		}
	}
	if faults.Len() > 0 {
		return nil, errors.New(faults.String() + "WARNING: ACL errors detected, no change to the previously active ACL rules was performed")
	}
	if all[Default] == nil {
		all[Default] = defaultRules(password)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, x := range u.byName {
		if x != u.def {
			gone = append(gone, x)
		}
	}
	clear(u.byName)
	for name, r := range all {
		x := u.def
		if name != Default {
			x = &User{name: name}
		}
		x.rules.Store(r)
		u.byName[name] = x
	}
	return gone, nil
}

// parseLine parses a line of an ACL file. at names it in what is wrong with it.
func (u *Users) parseLine(line, at string) (name string, r *Rules, fault string) {
	words := strings.Split(line, " ")
	if words[0] != "user" || len(words) < 2 {
		return "", nil, at + " should start with user keyword followed by the username. "
	}
	name = words[1]
	if hasSpace(name) {
		return "", nil, fmt.Sprintf("'%s: username '%s' contains invalid characters. ", at, name)
	}
	ops, err := merge(words[2:])
	if err != nil {
		return "", nil, at + ": Unmatched parenthesis in selector definition."
	}
	r = newRules(u.allChannels.Load())
	told := false
	for _, op := range ops {
		op = strings.Trim(op, "\t\r\n")
		switch err := r.apply(op, u.allChannels.Load()); {
		case errors.Is(err, errUnknown):
			// Names are no secrets; other operations may be.
			fault += fmt.Sprintf("%s: Error in applying operation '%s': %v. ", at, op, err)
		case err != nil && !told:
			told = true
			fault += fmt.Sprintf("%s: %v. ", at, err)
		}
	}
	return name, r, fault
}
