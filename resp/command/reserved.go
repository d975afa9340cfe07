package command

// reservedCommands are the rows of what Redis 7.0 has and the node can never
// carry out, being what it is. They tell all that Redis's rows tell, so that
// rules about users and COMMAND know the names.
var reservedCommands = []*Command{
	{Name: "CLUSTER", Arity: -2, Group: "cluster", Since: "3.0.0", Sub: []*Command{
		{Name: "CLUSTER|ADDSLOTS", Arity: -3, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|ADDSLOTSRANGE", Arity: -4, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "7.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|BUMPEPOCH", Arity: 2, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|COUNT-FAILURE-REPORTS", Arity: 3, Flags: Operator | Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|COUNTKEYSINSLOT", Arity: 3, Flags: Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|DELSLOTS", Arity: -3, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|DELSLOTSRANGE", Arity: -4, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "7.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|FAILOVER", Arity: -2, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|FLUSHSLOTS", Arity: 2, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|FORGET", Arity: 3, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|GETKEYSINSLOT", Arity: 4, Flags: Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|HELP", Arity: 2, Flags: Loading | Stale, Group: "cluster", Since: "5.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|INFO", Arity: 2, Flags: Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|KEYSLOT", Arity: 3, Flags: Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|LINKS", Arity: 2, Flags: Stale, Group: "cluster", Since: "7.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|MEET", Arity: -4, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|MYID", Arity: 2, Flags: Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|NODES", Arity: 2, Flags: Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|REPLICAS", Arity: 3, Flags: Operator | Stale, Group: "cluster", Since: "5.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|REPLICATE", Arity: 3, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|RESET", Arity: -2, Flags: Operator | NoScript | Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|SAVECONFIG", Arity: 2, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|SET-CONFIG-EPOCH", Arity: 3, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|SETSLOT", Arity: -4, Flags: Operator | Stale | NoAsyncLoading, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|SHARDS", Arity: 2, Flags: Stale, Group: "cluster", Since: "7.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|SLAVES", Arity: 3, Flags: Operator | Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
		{Name: "CLUSTER|SLOTS", Arity: 2, Flags: Stale, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
	}},
	{Name: "ASKING", Arity: 1, Flags: Fast, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
	{Name: "READONLY", Arity: 1, Flags: Loading | Stale | Fast, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
	{Name: "READWRITE", Arity: 1, Flags: Loading | Stale | Fast, Group: "cluster", Since: "3.0.0", Refused: refusedCluster},
	{Name: "FAILOVER", Arity: -1, Flags: Operator | NoScript | Stale, Group: "server", Since: "6.2.0", Refused: refusedReplication},
	{Name: "PSYNC", Arity: -3, Flags: Operator | NoScript | NoAsyncLoading | NoMulti, Group: "server", Since: "2.8.0", Refused: refusedReplication},
	{Name: "REPLCONF", Arity: -1, Flags: Operator | NoScript | Loading | Stale | AllowBusy, Group: "server", Since: "3.0.0", Refused: refusedReplication},
	{Name: "SYNC", Arity: 1, Flags: Operator | NoScript | NoAsyncLoading | NoMulti, Group: "server", Since: "1.0.0", Refused: refusedReplication},
}
