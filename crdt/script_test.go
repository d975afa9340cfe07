package crdt_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/crdt/crdttest"
)

// TestScripts runs the scripts of testdata: rows of docs/SEMANTICS.md as
// examples with printed results. go test -run TestScripts -rewrite prints them
// anew. The directives:
//
//	nodes n           begins anew with n nodes; nothing is printed
//	on n              runs write commands at node n, at a millisecond each;
//	                  prints their replies
//	deliver n [to m]  brings all that node n wrote to node m, or to all
//	sync n to m       merges the state of node n into that of node m
//	wait ms           lets time pass; every node hides what has expired
//	show n            prints the keys that node n shows
//	converge          brings everything to all nodes, in every order of
//	                  streams, entry by entry, folded, and as merged states; it
//	                  fails if any of these ends differently, and prints what
//	                  all nodes then show
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			return
		}
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out, err := s.run(d)
			if err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			return out
		})
	})
}

type script struct {
	nodes  []*scriptNode
	log    map[crdt.Stream][]crdt.Entry
	millis int64
}

type scriptNode struct {
	id    uint16
	ks    *crdt.Keyspace
	store *crdttest.Store
}

func (n *scriptNode) clone() *scriptNode {
	s := n.store.Clone()
	return &scriptNode{id: n.id, ks: &crdt.Keyspace{Store: s, Have: n.ks.Have.Clone()}, store: s}
}

func (s *script) run(d *datadriven.TestData) (string, error) {
	arg := func(i int) (int, error) {
		if i >= len(d.CmdArgs) {
			return 0, fmt.Errorf("%s wants %d arguments", d.Cmd, i+1)
		}
		return strconv.Atoi(d.CmdArgs[i].Key)
	}
	first, err := arg(0)
	if err != nil && d.Cmd != "converge" {
		return "", err
	}
	if d.Cmd == "nodes" {
		*s = script{log: map[crdt.Stream][]crdt.Entry{}, millis: firstMilli}
		for i := range first {
			n := &scriptNode{id: uint16(i + 1), store: crdttest.New()}
			n.ks = &crdt.Keyspace{Store: n.store}
			s.nodes = append(s.nodes, n)
		}
		return "", nil
	}
	if d.Cmd == "wait" {
		s.millis += int64(first)
		for _, n := range s.nodes {
			n.sweep(s.millis)
		}
		return "", nil
	}
	if d.Cmd != "converge" && (first < 1 || first > len(s.nodes)) {
		return "", fmt.Errorf("no node %d", first)
	}
	to, err := arg(2)
	if (d.Cmd == "sync" || len(d.CmdArgs) > 1) && (err != nil || to < 1 || to > len(s.nodes)) {
		return "", fmt.Errorf("%s to which node?", d.Cmd)
	}
	switch d.Cmd {
	case "on":
		return s.write(s.nodes[first-1], d.Input)
	case "deliver":
		for _, n := range s.nodes {
			if to == 0 || int(n.id) == to {
				n.deliver(s.log[streamOf(first)], false)
				n.sweep(s.millis)
			}
		}
		return "", nil
	case "sync":
		from := s.nodes[first-1]
		crdttest.Merge(s.nodes[to-1].ks, s.nodes[to-1].store, from.store, from.ks.Have)
		return "", nil
	case "show":
		return s.nodes[first-1].show(), nil
	case "converge":
		return s.converge()
	}
	return "", fmt.Errorf("unknown directive %s", d.Cmd)
}

func streamOf(node int) crdt.Stream { return crdt.NewStream(uint16(node), 1, 1) }

func (n *scriptNode) sweep(now int64) {
	for _, k := range n.store.Keys() {
		n.ks.Sweep(k, now)
		n.store.EachCell(k, crdt.KindExpiry, func(id crdt.CellID, _ *crdt.Cell) bool {
			n.ks.SweepField(id, now)
			return true
		})
	}
}

func (n *scriptNode) deliver(entries []crdt.Entry, fold bool) {
	entries = slices.DeleteFunc(slices.Clone(entries), func(e crdt.Entry) bool { return e.Tag <= n.ks.Have.Get(e.Stream) })
	if fold && len(entries) > 0 {
		entries = []crdt.Entry{crdt.FoldEntries(entries)}
	}
	for i := range entries {
		n.ks.Apply(&entries[i])
		n.ks.Have = n.ks.Have.Clone()
		n.ks.Have.Raise(entries[i].Stream, entries[i].Tag)
	}
}

