package lua

import (
	"math"
	"math/bits"
	"reflect"
)

// Table is Lua's: an array part for the keys 1, 2, 3, … and a hash part. Both are
// as those of Lua 5.1 (ltable.c, (c) Lua.org, PUC-Rio; the algorithm, not the code),
// with the same hash functions, sizes and places of collisions, because scripts can
// see them: in the order of pairs, and so of JSON, and in the length of a table with
// holes.
type Table struct {
	arr      []Value
	nodes    []node
	free     int // no node at or after it is free
	meta     *Table
	readonly bool
	absent   uint8 // metamethods known not to be there, by event, while this is a metatable
}

type node struct {
	key  Value
	val  Value
	next int32 // index of the next in the chain, plus 1; 0: none
}

// maxArrayBits bounds the array part.
const maxArrayBits = 26

// NewTable returns an empty table with room for array and hash elements.
func NewTable(array, hash int) *Table {
	t := &Table{}
	if array > 0 {
		t.arr = make([]Value, array)
	}
	t.setNodes(hash)
	return t
}

func (t *Table) setNodes(n int) {
	if n == 0 {
		t.nodes, t.free = nil, 0
		return
	}
	size := 1 << ceilLog2(n)
	t.nodes, t.free = make([]node, size), size
}

func ceilLog2(n int) int { return bits.Len(uint(n - 1)) }

func hashString(s string) uint32 {
	h := uint32(len(s))
	step := len(s)>>5 + 1
	for i := len(s); i >= step; i -= step {
		h ^= h<<5 + h>>2 + uint32(s[i-1])
	}
	return h
}

// main returns the index of a key's main position. There are nodes.
func (t *Table) main(key Value) int {
	n := uint32(len(t.nodes))
	odd := (n - 1) | 1
	switch k := key.(type) {
	case string:
		return int(hashString(k) & (n - 1))
	case float64:
		if k == 0 {
			return 0
		}
		b := math.Float64bits(k)
		return int((uint32(b) + uint32(b>>32)) % odd)
	case bool:
		if k {
			return int(1 & (n - 1))
		}
		return 0
	}
	return int(uint32(reflect.ValueOf(key).Pointer()>>4) % odd)
}

// arrayIndex returns the integer that a key is, if it is one.
func arrayIndex(f float64) (int, bool) {
	if f >= -(1<<31) && f < 1<<31 {
		i := int(f)
		return i, float64(i) == f
	}
	return 0, false
}

func (t *Table) findString(k string, h uint32) *Value {
	if len(t.nodes) == 0 {
		return nil
	}
	i := int32(h&uint32(len(t.nodes)-1)) + 1
	for i != 0 {
		n := &t.nodes[i-1]
		if s, ok := n.key.(string); ok && s == k {
			return &n.val
		}
		i = n.next
	}
	return nil
}

// find returns where a key's value is, nil if the key is in no part.
func (t *Table) find(key Value) *Value {
	switch k := key.(type) {
	case nil:
		return nil
	case string:
		return t.findString(k, hashString(k))
	case float64:
		if i, ok := arrayIndex(k); ok && i >= 1 && i <= len(t.arr) {
			return &t.arr[i-1]
		}
	}
	if len(t.nodes) == 0 {
		return nil
	}
	for i := int32(t.main(key)) + 1; i != 0; {
		n := &t.nodes[i-1]
		if rawEqual(n.key, key) {
			return &n.val
		}
		i = n.next
	}
	return nil
}

// Get returns the value of a key, without metamethods.
func (t *Table) Get(key Value) Value {
	if p := t.find(key); p != nil {
		return *p
	}
	return nil
}

// GetString is Get of a string.
func (t *Table) GetString(key string) Value {
	if p := t.findString(key, hashString(key)); p != nil {
		return *p
	}
	return nil
}

// Index is Get of an integer.
func (t *Table) Index(i int) Value {
	if i >= 1 && i <= len(t.arr) {
		return t.arr[i-1]
	}
	return t.Get(float64(i))
}

// slot returns where a key's value is, making room for a new key. The key is
// neither nil nor NaN.
func (t *Table) slot(key Value) *Value {
	t.absent = 0
	if p := t.find(key); p != nil {
		return p
	}
	return t.insert(key)
}

// Set sets the value of a key, which is neither nil nor NaN, without
// metamethods and without regard to a lock.
func (t *Table) Set(key, value Value) { *t.slot(key) = value }

// insert adds a key that is not there.
func (t *Table) insert(key Value) *Value {
	if len(t.nodes) == 0 {
		t.rehash(key)
		return t.slot(key)
	}
	mp := t.main(key)
	if t.nodes[mp].val != nil {
		f := t.freeNode()
		if f < 0 {
			t.rehash(key)
			return t.slot(key)
		}
		if other := t.main(t.nodes[mp].key); other != mp {
			// What is there is out of its own place: it moves.
			for t.nodes[other].next != int32(mp)+1 {
				other = int(t.nodes[other].next) - 1
			}
			t.nodes[other].next = int32(f) + 1
			t.nodes[f] = t.nodes[mp]
			t.nodes[mp].next = 0
			t.nodes[mp].val = nil
		} else {
			t.nodes[f].next = t.nodes[mp].next
			t.nodes[mp].next = int32(f) + 1
			mp = f
		}
	}
	n := &t.nodes[mp]
	n.key = key
	return &n.val
}

