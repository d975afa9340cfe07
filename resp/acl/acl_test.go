package acl

import (
	"strings"
	"testing"
)

func rules(t *testing.T, ops string) *Rules {
	t.Helper()
	u, _, err := NewUsers().Set("u", strings.Fields(ops))
	if err != nil {
		t.Fatal(err)
	}
	return u.Rules()
}

// Subscriptions survive a change of rules that takes no channel away.
func TestKeepsChannels(t *testing.T) {
	for _, c := range []struct {
		before, after string
		keeps         bool
	}{
		{"&a &b*", "&b* &a &c", true},
		{"&a &b*", "&a", false},
		{"&a &b*", "&a &b1", false},
		{"&a (&b)", "&b (&a)", true},
		{"allchannels", "&*", true},
		{"allchannels", "&a", false},
		{"&a", "allchannels", true},
		{"(&*)", "(&a)", false},
		{"", "", true},
	} {
		if got := rules(t, c.after).KeepsChannels(rules(t, c.before)); got != c.keeps {
			t.Errorf("%q after %q: %v", c.after, c.before, got)
		}
	}
	r := rules(t, "&a &b* (&c)")
	for channel, may := range map[string]bool{"a": true, "b": true, "bb": true, "c": true, "d": false, "": false} {
		if r.MaySubscribe([]byte(channel), false) != may {
			t.Errorf("channel %q: %v", channel, !may)
		}
	}
	for pattern, may := range map[string]bool{"a": true, "b*": true, "b": false, "*": false} {
		if r.MaySubscribe([]byte(pattern), true) != may {
			t.Errorf("pattern %q: %v", pattern, !may)
		}
	}
}

// Any text is taken or refused, and what is taken is described by a text that
// makes the same.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		"user a on nopass ~* &* +@all", "user a (+get ~x) (+set\n%R~y )", "user default off\n\n user b >p #00 ", "user a -@all +client|id +select|0 +debug|x",
		"user a %RW~ %W~b ()", "user a +@all -@string +get (allchannels)",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u := NewUsers()
		if _, err := u.Load(text, "f", ""); err != nil {
			return
		}
		first := u.Text()
		again := NewUsers()
		if _, err := again.Load(first, "f", ""); err != nil {
			t.Fatalf("%q from %q: %v", first, text, err)
		}
		if second := again.Text(); second != first {
			t.Fatalf("%q from %q: %q", first, text, second)
		}
	})
}
