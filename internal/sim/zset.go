package sim

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp/command"
)

// sortedSet carries out commands on sorted sets, whose elems are scores by
// member; false if the command is not one of them.
func (r *redis) sortedSet(name string, key crdt.Key, k *redisKey, args [][]byte, out *command.Reply) bool {
	switch name {
	case "ZADD", "ZREM", "ZRANGE", "ZSCORE":
	default:
		return false
	}
	if k != nil && k.typ != crdt.TypeZSet {
		out.Error(wrongType)
		return true
	}
	switch name {
	case "ZADD":
		if len(args) < 4 || len(args)%2 != 0 {
			panic(fmt.Sprintf("the view was sent %q", args))
		}
		if k == nil {
			k = &redisKey{typ: crdt.TypeZSet, elems: map[string]string{}}
			r.keys[key] = k
		}
		n := 0
		for i := 2; i < len(args); i += 2 {
			if _, ok := k.elems[string(args[i+1])]; !ok {
				n++
			}
			k.elems[string(args[i+1])] = scoreText(score(string(args[i])))
		}
		out.Int(int64(n))
	case "ZREM":
		n := 0
		for _, a := range args[2:] {
			if _, ok := k.elem(string(a)); ok {
				n++
				delete(k.elems, string(a))
			}
		}
		if k != nil && len(k.elems) == 0 {
			delete(r.keys, key)
		}
		out.Int(int64(n))
	case "ZSCORE":
		if v, ok := k.elem(string(args[2])); ok {
			out.BulkString(v)
		} else {
			out.Null()
		}
	case "ZRANGE":
		list, withScores := k.zrange(args[2:])
		if withScores {
			out.Array(2 * len(list))
		} else {
			out.Array(len(list))
		}
		for _, m := range list {
			out.BulkString(m)
			if withScores {
				out.BulkString(k.elems[m])
			}
		}
	}
	return true
}

// zrange returns the members that ZRANGE's arguments, from the range on, mean.
func (k *redisKey) zrange(args [][]byte) (list []string, withScores bool) {
	by, rev, offset, limit := "", false, 0, -1
	for i := 2; i < len(args); i++ {
		switch word := string(args[i]); word {
		case "BYSCORE", "BYLEX":
			by = word
		case "REV":
			rev = true
		case "WITHSCORES":
			withScores = true
		case "LIMIT":
			offset, limit = int(number(args[i+1])), int(number(args[i+2]))
			i += 2
		default:
			panic(fmt.Sprintf("the view was sent ZRANGE … %q", args))
		}
	}
	from, to := string(args[0]), string(args[1])
	list = k.names()
	slices.SortStableFunc(list, func(a, b string) int { return cmp.Compare(score(k.elems[a]), score(k.elems[b])) })
	if rev {
		slices.Reverse(list)
	}
	if by == "" {
		a, b := int(number(args[0])), int(number(args[1]))
		if a < 0 {
			a = max(len(list)+a, 0)
		}
		if b < 0 {
			b = len(list) + b
		}
		if b = min(b, len(list)-1); a > b {
			return nil, withScores
		}
		return list[a : b+1], withScores
	}
	if rev {
		from, to = to, from
	}
	list = slices.DeleteFunc(list, func(m string) bool {
		if by == "BYLEX" {
			return lexBefore(m, from) || lexAfter(m, to)
		}
		s := score(k.elems[m])
		low, open := strings.CutPrefix(from, "(")
		high, shut := strings.CutPrefix(to, "(")
		return s < score(low) || open && s == score(low) || s > score(high) || shut && s == score(high)
	})
	if offset < 0 || offset > len(list) {
		offset = len(list)
	}
	if list = list[offset:]; limit >= 0 {
		list = list[:min(limit, len(list))]
	}
	return list, withScores
}

func lexBefore(m, bound string) bool {
	switch {
	case bound == "-":
		return false
	case bound == "+":
		return true
	case bound[0] == '(':
		return m <= bound[1:]
	}
	return m < bound[1:]
}

func lexAfter(m, bound string) bool {
	switch {
	case bound == "+":
		return false
	case bound == "-":
		return true
	case bound[0] == '(':
		return m >= bound[1:]
	}
	return m > bound[1:]
}

func score(text string) float64 {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(fmt.Sprintf("the view was sent %q for a score", text))
	}
	return f
}

func scoreText(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// sortedSetForms are commands on a sorted set, and another.
func (w *world) sortedSetForms(set, other string) []string {
	member, member2 := fmt.Sprintf("f%d", w.pick(4)), fmt.Sprintf("f%d", w.pick(4))
	by := scoreText(float64(w.rand.IntN(40)-20) / 10)
	many := []string{"ZADD", set} // more than a node sorts for itself
	for i := range 140 {
		many = append(many, strconv.Itoa(i%7), fmt.Sprintf("f%d", i))
	}
	return []string{
		"ZADD " + set + " " + by + " " + member,
		"ZADD " + set + " " + by + " " + member + " 1 " + member2,
		"ZADD " + set + " GT CH " + by + " " + member,
		"ZADD " + set + " NX " + by + " " + member,
		"ZADD " + set + " inf " + member,
		strings.Join(many, " "),
		"ZINCRBY " + set + " " + by + " " + member,
		"ZINCRBY " + set + " " + by + " " + member,
		"ZREM " + set + " " + member,
		"ZREM " + set + " " + member + " " + member2,
		"ZPOPMIN " + set,
		"ZPOPMAX " + set + " 2",
		"ZREMRANGEBYSCORE " + set + " (0 1",
		"ZREMRANGEBYRANK " + set + " 0 1",
		"ZREMRANGEBYLEX " + set + " [f1 (f2",
		"ZRANGESTORE " + other + " " + set + " 0 3",
		"ZRANGESTORE " + other + " " + set + " 1 (-1 BYSCORE REV LIMIT 0 3",
		"ZUNIONSTORE " + set + " 2 " + set + " " + other + " WEIGHTS 1 0.5",
		"ZINTERSTORE " + other + " 2 " + set + " " + other + " AGGREGATE MAX",
		"ZDIFFSTORE " + other + " 2 " + set + " " + other,
		"GEOADD " + set + " 13.361389 38.115556 " + member,
	}
}
