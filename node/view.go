package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/replicatord/replicatord/crdt"
	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

// Limits of the view's pipeline.
const (
	viewQueue     = 16
	viewBatchCmds = 4096
	viewBatchSize = 16 << 20
	markEvery     = 100 * time.Millisecond
	checkEvery    = time.Second // how often an idle view is asked for its mark
)

// errViewLost reports that the connection to the view broke, or that it
// refused an update.
var errViewLost = errors.New("the view was lost")

// pump sends batches to the Redis behind the node over one connection, in
// order and pipelined, and hands the replies out. When the view is lost it
// fails what is queued until a new connection is attached.
type pump struct {
	in   chan *Batch
	done chan struct{}                    // closed when loop has ended
	lost func(err error)                  // called when a connection breaks; must not block
	mark func(crdt.Vector, uint64) []byte // the watermark of a vector and generation
	slog *slog.Logger
	// replies keeps what the view answers.
	replies *readCache

	mu     sync.Mutex
	conn   *viewConn   // nil while the view is lost
	keys   []crdt.Key  // of updates that did not reach the view
	marked crdt.Vector // of the last watermark written

	stats pumpStats
}

type pumpStats struct {
	pipelines, commands atomic.Uint64
}

func newPump(mark func(crdt.Vector, uint64) []byte, lost func(error), replies *readCache, logger *slog.Logger) *pump {
	return &pump{in: make(chan *Batch, viewQueue), done: make(chan struct{}), mark: mark, lost: lost, replies: replies, slog: logger}
}

// Send queues a batch.
func (p *pump) Send(b *Batch) { p.in <- b }

// Flush implements View: the pump never rests.
func (p *pump) Flush() {}

// Ask sends a command behind all that is queued and returns its raw reply.
func (p *pump) Ask(db int, args ...[]byte) ([]byte, error) {
	req := &resp.Request{}
	answered := make(chan error, 1)
	b := &Batch{Done: []func(error){func(err error) { answered <- err }}}
	b.add(ViewCmd{DB: db, Args: args, Req: req})
	p.Send(b)
	err := <-answered
	return req.Out, err
}

// Attach makes the pump use a connection.
func (p *pump) Attach(c *viewConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn = c
}

// TakeLost returns the keys of updates that did not reach the view, after all
// that is queued has failed too.
func (p *pump) TakeLost() []crdt.Key {
	flushed := make(chan struct{})
	p.Send(&Batch{Done: []func(error){func(error) { close(flushed) }}})
	<-flushed
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := p.keys
	p.keys = nil
	return keys
}

// Marked returns the vector of the last watermark written, nil if none was.
func (p *pump) Marked() crdt.Vector {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.marked
}

func (p *pump) current() *viewConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn
}

// Stop ends the pump after what is queued; nothing is sent after it.
func (p *pump) Stop() {
	close(p.in)
	<-p.done
}

func (p *pump) loop() {
	defer close(p.done)
	var level *Batch // what the view holds; nil once it is marked so
	var last []byte  // the mark the view must have; nil before the first
	marked := time.Time{}
	timer := time.NewTimer(markEvery)
	defer timer.Stop()
	for {
		var batches []*Batch
		select {
		case b, ok := <-p.in:
			if !ok {
				if c := p.current(); c != nil && level != nil {
					_ = c.mark(p.mark(level.Vector, level.Generation), last)
				}
				return
			}
			batches = p.gather(b)
		case <-timer.C:
		}
		c := p.current()
		var err error
		if c == nil {
			err = errViewLost
		} else if len(batches) > 0 {
			if last, err = c.markAhead(batches, last); err == nil {
				err = p.exec(c, batches)
			}
		}
		for _, b := range batches {
			if err == nil {
				err = b.Lose
			}
			if b.Vector != nil {
				level = &Batch{Vector: b.Vector, Generation: b.Generation}
			}
		}
		switch since := time.Since(marked); {
		case err != nil:
		case level != nil && since >= markEvery:
			marked = time.Now()
			mark := p.mark(level.Vector, level.Generation)
			if err = c.mark(mark, last); err == nil {
				p.mu.Lock()
				p.marked = level.Vector
				p.mu.Unlock()
				level, last = nil, mark
			}
		case level == nil && last != nil && since >= checkEvery:
			marked = time.Now()
			err = c.checkMark(last)
		}
		if err != nil {
			level, last = nil, nil
			p.mu.Lock()
			for _, b := range batches {
				p.keys = append(p.keys, b.Keys...)
			}
			broke := c != nil && p.conn == c
			if broke {
				p.conn = nil
			}
			p.mu.Unlock()
			if broke {
				c.Close()
				p.lost(err)
			}
		}
		for _, b := range batches {
			for _, done := range b.Done {
				done(err)
			}
		}
		if level != nil {
			timer.Reset(markEvery)
		} else {
			timer.Reset(checkEvery)
		}
	}
}

