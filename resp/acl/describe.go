package acl

import (
	"slices"
	"strings"

	"github.com/replicatord/replicatord/resp/command"
)

// Selector is a selector in words, as ACL GETUSER has it.
type Selector struct{ Commands, Keys, Channels string }

// Flags returns the user's flags by name.
func (r *Rules) Flags() []string {
	flags := []string{"off"}
	if r.enabled {
		flags[0] = "on"
	}
	if r.noPass {
		flags = append(flags, "nopass")
	}
	if r.sanitize != "" {
		flags = append(flags, r.sanitize)
	}
	return flags
}

// Passwords returns the hashes of the passwords.
func (r *Rules) Passwords() []string { return r.passwords }

// Selectors returns the selectors in words, the root first.
func (r *Rules) Selectors() []Selector {
	var out []Selector
	for _, s := range r.selectors {
		d := Selector{Commands: s.rules(), Keys: strings.Join(s.keyWords(), " "), Channels: strings.Join(s.channelWords(), " ")}
		out = append(out, d)
	}
	return out
}

// Describe returns the rules as operations that make them anew.
func (r *Rules) Describe() string {
	list := r.Flags()
	for _, p := range r.passwords {
		list = append(list, "#"+p)
	}
	for i, s := range r.selectors {
		d := s.describe()
		if i > 0 {
			d = "(" + d + ")"
		}
		list = append(list, d)
	}
	return strings.Join(list, " ")
}

func (s *selector) describe() string {
	list := s.keyWords()
	if !s.allChannels {
		list = append(list, "resetchannels")
	}
	list = append(list, s.channelWords()...)
	return strings.Join(append(list, s.rules()), " ")
}

func (s *selector) keyWords() []string {
	if s.allKeys {
		return []string{"~*"}
	}
	var out []string
	for _, p := range s.keys {
		out = append(out, p.String())
	}
	return out
}

func (s *selector) channelWords() []string {
	if s.allChannels {
		return []string{"&*"}
	}
	var out []string
	for _, p := range s.channels {
		out = append(out, "&"+p)
	}
	return out
}

// rules describes which commands are allowed: +@all or -@all, then the
// categories that fit, those first that leave the fewest exceptions, then the
// exceptions.
func (s *selector) rules() string {
	made := newSelector(false) // what the text so far makes
	out := []string{"-@all"}
	sign, back := "+@", "-@"
	if s.future {
		out[0], sign, back = "+@all", "-@", "+@"
	}
	_ = made.apply(out[0])
	left := s.clone() // what it has not told yet
	applied := map[string]bool{}
	for {
		best, least, most := "", len(rows)+1, 0
		for _, name := range command.Categories {
			if applied[name] {
				continue
			}
			same, diff := 0, 0
			for _, id := range members[name] {
				if left.commands.has(id) == s.future {
					diff++
				} else {
					same++
				}
			}
			if same > diff && (diff < least || diff == least && same > most) {
				best, least, most = name, diff, same
			}
		}
		if best == "" {
			break
		}
		applied[best] = true
		out = append(out, sign+best)
		_ = made.apply(sign + best)
		_ = left.apply(back + best)
	}
	for id, c := range rows {
		on := s.commands.has(id)
		name := strings.ToLower(c.Name)
		if on != made.commands.has(id) {
			out = append(out, map[bool]string{true: "+", false: "-"}[on]+name)
			made.setCommand(id, on)
		}
		if !on {
			for _, a := range s.firstArgs[id] {
				out = append(out, "+"+name+"|"+a)
			}
		}
	}
	return strings.Join(out, " ")
}

// InCategory returns the names of the commands of a category, and whether there
// is such a category.
func InCategory(name string) ([]string, bool) {
	name = strings.ToLower(name)
	if !slices.Contains(command.Categories, name) {
		return nil, false
	}
	var out []string
	for _, id := range members[name] {
		out = append(out, strings.ToLower(rows[id].Name))
	}
	return out, true
}
