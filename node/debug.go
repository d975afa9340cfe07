package node

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/replicatord/replicatord/resp"
	"github.com/replicatord/replicatord/resp/command"
)

const (
	reloadTime = time.Minute // for the view to be filled again
	digestScan = "1000"
)

// debug answers what of DEBUG is about data.
func (n *Node) debug(s *resp.Session, out *command.Reply, args [][]byte) error {
	switch strings.ToLower(string(args[1])) {
	case "reload", "loadaof":
		if err := n.reload(s); err != nil {
			return err
		}
		out.OK()
	case "digest":
		sum, err := n.dataDigest()
		if err != nil {
			return err
		}
		out.Status(hex.EncodeToString(sum[:]))
	case "digest-value":
		out.Array(len(args) - 2)
		for _, key := range args[2:] {
			sum, err := n.valueDigest(int(s.DB()), key)
			if err != nil {
				return err
			}
			out.Status(hex.EncodeToString(sum[:]))
		}
	case "object":
		return n.debugObject(out, int(s.DB()), args[2])
	case "set-active-expire":
		on, _ := strconv.Atoi(string(args[2])) // as Redis reads it: what is no number is 0
		if err := n.exec.Run(func(c *Core) { c.lazyExpiry = on == 0 }); err != nil {
			return err
		}
		out.OK()
	}
	return nil
}

// reload empties the view, has it filled from the cells again, and returns
// when it is.
func (n *Node) reload(s *resp.Session) error {
	var failed error
	before := n.recovery.rebuilds.Load()
	err := n.exec.Run(func(c *Core) {
		if failed = c.Commit(); failed == nil {
			c.begin()
			c.newGeneration()
			failed = c.Commit()
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	n.pump.Send(&Batch{Lose: errors.New("a client wants it filled again (DEBUG RELOAD)")})
	over := time.NewTimer(reloadTime)
	defer over.Stop()
	poll := time.NewTicker(waitPoll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
			if n.recovery.rebuilds.Load() > before && n.recovery.up.Load() {
				return nil
			}
		case <-over.C:
			return errors.New("the view is not level yet; it is being filled on")
		case <-s.Gone():
			return nil
		case <-n.ctx.Done():
			return n.ctx.Err()
		}
	}
}

// sum is a digest of data. Equal data have equal sums, however they came
// about; sums of keys are put together by XOR, so that order is nothing.
type sum [sha1.Size]byte

func (s *sum) mix(b []byte) {
	for i, x := range sha1.Sum(b) {
		s[i] ^= x
	}
}

// dataDigest digests all that clients see, in all databases. What is written
// meanwhile may be in it or not.
func (n *Node) dataDigest() (all sum, err error) {
	for db := range userDBs {
		for cursor := []byte("0"); ; {
			raw, err := n.ask(db, "SCAN", string(cursor), "COUNT", digestScan)
			if err != nil {
				return all, err
			}
			rest, _ := bytes.CutPrefix(raw, []byte("*2\r\n"))
			next, size := readBulk(rest)
			for _, key := range readBulks(rest[size:]) {
				value, err := n.valueDigest(db, key)
				if err != nil {
					return all, err
				}
				ttl, err := n.ask(db, "PTTL", string(key))
				if err != nil {
					return all, err
				}
				all.mix(fmt.Appendf(nil, "%d %d %s %x expires %t", db, len(key), key, value, ttl[1] != '-'))
			}
			if cursor = next; size == 0 || string(cursor) == "0" {
				break
			}
		}
	}
	return all, nil
}

// valueDigest digests a value; that of a key that is not there is zero.
func (n *Node) valueDigest(db int, key []byte) (value sum, err error) {
	raw, err := n.ask(db, "TYPE", string(key))
	if err != nil {
		return value, err
	}
	kind := string(bytes.TrimSpace(raw[1:]))
	k := string(key)
	var args []string
	var group int // elements that belong together, in any order; 0: the order counts
	switch kind {
	case "none":
		return value, nil
	case "string":
		args = []string{"GET", k}
	case "list":
		args = []string{"LRANGE", k, "0", "-1"}
	case "set":
		args, group = []string{"SMEMBERS", k}, 1
	case "hash":
		args, group = []string{"HGETALL", k}, 2
	case "zset":
		args = []string{"ZRANGE", k, "0", "-1", "WITHSCORES"}
	case "stream":
		args = []string{"XRANGE", k, "-", "+"}
	default:
		return value, fmt.Errorf("a value of type %s has no digest", kind)
	}
	if raw, err = n.ask(db, args...); err != nil {
		return value, err
	}
	if group > 0 {
		list := readBulks(raw)
		var parts [][]byte
		for i := 0; i+group <= len(list); i += group {
			var part []byte
			for _, b := range list[i : i+group] {
				part = append(fmt.Appendf(part, "%d ", len(b)), b...)
			}
			parts = append(parts, part)
		}
		slices.SortFunc(parts, bytes.Compare)
		raw = bytes.Join(parts, []byte("\n"))
	}
	value.mix(fmt.Appendf(nil, "%s %s", kind, raw))
	return value, nil
}

// ask asks the view; an error reply is an error.
func (n *Node) ask(db int, args ...string) ([]byte, error) {
	list := make([][]byte, len(args))
	for i, a := range args {
		list[i] = []byte(a)
	}
	raw, err := n.pump.Ask(db, list...)
	if err == nil && (len(raw) == 0 || raw[0] == '-') {
		err = errors.New(strings.TrimPrefix(string(bytes.TrimSpace(raw)), "-ERR "))
	}
	return raw, err
}

// debugObject tells of a key what the view tells any client.
func (n *Node) debugObject(out *command.Reply, db int, key []byte) error {
	encoding, err := n.ask(db, "OBJECT", "ENCODING", string(key))
	if err != nil {
		return err
	}
	name, size := readBulk(encoding)
	if size == 0 {
		out.Error("ERR no such key")
		return nil
	}
	dump, err := n.ask(db, "DUMP", string(key))
	if err != nil {
		return err
	}
	body, _ := readBulk(dump)
	idle, err := n.pump.Ask(db, []byte("OBJECT"), []byte("IDLETIME"), key)
	if err != nil {
		return err
	}
	seconds, _ := strconv.ParseInt(string(bytes.TrimSpace(idle[1:])), 10, 64)
	const envelope = 10 // version and checksum
	out.Status(fmt.Sprintf("Value at:0x0 refcount:1 encoding:%s serializedlength:%d lru:0 lru_seconds_idle:%d", name, max(len(body)-envelope-1, 0), seconds))
	return nil
}