// gather takes what else is queued, up to the limits of one pipeline.
func (p *pump) gather(b *Batch) []*Batch {
	out := []*Batch{b}
	cmds, size := len(b.Cmds), b.Bytes
	for cmds < viewBatchCmds && size < viewBatchSize {
		select {
		case b, ok := <-p.in:
			if !ok {
				return out
			}
			out = append(out, b)
			cmds += len(b.Cmds)
			size += b.Bytes
		default:
			return out
		}
	}
	return out
}

// exec runs batches in one pipeline.
func (p *pump) exec(c *viewConn, batches []*Batch) error {
	c.makeRoom(batches)
	replies, err := c.pipeline(batches)
	p.stats.pipelines.Add(1)
	p.stats.commands.Add(uint64(len(replies)))
	var refused error
	for _, r := range replies {
		switch {
		case r.cmd.Req != nil:
			if r.raw != nil {
				r.cmd.Req.Out = c.strip(r.cmd, r.raw)
				p.replies.keep(r.cmd.Req, r.cmd.holds, r.cmd.Req.Out)
			}
		case len(r.raw) > 0 && r.raw[0] == '-' && refused == nil:
			refused = fmt.Errorf("%w: it answered %q to an update (%s)", errViewLost, bytes.TrimSpace(r.raw[1:]), r.cmd.Args[0])
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errViewLost, err)
	}
	return refused
}

// viewConn is one connection to the view.
type viewConn struct {
	client redis.UniversalClient
	conn   *redis.Conn
	db     int // selected now
	proto  int // spoken now
	// resp2 says why the view does not speak RESP3; "" if it does.
	resp2    string
	embedded bool // the store inside this process
	fields   bool // it knows expiries of fields
	hidden   int  // database of the watermark
	filter   bool
	most     int64 // bytes of a batch up to which the view takes any value
	args     []any // memory for pipeline's
}

// viewArg is an argument of a view's command: its pointer goes into an interface, as
// which arguments are passed, without an allocation.
type viewArg []byte

// MarshalBinary implements encoding.BinaryMarshaler.
func (a *viewArg) MarshalBinary() ([]byte, error) { return *a, nil }

// maxViewArgs is for how many of the next pipeline's arguments memory is kept, at most.
const maxViewArgs = 64 << 10

type viewReply struct {
	cmd *ViewCmd
	raw []byte
}

// markKey is the watermark's key in the view. No client can mean it by chance.
const markKey = "\x00replicatord\x00watermark"

// noKey is the name of a key that is never there.
const noKey = "\x00replicatord\x00none"

// pipeline sends the commands of batches and returns their raw replies in
// order; on an error, those that came.
func (c *viewConn) pipeline(batches []*Batch) ([]viewReply, error) {
	ctx := context.Background()
	pipe := c.conn.Pipeline()
	n := 0
	for _, b := range batches {
		n += len(b.Cmds)
	}
	cmds := make([]*redis.RawCmd, 0, n)
	out := make([]viewReply, 0, n)
	var selects []*redis.RawCmd // and HELLOs
	send := func(args ...any) {
		s := redis.NewRawCmd(ctx, args...)
		selects = append(selects, s)
		_ = pipe.Process(ctx, s)
	}
	args := c.args[:0] // one backing array for all
	db, proto := c.db, c.proto
	for _, b := range batches {
		for i := range b.Cmds {
			v := &b.Cmds[i]
			// To updates it is all the same what their replies look like.
			if want := v.proto(); want != 0 && want != proto {
				if want == 3 && c.resp2 != "" {
					fail(v.Req, c.resp2)
					continue
				}
				proto = want
				send("HELLO", proto)
			}
			if v.DB != db {
				db = v.DB
				send("SELECT", db)
			}
			from := len(args)
			for i := range v.Args {
				args = append(args, (*viewArg)(&v.Args[i]))
			}
			r := redis.NewRawCmd(ctx, args[from:len(args):len(args)]...)
			_ = pipe.Process(ctx, r)
			cmds = append(cmds, r)
			out = append(out, viewReply{cmd: v})
		}
	}
	_, err := pipe.Exec(ctx)
	clear(args) // the batches are not kept for it
	if c.args = args[:0]; cap(args) > maxViewArgs {
		c.args = nil
	}
	for i, r := range cmds {
		raw, e := r.Result()
		if e != nil {
			return out, e
		}
		out[i].raw = raw
	}
	for _, s := range selects {
		if raw, e := s.Result(); e == nil && len(raw) > 0 && raw[0] == '-' {
			return out, fmt.Errorf("%v: %s", s.Args()[0], bytes.TrimSpace(raw))
		}
	}
	if err != nil {
		return out, err
	}
	c.db, c.proto = db, proto
	return out, nil
}

