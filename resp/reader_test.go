package resp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tidwall/redcon"
)

var wide = limits{args: maxArgs, bulk: DefaultMaxBulkLen, command: DefaultMaxQueryBuffer}

func unlimited() *budget {
	var b budget
	b.limit.Store(math.MaxInt64)
	return &b
}

// pieces is a reader that returns what it has in pieces of given sizes.
type pieces struct {
	data  []byte
	sizes func() int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), max(p.sizes(), 1))], p.data)
	p.data = p.data[n:]
	return n, nil
}

// readAll reads all commands and returns them and the error that ended them.
func readAll(r *reader) (commands [][][]byte, err error) {
	for {
		args, err := r.next()
		if err == nil {
			commands = append(commands, args)
			r.release()
			continue
		}
		if !errors.Is(err, errMore) {
			return commands, err
		}
		if err := r.fill(); err != nil {
			return commands, err
		}
	}
}

// However the bytes are cut into pieces, the commands are the same.
func TestReaderPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		var in []byte
		var want [][]string
		for range rng.IntN(30) + 1 {
			if rng.IntN(10) == 0 {
				in = append(in, "GET \"a b\" c\r\n"...)
				want = append(want, []string{"GET", "a b", "c"})
				continue
			}
			args := make([]string, rng.IntN(5)+1)
			for i := range args {
				size := rng.IntN(20)
				if rng.IntN(20) == 0 {
					size = directBulk - 3 + rng.IntN(directBulk*4)
				}
				b := make([]byte, size)
				for j := range b {
					b[j] = byte(rng.Uint32())
				}
				args[i] = string(b)
			}
			in = append(in, encode(args...)...)
			want = append(want, args)
		}
		b := unlimited()
		r := newReader(&pieces{in, func() int { return rng.IntN(1 << rng.IntN(18)) }}, wide, b)
		got, err := readAll(r)
		if !errors.Is(err, io.EOF) {
			t.Fatalf("round %d: %v", round, err)
		}
		if len(got) != len(want) {
			t.Fatalf("round %d: %d commands of %d", round, len(got), len(want))
		}
		for i := range want {
			if !slices.EqualFunc(got[i], want[i], func(a []byte, b string) bool { return string(a) == b }) {
				t.Fatalf("round %d: command %d differs", round, i)
			}
		}
		r.close()
		if b.used.Load() != 0 {
			t.Fatalf("round %d: %d bytes not given back", round, b.used.Load())
		}
	}
}

// Arguments stay what they are while the reader goes on.
func TestReaderOwnership(t *testing.T) {
	in := strings.Repeat(encode("SET", "key", "value")+encode("SET", "k", strings.Repeat("v", directBulk)), 50)
	got, _ := readAll(newReader(strings.NewReader(in), wide, unlimited()))
	for _, args := range got {
		for i, a := range args {
			if len(a) != cap(a) {
				t.Fatalf("appending to argument %d would change another", i)
			}
		}
		if string(args[0]) != "SET" || args[1][0] != 'k' || args[2][0] != 'v' {
			t.Fatalf("changed: %.80q", args)
		}
	}
}

