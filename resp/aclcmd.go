package resp

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/replicatord/replicatord/resp/acl"
	"github.com/replicatord/replicatord/resp/command"
)

const (
	maxGenPass = 4096 // bits
	errNoFile  = "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis configuration."
)

var errNoUser = errors.New("its user was deleted")

// aclHandlers answer ACL.
func aclHandlers() map[string]handler {
	return map[string]handler{
		"ACL|CAT": aclCat, "ACL|DELUSER": aclDelUser, "ACL|DRYRUN": aclDryRun, "ACL|GENPASS": aclGenPass,
		"ACL|GETUSER": aclGetUser, "ACL|HELP": help(aclHelp), "ACL|LIST": aclList, "ACL|LOAD": aclLoad, "ACL|LOG": aclLog,
		"ACL|SAVE": aclSave, "ACL|SETUSER": aclSetUser, "ACL|USERS": aclUsers, "ACL|WHOAMI": aclWhoAmI,
	}
}

func (c *Session) bulks(list []string) {
	c.reply.Array(len(list))
	for _, s := range list {
		c.reply.BulkString(s)
	}
}

// wrongSub is Redis's error for too many arguments of a subcommand that it
// cannot count beforehand.
func (c *Session) wrongSub(args [][]byte) {
	c.reply.Error("ERR unknown subcommand or wrong number of arguments for '" + shown(args[1]) + "'. Try " + strings.ToUpper(string(args[0])) + " HELP.")
}

func aclCat(c *Session, args [][]byte) {
	switch len(args) {
	case 2:
		c.bulks(command.Categories)
	case 3:
		list, ok := acl.InCategory(string(args[2]))
		if !ok {
			c.reply.Error("ERR Unknown category '" + shown(args[2]) + "'")
			return
		}
		c.bulks(list)
	default:
		c.wrongSub(args)
	}
}

func aclSetUser(c *Session, args [][]byte) {
	ops := make([]string, 0, len(args)-3)
	for _, a := range args[3:] {
		ops = append(ops, string(a))
	}
	u, before, err := c.server.users.Set(string(args[2]), ops)
	if err != nil {
		c.reply.Error("ERR " + lineEnds.Replace(err.Error()))
		return
	}
	if before != nil && !u.Rules().KeepsChannels(before) {
		c.endSubscribers(u)
	}
	c.server.log.Info("a user's rules were set by a client", c.LogAttr(), "user", u.Name())
	c.reply.OK()
}

// endSubscribers ends the sessions of a user that listen to what its rules no
// longer allow.
func (c *Session) endSubscribers(u *acl.User) {
	for _, o := range c.server.clients() {
		if o.user() != u || !o.subscribed() || c.server.hub.allowed(o, u.Rules()) {
			continue
		}
		if o == c {
			c.last = true
		} else {
			o.kill(errors.New("its user may no longer use a channel that it listens to"))
		}
	}
}

func aclDelUser(c *Session, args [][]byte) {
	var names []string
	for _, a := range args[2:] {
		if string(a) == acl.Default {
			c.reply.Error("ERR The 'default' user cannot be removed")
			return
		}
		names = append(names, string(a))
	}
	gone := c.server.users.Delete(names)
	c.dismiss(gone)
	for _, u := range gone {
		c.server.log.Info("a user was deleted by a client", c.LogAttr(), "user", u.Name())
	}
	c.reply.Int(int64(len(gone)))
}

func aclGetUser(c *Session, args [][]byte) {
	u := c.server.users.Get(string(args[2]))
	if u == nil {
		c.reply.Null()
		return
	}
	r := u.Rules()
	c.reply.Map(6)
	c.reply.BulkString("flags")
	flags := r.Flags()
	c.reply.Set(len(flags))
	for _, f := range flags {
		c.reply.BulkString(f)
	}
	c.reply.BulkString("passwords")
	c.bulks(r.Passwords())
	list := r.Selectors()
	c.selector(list[0])
	c.reply.BulkString("selectors")
	c.reply.Array(len(list) - 1)
	for _, s := range list[1:] {
		c.reply.Map(3)
		c.selector(s)
	}
}

func (c *Session) selector(s acl.Selector) {
	for _, text := range []string{"commands", s.Commands, "keys", s.Keys, "channels", s.Channels} {
		c.reply.BulkString(text)
	}
}

func aclList(c *Session, _ [][]byte) {
	var lines []string
	for _, u := range c.server.users.All() {
		lines = append(lines, u.Line())
	}
	c.bulks(lines)
}

func aclUsers(c *Session, _ [][]byte) {
	var names []string
	for _, u := range c.server.users.All() {
		names = append(names, u.Name())
	}
	c.bulks(names)
}

func aclWhoAmI(c *Session, _ [][]byte) { c.reply.BulkString(c.user().Name()) }

func aclGenPass(c *Session, args [][]byte) {
	bits := int64(256)
	switch len(args) {
	case 2:
	case 3:
		var ok bool
		if bits, ok = parseInt(args[2]); !ok {
			c.reply.Error(errNotInteger)
			return
		}
	default:
		c.wrongSub(args)
		return
	}
	if bits <= 0 || bits > maxGenPass {
		c.reply.Error(fmt.Sprintf("ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to %d", maxGenPass))
		return
	}
	digits := (bits + 3) / 4
	b := make([]byte, (digits+1)/2)
	_, _ = rand.Read(b) // never fails
	c.reply.BulkString(hex.EncodeToString(b)[:digits])
}

