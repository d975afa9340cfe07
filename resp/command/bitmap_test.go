package command

import (
	"strings"
	"testing"
)

// TestBitfieldAtTheLimit: an integer that begins before the end of the longest string
// and reaches beyond it is not written, for no string may be longer.
func TestBitfieldAtTheLimit(t *testing.T) {
	h := newHarness(t, 1)
	last := "4294967295" // bit of 512 MB
	for _, args := range [][]string{{"SET", "u2", last, "0"}, {"INCRBY", "u8", "4294967289", "1"}, {"GET", "u8", "0", "SET", "i64", last, "1"}} {
		got := h.cells(bytesOf(append([]string{"BITFIELD", "k"}, args...))...)
		if !strings.HasPrefix(string(got), "-"+errTooLong) {
			t.Errorf("BITFIELD k %v: %.80q", args, got)
		}
	}
	h.run("EXISTS", "k")
	h.run("BITFIELD", "k", "GET", "u8", last)
	h.run("BITFIELD", "k", "SET", "u8", "4294967296", "1")
}
