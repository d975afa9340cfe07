package resp

import (
	"strings"
	"time"

	"github.com/replicatord/replicatord/resp/acl"
	"github.com/replicatord/replicatord/resp/command"
)

// What a session answers to a request that its user may not make. In a
// transaction that is carried out, and in a script, Redis says it in other
// words.
var denials = map[acl.Where]map[acl.Denied]string{
	acl.TopLevel: {
		acl.DeniedKey:     "NOPERM this user has no permissions to access one of the keys used as arguments",
		acl.DeniedChannel: "NOPERM this user has no permissions to access one of the channels used as arguments",
	},
	acl.InMulti: {
		acl.DeniedCommand: errRulesChanged + "no permission to execute the command or subcommand",
		acl.DeniedKey:     errRulesChanged + "no permission to touch the specified keys",
		acl.DeniedChannel: errRulesChanged + "no permission to access one of the channels used as arguments",
	},
	acl.InScript: {
		acl.DeniedCommand: "ERR The user executing the script can't run this command or subcommand",
		acl.DeniedKey:     "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments",
		acl.DeniedChannel: "ERR The user executing the script can't publish to the channel mentioned in the command",
	},
}

const errRulesChanged = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. " +
	"This command is no longer allowed for the following reason: "

// permit returns "" if the session's user may make a request, else the error
// for it, without a dash; the denial is logged. The request has the right
// number of arguments. No database is forbidden, in Redis 7.0, so db changes
// nothing.
func (c *Session) permit(cmd *command.Command, args [][]byte, _ uint8) string {
	why, arg := c.user().Rules().Check(cmd, args)
	if why == acl.Allowed {
		return c.permitPatterns(cmd, args)
	}
	where := acl.TopLevel
	if c.multi != nil {
		where = acl.InMulti // though it is answered as if it were not
	}
	c.denied(where, why, cmd, args, arg)
	if why == acl.DeniedCommand {
		return "NOPERM this user has no permissions to run the '" + strings.ToLower(cmd.Name) + "' command"
	}
	return denials[acl.TopLevel][why]
}

// PermitWithin is permit for a command that a transaction or script carries
// out, in the words of that. It may be called wherever the session's commands
// are executed.
func (c *Session) PermitWithin(where acl.Where, cmd *command.Command, args [][]byte) string {
	why, arg := c.user().Rules().Check(cmd, args)
	if why == acl.Allowed {
		return c.permitPatterns(cmd, args)
	}
	c.denied(where, why, cmd, args, arg)
	return denials[where][why]
}

// denied logs a denial.
func (c *Session) denied(where acl.Where, why acl.Denied, cmd *command.Command, args [][]byte, arg int) {
	object := strings.ToLower(cmd.Name)
	if why != acl.DeniedCommand {
		object = string(args[arg])
	}
	c.logDenial(where, why, object, c.user().Name())
}

func (c *Session) logDenial(where acl.Where, why acl.Denied, object, user string) {
	s := c.server
	s.denied.Add(acl.Entry{Reason: why, Where: where, Object: object, User: user, At: time.Now(), Client: c.line()},
		int(min(s.settings.aclLogLen.Load(), maxACLLogLen)))
	switch why {
	case acl.DeniedCommand:
		s.stats.deniedCommand.Add(1)
	case acl.DeniedKey:
		s.stats.deniedKey.Add(1)
	case acl.DeniedChannel:
		s.stats.deniedChannel.Add(1)
	case acl.DeniedAuth:
		s.stats.authFailures.Add(1)
	}
}

// permitPatterns returns an error if the patterns of a SORT may read keys that
// the user may not.
func (c *Session) permitPatterns(cmd *command.Command, args [][]byte) string {
	if cmd.Name != "SORT" && cmd.Name != "SORT_RO" || c.user().Rules().CheckAll(cmd, args) {
		return ""
	}
	for i := 2; i < len(args); i++ {
		left := len(args) - 1 - i
		switch {
		case equalFold(args[i], "asc"), equalFold(args[i], "desc"), equalFold(args[i], "alpha"):
		case equalFold(args[i], "limit") && left >= 2:
			i += 2
		case equalFold(args[i], "store") && left >= 1:
			i++
		case equalFold(args[i], "by") && left >= 1:
			i++
			if strings.Contains(string(args[i]), "*") {
				return "ERR BY option of SORT denied due to insufficient ACL permissions."
			}
		case equalFold(args[i], "get") && left >= 1:
			return "ERR GET option of SORT denied due to insufficient ACL permissions."
		default:
			return "" // a syntax error, which the command tells
		}
	}
	return ""
}

// user returns the session's user.
func (c *Session) user() *acl.User { return c.who.Load() }

// dismiss ends the sessions of users that are no more: c's own when it has its
// reply.
func (c *Session) dismiss(gone []*acl.User) {
	if len(gone) == 0 {
		return
	}
	for _, o := range c.server.clients() {
		for _, u := range gone {
			if o.user() != u {
				continue
			}
			if o == c {
				c.last = true
				c.authed = false
			} else {
				o.kill(errNoUser)
			}
		}
	}
}
