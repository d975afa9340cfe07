package command

// pubsubCommands are the rows of publish and subscribe, which the front end
// carries out. Channels are no keys.
var pubsubCommands = []*Command{
	{Name: "SUBSCRIBE", Arity: -2, Flags: Session | PubSub | NoScript | Loading | Stale, Group: "pubsub", Since: "2.0.0",
		Summary: "Listens to channels"},
	{Name: "UNSUBSCRIBE", Arity: -1, Flags: Session | PubSub | NoScript | Loading | Stale, Group: "pubsub", Since: "2.0.0",
		Summary: "Listens no longer to channels, or to any"},
	{Name: "PSUBSCRIBE", Arity: -2, Flags: Session | PubSub | NoScript | Loading | Stale, Group: "pubsub", Since: "2.0.0",
		Summary: "Listens to all channels that match patterns"},
	{Name: "PUNSUBSCRIBE", Arity: -1, Flags: Session | PubSub | NoScript | Loading | Stale, Group: "pubsub", Since: "2.0.0",
		Summary: "Listens no longer by patterns, or by any"},
	{Name: "SSUBSCRIBE", Arity: -2, Flags: Session | PubSub | NoScript | Loading | Stale, First: 1, Last: -1, Step: 1, Group: "pubsub", Since: "7.0.0",
		Summary: "Listens to shard channels"},
	{Name: "SUNSUBSCRIBE", Arity: -1, Flags: Session | PubSub | NoScript | Loading | Stale, First: 1, Last: -1, Step: 1, Group: "pubsub", Since: "7.0.0",
		Summary: "Listens no longer to shard channels, or to any"},
	{Name: "PUBLISH", Arity: 3, Flags: Session | PubSub | Loading | Stale | Fast, Group: "pubsub", Since: "2.0.0",
		Summary: "Sends a message to those who listen, at every node"},
	{Name: "SPUBLISH", Arity: 3, Flags: Session | PubSub | Loading | Stale | Fast, First: 1, Last: 1, Step: 1, Group: "pubsub", Since: "7.0.0",
		Summary: "Sends a message to those who listen to a shard channel, at every node"},
	{Name: "PUBSUB", Arity: -2, Group: "pubsub", Since: "2.8.0",
		Summary: "About channels and who listens, at this node", Sub: []*Command{
			{Name: "PUBSUB|CHANNELS", Arity: -2, Flags: Session | PubSub | Loading | Stale, Group: "pubsub", Since: "2.8.0",
				Summary: "The channels that somebody listens to"},
			{Name: "PUBSUB|NUMPAT", Arity: 2, Flags: Session | PubSub | Loading | Stale, Group: "pubsub", Since: "2.8.0",
				Summary: "By how many patterns anybody listens"},
			{Name: "PUBSUB|NUMSUB", Arity: -2, Flags: Session | PubSub | Loading | Stale, Group: "pubsub", Since: "2.8.0",
				Summary: "How many listen to each of some channels"},
			{Name: "PUBSUB|SHARDCHANNELS", Arity: -2, Flags: Session | PubSub | Loading | Stale, Group: "pubsub", Since: "7.0.0",
				Summary: "The shard channels that somebody listens to"},
			{Name: "PUBSUB|SHARDNUMSUB", Arity: -2, Flags: Session | PubSub | Loading | Stale, Group: "pubsub", Since: "7.0.0",
				Summary: "How many listen to each of some shard channels"},
			{Name: "PUBSUB|HELP", Arity: 2, Flags: Session | Loading | Stale, Group: "pubsub", Since: "6.2.0",
				Summary: "The subcommands of PUBSUB"},
		}},
}
