package command

import "slices"

// Why commands are refused. A reason that begins with "ERR " is Redis's own
// error.
const (
	refusedType        = "this type is not replicated yet"
	refusedMigrate     = "a key belongs to every node of the cluster: copy it to another Redis by DUMP and RESTORE"
	refusedReplication = "the node replicates in its own way; see MEET and REPLICAS"
	refusedRewrite     = "the configuration file is the operator's: change it there"
	refusedModules     = "what a module wrote would be in no log and at no other node"
	refusedCluster     = "ERR This instance has cluster support disabled"
)

// refusedCommands are the rows of commands that Redis 7.0 has and the node does
// not carry out. They have what it takes to tell a wrong number of arguments,
// as Redis does first.
var refusedCommands = slices.Concat(
	refuse(refusedType, map[string]int{
		"XACK": -4, "XADD": -5, "XAUTOCLAIM": -6,
		"XCLAIM": -6, "XDEL": -3, "XGROUP": -2, "XREADGROUP": -7, "XSETID": -3, "XTRIM": -4,
	}),
	refuse(refusedMigrate, map[string]int{
		"MIGRATE": -6, "RESTORE-ASKING": -4,
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