func aclLog(c *Session, args [][]byte) {
	n := int64(10)
	switch {
	case len(args) == 2:
	case len(args) > 3:
		c.wrongSub(args)
		return
	case equalFold(args[2], "reset"):
		c.server.denied.Reset()
		c.reply.OK()
		return
	default:
		var ok bool
		if n, ok = parseInt(args[2]); !ok {
			c.reply.Error(errNotInteger)
			return
		}
	}
	list := c.server.denied.Latest(int(min(n, maxACLLogLen)))
	now := time.Now()
	c.reply.Array(len(list))
	for _, e := range list {
		c.reply.Map(7)
		c.reply.BulkString("count")
		c.reply.Int(int64(e.Count))
		for _, text := range []string{
			"reason", e.Reason.String(), "context", string(e.Where), "object", e.Object, "username", e.User,
		} {
			c.reply.BulkString(text)
		}
		c.reply.BulkString("age-seconds")
		c.reply.Double(float64(now.Sub(e.At).Milliseconds()) / 1000)
		c.reply.BulkString("client-info")
		c.reply.BulkString(e.Client)
	}
}

func aclDryRun(c *Session, args [][]byte) {
	u := c.server.users.Get(string(args[2]))
	if u == nil {
		c.reply.Error("ERR User '" + shown(args[2]) + "' not found")
		return
	}
	args = args[3:]
	cmd := command.Lookup(args)
	switch {
	case cmd == nil:
		c.reply.Error("ERR Command '" + shown(args[0]) + "' not found")
		return
	case cmd.Arity > 0 && len(args) != cmd.Arity, len(args) < -cmd.Arity:
		c.reply.Error("ERR wrong number of arguments for '" + strings.ToLower(cmd.Name) + "' command")
		return
	}
	switch why, arg := u.Rules().Check(cmd, args); why {
	case acl.Allowed:
		c.reply.OK()
	case acl.DeniedCommand:
		c.reply.BulkString("This user has no permissions to run the '" + strings.ToLower(cmd.Name) + "' command")
	default:
		c.reply.BulkString("This user has no permissions to access the '" + string(args[arg]) + "' " + why.String())
	}
}

// loadUsers takes the users from the ACL file; a file that is not there yet is
// an error.
func (s *Server) loadUsers() ([]*acl.User, error) {
	b, err := readFile(s.opt.ACLFile)
	if err != nil {
		return nil, fmt.Errorf("Error loading ACLs, opening file '%s': %w", s.opt.ACLFile, err)
	}
	return s.users.Load(string(b), s.opt.ACLFile, s.settings.password())
}

// readFile reads a file of bounded size. Its errors are the system's alone.
func readFile(name string) ([]byte, error) {
	f, err := os.Stat(name)
	if err == nil && f.Size() > maxACLFile {
		return nil, fmt.Errorf("larger than %d bytes", maxACLFile)
	}
	b, err := os.ReadFile(name)
	var system *fs.PathError
	if errors.As(err, &system) {
		err = system.Err
	}
	return b, err
}

func aclLoad(c *Session, _ [][]byte) {
	if c.server.opt.ACLFile == "" {
		c.reply.Error(errNoFile)
		return
	}
	gone, err := c.server.loadUsers()
	if err != nil {
		c.reply.Error("ERR " + lineEnds.Replace(err.Error()))
		return
	}
	c.dismiss(gone)
	c.server.log.Info("users loaded by a client", c.LogAttr(), "file", c.server.opt.ACLFile)
	c.reply.OK()
}

func aclSave(c *Session, _ [][]byte) {
	s := c.server
	if s.opt.ACLFile == "" {
		c.reply.Error(errNoFile)
		return
	}
	if err := writeFile(s.opt.ACLFile, s.users.Text()); err != nil {
		s.log.Error("the ACL file could not be written", c.LogAttr(), "file", s.opt.ACLFile, "error", err)
		c.reply.Error("ERR There was an error trying to save the ACLs. Please check the server logs for more information")
		return
	}
	s.log.Info("users saved by a client", c.LogAttr(), "file", s.opt.ACLFile)
	c.reply.OK()
}

// writeFile replaces a file whole, and durably: at no moment is there half of it.
// It holds password hashes and so is the owner's alone.
func writeFile(name, text string) error {
	dir, base := filepath.Split(name)
	f, err := os.CreateTemp(dir, base+".tmp-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // no longer there if all went well
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	return err
}

var aclHelp = []string{
	"ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
	"CAT [<category>]",
	"    List all commands that belong to <category>, or all command categories",
	"    when no category is specified.",
	"DELUSER <username> [<username> ...]",
	"    Delete a list of users.",
	"DRYRUN <username> <command> [<arg> ...]",
	"    Returns whether the user can execute the given command without executing the command.",
	"GETUSER <username>",
	"    Get the user's details.",
	"GENPASS [<bits>]",
	"    Generate a secure 256-bit user password. The optional `bits` argument can",
	"    be used to specify a different size.",
	"LIST",
	"    Show users details in config file format.",
	"LOAD",
	"    Reload users from the ACL file.",
	"LOG [<count> | RESET]",
	"    Show the ACL log entries.",
	"SAVE",
	"    Save the current config to the ACL file.",
	"SETUSER <username> <attribute> [<attribute> ...]",
	"    Create or modify a user with the specified attributes.",
	"USERS",
	"    List all the registered usernames.",
	"WHOAMI",
	"    Return the current connection username.",
	"HELP",
	"    Prints this help.",
}
