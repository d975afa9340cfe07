package resp

import (
	"errors"
	"strings"

	"github.com/replicatord/replicatord/resp/acl"
)

const (
	errWrongPass  = "WRONGPASS invalid username-password pair or user is disabled."
	errNoPassword = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"
	errHelloAuth  = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
	errNoProto    = "NOPROTO unsupported protocol version"
	errSyntax     = "ERR syntax error"
	errNotInteger = "ERR value is not an integer or out of range"
	errClientName = "ERR Client names cannot contain spaces, newlines or special characters."
)

// needsPassword reports whether a new connection has to log in.
func (s *Server) needsPassword() bool {
	r := s.users.Default().Rules()
	return !r.NoPass() || !r.Enabled()
}

// Open reports whether a new connection is let in without a password.
func (s *Server) Open() bool { return !s.needsPassword() }

// login checks a user and password, and lets the session in or logs the
// failure; by names the command.
func (c *Session) login(user, pass, by []byte) bool {
	if u := c.server.users.Get(string(user)); u != nil && u.Rules().Authenticates(pass) {
		c.setAuth(u, true)
		return true
	}
	c.logDenial(acl.TopLevel, acl.DeniedAuth, string(by), string(user))
	c.server.log.Warn("a client failed to authenticate", c.LogAttr())
	return false
}

func auth(c *Session, args [][]byte) {
	user, pass := []byte(acl.Default), args[1]
	switch {
	case len(args) > 3:
		c.reply.Error(errSyntax)
		return
	case len(args) == 3:
		user, pass = args[1], args[2]
	case c.server.users.Default().Rules().NoPass():
		c.reply.Error(errNoPassword)
		return
	}
	if !c.login(user, pass, args[0]) {
		c.reply.Error(errWrongPass)
		return
	}
	c.reply.OK()
}

func hello(c *Session, args [][]byte) {
	proto := c.reply.Proto
	if len(args) > 1 {
		switch v, ok := parseInt(args[1]); {
		case !ok:
			c.reply.Error("ERR Protocol version is not an integer or out of range")
			return
		case v != 2 && v != 3:
			c.reply.Error(errNoProto)
			return
		default:
			proto = int(v)
		}
	}
	for i := 2; i < len(args); i++ {
		more := len(args) - 1 - i
		switch {
		case equalFold(args[i], "auth") && more >= 2:
			if !c.login(args[i+1], args[i+2], args[0]) {
				c.reply.Error(errWrongPass)
				return
			}
			i += 2
		case equalFold(args[i], "setname") && more >= 1:
			if err := c.setName(args[i+1]); err != nil {
				c.reply.Error(err.Error())
				return
			}
			i++
		default:
			c.reply.Error("ERR Syntax error in HELLO option '" + shown(args[i]) + "'")
			return
		}
	}
	if c.needsAuth() {
		c.reply.Error(errHelloAuth)
		return
	}
	if proto != c.reply.Proto {
		c.setProto(proto)
	}
	c.reply.Map(7)
	text := func(name, value string) { c.reply.BulkString(name); c.reply.BulkString(value) }
	text("server", "redis")
	text("version", RedisVersion)
	c.reply.BulkString("proto")
	c.reply.Int(int64(proto))
	c.reply.BulkString("id")
	c.reply.Int(c.id)
	text("mode", "standalone")
	text("role", "master")
	c.reply.BulkString("modules")
	c.reply.Array(0)
}

// setName names the connection; the error is for the client.
func (c *Session) setName(name []byte) error {
	if len(name) > maxNameLen {
		return errors.New("ERR the name is longer than 64kb")
	}
	if !plain(name) {
		return errors.New(errClientName) //nolint:staticcheck // Redis's own text
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.name = string(name)
	return nil
}

// plain reports whether b can be shown in a line of fields.
func plain(b []byte) bool {
	for _, ch := range b {
		if ch < '!' || ch > '~' {
			return false
		}
	}
	return true
}

// reset makes a connection as if new.
func reset(c *Session, _ [][]byte) {
	c.discard()
	c.db = 0
	c.dbNow.Store(0)
	c.replyOff, c.out.off = false, false
	c.setAuth(c.server.users.Default(), !c.server.needsPassword())
	c.endPushes()
	c.setProto(2)
	c.mu.Lock()
	c.name = ""
	c.noEvict = false
	c.mu.Unlock()
	c.reply.Status("RESET")
}

func ping(c *Session, args [][]byte) {
	switch {
	case len(args) > 2:
		c.reply.Error("ERR wrong number of arguments for 'ping' command")
	case c.reply.Proto == 2 && c.subscribed():
		c.reply.Array(2)
		c.reply.BulkString("pong")
		if len(args) == 2 {
			c.reply.Bulk(args[1])
		} else {
			c.reply.BulkString("")
		}
	case len(args) == 1:
		c.reply.Status("PONG")
	default:
		c.reply.Bulk(args[1])
	}
}

func echo(c *Session, args [][]byte) { c.reply.Bulk(args[1]) }

func selectDB(c *Session, args [][]byte) {
	n, ok := parseInt(args[1])
	switch {
	case !ok:
		c.reply.Error(errNotInteger)
	case n != int64(int32(n)):
		c.reply.Error("ERR value is out of range, value must between -2147483648 and 2147483647")
	case n < 0 || n >= Databases:
		c.reply.Error("ERR DB index is out of range")
	default:
		c.db = uint8(n)
		c.dbNow.Store(int32(n))
		c.reply.OK()
	}
}

// shown returns what a client sent as an error may repeat it: one line, not
// beyond a zero byte, and not long.
func shown(b []byte) string {
	s, _, _ := strings.Cut(string(b[:min(len(b), 128)]), "\x00")
	return lineEnds.Replace(s)
}
