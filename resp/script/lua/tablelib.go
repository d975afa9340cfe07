package lua

import (
	"math"
	"slices"
)

func sortedKeys(m map[string]Native) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func openTable(s *State) {
	s.Register("table", map[string]Native{
		"concat": func(t *Thread, args []Value) []Value {
			tab := t.CheckTable(args, 1)
			sep := ""
			if arg(args, 1) != nil {
				sep = t.CheckString(args, 2)
			}
			i := int(int32(t.OptInt(args, 3, 1)))
			last := tab.Len()
			if arg(args, 3) != nil {
				last = int(int32(t.CheckInt(args, 4)))
			}
			var b []byte
			for ; i <= last; i++ {
				s, ok := ToString(tab.Index(i))
				if !ok {
					t.Errorf("invalid value (%s) at index %d in table for 'concat'", TypeName(tab.Index(i)), i)
				}
				b = append(b, s...)
				if i < last {
					b = append(b, sep...)
				}
				if len(b) > MaxString {
					t.room(len(b))
				}
				t.tick(1)
			}
			t.room(len(b))
			return []Value{string(b)}
		},
		"insert": func(t *Thread, args []Value) []Value {
			tab := t.CheckTable(args, 1)
			e := tab.Len() + 1
			switch len(args) {
			case 2:
				t.setRaw(tab, float64(e), args[1])
			case 3:
				pos := int(int32(t.CheckInt(args, 2)))
				e = max(e, pos)
				for i := e; i > pos; i-- {
					t.setRaw(tab, float64(i), tab.Index(i-1))
				}
				t.tick((e - pos) / 8)
				t.setRaw(tab, float64(pos), args[2])
			default:
				t.Errorf("wrong number of arguments to 'insert'")
			}
			return nil
		},
		"remove": func(t *Thread, args []Value) []Value {
			tab := t.CheckTable(args, 1)
			e := tab.Len()
			pos := int(int32(t.OptInt(args, 2, int64(e))))
			if pos < 1 || pos > e {
				return nil
			}
			v := tab.Index(pos)
			for i := pos; i < e; i++ {
				t.setRaw(tab, float64(i), tab.Index(i+1))
			}
			t.tick((e - pos) / 8)
			t.setRaw(tab, float64(e), nil)
			return []Value{v}
		},
		"getn": func(t *Thread, args []Value) []Value { return []Value{float64(t.CheckTable(args, 1).Len())} },
		"setn": func(t *Thread, args []Value) []Value {
			t.CheckTable(args, 1)
			t.Errorf("'setn' is obsolete")
			return nil
		},
		"maxn": func(t *Thread, args []Value) []Value {
			tab, m := t.CheckTable(args, 1), 0.0
			for k, _, _ := tab.Next(nil); k != nil; k, _, _ = tab.Next(k) {
				if f, ok := k.(float64); ok {
					m = math.Max(m, f)
				}
				t.tick(1)
			}
			return []Value{m}
		},
		"foreach": func(t *Thread, args []Value) []Value {
			tab, f := t.CheckTable(args, 1), t.checkFunction(args, 2)
			for k, v, _ := tab.Next(nil); k != nil; k, v, _ = tab.Next(k) {
				if r := first(t.invoke(f, []Value{k, v})); r != nil {
					return []Value{r}
				}
			}
			return nil
		},
		"foreachi": func(t *Thread, args []Value) []Value {
			tab, f := t.CheckTable(args, 1), t.checkFunction(args, 2)
			for i, n := 1, tab.Len(); i <= n; i++ {
				if r := first(t.invoke(f, []Value{float64(i), tab.Index(i)})); r != nil {
					return []Value{r}
				}
			}
			return nil
		},
		"sort": tableSort,
	})
}

// tableSort is Lua's quicksort: a comparison that is no order is found out as
// there, and values that compare equal end in the same places.
func tableSort(t *Thread, args []Value) []Value {
	tab := t.CheckTable(args, 1)
	n := tab.Len()
	var f *Function
	if arg(args, 1) != nil {
		f = t.checkFunction(args, 2)
	}
	less := func(a, b Value) bool {
		if f == nil {
			t.tick(1)
			return t.less(a, b)
		}
		return truth(first(t.invoke(f, []Value{a, b})))
	}
	get := tab.Index
	set := func(i int, v Value) { t.setRaw(tab, float64(i), v) }
	var sort func(l, u int)
	sort = func(l, u int) {
		for l < u {
			if a, b := get(l), get(u); less(b, a) {
				set(l, b)
				set(u, a)
			}
			if u-l == 1 {
				return
			}
			i := (l + u) / 2
			if a, b := get(i), get(l); less(a, b) {
				set(i, b)
				set(l, a)
			} else if b := get(u); less(b, a) {
				set(i, b)
				set(u, a)
			}
			if u-l == 2 {
				return
			}
			p := get(i)
			b := get(u - 1)
			set(i, b)
			set(u-1, p)
			i, j := l, u-1
			for {
				for i++; less(get(i), p); i++ {
					if i > u {
						t.Errorf("invalid order function for sorting")
					}
				}
				for j--; less(p, get(j)); j-- {
					if j < l {
						t.Errorf("invalid order function for sorting")
					}
				}
				if j < i {
					break
				}
				a, b := get(i), get(j)
				set(i, b)
				set(j, a)
			}
			a, b := get(u-1), get(i)
			set(u-1, b)
			set(i, a)
			if i-l < u-i {
				j, i, l = l, i-1, i+1
			} else {
				j, i, u = i+1, u, i-1
			}
			sort(j, i)
		}
	}
	sort(1, n)
	return nil
}

