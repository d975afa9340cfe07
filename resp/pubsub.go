package resp

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/replicatord/replicatord/resp/acl"
	"github.com/replicatord/replicatord/resp/command"
)

// subKind is what a subscription is for.
type subKind int

const (
	toChannel subKind = iota
	toPattern
	toShard
)

// subVerbs are the first words of the messages about each kind: of a
// subscription's beginning, its end, and what comes by it.
var subVerbs = [...]struct{ begin, end, message string }{
	toChannel: {"subscribe", "unsubscribe", "message"},
	toPattern: {"psubscribe", "punsubscribe", "pmessage"},
	toShard:   {"ssubscribe", "sunsubscribe", "smessage"},
}

// inPubSub are the commands that a RESP2 client with subscriptions may send.
var inPubSub = map[string]bool{
	"PING": true, "SUBSCRIBE": true, "SSUBSCRIBE": true, "UNSUBSCRIBE": true, "SUNSUBSCRIBE": true,
	"PSUBSCRIBE": true, "PUNSUBSCRIBE": true, "QUIT": true, "RESET": true,
}

// hub knows who has subscribed to what. With its lock held every message
// reaches all its subscribers, so all of them see one order. It only hands
// messages to outputs, and waits for nobody.
type hub struct {
	mu   sync.Mutex
	subs [3]map[string]map[*Session]struct{} // by kind
}

// subCost is what a subscription takes of the budget beside its name, in bytes.
const subCost = 256

func (h *hub) init() {
	for k := range h.subs {
		h.subs[k] = map[string]map[*Session]struct{}{}
	}
}

// add subscribes a session and reports whether it had not been.
func (h *hub) add(c *Session, kind subKind, name string) bool {
	if _, had := c.subs[kind][name]; had {
		return false
	}
	if c.subs[kind] == nil {
		c.subs[kind] = map[string]struct{}{}
	}
	c.subs[kind][name] = struct{}{}
	c.subCount[kind].Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	who := h.subs[kind][name]
	if who == nil {
		who = map[*Session]struct{}{}
		h.subs[kind][name] = who
	}
	who[c] = struct{}{}
	return true
}

// remove ends a subscription, if there is one. Nothing is pushed by it any
// more when it returns.
func (h *hub) remove(c *Session, kind subKind, name string) {
	if _, had := c.subs[kind][name]; !had {
		return
	}
	delete(c.subs[kind], name)
	c.subCount[kind].Add(-1)
	c.server.budget.give(int64(len(name)) + subCost)
	h.mu.Lock()
	defer h.mu.Unlock()
	who := h.subs[kind][name]
	delete(who, c)
	if len(who) == 0 {
		delete(h.subs[kind], name)
	}
}

// allowed reports whether rules allow all that a session has subscribed to.
func (h *hub) allowed(c *Session, r *acl.Rules) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for kind, subs := range h.subs {
		for name, who := range subs {
			if _, ok := who[c]; ok && !r.MaySubscribe([]byte(name), subKind(kind) == toPattern) {
				return false
			}
		}
	}
	return true
}

// listened reports whether a message to some channel might have a receiver.
func (h *hub) listened() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs[toChannel]) > 0 || len(h.subs[toPattern]) > 0
}

