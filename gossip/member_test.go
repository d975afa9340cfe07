package gossip

import (
	"errors"
	"testing"
	"time"
)

func testCard(id uint16, dir, session uint64, addr string) card {
	return card{Facts: Facts{ID: id, Dir: dir, Gossip: addr, Cluster: "c"}, session: session}
}

func TestRoster(t *testing.T) {
	now := time.Now()
	self := testCard(1, 11, 100, "a:1")
	only := func(t *testing.T, r *roster, c card, state State) {
		t.Helper()
		m := r.members()
		if len(m) != 1 || m[0].Facts != c.Facts || m[0].State != state {
			t.Fatalf("members are %+v, want %+v %s", m, c.Facts, state)
		}
	}

	t.Run("a restart at another address replaces, in any order", func(t *testing.T) {
		old, young := testCard(2, 22, 1, "b:1"), testCard(2, 22, 2, "b:2")
		for _, order := range [][]card{{old, young}, {young, old}} {
			r := newRoster(self)
			for _, c := range order {
				r.alive(c, nil, 0, now)
			}
			only(t, r, young, Alive)
			r.gone(old.name(), Failed, now)
			only(t, r, young, Alive)
			r.gone(young.name(), Failed, now)
			only(t, r, young, Failed)
			if len(r.sessions) != 1 {
				t.Fatalf("%d processes remembered", len(r.sessions))
			}
		}
	})

	t.Run("a clock set back is right once the old process is found dead", func(t *testing.T) {
		old, young := testCard(2, 22, 5, "b:1"), testCard(2, 22, 4, "b:2")
		r := newRoster(self)
		r.alive(old, nil, 0, now)
		r.alive(young, nil, 0, now)
		r.gone(old.name(), Failed, now)
		only(t, r, young, Alive)
	})

	t.Run("left is final for a process", func(t *testing.T) {
		c := testCard(2, 22, 1, "b:1")
		r := newRoster(self)
		r.alive(c, nil, 0, now)
		r.gone(c.name(), Left, now)
		r.gone(c.name(), Failed, now)
		r.alive(c, nil, 0, now)
		only(t, r, c, Left)
	})

	t.Run("restarts without end take no memory", func(t *testing.T) {
		r := newRoster(self)
		for i := range uint64(1000) {
			c := testCard(2, 22, i, "b:1")
			r.alive(c, nil, 0, now)
			r.gone(c.name(), Failed, now)
		}
		if len(r.sessions) != 1 {
			t.Fatalf("%d processes remembered", len(r.sessions))
		}
	})

	t.Run("judge", func(t *testing.T) {
		r := newRoster(self)
		r.alive(testCard(2, 22, 1, "b:1"), nil, 0, now)
		r.seed(Member{Facts: testCard(3, 33, 0, "c:1").Facts})
		r.forget(4)
		stranger := testCard(5, 55, 1, "e:1")
		stranger.Cluster = "other"
		for _, c := range []struct {
			what string
			card card
			want error
		}{
			{"ourselves", self, nil},
			{"an earlier process of ours", testCard(1, 11, 99, "a:9"), errLeftover},
			{"one that had our address", testCard(1, 99, 99, "a:1"), errLeftover},
			{"our id", testCard(1, 99, 99, "z:1"), ErrSameID},
			{"a restart", testCard(2, 22, 2, "b:2"), nil},
			{"a wiped directory at the same address", testCard(2, 99, 2, "b:1"), nil},
			{"a taken id", testCard(2, 99, 2, "z:1"), ErrSameID},
			{"the id of one not seen yet", testCard(3, 99, 2, "z:1"), ErrSameID},
			{"one not seen yet", testCard(3, 33, 2, "z:1"), nil},
			{"forgotten", testCard(4, 44, 2, "d:1"), ErrForgotten},
			{"of another cluster", stranger, ErrWrongCluster},
			{"new", testCard(6, 66, 1, "f:1"), nil},
		} {
			if _, got := r.judge(c.card); !errors.Is(got, c.want) {
				t.Errorf("%s: %v, want %v", c.what, got, c.want)
			}
		}
	})
}
