package command

import "slices"

// Why commands are refused. A reason that begins with "ERR " is Redis's own
// error.
const (
	refusedType         = "this type is not replicated yet"
	refusedBlocking     = "commands that wait are not supported yet"
	refusedTransactions = "transactions are not supported yet"
	refusedScripts      = "scripts are not supported yet"
	refusedPubSub       = "publish and subscribe are not supported yet"
	refusedDump         = "serialised values cannot be taken in as replicated ones yet"
	refusedSwap         = "databases cannot be swapped while others write to them"
	refusedReplication  = "the node replicates in its own way; see MEET and REPLICAS"
	refusedServer       = "the node does not let clients do this"
	refusedTracking     = "the node does not track what clients have read"
	refusedRewrite      = "the configuration file is the operator's: change it there"
	refusedUsers        = "there is one user, whose password requirepass sets"
	refusedMemory       = "the node and its view each have memory of their own"
	refusedCluster      = "ERR This instance has cluster support disabled"
)

// refusedCommands are the rows of commands that Redis 7.0 has and the node does
// not carry out. They have what it takes to tell a wrong number of arguments,
// as Redis does first.
var refusedCommands = slices.Concat(
	refuse(refusedType, map[string]int{
		"GEOADD": -5, "GEOSEARCHSTORE": -8, "PFADD": -2, "PFCOUNT": -2, "PFDEBUG": 3, "PFMERGE": -2,
		"PFSELFTEST": 1, "ZADD": -4, "ZDIFFSTORE": -4, "ZINCRBY": 4, "ZINTERSTORE": -4,
		"ZMPOP": -4, "ZPOPMAX": -2, "ZPOPMIN": -2, "ZRANGESTORE": -5, "ZREM": -3, "ZREMRANGEBYLEX": 4,
		"ZREMRANGEBYRANK": 4, "ZREMRANGEBYSCORE": 4, "ZUNIONSTORE": -4, "XACK": -4, "XADD": -5, "XAUTOCLAIM": -6,
		"XCLAIM": -6, "XDEL": -3, "XGROUP": -2, "XREADGROUP": -7, "XSETID": -3, "XTRIM": -4,
	}),
	refuse(refusedBlocking, map[string]int{
		"BZMPOP": -5, "BZPOPMAX": -3, "BZPOPMIN": -3,
	}),
	refuse(refusedTransactions, map[string]int{
		"DISCARD": 1, "EXEC": 1, "MULTI": 1, "UNWATCH": 1, "WATCH": -2,
	}),
	refuse(refusedScripts, map[string]int{
		"EVAL": -3, "EVAL_RO": -3, "EVALSHA": -3, "EVALSHA_RO": -3, "FCALL": -3, "FCALL_RO": -3,
		"FUNCTION": -2, "SCRIPT": -2,
	}),
	refuse(refusedPubSub, map[string]int{
		"PSUBSCRIBE": -2, "PUBLISH": 3, "PUBSUB": -2, "PUNSUBSCRIBE": -1, "SPUBLISH": 3, "SSUBSCRIBE": -2,
		"SUBSCRIBE": -2, "SUNSUBSCRIBE": -1, "UNSUBSCRIBE": -1,
	}),
	refuse(refusedDump, map[string]int{
		"MIGRATE": -6, "RESTORE": -4, "RESTORE-ASKING": -4,
	}),
	refuse(refusedSwap, map[string]int{
		"SWAPDB": 3,
	}),
	refuse(refusedReplication, map[string]int{
		"WAIT": 3, "FAILOVER": -1, "PSYNC": -3, "REPLCONF": -1, "REPLICAOF": 3,
		"SLAVEOF": 3, "SYNC": 1,
	}),
	refuse(refusedServer, map[string]int{
		"DEBUG": -2, "LATENCY": -2, "MODULE": -2,
		"MONITOR": 1,
	}),
	refuse(refusedCluster, map[string]int{
		"ASKING": 1, "CLUSTER": -2, "READONLY": 1, "READWRITE": 1,
	}),
)

// refuse makes rows of names and arities.
func refuse(reason string, arities map[string]int) []*Command {
	rows := make([]*Command, 0, len(arities))
	for name, arity := range arities {
		rows = append(rows, &Command{Name: name, Arity: arity, Refused: reason})
	}
	return rows
}
