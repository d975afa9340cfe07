package command

// transactionCommands are the rows of transactions. The front end gathers them;
// WATCH and UNWATCH are carried out where commands run, because they are told
// of changes there.
var transactionCommands = []*Command{
	{Name: "MULTI", Arity: 1, Flags: Session | NoScript | Loading | Stale | Fast | AllowBusy, Group: "transactions", Since: "1.2.0",
		Summary: "Begins a transaction"},
	{Name: "EXEC", Arity: 1, Flags: Session | NoScript | Loading | Stale | SkipSlowlog, Group: "transactions", Since: "1.2.0",
		Summary: "Carries out the commands of a transaction, as one"},
	{Name: "DISCARD", Arity: 1, Flags: Session | NoScript | Loading | Stale | Fast | AllowBusy, Group: "transactions", Since: "2.0.0",
		Summary: "Forgets the commands of a transaction"},
	{Name: "WATCH", Arity: -2, Flags: ReadOnly | Unlisted | NoScript | Loading | Stale | Fast | AllowBusy, First: 1, Last: -1, Step: 1,
		Group: "transactions", Since: "2.2.0", Summary: "Makes EXEC do nothing if one of the keys changes before", Run: watch},
	{Name: "UNWATCH", Arity: 1, Flags: ReadOnly | Unlisted | NoScript | Loading | Stale | Fast | AllowBusy, Group: "transactions", Since: "2.2.0",
		Summary: "Watches no key any more", Run: func(c *Context) {
			if c.Watches != nil {
				c.Watches.Unwatch()
			}
			c.Out.OK()
		}},
}

func watch(c *Context) {
	if c.Watches != nil {
		for i := 1; i < len(c.Args); i++ {
			c.Watches.Watch(c.Key(i))
		}
	}
	c.Out.OK()
}