func (s *script) write(n *scriptNode, input string) (string, error) {
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(input), "\n") {
		s.millis++
		n.sweep(s.millis)
		var newest crdt.Tag
		for _, p := range n.ks.Have {
			newest = max(newest, p.Tag)
		}
		w := crdt.NewWriter(n.ks, streamOf(int(n.id)), crdt.TagAt(max(s.millis, newest.Millis()+1), n.id), s.millis)
		w.SetLane(1)
		reply, err := command(w, strings.Fields(line))
		if err != nil {
			return "", fmt.Errorf("%s: %w", line, err)
		}
		fmt.Fprintln(&out, reply)
		for _, e := range w.Entries() {
			if err := e.Validate(); err != nil {
				return "", err
			}
			s.log[e.Stream] = append(s.log[e.Stream], e)
			n.ks.Have = n.ks.Have.Clone()
			n.ks.Have.Raise(e.Stream, e.Tag)
		}
	}
	return out.String(), nil
}

// command runs one write as Redis would, as far as the scripts go.
func command(w *crdt.Writer, args []string) (string, error) {
	for len(args) < 4 {
		args = append(args, "")
	}
	key := crdt.Key{Name: args[1]}
	count := func(b bool) string { return strconv.Itoa(map[bool]int{true: 1}[b]) }
	add := func(kind crdt.Kind, elem, by string) (string, error) {
		n, err := crdt.ParseNumber([]byte(by))
		if err != nil {
			return "", err
		}
		if v, ok := w.Elem(key, kind, elem); ok {
			if _, err := crdt.ParseNumber(v); err != nil {
				return "ERR value is not a number", nil
			}
		}
		w.AddElem(key, kind, elem, n)
		v, _ := w.Elem(key, kind, elem)
		return string(v), nil
	}
	types := map[string]crdt.Type{"INCR": crdt.TypeString, "HSET": crdt.TypeHash, "HDEL": crdt.TypeHash, "HINC": crdt.TypeHash, "HPEX": crdt.TypeHash, "HPER": crdt.TypeHash, "SADD": crdt.TypeSet, "SREM": crdt.TypeSet}
	if want, have := types[args[0][:min(4, len(args[0]))]], w.Type(key); want != crdt.TypeNone && have != crdt.TypeNone && want != have {
		return "WRONGTYPE", nil
	}
	switch args[0] {
	case "SET":
		w.SetString(key, []byte(args[2]), args[3] == "KEEPTTL")
		return "OK", nil
	case "APPEND":
		v, _ := w.Elem(key, crdt.KindString, "")
		w.SetString(key, append(slices.Clip(v), args[2]...), true)
		return strconv.Itoa(len(v) + len(args[2])), nil
	case "INCRBY":
		return add(crdt.KindString, "", args[2])
	case "HINCRBY":
		return add(crdt.KindField, args[2], args[3])
	case "HSET":
		_, had := w.Elem(key, crdt.KindField, args[2])
		w.SetElem(key, crdt.KindField, args[2], []byte(args[3]))
		return count(!had), nil
	case "HDEL":
		return count(w.RemoveElem(key, crdt.KindField, args[2])), nil
	case "SADD":
		_, had := w.Elem(key, crdt.KindMember, args[2])
		w.SetElem(key, crdt.KindMember, args[2], nil)
		return count(!had), nil
	case "SREM":
		return count(w.RemoveElem(key, crdt.KindMember, args[2])), nil
	case "DEL":
		return count(w.Remove(key)), nil
	case "PEXPIRE":
		ms, err := strconv.ParseInt(args[2], 10, 64)
		did := w.Type(key) != crdt.TypeNone
		w.SetExpiry(key, w.Now()+ms)
		return count(did), err
	case "PERSIST":
		did := w.Expiry(key) != 0
		w.SetExpiry(key, crdt.Never)
		return count(did), nil
	case "HPEXPIRE":
		ms, err := strconv.ParseInt(args[3], 10, 64)
		_, did := w.Elem(key, crdt.KindField, args[2])
		w.SetFieldExpiry(key, args[2], w.Now()+ms)
		return count(did), err
	case "HPERSIST":
		did := w.FieldExpiry(key, args[2]) != 0
		w.SetFieldExpiry(key, args[2], crdt.Never)
		return count(did), nil
	case "FLUSHDB":
		w.Flush(0)
		return "OK", nil
	case "RENAME":
		to := crdt.Key{Name: args[2]}
		v, ok := w.Elem(key, crdt.KindString, "")
		if !ok {
			return "ERR no such key", nil
		}
		w.Remove(key)
		w.SetString(to, v, false)
		return "OK", nil
	}
	return "", fmt.Errorf("unknown command")
}