func openMath(s *State) {
	one := func(f func(float64) float64) Native {
		return func(t *Thread, args []Value) []Value { return []Value{num(f(t.CheckNumber(args, 1)))} }
	}
	two := func(f func(a, b float64) float64) Native {
		return func(t *Thread, args []Value) []Value {
			return []Value{num(f(t.CheckNumber(args, 1), t.CheckNumber(args, 2)))}
		}
	}
	pick := func(better func(a, b float64) bool) Native {
		return func(t *Thread, args []Value) []Value {
			m := t.CheckNumber(args, 1)
			for i := 2; i <= len(args); i++ {
				if d := t.CheckNumber(args, i); better(d, m) {
					m = d
				}
			}
			return []Value{m}
		}
	}
	m := s.Register("math", map[string]Native{
		"abs": one(math.Abs), "ceil": one(math.Ceil), "floor": one(math.Floor), "sqrt": one(math.Sqrt),
		"sin": one(math.Sin), "cos": one(math.Cos), "tan": one(math.Tan), "asin": one(math.Asin),
		"acos": one(math.Acos), "atan": one(math.Atan), "sinh": one(math.Sinh), "cosh": one(math.Cosh),
		"tanh": one(math.Tanh), "exp": one(math.Exp), "log": one(math.Log), "log10": one(math.Log10),
		"deg":   one(func(f float64) float64 { return f / (math.Pi / 180) }),
		"rad":   one(func(f float64) float64 { return f * (math.Pi / 180) }),
		"atan2": two(math.Atan2), "fmod": two(math.Mod), "mod": two(math.Mod), "pow": two(math.Pow),
		"max": pick(func(a, b float64) bool { return a > b }), "min": pick(func(a, b float64) bool { return a < b }),
		"ldexp": func(t *Thread, args []Value) []Value {
			return []Value{math.Ldexp(t.CheckNumber(args, 1), int(int32(t.CheckInt(args, 2))))}
		},
		"frexp": func(t *Thread, args []Value) []Value {
			f, e := math.Frexp(t.CheckNumber(args, 1))
			return []Value{f, float64(e)}
		},
		"modf": func(t *Thread, args []Value) []Value {
			f := t.CheckNumber(args, 1)
			if math.IsInf(f, 0) {
				return []Value{f, math.Copysign(0, f)}
			}
			i := math.Trunc(f)
			return []Value{i, math.Copysign(f-i, f)}
		},
		"random": func(t *Thread, args []Value) []Value {
			r := float64(t.S.random()) / float64(1<<31-1)
			switch len(args) {
			case 0:
				return []Value{r}
			case 1:
				u := int32(t.CheckInt(args, 1))
				if u < 1 {
					t.ArgError(1, "interval is empty")
				}
				return []Value{math.Floor(r*float64(u)) + 1}
			case 2:
				l, u := int32(t.CheckInt(args, 1)), int32(t.CheckInt(args, 2))
				if l > u {
					t.ArgError(2, "interval is empty")
				}
				return []Value{math.Floor(r*float64(u-l+1)) + float64(l)}
			}
			t.Errorf("wrong number of arguments")
			return nil
		},
		"randomseed": func(t *Thread, args []Value) []Value {
			t.S.Seed(int32(t.CheckInt(args, 1)))
			return nil
		},
	})
	m.Set("pi", math.Pi)
	m.Set("huge", math.Inf(1))
}

// Seed sets the state of math.random: drand48's, which Redis uses on every
// system.
func (s *State) Seed(n int32) { s.seed = [3]uint16{0x330e, uint16(n), uint16(uint32(n) >> 16)} }

// random returns the next of 31 bits, as lrand48.
func (s *State) random() int32 {
	x := uint64(s.seed[0]) | uint64(s.seed[1])<<16 | uint64(s.seed[2])<<32
	x = (x*0x5deece66d + 0xb) & (1<<48 - 1)
	s.seed = [3]uint16{uint16(x), uint16(x >> 16), uint16(x >> 32)}
	return int32(x >> 17 % (1<<31 - 1))
}