// publish pushes a message to its subscribers and returns how many times it
// has one: a client that has it by several patterns gets it as often. payload
// must not be changed afterwards.
func (h *hub) publish(channel, payload []byte, shard bool) (receivers int) {
	kind := toChannel
	if shard {
		kind = toShard
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if who := h.subs[kind][string(channel)]; len(who) > 0 {
		m := &message{write: func(r *command.Reply) {
			r.Push(3)
			r.BulkString(subVerbs[kind].message)
			r.Bulk(channel)
			r.Bulk(payload)
		}}
		for c := range who {
			c.push(m)
		}
		receivers = len(who)
	}
	if shard {
		return receivers
	}
	for pattern, who := range h.subs[toPattern] {
		if !command.Match([]byte(pattern), channel, false) {
			continue
		}
		m := &message{write: func(r *command.Reply) {
			r.Push(4)
			r.BulkString(subVerbs[toPattern].message)
			r.BulkString(pattern)
			r.Bulk(channel)
			r.Bulk(payload)
		}}
		for c := range who {
			c.push(m)
		}
		receivers += len(who)
	}
	return receivers
}

// Publish delivers a message to the clients of this server that subscribe to
// the channel, and returns how many of their subscriptions it met. It waits
// for nobody, and keeps what it is given.
func (s *Server) Publish(channel, payload []byte, shard bool) int {
	return s.hub.publish(channel, payload, shard)
}

// push sends a message to the client, from any goroutine and without waiting.
// A client that lets too many wait is disconnected.
func (c *Session) push(m *message) { c.send(m, false) }

// send is push; own as in output.push.
func (c *Session) send(m *message, own bool) {
	o := c.queuedOn.Load()
	if o == nil {
		return
	}
	lim := pushLimit{hard: c.server.settings.maxOutput.Load()}
	if c.subscribed() {
		lim = *c.server.settings.pubsub.Load()
	}
	if err := o.push(m, own, lim); err != nil {
		c.kill(err)
	}
}

// subscribed reports whether the client has subscriptions.
func (c *Session) subscribed() bool {
	return c.subCount[toChannel].Load() > 0 || c.subCount[toPattern].Load() > 0 || c.subCount[toShard].Load() > 0
}

// Proto returns the protocol the client speaks, 2 or 3.
func (c *Session) Proto() int { return int(c.proto.Load()) }

// setProto changes the protocol the client speaks.
func (c *Session) setProto(proto int) {
	c.reply.Proto = proto
	c.proto.Store(int32(proto))
	c.out.speak(proto)
}

// endPushes ends everything by which others push to the session.
func (c *Session) endPushes() {
	for kind := range subVerbs {
		c.unsubscribeAll(subKind(kind))
	}
	c.server.trackers.stop(c)
	c.server.monitors.remove(c)
}

func (c *Session) unsubscribeAll(kind subKind) {
	for _, name := range slices.Collect(maps.Keys(c.subs[kind])) {
		c.server.hub.remove(c, kind, name)
	}
}

// confirm replies that a subscription has begun or ended. The count is of the
// client's subscriptions to channels and patterns, or to shard channels.
func (c *Session) confirm(verb string, name *string, kind subKind) {
	c.pushing = true
	c.reply.Push(3)
	c.reply.BulkString(verb)
	if name == nil {
		c.reply.Null()
	} else {
		c.reply.BulkString(*name)
	}
	n := len(c.subs[toShard])
	if kind != toShard {
		n = len(c.subs[toChannel]) + len(c.subs[toPattern])
	}
	c.reply.Int(int64(n))
}

func subscribe(kind subKind) handler {
	return func(c *Session, args [][]byte) {
		for _, a := range args[1:] {
			name := string(a)
			if _, had := c.subs[kind][name]; !had {
				if !c.server.budget.take(int64(len(name)) + subCost) {
					c.kill(errMemory)
					return
				}
				c.server.hub.add(c, kind, name)
			}
			c.confirm(subVerbs[kind].begin, &name, kind)
		}
	}
}

func unsubscribe(kind subKind) handler {
	return func(c *Session, args [][]byte) {
		verb := subVerbs[kind].end
		var names []string
		for _, a := range args[1:] {
			names = append(names, string(a))
		}
		if len(args) == 1 {
			names = slices.Sorted(maps.Keys(c.subs[kind]))
		}
		for _, name := range names {
			c.server.hub.remove(c, kind, name)
			c.out.merge() // what came by it goes before
			c.confirm(verb, &name, kind)
		}
		if len(names) == 0 {
			c.confirm(verb, nil, kind)
		}
	}
}

// publish answers PUBLISH and SPUBLISH: with the receivers at this node, as
// Redis does; those of others are not counted.
func publish(shard bool) handler {
	return func(c *Session, args [][]byte) {
		n := c.server.hub.publish(args[1], args[2], shard)
		c.server.backend.Publish(args[1], args[2], shard)
		c.reply.Int(int64(n))
	}
}

// channels answers PUBSUB CHANNELS and SHARDCHANNELS.
func channels(kind subKind) handler {
	return func(c *Session, args [][]byte) {
		if len(args) > 3 {
			c.reply.Error(errSubcommandSyntax("PUBSUB", args[1]))
			return
		}
		h := &c.server.hub
		h.mu.Lock()
		names := slices.Collect(maps.Keys(h.subs[kind]))
		h.mu.Unlock()
		if len(args) == 3 {
			names = slices.DeleteFunc(names, func(name string) bool { return !command.Match(args[2], []byte(name), false) })
		}
		slices.Sort(names)
		c.reply.Array(len(names))
		for _, name := range names {
			c.reply.BulkString(name)
		}
	}
}

// numSub answers PUBSUB NUMSUB and SHARDNUMSUB.
func numSub(kind subKind) handler {
	return func(c *Session, args [][]byte) {
		h := &c.server.hub
		h.mu.Lock()
		defer h.mu.Unlock()
		c.reply.Array(2 * len(args[2:]))
		for _, name := range args[2:] {
			c.reply.Bulk(name)
			c.reply.Int(int64(len(h.subs[kind][string(name)])))
		}
	}
}

// info adds what INFO says of channels.
func (h *hub) info(sec *Section) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sec.Add("pubsub_channels", itoa(len(h.subs[toChannel])))
	sec.Add("pubsub_patterns", itoa(len(h.subs[toPattern])))
	sec.Add("pubsubshard_channels", itoa(len(h.subs[toShard])))
}

func numPat(c *Session, _ [][]byte) {
	h := &c.server.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	c.reply.Int(int64(len(h.subs[toPattern])))
}

// errSubcommandSyntax is Redis's error for a subcommand with arguments that it
// does not take.
func errSubcommandSyntax(container string, sub []byte) string {
	return "ERR unknown subcommand or wrong number of arguments for '" + shown(sub) + "'. Try " + container + " HELP."
}

var pubsubHelp = []string{
	"PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"CHANNELS [<pattern>]",
	"    Return the currently active channels matching a <pattern> (default: '*').",
	"NUMPAT",
	"    Return number of subscriptions to patterns.",
	"NUMSUB [<channel> ...]",
	"    Return the number of subscribers for the specified channels, excluding",
	"    pattern subscriptions(default: no channels).",
	"SHARDCHANNELS [<pattern>]",
	"    Return the currently active shard level channels matching a <pattern> (default: '*').",
	"SHARDNUMSUB [<shardchannel> ...]",
	"    Return the number of subscribers for the specified shard level channel(s)",
	"HELP",
	"    Prints this help.",
}

// errPubSubClass is Redis's text for limits it cannot read.
var errPubSubClass = errors.New("Error in hard, soft or soft_seconds setting in buffer limit configuration.") //nolint:staticcheck // Redis's own text