// show prints the keys that a node shows, with what it keeps beside.
func (n *scriptNode) show() string {
	var out strings.Builder
	for _, key := range n.store.Keys() {
		h := n.store.Header(key)
		if h.Type == crdt.TypeNone || h.Swept {
			continue
		}
		fmt.Fprintf(&out, "%s: %v", key.Name, h.Type)
		hidden := 0
		n.store.EachCell(key, crdt.KindAny, func(id crdt.CellID, c *crdt.Cell) bool {
			switch {
			case !c.Live() || id.Kind == crdt.KindExpiry:
				return true
			case id.Kind.Type() != h.Type:
				hidden++
				return true
			case id.Kind == crdt.KindField:
				e := n.store.Cell(crdt.FieldExpiry(key, id.Elem))
				if e != nil && e.Hidden {
					return true
				}
				fmt.Fprintf(&out, " %s=%s", id.Elem, c.Text())
				if e != nil && e.Expiry() == crdt.Never {
					out.WriteString(" (never expires)")
				} else if e != nil && e.Expiry() != 0 {
					fmt.Fprintf(&out, " (expires at %d ms)", e.Expiry()-firstMilli)
				}
			case id.Kind == crdt.KindMember:
				fmt.Fprintf(&out, " %s", id.Elem)
			default:
				fmt.Fprintf(&out, " %s", c.Text())
			}
			if len(c.Values) > 1 && id.Kind != crdt.KindMember {
				var also []string
				for _, v := range c.Values[1:] {
					also = append(also, string(v.Value))
				}
				fmt.Fprintf(&out, " (conflict: %s)", strings.Join(also, ", "))
			}
			return true
		})
		switch {
		case h.Expiry == crdt.Never:
			out.WriteString(", never expires")
		case h.Expiry != 0:
			fmt.Fprintf(&out, ", expires at %d ms", h.Expiry-firstMilli)
		}
		if hidden > 0 {
			fmt.Fprintf(&out, ", %d cells of another type behind it", hidden)
		}
		out.WriteByte('\n')
	}
	if out.Len() == 0 {
		return "(empty)\n"
	}
	return out.String()
}

// converge brings everything everywhere in every way.
func (s *script) converge() (string, error) {
	streams := slices.Sorted(maps.Keys(s.log))
	var results []*scriptNode
	for _, n := range s.nodes {
		for _, order := range permutations(streams) {
			for _, fold := range []bool{false, true} {
				c := n.clone()
				for _, st := range order {
					c.deliver(s.log[st], fold)
				}
				results = append(results, c)
			}
		}
		for _, order := range permutations(s.nodes) {
			c := n.clone()
			for _, o := range order {
				crdttest.Merge(c.ks, c.store, o.store, o.ks.Have)
			}
			for _, st := range streams {
				c.deliver(s.log[st], false)
			}
			results = append(results, c)
		}
	}
	for _, r := range results {
		r.sweep(s.millis)
		if got, want := r.show(), results[0].show(); got != want || !crdttest.Same(r.store.LiveCells(nil), results[0].store.LiveCells(nil)) {
			return "", fmt.Errorf("orders of delivery differ:\n%s\n%s", got, want)
		}
		if err := r.store.Check(); err != nil {
			return "", err
		}
	}
	for i, n := range s.nodes {
		s.nodes[i] = results[i*len(results)/len(s.nodes)]
		s.nodes[i].id = n.id
	}
	return results[0].show(), nil
}

func permutations[T any](in []T) [][]T {
	if len(in) == 0 {
		return [][]T{nil}
	}
	var out [][]T
	for i := range in {
		rest := append(slices.Clone(in[:i]), in[i+1:]...)
		for _, p := range permutations(rest) {
			out = append(out, append([]T{in[i]}, p...))
		}
	}
	return out
}
