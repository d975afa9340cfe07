package oplog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/internal/wire"
)

// Dump prints what a data directory that no process has open says of itself
// (identity, meta, streams) and every log entry, decoded, one per line. fs is
// vfs.Default if nil. What does not decode is printed as it is.
func Dump(ctx context.Context, w io.Writer, dir string, fs vfs.FS) error {
	db, done, err := openReadOnly(dir, fs)
	if err != nil {
		return err
	}
	return errors.Join(dump(ctx, w, db), done())
}

func dump(ctx context.Context, w io.Writer, db *pebble.DB) error {
	each := func(r byte, fn func(k, v []byte) string) error {
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{r}, UpperBound: []byte{r + 1}})
		if err != nil {
			return err
		}
		for ok := it.First(); ok && err == nil && ctx.Err() == nil; ok = it.Next() {
			var v []byte
			if v, err = it.ValueAndErr(); err == nil {
				_, err = fmt.Fprintln(w, fn(it.Key(), v))
			}
		}
		return errors.Join(err, ctx.Err(), it.Error(), it.Close())
	}
	err := each(rangeMeta, dumpMeta)
	if err == nil {
		err = each(rangeStreams, func(k, v []byte) string {
			row, err := decodeStreamRow(v)
			if err != nil || len(k) != 9 {
				return fmt.Sprintf("stream %x %x", k[1:], v)
			}
			s := crdt.Stream(binary.BigEndian.Uint64(k[1:]))
			return fmt.Sprintf("stream %v at=%v known=%v", s, row.tag, row.known)
		})
	}
	if err == nil {
		err = each(rangeFloors, func(k, v []byte) string {
			row, err := decodeFloorRow(v)
			if err != nil || len(k) != 9 {
				return fmt.Sprintf("floor %x %x", k[1:], v)
			}
			return fmt.Sprintf("floor %v after=%v", crdt.Stream(binary.BigEndian.Uint64(k[1:])), row.tag)
		})
	}
	if err == nil {
		err = each(rangeLog, func(k, v []byte) string {
			e, err := wire.DecodeEntry(v)
			if err != nil {
				return fmt.Sprintf("entry %x %x", k[1:], v)
			}
			return "entry " + FormatEntry(&e)
		})
	}
	return err
}

func dumpMeta(k, v []byte) string {
	switch name := string(k[1:]); name {
	case metaIdentity:
		if id, mark, err := decodeIdentity(v); err == nil {
			return fmt.Sprintf("identity %v, place %q", id, mark)
		}
	case metaTag:
		if len(v) == 8 {
			return fmt.Sprintf("tags up to %v are reserved", crdt.Tag(binary.BigEndian.Uint64(v)))
		}
	case metaFormat:
		return fmt.Sprintf("format %x", v)
	}
	return fmt.Sprintf("meta %q %q", k[1:], v)
}

// FormatEntry prints an entry on one line: its place in its stream, its
// context, and its deltas, as "-" for a remove, "=" for a value, "+" for a sum.
func FormatEntry(e *crdt.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v (%x, %x] %v ctx=%v", e.Stream, uint64(e.Prev), uint64(e.Tag), e.Tag.Time().Format("2006-01-02T15:04:05.000Z"), e.Ctx)
	for i := range e.Deltas {
		d := &e.Deltas[i]
		fmt.Fprintf(&b, " | db%d", d.ID.Key.DB)
		if d.Level != crdt.LevelDB {
			b.WriteString(" " + strconv.Quote(d.ID.Key.Name))
		}
		if d.ID.Kind != crdt.KindAny {
			fmt.Fprintf(&b, " kind%d", d.ID.Kind)
		}
		if d.ID.Elem != "" {
			b.WriteString(" " + strconv.Quote(d.ID.Elem))
		}
		if r := d.Remove; r != nil {
			b.WriteString(" -")
			if !r.Ctx.Equal(e.Ctx) {
				fmt.Fprint(&b, r.Ctx)
			}
			for _, s := range r.Seen {
				for _, c := range s.Counts {
					fmt.Fprintf(&b, "seen(%v:%x %v)", c.Stream, uint64(c.Tag), c.Sum)
				}
			}
		}
		if p := d.Put; p != nil {
			b.WriteString(" =" + quoteShort(p.Value))
		}
		if a := d.Add; a != nil {
			fmt.Fprintf(&b, " +%v", a.Sum)
		}
	}
	return b.String()
}

// maxShown bounds how much of a value a line shows.
const maxShown = 256

func quoteShort(v []byte) string {
	if len(v) <= maxShown {
		return strconv.Quote(string(v))
	}
	return fmt.Sprintf("%q… %d bytes", v[:maxShown], len(v))
}

// WriteTo prints the report: a summary, then the faults, one per line.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "keys %d, cells %d, entries %d, streams %d, digest %016x\nvector %v\n", r.Keys, r.Cells, r.Entries, r.Streams, r.Digest, r.Vector)
	for _, f := range r.Faults {
		fmt.Fprintln(&b, "FAULT", f)
	}
	if r.MoreFaults > 0 {
		fmt.Fprintf(&b, "and %d more faults\n", r.MoreFaults)
	}
	if len(r.Faults) == 0 {
		b.WriteString("no faults\n")
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}
