package gossip

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

func FuzzCard(f *testing.F) {
	full := card{Facts: Facts{
		ID: MaxID, Alias: "east-1", Region: "eu-central", Cluster: "prod", Incarnation: 3, Dir: 1<<64 - 1,
		RESP: "10.0.0.1:9001", Gossip: "10.0.0.1:10001", WAN: "10.0.0.1:11001", Version: 1,
	}, session: 77}
	for _, c := range []card{full, {Facts: Facts{ID: 1}}} {
		b, err := c.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, "from a later version"...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCard(b)
		if err != nil {
			return
		}
		e, err := c.encode()
		if err != nil {
			t.Fatalf("read but cannot be written: %v", err)
		}
		if len(e) > memberlist.MetaMaxSize {
			t.Fatalf("%d bytes", len(e))
		}
		again, err := decodeCard(e)
		if err != nil || again != c {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	c := card{Facts: Facts{ID: 1, Alias: "a"}, session: 1}
	for _, a := range []answer{{code: codeOK, card: c}, {code: codeSameID, card: c, holder: c}} {
		b, err := a.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAnswer(b)
		if err != nil {
			return
		}
		e, err := a.encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeAnswer(e); err != nil || again != a {
			t.Fatalf("%+v became %+v, %v", a, again, err)
		}
	})
}

func FuzzKnock(f *testing.F) {
	var b bytes.Buffer
	writeKnock(&b, modeSealed, []byte("payload"))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		_, payload, err := readKnock(bytes.NewReader(b))
		if err == nil && len(payload) > maxKnock {
			t.Fatalf("%d bytes", len(payload))
		}
	})
}

func TestFactsThatCannotBeTold(t *testing.T) {
	long := strings.Repeat("x", maxName+1)
	for name, change := range map[string]func(*Options){
		"alias":   func(o *Options) { o.Alias = long },
		"region":  func(o *Options) { o.Region = long },
		"cluster": func(o *Options) { o.Cluster = long },
		"id":      func(o *Options) { o.ID = 0 },
		"printed": func(o *Options) { o.Alias = "a\nb" },
		"UTF-8":   func(o *Options) { o.Alias = "\xff" },
		"Dir":     func(o *Options) { o.Dir = 0 },
		"RESP":    func(o *Options) { o.RESP = "no port" },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(1)
			change(&o)
			g, err := Start(o)
			if err == nil {
				g.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), name) {
				t.Fatalf("error does not say %q: %v", name, err)
			}
		})
	}
}

func TestFactsTooLongTogether(t *testing.T) {
	name, addr := strings.Repeat("x", maxName), strings.Repeat("h", maxAddr-6)+":12345"
	c := card{Facts: Facts{ID: 1, Alias: name, Region: name, Cluster: name, RESP: addr, Gossip: addr, WAN: addr}}
	if _, err := c.encode(); err == nil || !strings.Contains(err.Error(), "shorten") {
		t.Fatalf("got %v", err)
	}
}

func TestUnspecifiedHostIsNeverTold(t *testing.T) {
	for in, want := range map[string]string{
		"":               "",
		":9001":          "10.1.2.3:9001",
		"0.0.0.0:9001":   "10.1.2.3:9001",
		"[::]:9001":      "10.1.2.3:9001",
		"10.9.9.9:9001":  "10.9.9.9:9001",
		"example.org:91": "example.org:91",
	} {
		if got, err := withHost(in, "10.1.2.3"); err != nil || got != want {
			t.Errorf("%q became %q, %v; want %q", in, got, err, want)
		}
	}
}