// do runs one command in a database and returns its raw reply, as RESP2; an
// error reply is an error.
func (c *viewConn) do(db int, args ...any) ([]byte, error) {
	ctx := context.Background()
	pipe := c.conn.Pipeline()
	sel := redis.NewRawCmd(ctx, "SELECT", db)
	cmd := redis.NewRawCmd(ctx, args...)
	all := []*redis.RawCmd{sel, cmd}
	if c.proto != 2 {
		all = []*redis.RawCmd{redis.NewRawCmd(ctx, "HELLO", 2), sel, cmd}
	}
	for _, r := range all {
		_ = pipe.Process(ctx, r)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	c.db, c.proto = db, 2
	for _, r := range all {
		if raw := r.Val(); len(raw) > 0 && raw[0] == '-' {
			c.db = -1
			return nil, fmt.Errorf("%s", bytes.TrimSpace(raw[1:]))
		}
	}
	return cmd.Val(), nil
}

// errMark reports a view that was emptied, or changed for another, behind the
// node's back: its watermark is not the one written last.
var errMark = fmt.Errorf("%w: its watermark is gone: was it flushed, or is it another's?", errViewLost)

// mark writes the watermark in the place of last, if that is not nil.
func (c *viewConn) mark(b, last []byte) error {
	if last != nil {
		if err := c.checkMark(last); err != nil {
			return err
		}
	}
	_, err := c.do(c.hidden, "SET", markKey, b)
	return err
}

// markAhead tells the view which keys are about to change before the log has
// it, and returns the watermark that says so, or last if there are none.
func (c *viewConn) markAhead(batches []*Batch, last []byte) ([]byte, error) {
	var keys []crdt.Key
	for _, b := range batches {
		keys = append(keys, b.Ahead...)
	}
	if len(keys) == 0 {
		return last, nil
	}
	if last == nil {
		var err error
		if last, err = c.readMark(); err != nil {
			return nil, err
		}
	}
	w, err := decodeWatermark(last)
	if err != nil {
		return nil, err
	}
	if w.ahead = append(w.ahead, keys...); len(w.ahead) > rewriteStep {
		w.generation, w.ahead = unbuilt, nil
	}
	mark := w.encode()
	_, err = c.do(c.hidden, "SET", markKey, mark)
	return mark, err
}

// checkMark fails unless the watermark is the one written last.
func (c *viewConn) checkMark(last []byte) error {
	b, err := c.readMark()
	if err == nil && !bytes.Equal(b, last) {
		err = errMark
	}
	return err
}

// strip makes a view's reply the client's: it hides the watermark, and the
// peculiarities of the embedded store.
func (c *viewConn) strip(v *ViewCmd, raw []byte) []byte {
	if c.embedded && len(v.Args) > 0 {
		if raw = beyondEmbedded(v.Args, raw); v.proto() == 3 {
			raw = asRedis(v.Args, raw)
		}
	}
	if !c.filter || v.DB != c.hidden || len(v.Args) == 0 {
		return raw
	}
	switch string(bytes.ToUpper(v.Args[0])) {
	case "DBSIZE":
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(raw[1:])), 10, 64); err == nil && n > 0 {
			return fmt.Appendf(nil, ":%d\r\n", n-1)
		}
	case "RANDOMKEY":
		// Asked again; a database with nothing else answers null.
		for range 64 {
			if b, _ := readBulk(raw); string(b) != markKey {
				return raw
			}
			again, err := c.do(v.DB, "RANDOMKEY")
			if err != nil {
				break
			}
			raw = again
		}
		none := command.Reply{Proto: v.proto()}
		none.Null()
		return none.Buf
	case "KEYS":
		return stripKey(raw, 0)
	case "SCAN":
		if rest, ok := bytes.CutPrefix(raw, []byte("*2\r\n")); ok {
			_, n := readBulk(rest)
			return stripKey(raw, len(raw)-len(rest)+n)
		}
	}
	return raw
}

// stripKey takes the watermark's key out of the array of bulk strings that
// begins at a reply's byte at.
func stripKey(raw []byte, at int) []byte {
	end := bytes.IndexByte(raw[at:], '\n') + 1
	if end == 0 || raw[at] != '*' {
		return raw
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(raw[at+1 : at+end])))
	if err != nil {
		return raw
	}
	for pos := at + end; pos < len(raw); {
		item, size := readBulk(raw[pos:])
		if size == 0 {
			break
		}
		if string(item) == markKey {
			out := append([]byte(nil), raw[:at]...)
			out = fmt.Appendf(out, "*%d\r\n", n-1)
			out = append(out, raw[at+end:pos]...)
			return append(out, raw[pos+size:]...)
		}
		pos += size
	}
	return raw
}

// readBulk reads a bulk string and returns it and how many bytes it took, 0 if
// there is none.
func readBulk(b []byte) ([]byte, int) {
	end := bytes.IndexByte(b, '\n') + 1
	if end == 0 || b[0] != '$' {
		return nil, 0
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(b[1:end])))
	if err != nil || n < 0 || end+n+2 > len(b) {
		return nil, 0
	}
	return b[end : end+n], end + n + 2
}

// Close closes the connection.
func (c *viewConn) Close() {
	_ = c.conn.Close()
	_ = c.client.Close()
}