// What a header announces takes no memory before it comes.
func TestReaderAllocatesForWhatCame(t *testing.T) {
	for _, in := range []string{
		"*1048576\r\n$536870912\r\n",
		"*2\r\n$3\r\nSET\r\n$536870912\r\nabc",
		"*1048576\r\n" + strings.Repeat("$0\r\n\r\n", 100),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readAll(newReader(strings.NewReader(in), wide, unlimited()))
		runtime.ReadMemStats(&after)
		if !errors.Is(err, io.EOF) {
			t.Errorf("%.30q: %v", in, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%.30q: %d bytes allocated", in, n)
		}
	}
}

func TestReaderLimits(t *testing.T) {
	small := limits{args: 3, bulk: 40_000, command: 50_000}
	for _, c := range []struct {
		in   string
		lim  limits
		want error
	}{
		{encode("a", "b", "c"), small, io.EOF},
		{encode("a", "b", "c", "d"), small, protocolError("invalid multibulk length")},
		{encode("a", strings.Repeat("x", 40_000)), small, io.EOF},
		{encode("a", strings.Repeat("x", 40_001)), small, protocolError("invalid bulk length")},
		{encode(strings.Repeat("x", 25_000), strings.Repeat("y", 25_000)), small, io.EOF},
		{encode(strings.Repeat("x", 25_000), strings.Repeat("y", 25_001)), small, errQueryLimit},
		{encode(strings.Repeat("x", 40_000), strings.Repeat("y", 25_001)), small, errQueryLimit},
		{"*1048577\r\n", wide, protocolError("invalid multibulk length")},
	} {
		_, err := readAll(newReader(strings.NewReader(c.in), c.lim, unlimited()))
		if !errors.Is(err, c.want) {
			t.Errorf("%.40q: got %v, want %v", c.in, err, c.want)
		}
	}
}

// All readers together keep to their budget, in large arguments and in many
// small ones.
func TestReaderBudget(t *testing.T) {
	for _, in := range []string{
		encode("SET", "k", strings.Repeat("x", 3<<20)),
		"*200000\r\n" + strings.Repeat("$10\r\n0123456789\r\n", 200_000),
	} {
		var b budget
		b.limit.Store(1 << 20)
		r := newReader(strings.NewReader(in), wide, &b)
		if _, err := readAll(r); !errors.Is(err, errMemory) {
			t.Errorf("%.20q: %v", in, err)
		}
		r.close()
		b.limit.Store(16 << 20)
		r = newReader(strings.NewReader(in), wide, &b)
		if _, err := readAll(r); !errors.Is(err, io.EOF) {
			t.Errorf("%.20q: %v", in, err)
		}
		r.close()
		if b.used.Load() != 0 {
			t.Errorf("%.20q: %d not given back", in, b.used.Load())
		}
	}
}

// Buffers that grew become small again.
func TestReaderShrinks(t *testing.T) {
	in := "*100000\r\n" + strings.Repeat("$1\r\nx\r\n", 100_000) + strings.Repeat(encode("PING"), 200)
	r := newReader(&pieces{[]byte(in), func() int { return 14 * 1000 }}, wide, unlimited())
	r.src = iotest.OneByteReader(r.src)
	if _, err := readAll(r); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if len(r.buf) != minBuffer {
		t.Errorf("the buffer still has %d bytes", len(r.buf))
	}
}

// FuzzReader holds the reader against redcon's parser, and against itself with
// the bytes cut differently.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		encode("SET", "k", "v") + encode("GET", "k"), "PING\r\n", "*1\r\n$x\r\n", "*-1\r\n*1\r\n$1\r\na\r\n",
		"*1\r\n$9223372036854775807\r\nabc\r\n", "*3\r\n$0\r\n\r\n$1\r\n\n\r\n$2\r\n\r\n\r\n", "SET \"a\\x00\" 'b'\r\n",
		"*2\r\n$3\r\nGET\r\n$5\r\nab", "*1\r\n:1\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		whole, wholeErr := readAll(newReader(bytes.NewReader(in), wide, unlimited()))
		cut, cutErr := readAll(newReader(&pieces{in, func() int { return int(piece) }}, wide, unlimited()))
		if fmt.Sprint(whole, wholeErr) != fmt.Sprint(cut, cutErr) {
			t.Fatalf("%q in pieces of %d:\n%q %v\n%q %v", in, piece, whole, wholeErr, cut, cutErr)
		}
		if len(in) == 0 || in[0] != '*' {
			return // redcon's inline syntax is its own
		}
		want, ok := redconFirst(in)
		if !ok || len(want) == 0 {
			return
		}
		if len(whole) == 0 {
			// Refused only for how a number is written.
			if bad := protocolError(""); !errors.As(wholeErr, &bad) || !strings.HasPrefix(string(bad), "invalid ") {
				t.Fatalf("%q: redcon reads %q, the reader %v", in, want, wholeErr)
			}
			return
		}
		if !slices.EqualFunc(whole[0], want, bytes.Equal) {
			t.Fatalf("%q: redcon reads %q, the reader %q", in, want, whole[0])
		}
	})
}

// redconFirst returns the first command as redcon reads it, and false if it
// refuses it, or panics, as it does on lengths near the greatest integer.
func redconFirst(in []byte) (args [][]byte, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	ok, args, _, _, err := redcon.ReadNextCommand(in, nil)
	return args, ok && err == nil
}

func BenchmarkReader(b *testing.B) {
	one := encode("SET", "key:000000000042", "xxx")
	in := []byte(strings.Repeat(one, 1000))
	b.ReportAllocs()
	b.SetBytes(int64(len(one)))
	src := &pieces{nil, func() int { return 1 << 20 }}
	r := newReader(src, wide, unlimited())
	for i := 0; i < b.N; {
		_, err := r.next()
		if err == nil {
			i++
			continue
		}
		if len(src.data) == 0 {
			src.data = in
		}
		if err := r.fill(); err != nil {
			b.Fatal(err)
		}
	}
}