func (t *Table) freeNode() int {
	for t.free > 0 {
		t.free--
		if t.nodes[t.free].key == nil {
			return t.free
		}
	}
	return -1
}

// rehash finds the sizes of both parts anew: the array is the greatest power
// of two more than half of which is in use.
func (t *Table) rehash(extra Value) {
	var counts [maxArrayBits + 1]int
	count := func(key Value) int {
		if f, ok := key.(float64); ok {
			if i, ok := arrayIndex(f); ok && i >= 1 && i <= 1<<maxArrayBits {
				counts[ceilLog2(i)]++
				return 1
			}
		}
		return 0
	}
	inArray, total := 0, 0
	for i, v := range t.arr {
		if v != nil {
			counts[ceilLog2(i+1)]++
			inArray++
		}
	}
	total = inArray
	for i := range t.nodes {
		if n := &t.nodes[i]; n.val != nil {
			inArray += count(n.key)
			total++
		}
	}
	inArray += count(extra)
	total++
	size, used, sum := 0, 0, 0
	for i, pow := 0, 1; pow/2 < inArray && i <= maxArrayBits; i, pow = i+1, pow*2 {
		if counts[i] > 0 {
			if sum += counts[i]; sum > pow/2 {
				size, used = pow, sum
			}
		}
		if sum == inArray {
			break
		}
	}
	t.resize(size, total-used)
}

func (t *Table) resize(array, hash int) {
	old, gone := t.nodes, []Value(nil)
	was := len(t.arr)
	if array > was {
		arr := make([]Value, array)
		copy(arr, t.arr)
		t.arr = arr
	}
	t.setNodes(hash)
	if array < was {
		gone = t.arr[array:]
		t.arr = append([]Value(nil), t.arr[:array]...)
	}
	for i, v := range gone {
		if v != nil {
			t.Set(float64(array+i+1), v)
		}
	}
	for i := len(old) - 1; i >= 0; i-- {
		if old[i].val != nil {
			t.Set(old[i].key, old[i].val)
		}
	}
}

// Len is Lua's #: an n such that t[n] is there and t[n+1] is not.
func (t *Table) Len() int {
	j := len(t.arr)
	if j > 0 && t.arr[j-1] == nil {
		i := 0
		for j-i > 1 {
			if m := (i + j) / 2; t.arr[m-1] == nil {
				j = m
			} else {
				i = m
			}
		}
		return i
	}
	if len(t.nodes) == 0 {
		return j
	}
	i := j
	j++
	for t.Index(j) != nil {
		i = j
		if j *= 2; j > math.MaxInt32 {
			for i = 1; t.Index(i) != nil; i++ {
			}
			return i - 1
		}
	}
	for j-i > 1 {
		if m := (i + j) / 2; t.Index(m) == nil {
			j = m
		} else {
			i = m
		}
	}
	return i
}

// Next returns the key and value after a key, nil for the first; ok is false
// if the key is not in the table. After the last the key is nil.
func (t *Table) Next(key Value) (k, v Value, ok bool) {
	i := 0
	if key != nil {
		f, isNum := key.(float64)
		if n, isInt := arrayIndex(f); isNum && isInt && n >= 1 && n <= len(t.arr) {
			i = n
		} else {
			if len(t.nodes) == 0 {
				return nil, nil, false
			}
			j := int32(t.main(key)) + 1
			for j != 0 && !rawEqual(t.nodes[j-1].key, key) {
				j = t.nodes[j-1].next
			}
			if j == 0 {
				return nil, nil, false
			}
			i = len(t.arr) + int(j)
		}
	}
	for ; i < len(t.arr); i++ {
		if t.arr[i] != nil {
			return float64(i + 1), t.arr[i], true
		}
	}
	for j := i - len(t.arr); j < len(t.nodes); j++ {
		if n := &t.nodes[j]; n.val != nil {
			return n.key, n.val, true
		}
	}
	return nil, nil, true
}

// Meta returns the metatable, nil if there is none.
func (t *Table) Meta() *Table { return t.meta }

// SetMeta sets the metatable.
func (t *Table) SetMeta(m *Table) { t.meta = m }

// Lock makes the table, and every table that it leads to, read only.
func (t *Table) Lock() {
	if t.readonly {
		return
	}
	t.readonly = true
	for k, v, _ := t.Next(nil); k != nil; k, v, _ = t.Next(k) {
		if sub, ok := v.(*Table); ok {
			sub.Lock()
		}
	}
	if t.meta != nil {
		t.meta.Lock()
	}
}
